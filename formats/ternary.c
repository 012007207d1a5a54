// SPDX-License-Identifier: MIT
#include "formats/ternary.h"

#include <math.h>
#include <stddef.h>

#include "formats/bytes.h"
#include "formats/parallel.h"

// A chunk is summed by LANES interleaved accumulators, chunks are added in their order. Lanes let
// the compiler use vector registers without reordering anything.
enum { LANES = 8, CHUNK = 1 << 16, CHUNKS_AT_ONCE = 256 };

float bnt_float_load(enum bnt_float_type type, const uint8_t *data, uint64_t index)
{
    switch (type) {
    case BNT_FLOAT_BF16:
        return bnt_float_from_bf16(bnt_load_u16(data + 2 * index));
    case BNT_FLOAT_F16:
        return bnt_float_from_f16(bnt_load_u16(data + 2 * index));
    case BNT_FLOAT_F32:
        break;
    }
    return bnt_load_f32(data + 4 * index);
}

// The inner loops are written once and compiled for each type, which has to be a constant for them
// to be vectorized.
static inline __attribute__((always_inline)) double sum_chunk_of(enum bnt_float_type type,
                                                                 const uint8_t *data, uint64_t n)
{
    double lane[LANES] = {0};
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (unsigned j = 0; j < LANES; j++)
            lane[j] += (double)fabsf(bnt_float_load(type, data, i + j));
    }
    for (unsigned j = 0; i < n; i++, j++)
        lane[j] += (double)fabsf(bnt_float_load(type, data, i));
    double sum = 0;
    for (unsigned j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

static double sum_chunk(enum bnt_float_type type, const uint8_t *data, uint64_t n)
{
    switch (type) {
    case BNT_FLOAT_BF16:
        return sum_chunk_of(BNT_FLOAT_BF16, data, n);
    case BNT_FLOAT_F16:
        return sum_chunk_of(BNT_FLOAT_F16, data, n);
    case BNT_FLOAT_F32:
        break;
    }
    return sum_chunk_of(BNT_FLOAT_F32, data, n);
}

struct sum_job {
    enum bnt_float_type type;
    const uint8_t *data;
    uint64_t n;
    double sum[CHUNKS_AT_ONCE];
};

static void sum_one_chunk(void *context, uint64_t i)
{
    struct sum_job *job = context;
    uint64_t at = i * CHUNK;
    uint64_t n = job->n - at < CHUNK ? job->n - at : CHUNK;
    job->sum[i] = sum_chunk(job->type, job->data + at * bnt_float_size(job->type), n);
}

double bnt_abs_sum(enum bnt_float_type type, const uint8_t *data, uint64_t n, unsigned threads)
{
    const uint64_t step = (uint64_t)CHUNK * CHUNKS_AT_ONCE;
    double sum = 0;
    for (uint64_t at = 0; at < n; at += step) {
        struct sum_job job = {.type = type, .data = data + at * bnt_float_size(type)};
        job.n = n - at < step ? n - at : step;
        uint64_t chunks = (job.n + CHUNK - 1) / CHUNK;
        bnt_parallel_for(threads, chunks, sum_one_chunk, &job);
        for (uint64_t i = 0; i < chunks; i++)
            sum += job.sum[i];
    }
    return sum;
}

float bnt_ternary_scale(double abs_sum, uint64_t n)
{
    float mean = (float)(abs_sum / (double)n);
    return mean > 1e-5f ? mean : 1e-5f;
}

// clamp(round_half_even(v), −1, 1) without rounding: a half rounds to the even 0, anything above it
// to 1 or clamps to 1.
static inline int8_t ternary(float v)
{
    return (int8_t)((v > 0.5f) - (v < -0.5f));
}

static inline __attribute__((always_inline)) void
ternarize_of(enum bnt_float_type type, const uint8_t *data, uint64_t n, float inverse, int8_t *out)
{
    for (uint64_t i = 0; i < n; i++)
        out[i] = ternary(bnt_float_load(type, data, i) * inverse);
}

void bnt_ternarize(enum bnt_float_type type, const uint8_t *data, uint64_t n, float scale,
                   int8_t *out)
{
    float inverse = 1.0f / scale;
    switch (type) {
    case BNT_FLOAT_BF16:
        ternarize_of(BNT_FLOAT_BF16, data, n, inverse, out);
        return;
    case BNT_FLOAT_F16:
        ternarize_of(BNT_FLOAT_F16, data, n, inverse, out);
        return;
    case BNT_FLOAT_F32:
        ternarize_of(BNT_FLOAT_F32, data, n, inverse, out);
        return;
    }
}

double bnt_ternary_error(enum bnt_float_type type, const uint8_t *data, uint64_t n, float scale)
{
    float inverse = 1.0f / scale;
    double difference = 0, total = 0;
    for (uint64_t i = 0; i < n; i++) {
        float w = bnt_float_load(type, data, i);
        double d = (double)w - (double)ternary(w * inverse) * (double)scale;
        difference += d * d;
        total += (double)w * (double)w;
    }
    return total > 0 ? sqrt(difference / total) : 0;
}
