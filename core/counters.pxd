# cython: cdivision=True
"""Counters: how many decisions of each kind there were, and how many units were moved, for the metrics.

A kind is some numbers of the ledger that outlive catalog versions, packed into one word, so a counter never goes back. Kinds come from
catalogs, not from callers (an unknown model is one label), so there are few. One open-addressed table, doubled when half full.

Decisions of one kind nearly always charge one pool. So a decision's counter has room for the units of the first pool it saw, and the
table is searched once for both; units of other pools have counters of their own. Units have 128 bits: one draw on a pool of tokens may be
10^12 units, and 64 bits of micro-units are full after eighteen of them.
"""
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from amounts cimport i128

cdef extern from *:
    """
    #define GOLDEN 0x9E3779B97F4A7C15ULL        /* 2^64 / golden ratio: spreads keys that differ little */
    """
    const uint64_t GOLDEN

cdef enum way_t:                    # of units: into what is used, or back
    CHARGED = 1
    REFUNDED = 2

cdef struct counter_t:
    uint64_t kind                   # 0: free; no kind is 0, since neither a verdict nor a way is
    uint64_t count
    i128 micro
    uint16_t pool                   # of a decision's micro-units; 0: none yet

cdef struct counters_t:
    int bits
    uint64_t used
    uint64_t lost                   # not counted, for want of memory
    counter_t* at


cdef inline uint64_t decision_kind(uint16_t catalog, uint16_t plan, uint16_t model, int verdict, uint16_t rule) noexcept nogil:
    """11 bits of catalog, 16 of plan, model and rule, 5 of verdict."""
    return <uint64_t>catalog << 53 | <uint64_t>plan << 37 | <uint64_t>model << 21 | <uint64_t>rule << 5 | <uint64_t>verdict


cdef inline uint64_t units_kind(uint16_t catalog, uint16_t plan, uint16_t pool, int way) noexcept nogil:
    """As a decision's, with a way where the verdict stands."""
    return decision_kind(catalog, plan, pool, way, 0)


cdef inline bint counters_init(counters_t* self, int bits) noexcept nogil:
    self.bits = bits
    self.used = self.lost = 0
    self.at = <counter_t*>calloc((<uint64_t>1) << bits, sizeof(counter_t))
    return self.at != NULL


cdef inline bint counters_copy(counters_t* self, const counters_t* other) noexcept nogil:
    """A copy, the caller's to free; false without memory."""
    if not counters_init(self, other.bits):
        return False
    memcpy(self.at, other.at, ((<uint64_t>1) << other.bits) * sizeof(counter_t))
    return True


cdef inline counter_t* counters_find(const counters_t* self, uint64_t kind) noexcept nogil:
    cdef uint64_t mask = ((<uint64_t>1) << self.bits) - 1
    cdef uint64_t i = kind * GOLDEN >> (64 - self.bits)
    while self.at[i].kind and self.at[i].kind != kind:
        i = (i + 1) & mask
    return &self.at[i]


cdef inline bint counters_grow(counters_t* self) noexcept nogil:
    cdef counters_t grown
    cdef uint64_t i
    if not counters_init(&grown, self.bits + 1):
        return False
    for i in range((<uint64_t>1) << self.bits):
        if self.at[i].kind:
            counters_find(&grown, self.at[i].kind)[0] = self.at[i]
    grown.used = self.used
    grown.lost = self.lost
    free(self.at)
    self[0] = grown
    return True


cdef inline counter_t* counters_add(counters_t* self, uint64_t kind) noexcept nogil:
    """Count one more; its counter until the next is added, NULL if it is lost."""
    cdef counter_t* counter = counters_find(self, kind)
    if counter.kind == 0:
        if 2 * (self.used + 1) > (<uint64_t>1) << self.bits:
            if not counters_grow(self):
                self.lost += 1
                return NULL
            counter = counters_find(self, kind)
        counter.kind = kind
        self.used += 1
    counter.count += 1
    return counter


cdef inline bint counter_charge(counter_t* self, uint16_t pool, int64_t micro) noexcept nogil:
    """Count what a decision charged; false if the counter is for another pool."""
    if self.pool == 0:
        self.pool = pool
    if self.pool != pool:
        return False
    self.micro += micro
    return True
