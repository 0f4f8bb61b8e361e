"""One request of one account: what it draws on, what that costs at any moment, and when it would fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from oracle.prompts import find_prompt
from oracle.segments import FOREVER, Segment, Timeline, fold
from oracle.values import MICRO, UNITS_MAX, Ask, Refused, Subscriber, Version, ceil_ms
from oracle.wall import wall_clock
from oracle.windows import window_of
from quota.catalog.model import Catalog, Limit, Meter, Model, Plan
from quota.types import LimitState, Mode, Verdict

SEGMENTS_SEARCHED = 64


@dataclass(frozen=True)
class Terms:
    """On which a request is priced at some moment."""

    weight: Fraction
    paid: Mapping[str, int]
    """What its prompt has paid, by pool; nothing if that has ended."""


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


def overridden(limit: Limit, overrides: Mapping[str, int]) -> Limit:
    return replace(limit, limit_micro=overrides[limit.id] * MICRO) if limit.id in overrides else limit


class Inquiry:
    """Everything is read from the catalog, the subscriber and the ask; nothing is changed."""

    def __init__(self, version: Version, subscriber: Subscriber, ask: Ask) -> None:
        self.version, self.subscriber, self.ask = version, subscriber, ask
        self.catalog = version.catalog
        self.clock = wall_clock(self.catalog.time_zone)
        self.plan: Plan = next(plan for plan in self.catalog.plans if plan.name == subscriber.plan)
        self.limits = [overridden(limit, subscriber.overrides) for limit in self.plan.limits]
        self.model = find_model(self.catalog, ask.model) if ask.model else None
        by_name = {meter.name: meter for meter in self.catalog.meters}
        draws = ask.draws or {self.catalog.default_meter: 1}
        self.draws: dict[str, tuple[Meter | None, int]] = {name: (by_name.get(name), n) for name, n in draws.items()}
        self.timeline = Timeline(
            self.catalog, self.clock, self.plan, self.model, [m for m, _ in self.draws.values()], ask.tool
        )
        self.touched = [limit for limit in self.limits if self.feeding(limit)]
        self.prompt = find_prompt(subscriber.record, ask.prompt_id) if ask.prompt_id else None

    @property
    def model_name(self) -> str:
        return self.model.name if self.model else ""

    # ---- What is drawn on what ----

    def feeds(self, meter: Meter | None, limit: Limit) -> bool:
        return (
            meter is not None
            and limit.pool in meter.pools
            and (limit.meters is None or meter.name in limit.meters)
            and (limit.models is None or (self.model is not None and self.model.name in limit.models))
            and (limit.tools is None or fold(self.ask.tool) in [fold(tool) for tool in limit.tools])
        )

    def feeding(self, limit: Limit) -> list[tuple[Meter, int]]:
        return [(meter, n) for meter, n in self.draws.values() if meter and self.feeds(meter, limit)]

    def folds(self, meter: Meter) -> bool:
        """Its draws cost one unit a prompt."""
        return bool(self.ask.prompt_id) and meter.per_prompt

    @property
    def own(self) -> list[tuple[Meter, int]]:
        return [(meter, n) for meter, n in self.draws.values() if meter and not self.folds(meter)]

    @property
    def calling(self) -> list[Meter]:
        """The meters that make this a call of its prompt."""
        return [meter for meter, n in self.draws.values() if meter and self.folds(meter) and n]

    # ---- What refuses before any limit is looked at ----

    def check_names(self) -> None:
        """What no waiting cures: tool, endpoint, model and meters that the catalog does not know, pools that the plan lacks."""
        self.check_tool()
        self.check_model()
        self.check_meters()

    def check_tool(self) -> None:
        bound = self.catalog.endpoints
        if self.catalog.tools is not None:
            found = [tool for tool in self.catalog.tools if fold(tool.name) == fold(self.ask.tool)]
            if not found:
                raise Refused(Verdict.TOOL_UNSUPPORTED, "tools")
            if found[0].endpoints is not None:
                bound = found[0].endpoints
        if self.ask.endpoint and bound is not None and self.ask.endpoint.removesuffix("/") not in bound:
            raise Refused(Verdict.ENDPOINT_UNSUPPORTED, "endpoints")

    def check_model(self) -> None:
        if self.catalog.models and self.model is None and (self.ask.model or self.timeline.weighted):
            raise Refused(Verdict.MODEL_UNKNOWN, "models")

    def check_meters(self) -> None:
        unknown = [name for name, (meter, _) in self.draws.items() if meter is None]
        if unknown:
            raise Refused(Verdict.METER_NOT_IN_PLAN, "meters", ", ".join(unknown))
        for name, (meter, _) in self.draws.items():
            if not set(meter.pools) <= set(self.plan.pools):
                raise Refused(Verdict.METER_NOT_IN_PLAN, f"meters.{name}", name)

    def check_plan(self, now: int) -> None:
        """The model first, then the meters: those unknown, those without their pools, those out of their dates."""
        if self.model and not self.timeline.model_in_plan(now):
            raise Refused(Verdict.MODEL_NOT_IN_PLAN, f"models.{self.model.name}")
        self.check_meters()
        for name, (meter, _) in self.draws.items():
            if not self.timeline.meter_in_plan(meter, now):
                raise Refused(Verdict.METER_NOT_IN_PLAN, f"meters.{name}", name)

    def check_amounts(self, weight: Fraction) -> str:
        """The field that is out of its range; "" = none."""
        draws = list(enumerate(self.draws.values()))
        for i, (meter, n) in draws:
            if meter and self.folds(meter) and n > 1:
                return f"draws[{i}].amount"
        for i, (meter, n) in draws:
            if meter and not self.folds(meter) and n * meter.per_unit * self.factor(meter, weight) > UNITS_MAX:
                return f"draws[{i}].amount"
        return ""

    # ---- What it costs ----

    def terms_at(self, t: int) -> Terms:
        return Terms(self.timeline.weight(t), self.paid_at(t))

    def paid_at(self, t: int) -> Mapping[str, int]:
        return self.prompt.paid if self.prompt and self.prompt.alive(self.plan, t) else {}

    def factor(self, meter: Meter, weight: Fraction) -> Fraction:
        return weight if meter.weighted else Fraction(1)

    def price(self, meter: Meter, amount: int, weight: Fraction) -> int:
        """One draw in micro-units: exact, rounded down once, at least 1 for an amount above 0."""
        if not amount:
            return 0
        return max(1, math.floor(amount * meter.per_unit * self.factor(meter, weight) * MICRO))

    def unit(self, pool: str, weight: Fraction) -> int:
        """What a call of the prompt is worth in a pool: one unit whatever the meter's `per_unit`, of several meters the dearest."""
        units = [
            max(1, math.floor(self.factor(meter, weight) * MICRO)) for meter in self.calling if pool in meter.pools
        ]
        return max(units, default=0)

    def units(self, weight: Fraction) -> dict[str, int]:
        return {pool: self.unit(pool, weight) for meter in self.calling for pool in meter.pools}

    def due(self, pool: str, terms: Terms) -> int:
        return max(0, self.unit(pool, terms.weight) - terms.paid.get(pool, 0))

    def own_cost(self, limit: Limit, weight: Fraction) -> int:
        return sum(self.price(meter, n, weight) for meter, n in self.own if self.feeds(meter, limit))

    def folded_cost(self, limit: Limit, terms: Terms) -> int:
        return self.due(limit.pool, terms) if any(self.feeds(meter, limit) for meter in self.calling) else 0

    def cost(self, limit: Limit, terms: Terms) -> int:
        return self.own_cost(limit, terms.weight) + self.folded_cost(limit, terms)

    def needed(self, limit: Limit, terms: Terms) -> int:
        """What must be free: the cost, and for a check of amount 0 anything at all."""
        return max(1, self.cost(limit, terms))

    def own_charged(self, weight: Fraction) -> dict[str, int]:
        pools: dict[str, int] = {}
        for meter, n in self.own:
            for pool in meter.pools:
                pools[pool] = pools.get(pool, 0) + self.price(meter, n, weight)
        return pools

    def charged(self, terms: Terms) -> dict[str, int]:
        """By pool, only what is above 0."""
        pools = self.own_charged(terms.weight)
        for pool in self.units(terms.weight):
            pools[pool] = pools.get(pool, 0) + self.due(pool, terms)
        return {pool: micro for pool, micro in pools.items() if micro}

    def skipped(self, limit: Limit, terms: Terms) -> bool:
        """Only the prompt draws on it, and has paid: it cannot refuse, not even in debt."""
        paid = terms.paid.get(limit.pool, 0)
        return (
            all(self.folds(meter) for meter, _ in self.feeding(limit))
            and paid > 0
            and paid >= self.unit(limit.pool, terms.weight)
        )

    # ---- Whether and when it fits ----

    def window(self, limit: Limit):
        return window_of(limit, self.clock, self.subscriber.subscribed_at)

    def state(self, limit: Limit):
        return self.subscriber.record.slots.get((limit.id, limit.window.kind))

    def refuses(self, limit: Limit, terms: Terms, now: int) -> bool:
        if self.passes(limit, terms):
            return False
        return self.window(limit).used(self.state(limit), now) + self.needed(limit, terms) > limit.limit_micro

    def passes(self, limit: Limit, terms: Terms) -> bool:
        """Whatever is left."""
        return self.ask.mode is Mode.RECORD or self.skipped(limit, terms)

    def frees_at(self, limit: Limit, terms: Terms, start: int) -> int:
        if self.passes(limit, terms):
            return start
        at = self.window(limit).room_at(self.state(limit), self.needed(limit, terms), start)
        return FOREVER if at is None else at

    def fits_ever(self, terms: Terms) -> bool:
        return not self.check_amounts(terms.weight) and all(
            self.passes(it, terms) or self.needed(it, terms) <= it.limit_micro for it in self.touched
        )

    def never_fits(self, start: int) -> bool:
        """In no segment to come, however far, is every cost within its limit: neither while its prompt lives nor later."""
        end = start
        if self.paid_at(start):
            end = self.prompt.dies_at(self.plan)
            for segment in self.timeline.segments(start):
                if segment.start >= end:
                    break
                if segment.weight is not None and self.fits_ever(Terms(segment.weight, self.prompt.paid)):
                    return False
        return not any(self.fits_ever(Terms(weight, {})) for weight in self.timeline.weights_to_come(end))

    def parts(self, segment: Segment) -> Iterator[tuple[int, int, Terms]]:
        """A segment, cut where the prompt ends: from there on nothing is paid."""
        start = segment.start
        if self.paid_at(start) and self.prompt.dies_at(self.plan) < segment.end:
            start = self.prompt.dies_at(self.plan)
            yield segment.start, start, Terms(segment.weight, self.prompt.paid)
        yield start, segment.end, Terms(segment.weight, self.paid_at(start))

    def search(self, start: int) -> tuple[int | None, Terms]:
        """(the first instant at which everything fits or the search ends, the terms then); None = no such instant."""
        searched, end, terms = 0, None, Terms(Fraction(1), {})
        for segment in self.timeline.segments(start):
            if segment.weight is None:
                continue
            for begin, end, terms in self.parts(segment):
                fit = max((self.frees_at(limit, terms, begin) for limit in self.touched), default=begin)
                if fit < end and not self.check_amounts(terms.weight):
                    return fit, terms
            searched += 1
            if searched == SEGMENTS_SEARCHED:
                return end, terms
        return None, terms

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
            percent=used * 100 // limit.limit_micro if limit.limit_micro else 100,
            resets_at_ms=ceil_ms(window.resets_at(state, now)) if used else None,
            full_at_ms=ceil_ms(window.full_at(state, now)) if used else None,
        )
