// SPDX-License-Identifier: MIT
// The values of a checkpoint's tensors, whatever form they are stored in.
#include "formats/checkpoint.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "formats/bytes.h"

enum bnt_float_type bnt_source_float_type(const struct bnt_source *source)
{
    switch (source->tensor->dtype) {
    case BNT_ST_BF16:
        return BNT_FLOAT_BF16;
    case BNT_ST_F16:
        return BNT_FLOAT_F16;
    default:
        return BNT_FLOAT_F32;
    }
}

struct bnt_level_matrix bnt_source_levels(const struct bnt_source *source)
{
    return (struct bnt_level_matrix){.type = bnt_source_float_type(source),
                                     .data = source->data,
                                     .rows = source->place.rows,
                                     .cols = source->place.cols};
}

enum bnt_status bnt_source_not_finite(const struct bnt_checkpoint *c,
                                      const struct bnt_source *source, struct bnt_error *err)
{
    enum bnt_float_type type = bnt_source_float_type(source);
    uint64_t i = 0;
    while (i + 1 < source->tensor->count && isfinite(bnt_float_load(type, source->data, i)))
        i++;
    return bnt_fail(err, BNT_ERR_FORMAT,
                    "%s: tensor %s: element %" PRIu64 " (row %" PRIu64 ", column %" PRIu64
                    ") is not finite",
                    c->dir, source->name, i, i / source->place.cols, i % source->place.cols);
}

enum bnt_status bnt_source_scale(const struct bnt_checkpoint *c, const struct bnt_source *source,
                                 unsigned threads, float *scale, struct bnt_error *err)
{
    if (c->config.form == BNT_FORM_MASTERS) {
        double sum = bnt_abs_sum(bnt_source_float_type(source), source->data, source->tensor->count,
                                 threads);
        if (!isfinite(sum))
            return bnt_source_not_finite(c, source, err);
        *scale = bnt_ternary_scale(sum, source->tensor->count);
        return BNT_OK;
    }
    if (c->config.form == BNT_FORM_LEVELS) {
        float level = source->level > 0 ? source->level : bnt_ternary_scale(0, 1); // of zeros
        *scale = source->forced_scale > 0 ? source->forced_scale : level;
        return BNT_OK;
    }
    *scale = c->config.form == BNT_FORM_PACKED_DIVIDE ? 1.0f / source->weight_scale
                                                      : source->weight_scale;
    if (isfinite(*scale) && *scale > 0)
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_FORMAT, "%s: tensor %s_scale is %g: no usable scale", c->dir,
                    source->name, (double)source->weight_scale);
}

// One row of codes, the weight + 1 each, in bits shift and shift + 1. Bytes all the way and a
// constant shift: this becomes vector code.
static inline __attribute__((always_inline)) bool unpack_at(const uint8_t *from, uint32_t n,
                                                            unsigned shift, int8_t *out)
{
    uint8_t bad = 0;
    for (uint32_t k = 0; k < n; k++) {
        uint8_t code = (uint8_t)(from[k] >> shift & 3);
        bad |= (uint8_t)(code & code >> 1); // only 3 has both bits
        out[k] = (int8_t)(code - 1);
    }
    return !bad;
}

// Row r sits in bits 2i, 2i+1 of packed row r mod (rows/4), with i = r / (rows/4).
static bool unpack_row(const struct bnt_source *source, uint32_t r, int8_t *out)
{
    uint32_t quarter = source->place.rows / 4;
    uint32_t cols = source->place.cols;
    const uint8_t *from = source->data + (uint64_t)(r % quarter) * cols;
    switch (r / quarter) {
    case 0:
        return unpack_at(from, cols, 0, out);
    case 1:
        return unpack_at(from, cols, 2, out);
    case 2:
        return unpack_at(from, cols, 4, out);
    default:
        return unpack_at(from, cols, 6, out);
    }
}

void bnt_source_scales(const struct bnt_checkpoint *c, const struct bnt_source *source,
                       uint32_t row, float *scales)
{
    const struct bnt_level_matrix m = bnt_source_levels(source);
    const uint32_t groups = bnt_row_groups(&c->config.hyper, m.cols);
    if (source->forced_scale > 0) {
        for (uint32_t g = 0; g < groups; g++)
            scales[g] = source->forced_scale;
        return;
    }
    bnt_levels_scales(&m, row, c->config.hyper.scale_group, c->levels.nearest, scales);
}

// Rows on levels, or near to them.
static enum bnt_status level_rows(const struct bnt_checkpoint *c, const struct bnt_source *source,
                                  uint32_t first, uint32_t count, int8_t *out,
                                  struct bnt_error *err)
{
    const struct bnt_level_matrix m = bnt_source_levels(source);
    const uint32_t group = c->config.hyper.scale_group;
    float *scales = NULL;
    if (c->levels.nearest) {
        scales = malloc(((size_t)bnt_row_groups(&c->config.hyper, m.cols) + 1) * sizeof *scales);
        if (!scales)
            return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    }
    for (uint32_t i = 0; i < count; i++) {
        if (scales)
            bnt_levels_scales(&m, first + i, group, true, scales);
        bnt_levels_codes(&m, first + i, group, scales, c->levels.nearest,
                         out + (uint64_t)i * m.cols);
    }
    free(scales);
    return BNT_OK;
}

// One row of −1, 0, +1 stored as floats. Returns the column of anything else, or cols.
static uint32_t read_row(const struct bnt_source *source, uint32_t r, int8_t *out)
{
    enum bnt_float_type type = bnt_source_float_type(source);
    uint32_t cols = source->place.cols;
    for (uint32_t k = 0; k < cols; k++) {
        float v = bnt_float_load(type, source->data, (uint64_t)r * cols + k);
        if (v != -1 && v != 0 && v != 1)
            return k;
        out[k] = (int8_t)v;
    }
    return cols;
}

static enum bnt_status unpacked_rows(const struct bnt_checkpoint *c,
                                     const struct bnt_source *source, uint32_t first,
                                     uint32_t count, int8_t *out, struct bnt_error *err)
{
    uint32_t cols = source->place.cols;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t k = read_row(source, first + i, out + (uint64_t)i * cols);
        if (k < cols)
            return bnt_fail(err, BNT_ERR_FORMAT,
                            "%s: tensor %s: row %" PRIu32 ", column %" PRIu32
                            " is none of -1, 0, +1, but the config says that the weights are "
                            "ternary already (autobitlinear, offline)",
                            c->dir, source->name, first + i, k);
    }
    return BNT_OK;
}

enum bnt_status bnt_source_ternary_rows(const struct bnt_checkpoint *c,
                                        const struct bnt_source *source, float scale,
                                        uint32_t first, uint32_t count, int8_t *out,
                                        struct bnt_error *err)
{
    uint64_t cols = source->place.cols;
    if (c->config.form == BNT_FORM_LEVELS && !(source->forced_scale > 0))
        return level_rows(c, source, first, count, out, err);
    if (c->config.form == BNT_FORM_MASTERS || c->config.form == BNT_FORM_LEVELS) {
        enum bnt_float_type type = bnt_source_float_type(source);
        scale = source->forced_scale > 0 ? source->forced_scale : scale;
        bnt_ternarize(type, source->data + first * cols * bnt_float_size(type), count * cols, scale,
                      out);
        return BNT_OK;
    }
    if (source->unpacked)
        return unpacked_rows(c, source, first, count, out, err);
    for (uint32_t i = 0; i < count; i++) {
        if (!unpack_row(source, first + i, out + i * cols))
            return bnt_fail(err, BNT_ERR_FORMAT,
                            "%s: tensor %s: row %" PRIu32 " holds the illegal code 3", c->dir,
                            source->name, first + i);
    }
    return BNT_OK;
}
