"""The embedded store: one directory, an SQLite file and a journal beside it, one process.

store = Store.open(Path("/var/lib/quotad"), durability=Durability())   # locked; new if there was none
for catalog in store.kept.catalogs: ...                               # before the accounts that are on them
store.restore(engine.ledger)
store.start(engine.ledger, clock.now_us, on_failure)                   # from now on changes are noted and written
decision = engine.admit(request)
store.wait(decision.ticket)                                            # then the answer may leave
store.close()
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from quota._core import Watermark
from quota.errors import StoreError
from quota.store.durability import Durability
from quota.store.earlier import bring_up
from quota.store.fold import Folder
from quota.store.format import FILE, FORMAT, PAGE_BYTES, PUT_META, REPAIR, SCHEMA, checked
from quota.store.journal import NAMES, Journal
from quota.store.load import Kept, Restoring, open_journal, read_kept, read_meta, restore
from quota.store.lock import DirectoryLock
from quota.store.shelf import Shelf
from quota.store.wal import check_log
from quota.store.writer import Changes, Writer

CACHE_KIB: Final = 16_384  # the inner pages of a snapshot of millions, so that a fold reads few
LOG_PAGES: Final = (
    4_000  # of the write-ahead log before they are copied to their places: one written often is copied once
)
LOG_BYTES_MAX: Final = 67_108_864  # what is left of the write-ahead log after a long backup let it grow
READ_BYTES: Final = 4_194_304
STRICT: Final = Durability()


class Tracked(Changes, Restoring, Protocol):
    """The ledger, as far as the store knows it."""

    def track(self) -> None: ...
    def recall_by(self, fetch: Callable[[bytes], bytes]) -> None: ...


class Store:
    """What is in force survives this process. Made by `open`; every method may be called from any thread."""

    def __init__(
        self,
        directory: Path,
        lock: DirectoryLock,
        database: sqlite3.Connection,
        key: int,
        kept: Kept,
        journal: Journal,
        durability: Durability,
        in_memory_max: int,
    ) -> None:
        self.directory = directory
        self.file = directory / FILE
        self.durability = durability
        self.watermark = Watermark(durability.interval_ms * 1_000_000)
        """What is durable, for loops that answer without the GIL."""
        self.kept = kept
        """What the store held when it was opened, beside the accounts."""
        self.journal = journal
        self._key = key
        self._lock = lock
        self._database = database
        self._writer: Writer | None = None
        self._auditing = threading.Lock()  # numbers and notes in one order
        self._audit_sequence = kept.audit_sequence
        self._now_us: Callable[[], int] = lambda: 0
        self._in_memory_max = in_memory_max
        self._shelf = Shelf(self.file, journal) if in_memory_max else None
        self.folder = Folder(database, journal, self._shelf)

    @classmethod
    def open(cls, directory: Path, *, durability: Durability = STRICT, in_memory_max: int = 0) -> Store:
        """Lock the directory and check the file; both are made if absent.

        `in_memory_max` is about how many accounts stay in memory; the others are read again when asked for. 0: all.
        Raises StoreError, which names directory, process, file or row: in use, damaged, or of a newer format.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{directory}: cannot be made: {error.strerror}; --data names another directory, --ephemeral keeps no store"
            ) from error
        lock = DirectoryLock(directory)
        key = secrets.randbits(32)  # if it has none yet
        try:
            database, kept, journal = _open(directory, key)
        except BaseException:
            lock.close()
            raise
        return cls(directory, lock, database, key, kept, journal, durability, in_memory_max)

    # ---- Start and end ----

    def restore(self, ledger: Tracked) -> int:
        """Put every account into the ledger, whose catalogs are loaded; how many records were read. Raises StoreError."""
        try:
            if self._shelf is not None:
                ledger.recall_by(self._shelf.fetch)
            shelf = self._shelf if self.kept.format == FORMAT else None
            return restore(self._database, self.file, self.kept, self.journal, ledger, shelf, self._in_memory_max)
        except sqlite3.Error as error:
            raise StoreError(f"{self.file}: {error}") from error

    def start(
        self,
        ledger: Tracked,
        now_us: Callable[[], int],
        *,
        on_failure: Callable[[str], None],
        observe_commit: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Note every change from now on, and write it.

        `on_failure` is told why, once, if nothing more can be written; `observe_commit` how long each commit took.
        """
        if self.kept.format < FORMAT:
            bring_up(self._database, self.file, self.kept.folded, self._key)
        self.journal.start(self._tell_segment)
        ledger.track()
        self._now_us = now_us
        self._writer = Writer(
            self._database,
            self.journal,
            self.folder,
            ledger,
            now_us,
            self.watermark,
            self._shelf,
            self._in_memory_max,
            on_failure,
            observe_commit,
        )
        self._writer.start()

    def close(self) -> None:
        """Write what is left, give file and directory back. Raises StoreFailed.

        After a failure the file is not touched any more, and stays open until the process ends.
        """
        if self._writer is not None:
            self._writer.close()
        if self._shelf is not None:
            self._shelf.close()
        self.journal.close()
        self._database.close()
        self._lock.close()

    # ---- While it runs ----

    @property
    def writer(self) -> Writer:
        """The writing thread. The store has been started."""
        assert self._writer is not None
        return self._writer

    def check(self) -> None:
        """Raise Unavailable if the store has failed. To be called before anything is charged or changed."""
        self.writer.check()

    def wait(self, ticket: int) -> None:
        """Return once the answer that rests on the ledger's change `ticket` may leave. Raises Unavailable.

        In strict mode that is when the change is on disk; in interval mode at once, unless writing lags behind.
        """
        self.writer.wait(ticket)

    def wait_all(self) -> None:
        """Return once all that was changed, loaded or audited before this call is on disk, in either mode.

        For changes through the control port. Raises Unavailable.
        """
        self.writer.wait_all()

    def put_catalog(self, name: str, yaml: str, version: str, loaded_at_us: int) -> None:
        """Keep a catalog loaded at run time, in place of the one of its name.

        To be called while the catalog is being loaded, before any account can be put on it.
        """
        self.writer.note("catalogs", (name, yaml, version, loaded_at_us))

    def audit(self, who: str, what: str, details: str) -> None:
        """Note a change made through the control port, right after it was made; then `wait_all`."""
        with self._auditing:
            self._audit_sequence += 1
            self.writer.note("audit", (self._audit_sequence, self._now_us(), who, what, details))

    @property
    def file_bytes(self) -> int:
        """Bytes on disk, journal and write-ahead log included."""
        names = (FILE, f"{FILE}-wal")
        sizes = ((self.directory / name).stat().st_size for name in names if (self.directory / name).exists())
        return self.journal.file_bytes + sum(sizes)

    def _tell_segment(self, first: int) -> None:
        self._database.execute(PUT_META, checked("journal", str(first)))


def _open(directory: Path, key: int) -> tuple[sqlite3.Connection, Kept, Journal]:
    file = directory / FILE
    log = directory / f"{FILE}-wal"
    if not file.exists():
        for left in (*directory.glob(log.name), *directory.glob(NAMES)):
            raise StoreError(f"{file}: is gone, but {left.name}, which belongs to it, is there: put it back")
        create(directory)
    check_log(log)
    _read_through(file)
    database = connect(file)
    journal: Journal | None = None
    try:
        meta = read_meta(database, file)
        journal = open_journal(database, file, meta, key)
        kept = read_kept(database, file, journal)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return database, kept, journal
    except (sqlite3.Error, ValueError, KeyError) as error:
        _close(database, journal)
        raise StoreError(f"{file}: {error}{'' if _is_of_the_disk(error) else f'; {REPAIR}'}") from error
    except BaseException:
        _close(database, journal)
        raise


def _close(database: sqlite3.Connection, journal: Journal | None) -> None:
    database.close()
    if journal is not None:
        journal.close()


def _read_through(file: Path) -> None:
    """Have the whole file in the page cache: the check of its structure reads it all, but from here to there."""
    try:
        with file.open("rb", buffering=0) as stream:
            while stream.read(READ_BYTES):
                pass
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror}") from error


def _is_of_the_disk(error: Exception) -> bool:
    """Whether the disk is to blame rather than what stands on it."""
    code = getattr(error, "sqlite_errorcode", None)
    of_the_disk = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
    return code is not None and code & 0xFF in (*of_the_disk, sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY)


def connect(file: Path) -> sqlite3.Connection:
    """Open the file for writing, every commit synchronous."""
    try:
        database = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=5)
        for pragma in (
            "journal_mode = WAL", "synchronous = FULL", f"cache_size = -{CACHE_KIB}",
            f"journal_size_limit = {LOG_BYTES_MAX}", f"wal_autocheckpoint = {LOG_PAGES}",
        ):  # fmt: skip
            database.execute(f"PRAGMA {pragma}")
        return database
    except sqlite3.Error as error:
        raise StoreError(f"{file}: {error}") from error


def create(directory: Path, schema: str = SCHEMA) -> None:
    """Make an empty file, whole or not at all: a file that is there is never taken for a new one."""
    new = directory / f"{FILE}.new"
    new.unlink(missing_ok=True)
    try:
        database = sqlite3.connect(new, isolation_level=None)
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.executescript(f"BEGIN; {schema} COMMIT")
        for key, value in (("format", FORMAT), ("key", secrets.randbits(32)), ("folded", 0), ("time_us", 0)):
            database.execute(PUT_META, checked(key, str(value)))
        database.close()
        new.rename(directory / FILE)
        for path in (directory, *directory.parents):
            _sync_directory(path)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{new}: {error}") from error


def _sync_directory(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # not ours, so nothing in it was made just now
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
