// SPDX-License-Identifier: MIT
#include "pack/pack.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/block.h"
#include "formats/cli.h"
#include "formats/config.h"
#include "formats/file.h"
#include "formats/foreign.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "formats/stream.h"
#include "formats/utf8.h"
#include "formats/writer.h"
#include "pack/chat_template.h"
#include "pack/job.h"
#include "pack/tokenizer_json.h"

// A tensor that the stream must hold: a weight, or the scale of one.
struct expected {
    char name[BNT_TENSOR_NAME_SIZE + 8];
    struct pack_tensor *tensor;
    bool is_scale;
    bool seen;
};

struct packer {
    int fd;
    const char *name;
    uint64_t read; // bytes of the stream, up to now
    const struct pack_options *options;
    struct bnt_st_header stream;
    struct bnt_config config;
    struct bnt_buffer tokenizer;
    struct bnt_chat_built chat;
    struct bnt_writer writer;
    struct pack_tensor *tensors; // one for each record of the stream's
    size_t n_tensors;
    struct expected *expected; // ascending by name
    size_t n_expected;
    struct pack_queue queue;
    bool queue_started;
    char *provenance; // as the stream has it
    size_t provenance_size;
    struct bnt_progress progress;
    struct bnt_error *err;
};

static enum bnt_status bad(struct packer *p, const char *what)
{
    return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: %s", p->name, what);
}

static enum bnt_status no_memory(struct packer *p)
{
    return bnt_fail(p->err, BNT_ERR_MEMORY, "%s: out of memory", p->name);
}

// --- reading ---

// The fault is with whoever wrote the stream. A command before a pipe has said what it was.
static enum bnt_status ended_early(struct packer *p, const char *what)
{
    struct stat st;
    bool is_file = fstat(p->fd, &st) == 0 && S_ISREG(st.st_mode);
    if (p->read == 0 && !is_file)
        return bnt_fail_empty(p->err, p->name);
    return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: the stream ends inside %s: %s", p->name, what,
                    is_file ? "truncated: make it anew with bnt-convert"
                            : "the command that writes it has stopped before its end");
}

static enum bnt_status read_exactly(struct packer *p, void *data, size_t size, const char *what)
{
    size_t got;
    enum bnt_status status = bnt_read_fully(p->fd, data, size, &got, p->err);
    if (status != BNT_OK) {
        bnt_fail_prefix(p->err, p->name);
        return status;
    }
    p->read += got;
    return got == size ? BNT_OK : ended_early(p, what);
}

static enum bnt_status read_header(struct packer *p)
{
    uint64_t length;
    enum bnt_status status = read_exactly(p, &length, sizeof length, "the header");
    if (status != BNT_OK)
        return status;
    if (length > BNT_ST_MAX_HEADER)
        return bnt_fail(p->err, BNT_ERR_FORMAT,
                        "%s: not a safetensors stream (its header would be over 100 MB)%s", p->name,
                        bnt_foreign_file(&length, sizeof length));
    char *text = malloc((size_t)length + 1);
    if (!text)
        return no_memory(p);
    status = read_exactly(p, text, (size_t)length, "the header");
    if (status == BNT_OK)
        status = bnt_st_parse(&p->stream, text, (size_t)length, p->name, p->err);
    free(text);
    size_t size;
    const char *version =
        status == BNT_OK ? bnt_st_metadata(&p->stream, BNT_STREAM_KEY, &size) : NULL;
    if (status == BNT_OK && (!version || strcmp(version, BNT_STREAM_VERSION) != 0))
        return bad(p, "not a ternary checkpoint of this version: make it with bnt-convert");
    return status;
}

static enum bnt_status read_config(struct packer *p)
{
    size_t size, generation_size;
    const char *text = bnt_st_metadata(&p->stream, "config.json", &size);
    const char *generation =
        bnt_st_metadata(&p->stream, "generation_config.json", &generation_size);
    if (!text)
        return bad(p, "the stream carries no config.json");
    enum bnt_status status = bnt_config_parse(&p->config, text, size, generation, generation_size,
                                              "config.json", p->err);
    if (status == BNT_OK && p->config.left_out[0])
        bnt_cli_note("%s: %s", p->name, p->config.left_out);
    struct bnt_config_file tokenizer, tokenizer_config;
    tokenizer.text = bnt_st_metadata(&p->stream, "tokenizer.json", &tokenizer.size);
    tokenizer_config.text =
        bnt_st_metadata(&p->stream, "tokenizer_config.json", &tokenizer_config.size);
    if (status == BNT_OK)
        status = bnt_config_default_eos(&p->config.hyper, tokenizer, tokenizer_config, p->err);
    if (status != BNT_OK)
        bnt_fail_prefix(p->err, p->name);
    if (status == BNT_OK && p->config.passed_over[0])
        bnt_cli_note("%s: generation_config.json asks for what bnt does not do: %s", p->name,
                     p->config.passed_over);
    return status;
}

// --- tokenizer ---

// The template's text: chat_template.jinja, else tokenizer_config.json's, one string or the
// "default" of several.
static const char *find_chat_template(const struct packer *p, const json_t *tokenizer_config,
                                      size_t *size)
{
    const char *file = bnt_st_metadata(&p->stream, "chat_template.jinja", size);
    if (file)
        return file;
    const json_t *value = bnt_json_get(tokenizer_config, "chat_template");
    size_t i;
    json_t *entry;
    json_array_foreach((json_t *)value, i, entry)
    {
        if (strcmp(bnt_json_text(entry, "name", ""), "default") == 0)
            value = bnt_json_get(entry, "template");
    }
    *size = json_string_length(value);
    return json_string_value(value);
}

static void ignore(void *context, const char *rule, const char *message)
{
    (void)context;
    (void)rule;
    (void)message; // bnt_tokenizer_build has checked what it made
}

// The text of the token with an id, or NULL; malloc'd.
static char *token_text(const struct bnt_tokenizer_view *v, uint32_t id)
{
    size_t size;
    if (id >= v->record.n_tokens)
        return NULL;
    const uint8_t *text = bnt_token_bytes(v, id, &size);
    return size && !memchr(text, '\0', size) ? strndup((const char *)text, size) : NULL;
}

// Says so where the template is not understood, or not all of it.
static void build_chat(struct packer *p, const json_t *config, const char *text, size_t size)
{
    struct bnt_tokenizer_view view;
    struct bnt_report report = {.found = ignore};
    const struct bnt_hyper *h = &p->config.hyper;
    if (!bnt_tokenizer_view_open(&view, p->tokenizer.data, p->tokenizer.size, h->vocab_size,
                                 &report))
        return;
    // Where tokenizer_config.json does not name them, they are those of the model's ids.
    const char *bos = bnt_config_special_token(config, "bos_token");
    const char *eos = bnt_config_special_token(config, "eos_token");
    char *own_bos = !*bos && h->bos_id >= 0 ? token_text(&view, (uint32_t)h->bos_id) : NULL;
    char *own_eos = !*eos && h->eos_count > 0 ? token_text(&view, h->eos_id[0]) : NULL;
    const struct bnt_chat_source source = {.text = text,
                                           .size = size,
                                           .bos = *bos ? bos : own_bos,
                                           .eos = *eos ? eos : own_eos,
                                           .tokenizer = &view};
    if (!bnt_chat_build(&source, &p->chat)) {
        bnt_cli_note("%s: the chat template is none of those known (%s): chat will not work with "
                     "this file",
                     p->name, p->chat.why);
        bnt_buffer_free(&p->chat.bytes);
    } else if (p->chat.why_no_system[0]) {
        bnt_cli_note("%s: the chat template has no place for a system text (%s): chat works "
                     "without one",
                     p->name, p->chat.why_no_system);
    }
    free(own_bos);
    free(own_eos);
}

// What is read of tokenizer_config.json must be what it says; chat_template.jinja comes through a
// JSON string too.
static enum bnt_status check_texts(struct packer *p, const json_t *config)
{
    static const char *const used[] = {"bos_token", "eos_token", "chat_template"};
    char path[BNT_JSON_PATH];
    size_t size;
    const char *file = bnt_st_metadata(&p->stream, "chat_template.jinja", &size);
    if (file && bnt_utf8_valid((const uint8_t *)file, size) != size)
        return bnt_fail(p->err, BNT_ERR_FORMAT, "chat_template.jinja holds a zero byte");
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++) {
        if (bnt_json_find_strange(json_object_get(config, used[i]), path))
            return bnt_fail(p->err, BNT_ERR_FORMAT,
                            "tokenizer_config.json: %s%s%s " BNT_JSON_STRANGE, used[i],
                            path[0] ? "." : "", path);
    }
    return BNT_OK;
}

static enum bnt_status build_tokenizer(struct packer *p)
{
    size_t size, config_size;
    const char *text = bnt_st_metadata(&p->stream, "tokenizer.json", &size);
    const char *config = bnt_st_metadata(&p->stream, "tokenizer_config.json", &config_size);
    json_t *json = NULL;
    if (!text)
        return BNT_OK;
    enum bnt_status status = BNT_OK;
    if (config)
        status = bnt_json_parse(config, config_size, "tokenizer_config.json", &json, p->err);
    if (status == BNT_OK)
        status = check_texts(p, json);
    if (status == BNT_OK) {
        size_t chat_size = 0;
        const char *chat = find_chat_template(p, json, &chat_size);
        status = bnt_tokenizer_build(text, size, chat, chat_size, p->config.hyper.vocab_size,
                                     &p->tokenizer, p->err);
        if (status == BNT_OK && chat_size)
            build_chat(p, json, chat, chat_size);
    }
    json_decref(json);
    if (status != BNT_OK)
        bnt_fail_prefix(p->err, p->name);
    return status;
}

// --- what the stream must hold ---

// A number of __metadata__ that has one of some values; missing: fallback.
static enum bnt_status read_number(struct packer *p, const char *key, uint32_t fallback,
                                   uint32_t *number)
{
    size_t size;
    uint64_t value = fallback;
    const char *text = bnt_st_metadata(&p->stream, key, &size);
    if (text && !bnt_cli_u64(text, 0, UINT32_MAX, &value))
        return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: __metadata__: %s is no number", p->name, key);
    *number = (uint32_t)value;
    return BNT_OK;
}

static const struct bnt_st_tensor *find_tensor(const struct packer *p, const char *name)
{
    for (size_t i = 0; i < p->stream.count; i++) {
        if (strcmp(p->stream.tensors[i].name, name) == 0)
            return &p->stream.tensors[i];
    }
    return NULL;
}

// What bnt-convert found in the weights: their scales, and which embeddings are ternary.
static enum bnt_status read_levels(struct packer *p)
{
    struct bnt_hyper *h = &p->config.hyper;
    char name[BNT_TENSOR_NAME_SIZE], scale[BNT_TENSOR_NAME_SIZE + 8];
    enum bnt_status status = read_number(p, BNT_STREAM_GROUP, 0, &h->scale_group);
    if (status == BNT_OK)
        status = read_number(p, BNT_STREAM_ACTIVATIONS, 8, &h->activation_bits);
    if (p->options->activation_bits)
        h->activation_bits = p->options->activation_bits;
    bnt_arch_tensor_name(p->config.arch, BNT_ATTN_Q, 0, name);
    (void)snprintf(scale, sizeof scale, "%s_scale", name);
    const struct bnt_st_tensor *scales = find_tensor(p, scale);
    if (h->scale_group)
        h->scale_dtype = scales && scales->dtype == BNT_ST_F16 ? BNT_F16 : BNT_F32;
    bnt_arch_tensor_name(p->config.arch, BNT_TOKEN_EMBEDDING, BNT_NO_LAYER, name);
    const struct bnt_st_tensor *t = find_tensor(p, name);
    if (t && t->dtype == BNT_ST_I8)
        h->flags |= BNT_HYPER_TERNARY_EMBEDDING;
    bnt_arch_tensor_name(p->config.arch, BNT_OUTPUT, BNT_NO_LAYER, name);
    t = h->flags & BNT_HYPER_TIED ? NULL : find_tensor(p, name);
    if (t && t->dtype == BNT_ST_I8)
        h->flags |= BNT_HYPER_TERNARY_OUTPUT;
    const char *problem = status == BNT_OK ? bnt_hyper_problem(h) : NULL;
    if (problem)
        return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: __metadata__: %s is out of its range", p->name,
                        problem);
    if (status == BNT_OK && p->options->int8 && bnt_output_is_ternary(h))
        return bnt_fail(
            p->err, BNT_ERR_ARGUMENT,
            "%s: --embedding=int8 is for dense output matrices: this one is ternary, and "
            "faster",
            p->name);
    return status;
}

// Embeddings keep all of their bits, as bf16 or f32, unless bf16 was asked for.
static void choose_embedding_type(struct packer *p)
{
    static const enum bnt_role roles[] = {BNT_TOKEN_EMBEDDING, BNT_OUTPUT};
    char name[BNT_TENSOR_NAME_SIZE];
    for (size_t i = 0; i < p->stream.count && !p->options->bf16; i++) {
        for (size_t j = 0; j < sizeof roles / sizeof roles[0]; j++) {
            bnt_arch_tensor_name(p->config.arch, roles[j], BNT_NO_LAYER, name);
            if (strcmp(p->stream.tensors[i].name, name) == 0 &&
                p->stream.tensors[i].dtype != BNT_ST_BF16 &&
                p->stream.tensors[i].dtype != BNT_ST_I8)
                p->config.hyper.flags |= BNT_HYPER_F32_EMBEDDINGS;
        }
    }
}

static int compare_expected(const void *a, const void *b)
{
    return strcmp(((const struct expected *)a)->name, ((const struct expected *)b)->name);
}

static void expect(struct packer *p, struct pack_tensor *tensor, const char *suffix)
{
    struct expected *e = &p->expected[p->n_expected++];
    char name[BNT_TENSOR_NAME_SIZE];
    bnt_arch_tensor_name(p->config.arch, tensor->record->role, tensor->record->layer, name);
    (void)snprintf(e->name, sizeof e->name, "%s%s", name, suffix);
    e->tensor = tensor;
    e->is_scale = suffix[0] != '\0';
}

static enum bnt_status list_expected(struct packer *p)
{
    uint64_t n = p->writer.n_tensors;
    p->tensors = calloc((size_t)n + 1, sizeof p->tensors[0]);
    p->expected = calloc((size_t)n * 2 + 1, sizeof p->expected[0]);
    if (!p->tensors || !p->expected)
        return no_memory(p);
    enum bnt_role output =
        p->config.hyper.flags & BNT_HYPER_TIED ? BNT_TOKEN_EMBEDDING : BNT_OUTPUT;
    for (uint64_t i = 0; i < n; i++) {
        struct bnt_tensor_record *record = &p->writer.tensors[i];
        if (record->role == BNT_OUTPUT_INT8 || record->role == BNT_OUTPUT_INT8_SCALE)
            continue;
        struct pack_tensor *tensor = &p->tensors[p->n_tensors++];
        tensor->record = record;
        tensor->groups = bnt_row_groups(&p->config.hyper, record->cols);
        tensor->scale_size = p->config.hyper.scale_dtype == BNT_F16 ? 2 : 4;
        if (record->role == output && p->options->int8) {
            tensor->int8 = bnt_writer_tensor(&p->writer, BNT_OUTPUT_INT8, BNT_NO_LAYER);
            tensor->int8_scale = bnt_writer_tensor(&p->writer, BNT_OUTPUT_INT8_SCALE, BNT_NO_LAYER);
        }
        expect(p, tensor, "");
        if (record->dtype == BNT_TERNARY)
            expect(p, tensor, "_scale");
    }
    qsort(p->expected, p->n_expected, sizeof p->expected[0], compare_expected);
    return BNT_OK;
}

static struct expected *find_expected(struct packer *p, const char *name)
{
    struct expected key = {0};
    (void)snprintf(key.name, sizeof key.name, "%s", name);
    return bsearch(&key, p->expected, p->n_expected, sizeof key, compare_expected);
}

static bool type_fits(const struct bnt_hyper *hyper, const struct expected *e,
                      const struct bnt_st_tensor *t)
{
    uint32_t section = bnt_record_section(e->tensor->record);
    if (e->is_scale && e->tensor->record->scale_offset)
        return t->dtype == (hyper->scale_dtype == BNT_F16 ? BNT_ST_F16 : BNT_ST_F32);
    if (e->is_scale || section == BNT_SECTION_NORM)
        return t->dtype == BNT_ST_F32;
    if (section == BNT_SECTION_TERN)
        return t->dtype == BNT_ST_I8;
    return t->dtype == BNT_ST_BF16 || t->dtype == BNT_ST_F16 || t->dtype == BNT_ST_F32;
}

static bool shape_fits(const struct bnt_hyper *hyper, const struct expected *e,
                       const struct bnt_st_tensor *t)
{
    const struct bnt_tensor_record *r = e->tensor->record;
    if (e->is_scale && r->scale_offset)
        return t->rank == 2 && t->shape[0] == r->rows &&
               t->shape[1] == bnt_row_groups(hyper, r->cols);
    if (e->is_scale)
        return t->rank == 1 && t->shape[0] == 1;
    if (bnt_record_section(r) == BNT_SECTION_NORM)
        return t->rank == 1 && t->shape[0] == r->cols;
    return t->rank == 2 && t->shape[0] == r->rows && t->shape[1] == r->cols;
}

// Judged as a whole before anything is read: a bad stream costs nothing.
static enum bnt_status check_tensors(struct packer *p)
{
    for (size_t i = 0; i < p->stream.count; i++) {
        const struct bnt_st_tensor *t = &p->stream.tensors[i];
        if (strcmp(t->name, BNT_STREAM_PROVENANCE) == 0)
            continue;
        struct expected *e = find_expected(p, t->name);
        if (!e)
            return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: tensor %s is none that %s has", p->name,
                            t->name, p->config.arch->name);
        const struct bnt_hyper *h = &p->config.hyper;
        if (!type_fits(h, e, t) || !shape_fits(h, e, t))
            return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: tensor %s has the wrong type or shape",
                            p->name, t->name);
        e->seen = true;
        if (!e->is_scale) {
            e->tensor->dtype = t->dtype;
            e->tensor->name = t->name;
        }
        if (e->tensor->record->dtype == BNT_BF16 && t->dtype != BNT_ST_BF16)
            bnt_cli_note("%s: tensor %s is %s and is rounded to bf16", p->name, t->name,
                         t->type_name);
    }
    for (size_t i = 0; i < p->n_expected; i++) {
        if (!p->expected[i].seen)
            return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: tensor %s is missing", p->name,
                            p->expected[i].name);
    }
    return BNT_OK;
}

// --- tensors ---

static enum bnt_status read_scale(struct packer *p, const struct bnt_st_tensor *t,
                                  struct bnt_tensor_record *record)
{
    enum bnt_status status = read_exactly(p, &record->scale, sizeof record->scale, t->name);
    if (status == BNT_OK && !(isfinite(record->scale) && record->scale > 0))
        return bnt_fail(p->err, BNT_ERR_FORMAT, "%s: tensor %s is %g: must be finite and positive",
                        p->name, t->name, (double)record->scale);
    return status;
}

static enum bnt_status read_provenance(struct packer *p, const struct bnt_st_tensor *t)
{
    if (t->dtype != BNT_ST_U8 || t->size > BNT_STREAM_MAX_PROVENANCE)
        return bad(p, "the tensor " BNT_STREAM_PROVENANCE " must be U8 of at most 16 MB");
    p->provenance = malloc((size_t)t->size + 1);
    if (!p->provenance)
        return no_memory(p);
    p->provenance_size = (size_t)t->size;
    return read_exactly(p, p->provenance, p->provenance_size, t->name);
}

// Rows of a stripe: whole block rows for ternary matrices, about PACK_JOB_BYTES.
static uint32_t stripe_rows(const struct bnt_tensor_record *record, uint64_t row_bytes)
{
    uint64_t rows = PACK_JOB_BYTES / (row_bytes ? row_bytes : 1);
    if (record->dtype == BNT_TERNARY)
        rows = rows / BNT_BLOCK_ROWS * BNT_BLOCK_ROWS;
    uint32_t least = record->dtype == BNT_TERNARY ? BNT_BLOCK_ROWS : 1;
    return rows < least ? least : (uint32_t)(rows < record->rows ? rows : record->rows);
}

static uint64_t source_row_bytes(const struct bnt_st_tensor *t,
                                 const struct bnt_tensor_record *record)
{
    return t->size / record->rows;
}

static enum bnt_status read_stripes(struct packer *p, const struct bnt_st_tensor *t,
                                    struct pack_tensor *tensor, bool scales)
{
    uint64_t row_bytes = source_row_bytes(t, tensor->record);
    uint32_t step = stripe_rows(tensor->record, row_bytes);
    for (uint32_t row = 0; row < tensor->record->rows; row += step) {
        struct pack_job *job = bnt_pack_queue_take(&p->queue);
        if (!job)
            return bnt_pack_queue_drain(&p->queue, p->err);
        uint32_t left = tensor->record->rows - row;
        job->tensor = tensor;
        job->first = row;
        job->rows = left < step ? left : step;
        job->scales = scales;
        enum bnt_status status = read_exactly(p, job->in, (size_t)(job->rows * row_bytes), t->name);
        if (status != BNT_OK)
            return status;
        bnt_pack_queue_put(&p->queue, job);
        bnt_progress_add(&p->progress, job->rows * row_bytes);
    }
    return BNT_OK;
}

static enum bnt_status read_tensor(struct packer *p, const struct bnt_st_tensor *t)
{
    if (strcmp(t->name, BNT_STREAM_PROVENANCE) == 0)
        return read_provenance(p, t);
    const struct expected *e = find_expected(p, t->name);
    if (e->is_scale && !e->tensor->record->scale_offset)
        return read_scale(p, t, e->tensor->record);
    return read_stripes(p, t, e->tensor, e->is_scale);
}

static enum bnt_status check_end(struct packer *p)
{
    char byte;
    size_t got;
    enum bnt_status status = bnt_read_fully(p->fd, &byte, 1, &got, p->err);
    if (status != BNT_OK)
        bnt_fail_prefix(p->err, p->name);
    return status == BNT_OK && got ? bad(p, "bytes follow the last tensor") : status;
}

static enum bnt_status read_tensors(struct packer *p)
{
    uint64_t in_bytes = 1, out_bytes = 1;
    for (size_t i = 0; i < p->stream.count; i++) {
        const struct expected *e = find_expected(p, p->stream.tensors[i].name);
        if (!e || (e->is_scale && !e->tensor->record->scale_offset))
            continue;
        uint64_t row_bytes = source_row_bytes(&p->stream.tensors[i], e->tensor->record);
        uint32_t rows = stripe_rows(e->tensor->record, row_bytes);
        uint64_t out = e->is_scale ? bnt_pad_rows(rows) * row_bytes
                                   : bnt_pack_out_bytes(e->tensor->record, rows);
        in_bytes = rows * row_bytes > in_bytes ? rows * row_bytes : in_bytes;
        out_bytes = out > out_bytes ? out : out_bytes;
    }
    p->queue_started = true;
    enum bnt_status status = bnt_pack_queue_start(&p->queue, p->writer.out, p->options->threads,
                                                  in_bytes, out_bytes, p->err);
    bnt_progress_start(&p->progress, "packing", p->stream.data_size, NULL, p->options->quiet);
    for (size_t i = 0; i < p->stream.count && status == BNT_OK; i++)
        status = read_tensor(p, &p->stream.tensors[i]);
    if (status == BNT_OK)
        status = check_end(p);
    if (status == BNT_OK)
        status = bnt_pack_queue_drain(&p->queue, p->err);
    bnt_progress_end(&p->progress);
    return status;
}

// --- provenance ---

// Counts of real weights: padding holds the code of zero.
static json_t *describe_matrix(const struct pack_tensor *t)
{
    const struct bnt_tensor_record *r = t->record;
    uint64_t padding = r->size * 4 - (uint64_t)r->rows * r->cols;
    json_t *layer = r->layer == BNT_NO_LAYER ? json_null() : json_integer(r->layer);
    return json_pack("{s:o, s:s, s:f, s:I, s:I, s:I}", "layer", layer, "role",
                     bnt_role_name(r->role), "gamma", (double)r->scale, "minus",
                     (json_int_t)t->count[1], "zero", (json_int_t)(t->count[2] - padding), "plus",
                     (json_int_t)t->count[3]);
}

static enum bnt_status make_provenance(struct packer *p, char **text)
{
    json_t *json = NULL;
    *text = NULL;
    enum bnt_status status = BNT_OK;
    if (p->provenance)
        status = bnt_json_parse_strict(p->provenance, p->provenance_size, BNT_STREAM_PROVENANCE,
                                       &json, p->err);
    else
        json = json_object();
    if (status != BNT_OK) {
        bnt_fail_prefix(p->err, p->name);
        return status;
    }
    json_t *matrices = json_array();
    int failed = json_object_set_new(json, "packer", json_string("bnt-pack " BNT_VERSION));
    for (size_t i = 0; i < p->n_tensors; i++) {
        if (p->tensors[i].record->dtype == BNT_TERNARY)
            failed |= json_array_append_new(matrices, describe_matrix(&p->tensors[i]));
    }
    failed |= json_object_set_new(json, "matrices", matrices);
    if (!failed)
        *text = json_dumps(json,
                           JSON_COMPACT | JSON_REAL_PRECISION(9)); // nine digits name every float32
    json_decref(json);
    return *text ? BNT_OK : no_memory(p);
}

static enum bnt_status finish(struct packer *p)
{
    char *text;
    enum bnt_status status = make_provenance(p, &text);
    if (status == BNT_OK)
        status = bnt_writer_finish(&p->writer, text, strlen(text), p->err);
    free(text);
    return status;
}

static enum bnt_status pack_all(struct packer *p, struct bnt_output *out)
{
    enum bnt_status status = read_header(p);
    if (status == BNT_OK)
        status = read_config(p);
    if (status == BNT_OK)
        status = read_levels(p);
    if (status == BNT_OK)
        choose_embedding_type(p);
    if (status == BNT_OK)
        status = build_tokenizer(p);
    if (status == BNT_OK)
        status =
            bnt_writer_open(&p->writer, out, &p->config.hyper, p->options->int8,
                            (struct bnt_writer_section){p->tokenizer.data, p->tokenizer.size},
                            (struct bnt_writer_section){p->chat.bytes.data, p->chat.bytes.size},
                            p->chat.section, &p->config.sampling, p->err);
    if (status == BNT_OK)
        status = list_expected(p);
    if (status == BNT_OK)
        status = check_tensors(p);
    if (status == BNT_OK)
        status = read_tensors(p);
    return status == BNT_OK ? finish(p) : status;
}

enum bnt_status bnt_pack(int fd, const char *name, struct bnt_output *out,
                         const struct pack_options *options, struct bnt_error *err)
{
    struct packer p = {.fd = fd, .name = name, .options = options, .err = err};
    enum bnt_status status = pack_all(&p, out);
    if (p.queue_started)
        bnt_pack_queue_stop(&p.queue);
    bnt_writer_close(&p.writer);
    bnt_st_free(&p.stream);
    bnt_buffer_free(&p.tokenizer);
    bnt_buffer_free(&p.chat.bytes);
    free(p.tensors);
    free(p.expected);
    free(p.provenance);
    return status;
}

// --- one matrix ---

static enum bnt_status pack_blocks(const struct bnt_st_tensor *t, const uint8_t *data,
                                   struct bnt_output *out, struct bnt_error *err)
{
    uint32_t rows = (uint32_t)t->shape[0], cols = (uint32_t)t->shape[1];
    size_t row_bytes = bnt_block_row_bytes(cols);
    uint8_t *blocks = malloc(row_bytes);
    enum bnt_status status = blocks ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    for (uint32_t row = 0; row < rows && status == BNT_OK; row += BNT_BLOCK_ROWS) {
        uint32_t n = rows - row < BNT_BLOCK_ROWS ? rows - row : BNT_BLOCK_ROWS;
        const int8_t *from = (const int8_t *)data + t->begin + (uint64_t)row * cols;
        if (!bnt_block_pack_row(from, n, cols, blocks))
            status = bnt_fail(err, BNT_ERR_FORMAT,
                              "tensor %s: a value in rows %" PRIu32 " … is none of -1, 0, +1",
                              t->name, row);
        else
            status = bnt_output_write(out, blocks, row_bytes, err);
    }
    free(blocks);
    return status;
}

static const struct bnt_st_tensor *find_matrix(const struct bnt_st_header *header, const char *name)
{
    for (size_t i = 0; i < header->count; i++) {
        const struct bnt_st_tensor *t = &header->tensors[i];
        if (strcmp(t->name, name) == 0 && t->dtype == BNT_ST_I8 && t->rank == 2 && t->count > 0 &&
            t->shape[0] <= BNT_MAX_VOCAB && t->shape[1] <= BNT_MAX_COLS)
            return t;
    }
    return NULL;
}

enum bnt_status bnt_pack_matrix(const char *path, const char *tensor, struct bnt_output *out,
                                struct bnt_error *err)
{
    struct bnt_map map;
    struct bnt_st_header header = {0};
    const uint8_t *data;
    // A pipe by name might never be written to; standard input is somebody's intention.
    enum bnt_status status =
        strcmp(path, "-") == 0 ? bnt_input_map(&map, path, err) : bnt_map_open(&map, path, err);
    if (status != BNT_OK)
        return status;
    status = bnt_st_open(&header, map.data, map.size, path, &data, err);
    if (status == BNT_OK) {
        const struct bnt_st_tensor *t = find_matrix(&header, tensor);
        status = t ? pack_blocks(t, data, out, err)
                   : bnt_fail(err, BNT_ERR_FORMAT, "%s: has no I8 matrix named %s", path, tensor);
    }
    bnt_st_free(&header);
    bnt_map_close(&map);
    return status;
}
