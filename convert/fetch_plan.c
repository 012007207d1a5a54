// SPDX-License-Identifier: MIT
#include "convert/fetch_plan.h"

#include <fnmatch.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "convert/fetch_url.h"
#include "formats/json.h"

enum { MAX_FILES = 1000000, MAX_NAME = 1024, MAX_REPO = 96 };

enum bnt_status bnt_fetch_listing_add(struct bnt_fetch_listing *listing, const char *path,
                                      uint64_t size, const char *oid, struct bnt_error *err)
{
    if (listing->count == MAX_FILES)
        return bnt_fail(err, BNT_ERR_UNSUPPORTED, "more than %d files", MAX_FILES);
    if (listing->count == listing->capacity) {
        size_t capacity = listing->capacity ? 2 * listing->capacity : 64;
        struct bnt_fetch_file *files = realloc(listing->files, capacity * sizeof *files);
        if (!files)
            return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
        listing->files = files;
        listing->capacity = capacity;
    }
    struct bnt_fetch_file *file = &listing->files[listing->count];
    *file = (struct bnt_fetch_file){.path = bnt_fetch_format("%s", path), .size = size};
    if (!file->path)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    memcpy(file->oid, oid, strlen(oid) + 1); // 40 or 64 digits: the caller looked
    file->trust = *oid ? BNT_FETCH_LISTED : BNT_FETCH_UNLISTED;
    listing->count++;
    return BNT_OK;
}

struct bnt_fetch_file *bnt_fetch_listing_find(const struct bnt_fetch_listing *listing,
                                              const char *path)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (strcmp(listing->files[i].path, path) == 0)
            return &listing->files[i];
    }
    return NULL;
}

void bnt_fetch_listing_swap_files(struct bnt_fetch_listing *a, struct bnt_fetch_listing *b)
{
    const struct bnt_fetch_listing before = *a;
    a->files = b->files;
    a->count = b->count;
    a->capacity = b->capacity;
    b->files = before.files;
    b->count = before.count;
    b->capacity = before.capacity;
}

void bnt_fetch_listing_free(struct bnt_fetch_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->files[i].path);
    free(listing->files);
    free(listing->license);
    *listing = (struct bnt_fetch_listing){0};
}

bool bnt_fetch_is_hex(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

// --- names ---

// A part of a repository's name. The cache folder joins both by "--", so neither may hold it.
static bool is_repo_part(const char *text, size_t length)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-";
    if (length == 0 || text[0] == '.' || text[0] == '-' || text[length - 1] == '.' ||
        text[length - 1] == '-')
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\0' || !strchr(allowed, text[i]))
            return false;
        if (i > 0 && text[i] == text[i - 1] && (text[i] == '.' || text[i] == '-'))
            return false;
    }
    return true;
}

bool bnt_fetch_is_repo(const char *text)
{
    size_t length = strlen(text);
    const char *slash = strchr(text, '/');
    if (length > MAX_REPO)
        return false;
    if (!slash)
        return is_repo_part(text, length);
    return is_repo_part(text, (size_t)(slash - text)) &&
           is_repo_part(slash + 1, length - (size_t)(slash + 1 - text));
}

static bool has_part(const char *name, const char *part)
{
    size_t size = strlen(part);
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/' && p != name;
        if (strncmp(p, part, size) == 0 && (p[size] == '/' || p[size] == '\0'))
            return true;
    }
    return false;
}

// What no git tree can hold: a server that lists it means harm.
static const char *hostile(const char *name)
{
    if (name[0] == '/')
        return "it is absolute";
    if (has_part(name, "..") || has_part(name, "."))
        return "it has a part '..' or '.'";
    if (name[0] == '\0' || name[strlen(name) - 1] == '/' || strstr(name, "//"))
        return "it has an empty part";
    return NULL;
}

const char *bnt_fetch_name_problem(const char *name)
{
    const char *problem = hostile(name);
    if (problem)
        return problem;
    for (const char *p = name; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return "it has control characters";
        if (*p == '\\')
            return "it has a backslash";
    }
    return strlen(name) > MAX_NAME ? "it is too long" : NULL;
}

// --- patterns ---

#define SINGLE "model.safetensors"
static const char any_weights[] = "*.safetensors";

// What bnt-convert and bnt-pack read, the weights, and what a reader wants to know of the origin.
static const char *const needed[] = {
    "config.json",       "generation_config.json", any_weights,          BNT_FETCH_INDEX,
    "tokenizer.json",    "tokenizer_config.json",  "tokenizer.model",    "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja",    "chat_template.json", "LICENSE*",
    "README.md",
};

// FNM_NOESCAPE: Python's fnmatch, which --include of the Hub's own tool goes by, knows no escapes.
// A folder ("onnx/") stands for all in it.
static bool matches(const char *pattern, const char *path)
{
    size_t length = strlen(pattern);
    if (length > 0 && pattern[length - 1] == '/')
        return strncmp(pattern, path, length) == 0;
    return fnmatch(pattern, path, FNM_NOESCAPE) == 0;
}

bool bnt_fetch_wanted(const char *path, const char *const *patterns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (matches(patterns[i], path))
            return true;
    }
    if (count > 0 || strchr(path, '/'))
        return false;
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (matches(needed[i], path))
            return true;
    }
    return false;
}

static enum bnt_status check_patterns(const struct bnt_fetch_listing *listing,
                                      const char *const *patterns, size_t count,
                                      struct bnt_error *err)
{
    for (size_t i = 0; i < count; i++) {
        bool found = strpbrk(patterns[i], "*?[") != NULL;
        for (size_t j = 0; !found && j < listing->count; j++)
            found = matches(patterns[i], listing->files[j].path);
        if (!found)
            return bnt_fail(err, BNT_ERR_IO, "no file '%.200s' at this revision", patterns[i]);
    }
    return BNT_OK;
}

static enum bnt_status refuse_name(const char *name, const char *problem, struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_FORMAT, "refused the file name '%.200s' of the listing: %s", name,
                    problem);
}

enum bnt_status bnt_fetch_check_names(const struct bnt_fetch_listing *listing,
                                      struct bnt_error *err)
{
    for (size_t i = 0; i < listing->count; i++) {
        const char *problem = hostile(listing->files[i].path);
        if (problem)
            return refuse_name(listing->files[i].path, problem, err);
    }
    return BNT_OK;
}

enum bnt_status bnt_fetch_select(struct bnt_fetch_listing *listing, const char *const *patterns,
                                 size_t count, struct bnt_error *err)
{
    enum bnt_status status = bnt_fetch_check_names(listing, err);
    if (status == BNT_OK)
        status = check_patterns(listing, patterns, count, err);
    size_t kept = 0;
    for (size_t i = 0; i < listing->count; i++) {
        struct bnt_fetch_file file = listing->files[i];
        bool wanted = bnt_fetch_wanted(file.path, patterns, count);
        const char *problem = wanted ? bnt_fetch_name_problem(file.path) : NULL;
        if (status == BNT_OK && problem)
            status = refuse_name(file.path, problem, err);
        if (wanted)
            listing->files[kept++] = file;
        else
            free(file.path);
    }
    listing->count = kept;
    if (status == BNT_OK && kept == 0)
        return bnt_fail(err, BNT_ERR_IO, "no file matches %s",
                        count ? "--include" : "what a conversion needs; use --include");
    return status;
}

// --- what a conversion reads ---

// The first file that matches one of the patterns, or NULL.
static const char *find_like(const struct bnt_fetch_listing *listing, const char *const *patterns,
                             size_t count)
{
    for (size_t p = 0; p < count; p++) {
        for (size_t i = 0; i < listing->count; i++) {
            if (fnmatch(patterns[p], listing->files[i].path, FNM_NOESCAPE) == 0)
                return listing->files[i].path;
        }
    }
    return NULL;
}

static enum bnt_status no_weights(const struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    static const char *const other[] = {any_weights, "*.bin",  "*.gguf", "*.pt",
                                        "*.pth",     "*.ckpt", "*.h5",   "*.msgpack",
                                        "*.npz",     "*.onnx", "*.bnt"};
    const char *found = find_like(listing, other, sizeof other / sizeof other[0]);
    return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                    "no weights that bnt reads (" SINGLE ", or shards with " BNT_FETCH_INDEX
                    ")%s%.100s%s: look for a safetensors revision or copy of it; --include fetches "
                    "any file",
                    found ? "; it has " : "", found ? found : "", found ? " instead" : "");
}

static enum bnt_status no_tokenizer(const struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    static const char *const other[] = {"tokenizer.model", "*.model", "vocab.json", "*.tiktoken"};
    const char *found = find_like(listing, other, sizeof other / sizeof other[0]);
    return bnt_fail(
        err, BNT_ERR_UNSUPPORTED,
        "no tokenizer.json, which bnt-pack needs%s%.100s%s: make one with transformers' "
        "AutoTokenizer and save_pretrained; --include fetches any file",
        found ? "; it has " : "", found ? found : "", found ? " instead" : "");
}

enum bnt_status bnt_fetch_check_model(const struct bnt_fetch_listing *listing,
                                      struct bnt_error *err)
{
    if (!bnt_fetch_listing_find(listing, SINGLE) &&
        !bnt_fetch_listing_find(listing, BNT_FETCH_INDEX))
        return no_weights(listing, err);
    if (!bnt_fetch_listing_find(listing, "config.json"))
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        "no config.json, which bnt-convert needs; --include fetches any file");
    return bnt_fetch_listing_find(listing, "tokenizer.json") ? BNT_OK : no_tokenizer(listing, err);
}

const struct bnt_fetch_file *bnt_fetch_deciding_index(const struct bnt_fetch_listing *listing)
{
    return bnt_fetch_listing_find(listing, SINGLE)
               ? NULL
               : bnt_fetch_listing_find(listing, BNT_FETCH_INDEX);
}

static bool is_weight(const char *path)
{
    return matches(any_weights, path) || strcmp(path, BNT_FETCH_INDEX) == 0;
}

// The shards as the keys of a new object.
static enum bnt_status read_shards(const struct bnt_fetch_listing *listing, const json_t *map,
                                   json_t *shards, struct bnt_error *err)
{
    const char *tensor;
    json_t *value;
    if (json_object_size(map) == 0)
        return bnt_fail(err, BNT_ERR_FORMAT, BNT_FETCH_INDEX ": has no weight_map");
    json_object_foreach((json_t *)map, tensor, value)
    {
        const char *shard = json_string_value(value);
        if (shard && json_object_get(shards, shard))
            continue;
        if (!shard || !bnt_fetch_listing_find(listing, shard))
            return bnt_fail(err, BNT_ERR_FORMAT,
                            BNT_FETCH_INDEX ": tensor %.100s: the file '%.150s' is not there",
                            tensor, shard ? shard : "");
        if (json_object_set_new(shards, shard, json_true()) != 0)
            return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    }
    return BNT_OK;
}

static void drop_weights_but(struct bnt_fetch_listing *listing, const json_t *shards)
{
    size_t kept = 0;
    for (size_t i = 0; i < listing->count; i++) {
        struct bnt_fetch_file file = listing->files[i];
        if (is_weight(file.path) && !json_object_get(shards, file.path))
            free(file.path);
        else
            listing->files[kept++] = file;
    }
    listing->count = kept;
}

enum bnt_status bnt_fetch_keep_weights(struct bnt_fetch_listing *listing, const char *index,
                                       size_t size, struct bnt_error *err)
{
    json_t *shards = json_object();
    json_t *json = NULL;
    enum bnt_status status = shards ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (status == BNT_OK && !index && !bnt_fetch_listing_find(listing, SINGLE))
        status = bnt_fail(err, BNT_ERR_IO, "no file '" SINGLE "' at this revision");
    if (status == BNT_OK && index) {
        status = bnt_json_parse(index, size, BNT_FETCH_INDEX, &json, err);
        if (status == BNT_OK)
            status = read_shards(listing, bnt_json_get(json, "weight_map"), shards, err);
    }
    if (status == BNT_OK &&
        json_object_set_new(shards, index ? BNT_FETCH_INDEX : SINGLE, json_true()) != 0)
        status = bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (status == BNT_OK)
        drop_weights_but(listing, shards);
    json_decref(json);
    json_decref(shards);
    return status;
}
