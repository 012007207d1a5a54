// SPDX-License-Identifier: MIT
// The likeliest tokens by way of the int8 copy of the output matrix, exactly. Half the bytes give
// every token a score and a bound on its distance from the logit; only tokens that the bounds leave
// in the race are then computed from the matrix itself. So the choice is the same as without the
// copy.
//
// A row w of the matrix and its copy q with scale σ (bnt.md section 7), the activations x and their
// 16-bit form X with step s:
//
//   logit = lanes(w·x)            the float sum of kernels.h
//   score = σ·s·(q·X)             an exact integer sum
//
//   |w − σq| <= σ·(1/2 + 2^-16)   q is rounded from a float quotient of at most 127
//   |x − sX| <= s·0.51            likewise, of at most 32767
//   |lanes(w·x) − w·x| <= γ·Σ|w·x| <= γ·127.01·σ·Σ|x|, γ = m·u / (1 − m·u), u = 2^-24,
//                                 m = ceil(n / 16) + 5 roundings on the way of each product
//
//   |logit − score| <= σ·((1/2 + 2^-16 + 127.01·γ)·Σ|x| + 127·n·0.51·s)
//
// as long as no partial sum overflows: below FLT_MAX / σ they cannot, others have no bound.
//
// Rounding of the score to a float, and of what is computed here, is covered by a share of 2^-21.
#include <float.h>
#include <math.h>

#include "runtime/engine/session.h"

struct shortlist {
    struct bnt_session *session;
    size_t k;
    float *scores; // (vocab)
    double step;   // s
    double margin; // the bound over σ
    double reach;  // what the logit's partial sums stay below, over σ
    struct bnt_share rows;
    float threshold;                // of upper bounds
    uint32_t counts[BNT_MAX_PARTS]; // candidates of each part
};

static double bound(const struct shortlist *list, float score, float scale)
{
    if (!((double)scale * list->reach < (double)FLT_MAX))
        return INFINITY;
    return (double)scale * list->margin + fabs((double)score) * 0x1p-21 + 1e-30;
}

// x in 16 bits, and the margin. false: it does not help, x is zero or not finite.
static bool prepare(struct shortlist *list)
{
    struct bnt_session *s = list->session;
    const size_t n = s->model->hyper.hidden_size;
    double sum = 0;
    float max = 0;
    for (size_t i = 0; i < n; i++) {
        sum += fabs((double)s->last[i]);
        max = fabsf(s->last[i]) > max ? fabsf(s->last[i]) : max;
    }
    if (!(max > FLT_MIN * 65536) || !(sum < (double)FLT_MAX))
        return false;
    float step = max / 32767.0f;
    for (size_t i = 0; i < n; i++) {
        float v = rintf(s->last[i] / step);
        s->x_16[i] = (int16_t)(v > 32767.0f ? 32767.0f : v < -32767.0f ? -32767.0f : v);
    }
    const size_t steps = (n + BNT_LANES - 1) / BNT_LANES;
    double roundings = ((double)steps + 5) * 0x1p-24;
    double gamma = roundings / (1 - roundings);
    list->step = (double)step;
    list->margin = (0.5 + 0x1p-16 + 127.01 * gamma) * sum + 127 * (double)n * 0.51 * list->step;
    list->margin *= 1 + 0x1p-21;
    list->reach = 128 * sum;
    return true;
}

// --- the k greatest lower bounds: a heap with the least of them at its root ---

static void sift_down(float *heap, size_t n, float v)
{
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (v <= heap[child])
            break;
        heap[at] = heap[child];
    }
    heap[at] = v;
}

static void offer(float *heap, size_t k, float v)
{
    if (v > heap[0])
        sift_down(heap, k, v);
}

static void score_rows(void *context, unsigned part, unsigned parts)
{
    enum { ROWS_AT_ONCE = 64 };
    struct shortlist *list = context;
    const struct bnt_session *s = list->session;
    const size_t n = s->model->hyper.hidden_size;
    float *heap = s->best_bounds + part * BNT_SHORTLIST_MAX;
    int64_t sums[ROWS_AT_ONCE];
    size_t from, to;
    for (size_t i = 0; i < list->k; i++)
        heap[i] = -INFINITY;
    for (bool more = bnt_share_first(&list->rows, part, parts, &from, &to); more;
         more = bnt_share_take(&list->rows, parts, &from, &to)) {
        for (; from < to; from += ROWS_AT_ONCE) {
            size_t count = to - from < ROWS_AT_ONCE ? to - from : (size_t)ROWS_AT_ONCE;
            s->model->kernels->int8_rows(sums, s->model->output_int8 + from * n, count, n, s->x_16);
            for (size_t i = 0; i < count; i++) {
                float scale = s->model->output_scale[from + i];
                float score = (float)((double)scale * list->step * (double)sums[i]);
                list->scores[from + i] = score;
                offer(heap, list->k, (float)((double)score - bound(list, score, scale)));
            }
        }
    }
}

static float threshold(const struct shortlist *list)
{
    float *heap = list->session->best_bounds;
    for (unsigned part = 1; part < bnt_pool_threads(list->session->pool); part++) {
        const float *other = list->session->best_bounds + part * BNT_SHORTLIST_MAX;
        for (size_t i = 0; i < list->k; i++)
            offer(heap, list->k, other[i]);
    }
    return heap[0];
}

// --- the candidates, exactly ---

static size_t first_row(const struct shortlist *list, unsigned part, unsigned parts)
{
    return (size_t)list->session->model->hyper.vocab_size * part / parts;
}

static void collect(void *context, unsigned part, unsigned parts)
{
    struct shortlist *list = context;
    struct bnt_session *s = list->session;
    const struct bnt_model *m = s->model;
    const size_t n = m->hyper.hidden_size, end = first_row(list, part + 1, parts);
    struct bnt_candidate *out = s->candidates + first_row(list, part, parts);
    uint32_t count = 0;
    for (size_t r = first_row(list, part, parts); r < end; r++) {
        float score = list->scores[r];
        if ((double)score + bound(list, score, m->output_scale[r]) < (double)list->threshold)
            continue;
        out[count].id = (uint32_t)r;
        if (m->wide)
            m->kernels->rows_f32(&out[count].logit, (const float *)m->output + r * n, 1, n,
                                 s->last);
        else
            m->kernels->rows_bf16(&out[count].logit, (const uint16_t *)m->output + r * n, 1, n,
                                  s->last);
        count++;
    }
    list->counts[part] = count;
}

size_t bnt_shortlist(struct bnt_session *s, size_t k)
{
    struct shortlist list = {.session = s, .k = k, .scores = s->logits};
    if (s->full_output || !s->model->output_int8 || !prepare(&list))
        return 0;
    bnt_share_init(&list.rows, s->pool, s->model->hyper.vocab_size, 64);
    bnt_pool_run(s->pool, score_rows, &list);
    // The threshold is a float below the exact bound or rounded to it; lower it by one step.
    list.threshold = nextafterf(threshold(&list), -INFINITY);
    bnt_pool_run(s->pool, collect, &list);
    size_t count = list.counts[0];
    unsigned parts = bnt_pool_threads(s->pool);
    for (unsigned part = 1; part < parts; part++) {
        const struct bnt_candidate *from = s->candidates + first_row(&list, part, parts);
        for (uint32_t i = 0; i < list.counts[part]; i++)
            s->candidates[count++] = from[i];
    }
    return count;
}
