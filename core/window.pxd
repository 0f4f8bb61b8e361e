# cython: cdivision=True
"""Windows: how a limit counts what is drawn and gives it back. Five kinds, one set of verbs.

  sliding      each draw comes back W after it was made; exactly, or in clock-aligned steps
  cycle        W opens with the first draw after the last one ended; at its end everything comes back
  calendar,    end at wall-clock moments: fixed ones, or counted from the subscription's moment;
  anniversary  the same arithmetic from two kinds of anchor ("periods")
  bucket       drains all the time at a rate (GCRA: only the moment of emptiness is kept)

A `window_t` is the rule, from the catalog; a `slot_t` is what one account remembers under it. A slot may be missing (NULL): nothing
was ever drawn. Looking never changes a slot: what has expired is skipped by looking past it and dropped by the next charge, so that
a refused request leaves no trace. What is used never grows by waiting; hence "the first moment at which c fits" is well defined.

A running period keeps the end it was opened with, whatever the catalog or the anchor says later: an end promised is kept.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint16_t, uint32_t

from amounts cimport MICRO, amount_add, ceil_div, i128
from log cimport entry_t, log_append, log_drop, log_expired
from zone cimport period_end, step_from, step_start, zone_local, zone_t

cdef enum kind_t:                   # as quota.catalog.model.WindowKind, in three bits
    SLIDING = 1
    CYCLE = 2
    CALENDAR = 3
    ANNIVERSARY = 4
    BUCKET = 5

cdef extern from *:
    """
    #define NEVER INT64_MAX         /* a moment that does not come */
    #define FAR_US 4102444800000000LL       /* 2100, as far as zones are known: a bucket's debt lasts no longer */
    """
    const int64_t NEVER
    const int64_t FAR_US

cdef struct window_t:
    int kind
    int entries_max                 # sliding: M
    int months                      # a period counted in months, else 0
    int64_t limit                   # micro-units; a bucket's depth
    int64_t length                  # microseconds; sliding, cycle, and periods not counted in months
    int64_t step                    # sliding: microseconds, 0 = exact
    int64_t anchor                  # calendar: one boundary, a wall reading
    int64_t rate_num                # bucket: drains rate_num micro-units per rate_den microseconds, reduced
    int64_t rate_den

cdef struct slot_t:                 # 24 bytes
    uint32_t key                    # interned limit id * 8 + kind
    uint16_t count                  # sliding: entries in the log
    uint16_t room                   # sliding: entries it has space for
    int64_t used                    # sliding: sum of the log; cycle, period: drawn in it; bucket: fraction of a microsecond, in 1/rate_num
    int64_t end                     # sliding: where the log is in the record; cycle, period: its end; bucket: when it is empty

cdef struct seen_t:                 # an account's windows are looked at from somewhere:
    const zone_t* zone
    int64_t now                     # microseconds since the epoch
    int64_t subscribed_at           # anniversaries count from its wall reading


# ---- Sliding ----

cdef inline int64_t sliding_live_from(const window_t* self, const seen_t* seen) noexcept nogil:
    """The earliest moment whose draws still count."""
    if self.step == 0:
        return seen.now - self.length + 1
    return step_from(seen.zone, self.step, step_start(seen.zone, self.step, seen.now) - self.length + 1)


cdef inline int64_t sliding_return(const window_t* self, const zone_t* zone, int64_t time) noexcept nogil:
    """When a draw made at `time` comes back."""
    if self.step == 0:
        return time + self.length
    return step_from(zone, self.step, step_start(zone, self.step, time) + self.length)


cdef inline int64_t sliding_fit(
    const window_t* self, const seen_t* seen, const slot_t* slot, const entry_t* log, int64_t cost, int64_t start
) noexcept nogil:
    cdef i128 over = <i128>slot.used + <i128>cost - <i128>self.limit
    cdef int i = 0
    while over > 0 and i < slot.count:
        over -= <i128>log[i].micro
        i += 1
    if i == 0:
        return start
    return max(start, sliding_return(self, seen.zone, log[i - 1].time))


cdef inline bint sliding_joins(const window_t* self, const seen_t* seen, const slot_t* slot, const entry_t* log) noexcept nogil:
    """Whether a draw made now belongs to the newest entry: the same moment, or the same step."""
    if slot.count == 0:
        return False
    if self.step == 0:
        return log[slot.count - 1].time == seen.now
    return log[slot.count - 1].time >= step_start(seen.zone, self.step, seen.now)


cdef inline int sliding_room(const window_t* self, const seen_t* seen, const slot_t* slot, const entry_t* log) noexcept nogil:
    """Entries the log must have space for, to take a draw made now."""
    cdef int64_t gone
    cdef int count = slot.count - log_expired(log, slot.count, sliding_live_from(self, seen), &gone)
    if count > 0 and sliding_joins(self, seen, slot, log):
        return count
    return count + 1 if count < self.entries_max else count


cdef inline void sliding_charge(const window_t* self, const seen_t* seen, slot_t* slot, entry_t* log, int64_t cost) noexcept nogil:
    cdef int64_t gone
    cdef int expired = log_expired(log, slot.count, sliding_live_from(self, seen), &gone)
    if expired:
        slot.count = log_drop(log, slot.count, expired)
        slot.used -= gone
    if sliding_joins(self, seen, slot, log):
        log[slot.count - 1].micro = amount_add(log[slot.count - 1].micro, cost)
        log[slot.count - 1].time = seen.now
    else:
        slot.count = log_append(log, slot.count, self.entries_max, self.length, seen.now, cost, slot.used)
    slot.used = amount_add(slot.used, cost)


# ---- Bucket: E, the moment at which it is empty, is end + used / rate_num microseconds, kept exactly ----

cdef inline int64_t bucket_empty(const window_t* self, const slot_t* slot, int64_t* fraction) noexcept nogil:
    """E as whole microseconds and a fraction. One left by another rate may be out of range: it rounds up."""
    fraction[0] = slot.used
    if slot.used < self.rate_num:
        return slot.end
    fraction[0] = 0
    return slot.end + 1


cdef inline int64_t bucket_fit(const window_t* self, const slot_t* slot, int64_t cost, int64_t start) noexcept nogil:
    """The first t with E + (cost - depth) * den/num <= t. `cost` is within the depth."""
    cdef int64_t fraction
    cdef i128 t = <i128>bucket_empty(self, slot, &fraction)
    cdef i128 rate = <i128>self.rate_num
    cdef i128 ahead = <i128>(self.limit - cost) * <i128>self.rate_den - <i128>fraction  # how long before E, in 1/rate microseconds
    if ahead >= 0:
        t -= ahead // rate
    else:
        t += ceil_div(-ahead, rate)
    return <int64_t>max(t, <i128>start)


cdef inline int64_t bucket_used(const window_t* self, const slot_t* slot, int64_t now) noexcept nogil:
    cdef int64_t fraction
    cdef int64_t end = bucket_empty(self, slot, &fraction)
    if end < now:
        return 0
    return <int64_t>min(
        ceil_div(<i128>(end - now) * <i128>self.rate_num + <i128>fraction, <i128>self.rate_den), <i128>INT64_MAX)


cdef inline bint bucket_has_room(const window_t* self, const slot_t* slot, int64_t cost, int64_t now) noexcept nogil:
    """Whether what is in it now, and `cost`, are within its depth."""
    cdef int64_t fraction
    cdef int64_t end = bucket_empty(self, slot, &fraction)
    return <i128>(end - now) * <i128>self.rate_num + <i128>fraction <= <i128>(self.limit - cost) * <i128>self.rate_den


cdef inline void bucket_charge(const window_t* self, slot_t* slot, int64_t cost, int64_t now) noexcept nogil:
    cdef int64_t fraction
    cdef int64_t end = bucket_empty(self, slot, &fraction)
    cdef i128 ahead
    if end < now:
        end = now
        fraction = 0
    ahead = <i128>cost * <i128>self.rate_den + <i128>fraction
    if ahead <= <i128>INT64_MAX:    # nearly always, and a 64-bit division is a fifth of the price
        slot.used = <int64_t>ahead % self.rate_num
        slot.end = amount_add(end, <int64_t>ahead // self.rate_num)
    else:
        slot.used = <int64_t>(ahead % <i128>self.rate_num)
        slot.end = <int64_t>min(<i128>end + ahead // <i128>self.rate_num, <i128>FAR_US)
    if slot.end >= FAR_US:
        slot.end = FAR_US
        slot.used = 0


# ---- All kinds ----

cdef inline int64_t window_used(const window_t* self, const seen_t* seen, const slot_t* slot, const entry_t* log) noexcept nogil:
    """Micro-units that count against the limit now."""
    cdef int64_t gone
    if slot == NULL:
        return 0
    if self.kind == SLIDING:
        log_expired(log, slot.count, sliding_live_from(self, seen), &gone)
        return slot.used - gone
    if self.kind == BUCKET:
        return bucket_used(self, slot, seen.now)
    return slot.used if seen.now < slot.end else 0


cdef inline int64_t window_fit(
    const window_t* self, const seen_t* seen, const slot_t* slot, const entry_t* log, int64_t cost, int64_t start
) noexcept nogil:
    """The first moment from `start` (at or after now) on at which `cost` fits if nothing else happens; NEVER above the limit."""
    if cost > self.limit:
        return NEVER
    if slot == NULL:
        return start
    if self.kind == BUCKET:
        return bucket_fit(self, slot, cost, start)
    if slot.used <= self.limit - cost:
        return start                # room even if nothing had come back yet
    if self.kind == SLIDING:
        return sliding_fit(self, seen, slot, log, cost, start)
    return max(start, slot.end)


cdef inline bint window_has_room(const window_t* self, const seen_t* seen, const slot_t* slot, const entry_t* log, int64_t cost) noexcept nogil:
    """Whether `cost` fits now."""
    if cost > self.limit:
        return False
    if slot == NULL:
        return True
    if self.kind == BUCKET:
        return bucket_has_room(self, slot, cost, seen.now)
    return slot.used <= self.limit - cost or window_used(self, seen, slot, log) <= self.limit - cost


cdef inline void period_open(const window_t* self, const seen_t* seen, slot_t* slot, int64_t cost) noexcept nogil:
    """Begin a period, or a cycle, with its first draw."""
    slot.used = cost
    if self.kind == CYCLE:
        slot.end = seen.now + self.length
    else:
        slot.end = period_end(
            seen.zone,
            self.anchor if self.kind == CALENDAR else zone_local(seen.zone, seen.subscribed_at),
            self.length, self.months, seen.now)


cdef inline void window_charge(const window_t* self, const seen_t* seen, slot_t* slot, entry_t* log, int64_t cost) noexcept nogil:
    """Draw `cost` > 0 now, fitting or not. A sliding log must have `sliding_room`."""
    if self.kind == SLIDING:
        sliding_charge(self, seen, slot, log, cost)
    elif self.kind == BUCKET:
        bucket_charge(self, slot, cost, seen.now)
    elif seen.now < slot.end:
        slot.used = amount_add(slot.used, cost)
    else:
        period_open(self, seen, slot, cost)


cdef inline void window_times(
    const window_t* self, const seen_t* seen, const slot_t* slot, const entry_t* log, int64_t* resets_at, int64_t* full_at
) noexcept nogil:
    """When the next unit comes back (a period's or cycle's end) and when all is back; NEVER where nothing is drawn."""
    cdef int64_t gone, fraction
    cdef int first
    resets_at[0] = full_at[0] = NEVER
    if slot == NULL or window_used(self, seen, slot, log) == 0:
        return
    if self.kind == SLIDING:
        first = log_expired(log, slot.count, sliding_live_from(self, seen), &gone)
        while log[first].micro == 0:
            first += 1
        resets_at[0] = sliding_return(self, seen.zone, log[first].time)
        first = slot.count - 1
        while log[first].micro == 0:    # given back: it stays, so that no refund of its draws falls on another entry
            first -= 1
        full_at[0] = sliding_return(self, seen.zone, log[first].time)
    elif self.kind == BUCKET:
        full_at[0] = bucket_empty(self, slot, &fraction) + (fraction > 0)
        resets_at[0] = min(full_at[0], seen.now + <int64_t>ceil_div(<i128>MICRO * <i128>self.rate_den, <i128>self.rate_num))
    else:
        resets_at[0] = full_at[0] = slot.end


# ---- Giving back ----

cdef inline int64_t sliding_refund(
    const window_t* self, const seen_t* seen, slot_t* slot, entry_t* log, int64_t time, int64_t micro
) noexcept nogil:
    """Only while the draw of `time` still counts: what has come back already is another's by now. It is in the first entry not before it."""
    cdef int i = 0
    if time < sliding_live_from(self, seen):
        return 0
    while i < slot.count and log[i].time < time:
        i += 1
    if i == slot.count:
        return 0
    micro = min(micro, log[i].micro)
    log[i].micro -= micro
    slot.used -= micro
    return micro


cdef inline int64_t window_refund(
    const window_t* self, const seen_t* seen, slot_t* slot, entry_t* log, int64_t time, int64_t end, int64_t micro
) noexcept nogil:
    """Give back what was drawn at `time`, in the period that ended at `end`; how much of it still counted. A bucket gives nothing back."""
    if self.kind == SLIDING:
        return sliding_refund(self, seen, slot, log, time, micro)
    if self.kind == BUCKET or slot.end != end or seen.now >= end:
        return 0
    micro = min(micro, slot.used)
    slot.used -= micro
    return micro


cdef inline int64_t window_give_back(const window_t* self, const seen_t* seen, slot_t* slot, entry_t* log, int64_t micro) noexcept nogil:
    """Give back of what counts now, the latest draws first; how much. Not for buckets."""
    cdef int64_t left = min(micro, window_used(self, seen, slot, log)), part
    cdef int64_t given = left
    cdef int i = slot.count - 1
    slot.used -= given
    while self.kind == SLIDING and left:
        part = min(left, log[i].micro)
        log[i].micro -= part
        left -= part
        i -= 1
    return given
