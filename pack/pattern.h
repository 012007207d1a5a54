// SPDX-License-Identifier: MIT
// Patterns of tokenizer.json are written for Oniguruma (Ruby syntax); the runtime has PCRE2.
#ifndef BNT_PACK_PATTERN_H
#define BNT_PACK_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/status.h"
#include "pack/buffer.h"

// Appends the PCRE2 pattern that means the same. Refuses what has no equivalent. Not
// zero-terminated. marked: where the original sees U+2581 the text has a space, and it sees no
// spaces: the pattern takes the one for the other.
enum bnt_status bnt_pattern_translate(const char *pattern, size_t size, bool marked,
                                      struct bnt_buffer *out, struct bnt_error *err);

// Appends a pattern that matches just this text, taken literally.
void bnt_pattern_quote(const char *text, size_t size, struct bnt_buffer *out);

// Whether PCRE2 compiles it, with the options that the runtime uses, whatever its version.
// matches_empty, if not NULL: whether it can match nothing.
enum bnt_status bnt_pattern_check(const uint8_t *pattern, size_t size, bool *matches_empty,
                                  struct bnt_error *err);

#endif
