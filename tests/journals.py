"""The journal of a store that nobody writes: folded, damaged, looked into."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from quota.store.fold import Folder
from quota.store.journal import NAMES, Journal
from quota.store.segment import HEADER_BYTES, Row


def opened_journal(directory: Path) -> Journal:
    """Open the journal as a start does. Raises StoreError."""
    with closing(sqlite3.connect(directory / "quotad.db")) as database:
        meta = dict(database.execute("SELECT key, value FROM meta"))
    return Journal.open(directory, int(meta["key"]), int(meta["folded"]), int(meta["journal"]))


def journal_rows(directory: Path) -> list[Row]:
    """Return the rows that are not in the snapshot."""
    with closing(opened_journal(directory)) as journal:
        return list(journal.rows(journal.folded))


def fold(directory: Path) -> None:
    """Fold the journal into the snapshot, as the server does when it has grown."""
    with (
        closing(sqlite3.connect(directory / "quotad.db", isolation_level=None)) as database,
        closing(opened_journal(directory)) as journal,
    ):
        folder = Folder(database, journal)
        while folder.journal_bytes:
            folder.fold()


def last_segment(directory: Path) -> Path:
    return max(directory.glob(NAMES))


def overwrite(directory: Path, row: Row, at: int, data: bytes) -> None:
    """Write over what a row of the last segment packs, from its byte `at` on; below 0: from its end."""
    place = row.end + at if at < 0 else row.at + HEADER_BYTES + at
    with last_segment(directory).open("r+b") as segment:
        segment.seek(place)
        segment.write(data)
