// SPDX-License-Identifier: MIT
#include <string.h>

#include "formats/utf8.h"
#include "pack/jinja_parts.h"

struct lexer {
    struct jinja *j;
    const char *text; // the source with \n for every kind of newline
    size_t size;
    size_t at;
    bool line_starting; // what came before ended with a newline
};

static bool put_token(struct lexer *l, enum jinja_token_kind kind, const char *text, size_t size)
{
    struct jinja *j = l->j;
    if (j->n_tokens == j->tokens_capacity) {
        size_t wanted = j->tokens_capacity ? 2 * j->tokens_capacity : 256;
        struct jinja_token *grown = jinja_allocate(j, wanted * sizeof *grown);
        if (!grown)
            return false;
        if (j->n_tokens)
            memcpy(grown, j->tokens, j->n_tokens * sizeof *grown);
        j->tokens = grown;
        j->tokens_capacity = wanted;
    }
    j->tokens[j->n_tokens++] = (struct jinja_token){.kind = kind, .text = text, .size = size};
    return true;
}

static bool bad(struct lexer *l, const char *what)
{
    (void)jinja_fail(l->j, JINJA_UNKNOWN, what, NULL, 0);
    return false;
}

static bool at_text(const struct lexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return l->size - at >= n && memcmp(l->text + at, text, n) == 0;
}

static bool is_name(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!first && c >= '0' && c <= '9');
}

// The size of the white space at the start of a text.
static size_t space_size(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint32_t c;
        int n = bnt_utf8_next((const uint8_t *)text + at, size - at, &c);
        if (n <= 0 || !bnt_is_white_space(c))
            break;
        at += (size_t)n;
    }
    return at;
}

static size_t without_trailing_space(const char *text, size_t size)
{
    for (size_t at = size; at > 0;) {
        do
            at--;
        while (at > 0 && ((uint8_t)text[at] & 0xC0) == 0x80);
        if (space_size(text + at, size - at) != size - at)
            break;
        size = at;
    }
    return size;
}

// --- strings ---

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

// \xHH, \uHHHH, \UHHHHHHHH: returns how many bytes it wrote, 0 when it is none.
static size_t put_code(const char *text, size_t digits, size_t left, uint8_t *out)
{
    uint32_t code = 0;
    if (left < digits)
        return 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0)
            return 0;
        code = code << 4 | (uint32_t)digit;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return 0;
    return (size_t)bnt_utf8_put(code, out);
}

// One escape, whose backslash stands before text[0]. *used: bytes of the source. Returns how many
// bytes it wrote to out (room for 4); −1: not known here.
static int put_escape(const char *text, size_t left, size_t *used, uint8_t *out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *simple = text[0] ? strchr(from, text[0]) : NULL;
    size_t digits = text[0] == 'x' ? 2 : text[0] == 'u' ? 4 : text[0] == 'U' ? 8 : 0;
    *used = 1 + digits;
    if (simple) {
        out[0] = (uint8_t)to[simple - from];
        return 1;
    }
    if (digits) {
        size_t n = put_code(text + 1, digits, left - 1, out);
        return n ? (int)n : -1;
    }
    if (text[0] == '\n')
        return 0; // a line that goes on
    if (text[0] == 'N' || (text[0] >= '0' && text[0] <= '9') || (uint8_t)text[0] >= 0x80)
        return -1;
    out[0] = '\\'; // Python keeps what it does not know
    out[1] = (uint8_t)text[0];
    return 2;
}

static bool lex_string(struct lexer *l)
{
    const char quote = l->text[l->at];
    size_t end = l->at + 1, n = 0;
    while (end < l->size && l->text[end] != quote)
        end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->size)
        return bad(l, "a text without its end");
    uint8_t *out = jinja_allocate(l->j, end - l->at + 4);
    for (size_t i = l->at + 1; out && i < end;) {
        if (l->text[i] != '\\') {
            out[n++] = (uint8_t)l->text[i++];
            continue;
        }
        size_t used;
        int written = put_escape(l->text + i + 1, end - i - 1, &used, out + n);
        if (written < 0)
            return bad(l, "an escape in a text");
        n += (size_t)written;
        i += 1 + used;
    }
    l->at = end + 1;
    return out && put_token(l, TOKEN_STRING, (char *)out, n);
}

// --- inside of tags ---

static bool lex_integer(struct lexer *l)
{
    size_t start = l->at;
    int64_t value = 0;
    for (; l->at < l->size && l->text[l->at] >= '0' && l->text[l->at] <= '9'; l->at++)
        value = value < 100000000 ? 10 * value + (l->text[l->at] - '0') : value;
    bool whole = l->at == l->size || (l->text[l->at] != '.' && !is_name(l->text[l->at], true));
    if (!whole)
        return bad(l, "a number that is not whole");
    if (!put_token(l, TOKEN_INTEGER, l->text + start, l->at - start))
        return false;
    l->j->tokens[l->j->n_tokens - 1].integer = value;
    return true;
}

static bool lex_operator(struct lexer *l)
{
    static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        n = at_text(l, l->at, two[i]) ? 2 : n;
    if (n == 1 && (l->text[l->at] == '\0' || !strchr("+-*/%~()[]{}.,:|=<>", l->text[l->at])))
        return bad(l, "a character in a tag");
    l->at += n;
    return put_token(l, TOKEN_OPERATOR, l->text + l->at - n, n);
}

// The end of a tag and what it takes with it: "-%}" all white space, "%}" one newline. 0: none.
static size_t tag_end(const struct lexer *l, const char *end, bool trims)
{
    size_t at = l->at;
    bool minus = at_text(l, at, "-"), plus = at_text(l, at, "+");
    at += minus || plus;
    if (!at_text(l, at, end))
        return 0;
    at += strlen(end);
    if (minus)
        at += space_size(l->text + at, l->size - at);
    else if (!plus && trims && at_text(l, at, "\n"))
        at++;
    return at - l->at;
}

static bool lex_tag(struct lexer *l, bool block)
{
    unsigned open = 0; // brackets
    for (;;) {
        while (l->at < l->size && strchr(" \t\n\f\v", l->text[l->at]) && l->text[l->at])
            l->at++;
        if (l->at == l->size)
            return bad(l, "a tag without its end");
        size_t n = open ? 0 : tag_end(l, block ? "%}" : "}}", block);
        if (n > 0) {
            l->at += n;
            return put_token(l, block ? TOKEN_BLOCK_END : TOKEN_EXPRESSION_END, "", 0);
        }
        char c = l->text[l->at];
        open += c == '(' || c == '[' || c == '{';
        open -= open && (c == ')' || c == ']' || c == '}');
        size_t start = l->at;
        bool ok;
        if (is_name(c, true)) {
            while (l->at < l->size && is_name(l->text[l->at], false))
                l->at++;
            ok = put_token(l, TOKEN_NAME, l->text + start, l->at - start);
        } else if (c >= '0' && c <= '9') {
            ok = lex_integer(l);
        } else {
            ok = c == '\'' || c == '"' ? lex_string(l) : lex_operator(l);
        }
        if (!ok)
            return false;
    }
}

static bool skip_comment(struct lexer *l)
{
    for (; l->at < l->size; l->at++) {
        size_t n = tag_end(l, "#}", true);
        if (n > 0) {
            l->at += n;
            return true;
        }
    }
    return bad(l, "a comment without its end");
}

// --- text between tags ---

// The size of what is left of the text in front of a tag: lstrip_blocks drops the white space
// before one that begins its line.
static size_t left_of_tag(const struct lexer *l, const char *text, size_t size, char sign,
                          bool expression)
{
    if (sign == '-')
        return without_trailing_space(text, size);
    if (sign == '+' || expression)
        return size;
    size_t line = size;
    while (line > 0 && text[line - 1] != '\n')
        line--;
    bool begins = line > 0 || l->line_starting;
    return begins && space_size(text + line, size - line) == size - line ? line : size;
}

static bool lex_all(struct lexer *l)
{
    l->line_starting = true;
    while (l->at < l->size) {
        size_t start = l->at;
        while (l->at < l->size && !at_text(l, l->at, "{{") && !at_text(l, l->at, "{%") &&
               !at_text(l, l->at, "{#"))
            l->at++;
        const char *text = l->text + start;
        size_t size = l->at - start;
        char kind = l->at < l->size ? l->text[l->at + 1] : '\0';
        char sign = kind && l->at + 2 < l->size ? l->text[l->at + 2] : '\0';
        sign = sign == '-' || sign == '+' ? sign : '\0';
        if (kind)
            size = left_of_tag(l, text, size, sign, kind == '{');
        if (size > 0 && !put_token(l, TOKEN_DATA, text, size))
            return false;
        if (!kind)
            return true;
        l->at += sign ? 3 : 2;
        bool ok = kind == '#' ? skip_comment(l)
                              : put_token(l, kind == '%' ? TOKEN_BLOCK : TOKEN_EXPRESSION, "", 0) &&
                                    lex_tag(l, kind == '%');
        if (!ok)
            return false;
        l->line_starting = l->text[l->at - 1] == '\n';
    }
    return true;
}

bool jinja_lex(struct jinja *j, const char *source, size_t size)
{
    if (bnt_utf8_valid((const uint8_t *)source, size) != size) {
        (void)jinja_fail(j, JINJA_UNKNOWN, "it is not UTF-8", NULL, 0);
        return false;
    }
    char *text = jinja_allocate(j, size + 1);
    if (!text)
        return false;
    struct lexer l = {.j = j, .text = text};
    for (size_t i = 0; i < size; i++) {
        bool crlf = source[i] == '\r' && i + 1 < size && source[i + 1] == '\n';
        if (!crlf)
            text[l.size++] = source[i];
        if (source[i] == '\r' && !crlf)
            text[l.size - 1] = '\n';
    }
    l.size -= l.size > 0 && text[l.size - 1] == '\n'; // Jinja drops the last one
    if (!lex_all(&l) || !put_token(&l, TOKEN_END, "", 0))
        return false;
    return true;
}
