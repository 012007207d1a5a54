// SPDX-License-Identifier: MIT
// Whole texts, as a user waits for them, and single steps with much and little before them.
#include "runtime/bench/bench_model.h"

static const size_t lengths_in[] = {64, 256, 512}, lengths_out[] = {16, 32, 64};
static const size_t contexts[BENCH_STEPS] = {1, 512, 2000};
enum { STEPS = 25 }; // of which the median is taken

static const struct bnt_sampling greedy;
static const struct bnt_sampling sampled = {
    .temperature = 0.8f, .top_k = 50, .top_p = 0.9f, .seed = 1};

// The last token that is written is not fed.
static size_t positions(size_t in, size_t out)
{
    return in + out - 1;
}

bool bench_text_fits(const struct bench *b, const struct bench_text *t)
{
    return positions(t->in, t->out) <= b->context;
}

bool bench_step_fits(const struct bench *b, const struct bench_step *s)
{
    return positions(s->context, 1 + STEPS) <= b->context;
}

size_t bench_texts_context(const struct bnt_model *model)
{
    const size_t most = model->hyper.max_context;
    const size_t needed = positions(contexts[BENCH_STEPS - 1], 1 + STEPS);
    return needed < most ? needed : most;
}

void bench_texts_plan(struct bench_decode *d)
{
    for (size_t i = 0; i < BENCH_TEXTS; i++) {
        d->texts[i].in = lengths_in[i / 3];
        d->texts[i].out = lengths_out[i % 3];
    }
    for (size_t i = 0; i < BENCH_STEPS; i++)
        d->steps[i].context = contexts[i];
}

// The share of reading alone in a step of so many seconds: the file's bytes, and the keys and
// values of all positions up to its own.
static double share(const struct bench *b, const struct bench_decode *d, double position,
                    double seconds, double read)
{
    const double bytes = (double)d->bytes + (position + 1) * bench_position_size(b);
    return bytes * 1e-9 / read / seconds;
}

static enum bnt_status one_text(struct bench *b, const struct bench_decode *d, struct bench_text *t,
                                double read, struct bnt_error *err)
{
    struct bench_clock clock = {0};
    enum bnt_status status = bench_time_text(b->session, t->in, t->out, &greedy, &clock, err);
    if (status != BNT_OK)
        return status;
    const double n_steps = (double)(t->out - 1), step = (clock.last - clock.first) / n_steps;
    const double mean_position = (double)t->in + (n_steps - 1) / 2;
    bench_add(&t->total, clock.last);
    bench_add(&t->first, clock.first);
    bench_add(&t->prompt, (double)t->in / clock.first);
    bench_add(&t->decode, 1 / step);
    bench_add(&t->share, share(b, d, mean_position, step, read));
    return BNT_OK;
}

// Median seconds of a step.
static enum bnt_status time_steps(struct bench *b, size_t context,
                                  const struct bnt_sampling *sampling, double *seconds,
                                  struct bnt_error *err)
{
    struct bench_clock clock = {0};
    enum bnt_status status = bench_time_text(b->session, context, 1 + STEPS, sampling, &clock, err);
    *seconds = bench_median(&clock.steps);
    return status;
}

static enum bnt_status one_step(struct bench *b, const struct bench_decode *d, struct bench_step *s,
                                double read, struct bnt_error *err)
{
    double greedy_time, sampled_time;
    enum bnt_status status = time_steps(b, s->context, &greedy, &greedy_time, err);
    if (status == BNT_OK)
        status = time_steps(b, s->context, &sampled, &sampled_time, err);
    if (status != BNT_OK)
        return status;
    const double mean_position = (double)s->context + (STEPS - 1) / 2.0;
    bench_add(&s->greedy, greedy_time);
    bench_add(&s->sampled, sampled_time);
    bench_add(&s->share, share(b, d, mean_position, greedy_time, read));
    return BNT_OK;
}

static enum bnt_status read_device(struct bench *b, double *rate, struct bnt_error *err)
{
    enum bnt_status status = bench_device_read(b, rate, err);
    if (status == BNT_OK)
        bench_add(&b->read, *rate);
    return status;
}

enum bnt_status bench_texts(struct bench *b, struct bench_decode *d, struct bnt_error *err)
{
    enum bnt_status status = BNT_OK;
    double read = 0;
    for (size_t i = 0; i < BENCH_TEXTS && status == BNT_OK; i++) {
        if (!bench_text_fits(b, &d->texts[i]))
            continue;
        status = read_device(b, &read, err);
        if (status == BNT_OK)
            status = one_text(b, d, &d->texts[i], read, err);
    }
    for (size_t i = 0; i < BENCH_STEPS && status == BNT_OK; i++) {
        if (!bench_step_fits(b, &d->steps[i]))
            continue;
        status = read_device(b, &read, err);
        if (status == BNT_OK)
            status = one_step(b, d, &d->steps[i], read, err);
    }
    return status;
}
