// SPDX-License-Identifier: MIT
#include "formats/config.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/config_modules.h"
#include "formats/generation.h"
#include "formats/json.h"

#define GENERATION_CONFIG "generation_config.json"

// With and without an output layer of its own.
#define LLAMA                                                                                      \
    .activation = "silu", .rope_theta = 10000.0,                                                   \
    .bias_flags = BNT_HYPER_QKV_BIAS | BNT_HYPER_O_BIAS, .mlp_bias = true
#define MISTRAL .activation = "silu", .rope_theta = 10000.0, .window = 4096
#define QWEN2   .activation = "silu", .rope_theta = 10000.0, .flags = BNT_HYPER_QKV_BIAS
#define QWEN3                                                                                      \
    .activation = "silu", .rope_theta = 10000.0, .head_dim = 128, .flags = BNT_HYPER_QK_NORMS,     \
    .bias_flags = BNT_HYPER_QKV_BIAS | BNT_HYPER_O_BIAS

static const struct bnt_arch arch_table[] = {
    {.name = "BitNetForCausalLM",
     .attn_sub_norm = "self_attn.attn_sub_norm",
     .ffn_sub_norm = "mlp.ffn_sub_norm",
     .activation = "relu2",
     .rope_theta = 500000.0,
     .flags = BNT_HYPER_SUB_NORMS},
    {.name = "BitnetForCausalLM", // 1bitLLM
     .attn_sub_norm = "self_attn.inner_attn_ln",
     .ffn_sub_norm = "mlp.ffn_layernorm",
     .activation = "silu",
     .rope_theta = 10000.0,
     .flags = BNT_HYPER_SUB_NORMS},
    {.name = "LlamaForCausalLM", LLAMA},
    {.name = "LlamaModel", LLAMA, .base_model = true},
    {.name = "MistralForCausalLM", MISTRAL},
    {.name = "MistralModel", MISTRAL, .base_model = true},
    {.name = "Qwen2ForCausalLM", QWEN2},
    {.name = "Qwen2Model", QWEN2, .base_model = true},
    {.name = "Qwen3ForCausalLM", QWEN3},
    {.name = "Qwen3Model", QWEN3, .base_model = true},
};
enum { ARCH_ROWS = sizeof arch_table / sizeof arch_table[0] };

// One file: config.json, or generation_config.json.
struct parser {
    const json_t *json; // NULL: there is no such file
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
    else if (fabs(json_number_value(value)) > (double)FLT_MAX)
        fail(p, BNT_ERR_FORMAT, key, "must be a finite number");
    return json_number_value(value);
}

// A text; missing: fallback.
static const char *get_text(struct parser *p, const json_t *object, const char *key,
                            const char *fallback)
{
    const json_t *value = bnt_json_get(object, key);
    if (!value)
        return fallback;
    if (bnt_json_is_text(value))
        return json_string_value(value);
    fail(p, BNT_ERR_FORMAT, key, json_is_string(value) ? BNT_JSON_NO_TEXT : "must be a text");
    return fallback;
}

// true or false; missing: false.
static bool get_flag(struct parser *p, const json_t *object, const char *key)
{
    const json_t *value = bnt_json_get(object, key);
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
    if (config->arch || p->status != BNT_OK)
        return;
    char known[40 * ARCH_ROWS] = "";
    for (size_t i = 0, used = 0; i < ARCH_ROWS; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 arch_table[i].name);
    p->status =
        bnt_fail(p->err, BNT_ERR_UNSUPPORTED,
                 "%s: architecture \"%.100s\" is not supported (known: %s)", p->name, name, known);
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
    if (!bnt_json_get(p->json, "head_dim") && !arch->head_dim &&
        (h->n_heads == 0 || h->hidden_size % h->n_heads != 0))
        fail(p, BNT_ERR_FORMAT, "num_attention_heads",
             "does not divide hidden_size, and there is no head_dim");
    const uint32_t per_head = h->n_heads ? h->hidden_size / h->n_heads : 0;
    h->head_dim = get_u32(p, "head_dim", arch->head_dim ? arch->head_dim : per_head);
    h->activation = parse_activation(p, arch);
    if (!bnt_json_get(p->json, "rms_norm_eps"))
        fail(p, BNT_ERR_FORMAT, "rms_norm_eps", "is missing");
    h->norm_eps = (float)get_number(p, p->json, "rms_norm_eps", 0);
    h->flags |= arch->flags | (get_flag(p, p->json, "tie_word_embeddings") ? BNT_HYPER_TIED : 0u);
    if (arch->bias_flags && get_flag(p, p->json, "attention_bias"))
        h->flags |= arch->bias_flags;
    if (arch->mlp_bias && get_flag(p, p->json, "mlp_bias"))
        h->flags |= BNT_HYPER_FFN_BIAS;
}

// A window as long as the context changes nothing.
static void refuse_window(struct parser *p, const struct bnt_arch *arch)
{
    const json_t *types = bnt_json_get(p->json, "layer_types");
    size_t i;
    json_t *type;
    json_array_foreach((json_t *)types, i, type)
    {
        if (!json_is_string(type) || strcmp(json_string_value(type), "full_attention") != 0)
            unsupported(p, "layer_types:", json_is_string(type) ? json_string_value(type) : "?");
    }
    if (!arch->window || json_is_null(json_object_get(p->json, "sliding_window")))
        return;
    if (get_u32(p, "sliding_window", arch->window) < get_u32(p, "max_position_embeddings", 2048))
        unsupported(p, "sliding_window", "shorter than max_position_embeddings");
}

// What would change the forward pass in a way that we do not compute.
static void refuse_unsupported(struct parser *p, const struct bnt_arch *arch)
{
    const struct {
        const char *key;
        bool known;
    } flags[] = {{"attention_bias", arch->bias_flags || arch->flags & BNT_HYPER_QKV_BIAS},
                 {"mlp_bias", arch->mlp_bias},
                 {"use_qk_norm", false},
                 {"use_bidirectional_attention", false},
                 {"use_sliding_window", false}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (get_flag(p, p->json, flags[i].key) && !flags[i].known)
            unsupported(p, flags[i].key, "true");
    }
    if (json_is_false(bnt_json_get(p->json, "is_causal"))) // as transformers looks at it
        unsupported(p, "is_causal", "false");
    refuse_window(p, arch);
    double partial = get_number(p, p->json, "partial_rotary_factor", 1.0);
    if (partial != 1.0)
        unsupported(p, "partial_rotary_factor", "other than 1");
    const char *weights = get_text(p, p->json, "transformers_weights", BNT_CONFIG_WEIGHTS);
    if (strcmp(weights, BNT_CONFIG_WEIGHTS) != 0) // transformers would read that file instead
        unsupported(p, "transformers_weights", weights);
}

// --- rotary embedding ---

static void parse_original_context(struct parser *p, const json_t *rope, struct bnt_hyper *h)
{
    static const char key[] = "original_max_position_embeddings";
    double original = get_number(p, rope, key, (double)h->max_context);
    original = get_number(p, p->json, key, original); // at the top level it comes first
    if (original < 1 || original > BNT_MAX_CONTEXT)
        fail(p, BNT_ERR_FORMAT, key, "must be from 1 to 2^24");
    else
        h->rope_original_context = (uint32_t)original;
}

static void parse_llama3(struct parser *p, const json_t *rope, struct bnt_hyper *h)
{
    h->rope_scaling = BNT_ROPE_LLAMA3;
    h->rope_factor = (float)get_number(p, rope, "factor", 0);
    h->rope_low_freq_factor = (float)get_number(p, rope, "low_freq_factor", 0);
    h->rope_high_freq_factor = (float)get_number(p, rope, "high_freq_factor", 0);
    parse_original_context(p, rope, h);
}

static double yarn_mscale(double factor, double mscale)
{
    return factor > 1 ? 0.1 * mscale * log(factor) + 1 : 1;
}

// The attention factor as transformers computes it: as it stands, from mscale and mscale_all_dim
// where both are other than 0, or from the factor.
static void parse_yarn(struct parser *p, const json_t *rope, struct bnt_hyper *h)
{
    const double factor = get_number(p, rope, "factor", 0);
    const double mscale = get_number(p, rope, "mscale", 0);
    const double all = get_number(p, rope, "mscale_all_dim", 0);
    double attention = yarn_mscale(factor, 1);
    if (mscale != 0 && all != 0)
        attention = yarn_mscale(factor, mscale) / yarn_mscale(factor, all);
    h->rope_scaling = BNT_ROPE_YARN;
    h->rope_factor = (float)factor;
    h->rope_attention_factor = (float)get_number(p, rope, "attention_factor", attention);
    // As there, 0 counts as none.
    h->rope_beta_fast = (float)get_number(p, rope, "beta_fast", 32);
    h->rope_beta_slow = (float)get_number(p, rope, "beta_slow", 1);
    h->rope_beta_fast = h->rope_beta_fast == 0 ? 32.0f : h->rope_beta_fast;
    h->rope_beta_slow = h->rope_beta_slow == 0 ? 1.0f : h->rope_beta_slow;
    if (json_is_false(bnt_json_get(rope, "truncate")))
        h->flags |= BNT_HYPER_YARN_EXACT;
    parse_original_context(p, rope, h);
}

// The one type that all layers have, or NULL.
static const char *only_layer_type(const struct parser *p)
{
    const json_t *types = bnt_json_get(p->json, "layer_types");
    const json_t *first = json_array_get(types, 0);
    for (size_t i = 1; i < json_array_size(types); i++) {
        if (!json_equal(json_array_get(types, i), first))
            return NULL;
    }
    return json_string_value(first);
}

// Newer configs may hold one set of values for each type of layer: {"full_attention": {…}}. We have
// one for all layers, so there must be no doubt which.
static const json_t *unnest_rope(struct parser *p, const char *name, const json_t *rope)
{
    const char *type = only_layer_type(p);
    const json_t *of_type = type ? json_object_get(rope, type) : NULL;
    const json_t *nested = NULL;
    const char *key;
    json_t *value;
    bool flat = false, differ = false;
    json_object_foreach((json_t *)rope, key, value)
    {
        differ |= nested && json_is_object(value) && !json_equal(nested, value);
        nested = json_is_object(value) ? value : nested;
        flat |= !json_is_object(value) && !json_is_null(value);
    }
    if (!nested)
        return rope;
    if (flat)
        unsupported(p, name, "of types of layers and values beside them");
    else if (differ && !json_is_object(of_type))
        unsupported(p, name, "that differ between types of layers");
    return json_is_object(of_type) ? of_type : nested;
}

// An empty rope_scaling counts as none, as in transformers, which takes it before rope_parameters
// and as a whole.
static const json_t *find_rope(struct parser *p)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *rope = get_object(p, names[i]);
        if (json_object_size(rope) > 0)
            return unnest_rope(p, names[i], rope);
    }
    return NULL;
}

// rope_theta stands at the top level or, in newer configs, beside the scaling.
static void parse_rope(struct parser *p, const struct bnt_arch *arch, struct bnt_hyper *h)
{
    const json_t *rope = find_rope(p);
    double top = get_number(p, p->json, "rope_theta", arch->rope_theta);
    h->rope_theta = get_number(p, rope, "rope_theta", top);
    const char *type = get_text(p, rope, "rope_type", get_text(p, rope, "type", "default"));
    if (strcmp(type, "llama3") == 0)
        parse_llama3(p, rope, h);
    else if (strcmp(type, "yarn") == 0)
        parse_yarn(p, rope, h);
    else if (strcmp(type, "linear") == 0) {
        h->rope_scaling = BNT_ROPE_LINEAR;
        h->rope_factor = (float)get_number(p, rope, "factor", 0);
    } else if (strcmp(type, "default") != 0)
        unsupported(p, "rope_type", type);
    if (get_number(p, rope, "partial_rotary_factor", 1.0) != 1.0)
        unsupported(p, "partial_rotary_factor", "other than 1");
}

// --- form of the weights ---

static bool is_offline(struct parser *p, const json_t *quantization)
{
    static const char old[] = "offline_quantization";
    bool offline = !bnt_json_get(quantization, old) || get_flag(p, quantization, old);
    const char *mode =
        get_text(p, quantization, "quantization_mode", offline ? "offline" : "online");
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
    if (get_flag(p, quantization, "use_rms_norm")) {
        config->hyper.flags |= BNT_HYPER_LINEAR_NORMS;
        config->hyper.linear_norm_eps = (float)get_number(p, quantization, "rms_norm_eps", 1e-6);
    }
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

static bool is_token(const json_t *id, const struct bnt_hyper *h)
{
    return json_is_integer(id) && json_integer_value(id) >= 0 &&
           json_integer_value(id) < h->vocab_size;
}

// An id without a token can never come: models whose files were copied together have such ids.
static void leave_out(const struct parser *p, const json_t *id, struct bnt_config *config)
{
    size_t used = strlen(config->left_out);
    const json_int_t value = json_integer_value(id);
    if (used == 0)
        (void)snprintf(config->left_out, sizeof config->left_out,
                       "%.200s: eos_token_id %" JSON_INTEGER_FORMAT
                       " is left out: the vocabulary ends at %" PRIu32,
                       p->name, value, config->hyper.vocab_size - 1);
    else
        (void)snprintf(config->left_out + used, sizeof config->left_out - used,
                       ", so is %" JSON_INTEGER_FORMAT, value);
}

static void parse_eos(struct parser *p, struct bnt_config *config)
{
    struct bnt_hyper *h = &config->hyper;
    const json_t *eos = bnt_json_get(p->json, "eos_token_id");
    size_t count = json_is_array(eos) ? json_array_size(eos) : eos != NULL;
    for (size_t i = 0; i < count && p->status == BNT_OK; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (!json_is_integer(id))
            fail(p, BNT_ERR_FORMAT, "eos_token_id", "must be one or more ids");
        else if (!is_token(id, h))
            leave_out(p, id, config);
        else if (h->eos_count == BNT_MAX_EOS)
            fail(p, BNT_ERR_UNSUPPORTED, "eos_token_id", "has more than 8 ids");
        else
            h->eos_id[h->eos_count++] = (uint32_t)json_integer_value(id);
    }
}

static void parse_bos(struct parser *p, struct bnt_hyper *h)
{
    const json_t *bos = bnt_json_get(p->json, "bos_token_id");
    h->bos_id = -1;
    if (bos && !is_token(bos, h))
        fail(p, BNT_ERR_FORMAT, "bos_token_id", "must be an id below vocab_size");
    else if (bos)
        h->bos_id = (int32_t)json_integer_value(bos);
}

// What counts without do_sample too.
static void parse_penalties(struct parser *p, struct bnt_sampling_record *s)
{
    *s = BNT_SAMPLING_OFF;
    s->repetition_penalty = (float)get_number(p, p->json, "repetition_penalty", 1);
    s->presence_penalty = (float)get_number(p, p->json, "presence_penalty", 0);
    s->frequency_penalty = (float)get_number(p, p->json, "frequency_penalty", 0);
    s->max_new_tokens = get_u32(p, "max_new_tokens", 0);
    if (bnt_json_true(p->json, "do_sample"))
        s->min_p = (float)get_number(p, p->json, "min_p", 0);
    const char *problem = bnt_sampling_problem(s);
    if (problem)
        fail(p, BNT_ERR_FORMAT, problem, "is out of the range that a .bnt file can hold");
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

static void parse_generation(struct parser *p, const json_t *generation, struct bnt_config *config)
{
    struct parser own = {.json = generation, .name = GENERATION_CONFIG, .err = p->err};
    own.status = p->status;
    parse_eos(&own, config);
    parse_sampling(&own, generation, &config->hyper);
    parse_penalties(&own, &config->sampling);
    p->status = own.status;
    bnt_generation_passed_over(generation, config->hyper.max_context, config->passed_over,
                               sizeof config->passed_over);
}

static void check_range(struct parser *p, const struct bnt_config *config)
{
    const char *problem = bnt_hyper_problem(&config->hyper);
    if (problem && (strcmp(problem, "temperature") == 0 || strcmp(problem, "top_p") == 0))
        p->name = GENERATION_CONFIG;
    if (problem)
        fail(p, BNT_ERR_FORMAT, problem, "is out of the range that a .bnt file can hold");
    else if (p->status == BNT_OK)
        p->status =
            bnt_config_check_modules(config, get_object(p, "quantization_config"), p->name, p->err);
}

static void parse_all(struct parser *p, const json_t *generation, struct bnt_config *config)
{
    parse_architecture(p, config);
    if (!config->arch)
        return;
    parse_form(p, config);
    refuse_unsupported(p, config->arch);
    parse_sizes(p, config->arch, &config->hyper);
    parse_rope(p, config->arch, &config->hyper);
    parse_bos(p, &config->hyper);
    parse_generation(p, generation, config);
    if (config->hyper.eos_count == 0) // otherwise generation_config.json has the word
        parse_eos(p, config);
    check_range(p, config);
}

enum bnt_status bnt_config_parse(struct bnt_config *config, const char *text, size_t size,
                                 const char *generation, size_t generation_size, const char *name,
                                 struct bnt_error *err)
{
    *config = (struct bnt_config){.hyper.activation_bits = 8};
    json_t *json = NULL;
    json_t *generation_json = NULL;
    enum bnt_status status = bnt_json_parse(text, size, name, &json, err);
    if (status == BNT_OK && generation)
        status =
            bnt_json_parse(generation, generation_size, GENERATION_CONFIG, &generation_json, err);
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
    case BNT_FORM_LEVELS:
        return "three levels";
    case BNT_FORM_PACKED_DIVIDE:
        break;
    }
    return "packed, weight_scale divides";
}
