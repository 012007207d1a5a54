// SPDX-License-Identifier: MIT
// A model bound to its mapped file: pointers to the bytes as they lie.
#ifndef BNT_RUNTIME_MODEL_H
#define BNT_RUNTIME_MODEL_H

#include "runtime/bnt.h"

#include "formats/bytes.h"
#include "formats/chat_view.h"
#include "formats/map.h"
#include "formats/regex.h"
#include "formats/tokenizer_view.h"
#include "formats/view.h"
#include "runtime/kernels/kernels.h"

struct bnt_matrix {
    const uint32_t *blocks; // (ceil16(rows) / 16, ceil32(cols) / 32) blocks of 32 words
    uint32_t rows;
    uint32_t cols;
    float scale;              // γ, where scales.n_groups is 0
    struct bnt_scales scales; // by row and group
    const float *bias;        // (rows), or NULL
    const float *norm;        // (cols) of the norm before it, or NULL
};

// The scale of a row and group, where there are any.
static inline float bnt_matrix_scale(const struct bnt_matrix *m, size_t row, size_t group)
{
    const struct bnt_scales *s = &m->scales;
    if (s->n_groups == 0)
        return m->scale;
    size_t i = (row / BNT_BLOCK_ROWS * s->n_groups + group) * BNT_BLOCK_ROWS + row % BNT_BLOCK_ROWS;
    return s->halves ? bnt_float_from_f16(((const uint16_t *)s->values)[i])
                     : ((const float *)s->values)[i];
}

struct bnt_layer {
    const float *attn_norm;     // (hidden)
    const float *attn_sub_norm; // (n_heads * head_dim), or NULL
    const float *ffn_norm;      // (hidden)
    const float *ffn_sub_norm;  // (ffn), or NULL
    const float *q_norm;        // (head_dim), or NULL
    const float *k_norm;        // likewise
    struct bnt_matrix q, k, v, o, gate, up, down;
};

struct bnt_model {
    struct bnt_map map;
    struct bnt_view view;
    struct bnt_hyper hyper;
    struct bnt_layer *layers;            // (n_layers)
    const float *final_norm;             // (hidden)
    const void *embedding;               // (vocab, hidden) bf16 (uint16_t), or f32 if wide
    const void *output;                  // (vocab, hidden) likewise; the embedding when tied
    bool wide;                           // embeddings are f32
    struct bnt_matrix embedding_ternary; // instead of embedding, or without blocks
    struct bnt_matrix output_ternary;    // instead of output, likewise
    const int8_t *output_int8;           // (vocab, hidden) the copy of output, or NULL
    const float *output_scale;           // (vocab)
    bool has_tokenizer;
    bool has_chat;
    struct bnt_chat_view chat;
    struct bnt_tokenizer_view tokenizer;
    struct bnt_regex *patterns; // (n_steps), empty for steps without one
    int32_t byte_token[256]; // of each byte: its lookup token (byte-level) or byte token, or −1
    bool maps_bytes;         // some step is BNT_STEP_BYTE_LEVEL
    bool added_start[256];   // bytes with which some added token begins
    uint8_t meets[256]
                 [32]; // bit b of row a: a merge joins what ends with byte a to what begins with b
    const struct bnt_kernels *kernels;
    struct bnt_upload *upload; // the copy on the GPU, made when it is first asked for
    struct bnt_model_info info;
};

// The file on the GPU, shared by all sessions: uploaded by the first. (upload.c)
struct bnt_cuda_model;
struct bnt_upload *bnt_upload_new(void);
void bnt_upload_free(struct bnt_upload *upload);
enum bnt_status bnt_upload_get(const struct bnt_model *model, const struct bnt_cuda_model **cuda,
                               struct bnt_error *err);

// What encoding needs beside the section: compiled patterns, tables by byte. Free with
// bnt_tokenizer_unbind, also after a failure.
enum bnt_status bnt_tokenizer_bind(struct bnt_model *model, struct bnt_error *err);
void bnt_tokenizer_unbind(struct bnt_model *model);

// bnt_tokenize, with parts of the text (ascending) in which the texts of control tokens stay text.
enum bnt_status bnt_tokenize_parts(const struct bnt_model *model, const char *text, size_t size,
                                   bool special, const struct bnt_range *plain, size_t n_plain,
                                   uint32_t **tokens, size_t *count, struct bnt_error *err);

#endif
