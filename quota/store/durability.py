"""How long an answer waits for the disk: `strict`, or `interval:50ms`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

INTERVAL_MS_MAX: Final = 60_000
ALLOWED: Final = f"strict, or interval:Nms with N from 1 to {INTERVAL_MS_MAX}"


@dataclass(frozen=True, slots=True)
class Durability:
    """`interval_ms` 0 is strict: an answer leaves after the commit that holds its charge.

    Otherwise answers leave at once, and wait only while the oldest unwritten change is that old.
    """

    interval_ms: int = 0

    @classmethod
    def parse(cls, text: str) -> Durability:
        """Read the setting's text. Raises ValueError."""
        if text == "strict":
            return cls()
        found = re.fullmatch(r"interval:\s*([0-9]{1,6})\s*ms", text)
        if found is None or not 1 <= int(found[1]) <= INTERVAL_MS_MAX:
            raise ValueError(text)
        return cls(int(found[1]))

    def __str__(self) -> str:
        return f"interval:{self.interval_ms}ms" if self.interval_ms else "strict"
