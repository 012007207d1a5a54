// SPDX-License-Identifier: MIT
#include "pack/pattern.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/regex.h"
#include "formats/unicode.h"
#include "formats/utf8.h"
#include "pack/pattern_scan.h"

// Oniguruma's word characters outside of a class.
#define WORD     "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
#define WORD_SET "[" WORD "]"

// Escapes outside of classes that are neither characters nor sets. NULL: no equivalent.
static const struct {
    char escape;
    const char *means;
} escapes[] = {
    {'b', "(?:(?<=" WORD_SET ")(?!" WORD_SET ")|(?<!" WORD_SET ")(?=" WORD_SET "))"},
    {'B', "(?:(?<=" WORD_SET ")(?=" WORD_SET ")|(?<!" WORD_SET ")(?!" WORD_SET "))"},
    {'K', NULL}, // moves the start of a match
    {'X', NULL}, // depends on the tables of PCRE2
    {'Q', "Q"},  // no quoting there
    {'E', "E"},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// Copies n characters.
static void copy(struct bnt_pattern_scanner *s, size_t n)
{
    n = n < s->size - s->at ? n : s->size - s->at;
    bnt_buffer_put(s->out, s->p + s->at, n);
    s->at += n;
}

// --- characters ---

// The hex digits at `at`, least to most of them. Returns how many.
static size_t read_hex(const struct bnt_pattern_scanner *s, size_t at, size_t least, size_t most,
                       uint32_t *code)
{
    size_t n = 0;
    char text[9] = {0};
    while (n < most && at + n < s->size && is_hex(s->p[at + n])) {
        text[n] = s->p[at + n];
        n++;
    }
    *code = (uint32_t)strtoul(text, NULL, 16);
    return n >= least ? n : 0;
}

// \xHH, \x{H…}, \uHHHH at the backslash. Bytes of a character, \xE2\x96\x81, are not understood.
static bool read_number(struct bnt_pattern_scanner *s, uint32_t *code)
{
    const bool braces = s->at + 2 < s->size && s->p[s->at + 1] == 'x' && s->p[s->at + 2] == '{';
    const bool unicode = bnt_pattern_next_is(s, 'u');
    const size_t start = s->at + 2 + braces;
    const size_t n = read_hex(s, start, unicode ? 4 : 1, unicode ? 4 : braces ? 8 : 2, code);
    if (n == 0 || (!braces && !unicode && *code >= 0x80) || *code >= 0x110000 ||
        (*code >= 0xD800 && *code < 0xE000))
        return false;
    if (braces && (start + n >= s->size || s->p[start + n] != '}'))
        return false;
    s->at = start + n + braces;
    return true;
}

bool bnt_pattern_read_character(struct bnt_pattern_scanner *s, bool in_class, uint32_t *code)
{
    static const char names[] = "nrtfeav", codes[] = "\n\r\t\f\x1B\a\v";
    const bool escaped = s->p[s->at] == '\\';
    if (s->at + escaped >= s->size)
        return false;
    const char c = s->p[s->at + escaped];
    if (escaped && (c == 'x' || c == 'u'))
        return read_number(s, code);
    const char *name = escaped && c ? strchr(names, c) : NULL;
    if (name || (escaped && in_class && c == 'b')) {
        *code = name ? (uint8_t)codes[name - names] : '\b';
        s->at += 2;
        return true;
    }
    if (escaped && (is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) &&
        !strchr("QE", c))
        return false;
    const uint8_t *text = (const uint8_t *)s->p + s->at + escaped;
    int n = bnt_utf8_next(text, s->size - s->at - escaped, code);
    s->at += escaped + (size_t)(n > 0 ? n : 1);
    return n > 0;
}

void bnt_pattern_put_character(struct bnt_buffer *out, uint32_t code)
{
    char text[16];
    uint8_t bytes[4];
    const bool letter = (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z');
    if (code >= 0x80) {
        bnt_buffer_put(out, bytes, (size_t)bnt_utf8_put(code, bytes));
        return;
    }
    if (letter || (code >= '0' && code <= '9'))
        (void)snprintf(text, sizeof text, "%c", (int)code);
    else if (code > ' ' && code < 0x7F)
        (void)snprintf(text, sizeof text, "\\%c", (int)code);
    else
        (void)snprintf(text, sizeof text, "\\x%02" PRIX32, code);
    bnt_pattern_put(out, text);
}

bool bnt_pattern_caseless_fits(const struct bnt_pattern_scanner *s, uint32_t code)
{
    static const char pairs[][3] = {"ss", "st", "ff", "fi", "fl"};
    const struct bnt_unicode_run run = bnt_unicode_find(code);
    if (!s->caseless)
        return true;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (bnt_unicode_lowercase(s->before) == (uint32_t)pairs[i][0] &&
            bnt_unicode_lowercase(code) == (uint32_t)pairs[i][1])
            return false;
    }
    return code < 0x80 || !(run.flags & BNT_UNICODE_ALPHABETIC ||
                            (run.category >= BNT_UNICODE_LU && run.category <= BNT_UNICODE_ME));
}

// A character outside of classes; in a marked text U+2581 is a space, and there is no space.
static bool translate_character(struct bnt_pattern_scanner *s)
{
    uint32_t code;
    const size_t start = s->at;
    const bool escaped = s->p[start] == '\\';
    if (!bnt_pattern_read_character(s, false, &code) || !bnt_pattern_caseless_fits(s, code))
        return false;
    s->before = code;
    if (s->marked && code == BNT_PATTERN_MARK)
        bnt_pattern_put(s->out, "\\x20");
    else if (s->marked && code == BNT_PATTERN_SPACE)
        bnt_pattern_put(s->out, BNT_PATTERN_NEVER);
    else if (escaped)
        bnt_pattern_put_character(s->out, code);
    else
        bnt_buffer_put(s->out, s->p + start, s->at - start);
    return true;
}

// --- syntax ---

// \k<name>, \g<name>, \1 are copied whole, so that nothing in them is looked at.
static void copy_escape(struct bnt_pattern_scanner *s)
{
    size_t n = 2;
    if (s->size - s->at > 2 && strchr("{<'", s->p[s->at + 2]) && strchr("kg", s->p[s->at + 1])) {
        const char open = s->p[s->at + 2];
        const char *end = memchr(s->p + s->at + 3,
                                 open == '{'   ? '}'
                                 : open == '<' ? '>'
                                               : '\'',
                                 s->size - s->at - 3);
        n = end ? (size_t)(end + 1 - (s->p + s->at)) : n;
    }
    copy(s, n);
}

// At a backslash. false: no equivalent.
static bool translate_escape(struct bnt_pattern_scanner *s)
{
    if (s->at + 1 == s->size)
        return false;
    if (bnt_pattern_is_set(s))
        return bnt_pattern_translate_set(s);
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) {
        if (!bnt_pattern_next_is(s, escapes[i].escape))
            continue;
        if (escapes[i].means)
            bnt_pattern_put(s->out, escapes[i].means);
        s->at += 2;
        return escapes[i].means != NULL;
    }
    const char c = s->p[s->at + 1];
    if (strchr("AzZGRkg123456789", c) && c) {
        copy_escape(s);
        return true;
    }
    return translate_character(s);
}

// "(?imx-imx": Ruby's m lets the dot match newlines, which is s here.
static void translate_flags(struct bnt_pattern_scanner *s)
{
    bool on = true;
    for (; s->at < s->size && s->p[s->at] && strchr("imx-", s->p[s->at]); s->at++) {
        on = on && s->p[s->at] != '-';
        s->extended |= s->p[s->at] == 'x';
        if (s->p[s->at] == 'i')
            s->caseless = on;
        bnt_buffer_put(s->out, s->p[s->at] == 'm' ? "s" : &s->p[s->at], 1);
    }
}

// The length of an interval {n}, {n,}, {,m} or {n,m}; 0 if the brace begins none.
static size_t interval_length(const struct bnt_pattern_scanner *s)
{
    size_t at = s->at + 1, digits = 0;
    while (at < s->size && (is_digit(s->p[at]) || s->p[at] == ','))
        digits += is_digit(s->p[at++]);
    return digits && at < s->size && s->p[at] == '}' ? at + 1 - s->at : 0;
}

// At '{'. {,m} is {0,m} there; a '+' behind an interval repeats it, here it would be possessive: no
// equivalent.
static bool translate_interval(struct bnt_pattern_scanner *s)
{
    size_t n = interval_length(s);
    if (n && s->at + n < s->size && s->p[s->at + n] == '+')
        return false;
    bool from_zero = n && bnt_pattern_next_is(s, ',');
    copy(s, 1);
    if (from_zero)
        bnt_pattern_put(s->out, "0");
    copy(s, n ? n - 1 : 0);
    return true;
}

// At '(' or ')': what holds within ends there; but "(?i)" holds for what is left of the group
// around.
static bool translate_group(struct bnt_pattern_scanner *s)
{
    const bool opens = s->p[s->at] == '(';
    if (!opens) {
        if (s->n_groups > 0)
            s->caseless = s->outer_caseless[--s->n_groups];
        copy(s, 1);
        return true;
    }
    if (s->n_groups == BNT_PATTERN_MAX_GROUPS || bnt_pattern_next_is(s, '*') ||
        (s->size - s->at > 2 && memcmp(s->p + s->at, "(?#", 3) == 0))
        return false; // PCRE2's verbs; comments
    s->outer_caseless[s->n_groups++] = s->caseless;
    const bool special = bnt_pattern_next_is(s, '?');
    copy(s, special ? 2 : 1);
    if (special)
        translate_flags(s);
    if (special && s->at < s->size && s->p[s->at] == ')') { // flags alone: no group
        s->n_groups--;
        copy(s, 1);
    }
    return true;
}

static bool translate_next(struct bnt_pattern_scanner *s)
{
    const char c = s->p[s->at];
    if (c == '\\')
        return translate_escape(s);
    if (c == '{')
        return translate_interval(s);
    if (c == '[') {
        bool ok = bnt_pattern_translate_class(s);
        s->before = 0;
        return ok;
    }
    if (c == '(' || c == ')') {
        if (!translate_group(s))
            return false;
    } else if (strchr("|.^$*+?", c) && c) {
        s->before = 0;
        copy(s, 1);
    } else if (!translate_character(s)) {
        return false;
    }
    // Free spacing, where spaces mean nothing and '#' begins a comment.
    return !s->extended || (!s->marked && !memchr(s->p, '#', s->size));
}

enum bnt_status bnt_pattern_translate(const char *pattern, size_t size, bool marked,
                                      struct bnt_buffer *out, struct bnt_error *err)
{
    struct bnt_pattern_scanner s = {.p = pattern, .size = size, .marked = marked, .out = out};
    while (s.at < size) {
        size_t at = s.at;
        if (!translate_next(&s))
            return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                            "pattern '%.*s': what stands at byte %zu is not supported",
                            (int)(size < 200 ? size : 200), pattern, at);
    }
    return out->failed ? bnt_fail(err, BNT_ERR_MEMORY, "out of memory") : BNT_OK;
}

void bnt_pattern_quote(const char *text, size_t size, struct bnt_buffer *out)
{
    for (size_t i = 0; i < size; i++) {
        if (strchr("\\^$.|?*+()[]{}-#", text[i]) && text[i])
            bnt_pattern_put(out, "\\");
        bnt_buffer_put(out, text + i, 1);
    }
}

enum bnt_status bnt_pattern_check(const uint8_t *pattern, size_t size, bool *matches_empty,
                                  struct bnt_error *err)
{
    // As every PCRE2 compiles it: the forms that older and newer ones need are larger.
    static const unsigned majors[] = {BNT_UNICODE_OLD_MAJOR, BNT_UNICODE_MAJOR,
                                      BNT_UNICODE_MAJOR + 1};
    for (size_t i = 0; i < sizeof majors / sizeof majors[0]; i++) {
        struct bnt_regex regex;
        uint32_t empty = 0;
        enum bnt_status status = bnt_regex_open_as(&regex, pattern, size, majors[i], err);
        if (status != BNT_OK)
            return status;
        (void)pcre2_pattern_info(regex.code, PCRE2_INFO_MATCHEMPTY, &empty);
        if (matches_empty)
            *matches_empty = empty;
        bnt_regex_close(&regex);
    }
    return BNT_OK;
}
