// SPDX-License-Identifier: MIT
// The statements of a template.
#include "pack/jinja.h"

#include <string.h>

#include "pack/jinja_parts.h"

static const char *const if_ends[] = {"elif", "else", "endif", NULL};
static const char *const endif[] = {"endif", NULL};
static const char *const for_ends[] = {"else", "endfor", NULL};
static const char *const endfor[] = {"endfor", NULL};
static const char *const endset[] = {"endset", NULL};
static const char *const endmacro[] = {"endmacro", NULL};
static const char *const endgeneration[] = {"endgeneration", NULL};
static const char *const no_ends[] = {NULL};

static void run(struct jinja *j, const char *const *ends);

static bool is_one_of(const struct jinja_token *t, const char *const *names)
{
    for (; *names; names++) {
        if (jinja_token_is(t, TOKEN_NAME, *names))
            return true;
    }
    return false;
}

static void end_block(struct jinja *j)
{
    jinja_expect(j, TOKEN_BLOCK_END, NULL);
}

// Parses what is not to be run, up to the name of one of the ends. Jinja takes no template with a
// mistake in any place.
static void skip(struct jinja *j, const char *const *ends)
{
    j->dead++;
    run(j, ends);
    j->dead--;
}

// --- if ---

static void run_if(struct jinja *j)
{
    bool done = false;
    for (;;) {
        const struct jinja_token *name = jinja_next(j); // if, elif, else or endif
        bool otherwise = jinja_token_is(name, TOKEN_NAME, "else");
        bool end = jinja_token_is(name, TOKEN_NAME, "endif") || name->kind == TOKEN_END;
        bool taken = false;
        if (!end && !otherwise) {
            j->dead += done;
            const struct jinja_value v = jinja_evaluate(j, true);
            j->dead -= done;
            taken = !done && !j->dead && jinja_truth(j, &v);
        }
        end_block(j);
        if (end)
            return;
        taken = taken || (otherwise && !done && !j->dead);
        if (taken)
            run(j, if_ends);
        else
            skip(j, otherwise ? endif : if_ends);
        done = done || taken;
    }
}

// --- for ---

struct loop {
    const struct jinja_token *name;
    struct jinja_value items; // that the condition, if any, has let through
    size_t body;
};

static void enter(struct jinja *j, struct jinja_frame *frame)
{
    *frame = (struct jinja_frame){.outer = j->frame};
    j->frame = frame;
}

static void set_variable(struct jinja *j, const char *name, const struct jinja_value *value)
{
    (void)jinja_set(j, &j->frame->variables, name, strlen(name), value);
}

static struct jinja_value describe_loop(struct jinja *j, const struct jinja_value *items, size_t i)
{
    struct jinja_value v = {.type = VALUE_DICT, .dict = jinja_allocate(j, sizeof *v.dict)};
    if (!v.dict)
        return v;
    const int64_t at = (int64_t)i, n = (int64_t)items->size;
    const struct {
        const char *name;
        struct jinja_value value;
    } all[] = {
        {"index0", jinja_integer(at)},
        {"index", jinja_integer(at + 1)},
        {"revindex", jinja_integer(n - at)},
        {"revindex0", jinja_integer(n - at - 1)},
        {"first", jinja_bool(at == 0)},
        {"last", jinja_bool(at == n - 1)},
        {"length", jinja_integer(n)},
        {"previtem", at > 0 ? items->items[at - 1] : (struct jinja_value){0}},
        {"nextitem", at + 1 < n ? items->items[at + 1] : (struct jinja_value){0}},
    };
    for (size_t k = 0; k < sizeof all / sizeof all[0]; k++)
        (void)jinja_set(j, v.dict, all[k].name, strlen(all[k].name), &all[k].value);
    return v;
}

// Keeps the items for which the condition that begins at the next token holds.
static void filter_items(struct jinja *j, struct loop *loop)
{
    const size_t start = j->at;
    struct jinja_value *kept = jinja_allocate(j, (loop->items.size + 1) * sizeof *kept);
    size_t n = 0;
    j->dead++;
    (void)jinja_evaluate(j, false); // where does it end?
    j->dead--;
    const size_t end = j->at;
    for (size_t i = 0; kept && i < loop->items.size && j->result == JINJA_OK; i++) {
        struct jinja_frame frame;
        enter(j, &frame);
        (void)jinja_set(j, &frame.variables, loop->name->text, loop->name->size,
                        &loop->items.items[i]);
        j->at = start;
        const struct jinja_value v = jinja_evaluate(j, false);
        if (jinja_truth(j, &v))
            kept[n++] = loop->items.items[i];
        j->frame = frame.outer;
    }
    j->at = end;
    loop->items.items = kept;
    loop->items.size = n;
}

static void run_items(struct jinja *j, const struct loop *loop)
{
    for (size_t i = 0; i < loop->items.size && j->result == JINJA_OK; i++) {
        struct jinja_frame frame;
        enter(j, &frame);
        const struct jinja_value about = describe_loop(j, &loop->items, i);
        set_variable(j, "loop", &about);
        (void)jinja_set(j, &frame.variables, loop->name->text, loop->name->size,
                        &loop->items.items[i]);
        j->at = loop->body;
        run(j, for_ends);
        j->frame = frame.outer;
    }
}

static void read_target(struct jinja *j, struct loop *loop)
{
    bool several = false;
    do {
        loop->name = jinja_next(j);
        if (loop->name->kind != TOKEN_NAME)
            (void)jinja_fail(j, JINJA_UNKNOWN, "the syntax at", loop->name->text, loop->name->size);
        several = jinja_accept(j, TOKEN_OPERATOR, ",");
        if (several && !j->dead)
            (void)jinja_fail(j, JINJA_UNKNOWN, "a loop over pairs", NULL, 0);
    } while (several && j->result == JINJA_OK);
}

static void run_for(struct jinja *j)
{
    struct loop loop = {0};
    (void)jinja_next(j);
    read_target(j, &loop);
    jinja_expect(j, TOKEN_NAME, "in");
    loop.items = jinja_evaluate(j, false);
    if (j->dead)
        loop.items = (struct jinja_value){0};
    if (loop.items.type != VALUE_LIST && loop.items.type != VALUE_UNDEFINED)
        (void)jinja_fail(j, JINJA_UNKNOWN, "a loop over what is no list", NULL, 0);
    if (jinja_accept(j, TOKEN_NAME, "if"))
        filter_items(j, &loop);
    if (j->dead)
        (void)jinja_accept(j, TOKEN_NAME, "recursive");
    end_block(j);
    loop.body = j->at;
    run_items(j, &loop);
    if (j->result == JINJA_OK)
        j->at = loop.body;
    skip(j, for_ends);
    if (jinja_token_is(jinja_next(j), TOKEN_NAME, "else")) {
        end_block(j);
        if (loop.items.size == 0)
            run(j, endfor);
        else
            skip(j, endfor);
        (void)jinja_next(j);
    }
    end_block(j);
}

// --- set and the rest ---

// The text that a body writes, with its last token the name of the end.
static struct jinja_value capture(struct jinja *j, const char *const *ends)
{
    struct bnt_buffer text = {0}, *out = j->out;
    struct jinja_value v = {.type = VALUE_TEXT};
    j->out = &text;
    run(j, ends);
    j->out = out;
    uint8_t *copy = text.failed ? NULL : jinja_allocate(j, text.size + 1);
    if (copy && text.size)
        memcpy(copy, text.data, text.size);
    if (copy)
        v = jinja_text(copy, text.size);
    bnt_buffer_free(&text);
    return v;
}

static void assign(struct jinja *j, const struct jinja_token *name,
                   const struct jinja_token *attribute, const struct jinja_value *value)
{
    if (!attribute) {
        (void)jinja_set(j, &j->frame->variables, name->text, name->size, value);
        return;
    }
    for (struct jinja_frame *f = j->frame; f; f = f->outer) {
        struct jinja_entry *e = jinja_find(&f->variables, name->text, name->size);
        if (!e)
            continue;
        if (e->value.type == VALUE_DICT && e->value.dict->is_namespace)
            (void)jinja_set(j, e->value.dict, attribute->text, attribute->size, value);
        else
            break;
        return;
    }
    (void)jinja_fail(j, JINJA_RAISED, "it sets a part of what is no namespace", NULL, 0);
}

static void run_set(struct jinja *j)
{
    (void)jinja_next(j);
    const struct jinja_token *name = jinja_next(j), *attribute = NULL;
    struct jinja_value v;
    if (jinja_accept(j, TOKEN_OPERATOR, "."))
        attribute = jinja_next(j);
    if (name->kind != TOKEN_NAME || (attribute && attribute->kind != TOKEN_NAME)) {
        (void)jinja_fail(j, JINJA_UNKNOWN, "this use of set", NULL, 0);
        return;
    }
    if (jinja_accept(j, TOKEN_OPERATOR, "=")) {
        v = jinja_evaluate(j, true);
    } else {
        end_block(j);
        v = capture(j, endset);
        (void)jinja_next(j);
    }
    end_block(j);
    if (j->result == JINJA_OK && !j->dead)
        assign(j, name, attribute, &v);
}

// {% generation %} marks what an assistant says for training; what is set in it stays in it.
static void run_generation(struct jinja *j)
{
    struct jinja_frame frame;
    (void)jinja_next(j);
    end_block(j);
    enter(j, &frame);
    run(j, endgeneration);
    j->frame = frame.outer;
    (void)jinja_next(j);
    end_block(j);
}

// A macro may be there; a call of it is refused.
static void pass_macro(struct jinja *j)
{
    struct jinja_arguments a = {0};
    (void)jinja_next(j);
    jinja_expect(j, TOKEN_NAME, NULL);
    jinja_expect(j, TOKEN_OPERATOR, "(");
    j->dead++;
    jinja_arguments_of(j, &a);
    j->dead--;
    end_block(j);
    skip(j, endmacro);
    (void)jinja_next(j);
    end_block(j);
}

static void statement(struct jinja *j)
{
    const struct jinja_token *name = jinja_peek(j);
    if (++j->depth > 64) {
        (void)jinja_fail(j, JINJA_UNKNOWN, "it is nested too deep", NULL, 0);
        return;
    }
    if (jinja_token_is(name, TOKEN_NAME, "if")) {
        run_if(j);
    } else if (jinja_token_is(name, TOKEN_NAME, "for")) {
        run_for(j);
    } else if (jinja_token_is(name, TOKEN_NAME, "set")) {
        run_set(j);
    } else if (jinja_token_is(name, TOKEN_NAME, "generation")) {
        run_generation(j);
    } else if (jinja_token_is(name, TOKEN_NAME, "macro")) {
        pass_macro(j);
    } else if (j->dead && (jinja_token_is(name, TOKEN_NAME, "break") ||
                           jinja_token_is(name, TOKEN_NAME, "continue"))) {
        (void)jinja_next(j);
        end_block(j);
    } else {
        (void)jinja_fail(j, JINJA_UNKNOWN, "the tag", name->text, name->size);
    }
    j->depth--;
}

static void write_text(struct jinja *j, const void *text, size_t size)
{
    if (!j->dead && j->result == JINJA_OK)
        bnt_buffer_put(j->out, text, size);
}

// Runs up to the name of one of the ends, which is the next token then.
static void run(struct jinja *j, const char *const *ends)
{
    for (;;) {
        const struct jinja_token *t = jinja_next(j);
        if (t->kind == TOKEN_END) {
            if (*ends)
                (void)jinja_fail(j, JINJA_UNKNOWN, "a block without its end", NULL, 0);
            return;
        }
        if (t->kind == TOKEN_DATA) {
            write_text(j, t->text, t->size);
        } else if (t->kind == TOKEN_EXPRESSION) {
            struct jinja_value v = jinja_evaluate(j, true);
            jinja_expect(j, TOKEN_EXPRESSION_END, NULL);
            if (!j->dead && j->result == JINJA_OK)
                v = jinja_printed(j, &v);
            write_text(j, v.text, v.size);
        } else {
            if (is_one_of(jinja_peek(j), ends))
                return;
            statement(j);
        }
    }
}

// --- the whole ---

static struct jinja_value message_list(struct jinja *j, const struct jinja_input *input)
{
    struct jinja_value *items = jinja_allocate(j, (input->n_messages + 1) * sizeof *items);
    struct jinja_value list = {.type = VALUE_LIST, .items = items};
    for (size_t i = 0; items && i < input->n_messages; i++) {
        const struct jinja_message *m = &input->messages[i];
        const struct jinja_value role = jinja_text(m->role, strlen(m->role));
        const struct jinja_value content = jinja_text(m->content, m->size);
        items[i] = (struct jinja_value){.type = VALUE_DICT,
                                        .dict = jinja_allocate(j, sizeof *items[i].dict)};
        if (!items[i].dict)
            return (struct jinja_value){0};
        (void)jinja_set(j, items[i].dict, "role", 4, &role);
        (void)jinja_set(j, items[i].dict, "content", 7, &content);
        list.size++;
    }
    return list;
}

// The variables that transformers gives to a template.
static void set_variables(struct jinja *j, const struct jinja_input *input)
{
    const struct jinja_value none = {.type = VALUE_NONE};
    const struct jinja_value prompt = jinja_bool(input->generation_prompt);
    const struct jinja_value messages = message_list(j, input);
    set_variable(j, "messages", &messages);
    set_variable(j, "tools", &none);
    set_variable(j, "documents", &none);
    set_variable(j, "add_generation_prompt", &prompt);
    if (input->bos) {
        const struct jinja_value bos = jinja_text(input->bos, strlen(input->bos));
        set_variable(j, "bos_token", &bos);
    }
    if (input->eos) {
        const struct jinja_value eos = jinja_text(input->eos, strlen(input->eos));
        set_variable(j, "eos_token", &eos);
    }
}

enum jinja_result bnt_jinja_render(const char *source, size_t size, const struct jinja_input *input,
                                   struct bnt_buffer *out, unsigned *assumed, char why[JINJA_WHY])
{
    struct jinja_frame global = {0};
    struct jinja j = {.why = why, .frame = &global, .out = out};
    if (jinja_lex(&j, source, size)) {
        set_variables(&j, input);
        if (j.result == JINJA_OK)
            run(&j, no_ends);
    }
    jinja_free(&j);
    if (j.result == JINJA_OK && out->failed)
        (void)jinja_fail(&j, JINJA_NO_MEMORY, "out of memory", NULL, 0);
    *assumed |= j.assumed;
    return j.result;
}
