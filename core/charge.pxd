# cython: cdivision=True
"""Charge: draw on every limit that a request touches, and remember what a retry or a settlement will ask for.

Nothing is charged before everything that needs memory has it: slots and log entries, the admission, room at the record's side. From
the first charge on nothing can fail.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t

from admission cimport (
    CALL, FOLDED, HELD, JOINED, OWN, PROMPTED, admission_drawn, admission_moved, admission_new, admission_release, admission_t, drawn_t, moved_t,
    spares_t,
)
from amounts cimport ctz, ratio_t
from answer cimport DECIDED, NO_MEMORY, answer_charges, answer_states, answer_t
from ask cimport ALLOWED, ask_find, ask_t, request_t, touched_t
from names cimport NAME_ABSENT
from price cimport ask_pools, pool_folded, pool_own
from prompt cimport prompt_pay, prompt_t
from record cimport need_note, need_t, record_grow, record_t
from rules cimport LIMITS_MAX, rules_t, version_t
from side cimport (
    bounds_t, forgotten_t, known_insert, side_begin_prompt, side_hold, side_join, side_new, side_prompt, side_reserve,
    side_reserve_prompt, side_settle_down, side_t, side_trim,
)
from window cimport SLIDING, window_charge

cdef struct terms_t:                # what decisions are made under
    const rules_t* rules
    uint32_t version                # of the catalog
    const version_t* versions       # by number
    int64_t capacity                # micro
    const bounds_t* bounds
    forgotten_t* forgotten
    spares_t* spares


# ---- Room in the record ----

cdef inline bint touched_fits(const touched_t* self) noexcept nogil:
    """Whether the limit has a slot, and its log a free entry: then charging it needs no more memory."""
    return self.slot != NULL and (self.window.kind != SLIDING or self.slot.count < self.slot.room)


cdef inline bint ask_reserve(ask_t* ask, record_t** where) noexcept nogil:
    """See to it that every limit that will be charged has a slot, and room in its log; false without memory."""
    cdef need_t needs[LIMITS_MAX]
    cdef const touched_t* touched
    cdef int j, count = 0
    cdef bint grows = False
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if touched.cost:
            grows = need_note(&needs[count], where[0], touched.window, touched.limit.key, &ask.seen) or grows
            count += 1
    if not grows:
        return True
    if not record_grow(where, needs, count, ask.seen.now):
        return False
    ask_find(ask, where[0])
    return True


# ---- What is remembered ----

cdef inline admission_t* admission_sized(const ask_t* ask, const request_t* request, spares_t* spares) noexcept nogil:
    """An empty admission with space for all that the request will be charged; NULL without memory."""
    cdef uint32_t pools = ask_pools(ask)
    cdef int j, pool, drawn = 0, moved = 0
    for j in range(ask.touched_count):
        drawn += <int>(ask.touched[j].cost > ask.touched[j].folded) + <int>(ask.touched[j].folded > 0)
    while pools:
        pool = ctz(pools)
        pools &= pools - 1
        moved += <int>(pool_own(ask, pool) > 0) + <int>(ask.folded != 0 and pool_folded(ask, pool) > 0)
    return admission_new(request.id, request.id_hash, drawn, moved, spares)


cdef inline drawn_t* drawn_note(drawn_t* at, const touched_t* touched, const ask_t* ask, int part, int64_t micro) noexcept nogil:
    """Note one part of what a limit was charged, if it is above 0; where the next one goes."""
    if micro == 0:
        return at
    at.key = touched.limit.key
    at.pool = ask.rules.pool_labels[touched.limit.pool]
    at.part = part
    at.micro = micro
    at.end = 0 if touched.window.kind == SLIDING else touched.slot.end
    return at + 1


cdef inline moved_t* moved_note(moved_t* at, uint16_t pool, int part, int64_t micro) noexcept nogil:
    if micro == 0:
        return at
    at.pool = pool
    at.part = part
    at.micro = micro
    return at + 1


cdef inline void admission_fill(
    admission_t* self, const ask_t* ask, const request_t* request, const answer_t* answer, uint32_t version, ratio_t weight
) noexcept nogil:
    """Note what was charged, after it was."""
    cdef drawn_t* drawn = admission_drawn(self)
    cdef moved_t* moved = admission_moved(self)
    cdef const touched_t* touched
    cdef uint32_t pools = ask_pools(ask)
    cdef int j, pool
    self.admitted_at = self.until = ask.seen.now
    if answer.hold_until:
        self.flags |= HELD
        self.until = self.hold_until = answer.hold_until
    self.fingerprint = request.fingerprint
    self.weight_num, self.weight_den = <int32_t>weight.num, <int32_t>weight.den
    self.version = version
    self.plan = ask.plan.label
    self.model = answer.model
    self.tool = ask.rules.tool_labels[ask.tool] if ask.tool != NAME_ABSENT else 0
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        drawn = drawn_note(drawn, touched, ask, OWN, touched.cost - touched.folded)
        drawn = drawn_note(drawn, touched, ask, FOLDED, touched.folded)
    while pools:
        pool = ctz(pools)
        pools &= pools - 1
        moved = moved_note(moved, ask.rules.pool_labels[pool], OWN, pool_own(ask, pool))
        if ask.folded:
            moved = moved_note(moved, ask.rules.pool_labels[pool], FOLDED, pool_folded(ask, pool))


cdef inline uint32_t prompt_call(const ask_t* ask, side_t* side, const request_t* request, const terms_t* terms, bint* joins) noexcept nogil:
    """Let the call join its prompt, or begin one; its number."""
    cdef prompt_t* prompt = side_prompt(side, request.prompt)
    cdef uint32_t pools = ask.folded_pools
    cdef int pool
    joins[0] = ask.prompt != NULL
    if not joins[0]:
        prompt = side_begin_prompt(side, request.prompt, ask.plan, ask.seen.now, terms.bounds, terms.forgotten)
    elif prompt.calls == 1:
        side_join(side, prompt.number)
    prompt.calls += 1
    prompt.last_call_at = ask.seen.now
    while pools:
        pool = ctz(pools)
        pools &= pools - 1
        if ask.units[pool]:
            prompt_pay(prompt, ask.rules.pool_labels[pool], ask.units[pool])
    return prompt.number


cdef inline bint side_prepare(
    record_t* record, const ask_t* ask, const request_t* request, const terms_t* terms, admission_t** admission
) noexcept nogil:
    """Take the memory that remembering will need, after letting go of what time has closed; false without. A side that stays empty does
    no harm."""
    if record.side == NULL:
        record.side = side_new()
    if record.side == NULL or (ask.calls and not side_reserve_prompt(record.side)):
        return False
    if request.id.size == 0:
        return True
    if not side_reserve(record.side):
        return False
    side_settle_down(record.side, ask.seen.now, terms.spares)
    admission[0] = admission_sized(ask, request, terms.spares)
    return admission[0] != NULL


cdef inline void side_remember(
    side_t* side, const ask_t* ask, const request_t* request, const answer_t* answer, const terms_t* terms, ratio_t weight,
    admission_t* admission
) noexcept nogil:
    cdef uint32_t prompt = 0
    cdef bint joins = False
    if ask.calls:
        prompt = prompt_call(ask, side, request, terms, &joins)
    if admission == NULL:
        return
    admission_fill(admission, ask, request, answer, terms.version, weight)
    side.admission_number += 1
    admission.number = side.admission_number
    admission.prompt = prompt
    if request.has_prompt:
        admission.flags |= PROMPTED
    if prompt:
        admission.flags |= (CALL | JOINED) if joins else CALL
    if admission.flags & HELD:
        side_hold(side, admission)
    else:
        known_insert(&side.ids, admission)
    side_trim(side, terms.bounds, terms.forgotten, terms.spares)


cdef inline int ask_charge(
    ask_t* ask, record_t** where, const request_t* request, answer_t* answer, const terms_t* terms, ratio_t weight, bint fits, bint keep
) noexcept nogil:
    """The request passes: draw on each limit. `fits`: the record has room for it. With `keep` what it leaves at the record's side is
    kept too."""
    cdef touched_t* touched
    cdef admission_t* admission = NULL
    cdef bint remembers = keep and (request.id.size or ask.calls)
    cdef int j
    if remembers and not side_prepare(where[0], ask, request, terms, &admission):
        return NO_MEMORY
    if not fits and not ask_reserve(ask, where):
        admission_release(admission, terms.spares)
        return NO_MEMORY
    for j in range(ask.touched_count):
        touched = &ask.touched[j]
        if touched.cost:
            window_charge(touched.window, &ask.seen, touched.slot, touched.log, touched.cost)
    where[0].seen_at = ask.seen.now
    answer.verdict = ALLOWED
    answer_charges(answer, ask)
    if request.explain:
        answer_states(answer, ask, True)
    if remembers:
        side_remember(where[0].side, ask, request, answer, terms, weight, admission)
    return DECIDED
