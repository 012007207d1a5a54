// SPDX-License-Identifier: MIT
// GPT-2's map from bytes to printable characters: printable Latin-1 stays, the others follow from
// U+0100 on.
#ifndef BNT_FORMATS_BYTE_LEVEL_H
#define BNT_FORMATS_BYTE_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

enum { BNT_BYTE_LEVEL_END = 324 }; // it uses code points below

static inline uint32_t bnt_byte_to_character(uint8_t byte)
{
    if (byte <= 32)
        return 256u + byte;
    if (byte >= 127 && byte <= 160)
        return 289u + byte - 127;
    return byte == 173 ? BNT_BYTE_LEVEL_END - 1 : byte;
}

// The byte, or −1 where a character stands for none.
static inline int bnt_character_to_byte(uint32_t code)
{
    if (code >= BNT_BYTE_LEVEL_END)
        return -1;
    if (code == BNT_BYTE_LEVEL_END - 1)
        return 173;
    int byte = (int)(code < 256 ? code : code < 289 ? code - 256 : code - 289 + 127);
    return bnt_byte_to_character((uint8_t)byte) == code ? byte : -1;
}

#endif
