// SPDX-License-Identifier: MIT
// A model and a session on the device, as the host keeps them.
#ifndef BNT_RUNTIME_CUDA_SESSION_CUH
#define BNT_RUNTIME_CUDA_SESSION_CUH

#include "runtime/cuda/cuda.h"
#include "runtime/cuda/ops.cuh"

struct bnt_cuda_matrix {
    const uint32_t *blocks; // on the device, as all pointers here
    uint32_t rows, cols;
    float scale;        // γ, where n_groups is 0
    const void *scales; // by row and group (bnt.md section 5.1)
    uint32_t n_groups, group_blocks;
    bool halves;
    const float *bias; // (rows), or NULL
    const float *norm; // (cols) of the norm before it, or NULL
};

struct bnt_cuda_layer {
    const float *attn_norm;     // (hidden)
    const float *attn_sub_norm; // (n_heads * head_dim), or NULL
    const float *ffn_norm;      // (hidden)
    const float *ffn_sub_norm;  // (ffn), or NULL
    const float *q_norm;        // (head_dim), or NULL
    const float *k_norm;        // likewise
    struct bnt_cuda_matrix q, k, v, o, gate, up, down;
};

struct bnt_cuda_model {
    int device; // as CUDA counts
    struct bnt_cuda_device info;
    struct bnt_hyper hyper;
    uint8_t *file;                  // the whole file
    struct bnt_cuda_layer *layers;  // (n_layers), in host memory
    const float *final_norm;        // (hidden)
    const void *embedding;          // (vocab, hidden) bf16, or f32 if wide
    const void *output;             // (vocab, hidden) likewise
    const int8_t *output_int8;      // (vocab, hidden), or NULL
    const float *output_int8_scale; // (vocab), or NULL
    bool wide;
    struct bnt_cuda_matrix embedding_ternary; // instead of embedding, or without blocks
    struct bnt_cuda_matrix output_ternary;    // instead of output, likewise
};

struct bnt_cuda_session {
    const struct bnt_cuda_model *model;
    cudaStream_t stream;
    uint32_t context, position;
    uint32_t batch;     // tokens that a chunk of a prompt has at most
    uint32_t cache_row; // head_dim rounded up
    float *keys;        // (n_layers, n_kv_heads, context, cache_row)
    float *values;      // (n_layers, n_kv_heads, context, cache_row)
    float *frequency;   // (head_dim / 2)

    uint32_t *tokens;                    // (batch)
    float2 *angles;                      // (batch, head_dim / 2)
    float *x;                            // (batch, hidden)
    float *q;                            // (batch, n_heads * head_dim)
    float *k, *v;                        // (batch, n_kv_heads * head_dim)
    float *att;                          // (batch, n_heads * head_dim)
    float *gate;                         // (batch, ffn), of several tokens times up
    float *up;                           // (ffn), of one token alone, or (batch, ffn)
    float *h;                            // (batch, widest input) where linears have norms, or NULL
    struct bnt_cuda_quantized quantized; // (batch, widest K')
    float *normed;                       // (OUTPUT_BATCH, hidden)
    float *logits;                       // (OUTPUT_BATCH, vocab)
    bool has_logits;                     // row 0 of logits is that of the last token
    bool full_output;                    // the int8 copy of the output matrix is not used
    struct bnt_cuda_decoder *decoder;    // of one token at a time, or NULL where shapes do not fit
    struct bnt_cuda_sampler *sampler;
};

enum { BNT_CUDA_OUTPUT_BATCH = 8 };

// Fills err from a CUDA error; what: the operation, as a person would call it.
enum bnt_status bnt_cuda_fail(struct bnt_error *err, cudaError_t error, const char *what);

// Makes usable device i the thread's current one; *device: as CUDA counts. (device.cu)
enum bnt_status bnt_cuda_use(int i, int *device, struct bnt_cuda_device *info,
                             struct bnt_error *err);

// Whether count tokens may be fed. (evaluate.cu)
enum bnt_status bnt_cuda_check_tokens(const struct bnt_cuda_session *session,
                                      const uint32_t *tokens, size_t count, struct bnt_error *err);

// Whether gate and up of a prompt come out one by one, and not as their gated product.
bool bnt_cuda_session_has_up(const struct bnt_hyper *hyper);

// By what cosines and sines are multiplied.
static inline float bnt_cuda_angle_factor(const struct bnt_hyper *h)
{
    return h->rope_scaling == BNT_ROPE_YARN ? h->rope_attention_factor : 1.0f;
}

static inline struct bnt_cuda_rows bnt_cuda_rows_of(const struct bnt_cuda_matrix *m)
{
    return {m->blocks, m->cols, m->scale, m->scales, m->n_groups, m->group_blocks, m->halves};
}

// The heads and the cache of one layer.
struct bnt_cuda_heads bnt_cuda_session_heads(const struct bnt_cuda_session *session);
struct bnt_cuda_cache bnt_cuda_session_cache(const struct bnt_cuda_session *session,
                                             uint32_t layer);

// A stack of matrices that lie side by side, beginning with m; out: where a part's rows go.
// (evaluate.cu)
struct bnt_cuda_product bnt_cuda_stack(const struct bnt_cuda_matrix *m, float *out, bool add);
void bnt_cuda_add_part(struct bnt_cuda_product *stack, const struct bnt_cuda_matrix *m, float *out);

#endif
