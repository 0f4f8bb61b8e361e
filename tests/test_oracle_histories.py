"""Random histories: the engine agrees with both oracles at every step, and keeps the promises that its answers make.

The same histories run by the million with `python tests/campaign.py`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn_catalogs import RandomDice, chance
from drawn_requests import ACCOUNTS
from histories import History
from hypothesis import given
from hypothesis import strategies as st
from oracle import Ask, Wrong
from oracle.wall import DAY, HOUR, SECOND, utc_us
from properties import allowed, alone, begun, histories, usages, used
from worlds import EngineWorld

from quota.types import Verdict

HINTED = (Verdict.CONCURRENCY, Verdict.OVERLOADED)
SEARCHED_SURELY = 12 * DAY  # Schedules as drawn change at most four times a day: 64 segments last longer.
FIVE_HOURS = """
catalog: short-log
time_zone: UTC
meters: {request: {pool: requests}}
default_meter: request
plans:
  solo:
    pools:
      requests:
        - {id: five-hours, window: {sliding: 5h}, limit: 20, entries: 8}
"""


class DrawnDice:
    """Dice that hypothesis throws."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def pick(self, faces):
        return faces[self.whole(0, len(faces) - 1)]

    def whole(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))


@histories
@given(st.data())
def test_engine_and_oracles_agree(data):
    """Every answer and all usage are as the oracles say, in histories that hypothesis looks for."""
    History(DrawnDice(data)).run(15)


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_engine_and_oracles_agree_for_long(seed):
    """The same in longer histories, in which logs fill, periods end and plans change often."""
    History(RandomDice(seed)).run(300)


@histories
@given(st.integers(0, 10**9))
def test_a_retry_succeeds_when_promised_and_not_a_millisecond_earlier(seed):
    """`retry_after_ms` is the first whole millisecond at which the limits let the request pass if nothing else happens."""
    history = begun(seed)
    for _ in range(20):
        history.pass_time()
        ask, now = history.drawn.ask(), history.now
        answer = history.engine.peek(ask, now)
        if (
            isinstance(answer, Wrong)
            or answer.retry_after_ms is None
            or answer.verdict in HINTED
            or answer.retry_after_ms * 1000 > SEARCHED_SURELY
        ):
            continue
        later = now + answer.retry_after_ms * 1000
        expires_at = history.oracle.oracle.subscribers[ask.account].expires_at
        if not expires_at or later < expires_at:
            passing = (Verdict.ALLOWED, *HINTED)  # How long calls are in flight nobody knows.
            assert history.engine.peek(ask, later).verdict in passing
            assert history.engine.peek(ask, later - 1000).verdict not in passing


@histories
@given(st.integers(0, 10**9))
def test_a_peek_changes_nothing(seed):
    """A peek says what the next admission says, however often; usage stays as it was, now and later."""
    history = begun(seed)
    for _ in range(10):
        ask, now, before = history.drawn.ask(), history.now, usages(history, history.now)
        first, second = history.engine.peek(ask, now), history.engine.peek(ask, now)
        assert first == second
        assert before == usages(history, now)
        assert first == history.engine.admit(ask, now)


@histories
@given(st.integers(0, 10**9))
def test_a_refusal_leaves_no_trace(seed):
    """After a refused admission, usage is the same at every time to come, and earlier times too."""
    history = begun(seed)
    for _ in range(20):
        history.pass_time()
        ask, now = history.drawn.ask(), history.now
        times = [now - DAY, now, now + HOUR, now + 8 * DAY]
        before = [usages(history, at) for at in times]
        answer = history.engine.admit(ask, now)
        if not allowed(answer):
            assert before == [usages(history, at) for at in times]


@histories
@given(st.integers(0, 10**9))
def test_time_going_back_frees_nothing(seed):
    """After an admission, usage at any earlier time is what it is now, and so are the moments at which it comes back."""
    history = begun(seed)
    for _ in range(20):
        history.pass_time()
        ask, now = alone(history.drawn.ask()), history.now
        answer = history.engine.admit(ask, now)
        if allowed(answer):
            seen = history.engine.usage(ask.account, now)
            for back in (1, SECOND, HOUR, 30 * DAY):
                assert seen == history.engine.usage(ask.account, now - back)


@histories
@given(st.integers(0, 10**9))
def test_all_limits_are_charged_or_none(seed):
    """What an admission costs is drawn on every limit that it touches, in every pool; a refusal draws on none."""
    history = begun(seed)
    for _ in range(20):
        history.pass_time()
        ask, now = replace(alone(history.drawn.ask()), explain=True), history.now
        if ask.account not in ACCOUNTS:
            continue
        before = used(history.engine, ask.account, now)
        answer = history.engine.admit(ask, now)
        after = used(history.engine, ask.account, now)
        grown = {id for id in after if after[id] > before[id]}
        if not allowed(answer):
            assert before == after
        elif all((ask.draws or {"piece": 1}).values()):
            assert {state.id for state in answer.limits} == grown


@histories
@given(st.integers(0, 10**9))
def test_no_window_ever_holds_more_than_the_limit(seed):
    """Whatever is merged, no five hours see more than the limit drawn; not even when the clock goes back now and then."""
    dice, world = RandomDice(seed), EngineWorld()
    world.load(FIVE_HOURS)
    now = seen = utc_us(2026, 3, 2)
    world.put("ada", catalog="short-log", plan="solo", now=now)
    drawn = []
    for _ in range(200):
        now += dice.whole(0, 40) * 60 * SECOND * (-1 if chance(dice, 10) else 1)
        amount = dice.whole(1, 4)
        if world.admit(Ask("ada", draws={"request": amount}), now).allowed:
            seen = max(seen, now)
            drawn.append((seen, amount))
            assert sum(n for at, n in drawn if at > seen - 5 * HOUR) <= 20
