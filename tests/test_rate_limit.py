"""Envoy's rate limit protocol, asked of real servers.

Both fronts live through the same by one frozen clock, and answer the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import http_sf
import pytest
from conftest import Running
from fronts import Fronts
from held_up import held_up
from hypothesis import given
from hypothesis import strategies as st

from quota.envoy import rls_pb2
from quota.errors import FailedPrecondition
from quota.settings import Settings
from quota.v1 import admin_pb2

PATH = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
Code = rls_pb2.RateLimitResponse.Code
CATALOG = r"""
catalog: shop
time_zone: UTC
meters:
  call: {pool: calls}
  token: {pool: tokens}
  rare: {pool: calls, plans: [large]}
default_meter: call
models: {fast: {}, slow: {plans: [large]}}
tools: [cline]
endpoints: [/v1]
refusals:
  LIMIT_EXHAUSTED: {code: "1308", message: "Used up for ${number} ${unit}: \"\\\" until ${next_flush_time}"}
  MODEL_UNKNOWN: {code: "1211", http_status: 404, message: "No ${model_name}"}
  CONCURRENCY: {code: "1302", message: "Too many at once"}
  MODEL_NOT_IN_PLAN: {code: "1311", http_status: 403}
  BURST: {code: "1303"}
  AMOUNT_TOO_LARGE: {code: "1210", http_status: 400}
plans:
  small:
    level: 1
    pools:
      calls:
        - {id: calls-minute, window: {sliding: 1m}, limit: 3}
        - {id: calls-day, window: {calendar: day, at: "00:00"}, limit: 6}
      tokens: [{id: tokens-hour, window: {cycle: 1h}, limit: 100}]
    burst: [{id: pace, pool: tokens, rate: 1/1s, depth: 80}]
    concurrency: [{id: open, limit: 1}]
  large: {level: 2, hold_default: 5m, pools: {calls: [{id: calls-month, window: {anniversary: 1mo}, limit: 1000}], tokens: []}}
"""
DOMAINS = """
domains:
  shop:
    entries:
      {user: account, llm: model, app: tool, route: endpoint, what: meter, id: request_id, url: path, speak: style, team: client}
    meter: call
    hold: {entry: stage, value: open, hold_ms: 120000}
    record: {entry: stage, value: close}
    styles: {/v1/messages: anthropic, /v1: openai}
  told: {meter: call, headers: always}
  quiet: {meter: call, headers: never}
  bare: {}
"""
USER = {"user": "ada", "llm": "fast", "app": "cline"}


def request(*descriptors: dict[str, Any], domain: str = "shop", addend: int = 0) -> rls_pb2.RateLimitRequest:
    """A request with a descriptor for each mapping; `n` is its own amount, what is None is left out."""
    made = rls_pb2.RateLimitRequest(domain=domain, hits_addend=addend)
    for entries in descriptors:
        added = made.descriptors.add()
        if "n" in entries:
            added.hits_addend.value = entries["n"]
        for key, value in entries.items():
            if key != "n" and value is not None:
                added.entries.add(key=key, value=value)
    return made


class Pair:
    """A native server and one on grpcio, by one clock."""

    def __init__(self, serve: Callable[..., Running], folder: Path) -> None:
        (folder / "shop.yaml").write_text(CATALOG)
        (folder / "domains.yml").write_text(DOMAINS)
        self.domains = folder / "domains.yml"
        chosen = {
            "catalogs": (str(folder / "shop.yaml"),),
            "catalog_default": "shop",
            "envoy_domains": str(self.domains),
        }
        self.servers = [serve(front=front, **chosen) for front in ("native", "grpcio")]
        self.time = self.servers[0].time
        self.channels = [grpc.insecure_channel(running.addresses.data) for running in self.servers]
        self.asks = [channel.unary_unary(PATH) for channel in self.channels]
        for running in self.servers:
            for account, plan in (("ada", "small"), ("ben", "small"), ("eve", "large")):
                running.admin.put_account(admin_pb2.Account(id=account, catalog="shop", plan=plan))

    def ask(self, message: rls_pb2.RateLimitRequest) -> Any:
        """Ask both, and compare; the answer, or its status and text."""
        answers = []
        for ask in self.asks:
            try:
                answers.append(ask(message.SerializeToString()))
            except grpc.RpcError as error:
                answers.append(f"{error.code().name} {error.details()}")
        assert answers[0] == answers[1]
        for running in self.servers:
            running.server.engine.ledger.check()
        return answers[0] if isinstance(answers[0], str) else rls_pb2.RateLimitResponse.FromString(answers[0])

    def used(self, account: str) -> dict[str, int]:
        """Whole units used of each limit that has any, and how many holds are open."""
        usages = [running.data.usage(account) for running in self.servers]
        assert usages[0].limits == usages[1].limits
        assert len(usages[0].holds) == len(usages[1].holds)
        found = {limit.id: limit.used_micro // 1_000_000 for limit in usages[0].limits if limit.used_micro}
        return found | ({"open": len(usages[0].holds)} if usages[0].holds else {})


@pytest.fixture
def pair(serve: Callable[..., Running], tmp_path: Path) -> Iterator[Pair]:
    made = Pair(serve, tmp_path)
    with ExitStack() as stack:
        for channel in made.channels:
            stack.enter_context(channel)
        yield made


def told(answer: Any) -> str:
    """An answer in one line: `OK call-minute 2/3 1m0s` for each descriptor."""
    if isinstance(answer, str):
        return answer
    parts = []
    for status in answer.statuses:
        limit, until = status.current_limit, status.duration_until_reset
        words = ["over" if status.code == Code.OVER_LIMIT else "ok"]
        if limit.name:
            words.append(f"{limit.name} {status.limit_remaining}/{limit.requests_per_unit}")
        if limit.unit:
            words.append(rls_pb2.RateLimitResponse.RateLimit.Unit.Name(limit.unit).lower())
        if status.HasField("duration_until_reset"):
            words.append(f"{until.seconds + until.nanos / 1e9:.10g}s")
        parts.append(" ".join(words))
    return f"{Code.Name(answer.overall_code)}: {', '.join(parts)}"


def headers(answer: rls_pb2.RateLimitResponse) -> dict[str, str]:
    return {header.key: header.value for header in answer.response_headers_to_add}


# ---- What descriptors come to ----

C, T = {**USER, "what": "call"}, {**USER, "what": "token"}
Step = tuple[float, list[dict[str, Any]], str, dict[str, int]]
SCENARIOS: dict[str, list[Step]] = {
    "an amount of its own, or the request's 1": [
        (0, [USER], "OK: ok calls-minute 2/3 minute 60s", {"calls-minute": 1, "calls-day": 1}),
        (0, [{**C, "n": 2}], "OK: ok calls-minute 0/3 minute 60s", {"calls-minute": 3, "calls-day": 3}),
        (0, [C], "OVER_LIMIT: over calls-minute 0/3 minute 60s", {"calls-minute": 3, "calls-day": 3}),
        (59.5, [C], "OVER_LIMIT: over calls-minute 0/3 minute 0.5s", {"calls-minute": 3, "calls-day": 3}),
        (0.5, [C], "OK: ok calls-minute 2/3 minute 60s", {"calls-minute": 1, "calls-day": 4}),
    ],
    "all or none": [
        (0, [{**C, "n": 3}, {**T, "n": 50}], "OK: ok calls-minute 0/3 minute 60s, ok pace 30/80 1s",
         {"calls-minute": 3, "calls-day": 3, "tokens-hour": 50, "pace": 50}),
        (0, [{**T, "n": 10}, C], "OVER_LIMIT: ok pace 30/80 1s, over calls-minute 0/3 minute 60s",
         {"calls-minute": 3, "calls-day": 3, "tokens-hour": 50, "pace": 50}),
    ],
    "the same meter twice adds up": [
        (0, [{**T, "n": 30}, {**T, "n": 12}, {**C, "n": 1}, {**C, "n": 0}],
         "OK: ok pace 38/80 1s, ok pace 38/80 1s, ok calls-minute 2/3 minute 60s, ok calls-minute 2/3 minute 60s",
         {"tokens-hour": 42, "pace": 42, "calls-minute": 1, "calls-day": 1}),
        (0, [{**C, "n": 2}, {**C, "n": 1}], "OVER_LIMIT: over calls-minute 2/3 minute 60s, over calls-minute 2/3 minute 60s",
         {"tokens-hour": 42, "pace": 42, "calls-minute": 1, "calls-day": 1}),
    ],
    "nothing at all is a look, and leaves no id behind": [
        (0, [{**C, "n": 0, "id": "r"}], "OK: ok calls-minute 3/3 minute", {}),
        (0, [{**C, "n": 3, "id": "r"}], "OK: ok calls-minute 0/3 minute 60s", {"calls-minute": 3, "calls-day": 3}),
        (0, [{**C, "n": 0}], "OVER_LIMIT: over calls-minute 0/3 minute 60s", {"calls-minute": 3, "calls-day": 3}),
    ],
    "nothing beside something is a check": [
        (0, [{**T, "n": 80}], "OK: ok pace 0/80 1s", {"tokens-hour": 80, "pace": 80}),
        (0, [C, {**T, "n": 0}], "OVER_LIMIT: ok calls-minute 3/3 minute, over pace 0/80 0.001s", {"tokens-hour": 80, "pace": 80}),
        (1, [C, {**T, "n": 0}], "OK: ok calls-minute 2/3 minute 60s, ok pace 1/80 1s",
         {"tokens-hour": 80, "pace": 79, "calls-minute": 1, "calls-day": 1}),
    ],
    "a hold is opened, and settled by what was used": [
        (0, [{**C, "id": "r", "stage": "open"}, {**T, "n": 0, "id": "r"}],
         "OK: ok calls-minute 2/3 minute 60s, ok pace 80/80", {"calls-minute": 1, "calls-day": 1, "open": 1}),
        (1, [{**C, "id": "s", "stage": "open"}], "OVER_LIMIT: over calls-minute 2/3 minute 1s",
         {"calls-minute": 1, "calls-day": 1, "open": 1}),
        (1, [{**C, "id": "r", "stage": "close"}, {**T, "n": 300, "id": "r"}], "OK: ok, ok",
         {"calls-minute": 1, "calls-day": 1, "tokens-hour": 300, "pace": 300}),
        (0, [{**C, "id": "r", "stage": "close"}, {**T, "n": 300, "id": "r"}], "OK: ok, ok",
         {"calls-minute": 1, "calls-day": 1, "tokens-hour": 300, "pace": 300}),
        (0, [{**C, "id": "r", "stage": "close"}, {**T, "n": 301, "id": "r"}],
         "ALREADY_EXISTS request 'r' of account 'ada' was settled before, with another outcome or other draws",
         {"calls-minute": 1, "calls-day": 1, "tokens-hour": 300, "pace": 300}),
    ],
    "a hold that closed by itself is settled late": [
        (0, [{**C, "id": "r", "stage": "open"}], "OK: ok calls-minute 2/3 minute 60s", {"calls-minute": 1, "calls-day": 1, "open": 1}),
        (121, [{**C, "n": 2, "id": "r", "stage": "close"}], "OK: ok", {"calls-minute": 1, "calls-day": 2}),
    ],
    "what has happened is charged past any limit, and once": [
        (0, [{**C, "n": 9, "id": "r", "stage": "close"}], "OK: ok calls-minute 0/3 minute 60s", {"calls-minute": 9, "calls-day": 9}),
        (0, [{**C, "n": 9, "id": "r", "stage": "close"}], "OK: ok calls-minute 0/3 minute 60s", {"calls-minute": 9, "calls-day": 9}),
        (0, [{**C, "n": 1, "stage": "close"}], "OK: ok calls-minute 0/3 minute 60s", {"calls-minute": 10, "calls-day": 10}),
        (0, [{**C, "llm": "slow", "stage": "close"}], "OK: ok", {"calls-minute": 10, "calls-day": 10}),
    ],
    "a hold that the plan opens is not kept by what has happened": [
        (0, [{**C, "user": "eve", "id": "r", "stage": "close"}], "OK: ok calls-month 999/1000 month 2678400s", {}),
        (0, [{**C, "user": "eve", "id": "r", "stage": "close"}], "OK: ok calls-month 999/1000 month 2678400s", {}),
    ],
    "a rule that is about the whole call refuses every descriptor": [
        (0, [{**C, "llm": "gone"}, {**T, "llm": "gone"}], "OVER_LIMIT: over, over", {}),
        (0, [{**C, "n": 7}, {**T, "n": 0}], "OVER_LIMIT: over calls-minute 3/3 minute, ok pace 80/80", {}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(pair: Pair, name: str) -> None:
    """each step asks after some seconds; then the answer, and what stands against the account."""
    for number, (seconds, descriptors, expected, used) in enumerate(SCENARIOS[name]):
        pair.time.advance(seconds)
        assert expected == told(pair.ask(request(*descriptors))), f"step {number}"
        assert used == pair.used("ada"), f"step {number}"


def test_the_request_s_amount(pair: Pair) -> None:
    """holds for descriptors that have none of their own; its 0 is 1, a descriptor's 0 is 0."""
    assert "OK: ok calls-minute 1/3 minute 60s" == told(pair.ask(request(C, addend=2)))
    assert "OK: ok calls-minute 1/3 minute 60s" == told(pair.ask(request({**C, "n": 0}, addend=2)))
    assert "OK: ok calls-minute 0/3 minute 60s" == told(pair.ask(request(C, addend=0)))


def test_a_plan_s_own_hold_ends_with_what_has_happened(pair: Pair) -> None:
    """a call recorded under an id, where the plan opens a hold for every id, leaves none open."""
    pair.ask(request({**C, "user": "eve", "id": "r", "stage": "close"}))

    assert {"calls-month": 1} == pair.used("eve")


def test_the_default_meter(pair: Pair) -> None:
    """where neither entry nor domain names a meter, it is the catalog's: one unit, by one descriptor."""
    plain = {"account": "ada", "model": "fast", "tool": "cline"}
    assert "OK: ok calls-minute 2/3 minute 60s" == told(pair.ask(request(plain, domain="bare")))
    for descriptors in ([{**plain, "n": 2}], [{**plain, "n": 0}], [plain, plain], [plain, {**plain, "meter": "token"}]):
        assert told(pair.ask(request(*descriptors, domain="bare"))).startswith("INVALID_ARGUMENT hits_addend: ")


# ---- What is said to the client ----

GOLDEN = {
    "limit": ({**C, "n": 3}, C, 429, "Used up for 1 minute: \"\\\" until 2026-07-06 07:01:00", "1308", "60"),
    "day": ({**C, "n": 6, "stage": "close"}, C, 429, "Used up for 1 day: \"\\\" until 2026-07-07 00:00:00", "1308", "61200"),
    "burst": ({**T, "n": 80}, {**T, "n": 3}, 429, "Too many requests in a short time.", "1303", "3"),
    "concurrency": ({**C, "id": "r", "stage": "open"}, {**C, "id": "s", "stage": "open"}, 429, "Too many at once", "1302", "1"),
    "amount": (T, {**C, "n": 4}, 400, "The request is larger than the plan's limit.", "1210", None),
    "model": (T, {**C, "llm": 'no "\n\x01\x7fé🌲\\'}, 404, 'No no "\n\x01\x7fé🌲\\', "1211", None),
    "plan": (T, {**C, "llm": "slow"}, 403, "The plan does not include slow.", "1311", None),
    "meter": (T, {**C, "what": "rare"}, 403, "The plan does not include rare.", "METER_NOT_IN_PLAN", None),
    "tool": (T, {**C, "app": "other"}, 403, "The plan does not cover this tool.", "TOOL_UNSUPPORTED", None),
    "endpoint": (T, {**C, "route": "/v2"}, 403, "The plan does not cover this endpoint.", "ENDPOINT_UNSUPPORTED", None),
    "account": (T, {**C, "user": "nobody"}, 401, "There is no such account.", "ACCOUNT_UNKNOWN", None),
}  # fmt: skip
ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip
OPENAI = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error",
    429: "rate_limit_error", 503: "server_error",
}  # fmt: skip


def bodies(status: int, message: str, code: str) -> dict[str, Any]:
    kind = "insufficient_quota" if code == "1308" else OPENAI[status]
    return {
        "vendor": {"error": {"code": code, "message": message}},
        "anthropic": {"type": "error", "error": {"type": ANTHROPIC[status], "message": message}},
        "openai": {"error": {"message": message, "type": kind, "param": None, "code": code}},
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_refusals_in_every_style(pair: Pair, name: str) -> None:
    """the vendor's words as each kind of client reads them, how long to wait, and not to wait for long."""
    before, refused, status, message, code, wait = GOLDEN[name]
    pair.ask(request(before))
    for style, body in bodies(status, message, code).items():
        answer = pair.ask(request({**refused, "speak": style}))
        assert Code.OVER_LIMIT == answer.overall_code
        assert body == json.loads(answer.raw_body)
        assert json.dumps(body, separators=(",", ":"), ensure_ascii=False) == answer.raw_body.decode().replace(
            "\\u000a", "\\n"
        )
        found = headers(answer)
        assert "application/json" == found["content-type"]
        assert wait == found.get("retry-after")
        assert ("false" if wait is None or int(wait) > 60 else None) == found.get("x-should-retry")


@given(model=st.text(min_size=1, max_size=64))
def test_any_name_is_put_into_json(model: str) -> None:
    """whatever a caller calls its model, each body is JSON that says it, and both services write the same."""
    fronts = Fronts([CATALOG])
    for engine in fronts.engines:
        engine.put_account("ada", plan="small")
    for style, body in bodies(404, f"No {model}", "1211").items():
        entries = {"account": "ada", "model": model, "tool": "cline", "style": style}
        assert body == json.loads(fronts.ask("ShouldRateLimit", request(entries, domain="quotad")).raw_body)


def test_overloaded(pair: Pair) -> None:
    """what the platform lacks is said with the vendor's hint."""
    for running in pair.servers:
        running.admin.set_capacity(0)
        running.admin.put_account(admin_pb2.Account(id="ada", catalog="shop", plan="small"))
    answers = [pair.ask(request({**C, "id": number, "stage": "open", "url": "/v1/messages"})) for number in "rs"]
    assert "rate_limit_error" == json.loads(answers[1].raw_body)["error"]["type"]
    assert "1" == headers(answers[1])["retry-after"]


@pytest.mark.parametrize(
    ("path", "key"),
    [("/v1/messages?beta=true", "type"), ("/v1/chat", "param"), ("/v2", ""), ("", ""), ("/v", "")],
)
def test_the_style_follows_the_path(pair: Pair, path: str, key: str) -> None:
    """by the longest beginning that is configured; `style` itself comes first."""
    error = json.loads(pair.ask(request({**C, "llm": "gone", "url": path})).raw_body)
    assert {"type": {"type", "error"}, "param": {"error"}, "": {"error"}}[key] == set(error)
    assert ("param" in error["error"]) == (key == "param")
    named = json.loads(pair.ask(request({**C, "llm": "gone", "url": path, "speak": "vendor"})).raw_body)
    assert {"code", "message"} == set(named["error"])


def test_limits_in_headers(pair: Pair) -> None:
    """`ratelimit` and its policy: of a refusal, of every answer, or of none, as the domain says."""
    plain = {"account": "ada", "model": "fast", "tool": "cline"}
    policy = '"calls-minute";q=3;w=60, "calls-day";q=6;w=86400'
    assert {} == headers(pair.ask(request(C)))
    always = headers(pair.ask(request(plain, domain="told")))
    assert {"ratelimit-policy": policy, "ratelimit": '"calls-minute";r=1;t=60, "calls-day";r=4;t=61200'} == always
    pair.ask(request({**C, "n": 1}))
    refused = headers(pair.ask(request(C)))
    assert {"content-type", "retry-after", "ratelimit-policy", "ratelimit"} == set(refused)
    assert '"calls-minute";r=0;t=60, "calls-day";r=3;t=61200' == refused["ratelimit"]
    assert policy == refused["ratelimit-policy"]
    assert {"content-type", "retry-after"} == set(headers(pair.ask(request(plain, domain="quiet"))))


def test_many_limits_of_any_name(serve: Callable[..., Running], tmp_path: Path) -> None:
    """headers name the first sixteen, in ASCII, as strings of a structured field."""
    ids = ['a"b', "c\\d", "grün", *(f"limit-{number}" for number in range(20))]
    limits = [{"id": id, "window": {"sliding": "1h"}, "limit": 5} for id in ids]
    plan = {"level": 1, "pools": {"p": limits}}
    meters = {"call": {"pool": "p"}}
    catalog = {
        "catalog": "many",
        "time_zone": "UTC",
        "meters": meters,
        "default_meter": "call",
        "plans": {"only": plan},
    }
    (tmp_path / "many.yaml").write_text(json.dumps(catalog))
    (tmp_path / "domains.yml").write_text(DOMAINS)
    running = serve(catalogs=(str(tmp_path / "many.yaml"),), envoy_domains=str(tmp_path / "domains.yml"))
    running.admin.put_account(admin_pb2.Account(id="ada", catalog="many", plan="only"))
    with grpc.insecure_channel(running.addresses.data) as channel:
        raw = channel.unary_unary(PATH)(request({"account": "ada"}, domain="told").SerializeToString())
    found = headers(rls_pb2.RateLimitResponse.FromString(raw))
    policies, left = (http_sf.parse(found[name].encode(), tltype="list") for name in ("ratelimit-policy", "ratelimit"))

    assert 16 == len(policies) == len(left)
    assert {'a"b', "c\\d", "gr__n", "limit-0"} <= {name for name, _ in policies}
    assert {"q": 5, "w": 3600} == dict(policies)["limit-0"]
    assert {"r": 4, "t": 3600} == dict(left)["limit-0"]


# ---- What is not understood ----

FAULTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "none": ([], "descriptors: '0 descriptors' is not allowed; allowed: 1 to 16"),
    "many": ([C] * 17, "descriptors: '17 descriptors' is not allowed; allowed: 1 to 16"),
    "no account": ([C, {"llm": "fast"}], "descriptors[1]: 'no account' is not allowed; allowed: an entry user in every descriptor"),
    "empty account": ([{**C, "user": ""}], "descriptors[0]: 'no account' is not allowed; allowed: an entry user in every descriptor"),
    "two accounts": ([C, {**C, "user": "ben"}], "descriptors[1].user: 'ben' is not allowed; allowed: one account in a call"),
    "two models": ([C, {**C, "llm": "slow"}], "descriptors[1].llm: 'slow' is not allowed; allowed: one model in a call"),
    "two ids": ([{**C, "id": "r"}, {**C, "id": "s"}], "descriptors[1].id: 's' is not allowed; allowed: one request_id in a call"),
    "long model": ([{**C, "llm": "m" * 257}], "model: "),
    "long account": ([{**C, "user": "a" * 257}], "account: "),
    "long meter": ([{**C, "what": "m" * 257}], "descriptors[0].meter: "),
    "style": ([{**C, "speak": "Openai"}], "style: 'Openai' is not allowed; allowed: vendor, anthropic, openai"),
    "amount": ([{**C, "n": 10**9 + 1}], "descriptors[0].hits_addend: 1000000001 is not allowed; allowed: at most 1000000000"),
    "sum": ([{**C, "n": 10**9}, C], "descriptors[1].hits_addend: 1 is not allowed; allowed: at most 1000000000"),
    "hold without id": ([{**C, "stage": "open"}], "hold_ms: 120000 is not allowed; allowed: 0 without a request_id"),
    "both": ([{**C, "id": "r", "stage": "open"}, {**C, "stage": "close"}], "descriptors: 'both' is not allowed; allowed: "),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_put_into_words(pair: Pair, name: str) -> None:
    """each says what is wrong and what is allowed, and nothing is charged."""
    descriptors, expected = FAULTS[name]
    assert told(pair.ask(request(*descriptors))).startswith(f"INVALID_ARGUMENT {expected}")
    assert {} == pair.used("ada")


def test_another_domain(pair: Pair) -> None:
    """a domain that the server does not know is refused by name."""
    assert "INVALID_ARGUMENT domain: 'x' is not allowed; allowed: shop, told, quiet, bare" == pair.ask(
        request(C, domain="x")
    )


def test_what_envoy_sends_beside(pair: Pair) -> None:
    """keys that no domain knows, and a limit of Envoy's own, are passed over."""
    message = request({**C, "generic_key": "x", "remote_address": "::1", "prompt_id": "not this domain's"})
    raw = message.SerializeToString()
    descriptor = message.descriptors[0].SerializeToString() + b"\x12\x04\x08\x01\x10\x02"
    assert raw != descriptor
    message.descriptors[0].ParseFromString(descriptor)
    assert "OK: ok calls-minute 2/3 minute 60s" == told(pair.ask(message))


def test_domains_read_again(pair: Pair) -> None:
    """a new file holds from the next call on, on both fronts; a bad one changes nothing."""
    settings = Settings(envoy_domains=str(pair.domains))
    pair.domains.write_text("domains: {shop: {meter: call}}")
    for running in pair.servers:
        running.server.domains.read(settings)()
    plain = {"account": "ada", "model": "fast", "tool": "cline"}
    assert "OK: ok calls-minute 2/3 minute 60s" == told(pair.ask(request(plain)))
    assert "INVALID_ARGUMENT domain: 'told'" in pair.ask(request(plain, domain="told"))
    pair.domains.write_text("domains: {shop: {metre: call}}")
    for running in pair.servers:
        with pytest.raises(FailedPrecondition, match=r"shop\.metre: there is no such key"):
            running.server.domains.read(settings)
    assert "OK: ok calls-minute 1/3 minute 60s" == told(pair.ask(request(plain)))


# ---- In the server ----


def test_answers_wait_for_the_disk(serve: Callable[..., Running], tmp_path: Path) -> None:
    """strict durability: what charges or settles is told once it is kept; a look is told at once."""
    running = serve(data=str(tmp_path), durability="strict")
    account = {"account": "demo-max", "model": "glm-4.7", "tool": "cline", "meter": "prompt"}
    hold = request({**account, "request_id": "r", "phase": "start"}, domain="quotad").SerializeToString()
    settle = request({**account, "request_id": "r", "phase": "done"}, domain="quotad").SerializeToString()
    look = request({**account, "n": 0}, domain="quotad").SerializeToString()
    with grpc.insecure_channel(running.addresses.data) as channel:
        ask = channel.unary_unary(PATH)
        for raw in (hold, settle):
            with held_up(tmp_path):
                waiting = ask.future(raw)
                running.wait_for("quotad_front_answers_waiting", 1)
                assert Code.OK == rls_pb2.RateLimitResponse.FromString(ask(look, timeout=5)).overall_code
                assert not waiting.done()
            assert Code.OK == rls_pb2.RateLimitResponse.FromString(waiting.result(10)).overall_code

    assert 1 == running.data.usage("demo-max").limits[0].used_micro // 1_000_000


@pytest.mark.parametrize("front", ["native", "grpcio"])
def test_who_may_ask(serve: Callable[..., Running], tmp_path: Path, front: str) -> None:
    """it charges, so the token's role has to be write; and its calls have a time among the metrics."""
    (tmp_path / "tokens.yaml").write_text(
        "[{name: gateway, token: gatewaygatewaygateway, role: write}, {name: eye, token: eyeeyeeyeeyeeyeeye, role: read}]"
    )
    running = serve(front=front, tokens=str(tmp_path / "tokens.yaml"))
    raw = request({"account": "demo-pro", "model": "glm-4.7", "tool": "cline"}, domain="quotad").SerializeToString()
    codes = []
    with grpc.insecure_channel(running.addresses.data) as channel:
        ask = channel.unary_unary(PATH)
        for token in ("gatewaygatewaygateway", "eyeeyeeyeeyeeyeeye", "nobody"):
            try:
                ask(raw, metadata=[("authorization", f"Bearer {token}")])
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)

    assert ["OK", "PERMISSION_DENIED", "UNAUTHENTICATED"] == codes
    assert 'quotad_rpc_seconds_count{method="RateLimitService/ShouldRateLimit"} ' in running.get("/metrics")[1]
