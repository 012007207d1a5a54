// SPDX-License-Identifier: MIT
// AVX2 (with F16C, which every such processor has).
#if defined(__x86_64__)

#define KERNEL_TARGET __attribute__((target("avx2,f16c")))
#include "runtime/kernels/kernel_float8.h"

// vpmaddubsw adds two products of a code (0 … 3) and an activation (−128 … 127): at most 2 · 3 ·
// 128 = 768 in magnitude. A block adds eight of them to each 16-bit sum, so this many blocks may go
// by before the sums must be widened.
enum { PAIR_MAX = 2 * 3 * 128, BLOCKS_AT_ONCE = 5 };
_Static_assert(PAIR_MAX * 8 * BLOCKS_AT_ONCE <= INT16_MAX, "16-bit sums cannot overflow");
#define add_products(sum, codes, x) add_pairs(sum, codes, x)
#define widen(sum)                  _mm256_madd_epi16(sum, _mm256_set1_epi16(1))

KERNEL_INLINE __m256i add_pairs(__m256i sum, __m256i codes, __m256i x)
{
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
    // Keeps gcc from collecting many products before it adds any: there are too few registers.
    __asm__("" : "+x"(sum));
    return sum;
}

#define HALF_SUMS 1
#include "runtime/kernels/kernel_rows8.h"

const struct bnt_kernels bnt_kernels_avx2 = {
    .name = "avx2",
    .ternary = ternary,
    .ternary_groups = ternary_groups,
    .int8_rows = int8_rows,
    KERNEL_FLOATS,
};

#else
// ISO C forbids an empty translation unit.
typedef int bnt_no_avx2;
#endif
