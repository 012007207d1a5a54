// SPDX-License-Identifier: MIT
// What the NEON sets share: floats, int8 rows, and how a block lies in 128-bit registers. A file
// defines KERNEL_TARGET, then includes this.
#include <arm_neon.h>

#define VECTOR_FLOATS    4
#define SCORE_QUERIES    4
#define MIX_QUERIES      4
#define MIX_PARTS        4
#define load_half(p)     ((vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))))
#define store_half(p, v) vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)(v))))
#define load_widened(p)  vmovl_u16(vld1_u16(p))
#define store_narrowed(p, v)                                                                       \
    vst1_lane_s32(                                                                                 \
        (void *)(p),                                                                               \
        vreinterpret_s32_s8(vmovn_s16(vcombine_s16(vmovn_s32((int32x4_t)(v)), vdup_n_s16(0)))), 0)
#include "runtime/kernels/kernel_float.h"

enum { NEON_PREFETCH = 2048 };

// A register holds four words of a block: four rows at the same 16 columns, a row in each 32-bit
// lane. Such groups of rows, for columns 0–15; those of columns 16–31 lie 8 words on.
enum { GROUPS = 4 };

KERNEL_INLINE uint8x16_t load_group(const uint32_t *block, int group)
{
    return vreinterpretq_u8_u32(vld1q_u32(block + group / 2 * 16 + group % 2 * 4));
}

// Its codes: columns 0–3, 4–7, 8–11, 12–15, four in each lane.
KERNEL_INLINE void decode(uint8x16_t words, int8x16_t codes[4])
{
    const uint8x16_t mask = vdupq_n_u8(3);
    codes[0] = vreinterpretq_s8_u8(vandq_u8(words, mask));
    codes[1] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(words, 2), mask));
    codes[2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(words, 4), mask));
    codes[3] = vreinterpretq_s8_u8(vshrq_n_u8(words, 6));
}

// No instruction, but what follows is not loaded earlier: gcc else loads the activations of many
// tokens first, and has no registers left for their sums.
KERNEL_INLINE void keep_order(void)
{
    __asm__ volatile("" ::: "memory");
}

KERNEL_INLINE void prefetch_block(const uint32_t *block)
{
    __builtin_prefetch((const char *)block + NEON_PREFETCH);
    __builtin_prefetch((const char *)block + NEON_PREFETCH + 64);
}

// --- groups with scales ---

// Adds the products of four rows' sums and scales to out; at: of the first scale.
KERNEL_INLINE void add_scaled(float *out, int32x4_t products, const struct bnt_scales *s, size_t at)
{
    float32x4_t scale =
        s->halves ? vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)s->values + at)))
                  : vld1q_f32((const float *)s->values + at);
    vst1q_f32(out, vaddq_f32(vld1q_f32(out), vmulq_f32(scale, vcvtq_f32_s32(products))));
}

// Both bytes of 16-bit activations.
KERNEL_INLINE int32x4_t join(int32x4_t high, int32x4_t low)
{
    return vaddq_s32(vshlq_n_s32(high, 8), low);
}

// --- int8 rows ---

// Columns whose products one 32-bit lane can take: a lane gets one of 16.
enum { COLUMNS_AT_ONCE = 8192 };
_Static_assert((int64_t)COLUMNS_AT_ONCE / 16 * 127 * 32767 <= INT32_MAX, "cannot overflow");

KERNEL_INLINE void sixteen_products(int32x4_t sum[4], const int8_t *row, const int16_t *x)
{
    int8x16_t r = vld1q_s8(row);
    int16x8_t low = vmovl_s8(vget_low_s8(r)), high = vmovl_high_s8(r);
    int16x8_t x_low = vld1q_s16(x), x_high = vld1q_s16(x + 8);
    sum[0] = vmlal_s16(sum[0], vget_low_s16(low), vget_low_s16(x_low));
    sum[1] = vmlal_high_s16(sum[1], low, x_low);
    sum[2] = vmlal_s16(sum[2], vget_low_s16(high), vget_low_s16(x_high));
    sum[3] = vmlal_high_s16(sum[3], high, x_high);
}

KERNEL_INLINE int64_t int8_row(const int8_t *row, size_t n, const int16_t *x)
{
    int64_t sum = 0;
    for (size_t k = 0; k < n;) {
        size_t end = n - k < COLUMNS_AT_ONCE ? n : k + COLUMNS_AT_ONCE;
        int32x4_t part[4];
        for (int i = 0; i < 4; i++)
            part[i] = vdupq_n_s32(0);
        for (; k + 32 <= end; k += 32) {
            __builtin_prefetch(row + k + NEON_PREFETCH);
            sixteen_products(part, row + k, x + k);
            sixteen_products(part, row + k + 16, x + k + 16);
        }
        for (int i = 0; i < 4; i++)
            sum += vaddlvq_s32(part[i]);
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
