// SPDX-License-Identifier: MIT
#include "formats/tokenizer_view.h"

#include <string.h>

#include "formats/cursor.h"
#include "formats/utf8.h"

static bool take_u32s(struct bnt_cursor *c, uint64_t count, const uint32_t **out)
{
    const uint8_t *bytes;
    if (!bnt_cursor_take(c, count, 4, &bytes))
        return false;
    *out = (const void *)
        bytes; // 4-byte aligned: so is the section, and only multiples of 4 come before
    return true;
}

static bool take_records(struct bnt_cursor *c, uint64_t count, const void **out)
{
    const uint8_t *bytes;
    if (!bnt_cursor_take(c, count, 16, &bytes))
        return false;
    *out = bytes;
    return true;
}

static bool take_arrays(struct bnt_tokenizer_view *v, struct bnt_cursor *c)
{
    const struct bnt_tokenizer_record *r = &v->record;
    return take_u32s(c, (uint64_t)r->n_tokens + 1, &v->token_offset) &&
           take_u32s(c, r->n_lookup, &v->lookup) &&
           take_records(c, r->n_merges, (const void **)&v->merges) &&
           take_records(c, r->n_added, (const void **)&v->added) &&
           take_records(c, r->n_steps, (const void **)&v->steps) &&
           take_u32s(c, r->n_prefix, &v->prefix) && take_u32s(c, r->n_suffix, &v->suffix) &&
           bnt_cursor_take(c, r->n_tokens, 1, &v->attr) &&
           bnt_cursor_take(c, r->pool_size, 1, &v->pool) && bnt_cursor_left(c) == 0;
}

static bool in_pool(const struct bnt_tokenizer_view *v, uint32_t offset, uint32_t size)
{
    return offset <= v->record.pool_size && size <= v->record.pool_size - offset;
}

static const char *record_problem(const struct bnt_tokenizer_record *r, uint32_t vocab_size)
{
    static const uint8_t zero[sizeof r->reserved];
    if (r->kind != BNT_TOKENIZER_BYTE_BPE && r->kind != BNT_TOKENIZER_CHARACTER_BPE)
        return "unknown kind";
    if (r->flags >= 2 * BNT_TOKENIZER_STRIP_FIRST)
        return "unknown flags";
    if (r->n_tokens < 1 || r->n_tokens > vocab_size)
        return "n_tokens is not in 1 … vocab_size";
    if (r->n_added > BNT_TOKENIZER_MAX_LIST || r->n_steps > BNT_TOKENIZER_MAX_STEPS ||
        r->n_prefix > BNT_TOKENIZER_MAX_LIST || r->n_suffix > BNT_TOKENIZER_MAX_LIST)
        return "a count of added tokens, steps, prefix or suffix is too large";
    if (r->n_normalizers > r->n_steps)
        return "n_normalizers is more than n_steps";
    if (r->unk_id >= r->n_tokens && r->unk_id != BNT_NO_TOKEN)
        return "unk_id is not a token";
    if (memcmp(r->reserved, zero, sizeof zero) != 0)
        return "reserved bytes are not zero";
    return NULL;
}

static const char *range_problem(const struct bnt_tokenizer_view *v)
{
    const struct bnt_tokenizer_record *r = &v->record;
    if (v->token_offset[0] != 0 || v->token_offset[r->n_tokens] > r->pool_size)
        return "token_offset does not start at 0 or ends past the pool";
    for (uint32_t i = 0; i < r->n_tokens; i++) {
        if (v->token_offset[i] > v->token_offset[i + 1])
            return "token_offset is not ascending";
        if (v->attr[i] & ~(BNT_ATTR_SPECIAL | BNT_ATTR_ADDED | BNT_ATTR_ABSENT | BNT_ATTR_BYTE))
            return "unknown bits in attr";
    }
    for (uint32_t i = 0; i < r->n_added; i++) {
        if (!in_pool(v, v->added[i].offset, v->added[i].size))
            return "the text of an added token lies outside the pool";
    }
    for (uint32_t i = 0; i < r->n_steps; i++) {
        const struct bnt_step_record *step = &v->steps[i];
        if (!in_pool(v, step->offset, step->size) ||
            !in_pool(v, step->offset + step->size,
                     step->extra)) // no overflow: both are in the pool
            return "the text of a step lies outside the pool";
        if (step->reserved0)
            return "reserved bytes of a step are not zero";
    }
    if (r->chat_size == 0 && r->chat_offset != 0)
        return "chat_offset is set without a chat template";
    return in_pool(v, r->chat_offset, r->chat_size) ? NULL
                                                    : "the chat template lies outside the pool";
}

static bool ids_fit(const uint32_t *ids, uint32_t count, uint32_t n_tokens)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] >= n_tokens)
            return false;
    }
    return true;
}

// Whether token a's bytes come before token b's.
static bool before(const struct bnt_tokenizer_view *v, uint32_t a, uint32_t b)
{
    size_t a_size, b_size;
    const uint8_t *a_bytes = bnt_token_bytes(v, a, &a_size);
    const uint8_t *b_bytes = bnt_token_bytes(v, b, &b_size);
    int order = memcmp(a_bytes, b_bytes, a_size < b_size ? a_size : b_size);
    return order < 0 || (order == 0 && a_size < b_size);
}

static const char *lookup_problem(const struct bnt_tokenizer_view *v)
{
    for (uint32_t i = 0; i < v->record.n_lookup; i++) {
        size_t size;
        (void)bnt_token_bytes(v, v->lookup[i], &size);
        if (size == 0)
            return "lookup holds an empty token";
        if (i > 0 && !before(v, v->lookup[i - 1], v->lookup[i]))
            return "lookup is not strictly ascending";
    }
    return NULL;
}

// Whether the result's bytes are those of left followed by right.
static bool concatenates(const struct bnt_tokenizer_view *v, const struct bnt_merge_record *m)
{
    size_t left_size, right_size, size;
    const uint8_t *left = bnt_token_bytes(v, m->left, &left_size);
    const uint8_t *right = bnt_token_bytes(v, m->right, &right_size);
    const uint8_t *result = bnt_token_bytes(v, m->result, &size);
    return left_size > 0 && right_size > 0 && size <= BNT_TOKENIZER_MAX_TEXT &&
           size == left_size + right_size && memcmp(result, left, left_size) == 0 &&
           memcmp(result + left_size, right, right_size) == 0;
}

static const char *merge_problem(const struct bnt_tokenizer_view *v)
{
    const struct bnt_merge_record *m = v->merges;
    uint32_t n = v->record.n_tokens;
    for (uint32_t i = 0; i < v->record.n_merges; i++) {
        if (m[i].left >= n || m[i].right >= n || m[i].result >= n)
            return "a merge names an id that is not a token";
        uint64_t key = (uint64_t)m[i].left << 32 | m[i].right;
        if (i > 0 && ((uint64_t)m[i - 1].left << 32 | m[i - 1].right) >= key)
            return "merges are not strictly ascending";
        if (!concatenates(v, &m[i]))
            return "a merge's result is not left followed by right, or empty in a part, or too "
                   "long";
    }
    return NULL;
}

static bool added_ascends(const struct bnt_tokenizer_view *v)
{
    for (uint32_t i = 1; i < v->record.n_added; i++) {
        const struct bnt_added_record *a = &v->added[i - 1], *b = &v->added[i];
        int order =
            memcmp(v->pool + a->offset, v->pool + b->offset, a->size < b->size ? a->size : b->size);
        if (order > 0 || (order == 0 && a->size >= b->size))
            return false;
    }
    return true;
}

static const char *order_problem(const struct bnt_tokenizer_view *v)
{
    const struct bnt_tokenizer_record *r = &v->record;
    if (!ids_fit(v->lookup, r->n_lookup, r->n_tokens) ||
        !ids_fit(v->prefix, r->n_prefix, r->n_tokens) ||
        !ids_fit(v->suffix, r->n_suffix, r->n_tokens))
        return "lookup, prefix or suffix names an id that is not a token";
    for (uint32_t i = 0; i < r->n_added; i++) {
        if (v->added[i].id >= r->n_tokens)
            return "an added token has an id that is not a token";
    }
    if (!added_ascends(v))
        return "added tokens are not strictly ascending by their texts";
    const char *problem = lookup_problem(v);
    return problem ? problem : merge_problem(v);
}

static bool is_text(const struct bnt_tokenizer_view *v, uint32_t offset, uint32_t size)
{
    return bnt_utf8_valid(v->pool + offset, size) == size;
}

// What bnt.md's table of step types allows.
static bool step_is_known(const struct bnt_tokenizer_view *v, uint32_t i)
{
    const struct bnt_step_record *s = &v->steps[i];
    const bool normalizer = i < v->record.n_normalizers;
    switch (s->type) {
    case BNT_STEP_SPLIT:
        return !normalizer && s->behavior <= BNT_SPLIT_CONTIGUOUS && s->invert <= 1 && !s->extra;
    case BNT_STEP_PREFIX:
        return s->behavior <= 1 && !s->invert && !s->extra;
    case BNT_STEP_PREPEND:
        return normalizer && !s->behavior && !s->invert && !s->extra;
    case BNT_STEP_REPLACE:
        return !s->behavior && !s->invert;
    case BNT_STEP_NFC:
    case BNT_STEP_NFD:
    case BNT_STEP_NFKC:
    case BNT_STEP_NFKD:
    case BNT_STEP_LOWERCASE:
        return normalizer && !s->behavior && !s->invert && !s->extra && !s->offset && !s->size;
    case BNT_STEP_REPLACE_PATTERN:
        return normalizer && !s->behavior && !s->invert;
    case BNT_STEP_BYTE_LEVEL:
        return !normalizer && v->record.kind == BNT_TOKENIZER_BYTE_BPE && !s->behavior &&
               !s->invert && !s->extra && !s->offset && !s->size;
    case BNT_STEP_END_OF_WORD:
        return !normalizer && i + 1 == v->record.n_steps && !s->behavior && !s->invert &&
               !s->extra && s->size <= BNT_TOKENIZER_MAX_SUFFIX;
    default:
        return false;
    }
}

// The types whose size must be 0, which step_is_known looks at.
static bool has_no_text(const struct bnt_step_record *s)
{
    return s->type == BNT_STEP_BYTE_LEVEL || s->type == BNT_STEP_LOWERCASE ||
           s->type == BNT_STEP_NFC || s->type == BNT_STEP_NFD || s->type == BNT_STEP_NFKC ||
           s->type == BNT_STEP_NFKD;
}

static const char *step_problem(const struct bnt_tokenizer_view *v, uint32_t i)
{
    const struct bnt_step_record *s = &v->steps[i];
    if (!step_is_known(v, i))
        return "a step has an unknown type, behavior or invert, or one that is not allowed there";
    if (!has_no_text(s) &&
        (s->size == 0 || s->size > BNT_TOKENIZER_MAX_TEXT || s->extra > BNT_TOKENIZER_MAX_TEXT))
        return "the text of a step is empty or too long";
    return is_text(v, s->offset, s->size) && is_text(v, s->offset + s->size, s->extra)
               ? NULL
               : "the text of a step is not UTF-8";
}

static bool byte_tokens_fit(const struct bnt_tokenizer_view *v)
{
    for (uint32_t i = 0; i < v->record.n_tokens; i++) {
        size_t size;
        (void)bnt_token_bytes(v, i, &size);
        if (v->attr[i] & BNT_ATTR_BYTE && size != 1)
            return false;
    }
    return true;
}

static const char *text_problem(const struct bnt_tokenizer_view *v)
{
    const struct bnt_tokenizer_record *r = &v->record;
    for (uint32_t i = 0; i < r->n_added; i++) {
        const struct bnt_added_record *a = &v->added[i];
        if (a->size == 0 || a->size > BNT_TOKENIZER_MAX_ADDED || !is_text(v, a->offset, a->size))
            return "an added token's text is empty, too long or not UTF-8";
        if (a->flags >= 2 * BNT_ADDED_NORMALIZED)
            return "an added token has unknown flags";
    }
    for (uint32_t i = 0; i < r->n_steps; i++) {
        const char *problem = step_problem(v, i);
        if (problem)
            return problem;
    }
    if (!byte_tokens_fit(v))
        return "a byte token has not one byte";
    return is_text(v, r->chat_offset, r->chat_size) ? NULL : "the chat template is not UTF-8";
}

static bool broken(struct bnt_report *report, const char *rule, const char *problem)
{
    if (problem)
        bnt_report(report, rule, "section TOKN: %s", problem);
    return problem != NULL;
}

bool bnt_tokenizer_view_open(struct bnt_tokenizer_view *view, const uint8_t *data, uint64_t size,
                             uint32_t vocab_size, struct bnt_report *report)
{
    struct bnt_cursor c = bnt_cursor(data, size);
    *view = (struct bnt_tokenizer_view){0};
    if (!bnt_cursor_copy(&c, &view->record, sizeof view->record))
        return !broken(report, "R24", "shorter than its header");
    if (broken(report, "R24", record_problem(&view->record, vocab_size)))
        return false;
    if (!take_arrays(view, &c))
        return !broken(report, "R24", "its length is not what its counts say");
    return !broken(report, "R24", range_problem(view)) &&
           !broken(report, "R25", order_problem(view)) &&
           !broken(report, "R26", text_problem(view));
}
