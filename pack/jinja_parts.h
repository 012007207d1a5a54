// SPDX-License-Identifier: MIT
// What the files of the Jinja interpreter share: jinja_lex.c makes tokens, jinja_value.c knows
// values and what is done to them, jinja_expression.c and jinja.c evaluate while they parse.
#ifndef BNT_PACK_JINJA_PARTS_H
#define BNT_PACK_JINJA_PARTS_H

#include "pack/jinja.h"

enum jinja_token_kind {
    TOKEN_END,
    TOKEN_DATA, // text between tags
    TOKEN_EXPRESSION,
    TOKEN_EXPRESSION_END,
    TOKEN_BLOCK,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_OPERATOR,
};

struct jinja_token {
    enum jinja_token_kind kind;
    const char *text; // of a string, what it stands for
    size_t size;
    int64_t integer;
};

enum jinja_type {
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INTEGER,
    VALUE_TEXT,
    VALUE_LIST,
    VALUE_DICT,     // a message, a namespace, or loop
    VALUE_FUNCTION, // its name in text
    VALUE_METHOD,   // of *self, its name in text
};

struct jinja_value {
    enum jinja_type type;
    int64_t integer; // also of a bool
    const uint8_t *text;
    size_t size; // of a text; of a list
    const struct jinja_value *items;
    struct jinja_dict *dict;
    const struct jinja_value *self;
};

struct jinja_entry {
    const uint8_t *key;
    size_t key_size;
    struct jinja_value value;
    struct jinja_entry *next;
};
struct jinja_dict {
    struct jinja_entry *first;
    bool is_namespace; // may be assigned to
};

struct jinja_frame {
    struct jinja_dict variables;
    struct jinja_frame *outer;
};

struct jinja_block; // of memory

struct jinja {
    enum jinja_result result; // of the first failure
    char *why;
    unsigned assumed;
    struct jinja_block *memory;
    size_t allocated;
    struct jinja_token *tokens; // the last is TOKEN_END
    size_t n_tokens, tokens_capacity;
    size_t at;     // the next token
    size_t steps;  // tokens looked at: a bound on the work
    unsigned dead; // > 0: parsing without evaluating
    unsigned depth;
    struct jinja_frame *frame;
    struct bnt_buffer *out;
};

struct jinja_arguments {
    struct jinja_value values[8];
    const struct jinja_token *names[8]; // NULL: by position
    size_t count;
};

// Notes the first failure; from then on every token is TOKEN_END, so that all loops end. Returns
// undefined.
struct jinja_value jinja_fail(struct jinja *j, enum jinja_result result, const char *what,
                              const void *detail, size_t detail_size);
void *jinja_allocate(struct jinja *j, size_t size); // zeroed; NULL after a failure
void jinja_free(struct jinja *j);

bool jinja_lex(struct jinja *j, const char *source, size_t size);

// --- values (jinja_value.c) ---

struct jinja_value jinja_text(const void *text, size_t size);
struct jinja_value jinja_integer(int64_t value);
struct jinja_value jinja_bool(bool value);
bool jinja_is(const struct jinja_value *v, const char *text); // a text or name that is this one
bool jinja_truth(struct jinja *j, const struct jinja_value *v);
bool jinja_equal(struct jinja *j, const struct jinja_value *a, const struct jinja_value *b);
bool jinja_contains(struct jinja *j, const struct jinja_value *in, const struct jinja_value *what);
// What {{ }} and ~ make of a value.
struct jinja_value jinja_printed(struct jinja *j, const struct jinja_value *v);
struct jinja_value jinja_concat(struct jinja *j, const struct jinja_value *a,
                                const struct jinja_value *b);
struct jinja_value jinja_attribute(struct jinja *j, const struct jinja_value *of, const void *name,
                                   size_t size);
struct jinja_value jinja_item(struct jinja *j, const struct jinja_value *of,
                              const struct jinja_value *index);
struct jinja_value jinja_slice(struct jinja *j, const struct jinja_value *of,
                               const struct jinja_value bounds[3]);
struct jinja_entry *jinja_find(const struct jinja_dict *dict, const void *key, size_t size);
bool jinja_set(struct jinja *j, struct jinja_dict *dict, const void *key, size_t size,
               const struct jinja_value *value);

// --- filters, tests, methods, functions (jinja_call.c) ---

struct jinja_value jinja_filter(struct jinja *j, const struct jinja_token *name,
                                const struct jinja_value *v, const struct jinja_arguments *a);
bool jinja_test(struct jinja *j, const struct jinja_token *name, const struct jinja_value *v,
                const struct jinja_arguments *a);
struct jinja_value jinja_call(struct jinja *j, const struct jinja_value *function,
                              const struct jinja_arguments *a);
bool jinja_is_function(const struct jinja_token *name);

// --- expressions (jinja_expression.c) ---

const struct jinja_token *jinja_peek(struct jinja *j);
const struct jinja_token *jinja_next(struct jinja *j);
bool jinja_token_is(const struct jinja_token *t, enum jinja_token_kind kind, const char *text);
bool jinja_accept(struct jinja *j, enum jinja_token_kind kind, const char *text);
void jinja_expect(struct jinja *j, enum jinja_token_kind kind, const char *text);
// After "(": what is between it and ")".
void jinja_arguments_of(struct jinja *j, struct jinja_arguments *a);
// with_condition: also "a if b else c", whose `if` in the head of a loop is another.
struct jinja_value jinja_evaluate(struct jinja *j, bool with_condition);

#endif
