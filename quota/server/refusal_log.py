"""Refusals in the log: a line for a plan and the rule that refuses, at most every so often, with their count since the last.

The core decides without Python; what it refused is read from its counters. Nothing is known of single requests here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final

from quota.engine import Engine
from quota.settings import Settings
from quota.types import Verdict

LINES_MAX: Final = 20  # of one look; of a flood the classes with the most refusals

RefusalClass = tuple[str, str, str, str]
"""Catalog, plan, verdict, rule. A plan's models are together: the metrics have them apart."""

logger = logging.getLogger(__name__)


class RefusalLog:
    """`look` once a second, from one thread. `settings` returns those in force; tests give their own seconds."""

    def __init__(
        self, engine: Engine, settings: Callable[[], Settings], *, seconds: Callable[[], float] = monotonic
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._seconds = seconds
        self._told: Counter[RefusalClass] = Counter()
        self._told_at: dict[RefusalClass, float] = {}

    def look(self) -> None:
        """Log the classes with refusals that were not told, whose last line is long enough ago."""
        every_s = self._settings().log_refusals_ms / 1000
        counts = self._counts()
        if not every_s:
            self._told = counts
            return
        now = self._seconds()
        due = (counts - self._told).most_common()
        due = [(it, count) for it, count in due if now - self._told_at.get(it, -every_s) >= every_s]
        for it, count in due[:LINES_MAX]:
            self._told[it] += count
            self._told_at[it] = now
            catalog, plan, verdict, rule = it
            fields = {"catalog": catalog, "plan": plan, "verdict": verdict, "rule": rule, "count": count}
            logger.info("refused", extra=fields)

    def _counts(self) -> Counter[RefusalClass]:
        counts: Counter[RefusalClass] = Counter()
        for catalog, plan, _, verdict, rule, count in self._engine.decisions():
            if verdict != Verdict.ALLOWED.name:
                counts[catalog, plan, verdict, rule] += count
        return counts
