// SPDX-License-Identifier: MIT
#include "pack/tokenizer_builder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/byte_level.h"
#include "formats/json.h"
#include "formats/utf8.h"

// The byte of a byte token's text, "<0x0A>", or −1.
static int byte_token(const struct tokenizer_builder *b, const char *text, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    if (!(b->record.flags & BNT_TOKENIZER_BYTE_FALLBACK) || size != 6 ||
        memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    const char *high = memchr(digits, text[3], 16);
    const char *low = memchr(digits, text[4], 16);
    return high && low ? (int)(high - digits) * 16 + (int)(low - digits) : -1;
}

// --- model ---

static enum bnt_status check_empty(struct tokenizer_builder *b, const char *key)
{
    const char *value = bnt_json_text(b->model, key, "");
    return value[0] ? bnt_builder_refuse(b, key, value) : BNT_OK;
}

enum bnt_status bnt_builder_check_model(struct tokenizer_builder *b)
{
    b->model = bnt_json_get(b->json, "model");
    const char *type =
        bnt_json_text(b->model, "type", bnt_json_get(b->model, "merges") ? "BPE" : "(none)");
    if (strcmp(type, "BPE") != 0)
        return bnt_builder_refuse(b, "model type", type);
    static const struct {
        const char *key;
        uint32_t flag;
    } flags[] = {
        {"ignore_merges", BNT_TOKENIZER_IGNORE_MERGES},
        {"byte_fallback", BNT_TOKENIZER_BYTE_FALLBACK},
        {"fuse_unk", BNT_TOKENIZER_FUSE_UNK},
    };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (bnt_json_true(b->model, flags[i].key))
            b->record.flags |= flags[i].flag;
    }
    if (json_number_value(bnt_json_get(b->model, "dropout")) != 0)
        return bnt_builder_refuse(b, "dropout", "other than 0"); // tokens would be random
    return check_empty(b, "continuing_subword_prefix");
}

// The id of the unknown token, if it has one.
static enum bnt_status find_unk(struct tokenizer_builder *b)
{
    const char *unk = bnt_json_text(b->model, "unk_token", NULL);
    b->record.unk_id = BNT_NO_TOKEN;
    if (!unk)
        return BNT_OK;
    const json_t *id = json_object_get(json_object_get(b->model, "vocab"), unk);
    if (!id)
        return bnt_builder_bad(b, "unk_token is not in the vocabulary");
    b->record.unk_id = (uint32_t)json_integer_value(id); // count_tokens checked all ids
    return BNT_OK;
}

// One more than the highest id below vocab_size in the vocabulary and the added tokens.
static enum bnt_status count_tokens(struct tokenizer_builder *b)
{
    const char *text;
    json_t *id;
    json_int_t highest = -1;
    json_object_foreach(json_object_get(b->model, "vocab"), text, id)
    {
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= b->vocab_size)
            return bnt_fail(b->err, BNT_ERR_FORMAT,
                            "%s: the id of token '%s' is not in 0 … vocab_size − 1 = %" PRIu32,
                            "tokenizer.json", text, b->vocab_size - 1);
        highest = value > highest ? value : highest;
    }
    size_t i;
    json_t *added;
    json_array_foreach(json_object_get(b->json, "added_tokens"), i, added)
    {
        json_int_t value = json_integer_value(json_object_get(added, "id"));
        if (value < b->vocab_size &&
            value > highest) // higher ids have no embedding: add_added leaves them out
            highest = value;
    }
    if (highest < 0)
        return bnt_builder_bad(b, "has no tokens");
    b->record.n_tokens = (uint32_t)highest + 1;
    return BNT_OK;
}

static bool allocate(struct tokenizer_builder *b)
{
    size_t n = (size_t)b->record.n_tokens + 1;
    size_t merges = json_array_size(json_object_get(b->model, "merges")) + 1;
    b->token = calloc(n, sizeof b->token[0]);
    b->token_size = calloc(n, sizeof b->token_size[0]);
    b->attr = calloc(n, 1);
    b->mergeable = calloc(n, sizeof b->mergeable[0]);
    b->normalized = calloc(n, sizeof b->normalized[0]);
    b->token_offset = calloc(n, sizeof b->token_offset[0]);
    b->lookup = calloc(n, sizeof b->lookup[0]);
    b->merges = calloc(merges, sizeof b->merges[0]);
    return b->token && b->token_size && b->attr && b->mergeable && b->normalized &&
           b->token_offset && b->lookup && b->merges;
}

static enum bnt_status add_vocabulary(struct tokenizer_builder *b)
{
    const char *text;
    json_t *id;
    json_object_foreach(json_object_get(b->model, "vocab"), text, id)
    {
        size_t size = strlen(text);
        size_t i = (size_t)json_integer_value(id);
        if (b->token[i])
            return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: tokens '%s' and '%s' have the same id %zu",
                            "tokenizer.json", b->token[i], text, i);
        b->token[i] = text;
        b->token_size[i] = size;
        if (byte_token(b, text, size) >= 0)
            b->attr[i] |= BNT_ATTR_BYTE;
        else
            b->mergeable[i] = size > 0;
    }
    return BNT_OK;
}

// --- added tokens ---

static enum bnt_status add_added_token(struct tokenizer_builder *b, const json_t *entry)
{
    const json_t *content = json_object_get(entry, "content");
    const json_t *id = json_object_get(entry, "id");
    size_t size = json_string_length(content);
    const char *text = json_string_value(content);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || size == 0)
        return bnt_builder_bad(b, "an added token lacks its id or content");
    if (json_integer_value(id) >= b->vocab_size)
        return BNT_OK; // the model has no embedding for it
    size_t i = (size_t)json_integer_value(id);
    if (b->token[i] && (b->token_size[i] != size || memcmp(b->token[i], text, size) != 0))
        return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: added token '%s' has the id of token '%s'",
                        "tokenizer.json", text, b->token[i]);
    b->token[i] = text;
    b->token_size[i] = size;
    bool special = bnt_json_true(entry, "special");
    b->attr[i] =
        (uint8_t)((b->attr[i] & BNT_ATTR_BYTE) | BNT_ATTR_ADDED | (special ? BNT_ATTR_SPECIAL : 0));
    bool normalized = bnt_json_true(entry, "normalized"); // also without a normalizer: two passes
    b->normalized[i] = normalized;
    struct bnt_added_record record = {
        .id = (uint32_t)i,
        .flags = (special ? BNT_ADDED_SPECIAL : 0u) | (normalized ? BNT_ADDED_NORMALIZED : 0u) |
                 (bnt_json_true(entry, "single_word") ? BNT_ADDED_SINGLE_WORD : 0u) |
                 (bnt_json_true(entry, "lstrip") ? BNT_ADDED_LSTRIP : 0u) |
                 (bnt_json_true(entry, "rstrip") ? BNT_ADDED_RSTRIP : 0u),
        .size = (uint32_t)size,
    };
    bnt_buffer_put(&b->added, &record, sizeof record);
    b->record.n_added++;
    return BNT_OK;
}

static enum bnt_status add_added(struct tokenizer_builder *b)
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

// The bytes of one token with this text. A text that no input leads to stands for itself.
static void put_text(struct tokenizer_builder *b, uint32_t i, const char *text, size_t size)
{
    const size_t start = b->pool.size;
    int byte = byte_token(b, text, size);
    if (b->attr[i] & (BNT_ATTR_BYTE | BNT_ATTR_ADDED) && byte >= 0) {
        const uint8_t one = (uint8_t)byte;
        bnt_buffer_put(&b->pool, &one, 1);
    } else if (b->attr[i] & BNT_ATTR_ADDED && b->record.kind == BNT_TOKENIZER_CHARACTER_BPE) {
        bnt_builder_put_text(b, text, size, &b->pool);
    } else if (!bnt_builder_put_matched(b, text, size, &b->pool)) {
        b->pool.size = start;
        b->mergeable[i] = false;
        bnt_builder_put_text(b, text, size, &b->pool);
    }
}

static enum bnt_status put_token(struct tokenizer_builder *b, uint32_t i)
{
    struct bnt_buffer text = {0};
    enum bnt_status status = BNT_OK;
    // The decoder drops marks at the start of the first token, but not spaces, which are the same
    // in the section.
    if (b->record.flags & BNT_TOKENIZER_STRIP_FIRST && b->attr[i] & BNT_ATTR_ADDED &&
        memchr(b->token[i], ' ', b->token_size[i]))
        return bnt_builder_refuse(b, "decoder Metaspace with a space in added token", b->token[i]);
    if (!b->normalized[i]) {
        // It decodes to its byte, as the decoder makes it, but does not stand for the byte of an
        // unknown character; a flag could say only both.
        bool alone = b->attr[i] & BNT_ATTR_ADDED && !(b->attr[i] & BNT_ATTR_BYTE);
        if (alone && byte_token(b, b->token[i], b->token_size[i]) >= 0x80)
            return bnt_builder_refuse(b, "byte outside of the vocabulary, added token",
                                      b->token[i]);
        put_text(b, i, b->token[i], b->token_size[i]);
    } else {
        status = bnt_builder_put_normalized(b, b->token[i], b->token_size[i], &text);
        if (status == BNT_OK && !text.failed)
            put_text(b, i, (const char *)text.data, text.size);
    }
    b->pool.failed |= text.failed;
    bnt_buffer_free(&text);
    return status;
}

// What ids decode to, in their order.
static enum bnt_status put_tokens(struct tokenizer_builder *b)
{
    for (uint32_t i = 0; i < b->record.n_tokens; i++) {
        b->token_offset[i] = (uint32_t)b->pool.size;
        enum bnt_status status = BNT_OK;
        if (b->token[i])
            status = put_token(b, i);
        else
            b->attr[i] = BNT_ATTR_ABSENT;
        if (status != BNT_OK)
            return status;
    }
    b->token_offset[b->record.n_tokens] = (uint32_t)b->pool.size;
    return b->pool.failed ? bnt_builder_no_memory(b) : BNT_OK;
}

static int compare_tokens(const struct tokenizer_builder *b, uint32_t x, const uint8_t *bytes,
                          size_t size)
{
    size_t x_size = b->token_offset[x + 1] - b->token_offset[x];
    size_t common = x_size < size ? x_size : size;
    int order = common ? memcmp(b->pool.data + b->token_offset[x], bytes, common) : 0;
    return order ? order : (x_size > size) - (x_size < size);
}

// qsort takes no context; building is single-threaded and this is set just around the call.
static const struct tokenizer_builder *sorting;

static int compare_lookup(const void *a, const void *c)
{
    uint32_t y = *(const uint32_t *)c;
    return compare_tokens(sorting, *(const uint32_t *)a,
                          sorting->pool.data + sorting->token_offset[y],
                          sorting->token_offset[y + 1] - sorting->token_offset[y]);
}

static void make_lookup(struct tokenizer_builder *b)
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
static int64_t find_bytes(const struct tokenizer_builder *b, const uint8_t *bytes, size_t size)
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

// Returns false for a merge whose parts or result are no tokens.
static bool resolve_merge(const struct tokenizer_builder *b, const char *const part[2],
                          const size_t size[2], struct bnt_merge_record *out)
{
    struct bnt_buffer bytes = {0};
    int64_t id[3] = {-1, -1, -1};
    size_t left = 0;
    bool ok = bnt_builder_put_matched(b, part[0], size[0], &bytes);
    if (ok) {
        left = bytes.size;
        ok = bnt_builder_put_matched(b, part[1], size[1], &bytes) && bytes.size > left && left > 0;
    }
    if (ok) {
        id[0] = find_bytes(b, bytes.data, left);
        id[1] = find_bytes(b, bytes.data + left, bytes.size - left);
        id[2] = find_bytes(b, bytes.data, bytes.size);
    }
    bnt_buffer_free(&bytes);
    *out = (struct bnt_merge_record){
        .left = (uint32_t)id[0], .right = (uint32_t)id[1], .result = (uint32_t)id[2]};
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

static enum bnt_status add_merges(struct tokenizer_builder *b)
{
    size_t i;
    json_t *merge;
    json_array_foreach(json_object_get(b->model, "merges"), i, merge)
    {
        const char *part[2];
        size_t size[2];
        if (!split_merge(merge, part, size) || !resolve_merge(b, part, size, &b->merges[i]))
            return bnt_fail(b->err, BNT_ERR_FORMAT,
                            "%s: merge %zu does not join two tokens to a third", "tokenizer.json",
                            i);
        b->merges[i].rank = (uint32_t)i;
        b->record.n_merges++;
    }
    qsort(b->merges, b->record.n_merges, sizeof b->merges[0], compare_merges);
    for (uint32_t j = 1; j < b->record.n_merges; j++) {
        if (compare_merges(&b->merges[j - 1], &b->merges[j]) == 0)
            return bnt_builder_bad(b, "two merges join the same pair");
    }
    return BNT_OK;
}

enum bnt_status bnt_builder_add_vocabulary(struct tokenizer_builder *b)
{
    enum bnt_status status = count_tokens(b);
    if (status == BNT_OK)
        status = find_unk(b);
    if (status == BNT_OK && !allocate(b))
        status = bnt_builder_no_memory(b);
    if (status == BNT_OK)
        status = add_vocabulary(b);
    if (status == BNT_OK)
        status = add_added(b);
    if (status == BNT_OK)
        status = put_tokens(b);
    if (status != BNT_OK)
        return status;
    make_lookup(b);
    return add_merges(b);
}
