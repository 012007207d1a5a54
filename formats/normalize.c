// SPDX-License-Identifier: MIT
#include "formats/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "formats/byte_level.h"
#include "formats/unicode.h"
#include "formats/utf8.h"

// The result as it grows.
struct output {
    uint8_t *data;
    size_t size;
    size_t capacity;
    uint64_t limit;
    enum bnt_normalize_result result; // once it is bad, later calls do nothing
};

static bool reserve(struct output *o, size_t capacity)
{
    uint8_t *grown = realloc(o->data, capacity);
    if (!grown) {
        o->result = BNT_NORMALIZE_NO_MEMORY;
        return false;
    }
    o->data = grown;
    o->capacity = capacity;
    return true;
}

static void put(struct output *o, const void *bytes, size_t n)
{
    if (o->result != BNT_NORMALIZED)
        return;
    if (o->size + n > o->limit) {
        o->result = BNT_NORMALIZE_TOO_LARGE;
        return;
    }
    if (o->size + n + 1 > o->capacity && !reserve(o, o->size + n + 1 + o->capacity / 2))
        return;
    if (n > 0)
        memcpy(o->data + o->size, bytes, n);
    o->size += n;
    o->data[o->size] = '\0';
}

static bool begins_with(const uint8_t *text, size_t size, const uint8_t *start, size_t start_size)
{
    return size >= start_size && memcmp(text, start, start_size) == 0;
}

// Where an occurrence begins, or size.
static size_t find(const uint8_t *text, size_t size, const uint8_t *what, size_t what_size)
{
    for (size_t at = 0; at < size; at++) {
        const uint8_t *first = memchr(text + at, what[0], size - at);
        at = first ? (size_t)(first - text) : size;
        if (first && begins_with(first, size - at, what, what_size))
            return at;
    }
    return size;
}

// Occurrences are found from left to right and do not overlap.
static void replace_all(struct output *o, const struct bnt_step_record *step, const uint8_t *what,
                        const uint8_t *text, size_t size)
{
    const uint8_t *by = what + step->size;
    size_t done = 0;
    while (done < size) {
        size_t at = done + find(text + done, size - done, what, step->size);
        put(o, text + done, at - done);
        if (at < size)
            put(o, by, step->extra);
        done = at < size ? at + step->size : size;
    }
}

// The step's pattern is in search; by: what its matches become.
static void replace_pattern(struct output *o, struct bnt_regex_search *search, const uint8_t *by,
                            size_t by_size)
{
    size_t done = 0, start, end;
    while (done < search->size && o->result == BNT_NORMALIZED) {
        int n = bnt_regex_next(search, done, &start, &end);
        if (n == PCRE2_ERROR_NOMATCH)
            break;
        if (n < 0 || start < done || end <= start) { // bnt-pack takes no pattern with empty matches
            o->result = BNT_NORMALIZE_PATTERN_FAILS;
            return;
        }
        put(o, search->text + done, start - done);
        put(o, by, by_size);
        done = end;
    }
    put(o, search->text + done, search->size - done);
}

static bool is_form(uint8_t type)
{
    return type == BNT_STEP_NFC || type == BNT_STEP_NFD || type == BNT_STEP_NFKC ||
           type == BNT_STEP_NFKD;
}

static void put_form(struct output *o, uint8_t type, const uint8_t *text, size_t size)
{
    const bool composed = type == BNT_STEP_NFC || type == BNT_STEP_NFKC;
    const bool compatible = type == BNT_STEP_NFKC || type == BNT_STEP_NFKD;
    const int options = UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                        (compatible ? UTF8PROC_COMPAT : 0);
    uint8_t *form;
    if (size == 0)
        return;
    utf8proc_ssize_t n =
        utf8proc_map(text, (utf8proc_ssize_t)size, &form, (utf8proc_option_t)options);
    if (n < 0) {
        o->result = BNT_NORMALIZE_NO_MEMORY;
        return;
    }
    put(o, form, (size_t)n);
    free(form);
}

// A normalization form of Unicode 9.0: characters that it lacks stay, and keep apart what lies
// around them, whatever the library at hand knows of them.
static void normalize(struct output *o, uint8_t type, const uint8_t *text, size_t size)
{
    struct bnt_unicode_run run = {0};
    size_t done = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code;
        size_t n = (size_t)bnt_utf8_next(text + at, size - at, &code);
        if (code >= 0x80 && (code < run.first || code >= run.end))
            run = bnt_unicode_find(code);
        if (code >= 0x80 && run.flags & BNT_UNICODE_NO_FORMS) {
            put_form(o, type, text + done, at - done);
            put(o, text + at, n);
            done = at + n;
        }
        at += n;
    }
    put_form(o, type, text + done, size - done);
}

static void lowercase(struct output *o, const uint8_t *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint32_t code;
        uint8_t lower[4];
        at += (size_t)bnt_utf8_next(text + at, size - at, &code);
        if (code == 0x130) // İ
            put(o, "i\xCC\x87", 3);
        else
            put(o, lower, (size_t)bnt_utf8_put(bnt_unicode_lowercase(code), lower));
    }
}

static void map_bytes(struct output *o, const uint8_t *text, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        uint8_t character[4];
        put(o, character, (size_t)bnt_utf8_put(bnt_byte_to_character(text[at]), character));
    }
}

static void put_prefix(struct output *o, const struct bnt_step_record *step, const uint8_t *own,
                       bool at_start, const uint8_t *text, size_t size)
{
    bool before = size > 0;
    if (step->type == BNT_STEP_PREFIX)
        before = before && (step->behavior == 0 || at_start) &&
                 !begins_with(text, size, own, step->size);
    put(o, own, before ? step->size : 0);
    put(o, text, size);
}

enum bnt_normalize_result bnt_normalize(const struct bnt_step_record *step, const uint8_t *pool,
                                        struct bnt_regex_search search, bool at_start,
                                        const uint8_t *text, size_t size, uint64_t limit,
                                        uint8_t **out, size_t *out_size)
{
    const uint8_t *own = pool + step->offset;
    struct output o = {.limit = limit};
    if (!reserve(&o, size + size / 8 + 16))
        return o.result;
    o.data[0] = '\0';
    search.text = text;
    search.size = size;
    if (step->type == BNT_STEP_REPLACE)
        replace_all(&o, step, own, text, size);
    else if (step->type == BNT_STEP_REPLACE_PATTERN)
        replace_pattern(&o, &search, own + step->size, step->extra);
    else if (step->type == BNT_STEP_LOWERCASE)
        lowercase(&o, text, size);
    else if (step->type == BNT_STEP_BYTE_LEVEL)
        map_bytes(&o, text, size);
    else if (is_form(step->type))
        normalize(&o, step->type, text, size);
    else
        put_prefix(&o, step, own, at_start, text, size);
    if (o.result != BNT_NORMALIZED) {
        free(o.data);
        return o.result;
    }
    *out = o.data;
    *out_size = o.size;
    return BNT_NORMALIZED;
}
