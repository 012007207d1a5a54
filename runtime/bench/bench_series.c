// SPDX-License-Identifier: MIT
// The clock of bnt-bench, and statistics of what it measures.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/bench/bench.h"

double bench_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void bench_add(struct bench_series *series, double value)
{
    if (series->count < BENCH_MAX_VALUES)
        series->value[series->count++] = value;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct bench_series sorted(const struct bench_series *series)
{
    struct bench_series s = *series;
    qsort(s.value, s.count, sizeof s.value[0], compare);
    return s;
}

double bench_median(const struct bench_series *series)
{
    struct bench_series s = sorted(series);
    return s.count ? (s.value[(s.count - 1) / 2] + s.value[s.count / 2]) / 2 : 0;
}

double bench_least(const struct bench_series *series)
{
    return series->count ? sorted(series).value[0] : 0;
}

double bench_most(const struct bench_series *series)
{
    return series->count ? sorted(series).value[series->count - 1] : 0;
}

json_t *bench_json(const struct bench_series *series)
{
    return json_pack("{s:f, s:f, s:f}", "median", bench_median(series), "min", bench_least(series),
                     "max", bench_most(series));
}

void bench_print_json(json_t *json)
{
    (void)json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    (void)puts("");
    json_decref(json);
}
