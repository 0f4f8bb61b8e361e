"""The words of the interface: verdicts, modes, and the plain values that answers are made of.

Names and numbers are those of `proto/quota/v1/quota.proto`; a test compares them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Verdict(enum.IntEnum):
    """Yes, or why not. When several refusals apply the first in this order is given."""

    UNSPECIFIED = 0  # never sent: an empty message must not mean yes
    ALLOWED = 1
    ACCOUNT_UNKNOWN = 2
    ACCOUNT_INACTIVE = 3
    ACCOUNT_BANNED = 4
    ACCOUNT_SUSPENDED = 5
    SUBSCRIPTION_EXPIRED = 6
    TOOL_UNSUPPORTED = 7
    ENDPOINT_UNSUPPORTED = 8
    MODEL_UNKNOWN = 9
    MODEL_NOT_IN_PLAN = 10
    METER_NOT_IN_PLAN = 11
    ACCOUNT_RESTRICTED = 12
    AMOUNT_TOO_LARGE = 13
    LIMIT_EXHAUSTED = 14
    BURST = 15
    CONCURRENCY = 16
    OVERLOADED = 17


class Mode(enum.IntEnum):
    """ENFORCE refuses what does not fit; RECORD charges use that already happened."""

    ENFORCE = 0
    RECORD = 1


class Outcome(enum.IntEnum):
    """How a request that was admitted ended."""

    UNSPECIFIED = 0  # refused: an empty message neither commits nor cancels
    COMMIT = 1
    CANCEL = 2


@dataclass(frozen=True, slots=True)
class CatalogVersion:
    """Which catalog decided: its name, and a version that changes with every load."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class VendorRefusal:
    """A refusal in the words of the vendor whose plan this is."""

    code: str
    http_status: int
    message: str


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit as it stands for one account. Amounts in micro-units (1 unit = 1,000,000), times in Unix ms."""

    id: str
    pool: str
    window: str
    """The window in words: `sliding 5h`, `anniversary 1mo`, `bucket 10/1m`."""
    limit_micro: int
    used_micro: int
    remaining_micro: int
    """What is left; never below 0."""
    percent: int
    """Used, in whole percent, rounded down; over 100 in debt."""
    resets_at_ms: int | None
    """End of the running period, or when the next unit comes back; None where nothing is drawn."""
    full_at_ms: int | None
    """When everything is back; None where nothing is drawn."""


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A request in flight. Times in Unix ms."""

    request_id: str
    model: str
    """Canonical name; empty if none was named."""
    admitted_at_ms: int
    expires_at_ms: int
    """When it closes by itself, rounded up."""
    charged: Mapping[str, int]
    """Pool to micro-units, as they were charged at admission."""


@dataclass(frozen=True, slots=True)
class ConcurrencyState:
    """One concurrency limit as it stands for one account."""

    id: str
    limit: int
    """Requests that may be in flight now: by schedule, override and the platform's capacity."""
    in_flight: int
    """Open holds that count; may be above a limit that was lowered."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How an account stands now: every limit of its plan, and what is in flight."""

    account: str
    catalog: CatalogVersion
    plan: str
    limits: tuple[LimitState, ...]
    holds: tuple[OpenHold, ...] = ()
    """The oldest first."""
    concurrency: tuple[ConcurrencyState, ...] = ()
    """Those limited now, in the catalog's order."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a settlement moved, by pool, in micro-units above 0."""

    charged: Mapping[str, int]
    """On top, now, even past a limit."""
    refunded: Mapping[str, int]
    """The most that any of the pool's limits got back."""
    late: bool
    """The hold had closed by itself, or there was none."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What support moved by hand, and how the limits stand after it."""

    moved: Mapping[str, int]
    """Limit id to micro-units: above 0 taken, below 0 given back."""
    limits: tuple[LimitState, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one account may have open or remembered at once."""

    hold_ms_max: int = 3_600_000
    """Clients wait up to 50 minutes on one call; a gateway that lives renews."""
    holds_max: int = 1_024
    """Open holds never drop out, so a plan without concurrency limits needs a bound of its own."""
    request_ids_max: int = 256
    """Ids remembered beside the open holds."""
    prompts_max: int = 64
    """Open prompts; past it the least recently used is forgotten, and its next call pays anew."""


@dataclass(frozen=True, slots=True)
class Account:
    """A subscriber. Times in Unix ms; `expires_at_ms` 0 means that the subscription has no end."""

    id: str
    catalog: str
    plan: str
    subscribed_at_ms: int
    period: str
    expires_at_ms: int
    overrides: Mapping[str, int] = field(default_factory=dict)
    """Limit id to whole units, in place of the plan's."""


PERIODS = ("month", "quarter", "year")
