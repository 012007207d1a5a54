// SPDX-License-Identifier: MIT
// Chat templates are Jinja programs. This runs the part of Jinja that they use for plain
// conversations, as transformers sets it up (trim_blocks, lstrip_blocks, a sandbox), with marks in
// place of what people say: the result shows where each text goes and what happens to it. A
// template that does more than to place and to trim them, or uses anything else, is refused with
// a reason; nothing is guessed.
#ifndef BNT_PACK_JINJA_H
#define BNT_PACK_JINJA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pack/buffer.h"

// What somebody says is three bytes in a text: this one, which no UTF-8 has, whose text it is, and
// what was done to it. The last two are such as no character begins with, so that a search for
// some text never finds a part of a mark.
enum { JINJA_MARK = 0xFF, JINJA_MARK_SIZE = 3 };
enum { JINJA_SYSTEM = 0x81 };
enum {
    JINJA_UNTOUCHED = 0x80,
    JINJA_LSTRIP = 1, // white space at its start was dropped
    JINJA_RSTRIP = 2,
    JINJA_LSTRIP_NEWLINES = 4, // newlines alone
    JINJA_RSTRIP_NEWLINES = 8,
};
// The mark of the i-th thing said by a user or an assistant.
static inline uint8_t jinja_user(unsigned i)
{
    return (uint8_t)(0x82 + 2 * i);
}
static inline uint8_t jinja_answer(unsigned i)
{
    return (uint8_t)(0x83 + 2 * i);
}

enum { JINJA_MAX_MESSAGES = 16, JINJA_WHY = 160 };

struct jinja_message {
    const char *role;
    const uint8_t *content; // with marks
    size_t size;
};

struct jinja_input {
    struct jinja_message messages[JINJA_MAX_MESSAGES];
    size_t n_messages;
    const char *bos, *eos; // NULL: the tokenizer has none
    bool generation_prompt;
};

// What a template looked for in a text that somebody says, assuming that it is not there.
enum { JINJA_ASSUMED_NO_THINKING = 1, JINJA_ASSUMED_NO_TOOLS = 2 };

enum jinja_result {
    JINJA_OK,
    JINJA_RAISED,  // the template refuses this conversation (raise_exception, an undefined value)
    JINJA_UNKNOWN, // it does what is not known here
    JINJA_NO_MEMORY,
};

// Appends what the template makes of the conversation. assumed: bits are added. why: the reason of
// a failure, in a few words.
enum jinja_result bnt_jinja_render(const char *source, size_t size, const struct jinja_input *input,
                                   struct bnt_buffer *out, unsigned *assumed, char why[JINJA_WHY]);

#endif
