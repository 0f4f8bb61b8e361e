"""A segment: a file of the journal, filled before it is used, so that a commit changes neither its length nor where it lies.

A row is, little endian:
u32 magic | u32 size of what is packed | u32 the store's number | u32 kind | u64 its number | u64 that of its commit's first row |
i64 time in microseconds | u32 crc over all that and the packed bytes | packed.
Numbers have no gaps. Rows of one commit stand one after the other; every commit begins on a page of its own, so that no row
that was acknowledged is written over while it counts.

The segment ends at the first place where the next number does not stand. It is whole if nothing but older rows and the rest of
one commit follow: one commit is under way at a time, so a power cut tears none but the last, of which nobody was told. If a later
commit's row follows, or if the row there is good but for one bit, something has changed since it was written. Damage of more
than one bit to the last commit alone cannot be told from a torn one.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from zlib import crc32

from quota.errors import StoreError

PAGE_BYTES: Final = 4096
MAGIC: Final = 0x326A_7571
_HEAD: Final = struct.Struct("<IIIIQQq")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEAD.size + _CRC.size
CRC_POLYNOMIAL: Final = 0xEDB88320


class Kind(IntEnum):
    """What a row packs."""

    ACCOUNTS = 1
    NOTE = 2


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was written. `at` is where it begins in its segment."""

    seq: int
    commit: int
    at_us: int
    kind: Kind
    packed: bytes
    at: int
    whole: bool = True

    @property
    def end(self) -> int:
        return self.at + HEADER_BYTES + len(self.packed)


def encode(seq: int, commit: int, at_us: int, kind: Kind, packed: bytes, key: int) -> bytes:
    """Return what stands before the packed bytes of a row. `key` is the store's number."""
    head = _HEAD.pack(MAGIC, len(packed), key, kind, seq, commit, at_us)
    return head + _CRC.pack(crc32(packed, crc32(head)))


def decode(segment: memoryview, at: int, key: int) -> Row | None:
    """Return the row of this store that begins there, None if none that is whole does."""
    row = likely(segment, at, key)
    return row if row is not None and row.whole else None


def likely(segment: memoryview, at: int, key: int) -> Row | None:
    """Return what may be a row that begins there; `whole` says whether its checksum is right."""
    packed_at = at + HEADER_BYTES
    if packed_at > len(segment):
        return None
    magic, size, of, kind, seq, commit, at_us = _HEAD.unpack_from(segment, at)
    if magic != MAGIC or of != key or packed_at + size > len(segment) or kind not in (Kind.ACCOUNTS, Kind.NOTE):
        return None
    packed = bytes(segment[packed_at : packed_at + size])
    whole = crc32(packed, crc32(segment[at : at + _HEAD.size])) == _CRC.unpack_from(segment, packed_at - _CRC.size)[0]
    return Row(seq, commit, at_us, Kind(kind), packed, at, whole)


def aligned(at: int) -> int:
    """Return the beginning of the next page, or `at` if one begins there."""
    return -(-at // PAGE_BYTES) * PAGE_BYTES


def walk(segment: memoryview, first: int, key: int) -> tuple[array[int], int]:
    """Return where each row begins, from number `first` on, and where the next commit goes.

    Raises StoreError, naming the row, if one has changed since it was written.
    """
    places: array[int] = array("Q")
    at = 0
    while row := following(segment, at, first + len(places), key):
        places.append(row.at)
        at = row.end
    expected = first + len(places)
    for page in range(aligned(at), len(segment), PAGE_BYTES):
        later = decode(segment, page, key)
        if later is not None and later.seq == later.commit > expected:
            raise StoreError(f"journal row {expected} has changed since it was written, and others follow it")
    if any(one_bit_off(segment, place, expected, key) for place in {at, aligned(at)}):
        raise StoreError(f"journal row {expected} has changed by one bit since it was written")
    return places, aligned(at)


def following(segment: memoryview, at: int, seq: int, key: int) -> Row | None:
    """Return the row of this number after a row that ends at `at`: behind it, or on the next page."""
    for place in (at, aligned(at)):
        row = decode(segment, place, key)
        if row is not None and row.seq == seq:
            return row
    return None


def all_rows(segment: memoryview, key: int) -> Iterator[Row]:
    """Yield whatever looks like a row, whole or not, in a segment that may be damaged; old rows and those of a torn commit too."""
    at = 0
    while at + HEADER_BYTES <= len(segment):
        row = likely(segment, at, key)
        if row is not None:
            yield row
        at = row.end if row is not None and row.whole else aligned(at + 1)


def key_within(segment: memoryview) -> int:
    """Return the number of the store that a segment belongs to, by its first row; 0 if there is none."""
    for page in range(0, len(segment) - HEADER_BYTES + 1, PAGE_BYTES):
        key: int = _HEAD.unpack_from(segment, page)[2]
        if decode(segment, page, key) is not None:
            return key
    return 0


def one_bit_off(segment: memoryview, at: int, seq: int, key: int) -> bool:
    """Whether one other bit would make a row of this number of what stands there."""
    head = bytearray(segment[at : at + HEADER_BYTES])
    if len(head) < HEADER_BYTES:
        return False
    for bit in range(HEADER_BYTES * 8):
        head[bit >> 3] ^= 1 << (bit & 7)
        magic, size, of, _, found, _, _ = _HEAD.unpack_from(head)
        if (magic, of, found) == (MAGIC, key, seq) and at + HEADER_BYTES + size <= len(segment):
            packed = segment[at + HEADER_BYTES : at + HEADER_BYTES + size]
            if crc32(packed, crc32(head[: _HEAD.size])) == _CRC.unpack_from(head, _HEAD.size)[0]:
                return True
        head[bit >> 3] ^= 1 << (bit & 7)
    magic, size, of, _, found, _, _ = _HEAD.unpack_from(head)
    if (magic, of, found) != (MAGIC, key, seq) or at + HEADER_BYTES + size > len(segment):
        return False
    packed = segment[at + HEADER_BYTES : at + HEADER_BYTES + size]
    off = _CRC.unpack_from(head, _HEAD.size)[0] ^ crc32(packed, crc32(head[: _HEAD.size]))
    effect = CRC_POLYNOMIAL  # of the last bit; a checksum is linear, and each bit before is one step further
    for _ in range(size * 8):
        if effect == off:
            return True
        effect = effect >> 1 ^ (CRC_POLYNOMIAL if effect & 1 else 0)
    return False
