// SPDX-License-Identifier: MIT
// Reading a TOKN section (bnt.md section 8). The view points into the bytes; it owns nothing.
#ifndef BNT_FORMATS_TOKENIZER_VIEW_H
#define BNT_FORMATS_TOKENIZER_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layout.h"
#include "formats/view.h"

struct bnt_tokenizer_view {
    struct bnt_tokenizer_record record;
    const uint32_t *token_offset;          // (n_tokens + 1)
    const uint32_t *lookup;                // (n_lookup)
    const struct bnt_merge_record *merges; // (n_merges)
    const struct bnt_added_record *added;  // (n_added)
    const struct bnt_step_record *steps;   // (n_steps)
    const uint32_t *prefix;                // (n_prefix)
    const uint32_t *suffix;                // (n_suffix)
    const uint8_t *attr;                   // (n_tokens)
    const uint8_t *pool;                   // (pool_size)
};

// Checks R24, R25 and all of R26 but that patterns compile. data: 4-byte aligned. Returns whether
// all of it holds.
bool bnt_tokenizer_view_open(struct bnt_tokenizer_view *view, const uint8_t *data, uint64_t size,
                             uint32_t vocab_size, struct bnt_report *report);

static inline bool bnt_step_has_pattern(const struct bnt_step_record *step)
{
    return step->type == BNT_STEP_SPLIT || step->type == BNT_STEP_REPLACE_PATTERN;
}

// The last step if it is BNT_STEP_END_OF_WORD, or NULL.
static inline const struct bnt_step_record *bnt_end_of_word(const struct bnt_tokenizer_view *view)
{
    const uint32_t n = view->record.n_steps;
    return n > 0 && view->steps[n - 1].type == BNT_STEP_END_OF_WORD ? &view->steps[n - 1] : NULL;
}

// The bytes that a token decodes to. id < n_tokens.
static inline const uint8_t *bnt_token_bytes(const struct bnt_tokenizer_view *view, uint32_t id,
                                             size_t *size)
{
    *size = view->token_offset[id + 1] - view->token_offset[id];
    return view->pool + view->token_offset[id];
}

#endif
