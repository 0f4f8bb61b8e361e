"""The naive quotad: accounts in a dict, catalogs as they were validated, one request looked at by reading the rules in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from oracle import concurrency, refusals
from oracle.admissions import (
    Admission,
    Part,
    find_admission,
    fingerprint,
    open_holds,
    with_admission,
    with_settled,
)
from oracle.inquiry import Inquiry, Terms
from oracle.prompts import called
from oracle.settle import Move, Settling, adjusted, kept, settlement_content
from oracle.values import (
    HOLD_MS_MAX,
    MICRO,
    UNITS_MAX,
    Answer,
    Ask,
    Conflict,
    Ended,
    Invalid,
    Record,
    Refused,
    Subscriber,
    Unknown,
    Unsuitable,
    Version,
    Wrong,
    ceil_ms,
)
from quota.catalog.model import Catalog, WindowKind
from quota.types import Adjustment, Bounds, CatalogVersion, Mode, OpenHold, Outcome, Settlement, Usage, Verdict

OVERRIDES_MAX = 16
REASON_BYTES_MAX = 512


class Oracle:
    """Times in microseconds. Every method answers with plain values, or with one of `Wrong` where the engine raises."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.versions: dict[str, Version] = {}
        self.subscribers: dict[str, Subscriber] = {}
        self.catalog_default = ""
        self.capacity_micro = MICRO
        self.moves: list[Move] = []
        """What the last first settlement or adjustment moved under each limit; empty after any other."""

    # ---- Catalogs, accounts, capacity ----

    def load_catalog(self, catalog: Catalog, version: CatalogVersion | None = None) -> None:
        names = {plan.name for plan in catalog.plans}
        if any(s.catalog == catalog.name and s.plan not in names for s in self.subscribers.values()):
            raise Unsuitable
        self.versions[catalog.name] = Version(catalog, version)
        self.catalog_default = self.catalog_default or catalog.name

    def put_account(
        self, id: str, *, catalog: str, plan: str, now: int, subscribed_at: int = 0, expires_at: int = 0,
        overrides: Mapping[str, int] | None = None,
    ) -> Invalid | None:  # fmt: skip
        overrides = dict(overrides or {})
        known = {it.id for plan in self.versions[catalog].catalog.plans for it in (*plan.limits, *plan.concurrency)}
        if (
            len(overrides) > OVERRIDES_MAX
            or not set(overrides) <= known
            or not all(0 <= units <= UNITS_MAX for units in overrides.values())
        ):
            return Invalid("overrides")
        old = self.subscribers.get(id)
        subscribed_at = subscribed_at or (old.subscribed_at if old else now)
        record = old.record if old else Record()
        self.subscribers[id] = Subscriber(catalog, plan, subscribed_at, expires_at, overrides, record)
        return None

    def set_capacity(self, factor_micro: int) -> None:
        self.capacity_micro = factor_micro

    def account_now(self, id: str, now: int) -> int:
        """Time never goes back for an account: not before the last change of its record."""
        return max(now, self.subscribers[id].record.last_seen)

    def inquiry(self, ask: Ask) -> Inquiry:
        subscriber = self.subscribers[ask.account]
        return Inquiry(self.versions[subscriber.catalog], subscriber, ask)

    def usage(self, id: str, now: int) -> Usage:
        at, inquiry = self.account_now(id, now), self.inquiry(Ask(id))
        record = inquiry.subscriber.record
        holds = tuple(
            OpenHold(it.ask.request_id, it.answer.model, it.admitted_at // 1000, ceil_ms(it.hold_until),
                     it.answer.charged)
            for it in open_holds(record, at)
        )  # fmt: skip
        return Usage(
            account=id,
            catalog=inquiry.version.name,
            plan=inquiry.plan.name,
            limits=tuple(inquiry.limit_state(limit, at, inquiry.state(limit)) for limit in inquiry.limits),
            holds=holds,
            concurrency=concurrency.states(inquiry, record, self.capacity_micro, at),
        )

    def forgotten(self) -> tuple[int, int]:
        """Ids and prompts that bounds made accounts forget early."""
        records = [subscriber.record for subscriber in self.subscribers.values()]
        return sum(it.forgotten_ids for it in records), sum(it.forgotten_prompts for it in records)

    # ---- Admit and Peek ----

    def admit(self, ask: Ask, now: int) -> Answer | Wrong:
        answer, record = self.decide(ask, now)
        if record is not None:
            self.keep(ask.account, record)
        return answer

    def peek(self, ask: Ask, now: int) -> Answer | Wrong:
        return self.decide(ask, now)[0]

    def keep(self, account: str, record: Record, moves: list[Move] | None = None) -> None:
        self.subscribers[account] = replace(self.subscribers[account], record=record)
        self.moves = moves or []

    def decide(self, ask: Ask, now: int) -> tuple[Answer | Wrong, Record | None]:
        """The answer, and the account's record after it if it was admitted. Changes nothing."""
        if not 0 <= ask.hold_ms <= HOLD_MS_MAX or (ask.hold_ms and not ask.request_id):
            return Invalid("hold_ms"), None
        if ask.account not in self.subscribers:
            default = self.versions[self.catalog_default].catalog
            return refusals.unknown(default.refusals["ACCOUNT_UNKNOWN"], ask), None
        inquiry, at = self.inquiry(ask), self.account_now(ask.account, now)
        known = find_admission(inquiry.subscriber.record, ask.request_id, at) if ask.request_id else None
        if known is not None:
            return self.replayed(inquiry, known, at), None
        if ask.hold_ms > self.bounds.hold_ms_max:
            return Invalid("hold_ms"), None
        try:
            self.check_account(inquiry.subscriber, at)
            inquiry.check_tool()
            inquiry.check_model()
            inquiry.check_plan(at)
        except Refused as refused:
            return refusals.early(inquiry, refused, at, now), None
        terms = inquiry.terms_at(at)
        wrong = inquiry.check_amounts(terms.weight)
        if wrong:
            return Invalid(wrong), None
        if any(inquiry.refuses(limit, terms, at) for limit in inquiry.touched):
            return refusals.by_limits(inquiry, terms, at, now), None
        if ask.mode is Mode.ENFORCE:
            refused = self.refused_hold(inquiry, at)
            if refused is not None:
                return refusals.by_holds(inquiry, refused, terms, at), None
        return self.allowed(inquiry, terms, at)

    def replayed(self, inquiry: Inquiry, known: Admission, at: int) -> Answer | Conflict:
        """The first answer again; the limits are those that it touches today, as they stand."""
        if fingerprint(inquiry.ask) != fingerprint(known.ask):
            return Conflict()
        shown = inquiry.touched if inquiry.ask.explain else []
        try:
            inquiry.check_names()
        except Refused:
            shown = []
        return replace(
            known.answer,
            hold_expires_at_ms=None if known.hold_until is None else ceil_ms(known.hold_until),
            limits=tuple(inquiry.limit_state(limit, at, inquiry.state(limit)) for limit in shown),
        )

    def check_account(self, subscriber: Subscriber, at: int) -> None:
        if at < subscriber.subscribed_at:
            raise Refused(Verdict.ACCOUNT_INACTIVE, "account.subscribed_at")
        if subscriber.expires_at and at >= subscriber.expires_at:
            raise Refused(Verdict.SUBSCRIPTION_EXPIRED, "account.expires_at")

    def hold_length(self, inquiry: Inquiry) -> int:
        """0: no hold is asked for."""
        if not inquiry.ask.request_id:
            return 0
        return inquiry.ask.hold_ms * 1000 or min(inquiry.plan.hold_default_us, self.bounds.hold_ms_max * 1000)

    def refused_hold(self, inquiry: Inquiry, at: int) -> Refused | None:
        if not self.hold_length(inquiry):
            return None
        record = inquiry.subscriber.record
        return concurrency.refusal(inquiry, record, self.capacity_micro, self.bounds.holds_max, at)

    def allowed(self, inquiry: Inquiry, terms: Terms, at: int) -> tuple[Answer, Record]:
        """Everything that is touched is charged; the prompt, the id and the hold are noted."""
        before = inquiry.subscriber.record
        slots, parts = dict(before.slots), {}
        for limit in inquiry.touched:
            if inquiry.cost(limit, terms):
                slot, window = (limit.id, limit.window.kind), inquiry.window(limit)
                slots[slot] = window.charged(slots.get(slot), inquiry.cost(limit, terms), at)
                own, folded = inquiry.own_cost(limit, terms.weight), inquiry.folded_cost(limit, terms)
                parts[slot] = Part(own, folded, window.ends_at(slots[slot]))
        hold = self.hold_length(inquiry)
        if len(open_holds(before, at)) >= self.bounds.holds_max:
            hold = 0  # RECORD charges all the same.
        shown = inquiry.touched if inquiry.ask.explain else []
        answer = Answer(
            verdict=Verdict.ALLOWED,
            model=inquiry.model_name,
            charged=inquiry.charged(terms),
            weight_micro=math.floor(terms.weight * MICRO),
            limits=tuple(inquiry.limit_state(limit, at, slots.get((limit.id, limit.window.kind))) for limit in shown),
            hold_expires_at_ms=ceil_ms(at + hold) if hold else None,
            catalog=inquiry.version.name,
        )
        record = replace(before, last_seen=at, slots=slots)
        is_call = bool(inquiry.calling)
        if is_call:
            units, prompt_id = inquiry.units(terms.weight), inquiry.ask.prompt_id
            record = called(record, inquiry.plan, prompt_id, units, at, self.bounds.prompts_max)
        if inquiry.ask.request_id:
            opened = record.prompts_opened > before.prompts_opened
            admission = Admission(
                inquiry=inquiry, weight=terms.weight, answer=answer, admitted_at=at, hold_until=at + hold if hold else None,
                parts=parts, is_call=is_call, prompt_opened=before.prompts_opened if opened else None,
            )  # fmt: skip
            record = with_admission(record, admission, at, self.bounds.request_ids_max)
        return answer, record

    # ---- Settle, Renew, AdjustUsage ----

    def settle(
        self, account: str, request_id: str, outcome: Outcome, draws: Mapping[str, int] | None, now: int
    ) -> Settlement | Wrong:
        draws, self.moves = dict(draws or {}), []
        if outcome not in (Outcome.COMMIT, Outcome.CANCEL):
            return Invalid("outcome")
        if outcome is Outcome.CANCEL and draws:
            return Invalid("draws")
        known, at = self.find(account, request_id, now)
        if known is None:
            return Unknown()
        if known.settlement is not None:
            return known.settlement if known.settled_by == settlement_content(outcome, draws) else Conflict()
        subscriber = self.subscribers[account]
        settlement, record, moves = kept(known, at), subscriber.record, []
        if draws or outcome is Outcome.CANCEL:
            settling = Settling(self.versions[subscriber.catalog], subscriber, known, draws, at)
            wrong = settling.wrong() if draws else None
            if wrong is not None:
                return wrong
            settlement, record, moves = settling.settled()
        closed = replace(known, settled_at=at, settled_by=settlement_content(outcome, draws), settlement=settlement)
        record = with_settled(record, known, closed, at, self.bounds.request_ids_max)
        self.keep(account, replace(record, last_seen=at), moves)
        return settlement

    def renew(self, account: str, request_id: str, hold_ms: int, now: int) -> int | Wrong:
        """When the hold closes by itself, in milliseconds."""
        if not 1 <= hold_ms <= self.bounds.hold_ms_max:
            return Invalid("hold_ms")
        known, at = self.find(account, request_id, now)
        if known is None:
            return Unknown()
        if not known.is_open(at):
            return Ended()
        renewed = replace(known, hold_until=max(known.hold_until, at + hold_ms * 1000))
        record = self.subscribers[account].record
        admissions = tuple(renewed if it is known else it for it in record.admissions)
        self.keep(account, replace(record, last_seen=at, admissions=admissions))
        return ceil_ms(renewed.hold_until)

    def find(self, account: str, request_id: str, now: int) -> tuple[Admission | None, int]:
        """The admission, if there is such an account and it remembers one; and the account's now."""
        if account not in self.subscribers:
            return None, now
        at = self.account_now(account, now)
        return find_admission(self.subscribers[account].record, request_id, at), at

    def adjust(
        self, account: str, micro: int, reason: str, now: int, *, pool: str = "", limit_id: str = ""
    ) -> Adjustment | Wrong:
        self.moves = []
        if not 1 <= len(reason.encode()) <= REASON_BYTES_MAX:
            return Invalid("reason")
        if account not in self.subscribers:
            return Unknown()
        inquiry, at = self.inquiry(Ask(account)), self.account_now(account, now)
        limits = [it for it in inquiry.limits if (it.id == limit_id if limit_id else it.pool == pool)]
        if bool(pool) == bool(limit_id) or not (limits or pool in inquiry.plan.pools):
            return Invalid("limit_id" if limit_id else "pool")
        if limit_id and micro < 0 and limits[0].window.kind is WindowKind.BUCKET:
            return Invalid("micro")
        adjustment, record, moves = adjusted(inquiry, limits, micro, at)
        self.keep(account, replace(record, last_seen=at), moves)
        return adjustment
