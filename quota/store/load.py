"""What stands in the file, read and checked: it is all there and as it was written, or the start is refused."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from zlib import crc32

from quota.errors import CorruptRecord, StoreError
from quota.store.format import FORMAT, checksum, pack
from quota.store.shelf import Shelf

BATCH_BYTES: Final = 1_048_576  # handed to the ledger at once
PROGRESS_SECONDS: Final = 2.0
REPAIR: Final = "`quotad repair` sets aside what is damaged and keeps the rest"

logger = logging.getLogger(__name__)


class Restoring(Protocol):
    """The ledger, as far as it takes accounts in."""

    def restore(self, packed: bytes) -> int: ...
    @property
    def in_memory_count(self) -> int: ...
    def demote(self, count: int, now: int) -> int: ...


@dataclass(frozen=True, slots=True)
class StoredCatalog:
    """A catalog that was loaded at run time."""

    name: str
    yaml: str
    version: str
    loaded_at_us: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file knows beside accounts. `sequence` is the last journal row's number, `time_us` 0 in a new store."""

    format: int
    time_us: int
    capacity_micro: int | None
    folded: int
    sequence: int
    journal_bytes: int
    audit_sequence: int
    catalogs: tuple[StoredCatalog, ...]


def read_kept(database: sqlite3.Connection, file: Path) -> Kept:
    """Check all but the accounts. Raises StoreError naming file, table and row."""
    meta = {str(key): str(value) for key, value in _rows(database, file, "meta", "key")}
    version = meta.get("format", "")
    if not version.isdecimal():
        raise StoreError(f"{file}: has no format version; {REPAIR}")
    if int(version) > FORMAT:
        raise StoreError(
            f"{file}: is of format {version}, and this quotad knows formats up to {FORMAT}: use a newer one"
        )
    problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise StoreError(f"{file}: {' '.join(str(problem).split())}; {REPAIR}")
    # Not checked yet: each row is when it is restored, and nothing of this is acted on before.
    sequence, journal_bytes, at_us = database.execute(
        "SELECT coalesce(max(seq), 0), coalesce(sum(length(packed)), 0), coalesce(max(at_us), 0) FROM journal"
    ).fetchone()
    folded = int(meta["folded"])
    time_us = max(int(meta["time_us"]), int(at_us))
    audit_sequence = database.execute("SELECT coalesce(max(seq), 0) FROM audit").fetchone()[0]
    catalogs = tuple(
        StoredCatalog(str(name), str(yaml), str(version), int(str(loaded_at_us)))
        for name, yaml, version, loaded_at_us in _rows(database, file, "catalogs", "loaded_at_us, name")
    )
    capacity_micro = int(meta["capacity_micro"]) if "capacity_micro" in meta else None
    return Kept(
        int(version), time_us, capacity_micro, folded, max(folded, sequence), journal_bytes, audit_sequence, catalogs
    )


def restore(
    database: sqlite3.Connection, file: Path, kept: Kept, ledger: Restoring, shelf: Shelf | None, in_memory_max: int
) -> int:
    """Put every account of the snapshot and then of the journal into the ledger; how many entries there were.

    With a shelf no more than about `in_memory_max` accounts stay in memory.
    Raises StoreError naming file, table, and row or account.
    """
    count = 0
    began = told_at = time.monotonic()
    for sequence, packed in _batches(database, file, kept):
        place = f"journal row {sequence}" if sequence else "snapshot"
        try:
            count += ledger.restore(packed)
        except CorruptRecord as error:
            raise StoreError(f"{file}: {place}: {error}; {REPAIR}") from error
        if shelf is not None:
            if sequence:
                shelf.wrote(sequence, packed)
            ledger.demote(max(0, ledger.in_memory_count - in_memory_max), kept.time_us)
        now = time.monotonic()
        if now - told_at >= PROGRESS_SECONDS:
            told_at = now
            logger.info("store: %s records read, %s a second", f"{count:,}", f"{count / (now - began):,.0f}")
    seconds = time.monotonic() - began
    rate = f"{count / seconds:,.0f}" if count else "0"
    logger.info("store: %s: %s records read in %.1f s, %s a second", file, f"{count:,}", seconds, rate)
    return count


def _batches(database: sqlite3.Connection, file: Path, kept: Kept) -> Iterator[tuple[int, bytes]]:
    """Yield packed accounts, each with its journal row, 0 in the snapshot; a later one replaces an earlier one."""
    entries: list[bytes] = []
    size = 0
    for id, blob, crc in database.execute("SELECT id, blob, crc FROM snapshot"):
        if not isinstance(id, bytes) or not isinstance(blob, bytes) or crc != crc32(blob, crc32(id)):
            raise _changed(file, "snapshot", id)
        entries.append(pack(id, blob))
        size += len(entries[-1])
        if size >= BATCH_BYTES:
            yield 0, b"".join(entries)
            entries.clear()
            size = 0
    yield 0, b"".join(entries)
    expected = kept.folded
    for seq, at_us, packed, crc in database.execute("SELECT seq, at_us, packed, crc FROM journal ORDER BY seq"):
        expected += 1
        if seq != expected:
            raise StoreError(f"{file}: journal row {expected} is missing; {REPAIR}")
        if not isinstance(packed, bytes) or crc != crc32(packed, checksum(seq, at_us)):
            raise _changed(file, "journal", seq)
        yield seq, packed


def _rows(database: sqlite3.Connection, file: Path, table: str, order: str) -> list[tuple[object, ...]]:
    """Return a small table's rows without their checksums, which are right."""
    rows = database.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
    for row in rows:
        if row[-1] != checksum(*row[:-1]):
            raise _changed(file, table, row[0])
    return [row[:-1] for row in rows]


def _changed(file: Path, table: str, key: object) -> StoreError:
    shown = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key
    return StoreError(f"{file}: {table} {shown!r} has changed since it was written; {REPAIR}")
