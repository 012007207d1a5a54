// SPDX-License-Identifier: MIT
#include "formats/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// a followed by b, or NULL.
static uint8_t *concatenate(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    uint8_t *out = malloc(a_size + b_size + 1);
    if (!out)
        return NULL;
    memcpy(out, a, a_size);
    memcpy(out + a_size, b, b_size);
    out[a_size + b_size] = '\0';
    return out;
}

static bool begins_with(const uint8_t *text, size_t size, const uint8_t *start, size_t start_size)
{
    return size >= start_size && memcmp(text, start, start_size) == 0;
}

// Occurrences are found from left to right and do not overlap. With out = NULL it only measures.
static uint64_t replace(const uint8_t *text, size_t size, const uint8_t *what, size_t what_size,
                        const uint8_t *by, size_t by_size, uint8_t *out)
{
    uint64_t n = 0;
    for (size_t at = 0; at < size;) {
        bool found = begins_with(text + at, size - at, what, what_size);
        const uint8_t *from = found ? by : text + at;
        size_t count = found ? by_size : 1;
        if (out)
            memcpy(out + n, from, count);
        n += count;
        at += found ? what_size : 1;
    }
    return n;
}

static enum bnt_normalize_result replace_all(const struct bnt_step_record *step,
                                             const uint8_t *what, const uint8_t *text, size_t size,
                                             uint64_t limit, uint8_t **out, size_t *out_size)
{
    const uint8_t *by = what + step->size;
    uint64_t n = replace(text, size, what, step->size, by, step->extra, NULL);
    if (n > limit)
        return BNT_NORMALIZE_TOO_LARGE;
    *out = malloc((size_t)n + 1);
    if (!*out)
        return BNT_NORMALIZE_NO_MEMORY;
    (void)replace(text, size, what, step->size, by, step->extra, *out);
    (*out)[n] = '\0';
    *out_size = (size_t)n;
    return BNT_NORMALIZED;
}

// Composition at most triples a text.
static enum bnt_normalize_result compose(const uint8_t *text, size_t size, uint64_t limit,
                                         uint8_t **out, size_t *out_size)
{
    const utf8proc_option_t options = (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    utf8proc_ssize_t n = utf8proc_map(text, (utf8proc_ssize_t)size, out, options);
    if (n < 0)
        return BNT_NORMALIZE_NO_MEMORY;
    *out_size = (size_t)n;
    if (*out_size <= limit)
        return BNT_NORMALIZED;
    free(*out);
    return BNT_NORMALIZE_TOO_LARGE;
}

enum bnt_normalize_result bnt_normalize(const struct bnt_step_record *step, const uint8_t *pool,
                                        bool at_start, const uint8_t *text, size_t size,
                                        uint64_t limit, uint8_t **out, size_t *out_size)
{
    const uint8_t *own = pool + step->offset;
    if (step->type == BNT_STEP_REPLACE)
        return replace_all(step, own, text, size, limit, out, out_size);
    if (step->type == BNT_STEP_NFC)
        return compose(text, size, limit, out, out_size);
    bool before = size > 0;
    if (step->type == BNT_STEP_PREFIX)
        before = before && (step->behavior == 0 || at_start) &&
                 !begins_with(text, size, own, step->size);
    *out_size = size + (before ? step->size : 0);
    if (*out_size > limit)
        return BNT_NORMALIZE_TOO_LARGE;
    *out = concatenate(own, before ? step->size : 0, text, size);
    return *out ? BNT_NORMALIZED : BNT_NORMALIZE_NO_MEMORY;
}
