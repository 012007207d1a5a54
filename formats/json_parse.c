// SPDX-License-Identifier: MIT
// A JSON parser that takes what Python's json takes and jansson does not. Building jansson's
// values, it leaves all the rest of them to that library.
#include "formats/json.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"

// Python's own limit is about 1000, that of bnt.md 100. So deep goes the recursion, here and
// wherever values are walked.
enum { MAX_DEPTH = 500, MAX_DEPTH_STRICT = 100 };

struct parser {
    const char *text, *end;
    const char *at;
    const char *name;
    bool strict;
    char *scratch; // holds any one string of the text
    size_t room;
    struct bnt_error *err;
    enum bnt_status status; // of the first failure
};

// Always NULL, for the value that there is not.
static json_t *fail(struct parser *p, const char *what)
{
    int line = 1, column = 1;
    if (p->status != BNT_OK)
        return NULL;
    for (const char *c = p->text; c < p->at; c++) {
        column = *c == '\n' ? 1 : column + 1;
        line += *c == '\n';
    }
    p->status = bnt_fail(p->err, BNT_ERR_FORMAT, "%s: not valid JSON: line %d, column %d: %s",
                         p->name, line, column, what);
    return NULL;
}

static json_t *no_memory(struct parser *p)
{
    if (p->status == BNT_OK)
        p->status = bnt_fail(p->err, BNT_ERR_MEMORY, "%s: out of memory", p->name);
    return NULL;
}

static json_t *made(struct parser *p, json_t *value)
{
    return value ? value : no_memory(p);
}

static void skip_blanks(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
}

// The next byte, a zero at the end (no zero byte may stand outside strings, nor inside).
static char peek(const struct parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static bool take(struct parser *p, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(p->end - p->at) < size || memcmp(p->at, word, size) != 0)
        return false;
    p->at += size;
    return true;
}

// --- numbers ---

static size_t take_digits(struct parser *p)
{
    const char *from = p->at;
    while (peek(p) >= '0' && peek(p) <= '9')
        p->at++;
    return (size_t)(p->at - from);
}

// What follows the integer part; what does not belong to it stays.
static bool take_fraction_and_exponent(struct parser *p)
{
    const char *from = p->at;
    const char *good = from;
    if (take(p, ".") && take_digits(p))
        good = p->at;
    p->at = good;
    if (take(p, "e") || take(p, "E")) {
        if (!take(p, "+"))
            (void)take(p, "-");
        good = take_digits(p) ? p->at : good;
    }
    p->at = good;
    return good > from;
}

// NaN, an infinity, or what is too large for a double.
static json_t *not_finite(struct parser *p, bool negative)
{
    if (p->strict)
        return fail(p, "a number that no double can hold");
    return made(p, json_real(negative ? -DBL_MAX : DBL_MAX));
}

static json_t *make_number(struct parser *p, const char *digits, bool integer)
{
    errno = 0;
    if (integer) {
        long long value = strtoll(digits, NULL, 10);
        if (errno == 0)
            return made(p, json_integer(value));
        if (p->strict)
            return fail(p, "an integer of more than 64 bits");
    }
    double value = strtod(digits, NULL);
    return isfinite(value) ? made(p, json_real(value)) : not_finite(p, value < 0);
}

static json_t *parse_number(struct parser *p)
{
    const char *from = p->at;
    bool negative = take(p, "-");
    if (take(p, "Infinity"))
        return not_finite(p, negative);
    if (!take(p, "0") && !take_digits(p))
        return fail(p, "a value must stand here");
    bool integer = !take_fraction_and_exponent(p);
    char *digits = strndup(from, (size_t)(p->at - from)); // strtod needs an end
    if (!digits)
        return no_memory(p);
    json_t *value = make_number(p, digits, integer);
    free(digits);
    return value;
}

// --- strings ---

// Four hexadecimal digits, or -1.
static int take_hex(struct parser *p)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    int value = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        const char *digit = peek(p) ? strchr(digits, peek(p)) : NULL;
        if (!digit)
            return -1;
        value = value << 4 | (int)((digit - digits) & 15);
    }
    return value;
}

// Behind "\u". The bytes written are UTF-8, but for U+0000 and halves of surrogate pairs, which
// take the same form though it is ill-formed: strings stay C strings, and bnt_json_is_text tells.
static int take_unicode(struct parser *p, char *out)
{
    int code = take_hex(p);
    if (code < 0) {
        (void)fail(p, "\\u needs four hexadecimal digits");
        return 0;
    }
    const char *behind = p->at;
    if ((code & 0xFC00) == 0xD800 && take(p, "\\u")) {
        int low = take_hex(p);
        if (low >= 0 && (low & 0xFC00) == 0xDC00)
            return bnt_utf8_put((uint32_t)(0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF)),
                                (uint8_t *)out);
        p->at = behind;
    }
    bool half = (code & 0xF800) == 0xD800;
    if (p->strict && (half || code == 0)) {
        (void)fail(p, half ? "half a surrogate pair" : "U+0000");
        return 0;
    }
    if (code == 0) {
        memcpy(out, "\xC0\x80", 2);
        return 2;
    }
    return bnt_utf8_put((uint32_t)code, (uint8_t *)out);
}

// Behind a backslash. Returns the bytes written, 0 after a failure.
static int take_escape(struct parser *p, char *out)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    if (take(p, "u"))
        return take_unicode(p, out);
    const char *letter = peek(p) ? strchr(letters, peek(p)) : NULL;
    if (!letter) {
        (void)fail(p, "an escape that JSON does not have");
        return 0;
    }
    p->at++;
    *out = meanings[letter - letters];
    return 1;
}

// Copies plain characters up to a quote, a backslash or what must not be there.
static size_t take_plain(struct parser *p, char *out)
{
    const char *from = p->at;
    while (p->at < p->end && *p->at != '"' && *p->at != '\\' && (uint8_t)*p->at >= 0x20)
        p->at++;
    size_t size = (size_t)(p->at - from);
    size_t valid = bnt_utf8_valid((const uint8_t *)from, size);
    if (valid < size) {
        p->at = from + valid;
        (void)fail(p, "bytes that are not UTF-8");
    }
    memcpy(out, from, size);
    return size;
}

// Behind the opening quote: into scratch, a zero behind. No escape makes more bytes than it has.
static bool parse_string(struct parser *p, size_t *size)
{
    const char *quote = p->at;
    while (quote < p->end && *quote != '"')
        quote += *quote == '\\' && p->end - quote > 1 ? 2 : 1;
    size_t most = (size_t)(quote - p->at) + 1;
    *size = 0;
    if (most > p->room) {
        char *larger = realloc(p->scratch, most * 2);
        if (!larger) {
            (void)no_memory(p);
            return false;
        }
        p->scratch = larger;
        p->room = most * 2;
    }
    while (p->status == BNT_OK && !take(p, "\"")) {
        if (take(p, "\\"))
            *size += (size_t)take_escape(p, p->scratch + *size);
        else if (p->at == p->end || (uint8_t)*p->at < 0x20)
            (void)fail(p, p->at == p->end ? "the text ends inside a string"
                                          : "a control character inside a string");
        else
            *size += take_plain(p, p->scratch + *size);
    }
    p->scratch[*size] = '\0';
    return p->status == BNT_OK;
}

// --- arrays and objects ---

static json_t *parse_value(struct parser *p, int depth);

static json_t *parse_array(struct parser *p, int depth)
{
    json_t *array = made(p, json_array());
    skip_blanks(p);
    if (take(p, "]"))
        return array;
    while (p->status == BNT_OK) {
        json_t *value = parse_value(p, depth);
        if (value && json_array_append_new(array, value) != 0)
            (void)no_memory(p);
        skip_blanks(p);
        if (p->status == BNT_OK && take(p, "]"))
            return array;
        if (!take(p, ","))
            (void)fail(p, "',' or ']' must stand here");
    }
    json_decref(array);
    return NULL;
}

static void parse_member(struct parser *p, json_t *object, int depth)
{
    size_t size;
    skip_blanks(p);
    if (!take(p, "\"")) {
        (void)fail(p, "a name in quotes must stand here");
        return;
    }
    if (!parse_string(p, &size))
        return;
    char *key = strdup(p->scratch);
    if (!key)
        (void)no_memory(p);
    else if (p->strict && json_object_get(object, key))
        (void)fail(p, "the same name stands twice in an object");
    skip_blanks(p);
    if (!take(p, ":"))
        (void)fail(p, "':' must stand here");
    json_t *value = p->status == BNT_OK ? parse_value(p, depth) : NULL;
    if (value && json_object_set_new_nocheck(object, key, value) != 0) // of two the last stays
        (void)no_memory(p);
    free(key);
}

static json_t *parse_object(struct parser *p, int depth)
{
    json_t *object = made(p, json_object());
    skip_blanks(p);
    if (take(p, "}"))
        return object;
    while (p->status == BNT_OK) {
        parse_member(p, object, depth);
        skip_blanks(p);
        if (p->status == BNT_OK && take(p, "}"))
            return object;
        if (!take(p, ","))
            (void)fail(p, "',' or '}' must stand here");
    }
    json_decref(object);
    return NULL;
}

static json_t *parse_value(struct parser *p, int depth)
{
    size_t size;
    skip_blanks(p);
    if (depth == 0 && (peek(p) == '[' || peek(p) == '{')) {
        p->status = bnt_fail(p->err, BNT_ERR_FORMAT, "%s: JSON nested more than %d deep", p->name,
                             p->strict ? MAX_DEPTH_STRICT : MAX_DEPTH);
        return NULL;
    }
    if (take(p, "{"))
        return parse_object(p, depth - 1);
    if (take(p, "["))
        return parse_array(p, depth - 1);
    if (take(p, "\""))
        return parse_string(p, &size) ? made(p, json_stringn_nocheck(p->scratch, size)) : NULL;
    if (take(p, "true"))
        return json_true();
    if (take(p, "false"))
        return json_false();
    if (take(p, "null"))
        return json_null();
    if (take(p, "NaN"))
        return not_finite(p, false);
    return parse_number(p);
}

// --- the whole ---

// Editors put it in front of a text; neither Python's json nor RFC 8259 knows it.
static const char *byte_order_mark(const char *text, size_t size)
{
    if (size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        return "UTF-8";
    if (size >= 2 && (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0))
        return "UTF-16";
    return NULL;
}

static enum bnt_status parse(const char *text, size_t size, const char *name, bool strict,
                             json_t **out, struct bnt_error *err)
{
    struct parser p = {
        .text = text, .end = text + size, .at = text, .name = name, .strict = strict, .err = err};
    const char *mark = byte_order_mark(text, size);
    *out = NULL;
    if (mark)
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: begins with a byte-order mark of %s: save it as UTF-8 without one",
                        name, mark);
    *out = parse_value(&p, strict ? MAX_DEPTH_STRICT : MAX_DEPTH);
    free(p.scratch);
    skip_blanks(&p);
    if (p.status == BNT_OK && p.at < p.end)
        (void)fail(&p, "the text goes on after its value");
    if (p.status == BNT_OK && !json_is_object(*out))
        p.status = bnt_fail(err, BNT_ERR_FORMAT, "%s: must be a JSON object", name);
    if (p.status == BNT_OK)
        return BNT_OK;
    json_decref(*out);
    *out = NULL;
    return p.status;
}

enum bnt_status bnt_json_parse(const char *text, size_t size, const char *name, json_t **out,
                               struct bnt_error *err)
{
    return parse(text, size, name, false, out, err);
}

enum bnt_status bnt_json_parse_strict(const char *text, size_t size, const char *name, json_t **out,
                                      struct bnt_error *err)
{
    return parse(text, size, name, true, out, err);
}
