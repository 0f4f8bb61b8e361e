"""Texts to values: whole numbers, exact fractions, amounts, durations, times of day, moments, names.

Every function here is pure. Those with bounds are made by a function that takes the bounds, so that the message names
them: `whole(1, 64)` is a reader of texts. A reader raises `Wrong`, with what is wrong and what is allowed.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from fractions import Fraction

from quota.catalog import bounds
from quota.catalog.model import Span

MICRO = 1_000_000
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_RATIONAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18}|/[0-9]{1,18})?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,9})(s|mo|m|h|d|w|y)", re.ASCII)
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_MOMENT = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?))?", re.ASCII)
_EXACT_US = {"s": bounds.SECOND_US, "m": bounds.MINUTE_US, "h": bounds.HOUR_US, "d": bounds.DAY_US, "w": bounds.WEEK_US}
_MONTHS = {"mo": 1, "y": 12}
_EPOCH = datetime.datetime(1970, 1, 1)


class Wrong(Exception):
    """A text that cannot be read: what is wrong, and what is allowed."""

    def __init__(self, what: str, allowed: str) -> None:
        super().__init__(f"{what}; allowed: {allowed}")
        self.what = what
        self.allowed = allowed


def shown(text: str) -> str:
    """The text as quoted in a message, cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def whole(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text):
            raise Wrong(f"{shown(text)} is not a whole number", f"{low} to {high}")
        if not low <= int(text) <= high:
            raise Wrong(f"{text} is out of range", f"{low} to {high}")
        return int(text)

    return read


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise Wrong(f"{shown(text)} is neither true nor false", "true, false")
    return text == "true"


def rational(text: str, allowed: str) -> Fraction:
    """`3`, `0.67` or `1/20`, exactly; never negative."""
    if not _RATIONAL.fullmatch(text):
        raise Wrong(f"{shown(text)} is not a number", allowed)
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise Wrong(f"{text} divides by 0", allowed) from None


def per_unit(text: str) -> Fraction:
    """Units that one of a meter's amount draws; above 0."""
    allowed = f"above 0, such as 1/20, numerator and denominator at most {bounds.PER_UNIT_PART_MAX}"
    value = rational(text, allowed)
    if value == 0 or max(value.numerator, value.denominator) > bounds.PER_UNIT_PART_MAX:
        raise Wrong(f"{text} is out of range", allowed)
    return value


def weight(text: str) -> Fraction:
    """A weight, 0.001 to 1000."""
    allowed = f"0.001 to 1000, as 3, 0.67 or 2/3 with a denominator of at most {bounds.WEIGHT_DENOMINATOR_MAX}"
    value = rational(text, allowed)
    if not Fraction(1, 1000) <= value <= 1000 or value.denominator > bounds.WEIGHT_DENOMINATOR_MAX:
        raise Wrong(f"{text} is out of range", allowed)
    return value


def amount_micro(text: str) -> int:
    """Units of a pool as micro-units: above 0, at most UNITS_MAX, six decimals at most."""
    allowed = f"above 0, at most {bounds.UNITS_MAX} units, at most 6 decimals"
    micro = rational(text, allowed) * MICRO
    if not 0 < micro <= bounds.UNITS_MAX * MICRO or micro.denominator != 1:
        raise Wrong(f"{text} is out of range", allowed)
    return int(micro)


def duration(us_min: int, us_max: int, allowed: str) -> Callable[[str], Span]:
    """A reader of exact durations (`90s`, `5m`, `5h`, `7d`, `2w`) from `us_min` to `us_max`."""

    def read(text: str) -> Span:
        span = _span(text, allowed)
        if span.months:
            raise Wrong(f"{text} is no exact length", allowed)
        if not us_min <= span.length_us <= us_max:
            raise Wrong(f"{text} is out of range", allowed)
        return span

    return read


def period(text: str) -> Span:
    """The length of an anniversary period: a duration, or `1mo` to `12mo`, or `1y`."""
    allowed = f"{WINDOW_ALLOWED}, or 1mo to {bounds.WINDOW_MONTHS_MAX}mo, or 1y"
    span = _span(text, allowed)
    fits = span.months <= bounds.WINDOW_MONTHS_MAX if span.months else span.length_us <= bounds.WINDOW_US_MAX
    if span.number == 0 or not fits:
        raise Wrong(f"{text} is out of range", allowed)
    return span


def rate(text: str) -> tuple[int, Span]:
    """`10/1m`: micro-units, and the span in which so many drain."""
    allowed = "units/duration such as 10/1m"
    amount, slash, span = text.rpartition("/")
    if not slash:
        raise Wrong(f"{shown(text)} is not a rate", allowed)
    return amount_micro(amount), window_length(span)


def _span(text: str, allowed: str) -> Span:
    match = _DURATION.fullmatch(text)
    if not match:
        raise Wrong(f"{shown(text)} is not a duration", allowed)
    number, unit = int(match[1]), match[2]
    if unit in _MONTHS:
        return Span(number, unit, months=number * _MONTHS[unit])
    return Span(number, unit, length_us=number * _EXACT_US[unit])


WINDOW_ALLOWED = "1s to 366d, as 90s, 5m, 5h, 7d or 2w"
window_length = duration(bounds.WINDOW_US_MIN, bounds.WINDOW_US_MAX, WINDOW_ALLOWED)


def time_of_day(text: str) -> int:
    """`10:00` or `10:00:30` as microseconds since midnight; `24:00` is the end of the day."""
    allowed = "00:00 to 24:00, as 14:00 or 14:00:30"
    match = _TIME.fullmatch(text)
    if not match:
        raise Wrong(f"{shown(text)} is not a time of day", allowed)
    hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
    time_us = hour * bounds.HOUR_US + minute * bounds.MINUTE_US + second * bounds.SECOND_US
    if minute > 59 or second > 59 or time_us > bounds.DAY_US:
        raise Wrong(f"{text} is not a time of day", allowed)
    return time_us


def moment(text: str) -> int:
    """A date or date-time as wall-clock microseconds since 1970-01-01T00:00, whatever the zone."""
    allowed = "a date such as 2026-06-01 or a time such as 2026-06-01T10:00, years 2000 to 2100, without an offset"
    match = _MOMENT.fullmatch(text)
    if not match:
        raise Wrong(f"{shown(text)} is no moment", allowed)
    try:
        date = datetime.datetime(int(match[1]), int(match[2]), int(match[3]))
    except ValueError as error:
        raise Wrong(f"{text} is no moment: {error}", allowed) from None
    if not 2000 <= date.year <= 2100:
        raise Wrong(f"{text} is out of range", allowed)
    day_us = (date - _EPOCH) // datetime.timedelta(microseconds=1)
    return day_us + (time_of_day(match[4]) if match[4] else 0)


def name(bytes_max: int = bounds.NAME_BYTES_MAX) -> Callable[[str], str]:
    """A reader of names: 1 to `bytes_max` bytes of printable UTF-8, no space at either end."""
    allowed = f"1 to {bytes_max} bytes of printable UTF-8, no space at either end"

    def read(text: str) -> str:
        if not text or not text.isprintable() or text != text.strip():
            raise Wrong(f"{shown(text)} is not a name", allowed)
        if len(text.encode()) > bytes_max:
            raise Wrong(f"{shown(text)} is too long: {len(text.encode())} bytes", allowed)
        return text

    return read


def endpoint(text: str) -> str:
    """An endpoint's path, without the slash at its end, if there is one."""
    path = name()(text).removesuffix("/")
    if not path:
        raise Wrong(f"{shown(text)} is not an endpoint", "a path such as /api/anthropic")
    return path
