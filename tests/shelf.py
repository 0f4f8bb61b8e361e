"""A store in memory, for accounts that were demoted."""

from __future__ import annotations


class Shelf:
    """Where demoted accounts are: all that was ever taken, the latest last."""

    def __init__(self, engine):
        self.ledger, self.blobs, self.fetched = engine.ledger, {}, 0
        self.ledger.track()
        self.ledger.recall_by(self.fetch)

    def fetch(self, id):
        self.fetched += 1
        return self.blobs[id]

    def put_away(self, now_ms, count=1_000_000):
        packed, at = self.ledger.take(1 << 30)[0], 0
        while at < len(packed):
            size = int.from_bytes(packed[at : at + 2], "little")
            id, at = packed[at + 2 : at + 2 + size], at + 2 + size
            size = int.from_bytes(packed[at : at + 4], "little")
            self.blobs[id], at = packed[at + 4 : at + 4 + size], at + 4 + size
        return self.ledger.demote(count, now_ms * 1000)
