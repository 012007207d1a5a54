// SPDX-License-Identifier: MIT
#include "pack/pattern.h"

#include <stdbool.h>
#include <string.h>

#include "formats/regex.h"

// Oniguruma's word characters, inside a class; outside, it also takes six fractions and
// superscripts for some.
#define WORD      "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define MORE_WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
#define WORD_SET  "[" WORD MORE_WORD "]"
#define OTHER_SET "[^" WORD MORE_WORD "]"

// Unicode's White_Space, spelled out: PCRE2 knows the property since 10.40 only.
#define SPACE                                                                                      \
    "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{"    \
    "205F}\\x{3000}"

// Escapes whose meaning differs. \s is White_Space there, \h a hex digit, \v one character. NULL:
// no equivalent.
static const struct {
    char escape;
    const char *outside; // of a class
    const char *inside;
} escapes[] = {
    {'s', "[" SPACE "]", SPACE},
    {'S', "[^" SPACE "]", "\\P{White_Space}"},
    {'h', "[0-9A-Fa-f]", "0-9A-Fa-f"},
    {'H', "[^0-9A-Fa-f]", "\\P{AHex}"},
    {'v', "\\x0B", "\\x0B"},
    {'w', WORD_SET, WORD},
    {'W', OTHER_SET, NULL},
    {'b', "(?:(?<=" WORD_SET ")(?!" WORD_SET ")|(?<!" WORD_SET ")(?=" WORD_SET "))", "\\b"},
    {'B', "(?:(?<=" WORD_SET ")(?=" WORD_SET ")|(?<!" WORD_SET ")(?!" WORD_SET "))", NULL},
    {'K', NULL, NULL}, // moves the start of a match
    {'Q', "Q", "Q"},   // no quoting there
    {'E', "E", "E"},
};

// Names between "[:" and ":]". PCRE2's follow other definitions than Unicode's properties of that
// name.
static const struct {
    const char *name;
    const char *means;
} posix_names[] = {
    {"digit", "[:digit:]"},
    {"^digit", "[:^digit:]"},
    {"word", WORD},
    {"space", SPACE},
    {"punct", "\\p{P}\\p{S}"},
    {"alpha", "\\p{Alphabetic}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
    {"upper", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
};

struct scanner {
    const char *p;
    size_t size;
    size_t at;
    bool in_class; // between '[' and ']'
    struct bnt_buffer *out;
};

static void put_text(struct bnt_buffer *out, const char *text)
{
    bnt_buffer_put(out, text, strlen(text));
}

static bool next_is(const struct scanner *s, char c)
{
    return s->at + 1 < s->size && s->p[s->at + 1] == c;
}

// Copies n characters.
static void copy(struct scanner *s, size_t n)
{
    n = n < s->size - s->at ? n : s->size - s->at;
    bnt_buffer_put(s->out, s->p + s->at, n);
    s->at += n;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

// \uHHHH, which PCRE2 writes \x{HHHH}.
static bool put_code_point(struct scanner *s)
{
    const char *p = s->p + s->at;
    if (s->size - s->at < 6 || p[1] != 'u')
        return false;
    for (int i = 2; i < 6; i++) {
        if (!is_hex(p[i]))
            return false;
    }
    put_text(s->out, "\\x{");
    bnt_buffer_put(s->out, p + 2, 4);
    put_text(s->out, "}");
    s->at += 6;
    return true;
}

// An escape with an argument in braces, \p{…}, \x{…}, is copied whole, so that nothing in it is
// looked at.
static void copy_escape(struct scanner *s)
{
    size_t n = 2;
    if (s->size - s->at > 2 && s->p[s->at + 2] == '{' && strchr("pPxkgo", s->p[s->at + 1])) {
        const char *end = memchr(s->p + s->at, '}', s->size - s->at);
        n = end ? (size_t)(end + 1 - (s->p + s->at)) : n;
    }
    copy(s, n);
}

// At a backslash. false: no equivalent.
static bool translate_escape(struct scanner *s)
{
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++) {
        if (!next_is(s, escapes[i].escape))
            continue;
        const char *means = s->in_class ? escapes[i].inside : escapes[i].outside;
        if (means)
            put_text(s->out, means);
        s->at += 2;
        return means != NULL;
    }
    if (!put_code_point(s))
        copy_escape(s);
    return true;
}

// A '[' outside of a class, with what may follow it directly: '^', and a ']' that is an ordinary
// character there.
static void open_class(struct scanner *s)
{
    size_t n = 1;
    if (next_is(s, '^'))
        n++;
    if (s->at + n < s->size && s->p[s->at + n] == ']')
        n++;
    copy(s, n);
    s->in_class = true;
}

// "[:name:]" inside a class.
static bool translate_posix(struct scanner *s)
{
    const char *name = s->p + s->at + 2;
    size_t left = s->size - s->at - 2;
    for (size_t i = 0; i < sizeof posix_names / sizeof posix_names[0]; i++) {
        size_t n = strlen(posix_names[i].name);
        if (left >= n + 2 && memcmp(name, posix_names[i].name, n) == 0 && name[n] == ':' &&
            name[n + 1] == ']') {
            put_text(s->out, posix_names[i].means);
            s->at += n + 4;
            return true;
        }
    }
    return false;
}

// A character of a class. Sets inside sets, and intersections, have no equivalent: PCRE2 10.x would
// take the same characters literally.
static bool translate_in_class(struct scanner *s)
{
    if (s->p[s->at] == '[' && next_is(s, ':'))
        return translate_posix(s);
    if (s->p[s->at] == '[' || (s->p[s->at] == '&' && next_is(s, '&')))
        return false;
    s->in_class = s->p[s->at] != ']';
    copy(s, 1);
    return true;
}

// "(?imx-imx": Ruby's m lets the dot match newlines, which is s here.
static void translate_group(struct scanner *s)
{
    copy(s, 2);
    for (; s->at < s->size && strchr("imx-", s->p[s->at]); s->at++)
        bnt_buffer_put(s->out, s->p[s->at] == 'm' ? "s" : &s->p[s->at], 1);
}

// The length of an interval {n}, {n,}, {,m} or {n,m}; 0 if the brace begins none.
static size_t interval_length(const struct scanner *s)
{
    size_t at = s->at + 1, digits = 0;
    while (at < s->size && (is_digit(s->p[at]) || s->p[at] == ','))
        digits += is_digit(s->p[at++]);
    return digits && at < s->size && s->p[at] == '}' ? at + 1 - s->at : 0;
}

// At '{'. {,m} is {0,m} there; a '+' behind an interval repeats it, here it would be possessive: no
// equivalent.
static bool translate_interval(struct scanner *s)
{
    size_t n = interval_length(s);
    if (n && s->at + n < s->size && s->p[s->at + n] == '+')
        return false;
    bool from_zero = n && next_is(s, ',');
    copy(s, 1);
    if (from_zero)
        put_text(s->out, "0");
    copy(s, n ? n - 1 : 0);
    return true;
}

static bool translate_next(struct scanner *s)
{
    if (s->p[s->at] == '\\')
        return translate_escape(s);
    if (s->in_class)
        return translate_in_class(s);
    if (s->p[s->at] == '{')
        return translate_interval(s);
    if (s->p[s->at] == '[')
        open_class(s);
    else if (s->p[s->at] == '(' && next_is(s, '?'))
        translate_group(s);
    else
        copy(s, 1);
    return true;
}

enum bnt_status bnt_pattern_translate(const char *pattern, size_t size, struct bnt_buffer *out,
                                      struct bnt_error *err)
{
    struct scanner s = {.p = pattern, .size = size, .out = out};
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
            put_text(out, "\\");
        bnt_buffer_put(out, text + i, 1);
    }
}

enum bnt_status bnt_pattern_check(const uint8_t *pattern, size_t size, struct bnt_error *err)
{
    pcre2_code *code = bnt_regex_compile(pattern, size, err);
    bool compiles = code != NULL;
    pcre2_code_free(code);
    return compiles ? BNT_OK : BNT_ERR_FORMAT;
}
