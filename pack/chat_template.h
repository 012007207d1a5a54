// SPDX-License-Identifier: MIT
// From a chat template (Jinja) to the CHAT section (bnt.md section 8.1). Templates are programs;
// the few that are known are recognised by their text.
#ifndef BNT_PACK_CHAT_TEMPLATE_H
#define BNT_PACK_CHAT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/tokenizer_view.h"
#include "pack/buffer.h"

// The names of the templates that are known, for messages.
#define BNT_CHAT_KNOWN "bitnet, llama3, chatml, falcon"

// Appends the section if the template is known; false if not. bos, eos: the texts of these tokens,
// "" if there are none. tokenizer: in which the ids of stop tokens are found.
bool bnt_chat_build(const char *template_text, size_t size, const char *bos, const char *eos,
                    const struct bnt_tokenizer_view *tokenizer, struct bnt_buffer *out);

#endif
