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
from quota.store import earlier
from quota.store.format import FORMAT, PUT_NOTE, REPAIR, checked, checksum, pack, unpack_note
from quota.store.journal import Journal
from quota.store.segment import Kind
from quota.store.shelf import Shelf

BATCH_BYTES: Final = 1_048_576  # handed to the ledger at once
PROGRESS_SECONDS: Final = 2.0

logger = logging.getLogger(__name__)


class Restoring(Protocol):
    """The ledger, as far as it takes accounts in."""

    def restore(
    database: sqlite3.Connection,
    file: Path,
    kept: Kept,
    journal: Journal,
    ledger: Restoring,
    shelf: Shelf | None,
    in_memory_max: int,
) -> int:
    """Put every account of the snapshot and then of the journal into the ledger; how many entries there were.

    With a shelf, which knows no rows of earlier formats, no more than about `in_memory_max` accounts stay in memory.
    Raises StoreError naming file, table, and row or account.
    """
    count = 0
    began = told_at = time.monotonic()
    for sequence, packed in _batches(database, file, kept, journal):
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


def _batches(database: sqlite3.Connection, file: Path, kept: Kept, journal: Journal) -> Iterator[tuple[int, bytes]]:
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
    yield from earlier.rows(database, file, kept.folded)
    for row in journal.rows(journal.folded):
        if row.kind == Kind.ACCOUNTS:
            yield row.seq, row.packed


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
