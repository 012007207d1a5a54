// SPDX-License-Identifier: MIT
#include "formats/layout.h"

#include <math.h>
#include <string.h>

#include "formats/bytes.h"

// Which of a model's sizes a dimension is.
enum dimension { DIM_ONE, DIM_HIDDEN, DIM_Q, DIM_KV, DIM_FFN, DIM_VOCAB };
// When and where a tensor exists. One of PER_LAYER and ONCE; the others narrow it.
enum {
    ONCE = 0,
    PER_LAYER = 1,
    IF_SUB_NORMS = 2,
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
} role_table[] = {
    {"attn_norm", BNT_ATTN_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER},
    {"attn_sub_norm", BNT_ATTN_SUB_NORM, NORM, BNT_F32, DIM_ONE, DIM_Q, PER_LAYER | IF_SUB_NORMS},
    {"ffn_norm", BNT_FFN_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, PER_LAYER},
    {"ffn_sub_norm", BNT_FFN_SUB_NORM, NORM, BNT_F32, DIM_ONE, DIM_FFN, PER_LAYER | IF_SUB_NORMS},
    {"attn_q", BNT_ATTN_Q, TERN, BNT_TERNARY, DIM_Q, DIM_HIDDEN, PER_LAYER},
    {"attn_k", BNT_ATTN_K, TERN, BNT_TERNARY, DIM_KV, DIM_HIDDEN, PER_LAYER | GLUED},
    {"attn_v", BNT_ATTN_V, TERN, BNT_TERNARY, DIM_KV, DIM_HIDDEN, PER_LAYER | GLUED},
    {"attn_o", BNT_ATTN_O, TERN, BNT_TERNARY, DIM_HIDDEN, DIM_Q, PER_LAYER},
    {"ffn_gate", BNT_FFN_GATE, TERN, BNT_TERNARY, DIM_FFN, DIM_HIDDEN, PER_LAYER},
    {"ffn_up", BNT_FFN_UP, TERN, BNT_TERNARY, DIM_FFN, DIM_HIDDEN, PER_LAYER | GLUED},
    {"ffn_down", BNT_FFN_DOWN, TERN, BNT_TERNARY, DIM_HIDDEN, DIM_FFN, PER_LAYER},
    {"final_norm", BNT_FINAL_NORM, NORM, BNT_F32, DIM_ONE, DIM_HIDDEN, ONCE},
    {"token_embedding", BNT_TOKEN_EMBEDDING, EMBD, BNT_BF16, DIM_VOCAB, DIM_HIDDEN, ONCE},
    {"output", BNT_OUTPUT, EMBD, BNT_BF16, DIM_VOCAB, DIM_HIDDEN, IF_UNTIED},
    {"output_int8", BNT_OUTPUT_INT8, EMB8, BNT_I8, DIM_VOCAB, DIM_HIDDEN, IF_INT8},
    {"output_int8_scale", BNT_OUTPUT_INT8_SCALE, EMB8, BNT_F32, DIM_ONE, DIM_VOCAB, IF_INT8},
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
    default:
        return 3;
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
    case DIM_ONE:
        break;
    }
    return 1;
}

static bool present(const struct bnt_layout_walk *walk, const struct role_row *row)
{
    bool sub_norms = walk->hyper->flags & BNT_HYPER_SUB_NORMS;
    bool tied = walk->hyper->flags & BNT_HYPER_TIED;
    return (!(row->flags & IF_SUB_NORMS) || sub_norms) && (!(row->flags & IF_UNTIED) || !tied) &&
           (!(row->flags & IF_INT8) || walk->has_int8);
}

static uint64_t tensor_size(enum bnt_dtype dtype, uint32_t rows, uint32_t cols)
{
    switch (dtype) {
    case BNT_TERNARY:
        return (uint64_t)bnt_pad_rows(rows) * bnt_pad_cols(cols) / 4;
    case BNT_BF16:
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

bool bnt_layout_next(struct bnt_layout_walk *walk, struct bnt_tensor_place *place)
{
    const struct role_row *row = next_row(walk);
    if (!row)
        return false;
    uint64_t *end = &walk->end[section_slot(row->section)];
    bool wide = row->section == BNT_SECTION_EMBD && walk->hyper->flags & BNT_HYPER_F32_EMBEDDINGS;
    *place = (struct bnt_tensor_place){
        .role = row->role,
        .layer = row->flags & PER_LAYER ? walk->layer : BNT_NO_LAYER,
        .dtype = wide ? BNT_F32 : row->dtype,
        .rows = dimension(walk->hyper, row->rows),
        .cols = dimension(walk->hyper, row->cols),
        .section = row->section,
        .offset = row->flags & GLUED ? *end : bnt_round_up(*end, BNT_TENSOR_ALIGN),
    };
    place->size = tensor_size(place->dtype, place->rows, place->cols);
    *end = place->offset + place->size;
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

uint32_t bnt_role_section(unsigned role)
{
    const struct role_row *row = find_role(role);
    return row ? row->section : 0;
}

const char *bnt_dtype_name(unsigned dtype)
{
    static const char *const names[] = {"?", "ternary", "bf16", "f32", "i8"};
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

static const char *rope_problem(const struct bnt_hyper *h)
{
    if (!positive(h->rope_theta))
        return "rope_theta";
    if (h->rope_scaling == BNT_ROPE_NONE) {
        uint32_t any = bnt_bits_from_float(h->rope_factor) |
                       bnt_bits_from_float(h->rope_low_freq_factor) |
                       bnt_bits_from_float(h->rope_high_freq_factor) | h->rope_original_context;
        return any ? "rope_factor" : NULL;
    }
    if (h->rope_scaling != BNT_ROPE_LLAMA3)
        return "rope_scaling";
    if (!positive(h->rope_factor))
        return "rope_factor";
    if (!positive(h->rope_low_freq_factor))
        return "rope_low_freq_factor";
    if (!positive(h->rope_high_freq_factor) || h->rope_high_freq_factor <= h->rope_low_freq_factor)
        return "rope_high_freq_factor";
    return h->rope_original_context ? NULL : "rope_original_context";
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
    if (h->flags & ~(uint32_t)(BNT_HYPER_TIED | BNT_HYPER_SUB_NORMS | BNT_HYPER_F32_EMBEDDINGS))
        return "flags";
    if (!positive((double)h->norm_eps))
        return "norm_eps";
    if (h->reserved != 0)
        return "reserved";
    const char *problem = rope_problem(h);
    return problem ? problem : token_problem(h);
}
