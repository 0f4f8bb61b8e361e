/* How long calls took: counts in buckets of which each is at most 1/64 wider than its beginning, so a percentile is exact to 1.6 %. */
#pragma once

#include <stdint.h>

#define STEPS 64              /* buckets from one power of two to the next */
#define BUCKETS (40 * STEPS)  /* up to 2^45 ns, some ten hours */

typedef struct {
    uint64_t count[BUCKETS], total, sum_ns, max_ns;
} histogram_t;

static inline void histogram_add(histogram_t *self, uint64_t ns)
{
    unsigned power = ns < STEPS ? 0 : 58 - (unsigned)__builtin_clzll(ns); /* above the 64 ns of the first buckets */
    unsigned at = ns < STEPS ? (unsigned)ns : power * STEPS + (unsigned)(ns >> (power - 1)) - STEPS;
    self->count[at < BUCKETS ? at : BUCKETS - 1]++;
    self->total++;
    self->sum_ns += ns;
    if (ns > self->max_ns)
        self->max_ns = ns;
}

/* The middle of the bucket that the given share of all calls reaches, in microseconds. */
static inline double histogram_us(const histogram_t *self, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)self->total), seen = 0;
    for (unsigned at = 0; at < BUCKETS; at++) {
        seen += self->count[at];
        if (seen > wanted) {
            unsigned power = at / STEPS;
            double step = power ? (double)(1ull << (power - 1)) : 1;
            double begin = power ? (double)(STEPS + at % STEPS) * step : at;
            return (begin + step / 2) / 1e3;
        }
    }
    return 0;
}
