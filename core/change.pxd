# cython: cdivision=True
"""Changes: what is charged or given back outside of a decision, by settlements and by hand. Limits do not refuse them."""
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.stdlib cimport free

from rules cimport LIMITS_MAX, limit_t, plan_limit, plan_t, rules_t
from record cimport need_t, record_log, record_remake, record_slot, record_t
from window cimport SLIDING, seen_t, slot_t, sliding_room, window_charge, window_t
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
    cdef slot_t* slot
    cdef record_t* remade
    cdef int i, needed = 0
    cdef bint grows = False
    for i in range(count):
        if changes[i].micro <= 0:
            continue
        slot = record_slot(where[0], changes[i].key)
        seen.zone = changes[i].zone
        needs[needed].key = changes[i].key
        needs[needed].room = 0
        if changes[i].window.kind == SLIDING:
            needs[needed].room = 1 if slot == NULL else sliding_room(changes[i].window, &seen, slot, record_log(where[0], slot))
        grows = grows or slot == NULL or needs[needed].room > slot.room
        needed += 1
    if not grows:
        return True
    remade = record_remake(where[0], needs, needed, seen.now)
    if remade == NULL:
        return False
    free(where[0])
    where[0] = remade
    return True


cdef inline void change_charge(const change_t* self, record_t* record, seen_t seen) noexcept nogil:
    cdef slot_t* slot = record_slot(record, self.key)
    seen.zone = self.zone
    window_charge(self.window, &seen, slot, record_log(record, slot), self.micro)
