// SPDX-License-Identifier: MIT
// A prompt and decoding. The device is measured in between, after each batch of a prompt, after
// every few tokens, since what it can do changes from one moment to the next.
#include <stdlib.h>

#include "runtime/bench/bench_model.h"

// The GPU takes a prompt in one go: it would be slower in pieces.
static size_t tokens_at_once(const struct bench *b)
{
    return b->gpu ? (size_t)b->options->prompt : (size_t)BNT_MAX_BATCH;
}

// Seconds, and what the device's multiply-add does meanwhile.
static enum bnt_status time_prompt(struct bench *b, const uint32_t *tokens, double *seconds,
                                   double *peak, struct bnt_error *err)
{
    const size_t n = (size_t)b->options->prompt, most = tokens_at_once(b);
    struct bench_series peaks = {0};
    enum bnt_status status = bnt_session_rewind(b->session, 0, err);
    *seconds = 0;
    for (size_t at = 0; at < n && status == BNT_OK; at += most) {
        const double start = bench_now();
        status = bnt_evaluate(b->session, tokens + at, n - at < most ? n - at : most,
                              BNT_LOGITS_NONE, NULL, err);
        *seconds += bench_now() - start;
        if (status == BNT_OK)
            status = bench_device_int8(b, peak, err);
        bench_add(&peaks, *peak);
    }
    *peak = bench_median(&peaks);
    return status;
}

enum bnt_status bench_rates_prompt(struct bench *b, struct bnt_error *err)
{
    double seconds, peak = 0;
    uint32_t *tokens = bench_prompt(b->model, (size_t)b->options->prompt);
    if (!tokens)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    enum bnt_status status = time_prompt(b, tokens, &seconds, &peak, err);
    free(tokens);
    if (status != BNT_OK)
        return status;
    const double rate = (double)b->options->prompt / seconds;
    bench_add(&b->prompt, rate);
    if (peak > 0) {
        bench_add(&b->int8, peak);
        bench_add(&b->prompt_share, rate * (double)b->operations * 1e-9 / peak);
    }
    return BNT_OK;
}

struct reading {
    const struct bench *bench;
    double sum; // of the rates
    size_t count;
};

static enum bnt_status read_now_and_then(void *context, size_t tokens, struct bnt_error *err)
{
    enum { TOKENS_BETWEEN = 8 };
    struct reading *r = context;
    double rate;
    if (tokens % TOKENS_BETWEEN != 1)
        return BNT_OK;
    enum bnt_status status = bench_device_read(r->bench, &rate, err);
    if (status != BNT_OK)
        return status;
    r->sum += rate;
    r->count++;
    return BNT_OK;
}

enum bnt_status bench_rates_decode(struct bench *b, struct bench_decode *d, struct bnt_error *err)
{
    static const struct bnt_sampling greedy;
    const size_t n = (size_t)b->options->tokens;
    struct reading reading = {.bench = b};
    struct bench_clock clock = {.after_token = read_now_and_then, .context = &reading};
    enum bnt_status status = bench_time_text(b->session, 1, n, &greedy, &clock, err);
    if (status != BNT_OK)
        return status;
    const double rate = (double)(n - 1) / (clock.last - clock.first);
    const double read = reading.sum / (double)reading.count;
    bench_add(&b->read, read);
    bench_add(&d->rate, rate);
    bench_add(&d->share, rate * (double)d->bytes * 1e-9 / read);
    return BNT_OK;
}
