// SPDX-License-Identifier: MIT
// NEON with dot products: sdot multiplies four columns of four rows with four activations, which it
// takes from any lane of a register, and no sum ever crosses lanes.
#if defined(__aarch64__)

// Clang before 16 knows the extension by another name, and hides its intrinsics where not the whole
// file is compiled for it.
#if defined(__clang__) && __clang_major__ < 16
#define __ARM_FEATURE_DOTPROD 1
#define KERNEL_TARGET         __attribute__((target("dotprod")))
#else
#define KERNEL_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#include "formats/layout.h"
#include "runtime/kernels/kernel_neon.h"

// --- one token: as fast as memory ---

// Two of the four codes of a byte are multiplied where they stand, 4 and 16 times too large, and
// their sums are shifted in the end. The largest takes a quarter of the columns.
_Static_assert((int64_t)BNT_MAX_COLS / 4 * 16 * 3 * 128 <= INT32_MAX, "sums cannot overflow");

// Sums of a group of rows, 1, 4 and 16 times too large.
struct sums {
    int32x4_t one, four, sixteen;
};

KERNEL_INLINE int8x16_t part_of(uint8x16_t words, uint8_t mask)
{
    return vreinterpretq_s8_u8(vandq_u8(words, vdupq_n_u8(mask)));
}

// Sixteen columns.
KERNEL_INLINE void add_columns(struct sums sum[GROUPS], const uint32_t *words, const int8_t *x)
{
    int8x16_t y = vld1q_s8(x);
    for (int g = 0; g < GROUPS; g++) {
        uint8x16_t w = load_group(words, g);
        sum[g].one = vdotq_laneq_s32(sum[g].one, part_of(w, 0x03), y, 0);
        sum[g].four = vdotq_laneq_s32(sum[g].four, part_of(w, 0x0C), y, 1);
        sum[g].sixteen = vdotq_laneq_s32(sum[g].sixteen, part_of(w, 0x30), y, 2);
        sum[g].one = vdotq_laneq_s32(sum[g].one, vreinterpretq_s8_u8(vshrq_n_u8(w, 6)), y, 3);
    }
}

KERNEL void one_token(int32_t *out, const uint32_t *block, size_t n_block_rows, size_t n_blocks,
                      const int8_t *x, int32_t x_sum)
{
    for (size_t r = 0; r < n_block_rows; r++, out += 16) {
        struct sums sum[GROUPS];
        for (int g = 0; g < GROUPS; g++) // codes are weights + 2
            sum[g] = (struct sums){vdupq_n_s32(-2 * x_sum), vdupq_n_s32(0), vdupq_n_s32(0)};
        for (size_t b = 0; b < n_blocks; b++, block += 32) {
            prefetch_block(block);
            add_columns(sum, block, x + 32 * b);
            add_columns(sum, block + 8, x + 32 * b + 16);
        }
        for (int g = 0; g < GROUPS; g++) {
            int32x4_t scaled = vsraq_n_s32(vshrq_n_s32(sum[g].four, 2), sum[g].sixteen, 4);
            vst1q_s32(out + 4 * g, vaddq_s32(sum[g].one, scaled));
        }
    }
}

// --- many tokens: as fast as sdot ---

// Each word is decoded once for so many tokens; each activation loaded once for so many groups of
// rows. The sums fill half of the registers, the codes a quarter.
enum { TOKENS = 8, TILE_GROUPS = 2 };

// Sixteen columns of eight rows for some tokens.
KERNEL_INLINE void tile_columns(int32x4_t sum[TOKENS][TILE_GROUPS], const uint32_t *words,
                                const int8_t *x, size_t x_stride, int tokens)
{
    int8x16_t codes[TILE_GROUPS][4];
    for (int g = 0; g < TILE_GROUPS; g++)
        decode(load_group(words, g), codes[g]);
    for (int t = 0; t < tokens; t++, x += x_stride) {
        keep_order();
        int8x16_t y = vld1q_s8(x);
        for (int g = 0; g < TILE_GROUPS; g++) {
            sum[t][g] = vdotq_laneq_s32(sum[t][g], codes[g][0], y, 0);
            sum[t][g] = vdotq_laneq_s32(sum[t][g], codes[g][1], y, 1);
            sum[t][g] = vdotq_laneq_s32(sum[t][g], codes[g][2], y, 2);
            sum[t][g] = vdotq_laneq_s32(sum[t][g], codes[g][3], y, 3);
        }
    }
}

// Eight rows of a block row.
KERNEL_INLINE void tile(int32_t *out, size_t out_stride, const uint32_t *block, size_t n_blocks,
                        const int8_t *x, size_t x_stride, const int32_t *x_sum, int tokens)
{
    int32x4_t sum[TOKENS][TILE_GROUPS];
    for (int t = 0; t < tokens; t++) {
        for (int g = 0; g < TILE_GROUPS; g++)
            sum[t][g] = vdupq_n_s32(-2 * x_sum[t]);
    }
    for (size_t b = 0; b < n_blocks; b++, block += 32, x += 32) {
        tile_columns(sum, block, x, x_stride, tokens);
        tile_columns(sum, block + 8, x + 16, x_stride, tokens);
    }
    for (int t = 0; t < tokens; t++, out += out_stride) {
        for (int g = 0; g < TILE_GROUPS; g++)
            vst1q_s32(out + 4 * g, sum[t][g]);
    }
}

KERNEL_INLINE void some_tokens(int32_t *out, size_t out_stride, const uint32_t *blocks,
                               size_t n_block_rows, size_t n_blocks, const int8_t *x,
                               size_t x_stride, const int32_t *x_sum, int tokens)
{
    for (size_t r = 0; r < n_block_rows; r++, out += 16, blocks += 32 * n_blocks) {
        tile(out, out_stride, blocks, n_blocks, x, x_stride, x_sum, tokens);
        tile(out + 8, out_stride, blocks + 16, n_blocks, x, x_stride, x_sum, tokens);
    }
}

#include "runtime/kernels/kernel_tokens.h"

// --- groups with scales ---

// Sixteen columns of all rows for one token's one or two rows of activations.
KERNEL_INLINE void part_columns(int32x4_t sum[2][GROUPS], const uint32_t *words, const int8_t *x,
                                size_t x_stride, int parts)
{
    for (int g = 0; g < GROUPS; g++) {
        int8x16_t codes[4];
        decode(load_group(words, g), codes);
        for (int p = 0; p < parts; p++) {
            int8x16_t y = vld1q_s8(x + (size_t)p * x_stride);
            sum[p][g] = vdotq_laneq_s32(sum[p][g], codes[0], y, 0);
            sum[p][g] = vdotq_laneq_s32(sum[p][g], codes[1], y, 1);
            sum[p][g] = vdotq_laneq_s32(sum[p][g], codes[2], y, 2);
            sum[p][g] = vdotq_laneq_s32(sum[p][g], codes[3], y, 3);
        }
    }
}

KERNEL_INLINE void groups_of_token(float *out, const uint32_t *block, size_t n_block_rows,
                                   size_t n_blocks, const struct bnt_scales *scales,
                                   const int8_t *x, size_t x_stride, const int32_t *x_sum,
                                   int parts)
{
    const size_t step = scales->group_blocks, groups = scales->n_groups;
    for (size_t r = 0; r < n_block_rows; r++, out += 16) {
        memset(out, 0, 16 * sizeof *out);
        for (size_t group = 0, b = 0; group < groups; group++) {
            size_t end = n_blocks - b < step ? n_blocks : b + step;
            int32x4_t sum[2][GROUPS];
            for (int p = 0; p < parts; p++) {
                for (int g = 0; g < GROUPS; g++)
                    sum[p][g] = vdupq_n_s32(-2 * x_sum[(size_t)p * groups + group]);
            }
            for (; b < end; b++, block += 32) {
                prefetch_block(block);
                part_columns(sum, block, x + 32 * b, x_stride, parts);
                part_columns(sum, block + 8, x + 32 * b + 16, x_stride, parts);
            }
            for (int g = 0; g < GROUPS; g++)
                add_scaled(out + 4 * g, parts == 2 ? join(sum[0][g], sum[1][g]) : sum[0][g], scales,
                           (r * groups + group) * 16 + 4 * (size_t)g);
        }
    }
}

// Eight rows, from `row` on, for some rows of activations.
KERNEL_INLINE void group_tile(float *out, size_t out_stride, const uint32_t *block, size_t n_blocks,
                              const struct bnt_scales *scales, size_t row, const int8_t *x,
                              size_t x_stride, const int32_t *x_sum, int tokens, bool wide)
{
    const size_t step = scales->group_blocks, groups = scales->n_groups;
    const int parts = wide ? 2 : 1;
    for (int t = 0; t < tokens / parts; t++)
        memset(out + (size_t)t * out_stride, 0, 8 * sizeof *out);
    for (size_t group = 0, b = 0; group < groups; group++) {
        size_t end = n_blocks - b < step ? n_blocks : b + step;
        int32x4_t sum[TOKENS][TILE_GROUPS];
        for (int t = 0; t < tokens; t++) {
            for (int g = 0; g < TILE_GROUPS; g++)
                sum[t][g] = vdupq_n_s32(-2 * x_sum[(size_t)t * groups + group]);
        }
        for (; b < end; b++, block += 32, x += 32) {
            tile_columns(sum, block, x, x_stride, tokens);
            tile_columns(sum, block + 8, x + 16, x_stride, tokens);
        }
        for (int t = 0; t < tokens / parts; t++) {
            for (int g = 0; g < TILE_GROUPS; g++)
                add_scaled(out + (size_t)t * out_stride + 4 * g,
                           wide ? join(sum[2 * t][g], sum[2 * t + 1][g]) : sum[t][g], scales,
                           (row / 16 * groups + group) * 16 + row % 16 + 4 * (size_t)g);
        }
    }
}

KERNEL_INLINE void groups_of_tokens(float *out, size_t out_stride, const uint32_t *blocks,
                                    size_t n_block_rows, size_t n_blocks,
                                    const struct bnt_scales *scales, const int8_t *x,
                                    size_t x_stride, const int32_t *x_sum, int tokens, bool wide)
{
    for (size_t r = 0; r < n_block_rows; r++, out += 16, blocks += 32 * n_blocks) {
        group_tile(out, out_stride, blocks, n_blocks, scales, 16 * r, x, x_stride, x_sum, tokens,
                   wide);
        group_tile(out + 8, out_stride, blocks + 16, n_blocks, scales, 16 * r + 8, x, x_stride,
                   x_sum, tokens, wide);
    }
}

#include "runtime/kernels/kernel_groups.h"

const struct bnt_kernels bnt_kernels_neon_dot = {
    .name = "neon-dot",
    .ternary = ternary,
    .ternary_groups = ternary_groups,
    .int8_rows = int8_rows,
    KERNEL_FLOATS,
};

#else
// ISO C forbids an empty translation unit.
typedef int bnt_no_neon_dot;
#endif
