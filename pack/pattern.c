// SPDX-License-Identifier: MIT
#include "pack/pattern.h"

#include <stdbool.h>
#include <string.h>

#include "formats/regex.h"

// Escapes whose meaning differs. \s of Oniguruma is Unicode's White_Space; PCRE2's also takes
// U+180E. \h is a hex digit there and horizontal space here. \R, \X and the anchors mean the same
// in both.
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

struct scanner {
    const char *p;
    size_t size;
    size_t at;
    bool in_class; // between '[' and ']'
    bool in_posix; // inside a class, between "[:" and ":]"
};

static bool next_is(const struct scanner *s, char c)
{
    return s->at + 1 < s->size && s->p[s->at + 1] == c;
}

// A '[' outside of a class, with what may follow it directly: '^', and a ']' that is an ordinary
// character there.
static void open_class(struct scanner *s, struct bnt_buffer *out)
{
    size_t end = s->at + 1;
    if (end < s->size && s->p[end] == '^')
        end++;
    if (end < s->size && s->p[end] == ']')
        end++;
    bnt_buffer_put(out, s->p + s->at, end - s->at);
    s->at = end;
    s->in_class = true;
}

// A character of a class. Returns false for what Oniguruma takes as a set inside the set, or an
// intersection; PCRE2 10.x would take the same characters literally.
static bool class_character(struct scanner *s)
{
    char c = s->p[s->at];
    if (c == '[' && next_is(s, ':'))
        s->in_posix = true;
    else if (c == '[' || (c == '&' && next_is(s, '&')))
        return false;
    else if (c == ']' && s->in_posix)
        s->in_posix = false;
    else if (c == ']')
        s->in_class = false;
    return true;
}

enum bnt_status bnt_pattern_translate(const char *pattern, size_t size, struct bnt_buffer *out,
                                      struct bnt_error *err)
{
    struct scanner s = {.p = pattern, .size = size};
    while (s.at < size) {
        if (pattern[s.at] == '\\') {
            s.at += translate_escape(pattern + s.at, size - s.at, out);
        } else if (pattern[s.at] == '[' && !s.in_class) {
            open_class(&s, out);
        } else {
            if (s.in_class && !class_character(&s))
                return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                                "pattern '%.*s': sets inside sets are not supported",
                                (int)(size < 200 ? size : 200), pattern);
            bnt_buffer_put(out, pattern + s.at, 1);
            s.at++;
        }
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
