// SPDX-License-Identifier: MIT
#include "formats/levels.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "formats/bytes.h"
#include "formats/layout.h"
#include "formats/parallel.h"

// Magnitudes are compared as bits: those of bf16, f16 and f32 without the sign are ordered as the
// numbers are. Zero is 0 for both of its signs.
enum { SEGMENT = 32, ROWS_AT_ONCE = 16 };
_Static_assert(BNT_LEVELS_MATRIX <= 8, "a row's kinds fit in a byte");

#define NO_LEVEL 0u // of a segment or group: all its weights are zero
#define CONFLICT UINT32_MAX

uint32_t bnt_levels_scale_group(enum bnt_level_groups groups)
{
    switch (groups) {
    case BNT_LEVELS_MATRIX:
        return 0;
    case BNT_LEVELS_ROW:
        return BNT_GROUP_ROW;
    default:
        return (uint32_t)SEGMENT << groups;
    }
}

const char *bnt_levels_name(enum bnt_level_groups groups)
{
    static const char *const names[BNT_LEVELS_KINDS] = {"row and 32 columns",
                                                        "row and 64 columns",
                                                        "row and 128 columns",
                                                        "row and 256 columns",
                                                        "row",
                                                        "matrix"};
    return names[groups];
}

static float value_of(enum bnt_float_type type, uint32_t bits)
{
    switch (type) {
    case BNT_FLOAT_BF16:
        return bnt_float_from_bf16((uint16_t)bits);
    case BNT_FLOAT_F16:
        return bnt_float_from_f16((uint16_t)bits);
    case BNT_FLOAT_F32:
        break;
    }
    return bnt_float_from_bits(bits);
}

// The first bits that are no finite number.
static uint32_t first_infinite(enum bnt_float_type type)
{
    switch (type) {
    case BNT_FLOAT_BF16:
        return 0x7f80;
    case BNT_FLOAT_F16:
        return 0x7c00;
    case BNT_FLOAT_F32:
        break;
    }
    return 0x7f800000;
}

// The one magnitude other than zero of n values, NO_LEVEL, or CONFLICT; *most is the greatest.
// Without branches, so that they become vector code.
static uint32_t level_of_16(const uint8_t *data, uint32_t n, uint32_t *most)
{
    int16_t max = 0, off = 0;
    for (uint32_t i = 0; i < n; i++) {
        int16_t v = (int16_t)(bnt_load_u16(data + 2 * i) & 0x7fff);
        max = v > max ? v : max;
    }
    for (uint32_t i = 0; i < n; i++) {
        int16_t v = (int16_t)(bnt_load_u16(data + 2 * i) & 0x7fff);
        off |= (int16_t)((v != 0) & (v != max));
    }
    *most = (uint32_t)max;
    return off ? CONFLICT : (uint32_t)max;
}

static uint32_t level_of_32(const uint8_t *data, uint32_t n, uint32_t *most)
{
    int32_t max = 0, off = 0;
    for (uint32_t i = 0; i < n; i++) {
        int32_t v = (int32_t)(bnt_load_u32(data + 4 * i) & 0x7fffffff);
        max = v > max ? v : max;
    }
    for (uint32_t i = 0; i < n; i++) {
        int32_t v = (int32_t)(bnt_load_u32(data + 4 * i) & 0x7fffffff);
        off |= (v != 0) & (v != max);
    }
    *most = (uint32_t)max;
    return off ? CONFLICT : (uint32_t)max;
}

static const uint8_t *row_data(const struct bnt_level_matrix *m, uint32_t row)
{
    return m->data + (uint64_t)row * m->cols * bnt_float_size(m->type);
}

static uint32_t level_of(const struct bnt_level_matrix *m, const uint8_t *data, uint32_t n,
                         uint32_t *most)
{
    return m->type == BNT_FLOAT_F32 ? level_of_32(data, n, most) : level_of_16(data, n, most);
}

// The level of a and b together.
static uint32_t join(uint32_t a, uint32_t b)
{
    if (a == NO_LEVEL || a == b)
        return b;
    return b == NO_LEVEL ? a : CONFLICT;
}

// --- what a matrix holds ---

struct look {
    const struct bnt_level_matrix *matrix;
    uint32_t *row_level;   // (rows) the level of each row, or CONFLICT
    _Atomic unsigned fail; // kinds that some row does not hold
    atomic_bool infinite;
    atomic_bool wide; // some level is no half
    _Atomic uint32_t bad_row;
};

static bool is_half(enum bnt_float_type type, uint32_t bits)
{
    float v = value_of(type, bits);
    return type == BNT_FLOAT_F16 || bnt_float_from_f16(bnt_f16_from_float(v)) == v;
}

// Kinds that the row does not hold. Groups of 2^i segments are open at a time, one for each kind.
static unsigned look_at_row(struct look *look, uint32_t row)
{
    const struct bnt_level_matrix *m = look->matrix;
    const uint8_t *data = row_data(m, row);
    const unsigned size = bnt_float_size(m->type);
    uint32_t open[BNT_LEVELS_MATRIX] = {0};
    uint32_t last = NO_LEVEL; // of this row, that was found to be a half
    unsigned fail = 0;
    for (uint32_t k = 0; k < m->cols; k += SEGMENT) {
        uint32_t n = m->cols - k < SEGMENT ? m->cols - k : SEGMENT, most;
        uint32_t level = level_of(m, data + (uint64_t)k * size, n, &most);
        if (most >= first_infinite(m->type)) {
            atomic_store(&look->infinite, true);
            return fail;
        }
        for (unsigned i = 0; i < BNT_LEVELS_MATRIX; i++) {
            if (i < BNT_LEVELS_ROW && k / SEGMENT % (1u << i) == 0)
                open[i] = NO_LEVEL;
            open[i] = join(open[i], level);
            fail |= (unsigned)(open[i] == CONFLICT) << i;
        }
        if (level != CONFLICT && level != last && !is_half(m->type, level))
            atomic_store(&look->wide, true);
        last = level;
        if (fail & 1)
            break; // all others fail too
    }
    look->row_level[row] = open[BNT_LEVELS_ROW];
    return fail & 1 ? (1u << BNT_LEVELS_MATRIX) - 1 : fail;
}

static void look_at_rows(void *context, uint64_t i)
{
    struct look *look = context;
    const uint32_t rows = look->matrix->rows;
    uint32_t first = (uint32_t)i * ROWS_AT_ONCE;
    for (uint32_t row = first; row < rows && row < first + ROWS_AT_ONCE; row++) {
        if (atomic_load(&look->fail) & 1 || atomic_load(&look->infinite))
            return; // nothing holds any more
        unsigned fail = look_at_row(look, row);
        if (fail & 1)
            atomic_store(&look->bad_row, row);
        if (fail)
            atomic_fetch_or(&look->fail, fail);
    }
}

static void look_at_row_levels(const struct look *look, struct bnt_levels *levels)
{
    uint32_t all = NO_LEVEL, run = NO_LEVEL;
    levels->n_shards = 0;
    for (uint32_t row = 0; row < look->matrix->rows; row++) {
        uint32_t level = look->row_level[row];
        all = join(all, level);
        if (level == NO_LEVEL || level == run)
            continue;
        levels->n_shards++;
        run = level;
    }
    if (all == CONFLICT)
        return;
    levels->holds |= 1u << BNT_LEVELS_MATRIX;
    levels->level = value_of(look->matrix->type, all);
}

// --- near to three levels ---

// The magnitude that most of the weights other than zero have, if more than half have one;
// otherwise one of them. (Boyer and Moore's vote.)
static uint32_t vote(const struct bnt_level_matrix *m, const uint8_t *data, uint32_t n)
{
    const bool wide = m->type == BNT_FLOAT_F32;
    uint32_t level = NO_LEVEL, count = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t v = wide ? bnt_load_u32(data + 4 * (uint64_t)i) & 0x7fffffff
                          : bnt_load_u16(data + 2 * (uint64_t)i) & 0x7fffu;
        if (v == 0)
            continue;
        if (count == 0)
            level = v;
        count = v == level ? count + 1 : count - 1;
    }
    return level;
}

// q of the weight w, and how far w is from q·s, over s.
static int nearest_level(float w, float s, float *distance)
{
    float a = fabsf(w) / s;
    int q = a > 0.5f ? 1 : 0;
    *distance = fabsf(a - (float)q);
    return w < 0 ? -q : q;
}

struct near {
    const struct bnt_level_matrix *matrix;
    struct bnt_levels *levels;
    uint32_t first;
};

static void count_off(const struct bnt_level_matrix *m, uint32_t row, enum bnt_level_groups kind,
                      struct bnt_levels *levels)
{
    const uint8_t *data = row_data(m, row);
    const unsigned size = bnt_float_size(m->type);
    const uint32_t group = kind == BNT_LEVELS_ROW ? m->cols : bnt_levels_scale_group(kind);
    for (uint32_t k = 0; k < m->cols; k += group) {
        uint32_t n = m->cols - k < group ? m->cols - k : group;
        uint32_t level = vote(m, data + (uint64_t)k * size, n);
        float s = value_of(m->type, level);
        levels->halves = levels->halves && is_half(m->type, level);
        levels->finite = levels->finite && isfinite(s);
        for (uint32_t i = 0; i < n && s > 0; i++) {
            float distance, w = bnt_float_load(m->type, data, k + i);
            levels->finite = levels->finite && isfinite(w);
            (void)nearest_level(w, s, &distance);
            levels->off[kind] += distance != 0;
            // By a subnormal level a weight may divide to infinity, which JSON cannot say.
            levels->worst[kind] = fminf(fmaxf(levels->worst[kind], distance), FLT_MAX);
        }
    }
}

// Every row of a small matrix, and some hundred of a large one that is nowhere near. What the first
// look broke off before, infinite weights, is found here too.
static void look_near(const struct bnt_level_matrix *m, struct bnt_levels *levels)
{
    enum { SAMPLE = 64 };
    uint64_t seen = 0;
    for (uint32_t row = 0; row < m->rows; row++) {
        for (int kind = 0; kind < BNT_LEVELS_MATRIX; kind++)
            count_off(m, row, (enum bnt_level_groups)kind, levels);
        seen += m->cols;
        if (row >= SAMPLE && levels->off[BNT_LEVELS_32] > seen / 10) {
            for (int kind = 0; kind < BNT_LEVELS_MATRIX; kind++) // as if all rows were like these
                levels->off[kind] = (uint64_t)((double)levels->off[kind] / (row + 1) * m->rows);
            return;
        }
    }
}

bool bnt_levels_look(const struct bnt_level_matrix *m, unsigned threads, struct bnt_levels *levels)
{
    struct look look = {.matrix = m, .row_level = calloc(m->rows, sizeof(uint32_t))};
    *levels = (struct bnt_levels){0};
    if (!look.row_level)
        return false;
    bnt_parallel_for(threads, ((uint64_t)m->rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, look_at_rows,
                     &look);
    levels->finite = !atomic_load(&look.infinite);
    levels->halves = !atomic_load(&look.wide);
    levels->holds = ~atomic_load(&look.fail) & ((1u << BNT_LEVELS_MATRIX) - 1);
    levels->bad_row = atomic_load(&look.bad_row);
    if (levels->finite && levels->holds & 1u << BNT_LEVELS_ROW)
        look_at_row_levels(&look, levels);
    else if (levels->finite && !levels->holds)
        look_near(m, levels);
    free(look.row_level);
    return true;
}

// --- codes and scales of rows ---

void bnt_levels_scales(const struct bnt_level_matrix *m, uint32_t row, uint32_t group, bool nearest,
                       float *scales)
{
    const uint8_t *data = row_data(m, row);
    const unsigned size = bnt_float_size(m->type);
    for (uint32_t k = 0, g = 0; k < m->cols; k += group, g++) {
        uint32_t n = m->cols - k < group ? m->cols - k : group, most;
        const uint8_t *at = data + (uint64_t)k * size;
        if (nearest)
            most = vote(m, at, n);
        else
            (void)level_of(m, at, n, &most);
        scales[g] = value_of(m->type, most);
    }
}

static void nearest_codes(const struct bnt_level_matrix *m, const uint8_t *data, uint32_t n,
                          float scale, int8_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        float distance;
        out[i] =
            (int8_t)(scale > 0 ? nearest_level(bnt_float_load(m->type, data, i), scale, &distance)
                               : 0);
    }
}

static void exact_codes_16(const uint8_t *data, uint32_t n, int8_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        uint16_t v = bnt_load_u16(data + 2 * (uint64_t)i);
        out[i] = (int8_t)(((v & 0x7fff) != 0) * (1 - 2 * (v >> 15)));
    }
}

static void exact_codes_32(const uint8_t *data, uint32_t n, int8_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t v = bnt_load_u32(data + 4 * (uint64_t)i);
        out[i] = (int8_t)(((v & 0x7fffffff) != 0) * (1 - 2 * (int)(v >> 31)));
    }
}

void bnt_levels_codes(const struct bnt_level_matrix *m, uint32_t row, uint32_t group,
                      const float *scales, bool nearest, int8_t *out)
{
    const uint8_t *data = row_data(m, row);
    const unsigned size = bnt_float_size(m->type);
    if (!nearest && m->type == BNT_FLOAT_F32) {
        exact_codes_32(data, m->cols, out);
    } else if (!nearest) {
        exact_codes_16(data, m->cols, out);
    } else {
        for (uint32_t k = 0, g = 0; k < m->cols; k += group, g++)
            nearest_codes(m, data + (uint64_t)k * size, m->cols - k < group ? m->cols - k : group,
                          scales[g], out + k);
    }
}

void bnt_levels_error(const struct bnt_level_matrix *m, uint32_t row, uint32_t group,
                      const float *scales, const int8_t *codes, double *difference, double *total)
{
    const uint8_t *data = row_data(m, row);
    for (uint32_t k = 0; k < m->cols; k++) {
        double w = (double)bnt_float_load(m->type, data, k);
        double d = w - (double)codes[k] * (double)scales[k / group];
        *difference += d * d;
        *total += w * w;
    }
}
