// SPDX-License-Identifier: MIT
// A JSON text. What the strict parser takes is what jansson takes, with the same value; what it
// takes the lenient one takes too, and reads alike.
#define _GNU_SOURCE // fuzz.h
#include "formats/json.h"
#include "fuzz.h"

// jansson takes deeper nesting than we do, and texts that are no objects.
static bool is_deep(const json_t *value, int depth)
{
    size_t i;
    const char *key;
    json_t *inner;
    if (!json_is_array(value) && !json_is_object(value))
        return false;
    if (depth == 0)
        return true;
    json_array_foreach((json_t *)value, i, inner)
    {
        if (is_deep(inner, depth - 1))
            return true;
    }
    json_object_foreach((json_t *)value, key, inner)
    {
        if (is_deep(inner, depth - 1))
            return true;
    }
    return false;
}

// All of the strings are read, which finds one that is not whole.
static size_t bytes_of(const json_t *value)
{
    size_t i, sum = strlen(json_is_string(value) ? json_string_value(value) : "");
    const char *key;
    json_t *inner;
    FUZZ_ASSERT(!json_is_string(value) || sum == json_string_length(value));
    json_array_foreach((json_t *)value, i, inner) sum += bytes_of(inner);
    json_object_foreach((json_t *)value, key, inner) sum += strlen(key) + bytes_of(inner);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = (char *)fuzz_copy(data, size, sizeof(void *));
    struct bnt_error err = {.status = BNT_OK};
    json_t *lenient, *strict;
    enum bnt_status status = bnt_json_parse(text, size, "x.json", &lenient, &err);
    FUZZ_ASSERT((status == BNT_OK) == (lenient != NULL));
    FUZZ_ASSERT(lenient || (err.status == status && strncmp(err.message, "x.json: ", 8) == 0));
    FUZZ_ASSERT(bytes_of(lenient) <= size);
    status = bnt_json_parse_strict(text, size, "x.json", &strict, &err);
    FUZZ_ASSERT((status == BNT_OK) == (strict != NULL));
    // It stops at a zero byte that stands outside of strings.
    json_t *other =
        memchr(text, 0, size) ? NULL : json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    bool known = json_is_object(other) && !is_deep(other, 100);
    FUZZ_ASSERT(known == (strict != NULL));
    if (strict)
        FUZZ_ASSERT(json_equal(strict, other) && json_equal(strict, lenient));
    json_decref(other);
    json_decref(strict);
    json_decref(lenient);
    free(text);
    return 0;
}
