// SPDX-License-Identifier: MIT
// The steps of a tokenizer that change a text without splitting it (bnt.md section 8, types 2 –
// 11). bnt-pack uses them on added tokens, the runtime on texts.
#ifndef BNT_FORMATS_NORMALIZE_H
#define BNT_FORMATS_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layout.h"
#include "formats/regex.h"

enum bnt_normalize_result {
    BNT_NORMALIZED,
    BNT_NORMALIZE_NO_MEMORY,
    BNT_NORMALIZE_TOO_LARGE,
    BNT_NORMALIZE_PATTERN_FAILS, // on this text
};

// Applies one step to a text of size bytes (valid UTF-8, shorter than 4 GB). pool holds the step's
// text. search: for BNT_STEP_REPLACE_PATTERN, its pattern and room for a match; the text is filled
// in here. at_start: the text begins where the whole input begins. limit: bytes that the result may
// have. *out is malloc'd, a zero byte follows.
enum bnt_normalize_result bnt_normalize(const struct bnt_step_record *step, const uint8_t *pool,
                                        struct bnt_regex_search search, bool at_start,
                                        const uint8_t *text, size_t size, uint64_t limit,
                                        uint8_t **out, size_t *out_size);

#endif
