// SPDX-License-Identifier: MIT
// The steps of a tokenizer that change a text without splitting it (bnt.md section 8, types 2 – 5).
// bnt-pack uses them on added tokens, the runtime on texts.
#ifndef BNT_FORMATS_NORMALIZE_H
#define BNT_FORMATS_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layout.h"

// Applies one step to a text of size bytes (valid UTF-8, shorter than 4 GB). pool holds the step's
// text. at_start: the text begins where the whole input begins. *out is malloc'd, a zero byte
// follows. false: out of memory, or the result would reach 4 GB.
bool bnt_normalize(const struct bnt_step_record *step, const uint8_t *pool, bool at_start,
                   const uint8_t *text, size_t size, uint8_t **out, size_t *out_size);

#endif
