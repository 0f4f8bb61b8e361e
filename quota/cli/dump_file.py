"""Accounts with what they have used, an account a line, as JSON.

    {"id": "ada", "catalog": "glm-2026", "plan": "pro", "subscribed_at_ms": 1783321200000, "period": "month",
     "expires_at_ms": 0, "overrides": {"calls": 8}, "used_micro": {"prompts-5h": 3000000}, "record": "AAAA..."}

`record` is the server's own, in base64: what was used, to the last detail. `used_micro` is for people to read, and is not
read back. What stands before it is: to change a plan, change it there; to start from nothing, take `record` out.
"""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from quota.cli.accounts_file import BAD_LINES_MAX, BadLine
from quota.v1 import admin_pb2

KEYS: Final = (
    "id", "catalog", "plan", "subscribed_at_ms", "period", "expires_at_ms", "overrides", "used_micro", "record",
)  # fmt: skip


def line_of(record: admin_pb2.AccountRecord) -> str:
    """Return an account's line, without its end."""
    account = record.account
    return json.dumps(
        {
            "id": account.id,
            "catalog": account.catalog,
            "plan": account.plan,
            "subscribed_at_ms": account.subscribed_at_ms,
            "period": account.period,
            "expires_at_ms": account.expires_at_ms,
            "overrides": {override.limit_id: override.limit for override in account.overrides},
            "used_micro": {limit.id: limit.used_micro for limit in record.limits},
            "record": b64encode(record.record).decode(),
        },
        ensure_ascii=False,
    )


class DumpFile:
    """Iterate for the accounts of the good lines; what was wrong is known afterwards.

    `lines` gives the line of each account, by its place; `bad_lines` line and reason of those that could not be read;
    `fault` why it was not read to its end, as `LINE: reason`, else empty. `raw` is any binary file.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.lines = array("Q")
        self.bad_lines: list[tuple[int, str]] = []
        self.fault = ""

    def __iter__(self) -> Iterator[admin_pb2.AccountRecord]:
        try:
            for number, line in enumerate(self._raw, 1):
                try:
                    record = _record(line)
                except BadLine as error:
                    self.bad_lines.append((number, str(error)))
                    if len(self.bad_lines) == BAD_LINES_MAX:
                        self.fault = f"{number}: {BAD_LINES_MAX} bad lines; not read on"
                        return
                    continue
                self.lines.append(number)
                yield record
        except ValueError:  # the file was closed: who reads us has lost the server
            return


def _record(line: bytes) -> admin_pb2.AccountRecord:
    """Return what a line says. Raises BadLine."""
    try:
        row = json.loads(line)
    except ValueError:  # also of bytes that are no UTF-8
        raise BadLine("not JSON") from None
    if not isinstance(row, dict):
        raise BadLine(f"not an account; allowed: an object with {', '.join(KEYS)}")
    for key in row:
        if key not in KEYS:
            raise BadLine(f"{key[:80]!r} is no key; allowed: {', '.join(KEYS)}")
    account = admin_pb2.Account(
        id=_text(row, "id"),
        catalog=_text(row, "catalog"),
        plan=_text(row, "plan"),
        subscribed_at_ms=_whole("subscribed_at_ms", row.get("subscribed_at_ms", 0)),
        period=_text(row, "period"),
        expires_at_ms=_whole("expires_at_ms", row.get("expires_at_ms", 0)),
        overrides=_overrides(row.get("overrides", {})),
    )
    return admin_pb2.AccountRecord(account=account, record=_blob(row.get("record", "")))


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key, "")
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise BadLine(f"{key}: {value!r:.80} is not allowed; allowed: a text")
    return value


def _whole(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise BadLine(f"{key}: {value!r:.80} is not allowed; allowed: a whole number, 0 or above")
    return value


def _overrides(value: object) -> list[admin_pb2.Override]:
    if not isinstance(value, dict):
        raise BadLine(f'overrides: {value!r:.80} is not allowed; allowed: an object such as {{"calls": 8}}')
    return [
        admin_pb2.Override(limit_id=_text({"overrides": id}, "overrides"), limit=_whole(f"overrides.{id}", limit))
        for id, limit in value.items()
    ]


def _blob(value: object) -> bytes:
    try:
        return b64decode(value, validate=True) if isinstance(value, str) else b64decode("?", validate=True)
    except ValueError:
        raise BadLine(f"record: {value!r:.80} is not allowed; allowed: base64 as it was dumped, or none") from None
