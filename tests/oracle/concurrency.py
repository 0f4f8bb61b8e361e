"""Concurrency: how many requests of an account may be in flight, and how many are.

The entries of one id are alternatives: the first whose schedule holds says the limit. Every open hold whose model any entry of the
id matches counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from oracle.admissions import open_holds
from oracle.inquiry import Inquiry
from oracle.values import MICRO, Record, Refused
from quota.catalog.model import Concurrency
from quota.types import ConcurrencyState, Verdict


@dataclass(frozen=True)
class Bound:
    """One id at one moment."""

    id: str
    limit: int
    """By schedule or override."""
    effective: int
    """After the platform's capacity."""
    in_flight: int


def counts(entries: list[Concurrency], model: str) -> bool:
    return any(entry.models is None or model in entry.models for entry in entries)


def bound(inquiry: Inquiry, id: str, record: Record, capacity_micro: int, now: int) -> Bound | None:
    """None: not limited now."""
    entries = [entry for entry in inquiry.plan.concurrency if entry.id == id]
    limit = inquiry.subscriber.overrides.get(id)
    if limit is None:
        in_force = [it for it in entries if it.when is None or inquiry.timeline.scheduled(it.when, now)]
        if not in_force:
            return None
        limit = in_force[0].limit
    effective = 0 if limit == 0 else max(1, limit * capacity_micro // MICRO)
    in_flight = sum(1 for hold in open_holds(record, now) if counts(entries, hold.answer.model))
    return Bound(id, limit, effective, in_flight)


def bounds_now(inquiry: Inquiry, record: Record, capacity_micro: int, now: int) -> list[Bound]:
    """Those of the account's plan, in its order."""
    ids = dict.fromkeys(entry.id for entry in inquiry.plan.concurrency)
    found = [bound(inquiry, id, record, capacity_micro, now) for id in ids]
    return [it for it in found if it is not None]


def refusal(inquiry: Inquiry, record: Record, capacity_micro: int, holds_max: int, now: int) -> Refused | None:
    """Why one more hold may not be opened: the first CONCURRENCY, else the first OVERLOADED. None: it may."""
    found = []
    for it in bounds_now(inquiry, record, capacity_micro, now):
        entries = [entry for entry in inquiry.plan.concurrency if entry.id == it.id]
        if counts(entries, inquiry.model_name) and it.in_flight >= it.effective:
            verdict = Verdict.CONCURRENCY if it.in_flight >= it.limit else Verdict.OVERLOADED
            found.append(Refused(verdict, it.id))
    if len(open_holds(record, now)) >= holds_max:
        found.append(Refused(Verdict.CONCURRENCY, "account.holds"))
    return min(found, key=lambda refused: refused.verdict, default=None)


def states(inquiry: Inquiry, record: Record, capacity_micro: int, now: int) -> tuple[ConcurrencyState, ...]:
    return tuple(
        ConcurrencyState(it.id, it.effective, it.in_flight) for it in bounds_now(inquiry, record, capacity_micro, now)
    )
