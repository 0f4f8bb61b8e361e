# cython: cdivision=True
"""Price: what a request costs each limit at a weight.

Draws have a cost each; a limit counts the sum of those that feed it. Draws that fold into a prompt cost nothing by themselves: their pool is
due one unit at the heaviest of their weights, less what the prompt has paid to it already. A limit that counts nothing else is
skipped once the prompt has paid, even in debt.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from amounts cimport amount_add, amount_cost, ctz, ratio_t
from ask cimport ask_t, touched_t
from prompt cimport prompt_paid


cdef inline int price_draws(ask_t* self, ratio_t weight) noexcept nogil:
    """Cost every draw. The first past its range, or -1; it then costs INT64_MAX."""
    cdef ratio_t one
    cdef int i, past = -1
    one.num = one.den = 1
    for i in range(self.draw_count):
        self.costs[i] = amount_cost(
            self.amounts[i], one if (self.folded >> i) & 1 else self.meters[i].per_unit, weight if self.meters[i].weighted else one)
        if self.costs[i] < 0:
            self.costs[i] = INT64_MAX
            past = i if past < 0 else past
    return past


cdef inline void price_limits(ask_t* self, int64_t now) noexcept nogil:
    """Cost every touched limit; the draws have been."""
    cdef int j
    if self.folded:
        price_folded(self, now)
        return
    for j in range(self.touched_count):
        self.touched[j].cost = self.costs[0] if self.draw_count == 1 else draws_cost(self, self.touched[j].draws)


cdef inline int ask_price(ask_t* self, ratio_t weight, int64_t now) noexcept nogil:
    """Cost every draw and every touched limit. The first draw past its range, or -1."""
    cdef int past = price_draws(self, weight)
    price_limits(self, now)
    return past


cdef inline int64_t draws_cost(const ask_t* self, uint32_t draws) noexcept nogil:
    cdef int64_t cost = 0
    while draws:
        cost = amount_add(cost, self.costs[ctz(draws)])
        draws &= draws - 1
    return cost


cdef inline void price_folded(ask_t* self, int64_t now) noexcept nogil:
    """Cost every touched limit where some draws fold into a prompt."""
    cdef bint open = self.prompt != NULL and now <= self.prompt_until
    cdef uint32_t pools = self.folded_pools, covered = 0
    cdef int64_t paid
    cdef touched_t* touched
    cdef int pool, i, j
    while pools:
        pool = ctz(pools)
        pools &= pools - 1
        paid = prompt_paid(self.prompt, self.rules.pool_labels[pool]) if open else 0
        self.units[pool] = 0
        for i in range(self.draw_count):
            if (self.calls >> i) & 1 and (self.meters[i].pools >> pool) & 1:
                self.units[pool] = max(self.units[pool], self.costs[i])
        self.dues[pool] = max(<int64_t>0, self.units[pool] - paid)
        if paid and not self.dues[pool]:
            covered |= <uint32_t>1 << pool
    for j in range(self.touched_count):
        touched = &self.touched[j]
        touched.folded = self.dues[touched.limit.pool] if touched.draws & self.calls else 0
        touched.cost = amount_add(draws_cost(self, touched.draws & ~self.folded), touched.folded)
        touched.skips = not touched.draws & ~self.folded and (covered >> touched.limit.pool) & 1


cdef inline int64_t pool_own(const ask_t* self, int pool) noexcept nogil:
    """What the draws that stand by themselves cost a pool that some draw feeds."""
    cdef int64_t cost = 0
    cdef int i
    if self.draw_count == 1:
        return 0 if self.folded else self.costs[0]
    for i in range(self.draw_count):
        if (self.meters[i].pools >> pool) & 1 and not (self.folded >> i) & 1:
            cost = amount_add(cost, self.costs[i])
    return cost


cdef inline int64_t pool_folded(const ask_t* self, int pool) noexcept nogil:
    """What the prompt's share costs it."""
    return self.dues[pool] if (self.folded_pools >> pool) & 1 else 0


cdef inline uint32_t ask_pools(const ask_t* self) noexcept nogil:
    """Mask of the pools drawn on."""
    cdef uint32_t pools = 0
    cdef int i
    for i in range(self.draw_count):
        pools |= self.meters[i].pools
    return pools
