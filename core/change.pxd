# cython: cdivision=True
"""Changes: what is charged or given back outside of a decision, by settlements and by hand. Limits do not refuse them."""
from libc.stdint cimport int64_t, uint16_t, uint32_t

from rules cimport LIMITS_MAX, limit_t, plan_limit, plan_t, rules_t
from record cimport need_note, need_t, record_grow, record_log, record_slot, record_t
from window cimport seen_t, slot_t, window_charge, window_t
from zone cimport zone_t

cdef struct change_t:               # of one slot
    uint32_t key
    uint16_t pool                   # label
    int64_t micro                   # above 0: charged; below 0: given back
    int64_t end                     # of the period that it was drawn in, if given back
    const window_t* window          # NULL: no plan has the limit any more
    const zone_t* zone


cdef inline void change_place(
    change_t* self, const rules_t* rules, const plan_t* plan, const rules_t* then, const plan_t* plan_then
) noexcept nogil:
    """Find the window by today's plan, or else by that of the admission."""
    cdef const limit_t* limit = plan_limit(plan, self.key)
    self.zone = &rules.zone
    if limit == NULL and plan_then != NULL:
        limit = plan_limit(plan_then, self.key)
        self.zone = &then.zone
    self.window = &limit.window if limit != NULL else NULL


cdef inline bint changes_reserve(record_t** where, const change_t* changes, int count, seen_t seen) noexcept nogil:
    """See to a slot for every charge, and room in its log; false without memory. At most LIMITS_MAX of them charge."""
    cdef need_t needs[LIMITS_MAX]
    cdef int i, needed = 0
    cdef bint grows = False
    for i in range(count):
        if changes[i].micro > 0:
            seen.zone = changes[i].zone
            grows = need_note(&needs[needed], where[0], changes[i].window, changes[i].key, &seen) or grows
            needed += 1
    return not grows or record_grow(where, needs, needed, seen.now)


cdef inline void change_charge(const change_t* self, record_t* record, seen_t seen) noexcept nogil:
    cdef slot_t* slot = record_slot(record, self.key)
    seen.zone = self.zone
    window_charge(self.window, &seen, slot, record_log(record, slot), self.micro)
