// SPDX-License-Identifier: MIT
// The vector of a text (bnt.md section 10): the last layer's output, normed, of one token or the
// mean of all. Sums run over the tokens in their order, so that neither batches nor threads matter.
#include <math.h>
#include <string.h>

#include "runtime/engine/check.h"
#include "runtime/engine/session.h"

static const char *const names[] = {"none", "last", "mean", "first"};

bool bnt_pooling_from_name(const char *name, enum bnt_pooling *pooling)
{
    for (int i = BNT_POOLING_LAST; i <= BNT_POOLING_FIRST; i++) {
        if (strcmp(name, names[i]) == 0) {
            *pooling = (enum bnt_pooling)i;
            return true;
        }
    }
    return false;
}

const char *bnt_pooling_name(enum bnt_pooling pooling)
{
    return names[pooling];
}

// What batch tokens 0 … n − 1, the first at the session's position, add to the vector. ends: the
// text ends with them.
static void pool(struct bnt_session *s, size_t n, bool ends, enum bnt_pooling pooling,
                 float *vector)
{
    const size_t hidden = s->model->hyper.hidden_size;
    const size_t from = pooling != BNT_POOLING_LAST ? 0 : ends ? n - 1 : n;
    const size_t to = pooling != BNT_POOLING_FIRST ? n : s->position == 0;
    for (size_t t = from; t < to; t++) {
        bnt_keep_last(s, t);
        for (size_t i = 0; i < hidden; i++)
            vector[i] += s->last[i];
    }
}

static void divide(float *vector, size_t n, float by)
{
    for (size_t i = 0; i < n; i++)
        vector[i] /= by;
}

// In order, and never by 0: as torch's normalize.
static void normalize(float *vector, size_t n)
{
    float sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += vector[i] * vector[i];
    const float length = sqrtf(sum);
    divide(vector, n, length > 1e-12f ? length : 1e-12f);
}

static enum bnt_status check(const struct bnt_session *s, enum bnt_pooling pooling,
                             struct bnt_error *err)
{
    if (pooling == BNT_POOLING_NONE)
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        "the model is not made for vectors of texts, or its checkpoint did not say "
                        "how: name the pooling (last, mean or first)");
    if ((unsigned)pooling > BNT_POOLING_FIRST)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "unknown pooling %d", (int)pooling);
    if (s->cuda)
        return bnt_fail(err, BNT_ERR_DEVICE, BNT_VECTORS_ON_CPU);
    return BNT_OK;
}

enum bnt_status bnt_embed(struct bnt_session *s, const uint32_t *tokens, size_t count,
                          enum bnt_pooling pooling, bool normalized, float *vector,
                          struct bnt_error *err)
{
    const size_t hidden = s->model->hyper.hidden_size, batch = bnt_session_batch(s);
    enum bnt_status status = check(s, pooling, err);
    if (status == BNT_OK)
        status = bnt_check_tokens(tokens, count, s->model->hyper.vocab_size, 0, s->context, err);
    if (status == BNT_OK)
        status = bnt_session_rewind(s, 0, err);
    if (status != BNT_OK)
        return status;
    memset(vector, 0, hidden * sizeof *vector);
    for (size_t at = 0, n; at < count; at += n) {
        n = count - at < batch ? count - at : batch;
        bnt_forward(s, tokens + at, n);
        pool(s, n, at + n == count, pooling, vector);
        bnt_keep_last(s, n - 1);
        bnt_history_put(&s->history, s->position, tokens + at, (uint32_t)n);
        s->position += (uint32_t)n;
    }
    if (pooling == BNT_POOLING_MEAN)
        divide(vector, hidden, (float)count);
    if (normalized)
        normalize(vector, hidden);
    return BNT_OK;
}
