// SPDX-License-Identifier: MIT
#include "pack/tokenizer_json.h"

#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/normalize.h"
#include "formats/tokenizer_view.h"
#include "pack/tokenizer_builder.h"

static const char file_name[] = "tokenizer.json";

// qsort takes no context; building is single-threaded and this is set just around the call.
static const uint8_t *sorting_pool;

static int compare_added(const void *a, const void *c)
{
    const struct bnt_added_record *x = a;
    const struct bnt_added_record *y = c;
    size_t common = x->size < y->size ? x->size : y->size;
    int order = memcmp(sorting_pool + x->offset, sorting_pool + y->offset, common);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

// Puts the added tokens in the order of their texts (R25), and the texts in the pool in that order.
static enum bnt_status put_added_texts(struct tokenizer_builder *b)
{
    struct bnt_added_record *added = (void *)b->added.data;
    struct bnt_buffer tokens =
        b->pool; // the pool so far; the texts are collected in one of their own
    struct bnt_buffer texts = {0};
    enum bnt_status status = BNT_OK;
    b->pool = texts;
    for (uint32_t i = 0; i < b->record.n_added && status == BNT_OK; i++) {
        const char *text = b->token[added[i].id];
        size_t size = b->token_size[added[i].id];
        added[i].offset = (uint32_t)b->pool.size;
        if (added[i].flags & BNT_ADDED_NORMALIZED)
            status = bnt_builder_put_normalized(b, text, size, &b->pool);
        else
            bnt_buffer_put(&b->pool, text, size);
        added[i].size = (uint32_t)b->pool.size - added[i].offset;
    }
    texts = b->pool;
    b->pool = tokens;
    if (status == BNT_OK && !texts.failed && b->record.n_added > 0) {
        sorting_pool = texts.data;
        qsort(added, b->record.n_added, sizeof added[0], compare_added);
        sorting_pool = NULL;
        for (uint32_t i = 0; i < b->record.n_added; i++) {
            uint32_t from = added[i].offset;
            added[i].offset = (uint32_t)b->pool.size;
            bnt_buffer_put(&b->pool, texts.data + from, added[i].size);
        }
    }
    b->pool.failed |= texts.failed;
    bnt_buffer_free(&texts);
    return status;
}

static void put_step_texts(struct tokenizer_builder *b)
{
    struct bnt_step_record *steps = (void *)b->steps.data;
    for (uint32_t i = 0; i < b->record.n_steps; i++)
        steps[i].offset = steps[i].size ? steps[i].offset + (uint32_t)b->pool.size : 0;
    bnt_buffer_put(&b->pool, b->step_texts.data, b->step_texts.size);
}

static enum bnt_status assemble(struct tokenizer_builder *b, const char *chat, size_t chat_size,
                                struct bnt_buffer *out)
{
    struct bnt_tokenizer_record *r = &b->record;
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
    bool failed = out->failed || b->added.failed || b->steps.failed || b->prefix.failed ||
                  b->suffix.failed || b->pool.failed;
    return failed ? bnt_builder_no_memory(b) : BNT_OK;
}

static void keep_first(void *context, const char *rule, const char *message)
{
    struct tokenizer_builder *b = context;
    (void)bnt_fail(b->err, BNT_ERR_UNSUPPORTED, "%s: cannot be stored: %s (%s)", file_name, message,
                   rule);
}

// What we made must pass the reader's checks; this also catches what those forbid and nothing above
// looked at.
static enum bnt_status check_section(struct tokenizer_builder *b, const struct bnt_buffer *out)
{
    struct bnt_tokenizer_view view;
    struct bnt_report report = {.found = keep_first, .context = b};
    return bnt_tokenizer_view_open(&view, out->data, out->size, b->vocab_size, &report)
               ? BNT_OK
               : BNT_ERR_UNSUPPORTED;
}

static void free_builder(struct tokenizer_builder *b)
{
    free(b->token);
    free(b->token_size);
    free(b->attr);
    free(b->mergeable);
    free(b->normalized);
    free(b->token_offset);
    free(b->lookup);
    free(b->merges);
    bnt_buffer_free(&b->added);
    bnt_buffer_free(&b->steps);
    bnt_buffer_free(&b->prefix);
    bnt_buffer_free(&b->suffix);
    bnt_buffer_free(&b->pool);
    bnt_buffer_free(&b->step_texts);
}

// What is read of the file must be what it says.
static enum bnt_status check_values(struct tokenizer_builder *b)
{
    static const char *const used[] = {"model",         "added_tokens", "normalizer",
                                       "pre_tokenizer", "decoder",      "post_processor"};
    char path[BNT_JSON_PATH];
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++) {
        if (bnt_json_find_strange(json_object_get(b->json, used[i]), path))
            return bnt_fail(b->err, BNT_ERR_FORMAT, "%s: %s%s%s " BNT_JSON_STRANGE, file_name,
                            used[i], path[0] ? "." : "", path);
    }
    return BNT_OK;
}

enum bnt_status bnt_tokenizer_build(const char *json, size_t size, const char *chat,
                                    size_t chat_size, uint32_t vocab_size, struct bnt_buffer *out,
                                    struct bnt_error *err)
{
    json_t *root;
    enum bnt_status status = bnt_json_parse(json, size, file_name, &root, err);
    if (status != BNT_OK)
        return status;
    struct tokenizer_builder b = {.json = root, .vocab_size = vocab_size, .err = err};
    status = check_values(&b);
    if (status == BNT_OK)
        status = bnt_builder_check_model(&b);
    if (status == BNT_OK)
        status = bnt_builder_find_kind(&b);
    if (status == BNT_OK)
        status = bnt_builder_add_normalizers(&b);
    if (status == BNT_OK)
        status = bnt_builder_add_vocabulary(&b);
    if (status == BNT_OK)
        status = bnt_builder_add_steps(&b);
    if (status == BNT_OK)
        status = put_added_texts(&b);
    if (status == BNT_OK)
        put_step_texts(&b);
    if (status == BNT_OK)
        status = assemble(&b, chat, chat_size, out);
    if (status == BNT_OK)
        status = check_section(&b, out);
    free_builder(&b);
    json_decref(root);
    return status;
}
