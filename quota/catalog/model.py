"""The catalog as validated: everything one vendor sells, frozen.

A `Catalog` holds what its file says, checked and resolved, and nothing about how the core lays it out: `compile.py`
turns it into the core's rules, and the tests' oracles read it directly. Durations and moments are in microseconds
(moments since the Unix epoch), amounts in micro-units, factors exact fractions.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
UNIT_WORDS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_EXACT_UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}


class WindowKind(enum.IntEnum):
    """How a limit gives back what was drawn. The numbers are the core's."""

    SLIDING = 1  # each draw comes back `length` after it was made
    CYCLE = 2  # opens with the first draw, ends `length` later, everything comes back at once
    CALENDAR = 3  # ends at fixed wall-clock moments of the catalog's zone
    ANNIVERSARY = 4  # ends every `length` from the subscription's moment, at its wall-clock time
    BUCKET = 5  # drains all the time at a rate; for bursts


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time: exact microseconds, or calendar months. One of the two is 0."""

    number: int
    unit: str
    """The word of the file: `s`, `m`, `h`, `d`, `w`, `mo`, `y`."""
    length_us: int = 0
    months: int = 0

    def __str__(self) -> str:
        return f"{self.number}{self.unit}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One limit's window."""

    kind: WindowKind
    length: Span
    """Sliding, cycle, anniversary: W. Calendar: 1h, 1d, 1w or 1mo. Bucket: the span of `rate`."""
    step_us: int = 0
    """Sliding only: counted by clock-aligned steps of this length; 0 = exactly."""
    at_us: int = 0
    """Calendar only: time of day at which the period ends (for an hour: past the hour)."""
    on: int = 0
    """Calendar only: weekday 0..6 from Monday for a week, day 1..31 for a month (31 = the last one)."""
    rate_micro: int = 0
    """Bucket only: drains so many micro-units per `length`."""

    def __str__(self) -> str:
        """In words: `sliding 5h`, `sliding 5h step 1h`, `calendar week on monday at 10:00`, `bucket 10/1m`."""
        words = f"{self.kind.name.lower()} {self.length}"
        if self.kind is WindowKind.BUCKET:
            return f"bucket {_units_in_words(self.rate_micro)}/{self.length}"
        if self.kind is WindowKind.CALENDAR:
            return f"calendar {self._calendar_in_words()}"
        return f"{words} step {_exact_span(self.step_us)}" if self.step_us else words

    def _calendar_in_words(self) -> str:
        minutes, seconds = divmod(self.at_us // 1_000_000, 60)
        at = f"{minutes // 60:02}:{minutes % 60:02}" + (f":{seconds:02}" if seconds else "")
        if self.length.unit == "w":
            return f"week on {WEEKDAYS[self.on]} at {at}"
        if self.length.unit == "mo":
            return f"month on {self.on} at {at}"
        return f"{UNIT_WORDS[self.length.unit]} at {at}"


def _exact_span(length_us: int) -> Span:
    """A length in the largest unit that divides it; a whole number of seconds."""
    unit = next(unit for unit, unit_us in _EXACT_UNITS.items() if length_us % unit_us == 0)
    return Span(length_us // _EXACT_UNITS[unit], unit, length_us)


def _units_in_words(micro: int) -> str:
    whole, rest = divmod(micro, 1_000_000)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """How the vendor words one refusal.

    `message` may hold ${number}, ${unit}, ${next_flush_time}, ${model_name} and ${meter}.
    """

    code: str
    http_status: int
    message: str
    retry_after_us: int = 1_000_000
    """The hint given where no wait can be computed (concurrency, overload, restrictions)."""


@dataclass(frozen=True, slots=True)
class DailySpan:
    """Part of each of some days, in wall-clock time of the zone. `end_us` <= `start_us` runs past midnight."""

    start_us: int
    end_us: int
    days: frozenset[int] = frozenset(range(7))
    """Weekdays on which it starts, 0 = Monday."""


@dataclass(frozen=True, slots=True)
class Schedule:
    name: str
    spans: tuple[DailySpan, ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """A plan that has a model or a meter, from and until (excluded) a moment; None = always."""

    plan: str
    from_us: int | None = None
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """A multiplier on what a request draws. The first entry of a model that matches time, tool and dates holds."""

    value: Fraction
    when: str | None = None
    tools: tuple[str, ...] | None = None
    from_us: int | None = None
    until_us: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Meter:
    name: str
    pools: tuple[str, ...]
    per_unit: Fraction = Fraction(1)
    weighted: bool = False
    per_prompt: bool = False
    plans: tuple[Membership, ...] | None = None
    """Plans that have it, beyond having its pools; None = every plan that has its pools."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    name: str
    """Canonical name, as answers spell it."""
    aliases: tuple[str, ...] = ()
    """Other names; one that ends in `*` matches every name that begins so, the longest first."""
    plans: tuple[Membership, ...] | None = None
    """None = every plan."""
    weights: tuple[Weight, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    endpoints: tuple[str, ...] | None = None
    """Endpoints this tool is bound to, without a slash at the end; None = those of the catalog."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """At most `limit_micro` in a window. Narrowed ones share one counter among all that they match."""

    id: str
    pool: str
    window: Window
    limit_micro: int
    """For a bucket: its depth."""
    models: tuple[str, ...] | None = None
    """Canonical names it counts, patterns resolved; None = all, also requests without a model."""
    tools: tuple[str, ...] | None = None
    meters: tuple[str, ...] | None = None
    entries: int = 64
    """Sliding: how many log entries at most (M)."""
    refusal: Refusal | None = None
    """In place of the catalog's refusal for LIMIT_EXHAUSTED or BURST."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Concurrency:
    """At most `limit` requests in flight. Entries of one id are alternatives: the first whose `when` matches holds."""

    id: str
    limit: int
    models: tuple[str, ...] | None = None
    when: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    name: str
    level: int
    pools: tuple[str, ...]
    """The pools that are in the plan, limited or not."""
    limits: tuple[Limit, ...]
    """In file order, buckets last."""
    calls_per_prompt: int | None = None
    prompt_idle_us: int = 600_000_000
    hold_default_us: int = 0
    concurrency: tuple[Concurrency, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    name: str
    time_zone: str
    pools: tuple[str, ...]
    meters: tuple[Meter, ...]
    default_meter: str
    schedules: tuple[Schedule, ...]
    models: tuple[Model, ...]
    tools: tuple[Tool, ...] | None
    """None = any tool."""
    endpoints: tuple[str, ...] | None
    """Without a slash at the end; None = any endpoint."""
    plans: tuple[Plan, ...]
    """In order of level, the lowest first."""
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """By verdict name; the loader fills in what the file leaves out."""
    content_hash: str = ""
    """The first 12 hex digits of the SHA-256 of the file's text."""
    warnings: tuple[str, ...] = ()
    """What is legal but looks unintended, as `FILE:LINE: ...`."""
