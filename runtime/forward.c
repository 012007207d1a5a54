// SPDX-License-Identifier: MIT
// The layers (bnt.md section 10), for one token or many: each matrix product is one step of all
// threads, and so is what lies between two of them. Many tokens give the same bits as one by one.
#include <string.h>

#include "formats/bytes.h"
#include "runtime/session.h"
#include "runtime/sincos.h"

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
    struct bnt_share block_rows;
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
        float *out = p->out + t * p->out_stride + row;
        for (size_t r = 0; r < rows; r++)
            out[r] = (float)sum[t * ROWS_AT_ONCE + r] * factor;
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
    struct sweep *sweep = context;
    size_t from, to;
    for (bool more = bnt_share_first(&sweep->block_rows, part, parts, &from, &to); more;
         more = bnt_share_take(&sweep->block_rows, parts, &from, &to)) {
        size_t start = 0;
        for (size_t i = 0; i < sweep->n_products; i++) {
            part_of_product(sweep, &sweep->products[i], start, from, to);
            start += block_rows(sweep->products[i].matrix);
        }
    }
}

static size_t block_rows_of(const struct sweep *sweep)
{
    size_t total = 0;
    for (size_t i = 0; i < sweep->n_products; i++)
        total += block_rows(sweep->products[i].matrix);
    return total;
}

// Multiplies the quantized activations with all matrices of the sweep.
static void multiply(struct sweep *sweep)
{
    bnt_share_init(&sweep->block_rows, sweep->session->pool, block_rows_of(sweep), 2);
    bnt_pool_run(sweep->session->pool, part_of_sweep, sweep);
}

// One token leaves memory idle between two sweeps: n matrices, which lie side by side, come after
// the next.
static void look_ahead(const struct bnt_session *s, size_t tokens, const struct bnt_matrix *m,
                       size_t n)
{
    size_t units = 0;
    for (size_t i = 0; i < n; i++)
        units += block_rows(&m[i]);
    size_t bytes = units * bnt_pad_cols(m[0].cols) / BNT_BLOCK_COLS * BNT_BLOCK_BYTES;
    if (tokens == 1)
        bnt_pool_ahead(s->pool, m[0].blocks, bytes, units);
    else
        bnt_pool_ahead(s->pool, NULL, 0, 0);
}

// --- what lies between, token by token ---

struct token_step {
    struct bnt_session *session;
    uint32_t layer;
    void (*step)(struct bnt_session *session, uint32_t layer, size_t t);
    struct bnt_share tokens;
};

static void part_of_tokens(void *context, unsigned part, unsigned parts)
{
    struct token_step *job = context;
    size_t from, to;
    for (bool more = bnt_share_first(&job->tokens, part, parts, &from, &to); more;
         more = bnt_share_take(&job->tokens, parts, &from, &to)) {
        for (size_t t = from; t < to; t++)
            job->step(job->session, job->layer, t);
    }
}

// One token is not worth waking anybody for.
static void for_each_token(struct bnt_session *s, uint32_t layer, size_t n,
                           void (*step)(struct bnt_session *session, uint32_t layer, size_t t))
{
    struct token_step job = {.session = s, .layer = layer, .step = step};
    if (n == 1) {
        bnt_share_init_alone(&job.tokens, 1);
        part_of_tokens(&job, 0, 1);
        return;
    }
    bnt_share_init(&job.tokens, s->pool, n, 1);
    bnt_pool_run(s->pool, part_of_tokens, &job);
}

static void quantize(struct bnt_session *s, const float *x, size_t n, size_t t)
{
    s->x_scale[t] = s->model->kernels->quantize(s->x_q + t * s->x_q_stride, x, n,
                                                bnt_pad_cols((uint32_t)n), &s->x_sum[t]);
}

static void norm(const struct bnt_session *s, float *out, const float *x, const float *w, size_t n)
{
    s->model->kernels->rms_norm(out, x, w, n, s->model->hyper.norm_eps);
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void enter_attention(struct bnt_session *s, uint32_t layer, size_t t)
{
    const size_t hidden = s->model->hyper.hidden_size;
    float *x = s->x + t * hidden, *h = s->h + t * hidden;
    if (layer > 0)
        add(x, h, hidden); // what the layer before has computed
    norm(s, h, x, s->model->layers[layer].attn_norm, hidden);
    quantize(s, h, hidden, t);
}

static void leave_attention(struct bnt_session *s, uint32_t layer, size_t t)
{
    const struct bnt_layer *l = &s->model->layers[layer];
    const size_t q = bnt_q_size(&s->model->hyper);
    float *att = s->att + t * q;
    if (l->attn_sub_norm)
        norm(s, att, att, l->attn_sub_norm, q);
    quantize(s, att, q, t);
}

static void enter_ffn(struct bnt_session *s, uint32_t layer, size_t t)
{
    const size_t hidden = s->model->hyper.hidden_size;
    float *x = s->x + t * hidden, *h = s->h + t * hidden;
    add(x, h, hidden);
    norm(s, h, x, s->model->layers[layer].ffn_norm, hidden);
    quantize(s, h, hidden, t);
}

static void leave_ffn(struct bnt_session *s, uint32_t layer, size_t t)
{
    const struct bnt_layer *l = &s->model->layers[layer];
    const size_t ffn = s->model->hyper.ffn_size;
    float *gate = s->gate + t * ffn, *up = s->up + t * ffn;
    if (s->model->hyper.activation == BNT_ACTIVATION_RELU2)
        s->model->kernels->relu2(gate, up, ffn);
    else
        s->model->kernels->silu(gate, up, ffn);
    if (l->ffn_sub_norm)
        norm(s, gate, gate, l->ffn_sub_norm, ffn);
    quantize(s, gate, ffn, t);
}

static void leave_layers(struct bnt_session *s, uint32_t layer, size_t t)
{
    const size_t hidden = s->model->hyper.hidden_size;
    (void)layer;
    add(s->x + t * hidden, s->h + t * hidden, hidden);
}

// --- layers ---

static void attention_half(struct bnt_session *s, uint32_t i, size_t n)
{
    const struct bnt_layer *layer = &s->model->layers[i];
    const struct bnt_hyper *h = &s->model->hyper;
    const size_t q = bnt_q_size(h), kv = bnt_kv_size(h);
    for_each_token(s, i, n, enter_attention);
    struct sweep qkv = {
        .session = s,
        .n = n,
        .n_products = 3,
        .products = {{&layer->q, s->q, q}, {&layer->k, s->k, kv}, {&layer->v, s->v, kv}}};
    look_ahead(s, n, &layer->o, 1);
    multiply(&qkv);
    for_each_token(s, i, n, bnt_store_keys);
    bnt_attention(s, i, n);
    for_each_token(s, i, n, leave_attention);
    struct sweep out = {
        .session = s, .n = n, .n_products = 1, .products = {{&layer->o, s->h, h->hidden_size}}};
    look_ahead(s, n, &layer->gate, 2);
    multiply(&out);
}

static void ffn_half(struct bnt_session *s, uint32_t i, size_t n)
{
    const struct bnt_layer *layer = &s->model->layers[i];
    const size_t hidden = s->model->hyper.hidden_size, ffn = s->model->hyper.ffn_size;
    for_each_token(s, i, n, enter_ffn);
    struct sweep in = {.session = s,
                       .n = n,
                       .n_products = 2,
                       .products = {{&layer->gate, s->gate, ffn}, {&layer->up, s->up, ffn}}};
    look_ahead(s, n, &layer->down, 1);
    multiply(&in);
    for_each_token(s, i, n, leave_ffn);
    struct sweep out = {
        .session = s, .n = n, .n_products = 1, .products = {{&layer->down, s->h, hidden}}};
    if (i + 1 < s->model->hyper.n_layers)
        look_ahead(s, n, &layer[1].q, 3);
    else
        bnt_look_ahead_to_output(s);
    multiply(&out);
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
            bnt_sincos(angle, &s->sine[t * half + i], &s->cosine[t * half + i]);
        }
    }
}

void bnt_forward(struct bnt_session *s, const uint32_t *tokens, size_t n)
{
    embed(s, tokens, n);
    fill_angles(s, n);
    for (uint32_t i = 0; i < s->model->hyper.n_layers; i++) {
        attention_half(s, i, n);
        ffn_half(s, i, n);
    }
    for_each_token(s, 0, n, leave_layers);
}
