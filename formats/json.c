// SPDX-License-Identifier: MIT
#include "formats/json.h"

enum bnt_status bnt_json_parse(const char *text, size_t size, const char *name, json_t **out,
                               struct bnt_error *err)
{
    json_error_t problem;
    // JSON_ALLOW_NUL: a tokenizer may hold U+0000 as a token; lengths are kept beside every string
    // that matters.
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (!*out)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: not valid JSON: line %d, column %d: %s", name,
                        problem.line, problem.column, problem.text);
    if (json_is_object(*out))
        return BNT_OK;
    json_decref(*out);
    *out = NULL;
    return bnt_fail(err, BNT_ERR_FORMAT, "%s: must be a JSON object", name);
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
