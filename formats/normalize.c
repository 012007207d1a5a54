// SPDX-License-Identifier: MIT
#include "formats/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// a followed by b, or NULL.
static uint8_t *concatenate(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    uint8_t *out = a_size + b_size < UINT32_MAX ? malloc(a_size + b_size + 1) : NULL;
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

static uint8_t *replace_all(const struct bnt_step_record *step, const uint8_t *what,
                            const uint8_t *text, size_t size, size_t *out_size)
{
    const uint8_t *by = what + step->size;
    uint64_t n = replace(text, size, what, step->size, by, step->extra, NULL);
    uint8_t *out = n < UINT32_MAX ? malloc((size_t)n + 1) : NULL;
    if (!out)
        return NULL;
    (void)replace(text, size, what, step->size, by, step->extra, out);
    out[n] = '\0';
    *out_size = (size_t)n;
    return out;
}

static uint8_t *compose(const uint8_t *text, size_t size, size_t *out_size)
{
    utf8proc_uint8_t *out = NULL;
    const utf8proc_option_t options = (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    utf8proc_ssize_t n = utf8proc_map(text, (utf8proc_ssize_t)size, &out, options);
    if (n < 0)
        return NULL;
    *out_size = (size_t)n;
    return out;
}

bool bnt_normalize(const struct bnt_step_record *step, const uint8_t *pool, bool at_start,
                   const uint8_t *text, size_t size, uint8_t **out, size_t *out_size)
{
    const uint8_t *own = pool + step->offset;
    bool before = step->type == BNT_STEP_PREPEND && size > 0;
    if (step->type == BNT_STEP_PREFIX)
        before = size > 0 && (step->behavior == 0 || at_start) &&
                 !begins_with(text, size, own, step->size);
    if (step->type == BNT_STEP_REPLACE) {
        *out = replace_all(step, own, text, size, out_size);
    } else if (step->type == BNT_STEP_NFC) {
        *out = compose(text, size, out_size);
    } else {
        *out_size = size + (before ? step->size : 0);
        *out = concatenate(own, before ? step->size : 0, text, size);
    }
    return *out != NULL;
}
