// SPDX-License-Identifier: MIT
#include "formats/config_modules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/regex.h"
#include "formats/text.h"

// Of a hostile config: entries times matrices, and steps of one match. Honest ones need far less.
enum { MAX_MATCHES = 1 << 20, MAX_STEPS = 1000 };

struct checker {
    const struct bnt_config *config;
    const char *name;
    uint32_t matches;
    struct bnt_error *err;
};

static enum bnt_status refuse(struct checker *c, const char *entry, const char *why)
{
    return bnt_fail(c->err, BNT_ERR_UNSUPPORTED, "%s: modules_to_not_convert: \"%.100s\" %s",
                    c->name, entry, why);
}

// transformers' rule: a regular expression from the beginning to the end of a part, or an ending.
static pcre2_code *compile_entry(const char *entry, struct bnt_error *err)
{
    size_t size = strlen(entry) + 40;
    char *pattern = malloc(size);
    if (!pattern)
        return NULL;
    int length = snprintf(pattern, size, "\\A(?:%s)(?:(?<=\\.)|(?=\\.|$))", entry);
    pcre2_code *code = bnt_regex_compile((const uint8_t *)pattern, (size_t)length, err);
    free(pattern);
    return code;
}

// The entry against every ternary matrix.
static enum bnt_status check_matrices(struct checker *c, const char *entry, const pcre2_code *code,
                                      pcre2_match_data *data, pcre2_match_context *limits)
{
    static const size_t suffix = sizeof ".weight" - 1;
    struct bnt_layout_walk walk = bnt_layout_walk(&c->config->hyper, false);
    struct bnt_tensor_place place;
    while (bnt_layout_next(&walk, &place)) {
        char module[BNT_TENSOR_NAME_SIZE];
        if (place.dtype != BNT_TERNARY)
            continue;
        bnt_arch_tensor_name(c->config->arch, place.role, place.layer, module);
        module[strlen(module) - suffix] = '\0';
        int result = pcre2_match(code, (PCRE2_SPTR)module, strlen(module), 0, 0, data, limits);
        if (result < 0 && result != PCRE2_ERROR_NOMATCH)
            return refuse(c, entry, "is a pattern that takes too long");
        if (result >= 0 || bnt_ends_with(module, entry))
            return refuse(c, entry, "names linear layers, which would not be ternary");
        if (++c->matches == MAX_MATCHES)
            return refuse(c, entry, "is one of too many entries");
    }
    return BNT_OK;
}

static enum bnt_status check_entry(struct checker *c, const char *entry)
{
    struct bnt_error problem;
    pcre2_code *code = compile_entry(entry, &problem);
    if (!code)
        return refuse(c, entry, "is no pattern");
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    enum bnt_status status = BNT_ERR_MEMORY;
    if (data && limits) {
        (void)pcre2_set_match_limit(limits, MAX_STEPS);
        status = check_matrices(c, entry, code, data, limits);
    } else {
        (void)bnt_fail(c->err, status, "%s: out of memory", c->name);
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
    return status;
}

enum bnt_status bnt_config_check_modules(const struct bnt_config *config,
                                         const json_t *quantization, const char *name,
                                         struct bnt_error *err)
{
    struct checker c = {.config = config, .name = name, .err = err};
    const json_t *list = bnt_json_get(quantization, "modules_to_not_convert");
    enum bnt_status status = BNT_OK;
    if (list && !json_is_array(list))
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: modules_to_not_convert must be null or an array",
                        name);
    for (size_t i = 0; i < json_array_size(list) && status == BNT_OK; i++) {
        const json_t *entry = json_array_get(list, i);
        status = bnt_json_is_text(entry) ? check_entry(&c, json_string_value(entry))
                                         : refuse(&c, "(not a text)", "is no module");
    }
    return status;
}
