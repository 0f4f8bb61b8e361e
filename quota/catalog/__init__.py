"""Catalogs: what a vendor sells, from a YAML file to the core's rules.

`load` and `parse` make a checked and frozen `Catalog`, or raise one CatalogError that names every problem with its
line; `compile_catalog` makes of it the `CatalogSpec` from which `quota._core.Rules` is built.
"""

from __future__ import annotations

from quota.catalog.compile import compile_catalog
from quota.catalog.load import SHIPPED, load, parse
from quota.catalog.model import (
    Catalog,
    Concurrency,
    DailySpan,
    Limit,
    Membership,
    Meter,
    Model,
    Plan,
    Refusal,
    Schedule,
    Span,
    Tool,
    Weight,
    Window,
    WindowKind,
)
from quota.catalog.spec import FOREVER_US, CatalogSpec

__all__ = [
    "FOREVER_US",
    "SHIPPED",
    "Catalog",
    "CatalogSpec",
    "Concurrency",
    "DailySpan",
    "Limit",
    "Membership",
    "Meter",
    "Model",
    "Plan",
    "Refusal",
    "Schedule",
    "Span",
    "Tool",
    "Weight",
    "Window",
    "WindowKind",
    "compile_catalog",
    "load",
    "parse",
]
