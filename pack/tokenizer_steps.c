// SPDX-License-Identifier: MIT
#include "pack/tokenizer_builder.h"

#include <string.h>

#include "formats/json.h"
#include "pack/pattern.h"

static bool is_type(const json_t *object, const char *type)
{
    return strcmp(bnt_json_text(object, "type", ""), type) == 0;
}

// --- kind, space mark, decoder ---

// The literal text of {"String": …} in a Replace, or NULL.
static const char *replaced_text(const json_t *replace)
{
    return bnt_json_text(bnt_json_get(replace, "pattern"), "String", NULL);
}

// A Replace of a space by a mark on the way in; by Metaspace too.
static const char *mark_of(const json_t *step)
{
    const char *text = replaced_text(step);
    if (is_type(step, "Metaspace"))
        return bnt_json_text(step, "replacement", "\xE2\x96\x81");
    if (is_type(step, "Replace") && text && strcmp(text, " ") == 0)
        return bnt_json_text(step, "content", NULL);
    return NULL;
}

// Looks at a step, or at each of a Sequence's.
static const char *find_mark(const json_t *step, const char *list)
{
    size_t i;
    json_t *inner;
    const char *mark = mark_of(step);
    json_array_foreach(json_object_get(step, list), i, inner)
    {
        mark = mark ? mark : mark_of(inner);
    }
    return mark;
}

static bool is_strip_one_space(const json_t *decoder)
{
    return is_type(decoder, "Strip") && strcmp(bnt_json_text(decoder, "content", ""), " ") == 0 &&
           json_integer_value(json_object_get(decoder, "start")) == 1 &&
           json_integer_value(json_object_get(decoder, "stop")) == 0;
}

static bool is_mark_to_space(const struct tokenizer_builder *b, const json_t *decoder)
{
    const char *text = replaced_text(decoder);
    return is_type(decoder, "Replace") && text && b->mark && strcmp(text, b->mark) == 0 &&
           strcmp(bnt_json_text(decoder, "content", ""), " ") == 0;
}

// Replace, ByteFallback, Fuse, Strip: what SentencePiece's models have.
static enum bnt_status read_decoder_sequence(struct tokenizer_builder *b, const json_t *decoder)
{
    size_t i;
    json_t *inner;
    bool byte_fallback = false;
    json_array_foreach(json_object_get(decoder, "decoders"), i, inner)
    {
        if (is_mark_to_space(b, inner))
            b->mark_restored = true;
        else if (is_type(inner, "ByteFallback"))
            byte_fallback = true;
        else if (is_strip_one_space(inner))
            b->record.flags |= BNT_TOKENIZER_STRIP_SPACE;
        else if (!is_type(inner, "Fuse"))
            return bnt_builder_refuse(b, "decoder", bnt_json_text(inner, "type", "?"));
    }
    if (byte_fallback != !!(b->record.flags & BNT_TOKENIZER_BYTE_FALLBACK))
        return bnt_builder_bad(b, "the model's byte_fallback and the decoder's do not agree");
    return BNT_OK;
}

static bool puts_prefix(const json_t *metaspace)
{
    const char *scheme = bnt_json_text(metaspace, "prepend_scheme", NULL);
    if (scheme)
        return strcmp(scheme, "never") != 0;
    return !json_is_false(json_object_get(metaspace, "add_prefix_space"));
}

static enum bnt_status read_decoder(struct tokenizer_builder *b, const json_t *decoder)
{
    const char *type = bnt_json_text(decoder, "type", "(none)");
    if (strcmp(type, "Sequence") == 0)
        return read_decoder_sequence(b, decoder);
    if (strcmp(type, "Metaspace") != 0)
        return bnt_builder_refuse(b, "decoder", type);
    if (b->record.flags & BNT_TOKENIZER_BYTE_FALLBACK)
        return bnt_builder_refuse(b, "byte_fallback with decoder", type);
    b->mark_restored = b->mark && strcmp(mark_of(decoder), b->mark) == 0;
    if (puts_prefix(decoder))
        b->record.flags |= BNT_TOKENIZER_STRIP_FIRST;
    return BNT_OK;
}

enum bnt_status bnt_builder_find_kind(struct tokenizer_builder *b)
{
    const json_t *decoder = bnt_json_get(b->json, "decoder");
    b->record.kind = BNT_TOKENIZER_BYTE_BPE;
    if (is_type(decoder, "ByteLevel"))
        return b->record.flags & BNT_TOKENIZER_BYTE_FALLBACK
                   ? bnt_builder_refuse(b, "byte_fallback with decoder", "ByteLevel")
                   : BNT_OK;
    b->record.kind = BNT_TOKENIZER_CHARACTER_BPE;
    b->mark = find_mark(bnt_json_get(b->json, "normalizer"), "normalizers");
    if (!b->mark)
        b->mark = find_mark(bnt_json_get(b->json, "pre_tokenizer"), "pretokenizers");
    if (b->mark && (!*b->mark || strcmp(b->mark, " ") == 0))
        return bnt_builder_bad(b, "the mark for spaces is empty or a space");
    enum bnt_status status = read_decoder(b, decoder);
    if (status == BNT_OK && !!b->mark != b->mark_restored)
        return bnt_builder_bad(b, "the decoder does not undo what spaces are replaced by");
    return status;
}

// --- steps ---

static enum bnt_status put_step(struct tokenizer_builder *b, struct bnt_step_record step)
{
    bnt_buffer_put(&b->steps, &step, sizeof step);
    b->record.n_steps++;
    return b->steps.failed || b->step_texts.failed ? bnt_builder_no_memory(b) : BNT_OK;
}

// A step with a text as it is. replacement: NULL but for BNT_STEP_REPLACE.
static enum bnt_status add_text_step(struct tokenizer_builder *b, enum bnt_step_type type,
                                     uint8_t behavior, const char *text, const char *replacement)
{
    struct bnt_step_record step = {.type = (uint8_t)type, .behavior = behavior};
    step.offset = (uint32_t)b->step_texts.size;
    bnt_buffer_put(&b->step_texts, text, strlen(text));
    step.size = (uint32_t)b->step_texts.size - step.offset;
    if (replacement)
        bnt_buffer_put(&b->step_texts, replacement, strlen(replacement));
    step.extra = (uint32_t)b->step_texts.size - step.offset - step.size;
    return put_step(b, step);
}

// The step that makes the mark, where it stands in the input, what a space is: the original turns
// spaces into marks.
static enum bnt_status add_mark_step(struct tokenizer_builder *b)
{
    return add_text_step(b, BNT_STEP_REPLACE, 0, b->mark, " ");
}

// A copy with the space mark replaced, zero-terminated, or NULL with the status set.
static char *unmarked(struct tokenizer_builder *b, const char *text, struct bnt_buffer *buffer)
{
    bnt_builder_put_text(b, text, strlen(text), buffer);
    bnt_buffer_put(buffer, "", 1);
    return buffer->failed ? NULL : (char *)buffer->data;
}

// --- normalizer ---

static enum bnt_status add_replace(struct tokenizer_builder *b, const json_t *step)
{
    struct bnt_buffer from = {0}, to = {0};
    const char *text = replaced_text(step);
    const char *content = bnt_json_text(step, "content", NULL);
    enum bnt_status status;
    if (!text || !*text || !content)
        return bnt_builder_refuse(b, "Replace by a pattern", "Regex");
    if (b->mark && strcmp(text, " ") == 0 && strcmp(content, b->mark) == 0)
        return add_mark_step(b);
    text = unmarked(b, text, &from);
    content = unmarked(b, content, &to);
    status = text && content ? add_text_step(b, BNT_STEP_REPLACE, 0, text, content)
                             : bnt_builder_no_memory(b);
    bnt_buffer_free(&from);
    bnt_buffer_free(&to);
    return status;
}

static enum bnt_status add_prepend(struct tokenizer_builder *b, const json_t *step)
{
    struct bnt_buffer copy = {0};
    const char *text = bnt_json_text(step, "prepend", "");
    if (!*text)
        return bnt_builder_bad(b, "a Prepend has no text");
    text = unmarked(b, text, &copy);
    enum bnt_status status =
        text ? add_text_step(b, BNT_STEP_PREPEND, 0, text, NULL) : bnt_builder_no_memory(b);
    bnt_buffer_free(&copy);
    return status;
}

static enum bnt_status add_normalizer(struct tokenizer_builder *b, const json_t *step)
{
    const char *type = bnt_json_text(step, "type", "?");
    if (strcmp(type, "Prepend") == 0)
        return add_prepend(b, step);
    if (strcmp(type, "Replace") == 0)
        return add_replace(b, step);
    if (strcmp(type, "NFC") == 0)
        return put_step(b, (struct bnt_step_record){.type = BNT_STEP_NFC});
    return bnt_builder_refuse(b, "normalizer", type);
}

enum bnt_status bnt_builder_add_normalizers(struct tokenizer_builder *b)
{
    const json_t *normalizer = bnt_json_get(b->json, "normalizer");
    size_t i;
    json_t *step;
    enum bnt_status status = BNT_OK;
    if (normalizer && !is_type(normalizer, "Sequence"))
        status = add_normalizer(b, normalizer);
    json_array_foreach(json_object_get(normalizer, "normalizers"), i, step)
    {
        if (status == BNT_OK)
            status = add_normalizer(b, step);
    }
    b->record.n_normalizers = b->record.n_steps;
    return status;
}

// --- pre-tokenizer ---

static enum bnt_status add_step(struct tokenizer_builder *b, uint8_t behavior, bool invert,
                                const char *pattern, size_t size, bool literal)
{
    struct bnt_step_record step = {.type = BNT_STEP_SPLIT, .behavior = behavior, .invert = invert};
    struct bnt_buffer *texts = &b->step_texts;
    size_t start = texts->size;
    enum bnt_status status = BNT_OK;
    if (literal)
        bnt_pattern_quote(pattern, size, texts);
    else
        status = bnt_pattern_translate(pattern, size, texts, b->err);
    if (status == BNT_OK && texts->failed)
        return bnt_builder_no_memory(b);
    if (status == BNT_OK)
        status = bnt_pattern_check(texts->data + start, texts->size - start, b->err);
    if (status != BNT_OK) {
        bnt_fail_prefix(b->err, "tokenizer.json");
        return status;
    }
    step.offset = (uint32_t)start;
    step.size = (uint32_t)(texts->size - start);
    return put_step(b, step);
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
    enum bnt_status status = BNT_OK;
    b->byte_level = true;
    if (b->record.kind != BNT_TOKENIZER_BYTE_BPE)
        return bnt_builder_refuse(b, "pre-tokenizer ByteLevel without decoder", "ByteLevel");
    if (!prefix || json_is_true(prefix))
        status = add_text_step(b, BNT_STEP_PREFIX, 0, " ", NULL);
    if (status != BNT_OK)
        return status;
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

// Spaces become marks, the first piece or every piece begins with one, and pieces begin at marks.
static enum bnt_status add_metaspace(struct tokenizer_builder *b, const json_t *step)
{
    const char *scheme =
        bnt_json_text(step, "prepend_scheme", puts_prefix(step) ? "always" : "never");
    if (!b->mark || strcmp(mark_of(step), b->mark) != 0)
        return bnt_builder_bad(b, "two marks for spaces");
    enum bnt_status status = add_mark_step(b);
    if (status == BNT_OK && strcmp(scheme, "never") != 0)
        status = add_text_step(b, BNT_STEP_PREFIX, strcmp(scheme, "first") == 0, " ", NULL);
    if (status == BNT_OK && !json_is_false(json_object_get(step, "split")))
        status = add_step(b, BNT_SPLIT_MERGED_WITH_NEXT, false, " ", 1, true);
    return status;
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
    if (strcmp(type, "Metaspace") == 0)
        return add_metaspace(b, step);
    return bnt_builder_refuse(b, "pre-tokenizer", type);
}

static enum bnt_status add_steps(struct tokenizer_builder *b)
{
    const json_t *step = bnt_json_get(b->json, "pre_tokenizer");
    bool characters = b->record.kind == BNT_TOKENIZER_CHARACTER_BPE;
    enum bnt_status status = BNT_OK;
    if (step || !characters) // SentencePiece's whole text is one piece
        status = add_pre_tokenizer(b, step);
    if (status == BNT_OK && !characters && !b->byte_level)
        return bnt_builder_refuse(b, "decoder ByteLevel without pre-tokenizer", "ByteLevel");
    return status;
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
