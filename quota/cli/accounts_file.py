"""A CSV file of accounts, read line by line while it is being sent."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator
from typing import BinaryIO, Final

from quota.cli.show import parse_moment
from quota.v1 import admin_pb2

COLUMNS: Final = (
    "id", "catalog", "plan", "subscribed_at", "subscribed_at_ms", "period", "expires_at", "expires_at_ms", "overrides",
)  # fmt: skip
NEEDED: Final = ("id", "plan")
OVERRIDE: Final = re.compile(r"(.+?)=([0-9]{1,18})(?:;|$)")
"""One of a cell. An id may hold any character, so it reaches to the first `=` that a number and an end follow."""
BAD_LINES_MAX: Final = 1_000_000
"""A file with more of them is no file of accounts, and is not read on."""


class BadLine(Exception):
    """A line cannot be read as an account. The text says why."""


class AccountsFile:
    """Iterate for the accounts of the good lines; what was wrong is known afterwards.

    `lines` gives the line of each account, by its place; `bad_lines` line and reason of those that could not be read;
    `fault` what is wrong with the file as a whole, as `LINE: reason`, else empty. `raw` is any binary file.
    """

    def __init__(self, raw: BinaryIO) -> None:
        # Bytes that are no UTF-8 become surrogates, so that only their own lines are bad.
        self._text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        self.lines = array("Q")
        self.bad_lines: list[tuple[int, str]] = []
        self.fault = ""

    def __iter__(self) -> Iterator[admin_pb2.Account]:
        reader = csv.reader(self._text, strict=True)
        columns: list[str] | None = None
        while len(self.bad_lines) < BAD_LINES_MAX:
            line = reader.line_num + 1
            try:
                cells = next(reader)
                if not cells:
                    continue
                if columns is None:
                    columns = _columns(cells)
                    continue
                account = _account(columns, cells)
            except StopIteration:
                if columns is None:
                    self.fault = f"1: the file is empty; allowed: a first line such as {','.join(NEEDED)}"
                return
            except (csv.Error, BadLine) as error:
                if columns is None:
                    self.fault = f"{line}: {error}"
                    return
                self.bad_lines.append((line, str(error)))
                continue
            except ValueError:  # the file was closed: who reads us has lost the server
                return
            self.lines.append(line)
            yield account
        self.fault = f"{line}: more than {BAD_LINES_MAX} bad lines; not read on"


def _columns(cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for column in columns:
        if column not in COLUMNS:
            raise BadLine(f"{column!r} is no column; allowed: {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise BadLine(f"column {column} stands twice")
    for column in NEEDED:
        if column not in columns:
            raise BadLine(f"column {column} is missing")
    for column in ("subscribed_at", "expires_at"):
        if {column, column + "_ms"} <= set(columns):
            raise BadLine(f"{column} and {column}_ms say the same; allowed: one of them")
    return columns


def _account(columns: list[str], cells: list[str]) -> admin_pb2.Account:
    """Return the account of a line. Raises BadLine."""
    if len(cells) != len(columns):
        raise BadLine(f"{len(cells)} cells, but {len(columns)} columns")
    row = dict(zip(columns, cells, strict=True))
    for column, cell in row.items():
        if any("\ud800" <= character <= "\udfff" for character in cell):
            raise BadLine(f"{column}: not UTF-8")
    return admin_pb2.Account(
        id=row["id"],
        catalog=row.get("catalog", ""),
        plan=row["plan"],
        subscribed_at_ms=_moment(row, "subscribed_at"),
        period=row.get("period", ""),
        expires_at_ms=_moment(row, "expires_at"),
        overrides=_overrides(row.get("overrides", "").strip()),
    )


def _moment(row: dict[str, str], column: str) -> int:
    for name in (column, column + "_ms"):
        cell = row.get(name, "").strip()
        if cell:
            try:
                return parse_moment(cell)
            except ValueError:
                raise BadLine(f"{name}: {cell[:80]!r} is not allowed; allowed: Unix milliseconds or ISO 8601") from None
    return 0


def overrides_cell(account: admin_pb2.Account) -> str:
    """Return an account's own limits as a cell: `prompts-5h=200;calls=8`."""
    return ";".join(f"{override.limit_id}={override.limit}" for override in account.overrides)


def _overrides(cell: str) -> list[admin_pb2.Override]:
    overrides = []
    at = 0
    while at < len(cell):
        found = OVERRIDE.match(cell, at)
        if found is None:
            raise BadLine(f"overrides: {cell[at:][:80]!r} is not allowed; allowed: such as prompts-5h=200;calls=8")
        overrides.append(admin_pb2.Override(limit_id=found[1], limit=int(found[2])))
        at = found.end()
    return overrides
