// SPDX-License-Identifier: MIT
// The order in which tokens are more likely.
#ifndef BNT_RUNTIME_CUDA_RANK_CUH
#define BNT_RUNTIME_CUDA_RANK_CUH

#include <stdint.h>

// A number that is greater for the greater logit and, of equals, for the lower id. NaN is
// −infinity.
static __device__ __forceinline__ unsigned long long rank_of(float logit, uint32_t id)
{
    float clean = isnan(logit) ? -INFINITY : logit + 0.0f; // −0 becomes 0
    uint32_t bits = __float_as_uint(clean);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (unsigned long long)bits << 32 | (0xFFFFFFFFu - id);
}

static __device__ __forceinline__ uint32_t id_of(unsigned long long rank)
{
    return 0xFFFFFFFFu - (uint32_t)rank;
}

static __device__ __forceinline__ float logit_of(unsigned long long rank)
{
    uint32_t bits = (uint32_t)(rank >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7FFFFFFFu : ~bits);
}

#endif
