// SPDX-License-Identifier: MIT
// All kernel sets must give the same bits, or a model would answer differently on another machine;
// and none may touch a byte outside its arguments. What kernels.h promises is written again here,
// and every set, the scalar one too, is compared with that, bit for bit, on buffers that end at an
// inaccessible page.
#include <float.h>
#include <math.h>

#include "formats/block.h"
#include "formats/bytes.h"
#include "runtime/kernels/exp.h"
#include "runtime/kernels/kernels.h"
#include "tests/unit/kernel_sets.h"

// Floats of very different size, so that any other order of adding gives other bits.
static void wild_floats(uint64_t *random, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = ldexpf(test_random_float(random), (int)test_random_below(random, 24) - 12);
}

static const float specials[] = {
    0,       -0.0f, 1e-45f, -1e-40f, FLT_MIN,   -FLT_MIN, FLT_MAX,   -FLT_MAX, INFINITY, -INFINITY,
    NAN,     -NAN,  1,      -1,      0x1p-126f, 1e-5f,    1e-6f,     1e30f,    -1e30f,   126.5f,
    -127.5f, 88,    -88,    -87,     65504.0f,  65520.0f, -70000.0f, 0x1p-24f, 0x1p-25f};

static void special_floats(uint64_t *random, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = specials[test_random_below(random, TEST_COUNT(specials))];
}

// Floats before an inaccessible page.
struct floats {
    struct test_guarded guarded;
    float *data;
};

static struct floats open_floats(size_t n)
{
    struct floats f = {.guarded = test_guard(n * sizeof(float))};
    f.data = (float *)(void *)f.guarded.data;
    return f;
}

static struct floats copy_floats(const float *from, size_t n)
{
    struct floats f = open_floats(n);
    memcpy(f.data, from, n * sizeof(float));
    return f;
}

static void close_floats(struct floats *f)
{
    test_unguard(&f->guarded);
}

// Sizes for tests that take any: 1 … 70 and some that are large.
static const size_t large_sizes[] = {127, 128, 1000, 4111};

static size_t size_of_round(size_t i)
{
    return i < 70 ? i + 1 : i - 70 < TEST_COUNT(large_sizes) ? large_sizes[i - 70] : 0;
}

// --- the ternary product ---

struct shape {
    size_t block_rows, blocks, tokens;
    size_t extra_x, extra_out; // by how much the strides are larger than needed
};

struct product {
    struct shape shape;
    size_t x_stride, out_stride;
    size_t x_size, out_count; // the last row ends where its last element does
    struct test_guarded blocks, x, out;
    int32_t x_sum[BNT_MAX_BATCH];
    int32_t *expected; // (out_count)
};

static void open_product(struct product *p, struct shape shape)
{
    *p = (struct product){.shape = shape};
    p->x_stride = 32 * shape.blocks + shape.extra_x;
    p->out_stride = 16 * shape.block_rows + shape.extra_out;
    p->x_size = (shape.tokens - 1) * p->x_stride + 32 * shape.blocks;
    p->out_count = (shape.tokens - 1) * p->out_stride + 16 * shape.block_rows;
    p->blocks = test_guard(shape.block_rows * shape.blocks * BNT_BLOCK_BYTES);
    p->x = test_guard(p->x_size);
    p->out = test_guard(p->out_count * sizeof(int32_t));
    p->expected = test_alloc(p->out_count * sizeof(int32_t));
}

static void close_product(struct product *p)
{
    test_unguard(&p->blocks);
    test_unguard(&p->x);
    test_unguard(&p->out);
    free(p->expected);
}

static void sum_rows(struct product *p)
{
    for (size_t t = 0; t < p->shape.tokens; t++) {
        p->x_sum[t] = 0;
        for (size_t k = 0; k < 32 * p->shape.blocks; k++)
            p->x_sum[t] += ((const int8_t *)p->x.data)[t * p->x_stride + k];
    }
}

static void run_product(const struct bnt_kernels *kernels, struct product *p)
{
    memset(p->out.data, 0x5A, p->out_count * sizeof(int32_t)); // what lies between rows must stay
    kernels->ternary((int32_t *)(void *)p->out.data, p->out_stride,
                     (const uint32_t *)(const void *)p->blocks.data, p->shape.block_rows,
                     p->shape.blocks, (const int8_t *)p->x.data, p->x_stride, p->x_sum,
                     p->shape.tokens);
}

// Runs every set but the scalar one, which takes long, on the same input.
static void compare_sets(struct product *p)
{
    const struct bnt_kernels *kernels;
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        if (kernels == &bnt_kernels_scalar)
            continue;
        run_product(kernels, p);
        if (memcmp(p->out.data, p->expected, p->out_count * sizeof(int32_t)) != 0)
            fail_msg("%s differs: %zu block rows, %zu blocks, %zu tokens", kernels->name,
                     p->shape.block_rows, p->shape.blocks, p->shape.tokens);
    }
}

static void compare_products(struct product *p)
{
    run_product(&bnt_kernels_scalar, p);
    memcpy(p->expected, p->out.data, p->out_count * sizeof(int32_t));
    compare_sets(p);
}

static void random_shape(struct shape shape, uint64_t *random)
{
    struct product p;
    open_product(&p, shape);
    test_random_bytes(random, p.blocks.data, shape.block_rows * shape.blocks * BNT_BLOCK_BYTES);
    test_random_bytes(random, p.x.data, p.x_size);
    sum_rows(&p);
    compare_products(&p);
    close_product(&p);
}

static void random_shapes(size_t tokens, size_t max_block_rows, const size_t *blocks, size_t n,
                          uint64_t *random)
{
    for (size_t block_rows = 1; block_rows <= max_block_rows; block_rows++) {
        for (size_t i = 0; i < n; i++) {
            struct shape shape = {block_rows, blocks[i], tokens, 0, 0};
            if (test_random(random) & 1) {
                shape.extra_x = 32 * (1 + test_random_below(random, 3));
                shape.extra_out = 1 + test_random_below(random, 40);
            }
            random_shape(shape, random);
        }
    }
}

// Every remainder of tokens that a set may treat apart, and numbers of blocks on both sides of
// where sums are widened.
static void ternary_is_the_same_on_every_set(void **state)
{
    static const size_t few[] = {1, 2, 4, 5, 6, 10, 11, 23}, some[] = {3, 12};
    static const size_t many_tokens[] = {24, 31, 32, 33, 63, 64, 65, 100, 127, BNT_MAX_BATCH};
    uint64_t random = 1;
    (void)state;
    for (size_t tokens = 1; tokens <= 18; tokens += TEST_TSAN ? 3 : 1)
        random_shapes(tokens, 3, few, TEST_COUNT(few), &random);
    for (size_t i = 0; i < TEST_COUNT(many_tokens); i += TEST_TSAN ? 3 : 1)
        random_shapes(many_tokens[i], 2, some, TEST_COUNT(some), &random);
}

// As wide as the format allows, but where it would take minutes.
enum { WIDEST = TEST_TSAN ? BNT_MAX_COLS / 64 : BNT_MAX_COLS };

static void expect_everywhere(struct product *p, int32_t expected)
{
    memset(p->expected, 0x5A, p->out_count * sizeof(int32_t));
    for (size_t t = 0; t < p->shape.tokens; t++) {
        for (size_t r = 0; r < 16; r++)
            p->expected[t * p->out_stride + r] = expected;
    }
}

// Every code and activation the same: the sums are known. 11 tokens are 8, 2 and 1.
static void ternary_at_its_extremes(void **state)
{
    static const int8_t activations[] = {-128, 127, -127};
    struct product p;
    (void)state;
    open_product(&p, (struct shape){1, WIDEST / 32, 11, 0, 3});
    for (uint8_t code = 0; code < 4; code++) {
        memset(p.blocks.data, code * 0x55, WIDEST / 32 * BNT_BLOCK_BYTES);
        for (size_t i = 0; i < TEST_COUNT(activations); i++) {
            memset(p.x.data, activations[i], p.x_size);
            for (size_t t = 0; t < 11; t++)
                p.x_sum[t] = activations[i] * WIDEST;
            expect_everywhere(&p, (code - 2) * activations[i] * WIDEST);
            compare_sets(&p);
        }
    }
    close_product(&p);
}

// Long runs of products that are all extreme, with signs that change between blocks and tokens.
static void ternary_with_extremes_in_every_order(void **state)
{
    uint64_t random = 2;
    struct product p;
    (void)state;
    open_product(&p, (struct shape){2, 400, 7, 32, 0});
    for (int round = 0; round < (TEST_TSAN ? 1 : 10); round++) {
        for (size_t i = 0; i < 2 * 400 * BNT_BLOCK_BYTES; i++)
            p.blocks.data[i] = test_random(&random) & 1 ? 0xFF : 0x00;
        for (size_t i = 0; i < p.x_size; i++)
            p.x.data[i] = test_random(&random) & 1 ? 0x80 : 0x7F;
        sum_rows(&p);
        compare_products(&p);
    }
    close_product(&p);
}

static void random_weights(struct product *p, int8_t *w, uint32_t cols, uint64_t *random)
{
    size_t row_bytes = bnt_block_row_bytes(cols);
    int8_t row[16 * 512];
    for (size_t i = 0; i < p->shape.block_rows; i++) {
        for (size_t k = 0; k < 16 * (size_t)cols; k++)
            row[k] = (int8_t)((int)test_random_below(random, 3) - 1);
        assert_true(bnt_block_pack_row(row, 16, cols, p->blocks.data + i * row_bytes));
        bnt_block_unpack_row(p->blocks.data + i * row_bytes, cols, w + i * 16 * bnt_pad_cols(cols));
    }
}

static void scalar_ternary_is_a_dot_product(void **state)
{
    static const uint32_t widths[] = {1, 31, 32, 33, 320, 512};
    uint64_t random = 3;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(widths); i++) {
        size_t padded = bnt_pad_cols(widths[i]);
        struct product p;
        open_product(&p, (struct shape){3, padded / 32, 6, 0, 0});
        int8_t *w = test_alloc(3 * 16 * padded);
        random_weights(&p, w, widths[i], &random);
        test_random_bytes(&random, p.x.data, p.x_size); // not zero beyond K: the padding must be
        sum_rows(&p);
        run_product(&bnt_kernels_scalar, &p);
        for (size_t t = 0; t < 6; t++) {
            for (size_t n = 0; n < 3 * 16; n++) {
                int64_t sum = 0;
                for (size_t k = 0; k < widths[i]; k++)
                    sum += (int64_t)w[n * padded + k] * ((int8_t *)p.x.data)[t * padded + k];
                assert_int_equal(((int32_t *)(void *)p.out.data)[t * p.out_stride + n], sum);
            }
        }
        free(w);
        close_product(&p);
    }
}

// --- int8 rows ---

enum { INT8_ROWS = 3 };

struct int8_product {
    size_t n;
    struct test_guarded rows, x, out;
};

static void open_int8(struct int8_product *p, size_t n)
{
    *p = (struct int8_product){n, test_guard(INT8_ROWS * n), test_guard(n * sizeof(int16_t)),
                               test_guard(INT8_ROWS * sizeof(int64_t))};
}

static void close_int8(struct int8_product *p)
{
    test_unguard(&p->rows);
    test_unguard(&p->x);
    test_unguard(&p->out);
}

static void compare_int8(struct int8_product *p)
{
    const struct bnt_kernels *kernels;
    const int8_t *rows = (int8_t *)p->rows.data;
    const int16_t *x = (int16_t *)(void *)p->x.data;
    int64_t *out = (int64_t *)(void *)p->out.data, expected[INT8_ROWS] = {0};
    for (size_t r = 0; r < INT8_ROWS; r++) {
        for (size_t k = 0; k < p->n; k++)
            expected[r] += (int64_t)rows[r * p->n + k] * x[k];
    }
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memset(out, 0x5A, sizeof expected);
        kernels->int8_rows(out, rows, INT8_ROWS, p->n, x);
        if (memcmp(out, expected, sizeof expected) != 0)
            fail_msg("int8_rows of %s differs for n = %zu", kernels->name, p->n);
    }
}

static void random_int8(size_t n, uint64_t *random)
{
    struct int8_product p;
    open_int8(&p, n);
    for (size_t i = 0; i < INT8_ROWS * n; i++)
        ((int8_t *)p.rows.data)[i] = (int8_t)((int)test_random_below(random, 255) - 127);
    for (size_t i = 0; i < n; i++)
        ((int16_t *)(void *)p.x.data)[i] = (int16_t)((int)test_random_below(random, 65535) - 32767);
    compare_int8(&p);
    close_int8(&p);
}

// Products that are all as large as they can be: of one sign, then of both.
static void extreme_int8(size_t n, uint64_t *random)
{
    struct int8_product p;
    open_int8(&p, n);
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < INT8_ROWS * n; i++)
            ((int8_t *)p.rows.data)[i] =
                (round < 4 ? round & 1 : test_random(random) & 1) ? 127 : -127;
        for (size_t i = 0; i < n; i++)
            ((int16_t *)(void *)p.x.data)[i] =
                (round < 4 ? round & 2 : test_random(random) & 1) ? 32767 : -32767;
        compare_int8(&p);
    }
    close_int8(&p);
}

// Sizes on both sides of those after which sets widen their sums.
static void int8_rows_are_exact(void **state)
{
    static const size_t sizes[] = {1023, 2048, 2049, 4095,  4096,  4097,
                                   8191, 8192, 8193, 16385, 70000, BNT_MAX_COLS};
    uint64_t random = 9;
    (void)state;
    for (size_t n = 1; n <= 200; n++) {
        random_int8(n, &random);
        if (n % 7 == 0)
            extreme_int8(n, &random);
    }
    for (size_t i = 0; i < TEST_COUNT(sizes) - (TEST_TSAN ? 1 : 0); i++) {
        random_int8(sizes[i], &random);
        extreme_int8(sizes[i], &random);
    }
}

// --- quantize ---

// s = 127 / max(max|x|, 1e-5), clamp(round_half_even(x·s), −128, 127), NaN as −128: written anew.
static float define_quantize(int8_t *out, const float *x, size_t n, size_t padded, int32_t *sum)
{
    float max = 1e-5f;
    for (size_t i = 0; i < n; i++) {
        if (!isnan(x[i]) && fabsf(x[i]) > max)
            max = fabsf(x[i]);
    }
    float scale = 127.0f / max;
    *sum = 0;
    for (size_t i = 0; i < padded; i++) {
        double v = i < n ? (double)(x[i] * scale) : 0;
        double q = isnan(v) ? -128 : rint(v);
        out[i] = (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
        *sum += out[i];
    }
    return scale;
}

static void compare_quantize(const float *x, size_t n)
{
    const struct bnt_kernels *kernels;
    size_t padded = bnt_pad_cols((uint32_t)n);
    struct test_guarded in = test_guard(n * sizeof *x), out = test_guard(padded);
    int8_t *expected = test_alloc(padded);
    int32_t expected_sum, sum;
    memcpy(in.data, x, n * sizeof *x);
    float expected_scale = define_quantize(expected, x, n, padded, &expected_sum);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memset(out.data, 0x5A, padded);
        float scale = kernels->quantize((int8_t *)out.data, (const float *)(const void *)in.data, n,
                                        padded, &sum);
        if (bits(scale) != bits(expected_scale) || sum != expected_sum ||
            memcmp(out.data, expected, padded) != 0)
            fail_msg("%s differs on %zu values beginning %g, %g", kernels->name, n, (double)x[0],
                     n > 1 ? (double)x[1] : 0.0);
    }
    free(expected);
    test_unguard(&in);
    test_unguard(&out);
}

static void quantize_of_any_length(void **state)
{
    static const float magnitudes[] = {1, 3e-6f, 1e-5f, 1e30f, 1e-40f, 127, 0.37f};
    float x[1100];
    uint64_t random = 4;
    (void)state;
    for (size_t n = 1; n < TEST_COUNT(x); n += n < 130 ? 1 : 97) {
        for (size_t j = 0; j < TEST_COUNT(magnitudes); j++) {
            for (size_t i = 0; i < n; i++)
                x[i] = test_random_float(&random) * magnitudes[j];
            compare_quantize(x, n);
        }
    }
}

// With max|x| = 127 the scale is 1, and k + 0.5 lies exactly between two integers.
static void quantize_rounds_ties_to_even(void **state)
{
    float x[256];
    int8_t out[256];
    int32_t sum;
    (void)state;
    for (int k = 0; k < 254; k++)
        x[k] = (float)k - 126.5f;
    x[254] = 127;
    x[255] = -127;
    compare_quantize(x, 256);
    (void)bnt_kernels_scalar.quantize(out, x, 256, 256, &sum);
    for (int k = 0; k < 254; k++) {
        assert_int_equal(out[k] % 2, 0);
        assert_true(fabs((double)out[k] - (double)x[k]) <= 0.5);
    }
}

static void quantize_of_special_values(void **state)
{
    float x[40];
    uint64_t random = 5;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(specials); i++) {
        for (size_t n = 1; n <= TEST_COUNT(x); n++) {
            for (size_t j = 0; j < n; j++)
                x[j] = specials[i];
            compare_quantize(x, n);
        }
    }
    for (int round = 0; round < 3000; round++) {
        size_t n = 1 + test_random_below(&random, TEST_COUNT(x));
        special_floats(&random, x, n);
        compare_quantize(x, n);
    }
}

// --- dense rows ---

// The sum that kernels.h defines: sixteen accumulators, then a tree.
static float define_dot(const float *a, const float *b, size_t n)
{
    float lane[16] = {0};
    size_t padded = (n + 15) / 16 * 16;
    for (size_t i = 0; i < padded; i++) {
        float product = i < n ? a[i] * b[i] : 0.0f;
        lane[i % 16] = lane[i % 16] + product;
    }
    for (size_t half = 8; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++)
            lane[j] = lane[j] + lane[j + half];
    }
    return lane[0];
}

static void compare_rows_f32(size_t n_rows, size_t n, const float *rows, const float *x)
{
    const struct bnt_kernels *kernels;
    struct floats out = open_floats(n_rows);
    float *expected = test_alloc(n_rows * sizeof(float));
    for (size_t r = 0; r < n_rows; r++)
        expected[r] = define_dot(rows + r * n, x, n);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memset(out.data, 0x5A, n_rows * sizeof(float));
        kernels->rows_f32(out.data, rows, n_rows, n, x);
        expect_floats(kernels->name, "rows_f32", n, out.data, expected, n_rows);
    }
    free(expected);
    close_floats(&out);
}

// rows: floats, of which bf16 takes what it can.
static void compare_rows_bf16(size_t n_rows, size_t n, const float *rows, const float *x)
{
    const struct bnt_kernels *kernels;
    struct test_guarded guarded = test_guard(n_rows * n * sizeof(uint16_t));
    struct floats out = open_floats(n_rows);
    uint16_t *bf16 = (void *)guarded.data;
    float *wide = test_alloc(n_rows * n * sizeof(float));
    float *expected = test_alloc(n_rows * sizeof(float));
    for (size_t i = 0; i < n_rows * n; i++) {
        bf16[i] = bnt_bf16_from_float(rows[i]);
        wide[i] = bnt_float_from_bf16(bf16[i]);
    }
    for (size_t r = 0; r < n_rows; r++)
        expected[r] = define_dot(wide + r * n, x, n);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memset(out.data, 0x5A, n_rows * sizeof(float));
        kernels->rows_bf16(out.data, bf16, n_rows, n, x);
        expect_floats(kernels->name, "rows_bf16", n, out.data, expected, n_rows);
    }
    free(wide);
    free(expected);
    test_unguard(&guarded);
    close_floats(&out);
}

static void compare_rows(size_t n_rows, size_t n,
                         void (*fill)(uint64_t *random, float *out, size_t n), uint64_t *random)
{
    struct floats rows = open_floats(n_rows * n), x = open_floats(n);
    fill(random, rows.data, n_rows * n);
    fill(random, x.data, n);
    compare_rows_f32(n_rows, n, rows.data, x.data);
    compare_rows_bf16(n_rows, n, rows.data, x.data);
    close_floats(&rows);
    close_floats(&x);
}

static void dense_rows_of_any_length(void **state)
{
    uint64_t random = 6;
    (void)state;
    for (size_t i = 0; size_of_round(i); i++) {
        for (size_t n_rows = 1; n_rows <= 5; n_rows++)
            compare_rows(n_rows, size_of_round(i), wild_floats, &random);
    }
    compare_rows(2, 65537, wild_floats, &random);
}

// Signed zeros, subnormals and infinities take the same way through every set.
static void dense_rows_of_special_values(void **state)
{
    uint64_t random = 7;
    (void)state;
    for (size_t n = 1; n <= 70; n++)
        compare_rows(4, n, special_floats, &random);
}

// --- norms and activations ---

static void define_rms_norm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float mean = define_dot(x, x, n) / (float)n;
    float factor = 1.0f / sqrtf(mean + eps);
    for (size_t i = 0; i < n; i++) {
        float scaled = x[i] * factor;
        out[i] = w[i] * scaled;
    }
}

static void compare_rms_norm(const float *x, const float *w, size_t n, float eps)
{
    const struct bnt_kernels *kernels;
    struct floats in = copy_floats(x, n), weights = copy_floats(w, n), out = open_floats(n);
    float *expected = test_alloc(n * sizeof(float));
    define_rms_norm(expected, x, w, n, eps);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memset(out.data, 0x5A, n * sizeof(float));
        kernels->rms_norm(out.data, in.data, weights.data, n, eps);
        expect_floats(kernels->name, "rms_norm", n, out.data, expected, n);
        memcpy(out.data, x, n * sizeof(float));
        kernels->rms_norm(out.data, out.data, weights.data, n, eps); // in place
        expect_floats(kernels->name, "rms_norm", n, out.data, expected, n);
    }
    free(expected);
    close_floats(&in);
    close_floats(&weights);
    close_floats(&out);
}

// max(v, 0)² · u, and v / (1 + exp(−v)) · u.
static float define_relu2(float v, float u)
{
    float positive = v > 0 ? v : 0;
    float square = positive * positive;
    return square * u;
}

static float define_silu(float v, float u)
{
    float below = 1.0f + bnt_exp(-v);
    float quotient = v / below;
    return quotient * u;
}

static void compare_gate(const char *name, const float *gate, const float *up, size_t n)
{
    const struct bnt_kernels *kernels;
    const bool silu = strcmp(name, "silu") == 0;
    struct floats in = copy_floats(up, n), out = open_floats(n);
    float *expected = test_alloc(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        expected[i] = silu ? define_silu(gate[i], up[i]) : define_relu2(gate[i], up[i]);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memcpy(out.data, gate, n * sizeof(float));
        (silu ? kernels->silu : kernels->relu2)(out.data, in.data, n);
        expect_floats(kernels->name, name, n, out.data, expected, n);
    }
    free(expected);
    close_floats(&in);
    close_floats(&out);
}

static void norms_and_activations_of_any_length(void **state)
{
    float a[4111], b[4111];
    uint64_t random = 10;
    (void)state;
    for (size_t i = 0; size_of_round(i); i++) {
        for (int special = 0; special < 2; special++) {
            size_t n = size_of_round(i);
            (special ? special_floats : wild_floats)(&random, a, n);
            (special ? special_floats : wild_floats)(&random, b, n);
            compare_rms_norm(a, b, n, special ? 0 : 1e-5f);
            compare_gate("relu2", a, b, n);
            compare_gate("silu", a, b, n);
        }
    }
}

// --- the exponential ---

// The greatest error that all floats from −87 to 88 have: 1.1 units in the last place, 2^-23.4 of
// the value.
static void exp_is_accurate(void **state)
{
    const uint32_t step = TEST_TSAN ? 99991 : 997; // prime
    (void)state;
    for (uint32_t sign = 0; sign < 2; sign++) {
        for (uint32_t b = 0; b < 0x42b00000; b += step) { // 88
            float x = bnt_float_from_bits(b | sign << 31);
            if (x < -87)
                break;
            double exact = exp((double)x), error = fabs((double)bnt_exp(x) - exact);
            int exponent;
            (void)frexp(exact, &exponent);
            if (error > 1.1 * ldexp(1, exponent - 24))
                fail_msg("exp(%a) is %a", (double)x, (double)bnt_exp(x));
        }
    }
}

static void exp_at_its_limits(void **state)
{
    (void)state;
    assert_true(same(bnt_exp(0), 1));
    assert_true(same(bnt_exp(-0.0f), 1));
    assert_true(same(bnt_exp(-88), bnt_exp(-87)));
    assert_true(same(bnt_exp(-INFINITY), bnt_exp(-87)));
    assert_true(same(bnt_exp(INFINITY), bnt_exp(88)));
    assert_true(bnt_exp(-87) >= FLT_MIN && bnt_exp(88) <= FLT_MAX);
    assert_true(isnan(bnt_exp(NAN)));
}

// --- halves ---

// By arithmetic: magnitude in units of its last place. Codes of halves count such units, and each
// power of two has 1024 of its own.
static uint16_t define_half(float v)
{
    unsigned sign = signbit(v) ? 0x8000 : 0;
    double magnitude = fmin(fabs((double)v), 65504);
    int exponent = -13; // of what is smaller than 2^-14, too
    if (isnan(v))
        return 0x7e00;
    if (magnitude >= 0x1p-14)
        (void)frexp(magnitude, &exponent);
    double units = rint(ldexp(magnitude, 11 - exponent));
    return (uint16_t)(sign | (unsigned)((exponent + 13) * 1024 + (int)units));
}

static float define_float(uint16_t half)
{
    int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    float magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                      : exponent == 0 ? ldexpf((float)fraction, -24)
                                      : ldexpf((float)(1024 + fraction), exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

static bool half_is_nan(uint16_t half)
{
    return (half & 0x7fff) > 0x7c00;
}

static void expect_half(const char *set, float x, uint16_t got)
{
    uint16_t expected = define_half(x);
    if (got != expected && !(half_is_nan(got) && half_is_nan(expected)))
        fail_msg("%s: %a is %04x as a half, not %04x", set, (double)x, got, expected);
}

static void compare_to_half(const float *x, size_t n)
{
    const struct bnt_kernels *kernels;
    struct floats in = copy_floats(x, n);
    struct test_guarded guarded = test_guard(n * sizeof(uint16_t));
    uint16_t *out = (void *)guarded.data;
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memset(out, 0x5A, n * sizeof *out);
        kernels->to_half(out, in.data, n);
        for (size_t j = 0; j < n; j++)
            expect_half(kernels->name, x[j], out[j]);
    }
    for (size_t j = 0; j < n; j++)
        expect_half("bnt_f16_from_float", x[j], bnt_f16_from_float(x[j]));
    close_floats(&in);
    test_unguard(&guarded);
}

static void every_half_is_a_float_and_back(void **state)
{
    (void)state;
    for (unsigned half = 0; half <= 0xffff; half++) {
        float v = bnt_float_from_f16((uint16_t)half);
        assert_true(same(v, define_float((uint16_t)half)));
        uint16_t back = bnt_f16_from_float(v);
        if (half_is_nan((uint16_t)half))
            assert_true(half_is_nan(back));
        else if (isinf(v))
            assert_int_equal(back, half - 1); // ±65504
        else
            assert_int_equal(back, half);
    }
}

// Where the result changes is half way between neighbours, and nowhere else, rounding being
// monotonic: so these are all floats that matter.
static void to_half_rounds_to_nearest_even(void **state)
{
    enum { PER_HALF = 8 };
    size_t n = 0;
    float *x = test_alloc(0x7c00 * PER_HALF * sizeof(float));
    (void)state;
    for (unsigned half = 0; half <= 0x7bff; half++) {
        float v = define_float((uint16_t)half);
        float next = half == 0x7bff ? 65536 : define_float((uint16_t)(half + 1));
        float tie = (v + next) / 2;
        const float around[] = {v, nextafterf(tie, 0), tie, nextafterf(tie, INFINITY)};
        for (size_t i = 0; i < TEST_COUNT(around); i++) {
            x[n++] = around[i];
            x[n++] = -around[i];
        }
    }
    compare_to_half(x, n);
    free(x);
}

static void to_half_of_any_length(void **state)
{
    static const float limits[] = {65504,    65519.996f, 65520,     65536,    1e6f,       FLT_MAX,
                                   INFINITY, -65520,     -INFINITY, 0x1p-24f, 0x1.8p-25f, 0x1p-25f,
                                   0x1p-26f, 1e-45f,     0x1p-14f,  NAN,      -NAN,       0};
    float x[4111];
    uint64_t random = 11;
    (void)state;
    compare_to_half(limits, TEST_COUNT(limits));
    for (size_t i = 0; size_of_round(i); i++) {
        size_t n = size_of_round(i);
        special_floats(&random, x, n);
        compare_to_half(x, n);
        for (size_t j = 0; j < n; j++)
            x[j] = bnt_float_from_bits((uint32_t)test_random(&random));
        compare_to_half(x, n);
    }
}

// --- attention ---

// Vectors of queries (or weights), keys (or values) and results; count: groups of keys, or values.
struct attention {
    size_t n_queries, count, dim;
    size_t in_stride, kv_stride, out_stride;
    struct floats in, kv, out;
    struct test_guarded halves;
    float *widened;  // of halves
    float *expected; // as out
    size_t in_size, kv_size, out_size;
    float scale;
};

static size_t with_stride(size_t rows, size_t stride, size_t width)
{
    return (rows - 1) * stride + width;
}

static void open_attention(struct attention *a, size_t in_width, size_t kv_size, size_t out_width)
{
    a->in_size = with_stride(a->n_queries, a->in_stride, in_width);
    a->kv_size = kv_size;
    a->out_size = with_stride(a->n_queries, a->out_stride, out_width);
    a->in = open_floats(a->in_size);
    a->kv = open_floats(kv_size);
    a->out = open_floats(a->out_size);
    a->halves = test_guard(kv_size * sizeof(uint16_t));
    a->widened = test_alloc(kv_size * sizeof(float));
    a->expected = test_alloc(a->out_size * sizeof(float));
}

static void close_attention(struct attention *a)
{
    close_floats(&a->in);
    close_floats(&a->kv);
    close_floats(&a->out);
    test_unguard(&a->halves);
    free(a->widened);
    free(a->expected);
}

static void fill_attention(struct attention *a, bool special, uint64_t *random)
{
    uint16_t *halves = (void *)a->halves.data;
    void (*fill)(uint64_t *, float *, size_t) = special ? special_floats : wild_floats;
    fill(random, a->in.data, a->in_size);
    fill(random, a->kv.data, a->kv_size);
    for (size_t i = 0; i < a->kv_size; i++) {
        halves[i] = define_half(a->kv.data[i]);
        a->widened[i] = define_float(halves[i]);
    }
    a->scale = test_random_float(random);
}

static void define_scores(struct attention *a, const float *keys)
{
    memset(a->expected, 0x5A, a->out_size * sizeof(float)); // what lies between rows must stay
    for (size_t i = 0; i < a->n_queries; i++) {
        for (size_t p = 0; p < 16 * a->count; p++) {
            float sum = 0;
            for (size_t d = 0; d < a->dim; d++) {
                float product =
                    a->in.data[i * a->in_stride + d] * keys[(p / 16 * a->dim + d) * 16 + p % 16];
                sum = sum + product;
            }
            a->expected[i * a->out_stride + p] = a->scale * sum;
        }
    }
}

static void run_scores(const struct bnt_kernels *kernels, struct attention *a, bool half)
{
    memset(a->out.data, 0x5A, a->out_size * sizeof(float));
    if (half)
        kernels->scores(a->out.data, a->out_stride, a->in.data, a->in_stride, a->n_queries,
                        (const void *)a->halves.data, a->count, a->dim, a->scale);
    else
        kernels->scores_f32(a->out.data, a->out_stride, a->in.data, a->in_stride, a->n_queries,
                            a->kv.data, a->count, a->dim, a->scale);
    expect_floats(kernels->name, half ? "scores" : "scores_f32", a->dim, a->out.data, a->expected,
                  a->out_size);
}

static void define_mix(struct attention *a, const float *values)
{
    memset(a->expected, 0x5A, a->out_size * sizeof(float));
    for (size_t i = 0; i < a->n_queries; i++) {
        for (size_t d = 0; d < a->dim; d++) {
            float sum = 0;
            for (size_t p = 0; p < a->count; p++) {
                float product = a->in.data[i * a->in_stride + p] * values[p * a->kv_stride + d];
                sum = sum + product;
            }
            a->expected[i * a->out_stride + d] = sum;
        }
    }
}

static void run_mix(const struct bnt_kernels *kernels, struct attention *a, bool half)
{
    memset(a->out.data, 0x5A, a->out_size * sizeof(float));
    if (half)
        kernels->mix(a->out.data, a->out_stride, a->in.data, a->in_stride, a->n_queries,
                     (const void *)a->halves.data, a->kv_stride, a->count, a->dim);
    else
        kernels->mix_f32(a->out.data, a->out_stride, a->in.data, a->in_stride, a->n_queries,
                         a->kv.data, a->kv_stride, a->count, a->dim);
    expect_floats(kernels->name, half ? "mix" : "mix_f32", a->dim, a->out.data, a->expected,
                  a->out_size);
}

static void compare_attention(struct attention *a, bool special, uint64_t *random,
                              void (*define)(struct attention *, const float *),
                              void (*run)(const struct bnt_kernels *, struct attention *, bool))
{
    const struct bnt_kernels *kernels;
    fill_attention(a, special, random);
    for (int half = 0; half < 2; half++) {
        define(a, half ? a->widened : a->kv.data);
        for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++)
            run(kernels, a, half);
    }
    close_attention(a);
}

static void scores_of_any_shape(void **state)
{
    static const size_t dims[] = {1, 2, 5, 24, 34, 64, 80, 128};
    uint64_t random = 12;
    (void)state;
    for (size_t n_queries = 1; n_queries <= 17; n_queries += TEST_TSAN ? 4 : 1) {
        for (size_t i = 0; i < TEST_COUNT(dims); i++) {
            struct attention a = {.n_queries = n_queries, .dim = dims[i]};
            a.count = 1 + test_random_below(&random, 3);
            a.in_stride = a.dim + test_random_below(&random, 3);
            a.out_stride = 16 * a.count + test_random_below(&random, 3);
            open_attention(&a, a.dim, a.count * a.dim * 16, 16 * a.count);
            compare_attention(&a, i == n_queries % 8, &random, define_scores, run_scores);
        }
    }
}

static void mix_of_any_shape(void **state)
{
    static const size_t dims[] = {1, 2, 3, 7, 24, 34, 64, 80, 128, 130}, counts[] = {1, 2, 15, 40};
    uint64_t random = 13;
    (void)state;
    for (size_t n_queries = 1; n_queries <= 17; n_queries += TEST_TSAN ? 4 : 1) {
        for (size_t i = 0; i < TEST_COUNT(dims); i++) {
            struct attention a = {.n_queries = n_queries, .dim = dims[i]};
            a.count = counts[test_random_below(&random, 4)];
            a.in_stride = a.count + test_random_below(&random, 3);
            a.kv_stride = a.dim + test_random_below(&random, 3);
            a.out_stride = a.dim + test_random_below(&random, 3);
            open_attention(&a, a.count, with_stride(a.count, a.kv_stride, a.dim), a.dim);
            compare_attention(&a, i == n_queries % 10, &random, define_mix, run_mix);
        }
    }
}

// --- softmax ---

static void define_softmax(float *x, size_t n)
{
    float greatest = -FLT_MAX, lane[16] = {0};
    for (size_t i = 0; i < n; i++) {
        if (x[i] > greatest)
            greatest = x[i];
    }
    for (size_t i = 0; i < n; i++) {
        x[i] = bnt_exp(x[i] - greatest);
        lane[i % 16] = lane[i % 16] + x[i];
    }
    for (size_t half = 8; half > 0; half /= 2) {
        for (size_t j = 0; j < half; j++)
            lane[j] = lane[j] + lane[j + half];
    }
    float inverse = 1.0f / lane[0];
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * inverse;
}

static void compare_softmax(const float *x, size_t n)
{
    const struct bnt_kernels *kernels;
    struct floats out = open_floats(n);
    float *expected = test_alloc(n * sizeof(float));
    memcpy(expected, x, n * sizeof(float));
    define_softmax(expected, n);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memcpy(out.data, x, n * sizeof(float));
        kernels->softmax(out.data, n);
        expect_floats(kernels->name, "softmax", n, out.data, expected, n);
    }
    free(expected);
    close_floats(&out);
}

static void softmax_of_any_length(void **state)
{
    static const float magnitudes[] = {1, 30, 1e-3f, 1000, 0};
    float *x = test_alloc(70000 * sizeof(float));
    uint64_t random = 14;
    (void)state;
    for (size_t i = 0; size_of_round(i); i++) {
        size_t n = size_of_round(i);
        for (size_t j = 0; j < TEST_COUNT(magnitudes); j++) {
            for (size_t k = 0; k < n; k++)
                x[k] = test_random_float(&random) * magnitudes[j];
            compare_softmax(x, n);
        }
        special_floats(&random, x, n);
        compare_softmax(x, n);
    }
    wild_floats(&random, x, 70000);
    compare_softmax(x, 70000);
    free(x);
}

// --- the list of sets ---

static void the_scalar_set_is_last_and_names_differ(void **state)
{
    size_t n = 0;
    (void)state;
    for (; bnt_kernels_get(n); n++) {
        for (size_t j = 0; j < n; j++)
            assert_string_not_equal(bnt_kernels_get(n)->name, bnt_kernels_get(j)->name);
    }
    assert_true(n >= 1);
    assert_ptr_equal(bnt_kernels_get(n - 1), &bnt_kernels_scalar);
    assert_null(bnt_kernels_get(n + 1000));
}

// Where $BNT_TEST_KERNELS says which sets there must be, best first, there are no others. It is set
// where the processor is known.
static void the_sets_are_those_of_the_processor(void **state)
{
    const char *expected = getenv("BNT_TEST_KERNELS");
    char names[256] = "";
    (void)state;
    if (!expected)
        return;
    for (size_t i = 0; bnt_kernels_get(i); i++) {
        size_t used = strlen(names);
        (void)snprintf(names + used, sizeof names - used, "%s%s", used ? " " : "",
                       bnt_kernels_get(i)->name);
    }
    assert_string_equal(names, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ternary_is_the_same_on_every_set),
        cmocka_unit_test(ternary_at_its_extremes),
        cmocka_unit_test(ternary_with_extremes_in_every_order),
        cmocka_unit_test(scalar_ternary_is_a_dot_product),
        cmocka_unit_test(int8_rows_are_exact),
        cmocka_unit_test(quantize_of_any_length),
        cmocka_unit_test(quantize_rounds_ties_to_even),
        cmocka_unit_test(quantize_of_special_values),
        cmocka_unit_test(dense_rows_of_any_length),
        cmocka_unit_test(dense_rows_of_special_values),
        cmocka_unit_test(norms_and_activations_of_any_length),
        cmocka_unit_test(exp_is_accurate),
        cmocka_unit_test(exp_at_its_limits),
        cmocka_unit_test(every_half_is_a_float_and_back),
        cmocka_unit_test(to_half_rounds_to_nearest_even),
        cmocka_unit_test(to_half_of_any_length),
        cmocka_unit_test(scores_of_any_shape),
        cmocka_unit_test(mix_of_any_shape),
        cmocka_unit_test(softmax_of_any_length),
        cmocka_unit_test(the_scalar_set_is_last_and_names_differ),
        cmocka_unit_test(the_sets_are_those_of_the_processor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
