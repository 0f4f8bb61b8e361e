"""A time zone as a table of offsets, so that the core can do its arithmetic alone.

`zoneinfo` knows the offset at a moment but not when it changes. The changes from 2000 to 2100 are found by looking
once a day and bisecting, to the second, between two days that differ. No zone has changed twice within a day since
2000.
"""

from __future__ import annotations

import bisect
import datetime
import functools
import zoneinfo
from dataclasses import dataclass

from quota.catalog.bounds import SECOND_US
from quota.catalog.document import near
from quota.catalog.spec import FOREVER_US
from quota.catalog.units import Wrong, shown

_DAY_S = 86_400
_FIRST_S = int(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC).timestamp())
_LAST_S = int(datetime.datetime(2101, 1, 1, tzinfo=datetime.UTC).timestamp())
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Zone:
    """An IANA time zone from 2000 to 2100."""

    name: str
    offsets: tuple[tuple[int, int], ...]
    """(since_us, offset_us), in order; local time is UTC + offset. The first holds since -FOREVER_US."""

    def offset_us(self, instant_us: int) -> int:
        """The offset that holds at a moment."""
        return self.offsets[bisect.bisect_right(self.offsets, (instant_us, FOREVER_US)) - 1][1]

    def instant_us(self, local_us: int) -> int:
        """The moment of a wall-clock time: the first of two, or the end of the gap where it does not exist."""
        for index, (since_us, offset_us) in enumerate(self.offsets):
            ends_us = self.offsets[index + 1][0] if index + 1 < len(self.offsets) else FOREVER_US
            if local_us - offset_us < ends_us:
                return max(local_us - offset_us, since_us)
        raise AssertionError("the last offset has no end")


@functools.lru_cache(maxsize=64)
def find_zone(name: str) -> Zone:
    """The zone of that name. Raises Wrong where there is none."""
    known = _known()
    if name not in known:
        raise Wrong(
            f"{shown(name)} is not a known time zone{near(name, known)}",
            "an IANA name such as UTC, Asia/Shanghai or Europe/Berlin",
        )
    return Zone(name, _offsets(zoneinfo.ZoneInfo(name)))


@functools.lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    # "localtime" is whatever the machine is set to: a catalog that names it would mean something else elsewhere.
    return frozenset(zoneinfo.available_timezones() - {"localtime"})


def _offsets(zone: zoneinfo.ZoneInfo) -> tuple[tuple[int, int], ...]:
    before = _offset_s(zone, _FIRST_S)
    found = [(-FOREVER_US, before * SECOND_US)]
    for day_s in range(_FIRST_S, _LAST_S, _DAY_S):
        after = _offset_s(zone, day_s + _DAY_S)
        if after != before:
            since_s = _change_s(zone, day_s, day_s + _DAY_S, after)
            found.append((since_s * SECOND_US, after * SECOND_US))
            before = after
    return tuple(found)


def _change_s(zone: zoneinfo.ZoneInfo, low_s: int, high_s: int, after: int) -> int:
    """The first second of `low_s` < second <= `high_s` at which the offset is `after`."""
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if _offset_s(zone, middle_s) == after:
            high_s = middle_s
        else:
            low_s = middle_s
    return high_s


def _offset_s(zone: zoneinfo.ZoneInfo, instant_s: int) -> int:
    offset = (_EPOCH + datetime.timedelta(seconds=instant_s)).astimezone(zone).utcoffset()
    assert offset is not None, "a zone has an offset at every moment"
    return int(offset.total_seconds())
