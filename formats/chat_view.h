// SPDX-License-Identifier: MIT
// Reading a CHAT or CONV section (bnt.md sections 8.1 and 8.2). The view points into the bytes; it
// owns nothing.
#ifndef BNT_FORMATS_CHAT_VIEW_H
#define BNT_FORMATS_CHAT_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/layout.h"
#include "formats/view.h"

struct bnt_chat_view {
    struct bnt_chat_record record;
    uint32_t flags;      // BNT_CONV_…, whichever section it is
    const uint8_t *pool; // (pool_size)
};

// Opens the file's CHAT or CONV, if it has one, and checks R29 or R30. Returns whether there is one
// that holds.
bool bnt_chat_view_find(struct bnt_chat_view *view, const struct bnt_view *file,
                        struct bnt_report *report);

// Whether a text stands somewhere in what the template writes.
bool bnt_chat_writes(const struct bnt_chat_view *view, const uint8_t *text, size_t size);

#endif
