# cython: cdivision=True
"""Amounts: whole micro-units, and the exact fractions that turn draws into them.

One unit (a prompt, a search) is 1,000,000 micro-units. Amounts are int64 and saturate at 2^63 - 1 instead of wrapping; the
catalog and the request bound every factor so that saturation never decides anything, it only keeps a bug from freeing quota.
Products of an amount with a time or with another factor pass 64 bits (c*W does at once), so they are taken in 128.

Two traps of the language, both checked by the tests: `/` on C integers is a float division in Cython 3, so the core divides by
`//` alone; and a .pxd does not inherit the directives of the file that cimports it, so each begins with its own cdivision line.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

cdef extern from *:
    """
    /* The sum of two amounts at or above 0, at most INT64_MAX. */
    static inline int64_t amount_add(int64_t a, int64_t b) {
        int64_t sum;
        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
    }
    """
    int64_t amount_add(int64_t a, int64_t b) noexcept nogil
    ctypedef long long i128 "__int128"
    int ctz "__builtin_ctzll"(unsigned long long) noexcept nogil       # place of the lowest bit set; undefined for 0

cdef enum:
    MICRO = 1000000                 # micro-units in a unit
    COST_UNITS_MAX_MILLIONS = 1000000   # a draw may cost 10^12 units: 10^6 millions

cdef struct ratio_t:                # an exact non-negative fraction, den > 0
    int64_t num
    int64_t den


cdef inline int64_t amount_cost(uint64_t amount, ratio_t per_unit, ratio_t weight) noexcept nogil:
    """Micro-units that `amount` of a meter costs: amount * per_unit * weight, rounded down once, at least 1 for an amount above 0.

    -1 where the product passes 10^12 units. The factors' bounds (amount 10^9, numerators 10^9) keep the product under 10^33.
    """
    cdef i128 num, den
    cdef i128 cost_max = <i128>COST_UNITS_MAX_MILLIONS * <i128>MICRO * <i128>MICRO
    if weight.den == 1 and per_unit.den == 1 and per_unit.num == 1:
        return <int64_t>amount * weight.num * MICRO     # whole weights are at most 1000: within the range, and the usual case
    num = <i128>amount * <i128>per_unit.num * <i128>weight.num * <i128>MICRO
    den = <i128>per_unit.den * <i128>weight.den
    if num > cost_max * den:
        return -1
    if den == 1:
        return <int64_t>num
    if amount == 0:
        return 0
    if num <= <i128>INT64_MAX:      # den is at most 10^15: a 64-bit division, a fifth of the price
        num = <i128>(<int64_t>num // <int64_t>den)
    else:
        num = num // den
    return <int64_t>num if num > 0 else 1


cdef inline int64_t floor_div(int64_t a, int64_t b) noexcept nogil:
    """a / b rounded down also where a is negative; b > 0."""
    cdef int64_t q = a // b
    return q - 1 if a - q * b < 0 else q


cdef inline i128 ceil_div(i128 a, i128 b) noexcept nogil:
    """a / b rounded up; a >= 0, b > 0."""
    return (a + b - 1) // b
