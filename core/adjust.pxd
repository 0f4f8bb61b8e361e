# cython: cdivision=True
"""Adjust: give back or take by hand what no request accounts for. Limits do not refuse it; buckets, which are about pace, give nothing back."""
from libc.stdint cimport int64_t, uint16_t

from answer cimport DECIDED, NO_MEMORY, limit_state, state_t
from ask cimport limit_own
from change cimport change_charge, change_t, changes_reserve
from charge cimport terms_t
from record cimport record_log, record_seen, record_slot, record_t
from rules cimport LIMITS_MAX, limit_t, plan_t, rules_plan
from side cimport side_pass
from window cimport BUCKET, seen_t, slot_t, window_give_back, window_t

cdef struct adjusted_t:
    int count
    int64_t moved[LIMITS_MAX]       # above 0 taken, below 0 given back
    state_t states[LIMITS_MAX]      # after it


cdef inline state_t account_limit_state(const limit_t* limit, const record_t* record, const seen_t* seen) noexcept nogil:
    """How the account stands under a limit of its plan."""
    cdef window_t own
    cdef const window_t* window = &own if limit_own(limit, record.side, &own) else &limit.window
    cdef slot_t* slot = record_slot(record, limit.key)
    return limit_state(limit, window, seen, slot, record_log(record, slot) if slot != NULL else NULL)


cdef inline int adjust(
    const terms_t* terms, record_t** where, uint16_t pool, uint16_t rule, int64_t micro, int64_t now, adjusted_t* adjusted
) noexcept nogil:
    """Move `micro` under each of the plan's limits of that pool, or under the one of that id: the other label is 0."""
    cdef change_t changes[LIMITS_MAX]
    cdef const limit_t* of[LIMITS_MAX]
    cdef const plan_t* plan = rules_plan(terms.rules, where[0].plan)
    cdef const limit_t* limit
    cdef seen_t seen = record_seen(where[0], &terms.rules.zone, now)
    cdef slot_t* slot
    cdef int i, count = 0
    for i in range(plan.limit_count):
        limit = &plan.limits[i]
        if terms.rules.pool_labels[limit.pool] != pool and limit.rule != rule:
            continue
        if micro < 0 and limit.window.kind == BUCKET:
            continue
        of[count] = limit
        changes[count].key, changes[count].micro = limit.key, micro
        changes[count].window, changes[count].zone = &limit.window, seen.zone
        count += 1
    if not changes_reserve(where, changes, count, seen):
        return NO_MEMORY
    adjusted.count = count
    for i in range(count):
        slot = record_slot(where[0], changes[i].key)
        adjusted.moved[i] = micro
        if micro > 0:
            change_charge(&changes[i], where[0], seen)
        elif slot != NULL:
            adjusted.moved[i] = -window_give_back(changes[i].window, &seen, slot, record_log(where[0], slot), -micro)
        else:
            adjusted.moved[i] = 0
        adjusted.states[i] = account_limit_state(of[i], where[0], &seen)
    where[0].seen_at = seen.now
    if where[0].side != NULL:
        side_pass(where[0].side, seen.now, terms.spares)
    return DECIDED
