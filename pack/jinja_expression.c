// SPDX-License-Identifier: MIT
// Expressions, evaluated while they are parsed. What is not to be evaluated (the other side of an
// `if`, what follows a false `and`) is parsed with `dead` set.
#include <string.h>

#include "pack/jinja_parts.h"

// Numbers as large as this make a template behave otherwise in conversations longer than those
// that are tried.
enum { MAX_STEPS = 1 << 20, MAX_DEPTH = 64, MAX_INTEGER = 3 };

// --- tokens ---

const struct jinja_token *jinja_peek(struct jinja *j)
{
    if (j->result == JINJA_OK && ++j->steps > MAX_STEPS)
        (void)jinja_fail(j, JINJA_UNKNOWN, "it takes too many steps", NULL, 0);
    return &j->tokens[j->result == JINJA_OK ? j->at : j->n_tokens - 1];
}

const struct jinja_token *jinja_next(struct jinja *j)
{
    const struct jinja_token *t = jinja_peek(j);
    if (t->kind != TOKEN_END)
        j->at++;
    return t;
}

bool jinja_token_is(const struct jinja_token *t, enum jinja_token_kind kind, const char *text)
{
    return t->kind == kind &&
           (!text || (t->size == strlen(text) && memcmp(t->text, text, t->size) == 0));
}

bool jinja_accept(struct jinja *j, enum jinja_token_kind kind, const char *text)
{
    bool is = jinja_token_is(jinja_peek(j), kind, text);
    if (is)
        (void)jinja_next(j);
    return is;
}

void jinja_expect(struct jinja *j, enum jinja_token_kind kind, const char *text)
{
    const struct jinja_token *t = jinja_peek(j);
    if (!jinja_accept(j, kind, text))
        (void)jinja_fail(j, JINJA_UNKNOWN, "the syntax at", t->text, t->size);
}

static bool accept_operator(struct jinja *j, const char *text)
{
    return jinja_accept(j, TOKEN_OPERATOR, text);
}

// --- primary expressions ---

static struct jinja_value evaluate_condition(struct jinja *j);
static struct jinja_value evaluate_unary(struct jinja *j, bool with_filters);

static struct jinja_value variable(struct jinja *j, const struct jinja_token *name)
{
    static const struct {
        const char *name;
        struct jinja_value value;
    } constants[] = {
        {"true", {.type = VALUE_BOOL, .integer = 1}},
        {"True", {.type = VALUE_BOOL, .integer = 1}},
        {"false", {.type = VALUE_BOOL}},
        {"False", {.type = VALUE_BOOL}},
        {"none", {.type = VALUE_NONE}},
        {"None", {.type = VALUE_NONE}},
    };
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (jinja_token_is(name, TOKEN_NAME, constants[i].name))
            return constants[i].value;
    }
    for (const struct jinja_frame *f = j->frame; f; f = f->outer) {
        const struct jinja_entry *e = jinja_find(&f->variables, name->text, name->size);
        if (e)
            return e->value;
    }
    if (jinja_is_function(name))
        return (struct jinja_value){
            .type = VALUE_FUNCTION, .text = (const uint8_t *)name->text, .size = name->size};
    return (struct jinja_value){0};
}

// Items up to the closing bracket, which is taken.
static struct jinja_value list_of(struct jinja *j, struct jinja_value first, size_t n,
                                  const char *close)
{
    struct jinja_value items[32], list = {.type = VALUE_LIST};
    items[0] = first;
    while (!accept_operator(j, close)) {
        n -= j->dead && n > 0; // only the syntax counts
        if (n == sizeof items / sizeof items[0] || j->result != JINJA_OK)
            return jinja_fail(j, JINJA_UNKNOWN, "a long list", NULL, 0);
        items[n++] = jinja_evaluate(j, true);
        if (!accept_operator(j, ",")) {
            jinja_expect(j, TOKEN_OPERATOR, close);
            break;
        }
    }
    struct jinja_value *copy = jinja_allocate(j, (n + 1) * sizeof *copy);
    if (!copy)
        return list;
    memcpy(copy, items, n * sizeof *copy);
    list.items = copy;
    list.size = n;
    return list;
}

// After "(": an expression in parentheses, or a tuple, which is a list here.
static struct jinja_value parenthesis(struct jinja *j)
{
    struct jinja_value v = {0};
    if (accept_operator(j, ")"))
        return list_of(j, v, 0, ")");
    v = jinja_evaluate(j, true);
    if (accept_operator(j, ","))
        return list_of(j, v, 1, ")");
    jinja_expect(j, TOKEN_OPERATOR, ")");
    return v;
}

// After "{".
static struct jinja_value dict_of(struct jinja *j)
{
    struct jinja_value v = {.type = VALUE_DICT, .dict = jinja_allocate(j, sizeof *v.dict)};
    while (v.dict && !accept_operator(j, "}") && j->result == JINJA_OK) {
        const struct jinja_value key = jinja_evaluate(j, true);
        jinja_expect(j, TOKEN_OPERATOR, ":");
        const struct jinja_value value = jinja_evaluate(j, true);
        if (!j->dead && key.type != VALUE_TEXT)
            return jinja_fail(j, JINJA_UNKNOWN, "a key that is no text", NULL, 0);
        if (!j->dead)
            (void)jinja_set(j, v.dict, key.text, key.size, &value);
        if (!accept_operator(j, ",")) {
            jinja_expect(j, TOKEN_OPERATOR, "}");
            break;
        }
    }
    return v;
}

static struct jinja_value primary(struct jinja *j)
{
    const struct jinja_token *t = jinja_next(j);
    struct jinja_value v;
    switch (t->kind) {
    case TOKEN_NAME:
        return variable(j, t);
    case TOKEN_STRING:
        v = jinja_text(t->text, t->size);
        while (jinja_peek(j)->kind == TOKEN_STRING) { // adjacent ones are one
            t = jinja_next(j);
            const struct jinja_value more = jinja_text(t->text, t->size);
            v = jinja_concat(j, &v, &more);
        }
        return v;
    case TOKEN_INTEGER:
        if (!j->dead && t->integer > MAX_INTEGER)
            return jinja_fail(j, JINJA_UNKNOWN, "it counts to", t->text, t->size);
        return jinja_integer(t->integer);
    default:
        break;
    }
    if (jinja_token_is(t, TOKEN_OPERATOR, "("))
        return parenthesis(j);
    if (jinja_token_is(t, TOKEN_OPERATOR, "["))
        return list_of(j, (struct jinja_value){0}, 0, "]");
    if (jinja_token_is(t, TOKEN_OPERATOR, "{"))
        return dict_of(j);
    return jinja_fail(j, JINJA_UNKNOWN, "the syntax at", t->text, t->size);
}

// --- what follows a primary expression ---

void jinja_arguments_of(struct jinja *j, struct jinja_arguments *a)
{
    while (!accept_operator(j, ")") && j->result == JINJA_OK) {
        if (a->count == sizeof a->values / sizeof a->values[0]) {
            (void)jinja_fail(j, JINJA_UNKNOWN, "many arguments", NULL, 0);
            return;
        }
        bool named = jinja_peek(j)->kind == TOKEN_NAME &&
                     jinja_token_is(&j->tokens[j->at + 1], TOKEN_OPERATOR, "=");
        a->names[a->count] = named ? jinja_next(j) : NULL;
        if (named)
            (void)jinja_next(j);
        a->values[a->count++] = jinja_evaluate(j, true);
        if (!accept_operator(j, ",")) {
            jinja_expect(j, TOKEN_OPERATOR, ")");
            return;
        }
    }
}

// After "[": an index or a slice.
static struct jinja_value subscript(struct jinja *j, const struct jinja_value *of)
{
    struct jinja_value bounds[3] = {{0}};
    bool is_slice = false;
    for (size_t i = 0; i < 3; i++) {
        const struct jinja_token *t = jinja_peek(j);
        bool empty =
            jinja_token_is(t, TOKEN_OPERATOR, ":") || jinja_token_is(t, TOKEN_OPERATOR, "]");
        if (!empty)
            bounds[i] = jinja_evaluate(j, true);
        if (!accept_operator(j, ":"))
            break;
        is_slice = true;
    }
    jinja_expect(j, TOKEN_OPERATOR, "]");
    if (j->dead || j->result != JINJA_OK)
        return (struct jinja_value){0};
    return is_slice ? jinja_slice(j, of, bounds) : jinja_item(j, of, &bounds[0]);
}

static struct jinja_value postfix(struct jinja *j, struct jinja_value v)
{
    for (;;) {
        if (accept_operator(j, ".")) {
            const struct jinja_token *name = jinja_next(j);
            if (name->kind == TOKEN_INTEGER)
                return jinja_fail(j, JINJA_UNKNOWN, "the syntax at", name->text, name->size);
            if (!j->dead)
                v = jinja_attribute(j, &v, name->text, name->size);
        } else if (accept_operator(j, "[")) {
            v = subscript(j, &v);
        } else if (accept_operator(j, "(")) {
            struct jinja_arguments a = {0};
            jinja_arguments_of(j, &a);
            if (!j->dead && j->result == JINJA_OK)
                v = jinja_call(j, &v, &a);
        } else {
            return v;
        }
    }
}

// After "is": a test with its argument, in parentheses or not.
static struct jinja_value test(struct jinja *j, const struct jinja_value *v)
{
    bool negated = jinja_accept(j, TOKEN_NAME, "not");
    const struct jinja_token *name = jinja_next(j);
    struct jinja_arguments a = {0};
    const struct jinja_token *t = jinja_peek(j);
    bool word = t->kind == TOKEN_NAME && !jinja_token_is(t, TOKEN_NAME, "and") &&
                !jinja_token_is(t, TOKEN_NAME, "or") && !jinja_token_is(t, TOKEN_NAME, "else") &&
                !jinja_token_is(t, TOKEN_NAME, "is") && !jinja_token_is(t, TOKEN_NAME, "if");
    if (accept_operator(j, "(")) {
        jinja_arguments_of(j, &a);
    } else if (word || t->kind == TOKEN_STRING || t->kind == TOKEN_INTEGER) {
        a.values[a.count++] = postfix(j, primary(j));
    }
    if (j->dead || j->result != JINJA_OK)
        return (struct jinja_value){0};
    return jinja_bool(jinja_test(j, name, v, &a) != negated);
}

static struct jinja_value filters(struct jinja *j, struct jinja_value v)
{
    for (;;) {
        if (accept_operator(j, "|")) {
            const struct jinja_token *name = jinja_next(j);
            struct jinja_arguments a = {0};
            if (accept_operator(j, "("))
                jinja_arguments_of(j, &a);
            if (!j->dead && j->result == JINJA_OK)
                v = jinja_filter(j, name, &v, &a);
        } else if (jinja_accept(j, TOKEN_NAME, "is")) {
            v = test(j, &v);
        } else if (accept_operator(j, "(")) {
            return jinja_fail(j, JINJA_UNKNOWN, "it calls what a filter gives", NULL, 0);
        } else {
            return v;
        }
    }
}

static bool is_number(const struct jinja_value *v)
{
    return v->type == VALUE_INTEGER || v->type == VALUE_BOOL;
}

static struct jinja_value evaluate_unary(struct jinja *j, bool with_filters)
{
    struct jinja_value v;
    if (++j->depth > MAX_DEPTH)
        return jinja_fail(j, JINJA_UNKNOWN, "it is nested too deep", NULL, 0);
    const bool minus = accept_operator(j, "-");
    if (minus || accept_operator(j, "+")) {
        v = evaluate_unary(j, false);
        if (!j->dead && !is_number(&v))
            v = jinja_fail(j, JINJA_RAISED, "it negates what is no number", NULL, 0);
        v = jinja_integer(minus ? -v.integer : v.integer);
    } else {
        v = primary(j);
    }
    v = postfix(j, v);
    if (with_filters)
        v = filters(j, v);
    j->depth--;
    return v;
}

// --- operators, the tightest first ---

static struct jinja_value evaluate_product(struct jinja *j)
{
    struct jinja_value a = evaluate_unary(j, true);
    while (jinja_token_is(jinja_peek(j), TOKEN_OPERATOR, "*") ||
           jinja_token_is(jinja_peek(j), TOKEN_OPERATOR, "%") ||
           jinja_token_is(jinja_peek(j), TOKEN_OPERATOR, "/") ||
           jinja_token_is(jinja_peek(j), TOKEN_OPERATOR, "//") ||
           jinja_token_is(jinja_peek(j), TOKEN_OPERATOR, "**")) {
        const struct jinja_token *operator= jinja_next(j);
        const struct jinja_value b = evaluate_unary(j, true);
        if (j->dead)
            continue;
        bool known = is_number(&a) && is_number(&b) && a.integer >= 0;
        if (known && jinja_token_is(operator, TOKEN_OPERATOR, "*"))
            a = jinja_integer(a.integer * b.integer);
        else if (known && b.integer > 0 && jinja_token_is(operator, TOKEN_OPERATOR, "%"))
            a = jinja_integer(a.integer % b.integer);
        else if (known && b.integer > 0 && jinja_token_is(operator, TOKEN_OPERATOR, "//"))
            a = jinja_integer(a.integer / b.integer);
        else
            a = jinja_fail(j, JINJA_UNKNOWN, "the operator", operator->text, operator->size);
    }
    return a;
}

static struct jinja_value evaluate_tilde(struct jinja *j)
{
    struct jinja_value a = evaluate_product(j);
    while (accept_operator(j, "~")) {
        struct jinja_value b = evaluate_product(j);
        if (j->dead)
            continue;
        a = jinja_printed(j, &a);
        b = jinja_printed(j, &b);
        a = jinja_concat(j, &a, &b);
    }
    return a;
}

static struct jinja_value add(struct jinja *j, const struct jinja_value *a,
                              const struct jinja_value *b, bool minus)
{
    if (is_number(a) && is_number(b))
        return jinja_integer(a->integer + (minus ? -b->integer : b->integer));
    if (!minus && a->type == VALUE_TEXT && b->type == VALUE_TEXT)
        return jinja_concat(j, a, b);
    if (minus || a->type != VALUE_LIST || b->type != VALUE_LIST)
        return jinja_fail(j, JINJA_RAISED, "it adds values of different kinds", NULL, 0);
    struct jinja_value *items = jinja_allocate(j, (a->size + b->size + 1) * sizeof *items);
    if (!items)
        return *a;
    if (a->size)
        memcpy(items, a->items, a->size * sizeof *items);
    if (b->size)
        memcpy(items + a->size, b->items, b->size * sizeof *items);
    return (struct jinja_value){.type = VALUE_LIST, .items = items, .size = a->size + b->size};
}

static struct jinja_value evaluate_sum(struct jinja *j)
{
    struct jinja_value a = evaluate_tilde(j);
    for (;;) {
        bool minus = jinja_token_is(jinja_peek(j), TOKEN_OPERATOR, "-");
        if (!minus && !jinja_token_is(jinja_peek(j), TOKEN_OPERATOR, "+"))
            return a;
        (void)jinja_next(j);
        const struct jinja_value b = evaluate_tilde(j);
        if (!j->dead && j->result == JINJA_OK)
            a = add(j, &a, &b, minus);
    }
}

static bool compare(struct jinja *j, const struct jinja_value *a, const struct jinja_token *how,
                    const struct jinja_value *b)
{
    const char *text = how->text;
    if (text[0] == '=')
        return jinja_equal(j, a, b);
    if (text[0] == '!')
        return !jinja_equal(j, a, b);
    if (!is_number(a) || !is_number(b)) {
        (void)jinja_fail(j, JINJA_UNKNOWN, "it compares what are no numbers", NULL, 0);
        return false;
    }
    bool equal = a->integer == b->integer;
    return text[0] == '<' ? a->integer < b->integer || (how->size == 2 && equal)
                          : a->integer > b->integer || (how->size == 2 && equal);
}

static bool is_comparison(const struct jinja_token *t)
{
    static const char *const operators[] = {"==", "!=", "<", "<=", ">", ">="};
    for (size_t i = 0; i < sizeof operators / sizeof operators[0]; i++) {
        if (jinja_token_is(t, TOKEN_OPERATOR, operators[i]))
            return true;
    }
    return false;
}

// a < b < c is a < b and b < c, as in Python.
static struct jinja_value evaluate_comparison(struct jinja *j)
{
    struct jinja_value a = evaluate_sum(j), result = a;
    bool all = true, any = false;
    for (;; any = true) {
        const struct jinja_token *t = jinja_peek(j);
        bool in = jinja_token_is(t, TOKEN_NAME, "in");
        bool not_in = jinja_token_is(t, TOKEN_NAME, "not") &&
                      jinja_token_is(&j->tokens[j->at + 1], TOKEN_NAME, "in");
        if (!in && !not_in && !is_comparison(t))
            return any && !j->dead ? jinja_bool(all) : result;
        (void)jinja_next(j);
        if (not_in)
            (void)jinja_next(j);
        const struct jinja_value b = evaluate_sum(j);
        if (!j->dead && j->result == JINJA_OK && all)
            all = in || not_in ? jinja_contains(j, &b, &a) != not_in : compare(j, &a, t, &b);
        a = b;
    }
}

static struct jinja_value evaluate_not(struct jinja *j)
{
    if (!jinja_accept(j, TOKEN_NAME, "not"))
        return evaluate_comparison(j);
    if (++j->depth > MAX_DEPTH)
        return jinja_fail(j, JINJA_UNKNOWN, "it is nested too deep", NULL, 0);
    const struct jinja_value v = evaluate_not(j);
    j->depth--;
    return j->dead ? v : jinja_bool(!jinja_truth(j, &v));
}

// `and` and `or` give one of their sides, and look at the second only where they must.
static struct jinja_value evaluate_chain(struct jinja *j, bool is_or)
{
    struct jinja_value a = is_or ? evaluate_chain(j, false) : evaluate_not(j);
    while (jinja_accept(j, TOKEN_NAME, is_or ? "or" : "and")) {
        bool decided = !j->dead && jinja_truth(j, &a) == is_or;
        j->dead += decided;
        const struct jinja_value b = is_or ? evaluate_chain(j, false) : evaluate_not(j);
        j->dead -= decided;
        if (!decided)
            a = b;
    }
    return a;
}

static struct jinja_value evaluate_condition(struct jinja *j)
{
    const size_t start = j->at;
    if (j->dead) {
        struct jinja_value v = evaluate_chain(j, true);
        while (jinja_accept(j, TOKEN_NAME, "if")) {
            v = evaluate_chain(j, true);
            if (jinja_accept(j, TOKEN_NAME, "else"))
                v = evaluate_condition(j);
        }
        return v;
    }
    j->dead++;
    (void)evaluate_chain(j, true); // where does it end, and does an `if` follow?
    j->dead--;
    bool is_condition = jinja_accept(j, TOKEN_NAME, "if");
    bool taken = true;
    struct jinja_value v = {0};
    if (is_condition) {
        const struct jinja_value condition = evaluate_chain(j, true);
        taken = jinja_truth(j, &condition);
    }
    size_t after = j->at;
    if (taken) {
        j->at = start;
        v = evaluate_chain(j, true);
    }
    if (is_condition)
        j->at = after;
    if (is_condition && jinja_accept(j, TOKEN_NAME, "else")) {
        j->dead += taken;
        const struct jinja_value other = evaluate_condition(j);
        j->dead -= taken;
        v = taken ? v : other;
    }
    return v;
}

struct jinja_value jinja_evaluate(struct jinja *j, bool with_condition)
{
    if (++j->depth > MAX_DEPTH)
        return jinja_fail(j, JINJA_UNKNOWN, "it is nested too deep", NULL, 0);
    const struct jinja_value v = with_condition ? evaluate_condition(j) : evaluate_chain(j, true);
    j->depth--;
    return v;
}
