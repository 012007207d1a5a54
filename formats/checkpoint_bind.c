// SPDX-License-Identifier: MIT
// Finding in the checkpoint every tensor that its config calls for, and nothing else.
#include "formats/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    return strcmp(((const struct named_tensor *)a)->tensor->name,
                  ((const struct named_tensor *)b)->tensor->name);
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

static enum bnt_status wrong_type(struct finder *f, const struct bnt_st_tensor *t,
                                  const char *expected)
{
    return bnt_fail(f->err, BNT_ERR_UNSUPPORTED, "%s: tensor %s is %s, must be %s",
                    f->checkpoint->dir, t->name, t->type_name, expected);
}

static bool is_float(const struct bnt_st_tensor *t)
{
    return t->dtype == BNT_ST_BF16 || t->dtype == BNT_ST_F16 || t->dtype == BNT_ST_F32;
}

// rank 1: [cols]; rank 2: [rows, cols].
static enum bnt_status check_shape(struct finder *f, const struct bnt_st_tensor *t, unsigned rank,
                                   uint64_t rows, uint64_t cols)
{
    if (t->rank == rank && t->shape[rank - 1] == cols && (rank == 1 || t->shape[0] == rows))
        return BNT_OK;
    char shape[BNT_ST_MAX_RANK * 22 + 1] = "";
    size_t used = 0;
    for (unsigned i = 0; i < t->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, i ? ", " : "",
                                 t->shape[i]);
    char expected[48];
    if (rank == 1)
        (void)snprintf(expected, sizeof expected, "%" PRIu64, cols);
    else
        (void)snprintf(expected, sizeof expected, "%" PRIu64 ", %" PRIu64, rows, cols);
    return bnt_fail(f->err, BNT_ERR_FORMAT,
                    "%s: tensor %s has shape [%s], the config asks for [%s]", f->checkpoint->dir,
                    t->name, shape, expected);
}

// A packed matrix: U8 [rows/4, cols] and its weight_scale.
static enum bnt_status bind_packed(struct finder *f, struct bnt_source *source)
{
    const struct bnt_st_tensor *t = source->tensor;
    char name[BNT_TENSOR_NAME_SIZE + 8];
    if (t->dtype != BNT_ST_U8)
        return wrong_type(f, t, "U8 (the config says that its weights are packed)");
    if (source->place.rows % 4 != 0)
        return bnt_fail(f->err, BNT_ERR_UNSUPPORTED,
                        "%s: tensor %s: packed weights of %" PRIu32 " rows, no multiple of 4",
                        f->checkpoint->dir, t->name, source->place.rows);
    enum bnt_status status = check_shape(f, t, 2, source->place.rows / 4, source->place.cols);
    if (status != BNT_OK)
        return status;
    (void)snprintf(name, sizeof name, "%s_scale", source->name);
    const struct named_tensor *scale = find(f, name);
    if (!scale)
        return bnt_fail(f->err, BNT_ERR_FORMAT, "%s: tensor %s is missing", f->checkpoint->dir,
                        name);
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
    bnt_arch_tensor_name(f->checkpoint->config.arch, source->place.role, source->place.layer,
                         source->name);
    const struct named_tensor *found = find(f, source->name);
    if (!found)
        return bnt_fail(f->err, BNT_ERR_FORMAT, "%s: tensor %s is missing", f->checkpoint->dir,
                        source->name);
    source->tensor = found->tensor;
    source->data = found->data;
    if (source->place.dtype == BNT_TERNARY && f->checkpoint->config.form != BNT_FORM_MASTERS)
        return bind_packed(f, source);
    if (!is_float(found->tensor))
        return wrong_type(f, found->tensor, "BF16, F16 or F32");
    unsigned rank = source->place.section == BNT_SECTION_NORM ? 1 : 2;
    return check_shape(f, found->tensor, rank, source->place.rows, source->place.cols);
}

// Embeddings are kept exactly: as bf16 if all of the checkpoint's are, otherwise as f32, which
// holds every f16 and f32.
static void choose_embedding_type(struct finder *f)
{
    static const char *const names[] = {"model.embed_tokens.weight", "lm_head.weight"};
    for (size_t i = 0; i < f->count; i++) {
        const struct bnt_st_tensor *t = f->all[i].tensor;
        if ((strcmp(t->name, names[0]) == 0 || strcmp(t->name, names[1]) == 0) &&
            t->dtype != BNT_ST_BF16)
            f->checkpoint->config.hyper.flags |= BNT_HYPER_F32_EMBEDDINGS;
    }
}

// Some tied checkpoints repeat the embedding as lm_head; a different one would contradict the
// config.
static enum bnt_status check_tied_output(struct finder *f)
{
    const struct named_tensor *output = find(f, "lm_head.weight");
    const struct named_tensor *embedding = find(f, "model.embed_tokens.weight");
    if (!output || !embedding || !(f->checkpoint->config.hyper.flags & BNT_HYPER_TIED))
        return BNT_OK;
    if (output->tensor->size == embedding->tensor->size &&
        output->tensor->dtype == embedding->tensor->dtype &&
        memcmp(output->data, embedding->data, (size_t)output->tensor->size) == 0)
        return BNT_OK;
    return bnt_fail(f->err, BNT_ERR_FORMAT,
                    "%s: tie_word_embeddings is true, but lm_head.weight differs from "
                    "model.embed_tokens.weight",
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
    return bnt_fail(f->err, BNT_ERR_UNSUPPORTED,
                    "%s: %zu tensor%s that %s does not have, the first is %s", f->checkpoint->dir,
                    count, count == 1 ? "" : "s", f->checkpoint->config.arch->name, first);
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

enum bnt_status bnt_checkpoint_bind(struct bnt_checkpoint *c, struct bnt_error *err)
{
    struct finder finder = {.checkpoint = c, .err = err};
    enum bnt_status status = list_tensors(&finder);
    if (status == BNT_OK)
        status = bind_all(&finder);
    free(finder.all);
    return status;
}
