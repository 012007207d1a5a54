// SPDX-License-Identifier: MIT
// JSON from untrusted files, through jansson: duplicate keys refused, errors as one line with their
// place.
#ifndef BNT_FORMATS_JSON_H
#define BNT_FORMATS_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "formats/status.h"

// Parses an object, nested at most 100 deep. name: for messages. *out is a new reference.
enum bnt_status bnt_json_parse(const char *text, size_t size, const char *name, json_t **out,
                               struct bnt_error *err);

// Members of an object; NULL or a JSON null count as missing.
json_t *bnt_json_get(const json_t *object, const char *key);
// The text of a member, or fallback when it is missing or no string.
const char *bnt_json_text(const json_t *object, const char *key, const char *fallback);
// A text as a JSON string whatever its bytes are: what is no UTF-8 becomes '?'. A new reference, or
// NULL.
json_t *bnt_json_string(const char *text);
// true only for a member that is true.
bool bnt_json_true(const json_t *object, const char *key);

#endif
