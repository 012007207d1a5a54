// SPDX-License-Identifier: MIT
// A session's memory on the device.
#include "runtime/cuda/session.cuh"

#include <inttypes.h>
#include <stdlib.h>

#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/sample.cuh"
extern "C" {
#include "runtime/engine/rope.h"
}

enum { MAX_BATCH = 2048, BATCH_STEP = 128, WORK_BYTES = 160 << 20 };

struct bnt_cuda_heads bnt_cuda_session_heads(const struct bnt_cuda_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    return {h->n_heads, h->n_kv_heads, h->head_dim};
}

static size_t cache_size(const struct bnt_cuda_session *s) // of one layer, in elements
{
    return (size_t)s->model->hyper.n_kv_heads * s->context * s->cache_row;
}

struct bnt_cuda_cache bnt_cuda_session_cache(const struct bnt_cuda_session *s, uint32_t layer)
{
    size_t at = layer * cache_size(s);
    return {s->keys + at, s->values + at, s->context, s->cache_row};
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

bool bnt_cuda_session_has_up(const struct bnt_hyper *h)
{
    return h->scale_group || h->activation_bits > 8 ||
           h->flags & (BNT_HYPER_FFN_BIAS | BNT_HYPER_LINEAR_NORMS);
}

static uint32_t widest_input(const struct bnt_hyper *h)
{
    return max_u32(max_u32(h->hidden_size, h->ffn_size), bnt_q_size(h));
}

// As many tokens at once as the work memory allows; one always fits in the room that is promised.
static uint32_t choose_batch(const struct bnt_hyper *h, uint32_t context)
{
    size_t floats = (size_t)h->hidden_size + 2 * (size_t)bnt_q_size(h) +
                    2 * (size_t)bnt_kv_size(h) + h->ffn_size + h->head_dim;
    floats += bnt_cuda_session_has_up(h) ? h->ffn_size : 0;
    floats += h->flags & BNT_HYPER_LINEAR_NORMS ? widest_input(h) : 0;
    const size_t parts = h->activation_bits / 8;
    size_t bytes =
        floats * sizeof(float) + parts * bnt_cuda_pad(widest_input(h), BNT_CUDA_CHUNK_COLS);
    size_t n = WORK_BYTES / bytes;
    if (n > BATCH_STEP)
        n -= n % BATCH_STEP;
    const uint32_t most = context < MAX_BATCH ? context : (uint32_t)MAX_BATCH;
    return n < 1 ? 1 : n > most ? most : (uint32_t)n;
}

template <class T> static cudaError_t allocate(T **to, size_t count)
{
    return cudaMalloc(to, count * sizeof(T));
}

static cudaError_t allocate_cache(struct bnt_cuda_session *s)
{
    size_t count = s->model->hyper.n_layers * cache_size(s);
    cudaError_t error = allocate(&s->keys, count);
    if (error == cudaSuccess)
        error = allocate(&s->values, count);
    if (error == cudaSuccess) // what pads a row must be zero
        error = cudaMemsetAsync(s->keys, 0, count * sizeof *s->keys, s->stream);
    if (error == cudaSuccess)
        error = cudaMemsetAsync(s->values, 0, count * sizeof *s->values, s->stream);
    return error;
}

static cudaError_t allocate_work(struct bnt_cuda_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const size_t n = s->batch, q = bnt_q_size(h), kv = bnt_kv_size(h);
    // What the output layer takes in, and no fewer rows than a batch has.
    const size_t rows = n > BNT_CUDA_OUTPUT_BATCH ? n : (size_t)BNT_CUDA_OUTPUT_BATCH;
    s->quantized.is_16_bit = h->activation_bits == 16;
    s->quantized.stride = bnt_cuda_pad(widest_input(h), BNT_CUDA_CHUNK_COLS);
    const struct {
        float **to;
        size_t count;
    } floats[] = {
        {&s->x, n * h->hidden_size},
        {&s->q, n * q},
        {&s->k, n * kv},
        {&s->v, n * kv},
        {&s->att, n * q},
        {&s->gate, n * h->ffn_size},
        {&s->up, (bnt_cuda_session_has_up(h) ? n : 1) * h->ffn_size},
        {&s->h, h->flags & BNT_HYPER_LINEAR_NORMS ? n * widest_input(h) : 0},
        {&s->normed, (size_t)BNT_CUDA_OUTPUT_BATCH * h->hidden_size},
        {&s->logits, (size_t)BNT_CUDA_OUTPUT_BATCH * h->vocab_size},
        {&s->frequency, h->head_dim / 2},
        {&s->quantized.scale, rows},
    };
    cudaError_t error = cudaSuccess;
    for (size_t i = 0; i < sizeof floats / sizeof floats[0] && error == cudaSuccess; i++)
        error = floats[i].count ? allocate(floats[i].to, floats[i].count) : cudaSuccess;
    if (error == cudaSuccess)
        error = allocate(&s->tokens, n);
    if (error == cudaSuccess)
        error = allocate(&s->angles, n * (h->head_dim / 2));
    if (error == cudaSuccess)
        error = allocate(&s->quantized.sum, rows);
    if (error == cudaSuccess)
        error = allocate(&s->quantized.x, rows * (h->activation_bits / 8) * s->quantized.stride);
    return error;
}

static cudaError_t fill_frequencies(struct bnt_cuda_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    float frequency[BNT_MAX_HEAD_DIM / 2];
    bnt_rope_frequencies(h, frequency);
    return cudaMemcpy(s->frequency, frequency, h->head_dim / 2 * sizeof(float),
                      cudaMemcpyHostToDevice);
}

static enum bnt_status prepare(struct bnt_cuda_session *s, struct bnt_error *err)
{
    cudaError_t error = cudaSetDevice(s->model->device);
    if (error == cudaSuccess)
        error = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "opening a stream on the GPU");
    error = allocate_cache(s);
    if (error == cudaSuccess)
        error = allocate_work(s);
    if (error == cudaSuccess)
        error = fill_frequencies(s);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "allocating memory for a session");
    enum bnt_status status = bnt_cuda_decoder_open(s, &s->decoder, err);
    if (status == BNT_OK)
        status = bnt_cuda_sampler_open(s, &s->sampler, err);
    if (status != BNT_OK)
        return status;
    // What was cleared and uploaded, the model too, is there: on whatever stream, and though a copy
    // from ordinary memory may return before its end.
    error = cudaDeviceSynchronize();
    return error == cudaSuccess ? BNT_OK : bnt_cuda_fail(err, error, "preparing a session");
}

enum bnt_status bnt_cuda_session_open(const struct bnt_cuda_model *model, uint32_t context,
                                      bool full_output, struct bnt_cuda_session **session,
                                      struct bnt_error *err)
{
    *session = NULL;
    if (context < 1 || context > model->hyper.max_context)
        return bnt_fail(err, BNT_ERR_ARGUMENT,
                        "a context of %" PRIu32 " tokens is not within the model's 1 to %" PRIu32,
                        context, model->hyper.max_context);
    struct bnt_cuda_session *s = static_cast<struct bnt_cuda_session *>(calloc(1, sizeof *s));
    if (!s)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    s->model = model;
    s->context = context;
    s->full_output = full_output;
    s->batch = choose_batch(&model->hyper, context);
    s->cache_row = bnt_cuda_pad(model->hyper.head_dim, 4);
    enum bnt_status status = prepare(s, err);
    if (status != BNT_OK) {
        bnt_cuda_session_close(s);
        return status;
    }
    *session = s;
    return BNT_OK;
}

void bnt_cuda_session_close(struct bnt_cuda_session *s)
{
    if (!s)
        return;
    bnt_cuda_sampler_close(s->sampler);
    bnt_cuda_decoder_close(s->decoder);
    void *const buffers[] = {s->keys,
                             s->values,
                             s->frequency,
                             s->tokens,
                             s->angles,
                             s->x,
                             s->q,
                             s->k,
                             s->v,
                             s->att,
                             s->gate,
                             s->up,
                             s->h,
                             s->normed,
                             s->logits,
                             s->quantized.x,
                             s->quantized.scale,
                             s->quantized.sum};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        (void)cudaFree(buffers[i]);
    if (s->stream)
        (void)cudaStreamDestroy(s->stream);
    free(s);
}

const char *bnt_cuda_session_device(const struct bnt_cuda_session *s)
{
    return s->model->info.name;
}

uint32_t bnt_cuda_session_position(const struct bnt_cuda_session *s)
{
    return s->position;
}

enum bnt_status bnt_cuda_session_rewind(struct bnt_cuda_session *s, uint32_t position,
                                        struct bnt_error *err)
{
    if (position > s->position)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "cannot rewind from %" PRIu32 " to %" PRIu32,
                        s->position, position);
    s->position = position;
    return BNT_OK;
}
