# cython: cdivision=True
"""Answers: what a decision comes to, as plain values that whoever asked may keep."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from amounts cimport amount_add, ctz, i128
from ask cimport MODEL_NONE, RULE_NONE, ask_t, touched_t
from log cimport entry_t
from price cimport ask_pools, pool_folded, pool_own
from rules cimport LIMITS_MAX, POOLS_MAX, limit_t
from window cimport NEVER, seen_t, slot_t, window_t, window_times, window_used

cdef enum outcome_t:
    DECIDED = 0
    PAST_RANGE = 1                  # a draw of more than 10^12 units: `past_draw`. With these nothing was decided or changed:
    NO_MEMORY = 2
    CONFLICT = 3                    # the id is another request's
    HOLD_TOO_LONG = 4
    PROMPT_AMOUNT = 5               # a draw that folds into a prompt is neither 0 nor 1: `past_draw`
    NOT_KNOWN = 6                   # no such account, or the id is not remembered
    METER_ABSENT = 7                # the plan of the admission lacks it: `past_draw`
    HOLD_ENDED = 8
    NOT_HERE = 9                    # the account was demoted: recall it and ask again

cdef struct charge_t:
    int64_t micro
    uint16_t pool                   # label

cdef struct state_t:                # one limit as it stands
    const limit_t* limit
    int64_t limit_micro             # the account's own, if it has one
    int64_t used
    int64_t resets_at               # NEVER: nothing is drawn
    int64_t full_at
    uint32_t draws                  # of a request: mask of those that it counts
    bint refuses                    # the request

cdef struct answer_t:
    int verdict
    uint16_t rule                   # label of what decided
    uint16_t model                  # label
    int past_draw
    bint replayed                   # the answer to an id that was answered before
    uint32_t version                # of the catalog that decided
    const limit_t* limit            # that decided, or NULL
    int64_t weight_micro            # 0: the decision came before the weight
    int64_t wait_until              # NEVER: waiting does not help, or there is only a hint
    int64_t frees_at                # when the deciding limit has room, also past the subscription's end; NEVER: at no time
    bint hints                      # the vendor's hint stands in for the wait
    int64_t hold_until              # 0: no hold
    uint64_t ticket                 # of the change that the answer stands on; 0: none
    int charge_count
    int state_count
    charge_t charges[POOLS_MAX]
    state_t states[LIMITS_MAX]


cdef inline void answer_begin(answer_t* answer) noexcept nogil:
    answer.rule = RULE_NONE
    answer.model = MODEL_NONE
    answer.past_draw = -1
    answer.replayed = answer.hints = False
    answer.version = 0
    answer.limit = NULL
    answer.weight_micro = 0
    answer.wait_until = answer.frees_at = NEVER
    answer.hold_until = 0
    answer.ticket = 0
    answer.charge_count = answer.state_count = 0


cdef inline int64_t ms_up(int64_t moment) noexcept nogil:
    """A moment or duration, at or above 0, in whole milliseconds, rounded up."""
    return (moment + 999) // 1000


cdef inline int64_t state_percent(const state_t* self) noexcept nogil:
    """Used, in whole percent of the limit, rounded down; 100 where the limit is 0."""
    return <int64_t>(<i128>self.used * <i128>100 // <i128>self.limit_micro) if self.limit_micro else 100


cdef inline state_t limit_state(
    const limit_t* limit, const window_t* window, const seen_t* seen, const slot_t* slot, const entry_t* log
) noexcept nogil:
    cdef state_t state
    state.limit = limit
    state.limit_micro = window.limit
    state.used = window_used(window, seen, slot, log)
    state.draws, state.refuses = 0, False
    window_times(window, seen, slot, log, &state.resets_at, &state.full_at)
    return state


cdef inline void answer_states(answer_t* answer, const ask_t* ask, bint explain) noexcept nogil:
    """List the limits that refuse, or with `explain` all that were touched."""
    cdef const touched_t* touched
    cdef state_t* state
    cdef int j
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if explain or touched.refuses:
            state = &answer.states[answer.state_count]
            state[0] = limit_state(touched.limit, touched.window, &ask.seen, touched.slot, touched.log)
            state.draws, state.refuses = touched.draws, touched.refuses
            answer.state_count += 1


cdef inline void answer_charges(answer_t* answer, const ask_t* ask) noexcept nogil:
    """Sum up by pool what the draws cost: each draw once in every pool that it feeds."""
    cdef uint32_t pools = ask_pools(ask)
    cdef int pool
    cdef int64_t micro
    while pools:
        pool = ctz(pools)
        pools &= pools - 1
        micro = pool_own(ask, pool)
        if ask.folded:
            micro = amount_add(micro, pool_folded(ask, pool))
        if micro:
            answer.charges[answer.charge_count].pool = ask.rules.pool_labels[pool]
            answer.charges[answer.charge_count].micro = micro
            answer.charge_count += 1
