"""The journal: what changed, in segments, of which the last is written to: one write and one sync a commit.

A segment is named by the number of its first row. Once all its rows are in the snapshot it is the spare, and is given the next
name, so that the disk is not asked for room while somebody waits; old rows may stand behind new ones. A new segment is as large
as those in use together, within bounds: a small store stays small.

Invariants:
- Before a segment is used its name is on disk, and so is its number, in the store: one that got lost is noticed.
- Segments are let go of in their order, once their rows are durable in the snapshot, and not while somebody has them pinned.
- One thread appends and lets go. Any thread reads rows, which are durable by then.
"""

from __future__ import annotations

import fcntl
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from quota.errors import StoreError
from quota.store.segment import Kind, Row, aligned, decode, encode, walk

SEGMENT_BYTES_MIN = 1_048_576
SEGMENT_BYTES_MAX = 16_777_216
FILL_BYTES: Final = 65_536  # at a time
NAME: Final = "journal-{:016x}"
NAMES: Final = "journal-" + "[0-9a-f]" * 16
SPARE: Final = "journal-spare"


@dataclass(slots=True, eq=False)
class _Segment:
    first: int
    path: Path
    fd: int
    size: int
    places: array[int]  # of its rows
    end: int  # where the next commit goes

    @property
    def last(self) -> int:
        return self.first + len(self.places) - 1

    def read(self, seq: int, key: int) -> Row | None:
        index = seq - self.first
        at = self.places[index]
        stop = self.places[index + 1] if index + 1 < len(self.places) else self.end
        row = decode(memoryview(os.pread(self.fd, stop - at, at)), 0, key)
        return replace(row, at=at) if row is not None and row.seq == seq else None


class Journal:
    """The segments of a directory. Made by `open`; nothing is written before `start`."""

    def __init__(self, directory: Path, key: int, folded: int) -> None:
        self.folded = folded
        """The last row that is in the snapshot."""
        self.sequence = folded
        """The last row there is."""
        self._directory = directory
        self._key = key
        self._lock = threading.Lock()  # guards the list, and descriptors against closing; never held during a sync
        self._segments: list[_Segment] = []  # the last is written to
        self._let_go: list[Path] = []  # found at the start, after a crash
        self._pins_count = 0
        self._spare_fd = -1
        self._spare_bytes = 0
        self._owed_bytes = 0  # to be filled in the spare
        self._tell: Callable[[int], None] = lambda first: None

    @classmethod
    def open(cls, directory: Path, key: int, folded: int, newest: int) -> Journal:
        """Check all rows after number `folded`, and that the segment of number `newest` or a later one is there; 0: none was.

        `key` is the store's number: rows of another store are none. Raises StoreError, naming the segment and the row that is
        missing or has changed.
        """
        journal = cls(directory, key, folded)
        try:
            journal._open(newest)
        except OSError as error:
            journal.close()
            raise StoreError(f"{directory}: the journal cannot be read: {error.strerror}") from error
        except BaseException:
            journal.close()
            raise
        return journal

    def start(self, tell: Callable[[int], None]) -> None:
        """Make ready for the first commit. `tell` keeps the number of a segment, durably, before its first use.

        Raises StoreError, as all that writes does.
        """
        self._tell = tell
        with self._writing():
            self._start()

    # ---- For the thread that writes ----

    def append(self, rows: list[tuple[Kind, bytes]], at_us: int) -> None:
        """Make rows durable as one commit. The store has failed if this raises: the segment is not to be written again."""
        with self._writing():
            self._append(rows, at_us)

    def prepare(self) -> None:
        """Fill the spare by what the last commits owe it, so that it is full long before it is needed."""
        if self._owed_bytes < FILL_BYTES:
            return
        goal = self._goal_bytes()
        if self._spare_bytes < goal:
            with self._writing():
                self._fill(min(goal, self._spare_bytes + self._owed_bytes))
        self._owed_bytes = 0

    def let_go(self, seq: int) -> None:
        """Let go of segments whose rows are all in the snapshot, and durable there. `seq` is the last row that is."""
        self.folded = seq
        with self._writing(), self._lock:
            while len(self._segments) > 1 and self._segments[0].last <= seq and self._pins_count == 0:
                segment = self._segments.pop(0)
                if segment.size > self._spare_bytes:
                    segment.path.rename(self._directory / SPARE)
                    if self._spare_fd >= 0:
                        os.close(self._spare_fd)
                    self._spare_fd, self._spare_bytes = segment.fd, segment.size
                else:
                    segment.path.unlink()
                    os.close(segment.fd)

    def close(self) -> None:
        with self._lock:
            for fd in (*(it.fd for it in self._segments), self._spare_fd):
                if fd >= 0:
                    os.close(fd)
            self._segments.clear()
            self._spare_fd = -1

    # ---- For all ----

    def bytes_after(self, seq: int) -> int:
        """Bytes of the segments that the rows after a number take, which are not in the snapshot."""
        with self._lock:
            seq = max(seq, self.folded)  # by now
            segments = [it for it in self._segments if it.last > seq]
            return sum(it.end for it in segments) - segments[0].places[seq + 1 - segments[0].first] if segments else 0

    @property
    def file_bytes(self) -> int:
        """Bytes on disk, the spare included."""
        with self._lock:
            return sum(it.size for it in self._segments) + self._spare_bytes

    def rows(self, after: int) -> Iterator[Row]:
        """Yield the rows after a number, oldest first; they are there, or pinned. Raises StoreError if one has changed."""
        for seq in range(after + 1, self.sequence + 1):
            row = self.row(seq)
            if row is None:
                raise _changed(self._directory, seq)
            yield row

    def row(self, seq: int) -> Row | None:
        """Return a row, None if it is in the snapshot by now. Raises StoreError if it has changed since it was written."""
        with self._lock:
            segment = next((it for it in self._segments if it.first <= seq <= it.last), None)
            row = segment.read(seq, self._key) if segment is not None else None
        if row is None and seq > self.folded:
            raise _changed(self._directory, seq)
        return row

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep all segments that are there now or come meanwhile."""
        with self._lock:
            self._pins_count += 1
        try:
            yield
        finally:
            with self._lock:
                self._pins_count -= 1

    # ---- Inside ----

    def _start(self) -> None:
        for path in self._let_go:
            path.unlink()
        spare = self._directory / SPARE
        if spare.exists():
            self._spare_fd = os.open(spare, os.O_RDWR | os.O_CLOEXEC)
            self._spare_bytes = spare.stat().st_size
        if not self._segments:
            self._begin(self.sequence + 1, 0)
        last = self._segments[-1]
        rest = os.pread(last.fd, last.size - last.end, last.end)
        if rest.count(0) < len(rest):  # of a torn commit, perhaps, which would else follow a row of its number
            os.pwrite(last.fd, bytes(len(rest)), last.end)
            os.fsync(last.fd)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self._directory}: the journal cannot be written: {error.strerror}") from error

    def _append(self, rows: list[tuple[Kind, bytes]], at_us: int) -> None:
        commit = self.sequence + 1
        places: list[int] = []
        parts: list[bytes] = []
        size = 0
        for seq, (kind, packed) in enumerate(rows, commit):
            places.append(size)
            parts += (encode(seq, commit, at_us, kind, packed, self._key), packed)
            size += len(parts[-2]) + len(packed)
        if self._segments[-1].end + size > self._segments[-1].size:
            self._begin(commit, size)
        segment = self._segments[-1]
        fcntl.flock(segment.fd, fcntl.LOCK_EX)  # whoever holds it shared sees an end that stands still
        try:
            _write(segment.fd, b"".join(parts), segment.end)
            os.fdatasync(segment.fd)
        finally:
            fcntl.flock(segment.fd, fcntl.LOCK_UN)
        with self._lock:
            segment.places.extend(segment.end + place for place in places)
            segment.end = aligned(segment.end + size)
            self.sequence += len(rows)
        self._owed_bytes += 3 * aligned(size)  # a segment is at most twice as large as the one before

    def _goal_bytes(self) -> int:
        return min(SEGMENT_BYTES_MAX, max(SEGMENT_BYTES_MIN, sum(it.size for it in self._segments)))

    def _fill(self, goal: int) -> None:
        if self._spare_fd < 0:
            self._spare_fd = os.open(self._directory / SPARE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _write(self._spare_fd, bytes(goal - self._spare_bytes), self._spare_bytes)
        os.fdatasync(self._spare_fd)
        self._spare_bytes = goal

    def _begin(self, first: int, commit_bytes: int) -> None:
        """Make the spare the last segment."""
        goal = max(self._goal_bytes(), aligned(commit_bytes))
        if self._spare_bytes < goal:
            self._fill(goal)
        path = self._directory / NAME.format(first)
        (self._directory / SPARE).rename(path)
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._tell(first)
        with self._lock:
            if (
                self._segments and self._segments[-1].first == first
            ):  # too small for its first commit: its name is the new one's
                os.close(self._segments.pop().fd)
            self._segments.append(_Segment(first, path, self._spare_fd, self._spare_bytes, array("Q"), 0))
        self._spare_fd, self._spare_bytes, self._owed_bytes = -1, 0, 0

    def _open(self, newest: int) -> None:
        paths = sorted(self._directory.glob(NAMES))
        firsts = [int(it.name.removeprefix("journal-"), 16) for it in paths]
        if newest > max(firsts, default=0):
            raise StoreError(
                f"{self._directory / NAME.format(newest)}: is missing, and the last rows of the journal with it"
            )
        for number, (path, first) in enumerate(zip(paths, firsts, strict=True)):
            following = firsts[number + 1] if number + 1 < len(firsts) else None
            if following is not None and following <= self.folded + 1:  # a crash before it was let go of
                self._let_go.append(path)
                continue
            if first > self.sequence + 1:
                raise StoreError(f"{path}: journal row {self.sequence + 1} is missing before it")
            self._read(path, first)
            if following is not None and following != self.sequence + 1:
                raise _changed(path, self.sequence + 1)

    def _read(self, path: Path, first: int) -> None:
        segment = _Segment(first, path, os.open(path, os.O_RDWR | os.O_CLOEXEC), path.stat().st_size, array("Q"), 0)
        self._segments.append(segment)
        content = os.pread(segment.fd, segment.size, 0)
        try:
            segment.places, segment.end = walk(memoryview(content), first, self._key)
        except StoreError as error:
            raise StoreError(f"{path}: {error}") from error
        if segment.last < self.folded:
            raise _changed(path, segment.last + 1)
        self.sequence = segment.last


def _write(fd: int, data: bytes, at: int) -> None:
    """Write all of it: a disk that is nearly full may take less at first."""
    left = memoryview(data)
    while left:
        written = os.pwrite(fd, left, at)
        left, at = left[written:], at + written


def _changed(path: Path, seq: int) -> StoreError:
    return StoreError(f"{path}: journal row {seq} is missing, or has changed since it was written")
