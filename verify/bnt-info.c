// SPDX-License-Identifier: MIT
// bnt-info: what is in a .bnt file, as tables for people or JSON for programs.
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/block.h"
#include "formats/chat_view.h"
#include "formats/cli.h"
#include "formats/digest.h"
#include "formats/file.h"
#include "formats/json.h"
#include "formats/view.h"

static const char help[] =
    "Usage: bnt-info [OPTION]... FILE.bnt\n"
    "Show the hyperparameters, sizes, provenance and ternary matrices of a model.\n"
    "FILE '-' is standard input.\n"
    "\n"
    "      --tensors   also list every tensor with its place in the file\n"
    "      --json      print all of it as JSON\n"
    "      --help      print this help\n"
    "      --version   print the version\n"
    "\n"
    "It trusts checksums and weights unseen: bnt-verify checks those.\n"
    "Exit status: 0 shown, 1 not a .bnt file or damaged, 2 usage.\n";

// --- collecting: one JSON object, from which the tables are printed too ---

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
                  h->flags & BNT_HYPER_F32_EMBEDDINGS ? "f32" : "bf16", "tied",
                  (h->flags & BNT_HYPER_TIED) != 0, "sub_norms",
                  (h->flags & BNT_HYPER_SUB_NORMS) != 0, "norm_eps", (double)h->norm_eps,
                  "rope_theta", h->rope_theta, "bos_id", h->bos_id, "eos_ids", eos, "temperature",
                  (double)h->temperature, "top_p", (double)h->top_p, "top_k", h->top_k);
    if (h->rope_scaling == BNT_ROPE_LLAMA3)
        (void)json_object_set_new(json, "rope_scaling",
                                  json_pack("{s:s, s:f, s:f, s:f, s:i}", "type", "llama3", "factor",
                                            (double)h->rope_factor, "low_freq_factor",
                                            (double)h->rope_low_freq_factor, "high_freq_factor",
                                            (double)h->rope_high_freq_factor, "original_context",
                                            h->rope_original_context));
    return json;
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
    if (!s || bnt_json_parse((const char *)v->data + s->offset, (size_t)s->size, "PROV", &json,
                             &err) != BNT_OK)
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
    return json_pack("{s:o, s:s, s:I, s:s, s:o, s:o, s:o, s:o, s:o}", "file", bnt_json_string(path),
                     "version", version, "file_size", (json_int_t)v->size, "content_sha256", sha256,
                     "hyperparameters", describe_hyper(&v->hyper), "sections", describe_sections(v),
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
        {"HYPR", "HYPR  hyperparameters"},    {"TOKN", "TOKN  tokenizer"},
        {"CHAT", "CHAT  chat texts"},         {"CONV", "CONV  chat texts"},
        {"NORM", "NORM  norms, f32"},         {"EMBD", "EMBD  embeddings"},
        {"EMB8", "EMB8  int8 output matrix"}, {"TERN", "TERN  ternary matrices, 2-bit"},
        {"TENS", "TENS  tensor table"},       {"PROV", "PROV  provenance"},
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

static void print_matrices(const json_t *tensors)
{
    size_t i;
    json_t *t;
    (void)printf("\nTernary matrices\n  layer role              rows     cols        gamma       "
                 "-1        0       +1\n");
    json_array_foreach((json_t *)tensors, i, t)
    {
        if (!json_object_get(t, "gamma"))
            continue;
        double n = (double)integer(t, "rows") * (double)integer(t, "cols");
        (void)printf("  %5lld %-12s %9lld %8lld %12.6g %6.2f %% %6.2f %% %6.2f %%\n",
                     integer(t, "layer"), bnt_json_text(t, "role", "?"), integer(t, "rows"),
                     integer(t, "cols"), json_real_value(json_object_get(t, "gamma")),
                     100 * (double)integer(t, "minus") / n, 100 * (double)integer(t, "zero") / n,
                     100 * (double)integer(t, "plus") / n);
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

enum { OPTION_TENSORS = 256, OPTION_JSON, OPTION_HELP, OPTION_VERSION };

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"tensors", no_argument, NULL, OPTION_TENSORS},
        {"json", no_argument, NULL, OPTION_JSON},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    struct arguments a = {0};
    int c;
    bnt_cli_init("bnt-info");
    while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        switch (c) {
        case OPTION_TENSORS:
            a.tensors = true;
            break;
        case OPTION_JSON:
            a.json = true;
            break;
        case OPTION_HELP:
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
    return run(&a);
}
