// SPDX-License-Identifier: MIT
// A config that is misread gives a model that talks nonsense without any error: the shipped ones
// must be read right, the form of the weights must follow the table of known checkpoints and
// nothing else, and what we do not compute must be refused by name.
#include <jansson.h>

#include "formats/config.h"
#include "tests/unit/support.h"

static enum bnt_status parse(const char *text, const char *generation, struct bnt_config *config,
                             struct bnt_error *err)
{
    *err = (struct bnt_error){.message = ""};
    return bnt_config_parse(config, text, strlen(text), generation,
                            generation ? strlen(generation) : 0, "config.json", err);
}

// --- the shipped configs ---

static struct bnt_config read_config(const char *name, const char *generation_name)
{
    struct bnt_config config;
    struct bnt_error err;
    size_t size;
    char *text = test_read_file(name, &size);
    char *generation = generation_name ? test_read_file(generation_name, &size) : NULL;
    if (parse(text, generation, &config, &err) != BNT_OK)
        fail_msg("%s", err.message);
    assert_true(config.ternary);
    free(text);
    free(generation);
    return config;
}

static void check_hyper(const struct bnt_hyper *is, const struct bnt_hyper *must)
{
    if (memcmp(is, must, sizeof *is) != 0) {
        for (size_t i = 0; i < sizeof *is / 4; i++) {
            if (((const uint32_t *)(const void *)is)[i] !=
                ((const uint32_t *)(const void *)must)[i])
                fail_msg("the hyperparameters differ at offset %zu", 4 * i);
        }
    }
}

static void fairy_is_read(void **state)
{
    const struct bnt_hyper must = {
        .n_layers = 6,
        .hidden_size = 256,
        .ffn_size = 768,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 64,
        .vocab_size = 4096,
        .max_context = 1024,
        .activation = BNT_ACTIVATION_RELU2,
        .flags = BNT_HYPER_TIED | BNT_HYPER_SUB_NORMS,
        .norm_eps = 1e-5f,
        .rope_theta = 10000.0,
        .activation_bits = 8,
        .bos_id = 4090,
        .eos_count = 1,
        .eos_id = {4091},
        .temperature = 0.8f,
        .top_p = 0.95f,
    };
    struct bnt_config c = read_config(BNT_TEST_DATA "/fairy-6m/config.json",
                                      BNT_TEST_DATA "/fairy-6m/generation_config.json");
    (void)state;
    check_hyper(&c.hyper, &must);
    assert_int_equal(c.form, BNT_FORM_MASTERS);
    assert_string_equal(c.arch->name, "BitNetForCausalLM");
    // Without do_sample the advice is greedy.
    c = read_config(BNT_TEST_DATA "/fairy-6m/config.json", NULL);
    assert_true(c.hyper.temperature == 0 && c.hyper.top_p == 1 && c.hyper.top_k == 0);
}

static void variants_are_read(void **state)
{
    struct bnt_config c = read_config(BNT_TEST_DATA "/variants/2b-packed/config.json", NULL);
    (void)state;
    assert_int_equal(c.form, BNT_FORM_PACKED_MULTIPLY);
    assert_int_equal(c.hyper.activation, BNT_ACTIVATION_RELU2);
    assert_int_equal(c.hyper.n_kv_heads, 1);
    assert_true(c.hyper.rope_theta == 500000.0);
    assert_int_equal(c.hyper.flags, BNT_HYPER_TIED | BNT_HYPER_SUB_NORMS);
    c = read_config(BNT_TEST_DATA "/variants/llama-packed/config.json", NULL);
    assert_int_equal(c.form, BNT_FORM_PACKED_DIVIDE);
    assert_int_equal(c.hyper.activation, BNT_ACTIVATION_SILU);
    assert_int_equal(c.hyper.head_dim, 32);
    assert_int_equal(c.hyper.flags, 0);
    assert_int_equal(c.hyper.ffn_size, 352);
    c = read_config(BNT_TEST_DATA "/variants/1bitllm-f32/config.json", NULL);
    assert_int_equal(c.form, BNT_FORM_MASTERS);
    assert_int_equal(c.hyper.activation, BNT_ACTIVATION_SILU);
    assert_int_equal(c.hyper.head_dim, 24);
    assert_int_equal(c.hyper.flags, BNT_HYPER_TIED | BNT_HYPER_SUB_NORMS);
    assert_string_equal(c.arch->name, "BitnetForCausalLM");
}

// --- one config, changed in one place ---

static const char base[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":96,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":"
    "100,"
    "\"max_position_embeddings\":128,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"rope_theta\":"
    "500.0,"
    "\"bos_token_id\":1,\"eos_token_id\":2,\"tie_word_embeddings\":true,\"weight_bits\":1}";

// The base with a member set to JSON text, or removed (NULL).
static enum bnt_status parse_changed(const char *key, const char *value, const char *generation,
                                     struct bnt_config *config, struct bnt_error *err)
{
    json_t *json = json_loads(base, 0, NULL);
    assert_non_null(json);
    if (value) {
        json_t *member = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(member);
        assert_int_equal(json_object_set_new(json, key, member), 0);
    } else {
        assert_int_equal(json_object_del(json, key), 0);
    }
    char *text = json_dumps(json, 0);
    enum bnt_status status = parse(text, generation, config, err);
    free(text);
    json_decref(json);
    return status;
}

struct change {
    const char *key, *value; // NULL: removed
    enum bnt_status status;
    const char *message; // what it must say
};

static void check_changes(const struct change *all, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct bnt_config config;
        struct bnt_error err;
        enum bnt_status status = parse_changed(all[i].key, all[i].value, NULL, &config, &err);
        if (status != all[i].status)
            fail_msg("%s = %s: status %d, must be %d (%s)", all[i].key,
                     all[i].value ? all[i].value : "(missing)", (int)status, (int)all[i].status,
                     err.message);
        if (status != BNT_OK && (!strstr(err.message, all[i].message) ||
                                 strncmp(err.message, "config.json: ", 13) != 0))
            fail_msg("%s: '%s' says nothing of '%s'", all[i].key, err.message, all[i].message);
    }
}

#define BAD BNT_ERR_FORMAT
#define NO  BNT_ERR_UNSUPPORTED

static void sizes_are_checked(void **state)
{
    static const struct change all[] = {
        {"hidden_size", NULL, BAD, "hidden_size is missing"},
        {"intermediate_size", NULL, BAD, "intermediate_size is missing"},
        {"num_hidden_layers", NULL, BAD, "num_hidden_layers is missing"},
        {"num_attention_heads", NULL, BAD, "num_attention_heads is missing"},
        {"vocab_size", NULL, BAD, "vocab_size is missing"},
        {"rms_norm_eps", NULL, BAD, "rms_norm_eps is missing"},
        {"hidden_size", "null", BAD, "hidden_size is missing"},
        {"hidden_size", "\"64\"", BAD, "hidden_size must be an integer"},
        {"hidden_size", "64.0", BAD, "hidden_size must be an integer"},
        {"hidden_size", "[64]", BAD, "hidden_size must be an integer"},
        {"hidden_size", "true", BAD, "hidden_size must be an integer"},
        {"hidden_size", "-64", BAD, "hidden_size must be an integer"},
        {"hidden_size", "0", BAD, "hidden_size"},
        {"hidden_size", "2147483648", BAD, "hidden_size must be an integer"},
        {"hidden_size", "4294967360", BAD, "hidden_size must be an integer"},
        {"hidden_size", "9223372036854775807", BAD, "hidden_size must be an integer"},
        {"hidden_size", "66", BAD, "does not divide hidden_size"},
        {"hidden_size", "1048580", BAD, "hidden_size"},
        {"intermediate_size", "0", BAD, "ffn_size"},
        {"num_hidden_layers", "0", BAD, "n_layers"},
        {"num_hidden_layers", "5000", BAD, "n_layers"},
        {"num_attention_heads", "0", BAD, "num_attention_heads"},
        {"num_key_value_heads", "3", BAD, "n_kv_heads"},
        {"num_key_value_heads", "8", BAD, "n_kv_heads"},
        {"num_key_value_heads", "0", BAD, "n_kv_heads"},
        {"vocab_size", "16777217", BAD, "vocab_size"},
        {"vocab_size", "\"100\"", BAD, "vocab_size must be an integer"},
        {"vocab_size", "-1", BAD, "vocab_size must be an integer"},
        {"max_position_embeddings", "0", BAD, "max_context"},
        {"max_position_embeddings", "16777217", BAD, "max_context"},
        {"head_dim", "7", BAD, "head_dim"},
        {"head_dim", "\"16\"", BAD, "head_dim must be an integer"},
        {"rms_norm_eps", "0", BAD, "norm_eps"},
        {"rms_norm_eps", "-1e-5", BAD, "norm_eps"},
        {"rms_norm_eps", "1e-60", BAD, "norm_eps"},
        {"rms_norm_eps", "1e60", BAD, "norm_eps"},
        {"rms_norm_eps", "\"1e-5\"", BAD, "rms_norm_eps must be a number"},
        {"num_key_value_heads", NULL, BNT_OK, NULL},
        {"num_key_value_heads", "null", BNT_OK, NULL},
        {"max_position_embeddings", NULL, BNT_OK, NULL},
        {"head_dim", "96", BNT_OK, NULL},
    };
    (void)state;
    check_changes(all, TEST_COUNT(all));
}

static void architectures_are_known_or_refused(void **state)
{
    static const struct change all[] = {
        {"architectures", NULL, BAD, "architectures must be"},
        {"architectures", "[]", BAD, "architectures must be"},
        {"architectures", "\"LlamaForCausalLM\"", BAD, "architectures must be"},
        {"architectures", "[1]", BAD, "architectures must be"},
        {"architectures", "[\"LlamaForCausalLM\",\"BitNetForCausalLM\"]", BAD,
         "architectures must be"},
        {"architectures", "[\"GPT2LMHeadModel\"]", NO, "GPT2LMHeadModel"},
        {"architectures", "[\"llamaforcausallm\"]", NO, "not supported"},
        {"architectures", "[\"BitnetForCausalLM\"]", BNT_OK, NULL},
        {"architectures", "[\"BitNetForCausalLM\"]", BNT_OK, NULL},
    };
    (void)state;
    check_changes(all, TEST_COUNT(all));
}

static void what_is_not_computed_is_refused(void **state)
{
    static const struct change all[] = {
        {"hidden_act", "\"gelu\"", NO, "gelu"},
        {"hidden_act", "\"relu\"", NO, "relu"},
        {"hidden_act", "\"\"", NO, "hidden_act"},
        {"hidden_act", "\"swish\"", BNT_OK, NULL},
        {"hidden_act", "\"relu2\"", BNT_OK, NULL},
        {"hidden_act", NULL, BNT_OK, NULL},
        {"attention_bias", "true", BNT_OK, NULL},
        {"attention_bias", "false", BNT_OK, NULL},
        {"mlp_bias", "true", BNT_OK, NULL},
        {"use_qk_norm", "true", NO, "use_qk_norm"},
        {"layer_types", "[\"full_attention\",\"sliding_attention\"]", NO, "sliding_attention"},
        {"layer_types", "[\"full_attention\",\"full_attention\"]", BNT_OK, NULL},
        {"use_sliding_window", "true", NO, "use_sliding_window"},
        {"partial_rotary_factor", "0.5", NO, "partial_rotary_factor"},
        {"partial_rotary_factor", "1.0", BNT_OK, NULL},
        {"rope_scaling", "null", BNT_OK, NULL},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":2.0}", BNT_OK, NULL},
        {"rope_scaling", "{\"rope_type\":\"dynamic\",\"factor\":2.0}", NO, "dynamic"},
        {"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":2.0}", BNT_OK, NULL},
        {"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":\"2\"}", BAD, "factor"},
        {"rope_scaling", "{\"rope_type\":\"longrope\"}", NO, "longrope"},
        {"rope_scaling", "{\"rope_type\":\"default\"}", BNT_OK, NULL},
        {"rope_parameters", "{\"rope_type\":\"yarn\"}", BAD, "rope_factor"},
        {"rope_parameters", "{\"rope_theta\":0}", BAD, "rope_theta"},
        {"rope_parameters", "{\"rope_theta\":\"10000\"}", BAD, "rope_theta must be a number"},
        {"rope_theta", "\"10000\"", BAD, "rope_theta must be a number"},
        {"rope_theta", "-5", BAD, "rope_theta"},
        {"rope_scaling", "{\"rope_type\":\"llama3\"}", BAD, "rope_factor"},
        {"rope_scaling", "{\"rope_type\":\"llama3\",\"original_max_position_embeddings\":0}", BAD,
         "original_max_position_embeddings"},
        {"transformers_weights", "\"other.safetensors\"", NO, "other.safetensors"},
        {"transformers_weights", "\"model.safetensors\"", BNT_OK, NULL},
        {"rope_scaling",
         "{\"rope_type\":\"llama3\",\"factor\":0,\"low_freq_factor\":1,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":8192}",
         BAD, "rope_factor"},
        {"rope_scaling",
         "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":8192}",
         BAD, "rope_high_freq_factor"},
        {"rope_scaling",
         "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":8192}",
         BNT_OK, NULL},
    };
    (void)state;
    check_changes(all, TEST_COUNT(all));
}

// A member of the wrong type is not a missing one: what it should have said is unknown.
static void texts_of_the_wrong_type_are_refused(void **state)
{
    static const struct change all[] = {
        {"hidden_act", "7", BAD, "hidden_act"},
        {"rope_scaling", "\"llama3\"", BAD, "rope_scaling"},
        {"rope_scaling", "{\"rope_type\":3}", BAD, "rope_type"},
        {"rope_parameters", "[]", BAD, "rope_parameters"},
        {"attention_bias", "\"true\"", BAD, "attention_bias"},
        {"tie_word_embeddings", "\"false\"", BAD, "tie_word_embeddings"},
        {"quantization_config", "{\"quant_method\":\"bitnet\",\"linear_class\":5}", BAD,
         "linear_class"},
        {"quantization_config",
         "{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\",\"quantization_mode\":1}",
         BAD, "quantization_mode"},
    };
    char accepted[1024] = "";
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_config config;
        struct bnt_error err;
        size_t used = strlen(accepted);
        if (parse_changed(all[i].key, all[i].value, NULL, &config, &err) == BNT_OK)
            (void)snprintf(accepted + used, sizeof accepted - used, "\n  %s = %s", all[i].key,
                           all[i].value);
        else
            assert_non_null(strstr(err.message, all[i].message));
    }
    if (accepted[0])
        fail_msg("accepted:%s", accepted);
}

static void tokens_are_checked(void **state)
{
    static const struct change all[] = {
        {"bos_token_id", "100", BAD, "bos_token_id"},
        {"bos_token_id", "-1", BAD, "bos_token_id"},
        {"bos_token_id", "\"1\"", BAD, "bos_token_id"},
        {"bos_token_id", NULL, BNT_OK, NULL},
        {"bos_token_id", "null", BNT_OK, NULL},
        {"eos_token_id", "[1,\"2\"]", BAD, "eos_token_id"},
        {"eos_token_id", "[1,null]", BAD, "eos_token_id"},
        {"eos_token_id", "2.0", BAD, "eos_token_id"},
        {"eos_token_id", "[0,1,2,3,4,5,6,7]", BNT_OK, NULL},
        {"eos_token_id", "[0,1,2,3,4,5,6,7,8]", NO, "more than 8"},
        {"eos_token_id", "[]", BNT_OK, NULL},
        {"eos_token_id", NULL, BNT_OK, NULL},
    };
    (void)state;
    check_changes(all, TEST_COUNT(all));
}

static void not_json_is_refused(void **state)
{
    static const char *const texts[] = {"", "[]", "null", "{} x",
                                        "{\"architectures\":[\"LlamaForCausalLM\"]"};
    struct bnt_config config;
    struct bnt_error err;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(texts); i++)
        assert_int_equal(parse(texts[i], NULL, &config, &err), BNT_ERR_FORMAT);
    assert_int_equal(parse(base, "[1]", &config, &err), BNT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "generation_config.json"));
}

// --- values that follow from others ---

static void defaults_are_those_of_the_architecture(void **state)
{
    struct bnt_config c;
    struct bnt_error err;
    (void)state;
    assert_int_equal(parse_changed("rope_theta", NULL, NULL, &c, &err), BNT_OK);
    assert_true(c.hyper.rope_theta == 10000.0);
    assert_int_equal(parse_changed("num_key_value_heads", NULL, NULL, &c, &err), BNT_OK);
    assert_int_equal(c.hyper.n_kv_heads, 4);
    assert_int_equal(c.hyper.head_dim, 16);
    assert_int_equal(parse_changed("tie_word_embeddings", NULL, NULL, &c, &err), BNT_OK);
    assert_int_equal(c.hyper.flags & BNT_HYPER_TIED, 0);
    assert_int_equal(parse_changed("bos_token_id", NULL, NULL, &c, &err), BNT_OK);
    assert_int_equal(c.hyper.bos_id, -1);
    assert_int_equal(parse_changed("eos_token_id", "[5,7]", NULL, &c, &err), BNT_OK);
    assert_int_equal(c.hyper.eos_count, 2);
    assert_int_equal(c.hyper.eos_id[1], 7);
    assert_int_equal(parse_changed("hidden_act", "\"relu2\"", NULL, &c, &err), BNT_OK);
    assert_int_equal(c.hyper.activation, BNT_ACTIVATION_RELU2);
}

static void rope_parameters_come_before_the_top_level(void **state)
{
    struct bnt_config c;
    struct bnt_error err;
    (void)state;
    assert_int_equal(parse_changed("rope_parameters",
                                   "{\"rope_type\":\"default\",\"rope_theta\":1e6}", NULL, &c,
                                   &err),
                     BNT_OK);
    assert_true(c.hyper.rope_theta == 1e6);
    assert_int_equal(
        parse_changed("rope_scaling",
                      "{\"rope_type\":\"llama3\",\"factor\":8.5,\"low_freq_factor\":1,"
                      "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}",
                      NULL, &c, &err),
        BNT_OK);
    assert_true(c.hyper.rope_theta == 500.0);
    assert_int_equal(c.hyper.rope_scaling, BNT_ROPE_LLAMA3);
    assert_true(c.hyper.rope_factor == 8.5f && c.hyper.rope_low_freq_factor == 1 &&
                c.hyper.rope_high_freq_factor == 4 && c.hyper.rope_original_context == 8192);
}

// Both at once: transformers takes rope_scaling, and nothing of the other.
static void rope_scaling_comes_before_rope_parameters(void **state)
{
    static const char llama3[] = "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
                                 "\"high_freq_factor\":4}";
    char text[1024];
    struct bnt_config c;
    struct bnt_error err;
    (void)state;
    const int head = (int)strlen(base) - 1;
    (void)snprintf(text, sizeof text,
                   "%.*s,\"rope_parameters\":{\"rope_theta\":7e5},\"rope_scaling\":%s}", head, base,
                   llama3);
    assert_int_equal(parse(text, NULL, &c, &err), BNT_OK);
    assert_int_equal(c.hyper.rope_scaling, BNT_ROPE_LLAMA3);
    assert_true(c.hyper.rope_theta == 500.0);
    assert_int_equal(c.hyper.rope_original_context, 128); // max_position_embeddings
    (void)snprintf(text, sizeof text,
                   "%.*s,\"rope_theta\":null,\"rope_parameters\":{\"rope_theta\":7e5},"
                   "\"original_max_position_embeddings\":64,\"rope_scaling\":%s}",
                   head, base, llama3);
    assert_int_equal(parse(text, NULL, &c, &err), BNT_OK);
    assert_true(c.hyper.rope_theta == 10000.0);
    assert_int_equal(c.hyper.rope_original_context, 64);
    (void)snprintf(text, sizeof text,
                   "%.*s,\"rope_parameters\":{\"rope_theta\":7e5},\"rope_scaling\":{}}", head,
                   base);
    assert_int_equal(parse(text, NULL, &c, &err), BNT_OK);
    assert_true(c.hyper.rope_theta == 7e5 && c.hyper.rope_scaling == BNT_ROPE_NONE);
}

// Values that stand one level deeper must be read or refused: passed over, theta would be a
// default.
static void nested_rope_parameters_are_read_or_refused(void **state)
{
#define FULL    "\"full_attention\":{\"rope_type\":\"default\",\"rope_theta\":7e5}"
#define SLIDING "\"sliding_attention\":{\"rope_theta\":1e4}"
    static const struct {
        const char *key, *rope, *types;
        double theta; // 0: refused
    } all[] = {
        {"rope_parameters", "{" FULL "}", "null", 7e5},
        {"rope_scaling", "{" FULL "}", "null", 7e5},
        {"rope_parameters", "{" FULL ",\"sliding_attention\":null}", "null", 7e5},
        {"rope_parameters", "{" FULL ",\"b\":{\"rope_type\":\"default\",\"rope_theta\":7e5}}",
         "null", 7e5},
        {"rope_parameters", "{" FULL "," SLIDING "}", "null", 0},
        {"rope_parameters", "{" SLIDING "," FULL "}", "[\"full_attention\",\"full_attention\"]",
         7e5},
        {"rope_parameters", "{" FULL "," SLIDING "}", "[\"full_attention\",\"sliding_attention\"]",
         0},
        {"rope_parameters", "{" FULL ",\"rope_theta\":1e4,\"rope_type\":\"default\"}", "null", 0},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        char text[1024];
        struct bnt_config c;
        struct bnt_error err;
        (void)snprintf(text, sizeof text, "%.*s,\"layer_types\":%s,\"%s\":%s}",
                       (int)strlen(base) - 1, base, all[i].types, all[i].key, all[i].rope);
        enum bnt_status status = parse(text, NULL, &c, &err);
        if (status != (all[i].theta > 0 ? BNT_OK : BNT_ERR_UNSUPPORTED))
            fail_msg("%s: %d %s", all[i].rope, (int)status, err.message);
        if (status == BNT_OK)
            assert_true(c.hyper.rope_theta == all[i].theta);
        else
            assert_true(strstr(err.message, "config.json: rope_parameters") ||
                        strstr(err.message, "config.json: layer_types"));
    }
#undef FULL
#undef SLIDING
}

// Ids that no token has can never come; they are named, with their file, and the others count.
static void eos_ids_beyond_the_vocabulary_are_left_out(void **state)
{
    static const struct {
        const char *config, *generation;
        uint32_t count, first;
        const char *says;
    } all[] = {
        {"2", "{\"eos_token_id\":[4,100]}", 1, 4,
         "generation_config.json: eos_token_id 100 is left out: the vocabulary ends at 99"},
        {"2", "{\"eos_token_id\":[100,4,-1,4294967297]}", 1, 4, ", so is -1, so is 4294967297"},
        {"2", "{\"eos_token_id\":99999}", 1, 2,
         "generation_config.json: eos_token_id 99999 is left out"},
        {"[1,100]", "{}", 1, 1, "config.json: eos_token_id 100 is left out"},
        {"100", NULL, 0, 0, "config.json: eos_token_id 100 is left out"},
        {"2", "{\"eos_token_id\":99}", 1, 99, ""},
        {"[0,1,2,3,4,5,6,7,100]", NULL, 8, 0, "100"},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_config c;
        struct bnt_error err;
        if (parse_changed("eos_token_id", all[i].config, all[i].generation, &c, &err) != BNT_OK)
            fail_msg("%s", err.message);
        assert_int_equal(c.hyper.eos_count, all[i].count);
        assert_int_equal(c.hyper.eos_id[0], all[i].first);
        if (all[i].says[0] ? !strstr(c.left_out, all[i].says) : c.left_out[0] != '\0')
            fail_msg("'%s' must say '%s'", c.left_out, all[i].says);
    }
}

// What Python's json takes and no field of ours is, is passed over; in one of ours it is named.
static void strange_values_matter_only_where_they_are_used(void **state)
{
    static const struct change used[] = {
        {"vocab_size", "1000000000000000019884624838656", BAD, "vocab_size must be an integer"},
        {"hidden_act", "NaN", BAD, "hidden_act must be a text"},
        {"hidden_act", "\"silu\\u0000\"", BAD, "hidden_act holds \\u0000"},
        {"hidden_act", "\"silu\\ud800\"", BAD, "hidden_act holds \\u0000 or half"},
        {"rms_norm_eps", "Infinity", BAD, "rms_norm_eps must be a finite number"},
        {"rms_norm_eps", "NaN", BAD, "rms_norm_eps must be a finite number"},
        {"rope_theta", "1e400", BAD, "rope_theta must be a finite number"},
        {"tie_word_embeddings", "NaN", BAD, "tie_word_embeddings must be true or false"},
        {"architectures", "[\"Llama\\u0000\"]", NO, "architecture"},
        {"eos_token_id", "1000000000000000019884624838656", BAD, "eos_token_id must be"},
        {"bos_token_id", "Infinity", BAD, "bos_token_id must be"},
        {"partial_rotary_factor", "NaN", BAD, "partial_rotary_factor must be a finite number"},
        {"quantization_config", "{\"quant_method\":\"bitnet\",\"use_rms_norm\":NaN}", BAD,
         "use_rms_norm must be true or false"},
        {"quantization_config",
         "{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\","
         "\"offline_quantization\":1e400}",
         BAD, "offline_quantization must be true or false"},
        {"rope_theta", "10000000000000000000000", BNT_OK, NULL},       // a number like any other
        {"hidden_act", "NaN, \"hidden_act\": \"silu\"", BNT_OK, NULL}, // the last counts
        {"unused", "1000000000000000019884624838656", BNT_OK, NULL},
        {"unused", "[1e400, -1e400, NaN, Infinity, -Infinity]", BNT_OK, NULL},
        {"unused", "{\"a\":1,\"a\":\"\\ud83d\",\"\\u0000\":\"\\udc00\"}", BNT_OK, NULL},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(used); i++) {
        char text[1024];
        struct bnt_config c;
        struct bnt_error err;
        (void)snprintf(text, sizeof text, "%.*s,\"%s\":%s}", (int)strlen(base) - 1, base,
                       used[i].key, used[i].value);
        enum bnt_status status = parse(text, NULL, &c, &err);
        if (status != used[i].status || (status && !strstr(err.message, used[i].message)))
            fail_msg("%s: %s: %d, %s", used[i].key, used[i].value, (int)status, err.message);
    }
    struct bnt_config c;
    struct bnt_error err;
    assert_int_equal(parse(base, "{\"max_length\":1e400,\"temperature\":NaN}", &c, &err), BNT_OK);
    assert_int_equal(parse(base, "{\"do_sample\":true,\"temperature\":NaN}", &c, &err), BAD);
    assert_non_null(
        strstr(err.message, "generation_config.json: temperature must be a finite number"));
}

static void generation_config_gives_the_sampling_defaults(void **state)
{
    struct bnt_config c;
    struct bnt_error err;
    (void)state;
    assert_int_equal(parse(base,
                           "{\"do_sample\":true,\"temperature\":0.6,\"top_p\":0.9,\"top_k\":40,"
                           "\"eos_token_id\":[3,4]}",
                           &c, &err),
                     BNT_OK);
    assert_true(c.hyper.temperature == 0.6f && c.hyper.top_p == 0.9f && c.hyper.top_k == 40);
    assert_int_equal(c.hyper.eos_count, 2); // it comes before config.json
    assert_int_equal(c.hyper.eos_id[0], 3);
    assert_int_equal(parse(base, "{\"temperature\":0.6,\"top_p\":0.9}", &c, &err), BNT_OK);
    assert_true(c.hyper.temperature == 0 && c.hyper.top_p == 1);
    assert_int_equal(c.hyper.eos_id[0], 2);
    assert_int_equal(parse(base, "{\"do_sample\":true,\"temperature\":\"hot\"}", &c, &err),
                     BNT_ERR_FORMAT);
    assert_int_equal(parse(base, "{\"do_sample\":true,\"top_p\":1.5}", &c, &err), BNT_ERR_FORMAT);
}

static void generation_config_gives_penalties_and_lengths(void **state)
{
    struct bnt_config c;
    struct bnt_error err;
    const struct bnt_sampling_record off = BNT_SAMPLING_OFF;
    (void)state;
    assert_int_equal(parse(base, NULL, &c, &err), BNT_OK);
    assert_memory_equal(&c.sampling, &off, sizeof off);
    // Penalties change greedy texts too; min_p goes with do_sample.
    assert_int_equal(parse(base,
                           "{\"repetition_penalty\":1.1,\"presence_penalty\":0.5,"
                           "\"frequency_penalty\":-0.25,\"min_p\":0.05,\"max_new_tokens\":77}",
                           &c, &err),
                     BNT_OK);
    assert_true(c.sampling.repetition_penalty == 1.1f && c.sampling.presence_penalty == 0.5f &&
                c.sampling.frequency_penalty == -0.25f && c.sampling.min_p == 0);
    assert_int_equal(c.sampling.max_new_tokens, 77);
    assert_int_equal(parse(base, "{\"do_sample\":true,\"min_p\":0.05}", &c, &err), BNT_OK);
    assert_true(c.sampling.min_p == 0.05f && c.hyper.temperature == 1);
    static const char *const bad[] = {
        "\"repetition_penalty\":0",       "\"repetition_penalty\":-1.5",
        "\"repetition_penalty\":101",     "\"presence_penalty\":3",
        "\"frequency_penalty\":\"much\"", "\"min_p\":1.5",
        "\"max_new_tokens\":-1",          "\"max_new_tokens\":1.5",
        "\"temperature\":1000",           "\"top_p\":[]"};
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        char text[100];
        (void)snprintf(text, sizeof text, "{\"do_sample\":true,%s}", bad[i]);
        assert_int_equal(parse(base, text, &c, &err), BNT_ERR_FORMAT);
        if (strncmp(err.message, "generation_config.json: ", 24) != 0)
            fail_msg("%s: %s", bad[i], err.message);
    }
}

// What is passed over is named, but for what asks for nothing.
static void what_generation_config_asks_in_vain_is_named(void **state)
{
    static const struct {
        const char *generation, *named;
    } cases[] = {
        {"{}", ""},
        {"{\"num_beams\":4}", "num_beams"},
        {"{\"num_beams\":1,\"typical_p\":1.0,\"no_repeat_ngram_size\":0,\"bad_words_ids\":null,"
         "\"suppress_tokens\":[],\"sequence_bias\":{},\"token_healing\":false,\"min_length\":0,"
         "\"guidance_scale\":1,\"stop_strings\":\"\"}",
         ""},
        {"{\"do_sample\":true,\"typical_p\":0.9,\"eta_cutoff\":0.001,\"no_repeat_ngram_size\":3}",
         "typical_p, eta_cutoff, no_repeat_ngram_size"},
        {"{\"typical_p\":0.9}", ""}, // nothing is sampled
        {"{\"bad_words_ids\":[[1]],\"stop_strings\":[\"x\"],\"forced_bos_token_id\":0}",
         "bad_words_ids, stop_strings, forced_bos_token_id"},
        {"{\"pad_token_id\":0,\"transformers_version\":\"4.1\",\"_from_model_config\":true,"
         "\"use_cache\":true,\"top_k\":50,\"length_penalty\":0.5}",
         ""},
        {"{\"what_comes_next_year\":{\"a\":1}}", "what_comes_next_year"},
        {"{\"max_length\":10}", "max_length"},
        {"{\"max_length\":10,\"max_new_tokens\":5}", ""},
        {"{\"max_length\":20}", ""},
        {"{\"max_length\":1000000}", ""},
    };
    struct bnt_config c;
    struct bnt_error err;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
        assert_int_equal(parse(base, cases[i].generation, &c, &err), BNT_OK);
        assert_string_equal(c.passed_over, cases[i].named);
    }
    char many[6000] = "{";
    for (int i = 0; i < 200; i++) {
        size_t used = strlen(many);
        (void)snprintf(many + used, sizeof many - used, "%s\"unknown_%d\":7", i ? "," : "", i);
    }
    (void)strncat(many, "}", 2);
    assert_int_equal(parse(base, many, &c, &err), BNT_OK);
    assert_true(strlen(c.passed_over) > BNT_PASSED_OVER_SIZE - 30);
    assert_string_equal(c.passed_over + strlen(c.passed_over) - strlen(", …"), ", …");
}

// --- the form of the weights ---

#define Q "{\"quant_method\":\"bitnet\""

// Which way a stored scale counts: README.md, "Which checkpoints"; transformers decides by
// linear_class.
static const struct {
    const char *quantization; // NULL: none
    const char *weight_bits;
    enum bnt_status status;
    enum bnt_form form;
    bool ternary;
} forms[] = {
    {Q "}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"linear_class\":null}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"linear_class\":\"bitlinear\"}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"linear_class\":\"bitlinear\",\"quantization_mode\":\"offline\"}", NULL, BNT_OK,
     BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"}", NULL, BNT_OK,
     BNT_FORM_PACKED_MULTIPLY, true},
    {Q ",\"linear_class\":\"autobitlinear\",\"offline_quantization\":true}", NULL, BNT_OK,
     BNT_FORM_PACKED_MULTIPLY, true},
    {Q ",\"linear_class\":\"autobitlinear\"}", NULL, BNT_OK, BNT_FORM_PACKED_MULTIPLY, true},
    {Q ",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"online\"}", NULL, BNT_OK,
     BNT_FORM_MASTERS, true},
    {Q ",\"linear_class\":\"autobitlinear\",\"offline_quantization\":false}", NULL, BNT_OK,
     BNT_FORM_MASTERS, true},
    {NULL, "1", BNT_OK, BNT_FORM_MASTERS, true},
    {NULL, NULL, BNT_OK, BNT_FORM_MASTERS,
     false}, // an ordinary model: bnt-convert warns or refuses
    {NULL, "2", BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {NULL, "\"1\"", BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {Q ",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"sometimes\"}", NULL,
     BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {Q ",\"linear_class\":\"linear\"}", NULL, BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {Q ",\"linear_class\":\"\"}", NULL, BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {Q ",\"linear_class\":\"AutoBitLinear\"}", NULL, BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {Q ",\"use_rms_norm\":true}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"use_rms_norm\":false}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"modules_to_not_convert\":null}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"modules_to_not_convert\":[\"lm_head\"]}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"modules_to_not_convert\":[\"model.norm\",\"lm_head.weight\",\"model.embed_tokens\","
       "\"\\\\.mlp$\","
       "\"q_proj\\\\.\",\"down\",\"model.layers.2\",\"model.layers.1.mlp.up\",\"layers.0\"]}",
     NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
    {Q ",\"modules_to_not_convert\":[]}", NULL, BNT_OK, BNT_FORM_PACKED_DIVIDE, true},
#define REFUSED_MODULE(entry)                                                                      \
    {                                                                                              \
        Q ",\"modules_to_not_convert\":[\"lm_head\",\"" entry "\"]}", NULL, BNT_ERR_UNSUPPORTED,   \
            BNT_FORM_MASTERS, false                                                                \
    }
    REFUSED_MODULE("model.layers.0.mlp.down_proj"),
    REFUSED_MODULE("model.layers.1"),
    REFUSED_MODULE("model"),
    REFUSED_MODULE("down_proj"),
    REFUSED_MODULE("oj"),
    REFUSED_MODULE(""),
    REFUSED_MODULE(".*mlp"),
    REFUSED_MODULE("model.layers.*.self_attn"),
    REFUSED_MODULE("[a-z.]*1[.]"),
    REFUSED_MODULE("(unclosed"),
    REFUSED_MODULE("([a-z0-9._]+)+[!?]"), // takes for ever
    {Q ",\"modules_to_not_convert\":[3]}", NULL, BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {Q ",\"modules_to_not_convert\":\"lm_head\"}", NULL, BNT_ERR_FORMAT, BNT_FORM_MASTERS, false},
    {"{\"quant_method\":\"gptq\"}", NULL, BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {"{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}", NULL, BNT_ERR_UNSUPPORTED,
     BNT_FORM_MASTERS, false},
    {"{}", NULL, BNT_ERR_UNSUPPORTED, BNT_FORM_MASTERS, false},
    {"\"bitnet\"", NULL, BNT_ERR_FORMAT, BNT_FORM_MASTERS, false},
};

static char *with_form(const char *quantization, const char *weight_bits)
{
    json_t *json = json_loads(base, 0, NULL);
    (void)json_object_del(json, "weight_bits");
    if (quantization)
        (void)json_object_set_new(json, "quantization_config",
                                  json_loads(quantization, JSON_DECODE_ANY, NULL));
    if (weight_bits)
        (void)json_object_set_new(json, "weight_bits",
                                  json_loads(weight_bits, JSON_DECODE_ANY, NULL));
    char *text = json_dumps(json, 0);
    json_decref(json);
    return text;
}

static void the_form_follows_the_table_of_known_checkpoints(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(forms); i++) {
        struct bnt_config c;
        struct bnt_error err;
        char *text = with_form(forms[i].quantization, forms[i].weight_bits);
        enum bnt_status status = parse(text, NULL, &c, &err);
        if (status != forms[i].status ||
            (status == BNT_OK && (c.form != forms[i].form || c.ternary != forms[i].ternary)))
            fail_msg("%s: status %d, form %d, ternary %d (%s)", text, (int)status, (int)c.form,
                     c.ternary, err.message);
        free(text);
    }
    assert_string_not_equal(bnt_form_name(BNT_FORM_PACKED_DIVIDE),
                            bnt_form_name(BNT_FORM_PACKED_MULTIPLY));
    assert_string_not_equal(bnt_form_name(BNT_FORM_MASTERS),
                            bnt_form_name(BNT_FORM_PACKED_MULTIPLY));
}

// --- tensor names ---

static void tensors_have_the_names_of_their_architecture(void **state)
{
    static const struct {
        const char *arch;
        enum bnt_role role;
        int32_t layer;
        const char *name;
    } all[] = {
        {"[\"BitNetForCausalLM\"]", BNT_ATTN_SUB_NORM, 3,
         "model.layers.3.self_attn.attn_sub_norm.weight"},
        {"[\"BitNetForCausalLM\"]", BNT_FFN_SUB_NORM, 0, "model.layers.0.mlp.ffn_sub_norm.weight"},
        {"[\"BitnetForCausalLM\"]", BNT_ATTN_SUB_NORM, 3,
         "model.layers.3.self_attn.inner_attn_ln.weight"},
        {"[\"BitnetForCausalLM\"]", BNT_FFN_SUB_NORM, 4095,
         "model.layers.4095.mlp.ffn_layernorm.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_ATTN_NORM, 1, "model.layers.1.input_layernorm.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_FFN_NORM, 1,
         "model.layers.1.post_attention_layernorm.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_ATTN_Q, 1, "model.layers.1.self_attn.q_proj.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_ATTN_K, 1, "model.layers.1.self_attn.k_proj.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_ATTN_V, 1, "model.layers.1.self_attn.v_proj.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_ATTN_O, 1, "model.layers.1.self_attn.o_proj.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_FFN_GATE, 1, "model.layers.1.mlp.gate_proj.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_FFN_UP, 1, "model.layers.1.mlp.up_proj.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_FFN_DOWN, 1, "model.layers.1.mlp.down_proj.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_FINAL_NORM, BNT_NO_LAYER, "model.norm.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_TOKEN_EMBEDDING, BNT_NO_LAYER, "model.embed_tokens.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_OUTPUT, BNT_NO_LAYER, "lm_head.weight"},
        {"[\"LlamaForCausalLM\"]", BNT_OUTPUT_INT8, BNT_NO_LAYER, ""},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_config c;
        struct bnt_error err;
        char name[BNT_TENSOR_NAME_SIZE];
        assert_int_equal(parse_changed("architectures", all[i].arch, NULL, &c, &err), BNT_OK);
        bnt_arch_tensor_name(c.arch, all[i].role, all[i].layer, name);
        assert_string_equal(name, all[i].name);
    }
}

// tokenizer_config.json's eos_token, a text or an object, where no other file names one.
static void test_default_eos(void **state)
{
    (void)state;
    static const char tokenizer[] =
        "{\"added_tokens\":[{\"id\":7,\"content\":\"</s>\"},{\"id\":90,\"content\":\"far\"}],"
        "\"model\":{\"vocab\":{\"</s>\":6,\"end\":5}}}";
    static const struct {
        const char *config;
        uint32_t count, id, had;
    } cases[] = {
        {"{\"eos_token\":\"</s>\"}", 1, 7, 0},
        {"{\"eos_token\":{\"content\":\"</s>\"}}", 1, 7, 0},
        {"{\"eos_token\":\"end\"}", 1, 5, 0},  // of the vocabulary
        {"{\"eos_token\":\"</s>\"}", 1, 3, 1}, // another file has spoken
        {"{\"eos_token\":\"far\"}", 0, 0, 0},  // beyond the vocabulary
        {"{\"eos_token\":\"?\"}", 0, 0, 0},
        {"{\"eos_token\":null}", 0, 0, 0},
        {"{}", 0, 0, 0},
        {NULL, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bnt_hyper h = {
            .vocab_size = 10, .eos_count = cases[i].had, .eos_id = {cases[i].had ? 3 : 0}};
        struct bnt_error err;
        const char *text = cases[i].config;
        assert_int_equal(
            bnt_config_default_eos(&h, (struct bnt_config_file){tokenizer, sizeof tokenizer - 1},
                                   (struct bnt_config_file){text, text ? strlen(text) : 0}, &err),
            BNT_OK);
        assert_int_equal(h.eos_count, cases[i].count);
        assert_int_equal(h.eos_id[0], cases[i].id);
    }
}

// What each architecture has beside the common, and what a config may add.
static void families_differ_in_a_few_facts(void **state)
{
#define SIZES                                                                                      \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":1,"                         \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":100,"                      \
    "\"max_position_embeddings\":128,\"rms_norm_eps\":1e-6"
    static const struct {
        const char *arch, *more;
        uint32_t flags, head_dim;
    } all[] = {
        {"LlamaForCausalLM", "", 0, 16},
        {"LlamaForCausalLM", ",\"attention_bias\":true", BNT_HYPER_QKV_BIAS | BNT_HYPER_O_BIAS, 16},
        {"LlamaForCausalLM", ",\"mlp_bias\":true", BNT_HYPER_FFN_BIAS, 16},
        {"MistralForCausalLM", ",\"sliding_window\":null", 0, 16},
        {"MistralForCausalLM", "", 0, 16}, // 4096 by default, more than the context
        {"MistralForCausalLM", ",\"sliding_window\":128", 0, 16},
        {"MistralForCausalLM", ",\"sliding_window\":64", UINT32_MAX, 0},
        {"Qwen2ForCausalLM", ",\"sliding_window\":16,\"use_sliding_window\":false",
         BNT_HYPER_QKV_BIAS, 16},
        {"Qwen3ForCausalLM", "", BNT_HYPER_QK_NORMS, 128},
        {"Qwen3ForCausalLM", ",\"head_dim\":32,\"attention_bias\":true",
         BNT_HYPER_QK_NORMS | BNT_HYPER_QKV_BIAS | BNT_HYPER_O_BIAS, 32},
        {"Qwen3ForCausalLM", ",\"mlp_bias\":true", UINT32_MAX, 0},
        {"Qwen3ForCausalLM",
         ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"use_rms_norm\":true}",
         BNT_HYPER_QK_NORMS | BNT_HYPER_LINEAR_NORMS, 128},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        char text[1024];
        struct bnt_config c;
        struct bnt_error err;
        (void)snprintf(text, sizeof text, "{\"architectures\":[\"%s\"]," SIZES "%s}", all[i].arch,
                       all[i].more);
        enum bnt_status status = parse(text, NULL, &c, &err);
        if (status != (all[i].flags == UINT32_MAX ? BNT_ERR_UNSUPPORTED : BNT_OK))
            fail_msg("%s%s: %d %s", all[i].arch, all[i].more, (int)status, err.message);
        if (status == BNT_OK &&
            (c.hyper.flags != all[i].flags || c.hyper.head_dim != all[i].head_dim))
            fail_msg("%s%s: flags %u, head_dim %u", all[i].arch, all[i].more, c.hyper.flags,
                     c.hyper.head_dim);
    }
#undef SIZES
}

// The attention factor as transformers 5.24 computes it, and its defaults.
static void yarn_is_read_as_transformers_reads_it(void **state)
{
    static const struct {
        const char *rope;
        float attention, fast, slow;
        uint32_t original, flags;
    } all[] = {
        {"{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32}",
         1.13862944f, 32, 1, 32, 0},
        {"{\"type\":\"yarn\",\"factor\":1.0}", 1, 32, 1, 128, 0},
        {"{\"rope_type\":\"yarn\",\"factor\":4.0,\"attention_factor\":0.5,\"beta_fast\":16,"
         "\"beta_slow\":2,\"truncate\":false}",
         0.5f, 16, 2, 128, BNT_HYPER_YARN_EXACT},
        {"{\"rope_type\":\"yarn\",\"factor\":40,\"mscale\":0.707,\"mscale_all_dim\":1.0}",
         (float)((0.0707 * 3.6888794541139363 + 1) / (0.1 * 3.6888794541139363 + 1)), 32, 1, 128,
         0},
        {"{\"rope_type\":\"yarn\",\"factor\":4.0,\"mscale\":0.5}", 1.13862944f, 32, 1, 128, 0},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_config c;
        struct bnt_error err;
        enum bnt_status status = parse_changed("rope_scaling", all[i].rope, NULL, &c, &err);
        if (status != BNT_OK)
            fail_msg("%s: %s", all[i].rope, err.message);
        assert_int_equal(c.hyper.rope_scaling, BNT_ROPE_YARN);
        assert_true(c.hyper.rope_attention_factor == all[i].attention);
        assert_true(c.hyper.rope_beta_fast == all[i].fast && c.hyper.rope_beta_slow == all[i].slow);
        assert_int_equal(c.hyper.rope_original_context, all[i].original);
        assert_int_equal(c.hyper.flags & BNT_HYPER_YARN_EXACT, all[i].flags);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_differ_in_a_few_facts),
        cmocka_unit_test(yarn_is_read_as_transformers_reads_it),
        cmocka_unit_test(fairy_is_read),
        cmocka_unit_test(variants_are_read),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(architectures_are_known_or_refused),
        cmocka_unit_test(what_is_not_computed_is_refused),
        cmocka_unit_test(texts_of_the_wrong_type_are_refused),
        cmocka_unit_test(tokens_are_checked),
        cmocka_unit_test(not_json_is_refused),
        cmocka_unit_test(defaults_are_those_of_the_architecture),
        cmocka_unit_test(rope_parameters_come_before_the_top_level),
        cmocka_unit_test(rope_scaling_comes_before_rope_parameters),
        cmocka_unit_test(nested_rope_parameters_are_read_or_refused),
        cmocka_unit_test(eos_ids_beyond_the_vocabulary_are_left_out),
        cmocka_unit_test(strange_values_matter_only_where_they_are_used),
        cmocka_unit_test(generation_config_gives_the_sampling_defaults),
        cmocka_unit_test(generation_config_gives_penalties_and_lengths),
        cmocka_unit_test(what_generation_config_asks_in_vain_is_named),
        cmocka_unit_test(the_form_follows_the_table_of_known_checkpoints),
        cmocka_unit_test(test_default_eos),
        cmocka_unit_test(tensors_have_the_names_of_their_architecture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
