# cython: cdivision=True
"""Decide: may this request pass, and what does it cost? One function of (terms, record, request, now), for Admit and Peek alike.

First everything that could refuse is looked at, in order of precedence; then every limit of every pool is charged, or none. There
is no point between at which anybody else could look. A refusal writes nothing: not a counter, not the account's time. Only
memory can fail between looking and charging, so it is taken before the first charge.

An id that is remembered comes before all of it: its answer is given again, and nothing is charged.

`now` is the caller's; the account's own time is that or its last change's, whichever is later: time going back frees nothing.
"""
from libc.stdint cimport int64_t, uint16_t

from admission cimport HELD, OWN, FOLDED, admission_moved, admission_t
from amounts cimport MICRO, amount_add, ratio_t
from answer cimport (
    CONFLICT, DECIDED, HOLD_TOO_LONG, PAST_RANGE, PROMPT_AMOUNT, answer_begin, answer_states, answer_t,
)
from ask cimport (
    ACCOUNT_INACTIVE, ALLOWED, AMOUNT_TOO_LARGE, BURST, CONCURRENCY, LIMIT_EXHAUSTED, METER_NOT_IN_PLAN, MODEL_NONE, MODEL_NOT_IN_PLAN,
    MODEL_UNKNOWN_LABEL, OVERLOADED, RULE_EXPIRES_AT, RULE_HOLDS, RULE_SUBSCRIBED_AT, SUBSCRIPTION_EXPIRED, ask_fold, ask_has_model,
    ask_lack, ask_names, ask_t, ask_touch_request, ask_weight_now, flaw_t, request_t, touched_fit, touched_refuses, touched_t,
)
from charge cimport ask_charge, terms_t, touched_fits
from in_flight cimport UNLIMITED, in_flight_state, in_flight_state_t, in_flight_touches
from price cimport price_draws, price_limits
from record cimport record_seen, record_t
from rules cimport limit_t, rules_model_of, rules_plan
from side cimport side_find, side_holds_open
from wait cimport wait_search, wait_t
from window cimport BUCKET, NEVER


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
        if touched.refuses and touched.window.limit == 0:
            answer.verdict = LIMIT_EXHAUSTED    # blocked: for as long as somebody wants it so
            answer.limit = touched.limit
            answer.rule = touched.limit.rule
            return
        if never == NULL and not touched.skips and touched.cost > touched.window.limit:
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


# ---- Holds ----

cdef inline bint ask_refuse_hold(const ask_t* ask, const terms_t* terms, answer_t* answer, bint explain) noexcept nogil:
    """Whether no place is free for one more hold, and why. What is too much in itself comes before what only the platform lacks."""
    cdef in_flight_state_t state
    cdef int i
    answer.verdict = ALLOWED
    for i in range(ask.plan.concurrency_count):
        if not in_flight_touches(&ask.plan.concurrency[i], ask):
            continue
        state = in_flight_state(&ask.plan.concurrency[i], ask.rules, ask.side, terms.capacity, ask.seen.now)
        if state.limit == UNLIMITED or state.count < state.effective:
            continue
        if state.count >= state.limit:
            answer.verdict, answer.rule, answer.hints = CONCURRENCY, state.rule, state.limit > 0
            break
        if answer.verdict == ALLOWED:
            answer.verdict, answer.rule, answer.hints = OVERLOADED, state.rule, True
    if answer.verdict != CONCURRENCY and ask.side != NULL and side_holds_open(ask.side, ask.seen.now) >= terms.bounds.holds_max:
        answer.verdict, answer.rule, answer.hints = CONCURRENCY, RULE_HOLDS, True
    if answer.verdict == ALLOWED:
        return False
    if explain:
        answer_states(answer, ask, True)
    return True


cdef inline int64_t hold_asked(const ask_t* ask, const request_t* request, const terms_t* terms) noexcept nogil:
    """How long a hold to open, microseconds; 0: none."""
    cdef int64_t hold = request.hold
    if hold == 0 and request.id.size:
        hold = min(ask.plan.hold_default, terms.bounds.hold_us_max)
    if hold and request.records and ask.side != NULL and side_holds_open(ask.side, ask.seen.now) >= terms.bounds.holds_max:
        return 0
    return hold


# ---- Deciding ----

cdef inline void answer_again(
    answer_t* answer, ask_t* ask, const admission_t* admission, const record_t* record, request_t* request
) noexcept nogil:
    """The answer that this id had. Limits are shown as of now."""
    cdef int i, j
    answer.replayed = True
    answer.verdict = ALLOWED
    answer.version = admission.version
    answer.model = admission.model
    answer.weight_micro = <int64_t>admission.weight_num * MICRO // admission.weight_den
    if admission.flags & HELD:
        answer.hold_until = admission.hold_until
    for i in range(admission.moved_count):
        if admission_moved(admission)[i].part not in (OWN, FOLDED):
            continue
        for j in range(answer.charge_count):
            if answer.charges[j].pool == admission_moved(admission)[i].pool:
                answer.charges[j].micro = amount_add(answer.charges[j].micro, admission_moved(admission)[i].micro)
                break
        else:
            answer.charges[answer.charge_count].pool = admission_moved(admission)[i].pool
            answer.charges[answer.charge_count].micro = admission_moved(admission)[i].micro
            answer.charge_count += 1
    if request.explain and ask_names(ask, request).verdict == ALLOWED:
        ask_touch_request(ask, record, request)
        answer_states(answer, ask, True)


cdef inline uint16_t model_label(const ask_t* ask, const request_t* request) noexcept nogil:
    if ask.model >= 0:
        return ask.rules.models[ask.model].label
    return MODEL_UNKNOWN_LABEL if request.model.size else MODEL_NONE


cdef inline int ask_misfit(const ask_t* ask) noexcept nogil:
    """The first draw that folds into a prompt though it is more than one, or -1."""
    cdef int i
    for i in range(ask.draw_count):
        if (ask.calls >> i) & 1 and ask.amounts[i] != 1:
            return i
    return -1


cdef inline void ask_begin(ask_t* ask, const terms_t* terms, const record_t* record, int64_t now) noexcept nogil:
    ask.rules = terms.rules
    ask.side = record.side
    ask.folded = ask.calls = 0
    ask.prompt = NULL
    ask.plan = rules_plan(terms.rules, record.plan)
    ask.plan_index = <int>(ask.plan - terms.rules.plans)
    ask.seen = record_seen(record, &terms.rules.zone, now)


cdef inline int decide(
    const terms_t* terms, record_t** where, request_t* request, int64_t now, answer_t* answer, bint keep
) noexcept nogil:
    """Decide and, if allowed, charge. `where` holds the record and is pointed at a new one if it had to grow. Without `keep`, for a
    copy, nothing is left at the record's side, which the copy shares."""
    cdef const record_t* record = where[0]
    cdef const admission_t* admission
    cdef ask_t ask
    cdef flaw_t names, flaw
    ask_begin(&ask, terms, record, now)
    answer_begin(answer)
    if request.id.size and record.side != NULL:
        admission = side_find(record.side, request.id, request.id_hash, ask.seen.now)
        if admission != NULL:
            if admission.fingerprint != request.fingerprint:
                return CONFLICT
            answer_again(answer, &ask, admission, record, request)
            return DECIDED
    if request.hold > terms.bounds.hold_us_max:
        return HOLD_TOO_LONG
    answer.version = terms.version
    names = ask_names(&ask, request)
    answer.model = model_label(&ask, request)
    flaw = ask_flaw(&ask, record, names)
    if names.verdict == ALLOWED and request.has_prompt:
        ask_fold(&ask, request)
    if flaw.verdict != ALLOWED:
        answer.verdict = flaw.verdict
        answer.rule = flaw.rule
        if names.verdict == ALLOWED and flaw.verdict != SUBSCRIPTION_EXPIRED and ask_misfit(&ask) < 0:
            ask_touch_request(&ask, record, request)
            answer_wait(answer, wait_search(&ask, max(ask.seen.now, record.subscribed_at)).until, record)
        return DECIDED
    return decide_amounts(&ask, terms, where, request, answer, keep)


cdef inline int decide_amounts(
    ask_t* ask, const terms_t* terms, record_t** where, request_t* request, answer_t* answer, bint keep
) noexcept nogil:
    """Nothing refuses the request itself: what is left are amounts, and places in flight."""
    cdef ratio_t weight = ask_weight_now(ask)
    cdef touched_t* touched
    cdef bint refuses = False, fits = True
    cdef int64_t hold
    cdef int j
    if ask.calls:
        answer.past_draw = ask_misfit(ask)
        if answer.past_draw >= 0:
            return PROMPT_AMOUNT
    answer.past_draw = price_draws(ask, weight)
    if answer.past_draw >= 0:
        return PAST_RANGE
    ask_touch_request(ask, where[0], request)
    if ask.draw_count > 1 or ask.folded:
        price_limits(ask, ask.seen.now)
    answer.weight_micro = weight.num * MICRO if weight.den == 1 else weight.num * MICRO // weight.den
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        fits = fits and touched_fits(touched)
        if touched_refuses(touched, &ask.seen):
            touched.refuses = refuses = True
    if refuses and not request.records:
        ask_refuse(ask, where[0], answer, request.explain)
        return DECIDED
    if request.id.size:
        hold = hold_asked(ask, request, terms)
        if hold:
            if not request.records and ask_refuse_hold(ask, terms, answer, request.explain):
                return DECIDED
            answer.hold_until = ask.seen.now + hold
    return ask_charge(ask, where, request, answer, terms, weight, fits, keep)
