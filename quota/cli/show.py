"""How values are shown: amounts, times and waits for people, plain data for machines."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.message import Message

DURATIONS: Final = "90s, 5m, 1h or 500ms"
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def units(micro: int) -> str:
    """Return micro-units as units: 1,500,000 is `1.5`."""
    whole, part = divmod(abs(micro), 1_000_000)
    text = f"{whole}.{part:06}".rstrip("0").rstrip(".")
    return "-" + text if micro < 0 else text


def duration(ms: int) -> str:
    """Return a wait in words, rounded up: `4h 59m 58s`, from a day on without seconds: `6d 3h 12m`."""
    seconds = max(0, -(-ms // 1000))
    if seconds >= 86_400:
        seconds = -(-seconds // 60) * 60
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    parts = [
        f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")) if number
    ]
    return " ".join(parts) or "0s"


def moment(ms: int) -> str:
    """Return a moment in the machine's time zone, to the second: `2026-07-12 04:30:37 CEST`."""
    return f"{_local(ms):%Y-%m-%d %H:%M:%S %Z}"


def wall_time(ms: int) -> str:
    """Return a moment likewise, where the zone is told elsewhere: `2026-07-12 04:30:37`."""
    return f"{_local(ms):%Y-%m-%d %H:%M:%S}"


def zone() -> str:
    """Return the name of the machine's time zone as of now."""
    return f"{datetime.now(UTC).astimezone():%Z}"


def from_now(ms: int) -> str:
    """Return how far a moment is from now, in words: `in 4h 59m 58s`."""
    return f"in {duration(ms - time.time_ns() // 1_000_000)}"


def moment_iso(ms: int) -> str:
    """Return a moment as ISO 8601 in UTC, to the millisecond; `accounts import` reads it back."""
    seconds, part = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{part:03}Z"


def parse_moment(text: str) -> int:
    """Read a moment: Unix milliseconds, or ISO 8601, in UTC where it says no offset. Raises ValueError."""
    if text.isascii() and text.isdigit():
        if len(text) > 18:
            raise ValueError(f"{text!r} is no moment")
        return int(text)
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    since = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def parse_duration(text: str) -> int:
    """Read a duration such as `90s`, `5m`, `1h` or `500ms`, in milliseconds. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h)", text)
    if found is None:
        raise ValueError(f"{text!r} is no duration")
    return int(found[1]) * _UNIT_MS[found[2]]


def parse_units(text: str) -> int:
    """Read units with at most 6 decimals, such as `5` or `0.25`, as micro-units. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,13})(?:\.([0-9]{1,6}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is no amount")
    return int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0"))


def plain(message: Message) -> dict[str, Any]:
    """Return a message as plain data under the proto's names. Numbers stay numbers, and what is absent is left out."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        # Asked of the value, because the descriptor's word for it is not the same in all versions of protobuf.
        if not isinstance(value, str | int | float | bytes | Message):
            result[field.name] = [_plain_value(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            result[field.name] = _plain_value(field, value)
    return result


def as_json(message: Message) -> str:
    """Return a message as one line of JSON."""
    return json.dumps(plain(message), ensure_ascii=False)


def _local(ms: int) -> datetime:
    return datetime.fromtimestamp(-(-ms // 1000), UTC).astimezone()  # up, as the vendor texts are


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value
