# cython: cdivision=True
"""In flight: how many holds may be open at once.

A plan's concurrency limits each count the open holds of some models. Which of a limit's alternatives is in force, the schedule says;
an account's own limit stands in place of all of them. The platform's capacity scales what the plan allows, never below one,
and never what the account was given as 0: so a higher plan never gets less than a lower one.
"""
from libc.stdint cimport int64_t, uint16_t

from amounts cimport MICRO, i128
from ask cimport ask_t
from rules cimport bit_has, concurrency_t, rules_model_of, rules_t
from side cimport known_t, override_t, side_holds_open, side_override, side_t
from zone cimport schedule_holds

cdef enum:
    UNLIMITED = -1

cdef struct in_flight_state_t:      # one concurrency limit as it stands
    uint16_t rule
    int64_t limit                   # as plan or account have it; UNLIMITED: none in force
    int64_t effective               # at the platform's capacity
    int64_t count                   # open holds that it counts


cdef inline int64_t in_flight_limit(const concurrency_t* self, const rules_t* rules, const side_t* side, int64_t now) noexcept nogil:
    cdef const override_t* own = side_override(side, self.rule)
    cdef int i
    if own != NULL:
        return own.limit
    for i in range(self.entry_count):
        if self.entries[i].schedule < 0 or schedule_holds(&rules.schedules[self.entries[i].schedule], &rules.zone, now):
            return self.entries[i].limit
    return UNLIMITED


cdef inline int64_t in_flight_count(const concurrency_t* self, const rules_t* rules, const side_t* side, int64_t now) noexcept nogil:
    cdef const known_t* holds
    cdef int64_t count = 0
    cdef int i
    if side == NULL:
        return 0
    if self.models == NULL:
        return side_holds_open(side, now)
    holds = &side.holds
    for i in range(holds.first, holds.first + holds.count):
        count += now < holds.until[i] and bit_has(self.models, rules_model_of(rules, holds.at[i].model))
    return count


cdef inline in_flight_state_t in_flight_state(
    const concurrency_t* self, const rules_t* rules, const side_t* side, int64_t capacity, int64_t now
) noexcept nogil:
    cdef in_flight_state_t state
    state.rule = self.rule
    state.limit = in_flight_limit(self, rules, side, now)
    state.effective = state.limit
    if state.limit > 0:
        state.effective = max(<int64_t>1, <int64_t>(<i128>state.limit * <i128>capacity // <i128>MICRO))
    state.count = in_flight_count(self, rules, side, now)
    return state


cdef inline bint in_flight_touches(const concurrency_t* self, const ask_t* ask) noexcept nogil:
    """Whether the request, if it opens a hold, takes one of these places."""
    return self.models == NULL or bit_has(self.models, ask.model)
