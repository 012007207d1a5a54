// SPDX-License-Identifier: MIT
// The float half of a kernel set, written once in the compiler's vector types and compiled for each
// instruction set: a file defines what is listed below, then includes this.
//
//   VECTOR_FLOATS    floats in one register: 16, 8 or 4
//   KERNEL_TARGET    the target attribute of its functions
//   SCORE_QUERIES    queries that scores takes at once, 16 / VECTOR_FLOATS registers each
//   MIX_QUERIES      queries that mix takes at once,
//   MIX_PARTS        and registers of dim that it takes of each
//   load_half(p), store_half(p, v)   VECTOR_FLOATS halves from and to memory, as macros
//   load_widened(p)      VECTOR_FLOATS uint16_t as uint32_t, if the compiler's own is poor
//   store_narrowed(p, v) VECTOR_FLOATS int32_t as int8_t, likewise
//
// Accumulators are arrays with constant bounds in functions that are inlined, so they live in
// registers.
#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/kernels/exp.h"
#include "runtime/kernels/kernels.h"

#define KERNEL        static KERNEL_TARGET
#define KERNEL_INLINE static inline KERNEL_TARGET __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * VECTOR_FLOATS)));
typedef int32_t ivec __attribute__((vector_size(4 * VECTOR_FLOATS)));
typedef uint32_t uvec __attribute__((vector_size(4 * VECTOR_FLOATS)));
typedef uint16_t hvec __attribute__((vector_size(2 * VECTOR_FLOATS)));
typedef int8_t bvec __attribute__((vector_size(VECTOR_FLOATS)));
typedef float vec4 __attribute__((vector_size(16)));

enum { W = VECTOR_FLOATS, PARTS = BNT_LANES / VECTOR_FLOATS };

// Sixteen lanes.
struct lanes {
    vec part[PARTS];
};

KERNEL_INLINE vec load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

KERNEL_INLINE void store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

// The first n < W elements, zero beyond them. (n % W is n, which gcc without optimization must be
// told.)
KERNEL_INLINE vec load_some(const float *p, size_t n)
{
    float padded[W] = {0};
    memcpy(padded, p, n % W * sizeof padded[0]);
    return load(padded);
}

KERNEL_INLINE vec load_upto(const float *p, size_t n)
{
    return n >= W ? load(p) : load_some(p, n);
}

KERNEL_INLINE void store_upto(float *p, vec v, size_t n)
{
    if (n >= W)
        store(p, v);
    else
        memcpy(p, &v, n % W * sizeof p[0]);
}

#if !defined(load_widened)
KERNEL_INLINE uvec load_widened(const uint16_t *p)
{
    hvec v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, uvec);
}
#endif

#if !defined(store_narrowed)
KERNEL_INLINE void store_narrowed(int8_t *p, ivec v)
{
    bvec bytes = __builtin_convertvector(v, bvec);
    memcpy(p, &bytes, sizeof bytes);
}
#endif

KERNEL_INLINE vec load_bf16(const uint16_t *p)
{
    return (vec)((uvec)load_widened(p) << 16);
}

KERNEL_INLINE vec load_half_upto(const uint16_t *p, size_t n)
{
    if (n >= W)
        return load_half(p);
    uint16_t padded[W] = {0};
    memcpy(padded, p, n % W * sizeof padded[0]);
    return load_half(padded);
}

KERNEL_INLINE vec all(float v)
{
    return v - (vec){0}; // exact, −0 and NaN included
}

KERNEL_INLINE vec choose(ivec mask, vec yes, vec no)
{
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

// a > b ? a : b, hence b where a is NaN.
KERNEL_INLINE vec greater(vec a, vec b)
{
    return choose(a > b, a, b);
}

KERNEL_INLINE vec lesser(vec a, vec b)
{
    return choose(a < b, a, b);
}

KERNEL_INLINE struct lanes no_lanes(void)
{
    struct lanes l;
    for (int i = 0; i < PARTS; i++)
        l.part[i] = (vec){0};
    return l;
}

KERNEL_INLINE float max_of(vec v)
{
    float max = v[0];
    for (int i = 1; i < W; i++)
        max = v[i] > max ? v[i] : max;
    return max;
}

// The tree of kernels.h.
KERNEL_INLINE float reduce(const struct lanes *l)
{
    vec4 four[4];
    memcpy(four, l, sizeof four);
    vec4 sum = (four[0] + four[2]) + (four[1] + four[3]);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

KERNEL_INLINE vec exp_of(vec x)
{
    const vec rounder = all(BNT_ROUNDER);
    x = choose(x < BNT_EXP_LOW, all(BNT_EXP_LOW), x);
    x = choose(x > BNT_EXP_HIGH, all(BNT_EXP_HIGH), x);
    vec shifted = x * BNT_EXP_LOG2E + rounder;
    vec n = shifted - rounder;
    vec r = x - n * BNT_EXP_LN2_HI;
    r = r - n * BNT_EXP_LN2_LO;
    vec p = all(BNT_EXP_C4);
    p = p * r + BNT_EXP_C3;
    p = p * r + BNT_EXP_C2;
    p = p * r + BNT_EXP_C1;
    p = p * r + BNT_EXP_C0;
    p = p * (r * r) + r;
    p = p + 1.0f;
    uvec exponent = (uvec)shifted - (uvec)rounder + 127;
    return p * (vec)(exponent << 23);
}

// --- rows of matrices ---

enum dense { DENSE_F32, DENSE_BF16, DENSE_F16 };

KERNEL_INLINE vec load_dense(enum dense type, const void *p, size_t i)
{
    return type == DENSE_F32 ? load((const float *)p + i) : load_bf16((const uint16_t *)p + i);
}

// The last n % 16 columns.
KERNEL_INLINE void add_tail(struct lanes *sum, enum dense type, const void *row, const float *x,
                            size_t from, size_t n)
{
    float a[BNT_LANES] = {0}, b[BNT_LANES] = {0};
    for (size_t i = from; i < n; i++) {
        a[i - from] = type == DENSE_F32 ? ((const float *)row)[i]
                                        : bnt_float_from_bf16(((const uint16_t *)row)[i]);
        b[i - from] = x[i];
    }
    for (int i = 0; i < PARTS; i++)
        sum->part[i] += load(a + i * W) * load(b + i * W);
}

// One row after another, so that memory is read in the order of addresses: the processor's own
// prefetching then keeps up with it, which it does not when rows go side by side.
KERNEL_INLINE void all_rows(float *out, enum dense type, const char *rows, size_t n_rows, size_t n,
                            const float *x)
{
    const size_t width = n * (type == DENSE_F32 ? 4 : 2);
    for (size_t r = 0; r < n_rows; r++, rows += width) {
        struct lanes sum = no_lanes();
        size_t k = 0;
        for (; k + BNT_LANES <= n; k += BNT_LANES) {
            for (int i = 0; i < PARTS; i++)
                sum.part[i] +=
                    load_dense(type, rows, k + (size_t)(i * W)) * load(x + k + (size_t)(i * W));
        }
        if (k < n)
            add_tail(&sum, type, rows, x, k, n);
        out[r] = reduce(&sum);
    }
}

KERNEL void rows_f32(float *out, const float *rows, size_t n_rows, size_t n, const float *x)
{
    all_rows(out, DENSE_F32, (const void *)rows, n_rows, n, x);
}

KERNEL void rows_bf16(float *out, const uint16_t *rows, size_t n_rows, size_t n, const float *x)
{
    all_rows(out, DENSE_BF16, (const void *)rows, n_rows, n, x);
}

// --- activations ---

KERNEL float quantize(int8_t *out, const float *x, size_t n, size_t padded, int32_t *sum)
{
    const ivec magnitude = (ivec){0} + 0x7fffffff;
    vec max = all(1e-5f);
    for (size_t i = 0; i < n; i += W)
        max = greater((vec)((ivec)load_upto(x + i, n - i) & magnitude), max);
    float scale = 127.0f / max_of(max);
    ivec total = {0};
    for (size_t i = 0; i < padded; i += W) {
        vec v = i < n ? load_upto(x + i, n - i) * scale : (vec){0};
        v = lesser(greater(v, all(-128.0f)), all(127.0f));
        ivec q = (ivec)(v + BNT_ROUNDER) - (ivec)all(BNT_ROUNDER);
        total += q;
        store_narrowed(out + i, q);
    }
    *sum = 0;
    for (int i = 0; i < W; i++)
        *sum += total[i];
    return scale;
}

KERNEL float quantize16(int8_t *high, int8_t *low, const float *x, size_t n, size_t padded)
{
    const ivec magnitude = (ivec){0} + 0x7fffffff;
    vec max = all(1e-30f);
    for (size_t i = 0; i < n; i += W)
        max = greater((vec)((ivec)load_upto(x + i, n - i) & magnitude), max);
    float scale = 32512.0f / max_of(max);
    for (size_t i = 0; i < padded; i += W) {
        vec v = i < n ? load_upto(x + i, n - i) * scale : (vec){0};
        v = lesser(greater(v, all(-32512.0f)), all(32512.0f));
        ivec q = (ivec)(v + BNT_ROUNDER) - (ivec)all(BNT_ROUNDER);
        ivec h = (q + 128) >> 8;
        store_narrowed(high + i, h);
        store_narrowed(low + i, q - (h << 8));
    }
    return scale;
}

KERNEL void group_sums(int32_t *out, const int8_t *x, size_t padded, size_t group)
{
    for (size_t g = 0; g * group < padded; g++) {
        size_t end = (g + 1) * group < padded ? (g + 1) * group : padded;
        ivec total = {0};
        for (size_t i = g * group; i < end; i += W) {
            bvec v;
            memcpy(&v, x + i, sizeof v);
            total += __builtin_convertvector(v, ivec);
        }
        out[g] = 0;
        for (int i = 0; i < W; i++)
            out[g] += total[i];
    }
}

KERNEL void rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float sum;
    rows_f32(&sum, x, 1, n, x);
    float factor = 1.0f / sqrtf(sum / (float)n + eps);
    size_t i = 0;
    for (; i + W <= n; i += W)
        store(out + i, load(w + i) * (load(x + i) * factor));
    for (; i < n; i++)
        out[i] = w[i] * (x[i] * factor);
}

KERNEL void relu2(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += W) {
        vec v = greater(load_upto(gate + i, n - i), (vec){0});
        store_upto(gate + i, v * v * load_upto(up + i, n - i), n - i);
    }
}

KERNEL void silu(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i += W) {
        vec v = load_upto(gate + i, n - i);
        store_upto(gate + i, v / (1.0f + exp_of(-v)) * load_upto(up + i, n - i), n - i);
    }
}

// --- attention ---

KERNEL void to_half(uint16_t *out, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + W <= n; i += W) {
        vec v = load(x + i);
        v = choose(v > 65504.0f, all(65504.0f), v);
        v = choose(v < -65504.0f, all(-65504.0f), v);
        store_half(out + i, v);
    }
    for (; i < n; i++)
        out[i] = bnt_f16_from_float(x[i]);
}

// Elements i … of a cache.
KERNEL_INLINE vec load_cached(enum dense type, const void *p, size_t i)
{
    return type == DENSE_F32 ? load((const float *)p + i) : load_half((const uint16_t *)p + i);
}

// One group of keys for a few queries.
KERNEL_INLINE void score_group(float *out, size_t out_stride, const float *q, size_t q_stride,
                               int queries, enum dense type, const void *keys, size_t at,
                               size_t dim, float scale)
{
    struct lanes sum[SCORE_QUERIES];
    for (int i = 0; i < queries; i++)
        sum[i] = no_lanes();
    for (size_t d = 0; d < dim; d++, at += BNT_KEY_GROUP) {
        struct lanes key;
        for (int j = 0; j < PARTS; j++)
            key.part[j] = load_cached(type, keys, at + (size_t)(j * W));
        for (int i = 0; i < queries; i++) {
            float v = q[(size_t)i * q_stride + d];
            for (int j = 0; j < PARTS; j++)
                sum[i].part[j] += v * key.part[j];
        }
    }
    for (int i = 0; i < queries; i++) {
        for (int j = 0; j < PARTS; j++)
            store(out + (size_t)i * out_stride + j * W, sum[i].part[j] * scale);
    }
}

KERNEL_INLINE void score_groups(float *out, size_t out_stride, const float *q, size_t q_stride,
                                size_t n_queries, enum dense type, const void *keys,
                                size_t n_groups, size_t dim, float scale)
{
    for (size_t g = 0; g < n_groups; g++, out += BNT_KEY_GROUP) {
        const size_t at = g * dim * BNT_KEY_GROUP;
        size_t i = 0;
        for (; i + SCORE_QUERIES <= n_queries; i += SCORE_QUERIES)
            score_group(out + i * out_stride, out_stride, q + i * q_stride, q_stride, SCORE_QUERIES,
                        type, keys, at, dim, scale);
        for (; i < n_queries; i++)
            score_group(out + i * out_stride, out_stride, q + i * q_stride, q_stride, 1, type, keys,
                        at, dim, scale);
    }
}

KERNEL void scores(float *out, size_t out_stride, const float *q, size_t q_stride, size_t n_queries,
                   const uint16_t *keys, size_t n_groups, size_t dim, float scale)
{
    score_groups(out, out_stride, q, q_stride, n_queries, DENSE_F16, keys, n_groups, dim, scale);
}

KERNEL void scores_f32(float *out, size_t out_stride, const float *q, size_t q_stride,
                       size_t n_queries, const float *keys, size_t n_groups, size_t dim,
                       float scale)
{
    score_groups(out, out_stride, q, q_stride, n_queries, DENSE_F32, keys, n_groups, dim, scale);
}

KERNEL void softmax(float *x, size_t n)
{
    vec max = all(-FLT_MAX);
    size_t i = 0;
    for (; i + W <= n; i += W)
        max = greater(load(x + i), max);
    float greatest = max_of(max);
    for (; i < n; i++)
        greatest = x[i] > greatest ? x[i] : greatest;
    struct lanes sum = no_lanes();
    size_t part = 0;
    for (i = 0; i + W <= n; i += W, part = (part + 1) % PARTS) {
        vec e = exp_of(load(x + i) - greatest);
        sum.part[part] += e;
        store(x + i, e);
    }
    for (size_t j = 0; i + j < n; j++) {
        x[i + j] = bnt_exp(x[i + j] - greatest);
        sum.part[part][j] += x[i + j];
    }
    float inverse = 1.0f / reduce(&sum);
    for (i = 0; i < n; i += W)
        store_upto(x + i, load_upto(x + i, n - i) * inverse, n - i);
}

// parts vectors of dim, from element `at` of the values on, for a few queries. width: columns that
// are left.
KERNEL_INLINE void mix_columns(float *out, size_t out_stride, const float *weights,
                               size_t weights_stride, int queries, enum dense type,
                               const void *values, size_t at, size_t values_stride, size_t n_values,
                               int parts, size_t width)
{
    vec sum[MIX_QUERIES][MIX_PARTS];
    for (int i = 0; i < queries; i++) {
        for (int j = 0; j < parts; j++)
            sum[i][j] = (vec){0};
    }
    for (size_t p = 0; p < n_values; p++, at += values_stride) {
        vec value[MIX_PARTS];
        for (int j = 0; j < parts; j++) {
            if (width >= W)
                value[j] = load_cached(type, values, at + (size_t)(j * W));
            else
                value[j] = type == DENSE_F32 ? load_some((const float *)values + at, width)
                                             : load_half_upto((const uint16_t *)values + at, width);
        }
        for (int i = 0; i < queries; i++) {
            float weight = weights[(size_t)i * weights_stride + p];
            for (int j = 0; j < parts; j++)
                sum[i][j] += weight * value[j];
        }
    }
    for (int i = 0; i < queries; i++) {
        for (int j = 0; j < parts; j++)
            store_upto(out + (size_t)i * out_stride + j * W, sum[i][j], width);
    }
}

KERNEL_INLINE void mix_queries(float *out, size_t out_stride, const float *weights,
                               size_t weights_stride, int queries, enum dense type,
                               const void *values, size_t values_stride, size_t n_values,
                               size_t dim)
{
    size_t d = 0;
    for (; d + MIX_PARTS * W <= dim; d += MIX_PARTS * W)
        mix_columns(out + d, out_stride, weights, weights_stride, queries, type, values, d,
                    values_stride, n_values, MIX_PARTS, MIX_PARTS * W);
    for (; d < dim; d += W)
        mix_columns(out + d, out_stride, weights, weights_stride, queries, type, values, d,
                    values_stride, n_values, 1, dim - d);
}

KERNEL_INLINE void mix_all(float *out, size_t out_stride, const float *weights,
                           size_t weights_stride, size_t n_queries, enum dense type,
                           const void *values, size_t values_stride, size_t n_values, size_t dim)
{
    size_t i = 0;
    for (; i + MIX_QUERIES <= n_queries; i += MIX_QUERIES)
        mix_queries(out + i * out_stride, out_stride, weights + i * weights_stride, weights_stride,
                    MIX_QUERIES, type, values, values_stride, n_values, dim);
    for (; i < n_queries; i++)
        mix_queries(out + i * out_stride, out_stride, weights + i * weights_stride, weights_stride,
                    1, type, values, values_stride, n_values, dim);
}

KERNEL void mix(float *out, size_t out_stride, const float *weights, size_t weights_stride,
                size_t n_queries, const uint16_t *values, size_t values_stride, size_t n_values,
                size_t dim)
{
    mix_all(out, out_stride, weights, weights_stride, n_queries, DENSE_F16, values, values_stride,
            n_values, dim);
}

KERNEL void mix_f32(float *out, size_t out_stride, const float *weights, size_t weights_stride,
                    size_t n_queries, const float *values, size_t values_stride, size_t n_values,
                    size_t dim)
{
    mix_all(out, out_stride, weights, weights_stride, n_queries, DENSE_F32, values, values_stride,
            n_values, dim);
}

// What a set's table takes from here.
#define KERNEL_FLOATS                                                                              \
    .group_sums = group_sums, .quantize = quantize, .quantize16 = quantize16,                      \
    .rms_norm = rms_norm, .relu2 = relu2, .silu = silu, .rows_f32 = rows_f32,                      \
    .rows_bf16 = rows_bf16, .to_half = to_half, .scores = scores, .scores_f32 = scores_f32,        \
    .softmax = softmax, .mix = mix, .mix_f32 = mix_f32
