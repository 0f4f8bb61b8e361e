"""What the core is built from: a catalog with every name resolved to an index and every moment to microseconds.

`compile.py` makes it from a validated `Catalog`; `quota._core.Rules` trusts it. Indices point into the tuples of the
same `CatalogSpec`; `FOREVER_US` stands for "no end" and `-FOREVER_US` for "no beginning".
"""

from __future__ import annotations

from typing import NamedTuple

FOREVER_US = 2**62


class RefusalSpec(NamedTuple):
    code: str
    http_status: int
    message: str
    retry_after_us: int


class MemberSpec(NamedTuple):
    plan: int
    from_us: int
    until_us: int


class WeightSpec(NamedTuple):
    num: int  # at most 10^9
    den: int  # at most 10^6
    schedule: int  # -1 = always
    tools: tuple[int, ...] | None
    from_us: int
    until_us: int


class ModelSpec(NamedTuple):
    name: str
    weights: tuple[WeightSpec, ...]
    plans: tuple[MemberSpec, ...] | None


class MeterSpec(NamedTuple):
    name: str
    pools: tuple[int, ...]
    num: int  # per unit, num and den at most 10^9
    den: int
    weighted: bool
    per_prompt: bool
    plans: tuple[MemberSpec, ...] | None


class ToolSpec(NamedTuple):
    name: str
    endpoints: tuple[int, ...] | None  # None = the catalog's open ones


class LimitSpec(NamedTuple):
    id: str
    kind: int  # a WindowKind
    pool: int
    limit_micro: int  # bucket: depth
    window: str  # in words
    number: int  # of the window, for vendor messages: 5
    unit: str  # likewise, a whole word, singular: hour
    length_us: int  # sliding, cycle; a period's when not counted in months
    months: int  # a period's, else 0
    step_us: int  # sliding, else 0
    anchor_us: int  # calendar: one boundary as local wall-clock microseconds since 1970-01-01T00:00
    rate_num: int  # bucket: drains rate_num micro-units per rate_den microseconds, reduced
    rate_den: int
    entries_max: int  # sliding: M
    models: tuple[int, ...] | None
    tools: tuple[int, ...] | None
    meters: tuple[int, ...] | None
    refusal: RefusalSpec | None


class ConcurrencySpec(NamedTuple):
    id: str  # entries of one id are alternatives
    limit: int
    models: tuple[int, ...] | None
    schedule: int  # -1 = always


class PlanSpec(NamedTuple):
    name: str
    level: int
    pools: tuple[int, ...]
    limits: tuple[LimitSpec, ...]
    calls_per_prompt: int  # 0 = no bound
    prompt_idle_us: int
    hold_default_us: int  # 0 = none
    concurrency: tuple[ConcurrencySpec, ...]


class CatalogSpec(NamedTuple):
    name: str
    zone: tuple[tuple[int, int], ...]
    """(since_us, offset_us): the zone's offsets from 2000 to 2100, in order; the first one since -FOREVER_US."""
    schedules: tuple[tuple[tuple[int, int], ...], ...]
    """Per schedule its spans (start_us, end_us) since Monday 00:00 local: sorted, disjoint, joined, within 7 days."""
    pools: tuple[str, ...]
    endpoints: tuple[str, ...]
    open_endpoints: tuple[int, ...] | None
    """Those open to every tool without endpoints of its own; None = any, listed here or not."""
    tools: tuple[ToolSpec, ...]
    any_tool: bool
    """No `tools` key: `tools` then holds those that weights or limits name, so that they can match."""
    models: tuple[ModelSpec, ...]
    names: tuple[tuple[str, int], ...]
    """Every exact name and alias of a model, lower case."""
    patterns: tuple[tuple[str, int], ...]
    """Every alias with its `*` taken off, lower case, the longest first."""
    meters: tuple[MeterSpec, ...]
    default_meter: int
    plans: tuple[PlanSpec, ...]
    refusals: tuple[tuple[int, RefusalSpec], ...]
    """By Verdict number, every refusal."""
