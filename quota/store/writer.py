"""The one thread that writes: it takes what changed, commits it, and lets those go who waited for it.

While one commit is on its way to the disk, everything that is asked for meanwhile gathers for the next: group commit.
A commit is one of the journal's: accounts, and what was noted, such as an entry of the audit log, whole or not at all. Notes
are put into their tables before anybody is let go; a start does it again for those in the journal.
Each waiting thread has a lock of its own, released once its change is durable: waking all of them through one
condition costs twice as much (docs/store.md).

A failed write or fsync ends it. The file is not written to again, not even to close it: after a failed fsync the
system may hold pages for written that are not.

What is durable stands in the watermark, which loops without the GIL share; core/watermark.pxd says why no wake-up is lost.
The lists of waiting threads and of notes are this file's own: whoever adds to one rings after it, and the thread looks at
them after it has said that it lies down.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from quota._core import Watermark
from quota.errors import StoreError, Unavailable
from quota.store.fold import Folder
from quota.store.format import PUT_META, Note, checked, pack_note
from quota.store.journal import Journal
from quota.store.load import put_notes
from quota.store.segment import Kind
from quota.store.shelf import Shelf

ROW_BYTES_MAX: Final = 65_536  # of one packed row: a fold takes whole rows, and holds up a commit so long
FLUSH_BYTES_MAX: Final = 4_194_304  # of one transaction: what is left comes with the next
WAIT_SECONDS_MAX: Final = 30.0
IDLE_SECONDS: Final = 0.01  # without anybody waiting; after every commit nobody does for a moment
DEMOTE_SECONDS: Final = 0.1  # from one look for accounts to demote to the next
TOMBSTONE_SECONDS: Final = 3600.0  # from one look for tombstones to drop to the next
KEEP_TIME_SECONDS: Final = 600.0  # without a change, the time is noted so often


class StoreFailed(StoreError):
    """A store that ran has failed. End the process without closing the file: closing would write to it."""


class Changes(Protocol):
    """The ledger, as far as it is written: what changed, and which change was the last."""

    @property
    def ticket(self) -> int: ...
    @property
    def capacity_micro(self) -> int: ...
    @property
    def in_memory_count(self) -> int: ...
    def take(self, bytes_max: int, era: int) -> tuple[bytes, int]: ...
    def latest(self, packed: bytes, era: int) -> bytes: ...
    def demote(self, count: int, now: int) -> int: ...
    def drop_tombstones(self, now: int) -> int: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    ticket: int
    noted: int
    lock: threading.Lock


class Writer:
    """Writes what `changes` has to `journal` and `database`, which nobody else writes to.

    `on_failure` is called once, from the writing thread and before anybody who waits is let go.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        journal: Journal,
        folder: Folder,
        changes: Changes,
        now_us: Callable[[], int],
        watermark: Watermark,
        shelf: Shelf | None,
        in_memory_max: int,
        on_failure: Callable[[str], None],
        observe_commit: Callable[[float], None],
    ) -> None:
        self._database = database
        self._journal = journal
        self._folder = folder
        self._changes = changes
        folder.taken = changes
        self._now_us = now_us
        self._watermark = watermark
        self._shelf = shelf
        self._in_memory_max = in_memory_max
        self._demote_at = 0.0
        self._on_failure = on_failure
        self._observe_commit = observe_commit
        self.commits_count = 0
        self.written_bytes_count = 0
        self.failure = ""

        self._mutex = threading.Lock()  # guards what follows; never held during a write
        self._waiting: list[_Waiting] = []
        self._notes: list[Note] = []
        self._noted = 0  # notes so far; the first one is number 1
        self._durable_note = 0
        self._closing = False

        self._capacity_micro = changes.capacity_micro  # as written
        self._time_kept_at = time.monotonic()
        self._let_go_at = 0.0
        self._tombstones_at = time.monotonic() + TOMBSTONE_SECONDS
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what is left and end. Raises StoreFailed if that, or anything before, failed."""
        self._closing = True
        self._watermark.ring()
        self._thread.join()
        if self.failure:
            raise StoreFailed(self.failure)

    # ---- For the threads that answer ----

    def check(self) -> None:
        """Raise Unavailable if the store has failed: nothing may be charged that cannot be kept."""
        if self.failure:
            raise Unavailable(self.failure)

    def wait(self, ticket: int) -> None:
        """Return once an answer that rests on this change may leave. Raises Unavailable."""
        if not self._watermark.may_leave(ticket, time.monotonic_ns()):
            self._wait(ticket, 0)

    def wait_all(self) -> None:
        """Return once everything changed or noted before this call is on disk, whatever the mode. Raises Unavailable."""
        self._wait(self._changes.ticket, self._noted)

    def note(self, table: str, columns: tuple[object, ...]) -> None:
        """Have a row of a table written, together with all that changed before this call or earlier."""
        with self._mutex:
            self._notes.append((table, columns))
            self._noted += 1

    def unwritten_seconds(self) -> float:
        """How old the oldest change is that was answered and is not on disk; 0 in strict mode."""
        since_ns = self._watermark.oldest_ns
        return (time.monotonic_ns() - since_ns) / 1e9 if since_ns else 0.0

    @property
    def waiting_count(self) -> int:
        """Answers that wait: threads, and those that loops have parked."""
        return len(self._waiting) + self._watermark.parked_count

    def _wait(self, ticket: int, noted: int) -> None:
        waiting = _Waiting(ticket, noted, threading.Lock())
        waiting.lock.acquire()
        with self._mutex:
            self.check()
            if self._is_durable(ticket, noted):
                return
            self._waiting.append(waiting)
        self._watermark.ring()
        if not waiting.lock.acquire(timeout=WAIT_SECONDS_MAX):
            raise Unavailable(f"the disk has not answered for {WAIT_SECONDS_MAX:.0f} s; the change may yet be kept")
        if not self._is_durable(ticket, noted):
            self.check()

    def _is_durable(self, ticket: int, noted: int) -> bool:
        return ticket <= self._watermark.durable and noted <= self._durable_note

    # ---- The thread ----

    def _run(self) -> None:
        try:
            while not self._closing:
                self._sleep()
                if self._due():
                    self._flush()
                    self._journal.prepare()
                    self._demote()
                    self._drop_tombstones()
                if self._folder.due(idle=self._idle_in() <= 0):
                    self._folder.fold()
                while self._folder.overfull:
                    self._folder.fold()
            while not self._flush():
                pass
            self._keep_time()
        except BaseException as error:  # whatever it is, nothing is written any more
            self._fail(error)

    def _drop_tombstones(self) -> None:
        if time.monotonic() >= self._tombstones_at:
            self._changes.drop_tombstones(self._now_us())
            self._tombstones_at = time.monotonic() + TOMBSTONE_SECONDS

    def _sleep(self) -> None:
        """Sleep until somebody waits, a change is old enough to be written, or there is something to do beside."""
        self._watermark.lie_down()
        self._watermark.sleep(self._seconds_left())  # looked at after lying down

    def _seconds_left(self) -> float:
        if self._is_awaited():
            return 0.0
        since_ns = self._watermark.unwritten_since_ns
        if since_ns:
            return self._flush_in(since_ns)
        if self._folder.due(idle=True):
            return max(0.0, self._idle_in())
        return max(0.0, self._time_kept_at + KEEP_TIME_SECONDS - time.monotonic())

    def _is_awaited(self) -> bool:
        return bool(self._waiting) or self._watermark.awaited or self._closing

    def _idle_in(self) -> float:
        """Seconds until nobody has waited for so long that the time is free for folding; 0 or less: it is."""
        if self._is_awaited():
            return IDLE_SECONDS
        return self._let_go_at + IDLE_SECONDS - time.monotonic()

    def _flush_in(self, since_ns: int) -> float:
        # Half the time for gathering, so that the other half is left for the disk before an answer has to wait.
        return (since_ns + self._watermark.interval_ns // 2 - time.monotonic_ns()) / 1e9

    def _due(self) -> bool:
        if self._is_awaited():
            return True
        since_ns = self._watermark.unwritten_since_ns
        if since_ns:
            return self._flush_in(since_ns) <= 0
        return time.monotonic() >= self._time_kept_at + KEEP_TIME_SECONDS

    def _flush(self) -> bool:
        """Write what changed and was noted until now, in one commit, and let those go who waited for it.

        Returns False if there was more than one commit takes.
        """
        self._watermark.begin()
        goal = self._changes.ticket
        rows, ticket = self._take(goal)
        with self._mutex:  # after taking: what a change needs was noted before it
            notes, self._notes, noted = self._notes, [], self._noted
        if self._changes.capacity_micro != self._capacity_micro:
            self._capacity_micro = self._changes.capacity_micro
            notes.append(("meta", ("capacity_micro", str(self._capacity_micro))))
        if rows or notes:
            self._commit(rows, notes)
        elif time.monotonic() >= self._time_kept_at + KEEP_TIME_SECONDS:
            self._keep_time()
        self._let_go(ticket, noted, all_written=ticket >= goal)
        return ticket >= goal

    def _take(self, goal: int) -> tuple[list[bytes], int]:
        rows: list[bytes] = []
        size = 0
        era = self._folder.era(self._journal.sequence + 1)
        while True:
            packed, ticket = self._changes.take(ROW_BYTES_MAX, era)
            if packed:
                rows.append(packed)
                size += len(packed)
            if ticket >= goal or size >= FLUSH_BYTES_MAX:
                return rows, ticket

    def _commit(self, rows: list[bytes], notes: list[Note]) -> None:
        began = time.perf_counter()
        packed = [(Kind.ACCOUNTS, it) for it in rows] + [(Kind.NOTE, pack_note(it)) for it in notes]
        before = self._journal.sequence
        self._journal.append(packed, self._now_us())
        put_notes(self._database, notes)
        if self._shelf is not None:
            for seq, row in enumerate(rows, before + 1):
                self._shelf.wrote(seq, row)
        size = sum(len(it) for _, it in packed)
        self._folder.added(size)
        self.written_bytes_count += size
        self.commits_count += 1
        self._time_kept_at = time.monotonic()
        self._observe_commit(time.perf_counter() - began)

    def _demote(self) -> None:
        """Leave stubs of the accounts past those that memory may have. Here, since all that was taken is on disk now."""
        if self._shelf is not None and time.monotonic() >= self._demote_at:
            self._demote_at = time.monotonic() + DEMOTE_SECONDS
            changes = self._changes
            changes.demote(max(0, changes.in_memory_count - self._in_memory_max), self._now_us())

    def _keep_time(self) -> None:
        self._database.execute(PUT_META, checked("time_us", str(self._now_us())))
        self._time_kept_at = time.monotonic()

    def _let_go(self, ticket: int, noted: int, *, all_written: bool) -> None:
        self._watermark.end(ticket, all_written, time.monotonic_ns())
        with self._mutex:
            self._durable_note = noted
            waiting = self._waiting
            done = [it for it in waiting if it.ticket <= ticket and it.noted <= noted]
            if len(done) == len(waiting):
                self._waiting = []
            else:
                self._waiting = [it for it in waiting if it.ticket > ticket or it.noted > noted]
        self._let_go_at = time.monotonic()
        for it in done:
            it.lock.release()

    def _fail(self, error: BaseException) -> None:
        failure = f"the store has failed and takes nothing any more: {error}"
        self._on_failure(failure)
        self.failure = failure
        self._watermark.fail()
        with self._mutex:
            waiting, self._waiting = self._waiting, []
        for it in waiting:
            it.lock.release()
