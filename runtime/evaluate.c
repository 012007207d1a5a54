// SPDX-License-Identifier: MIT
// The forward pass (bnt.md section 10): tokens in, logits out.
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "formats/bytes.h"
#include "runtime/session.h"

// --- products ---

// One matrix of a sweep: several matrices with the same input are taken as one, as they lie side by
// side in the file.
struct product {
    const struct bnt_matrix *matrix;
    float *out; // (n, out_stride), the first rows of which are written
    size_t out_stride;
};

struct sweep {
    struct bnt_session *session;
    struct product products[3];
    size_t n_products;
    size_t n; // tokens
};

enum { BLOCK_ROWS_AT_ONCE = 4, ROWS_AT_ONCE = BLOCK_ROWS_AT_ONCE * BNT_BLOCK_ROWS };

static size_t block_rows(const struct bnt_matrix *m)
{
    return bnt_pad_rows(m->rows) / BNT_BLOCK_ROWS;
}

// Block rows first … first + count − 1, at most BLOCK_ROWS_AT_ONCE: integers, then y = sum · γ / s.
static void some_block_rows(const struct sweep *sweep, const struct product *p, size_t first,
                            size_t count)
{
    const struct bnt_session *s = sweep->session;
    const struct bnt_matrix *m = p->matrix;
    int32_t sum[BNT_MAX_BATCH * ROWS_AT_ONCE];
    size_t n_blocks = bnt_pad_cols(m->cols) / BNT_BLOCK_COLS;
    const uint32_t *blocks = m->blocks + first * n_blocks * BNT_BLOCK_WORDS;
    s->model->kernels->ternary(sum, ROWS_AT_ONCE, blocks, count, n_blocks, s->x_q, s->x_q_stride,
                               s->x_sum, sweep->n);
    size_t row = first * BNT_BLOCK_ROWS;
    size_t rows = m->rows - row < count * BNT_BLOCK_ROWS
                      ? m->rows - row
                      : count * BNT_BLOCK_ROWS; // not the padding
    for (size_t t = 0; t < sweep->n; t++) {
        float factor = m->scale / s->x_scale[t];
        for (size_t r = 0; r < rows; r++)
            p->out[t * p->out_stride + row + r] = (float)sum[t * ROWS_AT_ONCE + r] * factor;
    }
}

// The part of [from, to) that lies in the matrix at [start, start + its block rows).
static void part_of_product(const struct sweep *sweep, const struct product *p, size_t start,
                            size_t from, size_t to)
{
    size_t end = start + block_rows(p->matrix);
    size_t at = from > start ? from : start;
    to = to < end ? to : end;
    while (at < to) {
        size_t count = to - at < BLOCK_ROWS_AT_ONCE ? to - at : BLOCK_ROWS_AT_ONCE;
        some_block_rows(sweep, p, at - start, count);
        at += count;
    }
}

static void part_of_sweep(void *context, unsigned part, unsigned parts)
{
    const struct sweep *sweep = context;
    size_t total = 0, start = 0;
    for (size_t i = 0; i < sweep->n_products; i++)
        total += block_rows(sweep->products[i].matrix);
    size_t from = total * part / parts, to = total * (part + 1) / parts;
    for (size_t i = 0; i < sweep->n_products; i++) {
        part_of_product(sweep, &sweep->products[i], start, from, to);
        start += block_rows(sweep->products[i].matrix);
    }
}

// Quantizes the input (n, cols) once and multiplies it with all matrices of the sweep.
static void multiply(struct sweep *sweep, const float *input)
{
    struct bnt_session *s = sweep->session;
    size_t cols = sweep->products[0].matrix->cols;
    for (size_t t = 0; t < sweep->n; t++)
        s->x_scale[t] =
            s->model->kernels->quantize(s->x_q + t * s->x_q_stride, input + t * cols, cols,
                                        bnt_pad_cols((uint32_t)cols), &s->x_sum[t]);
    bnt_pool_run(s->pool, part_of_sweep, sweep);
}

// --- the steps between ---

// out = w · x / sqrt(mean(x²) + eps); out may be x.
static void rms_norm(const struct bnt_session *s, float *out, const float *x, const float *w,
                     size_t n)
{
    float mean = s->model->kernels->dot(x, x, n) / (float)n;
    float factor = 1.0f / sqrtf(mean + s->model->hyper.norm_eps);
    for (size_t i = 0; i < n; i++)
        out[i] = w[i] * (x[i] * factor);
}

static void norm_rows(const struct bnt_session *s, float *out, const float *x, const float *w,
                      size_t size, size_t n)
{
    for (size_t t = 0; t < n; t++)
        rms_norm(s, out + t * size, x + t * size, w, size);
}

static void add_rows(float *x, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] += y[i];
}

static void embed(struct bnt_session *s, const uint32_t *tokens, size_t n)
{
    const struct bnt_model *m = s->model;
    const size_t hidden = m->hyper.hidden_size;
    for (size_t t = 0; t < n; t++) {
        float *x = s->x + t * hidden;
        size_t at = (size_t)tokens[t] * hidden;
        if (m->wide) {
            memcpy(x, (const float *)m->embedding + at, hidden * sizeof *x);
            continue;
        }
        for (size_t i = 0; i < hidden; i++)
            x[i] = bnt_float_from_bf16(((const uint16_t *)m->embedding)[at + i]);
    }
}

static void fill_angles(struct bnt_session *s, size_t n)
{
    size_t half = s->model->hyper.head_dim / 2;
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < half; i++) {
            float angle = (float)(s->position + t) * s->frequency[i];
            s->cosine[t * half + i] = cosf(angle);
            s->sine[t * half + i] = sinf(angle);
        }
    }
}

static void attention_block(struct bnt_session *s, uint32_t i, size_t n)
{
    const struct bnt_layer *layer = &s->model->layers[i];
    const struct bnt_hyper *h = &s->model->hyper;
    const size_t hidden = h->hidden_size, q = bnt_q_size(h), kv = bnt_kv_size(h);
    float *keys = s->keys + ((size_t)i * s->context + s->position) *
                                kv; // new rows go straight into the cache
    float *values = s->values + ((size_t)i * s->context + s->position) * kv;
    norm_rows(s, s->h, s->x, layer->attn_norm, hidden, n);
    struct sweep qkv = {
        .session = s,
        .n = n,
        .n_products = 3,
        .products = {{&layer->q, s->q, q}, {&layer->k, keys, kv}, {&layer->v, values, kv}}};
    multiply(&qkv, s->h);
    for (size_t t = 0; t < n; t++) {
        bnt_rotate(s, s->q + t * q, h->n_heads, t);
        bnt_rotate(s, keys + t * kv, h->n_kv_heads, t);
    }
    bnt_attention(s, i, n);
    if (layer->attn_sub_norm)
        norm_rows(s, s->att, s->att, layer->attn_sub_norm, q, n);
    struct sweep out = {
        .session = s, .n = n, .n_products = 1, .products = {{&layer->o, s->h, hidden}}};
    multiply(&out, s->att);
    add_rows(s->x, s->h, n * hidden);
}

static void activate(float *gate, const float *up, size_t count, uint32_t activation)
{
    if (activation == BNT_ACTIVATION_RELU2) {
        for (size_t i = 0; i < count; i++) {
            float v = gate[i] > 0 ? gate[i] : 0;
            gate[i] = v * v * up[i];
        }
        return;
    }
    for (size_t i = 0; i < count; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void ffn_block(struct bnt_session *s, uint32_t i, size_t n)
{
    const struct bnt_layer *layer = &s->model->layers[i];
    const size_t hidden = s->model->hyper.hidden_size, ffn = s->model->hyper.ffn_size;
    norm_rows(s, s->h, s->x, layer->ffn_norm, hidden, n);
    struct sweep in = {.session = s,
                       .n = n,
                       .n_products = 2,
                       .products = {{&layer->gate, s->gate, ffn}, {&layer->up, s->up, ffn}}};
    multiply(&in, s->h);
    activate(s->gate, s->up, n * ffn, s->model->hyper.activation);
    if (layer->ffn_sub_norm)
        norm_rows(s, s->gate, s->gate, layer->ffn_sub_norm, ffn, n);
    struct sweep out = {
        .session = s, .n = n, .n_products = 1, .products = {{&layer->down, s->h, hidden}}};
    multiply(&out, s->gate);
    add_rows(s->x, s->h, n * hidden);
}

// --- logits ---

struct output_job {
    const struct bnt_session *session;
    const float *x; // (hidden) normed
    float *logits;  // (vocab)
};

static void part_of_output(void *context, unsigned part, unsigned parts)
{
    const struct output_job *job = context;
    const struct bnt_model *m = job->session->model;
    size_t hidden = m->hyper.hidden_size, vocab = m->hyper.vocab_size;
    for (size_t r = vocab * part / parts; r < vocab * (part + 1) / parts; r++)
        job->logits[r] =
            m->wide
                ? m->kernels->dot((const float *)m->output + r * hidden, job->x, hidden)
                : m->kernels->dot_bf16((const uint16_t *)m->output + r * hidden, job->x, hidden);
}

static void compute_logits(struct bnt_session *s, size_t t, float *logits)
{
    size_t hidden = s->model->hyper.hidden_size;
    rms_norm(s, s->h, s->x + t * hidden, s->model->final_norm, hidden);
    struct output_job job = {.session = s, .x = s->h, .logits = logits};
    bnt_pool_run(s->pool, part_of_output, &job);
}

// Up to BNT_MAX_BATCH tokens through all layers; x is what comes out.
static void forward(struct bnt_session *s, const uint32_t *tokens, size_t n)
{
    embed(s, tokens, n);
    fill_angles(s, n);
    for (uint32_t i = 0; i < s->model->hyper.n_layers; i++) {
        attention_block(s, i, n);
        ffn_block(s, i, n);
    }
}

static enum bnt_status check_tokens(const struct bnt_session *s, const uint32_t *tokens,
                                    size_t count, struct bnt_error *err)
{
    if (count == 0)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "no tokens to evaluate");
    if (count > s->context - s->position)
        return bnt_fail(err, BNT_ERR_CONTEXT,
                        "%zu tokens do not fit in the context: %" PRIu32 " of %" PRIu32 " are used",
                        count, s->position, s->context);
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] >= s->model->hyper.vocab_size)
            return bnt_fail(err, BNT_ERR_ARGUMENT,
                            "token %" PRIu32 " is not below the vocabulary's size %" PRIu32,
                            tokens[i], s->model->hyper.vocab_size);
    }
    return BNT_OK;
}

enum bnt_status bnt_evaluate(struct bnt_session *s, const uint32_t *tokens, size_t count,
                             enum bnt_logits which, float *logits, struct bnt_error *err)
{
    enum bnt_status status = check_tokens(s, tokens, count, err);
    if (status != BNT_OK)
        return status;
    const size_t vocab = s->model->hyper.vocab_size;
    for (size_t at = 0; at < count;) {
        size_t n = count - at < BNT_MAX_BATCH ? count - at : BNT_MAX_BATCH;
        forward(s, tokens + at, n);
        for (size_t t = 0; t < n && which == BNT_LOGITS_ALL; t++)
            compute_logits(s, t, logits + (at + t) * vocab);
        at += n;
        if (at == count && which == BNT_LOGITS_LAST)
            compute_logits(s, n - 1, logits);
        s->position += (uint32_t)n;
    }
    return BNT_OK;
}
