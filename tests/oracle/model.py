"""The naive quotad: accounts in a dict, catalogs as they were validated, one request looked at by reading the rules in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from oracle.segments import FOREVER, Timeline, fold
from oracle.wall import wall_clock
from oracle.windows import window_of
from quota.catalog.model import Catalog, Limit, Meter, Model, Plan, Refusal, WindowKind
from quota.types import CatalogVersion, LimitState, VendorRefusal, Verdict

MICRO = 1_000_000
SEGMENTS_SEARCHED = 64
UNITS_MAX = 10**12
UNIT_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}


class Unsuitable(Exception):
    """A plan in use would vanish."""


@dataclass(frozen=True)
class Ask:
    """One request, as plain values."""

    account: str
    model: str = ""
    tool: str = ""
    endpoint: str = ""
    draws: Mapping[str, int] | None = None
    explain: bool = False


@dataclass(frozen=True)
class Invalid:
    """No decision: a field is out of its range."""

    field: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The fields of a Decision."""

    verdict: Verdict
    model: str = ""
    rule: str = ""
    charged: Mapping[str, int] = field(default_factory=dict)
    weight_micro: int = 0
    retry_after_ms: int | None = None
    resets_at_ms: int | None = None
    limits: tuple[LimitState, ...] = ()
    catalog: CatalogVersion | None = None
    vendor: VendorRefusal | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOWED


@dataclass
class Subscriber:
    catalog: str
    plan: str
    subscribed_at: int
    expires_at: int
    last_seen: int = -FOREVER
    slots: dict[tuple[str, WindowKind], Any] = field(default_factory=dict)
    """What was drawn, by limit id and window kind: never forgotten, whatever the plan or catalog says now."""


@dataclass
class Refused(Exception):
    verdict: Verdict
    rule: str
    meter: str = ""


def ceil_ms(us: int | Fraction) -> int:
    return math.ceil(Fraction(us) / 1000)


def worded(refusal: Refusal, words: Mapping[str, str]) -> VendorRefusal:
    message = refusal.message
    for word, value in words.items():
        message = message.replace("${" + word + "}", value)
    return VendorRefusal(refusal.code, refusal.http_status, message)


def find_model(catalog: Catalog, name: str) -> Model | None:
    """By its name, else an alias, else the longest pattern that the name begins with."""
    name = fold(name)
    for model in catalog.models:
        if fold(model.name) == name:
            return model
    for model in catalog.models:
        if name in [fold(alias) for alias in model.aliases if not alias.endswith("*")]:
            return model
    patterns = [(len(alias), model) for model in catalog.models for alias in model.aliases if alias.endswith("*")
                and name.startswith(fold(alias[:-1]))]  # fmt: skip
    return max(patterns, key=lambda pattern: pattern[0])[1] if patterns else None


def check_tool(catalog: Catalog, ask: Ask) -> None:
    bound = catalog.endpoints
    if catalog.tools is not None:
        found = [tool for tool in catalog.tools if fold(tool.name) == fold(ask.tool)]
        if not found:
            raise Refused(Verdict.TOOL_UNSUPPORTED, "tools")
        if found[0].endpoints is not None:
            bound = found[0].endpoints
    if ask.endpoint and bound is not None and ask.endpoint.removesuffix("/") not in bound:
        raise Refused(Verdict.ENDPOINT_UNSUPPORTED, "endpoints")


class Inquiry:
    """One request of one account at one moment: what it draws on, what that costs, and when it would fit."""

    def __init__(self, catalog: Catalog, subscriber: Subscriber, ask: Ask) -> None:
        self.catalog, self.subscriber, self.ask = catalog, subscriber, ask
        self.clock = wall_clock(catalog.time_zone)
        self.plan: Plan = next(plan for plan in catalog.plans if plan.name == subscriber.plan)
        self.model = find_model(catalog, ask.model) if ask.model else None
        by_name = {meter.name: meter for meter in catalog.meters}
        draws = ask.draws or {catalog.default_meter: 1}
        self.draws: dict[str, tuple[Meter | None, int]] = {name: (by_name.get(name), n) for name, n in draws.items()}
        self.timeline = Timeline(
            catalog, self.clock, self.plan, self.model, [m for m, _ in self.draws.values()], ask.tool
        )
        self.touched = [
            limit for limit in self.plan.limits if any(self.feeds(m, limit) for m, _ in self.draws.values())
        ]

    def feeds(self, meter: Meter | None, limit: Limit) -> bool:
        return (
            meter is not None
            and limit.pool in meter.pools
            and (limit.meters is None or meter.name in limit.meters)
            and (limit.models is None or (self.model is not None and self.model.name in limit.models))
            and (limit.tools is None or fold(self.ask.tool) in [fold(tool) for tool in limit.tools])
        )

    def check_model(self) -> None:
        if self.catalog.models and self.model is None and (self.ask.model or self.timeline.weighted):
            raise Refused(Verdict.MODEL_UNKNOWN, "models")

    def check_plan(self, now: int) -> None:
        """The model first, then the meters: those unknown, those without their pools, those out of their dates."""
        if self.model and not self.timeline.model_in_plan(now):
            raise Refused(Verdict.MODEL_NOT_IN_PLAN, f"models.{self.model.name}")
        unknown = [name for name, (meter, _) in self.draws.items() if meter is None]
        if unknown:
            raise Refused(Verdict.METER_NOT_IN_PLAN, "meters", ", ".join(unknown))
        for lacks in (self.lacks_pools, lambda meter: not self.timeline.meter_in_plan(meter, now)):
            for name, (meter, _) in self.draws.items():
                if lacks(meter):
                    raise Refused(Verdict.METER_NOT_IN_PLAN, f"meters.{name}", name)

    def lacks_pools(self, meter: Meter) -> bool:
        return not set(meter.pools) <= set(self.plan.pools)

    def price(self, meter: Meter, amount: int, weight: Fraction) -> int:
        """One draw in micro-units: exact, rounded down once, at least 1 for an amount above 0."""
        if not amount:
            return 0
        return max(1, math.floor(amount * meter.per_unit * (weight if meter.weighted else 1) * MICRO))

    def cost(self, limit: Limit, weight: Fraction) -> int:
        return sum(
            self.price(meter, n, weight) for meter, n in self.draws.values() if meter and self.feeds(meter, limit)
        )

    def needed(self, limit: Limit, weight: Fraction) -> int:
        """What must be free: the cost, and for a check of amount 0 anything at all."""
        return max(1, self.cost(limit, weight))

    def charged(self, weight: Fraction) -> dict[str, int]:
        pools: dict[str, int] = {}
        for meter, n in self.draws.values():
            for pool in meter.pools if meter and n else ():
                pools[pool] = pools.get(pool, 0) + self.price(meter, n, weight)
        return pools

    def window(self, limit: Limit):
        return window_of(limit, self.clock, self.subscriber.subscribed_at)

    def state(self, limit: Limit):
        return self.subscriber.slots.get((limit.id, limit.window.kind))

    def refuses(self, limit: Limit, weight: Fraction, now: int) -> bool:
        return self.window(limit).used(self.state(limit), now) + self.needed(limit, weight) > limit.limit_micro

    def frees_at(self, limit: Limit, weight: Fraction, start: int) -> int:
        at = self.window(limit).room_at(self.state(limit), self.needed(limit, weight), start)
        return FOREVER if at is None else at

    def never_fits(self, start: int) -> bool:
        """In no segment to come, however far, is every cost within its limit."""
        return not any(
            all(self.needed(limit, weight) <= limit.limit_micro for limit in self.touched)
            for weight in self.timeline.weights_to_come(start)
        )

    def search(self, start: int) -> tuple[int | None, Fraction]:
        """(the first instant at which everything fits or the search ends, the weight then); None = no such instant."""
        searched, end, weight = 0, None, Fraction(1)
        for segment in self.timeline.segments(start):
            if segment.weight is None:
                continue
            weight = segment.weight
            fit = max((self.frees_at(limit, weight, segment.start) for limit in self.touched), default=segment.start)
            if fit < segment.end:
                return fit, weight
            searched, end = searched + 1, segment.end
            if searched == SEGMENTS_SEARCHED:
                return end, weight
        return None, weight

    def limit_state(self, limit: Limit, now: int, state) -> LimitState:
        window = self.window(limit)
        used = window.used(state, now)
        return LimitState(
            id=limit.id,
            pool=limit.pool,
            window=str(limit.window),
            limit_micro=limit.limit_micro,
            used_micro=used,
            remaining_micro=max(0, limit.limit_micro - used),
            percent=used * 100 // limit.limit_micro,
            resets_at_ms=ceil_ms(window.resets_at(state, now)) if used else None,
            full_at_ms=ceil_ms(window.full_at(state, now)) if used else None,
        )


class Oracle:
    """Times in microseconds. Loading and putting take what the engine takes; admit and peek answer with an `Answer`."""

    def __init__(self) -> None:
        self.catalogs: dict[str, Catalog] = {}
        self.versions: dict[str, CatalogVersion | None] = {}
        self.subscribers: dict[str, Subscriber] = {}
        self.catalog_default = ""

    def load_catalog(self, catalog: Catalog, version: CatalogVersion | None = None) -> None:
        names = {plan.name for plan in catalog.plans}
        if any(s.catalog == catalog.name and s.plan not in names for s in self.subscribers.values()):
            raise Unsuitable
        self.catalogs[catalog.name], self.versions[catalog.name] = catalog, version
        self.catalog_default = self.catalog_default or catalog.name

    def put_account(
        self, id: str, *, catalog: str, plan: str, now: int, subscribed_at: int = 0, expires_at: int = 0
    ) -> None:
        old = self.subscribers.get(id)
        subscribed_at = subscribed_at or (old.subscribed_at if old else now)
        if old:
            self.subscribers[id] = replace(
                old, catalog=catalog, plan=plan, subscribed_at=subscribed_at, expires_at=expires_at
            )
        else:
            self.subscribers[id] = Subscriber(catalog, plan, subscribed_at, expires_at)

    def account_now(self, id: str, now: int) -> int:
        """Time never goes back for an account: not before its last admission."""
        return max(now, self.subscribers[id].last_seen)

    def usage(self, id: str, now: int) -> tuple[LimitState, ...]:
        subscriber, at = self.subscribers[id], self.account_now(id, now)
        inquiry = Inquiry(self.catalogs[subscriber.catalog], subscriber, Ask(id))
        return tuple(inquiry.limit_state(limit, at, inquiry.state(limit)) for limit in inquiry.plan.limits)

    def admit(self, ask: Ask, now: int) -> Answer | Invalid:
        answer, slots = self.decide(ask, now)
        if slots is not None:
            subscriber = self.subscribers[ask.account]
            subscriber.last_seen = self.account_now(ask.account, now)
            subscriber.slots = slots
        return answer

    def peek(self, ask: Ask, now: int) -> Answer | Invalid:
        return self.decide(ask, now)[0]

    def decide(self, ask: Ask, now: int) -> tuple[Answer | Invalid, dict | None]:
        """The answer, and what the account has drawn after it if it was admitted. Changes nothing."""
        subscriber = self.subscribers.get(ask.account)
        if subscriber is None:
            return self.unknown(ask), None
        inquiry = Inquiry(self.catalogs[subscriber.catalog], subscriber, ask)
        at = self.account_now(ask.account, now)
        try:
            self.check_account(subscriber, at)
            check_tool(inquiry.catalog, ask)
            inquiry.check_model()
            inquiry.check_plan(at)
        except Refused as refused:
            return self.early_refusal(inquiry, refused, at, now), None
        weight = inquiry.timeline.weight(at)
        for i, (meter, amount) in enumerate(inquiry.draws.values()):
            if meter and amount * meter.per_unit * (weight if meter.weighted else 1) > UNITS_MAX:
                return Invalid(f"draws[{i}].amount"), None
        if any(inquiry.refuses(limit, weight, at) for limit in inquiry.touched):
            return self.late_refusal(inquiry, weight, at, now), None
        return self.allowed(inquiry, weight, at)

    def allowed(self, inquiry: Inquiry, weight: Fraction, at: int) -> tuple[Answer, dict]:
        slots = dict(inquiry.subscriber.slots)
        for limit in inquiry.touched:
            cost = inquiry.cost(limit, weight)
            if cost:
                slots[limit.id, limit.window.kind] = inquiry.window(limit).charged(inquiry.state(limit), cost, at)
        shown = inquiry.touched if inquiry.ask.explain else []
        answer = Answer(
            verdict=Verdict.ALLOWED,
            model=inquiry.model.name if inquiry.model else "",
            charged=inquiry.charged(weight),
            weight_micro=math.floor(weight * MICRO),
            limits=tuple(inquiry.limit_state(limit, at, slots.get((limit.id, limit.window.kind))) for limit in shown),
            catalog=self.versions[inquiry.catalog.name],
        )
        return answer, slots

    def late_refusal(self, inquiry: Inquiry, weight: Fraction, at: int, now: int) -> Answer:
        """AMOUNT_TOO_LARGE, LIMIT_EXHAUSTED or BURST."""
        refusing = [limit for limit in inquiry.touched if inquiry.refuses(limit, weight, at)]
        windows = [limit for limit in refusing if limit.window.kind is not WindowKind.BUCKET]
        too_large = [limit for limit in inquiry.touched if inquiry.needed(limit, weight) > limit.limit_micro]
        if too_large and inquiry.never_fits(at):
            verdict, fit, frees_at, decided = Verdict.AMOUNT_TOO_LARGE, None, None, too_large[0]
        else:
            fit, fitting_weight = inquiry.search(at)
            verdict = Verdict.LIMIT_EXHAUSTED if windows else Verdict.BURST
            decided = max(windows or refusing, key=lambda limit: inquiry.frees_at(limit, fitting_weight, at))
            frees_at = inquiry.frees_at(decided, fitting_weight, at) if fit is None else fit
        shown = inquiry.touched if inquiry.ask.explain else refusing
        return self.refusal(
            inquiry, Refused(verdict, decided.id), fit, now, limit=decided, frees_at=frees_at,
            weight_micro=math.floor(weight * MICRO),
            limits=tuple(inquiry.limit_state(limit, at, inquiry.state(limit)) for limit in shown),
        )  # fmt: skip

    def early_refusal(self, inquiry: Inquiry, refused: Refused, at: int, now: int) -> Answer:
        """Any verdict before AMOUNT_TOO_LARGE: with a wait where time alone will cure it."""
        fit = None
        if refused.verdict in (Verdict.ACCOUNT_INACTIVE, Verdict.MODEL_NOT_IN_PLAN, Verdict.METER_NOT_IN_PLAN):
            fit = self.cured_at(inquiry, max(at, inquiry.subscriber.subscribed_at))
        return self.refusal(inquiry, refused, fit, now, frees_at=fit)

    def cured_at(self, inquiry: Inquiry, start: int) -> int | None:
        try:
            check_tool(inquiry.catalog, inquiry.ask)
            inquiry.check_model()
        except Refused:
            return None
        return None if inquiry.never_fits(start) else inquiry.search(start)[0]

    def check_account(self, subscriber: Subscriber, at: int) -> None:
        if at < subscriber.subscribed_at:
            raise Refused(Verdict.ACCOUNT_INACTIVE, "account.subscribed_at")
        if subscriber.expires_at and at >= subscriber.expires_at:
            raise Refused(Verdict.SUBSCRIPTION_EXPIRED, "account.expires_at")

    def refusal(
        self, inquiry: Inquiry, refused: Refused, fit: int | None, now: int, *,
        frees_at: int | None, limit: Limit | None = None, **fields,
    ) -> Answer:  # fmt: skip
        """`fit` is when the request fits, None = never; `frees_at` what the vendor's words say. No wait past the subscription."""
        expires_at = inquiry.subscriber.expires_at
        wait = None
        if fit is not None and fit < FOREVER and not (expires_at and fit >= expires_at):
            wait = ceil_ms(fit - now)
        resets_at = None if wait is None else ceil_ms(fit)
        model = inquiry.model.name if inquiry.model else inquiry.ask.model
        return Answer(
            verdict=refused.verdict,
            model=model,
            rule=refused.rule,
            retry_after_ms=wait,
            resets_at_ms=resets_at,
            catalog=self.versions[inquiry.catalog.name],
            vendor=self.vendor(inquiry, refused, limit, model, frees_at),
            **fields,
        )

    def vendor(
        self, inquiry: Inquiry, refused: Refused, limit: Limit | None, model: str, frees_at: int | None
    ) -> VendorRefusal:
        """The catalog's words, or the deciding limit's own if it is used up. The time is told also past the subscription's end."""
        refusal = inquiry.catalog.refusals[refused.verdict.name]
        words = {"number": "0", "unit": "", "next_flush_time": "never", "model_name": model, "meter": refused.meter}
        if limit is not None:
            if limit.refusal is not None and refused.verdict in (Verdict.LIMIT_EXHAUSTED, Verdict.BURST):
                refusal = limit.refusal
            words["number"], words["unit"] = str(limit.window.length.number), UNIT_WORDS[limit.window.length.unit]
        if frees_at is not None and frees_at < FOREVER:
            words["next_flush_time"] = inquiry.clock.shown(frees_at)
        return worded(refusal, words)

    def unknown(self, ask: Ask) -> Answer:
        refusal = self.catalogs[self.catalog_default].refusals["ACCOUNT_UNKNOWN"]
        words = {"number": "0", "unit": "", "next_flush_time": "never", "model_name": ask.model, "meter": ""}
        return Answer(verdict=Verdict.ACCOUNT_UNKNOWN, model=ask.model, rule="account", vendor=worded(refusal, words))
