// SPDX-License-Identifier: MIT
// How names begin and end.
#ifndef BNT_FORMATS_TEXT_H
#define BNT_FORMATS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline bool bnt_starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static inline bool bnt_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

#endif
