"""Admissions: what is remembered of an admitted request that had an id, so that it is charged once and can be settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from oracle.values import Answer, Ask, Record, Slot
from oracle.wall import SECOND
from quota.types import Settlement

if TYPE_CHECKING:
    from oracle.inquiry import Inquiry

REMEMBERED_FOR = 120 * SECOND


@dataclass(frozen=True)
class Part:
    """What an admission drew under one limit, micro-units."""

    own: int
    folded: int
    """For its prompt."""
    end: int | None
    """Of the period that was charged; None where the window has none."""


@dataclass(frozen=True, kw_only=True)
class Admission:
    inquiry: Inquiry
    """As it was at the admission: its catalog, plan and model are what Settle prices by."""
    weight: Fraction
    answer: Answer
    admitted_at: int
    hold_until: int | None
    """None: no hold was opened."""
    parts: Mapping[Slot, Part] = field(default_factory=dict)
    is_call: bool = False
    prompt_opened: int | None = None
    """The number of the prompt that it opened."""
    joined: bool = False
    """Another call has joined the prompt that it opened."""
    settled_at: int | None = None
    settled_by: tuple[Any, ...] = ()
    """The content of the settlement."""
    settlement: Settlement | None = None

    @property
    def ask(self) -> Ask:
        return self.inquiry.ask

    @property
    def until(self) -> int:
        """When its memory begins to fade."""
        if self.settled_at is not None:
            return self.settled_at
        return self.admitted_at if self.hold_until is None else self.hold_until

    def is_remembered(self, now: int) -> bool:
        return now <= self.until + REMEMBERED_FOR

    def is_open(self, now: int) -> bool:
        return self.settled_at is None and self.hold_until is not None and now < self.hold_until


def fingerprint(ask: Ask) -> tuple[Any, ...]:
    """All that must be the same for a request to be the same: everything but `explain`."""
    endpoint = ask.endpoint[:-1] if len(ask.endpoint) > 1 and ask.endpoint.endswith("/") else ask.endpoint
    draws = tuple((ask.draws or {}).items())
    return (ask.account, ask.model, ask.tool, endpoint, ask.mode, draws, ask.request_id, ask.prompt_id, ask.hold_ms,
            ask.client)  # fmt: skip


def find_admission(record: Record, request_id: str, now: int) -> Admission | None:
    return next((it for it in record.admissions if it.ask.request_id == request_id and it.is_remembered(now)), None)


def open_holds(record: Record, now: int) -> list[Admission]:
    return [it for it in record.admissions if it.is_open(now)]


def with_admission(record: Record, admission: Admission, now: int, request_ids_max: int) -> Record:
    """What is past is forgotten, then this one is added, then the memory is bounded."""
    kept = tuple(it for it in record.admissions if it.is_remembered(now))
    return bounded(replace(record, admissions=(*kept, admission)), now, request_ids_max)


def with_settled(record: Record, old: Admission, new: Admission, now: int, request_ids_max: int) -> Record:
    kept = tuple(new if it is old else it for it in record.admissions if it.is_remembered(now))
    return bounded(replace(record, admissions=kept), now, request_ids_max)


def bounded(record: Record, now: int, request_ids_max: int) -> Record:
    """Open holds never drop out. Of the rest the one that would fade first does; of several the earliest admitted."""
    admissions = list(record.admissions)
    fading = sorted((it for it in admissions if not it.is_open(now)), key=lambda it: (it.until, it.admitted_at))
    dropped = fading[: max(0, len(fading) - request_ids_max)]
    return replace(
        record,
        admissions=tuple(it for it in admissions if not any(it is gone for gone in dropped)),
        forgotten_ids=record.forgotten_ids + len(dropped),
    )
