// SPDX-License-Identifier: MIT
// The operations, one a file: raw device pointers in, a status out. All work is put on the stream
// and nothing waits for it. Shapes stand beside the arguments; M is the number of tokens.
#ifndef BNT_RUNTIME_CUDA_OPS_CUH
#define BNT_RUNTIME_CUDA_OPS_CUH

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

// Rows of quantized activations are padded with zeros to a multiple of this many columns, so that a
// warp can always load a chunk of four blocks.
enum { BNT_CUDA_CHUNK_COLS = 128 };

static inline __host__ __device__ uint32_t divide_up(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

static inline __host__ __device__ uint32_t bnt_cuda_pad(uint32_t n, uint32_t to)
{
    return divide_up(n, to) * to;
}

// One or several matrices that lie side by side in the file and share their input, as one stack of
// 16-row tiles. Each keeps its own scale, and its own place for what comes out.
struct bnt_cuda_part {
    uint32_t first_tile; // in the stack
    uint32_t rows;       // without padding
    float scale;         // γ
    float *out;          // (M, out_stride)
    uint32_t out_stride; // in elements
    size_t head_stride;  // of heads: from one to the next, in elements
    bool rotate;         // of heads: by the token's angles
    const void *scales;  // (tiles, n_groups, 16) halves or floats, where n_groups > 0
    const float *bias;   // (rows), or NULL
};
enum { BNT_CUDA_MAX_PARTS = 3 };
struct bnt_cuda_product {
    const uint32_t *blocks; // (n_tiles, n_blocks) blocks of 32 words
    uint32_t n_tiles;       // rows / 16 of the stack
    uint32_t n_blocks;      // K' / 32
    uint32_t n_parts;
    struct bnt_cuda_part parts[BNT_CUDA_MAX_PARTS]; // ascending by first_tile, from 0 on
    bool add;                                       // out += instead of out =: the residual
    bool gated; // of two parts alike only act(part 0) · part 1 comes out, at part 0's place
    uint32_t activation;   // bnt_activation, where gated
    uint32_t head_dim;     // 0, or rows are those of heads: see bnt_cuda_gemm_takes_heads
    const float2 *angles;  // (M, head_dim / 2), cosine and sine
    uint32_t n_groups;     // scales of a row (bnt.md section 5.1), or 0: γ
    uint32_t group_blocks; // blocks of 32 columns in a group; the last may have fewer
    bool halves;           // scales are float16
};

// Quantized activations of M tokens. A tile of tokens at 128 columns is one run of memory, and lies
// there as it is to lie in shared memory: each token's 128 bytes are eight pieces of 16, of which
// piece p is at place p ^ t % 8. One token lies as a plain row. In 16 bits a token has two rows,
// the upper bytes and the lower ones after them: 2 M rows in place of M.
struct bnt_cuda_quantized {
    int8_t *x;       // (stride / 128, M, 128), zero from K on
    uint32_t stride; // a multiple of BNT_CUDA_CHUNK_COLS
    float *scale;    // (M) s
    int32_t *sum;    // (M) sum of x; in 16 bits not used
    bool is_16_bit;
};

// Where column k of token t lies in x.
static inline __host__ __device__ size_t bnt_cuda_quantized_at(uint32_t m, uint32_t t, uint32_t k)
{
    return ((size_t)(k / 128) * m + t) * 128 + ((k / 16 ^ t) % 8) * 16 + k % 16;
}

// Integer sums of one token: sums[r] = sum over k of (code(r, k) − 2) · x[k], the rows of all
// tiles. Or, when sums is NULL, the products y = sum · γ / s into the parts. (gemv.cu)
cudaError_t bnt_cuda_gemv(const struct bnt_cuda_product *product,
                          const struct bnt_cuda_quantized *x, int32_t *sums, cudaStream_t stream);

// The same for M tokens by tensor cores; sums is (M, 16 * n_tiles), of a product that is not gated.
// (gemm.cu)
cudaError_t bnt_cuda_gemm(const struct bnt_cuda_product *product,
                          const struct bnt_cuda_quantized *x, uint32_t m, int32_t *sums,
                          cudaStream_t stream);

// Whether products may be of heads: then row r of a part is row r % head_dim of head r / head_dim,
// and queries and keys can be rotated, keys and values put into the cache, as soon as their sums
// are there.
bool bnt_cuda_gemm_takes_heads(uint32_t head_dim);

// The same by Hopper's products of warpgroups, and whether the current device and the code for it
// have them. shape: how the product is cut into blocks, or BNT_CUDA_BEST_SHAPE. (gemm_wgmma.cu)
enum { BNT_CUDA_SHAPES = 10, BNT_CUDA_BEST_SHAPE = BNT_CUDA_SHAPES };
cudaError_t bnt_cuda_has_wgmma(bool *has);
cudaError_t bnt_cuda_gemm_wgmma(const struct bnt_cuda_product *product,
                                const struct bnt_cuda_quantized *x, uint32_t m, int32_t *sums,
                                uint32_t shape, cudaStream_t stream);

// Whether a product needs nothing beyond γ and 8 bits: all others are bnt_cuda_gemm_groups' alone.
static inline bool bnt_cuda_is_plain(const struct bnt_cuda_product *p,
                                     const struct bnt_cuda_quantized *x)
{
    bool has_bias = false;
    for (uint32_t i = 0; i < p->n_parts; i++)
        has_bias = has_bias || p->parts[i].bias;
    return p->n_groups == 0 && !x->is_16_bit && !has_bias;
}

// Products of M tokens, one or more, with scales of any kind, biases, and activations of 8 or 16
// bits: y of bnt.md section 5.1 into the parts. Not of heads, and gated only as told.
// (gemm_groups.cu)
bool bnt_cuda_gemm_groups_gates(const struct bnt_cuda_product *product);
cudaError_t bnt_cuda_gemm_groups(const struct bnt_cuda_product *product,
                                 const struct bnt_cuda_quantized *x, uint32_t m,
                                 cudaStream_t stream);

// The form that any device has, and the one by Hopper's products of warpgroups, where it has them
// for groups of that size. (gemm_groups.cu, gemm_groups_wgmma.cu)
cudaError_t bnt_cuda_gemm_groups_plain(const struct bnt_cuda_product *product,
                                       const struct bnt_cuda_quantized *x, uint32_t m,
                                       cudaStream_t stream);
bool bnt_cuda_gemm_groups_has_wgmma(const struct bnt_cuda_product *product);
cudaError_t bnt_cuda_gemm_groups_wgmma(const struct bnt_cuda_product *product,
                                       const struct bnt_cuda_quantized *x, uint32_t m,
                                       cudaStream_t stream);

// x[t] = row tokens[t] of the embedding. (embed.cu)
cudaError_t bnt_cuda_embed(float *x,              // (M, hidden)
                           const void *embedding, // (vocab, hidden) bf16, or f32 if wide
                           bool wide,
                           const uint32_t *tokens, // (M), below vocab
                           uint32_t hidden, uint32_t m, cudaStream_t stream);

// A ternary matrix of which single rows are wanted.
struct bnt_cuda_rows {
    const uint32_t *blocks;
    uint32_t cols;
    float scale;        // γ, where n_groups is 0
    const void *scales; // as those of a part
    uint32_t n_groups, group_blocks;
    bool halves;
};
// The same of a ternary embedding. (embed.cu)
cudaError_t bnt_cuda_embed_ternary(float *x, // (M, cols)
                                   const struct bnt_cuda_rows *embedding,
                                   const uint32_t *tokens, // (M)
                                   uint32_t m, cudaStream_t stream);

// RMS norm (unless weight is NULL) and quantization. (norm_quantize.cu)
cudaError_t bnt_cuda_norm_quantize(const struct bnt_cuda_quantized *out,
                                   const float *x,      // (M, n)
                                   const float *weight, // (n) or NULL
                                   float eps, uint32_t n, uint32_t m, cudaStream_t stream);

// act(gate) · up, then as above. (norm_quantize.cu)
cudaError_t bnt_cuda_activate_quantize(const struct bnt_cuda_quantized *out,
                                       const float *gate,   // (M, n)
                                       const float *up,     // (M, n)
                                       uint32_t activation, // bnt_activation
                                       const float *weight, // (n) or NULL
                                       float eps, uint32_t n, uint32_t m, cudaStream_t stream);

// gate = act(gate) · up. (norm_quantize.cu)
cudaError_t bnt_cuda_activate(float *gate,         // (count)
                              const float *up,     // (count)
                              uint32_t activation, // bnt_activation
                              size_t count, cudaStream_t stream);

// RMS norm alone; out may be x. (norm_quantize.cu)
cudaError_t bnt_cuda_norm(float *out,          // (M, n)
                          const float *x,      // (M, n)
                          const float *weight, // (n)
                          float eps, uint32_t n, uint32_t m, cudaStream_t stream);

// The cache of one layer: each head's positions together, so that a tile of positions is one run of
// memory.
struct bnt_cuda_cache {
    float *keys;      // (n_kv_heads, context, row)
    float *values;    // (n_kv_heads, context, row)
    uint32_t context; // positions
    uint32_t row;     // head_dim rounded up to a multiple of 4; zero beyond head_dim
};

struct bnt_cuda_heads {
    uint32_t n_heads, n_kv_heads, head_dim;
};

// Cosine and sine, times a factor, of the angles of tokens from position on. (rope.cu)
cudaError_t bnt_cuda_angles(float2 *angles,         // (M, head_dim / 2)
                            const float *frequency, // (head_dim / 2)
                            float factor, uint32_t head_dim, uint32_t position, uint32_t m,
                            cudaStream_t stream);

// RMS norms of each head's own queries and keys, in place. (rope.cu)
cudaError_t bnt_cuda_norm_heads(float *q,              // (M, n_heads * head_dim)
                                float *k,              // (M, n_kv_heads * head_dim)
                                const float *q_weight, // (head_dim)
                                const float *k_weight, // (head_dim)
                                float eps, struct bnt_cuda_heads heads, uint32_t m,
                                cudaStream_t stream);

// Rotates q in place and k on its way into the cache; v goes there as it is. (rope.cu)
cudaError_t bnt_cuda_rope(float *q,             // (M, n_heads * head_dim)
                          const float *k,       // (M, n_kv_heads * head_dim)
                          const float *v,       // (M, n_kv_heads * head_dim)
                          const float2 *angles, // (M, head_dim / 2)
                          const struct bnt_cuda_cache *cache, struct bnt_cuda_heads heads,
                          uint32_t position, // of the first token
                          uint32_t m, cudaStream_t stream);

// softmax(q·kᵀ / sqrt(head_dim)) v, causal. (attention.cu)
cudaError_t bnt_cuda_attention(float *out,     // (M, n_heads * head_dim)
                               const float *q, // (M, n_heads * head_dim)
                               const struct bnt_cuda_cache *cache, struct bnt_cuda_heads heads,
                               uint32_t position, uint32_t m, cudaStream_t stream);

// The same on tensor cores, for head_dim divisible by 4 and at most 128. (attention_tiles.cu)
bool bnt_cuda_attention_has_tiles(struct bnt_cuda_heads heads);
cudaError_t bnt_cuda_attention_tiles(float *out,     // (M, n_heads * head_dim)
                                     const float *q, // (M, n_heads * head_dim)
                                     const struct bnt_cuda_cache *cache,
                                     struct bnt_cuda_heads heads, uint32_t position, uint32_t m,
                                     cudaStream_t stream);

// The same by Hopper's products of warpgroups, see bnt_cuda_has_wgmma. (attention_wgmma.cu)
cudaError_t bnt_cuda_attention_wgmma(float *out,     // (M, n_heads * head_dim)
                                     const float *q, // (M, n_heads * head_dim)
                                     const struct bnt_cuda_cache *cache,
                                     struct bnt_cuda_heads heads, uint32_t position, uint32_t m,
                                     cudaStream_t stream);

// logits[t][r] = output[r] · x[t]. (output.cu)
cudaError_t bnt_cuda_output(float *logits,      // (M, vocab)
                            const void *output, // (vocab, hidden) bf16, or f32 if wide
                            bool wide,
                            const float *x, // (M, hidden)
                            uint32_t hidden, uint32_t vocab, uint32_t m, cudaStream_t stream);

#endif
