// SPDX-License-Identifier: MIT
#include "formats/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/bytes.h"
#include "formats/cursor.h"
#include "formats/foreign.h"
#include "formats/json.h"

static const struct type_row {
    const char *name;
    unsigned bits;
    enum bnt_st_dtype dtype;
} type_table[] = {
    {"BOOL", 8, BNT_ST_OTHER},    {"U8", 8, BNT_ST_U8},         {"I8", 8, BNT_ST_I8},
    {"F8_E4M3", 8, BNT_ST_OTHER}, {"F8_E5M2", 8, BNT_ST_OTHER}, {"F8_E8M0", 8, BNT_ST_OTHER},
    {"I16", 16, BNT_ST_OTHER},    {"U16", 16, BNT_ST_OTHER},    {"F16", 16, BNT_ST_F16},
    {"BF16", 16, BNT_ST_BF16},    {"I32", 32, BNT_ST_OTHER},    {"U32", 32, BNT_ST_OTHER},
    {"F32", 32, BNT_ST_F32},      {"I64", 64, BNT_ST_OTHER},    {"U64", 64, BNT_ST_OTHER},
    {"F64", 64, BNT_ST_OTHER},    {"C64", 64, BNT_ST_OTHER},
};

static const struct type_row *find_type_name(const char *name)
{
    for (size_t i = 0; i < sizeof type_table / sizeof type_table[0]; i++) {
        if (strcmp(type_table[i].name, name) == 0)
            return &type_table[i];
    }
    return NULL;
}

static const struct type_row *find_type(enum bnt_st_dtype dtype)
{
    for (size_t i = 0; i < sizeof type_table / sizeof type_table[0]; i++) {
        if (type_table[i].dtype == dtype)
            return &type_table[i];
    }
    return NULL;
}

// A non-negative JSON integer.
static bool get_u64(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool get_shape(const json_t *shape, struct bnt_st_tensor *t)
{
    if (!json_is_array(shape) || json_array_size(shape) > BNT_ST_MAX_RANK)
        return false;
    t->rank = (unsigned)json_array_size(shape);
    t->count = 1;
    for (unsigned i = 0; i < t->rank; i++) {
        if (!get_u64(json_array_get(shape, i), &t->shape[i]) ||
            !bnt_mul_u64(t->count, t->shape[i], &t->count))
            return false;
    }
    return true;
}

static enum bnt_status get_tensor(const char *name, const json_t *entry, const char *file,
                                  struct bnt_st_tensor *t, struct bnt_error *err)
{
    *t = (struct bnt_st_tensor){.name = name, .type_name = bnt_json_text(entry, "dtype", "")};
    const struct type_row *type = find_type_name(t->type_name);
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t end, bytes;
    if (!type)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: tensor %s: unknown dtype '%s'", file, name,
                        t->type_name);
    t->dtype = type->dtype;
    if (!get_shape(json_object_get(entry, "shape"), t))
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: tensor %s: shape must be at most %d non-negative integers", file, name,
                        BNT_ST_MAX_RANK);
    if (json_array_size(offsets) != 2 || !get_u64(json_array_get(offsets, 0), &t->begin) ||
        !get_u64(json_array_get(offsets, 1), &end) || end < t->begin)
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: tensor %s: data_offsets must be two ascending integers", file, name);
    t->size = end - t->begin;
    if (!bnt_mul_u64(t->count, type->bits / 8, &bytes) || bytes != t->size)
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: tensor %s: its %" PRIu64 " bytes do not fit its shape", file, name,
                        t->size);
    return BNT_OK;
}

static int compare_begin(const void *a, const void *b)
{
    const struct bnt_st_tensor *x = a;
    const struct bnt_st_tensor *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1; // empty tensors first: they lie before their neighbour
    return strcmp(x->name, y->name);
}

static enum bnt_status check_tight(struct bnt_st_header *header, const char *name,
                                   struct bnt_error *err)
{
    if (header->count > 0)
        qsort(header->tensors, header->count, sizeof header->tensors[0], compare_begin);
    uint64_t end = 0;
    for (size_t i = 0; i < header->count; i++) {
        const struct bnt_st_tensor *t = &header->tensors[i];
        if (t->begin != end)
            return bnt_fail(err, BNT_ERR_FORMAT,
                            "%s: tensor %s begins at %" PRIu64 " of the data, must be %" PRIu64
                            " (tensors must not overlap or leave holes)",
                            name, t->name, t->begin, end);
        end += t->size;
    }
    header->data_size = end;
    return BNT_OK;
}

enum bnt_status bnt_st_parse(struct bnt_st_header *header, const char *text, size_t size,
                             const char *name, struct bnt_error *err)
{
    *header = (struct bnt_st_header){0};
    enum bnt_status status = bnt_json_parse(text, size, name, &header->json, err);
    if (status != BNT_OK)
        return status;
    header->tensors = calloc(json_object_size(header->json) + 1, sizeof header->tensors[0]);
    if (!header->tensors)
        return bnt_fail(err, BNT_ERR_MEMORY, "%s: out of memory", name);
    const char *key;
    json_t *entry;
    json_object_foreach(header->json, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0)
            continue;
        status = get_tensor(key, entry, name, &header->tensors[header->count++], err);
        if (status != BNT_OK)
            return status;
    }
    return check_tight(header, name, err);
}

enum bnt_status bnt_st_open(struct bnt_st_header *header, const uint8_t *file, uint64_t size,
                            const char *name, const uint8_t **data, struct bnt_error *err)
{
    *header = (struct bnt_st_header){0};
    struct bnt_cursor c = bnt_cursor(file, size);
    uint64_t length;
    const uint8_t *text;
    if (!bnt_cursor_copy(&c, &length, sizeof length) || length > BNT_ST_MAX_HEADER ||
        !bnt_cursor_take(&c, length, 1, &text))
        return bnt_fail(
            err, BNT_ERR_FORMAT,
            "%s: not a safetensors file, or truncated: no header of the length it says%s", name,
            bnt_foreign_file(file, size));
    enum bnt_status status = bnt_st_parse(header, (const char *)text, (size_t)length, name, err);
    if (status != BNT_OK)
        return status;
    *data = file + c.pos;
    if (bnt_cursor_left(&c) != header->data_size)
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: the header speaks of %" PRIu64
                        " bytes of tensors, the file has %" PRIu64 ": truncated or damaged",
                        name, header->data_size, bnt_cursor_left(&c));
    return BNT_OK;
}

void bnt_st_free(struct bnt_st_header *header)
{
    free(header->tensors);
    json_decref(header->json);
    *header = (struct bnt_st_header){0};
}

const char *bnt_st_metadata(const struct bnt_st_header *header, const char *key, size_t *size)
{
    const json_t *text = json_object_get(json_object_get(header->json, "__metadata__"), key);
    *size = json_string_length(text);
    return json_string_value(text);
}

static enum bnt_status out_of_memory(struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_MEMORY, "out of memory making a safetensors header");
}

enum bnt_status bnt_st_builder_init(struct bnt_st_builder *builder, struct bnt_error *err)
{
    *builder = (struct bnt_st_builder){.json = json_object()};
    if (json_object_set_new(builder->json, "__metadata__", json_object()) != 0)
        return out_of_memory(err);
    return BNT_OK;
}

enum bnt_status bnt_st_builder_add(struct bnt_st_builder *builder, const char *name,
                                   enum bnt_st_dtype dtype, unsigned rank, const uint64_t *shape,
                                   struct bnt_error *err)
{
    const struct type_row *type = find_type(dtype);
    uint64_t size = type->bits / 8;
    json_t *dimensions = json_array();
    for (unsigned i = 0; i < rank; i++) {
        size *= shape[i];
        (void)json_array_append_new(dimensions, json_integer((json_int_t)shape[i]));
    }
    json_t *entry =
        json_pack("{s:s, s:o, s:[I,I]}", "dtype", type->name, "shape", dimensions, "data_offsets",
                  (json_int_t)builder->end, (json_int_t)builder->end + (json_int_t)size);
    if (!entry || json_object_set_new(builder->json, name, entry) != 0)
        return out_of_memory(err);
    builder->end += size;
    return BNT_OK;
}

enum bnt_status bnt_st_builder_metadata(struct bnt_st_builder *builder, const char *key,
                                        const char *text, size_t size, struct bnt_error *err)
{
    json_t *value = memchr(text, 0, size) ? NULL : json_stringn(text, size);
    if (!value)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: not valid UTF-8, or holds a zero byte", key);
    if (json_object_set_new(json_object_get(builder->json, "__metadata__"), key, value) != 0)
        return out_of_memory(err);
    return BNT_OK;
}

enum bnt_status bnt_st_builder_finish(struct bnt_st_builder *builder, char **bytes, size_t *size,
                                      struct bnt_error *err)
{
    size_t length = json_dumpb(builder->json, NULL, 0, JSON_COMPACT);
    uint64_t padded = bnt_round_up(length + 8, 64) - 8;
    *size = (size_t)padded + 8;
    *bytes = NULL;
    if (padded > BNT_ST_MAX_HEADER)
        return bnt_fail(
            err, BNT_ERR_UNSUPPORTED,
            "the config and tokenizer files are too large: the header would be over 100 MB");
    *bytes = length > 0 ? malloc(*size) : NULL;
    if (!*bytes)
        return out_of_memory(err);
    memcpy(*bytes, &padded, 8);
    (void)json_dumpb(builder->json, *bytes + 8, length, JSON_COMPACT);
    memset(*bytes + 8 + length, ' ', (size_t)padded - length);
    return BNT_OK;
}

void bnt_st_builder_free(struct bnt_st_builder *builder)
{
    json_decref(builder->json);
    builder->json = NULL;
}
