// SPDX-License-Identifier: MIT
// What sampling does to logits before anything else, and where min_p cuts: the same for both
// devices, bit for bit. (bnt.md section 4.1)
#ifndef BNT_RUNTIME_PENALTY_H
#define BNT_RUNTIME_PENALTY_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/bnt.h"

#ifdef __CUDACC__
#define BNT_ANY_DEVICE __host__ __device__
#else
#define BNT_ANY_DEVICE
#endif

// By what logits are changed; a zero of bnt_sampling is made what it means.
struct bnt_penalties {
    float repetition, presence, frequency;
};

static inline struct bnt_penalties bnt_penalties_of(const struct bnt_sampling *s)
{
    struct bnt_penalties p = {s->repetition_penalty, s->presence_penalty, s->frequency_penalty};
    if (p.repetition == 0)
        p.repetition = 1;
    return p;
}

static inline bool bnt_penalties_any(struct bnt_penalties p)
{
    return p.repetition != 1 || p.presence != 0 || p.frequency != 0;
}

// Whether no logit can rise. Then of n tokens that are penalized and any others, the k likeliest
// afterwards are among the k + n likeliest before: what was likelier than one of them is one of the
// n, or is likelier still.
static inline bool bnt_penalties_lower(struct bnt_penalties p)
{
    return p.repetition >= 1 && p.presence >= 0 && p.frequency >= 0;
}

// A product that is rounded before anything else happens to it: nvcc would fuse it with a sum.
static inline BNT_ANY_DEVICE float bnt_rounded_product(float a, float b)
{
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

// The logit of a token that was seen, and generated count times.
static inline BNT_ANY_DEVICE float bnt_penalize(float logit, uint32_t count, struct bnt_penalties p)
{
    logit = logit < 0 ? bnt_rounded_product(logit, p.repetition) : logit / p.repetition;
    if (count == 0)
        return logit;
    logit -= bnt_rounded_product(p.frequency, (float)count);
    return logit - p.presence;
}

// What a logit over the temperature may lie below the greatest: min_p of its probability.
static inline float bnt_min_p_floor(const struct bnt_sampling *s)
{
    if (!(s->min_p > 0))
        return -INFINITY;
    return s->min_p < 1 ? logf(s->min_p) : 0;
}

#endif
