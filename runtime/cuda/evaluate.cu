// SPDX-License-Identifier: MIT
// The forward pass over a prompt, in chunks of tokens (bnt.md section 10).
#include "runtime/cuda/session.cuh"

#include "runtime/check.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        cudaError_t try_error = (call);                                                            \
        if (try_error != cudaSuccess)                                                              \
            return try_error;                                                                      \
    } while (0)

void bnt_cuda_add_part(struct bnt_cuda_product *p, const struct bnt_cuda_matrix *m, float *out)
{
    p->parts[p->n_parts++] = {p->n_tiles, m->rows, m->scale, out, m->rows, 0, false};
    p->n_tiles += bnt_pad_rows(m->rows) / BNT_BLOCK_ROWS;
}

struct bnt_cuda_product bnt_cuda_stack(const struct bnt_cuda_matrix *m, float *out, bool add)
{
    struct bnt_cuda_product p = {};
    p.blocks = m->blocks;
    p.n_blocks = bnt_pad_cols(m->cols) / BNT_BLOCK_COLS;
    p.add = add;
    bnt_cuda_add_part(&p, m, out);
    return p;
}

static cudaError_t multiply(struct bnt_cuda_session *s, const struct bnt_cuda_product *p,
                            uint32_t cols, uint32_t m)
{
    struct bnt_cuda_quantized x = s->quantized;
    x.stride = bnt_cuda_pad(cols, BNT_CUDA_CHUNK_COLS);
    return m == 1 ? bnt_cuda_gemv(p, &x, NULL, s->stream)
                  : bnt_cuda_gemm(p, &x, m, NULL, s->stream);
}

static struct bnt_cuda_quantized quantized(const struct bnt_cuda_session *s, uint32_t cols)
{
    struct bnt_cuda_quantized x = s->quantized;
    x.stride = bnt_cuda_pad(cols, BNT_CUDA_CHUNK_COLS);
    return x;
}

// Queries rotated, keys and values in the cache.
static cudaError_t project(struct bnt_cuda_session *s, const struct bnt_cuda_layer *layer,
                           const struct bnt_cuda_cache *cache, uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    struct bnt_cuda_product qkv = bnt_cuda_stack(&layer->q, s->q, false);
    bnt_cuda_add_part(&qkv, &layer->k, s->k);
    bnt_cuda_add_part(&qkv, &layer->v, s->v);
    if (m > 1 && bnt_cuda_gemm_takes_heads(h->head_dim)) {
        const size_t at = (size_t)s->position * cache->row,
                     head = (size_t)cache->context * cache->row;
        qkv.head_dim = h->head_dim;
        qkv.angles = s->angles;
        qkv.parts[0] = {qkv.parts[0].first_tile,
                        layer->q.rows,
                        layer->q.scale,
                        s->q,
                        layer->q.rows,
                        h->head_dim,
                        true};
        qkv.parts[1] = {qkv.parts[1].first_tile,
                        layer->k.rows,
                        layer->k.scale,
                        cache->keys + at,
                        cache->row,
                        head,
                        true};
        qkv.parts[2] = {qkv.parts[2].first_tile,
                        layer->v.rows,
                        layer->v.scale,
                        cache->values + at,
                        cache->row,
                        head,
                        false};
        return multiply(s, &qkv, h->hidden_size, m);
    }
    TRY(multiply(s, &qkv, h->hidden_size, m));
    return bnt_cuda_rope(s->q, s->k, s->v, s->angles, cache, bnt_cuda_session_heads(s), s->position,
                         m, s->stream);
}

static cudaError_t attention_block(struct bnt_cuda_session *s, uint32_t i, uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const struct bnt_cuda_layer *layer = &s->model->layers[i];
    struct bnt_cuda_heads heads = bnt_cuda_session_heads(s);
    struct bnt_cuda_cache cache = bnt_cuda_session_cache(s, i);
    struct bnt_cuda_quantized in = quantized(s, h->hidden_size);
    struct bnt_cuda_quantized att = quantized(s, bnt_q_size(h));
    struct bnt_cuda_product out = bnt_cuda_stack(&layer->o, s->x, true);
    TRY(bnt_cuda_norm_quantize(&in, s->x, layer->attn_norm, h->norm_eps, h->hidden_size, m,
                               s->stream));
    TRY(project(s, layer, &cache, m));
    TRY((bnt_cuda_attention_has_tiles(heads) ? bnt_cuda_attention_tiles : bnt_cuda_attention)(
        s->att, s->q, &cache, heads, s->position, m, s->stream));
    TRY(bnt_cuda_norm_quantize(&att, s->att, layer->attn_sub_norm, h->norm_eps, bnt_q_size(h), m,
                               s->stream));
    return multiply(s, &out, bnt_q_size(h), m);
}

static cudaError_t ffn_block(struct bnt_cuda_session *s, uint32_t i, uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const struct bnt_cuda_layer *layer = &s->model->layers[i];
    struct bnt_cuda_quantized in = quantized(s, h->hidden_size);
    struct bnt_cuda_quantized hidden = quantized(s, h->ffn_size);
    struct bnt_cuda_product gate_up = bnt_cuda_stack(&layer->gate, s->gate, false);
    bnt_cuda_add_part(&gate_up, &layer->up, s->up);
    gate_up.gated = m > 1;
    gate_up.activation = h->activation;
    struct bnt_cuda_product down = bnt_cuda_stack(&layer->down, s->x, true);
    TRY(bnt_cuda_norm_quantize(&in, s->x, layer->ffn_norm, h->norm_eps, h->hidden_size, m,
                               s->stream));
    TRY(multiply(s, &gate_up, h->hidden_size, m));
    if (gate_up.gated)
        TRY(bnt_cuda_norm_quantize(&hidden, s->gate, layer->ffn_sub_norm, h->norm_eps, h->ffn_size,
                                   m, s->stream));
    else
        TRY(bnt_cuda_activate_quantize(&hidden, s->gate, s->up, h->activation, layer->ffn_sub_norm,
                                       h->norm_eps, h->ffn_size, m, s->stream));
    return multiply(s, &down, h->ffn_size, m);
}

// A chunk of tokens through all layers; x is what comes out.
static cudaError_t forward(struct bnt_cuda_session *s, const uint32_t *tokens, uint32_t m)
{
    const struct bnt_cuda_model *model = s->model;
    TRY(cudaMemcpyAsync(s->tokens, tokens, m * sizeof tokens[0], cudaMemcpyHostToDevice,
                        s->stream));
    TRY(bnt_cuda_embed(s->x, model->embedding, model->wide, s->tokens, model->hyper.hidden_size, m,
                       s->stream));
    TRY(bnt_cuda_angles(s->angles, s->frequency, model->hyper.head_dim, s->position, m, s->stream));
    for (uint32_t i = 0; i < model->hyper.n_layers; i++) {
        TRY(attention_block(s, i, m));
        TRY(ffn_block(s, i, m));
    }
    return cudaSuccess;
}

// Logits of m <= BNT_CUDA_OUTPUT_BATCH tokens from t on, to the host unless logits is NULL.
static cudaError_t some_logits(struct bnt_cuda_session *s, uint32_t t, uint32_t m, float *logits)
{
    const struct bnt_cuda_model *model = s->model;
    const struct bnt_hyper *h = &model->hyper;
    TRY(bnt_cuda_norm(s->normed, s->x + (size_t)t * h->hidden_size, model->final_norm, h->norm_eps,
                      h->hidden_size, m, s->stream));
    TRY(bnt_cuda_output(s->logits, model->output, model->wide, s->normed, h->hidden_size,
                        h->vocab_size, m, s->stream));
    if (!logits)
        return cudaSuccess;
    TRY(cudaMemcpyAsync(logits, s->logits, (size_t)m * h->vocab_size * sizeof(float),
                        cudaMemcpyDeviceToHost, s->stream));
    return cudaStreamSynchronize(s->stream);
}

static cudaError_t chunk(struct bnt_cuda_session *s, const uint32_t *tokens, uint32_t m,
                         enum bnt_logits which, float *logits)
{
    const size_t vocab = s->model->hyper.vocab_size;
    TRY(forward(s, tokens, m));
    for (uint32_t t = 0; which == BNT_LOGITS_ALL && t < m; t += BNT_CUDA_OUTPUT_BATCH) {
        const uint32_t most = BNT_CUDA_OUTPUT_BATCH, n = m - t < most ? m - t : most;
        TRY(some_logits(s, t, n, logits + t * vocab));
    }
    if (which == BNT_LOGITS_LAST)
        TRY(some_logits(s, m - 1, 1, logits));
    return cudaSuccess;
}

enum bnt_status bnt_cuda_check_tokens(const struct bnt_cuda_session *s, const uint32_t *tokens,
                                      size_t count, struct bnt_error *err)
{
    return bnt_check_tokens(tokens, count, s->model->hyper.vocab_size, s->position, s->context,
                            err);
}

enum bnt_status bnt_cuda_evaluate(struct bnt_cuda_session *s, const uint32_t *tokens, size_t count,
                                  enum bnt_logits which, float *logits, struct bnt_error *err)
{
    enum bnt_status status = bnt_cuda_check_tokens(s, tokens, count, err);
    if (status != BNT_OK)
        return status;
    if (which == BNT_LOGITS_ALL && !logits)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "all logits need room in host memory");
    const size_t vocab = s->model->hyper.vocab_size;
    cudaError_t error = cudaSetDevice(s->model->device);
    for (size_t at = 0; at < count && error == cudaSuccess;) {
        uint32_t m = count - at < s->batch ? (uint32_t)(count - at) : s->batch;
        bool last = at + m == count;
        float *to = which == BNT_LOGITS_ALL ? logits + at * vocab : logits;
        error = chunk(s, tokens + at, m,
                      which == BNT_LOGITS_LAST && !last ? BNT_LOGITS_NONE : which, to);
        at += m;
        s->position += m;
    }
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(s->stream);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "evaluating tokens on the GPU");
    s->has_logits = which == BNT_LOGITS_LAST;
    return BNT_OK;
}
