// SPDX-License-Identifier: MIT
// The rules of bnt.md that bnt_view_open does not judge.
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/block.h"
#include "formats/bytes.h"
#include "formats/chat_view.h"
#include "formats/digest.h"
#include "formats/int8_rows.h"
#include "formats/json.h"
#include "formats/regex.h"
#include "formats/tokenizer_view.h"
#include "verify/verify.h"

enum { PART = 8 << 20 }; // bytes of a dense tensor that one task looks at

#define NOT_COUNTED UINT64_MAX

struct checker {
    const struct bnt_view *view;
    uint64_t (*counts)[4]; // (n_tensors) codes of each ternary tensor, for R28
};

static bool all_bytes(const uint8_t *p, uint64_t size, uint8_t value)
{
    return size == 0 || (p[0] == value && memcmp(p, p + 1, (size_t)size - 1) == 0);
}

// --- checksums ---

static void check_sha256(struct verify_task *task)
{
    const struct bnt_view *v = ((struct checker *)task->context)->view;
    uint8_t digest[BNT_SHA256_SIZE];
    char is[BNT_SHA256_TEXT], must[BNT_SHA256_TEXT];
    if (!bnt_sha256(v->data + BNT_PAGE, v->header.file_size - BNT_PAGE, digest)) {
        bnt_report(&task->report, "R10", "libcrypto cannot compute SHA-256");
        return;
    }
    if (memcmp(digest, v->header.content_sha256, sizeof digest) == 0)
        return;
    bnt_sha256_text(digest, is);
    bnt_sha256_text(v->header.content_sha256, must);
    bnt_report(&task->report, "R10", "the content's SHA-256 is %s, the header says %s: damaged", is,
               must);
}

static void check_section_crc(struct verify_task *task)
{
    const struct bnt_view *v = ((struct checker *)task->context)->view;
    (void)bnt_view_check_crc(v, &v->header.sections[task->index], &task->report);
}

// --- gaps ---

static void check_section_gaps(const struct bnt_view *v, struct bnt_report *report)
{
    for (uint32_t i = 1; i < v->header.section_count; i++) {
        const struct bnt_section_record *s = &v->header.sections[i];
        uint64_t end = s[-1].offset + s[-1].size;
        if (!all_bytes(v->data + end, s->offset - end, 0))
            bnt_report(report, "R8",
                       "offset %" PRIu64 ": the bytes between two sections are not zero", end);
    }
}

static uint64_t scale_bytes(const struct bnt_view *v, const struct bnt_tensor_record *t)
{
    return (uint64_t)bnt_pad_rows(t->rows) * bnt_row_groups(&v->hyper, t->cols) *
           (v->hyper.scale_dtype == BNT_F16 ? 2 : 4);
}

// Tensors of a section follow one another in table order (R16 holds here); seen from each, the one
// before in its section.
static void check_tensor_gaps(const struct bnt_view *v, struct bnt_report *report)
{
    for (uint32_t i = 0; i < v->header.section_count; i++) {
        const struct bnt_section_record *s = &v->header.sections[i];
        uint64_t end = s->offset;
        for (uint64_t j = 0; j < v->n_tensors; j++) {
            const struct bnt_tensor_record *t = &v->tensors[j];
            const bool scales = s->type == BNT_SECTION_SCAL;
            const uint64_t offset = scales ? t->scale_offset : t->offset;
            if (offset < s->offset || offset - s->offset >= s->size)
                continue;
            if (!all_bytes(v->data + end, offset - end, 0))
                bnt_report(report, "R20", "offset %" PRIu64 ": the bytes before %s%s are not zero",
                           end, scales ? "the scales of " : "",
                           bnt_tensor_name(t->role, t->layer).text);
            end = offset + (scales ? scale_bytes(v, t) : t->size);
        }
    }
}

// --- ternary matrices ---

static const uint8_t *first_zero_code(const uint8_t *p, uint64_t size)
{
    for (uint64_t i = 0; i < size; i += 4) {
        uint32_t word = bnt_load_u32(p + i);
        if (((word | word >> 1) & 0x55555555) != 0x55555555)
            return p + i;
    }
    return p;
}

// Only the last block row has padding rows; only the last block of each has padding columns.
static bool padding_is_zero(const uint8_t *p, const struct bnt_tensor_record *t)
{
    size_t row_bytes = bnt_block_row_bytes(t->cols);
    size_t tail = t->cols % BNT_BLOCK_COLS ? BNT_BLOCK_BYTES : 0;
    for (uint32_t row = 0; row < t->rows; row += BNT_BLOCK_ROWS, p += row_bytes) {
        uint32_t rows = t->rows - row < BNT_BLOCK_ROWS ? t->rows - row : BNT_BLOCK_ROWS;
        bool fine = rows < BNT_BLOCK_ROWS
                        ? bnt_block_padding_is_zero(p, rows, t->cols)
                        : !tail || bnt_block_padding_is_zero(p + row_bytes - tail, rows,
                                                             t->cols % BNT_BLOCK_COLS);
        if (!fine)
            return false;
    }
    return true;
}

static void check_matrix(struct verify_task *task)
{
    const struct checker *c = task->context;
    const struct bnt_tensor_record *t = &c->view->tensors[task->index];
    const struct bnt_name name = bnt_tensor_name(t->role, t->layer);
    const uint8_t *p = c->view->data + t->offset;
    uint64_t *count = c->counts[task->index];
    bnt_block_count_codes(p, t->size, count);
    bool illegal = count[0] > 0;
    if (illegal)
        bnt_report(&task->report, "R18",
                   "%s: %" PRIu64 " illegal codes 0, the first in the word at offset %" PRIu64,
                   name.text, count[0], (uint64_t)(first_zero_code(p, t->size) - c->view->data));
    if (!padding_is_zero(p, t)) {
        bnt_report(&task->report, "R19", "%s: a padding weight is not zero", name.text);
        illegal = true;
    }
    if (illegal)
        count[0] = NOT_COUNTED; // R28 leaves them alone
}

// Scales by row and group, R32: as bits, finite ones without the sign are ordered.
static void check_scales(struct verify_task *task)
{
    const struct bnt_view *v = ((struct checker *)task->context)->view;
    const struct bnt_tensor_record *t = &v->tensors[task->index];
    const bool halves = v->hyper.scale_dtype == BNT_F16;
    const uint64_t groups = bnt_row_groups(&v->hyper, t->cols);
    const uint64_t n = bnt_pad_rows(t->rows) * groups;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t offset = t->scale_offset + i * (halves ? 2 : 4);
        uint64_t row = i / (groups * BNT_BLOCK_ROWS) * BNT_BLOCK_ROWS + i % BNT_BLOCK_ROWS;
        uint32_t bits = halves ? bnt_load_u16(v->data + offset) : bnt_load_u32(v->data + offset);
        if (row < t->rows ? bits < (halves ? 0x7c00 : 0x7f800000) : bits == 0)
            continue;
        bnt_report(&task->report, "R32", "%s: the scale at offset %" PRIu64 " (row %" PRIu64 ") %s",
                   bnt_tensor_name(t->role, t->layer).text, offset, row,
                   row < t->rows ? "is negative or not finite"
                                 : "is a padding row's, and not zero");
        return;
    }
}

// --- dense tensors ---

// bf16 and f32 are not finite when all exponent bits are set, those of the upper 16.
static bool is_finite(enum bnt_dtype dtype, const uint8_t *p, uint64_t i)
{
    uint16_t upper = dtype == BNT_F32 ? bnt_load_u16(p + 4 * i + 2) : bnt_load_u16(p + 2 * i);
    return (upper & 0x7f80) != 0x7f80;
}

// Whether all of n values are finite; without branches, so that it becomes vector code.
static bool all_finite(enum bnt_dtype dtype, const uint8_t *p, uint64_t n)
{
    unsigned bad = 0;
    if (dtype == BNT_F32) {
        for (uint64_t i = 0; i < n; i++)
            bad |= !is_finite(BNT_F32, p, i);
    } else {
        for (uint64_t i = 0; i < n; i++)
            bad |= !is_finite(BNT_BF16, p, i);
    }
    return !bad;
}

static void check_embedding(struct verify_task *task)
{
    const struct checker *c = task->context;
    const struct bnt_tensor_record *t = &c->view->tensors[task->index];
    const unsigned size = t->dtype == BNT_F32 ? 4 : 2;
    const uint8_t *p = c->view->data + t->offset + task->first;
    if (all_finite(t->dtype, p, task->count / size))
        return;
    uint64_t i = 0;
    while (is_finite(t->dtype, p, i))
        i++;
    bnt_report(&task->report, "R22", "%s: the value at offset %" PRIu64 " is not finite",
               bnt_tensor_name(t->role, t->layer).text, t->offset + task->first + size * i);
}

static void check_norm(struct verify_task *task)
{
    const struct checker *c = task->context;
    const struct bnt_tensor_record *t = &c->view->tensors[task->index];
    for (uint32_t i = 0; i < t->cols; i++) {
        uint64_t offset = t->offset + 4 * (uint64_t)i;
        if (!isfinite(bnt_load_f32(c->view->data + offset))) {
            bnt_report(&task->report, "R21", "%s: the value at offset %" PRIu64 " is not finite",
                       bnt_tensor_name(t->role, t->layer).text, offset);
            return;
        }
    }
}

// Rows first … first + count − 1 of the int8 copy.
static void check_int8(struct verify_task *task)
{
    const struct bnt_view *v = ((struct checker *)task->context)->view;
    const struct bnt_tensor_record *copy = &v->tensors[task->index];
    const struct bnt_tensor_record *scale = bnt_view_tensor(v, BNT_OUTPUT_INT8_SCALE, BNT_NO_LAYER);
    const struct bnt_tensor_record *from = bnt_view_tensor(
        v, v->hyper.flags & BNT_HYPER_TIED ? BNT_TOKEN_EMBEDDING : BNT_OUTPUT, BNT_NO_LAYER);
    int8_t *row = malloc(copy->cols);
    if (!row) {
        bnt_report(&task->report, "R23", "out of memory");
        return;
    }
    for (uint64_t r = task->first; r < task->first + task->count; r++) {
        const uint8_t *values = v->data + from->offset + from->size / from->rows * r;
        if (!all_finite(from->dtype, values, from->cols))
            continue; // R22's
        float s = bnt_int8_row(from->dtype, values, copy->cols, row);
        if (memcmp(row, v->data + copy->offset + r * copy->cols, copy->cols) != 0 ||
            bnt_bits_from_float(s) != bnt_load_u32(v->data + scale->offset + 4 * r)) {
            bnt_report(&task->report, "R23",
                       "row %" PRIu64 " of the int8 copy is not what the output matrix gives", r);
            break;
        }
    }
    free(row);
}

static void add_parts(struct verify_tasks *tasks, void (*run)(struct verify_task *),
                      struct checker *c, uint64_t i, uint64_t total, uint64_t part)
{
    for (uint64_t at = 0; at < total; at += part)
        bnt_verify_add(tasks, run, c, i, at, total - at < part ? total - at : part, 0);
}

static void add_tensor_tasks(struct verify_tasks *tasks, struct checker *c)
{
    for (uint64_t i = 0; i < c->view->n_tensors; i++) {
        const struct bnt_tensor_record *t = &c->view->tensors[i];
        switch (bnt_record_section(t)) {
        case BNT_SECTION_TERN:
            bnt_verify_add(tasks, check_matrix, c, i, 0, 0, 0);
            if (t->scale_offset)
                bnt_verify_add(tasks, check_scales, c, i, 0, 0, 0);
            break;
        case BNT_SECTION_EMBD:
            add_parts(tasks, check_embedding, c, i, t->size, PART);
            break;
        case BNT_SECTION_NORM:
            bnt_verify_add(tasks, check_norm, c, i, 0, 0, 0);
            break;
        default: // of the two in EMB8 one task looks at both
            if (t->role == BNT_OUTPUT_INT8)
                add_parts(tasks, check_int8, c, i, t->rows, PART / t->cols + 1);
            break;
        }
    }
}

// --- tokenizer ---

static void check_tokenizer(const struct bnt_view *v, struct bnt_report *report)
{
    const struct bnt_section_record *s = bnt_view_section(v, BNT_SECTION_TOKN);
    struct bnt_tokenizer_view tokenizer;
    if (!s || !bnt_tokenizer_view_open(&tokenizer, v->data + s->offset, s->size,
                                       v->hyper.vocab_size, report))
        return;
    for (uint32_t i = 0; i < tokenizer.record.n_steps; i++) {
        const struct bnt_step_record *step = &tokenizer.steps[i];
        struct bnt_error err;
        struct bnt_regex regex;
        if (!bnt_step_has_pattern(step))
            continue;
        if (bnt_regex_open(&regex, tokenizer.pool + step->offset, step->size, &err) == BNT_OK)
            bnt_regex_close(&regex);
        else
            bnt_report(report, "R26", "section TOKN: %s", err.message);
    }
}

static void check_chat(const struct bnt_view *v, struct bnt_report *report)
{
    struct bnt_chat_view chat;
    (void)bnt_chat_view_find(&chat, v, report);
}

// --- provenance ---

static bool count_is(const json_t *entry, const char *key, uint64_t value)
{
    const json_t *count = json_object_get(entry, key);
    return json_is_integer(count) && json_integer_value(count) >= 0 &&
           (uint64_t)json_integer_value(count) == value;
}

static bool counts_agree(const json_t *entry, const struct bnt_tensor_record *t,
                         const uint64_t count[4])
{
    uint64_t padding = t->size * 4 - (uint64_t)t->rows * t->cols;
    return count[0] == NOT_COUNTED ||
           (count_is(entry, "minus", count[1]) && count_is(entry, "zero", count[2] - padding) &&
            count_is(entry, "plus", count[3]));
}

static bool is_layer(const json_t *value, int32_t layer)
{
    if (layer == BNT_NO_LAYER)
        return json_is_null(value);
    return json_is_integer(value) && json_integer_value(value) == layer;
}

static bool describes(const json_t *entry, const struct bnt_tensor_record *t,
                      const uint64_t count[4])
{
    const json_t *role = json_object_get(entry, "role");
    const char *name = bnt_role_name(t->role);
    const json_t *gamma = json_object_get(entry, "gamma");
    return json_string_length(role) == strlen(name) &&
           memcmp(json_string_value(role), name, strlen(name)) == 0 &&
           is_layer(json_object_get(entry, "layer"), t->layer) && json_is_number(gamma) &&
           (float)json_number_value(gamma) == t->scale && counts_agree(entry, t, count);
}

static void check_matrices(const struct checker *c, const json_t *matrices,
                           struct bnt_report *report)
{
    size_t n = 0;
    for (uint64_t i = 0; i < c->view->n_tensors; i++) {
        const struct bnt_tensor_record *t = &c->view->tensors[i];
        if (t->dtype != BNT_TERNARY)
            continue;
        if (!describes(json_array_get(matrices, n), t, c->counts[i])) {
            bnt_report(report, "R28", "section PROV: entry %zu of matrices does not describe %s", n,
                       bnt_tensor_name(t->role, t->layer).text);
            return;
        }
        n++;
    }
    if (json_array_size(matrices) != n)
        bnt_report(report, "R28", "section PROV: matrices has %zu entries, the model %zu matrices",
                   json_array_size(matrices), n);
}

static void check_provenance(const struct checker *c, struct bnt_report *report)
{
    const struct bnt_section_record *s = bnt_view_section(c->view, BNT_SECTION_PROV);
    struct bnt_error err;
    json_t *json;
    if (!s)
        return;
    if (bnt_json_parse_strict((const char *)c->view->data + s->offset, (size_t)s->size,
                              "section PROV", &json, &err) != BNT_OK) {
        bnt_report(report, "R27", "%s", err.message);
        return;
    }
    const json_t *matrices = json_object_get(json, "matrices");
    if (matrices)
        check_matrices(c, matrices, report);
    json_decref(json);
}

bool bnt_verify_file(const struct bnt_map *map, struct bnt_view *view, unsigned threads,
                     struct findings *findings)
{
    struct bnt_report report = bnt_findings_report(findings);
    if (!bnt_view_open(view, map->data, map->size, &report))
        return false;
    struct checker c = {.view = view,
                        .counts = calloc((size_t)view->n_tensors, sizeof c.counts[0])};
    struct verify_tasks tasks = {.failed = !c.counts};
    bnt_verify_add(&tasks, check_sha256, &c, 0, 0, 0, 0); // the longest first
    for (uint32_t i = 0; i < view->header.section_count; i++)
        bnt_verify_add(&tasks, check_section_crc, &c, i, 0, 0, 0);
    if (c.counts)
        add_tensor_tasks(&tasks, &c);
    check_section_gaps(view, &report);
    check_tensor_gaps(view, &report);
    bnt_verify_run(&tasks, threads, true, findings); // as fast as hashing: no bar
    check_tokenizer(view, &report);
    check_chat(view, &report);
    if (c.counts)
        check_provenance(&c, &report);
    free(c.counts);
    return true;
}
