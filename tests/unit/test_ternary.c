// SPDX-License-Identifier: MIT
// Ternarizing decides every weight, and half of the rounding errors of the world are at ties: each
// 16-bit master value is compared with a plain float implementation, the scale with a plain sum,
// and the number conversions with definitions that use ldexp and double.
#include <math.h>

#include "formats/bytes.h"
#include "formats/ternary.h"
#include "tests/unit/support.h"

static const enum bnt_float_type types[] = {BNT_FLOAT_BF16, BNT_FLOAT_F16, BNT_FLOAT_F32};

// --- number conversions ---

static double define_f16(uint32_t v)
{
    int exponent = (int)(v >> 10 & 31);
    double fraction = v & 1023;
    double magnitude = exponent == 31  ? fraction > 0 ? (double)NAN : (double)INFINITY
                       : exponent == 0 ? ldexp(fraction, -24)
                                       : ldexp(1024 + fraction, exponent - 25);
    return v & 0x8000 ? -magnitude : magnitude;
}

static void every_f16_converts_exactly(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 65536; v++) {
        float is = bnt_float_from_f16((uint16_t)v);
        double must = define_f16(v);
        if (isnan(must) ? !isnan(is) : (double)is != must)
            fail_msg("f16 %04x is %g, must be %g", v, (double)is, must);
        assert_int_equal(signbit(is) != 0, v >> 15);
    }
}

static void every_bf16_is_the_upper_half_of_a_float(void **state)
{
    (void)state;
    for (uint32_t v = 0; v < 65536; v++)
        assert_int_equal(bnt_bits_from_float(bnt_float_from_bf16((uint16_t)v)), v << 16);
}

// The value of an f32 whose bits are given, as if the exponent had no end: infinity is 2^128.
static double unbounded(uint32_t magnitude)
{
    return magnitude >= 0x7f800000 ? 0x1p128 : (double)bnt_float_from_bits(magnitude);
}

// Round half to even by comparing distances.
static uint32_t define_bf16(uint32_t bits)
{
    uint32_t magnitude = bits & 0x7fffffff, lower = magnitude >> 16;
    double v = unbounded(magnitude);
    double below = v - unbounded(lower << 16), above = unbounded((lower + 1) << 16) - v;
    bool up = above < below || (above == below && lower % 2 == 1);
    if (magnitude >= 0x7f800000)
        up = false;
    return (bits >> 16 & 0x8000) | (lower + up);
}

static void bf16_rounds_half_to_even(void **state)
{
    static const uint32_t tails[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    uint64_t random = 1;
    (void)state;
    for (uint32_t upper = 0; upper < 65536; upper++) {
        for (size_t i = 0; i < TEST_COUNT(tails) + 4; i++) {
            uint32_t tail =
                i < TEST_COUNT(tails) ? tails[i] : (uint32_t)test_random(&random) & 0xffff;
            uint32_t bits = upper << 16 | tail;
            float v = bnt_float_from_bits(bits);
            uint16_t is = bnt_bf16_from_float(v);
            if (isnan(v))
                assert_true(isnan(bnt_float_from_bf16(is)));
            else if (is != define_bf16(bits))
                fail_msg("%08x becomes %04x, must be %04x", bits, is, define_bf16(bits));
        }
    }
}

// --- ternarizing ---

static int8_t define_ternary(float w, float scale)
{
    float inverse = 1.0f / scale;
    float product = w * inverse;
    float q = rintf(product);
    return (int8_t)(q > 1 ? 1 : q < -1 ? -1 : q);
}

// All 65536 patterns, or as many random floats, as bytes at an odd address.
static uint8_t *all_values(enum bnt_float_type type, uint64_t *random)
{
    uint8_t *data = test_alloc(65536 * 4 + 1);
    for (uint32_t v = 0; v < 65536; v++) {
        uint16_t half = (uint16_t)v;
        float single = test_random_float(random) * 4;
        if (type == BNT_FLOAT_F32)
            memcpy(data + 1 + 4 * v, &single, 4);
        else
            memcpy(data + 1 + 2 * v, &half, 2);
    }
    return data;
}

static void check_scale(enum bnt_float_type type, const uint8_t *data, float scale)
{
    static int8_t out[65536];
    bnt_ternarize(type, data, 65536, scale, out);
    for (uint32_t i = 0; i < 65536; i++) {
        float w = bnt_float_load(type, data, i);
        if (!isnan(w) && out[i] != define_ternary(w, scale)) // Inf and NaN are refused before
            fail_msg("type %d, %a at scale %a: %d", (int)type, (double)w, (double)scale, out[i]);
    }
}

static void every_master_value_is_rounded_as_defined(void **state)
{
    static const float scales[] = {1,     0.5f,     2,         0.02f,      1e-5f,   3,   0.0371094f,
                                   0.75f, 123.456f, 0x1p-126f, 0.3333333f, 1000.1f, 0.1f};
    uint64_t random = 2;
    (void)state;
    for (size_t t = 0; t < TEST_COUNT(types); t++) {
        uint8_t *data = all_values(types[t], &random);
        for (size_t i = 0; i < TEST_COUNT(scales); i++)
            check_scale(types[t], data + 1, scales[i]);
        for (int i = 0; i < 20; i++)
            check_scale(types[t], data + 1, ldexpf(fabsf(test_random_float(&random)) + 0.01f, -i));
        free(data);
    }
}

// Half of the scale is a tie where the division is exact: it rounds to the even 0.
static void ties_become_zero(void **state)
{
    (void)state;
    for (int e = -10; e < 10; e++) {
        float scale = ldexpf(1, e);
        const float w[] = {scale / 2,
                           -scale / 2,
                           nextafterf(scale / 2, 1e9f),
                           nextafterf(-scale / 2, -1e9f),
                           nextafterf(scale / 2, 0),
                           nextafterf(-scale / 2, 0),
                           scale * 1.5f,
                           -scale * 1.5f};
        static const int8_t expected[] = {0, 0, 1, -1, 0, 0, 1, -1};
        int8_t out[TEST_COUNT(w)];
        bnt_ternarize(BNT_FLOAT_F32, (const void *)w, TEST_COUNT(w), scale, out);
        assert_memory_equal(out, expected, sizeof expected);
    }
}

// --- the scale ---

static void store(enum bnt_float_type type, uint8_t *data, uint64_t i, float v)
{
    uint16_t bf16 = bnt_bf16_from_float(v);
    uint16_t f16 = (uint16_t)(0x3000 | (bf16 & 0x83ff)); // any f16 between 1/8 and 1/4
    if (type == BNT_FLOAT_F32)
        memcpy(data + 4 * i, &v, 4);
    else
        memcpy(data + 2 * i, type == BNT_FLOAT_BF16 ? &bf16 : &f16, 2);
}

// Weights as a trained matrix has them.
static uint8_t *trained(enum bnt_float_type type, uint64_t n, uint64_t *random)
{
    uint8_t *data = test_alloc((size_t)n * 4 + 4);
    for (uint64_t i = 0; i < n; i++)
        store(type, data, i, (test_random_float(random) + test_random_float(random)) * 0.02f);
    return data;
}

static void check_sum(enum bnt_float_type type, uint64_t n, uint64_t *random)
{
    uint8_t *data = trained(type, n, random);
    double plain = 0;
    for (uint64_t i = 0; i < n; i++)
        plain += fabs((double)bnt_float_load(type, data, i));
    double one = bnt_abs_sum(type, data, n, 1), two = bnt_abs_sum(type, data, n, 2);
    double seven = bnt_abs_sum(type, data, n, 7);
    assert_memory_equal(&one, &two, sizeof one);
    assert_memory_equal(&one, &seven, sizeof one);
    float expected = (float)(plain / (double)n);
    if (n && bnt_ternary_scale(one, n) != (expected > 1e-5f ? expected : 1e-5f))
        fail_msg("type %d, %" PRIu64 " values: %.9g, must be %.9g", (int)type, n,
                 (double)bnt_ternary_scale(one, n), (double)expected);
    free(data);
}

static void the_scale_is_a_plain_sum_rounded_once_whatever_the_threads(void **state)
{
    static const uint64_t counts[] = {0,     1,     7,      8,      9,       1000,   65535,
                                      65536, 65537, 131072, 200003, 1 << 20, 3000001};
    uint64_t random = 3;
    (void)state;
    for (size_t t = 0; t < TEST_COUNT(types); t++) {
        for (size_t i = 0; i < TEST_COUNT(counts); i++)
            check_sum(types[t], counts[i], &random);
    }
}

// More than one round of chunks.
static void the_scale_of_a_large_matrix(void **state)
{
    uint64_t random = 4;
    (void)state;
    check_sum(BNT_FLOAT_BF16, (256ull << 16) + 65536 + 5, &random);
}

static void the_scale_has_a_floor(void **state)
{
    (void)state;
    assert_true(bnt_ternary_scale(0, 100) == 1e-5f);
    assert_true(bnt_ternary_scale(1e-9, 1) == 1e-5f);
    assert_true(bnt_ternary_scale(2e-5, 1) == 2e-5f);
    assert_true(bnt_ternary_scale(3, 4) == 0.75f);
}

static void a_value_that_is_not_finite_spoils_the_sum(void **state)
{
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    uint64_t random = 5;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        for (uint64_t at = 0; at < 70000; at += 6999) {
            uint8_t *data = trained(BNT_FLOAT_F32, 70000, &random);
            store(BNT_FLOAT_F32, data, at, bad[i]);
            assert_true(!isfinite(bnt_abs_sum(BNT_FLOAT_F32, data, 70000, 2)));
            free(data);
        }
    }
}

static void the_reported_error_is_relative(void **state)
{
    const float w[] = {1, -1, 0, 0.4f, 2};
    const float zeros[] = {0, 0};
    (void)state;
    double expected = sqrt((0.16 + 1) / (1 + 1 + 0.16 + 4)); // 0.4 → 0, 2 → 1
    double is = bnt_ternary_error(BNT_FLOAT_F32, (const void *)w, TEST_COUNT(w), 1);
    assert_true(fabs(is - expected) < 1e-6);
    assert_true(bnt_ternary_error(BNT_FLOAT_F32, (const void *)zeros, 2, 1e-5f) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_converts_exactly),
        cmocka_unit_test(every_bf16_is_the_upper_half_of_a_float),
        cmocka_unit_test(bf16_rounds_half_to_even),
        cmocka_unit_test(every_master_value_is_rounded_as_defined),
        cmocka_unit_test(ties_become_zero),
        cmocka_unit_test(the_scale_is_a_plain_sum_rounded_once_whatever_the_threads),
        cmocka_unit_test(the_scale_of_a_large_matrix),
        cmocka_unit_test(the_scale_has_a_floor),
        cmocka_unit_test(a_value_that_is_not_finite_spoils_the_sum),
        cmocka_unit_test(the_reported_error_is_relative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
