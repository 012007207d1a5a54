// SPDX-License-Identifier: MIT
// The 16×32 block of 2-bit codes (bnt.md section 5).
#ifndef BNT_FORMATS_BLOCK_H
#define BNT_FORMATS_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/layout.h"

// Bytes of a block row: 16 rows of a matrix with cols columns.
static inline size_t bnt_block_row_bytes(uint32_t cols)
{
    return (size_t)bnt_pad_cols(cols) / BNT_BLOCK_COLS * BNT_BLOCK_BYTES;
}

// Packs one block row. w: (rows, cols) values −1, 0, +1, row-major without padding; rows 1 … 16,
// missing ones become zero. out: bnt_block_row_bytes(cols) bytes. Returns false, with out
// unspecified, if a value is none of the three.
bool bnt_block_pack_row(const int8_t *w, uint32_t rows, uint32_t cols, uint8_t *out);

// The inverse, for tests and messages: w (16, ceil32(cols)); code 0 gives −2.
void bnt_block_unpack_row(const uint8_t *blocks, uint32_t cols, int8_t *w);

// The weight in a row and a column of a matrix with cols columns; code 0 gives −2.
static inline int bnt_block_weight(const uint32_t *blocks, uint32_t cols, uint32_t n, uint32_t k)
{
    size_t block = (size_t)(n / 16) * (bnt_pad_cols(cols) / BNT_BLOCK_COLS) + k / 32;
    uint32_t word = blocks[block * 32 + n % 16 / 8 * 16 + k % 32 / 16 * 8 + n % 8];
    return (int)(word >> (8 * (k % 4) + 2 * (k % 16 / 4)) & 3) - 2;
}

// How often each code occurs in a run of words: count[c] for c = 0 … 3. size: bytes, a multiple of
// 128.
void bnt_block_count_codes(const uint8_t *blocks, uint64_t size, uint64_t count[4]);

// Whether the padding of one block row holds the zero code throughout. rows: how many of the 16 are
// real.
bool bnt_block_padding_is_zero(const uint8_t *blocks, uint32_t rows, uint32_t cols);

#endif
