// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pack/jinja_parts.h"

enum { MAX_MEMORY = 32 << 20, MAX_DETAIL = 60 };

struct jinja_block {
    struct jinja_block *next;
};

struct jinja_value jinja_fail(struct jinja *j, enum jinja_result result, const char *what,
                              const void *detail, size_t detail_size)
{
    if (j->result != JINJA_OK)
        return (struct jinja_value){0};
    j->result = result;
    (void)snprintf(j->why, JINJA_WHY, "%s%s", what, detail ? " " : "");
    size_t n = strlen(j->why);
    for (size_t i = 0; i < detail_size && i < MAX_DETAIL && n + 1 < JINJA_WHY; i++) {
        const uint8_t c = ((const uint8_t *)detail)[i];
        j->why[n++] = (char)(c < 0x20 || c >= 0x7F ? '?' : c); // one line of a message
    }
    j->why[n] = '\0';
    return (struct jinja_value){0};
}

void *jinja_allocate(struct jinja *j, size_t size)
{
    if (size > MAX_MEMORY || j->allocated > MAX_MEMORY - size) {
        (void)jinja_fail(j, JINJA_UNKNOWN, "it is too long", NULL, 0);
        return NULL;
    }
    struct jinja_block *block = calloc(1, sizeof(max_align_t) + size);
    if (!block) {
        (void)jinja_fail(j, JINJA_NO_MEMORY, "out of memory", NULL, 0);
        return NULL;
    }
    j->allocated += size + sizeof(max_align_t);
    block->next = j->memory;
    j->memory = block;
    return (uint8_t *)block + sizeof(max_align_t);
}

void jinja_free(struct jinja *j)
{
    while (j->memory) {
        struct jinja_block *next = j->memory->next;
        free(j->memory);
        j->memory = next;
    }
}

struct jinja_value jinja_text(const void *text, size_t size)
{
    return (struct jinja_value){.type = VALUE_TEXT, .text = text, .size = size};
}

struct jinja_value jinja_integer(int64_t value)
{
    return (struct jinja_value){.type = VALUE_INTEGER, .integer = value};
}

struct jinja_value jinja_bool(bool value)
{
    return (struct jinja_value){.type = VALUE_BOOL, .integer = value};
}

bool jinja_is(const struct jinja_value *v, const char *text)
{
    return v->size == strlen(text) && memcmp(v->text, text, v->size) == 0;
}

static bool has_mark(const struct jinja_value *v)
{
    return v->type == VALUE_TEXT && v->size > 0 && memchr(v->text, JINJA_MARK, v->size);
}

static struct jinja_value depends(struct jinja *j)
{
    return jinja_fail(j, JINJA_UNKNOWN, "it looks into what is said", NULL, 0);
}

// A text with marks is not empty if it has a character of its own. What a system says is not empty
// either.
static bool text_truth(struct jinja *j, const struct jinja_value *v)
{
    if (!has_mark(v))
        return v->size > 0;
    for (size_t i = 0; i < v->size; i += JINJA_MARK_SIZE) {
        bool system = v->text[i] == JINJA_MARK && v->text[i + 1] == JINJA_SYSTEM &&
                      v->text[i + 2] == JINJA_UNTOUCHED;
        if (v->text[i] != JINJA_MARK || system)
            return true;
    }
    (void)depends(j);
    return false;
}

bool jinja_truth(struct jinja *j, const struct jinja_value *v)
{
    switch (v->type) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
    case VALUE_INTEGER:
        return v->integer != 0;
    case VALUE_TEXT:
        return text_truth(j, v);
    case VALUE_LIST:
        return v->size > 0;
    case VALUE_DICT:
        return v->dict->first || v->dict->is_namespace;
    case VALUE_FUNCTION:
    case VALUE_METHOD:
        break;
    }
    return true;
}

static bool is_number(const struct jinja_value *v)
{
    return v->type == VALUE_BOOL || v->type == VALUE_INTEGER;
}

bool jinja_equal(struct jinja *j, const struct jinja_value *a, const struct jinja_value *b)
{
    if (is_number(a) && is_number(b))
        return a->integer == b->integer;
    if (a->type != b->type)
        return false;
    if (a->type == VALUE_UNDEFINED || a->type == VALUE_NONE)
        return true;
    if (a->type == VALUE_TEXT && (has_mark(a) || has_mark(b))) {
        (void)depends(j);
        return false;
    }
    if (a->type == VALUE_TEXT)
        return a->size == b->size && (a->size == 0 || memcmp(a->text, b->text, a->size) == 0);
    if (a->type == VALUE_LIST && a->size != b->size)
        return false;
    if (a->type == VALUE_LIST && a->size == 0)
        return true;
    (void)jinja_fail(j, JINJA_UNKNOWN, "it compares lists or messages", NULL, 0);
    return false;
}

bool jinja_contains(struct jinja *j, const struct jinja_value *in, const struct jinja_value *what)
{
    if (in->type == VALUE_LIST) {
        bool found = false;
        for (size_t i = 0; i < in->size && !found && j->result == JINJA_OK; i++)
            found = jinja_equal(j, &in->items[i], what);
        return found;
    }
    if (in->type == VALUE_DICT && what->type == VALUE_TEXT && !has_mark(what))
        return jinja_find(in->dict, what->text, what->size) != NULL;
    if (in->type == VALUE_TEXT && what->type == VALUE_TEXT) {
        struct jinja_value method = {
            .type = VALUE_METHOD, .text = (const uint8_t *)"find", .size = 4, .self = in};
        const struct jinja_arguments a = {.values = {*what}, .count = 1};
        return jinja_call(j, &method, &a).integer >= 0;
    }
    if (in->type != VALUE_UNDEFINED)
        (void)jinja_fail(j, JINJA_RAISED, "'in' a value that holds nothing", NULL, 0);
    return false;
}

struct jinja_value jinja_printed(struct jinja *j, const struct jinja_value *v)
{
    char *text;
    switch (v->type) {
    case VALUE_TEXT:
        return *v;
    case VALUE_UNDEFINED:
        return jinja_text("", 0);
    case VALUE_NONE:
        return jinja_text("None", 4);
    case VALUE_BOOL:
        return v->integer ? jinja_text("True", 4) : jinja_text("False", 5);
    case VALUE_INTEGER:
        text = jinja_allocate(j, 24);
        return text ? jinja_text(text, (size_t)snprintf(text, 24, "%" PRId64, v->integer))
                    : (struct jinja_value){0};
    default:
        return jinja_fail(j, JINJA_UNKNOWN, "it writes a list or a message", NULL, 0);
    }
}

struct jinja_value jinja_concat(struct jinja *j, const struct jinja_value *a,
                                const struct jinja_value *b)
{
    uint8_t *text = jinja_allocate(j, a->size + b->size + 1);
    if (!text)
        return (struct jinja_value){0};
    if (a->size)
        memcpy(text, a->text, a->size);
    if (b->size)
        memcpy(text + a->size, b->text, b->size);
    return jinja_text(text, a->size + b->size);
}

// --- parts of values ---

struct jinja_entry *jinja_find(const struct jinja_dict *dict, const void *key, size_t size)
{
    for (struct jinja_entry *e = dict->first; e; e = e->next) {
        if (e->key_size == size && memcmp(e->key, key, size) == 0)
            return e;
    }
    return NULL;
}

bool jinja_set(struct jinja *j, struct jinja_dict *dict, const void *key, size_t size,
               const struct jinja_value *value)
{
    struct jinja_entry *e = jinja_find(dict, key, size);
    if (!e) {
        e = jinja_allocate(j, sizeof *e);
        if (!e)
            return false;
        *e = (struct jinja_entry){.key = key, .key_size = size, .next = dict->first};
        dict->first = e;
    }
    e->value = *value;
    return true;
}

struct jinja_value jinja_attribute(struct jinja *j, const struct jinja_value *of, const void *name,
                                   size_t size)
{
    if (of->type == VALUE_UNDEFINED)
        return jinja_fail(j, JINJA_RAISED, "an undefined value has no attribute", name, size);
    const struct jinja_entry *e = of->type == VALUE_DICT ? jinja_find(of->dict, name, size) : NULL;
    if (e)
        return e->value;
    struct jinja_value *self = jinja_allocate(j, sizeof *self);
    if (!self)
        return *of;
    *self = *of;
    const struct jinja_value method = {
        .type = VALUE_METHOD, .text = name, .size = size, .self = self};
    bool text = of->type == VALUE_TEXT;
    static const char *const of_dicts[] = {"get", "items", "keys", "values", "pop", "update"};
    bool dict = false;
    for (size_t i = 0; i < sizeof of_dicts / sizeof of_dicts[0]; i++)
        dict = dict || (of->type == VALUE_DICT && jinja_is(&method, of_dicts[i]));
    return text || dict || of->type == VALUE_LIST ? method : (struct jinja_value){0};
}

struct jinja_value jinja_item(struct jinja *j, const struct jinja_value *of,
                              const struct jinja_value *index)
{
    if (of->type == VALUE_DICT && index->type == VALUE_TEXT) {
        const struct jinja_entry *e = jinja_find(of->dict, index->text, index->size);
        return e ? e->value : (struct jinja_value){0};
    }
    if (of->type == VALUE_UNDEFINED)
        return jinja_fail(j, JINJA_RAISED, "an undefined value has no items", NULL, 0);
    if (!is_number(index) || (of->type != VALUE_LIST && of->type != VALUE_TEXT))
        return (struct jinja_value){0};
    if (has_mark(of))
        return depends(j);
    int64_t i = index->integer < 0 ? index->integer + (int64_t)of->size : index->integer;
    if (i < 0 || i >= (int64_t)of->size)
        return (struct jinja_value){0};
    return of->type == VALUE_LIST ? of->items[i] : jinja_text(of->text + i, 1);
}

// Python's: a missing bound is none, negative ones count from the end.
static int64_t slice_bound(const struct jinja_value *v, int64_t size, int64_t fallback, bool back)
{
    if (!is_number(v))
        return fallback;
    int64_t at = v->integer < 0 ? v->integer + size : v->integer;
    int64_t low = back ? -1 : 0, high = back ? size - 1 : size;
    return at < low ? low : at > high ? high : at;
}

struct jinja_value jinja_slice(struct jinja *j, const struct jinja_value *of,
                               const struct jinja_value bounds[3])
{
    if (of->type != VALUE_LIST)
        return has_mark(of) ? depends(j)
                            : jinja_fail(j, JINJA_UNKNOWN, "a slice of no list", NULL, 0);
    const int64_t size = (int64_t)of->size;
    const int64_t step = is_number(&bounds[2]) ? bounds[2].integer : 1;
    if (step == 0)
        return jinja_fail(j, JINJA_RAISED, "a slice by steps of 0", NULL, 0);
    const bool back = step < 0;
    const int64_t start = slice_bound(&bounds[0], size, back ? size - 1 : 0, back);
    const int64_t stop = slice_bound(&bounds[1], size, back ? -1 : size, back);
    struct jinja_value *items = jinja_allocate(j, (of->size + 1) * sizeof *items);
    struct jinja_value list = {.type = VALUE_LIST, .items = items};
    for (int64_t i = start; items && (back ? i > stop : i < stop); i += step)
        items[list.size++] = of->items[i];
    return list;
}
