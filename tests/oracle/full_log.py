"""The second oracle: sliding limits with every charge kept, fed with what the core charged and gave back.

It would admit whatever the core admits. What the core refuses it refuses too, once every charge is kept as much longer as the
merge rule may hold a unit back: 2W/(M-2).

What is given back is taken from the charge that it was. A merged entry does not say whose units are left in it: if the charge has
been given back in part before, by support, the entry may give units of its neighbours. Then `counted` starts anew, and `kept` keeps
them: both bounds get looser until the window has passed, and neither gets wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from oracle.admissions import find_admission
from oracle.model import Oracle
from oracle.settle import Move
from oracle.values import Ask
from oracle.wall import HOUR
from oracle.windows import Sliding
from quota.catalog.model import Limit, WindowKind
from quota.types import Mode

Log = list[tuple[int, int]]
"""(time, micro-units), the earliest first."""


@dataclass
class FullLog:
    counted: Log = field(default_factory=list)
    """Charges that still count; never more than the core counts."""
    kept: Log = field(default_factory=list)
    """The same, and those that the core may still count; never less than it does."""
    merge_late: Fraction = Fraction(0)
    step_late: int = 0

    def late(self, window: Sliding) -> Fraction:
        """The longest that a unit may come back late, over every rule that this limit has had."""
        self.merge_late = max(self.merge_late, Fraction(2 * window.length, window.entries_max - 2))
        if window.step:
            self.step_late = max(self.step_late, 2 * (window.step + HOUR))
        return self.merge_late + self.step_late

    def charge(self, window: Sliding, cost: int, at: int) -> None:
        late = self.late(window)
        self.counted = [(t, c) for t, c in self.counted if window.returns_at(t) > at] + [(at, cost)]
        self.kept = [(t, c) for t, c in self.kept if window.returns_at(t) + late > at] + [(at, cost)]

    def give_back(self, charged_at: int, given: int) -> None:
        """An admission's charge."""
        there = sum(c for t, c in self.counted if t == charged_at)
        self.counted = less(self.counted, given, lambda t: t == charged_at) if there >= given else []
        self.kept = less(self.kept, given, lambda t: t == charged_at)

    def give_back_newest(self, given: int) -> None:
        self.counted, self.kept = less(self.counted, given), less(self.kept, given)


@dataclass(frozen=True)
class Touched:
    """A sliding limit that a request draws on, before it was decided."""

    limit: Limit
    log: FullLog
    window: Sliding
    cost: int
    skipped: bool


@dataclass(frozen=True)
class Look:
    touched: list[Touched]
    at: int
    """The account's now."""
    enforced: bool


class FullLogs:
    """Reads an oracle's accounts and catalogs, and keeps logs of its own."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.logs: dict[tuple[str, str], FullLog] = {}

    def look(self, ask: Ask, now: int) -> Look:
        """What a request draws on. Before it is decided: afterwards its prompt has paid."""
        if ask.account not in self.oracle.subscribers:
            return Look([], now, False)
        inquiry, at = self.oracle.inquiry(ask), self.oracle.account_now(ask.account, now)
        if ask.request_id and find_admission(inquiry.subscriber.record, ask.request_id, at):
            return Look([], at, False)  # A replay draws on nothing.
        terms = inquiry.terms_at(at)
        touched = [
            Touched(
                limit, self.log(ask.account, limit), inquiry.window(limit), inquiry.cost(limit, terms),
                inquiry.skipped(limit, terms),
            )
            for limit in inquiry.touched if limit.window.kind is WindowKind.SLIDING
        ]  # fmt: skip
        return Look(touched, at, ask.mode is Mode.ENFORCE)

    def log(self, account: str, limit: Limit) -> FullLog:
        return self.logs.setdefault((account, limit.id), FullLog())

    def follow(self, look: Look, decision, *, charge: bool) -> None:
        """Assert that what the core decided lies within both bounds; then take what it charged."""
        if not decision.weight_micro:
            return
        shown = {state.id: state for state in decision.limits}
        for it in look.touched:
            log, window, late, need = it.log, it.window, it.log.late(it.window), max(1, it.cost)
            if look.enforced and not it.skipped:
                if decision.allowed:
                    assert used(window, log.counted, look.at) + need <= window.limit, "admitted past the limit"
                elif it.limit.id in shown and shown[it.limit.id].used_micro + need > window.limit:
                    held = used(window, log.kept, look.at, late)
                    assert held + need > window.limit, "refused longer than the merge rule may"
            if decision.allowed and charge and it.cost:
                log.charge(window, it.cost, look.at)

    def settle(self, account: str, moves: list[Move]) -> None:
        """Take what a settlement moved."""
        for move in moves:
            if move.limit.window.kind is WindowKind.SLIDING:
                log = self.log(account, move.limit)
                log.give_back(move.charged_at, move.given)
                self.charge(account, move)

    def adjust(self, account: str, moves: list[Move]) -> None:
        """Take what support moved."""
        for move in moves:
            if move.limit.window.kind is WindowKind.SLIDING:
                self.log(account, move.limit).give_back_newest(move.given)
                self.charge(account, move)

    def charge(self, account: str, move: Move) -> None:
        if move.ahead:
            last_seen = self.oracle.subscribers[account].record.last_seen
            self.log(account, move.limit).charge(move.window, move.ahead, last_seen)


def used(window: Sliding, log: Log, at: int, late: Fraction | int = 0) -> int:
    return sum(c for t, c in log if window.returns_at(t) + late > at)


def less(log: Log, cost: int, among=lambda t: True) -> Log:
    """Without so much of the newest of some charges, or without all of them."""
    rest: Log = []
    for t, c in reversed(log):
        took = min(c, cost) if among(t) else 0
        cost -= took
        rest = [(t, c - took), *rest] if c > took else rest
    return rest
