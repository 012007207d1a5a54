// SPDX-License-Identifier: MIT
// The int8 copy of the output matrix (bnt.md section 7): bnt-pack makes it, bnt-verify repeats it.
#ifndef BNT_FORMATS_INT8_ROWS_H
#define BNT_FORMATS_INT8_ROWS_H

#include <stdint.h>

#include "formats/layout.h"

// One row of n values (dtype: BNT_BF16 or BNT_F32) to n int8 values; returns the row's scale.
// Values must be finite.
float bnt_int8_row(enum bnt_dtype dtype, const uint8_t *row, uint32_t n, int8_t *out);

#endif
