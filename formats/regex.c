// SPDX-License-Identifier: MIT
#include "formats/regex.h"

pcre2_code *bnt_regex_compile(const uint8_t *pattern, size_t size, struct bnt_error *err)
{
    // NEVER_BACKSLASH_C: \C could split a character. MATCH_INVALID_UTF is off: texts are checked
    // before.
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int problem;
    size_t offset;
    pcre2_code *code = pcre2_compile(pattern, size, options, &problem, &offset, NULL);
    if (code)
        return code;
    PCRE2_UCHAR text[160] = {0};
    (void)pcre2_get_error_message(problem, text, sizeof text);
    (void)bnt_fail(err, BNT_ERR_FORMAT, "a pattern does not compile: %s at byte %zu of '%.*s'",
                   (const char *)text, offset, (int)(size < 200 ? size : 200),
                   (const char *)pattern);
    return NULL;
}
