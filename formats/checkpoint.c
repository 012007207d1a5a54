// SPDX-License-Identifier: MIT
#include "formats/checkpoint.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/bytes.h"
#include "formats/json.h"

enum { MEGABYTE = 1 << 20, MAX_SHARDS = 4096 };

// In the order of bnt_small_file_index.
static const struct {
    const char *name;
    size_t limit;
} small_files[BNT_SMALL_FILES] = {
    {"config.json", MEGABYTE},
    {"generation_config.json", MEGABYTE},
    {"tokenizer.json", 64 * MEGABYTE},
    {"tokenizer_config.json", 16 * MEGABYTE},
    {"chat_template.jinja", MEGABYTE},
    {"README.md", 4 * MEGABYTE},
    {"model.safetensors.index.json", 16 * MEGABYTE},
};

// --- opening files ---

static enum bnt_status read_small_file(struct bnt_checkpoint *c, size_t i, struct bnt_error *err)
{
    c->small[i].name = small_files[i].name;
    char *path = bnt_path_join(c->dir, small_files[i].name);
    if (!path)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    bool missing;
    enum bnt_status status =
        bnt_read_file(path, small_files[i].limit, &c->small[i].text, &c->small[i].size, &missing, err);
    free(path);
    return missing && i != BNT_FILE_CONFIG ? BNT_OK : status;
}

static enum bnt_status open_shard(struct bnt_checkpoint *c, const char *name, struct bnt_error *err)
{
    struct bnt_shard *shard = &c->shards[c->n_shards++];
    shard->name = strdup(name);
    char *path = bnt_path_join(c->dir, name);
    enum bnt_status status = BNT_ERR_MEMORY;
    if (!path || !shard->name)
        bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    else
        status = bnt_map_open(&shard->map, path, err);
    if (status == BNT_OK)
        status = bnt_st_open(&shard->header, shard->map.data, shard->map.size, path, &shard->data, err);
    free(path);
    return status;
}

static bool is_plain_file_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && !strchr(name, '/') && strlen(name) < 256;
}

static bool shard_is_open(const struct bnt_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        if (c->shards[i].name && strcmp(c->shards[i].name, name) == 0)
            return true;
    }
    return false;
}

static enum bnt_status open_indexed_shards(struct bnt_checkpoint *c, const json_t *map, struct bnt_error *err)
{
    const char *tensor;
    json_t *value;
    if (json_object_size(map) == 0)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: has no weight_map", c->dir, c->small[BNT_FILE_INDEX].name);
    json_object_foreach((json_t *)map, tensor, value)
    {
        const char *file = json_string_value(value);
        if (!file || !is_plain_file_name(file))
            return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: tensor %s: '%s' is no plain file name", c->dir,
                            c->small[BNT_FILE_INDEX].name, tensor, file ? file : "");
        if (shard_is_open(c, file))
            continue;
        if (c->n_shards == MAX_SHARDS)
            return bnt_fail(err, BNT_ERR_FORMAT, "%s: more than %d shards", c->dir, MAX_SHARDS);
        enum bnt_status status = open_shard(c, file, err);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

static int compare_shards(const void *a, const void *b)
{
    return strcmp(((const struct bnt_shard *)a)->name, ((const struct bnt_shard *)b)->name);
}

// Every tensor must be in the shard that the index names, and the index must name them all.
static enum bnt_status check_index(const struct bnt_checkpoint *c, const json_t *map, struct bnt_error *err)
{
    size_t found = 0;
    for (size_t i = 0; i < c->n_shards; i++) {
        const struct bnt_shard *shard = &c->shards[i];
        for (size_t j = 0; j < shard->header.count; j++, found++) {
            const char *name = shard->header.tensors[j].name;
            const char *file = json_string_value(json_object_get(map, name));
            if (!file || strcmp(file, shard->name) != 0)
                return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: tensor %s is in %s, the index says %s", c->dir,
                                c->small[BNT_FILE_INDEX].name, name, shard->name, file ? file : "nothing of it");
        }
    }
    if (found != json_object_size(map))
        return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: names %zu tensors, the shards hold %zu", c->dir,
                        c->small[BNT_FILE_INDEX].name, json_object_size(map), found);
    return BNT_OK;
}

static enum bnt_status open_sharded(struct bnt_checkpoint *c, struct bnt_error *err)
{
    const struct bnt_small_file *index = &c->small[BNT_FILE_INDEX];
    json_t *json = NULL;
    enum bnt_status status = bnt_json_parse(index->text, index->size, index->name, &json, err);
    const json_t *map = json_object_get(json, "weight_map");
    if (status == BNT_OK)
        status = open_indexed_shards(c, map, err);
    if (status == BNT_OK) {
        qsort(c->shards, c->n_shards, sizeof c->shards[0], compare_shards);
        status = check_index(c, map, err);
    }
    json_decref(json);
    return status;
}

static enum bnt_status open_weights(struct bnt_checkpoint *c, struct bnt_error *err)
{
    c->shards = calloc(MAX_SHARDS, sizeof c->shards[0]);
    if (!c->shards)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (c->small[BNT_FILE_INDEX].text)
        return open_sharded(c, err);
    enum bnt_status status = open_shard(c, "model.safetensors", err);
    if (status == BNT_ERR_IO && err)
        (void)bnt_fail(err, status, "%.400s (weights must be model.safetensors, or shards with model.safetensors.index.json)",
                       err->message);
    return status;
}

// --- finding tensors ---

struct named_tensor {
    const struct bnt_st_tensor *tensor;
    const uint8_t *data;
    bool used;
};

struct finder {
    struct bnt_checkpoint *checkpoint;
    struct named_tensor *all; // ascending by name
    size_t count;
    struct bnt_error *err;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct named_tensor *)a)->tensor->name, ((const struct named_tensor *)b)->tensor->name);
}

static enum bnt_status list_tensors(struct finder *f)
{
    struct bnt_checkpoint *c = f->checkpoint;
    for (size_t i = 0; i < c->n_shards; i++)
        f->count += c->shards[i].header.count;
    f->all = calloc(f->count + 1, sizeof f->all[0]);
    if (!f->all)
        return bnt_fail(f->err, BNT_ERR_MEMORY, "out of memory");
    size_t n = 0;
    for (size_t i = 0; i < c->n_shards; i++) {
        const struct bnt_shard *shard = &c->shards[i];
        for (size_t j = 0; j < shard->header.count; j++) {
            const struct bnt_st_tensor *t = &shard->header.tensors[j];
            f->all[n++] = (struct named_tensor){.tensor = t, .data = shard->data + t->begin};
        }
    }
    qsort(f->all, f->count, sizeof f->all[0], compare_names);
    return BNT_OK;
}

// The tensor of that name, marked as used, or NULL.
static struct named_tensor *find(struct finder *f, const char *name)
{
    const struct bnt_st_tensor key_tensor = {.name = name};
    const struct named_tensor key = {.tensor = &key_tensor};
    struct named_tensor *found = bsearch(&key, f->all, f->count, sizeof key, compare_names);
    if (found)
        found->used = true;
    return found;
}

static enum bnt_status wrong_type(struct finder *f, const struct bnt_st_tensor *t, const char *expected)
{
    return bnt_fail(f->err, BNT_ERR_UNSUPPORTED, "%s: tensor %s is %s, must be %s", f->checkpoint->dir, t->name,
                    t->type_name, expected);
}

static bool is_float(const struct bnt_st_tensor *t)
{
    return t->dtype == BNT_ST_BF16 || t->dtype == BNT_ST_F16 || t->dtype == BNT_ST_F32;
}

// rank 1: [cols]; rank 2: [rows, cols].
static enum bnt_status check_shape(struct finder *f, const struct bnt_st_tensor *t, unsigned rank, uint64_t rows, uint64_t cols)
{
    if (t->rank == rank && t->shape[rank - 1] == cols && (rank == 1 || t->shape[0] == rows))
        return BNT_OK;
    char shape[BNT_ST_MAX_RANK * 22 + 1] = "";
    size_t used = 0;
    for (unsigned i = 0; i < t->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, i ? ", " : "", t->shape[i]);
    char expected[48];
    if (rank == 1)
        (void)snprintf(expected, sizeof expected, "%" PRIu64, cols);
    else
        (void)snprintf(expected, sizeof expected, "%" PRIu64 ", %" PRIu64, rows, cols);
    return bnt_fail(f->err, BNT_ERR_FORMAT, "%s: tensor %s has shape [%s], the config asks for [%s]",
                    f->checkpoint->dir, t->name, shape, expected);
}

// A packed matrix: U8 [rows/4, cols] and its weight_scale.
static enum bnt_status bind_packed(struct finder *f, struct bnt_source *source)
{
    const struct bnt_st_tensor *t = source->tensor;
    char name[BNT_TENSOR_NAME_SIZE + 8];
    if (t->dtype != BNT_ST_U8)
        return wrong_type(f, t, "U8 (the config says that its weights are packed)");
    if (source->place.rows % 4 != 0)
        return bnt_fail(f->err, BNT_ERR_UNSUPPORTED, "%s: tensor %s: packed weights of %" PRIu32 " rows, no multiple of 4",
                        f->checkpoint->dir, t->name, source->place.rows);
    enum bnt_status status = check_shape(f, t, 2, source->place.rows / 4, source->place.cols);
    if (status != BNT_OK)
        return status;
    (void)snprintf(name, sizeof name, "%s_scale", source->name);
    const struct named_tensor *scale = find(f, name);
    if (!scale)
        return bnt_fail(f->err, BNT_ERR_FORMAT, "%s: tensor %s is missing", f->checkpoint->dir, name);
    if (!is_float(scale->tensor))
        return wrong_type(f, scale->tensor, "BF16, F16 or F32");
    if (scale->tensor->count != 1)
        return check_shape(f, scale->tensor, 1, 1, 1);
    const struct bnt_source as_source = {.tensor = scale->tensor};
    source->weight_scale = bnt_float_load(bnt_source_float_type(&as_source), scale->data, 0);
    return BNT_OK;
}

static enum bnt_status bind(struct finder *f, struct bnt_source *source)
{
    bnt_arch_tensor_name(f->checkpoint->config.arch, source->place.role, source->place.layer, source->name);
    const struct named_tensor *found = find(f, source->name);
    if (!found)
        return bnt_fail(f->err, BNT_ERR_FORMAT, "%s: tensor %s is missing", f->checkpoint->dir, source->name);
    source->tensor = found->tensor;
    source->data = found->data;
    if (source->place.dtype == BNT_TERNARY && f->checkpoint->config.form != BNT_FORM_MASTERS)
        return bind_packed(f, source);
    if (!is_float(found->tensor))
        return wrong_type(f, found->tensor, "BF16, F16 or F32");
    unsigned rank = source->place.section == BNT_SECTION_NORM ? 1 : 2;
    return check_shape(f, found->tensor, rank, source->place.rows, source->place.cols);
}

// Embeddings are kept exactly: as bf16 if all of the checkpoint's are, otherwise as f32, which holds every f16 and f32.
static void choose_embedding_type(struct finder *f)
{
    static const char *const names[] = {"model.embed_tokens.weight", "lm_head.weight"};
    for (size_t i = 0; i < f->count; i++) {
        const struct bnt_st_tensor *t = f->all[i].tensor;
        if ((strcmp(t->name, names[0]) == 0 || strcmp(t->name, names[1]) == 0) && t->dtype != BNT_ST_BF16)
            f->checkpoint->config.hyper.flags |= BNT_HYPER_F32_EMBEDDINGS;
    }
}

// Some tied checkpoints repeat the embedding as lm_head; a different one would contradict the config.
static enum bnt_status check_tied_output(struct finder *f)
{
    const struct named_tensor *output = find(f, "lm_head.weight");
    const struct named_tensor *embedding = find(f, "model.embed_tokens.weight");
    if (!output || !embedding || !(f->checkpoint->config.hyper.flags & BNT_HYPER_TIED))
        return BNT_OK;
    if (output->tensor->size == embedding->tensor->size && output->tensor->dtype == embedding->tensor->dtype &&
        memcmp(output->data, embedding->data, (size_t)output->tensor->size) == 0)
        return BNT_OK;
    return bnt_fail(f->err, BNT_ERR_FORMAT,
                    "%s: tie_word_embeddings is true, but lm_head.weight differs from model.embed_tokens.weight",
                    f->checkpoint->dir);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static enum bnt_status refuse_unused(struct finder *f)
{
    const char *first = NULL;
    size_t count = 0;
    for (size_t i = 0; i < f->count; i++) {
        // Old exports carry this buffer; it follows from the config.
        if (f->all[i].used || ends_with(f->all[i].tensor->name, ".rotary_emb.inv_freq"))
            continue;
        first = count++ ? first : f->all[i].tensor->name;
    }
    if (count == 0)
        return BNT_OK;
    return bnt_fail(f->err, BNT_ERR_UNSUPPORTED, "%s: %zu tensor%s that %s does not have, the first is %s",
                    f->checkpoint->dir, count, count == 1 ? "" : "s", f->checkpoint->config.arch->name, first);
}

static enum bnt_status bind_all(struct finder *f)
{
    struct bnt_checkpoint *c = f->checkpoint;
    choose_embedding_type(f);
    c->sources = calloc((size_t)bnt_layout_count(&c->config.hyper, false), sizeof c->sources[0]);
    if (!c->sources)
        return bnt_fail(f->err, BNT_ERR_MEMORY, "out of memory");
    struct bnt_layout_walk walk = bnt_layout_walk(&c->config.hyper, false);
    while (bnt_layout_next(&walk, &c->sources[c->n_sources].place)) {
        enum bnt_status status = bind(f, &c->sources[c->n_sources]);
        if (status != BNT_OK)
            return status;
        c->n_sources++;
    }
    enum bnt_status status = check_tied_output(f);
    return status == BNT_OK ? refuse_unused(f) : status;
}

enum bnt_status bnt_checkpoint_open(struct bnt_checkpoint *c, const char *dir, struct bnt_error *err)
{
    *c = (struct bnt_checkpoint){.dir = strdup(dir)};
    if (!c->dir)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    enum bnt_status status = BNT_OK;
    for (size_t i = 0; i < BNT_SMALL_FILES && status == BNT_OK; i++)
        status = read_small_file(c, i, err);
    if (status != BNT_OK)
        return status;
    char *name = bnt_path_join(dir, "config.json");
    status = bnt_config_parse(&c->config, c->small[BNT_FILE_CONFIG].text, c->small[BNT_FILE_CONFIG].size,
                              c->small[BNT_FILE_GENERATION].text, c->small[BNT_FILE_GENERATION].size,
                              name ? name : "config.json", err);
    free(name);
    if (status == BNT_OK)
        status = open_weights(c, err);
    struct finder finder = {.checkpoint = c, .err = err};
    if (status == BNT_OK)
        status = list_tensors(&finder);
    if (status == BNT_OK)
        status = bind_all(&finder);
    free(finder.all);
    return status;
}

void bnt_checkpoint_close(struct bnt_checkpoint *c)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        bnt_st_free(&c->shards[i].header);
        bnt_map_close(&c->shards[i].map);
        free(c->shards[i].name);
    }
    for (size_t i = 0; i < BNT_SMALL_FILES; i++)
        free(c->small[i].text);
    free(c->shards);
    free(c->sources);
    free(c->dir);
    *c = (struct bnt_checkpoint){0};
}

// --- values ---

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

static enum bnt_status not_finite(const struct bnt_checkpoint *c, const struct bnt_source *source, struct bnt_error *err)
{
    enum bnt_float_type type = bnt_source_float_type(source);
    uint64_t i = 0;
    while (i + 1 < source->tensor->count && isfinite(bnt_float_load(type, source->data, i)))
        i++;
    return bnt_fail(err, BNT_ERR_FORMAT, "%s: tensor %s: element %" PRIu64 " (row %" PRIu64 ", column %" PRIu64 ") is not finite",
                    c->dir, source->name, i, i / source->place.cols, i % source->place.cols);
}

enum bnt_status bnt_source_scale(const struct bnt_checkpoint *c, const struct bnt_source *source, unsigned threads,
                                 float *scale, struct bnt_error *err)
{
    if (c->config.form == BNT_FORM_MASTERS) {
        double sum = bnt_abs_sum(bnt_source_float_type(source), source->data, source->tensor->count, threads);
        if (!isfinite(sum))
            return not_finite(c, source, err);
        *scale = bnt_ternary_scale(sum, source->tensor->count);
        return BNT_OK;
    }
    *scale = c->config.form == BNT_FORM_PACKED_DIVIDE ? 1.0f / source->weight_scale : source->weight_scale;
    if (isfinite(*scale) && *scale > 0)
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_FORMAT, "%s: tensor %s_scale is %g: no usable scale", c->dir, source->name,
                    (double)source->weight_scale);
}

// Row r sits in bits 2i, 2i+1 of packed row r mod (rows/4), with i = r / (rows/4); the code is the weight + 1.
static bool unpack_row(const struct bnt_source *source, uint32_t r, int8_t *out)
{
    uint32_t quarter = source->place.rows / 4;
    const uint8_t *from = source->data + (uint64_t)(r % quarter) * source->place.cols;
    unsigned shift = 2 * (r / quarter);
    unsigned bad = 0;
    for (uint32_t k = 0; k < source->place.cols; k++) {
        unsigned code = from[k] >> shift & 3u;
        bad |= code == 3;
        out[k] = (int8_t)((int)code - 1);
    }
    return !bad;
}

enum bnt_status bnt_source_ternary_rows(const struct bnt_checkpoint *c, const struct bnt_source *source, float scale,
                                        uint32_t first, uint32_t count, int8_t *out, struct bnt_error *err)
{
    uint64_t cols = source->place.cols;
    if (c->config.form == BNT_FORM_MASTERS) {
        enum bnt_float_type type = bnt_source_float_type(source);
        bnt_ternarize(type, source->data + first * cols * bnt_float_size(type), count * cols, scale, out);
        return BNT_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!unpack_row(source, first + i, out + i * cols))
            return bnt_fail(err, BNT_ERR_FORMAT, "%s: tensor %s: row %" PRIu32 " holds the illegal code 3", c->dir,
                            source->name, first + i);
    }
    return BNT_OK;
}
