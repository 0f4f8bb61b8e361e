"""The wall clock of a zone, and calendar arithmetic on its readings.

Instants are microseconds since the Unix epoch. Readings are microseconds since 1970-01-01T00:00 as the wall clock shows it.
"""

from __future__ import annotations

import bisect
import calendar
import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
WEEK = 7 * DAY
EPOCH = datetime(1970, 1, 1)
MONDAY = 4 * DAY  # 1970-01-05 was a Monday.


def utc_us(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * SECOND


SCANNED_FROM, SCANNED_UNTIL = utc_us(1999, 1, 1), utc_us(2106, 1, 1)


class WallClock:
    """One zone's clock. After clocks go back it waits: a reading never comes twice, and never gets smaller."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.changes = [SCANNED_FROM]
        self.offsets = [self.offset_asked(SCANNED_FROM)]
        for day in range(SCANNED_FROM, SCANNED_UNTIL, DAY):
            self.find_changes(day, day + DAY)
        self.highest = [-(2**62)]  # The highest reading before each change.
        for change, offset in zip(self.changes[1:], self.offsets, strict=False):
            self.highest.append(max(self.highest[-1], change - 1 + offset))

    def offset_asked(self, t: int) -> int:
        offset = datetime.fromtimestamp(t // SECOND, self.zone).utcoffset()
        assert offset is not None
        return offset // timedelta(microseconds=1)

    def find_changes(self, early: int, late: int) -> None:
        """Note the change of offset between two instants, found by halving. No zone changes twice within a day."""
        if self.offset_asked(early) == self.offset_asked(late):
            return
        while late - early > SECOND:
            middle = (early + late) // 2 // SECOND * SECOND
            if self.offset_asked(middle) == self.offset_asked(early):
                early = middle
            else:
                late = middle
        self.changes.append(late)
        self.offsets.append(self.offset_asked(late))

    def at_change(self, t: int) -> int:
        return max(0, bisect.bisect_right(self.changes, t) - 1)

    def reading(self, t: int) -> int:
        """What the clock on the wall shows."""
        return t + self.offsets[self.at_change(t)]

    def wall(self, t: int) -> int:
        """The latest reading that the clock has shown so far."""
        i = self.at_change(t)
        return max(t + self.offsets[i], self.highest[i])

    def instant(self, reading: int) -> int:
        """The first instant at which the clock has shown this reading or a later one."""
        for offset in {self.offsets[self.at_change(reading - DAY)], self.offsets[self.at_change(reading + DAY)]}:
            t = reading - offset
            if self.wall(t) >= reading > self.wall(t - 1):
                return t
        before, reached = reading - 2 * DAY, reading + 2 * DAY
        while reached - before > 1:
            middle = (before + reached) // 2
            if self.wall(middle) >= reading:
                reached = middle
            else:
                before = middle
        return reached

    def shown(self, t: int) -> str:
        """The clock's reading in words, as vendors write it; a second begun counts whole."""
        t = -(-t // SECOND) * SECOND
        return (EPOCH + timedelta(microseconds=self.reading(t))).strftime("%Y-%m-%d %H:%M:%S")


@functools.cache
def wall_clock(zone: str) -> WallClock:
    return WallClock(zone)


def months_later(reading: int, months: int) -> int:
    """The same day and time so many months later; the last day where that month lacks it."""
    date = EPOCH + timedelta(microseconds=reading)
    year, month = divmod(date.year * 12 + date.month - 1 + months, 12)
    day = min(date.day, calendar.monthrange(year, month + 1)[1])
    return (date.replace(year=year, month=month + 1, day=day) - EPOCH) // timedelta(microseconds=1)


def months_between(early: int, late: int) -> int:
    """Calendar months from one reading's month to the other's."""
    a, b = EPOCH + timedelta(microseconds=early), EPOCH + timedelta(microseconds=late)
    return (b.year - a.year) * 12 + b.month - a.month
