// SPDX-License-Identifier: MIT
// The definition of ternarizing, done by bnt-convert and repeated by bnt-verify --source:
//   γ = max(mean|W| over the matrix, 1e-5);  q = clamp(round_half_even(W · (1/γ)), −1, 1);  W ≈ q·γ
// in float32, as transformers' WeightQuant, llama.cpp and bitnet.cpp do. The sum of |W| is taken in
// double and rounded to float32 once, in an order that depends on nothing but the matrix: the
// result is the same for any number of threads.
#ifndef BNT_FORMATS_TERNARY_H
#define BNT_FORMATS_TERNARY_H

#include <stdint.h>

// Number types in which a checkpoint may hold master weights.
enum bnt_float_type { BNT_FLOAT_BF16, BNT_FLOAT_F16, BNT_FLOAT_F32 };

// Bytes of one element.
static inline unsigned bnt_float_size(enum bnt_float_type type)
{
    return type == BNT_FLOAT_F32 ? 4 : 2;
}

// One element as float32, exactly. index counts elements; data may be unaligned.
float bnt_float_load(enum bnt_float_type type, const uint8_t *data, uint64_t index);

// Sum of |w| over n elements, by up to threads threads. Inf or NaN where any element is.
double bnt_abs_sum(enum bnt_float_type type, const uint8_t *data, uint64_t n, unsigned threads);

// γ from that sum. n >= 1.
float bnt_ternary_scale(double abs_sum, uint64_t n);

// out[i] = q of data[i] for n elements.
void bnt_ternarize(enum bnt_float_type type, const uint8_t *data, uint64_t n, float scale,
                   int8_t *out);

// ‖W − qγ‖ / ‖W‖, for reports. 0 for a matrix of zeros.
double bnt_ternary_error(enum bnt_float_type type, const uint8_t *data, uint64_t n, float scale);

#endif
