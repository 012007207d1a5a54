// SPDX-License-Identifier: MIT
// The GPU against the CPU: integer products bit for bit on all kinds of shapes and at the extremes,
// logits of whole models in chunks and token by token, and the choice of tokens.
//
//     test_cuda [--small] [MODEL.bnt[:GOLDEN.safetensors]]...
//
// --small leaves out what would take too long under compute-sanitizer. Exit code 77 and a word
// where there is no GPU.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/sample.cuh"
extern "C" {
#include "formats/map.h"
#include "runtime/kernels.h"
}

static int failures;

static void expect(bool ok, const char *what)
{
    if (!ok) {
        failures++;
        printf("FAILED: %s\n", what);
    }
}

static void check(cudaError_t error)
{
    if (error == cudaSuccess)
        return;
    printf("FAILED: %s\n", cudaGetErrorString(error));
    exit(1);
}

static uint64_t random_state = 1;
static uint32_t random_u32()
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (uint32_t)((z ^ z >> 31) >> 16);
}

// --- products ---

enum fill { RANDOM, LARGEST, SMALLEST, FILLS };

static void fill_blocks(uint32_t *words, size_t count, enum fill fill)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t high = random_u32(), low = random_u32();
        words[i] = fill == LARGEST    ? 0xFFFFFFFFu
                   : fill == SMALLEST ? 0x55555555u
                                      : (high & 0xAAAAAAAAu) | ((low | ~high >> 1) & 0x55555555u);
    }
}

struct operands {
    uint32_t rows, cols, m;
    uint32_t *blocks;
    int8_t *x;
    int32_t *sum, *expected, *got;
    uint32_t stride, n_blocks, n_tiles;
};

static void make_operands(struct operands *p, enum fill fill)
{
    p->n_tiles = p->rows / 16;
    p->n_blocks = p->cols / 32;
    p->stride = bnt_cuda_pad(p->cols, BNT_CUDA_CHUNK_COLS);
    size_t words = (size_t)p->n_tiles * p->n_blocks * 32;
    p->blocks = (uint32_t *)malloc(words * 4);
    p->x = (int8_t *)aligned_alloc(64, (size_t)p->m * p->stride);
    p->sum = (int32_t *)calloc(p->m, 4);
    p->expected = (int32_t *)malloc((size_t)p->m * p->rows * 4);
    p->got = (int32_t *)malloc((size_t)p->m * p->rows * 4);
    fill_blocks(p->blocks, words, fill);
    memset(p->x, 0, (size_t)p->m * p->stride);
    for (uint32_t t = 0; t < p->m; t++) {
        for (uint32_t k = 0; k < p->cols; k++) {
            int v = fill == RANDOM ? (int)(random_u32() & 255) - 128 : t % 2 ? 127 : -128;
            p->x[(size_t)t * p->stride + k] = (int8_t)v;
            p->sum[t] += v;
        }
    }
}

static void test_product(uint32_t rows, uint32_t cols, uint32_t m, enum fill fill)
{
    struct operands p = {};
    p.rows = rows;
    p.cols = cols;
    p.m = m;
    make_operands(&p, fill);
    bnt_kernels_scalar.ternary(p.expected, rows, p.blocks, p.n_tiles, p.n_blocks, p.x, p.stride,
                               p.sum, m);
    struct bnt_cuda_product product = {};
    struct bnt_cuda_quantized x = {};
    x.stride = p.stride;
    int32_t *out;
    uint32_t *blocks;
    size_t bytes = (size_t)p.n_tiles * p.n_blocks * 128, out_bytes = (size_t)m * rows * 4;
    check(cudaMalloc(&blocks, bytes));
    check(cudaMalloc(&x.x, (size_t)m * p.stride));
    check(cudaMalloc(&x.sum, m * 4));
    check(cudaMalloc(&out, out_bytes));
    check(cudaMemcpy(blocks, p.blocks, bytes, cudaMemcpyHostToDevice));
    check(cudaMemcpy(x.x, p.x, (size_t)m * p.stride, cudaMemcpyHostToDevice));
    check(cudaMemcpy(x.sum, p.sum, m * 4, cudaMemcpyHostToDevice));
    product.blocks = blocks;
    product.n_tiles = p.n_tiles;
    product.n_blocks = p.n_blocks;
    for (int gemm = m > 1; gemm < 2; gemm++) {
        check(cudaMemset(out, 0xA5, out_bytes));
        check(gemm ? bnt_cuda_gemm(&product, &x, m, out, 0) : bnt_cuda_gemv(&product, &x, out, 0));
        check(cudaMemcpy(p.got, out, out_bytes, cudaMemcpyDeviceToHost));
        char what[96];
        snprintf(what, sizeof what, "%s %ux%u, %u tokens, fill %d", gemm ? "gemm" : "gemv", rows,
                 cols, m, (int)fill);
        expect(memcmp(p.got, p.expected, out_bytes) == 0, what);
    }
    check(cudaFree(blocks));
    check(cudaFree(x.x));
    check(cudaFree(x.sum));
    check(cudaFree(out));
    free(p.blocks);
    free(p.x);
    free(p.sum);
    free(p.expected);
    free(p.got);
}

// Three matrices side by side, rows that leave padding, each with its own scale and place. Scales
// are powers of two and sums small, so that floats are exact.
static void test_parts(bool add)
{
    static const uint32_t rows[BNT_CUDA_MAX_PARTS] = {40, 3, 161}, cols = 352;
    static const float scale[BNT_CUDA_MAX_PARTS] = {0.5f, 2, 0.125f}, x_scale = 4;
    const uint32_t guard = 16;
    struct operands p = {};
    struct bnt_cuda_product product = {};
    for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++) {
        product.parts[i].first_tile = product.n_tiles;
        product.n_tiles += bnt_cuda_pad(rows[i], 16) / 16;
    }
    p.rows = product.n_tiles * 16;
    p.cols = cols;
    p.m = 1;
    make_operands(&p, RANDOM);
    bnt_kernels_scalar.ternary(p.expected, p.rows, p.blocks, p.n_tiles, p.n_blocks, p.x, p.stride,
                               p.sum, 1);
    const size_t bytes = (size_t)p.n_tiles * p.n_blocks * 128, out_bytes = (p.rows + guard) * 4;
    struct bnt_cuda_quantized x = {};
    float *out, *got = (float *)malloc(out_bytes), *expected = (float *)malloc(out_bytes);
    uint32_t *blocks;
    check(cudaMalloc(&blocks, bytes));
    check(cudaMalloc(&x.x, p.stride));
    check(cudaMalloc(&x.sum, 4));
    check(cudaMalloc(&x.scale, 4));
    check(cudaMalloc(&out, out_bytes));
    check(cudaMemcpy(blocks, p.blocks, bytes, cudaMemcpyHostToDevice));
    check(cudaMemcpy(x.x, p.x, p.stride, cudaMemcpyHostToDevice));
    check(cudaMemcpy(x.sum, p.sum, 4, cudaMemcpyHostToDevice));
    check(cudaMemcpy(x.scale, &x_scale, 4, cudaMemcpyHostToDevice));
    for (uint32_t i = 0; i < p.rows + guard; i++)
        expected[i] = (float)(random_u32() & 255);
    check(cudaMemcpy(out, expected, out_bytes, cudaMemcpyHostToDevice));
    x.stride = p.stride;
    product.blocks = blocks;
    product.n_blocks = p.n_blocks;
    product.n_parts = BNT_CUDA_MAX_PARTS;
    product.add = add;
    uint32_t at = 0; // the parts' outputs lie one after the other, without padding
    for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; at += rows[i++]) {
        struct bnt_cuda_part *part = &product.parts[i];
        part->rows = rows[i];
        part->scale = scale[i];
        part->out = out + at;
        for (uint32_t r = 0; r < rows[i]; r++) {
            float y = (float)p.expected[part->first_tile * 16 + r] * (scale[i] / x_scale);
            expected[at + r] = add ? expected[at + r] + y : y;
        }
    }
    check(bnt_cuda_gemv(&product, &x, NULL, 0));
    check(cudaMemcpy(got, out, out_bytes, cudaMemcpyDeviceToHost));
    expect(memcmp(got, expected, out_bytes) == 0, add ? "gemv of parts, added" : "gemv of parts");
    check(cudaFree(blocks));
    check(cudaFree(x.x));
    check(cudaFree(x.sum));
    check(cudaFree(x.scale));
    check(cudaFree(out));
    free(got);
    free(expected);
    free(p.blocks);
    free(p.x);
    free(p.sum);
    free(p.expected);
    free(p.got);
}

// Kernels that may start before the one whose results they read is done: a chain of products, each
// of the bytes of the last one's sums, gives the same whether or not the host waits in between.
static void test_chain()
{
    enum { ROWS = 1280, COLS = 4 * ROWS, STEPS = 300, WEIGHTS = 8 };
    struct operands p = {};
    p.rows = ROWS;
    p.cols = COLS;
    p.m = 1;
    make_operands(&p, RANDOM);
    const size_t words = (size_t)p.n_tiles * p.n_blocks * 32;
    static int32_t result[2][ROWS];
    struct bnt_cuda_quantized x = {};
    struct bnt_cuda_product product = {};
    uint32_t *blocks;
    int32_t *sums[2];
    check(cudaMalloc(&blocks, WEIGHTS * words * 4));
    check(cudaMalloc(&sums[0], COLS));
    check(cudaMalloc(&sums[1], COLS));
    check(cudaMalloc(&x.sum, 4));
    check(cudaMemset(x.sum, 0, 4));
    for (int i = 0; i < WEIGHTS; i++) {
        fill_blocks(p.blocks, words, RANDOM);
        check(cudaMemcpy(blocks + i * words, p.blocks, words * 4, cudaMemcpyHostToDevice));
    }
    x.stride = COLS;
    product.n_tiles = p.n_tiles;
    product.n_blocks = p.n_blocks;
    for (int waits = 0; waits < 2; waits++) {
        check(cudaMemcpy(sums[0], p.x, COLS, cudaMemcpyHostToDevice));
        for (int i = 0; i < STEPS; i++) {
            product.blocks = blocks + i % WEIGHTS * words;
            x.x = (int8_t *)sums[i % 2];
            check(bnt_cuda_gemv(&product, &x, sums[(i + 1) % 2], 0));
            if (waits)
                check(cudaDeviceSynchronize());
        }
        check(cudaMemcpy(result[waits], sums[STEPS % 2], COLS, cudaMemcpyDeviceToHost));
    }
    expect(memcmp(result[0], result[1], COLS) == 0, "a chain of products");
    check(cudaFree(blocks));
    check(cudaFree(sums[0]));
    check(cudaFree(sums[1]));
    check(cudaFree(x.sum));
    free(p.blocks);
    free(p.x);
    free(p.sum);
    free(p.expected);
    free(p.got);
}

static void test_products(bool small)
{
    static const uint32_t large[][2] = {{2560, 2560},  {3840, 2560},  {13824, 2560},
                                        {2560, 6912},  {3200, 3200},  {4800, 3200},
                                        {3200, 10240}, {20480, 3200}, {16016, 2592}};
    static const uint32_t odd[][2] = {{16, 32},   {16, 96},  {48, 352},   {80, 8640}, {16, 8640},
                                      {2576, 96}, {112, 64}, {1040, 160}, {48, 128},  {16, 32768}};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        for (int fill = 0; fill < FILLS; fill++) {
            test_product(odd[i][0], odd[i][1], 1, (enum fill)fill);
            test_product(odd[i][0], odd[i][1], 5, (enum fill)fill);
        }
        test_product(odd[i][0], odd[i][1], small ? 9 : 131, RANDOM);
    }
    for (size_t i = 0; i < (small ? 1 : sizeof large / sizeof large[0]); i++) {
        test_product(large[i][0], large[i][1], 1, RANDOM);
        test_product(large[i][0], large[i][1], 3, RANDOM);
    }
    if (!small)
        test_product(16, 1 << 20, 2, LARGEST);
    test_parts(false);
    test_parts(true);
    test_chain();
    printf("products: %d failures\n", failures);
}

// --- models ---

struct pair {
    struct bnt_map map;
    struct bnt_view view;
    struct bnt_model *model;
    struct bnt_session *session;
    struct bnt_cuda_model *cuda_model;
    struct bnt_cuda_session *cuda;
    uint32_t vocab;
};

static void found(void *, const char *rule, const char *message)
{
    printf("FAILED: %s: %s\n", rule, message);
    failures++;
}

static bool open_pair(struct pair *p, const char *path)
{
    struct bnt_error err = {};
    struct bnt_report report = {found, NULL, 0};
    struct bnt_session_options options = {};
    options.cache = BNT_CACHE_F32; // as on the GPU
    bool ok = bnt_map_open(&p->map, path, &err) == BNT_OK &&
              bnt_view_open(&p->view, p->map.data, p->map.size, &report) &&
              bnt_model_open(path, NULL, &p->model, &err) == BNT_OK &&
              bnt_session_open(p->model, &options, &p->session, &err) == BNT_OK &&
              bnt_cuda_model_open(&p->view, 0, &p->cuda_model, &err) == BNT_OK &&
              bnt_cuda_session_open(p->cuda_model, p->view.hyper.max_context, true, &p->cuda,
                                    &err) == BNT_OK;
    if (!ok)
        printf("%s: %s\n", path, err.message);
    p->vocab = p->view.hyper.vocab_size;
    return ok;
}

static void close_pair(struct pair *p)
{
    bnt_cuda_session_close(p->cuda);
    bnt_cuda_model_close(p->cuda_model);
    bnt_session_close(p->session);
    bnt_model_close(p->model);
    bnt_map_close(&p->map);
}

struct difference {
    double mean, max;
    uint32_t same_best;
};

static uint32_t best_of(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static struct difference compare(const float *a, const float *b, uint32_t n, uint32_t vocab)
{
    struct difference d = {};
    for (size_t i = 0; i < (size_t)n * vocab; i++) {
        double delta = fabs((double)a[i] - (double)b[i]);
        d.mean += delta / ((double)n * vocab);
        if (!(delta <= d.max))
            d.max = delta;
    }
    for (uint32_t t = 0; t < n; t++)
        d.same_best +=
            best_of(a + (size_t)t * vocab, vocab) == best_of(b + (size_t)t * vocab, vocab);
    return d;
}

// One activation that rounds to the other side, because floats were added in another order, moves
// all logits by some 1e-2 in models as small as these: so the mean may be that much, and no more.
static void judge(const char *what, struct difference d, uint32_t n)
{
    printf("  %s: mean |difference| %.2e, max %.2e, same best %u of %u\n", what, d.mean, d.max,
           d.same_best, n);
    expect(d.mean <= 3e-2 && isfinite(d.max), what);
    expect(d.same_best * 100 >= n * 95, what);
}

// Chunks of different lengths, then token by token, against the CPU.
static void test_logits(struct pair *p, uint32_t n)
{
    struct bnt_error err = {};
    size_t size = (size_t)n * p->vocab;
    uint32_t *tokens = (uint32_t *)malloc(n * 4);
    float *cpu = (float *)malloc(size * 4), *gpu = (float *)calloc(size, 4);
    for (uint32_t t = 0; t < n; t++)
        tokens[t] = random_u32() % p->vocab;
    expect(bnt_evaluate(p->session, tokens, n, BNT_LOGITS_ALL, cpu, &err) == BNT_OK, "evaluate");
    uint32_t cut = n / 3;
    expect(bnt_cuda_evaluate(p->cuda, tokens, cut, BNT_LOGITS_ALL, gpu, &err) == BNT_OK &&
               bnt_cuda_evaluate(p->cuda, tokens + cut, n - cut, BNT_LOGITS_ALL,
                                 gpu + (size_t)cut * p->vocab, &err) == BNT_OK,
           err.message);
    judge("prompt", compare(cpu, gpu, n, p->vocab), n);
    memset(gpu, 0, size * 4);
    expect(bnt_cuda_session_rewind(p->cuda, cut, &err) == BNT_OK, "rewind");
    memcpy(gpu, cpu, (size_t)cut * p->vocab * 4);
    struct bnt_sampling greedy = {};
    uint64_t state = 0;
    uint32_t next, wrong = 0;
    for (uint32_t t = cut; t < n; t++) {
        enum bnt_status status = bnt_cuda_next(p->cuda, tokens[t], &greedy, &state, &next, &err);
        expect(status == BNT_OK, err.message);
        if (status != BNT_OK)
            exit(1);
        float *to = gpu + (size_t)t * p->vocab;
        check(cudaMemcpy(to, p->cuda->logits, p->vocab * 4, cudaMemcpyDeviceToHost));
        wrong += next != best_of(to, p->vocab);
    }
    printf("  decoder: %s\n", p->cuda->decoder ? "one kernel" : "operations");
    judge("token by token", compare(cpu, gpu, n, p->vocab), n);
    expect(wrong == 0, "greedy choice");
    free(tokens);
    free(cpu);
    free(gpu);
}

// The same logits, the same seed, the same token and state.
static void test_choice(struct pair *p)
{
    static const struct bnt_sampling samplings[] = {
        {0, 0, 0, 0},         {1, 0, 0, 0},      {0.7f, 40, 0, 0},   {0.8f, 0, 0.9f, 0},
        {1.5f, 50, 0.95f, 0}, {1, 1, 0, 0},      {0.5f, 7, 0.3f, 0}, {1e-30f, 0, 0.5f, 0},
        {2, 0, 0.999f, 0},    {1, 100000, 1, 0}, {1, 3, 1e-6f, 0}};
    float *logits = (float *)malloc(p->vocab * 4);
    uint32_t wrong = 0, tried = 0;
    for (int kind = 0; kind < 12; kind++) {
        for (uint32_t i = 0; i < p->vocab; i++)
            logits[i] = kind < 6     ? (float)(random_u32() & 0xFFFF) / 4096.0f - 8
                        : kind < 10  ? (float)(random_u32() % 5) // ties
                        : kind == 10 ? NAN
                                     : (i % 3 ? -INFINITY : 1.0f);
        check(cudaMemcpy(p->cuda->logits, logits, p->vocab * 4, cudaMemcpyHostToDevice));
        for (size_t i = 0; i < sizeof samplings / sizeof samplings[0]; i++) {
            struct bnt_error err = {};
            uint64_t cpu_state = 77 + kind, gpu_state = cpu_state;
            uint32_t got = 0;
            uint32_t expected = bnt_sample(p->session, logits, &samplings[i], &cpu_state);
            expect(bnt_cuda_sample(p->cuda, &samplings[i], &gpu_state, &got, &err) == BNT_OK,
                   err.message);
            tried++;
            if (got != expected || gpu_state != cpu_state) {
                wrong++;
                printf("  choice kind %d sampling %zu: %u, expected %u\n", kind, i, got, expected);
            }
        }
    }
    printf("  choices: %u of %u differ\n", wrong, tried);
    expect(wrong == 0, "choice");
    free(logits);
}

struct words {
    uint32_t id[64];
    size_t n;
};

static bool keep(void *context, uint32_t token, const char *, size_t)
{
    struct words *w = (struct words *)context;
    if (token != UINT32_MAX && w->n < 64)
        w->id[w->n++] = token;
    return true;
}

// Generation from a short prompt, as bnt_generate does it.
static void test_generation(struct pair *p, float temperature, uint32_t top_k, float top_p)
{
    struct bnt_error err = {};
    struct words cpu = {};
    uint32_t prompt[4] = {1 % p->vocab, 17 % p->vocab, 200 % p->vocab, 33 % p->vocab};
    struct bnt_generation g = {};
    struct bnt_generation_result result;
    g.max_tokens = 64;
    g.ignore_eos = true;
    g.sampling.temperature = temperature;
    g.sampling.top_k = top_k;
    g.sampling.top_p = top_p;
    g.sampling.seed = 42;
    g.callback = keep;
    g.context = &cpu;
    expect(bnt_session_rewind(p->session, 0, &err) == BNT_OK &&
               bnt_generate(p->session, prompt, 4, &g, &result, &err) == BNT_OK,
           "generate");
    uint64_t state = g.sampling.seed;
    uint32_t token = 0, same = 0;
    expect(bnt_cuda_session_rewind(p->cuda, 0, &err) == BNT_OK &&
               bnt_cuda_evaluate(p->cuda, prompt, 4, BNT_LOGITS_LAST, NULL, &err) == BNT_OK &&
               bnt_cuda_sample(p->cuda, &g.sampling, &state, &token, &err) == BNT_OK,
           err.message);
    while (same < cpu.n && cpu.id[same] == token) {
        same++;
        if (bnt_cuda_next(p->cuda, token, &g.sampling, &state, &token, &err) != BNT_OK)
            break;
    }
    printf("  generation, temperature %g: %u of %zu tokens as on the CPU\n", temperature, same,
           cpu.n);
    expect(same > 4, "generation"); // until a logit that rounds to the other side decides a word
}

// How many of the k likeliest tokens by all logits have others by way of the shortlist.
static uint32_t count_differences(const float *all, const float *some, uint32_t vocab, uint32_t k)
{
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        uint32_t above = 0;
        for (uint32_t j = 0; j < vocab && above < k; j++)
            above += all[j] > all[i] || (all[j] == all[i] && j < i);
        const bool same = memcmp(&all[i], &some[i], sizeof all[i]) == 0;
        wrong += !same && (above < k || some[i] != -INFINITY);
    }
    return wrong;
}

// By way of the int8 copy of the output matrix: the same bits for the likeliest tokens, and the
// same choices.
static void test_shortlist(struct pair *p)
{
    struct bnt_error err = {};
    struct bnt_cuda_session *full = p->cuda, *quick = NULL;
    expect(bnt_cuda_session_open(p->cuda_model, p->view.hyper.max_context, false, &quick, &err) ==
               BNT_OK,
           err.message);
    const uint32_t longest = quick->decoder ? bnt_cuda_longest_shortlist(quick->decoder) : 0;
    expect(longest > 0 && bnt_cuda_longest_shortlist(full->decoder) == 0, "there is a shortlist");
    expect(bnt_cuda_session_rewind(full, 0, &err) == BNT_OK, err.message);
    float *all = (float *)malloc(p->vocab * 4), *some = (float *)malloc(p->vocab * 4);
    uint32_t wrong = 0, different = 0, steps = 0, candidates = 0;
    for (uint32_t k : {1u, 2u, 40u, longest}) {
        for (int i = 0; i < 20 && k <= p->vocab; i++, steps++) {
            struct bnt_sampling sampling = {};
            sampling.temperature = k > 1 ? 0.9f : 0;
            sampling.top_k = k;
            uint64_t state[2] = {steps, steps};
            uint32_t next[2], token = random_u32() % p->vocab;
            expect(bnt_cuda_next(full, token, &sampling, &state[0], &next[0], &err) == BNT_OK &&
                       bnt_cuda_next(quick, token, &sampling, &state[1], &next[1], &err) == BNT_OK,
                   err.message);
            check(cudaMemcpy(all, full->logits, p->vocab * 4, cudaMemcpyDeviceToHost));
            check(cudaMemcpy(some, quick->logits, p->vocab * 4, cudaMemcpyDeviceToHost));
            wrong += count_differences(all, some, p->vocab, k);
            different += next[0] != next[1] || state[0] != state[1];
            for (uint32_t j = 0; j < p->vocab; j++)
                candidates += some[j] != -INFINITY;
        }
    }
    printf("  shortlist: %u steps, %u logits and %u choices differ, %.1f %% of the rows\n", steps,
           wrong, different, 100.0 * candidates / ((double)steps * p->vocab));
    expect(wrong == 0 && different == 0, "shortlist");
    free(all);
    free(some);
    p->cuda = quick;
    test_generation(p, 0, 0, 0);
    test_generation(p, 0.8f, 40, 0.9f);
    p->cuda = full;
    bnt_cuda_session_close(quick);
}

// A tensor of a safetensors file that transformers made: its bytes, or NULL if there is none.
static const void *find_tensor(const struct bnt_map *map, const char *name, size_t *size)
{
    uint64_t header;
    memcpy(&header, map->data, 8);
    char *json = (char *)calloc(header + 1, 1), key[64];
    memcpy(json, map->data + 8, header);
    snprintf(key, sizeof key, "\"%s\"", name);
    const char *at = strstr(json, key);
    const char *offsets = at ? strstr(at, "\"data_offsets\"") : NULL;
    uint64_t from = 0, to = 0;
    bool ok = offsets && sscanf(strchr(offsets, '['), "[%" SCNu64 ",%" SCNu64, &from, &to) == 2;
    free(json);
    *size = to - from;
    return ok ? map->data + 8 + header + from : NULL;
}

// Logits of the file's prompts against those of transformers in float32.
static void test_golden(struct pair *p, const char *path)
{
    struct bnt_map map = {};
    struct bnt_error err = {};
    struct difference all = {};
    uint32_t positions = 0;
    expect(bnt_map_open(&map, path, &err) == BNT_OK, err.message);
    for (int i = 0; map.size > 8; i++) {
        char tokens[32], logits[32];
        size_t n, size;
        const char *form = find_tensor(&map, "prompt0.tokens", &n) ? "prompt%d.%s" : "%d.%s";
        snprintf(tokens, sizeof tokens, form, i, "tokens");
        snprintf(logits, sizeof logits, form, i, "logits");
        const uint32_t *ids = (const uint32_t *)find_tensor(&map, tokens, &n);
        const float *golden = (const float *)find_tensor(&map, logits, &size);
        if (!ids || !golden)
            break;
        n /= 4;
        float *got = (float *)malloc(size);
        expect(bnt_cuda_session_rewind(p->cuda, 0, &err) == BNT_OK &&
                   bnt_cuda_evaluate(p->cuda, ids, n, BNT_LOGITS_ALL, got, &err) == BNT_OK,
               err.message);
        struct difference d = compare(golden, got, (uint32_t)n, p->vocab);
        all.mean += d.mean * n;
        all.max = d.max > all.max ? d.max : all.max;
        all.same_best += d.same_best;
        positions += (uint32_t)n;
        free(got);
    }
    bnt_map_close(&map);
    all.mean /= positions;
    judge("golden", all, positions);
    expect(positions > 0 && all.mean <= 1e-2, "golden logits within 1e-2");
}

static void test_model(const char *argument)
{
    struct pair p = {};
    char path[4096];
    const char *golden = strchr(argument, ':');
    snprintf(path, sizeof path, "%.*s", (int)strcspn(argument, ":"), argument);
    printf("%s\n", path);
    if (!open_pair(&p, path)) {
        failures++;
        return;
    }
    uint32_t n = p.view.hyper.max_context < 200 ? p.view.hyper.max_context : 200;
    if (golden)
        test_golden(&p, golden + 1);
    expect(bnt_cuda_session_rewind(p.cuda, 0, NULL) == BNT_OK, "rewind");
    test_logits(&p, n);
    test_choice(&p);
    test_generation(&p, 0, 0, 0);
    test_generation(&p, 0.8f, 0, 0.9f);
    if (p.view.has_int8)
        test_shortlist(&p);
    close_pair(&p);
}

int main(int argc, char **argv)
{
    struct bnt_error err = {};
    if (bnt_cuda_device_count(&err) == 0) {
        printf("skipped: no GPU (%s)\n", err.message);
        return 77;
    }
    struct bnt_cuda_device device;
    expect(bnt_cuda_device_get(0, &device, &err) == BNT_OK, err.message);
    printf("%s, compute capability %d.%d\n", device.name, device.major, device.minor);
    bool small = argc > 1 && strcmp(argv[1], "--small") == 0; // for compute-sanitizer
    test_products(small);
    for (int i = 1 + small; i < argc; i++)
        test_model(argv[i]);
    printf("%d failures\n", failures);
    return failures > 0;
}
