# cython: cdivision=True
"""The merge log: what was drawn from a sliding window, as at most M entries of (time, micro-units), oldest first.

A sliding window gives each draw back W after it was made. Remembering every draw is unbounded; rings of sub-windows give back
late or too early. The merge log remembers exactly while at most M draws are alive, and beyond that joins two neighbours under the
later one's time. So it never says that less is drawn than is (nothing comes back early), and how late a unit comes back is bounded:

  An entry i stands for draws made in (t[i-1], t[i]], so joining i into i+1 delays a unit by at most t[i+1] - t[i-1]. Only pairs for
  which that is at most 2W / (M-2) may be joined. One always exists: over i = 1 .. M-2 those spreads add up to at most 2W.

Among those pairs the one that moves the fewest units the least far, c[i] * (t[i+1] - t[i]), is joined. Never the oldest
entry: what is before it has been forgotten, so its own spread is unknown, and joining it again and again would delay it without end.

Invariants: times strictly ascend; amounts are at or above 0; the caller keeps the sum.
"""
from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memmove

from amounts cimport amount_add, i128

cdef enum:
    ENTRIES_MIN = 4                 # room of a new log
    ENTRIES_MAX_MIN = 4             # the least M: a unit may then come back a whole W late
    ENTRIES_MAX_MAX = 1024          # the largest M

cdef struct entry_t:
    int64_t time                    # of the latest draw in it
    int64_t micro


cdef inline int log_expired(const entry_t* log, int count, int64_t live_from, int64_t* micro) noexcept nogil:
    """How many of the oldest entries are before `live_from`, and what they hold together."""
    cdef int i = 0
    micro[0] = 0
    while i < count and log[i].time < live_from:
        micro[0] = amount_add(micro[0], log[i].micro)
        i += 1
    return i


cdef inline int log_drop(entry_t* log, int count, int dropped) noexcept nogil:
    """Forget the oldest `dropped` entries; the new count."""
    memmove(log, log + dropped, (count - dropped) * sizeof(entry_t))
    return count - dropped


cdef inline int log_merge(entry_t* log, int count, int64_t spread_max, int64_t micro_max) noexcept nogil:
    """Join the pair whose joining moves least; the new count. Needs at least three entries, none above `micro_max`."""
    cdef int best
    if micro_max <= INT64_MAX // max(log[count - 1].time - log[0].time, <int64_t>1):
        best = log_least(log, count, spread_max)
    else:
        best = log_least_wide(log, count, spread_max)
    log[best + 1].micro = amount_add(log[best].micro, log[best + 1].micro)
    memmove(log + best, log + best + 1, (count - best - 1) * sizeof(entry_t))
    return count - 1


cdef inline int log_least(const entry_t* log, int count, int64_t spread_max) noexcept nogil:
    """The first of the pair whose joining moves least, where no product passes 64 bits."""
    cdef int best = count - 2, i
    cdef int64_t least = INT64_MAX, moved
    for i in range(1, count - 1):
        moved = log[i].micro * (log[i + 1].time - log[i].time)
        if moved < least and log[i + 1].time - log[i - 1].time <= spread_max:
            least = moved
            best = i
    return best


cdef inline int log_least_wide(const entry_t* log, int count, int64_t spread_max) noexcept nogil:
    """The same for any amounts."""
    cdef int best = count - 2, i
    cdef i128 least = -1, moved
    for i in range(1, count - 1):
        if log[i + 1].time - log[i - 1].time > spread_max:
            continue
        moved = <i128>log[i].micro * <i128>(log[i + 1].time - log[i].time)
        if least < 0 or moved < least:
            least = moved
            best = i
    return best


cdef inline int log_append(
    entry_t* log, int count, int entries_max, int64_t length, int64_t time, int64_t micro, int64_t used
) noexcept nogil:
    """Add a draw later than all others, making room first if the log is full; the new count. `used` is the sum before it."""
    while count >= entries_max:
        count = log_merge(log, count, 2 * length // (entries_max - 2), used)
    log[count].time = time
    log[count].micro = micro
    return count + 1
