// SPDX-License-Identifier: MIT
// What bnt-bench measures on a GPU beyond what bnt.h offers: what the device can do at most, and
// the ternary products alone. A part of bnt-bench, not of the library; the conventions are those of
// cuda.h.
#ifndef BNT_RUNTIME_CUDA_BENCH_H
#define BNT_RUNTIME_CUDA_BENCH_H

#include "runtime/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

struct bnt_cuda_bench;

// On the GPU that sessions take. Holds 1.1 GB of its memory until it is closed.
enum bnt_status bnt_cuda_bench_open(struct bnt_cuda_bench **bench, struct bnt_error *err);
void bnt_cuda_bench_close(struct bnt_cuda_bench *bench); // NULL is allowed
const struct bnt_cuda_device *bnt_cuda_bench_device(const struct bnt_cuda_bench *bench);

// --- yardsticks ---

// Reads 1 GiB of the device's memory; GB/s.
enum bnt_status bnt_cuda_bench_read(struct bnt_cuda_bench *bench, double *rate,
                                    struct bnt_error *err);

// The tensor cores' int8 multiply-add (mma.sync, which the library's kernels use) on registers
// alone; GOP/s, two operations a multiply-add.
enum bnt_status bnt_cuda_bench_int8(struct bnt_cuda_bench *bench, double *rate,
                                    struct bnt_error *err);

// --- memory ---

// Bytes of the device's memory that are in use, by whomever.
enum bnt_status bnt_cuda_bench_memory(struct bnt_cuda_bench *bench, uint64_t *used,
                                      struct bnt_error *err);

// Bytes of a session's keys and values.
uint64_t bnt_cuda_bench_cache(const struct bnt_cuda_session *session);

// --- products ---

struct bench_shape {
    uint32_t rows, cols; // rows divisible by 16, cols by 128
};

enum { BNT_CUDA_BENCH_TOKENS = 512, BNT_CUDA_BENCH_ROWS = 20480, BNT_CUDA_BENCH_COLS = 10240 };

// The kernels of the library, or cuBLAS with matrices of the same shapes in bf16.
enum bnt_cuda_bench_by { BNT_CUDA_BENCH_TERNARY, BNT_CUDA_BENCH_BF16 };

struct bnt_cuda_bench_products {
    enum bnt_cuda_bench_by by;
    const struct bench_shape *shapes; // (n_shapes) taken in turn, each at most ROWS by COLS
    size_t n_shapes;
    size_t count;    // products, one after the other in a CUDA graph
    uint32_t tokens; // 1 … TOKENS
    bool cold;       // every product has weights of its own, until 1 GiB is used up
};

// Seconds that all of them take together.
enum bnt_status bnt_cuda_bench_multiply(struct bnt_cuda_bench *bench,
                                        const struct bnt_cuda_bench_products *products,
                                        double *seconds, struct bnt_error *err);

// Loads cuBLAS: the library at path, or NULL for libcublas.so.13 or .12 where the system finds it.
// Before the first product by it.
enum bnt_status bnt_cuda_bench_cublas(struct bnt_cuda_bench *bench, const char *path,
                                      struct bnt_error *err);

#ifdef __cplusplus
}
#endif

#endif
