// SPDX-License-Identifier: MIT
// The kernel sets that this processor can run, for tests that compare them.
#ifndef BNT_TESTS_UNIT_KERNEL_SETS_H
#define BNT_TESTS_UNIT_KERNEL_SETS_H

#include <math.h>

#include "formats/bytes.h"
#include "runtime/kernels/kernels.h"
#include "tests/unit/support.h"

// AVX-VNNI as AVX-512 encodes it: more machines can run that.
#if defined(__x86_64__)
#define BNT_EVEX
#include "runtime/kernels/kernel_avx_vnni.c"
#endif

// The i-th set to test, NULL past the last: those of the library, then that one.
static inline const struct bnt_kernels *kernel_set(size_t i)
{
    const struct bnt_kernels *kernels = bnt_kernels_get(i);
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!kernels && bnt_kernels_get(i - 1) && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        return &bnt_kernels_avx_vnni_evex;
#endif
    return kernels;
}

static inline uint32_t bits(float v)
{
    return bnt_bits_from_float(v);
}

// The same bits. NaN is NaN: its sign and payload are the processor's.
static inline bool same(float a, float b)
{
    return bits(a) == bits(b) || (isnan(a) && isnan(b));
}

static inline void expect_floats(const char *set, const char *function, size_t size,
                                 const float *got, const float *expected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!same(got[i], expected[i]))
            fail_msg("%s of %s differs, size %zu, at %zu: %a, not %a", function, set, size, i,
                     (double)got[i], (double)expected[i]);
    }
}

#endif
