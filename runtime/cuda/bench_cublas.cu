// SPDX-License-Identifier: MIT
#include "runtime/cuda/bench_cublas.cuh"

#include <dlfcn.h>

// Of cublas_api.h and library_types.h.
enum { CUBLAS_NO_TRANSPOSE = 0, CUBLAS_TRANSPOSE = 1, CUBLAS_COMPUTE_F32 = 68, TYPE_BF16 = 14 };
static const int CUBLAS_DEFAULT_ALGORITHM = -1;

static void *load(const char *path, struct bnt_error *err)
{
    const char *const names[] = {path ? path : "libcublas.so.13", path ? NULL : "libcublas.so.12"};
    void *library = NULL;
    for (int i = 0; i < 2 && names[i] && !library; i++) {
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!library)
            (void)bnt_fail(err, BNT_ERR_IO, "%s", dlerror());
    }
    return library;
}

enum bnt_status bnt_cublas_open(struct bnt_cublas *c, const char *path, cudaStream_t stream,
                                struct bnt_error *err)
{
    void *library = load(path, err);
    if (!library)
        return BNT_ERR_IO;
    bnt_cublas_create create = (bnt_cublas_create)dlsym(library, "cublasCreate_v2");
    bnt_cublas_set_stream set_stream = (bnt_cublas_set_stream)dlsym(library, "cublasSetStream_v2");
    c->destroy = (bnt_cublas_destroy)dlsym(library, "cublasDestroy_v2");
    c->gemm = (bnt_cublas_gemm)dlsym(library, "cublasGemmEx");
    if (!create || !set_stream || !c->destroy || !c->gemm)
        return bnt_fail(err, BNT_ERR_IO, "the library is not cuBLAS");
    int error = create(&c->handle);
    if (error == 0)
        error = set_stream(c->handle, stream);
    if (error == 0)
        return BNT_OK;
    bnt_cublas_close(c);
    return bnt_fail(err, BNT_ERR_DEVICE, "cuBLAS does not start: its status is %d", error);
}

void bnt_cublas_close(struct bnt_cublas *c)
{
    if (c->handle)
        (void)c->destroy(c->handle);
    c->handle = NULL;
}

// cuBLAS counts columns first: to it the weights are a (cols, rows) matrix, to be transposed.
enum bnt_status bnt_cublas_multiply(const struct bnt_cublas *c, void *out, const void *weights,
                                    const void *x, struct bench_shape shape, uint32_t tokens,
                                    struct bnt_error *err)
{
    const float one = 1, zero = 0;
    const int rows = (int)shape.rows, cols = (int)shape.cols;
    int error = c->gemm(c->handle, CUBLAS_TRANSPOSE, CUBLAS_NO_TRANSPOSE, rows, (int)tokens, cols,
                        &one, weights, TYPE_BF16, cols, x, TYPE_BF16, cols, &zero, out, TYPE_BF16,
                        rows, CUBLAS_COMPUTE_F32, CUBLAS_DEFAULT_ALGORITHM);
    return error == 0 ? BNT_OK
                      : bnt_fail(err, BNT_ERR_DEVICE, "cuBLAS failed: its status is %d", error);
}
