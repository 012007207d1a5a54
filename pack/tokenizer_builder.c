// SPDX-License-Identifier: MIT
// What the parts that build the TOKN section share: words for what is refused, and texts as the
// section has them.
#include "pack/tokenizer_builder.h"

#include <stdlib.h>
#include <string.h>

#include "formats/byte_level.h"
#include "formats/normalize.h"
#include "formats/tokenizer_view.h"
#include "formats/utf8.h"

#define FILE_NAME "tokenizer.json"

enum bnt_status bnt_builder_refuse(struct tokenizer_builder *b, const char *what, const char *value)
{
    return bnt_fail(b->err, BNT_ERR_UNSUPPORTED, "%s: %s \"%s\" is not supported", FILE_NAME, what,
                    value);
}

enum bnt_status bnt_builder_bad(struct tokenizer_builder *b, const char *what)
{
    return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: %s", FILE_NAME, what);
}

enum bnt_status bnt_builder_no_memory(struct tokenizer_builder *b)
{
    return bnt_fail(b->err, BNT_ERR_MEMORY, "%s: out of memory", FILE_NAME);
}

// Appends the bytes of a token's text in the byte-level alphabet; false, with some of them
// appended, if any character is none of it.
static bool put_bytes(const char *text, size_t size, struct bnt_buffer *out)
{
    for (size_t at = 0; at < size;) {
        uint32_t code;
        int n = bnt_utf8_next((const uint8_t *)text + at, size - at, &code);
        const int value = n > 0 ? bnt_character_to_byte(code) : -1;
        if (value < 0)
            return false;
        const uint8_t byte = (uint8_t)value;
        bnt_buffer_put(out, &byte, 1);
        at += (size_t)n;
    }
    return true;
}

// A text with every space mark replaced by a space.
void bnt_builder_put_text(const struct tokenizer_builder *b, const char *text, size_t size,
                          struct bnt_buffer *out)
{
    size_t mark = b->mark ? strlen(b->mark) : 0;
    for (size_t at = 0; at < size;) {
        if (mark && size - at >= mark && memcmp(text + at, b->mark, mark) == 0) {
            bnt_buffer_put(out, " ", 1);
            at += mark;
        } else {
            bnt_buffer_put(out, text + at, 1);
            at++;
        }
    }
}

bool bnt_builder_put_matched(const struct tokenizer_builder *b, const char *text, size_t size,
                             struct bnt_buffer *out)
{
    if (b->record.kind == BNT_TOKENIZER_BYTE_BPE)
        return put_bytes(text, size, out);
    if (b->mark && memchr(text, ' ', size))
        return false; // every space of the input has become a mark
    bnt_builder_put_text(b, text, size, out);
    return true;
}

// --- texts as the normalizer leaves them ---

// Applies a normalizer's step to *text, which is malloc'd.
static enum bnt_status apply_step(struct tokenizer_builder *b, const struct bnt_step_record *step,
                                  uint8_t **text, size_t *size)
{
    struct bnt_regex regex = {0};
    struct bnt_regex_search search = {.regex = &regex};
    uint8_t *next;
    if (bnt_step_has_pattern(step)) { // it compiled when the step was made
        enum bnt_status status =
            bnt_regex_open(&regex, b->step_texts.data + step->offset, step->size, b->err);
        if (status != BNT_OK)
            return status;
        search.match = pcre2_match_data_create(1, NULL);
    }
    enum bnt_normalize_result result = bnt_normalize(step, b->step_texts.data, search, true, *text,
                                                     *size, BNT_TOKENIZER_MAX_TEXT, &next, size);
    pcre2_match_data_free(search.match);
    bnt_regex_close(&regex);
    switch (result) {
    case BNT_NORMALIZED:
        free(*text);
        *text = next;
        return BNT_OK;
    case BNT_NORMALIZE_TOO_LARGE:
        return bnt_builder_bad(b, "an added token becomes too long by the normalizer");
    case BNT_NORMALIZE_PATTERN_FAILS:
        return bnt_builder_bad(b, "a Replace fails on an added token");
    case BNT_NORMALIZE_NO_MEMORY:
        break;
    }
    return bnt_builder_no_memory(b);
}

// The text of an added token as the normalizer would leave it.
enum bnt_status bnt_builder_put_normalized(struct tokenizer_builder *b, const char *text,
                                           size_t size, struct bnt_buffer *out)
{
    const struct bnt_step_record *steps = (const void *)b->steps.data;
    uint8_t *now = malloc(size + 1);
    if (!now)
        return bnt_builder_no_memory(b);
    memcpy(now, text, size);
    for (uint32_t i = 0; i < b->record.n_normalizers; i++) {
        enum bnt_status status = apply_step(b, &steps[i], &now, &size);
        if (status != BNT_OK) {
            free(now);
            return status;
        }
    }
    bnt_buffer_put(out, now, size);
    free(now);
    return BNT_OK;
}
