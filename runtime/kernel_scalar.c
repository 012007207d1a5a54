// SPDX-License-Identifier: MIT
// The definition: what every other kernel is compared with, bit for bit.
#include <math.h>
#include <string.h>

#include "formats/bytes.h"
#include "runtime/kernels.h"

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

static float reduce(float lane[BNT_LANES])
{
    for (size_t step = BNT_LANES / 2; step > 0; step /= 2) {
        for (size_t j = 0; j < step; j++)
            lane[j] += lane[j + step];
    }
    return lane[0];
}

static float dot(const float *a, const float *b, size_t n)
{
    float lane[BNT_LANES] = {0};
    for (size_t i = 0; i < (n + BNT_LANES - 1) / BNT_LANES * BNT_LANES; i++)
        lane[i % BNT_LANES] += i < n ? a[i] * b[i] : 0.0f;
    return reduce(lane);
}

static float dot_bf16(const uint16_t *a, const float *b, size_t n)
{
    float lane[BNT_LANES] = {0};
    for (size_t i = 0; i < (n + BNT_LANES - 1) / BNT_LANES * BNT_LANES; i++)
        lane[i % BNT_LANES] += i < n ? bnt_float_from_bf16(a[i]) * b[i] : 0.0f;
    return reduce(lane);
}

static void add_scaled(float *y, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

const struct bnt_kernels bnt_kernels_scalar = {
    .name = "scalar",
    .ternary = ternary,
    .quantize = quantize,
    .dot = dot,
    .dot_bf16 = dot_bf16,
    .add_scaled = add_scaled,
};
