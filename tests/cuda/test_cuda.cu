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
#include <unistd.h>

#include <cuda_fp16.h>

#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/decode_steps.cuh"
#include "runtime/cuda/sample.cuh"
extern "C" {
#include "formats/map.h"
#include "runtime/kernels/kernels.h"
#include "tests/cuda/models.h"
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

static void free_operands(const struct operands &p)
{
    free(p.blocks);
    free(p.x);
    free(p.sum);
    free(p.expected);
    free(p.got);
}

// As bnt_cuda_quantized has it.
static void upload_x(int8_t *to, const struct operands &p)
{
    int8_t *x = (int8_t *)malloc((size_t)p.m * p.stride);
    for (uint32_t t = 0; t < p.m; t++)
        for (uint32_t k = 0; k < p.stride; k++)
            x[bnt_cuda_quantized_at(p.m, t, k)] = p.x[(size_t)t * p.stride + k];
    check(cudaMemcpy(to, x, (size_t)p.m * p.stride, cudaMemcpyHostToDevice));
    free(x);
}

// Kernel 0 is what is taken, the others are all that there are.
static int gemm_kernels()
{
    bool has_wgmma;
    check(bnt_cuda_has_wgmma(&has_wgmma));
    return has_wgmma ? 1 + BNT_CUDA_SHAPES : 1;
}

static cudaError_t multiply(const struct bnt_cuda_product *product,
                            const struct bnt_cuda_quantized *x, uint32_t m, int32_t *sums,
                            int kernel)
{
    return kernel == 0 ? bnt_cuda_gemm(product, x, m, sums, 0)
                       : bnt_cuda_gemm_wgmma(product, x, m, sums, (uint32_t)kernel - 1, 0);
}

static void test_product(uint32_t rows, uint32_t cols, uint32_t m, enum fill fill, bool every)
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
    upload_x(x.x, p);
    check(cudaMemcpy(x.sum, p.sum, m * 4, cudaMemcpyHostToDevice));
    product.blocks = blocks;
    product.n_tiles = p.n_tiles;
    product.n_blocks = p.n_blocks;
    const int kernels = every ? gemm_kernels() : 1;
    for (int gemm = m > 1 ? 0 : -1; gemm < kernels; gemm++) {
        check(cudaMemset(out, 0xA5, out_bytes));
        check(gemm >= 0 ? multiply(&product, &x, m, out, gemm)
                        : bnt_cuda_gemv(&product, &x, out, 0));
        check(cudaMemcpy(p.got, out, out_bytes, cudaMemcpyDeviceToHost));
        char what[96];
        snprintf(what, sizeof what, "product %ux%u, %u tokens, fill %d, kernel %d", rows, cols, m,
                 (int)fill, gemm);
        expect(memcmp(p.got, p.expected, out_bytes) == 0, what);
    }
    check(cudaFree(blocks));
    check(cudaFree(x.x));
    check(cudaFree(x.sum));
    check(cudaFree(out));
    free_operands(p);
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
    free_operands(p);
}

// --- products with scales by row and group ---

// Three matrices side by side, as a model of version 2 has them.
struct scaled {
    struct operands p; // of 2 m rows of activations where they have 16 bits
    struct bnt_scales scales[BNT_CUDA_MAX_PARTS];
    float *bias[BNT_CUDA_MAX_PARTS];
    float *x_scale; // (m)
    uint32_t rows[BNT_CUDA_MAX_PARTS], first[BNT_CUDA_MAX_PARTS], m, cols;
    float gamma[BNT_CUDA_MAX_PARTS];
    bool wide;
};

static float random_scale()
{
    return (float)(1 + random_u32() % 2047) / 4096.0f; // exact as a half
}

static void make_scales(struct bnt_scales *s, uint32_t tiles)
{
    const size_t count = (size_t)tiles * s->n_groups * 16;
    uint16_t *halves = (uint16_t *)malloc(count * 2);
    float *floats = (float *)malloc(count * 4);
    for (size_t i = 0; i < count; i++) {
        floats[i] = random_scale();
        halves[i] = __half_as_ushort(__float2half(floats[i]));
    }
    s->values = s->halves ? (void *)halves : (void *)floats;
    free(s->halves ? (void *)floats : (void *)halves);
}

// group: columns, or 0: one scale a matrix.
static void make_scaled(struct scaled *s, uint32_t group, bool halves, enum fill fill)
{
    for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++) {
        s->first[i] = s->p.rows / 16;
        s->p.rows += bnt_cuda_pad(s->rows[i], 16);
        s->gamma[i] = random_scale();
        s->bias[i] = (float *)malloc(s->rows[i] * 4);
        for (uint32_t r = 0; r < s->rows[i]; r++)
            s->bias[i][r] = random_scale() - 0.25f;
        if (group) {
            s->scales[i] = {NULL, halves, bnt_cuda_pad(s->cols, group) / group, group / 32};
            make_scales(&s->scales[i], bnt_cuda_pad(s->rows[i], 16) / 16);
        }
    }
    s->p.cols = bnt_cuda_pad(s->cols, 32);
    s->p.m = s->wide ? 2 * s->m : s->m;
    make_operands(&s->p, fill);
    for (uint32_t t = 0; t < s->p.m; t++)
        for (uint32_t k = 0; k < s->p.stride; k++) {
            int8_t *x = &s->p.x[(size_t)t * s->p.stride + k];
            if (k >= s->cols)
                *x = 0;
            else if (s->wide && t % 2 == 0 && *x == -128)
                *x = -127; // as upper bytes are
        }
    s->x_scale = (float *)malloc(s->m * 4);
    for (uint32_t t = 0; t < s->m; t++)
        s->x_scale[t] = 1.5f + random_scale();
}

static void free_scaled(const struct scaled &s)
{
    for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++) {
        free(s.bias[i]);
        free((void *)s.scales[i].values);
    }
    free(s.x_scale);
    free_operands(s.p);
}

// What the CPU makes of part i: out (m, rows). The steps are those of runtime/engine/product.c.
static void multiply_on_cpu(const struct scaled &s, uint32_t i, float *out)
{
    const struct operands &p = s.p;
    const struct bnt_scales &scales = s.scales[i];
    const uint32_t tiles = bnt_cuda_pad(s.rows[i], 16) / 16, padded = tiles * 16;
    const uint32_t *blocks = p.blocks + (size_t)s.first[i] * p.n_blocks * 32;
    const uint32_t parts = s.wide ? 2 : 1;
    int32_t *sum = (int32_t *)calloc(p.m, 4), *sums = (int32_t *)malloc((size_t)p.m * padded * 4);
    float *grouped = (float *)malloc((size_t)s.m * padded * 4);
    for (uint32_t t = 0; t < p.m; t++)
        for (uint32_t k = 0; k < p.cols; k++)
            sum[t] += p.x[(size_t)t * p.stride + k];
    if (scales.n_groups > 1)
        bnt_kernels_scalar.ternary_groups(grouped, padded, blocks, tiles, p.n_blocks, &scales, p.x,
                                          p.stride, sum, s.m, s.wide);
    else
        bnt_kernels_scalar.ternary(sums, padded, blocks, tiles, p.n_blocks, p.x, p.stride, sum,
                                   p.m);
    for (uint32_t t = 0; t < s.m; t++)
        for (uint32_t r = 0; r < s.rows[i]; r++) {
            const int32_t *at = sums + (size_t)t * parts * padded + r;
            const volatile float high = (float)at[0];
            volatile float y = high;
            if (s.wide) {
                const volatile float upper = high * 256.0f;
                y = upper + (float)at[padded];
            }
            const size_t place = (size_t)r / 16 * 16 + r % 16;
            const volatile float inverse = 1.0f / s.x_scale[t];
            if (scales.n_groups > 1) {
                y = grouped[(size_t)t * padded + r] * inverse;
            } else if (scales.n_groups == 1) {
                const float scale = scales.halves
                                        ? __half2float(((const __half *)scales.values)[place])
                                        : ((const float *)scales.values)[place];
                y = y * scale;
                y = y * inverse;
            } else {
                const volatile float factor = s.gamma[i] / s.x_scale[t];
                y = y * factor;
            }
            out[(size_t)t * s.rows[i] + r] = y;
        }
    free(sum);
    free(sums);
    free(grouped);
}

// On the device as bnt_cuda_product has it.
struct device_scaled {
    struct bnt_cuda_product product;
    struct bnt_cuda_quantized x;
    void *memory[16];
    int count;
};

template <class T> static T *upload_kept(struct device_scaled *d, const T *from, size_t count)
{
    T *to;
    check(cudaMalloc(&to, count * sizeof *to));
    check(cudaMemcpy(to, from, count * sizeof *to, cudaMemcpyHostToDevice));
    d->memory[d->count++] = (void *)to;
    return to;
}

static void upload_scaled(struct device_scaled *d, const struct scaled &s, bool has_bias)
{
    *d = {};
    struct bnt_cuda_product &p = d->product;
    p.blocks = upload_kept(d, s.p.blocks, (size_t)s.p.n_tiles * s.p.n_blocks * 32);
    p.n_tiles = s.p.n_tiles;
    p.n_blocks = s.p.n_blocks;
    p.n_parts = BNT_CUDA_MAX_PARTS;
    p.n_groups = (uint32_t)s.scales[0].n_groups;
    p.group_blocks = (uint32_t)s.scales[0].group_blocks;
    p.halves = s.scales[0].halves;
    for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++) {
        struct bnt_cuda_part *part = &p.parts[i];
        part->first_tile = s.first[i];
        part->rows = s.rows[i];
        part->scale = s.gamma[i];
        part->out_stride = s.rows[i];
        const size_t bytes =
            bnt_cuda_pad(s.rows[i], 16) * p.n_groups * (s.scales[i].halves ? 2 : 4);
        if (p.n_groups)
            part->scales = upload_kept(d, (const uint8_t *)s.scales[i].values, bytes);
        if (has_bias)
            part->bias = upload_kept(d, s.bias[i], s.rows[i]);
    }
    d->x.stride = s.p.stride;
    d->x.is_16_bit = s.wide;
    d->x.scale = upload_kept(d, s.x_scale, s.m);
    d->x.x = upload_kept(d, s.p.x, (size_t)s.p.m * s.p.stride);
    upload_x(d->x.x, s.p);
}

static void free_device_scaled(const struct device_scaled &d)
{
    for (int i = 0; i < d.count; i++)
        check(cudaFree(d.memory[i]));
}

// Of part i what was there before, and what the CPU makes of it then, with biases and added to that
// or not.
static void expect_scaled(const struct scaled &s, uint32_t i, bool has_bias, bool add,
                          float *before, float *expected)
{
    multiply_on_cpu(s, i, expected);
    for (size_t j = 0; j < (size_t)s.m * s.rows[i]; j++) {
        before[j] = (float)(j % 1000);
        volatile float y = expected[j];
        if (has_bias)
            y = y + s.bias[i][j % s.rows[i]];
        if (add)
            y = y + before[j];
        expected[j] = y;
    }
}

static uint32_t count_wrong(const float *device, const float *expected, size_t count)
{
    uint32_t wrong = 0;
    float *got = (float *)malloc(count * 4);
    check(cudaMemcpy(got, device, count * 4, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < count; i++)
        if (memcmp(&expected[i], &got[i], 4) != 0 && wrong++ == 0)
            printf("  %g instead of %g at %zu\n", (double)got[i], (double)expected[i], i);
    free(got);
    return wrong;
}

// Bit for bit what the CPU makes of it, by each kernel that the device has. add: biases too.
static void test_scaled(uint32_t rows, uint32_t cols, uint32_t m, uint32_t group, bool halves,
                        bool wide, bool add, enum fill fill)
{
    struct scaled s = {};
    const uint32_t all[] = {rows, 3, 161};
    memcpy(s.rows, all, sizeof all);
    s.m = m;
    s.cols = cols;
    s.wide = wide;
    make_scaled(&s, group, halves, fill);
    struct device_scaled d;
    upload_scaled(&d, s, add);
    d.product.add = add;
    float *before[BNT_CUDA_MAX_PARTS], *expected[BNT_CUDA_MAX_PARTS];
    for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++) {
        const size_t count = (size_t)m * s.rows[i];
        before[i] = (float *)malloc(count * 4);
        expected[i] = (float *)malloc(count * 4);
        expect_scaled(s, i, add, add, before[i], expected[i]);
        d.product.parts[i].out = upload_kept(&d, before[i], count);
    }
    for (bool by_wgmma : {false, true}) {
        if (by_wgmma && !bnt_cuda_gemm_groups_has_wgmma(&d.product))
            continue;
        for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++)
            check(cudaMemcpy(d.product.parts[i].out, before[i], (size_t)m * s.rows[i] * 4,
                             cudaMemcpyHostToDevice));
        check((by_wgmma ? bnt_cuda_gemm_groups_wgmma : bnt_cuda_gemm_groups_plain)(&d.product, &d.x,
                                                                                   m, 0));
        uint32_t wrong = 0;
        for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++)
            wrong += count_wrong(d.product.parts[i].out, expected[i], (size_t)m * s.rows[i]);
        char what[128];
        snprintf(what, sizeof what, "%u rows of %u, %u tokens, groups of %u, %s, %d bits%s, %d, %s",
                 rows, cols, m, group, halves ? "f16" : "f32", wide ? 16 : 8, add ? ", added" : "",
                 (int)fill, by_wgmma ? "warpgroups" : "warps");
        expect(wrong == 0, what);
    }
    for (uint32_t i = 0; i < BNT_CUDA_MAX_PARTS; i++) {
        free(before[i]);
        free(expected[i]);
    }
    free_device_scaled(d);
    free_scaled(s);
}

static void test_all_scaled(bool small)
{
    const int before = failures;
    static const uint32_t groups[] = {0, 32, 64, 96, 128, 160, 256, 1024, 1 << 20};
    for (uint32_t group : groups)
        for (bool wide : {false, true})
            for (bool add : {false, true}) {
                test_scaled(40, 352, 1, group, add, wide, add, RANDOM);
                test_scaled(130, 1000, 5, group, !add, wide, add, RANDOM);
                if (!small)
                    test_scaled(300, 2592, 137, group, add, wide, add, RANDOM);
                test_scaled(16, 2080, 3, group, add, wide, !add, add ? LARGEST : SMALLEST);
            }
    if (!small)
        for (bool wide : {false, true})
            test_scaled(16, 1 << 20, 2, 1 << 20, false, wide, false, LARGEST);
    printf("scaled products: %d failures\n", failures - before);
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
    free_operands(p);
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
            test_product(odd[i][0], odd[i][1], 1, (enum fill)fill, false);
            test_product(odd[i][0], odd[i][1], 5, (enum fill)fill, fill == RANDOM);
        }
        test_product(odd[i][0], odd[i][1], small ? 9 : 131, RANDOM, !small);
    }
    for (size_t i = 0; i < (small ? 1 : sizeof large / sizeof large[0]); i++) {
        test_product(large[i][0], large[i][1], 1, RANDOM, false);
        test_product(large[i][0], large[i][1], 3, RANDOM, !small);
    }
    if (!small) {
        test_product(16, 1 << 20, 2, LARGEST, true);
        test_product(2560, 2560, 300, RANDOM, true);
    }
    test_parts(false);
    test_parts(true);
    test_chain();
    printf("products: %d failures\n", failures);
}

// --- the other operations of a prompt ---

static float random_float() // roughly normal
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(random_u32() & 0xFFFF) / 65536.0f - 0.5f;
    return sum * 1.7f;
}

static float *random_floats(size_t count, float scale)
{
    float *v = (float *)malloc(count * sizeof *v);
    for (size_t i = 0; i < count; i++)
        v[i] = random_float() * scale;
    return v;
}

template <class T> static T *upload(const T *from, size_t count)
{
    T *to;
    check(cudaMalloc(&to, count * sizeof *to));
    check(cudaMemcpy(to, from, count * sizeof *to, cudaMemcpyHostToDevice));
    return to;
}

static void expect_close(const float *got, const float *expected, size_t count, double tolerance,
                         const char *what)
{
    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)got[i] - (double)expected[i]);
        if (!(difference <= tolerance)) {
            printf("  %s: %g instead of %g at %zu\n", what, (double)got[i], (double)expected[i], i);
            expect(false, what);
            return;
        }
    }
}

static float activate(uint32_t activation, float v)
{
    return activation == BNT_ACTIVATION_RELU2 ? (v > 0 ? v * v : 0) : v / (1 + expf(-v));
}

// Floats of a product: side by side with rows that do not fill their tiles, added to what is there,
// and gated.
static void test_floats(uint32_t rows, uint32_t cols, uint32_t m, bool add, uint32_t activation)
{
    const bool gated = activation != 0;
    const uint32_t tiles = (rows + 15) / 16, n_parts = gated ? 2 : 3;
    struct operands p = {};
    p.rows = n_parts * tiles * 16;
    p.cols = cols;
    p.m = m;
    make_operands(&p, RANDOM);
    bnt_kernels_scalar.ternary(p.expected, p.rows, p.blocks, p.n_tiles, p.n_blocks, p.x, p.stride,
                               p.sum, m);
    const size_t count = (size_t)n_parts * m * rows;
    float *before = random_floats(count, 1000), *scale = random_floats(m, 1);
    float *got = (float *)malloc(count * 4), *expected = (float *)malloc(count * 4);
    for (uint32_t t = 0; t < m; t++)
        scale[t] = 1.5f + fabsf(scale[t]);
    struct bnt_cuda_product product = {};
    struct bnt_cuda_quantized x = {};
    uint32_t *blocks = upload(p.blocks, (size_t)p.n_tiles * p.n_blocks * 32);
    float *out = upload(before, count);
    product.blocks = blocks;
    product.n_tiles = p.n_tiles;
    product.n_blocks = p.n_blocks;
    product.n_parts = n_parts;
    product.add = add;
    product.gated = gated;
    product.activation = activation;
    for (uint32_t i = 0; i < n_parts; i++)
        product.parts[i] = {
            i * tiles, rows, 0.01f * (float)(i + 1), out + i * m * rows, rows, 0, false,
            NULL,      NULL};
    check(cudaMalloc(&x.x, (size_t)m * p.stride));
    upload_x(x.x, p);
    x.stride = p.stride;
    x.scale = upload(scale, m);
    x.sum = upload(p.sum, m);
    for (size_t i = 0; i < count; i++) {
        const uint32_t part = (uint32_t)(i / (m * rows)), t = (uint32_t)(i / rows % m);
        const int32_t *sums = p.expected + (size_t)t * p.rows + i % rows;
        const float y = (float)sums[part * tiles * 16] * (product.parts[part].scale / scale[t]);
        const float up = (float)sums[tiles * 16] * (product.parts[1].scale / scale[t]);
        expected[i] = !gated     ? y + (add ? before[i] : 0)
                      : part > 0 ? before[i]
                                 : activate(activation, y) * up;
    }
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)expected[i]));
    for (int kernel = 0; kernel < gemm_kernels(); kernel++) {
        char what[96];
        snprintf(what, sizeof what, "floats of %u x %u, %u tokens%s, activation %u, kernel %d",
                 rows, cols, m, add ? ", added" : "", activation, kernel);
        check(cudaMemcpy(out, before, count * 4, cudaMemcpyHostToDevice));
        check(multiply(&product, &x, m, NULL, kernel));
        check(cudaMemcpy(got, out, count * 4, cudaMemcpyDeviceToHost));
        expect_close(got, expected, count, largest * 1e-6, what);
    }
    check(cudaFree(blocks));
    check(cudaFree(out));
    check(cudaFree(x.x));
    check(cudaFree(x.scale));
    check(cudaFree(x.sum));
    free_operands(p);
    free(before);
    free(scale);
    free(got);
    free(expected);
}

// Part i of what test_heads has made, and forgets it.
static void check_heads(const struct operands &p, const struct bnt_cuda_product &product,
                        uint32_t i, const float *angles, const float *scale, uint32_t context,
                        int kernel)
{
    const struct bnt_cuda_part *part = &product.parts[i];
    const uint32_t head_dim = product.head_dim, half = head_dim / 2;
    const size_t count = (i == 0 ? p.m : context) * (size_t)part->rows;
    float *got = (float *)malloc(count * 4), *expected = (float *)calloc(count, 4);
    check(cudaMemcpy(got, part->out, count * 4, cudaMemcpyDeviceToHost));
    check(cudaMemset(part->out, 0, count * 4));
    for (uint32_t t = 0; t < p.m; t++) {
        for (uint32_t r = 0; r < part->rows; r++) {
            const uint32_t e = r % head_dim, head = r / head_dim;
            const int32_t *sums = p.expected + (size_t)t * p.rows + part->first_tile * 16;
            const float factor = part->scale / scale[t];
            const float y = (float)sums[r] * factor;
            const float partner = (float)sums[e < half ? r + half : r - half] * factor;
            const float *angle = angles + ((size_t)t * half + e % half) * 2;
            expected[t * part->out_stride + head * part->head_stride + e] =
                !part->rotate ? y : y * angle[0] + (e < half ? -partner : partner) * angle[1];
        }
    }
    char what[96];
    snprintf(what, sizeof what, "%u rows in heads of %u, %u tokens, kernel %d", part->rows,
             head_dim, p.m, kernel);
    expect_close(got, expected, count, 1e-3, what);
    free(got);
    free(expected);
}

// Heads of queries and keys rotated, of values as they are, the latter two into a cache.
static void test_heads(uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim, uint32_t m)
{
    if (!bnt_cuda_gemm_takes_heads(head_dim))
        return;
    const uint32_t cols = 96, context = m + 5;
    const uint32_t heads[3] = {n_heads, n_kv_heads, n_kv_heads};
    struct operands p = {};
    p.rows = (n_heads + 2 * n_kv_heads) * head_dim;
    p.cols = cols;
    p.m = m;
    make_operands(&p, RANDOM);
    bnt_kernels_scalar.ternary(p.expected, p.rows, p.blocks, p.n_tiles, p.n_blocks, p.x, p.stride,
                               p.sum, m);
    float *scale = random_floats(m, 1), *angles = random_floats((size_t)m * head_dim, 1);
    for (uint32_t t = 0; t < m; t++)
        scale[t] = 1.5f + fabsf(scale[t]);
    struct bnt_cuda_product product = {};
    struct bnt_cuda_quantized x = {};
    uint32_t *blocks = upload(p.blocks, (size_t)p.n_tiles * p.n_blocks * 32);
    product.blocks = blocks;
    product.n_blocks = p.n_blocks;
    product.n_parts = 3;
    product.head_dim = head_dim;
    product.angles = (const float2 *)upload(angles, (size_t)m * head_dim);
    for (uint32_t i = 0; i < 3; i++) {
        struct bnt_cuda_part *part = &product.parts[i];
        const size_t tokens = i == 0 ? m : context;
        *part = {product.n_tiles,
                 heads[i] * head_dim,
                 0.01f * (float)(i + 1),
                 NULL,
                 0,
                 0,
                 i < 2,
                 NULL,
                 NULL};
        part->out_stride = i == 0 ? part->rows : head_dim;
        part->head_stride = i == 0 ? head_dim : (size_t)context * head_dim;
        product.n_tiles += part->rows / 16;
        check(cudaMalloc(&part->out, tokens * part->rows * 4));
        check(cudaMemset(part->out, 0, tokens * part->rows * 4));
    }
    check(cudaMalloc(&x.x, (size_t)m * p.stride));
    upload_x(x.x, p);
    x.stride = p.stride;
    x.scale = upload(scale, m);
    x.sum = upload(p.sum, m);
    for (int kernel = 0; kernel < gemm_kernels(); kernel++) {
        check(multiply(&product, &x, m, NULL, kernel));
        for (uint32_t i = 0; i < 3; i++)
            check_heads(p, product, i, angles, scale, context, kernel);
    }
    for (uint32_t i = 0; i < 3; i++)
        check(cudaFree(product.parts[i].out));
    check(cudaFree(blocks));
    check(cudaFree((void *)product.angles));
    check(cudaFree(x.x));
    check(cudaFree(x.scale));
    check(cudaFree(x.sum));
    free_operands(p);
    free(scale);
    free(angles);
}

// Quantized rows: within one of the definition, padded with zeros, with the sum of what is there.
static void test_norm_quantize(uint32_t n, uint32_t m, bool weighted, uint32_t bits)
{
    const uint32_t parts = bits / 8;
    const double most = bits == 8 ? 127 : 32512, least = bits == 8 ? 1e-5 : 1e-30;
    float *x = random_floats((size_t)n * m, 3), *weight = random_floats(n, 1), *scale;
    struct bnt_cuda_quantized q = {};
    q.stride = bnt_cuda_pad(n, BNT_CUDA_CHUNK_COLS);
    q.is_16_bit = bits == 16;
    const size_t size = (size_t)m * q.stride * parts;
    int8_t *got = (int8_t *)malloc(size);
    int32_t *sums = (int32_t *)malloc(m * 4);
    float *device_x = upload(x, (size_t)n * m), *device_weight = upload(weight, n);
    scale = (float *)malloc(m * 4);
    check(cudaMalloc(&q.x, size));
    check(cudaMemset(q.x, 0x55, size));
    check(cudaMalloc(&q.scale, m * 4));
    check(cudaMalloc(&q.sum, m * 4));
    check(bnt_cuda_norm_quantize(&q, device_x, weighted ? device_weight : NULL, 1e-5f, n, m, 0));
    check(cudaMemcpy(got, q.x, size, cudaMemcpyDeviceToHost));
    check(cudaMemcpy(sums, q.sum, m * 4, cudaMemcpyDeviceToHost));
    check(cudaMemcpy(scale, q.scale, m * 4, cudaMemcpyDeviceToHost));
    uint32_t wrong = 0;
    for (uint32_t t = 0; t < m; t++) {
        const float *row = x + (size_t)t * n;
        double squares = 0, max = 0;
        for (uint32_t i = 0; i < n; i++) {
            squares += (double)row[i] * (double)row[i];
            max = fmax(max, fabs((double)row[i] * (weighted ? (double)weight[i] : 1)));
        }
        const double factor = weighted ? 1 / sqrt(squares / n + 1e-5) : 1;
        const double s = most / fmax(max * factor, least);
        wrong += !(fabs(s / (double)scale[t] - 1) < 1e-5);
        int32_t sum = 0;
        for (uint32_t i = 0; i < q.stride; i++) {
            int v = got[bnt_cuda_quantized_at(m * parts, t * parts, i)];
            if (bits == 16)
                v = 256 * v + got[bnt_cuda_quantized_at(m * parts, t * parts + 1, i)];
            const double y = i < n ? (double)row[i] * factor * (weighted ? (double)weight[i] : 1) *
                                         (double)scale[t]
                                   : 0;
            wrong += !(fabs(v - y) <= (i < n ? 0.51 + most * 1e-6 : 0));
            sum += v;
        }
        wrong += bits == 8 && sum != sums[t];
    }
    char what[96];
    snprintf(what, sizeof what, "norm of %u rows of %u%s, %u bits", m, n,
             weighted ? ", weighted" : "", bits);
    expect(wrong == 0, what);
    check(cudaFree(device_x));
    check(cudaFree(device_weight));
    check(cudaFree(q.x));
    check(cudaFree(q.scale));
    check(cudaFree(q.sum));
    free(x);
    free(weight);
    free(scale);
    free(got);
    free(sums);
}

// Attention on tensor cores against the plain form. What lies beyond the tokens' positions is NaN
// and must not be touched.
static void test_attention(struct bnt_cuda_heads heads, uint32_t position, uint32_t m, float scale)
{
    const uint32_t row = bnt_cuda_pad(heads.head_dim, 4), context = position + m + 3;
    const size_t queries = (size_t)m * heads.n_heads * heads.head_dim;
    const size_t cached = (size_t)heads.n_kv_heads * context * row;
    float *q = random_floats(queries, 1 / scale), *keys = random_floats(cached, scale);
    float *values = random_floats(cached, scale);
    float *got = (float *)malloc(queries * 4), *expected = (float *)malloc(queries * 4);
    double largest = 0;
    for (size_t i = 0; i < cached; i++) {
        if (i / row % context >= position + m)
            keys[i] = values[i] = NAN;
        else if (i % row >= heads.head_dim)
            keys[i] = values[i] = 0;
        else
            largest = fmax(largest, fabs((double)values[i]));
    }
    float *out, *device_q = upload(q, queries);
    struct bnt_cuda_cache cache = {upload(keys, cached), upload(values, cached), context, row};
    check(cudaMalloc(&out, queries * 4));
    check(bnt_cuda_attention(out, device_q, &cache, heads, position, m, 0));
    check(cudaMemcpy(expected, out, queries * 4, cudaMemcpyDeviceToHost));
    check(cudaMemset(out, 0xFF, queries * 4));
    check(bnt_cuda_attention_tiles(out, device_q, &cache, heads, position, m, 0));
    check(cudaMemcpy(got, out, queries * 4, cudaMemcpyDeviceToHost));
    char what[96];
    snprintf(what, sizeof what, "attention of %u/%u heads of %u, %u tokens after %u, scale %g",
             heads.n_heads, heads.n_kv_heads, heads.head_dim, m, position, (double)scale);
    expect_close(got, expected, queries, largest * 3e-6, what);
    check(cudaFree(out));
    check(cudaFree(device_q));
    check(cudaFree(cache.keys));
    check(cudaFree(cache.values));
    free(q);
    free(keys);
    free(values);
    free(got);
    free(expected);
}

// A product as a token's graph has it. Activations are whole numbers up to 127, and so are they
// times the norm's weights, ±1: then quantization leaves them as they are.
static void test_decode_product(uint32_t rows, uint32_t cols, bool gated, uint32_t activation,
                                bool normed, bool add, bool alone)
{
    const float eps = 1e-5f, gammas[2] = {0.0078125f, 0.015625f};
    struct operands p = {};
    p.rows = bnt_cuda_pad(rows, 16) * (gated ? 2 : 1);
    p.cols = bnt_cuda_pad(cols, 32);
    p.m = 1;
    make_operands(&p, RANDOM);
    float *x = random_floats(cols, 1), *norm = random_floats(cols, 1);
    float *old = random_floats(rows, 3);
    double squares = 0;
    p.sum[0] = 0;
    for (uint32_t k = 0; k < p.cols; k++) {
        const int v = k == 1 ? -127 : k < cols ? (int)(random_u32() % 255) - 127 : 0;
        p.x[k] = (int8_t)v;
        p.sum[0] += v;
        if (k < cols) {
            norm[k] = normed && random_u32() % 2 ? -1.0f : 1.0f;
            x[k] = (float)v * norm[k];
            squares += x[k] * x[k];
        }
    }
    bnt_kernels_scalar.ternary(p.expected, p.rows, p.blocks, p.n_tiles, p.n_blocks, p.x, p.stride,
                               p.sum, 1);
    const float factor = normed ? 1 / sqrtf((float)(squares / cols) + eps) : 1;

    struct decode_device device;
    check(decode_find_device(&device));
    struct decode_product step = {};
    step.in = {upload(x, cols), normed ? upload(norm, cols) : NULL, cols, 1.0f / (float)cols, eps};
    step.product.blocks = upload(p.blocks, (size_t)p.n_tiles * p.n_blocks * 32);
    step.product.n_tiles = p.n_tiles;
    step.product.n_blocks = p.n_blocks;
    step.product.n_parts = gated ? 2 : 1;
    step.product.gated = gated;
    step.product.activation = activation;
    step.product.add = add;
    float *out = upload(old, rows);
    step.product.parts[0] = {0, rows, gammas[0], out, rows, 0, false, NULL, NULL};
    step.product.parts[1] = {p.n_tiles / 2, rows, gammas[1], NULL, rows, 0, false, NULL, NULL};
    step.alone = alone;
    check(decode_product_launch(&step, &device, 0));

    float *got = (float *)malloc(rows * 4), *expected = (float *)malloc(rows * 4);
    check(cudaMemcpy(got, out, rows * 4, cudaMemcpyDeviceToHost));
    double largest = 0;
    for (uint32_t r = 0; r < rows; r++) {
        const float gate = (float)p.expected[r] * gammas[0] * factor;
        const float up = gated ? (float)p.expected[r + p.rows / 2] * gammas[1] * factor : 0;
        expected[r] = gated ? activate(activation, gate) * up : gate + (add ? old[r] : 0);
        largest = fmax(largest, fabs((double)expected[r]));
    }
    char what[128];
    snprintf(what, sizeof what, "product of a token, %u x %u, gated %d, act %u, norm %d, add %d",
             rows, cols, gated, activation, normed, add);
    expect_close(got, expected, rows, largest * 2e-6, what);
    const void *const memory[] = {step.in.x, step.in.norm, step.product.blocks, out};
    for (const void *m : memory)
        check(cudaFree((void *)m));
    free_operands(p);
    for (float *h : {x, norm, old, got, expected})
        free(h);
}

// The same of scales by row and group, in 8 and 16 bits, bit for bit but where activated: three
// matrices side by side, with biases and what is there added, or two that are gated. Activations
// are whole numbers, the largest of them the largest that there is: they stay as they are.
static void test_decode_scaled(uint32_t rows, uint32_t cols, uint32_t group, bool halves, bool wide,
                               bool gated)
{
    struct scaled s = {};
    const uint32_t all[] = {rows, gated ? rows : 3, gated ? 1u : 161u};
    memcpy(s.rows, all, sizeof all);
    s.m = 1;
    s.cols = cols;
    s.wide = wide;
    make_scaled(&s, group, halves, RANDOM);
    s.x_scale[0] = 1;
    float *x = random_floats(cols, 1);
    for (uint32_t k = 0; k < cols; k++) {
        int8_t *q = &s.p.x[k], *low = &s.p.x[(wide ? s.p.stride : 0) + k];
        *q = k == 1 ? 127 : *q == -128 ? -127 : *q;
        if (wide && (*q == 127 || *q == -127))
            *low = 0;
        x[k] = wide ? 256.0f * *q + *low : *q;
    }
    struct device_scaled d;
    upload_scaled(&d, s, true);
    struct decode_device device;
    check(decode_find_device(&device));
    struct decode_product step = {};
    step.in = {upload_kept(&d, x, cols), NULL, cols, 1.0f / (float)cols, 1e-5f};
    step.is_16_bit = wide;
    step.product = d.product;
    step.product.n_parts = gated ? 2 : 3;
    step.product.add = !gated;
    step.product.gated = gated;
    step.product.activation = BNT_ACTIVATION_RELU2;
    if (gated)
        step.product.n_tiles = s.first[2];
    float *y[BNT_CUDA_MAX_PARTS] = {};
    for (uint32_t i = 0; i < step.product.n_parts; i++) {
        float *old = (float *)malloc(s.rows[i] * 4);
        y[i] = (float *)malloc(s.rows[i] * 4);
        expect_scaled(s, i, true, !gated, old, y[i]);
        step.product.parts[i].out = upload_kept(&d, old, s.rows[i]);
        free(old);
    }
    char what[128];
    snprintf(what, sizeof what, "%u rows of %u of a token, groups of %u, %s, %d bits%s", rows, cols,
             group, halves ? "f16" : "f32", wide ? 16 : 8, gated ? ", gated" : "");
    expect(decode_product_fits(&step, &device), what);
    check(decode_product_launch(&step, &device, 0));
    for (uint32_t i = 0; i < (gated ? 1 : step.product.n_parts); i++) {
        float *got = (float *)malloc(s.rows[i] * 4);
        check(cudaMemcpy(got, step.product.parts[i].out, s.rows[i] * 4, cudaMemcpyDeviceToHost));
        double largest = 0;
        for (uint32_t r = 0; gated && r < s.rows[i]; r++) {
            y[0][r] = activate(BNT_ACTIVATION_RELU2, y[0][r]) * y[1][r];
            largest = fmax(largest, fabs((double)y[0][r]));
        }
        expect_close(got, y[i], s.rows[i], largest * 2e-6, what);
        free(got);
    }
    for (float *v : y)
        free(v);
    free(x);
    free_device_scaled(d);
    free_scaled(s);
}

static void test_decode_all_scaled(bool small)
{
    static const uint32_t groups[] = {0, 32, 64, 96, 128, 256, 384, 1 << 20};
    for (uint32_t group : groups)
        for (bool wide : {false, true})
            for (bool gated : {false, true}) {
                test_decode_scaled(40, 352, group, wide, wide, gated);
                test_decode_scaled(1000, 2564, group, !wide, wide, gated);
                if (!small && group != 32)
                    test_decode_scaled(2570, 6912, group, true, wide, gated);
                if (!small && group > 64)
                    test_decode_scaled(272, 13824, group, true, wide, gated);
            }
}

static void test_decode_products(bool small)
{
    static const uint32_t shapes[][2] = {{16, 32},     {17, 36},     {96, 352},    {640, 2560},
                                         {2560, 2564}, {2570, 6912}, {272, 13824}, {5120, 640}};
    for (size_t i = 0; i < (small ? 5 : sizeof shapes / sizeof shapes[0]); i++) {
        const uint32_t rows = shapes[i][0], cols = shapes[i][1];
        test_decode_product(rows, cols, false, 0, true, true, true);
        test_decode_product(rows, cols, false, 0, false, false, false);
        test_decode_product(rows, cols, true, BNT_ACTIVATION_RELU2, true, false, false);
        test_decode_product(rows, cols, true, BNT_ACTIVATION_SILU, false, false, false);
    }
}

// Attention as a token's graph has it, against rope and attention as prompts have them.
// is_poisoned: the first query head is not a number, which must not touch the others, nor hang.
static void test_decode_attention(struct bnt_cuda_heads heads, uint32_t position, bool is_poisoned)
{
    const uint32_t dim = heads.head_dim, row = bnt_cuda_pad(dim, 4), context = position + 3;
    const uint32_t n_q = heads.n_heads * dim, n_kv = heads.n_kv_heads * dim;
    const size_t cached = (size_t)heads.n_kv_heads * context * row;
    float *host[] = {random_floats(n_q, 1),    random_floats(n_kv, 1),   random_floats(n_kv, 1),
                     random_floats(cached, 1), random_floats(cached, 1), random_floats(dim, 1)};
    const uint32_t poisoned = is_poisoned ? dim : 0;
    for (uint32_t i = 0; i < poisoned; i++)
        host[0][i] = NAN;
    float *q = upload(host[0], n_q), *k = upload(host[1], n_kv), *v = upload(host[2], n_kv);
    float *frequency = upload(host[5], dim);
    float2 *angles;
    float *out;
    check(cudaMalloc(&angles, dim * sizeof *angles));
    check(cudaMalloc(&out, n_q * 4));
    check(bnt_cuda_angles(angles, frequency, 1.0f, dim, position, 1, 0));
    struct bnt_cuda_cache caches[2];
    for (auto &c : caches)
        c = {upload(host[3], cached), upload(host[4], cached), context, row};

    struct decode_device device;
    check(decode_find_device(&device));
    expect(decode_attention_fits(heads, false, &device), "attention of a token fits");
    const uint32_t items = decode_attention_items(heads);
    const size_t parts = decode_attention_parts(heads, &device);
    struct decode_place place = {position, 0};
    struct decode_attention step = {};
    step.q = q;
    step.k = k;
    step.v = v;
    step.angles = angles;
    step.cache = caches[0];
    step.heads = heads;
    step.att = out;
    struct decode_place *device_place = upload(&place, 1);
    step.place = device_place;
    check(cudaMalloc(&step.parts, (parts + 1) * 4));
    check(cudaMalloc(&step.arrived, items * 4));
    check(cudaMemset(step.arrived, 0, items * 4));
    float *got = (float *)malloc(n_q * 4), *expected = (float *)malloc(n_q * 4);
    char what[96];
    snprintf(what, sizeof what, "attention of a token, %u/%u heads of %u after %u", heads.n_heads,
             heads.n_kv_heads, dim, position);
    for (int round = 0; round < 2; round++) { // what counts arrivals must be zero again
        check(cudaMemset(out, 0xFF, n_q * 4));
        check(decode_attention_launch(&step, &device, 0));
    }
    check(cudaMemcpy(got, out, n_q * 4, cudaMemcpyDeviceToHost));
    check(bnt_cuda_rope(q, k, v, angles, &caches[1], heads, position, 1, 0));
    check(bnt_cuda_attention(out, q, &caches[1], heads, position, 1, 0));
    check(cudaMemcpy(expected, out, n_q * 4, cudaMemcpyDeviceToHost));
    for (uint32_t i = 0; i < poisoned; i++)
        expect(isnan(got[i]) && isnan(expected[i]), what);
    expect_close(got + poisoned, expected + poisoned, n_q - poisoned, 2e-5, what);
    float *cache[2] = {(float *)malloc(cached * 4), (float *)malloc(cached * 4)};
    for (bool is_value : {false, true}) {
        for (int i = 0; i < 2; i++)
            check(cudaMemcpy(cache[i], is_value ? caches[i].values : caches[i].keys, cached * 4,
                             cudaMemcpyDeviceToHost));
        expect_close(cache[0], cache[1], cached, 1e-6, what);
    }
    void *const memory[] = {q,          k,           v, frequency, angles, out, device_place,
                            step.parts, step.arrived};
    for (void *m : memory)
        check(cudaFree(m));
    for (auto &c : caches) {
        check(cudaFree(c.keys));
        check(cudaFree(c.values));
    }
    for (float *h : host)
        free(h);
    for (void *h : {(void *)got, (void *)expected, (void *)cache[0], (void *)cache[1]})
        free(h);
}

// Positions within a window, at its ends, in several windows, and heads that leave blocks idle. The
// small form, for racecheck, which makes them take seconds, has each kind of heads once.
static void test_decode_attentions(bool small)
{
    static const struct bnt_cuda_heads kinds[] = {{20, 5, 128}, {4, 2, 24},  {3, 3, 80},
                                                  {5, 1, 96},   {32, 8, 64}, {6, 2, 256},
                                                  {2, 2, 4},    {1, 1, 128}, {64, 64, 132}};
    for (const struct bnt_cuda_heads &heads : kinds)
        for (uint32_t position : {0u, 1u, 15u, 64u, 511u, 1023u, 1024u, 1025u, 2500u})
            for (bool is_poisoned : {false, true})
                if (!small || (heads.n_heads == 20 && position == 1024 && is_poisoned) ||
                    (heads.n_heads != 20 && position == 15 && !is_poisoned))
                    test_decode_attention(heads, position, is_poisoned);
}

static void test_output(uint32_t vocab, uint32_t hidden, uint32_t m, bool wide)
{
    float *x = random_floats((size_t)m * hidden, 1), *w = random_floats((size_t)vocab * hidden, 1);
    uint16_t *narrow = (uint16_t *)malloc((size_t)vocab * hidden * 2);
    float *got = (float *)malloc((size_t)m * vocab * 4);
    float *expected = (float *)malloc((size_t)m * vocab * 4);
    for (size_t i = 0; !wide && i < (size_t)vocab * hidden; i++) {
        uint32_t bits;
        memcpy(&bits, &w[i], 4);
        narrow[i] = (uint16_t)(bits >> 16);
        bits &= 0xFFFF0000u;
        memcpy(&w[i], &bits, 4);
    }
    for (size_t i = 0; i < (size_t)m * vocab; i++) {
        double sum = 0;
        for (uint32_t k = 0; k < hidden; k++)
            sum += (double)x[i / vocab * hidden + k] * (double)w[i % vocab * hidden + k];
        expected[i] = (float)sum;
    }
    float *logits, *device_x = upload(x, (size_t)m * hidden);
    void *output = wide ? (void *)upload(w, (size_t)vocab * hidden)
                        : (void *)upload(narrow, (size_t)vocab * hidden);
    check(cudaMalloc(&logits, (size_t)m * vocab * 4));
    check(bnt_cuda_output(logits, output, wide, device_x, hidden, vocab, m, 0));
    check(cudaMemcpy(got, logits, (size_t)m * vocab * 4, cudaMemcpyDeviceToHost));
    char what[96];
    snprintf(what, sizeof what, "output of %u x %u, %u tokens%s", vocab, hidden, m,
             wide ? ", f32" : "");
    expect_close(got, expected, (size_t)m * vocab, 1e-5 * sqrt((double)hidden), what);
    check(cudaFree(logits));
    check(cudaFree(device_x));
    check(cudaFree(output));
    free(x);
    free(w);
    free(narrow);
    free(got);
    free(expected);
}

static void test_operations(bool small)
{
    const int before = failures;
    for (uint32_t activation = 0; activation < 3; activation++)
        for (uint32_t m : {2u, 33u, 150u}) {
            test_floats(40, 96, m, activation == 0, activation);
            test_floats(129, 160, m, false, activation);
            if (!small)
                test_floats(1000, 1024, m, activation == 0, activation);
        }
    test_heads(3, 1, 32, 7);
    test_heads(4, 2, 64, 40);
    test_heads(5, 5, 96, 130);
    test_heads(20, 5, 128, small ? 17 : 300);
    for (uint32_t n : {2u, 33u, 96u, 1024u, 2560u, 4096u, 6912u, 14336u, 17000u})
        for (bool weighted : {false, true})
            for (uint32_t bits : {8u, 16u})
                test_norm_quantize(n, small ? 3 : 11, weighted, bits);
    test_attention({4, 2, 24}, 0, 37, 1);
    test_attention({6, 2, 64}, 5, 70, 1e4f);
    test_attention({3, 3, 80}, 100, 65, 1e-6f);
    test_attention({8, 2, 128}, 0, 3, 1e10f);
    if (!small) {
        test_attention({20, 5, 128}, 77, 300, 1);
        test_attention({5, 1, 96}, 513, 130, 1e-20f);
        test_attention({32, 8, 64}, 0, 200, 1);
        test_attention({2, 2, 4}, 1000, 9, 1);
        test_attention({128, 16, 32}, 50, 290, 1); // enough for warpgroups with their own queries
        test_attention({128, 64, 80}, 0, 277, 1);
    }
    test_decode_products(small);
    test_decode_all_scaled(small);
    test_decode_attentions(small);
    for (bool wide : {false, true})
        for (uint32_t m : {1u, 2u, 11u}) {
            test_output(37, 24, m, wide);
            test_output(101, 36, m, wide);
            test_output(1000, 520, m, wide);
        }
    printf("operations: %d failures\n", failures - before);
}

// --- models ---

struct pair {
    double relative; // if not 0: how far logits may be off, as a part of their deviation
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
static void judge(const char *what, struct difference d, uint32_t n, double tolerance)
{
    printf("  %s: mean |difference| %.2e, max %.2e, same best %u of %u\n", what, d.mean, d.max,
           d.same_best, n);
    expect(d.mean <= tolerance && isfinite(d.max), what);
    expect(d.same_best * 100 >= n * 95, what);
}

static double deviation(const float *v, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)v[i];
        squares += (double)v[i] * (double)v[i];
    }
    return sqrt(squares / n - sum / n * (sum / n));
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
    const double tolerance = p->relative > 0 ? p->relative * deviation(cpu, size) : 3e-2;
    uint32_t cut = n / 3;
    expect(bnt_cuda_evaluate(p->cuda, tokens, cut, BNT_LOGITS_ALL, gpu, &err) == BNT_OK &&
               bnt_cuda_evaluate(p->cuda, tokens + cut, n - cut, BNT_LOGITS_ALL,
                                 gpu + (size_t)cut * p->vocab, &err) == BNT_OK,
           err.message);
    judge("prompt", compare(cpu, gpu, n, p->vocab), n, tolerance);
    memset(gpu, 0, size * 4);
    expect(bnt_cuda_session_rewind(p->cuda, cut, &err) == BNT_OK, "rewind");
    memcpy(gpu, cpu, (size_t)cut * p->vocab * 4);
    struct bnt_sampling greedy = {};
    uint64_t state = 0;
    uint32_t next, wrong = 0;
    for (uint32_t t = cut; t < n; t++) {
        enum bnt_status status =
            bnt_cuda_next(p->cuda, tokens[t], &greedy, {}, &state, &next, &err);
        expect(status == BNT_OK, err.message);
        if (status != BNT_OK)
            exit(1);
        float *to = gpu + (size_t)t * p->vocab;
        check(cudaMemcpy(to, p->cuda->logits, p->vocab * 4, cudaMemcpyDeviceToHost));
        wrong += next != best_of(to, p->vocab);
    }
    printf("  decoder: %s\n", p->cuda->decoder ? "a graph" : "operations");
    judge("token by token", compare(cpu, gpu, n, p->vocab), n, tolerance);
    expect(wrong == 0, "greedy choice");
    free(tokens);
    free(cpu);
    free(gpu);
}

static struct bnt_sampling way(float temperature, uint32_t top_k = 0, float top_p = 0,
                               float min_p = 0, float repetition = 0, float presence = 0,
                               float frequency = 0)
{
    return {temperature, top_k, top_p, 0, min_p, repetition, presence, frequency};
}

enum { SEEN = 12, OF_PROMPT = 5 };

// The same short text for the CPU's session and for a list: some tokens twice, some generated.
static struct bnt_seen_list see(struct pair *p, struct bnt_history *history)
{
    struct bnt_error err = {};
    uint32_t tokens[SEEN];
    for (uint32_t i = 0; i < SEEN; i++)
        tokens[i] = i % 3 && i > 2 ? tokens[i - 2] : random_u32() % p->vocab;
    expect(bnt_session_rewind(p->session, 0, &err) == BNT_OK &&
               bnt_evaluate(p->session, tokens, OF_PROMPT, BNT_LOGITS_NONE, NULL, &err) == BNT_OK,
           err.message);
    bnt_session_end_prompt(p->session);
    expect(bnt_evaluate(p->session, tokens + OF_PROMPT, SEEN - OF_PROMPT, BNT_LOGITS_NONE, NULL,
                        &err) == BNT_OK,
           err.message);
    expect(bnt_history_open(history, SEEN, p->vocab), "memory for a history");
    bnt_history_put(history, 0, tokens, SEEN);
    bnt_history_end_prompt(history, OF_PROMPT);
    return bnt_history_list(history, SEEN);
}

// The same logits, the same seed, the same token and state.
static void test_choice(struct pair *p)
{
    static const struct bnt_sampling samplings[] = {
        way(0, 0, 0),
        way(1, 0, 0),
        way(0.7f, 40, 0),
        way(0.8f, 0, 0.9f),
        way(1.5f, 50, 0.95f),
        way(1, 1, 0),
        way(0.5f, 7, 0.3f),
        way(1e-30f, 0, 0.5f),
        way(2, 0, 0.999f),
        way(1, 100000, 1),
        way(1, 3, 1e-6f),
        way(0, 0, 0, 0, 1.3f),
        way(0, 0, 0, 0, 0, 0.7f, 0.3f),
        way(0, 0, 0, 0, 0.7f, -1.1f, -0.3f),
        way(1, 0, 0, 0.1f),
        way(1, 0, 0, 1),
        way(1, 50, 0, 0.2f),
        way(1.5f, 0, 0.95f, 0.3f),
        way(2, 100000, 0.999f, 0.01f),
        way(1, 0, 0, 0, 1.1f, 0.3f, 0.1f),
        way(0.8f, 40, 0.9f, 0.05f, 1.2f, 0.3f, 0.7f),
        way(0.8f, 0, 0.95f, 0.02f, 0.9f, -0.3f, 2),
    };
    struct bnt_history history;
    const struct bnt_seen_list seen = see(p, &history);
    float *logits = (float *)malloc(p->vocab * 4);
    uint32_t wrong = 0, tried = 0;
    for (int kind = 0; kind < 12; kind++) {
        for (uint32_t i = 0; i < p->vocab; i++)
            logits[i] = kind < 6     ? (float)(random_u32() & 0xFFFF) / 4096.0f - 8
                        : kind < 10  ? (float)(random_u32() % 5) // ties
                        : kind == 10 ? NAN
                                     : (i % 3 ? -INFINITY : 1.0f);
        for (uint32_t i = 0; kind % 2 && i < seen.n; i++)
            logits[seen.seen[i].token] += 6 + (float)i / 4; // so that they are among the likeliest
        check(cudaMemcpy(p->cuda->logits, logits, p->vocab * 4, cudaMemcpyHostToDevice));
        for (size_t i = 0; i < sizeof samplings / sizeof samplings[0]; i++) {
            struct bnt_error err = {};
            uint64_t cpu_state = 77 + kind, gpu_state = cpu_state;
            uint32_t got = 0;
            uint32_t expected = bnt_sample(p->session, logits, &samplings[i], &cpu_state);
            expect(bnt_cuda_sample(p->cuda, &samplings[i], seen, &gpu_state, &got, &err) == BNT_OK,
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
    bnt_history_close(&history);
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
static void test_generation(struct pair *p, struct bnt_sampling sampling)
{
    struct bnt_error err = {};
    struct words cpu = {};
    uint32_t prompt[4] = {1 % p->vocab, 17 % p->vocab, 200 % p->vocab, 33 % p->vocab};
    struct bnt_generation g = {};
    struct bnt_generation_result result;
    g.max_tokens = 64;
    g.ignore_eos = true;
    g.sampling = sampling;
    g.sampling.seed = 42;
    g.callback = keep;
    g.context = &cpu;
    expect(bnt_session_rewind(p->session, 0, &err) == BNT_OK &&
               bnt_generate(p->session, prompt, 4, &g, &result, &err) == BNT_OK,
           "generate");
    uint64_t state = g.sampling.seed;
    uint32_t token = 0, same = 0, at = 4;
    struct bnt_history history;
    expect(bnt_history_open(&history, 128, p->vocab), "memory for a history");
    bnt_history_put(&history, 0, prompt, 4);
    bnt_history_end_prompt(&history, 4);
    expect(bnt_cuda_session_rewind(p->cuda, 0, &err) == BNT_OK &&
               bnt_cuda_evaluate(p->cuda, prompt, 4, BNT_LOGITS_LAST, NULL, &err) == BNT_OK &&
               bnt_cuda_sample(p->cuda, &g.sampling, bnt_history_list(&history, at), &state, &token,
                               &err) == BNT_OK,
           err.message);
    while (same < cpu.n && cpu.id[same] == token) {
        same++;
        bnt_history_put(&history, at++, &token, 1);
        if (bnt_cuda_next(p->cuda, token, &g.sampling, bnt_history_list(&history, at), &state,
                          &token, &err) != BNT_OK)
            break;
    }
    bnt_history_close(&history);
    printf("  generation, temperature %g, repetition penalty %g: %u of %zu tokens as on the CPU\n",
           sampling.temperature, sampling.repetition_penalty, same, cpu.n);
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
    uint32_t next[2] = {};
    uint32_t wrong = 0, different = 0, steps = 0, candidates = 0;
    struct bnt_history history;
    expect(bnt_history_open(&history, 80, p->vocab), "memory for a history");
    bnt_history_end_prompt(&history, 8);
    for (uint32_t k : {1u, 2u, 40u, longest}) {
        for (int i = 0; i < 20 && k <= p->vocab; i++, steps++) {
            struct bnt_sampling sampling = {};
            sampling.temperature = k > 1 ? 0.9f : 0;
            sampling.top_k = k;
            if (i % 2) { // every other choice with penalties, of the likeliest token too
                sampling.repetition_penalty = i % 4 == 1 ? 1.3f : 0.8f;
                sampling.frequency_penalty = 0.5f;
                sampling.min_p = 0.01f;
            }
            uint64_t state[2] = {steps, steps};
            uint32_t token = i % 3 ? next[0] : random_u32() % p->vocab;
            bnt_history_put(&history, steps, &token, 1);
            const struct bnt_seen_list seen = bnt_history_list(&history, steps + 1);
            expect(bnt_cuda_next(full, token, &sampling, seen, &state[0], &next[0], &err) ==
                           BNT_OK &&
                       bnt_cuda_next(quick, token, &sampling, seen, &state[1], &next[1], &err) ==
                           BNT_OK,
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
    bnt_history_close(&history);
    p->cuda = quick;
    test_generation(p, {});
    test_generation(p, way(0.8f, 40, 0.9f));
    test_generation(p, way(0, 0, 0, 0, 1.3f, 0.5f, 0.2f));
    test_generation(p, way(0.8f, 40, 0.9f, 0.05f, 1.3f, 0.5f, 0.2f));
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
    judge("golden", all, positions, 3e-2);
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
    test_generation(&p, {});
    test_generation(&p, way(0.8f, 0, 0.9f));
    test_generation(&p, way(0, 0, 0, 0, 1.3f, 0.5f, 0.2f));
    test_generation(&p, way(0.8f, 0, 0, 0.05f, 0.9f, -0.5f, 0.2f));
    if (p.view.has_int8)
        test_shortlist(&p);
    close_pair(&p);
}

// --- small models with each fact of version 2 ---

static struct bnt_hyper base_hyper()
{
    struct bnt_hyper h = {};
    h.n_layers = 2;
    h.hidden_size = 256;
    h.ffn_size = 416;
    h.n_heads = 4;
    h.n_kv_heads = 2;
    h.head_dim = 64;
    h.vocab_size = 301;
    h.max_context = 64;
    h.activation = BNT_ACTIVATION_SILU;
    h.flags = BNT_HYPER_TIED;
    h.norm_eps = 1e-5f;
    h.rope_theta = 10000;
    h.bos_id = -1;
    h.top_p = 1;
    h.activation_bits = 16;
    return h;
}

static struct bnt_hyper in_groups(struct bnt_hyper h, uint32_t group, enum bnt_dtype dtype)
{
    h.scale_group = group;
    h.scale_dtype = group ? dtype : 0;
    return h;
}

static struct bnt_hyper with(struct bnt_hyper h, uint32_t flags)
{
    h.flags |= flags;
    if (flags & BNT_HYPER_LINEAR_NORMS)
        h.linear_norm_eps = 1e-6f;
    return h;
}

static struct bnt_hyper in_8_bits(struct bnt_hyper h)
{
    h.activation_bits = 8;
    return h;
}

static struct bnt_hyper with_yarn(struct bnt_hyper h)
{
    h.rope_scaling = BNT_ROPE_YARN;
    h.rope_factor = 4;
    h.rope_original_context = 16;
    h.rope_attention_factor = 1.1386f;
    h.rope_beta_fast = 32;
    h.rope_beta_slow = 1;
    return h;
}

static struct bnt_hyper untied(struct bnt_hyper h, uint32_t flags)
{
    h.flags = (h.flags & ~(uint32_t)BNT_HYPER_TIED) | flags;
    return h;
}

static struct bnt_hyper shaped(struct bnt_hyper h, uint32_t hidden, uint32_t ffn, uint32_t heads,
                               uint32_t kv_heads, uint32_t head_dim)
{
    h.hidden_size = hidden;
    h.ffn_size = ffn;
    h.n_heads = heads;
    h.n_kv_heads = kv_heads;
    h.head_dim = head_dim;
    return h;
}

// The greedy text of the GPU: each token the best by the CPU's logits too, or as good as that.
static void test_greedy(struct pair *p, uint32_t steps)
{
    struct bnt_error err = {};
    struct bnt_sampling greedy = {};
    const struct bnt_seen_list none = {};
    float *logits = (float *)malloc(p->vocab * 4);
    uint64_t state = 0;
    uint32_t same = 0, wrong = 0, prompt[3] = {1 % p->vocab, 17 % p->vocab, 200 % p->vocab},
             gpu = 0;
    expect(bnt_session_rewind(p->session, 0, &err) == BNT_OK &&
               bnt_cuda_session_rewind(p->cuda, 0, &err) == BNT_OK &&
               bnt_evaluate(p->session, prompt, 3, BNT_LOGITS_LAST, logits, &err) == BNT_OK &&
               bnt_cuda_evaluate(p->cuda, prompt, 3, BNT_LOGITS_LAST, NULL, &err) == BNT_OK &&
               bnt_cuda_sample(p->cuda, &greedy, none, &state, &gpu, &err) == BNT_OK,
           err.message);
    for (uint32_t i = 0; i < steps; i++) {
        const uint32_t best = best_of(logits, p->vocab);
        const double lost = (double)logits[best] - (double)logits[gpu];
        same += best == gpu;
        wrong += !(lost <= 10 * p->relative * deviation(logits, p->vocab));
        expect(bnt_evaluate(p->session, &gpu, 1, BNT_LOGITS_LAST, logits, &err) == BNT_OK &&
                   bnt_cuda_next(p->cuda, gpu, &greedy, none, &state, &gpu, &err) == BNT_OK,
               err.message);
    }
    printf("  greedy: %u of %u tokens as on the CPU\n", same, steps);
    expect(wrong == 0 && same * 10 >= steps * 9, "greedy text");
    free(logits);
}

static void test_family(const char *what, const struct bnt_hyper &h)
{
    char path[] = "/tmp/test_cuda_XXXXXX";
    const int file = mkstemp(path);
    struct pair p = {};
    printf("%s\n", what);
    expect(file >= 0, "a temporary file");
    (void)close(file);
    write_tiny_model(path, &h, 7);
    if (open_pair(&p, path)) {
        const bool is_exact = h.activation_bits == 16;
        p.relative = is_exact ? 1e-3 : 3e-2;
        test_logits(&p, h.max_context - 3);
        test_greedy(&p, 40);
    } else {
        expect(false, what);
    }
    close_pair(&p);
    (void)unlink(path);
}

static void test_families(bool small)
{
    const int before = failures;
    const uint32_t all_biases = BNT_HYPER_QKV_BIAS | BNT_HYPER_O_BIAS | BNT_HYPER_FFN_BIAS;
    const struct bnt_hyper h = base_hyper(), g = in_groups(h, 128, BNT_F16);
    test_family("16 bits", h);
    test_family("groups of 128", g);
    test_family("groups of 128, 8 bits", in_8_bits(g));
    test_family("ternary embedding and output, q/k norms, yarn, groups of 128",
                with_yarn(with(g, BNT_HYPER_TERNARY_EMBEDDING | BNT_HYPER_QK_NORMS)));
    test_family("all at once, groups of 64",
                with_yarn(with(in_groups(untied(h, BNT_HYPER_TERNARY_OUTPUT), 64, BNT_F32),
                               all_biases | BNT_HYPER_QK_NORMS | BNT_HYPER_LINEAR_NORMS |
                                   BNT_HYPER_SUB_NORMS | BNT_HYPER_TERNARY_EMBEDDING)));
    if (small)
        return;
    for (uint32_t group : {32u, 64u, 96u, 256u, (uint32_t)BNT_GROUP_ROW})
        for (enum bnt_dtype dtype : {BNT_F16, BNT_F32})
            for (bool is_short : {false, true}) {
                const struct bnt_hyper one = in_groups(h, group, dtype);
                printf("%s, %s, groups of %u: ", is_short ? "8 bits" : "16 bits",
                       dtype == BNT_F16 ? "f16" : "f32", group);
                test_family("", is_short ? in_8_bits(one) : one);
            }
    for (bool is_short : {false, true})
        for (uint32_t flags :
             {(uint32_t)BNT_HYPER_QKV_BIAS, (uint32_t)BNT_HYPER_O_BIAS,
              (uint32_t)BNT_HYPER_FFN_BIAS, (uint32_t)BNT_HYPER_QK_NORMS,
              (uint32_t)BNT_HYPER_LINEAR_NORMS, (uint32_t)BNT_HYPER_TERNARY_EMBEDDING,
              (uint32_t)(BNT_HYPER_LINEAR_NORMS | BNT_HYPER_SUB_NORMS),
              all_biases | BNT_HYPER_QK_NORMS}) {
            printf("%s, flags %u: ", is_short ? "8 bits" : "16 bits", flags);
            const struct bnt_hyper one = with(h, flags);
            test_family("", is_short ? in_8_bits(one) : one);
            printf("with groups of 128: ");
            const struct bnt_hyper other = with(g, flags);
            test_family("", is_short ? in_8_bits(other) : other);
        }
    struct bnt_hyper linear = h;
    linear.rope_scaling = BNT_ROPE_LINEAR;
    linear.rope_factor = 2.5f;
    test_family("linear rope", linear);
    test_family("yarn", with_yarn(in_8_bits(h)));
    test_family("yarn, not rounded", with_yarn(with(h, BNT_HYPER_YARN_EXACT)));
    test_family("a ternary embedding alone", untied(with(g, BNT_HYPER_TERNARY_EMBEDDING), 0));
    test_family("a ternary output alone", untied(g, BNT_HYPER_TERNARY_OUTPUT));
    test_family("both, each its own, one scale, 8 bits",
                in_8_bits(untied(with(h, BNT_HYPER_TERNARY_EMBEDDING), BNT_HYPER_TERNARY_OUTPUT)));
    test_family("odd shapes", shaped(with(g, BNT_HYPER_QK_NORMS), 72, 104, 3, 1, 20));
    test_family("odder shapes", shaped(with(g, BNT_HYPER_QK_NORMS), 66, 90, 3, 3, 22));
    test_family("relu2, odd shapes, groups of 32", [&] {
        struct bnt_hyper r = shaped(in_groups(h, 32, BNT_F16), 328, 1000, 6, 2, 96);
        r.activation = BNT_ACTIVATION_RELU2;
        return with(r, BNT_HYPER_SUB_NORMS | BNT_HYPER_TERNARY_EMBEDDING);
    }());
    test_family("wide heads", shaped(with(g, BNT_HYPER_QK_NORMS | BNT_HYPER_TERNARY_EMBEDDING), 512,
                                     2000, 2, 1, 256));
    printf("families: %d failures\n", failures - before);
}

int main(int argc, char **argv)
{
    (void)setvbuf(stdout, NULL, _IOLBF, 0); // what was done is seen, also where it is cut short
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
    test_all_scaled(small);
    test_operations(small);
    test_families(small);
    for (int i = 1 + small; i < argc; i++)
        test_model(argv[i]);
    printf("%d failures\n", failures);
    return failures > 0;
}
