// SPDX-License-Identifier: MIT
// A growing array of bytes with a hard cap, for sections that are built in memory.
#ifndef BNT_PACK_BUFFER_H
#define BNT_PACK_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BNT_BUFFER_CAP = 1 << 30 };

struct bnt_buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed; // out of memory or over the cap; later calls do nothing, so that it can be asked
                 // once at the end
};

void bnt_buffer_put(struct bnt_buffer *buffer, const void *data, size_t size);
void bnt_buffer_free(struct bnt_buffer *buffer);

#endif
