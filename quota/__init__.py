"""quotad: the quota daemon for coding plans, and the same engine in process."""

from __future__ import annotations

from quota._core import Decision, Request
from quota.engine import CatalogInfo, Engine
from quota.errors import AlreadyExists, CatalogError, FailedPrecondition, InvalidArgument, NotFound, QuotaError
from quota.types import (
    Account,
    Adjustment,
    Bounds,
    CatalogVersion,
    ConcurrencyState,
    LimitState,
    Mode,
    OpenHold,
    Outcome,
    Settlement,
    Usage,
    VendorRefusal,
    Verdict,
)
from quota.version import VERSION as __version__

__all__ = [
    "Account",
    "Adjustment",
    "AlreadyExists",
    "Bounds",
    "CatalogError",
    "CatalogInfo",
    "CatalogVersion",
    "ConcurrencyState",
    "Decision",
    "Engine",
    "FailedPrecondition",
    "InvalidArgument",
    "LimitState",
    "Mode",
    "NotFound",
    "OpenHold",
    "Outcome",
    "QuotaError",
    "Request",
    "Settlement",
    "Usage",
    "VendorRefusal",
    "Verdict",
    "__version__",
]
