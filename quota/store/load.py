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
from quota.store.format import FORMAT, PUT_NOTE, REPAIR, Note, checked, checksum, pack, unpack_note
from quota.store.journal import Journal
from quota.store.segment import Kind
from quota.store.shelf import Shelf

BATCH_BYTES: Final = 1_048_576  # handed to the ledger at once
PROGRESS_SECONDS: Final = 2.0

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
    """What a store knows beside accounts. `folded` is the last journal row in the snapshot, `time_us` 0 in a new store."""

    format: int
    time_us: int
    capacity_micro: int | None
    folded: int
    audit_sequence: int
    catalogs: tuple[StoredCatalog, ...]


def read_meta(database: sqlite3.Connection, file: Path) -> dict[str, str]:
    """Check format and structure, and return the meta table. Raises StoreError naming file, table and row."""
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
    return meta


def open_journal(database: sqlite3.Connection, file: Path, meta: dict[str, str], key: int) -> Journal:
    """Open the journal beside the file, and put what it notes into the tables, in case of a crash before that was done.

    `key` is the store's number if it has none. Raises StoreError naming segment or file, and row.
    """
    folded, _ = earlier.last_row(database, int(meta["folded"]))
    try:
        journal = Journal.open(file.parent, int(meta.get("key", key)), folded, int(meta.get("journal", 0)))
    except StoreError as error:
        raise StoreError(f"{error}; {REPAIR}") from error
    notes = [unpack_note(row.packed) for row in journal.rows(folded) if row.kind == Kind.NOTE]
    put_notes(database, notes)
    return journal


def put_notes(database: sqlite3.Connection, notes: list[Note]) -> None:
    """Put notes into their tables, all at once. Those that stand there already do no harm."""
    if notes:
        database.execute("BEGIN IMMEDIATE")
        for table, columns in notes:
            database.execute(PUT_NOTE[table], checked(*columns))
        database.execute("COMMIT")


def read_kept(database: sqlite3.Connection, file: Path, journal: Journal) -> Kept:
    """Read all but the accounts. Raises StoreError naming file, table and row."""
    meta = {str(key): str(value) for key, value in _rows(database, file, "meta", "key")}
    folded = int(meta["folded"])
    _, table_us = earlier.last_row(database, folded)
    last = journal.row(journal.sequence) if journal.sequence > journal.folded else None
    audit_sequence = database.execute("SELECT coalesce(max(seq), 0) FROM audit").fetchone()[0]
    catalogs = tuple(
        StoredCatalog(str(name), str(yaml), str(version), int(str(loaded_at_us)))
        for name, yaml, version, loaded_at_us in _rows(database, file, "catalogs", "loaded_at_us, name")
    )
    return Kept(
        int(meta["format"]),
        max(int(meta["time_us"]), table_us, last.at_us if last is not None else 0),
        int(meta["capacity_micro"]) if "capacity_micro" in meta else None,
        folded,
        audit_sequence,
        catalogs,
    )


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
