// SPDX-License-Identifier: MIT
#include "pack/buffer.h"

#include <stdlib.h>
#include <string.h>

static bool grow(struct bnt_buffer *b, size_t size)
{
    if (b->failed || size > BNT_BUFFER_CAP - b->size)
        return false;
    if (b->size + size <= b->capacity)
        return true;
    size_t capacity = b->capacity ? b->capacity : 4096;
    while (capacity < b->size + size)
        capacity *= 2;
    uint8_t *data = realloc(b->data, capacity);
    if (!data)
        return false;
    b->data = data;
    b->capacity = capacity;
    return true;
}

void bnt_buffer_put(struct bnt_buffer *b, const void *data, size_t size)
{
    if (!grow(b, size)) {
        b->failed = true;
        return;
    }
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

void bnt_buffer_free(struct bnt_buffer *b)
{
    free(b->data);
    *b = (struct bnt_buffer){0};
}
