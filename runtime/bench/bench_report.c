// SPDX-License-Identifier: MIT
// What was measured of a model, as Markdown tables or as JSON.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/bench/bench_model.h"

// --- memory ---

// Peak resident memory of this process, bytes; 0 if the system does not tell. (getrusage would tell
// of the parent, if that was larger.)
static uint64_t peak_memory(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long kilobytes = 0;
    while (file && kilobytes == 0 && fgets(line, sizeof line, file)) {
        if (strncmp(line, "VmHWM:", 6) == 0)
            kilobytes = strtoull(line + 6, NULL, 10);
    }
    if (file)
        (void)fclose(file);
    return kilobytes * 1024;
}

// On the GPU: what the model and its session have taken.
static uint64_t memory(const struct bench *b)
{
    return b->gpu ? b->memory - b->memory_before : peak_memory();
}

// --- Markdown ---

static void print_heading(const struct bench *b)
{
    (void)printf("%s, ", b->options->model);
    if (b->gpu)
        (void)printf("%s, reads %.0f GB/s, ", bnt_session_device(b->session),
                     bench_median(&b->read));
    else
        (void)printf("kernel %s, %u threads, ", b->model->kernels->name,
                     bnt_pool_threads(b->session->pool));
    (void)printf("%" PRIu64 " rounds: median (least – most)\n\n", b->options->rounds);
}

static void print_prompt(const struct bench *b)
{
    const double rate = bench_median(&b->prompt);
    (void)printf("| prompt, %" PRIu64 " tokens | %.1f (%.1f – %.1f) | %.0f GOP/s |",
                 b->options->prompt, rate, bench_least(&b->prompt), bench_most(&b->prompt),
                 rate * (double)b->operations * 1e-9);
    if (b->int8.count)
        (void)printf(" %.0f %% of %.0f GOP/s int8 |\n", 100 * bench_median(&b->prompt_share),
                     bench_median(&b->int8));
    else
        (void)puts(" – |");
}

static void print_decode(const struct bench *b, const struct bench_decode *d)
{
    const double rate = bench_median(&d->rate);
    (void)printf("| decode, %" PRIu64 " tokens, %s | %.2f (%.2f – %.2f) | %.3f GB a token, "
                 "%.1f GB/s | %.0f %% of %.1f GB/s read |\n",
                 b->options->tokens, d->name, rate, bench_least(&d->rate), bench_most(&d->rate),
                 (double)d->bytes * 1e-9, rate * (double)d->bytes * 1e-9,
                 100 * bench_median(&d->share), bench_median(&b->read));
}

static void print_rates(const struct bench *b)
{
    if (!b->options->prompt && !b->options->tokens)
        return;
    (void)puts("| | tok/s | | of the machine's own |\n|---|---|---|---|");
    if (b->options->prompt)
        print_prompt(b);
    for (size_t i = 0; i < b->n_decode && b->options->tokens; i++)
        print_decode(b, &b->decode[i]);
    (void)puts("");
}

static void print_text(const struct bench *b, const struct bench_decode *d,
                       const struct bench_text *t)
{
    (void)printf("| %zu | %zu | %s |", t->in, t->out, d->name);
    if (!bench_text_fits(b, t)) {
        (void)printf(" the model has room for %" PRIu32 " tokens | | | | |\n", b->context);
        return;
    }
    (void)printf(" %.1f (%.1f – %.1f) | %.2f | %.0f | %.1f | %.0f %% |\n",
                 1e3 * bench_median(&t->total), 1e3 * bench_least(&t->total),
                 1e3 * bench_most(&t->total), 1e3 * bench_median(&t->first),
                 bench_median(&t->prompt), bench_median(&t->decode), 100 * bench_median(&t->share));
}

static void print_step(const struct bench *b, const struct bench_decode *d,
                       const struct bench_step *s)
{
    (void)printf("| %zu | %s |", s->context, d->name);
    if (!bench_step_fits(b, s)) {
        (void)printf(" the model has room for %" PRIu32 " tokens | | |\n", b->context);
        return;
    }
    (void)printf(" %.3f (%.3f – %.3f) | %.0f %% | %.3f |\n", 1e3 * bench_median(&s->greedy),
                 1e3 * bench_least(&s->greedy), 1e3 * bench_most(&s->greedy),
                 100 * bench_median(&s->share), 1e3 * bench_median(&s->sampled));
}

static void print_texts(const struct bench *b)
{
    (void)puts("| tokens in | out | output layer | all: ms | first token: ms | in: tok/s | "
               "out: tok/s | of reading |\n|---|---|---|---|---|---|---|---|");
    for (size_t i = 0; i < b->n_decode; i++) {
        for (size_t j = 0; j < BENCH_TEXTS; j++)
            print_text(b, &b->decode[i], &b->decode[i].texts[j]);
    }
    (void)puts("\n| tokens before | output layer | a greedy step: ms | of reading | sampled, "
               "temperature 0.8, top-k 50, top-p 0.9: ms |\n|---|---|---|---|---|");
    for (size_t i = 0; i < b->n_decode; i++) {
        for (size_t j = 0; j < BENCH_STEPS; j++)
            print_step(b, &b->decode[i], &b->decode[i].steps[j]);
    }
    (void)puts("");
}

static void print_markdown(const struct bench *b)
{
    const double file = (double)b->model->map.size, cache = (double)bench_cache_size(b);
    const double all = (double)memory(b);
    print_heading(b);
    print_rates(b);
    if (b->end_to_end)
        print_texts(b);
    if (b->gpu)
        (void)printf("GPU ready %.3f s after the start; then: ", b->options->gpu_start_time);
    (void)printf("open %.3f s, first token after %.3f s; %s memory %.0f MB = file %.0f MB + "
                 "cache %.0f MB + %.0f MB\n",
                 b->open_time, b->first_token_time, b->gpu ? "GPU" : "peak", all * 1e-6,
                 file * 1e-6, cache * 1e-6, (all - file - cache) * 1e-6);
}

// --- JSON ---

static json_t *decode_json(const struct bench_decode *d)
{
    return json_pack("{s:s, s:o, s:I, s:o}", "output", d->name, "tokens_per_second",
                     bench_json(&d->rate), "bytes_per_token", (json_int_t)d->bytes, "share_of_read",
                     bench_json(&d->share));
}

static json_t *text_json(const struct bench_decode *d, const struct bench_text *t)
{
    return json_pack("{s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:o}", "prompt_tokens", (json_int_t)t->in,
                     "decode_tokens", (json_int_t)t->out, "output", d->name, "seconds",
                     bench_json(&t->total), "first_token_seconds", bench_json(&t->first),
                     "prompt_tokens_per_second", bench_json(&t->prompt), "tokens_per_second",
                     bench_json(&t->decode), "share_of_read", bench_json(&t->share));
}

static json_t *step_json(const struct bench_decode *d, const struct bench_step *s)
{
    return json_pack("{s:I, s:s, s:o, s:o, s:o}", "context", (json_int_t)s->context, "output",
                     d->name, "greedy_seconds", bench_json(&s->greedy), "sampled_seconds",
                     bench_json(&s->sampled), "share_of_read", bench_json(&s->share));
}

// Those that the model has room for.
static void add_texts_json(json_t *all, const struct bench *b)
{
    json_t *texts = json_array(), *steps = json_array();
    for (size_t i = 0; i < b->n_decode; i++) {
        const struct bench_decode *d = &b->decode[i];
        for (size_t j = 0; j < BENCH_TEXTS; j++) {
            if (bench_text_fits(b, &d->texts[j]))
                (void)json_array_append_new(texts, text_json(d, &d->texts[j]));
        }
        for (size_t j = 0; j < BENCH_STEPS; j++) {
            if (bench_step_fits(b, &d->steps[j]))
                (void)json_array_append_new(steps, step_json(d, &d->steps[j]));
        }
    }
    (void)json_object_set_new(all, "texts", texts);
    (void)json_object_set_new(all, "steps", steps);
}

static json_t *device_json(const struct bench *b)
{
    if (b->gpu)
        return json_pack("{s:s, s:f, s:I}", "device", bnt_session_device(b->session),
                         "device_start_seconds", b->options->gpu_start_time, "device_memory_bytes",
                         (json_int_t)memory(b));
    return json_pack("{s:s, s:s, s:i}", "device", bnt_session_device(b->session), "kernel",
                     b->model->kernels->name, "threads", (int)bnt_pool_threads(b->session->pool));
}

static void print_json(const struct bench *b)
{
    json_t *all = device_json(b), *decodes = json_array();
    for (size_t i = 0; i < b->n_decode && b->options->tokens; i++)
        (void)json_array_append_new(decodes, decode_json(&b->decode[i]));
    json_t *rates = json_pack(
        "{s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:o, s:f, s:f, s:I, s:I, s:I}", "rounds",
        (json_int_t)b->options->rounds, "prompt_tokens", (json_int_t)b->options->prompt,
        "decode_tokens", (json_int_t)b->options->tokens, "prompt_tokens_per_second",
        bench_json(&b->prompt), "prompt_share_of_int8", bench_json(&b->prompt_share),
        "operations_per_prompt_token", (json_int_t)b->operations, "decode", decodes,
        "read_gb_per_second", bench_json(&b->read), "int8_gop_per_second", bench_json(&b->int8),
        "open_seconds", b->open_time, "first_token_seconds", b->first_token_time,
        "peak_memory_bytes", (json_int_t)peak_memory(), "file_bytes",
        (json_int_t)b->model->map.size, "cache_bytes", (json_int_t)bench_cache_size(b));
    (void)json_object_update(all, rates);
    json_decref(rates);
    if (b->end_to_end)
        add_texts_json(all, b);
    bench_print_json(all);
}

void bench_print(const struct bench *b)
{
    (b->options->json ? print_json : print_markdown)(b);
}
