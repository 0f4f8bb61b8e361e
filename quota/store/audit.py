"""The audit log, read page by page while the server goes on writing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quota.errors import StoreError
from quota.store.format import checksum
from quota.store.read import reading


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change made through the control port. `details` is JSON."""

    number: int
    at_ms: int
    who: str
    what: str
    details: str


def audit_page(file: Path, before: int, count: int) -> list[AuditEntry]:
    """Return the latest entries with numbers below `before`, the latest first. Raises StoreError."""
    with reading(file) as database:
        rows = database.execute(
            "SELECT * FROM audit WHERE seq < ? ORDER BY seq DESC LIMIT ?", (before, count)
        ).fetchall()
    for row in rows:
        if row[-1] != checksum(*row[:-1]):
            raise StoreError(f"{file}: audit entry {row[0]} has changed since it was written")
    return [AuditEntry(seq, at_us // 1000, who, what, details) for seq, at_us, who, what, details, _ in rows]
