# cython: cdivision=True
"""SipHash-1-3: a keyed 64-bit hash of bytes (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).

Account ids come from outside. With a secret key nobody can choose ids that fall into one chunk of the table. With the key
(0, 0) it is the checksum of a record's blob.
"""
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    /* The four words of "somepseudorandomlygeneratedbytes". C constants: in Cython they would be Python objects. */
    #define SIP_0 0x736f6d6570736575ULL
    #define SIP_1 0x646f72616e646f6dULL
    #define SIP_2 0x6c7967656e657261ULL
    #define SIP_3 0x7465646279746573ULL
    """
    const uint64_t SIP_0
    const uint64_t SIP_1
    const uint64_t SIP_2
    const uint64_t SIP_3

cdef struct sip_t:
    uint64_t a
    uint64_t b
    uint64_t c
    uint64_t d


cdef inline uint64_t rotate_left(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline void sip_round(sip_t* s) noexcept nogil:
    s.a += s.b
    s.b = rotate_left(s.b, 13) ^ s.a
    s.a = rotate_left(s.a, 32)
    s.c += s.d
    s.d = rotate_left(s.d, 16) ^ s.c
    s.a += s.d
    s.d = rotate_left(s.d, 21) ^ s.a
    s.c += s.b
    s.b = rotate_left(s.b, 17) ^ s.c
    s.c = rotate_left(s.c, 32)


cdef inline uint64_t siphash(uint64_t key_0, uint64_t key_1, const uint8_t* at, uint64_t size) noexcept nogil:
    cdef sip_t s
    cdef uint64_t word, left = size
    s.a = key_0 ^ SIP_0
    s.b = key_1 ^ SIP_1
    s.c = key_0 ^ SIP_2
    s.d = key_1 ^ SIP_3
    while left >= 8:
        memcpy(&word, at, 8)
        s.d ^= word
        sip_round(&s)
        s.a ^= word
        at += 8
        left -= 8
    word = 0
    memcpy(&word, at, left)
    word |= size << 56
    s.d ^= word
    sip_round(&s)
    s.a ^= word
    s.c ^= 255
    sip_round(&s)
    sip_round(&s)
    sip_round(&s)
    return s.a ^ s.b ^ s.c ^ s.d
