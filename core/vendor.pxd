# cython: cdivision=True
"""Vendor: which of a catalog's refusals words an answer, and what it is filled in with."""
from libc.stdint cimport int64_t, uint16_t
from libc.string cimport memcmp

from ask cimport BURST, LIMIT_EXHAUSTED, request_t
from names cimport NAME_ABSENT, name_t, names_get
from refusal cimport filling_t, refusal_t
from rules cimport limit_t, rules_t
from window cimport NEVER
from zone cimport zone_local

cdef enum:
    METERS_RULE_BYTES = 7           # of "meters."

cdef struct refused_t:              # what an answer says of its refusal
    int verdict
    name_t rule
    name_t model
    const limit_t* limit            # that decided, or NULL
    int64_t frees_at                # NEVER: at no time
    const request_t* request

cdef struct vendor_t:
    const refusal_t* refusal
    filling_t filling


cdef inline void vendor_meters(filling_t* self, const rules_t* rules, const refused_t* refused) noexcept nogil:
    """The meter that the plan lacks, if that decided, or those that the catalog does not know."""
    cdef int i
    if refused.rule.size > METERS_RULE_BYTES and memcmp(refused.rule.at, <const char*>b"meters.", METERS_RULE_BYTES) == 0:
        self.meters[0].at = refused.rule.at + METERS_RULE_BYTES
        self.meters[0].size = refused.rule.size - METERS_RULE_BYTES
        self.meter_count = 1
        return
    self.meter_count = 0
    for i in range(refused.request.draw_count):
        if names_get(&rules.meters, refused.request.draws[i].meter) == NAME_ABSENT:
            self.meters[self.meter_count] = refused.request.draws[i].meter
            self.meter_count += 1


cdef inline void vendor_word(vendor_t* self, const rules_t* rules, const refused_t* refused) noexcept nogil:
    """Word a refusal by those rules."""
    cdef filling_t* filling = &self.filling
    self.refusal = &rules.refusals[refused.verdict]
    filling.number = 0
    filling.unit.size = 0
    if refused.limit != NULL:
        if refused.verdict in (LIMIT_EXHAUSTED, BURST) and refused.limit.refusal != NULL:
            self.refusal = refused.limit.refusal
        filling.number, filling.unit = refused.limit.number, refused.limit.unit
    filling.model = refused.model
    filling.flush_at = NEVER
    if refused.frees_at != NEVER:   # up to the second before it becomes a reading: rounding a reading could name one that is skipped
        filling.flush_at = zone_local(&rules.zone, (refused.frees_at + 999999) // 1000000 * 1000000)
    vendor_meters(filling, rules, refused)
