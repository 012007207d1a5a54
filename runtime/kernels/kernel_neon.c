// SPDX-License-Identifier: MIT
// NEON, which every 64-bit ARM has. smlal multiplies codes with activations and adds to 16-bit
// sums, a row's four columns side by side; they are added up when the sums are widened.
//
// What is done for each of some groups or tokens is written out where clang would not unroll a
// loop: the sums must live in registers.
#if defined(__aarch64__)

#define KERNEL_TARGET
#include "runtime/kernels/kernel_neon.h"

// A product of a code (0 … 3) and an activation (−128 … 127) is at most 3 · 128 in magnitude. A
// block adds eight of them to each 16-bit sum, so this many blocks may go by before the sums must
// be widened.
enum { PRODUCT_MAX = 3 * 128, BLOCKS_AT_ONCE = 10 };
_Static_assert(PRODUCT_MAX * 8 * BLOCKS_AT_ONCE <= INT16_MAX, "16-bit sums cannot overflow");

// Sums of a group: of its first two rows, of its last two.
struct sums {
    int16x8_t low, high;
};

// Four activations in every lane.
KERNEL_INLINE int8x16_t four(const int8_t *x)
{
    int32_t v;
    memcpy(&v, x, sizeof v);
    return vreinterpretq_s8_s32(vdupq_n_s32(v));
}

KERNEL_INLINE void add_products(struct sums *sum, int8x16_t codes, int8x16_t x)
{
    sum->low = vmlal_s8(sum->low, vget_low_s8(codes), vget_low_s8(x));
    sum->high = vmlal_high_s8(sum->high, codes, x);
}

// Sixteen columns of a group.
KERNEL_INLINE void add_columns(struct sums *sum, const int8x16_t codes[4], const int8x16_t x[4])
{
    add_products(sum, codes[0], x[0]);
    add_products(sum, codes[1], x[1]);
    add_products(sum, codes[2], x[2]);
    add_products(sum, codes[3], x[3]);
}

// Adds sums to out and makes them zero.
KERNEL_INLINE void widen(int32_t *out, struct sums *sum)
{
    int32x4_t rows = vpaddq_s32(vpaddlq_s16(sum->low), vpaddlq_s16(sum->high));
    vst1q_s32(out, vaddq_s32(vld1q_s32(out), rows));
    sum->low = sum->high = vdupq_n_s16(0);
}

// --- one token: as fast as memory ---

KERNEL_INLINE void add_group(struct sums *sum, const uint32_t *words, int group,
                             const int8x16_t x[4])
{
    int8x16_t codes[4];
    decode(load_group(words, group), codes);
    add_columns(sum, codes, x);
}

// Sixteen columns of a block.
KERNEL_INLINE void add_groups(struct sums sum[GROUPS], const uint32_t *words, const int8_t *x)
{
    const int8x16_t y[4] = {four(x), four(x + 4), four(x + 8), four(x + 12)};
    add_group(&sum[0], words, 0, y);
    add_group(&sum[1], words, 1, y);
    add_group(&sum[2], words, 2, y);
    add_group(&sum[3], words, 3, y);
}

KERNEL_INLINE void one_token(int32_t *out, const uint32_t *block, size_t n_block_rows,
                             size_t n_blocks, const int8_t *x, int32_t x_sum)
{
    struct sums sum[GROUPS] = {0};
    for (size_t r = 0; r < n_block_rows; r++, out += 16) {
        for (int i = 0; i < 16; i++) // codes are weights + 2
            out[i] = -2 * x_sum;
        for (size_t b = 0; b < n_blocks;) {
            size_t end = n_blocks - b < BLOCKS_AT_ONCE ? n_blocks : b + BLOCKS_AT_ONCE;
            for (; b < end; b++, block += 32) {
                prefetch_block(block);
                add_groups(sum, block, x + 32 * b);
                add_groups(sum, block + 8, x + 32 * b + 16);
            }
            for (int g = 0; g < GROUPS; g++)
                widen(out + 4 * g, &sum[g]);
        }
    }
}

// --- many tokens: as fast as smlal ---

// Each word is decoded once for so many tokens; activations are loaded once for so many groups. The
// sums fill half of the registers, the codes a quarter.
enum { TOKENS = 4, TILE_GROUPS = 2 };

// Sixteen columns of eight rows for one token.
KERNEL_INLINE void add_token(struct sums sum[TILE_GROUPS], int8x16_t codes[TILE_GROUPS][4],
                             const int8_t *x)
{
    keep_order();
    const int8x16_t y[4] = {four(x), four(x + 4), four(x + 8), four(x + 12)};
    add_columns(&sum[0], codes[0], y);
    add_columns(&sum[1], codes[1], y);
}

KERNEL_INLINE void add_tokens(struct sums sum[TOKENS][TILE_GROUPS], const uint32_t *words,
                              const int8_t *x, size_t x_stride)
{
    int8x16_t codes[TILE_GROUPS][4];
    decode(load_group(words, 0), codes[0]);
    decode(load_group(words, 1), codes[1]);
    add_token(sum[0], codes, x);
    add_token(sum[1], codes, x + x_stride);
    add_token(sum[2], codes, x + 2 * x_stride);
    add_token(sum[3], codes, x + 3 * x_stride);
}

// Eight rows of a block row.
KERNEL_INLINE void tile(int32_t *out, size_t out_stride, const uint32_t *block, size_t n_blocks,
                        const int8_t *x, size_t x_stride, const int32_t *x_sum)
{
    struct sums sum[TOKENS][TILE_GROUPS] = {0};
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t i = 0; i < 8; i++)
            out[t * out_stride + i] = -2 * x_sum[t];
    }
    for (size_t b = 0; b < n_blocks;) {
        size_t end = n_blocks - b < BLOCKS_AT_ONCE ? n_blocks : b + BLOCKS_AT_ONCE;
        for (; b < end; b++, block += 32, x += 32) {
            add_tokens(sum, block, x, x_stride);
            add_tokens(sum, block + 8, x + 16, x_stride);
        }
        for (size_t t = 0; t < TOKENS; t++) {
            widen(out + t * out_stride, &sum[t][0]);
            widen(out + t * out_stride + 4, &sum[t][1]);
        }
    }
}

KERNEL void ternary(int32_t *out, size_t out_stride, const uint32_t *blocks, size_t n_block_rows,
                    size_t n_blocks, const int8_t *x, size_t x_stride, const int32_t *x_sum,
                    size_t n_tokens)
{
    size_t t = 0;
    for (; t + TOKENS <= n_tokens; t += TOKENS) {
        for (size_t r = 0; r < n_block_rows; r++) { // rows 8–15 lie 16 words after rows 0–7
            int32_t *o = out + t * out_stride + 16 * r;
            const uint32_t *block = blocks + r * n_blocks * 32;
            tile(o, out_stride, block, n_blocks, x + t * x_stride, x_stride, x_sum + t);
            tile(o + 8, out_stride, block + 16, n_blocks, x + t * x_stride, x_stride, x_sum + t);
        }
    }
    for (; t < n_tokens; t++)
        one_token(out + t * out_stride, blocks, n_block_rows, n_blocks, x + t * x_stride, x_sum[t]);
}

// --- groups with scales ---

// Eight rows of a block row, from `row` on, for `count` rows of activations, which must be a
// constant; those beyond `rows` repeat the last and go nowhere.
KERNEL_INLINE void group_tile(float *out, size_t out_stride, const uint32_t *block, size_t n_blocks,
                              const struct bnt_scales *scales, size_t row,
                              const int8_t *const x[TOKENS], const int32_t *const x_sum[TOKENS],
                              int count, size_t rows, bool wide)
{
    const size_t step = scales->group_blocks, groups = scales->n_groups, parts = wide ? 2 : 1;
    for (size_t t = 0; t < rows / parts; t++)
        memset(out + t * out_stride, 0, 8 * sizeof *out);
    for (size_t group = 0, b = 0; group < groups; group++) {
        size_t stop = n_blocks - b < step ? n_blocks : b + step;
        int32_t total[TOKENS][8];
        struct sums sum[TOKENS][TILE_GROUPS] = {0};
        for (size_t t = 0; t < TOKENS; t++) {
            for (size_t i = 0; i < 8; i++)
                total[t][i] = -2 * x_sum[t][group];
        }
        while (b < stop) {
            size_t end = stop - b < BLOCKS_AT_ONCE ? stop : b + BLOCKS_AT_ONCE;
            for (; b < end; b++, block += 32) {
                prefetch_block(block);
                for (size_t half = 0; half < 2; half++) {
                    const size_t at = 32 * b + 16 * half;
                    int8x16_t codes[TILE_GROUPS][4];
                    decode(load_group(block + 8 * half, 0), codes[0]);
                    decode(load_group(block + 8 * half, 1), codes[1]);
                    add_token(sum[0], codes, x[0] + at);
                    if (count > 1)
                        add_token(sum[1], codes, x[1] + at);
                    if (count > 2) {
                        add_token(sum[2], codes, x[2] + at);
                        add_token(sum[3], codes, x[3] + at);
                    }
                }
            }
            for (int t = 0; t < count; t++) {
                widen(total[t], &sum[t][0]);
                widen(total[t] + 4, &sum[t][1]);
            }
        }
        for (size_t t = 0; t < rows / parts; t++) {
            for (size_t i = 0; i < 8; i += 4) {
                int32x4_t products = vld1q_s32(total[t * parts] + i);
                if (wide)
                    products = join(products, vld1q_s32(total[2 * t + 1] + i));
                add_scaled(out + t * out_stride + i, products, scales,
                           (row / 16 * groups + group) * 16 + row % 16 + i);
            }
        }
    }
}

KERNEL_INLINE void group_rows(float *out, size_t out_stride, const uint32_t *block, size_t n_blocks,
                              const struct bnt_scales *scales, size_t row,
                              const int8_t *const x[TOKENS], const int32_t *const x_sum[TOKENS],
                              size_t rows, bool wide)
{
    if (rows > 2)
        group_tile(out, out_stride, block, n_blocks, scales, row, x, x_sum, TOKENS, rows, wide);
    else if (rows == 2)
        group_tile(out, out_stride, block, n_blocks, scales, row, x, x_sum, 2, rows, wide);
    else
        group_tile(out, out_stride, block, n_blocks, scales, row, x, x_sum, 1, rows, wide);
}

KERNEL void ternary_groups(float *out, size_t out_stride, const uint32_t *blocks,
                           size_t n_block_rows, size_t n_blocks, const struct bnt_scales *scales,
                           const int8_t *x, size_t x_stride, const int32_t *x_sum, size_t n_tokens,
                           bool wide)
{
    const size_t parts = wide ? 2 : 1, all = n_tokens * parts;
    for (size_t first = 0; first < all; first += TOKENS) {
        size_t rows = all - first < TOKENS ? all - first : (size_t)TOKENS;
        const int8_t *row_x[TOKENS];
        const int32_t *row_sum[TOKENS];
        for (size_t i = 0; i < TOKENS; i++) {
            size_t row = first + (i < rows ? i : rows - 1);
            row_x[i] = x + row * x_stride;
            row_sum[i] = x_sum + row * scales->n_groups;
        }
        for (size_t r = 0; r < n_block_rows; r++) {
            float *o = out + first / parts * out_stride + 16 * r;
            const uint32_t *block = blocks + r * n_blocks * 32;
            group_rows(o, out_stride, block, n_blocks, scales, 16 * r, row_x, row_sum, rows, wide);
            group_rows(o + 8, out_stride, block + 16, n_blocks, scales, 16 * r + 8, row_x, row_sum,
                       rows, wide);
        }
    }
}

const struct bnt_kernels bnt_kernels_neon = {
    .name = "neon",
    .ternary = ternary,
    .ternary_groups = ternary_groups,
    .int8_rows = int8_rows,
    KERNEL_FLOATS,
};

#else
// ISO C forbids an empty translation unit.
typedef int bnt_no_neon;
#endif
