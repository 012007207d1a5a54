// SPDX-License-Identifier: MIT
#include "formats/pooling.h"

#include <stdio.h>
#include <string.h>

#include "formats/json.h"
#include "formats/path.h"
#include "formats/text.h"

#define CONFIG_NAME "/config.json"

// --- modules.json ---

// The class of a module of the library's own, such as "Pooling", wherever it has lain in its
// versions; NULL for a stranger's.
static const char *class_of(const char *type)
{
    const char *dot = strrchr(type, '.');
    return bnt_starts_with(type, "sentence_transformers.") && dot[1] ? dot + 1 : NULL;
}

static enum bnt_status set_pooling_file(struct bnt_modules *modules, const char *folder,
                                        struct bnt_error *err)
{
    const char *problem = bnt_path_problem(folder);
    if (!problem && strlen(folder) + sizeof CONFIG_NAME > sizeof modules->pooling_file)
        problem = "it is too long";
    if (problem)
        return bnt_fail(err, BNT_ERR_FORMAT, BNT_MODULES ": refused the path '%.100s': %s", folder,
                        problem);
    (void)snprintf(modules->pooling_file, sizeof modules->pooling_file, "%s" CONFIG_NAME, folder);
    return BNT_OK;
}

static enum bnt_status add_module(struct bnt_modules *modules, size_t i, const json_t *module,
                                  struct bnt_error *err)
{
    static const char *const expected[] = {"Transformer", "Pooling", "Normalize"};
    const json_t *type = bnt_json_get(module, "type"), *path = bnt_json_get(module, "path");
    if (!bnt_json_is_text(type) || (path && !bnt_json_is_text(path)))
        return bnt_fail(err, BNT_ERR_FORMAT,
                        BNT_MODULES ": module %zu: type and path must be texts", i);
    const char *class = class_of(json_string_value(type)),
               *folder = bnt_json_text(module, "path", "");
    if (i >= sizeof expected / sizeof expected[0] || !class || strcmp(class, expected[i]) != 0)
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        BNT_MODULES ": module %zu is %.150s, which is not supported (known: a "
                                    "Transformer, a Pooling, and perhaps a Normalize)",
                        i, json_string_value(type));
    if (i == 0 && folder[0] != '\0')
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        BNT_MODULES ": the Transformer must lie in the same folder, not in %.100s",
                        folder);
    modules->normalized = i == 2;
    return i == 1 ? set_pooling_file(modules, folder, err) : BNT_OK;
}

enum bnt_status bnt_modules_parse(struct bnt_modules *modules, const char *text, size_t size,
                                  struct bnt_error *err)
{
    json_t *list = NULL;
    *modules = (struct bnt_modules){0};
    enum bnt_status status = bnt_json_parse_array(text, size, BNT_MODULES, &list, err);
    for (size_t i = 0; i < json_array_size(list) && status == BNT_OK; i++)
        status = add_module(modules, i, json_array_get(list, i), err);
    json_decref(list);
    if (status == BNT_OK && !modules->pooling_file[0])
        status = bnt_fail(err, BNT_ERR_UNSUPPORTED,
                          BNT_MODULES ": without a Pooling no text becomes a vector");
    return status;
}

// --- the Pooling's config ---

// In the library's order. Those without a pooling are known by name, to be refused.
static const struct mode {
    const char *name;
    const char *old_key; // of older files: true or false
    enum bnt_pooling pooling;
} modes[] = {
    {"cls", "pooling_mode_cls_token", BNT_POOLING_FIRST},
    {"max", "pooling_mode_max_tokens", BNT_POOLING_NONE},
    {"mean", "pooling_mode_mean_tokens", BNT_POOLING_MEAN},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", BNT_POOLING_NONE},
    {"weightedmean", "pooling_mode_weightedmean_tokens", BNT_POOLING_NONE},
    {"lasttoken", "pooling_mode_lasttoken", BNT_POOLING_LAST},
};
enum { MODES = sizeof modes / sizeof modes[0] };

static const char *name_of(const json_t *mode)
{
    if (json_is_array(mode) && json_array_size(mode) == 1) // of several the vectors are joined
        mode = json_array_get(mode, 0);
    if (json_is_array(mode))
        return "several";
    return bnt_json_is_text(mode) ? json_string_value(mode) : "?";
}

// The name of the one mode; where older files say nothing, the library takes the mean.
static const char *find_mode(const json_t *config)
{
    const json_t *mode = bnt_json_get(config, "pooling_mode");
    const char *found = NULL;
    if (mode)
        return name_of(mode);
    for (size_t i = 0; i < MODES; i++) {
        if (bnt_json_true(config, modes[i].old_key))
            found = found ? "several" : modes[i].name;
    }
    return found ? found : "mean";
}

static enum bnt_status set_pooling(struct bnt_hyper *hyper, const char *file, const json_t *config,
                                   struct bnt_error *err)
{
    const char *name = find_mode(config);
    hyper->pooling = BNT_POOLING_NONE;
    for (size_t i = 0; i < MODES; i++) {
        if (strcmp(modes[i].name, name) == 0)
            hyper->pooling = modes[i].pooling;
    }
    if (hyper->pooling != BNT_POOLING_NONE)
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                    "%s: pooling mode \"%.100s\" is not supported (known: lasttoken, mean, cls)",
                    file, name);
}

enum bnt_status bnt_pooling_parse(const struct bnt_modules *modules, const char *text, size_t size,
                                  struct bnt_hyper *hyper, struct bnt_error *err)
{
    const char *file = modules->pooling_file;
    json_t *config = NULL;
    if (!text)
        return bnt_fail(err, BNT_ERR_FORMAT, BNT_MODULES ": names %s, which is not there", file);
    enum bnt_status status = bnt_json_parse(text, size, file, &config, err);
    if (status == BNT_OK)
        status = set_pooling(hyper, file, config, err);
    if (status == BNT_OK && modules->normalized)
        hyper->flags |= BNT_HYPER_NORMALIZED;
    json_decref(config);
    return status;
}
