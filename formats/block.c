// SPDX-License-Identifier: MIT
#include "formats/block.h"

#include <string.h>

#include "formats/bytes.h"

enum { ZERO_BYTE = 0xAA }; // four codes of the weight zero

// Word index inside a block of a row's columns 0–15 (half 0) or 16–31 (half 1).
static size_t word_index(uint32_t row, uint32_t half)
{
    return (row / 8) * 16 + half * 8 + row % 8;
}

// Sixteen weights to one word. −1, 0, +1 end in the bits 11, 00, 01; xor 10 makes them the codes 1,
// 2, 3 of each byte, and byte i of columns 4j … 4j+3 goes to bits 8i + 2j.
static uint32_t pack_word(const int8_t *w)
{
    uint32_t word = 0;
    for (unsigned j = 0; j < 4; j++)
        word |= ((bnt_load_u32(w + 4 * j) & 0x03030303) ^ 0x02020202) << 2 * j;
    return word;
}

static bool all_ternary(const int8_t *w, size_t n)
{
    uint8_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (uint8_t)((uint8_t)(w[i] + 1) > 2);
    return !bad;
}

static void pack_tail(const int8_t *w, uint32_t n, uint8_t *block, uint32_t row)
{
    int8_t padded[BNT_BLOCK_COLS] = {0};
    memcpy(padded, w, n);
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t word = pack_word(padded + 16 * half);
        memcpy(block + 4 * word_index(row, half), &word, 4);
    }
}

bool bnt_block_pack_row(const int8_t *w, uint32_t rows, uint32_t cols, uint8_t *out)
{
    if (!all_ternary(w, (size_t)rows * cols))
        return false;
    if (rows < BNT_BLOCK_ROWS)
        memset(out, ZERO_BYTE, bnt_block_row_bytes(cols));
    uint32_t whole = cols / BNT_BLOCK_COLS;
    for (uint32_t row = 0; row < rows; row++) {
        const int8_t *from = w + (size_t)row * cols;
        uint8_t *to = out + 4 * word_index(row, 0);
        for (uint32_t b = 0; b < whole; b++, from += BNT_BLOCK_COLS, to += BNT_BLOCK_BYTES) {
            uint32_t low = pack_word(from);
            uint32_t high = pack_word(from + 16);
            memcpy(to, &low, 4);
            memcpy(to + 4 * 8, &high, 4);
        }
        if (cols % BNT_BLOCK_COLS)
            pack_tail(from, cols % BNT_BLOCK_COLS, out + (size_t)whole * BNT_BLOCK_BYTES, row);
    }
    return true;
}

void bnt_block_unpack_row(const uint8_t *blocks, uint32_t cols, int8_t *w)
{
    uint32_t padded = bnt_pad_cols(cols);
    for (uint32_t n = 0; n < BNT_BLOCK_ROWS; n++) {
        for (uint32_t k = 0; k < padded; k++) {
            size_t index = (size_t)(k / 32) * BNT_BLOCK_WORDS + word_index(n, k % 32 / 16);
            uint32_t word = bnt_load_u32(blocks + 4 * index);
            unsigned bit = 8 * (k % 4) + 2 * (k % 16 / 4);
            w[(size_t)n * padded + k] = (int8_t)((int)(word >> bit & 3) - 2);
        }
    }
}

// Sums of 2-bit, 4-bit and 8-bit fields: portable, and the compiler turns the inner loop into
// vector code. Per 64-bit word a field of 8 bits counts at most 4 codes, so 63 words fit before it
// could overflow.
static void count_run(const uint8_t *p, size_t words, uint64_t *low, uint64_t *high, uint64_t *both)
{
    const uint64_t m1 = 0x5555555555555555, m2 = 0x3333333333333333, m4 = 0x0f0f0f0f0f0f0f0f;
    uint64_t sum_low = 0, sum_high = 0, sum_both = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t v = bnt_load_u64(p + 8 * i);
        uint64_t l = v & m1, h = v >> 1 & m1, b = l & h;
        l = (l & m2) + (l >> 2 & m2);
        h = (h & m2) + (h >> 2 & m2);
        b = (b & m2) + (b >> 2 & m2);
        sum_low += (l & m4) + (l >> 4 & m4);
        sum_high += (h & m4) + (h >> 4 & m4);
        sum_both += (b & m4) + (b >> 4 & m4);
    }
    // Horizontal sums: each byte is at most 63 · 4 = 252, so pairs are widened to 16 bits first.
    const uint64_t m8 = 0x00ff00ff00ff00ff, ones = 0x0001000100010001;
    *low += ((sum_low & m8) + (sum_low >> 8 & m8)) * ones >> 48;
    *high += ((sum_high & m8) + (sum_high >> 8 & m8)) * ones >> 48;
    *both += ((sum_both & m8) + (sum_both >> 8 & m8)) * ones >> 48;
}

void bnt_block_count_codes(const uint8_t *blocks, uint64_t size, uint64_t count[4])
{
    uint64_t low = 0, high = 0, both = 0; // codes with bit 0 set, with bit 1 set, with both
    uint64_t words = size / 8;
    for (uint64_t at = 0; at < words; at += 48)
        count_run(blocks + 8 * at, (size_t)(words - at < 48 ? words - at : 48), &low, &high, &both);
    count[1] = low - both;
    count[2] = high - both;
    count[3] = both;
    count[0] = size * 4 - low - high + both;
}

bool bnt_block_padding_is_zero(const uint8_t *blocks, uint32_t rows, uint32_t cols)
{
    uint32_t padded = bnt_pad_cols(cols);
    for (uint32_t n = 0; n < BNT_BLOCK_ROWS; n++) {
        for (uint32_t k = n < rows ? cols : 0; k < padded; k++) {
            size_t index = (size_t)(k / 32) * BNT_BLOCK_WORDS + word_index(n, k % 32 / 16);
            unsigned bit = 8 * (k % 4) + 2 * (k % 16 / 4);
            if ((bnt_load_u32(blocks + 4 * index) >> bit & 3) != 2)
                return false;
        }
    }
    return true;
}
