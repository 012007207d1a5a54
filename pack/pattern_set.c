// SPDX-License-Identifier: MIT
// Sets of characters in patterns: classes, within one another and intersected, and the escapes that
// stand for sets.
#include "pack/pattern_scan.h"

#include <stdio.h>
#include <stdlib.h>

#include "formats/unicode.h"
#include "formats/utf8.h"

// Unicode's White_Space, spelled out: PCRE2 knows the property since 10.40 only.
#define SPACE_BUT_BLANK                                                                            \
    "\\x09-\\x0D\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x" \
    "{3000}"
#define SPACE                                                                                      \
    "\\x09-\\x0D\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{"    \
    "205F}\\x{3000}"

// Oniguruma's word characters, inside a class; outside, it also takes six fractions and
// superscripts for some.
#define WORD      "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define MORE_WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

// Escapes for sets. \s is White_Space there, \h a hex digit.
static const struct set {
    char escape;
    bool other;         // the set's complement
    const char *items;  // of a class; of its complement, if that is meant
    const char *others; // what stands for a complement in a class; NULL: nothing does
} sets[] = {
    {'s', false, SPACE, NULL},       {'S', true, SPACE, "\\P{White_Space}"},
    {'d', false, "\\p{Nd}", NULL},   {'D', true, "\\p{Nd}", "\\P{Nd}"},
    {'h', false, "0-9A-Fa-f", NULL}, {'H', true, "0-9A-Fa-f", "\\P{AHex}"},
    {'w', false, WORD, NULL},        {'W', true, WORD, NULL},
};

// Names between "[:" and ":]". PCRE2's follow other definitions than Unicode's properties of that
// name.
static const struct {
    const char *name;
    const char *items;
} posix_names[] = {
    {"digit", "\\p{Nd}"},
    {"^digit", "\\P{Nd}"},
    {"word", WORD},
    {"space", SPACE},
    {"punct", "\\p{P}\\p{S}"},
    {"alpha", "\\p{Alphabetic}"},
    {"upper", "\\p{Uppercase}"},
    {"lower", "\\p{Lowercase}"},
    {"alnum", "\\p{Alphabetic}\\p{Nd}"},
};

// A union of sets as it grows.
struct group {
    struct bnt_buffer items;  // what can stand between brackets
    struct bnt_buffer others; // "|X|Y": expressions for one character that cannot
};

static void free_group(struct group *g)
{
    bnt_buffer_free(&g->items);
    bnt_buffer_free(&g->others);
}

static void put_buffer(struct bnt_buffer *out, const struct bnt_buffer *in)
{
    bnt_buffer_put(out, in->data, in->size);
    out->failed |= in->failed;
}

// An expression for one character that is, or is not, in the group.
static void put_group(struct bnt_buffer *out, const struct group *g, bool negated)
{
    const bool items = g->items.size > 0, others = g->others.size > 0;
    if (others)
        bnt_pattern_put(out, negated ? "(?:(?!" : "(?:");
    if (others && negated) {
        bnt_buffer_put(out, g->others.data + 1, g->others.size - 1);
        bnt_pattern_put(out, ")");
    }
    if (items) {
        bnt_pattern_put(out, negated ? "[^" : "[");
        put_buffer(out, &g->items);
        bnt_pattern_put(out, "]");
    } else if (negated || !others) {
        bnt_pattern_put(out, negated ? BNT_PATTERN_ANY : BNT_PATTERN_NEVER);
    }
    if (others && !negated)
        bnt_buffer_put(out, g->others.data + !items, g->others.size - !items);
    if (others)
        bnt_pattern_put(out, ")");
    out->failed |= g->items.failed || g->others.failed;
}

// Adds a set that is not to be had between brackets, or its complement.
static void add_other(struct group *g, const char *before, const char *items, bool other)
{
    bnt_pattern_put(&g->others, "|");
    bnt_pattern_put(&g->others, before);
    bnt_pattern_put(&g->others, other ? "[^" : "[");
    bnt_pattern_put(&g->others, items);
    bnt_pattern_put(&g->others, "]");
}

static void put_range(struct bnt_buffer *out, uint32_t first, uint32_t last)
{
    bnt_pattern_put_character(out, first);
    if (last > first) {
        bnt_pattern_put(out, "-");
        bnt_pattern_put_character(out, last);
    }
}

// A range of characters. Of a marked text's, U+2581 is a space and a space is none.
static void add_range(const struct bnt_pattern_scanner *s, struct group *g, uint32_t first,
                      uint32_t last)
{
    const bool space = first <= BNT_PATTERN_SPACE && last >= BNT_PATTERN_SPACE;
    const bool mark = first <= BNT_PATTERN_MARK && last >= BNT_PATTERN_MARK;
    if (!s->marked || space == mark) {
        put_range(&g->items, first, last);
        return;
    }
    if (mark)
        bnt_pattern_put(&g->items, "\\x20");
    if (mark && last > first)
        put_range(&g->items, first, last);
    if (space && first < BNT_PATTERN_SPACE)
        put_range(&g->items, first, BNT_PATTERN_SPACE - 1);
    if (space && last > BNT_PATTERN_SPACE)
        put_range(&g->items, BNT_PATTERN_SPACE + 1, last);
}

// --- properties ---

// Names are compared without case, spaces, '-' and '_'.
static size_t plain_name(const char *name, size_t size, char out[32])
{
    size_t n = 0;
    for (size_t i = 0; i < size && n < 31; i++) {
        if (!strchr(" -_", name[i]))
            out[n++] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    }
    out[n] = '\0';
    return n;
}

// Other names that Oniguruma has for what bnt_char_set_add_property knows.
static const struct {
    const char *name, *property;
} aliases[] = {
    {"any", "Any"},
    {"alphabetic", "Alphabetic"},
    {"alpha", "Alphabetic"},
    {"uppercase", "Uppercase"},
    {"upper", "Uppercase"},
    {"lowercase", "Lowercase"},
    {"lower", "Lowercase"},
    {"whitespace", "White_Space"},
    {"space", "White_Space"},
    {"asciihexdigit", "AHex"},
    {"ahex", "AHex"},
    {"letter", "L"},
    {"mark", "M"},
    {"number", "N"},
    {"punctuation", "P"},
    {"symbol", "S"},
    {"separator", "Z"},
    {"other", "C"},
    {"lc", "L&"},
    {"casedletter", "L&"},
    {"digit", "Nd"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"unassigned", "Cn"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"privateuse", "Co"},
};

// The property that a name stands for, as PCRE2 writes it; false: unknown.
static bool find_property(const char *name, size_t size, char out[32])
{
    char plain[32];
    const size_t n = plain_name(name, size, plain);
    struct bnt_char_set set = {0};
    out[0] = '\0';
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (strcmp(aliases[i].name, plain) == 0)
            (void)snprintf(out, 32, "%s", aliases[i].property);
    }
    for (uint32_t i = 0; i < bnt_unicode_n_scripts; i++) {
        char script[32];
        (void)plain_name(bnt_unicode_scripts[i].name, strlen(bnt_unicode_scripts[i].name), script);
        if (strcmp(script, plain) == 0) // "Han" alone would be Script_Extensions to PCRE2
            (void)snprintf(out, 32, "sc:%s", bnt_unicode_scripts[i].name);
    }
    if (!out[0] && n >= 1 && n <= 2) { // a general category
        (void)snprintf(out, 32, "%s", plain);
        out[0] = (char)(out[0] >= 'a' && out[0] <= 'z' ? out[0] - 32 : out[0]);
        if (!bnt_char_set_add_property(&set, out, n))
            out[0] = '\0';
        bnt_char_set_free(&set);
    }
    return out[0] != '\0';
}

static bool property_has(const char *property, uint32_t code)
{
    struct bnt_char_set set = {0};
    const char *name = strncmp(property, "sc:", 3) == 0 ? property + 3 : property;
    (void)bnt_char_set_add_property(&set, name, strlen(name));
    bool has = bnt_char_set_has(&set, code);
    bnt_char_set_free(&set);
    return has;
}

// Whether a property holds letters without their other case; all scripts are taken to.
static bool depends_on_case(const char *property)
{
    struct bnt_char_set set = {0};
    bool depends = !bnt_char_set_add_property(&set, property, strlen(property));
    for (uint32_t i = 0; i < bnt_unicode_n_lower && !depends; i++) {
        const uint32_t upper = bnt_unicode_lower[i].first;
        depends =
            bnt_char_set_has(&set, upper) != bnt_char_set_has(&set, bnt_unicode_lowercase(upper));
    }
    bnt_char_set_free(&set);
    return depends;
}

// \p{…}, \P{…}, \p{^…}, at the backslash.
static bool add_property(struct bnt_pattern_scanner *s, struct group *g)
{
    const char *p = s->p + s->at;
    const char *end = memchr(p, '}', s->size - s->at);
    char property[32], item[48];
    bool other = p[1] == 'P';
    if (!bnt_pattern_next_is(s, 'p') && !other)
        return false;
    if (s->size - s->at < 4 || p[2] != '{' || !end)
        return false;
    s->at = (size_t)(end + 1 - s->p);
    p += 3;
    if (p < end && *p == '^')
        other = !other, p++;
    if (!find_property(p, (size_t)(end - p), property))
        return false;
    (void)snprintf(item, sizeof item, "\\%c{%s}", other ? 'P' : 'p', property);
    const bool space = property_has(property, BNT_PATTERN_SPACE) != other;
    const bool mark = property_has(property, BNT_PATTERN_MARK) != other;
    if (s->caseless && depends_on_case(property))
        return false;
    if (s->marked && space && !mark) {
        add_other(g, "(?!\\x20)", item, false);
        return true;
    }
    bnt_pattern_put(&g->items, item);
    if (s->marked && mark && !space)
        bnt_pattern_put(&g->items, "\\x20");
    return true;
}

// --- escapes for sets ---

static const struct set *find_set(const struct bnt_pattern_scanner *s)
{
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (bnt_pattern_next_is(s, sets[i].escape))
            return &sets[i];
    }
    return NULL;
}

// In a marked text no space is white space: U+2581 is not.
static const char *items_of(const struct bnt_pattern_scanner *s, const char *items)
{
    return s->marked && strcmp(items, SPACE) == 0 ? SPACE_BUT_BLANK : items;
}

bool bnt_pattern_is_set(const struct bnt_pattern_scanner *s)
{
    return bnt_pattern_next_is(s, 'p') || bnt_pattern_next_is(s, 'P') || find_set(s);
}

// An escape in a class.
static bool add_set(struct bnt_pattern_scanner *s, struct group *g)
{
    const struct set *set = find_set(s);
    if (!set)
        return add_property(s, g);
    if (set->other && !set->others)
        return false;
    s->at += 2;
    const char *items = items_of(s, set->items);
    if (set->other && items != set->items)
        add_other(g, "", items, true);
    else
        bnt_pattern_put(&g->items, set->other ? set->others : items);
    return true;
}

bool bnt_pattern_translate_set(struct bnt_pattern_scanner *s)
{
    const struct set *set = find_set(s);
    struct group g = {0};
    bool ok = true, negated = set && set->other;
    if (set) {
        bnt_pattern_put(&g.items, items_of(s, set->items));
        if (strcmp(set->items, WORD) == 0)
            bnt_pattern_put(&g.items, MORE_WORD);
        s->at += 2;
    } else {
        ok = add_property(s, &g);
    }
    if (ok)
        put_group(s->out, &g, negated);
    free_group(&g);
    return ok;
}

// "[:name:]" inside a class.
static bool add_posix(struct bnt_pattern_scanner *s, struct group *g)
{
    const char *name = s->p + s->at + 2;
    size_t left = s->size - s->at - 2;
    for (size_t i = 0; i < sizeof posix_names / sizeof posix_names[0]; i++) {
        const size_t n = strlen(posix_names[i].name);
        if (left < n + 2 || memcmp(name, posix_names[i].name, n) != 0 || name[n] != ':' ||
            name[n + 1] != ']')
            continue;
        const char *items = posix_names[i].items;
        if (s->caseless && strstr(items, "case}"))
            return false;
        bnt_pattern_put(&g->items, items_of(s, items));
        if (s->marked && strcmp(items, "\\p{P}\\p{S}") == 0) // U+2581 is a symbol
            bnt_pattern_put(&g->items, "\\x20");
        s->at += n + 4;
        return true;
    }
    return false;
}

// --- classes ---

enum { MAX_NESTING = 16 };

static bool read_class(struct bnt_pattern_scanner *s, int depth, struct group *flat,
                       struct bnt_buffer *out);

// A character, or a range of them.
static bool add_characters(struct bnt_pattern_scanner *s, struct group *g)
{
    uint32_t first, last;
    if (!bnt_pattern_read_character(s, true, &first))
        return false;
    last = first;
    const bool dash = s->at + 1 < s->size && s->p[s->at] == '-';
    if (dash && s->p[s->at + 1] != ']' && s->p[s->at + 1] != '[' &&
        !(s->p[s->at + 1] == '&' && s->at + 2 < s->size && s->p[s->at + 2] == '&')) {
        s->at++;
        if ((s->p[s->at] == '\\' && bnt_pattern_is_set(s)) ||
            !bnt_pattern_read_character(s, true, &last) || last < first)
            return false;
    }
    for (uint32_t code = first > 0x80 ? first : 0x80; s->caseless && code <= last; code++) {
        if (!bnt_pattern_caseless_fits(s, code))
            return false;
    }
    add_range(s, g, first, last);
    return true;
}

static bool add_item(struct bnt_pattern_scanner *s, int depth, struct group *g)
{
    const char c = s->p[s->at];
    if (c == '[' && bnt_pattern_next_is(s, ':'))
        return add_posix(s, g);
    if (c == '[')
        return !s->caseless && read_class(s, depth + 1, g, NULL);
    if (c == '\\' && bnt_pattern_is_set(s))
        return add_set(s, g);
    return add_characters(s, g);
}

// Up to "&&" or the ']' at the end.
static bool read_union(struct bnt_pattern_scanner *s, int depth, struct group *g)
{
    while (s->at < s->size && s->p[s->at] != ']') {
        if (s->p[s->at] == '&' && bnt_pattern_next_is(s, '&'))
            return true;
        if (!add_item(s, depth, g))
            return false;
    }
    return s->at < s->size;
}

// The operands of "&&": all but the last as conditions.
static bool read_operands(struct bnt_pattern_scanner *s, int depth, struct group *last,
                          struct bnt_buffer *conditions)
{
    for (;;) {
        if (!read_union(s, depth, last))
            return false;
        if (s->p[s->at] == ']')
            return true;
        if (s->caseless || last->items.size + last->others.size == 0)
            return false; // what nothing && something means is not clear
        s->at += 2;
        bnt_pattern_put(conditions, "(?=");
        put_group(conditions, last, false);
        bnt_pattern_put(conditions, ")");
        free_group(last);
    }
}

static void put_intersection(struct bnt_buffer *out, const struct bnt_buffer *conditions,
                             const struct group *last, bool negated)
{
    bnt_pattern_put(out, negated ? "(?:(?!" : "(?:");
    put_buffer(out, conditions);
    put_group(out, last, false);
    bnt_pattern_put(out, negated ? ")" BNT_PATTERN_ANY ")" : ")");
}

// A class from '[' to ']'. out: where its expression goes; NULL: it is a part of flat.
static bool read_class(struct bnt_pattern_scanner *s, int depth, struct group *flat,
                       struct bnt_buffer *out)
{
    struct group g = {0};
    struct bnt_buffer conditions = {0};
    const bool negated = bnt_pattern_next_is(s, '^');
    if (depth > MAX_NESTING)
        return false;
    s->at += 1 + negated;
    if (s->at < s->size && s->p[s->at] == ']') { // an ordinary character there
        add_range(s, &g, ']', ']');
        s->at++;
    }
    bool ok = read_operands(s, depth, &g, &conditions);
    s->at++;
    if (ok && flat && !negated && conditions.size == 0) {
        put_buffer(&flat->items, &g.items);
        put_buffer(&flat->others, &g.others);
    } else if (ok) {
        if (flat)
            bnt_pattern_put(&flat->others, "|");
        struct bnt_buffer *to = flat ? &flat->others : out;
        if (conditions.size > 0)
            put_intersection(to, &conditions, &g, negated);
        else
            put_group(to, &g, negated);
    }
    free_group(&g);
    bnt_buffer_free(&conditions);
    return ok;
}

bool bnt_pattern_translate_class(struct bnt_pattern_scanner *s)
{
    return read_class(s, 0, NULL, s->out);
}
