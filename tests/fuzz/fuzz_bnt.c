// SPDX-License-Identifier: MIT
// A .bnt file through the verifier and the runtime. Inputs come in two forms:
//   - a file as it is. If byte 28, reserved in the header, is set, it is cleared and all checksums
//   are made right;
//   - 'S' and then sections: type (4 bytes), flags (1), size of what follows (2, little-endian),
//   bytes. The target
//     adds header page, places and checksums. Bit 7 of flags: tensor sections repeat the bytes to
//     the size that HYPR asks for, and TENS is made from HYPR, its bytes being the scales (f32,
//     repeated).
#define _GNU_SOURCE // fuzz.h
#include <math.h>

#include "fuzz.h"
#include "runtime/bnt.h"
#include "verify/verify.h"

enum {
    MAX_FILE = 1 << 20,
    MAX_TENSORS = 512,
    MAX_IDS = 4096,
    CONTEXT = 64,
    DERIVED = 0x80,
};

// --- the short form ---

struct section {
    uint32_t type;
    uint32_t flags;
    const uint8_t *given;
    uint64_t given_size;
    uint64_t offset;
    uint64_t size;
};

struct shape {
    struct bnt_hyper hyper;
    unsigned version;
    bool usable;
    bool has_int8;
};

static size_t read_sections(const uint8_t *data, size_t size, struct section *sections)
{
    size_t count = 0;
    while (size >= 7 && count < BNT_MAX_SECTIONS) {
        uint64_t given = bnt_load_u16(data + 5);
        given = given < size - 7 ? given : size - 7;
        sections[count++] = (struct section){.type = bnt_load_u32(data),
                                             .flags = data[4],
                                             .given = data + 7,
                                             .given_size = given,
                                             .size = given};
        data += 7 + given;
        size -= 7 + (size_t)given;
    }
    return count;
}

static struct shape read_shape(const struct section *sections, size_t count)
{
    struct shape shape = {.version = BNT_VERSION_1};
    for (size_t i = 0; i < count; i++) {
        shape.has_int8 = shape.has_int8 || sections[i].type == BNT_SECTION_EMB8;
        if (sections[i].type != BNT_SECTION_HYPR ||
            (sections[i].size != BNT_HYPER_SIZE_1 && sections[i].size != sizeof shape.hyper))
            continue;
        shape.version = sections[i].size == BNT_HYPER_SIZE_1 ? BNT_VERSION_1 : BNT_VERSION_2;
        shape.hyper = (struct bnt_hyper){.activation_bits = 8};
        memcpy(&shape.hyper, sections[i].given, sections[i].size);
        shape.usable = !bnt_hyper_problem(&shape.hyper);
    }
    shape.usable = shape.usable && bnt_layout_count(&shape.hyper, shape.has_int8) <= MAX_TENSORS;
    return shape;
}

// Returns the size of the file, 0 if it would be too large.
static uint64_t place_sections(struct section *sections, size_t count, const struct shape *shape)
{
    struct bnt_layout_walk walk = {0};
    struct bnt_tensor_place place;
    if (shape->usable) {
        walk = bnt_layout_walk(&shape->hyper, shape->has_int8);
        while (bnt_layout_next(&walk, &place))
            ;
    }
    uint64_t end = BNT_PAGE;
    for (size_t i = 0; i < count; i++) {
        struct section *s = &sections[i];
        if (s->flags & DERIVED && shape->usable) {
            if (s->type == BNT_SECTION_TENS)
                s->size = bnt_layout_count(&shape->hyper, shape->has_int8) *
                          sizeof(struct bnt_tensor_record);
            else if (s->type == BNT_SECTION_NORM || s->type == BNT_SECTION_EMBD ||
                     s->type == BNT_SECTION_EMB8 || s->type == BNT_SECTION_TERN ||
                     s->type == BNT_SECTION_SCAL)
                s->size = bnt_layout_section_size(&walk, s->type);
        }
        s->offset = bnt_round_up(end, BNT_PAGE);
        if (s->size > MAX_FILE || s->offset > MAX_FILE)
            return 0;
        end = s->offset + s->size;
    }
    return end;
}

static uint64_t offset_of(const struct section *sections, size_t count, uint32_t type)
{
    for (size_t i = 0; i < count; i++) {
        if (sections[i].type == type)
            return sections[i].offset;
    }
    return 0;
}

static void fill_table(const struct section *sections, size_t count, const struct shape *shape,
                       const struct section *table, uint8_t *out)
{
    struct bnt_layout_walk walk = bnt_layout_walk(&shape->hyper, shape->has_int8);
    struct bnt_tensor_place place;
    for (uint64_t i = 0; bnt_layout_next(&walk, &place); i++) {
        float scale = 1;
        if (table->given_size >= 4)
            scale = bnt_load_f32(table->given + i % (table->given_size / 4) * 4);
        const struct bnt_tensor_record record = {
            .role = (uint16_t)place.role,
            .dtype = (uint16_t)place.dtype,
            .layer = place.layer,
            .rows = place.rows,
            .cols = place.cols,
            .offset = offset_of(sections, count, place.section) + place.offset,
            .size = place.size,
            .scale = place.dtype == BNT_TERNARY && !place.has_scales ? scale : 0,
            .scale_offset = place.has_scales
                                ? offset_of(sections, count, BNT_SECTION_SCAL) + place.scale_offset
                                : 0,
        };
        memcpy(out + i * sizeof record, &record, sizeof record);
    }
}

static void fill_section(const struct section *sections, size_t count, const struct shape *shape,
                         const struct section *s, uint8_t *out)
{
    if (s->flags & DERIVED && shape->usable && s->type == BNT_SECTION_TENS) {
        fill_table(sections, count, shape, s, out);
        return;
    }
    for (uint64_t at = 0; at < s->size; at++)
        out[at] = s->given_size ? s->given[at % s->given_size] : 0xaa; // 0xaa: the weight zero
}

static uint8_t *expand(const uint8_t *data, size_t size, size_t *file_size)
{
    struct section sections[BNT_MAX_SECTIONS];
    size_t count = read_sections(data, size, sections);
    const struct shape shape = read_shape(sections, count);
    *file_size = (size_t)place_sections(sections, count, &shape);
    if (*file_size == 0)
        return NULL;
    struct bnt_header header = {.version_major = (uint16_t)shape.version,
                                .section_count = (uint32_t)count,
                                .file_size = *file_size};
    memcpy(header.magic, BNT_MAGIC, sizeof header.magic);
    void *memory = NULL;
    FUZZ_ASSERT(posix_memalign(&memory, BNT_PAGE, *file_size) == 0);
    uint8_t *file = memory;
    memset(file, 0, *file_size);
    for (size_t i = 0; i < count; i++) {
        header.sections[i] = (struct bnt_section_record){
            .type = sections[i].type,
            .flags = sections[i].flags & ~(uint32_t)DERIVED,
            .offset = sections[i].offset,
            .size = sections[i].size,
        };
        fill_section(sections, count, &shape, &sections[i], file + sections[i].offset);
    }
    memcpy(file, &header, sizeof header);
    fuzz_repair_checksums(file, *file_size);
    return file;
}

// --- text ---

static const char *const texts[] = {
    "",
    "Hello, world! It's 12345 o'clock,  \n\t and\r\n\r\n   all's   well. ",
    "h\xC3\xA9llo \xC3\x9F \xE4\xB8\xAD\xE6\x96\x87 \xF0\x9F\x98\x80 e\xCC\x81",
    " \xC2\xA0\xE2\x80\x83x\xE3\x80\x80",
    "<|eot_id|><s></s> <|begin_of_text|> [INST]aaaaaaaaaaaaaaaa bbbb abababab",
};

static void encode(const struct bnt_model *model, const char *text, size_t size, bool must_fail)
{
    struct bnt_error err;
    size_t count = 0, again = 0, length = 0;
    uint32_t *ids;
    enum bnt_status status = bnt_tokenize(model, text, size, 0, &ids, &count, &err);
    FUZZ_ASSERT(!must_fail || status == BNT_ERR_TEXT || status == BNT_ERR_NO_TOKENIZER);
    if (status != BNT_OK)
        return;
    for (size_t i = 0; i < count; i++)
        FUZZ_ASSERT(ids[i] < bnt_model_info(model)->vocab_size);
    (void)bnt_detokenize(model, ids, count, NULL, 0, &length, &err);
    char *out = malloc(length + 1);
    FUZZ_ASSERT(out);
    FUZZ_ASSERT(bnt_detokenize(model, ids, count, out, length, &again, &err) == BNT_OK);
    FUZZ_ASSERT(again == length);
    free(out);
    free(ids);
    if (bnt_tokenize(model, text, size, BNT_TOKENIZE_SPECIAL, &ids, &count, &err) == BNT_OK)
        free(ids);
}

static void decode_all(const struct bnt_model *model)
{
    uint32_t ids[MAX_IDS];
    uint32_t count = bnt_model_info(model)->vocab_size;
    size_t size;
    struct bnt_error err;
    count = count < MAX_IDS ? count : (uint32_t)MAX_IDS;
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = i;
        (void)bnt_token_text(model, i, &size);
    }
    FUZZ_ASSERT(!bnt_token_text(model, bnt_model_info(model)->vocab_size, &size));
    if (bnt_detokenize(model, ids, count, NULL, 0, &size, &err) == BNT_ERR_NO_TOKENIZER)
        return;
    char *text = malloc(size + 1);
    FUZZ_ASSERT(text);
    FUZZ_ASSERT(bnt_detokenize(model, ids, count, text, size, &size, &err) == BNT_OK);
    if (size <= 2048)
        encode(model, text, size, false);
    free(text);
}

static void use_tokenizer(const struct bnt_model *model)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        encode(model, texts[i], strlen(texts[i]), false);
    char bytes[129];
    for (int i = 0; i < 129; i++)
        bytes[i] = (char)i;
    encode(model, bytes, 128, false);
    encode(model, bytes, 129, true);
    encode(model, "\xED\xA0\x80", 3, true);
    encode(model, "abc\xE4\xB8", 5, true);
    decode_all(model);
}

// --- the forward pass ---

enum { GENERATED = 4 };

struct text {
    const struct bnt_model *model;
    size_t n;
    uint32_t tokens[GENERATED];
};

static bool go_on(void *context, uint32_t token, const char *text, size_t size)
{
    struct text *t = context;
    char *copy = (char *)fuzz_copy(text, size, sizeof(void *)); // reads all of it
    free(copy);
    if (token == UINT32_MAX)
        return true;
    FUZZ_ASSERT(token < bnt_model_info(t->model)->vocab_size && t->n < GENERATED);
    t->tokens[t->n++] = token;
    return true;
}

static const struct bnt_sampling ways[] = {
    {.temperature = 0, .top_p = 1},
    {.temperature = 0.7f, .top_k = 3, .top_p = 0.9f, .seed = 1},
    {.temperature = 100, .top_k = 0, .top_p = 1e-9f, .seed = 2},
    {.temperature = 1e-30f, .top_k = 1u << 30, .top_p = 1, .seed = 3},
    {.temperature = 2, .top_k = 1024, .seed = 4},
    {.temperature = 0, .repetition_penalty = 1.5f, .frequency_penalty = 1},
    {.temperature = 1, .top_k = 3, .min_p = 0.1f, .presence_penalty = 2, .seed = 5},
    {.temperature = 1, .min_p = 1, .repetition_penalty = 1e-6f, .presence_penalty = -2, .seed = 6},
};
enum { WAYS = sizeof ways / sizeof ways[0] };

static struct text generate(struct bnt_session *session, const struct bnt_model *model, size_t way)
{
    static const char *const stops[] = {"ab", "\n\n\n", "</s>"};
    struct text text = {.model = model};
    const struct bnt_generation generation = {
        .max_tokens = GENERATED,
        .sampling = ways[way],
        .stop_texts = stops,
        .n_stop_texts = way % 4,
        .ignore_eos = way & 1,
        .callback = go_on,
        .context = &text,
    };
    struct bnt_generation_result result;
    const uint32_t prompt = bnt_model_info(model)->vocab_size - 1;
    FUZZ_ASSERT(bnt_session_rewind(session, 0, NULL) == BNT_OK);
    FUZZ_ASSERT(bnt_generate(session, &prompt, 1, &generation, &result, NULL) == BNT_OK);
    FUZZ_ASSERT(result.n_tokens == text.n);
    return text;
}

static struct bnt_session *open_session(const struct bnt_model *model, enum bnt_cache cache,
                                        bool full_output)
{
    const struct bnt_model_info *info = bnt_model_info(model);
    const struct bnt_session_options options = {
        .context = info->max_context < CONTEXT ? info->max_context : (uint32_t)CONTEXT,
        .threads = 1,
        .cache = cache,
        .full_output = full_output};
    struct bnt_session *session;
    FUZZ_ASSERT(bnt_session_open(model, &options, &session, NULL) == BNT_OK);
    return session;
}

// Ways of choosing a token: from logits, and in bnt_generate, where the int8 copy of the output
// matrix may stand in for them. good: bnt-verify says that it is a copy, so tokens are the same.
static void choose(struct bnt_session *session, const struct bnt_model *model, enum bnt_cache cache,
                   const float *logits, bool good)
{
    struct bnt_session *full = open_session(model, cache, true);
    for (size_t i = 0; i < WAYS; i++) {
        uint64_t state = ways[i].seed;
        FUZZ_ASSERT(bnt_sample(session, logits, &ways[i], &state) <
                    bnt_model_info(model)->vocab_size);
        struct text a = generate(session, model, i), b = generate(full, model, i);
        FUZZ_ASSERT(!good ||
                    (a.n == b.n && memcmp(a.tokens, b.tokens, a.n * sizeof a.tokens[0]) == 0));
    }
    bnt_session_close(full);
}

// Evaluates up to 4 tokens. Returns their logits, malloc'd; *count: how many floats.
static float *evaluate(const struct bnt_model *model, enum bnt_cache cache, bool good,
                       size_t *count)
{
    struct bnt_session *session = open_session(model, cache, false);
    const uint32_t context = bnt_session_context(session),
                   vocab = bnt_model_info(model)->vocab_size;
    struct bnt_error err;
    uint32_t ids[5];
    for (uint32_t i = 0; i < 5; i++)
        ids[i] = i * 7 % vocab;
    size_t n = context < 4 ? context : 4;
    *count = n * vocab;
    float *logits = malloc(*count * sizeof logits[0]);
    FUZZ_ASSERT(logits);
    FUZZ_ASSERT(bnt_evaluate(session, ids, n, BNT_LOGITS_ALL, logits, &err) == BNT_OK);
    FUZZ_ASSERT(bnt_session_position(session) == n);
    if (context < 5)
        FUZZ_ASSERT(bnt_evaluate(session, ids, 5, BNT_LOGITS_NONE, NULL, &err) == BNT_ERR_CONTEXT);
    choose(session, model, cache, logits, good);
    bnt_session_close(session);
    return logits;
}

// All kernels give the same bits, but for the payload of NaN.
static void same_logits(const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        FUZZ_ASSERT(bnt_bits_from_float(a[i]) == bnt_bits_from_float(b[i]) ||
                    (isnan(a[i]) && isnan(b[i])));
}

// good: bnt-verify found nothing.
static void run(const char *path, bool good)
{
    float *first[2] = {NULL, NULL}; // with each cache
    const char *kernel;
    struct bnt_error err;
    for (size_t i = 0; (kernel = bnt_kernel_name(i)) != NULL; i++) {
        struct bnt_model *model;
        if (bnt_model_open(path, kernel, &model, &err) != BNT_OK) {
            FUZZ_ASSERT(!model && err.message[0] && i == 0 && !good);
            return;
        }
        if (i == 0)
            use_tokenizer(model);
        for (size_t c = 0; c < 2; c++) {
            size_t count;
            float *logits = evaluate(model, c ? BNT_CACHE_F32 : BNT_CACHE_F16, good, &count);
            if (!first[c]) {
                first[c] = logits;
                continue;
            }
            same_logits(first[c], logits, count);
            free(logits);
        }
        bnt_model_close(model);
    }
    free(first[0]);
    free(first[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file;
    size_t file_size = size;
    if (size && data[0] == 'S') {
        file = expand(data + 1, size - 1, &file_size);
        if (!file)
            return 0;
    } else {
        file = fuzz_copy(data, size, BNT_PAGE);
        if (size > 28 && file[28]) {
            file[28] = 0;
            fuzz_repair_checksums(file, size);
        }
    }
    const struct bnt_map map = {.data = file, .size = file_size};
    struct findings findings = {0};
    struct bnt_view view;
    bool usable = bnt_verify_file(&map, &view, 1, &findings);
    FUZZ_ASSERT(usable || findings.total > 0);
    char path[64];
    int fd = fuzz_memory_file(file, file_size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    bool good = findings.total == 0; // then the runtime must take it
    bnt_findings_free(&findings);
    free(file);
    run(path, good);
    (void)close(fd);
    return 0;
}
