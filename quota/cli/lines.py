"""What became of a file of accounts that was sent line by line."""

from __future__ import annotations

import sys
from array import array
from pathlib import Path
from typing import Protocol

from quota.cli.failure import Failure
from quota.v1 import admin_pb2


class Lines(Protocol):
    """A file that was read while it was sent."""

    lines: array[int]
    bad_lines: list[tuple[int, str]]
    fault: str


def report(
    path: Path,
    file: Lines,
    response: admin_pb2.ImportAccountsResponse | admin_pb2.LoadAccountsResponse,
    *,
    as_json: bool,
) -> int:
    """Print what became of a file's lines, and return the exit status. Raises Failure for a file that was not read to its end."""
    if file.fault:
        raise Failure(f"{path}:{file.fault}")
    for line, reason in sorted([*file.bad_lines, *((file.lines[e.index], e.message) for e in response.errors)]):
        print(f"{path}:{line}: {reason}", file=sys.stderr)
    untold = response.failed - len(response.errors)
    if untold:
        print(f"{path}: and {untold} bad lines more", file=sys.stderr)
    bad = response.failed + len(file.bad_lines)
    if as_json:
        print(f'{{"loaded": {response.loaded}, "failed": {bad}}}')
    else:
        print(f"{response.loaded} accounts loaded, {bad} bad lines")
    return 1 if bad else 0
