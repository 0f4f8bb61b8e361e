"""A store copied while it is written, and put back.

SQLite's backup copies the file as it is at one moment, writers undisturbed: until the copy is done, what they write
stays in the write-ahead log, which grows meanwhile. So the copying is done at once, and only the copy is sent slowly.
What the journal has beyond that moment is folded into the copy, which is a store of its own, with no journal beside it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from quota.errors import FailedPrecondition, StoreError
from quota.store.fold import put_snapshot
from quota.store.format import FILE, PUT_META, checked, unpack, unpack_note
from quota.store.journal import NAMES, Journal
from quota.store.load import put_notes
from quota.store.lock import LOCK_FILE, DirectoryLock
from quota.store.read import check_format, reading
from quota.store.segment import Kind

PIECE_PAGES: Final = 1_000
COMPANIONS: Final = ("", "-wal", "-journal")
"""What SQLite keeps in files beside the one: they belong to it, and to no other. (-shm is rebuilt from -wal.)"""


def copy_store(source: Path, journal: Journal, target: Path, progress: Callable[[int, int], None]) -> None:
    """Copy a store as of now, which this process writes, into a new file. `progress` is told (pages done, pages in all).

    The copy is not synced. Raises StoreError.
    """

    def told(_: int, remaining: int, total: int) -> None:
        progress(total - remaining, total)

    with journal.pinned(), reading(source) as database:
        check_format(source, database)  # and this first look fixes the moment
        try:
            with closing(sqlite3.connect(target, isolation_level=None)) as copy:
                copy.execute("PRAGMA synchronous = OFF")
                database.backup(copy, pages=PIECE_PAGES, progress=told)
                _fold_in(journal, copy)
        except sqlite3.Error as error:
            raise StoreError(f"{target}: cannot be written: {error}") from error


def _fold_in(journal: Journal, copy: sqlite3.Connection) -> None:
    """Put into a copy what the journal has after it."""
    accounts: dict[bytes, bytes] = {}
    notes = []
    meta = dict(copy.execute("SELECT key, value FROM meta"))
    # A number of its own: a journal of the store that it was copied from is not its journal.
    meta |= {"key": str(secrets.randbits(32)), "journal": "0"}
    for row in journal.rows(int(meta["folded"])):
        if row.kind == Kind.NOTE:
            notes.append(unpack_note(row.packed))
        else:
            accounts.update(unpack(row.packed))
        meta |= {"folded": str(row.seq), "time_us": str(row.at_us)}
    put_snapshot(copy, accounts)
    copy.executemany(PUT_META, (checked(key, value) for key, value in meta.items()))
    copy.execute("COMMIT")
    put_notes(copy, notes)


def check_store(file: Path) -> None:
    """Raise StoreError, naming the file, unless it is a store whose pages hold together."""
    with reading(file) as database:
        check_format(file, database)
        found = [text for (text,) in database.execute("PRAGMA integrity_check(1)")]
    if found != ["ok"]:
        raise StoreError(f"{file}: damaged: {found[0]}")


def restore_store(file: Path, directory: Path, *, replace: bool, aside: str) -> Path | None:
    """Make a backup the store of a directory, which is made if need be. Return where the old store was put, None if none was.

    `replace` lets a store there be replaced; it is kept under its name with `aside` after it. Raises StoreError, and
    FailedPrecondition if there is something in the directory and `replace` does not say so.
    """
    check_store(file)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not replace and any(it.name != LOCK_FILE for it in directory.iterdir()):
            raise FailedPrecondition(f"{directory}: not empty; with --replace the store that is there is put aside")
        with closing(DirectoryLock(directory)):
            arriving = directory / f"{FILE}.arriving"
            shutil.copyfile(file, arriving)
            return exchange(directory, arriving, aside)
    except OSError as error:
        raise StoreError(f"{directory}: {error.strerror}") from error


def exchange(directory: Path, arriving: Path, aside: str) -> Path | None:
    """Put a whole file in the place of the store, which keeps its bytes under its names with `aside` after them.

    The new file must not meet the old one's write-ahead log and journal, so these go first; dying in between leaves the store
    without it, but all of it aside. With the directory's lock held.
    """
    old: Path | None = None
    sync(arriving)
    present = [directory / (FILE + companion) for companion in COMPANIONS if (directory / (FILE + companion)).exists()]
    present += directory.glob(NAMES)
    for it in present:
        kept = directory / (it.name.replace(FILE, FILE + aside, 1) if it.name.startswith(FILE) else it.name + aside)
        kept.hardlink_to(it)
        old = old or kept
    sync(directory)
    for it in (*present, directory / f"{FILE}-shm"):
        if it.name != FILE:
            it.unlink(missing_ok=True)
    arriving.rename(directory / FILE)
    sync(directory)
    return old


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on disk before this returns."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
