// SPDX-License-Identifier: MIT
// From a chat template (Jinja) to the CHAT or CONV section (bnt.md sections 8.1 and 8.2). Templates
// are programs: they are run (pack/jinja.h) over conversations with marks in place of what is said,
// and accepted only if fixed texts around what is said give the same in all of them.
#ifndef BNT_PACK_CHAT_TEMPLATE_H
#define BNT_PACK_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/tokenizer_view.h"
#include "pack/buffer.h"

enum { BNT_CHAT_WHY = 200 };

struct bnt_chat_source {
    const char *text; // of the template
    size_t size;
    const char *bos, *eos; // the texts of these tokens, NULL if there are none
    const struct bnt_tokenizer_view *tokenizer;
};

struct bnt_chat_built {
    uint32_t section; // BNT_SECTION_CHAT, or BNT_SECTION_CONV where CHAT cannot say it
    struct bnt_buffer bytes;
    char why[BNT_CHAT_WHY];           // the template was refused: the reason
    char why_no_system[BNT_CHAT_WHY]; // a system text cannot be given: the reason; "": it can
};

// Returns whether the template was accepted; the caller frees bytes in either case.
bool bnt_chat_build(const struct bnt_chat_source *source, struct bnt_chat_built *built);

#endif
