// SPDX-License-Identifier: MIT
// The block layout is read by kernels on every device and written by other implementations: it must
// be the closed form of bnt.md and the words of the published GPU kernel's packer, whatever tricks
// the packing uses to be fast.
#include "formats/block.h"
#include "formats/bytes.h"
#include "formats/safetensors.h"
#include "tests/unit/support.h"

static const uint32_t widths[] = {1, 2, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 256, 333};

// bnt.md section 5, for one block row.
static unsigned code_at(const uint8_t *blocks, uint32_t n, uint32_t k)
{
    size_t word = (size_t)(k / 32) * 32 + (n % 16) / 8 * 16 + (k % 32) / 16 * 8 + n % 8;
    unsigned bit = 8 * (k % 4) + 2 * ((k % 16) / 4);
    return bnt_load_u32(blocks + 4 * word) >> bit & 3;
}

static void random_ternary(uint64_t *random, int8_t *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        w[i] = (int8_t)((int)test_random_below(random, 3) - 1);
}

static void check_codes(const uint8_t *blocks, const int8_t *w, uint32_t rows, uint32_t cols)
{
    for (uint32_t n = 0; n < 16; n++) {
        for (uint32_t k = 0; k < bnt_pad_cols(cols); k++) {
            unsigned expected = n < rows && k < cols ? (unsigned)(w[n * cols + k] + 2) : 2;
            if (code_at(blocks, n, k) != expected)
                fail_msg("%ux%u: code (%u, %u) is %u, must be %u", rows, cols, n, k,
                         code_at(blocks, n, k), expected);
        }
    }
}

// Input and output end at inaccessible pages.
static void packing_follows_the_closed_form(void **state)
{
    uint64_t random = 1;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(widths); i++) {
        for (uint32_t rows = 1; rows <= 16; rows++) {
            struct test_guarded w = test_guard((size_t)rows * widths[i]);
            struct test_guarded blocks = test_guard(bnt_block_row_bytes(widths[i]));
            random_ternary(&random, (int8_t *)w.data, (size_t)rows * widths[i]);
            memset(blocks.data, 0xFF, bnt_block_row_bytes(widths[i]));
            assert_true(bnt_block_pack_row((int8_t *)w.data, rows, widths[i], blocks.data));
            check_codes(blocks.data, (int8_t *)w.data, rows, widths[i]);
            test_unguard(&w);
            test_unguard(&blocks);
        }
    }
}

static void a_block_row_has_the_size_of_the_format(void **state)
{
    (void)state;
    assert_int_equal(bnt_block_row_bytes(1), 128);
    assert_int_equal(bnt_block_row_bytes(32), 128);
    assert_int_equal(bnt_block_row_bytes(33), 256);
    assert_int_equal(bnt_block_row_bytes(BNT_MAX_COLS), (size_t)BNT_MAX_COLS * 16 / 4);
}

static void the_example_of_the_specification(void **state)
{
    static const int8_t w[16] = {1, -1, 0, 0};
    uint8_t block[BNT_BLOCK_BYTES];
    (void)state;
    assert_true(bnt_block_pack_row(w, 1, 16, block));
    assert_int_equal(bnt_load_u32(block), 0xAAAAA9AB);
    for (size_t i = 4; i < sizeof block; i++)
        assert_int_equal(block[i], 0xAA);
}

static void unpacking_reads_the_closed_form(void **state)
{
    uint64_t random = 2;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(widths); i++) {
        uint32_t padded = bnt_pad_cols(widths[i]);
        struct test_guarded blocks = test_guard(bnt_block_row_bytes(widths[i]));
        struct test_guarded w = test_guard((size_t)16 * padded);
        test_random_bytes(&random, blocks.data, bnt_block_row_bytes(widths[i])); // any code
        bnt_block_unpack_row(blocks.data, widths[i], (int8_t *)w.data);
        for (uint32_t n = 0; n < 16; n++) {
            for (uint32_t k = 0; k < padded; k++)
                assert_int_equal(((int8_t *)w.data)[(size_t)n * padded + k],
                                 (int)code_at(blocks.data, n, k) - 2);
        }
        test_unguard(&blocks);
        test_unguard(&w);
    }
}

// --- the published packer's vectors ---

static const struct bnt_st_tensor *find(const struct bnt_st_header *header, const char *name)
{
    for (size_t i = 0; i < header->count; i++) {
        if (strcmp(header->tensors[i].name, name) == 0)
            return &header->tensors[i];
    }
    return NULL;
}

static void check_vector(const struct bnt_st_header *header, const struct bnt_st_tensor *ternary,
                         const uint8_t *data)
{
    char name[64];
    uint32_t rows = (uint32_t)ternary->shape[0], cols = (uint32_t)ternary->shape[1];
    (void)snprintf(name, sizeof name, "%ux%u.packed", rows, cols);
    const struct bnt_st_tensor *packed = find(header, name);
    assert_non_null(packed);
    size_t row_bytes = bnt_block_row_bytes(cols);
    assert_int_equal(packed->size, rows / 16 * row_bytes);
    uint8_t *blocks = test_alloc(row_bytes);
    for (uint32_t i = 0; i < rows / 16; i++) {
        const int8_t *w = (const int8_t *)data + ternary->begin + (size_t)i * 16 * cols;
        assert_true(bnt_block_pack_row(w, 16, cols, blocks));
        assert_memory_equal(blocks, data + packed->begin + i * row_bytes, row_bytes);
    }
    free(blocks);
}

static void the_published_packer_gives_the_same_words(void **state)
{
    size_t size, checked = 0;
    char *file = test_read_file(BNT_TEST_DATA "/pack_vectors.safetensors", &size);
    struct bnt_st_header header;
    struct bnt_error err;
    const uint8_t *data;
    (void)state;
    assert_int_equal(bnt_st_open(&header, (uint8_t *)file, size, "vectors", &data, &err), BNT_OK);
    for (size_t i = 0; i < header.count; i++) {
        if (header.tensors[i].dtype == BNT_ST_I8) {
            check_vector(&header, &header.tensors[i], data);
            checked++;
        }
    }
    assert_int_equal(checked, 2);
    bnt_st_free(&header);
    free(file);
}

// --- what is refused ---

static void only_three_values_are_packed(void **state)
{
    uint8_t blocks[2 * BNT_BLOCK_BYTES];
    int8_t w[3 * 37] = {0};
    (void)state;
    for (int value = -128; value < 128; value++) {
        for (size_t at = 0; at < sizeof w; at += at < 40 ? 1 : 7) {
            w[at] = (int8_t)value;
            assert_int_equal(bnt_block_pack_row(w, 3, 37, blocks), value >= -1 && value <= 1);
            w[at] = 0;
        }
    }
    w[sizeof w - 1] = 2;
    assert_false(bnt_block_pack_row(w, 3, 37, blocks));
}

// --- counting codes ---

static void check_counts(const uint8_t *blocks, uint64_t size)
{
    uint64_t expected[4] = {0}, count[4];
    for (uint64_t i = 0; i < size; i++) {
        for (unsigned bit = 0; bit < 8; bit += 2)
            expected[blocks[i] >> bit & 3]++;
    }
    bnt_block_count_codes(blocks, size, count);
    assert_memory_equal(count, expected, sizeof count);
}

static void codes_are_counted(void **state)
{
    uint64_t random = 3;
    (void)state;
    for (size_t blocks = 0; blocks < 60; blocks++) {
        struct test_guarded g = test_guard(blocks * BNT_BLOCK_BYTES);
        test_random_bytes(&random, g.data, blocks * BNT_BLOCK_BYTES);
        check_counts(g.data, blocks * BNT_BLOCK_BYTES);
        test_unguard(&g);
    }
}

// Fields of the sums would overflow first where every code is the same.
static void runs_of_one_code_are_counted(void **state)
{
    const size_t size = 1000 * BNT_BLOCK_BYTES;
    uint8_t *blocks = test_alloc(size);
    (void)state;
    for (unsigned code = 0; code < 4; code++) {
        memset(blocks, (int)(code * 0x55), size);
        uint64_t count[4], expected[4] = {0};
        expected[code] = size * 4;
        bnt_block_count_codes(blocks, size, count);
        assert_memory_equal(count, expected, sizeof count);
    }
    free(blocks);
}

// --- padding ---

static void set_code(uint8_t *blocks, uint32_t n, uint32_t k, unsigned code)
{
    size_t word = (size_t)(k / 32) * 32 + (n % 16) / 8 * 16 + (k % 32) / 16 * 8 + n % 8;
    unsigned bit = 8 * (k % 4) + 2 * ((k % 16) / 4);
    uint32_t v = bnt_load_u32(blocks + 4 * word);
    v = (v & ~(3u << bit)) | code << bit;
    memcpy(blocks + 4 * word, &v, 4);
}

static void check_padding(uint8_t *blocks, uint32_t rows, uint32_t cols)
{
    for (uint32_t n = 0; n < 16; n++) {
        for (uint32_t k = 0; k < bnt_pad_cols(cols); k++) {
            unsigned old = code_at(blocks, n, k);
            bool padding = n >= rows || k >= cols;
            for (unsigned code = 0; code < 4; code++) {
                set_code(blocks, n, k, code);
                assert_int_equal(bnt_block_padding_is_zero(blocks, rows, cols),
                                 !padding || code == 2);
            }
            set_code(blocks, n, k, old);
        }
    }
}

static void every_padding_code_is_checked_and_no_other(void **state)
{
    static const uint32_t shapes[][2] = {{16, 32}, {16, 33}, {1, 1},   {15, 32}, {9, 40},
                                         {8, 17},  {7, 63},  {16, 16}, {2, 2}};
    uint64_t random = 4;
    uint8_t blocks[2 * BNT_BLOCK_BYTES];
    int8_t w[16 * 64];
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(shapes); i++) {
        random_ternary(&random, w, sizeof w);
        assert_true(bnt_block_pack_row(w, shapes[i][0], shapes[i][1], blocks));
        assert_true(bnt_block_padding_is_zero(blocks, shapes[i][0], shapes[i][1]));
        check_padding(blocks, shapes[i][0], shapes[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_follows_the_closed_form),
        cmocka_unit_test(a_block_row_has_the_size_of_the_format),
        cmocka_unit_test(the_example_of_the_specification),
        cmocka_unit_test(unpacking_reads_the_closed_form),
        cmocka_unit_test(the_published_packer_gives_the_same_words),
        cmocka_unit_test(only_three_values_are_packed),
        cmocka_unit_test(codes_are_counted),
        cmocka_unit_test(runs_of_one_code_are_counted),
        cmocka_unit_test(every_padding_code_is_checked_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
