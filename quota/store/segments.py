"""The journal: what changed, in files of one era each, written in place and synced once a commit.

A segment is a file of SEGMENT_BYTES, filled before it is used, so that a commit changes neither its length nor where it
lies: one pwrite and one fdatasync make it durable. It is named by the number of its first row, and is given the next name
once all its rows are in the snapshot, so old rows stand behind the new ones. A row that was acknowledged is never written
over while it counts: every commit begins on a page of its own.

A row is, little endian: u32 magic | u32 size of what is packed | u64 number | u64 first number of its commit | i64 time in
microseconds | u32 crc over all that and the packed bytes, keyed by the store's number | packed. Numbers have no gaps.

The end of the journal is the first place where the next number does not stand. It is whole if nothing but older rows and
the rest of one commit follow: one commit is under way at a time, so a power cut tears none but the last, of which nobody
was told. If a later commit's row follows, or if the row there is good but for one bit, something has changed since it was
written. Damage of more than one bit to the last commit alone cannot be told from a torn one.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zlib import crc32

from quota.errors import StoreError

SEGMENT_BYTES = 16_777_216
PAGE_BYTES: Final = 4096
MAGIC: Final = 0x316A_7571
_HEAD: Final = struct.Struct("<IIQQq")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEAD.size + _CRC.size
ROW_BYTES_MAX: Final = 1_048_576  # of what is packed: more is no row
NAME: Final = "journal-{:016x}"
SPARE: Final = "journal-spare"
CRC_POLYNOMIAL: Final = 0xEDB88320


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was written. `at` is where it begins in its segment."""

    seq: int
    commit: int
    at_us: int
    packed: bytes
    at: int

    @property
    def end(self) -> int:
        return self.at + HEADER_BYTES + len(self.packed)


def encode(seq: int, commit: int, at_us: int, packed: bytes, key: int) -> bytes:
    """Return what stands before the packed bytes of a row."""
    head = _HEAD.pack(MAGIC, len(packed), seq, commit, at_us)
    return head + _CRC.pack(crc32(packed, crc32(head, key)))


def decode(segment: memoryview, at: int, key: int) -> Row | None:
    """Return the row that begins there, None if none that is whole does."""
    if at + HEADER_BYTES > len(segment):
        return None
    magic, size, seq, commit, at_us = _HEAD.unpack_from(segment, at)
    packed_at = at + HEADER_BYTES
    if magic != MAGIC or size > ROW_BYTES_MAX or packed_at + size > len(segment):
        return None
    packed = bytes(segment[packed_at : packed_at + size])
    if _CRC.unpack_from(segment, packed_at - _CRC.size)[0] != crc32(packed, crc32(segment[at : at + _HEAD.size], key)):
        return None
    return Row(seq, commit, at_us, packed, at)


def aligned(at: int) -> int:
    """Return the beginning of the next page, or `at` if one begins there."""
    return -(-at // PAGE_BYTES) * PAGE_BYTES


class Journal:
    """The segments of a directory, written by one thread. Made by `open`."""

    def __init__(self, directory: Path, key: int) -> None:
        self._directory = directory
        self._key = key
        self._segments: deque[tuple[int, int]] = deque()  # first number, descriptor; the last is written to
        self._spare = -1
        self._end = SEGMENT_BYTES  # in the last segment
        self._read_at = 0  # in the first segment: before it all is folded
        self.sequence = 0
        """The last row's number."""

    @classmethod
    def open(cls, directory: Path, key: int, folded: int) -> Journal:
        """Check all rows, of which those up to number `folded` are in the snapshot. Writes nothing.

        Raises StoreError, naming the segment and the row that is missing or has changed.
        """
        journal = cls(directory, key)
        try:
            journal._open(folded)
        except BaseException:
            journal.close()
            raise
        return journal

    def append(self, rows: list[bytes], at_us: int) -> None:
        """Make rows durable as one commit. The store has failed if this raises: the file is not to be written again."""
        commit = self.sequence + 1
        parts: list[bytes] = []
        for seq, packed in enumerate(rows, commit):
            parts += (encode(seq, commit, at_us, packed, self._key), packed)
        size = sum(map(len, parts))
        if self._end + size > SEGMENT_BYTES:
            self._begin(commit)
        fd = self._segments[-1][1]
        if os.pwritev(fd, parts, self._end) != size:
            raise StoreError(f"{self._directory}: the journal took less than the {size} bytes of a commit")
        os.fdatasync(fd)
        self._end = aligned(self._end + size)
        self.sequence += len(rows)

    def clear(self) -> None:
        """Wipe what a torn commit left behind the last row, which would else follow a row of its number. Before `append`."""
        if self._segments:
            fd = self._segments[-1][1]
            os.pwrite(fd, bytes(SEGMENT_BYTES - self._end), self._end)
            os.fsync(fd)

    def rows(self, folded: int) -> Iterator[Row]:
        """Yield the rows after number `folded`, oldest first. Raises StoreError if one has changed since it was checked."""
        expected = folded + 1
        for number, (_, fd) in enumerate(self._segments):
            at = self._read_at if number == 0 else 0
            while row := self._at(fd, at, expected):
                yield row
                expected += 1
                at = row.end
        if expected <= self.sequence:
            raise StoreError(f"{self._directory}: journal row {expected} has changed since it was written")

    def drop(self, row: Row) -> None:
        """Let go of segments whose rows are all in the snapshot, and durable there. `row` is the last that is."""
        self._read_at = row.end
        while len(self._segments) > 1 and self._segments[1][0] <= row.seq + 1:
            first, fd = self._segments.popleft()
            if self._segments[0][0] > row.seq:
                self._read_at = 0
            name = self._directory / NAME.format(first)
            if self._spare < 0:
                name.rename(self._directory / SPARE)
                self._spare = fd
            else:
                name.unlink()
                os.close(fd)

    def close(self) -> None:
        for fd in (*(fd for _, fd in self._segments), self._spare):
            if fd >= 0:
                os.close(fd)
        self._segments.clear()
        self._spare = -1

    def _begin(self, first: int) -> None:
        """Make the spare file the last segment. Its name is durable before a row in it is."""
        spare = self._directory / SPARE
        if self._spare < 0:
            self._spare = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._spare, bytes(SEGMENT_BYTES), 0)
            os.fsync(self._spare)
        spare.rename(self._directory / NAME.format(first))
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._segments.append((first, self._spare))
        self._spare = -1
        self._end = 0

    def _open(self, folded: int) -> None:
        names = sorted(self._directory.glob("journal-" + "[0-9a-f]" * 16))
        firsts = [int(it.name.removeprefix("journal-"), 16) for it in names]
        self.sequence = folded
        for number, (name, first) in enumerate(zip(names, firsts, strict=True)):
            following = firsts[number + 1] if number + 1 < len(firsts) else None
            if following is not None and following <= folded + 1:  # a crash before it was let go of
                continue
            if first > self.sequence + 1:
                raise StoreError(f"{name}: journal row {self.sequence + 1} is missing before it")
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            self._segments.append((first, fd))
            self._walk(name, os.pread(fd, SEGMENT_BYTES, 0), first, folded)
            if following is not None and following != self.sequence + 1:
                raise StoreError(
                    f"{name}: journal row {self.sequence + 1} is missing, or has changed since it was written"
                )

    def _walk(self, name: Path, segment: bytes, first: int, folded: int) -> None:
        at, expected, view = 0, first, memoryview(segment)
        while row := self._in(view, at, expected):
            at, expected = row.end, expected + 1
            if row.seq == folded and len(self._segments) == 1:
                self._read_at = at
        if expected <= folded:
            raise StoreError(f"{name}: journal row {expected} has changed since it was written")
        for page in range(aligned(at), len(segment), PAGE_BYTES):
            later = decode(view, page, self._key)
            if later is not None and later.seq == later.commit > expected:
                raise StoreError(
                    f"{name}: journal row {expected} has changed since it was written, and others follow it"
                )
        if any(one_bit_off(view, place, expected, self._key) for place in {at, aligned(at)}):
            raise StoreError(f"{name}: journal row {expected} has changed by one bit since it was written")
        self.sequence, self._end = expected - 1, aligned(at)

    def _in(self, segment: memoryview, at: int, seq: int) -> Row | None:
        for place in (at, aligned(at)):
            row = decode(segment, place, self._key)
            if row is not None and row.seq == seq:
                return row
        return None

    def _at(self, fd: int, at: int, seq: int) -> Row | None:
        for place in (at, aligned(at)):
            head = os.pread(fd, HEADER_BYTES, place)
            if len(head) == HEADER_BYTES:
                size = min(_HEAD.unpack_from(head)[1], ROW_BYTES_MAX)
                row = decode(memoryview(head + os.pread(fd, size, place + HEADER_BYTES)), 0, self._key)
                if row is not None and row.seq == seq:
                    return replace(row, at=place)
        return None


def one_bit_off(segment: memoryview, at: int, seq: int, key: int) -> bool:
    """Whether one other bit would make a row of this number of what stands there."""
    raw = bytearray(segment[at : at + HEADER_BYTES + ROW_BYTES_MAX])
    if len(raw) < HEADER_BYTES:
        return False
    for bit in range(HEADER_BYTES * 8):
        raw[bit >> 3] ^= 1 << (bit & 7)
        magic, size, found, _, _ = _HEAD.unpack_from(raw)
        if magic == MAGIC and found == seq and size <= ROW_BYTES_MAX and decode(memoryview(raw), 0, key):
            return True
        raw[bit >> 3] ^= 1 << (bit & 7)
    magic, size, found, _, _ = _HEAD.unpack_from(raw)
    if magic != MAGIC or found != seq or HEADER_BYTES + size > len(raw):
        return False
    off = _CRC.unpack_from(raw, _HEAD.size)[0] ^ crc32(
        raw[HEADER_BYTES : HEADER_BYTES + size], crc32(raw[: _HEAD.size], key)
    )
    effect = CRC_POLYNOMIAL  # of the last bit; a checksum is linear, and each bit before is one step further
    for _ in range(size * 8):
        if effect == off:
            return True
        effect = effect >> 1 ^ (CRC_POLYNOMIAL if effect & 1 else 0)
    return False
