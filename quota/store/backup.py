"""A store copied while it is written, and put back.

SQLite's backup copies the file as it is at one moment, writers undisturbed: until the copy is done, what they write
stays in the write-ahead log, which grows meanwhile. So the copying is done at once, and only the copy is sent slowly.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from quota.errors import FailedPrecondition, StoreError
from quota.store.format import FILE
from quota.store.lock import LOCK_FILE, DirectoryLock
from quota.store.read import check_format, reading

PIECE_PAGES: Final = 1_000
COMPANIONS: Final = ("", "-wal", "-journal")
"""What SQLite keeps in files beside the one: they belong to it, and to no other. (-shm is rebuilt from -wal.)"""


def copy_store(source: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Copy a store as of now, alive or not, into a new file. `progress` is told (pages done, pages in all).

    The copy is not synced. Raises StoreError.
    """

    def told(_: int, remaining: int, total: int) -> None:
        progress(total - remaining, total)

    with reading(source) as database:
        check_format(source, database)  # and this first look fixes the moment
        try:
            with closing(sqlite3.connect(target)) as copy:
                copy.execute("PRAGMA synchronous = OFF")
                database.backup(copy, pages=PIECE_PAGES, progress=told)
        except sqlite3.Error as error:
            raise StoreError(f"{target}: cannot be written: {error}") from error


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
    """Put a whole file in the place of the store, which keeps its bytes under its name with `aside` after it.

    The new file must not meet the old one's write-ahead log, so that goes first; dying in between leaves the store without it,
    but all of it aside. With the directory's lock held.
    """
    old: Path | None = None
    sync(arriving)
    present = [directory / (FILE + companion) for companion in COMPANIONS if (directory / (FILE + companion)).exists()]
    for it in present:
        kept = directory / it.name.replace(FILE, FILE + aside, 1)
        kept.hardlink_to(it)
        old = old or kept
    sync(directory)
    for it in (*present[1:], directory / f"{FILE}-shm"):
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
