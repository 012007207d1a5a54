// SPDX-License-Identifier: MIT
// What a checkpoint's config.json says: architecture, sizes, and in which form its weights are
// stored.
#ifndef BNT_FORMATS_CONFIG_H
#define BNT_FORMATS_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "formats/layout.h"
#include "formats/status.h"

// The file that holds the weights, unless there are shards.
#define BNT_CONFIG_WEIGHTS "model.safetensors"

enum { BNT_CONFIG_NOTE = 400, BNT_PASSED_OVER_SIZE = 256 };

// How linear weights are stored. Decided by the config alone, but for levels (formats/levels.h).
enum bnt_form {
    BNT_FORM_MASTERS,         // float weights, to be ternarized
    BNT_FORM_PACKED_MULTIPLY, // U8 codes, or −1, 0, +1 as floats, γ = weight_scale
    BNT_FORM_PACKED_DIVIDE,   // U8 codes, γ = 1/weight_scale
    BNT_FORM_LEVELS,          // float weights that hold three levels
};

// One architecture. To support another is to add a row to the table in config.c.
struct bnt_arch {
    const char *name;          // config.json's architectures[0]
    const char *attn_sub_norm; // names inside a layer, NULL: the architecture has no sub-norms
    const char *ffn_sub_norm;
    const char *activation; // used when the config names none
    double rope_theta;      // likewise
    uint32_t head_dim;      // likewise; 0: hidden_size / num_attention_heads
    uint32_t flags;         // of bnt_hyper, that it always has
    uint32_t bias_flags;    // that it has if the config's attention_bias is true
    bool mlp_bias;          // knows mlp_bias
    uint32_t window;        // sliding_window when the config names none; 0: knows none, or only
                            // with use_sliding_window
};

struct bnt_config {
    struct bnt_hyper hyper;
    struct bnt_sampling_record sampling;
    char passed_over[BNT_PASSED_OVER_SIZE]; // generation.h
    const struct bnt_arch *arch;
    enum bnt_form form;
    bool ternary; // the config says that the model was trained for ternary weights
    char left_out[BNT_CONFIG_NOTE]; // a line for the user about ids that are left out; "": none
};

// Parses config.json and, if there is one, generation_config.json (text NULL: none). name: for
// messages, the config's path.
enum bnt_status bnt_config_parse(struct bnt_config *config, const char *text, size_t size,
                                 const char *generation, size_t generation_size, const char *name,
                                 struct bnt_error *err);

// A file of the checkpoint; text NULL: there is none.
struct bnt_config_file {
    const char *text;
    size_t size;
};

// Where neither config.json nor generation_config.json names an end-of-text token, it is
// tokenizer_config.json's eos_token, with its id in tokenizer.json.
enum bnt_status bnt_config_default_eos(struct bnt_hyper *hyper, struct bnt_config_file tokenizer,
                                       struct bnt_config_file tokenizer_config,
                                       struct bnt_error *err);

// The text of a special token in tokenizer_config.json: a string, or an object with its content;
// "" for none.
const char *bnt_config_special_token(const json_t *tokenizer_config, const char *key);

const char *bnt_form_name(enum bnt_form form);

// The checkpoint's name of a tensor, e.g. "model.layers.3.self_attn.q_proj.weight", into out; ""
// for a role that no checkpoint holds.
enum { BNT_TENSOR_NAME_SIZE = 96 };
void bnt_arch_tensor_name(const struct bnt_arch *arch, enum bnt_role role, int32_t layer,
                          char out[BNT_TENSOR_NAME_SIZE]);

#endif
