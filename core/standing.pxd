# cython: cdivision=True
"""Standing: how an account stands under all limits of its plan, copied out while the ledger's mutex is held."""
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from adjust cimport account_limit_state
from admission cimport admission_copy, admission_open, admission_t
from answer cimport state_t
from charge cimport terms_t
from in_flight cimport UNLIMITED, in_flight_state, in_flight_state_t
from record cimport record_seen, record_t
from rules cimport CONCURRENCY_MAX, LIMITS_MAX, plan_t, rules_plan
from side cimport side_t
from window cimport seen_t

cdef struct standing_t:
    int limit_count
    int concurrency_count
    int hold_count
    state_t states[LIMITS_MAX]
    in_flight_state_t in_flight[CONCURRENCY_MAX]
    admission_t** holds             # copies of the open ones


cdef inline bint standing_take(standing_t* self, const terms_t* terms, const record_t* record, int64_t now) noexcept nogil:
    """Copy it; false without memory. With the mutex held."""
    cdef const plan_t* plan = rules_plan(terms.rules, record.plan)
    cdef const side_t* side = record.side
    cdef seen_t seen = record_seen(record, &terms.rules.zone, now)
    cdef int i
    self.limit_count = plan.limit_count
    for i in range(plan.limit_count):
        self.states[i] = account_limit_state(&plan.limits[i], record, &seen)
    self.concurrency_count = 0
    for i in range(plan.concurrency_count):
        self.in_flight[self.concurrency_count] = in_flight_state(&plan.concurrency[i], terms.rules, side, terms.capacity, seen.now)
        self.concurrency_count += self.in_flight[self.concurrency_count].limit != UNLIMITED
    self.hold_count = 0
    self.holds = NULL
    if side == NULL or side.holds.count == 0:
        return True
    self.holds = <admission_t**>malloc(side.holds.count * sizeof(admission_t*))
    if self.holds == NULL:
        return False
    for i in range(side.holds.first, side.holds.first + side.holds.count):
        if admission_open(side.holds.at[i], seen.now):
            self.holds[self.hold_count] = admission_copy(side.holds.at[i])
            if self.holds[self.hold_count] == NULL:
                return False
            self.hold_count += 1
    return True


cdef inline void standing_free(standing_t* self) noexcept nogil:
    cdef int i
    for i in range(self.hold_count):
        free(self.holds[i])
    free(self.holds)
