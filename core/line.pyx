"""The line that time runs on: one to one with a reading that only goes forward, between two comparisons with the wall clock.

A clock lays it, a gate reads it: the arithmetic of a moment costs less here than a Python frame. What is read is a callable, the clock's.
"""


@cython.final
@cython.auto_pickle(False)
cdef class Line:
    """Microseconds as `(read() + offset_ns) // 1000`, where `since_ns <= read() < until_ns`; elsewhere there is no line."""

    cdef object _read
    cdef int64_t _since
    cdef int64_t _until
    cdef int64_t _offset

    def __init__(self, read):
        self._read = read

    def lay(self, int64_t since_ns, int64_t until_ns, int64_t offset_ns):
        """Put it there; `until_ns` 0 takes it away."""
        self._since, self._until, self._offset = since_ns, until_ns, offset_ns

    cpdef int64_t now_us(self) except -1:
        """The time in microseconds; 0 where there is no line."""
        cdef int64_t since = self._since, until = self._until, offset = self._offset
        cdef int64_t reading = self._read()
        if since <= reading < until and until == self._until and offset == self._offset:    # not taken away while it was read
            return (reading + offset) // 1000
        return 0
