// SPDX-License-Identifier: MIT
// The kernels of which a token's way through the model is made (decode.cu). Each may start while
// those before it still work, and asks for what does not depend on the token before it waits for
// their results; so they must come after one another in one stream, beginning with the embedding.
#ifndef BNT_RUNTIME_CUDA_DECODE_STEPS_CUH
#define BNT_RUNTIME_CUDA_DECODE_STEPS_CUH

#include "runtime/cuda/ops.cuh"

// Which token it is. In device memory, written by the first kernel; the others may read it before
// they wait.
struct decode_place {
    uint32_t position;
    uint32_t shortlist; // how many of the likeliest tokens must have logits
};

// What the device and the code loaded for it can do.
struct decode_device {
    uint32_t processors;
    uint32_t shared_bytes;           // of a block, at most
    uint32_t processor_shared_bytes; // of a multiprocessor
    bool is_early;                   // kernels may start early, and blocks may form clusters
    uint32_t most_clustered;         // blocks of a cluster, where there are any
};
// Of the thread's current device. (decode.cu)
cudaError_t decode_find_device(struct decode_device *device);

// A float vector that a kernel takes in, through an RMS norm unless norm is NULL.
struct decode_input {
    const float *x, *norm; // (n)
    uint32_t n;            // divisible by 4
    float inverse_n, eps;
};

// x = a row of the embedding; *place, and the angles of its position. (decode_embed.cu)
struct decode_embed {
    const void *embedding; // (vocab, hidden)
    bool wide;
    uint32_t hidden, token;
    struct decode_place here;
    float *x;                     // (hidden)
    struct decode_place *place;   // gets here
    const float *frequency;       // (head_dim / 2)
    float2 *angles;               // (head_dim / 2), cosine and sine
    uint32_t head_dim;            // at most 2 hidden
    float angle_factor;           // of cosines and sines
    struct bnt_cuda_rows ternary; // instead of embedding, or without blocks
};
cudaError_t decode_embed_launch(const struct decode_embed *step, cudaStream_t stream);
// The parameters of that kernel in a graph, for another token.
cudaError_t decode_embed_update(cudaGraphExec_t graph, cudaGraphNode_t node,
                                const struct decode_embed *step);

// Quantizes the input and multiplies it by a stack of matrices, which share it: one part or more,
// or two that are gated. (decode_product.cu)
struct decode_product {
    struct decode_input in;
    struct bnt_cuda_product product;
    bool alone;     // no two of its blocks may share a multiprocessor: see decode.cu
    bool is_16_bit; // how the input is quantized
};
// Whether it finds room.
bool decode_product_fits(const struct decode_product *step, const struct decode_device *device);
cudaError_t decode_product_launch(const struct decode_product *step,
                                  const struct decode_device *device, cudaStream_t stream);

// Whether γ and 8 bits are all that it needs. The others are: (decode_groups.cu)
static inline bool decode_product_is_plain(const struct decode_product *step)
{
    bnt_cuda_quantized x = {};
    x.is_16_bit = step->is_16_bit;
    return bnt_cuda_is_plain(&step->product, &x);
}
bool decode_groups_fits(const struct decode_product *step, const struct decode_device *device);
cudaError_t decode_groups_launch(const struct decode_product *step,
                                 const struct decode_device *device, cudaStream_t stream);

// Norms, if there are weights for it, and rotates q and k, puts k and v into the cache and attends.
// (decode_attention.cu)
struct decode_attention {
    const float *q, *k, *v; // (n_heads * head_dim), (n_kv_heads * head_dim) each
    const float2 *angles;   // (head_dim / 2), cosine and sine, written by the first kernel
    struct bnt_cuda_cache cache;
    struct bnt_cuda_heads heads; // see decode_attention_fits
    float *att;                  // (n_heads * head_dim)
    const struct decode_place *place;
    const float *q_norm, *k_norm; // (head_dim), or NULL
    float norm_eps;
    float *parts;      // (decode_attention_parts)
    unsigned *arrived; // (decode_attention_items), zero
};
// The greatest cluster that the device, as it is, has a place for. device: all else.
cudaError_t decode_attention_find_cluster(const struct decode_device *device, uint32_t *blocks);
bool decode_attention_fits(struct bnt_cuda_heads heads, bool has_norms,
                           const struct decode_device *device);
size_t decode_attention_parts(struct bnt_cuda_heads heads, const struct decode_device *device);
uint32_t decode_attention_items(struct bnt_cuda_heads heads);
cudaError_t decode_attention_launch(const struct decode_attention *step,
                                    const struct decode_device *device, cudaStream_t stream);

// The output layer: the final norm, the matrix, the likeliest token. (decode_output.cu)
struct decode_output {
    struct decode_input in;
    const uint8_t *matrix; // (vocab, n) bf16, or f32 if wide
    bool wide;
    uint32_t vocab;
    float *logits;                  // (vocab)
    uint32_t *best;                 // the likeliest token
    unsigned long long *block_best; // (decode_output_blocks)
    unsigned *arrived;              // zero
};
cudaError_t decode_output_launch(const struct decode_output *step,
                                 const struct decode_device *device, cudaStream_t stream);
// The last step alone, where logits are there: of it, logits and what follows are used.
cudaError_t decode_best_launch(const struct decode_output *step, const struct decode_device *device,
                               cudaStream_t stream);
uint32_t decode_output_blocks(const struct decode_device *device);
bool decode_output_fits(uint32_t hidden, const struct decode_device *device);

// The same by way of the int8 copy of the matrix: only the place->shortlist likeliest tokens, at
// most 2 · decode_output_blocks, are sure to have their logits, the others may have −infinity.
// (decode_shortlist.cu)
struct decode_bound {
    float step;   // of the activations' 16-bit form
    float margin; // the bound over a row's scale
    float reach;  // what a logit's partial sums stay below, over the row's scale
};
struct decode_shortlist {
    struct decode_output output;
    const int8_t *int8; // (vocab, n), see decode_shortlist_fits
    const float *scale; // (vocab)
    const struct decode_place *place;
    float *normed; // (n)
    float *bounds; // (2 decode_output_blocks) greatest lower bounds
    struct decode_bound *bound;
};
bool decode_shortlist_fits(uint32_t hidden, const struct decode_device *device);
cudaError_t decode_shortlist_launch(const struct decode_shortlist *step,
                                    const struct decode_device *device, cudaStream_t stream);

#endif
