"""The words of the interface: verdicts, modes, and the plain values that answers are made of.

Names and numbers are those of `proto/quota/v1/quota.proto`; a test compares them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
class Usage:
    """Every limit of an account's plan as it stands now."""

    account: str
    catalog: CatalogVersion
    plan: str
    limits: tuple[LimitState, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """A subscriber. Times in Unix ms; `expires_at_ms` 0 means that the subscription has no end."""

    id: str
    catalog: str
    plan: str
    subscribed_at_ms: int
    period: str
    expires_at_ms: int


PERIODS = ("month", "quarter", "year")
