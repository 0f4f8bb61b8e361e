"""Stamps: whether files are still those that were read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 1.0  # between two looks at files that are read again when they change

Stamp = tuple[int, int, int] | None
"""None: the file cannot be seen."""


def stamps(files: Iterable[Path | None]) -> list[Stamp]:
    """Return a stamp for each file; another one once it was written or replaced."""
    return [_stamp(file) for file in files if file is not None]


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
