# cython: cdivision=True
"""Zones: between moments (microseconds since the epoch) and what the clock on the wall shows.

A zone is its list of offset changes. Two functions are enough for every calendar question, and they are each other's inverse:

  zone_wall(t)     the latest reading that the wall clock has reached at t. Where clocks go back, it stands still at the end of the
                   repeated hour until that hour has been lived twice, so it never runs backward.
  zone_instant(l)  the first moment at which the reading l has been reached. A reading that clocks skip is the moment of the
                   change; one that exists twice is the first of the two.

Invariant: zone_instant(l) <= t if and only if l <= zone_wall(t). So a boundary given in wall time is passed at t iff it is at or
below zone_wall(t): periods, steps and schedules all compare wall readings and convert only the answer.
"""
from libc.stdint cimport int64_t

from amounts cimport floor_div

cdef enum:
    EPOCH_WEEKDAY = 3               # 1970-01-01 was a Thursday; 0 is Monday
    EPOCH_YEAR = 1970

cdef extern from *:
    """
    /* C constants: a literal past 31 bits would become a Python object. */
    #define DAY_US 86400000000LL
    #define WEEK_US 604800000000LL
    """
    const int64_t DAY_US
    const int64_t WEEK_US

cdef struct zone_t:
    int count                       # at least 1
    int64_t* since                  # moments of change, ascending; the first is before all time
    int64_t* offset                 # what to add to a moment from then on
    int64_t* reading                # the wall reading just before each change; of the first, before all readings

cdef struct span_t:                 # part of a week: [start, end) microseconds since Monday 00:00 on the wall
    int64_t start
    int64_t end

cdef struct schedule_t:
    int count
    span_t* spans                   # ascending, disjoint, within the week


cdef inline int zone_last(const int64_t* keys, int count, int64_t key) noexcept nogil:
    """Index of the last of `keys` at or below `key`; keys[0] is below everything.

    Changes come about evenly, so the place is guessed and then walked to: one division instead of a search whose every branch
    is a coin toss.
    """
    cdef int i
    if count == 1 or key < keys[1]:
        return 0
    if key >= keys[count - 1]:
        return count - 1
    i = 1 + <int>((key - keys[1]) // ((keys[count - 1] - keys[1]) // (count - 1) + 1))
    while keys[i] > key:
        i -= 1
    while keys[i + 1] <= key:
        i += 1
    return i


cdef inline int64_t zone_local(const zone_t* self, int64_t t) noexcept nogil:
    """What the wall clock shows at t."""
    return t + self.offset[zone_last(self.since, self.count, t)]


cdef inline int64_t zone_wall(const zone_t* self, int64_t t) noexcept nogil:
    cdef int i = zone_last(self.since, self.count, t)
    cdef int64_t local = t + self.offset[i]
    if i > 0 and local < self.reading[i]:
        return self.reading[i] - 1
    return local


cdef inline int64_t zone_instant(const zone_t* self, int64_t local) noexcept nogil:
    cdef int i = zone_last(self.reading, self.count, local)
    cdef int64_t t = local - self.offset[i]
    return t if i == 0 or t > self.since[i] else self.since[i]


# ---- Steps: wall-clock multiples of a length that divides the day ----

cdef inline int64_t step_start(const zone_t* zone, int64_t step, int64_t t) noexcept nogil:
    """The latest boundary at or before t."""
    return zone_instant(zone, floor_div(zone_wall(zone, t), step) * step)


cdef inline int64_t step_from(const zone_t* zone, int64_t step, int64_t t) noexcept nogil:
    """The first boundary at or after t."""
    return zone_instant(zone, (floor_div(zone_wall(zone, t - 1), step) + 1) * step)


# ---- Periods: anchor + k * length on the wall, or + k * months on the anchor's day ----

cdef inline int64_t days_before(int64_t year, int month) noexcept nogil:
    """Days from 1970-01-01 to the first of a month (1..12) of the proleptic Gregorian calendar; years from 1 on."""
    cdef int64_t y = year if month > 2 else year - 1            # years that begin in March end in their leap day
    cdef int m = month - 3 if month > 2 else month + 9
    return y * 365 + y // 4 - y // 100 + y // 400 + (153 * m + 2) // 5 - 719468


cdef inline int month_of(int64_t day, int64_t* year) noexcept nogil:
    """The month (1..12) that a day since 1970-01-01 falls in, and its year."""
    cdef int64_t y = EPOCH_YEAR + floor_div(day * 400, 146097)   # at most one year off
    cdef int month = 12
    while days_before(y, 1) > day:
        y -= 1
    while days_before(y + 1, 1) <= day:
        y += 1
    while days_before(y, month) > day:
        month -= 1
    year[0] = y
    return month


cdef inline int64_t month_boundary(int64_t anchor, int64_t months) noexcept nogil:
    """The wall reading `months` after the anchor: same day and time, or the last day of a month that lacks the day."""
    cdef int64_t day = floor_div(anchor, DAY_US)
    cdef int64_t year
    cdef int month = month_of(day, &year)
    cdef int64_t day_of_month = day - days_before(year, month)
    cdef int64_t index = year * 12 + month - 1 + months
    cdef int64_t first = days_before(index // 12, <int>(index % 12) + 1)
    cdef int64_t length = days_before((index + 1) // 12, <int>((index + 1) % 12) + 1) - first
    if day_of_month >= length:
        day_of_month = length - 1
    return (first + day_of_month) * DAY_US + (anchor - day * DAY_US)


cdef inline int64_t period_end(const zone_t* zone, int64_t anchor, int64_t length, int months, int64_t now) noexcept nogil:
    """The first boundary after `now`. Each is computed from the anchor itself, never from the one before it."""
    cdef int64_t wall = zone_wall(zone, now)
    cdef int64_t year, anchor_year, k
    cdef int month
    if months == 0:
        return zone_instant(zone, anchor + (floor_div(wall - anchor, length) + 1) * length)
    month = month_of(floor_div(wall, DAY_US), &year)
    k = year * 12 + month - month_of(floor_div(anchor, DAY_US), &anchor_year) - anchor_year * 12
    k = floor_div(k, months)
    while month_boundary(anchor, k * months) <= wall:
        k += 1
    return zone_instant(zone, month_boundary(anchor, k * months))


# ---- Schedules: the parts of a week ----

cdef inline int64_t week_start(int64_t wall) noexcept nogil:
    """Monday 00:00 of the week that a wall reading falls in."""
    return floor_div(wall + EPOCH_WEEKDAY * DAY_US, WEEK_US) * WEEK_US - EPOCH_WEEKDAY * DAY_US


cdef inline bint schedule_holds(const schedule_t* self, const zone_t* zone, int64_t t) noexcept nogil:
    cdef int64_t wall = zone_wall(zone, t)
    cdef int64_t offset = wall - week_start(wall)
    cdef int i
    for i in range(self.count):
        if offset < self.spans[i].end:
            return offset >= self.spans[i].start
    return False


cdef inline int64_t schedule_next(const schedule_t* self, const zone_t* zone, int64_t t) noexcept nogil:
    """The first moment after t at which a span starts or ends."""
    cdef int64_t wall = zone_wall(zone, t)
    cdef int64_t monday = week_start(wall)
    cdef int64_t offset = wall - monday
    cdef int i
    for i in range(self.count):
        if offset < self.spans[i].start:
            return zone_instant(zone, monday + self.spans[i].start)
        if offset < self.spans[i].end:
            return zone_instant(zone, monday + self.spans[i].end)
    return zone_instant(zone, monday + WEEK_US + self.spans[0].start)
