"""Lines as Python lays them: a clock does, a gate or a loop reads them.

The arithmetic of a moment costs less here than a Python frame. What is read is a callable, the clock's.
"""


@cython.final
@cython.auto_pickle(False)
cdef class Line:
    """Microseconds as `(read() + offset_ns) // 1000`, where `since_ns <= read() < until_ns`; elsewhere there is no line.

    `is_boottime` says that `read` tells CLOCK_BOOTTIME, which a thread without Python may then read for itself.
    """

    cdef line_t c
    cdef object _read
    cdef readonly bint is_boottime

    def __init__(self, read, *, is_boottime=False):
        self._read = read
        self.is_boottime = is_boottime

    def lay(self, int64_t since_ns, int64_t until_ns, int64_t offset_ns):
        """Put it there; `until_ns` 0 takes it away."""
        line_lay(&self.c, since_ns, until_ns, offset_ns)

    cpdef int64_t now_us(self) except -1:
        """The time in microseconds; 0 where there is no line."""
        cdef uint64_t turn = atomic_read(&self.c.turn)
        cdef int64_t reading = self._read()
        return line_time(&self.c, reading) if turn == atomic_read(&self.c.turn) else 0        # else it was laid anew while the clock was read
