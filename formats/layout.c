// SPDX-License-Identifier: MIT
#include "formats/layout.h"

#include <math.h>
#include <string.h>

#include "formats/bytes.h"

// Which of a model's sizes a dimension is.
enum dimension { DIM_ONE, DIM_HIDDEN, DIM_Q, DIM_KV, DIM_FFN, DIM_VOCAB, DIM_HEAD };
// When and where a tensor exists. One of PER_LAYER and ONCE; the others narrow it.
enum {
    ONCE = 0,
    PER_LAYER = 1,
    IF_UNTIED = 4,
    IF_INT8 = 8,
    GLUED = 16, // starts where the one before ends, unaligned
};
enum {
    NORM = BNT_SECTION_NORM,
    EMBD = BNT_SECTION_EMBD,
    EMB8 = BNT_SECTION_EMB8,
    TERN = BNT_SECTION_TERN,
};

// The table of bnt.md section 6.
static const struct role_row {
    const char *name;
    enum bnt_role role;
    uint32_t section;
    enum bnt_dtype dtype;
    enum dimension rows, cols;
    unsigned flags;
    uint32_t hyper;   // there if the model has this flag; 0: always
    uint32_t ternary; // ternary, and in TERN, if the model has this flag
} role_table[] = {
    {"attn_norm", BNT_ATTN_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER, 0, 0},
    {"attn_sub_norm", BNT_ATTN_SUB_NORM, NORM, BNT_F32, DIM_ONE, DIM_Q, PER_LAYER,
     BNT_HYPER_SUB_NORMS, 0},
    {"ffn_norm", BNT_FFN_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER, 0, 0},
    {"ffn_sub_norm", BNT_FFN_SUB_NORM, NORM, BNT_F32, DIM_ONE, DIM_FFN, PER_LAYER,
     BNT_HYPER_SUB_NORMS, 0},
    {"attn_q_norm", BNT_ATTN_Q_NORM, NORM, BNT_F32, DIM_ONE, DIM_HEAD, PER_LAYER,
     BNT_HYPER_QK_NORMS, 0},
    {"attn_k_norm", BNT_ATTN_K_NORM, NORM, BNT_F32, DIM_ONE, DIM_HEAD, PER_LAYER,
     BNT_HYPER_QK_NORMS, 0},
    {"attn_q_bias", BNT_ATTN_Q_BIAS, NORM, BNT_F32, DIM_ONE, DIM_Q, PER_LAYER, BNT_HYPER_QKV_BIAS,
     0},
    {"attn_k_bias", BNT_ATTN_K_BIAS, NORM, BNT_F32, DIM_ONE, DIM_KV, PER_LAYER, BNT_HYPER_QKV_BIAS,
     0},
    {"attn_v_bias", BNT_ATTN_V_BIAS, NORM, BNT_F32, DIM_ONE, DIM_KV, PER_LAYER, BNT_HYPER_QKV_BIAS,
     0},
    {"attn_o_bias", BNT_ATTN_O_BIAS, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER,
     BNT_HYPER_O_BIAS, 0},
    {"ffn_gate_bias", BNT_FFN_GATE_BIAS, NORM, BNT_F32, DIM_ONE, DIM_FFN, PER_LAYER,
     BNT_HYPER_FFN_BIAS, 0},
    {"ffn_up_bias", BNT_FFN_UP_BIAS, NORM, BNT_F32, DIM_ONE, DIM_FFN, PER_LAYER, BNT_HYPER_FFN_BIAS,
     0},
    {"ffn_down_bias", BNT_FFN_DOWN_BIAS, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER,
     BNT_HYPER_FFN_BIAS, 0},
    {"attn_q", BNT_ATTN_Q, TERN, BNT_TERNARY, DIM_Q, DIM_HIDDEN, PER_LAYER, 0, 0},
    {"attn_k", BNT_ATTN_K, TERN, BNT_TERNARY, DIM_KV, DIM_HIDDEN, PER_LAYER | GLUED, 0, 0},
    {"attn_v", BNT_ATTN_V, TERN, BNT_TERNARY, DIM_KV, DIM_HIDDEN, PER_LAYER | GLUED, 0, 0},
    {"attn_o", BNT_ATTN_O, TERN, BNT_TERNARY, DIM_HIDDEN, DIM_Q, PER_LAYER, 0, 0},
    {"ffn_gate", BNT_FFN_GATE, TERN, BNT_TERNARY, DIM_FFN, DIM_HIDDEN, PER_LAYER, 0, 0},
    {"ffn_up", BNT_FFN_UP, TERN, BNT_TERNARY, DIM_FFN, DIM_HIDDEN, PER_LAYER | GLUED, 0, 0},
    {"ffn_down", BNT_FFN_DOWN, TERN, BNT_TERNARY, DIM_HIDDEN, DIM_FFN, PER_LAYER, 0, 0},
    {"attn_q_linear_norm", BNT_ATTN_Q_LINEAR_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER,
     BNT_HYPER_LINEAR_NORMS, 0},
    {"attn_k_linear_norm", BNT_ATTN_K_LINEAR_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER,
     BNT_HYPER_LINEAR_NORMS, 0},
    {"attn_v_linear_norm", BNT_ATTN_V_LINEAR_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER,
     BNT_HYPER_LINEAR_NORMS, 0},
    {"attn_o_linear_norm", BNT_ATTN_O_LINEAR_NORM, NORM, BNT_F32, DIM_ONE, DIM_Q, PER_LAYER,
     BNT_HYPER_LINEAR_NORMS, 0},
    {"ffn_gate_linear_norm", BNT_FFN_GATE_LINEAR_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN,
     PER_LAYER, BNT_HYPER_LINEAR_NORMS, 0},
    {"ffn_up_linear_norm", BNT_FFN_UP_LINEAR_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER,
     BNT_HYPER_LINEAR_NORMS, 0},
    {"ffn_down_linear_norm", BNT_FFN_DOWN_LINEAR_NORM, NORM, BNT_F32, DIM_ONE, DIM_FFN, PER_LAYER,
     BNT_HYPER_LINEAR_NORMS, 0},
    {"final_norm", BNT_FINAL_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, ONCE, 0, 0},
    {"token_embedding", BNT_TOKEN_EMBEDDING, EMBD, BNT_BF16, DIM_VOCAB, DIM_HIDDEN, ONCE, 0,
     BNT_HYPER_TERNARY_EMBEDDING},
    {"output", BNT_OUTPUT, EMBD, BNT_BF16, DIM_VOCAB, DIM_HIDDEN, IF_UNTIED, 0,
     BNT_HYPER_TERNARY_OUTPUT},
    {"output_int8", BNT_OUTPUT_INT8, EMB8, BNT_I8, DIM_VOCAB, DIM_HIDDEN, IF_INT8, 0, 0},
    {"output_int8_scale", BNT_OUTPUT_INT8_SCALE, EMB8, BNT_F32, DIM_ONE, DIM_VOCAB, IF_INT8, 0, 0},
};
enum { ROLE_ROWS = sizeof role_table / sizeof role_table[0] };

static size_t section_slot(uint32_t section)
{
    switch (section) {
    case BNT_SECTION_NORM:
        return 0;
    case BNT_SECTION_EMBD:
        return 1;
    case BNT_SECTION_EMB8:
        return 2;
    case BNT_SECTION_TERN:
        return 3;
    default: // SCAL
        return 4;
    }
}

static uint32_t dimension(const struct bnt_hyper *h, enum dimension d)
{
    switch (d) {
    case DIM_HIDDEN:
        return h->hidden_size;
    case DIM_Q:
        return bnt_q_size(h);
    case DIM_KV:
        return bnt_kv_size(h);
    case DIM_FFN:
        return h->ffn_size;
    case DIM_VOCAB:
        return h->vocab_size;
    case DIM_HEAD:
        return h->head_dim;
    case DIM_ONE:
        break;
    }
    return 1;
}

static bool present(const struct bnt_layout_walk *walk, const struct role_row *row)
{
    bool tied = walk->hyper->flags & BNT_HYPER_TIED;
    return (!row->hyper || walk->hyper->flags & row->hyper) &&
           (!(row->flags & IF_UNTIED) || !tied) && (!(row->flags & IF_INT8) || walk->has_int8);
}

static uint64_t tensor_size(enum bnt_dtype dtype, uint32_t rows, uint32_t cols)
{
    switch (dtype) {
    case BNT_TERNARY:
        return (uint64_t)bnt_pad_rows(rows) * bnt_pad_cols(cols) / 4;
    case BNT_BF16:
    case BNT_F16:
        return (uint64_t)rows * cols * 2;
    case BNT_F32:
        return (uint64_t)rows * cols * 4;
    case BNT_I8:
        break;
    }
    return (uint64_t)rows * cols;
}

struct bnt_layout_walk bnt_layout_walk(const struct bnt_hyper *hyper, bool has_int8)
{
    return (struct bnt_layout_walk){.hyper = hyper, .has_int8 = has_int8};
}

// The next row that this model has; per-layer rows come once for each layer, then the others.
static const struct role_row *next_row(struct bnt_layout_walk *walk)
{
    for (;;) {
        bool in_layers = walk->layer < (int32_t)walk->hyper->n_layers;
        if (walk->index == ROLE_ROWS) {
            if (!in_layers)
                return NULL;
            walk->index = 0;
            walk->layer++;
            continue;
        }
        const struct role_row *row = &role_table[walk->index++];
        if (!!(row->flags & PER_LAYER) == in_layers && present(walk, row))
            return row;
    }
}

static void place_scales(struct bnt_layout_walk *walk, struct bnt_tensor_place *place)
{
    const struct bnt_hyper *h = walk->hyper;
    uint64_t *end = &walk->end[section_slot(BNT_SECTION_SCAL)];
    place->has_scales = true;
    place->scale_offset = bnt_round_up(*end, BNT_TENSOR_ALIGN);
    place->scale_size = tensor_size((enum bnt_dtype)h->scale_dtype, bnt_pad_rows(place->rows),
                                    bnt_row_groups(h, place->cols));
    *end = place->scale_offset + place->scale_size;
}

bool bnt_layout_next(struct bnt_layout_walk *walk, struct bnt_tensor_place *place)
{
    const struct role_row *row = next_row(walk);
    if (!row)
        return false;
    const struct bnt_hyper *h = walk->hyper;
    bool ternary = row->ternary && h->flags & row->ternary;
    uint32_t section = ternary ? (uint32_t)BNT_SECTION_TERN : row->section;
    uint64_t *end = &walk->end[section_slot(section)];
    bool wide = section == BNT_SECTION_EMBD && h->flags & BNT_HYPER_F32_EMBEDDINGS;
    *place = (struct bnt_tensor_place){
        .role = row->role,
        .layer = row->flags & PER_LAYER ? walk->layer : BNT_NO_LAYER,
        .dtype = ternary ? BNT_TERNARY
                 : wide  ? BNT_F32
                         : row->dtype,
        .rows = dimension(h, row->rows),
        .cols = dimension(h, row->cols),
        .section = section,
        .offset = row->flags & GLUED ? *end : bnt_round_up(*end, BNT_TENSOR_ALIGN),
    };
    place->size = tensor_size(place->dtype, place->rows, place->cols);
    *end = place->offset + place->size;
    if (place->dtype == BNT_TERNARY && h->scale_group)
        place_scales(walk, place);
    return true;
}

uint64_t bnt_layout_section_size(const struct bnt_layout_walk *walk, uint32_t section)
{
    return walk->end[section_slot(section)];
}

uint64_t bnt_layout_count(const struct bnt_hyper *hyper, bool has_int8)
{
    struct bnt_layout_walk walk = bnt_layout_walk(hyper, has_int8);
    uint64_t per_layer = 0;
    uint64_t others = 0;
    for (size_t i = 0; i < ROLE_ROWS; i++) {
        if (present(&walk, &role_table[i]))
            *(role_table[i].flags & PER_LAYER ? &per_layer : &others) += 1;
    }
    return per_layer * hyper->n_layers + others;
}

static const struct role_row *find_role(unsigned role)
{
    for (size_t i = 0; i < ROLE_ROWS; i++) {
        if ((unsigned)role_table[i].role == role)
            return &role_table[i];
    }
    return NULL;
}

const char *bnt_role_name(unsigned role)
{
    const struct role_row *row = find_role(role);
    return row ? row->name : NULL;
}

unsigned bnt_role_from_name(const char *name)
{
    for (size_t i = 0; i < ROLE_ROWS; i++) {
        if (strcmp(role_table[i].name, name) == 0)
            return role_table[i].role;
    }
    return 0;
}

uint32_t bnt_record_section(const struct bnt_tensor_record *record)
{
    const struct role_row *row = find_role(record->role);
    if (row && record->dtype == BNT_TERNARY)
        return BNT_SECTION_TERN;
    return row ? row->section : 0;
}

bool bnt_role_needs_version_2(unsigned role)
{
    const struct role_row *row = find_role(role);
    return row && row->hyper & ~(uint32_t)BNT_HYPER_FLAGS_1;
}

const char *bnt_dtype_name(unsigned dtype)
{
    static const char *const names[] = {"?", "ternary", "bf16", "f32", "i8", "f16"};
    return names[dtype < sizeof names / sizeof names[0] ? dtype : 0];
}

static bool in_range(uint32_t v, uint32_t low, uint32_t high)
{
    return low <= v && v <= high;
}

static bool positive(double v)
{
    return isfinite(v) && v > 0;
}

static bool is_zero(float v)
{
    return bnt_bits_from_float(v) == 0;
}

static bool positive_if(bool needed, float v)
{
    return needed ? positive((double)v) : is_zero(v);
}

static const char *rope_problem(const struct bnt_hyper *h)
{
    const bool llama3 = h->rope_scaling == BNT_ROPE_LLAMA3, yarn = h->rope_scaling == BNT_ROPE_YARN;
    // YaRN divides by its logarithm.
    if (!positive(h->rope_theta) || (yarn && !(h->rope_theta > 1)))
        return "rope_theta";
    if (h->rope_scaling > BNT_ROPE_LINEAR)
        return "rope_scaling";
    if (!positive_if(h->rope_scaling != BNT_ROPE_NONE, h->rope_factor))
        return "rope_factor";
    if (!positive_if(llama3, h->rope_low_freq_factor))
        return "rope_low_freq_factor";
    if (!positive_if(llama3, h->rope_high_freq_factor) ||
        (llama3 && h->rope_high_freq_factor <= h->rope_low_freq_factor))
        return "rope_high_freq_factor";
    if ((llama3 || yarn) != (h->rope_original_context != 0))
        return "rope_original_context";
    if (!positive_if(yarn, h->rope_attention_factor))
        return "rope_attention_factor";
    if (!positive_if(yarn, h->rope_beta_fast))
        return "rope_beta_fast";
    if (!positive_if(yarn, h->rope_beta_slow))
        return "rope_beta_slow";
    return NULL;
}

static const char *scale_problem(const struct bnt_hyper *h)
{
    uint32_t g = h->scale_group;
    if (g != BNT_GROUP_ROW && (g % BNT_BLOCK_COLS != 0 || g > BNT_MAX_GROUP))
        return "scale_group";
    if (g ? h->scale_dtype != BNT_F32 && h->scale_dtype != BNT_F16 : h->scale_dtype != 0)
        return "scale_dtype";
    return h->activation_bits == 8 || h->activation_bits == 16 ? NULL : "activation_bits";
}

static const char *flags_problem(const struct bnt_hyper *h)
{
    const uint32_t f = h->flags;
    if (f & ~(uint32_t)BNT_HYPER_FLAGS_2 || (f & BNT_HYPER_TIED && f & BNT_HYPER_TERNARY_OUTPUT) ||
        (f & BNT_HYPER_YARN_EXACT && h->rope_scaling != BNT_ROPE_YARN))
        return "flags";
    if (!positive_if(f & BNT_HYPER_LINEAR_NORMS, h->linear_norm_eps))
        return "linear_norm_eps";
    if (h->pooling > BNT_POOLING_FIRST)
        return "pooling";
    return f & BNT_HYPER_NORMALIZED && !h->pooling ? "flags" : NULL;
}

unsigned bnt_hyper_version(const struct bnt_hyper *h)
{
    bool old = !(h->flags & ~(uint32_t)BNT_HYPER_FLAGS_1) && h->rope_scaling <= BNT_ROPE_LLAMA3 &&
               h->scale_group == 0 && h->activation_bits == 8 && h->pooling == BNT_POOLING_NONE;
    return old ? BNT_VERSION_1 : BNT_VERSION_2;
}

static const char *token_problem(const struct bnt_hyper *h)
{
    if (h->bos_id < -1 || h->bos_id >= (int32_t)h->vocab_size)
        return "bos_id";
    if (h->eos_count > BNT_MAX_EOS)
        return "eos_count";
    for (uint32_t i = 0; i < BNT_MAX_EOS; i++) {
        if (i < h->eos_count ? h->eos_id[i] >= h->vocab_size : h->eos_id[i] != 0)
            return "eos_id";
    }
    if (!(h->temperature >= 0 && h->temperature <= 100))
        return "temperature";
    if (!(h->top_p > 0 && h->top_p <= 1))
        return "top_p";
    return NULL;
}

const char *bnt_sampling_problem(const struct bnt_sampling_record *s)
{
    static const uint8_t zero[sizeof s->reserved];
    if (!(s->repetition_penalty > 0 && s->repetition_penalty <= BNT_MAX_REPETITION_PENALTY))
        return "repetition_penalty";
    if (!(fabsf(s->presence_penalty) <= BNT_MAX_PENALTY))
        return "presence_penalty";
    if (!(fabsf(s->frequency_penalty) <= BNT_MAX_PENALTY))
        return "frequency_penalty";
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return "min_p";
    return memcmp(s->reserved, zero, sizeof zero) ? "reserved" : NULL;
}

bool bnt_sampling_equal(const struct bnt_sampling_record *a, const struct bnt_sampling_record *b)
{
    return a->repetition_penalty == b->repetition_penalty &&
           a->presence_penalty == b->presence_penalty &&
           a->frequency_penalty == b->frequency_penalty && a->min_p == b->min_p &&
           a->max_new_tokens == b->max_new_tokens;
}

const char *bnt_hyper_problem(const struct bnt_hyper *h)
{
    if (!in_range(h->n_layers, 1, BNT_MAX_LAYERS))
        return "n_layers";
    if (!in_range(h->hidden_size, 1, BNT_MAX_COLS))
        return "hidden_size";
    if (!in_range(h->ffn_size, 1, BNT_MAX_COLS))
        return "ffn_size";
    if (!in_range(h->n_heads, 1, BNT_MAX_HEADS))
        return "n_heads";
    if (!in_range(h->n_kv_heads, 1, h->n_heads) || h->n_heads % h->n_kv_heads != 0)
        return "n_kv_heads";
    if (!in_range(h->head_dim, 2, BNT_MAX_HEAD_DIM) || h->head_dim % 2 != 0 ||
        h->n_heads * h->head_dim > BNT_MAX_COLS)
        return "head_dim";
    if (!in_range(h->vocab_size, 1, BNT_MAX_VOCAB))
        return "vocab_size";
    if (!in_range(h->max_context, 1, BNT_MAX_CONTEXT))
        return "max_context";
    if (!in_range(h->activation, BNT_ACTIVATION_SILU, BNT_ACTIVATION_RELU2))
        return "activation";
    if (!positive((double)h->norm_eps))
        return "norm_eps";
    if (h->reserved != 0)
        return "reserved";
    for (size_t i = 0; i < sizeof h->reserved2 / sizeof h->reserved2[0]; i++) {
        if (h->reserved2[i] != 0)
            return "reserved";
    }
    const char *problem = rope_problem(h);
    problem = problem ? problem : scale_problem(h);
    problem = problem ? problem : flags_problem(h);
    return problem ? problem : token_problem(h);
}
