// SPDX-License-Identifier: MIT
// Reading a CHAT section (bnt.md section 8.1). The view points into the bytes; it owns nothing.
#ifndef BNT_FORMATS_CHAT_VIEW_H
#define BNT_FORMATS_CHAT_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/layout.h"
#include "formats/view.h"

struct bnt_chat_view {
    struct bnt_chat_record record;
    const uint8_t *pool; // (pool_size)
};

// Checks R29. Returns whether it holds.
bool bnt_chat_view_open(struct bnt_chat_view *view, const uint8_t *data, uint64_t size,
                        uint32_t vocab_size, struct bnt_report *report);

#endif
