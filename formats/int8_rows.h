// SPDX-License-Identifier: MIT
// The int8 copy of the output matrix (bnt.md section 7): bnt-pack makes it, bnt-verify repeats it.
#ifndef BNT_FORMATS_INT8_ROWS_H
#define BNT_FORMATS_INT8_ROWS_H

#include <stdint.h>

// One row of n bf16 values to n int8 values; returns the row's scale. Values must be finite.
float bnt_int8_row(const uint8_t *bf16, uint32_t n, int8_t *out);

#endif
