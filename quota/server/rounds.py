"""The one thread that looks after what changes without being asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

LOOK_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Rounds:
    """Calls each of `looks` once a second, one after the other. `start`, `hurry` and `close`."""

    def __init__(self, looks: Sequence[Callable[[], None]]) -> None:
        self._looks = looks
        self._hurried = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="rounds", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def hurry(self) -> None:
        """Look now."""
        self._hurried.set()

    def close(self) -> None:
        """End; what has been started never looks again."""
        self._closing = True
        self._hurried.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._hurried.wait(LOOK_SECONDS)
            self._hurried.clear()
            if self._closing:
                return
            for look in self._looks:
                try:
                    look()
                except Exception:  # a bug in one look must not end the others
                    logger.exception("a look failed")
