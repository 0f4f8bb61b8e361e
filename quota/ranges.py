"""What an engine may be told: ranges, and the errors that name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from fractions import Fraction
from typing import Final

from quota.catalog.model import WindowKind
from quota.catalog.spec import CatalogSpec, PlanSpec
from quota.errors import InvalidArgument
from quota.types import Bounds

MICRO: Final = 1_000_000
UNITS_MAX: Final = 10**12
OVERRIDES_MAX: Final = 16
REASON_BYTES_MAX: Final = 512
BOUNDS_MOST: Final = Bounds(hold_ms_max=3_600_000, holds_max=10_000, request_ids_max=10_000, prompts_max=1_000)
"""Each is at least 1. A decision looks through all that its account has open, so these bound how long one takes."""


def check_bounds(bounds: Bounds) -> None:
    """Raise InvalidArgument, by field, for a bound that no engine takes."""
    most = asdict(BOUNDS_MOST)
    for name, value in asdict(bounds).items():
        if not 1 <= value <= most[name]:
            raise InvalidArgument(name, value, f"a whole number from 1 to {most[name]}")


def check_overrides(spec: CatalogSpec, overrides: Mapping[str, int]) -> None:
    """Raise InvalidArgument for what cannot be an account's own limits under a catalog."""
    if len(overrides) > OVERRIDES_MAX:
        raise InvalidArgument("overrides", f"{len(overrides)} limits", f"at most {OVERRIDES_MAX}")
    ids = dict.fromkeys(id for plan in spec.plans for id in _ids(plan))
    for id, units in overrides.items():
        if id not in ids:
            raise InvalidArgument("overrides", id, one_of(ids) if ids else "none: the catalog has no limits")
        if isinstance(units, bool) or not isinstance(units, int) or not 0 <= units <= UNITS_MAX:
            raise InvalidArgument("overrides", {id: units}, f"whole units from 0 to {UNITS_MAX}")


def _ids(plan: PlanSpec) -> Iterable[str]:
    yield from (limit.id for limit in plan.limits)
    yield from (entry.id for entry in plan.concurrency)


def check_adjustment(micro: int, reason: str) -> None:
    """Raise InvalidArgument for an adjustment that no account could have."""
    if not 1 <= len(reason.encode()) <= REASON_BYTES_MAX:
        raise InvalidArgument("reason", reason, f"1 to {REASON_BYTES_MAX} bytes of UTF-8")
    if micro == 0 or abs(micro) > UNITS_MAX * MICRO:
        raise InvalidArgument("micro", micro, f"{-UNITS_MAX * MICRO} to {UNITS_MAX * MICRO}, but not 0")


def check_target(spec: CatalogSpec, plan: PlanSpec, pool: str, limit_id: str, micro: int) -> None:
    """Raise InvalidArgument unless exactly one of pool and limit is named, is the plan's, and can be moved that way."""
    if bool(pool) == bool(limit_id):
        raise InvalidArgument("pool", pool, "exactly one of pool and limit_id")
    pools = [spec.pools[index] for index in plan.pools]
    if pool and pool not in pools:
        raise InvalidArgument("pool", pool, one_of(pools))
    kinds = {limit.id: limit.kind for limit in plan.limits}
    if limit_id and limit_id not in kinds:
        raise InvalidArgument("limit_id", limit_id, one_of(kinds) if kinds else "none: the plan has no limits")
    if micro < 0 and kinds.get(limit_id) == WindowKind.BUCKET:
        raise InvalidArgument("micro", micro, f"above 0: {limit_id} is a bucket, which gives nothing back")


def factor_micro(factor: int | float | str | Fraction | Decimal) -> int:
    """Return a capacity factor in millionths, taken as it is written: 0.1 is a tenth. Raises InvalidArgument."""
    try:
        micro = Fraction(str(factor)) * MICRO
    except (ValueError, ZeroDivisionError):
        micro = Fraction(-1)
    if not 0 <= micro <= MICRO or micro.denominator != 1:
        raise InvalidArgument("factor", factor, "0 to 1, with at most 6 decimals")
    return micro.numerator


def one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(names)
