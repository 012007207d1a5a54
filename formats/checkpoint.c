// SPDX-License-Identifier: MIT
// Opening the folder: small files, shards, index.
#include "formats/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"

#define MEGABYTE ((size_t)1 << 20)
enum { MAX_SHARDS = 4096 };

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
    enum bnt_status status = bnt_read_file(path, small_files[i].limit, &c->small[i].text,
                                           &c->small[i].size, &missing, err);
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
        status =
            bnt_st_open(&shard->header, shard->map.data, shard->map.size, path, &shard->data, err);
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

static enum bnt_status open_indexed_shards(struct bnt_checkpoint *c, const json_t *map,
                                           struct bnt_error *err)
{
    const char *tensor;
    json_t *value;
    if (json_object_size(map) == 0)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: has no weight_map", c->dir,
                        c->small[BNT_FILE_INDEX].name);
    json_object_foreach((json_t *)map, tensor, value)
    {
        const char *file = json_string_value(value);
        if (!file || !is_plain_file_name(file))
            return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: tensor %s: '%s' is no plain file name",
                            c->dir, c->small[BNT_FILE_INDEX].name, tensor, file ? file : "");
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
static enum bnt_status check_index(const struct bnt_checkpoint *c, const json_t *map,
                                   struct bnt_error *err)
{
    size_t found = 0;
    for (size_t i = 0; i < c->n_shards; i++) {
        const struct bnt_shard *shard = &c->shards[i];
        for (size_t j = 0; j < shard->header.count; j++, found++) {
            const char *name = shard->header.tensors[j].name;
            const char *file = json_string_value(json_object_get(map, name));
            if (!file || strcmp(file, shard->name) != 0)
                return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: tensor %s is in %s, the index says %s",
                                c->dir, c->small[BNT_FILE_INDEX].name, name, shard->name,
                                file ? file : "nothing of it");
        }
    }
    if (found != json_object_size(map))
        return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s: names %zu tensors, the shards hold %zu",
                        c->dir, c->small[BNT_FILE_INDEX].name, json_object_size(map), found);
    return BNT_OK;
}

static enum bnt_status open_sharded(struct bnt_checkpoint *c, struct bnt_error *err)
{
    const struct bnt_small_file *index = &c->small[BNT_FILE_INDEX];
    json_t *json = NULL;
    enum bnt_status status = bnt_json_parse(index->text, index->size, index->name, &json, err);
    if (status != BNT_OK)
        bnt_fail_prefix(err, c->dir);
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
    if (status == BNT_ERR_IO && err) {
        struct bnt_error why = *err;
        (void)bnt_fail(err, status,
                       "%.400s (weights must be model.safetensors, or shards with "
                       "model.safetensors.index.json)",
                       why.message);
    }
    return status;
}

enum bnt_status bnt_checkpoint_open(struct bnt_checkpoint *c, const char *dir,
                                    struct bnt_error *err)
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
    status = bnt_config_parse(&c->config, c->small[BNT_FILE_CONFIG].text,
                              c->small[BNT_FILE_CONFIG].size, c->small[BNT_FILE_GENERATION].text,
                              c->small[BNT_FILE_GENERATION].size, name ? name : "config.json", err);
    free(name);
    if (status == BNT_OK) {
        const struct bnt_small_file *tokenizer = &c->small[BNT_FILE_TOKENIZER];
        const struct bnt_small_file *config = &c->small[BNT_FILE_TOKENIZER_CONFIG];
        status = bnt_config_default_eos(&c->config.hyper,
                                        (struct bnt_config_file){tokenizer->text, tokenizer->size},
                                        (struct bnt_config_file){config->text, config->size}, err);
        if (status != BNT_OK)
            bnt_fail_prefix(err, dir);
    }
    if (status == BNT_OK)
        status = open_weights(c, err);
    return status == BNT_OK ? bnt_checkpoint_bind(c, err) : status;
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
