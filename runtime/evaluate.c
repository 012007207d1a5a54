// SPDX-License-Identifier: MIT
// Feeding tokens: in batches through the layers, then whatever logits are wanted.
#include <inttypes.h>

#include "runtime/session.h"

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
        bnt_forward(s, tokens + at, n);
        bnt_keep_last(s, n - 1);
        if (which == BNT_LOGITS_ALL)
            bnt_all_logits(s, n, logits + at * vocab);
        at += n;
        s->position += (uint32_t)n;
    }
    if (which == BNT_LOGITS_LAST)
        bnt_last_logits(s, logits);
    return BNT_OK;
}
