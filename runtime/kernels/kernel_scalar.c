// SPDX-License-Identifier: MIT
// The definition: what every other kernel is compared with, bit for bit.
#include <float.h>
#include <math.h>
#include <string.h>

#include "formats/bytes.h"
#include "runtime/kernels/exp.h"
#include "runtime/kernels/kernels.h"

// --- integers ---

// One row of a block (two words, columns 0–15 and 16–31) times 32 activations.
static int32_t row_product(const uint32_t *block, size_t row, const int8_t *x)
{
    int32_t sum = 0;
    for (size_t half = 0; half < 2; half++) {
        uint32_t word = block[row / 8 * 16 + half * 8 + row % 8];
        for (size_t k = 0; k < 16; k++) {
            unsigned bit = (unsigned)(8 * (k % 4) + 2 * (k / 4));
            sum += ((int32_t)(word >> bit & 3) - 2) * x[16 * half + k];
        }
    }
    return sum;
}

static void ternary(int32_t *out, size_t out_stride, const uint32_t *blocks, size_t n_block_rows,
                    size_t n_blocks, const int8_t *x, size_t x_stride, const int32_t *x_sum,
                    size_t n_tokens)
{
    (void)x_sum; // for kernels that multiply unsigned codes
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t r = 0; r < 16 * n_block_rows; r++) {
            const uint32_t *block = blocks + r / 16 * n_blocks * 32;
            int32_t sum = 0;
            for (size_t b = 0; b < n_blocks; b++)
                sum += row_product(block + 32 * b, r % 16, x + t * x_stride + 32 * b);
            out[t * out_stride + r] = sum;
        }
    }
}

static float scale_of(const struct bnt_scales *s, size_t row, size_t group)
{
    size_t i = (row / 16 * s->n_groups + group) * 16 + row % 16;
    return s->halves ? bnt_float_from_f16(((const uint16_t *)s->values)[i])
                     : ((const float *)s->values)[i];
}

// A group's sum for one row of activations.
static int32_t group_product(const uint32_t *block, size_t n_blocks, size_t row, const int8_t *x)
{
    int32_t sum = 0;
    for (size_t b = 0; b < n_blocks; b++)
        sum += row_product(block + 32 * b, row, x + 32 * b);
    return sum;
}

static void ternary_groups(float *out, size_t out_stride, const uint32_t *blocks,
                           size_t n_block_rows, size_t n_blocks, const struct bnt_scales *scales,
                           const int8_t *x, size_t x_stride, const int32_t *x_sum, size_t n_tokens,
                           bool wide)
{
    (void)x_sum;
    const size_t step = scales->group_blocks, parts = wide ? 2 : 1;
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t r = 0; r < 16 * n_block_rows; r++) {
            const uint32_t *block = blocks + r / 16 * n_blocks * 32;
            const int8_t *y = x + t * parts * x_stride;
            float sum = 0;
            for (size_t b = 0; b < n_blocks; b += step, block += 32 * step, y += 32 * step) {
                size_t n = n_blocks - b < step ? n_blocks - b : step;
                int32_t group = group_product(block, n, r % 16, y);
                if (wide)
                    group = 256 * group + group_product(block, n, r % 16, y + x_stride);
                sum += scale_of(scales, r, b / step) * (float)group;
            }
            out[t * out_stride + r] = sum;
        }
    }
}

static void group_sums(int32_t *out, const int8_t *x, size_t padded, size_t group)
{
    for (size_t i = 0; i < padded; i++) {
        if (i % group == 0)
            out[i / group] = 0;
        out[i / group] += x[i];
    }
}

static void int8_rows(int64_t *out, const int8_t *rows, size_t n_rows, size_t n, const int16_t *x)
{
    for (size_t r = 0; r < n_rows; r++, rows += n) {
        out[r] = 0;
        for (size_t k = 0; k < n; k++)
            out[r] += rows[k] * x[k];
    }
}

// --- floats ---

static float quantize(int8_t *out, const float *x, size_t n, size_t padded, int32_t *sum)
{
    float max = 1e-5f;
    for (size_t i = 0; i < n; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    float scale = 127.0f / max;
    *sum = 0;
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * scale;
        v = v > -128.0f ? v : -128.0f; // in this form NaN becomes −128, as with maxps
        v = v < 127.0f ? v : 127.0f;
        out[i] = (int8_t)rintf(v);
        *sum += out[i];
    }
    memset(out + n, 0, padded - n);
    return scale;
}

static float quantize16(int8_t *high, int8_t *low, const float *x, size_t n, size_t padded)
{
    float max = 1e-30f;
    for (size_t i = 0; i < n; i++)
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    float scale = 32512.0f / max;
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * scale;
        v = v > -32512.0f ? v : -32512.0f;
        v = v < 32512.0f ? v : 32512.0f;
        int32_t q = (int32_t)rintf(v);
        high[i] = (int8_t)((q + 128) >> 8);
        low[i] = (int8_t)(q - 256 * high[i]);
    }
    memset(high + n, 0, padded - n);
    memset(low + n, 0, padded - n);
    return scale;
}

// Adds up the lanes; those beyond the last element hold zeros.
static float reduce(float lane[BNT_LANES])
{
    for (size_t step = BNT_LANES / 2; step > 0; step /= 2) {
        for (size_t j = 0; j < step; j++)
            lane[j] += lane[j + step];
    }
    return lane[0];
}

static void rows_f32(float *out, const float *rows, size_t n_rows, size_t n, const float *x)
{
    for (size_t r = 0; r < n_rows; r++, rows += n) {
        float lane[BNT_LANES] = {0};
        for (size_t i = 0; i < (n + BNT_LANES - 1) / BNT_LANES * BNT_LANES; i++)
            lane[i % BNT_LANES] += i < n ? rows[i] * x[i] : 0.0f;
        out[r] = reduce(lane);
    }
}

static void rows_bf16(float *out, const uint16_t *rows, size_t n_rows, size_t n, const float *x)
{
    for (size_t r = 0; r < n_rows; r++, rows += n) {
        float lane[BNT_LANES] = {0};
        for (size_t i = 0; i < (n + BNT_LANES - 1) / BNT_LANES * BNT_LANES; i++)
            lane[i % BNT_LANES] += i < n ? bnt_float_from_bf16(rows[i]) * x[i] : 0.0f;
        out[r] = reduce(lane);
    }
}

static void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float sum;
    rows_f32(&sum, x, 1, n, x);
    float factor = 1.0f / sqrtf(sum / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = w[i] * (x[i] * factor);
}

static void relu2(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = gate[i] > 0 ? gate[i] : 0;
        gate[i] = v * v * up[i];
    }
}

static void silu(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + bnt_exp(-gate[i])) * up[i];
}

// --- attention ---

static void to_half(uint16_t *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = bnt_f16_from_float(x[i]);
}

static void scores(float *out, size_t out_stride, const float *q, size_t q_stride, size_t n_queries,
                   const uint16_t *keys, size_t n_groups, size_t dim, float scale)
{
    for (size_t i = 0; i < n_queries; i++) {
        for (size_t p = 0; p < BNT_KEY_GROUP * n_groups; p++) {
            const uint16_t *key =
                keys + p / BNT_KEY_GROUP * dim * BNT_KEY_GROUP + p % BNT_KEY_GROUP;
            float sum = 0;
            for (size_t d = 0; d < dim; d++)
                sum += q[i * q_stride + d] * bnt_float_from_f16(key[d * BNT_KEY_GROUP]);
            out[i * out_stride + p] = sum * scale;
        }
    }
}

static void scores_f32(float *out, size_t out_stride, const float *q, size_t q_stride,
                       size_t n_queries, const float *keys, size_t n_groups, size_t dim,
                       float scale)
{
    for (size_t i = 0; i < n_queries; i++) {
        for (size_t p = 0; p < BNT_KEY_GROUP * n_groups; p++) {
            const float *key = keys + p / BNT_KEY_GROUP * dim * BNT_KEY_GROUP + p % BNT_KEY_GROUP;
            float sum = 0;
            for (size_t d = 0; d < dim; d++)
                sum += q[i * q_stride + d] * key[d * BNT_KEY_GROUP];
            out[i * out_stride + p] = sum * scale;
        }
    }
}

static void softmax(float *x, size_t n)
{
    float max = -FLT_MAX;
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    float lane[BNT_LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        x[i] = bnt_exp(x[i] - max);
        lane[i % BNT_LANES] += x[i];
    }
    float inverse = 1.0f / reduce(lane);
    for (size_t i = 0; i < n; i++)
        x[i] *= inverse;
}

static void mix(float *out, size_t out_stride, const float *weights, size_t weights_stride,
                size_t n_queries, const uint16_t *values, size_t values_stride, size_t n_values,
                size_t dim)
{
    for (size_t i = 0; i < n_queries; i++) {
        for (size_t d = 0; d < dim; d++) {
            float sum = 0;
            for (size_t p = 0; p < n_values; p++)
                sum += weights[i * weights_stride + p] *
                       bnt_float_from_f16(values[p * values_stride + d]);
            out[i * out_stride + d] = sum;
        }
    }
}

static void mix_f32(float *out, size_t out_stride, const float *weights, size_t weights_stride,
                    size_t n_queries, const float *values, size_t values_stride, size_t n_values,
                    size_t dim)
{
    for (size_t i = 0; i < n_queries; i++) {
        for (size_t d = 0; d < dim; d++) {
            float sum = 0;
            for (size_t p = 0; p < n_values; p++)
                sum += weights[i * weights_stride + p] * values[p * values_stride + d];
            out[i * out_stride + d] = sum;
        }
    }
}

const struct bnt_kernels bnt_kernels_scalar = {
    .name = "scalar",
    .ternary = ternary,
    .ternary_groups = ternary_groups,
    .group_sums = group_sums,
    .int8_rows = int8_rows,
    .quantize = quantize,
    .quantize16 = quantize16,
    .rms_norm = rms_norm,
    .relu2 = relu2,
    .silu = silu,
    .rows_f32 = rows_f32,
    .rows_bf16 = rows_bf16,
    .to_half = to_half,
    .scores = scores,
    .scores_f32 = scores_f32,
    .softmax = softmax,
    .mix = mix,
    .mix_f32 = mix_f32,
};
