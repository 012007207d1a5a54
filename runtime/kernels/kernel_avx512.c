// SPDX-License-Identifier: MIT
// AVX-512 with VNNI. A block's 512 bits hold the same 16 columns of its 16 rows, a row in each
// 32-bit lane, once two halves have been exchanged: vpdpbusd then multiplies four columns of all 16
// rows with four activations that are the same in every lane, and no sum ever crosses lanes.
#if defined(__x86_64__)

#include <immintrin.h>

#define KERNEL_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define VECTOR_FLOATS 16
#define SCORE_QUERIES 4
#define MIX_QUERIES   4
#define MIX_PARTS     4
#define load_half(p)  ((vec)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p))))
#define store_half(p, v)                                                                           \
    _mm256_storeu_si256((void *)(p), _mm512_cvtps_ph((__m512)(v), _MM_FROUND_TO_NEAREST_INT))
#define load_widened(p) _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p)))
#include "runtime/kernels/kernel_float.h"

// Four activations in every lane.
KERNEL_INLINE __m512i four(const int8_t *x)
{
    int32_t v;
    memcpy(&v, x, sizeof v);
    return _mm512_set1_epi32(v);
}

// Columns 0–15 (*low) and 16–31 (*high) of a block's rows.
KERNEL_INLINE void load_block(const uint32_t *block, __m512i *low, __m512i *high)
{
    __m512i top = _mm512_load_si512(block), bottom = _mm512_load_si512(block + 16);
    *low = _mm512_shuffle_i64x2(top, bottom, 0x44);
    *high = _mm512_shuffle_i64x2(top, bottom, 0xEE);
}

// --- one token, or the two bytes of one: as fast as memory ---
// Blocks are read in the order of addresses. Prefetch instructions only cost time then: measured at
// distances from 1 to 10 KB, they gained nothing over the processor's own prefetching.

// Codes are multiplied where they stand in the byte, 4, 16 and 64 times too large, and the sums are
// shifted in the end: 64 · 3 is still a byte. A sum takes a quarter of the columns; so many blocks
// may go by before the largest could overflow.
enum { BLOCKS_AT_ONCE = 8192 };
_Static_assert((int64_t)BLOCKS_AT_ONCE * 8 * 192 * 128 <= INT32_MAX, "32-bit sums cannot overflow");

// The sums of a run of blocks for one or two rows of activations.
KERNEL_INLINE void sum_blocks(__m512i out[2], const uint32_t *block, size_t n_blocks,
                              const int8_t *x, size_t x_stride, int rows)
{
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i sum[2][4];
    for (int t = 0; t < rows; t++) {
        for (int i = 0; i < 4; i++)
            sum[t][i] = _mm512_setzero_si512();
    }
    for (size_t b = 0; b < n_blocks; b++, block += 32, x += 32) {
        __m512i half[2];
        load_block(block, &half[0], &half[1]);
        for (int h = 0; h < 2; h++) {
            for (int i = 0; i < 4; i++) {
                __m512i codes = _mm512_and_si512(half[h], _mm512_slli_epi32(mask, 2 * (unsigned)i));
                for (int t = 0; t < rows; t++)
                    sum[t][i] = _mm512_dpbusd_epi32(
                        sum[t][i], codes, four(x + (size_t)t * x_stride + 16 * h + 4 * i));
            }
        }
    }
    for (int t = 0; t < rows; t++) {
        for (int i = 1; i < 4; i++)
            sum[t][0] = _mm512_add_epi32(sum[t][0], _mm512_srai_epi32(sum[t][i], 2 * (unsigned)i));
        out[t] = sum[t][0];
    }
}

KERNEL_INLINE void few_tokens(int32_t *out, size_t out_stride, const uint32_t *blocks,
                              size_t n_block_rows, size_t n_blocks, const int8_t *x,
                              size_t x_stride, const int32_t *x_sum, int rows)
{
    for (size_t r = 0; r < n_block_rows; r++) {
        __m512i sum[2], part[2];
        for (int t = 0; t < rows; t++)
            sum[t] = _mm512_set1_epi32(-2 * x_sum[t]); // codes are weights + 2
        for (size_t b = 0; b < n_blocks; b += BLOCKS_AT_ONCE) {
            size_t count = n_blocks - b < BLOCKS_AT_ONCE ? n_blocks - b : BLOCKS_AT_ONCE;
            sum_blocks(part, blocks + 32 * b, count, x + 32 * b, x_stride, rows);
            for (int t = 0; t < rows; t++)
                sum[t] = _mm512_add_epi32(sum[t], part[t]);
        }
        for (int t = 0; t < rows; t++)
            _mm512_storeu_si512(out + (size_t)t * out_stride + 16 * r, sum[t]);
        blocks += 32 * n_blocks;
    }
}

KERNEL void one_token(int32_t *out, const uint32_t *blocks, size_t n_block_rows, size_t n_blocks,
                      const int8_t *x, int32_t x_sum)
{
    few_tokens(out, 0, blocks, n_block_rows, n_blocks, x, 0, &x_sum, 1);
}

// --- many tokens: as fast as vpdpbusd ---

// Each word is decoded once for TOKENS tokens, each activation loaded once for ROWS block rows.
enum { ROWS = 2, TOKENS = 8 };

// count blocks of some block rows, which are n_blocks apart, times some rows of activations.
KERNEL_INLINE void add_blocks(__m512i sum[ROWS][TOKENS], const uint32_t *blocks, size_t n_blocks,
                              size_t count, const int8_t *x, size_t x_stride, int rows, int tokens)
{
    const __m512i mask = _mm512_set1_epi8(3);
    for (size_t b = 0; b < count; b++, x += 32) {
        __m512i half[2][ROWS];
        for (int r = 0; r < rows; r++)
            load_block(blocks + ((size_t)r * n_blocks + b) * 32, &half[0][r], &half[1][r]);
        for (int h = 0; h < 2; h++) {
            for (int i = 0; i < 4; i++) {
                __m512i codes[ROWS];
                for (int r = 0; r < rows; r++) {
                    codes[r] = _mm512_and_si512(half[h][r], mask);
                    half[h][r] = _mm512_srli_epi32(half[h][r], 2);
                }
                for (int t = 0; t < tokens; t++) {
                    __m512i y = four(x + (size_t)t * x_stride + 16 * h + 4 * i);
                    for (int r = 0; r < rows; r++)
                        sum[r][t] = _mm512_dpbusd_epi32(sum[r][t], codes[r], y);
                }
            }
        }
    }
}

KERNEL_INLINE void tile(int32_t *out, size_t out_stride, const uint32_t *blocks, size_t n_blocks,
                        const int8_t *x, size_t x_stride, const int32_t *x_sum, int rows,
                        int tokens)
{
    __m512i sum[ROWS][TOKENS];
    for (int t = 0; t < tokens; t++) {
        for (int r = 0; r < rows; r++)
            sum[r][t] = _mm512_set1_epi32(-2 * x_sum[t]);
    }
    add_blocks(sum, blocks, n_blocks, n_blocks, x, x_stride, rows, tokens);
    for (int t = 0; t < tokens; t++) {
        for (int r = 0; r < rows; r++)
            _mm512_storeu_si512(out + (size_t)t * out_stride + 16 * r, sum[r][t]);
    }
}

KERNEL_INLINE void some_tokens(int32_t *out, size_t out_stride, const uint32_t *blocks,
                               size_t n_block_rows, size_t n_blocks, const int8_t *x,
                               size_t x_stride, const int32_t *x_sum, int tokens)
{
    size_t r = 0;
    if (tokens == 2) {
        few_tokens(out, out_stride, blocks, n_block_rows, n_blocks, x, x_stride, x_sum, 2);
        return;
    }
    for (; r + ROWS <= n_block_rows; r += ROWS)
        tile(out + 16 * r, out_stride, blocks + r * n_blocks * 32, n_blocks, x, x_stride, x_sum,
             ROWS, tokens);
    if (r < n_block_rows)
        tile(out + 16 * r, out_stride, blocks + r * n_blocks * 32, n_blocks, x, x_stride, x_sum, 1,
             tokens);
}

#include "runtime/kernels/kernel_tokens.h"

// --- groups with scales ---

// Each 16 rows' scales of a group, as floats.
KERNEL_INLINE __m512 load_scales(const struct bnt_scales *s, size_t at)
{
    if (s->halves)
        return _mm512_cvtph_ps(
            _mm256_loadu_si256((const void *)((const uint16_t *)s->values + at)));
    return _mm512_loadu_ps((const float *)s->values + at);
}

KERNEL_INLINE __m512 add_group(__m512 sum, __m512 scale, __m512i products)
{
    return _mm512_add_ps(sum, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(products)));
}

// Both bytes of 16-bit activations.
KERNEL_INLINE __m512i join(__m512i high, __m512i low)
{
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
}

// A group for one token, parts rows of activations.
KERNEL_INLINE __m512i group_of_token(const uint32_t *block, size_t n_blocks, const int8_t *x,
                                     size_t x_stride, const int32_t *x_sum, size_t sum_stride,
                                     int parts)
{
    __m512i sum[2];
    sum_blocks(sum, block, n_blocks, x, x_stride, parts);
    for (int p = 0; p < parts; p++)
        sum[p] = _mm512_add_epi32(sum[p], _mm512_set1_epi32(-2 * x_sum[(size_t)p * sum_stride]));
    return parts == 2 ? join(sum[0], sum[1]) : sum[0];
}

KERNEL_INLINE void groups_of_token(float *out, const uint32_t *block, size_t n_block_rows,
                                   size_t n_blocks, const struct bnt_scales *scales,
                                   const int8_t *x, size_t x_stride, const int32_t *x_sum,
                                   int parts)
{
    const size_t step = scales->group_blocks, groups = scales->n_groups;
    for (size_t r = 0; r < n_block_rows; r++) {
        __m512 sum = _mm512_setzero_ps();
        for (size_t g = 0, b = 0; g < groups; g++, b += step) {
            size_t n = n_blocks - b < step ? n_blocks - b : step;
            __m512i products =
                group_of_token(block, n, x + 32 * b, x_stride, x_sum + g, groups, parts);
            sum = add_group(sum, load_scales(scales, (r * groups + g) * 16), products);
            block += 32 * n;
        }
        _mm512_storeu_ps(out + 16 * r, sum);
    }
}

// A group for some rows of activations and block rows; the running sums wait in out.
KERNEL_INLINE void group_tile(float *out, size_t out_stride, const uint32_t *blocks,
                              size_t n_blocks, size_t count, const __m512 *scale, const int8_t *x,
                              size_t x_stride, const int32_t *x_sum, size_t sum_stride, int rows,
                              int tokens, bool wide)
{
    __m512i sum[ROWS][TOKENS];
    for (int t = 0; t < tokens; t++) {
        for (int r = 0; r < rows; r++)
            sum[r][t] = _mm512_set1_epi32(-2 * x_sum[(size_t)t * sum_stride]);
    }
    add_blocks(sum, blocks, n_blocks, count, x, x_stride, rows, tokens);
    const int parts = wide ? 2 : 1;
    for (int t = 0; t < tokens / parts; t++) {
        for (int r = 0; r < rows; r++) {
            float *at = out + (size_t)t * out_stride + 16 * r;
            __m512i products = wide ? join(sum[r][2 * t], sum[r][2 * t + 1]) : sum[r][t];
            _mm512_storeu_ps(at, add_group(_mm512_loadu_ps(at), scale[r], products));
        }
    }
}

KERNEL_INLINE void group_tiles(float *out, size_t out_stride, const uint32_t *blocks,
                               size_t n_blocks, const struct bnt_scales *scales, size_t row,
                               const int8_t *x, size_t x_stride, const int32_t *x_sum, int rows,
                               int tokens, bool wide)
{
    const size_t step = scales->group_blocks, groups = scales->n_groups;
    for (int t = 0; t < tokens / (wide ? 2 : 1); t++)
        memset(out + (size_t)t * out_stride, 0, (size_t)rows * 16 * sizeof *out);
    for (size_t g = 0, b = 0; g < groups; g++, b += step) {
        __m512 scale[ROWS];
        for (int r = 0; r < rows; r++)
            scale[r] = load_scales(scales, ((row + (size_t)r) * groups + g) * 16);
        group_tile(out, out_stride, blocks + 32 * b, n_blocks,
                   n_blocks - b < step ? n_blocks - b : step, scale, x + 32 * b, x_stride,
                   x_sum + g, groups, rows, tokens, wide);
    }
}

KERNEL_INLINE void groups_of_tokens(float *out, size_t out_stride, const uint32_t *blocks,
                                    size_t n_block_rows, size_t n_blocks,
                                    const struct bnt_scales *scales, const int8_t *x,
                                    size_t x_stride, const int32_t *x_sum, int tokens, bool wide)
{
    size_t r = 0;
    for (; r + ROWS <= n_block_rows; r += ROWS)
        group_tiles(out + 16 * r, out_stride, blocks + r * n_blocks * 32, n_blocks, scales, r, x,
                    x_stride, x_sum, ROWS, tokens, wide);
    if (r < n_block_rows)
        group_tiles(out + 16 * r, out_stride, blocks + r * n_blocks * 32, n_blocks, scales, r, x,
                    x_stride, x_sum, 1, tokens, wide);
}

#include "runtime/kernels/kernel_groups.h"

// --- int8 rows ---

// Columns whose products one 32-bit lane can take: it gets 2 of 32, and those of two sums in the
// end.
enum { COLUMNS_AT_ONCE = 8192 };
_Static_assert((int64_t)COLUMNS_AT_ONCE / 16 * 127 * 32767 <= INT32_MAX, "cannot overflow");

KERNEL_INLINE __m512i add_int8(__m512i sum, const int8_t *row, const int16_t *x)
{
    __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)row));
    return _mm512_dpwssd_epi32(sum, wide, _mm512_loadu_si512(x));
}

KERNEL_INLINE int64_t add_lanes(__m512i v)
{
    return _mm512_reduce_add_epi64(
        _mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(v)),
                         _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(v, 1))));
}

KERNEL_INLINE int64_t int8_row(const int8_t *row, size_t n, const int16_t *x)
{
    int64_t sum = 0;
    for (size_t k = 0; k < n;) {
        size_t end = n - k < COLUMNS_AT_ONCE ? n : k + COLUMNS_AT_ONCE;
        __m512i even = _mm512_setzero_si512(), odd = even;
        for (; k + 64 <= end; k += 64) {
            even = add_int8(even, row + k, x + k);
            odd = add_int8(odd, row + k + 32, x + k + 32);
        }
        sum += add_lanes(_mm512_add_epi32(even, odd));
        for (; k < end; k++)
            sum += row[k] * x[k];
    }
    return sum;
}

KERNEL void int8_rows(int64_t *out, const int8_t *rows, size_t n_rows, size_t n, const int16_t *x)
{
    for (size_t r = 0; r < n_rows; r++)
        out[r] = int8_row(rows + r * n, n, x);
}

const struct bnt_kernels bnt_kernels_avx512 = {
    .name = "avx512-vnni",
    .ternary = ternary,
    .ternary_groups = ternary_groups,
    .int8_rows = int8_rows,
    KERNEL_FLOATS,
};

#else
// ISO C forbids an empty translation unit.
typedef int bnt_no_avx512;
#endif
