"""A validated `Catalog` as the core wants it: names become indices, dates moments, windows anchors and lengths.

Nothing is checked here. What a catalog may hold, `load.py` has decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from quota.catalog.bounds import DAY_US
from quota.catalog.model import UNIT_WORDS, Catalog, Limit, Membership, Plan, Refusal, Weight, Window, WindowKind
from quota.catalog.names import fold
from quota.catalog.schedule import week_spans
from quota.catalog.spec import (
    FOREVER_US,
    CatalogSpec,
    ConcurrencySpec,
    LimitSpec,
    MemberSpec,
    MeterSpec,
    ModelSpec,
    PlanSpec,
    RefusalSpec,
    ToolSpec,
    WeightSpec,
)
from quota.catalog.zone import find_zone
from quota.types import Verdict

_FIRST_MONDAY_US = 4 * DAY_US  # 1970-01-05; day 0 of local time was a Thursday


def compile_catalog(catalog: Catalog) -> CatalogSpec:
    """The core's form of a catalog that `load` or `parse` made."""
    index = _Index(catalog)
    return CatalogSpec(
        name=catalog.name,
        zone=find_zone(catalog.time_zone).offsets,
        schedules=tuple(week_spans(schedule) for schedule in catalog.schedules),
        pools=catalog.pools,
        endpoints=tuple(index.endpoints),
        open_endpoints=None if catalog.endpoints is None else tuple(range(len(catalog.endpoints))),
        tools=tuple(ToolSpec(name, _within(index.endpoints, bound)) for name, bound in index.tool_endpoints.items()),
        any_tool=catalog.tools is None,
        models=tuple(
            ModelSpec(
                name=model.name,
                weights=tuple(index.weight(weight) for weight in model.weights),
                plans=index.members(model.plans),
            )
            for model in catalog.models
        ),
        names=_exact_names(catalog),
        patterns=_patterns(catalog),
        meters=tuple(
            MeterSpec(
                name=meter.name,
                pools=tuple(index.pools[pool] for pool in meter.pools),
                num=meter.per_unit.numerator,
                den=meter.per_unit.denominator,
                weighted=meter.weighted,
                per_prompt=meter.per_prompt,
                plans=index.members(meter.plans),
            )
            for meter in catalog.meters
        ),
        default_meter=index.meters[catalog.default_meter],
        plans=tuple(index.plan(plan) for plan in catalog.plans),
        refusals=tuple((Verdict[name].value, _refusal(refusal)) for name, refusal in catalog.refusals.items()),
    )


class _Index:
    """Where each name of a catalog stands in its tuple."""

    def __init__(self, catalog: Catalog) -> None:
        self.pools = _positions(catalog.pools)
        self.meters = _positions(meter.name for meter in catalog.meters)
        self.models = _positions(model.name for model in catalog.models)
        self.plans = _positions(plan.name for plan in catalog.plans)
        self.schedules = _positions(schedule.name for schedule in catalog.schedules)
        self.tool_endpoints = _tool_endpoints(catalog)
        self.tools = _positions(self.tool_endpoints)
        bound = [endpoint for endpoints in self.tool_endpoints.values() for endpoint in endpoints or ()]
        self.endpoints = _positions(dict.fromkeys([*(catalog.endpoints or ()), *bound]))

    def members(self, members: tuple[Membership, ...] | None) -> tuple[MemberSpec, ...] | None:
        if members is None:
            return None
        return tuple(MemberSpec(self.plans[m.plan], *_dates(m.from_us, m.until_us)) for m in members)

    def weight(self, weight: Weight) -> WeightSpec:
        return WeightSpec(
            weight.value.numerator,
            weight.value.denominator,
            self.schedule(weight.when),
            _within(self.tools, weight.tools),
            *_dates(weight.from_us, weight.until_us),
        )

    def plan(self, plan: Plan) -> PlanSpec:
        return PlanSpec(
            name=plan.name,
            level=plan.level,
            pools=tuple(self.pools[pool] for pool in plan.pools),
            limits=tuple(self.limit(limit) for limit in plan.limits),
            calls_per_prompt=plan.calls_per_prompt or 0,
            prompt_idle_us=plan.prompt_idle_us,
            hold_default_us=plan.hold_default_us,
            concurrency=tuple(
                ConcurrencySpec(it.id, it.limit, _within(self.models, it.models), self.schedule(it.when))
                for it in plan.concurrency
            ),
        )

    def schedule(self, when: str | None) -> int:
        return -1 if when is None else self.schedules[when]

    def limit(self, limit: Limit) -> LimitSpec:
        window = limit.window
        is_sliding, is_bucket = window.kind is WindowKind.SLIDING, window.kind is WindowKind.BUCKET
        rate = Fraction(window.rate_micro, window.length.length_us) if is_bucket else Fraction(0)
        return LimitSpec(
            id=limit.id,
            kind=window.kind.value,
            pool=self.pools[limit.pool],
            limit_micro=limit.limit_micro,
            window=str(window),
            number=window.length.number,
            unit=UNIT_WORDS[window.length.unit],
            length_us=window.length.length_us,
            months=window.length.months,
            step_us=window.step_us,
            anchor_us=_anchor_us(window),
            rate_num=rate.numerator,
            rate_den=rate.denominator,
            entries_max=limit.entries if is_sliding else 0,
            models=_within(self.models, limit.models),
            tools=_within(self.tools, limit.tools),
            meters=_within(self.meters, limit.meters),
            refusal=None if limit.refusal is None else _refusal(limit.refusal),
        )


def _positions(names: Iterable[str]) -> dict[str, int]:
    return {name: position for position, name in enumerate(names)}


def _within(positions: dict[str, int], names: tuple[str, ...] | None) -> tuple[int, ...] | None:
    return None if names is None else tuple(sorted(positions[name] for name in names))


def _dates(from_us: int | None, until_us: int | None) -> tuple[int, int]:
    return -FOREVER_US if from_us is None else from_us, FOREVER_US if until_us is None else until_us


def _tool_endpoints(catalog: Catalog) -> dict[str, tuple[str, ...] | None]:
    """The catalog's tools with their endpoints; without a list of tools, those that a weight or a limit names."""
    if catalog.tools is not None:
        return {tool.name: tool.endpoints for tool in catalog.tools}
    by_weight = (weight.tools for model in catalog.models for weight in model.weights)
    by_limit = (limit.tools for plan in catalog.plans for limit in plan.limits)
    return {name: None for tools in (*by_weight, *by_limit) for name in tools or ()}


def _exact_names(catalog: Catalog) -> tuple[tuple[str, int], ...]:
    return tuple(
        (fold(name), position)
        for position, model in enumerate(catalog.models)
        for name in (model.name, *model.aliases)
        if not name.endswith("*")
    )


def _patterns(catalog: Catalog) -> tuple[tuple[str, int], ...]:
    found = [
        (fold(alias[:-1]), position)
        for position, model in enumerate(catalog.models)
        for alias in model.aliases
        if alias.endswith("*")
    ]
    return tuple(sorted(found, key=lambda pattern: (-len(pattern[0].encode()), pattern[0])))


def _anchor_us(window: Window) -> int:
    """One boundary of a calendar window. A month's lies in January 1970, which has 31 days to count from."""
    if window.kind is not WindowKind.CALENDAR:
        return 0
    if window.length.unit == "w":
        return _FIRST_MONDAY_US + window.on * DAY_US + window.at_us
    if window.length.unit == "mo":
        return (window.on - 1) * DAY_US + window.at_us
    return window.at_us


def _refusal(refusal: Refusal) -> RefusalSpec:
    return RefusalSpec(refusal.code, refusal.http_status, refusal.message, refusal.retry_after_us)
