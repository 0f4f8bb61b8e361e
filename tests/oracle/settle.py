"""Settlements: what an admission's charge is corrected by once its real use is known; and what support moves by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from oracle.admissions import Admission, Part
from oracle.inquiry import Inquiry
from oracle.prompts import without_prompt
from oracle.values import Ask, Invalid, Record, Slot, Subscriber, Version
from quota.catalog.model import Limit, WindowKind
from quota.types import Adjustment, Outcome, Settlement


@dataclass(frozen=True)
class Move:
    """What was moved under one limit, in micro-units. The full log is told of these."""

    limit: Limit
    pool: str
    """That it had at the admission."""
    window: Any
    """That moved it: today's."""
    charged_at: int
    """When what is given back was charged."""
    back: int
    """Asked for; at most so much came back."""
    given: int
    """What came back."""
    ahead: int
    """What was charged, now."""


@dataclass(frozen=True)
class Use:
    """What a request has used after all, priced as it was at its admission."""

    inquiry: Inquiry
    weight: Fraction
    is_call: bool
    counts_unit: bool
    """It is a call only after all: its unit was not charged, and counts as its own cost."""

    def cost(self, limit: Limit) -> int:
        inquiry, unit = self.inquiry, 0
        if self.counts_unit and any(inquiry.feeds(meter, limit) for meter in inquiry.calling):
            unit = inquiry.unit(limit.pool, self.weight)
        return inquiry.own_cost(limit, self.weight) + unit

    def by_pool(self) -> dict[str, int]:
        pools = self.inquiry.own_charged(self.weight)
        if self.counts_unit:
            for pool, unit in self.inquiry.units(self.weight).items():
                pools[pool] = pools.get(pool, 0) + unit
        return pools


class Settling:
    """One first settlement of one admission. Nothing is changed; `record` is the account's afterwards."""

    def __init__(
        self, version: Version, subscriber: Subscriber, admission: Admission, draws: Mapping[str, int], now: int
    ) -> None:
        """`version` is that of the account's catalog today; `draws` empty: nothing was used."""
        self.subscriber, self.admission, self.now = subscriber, admission, now
        self.today = Inquiry(version, subscriber, Ask(admission.ask.account))
        self.then = admission.inquiry
        self.draws = draws

    def wrong(self) -> Invalid | None:
        inquiry = self.used
        for i, (meter, _) in enumerate(inquiry.draws.values()):
            if meter is None or not set(meter.pools) <= set(inquiry.plan.pools):
                return Invalid(f"draws[{i}].meter")
        field = inquiry.check_amounts(self.admission.weight)
        return Invalid(field) if field else None

    @property
    def used(self) -> Inquiry:
        return Inquiry(self.then.version, self.then.subscriber, replace(self.then.ask, draws=self.draws))

    def use(self) -> Use | None:
        if not self.draws:
            return None
        is_call = bool(self.used.calling)
        return Use(self.used, self.admission.weight, is_call, is_call and not self.admission.is_call)

    def settled(self) -> tuple[Settlement, Record, list[Move]]:
        use, admission = self.use(), self.admission
        forgets = admission.prompt_opened is not None and not admission.joined and not (use and use.is_call)
        moves = list(self.moves(use, forgets))
        record = self.subscriber.record
        slots = dict(record.slots)
        for slot, _, state in moves:
            slots[slot] = state
        record = replace(record, slots=slots)
        if forgets:
            record = without_prompt(record, admission.prompt_opened)
        return self.answer(use, [move for _, move, _ in moves]), record, [move for _, move, _ in moves]

    def moves(self, use: Use | None, forgets: bool) -> Iterator[tuple[Slot, Move, Any]]:
        for limit in self.then.limits:
            slot = (limit.id, limit.window.kind)
            part = self.admission.parts.get(slot, Part(0, 0, None))
            delta = (use.cost(limit) if use else 0) - part.own
            back, ahead = max(0, -delta) + (part.folded if forgets else 0), max(0, delta)
            if back or ahead:
                yield self.move(limit, slot, part, back, ahead)

    def move(self, limit: Limit, slot: Slot, part: Part, back: int, ahead: int) -> tuple[Slot, Move, Any]:
        """Today's limit of that id and kind says what still counts and opens periods; the admission's if the plan has none."""
        todays = [it for it in self.today.limits if (it.id, it.window.kind) == slot]
        window = self.today.window(todays[0]) if todays else self.then_window(limit)
        state, charged_at = self.subscriber.record.slots.get(slot), self.admission.admitted_at
        given = 0
        if back:
            state, given = window.refunded(state, back, charged_at, part.end, self.now)
        if ahead:
            state = window.charged(state, ahead, self.now)
        return slot, Move(limit, limit.pool, window, charged_at, back, given, ahead), state

    def then_window(self, limit: Limit):
        then = Inquiry(self.then.version, replace(self.then.subscriber, subscribed_at=self.subscriber.subscribed_at),
                       self.then.ask)  # fmt: skip
        return then.window(limit)

    def answer(self, use: Use | None, moves: list[Move]) -> Settlement:
        charged, refunded = {}, {}
        before, after = self.then.own_charged(self.admission.weight), use.by_pool() if use else {}
        for pool in self.then.catalog.pools:
            ahead = [move.ahead for move in moves if move.pool == pool]
            charged[pool] = max([after.get(pool, 0) - before.get(pool, 0), *ahead])
            refunded[pool] = max([move.given for move in moves if move.pool == pool], default=0)
        return Settlement(above_nothing(charged), above_nothing(refunded), not self.admission.is_open(self.now))


def above_nothing(micro: Mapping[str, int]) -> dict[str, int]:
    return {name: it for name, it in micro.items() if it > 0}


def kept(admission: Admission, now: int) -> Settlement:
    """A commit without draws."""
    return Settlement({}, {}, not admission.is_open(now))


def settlement_content(outcome: Outcome, draws: Mapping[str, int]) -> tuple[Any, ...]:
    return (outcome, tuple(draws.items()))


def adjusted(inquiry: Inquiry, limits: list[Limit], micro: int, now: int) -> tuple[Adjustment, Record, list[Move]]:
    """Above 0 is taken, now and past the limit; below 0 is given back, as far as it still counts. Buckets are passed over then."""
    slots, moves = dict(inquiry.subscriber.record.slots), []
    for limit in limits:
        slot, window, given = (limit.id, limit.window.kind), inquiry.window(limit), 0
        if micro > 0:
            slots[slot] = window.charged(slots.get(slot), micro, now)
        elif limit.window.kind is WindowKind.BUCKET:
            continue
        else:
            slots[slot], given = window.given_back(slots.get(slot), -micro, now)
        moves.append(Move(limit, limit.pool, window, now, max(0, -micro), given, max(0, micro)))
    states = tuple(inquiry.limit_state(it.limit, now, slots[it.limit.id, it.limit.window.kind]) for it in moves)
    adjustment = Adjustment({it.limit.id: it.ahead - it.given for it in moves}, states)
    return adjustment, replace(inquiry.subscriber.record, slots=slots), moves
