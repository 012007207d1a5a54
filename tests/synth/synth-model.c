// SPDX-License-Identifier: MIT
//
// From a config.json to the list of tensors that Hugging Face's classes would have saved for it:
// names, shapes, types, order and shards; and to the config.json that describes the form written.

#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif

#include "synth.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// No dimension above this is believed: with it no product below can overflow 64 bits.
#define DIMENSION_LIMIT (UINT64_C(1) << 22)
#define LAYER_LIMIT     (UINT64_C(1) << 12)

// Stringified as they stand, so that the texts below need no escaped quotes.
#define JSON(...) #__VA_ARGS__

static const struct {
    const char *name, *config;
} known[] = {
    {"2b-4t", JSON({
         "architectures" : ["BitNetForCausalLM"],
         "attention_bias" : false,
         "attention_dropout" : 0.0,
         "bos_token_id" : 128000,
         "eos_token_id" : 128001,
         "hidden_act" : "relu2",
         "hidden_size" : 2560,
         "initializer_range" : 0.02,
         "intermediate_size" : 6912,
         "max_position_embeddings" : 4096,
         "model_type" : "bitnet",
         "num_attention_heads" : 20,
         "num_hidden_layers" : 30,
         "num_key_value_heads" : 5,
         "rms_norm_eps" : 1e-05,
         "rope_theta" : 500000.0,
         "tie_word_embeddings" : true,
         "torch_dtype" : "bfloat16",
         "use_cache" : true,
         "vocab_size" : 128256
     })},
    {"1bitllm-large", JSON({
         "architectures" : ["BitnetForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 1,
         "eos_token_id" : 2,
         "hidden_act" : "silu",
         "hidden_size" : 1536,
         "input_bits" : 8,
         "intermediate_size" : 4096,
         "max_position_embeddings" : 2048,
         "model_type" : "llama",
         "num_attention_heads" : 16,
         "num_hidden_layers" : 24,
         "num_key_value_heads" : 16,
         "pad_token_id" : 32000,
         "rms_norm_eps" : 1e-05,
         "rope_scaling" : null,
         "rope_theta" : 10000.0,
         "tie_word_embeddings" : true,
         "torch_dtype" : "float32",
         "vocab_size" : 32002,
         "weight_bits" : 1
     })},
    {"1bitllm-3b", JSON({
         "architectures" : ["BitnetForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 1,
         "eos_token_id" : 2,
         "hidden_act" : "silu",
         "hidden_size" : 3200,
         "input_bits" : 8,
         "intermediate_size" : 8640,
         "max_position_embeddings" : 2048,
         "model_type" : "llama",
         "num_attention_heads" : 32,
         "num_hidden_layers" : 26,
         "num_key_value_heads" : 32,
         "pad_token_id" : 32000,
         "rms_norm_eps" : 1e-05,
         "rope_scaling" : null,
         "rope_theta" : 10000.0,
         "tie_word_embeddings" : true,
         "torch_dtype" : "float16",
         "vocab_size" : 32002,
         "weight_bits" : 1
     })},
    {"llama3-8b", JSON({
         "architectures" : ["LlamaForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 128000,
         "eos_token_id" : 128009,
         "hidden_act" : "silu",
         "hidden_size" : 4096,
         "intermediate_size" : 14336,
         "max_position_embeddings" : 8192,
         "mlp_bias" : false,
         "model_type" : "llama",
         "num_attention_heads" : 32,
         "num_hidden_layers" : 32,
         "num_key_value_heads" : 8,
         "rms_norm_eps" : 1e-05,
         "rope_scaling" : null,
         "rope_theta" : 500000.0,
         "tie_word_embeddings" : false,
         "torch_dtype" : "bfloat16",
         "vocab_size" : 128256
     })},
    {"falcon3-1b", JSON({
         "architectures" : ["LlamaForCausalLM"],
         "attention_bias" : false,
         "eos_token_id" : 11,
         "head_dim" : 256,
         "hidden_act" : "silu",
         "hidden_size" : 2048,
         "intermediate_size" : 8192,
         "max_position_embeddings" : 8192,
         "mlp_bias" : false,
         "model_type" : "llama",
         "num_attention_heads" : 8,
         "num_hidden_layers" : 18,
         "num_key_value_heads" : 4,
         "rms_norm_eps" : 1e-06,
         "rope_scaling" : null,
         "rope_theta" : 1000042,
         "tie_word_embeddings" : false,
         "torch_dtype" : "bfloat16",
         "vocab_size" : 131072
     })},
    {"trilm-3.9b", JSON({
         "architectures" : ["LlamaForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 0,
         "eos_token_id" : 0,
         "hidden_act" : "silu",
         "hidden_size" : 3072,
         "intermediate_size" : 9216,
         "max_position_embeddings" : 2048,
         "mlp_bias" : false,
         "model_type" : "llama",
         "num_attention_heads" : 24,
         "num_hidden_layers" : 30,
         "num_key_value_heads" : 24,
         "rms_norm_eps" : 1e-05,
         "rope_scaling" : null,
         "rope_theta" : 10000.0,
         "tie_word_embeddings" : false,
         "torch_dtype" : "float16",
         "vocab_size" : 50688
     })},
    {"bonsai-1.7b", JSON({
         "architectures" : ["Qwen3ForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 151643,
         "eos_token_id" : 151645,
         "head_dim" : 128,
         "hidden_act" : "silu",
         "hidden_size" : 2048,
         "intermediate_size" : 6144,
         "max_position_embeddings" : 32768,
         "model_type" : "qwen3",
         "num_attention_heads" : 16,
         "num_hidden_layers" : 28,
         "num_key_value_heads" : 8,
         "rms_norm_eps" : 1e-06,
         "rope_theta" : 1000000,
         "tie_word_embeddings" : true,
         "torch_dtype" : "float16",
         "use_sliding_window" : false,
         "vocab_size" : 151936
     })},
    {"bonsai-4b", JSON({
         "architectures" : ["Qwen3ForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 151643,
         "eos_token_id" : 151645,
         "head_dim" : 128,
         "hidden_act" : "silu",
         "hidden_size" : 2560,
         "intermediate_size" : 9728,
         "max_position_embeddings" : 32768,
         "model_type" : "qwen3",
         "num_attention_heads" : 32,
         "num_hidden_layers" : 36,
         "num_key_value_heads" : 8,
         "rms_norm_eps" : 1e-06,
         "rope_theta" : 1000000,
         "tie_word_embeddings" : true,
         "torch_dtype" : "float16",
         "use_sliding_window" : false,
         "vocab_size" : 151936
     })},
    {"bonsai-8b", JSON({
         "architectures" : ["Qwen3ForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 151643,
         "eos_token_id" : 151645,
         "head_dim" : 128,
         "hidden_act" : "silu",
         "hidden_size" : 4096,
         "intermediate_size" : 12288,
         "max_position_embeddings" : 65536,
         "model_type" : "qwen3",
         "num_attention_heads" : 32,
         "num_hidden_layers" : 36,
         "num_key_value_heads" : 8,
         "rms_norm_eps" : 1e-06,
         "rope_scaling" :
             {"factor" : 4.0, "original_max_position_embeddings" : 16384, "rope_type" : "yarn"},
         "rope_theta" : 1000000,
         "tie_word_embeddings" : false,
         "torch_dtype" : "float16",
         "use_sliding_window" : false,
         "vocab_size" : 151936
     })},
    {"tiny", JSON({
         "architectures" : ["BitNetForCausalLM"],
         "attention_bias" : false,
         "bos_token_id" : 1,
         "eos_token_id" : 2,
         "hidden_act" : "relu2",
         "hidden_size" : 64,
         "intermediate_size" : 160,
         "max_position_embeddings" : 256,
         "model_type" : "bitnet",
         "num_attention_heads" : 4,
         "num_hidden_layers" : 2,
         "num_key_value_heads" : 2,
         "rms_norm_eps" : 1e-05,
         "rope_theta" : 10000.0,
         "tie_word_embeddings" : true,
         "torch_dtype" : "bfloat16",
         "vocab_size" : 256
     })},
};

#define KNOWN_COUNT (sizeof known / sizeof known[0])

// What differs between the architectures, as far as tensors go.
struct architecture {
    const char *name;
    const char *attention_norm, *ffn_norm; // the sub-norms' names, or NULL
    bool divides;    // the packed form that its published checkpoints have, see weight_scale
    bool head_norms; // q_norm and k_norm
    bool biases;     // of q, k and v
    bool ternary_embeddings; // in the form of levels
};

static const struct architecture architectures[] = {
    {"BitNetForCausalLM", "self_attn.attn_sub_norm", "mlp.ffn_sub_norm", false, false, false,
     false},
    {"BitnetForCausalLM", "self_attn.inner_attn_ln", "mlp.ffn_layernorm", false, false, false,
     false},
    {"LlamaForCausalLM", NULL, NULL, true, false, false, false},
    {"Qwen2ForCausalLM", NULL, NULL, true, false, true, false},
    {"Qwen3ForCausalLM", NULL, NULL, true, true, false, true},
};

#define ARCHITECTURE_COUNT (sizeof architectures / sizeof architectures[0])

_Noreturn void bnt_synth_die(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("bnt-synth: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(status);
}

unsigned bnt_synth_dtype_bytes(enum bnt_synth_dtype dtype)
{
    static const unsigned bytes[] = {2, 2, 4, 1};
    return bytes[dtype];
}

const char *bnt_synth_dtype_name(enum bnt_synth_dtype dtype)
{
    static const char *const names[] = {"BF16", "F16", "F32", "U8"};
    return names[dtype];
}

const char *bnt_synth_names(void)
{
    static char names[512];
    size_t used = 0;
    for (size_t i = 0; i < KNOWN_COUNT && used < sizeof names; i++) {
        int n = snprintf(names + used, sizeof names - used, "%s%s", i ? " " : "", known[i].name);
        used += n > 0 ? (size_t)n : 0;
    }
    return names;
}

// The configuration

static json_t *load_config(const char *like, bool *built_in)
{
    json_error_t error;
    json_t *config = NULL;
    *built_in = false;
    for (size_t i = 0; i < KNOWN_COUNT && !*built_in; i++) {
        if (strcmp(like, known[i].name) == 0) {
            *built_in = true;
            config = json_loads(known[i].config, 0, &error);
        }
    }
    if (!*built_in)
        config = json_load_file(like, 0, &error);
    if (!config && json_error_code(&error) == json_error_cannot_open_file)
        bnt_synth_die(1, "%s: neither a readable config.json nor one of: %s", like,
                      bnt_synth_names());
    if (!config)
        bnt_synth_die(1, "%s: line %d: %s", like, error.line, error.text);
    if (!json_is_object(config))
        bnt_synth_die(1, "%s: not a JSON object", like);
    return config;
}

static const struct architecture *find_architecture(const json_t *config)
{
    const json_t *names = json_object_get(config, "architectures");
    const char *name = json_string_value(json_array_get(names, 0));
    for (size_t i = 0; name && i < ARCHITECTURE_COUNT; i++)
        if (strcmp(name, architectures[i].name) == 0)
            return &architectures[i];
    char names_of[256] = "";
    for (size_t i = 0, used = 0; i < ARCHITECTURE_COUNT && used < sizeof names_of; i++) {
        int n = snprintf(names_of + used, sizeof names_of - used, "%s%s", i ? ", " : "",
                         architectures[i].name);
        used += n > 0 ? (size_t)n : 0;
    }
    bnt_synth_die(1, "config.json: architectures: %s is not supported (only %s)",
                  name ? name : "nothing", names_of);
}

// A number that must be there, unless the fallback is not 0.
static uint64_t dimension(const json_t *config, const char *key, uint64_t fallback)
{
    const json_t *value = json_object_get(config, key);
    if (fallback && (!value || json_is_null(value)))
        return fallback;
    json_int_t number = json_integer_value(value);
    if (number < 1 || (uint64_t)number > DIMENSION_LIMIT)
        bnt_synth_die(1, "config.json: %s is missing or not a number from 1 to %llu", key,
                      (unsigned long long)DIMENSION_LIMIT);
    return (uint64_t)number;
}

// Options that would add tensors this program does not make.
static void refuse_extras(const json_t *config, const json_t *quantization)
{
    static const char *const keys[] = {"attention_bias", "mlp_bias", "use_rms_norm"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_is_true(json_object_get(config, keys[i])) ||
            json_is_true(json_object_get(quantization, keys[i])))
            bnt_synth_die(1, "config.json: %s is not supported", keys[i]);
}

static void set(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0)
        bnt_synth_die(1, "out of memory");
}

static bool says(const json_t *object, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, value) == 0;
}

// The quantization_config to edit: the one that is there, or a new one.
static json_t *quantization_of(json_t *config)
{
    json_t *quantization = json_object_get(config, "quantization_config");
    if (!json_is_object(quantization)) {
        quantization = json_pack("{s:s}", "quant_method", "bitnet");
        set(config, "quantization_config", quantization);
    }
    if (!says(quantization, "quant_method", "bitnet"))
        bnt_synth_die(1, "config.json: quant_method is not bitnet");
    return quantization;
}

static void describe_auto(json_t *quantization, const char *mode)
{
    set(quantization, "linear_class", json_string("autobitlinear"));
    set(quantization, "quantization_mode", json_string(mode));
    json_object_del(quantization, "offline_quantization"); // the old word for the mode
}

// linear_class alone decides the direction of weight_scale. A config.json without any
// quantization_config gets the class that its architecture's published checkpoints have.
static void describe_packed(struct bnt_synth_model *model, const struct architecture *architecture)
{
    const json_t *given = json_object_get(model->config, "quantization_config");
    const json_t *linear_class = json_object_get(given, "linear_class");
    if (!json_is_object(given))
        model->divides = architecture->divides;
    else if (json_is_null(linear_class) || !linear_class ||
             says(given, "linear_class", "bitlinear"))
        model->divides = true;
    else if (!says(given, "linear_class", "autobitlinear"))
        bnt_synth_die(1, "config.json: linear_class is neither bitlinear nor autobitlinear");

    json_t *quantization = quantization_of(model->config);
    if (!model->divides)
        describe_auto(quantization, "offline");
    else if (json_object_get(quantization, "quantization_mode"))
        set(quantization, "quantization_mode", json_string("offline"));
}

// 1bitLLM's checkpoints say "weight_bits": 1 and have no quantization_config; every other
// checkpoint of masters is autobitlinear, the one class that ternarizes when it is loaded.
static void describe_masters(struct bnt_synth_model *model)
{
    json_t *config = model->config;
    if (!json_is_object(json_object_get(config, "quantization_config")) &&
        json_integer_value(json_object_get(config, "weight_bits")) == 1)
        return;
    describe_auto(quantization_of(config), "online");
}

// The tensors

static void add(struct bnt_synth_model *model, const char *module, const char *leaf,
                enum bnt_synth_fill fill, uint64_t rows, uint64_t cols)
{
    if (model->count == model->capacity) {
        model->capacity = model->capacity ? model->capacity * 2 : 256;
        model->tensors = realloc(model->tensors, model->capacity * sizeof *model->tensors);
        if (!model->tensors)
            bnt_synth_die(1, "out of memory");
    }
    struct bnt_synth_tensor *tensor = &model->tensors[model->count++];
    *tensor = (struct bnt_synth_tensor){.fill = fill, .rows = rows, .cols = cols};
    tensor->dtype = fill == BNT_SYNTH_CODES ? BNT_SYNTH_U8 : model->dtype;
    tensor->elements = cols ? rows * cols : rows;
    tensor->bytes = tensor->elements * bnt_synth_dtype_bytes(tensor->dtype);
    snprintf(tensor->name, sizeof tensor->name, "%s.%s", module, leaf);
    model->bytes += tensor->bytes;
}

// As transformers reads modules_to_not_convert: names that a module's name begins or ends with.
static bool stays_float(const json_t *config, const char *module)
{
    const json_t *names =
        json_object_get(json_object_get(config, "quantization_config"), "modules_to_not_convert");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        size_t all = strlen(module), part = name ? strlen(name) : 0;
        if (part && part <= all &&
            (memcmp(module, name, part) == 0 || memcmp(module + all - part, name, part) == 0))
            return true;
    }
    return false;
}

static void add_linear(struct bnt_synth_model *model, const char *module, uint64_t rows,
                       uint64_t cols)
{
    if (model->form == BNT_SYNTH_LEVELS) {
        add(model, module, "weight", BNT_SYNTH_LEVEL, rows, cols);
        return;
    }
    if (model->form == BNT_SYNTH_MASTERS || stays_float(model->config, module)) {
        add(model, module, "weight", BNT_SYNTH_WEIGHT, rows, cols);
        return;
    }
    if (rows % 4)
        bnt_synth_die(1, "%s: %llu rows cannot be packed: not a multiple of 4", module,
                      (unsigned long long)rows);
    add(model, module, "weight", BNT_SYNTH_CODES, rows / 4, cols);
    add(model, module, "weight_scale", model->divides ? BNT_SYNTH_INVERSE : BNT_SYNTH_GAMMA, 1, 0);
}

// The layers are in the order of the classes' own members; only the spread over shards shows it.
static void add_layers(struct bnt_synth_model *model, const struct architecture *architecture)
{
    const json_t *config = model->config;
    uint64_t hidden = dimension(config, "hidden_size", 0);
    uint64_t ffn = dimension(config, "intermediate_size", 0);
    uint64_t heads = dimension(config, "num_attention_heads", 0);
    uint64_t kv_heads = dimension(config, "num_key_value_heads", heads);
    uint64_t head_dim = dimension(config, "head_dim", hidden / heads);
    uint64_t layers = dimension(config, "num_hidden_layers", 0);
    uint64_t attention = heads * head_dim, kv = kv_heads * head_dim;
    if (attention > DIMENSION_LIMIT || kv > DIMENSION_LIMIT || layers > LAYER_LIMIT)
        bnt_synth_die(1, "config.json: the heads or the layers are too many");

    const struct {
        const char *name;
        uint64_t rows, cols; // cols is 0 for a norm
    } parts[] = {
        {"self_attn.q_proj", attention, hidden},
        {"self_attn.k_proj", kv, hidden},
        {"self_attn.v_proj", kv, hidden},
        {"self_attn.o_proj", hidden, attention},
        {architecture->attention_norm, attention, 0},
        {"mlp.gate_proj", ffn, hidden},
        {"mlp.up_proj", ffn, hidden},
        {"mlp.down_proj", hidden, ffn},
        {architecture->ffn_norm, ffn, 0},
        {architecture->head_norms ? "self_attn.q_norm" : NULL, head_dim, 0},
        {architecture->head_norms ? "self_attn.k_norm" : NULL, head_dim, 0},
        {"input_layernorm", hidden, 0},
        {"post_attention_layernorm", hidden, 0},
    };
    for (uint64_t layer = 0; layer < layers; layer++) {
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            char module[80];
            if (!parts[i].name)
                continue;
            snprintf(module, sizeof module, "model.layers.%u.%s", (unsigned)layer, parts[i].name);
            if (parts[i].cols)
                add_linear(model, module, parts[i].rows, parts[i].cols);
            else
                add(model, module, "weight", BNT_SYNTH_NORM, parts[i].rows, 0);
            if (architecture->biases && i < 3)
                add(model, module, "bias", BNT_SYNTH_WEIGHT, parts[i].rows, 0);
        }
    }
}

static void add_tensors(struct bnt_synth_model *model, const struct architecture *architecture)
{
    uint64_t vocab = dimension(model->config, "vocab_size", 0);
    uint64_t hidden = dimension(model->config, "hidden_size", 0);
    const enum bnt_synth_fill embedding =
        model->form == BNT_SYNTH_LEVELS && architecture->ternary_embeddings ? BNT_SYNTH_LEVEL
                                                                            : BNT_SYNTH_WEIGHT;
    add(model, "model.embed_tokens", "weight", embedding, vocab, hidden);
    add_layers(model, architecture);
    add(model, "model.norm", "weight", BNT_SYNTH_NORM, hidden, 0);
    if (!json_is_true(json_object_get(model->config, "tie_word_embeddings")))
        add(model, "lm_head", "weight", embedding, vocab, hidden);
}

void bnt_synth_model_load(struct bnt_synth_model *model, const char *like, enum bnt_synth_form form,
                          enum bnt_synth_dtype dtype, uint64_t group)
{
    static const char *const torch_names[] = {"bfloat16", "float16", "float32"};
    bool built_in;
    *model = (struct bnt_synth_model){.form = form, .dtype = dtype, .group = group};
    model->config = load_config(like, &built_in);
    const struct architecture *architecture = find_architecture(model->config);
    refuse_extras(model->config, json_object_get(model->config, "quantization_config"));
    if (form == BNT_SYNTH_PACKED)
        describe_packed(model, architecture);
    else if (form == BNT_SYNTH_MASTERS)
        describe_masters(model); // checkpoints of levels say nothing of it
    if (built_in)                // a config.json of the user's own is kept as it is
        set(model->config, "torch_dtype", json_string(torch_names[dtype]));
    add_tensors(model, architecture);
}

// The order in the files

// Contiguous runs of about equal bytes, none of them empty.
static void assign_shards(struct bnt_synth_model *model, unsigned shards)
{
    uint64_t start = 0, in_shard = 0;
    unsigned shard = 0;
    for (size_t i = 0; i < model->count; i++) {
        struct bnt_synth_tensor *tensor = &model->tensors[i];
        bool full = start + tensor->bytes / 2 > model->bytes / shards * (shard + 1);
        bool needed = model->count - i <= shards - 1 - shard;
        if (in_shard && shard + 1 < shards && (full || needed)) {
            shard++;
            in_shard = 0;
        }
        tensor->shard = shard;
        start += tensor->bytes;
        in_shard++;
    }
}

// As the safetensors library saves: wide types first, then by name.
static int compare(const void *left, const void *right)
{
    const struct bnt_synth_tensor *a = left, *b = right;
    if (a->shard != b->shard)
        return a->shard < b->shard ? -1 : 1;
    if ((a->dtype == BNT_SYNTH_U8) != (b->dtype == BNT_SYNTH_U8))
        return a->dtype == BNT_SYNTH_U8 ? 1 : -1;
    return strcmp(a->name, b->name);
}

void bnt_synth_model_lay_out(struct bnt_synth_model *model, unsigned shards)
{
    if (shards > model->count)
        bnt_synth_die(1, "--shards %u: the checkpoint has only %zu tensors", shards, model->count);
    assign_shards(model, shards);
    qsort(model->tensors, model->count, sizeof *model->tensors, compare);
    for (size_t i = 1; i < model->count; i++) {
        const struct bnt_synth_tensor *before = &model->tensors[i - 1];
        if (model->tensors[i].shard == before->shard)
            model->tensors[i].offset = before->offset + before->bytes;
    }
}

void bnt_synth_model_free(struct bnt_synth_model *model)
{
    free(model->tensors);
    json_decref(model->config);
}
