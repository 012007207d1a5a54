// SPDX-License-Identifier: MIT
// What a text and a conversation have in common: how tokens are chosen, and how they are printed.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/run/run.h"

double bnt_run_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// false: out of memory.
static bool keep(struct run_printer *p, const char *text, size_t size)
{
    if (size > p->capacity - p->size) {
        size_t capacity = 2 * p->capacity + size;
        char *grown = realloc(p->text, capacity);
        if (!grown)
            return false;
        p->text = grown;
        p->capacity = capacity;
    }
    if (size)
        memcpy(p->text + p->size, text, size);
    p->size += size;
    return true;
}

bool bnt_run_print(void *context, uint32_t token, const char *text, size_t size)
{
    struct run_printer *p = context;
    if (p->count++ == 0)
        p->first = bnt_run_now();
    p->last = token == UINT32_MAX ? p->last : token;
    if (p->ids)
        p->failed = printf("%s%" PRIu32, p->count > 1 ? "," : "", token) < 0;
    else if (size > 0)
        p->failed = fwrite(text, 1, size, stdout) != size;
    p->failed = p->failed || fflush(stdout) != 0;
    p->lost = p->keeps && !keep(p, text, size);
    return !p->failed && !p->lost;
}

static float given_or(struct run_real argument, float fallback)
{
    return argument.given ? (float)argument.value : fallback;
}

struct bnt_sampling bnt_run_sampling(const struct run_arguments *a,
                                     const struct bnt_model_info *info)
{
    return (struct bnt_sampling){
        .temperature = given_or(a->temperature, info->temperature),
        .top_k = a->has_top_k ? (uint32_t)a->top_k : info->top_k,
        .top_p = given_or(a->top_p, info->top_p),
        .min_p = given_or(a->min_p, info->min_p),
        .repetition_penalty = given_or(a->repetition, info->repetition_penalty),
        .presence_penalty = given_or(a->presence, info->presence_penalty),
        .frequency_penalty = given_or(a->frequency, info->frequency_penalty),
        .seed = a->seed,
    };
}

size_t bnt_run_tokens(const struct run_arguments *a, const struct bnt_model_info *info,
                      size_t fallback)
{
    if (a->has_tokens)
        return (size_t)a->tokens;
    return info->max_new_tokens ? info->max_new_tokens : fallback;
}
