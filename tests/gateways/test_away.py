"""What Envoy does while quotad does not answer, with the settings that docs/away.md advises and with others."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from gateways.clients import KEYS, begin, ended
from gateways.envoy import Envoy, envoy
from gateways.quotad import EXAMPLES, Quotad
from gateways.upstream import Upstream, serving
from quota.client import AdminClient
from quota.v1 import admin_pb2

DENY = "failure_mode_deny: true"
TIMEOUT = "timeout: 5s"
SOON = {TIMEOUT: "timeout: 0.5s"}

Start = Callable[..., Envoy]


@pytest.fixture
def quotad(tmp_path: Path) -> Iterator[Quotad]:
    running = Quotad(tmp_path, "--envoy-domains", str(EXAMPLES / "domains.yaml"))
    with AdminClient(running.control) as admin:
        for account in ("ann", "bob"):
            admin.put_account(admin_pb2.Account(id=account, catalog="workbench", plan="starter"))
    yield running
    running.stop()


@pytest.fixture
def start(quotad: Quotad, tmp_path: Path) -> Iterator[Start]:
    """Start Envoy with changes to the example, and ask it once while quotad answers."""
    with ExitStack() as stack:
        upstream = stack.enter_context(serving(Upstream()))

        def run(changes: dict[str, str]) -> Envoy:
            gateway = stack.enter_context(envoy(quotad.data, upstream.port, tmp_path, changes))
            assert (200, True) == ask(gateway)[:2]
            return gateway

        yield run


def ask(gateway: Envoy) -> tuple[int, bool, float]:
    """Send one request: its status, whether there is a body, and the seconds that it took."""
    begun = time.monotonic()
    headers = {"x-api-key": "key-of-ann", "content-type": "application/json"}
    with closing(http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("POST", "/v1/messages", '{"model": "claude-sonnet"}', headers)
        response = connection.getresponse()
        return response.status, bool(response.read()), time.monotonic() - begun


def test_stopped_and_denied(quotad: Quotad, start: Start) -> None:
    """503 without a body, once the timeout is over."""
    gateway = start(SOON)
    quotad.stop()

    assert (503, False) == ask(gateway)[:2]
    assert 1 == gateway.stat("cluster.upstream.ratelimit.error")
    quotad.start()
    assert 200 == ask(gateway)[0]


def test_stopped_and_allowed(quotad: Quotad, start: Start) -> None:
    """the request passes, and Envoy counts it."""
    gateway = start(SOON | {DENY: "failure_mode_deny: false"})
    quotad.stop()

    assert (200, True) == ask(gateway)[:2]
    assert 1 == gateway.stat("cluster.upstream.ratelimit.failure_mode_allowed")
    quotad.start()


def test_back_within_the_timeout(quotad: Quotad, start: Start) -> None:
    """a request that came meanwhile waits, and is served."""
    gateway = start({})
    quotad.stop()
    statuses: list[int] = []
    waiting = threading.Thread(target=lambda: statuses.append(ask(gateway)[0]))
    waiting.start()
    quotad.start()
    waiting.join(30)

    assert [200] == statuses


@pytest.mark.parametrize(
    ("timeout", "seconds_least"), [("timeout: 0.5s", 0.49), ("# none", 0.019)], ids=["ours", "Envoy's own"]
)
def test_held_still(quotad: Quotad, start: Start, timeout: str, seconds_least: float) -> None:
    """a process that has stopped answering costs each request the timeout, 20 ms unless set."""
    gateway = start({TIMEOUT: timeout})
    quotad.process.send_signal(signal.SIGSTOP)
    status, body, seconds = ask(gateway)

    assert (503, False) == (status, body)
    assert seconds_least <= seconds < 5
    quotad.process.send_signal(signal.SIGCONT)
    assert 200 == ask(gateway)[0]


@pytest.mark.parametrize("client", KEYS)
def test_vendors_clients_try_again(quotad: Quotad, start: Start, client: str) -> None:
    """twice, then they tell that the service is not available."""
    gateway = start(SOON)
    quotad.stop()
    told = ended(begin(client, gateway.url))

    assert 503 == told["status"]
    assert 3 == gateway.stat("cluster.upstream.ratelimit.error")
    quotad.start()
