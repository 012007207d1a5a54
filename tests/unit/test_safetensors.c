// SPDX-License-Identifier: MIT
// Safetensors headers come from strangers: each way to be wrong must be refused with a message that
// says what, and what our own builder writes must read back.
#include "formats/safetensors.h"
#include "tests/unit/support.h"

static enum bnt_status parse(const char *text, struct bnt_st_header *header, struct bnt_error *err)
{
    return bnt_st_parse(header, text, strlen(text), "file", err);
}

// --- good headers ---

static void a_header_is_read(void **state)
{
    static const char text[] =
        "{\"__metadata__\":{\"format\":\"np\",\"text\":\"a\\nb\",\"format\":\"pt\",\"loss\":NaN,"
        "\"tokens\":1000000000000000019884624838656,\"zero\":\"\\u0000\",\"half\":\"\\ud800\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
        "\"a\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]},"
        "\"scalar\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]},"
        "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[8,8]}}   ";
    static const char *const order[] = {"a", "empty", "b", "scalar"};
    struct bnt_st_header h;
    struct bnt_error err;
    size_t size;
    (void)state;
    assert_int_equal(parse(text, &h, &err), BNT_OK);
    assert_int_equal(h.count, 4);
    assert_int_equal(h.data_size, 40);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(h.tensors[i].name, order[i]); // in the order of their bytes
    assert_int_equal(h.tensors[0].dtype, BNT_ST_BF16);
    assert_int_equal(h.tensors[2].rank, 2);
    assert_int_equal(h.tensors[2].shape[1], 3);
    assert_int_equal(h.tensors[2].count, 6);
    assert_int_equal(h.tensors[2].begin, 8);
    assert_int_equal(h.tensors[2].size, 24);
    assert_int_equal(h.tensors[3].rank, 0);
    assert_int_equal(h.tensors[3].count, 1);
    assert_int_equal(h.tensors[3].dtype, BNT_ST_OTHER);
    assert_string_equal(h.tensors[3].type_name, "I64");
    assert_string_equal(bnt_st_metadata(&h, "format", &size), "pt");
    assert_memory_equal(bnt_st_metadata(&h, "text", &size), "a\nb", 4);
    assert_int_equal(size, 3);
    assert_null(bnt_st_metadata(&h, "other", &size));
    bnt_st_free(&h);
}

static void every_type_of_the_format_is_measured(void **state)
{
    static const struct {
        const char *name;
        unsigned bytes;
    } all[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
               {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
               {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        for (unsigned off = 0; off < 2; off++) {
            struct bnt_st_header h;
            struct bnt_error err;
            char text[160];
            (void)snprintf(text, sizeof text,
                           "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%u]}}",
                           all[i].name, 3 * all[i].bytes + off);
            assert_int_equal(parse(text, &h, &err), off ? BNT_ERR_FORMAT : BNT_OK);
            bnt_st_free(&h);
        }
    }
}

static void a_header_without_tensors(void **state)
{
    struct bnt_st_header h;
    struct bnt_error err;
    (void)state;
    assert_int_equal(parse("{}", &h, &err), BNT_OK);
    assert_int_equal(h.count, 0);
    assert_int_equal(h.data_size, 0);
    bnt_st_free(&h);
}

// --- bad headers ---

#define T(dtype, shape, offsets)                                                                   \
    "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{\"x\":" T(dtype, shape, offsets) "}"
#define TWO(a, b)                  "{\"x\":" a ",\"y\":" b "}"
#define U8(shape, offsets)         T("\"U8\"", shape, offsets)

static const struct {
    const char *text, *message;
} bad_headers[] = {
    {TWO(U8("[4]", "[0,4]"), U8("[4]", "[3,7]")), "must not overlap"},
    {TWO(U8("[4]", "[0,4]"), U8("[4]", "[0,4]")), "must not overlap"},
    {TWO(U8("[4]", "[0,4]"), U8("[2]", "[1,3]")), "must not overlap"},
    {TWO(U8("[4]", "[0,4]"), U8("[4]", "[5,9]")), "leave holes"},
    {ONE("\"U8\"", "[4]", "[1,5]"), "begins at 1"},
    {ONE("\"U8\"", "[0]", "[1,1]"), "begins at 1"},
    {ONE("\"U9\"", "[4]", "[0,4]"), "unknown dtype 'U9'"},
    {ONE("\"u8\"", "[4]", "[0,4]"), "unknown dtype 'u8'"},
    {ONE("\"\"", "[4]", "[0,4]"), "unknown dtype"},
    {ONE("8", "[4]", "[0,4]"), "unknown dtype"},
    {ONE("null", "[4]", "[0,4]"), "unknown dtype"},
    {"{\"x\":{\"shape\":[4],\"data_offsets\":[0,4]}}", "unknown dtype"},
    {"{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", "shape must be"},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4]}}", "data_offsets must be"},
    {"{\"x\":[]}", "unknown dtype"},
    {"{\"x\":null}", "unknown dtype"},
    {"{\"x\":\"U8\"}", "unknown dtype"},
    {ONE("\"U8\"", "[4]", "[0,5]"), "do not fit its shape"},
    {ONE("\"U8\"", "[4]", "[0,3]"), "do not fit its shape"},
    {ONE("\"U8\"", "[4]", "[0,0]"), "do not fit its shape"},
    {ONE("\"F32\"", "[4]", "[0,4]"), "do not fit its shape"},
    {ONE("\"U8\"", "[]", "[0,0]"), "do not fit its shape"},
    {ONE("\"U8\"", "[-4]", "[0,4]"), "shape must be"},
    {ONE("\"U8\"", "[4.0]", "[0,4]"), "shape must be"},
    {ONE("\"U8\"", "[\"4\"]", "[0,4]"), "shape must be"},
    {ONE("\"U8\"", "[true]", "[0,1]"), "shape must be"},
    {ONE("\"U8\"", "4", "[0,4]"), "shape must be"},
    {ONE("\"U8\"", "{\"0\":4}", "[0,4]"), "shape must be"},
    {ONE("\"U8\"", "[1,1,1,1,1,1,1,1,4]", "[0,4]"), "shape must be at most 8"},
    {ONE("\"U8\"", "[4294967296,4294967296]", "[0,0]"), "shape must be"},
    {ONE("\"U8\"", "[9223372036854775807,3]", "[0,4]"), "shape must be"},
    {ONE("\"F32\"", "[4611686018427387905]", "[0,4]"), "do not fit its shape"},
    {ONE("\"U8\"", "[9223372036854775808]", "[0,4]"), "x: shape must be"},
    {ONE("\"U8\"", "[4]", "[-1,3]"), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[4,0]"), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[0,-4]"), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[0]"), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[0,4,8]"), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[0,4.0]"), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[0,\"4\"]"), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "\"0,4\""), "data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[0,18446744073709551620]"), "x: data_offsets must be"},
    {ONE("\"U8\"", "[4]", "[9223372036854775804,9223372036854775807]"), "do not fit its shape"},
    {ONE("\"U8\"", "[3]", "[9223372036854775804,9223372036854775807]"), "begins at"},
    {TWO(U8("[9223372036854775807]", "[0,9223372036854775807]"),
         U8("[9223372036854775807]", "[0,9223372036854775807]")),
     "must not overlap"},
    {"{\"x\":" U8("[4]", "[0,4]") ",\"x\":" U8("[4]", "[4,8]") "}", "begins at"},
    {"{\"x\":{\"dtype\":\"U8\",\"dtype\":NaN,\"shape\":[4],\"data_offsets\":[0,4]}}",
     "x: unknown dtype"},
    {"[]", "must be a JSON object"},
    {"7", "must be a JSON object"},
    {"", "not valid JSON"},
    {" ", "not valid JSON"},
    {"{", "not valid JSON"},
    {"{\"x\":" U8("[4]", "[0,4]"), "not valid JSON"},
    {"{} {}", "not valid JSON"},
    {"{\"\xFF\":1}", "not valid JSON"},
};

static void bad_headers_are_refused_with_a_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad_headers); i++) {
        struct bnt_st_header h;
        struct bnt_error err = {.message = ""};
        if (parse(bad_headers[i].text, &h, &err) != BNT_ERR_FORMAT)
            fail_msg("accepted: %s", bad_headers[i].text);
        if (!strstr(err.message, bad_headers[i].message) || strncmp(err.message, "file", 4) != 0)
            fail_msg("%s: '%s' says nothing of '%s'", bad_headers[i].text, err.message,
                     bad_headers[i].message);
        bnt_st_free(&h);
    }
}

// Nesting must end in a message, not in an exhausted stack.
static void deep_nesting_is_refused(void **state)
{
    enum { DEPTH = 200000 };
    char *text = test_alloc(2 * DEPTH + 8);
    struct bnt_st_header h;
    struct bnt_error err;
    (void)state;
    memcpy(text, "{\"x\":", 5);
    memset(text + 5, '[', DEPTH);
    memset(text + 5 + DEPTH, ']', DEPTH);
    text[5 + 2 * DEPTH] = '}';
    assert_int_equal(parse(text, &h, &err), BNT_ERR_FORMAT);
    bnt_st_free(&h);
    free(text);
}

// --- whole files ---

// A file with this header length field, header and so many bytes of data.
static enum bnt_status open_file(uint64_t length, const char *header, size_t data_size,
                                 struct bnt_error *err)
{
    size_t size = strlen(header) + 8 + data_size;
    struct test_guarded file = test_guard(size);
    struct bnt_st_header h;
    const uint8_t *data = NULL;
    memcpy(file.data, &length, 8);
    memcpy(file.data + 8, header, strlen(header));
    enum bnt_status status = bnt_st_open(&h, file.data, size, "file", &data, err);
    if (status == BNT_OK)
        assert_ptr_equal(data, file.data + 8 + strlen(header));
    bnt_st_free(&h);
    test_unguard(&file);
    return status;
}

static void the_file_must_be_as_long_as_it_says(void **state)
{
    static const char header[] = ONE("\"U8\"", "[4]", "[0,4]");
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 100000001, 1000};
    struct bnt_error err;
    (void)state;
    assert_int_equal(open_file(strlen(header), header, 4, &err), BNT_OK);
    assert_int_equal(open_file(strlen(header), header, 3, &err), BNT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "truncated or damaged"));
    assert_int_equal(open_file(strlen(header), header, 5, &err), BNT_ERR_FORMAT);
    assert_int_equal(open_file(strlen(header) - 1, header, 4, &err), BNT_ERR_FORMAT);
    assert_int_equal(open_file(strlen(header) + 1, header, 4, &err), BNT_ERR_FORMAT);
    assert_int_equal(open_file(0, "", 0, &err), BNT_ERR_FORMAT);
    for (size_t i = 0; i < TEST_COUNT(lengths); i++) {
        assert_int_equal(open_file(lengths[i], header, 4, &err), BNT_ERR_FORMAT);
        assert_non_null(strstr(err.message, "no header of the length it says"));
    }
}

static void every_truncation_is_refused(void **state)
{
    static const char header[] = TWO(U8("[4]", "[0,4]"), U8("[2,2]", "[4,8]"));
    uint64_t length = strlen(header);
    size_t size = 8 + strlen(header) + 8;
    struct bnt_error err;
    (void)state;
    for (size_t cut = 0; cut < size; cut++) {
        struct test_guarded file = test_guard(cut);
        struct bnt_st_header h;
        const uint8_t *data;
        uint8_t whole[8 + sizeof header + 8] = {0};
        memcpy(whole, &length, 8);
        memcpy(whole + 8, header, strlen(header));
        memcpy(file.data, whole, cut);
        assert_int_equal(bnt_st_open(&h, file.data, cut, "file", &data, &err), BNT_ERR_FORMAT);
        bnt_st_free(&h);
        test_unguard(&file);
    }
}

// --- the builder ---

static void check_built(const struct bnt_st_header *h)
{
    static const struct {
        const char *name;
        enum bnt_st_dtype dtype;
        uint64_t begin, size;
    } expected[] = {{"second", BNT_ST_I8, 0, 12},
                    {"first", BNT_ST_F32, 12, 20},
                    {"none", BNT_ST_U8, 32, 0},
                    {"\xC3\xA9 \"quoted\" \n", BNT_ST_BF16, 32, 2}};
    assert_int_equal(h->count, TEST_COUNT(expected));
    for (size_t i = 0; i < h->count; i++) {
        assert_string_equal(h->tensors[i].name, expected[i].name);
        assert_int_equal(h->tensors[i].dtype, expected[i].dtype);
        assert_int_equal(h->tensors[i].begin, expected[i].begin);
        assert_int_equal(h->tensors[i].size, expected[i].size);
    }
    assert_int_equal(h->tensors[0].shape[0], 3);
    assert_int_equal(h->tensors[0].shape[1], 4);
}

static void build(struct bnt_st_builder *b, struct bnt_error *err)
{
    static const uint64_t shape[] = {3, 4}, five = 5, zero = 0, one = 1;
    assert_int_equal(bnt_st_builder_init(b, err), BNT_OK);
    assert_int_equal(bnt_st_builder_metadata(b, "key", "value \"quoted\"", 14, err), BNT_OK);
    assert_int_equal(bnt_st_builder_metadata(b, "bad", "\xFF", 1, err), BNT_ERR_FORMAT);
    assert_int_equal(bnt_st_builder_add(b, "second", BNT_ST_I8, 2, shape, err), BNT_OK);
    assert_int_equal(bnt_st_builder_add(b, "first", BNT_ST_F32, 1, &five, err), BNT_OK);
    assert_int_equal(bnt_st_builder_add(b, "none", BNT_ST_U8, 1, &zero, err), BNT_OK);
    assert_int_equal(bnt_st_builder_add(b, "\xC3\xA9 \"quoted\" \n", BNT_ST_BF16, 1, &one, err),
                     BNT_OK);
}

static void what_is_built_parses_again(void **state)
{
    struct bnt_st_builder b;
    struct bnt_st_header h;
    struct bnt_error err;
    char *bytes;
    size_t size, text_size;
    const uint8_t *data;
    (void)state;
    build(&b, &err);
    assert_int_equal(b.end, 34);
    assert_int_equal(bnt_st_builder_finish(&b, &bytes, &size, &err), BNT_OK);
    assert_int_equal(size % 64, 0);
    uint8_t *file = test_alloc(size + 34);
    memcpy(file, bytes, size);
    assert_int_equal(bnt_st_open(&h, file, size + 34, "built", &data, &err), BNT_OK);
    assert_ptr_equal(data, file + size);
    check_built(&h);
    assert_memory_equal(bnt_st_metadata(&h, "key", &text_size), "value \"quoted\"", 15);
    assert_int_equal(text_size, 14);
    bnt_st_free(&h);
    bnt_st_builder_free(&b);
    free(bytes);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_is_read),
        cmocka_unit_test(every_type_of_the_format_is_measured),
        cmocka_unit_test(a_header_without_tensors),
        cmocka_unit_test(bad_headers_are_refused_with_a_reason),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(the_file_must_be_as_long_as_it_says),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(what_is_built_parses_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
