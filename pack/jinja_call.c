// SPDX-License-Identifier: MIT
// Filters, tests, methods and functions.
#include <string.h>

#include "formats/utf8.h"
#include "pack/jinja_parts.h"

static struct jinja_value depends(struct jinja *j)
{
    return jinja_fail(j, JINJA_UNKNOWN, "it looks into what is said", NULL, 0);
}

static bool has_mark(const struct jinja_value *v)
{
    return v->size > 0 && memchr(v->text, JINJA_MARK, v->size);
}

// --- stripping ---

// What is stripped: white space, or the characters of a text.
struct strip {
    const struct jinja_value *characters; // NULL: white space
    bool left, right;
};

// The size of the strippable character that the text begins with, or 0.
static size_t strippable(const struct strip *s, const uint8_t *text, size_t size)
{
    uint32_t c;
    int n = size ? bnt_utf8_next(text, size, &c) : 0;
    if (n <= 0)
        return 0;
    if (!s->characters)
        return bnt_is_white_space(c) || (c >= 0x1C && c <= 0x1F) ? (size_t)n : 0;
    for (size_t i = 0; i < s->characters->size;) {
        int m = bnt_utf8_next(s->characters->text + i, s->characters->size - i, NULL);
        if (m == n && memcmp(s->characters->text + i, text, (size_t)n) == 0)
            return (size_t)n;
        i += m > 0 ? (size_t)m : 1;
    }
    return 0;
}

static size_t last_character(const uint8_t *text, size_t size)
{
    size_t at = size;
    do
        at--;
    while (at > 0 && (text[at] & 0xC0) == 0x80);
    return at;
}

// Notes in a mark that it is stripped on one side; false: what stands on its other side (beside)
// might be stripped too, if nothing was said, or these characters are not known.
static bool strip_mark(const struct strip *s, uint8_t *mark, bool left, bool beside)
{
    const uint8_t all = left ? JINJA_LSTRIP : JINJA_RSTRIP;
    const uint8_t newlines = left ? JINJA_LSTRIP_NEWLINES : JINJA_RSTRIP_NEWLINES;
    if (beside || (s->characters && !jinja_is(s->characters, "\n")))
        return false;
    if (!s->characters)
        mark[2] = (uint8_t)((mark[2] | all) & ~newlines);
    else if (!(mark[2] & all))
        mark[2] |= newlines;
    return true;
}

static struct jinja_value strip(struct jinja *j, const struct jinja_value *v, const struct strip *s)
{
    const struct jinja_value empty = {.text = (const uint8_t *)""};
    struct jinja_value out = jinja_concat(j, v, &empty); // a copy, whose marks may change
    uint8_t *text = (uint8_t *)out.text;
    size_t start = 0, end = out.size, n;
    bool ok = true;
    if (j->result != JINJA_OK)
        return out;
    while (s->left && (n = strippable(s, text + start, end - start)) > 0)
        start += n;
    if (s->left && start < end && text[start] == JINJA_MARK) {
        const uint8_t *next = text + start + JINJA_MARK_SIZE;
        size_t left = end - start - JINJA_MARK_SIZE;
        ok = strip_mark(s, text + start, true,
                        left > 0 && (*next == JINJA_MARK || strippable(s, next, left)));
    }
    while (s->right && end > start) {
        size_t before = last_character(text, end);
        size_t beside = before > start ? last_character(text, before) : before;
        if (text[before] == JINJA_MARK) {
            bool another = before > start && text[beside] == JINJA_MARK;
            ok = ok && strip_mark(s, text + before, false,
                                  another || strippable(s, text + beside, before - beside));
            break;
        }
        if (!strippable(s, text + before, end - before))
            break;
        end = before;
    }
    return ok ? jinja_text(text + start, end - start) : depends(j);
}

// --- looking for a text ---

// What may be looked for in what somebody says: ordinary conversations do not hold it, and the
// caller tries those that do.
static bool assume_absent(struct jinja *j, const struct jinja_value *in,
                          const struct jinja_value *what)
{
    bool thinking = jinja_is(what, "</think>") || jinja_is(what, "<think>");
    bool tools = jinja_is(what, "<tool_response>") || jinja_is(what, "</tool_response>");
    for (size_t i = 0; i < in->size; i++) {
        if (in->text[i] != JINJA_MARK)
            continue;
        bool answer = in->text[i + 1] % 2 == 1 && in->text[i + 1] != JINJA_SYSTEM;
        bool user = in->text[i + 1] % 2 == 0;
        if (!(thinking && answer) && !(tools && user))
            return false;
        i += JINJA_MARK_SIZE - 1;
    }
    j->assumed |= thinking ? JINJA_ASSUMED_NO_THINKING : JINJA_ASSUMED_NO_TOOLS;
    return true;
}

// The place of `what` at or after from, −1 if it is not there.
static int64_t find(struct jinja *j, const struct jinja_value *in, const struct jinja_value *what,
                    size_t from)
{
    if (has_mark(what)) {
        (void)depends(j);
        return -1;
    }
    for (size_t at = from; at <= in->size && what->size <= in->size - at; at++) {
        if (what->size == 0 || memcmp(in->text + at, what->text, what->size) == 0)
            return (int64_t)at;
    }
    if (has_mark(in) && !assume_absent(j, in, what))
        (void)depends(j);
    return -1;
}

static bool starts_or_ends(struct jinja *j, const struct jinja_value *v,
                           const struct jinja_value *what, bool starts)
{
    if (has_mark(what)) {
        (void)depends(j);
        return false;
    }
    size_t common = v->size < what->size ? v->size : what->size;
    for (size_t i = 0; i < common; i++) {
        uint8_t of = v->text[starts ? i : v->size - 1 - i];
        uint8_t wanted = what->text[starts ? i : what->size - 1 - i];
        bool mark = starts ? of == JINJA_MARK
                           : v->size - i >= JINJA_MARK_SIZE &&
                                 v->text[v->size - i - JINJA_MARK_SIZE] == JINJA_MARK;
        if (mark) {
            if (!assume_absent(j, v, what))
                (void)depends(j);
            return false;
        }
        if (of != wanted)
            return false;
    }
    if (common < what->size && has_mark(v))
        (void)depends(j);
    return common == what->size;
}

static struct jinja_value split(struct jinja *j, const struct jinja_value *v,
                                const struct jinja_value *by)
{
    if (by->type != VALUE_TEXT || by->size == 0)
        return has_mark(v) ? depends(j)
                           : jinja_fail(j, JINJA_UNKNOWN, "split without a text", NULL, 0);
    struct jinja_value *items = jinja_allocate(j, (v->size / by->size + 2) * sizeof *items);
    struct jinja_value list = {.type = VALUE_LIST, .items = items};
    size_t from = 0;
    for (int64_t at; items && (at = find(j, v, by, from)) >= 0; from = (size_t)at + by->size)
        items[list.size++] = jinja_text(v->text + from, (size_t)at - from);
    if (items)
        items[list.size++] = jinja_text(v->text + from, v->size - from);
    return list;
}

static struct jinja_value replace(struct jinja *j, const struct jinja_value *v,
                                  const struct jinja_arguments *a)
{
    if (a->count != 2 || a->values[0].type != VALUE_TEXT || a->values[1].type != VALUE_TEXT ||
        a->values[0].size == 0)
        return jinja_fail(j, JINJA_UNKNOWN, "this use of replace", NULL, 0);
    const struct jinja_value parts = split(j, v, &a->values[0]);
    struct jinja_value out = jinja_text("", 0);
    for (size_t i = 0; i < parts.size && j->result == JINJA_OK; i++) {
        if (i > 0)
            out = jinja_concat(j, &out, &a->values[1]);
        out = jinja_concat(j, &out, &parts.items[i]);
    }
    return out;
}

// --- letters ---

enum letters { UPPER, LOWER, CAPITALIZE, TITLE };

static struct jinja_value change_case(struct jinja *j, const struct jinja_value *v,
                                      enum letters how)
{
    const struct jinja_value empty = {.text = (const uint8_t *)""};
    struct jinja_value out = jinja_concat(j, v, &empty);
    uint8_t *text = (uint8_t *)out.text;
    bool inside = false; // of a word
    for (size_t i = 0; i < out.size && j->result == JINJA_OK; i++) {
        if (text[i] >= 0x80)
            return text[i] == JINJA_MARK
                       ? depends(j)
                       : jinja_fail(j, JINJA_UNKNOWN, "upper or lower case beyond ASCII", NULL, 0);
        bool lower = text[i] >= 'a' && text[i] <= 'z', upper = text[i] >= 'A' && text[i] <= 'Z';
        bool first = how == TITLE ? !inside : i == 0;
        if ((how == UPPER || (how >= CAPITALIZE && first)) && lower)
            text[i] = (uint8_t)(text[i] - 'a' + 'A');
        else if ((how == LOWER || (how >= CAPITALIZE && !first)) && upper)
            text[i] = (uint8_t)(text[i] - 'A' + 'a');
        inside = lower || upper;
    }
    return out;
}

static struct jinja_value length(struct jinja *j, const struct jinja_value *v)
{
    if (v->type == VALUE_TEXT && has_mark(v))
        return depends(j);
    if (v->type == VALUE_TEXT) {
        int64_t n = 0;
        for (size_t i = 0; i < v->size; i++)
            n += (v->text[i] & 0xC0) != 0x80;
        return jinja_integer(n);
    }
    if (v->type == VALUE_DICT) {
        int64_t n = 0;
        for (const struct jinja_entry *e = v->dict->first; e; e = e->next)
            n++;
        return jinja_integer(n);
    }
    if (v->type != VALUE_LIST && v->type != VALUE_UNDEFINED)
        return jinja_fail(j, JINJA_RAISED, "the length of what has none", NULL, 0);
    return jinja_integer((int64_t)v->size);
}

// --- filters ---

// selectattr(name, "equalto", value): items whose attribute is, or (rejectattr) is not, that.
static struct jinja_value select_items(struct jinja *j, const struct jinja_value *v,
                                       const struct jinja_arguments *a, bool wanted)
{
    bool equal = a->count == 3 && (jinja_is(&a->values[1], "equalto") ||
                                   jinja_is(&a->values[1], "eq") || jinja_is(&a->values[1], "=="));
    if (v->type != VALUE_LIST || !equal)
        return jinja_fail(j, JINJA_UNKNOWN, "this use of selectattr", NULL, 0);
    struct jinja_value *items = jinja_allocate(j, (v->size + 1) * sizeof *items);
    struct jinja_value list = {.type = VALUE_LIST, .items = items};
    for (size_t i = 0; items && i < v->size && j->result == JINJA_OK; i++) {
        const struct jinja_value of =
            jinja_attribute(j, &v->items[i], a->values[0].text, a->values[0].size);
        if (jinja_equal(j, &of, &a->values[2]) == wanted)
            items[list.size++] = v->items[i];
    }
    return list;
}

static bool named(const struct jinja_token *t, const char *name)
{
    return t->size == strlen(name) && memcmp(t->text, name, t->size) == 0;
}

static struct jinja_value text_filter(struct jinja *j, const struct jinja_token *name,
                                      const struct jinja_value *v, const struct jinja_arguments *a)
{
    static const struct {
        const char *name;
        enum letters letters;
    } cases[] = {{"upper", UPPER}, {"lower", LOWER}, {"capitalize", CAPITALIZE}, {"title", TITLE}};
    const struct jinja_value text = jinja_printed(j, v);
    if (named(name, "trim")) {
        const struct strip s = {
            .characters = a->count ? &a->values[0] : NULL, .left = true, .right = true};
        return strip(j, &text, &s);
    }
    if (named(name, "replace"))
        return replace(j, &text, a);
    if (named(name, "string"))
        return text;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (named(name, cases[i].name))
            return change_case(j, &text, cases[i].letters);
    }
    return jinja_fail(j, JINJA_UNKNOWN, "the filter", name->text, name->size);
}

struct jinja_value jinja_filter(struct jinja *j, const struct jinja_token *name,
                                const struct jinja_value *v, const struct jinja_arguments *a)
{
    static const struct jinja_value first = {.type = VALUE_INTEGER};
    static const struct jinja_value last = {.type = VALUE_INTEGER, .integer = -1};
    if (named(name, "length") || named(name, "count"))
        return length(j, v);
    if (named(name, "default") || named(name, "d")) {
        bool missing = v->type == VALUE_UNDEFINED ||
                       (a->count > 1 && a->values[1].integer && !jinja_truth(j, v));
        return !missing ? *v : a->count ? a->values[0] : jinja_text("", 0);
    }
    if (named(name, "selectattr") || named(name, "rejectattr"))
        return select_items(j, v, a, named(name, "selectattr"));
    if (named(name, "list") && v->type == VALUE_LIST)
        return *v;
    if (named(name, "first") && v->type == VALUE_LIST)
        return jinja_item(j, v, &first);
    if (named(name, "last") && v->type == VALUE_LIST)
        return jinja_item(j, v, &last);
    return text_filter(j, name, v, a);
}

// --- tests ---

bool jinja_test(struct jinja *j, const struct jinja_token *name, const struct jinja_value *v,
                const struct jinja_arguments *a)
{
    const enum jinja_type t = v->type;
    const struct jinja_value *other = a->count ? &a->values[0] : NULL;
    const bool list = t == VALUE_LIST || t == VALUE_TEXT || t == VALUE_DICT;
    const struct {
        const char *name;
        bool holds;
    } tests[] = {
        {"defined", t != VALUE_UNDEFINED},
        {"undefined", t == VALUE_UNDEFINED},
        {"none", t == VALUE_NONE},
        {"string", t == VALUE_TEXT},
        {"mapping", t == VALUE_DICT && !v->dict->is_namespace},
        {"iterable", list || t == VALUE_UNDEFINED},
        {"sequence", list || t == VALUE_UNDEFINED},
        {"boolean", t == VALUE_BOOL},
        {"integer", t == VALUE_INTEGER},
        {"number", t == VALUE_INTEGER || t == VALUE_BOOL},
        {"true", t == VALUE_BOOL && v->integer},
        {"false", t == VALUE_BOOL && !v->integer},
        {"callable", t == VALUE_FUNCTION || t == VALUE_METHOD},
        {"odd", t == VALUE_INTEGER && v->integer % 2 != 0},
        {"even", t == VALUE_INTEGER && v->integer % 2 == 0},
    };
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (named(name, tests[i].name))
            return tests[i].holds;
    }
    if (other && (named(name, "equalto") || named(name, "eq")))
        return jinja_equal(j, v, other);
    if (other && named(name, "in"))
        return jinja_contains(j, other, v);
    if (other && named(name, "divisibleby") && other->integer > 0)
        return v->integer % other->integer == 0;
    (void)jinja_fail(j, JINJA_UNKNOWN, "the test", name->text, name->size);
    return false;
}

// --- methods and functions ---

static struct jinja_value call_text(struct jinja *j, const struct jinja_value *method,
                                    const struct jinja_arguments *a)
{
    const struct jinja_value *self = method->self;
    const struct jinja_value *first = a->count ? &a->values[0] : NULL;
    bool left = jinja_is(method, "lstrip"), right = jinja_is(method, "rstrip");
    if (left || right || jinja_is(method, "strip")) {
        const struct strip s = {.characters = first && first->type == VALUE_TEXT ? first : NULL,
                                .left = !right,
                                .right = !left};
        return strip(j, self, &s);
    }
    if (first && first->type == VALUE_TEXT && jinja_is(method, "startswith"))
        return jinja_bool(starts_or_ends(j, self, first, true));
    if (first && first->type == VALUE_TEXT && jinja_is(method, "endswith"))
        return jinja_bool(starts_or_ends(j, self, first, false));
    if (first && first->type == VALUE_TEXT && jinja_is(method, "find"))
        return jinja_integer(find(j, self, first, 0));
    if (a->count == 1 && jinja_is(method, "split"))
        return split(j, self, first);
    if (jinja_is(method, "replace"))
        return replace(j, self, a);
    const struct jinja_token name = {.text = (const char *)method->text, .size = method->size};
    bool letters = jinja_is(method, "upper") || jinja_is(method, "lower") ||
                   jinja_is(method, "capitalize") || jinja_is(method, "title");
    return letters ? text_filter(j, &name, self, a)
                   : jinja_fail(j, JINJA_UNKNOWN, "the method", method->text, method->size);
}

static struct jinja_value call_method(struct jinja *j, const struct jinja_value *method,
                                      const struct jinja_arguments *a)
{
    if (method->self->type == VALUE_TEXT)
        return call_text(j, method, a);
    if (method->self->type == VALUE_DICT && jinja_is(method, "get") && a->count > 0) {
        const struct jinja_entry *e =
            jinja_find(method->self->dict, a->values[0].text, a->values[0].size);
        return e              ? e->value
               : a->count > 1 ? a->values[1]
                              : (struct jinja_value){.type = VALUE_NONE};
    }
    return jinja_fail(j, JINJA_UNKNOWN, "the method", method->text, method->size);
}

static struct jinja_value make_namespace(struct jinja *j, const struct jinja_arguments *a)
{
    struct jinja_value v = {.type = VALUE_DICT, .dict = jinja_allocate(j, sizeof *v.dict)};
    if (!v.dict)
        return (struct jinja_value){0};
    v.dict->is_namespace = true;
    for (size_t i = 0; i < a->count; i++) {
        if (!a->names[i])
            return jinja_fail(j, JINJA_UNKNOWN, "this use of namespace", NULL, 0);
        (void)jinja_set(j, v.dict, a->names[i]->text, a->names[i]->size, &a->values[i]);
    }
    return v;
}

bool jinja_is_function(const struct jinja_token *name)
{
    return named(name, "namespace") || named(name, "raise_exception") ||
           named(name, "strftime_now") || named(name, "range") || named(name, "dict");
}

struct jinja_value jinja_call(struct jinja *j, const struct jinja_value *function,
                              const struct jinja_arguments *a)
{
    if (function->type == VALUE_METHOD)
        return call_method(j, function, a);
    if (function->type == VALUE_UNDEFINED)
        return jinja_fail(j, JINJA_RAISED, "it calls what is not defined", NULL, 0);
    if (function->type != VALUE_FUNCTION)
        return jinja_fail(j, JINJA_RAISED, "it calls what is no function", NULL, 0);
    if (jinja_is(function, "namespace"))
        return make_namespace(j, a);
    if (jinja_is(function, "raise_exception"))
        return jinja_fail(j, JINJA_RAISED, "raise_exception:", a->values[0].text,
                          a->values[0].size);
    if (jinja_is(function, "strftime_now"))
        return jinja_fail(j, JINJA_UNKNOWN, "it writes the date of the day", NULL, 0);
    return jinja_fail(j, JINJA_UNKNOWN, "the function", function->text, function->size);
}
