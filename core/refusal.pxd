# cython: cdivision=True
"""Refusals: how a vendor words a verdict. A message with placeholders is cut into parts when a catalog is loaded, and filled in here.

What is filled in is never looked through again, so a name that looks like a placeholder stays what it is.
"""
from libc.stdint cimport int64_t, uint8_t

from buffer cimport buffer_put, buffer_reserve, buffer_t
from names cimport name_t
from window cimport NEVER
from zone cimport DAY_US, days_before, month_of

cdef enum placeholder_t:            # in the order in which rules.pyx knows them
    TEXT = 0                        # no placeholder
    NUMBER = 1
    UNIT = 2
    NEXT_FLUSH_TIME = 3
    MODEL_NAME = 4
    METER = 5

cdef enum:
    METERS_NAMED_MAX = 16           # as many as a request may draw
    DIGITS_MAX = 20

cdef struct part_of_message_t:
    int placeholder
    name_t text

cdef struct refusal_t:
    name_t code
    int http_status
    int64_t retry_after             # microseconds, where a hint stands in for the wait
    int part_count
    part_of_message_t* parts

cdef struct filling_t:              # what takes the place of placeholders
    int64_t number
    name_t unit
    int64_t flush_at                # wall reading in whole seconds, as microseconds since 1970-01-01T00:00; NEVER: never
    name_t model
    int meter_count
    name_t meters[METERS_NAMED_MAX]


cdef inline void put_digits(buffer_t* out, int64_t value, int width) noexcept nogil:
    """A number at or above 0 in decimal, with zeros in front up to `width`."""
    cdef uint8_t digits[DIGITS_MAX]
    cdef int at = DIGITS_MAX
    while value or width > 0 or at == DIGITS_MAX:
        at -= 1
        width -= 1
        digits[at] = <uint8_t>(48 + value % 10)
        value //= 10
    buffer_put(out, &digits[at], DIGITS_MAX - at)


cdef inline void put_byte(buffer_t* out, uint8_t byte) noexcept nogil:
    cdef uint8_t* at = buffer_reserve(out, 1)
    if at != NULL:
        at[0] = byte
        out.size += 1


cdef inline void put_wall(buffer_t* out, int64_t local) noexcept nogil:
    """A wall reading at or after 1970, as vendors write it: `2026-07-12 04:30:37`."""
    cdef int64_t day = local // DAY_US
    cdef int64_t second = (local - day * DAY_US) // 1000000
    cdef int64_t year
    cdef int month
    if local == NEVER:
        buffer_put(out, <const char*>b"never", 5)
        return
    month = month_of(day, &year)
    put_digits(out, year, 4)
    put_byte(out, 45)
    put_digits(out, month, 2)
    put_byte(out, 45)
    put_digits(out, day - days_before(year, month) + 1, 2)
    put_byte(out, 32)
    put_digits(out, second // 3600, 2)
    put_byte(out, 58)
    put_digits(out, second // 60 % 60, 2)
    put_byte(out, 58)
    put_digits(out, second % 60, 2)


cdef inline void put_meters(buffer_t* out, const filling_t* filling) noexcept nogil:
    cdef int i
    for i in range(filling.meter_count):
        if i:
            buffer_put(out, <const char*>b", ", 2)
        buffer_put(out, filling.meters[i].at, filling.meters[i].size)


cdef inline void refusal_write(const refusal_t* self, const filling_t* filling, buffer_t* out) noexcept nogil:
    """The message, filled in."""
    cdef const part_of_message_t* part
    cdef int i
    for i in range(self.part_count):
        part = &self.parts[i]
        if part.placeholder == TEXT:
            buffer_put(out, part.text.at, part.text.size)
        elif part.placeholder == NUMBER:
            put_digits(out, filling.number, 0)
        elif part.placeholder == UNIT:
            buffer_put(out, filling.unit.at, filling.unit.size)
        elif part.placeholder == NEXT_FLUSH_TIME:
            put_wall(out, filling.flush_at)
        elif part.placeholder == MODEL_NAME:
            buffer_put(out, filling.model.at, filling.model.size)
        else:
            put_meters(out, filling)
