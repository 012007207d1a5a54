// SPDX-License-Identifier: MIT
// Files from the Hub are written by Python: what its json reads and nobody needs must not stop a
// conversion, what is needed must not be read as something else, and our own files must be JSON for
// every library. fuzz_json compares the strict parser with jansson.
#include "formats/json.h"

#include <float.h>

#include "tests/unit/support.h"

static json_t *parse(const char *text)
{
    struct bnt_error err;
    json_t *json;
    if (bnt_json_parse(text, strlen(text), "file", &json, &err) != BNT_OK)
        fail_msg("%s: %s", text, err.message);
    return json;
}

static void numbers_that_jansson_cannot_hold(void **state)
{
    json_t *json =
        parse("{\"big\":1000000000000000019884624838656,\"most\":9223372036854775807,"
              "\"least\":-9223372036854775808,\"more\":9223372036854775808,\"huge\":1e400,"
              "\"minus\":-1e400,\"nan\":NaN,\"inf\":Infinity,\"down\":-Infinity,\"tiny\":1e-400}");
    (void)state;
    assert_true(json_is_real(json_object_get(json, "big")));
    assert_true(json_real_value(json_object_get(json, "big")) == 1e30);
    assert_int_equal(json_integer_value(json_object_get(json, "most")), INT64_MAX);
    assert_int_equal(json_integer_value(json_object_get(json, "least")), INT64_MIN);
    assert_true(json_real_value(json_object_get(json, "more")) == 0x1p63);
    assert_true(json_real_value(json_object_get(json, "huge")) == DBL_MAX);
    assert_true(json_real_value(json_object_get(json, "minus")) == -DBL_MAX);
    assert_true(json_real_value(json_object_get(json, "nan")) == DBL_MAX);
    assert_true(json_real_value(json_object_get(json, "inf")) == DBL_MAX);
    assert_true(json_real_value(json_object_get(json, "down")) == -DBL_MAX);
    assert_true(json_real_value(json_object_get(json, "tiny")) == 0);
    json_decref(json);
}

static void the_last_of_two_counts(void **state)
{
    json_t *json = parse("{\"a\":1,\"b\":2,\"a\":{\"c\":3,\"c\":4}}");
    (void)state;
    assert_int_equal(json_object_size(json), 2);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(json, "a"), "c")), 4);
    json_decref(json);
}

static void strings_that_are_no_text(void **state)
{
    static const struct {
        const char *json, *text; // NULL: no text
    } all[] = {
        {"\\u0000", NULL},
        {"a\\u0000b", NULL},
        {"\\ud83d", NULL},
        {"\\ude00", NULL},
        {"\\ude00\\ud83d", NULL},
        {"\\ud83d\\u0041", NULL},
        {"\\ud83d\\ud83d\\ude00", NULL},
        {"\\ud83d\\ude00", "\xF0\x9F\x98\x80"},
        {"\\uD83D\\uDE00", "\xF0\x9F\x98\x80"},
        {"\\u00e9\\u20AC", "\xC3\xA9\xE2\x82\xAC"},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
        {"\\\\u0000", "\\u0000"},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        char text[128];
        (void)snprintf(text, sizeof text, "{\"%s\":\"%s\"}", all[i].json, all[i].json);
        json_t *json = parse(text);
        const char *key = json_object_iter_key(json_object_iter(json));
        const json_t *value = json_object_get(json, key);
        if (bnt_json_is_text(value) != (all[i].text != NULL))
            fail_msg("%s", text);
        if (all[i].text)
            assert_string_equal(json_string_value(value), all[i].text);
        assert_string_equal(key, json_string_value(value));
        assert_int_equal(strlen(key), json_string_length(value)); // no zero byte inside
        json_decref(json);
    }
}

static void what_python_refuses_too(void **state)
{
    static const struct {
        const char *text, *message;
    } all[] = {
        {"", "line 1, column 1"},
        {"{", "column 2"},
        {"{\"a\":1,}", "column 8: a name in quotes"},
        {"{\"a\" 1}", "':' must stand here"},
        {"{\n\"a\":[1\n 2]}", "line 3, column 2: ',' or ']'"},
        {"{\"a\":01}", "',' or '}'"},
        {"{\"a\":1.}", "',' or '}'"},
        {"{\"a\":.5}", "a value"},
        {"{\"a\":+1}", "a value"},
        {"{\"a\":-}", "a value"},
        {"{\"a\":-NaN}", "a value"},
        {"{\"a\":inf}", "a value"},
        {"{\"a\":nul}", "a value"},
        {"{\"a\":'b'}", "a value"},
        {"{a:1}", "a name in quotes"},
        {"{} {}", "goes on"},
        {"{\"a\":\"\\x\"}", "escape"},
        {"{\"a\":\"\\u12g4\"}", "four hexadecimal digits"},
        {"{\"a\":\"b\n\"}", "control character"},
        {"{\"a\":\"\xFF\"}", "not UTF-8"},
        {"{\"a\":\"\xED\xA0\x80\"}", "not UTF-8"},
        {"{\"a\":\"b", "ends inside a string"},
        {"{\"a\":\"b\\", "escape"},
        {"\xEF\xBB\xBF{}", "byte-order mark of UTF-8"},
        {"\xFF\xFE{}", "byte-order mark of UTF-16"},
        {"[]", "must be a JSON object"},
        {"null", "must be a JSON object"},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_error err;
        json_t *json;
        if (bnt_json_parse(all[i].text, strlen(all[i].text), "file", &json, &err) == BNT_OK)
            fail_msg("accepted: %s", all[i].text);
        assert_null(json);
        if (!strstr(err.message, all[i].message) || strncmp(err.message, "file: ", 6) != 0)
            fail_msg("%s: '%s' says nothing of '%s'", all[i].text, err.message, all[i].message);
    }
}

static void nesting_has_an_end(void **state)
{
    static const struct {
        size_t depth;
        bool lenient, strict;
    } all[] = {{100, true, true},
               {101, true, false},
               {500, true, false},
               {501, false, false},
               {100000, false, false}};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        size_t arrays = all[i].depth - 1, size = 2 * arrays + 6;
        char *text = test_alloc(size);
        struct bnt_error err;
        json_t *json;
        memcpy(text, "{\"a\":", 5);
        memset(text + 5, '[', arrays);
        memset(text + 5 + arrays, ']', arrays);
        text[size - 1] = '}';
        assert_int_equal(bnt_json_parse(text, size, "file", &json, &err),
                         all[i].lenient ? BNT_OK : BNT_ERR_FORMAT);
        json_decref(json);
        assert_int_equal(bnt_json_parse_strict(text, size, "file", &json, &err),
                         all[i].strict ? BNT_OK : BNT_ERR_FORMAT);
        json_decref(json);
        if (!all[i].strict)
            assert_non_null(strstr(err.message, "deep"));
        free(text);
    }
}

static void our_own_files_are_json_for_all(void **state)
{
    static const char *const all[] = {
        "{\"a\":1,\"a\":1}",   "{\"a\":NaN}",
        "{\"a\":Infinity}",    "{\"a\":1e400}",
        "{\"a\":\"\\ud800\"}", "{\"a\":\"\\u0000\"}",
        "{\"\\u0000\":1}",     "{\"a\":9223372036854775808}",
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_error err;
        json_t *json;
        assert_int_equal(bnt_json_parse_strict(all[i], strlen(all[i]), "PROV", &json, &err),
                         BNT_ERR_FORMAT);
        json = parse(all[i]);
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_that_jansson_cannot_hold),
        cmocka_unit_test(the_last_of_two_counts),
        cmocka_unit_test(strings_that_are_no_text),
        cmocka_unit_test(what_python_refuses_too),
        cmocka_unit_test(nesting_has_an_end),
        cmocka_unit_test(our_own_files_are_json_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
