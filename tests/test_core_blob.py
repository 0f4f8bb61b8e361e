"""Blobs: identity, noticed damage, and what is carried along."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import START_MS, engine_with

from quota import AlreadyExists, Engine, NotFound, Outcome, Request
from quota.errors import CorruptRecord

LIMITS = """
        - {id: s, window: {sliding: 1h}, limit: 1000, entries: 8}
        - {id: steps, window: {sliding: 5h, step: 1h}, limit: 1000}
        - {id: c, window: {cycle: 90m}, limit: 1000}
        - {id: d, window: {calendar: day, at: "10:00"}, limit: 1000}
        - {id: a, window: {anniversary: 1mo}, limit: 1000}
    burst: {id: pace, pool: p, rate: 7/1s, depth: 1000}"""


def drawn(gaps_ms):
    """An engine whose `ada` has drawn after each of these gaps, and the time."""
    engine = engine_with(LIMITS)
    now_ms = START_MS
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        engine.admit(Request("ada", model="m", draws={"tenth": 3}), now_ms=now_ms)
    return engine, now_ms


def lived_in(gaps_ms):
    """The same with a life at its side: ids, open, closed and settled holds, prompts, limits of its own."""
    engine, now_ms = drawn(gaps_ms)
    engine.put_account("ada", plan="only", overrides={"s": 500, "pace": 900})
    for i, gap_ms in enumerate(gaps_ms):
        now_ms += gap_ms // 50
        request = Request(
            "ada", model="m", request_id=f"r{i}", prompt_id=f"p{i % 3}", hold_ms=i % 4 * 20_000, client="laptop"
        )
        engine.admit(request, now_ms=now_ms)
        if i % 3 == 2:
            outcome = Outcome.CANCEL if i % 2 else Outcome.COMMIT
            engine.settle("ada", f"r{i - 1}", outcome=outcome, now_ms=now_ms)
    return engine, now_ms


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4_000_000), max_size=30), st.integers(0, 2**64 - 1))
def test_encode_and_decode_are_inverse(gaps_ms, tag):
    """A decoded record encodes to the same bytes, in another ledger too, and answers alike."""
    engine, now_ms = drawn(gaps_ms)
    blob = engine.ledger.encode("ada", tag)
    other = engine_with(LIMITS)
    other.ledger.decode("ada", blob)
    other.ledger.check()

    assert blob == other.ledger.encode("ada", tag)
    request = Request("ada", model="m", draws={"unit": 990}, explain=True)
    for later_ms in (0, 1, 3_600_000, 86_400_000):
        here = engine.peek(request, now_ms=now_ms + later_ms)
        there = other.peek(request, now_ms=now_ms + later_ms)
        assert (here.verdict, here.rule, here.retry_after_ms) == (there.verdict, there.rule, there.retry_after_ms)
        assert here.limits == there.limits


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2_000_000), max_size=30))
def test_what_stands_at_the_side_is_carried_over(gaps_ms):
    """Holds, ids, settlements, prompts and limits of its own, in another process: same bytes, same answers, now and later."""
    engine, now_ms = lived_in(gaps_ms)
    blob = engine.ledger.encode("ada", 1)
    other = engine_with(LIMITS)
    other.ledger.decode("ada", blob)
    other.ledger.check()

    assert blob == other.ledger.encode("ada", 1)
    for later_ms in (0, 30_000, 150_000):
        usage = [it.usage("ada", now_ms=now_ms + later_ms) for it in (engine, other)]
        assert usage[0].limits == usage[1].limits
        assert usage[0].holds == usage[1].holds
        for i in range(len(gaps_ms)):
            assert told(engine, i, now_ms + later_ms) == told(other, i, now_ms + later_ms)


def told(engine, i, now_ms):
    """What a retry of request i is told, and a settlement of it."""
    request = Request(
        "ada", model="m", request_id=f"r{i}", prompt_id=f"p{i % 3}", hold_ms=i % 4 * 20_000, client="laptop"
    )
    again = engine.peek(request, now_ms=now_ms)
    try:
        settled = engine.settle("ada", f"r{i}", outcome=Outcome.CANCEL, now_ms=now_ms)
    except (NotFound, AlreadyExists) as error:
        settled = type(error)
    return again.verdict, again.charged, again.weight_micro, again.hold_expires_at_ms, settled


def test_any_flipped_bit_is_noticed():
    """Every single bit of a blob; what was there before goes on."""
    engine, now_ms = lived_in([1000] * 6)
    ledger = engine.ledger
    blob = ledger.encode("ada", 99)
    before = engine.usage("ada", now_ms=now_ms)
    for bit in range(len(blob) * 8):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecord, match="ada"):
            ledger.decode("ada", bytes(damaged))

    assert before == engine.usage("ada", now_ms=now_ms)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 40])
def test_truncated_blobs_are_noticed(size):
    """A blob that ends early does not read as an emptier record."""
    engine, _ = drawn([1000] * 20)
    blob = engine.ledger.encode("ada", 1)
    with pytest.raises(CorruptRecord):
        engine.ledger.decode("ada", blob[:size])
    with pytest.raises(CorruptRecord):
        engine.ledger.decode("ada", blob[: len(blob) - size - 1])


def test_blob_of_another_account_is_noticed():
    """The checksum covers the id: a blob cannot be served under another name."""
    engine, _ = drawn([1000])
    with pytest.raises(CorruptRecord, match="bob"):
        engine.ledger.decode("bob", engine.ledger.encode("ada", 1))
    assert 1 == engine.accounts_count


def test_slots_of_limits_that_nobody_knows_any_more_are_kept():
    """A record written under a richer catalog keeps its slots in a poorer one, and has them when the rich one is back."""
    rich, now_ms = drawn([1000] * 5)
    blob = rich.ledger.encode("ada", 1)
    poor = engine_with("[{id: s, window: {sliding: 1h}, limit: 1000, entries: 8}]")
    poor.ledger.decode("ada", blob)

    assert blob == poor.ledger.encode("ada", 1)
    back = engine_with(LIMITS)
    back.ledger.decode("ada", poor.ledger.encode("ada", 1))
    assert rich.usage("ada", now_ms=now_ms).limits == back.usage("ada", now_ms=now_ms).limits


def test_a_record_of_a_plan_or_catalog_that_is_not_loaded_is_refused():
    """Nothing decides by guesswork: the message says what is missing."""
    engine, _ = drawn([1000])
    blob = engine.ledger.encode("ada", 1)
    with pytest.raises(CorruptRecord, match="no catalog 'small'"):
        Engine(["glm-2026"]).ledger.decode("ada", blob)


def test_a_light_user_is_small():
    """Three charges of a Lite user take about a hundred bytes."""
    engine = Engine(["glm-2026"])
    engine.put_account("ada", plan="lite", now_ms=START_MS)
    for i in range(3):
        engine.admit(Request("ada", model="glm-4.7", tool="cline"), now_ms=START_MS + i * 1000)

    assert len(engine.ledger.encode("ada", 2**64 - 1)) <= 128
