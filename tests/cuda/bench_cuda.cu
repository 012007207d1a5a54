// SPDX-License-Identifier: MIT
// How fast the GPU is: the ternary products beside cuBLAS in bf16, and a whole model of the 2B-4T
// shape with random weights.
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <functional>
#include <thread>
#include <vector>

#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/sample.cuh"
extern "C" {
#include "formats/int8_rows.h"
}

static void check(cudaError_t error)
{
    if (error == cudaSuccess)
        return;
    printf("FAILED: %s\n", cudaGetErrorString(error));
    exit(1);
}

static void check(enum bnt_status status, const struct bnt_error &err)
{
    if (status == BNT_OK)
        return;
    printf("FAILED: %s\n", err.message);
    exit(1);
}

static cudaStream_t stream;

// Median of repeats of what takes n_inside steps, in microseconds a step.
static double median_us(int repeats, int n_inside, const std::function<void()> &work)
{
    cudaEvent_t from, to;
    check(cudaEventCreate(&from));
    check(cudaEventCreate(&to));
    std::vector<double> us;
    for (int i = 0; i < repeats + 2; i++) {
        check(cudaEventRecord(from, stream));
        work();
        check(cudaEventRecord(to, stream));
        check(cudaEventSynchronize(to));
        float ms;
        check(cudaEventElapsedTime(&ms, from, to));
        if (i >= 2)
            us.push_back(ms * 1e3 / n_inside);
    }
    check(cudaEventDestroy(from));
    check(cudaEventDestroy(to));
    std::sort(us.begin(), us.end());
    return us[us.size() / 2];
}

// The same in a graph of n_inside calls of step(i).
static double graph_us(int repeats, int n_inside, const std::function<void(int)> &step)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    step(0);
    check(cudaStreamSynchronize(stream));
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < n_inside; i++)
        step(i);
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&exec, graph, 0));
    double us = median_us(repeats, n_inside, [&] { check(cudaGraphLaunch(exec, stream)); });
    check(cudaGraphExecDestroy(exec));
    check(cudaGraphDestroy(graph));
    return us;
}

__global__ void fill_codes(uint32_t *words, size_t n, uint32_t seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + 1) * 0x9E3779B97F4A7C15ull + seed;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ z >> 27) * 0x94D049BB133111EBull;
        uint32_t high = (uint32_t)z, low = (uint32_t)(z >> 32);
        words[i] = (high & 0xAAAAAAAAu) | ((low | ~high >> 1) & 0x55555555u);
    }
}

__global__ void sum_words(const uint4 *from, size_t n, uint32_t *out)
{
    uint32_t sum = 0;
    size_t step = (size_t)gridDim.x * blockDim.x;
    size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        uint4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
        sum += a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^
               d.z ^ d.w;
    }
    if (sum == 1)
        *out = sum;
}

static double read_bandwidth(uint8_t *pool, size_t bytes, uint32_t *out)
{
    double us = median_us(20, 1, [&] {
        sum_words<<<132 * 8, 512, 0, stream>>>((const uint4 *)pool, bytes / 16, out);
    });
    return bytes / us / 1e3;
}

// --- the yardstick ---

typedef int (*create_fn)(void **);
typedef int (*stream_fn)(void *, cudaStream_t);
typedef int (*gemm_fn)(void *, int, int, int, int, int, const void *, const void *, int, int,
                       const void *, int, int, const void *, void *, int, int, int, int);
struct cublas {
    void *handle;
    gemm_fn gemm;
};

static struct cublas open_cublas()
{
    struct cublas c = {};
    const char *path = getenv("BNT_CUBLAS");
    void *lib = dlopen(path ? path : "libcublas.so.13", RTLD_NOW | RTLD_GLOBAL);
    if (!lib) {
        printf("no cuBLAS: %s\n", dlerror());
        return c;
    }
    create_fn create = (create_fn)dlsym(lib, "cublasCreate_v2");
    stream_fn set_stream = (stream_fn)dlsym(lib, "cublasSetStream_v2");
    c.gemm = (gemm_fn)dlsym(lib, "cublasGemmEx");
    if (create(&c.handle) != 0 || set_stream(c.handle, stream) != 0)
        c.gemm = NULL;
    return c;
}

// out[n] = w[n][k] · x[k] in bf16, w row-major.
static void cublas_product(const struct cublas &c, const void *w, const void *x, void *out, int n,
                           int k)
{
    const float one = 1, zero = 0;
    const int bf16 = 14, compute_f32 = 68;
    int status = c.gemm(c.handle, 1, 0, n, 1, k, &one, w, bf16, k, x, bf16, k, &zero, out, bf16, n,
                        compute_f32, -1);
    if (status != 0) {
        printf("cuBLAS failed: %d\n", status);
        exit(1);
    }
}

// --- products ---

static const uint32_t shapes[][2] = {{2560, 2560}, {3840, 2560}, {13824, 2560}, {2560, 6912},
                                     {3200, 3200}, {4800, 3200}, {3200, 10240}, {20480, 3200}};

struct operands {
    uint8_t *pool; // of pool_bytes, random codes
    size_t pool_bytes;
    struct bnt_cuda_quantized x;
    float *out;
    int32_t *sums;
};

static struct bnt_cuda_product product_at(const struct operands &o, size_t at, uint32_t rows,
                                          uint32_t cols)
{
    struct bnt_cuda_product p = {};
    p.blocks = (const uint32_t *)(o.pool + at);
    p.n_tiles = rows / 16;
    p.n_blocks = cols / 32;
    p.n_parts = 1;
    p.parts[0].rows = rows;
    p.parts[0].scale = 1;
    p.parts[0].out = o.out;
    return p;
}

static double product_us(const struct operands &o, uint32_t rows, uint32_t cols, bool cold)
{
    size_t bytes = (size_t)rows * cols / 4;
    size_t copies = cold ? (160u << 20) / bytes + 1 : 1;
    struct bnt_cuda_quantized x = o.x;
    x.stride = bnt_cuda_pad(cols, 128);
    int n = (int)(copies < 100 ? 100 : copies);
    return graph_us(20, n, [&](int i) {
        struct bnt_cuda_product p = product_at(o, (i % copies) * bytes, rows, cols);
        check(bnt_cuda_gemv(&p, &x, NULL, stream));
    });
}

static double cublas_us(const struct cublas &c, const struct operands &o, uint32_t rows,
                        uint32_t cols, bool cold)
{
    if (!c.gemm)
        return 0;
    size_t bytes = (size_t)rows * cols * 2;
    size_t copies = cold ? (160u << 20) / bytes + 2 : 1;
    int n = (int)(copies < 50 ? 50 : copies);
    return graph_us(10, n, [&](int i) {
        cublas_product(c, o.pool + (i % copies) * bytes, o.x.x, o.out, (int)rows, (int)cols);
    });
}

static void bench_products(const struct operands &o)
{
    struct cublas c = open_cublas();
    printf("%11s %8s %8s %8s %8s %8s %8s %8s\n", "shape", "cold", "warm", "bf16 cold", "bf16 warm",
           "x cold", "x warm", "GB/s");
    for (auto &s : shapes) {
        double cold = product_us(o, s[0], s[1], true), warm = product_us(o, s[0], s[1], false);
        double bf_cold = cublas_us(c, o, s[0], s[1], true);
        double bf_warm = cublas_us(c, o, s[0], s[1], false);
        printf("%5ux%-5u %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f %8.0f\n", s[0], s[1], cold, warm,
               bf_cold, bf_warm, bf_cold / cold, bf_warm / warm,
               s[0] * (double)s[1] / 4 / cold / 1e3);
    }
    const uint32_t layer[4][2] = {{3840, 2560}, {2560, 2560}, {13824, 2560}, {2560, 6912}};
    size_t at = 0;
    size_t offsets[120];
    for (int i = 0; i < 120; i++) {
        offsets[i] = at;
        at += (size_t)layer[i % 4][0] * layer[i % 4][1] / 4;
    }
    double us = graph_us(20, 1, [&](int) {
        for (int i = 0; i < 120; i++) {
            struct bnt_cuda_product p = product_at(o, offsets[i], layer[i % 4][0], layer[i % 4][1]);
            struct bnt_cuda_quantized x = o.x;
            x.stride = bnt_cuda_pad(layer[i % 4][1], 128);
            check(bnt_cuda_gemv(&p, &x, NULL, stream));
        }
    });
    printf("120 ternary products: %.1f us\n", us);
}

static void bench_gemm(const struct operands &o)
{
    const uint32_t layer[4][2] = {{3840, 2560}, {2560, 2560}, {13824, 2560}, {2560, 6912}};
    for (uint32_t m : {512u}) {
        for (auto &s : layer) {
            struct bnt_cuda_product p = product_at(o, 0, s[0], s[1]);
            p.parts[0].out_stride = s[0];
            struct bnt_cuda_quantized x = o.x;
            x.stride = bnt_cuda_pad(s[1], 128);
            double us =
                graph_us(10, 10, [&](int) { check(bnt_cuda_gemm(&p, &x, m, NULL, stream)); });
            printf("gemm %5ux%-5u m %u: %.1f us, %.0f TOP/s\n", s[0], s[1], m, us,
                   2.0 * s[0] * s[1] * m / us / 1e6);
        }
    }
}

// --- a model of random weights ---

struct synthetic {
    struct bnt_view view;
    std::vector<struct bnt_tensor_record> records;
    uint8_t *data;
};

static void fill_tensor(uint8_t *to, const struct bnt_tensor_place &p, uint64_t seed)
{
    uint64_t s = seed;
    auto next = [&] {
        uint64_t z = s += 0x9E3779B97F4A7C15ull;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
        return (z ^ z >> 27) * 0x94D049BB133111EBull;
    };
    if (p.dtype == BNT_TERNARY) {
        for (uint64_t i = 0; i < p.size / 4; i++) {
            uint64_t z = next();
            uint32_t high = (uint32_t)z, low = (uint32_t)(z >> 32);
            ((uint32_t *)to)[i] = (high & 0xAAAAAAAAu) | ((low | ~high >> 1) & 0x55555555u);
        }
    } else if (p.dtype == BNT_BF16) { // roughly normal
        for (uint64_t i = 0; i < p.size / 2; i++) {
            uint64_t z = next();
            float v = ((float)(z & 0xFFFF) + (float)(z >> 16 & 0xFFFF) + (float)(z >> 32 & 0xFFFF) +
                       (float)(z >> 48) - 131070) /
                      40000 * 0.02f;
            uint32_t bits;
            memcpy(&bits, &v, 4);
            ((uint16_t *)to)[i] = (uint16_t)(bits >> 16);
        }
    } else if (p.dtype == BNT_F32) {
        for (uint64_t i = 0; i < p.size / 4; i++)
            ((float *)to)[i] = 1;
    }
}

static void make_int8(struct synthetic *m, unsigned threads)
{
    const struct bnt_tensor_record *from = NULL, *to = NULL, *scale = NULL;
    for (auto &r : m->records) {
        from = r.role == BNT_TOKEN_EMBEDDING ? &r : from;
        to = r.role == BNT_OUTPUT_INT8 ? &r : to;
        scale = r.role == BNT_OUTPUT_INT8_SCALE ? &r : scale;
    }
    std::vector<std::thread> all;
    for (unsigned t = 0; t < threads; t++)
        all.emplace_back([=] {
            for (uint32_t i = t; i < to->rows; i += threads)
                ((float *)(m->data + scale->offset))[i] =
                    bnt_int8_row(BNT_BF16, m->data + from->offset + (size_t)i * to->cols * 2,
                                 to->cols, (int8_t *)m->data + to->offset + (size_t)i * to->cols);
        });
    for (auto &t : all)
        t.join();
}

static void make_model(struct synthetic *m, bool int8, unsigned threads)
{
    struct bnt_hyper h = {};
    h.n_layers = 30;
    h.hidden_size = 2560;
    h.ffn_size = 6912;
    h.n_heads = 20;
    h.n_kv_heads = 5;
    h.head_dim = 128;
    h.vocab_size = 128256;
    h.max_context = 4096;
    h.activation = BNT_ACTIVATION_RELU2;
    h.flags = BNT_HYPER_TIED | BNT_HYPER_SUB_NORMS;
    h.norm_eps = 1e-5f;
    h.rope_theta = 500000;
    struct bnt_layout_walk walk = bnt_layout_walk(&h, int8);
    struct bnt_tensor_place p;
    uint64_t size = 4096;
    const uint32_t sections[4] = {BNT_SECTION_NORM, BNT_SECTION_EMBD, BNT_SECTION_EMB8,
                                  BNT_SECTION_TERN};
    uint64_t starts[4];
    while (bnt_layout_next(&walk, &p))
        ;
    for (int i = 0; i < 4; i++) {
        starts[i] = size;
        size += (bnt_layout_section_size(&walk, sections[i]) + 4095) / 4096 * 4096;
    }
    m->data = (uint8_t *)aligned_alloc(4096, size);
    std::vector<struct bnt_tensor_place> places;
    walk = bnt_layout_walk(&h, int8);
    while (bnt_layout_next(&walk, &p)) {
        for (int i = 0; i < 4; i++)
            p.offset += p.section == sections[i] ? starts[i] : 0;
        places.push_back(p);
        struct bnt_tensor_record r = {};
        r.role = (uint16_t)p.role;
        r.dtype = (uint16_t)p.dtype;
        r.layer = p.layer;
        r.rows = p.rows;
        r.cols = p.cols;
        r.offset = p.offset;
        r.size = p.size;
        r.scale = p.dtype == BNT_TERNARY ? 0.02f : 0;
        m->records.push_back(r);
    }
    std::vector<std::thread> all;
    for (unsigned t = 0; t < threads; t++)
        all.emplace_back([&, t] {
            for (size_t i = t; i < places.size(); i += threads)
                fill_tensor(m->data + places[i].offset, places[i], i * 1000003);
        });
    for (auto &t : all)
        t.join();
    if (int8)
        make_int8(m, threads);
    m->view.data = m->data;
    m->view.size = size;
    m->view.hyper = h;
    m->view.tensors = m->records.data();
    m->view.n_tensors = m->records.size();
    m->view.has_int8 = int8;
}

static double now_ms()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}

static double median(std::vector<double> v)
{
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

static double step_ms(struct bnt_cuda_session *s, const struct bnt_sampling &sampling, int n)
{
    struct bnt_error err;
    std::vector<double> ms;
    uint64_t state = 1;
    uint32_t token = 100;
    for (int i = 0; i < n; i++) {
        double from = now_ms();
        check(bnt_cuda_next(s, token, &sampling, &state, &token, &err), err);
        ms.push_back(now_ms() - from);
    }
    return median(ms);
}

static void bench_model(bool int8)
{
    struct synthetic m = {};
    struct bnt_error err = {};
    double from = now_ms();
    make_model(&m, int8, std::thread::hardware_concurrency());
    printf("model%s: made in %.0f ms", int8 ? " with int8" : "", now_ms() - from);
    from = now_ms();
    struct bnt_cuda_model *model;
    struct bnt_cuda_session *s;
    size_t free_before, free_after, all;
    check(cudaMemGetInfo(&free_before, &all));
    check(bnt_cuda_model_open(&m.view, 0, &model, &err), err);
    printf(", uploaded in %.0f ms", now_ms() - from);
    check(bnt_cuda_session_open(model, 4096, false, &s, &err), err);
    check(cudaMemGetInfo(&free_after, &all));
    printf(", memory %.0f MB of which file %.0f, cache %.0f\n", (free_before - free_after) / 1e6,
           m.view.size / 1e6, 4096.0 * 30 * 2 * 640 * 4 / 1e6);
    std::vector<uint32_t> prompt(4096);
    for (size_t i = 0; i < prompt.size(); i++)
        prompt[i] = (uint32_t)(i * 7919 % 128256);
    for (uint32_t n : {64u, 256u, 512u, 2048u}) {
        std::vector<double> ms;
        for (int i = 0; i < 7; i++) {
            check(bnt_cuda_session_rewind(s, 0, &err), err);
            from = now_ms();
            check(bnt_cuda_evaluate(s, prompt.data(), n, BNT_LOGITS_LAST, NULL, &err), err);
            ms.push_back(now_ms() - from);
        }
        printf("prompt %u: %.2f ms, %.0f tok/s\n", n, median(ms), n / median(ms) * 1e3);
    }
    struct bnt_sampling greedy = {}, nucleus = {};
    nucleus.temperature = 0.8f;
    nucleus.top_p = 0.9f;
    nucleus.top_k = 50;
    for (uint32_t n : {1u, 512u, 2000u}) {
        check(bnt_cuda_session_rewind(s, 0, &err), err);
        check(bnt_cuda_evaluate(s, prompt.data(), n, BNT_LOGITS_NONE, NULL, &err), err);
        double wall = step_ms(s, greedy, 25);
        check(bnt_cuda_session_rewind(s, n, &err), err);
        double sampled = step_ms(s, nucleus, 25);
        check(bnt_cuda_session_rewind(s, n, &err), err);
        stream = s->stream;
        double us = s->decoder
                        ? median_us(20, 1,
                                    [&] {
                                        check(bnt_cuda_decode(s->decoder, 5, n, s->logits,
                                                              &s->sampler->device_choice->token));
                                    })
                        : 0;
        printf("context %u: kernel %.1f us; step, greedy %.3f ms, sampled %.3f ms\n", n, us, wall,
               sampled);
    }
    for (uint32_t in : {64u, 256u, 512u})
        for (uint32_t out : {16u, 32u, 64u}) {
            check(bnt_cuda_session_rewind(s, 0, &err), err);
            uint32_t token;
            uint64_t state = 1;
            from = now_ms();
            check(bnt_cuda_evaluate(s, prompt.data(), in, BNT_LOGITS_LAST, NULL, &err), err);
            check(bnt_cuda_sample(s, &greedy, &state, &token, &err), err);
            for (uint32_t i = 1; i < out; i++)
                check(bnt_cuda_next(s, token, &greedy, &state, &token, &err), err);
            printf("in %u out %u: %.2f ms\n", in, out, now_ms() - from);
        }
    bnt_cuda_session_close(s);
    bnt_cuda_model_close(model);
    free(m.data);
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
}

int main(int argc, char **argv)
{
    struct bnt_error err = {};
    struct bnt_cuda_device device;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (bnt_cuda_device_count(&err) == 0) {
        printf("skipped: no GPU (%s)\n", err.message);
        return 77;
    }
    check(bnt_cuda_device_get(0, &device, &err), err);
    printf("%s, %u multiprocessors, L2 %.0f MB\n", device.name, device.processors,
           device.l2_size / 1048576.0);
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    auto wants = [&](const char *what) {
        for (int i = 1; i < argc; i++)
            if (strcmp(argv[i], what) == 0)
                return true;
        return argc == 1;
    };
    struct operands o = {};
    o.pool_bytes = 1u << 30;
    check(cudaMalloc(&o.pool, o.pool_bytes));
    check(cudaMalloc(&o.x.x, 1 << 23));
    check(cudaMalloc(&o.x.scale, 4096));
    check(cudaMalloc(&o.x.sum, 4096));
    check(cudaMalloc(&o.out, 64 << 20));
    fill_codes<<<1024, 256>>>((uint32_t *)o.pool, o.pool_bytes / 4, 1);
    fill_codes<<<64, 256>>>((uint32_t *)o.x.x, 1 << 21, 2);
    fill_codes<<<1, 256>>>((uint32_t *)o.x.scale, 1024, 3);
    fill_codes<<<1, 256>>>((uint32_t *)o.x.sum, 1024, 4);
    check(cudaDeviceSynchronize());
    printf("read bandwidth %.0f GB/s\n",
           read_bandwidth(o.pool, o.pool_bytes, (uint32_t *)o.x.sum + 100));
    if (wants("gemv"))
        bench_products(o);
    if (wants("gemm"))
        bench_gemm(o);
    check(cudaFree(o.pool));
    if (wants("model"))
        bench_model(false);
    if (wants("int8"))
        bench_model(true);
    return 0;
}
