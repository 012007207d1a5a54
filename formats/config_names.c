// SPDX-License-Identifier: MIT
// What checkpoints call their tensors.
#include <inttypes.h>
#include <stdio.h>

#include "formats/config.h"

// Modules of a layer and what stands before the dot in their tensors' names.
static const char *const linear_names[] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",
};
enum { LINEARS = sizeof linear_names / sizeof linear_names[0] };
_Static_assert(BNT_FFN_DOWN - BNT_ATTN_Q + 1 == LINEARS, "roles of linears follow one another");

static const char *norm_name(const struct bnt_arch *arch, enum bnt_role role)
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
    case BNT_ATTN_Q_NORM:
        return "self_attn.q_norm";
    case BNT_ATTN_K_NORM:
        return "self_attn.k_norm";
    default:
        return NULL;
    }
}

// What stands for a role inside a layer: the module, and the tensor of it.
static const char *layer_module(const struct bnt_arch *arch, unsigned role, const char **tensor)
{
    static const struct {
        unsigned first;
        const char *tensor;
    } of_linears[] = {{BNT_ATTN_Q, "weight"},
                      {BNT_ATTN_Q_BIAS, "bias"},
                      {BNT_ATTN_Q_LINEAR_NORM, "rms_norm.weight"}};
    for (size_t i = 0; i < sizeof of_linears / sizeof of_linears[0]; i++) {
        *tensor = of_linears[i].tensor;
        if (role >= of_linears[i].first && role < of_linears[i].first + LINEARS)
            return linear_names[role - of_linears[i].first];
    }
    *tensor = "weight";
    return norm_name(arch, (enum bnt_role)role);
}

void bnt_arch_tensor_name(const struct bnt_arch *arch, enum bnt_role role, int32_t layer,
                          char out[BNT_TENSOR_NAME_SIZE])
{
    const char *tensor, *before = arch->base_model ? "" : "model.";
    const char *in_layer = layer_module(arch, role, &tensor);
    out[0] = '\0';
    if (in_layer)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "%slayers.%" PRId32 ".%s.%s", before, layer,
                       in_layer, tensor);
    else if (role == BNT_FINAL_NORM)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "%snorm.weight", before);
    else if (role == BNT_TOKEN_EMBEDDING)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "%sembed_tokens.weight", before);
    else if (role == BNT_OUTPUT)
        (void)snprintf(out, BNT_TENSOR_NAME_SIZE, "lm_head.weight");
}

void bnt_config_add_linear_norms(struct bnt_config *config)
{
    struct bnt_hyper *h = &config->hyper;
    if (h->flags & BNT_HYPER_LINEAR_NORMS)
        return;
    h->flags |= BNT_HYPER_LINEAR_NORMS;
    h->linear_norm_eps = h->norm_eps;
    config->ternary = true;
}

void bnt_config_without_output(struct bnt_config *config)
{
    if (config->hyper.pooling != BNT_POOLING_NONE)
        config->hyper.flags |= BNT_HYPER_TIED;
}
