# cython: cdivision=True
"""Atomics: 64-bit values that threads share without a lock, in one order that all of them see."""
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    static inline uint64_t atomic_read(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline void atomic_write(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static inline uint64_t atomic_swap(uint64_t *at, uint64_t value) { return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST); }
    static inline void atomic_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    static inline int atomic_claim(uint64_t *at, uint64_t value) {
        uint64_t nothing = 0;
        return __atomic_compare_exchange_n(at, &nothing, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline void atomic_raise(uint64_t *at, uint64_t value) {
        uint64_t before = __atomic_load_n(at, __ATOMIC_SEQ_CST);
        while (before < value && !__atomic_compare_exchange_n(at, &before, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    }
    """
    uint64_t atomic_read(const uint64_t* at) noexcept nogil
    void atomic_write(uint64_t* at, uint64_t value) noexcept nogil
    uint64_t atomic_swap(uint64_t* at, uint64_t value) noexcept nogil       # what was there
    void atomic_fence() noexcept nogil
    bint atomic_claim(uint64_t* at, uint64_t value) noexcept nogil          # whether it was 0, and is `value` now
    void atomic_raise(uint64_t* at, uint64_t value) noexcept nogil          # to the larger of both
