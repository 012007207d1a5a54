// SPDX-License-Identifier: MIT
// Patterns of tokenizer.json are written for Oniguruma (Ruby syntax); the runtime has PCRE2.
#ifndef BNT_PACK_PATTERN_H
#define BNT_PACK_PATTERN_H

#include <stddef.h>

#include "formats/status.h"
#include "pack/buffer.h"

// Appends the PCRE2 pattern that means the same. Refuses what has no equivalent. Not
// zero-terminated.
enum bnt_status bnt_pattern_translate(const char *pattern, size_t size, struct bnt_buffer *out,
                                      struct bnt_error *err);

// Appends a pattern that matches just this text.
void bnt_pattern_quote(const char *text, size_t size, struct bnt_buffer *out);

// Whether PCRE2 compiles it, with the options that the runtime uses.
enum bnt_status bnt_pattern_check(const uint8_t *pattern, size_t size, struct bnt_error *err);

#endif
