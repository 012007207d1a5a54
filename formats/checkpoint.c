// SPDX-License-Identifier: MIT
// Opening the folder: small files, shards, index.
#include "formats/checkpoint.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/foreign.h"
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

// --- what is there instead ---

// Of the names in the folder that match, the first; malloc'd, or NULL.
static char *find_file(const char *dir, const char *pattern)
{
    char *found = NULL;
    DIR *list = opendir(dir);
    for (const struct dirent *entry; list && (entry = readdir(list));) {
        if (fnmatch(pattern, entry->d_name, 0) != 0 || (found && strcmp(entry->d_name, found) > 0))
            continue;
        free(found);
        found = strdup(entry->d_name);
    }
    if (list)
        (void)closedir(list);
    return found;
}

enum { OF_GGUF = 1, OF_ALL = 5 };

// Adds to an error about a file that is not there what must be, and which weights in another form
// are: in one of the first n_forms.
static void say_what_is_there(const char *dir, const char *must, size_t n_forms,
                              struct bnt_error *err)
{
    static const char *const forms[OF_ALL] = {"*.gguf", "pytorch_model*.bin", "*.safetensors",
                                              "*.pt", "*.pth"};
    char *found = NULL;
    if (!err)
        return;
    for (size_t i = 0; i < n_forms && !found; i++)
        found = find_file(dir, forms[i]);
    struct bnt_error why = *err;
    (void)bnt_fail(err, why.status, "%.250s (%s%s%.80s%s)", why.message, must, found ? "; " : "",
                   found ? found : "", found ? " is not read" : "");
    free(found);
}

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
    if (missing && i == BNT_FILE_CONFIG)
        say_what_is_there(c->dir, "a checkpoint folder must have one", OF_GGUF, err);
    if (status != BNT_OK)
        return missing && i != BNT_FILE_CONFIG ? BNT_OK : status;
    const char *foreign = bnt_foreign_file(c->small[i].text, c->small[i].size);
    if (foreign[0] && i != BNT_FILE_README)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s/%s%s", c->dir, c->small[i].name, foreign);
    return BNT_OK;
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
        const char *file = bnt_json_is_text(value) ? json_string_value(value) : NULL;
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

static enum bnt_status open_sharded(struct bnt_checkpoint *c, struct bnt_error *err)
{
    const struct bnt_small_file *index = &c->small[BNT_FILE_INDEX];
    json_t *json = NULL;
    enum bnt_status status = bnt_json_parse(index->text, index->size, index->name, &json, err);
    if (status != BNT_OK)
        bnt_fail_prefix(err, c->dir);
    c->weight_map = json_incref(json_object_get(json, "weight_map"));
    if (status == BNT_OK)
        status = open_indexed_shards(c, c->weight_map, err);
    if (status == BNT_OK)
        qsort(c->shards, c->n_shards, sizeof c->shards[0], compare_shards);
    json_decref(json);
    return status;
}

static bool is_regular_file(const char *dir, const char *name)
{
    struct stat st;
    char *path = bnt_path_join(dir, name);
    bool regular = path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    return regular;
}

static enum bnt_status open_weights(struct bnt_checkpoint *c, struct bnt_error *err)
{
    enum bnt_status status = BNT_OK;
    c->shards = calloc(MAX_SHARDS, sizeof c->shards[0]);
    if (!c->shards)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    bool whole = is_regular_file(c->dir, BNT_CONFIG_WEIGHTS);
    if (!whole)
        status = read_small_file(c, BNT_FILE_INDEX, err);
    if (status != BNT_OK)
        return status;
    if (c->small[BNT_FILE_INDEX].text)
        return open_sharded(c, err);
    status = open_shard(c, BNT_CONFIG_WEIGHTS, err);
    if (!whole && status == BNT_ERR_IO)
        say_what_is_there(c->dir,
                          "weights must be model.safetensors, or shards with "
                          "model.safetensors.index.json",
                          OF_ALL, err);
    return status;
}

// A file where a folder should be.
static enum bnt_status refuse_file(const char *path, struct bnt_error *err)
{
    struct bnt_map map;
    enum bnt_status status = bnt_map_open(&map, path, err);
    if (status == BNT_OK)
        status = bnt_fail(err, BNT_ERR_ARGUMENT,
                          "%s: is a file, not a checkpoint folder (with config.json and "
                          "model.safetensors)%s",
                          path, bnt_foreign_file(map.data, map.size));
    bnt_map_close(&map);
    return status;
}

enum bnt_status bnt_checkpoint_open(struct bnt_checkpoint *c, const char *dir,
                                    struct bnt_error *err)
{
    *c = (struct bnt_checkpoint){.dir = strdup(dir)};
    if (!c->dir)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    struct stat st;
    if (stat(dir, &st) == 0 && S_ISREG(st.st_mode))
        return refuse_file(dir, err);
    enum bnt_status status = BNT_OK;
    for (size_t i = 0; i < BNT_FILE_INDEX && status == BNT_OK; i++)
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
    json_decref(c->weight_map);
    free(c->shards);
    free(c->sources);
    free(c->dir);
    *c = (struct bnt_checkpoint){0};
}
