// SPDX-License-Identifier: MIT
#include "pack/tokenizer_builder.h"

#include <string.h>

#include "formats/json.h"
#include "pack/pattern.h"

// --- pre-tokenizer ---

static enum bnt_status add_step(struct tokenizer_builder *b, uint8_t behavior, bool invert,
                                const char *pattern, size_t size, bool literal)
{
    struct bnt_step_record step = {.type = BNT_STEP_SPLIT, .behavior = behavior, .invert = invert};
    size_t start = b->pool.size;
    enum bnt_status status = BNT_OK;
    if (literal)
        bnt_pattern_quote(pattern, size, &b->pool);
    else
        status = bnt_pattern_translate(pattern, size, &b->pool, b->err);
    if (status == BNT_OK && b->pool.failed)
        return bnt_builder_no_memory(b);
    if (status == BNT_OK)
        status = bnt_pattern_check(b->pool.data + start, b->pool.size - start, b->err);
    if (status != BNT_OK) {
        bnt_fail_prefix(b->err, "tokenizer.json");
        return status;
    }
    step.offset = (uint32_t)start;
    step.size = (uint32_t)(b->pool.size - start);
    bnt_buffer_put(&b->steps, &step, sizeof step);
    b->record.n_steps++;
    return BNT_OK;
}

static enum bnt_status add_regex(struct tokenizer_builder *b, uint8_t behavior, const char *pattern)
{
    return add_step(b, behavior, false, pattern, strlen(pattern), false);
}

static bool find_behavior(const char *name, uint8_t *behavior)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            *behavior = (uint8_t)i; // as enum bnt_split_behavior has them
            return true;
        }
    }
    return false;
}

static enum bnt_status add_split(struct tokenizer_builder *b, const json_t *step)
{
    uint8_t behavior;
    const char *name = bnt_json_text(step, "behavior", "");
    if (!find_behavior(name, &behavior))
        return bnt_builder_refuse(b, "split behavior", name);
    const json_t *pattern = json_object_get(step, "pattern");
    const json_t *regex = bnt_json_get(pattern, "Regex");
    const json_t *text = regex ? regex : bnt_json_get(pattern, "String");
    if (json_string_length(text) == 0)
        return bnt_builder_bad(b, "a Split has no pattern");
    return add_step(b, behavior, bnt_json_true(step, "invert"), json_string_value(text),
                    json_string_length(text), !regex);
}

static enum bnt_status add_byte_level(struct tokenizer_builder *b, const json_t *step)
{
    // The words of GPT-2; ByteLevel splits by them unless told not to.
    static const char words[] =
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    const json_t *prefix = json_object_get(step, "add_prefix_space");
    b->byte_level = true;
    if (!prefix || json_is_true(prefix)) {
        const struct bnt_step_record space = {.type = BNT_STEP_PREFIX_SPACE};
        bnt_buffer_put(&b->steps, &space, sizeof space);
        b->record.n_steps++;
    }
    const json_t *use_regex = json_object_get(step, "use_regex");
    return !use_regex || json_is_true(use_regex) ? add_regex(b, BNT_SPLIT_ISOLATED, words) : BNT_OK;
}

static enum bnt_status add_punctuation(struct tokenizer_builder *b, const json_t *step)
{
    uint8_t behavior;
    const char *name = bnt_json_text(step, "behavior", "Isolated");
    if (!find_behavior(name, &behavior))
        return bnt_builder_refuse(b, "Punctuation behavior", name);
    return add_regex(
        b, behavior,
        "[\\p{P}$+<=>^`|~]"); // ASCII punctuation that Unicode calls symbols counts too
}

static enum bnt_status add_pre_tokenizer(struct tokenizer_builder *b, const json_t *step);

static enum bnt_status add_sequence(struct tokenizer_builder *b, const json_t *sequence)
{
    size_t i;
    json_t *step;
    json_array_foreach(json_object_get(sequence, "pretokenizers"), i, step)
    {
        const char *type = bnt_json_text(step, "type", "?");
        if (strcmp(type, "Sequence") == 0)
            return bnt_builder_refuse(b, "pre-tokenizer inside a Sequence", type);
        if (b->byte_level)
            return bnt_builder_refuse(b, "pre-tokenizer after ByteLevel", type);
        enum bnt_status status = add_pre_tokenizer(b, step);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

static enum bnt_status add_pre_tokenizer(struct tokenizer_builder *b, const json_t *step)
{
    const char *type = bnt_json_text(step, "type", "(none)");
    if (strcmp(type, "Sequence") == 0)
        return add_sequence(b, step);
    if (strcmp(type, "Split") == 0)
        return add_split(b, step);
    if (strcmp(type, "ByteLevel") == 0)
        return add_byte_level(b, step);
    if (strcmp(type, "Digits") == 0)
        return add_regex(
            b, bnt_json_true(step, "individual_digits") ? BNT_SPLIT_ISOLATED : BNT_SPLIT_CONTIGUOUS,
            "\\p{N}");
    if (strcmp(type, "Punctuation") == 0)
        return add_punctuation(b, step);
    return bnt_builder_refuse(b, "pre-tokenizer", type);
}

static enum bnt_status add_steps(struct tokenizer_builder *b)
{
    enum bnt_status status = add_pre_tokenizer(b, bnt_json_get(b->json, "pre_tokenizer"));
    if (status == BNT_OK && !b->byte_level)
        return bnt_builder_refuse(b, "pre-tokenizer without", "ByteLevel");
    const char *decoder = bnt_json_text(bnt_json_get(b->json, "decoder"), "type", "(none)");
    return status == BNT_OK && strcmp(decoder, "ByteLevel") != 0
               ? bnt_builder_refuse(b, "decoder", decoder)
               : status;
}

// --- post-processor ---

static enum bnt_status put_special(struct tokenizer_builder *b, const json_t *processor,
                                   const char *name, struct bnt_buffer *out, uint32_t *count)
{
    const json_t *special = json_object_get(json_object_get(processor, "special_tokens"), name);
    const json_t *ids = json_object_get(special, "ids");
    size_t i;
    json_t *id;
    if (json_array_size(ids) == 0)
        return bnt_builder_bad(b, "the template names a special token that it does not define");
    json_array_foreach((json_t *)ids, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= b->record.n_tokens)
            return bnt_builder_bad(b, "the template's special token has an id that is no token");
        uint32_t value = (uint32_t)json_integer_value(id);
        bnt_buffer_put(out, &value, sizeof value);
        *count += 1;
    }
    return BNT_OK;
}

static enum bnt_status add_template(struct tokenizer_builder *b, const json_t *processor)
{
    size_t i;
    json_t *piece;
    bool after = false; // the text itself has come
    json_array_foreach(json_object_get(processor, "single"), i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken");
        if (!special) {
            if (after || !json_object_get(piece, "Sequence"))
                return bnt_builder_bad(b, "the template must hold the text once");
            after = true;
            continue;
        }
        enum bnt_status status = put_special(b, processor, bnt_json_text(special, "id", ""),
                                             after ? &b->suffix : &b->prefix,
                                             after ? &b->record.n_suffix : &b->record.n_prefix);
        if (status != BNT_OK)
            return status;
    }
    return after ? BNT_OK : bnt_builder_bad(b, "the template must hold the text once");
}

static enum bnt_status add_post_processor(struct tokenizer_builder *b, const json_t *processor)
{
    const char *type = bnt_json_text(processor, "type", "ByteLevel");
    if (strcmp(type, "ByteLevel") == 0) // trims offsets, which we do not report
        return BNT_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return b->record.n_prefix || b->record.n_suffix ? bnt_builder_bad(b, "two templates")
                                                        : add_template(b, processor);
    if (strcmp(type, "Sequence") != 0)
        return bnt_builder_refuse(b, "post-processor", type);
    size_t i;
    json_t *inner;
    json_array_foreach(json_object_get(processor, "processors"), i, inner)
    {
        if (strcmp(bnt_json_text(inner, "type", ""), "Sequence") == 0)
            return bnt_builder_refuse(b, "post-processor inside a Sequence", "Sequence");
        enum bnt_status status = add_post_processor(b, inner);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

enum bnt_status bnt_builder_add_steps(struct tokenizer_builder *b)
{
    enum bnt_status status = add_steps(b);
    return status == BNT_OK ? add_post_processor(b, bnt_json_get(b->json, "post_processor"))
                            : status;
}
