// SPDX-License-Identifier: MIT
// How a warp multiplies one token's activations by a row of ternary blocks on tensor cores.
//
// A chunk is four blocks of a 16-row tile: 16 rows × 128 columns, 512 bytes as they lie, 16 a lane.
// A 16-byte piece holds 4 rows × 16 columns. Lane (g, t) = (lane / 4, lane % 4) takes rows
// 4·(g % 4) … + 3 of block 2·(t / 2) + g / 4, columns 16·(t % 2) … + 15. Its four words are rows of
// two 16-row operands; lanes with g >= 4 hold the same rows as those with g < 4 of other blocks, so
// operand rows 4 … 7 (and 12 … 15) belong to odd blocks. Activations of even blocks stand in the
// even columns of the other operand and those of odd blocks in the odd ones: each lane finds its
// sum in one of its two.
//
// Masks alone split a word and its copy shifted by 4 into four groups of columns: once as codes,
// once as codes times 4, which are summed apart and divided at the end.
#ifndef BNT_RUNTIME_CUDA_CHUNK_CUH
#define BNT_RUNTIME_CUDA_CHUNK_CUH

#include "runtime/cuda/device.cuh"

enum { CHUNK_BLOCKS = 4, CHUNK_BYTES = 512, BLOCK_BYTES = 128, TILE_ROWS = 16 };

// 12 times 128, summed over half of 2^20 columns, the widest product: no overflow.
static_assert(12ll * 128 * (1 << 19) <= INT32_MAX, "integer sums fit in int32");

struct chunk_lane {
    uint32_t block;    // of the chunk's four, that this lane reads
    uint32_t offset;   // in bytes, from the chunk's start
    uint32_t x_offset; // in bytes, from the chunk's first activation
    bool odd;          // holds an odd block
    uint32_t row;      // first of the lane's four rows
    uint32_t t;
};

static __device__ __forceinline__ chunk_lane find_chunk_lane()
{
    const uint32_t lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    chunk_lane at;
    at.odd = g >= 4;
    at.block = t / 2 * 2 + at.odd;
    at.offset = at.block * BLOCK_BYTES + (g % 4 / 2 * 4 + t % 2 * 2 + g % 2) * 16;
    at.x_offset = (t / 2 * 2 + g % 2) * 32 + t % 2 * 16;
    at.row = g % 4 * 4;
    at.t = t;
    return at;
}

// Sums of the tile so far, as the tensor cores keep them: two operands, codes and codes times 4.
struct chunk_sums {
    int once[2][4];
    int four[2][4];
};

static __device__ __forceinline__ void multiply_chunk(chunk_sums &s, uint4 w, uint4 x)
{
    const uint32_t once = 0x03030303, four = 0x0C0C0C0C;
    const uint4 v = make_uint4(w.x >> 4, w.y >> 4, w.z >> 4, w.w >> 4);
    mma_codes(s.once[0], w.x & once, w.y & once, v.x & once, v.y & once, x.x, x.z);
    mma_codes(s.once[1], w.z & once, w.w & once, v.z & once, v.w & once, x.x, x.z);
    mma_codes(s.four[0], w.x & four, w.y & four, v.x & four, v.y & four, x.y, x.w);
    mma_codes(s.four[1], w.z & four, w.w & four, v.z & four, v.w & four, x.y, x.w);
}

// Adds the warp's sums of a tile to the tile's 16 in shared memory.
static __device__ __forceinline__ void add_chunk_sums(int *tile, const chunk_sums &s,
                                                      const chunk_lane &at)
{
    int row[4];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int *once = &s.once[i / 2][i % 2 * 2], *four = &s.four[i / 2][i % 2 * 2];
        row[i] = at.odd ? once[1] + (four[1] >> 2) : once[0] + (four[0] >> 2);
        row[i] += __shfl_xor_sync(FULL_WARP, row[i], 16);
    }
    int mine = at.t < 2 ? (at.t == 0 ? row[0] : row[1]) : (at.t == 2 ? row[2] : row[3]);
    if (!at.odd)
        atomicAdd(&tile[at.row + at.t], mine);
}

#endif
