// SPDX-License-Identifier: MIT
// All kernel sets must give the same bits, or a model would answer differently on another machine;
// and none may touch a byte outside its arguments. The scalar set is the definition, so it is
// compared with definitions written again here, and every other set with it, by memcmp, on buffers
// that end at an inaccessible page.
#include <float.h>
#include <math.h>

#include "formats/block.h"
#include "formats/bytes.h"
#include "runtime/kernels.h"
#include "tests/unit/support.h"

static uint32_t bits(float v)
{
    return bnt_bits_from_float(v);
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

// Runs every set on the same input.
static void compare_products(struct product *p)
{
    const struct bnt_kernels *kernels;
    run_product(&bnt_kernels_scalar, p);
    memcpy(p->expected, p->out.data, p->out_count * sizeof(int32_t));
    for (size_t i = 0; (kernels = bnt_kernels_get(i)) != NULL; i++) {
        run_product(kernels, p);
        if (memcmp(p->out.data, p->expected, p->out_count * sizeof(int32_t)) != 0)
            fail_msg("%s differs: %zu block rows, %zu blocks, %zu tokens", kernels->name,
                     p->shape.block_rows, p->shape.blocks, p->shape.tokens);
    }
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

static void ternary_is_the_same_on_every_set(void **state)
{
    static const size_t blocks[] = {1, 2, 4, 5, 6, 7, 11};
    uint64_t random = 1;
    (void)state;
    for (size_t tokens = 1; tokens <= BNT_MAX_BATCH; tokens += TEST_TSAN ? 5 : 1) {
        for (size_t block_rows = 1; block_rows <= 5; block_rows += 2) {
            for (size_t i = 0; i < TEST_COUNT(blocks); i++) {
                struct shape shape = {block_rows, blocks[i], tokens, 0, 0};
                if (test_random(&random) & 1) {
                    shape.extra_x = 32 * (1 + test_random_below(&random, 3));
                    shape.extra_out = 1 + test_random_below(&random, 40);
                }
                random_shape(shape, &random);
            }
        }
    }
}

// As wide as the format allows, but where it would take minutes.
enum { WIDEST = TEST_TSAN ? BNT_MAX_COLS / 64 : BNT_MAX_COLS };

// Every code and activation the same: the sums are known.
static void ternary_at_its_extremes(void **state)
{
    static const int8_t activations[] = {-128, 127, -127};
    struct product p;
    (void)state;
    open_product(&p, (struct shape){1, WIDEST / 32, 5, 0, 3});
    for (uint8_t code = 0; code < 4; code++) {
        memset(p.blocks.data, code * 0x55, WIDEST / 32 * BNT_BLOCK_BYTES);
        for (size_t i = 0; i < TEST_COUNT(activations); i++) {
            memset(p.x.data, activations[i], p.x_size);
            sum_rows(&p);
            compare_products(&p);
            for (size_t t = 0; t < 5; t++) {
                for (size_t r = 0; r < 16; r++)
                    assert_int_equal(p.expected[t * p.out_stride + r],
                                     (code - 2) * activations[i] * WIDEST);
            }
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
    for (size_t i = 0; (kernels = bnt_kernels_get(i)) != NULL; i++) {
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
    static const float values[] = {0,     -0.0f,     1e-45f,  FLT_MIN, -FLT_MIN, 1e-5f,     1e-6f,
                                   1e30f, -1e30f,    FLT_MAX, -1,      INFINITY, -INFINITY, NAN,
                                   -NAN,  0x1p-126f, 126.5f,  -127.5f, 1,        1e-5f};
    float x[40];
    uint64_t random = 5;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(values); i++) {
        for (size_t n = 1; n <= TEST_COUNT(x); n++) {
            for (size_t j = 0; j < n; j++)
                x[j] = values[i];
            compare_quantize(x, n);
        }
    }
    for (int round = 0; round < 3000; round++) {
        size_t n = 1 + test_random_below(&random, TEST_COUNT(x));
        for (size_t j = 0; j < n; j++)
            x[j] = values[test_random_below(&random, TEST_COUNT(values))];
        compare_quantize(x, n);
    }
}

// --- float sums ---

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

// Floats of very different size, so that any other order of adding gives other bits.
static void wild_floats(uint64_t *random, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = ldexpf(test_random_float(random), (int)test_random_below(random, 24) - 12);
}

static void compare_dots(size_t n, uint64_t *random)
{
    const struct bnt_kernels *kernels;
    struct test_guarded a = test_guard(n * 4), b = test_guard(n * 4), half = test_guard(n * 2);
    float *wide = test_alloc(n * sizeof(float));
    float *x = (void *)a.data, *y = (void *)b.data;
    uint16_t *bf16 = (void *)half.data;
    wild_floats(random, x, n);
    wild_floats(random, y, n);
    for (size_t i = 0; i < n; i++) {
        bf16[i] = bnt_bf16_from_float(x[i]);
        wide[i] = bnt_float_from_bf16(bf16[i]);
    }
    uint32_t expected = bits(define_dot(x, y, n)), expected_bf16 = bits(define_dot(wide, y, n));
    for (size_t i = 0; (kernels = bnt_kernels_get(i)) != NULL; i++) {
        if (bits(kernels->dot(x, y, n)) != expected)
            fail_msg("dot of %s differs for n = %zu", kernels->name, n);
        if (bits(kernels->dot_bf16(bf16, y, n)) != expected_bf16)
            fail_msg("dot_bf16 of %s differs for n = %zu", kernels->name, n);
    }
    free(wide);
    test_unguard(&a);
    test_unguard(&b);
    test_unguard(&half);
}

static void dots_of_any_length(void **state)
{
    static const size_t large[] = {127, 128, 1000, 4096, 4111, 65537};
    uint64_t random = 6;
    (void)state;
    for (int round = 0; round < 5; round++) {
        for (size_t n = 0; n <= 70; n++)
            compare_dots(n, &random);
    }
    for (size_t i = 0; i < TEST_COUNT(large); i++)
        compare_dots(large[i], &random);
}

// Signed zeros, subnormals and infinities take the same way through every set.
static void dots_of_special_values(void **state)
{
    static const float values[] = {0, -0.0f, 1e-45f, -1e-40f, FLT_MIN, FLT_MAX, -FLT_MAX, 1};
    const struct bnt_kernels *kernels;
    float a[40], b[40];
    uint64_t random = 7;
    (void)state;
    for (int round = 0; round < 5000; round++) {
        size_t n = test_random_below(&random, TEST_COUNT(a) + 1);
        for (size_t i = 0; i < n; i++) {
            a[i] = values[test_random_below(&random, TEST_COUNT(values))];
            b[i] = values[test_random_below(&random, TEST_COUNT(values))];
        }
        float expected = define_dot(a, b, n);
        for (size_t i = 0; (kernels = bnt_kernels_get(i)) != NULL; i++) {
            float v = kernels->dot(a, b, n);
            assert_true(isnan(expected) ? isnan(v) : bits(v) == bits(expected));
        }
    }
}

static void compare_add_scaled(size_t n, uint64_t *random)
{
    const struct bnt_kernels *kernels;
    struct test_guarded x = test_guard(n * 4), y = test_guard(n * 4);
    float *before = test_alloc(n * sizeof(float)), *expected = test_alloc(n * sizeof(float));
    float a = test_random_float(random) * 3;
    wild_floats(random, (void *)x.data, n);
    wild_floats(random, before, n);
    for (size_t i = 0; i < n; i++) {
        float product = a * ((const float *)(void *)x.data)[i];
        expected[i] = before[i] + product;
    }
    for (size_t i = 0; (kernels = bnt_kernels_get(i)) != NULL; i++) {
        memcpy(y.data, before, n * sizeof(float));
        kernels->add_scaled((void *)y.data, (const void *)x.data, a, n);
        if (memcmp(y.data, expected, n * sizeof(float)) != 0)
            fail_msg("add_scaled of %s differs for n = %zu", kernels->name, n);
    }
    free(before);
    free(expected);
    test_unguard(&x);
    test_unguard(&y);
}

static void add_scaled_of_any_length(void **state)
{
    uint64_t random = 8;
    (void)state;
    for (int round = 0; round < 5; round++) {
        for (size_t n = 0; n <= 70; n++)
            compare_add_scaled(n, &random);
    }
    compare_add_scaled(4096, &random);
    compare_add_scaled(100003, &random);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ternary_is_the_same_on_every_set),
        cmocka_unit_test(ternary_at_its_extremes),
        cmocka_unit_test(ternary_with_extremes_in_every_order),
        cmocka_unit_test(scalar_ternary_is_a_dot_product),
        cmocka_unit_test(quantize_of_any_length),
        cmocka_unit_test(quantize_rounds_ties_to_even),
        cmocka_unit_test(quantize_of_special_values),
        cmocka_unit_test(dots_of_any_length),
        cmocka_unit_test(dots_of_special_values),
        cmocka_unit_test(add_scaled_of_any_length),
        cmocka_unit_test(the_scalar_set_is_last_and_names_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
