// SPDX-License-Identifier: MIT
// The only way to read untrusted bytes: a position that cannot leave its range.
#ifndef BNT_FORMATS_CURSOR_H
#define BNT_FORMATS_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/bytes.h"

struct bnt_cursor {
    const uint8_t *data;
    uint64_t size;
    uint64_t pos; // always <= size
};

static inline struct bnt_cursor bnt_cursor(const void *data, uint64_t size)
{
    return (struct bnt_cursor){.data = data, .size = size, .pos = 0};
}

// Points *out at count elements of element_size bytes and steps over them. false: they are not all
// there; nothing moves.
static inline bool bnt_cursor_take(struct bnt_cursor *c, uint64_t count, uint64_t element_size,
                                   const uint8_t **out)
{
    uint64_t bytes;
    if (!bnt_mul_u64(count, element_size, &bytes) || bytes > c->size - c->pos)
        return false;
    *out = c->data + c->pos;
    c->pos += bytes;
    return true;
}

static inline bool bnt_cursor_copy(struct bnt_cursor *c, void *record, size_t size)
{
    const uint8_t *from;
    if (!bnt_cursor_take(c, 1, size, &from))
        return false;
    memcpy(record, from, size);
    return true;
}

static inline uint64_t bnt_cursor_left(const struct bnt_cursor *c)
{
    return c->size - c->pos;
}

#endif
