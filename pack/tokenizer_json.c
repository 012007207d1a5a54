// SPDX-License-Identifier: MIT
#include "pack/tokenizer_json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/layout.h"
#include "formats/tokenizer_view.h"
#include "formats/utf8.h"
#include "pack/pattern.h"

static const char file_name[] = "tokenizer.json";

enum { ALPHABET_END = 324, MAX_TOKENS = BNT_MAX_VOCAB }; // the byte-level alphabet uses code points below 324

struct builder {
    const json_t *json;
    const json_t *model;
    uint32_t vocab_size;
    struct bnt_error *err;
    struct bnt_tokenizer_record record;
    int16_t byte_of[ALPHABET_END]; // code point of the byte-level alphabet → byte, −1 for none
    // Tokens by id.
    const char **token;   // text in tokenizer.json, NULL: no such id
    size_t *token_size;
    uint8_t *attr;
    bool *mergeable;      // in model.vocab and wholly of the byte-level alphabet
    // Arrays of the section.
    uint32_t *token_offset;
    uint32_t *lookup;
    struct bnt_merge_record *merges;
    struct bnt_buffer added, steps, prefix, suffix, pool;
    bool byte_level;      // the pre-tokenizer had its ByteLevel step
};

static enum bnt_status refuse(struct builder *b, const char *what, const char *value)
{
    return bnt_fail(b->err, BNT_ERR_UNSUPPORTED, "%s: %s \"%s\" is not supported", file_name, what, value);
}

static enum bnt_status bad(struct builder *b, const char *what)
{
    return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: %s", file_name, what);
}

static enum bnt_status no_memory(struct builder *b)
{
    return bnt_fail(b->err, BNT_ERR_MEMORY, "%s: out of memory", file_name);
}

// GPT-2's map from bytes to printable characters: printable Latin-1 stays, the others follow from U+0100 on.
static void make_alphabet(struct builder *b)
{
    memset(b->byte_of, -1, sizeof b->byte_of);
    int next = 256;
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        b->byte_of[printable ? byte : next++] = (int16_t)byte;
    }
}

// The bytes of a token's text in the byte-level alphabet; false if any character is none of it.
// out: room for size bytes, or NULL to ask only.
static bool to_bytes(const struct builder *b, const char *text, size_t size, uint8_t *out, size_t *out_size)
{
    *out_size = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code;
        int n = bnt_utf8_next((const uint8_t *)text + at, size - at, &code);
        if (n <= 0 || code >= ALPHABET_END || b->byte_of[code] < 0)
            return false;
        if (out)
            out[*out_size] = (uint8_t)b->byte_of[code];
        *out_size += 1;
        at += (size_t)n;
    }
    return true;
}

// --- model ---

static enum bnt_status check_empty(struct builder *b, const char *key)
{
    const char *value = bnt_json_text(b->model, key, "");
    return value[0] ? refuse(b, key, value) : BNT_OK;
}

static enum bnt_status check_model(struct builder *b)
{
    b->model = bnt_json_get(b->json, "model");
    const char *type = bnt_json_text(b->model, "type", bnt_json_get(b->model, "merges") ? "BPE" : "(none)");
    if (strcmp(type, "BPE") != 0)
        return refuse(b, "model type", type);
    if (bnt_json_true(b->model, "byte_fallback"))
        return refuse(b, "byte_fallback", "true");
    if (bnt_json_get(b->json, "normalizer"))
        return refuse(b, "normalizer", bnt_json_text(bnt_json_get(b->json, "normalizer"), "type", "?"));
    if (bnt_json_true(b->model, "ignore_merges"))
        b->record.flags |= BNT_TOKENIZER_IGNORE_MERGES;
    enum bnt_status status = check_empty(b, "continuing_subword_prefix");
    return status == BNT_OK ? check_empty(b, "end_of_word_suffix") : status;
}

// One more than the highest id below vocab_size in the vocabulary and the added tokens.
static enum bnt_status count_tokens(struct builder *b)
{
    const char *text;
    json_t *id;
    json_int_t highest = -1;
    json_object_foreach(json_object_get(b->model, "vocab"), text, id)
    {
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= b->vocab_size)
            return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: the id of token '%s' is not in 0 … vocab_size − 1 = %" PRIu32,
                            file_name, text, b->vocab_size - 1);
        highest = value > highest ? value : highest;
    }
    size_t i;
    json_t *added;
    json_array_foreach(json_object_get(b->json, "added_tokens"), i, added)
    {
        json_int_t value = json_integer_value(json_object_get(added, "id"));
        if (value < b->vocab_size && value > highest) // higher ids have no embedding: add_added leaves them out
            highest = value;
    }
    if (highest < 0)
        return bad(b, "has no tokens");
    b->record.n_tokens = (uint32_t)highest + 1;
    return BNT_OK;
}

static bool allocate(struct builder *b)
{
    size_t n = (size_t)b->record.n_tokens + 1;
    size_t merges = json_array_size(json_object_get(b->model, "merges")) + 1;
    b->token = calloc(n, sizeof b->token[0]);
    b->token_size = calloc(n, sizeof b->token_size[0]);
    b->attr = calloc(n, 1);
    b->mergeable = calloc(n, sizeof b->mergeable[0]);
    b->token_offset = calloc(n, sizeof b->token_offset[0]);
    b->lookup = calloc(n, sizeof b->lookup[0]);
    b->merges = calloc(merges, sizeof b->merges[0]);
    return b->token && b->token_size && b->attr && b->mergeable && b->token_offset && b->lookup && b->merges;
}

static enum bnt_status add_vocabulary(struct builder *b)
{
    const char *text;
    json_t *id;
    json_object_foreach(json_object_get(b->model, "vocab"), text, id)
    {
        size_t n, size = strlen(text);
        size_t i = (size_t)json_integer_value(id);
        if (b->token[i])
            return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: tokens '%s' and '%s' have the same id %zu", file_name,
                            b->token[i], text, i);
        b->token[i] = text;
        b->token_size[i] = size;
        b->mergeable[i] = size > 0 && to_bytes(b, text, size, NULL, &n);
    }
    return BNT_OK;
}

// --- added tokens ---

static enum bnt_status add_added_token(struct builder *b, const json_t *entry)
{
    const json_t *content = json_object_get(entry, "content");
    const json_t *id = json_object_get(entry, "id");
    size_t size = json_string_length(content);
    const char *text = json_string_value(content);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || size == 0)
        return bad(b, "an added token lacks its id or content");
    if (json_integer_value(id) >= b->vocab_size)
        return BNT_OK; // the model has no embedding for it
    size_t i = (size_t)json_integer_value(id);
    if (b->token[i] && (b->token_size[i] != size || memcmp(b->token[i], text, size) != 0))
        return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: added token '%s' has the id of token '%s'", file_name, text,
                        b->token[i]);
    b->token[i] = text;
    b->token_size[i] = size;
    bool special = bnt_json_true(entry, "special");
    b->attr[i] = (uint8_t)(BNT_ATTR_ADDED | (special ? BNT_ATTR_SPECIAL : 0));
    struct bnt_added_record record = {
        .id = (uint32_t)i,
        .flags = (special ? BNT_ADDED_SPECIAL : 0u) | (bnt_json_true(entry, "single_word") ? BNT_ADDED_SINGLE_WORD : 0u) |
                 (bnt_json_true(entry, "lstrip") ? BNT_ADDED_LSTRIP : 0u) |
                 (bnt_json_true(entry, "rstrip") ? BNT_ADDED_RSTRIP : 0u),
        .size = (uint32_t)size,
    };
    bnt_buffer_put(&b->added, &record, sizeof record);
    b->record.n_added++;
    return BNT_OK;
}

static enum bnt_status add_added(struct builder *b)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(b->json, "added_tokens"), i, entry)
    {
        enum bnt_status status = add_added_token(b, entry);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

// --- the tokens' bytes ---

// What ids decode to, in their order. A text with characters outside the alphabet stands for itself.
static enum bnt_status put_tokens(struct builder *b)
{
    for (uint32_t i = 0; i < b->record.n_tokens; i++) {
        b->token_offset[i] = (uint32_t)b->pool.size;
        if (!b->token[i]) {
            b->attr[i] = BNT_ATTR_ABSENT;
            continue;
        }
        size_t size;
        uint8_t *bytes = malloc(b->token_size[i] + 1);
        if (!bytes)
            return no_memory(b);
        if (to_bytes(b, b->token[i], b->token_size[i], bytes, &size))
            bnt_buffer_put(&b->pool, bytes, size);
        else
            bnt_buffer_put(&b->pool, b->token[i], b->token_size[i]);
        free(bytes);
    }
    b->token_offset[b->record.n_tokens] = (uint32_t)b->pool.size;
    return b->pool.failed ? no_memory(b) : BNT_OK;
}

static int compare_tokens(const struct builder *b, uint32_t x, const uint8_t *bytes, size_t size)
{
    size_t x_size = b->token_offset[x + 1] - b->token_offset[x];
    size_t common = x_size < size ? x_size : size;
    int order = common ? memcmp(b->pool.data + b->token_offset[x], bytes, common) : 0;
    return order ? order : (x_size > size) - (x_size < size);
}

// qsort takes no context; building is single-threaded and this is set just around the call.
static const struct builder *sorting;

static int compare_lookup(const void *a, const void *c)
{
    uint32_t y = *(const uint32_t *)c;
    return compare_tokens(sorting, *(const uint32_t *)a, sorting->pool.data + sorting->token_offset[y],
                          sorting->token_offset[y + 1] - sorting->token_offset[y]);
}

static void make_lookup(struct builder *b)
{
    for (uint32_t i = 0; i < b->record.n_tokens; i++) {
        if (b->mergeable[i])
            b->lookup[b->record.n_lookup++] = i;
    }
    sorting = b;
    qsort(b->lookup, b->record.n_lookup, sizeof b->lookup[0], compare_lookup);
    sorting = NULL;
}

// The id of the lookup token with these bytes, or −1.
static int64_t find_bytes(const struct builder *b, const uint8_t *bytes, size_t size)
{
    uint32_t low = 0, high = b->record.n_lookup;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = compare_tokens(b, b->lookup[middle], bytes, size);
        if (order == 0)
            return b->lookup[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

// --- merges ---

// The two texts of a merge: ["a", "b"] or, older, "a b".
static bool split_merge(const json_t *merge, const char *part[2], size_t size[2])
{
    if (json_is_array(merge)) {
        for (size_t i = 0; i < 2; i++) {
            part[i] = json_string_value(json_array_get(merge, i));
            size[i] = json_string_length(json_array_get(merge, i));
        }
        return json_array_size(merge) == 2 && part[0] && part[1];
    }
    const char *text = json_string_value(merge);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return false;
    part[0] = text;
    size[0] = (size_t)(space - text);
    part[1] = space + 1;
    size[1] = json_string_length(merge) - size[0] - 1;
    return true;
}

// Returns false for a merge that is malformed or whose parts or result are no tokens.
static bool resolve_merge(const struct builder *b, const char *const part[2], const size_t size[2],
                          struct bnt_merge_record *out)
{
    uint8_t *bytes = malloc(size[0] + size[1] + 1);
    size_t left, right;
    int64_t id[3] = {-1, -1, -1};
    if (bytes && to_bytes(b, part[0], size[0], bytes, &left) && to_bytes(b, part[1], size[1], bytes + left, &right)) {
        id[0] = find_bytes(b, bytes, left);
        id[1] = find_bytes(b, bytes + left, right);
        id[2] = find_bytes(b, bytes, left + right);
    }
    free(bytes);
    *out = (struct bnt_merge_record){.left = (uint32_t)id[0], .right = (uint32_t)id[1], .result = (uint32_t)id[2]};
    return id[0] >= 0 && id[1] >= 0 && id[2] >= 0;
}

static int compare_merges(const void *a, const void *c)
{
    const struct bnt_merge_record *x = a;
    const struct bnt_merge_record *y = c;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static enum bnt_status add_merges(struct builder *b)
{
    size_t i;
    json_t *merge;
    json_array_foreach(json_object_get(b->model, "merges"), i, merge)
    {
        const char *part[2];
        size_t size[2];
        if (!split_merge(merge, part, size) || !resolve_merge(b, part, size, &b->merges[i]))
            return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: merge %zu does not join two tokens to a third", file_name, i);
        b->merges[i].rank = (uint32_t)i;
        b->record.n_merges++;
    }
    qsort(b->merges, b->record.n_merges, sizeof b->merges[0], compare_merges);
    for (uint32_t j = 1; j < b->record.n_merges; j++) {
        if (compare_merges(&b->merges[j - 1], &b->merges[j]) == 0)
            return bad(b, "two merges join the same pair");
    }
    return BNT_OK;
}

// --- pre-tokenizer ---

static enum bnt_status add_step(struct builder *b, uint8_t behavior, bool invert, const char *pattern, size_t size,
                                bool literal)
{
    struct bnt_step_record step = {.type = BNT_STEP_SPLIT, .behavior = behavior, .invert = invert};
    size_t start = b->pool.size;
    enum bnt_status status = BNT_OK;
    if (literal)
        bnt_pattern_quote(pattern, size, &b->pool);
    else
        status = bnt_pattern_translate(pattern, size, &b->pool, b->err);
    if (status == BNT_OK && b->pool.failed)
        return no_memory(b);
    if (status == BNT_OK)
        status = bnt_pattern_check(b->pool.data + start, b->pool.size - start, b->err);
    if (status != BNT_OK) {
        bnt_fail_prefix(b->err, file_name);
        return status;
    }
    step.offset = (uint32_t)start;
    step.size = (uint32_t)(b->pool.size - start);
    bnt_buffer_put(&b->steps, &step, sizeof step);
    b->record.n_steps++;
    return BNT_OK;
}

static enum bnt_status add_regex(struct builder *b, uint8_t behavior, const char *pattern)
{
    return add_step(b, behavior, false, pattern, strlen(pattern), false);
}

static bool find_behavior(const char *name, uint8_t *behavior)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    for (uint8_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            *behavior = i;
            return true;
        }
    }
    return false;
}

static enum bnt_status add_split(struct builder *b, const json_t *step)
{
    uint8_t behavior;
    const char *name = bnt_json_text(step, "behavior", "");
    if (!find_behavior(name, &behavior))
        return refuse(b, "split behavior", name);
    const json_t *pattern = json_object_get(step, "pattern");
    const json_t *regex = bnt_json_get(pattern, "Regex");
    const json_t *text = regex ? regex : bnt_json_get(pattern, "String");
    if (json_string_length(text) == 0)
        return bad(b, "a Split has no pattern");
    return add_step(b, behavior, bnt_json_true(step, "invert"), json_string_value(text), json_string_length(text), !regex);
}

static enum bnt_status add_byte_level(struct builder *b, const json_t *step)
{
    // The words of GPT-2; ByteLevel splits by them unless told not to.
    static const char words[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
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

static enum bnt_status add_punctuation(struct builder *b, const json_t *step)
{
    uint8_t behavior;
    const char *name = bnt_json_text(step, "behavior", "Isolated");
    if (!find_behavior(name, &behavior))
        return refuse(b, "Punctuation behavior", name);
    return add_regex(b, behavior, "[\\p{P}$+<=>^`|~]"); // ASCII punctuation that Unicode calls symbols counts too
}

static enum bnt_status add_pre_tokenizer(struct builder *b, const json_t *step);

static enum bnt_status add_sequence(struct builder *b, const json_t *sequence)
{
    size_t i;
    json_t *step;
    json_array_foreach(json_object_get(sequence, "pretokenizers"), i, step)
    {
        const char *type = bnt_json_text(step, "type", "?");
        if (strcmp(type, "Sequence") == 0)
            return refuse(b, "pre-tokenizer inside a Sequence", type);
        if (b->byte_level)
            return refuse(b, "pre-tokenizer after ByteLevel", type);
        enum bnt_status status = add_pre_tokenizer(b, step);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

static enum bnt_status add_pre_tokenizer(struct builder *b, const json_t *step)
{
    const char *type = bnt_json_text(step, "type", "(none)");
    if (strcmp(type, "Sequence") == 0)
        return add_sequence(b, step);
    if (strcmp(type, "Split") == 0)
        return add_split(b, step);
    if (strcmp(type, "ByteLevel") == 0)
        return add_byte_level(b, step);
    if (strcmp(type, "Digits") == 0)
        return add_regex(b, bnt_json_true(step, "individual_digits") ? BNT_SPLIT_ISOLATED : BNT_SPLIT_CONTIGUOUS, "\\p{N}");
    if (strcmp(type, "Punctuation") == 0)
        return add_punctuation(b, step);
    return refuse(b, "pre-tokenizer", type);
}

static enum bnt_status add_steps(struct builder *b)
{
    enum bnt_status status = add_pre_tokenizer(b, bnt_json_get(b->json, "pre_tokenizer"));
    if (status == BNT_OK && !b->byte_level)
        return refuse(b, "pre-tokenizer without", "ByteLevel");
    const char *decoder = bnt_json_text(bnt_json_get(b->json, "decoder"), "type", "(none)");
    return status == BNT_OK && strcmp(decoder, "ByteLevel") != 0 ? refuse(b, "decoder", decoder) : status;
}

// --- post-processor ---

static enum bnt_status put_special(struct builder *b, const json_t *processor, const char *name, struct bnt_buffer *out,
                                   uint32_t *count)
{
    const json_t *special = json_object_get(json_object_get(processor, "special_tokens"), name);
    const json_t *ids = json_object_get(special, "ids");
    size_t i;
    json_t *id;
    if (json_array_size(ids) == 0)
        return bad(b, "the template names a special token that it does not define");
    json_array_foreach((json_t *)ids, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= b->record.n_tokens)
            return bad(b, "the template's special token has an id that is no token");
        uint32_t value = (uint32_t)json_integer_value(id);
        bnt_buffer_put(out, &value, sizeof value);
        *count += 1;
    }
    return BNT_OK;
}

static enum bnt_status add_template(struct builder *b, const json_t *processor)
{
    size_t i;
    json_t *piece;
    bool after = false; // the text itself has come
    json_array_foreach(json_object_get(processor, "single"), i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken");
        if (!special) {
            if (after || !json_object_get(piece, "Sequence"))
                return bad(b, "the template must hold the text once");
            after = true;
            continue;
        }
        enum bnt_status status = put_special(b, processor, bnt_json_text(special, "id", ""),
                                             after ? &b->suffix : &b->prefix,
                                             after ? &b->record.n_suffix : &b->record.n_prefix);
        if (status != BNT_OK)
            return status;
    }
    return after ? BNT_OK : bad(b, "the template must hold the text once");
}

static enum bnt_status add_post_processor(struct builder *b, const json_t *processor)
{
    const char *type = bnt_json_text(processor, "type", "ByteLevel");
    if (strcmp(type, "ByteLevel") == 0) // trims offsets, which we do not report
        return BNT_OK;
    if (strcmp(type, "TemplateProcessing") == 0)
        return b->record.n_prefix || b->record.n_suffix ? bad(b, "two templates") : add_template(b, processor);
    if (strcmp(type, "Sequence") != 0)
        return refuse(b, "post-processor", type);
    size_t i;
    json_t *inner;
    json_array_foreach(json_object_get(processor, "processors"), i, inner)
    {
        if (strcmp(bnt_json_text(inner, "type", ""), "Sequence") == 0)
            return refuse(b, "post-processor inside a Sequence", "Sequence");
        enum bnt_status status = add_post_processor(b, inner);
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

// --- the section ---

// The texts of the added tokens follow the tokens' bytes in the pool.
static void put_added_texts(struct builder *b)
{
    struct bnt_added_record *added = (void *)b->added.data;
    for (uint32_t i = 0; i < b->record.n_added; i++) {
        added[i].offset = (uint32_t)b->pool.size;
        bnt_buffer_put(&b->pool, b->token[added[i].id], b->token_size[added[i].id]);
    }
}

static enum bnt_status collect(struct builder *b)
{
    enum bnt_status status = check_model(b);
    if (status == BNT_OK)
        status = count_tokens(b);
    if (status == BNT_OK && !allocate(b))
        status = no_memory(b);
    if (status == BNT_OK)
        status = add_vocabulary(b);
    if (status == BNT_OK)
        status = add_added(b);
    if (status == BNT_OK)
        status = put_tokens(b);
    if (status != BNT_OK)
        return status;
    make_lookup(b);
    put_added_texts(b);
    status = add_merges(b);
    if (status == BNT_OK)
        status = add_steps(b);
    return status == BNT_OK ? add_post_processor(b, bnt_json_get(b->json, "post_processor")) : status;
}

static enum bnt_status assemble(struct builder *b, const char *chat, size_t chat_size, struct bnt_buffer *out)
{
    struct bnt_tokenizer_record *r = &b->record;
    r->kind = BNT_TOKENIZER_BYTE_BPE;
    r->chat_offset = chat_size ? (uint32_t)b->pool.size : 0;
    r->chat_size = (uint32_t)chat_size;
    bnt_buffer_put(&b->pool, chat, chat_size);
    r->pool_size = (uint32_t)b->pool.size;
    bnt_buffer_put(out, r, sizeof *r);
    bnt_buffer_put(out, b->token_offset, ((size_t)r->n_tokens + 1) * 4);
    bnt_buffer_put(out, b->lookup, (size_t)r->n_lookup * 4);
    bnt_buffer_put(out, b->merges, (size_t)r->n_merges * sizeof b->merges[0]);
    bnt_buffer_put(out, b->added.data, b->added.size);
    bnt_buffer_put(out, b->steps.data, b->steps.size);
    bnt_buffer_put(out, b->prefix.data, b->prefix.size);
    bnt_buffer_put(out, b->suffix.data, b->suffix.size);
    bnt_buffer_put(out, b->attr, r->n_tokens);
    bnt_buffer_put(out, b->pool.data, b->pool.size);
    bool failed = out->failed || b->added.failed || b->steps.failed || b->prefix.failed || b->suffix.failed || b->pool.failed;
    return failed ? no_memory(b) : BNT_OK;
}

static void keep_first(void *context, const char *rule, const char *message)
{
    struct builder *b = context;
    (void)bnt_fail(b->err, BNT_ERR_UNSUPPORTED, "%s: cannot be stored: %s (%s)", file_name, message, rule);
}

// What we made must pass the reader's checks; this also catches what those forbid and nothing above looked at.
static enum bnt_status check_section(struct builder *b, const struct bnt_buffer *out)
{
    struct bnt_tokenizer_view view;
    struct bnt_report report = {.found = keep_first, .context = b};
    return bnt_tokenizer_view_open(&view, out->data, out->size, b->vocab_size, &report) ? BNT_OK : BNT_ERR_UNSUPPORTED;
}

static void free_builder(struct builder *b)
{
    free(b->token);
    free(b->token_size);
    free(b->attr);
    free(b->mergeable);
    free(b->token_offset);
    free(b->lookup);
    free(b->merges);
    bnt_buffer_free(&b->added);
    bnt_buffer_free(&b->steps);
    bnt_buffer_free(&b->prefix);
    bnt_buffer_free(&b->suffix);
    bnt_buffer_free(&b->pool);
}

enum bnt_status bnt_tokenizer_build(const char *json, size_t size, const char *chat, size_t chat_size, uint32_t vocab_size,
                                    struct bnt_buffer *out, struct bnt_error *err)
{
    json_t *root;
    enum bnt_status status = bnt_json_parse(json, size, file_name, &root, err);
    if (status != BNT_OK)
        return status;
    struct builder b = {.json = root, .vocab_size = vocab_size, .err = err};
    make_alphabet(&b);
    status = collect(&b);
    if (status == BNT_OK)
        status = assemble(&b, chat, chat_size, out);
    if (status == BNT_OK)
        status = check_section(&b, out);
    free_builder(&b);
    json_decref(root);
    return status;
}
