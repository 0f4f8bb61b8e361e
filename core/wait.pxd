# cython: cdivision=True
"""The wait: the first instant at which this very request would be admitted if nothing else happened.

Weights and memberships change with time, so time is cut into segments in which they do not. Within one, every limit says when it
has room for the request's cost there, and the latest of them is the segment's fit; the first segment that its fit falls into has
the answer. What is used never grows by waiting, so nothing before it would do. At most SEGMENTS_MAX segments in which the
model and all meters are in the plan are searched; past the last, its end is the answer: "ask again then".

"Never" is no large number in a maximum: a cost above a limit makes its segment unfit, whatever the other limits say.
"""
from libc.stdint cimport int64_t

from amounts cimport ratio_t
from ask cimport ALLOWED, ask_date, ask_lack, ask_t, ask_weight, touched_fit
from price cimport ask_price
from window cimport NEVER
from zone cimport DAY_US, WEEK_US

cdef enum:
    SEGMENTS_MAX = 64
    CHANGES_MAX = 4096              # moments looked at: schedules may change often without changing the weight

cdef struct wait_t:
    int64_t until                   # NEVER: waiting does not help
    bint possible                   # the cost is within every limit at some moment to come


cdef inline int64_t ask_fit(const ask_t* self, int64_t start) noexcept nogil:
    """The first moment from `start` on at which all limits have room at the present costs."""
    cdef int64_t fit = start, at
    cdef int j
    if self.records:
        return start                # what already happened waits for no limit
    for j in range(self.touched_count):
        at = touched_fit(&self.touched[j], &self.seen, start)
        if at == NEVER:
            return NEVER
        fit = max(fit, at)
    return fit


cdef inline bint wait_possible(ask_t* self, int64_t start) noexcept nogil:
    """Whether some moment from `start` on has a cost within every limit. Between two dates schedules repeat every week, so a
    week after each date (and a day, for clocks that change) shows every weight there is."""
    cdef int64_t date = start, now, next, quiet_at
    while date != NEVER:
        now = date
        date = ask_date(self, date)
        quiet_at = min(date, now + WEEK_US + DAY_US)
        while now < quiet_at:
            next = NEVER
            if ask_lack(self, now, &next).verdict == ALLOWED:
                if ask_price(self, ask_weight(self, now, &next), now) < 0 and ask_fit(self, now) != NEVER:
                    return True
            now = next
    return False


cdef inline wait_t wait_search(ask_t* self, int64_t start) noexcept nogil:
    """Search from `start`. Leaves the ask priced at the weight of the last segment searched: the one with the answer, if any."""
    cdef wait_t wait
    cdef ratio_t weight, last
    cdef int64_t now = start, quiet_from = start, next, date, fit, end = NEVER
    cdef int segments = 0, _changes
    cdef bint inside = False        # the moment before was in the plan, at `last`
    last.num = last.den = 1
    wait.until = NEVER
    wait.possible = False
    for _changes in range(CHANGES_MAX):
        next = NEVER
        if ask_lack(self, now, &next).verdict == ALLOWED:
            weight = ask_weight(self, now, &next)
            if not inside or weight.num != last.num or weight.den != last.den:
                if segments == SEGMENTS_MAX:
                    break
                segments += 1
                quiet_from = now
            inside = True
            last = weight
            # Between two dates schedules repeat every week: what a week (and a day, for clocks that change) left alone stays.
            date = ask_date(self, now)
            if now - quiet_from > WEEK_US + DAY_US:
                next = date
            if next >= date:            # one or more dates are behind what comes next
                quiet_from = next
            fit = ask_fit(self, now) if ask_price(self, weight, now) < 0 else NEVER     # past the range it would be an error
            wait.possible = wait.possible or fit != NEVER
            if fit < next:
                wait.until = fit
                return wait
            end = next
        else:
            inside = False
        if next == NEVER:
            return wait
        now = next
    # Searched as far as it goes. Dates beyond may still make it possible, but a wait without end is no wait.
    if not wait.possible:
        wait.possible = wait_possible(self, start)
        ask_price(self, last, now)
    if wait.possible:
        wait.until = end
    return wait
