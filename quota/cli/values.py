"""Values as a command line writes them. Each reader is a `type` of argparse: it says what is allowed."""

from __future__ import annotations

import argparse
import re
from typing import Final

from quota.cli import show
from quota.v1 import admin_pb2

WHEN: Final = "Unix milliseconds, or ISO 8601 such as 2026-07-12T04:30:37+08:00; UTC where no offset is given"


def moment(text: str) -> int:
    """Unix milliseconds of a moment."""
    try:
        return show.parse_moment(text)
    except ValueError:
        raise _wrong(text, WHEN) from None


def duration(text: str) -> int:
    """Milliseconds of a duration."""
    try:
        return show.parse_duration(text)
    except ValueError:
        raise _wrong(text, f"a duration such as {show.DURATIONS}") from None


def units(text: str) -> int:
    """Micro-units of an amount above 0."""
    try:
        micro = show.parse_units(text)
    except ValueError:
        micro = 0
    if micro == 0:
        raise _wrong(text, "units above 0 with at most 6 decimals, such as 5 or 0.25")
    return micro


def factor(text: str) -> int:
    """Millionths of a part of the whole."""
    try:
        micro = show.parse_units(text)
    except ValueError:
        micro = -1
    if not 0 <= micro <= 1_000_000:
        raise _wrong(text, "0 to 1 with at most 6 decimals, such as 0.8")
    return micro


def draw(text: str) -> tuple[str, int]:
    """A meter and an amount."""
    match = re.fullmatch(r"(?P<meter>[^=]+)=(?P<amount>[0-9]{1,18})", text)
    if match is None:
        raise _wrong(text, "METER=AMOUNT, such as web_search=2")
    return match["meter"], int(match["amount"])


def override(text: str) -> admin_pb2.Override:
    """A limit of an account's own."""
    match = re.fullmatch(r"(?P<id>.+)=(?P<limit>[0-9]{1,18})", text)
    if match is None:
        raise _wrong(text, "LIMIT=UNITS, such as prompts-5h=200")
    return admin_pb2.Override(limit_id=match["id"], limit=int(match["limit"]))


def _wrong(text: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: {allowed}")
