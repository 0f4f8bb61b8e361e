"""What stands in a store: its file's tables, checksums, and how a row of the journal packs what changed.

    snapshot   every account as it stood when its last journal row was folded in
    catalogs   those loaded at run time, as their YAML text
    audit      what was changed through the control port
    meta       format; key: the store's number, which rows of its journal carry; journal: number of its newest segment;
               folded: the last journal row in the snapshot; time_us: a time that has been; capacity_micro

Every row carries a checksum over its other columns. The journal lies beside the file (journal.py); a later row replaces an
earlier one. It has rows of accounts: for each account, little endian, u16 size of the id | id | u32 size of the blob | blob;
no blob: the account was purged. And notes, JSON: the table, and a row's columns without its checksum.

Format 2 has blobs of schema 2 beside those of schema 1 (core/blob.pxd). Formats 1 and 2 have the journal as a table
(earlier.py). A store becomes one of format 3 when a server is started on it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Final
from zlib import crc32

FORMAT: Final = 3
FILE: Final = "quotad.db"
PAGE_BYTES: Final = 4096  # what file systems and disks write whole
SCHEMA: Final = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE snapshot (id BLOB PRIMARY KEY, blob BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE catalogs (
        name TEXT PRIMARY KEY, yaml TEXT NOT NULL, version TEXT NOT NULL, loaded_at_us INTEGER NOT NULL,
        crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, details TEXT NOT NULL,
        crc INTEGER NOT NULL);
"""

REPAIR: Final = "`quotad repair` sets aside what is damaged and keeps the rest"  # ends what is said of damage

PUT_META: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?, ?)"
PUT_SNAPSHOT: Final = "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?)"
PUT_CATALOG: Final = "INSERT OR REPLACE INTO catalogs VALUES (?, ?, ?, ?, ?)"
PUT_AUDIT: Final = "INSERT OR REPLACE INTO audit VALUES (?, ?, ?, ?, ?, ?)"
PUT_NOTE: Final = {"meta": PUT_META, "catalogs": PUT_CATALOG, "audit": PUT_AUDIT}

Note = tuple[str, tuple[object, ...]]
"""A table of PUT_NOTE, and a row's columns without the checksum: integers and texts."""

_ID_SIZE: Final = struct.Struct("<H")
_BLOB_SIZE: Final = struct.Struct("<I")


def checksum(*columns: object) -> int:
    """Return the checksum of a row's other columns, in their order."""
    value = 0
    for column in columns:
        value = crc32(column if isinstance(column, bytes) else str(column).encode("utf-8", "surrogatepass"), value)
    return value


def checked(*columns: object) -> tuple[object, ...]:
    """Return a row to write: the columns and their checksum."""
    return (*columns, checksum(*columns))


def pack(id: bytes, blob: bytes) -> bytes:
    """Return one account as it stands in a packed row."""
    return b"".join((_ID_SIZE.pack(len(id)), id, _BLOB_SIZE.pack(len(blob)), blob))


def unpack(packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield id and blob of each account of a packed row. Raises ValueError if the sizes do not add up."""
    at, end = 0, len(packed)
    while at < end:
        if at + 2 > end:
            raise ValueError(f"cut off at byte {at}")
        id_at = at + 2
        size_at = id_at + _ID_SIZE.unpack_from(packed, at)[0]
        if size_at + 4 > end:
            raise ValueError(f"cut off at byte {at}")
        blob_at = size_at + 4
        at = blob_at + _BLOB_SIZE.unpack_from(packed, size_at)[0]
        if at > end:
            raise ValueError(f"cut off at byte {size_at}")
        yield packed[id_at:size_at], packed[blob_at:at]


def pack_note(note: Note) -> bytes:
    """Return a note as it stands in a row of the journal."""
    table, columns = note
    return json.dumps([table, *columns], ensure_ascii=False).encode()


def unpack_note(packed: bytes) -> Note:
    """Return the note of a row whose checksum is right."""
    table, *columns = json.loads(packed)
    return table, tuple(columns)
