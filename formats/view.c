// SPDX-License-Identifier: MIT
#include "formats/view.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/bytes.h"
#include "formats/crc.h"
#include "formats/cursor.h"
#include "formats/foreign.h"

void bnt_report(struct bnt_report *report, const char *rule, const char *format, ...)
{
    char message[BNT_ERROR_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    report->count++;
    report->found(report->context, rule, message);
}

struct bnt_name bnt_section_name(uint32_t type)
{
    struct bnt_name name;
    char letters[5] = {0};
    memcpy(letters, &type, 4);
    for (int i = 0; i < 4; i++) {
        if (letters[i] < 0x21 || letters[i] > 0x7e)
            letters[i] = '?';
    }
    (void)snprintf(name.text, sizeof name.text, "%s", letters);
    return name;
}

struct bnt_name bnt_tensor_name(unsigned role, int32_t layer)
{
    struct bnt_name name;
    const char *text = bnt_role_name(role);
    char unknown[24];
    if (!text) {
        (void)snprintf(unknown, sizeof unknown, "role %u", role);
        text = unknown;
    }
    if (layer == BNT_NO_LAYER)
        (void)snprintf(name.text, sizeof name.text, "%s", text);
    else
        (void)snprintf(name.text, sizeof name.text, "layer %" PRIu32 " %s", (uint32_t)layer, text);
    return name;
}

const struct bnt_section_record *bnt_view_section(const struct bnt_view *view, uint32_t type)
{
    for (uint32_t i = 0; i < view->header.section_count; i++) {
        if (view->header.sections[i].type == type)
            return &view->header.sections[i];
    }
    return NULL;
}

const struct bnt_tensor_record *bnt_view_tensor(const struct bnt_view *view, enum bnt_role role,
                                                int32_t layer)
{
    uint64_t low = 0;
    uint64_t high = view->n_tensors;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct bnt_tensor_record *t = &view->tensors[middle];
        if ((uint32_t)t->layer < (uint32_t)layer || (t->layer == layer && t->role < role))
            low = middle + 1;
        else
            high = middle;
    }
    const struct bnt_tensor_record *t = &view->tensors[low];
    return low < view->n_tensors && t->layer == layer && t->role == role ? t : NULL;
}

static bool all_zero(const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < size; i++) {
        if (p[i])
            return false;
    }
    return true;
}

static bool check_magic_and_version(struct bnt_view *view, struct bnt_report *report)
{
    const struct bnt_header *h = &view->header;
    if (view->size < 8 || memcmp(view->data, BNT_MAGIC, 8) != 0) {
        bnt_report(report, "R1", "offset 0: not a .bnt file (no magic)%s",
                   bnt_foreign_file(view->data, view->size));
        return false;
    }
    if (view->size <= BNT_PAGE) {
        bnt_report(report, "R5",
                   "the file has %" PRIu64
                   " bytes, too few for a header page and content: truncated?",
                   view->size);
        return false;
    }
    memcpy(&view->header, view->data, sizeof view->header);
    if (h->version_major != BNT_VERSION_1 && h->version_major != BNT_VERSION_2) {
        bnt_report(report, "R2", "offset 8: version %u.%u, this program reads %d.x and %d.x",
                   h->version_major, h->version_minor, BNT_VERSION_1, BNT_VERSION_2);
        return false;
    }
    return true;
}

// Returns whether the section table may be read.
static bool check_header(struct bnt_view *view, struct bnt_report *report)
{
    const struct bnt_header *h = &view->header;
    struct bnt_header copy = *h;
    copy.header_crc32 = 0;
    uint32_t crc = bnt_crc32(0, &copy, sizeof copy);
    if (crc != h->header_crc32)
        bnt_report(report, "R3",
                   "offset 24: header CRC-32 is %08" PRIx32 ", its bytes give %08" PRIx32
                   ": the header is damaged",
                   h->header_crc32, crc);
    if (h->reserved0 || !all_zero(h->reserved1, sizeof h->reserved1))
        bnt_report(report, "R4", "reserved bytes of the header are not zero");
    if (h->file_size != view->size)
        bnt_report(
            report, "R5", "offset 16: file_size is %" PRIu64 ", the file has %" PRIu64 " bytes: %s",
            h->file_size, view->size, view->size < h->file_size ? "truncated?" : "bytes appended?");
    if (h->section_count < 1 || h->section_count > BNT_MAX_SECTIONS) {
        bnt_report(report, "R6", "offset 12: section_count is %" PRIu32 ", must be 1 … %d",
                   h->section_count, BNT_MAX_SECTIONS);
        return false;
    }
    for (uint32_t i = 0; i < BNT_MAX_SECTIONS; i++) {
        const struct bnt_section_record *s = &h->sections[i];
        if (i < h->section_count ? s->reserved != 0 : !all_zero(s, sizeof *s)) {
            bnt_report(report, "R4", "offset %u: reserved bytes of the section table are not zero",
                       128 + i * 32);
            break;
        }
    }
    return true;
}

// R6: sections lie tightly one after another, in a file of the size that the header says. Returns
// whether all of them are inside the file as it is.
static bool check_extents(const struct bnt_view *view, struct bnt_report *report)
{
    uint64_t expected = BNT_PAGE;
    for (uint32_t i = 0; i < view->header.section_count; i++) {
        const struct bnt_section_record *s = &view->header.sections[i];
        const struct bnt_name holder = bnt_section_name(s->type);
        const char *name = holder.text;
        if (s->offset != expected) {
            bnt_report(report, "R6", "section %s is at offset %" PRIu64 ", must be at %" PRIu64,
                       name, s->offset, expected);
            return false;
        }
        if (s->size == 0 || s->offset > view->header.file_size ||
            s->size > view->header.file_size - s->offset) {
            bnt_report(report, "R6",
                       "section %s (offset %" PRIu64 ", %" PRIu64
                       " bytes) does not lie in the file",
                       name, s->offset, s->size);
            return false;
        }
        expected = bnt_round_up(s->offset + s->size, BNT_PAGE);
    }
    const struct bnt_section_record *last = &view->header.sections[view->header.section_count - 1];
    if (last->offset + last->size != view->header.file_size) {
        bnt_report(report, "R6", "the last section ends at %" PRIu64 ", not at file_size %" PRIu64,
                   last->offset + last->size, view->header.file_size);
        return false;
    }
    return view->header.file_size <= view->size; // R5 has spoken of it
}

static const struct known_section {
    uint32_t type;
    bool required; // where it is there
    bool depends;  // on HYPR, whether it is: check_dependent_sections
} known_sections[] = {
    {BNT_SECTION_HYPR, true, false},  {BNT_SECTION_TOKN, false, false},
    {BNT_SECTION_CHAT, false, false}, {BNT_SECTION_CONV, false, false},
    {BNT_SECTION_SAMP, false, false}, {BNT_SECTION_NORM, true, false},
    {BNT_SECTION_EMBD, true, true},   {BNT_SECTION_EMB8, false, false},
    {BNT_SECTION_TERN, true, false},  {BNT_SECTION_SCAL, true, true},
    {BNT_SECTION_TENS, true, false},  {BNT_SECTION_PROV, false, false},
};
enum { KNOWN_SECTIONS = sizeof known_sections / sizeof known_sections[0] };

// SCAL came with version 2.
static const struct known_section *find_known(const struct bnt_view *view, uint32_t type)
{
    for (size_t i = 0; i < KNOWN_SECTIONS; i++) {
        if (type == BNT_SECTION_SCAL && view->header.version_major == BNT_VERSION_1)
            return NULL;
        if (known_sections[i].type == type)
            return &known_sections[i];
    }
    return NULL;
}

static void check_section_type(const struct bnt_view *view, uint32_t i, struct bnt_report *report)
{
    const struct bnt_section_record *s = &view->header.sections[i];
    const struct bnt_name holder = bnt_section_name(s->type);
    const char *name = holder.text;
    bool required = s->flags & BNT_SECTION_REQUIRED;
    const struct known_section *known = find_known(view, s->type);
    if (s->flags & ~(uint32_t)BNT_SECTION_REQUIRED)
        bnt_report(report, "R7", "section %s: unknown flags %#" PRIx32, name, s->flags);
    if (!known && required)
        bnt_report(report, "R7",
                   "section %s is required but unknown: the file needs a newer program", name);
    if (known && known->required != required)
        bnt_report(report, "R11", "section %s must %sbe marked as required", name,
                   known->required ? "" : "not ");
    for (uint32_t j = 0; j < i; j++) {
        if (view->header.sections[j].type == s->type)
            bnt_report(report, "R7", "section %s occurs twice", name);
    }
}

// R7, R11. Returns whether the required sections are there, once, and all known.
static bool check_section_types(const struct bnt_view *view, struct bnt_report *report)
{
    uint64_t before = report->count;
    for (uint32_t i = 0; i < view->header.section_count; i++)
        check_section_type(view, i, report);
    for (size_t i = 0; i < KNOWN_SECTIONS; i++) {
        if (known_sections[i].required && !known_sections[i].depends &&
            !bnt_view_section(view, known_sections[i].type))
            bnt_report(report, "R11", "section %s is missing",
                       bnt_section_name(known_sections[i].type).text);
    }
    return report->count == before;
}

static bool check_hyper(struct bnt_view *view, struct bnt_report *report)
{
    const struct bnt_section_record *s = bnt_view_section(view, BNT_SECTION_HYPR);
    const unsigned version = view->header.version_major;
    const size_t size = bnt_hyper_size(version);
    if (s->size != size) {
        bnt_report(report, "R12", "section HYPR has %" PRIu64 " bytes, must have %zu", s->size,
                   size);
        return false;
    }
    view->hyper = (struct bnt_hyper){.activation_bits = 8}; // what version 1 leaves unsaid
    memcpy(&view->hyper, view->data + s->offset, size);
    const char *problem = bnt_hyper_problem(&view->hyper);
    if (!problem && bnt_hyper_version(&view->hyper) > version)
        problem = view->hyper.flags & ~(uint32_t)BNT_HYPER_FLAGS_1 ? "flags" : "rope_scaling";
    if (problem)
        bnt_report(report, "R12", "section HYPR: %s is out of its range", problem);
    return !problem;
}

static bool has_dense_embedding(const struct bnt_hyper *h)
{
    return !(h->flags & BNT_HYPER_TERNARY_EMBEDDING) ||
           !(h->flags & (BNT_HYPER_TERNARY_OUTPUT | BNT_HYPER_TIED));
}

// R11 for sections that HYPR calls for or excludes.
static bool check_dependent_sections(const struct bnt_view *view, struct bnt_report *report)
{
    const struct bnt_hyper *h = &view->hyper;
    const struct {
        uint32_t type;
        bool excluded, needed;
    } rows[] = {
        {BNT_SECTION_EMBD, !has_dense_embedding(h), has_dense_embedding(h)},
        {BNT_SECTION_SCAL, !h->scale_group, h->scale_group != 0},
        {BNT_SECTION_EMB8, bnt_output_is_ternary(h), false},
    };
    uint64_t before = report->count;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool there = bnt_view_section(view, rows[i].type) != NULL;
        if (there ? rows[i].excluded : rows[i].needed)
            bnt_report(report, "R11", "section %s %s", bnt_section_name(rows[i].type).text,
                       there ? "is there, and the model has no use for it" : "is missing");
    }
    return report->count == before;
}

// R30. What is wrong here is no danger: the view stays usable, with the defaults.
static void check_sampling(struct bnt_view *view, struct bnt_report *report)
{
    const struct bnt_section_record *s = bnt_view_section(view, BNT_SECTION_SAMP);
    struct bnt_sampling_record record;
    view->sampling = BNT_SAMPLING_OFF;
    if (!s)
        return;
    if (s->size != sizeof record) {
        bnt_report(report, "R30", "section SAMP has %" PRIu64 " bytes, must have %zu", s->size,
                   sizeof record);
        return;
    }
    memcpy(&record, view->data + s->offset, sizeof record);
    const char *problem = bnt_sampling_problem(&record);
    if (problem)
        bnt_report(report, "R30", "section SAMP: %s is out of its range", problem);
    else
        view->sampling = record;
}

static bool ascending(const struct bnt_tensor_record *a, const struct bnt_tensor_record *b)
{
    if (a->layer != b->layer)
        return (uint32_t)a->layer < (uint32_t)b->layer;
    return a->role < b->role;
}

// R13: what can be said of the records by themselves.
static bool check_records(struct bnt_view *view, struct bnt_report *report)
{
    const struct bnt_section_record *s = bnt_view_section(view, BNT_SECTION_TENS);
    if (s->size % sizeof *view->tensors != 0) {
        bnt_report(report, "R13", "section TENS has %" PRIu64 " bytes, no multiple of %zu", s->size,
                   sizeof *view->tensors);
        return false;
    }
    // R6 put the section at a multiple of 4096, so the records are as aligned as the file's bytes.
    view->tensors = (const void *)(view->data + s->offset);
    view->n_tensors = s->size / sizeof *view->tensors;
    const bool old = view->header.version_major == BNT_VERSION_1;
    for (uint64_t i = 0; i < view->n_tensors; i++) {
        const struct bnt_tensor_record *t = &view->tensors[i];
        uint64_t at = s->offset + i * sizeof *t;
        const char *problem = NULL;
        if (!bnt_role_name(t->role) || (old && bnt_role_needs_version_2(t->role)))
            problem = "unknown role";
        else if (t->reserved || (old && t->scale_offset))
            problem = "reserved bytes are not zero";
        else if (i > 0 && !ascending(t - 1, t))
            problem = "not in ascending order of (layer, role)";
        if (problem) {
            bnt_report(report, "R13", "offset %" PRIu64 ": tensor record %" PRIu64 " (%s): %s", at,
                       i, bnt_tensor_name(t->role, t->layer).text, problem);
            return false;
        }
    }
    return true;
}

// R15 – R17 of one record that is there (R14). The place is relative to its section, the record to
// the file.
static void check_tensor(const struct bnt_view *view, const struct bnt_tensor_place *place,
                         const struct bnt_tensor_record *t, struct bnt_report *report)
{
    const struct bnt_name holder = bnt_tensor_name(t->role, t->layer);
    const char *name = holder.text;
    if (t->dtype != place->dtype || t->rows != place->rows || t->cols != place->cols)
        bnt_report(report, "R15",
                   "%s is %s %" PRIu32 "×%" PRIu32 ", must be %s %" PRIu32 "×%" PRIu32, name,
                   bnt_dtype_name(t->dtype), t->rows, t->cols, bnt_dtype_name(place->dtype),
                   place->rows, place->cols);
    uint64_t offset = bnt_view_section(view, place->section)->offset + place->offset;
    if (t->offset != offset || t->size != place->size)
        bnt_report(report, "R16",
                   "%s is at offset %" PRIu64 " with %" PRIu64 " bytes, must be at %" PRIu64
                   " with %" PRIu64,
                   name, t->offset, t->size, offset, place->size);
    uint64_t scales = place->has_scales
                          ? bnt_view_section(view, BNT_SECTION_SCAL)->offset + place->scale_offset
                          : 0;
    if (t->scale_offset != scales)
        bnt_report(report, "R16", "the scales of %s are at offset %" PRIu64 ", must be at %" PRIu64,
                   name, t->scale_offset, scales);
    const bool scaled = place->dtype == BNT_TERNARY && !place->has_scales;
    if (scaled ? !(isfinite(t->scale) && t->scale > 0) : bnt_bits_from_float(t->scale) != 0)
        bnt_report(report, "R17", "%s: scale %g must be %s", name, (double)t->scale,
                   scaled ? "finite and positive" : "zero");
}

static void check_section_size(const struct bnt_view *view, const struct bnt_layout_walk *walk,
                               uint32_t type, struct bnt_report *report)
{
    const struct bnt_section_record *s = bnt_view_section(view, type);
    if (s && s->size != bnt_layout_section_size(walk, type))
        bnt_report(report, "R16", "section %s has %" PRIu64 " bytes, its tensors take %" PRIu64,
                   bnt_section_name(type).text, s->size, bnt_layout_section_size(walk, type));
}

// R14 – R17.
static bool check_tensors(struct bnt_view *view, struct bnt_report *report)
{
    uint64_t before = report->count;
    struct bnt_layout_walk walk = bnt_layout_walk(&view->hyper, view->has_int8);
    struct bnt_tensor_place place;
    uint64_t i = 0;
    while (bnt_layout_next(&walk, &place)) {
        const struct bnt_tensor_record *t = &view->tensors[i];
        if (i == view->n_tensors || t->role != place.role || t->layer != place.layer) {
            const struct bnt_tensor_record *extra = i < view->n_tensors ? t : NULL;
            bnt_report(report, "R14", "tensor %s expected, %s found",
                       bnt_tensor_name(place.role, place.layer).text,
                       extra ? bnt_tensor_name(extra->role, extra->layer).text
                             : "the end of the table");
            return false;
        }
        check_tensor(view, &place, t, report);
        i++;
    }
    if (i != view->n_tensors) {
        bnt_report(report, "R14", "tensor %s is one that the model does not have",
                   bnt_tensor_name(view->tensors[i].role, view->tensors[i].layer).text);
        return false;
    }
    check_section_size(view, &walk, BNT_SECTION_NORM, report);
    check_section_size(view, &walk, BNT_SECTION_EMBD, report);
    check_section_size(view, &walk, BNT_SECTION_EMB8, report);
    check_section_size(view, &walk, BNT_SECTION_TERN, report);
    check_section_size(view, &walk, BNT_SECTION_SCAL, report);
    return report->count == before;
}

bool bnt_view_open(struct bnt_view *view, const uint8_t *data, uint64_t size,
                   struct bnt_report *report)
{
    *view = (struct bnt_view){.data = data, .size = size};
    if (!check_magic_and_version(view, report) || !check_header(view, report))
        return false;
    if (!check_extents(view, report) || !check_section_types(view, report))
        return false;
    view->has_int8 = bnt_view_section(view, BNT_SECTION_EMB8) != NULL;
    check_sampling(view, report);
    return check_hyper(view, report) && check_dependent_sections(view, report) &&
           check_records(view, report) && check_tensors(view, report);
}

bool bnt_view_check_crc(const struct bnt_view *view, const struct bnt_section_record *section,
                        struct bnt_report *report)
{
    uint32_t crc = bnt_crc32(0, view->data + section->offset, section->size);
    if (crc == section->crc32)
        return true;
    bnt_report(report, "R9",
               "section %s (offset %" PRIu64 ", %" PRIu64 " bytes): CRC-32 is %08" PRIx32
               ", its bytes give %08" PRIx32 ": damaged",
               bnt_section_name(section->type).text, section->offset, section->size, section->crc32,
               crc);
    return false;
}
