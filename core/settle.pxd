# cython: cdivision=True
"""Settle: close an admission with what was really used; Renew: keep its hold open.

It is priced by the catalog, plan and weight of the admission. What is more than was charged is charged now, even past the limit: the
use has happened, and the next Admit waits. What is less goes back to where it was drawn, if that still counts, and nowhere else: not
into a later period, not into the place of somebody else's draw. An admission is settled once; whoever settles it again is told the same.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from admission cimport (
    CALL, FOLDED, JOINED, LATE, OWN, PROMPTED, REFUNDED, SETTLED, TOPPED, admission_drawn, admission_id, admission_moved,
    admission_new, admission_open, admission_release, admission_t, drawn_t, moved_t, spares_t,
)
from amounts cimport amount_add, ctz, ratio_t
from answer cimport (
    CONFLICT, DECIDED, HOLD_ENDED, METER_ABSENT, NOT_KNOWN, NO_MEMORY, PAST_RANGE, PROMPT_AMOUNT,
)
from ask cimport ask_limits, ask_t, ask_touch, request_t
from change cimport change_charge, change_place, change_t, changes_reserve
from charge cimport moved_note, terms_t
from decide cimport ask_misfit
from names cimport NAME_ABSENT, name_t, names_get
from price cimport ask_pools, ask_price, pool_folded, pool_own
from record cimport record_log, record_seen, record_slot, record_t
from rules cimport LIMITS_MAX, plan_t, rules_model_of, rules_plan, rules_t, rules_tool_of
from side cimport (
    known_insert, known_t, known_place, known_remove, side_find, side_forget_prompt, side_pass, side_reserve, side_settle_down, side_t, side_trim,
)
from window cimport seen_t, slot_t, window_refund

cdef enum:
    CHANGES_MAX = 256               # an admission's parts, and as many limits again
    SETTLED_POOLS_MAX = 64

cdef struct settled_pool_t:
    uint16_t pool                   # label
    int64_t charged
    int64_t refunded

cdef struct settled_t:              # the answer
    bint late
    bint replayed                   # the answer that an earlier settlement had: nothing is moved
    int past_draw
    int pool_count
    settled_pool_t pools[SETTLED_POOLS_MAX]

cdef struct settling_t:             # a settlement being worked out
    const terms_t* terms
    const admission_t* admission
    const rules_t* then             # of the admission
    const plan_t* plan_then
    const plan_t* plan              # of today
    bint forgets                    # the prompt that the admission began
    int change_count
    change_t changes[CHANGES_MAX]


cdef inline settled_pool_t* settled_pool(settled_t* self, uint16_t pool) noexcept nogil:
    """The pool's part of the answer, a new one if it has none."""
    cdef int i
    for i in range(self.pool_count):
        if self.pools[i].pool == pool:
            return &self.pools[i]
    i = self.pool_count
    self.pool_count += 1
    self.pools[i].pool = pool
    self.pools[i].charged = self.pools[i].refunded = 0
    return &self.pools[i]


cdef inline void settled_again(settled_t* self, const admission_t* admission) noexcept nogil:
    """The answer that the first settlement had."""
    cdef const moved_t* moved
    cdef int i
    self.replayed = True
    self.late = (admission.flags & LATE) != 0
    for i in range(admission.moved_count):
        moved = &admission_moved(admission)[i]
        if moved.part == TOPPED:
            settled_pool(self, moved.pool).charged = moved.micro
        elif moved.part == REFUNDED:
            settled_pool(self, moved.pool).refunded = moved.micro


# ---- What is to change ----

cdef inline void settling_change(settling_t* self, uint32_t key, uint16_t pool, int64_t micro, int64_t end) noexcept nogil:
    """Charge so much, or give it back; parts given back to one limit are one change."""
    cdef change_t* change
    cdef int i
    if micro == 0:
        return
    for i in range(self.change_count):
        if self.changes[i].key == key and micro < 0 and self.changes[i].micro < 0:
            self.changes[i].micro += micro
            return
    change = &self.changes[self.change_count]
    self.change_count += 1
    change.key, change.pool, change.micro, change.end = key, pool, micro, end
    change_place(change, self.terms.rules, self.plan, self.then, self.plan_then)


cdef inline void settling_refund(settling_t* self, int part, const ask_t* ask) noexcept nogil:
    """Give back all of one part of the charge, but under the limits that `ask` touches if there is one."""
    cdef const drawn_t* drawn = admission_drawn(self.admission)
    cdef int i
    for i in range(self.admission.drawn_count):
        if drawn[i].part == part and (ask == NULL or not ask_touches(ask, drawn[i].key)):
            settling_change(self, drawn[i].key, drawn[i].pool, -drawn[i].micro, drawn[i].end)


cdef inline void settling_leave_prompt(settling_t* self) noexcept nogil:
    """The call was none after all: what it paid for its prompt goes back, unless other calls live on it."""
    if self.admission.flags & CALL and not self.admission.flags & JOINED:
        settling_refund(self, FOLDED, NULL)
        self.forgets = True


cdef inline int settling_ask(settling_t* self, ask_t* ask, const request_t* request, const record_t* record, settled_t* settled) noexcept nogil:
    """Resolve the draws as the admission's catalog understands them."""
    cdef int i
    if self.plan_then == NULL:
        settled.past_draw = 0
        return METER_ABSENT
    ask.rules, ask.plan, ask.side, ask.prompt = self.then, self.plan_then, NULL, NULL
    ask.model = rules_model_of(self.then, self.admission.model)
    ask.tool = rules_tool_of(self.then, self.admission.tool)
    ask.folded = ask.calls = ask.folded_pools = 0
    ask.draw_count = request.draw_count
    for i in range(request.draw_count):
        settled.past_draw = i
        ask.amounts[i] = request.draws[i].amount
        ask.meter_index[i] = names_get(&self.then.meters, request.draws[i].meter)
        if ask.meter_index[i] == NAME_ABSENT:
            return METER_ABSENT
        ask.meters[i] = &self.then.meter_at[ask.meter_index[i]]
        if ask.meters[i].pools & ~self.plan_then.pools:
            return METER_ABSENT
        if self.admission.flags & PROMPTED and ask.meters[i].per_prompt:
            ask.folded |= <uint32_t>1 << i
            ask.folded_pools |= ask.meters[i].pools
            if ask.amounts[i]:
                ask.calls |= <uint32_t>1 << i
    settled.past_draw = ask_misfit(ask)
    if settled.past_draw >= 0:
        return PROMPT_AMOUNT
    ask.costs[0] = 0
    ask_touch(ask, record, ask_limits(ask))
    return DECIDED


cdef inline int64_t drawn_own(const admission_t* self, uint32_t key, int64_t* end) noexcept nogil:
    """What the admission's own draws were charged under a limit."""
    cdef int i
    for i in range(self.drawn_count):
        if admission_drawn(self)[i].key == key and admission_drawn(self)[i].part == OWN:
            end[0] = admission_drawn(self)[i].end
            return admission_drawn(self)[i].micro
    return 0


cdef inline int64_t moved_own(const admission_t* self, uint16_t pool) noexcept nogil:
    cdef int i
    for i in range(self.moved_count):
        if admission_moved(self)[i].pool == pool and admission_moved(self)[i].part == OWN:
            return admission_moved(self)[i].micro
    return 0


cdef inline bint ask_touches(const ask_t* ask, uint32_t key) noexcept nogil:
    cdef int j
    for j in range(ask.touched_count):
        if ask.touched[j].limit.key == key:
            return True
    return False


cdef inline int settling_price(settling_t* self, const request_t* request, const record_t* record, settled_t* settled) noexcept nogil:
    """Compare what the draws really used cost with what was charged."""
    cdef ask_t ask
    cdef ratio_t weight
    cdef bint call = (self.admission.flags & CALL) != 0
    cdef int outcome = settling_ask(self, &ask, request, record, settled)
    cdef uint32_t pools
    cdef uint16_t pool
    cdef int64_t micro, end = 0
    cdef int i
    if outcome != DECIDED:
        return outcome
    weight.num, weight.den = self.admission.weight_num, self.admission.weight_den
    settled.past_draw = ask_price(&ask, weight, 0)
    if settled.past_draw >= 0:
        return PAST_RANGE
    for i in range(ask.touched_count):      # a call's share of its prompt is not its own: it stays, or goes back as a whole
        micro = ask.touched[i].cost - (ask.touched[i].folded if call else 0)
        micro -= drawn_own(self.admission, ask.touched[i].limit.key, &end)
        settling_change(self, ask.touched[i].limit.key, self.then.pool_labels[ask.touched[i].limit.pool], micro, end)
    settling_refund(self, OWN, &ask)
    pools = ask_pools(&ask)
    while pools:
        i = ctz(pools)
        pools &= pools - 1
        pool = self.then.pool_labels[i]
        micro = pool_own(&ask, i)
        if ask.folded and not call:
            micro = amount_add(micro, pool_folded(&ask, i))
        settled_pool(settled, pool).charged = max(<int64_t>0, micro - moved_own(self.admission, pool))
    if not ask.calls:
        settling_leave_prompt(self)
    return DECIDED


# ---- Settling ----

cdef inline admission_t* admission_settled(const admission_t* self, const settled_t* settled, spares_t* spares) noexcept nogil:
    """The admission without what only a settlement needs, and with space for what this one moves; NULL without memory."""
    cdef name_t id
    cdef admission_t* made
    id.at, id.size = admission_id(self), self.id_size
    made = admission_new(id, self.id_hash, 0, self.moved_count + 2 * settled.pool_count, spares)
    if made == NULL:
        return NULL
    memset(admission_moved(made), 0, made.moved_count * sizeof(moved_t))
    memcpy(admission_moved(made), admission_moved(self), self.moved_count * sizeof(moved_t))
    made.admitted_at, made.hold_until = self.admitted_at, self.hold_until
    made.fingerprint = self.fingerprint
    made.weight_num, made.weight_den = self.weight_num, self.weight_den
    made.version, made.number, made.prompt = self.version, self.number, self.prompt
    made.plan, made.model, made.tool = self.plan, self.model, self.tool
    made.flags = self.flags | SETTLED
    return made


cdef inline void settling_apply(const settling_t* self, record_t* record, seen_t seen, settled_t* settled) noexcept nogil:
    """Give back first: what is charged now must not be taken for what is given back."""
    cdef const change_t* change
    cdef settled_pool_t* pool
    cdef slot_t* slot
    cdef int i
    for i in range(self.change_count):
        change = &self.changes[i]
        slot = record_slot(record, change.key)
        if change.micro < 0 and slot != NULL and change.window != NULL:
            seen.zone = change.zone
            pool = settled_pool(settled, change.pool)
            pool.refunded = max(pool.refunded, window_refund(
                change.window, &seen, slot, record_log(record, slot), self.admission.admitted_at, change.end, -change.micro))
    for i in range(self.change_count):
        change = &self.changes[i]
        if change.micro > 0:
            pool = settled_pool(settled, change.pool)
            pool.charged = max(pool.charged, change.micro)
            change_charge(change, record, seen)


cdef inline void side_close(
    side_t* side, const admission_t* before, admission_t* after, const settled_t* settled, const terms_t* terms, int64_t now
) noexcept nogil:
    """Put the settled admission in place of the other, which is freed."""
    cdef moved_t* moved = admission_moved(after) + before.moved_count
    cdef int i = known_place(&side.holds, before)
    for j in range(settled.pool_count):
        moved = moved_note(moved, settled.pools[j].pool, TOPPED, settled.pools[j].charged)
        moved = moved_note(moved, settled.pools[j].pool, REFUNDED, settled.pools[j].refunded)
    if i >= 0:
        admission_release(known_remove(&side.holds, i), terms.spares)
    else:
        admission_release(known_remove(&side.ids, known_place(&side.ids, before)), terms.spares)
    after.until = now
    side_settle_down(side, now, terms.spares)
    known_insert(&side.ids, after)
    side_trim(side, terms.bounds, terms.forgotten, terms.spares)


cdef inline int settle(
    const terms_t* terms, record_t** where, const request_t* request, bint cancels, uint64_t content, int64_t now, settled_t* settled
) noexcept nogil:
    """Close the admission of the request's id. `content` is a fingerprint of outcome and draws."""
    cdef side_t* side = where[0].side
    cdef settling_t settling
    cdef seen_t seen = record_seen(where[0], &terms.rules.zone, now)
    cdef admission_t* after
    cdef int outcome = DECIDED, i
    settled.pool_count = 0
    settled.past_draw = -1
    settled.late = settled.replayed = False
    settling.admission = side_find(side, request.id, request.id_hash, seen.now) if side != NULL else NULL
    if settling.admission == NULL:
        return NOT_KNOWN
    if settling.admission.flags & SETTLED:
        if settling.admission.settlement != content:
            return CONFLICT
        settled_again(settled, settling.admission)
        return DECIDED
    settling.terms = terms
    settling.then = terms.versions[settling.admission.version].rules
    if settling.then == NULL:
        settling.then = terms.rules     # loaded over so often that it is gone: today's is the next best
    settling.plan = rules_plan(terms.rules, where[0].plan)
    settling.plan_then = rules_plan(settling.then, settling.admission.plan)
    settling.forgets = False
    settling.change_count = 0
    if cancels:
        settling_refund(&settling, OWN, NULL)
        settling_leave_prompt(&settling)
    elif request.draw_count:
        outcome = settling_price(&settling, request, where[0], settled)
    if outcome != DECIDED:
        return outcome
    for i in range(settling.change_count):
        settled_pool(settled, settling.changes[i].pool)
    after = admission_settled(settling.admission, settled, terms.spares)
    if after == NULL or not side_reserve(side) or not changes_reserve(where, settling.changes, settling.change_count, seen):
        admission_release(after, terms.spares)
        return NO_MEMORY
    settling_apply(&settling, where[0], seen, settled)
    settled.late = not admission_open(settling.admission, seen.now)
    if settled.late:
        after.flags |= LATE
    after.settlement = content
    if settling.forgets:
        side_forget_prompt(side, settling.admission.prompt)
    side_close(side, settling.admission, after, settled, terms, seen.now)
    where[0].seen_at = seen.now
    return DECIDED


cdef inline int renew(
    record_t* record, const request_t* request, int64_t hold, int64_t now, spares_t* spares, int64_t* hold_until
) noexcept nogil:
    """Keep a hold open for `hold` microseconds from now, never shorter than it is."""
    cdef admission_t* admission = NULL
    cdef known_t* holds
    now = max(now, record.seen_at)
    if record.side != NULL:
        admission = side_find(record.side, request.id, request.id_hash, now)
    if admission == NULL:
        return NOT_KNOWN
    if not admission_open(admission, now):
        return HOLD_ENDED
    admission.hold_until = admission.until = max(admission.until, now + hold)
    holds = &record.side.holds      # an open hold stands nowhere else
    holds.until[known_place(holds, admission)] = admission.until
    record.seen_at = now
    side_pass(record.side, now, spares)
    hold_until[0] = admission.hold_until
    return DECIDED
