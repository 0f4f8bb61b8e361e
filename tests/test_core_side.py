"""What stands at a record's side: refunds that find nothing to refund, queues that grow and shrink, memory that is given back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import START_MS, catalog_text, engine_with

from quota import AlreadyExists, Bounds, Engine, NotFound, Outcome, Request

HOUR_MS = 3_600_000
LIMITS = "[{id: s, window: {sliding: 1h}, limit: 1000, entries: 8}, {id: c, window: {cycle: 2h}, limit: 1000}]"


def admit(engine, at_ms, request_id="", amount=1, **more):
    request = Request("ada", model="m", draws={"unit": amount}, request_id=request_id, **more)
    return engine.admit(request, now_ms=START_MS + at_ms)


def cancel(engine, at_ms, request_id):
    return engine.settle("ada", request_id, outcome=Outcome.CANCEL, now_ms=START_MS + at_ms)


def used(engine, at_ms):
    return {limit.id: limit.used_micro // 10**6 for limit in engine.usage("ada", now_ms=START_MS + at_ms).limits}


def test_refund_of_what_has_come_back_already_credits_nobody():
    """The draw left its window at 1 h; cancelled a second later it must not take another's draw out of the log."""
    engine = engine_with(LIMITS)
    admit(engine, 0, "gone", 5, hold_ms=HOUR_MS)
    admit(engine, HOUR_MS // 2, amount=3)
    settled = cancel(engine, HOUR_MS + 1000, "gone")

    assert {"p": 5_000_000} == settled.refunded  # of the cycle, which runs on
    assert {"s": 3, "c": 3} == used(engine, HOUR_MS + 1000)


def test_refund_never_reaches_into_a_later_period():
    """Drawn in one cycle and cancelled in the next: the next keeps all of its own."""
    engine = engine_with("[{id: c, window: {cycle: 10m}, limit: 100}]")
    admit(engine, 0, "late", 7, hold_ms=HOUR_MS)
    admit(engine, 660_000, amount=9)

    assert {} == cancel(engine, 670_000, "late").refunded
    assert {"c": 9} == used(engine, 670_000)


def test_refund_finds_its_draw_where_it_was_merged():
    """Twenty draws in eight entries: whatever was joined with what, cancelling every one leaves nothing, and never more than that."""
    engine = engine_with(LIMITS)
    for i in range(20):
        admit(engine, i * 60_000, f"r{i}", i + 1, hold_ms=HOUR_MS)
    left = sum(range(1, 21))
    for i in (3, 17, 0, 9, 19, *set(range(20)) - {3, 17, 0, 9, 19}):
        refunded = cancel(engine, 1_200_000, f"r{i}").refunded
        left -= i + 1
        assert {"p": (i + 1) * 10**6} == refunded
        assert left == used(engine, 1_200_000)["c"]
    assert {"s": 0, "c": 0} == used(engine, 1_200_000)


def test_refund_after_support_gave_back_takes_nobody_elses():
    """What was given back by hand stays in the log as nothing, so that a later refund of it falls on nothing."""
    engine = engine_with("[{id: s, window: {sliding: 1h}, limit: 100}]")
    admit(engine, 0, "mine", 10, hold_ms=HOUR_MS)
    engine.ledger.adjust("ada", "p", "", -10_000_000, (START_MS + 1000) * 1000)
    admit(engine, 2000, amount=4)

    assert {} == cancel(engine, 3000, "mine").refunded
    assert {"s": 4} == used(engine, 3000)


def test_burst_gives_nothing_back():
    """A cancelled draw has been fast all the same."""
    engine = engine_with("[]\n    burst: {id: pace, pool: p, rate: 1/1m, depth: 5}")
    for i in range(5):
        admit(engine, 0, f"r{i}", hold_ms=1000)
        assert {} == cancel(engine, 0, f"r{i}").refunded

    assert not admit(engine, 0).allowed


def test_settlement_that_grows_the_record_keeps_every_slot():
    """A settlement charges a limit that the admission did not touch, while others have expired: no slot it needs is left out."""
    text = catalog_text(
        "[{id: all, window: {cycle: 1h}, limit: 100}, {id: tenths, window: {sliding: 1h}, limit: 100, meters: [tenth]}]"
    )
    engine = Engine([text])
    engine.put_account("ada", plan="only", subscribed_at_ms=START_MS)
    admit(engine, 0, "r", hold_ms=HOUR_MS)
    settled = engine.settle(
        "ada", "r", outcome=Outcome.COMMIT, draws={"unit": 3, "tenth": 20}, now_ms=START_MS + HOUR_MS + 60_000
    )

    assert {"p": 4_000_000} == settled.charged
    assert {"all": 4, "tenths": 2} == used(engine, HOUR_MS + 60_000)
    engine.ledger.check()


def test_settlement_is_priced_by_the_version_that_admitted():
    """The catalog changes while the call runs: its weight does not."""
    engine = engine_with("[{id: s, window: {sliding: 1h}, limit: 100}]", models="m: {weights: [{weight: 3}]}")
    assert {"p": 3_000_000} == admit(engine, 0, "r", hold_ms=60_000).charged
    engine.load_catalog(
        catalog_text("[{id: s, window: {sliding: 1h}, limit: 100}]", models="m: {weights: [{weight: 7}]}")
    )
    settled = engine.settle("ada", "r", outcome=Outcome.COMMIT, draws={"unit": 2}, now_ms=START_MS + 1000)

    assert {"p": 3_000_000} == settled.charged
    assert {"p": 7_000_000} == admit(engine, 2000).charged


def test_settlement_survives_more_versions_than_are_kept():
    """After a hundred reloads the version of the admission is gone; today's prices then, and nothing breaks."""
    engine = engine_with("[{id: s, window: {sliding: 1h}, limit: 100}]")
    admit(engine, 0, "r", hold_ms=60_000)
    for i in range(100):
        engine.load_catalog(catalog_text("[{id: s, window: {sliding: 1h}, limit: 100}]", extra=f"# {i}"))

    assert {"p": 1_000_000} == engine.settle(
        "ada", "r", outcome=Outcome.COMMIT, draws={"unit": 2}, now_ms=START_MS + 1000
    ).charged


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40_000), st.sampled_from(["hold", "id", "settle"])), max_size=120))
def test_ids_are_found_exactly_as_long_as_they_should_be(steps):
    """Queues that grow, are trimmed and move to the front lose nobody and keep nobody: a plain list says who is known."""
    engine = Engine([catalog_text("[]")], bounds=Bounds(request_ids_max=5, holds_max=1000))
    engine.put_account("ada", plan="only", subscribed_at_ms=START_MS)
    known: dict[str, tuple[int, bool]] = {}  # id -> (until, may be trimmed)
    now = 0
    for number, (gap, kind) in enumerate(steps):
        now += gap
        held = [id for id, (until, closed) in known.items() if not closed and now < until]
        if kind == "settle" and held:
            engine.settle("ada", held[0], outcome=Outcome.CANCEL, now_ms=START_MS + now)
            known[held[0]] = (now, True)
        else:
            id = f"r{number}"
            assert admit(engine, now, id, hold_ms=60_000 if kind == "hold" else 0).allowed
            known[id] = (now + 60_000, False) if kind == "hold" else (now, True)
        known = {id: (until, closed or until <= now) for id, (until, closed) in known.items() if now <= until + 120_000}
        rest = sorted(until for until, closed in known.values() if closed)
        for until in rest[: max(0, len(rest) - 5)]:
            del known[next(id for id, (at, closed) in known.items() if closed and at == until)]
        engine.ledger.check()
    seen = {id for id in (f"r{i}" for i in range(len(steps))) if is_known(engine, id, now)}
    assert set(known) == seen


def is_known(engine, id, now):
    """Whether the id is remembered: a Peek with other content then is a conflict."""
    try:
        engine.peek(Request("ada", model="m", client="other", request_id=id), now_ms=START_MS + now)
    except AlreadyExists:
        return True
    return False


def test_accounts_take_what_they_remember_with_them():
    """Deleted, put again: nothing is known of the ids of before."""
    engine = engine_with(LIMITS)
    admit(engine, 0, "r", hold_ms=60_000)
    engine.delete_account("ada", purge=True)
    engine.put_account("ada", plan="only", subscribed_at_ms=START_MS, overrides={"s": 7})

    with pytest.raises(NotFound):
        cancel(engine, 0, "r")
    assert {"s": 7} == dict(engine.get_account("ada").overrides)
    engine.put_account("ada", plan="only")
    assert {} == dict(engine.get_account("ada").overrides)
