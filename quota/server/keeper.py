"""What every change through the control port goes through: noted in the audit log, on disk before it is answered, and logged."""

from __future__ import annotations

import json
import logging
from typing import Final

from quota.server.rpc import caller
from quota.server.traces import Traces
from quota.store import Store

# Of what the audit log has, what the server's log may show: nothing that names an account or was written by hand.
LOGGED: Final = ("catalog", "plan", "version", "purge", "factor_micro", "pool", "limit_id", "micro", "adopted_ms")

logger = logging.getLogger(__name__)


class Keeper:
    """Has changes kept; without a store there is nothing to do. `check`, change, then `keep`."""

    def __init__(self, store: Store | None, traces: Traces) -> None:
        self._store = store
        self._traces = traces

    def check(self) -> None:
        """Raise Unavailable if nothing can be kept any more. To be called before anything is changed."""
        if self._store is not None:
            self._store.check()

    def keep(self, what: str, details: dict[str, object]) -> None:
        """Note that `caller` did this, right after it was done, and return once both are on disk. Raises Unavailable."""
        if self._store is not None:
            self._store.audit(caller(), what, json.dumps(details, ensure_ascii=False))
            with self._traces.step("store.wait"):
                self._store.wait_all()
        fields: dict[str, object] = {key: details[key] for key in LOGGED if key in details}
        if isinstance(accounts := details.get("accounts"), list):
            fields["accounts"] = len(accounts)
        logger.info("changed", extra={"what": what, "who": caller(), **fields})
