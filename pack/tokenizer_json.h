// SPDX-License-Identifier: MIT
// From tokenizer.json to the TOKN section (bnt.md section 8).
#ifndef BNT_PACK_TOKENIZER_JSON_H
#define BNT_PACK_TOKENIZER_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"
#include "pack/buffer.h"

// json: tokenizer.json. chat: the chat template's source, or NULL. Appends the section to out.
// Kinds of tokenizer, and parts of one, that are not understood are refused by name.
enum bnt_status bnt_tokenizer_build(const char *json, size_t size, const char *chat,
                                    size_t chat_size, uint32_t vocab_size, struct bnt_buffer *out,
                                    struct bnt_error *err);

#endif
