"""QuotaService over the wire: a real server and a real client on loopback."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from conftest import HandTime, Running
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quota.client import admit_request
from quota.v1 import quota_pb2

HOUR_S = 3600


def ask(account: str = "demo-lite", **fields: object) -> quota_pb2.AdmitRequest:
    """A request that the shipped catalog allows, with some fields changed."""
    return admit_request(account, **{"model": "glm-4.7", "tool": "claude-code", **fields})


def raw_call(address: str, method: str, body: bytes) -> bytes:
    """Call a method with bytes of our own making; return the bytes of the answer."""
    with grpc.insecure_channel(address) as channel:
        return channel.unary_unary(f"/quota.v1.{method}")(body, timeout=5)


def test_eighty_prompts_in_five_hours(running: Running) -> None:
    """demo-lite is allowed 80 times; the 81st says which limit, how long to wait, and the vendor's words."""
    verdicts = [running.data.admit(ask()).verdict for _ in range(80)]
    running.time.advance(10)
    refused = running.data.admit(ask())

    assert [quota_pb2.ALLOWED] * 80 == verdicts
    assert quota_pb2.LIMIT_EXHAUSTED == refused.verdict
    assert "prompts-5h" == refused.rule
    assert 5 * HOUR_S * 1000 - 10_000 == refused.retry_after_ms
    assert running.time.now_ms + refused.retry_after_ms == refused.resets_at_ms
    assert ("1308", 429) == (refused.vendor.code, refused.vendor.http_status)
    assert "Your limit will reset at 2026-07-06 20:00:00" in refused.vendor.message
    assert ["prompts-5h"] == [limit.id for limit in refused.limits]
    assert not refused.charged


def test_the_wait_is_exact(running: Running) -> None:
    """one millisecond before retry_after_ms it is refused, at that moment allowed."""
    for _ in range(80):
        running.data.admit(ask())
    wait_ms = running.data.admit(ask()).retry_after_ms

    running.time.advance((wait_ms - 1) / 1000)
    before = running.data.peek(ask()).verdict
    running.time.advance(0.001)
    after = running.data.admit(ask()).verdict

    assert (quota_pb2.LIMIT_EXHAUSTED, quota_pb2.ALLOWED) == (before, after)


def test_an_answer_in_full(running: Running) -> None:
    """ALLOWED names the canonical model, the charge, the weight and the catalog, and neither rule nor times."""
    response = running.data.admit(ask(model="SONNET", explain=True))

    assert quota_pb2.ALLOWED == response.verdict
    assert "GLM-4.7" == response.model
    assert "" == response.rule
    assert [("prompts", 1_000_000)] == [(charge.pool, charge.micro) for charge in response.charged]
    assert 1_000_000 == response.weight_micro
    assert not response.HasField("retry_after_ms")
    assert not response.HasField("resets_at_ms")
    assert not response.HasField("hold_expires_at_ms")
    assert not response.HasField("vendor")
    assert "glm-2026" == response.catalog.name
    assert ["prompts-5h", "prompts-week"] == [limit.id for limit in response.limits]
    assert [1_000_000, 1_000_000] == [limit.used_micro for limit in response.limits]


def test_a_model_by_the_clock(running: Running) -> None:
    """demo-pro drawing glm-5 is charged 3 at 15:00 and 2 at 20:00 Shanghai time."""
    at_peak = running.data.admit(ask("demo-pro", model="glm-5"))
    running.time.advance(5 * HOUR_S)
    off_peak = running.data.admit(ask("demo-pro", model="glm-5"))

    assert (3_000_000, 3_000_000) == (at_peak.charged[0].micro, at_peak.weight_micro)
    assert (2_000_000, 2_000_000) == (off_peak.charged[0].micro, off_peak.weight_micro)


@pytest.mark.parametrize(
    ("request_", "verdict", "rule", "code"),
    [
        (ask("nobody"), quota_pb2.ACCOUNT_UNKNOWN, "account", "1111"),
        (ask(model="glm-5"), quota_pb2.MODEL_NOT_IN_PLAN, "models.GLM-5", "1311"),
        (ask(model="gpt-9"), quota_pb2.MODEL_UNKNOWN, "models", "1211"),
        (ask(tool="curl"), quota_pb2.TOOL_UNSUPPORTED, "tools", "1113"),
        (ask(tool=""), quota_pb2.TOOL_UNSUPPORTED, "tools", "1113"),
        (ask(endpoint="/api/paas/v4"), quota_pb2.ENDPOINT_UNSUPPORTED, "endpoints", "1113"),
        (ask(draws={"coffee": 1}), quota_pb2.METER_NOT_IN_PLAN, "meters", "1311"),
        (ask(draws={"prompt": 81}), quota_pb2.AMOUNT_TOO_LARGE, "prompts-5h", "1210"),
    ],
    ids=lambda value: quota_pb2.Verdict.Name(value) if isinstance(value, int) else "",
)
def test_refusals_by_name(
    running: Running, request_: quota_pb2.AdmitRequest, verdict: int, rule: str, code: str
) -> None:
    """a refusal is an answer: its verdict, what decided, the vendor's code, no charge and no wait."""
    response = running.data.admit(request_)

    assert quota_pb2.Verdict.Name(verdict) == quota_pb2.Verdict.Name(response.verdict)
    assert rule == response.rule
    assert code == response.vendor.code
    assert not response.charged
    assert not response.HasField("retry_after_ms")


def test_two_pools_all_or_nothing(running: Running) -> None:
    """a request that one pool refuses draws nothing from the other."""
    running.data.admit(ask(draws={"web_search": 99}))
    refused = running.data.admit(ask(draws={"prompt": 1, "web_search": 2}))
    used = {limit.id: limit.used_micro for limit in running.data.usage("demo-lite").limits}

    assert (quota_pb2.LIMIT_EXHAUSTED, "mcp-month") == (refused.verdict, refused.rule)
    assert {"prompts-5h": 0, "prompts-week": 0, "mcp-month": 99_000_000} == used


def test_peek_changes_nothing(running: Running) -> None:
    """Peek says the same as Admit would, any number of times, and leaves no trace."""
    before = running.data.usage("demo-lite")
    peeked = [running.data.peek(ask(explain=True)) for _ in range(100)]

    assert before == running.data.usage("demo-lite")
    assert {quota_pb2.ALLOWED} == {response.verdict for response in peeked}
    assert 1_000_000 == peeked[-1].charged[0].micro


def test_usage_shows_every_limit(running: Running) -> None:
    """used, left, percent and when it comes back; no times where nothing is drawn."""
    for _ in range(3):
        running.data.admit(ask())
        running.time.advance(60)

    usage = running.data.usage("demo-lite")
    five_hours, week, month = usage.limits

    assert ("demo-lite", "glm-2026", "lite") == (usage.account, usage.catalog.name, usage.plan)
    assert ("prompts-5h", "prompts", "sliding 5h") == (five_hours.id, five_hours.pool, five_hours.window)
    assert (80_000_000, 3_000_000, 77_000_000, 3) == (
        five_hours.limit_micro, five_hours.used_micro, five_hours.remaining_micro, five_hours.percent,
    )  # fmt: skip
    assert running.time.now_ms + (5 * HOUR_S - 180) * 1000 == five_hours.resets_at_ms
    assert running.time.now_ms + (5 * HOUR_S - 60) * 1000 == five_hours.full_at_ms
    assert running.time.now_ms + (7 * 24 * HOUR_S - 180) * 1000 == week.resets_at_ms
    assert ("mcp-month", 0) == (month.id, month.used_micro)
    assert not month.HasField("resets_at_ms")
    assert not month.HasField("full_at_ms")


def test_a_batch_answers_in_place(running: Running) -> None:
    """each item on its own and in order: good ones are decided, bad ones get an error, the others go on."""
    good, bad = ask(draws={"prompt": 40}), ask("")
    twice = ask()
    twice.draws.extend([quota_pb2.Draw(meter="prompt", amount=1)] * 2)
    results = running.data.admit_batch([good, bad, good, twice, good, ask("x" * 257)])

    assert ["response", "error", "response", "error", "response", "error"] == [
        result.WhichOneof("result") for result in results
    ]
    assert [quota_pb2.ALLOWED, quota_pb2.ALLOWED, quota_pb2.LIMIT_EXHAUSTED] == [
        results[place].response.verdict for place in (0, 2, 4)
    ]
    assert [(3, "account"), (3, "draws[1].meter"), (3, "account")] == [
        (results[place].error.code, results[place].error.field) for place in (1, 3, 5)
    ]
    assert "account: ''" in results[1].error.message
    assert [] == running.data.admit_batch([])


def test_a_batch_past_the_maximum_is_refused_whole(serve: Callable[..., Running]) -> None:
    """it names the maximum, and nothing of it is charged."""
    running = serve(batch_items_max=10)

    with pytest.raises(grpc.RpcError) as raised:
        running.data.admit_batch([ask()] * 11)

    assert grpc.StatusCode.INVALID_ARGUMENT == raised.value.code()
    assert "requests: '11 items' is not allowed; allowed: at most 10 (batch_items_max)" == raised.value.details()
    assert 0 == running.data.usage("demo-lite").limits[0].used_micro
    assert 10 == len(running.data.admit_batch([ask()] * 10))


def test_ten_thousand_in_a_batch(running: Running) -> None:
    """the default maximum fits the default message length, there and back."""
    results = running.data.admit_batch([ask("demo-max", explain=True)] * 10_000)
    allowed = sum(result.response.verdict == quota_pb2.ALLOWED for result in results)

    assert (10_000, 1600) == (len(results), allowed)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (quota_pb2.AdmitRequest(), "account: ''"),
        (ask("x" * 257), "account: 'xxx"),
        (ask(model="m" * 257), "model: 'mmm"),
        (ask(draws={"prompt": 10**9 + 1}), "1000000001 is not allowed"),
        (ask(draws={"prompt": 2**64 - 1}), f"{2**64 - 1} is not allowed"),
        (ask(draws={f"meter-{number}": 1 for number in range(17)}), "draws: "),
        (quota_pb2.AdmitRequest(account="demo-lite", mode=7), "mode: 7 is not allowed; allowed: ENFORCE (0), RECORD"),
        (ask(request_id="r" * 257), "request_id: 'rrr"),
        (ask(prompt_id="p" * 257), "prompt_id: 'ppp"),
        (ask(hold_ms=1), "hold_ms: 1 is not allowed"),
        (ask(hold_ms=-1, request_id="r"), "hold_ms: -1 is not allowed"),
        (ask(hold_ms=3_600_001, request_id="r"), "hold_ms: 3600001 is not allowed"),
        (ask(prompt_id="p", draws={"web_search": 1, "prompt": 2}), "draws[1].amount: 2 is not allowed"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_fields_out_of_range_are_named(running: Running, request_: quota_pb2.AdmitRequest, words: str) -> None:
    """INVALID_ARGUMENT with field, value and what is allowed, from Admit and Peek alike; nothing is charged."""
    for call in (running.data.admit, running.data.peek):
        with pytest.raises(grpc.RpcError) as raised:
            call(request_)
        assert grpc.StatusCode.INVALID_ARGUMENT == raised.value.code()
        assert words in raised.value.details()
        assert "; allowed: " in raised.value.details()
    assert 0 == running.data.usage("demo-lite").limits[0].used_micro


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x01\xff", b"\x0a\x05ab"])
@pytest.mark.parametrize(
    "method",
    [f"QuotaService/{name}" for name in ("Admit", "AdmitBatch", "Settle", "Renew", "GetUsage")],
)
def test_broken_messages_are_the_callers_fault(running: Running, method: str, body: bytes) -> None:
    """bytes that are no message get INVALID_ARGUMENT, and the server goes on."""
    if method.endswith("AdmitBatch"):
        body = b"\x0a" + bytes([len(body)]) + body  # broken inside an item
    with pytest.raises(grpc.RpcError) as raised:
        raw_call(running.addresses.data, method, body)

    assert grpc.StatusCode.INVALID_ARGUMENT == raised.value.code()
    assert raised.value.details().startswith(f"message: {len(body)} bytes that are no quota.v1.")
    assert quota_pb2.ALLOWED == running.data.admit(ask()).verdict


def test_unknown_fields_are_passed_over(running: Running) -> None:
    """a newer client's fields do no harm."""
    body = ask().SerializeToString() + b"\xfa\x3f\x03abc"
    response = quota_pb2.AdmitResponse.FromString(raw_call(running.addresses.data, "QuotaService/Admit", body))

    assert quota_pb2.ALLOWED == response.verdict


def test_a_message_too_long_is_refused(serve: Callable[..., Running]) -> None:
    """RESOURCE_EXHAUSTED past message_bytes_max, and the server goes on."""
    running = serve(message_bytes_max=1024)

    with pytest.raises(grpc.RpcError) as raised:
        running.data.admit_batch([ask()] * 100)

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == raised.value.code()
    assert quota_pb2.ALLOWED == running.data.admit(ask()).verdict


def test_what_is_not_served_says_so(running: Running) -> None:
    """UNIMPLEMENTED, not silence."""
    with pytest.raises(grpc.RpcError) as raised:
        raw_call(running.addresses.data, "QuotaService/NoSuch", b"")

    assert grpc.StatusCode.UNIMPLEMENTED == raised.value.code()


def test_usage_of_no_account(running: Running) -> None:
    """NOT_FOUND for a name that nobody has, INVALID_ARGUMENT for what is no name."""
    codes = []
    for account in ("nobody", "", "x" * 257):
        with pytest.raises(grpc.RpcError) as raised:
            running.data.usage(account)
        codes.append(raised.value.code())

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert [grpc.StatusCode.NOT_FOUND, invalid, invalid] == codes


def test_names_of_any_script(running: Running) -> None:
    """account names are bytes of UTF-8: any script, exactly 256 bytes, matched exactly."""
    name = "好" * 85 + "x"
    account = running.admin.get_account("demo-lite")
    account.id = name
    running.admin.put_account(account)

    assert 256 == len(name.encode())
    assert quota_pb2.ALLOWED == running.data.admit(ask(name)).verdict
    assert quota_pb2.ACCOUNT_UNKNOWN == running.data.admit(ask("Demo-Lite")).verdict


def test_many_at_once_charge_exactly(running: Running) -> None:
    """200 calls from 8 threads at once: 80 are allowed, no more and no less."""
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda _: running.data.admit(ask()).verdict, range(200)))

    assert 80 == verdicts.count(quota_pb2.ALLOWED)
    assert 120 == verdicts.count(quota_pb2.LIMIT_EXHAUSTED)


@pytest.mark.parametrize("service", ["", "quota.v1.QuotaService", "quota.v1.AdminService"])
def test_health_on_both_ports(running: Running, service: str) -> None:
    """grpc.health.v1 says SERVING for the whole and for each service."""
    for address in (running.addresses.data, running.addresses.control):
        with grpc.insecure_channel(address) as channel:
            response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        assert health_pb2.HealthCheckResponse.SERVING == response.status


def test_health_says_when_it_ends(serve: Callable[..., Running], hand_time: HandTime) -> None:
    """who watches hears NOT_SERVING before the ports close."""
    running = serve()
    with grpc.insecure_channel(running.addresses.control) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        first = next(watch).status
        running.server.stop()
        second = next(watch).status

    statuses = health_pb2.HealthCheckResponse
    assert (statuses.SERVING, statuses.NOT_SERVING) == (first, second)
