// SPDX-License-Identifier: MIT
#include "runtime/engine/product.h"

// --- token by token ---

struct token_step {
    struct bnt_session *session;
    void *context;
    void (*step)(struct bnt_session *session, void *context, size_t t);
    struct bnt_share tokens;
};

static void part_of_tokens(void *context, unsigned part, unsigned parts)
{
    struct token_step *job = context;
    size_t from, to;
    for (bool more = bnt_share_first(&job->tokens, part, parts, &from, &to); more;
         more = bnt_share_take(&job->tokens, parts, &from, &to)) {
        for (size_t t = from; t < to; t++)
            job->step(job->session, job->context, t);
    }
}

// One token is not worth waking anybody for.
void bnt_for_each_token(struct bnt_session *s, void *context, size_t n,
                        void (*step)(struct bnt_session *session, void *context, size_t t))
{
    struct token_step job = {.session = s, .context = context, .step = step};
    if (n == 1) {
        bnt_share_init_alone(&job.tokens, 1);
        part_of_tokens(&job, 0, 1);
        return;
    }
    bnt_share_init(&job.tokens, s->pool, n, 1);
    bnt_pool_run(s->pool, part_of_tokens, &job);
}

// --- activations ---

void bnt_quantize(struct bnt_session *s, const float *x, size_t width, size_t t)
{
    const struct bnt_kernels *kernels = s->model->kernels;
    const size_t padded = bnt_pad_cols((uint32_t)width);
    const size_t groups = bnt_row_groups(&s->model->hyper, (uint32_t)width);
    const size_t group = groups > 1 ? s->model->hyper.scale_group : padded;
    const size_t sums = groups > 1 ? groups : 1, row = t * s->parts;
    int8_t *q = s->x_q + row * s->x_q_stride;
    if (s->parts == 2) {
        s->x_scale[t] = kernels->quantize16(q, q + s->x_q_stride, x, width, padded);
    } else {
        s->x_scale[t] = kernels->quantize(q, x, width, padded, &s->x_sum[row * sums]);
        if (sums == 1)
            return;
    }
    for (size_t i = 0; i < s->parts; i++)
        kernels->group_sums(s->x_sum + (row + i) * sums, q + i * s->x_q_stride, padded, group);
}

// --- products ---

// Several matrices with the same input are taken as one.
struct sweep {
    struct bnt_session *session;
    const struct bnt_product *products;
    size_t n_products;
    size_t n; // tokens
    struct bnt_share block_rows;
};

enum { BLOCK_ROWS_AT_ONCE = 4, ROWS_AT_ONCE = BLOCK_ROWS_AT_ONCE * BNT_BLOCK_ROWS };

size_t bnt_block_rows(const struct bnt_matrix *m)
{
    return bnt_pad_rows(m->rows) / BNT_BLOCK_ROWS;
}

// Some rows of one token: the first of the matrix, and how many.
struct rows {
    const struct bnt_matrix *matrix;
    size_t first, count;
};

static void add_bias(const struct rows *r, float *out)
{
    if (!r->matrix->bias)
        return;
    for (size_t i = 0; i < r->count; i++)
        out[i] += r->matrix->bias[r->first + i];
}

// Sums over whole rows to floats; low: those of the lower bytes of 16-bit activations, or NULL.
static void take_sums(const struct rows *r, const int32_t *high, const int32_t *low, float x_scale,
                      float *out)
{
    const struct bnt_matrix *m = r->matrix;
    for (size_t i = 0; i < r->count; i++)
        out[i] = low ? (float)high[i] * 256.0f + (float)low[i] : (float)high[i];
    if (m->scales.n_groups == 0) {
        float factor = m->scale / x_scale;
        for (size_t i = 0; i < r->count; i++)
            out[i] *= factor;
        return;
    }
    const float factor = 1.0f / x_scale;
    for (size_t i = 0; i < r->count; i++)
        out[i] = out[i] * bnt_matrix_scale(m, r->first + i, 0) * factor;
}

// Block rows first … first + count − 1, at most BLOCK_ROWS_AT_ONCE.
static void block_rows_by_row(const struct sweep *sweep, const struct bnt_product *p, size_t first,
                              size_t count, struct rows rows)
{
    const struct bnt_session *s = sweep->session;
    int32_t sum[BNT_MAX_BATCH * ROWS_AT_ONCE];
    size_t n_blocks = bnt_pad_cols(rows.matrix->cols) / BNT_BLOCK_COLS;
    const uint32_t *blocks = rows.matrix->blocks + first * n_blocks * BNT_BLOCK_WORDS;
    s->model->kernels->ternary(sum, ROWS_AT_ONCE, blocks, count, n_blocks, s->x_q, s->x_q_stride,
                               s->x_sum, sweep->n * s->parts);
    for (size_t t = 0; t < sweep->n; t++) {
        const int32_t *at = sum + t * s->parts * ROWS_AT_ONCE;
        float *out = p->out + t * p->out_stride + rows.first;
        take_sums(&rows, at, s->parts == 2 ? at + ROWS_AT_ONCE : NULL, s->x_scale[t], out);
        add_bias(&rows, out);
    }
}

static void block_rows_by_group(const struct sweep *sweep, const struct bnt_product *p,
                                size_t first, size_t count, struct rows rows)
{
    const struct bnt_session *s = sweep->session;
    const struct bnt_matrix *m = rows.matrix;
    float sum[BNT_MAX_BATCH * ROWS_AT_ONCE];
    size_t n_blocks = bnt_pad_cols(m->cols) / BNT_BLOCK_COLS;
    struct bnt_scales scales = m->scales;
    scales.values = (const char *)scales.values +
                    first * scales.n_groups * BNT_BLOCK_ROWS * (scales.halves ? 2 : 4);
    s->model->kernels->ternary_groups(
        sum, ROWS_AT_ONCE, m->blocks + first * n_blocks * BNT_BLOCK_WORDS, count, n_blocks, &scales,
        s->x_q, s->x_q_stride, s->x_sum, sweep->n, s->parts == 2);
    for (size_t t = 0; t < sweep->n; t++) {
        const float factor = 1.0f / s->x_scale[t];
        float *out = p->out + t * p->out_stride + rows.first;
        for (size_t i = 0; i < rows.count; i++)
            out[i] = sum[t * ROWS_AT_ONCE + i] * factor;
        add_bias(&rows, out);
    }
}

static void some_block_rows(const struct sweep *sweep, const struct bnt_product *p, size_t first,
                            size_t count)
{
    const struct bnt_matrix *m = p->matrix;
    struct rows rows = {.matrix = m, .first = first * BNT_BLOCK_ROWS};
    rows.count = m->rows - rows.first < count * BNT_BLOCK_ROWS ? m->rows - rows.first
                                                               : count * BNT_BLOCK_ROWS;
    if (m->scales.n_groups > 1)
        block_rows_by_group(sweep, p, first, count, rows);
    else
        block_rows_by_row(sweep, p, first, count, rows);
}

// The part of [from, to) that lies in the matrix at [start, start + its block rows).
static void part_of_product(const struct sweep *sweep, const struct bnt_product *p, size_t start,
                            size_t from, size_t to)
{
    size_t end = start + bnt_block_rows(p->matrix);
    size_t at = from > start ? from : start;
    to = to < end ? to : end;
    while (at < to) {
        size_t count = to - at < BLOCK_ROWS_AT_ONCE ? to - at : BLOCK_ROWS_AT_ONCE;
        some_block_rows(sweep, p, at - start, count);
        at += count;
    }
}

static void part_of_sweep(void *context, unsigned part, unsigned parts)
{
    struct sweep *sweep = context;
    size_t from, to;
    for (bool more = bnt_share_first(&sweep->block_rows, part, parts, &from, &to); more;
         more = bnt_share_take(&sweep->block_rows, parts, &from, &to)) {
        size_t start = 0;
        for (size_t i = 0; i < sweep->n_products; i++) {
            part_of_product(sweep, &sweep->products[i], start, from, to);
            start += bnt_block_rows(sweep->products[i].matrix);
        }
    }
}

void bnt_multiply(struct bnt_session *s, const struct bnt_product *products, size_t count, size_t n)
{
    struct sweep sweep = {.session = s, .products = products, .n_products = count, .n = n};
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += bnt_block_rows(products[i].matrix);
    bnt_share_init(&sweep.block_rows, s->pool, total, 2);
    bnt_pool_run(s->pool, part_of_sweep, &sweep);
}

struct normed {
    const float *weight; // (width)
    const float *x;      // (n, width)
    size_t width;
};

static void norm_and_quantize(struct bnt_session *s, void *context, size_t t)
{
    const struct normed *input = context;
    float *normed = s->normed + t * s->normed_stride;
    s->model->kernels->rms_norm(normed, input->x + t * input->width, input->weight, input->width,
                                s->model->hyper.linear_norm_eps);
    bnt_quantize(s, normed, input->width, t);
}

void bnt_multiply_normed(struct bnt_session *s, const struct bnt_product *products, size_t count,
                         const float *x, size_t width, size_t n)
{
    for (size_t i = 0; i < count; i++) {
        struct normed input = {.weight = products[i].matrix->norm, .x = x, .width = width};
        bnt_for_each_token(s, &input, n, norm_and_quantize);
        bnt_multiply(s, &products[i], 1, n);
    }
}
