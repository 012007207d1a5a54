// SPDX-License-Identifier: MIT
// The ternary products alone on the GPU, beside cuBLAS with matrices of the same shapes in bf16:
// one token with cold weights (more of them than the L2 cache holds, taken in turn) and warm ones,
// all products of a token of one model, and many tokens with warm weights.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/cli.h"
#include "runtime/bench/bench.h"

// The matrices of a layer of BitNet-b1.58-2B-4T: query, key and value as one, output, gate and up
// as one, down.
static const struct bench_shape layer[] = {{3840, 2560}, {2560, 2560}, {13824, 2560}, {2560, 6912}};
enum { LAYER_SHAPES = sizeof layer / sizeof layer[0], LAYERS = 30 };

static const uint32_t batches[] = {64, 256, 512};
enum { BATCHES = sizeof batches / sizeof batches[0] };

struct batch {
    struct bench_series rate, share; // GOP/s, and of the device's own
    struct bench_series times_bf16;
};

struct result {
    struct bench_series cold, warm;           // GB/s
    struct bench_series cold_share;           // of what the device reads
    struct bench_series bf16_cold, bf16_warm; // seconds
    struct bench_series cold_times_bf16, warm_times_bf16;
    struct batch batches[BATCHES];
};

struct products {
    struct bnt_cuda_bench *gpu;
    uint64_t rounds;
    bool has_bf16;
    struct bnt_error no_bf16; // why not
    struct bench_series read, int8;
    struct bench_series token; // seconds
    struct result results[BENCH_SHAPES];
};

// --- measuring ---

static double bytes_of(struct bench_shape shape)
{
    return (double)shape.rows * shape.cols / 4;
}

// Seconds of one of the products.
static enum bnt_status time_one(struct products *p, const struct bnt_cuda_bench_products *products,
                                double *seconds, struct bnt_error *err)
{
    double all;
    enum bnt_status status = bnt_cuda_bench_multiply(p->gpu, products, &all, err);
    if (status == BNT_OK)
        *seconds = all / (double)products->count;
    return status;
}

static enum bnt_status time_token(struct products *p, enum bnt_cuda_bench_by by,
                                  const struct bench_shape *shape, bool cold, double *seconds,
                                  struct bnt_error *err)
{
    enum { LEAST = 100, CACHES = 4 }; // products in a graph, and how often they fill the L2 cache
    const double cache = (double)bnt_cuda_bench_device(p->gpu)->l2_size;
    const size_t copies = (size_t)(CACHES * cache / bytes_of(*shape)) + 1;
    const struct bnt_cuda_bench_products products = {.by = by,
                                                     .shapes = shape,
                                                     .n_shapes = 1,
                                                     .count = copies < LEAST ? LEAST : copies,
                                                     .tokens = 1,
                                                     .cold = cold};
    return time_one(p, &products, seconds, err);
}

static enum bnt_status time_batch(struct products *p, enum bnt_cuda_bench_by by,
                                  const struct bench_shape *shape, uint32_t tokens, double *seconds,
                                  struct bnt_error *err)
{
    const struct bnt_cuda_bench_products products = {
        .by = by, .shapes = shape, .n_shapes = 1, .count = 10, .tokens = tokens};
    return time_one(p, &products, seconds, err);
}

static enum bnt_status one_token(struct products *p, const struct bench_shape *shape, double read,
                                 struct result *r, struct bnt_error *err)
{
    double cold, warm, bf16_cold, bf16_warm;
    enum bnt_status status = time_token(p, BNT_CUDA_BENCH_TERNARY, shape, true, &cold, err);
    if (status == BNT_OK)
        status = time_token(p, BNT_CUDA_BENCH_TERNARY, shape, false, &warm, err);
    if (status != BNT_OK)
        return status;
    bench_add(&r->cold, bytes_of(*shape) / cold * 1e-9);
    bench_add(&r->warm, bytes_of(*shape) / warm * 1e-9);
    bench_add(&r->cold_share, bytes_of(*shape) / cold * 1e-9 / read);
    if (!p->has_bf16)
        return BNT_OK;
    status = time_token(p, BNT_CUDA_BENCH_BF16, shape, true, &bf16_cold, err);
    if (status == BNT_OK)
        status = time_token(p, BNT_CUDA_BENCH_BF16, shape, false, &bf16_warm, err);
    if (status != BNT_OK)
        return status;
    bench_add(&r->bf16_cold, bf16_cold);
    bench_add(&r->bf16_warm, bf16_warm);
    bench_add(&r->cold_times_bf16, bf16_cold / cold);
    bench_add(&r->warm_times_bf16, bf16_warm / warm);
    return BNT_OK;
}

static enum bnt_status one_batch(struct products *p, const struct bench_shape *shape,
                                 uint32_t tokens, double peak, struct batch *b,
                                 struct bnt_error *err)
{
    double seconds, bf16;
    enum bnt_status status = time_batch(p, BNT_CUDA_BENCH_TERNARY, shape, tokens, &seconds, err);
    if (status != BNT_OK)
        return status;
    const double rate = 2.0 * shape->rows * shape->cols * tokens / seconds * 1e-9;
    bench_add(&b->rate, rate);
    bench_add(&b->share, rate / peak);
    if (!p->has_bf16)
        return BNT_OK;
    status = time_batch(p, BNT_CUDA_BENCH_BF16, shape, tokens, &bf16, err);
    if (status == BNT_OK)
        bench_add(&b->times_bf16, bf16 / seconds);
    return status;
}

static enum bnt_status one_shape(struct products *p, size_t i, struct bnt_error *err)
{
    struct result *r = &p->results[i];
    double read, peak;
    enum bnt_status status = bnt_cuda_bench_read(p->gpu, &read, err);
    if (status == BNT_OK)
        status = bnt_cuda_bench_int8(p->gpu, &peak, err);
    if (status != BNT_OK)
        return status;
    bench_add(&p->read, read);
    bench_add(&p->int8, peak);
    status = one_token(p, &bench_shapes[i], read, r, err);
    for (size_t j = 0; j < BATCHES && status == BNT_OK; j++)
        status = one_batch(p, &bench_shapes[i], batches[j], peak, &r->batches[j], err);
    return status;
}

static enum bnt_status one_round(struct products *p, struct bnt_error *err)
{
    const struct bnt_cuda_bench_products token = {.by = BNT_CUDA_BENCH_TERNARY,
                                                  .shapes = layer,
                                                  .n_shapes = LAYER_SHAPES,
                                                  .count = LAYERS * LAYER_SHAPES,
                                                  .tokens = 1,
                                                  .cold = true};
    double seconds;
    enum bnt_status status = BNT_OK;
    for (size_t i = 0; i < BENCH_SHAPES && status == BNT_OK; i++)
        status = one_shape(p, i, err);
    if (status == BNT_OK)
        status = bnt_cuda_bench_multiply(p->gpu, &token, &seconds, err);
    if (status == BNT_OK)
        bench_add(&p->token, seconds);
    return status;
}

// --- results ---

static double token_bytes(void)
{
    double bytes = 0;
    for (size_t i = 0; i < LAYER_SHAPES; i++)
        bytes += LAYERS * bytes_of(layer[i]);
    return bytes;
}

static void print_number(const struct bench_series *series, double factor, int digits)
{
    if (series->count)
        (void)printf(" %.*f |", digits, bench_median(series) * factor);
    else
        (void)printf(" - |");
}

static void print_one_token(const struct products *p)
{
    (void)puts("| N×K | 1 token, cold: µs | GB/s | of read | warm: µs | bf16 cold: µs | bf16 warm: "
               "µs | × cold | × warm |\n|---|---|---|---|---|---|---|---|---|");
    for (size_t i = 0; i < BENCH_SHAPES; i++) {
        const struct result *r = &p->results[i];
        const double kilobytes = bytes_of(bench_shapes[i]) * 1e-3;
        (void)printf("| %u×%u | %.2f | %.0f | %.0f %% | %.2f |", bench_shapes[i].rows,
                     bench_shapes[i].cols, kilobytes / bench_median(&r->cold),
                     bench_median(&r->cold), 100 * bench_median(&r->cold_share),
                     kilobytes / bench_median(&r->warm));
        print_number(&r->bf16_cold, 1e6, 2);
        print_number(&r->bf16_warm, 1e6, 2);
        print_number(&r->cold_times_bf16, 1, 2);
        print_number(&r->warm_times_bf16, 1, 2);
        (void)puts("");
    }
}

static void print_batches(const struct products *p)
{
    (void)printf("\n| N×K, weights warm |");
    for (size_t j = 0; j < BATCHES; j++)
        (void)printf(" %u tokens: TOP/s | of int8 | × bf16 |", batches[j]);
    (void)puts("\n|---|---|---|---|---|---|---|---|---|---|");
    for (size_t i = 0; i < BENCH_SHAPES; i++) {
        (void)printf("| %u×%u |", bench_shapes[i].rows, bench_shapes[i].cols);
        for (size_t j = 0; j < BATCHES; j++) {
            const struct batch *b = &p->results[i].batches[j];
            (void)printf(" %.0f | %.0f %% |", bench_median(&b->rate) * 1e-3,
                         100 * bench_median(&b->share));
            print_number(&b->times_bf16, 1, 2);
        }
        (void)puts("");
    }
}

static void print_markdown(const struct products *p)
{
    const double token = bench_median(&p->token);
    (void)printf("%s, %" PRIu64 " rounds, medians; this GPU reads %.0f GB/s and does %.0f int8 "
                 "TOP/s\n",
                 bnt_cuda_bench_device(p->gpu)->name, p->rounds, bench_median(&p->read),
                 bench_median(&p->int8) * 1e-3);
    if (!p->has_bf16)
        (void)printf("no bf16 beside it, since cuBLAS cannot be loaded: %s\n", p->no_bf16.message);
    (void)puts("");
    print_one_token(p);
    print_batches(p);
    (void)printf("\nthe %d products of a token of BitNet-b1.58-2B-4T: %.1f µs, %.0f GB/s\n",
                 LAYERS * LAYER_SHAPES, token * 1e6, token_bytes() / token * 1e-9);
}

// null where cuBLAS is not to be had.
static json_t *bf16_json(const struct bench_series *series)
{
    return series->count ? bench_json(series) : json_null();
}

static json_t *shape_json(struct bench_shape shape, const struct result *r)
{
    json_t *list = json_array();
    for (size_t j = 0; j < BATCHES; j++) {
        const struct batch *b = &r->batches[j];
        (void)json_array_append_new(
            list, json_pack("{s:i, s:o, s:o, s:o}", "tokens", (int)batches[j], "gop_per_second",
                            bench_json(&b->rate), "share_of_int8", bench_json(&b->share),
                            "times_bf16", bf16_json(&b->times_bf16)));
    }
    return json_pack("{s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "rows", (int)shape.rows,
                     "cols", (int)shape.cols, "cold_gb_per_second", bench_json(&r->cold),
                     "cold_share_of_read", bench_json(&r->cold_share), "warm_gb_per_second",
                     bench_json(&r->warm), "bf16_cold_seconds", bf16_json(&r->bf16_cold),
                     "bf16_warm_seconds", bf16_json(&r->bf16_warm), "cold_times_bf16",
                     bf16_json(&r->cold_times_bf16), "warm_times_bf16",
                     bf16_json(&r->warm_times_bf16), "batches", list);
}

static void print_json(const struct products *p)
{
    json_t *list = json_array();
    for (size_t i = 0; i < BENCH_SHAPES; i++)
        (void)json_array_append_new(list, shape_json(bench_shapes[i], &p->results[i]));
    bench_print_json(json_pack(
        "{s:s, s:I, s:o, s:o, s:o, s:o}", "device", bnt_cuda_bench_device(p->gpu)->name, "rounds",
        (json_int_t)p->rounds, "read_gb_per_second", bench_json(&p->read), "int8_gop_per_second",
        bench_json(&p->int8), "token_seconds", bench_json(&p->token), "shapes", list));
}

enum bnt_status bench_gemv_gpu(const struct bench_options *o, struct bnt_error *err)
{
    struct bnt_progress progress;
    enum bnt_status status = BNT_OK;
    struct products *p = calloc(1, sizeof *p);
    if (!p)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    p->gpu = o->gpu;
    p->rounds = o->rounds;
    p->has_bf16 = bnt_cuda_bench_cublas(p->gpu, o->cublas, &p->no_bf16) == BNT_OK;
    bnt_progress_start(&progress, "measuring", o->rounds, "rounds", o->quiet);
    for (uint64_t i = 0; i < o->rounds && status == BNT_OK; i++) {
        status = one_round(p, err);
        bnt_progress_add(&progress, 1);
    }
    bnt_progress_end(&progress);
    if (status == BNT_OK)
        (o->json ? print_json : print_markdown)(p);
    free(p);
    return status;
}
