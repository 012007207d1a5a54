// SPDX-License-Identifier: MIT
// The GPU's part of bnt-bench.
#include <stdlib.h>

#include <algorithm>

#include "runtime/cuda/bench_cublas.cuh"
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/session.cuh"

static const size_t WEIGHT_BYTES = (size_t)1 << 30;

struct bnt_cuda_bench {
    int device; // as CUDA counts
    struct bnt_cuda_device info;
    cudaStream_t stream;
    cudaEvent_t from, to;
    uint8_t *weights;            // (WEIGHT_BYTES) random codes; whatever they are as bf16
    struct bnt_cuda_quantized x; // (TOKENS, COLS), with room for as many bf16
    float *out;                  // (TOKENS, ROWS)
    struct bnt_cublas cublas;
};

// --- opening ---

// Random legal codes: 1, 2 or 3, two bits each.
static __global__ void fill_codes(uint32_t *words, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + 1) * 0x9E3779B97F4A7C15;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
        z = (z ^ z >> 27) * 0x94D049BB133111EB;
        uint32_t high = (uint32_t)z, low = (uint32_t)(z >> 32);
        words[i] = (high & 0xAAAAAAAAu) | ((low | ~high >> 1) & 0x55555555u);
    }
}

static cudaError_t allocate(struct bnt_cuda_bench *b)
{
    const size_t x_bytes = (size_t)BNT_CUDA_BENCH_TOKENS * BNT_CUDA_BENCH_COLS * 2;
    const size_t token_bytes = BNT_CUDA_BENCH_TOKENS * sizeof(float);
    cudaError_t error = cudaMalloc(&b->weights, WEIGHT_BYTES);
    if (error == cudaSuccess)
        error = cudaMalloc(&b->x.x, x_bytes);
    if (error == cudaSuccess)
        error = cudaMalloc(&b->x.scale, token_bytes);
    if (error == cudaSuccess)
        error = cudaMalloc(&b->x.sum, token_bytes);
    if (error == cudaSuccess)
        error = cudaMalloc(&b->out, token_bytes * BNT_CUDA_BENCH_ROWS);
    if (error != cudaSuccess)
        return error;
    fill_codes<<<1024, 256, 0, b->stream>>>((uint32_t *)b->weights, WEIGHT_BYTES / 4);
    fill_codes<<<1024, 256, 0, b->stream>>>((uint32_t *)b->x.x, x_bytes / 4);
    fill_codes<<<1, 256, 0, b->stream>>>((uint32_t *)b->x.scale, BNT_CUDA_BENCH_TOKENS);
    fill_codes<<<1, 256, 0, b->stream>>>((uint32_t *)b->x.sum, BNT_CUDA_BENCH_TOKENS);
    error = cudaGetLastError();
    return error == cudaSuccess ? cudaStreamSynchronize(b->stream) : error;
}

static enum bnt_status prepare(struct bnt_cuda_bench *b, struct bnt_error *err)
{
    if (bnt_cuda_device_count(err) == 0)
        return BNT_ERR_DEVICE;
    enum bnt_status status = bnt_cuda_use(0, &b->device, &b->info, err);
    if (status != BNT_OK)
        return status;
    cudaError_t error = cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking);
    if (error == cudaSuccess)
        error = cudaEventCreate(&b->from);
    if (error == cudaSuccess)
        error = cudaEventCreate(&b->to);
    if (error == cudaSuccess)
        error = allocate(b);
    return error == cudaSuccess ? BNT_OK : bnt_cuda_fail(err, error, "preparing to measure");
}

enum bnt_status bnt_cuda_bench_open(struct bnt_cuda_bench **bench, struct bnt_error *err)
{
    *bench = NULL;
    struct bnt_cuda_bench *b = static_cast<struct bnt_cuda_bench *>(calloc(1, sizeof *b));
    if (!b)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    enum bnt_status status = prepare(b, err);
    if (status != BNT_OK) {
        bnt_cuda_bench_close(b);
        return status;
    }
    *bench = b;
    return BNT_OK;
}

void bnt_cuda_bench_close(struct bnt_cuda_bench *b)
{
    if (!b)
        return;
    bnt_cublas_close(&b->cublas);
    void *const buffers[] = {b->weights, b->x.x, b->x.scale, b->x.sum, b->out};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        (void)cudaFree(buffers[i]);
    if (b->from)
        (void)cudaEventDestroy(b->from);
    if (b->to)
        (void)cudaEventDestroy(b->to);
    if (b->stream)
        (void)cudaStreamDestroy(b->stream);
    free(b);
}

const struct bnt_cuda_device *bnt_cuda_bench_device(const struct bnt_cuda_bench *b)
{
    return &b->info;
}

// --- timing ---

// Seconds of what start puts on the stream: the median of several runs, after one that does not
// count.
template <class Start>
static cudaError_t time_runs(struct bnt_cuda_bench *b, Start start, double *seconds)
{
    enum { RUNS = 9 };
    float ms[1 + RUNS];
    for (int i = 0; i < 1 + RUNS; i++) {
        cudaError_t error = cudaEventRecord(b->from, b->stream);
        if (error == cudaSuccess)
            error = start();
        if (error == cudaSuccess)
            error = cudaEventRecord(b->to, b->stream);
        if (error == cudaSuccess)
            error = cudaEventSynchronize(b->to);
        if (error == cudaSuccess)
            error = cudaEventElapsedTime(&ms[i], b->from, b->to);
        if (error != cudaSuccess)
            return error;
    }
    std::sort(ms + 1, ms + 1 + RUNS);
    *seconds = ms[1 + RUNS / 2] * 1e-3;
    return cudaSuccess;
}

// --- yardsticks ---

// *out is hardly ever written, which the compiler does not know.
static __global__ void read_words(const uint4 *words, size_t n, uint32_t *out)
{
    enum { AT_ONCE = 4 };
    const size_t step = (size_t)gridDim.x * blockDim.x;
    uint32_t sum = 0;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += AT_ONCE * step) {
        uint4 w[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            w[j] = i + j * step < n ? words[i + j * step] : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            sum ^= w[j].x ^ w[j].y ^ w[j].z ^ w[j].w;
    }
    if (sum == 1)
        *out = sum;
}

enum bnt_status bnt_cuda_bench_read(struct bnt_cuda_bench *b, double *rate, struct bnt_error *err)
{
    double seconds;
    auto start = [&] {
        read_words<<<b->info.processors * 8, 512, 0, b->stream>>>(
            (const uint4 *)b->weights, WEIGHT_BYTES / sizeof(uint4), (uint32_t *)b->out);
        return cudaGetLastError();
    };
    cudaError_t error = time_runs(b, start, &seconds);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "measuring the GPU's memory");
    *rate = (double)WEIGHT_BYTES / seconds * 1e-9;
    return BNT_OK;
}

enum { PEAK_THREADS = 256, PEAK_BLOCKS = 2, PEAK_SUMS = 8, PEAK_ROUNDS = 2048 };

// Independent multiply-adds, each on sums of its own.
static __global__ void __launch_bounds__(PEAK_THREADS) multiply_registers(uint32_t *out)
{
    const uint32_t w = 0x9E3779B9 * (threadIdx.x + 1);
    int sum[PEAK_SUMS][4];
    for (int i = 0; i < PEAK_SUMS; i++)
        for (int j = 0; j < 4; j++)
            sum[i][j] = i + j;
    for (int round = 0; round < PEAK_ROUNDS; round++)
#pragma unroll
        for (int i = 0; i < PEAK_SUMS; i++)
            mma_codes(sum[i], w, w ^ 1, w ^ 2, w ^ 3, w ^ 4, w ^ 5);
    int all = 0;
    for (int i = 0; i < PEAK_SUMS; i++)
        for (int j = 0; j < 4; j++)
            all ^= sum[i][j];
    out[blockIdx.x * PEAK_THREADS + threadIdx.x] = (uint32_t)all;
}

enum bnt_status bnt_cuda_bench_int8(struct bnt_cuda_bench *b, double *rate, struct bnt_error *err)
{
    const double operations = 2.0 * 16 * 8 * 32; // of one multiply-add of a warp
    const unsigned blocks = b->info.processors * PEAK_BLOCKS;
    double seconds;
    auto start = [&] {
        multiply_registers<<<blocks, PEAK_THREADS, 0, b->stream>>>((uint32_t *)b->out);
        return cudaGetLastError();
    };
    cudaError_t error = time_runs(b, start, &seconds);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "measuring the GPU's tensor cores");
    *rate = operations * PEAK_ROUNDS * PEAK_SUMS * blocks * (PEAK_THREADS / WARP) / seconds * 1e-9;
    return BNT_OK;
}

// --- memory ---

enum bnt_status bnt_cuda_bench_memory(struct bnt_cuda_bench *b, uint64_t *used,
                                      struct bnt_error *err)
{
    size_t free_bytes, all;
    cudaError_t error = cudaSetDevice(b->device);
    if (error == cudaSuccess)
        error = cudaMemGetInfo(&free_bytes, &all);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "asking for the GPU's free memory");
    *used = all - free_bytes;
    return BNT_OK;
}

uint64_t bnt_cuda_bench_cache(const struct bnt_cuda_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    return (uint64_t)h->n_layers * h->n_kv_heads * s->context * s->cache_row *
           (sizeof *s->keys + sizeof *s->values);
}

// --- products ---

enum bnt_status bnt_cuda_bench_cublas(struct bnt_cuda_bench *b, const char *path,
                                      struct bnt_error *err)
{
    return bnt_cublas_open(&b->cublas, path, b->stream, err);
}

static cudaError_t multiply_ternary(struct bnt_cuda_bench *b, const uint8_t *weights,
                                    struct bench_shape shape, uint32_t tokens)
{
    struct bnt_cuda_product p = {};
    p.blocks = (const uint32_t *)weights;
    p.n_tiles = shape.rows / BNT_BLOCK_ROWS;
    p.n_blocks = shape.cols / BNT_BLOCK_COLS;
    p.n_parts = 1;
    p.parts[0].rows = p.parts[0].out_stride = shape.rows;
    p.parts[0].scale = 1;
    p.parts[0].out = b->out;
    struct bnt_cuda_quantized x = b->x;
    x.stride = shape.cols;
    return tokens == 1 ? bnt_cuda_gemv(&p, &x, NULL, b->stream)
                       : bnt_cuda_gemm(&p, &x, tokens, NULL, b->stream);
}

static size_t matrix_bytes(enum bnt_cuda_bench_by by, struct bench_shape shape)
{
    const size_t weights = (size_t)shape.rows * shape.cols;
    return by == BNT_CUDA_BENCH_TERNARY ? weights / 4 : weights * 2;
}

// Puts all products on the stream.
static enum bnt_status start_products(struct bnt_cuda_bench *b,
                                      const struct bnt_cuda_bench_products *p,
                                      struct bnt_error *err)
{
    enum bnt_status status = BNT_OK;
    size_t at = 0;
    for (size_t i = 0; i < p->count && status == BNT_OK; i++) {
        const struct bench_shape shape = p->shapes[i % p->n_shapes];
        const size_t bytes = matrix_bytes(p->by, shape);
        if (at + bytes > WEIGHT_BYTES)
            at = 0;
        const uint8_t *weights = b->weights + at;
        at += p->cold ? bytes : 0;
        if (p->by == BNT_CUDA_BENCH_BF16) {
            status =
                bnt_cublas_multiply(&b->cublas, b->out, weights, b->x.x, shape, p->tokens, err);
            continue;
        }
        cudaError_t error = multiply_ternary(b, weights, shape, p->tokens);
        if (error != cudaSuccess)
            status = bnt_cuda_fail(err, error, "multiplying on the GPU");
    }
    return status;
}

// All products as a graph.
static enum bnt_status record_products(struct bnt_cuda_bench *b,
                                       const struct bnt_cuda_bench_products *p,
                                       cudaGraphExec_t *exec, struct bnt_error *err)
{
    cudaGraph_t graph = NULL;
    cudaError_t error = cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "recording a graph");
    enum bnt_status status = start_products(b, p, err);
    error = cudaStreamEndCapture(b->stream, &graph); // also after a failure
    if (status == BNT_OK && error == cudaSuccess)
        error = cudaGraphInstantiate(exec, graph, 0);
    if (graph)
        (void)cudaGraphDestroy(graph);
    if (status == BNT_OK && error != cudaSuccess)
        status = bnt_cuda_fail(err, error, "recording a graph");
    return status;
}

enum bnt_status bnt_cuda_bench_multiply(struct bnt_cuda_bench *b,
                                        const struct bnt_cuda_bench_products *p, double *seconds,
                                        struct bnt_error *err)
{
    cudaGraphExec_t exec;
    enum bnt_status status = start_products(b, p, err); // loads the kernels
    if (status == BNT_OK)
        status = record_products(b, p, &exec, err);
    if (status != BNT_OK)
        return status;
    cudaError_t error = time_runs(
        b, [&] { return cudaGraphLaunch(exec, b->stream); }, seconds);
    (void)cudaGraphExecDestroy(exec);
    return error == cudaSuccess ? BNT_OK : bnt_cuda_fail(err, error, "multiplying on the GPU");
}
