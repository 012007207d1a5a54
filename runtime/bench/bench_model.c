// SPDX-License-Identifier: MIT
// A model from end to end: opening it, and rounds of everything that is measured.
#include <inttypes.h>
#include <stdlib.h>

#include "formats/cli.h"
#include "runtime/bench/bench_model.h"
#include "runtime/options.h"

// The most that was in use so far.
static enum bnt_status see_memory(struct bench *b, struct bnt_error *err)
{
    uint64_t now = 0;
    enum bnt_status status = b->gpu ? bnt_cuda_bench_memory(b->gpu, &now, err) : BNT_OK;
    b->memory = now > b->memory ? now : b->memory;
    return status;
}

// --- opening ---

static uint64_t section_size(const struct bnt_model *m, uint32_t type)
{
    const struct bnt_section_record *s = bnt_view_section(&m->view, type);
    return s ? s->size : 0;
}

// Of an embedding that is ternary and not the output matrix, a token reads one row.
static uint64_t embedding_only(const struct bnt_model *m)
{
    const struct bnt_matrix *e = &m->embedding_ternary;
    if (!e->blocks || e->blocks == m->output_ternary.blocks)
        return 0;
    const uint64_t rows = bnt_pad_rows(e->rows);
    return rows * bnt_pad_cols(e->cols) / 4 +
           rows * e->scales.n_groups * (e->scales.halves ? 2 : 4);
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
    const uint64_t ternary =
        section_size(m, BNT_SECTION_TERN) + section_size(m, BNT_SECTION_SCAL) - embedding_only(m);
    struct bench_decode *full = &b->decode[0], *int8 = &b->decode[1];
    b->operations = 2 * ternary_weights(m) * (m->hyper.activation_bits / 8); // of 8 bits
    full->name = m->wide ? "f32 output" : "bf16 output";
    full->full_output = true;
    full->bytes = ternary + output * (m->wide ? 4 : 2);
    if (m->output_ternary.blocks) { // among the ternary ones
        full->name = "ternary output";
        full->bytes = ternary;
    }
    int8->name = "int8 output, exact";
    int8->bytes = ternary + output + 4 * m->hyper.vocab_size;
    b->n_decode = m->output_int8 ? 2 : 1;
    for (size_t i = 0; i < b->n_decode; i++)
        bench_texts_plan(&b->decode[i]);
}

static enum bnt_status choose_context(struct bench *b, struct bnt_error *err)
{
    const struct bench_options *o = b->options;
    const uint64_t most = b->model->hyper.max_context;
    if (o->prompt > most || o->tokens > most)
        return bnt_fail(err, BNT_ERR_ARGUMENT,
                        "the model has room for %" PRIu64 " tokens; ask for fewer by -p and -n",
                        most);
    uint64_t context = o->prompt > o->tokens ? o->prompt : o->tokens;
    if (b->end_to_end && bench_texts_context(b->model) > context)
        context = bench_texts_context(b->model);
    b->context = (uint32_t)context;
    return BNT_OK;
}

static enum bnt_status open_session(struct bench *b, bool full_output, struct bnt_error *err)
{
    const struct bnt_session_options options = {.context = b->context,
                                                .threads = (uint32_t)b->options->threads,
                                                .cache = b->options->cache,
                                                .device = b->device,
                                                .full_output = full_output};
    bnt_session_close(b->session);
    b->session = NULL; // not two at a time: the memory is measured
    b->full_output = full_output;
    return bnt_session_open(b->model, &options, &b->session, err);
}

// AUTO may end up on the CPU after all, for lack of the GPU's memory.
static void settle_device(struct bench *b)
{
    if (!b->gpu || b->session->cuda)
        return;
    bnt_option_note(bnt_session_note(b->session), b->options->quiet);
    b->gpu = NULL;
    b->device = BNT_DEVICE_CPU;
}

static enum bnt_status first_token(struct bench *b, struct bnt_error *err)
{
    static const struct bnt_sampling greedy;
    struct bench_clock clock = {0};
    return bench_time_text(b->session, 1, 1, &greedy, &clock, err);
}

// Opens everything, timed, and evaluates a first token.
static enum bnt_status open_all(struct bench *b, struct bnt_error *err)
{
    const struct bench_options *o = b->options;
    enum bnt_status status = see_memory(b, err);
    b->memory_before = b->memory;
    const double start = bench_now();
    if (status == BNT_OK)
        status = bnt_model_open(o->model, o->kernel, &b->model, err);
    if (status == BNT_OK)
        status = choose_context(b, err);
    if (status == BNT_OK)
        status = open_session(b, true, err);
    if (status != BNT_OK)
        return status;
    settle_device(b);
    b->open_time = bench_now() - start;
    status = first_token(b, err);
    b->first_token_time = bench_now() - start;
    return status;
}

// --- rounds ---

// The session for this kind of output layer, warm.
static enum bnt_status use_output(struct bench *b, const struct bench_decode *d,
                                  struct bnt_error *err)
{
    if (b->full_output == d->full_output)
        return BNT_OK;
    enum bnt_status status = open_session(b, d->full_output, err);
    return status == BNT_OK ? first_token(b, err) : status;
}

static enum bnt_status one_round(struct bench *b, struct bnt_error *err)
{
    enum bnt_status status = BNT_OK;
    for (size_t i = 0; i < b->n_decode && status == BNT_OK; i++) {
        struct bench_decode *d = &b->decode[i];
        status = use_output(b, d, err);
        if (status == BNT_OK && b->options->prompt && i == 0)
            status = bench_rates_prompt(b, err);
        if (status == BNT_OK && b->options->tokens)
            status = bench_rates_decode(b, d, err);
        if (status == BNT_OK && b->end_to_end)
            status = bench_texts(b, d, err);
        if (status == BNT_OK)
            status = see_memory(b, err);
    }
    return status;
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
    b->gpu = options->gpu;
    b->device = options->device;
    b->end_to_end = options->end_to_end || options->gpu;
    enum bnt_status status = open_all(b, err);
    if (status == BNT_OK)
        status = measure(b, err);
    if (status == BNT_OK)
        bench_print(b);
    bnt_session_close(b->session);
    bnt_model_close(b->model);
    free(b);
    return status;
}
