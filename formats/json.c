// SPDX-License-Identifier: MIT
#include "formats/json.h"

#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"

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

bool bnt_json_is_text(const json_t *value)
{
    size_t size = json_string_length(value);
    return json_is_string(value) &&
           bnt_utf8_valid((const uint8_t *)json_string_value(value), size) == size;
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
