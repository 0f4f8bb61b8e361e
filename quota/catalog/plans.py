"""Plans: what a subscriber may draw, how fast, and how many calls at a time."""

from __future__ import annotations

from quota.catalog import bounds, units
from quota.catalog.document import Fields, Node
from quota.catalog.limits import read_burst, read_limit
from quota.catalog.model import Concurrency, Limit, Plan
from quota.catalog.scope import Scope

_OPTIONAL = ("level", "calls_per_prompt", "prompt_idle", "hold_default", "burst", "concurrency")
_PROMPT_IDLE = units.duration(bounds.SECOND_US, bounds.PROMPT_IDLE_US_MAX, "1s to 1d")
_PROMPT_IDLE_US_DEFAULT = 10 * bounds.MINUTE_US
_HOLD = units.duration(bounds.SECOND_US, bounds.HOLD_US_MAX, "1s to 1h; no such key for no hold")


def define_plans(node: Node, scope: Scope) -> list[tuple[str, Node]]:
    """Define the names under `plans`, which models and meters refer to; their content is read later."""
    entries = node.entries(bounds.PLANS_MAX, "a mapping of plan names")
    if node.is_mapping and not entries:
        node.fail("no plan is defined", "at least one")
    named = []
    for key, value in entries:
        name = key.read(units.name())
        if name is not None and scope.plans.define(key, name):
            named.append((name, value))
    return named


def read_plans(named: list[tuple[str, Node]], scope: Scope) -> tuple[Plan, ...]:
    """The plans in order of level; where it is left out, a plan's level is its place in the file."""
    plans = [_read_plan(name, place, node, scope) for place, (name, node) in enumerate(named, 1)]
    return tuple(sorted(plans, key=lambda plan: plan.level))


def _read_plan(name: str, place: int, node: Node, scope: Scope) -> Plan:
    fields = node.fields(("pools",), _OPTIONAL)
    pools, limits = _read_pools(fields, scope)
    limits += [(item, read_burst(item, pools, scope)) for item in _items(fields.node("burst"), bounds.LIMITS_MAX)]
    if len(limits) > bounds.LIMITS_MAX:
        node.fail(f"{len(limits)} limits and bursts", f"at most {bounds.LIMITS_MAX} in a plan")
    _check_ids(limits)
    prompt_idle = fields.value("prompt_idle", _PROMPT_IDLE)
    hold_default = fields.value("hold_default", _HOLD)
    return Plan(
        name=name,
        level=fields.value_or("level", units.whole(0, bounds.LEVEL_MAX), place),
        pools=pools,
        limits=tuple(limit for _, limit in limits if limit is not None),
        calls_per_prompt=fields.value("calls_per_prompt", units.whole(1, bounds.CALLS_PER_PROMPT_MAX)),
        prompt_idle_us=_PROMPT_IDLE_US_DEFAULT if prompt_idle is None else prompt_idle.length_us,
        hold_default_us=0 if hold_default is None else hold_default.length_us,
        concurrency=fields.part("concurrency", lambda part: _read_concurrency(part, scope)) or (),
    )


def _read_pools(fields: Fields, scope: Scope) -> tuple[tuple[str, ...], list[tuple[Node, Limit | None]]]:
    pools: list[str] = []
    limits: list[tuple[Node, Limit | None]] = []
    node = fields.node("pools")
    if node is None:
        return (), []
    for key, value in node.entries(bounds.POOLS_MAX, "a mapping of pools to lists of limits"):
        name = key.read(units.name())
        pool = None if name is None else scope.pools.resolve(key, name)
        if pool is None:
            continue
        pools.append(pool)
        items = value.items(bounds.LIMITS_MAX, "a list of limits; [] for a pool that is in the plan without any")
        limits += [(item, read_limit(item, pool, scope)) for item in items]
    return tuple(pools), limits


def _check_ids(limits: list[tuple[Node, Limit | None]]) -> None:
    lines: dict[str, int] = {}
    for node, limit in limits:
        if limit is None:
            continue
        if limit.id in lines:
            allowed = f"each once; it is on line {lines[limit.id]} too"
            node.fail(f"the limit id {limit.id!r} stands twice in this plan", allowed)
        lines.setdefault(limit.id, node.line)


def _items(node: Node | None, count_max: int) -> list[Node]:
    """A list's entries, or the one mapping that stands in its place."""
    if node is None:
        return []
    return node.items(count_max, "a mapping, or a list of them") if not node.is_mapping else [node]


def _read_concurrency(node: Node, scope: Scope) -> tuple[Concurrency, ...]:
    found = []
    for item in node.items(bounds.CONCURRENCY_MAX, "a list of entries such as {id: calls, limit: 4}"):
        fields = item.fields(("id", "limit"), ("models", "when"))
        entry_id = fields.value("id", units.name(bounds.LIMIT_ID_BYTES_MAX))
        limit = fields.value("limit", units.whole(1, bounds.IN_FLIGHT_MAX))
        models = fields.part("models", scope.models.match_all)
        when = fields.part("when", scope.schedules.find)
        if entry_id is not None:
            scope.check_kind(item, entry_id, "concurrency")
            if limit is not None:
                found.append(Concurrency(id=entry_id, limit=limit, models=models, when=when))
    return tuple(found)
