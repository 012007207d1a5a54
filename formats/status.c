// SPDX-License-Identifier: MIT
#include "formats/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void bnt_make_printable(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        bool c1 = p[0] == 0xC2 && p[1] >= 0x80 && p[1] <= 0x9F; // U+0080 … U+009F in UTF-8
        if (*p < 0x20 || *p == 0x7f || c1)
            *p = '?';
        if (c1)
            *++p = '?';
    }
}

enum bnt_status bnt_fail(struct bnt_error *err, enum bnt_status status, const char *format, ...)
{
    if (!err)
        return status;
    va_list args;
    va_start(args, format);
    err->status = status;
    (void)vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    bnt_make_printable(err->message);
    return status;
}

void bnt_fail_prefix(struct bnt_error *err, const char *prefix)
{
    if (!err)
        return;
    char old[BNT_ERROR_SIZE];
    memcpy(old, err->message, sizeof old);
    (void)bnt_fail(err, err->status, "%s: %s", prefix, old);
}
