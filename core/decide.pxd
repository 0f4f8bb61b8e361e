# cython: cdivision=True
"""Decide: may this request pass, and what does it cost? One function of (rules, record, request, now), for Admit and Peek alike.

First everything that could refuse is looked at, in order of precedence; then every limit of every pool is charged, or none. There
is no point between at which anybody else could look. A refusal writes nothing: not a counter, not the account's time. Only
memory can fail between looking and charging, so it is taken before the first charge.

`now` is the caller's; the account's own time is that or its last admission's, whichever is later: time going back frees nothing.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t
from libc.stdlib cimport free

from amounts cimport MICRO, amount_add, ctz, ratio_t
from ask cimport (
    ACCOUNT_INACTIVE, ALLOWED, AMOUNT_TOO_LARGE, BURST, LIMIT_EXHAUSTED, METER_NOT_IN_PLAN, MODEL_NOT_IN_PLAN,
    RULE_EXPIRES_AT, RULE_NONE, RULE_SUBSCRIBED_AT, SUBSCRIPTION_EXPIRED, ask_find, ask_has_model, ask_lack, ask_names, ask_price,
    ask_t, ask_touch, ask_weight, flaw_t, request_t, touched_fit, touched_t,
)
from record cimport need_t, record_remake, record_t
from rules cimport LIMITS_MAX, POOLS_MAX, limit_t, rules_plan, rules_t
from wait cimport wait_search, wait_t
from window cimport (
    BUCKET, NEVER, SLIDING, seen_t, slot_t, sliding_room, window_charge, window_times, window_used,
)
from log cimport entry_t

cdef enum outcome_t:
    DECIDED = 0
    PAST_RANGE = 1                  # a draw of more than 10^12 units: `past_draw`. Nothing was decided
    NO_MEMORY = 2                   # nothing was changed

cdef struct charge_t:
    int pool
    int64_t micro

cdef struct state_t:                # one limit as it stands
    const limit_t* limit
    int64_t used
    int64_t resets_at               # NEVER: nothing is drawn
    int64_t full_at

cdef struct answer_t:
    int verdict
    uint16_t rule                   # label of what decided
    int past_draw
    int32_t model                   # index, below 0: none or unknown
    const limit_t* limit            # that decided, or NULL
    int64_t weight_micro            # 0: the decision came before the weight
    int64_t wait_until              # NEVER: waiting does not help
    int64_t frees_at                # when the deciding limit has room, also past the subscription's end; NEVER: at no time
    int charge_count
    int state_count
    charge_t charges[POOLS_MAX]
    state_t states[LIMITS_MAX]


cdef inline state_t limit_state(const limit_t* limit, const seen_t* seen, const slot_t* slot, const entry_t* log) noexcept nogil:
    cdef state_t state
    state.limit = limit
    state.used = window_used(&limit.window, seen, slot, log)
    window_times(&limit.window, seen, slot, log, &state.resets_at, &state.full_at)
    return state


cdef inline void answer_states(answer_t* answer, const ask_t* ask, bint explain) noexcept nogil:
    """List the limits that refuse, or with `explain` all that were touched."""
    cdef const touched_t* touched
    cdef int j
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if explain or touched.refuses:
            answer.states[answer.state_count] = limit_state(touched.limit, &ask.seen, touched.slot, touched.log)
            answer.state_count += 1


cdef inline void answer_charges(answer_t* answer, const ask_t* ask) noexcept nogil:
    """Sum up by pool what the draws cost: each draw once in every pool that it feeds."""
    cdef uint32_t pools = 0
    cdef int pool, i
    cdef int64_t micro
    for i in range(ask.draw_count):
        pools |= ask.meters[i].pools
    while pools:
        pool = ctz(pools)
        pools &= pools - 1
        micro = ask.costs[0]
        if ask.draw_count > 1:
            micro = 0
            for i in range(ask.draw_count):
                if (ask.meters[i].pools >> pool) & 1:
                    micro = amount_add(micro, ask.costs[i])
        if micro:
            answer.charges[answer.charge_count].pool = pool
            answer.charges[answer.charge_count].micro = micro
            answer.charge_count += 1


cdef inline bint ask_fits_record(const ask_t* ask) noexcept nogil:
    """Whether everything that will be charged has a slot, and every log a free entry."""
    cdef const touched_t* touched
    cdef int j
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if touched.cost and (touched.slot == NULL or (
            touched.limit.window.kind == SLIDING and touched.slot.count == touched.slot.room
        )):
            return False
    return True


cdef inline bint ask_reserve(ask_t* ask, record_t** where) noexcept nogil:
    """See to it that every limit that will be charged has a slot, and room in its log; false without memory."""
    cdef need_t needs[LIMITS_MAX]
    cdef const touched_t* touched
    cdef record_t* remade
    cdef int j, count = 0
    cdef bint grows = False
    if ask_fits_record(ask):
        return True
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if touched.cost == 0:
            continue
        needs[count].key = touched.limit.key
        needs[count].room = 0
        if touched.limit.window.kind == SLIDING:
            if touched.slot == NULL:
                needs[count].room = 1
            elif touched.slot.count == touched.slot.room:
                needs[count].room = sliding_room(&touched.limit.window, &ask.seen, touched.slot, touched.log)
                grows = grows or needs[count].room > touched.slot.room
        grows = grows or touched.slot == NULL
        count += 1
    if not grows:
        return True
    remade = record_remake(where[0], needs, count, ask.seen.now)
    if remade == NULL:
        return False
    free(where[0])
    where[0] = remade
    ask_find(ask, remade)
    return True


cdef inline int ask_charge(ask_t* ask, record_t** where, answer_t* answer, bint explain) noexcept nogil:
    """All limits have room: draw on each."""
    cdef touched_t* touched
    cdef int j
    if not ask_reserve(ask, where):
        return NO_MEMORY
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if touched.cost:
            window_charge(&touched.limit.window, &ask.seen, touched.slot, touched.log, touched.cost)
    where[0].seen_at = ask.seen.now
    answer.verdict = ALLOWED
    answer_charges(answer, ask)
    if explain:
        answer_states(answer, ask, True)
    return DECIDED


cdef inline void answer_wait(answer_t* answer, int64_t until, const record_t* record) noexcept nogil:
    """A wait that outlasts the subscription is none; the text still says when there would be room."""
    answer.frees_at = until
    answer.wait_until = until if until < record.expires_at else NEVER


cdef inline void ask_refuse(ask_t* ask, const record_t* record, answer_t* answer, bint explain) noexcept nogil:
    """Some limit has no room: which decides, and until when."""
    cdef const limit_t* never = NULL        # the first that this cost could never fit under
    cdef touched_t* touched
    cdef wait_t wait
    cdef int64_t at, last = -1
    cdef int j
    answer_states(answer, ask, explain)
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if never == NULL and touched.cost > touched.limit.window.limit:
            never = touched.limit
    wait = wait_search(ask, ask.seen.now)
    answer.verdict = BURST
    for j in range(ask.touched_count):      # the one that frees last; a bucket only if no window refuses
        touched = &ask.touched[j]
        if not touched.refuses or (touched.limit.window.kind == BUCKET and answer.verdict == LIMIT_EXHAUSTED):
            continue
        at = touched_fit(touched, &ask.seen, ask.seen.now)
        if at > last or (touched.limit.window.kind != BUCKET and answer.verdict == BURST):
            last = at
            answer.limit = touched.limit
        if touched.limit.window.kind != BUCKET:
            answer.verdict = LIMIT_EXHAUSTED
    answer_wait(answer, wait.until, record)
    if wait.until == NEVER:
        answer.frees_at = last
    if not wait.possible:
        answer.verdict = AMOUNT_TOO_LARGE
        answer.limit = never
        answer.wait_until = answer.frees_at = NEVER
    answer.rule = answer.limit.rule


cdef inline flaw_t ask_flaw(ask_t* ask, const record_t* record, flaw_t names) noexcept nogil:
    """What refuses before any limit is looked at, in order of precedence; ALLOWED if nothing does."""
    cdef flaw_t flaw
    if ask.seen.now < record.subscribed_at:
        flaw.verdict, flaw.rule = ACCOUNT_INACTIVE, RULE_SUBSCRIBED_AT
        return flaw
    if ask.seen.now >= record.expires_at:
        flaw.verdict, flaw.rule = SUBSCRIPTION_EXPIRED, RULE_EXPIRES_AT
        return flaw
    if names.verdict == ALLOWED:
        return ask_lack(ask, ask.seen.now, NULL)
    if names.verdict == METER_NOT_IN_PLAN and not ask_has_model(ask, ask.seen.now, NULL):
        flaw.verdict, flaw.rule = MODEL_NOT_IN_PLAN, ask.rules.models[ask.model].rule
        return flaw
    return names


cdef inline int decide(
    const rules_t* rules, record_t** where, request_t* request, int64_t now, answer_t* answer
) noexcept nogil:
    """Decide and, if allowed, charge. `where` holds the record and is pointed at a new one if it had to grow."""
    cdef const record_t* record = where[0]
    cdef ask_t ask
    cdef flaw_t names, flaw
    cdef ratio_t weight
    cdef bint refuses = False
    cdef int j
    ask.rules = rules
    ask.plan = rules_plan(rules, record.plan)
    ask.plan_index = <int>(ask.plan - rules.plans)
    ask.seen.zone = &rules.zone
    ask.seen.now = max(now, record.seen_at)
    ask.seen.subscribed_at = record.subscribed_at
    names = ask_names(&ask, request)
    answer_begin(answer)
    answer.model = ask.model
    flaw = ask_flaw(&ask, record, names)
    if names.verdict == ALLOWED:
        ask_touch(&ask, record)
    if flaw.verdict != ALLOWED:
        answer.verdict = flaw.verdict
        answer.rule = flaw.rule
        if names.verdict == ALLOWED and flaw.verdict != SUBSCRIPTION_EXPIRED:
            answer_wait(answer, wait_search(&ask, max(ask.seen.now, record.subscribed_at)).until, record)
        return DECIDED
    weight = ask_weight(&ask, ask.seen.now, NULL)
    answer.past_draw = ask_price(&ask, weight)
    if answer.past_draw >= 0:
        return PAST_RANGE
    answer.weight_micro = weight.num * MICRO // weight.den
    for j in range(ask.touched_count):
        ask.touched[j].refuses = touched_fit(&ask.touched[j], &ask.seen, ask.seen.now) != ask.seen.now
        refuses = refuses or ask.touched[j].refuses
    if not refuses:
        return ask_charge(&ask, where, answer, request.explain)
    ask_refuse(&ask, record, answer, request.explain)
    return DECIDED


cdef inline void answer_begin(answer_t* answer) noexcept nogil:
    answer.rule = RULE_NONE
    answer.past_draw = -1
    answer.model = -1
    answer.limit = NULL
    answer.weight_micro = 0
    answer.wait_until = answer.frees_at = NEVER
    answer.charge_count = answer.state_count = 0
