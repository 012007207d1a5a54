// SPDX-License-Identifier: MIT
// A model from end to end. The machine is measured in between: after each batch of a prompt, after
// every few tokens, since what it can do changes from one moment to the next.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/cli.h"
#include "runtime/bench.h"
#include "runtime/session.h"

// One way of decoding.
struct decode {
    const char *name;
    bool full_output;
    uint64_t bytes; // of the file that a token must read
    struct bench_series rate;
    struct bench_series share; // of the time that reading the bytes alone takes
};

struct bench {
    const struct bench_options *options;
    struct bnt_model *model;
    struct bnt_session *session;
    double open_time, first_token_time;
    uint64_t operations; // of the matrices, a token of a prompt
    struct bench_series read, int8;
    struct bench_series prompt, prompt_share;
    struct decode decode[2];
    size_t n_decode;
};

static uint64_t section_size(const struct bnt_model *m, uint32_t type)
{
    const struct bnt_section_record *s = bnt_view_section(&m->view, type);
    return s ? s->size : 0;
}

static uint64_t ternary_weights(const struct bnt_model *m)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->hyper.n_layers; i++) {
        const struct bnt_layer *l = &m->layers[i];
        const struct bnt_matrix *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            sum += (uint64_t)all[j]->rows * all[j]->cols;
    }
    return sum;
}

static void plan(struct bench *b)
{
    const struct bnt_model *m = b->model;
    const uint64_t output = (uint64_t)m->hyper.vocab_size * m->hyper.hidden_size;
    const uint64_t ternary = section_size(m, BNT_SECTION_TERN);
    b->operations = 2 * ternary_weights(m);
    b->decode[b->n_decode++] = (struct decode){.name = m->wide ? "f32 output" : "bf16 output",
                                               .full_output = true,
                                               .bytes = ternary + output * (m->wide ? 4 : 2)};
    if (m->output_int8)
        b->decode[b->n_decode++] = (struct decode){
            .name = "int8 output, exact", .bytes = ternary + output + 4 * m->hyper.vocab_size};
}

static enum bnt_status check(const struct bench *b, struct bnt_error *err)
{
    const uint64_t most = b->model->hyper.max_context;
    if (b->options->prompt > most || b->options->tokens > most)
        return bnt_fail(err, BNT_ERR_ARGUMENT,
                        "the model has room for %" PRIu64 " tokens; ask for fewer by -p and -n",
                        most);
    return BNT_OK;
}

// Opens everything, timed, and evaluates a first token.
static enum bnt_status open_all(struct bench *b, struct bnt_error *err)
{
    const struct bench_options *o = b->options;
    const uint64_t context = o->prompt > o->tokens ? o->prompt : o->tokens;
    uint32_t token = 0;
    double start = bench_now();
    enum bnt_status status = bnt_model_open(o->model, o->kernel, &b->model, err);
    if (status == BNT_OK)
        status = check(b, err);
    const struct bnt_session_options options = {
        .context = (uint32_t)context, .threads = (uint32_t)o->threads, .cache = o->cache};
    if (status == BNT_OK)
        status = bnt_session_open(b->model, &options, &b->session, err);
    if (status != BNT_OK)
        return status;
    b->open_time = bench_now() - start;
    status = bnt_evaluate(b->session, &token, 1, BNT_LOGITS_LAST, b->session->logits, err);
    b->first_token_time = bench_now() - start;
    return status;
}

static enum bnt_status one_prompt(struct bench *b, struct bnt_error *err)
{
    struct bnt_session *s = b->session;
    const size_t n = (size_t)b->options->prompt;
    enum bnt_status status = BNT_OK;
    double seconds = 0, peak = 0;
    size_t batches = 0;
    (void)bnt_session_rewind(s, 0, NULL);
    for (size_t at = 0; at < n && status == BNT_OK; at += BNT_MAX_BATCH, batches++) {
        uint32_t tokens[BNT_MAX_BATCH];
        size_t count = n - at < BNT_MAX_BATCH ? n - at : (size_t)BNT_MAX_BATCH;
        for (size_t i = 0; i < count; i++)
            tokens[i] = (uint32_t)(((at + i) * 2654435761u + 12345) % b->model->hyper.vocab_size);
        double start = bench_now();
        status = bnt_evaluate(s, tokens, count, BNT_LOGITS_NONE, NULL, err);
        seconds += bench_now() - start;
        peak += bench_int8(s->pool, b->model->kernels->name);
    }
    double rate = (double)n / seconds;
    bench_add(&b->prompt, rate);
    if (peak > 0) {
        peak /= (double)batches;
        bench_add(&b->int8, peak);
        bench_add(&b->prompt_share, rate * (double)b->operations * 1e-9 / peak);
    }
    return status;
}

struct clock {
    const struct bench *bench;
    size_t tokens;
    double first, last; // when the first and the last token came, as if nothing else was done
    double other;       // seconds spent on reading
    double read_rates;  // their sum
    size_t reads;
};

static bool tick(void *context, uint32_t token, const char *text, size_t size)
{
    enum { TOKENS_BETWEEN = 8 };
    struct clock *clock = context;
    const struct bnt_model *m = clock->bench->model;
    const struct bnt_section_record *s = bnt_view_section(&m->view, BNT_SECTION_TERN);
    (void)token;
    (void)text;
    (void)size;
    double now = bench_now();
    clock->last = now - clock->other;
    if (clock->tokens == 0)
        clock->first = clock->last;
    if (clock->tokens++ % TOKENS_BETWEEN == 0) {
        clock->read_rates +=
            bench_read(clock->bench->session->pool, m->map.data + s->offset, s->size);
        clock->reads++;
        clock->other += bench_now() - now;
    }
    return true;
}

static enum bnt_status one_decode(struct bench *b, struct decode *d, struct bnt_error *err)
{
    struct bnt_session *s = b->session;
    struct clock clock = {.bench = b};
    const struct bnt_generation generation = {
        .max_tokens = (size_t)b->options->tokens,
        .ignore_eos = true,
        .callback = tick,
        .context = &clock,
    };
    struct bnt_generation_result result;
    uint32_t token = 0;
    (void)bnt_session_rewind(s, 0, NULL);
    s->full_output = d->full_output;
    enum bnt_status status = bnt_generate(s, &token, 1, &generation, &result, err);
    if (status != BNT_OK)
        return status;
    double rate = (double)(result.n_tokens - 1) / (clock.last - clock.first);
    double read = clock.read_rates / (double)clock.reads;
    bench_add(&b->read, read);
    bench_add(&d->rate, rate);
    bench_add(&d->share, rate * (double)d->bytes * 1e-9 / read);
    return BNT_OK;
}

static enum bnt_status one_round(struct bench *b, struct bnt_error *err)
{
    enum bnt_status status = b->options->prompt ? one_prompt(b, err) : BNT_OK;
    for (size_t i = 0; i < b->n_decode && b->options->tokens && status == BNT_OK; i++)
        status = one_decode(b, &b->decode[i], err);
    return status;
}

// --- results ---

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

static uint64_t cache_size(const struct bench *b)
{
    const struct bnt_session *s = b->session;
    return (uint64_t)s->model->hyper.n_layers * s->groups * BNT_KEY_GROUP *
           bnt_kv_size(&s->model->hyper) * (s->cache == BNT_CACHE_F32 ? 8 : 4);
}

static void print_markdown(const struct bench *b)
{
    const struct bnt_model *m = b->model;
    (void)printf("%s, kernel %s, %u threads, %" PRIu64 " rounds: median (least – most)\n\n",
                 b->options->model, m->kernels->name, bnt_pool_threads(b->session->pool),
                 b->options->rounds);
    (void)puts("| | tok/s | | of the machine's own |\n|---|---|---|---|");
    if (b->prompt.count) {
        (void)printf("| prompt, %" PRIu64 " tokens | %.1f (%.1f – %.1f) | %.0f GOP/s |",
                     b->options->prompt, bench_median(&b->prompt), bench_least(&b->prompt),
                     bench_most(&b->prompt),
                     bench_median(&b->prompt) * (double)b->operations * 1e-9);
        if (b->int8.count)
            (void)printf(" %.0f %% of %.0f GOP/s int8 |\n", 100 * bench_median(&b->prompt_share),
                         bench_median(&b->int8));
        else
            (void)puts(" – |");
    }
    for (size_t i = 0; i < b->n_decode && b->options->tokens; i++) {
        const struct decode *d = &b->decode[i];
        double rate = bench_median(&d->rate);
        (void)printf("| decode, %" PRIu64 " tokens, %s | %.2f (%.2f – %.2f) | %.3f GB a token, "
                     "%.1f GB/s | %.0f %% of %.1f GB/s read |\n",
                     b->options->tokens, d->name, rate, bench_least(&d->rate), bench_most(&d->rate),
                     (double)d->bytes * 1e-9, rate * (double)d->bytes * 1e-9,
                     100 * bench_median(&d->share), bench_median(&b->read));
    }
    (void)printf("\nopen %.3f s, first token after %.3f s; peak memory %.0f MB = file %.0f MB + "
                 "cache %.0f MB + %.0f MB\n",
                 b->open_time, b->first_token_time, (double)peak_memory() * 1e-6,
                 (double)m->map.size * 1e-6, (double)cache_size(b) * 1e-6,
                 ((double)peak_memory() - (double)m->map.size - (double)cache_size(b)) * 1e-6);
}

static json_t *decode_json(const struct decode *d)
{
    return json_pack("{s:s, s:o, s:I, s:o}", "output", d->name, "tokens_per_second",
                     bench_json(&d->rate), "bytes_per_token", (json_int_t)d->bytes, "share_of_read",
                     bench_json(&d->share));
}

static void print_json(const struct bench *b)
{
    json_t *decodes = json_array();
    for (size_t i = 0; i < b->n_decode && b->options->tokens; i++)
        (void)json_array_append_new(decodes, decode_json(&b->decode[i]));
    json_t *all = json_pack(
        "{s:s, s:i, s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:o, s:f, s:f, s:I, s:I, s:I}",
        "kernel", b->model->kernels->name, "threads", (int)bnt_pool_threads(b->session->pool),
        "rounds", (json_int_t)b->options->rounds, "prompt_tokens", (json_int_t)b->options->prompt,
        "decode_tokens", (json_int_t)b->options->tokens, "prompt_tokens_per_second",
        bench_json(&b->prompt), "prompt_share_of_int8", bench_json(&b->prompt_share),
        "operations_per_prompt_token", (json_int_t)b->operations, "decode", decodes,
        "read_gb_per_second", bench_json(&b->read), "int8_gop_per_second", bench_json(&b->int8),
        "open_seconds", b->open_time, "first_token_seconds", b->first_token_time,
        "peak_memory_bytes", (json_int_t)peak_memory(), "file_bytes",
        (json_int_t)b->model->map.size, "cache_bytes", (json_int_t)cache_size(b));
    (void)json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    (void)puts("");
    json_decref(all);
}

static enum bnt_status measure(struct bench *b, struct bnt_error *err)
{
    struct bnt_progress progress;
    enum bnt_status status = BNT_OK;
    plan(b);
    bnt_progress_start(&progress, "measuring", b->options->rounds, "rounds", b->options->quiet);
    for (uint64_t i = 0; i < b->options->rounds && status == BNT_OK; i++) {
        status = one_round(b, err);
        bnt_progress_add(&progress, 1);
    }
    bnt_progress_end(&progress);
    return status;
}

enum bnt_status bench_model(const struct bench_options *options, struct bnt_error *err)
{
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    b->options = options;
    enum bnt_status status = open_all(b, err);
    if (status == BNT_OK)
        status = measure(b, err);
    if (status == BNT_OK && options->json)
        print_json(b);
    else if (status == BNT_OK)
        print_markdown(b);
    bnt_session_close(b->session);
    bnt_model_close(b->model);
    free(b);
    return status;
}
