// SPDX-License-Identifier: MIT
// Stands in for runtime/cuda/bench.cu where bnt-bench is built without nvcc: it cannot be opened,
// and nothing else can be called before that.
#include "runtime/cuda/bench.h"

enum bnt_status bnt_cuda_bench_open(struct bnt_cuda_bench **bench, struct bnt_error *err)
{
    *bench = NULL;
    (void)bnt_cuda_device_count(err); // says why
    return BNT_ERR_DEVICE;
}

void bnt_cuda_bench_close(struct bnt_cuda_bench *bench)
{
    (void)bench;
}

const struct bnt_cuda_device *bnt_cuda_bench_device(const struct bnt_cuda_bench *bench)
{
    (void)bench;
    return NULL;
}

enum bnt_status bnt_cuda_bench_read(struct bnt_cuda_bench *bench, double *rate,
                                    struct bnt_error *err)
{
    (void)bench;
    (void)rate;
    (void)err;
    return BNT_ERR_DEVICE;
}

enum bnt_status bnt_cuda_bench_int8(struct bnt_cuda_bench *bench, double *rate,
                                    struct bnt_error *err)
{
    (void)bench;
    (void)rate;
    (void)err;
    return BNT_ERR_DEVICE;
}

enum bnt_status bnt_cuda_bench_memory(struct bnt_cuda_bench *bench, uint64_t *used,
                                      struct bnt_error *err)
{
    (void)bench;
    (void)used;
    (void)err;
    return BNT_ERR_DEVICE;
}

uint64_t bnt_cuda_bench_cache(const struct bnt_cuda_session *session)
{
    (void)session;
    return 0;
}

enum bnt_status bnt_cuda_bench_multiply(struct bnt_cuda_bench *bench,
                                        const struct bnt_cuda_bench_products *products,
                                        double *seconds, struct bnt_error *err)
{
    (void)bench;
    (void)products;
    (void)seconds;
    (void)err;
    return BNT_ERR_DEVICE;
}

enum bnt_status bnt_cuda_bench_cublas(struct bnt_cuda_bench *bench, const char *path,
                                      struct bnt_error *err)
{
    (void)bench;
    (void)path;
    (void)err;
    return BNT_ERR_DEVICE;
}
