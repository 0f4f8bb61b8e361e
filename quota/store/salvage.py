"""Getting out of a damaged store what SQLite, or a start, would not give by itself."""

from __future__ import annotations

import sqlite3
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from quota.errors import StoreError
from quota.store.format import PAGE_BYTES
from quota.store.pages import FILE_HEADER_BYTES
from quota.store.segment import Row as JournalRow
from quota.store.segment import all_rows, key_within, walk
from quota.store.segment import decode as decode_row
from quota.store.wal import FRAME_HEADER_BYTES, HEADER_BYTES, check_log

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


def mend(copy: Path, samples: list[Path]) -> list[str]:
    """Make a copy of a store one that SQLite opens, and knows the tables of; say what had to be changed.

    `samples` are empty stores: every store begins with the page of one, of the first if that cannot be told.
    """
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
        _apply(log.read_bytes(), copy)
        log.unlink()
    if _tables(copy) not in map(_tables, samples):
        reasons.append("the list of its tables was damaged")
        with copy.open("r+b") as file, samples[0].open("rb") as whole:
            file.seek(FILE_HEADER_BYTES)
            file.write(whole.read(PAGE_BYTES)[FILE_HEADER_BYTES:])
    return reasons


def _apply(log: bytes, copy: Path) -> None:
    """Write the pages of a damaged log into the file, to its generation's last commit. What is wrong with them shows there."""
    frame_bytes = FRAME_HEADER_BYTES + PAGE_BYTES
    starts = range(HEADER_BYTES, len(log) - frame_bytes + 1, frame_bytes)
    salts = log[16:24]
    if starts and log.count(salts) < 2:  # it is the header that is damaged
        salts = log[starts[0] + 8 : starts[0] + 16]
    commits = [at for at in starts if log[at + 8 : at + 16] == salts and any(log[at + 4 : at + 8])]
    if not commits:
        return
    pages_count = int.from_bytes(log[commits[-1] + 4 : commits[-1] + 8])
    with copy.open("r+b") as file:
        for at in starts[: starts.index(commits[-1]) + 1]:
            number = int.from_bytes(log[at : at + 4])
            if 0 < number <= pages_count:
                file.seek((number - 1) * PAGE_BYTES)
                file.write(log[at + FRAME_HEADER_BYTES : at + frame_bytes])


def _tables(file: Path) -> list[Row]:
    """Return what a file says of its tables, nothing if that cannot be read."""
    try:
        with closing(sqlite3.connect(file)) as database:
            return database.execute("SELECT * FROM sqlite_master ORDER BY name").fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # of a message that quotes the damage
        return []


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


def journal_rows(path: Path, key: str) -> tuple[list[JournalRow], str]:
    """Return the rows of a segment, and what is wrong with it; then all that look like rows. `key` may be lost."""
    content = memoryview(path.read_bytes())
    number = int(key) if key.isdecimal() else key_within(content)
    first = int(path.name.removeprefix("journal-"), 16)
    try:
        places, _ = walk(content, first, number)
    except StoreError as error:
        return list(all_rows(content, number)), str(error)
    return [row for place in places if (row := decode_row(content, place, number)) is not None], ""
