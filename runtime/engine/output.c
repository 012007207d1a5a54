// SPDX-License-Identifier: MIT
// The output layer: the final norm, then a matrix of the vocabulary's size, dense or ternary.
#include "formats/block.h"
#include "runtime/engine/product.h"

struct output_job {
    struct bnt_session *session;
    const float *x; // (n, hidden) normed
    float *logits;  // (n, vocab)
    size_t n;
    struct bnt_share rows;
};

// A handful of rows at a time, so that they are still in the cache for the next token.
enum { ROWS_AT_ONCE = 16 };

static void some_rows(const struct output_job *job, size_t from, size_t to)
{
    const struct bnt_model *m = job->session->model;
    const size_t hidden = m->hyper.hidden_size, vocab = m->hyper.vocab_size;
    for (size_t t = 0; t < job->n; t++) {
        const float *x = job->x + t * hidden;
        float *out = job->logits + t * vocab + from;
        if (m->wide)
            m->kernels->rows_f32(out, (const float *)m->output + from * hidden, to - from, hidden,
                                 x);
        else
            m->kernels->rows_bf16(out, (const uint16_t *)m->output + from * hidden, to - from,
                                  hidden, x);
    }
}

static void part_of_output(void *context, unsigned part, unsigned parts)
{
    struct output_job *job = context;
    size_t from, to;
    for (bool more = bnt_share_first(&job->rows, part, parts, &from, &to); more;
         more = bnt_share_take(&job->rows, parts, &from, &to)) {
        for (; from < to; from += ROWS_AT_ONCE)
            some_rows(job, from, to - from < ROWS_AT_ONCE ? to : from + ROWS_AT_ONCE);
    }
}

static void multiply(struct bnt_session *s, const float *x, size_t n, float *logits)
{
    const struct bnt_model *m = s->model;
    if (m->output_ternary.blocks) {
        const struct bnt_product product = {&m->output_ternary, logits, m->hyper.vocab_size};
        for (size_t t = 0; t < n; t++)
            bnt_quantize(s, x + t * m->hyper.hidden_size, m->hyper.hidden_size, t);
        bnt_multiply(s, &product, 1, n);
        return;
    }
    struct output_job job = {.session = s, .x = x, .logits = logits, .n = n};
    bnt_share_init(&job.rows, s->pool, s->model->hyper.vocab_size, ROWS_AT_ONCE);
    bnt_pool_run(s->pool, part_of_output, &job);
}

void bnt_look_ahead_to_output(const struct bnt_session *s)
{
    const struct bnt_model *m = s->model;
    const size_t vocab = m->hyper.vocab_size, values = vocab * m->hyper.hidden_size;
    if (m->output_ternary.blocks) {
        const struct bnt_matrix *o = &m->output_ternary;
        bnt_pool_ahead(s->pool, o->blocks, bnt_block_rows(o) * bnt_block_row_bytes(o->cols),
                       bnt_block_rows(o));
        return;
    }
    if (m->output_int8 && !s->full_output)
        bnt_pool_ahead(s->pool, m->output_int8, values, vocab);
    else
        bnt_pool_ahead(s->pool, m->output, values * (m->wide ? 4 : 2), vocab);
}

static void final_norm(const struct bnt_session *s, float *out, size_t t)
{
    const struct bnt_model *m = s->model;
    const size_t hidden = m->hyper.hidden_size;
    m->kernels->rms_norm(out, s->x + t * hidden, m->final_norm, hidden, m->hyper.norm_eps);
}

void bnt_all_logits(struct bnt_session *s, size_t n, float *logits)
{
    for (size_t t = 0; t < n; t++)
        final_norm(s, s->h + t * s->model->hyper.hidden_size, t);
    multiply(s, s->h, n, logits);
}

void bnt_keep_last(struct bnt_session *s, size_t t)
{
    final_norm(s, s->last, t);
}

void bnt_last_logits(struct bnt_session *s, float *logits)
{
    multiply(s, s->last, 1, logits);
}
