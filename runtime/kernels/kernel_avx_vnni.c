// SPDX-License-Identifier: MIT
// AVX-VNNI: vpdpbusd in 256-bit registers without AVX-512. tests/unit/test_kernels.c compiles this
// file a second time with BNT_EVEX, for the same instruction as AVX-512 processors encode it, so
// that more machines can test it.
#if defined(__x86_64__)

#if defined(BNT_EVEX)
#define KERNEL_TARGET               __attribute__((target("avx2,f16c,avx512vl,avx512vnni")))
#define add_products(sum, codes, x) _mm256_dpbusd_epi32(sum, codes, x)
#define NAME                        "avx-vnni as evex"
#define TABLE                       bnt_kernels_avx_vnni_evex
#else
#define KERNEL_TARGET               __attribute__((target("avx2,f16c,avxvnni")))
#define add_products(sum, codes, x) _mm256_dpbusd_avx_epi32(sum, codes, x)
#define NAME                        "avx-vnni"
#define TABLE                       bnt_kernels_avx_vnni
#endif

#include "runtime/kernels/kernel_float8.h"

enum { BLOCKS_AT_ONCE = 32768 }; // all that there can be: K' <= 2^20
_Static_assert((int64_t)BLOCKS_AT_ONCE * 32 * 3 * 128 <= INT32_MAX, "32-bit sums cannot overflow");
#define widen(sum) (sum)
#define HALF_SUMS  2
#include "runtime/kernels/kernel_rows8.h"

const struct bnt_kernels TABLE = {
    .name = NAME,
    .ternary = ternary,
    .ternary_groups = ternary_groups,
    .int8_rows = int8_rows,
    KERNEL_FLOATS,
};

#else
// ISO C forbids an empty translation unit.
typedef int bnt_no_avx_vnni;
#endif
