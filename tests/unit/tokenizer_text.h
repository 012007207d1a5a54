// SPDX-License-Identifier: MIT
// tokenizer.json made in a test, and the small model that has it.
#ifndef BNT_TESTS_UNIT_TOKENIZER_TEXT_H
#define BNT_TESTS_UNIT_TOKENIZER_TEXT_H

#include <jansson.h>

#include "formats/utf8.h"
#include "pack/tokenizer_json.h"
#include "runtime/bnt.h"
#include "tests/unit/tiny_model.h"

// Bytes in the byte-level alphabet of GPT-2: printable Latin-1 stays, the others follow from
// U+0100.
static inline char *text_alphabet(const void *bytes, size_t size)
{
    char *out = test_alloc(2 * size + 4); // bnt_utf8_put may write four
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned byte = ((const uint8_t *)bytes)[i], others = 0;
        for (unsigned b = 0; b < byte; b++)
            others += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
        bool stays = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        n += (size_t)bnt_utf8_put(stays ? byte : 256 + others, (uint8_t *)out + n);
    }
    return out;
}

static inline json_t *text_json(const char *text)
{
    json_error_t problem;
    json_t *json = json_loads(text, JSON_DECODE_ANY, &problem);
    if (!json)
        fail_msg("%s: %s", problem.text, text);
    return json;
}

// A byte-level BPE with a token for each byte, whose id is the byte, and no merges.
static inline json_t *text_tokenizer(void)
{
    json_t *json = text_json("{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,"
                             "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                             "\"trim_offsets\":true,\"use_regex\":false},\"post_processor\":null,"
                             "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                             "\"trim_offsets\":true,\"use_regex\":false},"
                             "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}");
    json_t *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    for (int byte = 0; byte < 256; byte++) {
        const uint8_t bytes[1] = {(uint8_t)byte};
        char *text = text_alphabet(bytes, 1);
        assert_int_equal(json_object_set_new(vocab, text, json_integer(byte)), 0);
        free(text);
    }
    return json;
}

// Sets a member of the tokenizer, or of its model, to JSON text.
static inline void text_set(json_t *json, const char *key, const char *value)
{
    assert_int_equal(json_object_set_new(json, key, text_json(value)), 0);
}

static inline void text_set_model(json_t *json, const char *key, const char *value)
{
    text_set(json_object_get(json, "model"), key, value);
}

// One more than the highest id.
static inline uint32_t text_next_id(const json_t *json)
{
    const json_t *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    return (uint32_t)(json_object_size(vocab) +
                      json_array_size(json_object_get(json, "added_tokens")));
}

// The id of the token with these bytes, which is added if there is none.
static inline uint32_t text_token(json_t *json, const void *bytes, size_t size)
{
    json_t *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    char *text = text_alphabet(bytes, size);
    const json_t *old = json_object_get(vocab, text);
    uint32_t id = old ? (uint32_t)json_integer_value(old) : text_next_id(json);
    if (!old)
        assert_int_equal(json_object_set_new(vocab, text, json_integer(id)), 0);
    free(text);
    return id;
}

// Adds a merge and its result, in the array's spelling or in the older "left right".
static inline uint32_t text_merge(json_t *json, const char *left, const char *right, bool array)
{
    char joined[256];
    char *l = text_alphabet(left, strlen(left)), *r = text_alphabet(right, strlen(right));
    json_t *merges = json_object_get(json_object_get(json, "model"), "merges");
    json_t *merge = array ? json_pack("[s, s]", l, r) : json_sprintf("%s %s", l, r);
    assert_int_equal(json_array_append_new(merges, merge), 0);
    free(l);
    free(r);
    (void)snprintf(joined, sizeof joined, "%s%s", left, right);
    return text_token(json, joined, strlen(joined));
}

// flags: further members, e.g. "lstrip" and "special", blank-separated.
static inline uint32_t text_added(json_t *json, const char *content, const char *flags)
{
    static const char *const names[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    uint32_t id = text_next_id(json);
    json_t *entry = json_pack("{s:I, s:s}", "id", (json_int_t)id, "content", content);
    for (size_t i = 0; i < TEST_COUNT(names); i++)
        (void)json_object_set_new(entry, names[i], json_boolean(strstr(flags, names[i]) != NULL));
    assert_int_equal(json_array_append_new(json_object_get(json, "added_tokens"), entry), 0);
    return id;
}

static inline enum bnt_status text_build_from(const char *text, uint32_t vocab_size,
                                              struct bnt_buffer *out, struct bnt_error *err)
{
    *err = (struct bnt_error){.message = ""};
    return bnt_tokenizer_build(text, strlen(text), NULL, 0, vocab_size, out, err);
}

static inline enum bnt_status text_build(const json_t *json, struct bnt_buffer *out,
                                         struct bnt_error *err)
{
    char *text = json_dumps(json, JSON_COMPACT);
    assert_non_null(text);
    enum bnt_status status = text_build_from(text, text_next_id(json), out, err);
    free(text);
    return status;
}

// The smallest model with this tokenizer.
static inline struct bnt_model *text_open(const json_t *json)
{
    static const char *const names[] = {"text.bnt", NULL};
    struct bnt_error err;
    struct bnt_buffer section = {0};
    struct bnt_model *model = NULL;
    struct bnt_hyper hyper = tiny_hyper(text_next_id(json));
    char *dir = test_make_dir(), *path = test_join(dir, names[0]);
    enum bnt_status status = text_build(json, &section, &err);
    if (status == BNT_OK) {
        tiny_write(path, &hyper, section.data, section.size, 1);
        status = bnt_model_open(path, NULL, &model, &err);
    }
    bnt_buffer_free(&section);
    free(path);
    test_remove_dir(dir, names);
    if (status != BNT_OK)
        fail_msg("%s", err.message);
    return model;
}

// The ids of a text, which the caller frees.
static inline uint32_t *text_encode(const struct bnt_model *model, const char *text, size_t size,
                                    bool special, size_t *count)
{
    struct bnt_error err;
    uint32_t *ids;
    if (bnt_tokenize(model, text, size, special, &ids, count, &err) != BNT_OK)
        fail_msg("%s", err.message);
    return ids;
}

#endif
