// SPDX-License-Identifier: MIT
// Building the TOKN section: tokenizer_json.c puts it together, tokenizer_vocab.c knows tokens and
// merges, tokenizer_steps.c what surrounds them, tokenizer_builder.c what all of them need.
#ifndef BNT_PACK_TOKENIZER_BUILDER_H
#define BNT_PACK_TOKENIZER_BUILDER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layout.h"
#include "formats/status.h"
#include "pack/buffer.h"

struct tokenizer_builder {
    const json_t *json;
    const json_t *model;
    uint32_t vocab_size;
    struct bnt_error *err;
    struct bnt_tokenizer_record record;
    // What the tokenizer writes for a space, e.g. U+2581; NULL: nothing else. In the section it is
    // a space.
    const char *mark;
    bool mark_restored; // the decoder turns the mark back into a space
    // Tokens by id.
    const char **token; // text in tokenizer.json, NULL: no such id
    size_t *token_size;
    uint8_t *attr;
    bool *mergeable;  // in model.vocab, and a text or merge can lead to it
    bool *normalized; // an added token that is matched, and decoded, as the normalizer leaves it
    // Arrays of the section.
    uint32_t *token_offset;
    uint32_t *lookup;
    struct bnt_merge_record *merges;
    struct bnt_buffer added, steps, prefix, suffix, pool;
    struct bnt_buffer step_texts; // follow the added tokens' texts in the pool
    bool marked;                  // by the steps so far every space has become a mark
    bool byte_level;              // the pre-tokenizer had its ByteLevel step
    bool byte_level_written;      // some ByteLevel became a step
    bool byte_level_pending;      // which has not been written as a step: nothing followed it
};

// "tokenizer.json: WHAT "VALUE" is not supported", "tokenizer.json: WHAT", out of memory. They
// return the status.
enum bnt_status bnt_builder_refuse(struct tokenizer_builder *b, const char *what,
                                   const char *value);
enum bnt_status bnt_builder_bad(struct tokenizer_builder *b, const char *what);
enum bnt_status bnt_builder_no_memory(struct tokenizer_builder *b);

// The model's kind and options. (tokenizer_vocab.c)
enum bnt_status bnt_builder_check_model(struct tokenizer_builder *b);
// Kind, space mark, decoder: what must be known before the first token. (tokenizer_steps.c)
enum bnt_status bnt_builder_find_kind(struct tokenizer_builder *b);
// The steps of the normalizer, which tokens need. (tokenizer_steps.c)
enum bnt_status bnt_builder_add_normalizers(struct tokenizer_builder *b);
// Appends a text as the normalizer leaves it.
enum bnt_status bnt_builder_put_normalized(struct tokenizer_builder *b, const char *text,
                                           size_t size, struct bnt_buffer *out);
// Tokens, added tokens, merges. (tokenizer_vocab.c)
enum bnt_status bnt_builder_add_vocabulary(struct tokenizer_builder *b);
// Pre-tokenizer, post-processor. Offsets of steps count from step_texts.
// (tokenizer_steps.c)
enum bnt_status bnt_builder_add_steps(struct tokenizer_builder *b);

// Appends a text with the space mark replaced by a space.
void bnt_builder_put_text(const struct tokenizer_builder *b, const char *text, size_t size,
                          struct bnt_buffer *out);
// Appends the bytes that a token's text stands for in the input. false, perhaps with some appended:
// no input leads to it.
bool bnt_builder_put_matched(const struct tokenizer_builder *b, const char *text, size_t size,
                             struct bnt_buffer *out);

#endif
