// SPDX-License-Identifier: MIT
// The contract between the forward pass and the kernels. A set of kernels is chosen once, when a
// model is opened. All sets give the same bits for the same input, floats included (only the sign
// and payload of NaN may differ), so that a text depends neither on the processor nor on the number
// of threads. kernel_scalar.c is the definition, written plainly; tests compare all others with it.
//
// Shapes are in elements, row-major; a stride is the distance between rows. Functions touch nothing
// beyond what their shapes name, but they may prefetch. They are pure, and safe in any thread.
#ifndef BNT_RUNTIME_KERNELS_H
#define BNT_RUNTIME_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"

// A float sum "by lanes" over n products adds element i, rounded, to accumulator i mod 16, as if n
// were padded with zeros to a multiple of 16; then accumulators j and j + 8 are added, j and j + 4,
// j and j + 2, j and j + 1. Nowhere is a multiply-add fused.
enum { BNT_LANES = 16 };

// Rows of activations that one call of ternary takes at most.
enum { BNT_MAX_BATCH = 128 };

// Attention keys are kept in groups of so many positions, see scores.
enum { BNT_KEY_GROUP = 16 };

// Scales of 16-row blocks (bnt.md section 5.1).
struct bnt_scales {
    const void *values; // (n_block_rows, n_groups, 16) halves, or floats
    bool halves;
    size_t n_groups;
    size_t group_blocks; // blocks of 32 columns in a group, 1 … 128; the last may have fewer
};

struct bnt_kernels {
    const char *name;

    // --- integers: exact ---

    // Products of 16-row blocks (bnt.md section 5): out[t][r] = sum over k of (code(r, k) − 2) ·
    // x[t][k]. |code| <= 3, |x| <= 128: sums of K' <= 2^20 products fit (formats/layout.h asserts
    // it), and codes of a damaged file do no harm.
    void (*ternary)(
        int32_t *out, // (n_tokens, 16 * n_block_rows)
        size_t out_stride,
        const uint32_t *blocks, // (n_block_rows, n_blocks) blocks of 32 words, 128-byte aligned
        size_t n_block_rows,
        size_t n_blocks, // K' / 32
        const int8_t *x, // (n_tokens, K'), zero beyond K; 32-byte aligned rows
        size_t x_stride,
        const int32_t *x_sum, // (n_tokens) sum of x
        size_t n_tokens);     // 1 … BNT_MAX_BATCH

    // The same with a scale for each row and each group of columns (bnt.md section 5.1), and the
    // groups' sums added up as floats: out[t][r] = a after a = 0 and, for each group g in order,
    // a = a + scale(r, g) · (float)S, S the group's sum over k of (code(r, k) − 2) · x[t][k], an
    // exact integer. wide: token t has the rows 2t (upper bytes) and 2t + 1 (lower bytes) of x and
    // x_sum, and S = 256 · (sum of row 2t) + (sum of row 2t + 1).
    void (*ternary_groups)(
        float *out, // (n_tokens, 16 * n_block_rows)
        size_t out_stride,
        const uint32_t *blocks, // as above
        size_t n_block_rows, size_t n_blocks, const struct bnt_scales *scales,
        const int8_t *x, // (n_tokens or 2 · n_tokens, K'), as above
        size_t x_stride,
        const int32_t *x_sum, // (n_tokens or 2 · n_tokens, n_groups) sums of x by group
        size_t n_tokens,      // 1 … BNT_MAX_BATCH, half of it if wide
        bool wide);

    // Sums of x by group: out[g] = sum of x over columns g · group … of K'.
    void (*group_sums)(int32_t *out,    // (ceil(padded / group))
                       const int8_t *x, // (padded), 32-byte aligned
                       size_t padded,   // K', a multiple of 32
                       size_t group);   // a multiple of 32

    // out[r] = sum over k of rows[r][k] · x[k].
    void (*int8_rows)(int64_t *out,       // (n_rows)
                      const int8_t *rows, // (n_rows, n), |value| <= 127
                      size_t n_rows,
                      size_t n,          // <= 2^20
                      const int16_t *x); // (n), |x| <= 32767

    // --- floats ---

    // Quantizes a token's activations: s = 127 / max(max|x|, 1e-5), out = clamp(round_half_even(x ·
    // s), −128, 127). NaN counts as −128. Elements n … padded − 1 of out become zero. Returns s;
    // *sum is the sum of out.
    float (*quantize)(int8_t *out,    // (padded), 32-byte aligned
                      const float *x, // (n)
                      size_t n,
                      size_t padded, // n rounded up to a multiple of 32
                      int32_t *sum);

    // The same in 16 bits: s = 32512 / max(max|x|, 1e-30), q = clamp(round_half_even(x · s),
    // −32512, 32512), NaN counting as −32512; q = 256 · high + low, −128 <= low <= 127. Returns s.
    float (*quantize16)(int8_t *high, // (padded), 32-byte aligned, like low
                        int8_t *low, const float *x, size_t n, size_t padded);

    // out[i] = w[i] · (x[i] · f), f = 1 / sqrt(m / n + eps), m = x·x by lanes. out may be x.
    void (*rms_norm)(float *out, const float *x, const float *w, size_t n, float eps);

    // gate[i] = max(gate[i], 0)² · up[i].
    void (*relu2)(float *gate, const float *up, size_t n);

    // gate[i] = gate[i] / (1 + exp(−gate[i])) · up[i], exp as in runtime/exp.h.
    void (*silu)(float *gate, const float *up, size_t n);

    // Rows of a dense matrix times a vector, by lanes: out[r] = sum over k of rows[r][k] · x[k].
    void (*rows_f32)(float *out, const float *rows, size_t n_rows, size_t n, const float *x);
    void (*rows_bf16)(float *out, const uint16_t *rows, size_t n_rows, size_t n, const float *x);

    // --- attention ---
    // For n_queries vectors that share a key head. The cache holds halves (IEEE 754 binary16) or
    // floats.

    // out[i] = x[i] as a half, rounded half to even, limited to ±65504.
    void (*to_half)(uint16_t *out, const float *x, size_t n);

    // out[i][16g + j] = scale · (sum over d, in order from zero, of q[i][d] · keys[g][d][j]).
    void (*scores)(float *out, // (n_queries, 16 * n_groups)
                   size_t out_stride,
                   const float *q, // (n_queries, dim)
                   size_t q_stride, size_t n_queries,
                   const uint16_t *keys, // (n_groups, dim, BNT_KEY_GROUP) halves
                   size_t n_groups, size_t dim, float scale);
    void (*scores_f32)(float *out, size_t out_stride, const float *q, size_t q_stride,
                       size_t n_queries, const float *keys, size_t n_groups, size_t dim,
                       float scale);

    // scores[i] = e[i] · (1 / sum of e by lanes), e[i] = exp(scores[i] − the greatest score).
    void (*softmax)(float *scores, size_t n); // n >= 1

    // out[i][d] = sum over p, in order from zero, of weights[i][p] · values[p][d].
    void (*mix)(float *out, // (n_queries, dim)
                size_t out_stride,
                const float *weights, // (n_queries, n_values)
                size_t weights_stride, size_t n_queries,
                const uint16_t *values, // (n_values, dim) halves
                size_t values_stride, size_t n_values, size_t dim);
    void (*mix_f32)(float *out, size_t out_stride, const float *weights, size_t weights_stride,
                    size_t n_queries, const float *values, size_t values_stride, size_t n_values,
                    size_t dim);
};

extern const struct bnt_kernels bnt_kernels_scalar;
#if defined(__x86_64__)
extern const struct bnt_kernels bnt_kernels_avx2;
extern const struct bnt_kernels bnt_kernels_avx_vnni;
extern const struct bnt_kernels bnt_kernels_avx512;
#elif defined(__aarch64__)
extern const struct bnt_kernels bnt_kernels_neon;
extern const struct bnt_kernels bnt_kernels_neon_dot;
#endif

// The i-th set that this processor can run, best first; NULL past the last.
const struct bnt_kernels *bnt_kernels_get(size_t i);

// The set of that name, or the best for NULL. BNT_ERR_UNSUPPORTED: there is none of that name here.
enum bnt_status bnt_kernels_find(const char *name, const struct bnt_kernels **kernels,
                                 struct bnt_error *err);

#endif
