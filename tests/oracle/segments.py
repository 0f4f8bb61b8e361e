"""What a request weighs, and whether its model and meters are in the plan, now and at every later time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from oracle.wall import DAY, MONDAY, WEEK, WallClock
from quota.catalog.model import Catalog, Meter, Model, Plan, Schedule

FOREVER = 2**62
SETTLED = 15 * DAY  # Schedules repeat every week: two weeks and a day show all that they can do.


@dataclass(frozen=True)
class Segment:
    """A longest stretch of time with one weight; `weight` None = not in the plan."""

    start: int
    end: int
    weight: Fraction | None


def fold(name: str) -> str:
    """ASCII case folding; other letters are left alone."""
    return name.encode().lower().decode()


def in_force(from_us: int | None, until_us: int | None, t: int) -> bool:
    return (from_us is None or from_us <= t) and (until_us is None or t < until_us)


def is_member(plans, plan: str, t: int) -> bool:
    return plans is None or any(m.plan == plan and in_force(m.from_us, m.until_us, t) for m in plans)


def schedule_edges(schedule: Schedule) -> list[tuple[int, int]]:
    """Its spans as (start, end) since Monday 00:00; the end may lie in the next week."""
    edges = []
    for span in schedule.spans:
        for day in span.days:
            length = span.end_us - span.start_us
            if length <= 0:
                length += DAY
            edges.append((day * DAY + span.start_us, day * DAY + span.start_us + length))
    return edges


class Timeline:
    """Everything about one request that changes with time alone."""

    def __init__(
        self, catalog: Catalog, clock: WallClock, plan: Plan, model: Model | None, meters: list[Meter | None], tool: str
    ) -> None:
        self.clock, self.plan, self.model, self.meters = clock, plan, model, meters
        self.schedules = {schedule.name: schedule_edges(schedule) for schedule in catalog.schedules}
        self.weights = [
            w for w in (model.weights if model else ()) if w.tools is None or fold(tool) in map(fold, w.tools)
        ]
        self.weighted = any(meter is not None and meter.weighted for meter in meters)
        dated = [*self.weights, *((model.plans or ()) if model else ())]
        for meter in meters:
            dated += (meter.plans or ()) if meter else ()
        self.dates = sorted({at for entry in dated for at in (entry.from_us, entry.until_us) if at is not None})

    def scheduled(self, name: str, t: int) -> bool:
        moment = (self.clock.wall(t) - MONDAY) % WEEK
        return any(start <= moment < end or start <= moment + WEEK < end for start, end in self.schedules[name])

    def weight(self, t: int) -> Fraction:
        """The first entry that matches; 1 where none does, or where nothing weighted is drawn."""
        if not self.weighted:
            return Fraction(1)
        for entry in self.weights:
            if in_force(entry.from_us, entry.until_us, t) and (entry.when is None or self.scheduled(entry.when, t)):
                return entry.value
        return Fraction(1)

    def model_in_plan(self, t: int) -> bool:
        return self.model is None or is_member(self.model.plans, self.plan.name, t)

    def meter_in_plan(self, meter: Meter | None, t: int) -> bool:
        if meter is None:
            return False
        return set(meter.pools) <= set(self.plan.pools) and is_member(meter.plans, self.plan.name, t)

    def weight_in_plan(self, t: int) -> Fraction | None:
        if self.model_in_plan(t) and all(self.meter_in_plan(meter, t) for meter in self.meters):
            return self.weight(t)
        return None

    def next_date(self, t: int) -> int:
        return min((date for date in self.dates if date > t), default=FOREVER)

    def next_edge(self, t: int) -> int:
        """The first moment after `t` at which a schedule that matters begins or ends."""
        wall = self.clock.wall(t)
        moment, coming = (wall - MONDAY) % WEEK, []
        for name in {entry.when for entry in self.weights if entry.when is not None}:
            for edges in self.schedules[name]:
                coming += [(edge - moment - 1) % WEEK + 1 for edge in edges]
        return self.clock.instant(wall + min(coming)) if coming else FOREVER

    def segments(self, start: int) -> Iterator[Segment]:
        """From `start` on, every longest stretch of one weight, without end if schedules alternate for ever."""
        weight, at = self.weight_in_plan(start), start
        settling = start  # since then neither the weight nor a date has changed anything
        while True:
            date = self.next_date(at)
            at = date if weight is None or not self.weighted else min(date, self.next_edge(at))
            if at == date:
                settling = at
            if at == FOREVER or (date == FOREVER and at - settling > SETTLED):
                yield Segment(start, FOREVER, weight)
                return
            if self.weight_in_plan(at) != weight:
                yield Segment(start, at, weight)
                weight, start = self.weight_in_plan(at), at
                settling = at

    def weights_to_come(self, start: int) -> set[Fraction]:
        """Every weight that this request will ever have while it is in the plan."""
        weights = set()
        for begin in [start, *(date for date in self.dates if date > start)]:
            until = min(self.next_date(begin), begin + SETTLED)
            for segment in self.segments(begin):
                if segment.start >= until:
                    break
                weights.add(segment.weight)
        return weights - {None}
