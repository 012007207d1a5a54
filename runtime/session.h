// SPDX-License-Identifier: MIT
// A session's memory. Shapes are in elements; BATCH = BNT_MAX_BATCH tokens are worked on at once.
#ifndef BNT_RUNTIME_SESSION_H
#define BNT_RUNTIME_SESSION_H

#include "runtime/model.h"
#include "runtime/pool.h"

struct bnt_candidate {
    float logit;
    uint32_t id;
};

struct bnt_session {
    const struct bnt_model *model;
    struct bnt_pool *pool;
    uint32_t context;
    uint32_t position;

    float *keys;   // (n_layers, context, n_kv_heads * head_dim)
    float *values; // (n_layers, context, n_kv_heads * head_dim)

    float *x;      // (BATCH, hidden) the residual stream
    float *h;      // (BATCH, hidden) normed, and what is added to x
    float *q;      // (BATCH, n_heads * head_dim)
    float *att;    // (BATCH, n_heads * head_dim)
    float *gate;   // (BATCH, ffn)
    float *up;     // (BATCH, ffn)
    float *scores; // (threads, context)

    int8_t *x_q;       // (BATCH, x_q_stride) quantized activations
    size_t x_q_stride; // the widest K'
    float x_scale[BNT_MAX_BATCH];
    int32_t x_sum[BNT_MAX_BATCH];

    float *frequency;     // (head_dim / 2) of the rotary embedding
    float *cosine, *sine; // (BATCH, head_dim / 2) at the batch's positions

    float *logits;                    // (vocab) for generation
    struct bnt_candidate *candidates; // (vocab) for sampling
};

// Attention of one layer for n tokens, the first at session->position: reads q and the caches,
// writes att. (attention.c)
void bnt_attention(struct bnt_session *session, uint32_t layer, size_t n);

// Rotates heads vectors of head_dim in place by batch token t's angles. (attention.c)
void bnt_rotate(const struct bnt_session *session, float *vectors, uint32_t heads, size_t t);

#endif
