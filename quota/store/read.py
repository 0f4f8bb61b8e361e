"""Looking into a store's file beside whoever writes it, or when nobody does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from quota.errors import StoreError
from quota.store.format import FORMAT, checksum


@contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a file to read, and see it as it is at the first look until the end. Raises StoreError."""
    try:
        uri = f"file:{quote(str(file))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)) as database:
            database.execute("BEGIN")
            yield database
    except sqlite3.Error as error:
        raise StoreError(f"{file}: cannot be read: {error}") from error


def check_format(file: Path, database: sqlite3.Connection) -> None:
    """Raise StoreError, naming the file, unless it is a store of a format that this version reads."""
    try:
        row = database.execute("SELECT key, value, crc FROM meta WHERE key = 'format'").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{file}: not a store of quotad: {error}") from error
    if row is None or row[2] != checksum(*row[:2]) or not row[1].isdigit():
        raise StoreError(f"{file}: not a store of quotad, or its format is damaged")
    if int(row[1]) > FORMAT:
        raise StoreError(f"{file}: of format {row[1]}, written by a later quotad; this one reads up to {FORMAT}")
