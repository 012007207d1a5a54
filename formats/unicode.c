// SPDX-License-Identifier: MIT
#include "formats/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"

static const char category_names[][3] = {
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs"};
_Static_assert(sizeof category_names / sizeof category_names[0] == BNT_UNICODE_CS + 1,
               "categories");

enum { FIRST_MASK = 0x1FFFFF, CATEGORY_SHIFT = 21, CATEGORY_MASK = 31, FLAGS_SHIFT = 26 };

struct bnt_unicode_run bnt_unicode_run_at(uint32_t index)
{
    const uint32_t value = bnt_unicode_runs[index];
    const bool last = index + 1 == bnt_unicode_n_runs;
    return (struct bnt_unicode_run){
        .first = value & FIRST_MASK,
        .end = last ? BNT_UNICODE_END : bnt_unicode_runs[index + 1] & FIRST_MASK,
        .category = (enum bnt_unicode_category)(value >> CATEGORY_SHIFT & CATEGORY_MASK),
        .flags = value >> FLAGS_SHIFT,
    };
}

struct bnt_unicode_run bnt_unicode_find(uint32_t code)
{
    uint32_t low = 0, high = bnt_unicode_n_runs; // the run is in low … high − 1
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if ((bnt_unicode_runs[middle] & FIRST_MASK) <= code)
            low = middle;
        else
            high = middle;
    }
    return bnt_unicode_run_at(low);
}

bool bnt_unicode_is_word(uint32_t code)
{
    const struct bnt_unicode_run run = bnt_unicode_find(code);
    const enum bnt_unicode_category c = run.category;
    return run.flags & BNT_UNICODE_ALPHABETIC || (c >= BNT_UNICODE_MN && c <= BNT_UNICODE_ND) ||
           c == BNT_UNICODE_PC || code == 0x200C || code == 0x200D;
}

uint32_t bnt_unicode_lowercase(uint32_t code)
{
    uint32_t low = 0, high = bnt_unicode_n_lower;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (bnt_unicode_lower[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    const struct bnt_case_run *run = &bnt_unicode_lower[low];
    if (low == bnt_unicode_n_lower || code < run->first || (code - run->first) % run->stride != 0)
        return code;
    return (uint32_t)((int32_t)code + run->distance);
}

// --- sets of characters ---

void bnt_char_set_free(struct bnt_char_set *set)
{
    free(set->range);
    *set = (struct bnt_char_set){0};
}

void bnt_char_set_add(struct bnt_char_set *set, uint32_t first, uint32_t last)
{
    if (set->failed)
        return;
    if (set->n > 0 && set->range[set->n - 1].last + 1 == first) { // grown in order
        set->range[set->n - 1].last = last;
        return;
    }
    if (set->n == set->capacity) {
        size_t capacity = set->capacity ? 2 * set->capacity : 64;
        void *grown = realloc(set->range, capacity * sizeof set->range[0]);
        set->failed = !grown;
        if (!grown)
            return;
        set->range = grown;
        set->capacity = capacity;
    }
    set->range[set->n++] = (struct bnt_char_range){first, last};
}

static int compare_ranges(const void *a, const void *b)
{
    const struct bnt_char_range *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

void bnt_char_set_settle(struct bnt_char_set *set)
{
    size_t n = 0;
    if (set->n > 1)
        qsort(set->range, set->n, sizeof set->range[0], compare_ranges);
    for (size_t i = 0; i < set->n; i++) {
        struct bnt_char_range *before = n ? &set->range[n - 1] : NULL;
        if (before && set->range[i].first <= before->last + 1)
            before->last = before->last > set->range[i].last ? before->last : set->range[i].last;
        else
            set->range[n++] = set->range[i];
    }
    set->n = n;
}

void bnt_char_set_complement(struct bnt_char_set *set)
{
    struct bnt_char_set out = {.failed = set->failed};
    uint32_t next = 0;
    for (size_t i = 0; i < set->n; i++) {
        if (set->range[i].first > next)
            bnt_char_set_add(&out, next, set->range[i].first - 1);
        next = set->range[i].last + 1;
    }
    if (next < BNT_UNICODE_END)
        bnt_char_set_add(&out, next, BNT_UNICODE_END - 1);
    free(set->range);
    *set = out;
}

void bnt_char_set_intersect(struct bnt_char_set *set, const struct bnt_char_set *other)
{
    struct bnt_char_set out = {.failed = set->failed || other->failed};
    for (size_t i = 0, j = 0; i < set->n && j < other->n;) {
        const struct bnt_char_range *a = &set->range[i], *b = &other->range[j];
        uint32_t first = a->first > b->first ? a->first : b->first;
        uint32_t last = a->last < b->last ? a->last : b->last;
        if (first <= last)
            bnt_char_set_add(&out, first, last);
        if (a->last < b->last)
            i++;
        else
            j++;
    }
    free(set->range);
    *set = out;
}

// The index of the first range that does not end before code.
static size_t first_not_before(const struct bnt_char_set *set, uint32_t code)
{
    size_t low = 0, high = set->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (set->range[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool bnt_char_set_has(const struct bnt_char_set *set, uint32_t code)
{
    size_t i = first_not_before(set, code);
    return i < set->n && set->range[i].first <= code;
}

struct bnt_char_range bnt_char_set_gap(const struct bnt_char_set *set, uint32_t code)
{
    size_t i = first_not_before(set, code);
    return (struct bnt_char_range){
        .first = i > 0 ? set->range[i - 1].last + 1 : 0,
        .last = i < set->n ? set->range[i].first - 1 : BNT_UNICODE_END - 1,
    };
}

// --- properties ---

static bool is_name(const char *name, size_t size, const char *other)
{
    return strlen(other) == size && memcmp(name, other, size) == 0;
}

// Bit c: general category c. 0: not the name of one, nor of several.
static uint32_t categories_named(const char *name, size_t size)
{
    uint32_t found = 0;
    if (is_name(name, size, "Any"))
        return (1u << (BNT_UNICODE_CS + 1)) - 1;
    if (is_name(name, size, "L&") || is_name(name, size, "LC"))
        return 1u << BNT_UNICODE_LU | 1u << BNT_UNICODE_LL | 1u << BNT_UNICODE_LT;
    for (unsigned i = 0; i <= BNT_UNICODE_CS; i++) {
        if ((size == 1 || size == 2) && memcmp(category_names[i], name, size) == 0)
            found |= 1u << i;
    }
    return found;
}

static unsigned flag_named(const char *name, size_t size)
{
    static const struct {
        const char *name;
        unsigned flag;
    } flags[] = {
        {"Alphabetic", BNT_UNICODE_ALPHABETIC}, {"Alpha", BNT_UNICODE_ALPHABETIC},
        {"Uppercase", BNT_UNICODE_UPPERCASE},   {"Upper", BNT_UNICODE_UPPERCASE},
        {"Lowercase", BNT_UNICODE_LOWERCASE},   {"Lower", BNT_UNICODE_LOWERCASE},
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (is_name(name, size, flags[i].name))
            return flags[i].flag;
    }
    return 0;
}

static void add_runs(struct bnt_char_set *set, uint32_t categories, unsigned flag)
{
    for (uint32_t i = 0; i < bnt_unicode_n_runs; i++) {
        const struct bnt_unicode_run run = bnt_unicode_run_at(i);
        if (1u << run.category & categories || run.flags & flag)
            bnt_char_set_add(set, run.first, run.end - 1);
    }
}

static const struct bnt_unicode_script *find_script(const char *name, size_t size)
{
    for (uint32_t i = 0; i < bnt_unicode_n_scripts; i++) {
        if (is_name(name, size, bnt_unicode_scripts[i].name))
            return &bnt_unicode_scripts[i];
    }
    return NULL;
}

bool bnt_unicode_is_script(const char *name, size_t size)
{
    return find_script(name, size) != NULL;
}

static void add_white_space(struct bnt_char_set *set)
{
    for (uint32_t c = 0; c <= 0x3000; c++) {
        if (bnt_is_white_space(c))
            bnt_char_set_add(set, c, c);
    }
}

static bool add_property(struct bnt_char_set *set, const char *name, size_t size)
{
    const uint32_t categories = categories_named(name, size);
    const unsigned flag = flag_named(name, size);
    const struct bnt_unicode_script *script = find_script(name, size);
    if (categories || flag) {
        add_runs(set, categories, flag);
    } else if (script) {
        for (uint32_t i = 0; i < script->ranges.n; i++)
            bnt_char_set_add(set, script->ranges.range[i].first, script->ranges.range[i].last);
    } else if (is_name(name, size, "White_Space") || is_name(name, size, "Space")) {
        add_white_space(set);
    } else if (is_name(name, size, "AHex")) {
        bnt_char_set_add(set, '0', '9');
        bnt_char_set_add(set, 'A', 'F');
        bnt_char_set_add(set, 'a', 'f');
    } else {
        return false;
    }
    return true;
}

bool bnt_char_set_add_property(struct bnt_char_set *set, const char *name, size_t size)
{
    bool known = add_property(set, name, size);
    bnt_char_set_settle(set);
    return known;
}
