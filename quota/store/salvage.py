"""Getting out of a damaged SQLite file what SQLite would not give by itself."""

from __future__ import annotations

import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from quota.errors import StoreError
from quota.store.format import PAGE_BYTES
from quota.store.wal import FRAME_HEADER_BYTES, HEADER_BYTES, MAGIC, check_log, sums

Row = tuple[Any, ...]

FILE_HEADER: Final = b"SQLite format 3\0" + struct.pack(">HBBBBBB", PAGE_BYTES, 2, 2, 0, 64, 32, 32)
"""How every file of ours begins: a write-ahead log, no reserved bytes, and what is the same in all files."""
KEYS: Final = {"meta": "key", "journal": "seq", "snapshot": "id", "catalogs": "name", "audit": "seq"}
BOUNDS: Final[dict[str, tuple[Any, Any]]] = {
    "journal": (-1, 2**62),
    "audit": (-1, 2**62),
    "snapshot": (b"", b"\xff" * 257),
    "meta": ("", "\U0010ffff"),
    "catalogs": ("", "\U0010ffff"),
}
PROBES_MAX: Final = 1_000  # into what cannot be read, for each table
KEY_BYTES: Final = 8  # looked at past what two keys have in common


def mend(copy: Path) -> list[str]:
    """Make a copy of a store one that SQLite opens, and reads to the end of its log; say what had to be changed."""
    reasons = []
    with copy.open("r+b") as file:
        if file.read(len(FILE_HEADER)) != FILE_HEADER:
            reasons.append("the file's header was damaged")
            file.seek(0)
            file.write(FILE_HEADER)
    log = copy.with_name(copy.name + "-wal")
    try:
        check_log(log)
    except StoreError as error:
        reasons.append(str(error).replace(str(log), "write-ahead log"))
        log.write_bytes(mended(log.read_bytes()))
    return reasons


def mended(log: bytes) -> bytes:
    """Return a write-ahead log with its checksums as they must be for what is in it now, to its generation's last frame."""
    frame_bytes = FRAME_HEADER_BYTES + PAGE_BYTES
    starts = range(HEADER_BYTES, len(log) - frame_bytes + 1, frame_bytes)
    salts = log[16:24]
    if starts and log.count(salts) < 2:  # it is the header that is damaged
        salts = log[starts[0] + 8 : starts[0] + 16]
    ours = [at for at in starts if log[at + 8 : at + 16] == salts]
    head = struct.pack(">III", MAGIC[0], 3_007_000, PAGE_BYTES) + log[12:16] + salts
    running = sums(head, (0, 0), False)
    parts = [head, struct.pack(">II", *running)]
    for at in starts[: starts.index(ours[-1]) + 1] if ours else ():
        page = log[at + FRAME_HEADER_BYTES : at + frame_bytes]
        running = sums(page, sums(log[at : at + 8], running, False), False)
        parts += [log[at : at + 8], salts, struct.pack(">II", *running), page]
    return b"".join(parts)


def salvaged(database: sqlite3.Connection, table: str, lost: Callable[[object, str], None]) -> Iterator[Row]:
    """Yield every row of a table that can be read, each once, and tell between which keys some may lie that cannot.

    Around what cannot be read it comes from both ends, and then from the middle, and so on.
    """
    lowest, highest = BOUNDS[table]
    gaps = deque([(lowest, highest)])
    unread: list[tuple[Any, Any]] = []
    probes_left = PROBES_MAX
    failure = ""
    while gaps:
        low, high = gaps.popleft()
        try:
            for row in _scan(database, table, low, high, "ASC"):
                low = row[0] if type(row[0]) is type(low) else low
                yield row
            continue
        except sqlite3.DatabaseError as error:
            failure = str(error)
        with suppress(sqlite3.DatabaseError):
            for row in _scan(database, table, low, high, "DESC"):
                high = row[0] if type(row[0]) is type(high) else high
                yield row
            continue
        middle = _between(low, high)
        probes_left -= 1
        if middle is None or probes_left < 0:
            unread.append((low, high))
            continue
        with suppress(sqlite3.DatabaseError):
            yield from database.execute(f"SELECT * FROM {table} WHERE {KEYS[table]} = ?", (middle,))
        gaps += [(low, middle), (middle, high)]
    for low, high in _merged(unread):
        lost(low, f"what lies between it and {high!r} cannot be read: {failure}")


def _scan(database: sqlite3.Connection, table: str, low: Any, high: Any, order: str) -> Iterator[Row]:
    key = KEYS[table]
    yield from database.execute(
        f"SELECT * FROM {table} WHERE {key} > ? AND {key} < ? ORDER BY {key} {order}", (low, high)
    )


def _between(low: Any, high: Any) -> Any:
    """Return a key in the middle of two, None if there is none to be thought of."""
    if isinstance(low, int):
        return (low + high) // 2 if high - low > 1 else None
    if isinstance(low, str):
        return None  # few rows, one page
    common = next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    first, last = (int.from_bytes(key[common : common + KEY_BYTES].ljust(KEY_BYTES, b"\0")) for key in (low, high))
    return low[:common] + ((first + last) // 2).to_bytes(KEY_BYTES) if last - first > 1 else None


def _merged(gaps: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return gaps in order, those that touch as one."""
    merged: list[tuple[Any, Any]] = []
    for low, high in sorted(gaps):
        if merged and merged[-1][1] == low:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged
