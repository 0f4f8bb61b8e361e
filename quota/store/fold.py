"""Folding: journal rows into the snapshot, in pieces small enough that no commit waits long for one.

The writing thread folds, between its commits. A journal up to FOLD_BYTES is left alone: the longer it is, the more rows
of one account fold into one. Past that a tenth of the time goes into folding, or what time is left; past JOURNAL_BYTES_MAX
nothing is written until it has been folded back below, so that the file stays bounded.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final
from zlib import crc32

from quota.errors import StoreError
from quota.store.format import PUT_META, PUT_SNAPSHOT, checked, checksum, unpack
from quota.store.shelf import Shelf

FOLD_BYTES = 16_777_216
JOURNAL_BYTES_MAX = 134_217_728
PIECE_BYTES: Final = 65_536
REST: Final = 9  # times as long as a piece took, before the next one


class Folder:
    """Folds in the writing thread. `journal_bytes` is what lies in the journal at start."""

    def __init__(self, database: sqlite3.Connection, journal_bytes: int, shelf: Shelf | None = None) -> None:
        self._database = database
        self._shelf = shelf
        self._next_at = 0.0
        self.journal_bytes = journal_bytes
        self.folded_bytes_count = 0

    def added(self, size: int) -> None:
        """Count what came into the journal."""
        self.journal_bytes += size

    def due(self, *, idle: bool) -> bool:
        """Whether a piece is to be folded now."""
        if self.journal_bytes <= FOLD_BYTES:
            return False
        return idle or self.overfull or time.monotonic() >= self._next_at

    @property
    def overfull(self) -> bool:
        """Whether the journal must be folded before more is written to it."""
        return self.journal_bytes > JOURNAL_BYTES_MAX

    def fold(self) -> None:
        """Fold the oldest rows, at least one. Raises StoreError if one has changed since it was written."""
        began = time.monotonic()
        accounts: dict[bytes, bytes] = {}
        size = seq = 0
        for seq, at_us, packed, crc in self._database.execute("SELECT * FROM journal ORDER BY seq"):
            if crc != crc32(packed, checksum(seq, at_us)):
                raise StoreError(f"journal row {seq} has changed since it was written")
            accounts.update(unpack(packed))
            size += len(packed)
            if size >= PIECE_BYTES:
                break
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany(
            PUT_SNAPSHOT, ((id, blob, crc32(blob, crc32(id))) for id, blob in accounts.items() if blob)
        )
        self._database.executemany(
            "DELETE FROM snapshot WHERE id = ?", ((id,) for id, blob in accounts.items() if not blob)
        )
        self._database.execute("DELETE FROM journal WHERE seq <= ?", (seq,))
        self._database.execute(PUT_META, checked("folded", str(seq)))
        self._database.execute(PUT_META, checked("time_us", str(at_us)))
        self._database.execute("COMMIT")
        if self._shelf is not None:
            self._shelf.folded(accounts, seq)
        self.journal_bytes -= size
        self.folded_bytes_count += size
        ended = time.monotonic()
        self._next_at = ended + REST * (ended - began)
