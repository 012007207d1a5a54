// SPDX-License-Identifier: MIT
#include "runtime/engine/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/processors.h"
#include "runtime/cuda/cuda.h"
#include "runtime/engine/rope.h"

enum { ALIGNMENT = 64 };

static unsigned processors(void)
{
    unsigned n = bnt_processors();
    return n > BNT_MAX_PARTS ? BNT_MAX_PARTS : n;
}

// Not touched here: the system gives the pages as they are used. NULL on overflow too.
static void *allocate(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)ALIGNMENT - 1, &bytes))
        return NULL;
    return aligned_alloc(ALIGNMENT, bytes / ALIGNMENT * ALIGNMENT);
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static bool allocate_cache(struct bnt_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    s->groups = (s->context + BNT_KEY_GROUP - 1) / BNT_KEY_GROUP;
    // Below 2^37 rows, and a row of at most 2^22 bytes.
    size_t rows = (size_t)h->n_layers * s->groups * BNT_KEY_GROUP;
    size_t row = bnt_kv_size(h) * (s->cache == BNT_CACHE_F32 ? sizeof(float) : sizeof(uint16_t));
    s->keys = allocate(rows, row);
    s->values = allocate(rows, row);
    return s->keys && s->values;
}

// Rows of scores that attention works on at once: all heads for one token, or those of a key head
// for a few tokens in each thread.
static size_t score_rows(const struct bnt_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    size_t prompt =
        (size_t)bnt_pool_threads(s->pool) * BNT_ATTENTION_TOKENS * (h->n_heads / h->n_kv_heads);
    return prompt > h->n_heads ? prompt : h->n_heads;
}

static bool allocate_work(struct bnt_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    s->parts = h->activation_bits / 8;
    const size_t batch = bnt_session_batch(s) * sizeof(float);
    // An odd number of cache lines puts the same columns of many tokens in different sets.
    const uint32_t widest_input = max_u32(max_u32(h->hidden_size, h->ffn_size), bnt_q_size(h));
    size_t widest = bnt_pad_cols(widest_input);
    s->x_q_stride = ((widest + ALIGNMENT - 1) / ALIGNMENT | 1) * ALIGNMENT;
    s->x = allocate(h->hidden_size, batch);
    s->h = allocate(h->hidden_size, batch);
    s->q = allocate(bnt_q_size(h), batch);
    s->k = allocate(bnt_kv_size(h), batch);
    s->v = allocate(bnt_kv_size(h), batch);
    s->att = allocate(bnt_q_size(h), batch);
    s->gate = allocate(h->ffn_size, batch);
    s->up = allocate(h->ffn_size, batch);
    s->scores = allocate(score_rows(s), (size_t)s->groups * BNT_KEY_GROUP * sizeof(float));
    s->x_q = allocate(s->x_q_stride, BNT_MAX_BATCH);
    s->x_sum =
        allocate(max_u32(bnt_row_groups(h, widest_input), 1), BNT_MAX_BATCH * sizeof s->x_sum[0]);
    s->normed_stride = widest_input;
    if (h->flags & BNT_HYPER_LINEAR_NORMS && !(s->normed = allocate(widest_input, batch)))
        return false;
    s->frequency = allocate(h->head_dim / 2, sizeof(float));
    s->cosine = allocate(h->head_dim / 2, batch);
    s->sine = allocate(h->head_dim / 2, batch);
    s->last = allocate(h->hidden_size, sizeof(float));
    s->logits = allocate(h->vocab_size, sizeof(float));
    s->candidates = allocate(h->vocab_size, sizeof s->candidates[0]);
    s->x_16 = allocate(h->hidden_size, sizeof s->x_16[0]);
    s->best_bounds = allocate(bnt_pool_threads(s->pool), BNT_SHORTLIST_MAX * sizeof(float));
    return s->x && s->h && s->q && s->k && s->v && s->att && s->gate && s->up && s->scores &&
           s->x_q && s->x_sum && s->frequency && s->cosine && s->sine && s->last && s->logits &&
           s->candidates && s->x_16 && s->best_bounds;
}

bool bnt_device_from_name(const char *name, enum bnt_device *device)
{
    static const char *const names[] = {
        [BNT_DEVICE_CPU] = "cpu", [BNT_DEVICE_CUDA] = "cuda", [BNT_DEVICE_AUTO] = "auto"};
    for (int i = BNT_DEVICE_CPU; i <= BNT_DEVICE_AUTO; i++) {
        if (strcmp(name, names[i]) == 0) {
            *device = (enum bnt_device)i;
            return true;
        }
    }
    return false;
}

bool bnt_cache_from_name(const char *name, enum bnt_cache *cache)
{
    if (strcmp(name, "f16") != 0 && strcmp(name, "f32") != 0)
        return false;
    *cache = strcmp(name, "f32") == 0 ? BNT_CACHE_F32 : BNT_CACHE_F16;
    return true;
}

static enum bnt_status check_options(const struct bnt_model *model,
                                     const struct bnt_session_options *o, struct bnt_error *err)
{
    if (o->context > model->hyper.max_context)
        return bnt_fail(err, BNT_ERR_ARGUMENT,
                        "a context of %" PRIu32 " tokens is more than the model's %" PRIu32,
                        o->context, model->hyper.max_context);
    if (o->threads > BNT_MAX_PARTS)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "%" PRIu32 " threads are more than %d", o->threads,
                        BNT_MAX_PARTS);
    if (o->cache != BNT_CACHE_F16 && o->cache != BNT_CACHE_F32)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "unknown type of cache %d", (int)o->cache);
    if (o->device != BNT_DEVICE_CPU && o->device != BNT_DEVICE_CUDA && o->device != BNT_DEVICE_AUTO)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "unknown device %d", (int)o->device);
    return BNT_OK;
}

static enum bnt_status out_of_memory(const struct bnt_session *s, struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_MEMORY, "out of memory for a session of %" PRIu32 " tokens",
                    s->context);
}

static enum bnt_status open_on_cpu(struct bnt_session *s, unsigned threads, struct bnt_error *err)
{
    s->pool = bnt_pool_open(threads ? threads : processors());
    if (!s->pool || !allocate_cache(s) || !allocate_work(s))
        return out_of_memory(s, err);
    bnt_rope_frequencies(&s->model->hyper, s->frequency);
    return BNT_OK;
}

static enum bnt_status open_on_gpu(struct bnt_session *s, struct bnt_error *err)
{
    const struct bnt_cuda_model *cuda;
    enum bnt_status status = bnt_upload_get(s->model, &cuda, err);
    if (status == BNT_OK)
        status = bnt_cuda_session_open(cuda, s->context, s->full_output, &s->cuda, err);
    if (status == BNT_OK)
        s->candidates = allocate(s->model->hyper.vocab_size, sizeof s->candidates[0]);
    return status == BNT_OK && !s->candidates ? out_of_memory(s, err) : status;
}

static enum bnt_status open_somewhere(struct bnt_session *s, const struct bnt_session_options *o,
                                      struct bnt_error *err)
{
    if (o->vectors && o->device == BNT_DEVICE_CUDA)
        return bnt_fail(err, BNT_ERR_DEVICE, BNT_VECTORS_ON_CPU);
    if (o->device == BNT_DEVICE_CUDA)
        return open_on_gpu(s, err);
    if (o->vectors && o->device == BNT_DEVICE_AUTO && bnt_cuda_present())
        (void)bnt_fail(&s->note, BNT_ERR_DEVICE, BNT_VECTORS_ON_CPU);
    else if (o->device == BNT_DEVICE_AUTO && bnt_cuda_present()) {
        if (open_on_gpu(s, &s->note) == BNT_OK)
            return BNT_OK;
        bnt_cuda_session_close(s->cuda);
        s->cuda = NULL;
    }
    return open_on_cpu(s, o->threads, err);
}

enum bnt_status bnt_session_open(const struct bnt_model *model,
                                 const struct bnt_session_options *options,
                                 struct bnt_session **session, struct bnt_error *err)
{
    static const struct bnt_session_options defaults;
    const struct bnt_session_options *o = options ? options : &defaults;
    *session = NULL;
    enum bnt_status status = check_options(model, o, err);
    if (status != BNT_OK)
        return status;
    struct bnt_session *s = calloc(1, sizeof *s);
    if (!s)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    s->model = model;
    s->context = o->context ? o->context : model->hyper.max_context;
    s->cache = o->cache;
    s->full_output = o->full_output;
    status = bnt_history_open(&s->history, s->context, model->hyper.vocab_size)
                 ? open_somewhere(s, o, err)
                 : out_of_memory(s, err);
    if (status != BNT_OK) {
        bnt_session_close(s);
        return status;
    }
    *session = s;
    return BNT_OK;
}

void bnt_session_close(struct bnt_session *s)
{
    if (!s)
        return;
    bnt_cuda_session_close(s->cuda);
    bnt_pool_close(s->pool);
    bnt_history_close(&s->history);
    void *const buffers[] = {s->keys,   s->values, s->x,          s->h,      s->q,
                             s->k,      s->v,      s->att,        s->gate,   s->up,
                             s->scores, s->x_q,    s->frequency,  s->cosine, s->sine,
                             s->last,   s->logits, s->candidates, s->x_16,   s->best_bounds,
                             s->x_sum,  s->normed};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    free(s);
}

const char *bnt_session_device(const struct bnt_session *session)
{
    return session->cuda ? bnt_cuda_session_device(session->cuda) : "cpu";
}

const char *bnt_session_note(const struct bnt_session *session)
{
    return session->cuda ? "" : session->note.message;
}

uint32_t bnt_session_position(const struct bnt_session *session)
{
    return session->position;
}

uint32_t bnt_session_context(const struct bnt_session *session)
{
    return session->context;
}

enum bnt_status bnt_session_rewind(struct bnt_session *session, uint32_t position,
                                   struct bnt_error *err)
{
    if (position > session->position)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "cannot rewind from %" PRIu32 " to %" PRIu32,
                        session->position, position);
    enum bnt_status status =
        session->cuda ? bnt_cuda_session_rewind(session->cuda, position, err) : BNT_OK;
    if (status == BNT_OK) {
        session->position = position;
        bnt_history_rewind(&session->history, position);
    }
    return status;
}

void bnt_session_end_prompt(struct bnt_session *session)
{
    bnt_history_end_prompt(&session->history, session->position);
}
