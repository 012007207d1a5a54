// SPDX-License-Identifier: MIT
// Weights that hold three levels are recognised with certainty, whatever type they are in and
// whatever shares a scale; what is near to levels is told from what is not.
#include <math.h>

#include "formats/bytes.h"
#include "formats/layout.h"
#include "formats/levels.h"
#include "tests/unit/support.h"

enum { ROWS = 12, COLS = 300 }; // the last group of each row is short

struct weights {
    enum bnt_float_type type;
    uint32_t rows, cols;
    uint8_t data[ROWS * COLS * 4];
};

static void put(struct weights *w, uint32_t row, uint32_t col, float value)
{
    size_t i = (size_t)row * w->cols + col;
    uint16_t half =
        w->type == BNT_FLOAT_F16 ? bnt_f16_from_float(value) : bnt_bf16_from_float(value);
    if (w->type == BNT_FLOAT_F32)
        memcpy(w->data + 4 * i, &value, sizeof value);
    else
        memcpy(w->data + 2 * i, &half, sizeof half);
}

static struct bnt_level_matrix matrix_of(const struct weights *w)
{
    return (struct bnt_level_matrix){w->type, w->data, w->rows, w->cols};
}

static struct bnt_levels look(const struct weights *w, unsigned threads)
{
    const struct bnt_level_matrix m = matrix_of(w);
    struct bnt_levels levels;
    assert_true(bnt_levels_look(&m, threads, &levels));
    return levels;
}

// Levels that differ from one group to the next; halves are exact in every type but bf16, which has
// eight bits.
static float level_of(uint32_t row, uint32_t group, uint32_t width)
{
    return width == 0 ? 0.375f : ldexpf((float)(128 + (row * 7 + group * 3) % 128), -12);
}

// width: columns that share a level; 0: all of the matrix do.
static void fill(struct weights *w, uint32_t width, uint64_t *random)
{
    for (uint32_t r = 0; r < w->rows; r++) {
        for (uint32_t k = 0; k < w->cols; k++) {
            int q = (int)test_random_below(random, 3) - 1;
            float level = level_of(r, width ? k / width : 0, width);
            put(w, r, k, q == 0 && k % 2 ? -0.0f : (float)q * level);
        }
    }
}

// Codes times scales give the weights, bit for bit but for the sign of zero.
static void check_exact(const struct weights *w, uint32_t group, bool nearest)
{
    const struct bnt_level_matrix m = matrix_of(w);
    float scales[COLS];
    int8_t codes[COLS];
    double difference = 0, total = 0;
    for (uint32_t r = 0; r < w->rows; r++) {
        bnt_levels_scales(&m, r, group, nearest, scales);
        bnt_levels_codes(&m, r, group, scales, nearest, codes);
        for (uint32_t k = 0; k < w->cols; k++) {
            float v = bnt_float_load(w->type, w->data, (uint64_t)r * w->cols + k);
            assert_true((float)codes[k] * scales[k / group] == v);
        }
        bnt_levels_error(&m, r, group, scales, codes, &difference, &total);
    }
    assert_true(difference == 0 && total > 0);
}

static void every_kind_in_every_type(void **state)
{
    static const struct {
        uint32_t width;
        unsigned holds; // bits of enum bnt_level_groups
    } kinds[] = {{32, 1}, {64, 3}, {128, 7}, {256, 15}, {1 << 20, 31}, {0, 63}};
    static struct weights w;
    uint64_t random = 1;
    (void)state;
    for (int type = BNT_FLOAT_BF16; type <= BNT_FLOAT_F32; type++) {
        for (size_t i = 0; i < TEST_COUNT(kinds); i++) {
            w = (struct weights){.type = (enum bnt_float_type)type, .rows = ROWS, .cols = COLS};
            fill(&w, kinds[i].width, &random);
            for (unsigned threads = 1; threads <= 3; threads += 2) {
                struct bnt_levels l = look(&w, threads);
                assert_true(l.finite && l.halves);
                assert_int_equal(l.holds, kinds[i].holds);
                assert_true(kinds[i].width ? l.level == 0 : l.level == 0.375f);
            }
            for (int kind = 0; kind < BNT_LEVELS_MATRIX; kind++) {
                uint32_t group = bnt_levels_scale_group((enum bnt_level_groups)kind);
                if (kinds[i].holds >> kind & 1) {
                    check_exact(&w, group, false);
                    check_exact(&w, group, true);
                }
            }
        }
    }
    assert_int_equal(bnt_levels_scale_group(BNT_LEVELS_MATRIX), 0);
    assert_int_equal(bnt_levels_scale_group(BNT_LEVELS_ROW), BNT_GROUP_ROW);
}

// Zeros fit any level; a matrix of nothing else has the level 0.
static void zeros_fit_anywhere(void **state)
{
    static struct weights w = {.type = BNT_FLOAT_F16, .rows = ROWS, .cols = COLS};
    struct bnt_levels l = look(&w, 2);
    (void)state;
    assert_int_equal(l.holds, 63);
    assert_true(l.level == 0 && l.n_shards == 0);
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t k = 0; k < COLS; k++)
            put(&w, r, k, r % 3 == 1 || k / 32 % 2 ? 0.0f : -0.5f);
    }
    l = look(&w, 2);
    assert_int_equal(l.holds, 63);
    assert_true(l.level == 0.5f && l.n_shards == 1);
}

static void shards_of_rows_are_counted(void **state)
{
    static struct weights w = {.type = BNT_FLOAT_BF16, .rows = ROWS, .cols = COLS};
    (void)state;
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t k = 0; k < COLS; k++)
            put(&w, r, k, k % 3 == 0 ? 0 : r < ROWS / 2 ? 0.25f : -0.75f);
    }
    struct bnt_levels l = look(&w, 1);
    assert_int_equal(l.holds, 31);
    assert_int_equal(l.n_shards, 2);
}

// 1/3 in bf16 and f32 is no half; the least subnormal half is one.
static void levels_that_are_no_halves_are_told(void **state)
{
    static struct weights w;
    (void)state;
    for (int type = BNT_FLOAT_BF16; type <= BNT_FLOAT_F32; type++) {
        w = (struct weights){.type = (enum bnt_float_type)type, .rows = 1, .cols = 40};
        put(&w, 0, 3, 0x1p-24f);
        assert_true(look(&w, 1).halves);
        put(&w, 0, 3, type == BNT_FLOAT_BF16 ? 0x1p-30f : 1.0f / 3);
        assert_int_equal(look(&w, 1).halves, type == BNT_FLOAT_F16);
    }
}

static void values_that_are_not_finite_are_found(void **state)
{
    static const uint32_t bad[][3] = {// infinity, a NaN and the least of them, in each type
                                      [BNT_FLOAT_BF16] = {0xff80, 0x7fc0, 0x7f81},
                                      [BNT_FLOAT_F16] = {0x7c00, 0xfe00, 0x7c01},
                                      [BNT_FLOAT_F32] = {0x7f800000, 0xffc00000, 0x7f800001}};
    static struct weights w;
    uint64_t random = 2;
    (void)state;
    for (int type = BNT_FLOAT_BF16; type <= BNT_FLOAT_F32; type++) {
        for (size_t i = 0; i < 3; i++) {
            const size_t size = bnt_float_size((enum bnt_float_type)type);
            w = (struct weights){.type = (enum bnt_float_type)type, .rows = ROWS, .cols = COLS};
            fill(&w, 0, &random);
            memcpy(w.data + (ROWS * COLS - 1) * size, &bad[type][i], size);
            assert_false(look(&w, 2).finite);
        }
    }
}

// A few weights off every level: how many, how far, and the nearest level is taken.
static void what_is_near_is_counted(void **state)
{
    static struct weights w = {.type = BNT_FLOAT_F16, .rows = ROWS, .cols = COLS};
    uint64_t random = 3;
    (void)state;
    fill(&w, 128, &random);
    const float level = level_of(2, 1, 128);
    put(&w, 2, 130, level * 3);     // two levels away
    put(&w, 2, 131, level * 0.25f); // a quarter of a level from 0
    put(&w, 2, 132, level * -0.75f);
    struct bnt_levels l = look(&w, 2);
    assert_int_equal(l.holds, 0);
    assert_int_equal(l.off[BNT_LEVELS_128], 3);
    assert_true(l.worst[BNT_LEVELS_128] == 2);
    assert_int_equal(l.bad_row, 2);
    assert_true(l.off[BNT_LEVELS_ROW] > 3); // rows do not have one level
    const struct bnt_level_matrix m = matrix_of(&w);
    float scales[COLS];
    int8_t codes[COLS];
    bnt_levels_scales(&m, 2, 128, true, scales);
    bnt_levels_codes(&m, 2, 128, scales, true, codes);
    assert_true(scales[1] == level);
    assert_true(codes[130] == 1 && codes[131] == 0 && codes[132] == -1);
}

static void ordinary_weights_are_nowhere_near(void **state)
{
    static struct weights w = {.type = BNT_FLOAT_F32, .rows = ROWS, .cols = COLS};
    uint64_t random = 4;
    (void)state;
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t k = 0; k < COLS; k++)
            put(&w, r, k, test_random_float(&random));
    }
    struct bnt_levels l = look(&w, 2);
    assert_int_equal(l.holds, 0);
    assert_true(l.finite && l.off[BNT_LEVELS_32] > ROWS * COLS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_in_every_type),
        cmocka_unit_test(zeros_fit_anywhere),
        cmocka_unit_test(shards_of_rows_are_counted),
        cmocka_unit_test(levels_that_are_no_halves_are_told),
        cmocka_unit_test(values_that_are_not_finite_are_found),
        cmocka_unit_test(what_is_near_is_counted),
        cmocka_unit_test(ordinary_weights_are_nowhere_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
