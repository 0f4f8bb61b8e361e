# cython: cdivision=True
"""Prompts: calls that cost one unit together, at the heaviest weight among them.

The first call pays a whole unit; a later one pays what it is heavier, and nothing if it is not. After `calls_per_prompt` calls, or
idle for longer than `prompt_idle`, the next call begins a new prompt under the same id and pays anew: a prompt that never ends is
not free. What was paid is kept by pool, so that a change of plan or catalog in the middle keeps it.

An id is kept as 128 bits of hash, not as text: nobody lists prompts. A prompt has a number of its own besides, because an id may
come to stand for another prompt while a request of the one before is still in flight.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from names cimport name_t
from rules cimport PROMPT_POOLS_MAX, plan_t
from siphash cimport siphash

cdef struct prompt_t:
    uint64_t id[2]
    int64_t last_call_at
    uint32_t number                 # unique in the record, above 0
    uint32_t calls                  # admitted so far
    int64_t paid[PROMPT_POOLS_MAX]  # micro-units
    uint16_t pools[PROMPT_POOLS_MAX]    # labels
    uint8_t paid_count


cdef inline void prompt_hash(name_t id, uint64_t* hash) noexcept nogil:
    """128 bits of an id, the same in every process."""
    hash[0] = siphash(1, 0, id.at, id.size)
    hash[1] = siphash(2, 0, id.at, id.size)


cdef inline bint prompt_idle(const prompt_t* self, int64_t idle, int64_t now) noexcept nogil:
    """Whether it has had no call for longer than `idle`."""
    return now - self.last_call_at > idle


cdef inline bint prompt_open(const prompt_t* self, const plan_t* plan, int64_t now) noexcept nogil:
    """Whether one more call may join it."""
    return not prompt_idle(self, plan.prompt_idle, now) and self.calls < plan.calls_per_prompt


cdef inline int64_t prompt_paid(const prompt_t* self, uint16_t pool) noexcept nogil:
    cdef int i
    for i in range(self.paid_count):
        if self.pools[i] == pool:
            return self.paid[i]
    return 0


cdef inline void prompt_pay(prompt_t* self, uint16_t pool, int64_t unit) noexcept nogil:
    """Note that the pool has been paid a unit of this weight, or a heavier one before."""
    cdef int i
    for i in range(self.paid_count):
        if self.pools[i] == pool:
            self.paid[i] = max(self.paid[i], unit)
            return
    if self.paid_count < PROMPT_POOLS_MAX:
        self.pools[self.paid_count] = pool
        self.paid[self.paid_count] = unit
        self.paid_count += 1
