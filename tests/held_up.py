"""A store whose commits wait, as if the disk were slow: another program holds the journal's last segment."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quota.store.journal import NAMES


@contextmanager
def held_up(directory: Path) -> Iterator[None]:
    """Nothing is committed to the store meanwhile."""
    with max(directory.glob(NAMES)).open("rb") as segment:
        fcntl.flock(segment, fcntl.LOCK_SH)
        yield
