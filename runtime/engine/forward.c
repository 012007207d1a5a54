// SPDX-License-Identifier: MIT
// The layers (bnt.md section 10), for one token or many: each matrix product is one step of all
// threads, and so is what lies between two of them. Many tokens give the same bits as one by one.
#include <string.h>

#include "formats/block.h"
#include "formats/bytes.h"
#include "runtime/engine/product.h"
#include "runtime/kernels/sincos.h"

// One token leaves memory idle between two sweeps: n matrices, which lie side by side, come after
// the next.
static void look_ahead(const struct bnt_session *s, size_t tokens, const struct bnt_matrix *m,
                       size_t n)
{
    size_t units = 0;
    for (size_t i = 0; i < n; i++)
        units += bnt_block_rows(&m[i]);
    size_t bytes = units * bnt_pad_cols(m[0].cols) / BNT_BLOCK_COLS * BNT_BLOCK_BYTES;
    if (tokens == 1)
        bnt_pool_ahead(s->pool, m[0].blocks, bytes, units);
    else
        bnt_pool_ahead(s->pool, NULL, 0, 0);
}

// --- what lies between, token by token ---

struct layer_step {
    uint32_t layer;
    void (*step)(struct bnt_session *session, uint32_t layer, size_t t);
};

static void step_in_layer(struct bnt_session *s, void *context, size_t t)
{
    const struct layer_step *step = context;
    step->step(s, step->layer, t);
}

static void for_each_token(struct bnt_session *s, uint32_t layer, size_t n,
                           void (*step)(struct bnt_session *session, uint32_t layer, size_t t))
{
    struct layer_step in_layer = {.layer = layer, .step = step};
    bnt_for_each_token(s, &in_layer, n, step_in_layer);
}

// The input of the next products, unless each of them norms it for itself.
static void quantize(struct bnt_session *s, const float *x, size_t n, size_t t)
{
    if (!(s->model->hyper.flags & BNT_HYPER_LINEAR_NORMS))
        bnt_quantize(s, x, n, t);
}

static void multiply(struct bnt_session *s, const struct bnt_product *products, size_t count,
                     const float *x, size_t width, size_t n)
{
    if (s->model->hyper.flags & BNT_HYPER_LINEAR_NORMS)
        bnt_multiply_normed(s, products, count, x, width, n);
    else
        bnt_multiply(s, products, count, n);
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
    const struct bnt_product qkv[] = {
        {&layer->q, s->q, q}, {&layer->k, s->k, kv}, {&layer->v, s->v, kv}};
    look_ahead(s, n, &layer->o, 1);
    multiply(s, qkv, 3, s->h, h->hidden_size, n);
    for_each_token(s, i, n, bnt_store_keys);
    bnt_attention(s, i, n);
    for_each_token(s, i, n, leave_attention);
    const struct bnt_product out = {&layer->o, s->h, h->hidden_size};
    look_ahead(s, n, &layer->gate, 2);
    multiply(s, &out, 1, s->att, q, n);
}

static void ffn_half(struct bnt_session *s, uint32_t i, size_t n)
{
    const struct bnt_layer *layer = &s->model->layers[i];
    const size_t hidden = s->model->hyper.hidden_size, ffn = s->model->hyper.ffn_size;
    for_each_token(s, i, n, enter_ffn);
    const struct bnt_product in[] = {{&layer->gate, s->gate, ffn}, {&layer->up, s->up, ffn}};
    look_ahead(s, n, &layer->down, 1);
    multiply(s, in, 2, s->h, hidden, n);
    for_each_token(s, i, n, leave_ffn);
    const struct bnt_product out = {&layer->down, s->h, hidden};
    if (i + 1 < s->model->hyper.n_layers)
        look_ahead(s, n, &layer[1].q, 3);
    else
        bnt_look_ahead_to_output(s);
    multiply(s, &out, 1, s->gate, ffn, n);
}

// A row of a ternary embedding.
static void embed_ternary(const struct bnt_model *m, uint32_t token, float *x)
{
    const struct bnt_matrix *e = &m->embedding_ternary;
    for (uint32_t k = 0; k < e->cols; k++)
        x[k] =
            (float)bnt_block_weight(e->blocks, e->cols, token, k) *
            bnt_matrix_scale(
                e, token, e->scales.n_groups > 1 ? k / BNT_BLOCK_COLS / e->scales.group_blocks : 0);
}

static void embed(struct bnt_session *s, const uint32_t *tokens, size_t n)
{
    const struct bnt_model *m = s->model;
    const size_t hidden = m->hyper.hidden_size;
    for (size_t t = 0; t < n; t++) {
        float *x = s->x + t * hidden;
        size_t at = (size_t)tokens[t] * hidden;
        if (m->embedding_ternary.blocks) {
            embed_ternary(m, tokens[t], x);
            continue;
        }
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
            if (s->model->hyper.rope_scaling == BNT_ROPE_YARN) {
                s->sine[t * half + i] *= s->model->hyper.rope_attention_factor;
                s->cosine[t * half + i] *= s->model->hyper.rope_attention_factor;
            }
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
