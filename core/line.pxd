# cython: cdivision=True
"""The line that time runs on, as C reads it: also from a thread that has no GIL, while another lays it anew."""
from libc.stdint cimport int64_t, uint64_t

from atomic cimport atomic_read, atomic_write

cdef struct line_t:                 # microseconds are (reading + offset) // 1000 while since <= reading < until, nanoseconds
    uint64_t turn                   # odd while it is being laid
    uint64_t since
    uint64_t until
    uint64_t offset                 # a signed number


cdef inline void line_lay(line_t* self, int64_t since, int64_t until, int64_t offset) noexcept nogil:
    """Put it there. One thread at a time."""
    atomic_write(&self.turn, self.turn + 1)
    atomic_write(&self.since, <uint64_t>since)
    atomic_write(&self.until, <uint64_t>until)
    atomic_write(&self.offset, <uint64_t>offset)
    atomic_write(&self.turn, self.turn + 1)


cdef inline int64_t line_time(const line_t* self, int64_t reading) noexcept nogil:
    """The time at a reading, microseconds; 0 where there is no line, or it is just being laid."""
    cdef uint64_t turn = atomic_read(&self.turn)
    cdef int64_t since = <int64_t>atomic_read(&self.since), until = <int64_t>atomic_read(&self.until)
    cdef int64_t offset = <int64_t>atomic_read(&self.offset)
    if turn & 1 or turn != atomic_read(&self.turn) or not since <= reading < until:
        return 0
    return (reading + offset) // 1000
