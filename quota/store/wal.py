"""Whether the write-ahead log is whole, looked at before SQLite does.

SQLite takes a log up to its first bad frame and says nothing of what comes after: right after a power cut, when only the
last transaction can be torn, and wrong after a flipped bit, when transactions that were acknowledged lie behind it.
So: after the first bad frame there may be the rest of one transaction, but not more. And in the last transaction a frame that
is whole but for one bit was not torn: it was written, perhaps acknowledged, and has changed since.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import Final

from quota.errors import StoreError

HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
MAGIC: Final = (0x377F0682, 0x377F0683)  # words of the checksums little endian, big endian
WORD_MASK: Final = 0xFFFFFFFF


def check_log(path: Path) -> None:
    """Raise StoreError, naming the frame, if transactions lie behind a bad one. No log is whole."""
    try:
        log = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    if not any(log[:HEADER_BYTES]) or len(log) < HEADER_BYTES:  # empty, or cut off before its beginning was written
        return
    magic, _, page_bytes, _, salts, header_sums = struct.unpack_from(">IIII8s8s", log)
    big = magic == MAGIC[1]
    if magic not in MAGIC or sums(log[:24], (0, 0), big) != struct.unpack(">II", header_sums):
        raise StoreError(f"{path}: its header has changed since it was written")
    running = struct.unpack(">II", header_sums)
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    starts = range(HEADER_BYTES, len(log) - frame_bytes + 1, frame_bytes)
    for number, at in enumerate(starts, 1):
        running = sums(log[at : at + 8], running, big)
        running = sums(log[at + FRAME_HEADER_BYTES : at + frame_bytes], running, big)
        if log[at + 8 : at + 16] != salts or struct.unpack_from(">II", log, at + 16) != running:
            if _transaction_after(log, starts[number - 1 :], salts):
                raise StoreError(f"{path}: frame {number} has changed since it was written, and others follow it")
            if _one_bit_off(log[at : at + frame_bytes], salts, running):
                raise StoreError(f"{path}: frame {number} has changed by one bit since it was written")
            return


def _transaction_after(log: bytes, starts: range, salts: bytes) -> bool:
    """Whether frames of this log's generation follow the transaction that the first of `starts` is in."""
    ended = False
    for at in starts:
        of_this = log[at + 8 : at + 16] == salts
        if ended and of_this:
            return True
        if (of_this or at == starts[0]) and log[at + 4 : at + 8] != bytes(4):  # the size of the file: a commit
            ended = True
    return False


def _one_bit_off(frame: bytes, salts: bytes, computed: tuple[int, int]) -> bool:
    """Whether one other bit anywhere in a frame would make it good. `computed` are its sums, where it follows a good one."""
    stored = struct.unpack_from(">II", frame, 16)
    salt_bits: int = (int.from_bytes(frame[8:16]) ^ int.from_bytes(salts)).bit_count()
    sum_bits: int = sum((a ^ b).bit_count() for a, b in zip(stored, computed, strict=True))
    if salt_bits or sum_bits == 1:
        return salt_bits + sum_bits == 1
    # The sums are linear: a word that is off by d puts them off by d times what one more in that word does. That is found from
    # the last pair of words to the first.
    missing = tuple((a - b) & WORD_MASK for a, b in zip(stored, computed, strict=True))
    even, odd = (1, 1), (0, 1)
    for _ in range((len(frame) - FRAME_HEADER_BYTES + 8) // 8):
        for effect in (even, odd):
            for bit in range(32):
                off = tuple(part << bit & WORD_MASK for part in effect)
                if missing in (off, tuple(-part & WORD_MASK for part in off)):
                    return True
        even, odd = ((a + b, a + 2 * b) for a, b in (even, odd))
        even, odd = ((a & WORD_MASK, b & WORD_MASK) for a, b in (even, odd))
    return False


def sums(data: bytes, running: tuple[int, int], big: bool) -> tuple[int, int]:
    """SQLite's running checksum over whole 8-byte groups."""
    words = array("I", data)
    if big != (array("H", [1]).tobytes() == b"\0\1"):
        words.byteswap()
    first, second = running
    pairs = iter(words)
    for even, odd in zip(pairs, pairs, strict=True):
        first = (first + even + second) & WORD_MASK
        second = (second + odd + first) & WORD_MASK
    return first, second
