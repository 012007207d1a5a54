// SPDX-License-Identifier: MIT
// Times the tokens of one text.
#include <stdlib.h>

#include "runtime/bench/bench_model.h"

struct watch {
    struct bench_clock *clock;
    double start;
    double other; // seconds that did not go into the text
    size_t tokens;
    enum bnt_status status;
    struct bnt_error *err;
};

static bool tick(void *context, uint32_t token, const char *text, size_t size)
{
    struct watch *w = context;
    struct bench_clock *clock = w->clock;
    const double now = bench_now(), before = clock->last;
    (void)text;
    (void)size;
    if (token == UINT32_MAX)
        return true; // text that was held back, and no token
    clock->last = now - w->start - w->other;
    if (w->tokens == 0)
        clock->first = clock->last;
    else
        bench_add(&clock->steps, clock->last - before);
    w->tokens++;
    if (clock->after_token) {
        w->status = clock->after_token(clock->context, w->tokens, w->err);
        w->other += bench_now() - now;
    }
    return w->status == BNT_OK;
}

uint32_t *bench_prompt(const struct bnt_model *model, size_t count)
{
    uint32_t *tokens = malloc(count * sizeof *tokens);
    for (size_t i = 0; tokens && i < count; i++)
        tokens[i] = ((uint32_t)i * 2654435761u + 12345) % model->hyper.vocab_size;
    return tokens;
}

enum bnt_status bench_time_text(struct bnt_session *session, size_t in, size_t out,
                                const struct bnt_sampling *sampling, struct bench_clock *clock,
                                struct bnt_error *err)
{
    struct watch watch = {.clock = clock, .err = err};
    const struct bnt_generation generation = {.max_tokens = out,
                                              .sampling = *sampling,
                                              .ignore_eos = true,
                                              .callback = tick,
                                              .context = &watch};
    struct bnt_generation_result result;
    uint32_t *tokens = bench_prompt(session->model, in);
    if (!tokens)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    clock->first = clock->last = 0;
    clock->steps.count = 0;
    enum bnt_status status = bnt_session_rewind(session, 0, err);
    watch.start = bench_now();
    if (status == BNT_OK)
        status = bnt_generate(session, tokens, in, &generation, &result, err);
    free(tokens);
    return status == BNT_OK ? watch.status : status;
}
