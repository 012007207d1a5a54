// SPDX-License-Identifier: MIT
#include "pack/pattern.h"

#include <stdbool.h>
#include <string.h>

#include "formats/regex.h"

// Escapes whose meaning differs. \s of Oniguruma is Unicode's White_Space; PCRE2's also takes U+180E. \h is a hex digit
// there and horizontal space here. \R, \X and the anchors mean the same in both.
static const struct {
    char escape;
    const char *means;
} escapes[] = {
    {'s', "\\p{White_Space}"},
    {'S', "\\P{White_Space}"},
    {'h', "\\p{AHex}"},
    {'H', "\\P{AHex}"},
};

static void put_text(struct bnt_buffer *out, const char *text)
{
    bnt_buffer_put(out, text, strlen(text));
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// \uHHHH, which PCRE2 writes \x{HHHH}. Returns the bytes consumed, 0 if it is none.
static size_t translate_code_point(const char *p, size_t left, struct bnt_buffer *out)
{
    if (left < 6 || p[1] != 'u')
        return 0;
    for (int i = 2; i < 6; i++) {
        if (!is_hex(p[i]))
            return 0;
    }
    put_text(out, "\\x{");
    bnt_buffer_put(out, p + 2, 4);
    put_text(out, "}");
    return 6;
}

// One escape; p[0] is the backslash. Returns the bytes consumed.
static size_t translate_escape(const char *p, size_t left, struct bnt_buffer *out)
{
    for (size_t i = 0; left > 1 && i < sizeof escapes / sizeof escapes[0]; i++) {
        if (p[1] == escapes[i].escape) {
            put_text(out, escapes[i].means);
            return 2;
        }
    }
    size_t used = translate_code_point(p, left, out);
    if (used)
        return used;
    used = left > 1 ? 2 : 1;
    bnt_buffer_put(out, p, used);
    return used;
}

enum bnt_status bnt_pattern_translate(const char *pattern, size_t size, struct bnt_buffer *out, struct bnt_error *err)
{
    bool in_class = false;
    for (size_t i = 0; i < size;) {
        if (pattern[i] == '\\') {
            i += translate_escape(pattern + i, size - i, out);
            continue;
        }
        // Oniguruma has sets inside sets and their intersection; PCRE2 10.x takes the same characters literally.
        bool posix = i + 1 < size && pattern[i + 1] == ':';
        if (in_class && ((pattern[i] == '[' && !posix) || (pattern[i] == '&' && i + 1 < size && pattern[i + 1] == '&')))
            return bnt_fail(err, BNT_ERR_UNSUPPORTED, "pattern '%.*s': sets inside sets are not supported",
                            (int)(size < 200 ? size : 200), pattern);
        if (pattern[i] == '[' && !in_class) {
            in_class = true;
            // A ']' that comes first, or after '^', is an ordinary character.
            size_t first = i + 1 + (i + 1 < size && pattern[i + 1] == '^');
            size_t end = first < size && pattern[first] == ']' ? first + 1 : first;
            bnt_buffer_put(out, pattern + i, end - i);
            i = end;
            continue;
        }
        if (pattern[i] == ']' && !(in_class && i >= 1 && pattern[i - 1] == ':' ))
            in_class = false;
        bnt_buffer_put(out, pattern + i, 1);
        i++;
    }
    return out->failed ? bnt_fail(err, BNT_ERR_MEMORY, "out of memory") : BNT_OK;
}

void bnt_pattern_quote(const char *text, size_t size, struct bnt_buffer *out)
{
    for (size_t i = 0; i < size; i++) {
        if (strchr("\\^$.|?*+()[]{}-#", text[i]) && text[i])
            put_text(out, "\\");
        bnt_buffer_put(out, text + i, 1);
    }
}

enum bnt_status bnt_pattern_check(const uint8_t *pattern, size_t size, struct bnt_error *err)
{
    pcre2_code *code = bnt_regex_compile(pattern, size, err);
    pcre2_code_free(code);
    return code ? BNT_OK : BNT_ERR_FORMAT;
}
