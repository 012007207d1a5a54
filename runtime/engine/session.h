// SPDX-License-Identifier: MIT
// A session's memory. Shapes are in elements; BATCH = BNT_MAX_BATCH / parts tokens are worked on at
// once.
#ifndef BNT_RUNTIME_SESSION_H
#define BNT_RUNTIME_SESSION_H

#include "runtime/engine/history.h"
#include "runtime/engine/model.h"
#include "runtime/engine/pool.h"

struct bnt_candidate {
    float logit;
    uint32_t id;
};

// Tokens of a prompt that attention takes at once for one key head, and the longest list of
// likeliest tokens that the int8 scores may narrow down.
enum { BNT_ATTENTION_TOKENS = 4, BNT_SHORTLIST_MAX = 1024 };

struct bnt_session {
    const struct bnt_model *model;
    struct bnt_cuda_session *cuda; // or NULL: then nothing below but position, context, note,
                                   // history and candidates is used
    struct bnt_pool *pool;
    struct bnt_error note; // why AUTO is not CUDA
    uint32_t context;
    uint32_t position;
    bool full_output;
    struct bnt_history history;
    uint32_t groups; // of BNT_KEY_GROUP positions, context rounded up

    enum bnt_cache cache; // halves (uint16_t) or floats
    void *keys;           // (n_layers, n_kv_heads, groups, head_dim, BNT_KEY_GROUP)
    void *values;         // (n_layers, n_kv_heads, context, head_dim)

    float *x;          // (BATCH, hidden) the residual stream
    float *h;          // (BATCH, hidden) normed, and what is added to x
    float *q;          // (BATCH, n_heads * head_dim)
    float *k;          // (BATCH, n_kv_heads * head_dim) before it goes into the cache
    float *v;          // (BATCH, n_kv_heads * head_dim)
    float *att;        // (BATCH, n_heads * head_dim)
    float *gate;       // (BATCH, ffn)
    float *up;         // (BATCH, ffn)
    float *scores;     // (rows that are worked on at once, groups * BNT_KEY_GROUP)
    size_t parts;      // rows of x_q that a token's activations have: 1, or upper and lower bytes
    int8_t *x_q;       // (BATCH · parts, x_q_stride) quantized activations
    size_t x_q_stride; // the widest K', and an odd number of cache lines
    float x_scale[BNT_MAX_BATCH];
    int32_t *x_sum;       // (BATCH · parts, groups of the present input or 1)
    float *normed;        // (BATCH, normed_stride) what the norm before a linear gives, or NULL
    size_t normed_stride; // the widest input

    float *frequency;     // (head_dim / 2) of the rotary embedding
    float *cosine, *sine; // (BATCH, head_dim / 2) at the batch's positions

    float *last;                      // (hidden) what the output layer takes for the next token
    float *logits;                    // (vocab) for generation
    struct bnt_candidate *candidates; // (vocab) for sampling
    int16_t *x_16;                    // (hidden) last in 16 bits, for the int8 copy
    float *best_bounds;               // (threads, BNT_SHORTLIST_MAX)
};

#define BNT_VECTORS_ON_CPU "vectors of texts are computed on the CPU alone"

// Tokens that bnt_forward takes at most.
static inline size_t bnt_session_batch(const struct bnt_session *session)
{
    return BNT_MAX_BATCH / session->parts;
}

// Feeds up to BATCH tokens that fit, all of them valid: x is what comes out of the layers.
// (forward.c)
void bnt_forward(struct bnt_session *session, const uint32_t *tokens, size_t n);

// Attention of one layer for n tokens, the first at session->position: reads q and the caches,
// writes att. (attention.c)
void bnt_attention(struct bnt_session *session, uint32_t layer, size_t n);

// Rotates k of batch token t, and puts k and v into the caches; rotates q. (attention.c)
void bnt_store_keys(struct bnt_session *session, uint32_t layer, size_t t);

// --- the output layer (output.c) ---

// The output layer comes after the next step of the pool: see bnt_pool_ahead.
void bnt_look_ahead_to_output(const struct bnt_session *session);

// logits (n, vocab) of the first n batch tokens.
void bnt_all_logits(struct bnt_session *session, size_t n, float *logits);

// Keeps what the output layer needs of batch token t in session->last.
void bnt_keep_last(struct bnt_session *session, size_t t);

// logits (vocab) of session->last.
void bnt_last_logits(struct bnt_session *session, float *logits);

// The tokens that can be among the k likeliest of session->last, with their exact logits, by id:
// the first of session->candidates. Returns how many; 0 if the model has no int8 copy or it does
// not help. k <= BNT_SHORTLIST_MAX. (shortlist.c)
size_t bnt_shortlist(struct bnt_session *session, size_t k);

// The next token after session->last. (sample.c)
uint32_t bnt_next_token(struct bnt_session *session, const struct bnt_sampling *sampling,
                        uint64_t *state);

// --- the steps of generation, on either device (evaluate.c) ---

// Feeds the prompt and chooses what follows.
enum bnt_status bnt_first_step(struct bnt_session *session, const uint32_t *prompt, size_t count,
                               const struct bnt_sampling *sampling, uint64_t *state, uint32_t *next,
                               struct bnt_error *err);

// Feeds one token, for which there is room, and chooses what follows.
enum bnt_status bnt_next_step(struct bnt_session *session, uint32_t token,
                              const struct bnt_sampling *sampling, uint64_t *state, uint32_t *next,
                              struct bnt_error *err);

#endif
