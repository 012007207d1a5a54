// SPDX-License-Identifier: MIT
// The S rules: the file is what its checkpoint gives.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/block.h"
#include "formats/bytes.h"
#include "formats/checkpoint.h"
#include "formats/digest.h"
#include "formats/json.h"
#include "verify/verify.h"

struct comparison {
    const struct bnt_view *view;
    const struct bnt_checkpoint *checkpoint;
    const json_t *sources; // PROV's, or NULL
    double *errors;        // of each source, where they are looked at; else NULL
    bool lossless;         // PROV says so
};

// --- S1 ---

#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct bnt_hyper, name)                                                    \
    }
static const struct {
    const char *name;
    size_t offset;
} hyper_fields[] = {
    FIELD(n_layers),
    FIELD(hidden_size),
    FIELD(ffn_size),
    FIELD(n_heads),
    FIELD(n_kv_heads),
    FIELD(head_dim),
    FIELD(vocab_size),
    FIELD(max_context),
    FIELD(activation),
    FIELD(flags),
    FIELD(norm_eps),
    FIELD(rope_scaling),
    FIELD(rope_theta),
    FIELD(rope_factor),
    FIELD(rope_low_freq_factor),
    FIELD(rope_high_freq_factor),
    FIELD(rope_original_context),
    FIELD(bos_id),
    FIELD(eos_count),
    FIELD(eos_id),
    FIELD(temperature),
    FIELD(top_p),
    FIELD(top_k),
    FIELD(reserved),
    FIELD(scale_group),
    FIELD(scale_dtype),
    FIELD(activation_bits),
    FIELD(linear_norm_eps),
    FIELD(rope_attention_factor),
    FIELD(rope_beta_fast),
    FIELD(rope_beta_slow),
    FIELD(pooling),
    FIELD(reserved2),
};
enum { HYPER_FIELDS = sizeof hyper_fields / sizeof hyper_fields[0] };

// Every byte of the record belongs to a field: they follow one another without padding, the last is
// reserved.
static bool compare_hyper(const struct comparison *c, struct bnt_report *report)
{
    struct bnt_hyper file = c->view->hyper;
    if (!(file.flags & BNT_HYPER_F32_EMBEDDINGS)) // rounding them to bf16 is bnt-pack's option, not
                                                  // the config's word
        file.flags |= c->checkpoint->config.hyper.flags & BNT_HYPER_F32_EMBEDDINGS;
    file.activation_bits = c->checkpoint->config.hyper.activation_bits; // so is --activations
    const uint8_t *a = (const void *)&file;
    const uint8_t *b = (const void *)&c->checkpoint->config.hyper;
    uint64_t before = report->count;
    for (size_t i = 0; i < HYPER_FIELDS; i++) {
        size_t end = i + 1 < HYPER_FIELDS ? hyper_fields[i + 1].offset : sizeof c->view->hyper;
        size_t offset = hyper_fields[i].offset;
        if (memcmp(a + offset, b + offset, end - offset) != 0)
            bnt_report(report, "S1", "%s is not what the checkpoint's config says",
                       hyper_fields[i].name);
    }
    return report->count == before;
}

// Files of 1.0 say nothing of these.
static void compare_sampling(const struct comparison *c, struct bnt_report *report)
{
    if (bnt_view_section(c->view, BNT_SECTION_SAMP) &&
        !bnt_sampling_equal(&c->view->sampling, &c->checkpoint->config.sampling))
        bnt_report(report, "S1", "section SAMP is not what generation_config.json says");
}

// --- S2, S3: matrices ---

struct stripe {
    int8_t *rows;
    uint8_t *blocks;
};

static bool compare_block_row(const struct comparison *c, const struct bnt_source *source,
                              const struct bnt_tensor_record *t, float scale, uint32_t row,
                              const struct stripe *stripe, struct bnt_report *report)
{
    struct bnt_error err;
    size_t row_bytes = bnt_block_row_bytes(t->cols);
    uint32_t rows = t->rows - row < BNT_BLOCK_ROWS ? t->rows - row : BNT_BLOCK_ROWS;
    if (bnt_source_ternary_rows(c->checkpoint, source, scale, row, rows, stripe->rows, &err) !=
        BNT_OK) {
        bnt_report(report, "S2", "%s", err.message);
        return false;
    }
    const uint8_t *file = c->view->data + t->offset + row / BNT_BLOCK_ROWS * row_bytes;
    if (bnt_block_pack_row(stripe->rows, rows, t->cols, stripe->blocks) &&
        memcmp(stripe->blocks, file, row_bytes) == 0)
        return true;
    bnt_report(report, "S2", "%s: rows %" PRIu32 " … %" PRIu32 " are not what %s gives",
               bnt_tensor_name(t->role, t->layer).text, row, row + rows - 1, source->name);
    return false;
}

static void compare_rows(const struct comparison *c, const struct bnt_source *source,
                         const struct bnt_tensor_record *t, float scale, struct bnt_report *report)
{
    struct stripe stripe = {.rows = malloc((size_t)BNT_BLOCK_ROWS * t->cols),
                            .blocks = malloc(bnt_block_row_bytes(t->cols))};
    if (!stripe.rows || !stripe.blocks)
        bnt_report(report, "S2", "out of memory");
    for (uint32_t row = 0; stripe.rows && stripe.blocks && row < t->rows; row += BNT_BLOCK_ROWS) {
        if (!compare_block_row(c, source, t, scale, row, &stripe, report))
            break;
    }
    free(stripe.rows);
    free(stripe.blocks);
}

// A scale of the file, as a float.
static float load_scale(const struct bnt_hyper *h, const uint8_t *p, uint64_t i)
{
    return h->scale_dtype == BNT_F16 ? bnt_float_from_f16(bnt_load_u16(p + 2 * i))
                                     : bnt_load_f32(p + 4 * i);
}

// Where a row's scales lie in a matrix of so many groups: the first; the next ones are 16 on.
static uint64_t first_scale(uint32_t row, uint32_t groups)
{
    return (uint64_t)(row / BNT_BLOCK_ROWS) * groups * BNT_BLOCK_ROWS + row % BNT_BLOCK_ROWS;
}

// The scales of groups that have a weight other than zero; those of others are anybody's.
static bool compare_scales(const struct comparison *c, const struct bnt_source *source,
                           const struct bnt_tensor_record *t, float *scales,
                           struct bnt_report *report)
{
    const struct bnt_hyper *h = &c->view->hyper;
    const uint32_t groups = bnt_row_groups(h, t->cols);
    const uint8_t *file = c->view->data + t->scale_offset;
    for (uint32_t row = 0; row < t->rows; row++) {
        bnt_source_scales(c->checkpoint, source, row, scales);
        for (uint32_t g = 0; g < groups; g++) {
            float is = load_scale(h, file, first_scale(row, groups) + (uint64_t)g * BNT_BLOCK_ROWS);
            if (scales[g] == is || scales[g] == 0)
                continue;
            bnt_report(report, "S3",
                       "%s: the scale of row %" PRIu32 ", group %" PRIu32 " is %.9g, %s gives %.9g",
                       bnt_tensor_name(t->role, t->layer).text, row, g, (double)is, source->name,
                       (double)scales[g]);
            return false;
        }
    }
    return true;
}

// ‖W − qs‖ / ‖W‖ with the file's codes and scales, whatever they should be.
static double error_of(const struct comparison *c, const struct bnt_source *source,
                       const struct bnt_tensor_record *t, float *scales, int8_t *codes)
{
    const struct bnt_level_matrix w = bnt_source_levels(source);
    const struct bnt_hyper *h = &c->view->hyper;
    const uint32_t groups = bnt_row_groups(h, t->cols);
    const uint32_t group = h->scale_group ? h->scale_group : (uint32_t)BNT_GROUP_ROW;
    const size_t width = bnt_pad_cols(t->cols);
    double difference = 0, total = 0;
    for (uint32_t row = 0; row < t->rows; row++) {
        if (row % BNT_BLOCK_ROWS == 0)
            bnt_block_unpack_row(c->view->data + t->offset +
                                     row / BNT_BLOCK_ROWS * bnt_block_row_bytes(t->cols),
                                 t->cols, codes);
        scales[0] = t->scale;
        for (uint32_t g = 0; g < groups; g++)
            scales[g] = load_scale(h, c->view->data + t->scale_offset,
                                   first_scale(row, groups) + (uint64_t)g * BNT_BLOCK_ROWS);
        bnt_levels_error(&w, row, group, scales, codes + row % BNT_BLOCK_ROWS * width, &difference,
                         &total);
    }
    return total > 0 ? sqrt(difference / total) : 0;
}

// Scales by row and group, and what is lost.
static void compare_levels(const struct comparison *c, const struct bnt_source *source,
                           const struct bnt_tensor_record *t, uint64_t index,
                           struct bnt_report *report)
{
    const uint32_t groups = bnt_row_groups(&c->view->hyper, t->cols);
    float *scales = malloc((groups + 1) * sizeof *scales);
    int8_t *codes = malloc((size_t)BNT_BLOCK_ROWS * bnt_pad_cols(t->cols));
    if (!scales || !codes) {
        bnt_report(report, "S3", "out of memory");
    } else {
        if (groups)
            (void)compare_scales(c, source, t, scales, report);
        double error = error_of(c, source, t, scales, codes);
        c->errors[index] = error;
        if (error > 0 && c->lossless)
            bnt_report(report, "S6",
                       "%s: PROV says that nothing is lost, the relative error is %.3g",
                       bnt_tensor_name(t->role, t->layer).text, error);
    }
    free(scales);
    free(codes);
}

static void compare_matrix(struct verify_task *task)
{
    const struct comparison *c = task->context;
    const struct bnt_source *source = &c->checkpoint->sources[task->index];
    const struct bnt_tensor_record *t =
        bnt_view_tensor(c->view, source->place.role, source->place.layer);
    struct bnt_error err;
    float scale;
    if (c->errors)
        compare_levels(c, source, t, task->index, &task->report);
    if (bnt_source_scale(c->checkpoint, source, 1, &scale, &err) != BNT_OK) {
        bnt_report(&task->report, "S3", "%s", err.message);
        return;
    }
    if (!t->scale_offset && scale != t->scale)
        bnt_report(&task->report, "S3", "%s: the scale is %.9g, %s gives %.9g",
                   bnt_tensor_name(t->role, t->layer).text, (double)t->scale, source->name,
                   (double)scale);
    compare_rows(c, source, t, scale, &task->report);
}

// --- S4: norms and embeddings ---

static bool dense_equal(const struct bnt_source *source, enum bnt_dtype dtype, const uint8_t *file,
                        uint64_t i)
{
    float v = bnt_float_load(bnt_source_float_type(source), source->data, i);
    if (dtype == BNT_F32)
        return bnt_bits_from_float(v) == bnt_load_u32(file + 4 * i);
    return bnt_bf16_from_float(v) == bnt_load_u16(file + 2 * i);
}

static void compare_dense(struct verify_task *task)
{
    const struct comparison *c = task->context;
    const struct bnt_source *source = &c->checkpoint->sources[task->index];
    const struct bnt_tensor_record *t =
        bnt_view_tensor(c->view, source->place.role, source->place.layer);
    const uint8_t *file = c->view->data + t->offset;
    if (t->dtype == BNT_BF16 && source->tensor->dtype == BNT_ST_BF16 &&
        memcmp(file, source->data, (size_t)t->size) == 0)
        return;
    for (uint64_t i = 0; i < source->tensor->count; i++) {
        if (!dense_equal(source, t->dtype, file, i)) {
            bnt_report(&task->report, "S4", "%s: element %" PRIu64 " is not what %s gives",
                       bnt_tensor_name(t->role, t->layer).text, i, source->name);
            return;
        }
    }
}

// --- S5: files ---

static const struct bnt_shard *find_shard(const struct bnt_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        if (strcmp(c->shards[i].name, name) == 0)
            return &c->shards[i];
    }
    return NULL;
}

// The bytes of a file of the checkpoint, as it was opened.
static const void *find_file(const struct bnt_checkpoint *c, const char *name, uint64_t *size)
{
    for (size_t i = 0; i < BNT_SMALL_FILES; i++) {
        if (c->small[i].text && strcmp(c->small[i].name, name) == 0) {
            *size = c->small[i].size;
            return c->small[i].text;
        }
    }
    const struct bnt_shard *shard = find_shard(c, name);
    *size = shard ? shard->map.size : 0;
    return shard ? shard->map.data : NULL;
}

static void compare_file(struct verify_task *task)
{
    const struct comparison *c = task->context;
    const json_t *entry = json_array_get(c->sources, (size_t)task->index);
    const char *name = bnt_json_text(entry, "file", "(unnamed)");
    uint64_t size;
    uint8_t digest[BNT_SHA256_SIZE];
    char text[BNT_SHA256_TEXT];
    const void *data = find_file(c->checkpoint, name, &size);
    if (!data) {
        bnt_report(&task->report, "S5", "PROV names %s, which the checkpoint does not have", name);
        return;
    }
    if (!bnt_sha256(data, size, digest)) {
        bnt_report(&task->report, "S5", "libcrypto cannot compute SHA-256");
        return;
    }
    bnt_sha256_text(digest, text);
    if (strcmp(text, bnt_json_text(entry, "sha256", "")) != 0 ||
        (uint64_t)json_integer_value(json_object_get(entry, "size")) != size)
        bnt_report(&task->report, "S5", "%s is not the file that PROV names: its SHA-256 is %s",
                   name, text);
}

// PROV as JSON, or NULL: R27 has spoken of a bad one, and a file without it has no S5.
static json_t *load_provenance(const struct bnt_view *v)
{
    const struct bnt_section_record *s = bnt_view_section(v, BNT_SECTION_PROV);
    struct bnt_error err;
    json_t *json = NULL;
    if (s)
        (void)bnt_json_parse_strict((const char *)v->data + s->offset, (size_t)s->size,
                                    "section PROV", &json, &err);
    return json;
}

static void compare_all(struct comparison *c, unsigned threads, bool quiet,
                        struct findings *findings)
{
    struct bnt_report report = bnt_findings_report(findings);
    const struct bnt_checkpoint *from = c->checkpoint;
    struct verify_tasks tasks = {0};
    for (size_t i = 0; i < json_array_size(c->sources); i++) {
        json_int_t size =
            json_integer_value(json_object_get(json_array_get(c->sources, i), "size"));
        bnt_verify_add(&tasks, compare_file, c, i, 0, 0, size > 0 ? (uint64_t)size : 0);
    }
    compare_sampling(c, &report);
    if (compare_hyper(c, &report)) { // otherwise the tensors are not the same ones
        for (size_t i = 0; i < from->n_sources; i++) {
            bool ternary = from->sources[i].place.section == BNT_SECTION_TERN;
            bnt_verify_add(&tasks, ternary ? compare_matrix : compare_dense, c, i, 0, 0,
                           from->sources[i].tensor->size);
        }
    }
    bnt_verify_run(&tasks, threads, quiet, findings);
}

static void list_errors(const struct comparison *c, struct verify_errors *errors)
{
    errors->items = calloc(c->checkpoint->n_sources, sizeof errors->items[0]);
    for (size_t i = 0; errors->items && i < c->checkpoint->n_sources; i++) {
        const struct bnt_tensor_place *place = &c->checkpoint->sources[i].place;
        if (place->dtype == BNT_TERNARY)
            errors->items[errors->count++] = (struct verify_error){
                .role = (uint16_t)place->role, .layer = place->layer, .relative = c->errors[i]};
    }
}

enum bnt_status bnt_verify_source(const struct bnt_view *view, const char *dir, unsigned threads,
                                  bool quiet, struct findings *findings,
                                  struct verify_errors *errors, struct bnt_error *err)
{
    struct bnt_checkpoint checkpoint;
    json_t *provenance = load_provenance(view);
    const char *rounding = bnt_json_text(provenance, "rounding", "");
    // What was lost is found by comparing, whatever the file says of it.
    const struct bnt_levels_options options = {.threads = threads, .nearest = true, .force = true};
    struct comparison c = {.view = view,
                           .checkpoint = &checkpoint,
                           .sources = json_object_get(provenance, "sources"),
                           .lossless = strcmp(rounding, "levels") == 0};
    enum bnt_status status = bnt_checkpoint_open(&checkpoint, dir, err);
    if (status == BNT_OK)
        status = bnt_checkpoint_find_levels(&checkpoint, &options, err);
    if (status == BNT_OK && (checkpoint.config.form == BNT_FORM_LEVELS ||
                             (checkpoint.config.form == BNT_FORM_MASTERS && errors->wanted)))
        c.errors = calloc(checkpoint.n_sources, sizeof c.errors[0]);
    if (status == BNT_OK)
        compare_all(&c, threads, quiet, findings);
    if (status == BNT_OK && c.errors)
        list_errors(&c, errors);
    free(c.errors);
    json_decref(provenance);
    bnt_checkpoint_close(&checkpoint);
    return status;
}
