// SPDX-License-Identifier: MIT
#include "convert/fetch_plan.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "convert/fetch_url.h"

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
    listing->count++;
    return BNT_OK;
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

// What bnt-convert and bnt-pack read, the weights, and what a reader wants to know of the origin.
static const char *const needed[] = {
    "config.json",       "generation_config.json", "*.safetensors",      "*.safetensors.index.json",
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

enum bnt_status bnt_fetch_select(struct bnt_fetch_listing *listing, const char *const *patterns,
                                 size_t count, struct bnt_error *err)
{
    enum bnt_status status = check_patterns(listing, patterns, count, err);
    size_t kept = 0;
    for (size_t i = 0; i < listing->count; i++) {
        struct bnt_fetch_file file = listing->files[i];
        bool wanted = bnt_fetch_wanted(file.path, patterns, count);
        const char *problem = wanted ? bnt_fetch_name_problem(file.path) : hostile(file.path);
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
