// SPDX-License-Identifier: MIT
// Encoding and decoding (bnt.md section 8).
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/byte_level.h"
#include "formats/normalize.h"
#include "formats/unicode.h"
#include "formats/utf8.h"
#include "runtime/text/bpe.h"
#include "runtime/engine/model.h"

// Limits for tokenizers from untrusted files: what needs more is an error, not a hang.
// PCRE2 counts backtracking for each place where a match may start; a run of n characters that a
// real pattern tries and gives up costs about n.
enum { MATCH_FREE = 5000, MATCH_LIMIT = 8, HEAP_LIMIT_KIB = 64 * 1024 };
// Bytes that normalizing steps may write for each byte of the text, all together. Each of a real
// tokenizer's few steps writes about one.
enum { GROWTH_FREE = 1 << 16, GROWTH_LIMIT = 64 };

// --- what a model keeps ---

static void fill_byte_tokens(struct bnt_model *m)
{
    const struct bnt_tokenizer_view *v = &m->tokenizer;
    const bool byte_level = v->record.kind == BNT_TOKENIZER_BYTE_BPE;
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t text = (uint8_t)byte;
        m->byte_token[byte] = byte_level ? (int32_t)bnt_bpe_lookup(m, &text, 1) : -1;
    }
    if (byte_level && !(v->record.flags & BNT_TOKENIZER_BYTE_FALLBACK))
        return;
    for (uint32_t i = 0; i < v->record.n_tokens; i++) {
        if (!(v->attr[i] & BNT_ATTR_BYTE))
            continue;
        uint8_t byte = v->pool[v->token_offset[i]]; // R26: it has one byte
        if (!byte_level || m->byte_token[byte] < 0)
            m->byte_token[byte] = (int32_t)i;
    }
}

enum bnt_status bnt_tokenizer_bind(struct bnt_model *m, struct bnt_error *err)
{
    const struct bnt_tokenizer_view *v = &m->tokenizer;
    m->patterns = calloc((size_t)v->record.n_steps + 1, sizeof m->patterns[0]);
    if (!m->patterns)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    for (uint32_t i = 0; i < v->record.n_steps; i++) {
        const struct bnt_step_record *step = &v->steps[i];
        if (!bnt_step_has_pattern(step))
            continue;
        enum bnt_status status =
            bnt_regex_open(&m->patterns[i], v->pool + step->offset, step->size, err);
        if (status != BNT_OK) {
            bnt_fail_prefix(err, "R26: section TOKN");
            return status;
        }
    }
    fill_byte_tokens(m);
    for (uint32_t i = 0; i < v->record.n_steps; i++)
        m->maps_bytes |= v->steps[i].type == BNT_STEP_BYTE_LEVEL;
    bnt_bpe_bind(m);
    for (uint32_t i = 0; i < v->record.n_added; i++)
        m->added_start[v->pool[v->added[i].offset]] = true; // R26: it is not empty
    return BNT_OK;
}

void bnt_tokenizer_unbind(struct bnt_model *m)
{
    for (uint32_t i = 0; m->patterns && i < m->tokenizer.record.n_steps; i++)
        bnt_regex_close(&m->patterns[i]);
    free(m->patterns);
    m->patterns = NULL;
}

// --- pre-tokenizer steps ---

struct text_encoder {
    struct bnt_encoder bpe;
    const uint8_t *text; // the whole
    size_t size;
    const struct bnt_range *plain; // parts of it in which control tokens stay text
    size_t n_plain;
    pcre2_match_data *match; // one pair of offsets is all that is asked for
    pcre2_match_context *limits;
    uint64_t budget; // bytes that normalizing steps may still write
    uint8_t *bytes;  // of one piece, where there are byte_level steps
    size_t bytes_capacity;
    struct bnt_error *err;
};

// Pieces of one step as they grow together, by the step's behavior.
struct splitter {
    struct text_encoder *encoder;
    uint32_t step;
    const uint8_t *text;
    bool at_start;     // text begins where the whole text begins
    bool pending;      // there is a piece that may still grow
    size_t start, end; // of it
    bool is_separator; // of it
    bool after_separator;
};

static enum bnt_status encode_piece(struct text_encoder *e, uint32_t step, bool at_start,
                                    const uint8_t *text, size_t size);

static enum bnt_status no_memory(struct text_encoder *e)
{
    return bnt_fail(e->err, BNT_ERR_MEMORY, "out of memory");
}

static enum bnt_status flush(struct splitter *s)
{
    enum bnt_status status = BNT_OK;
    if (s->pending && s->end > s->start)
        status = encode_piece(s->encoder, s->step + 1, s->at_start && s->start == 0,
                              s->text + s->start, s->end - s->start);
    s->pending = false;
    return status;
}

// Whether the next segment joins the piece that may still grow.
static bool joins(const struct splitter *s, unsigned behavior, bool separator)
{
    if (!s->pending)
        return false;
    switch (behavior) {
    case BNT_SPLIT_MERGED_WITH_PREVIOUS:
        return separator && !s->after_separator;
    case BNT_SPLIT_MERGED_WITH_NEXT:
        return !separator && s->is_separator;
    case BNT_SPLIT_CONTIGUOUS:
        return separator == s->is_separator;
    default:
        return false;
    }
}

// A match, which may be empty, or a rest, which is not.
static enum bnt_status add_segment(struct splitter *s, unsigned behavior, bool separator,
                                   size_t start, size_t end)
{
    enum bnt_status status = BNT_OK;
    if (joins(s, behavior, separator)) {
        s->end = end;
    } else {
        status = flush(s);
        s->pending = !(separator && behavior == BNT_SPLIT_REMOVED);
        s->start = start;
        s->end = end;
    }
    s->is_separator = separator;
    s->after_separator = separator;
    return status;
}

static struct bnt_regex_search begin_search(struct text_encoder *e, uint32_t step,
                                            const uint8_t *text, size_t size)
{
    return (struct bnt_regex_search){.regex = &e->bpe.model->patterns[step],
                                     .match = e->match,
                                     .limits = e->limits,
                                     .text = text,
                                     .size = size};
}

static void limit_matching(struct text_encoder *e, size_t size)
{
    uint64_t limit = (uint64_t)MATCH_LIMIT * size + MATCH_FREE;
    (void)pcre2_set_match_limit(e->limits, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
}

// The next match at or after from; *start = size when there is none.
static enum bnt_status next_match(struct text_encoder *e, uint32_t step,
                                  struct bnt_regex_search *search, size_t from, size_t *start,
                                  size_t *end)
{
    *start = *end = search->size;
    limit_matching(e, search->size);
    int n = bnt_regex_next(search, from, start, end);
    if (n == PCRE2_ERROR_NOMATCH)
        return BNT_OK;
    if (n < 0)
        return bnt_fail(e->err, BNT_ERR_FORMAT,
                        "the tokenizer's pattern %" PRIu32 " fails on this text (PCRE2 error %d)",
                        step, n);
    // With \K or a lookbehind trick a match may be reported to start after it ends, or before the
    // search.
    if (*start < from || *end < *start)
        return bnt_fail(e->err, BNT_ERR_FORMAT,
                        "the tokenizer's pattern %" PRIu32 " moves the start of its match", step);
    return BNT_OK;
}

static enum bnt_status split(struct text_encoder *e, uint32_t step, bool at_start,
                             const uint8_t *text, size_t size)
{
    const struct bnt_step_record *record = &e->bpe.model->tokenizer.steps[step];
    struct splitter s = {.encoder = e, .step = step, .text = text, .at_start = at_start};
    struct bnt_regex_search search = begin_search(e, step, text, size);
    const bool invert = record->invert;
    size_t done = 0, from = 0, start, end;
    bool after_match = false;
    while (done < size) {
        enum bnt_status status = next_match(e, step, &search, from, &start, &end);
        if (status != BNT_OK)
            return status;
        from = end;
        if (end == start &&
            end < size) // behind an empty match the search goes on at the next character
            from += (size_t)bnt_utf8_next(text + end, size - end, NULL);
        if (end == start && start == done && after_match)
            continue; // an empty match directly behind a match is none
        if (start > done)
            status = add_segment(&s, record->behavior, invert, done, start);
        if (status == BNT_OK && start < size)
            status = add_segment(&s, record->behavior, !invert, start, end);
        if (status != BNT_OK)
            return status;
        done = end;
        after_match = true;
    }
    return flush(&s);
}

// Applies a step that changes a text but does not split it. *out is malloc'd.
static enum bnt_status apply(struct text_encoder *e, uint32_t step, bool at_start,
                             const uint8_t *text, size_t size, uint8_t **out, size_t *out_size)
{
    const struct bnt_tokenizer_view *v = &e->bpe.model->tokenizer;
    limit_matching(e, size);
    switch (bnt_normalize(&v->steps[step], v->pool, begin_search(e, step, text, size), at_start,
                          text, size, e->budget, out, out_size)) {
    case BNT_NORMALIZED:
        e->budget -= *out_size;
        return BNT_OK;
    case BNT_NORMALIZE_TOO_LARGE:
        return bnt_fail(e->err, BNT_ERR_FORMAT,
                        "the tokenizer's step %" PRIu32 " blows the text up beyond all measure",
                        step);
    case BNT_NORMALIZE_PATTERN_FAILS:
        return bnt_fail(e->err, BNT_ERR_FORMAT,
                        "the tokenizer's pattern %" PRIu32 " fails on this text", step);
    case BNT_NORMALIZE_NO_MEMORY:
        break;
    }
    return no_memory(e);
}

// A character that stands for no byte keeps its own.
static size_t unmap_bytes(const uint8_t *text, size_t size, uint8_t *out)
{
    size_t n = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code;
        size_t length = (size_t)bnt_utf8_next(text + at, size - at, &code);
        int byte = bnt_character_to_byte(code);
        if (byte >= 0)
            out[n++] = (uint8_t)byte;
        else
            memcpy(out + n, text + at, length), n += length;
        at += length;
    }
    return n;
}

static enum bnt_status change(struct text_encoder *e, uint32_t step, bool at_start,
                              const uint8_t *text, size_t size)
{
    uint8_t *changed;
    enum bnt_status status = apply(e, step, at_start, text, size, &changed, &size);
    if (status != BNT_OK)
        return status;
    status = encode_piece(e, step + 1, at_start, changed, size);
    free(changed);
    return status;
}

// A piece that went through byte_level steps is bytes again before it is merged.
static enum bnt_status merge_piece(struct text_encoder *e, const uint8_t *text, size_t size)
{
    if (e->bpe.model->maps_bytes) {
        if (!bnt_encoder_reserve((void **)&e->bytes, &e->bytes_capacity, size, 1))
            return no_memory(e);
        size = unmap_bytes(text, size, e->bytes);
        text = e->bytes;
    }
    return bnt_bpe_encode(&e->bpe, text, size) ? BNT_OK : no_memory(e);
}

// Applies the steps from `step` on, then merges. Recursion is as deep as there are steps, at most
// BNT_TOKENIZER_MAX_STEPS.
static enum bnt_status encode_piece(struct text_encoder *e, uint32_t step, bool at_start,
                                    const uint8_t *text, size_t size)
{
    const struct bnt_tokenizer_view *v = &e->bpe.model->tokenizer;
    if (size == 0)
        return BNT_OK;
    if (step == v->record.n_steps || v->steps[step].type == BNT_STEP_END_OF_WORD)
        return merge_piece(e, text, size);
    return v->steps[step].type == BNT_STEP_SPLIT ? split(e, step, at_start, text, size)
                                                 : change(e, step, at_start, text, size);
}

// --- added tokens ---

// Start of the character that ends at `at` > 0.
static size_t previous_character(const uint8_t *text, size_t at)
{
    do
        at--;
    while (at > 0 && (text[at] & 0xC0) == 0x80);
    return at;
}

// Whether the character at text (size > 0) can be part of a word.
static bool is_word_character(const uint8_t *text, size_t size)
{
    uint32_t code;
    (void)bnt_utf8_next(text, size, &code);
    return bnt_unicode_is_word(code);
}

static bool stands_alone(const uint8_t *text, size_t size, size_t start, size_t end)
{
    if (start > 0 && is_word_character(text + previous_character(text, start),
                                       size - previous_character(text, start)))
        return false;
    return end == size || !is_word_character(text + end, size - end);
}

// The first of the added tokens low … high − 1 (they share their first `depth` bytes) whose byte at
// depth is not below `byte`. One that ends there comes before all.
static uint32_t first_not_below(const struct bnt_tokenizer_view *v, uint32_t low, uint32_t high,
                                uint32_t depth, unsigned byte)
{
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct bnt_added_record *a = &v->added[middle];
        if (a->size <= depth || v->pool[a->offset + depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The longest added token that begins at `at`, or NULL. normalized: of those matched after the
// normalizer, or before. The table is sorted (R25): each byte of the text narrows the range of
// tokens that can still match.
static const struct bnt_added_record *longest_added(const struct bnt_model *m, bool normalized,
                                                    const uint8_t *text, size_t size, size_t at)
{
    const struct bnt_tokenizer_view *v = &m->tokenizer;
    const struct bnt_added_record *longest = NULL;
    uint32_t low = 0, high = v->record.n_added;
    if (!m->added_start[text[at]])
        return NULL;
    for (uint32_t depth = 0; depth < size - at && low < high; depth++) {
        unsigned byte = text[at + depth];
        low = first_not_below(v, low, high, depth, byte);
        high = first_not_below(v, low, high, depth, byte + 1);
        if (low == high)
            break;
        const struct bnt_added_record *a = &v->added[low]; // the shortest of the range
        if (a->size == depth + 1 && !!(a->flags & BNT_ADDED_NORMALIZED) == normalized)
            longest = a;
    }
    return longest;
}

// Whether the normalizer leaves spaces that were marks in the original tokenizer (a mark is no
// white space).
static bool marks_are_spaces(const struct bnt_model *m)
{
    const struct bnt_tokenizer_view *v = &m->tokenizer;
    for (uint32_t i = 0; i < v->record.n_normalizers; i++) {
        const struct bnt_step_record *s = &v->steps[i];
        if (s->type == BNT_STEP_REPLACE && s->extra == 1 && v->pool[s->offset + s->size] == ' ')
            return true;
    }
    return false;
}

// A text in which added tokens are looked for.
struct added_search {
    const struct text_encoder *encoder;
    bool normalized; // for the tokens matched after the normalizer, or before
    const uint8_t *text;
    size_t size;
    const struct bnt_range *plain; // parts in which control tokens are not looked for
    size_t n_plain;
};

struct added_match {
    const struct bnt_added_record *added;
    size_t start, end; // with the white space that it takes
    size_t resume;     // where the search goes on: white space that it takes may hold further ones
};

// A control token: special, or one that the chat template writes.
static bool is_control(const struct bnt_model *m, const struct bnt_added_record *a)
{
    return a->flags & BNT_ADDED_SPECIAL ||
           (m->has_chat && bnt_chat_writes(&m->chat, m->tokenizer.pool + a->offset, a->size));
}

static bool stays_text(const struct added_search *s, const struct bnt_added_record *a, size_t at)
{
    for (size_t i = 0; i < s->n_plain; i++) {
        size_t start = s->plain[i].offset, end = start + s->plain[i].size;
        if (at < end && at + a->size > start && is_control(s->encoder->bpe.model, a))
            return true;
    }
    return false;
}

// Takes white space on the sides where the token does, to the left not beyond done.
static struct added_match extend_match(const struct added_search *s,
                                       const struct bnt_added_record *a, size_t at, size_t done)
{
    struct added_match match = {
        .added = a, .start = at, .end = at + a->size, .resume = at + a->size};
    const bool spaces = !(s->normalized && marks_are_spaces(s->encoder->bpe.model));
    uint32_t c;
    while (a->flags & BNT_ADDED_LSTRIP && match.start > done) {
        size_t before = previous_character(s->text, match.start);
        (void)bnt_utf8_next(s->text + before, s->size - before, &c);
        if (!bnt_is_white_space(c) || (c == ' ' && !spaces))
            break;
        match.start = before;
    }
    while (a->flags & BNT_ADDED_RSTRIP && match.end < s->size) {
        int n = bnt_utf8_next(s->text + match.end, s->size - match.end, &c);
        if (!bnt_is_white_space(c) || (c == ' ' && !spaces))
            break;
        match.end += (size_t)n;
    }
    return match;
}

// The next added token at or after from; .added = NULL when there is none. It takes no white space
// before done.
static struct added_match find_added(const struct added_search *s, size_t done, size_t from)
{
    for (size_t at = from; at < s->size; at++) {
        const struct bnt_added_record *a =
            longest_added(s->encoder->bpe.model, s->normalized, s->text, s->size, at);
        if (!a)
            continue;
        bool rejected =
            a->flags & BNT_ADDED_SINGLE_WORD && !stands_alone(s->text, s->size, at, at + a->size);
        if (!rejected && !stays_text(s, a, at))
            return extend_match(s, a, at, done);
        at += a->size - 1; // passed over as a whole
    }
    return (struct added_match){.start = s->size, .end = s->size, .resume = s->size};
}

// What lies between added tokens, and where it begins.
typedef enum bnt_status encode_between(struct text_encoder *e, bool at_start, const uint8_t *text,
                                       size_t size);

static enum bnt_status encode_around_added(struct text_encoder *e, const struct added_search *s,
                                           bool at_start, encode_between *between)
{
    struct added_match match = {0};
    size_t done = 0;
    do {
        match = find_added(s, done, match.resume);
        if (match.start > done) {
            enum bnt_status status =
                between(e, at_start && done == 0, s->text + done, match.start - done);
            if (status != BNT_OK)
                return status;
        }
        if (match.added && !bnt_encoder_put(&e->bpe, match.added->id))
            return no_memory(e);
        done = match.end;
    } while (match.added);
    return BNT_OK;
}

static enum bnt_status encode_normalized(struct text_encoder *e, bool at_start, const uint8_t *text,
                                         size_t size)
{
    return encode_piece(e, e->bpe.model->tokenizer.record.n_normalizers, at_start, text, size);
}

// *out is malloc'd.
static enum bnt_status normalize(struct text_encoder *e, bool at_start, const uint8_t *text,
                                 size_t size, uint8_t **out, size_t *out_size)
{
    const struct bnt_tokenizer_view *v = &e->bpe.model->tokenizer;
    *out = NULL;
    *out_size = size;
    for (uint32_t i = 0; i < v->record.n_normalizers; i++) {
        uint8_t *next;
        enum bnt_status status = apply(e, i, at_start, text, size, &next, &size);
        free(*out);
        *out = NULL;
        if (status != BNT_OK)
            return status;
        text = *out = next;
        *out_size = size;
    }
    return BNT_OK;
}

// Where the normalizer takes a place of the text: behind what it makes of the text before.
static enum bnt_status map_place(struct text_encoder *e, bool at_start, const uint8_t *text,
                                 size_t place, uint32_t *mapped)
{
    uint8_t *before;
    size_t size;
    enum bnt_status status = normalize(e, at_start, text, place, &before, &size);
    free(before);
    *mapped = (uint32_t)size; // below 2^32 as all texts are
    return status;
}

// The parts of a piece (of the whole text, whose control tokens stay text) after the normalizer.
// *out is malloc'd.
static enum bnt_status map_plain(struct text_encoder *e, bool at_start, const uint8_t *text,
                                 size_t size, struct bnt_range **out, size_t *n)
{
    enum bnt_status status = BNT_OK;
    const size_t base = (size_t)(text - e->text);
    *n = 0;
    *out = e->n_plain ? malloc(e->n_plain * sizeof **out) : NULL;
    if (e->n_plain && !*out)
        return no_memory(e);
    for (size_t i = 0; i < e->n_plain && status == BNT_OK; i++) {
        size_t start = e->plain[i].offset, end = start + e->plain[i].size;
        start = start > base ? start - base : 0;
        end = end > base ? end - base : 0;
        end = end < size ? end : size;
        if (start >= end)
            continue;
        uint32_t mapped_end;
        status = map_place(e, at_start, text, start, &(*out)[*n].offset);
        if (status == BNT_OK)
            status = map_place(e, at_start, text, end, &mapped_end);
        if (status == BNT_OK) {
            (*out)[*n].size = mapped_end - (*out)[*n].offset;
            *n += 1;
        }
    }
    return status;
}

static enum bnt_status normalize_and_encode(struct text_encoder *e, bool at_start,
                                            const uint8_t *text, size_t size)
{
    struct added_search s = {.encoder = e, .normalized = true, .text = text, .size = size};
    struct bnt_range *plain = NULL;
    uint8_t *owned = NULL;
    enum bnt_status status = map_plain(e, at_start, text, size, &plain, &s.n_plain);
    s.plain = plain;
    if (status == BNT_OK)
        status = normalize(e, at_start, text, size, &owned, &s.size);
    s.text = owned ? owned : text;
    if (status == BNT_OK)
        status = encode_around_added(e, &s, at_start, encode_normalized);
    free(owned);
    free(plain);
    return status;
}

static enum bnt_status encode_text(struct text_encoder *e)
{
    const struct added_search s = {
        .encoder = e, .text = e->text, .size = e->size, .plain = e->plain, .n_plain = e->n_plain};
    return encode_around_added(e, &s, true, normalize_and_encode);
}

// --- the public functions ---

static enum bnt_status need_tokenizer(const struct bnt_model *m, struct bnt_error *err)
{
    return m->has_tokenizer ? BNT_OK
                            : bnt_fail(err, BNT_ERR_NO_TOKENIZER,
                                       "the model has no tokenizer (its checkpoint had no "
                                       "tokenizer.json): use token ids");
}

static enum bnt_status put_ids(struct text_encoder *e, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!bnt_encoder_put(&e->bpe, ids[i]))
            return no_memory(e);
    }
    return BNT_OK;
}

// Takes the prefix away again where the text begins with it itself: one BOS is enough.
static void drop_second_prefix(struct bnt_encoder *bpe, const struct bnt_tokenizer_view *v)
{
    const size_t n = v->record.n_prefix;
    if (n == 0 || bpe->n_ids < 2 * n || memcmp(bpe->ids + n, v->prefix, n * sizeof *v->prefix) != 0)
        return;
    bpe->n_ids -= n;
    memmove(bpe->ids, bpe->ids + n, bpe->n_ids * sizeof *bpe->ids);
}

static enum bnt_status encode_whole(struct text_encoder *e, bool special)
{
    const struct bnt_tokenizer_view *v = &e->bpe.model->tokenizer;
    enum bnt_status status = special ? put_ids(e, v->prefix, v->record.n_prefix) : BNT_OK;
    if (status == BNT_OK)
        status = encode_text(e);
    if (status == BNT_OK && special) {
        drop_second_prefix(&e->bpe, v);
        status = put_ids(e, v->suffix, v->record.n_suffix);
    }
    return status;
}

static enum bnt_status encode_checked(struct text_encoder *e, bool special)
{
    e->match = pcre2_match_data_create(1, NULL);
    e->limits = pcre2_match_context_create(NULL);
    e->budget = (uint64_t)GROWTH_LIMIT * e->size + GROWTH_FREE;
    e->budget =
        e->budget < UINT32_MAX ? e->budget : UINT32_MAX - 1; // pieces are counted in 32 bits
    if (!e->match || !e->limits)
        return no_memory(e);
    (void)pcre2_set_heap_limit(e->limits, HEAP_LIMIT_KIB);
    return encode_whole(e, special);
}

enum bnt_status bnt_tokenize_parts(const struct bnt_model *model, const char *text, size_t size,
                                   bool special, const struct bnt_range *plain, size_t n_plain,
                                   uint32_t **tokens, size_t *count, struct bnt_error *err)
{
    *tokens = NULL;
    *count = 0;
    enum bnt_status status = need_tokenizer(model, err);
    if (status != BNT_OK)
        return status;
    size_t valid = bnt_utf8_valid((const uint8_t *)text, size);
    if (valid != size)
        return bnt_fail(err, BNT_ERR_TEXT, "the text is not valid UTF-8 at byte %zu", valid);
    if (size >= UINT32_MAX)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "a text must be shorter than 4 GB");
    struct text_encoder e = {.bpe = {.model = model},
                             .text = (const uint8_t *)text,
                             .size = size,
                             .plain = plain,
                             .n_plain = n_plain,
                             .err = err};
    status = encode_checked(&e, special);
    if (status == BNT_OK) {
        *tokens = e.bpe.ids;
        *count = e.bpe.n_ids;
    } else {
        free(e.bpe.ids);
    }
    pcre2_match_data_free(e.match);
    pcre2_match_context_free(e.limits);
    free(e.bytes);
    free(e.bpe.symbols);
    free(e.bpe.heap);
    return status;
}

enum bnt_status bnt_tokenize(const struct bnt_model *model, const char *text, size_t size,
                             unsigned flags, uint32_t **tokens, size_t *count,
                             struct bnt_error *err)
{
    *tokens = NULL;
    *count = 0;
    if (flags & ~(unsigned)(BNT_TOKENIZE_SPECIAL | BNT_TOKENIZE_PLAIN))
        return bnt_fail(err, BNT_ERR_ARGUMENT, "unknown flags of bnt_tokenize: %#x", flags);
    const struct bnt_range all = {.size = (uint32_t)size}; // larger texts are refused
    return bnt_tokenize_parts(model, text, size, flags & BNT_TOKENIZE_SPECIAL, &all,
                              !!(flags & BNT_TOKENIZE_PLAIN), tokens, count, err);
}

const char *bnt_token_text(const struct bnt_model *model, uint32_t token, size_t *size)
{
    *size = 0;
    if (!model->has_tokenizer || token >= model->hyper.vocab_size)
        return NULL;
    if (token >= model->tokenizer.record.n_tokens)
        return ""; // the embedding has more rows than the tokenizer has tokens
    return (const char *)bnt_token_bytes(&model->tokenizer, token, size);
}

bool bnt_token_is_control(const struct bnt_model *model, uint32_t token)
{
    return model->has_tokenizer && token < model->tokenizer.record.n_tokens &&
           model->tokenizer.attr[token] & BNT_ATTR_SPECIAL;
}

// Writes where there is room, counts always.
static void append(char *text, size_t capacity, size_t *size, const void *bytes, size_t n)
{
    if (*size <= capacity && n <= capacity - *size && n > 0)
        memcpy(text + *size, bytes, n);
    *size += n;
}

// Bytes to valid UTF-8.
static void append_valid(char *text, size_t capacity, size_t *size, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n;) {
        int length = bnt_utf8_next(bytes + i, n - i, NULL);
        if (length > 0)
            append(text, capacity, size, bytes + i, (size_t)length);
        else
            append(text, capacity, size, "\xEF\xBF\xBD", 3);
        i += length > 0   ? (size_t)length
             : length < 0 ? (size_t)-length
                          : n - i; // 0: what is left is cut short
    }
}

static bool is_byte_token(const struct bnt_model *m, uint32_t token)
{
    return token < m->tokenizer.record.n_tokens && m->tokenizer.attr[token] & BNT_ATTR_BYTE;
}

// Joins byte tokens from the i-th on; a run that is not UTF-8 becomes one U+FFFD for each of its
// bytes. Returns the index behind the run.
static size_t join_byte_tokens(const struct bnt_model *m, const uint32_t *tokens, size_t count,
                               size_t i, uint8_t *bytes, size_t *at)
{
    size_t start = *at, n;
    for (; i < count && is_byte_token(m, tokens[i]); i++)
        bytes[(*at)++] = *(const uint8_t *)bnt_token_text(m, tokens[i], &n);
    size_t size = *at - start;
    if (bnt_utf8_valid(bytes + start, size) == size)
        return i;
    for (size_t j = 0; j < size; j++)
        memcpy(bytes + start + 3 * j, "\xEF\xBF\xBD", 3);
    *at = start + 3 * size;
    return i;
}

// bytes: room for three times the tokens' bytes.
static size_t join_tokens(const struct bnt_model *m, const uint32_t *tokens, size_t count,
                          uint8_t *bytes)
{
    size_t at = 0, n;
    for (size_t i = 0; i < count;) {
        bool strip = i == 0 && m->tokenizer.record.flags & BNT_TOKENIZER_STRIP_FIRST;
        const char *token = bnt_token_text(m, tokens[i], &n);
        if (is_byte_token(m, tokens[i]) && !(strip && *token == ' ')) {
            i = join_byte_tokens(m, tokens, count, i, bytes, &at);
            continue;
        }
        for (size_t j = 0; j < n; j++) {
            if (!(strip && token[j] == ' '))
                bytes[at++] = (uint8_t)token[j];
        }
        i++;
    }
    return at;
}

enum bnt_status bnt_detokenize(const struct bnt_model *model, const uint32_t *tokens, size_t count,
                               char *text, size_t capacity, size_t *size, struct bnt_error *err)
{
    *size = 0;
    enum bnt_status status = need_tokenizer(model, err);
    if (status != BNT_OK)
        return status;
    size_t total = 0, n;
    for (size_t i = 0; i < count; i++) {
        if (!bnt_token_text(model, tokens[i], &n))
            return bnt_fail(err, BNT_ERR_ARGUMENT,
                            "token %" PRIu32 " is not below the vocabulary's size %" PRIu32,
                            tokens[i], model->hyper.vocab_size);
        total += n;
    }
    uint8_t *bytes = malloc(3 * total + 1);
    if (!bytes)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    total = join_tokens(model, tokens, count, bytes);
    bool strips = model->tokenizer.record.flags & BNT_TOKENIZER_STRIP_SPACE;
    size_t skip = strips && total > 0 && bytes[0] == ' ';
    append_valid(text, capacity, size, bytes + skip, total - skip);
    free(bytes);
    return *size <= capacity
               ? BNT_OK
               : bnt_fail(err, BNT_ERR_ARGUMENT, "the text has %zu bytes, there is room for %zu",
                          *size, capacity);
}
