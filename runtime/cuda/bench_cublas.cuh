// SPDX-License-Identifier: MIT
// cuBLAS as a yardstick, loaded when it is asked for: nothing depends on it. (bench_cublas.cu)
#ifndef BNT_RUNTIME_CUDA_BENCH_CUBLAS_CUH
#define BNT_RUNTIME_CUDA_BENCH_CUBLAS_CUH

#include <cuda_runtime.h>

#include "runtime/cuda/bench.h"

// As cublas_api.h declares them, enums being int.
typedef int (*bnt_cublas_create)(void **handle);
typedef int (*bnt_cublas_destroy)(void *handle);
typedef int (*bnt_cublas_set_stream)(void *handle, cudaStream_t stream);
typedef int (*bnt_cublas_gemm)(void *handle, int transpose_a, int transpose_b, int m, int n, int k,
                               const void *alpha, const void *a, int type_a, int stride_a,
                               const void *b, int type_b, int stride_b, const void *beta, void *c,
                               int type_c, int stride_c, int compute_type, int algorithm);

struct bnt_cublas {
    void *handle; // NULL: not open
    bnt_cublas_destroy destroy;
    bnt_cublas_gemm gemm;
};

// path: as for bnt_cuda_bench_cublas. The library stays loaded until the process ends.
enum bnt_status bnt_cublas_open(struct bnt_cublas *cublas, const char *path, cudaStream_t stream,
                                struct bnt_error *err);
void bnt_cublas_close(struct bnt_cublas *cublas);

// out = weights · x, all bf16, sums in float.
enum bnt_status bnt_cublas_multiply(const struct bnt_cublas *cublas,
                                    void *out,           // (tokens, rows)
                                    const void *weights, // (rows, cols)
                                    const void *x,       // (tokens, cols)
                                    struct bench_shape shape, uint32_t tokens,
                                    struct bnt_error *err);

#endif
