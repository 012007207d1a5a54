// SPDX-License-Identifier: MIT
// softmax(q·kᵀ / sqrt(head_dim)) v over the cache (bnt.md section 10). The query heads that share a
// key head are taken together, so that its keys and values are read once for them.
#include <math.h>
#include <string.h>

#include "runtime/engine/session.h"

// --- into the cache ---

// Rotates heads vectors of head_dim in place by batch token t's angles.
static void rotate(const struct bnt_session *s, float *vectors, uint32_t heads, size_t t)
{
    uint32_t half = s->model->hyper.head_dim / 2;
    const float *cosine = s->cosine + t * half;
    const float *sine = s->sine + t * half;
    for (uint32_t j = 0; j < heads; j++, vectors += 2 * half) {
        for (uint32_t i = 0; i < half; i++) {
            float a = vectors[i], b = vectors[half + i];
            vectors[i] = a * cosine[i] - b * sine[i];
            vectors[half + i] = b * cosine[i] + a * sine[i];
        }
    }
}

// Elements before a key head's keys; before its values.
static size_t keys_at(const struct bnt_session *s, uint32_t layer, size_t head)
{
    const struct bnt_hyper *h = &s->model->hyper;
    size_t size = (size_t)s->groups * h->head_dim * BNT_KEY_GROUP;
    return ((size_t)layer * h->n_kv_heads + head) * size;
}

static size_t values_at(const struct bnt_session *s, uint32_t layer, size_t head)
{
    const struct bnt_hyper *h = &s->model->hyper;
    return ((size_t)layer * h->n_kv_heads + head) * s->context * h->head_dim;
}

// keys: column position % 16 of a group; value: a row.
static void store_f16(const struct bnt_session *s, uint16_t *keys, uint16_t *value, const float *k,
                      const float *v)
{
    const size_t dim = s->model->hyper.head_dim;
    s->model->kernels->to_half(value, k, dim); // passes through the place of the value
    for (size_t d = 0; d < dim; d++)
        keys[d * BNT_KEY_GROUP] = value[d];
    s->model->kernels->to_half(value, v, dim);
}

static void store_f32(const struct bnt_session *s, float *keys, float *value, const float *k,
                      const float *v)
{
    const size_t dim = s->model->hyper.head_dim;
    for (size_t d = 0; d < dim; d++)
        keys[d * BNT_KEY_GROUP] = k[d];
    memcpy(value, v, dim * sizeof *value);
}

static void norm_heads(const struct bnt_session *s, float *vectors, uint32_t heads, const float *w)
{
    const size_t dim = s->model->hyper.head_dim;
    for (uint32_t j = 0; w && j < heads; j++, vectors += dim)
        s->model->kernels->rms_norm(vectors, vectors, w, dim, s->model->hyper.norm_eps);
}

void bnt_store_keys(struct bnt_session *s, uint32_t layer, size_t t)
{
    const struct bnt_hyper *h = &s->model->hyper;
    const size_t dim = h->head_dim, kv = bnt_kv_size(h), position = s->position + t;
    norm_heads(s, s->q + t * bnt_q_size(h), h->n_heads, s->model->layers[layer].q_norm);
    norm_heads(s, s->k + t * kv, h->n_kv_heads, s->model->layers[layer].k_norm);
    rotate(s, s->q + t * bnt_q_size(h), h->n_heads, t);
    rotate(s, s->k + t * kv, h->n_kv_heads, t);
    for (size_t head = 0; head < h->n_kv_heads; head++) {
        const float *k = s->k + t * kv + head * dim, *v = s->v + t * kv + head * dim;
        size_t key = keys_at(s, layer, head) + position / BNT_KEY_GROUP * dim * BNT_KEY_GROUP +
                     position % BNT_KEY_GROUP;
        size_t value = values_at(s, layer, head) + position * dim;
        if (s->cache == BNT_CACHE_F32)
            store_f32(s, (float *)s->keys + key, (float *)s->values + value, k, v);
        else
            store_f16(s, (uint16_t *)s->keys + key, (uint16_t *)s->values + value, k, v);
    }
}

// --- out of it ---

struct attention_job {
    struct bnt_session *session;
    uint32_t layer;
    size_t n;     // tokens
    size_t group; // query heads a key head
    size_t count; // positions that the first token sees, its own included
    size_t width; // of a row of scores
    struct bnt_share units;
};

static size_t groups_of(size_t positions)
{
    return (positions + BNT_KEY_GROUP - 1) / BNT_KEY_GROUP;
}

static const float *queries_of(const struct attention_job *job, size_t t, size_t head)
{
    const struct bnt_hyper *h = &job->session->model->hyper;
    return job->session->q + t * bnt_q_size(h) + head * job->group * h->head_dim;
}

static float *out_of(const struct attention_job *job, size_t t, size_t head)
{
    const struct bnt_hyper *h = &job->session->model->hyper;
    return job->session->att + t * bnt_q_size(h) + head * job->group * h->head_dim;
}

// Scores of some key groups for one token's queries of a key head.
static void score(const struct attention_job *job, size_t t, size_t head, size_t first,
                  size_t groups, float *rows)
{
    const struct bnt_session *s = job->session;
    const struct bnt_kernels *kernels = s->model->kernels;
    const size_t dim = s->model->hyper.head_dim;
    const size_t at = keys_at(s, job->layer, head) + first * dim * BNT_KEY_GROUP;
    const float scale = 1.0f / sqrtf((float)dim), *q = queries_of(job, t, head);
    float *out = rows + first * BNT_KEY_GROUP;
    if (s->cache == BNT_CACHE_F32)
        kernels->scores_f32(out, job->width, q, dim, job->group, (const float *)s->keys + at,
                            groups, dim, scale);
    else
        kernels->scores(out, job->width, q, dim, job->group, (const uint16_t *)s->keys + at, groups,
                        dim, scale);
}

// Columns from … from + width − 1 of the sum of values for one token's queries of a key head.
static void mix(const struct attention_job *job, size_t t, size_t head, size_t from, size_t width,
                const float *rows)
{
    const struct bnt_session *s = job->session;
    const struct bnt_kernels *kernels = s->model->kernels;
    const size_t dim = s->model->hyper.head_dim, at = values_at(s, job->layer, head) + from;
    float *out = out_of(job, t, head) + from;
    if (s->cache == BNT_CACHE_F32)
        kernels->mix_f32(out, dim, rows, job->width, job->group, (const float *)s->values + at, dim,
                         job->count + t, width);
    else
        kernels->mix(out, dim, rows, job->width, job->group, (const uint16_t *)s->values + at, dim,
                     job->count + t, width);
}

// --- many tokens: a unit is a key head and a few tokens ---

// Keys in the outer loop, so that they come from the nearest cache for all tokens but the first.
static void some_tokens(const struct attention_job *job, size_t head, size_t first, size_t n,
                        float *rows)
{
    enum { GROUPS_AT_ONCE = 8 };
    const size_t group = job->group, last = groups_of(job->count + first + n - 1);
    for (size_t g = 0; g < last; g += GROUPS_AT_ONCE) {
        for (size_t t = 0; t < n; t++) {
            size_t seen = groups_of(job->count + first + t);
            size_t end = g + GROUPS_AT_ONCE < seen ? g + GROUPS_AT_ONCE : seen;
            if (end > g)
                score(job, first + t, head, g, end - g, rows + t * group * job->width);
        }
    }
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < group; i++)
            job->session->model->kernels->softmax(rows + (t * group + i) * job->width,
                                                  job->count + first + t);
    }
    for (size_t t = 0; t < n; t++)
        mix(job, first + t, head, 0, job->session->model->hyper.head_dim,
            rows + t * group * job->width);
}

static void part_of_prompt(void *context, unsigned part, unsigned parts)
{
    struct attention_job *job = context;
    const struct bnt_session *s = job->session;
    const size_t heads = s->model->hyper.n_kv_heads;
    float *rows = s->scores + part * BNT_ATTENTION_TOKENS * job->group * job->width;
    size_t from, to;
    for (bool more = bnt_share_first(&job->units, part, parts, &from, &to); more;
         more = bnt_share_take(&job->units, parts, &from, &to)) {
        for (size_t i = from; i < to; i++) {
            size_t first = i / heads * BNT_ATTENTION_TOKENS;
            size_t n = job->n - first < BNT_ATTENTION_TOKENS ? job->n - first
                                                             : (size_t)BNT_ATTENTION_TOKENS;
            some_tokens(job, i % heads, first, n, rows);
        }
    }
}

// --- one token: all threads on the scores, then on softmax, then on the sums ---

enum { UNIT_GROUPS = 8, UNIT_COLUMNS = 64 };

static float *rows_of(const struct attention_job *job, size_t head)
{
    return job->session->scores + head * job->group * job->width;
}

static void part_of_scores(void *context, unsigned part, unsigned parts)
{
    struct attention_job *job = context;
    const size_t groups = groups_of(job->count), heads = job->session->model->hyper.n_kv_heads;
    size_t from, to;
    for (bool more = bnt_share_first(&job->units, part, parts, &from, &to); more;
         more = bnt_share_take(&job->units, parts, &from, &to)) {
        for (size_t i = from; i < to; i++) {
            size_t head = i % heads, first = i / heads * UNIT_GROUPS;
            size_t n = groups - first < UNIT_GROUPS ? groups - first : UNIT_GROUPS;
            score(job, 0, head, first, n, rows_of(job, head));
        }
    }
}

static void part_of_softmax(void *context, unsigned part, unsigned parts)
{
    struct attention_job *job = context;
    size_t from, to;
    for (bool more = bnt_share_first(&job->units, part, parts, &from, &to); more;
         more = bnt_share_take(&job->units, parts, &from, &to)) {
        for (size_t i = from; i < to; i++)
            job->session->model->kernels->softmax(job->session->scores + i * job->width,
                                                  job->count);
    }
}

static void part_of_mix(void *context, unsigned part, unsigned parts)
{
    struct attention_job *job = context;
    const struct bnt_hyper *h = &job->session->model->hyper;
    size_t from, to;
    for (bool more = bnt_share_first(&job->units, part, parts, &from, &to); more;
         more = bnt_share_take(&job->units, parts, &from, &to)) {
        for (size_t i = from; i < to; i++) {
            size_t head = i % h->n_kv_heads, column = i / h->n_kv_heads * UNIT_COLUMNS;
            size_t width =
                h->head_dim - column < UNIT_COLUMNS ? h->head_dim - column : (size_t)UNIT_COLUMNS;
            mix(job, 0, head, column, width, rows_of(job, head));
        }
    }
}

static void step(struct attention_job *job, size_t units, bool alone,
                 void (*body)(void *context, unsigned part, unsigned parts))
{
    if (alone) {
        bnt_share_init_alone(&job->units, units);
        body(job, 0, 1);
        return;
    }
    bnt_share_init(&job->units, job->session->pool, units, 1);
    bnt_pool_run(job->session->pool, body, job);
}

static void one_token(struct attention_job *job)
{
    const struct bnt_hyper *h = &job->session->model->hyper;
    const size_t groups = groups_of(job->count);
    bool alone = job->count * bnt_q_size(h) < 1 << 16; // quicker than waiting for the others
    step(job, (groups + UNIT_GROUPS - 1) / UNIT_GROUPS * h->n_kv_heads, alone, part_of_scores);
    step(job, h->n_heads, alone, part_of_softmax);
    step(job, (h->head_dim + UNIT_COLUMNS - 1) / UNIT_COLUMNS * h->n_kv_heads, alone, part_of_mix);
}

void bnt_attention(struct bnt_session *s, uint32_t layer, size_t n)
{
    const struct bnt_hyper *h = &s->model->hyper;
    struct attention_job job = {.session = s,
                                .layer = layer,
                                .n = n,
                                .group = h->n_heads / h->n_kv_heads,
                                .count = s->position + 1,
                                .width = (size_t)s->groups * BNT_KEY_GROUP};
    size_t tiles = (n + BNT_ATTENTION_TOKENS - 1) / BNT_ATTENTION_TOKENS;
    if (n == 1)
        one_token(&job);
    else
        step(&job, tiles * h->n_kv_heads, false, part_of_prompt);
}
