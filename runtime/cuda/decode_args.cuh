// SPDX-License-Identifier: MIT
// What the parts of the decoding kernel share: its arguments and a block's shared memory.
#ifndef BNT_RUNTIME_CUDA_DECODE_ARGS_CUH
#define BNT_RUNTIME_CUDA_DECODE_ARGS_CUH

#include "runtime/cuda/chunk.cuh"
#include "runtime/cuda/ops.cuh"

enum {
    THREADS = 512,
    WARPS = THREADS / WARP,
    PIECE_BYTES = 2 * CHUNK_BYTES,
    PIECE_COLS = 256,
    HEADS = 4,       // query heads that one attention item takes at most
    POSITIONS = 256, // positions in a tile of attention
    MAX_DIM = 256,
    AT_ONCE = 4,          // 16-byte pieces of a vector that a thread awaits together
    SCALES = 7,           // of a layer's matrices
    MAX_BOUNDS = 512,     // two a block
    SPIN_LIMIT = 1 << 24, // polls, some ten seconds: then something is broken
};

enum matrix { Q, K, V, O, GATE, UP, DOWN };
enum segment { QKV_ROWS, O_ROWS, FFN_ROWS, DOWN_ROWS, OUTPUT_ROWS, SEGMENTS };

// What a segment of the stream reads: tiles (rows of the output layer) of tile_bytes each.
struct segment_args {
    const uint8_t *base;   // of layer 0
    uint64_t layer_stride; // bytes
    uint64_t pair_offset;  // bytes from a gate tile to its up tile; 0 elsewhere
    uint32_t tile_bytes;
    uint32_t pieces; // in a tile, the last perhaps in part
    uint32_t units;  // tiles, pairs of tiles or rows, dealt to the blocks
    uint32_t shift;  // the block that gets the first of what does not divide evenly
};

struct decode_args {
    segment_args segments[SEGMENTS];
    const float *norms; // of layer 0; the offsets of its weights and of a layer are in floats
    uint64_t norm_stride;
    uint64_t attn_sub_norm, ffn_norm, ffn_sub_norm; // 0: none
    const float *final_norm;
    const float *scales; // (n_layers, SCALES)
    const void *embedding;
    const float *frequency; // (dim / 2)
    float *keys, *values;
    const uint8_t *matrix;     // the output matrix itself, also where its int8 copy is used
    const float *output_scale; // (vocab) of the int8 copy
    uint32_t row_bytes;        // of the matrix
    uint32_t shortlist;        // how many of the likeliest tokens must have logits; 0: all tokens
    uint32_t *bounds;          // (2 blocks) greatest lower bounds
    uint32_t bounds_use;       // of them
    float *logits;             // (vocab)
    uint32_t *best;            // the likeliest token
    unsigned long long *block_best; // (blocks)
    unsigned *arrived;
    // Vectors on their way between blocks, two of each.
    uint32_t *qkv, *part, *att, *o, *activated, *down;
    uint32_t qkv_size, part_size, att_size, hidden_size, ffn_size; // in words, padded
    uint64_t cache_layer;                                          // elements
    uint32_t context, cache_row;
    uint32_t n_layers, hidden, q_size, ffn, vocab;
    uint32_t n_kv_heads, group, subgroups, dim, splits;
    uint32_t k_at, v_at; // where k and v begin in qkv
    uint32_t relu2, wide;
    float eps;
    uint32_t token, position, use; // use: of the buffers in layer 0
    // Shared memory, in bytes from its start.
    uint32_t x_at, y_at, quantized_at, tiles_at, angles_at;
};

// Some query heads of one key/value head over one part of the positions.
struct item {
    uint32_t kv, head, heads; // the first query head, and how many
    uint32_t from, to;        // positions
    uint32_t index;
};

// Four elements of the attention's result and where the parts of them lie, in words.
struct combination {
    uint32_t piece, values, totals, head; // head: of the item's
};

struct share {
    uint32_t tile, piece, count; // where a warp begins in a segment, and how many pieces it takes
};

struct __align__(16) small_shared
{
    share shares[SEGMENTS][WARPS];
    uint32_t first_tile[SEGMENTS], n_tiles[SEGMENTS];
    alignas(16) float2 totals[WARPS]; // sum of squares, largest
    int x_sum[2];
    float head_max[HEADS], head_sum[HEADS], head_rescale[HEADS];
    item first_item;
    combination first_combination[WARPS];
    unsigned long long best[WARPS];
    float reduced[WARPS], bounds[MAX_BOUNDS], threshold;
    bool last;
};

struct block {
    const decode_args &a;
    float *x, *y;
    int8_t *quantized;
    int *tiles;
    float *angles; // (dim / 2) cosines, (dim / 2) sines
    small_shared *small;
    uint32_t warp, lane;
    chunk_lane at;
};

#endif
