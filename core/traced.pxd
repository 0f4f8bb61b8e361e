# cython: cdivision=True
"""Traced calls: those whose caller keeps his trace, noted when they are answered, until Python comes for them.

A ring: one thread adds, another takes, and neither waits. What finds no room is counted and left out, so that tracing costs a bounded
amount of memory and nothing else. Calls without a `traceparent` that says sampled are not noted.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcmp, memcpy

from atomic cimport atomic_read, atomic_write

cdef enum:
    TRACEPARENT_BYTES = 55          # 00-, 32 digits, -, 16 digits, -, two of flags
    TRACED_MAX = 4096               # a power of two

cdef struct traced_t:
    int64_t arrived                 # monotonic nanoseconds
    int64_t answered
    int method
    int status
    char parent[TRACEPARENT_BYTES]

cdef struct traces_t:
    traced_t* at                    # NULL: nobody comes for them
    uint64_t added                  # so far, by the thread that adds
    uint64_t taken                  # so far, by the one that takes
    uint64_t lost


cdef inline bint traces_init(traces_t* self) noexcept nogil:
    """False without memory. To be freed with free(self.at)."""
    self.at = <traced_t*>calloc(TRACED_MAX, sizeof(traced_t))
    return self.at != NULL


cdef inline bint is_sampled(const uint8_t* at, size_t size) noexcept nogil:
    """Whether a traceparent of the version we know says that its trace is kept: the last bit of its last hexadecimal digit.

    Python reads the rest of it, and refuses what is malformed."""
    return size == TRACEPARENT_BYTES and memcmp(at, <const char*>"00-", 3) == 0 and (at[54] & 1) == (at[54] <= 0x39)


cdef inline void traces_add(traces_t* self, const char* parent, int method, int status, int64_t arrived, int64_t answered) noexcept nogil:
    cdef traced_t* room
    if self.added - atomic_read(&self.taken) == TRACED_MAX:
        self.lost += 1
        return
    room = &self.at[self.added % TRACED_MAX]
    room.arrived, room.answered, room.method, room.status = arrived, answered, method, status
    memcpy(&room.parent[0], parent, TRACEPARENT_BYTES)
    atomic_write(&self.added, self.added + 1)


cdef inline bint traces_take(traces_t* self, traced_t* taken) noexcept nogil:
    """Copy the oldest one, and give its room back; false if there is none."""
    if self.taken == atomic_read(&self.added):
        return False
    taken[0] = self.at[self.taken % TRACED_MAX]
    atomic_write(&self.taken, self.taken + 1)
    return True
