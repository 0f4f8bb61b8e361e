# cython: cdivision=True
"""The side of a record: what most accounts never need. Holds, remembered request ids, open prompts, limits of their own.

Two queues of admissions: `holds`, in order of admission, are those whose hold had not closed when it was last looked; `ids`, those to be
forgotten first in front, have none or a closed one. A hold closes and an id is forgotten by the time alone, so whoever reads asks
each admission; every change to the account (`side_settle_down`) moves and frees what time has closed. So a refusal and a Peek
leave no trace here either.

Bounds: open holds at most `holds_max`, which opening one checks, since they never drop out; ids at most `request_ids_max`, prompts at most
`prompts_max`: past these the one that would be forgotten first is, early, which is counted.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove

from admission cimport (
    JOINED, REMEMBER_US, admission_forgotten, admission_is, admission_outlives, admission_release, admission_t, spares_t,
)
from names cimport name_t
from prompt cimport prompt_idle, prompt_t
from rules cimport plan_t
from zone cimport DAY_US

cdef extern from *:
    """
    #define PREFETCH(p) __builtin_prefetch(p)
    """
    void PREFETCH(const void*) noexcept nogil

cdef enum:
    OVERRIDES_MAX = 16
    KNOWN_ROOM_MIN = 8
    PROMPTS_ROOM_MIN = 2
    TAGS_AT_ONCE = 8

cdef struct bounds_t:               # as quota.types.Bounds
    int64_t hold_us_max
    int holds_max
    int request_ids_max
    int prompts_max

cdef struct forgotten_t:            # early, for want of room
    uint64_t ids
    uint64_t prompts

cdef struct override_t:             # a limit of the account's own
    uint16_t rule                   # label of the limit's id
    int64_t limit                   # whole units; 0 blocks

cdef struct known_t:                # a queue of admissions; what is looked at in all of them stands side by side, in one block
    int first
    int count
    int room
    admission_t** at
    int64_t* until                  # as in the admission
    uint32_t* tags                  # low 32 bits of the id's hash

cdef struct side_t:
    known_t holds
    known_t ids
    int64_t closes_at               # no hold closes before; at or after it some may have
    prompt_t* prompts
    uint16_t prompt_count
    uint16_t prompt_room
    uint32_t prompt_number          # last given
    uint32_t admission_number       # likewise
    override_t* overrides
    int override_count


# ---- A queue of admissions ----

cdef inline int known_find(const known_t* self, name_t id, uint64_t hash) noexcept nogil:
    """The place of that id, or -1."""
    cdef uint32_t tag = <uint32_t>hash
    cdef uint32_t found
    cdef int end = self.first + self.count
    cdef int i = self.first, j
    while i < end:
        found = 0
        for j in range(TAGS_AT_ONCE):       # the compiler makes two instructions of it; tags past the end are looked at in vain
            found |= <uint32_t>(self.tags[i + j] == tag)
        if found:
            for j in range(i, min(i + TAGS_AT_ONCE, end)):
                if self.tags[j] == tag and admission_is(self.at[j], id, hash):
                    return j
        i += TAGS_AT_ONCE
    return -1


cdef inline int known_place(const known_t* self, const admission_t* admission) noexcept nogil:
    cdef int i
    for i in range(self.first, self.first + self.count):
        if self.at[i] == admission:
            return i
    return -1


cdef inline bint known_reserve(known_t* self, int more) noexcept nogil:
    """See to room for `more` at the end; false without memory."""
    cdef int room = max(self.room, KNOWN_ROOM_MIN)
    cdef known_t grown
    if self.first + self.count + more <= self.room:
        return True
    while room < 2 * (self.count + more):   # half of it at least stays free, so that moving to the front is rare
        room *= 2
    if room == self.room:
        known_move(self, 0, self.first, self.count)
        self.first = 0
        return True
    grown.at = <admission_t**>calloc(room * (sizeof(admission_t*) + sizeof(int64_t) + sizeof(uint32_t)) + TAGS_AT_ONCE * sizeof(uint32_t), 1)
    if grown.at == NULL:
        return False
    grown.until = <int64_t*>(grown.at + room)
    grown.tags = <uint32_t*>(grown.until + room)
    grown.first, grown.count, grown.room = 0, self.count, room
    if self.count:
        memcpy(grown.at, self.at + self.first, self.count * sizeof(admission_t*))
        memcpy(grown.until, self.until + self.first, self.count * sizeof(int64_t))
        memcpy(grown.tags, self.tags + self.first, self.count * sizeof(uint32_t))
    free(self.at)
    self[0] = grown
    return True


cdef inline void known_move(known_t* self, int to, int source, int count) noexcept nogil:
    memmove(self.at + to, self.at + source, count * sizeof(admission_t*))
    memmove(self.until + to, self.until + source, count * sizeof(int64_t))
    memmove(self.tags + to, self.tags + source, count * sizeof(uint32_t))


cdef inline void known_set(known_t* self, int i, admission_t* admission) noexcept nogil:
    self.at[i] = admission
    self.until[i] = admission.until
    self.tags[i] = <uint32_t>admission.id_hash


cdef inline void known_append(known_t* self, admission_t* admission) noexcept nogil:
    """At the end; room has been reserved."""
    known_set(self, self.first + self.count, admission)
    self.count += 1


cdef inline void known_insert(known_t* self, admission_t* admission) noexcept nogil:
    """Behind all that are to be forgotten before it; room has been reserved."""
    cdef int end = self.first + self.count
    cdef int i = end
    while i > self.first and self.until[i - 1] >= admission.until and (
        self.until[i - 1] > admission.until or admission_outlives(self.at[i - 1], admission)
    ):
        i -= 1
    if i < end:
        known_move(self, i + 1, i, end - i)
    known_set(self, i, admission)
    self.count += 1


cdef inline admission_t* known_remove(known_t* self, int i) noexcept nogil:
    """Take out the one at place i; the caller's from now on."""
    cdef admission_t* admission = self.at[i]
    self.count -= 1
    if i == self.first:
        self.first += 1
    elif i < self.first + self.count:
        known_move(self, i, i + 1, self.first + self.count - i)
    if self.count == 0:
        self.first = 0
    return admission


cdef inline void known_free(known_t* self) noexcept nogil:
    cdef int i
    for i in range(self.first, self.first + self.count):
        free(self.at[i])
    free(self.at)


# ---- Life and time ----

cdef inline side_t* side_new() noexcept nogil:
    cdef side_t* self = <side_t*>calloc(1, sizeof(side_t))
    if self != NULL:
        self.closes_at = INT64_MAX
    return self


cdef inline void side_free(side_t* self) noexcept nogil:
    if self == NULL:
        return
    known_free(&self.holds)
    known_free(&self.ids)
    free(self.prompts)
    free(self.overrides)
    free(self)


cdef inline void side_settle_down(side_t* self, int64_t now, spares_t* spares) noexcept nogil:
    """Let time have passed: closed holds are ids from now on, and what is past is freed. Room for them in `ids` has been reserved."""
    cdef admission_t* closed
    cdef int i
    while self.ids.count and self.ids.until[self.ids.first] + REMEMBER_US < now:
        admission_release(known_remove(&self.ids, self.ids.first), spares)
    if now < self.closes_at:
        return
    self.closes_at = INT64_MAX
    i = self.holds.first
    while i < self.holds.first + self.holds.count:
        if now < self.holds.until[i]:
            self.closes_at = min(self.closes_at, self.holds.until[i])
            i += 1
            continue
        closed = known_remove(&self.holds, i)
        i = max(i, self.holds.first)
        if admission_forgotten(closed, now):
            admission_release(closed, spares)
        else:
            known_insert(&self.ids, closed)


cdef inline void side_hold(side_t* self, admission_t* admission) noexcept nogil:
    """Add one whose hold is open; room has been reserved."""
    known_append(&self.holds, admission)
    self.closes_at = min(self.closes_at, admission.until)


cdef inline void side_trim(side_t* self, const bounds_t* bounds, forgotten_t* forgotten, spares_t* spares) noexcept nogil:
    while self.ids.count > bounds.request_ids_max:
        admission_release(known_remove(&self.ids, self.ids.first), spares)
        forgotten.ids += 1


cdef inline bint side_reserve(side_t* self) noexcept nogil:
    """Room for one more hold, and in `ids` for one more and for every hold that closes; false without memory."""
    return known_reserve(&self.holds, 1) and known_reserve(&self.ids, self.holds.count + 1)


cdef inline void side_pass(side_t* self, int64_t now, spares_t* spares) noexcept nogil:
    """Let time have passed, for a change that adds nothing. Without memory it is left to the next one."""
    if side_reserve(self):
        side_settle_down(self, now, spares)


cdef inline bint side_empty(side_t* self, int64_t now, spares_t* spares) noexcept nogil:
    """Whether nothing in it will be asked for at `now` or later. What time has closed is let go of."""
    side_pass(self, now, spares)
    side_drop_idle(self, DAY_US, now)       # longer than any plan lets a prompt idle
    return not (self.holds.count or self.ids.count or self.prompt_count or self.override_count)


cdef inline admission_t* side_find(const side_t* self, name_t id, uint64_t hash, int64_t now) noexcept nogil:
    """The admission of that id if it is remembered at `now`, else NULL."""
    cdef const known_t* known = &self.holds
    cdef int i = known_find(known, id, hash)
    if i < 0:
        known = &self.ids
        i = known_find(known, id, hash)
    if i < 0 or admission_forgotten(known.at[i], now):
        return NULL
    return known.at[i]


cdef inline int side_holds_open(const side_t* self, int64_t now) noexcept nogil:
    cdef int i, count = 0
    if now < self.closes_at:
        return self.holds.count
    for i in range(self.holds.first, self.holds.first + self.holds.count):
        count += now < self.holds.until[i]
    return count


# ---- Prompts ----

cdef inline prompt_t* side_prompt(const side_t* self, const uint64_t* id) noexcept nogil:
    cdef int i
    for i in range(self.prompt_count):
        if self.prompts[i].id[0] == id[0] and self.prompts[i].id[1] == id[1]:
            return &self.prompts[i]
    return NULL


cdef inline bint side_reserve_prompt(side_t* self) noexcept nogil:
    """Room for one prompt more; false without memory."""
    cdef uint16_t room = <uint16_t>max(2 * self.prompt_room, <int>PROMPTS_ROOM_MIN)
    cdef prompt_t* grown
    if self.prompt_count < self.prompt_room:
        return True
    grown = <prompt_t*>realloc(self.prompts, room * sizeof(prompt_t))
    if grown == NULL:
        return False
    self.prompts, self.prompt_room = grown, room
    return True


cdef inline void side_drop_prompt(side_t* self, prompt_t* prompt) noexcept nogil:
    self.prompt_count -= 1
    prompt[0] = self.prompts[self.prompt_count]


cdef inline void side_drop_idle(side_t* self, int64_t idle, int64_t now) noexcept nogil:
    """Drop the prompts without a call for longer than `idle`."""
    cdef int i = 0
    while i < self.prompt_count:
        if prompt_idle(&self.prompts[i], idle, now):
            side_drop_prompt(self, &self.prompts[i])
        else:
            i += 1


cdef inline void side_forget_prompt(side_t* self, uint32_t number) noexcept nogil:
    cdef int i
    for i in range(self.prompt_count):
        if self.prompts[i].number == number:
            side_drop_prompt(self, &self.prompts[i])
            return


cdef inline prompt_t* side_begin_prompt(
    side_t* self, const uint64_t* id, const plan_t* plan, int64_t now, const bounds_t* bounds, forgotten_t* forgotten
) noexcept nogil:
    """A new prompt under that id, in place of the old one if there is one. Those idle too long go first, then the least recently used."""
    cdef prompt_t* prompt = side_prompt(self, id)
    if prompt == NULL:
        side_drop_idle(self, plan.prompt_idle, now)
        while self.prompt_count >= bounds.prompts_max:
            side_drop_prompt(self, side_stalest_prompt(self))
            forgotten.prompts += 1
        prompt = &self.prompts[self.prompt_count]
        self.prompt_count += 1
    self.prompt_number += 1
    prompt.id[0], prompt.id[1] = id[0], id[1]
    prompt.number = self.prompt_number
    prompt.calls = 0
    prompt.paid_count = 0
    return prompt


cdef inline prompt_t* side_stalest_prompt(side_t* self) noexcept nogil:
    """The least recently used one. There is at least one."""
    cdef prompt_t* stalest = &self.prompts[0]
    cdef int i
    for i in range(1, self.prompt_count):
        if self.prompts[i].last_call_at < stalest.last_call_at or (
            self.prompts[i].last_call_at == stalest.last_call_at and self.prompts[i].number < stalest.number
        ):
            stalest = &self.prompts[i]
    return stalest


cdef inline void known_join(known_t* self, uint32_t prompt) noexcept nogil:
    cdef int i
    for i in range(self.first + self.count - 1, self.first - 1, -1):
        if self.at[i].prompt == prompt:
            self.at[i].flags |= JOINED
            return


cdef inline void side_join(side_t* self, uint32_t prompt) noexcept nogil:
    """A second call joins a prompt: what the first one paid, if it is remembered, is no longer its own to get back."""
    known_join(&self.holds, prompt)
    known_join(&self.ids, prompt)


# ---- Limits of the account's own ----

cdef inline const override_t* side_override(const side_t* self, uint16_t rule) noexcept nogil:
    """The account's own limit in place of that one, or NULL; `self` may be NULL."""
    cdef int i
    if self == NULL:
        return NULL
    for i in range(self.override_count):
        if self.overrides[i].rule == rule:
            return &self.overrides[i]
    return NULL


cdef inline bint side_set_overrides(side_t* self, const override_t* overrides, int count) noexcept nogil:
    """Have these and no others; false without memory."""
    if self.overrides == NULL:
        self.overrides = <override_t*>calloc(OVERRIDES_MAX, sizeof(override_t))
        if self.overrides == NULL:
            return False
    memcpy(self.overrides, overrides, count * sizeof(override_t))
    self.override_count = count
    return True


# ---- Memory fetched ahead ----

cdef inline void side_prefetch(const side_t* self) noexcept nogil:
    if self != NULL:
        PREFETCH(self)
        PREFETCH(<const uint8_t*>self + 64)


cdef inline void side_prefetch_queues(const side_t* self) noexcept nogil:
    """What an id is looked for in, and where its admission goes."""
    cdef int i
    if self == NULL:
        return
    for i in range(self.ids.first, self.ids.first + self.ids.count, 16):
        PREFETCH(&self.ids.tags[i])
    if self.ids.count:
        PREFETCH(&self.ids.until[self.ids.first])
        PREFETCH(&self.ids.at[self.ids.first])
    if self.holds.count:
        PREFETCH(&self.holds.tags[self.holds.first])
        PREFETCH(&self.holds.until[self.holds.first])
