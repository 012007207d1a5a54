// SPDX-License-Identifier: MIT
// The forward pass over a prompt, in chunks of tokens (bnt.md section 10).
#include "runtime/cuda/session.cuh"

#include "runtime/engine/check.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        cudaError_t try_error = (call);                                                            \
        if (try_error != cudaSuccess)                                                              \
            return try_error;                                                                      \
    } while (0)

void bnt_cuda_add_part(struct bnt_cuda_product *p, const struct bnt_cuda_matrix *m, float *out)
{
    struct bnt_cuda_part *part = &p->parts[p->n_parts++];
    part->first_tile = p->n_tiles;
    part->rows = m->rows;
    part->scale = m->scale;
    part->out = out;
    part->out_stride = m->rows;
    part->scales = m->scales;
    part->bias = m->bias;
    p->n_tiles += bnt_pad_rows(m->rows) / BNT_BLOCK_ROWS;
}

struct bnt_cuda_product bnt_cuda_stack(const struct bnt_cuda_matrix *m, float *out, bool add)
{
    struct bnt_cuda_product p = {};
    p.blocks = m->blocks;
    p.n_blocks = bnt_pad_cols(m->cols) / BNT_BLOCK_COLS;
    p.add = add;
    p.n_groups = m->n_groups;
    p.group_blocks = m->group_blocks;
    p.halves = m->halves;
    bnt_cuda_add_part(&p, m, out);
    return p;
}

static struct bnt_cuda_quantized quantized(const struct bnt_cuda_session *s, uint32_t cols)
{
    struct bnt_cuda_quantized x = s->quantized;
    x.stride = bnt_cuda_pad(cols, BNT_CUDA_CHUNK_COLS);
    return x;
}

static cudaError_t multiply(struct bnt_cuda_session *s, const struct bnt_cuda_product *p,
                            uint32_t cols, uint32_t m)
{
    const struct bnt_cuda_quantized x = quantized(s, cols);
    if (!bnt_cuda_is_plain(p, &x))
        return bnt_cuda_gemm_groups(p, &x, m, s->stream);
    return m == 1 ? bnt_cuda_gemv(p, &x, NULL, s->stream)
                  : bnt_cuda_gemm(p, &x, m, NULL, s->stream);
}

// --- the input of products ---

static bool have_norms(const struct bnt_cuda_session *s)
{
    return s->model->hyper.flags & BNT_HYPER_LINEAR_NORMS;
}

// Norms x (M, n), unless norm is NULL, and quantizes it; where each linear has a norm of its own,
// only the former. Returns in *in what these are to take.
static cudaError_t take_in(struct bnt_cuda_session *s, const float *x, const float *norm,
                           uint32_t n, uint32_t m, const float **in)
{
    const struct bnt_cuda_quantized to = quantized(s, n);
    const float eps = s->model->hyper.norm_eps;
    *in = x;
    if (!have_norms(s))
        return bnt_cuda_norm_quantize(&to, x, norm, eps, n, m, s->stream);
    if (!norm)
        return cudaSuccess;
    *in = s->h;
    return bnt_cuda_norm(s->h, x, norm, eps, n, m, s->stream);
}

// A matrix that lies beside the one before it, and where its rows go.
struct linear {
    const struct bnt_cuda_matrix *matrix;
    float *out;
};

// The products of an input that take_in has seen.
static cudaError_t multiply_all(struct bnt_cuda_session *s, const float *in,
                                const struct linear *linears, uint32_t count, bool add, uint32_t m)
{
    const uint32_t cols = linears[0].matrix->cols;
    const struct bnt_cuda_quantized to = quantized(s, cols);
    struct bnt_cuda_product stack = {};
    for (uint32_t i = 0; i < count; i++) {
        const struct linear *l = &linears[i];
        if (i == 0 || have_norms(s))
            stack = bnt_cuda_stack(l->matrix, l->out, add);
        else
            bnt_cuda_add_part(&stack, l->matrix, l->out);
        if (!have_norms(s))
            continue;
        TRY(bnt_cuda_norm_quantize(&to, in, l->matrix->norm, s->model->hyper.linear_norm_eps, cols,
                                   m, s->stream));
        TRY(multiply(s, &stack, cols, m));
    }
    return have_norms(s) ? cudaSuccess : multiply(s, &stack, cols, m);
}

// --- layers ---

// Whether queries and keys can be rotated as soon as their sums are there.
static bool are_heads_products(const struct bnt_cuda_session *s, uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const uint32_t other = BNT_HYPER_QK_NORMS | BNT_HYPER_QKV_BIAS | BNT_HYPER_LINEAR_NORMS;
    return m > 1 && h->scale_group == 0 && h->activation_bits == 8 && !(h->flags & other) &&
           bnt_cuda_gemm_takes_heads(h->head_dim);
}

static cudaError_t project_heads(struct bnt_cuda_session *s, const struct bnt_cuda_layer *layer,
                                 const struct bnt_cuda_cache *cache, uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const size_t at = (size_t)s->position * cache->row, head = (size_t)cache->context * cache->row;
    struct bnt_cuda_product qkv = bnt_cuda_stack(&layer->q, s->q, false);
    bnt_cuda_add_part(&qkv, &layer->k, cache->keys + at);
    bnt_cuda_add_part(&qkv, &layer->v, cache->values + at);
    qkv.head_dim = h->head_dim;
    qkv.angles = s->angles;
    qkv.parts[0].head_stride = h->head_dim;
    qkv.parts[0].rotate = qkv.parts[1].rotate = true;
    for (uint32_t i = 1; i < 3; i++) {
        qkv.parts[i].out_stride = cache->row;
        qkv.parts[i].head_stride = head;
    }
    return multiply(s, &qkv, h->hidden_size, m);
}

// Queries rotated, keys and values in the cache.
static cudaError_t project(struct bnt_cuda_session *s, const struct bnt_cuda_layer *layer,
                           const struct bnt_cuda_cache *cache, const float *in, uint32_t m)
{
    if (are_heads_products(s, m))
        return project_heads(s, layer, cache, m);
    const struct linear qkv[] = {{&layer->q, s->q}, {&layer->k, s->k}, {&layer->v, s->v}};
    const struct bnt_cuda_heads heads = bnt_cuda_session_heads(s);
    TRY(multiply_all(s, in, qkv, 3, false, m));
    if (layer->q_norm)
        TRY(bnt_cuda_norm_heads(s->q, s->k, layer->q_norm, layer->k_norm, s->model->hyper.norm_eps,
                                heads, m, s->stream));
    return bnt_cuda_rope(s->q, s->k, s->v, s->angles, cache, heads, s->position, m, s->stream);
}

static cudaError_t attention_block(struct bnt_cuda_session *s, uint32_t i, uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const struct bnt_cuda_layer *layer = &s->model->layers[i];
    struct bnt_cuda_heads heads = bnt_cuda_session_heads(s);
    struct bnt_cuda_cache cache = bnt_cuda_session_cache(s, i);
    const struct linear out = {&layer->o, s->x};
    const float *in;
    TRY(take_in(s, s->x, layer->attn_norm, h->hidden_size, m, &in));
    TRY(project(s, layer, &cache, in, m));
    TRY((bnt_cuda_attention_has_tiles(heads) ? bnt_cuda_attention_tiles : bnt_cuda_attention)(
        s->att, s->q, &cache, heads, s->position, m, s->stream));
    TRY(take_in(s, s->att, layer->attn_sub_norm, bnt_q_size(h), m, &in));
    return multiply_all(s, in, &out, 1, true, m);
}

// Whether gate and up can be multiplied so.
static bool is_gated(const struct bnt_cuda_session *s, const struct bnt_cuda_layer *layer,
                     uint32_t m)
{
    struct bnt_cuda_product p = bnt_cuda_stack(&layer->gate, NULL, false);
    bnt_cuda_add_part(&p, &layer->up, NULL);
    return bnt_cuda_is_plain(&p, &s->quantized) ? m > 1 : bnt_cuda_gemm_groups_gates(&p);
}

// Gate and up as one, their product alone coming out.
static cudaError_t multiply_gated(struct bnt_cuda_session *s, const struct bnt_cuda_layer *layer,
                                  uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    struct bnt_cuda_product p = bnt_cuda_stack(&layer->gate, s->gate, false);
    bnt_cuda_add_part(&p, &layer->up, s->up);
    p.gated = true;
    p.activation = h->activation;
    return multiply(s, &p, h->hidden_size, m);
}

static cudaError_t ffn_block(struct bnt_cuda_session *s, uint32_t i, uint32_t m)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const struct bnt_cuda_layer *layer = &s->model->layers[i];
    const struct bnt_cuda_quantized hidden = quantized(s, h->ffn_size);
    const struct linear gate_up[] = {{&layer->gate, s->gate}, {&layer->up, s->up}};
    const struct linear down = {&layer->down, s->x};
    const bool gated = !have_norms(s) && is_gated(s, layer, m);
    const float *in;
    TRY(take_in(s, s->x, layer->ffn_norm, h->hidden_size, m, &in));
    TRY(gated ? multiply_gated(s, layer, m) : multiply_all(s, in, gate_up, 2, false, m));
    if (gated)
        TRY(take_in(s, s->gate, layer->ffn_sub_norm, h->ffn_size, m, &in));
    else if (!have_norms(s))
        TRY(bnt_cuda_activate_quantize(&hidden, s->gate, s->up, h->activation, layer->ffn_sub_norm,
                                       h->norm_eps, h->ffn_size, m, s->stream));
    else {
        TRY(bnt_cuda_activate(s->gate, s->up, h->activation, (size_t)m * h->ffn_size, s->stream));
        TRY(take_in(s, s->gate, layer->ffn_sub_norm, h->ffn_size, m, &in));
    }
    return multiply_all(s, in, &down, 1, true, m);
}

static cudaError_t embed(struct bnt_cuda_session *s, uint32_t m)
{
    const struct bnt_cuda_model *model = s->model;
    if (!model->embedding_ternary.blocks)
        return bnt_cuda_embed(s->x, model->embedding, model->wide, s->tokens,
                              model->hyper.hidden_size, m, s->stream);
    const struct bnt_cuda_rows rows = bnt_cuda_rows_of(&model->embedding_ternary);
    return bnt_cuda_embed_ternary(s->x, &rows, s->tokens, m, s->stream);
}

// A chunk of tokens through all layers; x is what comes out.
static cudaError_t forward(struct bnt_cuda_session *s, const uint32_t *tokens, uint32_t m)
{
    const struct bnt_cuda_model *model = s->model;
    TRY(cudaMemcpyAsync(s->tokens, tokens, m * sizeof tokens[0], cudaMemcpyHostToDevice,
                        s->stream));
    TRY(embed(s, m));
    TRY(bnt_cuda_angles(s->angles, s->frequency, bnt_cuda_angle_factor(&model->hyper),
                        model->hyper.head_dim, s->position, m, s->stream));
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
    const float *x = s->x + (size_t)t * h->hidden_size;
    if (model->output_ternary.blocks) {
        const struct bnt_cuda_quantized in = quantized(s, h->hidden_size);
        const struct bnt_cuda_product p = bnt_cuda_stack(&model->output_ternary, s->logits, false);
        TRY(bnt_cuda_norm_quantize(&in, x, model->final_norm, h->norm_eps, h->hidden_size, m,
                                   s->stream));
        TRY(multiply(s, &p, h->hidden_size, m));
    } else {
        TRY(bnt_cuda_norm(s->normed, x, model->final_norm, h->norm_eps, h->hidden_size, m,
                          s->stream));
        TRY(bnt_cuda_output(s->logits, model->output, model->wide, s->normed, h->hidden_size,
                            h->vocab_size, m, s->stream));
    }
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
