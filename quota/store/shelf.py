"""Where accounts are that memory has no room for: the latest blob of each, in the journal or in the snapshot.

The journal has no index on disk, so the row that each of its accounts was last written in is kept here, for as long as the
row is not folded.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from quota.errors import StoreError
from quota.store.format import unpack
from quota.store.journal import Journal


class Shelf:
    """Fetches blobs by id, whichever thread asks. Told by the writing thread what it wrote and folded."""

    def __init__(self, file: Path, journal: Journal) -> None:
        self._file = file
        self._journal = journal
        self._rows: dict[bytes, int] = {}  # id -> journal row
        self._lock = threading.Lock()  # guards the connection
        self._database: sqlite3.Connection | None = None

    def wrote(self, sequence: int, packed: bytes) -> None:
        """Note what stands in a journal row; to be called before its accounts may be demoted."""
        for id, _ in unpack(packed):
            self._rows[id] = sequence

    def folded(self, ids: Iterable[bytes], sequence: int) -> None:
        """Forget the journal rows up to this one, now that the accounts are in the snapshot."""
        for id in ids:
            if self._rows[id] <= sequence:
                del self._rows[id]

    def fetch(self, id: bytes) -> bytes:
        """Return the blob last written of an account. Raises StoreError, and never finds an empty one."""
        try:
            with self._lock:
                blob = self._in_journal(id) or self._in_snapshot(id)
        except (sqlite3.Error, StoreError, ValueError) as error:
            raise StoreError(f"{self._file}: account {_shown(id)} cannot be read: {error}") from error
        if not blob:
            raise StoreError(f"{self._file}: account {_shown(id)} is not there any more")
        return blob

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _in_journal(self, id: bytes) -> bytes | None:
        sequence = self._rows.get(id)
        row = self._journal.row(sequence) if sequence is not None else None
        return dict(unpack(row.packed)).get(id) if row is not None else None  # folded, perhaps just now

    def _in_snapshot(self, id: bytes) -> bytes | None:
        row = self._reader().execute("SELECT blob, crc FROM snapshot WHERE id = ?", (id,)).fetchone()
        if row is None:
            return None
        blob: bytes = row[0]
        if row[1] != crc32(blob, crc32(id)):
            raise ValueError("its row has changed since it was written")
        return blob

    def _reader(self) -> sqlite3.Connection:
        if self._database is None:
            uri = f"{self._file.absolute().as_uri()}?mode=ro"
            self._database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        return self._database


def _shown(id: bytes) -> str:
    return repr(id.decode("utf-8", "backslashreplace"))
