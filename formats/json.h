// SPDX-License-Identifier: MIT
// JSON from untrusted files as jansson's values, errors as one line with their place.
#ifndef BNT_FORMATS_JSON_H
#define BNT_FORMATS_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "formats/status.h"

// Parses an object, nested at most 500 deep. name: for messages. *out is a new reference.
// What Python's json takes is taken, since what nobody reads must not stop anybody:
//  - of members with the same name the last counts;
//  - an integer of more than 64 bits becomes a real, NaN and what is too large for a double
//    ±DBL_MAX, so that whoever reads such a field finds it out of its range;
//  - a string with U+0000 or half a surrogate pair becomes one that bnt_json_is_text refuses.
enum bnt_status bnt_json_parse(const char *text, size_t size, const char *name, json_t **out,
                               struct bnt_error *err);
// The same without these liberties, and 100 deep: JSON that every library reads alike.
enum bnt_status bnt_json_parse_strict(const char *text, size_t size, const char *name, json_t **out,
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

// Whether a value is a string of characters: without U+0000 and halves of surrogate pairs.
bool bnt_json_is_text(const json_t *value);
// Whether a value is, or holds anywhere, what the file does not say in these words: such a string
// or name, or a number beyond 64 bits. path: where, as "name.name", for messages.
enum { BNT_JSON_PATH = 200 };
bool bnt_json_find_strange(const json_t *value, char path[BNT_JSON_PATH]);
// What bnt_json_is_text refuses, for messages.
#define BNT_JSON_NO_TEXT "holds \\u0000 or half a surrogate pair (\\ud800 to \\udfff)"
// What bnt_json_find_strange finds.
#define BNT_JSON_STRANGE                                                                           \
    BNT_JSON_NO_TEXT ", or a number that is no 64-bit integer and no finite one"

#endif
