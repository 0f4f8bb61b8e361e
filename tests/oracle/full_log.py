"""The second oracle: sliding limits with every charge kept, fed with what the core charged.

It would admit whatever the core admits. What the core refuses it refuses too, once every charge is kept as much longer as the
merge rule may hold a unit back: 2W/(M-2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from oracle.model import Ask, Inquiry, Oracle
from oracle.wall import HOUR
from oracle.windows import Sliding
from quota.catalog.model import Limit, WindowKind


@dataclass
class FullLog:
    counted: list[tuple[int, int]] = field(default_factory=list)
    """(time, micro-units) of every charge that still counts."""
    kept: list[tuple[int, int]] = field(default_factory=list)
    """The same, and those that the core may still count."""
    merge_late: Fraction = Fraction(0)
    step_late: int = 0

    def late(self, window: Sliding) -> Fraction:
        """The longest that a unit may come back late, over every rule that this limit has had."""
        self.merge_late = max(self.merge_late, Fraction(2 * window.length, window.entries_max - 2))
        if window.step:
            self.step_late = max(self.step_late, 2 * (window.step + HOUR))
        return self.merge_late + self.step_late


class FullLogs:
    """Reads an oracle's accounts and catalogs, and keeps logs of its own."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.logs: dict[tuple[str, str], FullLog] = {}

    def follow(self, ask: Ask, now: int, decision, *, charge: bool) -> None:
        """Assert that what the core decided lies within both bounds; then take what it charged."""
        if not decision.weight_micro:
            return
        shown = {state.id: state for state in decision.limits}
        for limit, log, cost in self.touched(ask, now):
            at = self.oracle.account_now(ask.account, now)
            window = Sliding(limit, self.inquiry(ask).clock)
            late, need = log.late(window), max(1, cost)
            if decision.allowed:
                assert used(window, log.counted, at) + need <= window.limit, "admitted past the limit"
            elif limit.id in shown and shown[limit.id].used_micro + need > window.limit:
                assert used(window, log.kept, at, late) + need > window.limit, "refused longer than the merge rule may"
            if decision.allowed and charge and cost:
                log.counted = [(t, c) for t, c in log.counted if window.returns_at(t) > at] + [(at, cost)]
                log.kept = [(t, c) for t, c in log.kept if window.returns_at(t) + late > at] + [(at, cost)]

    def inquiry(self, ask: Ask) -> Inquiry:
        subscriber = self.oracle.subscribers[ask.account]
        return Inquiry(self.oracle.catalogs[subscriber.catalog], subscriber, ask)

    def touched(self, ask: Ask, now: int) -> Iterator[tuple[Limit, FullLog, int]]:
        """Every sliding limit that the request draws on, its log, and the cost in micro-units."""
        inquiry = self.inquiry(ask)
        weight = inquiry.timeline.weight(self.oracle.account_now(ask.account, now))
        for limit in inquiry.touched:
            if limit.window.kind is WindowKind.SLIDING:
                log = self.logs.setdefault((ask.account, limit.id), FullLog())
                yield limit, log, inquiry.cost(limit, weight)


def used(window: Sliding, log: list[tuple[int, int]], at: int, late: Fraction | int = 0) -> int:
    return sum(c for t, c in log if window.returns_at(t) + late > at)
