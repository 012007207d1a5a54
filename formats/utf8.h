// SPDX-License-Identifier: MIT
// UTF-8 as Unicode defines it: no surrogates, no overlong forms, nothing above U+10FFFF.
#ifndef BNT_FORMATS_UTF8_H
#define BNT_FORMATS_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What the bytes at p (size >= 1 of them) start with.
//  > 0: a well-formed character of that many bytes, its code point in *code (may be NULL)
//  = 0: the beginning of a character whose rest would lie past the end
//  < 0: the negated length of a maximal ill-formed part, to be shown as one U+FFFD
int bnt_utf8_next(const uint8_t *p, size_t size, uint32_t *code);

// Bytes of the longest well-formed beginning; equal to size when all is well.
size_t bnt_utf8_valid(const uint8_t *p, size_t size);

// Unicode's White_Space.
bool bnt_is_white_space(uint32_t code);

// Writes the character as 1 … 4 bytes, returns how many.
int bnt_utf8_put(uint32_t code, uint8_t out[4]);

#endif
