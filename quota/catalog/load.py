"""From a file's text to a `Catalog`: all of it checked, every problem found at once.

`parse` is pure. Names are defined before they are referred to, whatever the order of the file: zone, schedules,
endpoints and tools, the names of the plans, meters with their pools, models, and last what is in the plans.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from quota.catalog import bounds, units
from quota.catalog.document import Fields, Node, Problems, compose, near
from quota.catalog.meters import read_meters, read_models, read_tools
from quota.catalog.model import Catalog, Meter
from quota.catalog.names import Names
from quota.catalog.plans import define_plans, read_plans
from quota.catalog.refusal import generic_refusals, read_refusals
from quota.catalog.schedule import read_schedules
from quota.catalog.scope import Scope
from quota.catalog.zone import find_zone
from quota.errors import CatalogError

SHIPPED: tuple[str, ...] = ("glm-2025", "glm-2026", "zai-2025")
_SHIPPED_DIR = Path(__file__).parent / "shipped"
_REQUIRED = ("catalog", "meters", "plans")
_OPTIONAL = ("time_zone", "default_meter", "schedules", "models", "endpoints", "tools", "refusals")


def load(source: str | Path) -> Catalog:
    """The catalog of a shipped name or of a file (UTF-8, at most 256 KiB). Raises CatalogError with all that is wrong."""
    path = _SHIPPED_DIR / f"{source}.yaml" if source in SHIPPED else Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(bounds.FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        allowed = f"the path of a file, or a shipped catalog: {', '.join(SHIPPED)}"
        raise CatalogError([f"{source}: {reason}{near(str(source), SHIPPED)}; allowed: {allowed}"]) from error
    try:
        return parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8: the byte 0x{content[error.start]:02x}"
        raise CatalogError([f"{path}:{line}: {what}; allowed: UTF-8"]) from error


def parse(text: str, file: str = "<text>") -> Catalog:
    """The catalog in a text; `file` names it in messages. Raises CatalogError with everything wrong in it."""
    problems = Problems(file)
    root = compose(text, problems)
    fields = root.fields(_REQUIRED, _OPTIONAL)
    name = fields.value_or("catalog", units.name(), "")
    zone = fields.value_or("time_zone", find_zone, find_zone("UTC"))
    scope = Scope(
        zone=zone,
        refusals=fields.part("refusals", read_refusals) or generic_refusals(),
        tools=Names("tool", folded=True, is_open="tools" not in fields),
        endpoints=Names("endpoint", reader=units.endpoint, is_open="endpoints" not in fields),
    )
    schedules = fields.part("schedules", lambda node: read_schedules(node, scope.schedules)) or ()
    endpoints = fields.part("endpoints", lambda node: _read_endpoints(node, scope.endpoints))
    tools = fields.part("tools", lambda node: read_tools(node, scope))
    named_plans = fields.part("plans", lambda node: define_plans(node, scope)) or []
    meters = fields.part("meters", lambda node: read_meters(node, scope)) or ()
    default_meter = _read_default_meter(root, fields, meters, scope)
    models = fields.part("models", lambda node: read_models(node, scope)) or ()
    plans = read_plans(named_plans, scope)
    problems.raise_any()
    return Catalog(
        name=name,
        time_zone=zone.name,
        pools=tuple(scope.pools),
        meters=meters,
        default_meter=default_meter,
        schedules=schedules,
        models=models,
        tools=tools,
        endpoints=endpoints,
        plans=plans,
        refusals=scope.refusals,
        content_hash=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12],
        warnings=problems.warnings(),
    )


def _read_endpoints(node: Node, endpoints: Names) -> tuple[str, ...]:
    for item in node.items(bounds.ENDPOINTS_MAX, "a list of endpoints"):
        endpoint = item.read(units.endpoint)
        if endpoint is not None:
            endpoints.define(item, endpoint)
    return tuple(endpoints)


def _read_default_meter(root: Node, fields: Fields, meters: tuple[Meter, ...], scope: Scope) -> str:
    """The meter of a request that draws nothing by name. It may be left out only where there is one meter."""
    if "default_meter" in fields:
        return fields.part("default_meter", scope.meters.find) or ""
    if len(meters) > 1:
        root.fail("the key 'default_meter' is missing", f"one of the meters: {', '.join(scope.meters)}")
    return meters[0].name if meters else ""
