// SPDX-License-Identifier: MIT
// Lists of token ids as the command line has them: "1,2,3".
#ifndef BNT_FORMATS_IDS_H
#define BNT_FORMATS_IDS_H

#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"

// Parses ids separated by commas, blanks around them allowed. *ids is malloc'd; an empty or blank
// text gives none.
enum bnt_status bnt_ids_parse(const char *text, uint32_t **ids, size_t *count,
                              struct bnt_error *err);

#endif
