// SPDX-License-Identifier: MIT
#include "formats/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/json.h"

static const struct bnt_arch arch_table[] = {
    {"BitNetForCausalLM", "self_attn.attn_sub_norm", "mlp.ffn_sub_norm", "relu2", 500000.0},
    {"BitnetForCausalLM", "self_attn.inner_attn_ln", "mlp.ffn_layernorm", "silu",
     10000.0}, // 1bitLLM
    {"LlamaForCausalLM", NULL, NULL, "silu", 10000.0},
};
enum { ARCH_ROWS = sizeof arch_table / sizeof arch_table[0] };

struct parser {
    const json_t *json;
    const char *name;
    struct bnt_error *err;
    enum bnt_status status; // of the first failure
};

static void fail(struct parser *p, enum bnt_status status, const char *key, const char *what)
{
    if (p->status == BNT_OK)
        p->status = bnt_fail(p->err, status, "%s: %s %s", p->name, key, what);
}

static void unsupported(struct parser *p, const char *key, const char *value)
{
    if (p->status == BNT_OK)
        p->status = bnt_fail(p->err, BNT_ERR_UNSUPPORTED, "%s: %s \"%s\" is not supported", p->name,
                             key, value);
}

// A non-negative integer below 2^31; missing: fallback, and an error if that is negative.
static uint32_t get_u32(struct parser *p, const char *key, int64_t fallback)
{
    const json_t *value = bnt_json_get(p->json, key);
    if (!value && fallback >= 0)
        return (uint32_t)fallback;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > INT32_MAX) {
        fail(p, BNT_ERR_FORMAT, key,
             value ? "must be an integer from 0 to 2147483647" : "is missing");
        return 0;
    }
    return (uint32_t)json_integer_value(value);
}

static double get_number(struct parser *p, const json_t *object, const char *key, double fallback)
{
    const json_t *value = bnt_json_get(object, key);
    if (!value)
        return fallback;
    if (!json_is_number(value))
        fail(p, BNT_ERR_FORMAT, key, "must be a number");
    return json_number_value(value);
}

// A text; missing: fallback.
static const char *get_text(struct parser *p, const json_t *object, const char *key,
                            const char *fallback)
{
    const json_t *value = bnt_json_get(object, key);
    if (!value)
        return fallback;
    if (json_is_string(value))
        return json_string_value(value);
    fail(p, BNT_ERR_FORMAT, key, "must be a text");
    return fallback;
}

// true or false; missing: false.
static bool get_flag(struct parser *p, const char *key)
{
    const json_t *value = bnt_json_get(p->json, key);
    if (value && !json_is_boolean(value))
        fail(p, BNT_ERR_FORMAT, key, "must be true or false");
    return json_is_true(value);
}

// An object, or NULL when it is missing.
static const json_t *get_object(struct parser *p, const char *key)
{
    const json_t *value = bnt_json_get(p->json, key);
    if (value && !json_is_object(value))
        fail(p, BNT_ERR_FORMAT, key, "must be an object");
    return json_is_object(value) ? value : NULL;
}

// --- architecture ---

static void parse_architecture(struct parser *p, struct bnt_config *config)
{
    const json_t *list = bnt_json_get(p->json, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) != 1 || !name) {
        fail(p, BNT_ERR_FORMAT, "architectures", "must be an array of one string");
        return;
    }
    for (size_t i = 0; i < ARCH_ROWS; i++) {
        if (strcmp(arch_table[i].name, name) == 0)
            config->arch = &arch_table[i];
    }
    if (!config->arch && p->status == BNT_OK)
        p->status =
            bnt_fail(p->err, BNT_ERR_UNSUPPORTED,
                     "%s: architecture \"%s\" is not supported (known: %s, %s, %s)", p->name, name,
                     arch_table[0].name, arch_table[1].name, arch_table[2].name);
}

static uint32_t parse_activation(struct parser *p, const struct bnt_arch *arch)
{
    const char *name = get_text(p, p->json, "hidden_act", arch->activation);
    if (strcmp(name, "relu2") == 0)
        return BNT_ACTIVATION_RELU2;
    if (strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0)
        unsupported(p, "hidden_act", name);
    return BNT_ACTIVATION_SILU;
}

static void parse_sizes(struct parser *p, const struct bnt_arch *arch, struct bnt_hyper *h)
{
    h->n_layers = get_u32(p, "num_hidden_layers", -1);
    h->hidden_size = get_u32(p, "hidden_size", -1);
    h->ffn_size = get_u32(p, "intermediate_size", -1);
    h->n_heads = get_u32(p, "num_attention_heads", -1);
    h->n_kv_heads = get_u32(p, "num_key_value_heads", h->n_heads);
    h->vocab_size = get_u32(p, "vocab_size", -1);
    h->max_context = get_u32(p, "max_position_embeddings", 2048);
    if (!bnt_json_get(p->json, "head_dim") && (h->n_heads == 0 || h->hidden_size % h->n_heads != 0))
        fail(p, BNT_ERR_FORMAT, "num_attention_heads",
             "does not divide hidden_size, and there is no head_dim");
    h->head_dim = get_u32(p, "head_dim", h->n_heads ? h->hidden_size / h->n_heads : 0);
    h->activation = parse_activation(p, arch);
    if (!bnt_json_get(p->json, "rms_norm_eps"))
        fail(p, BNT_ERR_FORMAT, "rms_norm_eps", "is missing");
    h->norm_eps = (float)get_number(p, p->json, "rms_norm_eps", 0);
    h->flags = (arch->attn_sub_norm ? BNT_HYPER_SUB_NORMS : 0u) |
               (get_flag(p, "tie_word_embeddings") ? BNT_HYPER_TIED : 0u);
}

// What would change the forward pass in a way that we do not compute.
static void refuse_unsupported(struct parser *p)
{
    static const char *const flags[] = {"attention_bias", "mlp_bias", "use_qk_norm",
                                        "use_sliding_window"};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (get_flag(p, flags[i]))
            unsupported(p, flags[i], "true");
    }
    double partial = get_number(p, p->json, "partial_rotary_factor", 1.0);
    if (partial != 1.0)
        unsupported(p, "partial_rotary_factor", "other than 1");
}

// --- rotary embedding ---

static void parse_llama3(struct parser *p, const json_t *rope, struct bnt_hyper *h)
{
    h->rope_scaling = BNT_ROPE_LLAMA3;
    h->rope_factor = (float)get_number(p, rope, "factor", 0);
    h->rope_low_freq_factor = (float)get_number(p, rope, "low_freq_factor", 0);
    h->rope_high_freq_factor = (float)get_number(p, rope, "high_freq_factor", 0);
    double original = get_number(p, rope, "original_max_position_embeddings", 0);
    if (original < 1 || original > BNT_MAX_CONTEXT)
        fail(p, BNT_ERR_FORMAT, "rope_scaling",
             "has no original_max_position_embeddings in 1 … 2^24");
    else
        h->rope_original_context = (uint32_t)original;
}

// rope_theta stands at the top level or, in newer configs, in rope_parameters beside the scaling.
static void parse_rope(struct parser *p, const struct bnt_arch *arch, struct bnt_hyper *h)
{
    const json_t *rope = get_object(p, "rope_parameters");
    if (!rope)
        rope = get_object(p, "rope_scaling");
    double top = get_number(p, p->json, "rope_theta", arch->rope_theta);
    h->rope_theta = get_number(p, rope, "rope_theta", top);
    const char *type = get_text(p, rope, "rope_type", get_text(p, rope, "type", "default"));
    if (strcmp(type, "llama3") == 0)
        parse_llama3(p, rope, h);
    else if (strcmp(type, "default") != 0)
        unsupported(p, "rope_type", type);
    if (get_number(p, rope, "partial_rotary_factor", 1.0) != 1.0)
        unsupported(p, "partial_rotary_factor", "other than 1");
}

// --- form of the weights ---

// Modules that are never ternary, so that listing them changes nothing.
static bool is_dense_module(const char *name)
{
    return strcmp(name, "lm_head") == 0 || strcmp(name, "embed_tokens") == 0 ||
           strcmp(name, "model.embed_tokens") == 0;
}

static void check_not_converted(struct parser *p, const json_t *quantization)
{
    const json_t *list = bnt_json_get(quantization, "modules_to_not_convert");
    size_t i;
    json_t *module;
    if (list && !json_is_array(list))
        fail(p, BNT_ERR_FORMAT, "modules_to_not_convert", "must be null or an array");
    json_array_foreach(list, i, module)
    {
        const char *name = json_string_value(module);
        if (!name || !is_dense_module(name))
            unsupported(p, "modules_to_not_convert:", name ? name : "(not a string)");
    }
}

static bool is_offline(struct parser *p, const json_t *quantization)
{
    const json_t *old = bnt_json_get(quantization, "offline_quantization");
    const char *mode =
        get_text(p, quantization, "quantization_mode", json_is_false(old) ? "online" : "offline");
    if (strcmp(mode, "offline") != 0 && strcmp(mode, "online") != 0)
        unsupported(p, "quantization_mode", mode);
    return strcmp(mode, "offline") == 0;
}

static void parse_quantization(struct parser *p, const json_t *quantization,
                               struct bnt_config *config)
{
    const char *method = get_text(p, quantization, "quant_method", "");
    const char *class = get_text(p, quantization, "linear_class", "bitlinear");
    if (strcmp(method, "bitnet") != 0)
        unsupported(p, "quant_method", method);
    if (bnt_json_true(quantization, "use_rms_norm"))
        unsupported(p, "use_rms_norm", "true");
    check_not_converted(p, quantization);
    if (strcmp(class, "bitlinear") == 0)
        config->form = BNT_FORM_PACKED_DIVIDE;
    else if (strcmp(class, "autobitlinear") == 0)
        config->form = is_offline(p, quantization) ? BNT_FORM_PACKED_MULTIPLY : BNT_FORM_MASTERS;
    else
        unsupported(p, "linear_class", class);
    config->ternary = true;
}

static void parse_form(struct parser *p, struct bnt_config *config)
{
    const json_t *quantization = get_object(p, "quantization_config");
    config->form = BNT_FORM_MASTERS;
    if (quantization) {
        parse_quantization(p, quantization, config);
        return;
    }
    const json_t *bits = bnt_json_get(p->json, "weight_bits");
    if (bits && json_integer_value(bits) != 1)
        unsupported(p, "weight_bits", "other than 1");
    config->ternary = bits != NULL;
}

// --- tokens and sampling defaults ---

static void parse_eos(struct parser *p, const json_t *eos, struct bnt_hyper *h)
{
    size_t count = json_is_array(eos) ? json_array_size(eos) : 1;
    if (count > BNT_MAX_EOS) {
        fail(p, BNT_ERR_UNSUPPORTED, "eos_token_id", "has more than 8 ids");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= h->vocab_size) {
            fail(p, BNT_ERR_FORMAT, "eos_token_id", "must be one or more ids below vocab_size");
            return;
        }
        h->eos_id[h->eos_count++] = (uint32_t)json_integer_value(id);
    }
}

static void parse_tokens(struct parser *p, const json_t *generation, struct bnt_hyper *h)
{
    const json_t *bos = bnt_json_get(p->json, "bos_token_id");
    h->bos_id = -1;
    if (bos) {
        if (!json_is_integer(bos) || json_integer_value(bos) < 0 ||
            json_integer_value(bos) >= h->vocab_size)
            fail(p, BNT_ERR_FORMAT, "bos_token_id", "must be an id below vocab_size");
        else
            h->bos_id = (int32_t)json_integer_value(bos);
    }
    const json_t *eos = bnt_json_get(generation, "eos_token_id");
    if (!eos)
        eos = bnt_json_get(p->json, "eos_token_id");
    if (eos)
        parse_eos(p, eos, h);
}

// The checkpoint's advice for sampling; without do_sample it is greedy.
static void parse_sampling(struct parser *p, const json_t *generation, struct bnt_hyper *h)
{
    h->top_p = 1;
    if (!bnt_json_true(generation, "do_sample"))
        return;
    h->temperature = (float)get_number(p, generation, "temperature", 1.0);
    h->top_p = (float)get_number(p, generation, "top_p", 1.0);
    double top_k = get_number(p, generation, "top_k", 0);
    h->top_k = top_k > 0 && top_k <= BNT_MAX_VOCAB ? (uint32_t)top_k : 0;
}

static void parse_all(struct parser *p, const json_t *generation, struct bnt_config *config)
{
    parse_architecture(p, config);
    if (!config->arch)
        return;
    parse_form(p, config);
    refuse_unsupported(p);
    parse_sizes(p, config->arch, &config->hyper);
    parse_rope(p, config->arch, &config->hyper);
    parse_tokens(p, generation, &config->hyper);
    parse_sampling(p, generation, &config->hyper);
    const char *problem = bnt_hyper_problem(&config->hyper);
    if (problem)
        fail(p, BNT_ERR_FORMAT, problem, "is out of the range that a .bnt file can hold");
}

enum bnt_status bnt_config_parse(struct bnt_config *config, const char *text, size_t size,
                                 const char *generation, size_t generation_size, const char *name,
                                 struct bnt_error *err)
{
    *config = (struct bnt_config){0};
    json_t *json = NULL;
    json_t *generation_json = NULL;
    enum bnt_status status = bnt_json_parse(text, size, name, &json, err);
    if (status == BNT_OK && generation)
        status = bnt_json_parse(generation, generation_size, "generation_config.json",
                                &generation_json, err);
    if (status == BNT_OK) {
        struct parser p = {.json = json, .name = name, .err = err, .status = BNT_OK};
        parse_all(&p, generation_json, config);
        status = p.status;
    }
    json_decref(json);
    json_decref(generation_json);
    return status;
}

const char *bnt_config_special_token(const json_t *tokenizer_config, const char *key)
{
    const json_t *value = bnt_json_get(tokenizer_config, key);
    return bnt_json_text(value, "content", bnt_json_text(tokenizer_config, key, ""));
}

// The id of a token's text in tokenizer.json, or NULL.
static const json_t *find_token_id(const json_t *tokenizer, const char *text)
{
    size_t i;
    json_t *added;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, added)
    {
        if (strcmp(bnt_json_text(added, "content", ""), text) == 0)
            return bnt_json_get(added, "id");
    }
    return bnt_json_get(bnt_json_get(bnt_json_get(tokenizer, "model"), "vocab"), text);
}

enum bnt_status bnt_config_default_eos(struct bnt_hyper *h, struct bnt_config_file tokenizer,
                                       struct bnt_config_file tokenizer_config,
                                       struct bnt_error *err)
{
    json_t *config = NULL, *json = NULL;
    if (h->eos_count > 0 || !tokenizer.text || !tokenizer_config.text)
        return BNT_OK;
    enum bnt_status status = bnt_json_parse(tokenizer_config.text, tokenizer_config.size,
                                            "tokenizer_config.json", &config, err);
    const char *text = status == BNT_OK ? bnt_config_special_token(config, "eos_token") : "";
    if (*text)
        status = bnt_json_parse(tokenizer.text, tokenizer.size, "tokenizer.json", &json, err);
    const json_t *id = json ? find_token_id(json, text) : NULL;
    if (json_is_integer(id) && json_integer_value(id) >= 0 &&
        json_integer_value(id) < h->vocab_size)
        h->eos_id[h->eos_count++] = (uint32_t)json_integer_value(id);
    json_decref(json);
    json_decref(config);
    return status;
}

const char *bnt_form_name(enum bnt_form form)
{
    switch (form) {
    case BNT_FORM_MASTERS:
        return "masters";
    case BNT_FORM_PACKED_MULTIPLY:
        return "packed, weight_scale multiplies";
    case BNT_FORM_PACKED_DIVIDE:
        break;
    }
    return "packed, weight_scale divides";
}

static const char *layer_tensor_name(const struct bnt_arch *arch, enum bnt_role role)
{
    switch ((unsigned)role) {
    case BNT_ATTN_NORM:
        return "input_layernorm";
    case BNT_ATTN_SUB_NORM:
        return arch->attn_sub_norm;
    case BNT_FFN_NORM:
        return "post_attention_layernorm";
    case BNT_FFN_SUB_NORM:
        return arch->ffn_sub_norm;
    case BNT_ATTN_Q:
        return "self_attn.q_proj";
    case BNT_ATTN_K:
        return "self_attn.k_proj";
    case BNT_ATTN_V:
        return "self_attn.v_proj";
    case BNT_ATTN_O:
        return "self_attn.o_proj";
    case BNT_FFN_GATE:
        return "mlp.gate_proj";
    case BNT_FFN_UP:
        return "mlp.up_proj";
    case BNT_FFN_DOWN:
        return "mlp.down_proj";
    default:
        return NULL;
    }
}

void bnt_arch_tensor_name(const struct bnt_arch *arch, enum bnt_role role, int32_t layer,
                          char out[BNT_TENSOR_NAME_SIZE])
{
    const char *in_layer = layer_tensor_name(arch, role);
    out[0] = '\0';
    if (in_layer)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "model.layers.%" PRId32 ".%s.weight", layer,
                       in_layer);
    else if (role == BNT_FINAL_NORM)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "model.norm.weight");
    else if (role == BNT_TOKEN_EMBEDDING)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "model.embed_tokens.weight");
    else if (role == BNT_OUTPUT)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "lm_head.weight");
}
