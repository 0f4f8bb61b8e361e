"""The records that lie in the pages of an SQLite file, found without its trees: for when a page that led to them is damaged.

https://www.sqlite.org/fileformat2.html has the layout. Nothing here is believed: whoever asks has checksums of their own.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from quota.store.format import PAGE_BYTES

INDEX_INNER: Final = 2
INDEX_LEAF: Final = 10  # also of a table without rowids
TABLE_LEAF: Final = 13
FILE_HEADER_BYTES: Final = 100
LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
LOCAL_MAX: Final = {
    TABLE_LEAF: PAGE_BYTES - 35,
    INDEX_LEAF: (PAGE_BYTES - 12) * 64 // 255 - 23,
    INDEX_INNER: (PAGE_BYTES - 12) * 64 // 255 - 23,
}
INTEGER_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)

Value = bytes | int | None


def records(file: Path) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """Yield (rowid, columns) of whatever looks like a record; texts are bytes, rowid 0 where there is none."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for page in range(0, len(content) - PAGE_BYTES + 1, PAGE_BYTES):
            start = page + (0 if page else FILE_HEADER_BYTES)
            kind, count = content[start], struct.unpack_from(">H", content, start + 3)[0]
            if kind not in LOCAL_MAX or count > PAGE_BYTES // 2:
                continue
            pointers = start + (12 if kind == INDEX_INNER else 8)
            for at in range(pointers, min(pointers + 2 * count, page + PAGE_BYTES - 1), 2):
                try:
                    yield _record(content, kind, page + struct.unpack_from(">H", content, at)[0])
                except (IndexError, ValueError, struct.error):
                    continue


def _record(content: mmap.mmap, kind: int, at: int) -> tuple[int, tuple[Value, ...]]:
    rowid = 0
    if kind == INDEX_INNER:
        at += 4  # the page below
    size, at = _varint(content, at)
    if kind == TABLE_LEAF:
        rowid, at = _varint(content, at)
    return rowid, _columns(_payload(content, kind, size, at))


def _payload(content: mmap.mmap, kind: int, size: int, at: int) -> bytes:
    """Gather what lies in the page, and in those that it overflows into."""
    if size > len(content):
        raise ValueError(size)
    if size <= LOCAL_MAX[kind]:
        return content[at : at + size]
    local = LOCAL_MIN + (size - LOCAL_MIN) % (PAGE_BYTES - 4)
    if local > LOCAL_MAX[kind]:
        local = LOCAL_MIN
    parts, left = [content[at : at + local]], size - local
    number = struct.unpack_from(">I", content, at + local)[0]
    while left > 0:
        if number == 0:
            raise ValueError(number)
        start = (number - 1) * PAGE_BYTES
        number = struct.unpack_from(">I", content, start)[0]
        parts.append(content[start + 4 : start + 4 + min(left, PAGE_BYTES - 4)])
        left -= PAGE_BYTES - 4
    return b"".join(parts)


def _columns(payload: bytes) -> tuple[Value, ...]:
    end, at = _varint(payload, 0)
    values: list[Value] = []
    start = end
    while at < end:
        kind, at = _varint(payload, at)
        if kind in (8, 9):
            values.append(kind - 8)
            continue
        size = (kind - 12) // 2 if kind >= 12 else INTEGER_BYTES[kind]
        data = payload[start : start + size]
        if len(data) != size:
            raise ValueError(kind)
        values.append(data if kind >= 12 else int.from_bytes(data, signed=True) if kind else None)
        start += size
    return tuple(values)


def _varint(content: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """Return a number of 1 to 9 bytes, and where it ends."""
    value = 0
    for _ in range(8):
        byte = content[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | content[at], at + 1
