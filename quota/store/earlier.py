"""Formats 1 and 2, whose journal is a table of the file: read as it stands, and made a store of today's format."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zlib import crc32

from quota.errors import StoreError
from quota.store.fold import put_snapshot
from quota.store.format import FORMAT, PUT_META, REPAIR, SCHEMA, checked, checksum, unpack

_AFTER: Final = "crc INTEGER NOT NULL) WITHOUT ROWID;\n"
EARLIER_SCHEMA: Final = SCHEMA.replace(
    _AFTER,
    _AFTER
    + """    CREATE TABLE journal (
        seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, packed BLOB NOT NULL, crc INTEGER NOT NULL);
""",
    1,
)


def last_row(database: sqlite3.Connection, folded: int) -> tuple[int, int]:
    """Return number and time, in microseconds, of the last row of the table, `folded` and 0 if there is none."""
    if not has_table(database):
        return folded, 0
    seq, at_us = database.execute("SELECT coalesce(max(seq), 0), coalesce(max(at_us), 0) FROM journal").fetchone()
    return max(folded, int(seq)), int(at_us)


def rows(database: sqlite3.Connection, file: Path, folded: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and packed accounts of each row of the table. Raises StoreError if one is missing or has changed."""
    if not has_table(database):
        return
    expected = folded
    for seq, at_us, packed, crc in database.execute("SELECT seq, at_us, packed, crc FROM journal ORDER BY seq"):
        expected += 1
        if seq != expected:
            raise StoreError(f"{file}: journal row {expected} is missing; {REPAIR}")
        if not isinstance(packed, bytes) or crc != crc32(packed, checksum(seq, at_us)):
            raise StoreError(f"{file}: journal {seq} has changed since it was written; {REPAIR}")
        yield seq, packed


def bring_up(database: sqlite3.Connection, file: Path, folded: int, key: int) -> None:
    """Fold the table into the snapshot and do without it, all at once. `key` becomes the store's number."""
    accounts: dict[bytes, bytes] = {}
    last, _ = last_row(database, folded)
    for _, packed in rows(database, file, folded):
        accounts.update(unpack(packed))
    put_snapshot(database, accounts)
    database.execute("DROP TABLE journal")
    for name, value in (("folded", last), ("key", key), ("format", FORMAT)):
        database.execute(PUT_META, checked(name, str(value)))
    database.execute("COMMIT")


def has_table(database: sqlite3.Connection) -> bool:
    """Whether the file is of an earlier format."""
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'journal'").fetchone() is not None
