"""What every change through the control port goes through: noted in the audit log, and on disk before it is answered."""

from __future__ import annotations

import json

from quota.server.rpc import caller
from quota.store import Store


class Keeper:
    """Has changes kept; without a store there is nothing to do. `check`, change, then `keep`."""

    def __init__(self, store: Store | None) -> None:
        self._store = store

    def check(self) -> None:
        """Raise Unavailable if nothing can be kept any more. To be called before anything is changed."""
        if self._store is not None:
            self._store.check()

    def keep(self, what: str, details: dict[str, object]) -> None:
        """Note that `caller` did this, right after it was done, and return once both are on disk. Raises Unavailable."""
        if self._store is not None:
            self._store.audit(caller(), what, json.dumps(details, ensure_ascii=False))
            self._store.wait_all()
