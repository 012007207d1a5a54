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

// How linear weights are stored. Decided by the config alone, never guessed from the values.
enum bnt_form {
    BNT_FORM_MASTERS,         // float weights, to be ternarized
    BNT_FORM_PACKED_MULTIPLY, // U8 codes, γ = weight_scale
    BNT_FORM_PACKED_DIVIDE,   // U8 codes, γ = 1/weight_scale
};

// One architecture. To support another is to add a row to the table in config.c.
struct bnt_arch {
    const char *name;          // config.json's architectures[0]
    const char *attn_sub_norm; // names inside a layer, NULL: the architecture has no sub-norms
    const char *ffn_sub_norm;
    const char *activation; // used when the config names none
    double rope_theta;      // likewise
};

struct bnt_config {
    struct bnt_hyper hyper;
    const struct bnt_arch *arch;
    enum bnt_form form;
    bool ternary; // the config says that the model was trained for ternary weights
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
