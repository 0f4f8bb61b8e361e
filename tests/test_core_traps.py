"""Mistakes that this kind of core invites, each with the history that shows it."""

from __future__ import annotations

import pytest
from plans import START_MS, engine_with

from quota import InvalidArgument, Request, Verdict

HOUR_MS = 3_600_000


def admit(engine, at_ms, amount=1, meter="unit"):
    """One draw of `ada` at START_MS + at_ms."""
    return engine.admit(Request("ada", model="m", draws={meter: amount}), now_ms=START_MS + at_ms)


def test_oldest_entry_of_a_full_log_is_never_merged():
    """A unit comes back at most 2W/(M-2) late, however long an account draws at the limit of its log."""
    engine = engine_with("[{id: l, window: {sliding: 1h}, limit: 1000, entries: 8}]")
    late_ms_max = 2 * HOUR_MS // 6
    drawn_at = []
    for minute in range(600):
        now_ms = minute * 60_000
        admit(engine, now_ms)
        drawn_at.append(now_ms)
        used = engine.usage("ada", now_ms=START_MS + now_ms).limits[0].used_micro // 10**6
        exact = sum(now_ms - HOUR_MS < at for at in drawn_at)
        held_longer = sum(now_ms - HOUR_MS - late_ms_max < at for at in drawn_at)
        assert exact <= used <= held_longer


def test_exact_while_the_log_has_room():
    """Up to M draws that are alive, every one comes back to the millisecond."""
    engine = engine_with("[{id: l, window: {sliding: 1h}, limit: 8, entries: 8}]")
    for i in range(8):
        assert admit(engine, i * 1000).allowed
    refused = admit(engine, 8000)

    assert HOUR_MS - 8000 == refused.retry_after_ms
    assert not admit(engine, HOUR_MS - 1).allowed
    assert admit(engine, HOUR_MS).allowed
    assert not admit(engine, HOUR_MS + 999).allowed
    assert admit(engine, HOUR_MS + 1000).allowed


def test_amounts_times_durations_pass_64_bits():
    """Units by the billion over a year: the merge compares c*W, far past 64 bits, and still joins the cheapest pair."""
    engine = engine_with("[{id: l, window: {sliding: 366d}, limit: 1000000000000, entries: 8}]")
    amounts = (10**9, 10**9, 10**9, 10**9, 10**9, 1, 10**9, 10**9, 10**9)
    for day, amount in enumerate(amounts):
        assert admit(engine, day * 24 * HOUR_MS, amount).allowed
    # The single unit of day 5 was joined into day 6; wrapped products would have joined another pair.
    back = [engine.usage("ada", now_ms=START_MS + (366 + day) * 24 * HOUR_MS).limits[0].used_micro for day in range(9)]

    left = sum(amounts) * 10**6
    expected = []
    for amount in (10**9, 10**9, 10**9, 10**9, 10**9, 0, 10**9 + 1, 10**9, 10**9):
        left -= amount * 10**6
        expected.append(left)
    assert expected == back


def test_never_wins_over_every_wait():
    """An amount that can never fit under one limit is AMOUNT_TOO_LARGE, though another only asks to wait."""
    engine = engine_with("[{id: short, window: {sliding: 1h}, limit: 100}, {id: long, window: {cycle: 5h}, limit: 10}]")
    admit(engine, 0, 10)
    refused = admit(engine, 1000, 11)

    assert Verdict.AMOUNT_TOO_LARGE == refused.verdict
    assert "long" == refused.rule
    assert refused.retry_after_ms is None
    assert refused.resets_at_ms is None


def test_smallest_fraction_costs_something():
    """A draw above 0 is never free, however small its weight makes it."""
    engine = engine_with("[{id: l, window: {sliding: 1h}, limit: 1}]", models="m: {weights: [{weight: 0.001}]}")

    assert {"p": 100} == admit(engine, 0, 1, "tenth").charged


@pytest.mark.parametrize(
    ("amount", "charged"),
    [(0, {}), (1, {"p": 66_666}), (2, {"p": 133_333}), (3, {"p": 200_000}), (10, {"p": 666_666})],
)
def test_fractions_round_down_once(amount, charged):
    """amount × 1/10 × 2/3 is taken exactly and rounded at the end, not at every step."""
    engine = engine_with("[{id: l, window: {sliding: 1h}, limit: 10}]", models="m: {weights: [{weight: 2/3}]}")

    assert charged == admit(engine, 0, amount, "tenth").charged


def test_largest_cost_there_is():
    """10^9 units at weight 1000 are 10^12, the most a draw may cost; it is charged to the micro-unit."""
    engine = engine_with(
        "[{id: l, window: {sliding: 1h}, limit: 1000000000000}]", models="m: {weights: [{weight: 1000}]}"
    )

    assert {"p": 10**18} == admit(engine, 0, 10**9).charged
    assert 10**18 == engine.usage("ada", now_ms=START_MS).limits[0].used_micro
    with pytest.raises(InvalidArgument, match=r"draws\[0\].amount"):
        Request("ada", draws={"unit": 10**9 + 1})


def test_bucket_of_an_odd_rate_gives_its_whole_depth_at_once():
    """7 a minute is no whole number of microseconds a unit; thirty at once still fit a depth of thirty, one more does not."""
    engine = engine_with("[]\n    burst: {id: pace, pool: p, rate: 7/1m, depth: 30}")
    verdicts = [admit(engine, 0).verdict for _ in range(31)]

    assert [Verdict.ALLOWED] * 30 + [Verdict.BURST] == verdicts
    refused = admit(engine, 0)
    assert 8572 == refused.retry_after_ms  # 60000/7 = 8571.43
    assert not admit(engine, 8571).allowed
    assert admit(engine, 8572).allowed
    assert all(admit(engine, 8572 + 60_000 * minute, 7).allowed for minute in range(1, 200))


def test_time_going_back_frees_nothing():
    """The account's time stays at its last admission; what comes back later still does so when it was promised."""
    engine = engine_with("[{id: l, window: {sliding: 1h}, limit: 2}]")
    admit(engine, 10_000)
    admit(engine, 20_000)
    refused = admit(engine, 15_000)

    assert not refused.allowed
    assert HOUR_MS - 5_000 == refused.retry_after_ms
    assert START_MS + HOUR_MS + 10_000 == refused.resets_at_ms


def test_refused_request_and_peek_leave_no_byte_changed():
    """The record is the same to the last byte after refusals and peeks of every kind."""
    engine = engine_with("[{id: l, window: {sliding: 1h}, limit: 2}, {id: c, window: {cycle: 5h}, limit: 3}]")
    admit(engine, 0)
    ledger = engine.ledger
    before = ledger.encode("ada", 0)
    for amount in (0, 1, 2, 3, 4):
        engine.peek(Request("ada", model="m", draws={"unit": amount}, explain=True), now_ms=START_MS + 2 * HOUR_MS)
    assert not admit(engine, 1000, 2).allowed
    assert not admit(engine, 9 * HOUR_MS, 4).allowed

    assert before == ledger.encode("ada", 0)


def test_vendor_text_names_no_reading_that_clocks_skip():
    """A reset within the second before clocks go forward is told as the first reading after: Havana, 2025-03-09."""
    change_ms = 1_741_496_400_000  # 00:00 becomes 01:00
    engine = engine_with("[{id: l, window: {sliding: 1h}, limit: 1}]", zone="America/Havana")
    engine.put_account("ben", plan="only", subscribed_at_ms=change_ms - 2 * HOUR_MS)
    request = Request("ben", model="m")
    assert engine.admit(request, now_ms=change_ms - HOUR_MS - 500).allowed
    refused = engine.admit(request, now_ms=change_ms - HOUR_MS)

    assert change_ms - 500 == refused.resets_at_ms
    assert refused.vendor.message.endswith("resets at 2025-03-09 01:00:00.")


def test_no_wait_where_the_limit_frees_only_after_the_light_weight_has_ended():
    """From 10 March on every weight is 40, schedules or not, and 40 never fit: what is full until the 31st is no matter of waiting."""
    engine = engine_with(
        "[{id: l, window: {cycle: 30d}, limit: 10}]",
        models="m: {weights: [{weight: 0.5, until: 2026-03-10}, {weight: 40, when: peak}, {weight: 40}]}",
        extra='schedules: {peak: [{daily: "14:00-18:00"}]}',
    )
    assert admit(engine, 0, 20).allowed
    refused = admit(engine, 1000, 1)

    assert (Verdict.LIMIT_EXHAUSTED, "l", None) == (refused.verdict, refused.rule, refused.retry_after_ms)


def test_a_date_that_changes_nothing_does_not_hide_the_one_after_it():
    """The weight is 40, for nine days by a date and then by night and day but for half an hour; another date passes in between."""
    engine = engine_with(
        "[{id: l, window: {cycle: 30d}, limit: 5}]",
        models="m: {weights: [{weight: 40, until: 2026-03-10T09:00}, {weight: 0.5, when: peak}, {weight: 40},"
        " {weight: 40, until: 2026-03-02}]}",
        extra='schedules: {peak: [{daily: "02:15-02:45"}]}',
    )
    refused = admit(engine, 1000, 2)

    assert (Verdict.LIMIT_EXHAUSTED, "l") == (refused.verdict, refused.rule)
    assert START_MS + (10 * 24 + 2) * HOUR_MS + 15 * 60_000 == refused.resets_at_ms
