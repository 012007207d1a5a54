// SPDX-License-Identifier: MIT
// Rewriting a pattern so that its properties hold for characters that PCRE2's tables have
// otherwise. Only what bnt-pack writes needs to be understood; the rest is left to PCRE2 as it is.
#include "formats/regex.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"

struct rewriter {
    const char *p;
    size_t size, at;
    const struct bnt_char_set *odd;
    bool removed;
    FILE *out;
    bool changed;    // something depends on the odd characters
    bool not_odd;    // (?&not_odd) is used
    bool understood; // so far
    bool out_of_memory;
};

// A class, or a property that stands alone.
struct class
{
    struct bnt_char_set items; // what is listed, whether the class is negated or not
    bool negated;
    bool property; // one of the items is a property
    bool lacks;    // what PCRE2 has of the items may hold odd characters that do not belong there
};

// What an escape, a character or a range's end in a class is.
struct atom {
    bool set; // items were added; otherwise code is the character
    uint32_t code;
};

static bool give_up(struct rewriter *r)
{
    r->understood = false;
    return false;
}

// Properties that every version has alike.
static bool never_changes(const char *name, size_t size)
{
    return (size == 11 && memcmp(name, "White_Space", 11) == 0) ||
           (size == 4 && memcmp(name, "AHex", 4) == 0);
}

// Adds a property's members, or all others.
static bool add_property(struct rewriter *r, struct class *class, const char *name, size_t size,
                         bool other)
{
    struct bnt_char_set set = {0};
    if (size > 3 && memcmp(name, "sc:", 3) == 0)
        name += 3, size -= 3;
    if (!bnt_char_set_add_property(&set, name, size))
        return give_up(r);
    if (other)
        bnt_char_set_complement(&set);
    if (!never_changes(name, size)) {
        class->property = true;
        // A set that holds what is not assigned holds all that came later.
        class->lacks |= bnt_char_set_has(&set, 0xFFFF);
    }
    for (size_t i = 0; i < set.n; i++)
        bnt_char_set_add(&class->items, set.range[i].first, set.range[i].last);
    r->out_of_memory |= set.failed;
    bnt_char_set_free(&set);
    return true;
}

// \p{…}, \P{…}, \p{^…}, \pL at the backslash.
static bool read_property(struct rewriter *r, struct class *class)
{
    const char *p = r->p + r->at;
    const size_t left = r->size - r->at;
    bool other = p[1] == 'P';
    if (left > 2 && p[2] != '{') {
        r->at += 3;
        return add_property(r, class, p + 2, 1, other);
    }
    const char *end = memchr(p, '}', left);
    if (!end)
        return give_up(r);
    r->at += (size_t)(end + 1 - p);
    p += 3;
    if (*p == '^')
        other = !other, p++;
    return add_property(r, class, p, (size_t)(end - p), other);
}

// Digits of a number in some base: \x{…} or \xHH. false: none there.
static bool read_hex(struct rewriter *r, uint32_t *code)
{
    const char *p = r->p + r->at + 2;
    const char *end = r->p + r->size;
    const bool braces = p < end && *p == '{';
    const char *digits = p + braces;
    char text[9] = {0};
    size_t n = 0;
    while (digits + n < end && n < (braces ? 8u : 2u) &&
           strchr("0123456789abcdefABCDEF", digits[n])) {
        text[n] = digits[n];
        n++;
    }
    if (n == 0 || (braces && (digits + n == end || digits[n] != '}')))
        return give_up(r);
    *code = (uint32_t)strtoul(text, NULL, 16);
    r->at = (size_t)(digits + n + braces - r->p);
    return true;
}

// Escapes that stand for one character.
static bool read_character_escape(struct rewriter *r, uint32_t *code)
{
    static const char names[] = "nrtfea", codes[] = "\n\r\t\f\x1B\a";
    const char c = r->p[r->at + 1];
    const char *name = strchr(names, c);
    if (c == 'x')
        return read_hex(r, code);
    if (name)
        *code = (uint8_t)codes[name - names];
    else if (c == 'b')
        *code = '\b';
    else if ((uint8_t)c < 0x80 && !strchr("0123456789", c) && !(c >= 'a' && c <= 'z') &&
             !(c >= 'A' && c <= 'Z'))
        *code = (uint8_t)c;
    else
        return give_up(r);
    r->at += 2;
    return true;
}

static bool read_escape(struct rewriter *r, struct class *class, struct atom *atom)
{
    if (r->at + 1 >= r->size)
        return give_up(r);
    const char c = r->p[r->at + 1];
    atom->set = strchr("pPdDs", c) != NULL;
    if (c == 'p' || c == 'P')
        return read_property(r, class);
    if (!atom->set)
        return read_character_escape(r, &atom->code);
    r->at += 2;
    return c == 's' ? add_property(r, class, "White_Space", 11, false)
                    : add_property(r, class, "Nd", 2, c == 'D');
}

// "[:name:]"; what bnt-pack writes.
static bool read_posix(struct rewriter *r, struct class *class)
{
    const char *p = r->p + r->at;
    const size_t left = r->size - r->at;
    const bool digit = left >= 9 && memcmp(p, "[:digit:]", 9) == 0;
    const bool other = left >= 10 && memcmp(p, "[:^digit:]", 10) == 0;
    if (!digit && !other)
        return give_up(r);
    r->at += digit ? 9 : 10;
    return add_property(r, class, "Nd", 2, other);
}

static bool read_atom(struct rewriter *r, struct class *class, struct atom *atom)
{
    *atom = (struct atom){0};
    if (r->p[r->at] == '\\')
        return read_escape(r, class, atom);
    if (r->p[r->at] == '[' && r->at + 1 < r->size && strchr(":.=", r->p[r->at + 1])) {
        atom->set = true;
        return read_posix(r, class);
    }
    r->at += (size_t)bnt_utf8_next((const uint8_t *)r->p + r->at, r->size - r->at, &atom->code);
    return true;
}

// A '-' that makes a range, between two atoms.
static bool at_range(const struct rewriter *r)
{
    return r->at + 1 < r->size && r->p[r->at] == '-' && r->p[r->at + 1] != ']';
}

static bool read_item(struct rewriter *r, struct class *class)
{
    struct atom first, last;
    if (!read_atom(r, class, &first))
        return false;
    last = first;
    if (!first.set && at_range(r)) {
        r->at++;
        if (!read_atom(r, class, &last) || last.set || last.code < first.code)
            return give_up(r);
    }
    if (!first.set)
        bnt_char_set_add(&class->items, first.code, last.code);
    return true;
}

// From behind '[' to behind ']'.
static bool read_class(struct rewriter *r, struct class *class)
{
    class->negated = r->at < r->size && r->p[r->at] == '^';
    r->at += class->negated;
    for (bool first = true; first || (r->at < r->size && r->p[r->at] != ']'); first = false) {
        if (r->at >= r->size || !read_item(r, class))
            return give_up(r);
    }
    if (r->at >= r->size)
        return give_up(r);
    r->at++;
    return true;
}

static void put_ranges(FILE *out, const struct bnt_char_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        (void)fprintf(out, "\\x{%" PRIX32 "}-\\x{%" PRIX32 "}", set->range[i].first,
                      set->range[i].last);
}

// items: without brackets.
static void put_class(struct rewriter *r, struct class *class, const char *items, size_t size)
{
    bnt_char_set_settle(&class->items);
    bnt_char_set_intersect(&class->items, r->odd);
    const char *negation = class->negated ? "^" : "";
    r->changed = true;
    if (!r->removed && !class->lacks) {
        // First, for what is listed may end in a '-'; and it may begin with a ']'.
        (void)fprintf(r->out, "[%s", negation);
        put_ranges(r->out, &class->items);
        (void)fprintf(r->out, "%s%.*s]", size > 0 && *items == ']' ? "\\" : "", (int)size, items);
        return;
    }
    if (class->negated) {
        bnt_char_set_complement(&class->items);
        bnt_char_set_intersect(&class->items, r->odd);
    }
    r->not_odd = true;
    (void)fprintf(r->out, "(?:(?!(?&odd))[%s%.*s]", negation, (int)size, items);
    if (class->items.n > 0) {
        (void)fputs("|[", r->out);
        put_ranges(r->out, &class->items);
        (void)fputc(']', r->out);
    }
    (void)fputc(')', r->out);
}

// At '[' or at the backslash of a property: rewritten if it depends on properties.
static bool rewrite_class(struct rewriter *r)
{
    struct class class = {0};
    const size_t start = r->at;
    size_t items = start, end;
    bool ok;
    if (r->p[start] == '[') {
        r->at++;
        ok = read_class(r, &class);
        items = start + 1 + class.negated;
        end = r->at - 1;
    } else {
        struct atom atom;
        ok = read_escape(r, &class, &atom);
        end = r->at;
    }
    if (ok && class.property)
        put_class(r, &class, r->p + items, end - items);
    else if (ok)
        (void)fwrite(r->p + start, 1, r->at - start, r->out);
    r->out_of_memory |= class.items.failed;
    bnt_char_set_free(&class.items);
    return ok;
}

// Syntax in which what follows would be read wrongly, or that depends on tables of its own.
static bool is_foreign(const struct rewriter *r)
{
    static const char *const foreign[] = {"(*", "(?#", "(?&odd)", "(?<odd>"};
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        const size_t n = strlen(foreign[i]);
        if (r->size - r->at >= n && memcmp(r->p + r->at, foreign[i], n) == 0)
            return true;
    }
    return r->p[r->at] == '\\' && (r->at + 1 == r->size || strchr("QEwWbBXC", r->p[r->at + 1]));
}

static bool rewrite_next(struct rewriter *r)
{
    const char c = r->p[r->at];
    if (is_foreign(r))
        return give_up(r);
    if (c == '[' || (c == '\\' && strchr("pPdD", r->p[r->at + 1])))
        return rewrite_class(r);
    const size_t n = c == '\\' ? 2 : 1;
    (void)fwrite(r->p + r->at, 1, n, r->out);
    r->at += n;
    return true;
}

static void rewrite_all(struct rewriter *r)
{
    (void)fputs("(?:", r->out);
    while (r->understood && r->at < r->size)
        (void)rewrite_next(r);
    (void)fputc(')', r->out);
    if (r->not_odd) {
        (void)fputs("(?(DEFINE)(?<odd>[", r->out);
        put_ranges(r->out, r->odd);
        (void)fputs("]))", r->out);
    }
}

bool bnt_regex_rewrite(const uint8_t *pattern, size_t size, const struct bnt_char_set *odd,
                       bool removed, char **out, size_t *out_size)
{
    struct rewriter r = {.p = (const char *)pattern,
                         .size = size,
                         .odd = odd,
                         .removed = removed,
                         .understood = true};
    *out = NULL;
    r.out = open_memstream(out, out_size);
    if (!r.out)
        return false;
    rewrite_all(&r);
    bool failed = ferror(r.out) || r.out_of_memory;
    failed |= fclose(r.out) != 0;
    if (failed || !r.understood || !r.changed) {
        free(*out);
        *out = NULL;
    }
    return !failed;
}
