// SPDX-License-Identifier: MIT
#include "convert/convert.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert/provenance.h"
#include "formats/bytes.h"
#include "formats/cli.h"
#include "formats/parallel.h"
#include "formats/safetensors.h"
#include "formats/stream.h"

enum {
    CHUNK_BYTES = 1 << 20,
    SCALE_ROWS = 1024, // of a matrix whose scales are written at a time
}; // of output at a time: stays in a core's cache between ternarizing and writing

struct converter {
    const struct bnt_checkpoint *checkpoint;
    struct bnt_output *out;
    const struct convert_options *options;
    struct provenance provenance;
    struct bnt_progress progress;
    uint8_t *buffer; // CHUNK_BYTES
    struct bnt_error *err;
};

// --- header ---

static enum bnt_status add_source(struct bnt_st_builder *b, const struct bnt_hyper *h,
                                  const struct bnt_source *source, struct bnt_error *err)
{
    const uint64_t shape[2] = {source->place.rows, source->place.cols};
    const uint64_t one = 1;
    char scale_name[BNT_TENSOR_NAME_SIZE + 8];
    if (source->place.section == BNT_SECTION_NORM)
        return bnt_st_builder_add(b, source->name, BNT_ST_F32, 1, &shape[1], err);
    if (source->place.section == BNT_SECTION_EMBD)
        return bnt_st_builder_add(b, source->name, source->tensor->dtype, 2, shape, err);
    (void)snprintf(scale_name, sizeof scale_name, "%s_scale", source->name);
    if (h->scale_group) { // they come first: both are made row by row, in one pass each
        const uint64_t scales[2] = {source->place.rows, bnt_row_groups(h, source->place.cols)};
        enum bnt_status status = bnt_st_builder_add(
            b, scale_name, h->scale_dtype == BNT_F16 ? BNT_ST_F16 : BNT_ST_F32, 2, scales, err);
        return status == BNT_OK ? bnt_st_builder_add(b, source->name, BNT_ST_I8, 2, shape, err)
                                : status;
    }
    enum bnt_status status = bnt_st_builder_add(b, source->name, BNT_ST_I8, 2, shape, err);
    return status == BNT_OK ? bnt_st_builder_add(b, scale_name, BNT_ST_F32, 1, &one, err) : status;
}

// Dense tensors come first: they lie first in a .bnt file.
static const uint32_t stream_order[] = {BNT_SECTION_NORM, BNT_SECTION_EMBD, BNT_SECTION_TERN};
enum { ORDERS = sizeof stream_order / sizeof stream_order[0] };

static enum bnt_status add_tensors(struct converter *c, struct bnt_st_builder *b)
{
    const struct bnt_checkpoint *from = c->checkpoint;
    for (size_t order = 0; order < ORDERS; order++) {
        for (size_t i = 0; i < from->n_sources; i++) {
            if (from->sources[i].place.section != stream_order[order])
                continue;
            enum bnt_status status = add_source(b, &from->config.hyper, &from->sources[i], c->err);
            if (status != BNT_OK)
                return status;
        }
    }
    const uint64_t size = c->provenance.size;
    return bnt_st_builder_add(b, BNT_STREAM_PROVENANCE, BNT_ST_U8, 1, &size, c->err);
}

static enum bnt_status add_number(struct bnt_st_builder *b, const char *key, uint32_t number,
                                  struct bnt_error *err)
{
    char text[16];
    int length = snprintf(text, sizeof text, "%" PRIu32, number);
    return bnt_st_builder_metadata(b, key, text, (size_t)length, err);
}

static enum bnt_status add_metadata(struct converter *c, struct bnt_st_builder *b)
{
    static const enum bnt_small_file_index carried[] = {
        BNT_FILE_CONFIG, BNT_FILE_GENERATION, BNT_FILE_TOKENIZER, BNT_FILE_TOKENIZER_CONFIG,
        BNT_FILE_CHAT_TEMPLATE};
    enum bnt_status status = bnt_st_builder_metadata(b, BNT_STREAM_KEY, BNT_STREAM_VERSION,
                                                     strlen(BNT_STREAM_VERSION), c->err);
    const struct bnt_hyper *h = &c->checkpoint->config.hyper;
    if (status == BNT_OK && h->scale_group)
        status = add_number(b, BNT_STREAM_GROUP, h->scale_group, c->err);
    if (status == BNT_OK && h->activation_bits != 8)
        status = add_number(b, BNT_STREAM_ACTIVATIONS, h->activation_bits, c->err);
    for (size_t i = 0; i < sizeof carried / sizeof carried[0] && status == BNT_OK; i++) {
        const struct bnt_small_file *file = &c->checkpoint->small[carried[i]];
        if (file->text)
            status = bnt_st_builder_metadata(b, file->name, file->text, file->size, c->err);
    }
    return status;
}

static enum bnt_status write_header(struct converter *c, uint64_t *data_size)
{
    struct bnt_st_builder b;
    char *bytes = NULL;
    size_t size = 0;
    enum bnt_status status = bnt_st_builder_init(&b, c->err);
    if (status == BNT_OK)
        status = add_metadata(c, &b);
    if (status == BNT_OK)
        status = add_tensors(c, &b);
    if (status == BNT_OK)
        status = bnt_st_builder_finish(&b, &bytes, &size, c->err);
    if (status == BNT_OK)
        status = bnt_output_write(c->out, bytes, size, c->err);
    *data_size = b.end;
    free(bytes);
    bnt_st_builder_free(&b);
    return status;
}

// --- tensors ---

static enum bnt_status emit(struct converter *c, const void *data, size_t size)
{
    enum bnt_status status = bnt_output_write(c->out, data, size, c->err);
    if (status == BNT_OK)
        bnt_progress_add(&c->progress, size);
    return status;
}

static enum bnt_status refuse_value(struct converter *c, const struct bnt_source *source,
                                    uint64_t i)
{
    return bnt_fail(c->err, BNT_ERR_FORMAT, "%s: tensor %s: element %" PRIu64 " is not finite",
                    c->checkpoint->dir, source->name, i);
}

static enum bnt_status write_norm(struct converter *c, const struct bnt_source *source)
{
    for (uint64_t i = 0; i < source->tensor->count; i++) {
        float v = bnt_float_load(bnt_source_float_type(source), source->data, i);
        if (!isfinite(v))
            return refuse_value(c, source, i);
        enum bnt_status status = emit(c, &v, sizeof v);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

// Embeddings pass as they are, but not unseen: one NaN would spoil every logit.
static enum bnt_status write_embedding(struct converter *c, const struct bnt_source *source)
{
    enum bnt_float_type type = bnt_source_float_type(source);
    uint64_t step = CHUNK_BYTES / bnt_float_size(type);
    for (uint64_t at = 0; at < source->tensor->count; at += step) {
        uint64_t n = source->tensor->count - at < step ? source->tensor->count - at : step;
        const uint8_t *data = source->data + at * bnt_float_size(type);
        if (!isfinite(bnt_abs_sum(type, data, n, 1))) {
            uint64_t i = 0;
            while (isfinite(bnt_float_load(type, data, i)))
                i++;
            return refuse_value(c, source, at + i);
        }
        enum bnt_status status = emit(c, data, (size_t)(n * bnt_float_size(type)));
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

// A stripe of rows ternarized by several threads, a slice each.
struct stripe {
    struct converter *converter;
    const struct bnt_source *source;
    float scale;
    uint32_t first, count, slice;
    enum bnt_status status;
    struct bnt_error err;
};

static void ternarize_slice(void *context, uint64_t i)
{
    struct stripe *s = context;
    uint32_t from = (uint32_t)i * s->slice;
    uint32_t count = s->count - from < s->slice ? s->count - from : s->slice;
    struct bnt_error err;
    int8_t *out = (int8_t *)s->converter->buffer + (size_t)from * s->source->place.cols;
    enum bnt_status status = bnt_source_ternary_rows(s->converter->checkpoint, s->source, s->scale,
                                                     s->first + from, count, out, &err);
    if (status != BNT_OK) { // several threads may come here; any one message will do, but the
                            // fields must match
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        (void)pthread_mutex_lock(&lock);
        s->status = status;
        s->err = err;
        (void)pthread_mutex_unlock(&lock);
    }
}

static enum bnt_status write_stripe(struct converter *c, struct stripe *s)
{
    unsigned threads = c->options->threads;
    s->slice = (s->count + threads - 1) / threads;
    bnt_parallel_for(threads, (s->count + s->slice - 1) / s->slice, ternarize_slice, s);
    if (s->status != BNT_OK) {
        *c->err = s->err;
        return s->status;
    }
    return emit(c, c->buffer, (size_t)s->count * s->source->place.cols);
}

static void report_error(const struct converter *c, const struct bnt_source *source, float scale)
{
    double error = 0;
    if (c->checkpoint->config.form == BNT_FORM_MASTERS || source->forced_scale > 0)
        error = bnt_ternary_error(bnt_source_float_type(source), source->data,
                                  source->tensor->count, scale);
    bnt_cli_note("%s: relative error of the ternary matrix %.4f, scale %.6g", source->name, error,
                 (double)scale);
}

// Some rows' scales, as the stream has them.
static void scale_slice(void *context, uint64_t i)
{
    const struct stripe *s = context;
    const struct bnt_hyper *h = &s->converter->checkpoint->config.hyper;
    const uint32_t groups = bnt_row_groups(h, s->source->place.cols);
    uint32_t from = (uint32_t)i * s->slice;
    uint32_t count = s->count - from < s->slice ? s->count - from : s->slice;
    float *out = (float *)(void *)s->converter->buffer + (size_t)from * groups;
    for (uint32_t r = 0; r < count; r++)
        bnt_source_scales(s->converter->checkpoint, s->source, s->first + from + r,
                          out + (size_t)r * groups);
}

static enum bnt_status emit_scales(struct converter *c, size_t n)
{
    const float *scales = (const float *)(const void *)c->buffer;
    if (c->checkpoint->config.hyper.scale_dtype == BNT_F32)
        return emit(c, scales, n * sizeof *scales);
    for (size_t i = 0; i < n; i++) { // in place, from the front
        uint16_t half = bnt_f16_from_float(scales[i]);
        memcpy(c->buffer + sizeof half * i, &half, sizeof half);
    }
    return emit(c, c->buffer, n * sizeof(uint16_t));
}

static enum bnt_status write_scales(struct converter *c, const struct bnt_source *source)
{
    const unsigned threads = c->options->threads;
    const uint32_t groups = bnt_row_groups(&c->checkpoint->config.hyper, source->place.cols);
    const uint32_t most = CHUNK_BYTES / (groups * (uint32_t)sizeof(float));
    const uint32_t step = most < SCALE_ROWS ? most : SCALE_ROWS;
    struct stripe s = {.converter = c, .source = source};
    enum bnt_status status = BNT_OK;
    for (uint32_t row = 0; row < source->place.rows && status == BNT_OK; row += step) {
        s.first = row;
        s.count = source->place.rows - row < step ? source->place.rows - row : step;
        s.slice = (s.count + threads - 1) / threads;
        bnt_parallel_for(threads, (s.count + s.slice - 1) / s.slice, scale_slice, &s);
        status = emit_scales(c, (size_t)s.count * groups);
    }
    return status;
}

static enum bnt_status write_matrix(struct converter *c, const struct bnt_source *source)
{
    struct stripe s = {.converter = c, .source = source};
    const bool grouped = c->checkpoint->config.hyper.scale_group != 0;
    const bool levels = c->checkpoint->config.form == BNT_FORM_LEVELS;
    if (grouped) {
        enum bnt_status written = write_scales(c, source);
        if (written != BNT_OK)
            return written;
    }
    enum bnt_status status =
        bnt_source_scale(c->checkpoint, source, c->options->threads, &s.scale, c->err);
    uint32_t step = CHUNK_BYTES / source->place.cols;
    step = step ? step : 1;
    for (uint32_t row = 0; row < source->place.rows && status == BNT_OK; row += step) {
        s.first = row;
        s.count = source->place.rows - row < step ? source->place.rows - row : step;
        status = write_stripe(c, &s);
    }
    if (status == BNT_OK && !grouped)
        status = emit(c, &s.scale, sizeof s.scale);
    if (status == BNT_OK && c->options->report && (!levels || source->forced_scale > 0))
        report_error(c, source, s.scale);
    return status;
}

static enum bnt_status write_tensor(struct converter *c, const struct bnt_source *source)
{
    switch (source->place.section) {
    case BNT_SECTION_NORM:
        return write_norm(c, source);
    case BNT_SECTION_EMBD:
        return write_embedding(c, source);
    default:
        return write_matrix(c, source);
    }
}

static enum bnt_status write_tensors(struct converter *c)
{
    const struct bnt_checkpoint *from = c->checkpoint;
    for (size_t order = 0; order < ORDERS; order++) {
        for (size_t i = 0; i < from->n_sources; i++) {
            if (from->sources[i].place.section != stream_order[order])
                continue;
            enum bnt_status status = write_tensor(c, &from->sources[i]);
            if (status != BNT_OK)
                return status;
        }
    }
    return BNT_OK;
}

static enum bnt_status write_all(struct converter *c)
{
    uint64_t data_size;
    char *provenance = NULL;
    enum bnt_status status = write_header(c, &data_size);
    if (status != BNT_OK)
        return status;
    bnt_progress_start(&c->progress, "converting", data_size, NULL, c->options->quiet);
    status = write_tensors(c);
    if (status == BNT_OK)
        status = bnt_provenance_finish(&c->provenance, &provenance, c->err);
    if (status == BNT_OK)
        status = emit(c, provenance, c->provenance.size);
    bnt_progress_end(&c->progress);
    free(provenance);
    return status;
}

enum bnt_status bnt_convert(const struct bnt_checkpoint *checkpoint, struct bnt_output *out,
                            const struct convert_options *options, struct bnt_error *err)
{
    struct converter c = {.checkpoint = checkpoint, .out = out, .options = options, .err = err};
    _Static_assert((int)CHUNK_BYTES >= (int)BNT_MAX_COLS &&
                       CHUNK_BYTES >= BNT_MAX_COLS / BNT_BLOCK_COLS * sizeof(float),
                   "the widest row and its scales fit in the buffer");
    c.buffer = malloc(CHUNK_BYTES);
    if (!c.buffer)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    enum bnt_status status = bnt_provenance_start(&c.provenance, checkpoint, err);
    if (status == BNT_OK)
        status = write_all(&c);
    bnt_provenance_close(&c.provenance);
    free(c.buffer);
    return status;
}
