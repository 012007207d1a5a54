// SPDX-License-Identifier: MIT
// Choosing a token. What is kept is decided by rank, the choice among it by a walk in the order of
// ids: so it needs no sorted list beyond the cut, and another device can do the same.
#include <math.h>

#include "runtime/kernels/exp.h"
#include "runtime/engine/penalty.h"
#include "runtime/engine/random.h"
#include "runtime/engine/session.h"

static float clean(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

// More likely first; of equals the lower id.
static int compare(const struct bnt_candidate *x, const struct bnt_candidate *y)
{
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

// Sorts n candidates in place: heapsort, since qsort may allocate.
static void sort(struct bnt_candidate *c, size_t n,
                 int (*order)(const struct bnt_candidate *, const struct bnt_candidate *))
{
    for (size_t i = n / 2, end = n; end > 1;) {
        struct bnt_candidate v;
        if (i > 0) {
            v = c[--i];
        } else {
            v = c[--end];
            c[end] = c[0];
        }
        size_t at = i;
        for (size_t child; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && order(&c[child + 1], &c[child]) > 0)
                child++;
            if (order(&v, &c[child]) >= 0)
                break;
            c[at] = c[child];
        }
        c[at] = v;
    }
}

static double weight(float logit, float max)
{
    return (double)bnt_exp(logit - max); // max keeps it from overflowing
}

// Moves the k most likely to the front, in any order (quickselect).
static void select_top(struct bnt_candidate *c, size_t n, size_t k)
{
    size_t low = 0, high = n;
    while (high - low > 1 && low < k) {
        struct bnt_candidate pivot =
            c[low + (high - 1 - low) / 2]; // never the last, or nothing might move
        size_t i = low, j = high - 1;
        for (;;) {
            while (compare(&c[i], &pivot) < 0)
                i++;
            while (compare(&c[j], &pivot) > 0)
                j--;
            if (i >= j)
                break;
            struct bnt_candidate t = c[i];
            c[i++] = c[j];
            c[j--] = t;
        }
        size_t middle = j + 1; // c[low … middle) come before c[middle … high)
        if (k < middle)
            high = middle;
        else
            low = middle;
    }
}

// How many of n candidates, most likely first once sorted, reach the share p of their sum. Those
// too unlikely to matter even together are set aside unsorted: n of them below (1 − p)/n of the sum
// stay below 1 − p.
static size_t cut_top_p(struct bnt_candidate *c, size_t n, float p, float max)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += weight(c[i].logit, max);
    double floor = (1 - (double)p) / (double)n * sum;
    size_t likely = 0;
    for (size_t i = 0; i < n; i++) {
        if (weight(c[i].logit, max) >= floor) {
            struct bnt_candidate t = c[likely];
            c[likely++] = c[i];
            c[i] = t;
        }
    }
    sort(c, likely, compare);
    double reached = 0;
    for (size_t i = 0; i < likely; i++) {
        reached += weight(c[i].logit, max);
        if (reached >= (double)p * sum)
            return i + 1;
    }
    return likely ? likely : 1;
}

// Keeps those that are likely enough beside the likeliest, in their order; returns how many.
static size_t cut_min_p(struct bnt_candidate *c, size_t n, float floor, float max)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (c[i].logit - max >= floor)
            c[kept++] = c[i];
    }
    return kept;
}

static int compare_ids(const struct bnt_candidate *x, const struct bnt_candidate *y)
{
    return (x->id > y->id) - (x->id < y->id);
}

static uint32_t choose(const struct bnt_candidate *c, size_t n, float max, uint64_t *state)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += weight(c[i].logit, max);
    double left = bnt_random_number(state) * sum;
    for (size_t i = 0; i + 1 < n; i++) {
        left -= weight(c[i].logit, max);
        if (left < 0)
            return c[i].id;
    }
    return c[n - 1].id;
}

// Chooses among candidates in the order of their ids, the best of which is known. Whatever is kept
// is brought back into that order before anything is added up, so that the same tokens give the
// same choice wherever they came from.
static uint32_t choose_from(struct bnt_candidate *c, size_t n, size_t best,
                            const struct bnt_sampling *sampling, uint64_t *state)
{
    uint32_t id = c[best].id;
    for (size_t i = 0; i < n; i++)
        c[i].logit = clean(c[i].logit) / sampling->temperature;
    float max = c[best].logit;
    if (!isfinite(max)) // a tiny temperature: the likeliest is all that is left
        return id;
    if (sampling->top_k > 0 && sampling->top_k < n) {
        select_top(c, n, sampling->top_k);
        n = sampling->top_k;
        sort(c, n, compare_ids);
    }
    if (sampling->top_p > 0 && sampling->top_p < 1) {
        n = cut_top_p(c, n, sampling->top_p, max);
        sort(c, n, compare_ids);
    }
    n = cut_min_p(c, n, bnt_min_p_floor(sampling), max);
    return choose(c, n, max, state);
}

static size_t best_of(const struct bnt_candidate *c, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (clean(c[i].logit) > clean(c[best].logit))
            best = i;
    }
    return best;
}

static uint32_t most_likely(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++) {
        if (clean(logits[i]) > clean(logits[best]))
            best = i;
    }
    return best;
}

// Candidates that the session has seen get the logits that sampling gives them.
static void penalize(struct bnt_session *s, struct bnt_candidate *c, size_t n,
                     const struct bnt_sampling *sampling)
{
    const struct bnt_penalties penalties = bnt_penalties_of(sampling);
    if (!bnt_penalties_any(penalties))
        return;
    const struct bnt_seen_list list = bnt_history_list(&s->history, s->position);
    for (size_t i = 0; i < n; i++) {
        const uint32_t place = s->history.places[c[i].id];
        if (place > 0)
            c[i].logit = bnt_penalize(c[i].logit, list.seen[place - 1].count, penalties);
    }
}

static uint32_t sample_candidates(struct bnt_candidate *c, size_t n,
                                  const struct bnt_sampling *sampling, uint64_t *state)
{
    size_t best = best_of(c, n);
    if (!(sampling->temperature > 0) || !isfinite(c[best].logit))
        return c[best].id;
    return choose_from(c, n, best, sampling, state);
}

uint32_t bnt_sample(struct bnt_session *s, const float *logits, const struct bnt_sampling *sampling,
                    uint64_t *state)
{
    const uint32_t vocab = s->model->hyper.vocab_size;
    if (!(sampling->temperature > 0) && !bnt_penalties_any(bnt_penalties_of(sampling)))
        return most_likely(logits, vocab); // no list for every token
    for (uint32_t i = 0; i < vocab; i++)
        s->candidates[i] = (struct bnt_candidate){.logit = logits[i], .id = i};
    penalize(s, s->candidates, vocab, sampling);
    return sample_candidates(s->candidates, vocab, sampling, state);
}

// How many of the likeliest tokens must be known; 0: all.
static size_t find_shortlist(struct bnt_session *s, const struct bnt_sampling *sampling)
{
    const struct bnt_penalties penalties = bnt_penalties_of(sampling);
    const size_t k = sampling->temperature > 0 ? sampling->top_k : 1;
    if (k == 0 || !bnt_penalties_any(penalties))
        return k;
    return bnt_penalties_lower(penalties) ? k + bnt_history_list(&s->history, s->position).n : 0;
}

uint32_t bnt_next_token(struct bnt_session *s, const struct bnt_sampling *sampling, uint64_t *state)
{
    size_t k = find_shortlist(s, sampling);
    size_t n = k > 0 && k <= BNT_SHORTLIST_MAX ? bnt_shortlist(s, k) : 0;
    penalize(s, s->candidates, n, sampling);
    if (n > 0)
        return sample_candidates(s->candidates, n, sampling, state);
    bnt_last_logits(s, s->logits);
    return bnt_sample(s, s->logits, sampling, state);
}

enum bnt_status bnt_sampling_check(const struct bnt_sampling *s, struct bnt_error *err)
{
    const struct bnt_sampling_record record = {
        .repetition_penalty = bnt_penalties_of(s).repetition,
        .presence_penalty = s->presence_penalty,
        .frequency_penalty = s->frequency_penalty,
        .min_p = s->min_p,
    };
    const char *problem = bnt_sampling_problem(&record);
    return problem ? bnt_fail(err, BNT_ERR_ARGUMENT, "sampling: %s is out of its range", problem)
                   : BNT_OK;
}
