"""The windows of limits, each as a few questions about an immutable state.

A state is what one account has drawn on one limit: None, or a tuple. Costs are micro-units, times microseconds. Every window answers
    used(state, now)              what counts against the limit, micro-units
    room_at(state, cost, start)   the first instant from `start` on at which `cost` fits, None = never
    charged(state, cost, now)     the state after a charge above 0
    ends_at(state)                when the running period ends; None where there are no periods
    refunded(state, cost, charged_at, end, now)  (the state, what came back) after an admission's charge was given back:
                                  what was charged at a moment, in the period with that end
    given_back(state, cost, now)  (the state, what came back) after support gave back so much
    resets_at(state, now)         when something comes back, or the period ends; exact, may be a fraction
    full_at(state, now)           when everything is back
"""

from __future__ import annotations

import math
from fractions import Fraction

from oracle.wall import DAY, MONDAY, WEEK, WallClock, months_between, months_later
from quota.catalog.model import Limit, WindowKind

UNIT = 1_000_000
FAR = 4_102_444_800_000_000  # 2100: no debt lasts longer, as no zone is known further.


class Sliding:
    """A log of (time, sum), at most so many entries: what does not fit is merged, towards the later time."""

    def __init__(self, limit: Limit, clock: WallClock) -> None:
        self.limit, self.clock = limit.limit_micro, clock
        self.length, self.step = limit.window.length.length_us, limit.window.step_us
        self.entries_max = limit.entries
        if self.step:
            self.entries_max = max(limit.entries, self.length // self.step + 1)

    def step_start(self, t):
        return self.clock.instant(self.clock.wall(t) // self.step * self.step)

    def returns_at(self, t):
        """The first instant at which a charge made at `t` counts no more."""
        if not self.step:
            return t + self.length
        least = self.step_start(t) + self.length
        if self.step_start(least) == least:
            return least
        return self.clock.instant((self.clock.wall(least) // self.step + 1) * self.step)

    def live(self, log, now):
        return [(t, c) for t, c in log or () if self.returns_at(t) > now]

    def used(self, log, now):
        return sum(c for _, c in self.live(log, now))

    def room_at(self, log, cost, start):
        if cost > self.limit:
            return None
        for at in [start] + [self.returns_at(t) for t, _ in self.live(log, start)]:
            if self.used(log, at) + cost <= self.limit:
                return at
        raise AssertionError("an empty log has room")

    def joins(self, newest, now):
        return self.step_start(newest) == self.step_start(now) if self.step else newest == now

    def charged(self, log, cost, now):
        log = self.live(log, now)
        if log and self.joins(log[-1][0], now):
            return (*log[:-1], (now, log[-1][1] + cost))
        while len(log) >= self.entries_max:
            log = self.merged(log)
        return (*log, (now, cost))

    def merged(self, log):
        """Join the two neighbours whose units so return least late in all; the oldest entry is never moved.

        Two are close enough always, but for a log from before a step was set, which may reach back further than W: then the newest.
        """
        best = None
        for i in range(1, len(log) - 1):
            close = (log[i + 1][0] - log[i - 1][0]) * (self.entries_max - 2) <= 2 * self.length
            lateness = log[i][1] * (log[i + 1][0] - log[i][0])
            if close and (best is None or lateness < best[0]):
                best = (lateness, i)
        i = best[1] if best else len(log) - 2
        return [*log[:i], (log[i + 1][0], log[i][1] + log[i + 1][1]), *log[i + 2 :]]

    def ends_at(self, log):
        return None

    def refunded(self, log, cost, charged_at, end, now):
        """From the entry that the charge is in by now: the first that is not earlier."""
        if self.returns_at(charged_at) <= now:
            return log, 0
        i = next((i for i, (t, _) in enumerate(log or ()) if t >= charged_at), None)
        return (log, 0) if i is None else self.taken(log, i, cost)

    def given_back(self, log, cost, now):
        """From the newest entry backwards, at most what counts now."""
        given = cost = min(cost, self.used(log, now))
        for i in reversed(range(len(log or ()))):
            log, took = self.taken(log, i, cost)
            cost -= took
        return log, given

    def taken(self, log, i, cost):
        """An entry stays when nothing is left in it: what else is given back of its draws is not taken from the next one."""
        t, c = log[i]
        took = min(cost, c)
        return (*log[:i], (t, c - took), *log[i + 1 :]), took

    def resets_at(self, log, now):
        return self.returns_at(next(t for t, c in self.live(log, now) if c))

    def full_at(self, log, now):
        return self.returns_at(next(t for t, c in reversed(self.live(log, now)) if c))


class Period:
    """(end, used): nothing counts any more from `end` on. A running period keeps its promised end."""

    def __init__(self, limit: Limit, next_end) -> None:
        self.limit, self.next_end = limit.limit_micro, next_end

    def used(self, state, now):
        return state[1] if state and now < state[0] else 0

    def room_at(self, state, cost, start):
        if cost > self.limit:
            return None
        return start if self.used(state, start) + cost <= self.limit else state[0]

    def charged(self, state, cost, now):
        if state and now < state[0]:
            return (state[0], state[1] + cost)
        return (self.next_end(now), cost)

    def ends_at(self, state):
        return state[0]

    def refunded(self, state, cost, charged_at, end, now):
        """Only within the period that was charged."""
        return self.given_back(state, cost, now) if state and state[0] == end else (state, 0)

    def given_back(self, state, cost, now):
        given = min(cost, self.used(state, now))
        return ((state[0], state[1] - given) if given else state), given

    def resets_at(self, state, now):
        return state[0]

    full_at = resets_at


class Bucket:
    """(e, f): empty of debt f/N microseconds after e, where N micro-units drain in D microseconds."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit.limit_micro
        rate = Fraction(limit.window.rate_micro, limit.window.length.length_us)
        self.num, self.den = rate.numerator, rate.denominator
        self.cost_us = 1 / rate  # What one micro-unit takes to drain.

    def empty_at(self, state) -> Fraction:
        if state is None:
            return Fraction(-(2**62))
        whole, part = state
        return whole + Fraction(part, self.num) if part < self.num else Fraction(whole + 1)

    def debt(self, state, now) -> Fraction:
        return max(Fraction(0), self.empty_at(state) - now)

    def used(self, state, now):
        return min(math.ceil(self.debt(state, now) / self.cost_us), 2**63 - 1)

    def room_at(self, state, cost, start):
        if cost > self.limit:
            return None
        return max(start, math.ceil(self.empty_at(state) - (self.limit - cost) * self.cost_us))

    def charged(self, state, cost, now):
        empty = max(self.empty_at(state), Fraction(now)) + cost * self.cost_us
        if empty >= FAR:
            return (FAR, 0)
        return (math.floor(empty), int((empty - math.floor(empty)) * self.num))

    def ends_at(self, state):
        return None

    def refunded(self, state, cost, charged_at, end, now):
        return state, 0  # It has drained meanwhile.

    def given_back(self, state, cost, now):
        return state, 0

    def resets_at(self, state, now):
        return now + min(self.debt(state, now), UNIT * self.cost_us)

    def full_at(self, state, now):
        return self.empty_at(state)


def repeated(clock: WallClock, anchor: int, length_us: int, months: int):
    """now -> the first instant after it among anchor + k periods, counted on the wall clock."""

    def next_end(now):
        wall = clock.wall(now)
        if not months:
            return clock.instant(anchor + ((wall - anchor) // length_us + 1) * length_us)
        k = months_between(anchor, wall) // months - 1
        while months_later(anchor, k * months) <= wall:
            k += 1
        return clock.instant(months_later(anchor, k * months))

    return next_end


def calendar_anchor(limit: Limit) -> int:
    """One of the moments at which a calendar window ends, as a reading. January 1970 has 31 days."""
    window = limit.window
    if window.length.months:
        return (window.on - 1) * DAY + window.at_us
    if window.length.length_us == WEEK:
        return MONDAY + window.on * DAY + window.at_us
    return window.at_us


def window_of(limit: Limit, clock: WallClock, subscribed_at: int):
    kind, length = limit.window.kind, limit.window.length
    if kind is WindowKind.SLIDING:
        return Sliding(limit, clock)
    if kind is WindowKind.BUCKET:
        return Bucket(limit)
    if kind is WindowKind.CYCLE:
        return Period(limit, lambda now: now + length.length_us)
    anchor = calendar_anchor(limit) if kind is WindowKind.CALENDAR else clock.reading(subscribed_at)
    return Period(limit, repeated(clock, anchor, length.length_us, length.months))
