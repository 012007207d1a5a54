// SPDX-License-Identifier: MIT
// bnt-info: what is in a .bnt file, as tables for people or JSON for programs.
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/block.h"
#include "formats/bytes.h"
#include "formats/chat_view.h"
#include "formats/cli.h"
#include "formats/digest.h"
#include "formats/file.h"
#include "formats/json.h"
#include "formats/view.h"

static const char help[] =
    "Usage: bnt-info [OPTION]... FILE.bnt\n"
    "Show the hyperparameters, sizes, provenance and ternary matrices of a model.\n"
    "FILE '-' is standard input. A pipe is first copied to $TMPDIR, or /tmp.\n"
    "\n"
    "      --tensors   also list every tensor with its place in the file\n"
    "      --json      print all of it as JSON\n"
    "  -h, --help      print this help\n"
    "      --version   print the version\n"
    "\n"
    "It trusts checksums and weights unseen: bnt-verify checks those.\n"
    "Exit status: 0 shown, 1 not a .bnt file or damaged, 2 usage.\n";

// --- collecting: one JSON object, from which the tables are printed too ---

// How the weights' scales are shared, as words; of one a matrix, null.
static json_t *describe_scales(const struct bnt_hyper *h)
{
    const char *type = h->scale_dtype == BNT_F16 ? "f16" : "f32";
    if (h->scale_group == 0)
        return json_null();
    if (h->scale_group == BNT_GROUP_ROW)
        return json_pack("{s:s, s:s}", "each", "row", "dtype", type);
    return json_pack("{s:s, s:i, s:s}", "each", "row and group", "group", h->scale_group, "dtype",
                     type);
}

static void set_float(json_t *json, const char *key, float value)
{
    (void)json_object_set_new(json, key, json_real((double)value));
}

static json_t *describe_rope(const struct bnt_hyper *h)
{
    static const char *const types[] = {"none", "llama3", "yarn", "linear"};
    json_t *rope =
        json_pack("{s:s, s:f}", "type", types[h->rope_scaling], "factor", (double)h->rope_factor);
    if (h->rope_scaling == BNT_ROPE_LLAMA3) {
        set_float(rope, "low_freq_factor", h->rope_low_freq_factor);
        set_float(rope, "high_freq_factor", h->rope_high_freq_factor);
    }
    if (h->rope_scaling == BNT_ROPE_YARN) {
        set_float(rope, "attention_factor", h->rope_attention_factor);
        set_float(rope, "beta_fast", h->rope_beta_fast);
        set_float(rope, "beta_slow", h->rope_beta_slow);
        (void)json_object_set_new(rope, "truncate",
                                  json_boolean(!(h->flags & BNT_HYPER_YARN_EXACT)));
    }
    if (h->rope_original_context)
        (void)json_object_set_new(rope, "original_context", json_integer(h->rope_original_context));
    return rope;
}

// What version 2 adds, as far as the model has it.
static void describe_facts(json_t *json, const struct bnt_hyper *h)
{
    static const struct {
        uint32_t flag;
        const char *name;
    } flags[] = {
        {BNT_HYPER_QKV_BIAS, "qkv_bias"},         {BNT_HYPER_O_BIAS, "o_bias"},
        {BNT_HYPER_FFN_BIAS, "ffn_bias"},         {BNT_HYPER_QK_NORMS, "qk_norms"},
        {BNT_HYPER_LINEAR_NORMS, "linear_norms"},
    };
    static const char *const poolings[] = {"none", "last", "mean", "first"};
    if (bnt_hyper_version(h) == BNT_VERSION_1)
        return;
    (void)json_object_set_new(json, "scales", describe_scales(h));
    (void)json_object_set_new(json, "activation_bits", json_integer(h->activation_bits));
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (h->flags & flags[i].flag)
            (void)json_object_set_new(json, flags[i].name, json_true());
    }
    if (h->flags & BNT_HYPER_LINEAR_NORMS)
        set_float(json, "linear_norm_eps", h->linear_norm_eps);
    if (h->pooling) {
        (void)json_object_set_new(json, "pooling", json_string(poolings[h->pooling]));
        (void)json_object_set_new(json, "normalized",
                                  json_boolean(h->flags & BNT_HYPER_NORMALIZED));
    }
}

static const char *embedding_type(const struct bnt_hyper *h)
{
    const bool dense_output =
        !(h->flags & BNT_HYPER_TIED) && !(h->flags & BNT_HYPER_TERNARY_OUTPUT);
    const bool f32 = h->flags & BNT_HYPER_F32_EMBEDDINGS;
    if (h->flags & BNT_HYPER_TERNARY_EMBEDDING)
        return !dense_output ? "ternary" : f32 ? "ternary, output f32" : "ternary, output bf16";
    if (h->flags & BNT_HYPER_TERNARY_OUTPUT)
        return f32 ? "f32, output ternary" : "bf16, output ternary";
    return f32 ? "f32" : "bf16";
}

static json_t *describe_hyper(const struct bnt_hyper *h)
{
    json_t *eos = json_array();
    for (uint32_t i = 0; i < h->eos_count; i++)
        (void)json_array_append_new(eos, json_integer(h->eos_id[i]));
    json_t *json =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:b, s:b, s:f, s:f, s:i, "
                  "s:o, s:f, s:f, s:i}",
                  "n_layers", h->n_layers, "hidden_size", h->hidden_size, "ffn_size", h->ffn_size,
                  "n_heads", h->n_heads, "n_kv_heads", h->n_kv_heads, "head_dim", h->head_dim,
                  "vocab_size", h->vocab_size, "max_context", h->max_context, "activation",
                  h->activation == BNT_ACTIVATION_RELU2 ? "relu2" : "silu", "embeddings",
                  embedding_type(h), "tied", (h->flags & BNT_HYPER_TIED) != 0, "sub_norms",
                  (h->flags & BNT_HYPER_SUB_NORMS) != 0, "norm_eps", (double)h->norm_eps,
                  "rope_theta", h->rope_theta, "bos_id", h->bos_id, "eos_ids", eos, "temperature",
                  (double)h->temperature, "top_p", (double)h->top_p, "top_k", h->top_k);
    if (h->rope_scaling != BNT_ROPE_NONE)
        (void)json_object_set_new(json, "rope_scaling", describe_rope(h));
    describe_facts(json, h);
    return json;
}

// null where the file has no SAMP.
static json_t *describe_sampling(const struct bnt_view *v)
{
    const struct bnt_sampling_record *s = &v->sampling;
    if (!bnt_view_section(v, BNT_SECTION_SAMP))
        return json_null();
    return json_pack("{s:f, s:f, s:f, s:f, s:I}", "repetition_penalty",
                     (double)s->repetition_penalty, "presence_penalty", (double)s->presence_penalty,
                     "frequency_penalty", (double)s->frequency_penalty, "min_p", (double)s->min_p,
                     "max_new_tokens", (json_int_t)s->max_new_tokens);
}

static json_t *describe_sections(const struct bnt_view *v)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < v->header.section_count; i++) {
        const struct bnt_section_record *s = &v->header.sections[i];
        (void)json_array_append_new(
            list, json_pack("{s:s, s:b, s:I, s:I}", "type", bnt_section_name(s->type).text,
                            "required", (int)(s->flags & BNT_SECTION_REQUIRED), "offset",
                            (json_int_t)s->offset, "size", (json_int_t)s->size));
    }
    return list;
}

static json_t *describe_tensor(const struct bnt_tensor_record *t)
{
    json_t *json = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "role", bnt_role_name(t->role),
                             "dtype", bnt_dtype_name(t->dtype), "rows", (json_int_t)t->rows, "cols",
                             (json_int_t)t->cols, "offset", (json_int_t)t->offset, "size",
                             (json_int_t)t->size);
    if (t->layer != BNT_NO_LAYER)
        (void)json_object_set_new(json, "layer", json_integer(t->layer));
    return json;
}

// Adds the least and the greatest of a matrix's scales by row and group, zeros apart.
static void add_scales(json_t *json, const struct bnt_view *v, const struct bnt_tensor_record *t)
{
    const uint64_t n = (uint64_t)bnt_pad_rows(t->rows) * bnt_row_groups(&v->hyper, t->cols);
    const uint8_t *p = v->data + t->scale_offset;
    double least = INFINITY, most = 0;
    for (uint64_t i = 0; i < n; i++) {
        double s = v->hyper.scale_dtype == BNT_F16
                       ? (double)bnt_float_from_f16(bnt_load_u16(p + 2 * i))
                       : (double)bnt_load_f32(p + 4 * i);
        least = s > 0 && s < least ? s : least;
        most = s > most ? s : most;
    }
    (void)json_object_set_new(json, "scale_least", json_real(most > 0 ? least : 0));
    (void)json_object_set_new(json, "scale_most", json_real(isfinite(most) ? most : 0));
}

// Adds the scale and how often each weight occurs, counted in the file itself. Padding is not
// counted.
static void add_shares(json_t *json, const struct bnt_view *v, const struct bnt_tensor_record *t)
{
    uint64_t count[4];
    uint64_t weights = (uint64_t)t->rows * t->cols;
    bnt_block_count_codes(v->data + t->offset, t->size, count);
    uint64_t zero = count[2] - (t->size * 4 - weights);
    json_t *shares =
        json_pack("{s:f, s:I, s:I, s:I}", "gamma", (double)t->scale, "minus", (json_int_t)count[1],
                  "zero", (json_int_t)zero, "plus", (json_int_t)count[3]);
    (void)json_object_update(json, shares);
    json_decref(shares);
    if (t->scale_offset)
        add_scales(json, v, t);
}

static json_t *describe_tensors(const struct bnt_view *v)
{
    json_t *list = json_array();
    for (uint64_t i = 0; i < v->n_tensors; i++) {
        json_t *json = describe_tensor(&v->tensors[i]);
        if (v->tensors[i].dtype == BNT_TERNARY)
            add_shares(json, v, &v->tensors[i]);
        (void)json_array_append_new(list, json);
    }
    return list;
}

static void ignore(void *context, const char *rule, const char *message)
{
    (void)context;
    (void)rule;
    (void)message; // bnt-verify's business
}

// The name of the chat template, or null.
static json_t *describe_chat(const struct bnt_view *v)
{
    struct bnt_report report = {.found = ignore};
    struct bnt_chat_view chat;
    if (!bnt_chat_view_find(&chat, v, &report))
        return json_null();
    struct bnt_range name = chat.record.text[BNT_CHAT_NAME];
    return json_stringn((const char *)chat.pool + name.offset, name.size);
}

static json_t *describe_tokenizer(const struct bnt_view *v)
{
    struct bnt_tokenizer_record r;
    const struct bnt_section_record *s = bnt_view_section(v, BNT_SECTION_TOKN);
    if (!s || s->size < sizeof r)
        return json_null();
    memcpy(&r, v->data + s->offset, sizeof r);
    return json_pack("{s:s, s:I, s:I, s:I, s:b, s:o}", "kind",
                     r.kind == BNT_TOKENIZER_BYTE_BPE ? "byte-level BPE" : "character BPE",
                     "tokens", (json_int_t)r.n_tokens, "merges", (json_int_t)r.n_merges, "added",
                     (json_int_t)r.n_added, "chat_template", r.chat_size > 0, "chat",
                     describe_chat(v));
}

// PROV without its matrices, which are shown as counted.
static json_t *describe_provenance(const struct bnt_view *v)
{
    const struct bnt_section_record *s = bnt_view_section(v, BNT_SECTION_PROV);
    struct bnt_error err;
    json_t *json = NULL;
    if (!s || bnt_json_parse_strict((const char *)v->data + s->offset, (size_t)s->size, "PROV",
                                    &json, &err) != BNT_OK)
        return json_null();
    (void)json_object_del(json, "matrices");
    return json;
}

static json_t *describe(const char *path, const struct bnt_view *v)
{
    char sha256[BNT_SHA256_TEXT];
    char version[16];
    bnt_sha256_text(v->header.content_sha256, sha256);
    (void)snprintf(version, sizeof version, "%u.%u", v->header.version_major,
                   v->header.version_minor);
    return json_pack("{s:o, s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "file",
                     bnt_json_string(path), "version", version, "file_size", (json_int_t)v->size,
                     "content_sha256", sha256, "hyperparameters", describe_hyper(&v->hyper),
                     "sampling", describe_sampling(v), "sections", describe_sections(v),
                     "tokenizer", describe_tokenizer(v), "provenance", describe_provenance(v),
                     "tensors", describe_tensors(v));
}

// --- printing ---

static long long integer(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void print_size(const char *label, uint64_t bytes, uint64_t total)
{
    (void)printf("  %-34s %14" PRIu64 " %6.2f %%\n", label, bytes,
                 100.0 * (double)bytes / (double)total);
}

// A text from the file, which must not steer the terminal.
static void print_text(const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    if (copy)
        bnt_make_printable(copy);
    (void)fputs(copy ? copy : "?", stdout);
    free(copy);
}

// A value on one line, texts without quotes.
static void print_value(const char *key, const json_t *value)
{
    char *text = json_is_string(value)
                     ? NULL
                     : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(7));
    (void)printf("  %-24s ", key);
    print_text(text ? text : json_string_value(value));
    (void)putchar('\n');
    free(text);
}

static void print_object(const char *title, const json_t *object)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return;
    (void)printf("\n%s\n", title);
    json_object_foreach((json_t *)object, key, value)
    {
        if (strcmp(key, "sources") != 0)
            print_value(key, value);
    }
}

static void print_sources(const json_t *provenance)
{
    size_t i;
    json_t *source;
    json_array_foreach(json_object_get(provenance, "sources"), i, source)
    {
        (void)printf("  %12lld  ", integer(source, "size"));
        print_text(bnt_json_text(source, "sha256", "?"));
        (void)fputs("  ", stdout);
        print_text(bnt_json_text(source, "file", "?"));
        (void)putchar('\n');
    }
}

static const char *section_meaning(const char *type)
{
    static const struct {
        const char *type, *meaning;
    } rows[] = {
        {"HYPR", "HYPR  hyperparameters"},
        {"TOKN", "TOKN  tokenizer"},
        {"CHAT", "CHAT  chat texts"},
        {"CONV", "CONV  conversations"},
        {"SAMP", "SAMP  sampling defaults"},
        {"NORM", "NORM  norms, biases, f32"},
        {"EMBD", "EMBD  embeddings"},
        {"EMB8", "EMB8  int8 output matrix"},
        {"TERN", "TERN  ternary matrices, 2-bit"},
        {"SCAL", "SCAL  scales of rows and groups"},
        {"TENS", "TENS  tensor table"},
        {"PROV", "PROV  provenance"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].type, type) == 0)
            return rows[i].meaning;
    }
    return type;
}

static void print_sizes(const json_t *json)
{
    uint64_t total = (uint64_t)integer(json, "file_size");
    uint64_t sum = 0;
    size_t i;
    json_t *section;
    (void)printf("\nSizes (bytes)\n");
    json_array_foreach(json_object_get(json, "sections"), i, section)
    {
        uint64_t size = (uint64_t)integer(section, "size");
        print_size(section_meaning(bnt_json_text(section, "type", "?")), size, total);
        sum += size;
    }
    print_size("header and padding", total - sum, total);
    print_size("file", total, total);
}

// γ, or the range of the scales by row and group.
static void print_scale(const json_t *t)
{
    char text[40];
    const json_t *least = json_object_get(t, "scale_least");
    if (least)
        (void)snprintf(text, sizeof text, "%.3g … %.3g", json_real_value(least),
                       json_real_value(json_object_get(t, "scale_most")));
    else
        (void)snprintf(text, sizeof text, "%.6g", json_real_value(json_object_get(t, "gamma")));
    // Counted in letters, not in bytes.
    (void)printf("%*s", 21 + (strstr(text, "…") ? 2 : 0), text);
}

static void print_matrices(const json_t *tensors)
{
    size_t i;
    json_t *t;
    (void)printf(
        "\nTernary matrices\n  layer role                rows     cols                scale "
        "      -1        0       +1\n");
    json_array_foreach((json_t *)tensors, i, t)
    {
        if (!json_object_get(t, "gamma"))
            continue;
        double n = (double)integer(t, "rows") * (double)integer(t, "cols");
        if (json_object_get(t, "layer"))
            (void)printf("  %5lld", integer(t, "layer"));
        else
            (void)printf("      -");
        (void)printf(" %-15s %8lld %8lld ", bnt_json_text(t, "role", "?"), integer(t, "rows"),
                     integer(t, "cols"));
        print_scale(t);
        (void)printf(" %6.2f %% %6.2f %% %6.2f %%\n", 100 * (double)integer(t, "minus") / n,
                     100 * (double)integer(t, "zero") / n, 100 * (double)integer(t, "plus") / n);
    }
}

static void print_tensors(const json_t *tensors)
{
    size_t i;
    json_t *t;
    (void)printf("\nTensors\n  layer role               dtype        rows     cols         offset  "
                 "         size\n");
    json_array_foreach((json_t *)tensors, i, t)
    {
        if (json_object_get(t, "layer"))
            (void)printf("  %5lld", integer(t, "layer"));
        else
            (void)printf("      -");
        (void)printf(" %-18s %-8s %8lld %8lld %14lld %14lld\n", bnt_json_text(t, "role", "?"),
                     bnt_json_text(t, "dtype", "?"), integer(t, "rows"), integer(t, "cols"),
                     integer(t, "offset"), integer(t, "size"));
    }
}

static void print_tables(const json_t *json, bool tensors)
{
    (void)printf("%s: .bnt version %s, %lld bytes\ncontent SHA-256 %s\n",
                 bnt_json_text(json, "file", "?"), bnt_json_text(json, "version", "?"),
                 integer(json, "file_size"), bnt_json_text(json, "content_sha256", "?"));
    print_object("Hyperparameters", json_object_get(json, "hyperparameters"));
    print_object("Sampling defaults", json_object_get(json, "sampling"));
    print_object("Tokenizer", json_object_get(json, "tokenizer"));
    if (json_is_null(json_object_get(json, "tokenizer")))
        (void)printf("\nTokenizer\n  none\n");
    print_object("Provenance", json_object_get(json, "provenance"));
    print_sources(json_object_get(json, "provenance"));
    print_sizes(json);
    print_matrices(json_object_get(json, "tensors"));
    if (tensors)
        print_tensors(json_object_get(json, "tensors"));
}

struct arguments {
    const char *path;
    bool json;
    bool tensors;
};

static void keep_first(void *context, const char *rule, const char *message)
{
    struct bnt_error *err = context;
    if (err->status == BNT_OK)
        (void)bnt_fail(err, BNT_ERR_FORMAT, "%s: %s", rule, message);
}

static int show(const struct arguments *a, const struct bnt_view *view)
{
    json_t *json = describe(a->path, view);
    bool ok = json != NULL;
    if (!ok)
        bnt_cli_note("out of memory");
    else if (a->json)
        ok =
            json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0 && puts("") >= 0;
    else
        print_tables(json, a->tensors);
    json_decref(json);
    return bnt_cli_close_stdout() && ok ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

static int run(const struct arguments *a)
{
    struct bnt_error err = {.status = BNT_OK};
    struct bnt_map map;
    struct bnt_view view;
    if (bnt_input_map(&map, a->path, &err) != BNT_OK)
        return bnt_cli_fail(&err);
    struct bnt_report report = {.found = keep_first, .context = &err};
    bool usable = bnt_view_open(&view, map.data, map.size, &report);
    if (report.count)
        bnt_fail_prefix(&err, a->path);
    int code = usable && !report.count ? show(a, &view) : bnt_cli_fail(&err);
    bnt_map_close(&map);
    return code;
}

enum { OPTION_TENSORS = 256, OPTION_JSON, OPTION_VERSION };

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"tensors", no_argument, NULL, OPTION_TENSORS},
        {"json", no_argument, NULL, OPTION_JSON},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    struct arguments a = {0};
    int c;
    bnt_cli_init("bnt-info");
    while ((c = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        switch (c) {
        case OPTION_TENSORS:
            a.tensors = true;
            break;
        case OPTION_JSON:
            a.json = true;
            break;
        case 'h':
            return bnt_cli_print(help);
        case OPTION_VERSION:
            return bnt_cli_version(NULL);
        default:
            return bnt_cli_bad_option(c, argv);
        }
    }
    if (optind + 1 != argc)
        return bnt_cli_usage(optind == argc ? "FILE.bnt is missing" : "more than one FILE.bnt");
    a.path = argv[optind];
    int code = bnt_cli_check_name("FILE.bnt", a.path);
    return code == BNT_EXIT_OK ? run(&a) : code;
}
