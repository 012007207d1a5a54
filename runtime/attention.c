// SPDX-License-Identifier: MIT
// softmax(q·kᵀ / sqrt(head_dim)) v over the cache, one query head at a time (bnt.md section 10).
#include <math.h>
#include <string.h>

#include "runtime/session.h"

void bnt_rotate(const struct bnt_session *s, float *vectors, uint32_t heads, size_t t)
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

// scores (count) become probabilities that add up to 1.
static void softmax(float *scores, size_t count)
{
    float max = scores[0];
    double sum = 0;
    for (size_t i = 1; i < count; i++)
        max = scores[i] > max ? scores[i] : max;
    for (size_t i = 0; i < count; i++) {
        scores[i] = expf(scores[i] - max);
        sum += (double)scores[i];
    }
    float inverse = (float)(1 / sum);
    for (size_t i = 0; i < count; i++)
        scores[i] *= inverse;
}

struct attention_job {
    struct bnt_session *session;
    const float *keys;   // (context, kv) of the layer
    const float *values; // (context, kv)
    size_t n;            // tokens
};

// Query head `head` of batch token t. It sees the positions up to its own.
static void one_head(const struct attention_job *job, size_t t, uint32_t head, float *scores)
{
    const struct bnt_session *s = job->session;
    const struct bnt_hyper *h = &s->model->hyper;
    const struct bnt_kernels *kernels = s->model->kernels;
    const size_t dim = h->head_dim, kv = bnt_kv_size(h), q = bnt_q_size(h);
    const size_t offset = head / (h->n_heads / h->n_kv_heads) * dim;
    const size_t count = s->position + t + 1;
    const float *query = s->q + t * q + head * dim;
    float *out = s->att + t * q + head * dim;
    const float scale = 1.0f / sqrtf((float)dim);
    for (size_t p = 0; p < count; p++)
        scores[p] = kernels->dot(query, job->keys + p * kv + offset, dim) * scale;
    softmax(scores, count);
    memset(out, 0, dim * sizeof out[0]);
    for (size_t p = 0; p < count; p++)
        kernels->add_scaled(out, job->values + p * kv + offset, scores[p], dim);
}

static void some_heads(void *context, unsigned part, unsigned parts)
{
    const struct attention_job *job = context;
    const struct bnt_session *s = job->session;
    size_t heads = s->model->hyper.n_heads;
    for (size_t i = part; i < job->n * heads; i += parts)
        one_head(job, i / heads, (uint32_t)(i % heads), s->scores + (size_t)part * s->context);
}

void bnt_attention(struct bnt_session *s, uint32_t layer, size_t n)
{
    size_t size = (size_t)s->context * bnt_kv_size(&s->model->hyper);
    struct attention_job job = {
        .session = s, .keys = s->keys + layer * size, .values = s->values + layer * size, .n = n};
    bnt_pool_run(s->pool, some_heads, &job);
}
