// SPDX-License-Identifier: MIT
// What the parts of bnt-bench share: statistics, and what the machine itself can do.
#ifndef BNT_RUNTIME_BENCH_H
#define BNT_RUNTIME_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"
#include "runtime/bnt.h"
#include "runtime/cuda/bench.h"
#include "runtime/kernels/kernels.h"
#include "runtime/engine/pool.h"

enum { BENCH_MAX_ROUNDS = 50, BENCH_MAX_VALUES = 32 * BENCH_MAX_ROUNDS };

struct bench_options {
    const char *model;
    const char *kernel;
    const char *cublas;      // its library; NULL: where the system finds it
    uint64_t prompt, tokens; // 0: leave it out
    uint64_t threads, rounds;
    enum bnt_cache cache;
    enum bnt_device device; // CUDA or AUTO only where gpu is not NULL
    struct bnt_cuda_bench *gpu;
    double gpu_start_time; // seconds until it was ready
    bool end_to_end, json, quiet;
};

// --- statistics (bench_series.c) ---

// Measurements, one or some of each round.
struct bench_series {
    size_t count;
    double value[BENCH_MAX_VALUES];
};

void bench_add(struct bench_series *series, double value);
double bench_median(const struct bench_series *series);
double bench_least(const struct bench_series *series);
double bench_most(const struct bench_series *series);
// {"median": …, "min": …, "max": …}
json_t *bench_json(const struct bench_series *series);
// Prints all of it to standard output, and lets go of it.
void bench_print_json(json_t *json);

// Seconds of a steady clock.
double bench_now(void);

// --- floors of the CPU (bench_floor.c); those of the GPU are in cuda/bench.h ---

// Reads the bytes once with all threads, added up by the widest plain loads; GB/s.
double bench_read(struct bnt_pool *pool, const void *bytes, size_t size);

// Runs the set's own int8 multiply-add on registers alone, with all threads; GOP/s, two operations
// a multiply-add. 0: there is none for this set (scalar).
double bench_int8(struct bnt_pool *pool, const char *kernel);

// --- what is measured ---

// A model: prompt and decoding, whole texts. Prints. (bench_model.c)
enum bnt_status bench_model(const struct bench_options *options, struct bnt_error *err);

// The products alone, of the shapes of the published kernel. Print. (bench_gemv.c,
// bench_gemv_gpu.c)
enum { BENCH_SHAPES = 8 };
extern const struct bench_shape bench_shapes[BENCH_SHAPES];
enum bnt_status bench_gemv(const struct bench_options *options, struct bnt_error *err);
enum bnt_status bench_gemv_gpu(const struct bench_options *options, struct bnt_error *err);

#endif
