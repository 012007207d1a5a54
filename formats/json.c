// SPDX-License-Identifier: MIT
#include "formats/json.h"

#include <math.h>
#include <stdio.h>
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

static bool is_valid(const char *text, size_t size)
{
    return bnt_utf8_valid((const uint8_t *)text, size) == size;
}

bool bnt_json_is_text(const json_t *value)
{
    return json_is_string(value) && is_valid(json_string_value(value), json_string_length(value));
}

static void put_before(char path[BNT_JSON_PATH], const char *key)
{
    char old[BNT_JSON_PATH];
    memcpy(old, path, sizeof old);
    (void)snprintf(path, BNT_JSON_PATH, "%.60s%s%.120s", key, old[0] ? "." : "", old);
}

bool bnt_json_find_strange(const json_t *value, char path[BNT_JSON_PATH])
{
    size_t i;
    const char *key;
    json_t *inner;
    path[0] = '\0';
    if (json_is_string(value))
        return !bnt_json_is_text(value);
    json_array_foreach((json_t *)value, i, inner)
    {
        if (bnt_json_find_strange(inner, path))
            return true;
    }
    json_object_foreach((json_t *)value, key, inner)
    {
        if (!is_valid(key, strlen(key)))
            return true;
        if (bnt_json_find_strange(inner, path)) {
            put_before(path, key);
            return true;
        }
    }
    return json_is_real(value) && fabs(json_real_value(value)) >= 0x1p63;
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
