// SPDX-License-Identifier: MIT
// Feeding tokens, on either device: in batches through the layers, then whatever is wanted.
#include "runtime/engine/check.h"
#include "runtime/cuda/cuda.h"
#include "runtime/engine/penalty.h"
#include "runtime/engine/session.h"

enum bnt_status bnt_evaluate(struct bnt_session *s, const uint32_t *tokens, size_t count,
                             enum bnt_logits which, float *logits, struct bnt_error *err)
{
    enum bnt_status status =
        bnt_check_tokens(tokens, count, s->model->hyper.vocab_size, s->position, s->context, err);
    if (status != BNT_OK)
        return status;
    if (s->cuda) {
        status = bnt_cuda_evaluate(s->cuda, tokens, count, which, logits, err);
        if (status == BNT_OK) {
            bnt_history_put(&s->history, s->position, tokens, (uint32_t)count);
            s->position += (uint32_t)count;
        }
        return status;
    }
    const size_t vocab = s->model->hyper.vocab_size;
    for (size_t at = 0; at < count;) {
        const size_t batch = bnt_session_batch(s);
        size_t n = count - at < batch ? count - at : batch;
        bnt_forward(s, tokens + at, n);
        bnt_keep_last(s, n - 1);
        if (which == BNT_LOGITS_ALL)
            bnt_all_logits(s, n, logits + at * vocab);
        bnt_history_put(&s->history, s->position, tokens + at, (uint32_t)n);
        at += n;
        s->position += (uint32_t)n;
    }
    if (which == BNT_LOGITS_LAST)
        bnt_last_logits(s, logits);
    return BNT_OK;
}

// What the GPU must know of; nothing where nothing is penalized.
static struct bnt_seen_list seen_until(struct bnt_session *s, uint32_t position,
                                       const struct bnt_sampling *sampling)
{
    return bnt_penalties_any(bnt_penalties_of(sampling)) ? bnt_history_list(&s->history, position)
                                                         : (struct bnt_seen_list){0};
}

// The token after what the session has seen.
static enum bnt_status choose(struct bnt_session *s, const struct bnt_sampling *sampling,
                              uint64_t *state, uint32_t *next, struct bnt_error *err)
{
    if (s->cuda)
        return bnt_cuda_sample(s->cuda, sampling, seen_until(s, s->position, sampling), state, next,
                               err);
    *next = bnt_next_token(s, sampling, state);
    return BNT_OK;
}

enum bnt_status bnt_first_step(struct bnt_session *s, const uint32_t *prompt, size_t count,
                               const struct bnt_sampling *sampling, uint64_t *state, uint32_t *next,
                               struct bnt_error *err)
{
    // The GPU's logits stay where they are.
    enum bnt_status status =
        bnt_evaluate(s, prompt, count, s->cuda ? BNT_LOGITS_LAST : BNT_LOGITS_NONE, NULL, err);
    if (status != BNT_OK)
        return status;
    bnt_session_end_prompt(s);
    return choose(s, sampling, state, next, err);
}

enum bnt_status bnt_next_step(struct bnt_session *s, uint32_t token,
                              const struct bnt_sampling *sampling, uint64_t *state, uint32_t *next,
                              struct bnt_error *err)
{
    if (s->cuda) {
        bnt_history_put(&s->history, s->position, &token, 1);
        struct bnt_seen_list seen = seen_until(s, s->position + 1, sampling);
        enum bnt_status status = bnt_cuda_next(s->cuda, token, sampling, seen, state, next, err);
        s->position += status == BNT_OK;
        return status;
    }
    enum bnt_status status = bnt_evaluate(s, &token, 1, BNT_LOGITS_NONE, NULL, err);
    return status == BNT_OK ? choose(s, sampling, state, next, err) : status;
}
