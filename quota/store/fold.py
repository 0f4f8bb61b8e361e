"""Folding: journal rows into the snapshot, in pieces small enough that no commit waits long for one.

The writing thread folds, between its commits. A journal up to FOLD_BYTES is left alone. Past that a tenth of the time goes
into folding, or what time is left; past JOURNAL_BYTES_MAX nothing is written until it has been folded back below, so that
the file stays bounded.

A piece is durable in the snapshot before its segment is let go of. An account that was written again since need not be
folded: its later row stands in the journal, and a restart reads that after the snapshot. So accounts that change all the
time cost nothing but their journal rows, and the longer the journal, the more of them there are. The ledger knows in
which era each account was last taken. An era is a part of the journal, of ERA_BYTES or more, that begins with a commit:
all rows of one commit are taken in one era, which is therefore told before.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from typing import Final, Protocol
from zlib import crc32

from quota.store.format import PUT_META, PUT_SNAPSHOT, checked, unpack
from quota.store.journal import Journal
from quota.store.segment import Kind
from quota.store.shelf import Shelf

FOLD_BYTES = 67_108_864
JOURNAL_BYTES_MAX = 134_217_728
ERA_BYTES = 16_777_216
ERAS_MAX: Final = 15  # numbers that the ledger keeps apart, from 1 on; 0 is what an earlier process wrote
PIECE_BYTES: Final = 65_536  # written in one piece
PIECE_READ_BYTES: Final = 524_288  # and read for it
REST: Final = 9  # times as long as a piece took, before the next one


class Taken(Protocol):
    """The ledger, as far as it knows what is out of date."""

    def latest(self, packed: bytes, era: int) -> bytes: ...


class Folder:
    """Folds in the writing thread."""

    def __init__(self, database: sqlite3.Connection, journal: Journal, shelf: Shelf | None = None) -> None:
        self.taken: Taken | None = None
        """Who knows what is out of date; None: nobody, and all is folded."""
        self._eras: deque[tuple[int, int]] = deque([(0, 0)])  # first row, and number, of those in the journal
        self._era_bytes = ERA_BYTES  # in the last of them
        self._database = database
        self._journal = journal
        self._shelf = shelf
        self._next_at = 0.0
        self.folded_bytes_count = 0

    def era(self, seq: int) -> int:
        """Return the era of the next commit, whose first row will be `seq`. To be asked before anything is taken for it."""
        if self._era_bytes >= ERA_BYTES and len(self._eras) < ERAS_MAX:
            self._eras.append((seq, self._eras[-1][1] % ERAS_MAX + 1))
            self._era_bytes = 0
        return self._eras[-1][1]

    def added(self, size: int) -> None:
        """Count what came into the journal."""
        self._era_bytes += size

    @property
    def journal_bytes(self) -> int:
        """What rows of the journal take that are not in the snapshot."""
        return self._journal.bytes_after(self._journal.folded)

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
        journal_bytes = self.journal_bytes
        accounts: dict[bytes, bytes] = {}
        size = kept_size = seq = at_us = 0
        for row in self._journal.rows(self._journal.folded):
            seq, at_us = row.seq, row.at_us
            size += len(row.packed)
            if row.kind == Kind.ACCOUNTS:  # what was noted stands in its table
                kept = self._latest(seq, row.packed)
                accounts.update(unpack(kept))
                kept_size += len(kept)
            left = self._journal.bytes_after(seq)
            if journal_bytes - left >= PIECE_READ_BYTES or kept_size >= PIECE_BYTES or left <= FOLD_BYTES:
                break
        put_snapshot(self._database, accounts)
        self._database.execute(PUT_META, checked("folded", str(seq)))
        self._database.execute(PUT_META, checked("time_us", str(at_us)))
        self._database.execute("COMMIT")
        self._journal.let_go(seq)
        if self._shelf is not None:
            self._shelf.folded(accounts, seq)
        self.folded_bytes_count += size
        ended = time.monotonic()
        self._next_at = ended + REST * (ended - began)

    def _latest(self, seq: int, packed: bytes) -> bytes:
        """Return what of a row has not been written again in a later era. Rows are asked about in their order."""
        while len(self._eras) > 1 and self._eras[1][0] <= seq:
            self._eras.popleft()
        return packed if self.taken is None else self.taken.latest(packed, self._eras[0][1])


def put_snapshot(database: sqlite3.Connection, accounts: dict[bytes, bytes]) -> None:
    """Begin a transaction in which the snapshot has these accounts; those without a blob it has no more."""
    database.execute("BEGIN IMMEDIATE")
    database.executemany(PUT_SNAPSHOT, ((id, blob, crc32(blob, crc32(id))) for id, blob in accounts.items() if blob))
    database.executemany("DELETE FROM snapshot WHERE id = ?", ((id,) for id, blob in accounts.items() if not blob))
