// SPDX-License-Identifier: MIT
// The steps of a tokenizer that change a text without splitting it (bnt.md section 8, types 2 – 5).
// bnt-pack uses them on added tokens, the runtime on texts.
#ifndef BNT_FORMATS_NORMALIZE_H
#define BNT_FORMATS_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layout.h"

enum bnt_normalize_result { BNT_NORMALIZED, BNT_NORMALIZE_NO_MEMORY, BNT_NORMALIZE_TOO_LARGE };

// Applies one step to a text of size bytes (valid UTF-8, shorter than 4 GB). pool holds the step's
// text. at_start: the text begins where the whole input begins. limit: bytes that the result may
// have. *out is malloc'd, a zero byte follows.
enum bnt_normalize_result bnt_normalize(const struct bnt_step_record *step, const uint8_t *pool,
                                        bool at_start, const uint8_t *text, size_t size,
                                        uint64_t limit, uint8_t **out, size_t *out_size);

#endif
