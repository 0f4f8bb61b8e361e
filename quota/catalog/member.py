"""What holds for a plan, or for a time: `plans:` of models and meters, `from:` and `until:` of weights."""

from __future__ import annotations

from quota.catalog import bounds, units
from quota.catalog.document import Fields, Node
from quota.catalog.model import Membership
from quota.catalog.names import Names
from quota.catalog.zone import Zone


def read_members(node: Node, plans: Names, zone: Zone) -> tuple[Membership, ...]:
    """A list of plan names and of `{plan: lite, from: 2026-06-01, until: 2026-07-01}`; an empty one means no plan."""
    members: list[Membership] = []
    for item in node.items(bounds.REFERENCES_MAX, "a list of plans"):
        member = _read_member(item, plans, zone)
        if member is not None and member in members:
            item.fail(f"the plan {member.plan!r} stands twice", "each once, or with different dates")
        elif member is not None:
            members.append(member)
    return tuple(members)


def _read_member(node: Node, plans: Names, zone: Zone) -> Membership | None:
    if node.is_scalar:
        plan = plans.find(node)
        return None if plan is None else Membership(plan)
    fields = node.fields(("plan",), ("from", "until"))
    plan = fields.part("plan", plans.find)
    from_us, until_us = read_dates(fields, zone)
    return None if plan is None else Membership(plan, from_us, until_us)


def read_dates(fields: Fields, zone: Zone) -> tuple[int | None, int | None]:
    """The keys `from` and `until` as moments; None where they are left out."""
    from_local_us = fields.value("from", units.moment)
    until_local_us = fields.value("until", units.moment)
    from_us = None if from_local_us is None else zone.instant_us(from_local_us)
    until_us = None if until_local_us is None else zone.instant_us(until_local_us)
    if from_us is not None and until_us is not None and from_us >= until_us:
        fields.fail("until", "not after 'from'", "a later moment; 'until' is excluded")
    return from_us, until_us
