"""A store whose commits wait, as if the disk were slow: another program holds its lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held_up(directory: Path) -> Iterator[None]:
    """Nothing is committed to the store meanwhile."""
    database = sqlite3.connect(directory / "quotad.db", isolation_level=None, check_same_thread=False)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()
