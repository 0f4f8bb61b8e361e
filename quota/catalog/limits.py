"""Limits and bursts of a plan."""

from __future__ import annotations

from quota.catalog import bounds, units
from quota.catalog.document import Fields, Node
from quota.catalog.model import Limit, Window, WindowKind
from quota.catalog.refusal import read_refusal
from quota.catalog.scope import Scope
from quota.catalog.window import read_window

_NARROWING = ("models", "tools", "meters")
_LIMIT_ID = units.name(bounds.LIMIT_ID_BYTES_MAX)
_LATENESS_PERCENT_MAX = 10
_ENTRIES_PUNCTUAL = 2 + 200 // _LATENESS_PERCENT_MAX


def read_limit(node: Node, pool: str, scope: Scope) -> Limit | None:
    """One entry of a pool's list. None where it lacks what a limit cannot be without."""
    fields = node.fields(("id", "window", "limit"), (*_NARROWING, "entries", "refusal"))
    limit_id = fields.value("id", _LIMIT_ID)
    window = fields.part("window", read_window)
    limit_micro = fields.value("limit", units.amount_micro)
    entries = _read_entries(node, fields, window)
    models, tools, meters = _read_narrowing(fields, pool, scope)
    refusal = fields.part("refusal", lambda part: read_refusal(part, scope.refusals["LIMIT_EXHAUSTED"]))
    if limit_id is not None and window is not None:
        scope.check_kind(node, limit_id, window.kind.name.lower())
    if limit_id is None or window is None or limit_micro is None:
        return None
    return Limit(
        id=limit_id,
        pool=pool,
        window=window,
        limit_micro=limit_micro,
        models=models,
        tools=tools,
        meters=meters,
        entries=entries,
        refusal=refusal,
    )


def read_burst(node: Node, pools: tuple[str, ...], scope: Scope) -> Limit | None:
    """A plan's `burst`, or one of them: a token bucket over one of the plan's pools."""
    fields = node.fields(("id", "pool", "rate", "depth"), (*_NARROWING, "refusal"))
    limit_id = fields.value("id", _LIMIT_ID)
    pool = fields.part("pool", scope.pools.find)
    rate = fields.value("rate", units.rate)
    depth_micro = fields.value("depth", units.amount_micro)
    models, tools, meters = _read_narrowing(fields, pool, scope)
    refusal = fields.part("refusal", lambda part: read_refusal(part, scope.refusals["BURST"]))
    if pool is not None and pool not in pools:
        fields.fail("pool", f"the pool {pool!r} is not in this plan", ", ".join(pools) or "none is in the plan")
    if limit_id is not None:
        scope.check_kind(node, limit_id, "burst")
    if limit_id is None or pool is None or rate is None or depth_micro is None:
        return None
    rate_micro, span = rate
    if depth_micro * span.length_us > rate_micro * bounds.WINDOW_US_MAX:
        fields.fail("depth", "takes more than 366 days to drain at this rate", "a lower depth or a higher rate")
    return Limit(
        id=limit_id,
        pool=pool,
        window=Window(kind=WindowKind.BUCKET, length=span, rate_micro=rate_micro),
        limit_micro=depth_micro,
        models=models,
        tools=tools,
        meters=meters,
        refusal=refusal,
    )


def _read_narrowing(
    fields: Fields, pool: str | None, scope: Scope
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, tuple[str, ...] | None]:
    models = fields.part("models", scope.models.match_all)
    tools = fields.part("tools", scope.tools.find_all)
    meters = fields.part("meters", scope.meters.find_all)
    feeding = scope.meters_by_pool.get(pool or "", [])
    for meter in meters or ():
        if pool is not None and meter not in feeding:
            fields.fail("meters", f"the meter {meter!r} does not draw from the pool {pool!r}", ", ".join(feeding))
    return models, tools, meters


def _read_entries(node: Node, fields: Fields, window: Window | None) -> int:
    """How many entries the log of a sliding window may have; a stepped one needs one more than it has steps."""
    least = bounds.ENTRIES_MIN
    if window is not None and window.step_us:
        least = max(least, window.length.length_us // window.step_us + 1)
    entries = fields.value_or("entries", units.whole(least, bounds.ENTRIES_MAX), max(least, bounds.ENTRIES_DEFAULT))
    if window is not None and window.kind is not WindowKind.SLIDING and "entries" in fields:
        fields.fail("entries", f"a {window.kind.name.lower()} window has no entries", "'entries' with sliding alone")
    if window is not None and window.kind is WindowKind.SLIDING and not window.step_us:
        _warn_of_lateness(node, window, entries)
    return entries


def _warn_of_lateness(node: Node, window: Window, entries: int) -> None:
    # Past `entries` live charges the log merges neighbours, and a unit comes back up to 2W/(M-2) late.
    late_us = 2 * window.length.length_us // (entries - 2)
    if late_us * 100 > window.length.length_us * _LATENESS_PERCENT_MAX:
        node.warn(
            f"with {entries} entries a unit may come back up to {late_us // bounds.SECOND_US} s late, "
            f"{-(-200 // (entries - 2))} % of {window.length}; {_ENTRIES_PUNCTUAL} entries keep it within "
            f"{_LATENESS_PERCENT_MAX} %"
        )
