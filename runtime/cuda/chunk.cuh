// SPDX-License-Identifier: MIT
// How a warp multiplies one token's activations by a row of ternary blocks on tensor cores, and how
// work is shared out.
//
// A chunk is four blocks of a 16-row tile: 16 rows × 128 columns, 512 bytes as they lie, 16 a lane.
// A 16-byte piece holds 4 rows × 16 columns. Lane (g, t) = (lane / 4, lane % 4) takes rows
// 4·(g % 4) … + 3 of block 2·(t / 2) + g / 4, columns 16·(t % 2) … + 15. Its four words are rows of
// two 16-row operands; lanes with g >= 4 hold the same rows as those with g < 4 of other blocks, so
// operand rows 4 … 7 (and 12 … 15) belong to odd blocks. Activations of even blocks stand in the
// even columns of the other operand and those of odd blocks in the odd ones: each lane finds its
// sum in one of its two.
#ifndef BNT_RUNTIME_CUDA_CHUNK_CUH
#define BNT_RUNTIME_CUDA_CHUNK_CUH

#include "runtime/cuda/device.cuh"

enum { CHUNK_BLOCKS = 4, CHUNK_BYTES = 512, BLOCK_BYTES = 128, TILE_ROWS = 16 };

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

// A word's codes are bits 0–1, 2–3, 4–5 and 6–7 of its bytes. The word and its copy shifted left by
// two, masked, are codes times 4 or times 64 of columns that lie side by side: no other shift.
struct scaled_sums {
    int by_4[2][4];
    int by_64[2][4];
};

static __device__ __forceinline__ void multiply(scaled_sums &s, uint4 w, uint4 x)
{
    const uint32_t low = 0x0C0C0C0C, high = 0xC0C0C0C0;
    const uint4 v = make_uint4(w.x << 2, w.y << 2, w.z << 2, w.w << 2);
    mma_codes(s.by_4[0], v.x & low, v.y & low, w.x & low, w.y & low, x.x, x.y);
    mma_codes(s.by_4[1], v.z & low, v.w & low, w.z & low, w.w & low, x.x, x.y);
    mma_codes(s.by_64[0], v.x & high, v.y & high, w.x & high, w.y & high, x.z, x.w);
    mma_codes(s.by_64[1], v.z & high, v.w & high, w.z & high, w.w & high, x.z, x.w);
}

// So many things among so many takers, as evenly as can be.
struct cut {
    uint32_t each, more; // the first takers have one more
};

struct range {
    uint32_t first, count;
};

static inline cut cut_evenly(uint32_t things, uint32_t takers)
{
    return {things / takers, things % takers};
}

static __device__ __forceinline__ range share_of(const cut &c, uint32_t i)
{
    return {i * c.each + min(i, c.more), c.each + (i < c.more)};
}

#endif
