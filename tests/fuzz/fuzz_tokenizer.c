// SPDX-License-Identifier: MIT
// tokenizer.json and, after a zero byte, a text. An input that begins with '@' begins with a
// vocabulary of all 256 bytes, ids 0 … 255 in its place: what follows goes on inside "vocab".
#define _GNU_SOURCE // fuzz.h
#include "formats/tokenizer_view.h"
#include "formats/utf8.h"
#include "formats/writer.h"
#include "fuzz.h"
#include "pack/tokenizer_json.h"
#include "runtime/bnt.h"

enum { VOCAB = 300, MAX_TEXT = 4096 };

// --- the JSON ---

static void put(char **text, size_t *size, const void *bytes, size_t n)
{
    *text = realloc(*text, *size + n);
    FUZZ_ASSERT(*text || n == 0);
    if (n)
        memcpy(*text + *size, bytes, n);
    *size += n;
}

// GPT-2's printable alphabet of bytes.
static void put_bytes(char **text, size_t *size)
{
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        uint8_t utf8[4];
        char id[16];
        uint32_t code = printable ? byte : next++;
        bool escaped = code == '"' || code == '\\';
        put(text, size, escaped ? "\"\\" : "\"", escaped ? 2 : 1);
        put(text, size, utf8, (size_t)bnt_utf8_put(code, utf8));
        (void)snprintf(id, sizeof id, "\":%u%s", (unsigned)byte, byte < 255 ? "," : "");
        put(text, size, id, strlen(id));
    }
}

static char *make_json(const uint8_t *data, size_t size, size_t *json_size)
{
    static const char head[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{";
    char *text = NULL;
    *json_size = 0;
    if (size && data[0] == '@') {
        put(&text, json_size, head, sizeof head - 1);
        put_bytes(&text, json_size);
        data++;
        size--;
    }
    put(&text, json_size, data, size);
    char *exact = (char *)fuzz_copy(text, *json_size, sizeof(void *));
    free(text);
    return exact;
}

// --- a model around the section ---

static void ignore(void *context, const char *rule, const char *message)
{
    (void)context;
    (void)rule;
    (void)message;
}

// Zeros everywhere but where a zero would be illegal.
static int make_model(const struct bnt_buffer *section)
{
    const struct bnt_hyper hyper = {.n_layers = 1,
                                    .hidden_size = 1,
                                    .ffn_size = 1,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_dim = 2,
                                    .vocab_size = VOCAB,
                                    .max_context = 1,
                                    .activation = BNT_ACTIVATION_SILU,
                                    .flags = BNT_HYPER_TIED,
                                    .norm_eps = 1,
                                    .rope_theta = 1,
                                    .activation_bits = 8,
                                    .bos_id = -1,
                                    .top_p = 1};
    struct bnt_output out = {.path = "memory", .fd = memfd_create("fuzz", MFD_CLOEXEC)};
    struct bnt_writer writer;
    struct bnt_error err;
    FUZZ_ASSERT(out.fd >= 0);
    FUZZ_ASSERT(bnt_writer_open(&writer, &out, &hyper, false,
                                (struct bnt_writer_section){section->data, section->size},
                                (struct bnt_writer_section){0}, 0, NULL, &err) == BNT_OK);
    for (uint64_t i = 0; i < writer.n_tensors; i++)
        writer.tensors[i].scale = writer.tensors[i].dtype == BNT_TERNARY ? 1 : 0;
    FUZZ_ASSERT(bnt_writer_finish(&writer, "{}", 2, &err) == BNT_OK);
    bnt_writer_close(&writer);
    return out.fd;
}

// Whether decoding what was encoded must give the text again: every byte has a token, no step or
// added token adds or takes anything, and every added token decodes to its text.
static bool is_lossless(const struct bnt_tokenizer_view *v)
{
    bool has[256] = {false};
    size_t size;
    int count = 0;
    if (v->record.kind != BNT_TOKENIZER_BYTE_BPE ||
        v->record.flags & ~(uint32_t)BNT_TOKENIZER_IGNORE_MERGES)
        return false; // others may change the text
    for (uint32_t i = 0; i < v->record.n_lookup; i++) {
        const uint8_t *bytes = bnt_token_bytes(v, v->lookup[i], &size);
        if (size == 1)
            has[bytes[0]] = true;
    }
    for (int i = 0; i < 256; i++)
        count += has[i];
    for (uint32_t i = 0; i < v->record.n_steps; i++) {
        if (v->steps[i].type != BNT_STEP_SPLIT || v->steps[i].behavior == BNT_SPLIT_REMOVED)
            return false;
    }
    for (uint32_t i = 0; i < v->record.n_added; i++) {
        const struct bnt_added_record *a = &v->added[i];
        const uint8_t *bytes = bnt_token_bytes(v, a->id, &size);
        if (a->flags & (BNT_ADDED_LSTRIP | BNT_ADDED_RSTRIP) || size != a->size ||
            memcmp(bytes, v->pool + a->offset, size) != 0)
            return false;
    }
    return count == 256;
}

static void round_trip(const struct bnt_model *model, const char *text, size_t size, bool lossless)
{
    struct bnt_error err = {.status = BNT_OK};
    size_t count = 0, decoded = 0;
    uint32_t *ids;
    enum bnt_status status = bnt_tokenize(model, text, size, 0, &ids, &count, &err);
    bool valid = bnt_utf8_valid((const uint8_t *)text, size) == size;
    FUZZ_ASSERT((status == BNT_ERR_TEXT) == !valid);
    FUZZ_ASSERT(status != BNT_ERR_ARGUMENT || !lossless);
    if (status == BNT_OK) {
        size_t room = 3 * size * 64 + 4096;
        char *out = malloc(room);
        FUZZ_ASSERT(out);
        status = bnt_detokenize(model, ids, count, out, room, &decoded, &err);
        FUZZ_ASSERT(status == BNT_OK || status == BNT_ERR_ARGUMENT);
        if (lossless)
            FUZZ_ASSERT(status == BNT_OK && decoded == size && memcmp(out, text, size) == 0);
        free(out);
    }
    free(ids);
    if (bnt_tokenize(model, text, size, BNT_TOKENIZE_SPECIAL, &ids, &count, &err) == BNT_OK)
        free(ids);
}

static void use_section(const struct bnt_buffer *section, const char *text, size_t size)
{
    struct bnt_tokenizer_view view;
    struct bnt_report report = {.found = ignore};
    uint8_t *exact = fuzz_copy(section->data, section->size, sizeof(void *));
    FUZZ_ASSERT(bnt_tokenizer_view_open(&view, exact, section->size, VOCAB, &report));
    bool lossless = is_lossless(&view);
    char path[64];
    struct bnt_model *model;
    struct bnt_error err;
    int fd = make_model(section);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    FUZZ_ASSERT(bnt_model_open(path, NULL, &model, &err) == BNT_OK);
    round_trip(model, text, size, lossless);
    bnt_model_close(model);
    (void)close(fd);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t head = zero ? (size_t)(zero - data) : size;
    size_t text_size = zero ? size - head - 1 : 0;
    text_size = text_size < MAX_TEXT ? text_size : (size_t)MAX_TEXT;
    char *text = (char *)fuzz_copy(data + size - (zero ? size - head - 1 : 0), text_size, 1 << 4);
    size_t json_size;
    char *json = make_json(data, head, &json_size);
    struct bnt_buffer section = {0};
    struct bnt_error err = {.status = BNT_OK};
    // The text is the chat template too where its first byte says so.
    size_t chat_size = text_size && text[0] == '{' ? text_size : 0;
    enum bnt_status status = bnt_tokenizer_build(json, json_size, chat_size ? text : NULL,
                                                 chat_size, VOCAB, &section, &err);
    if (status == BNT_OK)
        use_section(&section, text, text_size);
    else
        FUZZ_ASSERT(err.message[0]);
    bnt_buffer_free(&section);
    free(json);
    free(text);
    return 0;
}
