// SPDX-License-Identifier: MIT
#include "pack/tokenizer_builder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/json.h"
#include "formats/unicode.h"
#include "formats/utf8.h"
#include "pack/pattern.h"
#include "pack/pattern_scan.h"

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

// The pattern of {"Regex": …} in a Replace, or NULL.
static const char *replaced_pattern(const json_t *replace)
{
    return bnt_json_text(bnt_json_get(replace, "pattern"), "Regex", NULL);
}

// A Replace of a space by a mark on the way in; by Metaspace too.
static const char *mark_of(const json_t *step)
{
    const char *text = replaced_text(step);
    if (!text)
        text = replaced_pattern(step);
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
        mark = mark ? mark : find_mark(inner, list);
    }
    return mark;
}

// A mark of several characters could not be told from its parts in the text.
static bool is_one_character(const char *text)
{
    return bnt_utf8_next((const uint8_t *)text, strlen(text), NULL) == (int)strlen(text);
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
    if (b->mark && !is_one_character(b->mark))
        return bnt_builder_refuse(b, "a mark for spaces of several characters,", b->mark);
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
    b->marked = true;
    return add_text_step(b, BNT_STEP_REPLACE, 0, b->mark, " ");
}

// A copy of a text that a step has, as it stands in the section, zero-terminated: behind the step
// that makes marks, these are spaces. NULL: out of memory.
static char *own_text(struct tokenizer_builder *b, const char *text, struct bnt_buffer *buffer)
{
    if (b->marked)
        bnt_builder_put_text(b, text, strlen(text), buffer);
    else
        bnt_buffer_put(buffer, text, strlen(text));
    bnt_buffer_put(buffer, "", 1);
    return buffer->failed ? NULL : (char *)buffer->data;
}

// A step behind the marks that makes spaces again: they could not be told from marks.
static enum bnt_status refuse_spaces(struct tokenizer_builder *b, const char *text)
{
    return b->marked && strchr(text, ' ')
               ? bnt_builder_refuse(b, "a space that is made after spaces became marks,", text)
               : BNT_OK;
}

// A pattern on marked text is understood for SentencePiece's mark alone.
static enum bnt_status check_mark_of_pattern(struct tokenizer_builder *b, const char *pattern)
{
    return b->marked && strcmp(b->mark, "\xE2\x96\x81") != 0
               ? bnt_builder_refuse(b, "with this mark for spaces, the pattern", pattern)
               : BNT_OK;
}

// Appends a pattern, translated, to the steps' texts. matches_empty: see bnt_pattern_check.
static enum bnt_status put_pattern(struct tokenizer_builder *b, const char *pattern, size_t size,
                                   bool *matches_empty)
{
    struct bnt_buffer *texts = &b->step_texts;
    const size_t start = texts->size;
    enum bnt_status status = check_mark_of_pattern(b, pattern);
    if (status != BNT_OK)
        return status;
    status = bnt_pattern_translate(pattern, size, b->marked, texts, b->err);
    if (status == BNT_OK && texts->failed)
        return bnt_builder_no_memory(b);
    if (status == BNT_OK)
        status = bnt_pattern_check(texts->data + start, texts->size - start, matches_empty, b->err);
    if (status != BNT_OK)
        bnt_fail_prefix(b->err, "tokenizer.json");
    return status;
}

// --- normalizer ---

static enum bnt_status add_replace_pattern(struct tokenizer_builder *b, const char *pattern,
                                           const char *content)
{
    struct bnt_step_record step = {.type = BNT_STEP_REPLACE_PATTERN,
                                   .offset = (uint32_t)b->step_texts.size};
    struct bnt_buffer to = {0};
    bool matches_empty = false;
    enum bnt_status status = put_pattern(b, pattern, strlen(pattern), &matches_empty);
    if (status != BNT_OK)
        return status;
    if (matches_empty)
        return bnt_builder_refuse(b, "Replace by a pattern that can match nothing,", pattern);
    step.size = (uint32_t)b->step_texts.size - step.offset;
    content = own_text(b, content, &to);
    if (content)
        bnt_buffer_put(&b->step_texts, content, strlen(content));
    bnt_buffer_free(&to);
    if (!content)
        return bnt_builder_no_memory(b);
    step.extra = (uint32_t)b->step_texts.size - step.offset - step.size;
    return put_step(b, step);
}

static enum bnt_status add_replace_text(struct tokenizer_builder *b, const char *text,
                                        const char *content)
{
    struct bnt_buffer from = {0}, to = {0};
    text = own_text(b, text, &from);
    content = own_text(b, content, &to);
    enum bnt_status status = text && content ? add_text_step(b, BNT_STEP_REPLACE, 0, text, content)
                                             : bnt_builder_no_memory(b);
    bnt_buffer_free(&from);
    bnt_buffer_free(&to);
    return status;
}

static enum bnt_status add_replace(struct tokenizer_builder *b, const json_t *step)
{
    const char *text = replaced_text(step), *pattern = replaced_pattern(step);
    const char *content = bnt_json_text(step, "content", NULL);
    const char *mark = mark_of(step);
    if (!content || (text ? !*text : !pattern || !*pattern))
        return bnt_builder_bad(b, "a Replace has no pattern or content");
    if (b->mark && mark && !b->marked && strcmp(mark, b->mark) == 0)
        return add_mark_step(b);
    if (b->marked && text && strchr(text, ' '))
        return BNT_OK; // there is none any more
    enum bnt_status status = refuse_spaces(b, content);
    if (status != BNT_OK)
        return status;
    return text ? add_replace_text(b, text, content) : add_replace_pattern(b, pattern, content);
}

static enum bnt_status add_prepend(struct tokenizer_builder *b, const json_t *step)
{
    struct bnt_buffer copy = {0};
    const char *text = bnt_json_text(step, "prepend", "");
    if (!*text)
        return bnt_builder_bad(b, "a Prepend has no text");
    enum bnt_status status = refuse_spaces(b, text);
    if (status != BNT_OK)
        return status;
    text = own_text(b, text, &copy);
    status = text ? add_text_step(b, BNT_STEP_PREPEND, 0, text, NULL) : bnt_builder_no_memory(b);
    bnt_buffer_free(&copy);
    return status;
}

static enum bnt_status add_normalizer(struct tokenizer_builder *b, const json_t *step);

static enum bnt_status add_normalizer_sequence(struct tokenizer_builder *b, const json_t *sequence)
{
    size_t i;
    json_t *step;
    json_array_foreach(json_object_get(sequence, "normalizers"), i, step)
    {
        enum bnt_status status = add_normalizer(b, step);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

static enum bnt_status add_normalizer(struct tokenizer_builder *b, const json_t *step)
{
    static const struct {
        const char *type;
        enum bnt_step_type step;
        bool makes_spaces; // of other characters
    } plain[] = {
        {"NFC", BNT_STEP_NFC, false},
        {"NFD", BNT_STEP_NFD, false},
        {"NFKC", BNT_STEP_NFKC, true},
        {"NFKD", BNT_STEP_NFKD, true},
        {"Lowercase", BNT_STEP_LOWERCASE, false},
    };
    const char *type = bnt_json_text(step, "type", "?");
    if (strcmp(type, "Sequence") == 0)
        return add_normalizer_sequence(b, step);
    if (strcmp(type, "Prepend") == 0)
        return add_prepend(b, step);
    if (strcmp(type, "Replace") == 0)
        return add_replace(b, step);
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (strcmp(type, plain[i].type) != 0)
            continue;
        if (plain[i].makes_spaces && b->marked)
            return bnt_builder_refuse(b, "after spaces became marks, normalizer", type);
        return put_step(b, (struct bnt_step_record){.type = (uint8_t)plain[i].step});
    }
    return bnt_builder_refuse(b, "normalizer", type);
}

enum bnt_status bnt_builder_add_normalizers(struct tokenizer_builder *b)
{
    const json_t *normalizer = bnt_json_get(b->json, "normalizer");
    enum bnt_status status = normalizer ? add_normalizer(b, normalizer) : BNT_OK;
    b->record.n_normalizers = b->record.n_steps;
    return status;
}

// --- pre-tokenizer ---

static enum bnt_status add_pattern(struct tokenizer_builder *b, uint8_t behavior, bool invert,
                                   const char *pattern, size_t size)
{
    struct bnt_step_record step = {.type = BNT_STEP_SPLIT,
                                   .behavior = behavior,
                                   .invert = invert,
                                   .offset = (uint32_t)b->step_texts.size};
    enum bnt_status status = put_pattern(b, pattern, size, NULL);
    if (status != BNT_OK)
        return status;
    step.size = (uint32_t)b->step_texts.size - step.offset;
    return put_step(b, step);
}

// A split at a text. Behind the marks there are no spaces: one with a space in it is never found.
static enum bnt_status add_literal(struct tokenizer_builder *b, uint8_t behavior, bool invert,
                                   const char *text)
{
    struct bnt_step_record step = {.type = BNT_STEP_SPLIT,
                                   .behavior = behavior,
                                   .invert = invert,
                                   .offset = (uint32_t)b->step_texts.size};
    struct bnt_buffer copy = {0};
    if (b->marked && strchr(text, ' ') && !invert)
        return BNT_OK; // all of it is one rest
    if (b->marked && strchr(text, ' ')) {
        bnt_buffer_put(&b->step_texts, BNT_PATTERN_NEVER, strlen(BNT_PATTERN_NEVER));
    } else {
        text = own_text(b, text, &copy);
        if (text)
            bnt_pattern_quote(text, strlen(text), &b->step_texts);
        bnt_buffer_free(&copy);
        if (!text)
            return bnt_builder_no_memory(b);
    }
    step.size = (uint32_t)b->step_texts.size - step.offset;
    return put_step(b, step);
}

static enum bnt_status add_regex(struct tokenizer_builder *b, uint8_t behavior, const char *pattern)
{
    return add_pattern(b, behavior, false, pattern, strlen(pattern));
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
    const bool invert = bnt_json_true(step, "invert");
    return regex
               ? add_pattern(b, behavior, invert, json_string_value(text), json_string_length(text))
               : add_literal(b, behavior, invert, json_string_value(text));
}

static enum bnt_status add_byte_level(struct tokenizer_builder *b, const json_t *step)
{
    // The words of GPT-2; ByteLevel splits by them unless told not to.
    static const char words[] =
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    const json_t *prefix = json_object_get(step, "add_prefix_space");
    enum bnt_status status = BNT_OK;
    b->byte_level = true;
    b->byte_level_pending = true;
    if (b->record.kind != BNT_TOKENIZER_BYTE_BPE)
        return bnt_builder_refuse(b, "pre-tokenizer ByteLevel without decoder", "ByteLevel");
    if (!prefix || json_is_true(prefix))
        status = add_text_step(b, BNT_STEP_PREFIX, 0, " ", NULL);
    if (status != BNT_OK)
        return status;
    const json_t *use_regex = json_object_get(step, "use_regex");
    return !use_regex || json_is_true(use_regex) ? add_regex(b, BNT_SPLIT_ISOLATED, words) : BNT_OK;
}

static void put_ranges(struct bnt_buffer *out, const struct bnt_char_ranges *ranges)
{
    for (uint32_t i = 0; i < ranges->n; i++) {
        char text[40];
        int n = snprintf(text, sizeof text, "\\x{%" PRIX32 "}-\\x{%" PRIX32 "}",
                         ranges->range[i].first, ranges->range[i].last);
        bnt_buffer_put(out, text, (size_t)n);
    }
}

// pattern: zero-terminated; it is freed.
static enum bnt_status add_built(struct tokenizer_builder *b, uint8_t behavior,
                                 struct bnt_buffer *pattern)
{
    enum bnt_status status = pattern->failed ? bnt_builder_no_memory(b)
                                             : add_regex(b, behavior, (const char *)pattern->data);
    bnt_buffer_free(pattern);
    return status;
}

static enum bnt_status add_punctuation(struct tokenizer_builder *b, const json_t *step)
{
    uint8_t behavior;
    const char *name = bnt_json_text(step, "behavior", "Isolated");
    if (!find_behavior(name, &behavior))
        return bnt_builder_refuse(b, "Punctuation behavior", name);
    // ASCII punctuation that Unicode calls symbols counts too. The library's tables are old.
    struct bnt_buffer pattern = {0};
    bnt_buffer_put(&pattern, "[\\p{P}$+<=>\\^`|~", 16);
    put_ranges(&pattern, &bnt_unicode_more_punctuation);
    bnt_buffer_put(&pattern, "](?<![", 6);
    put_ranges(&pattern, &bnt_unicode_no_punctuation);
    bnt_buffer_put(&pattern, "])", 3);
    return add_built(b, behavior, &pattern);
}

static enum bnt_status add_digits(struct tokenizer_builder *b, const json_t *step)
{
    struct bnt_buffer pattern = {0};
    bnt_buffer_put(&pattern, "[\\p{N}", 6);
    put_ranges(&pattern, &bnt_unicode_more_numbers);
    bnt_buffer_put(&pattern, "]", 2);
    return add_built(
        b, bnt_json_true(step, "individual_digits") ? BNT_SPLIT_ISOLATED : BNT_SPLIT_CONTIGUOUS,
        &pattern);
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
        status = add_literal(b, BNT_SPLIT_MERGED_WITH_NEXT, false, b->mark);
    return status;
}

// Words of the regex crate, and what lies between them and white space.
static enum bnt_status add_whitespace(struct tokenizer_builder *b, const json_t *step)
{
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}"
    static const char pattern[] = "[" WORD "]+|[^" WORD "\\s]+";
    (void)step;
    return add_pattern(b, BNT_SPLIT_REMOVED, true, pattern, strlen(pattern));
}

static enum bnt_status add_whitespace_split(struct tokenizer_builder *b, const json_t *step)
{
    (void)step;
    return add_regex(b, BNT_SPLIT_REMOVED, "\\s");
}

static enum bnt_status add_delimiter(struct tokenizer_builder *b, const json_t *step)
{
    const char *delimiter = bnt_json_text(step, "delimiter", "");
    return *delimiter ? add_literal(b, BNT_SPLIT_REMOVED, false, delimiter)
                      : bnt_builder_bad(b, "a CharDelimiterSplit has no delimiter");
}

// What comes after ByteLevel sees bytes as characters; without a step behind it there is no need to
// make them.
static enum bnt_status write_byte_level(struct tokenizer_builder *b)
{
    if (!b->byte_level_pending)
        return BNT_OK;
    b->byte_level_pending = false;
    b->byte_level_written = true;
    return put_step(b, (struct bnt_step_record){.type = BNT_STEP_BYTE_LEVEL});
}

static enum bnt_status add_pre_tokenizer(struct tokenizer_builder *b, const json_t *step);

static enum bnt_status add_sequence(struct tokenizer_builder *b, const json_t *sequence)
{
    size_t i;
    json_t *step;
    json_array_foreach(json_object_get(sequence, "pretokenizers"), i, step)
    {
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
    static const struct {
        const char *type;
        enum bnt_status (*add)(struct tokenizer_builder *b, const json_t *step);
    } types[] = {
        {"Split", add_split},
        {"ByteLevel", add_byte_level},
        {"Digits", add_digits},
        {"Punctuation", add_punctuation},
        {"Metaspace", add_metaspace},
        {"Whitespace", add_whitespace},
        {"WhitespaceSplit", add_whitespace_split},
        {"CharDelimiterSplit", add_delimiter},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(type, types[i].type) != 0)
            continue;
        enum bnt_status status = write_byte_level(b);
        return status == BNT_OK ? types[i].add(b, step) : status;
    }
    return bnt_builder_refuse(b, "pre-tokenizer", type);
}

static enum bnt_status add_end_of_word(struct tokenizer_builder *b)
{
    const char *suffix = bnt_json_text(b->model, "end_of_word_suffix", "");
    struct bnt_buffer text = {0};
    if (!*suffix)
        return BNT_OK;
    bool ok = bnt_builder_put_matched(b, suffix, strlen(suffix), &text);
    bnt_buffer_put(&text, "", 1);
    enum bnt_status status;
    if (text.failed)
        status = bnt_builder_no_memory(b);
    else if (!ok || text.size - 1 > BNT_TOKENIZER_MAX_SUFFIX)
        status = bnt_builder_refuse(b, "end_of_word_suffix", suffix);
    else
        status = add_text_step(b, BNT_STEP_END_OF_WORD, 0, (const char *)text.data, NULL);
    bnt_buffer_free(&text);
    return status;
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
    if (status == BNT_OK && b->byte_level_written) // what is written is undone once at the end
        status = write_byte_level(b);
    return status == BNT_OK ? add_end_of_word(b) : status;
}

// --- post-processor ---

static enum bnt_status put_id(struct tokenizer_builder *b, const json_t *processor,
                              const json_t *id, struct bnt_buffer *out, uint32_t *count)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= b->record.n_tokens)
        return bnt_fail(
            b->err, BNT_ERR_FORMAT,
            "tokenizer.json: %s (a template): a special token has an id that is no token",
            bnt_json_text(processor, "type", "?"));
    uint32_t value = (uint32_t)json_integer_value(id);
    bnt_buffer_put(out, &value, sizeof value);
    *count += 1;
    return BNT_OK;
}

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
        enum bnt_status status = put_id(b, processor, id, out, count);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

// RobertaProcessing and BertProcessing: "cls": ["<s>", 0] before the text, "sep" behind it.
static enum bnt_status add_cls_sep(struct tokenizer_builder *b, const json_t *processor)
{
    enum bnt_status status =
        put_id(b, processor, json_array_get(json_object_get(processor, "cls"), 1), &b->prefix,
               &b->record.n_prefix);
    return status == BNT_OK
               ? put_id(b, processor, json_array_get(json_object_get(processor, "sep"), 1),
                        &b->suffix, &b->record.n_suffix)
               : status;
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
    const bool template = strcmp(type, "TemplateProcessing") == 0;
    if (template || strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        if (b->record.n_prefix || b->record.n_suffix)
            return bnt_builder_bad(b, "two templates");
        return template ? add_template(b, processor) : add_cls_sep(b, processor);
    }
    if (strcmp(type, "Sequence") != 0)
        return bnt_builder_refuse(b, "post-processor", type);
    size_t i;
    json_t *inner;
    json_array_foreach(json_object_get(processor, "processors"), i, inner)
    {
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
