"""What must hold of ids, holds and settlements, in random histories of the engine alone."""

from __future__ import annotations

from dataclasses import replace

from drawn_catalogs import RandomDice, chance
from drawn_requests import ACCOUNTS
from hypothesis import given
from hypothesis import strategies as st
from oracle import Answer, Ask, Wrong
from oracle.wall import HOUR, SECOND, utc_us
from properties import allowed, begun, histories, used
from worlds import EngineWorld

from quota.types import Bounds, Mode, Outcome

HELD = """
catalog: held
time_zone: Europe/Berlin
meters:
  prompt: {pool: calls, per_prompt: true, weighted: true}
  token:  {pool: [calls, tokens], per_unit: 1/3}
default_meter: token
models:
  Light:
  Heavy: {weights: [{weight: 2.5}]}
plans:
  solo:
    pools:
      calls:
        - {id: sliding, window: {sliding: 5h}, limit: 100000, entries: 1024}
        - {id: steps, window: {sliding: 1d, step: 1h}, limit: 100000}
        - {id: week, window: {calendar: week}, limit: 100000}
        - {id: month, window: {anniversary: 1mo}, limit: 100000}
      tokens:
        - {id: cycle, window: {cycle: 5h}, limit: 100000}
    burst: {id: pace, pool: tokens, rate: 1000/1s, depth: 100000}
    concurrency:
      - {id: all, limit: 6}
      - {id: heavy, limit: 2, models: [Heavy]}
"""


def held_world(now: int) -> EngineWorld:
    world = EngineWorld()
    world.load(HELD)
    world.put("ada", catalog="held", plan="solo", now=now)
    return world


def held_ask(dice: RandomDice, request_id: str, **more) -> Ask:
    draws = dice.pick([{"prompt": 1}, {"token": dice.whole(0, 9)}, {"prompt": 1, "token": 4}])
    hold_ms = dice.pick([0, 1, 60_000, 600_000, 3_600_000])
    return Ask("ada", dice.pick(["Light", "heavy"]), draws=draws, request_id=request_id, hold_ms=hold_ms, **more)


@histories
@given(st.integers(0, 10**9))
def test_a_request_sent_three_times_is_charged_once(seed):
    """Whatever the order, within 120 s and for up to 256 ids: every answer to one id is alike, and one of them was charged."""
    dice, now = RandomDice(seed), utc_us(2026, 3, 2)
    world = held_world(now)
    asks = [
        held_ask(dice, f"r{i}", prompt_id=dice.pick(["", "p1", "p2"]), mode=Mode.RECORD)
        for i in range(dice.pick([3, 30, 256]))
    ]
    sent = asks * 3
    dice.random.shuffle(sent)
    answers: dict[str, Answer] = {}
    for ask in sent:
        now += dice.whole(0, 120 * SECOND // len(sent))
        answer = world.admit(ask, now)
        assert answers.setdefault(ask.request_id, answer) == answer
    for pool, id in (("calls", "sliding"), ("tokens", "cycle")):
        assert sum(answer.charged.get(pool, 0) for answer in answers.values()) == used(world, "ada", now)[id]


@histories
@given(st.integers(0, 10**9))
def test_after_cancelling_everything_nothing_is_drawn(seed):
    """At one moment, in any state of any catalog: used is what it was. (Buckets give nothing back; no prompt was joined.)"""
    history = begun(seed, Bounds())
    history.pass_time()
    now, account = history.now, history.dice.pick(ACCOUNTS)
    before, ids = used(history.engine, account, now), []
    for i in range(20):
        ask = replace(
            history.drawn.ask(), account=account, request_id=f"new-{i}", prompt_id=history.dice.pick(["", f"new-{i}"])
        )
        if allowed(history.engine.admit(ask, now)):
            ids.append(ask.request_id)
    for request_id in sorted(ids, key=lambda _: history.dice.whole(0, 99)):
        assert not isinstance(history.engine.settle(account, request_id, Outcome.CANCEL, None, now), Wrong)
    after = used(history.engine, account, now)
    assert {**before, "pace": 0} == {**after, "pace": 0}


@histories
@given(st.integers(0, 10**9))
def test_after_cancelling_everything_later_every_running_window_is_as_before(seed):
    """The same with time passing: what other requests drew in between stays, what was cancelled is gone from every window."""
    dice, now = RandomDice(seed), utc_us(2026, 3, 7)
    world, twin, held = held_world(now), held_world(now), []
    for i in range(40):
        now += dice.whole(0, 600) * SECOND
        ask = held_ask(dice, f"r{i}", mode=Mode.RECORD)
        if dice.whole(0, 1):
            twin.admit(ask, now)
            world.admit(ask, now)
        elif allowed(world.admit(replace(ask, hold_ms=3_600_000), now)):
            held.append((now, ask.request_id))
        while held and (now - held[0][0] > 50 * 60 * SECOND or dice.whole(0, 1)):
            world.settle("ada", held.pop(0)[1], Outcome.CANCEL, None, now)
    for _, request_id in held:
        world.settle("ada", request_id, Outcome.CANCEL, None, now)
    for later in (0, 2 * HOUR, 4 * HOUR, 20 * HOUR):
        ours, theirs = used(world, "ada", now + later), used(twin, "ada", now + later)
        exact = ("sliding", "steps", "week", "month")  # A cycle may have been opened by what was cancelled.
        assert {id: ours[id] for id in exact} == {id: theirs[id] for id in exact}


@histories
@given(st.integers(0, 10**9))
def test_nothing_is_refunded_that_was_not_charged(seed):
    """By pool, a settlement gives back at most what its admission was charged."""
    history = begun(seed)
    charged: dict[tuple[str, str], dict[str, int]] = {}
    for i in range(40):
        history.pass_time()
        ask = replace(history.drawn.ask(), request_id=f"new-{i}")
        answer = history.engine.admit(ask, history.now)
        if allowed(answer):
            charged[ask.account, ask.request_id] = dict(answer.charged)
        if charged and chance(history.dice, 60):
            account, request_id = history.dice.pick(list(charged))
            outcome = history.dice.pick([Outcome.COMMIT, Outcome.CANCEL])
            draws = history.drawn.draws(bool(ask.prompt_id)) if outcome is Outcome.COMMIT else None
            settled = history.engine.settle(account, request_id, outcome, draws, history.now)
            if not isinstance(settled, Wrong):
                for pool, micro in settled.refunded.items():
                    assert 0 < micro <= charged[account, request_id].get(pool, 0)


@histories
@given(st.integers(0, 10**9))
def test_no_more_is_in_flight_than_the_plan_allows(seed):
    """However holds are opened, renewed, settled and left to close, if nothing is recorded and no limit lowered."""
    dice, now = RandomDice(seed), utc_us(2026, 3, 2)
    world, ids = held_world(now), []
    world.set_capacity(dice.pick([0, 300_000, 500_000, 1_000_000]))
    for i in range(200):
        now += dice.whole(0, 100) * SECOND * (-1 if chance(dice, 10) else 1)
        action = dice.whole(1, 10)
        if action <= 6 or not ids:
            ids.append(f"r{i}")
            world.admit(held_ask(dice, ids[-1]), now)
        elif action <= 8:
            world.settle("ada", dice.pick(ids), dice.pick([Outcome.COMMIT, Outcome.CANCEL]), None, now)
        else:
            world.renew("ada", dice.pick(ids), dice.pick([1, 60_000, 3_600_000]), now)
        usage = world.usage("ada", now)
        assert len(usage.holds) == usage.concurrency[0].in_flight
        assert all(state.in_flight <= state.limit for state in usage.concurrency)
