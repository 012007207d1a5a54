// SPDX-License-Identifier: MIT
#include "formats/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void replace_control_characters(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
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
    replace_control_characters(err->message);
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
