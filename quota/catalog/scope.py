"""What the earlier parts of a file have defined, for its later parts to refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quota.catalog.document import Node
from quota.catalog.model import Refusal
from quota.catalog.names import ModelNames, Names
from quota.catalog.zone import Zone


@dataclass(slots=True)
class Scope:
    zone: Zone
    refusals: Mapping[str, Refusal]
    tools: Names
    endpoints: Names
    plans: Names = field(default_factory=lambda: Names("plan"))
    pools: Names = field(default_factory=lambda: Names("pool"))
    meters: Names = field(default_factory=lambda: Names("meter"))
    meters_by_pool: dict[str, list[str]] = field(default_factory=dict)
    schedules: Names = field(default_factory=lambda: Names("schedule"))
    models: ModelNames = field(default_factory=ModelNames)
    kinds: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Limit id -> the kind it was first used for, and where."""

    def check_kind(self, node: Node, limit_id: str, kind: str) -> None:
        """A limit's usage is kept under its id and kind, so within a catalog an id stands for one kind."""
        first_kind, line = self.kinds.setdefault(limit_id, (kind, node.line))
        if first_kind != kind:
            what = f"the id {limit_id!r} is used for two kinds: {kind}, and {first_kind} on line {line}"
            node.fail(what, "one kind for each id of a catalog")
