// SPDX-License-Identifier: MIT
#include "formats/utf8.h"

// The legal range of the second byte narrows for four lead bytes (Unicode, table 3-7).
static bool second_byte_fits(uint8_t lead, uint8_t second)
{
    switch (lead) {
    case 0xE0:
        return second >= 0xA0 && second <= 0xBF;
    case 0xED:
        return second >= 0x80 && second <= 0x9F;
    case 0xF0:
        return second >= 0x90 && second <= 0xBF;
    case 0xF4:
        return second >= 0x80 && second <= 0x8F;
    default:
        return second >= 0x80 && second <= 0xBF;
    }
}

static int sequence_length(uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF)
        return 3;
    return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

int bnt_utf8_next(const uint8_t *p, size_t size, uint32_t *code)
{
    int length = sequence_length(p[0]);
    if (length == 0)
        return -1;
    uint32_t value = length == 1 ? p[0] : p[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if ((size_t)i == size)
            return 0;
        if (i == 1 ? !second_byte_fits(p[0], p[1]) : (p[i] & 0xC0) != 0x80)
            return -i;
        value = value << 6 | (p[i] & 0x3F);
    }
    if (code)
        *code = value;
    return length;
}

size_t bnt_utf8_valid(const uint8_t *p, size_t size)
{
    size_t at = 0;
    while (at < size) {
        int n = bnt_utf8_next(p + at, size - at, NULL);
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    return at;
}

int bnt_utf8_put(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    int length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--, code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)(0xF00u >> length | code);
    return length;
}

bool bnt_is_white_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}
