// SPDX-License-Identifier: MIT
// The contract between the forward pass and the kernels. A set of kernels is chosen once, when a
// model is opened. All sets give the same bits for the same input, floats included: every float sum
// is defined by BNT_LANES interleaved accumulators.
#ifndef BNT_RUNTIME_KERNELS_H
#define BNT_RUNTIME_KERNELS_H

#include <stddef.h>
#include <stdint.h>

// A float sum over n products adds element i, rounded, to accumulator i mod 16, as if n were padded
// with zeros to a multiple of 16; then accumulators j and j + 8 are added, j and j + 4, j and j +
// 2, j and j + 1. No fused multiply-add.
enum { BNT_LANES = 16 };

// Tokens that one call of ternary takes at most.
enum { BNT_MAX_BATCH = 32 };

struct bnt_kernels {
    const char *name;

    // Products of 16-row blocks: out[t * out_stride + r] = sum over k of (code(r, k) − 2) · x[t *
    // x_stride + k], in int32, exact.
    void (*ternary)(
        int32_t *out,           // (n_tokens, 16 * n_block_rows)
        size_t out_stride,      // in elements
        const uint32_t *blocks, // (n_block_rows, n_blocks) blocks of 32 words, 128-byte aligned
        size_t n_block_rows,
        size_t n_blocks,      // K' / 32
        const int8_t *x,      // (n_tokens, K'), zero beyond K; 32-byte aligned rows
        size_t x_stride,      // in elements
        const int32_t *x_sum, // (n_tokens) sum of x
        size_t n_tokens);     // 1 … BNT_MAX_BATCH

    // Quantizes a token's activations: s = 127 / max(max|x|, 1e-5), out = clamp(round_half_even(x ·
    // s), −128, 127). NaN counts as −128. Elements n … padded − 1 of out become zero. Returns s;
    // *sum is the sum of out.
    float (*quantize)(int8_t *out,    // (padded), 32-byte aligned
                      const float *x, // (n)
                      size_t n,
                      size_t padded, // n rounded up to a multiple of 32
                      int32_t *sum);

    // Float dot products, summed by lanes as above.
    float (*dot)(const float *a, const float *b, size_t n);
    float (*dot_bf16)(const uint16_t *a, const float *b, size_t n); // a: bf16

    // y[i] += a · x[i], the product rounded first.
    void (*add_scaled)(float *y, const float *x, float a, size_t n);
};

// |code| <= 3, |x| <= 128: sums of K <= 2^20 products fit in int32 (formats/layout.h asserts it).

extern const struct bnt_kernels bnt_kernels_scalar;
#if defined(__x86_64__)
extern const struct bnt_kernels bnt_kernels_avx2;
#endif

// The i-th set that this processor can run, best first; NULL past the last.
const struct bnt_kernels *bnt_kernels_get(size_t i);

#endif
