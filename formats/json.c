// SPDX-License-Identifier: MIT
#include "formats/json.h"

#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"

enum { MAX_DEPTH = 100 };

// Whether arrays and objects are nested at most so deep. The recursion ends there.
static bool is_shallow(json_t *value, int depth)
{
    size_t i;
    const char *key;
    json_t *inner;
    if (depth == 0 && (json_is_array(value) || json_is_object(value)))
        return false;
    json_array_foreach(value, i, inner)
    {
        if (!is_shallow(inner, depth - 1))
            return false;
    }
    json_object_foreach(value, key, inner)
    {
        if (!is_shallow(inner, depth - 1))
            return false;
    }
    return true;
}

enum bnt_status bnt_json_parse(const char *text, size_t size, const char *name, json_t **out,
                               struct bnt_error *err)
{
    json_error_t problem;
    *out = NULL;
    if (memchr(text, 0, size)) // jansson would take some of them for the end
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: not valid JSON: it holds a zero byte", name);
    // Texts end up as C strings, so one with U+0000 in it is refused too (jansson does unless
    // asked).
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (!*out)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: not valid JSON: line %d, column %d: %s", name,
                        problem.line, problem.column, problem.text);
    bool object = json_is_object(*out);
    if (object && is_shallow(*out, MAX_DEPTH))
        return BNT_OK;
    json_decref(*out);
    *out = NULL;
    return bnt_fail(err, BNT_ERR_FORMAT,
                    object ? "%s: JSON nested more than 100 deep" : "%s: must be a JSON object",
                    name);
}

json_t *bnt_json_get(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

const char *bnt_json_text(const json_t *object, const char *key, const char *fallback)
{
    const json_t *value = bnt_json_get(object, key);
    return json_is_string(value) ? json_string_value(value) : fallback;
}

bool bnt_json_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

json_t *bnt_json_string(const char *text)
{
    size_t size = strlen(text);
    char *copy = strdup(text);
    for (size_t at = 0; copy && at < size;) {
        int n = bnt_utf8_next((const uint8_t *)copy + at, size - at, NULL);
        if (n <= 0)
            copy[at] = '?';
        at += n > 0 ? (size_t)n : 1;
    }
    json_t *string = copy ? json_string(copy) : NULL;
    free(copy);
    return string;
}
