// SPDX-License-Identifier: MIT
// The ternary products alone on the CPU, for the shapes of the published kernel: one token with
// cold weights (more of them than the caches hold, taken in turn) and warm ones, and a batch of
// tokens.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/cli.h"
#include "formats/layout.h"
#include "runtime/bench/bench.h"

const struct bench_shape bench_shapes[BENCH_SHAPES] = {{2560, 2560},  {3840, 2560}, {13824, 2560},
                                                       {2560, 6912},  {3200, 3200}, {4800, 3200},
                                                       {3200, 10240}, {20480, 3200}};

// Bytes of weights: several times what caches hold.
enum { WEIGHTS = 512 << 20, ROWS_AT_ONCE = 4, STRIDE = 10240 + 64 };

struct product {
    const struct bnt_kernels *kernels;
    struct bnt_pool *pool;
    uint32_t *weights; // WEIGHTS bytes
    int8_t *x;         // (BNT_MAX_BATCH, STRIDE)
    int32_t x_sum[BNT_MAX_BATCH];
    const uint32_t *matrix;
    size_t n_blocks, tokens;
    struct bnt_share block_rows;
};

struct result {
    struct bench_series cold, warm; // GB/s
    struct bench_series cold_share;
    struct bench_series batch, batch_share; // GOP/s
};

static void part_of_product(void *context, unsigned part, unsigned parts)
{
    struct product *p = context;
    int32_t out[BNT_MAX_BATCH * ROWS_AT_ONCE * BNT_BLOCK_ROWS];
    size_t from, to;
    for (bool more = bnt_share_first(&p->block_rows, part, parts, &from, &to); more;
         more = bnt_share_take(&p->block_rows, parts, &from, &to)) {
        for (; from < to; from += ROWS_AT_ONCE)
            p->kernels->ternary(out, ROWS_AT_ONCE * BNT_BLOCK_ROWS,
                                p->matrix + from * p->n_blocks * BNT_BLOCK_WORDS,
                                to - from < ROWS_AT_ONCE ? to - from : ROWS_AT_ONCE, p->n_blocks,
                                p->x, STRIDE, p->x_sum, p->tokens);
    }
}

static void multiply(struct product *p, size_t shape, size_t copy, size_t tokens)
{
    const size_t words = (size_t)bench_shapes[shape].rows * bench_shapes[shape].cols / 16;
    p->matrix = p->weights + copy * words;
    p->n_blocks = bench_shapes[shape].cols / BNT_BLOCK_COLS;
    p->tokens = tokens;
    bnt_share_init(&p->block_rows, p->pool, bench_shapes[shape].rows / BNT_BLOCK_ROWS, 2);
    bnt_pool_run(p->pool, part_of_product, p);
}

// Seconds of one product; copies of the matrix are taken in turn.
static double time_products(struct product *p, size_t shape, size_t copies, size_t tokens,
                            size_t count)
{
    double start = bench_now();
    for (size_t i = 0; i < count; i++)
        multiply(p, shape, i % copies, tokens);
    return (bench_now() - start) / (double)count;
}

static void one_round(struct product *p, struct result *results, struct bench_series *read,
                      struct bench_series *int8)
{
    for (size_t i = 0; i < BENCH_SHAPES; i++) {
        const double reading = bench_read(p->pool, p->weights, WEIGHTS);
        const double peak = bench_int8(p->pool, p->kernels->name);
        bench_add(read, reading);
        bench_add(int8, peak);
        const double bytes = (double)bench_shapes[i].rows * bench_shapes[i].cols / 4;
        const size_t copies = (size_t)(WEIGHTS / bytes);
        double cold = bytes / time_products(p, i, copies, 1, copies) * 1e-9;
        double batch = bytes * 8 * BNT_MAX_BATCH / time_products(p, i, 1, BNT_MAX_BATCH, 2) * 1e-9;
        bench_add(&results[i].cold, cold);
        bench_add(&results[i].cold_share, cold / reading);
        bench_add(&results[i].warm, bytes / time_products(p, i, 1, 1, 50) * 1e-9);
        bench_add(&results[i].batch, batch);
        if (peak > 0)
            bench_add(&results[i].batch_share, batch / peak);
    }
}

static void print_markdown(const struct product *p, const struct result *results,
                           const struct bench_series *read, const struct bench_series *int8)
{
    (void)printf(
        "kernel %s, %u threads, %zu rounds, medians; this machine reads %.1f GB/s and does "
        "%.0f int8 GOP/s\n\n",
        p->kernels->name, bnt_pool_threads(p->pool), read->count / BENCH_SHAPES, bench_median(read),
        bench_median(int8));
    (void)printf("| N×K | 1 token, cold: µs | GB/s | of read | warm: GB/s | %d tokens: GOP/s | of "
                 "int8 |\n|---|---|---|---|---|---|---|\n",
                 BNT_MAX_BATCH);
    for (size_t i = 0; i < BENCH_SHAPES; i++) {
        const struct result *r = &results[i];
        const double bytes = (double)bench_shapes[i].rows * bench_shapes[i].cols / 4;
        (void)printf("| %u×%u | %.1f | %.1f | %.0f %% | %.1f | %.0f | %.0f %% |\n",
                     bench_shapes[i].rows, bench_shapes[i].cols,
                     bytes / bench_median(&r->cold) * 1e-3, bench_median(&r->cold),
                     100 * bench_median(&r->cold_share), bench_median(&r->warm),
                     bench_median(&r->batch), 100 * bench_median(&r->batch_share));
    }
}

static void print_json(const struct product *p, const struct result *results,
                       const struct bench_series *read, const struct bench_series *int8)
{
    json_t *list = json_array();
    for (size_t i = 0; i < BENCH_SHAPES; i++) {
        const struct result *r = &results[i];
        (void)json_array_append_new(
            list,
            json_pack("{s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "rows", (int)bench_shapes[i].rows,
                      "cols", (int)bench_shapes[i].cols, "cold_gb_per_second", bench_json(&r->cold),
                      "cold_share_of_read", bench_json(&r->cold_share), "warm_gb_per_second",
                      bench_json(&r->warm), "batch_gop_per_second", bench_json(&r->batch),
                      "batch_share_of_int8", bench_json(&r->batch_share)));
    }
    json_t *all =
        json_pack("{s:s, s:i, s:i, s:i, s:o, s:o, s:o}", "kernel", p->kernels->name, "threads",
                  (int)bnt_pool_threads(p->pool), "rounds", (int)(read->count / BENCH_SHAPES),
                  "batch_tokens", (int)BNT_MAX_BATCH, "read_gb_per_second", bench_json(read),
                  "int8_gop_per_second", bench_json(int8), "shapes", list);
    bench_print_json(all);
}

// Arbitrary legal codes and activations.
static void fill(struct product *p)
{
    for (size_t i = 0; i < WEIGHTS / sizeof p->weights[0]; i++)
        p->weights[i] = (uint32_t)i * 2654435761u | 0xAAAAAAAA;
    for (size_t t = 0; t < BNT_MAX_BATCH; t++) {
        for (size_t k = 0; k < STRIDE; k++)
            p->x[t * STRIDE + k] = (int8_t)(k * 37 + t * 11);
    }
}

enum bnt_status bench_gemv(const struct bench_options *o, struct bnt_error *err)
{
    struct product p = {0};
    struct bench_series read = {0}, int8 = {0};
    struct bnt_progress progress;
    enum bnt_status status = bnt_kernels_find(o->kernel, &p.kernels, err);
    if (status != BNT_OK)
        return status;
    struct result *results = calloc(BENCH_SHAPES, sizeof *results);
    p.pool = bnt_pool_open((unsigned)o->threads);
    p.weights = aligned_alloc(4096, WEIGHTS);
    p.x = aligned_alloc(64, (size_t)BNT_MAX_BATCH * STRIDE);
    if (results && p.pool && p.weights && p.x) {
        fill(&p);
        bnt_progress_start(&progress, "measuring", o->rounds, "rounds", o->quiet);
        for (uint64_t i = 0; i < o->rounds; i++) {
            one_round(&p, results, &read, &int8);
            bnt_progress_add(&progress, 1);
        }
        bnt_progress_end(&progress);
        (o->json ? print_json : print_markdown)(&p, results, &read, &int8);
    } else {
        status = bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    }
    bnt_pool_close(p.pool);
    free(p.weights);
    free(p.x);
    free(results);
    return status;
}
