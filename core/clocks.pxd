# cython: cdivision=True
"""The machine's clocks: for the loop, which meets the machine, and for nothing that decides."""
from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <time.h>
    static inline int64_t clock_ns(int clock) {
        struct timespec now;
        clock_gettime(clock, &now);
        return now.tv_sec * 1000000000LL + now.tv_nsec;
    }
    """
    int64_t clock_ns(int) nogil
    int CLOCK_BOOTTIME
    int CLOCK_MONOTONIC
