// SPDX-License-Identifier: MIT
// Weights that already hold three levels: every one is −s, 0 or +s, with one s for the matrix, for
// each row, or for each row and group of columns. Checkpoints whose weights alone were trained so
// are published in ordinary floats, and nothing in their config says it; here it is found out, with
// certainty, by looking at every weight.
#ifndef BNT_FORMATS_LEVELS_H
#define BNT_FORMATS_LEVELS_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/ternary.h"

// What shares a scale, finest first. Coarser ones hold less often.
enum bnt_level_groups {
    BNT_LEVELS_32,
    BNT_LEVELS_64,
    BNT_LEVELS_128,
    BNT_LEVELS_256,
    BNT_LEVELS_ROW,
    BNT_LEVELS_MATRIX,
    BNT_LEVELS_KINDS,
};

// scale_group of bnt.md section 4 for one of these.
uint32_t bnt_levels_scale_group(enum bnt_level_groups groups);

// What one scale is for, as in "a scale for each …": "row and 128 columns".
const char *bnt_levels_name(enum bnt_level_groups groups);

// A matrix of weights, row-major.
struct bnt_level_matrix {
    enum bnt_float_type type;
    const uint8_t *data;
    uint32_t rows;
    uint32_t cols;
};

// What a matrix holds.
struct bnt_levels {
    unsigned holds;    // bit i: every group of enum bnt_level_groups i has one level, or none
    float level;       // of the whole matrix, if that holds; 0: all weights are zero
    uint32_t n_shards; // runs of rows that have the same level, if rows hold
    bool halves;       // every level is a half (binary16), also those that are only near
    uint64_t off[BNT_LEVELS_MATRIX]; // weights off the levels, by groups up to rows; only counted …
    float worst[BNT_LEVELS_MATRIX]; // … where 32 does not hold. The farthest, over its level
    uint32_t bad_row;               // a row that does not hold with groups of 32, if one does not
    bool finite;                    // false: some weight is not, and nothing else is said
};

// Looks at all weights, by up to threads threads. Takes 4 bytes a row of memory; false: there is
// none.
bool bnt_levels_look(const struct bnt_level_matrix *matrix, unsigned threads,
                     struct bnt_levels *levels);

// Scales of one row, one for each group of `group` columns (the last may be short): the level of
// each group, or 0 where all its weights are zero. nearest: the level that most of a group's
// weights other than zero have, for weights that are not all on levels.
void bnt_levels_scales(const struct bnt_level_matrix *matrix, uint32_t row, uint32_t group,
                       bool nearest, float *scales);

// The row as −1, 0, +1: of weights on levels what they are; with nearest the nearest level's.
void bnt_levels_codes(const struct bnt_level_matrix *matrix, uint32_t row, uint32_t group,
                      const float *scales, bool nearest, int8_t *out);

// ‖W − qs‖² and ‖W‖² of one row are added to the two sums.
void bnt_levels_error(const struct bnt_level_matrix *matrix, uint32_t row, uint32_t group,
                      const float *scales, const int8_t *codes, double *difference, double *total);

#endif
