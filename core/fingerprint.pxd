# cython: cdivision=True
"""Fingerprints: what makes two requests of one id the same, in 64 bits.

Equal in every process, since they outlive one in blobs. Fields that are empty are left out; each has a number of its own, so that a
word does not mean the same in another place.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from ask cimport draw_t, request_t
from names cimport name_t
from siphash cimport siphash

cdef enum field_t:
    REQUEST_ID = 3
    MODEL = 4
    TOOL = 5
    ENDPOINT = 6
    MODE = 7
    METER = 8
    AMOUNT = 9
    PROMPT_ID = 10
    HOLD = 11
    CLIENT = 12
    OUTCOME = 13


cdef inline uint64_t request_id_hash(name_t id) noexcept nogil:
    return siphash(REQUEST_ID, 0, id.at, id.size)


cdef inline uint64_t print_name(uint64_t so_far, int field, name_t name) noexcept nogil:
    return siphash(field, so_far, name.at, name.size) if name.size else so_far


cdef inline uint64_t print_number(uint64_t so_far, int field, int64_t number) noexcept nogil:
    return siphash(field, so_far, <const uint8_t*>&number, sizeof(number)) if number else so_far


cdef inline uint64_t print_draws(uint64_t so_far, const draw_t* draws, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        so_far = print_name(so_far, METER, draws[i].meter)
        so_far = print_number(so_far, AMOUNT, <int64_t>draws[i].amount)
    return so_far


cdef inline uint64_t request_fingerprint(const request_t* request, name_t prompt_id, name_t client) noexcept nogil:
    """Of all fields but the account, the id and `explain`."""
    cdef uint64_t so_far = print_name(0, MODEL, request.model)
    so_far = print_name(so_far, TOOL, request.tool)
    so_far = print_name(so_far, ENDPOINT, request.endpoint)
    so_far = print_number(so_far, MODE, request.records)
    so_far = print_draws(so_far, request.draws, request.draw_count)
    so_far = print_name(so_far, PROMPT_ID, prompt_id)
    so_far = print_number(so_far, HOLD, request.hold)
    return print_name(so_far, CLIENT, client)


cdef inline uint64_t settlement_fingerprint(bint cancels, const draw_t* draws, int count) noexcept nogil:
    return print_draws(print_number(0, OUTCOME, 1 + cancels), draws, count)
