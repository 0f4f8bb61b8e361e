"""Files that a command writes, whole or not at all, and the bar that tells how far it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from quota.cli.failure import Failure


@contextmanager
def new_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Open a file to be written. It appears under its name, synced, at the end of the `with`, unless that fails.

    Raises Failure, if there is one already and `replace` does not say so, or if it cannot be written.
    """
    if path.exists() and not replace:
        raise Failure(f"{path}: exists; --replace overwrites it")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        part.rename(path)
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def progress() -> Progress:
    """Return a bar on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
