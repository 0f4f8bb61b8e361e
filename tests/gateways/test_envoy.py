"""The example of docs/envoy as a whole: a vendor's own client, the real Envoy, quotad, and a model service that says what was used."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import HandTime, Running

from gateways.clients import KEYS, SECONDS_MAX, begin, ended
from gateways.envoy import ROOT, Envoy, envoy
from gateways.upstream import Upstream, serving
from quota.client import admit_request
from quota.v1 import admin_pb2, quota_pb2

Serve = Callable[..., Running]
EXAMPLES = ROOT / "docs/envoy"
ACCOUNTS = {"anthropic": "ann", "openai": "bob"}
CALLS, TOKENS = "calls-5h", "tokens-day"

clients = pytest.mark.parametrize("client", KEYS)


@dataclass
class World:
    """Everything that runs, and how to ask it."""

    quotad: Running
    upstream: Upstream
    envoy: Envoy

    def ask(self, client: str, *how: str) -> dict[str, Any]:
        """Return what a vendor's client made of one request."""
        return ended(begin(client, self.envoy.url, *how))

    def post(
        self, path: str = "/v1/messages", key: str = "key-of-ann", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request by hand; status, headers and body."""
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.envoy.url + path,
            b'{"model": "claude-sonnet"}',
            {"content-type": "application/json", "x-api-key": key} | own,
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def used(self, account: str) -> tuple[int, int, int]:
        """Calls and tokens that count against an account, and how many holds it has open."""
        usage = self.quotad.data.usage(account)
        units = {limit.id: limit.used_micro // 1_000_000 for limit in usage.limits}
        return units[CALLS], units[TOKENS], len(usage.holds)

    def wait_until_used(self, account: str, calls: int, tokens: int, holds: int = 0) -> None:
        """Return once an account stands so: what a stream used is told after its end, and nobody waits for that."""
        until = time.monotonic() + 10
        while (found := self.used(account)) != (calls, tokens, holds):
            assert time.monotonic() < until, f"calls, tokens, holds of {account} are {found}"
            time.sleep(0.01)

    def draw(self, account: str, meter: str, amount: int) -> None:
        """Use up so much, past any limit."""
        self.quotad.data.admit(admit_request(account, draws={meter: amount}, mode=quota_pb2.RECORD))

    @property
    def questions(self) -> int:
        """How many calls of the gateway quotad has answered."""
        found = [
            line for line in self.quotad.get("/metrics")[1].splitlines()
            if line.startswith("quotad_front_calls_total{") and "ShouldRateLimit" in line and 'status="OK"' in line
        ]  # fmt: skip
        return sum(int(float(line.split()[-1])) for line in found)


@pytest.fixture
def world(serve: Serve, tmp_path: Path) -> Iterator[World]:
    """The example, with an account for each key, and a clock turned by hand."""
    quotad = serve(catalogs=(str(EXAMPLES / "plans.yaml"),), envoy_domains=str(EXAMPLES / "domains.yaml"))
    for account in ACCOUNTS.values():
        quotad.admin.put_account(admin_pb2.Account(id=account, catalog="workbench", plan="starter"))
    with ExitStack() as stack:
        upstream = stack.enter_context(serving(Upstream()))
        yield World(quotad, upstream, stack.enter_context(envoy(quotad.addresses.data, upstream.port, tmp_path)))


@clients
@pytest.mark.parametrize("how", [(), ("stream",)], ids=["at once", "stream"])
def test_what_was_used_is_recorded(world: World, client: str, how: tuple[str, ...]) -> None:
    """a call when it begins, its tokens when they are known; no hold stays."""
    assert "Hello." == world.ask(client, *how)["text"]
    world.wait_until_used(ACCOUNTS[client], calls=1, tokens=42)

    assert 2 == world.questions


@clients
def test_an_exhausted_account_gets_one_error(world: World, client: str) -> None:
    """at once, in words: the client does not sleep until the limit is reset, and does not ask again."""
    world.draw(ACCOUNTS[client], "call", 20)
    told = world.ask(client)

    assert ("RateLimitError", 429) == (told["error"], told["status"])
    assert "Usage limit reached, resets at 2026-07-06 12:00:00" in told["message"]
    assert told["seconds"] < 10
    assert ("18000", "false") == (told["headers"]["retry-after"], told["headers"]["x-should-retry"])
    assert 1 == world.questions
    assert [] == world.upstream.asked


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/messages", {"type": "error", "error": {"type": "rate_limit_error"}}),
        ("/v1/chat/completions", {"error": {"type": "insufficient_quota", "code": "1308", "param": None}}),
        ("/v1/embeddings", {"error": {"code": "1308"}}),
    ],
    ids=["Anthropic", "OpenAI", "vendor"],
)
def test_a_refusal_is_in_the_words_of_its_client(world: World, path: str, shape: dict[str, Any]) -> None:
    """by the path that was called."""
    world.draw("ann", "call", 20)
    status, headers, body = world.post(path)
    told = json.loads(body)

    assert (429, "application/json") == (status, headers["content-type"])
    assert shape == {
        name: {inner: told[name][inner] for inner in value} if isinstance(value, dict) else told[name]
        for name, value in shape.items()
    }
    assert "Usage limit reached" in told["error"]["message"]


def test_use_past_a_limit_is_recorded(world: World) -> None:
    """the client has its answer already; the next request is refused."""
    world.upstream.output_tokens = 50_000
    assert 200 == world.post()[0]
    world.wait_until_used("ann", calls=1, tokens=50_030)

    assert 429 == world.post()[0]
    assert 1 == len(world.upstream.asked)


def test_a_refused_request_records_nothing(world: World) -> None:
    """Envoy's report at a stream's end is sent for those alone that were let through."""
    world.draw("ann", "token", 10_000)
    assert 429 == world.post()[0]
    assert 200 == world.post(key="key-of-bob")[0]
    world.wait_until_used("bob", calls=1, tokens=42)

    assert 3 == world.questions
    assert (0, 10_000, 0) == world.used("ann")


def test_a_request_in_flight_holds_a_place(world: World) -> None:
    """until its stream has ended; nobody else gets that place meanwhile."""
    world.upstream.hold_back = threading.Event()
    threads = [threading.Thread(target=world.post) for _ in range(3)]
    for thread in threads:
        thread.start()
    world.wait_until_used("ann", calls=3, tokens=0, holds=3)

    assert 429 == world.post()[0]
    world.upstream.hold_back.set()
    for thread in threads:
        thread.join(SECONDS_MAX)
    world.wait_until_used("ann", calls=3, tokens=126)
    assert 200 == world.post()[0]


@clients
def test_a_short_wait_is_waited_for(world: World, hand_time: HandTime, client: str) -> None:
    """by the client itself: it asks again after `retry-after`, and is served."""
    for _ in range(5):
        assert 200 == world.post(key=KEYS[client])[0]
    world.wait_until_used(ACCOUNTS[client], calls=5, tokens=5 * 42)
    asking = begin(client, world.envoy.url)
    until = time.monotonic() + SECONDS_MAX
    while world.questions < 11:
        assert time.monotonic() < until
        time.sleep(0.01)
    hand_time.advance(2)
    told = ended(asking)

    assert "Hello." == told["text"]
    assert told["seconds"] >= 2
    assert 6 == len(world.upstream.asked)


def test_a_model_that_fails_keeps_no_place(world: World) -> None:
    """the hold ends with the stream; the call counts, no tokens do."""
    world.upstream.status = 500

    assert 500 == world.post()[0]
    world.wait_until_used("ann", calls=1, tokens=0)


def test_a_client_that_leaves_keeps_no_place(world: World) -> None:
    """Envoy reports the end of a stream that its client has given up, too."""
    world.upstream.hold_back = threading.Event()
    connection = http.client.HTTPConnection(world.envoy.url.removeprefix("http://"))
    headers = {"x-api-key": "key-of-ann", "content-type": "application/json"}
    connection.request("POST", "/v1/messages", '{"model": "claude-sonnet"}', headers)
    world.wait_until_used("ann", calls=1, tokens=0, holds=1)
    connection.close()

    world.wait_until_used("ann", calls=1, tokens=0)


def test_a_client_chooses_neither_account_nor_request_id(world: World) -> None:
    """headers of these names are the gateway's own."""
    for _ in range(2):
        assert 200 == world.post(x_account="bob", x_request_id="mine")[0]
    world.wait_until_used("ann", calls=2, tokens=84)

    assert (0, 0, 0) == world.used("bob")
    assert ["ann", "ann"] == [headers["x-account"] for headers in world.upstream.asked]


def test_an_unknown_key_is_the_gateways_concern(world: World) -> None:
    """quotad is not asked."""
    assert 401 == world.post(key="nobody")[0]
    assert 0 == world.questions
