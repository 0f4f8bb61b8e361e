"""What goes into the oracle, what comes out, and what it remembers of an account."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from oracle.segments import FOREVER
from quota.catalog.model import Catalog, WindowKind
from quota.types import CatalogVersion, LimitState, Mode, VendorRefusal, Verdict

if TYPE_CHECKING:
    from oracle.admissions import Admission
    from oracle.prompts import Prompt

MICRO = 1_000_000
UNITS_MAX = 10**12
HOLD_MS_MAX = 3_600_000

Slot = tuple[str, WindowKind]
"""Under which an account's use of a limit is kept, whatever the plan or catalog says now."""


@dataclass(frozen=True)
class Ask:
    """One request, as plain values."""

    account: str
    model: str = ""
    tool: str = ""
    endpoint: str = ""
    draws: Mapping[str, int] | None = None
    explain: bool = False
    mode: Mode = Mode.ENFORCE
    request_id: str = ""
    prompt_id: str = ""
    hold_ms: int = 0
    client: str = ""


@dataclass(frozen=True)
class Invalid:
    """A field is out of its range."""

    field: str


@dataclass(frozen=True)
class Conflict:
    """The same id was used with other content."""


@dataclass(frozen=True)
class Unknown:
    """No such account, or the id is not remembered (any more)."""


@dataclass(frozen=True)
class Ended:
    """The hold has ended, or there was none."""


Wrong = Invalid | Conflict | Unknown | Ended
"""In the place of an answer: nothing was decided and nothing changed."""


class Unsuitable(Exception):
    """A plan in use would vanish."""


@dataclass
class Refused(Exception):
    verdict: Verdict
    rule: str
    meter: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The fields of a Decision."""

    verdict: Verdict
    model: str = ""
    rule: str = ""
    charged: Mapping[str, int] = field(default_factory=dict)
    weight_micro: int = 0
    retry_after_ms: int | None = None
    resets_at_ms: int | None = None
    limits: tuple[LimitState, ...] = ()
    hold_expires_at_ms: int | None = None
    catalog: CatalogVersion | None = None
    vendor: VendorRefusal | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOWED


@dataclass(frozen=True)
class Record:
    """All that an account's requests have left behind."""

    last_seen: int = -FOREVER
    slots: Mapping[Slot, Any] = field(default_factory=dict)
    """The state of each window that was ever drawn on."""
    admissions: tuple[Admission, ...] = ()
    """Those not forgotten, the earliest first. Some may be past being remembered."""
    prompts: tuple[Prompt, ...] = ()
    """Those not forgotten, the earliest opened first. Some may have ended."""
    prompts_opened: int = 0
    forgotten_ids: int = 0
    forgotten_prompts: int = 0


@dataclass(frozen=True)
class Subscriber:
    catalog: str
    plan: str
    subscribed_at: int
    expires_at: int
    overrides: Mapping[str, int] = field(default_factory=dict)
    record: Record = Record()


@dataclass(frozen=True)
class Version:
    """A catalog as loaded."""

    catalog: Catalog
    name: CatalogVersion | None


def ceil_ms(us: int | Fraction) -> int:
    return math.ceil(Fraction(us) / 1000)
