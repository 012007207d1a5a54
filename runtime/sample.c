// SPDX-License-Identifier: MIT
// Choosing a token. What is kept is decided by rank, the choice among it by a walk in the order of
// ids: so it needs no sorted list beyond the cut, and another device can do the same.
#include <math.h>
#include <stdlib.h>

#include "runtime/session.h"

static float clean(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

// More likely first; of equals the lower id.
static int compare(const void *a, const void *b)
{
    const struct bnt_candidate *x = a;
    const struct bnt_candidate *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
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

// splitmix64: a number in [0, 1).
static double random_number(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static double weight(float logit, float max)
{
    return (double)expf(logit - max); // max keeps it from overflowing
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
    qsort(c, likely, sizeof c[0], compare);
    double reached = 0;
    for (size_t i = 0; i < likely; i++) {
        reached += weight(c[i].logit, max);
        if (reached >= (double)p * sum)
            return i + 1;
    }
    return likely ? likely : 1;
}

static int compare_ids(const void *a, const void *b)
{
    const struct bnt_candidate *x = a;
    const struct bnt_candidate *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static uint32_t choose(const struct bnt_candidate *c, size_t n, float max, uint64_t *state)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += weight(c[i].logit, max);
    double left = random_number(state) * sum;
    for (size_t i = 0; i + 1 < n; i++) {
        left -= weight(c[i].logit, max);
        if (left < 0)
            return c[i].id;
    }
    return c[n - 1].id;
}

uint32_t bnt_sample(struct bnt_session *s, const float *logits, const struct bnt_sampling *sampling,
                    uint64_t *state)
{
    const uint32_t vocab = s->model->hyper.vocab_size;
    uint32_t best = most_likely(logits, vocab);
    if (!(sampling->temperature > 0) || !isfinite(logits[best]))
        return best;
    struct bnt_candidate *c = s->candidates;
    size_t n = vocab;
    for (uint32_t i = 0; i < vocab; i++)
        c[i] = (struct bnt_candidate){.logit = clean(logits[i]) / sampling->temperature, .id = i};
    float max = c[best].logit;
    if (!isfinite(max)) // a tiny temperature: the likeliest is all that is left
        return best;
    bool cut = false;
    if (sampling->top_k > 0 && sampling->top_k < n) {
        select_top(c, n, sampling->top_k);
        n = sampling->top_k;
        cut = true;
    }
    if (sampling->top_p > 0 && sampling->top_p < 1) {
        n = cut_top_p(c, n, sampling->top_p, max);
        cut = true;
    }
    if (cut)
        qsort(c, n, sizeof c[0], compare_ids);
    return choose(c, n, max, state);
}
