// SPDX-License-Identifier: MIT
// Products with a scale for each row and group of columns, and activations in 16 bits: what
// kernels.h promises is written again here, and every set is compared with it, bit for bit, on
// buffers that end at an inaccessible page.
#include "formats/block.h"
#include "tests/unit/kernel_sets.h"

// --- products by groups ---

struct shape {
    size_t block_rows, blocks, group_blocks, tokens;
    bool halves, wide;
    size_t extra_x, extra_out; // by how much the strides are larger than needed
};

struct product {
    struct shape shape;
    size_t groups, rows, x_stride, out_stride, x_size, out_count;
    struct test_guarded blocks, x, x_sum, scales, out;
    float *expected;
};

static void open_product(struct product *p, struct shape s)
{
    *p = (struct product){.shape = s, .rows = s.tokens * (s.wide ? 2 : 1)};
    p->groups = (s.blocks + s.group_blocks - 1) / s.group_blocks;
    p->x_stride = 32 * s.blocks + s.extra_x;
    p->out_stride = 16 * s.block_rows + s.extra_out;
    p->x_size = (p->rows - 1) * p->x_stride + 32 * s.blocks;
    p->out_count = (s.tokens - 1) * p->out_stride + 16 * s.block_rows;
    p->blocks = test_guard(s.block_rows * s.blocks * BNT_BLOCK_BYTES);
    p->x = test_guard(p->x_size);
    p->x_sum = test_guard(p->rows * p->groups * sizeof(int32_t));
    p->scales = test_guard(s.block_rows * p->groups * 16 * (s.halves ? 2 : 4));
    p->out = test_guard(p->out_count * sizeof(float));
    p->expected = test_alloc(p->out_count * sizeof(float));
}

static void close_product(struct product *p)
{
    test_unguard(&p->blocks);
    test_unguard(&p->x);
    test_unguard(&p->x_sum);
    test_unguard(&p->scales);
    test_unguard(&p->out);
    free(p->expected);
}

static const int8_t *x_row(const struct product *p, size_t row)
{
    return (const int8_t *)p->x.data + row * p->x_stride;
}

static void sum_groups(struct product *p)
{
    int32_t *sums = (int32_t *)(void *)p->x_sum.data;
    const size_t group = 32 * p->shape.group_blocks;
    memset(sums, 0, p->rows * p->groups * sizeof *sums);
    for (size_t r = 0; r < p->rows; r++) {
        for (size_t k = 0; k < 32 * p->shape.blocks; k++)
            sums[r * p->groups + k / group] += x_row(p, r)[k];
    }
}

static float define_scale(const struct product *p, size_t row, size_t group)
{
    size_t i = (row / 16 * p->groups + group) * 16 + row % 16;
    return p->shape.halves ? bnt_float_from_f16(bnt_load_u16(p->scales.data + 2 * i))
                           : bnt_load_f32(p->scales.data + 4 * i);
}

// The sum of a group in whole numbers, from 16-bit activations put together before.
static int64_t define_sum(const struct product *p, size_t row, size_t group, size_t token)
{
    const uint32_t *blocks = (const uint32_t *)(const void *)p->blocks.data;
    const uint32_t cols = (uint32_t)(32 * p->shape.blocks);
    size_t end = (group + 1) * 32 * p->shape.group_blocks;
    int64_t sum = 0;
    for (size_t k = group * 32 * p->shape.group_blocks; k < end && k < cols; k++) {
        int64_t x = p->shape.wide ? 256 * x_row(p, 2 * token)[k] + x_row(p, 2 * token + 1)[k]
                                  : x_row(p, token)[k];
        sum += bnt_block_weight(blocks, cols, (uint32_t)row, (uint32_t)k) * x;
    }
    return sum;
}

static void define(struct product *p)
{
    memset(p->expected, 0x5A, p->out_count * sizeof(float)); // what lies between rows must stay
    for (size_t t = 0; t < p->shape.tokens; t++) {
        for (size_t r = 0; r < 16 * p->shape.block_rows; r++) {
            float sum = 0;
            for (size_t g = 0; g < p->groups; g++) {
                float product = define_scale(p, r, g) * (float)define_sum(p, r, g, t);
                sum += product;
            }
            p->expected[t * p->out_stride + r] = sum;
        }
    }
}

static void compare_sets(struct product *p)
{
    const struct bnt_scales scales = {.values = p->scales.data,
                                      .halves = p->shape.halves,
                                      .n_groups = p->groups,
                                      .group_blocks = p->shape.group_blocks};
    const struct bnt_kernels *kernels;
    define(p);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        memset(p->out.data, 0x5A, p->out_count * sizeof(float));
        kernels->ternary_groups(
            (float *)(void *)p->out.data, p->out_stride, (const uint32_t *)(void *)p->blocks.data,
            p->shape.block_rows, p->shape.blocks, &scales, (const int8_t *)p->x.data, p->x_stride,
            (const int32_t *)(void *)p->x_sum.data, p->shape.tokens, p->shape.wide);
        if (memcmp(p->out.data, p->expected, p->out_count * sizeof(float)) != 0)
            fail_msg("%s differs: %zu block rows, %zu blocks in groups of %zu, %zu tokens%s%s",
                     kernels->name, p->shape.block_rows, p->shape.blocks, p->shape.group_blocks,
                     p->shape.tokens, p->shape.halves ? ", halves" : "",
                     p->shape.wide ? ", wide" : "");
    }
}

// Of very different size, some of them subnormal, so that any other order of adding differs.
static void fill_scales(struct product *p, uint64_t *random)
{
    for (size_t i = 0; i < p->shape.block_rows * p->groups * 16; i++) {
        float v = ldexpf(1 + fabsf(test_random_float(random)), -(int)test_random_below(random, 26));
        uint16_t half = bnt_f16_from_float(v);
        if (p->shape.halves)
            memcpy(p->scales.data + 2 * i, &half, sizeof half);
        else
            memcpy(p->scales.data + 4 * i, &v, sizeof v);
    }
}

static void random_shape(struct shape shape, uint64_t *random)
{
    struct product p;
    open_product(&p, shape);
    test_random_bytes(random, p.blocks.data, shape.block_rows * shape.blocks * BNT_BLOCK_BYTES);
    test_random_bytes(random, p.x.data, p.x_size);
    fill_scales(&p, random);
    sum_groups(&p);
    compare_sets(&p);
    close_product(&p);
}

// Every remainder of tokens that a set may treat apart, short last groups, groups longer than what
// 16-bit sums take.
static void groups_are_the_same_on_every_set(void **state)
{
    static const size_t group_blocks[] = {1, 2, 4, 5, 8, 11}, blocks[] = {1, 4, 7, 12, 25};
    uint64_t random = 1;
    (void)state;
    for (size_t tokens = 1; tokens <= 13; tokens += TEST_TSAN ? 5 : 1) {
        for (size_t i = 0; i < TEST_COUNT(group_blocks) * TEST_COUNT(blocks); i++) {
            uint64_t r = test_random(&random);
            struct shape shape = {.block_rows = 1 + r % 3,
                                  .blocks = blocks[i % TEST_COUNT(blocks)],
                                  .group_blocks = group_blocks[i / TEST_COUNT(blocks)],
                                  .tokens = tokens,
                                  .halves = r >> 8 & 1,
                                  .wide = r >> 9 & 1,
                                  .extra_x = 32 * (r >> 16 & 1),
                                  .extra_out = r >> 24 & 15};
            random_shape(shape, &random);
        }
    }
    random_shape((struct shape){1, 4, 2, BNT_MAX_BATCH / 2, true, true, 0, 0}, &random);
    random_shape((struct shape){1, 4, 2, BNT_MAX_BATCH, false, false, 0, 0}, &random);
}

// The longest group, all codes and activations the same.
static void groups_at_their_extremes(void **state)
{
    static const int8_t activations[] = {-128, 127, -127};
    const size_t longest = BNT_MAX_GROUP / 32;
    uint64_t random = 2;
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        for (uint8_t code = 0; code < 4; code++) {
            for (size_t i = 0; i < TEST_COUNT(activations); i++) {
                struct product p;
                open_product(&p, (struct shape){1, longest + 1, longest, 5, false, wide, 0, 3});
                memset(p.blocks.data, code * 0x55, (longest + 1) * BNT_BLOCK_BYTES);
                memset(p.x.data, activations[i], p.x_size);
                fill_scales(&p, &random);
                sum_groups(&p);
                compare_sets(&p);
                close_product(&p);
            }
        }
    }
}

static void sums_of_groups(void **state)
{
    static const size_t sizes[] = {32, 64, 96, 320, 4128}, groups[] = {32, 64, 128, 4096, 1 << 20};
    uint64_t random = 3;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(sizes) * TEST_COUNT(groups); i++) {
        size_t size = sizes[i / TEST_COUNT(groups)], group = groups[i % TEST_COUNT(groups)];
        size_t n = (size + group - 1) / group;
        struct test_guarded x = test_guard(size), out = test_guard(n * sizeof(int32_t));
        const struct bnt_kernels *kernels;
        for (int extreme = 0; extreme < 2; extreme++) {
            test_random_bytes(&random, x.data, size);
            if (extreme)
                memset(x.data, 0x80, size);
            for (size_t j = 0; (kernels = kernel_set(j)) != NULL; j++) {
                kernels->group_sums((int32_t *)(void *)out.data, (const int8_t *)x.data, size,
                                    group);
                for (size_t g = 0; g < n; g++) {
                    int32_t sum = 0;
                    for (size_t k = g * group; k < size && k < (g + 1) * group; k++)
                        sum += ((const int8_t *)x.data)[k];
                    if (((const int32_t *)(void *)out.data)[g] != sum)
                        fail_msg("%s: %zu in groups of %zu", kernels->name, size, group);
                }
            }
        }
        test_unguard(&x);
        test_unguard(&out);
    }
}

// --- 16-bit activations ---

static float define_quantize16(int16_t *out, const float *x, size_t n, size_t padded)
{
    float max = 1e-30f;
    for (size_t i = 0; i < n; i++) {
        if (!isnan(x[i]) && fabsf(x[i]) > max)
            max = fabsf(x[i]);
    }
    float scale = 32512.0f / max;
    for (size_t i = 0; i < padded; i++) {
        double v = i < n ? (double)(x[i] * scale) : 0;
        double q = isnan(v) ? -32512 : rint(v);
        out[i] = (int16_t)(q < -32512 ? -32512 : q > 32512 ? 32512 : q);
    }
    return scale;
}

static void compare_quantize16(const float *x, size_t n)
{
    size_t padded = (n + 31) / 32 * 32;
    struct test_guarded in = test_guard(n * sizeof(float)), high = test_guard(padded),
                        low = test_guard(padded);
    int16_t *expected = test_alloc(padded * sizeof *expected);
    const struct bnt_kernels *kernels;
    memcpy(in.data, x, n * sizeof(float));
    float expected_scale = define_quantize16(expected, x, n, padded);
    for (size_t i = 0; (kernels = kernel_set(i)) != NULL; i++) {
        float scale = kernels->quantize16((int8_t *)high.data, (int8_t *)low.data,
                                          (const float *)(const void *)in.data, n, padded);
        if (!same(scale, expected_scale))
            fail_msg("%s: scale %a, not %a", kernels->name, (double)scale, (double)expected_scale);
        for (size_t k = 0; k < padded; k++) {
            int value = 256 * (int8_t)high.data[k] + (int8_t)low.data[k];
            if (value != expected[k] || (int8_t)high.data[k] == -128)
                fail_msg("%s: %zu of %zu: %d, not %d", kernels->name, k, n, value, expected[k]);
        }
    }
    free(expected);
    test_unguard(&in);
    test_unguard(&high);
    test_unguard(&low);
}

static void sixteen_bits_of_any_length(void **state)
{
    static const float specials[] = {0,      -0.0f,    1e-45f,    -1e-40f, 1e-30f,
                                     1e-31f, INFINITY, -INFINITY, NAN,     1,
                                     -1,     3.3e38f,  -3.3e38f,  127.5f,  0.5f};
    uint64_t random = 4;
    float x[1000];
    (void)state;
    for (size_t n = 1; n <= 1000; n += n < 70 ? 1 : 310) {
        for (int kind = 0; kind < 3; kind++) {
            for (size_t i = 0; i < n; i++)
                x[i] = kind == 0   ? test_random_float(&random)
                       : kind == 1 ? (float)((int)test_random_below(&random, 65026) - 32513)
                                   : specials[test_random_below(&random, TEST_COUNT(specials))];
            compare_quantize16(x, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups_are_the_same_on_every_set),
        cmocka_unit_test(groups_at_their_extremes),
        cmocka_unit_test(sums_of_groups),
        cmocka_unit_test(sixteen_bits_of_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
