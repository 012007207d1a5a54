// SPDX-License-Identifier: MIT
// Scales by row and group (bnt.md section 5.1), and weights as signed bytes.
#ifndef BNT_RUNTIME_CUDA_SCALES_CUH
#define BNT_RUNTIME_CUDA_SCALES_CUH

#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

enum { SCALE_ROWS = 16 }; // that stand together

// A scale as float.
static __device__ __forceinline__ float load_scale(const void *scales, bool halves, size_t i)
{
    return halves ? __half2float(static_cast<const __half *>(scales)[i])
                  : static_cast<const float *>(scales)[i];
}

// Element k of a row of a ternary matrix.
static __device__ __forceinline__ float ternary_value(const bnt_cuda_rows &m, uint32_t row,
                                                      uint32_t k)
{
    const size_t block = (size_t)(row / 16) * divide_up(m.cols, 32) + k / 32;
    const uint32_t word = m.blocks[block * 32 + row % 16 / 8 * 16 + k % 32 / 16 * 8 + row % 8];
    const int code = word >> (8 * (k % 4) + 2 * (k % 16 / 4)) & 3;
    float scale = m.scale;
    if (m.n_groups)
        scale = load_scale(
            m.scales, m.halves,
            ((size_t)(row / 16) * m.n_groups + k / 32 / m.group_blocks) * SCALE_ROWS + row % 16);
    return (float)(code - 2) * scale;
}

// Four weights of a word, columns 4 I … 4 I + 3, as signed bytes times 64. The code stands in the
// upper two bits of its byte, and 64 · code − 128 is the weight in two's complement.
template <int I> static __device__ __forceinline__ uint32_t signed_weights(uint32_t word)
{
    uint32_t v;
    asm("lop3.b32 %0, %1, %2, %3, 0x6A;" // (a & b) ^ c, which the compiler makes two of
        : "=r"(v)
        : "r"(word << (6 - 2 * I)), "r"(0xC0C0C0C0u), "r"(0x80808080u));
    return v;
}
enum { SIGNED_BITS = 6 }; // that sums of them are to be shifted by

// The same where the columns depend on the lane. left: 6 − 2 I.
static __device__ __forceinline__ uint32_t shift_signed_weights(uint32_t word, uint32_t left)
{
    return (word << left & 0xC0C0C0C0u) ^ 0x80808080u;
}

// d (16 × 8, int32) += a (16 × 32, signed weights) · b (32 × 8, int8).
static __device__ __forceinline__ void mma_weights(int (&d)[4], uint32_t a0, uint32_t a1,
                                                   uint32_t a2, uint32_t a3, uint32_t b0,
                                                   uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The integer 256 · high + low, rounded to a float once: both are below 2^24, or so their own
// rounding is defined (bnt.md section 5).
static __device__ __forceinline__ float join_bytes(int high, int low)
{
    return __fmaf_rn((float)high, 256.0f, (float)low);
}

// a + scale · sum, each operation rounded.
static __device__ __forceinline__ float add_group(float a, float scale, float sum)
{
    return __fadd_rn(a, __fmul_rn(scale, sum));
}

// What the sums of a row come to: of groups (n_groups > 1) their total, else the sum itself.
// scale: γ, or that of the row.
static __device__ __forceinline__ float finish_sum(float sum, uint32_t n_groups, float scale,
                                                   float x_scale)
{
    if (n_groups == 0)
        return __fmul_rn(sum, scale / x_scale);
    const float factor = 1.0f / x_scale;
    return __fmul_rn(n_groups == 1 ? __fmul_rn(sum, scale) : sum, factor);
}

#endif
