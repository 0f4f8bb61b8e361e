"""Ids, holds, settlements and prompts over the wire: a real server and a real client on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc
import pytest
from conftest import Running

from quota import Outcome
from quota.client import admit_request
from quota.v1 import admin_pb2, quota_pb2

MINUTE_MS = 60_000
COMMIT, CANCEL = quota_pb2.COMMIT, quota_pb2.CANCEL
ALLOWED, EXHAUSTED, CONCURRENCY = quota_pb2.ALLOWED, quota_pb2.LIMIT_EXHAUSTED, quota_pb2.CONCURRENCY


def ask(account: str = "demo-lite", **fields: object) -> quota_pb2.AdmitRequest:
    """A request that the shipped catalog allows, with some fields changed."""
    return admit_request(account, **{"model": "glm-4.7", "tool": "claude-code", **fields})


def draws(**amounts: int) -> list[quota_pb2.Draw]:
    return [quota_pb2.Draw(meter=meter, amount=amount) for meter, amount in amounts.items()]


def units(charges: Iterable[quota_pb2.Charge]) -> dict[str, float]:
    return {charge.pool: charge.micro / 1e6 for charge in charges}


def used(running: Running, account: str = "demo-lite") -> tuple[float, ...]:
    """What counts against each limit of the plan, in units."""
    return tuple(limit.used_micro / 1e6 for limit in running.data.usage(account).limits)


def error_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Return status and text of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()


def test_outcomes_are_those_of_the_core() -> None:
    """names and numbers of outcomes are the same in the proto and in Python."""
    names = {outcome.name: outcome.value for outcome in Outcome}
    names["OUTCOME_UNSPECIFIED"] = names.pop("UNSPECIFIED")

    assert names == dict(quota_pb2.Outcome.items())


# ---- Ids -------------------------------------------------------------------------------------------------------------


def test_the_same_again_is_the_same_answer(running: Running) -> None:
    """with an id, Admit and Peek answer alike however often, and it is charged once."""
    first = running.data.admit(ask(request_id="r1", draws={"prompt": 2}))
    running.time.advance(1)
    again = [call(ask(request_id="r1", draws={"prompt": 2})) for call in (running.data.admit, running.data.peek)]
    explained = running.data.admit(ask(request_id="r1", draws={"prompt": 2}, explain=True))

    assert [first, first] == again
    assert (2, 2, 0) == used(running)
    assert ["prompts-5h", "prompts-week"] == [limit.id for limit in explained.limits]
    assert first.charged == explained.charged


def test_an_id_with_other_content_is_taken(running: Running) -> None:
    """ALREADY_EXISTS for any field but explain, from Admit and Peek; nothing is charged."""
    running.data.admit(ask(request_id="r1"))
    others = [
        ask(request_id="r1", model="glm-4.6"),
        ask(request_id="r1", draws={"prompt": 1}),
        ask(request_id="r1", client="laptop"),
        ask(request_id="r1", prompt_id="p"),
        ask(request_id="r1", hold_ms=1),
        ask(request_id="r1", mode=quota_pb2.RECORD),
    ]
    statuses = {
        error_of(lambda it=it, call=call: call(it))[0]
        for it in others
        for call in (running.data.admit, running.data.peek)
    }

    assert {grpc.StatusCode.ALREADY_EXISTS} == statuses
    assert (1, 1, 0) == used(running)
    assert ALLOWED == running.data.admit(ask("demo-pro", request_id="r1", model="glm-4.6")).verdict


def test_an_id_is_remembered_for_two_minutes(running: Running) -> None:
    """at 120 s it still answers alike; a millisecond later it is decided anew."""
    running.data.admit(ask(request_id="r1"))
    running.time.advance(120)
    running.data.admit(ask(request_id="r1"))
    before = used(running)
    running.time.advance(0.001)
    running.data.admit(ask(request_id="r1"))

    assert (1, 1, 0) == before
    assert (2, 2, 0) == used(running)


def test_a_refused_id_is_free(running: Running) -> None:
    """what was refused is decided afresh, also with other content."""
    running.data.admit(ask(draws={"prompt": 80}))
    refused = running.data.admit(ask(request_id="r1"))
    running.time.advance(5 * 3600)
    allowed = running.data.admit(ask(request_id="r1", draws={"prompt": 3}))

    assert (EXHAUSTED, ALLOWED) == (refused.verdict, allowed.verdict)


def test_a_batch_knows_ids(running: Running) -> None:
    """the same item twice in one batch is charged once; one whose id is taken is answered in its place, with code 6."""
    results = running.data.admit_batch(
        [ask(request_id="r1"), ask(request_id="r1"), ask(request_id="r1", model="glm-4.6"), ask(request_id="r2")]
    )

    assert ["response", "response", "error", "response"] == [result.WhichOneof("result") for result in results]
    assert results[0] == results[1]
    assert (6, "request_id") == (results[2].error.code, results[2].error.field)
    assert "r1" in results[2].error.message
    assert (2, 2, 0) == used(running)


def test_ids_forgotten_early_are_counted(serve: Callable[..., Running]) -> None:
    """past request_ids_max the oldest is forgotten and charged anew; an open hold's id never is."""
    running = serve(request_ids_max=3)
    running.data.admit(ask(request_id="held", hold_ms=MINUTE_MS))
    for number in range(5):
        running.data.admit(ask(request_id=f"r{number}"))
    for request in (ask(request_id="held", hold_ms=MINUTE_MS), ask(request_id="r4"), ask(request_id="r0")):
        running.data.admit(request)

    assert 7 == used(running)[0]
    assert "quotad_request_ids_forgotten_total 3.0" in running.get("/metrics")[1]


# ---- Holds -----------------------------------------------------------------------------------------------------------


def test_places_are_taken_and_come_back(running: Running) -> None:
    """lite has 4 places at the peak: the fifth is CONCURRENCY with a hint; a settled one and an expired one are free."""
    first = [running.data.admit(ask(request_id=f"r{number}", hold_ms=MINUTE_MS)) for number in range(4)]
    refused = running.data.admit(ask(request_id="r4", hold_ms=MINUTE_MS))
    without_hold = running.data.admit(ask(request_id="r5"))
    running.data.settle("demo-lite", "r0", COMMIT)
    settled = running.data.admit(ask(request_id="r6", hold_ms=MINUTE_MS))
    running.time.advance(59.999)
    before = running.data.peek(ask(request_id="r7", hold_ms=MINUTE_MS))
    running.time.advance(0.001)
    after = running.data.peek(ask(request_id="r7", hold_ms=MINUTE_MS))

    assert [(ALLOWED, running.time.now_ms)] * 4 == [(answer.verdict, answer.hold_expires_at_ms) for answer in first]
    assert (CONCURRENCY, "calls", 1000) == (refused.verdict, refused.rule, refused.retry_after_ms)
    assert ("1302", 429) == (refused.vendor.code, refused.vendor.http_status)
    assert not refused.HasField("resets_at_ms")
    assert not refused.HasField("hold_expires_at_ms")
    assert (ALLOWED, False) == (without_hold.verdict, without_hold.HasField("hold_expires_at_ms"))
    assert [ALLOWED, CONCURRENCY, ALLOWED] == [answer.verdict for answer in (settled, before, after)]


def test_usage_shows_what_is_in_flight(running: Running) -> None:
    """each hold with model, times and charge, the oldest first, and the places of the hour."""
    now_ms = running.time.now_ms
    running.data.admit(ask("demo-pro", request_id="r1", model="glm-5", hold_ms=MINUTE_MS))
    running.time.advance(1)
    running.data.admit(ask("demo-pro", request_id="r2", hold_ms=2 * MINUTE_MS))
    usage = running.data.usage("demo-pro")
    running.time.advance(5 * 3600)
    later = running.data.usage("demo-pro")

    assert [
        ("r1", "GLM-5", now_ms, now_ms + MINUTE_MS, {"prompts": 3}),
        ("r2", "GLM-4.7", now_ms + 1000, now_ms + 1000 + 2 * MINUTE_MS, {"prompts": 1}),
    ] == [
        (hold.request_id, hold.model, hold.admitted_at_ms, hold.expires_at_ms, units(hold.charged))
        for hold in usage.holds
    ]
    assert [quota_pb2.ConcurrencyState(id="calls", limit=8, in_flight=2)] == list(usage.concurrency)
    assert [quota_pb2.ConcurrencyState(id="calls", limit=16, in_flight=0)] == list(later.concurrency)
    assert not later.holds


def test_renew_keeps_and_never_shortens(running: Running) -> None:
    """the end is now plus what was asked, or what it was; the answer to the id shows it; an ended hold stays ended."""
    now_ms = running.time.now_ms
    request = ask(request_id="r1", hold_ms=MINUTE_MS)
    running.data.admit(request)
    running.time.advance(30)
    longer = running.data.renew("demo-lite", "r1", MINUTE_MS).hold_expires_at_ms
    shorter = running.data.renew("demo-lite", "r1", 1).hold_expires_at_ms
    again = running.data.admit(request).hold_expires_at_ms
    running.time.advance(60)
    ended, _ = error_of(lambda: running.data.renew("demo-lite", "r1", MINUTE_MS))

    assert [now_ms + 90_000] * 3 == [longer, shorter, again]
    assert grpc.StatusCode.FAILED_PRECONDITION == ended


@pytest.mark.parametrize(
    ("account", "request_id", "hold_ms", "status"),
    [
        ("demo-lite", "nosuch", 1000, grpc.StatusCode.NOT_FOUND),
        ("nobody", "held", 1000, grpc.StatusCode.NOT_FOUND),
        ("demo-lite", "without", 1000, grpc.StatusCode.FAILED_PRECONDITION),
        ("demo-lite", "settled", 1000, grpc.StatusCode.FAILED_PRECONDITION),
        ("demo-lite", "held", 0, grpc.StatusCode.INVALID_ARGUMENT),
        ("demo-lite", "held", -1, grpc.StatusCode.INVALID_ARGUMENT),
        ("demo-lite", "held", 3_600_001, grpc.StatusCode.INVALID_ARGUMENT),
        ("demo-lite", "", 1000, grpc.StatusCode.INVALID_ARGUMENT),
        ("demo-lite", "r" * 257, 1000, grpc.StatusCode.INVALID_ARGUMENT),
        ("", "held", 1000, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_cannot_be_renewed(
    running: Running, account: str, request_id: str, hold_ms: int, status: grpc.StatusCode
) -> None:
    """each in its own status, and the hold stays as it is."""
    running.data.admit(ask(request_id="held", hold_ms=MINUTE_MS))
    running.data.admit(ask(request_id="without"))
    running.data.admit(ask(request_id="settled", hold_ms=MINUTE_MS))
    running.data.settle("demo-lite", "settled", COMMIT)

    assert status == error_of(lambda: running.data.renew(account, request_id, hold_ms))[0]
    assert [("held", running.time.now_ms + MINUTE_MS)] == [
        (hold.request_id, hold.expires_at_ms) for hold in running.data.usage("demo-lite").holds
    ]


def test_the_server_bounds_holds(serve: Callable[..., Running]) -> None:
    """hold_ms_max and holds_max are those of the settings."""
    running = serve(hold_ms_max=5000, holds_max=2)
    too_long = [
        error_of(lambda: running.data.admit(ask(request_id="r1", hold_ms=5001))),
        error_of(lambda: running.data.renew("demo-lite", "r1", 5001)),
    ]
    verdicts = [running.data.admit(ask(request_id=f"r{number}", hold_ms=5000)) for number in range(3)]

    assert grpc.StatusCode.INVALID_ARGUMENT == too_long[0][0]
    assert too_long[0][1].startswith("hold_ms: 5001 is not allowed; allowed: ")
    assert "5000" in too_long[0][1]
    assert too_long[1][0] in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert [(ALLOWED, ""), (ALLOWED, ""), (CONCURRENCY, "account.holds")] == [(it.verdict, it.rule) for it in verdicts]
    assert grpc.StatusCode.INVALID_ARGUMENT == error_of(lambda: running.data.renew("demo-lite", "r0", 5001))[0]


# ---- Settlements -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "actual", "charged", "refunded", "left"),
    [
        (COMMIT, draws(), {}, {}, (2, 2, 1)),
        (COMMIT, draws(prompt=5, web_search=1), {"prompts": 3}, {}, (5, 5, 1)),
        (COMMIT, draws(prompt=1, web_search=4), {"mcp": 3}, {"prompts": 1}, (1, 1, 4)),
        (COMMIT, draws(prompt=0), {}, {"prompts": 2, "mcp": 1}, (0, 0, 0)),
        (CANCEL, draws(), {}, {"prompts": 2, "mcp": 1}, (0, 0, 0)),
    ],
)
def test_a_settlement_moves_what_it_says(
    running: Running,
    outcome: quota_pb2.Outcome.ValueType,
    actual: list[quota_pb2.Draw],
    charged: dict[str, float],
    refunded: dict[str, float],
    left: tuple[float, ...],
) -> None:
    """the difference to what was charged, on top or back; twice is once; the hold is closed."""
    running.data.admit(ask(request_id="r1", hold_ms=MINUTE_MS, draws={"prompt": 2, "web_search": 1}))
    first = running.data.settle("demo-lite", "r1", outcome, actual)
    running.time.advance(100)
    second = running.data.settle("demo-lite", "r1", outcome, actual)

    assert (charged, refunded, False) == (units(first.charged), units(first.refunded), first.late)
    assert first == second
    assert left == used(running)
    assert not running.data.usage("demo-lite").holds


def test_a_settlement_cannot_be_changed(running: Running) -> None:
    """ALREADY_EXISTS for another outcome or other draws, and nothing moves."""
    running.data.admit(ask(request_id="r1"))
    running.data.settle("demo-lite", "r1", COMMIT, draws(prompt=3))
    statuses = {
        error_of(lambda outcome=outcome, actual=actual: running.data.settle("demo-lite", "r1", outcome, actual))[0]
        for outcome, actual in ((CANCEL, []), (COMMIT, []), (COMMIT, draws(prompt=2)))
    }

    assert {grpc.StatusCode.ALREADY_EXISTS} == statuses
    assert (3, 3, 0) == used(running)


def test_a_late_settlement_is_served(running: Running) -> None:
    """past the hold, and without one: late, and settled all the same; until 120 s later."""
    running.data.admit(ask(request_id="held", hold_ms=1000))
    running.data.admit(ask(request_id="without"))
    running.data.admit(ask(request_id="forgotten", hold_ms=1000))
    running.time.advance(1)
    late = [running.data.settle("demo-lite", id, CANCEL) for id in ("held", "without")]
    running.time.advance(120.001)
    status, _ = error_of(lambda: running.data.settle("demo-lite", "forgotten", CANCEL))

    assert [(True, {"prompts": 1})] * 2 == [(it.late, units(it.refunded)) for it in late]
    assert grpc.StatusCode.NOT_FOUND == status
    assert (1, 1, 0) == used(running)


def test_what_has_left_its_window_is_not_given_back(running: Running) -> None:
    """the five hours have passed, the week has not: the answer says what came back, and where is seen in the usage."""
    running.data.admit(ask(request_id="r1", hold_ms=60 * MINUTE_MS))
    for _ in range(6):
        running.time.advance(3000)
        running.data.renew("demo-lite", "r1", 60 * MINUTE_MS)
    settled = running.data.settle("demo-lite", "r1", CANCEL)

    assert ({"prompts": 1}, False) == (units(settled.refunded), settled.late)
    assert (0, 0, 0) == used(running)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"account": "", "request_id": "r1", "outcome": COMMIT}, "account: ''"),
        ({"account": "demo-lite", "request_id": "", "outcome": COMMIT}, "request_id: ''"),
        ({"account": "demo-lite", "request_id": "r" * 257, "outcome": COMMIT}, "request_id: 'rrr"),
        ({"account": "demo-lite", "request_id": "r1"}, "outcome: "),
        ({"account": "demo-lite", "request_id": "r1", "outcome": 7}, "outcome: 7 is not allowed"),
        ({"account": "demo-lite", "request_id": "r1", "outcome": CANCEL, "draws": draws(prompt=1)}, "draws: "),
        ({"account": "demo-lite", "request_id": "r1", "outcome": COMMIT, "draws": draws(coffee=1)}, "draws[0].meter"),
        (
            {"account": "demo-lite", "request_id": "r1", "outcome": COMMIT, "draws": draws(prompt=1) * 2},
            "draws[1].meter",
        ),
        (
            {"account": "demo-lite", "request_id": "r1", "outcome": COMMIT, "draws": draws(prompt=10**9 + 1)},
            "draws[0].amount",
        ),
    ],
)
def test_a_wrong_settlement_is_refused_by_name(running: Running, fields: dict[str, object], words: str) -> None:
    """INVALID_ARGUMENT with the field at fault; the hold stays open and the charge as it is."""
    running.data.admit(ask(request_id="r1", hold_ms=MINUTE_MS))
    status, text = error_of(lambda: running.data._stub.Settle(quota_pb2.SettleRequest(**fields), timeout=5))

    assert grpc.StatusCode.INVALID_ARGUMENT == status
    assert text.startswith(words)
    assert (1, 1, 0) == used(running)
    assert 1 == len(running.data.usage("demo-lite").holds)


@pytest.mark.parametrize(("account", "request_id"), [("nobody", "r1"), ("demo-lite", "nosuch"), ("demo-pro", "r1")])
def test_what_was_not_admitted_is_not_found(running: Running, account: str, request_id: str) -> None:
    """no such account, no such id, another account's id."""
    running.data.admit(ask(request_id="r1"))

    assert grpc.StatusCode.NOT_FOUND == error_of(lambda: running.data.settle(account, request_id, COMMIT))[0]


# ---- Prompts and RECORD ----------------------------------------------------------------------------------------------


def test_calls_of_a_prompt_cost_one(running: Running) -> None:
    """20 calls cost one prompt, at the heaviest weight among them; the 21st begins a new one; other pools pay each time."""
    calls = [ask("demo-pro", prompt_id="p1", draws={"model_call": 1, "web_search": 1}) for _ in range(19)]
    calls.insert(5, ask("demo-pro", prompt_id="p1", model="glm-5", draws={"model_call": 1}))
    charges = [units(running.data.admit(call).charged) for call in calls]
    next_one = running.data.admit(ask("demo-pro", prompt_id="p1", draws={"model_call": 1}))

    assert {"prompts": 1, "mcp": 1} == charges[0]
    assert {"prompts": 2} == charges[5]
    assert [{"mcp": 1}] * 18 == [*charges[1:5], *charges[6:]]
    assert {"prompts": 1} == units(next_one.charged)
    assert (4, 4, 19) == used(running, "demo-pro")


def test_a_paid_prompt_passes_a_full_limit(running: Running) -> None:
    """the calls of a prompt that has paid go on when the limit is used up; a new prompt does not; idle it ends."""
    running.data.admit(ask(prompt_id="p1"))
    running.data.admit(ask(draws={"prompt": 79}))
    paid = running.data.admit(ask(prompt_id="p1"))
    new = running.data.admit(ask(prompt_id="p2"))
    running.time.advance(600)
    alive = running.data.peek(ask(prompt_id="p1"))
    running.time.advance(0.001)
    idle = running.data.peek(ask(prompt_id="p1"))

    assert [ALLOWED, EXHAUSTED, ALLOWED, EXHAUSTED] == [it.verdict for it in (paid, new, alive, idle)]
    assert not paid.charged


def test_a_cancelled_prompt_is_given_back_unless_joined(running: Running) -> None:
    """the only call of a prompt gives its unit back, one of several does not."""
    running.data.admit(ask(prompt_id="alone", request_id="r1"))
    running.data.admit(ask(prompt_id="joined", request_id="r2"))
    running.data.admit(ask(prompt_id="joined", request_id="r3"))
    refunds = [units(running.data.settle("demo-lite", id, CANCEL).refunded) for id in ("r1", "r2")]

    assert [{"prompts": 1}, {}] == refunds
    assert (1, 1, 0) == used(running)


def test_prompts_forgotten_early_are_counted(serve: Callable[..., Running]) -> None:
    """past prompts_max the one unused for longest pays anew."""
    running = serve(prompts_max=2)
    for prompt in ("a", "b", "c", "a"):
        running.data.admit(ask(prompt_id=prompt))
        running.time.advance(1)

    assert 4 == used(running)[0]
    assert "quotad_prompts_forgotten_total 2.0" in running.get("/metrics")[1]


def test_what_has_happened_is_recorded(running: Running) -> None:
    """RECORD charges past the limit and takes a place past the last; what the plan does not have it refuses."""
    put = admin_pb2.Account(id="ada", plan="lite", overrides=[admin_pb2.Override(limit_id="calls", limit=1)])
    running.admin.put_account(put)
    record = quota_pb2.RECORD
    verdicts = [
        running.data.admit(
            ask("ada", request_id=f"r{number}", hold_ms=MINUTE_MS, mode=record, draws={"prompt": 50})
        ).verdict
        for number in range(2)
    ]
    usage = running.data.usage("ada")

    assert [ALLOWED] * 2 == verdicts
    assert (100, 125, 2) == (
        usage.limits[0].used_micro // 1_000_000, usage.limits[0].percent, usage.concurrency[0].in_flight,
    )  # fmt: skip
    assert EXHAUSTED == running.data.admit(ask("ada")).verdict
    assert quota_pb2.MODEL_NOT_IN_PLAN == running.data.admit(ask("ada", model="glm-5", mode=record)).verdict
