"""Meters and models: what is counted, and by what it is multiplied."""

from __future__ import annotations

from fractions import Fraction

from quota.catalog import bounds, units
from quota.catalog.document import Fields, Node
from quota.catalog.member import read_dates, read_members
from quota.catalog.model import Meter, Model, Tool, Weight
from quota.catalog.scope import Scope


def read_meters(node: Node, scope: Scope) -> tuple[Meter, ...]:
    """The mapping under `meters`; defines meters and pools."""
    meters = []
    entries = node.entries(bounds.METERS_MAX, "a mapping of meter names to {pool: ...}")
    if node.is_mapping and not entries:
        node.fail("no meter is defined", "at least one")
    for key, value in entries:
        name = key.read(units.name())
        if name is None or not scope.meters.define(key, name):
            continue
        fields = value.fields(("pool",), ("per_unit", "weighted", "per_prompt", "plans"))
        pools = fields.part("pool", _read_pools) or ()
        for pool in pools:
            if pool not in scope.meters_by_pool:
                scope.pools.define(value, pool)
            scope.meters_by_pool.setdefault(pool, []).append(name)
        meters.append(
            Meter(
                name=name,
                pools=pools,
                per_unit=fields.value_or("per_unit", units.per_unit, Fraction(1)),
                weighted=fields.value_or("weighted", units.boolean, False),
                per_prompt=fields.value_or("per_prompt", units.boolean, False),
                plans=fields.part("plans", lambda plans: read_members(plans, scope.plans, scope.zone)),
            )
        )
    if len(scope.pools) > bounds.POOLS_MAX:
        node.fail(f"the meters name {len(scope.pools)} pools", f"at most {bounds.POOLS_MAX}")
    folded = dict.fromkeys(pool for meter in meters if meter.per_prompt for pool in meter.pools)
    if len(folded) > bounds.PROMPT_POOLS_MAX:
        node.fail(f"meters that are per_prompt feed {len(folded)} pools", f"at most {bounds.PROMPT_POOLS_MAX}")
    return tuple(meters)


def _read_pools(node: Node) -> tuple[str, ...] | None:
    if node.is_scalar:
        name = node.read(units.name())
        return None if name is None else (name,)
    pools: list[str] = []
    items = node.items(bounds.POOLS_MAX, "a pool, or a list of pools")
    if node.is_list and not items:
        node.fail("the list is empty", "at least one pool")
    for item in items:
        name = item.read(units.name())
        if name in pools:
            item.fail(f"the pool {name!r} stands twice", "each once")
        elif name is not None:
            pools.append(name)
    return tuple(pools)


def read_tools(node: Node, scope: Scope) -> tuple[Tool, ...]:
    """The list under `tools`: names, or `{name: x, endpoints: [...]}`; defines them."""
    tools = []
    for item in node.items(bounds.TOOLS_MAX, "a list of tools"):
        if item.is_scalar:
            name, endpoints = item.read(units.name()), None
        else:
            fields = item.fields(("name",), ("endpoints",))
            name = fields.value("name", units.name())
            endpoints = fields.part("endpoints", scope.endpoints.find_all)
        if name is not None and scope.tools.define(item, name):
            tools.append(Tool(name, endpoints))
    return tuple(tools)


def read_models(node: Node, scope: Scope) -> tuple[Model, ...]:
    """The mapping under `models`; defines models, aliases and patterns."""
    named = []
    for key, value in node.entries(bounds.MODELS_MAX, "a mapping of model names"):
        name = key.read(units.name())
        if name is not None and scope.models.define(key, name):
            named.append((name, value))
    return tuple(_read_model(name, value, scope) for name, value in named)


def _read_model(name: str, node: Node, scope: Scope) -> Model:
    fields = Fields({}) if node.is_empty else node.fields((), ("aliases", "plans", "weights"))
    return Model(
        name=name,
        aliases=fields.part("aliases", lambda aliases: _read_aliases(name, aliases, scope)) or (),
        plans=fields.part("plans", lambda plans: read_members(plans, scope.plans, scope.zone)),
        weights=fields.part("weights", lambda weights: _read_weights(weights, scope)) or (),
    )


def _read_aliases(model: str, node: Node, scope: Scope) -> tuple[str, ...]:
    aliases = []
    for item in node.items(bounds.ALIASES_MAX, "a list of names, or of beginnings followed by '*'"):
        alias = item.read(units.name())
        if alias is not None and scope.models.claim(item, alias, model):
            aliases.append(alias)
    return tuple(aliases)


def _read_weights(node: Node, scope: Scope) -> tuple[Weight, ...]:
    weights: list[Weight] = []
    always_line = 0
    for item in node.items(bounds.WEIGHTS_MAX, "a list of entries such as {when: peak, weight: 3}"):
        weight = _read_weight(item, scope)
        if weight is None:
            continue
        if always_line:
            item.warn(f"never holds: the entry on line {always_line} always does, and the first that matches counts")
        elif weight == Weight(weight.value):
            always_line = item.line
        weights.append(weight)
    return tuple(weights)


def _read_weight(node: Node, scope: Scope) -> Weight | None:
    fields = node.fields(("weight",), ("when", "tool", "tools", "from", "until"))
    value = fields.value("weight", units.weight)
    when = fields.part("when", scope.schedules.find)
    tool = fields.part("tool", scope.tools.find)
    tools = fields.part("tools", scope.tools.find_all)
    if "tool" in fields and "tools" in fields:
        fields.fail("tools", "'tool' and 'tools' together", "one of the two")
    from_us, until_us = read_dates(fields, scope.zone)
    if value is None:
        return None
    return Weight(value, when, tools if tool is None else (tool,), from_us, until_us)
