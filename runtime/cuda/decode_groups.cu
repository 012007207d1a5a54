// SPDX-License-Identifier: MIT
// The products of one token of which decode_product.cu's are the simplest kind: scales by row, or
// by row and group of columns, activations of 8 or 16 bits, biases (bnt.md sections 5 and 5.1).
//
// The order of work is the same. The other operand of the tensor cores has eight columns, of which
// one token needs few: the lower bytes of 16-bit activations take some more, so that both bytes
// cost one decoding and no more products. A group's sums meet in shared memory as integers, become
// floats there, each times its scale, and are added up in the order of the groups by one thread a
// row.
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/decode_slices.cuh"
#include "runtime/cuda/scales.cuh"

namespace
{
// Where sums go: by row; by group that is one chunk; by group of several; by group of blocks.
enum kind { BY_ROW, BY_CHUNK, BY_CHUNKS, BY_BLOCKS };

// Where a row's product goes, and what is done to it.
struct alignas(16) target {
    float *out;            // NULL for padding
    float scale, up_scale; // γ or that of the row
    float bias, up_bias;
    float old; // what is added
};

// Dynamic shared memory, in bytes from its start: the norm's weights, the tiles, and so on.
struct layout {
    uint32_t weights, scales, sums, targets, end;
    uint32_t norm_end; // zeros are to follow what there is of the norm's weights
};

__host__ __device__ uint32_t scale_bytes(const bnt_cuda_product &p) // of a tile
{
    return p.n_groups > 1 ? p.n_groups * SCALE_ROWS * (p.halves ? 2 : 4) : 0;
}

__host__ __device__ uint32_t sum_bytes(const decode_product &a) // of a tile
{
    const uint32_t rows = TILE_ROWS * (uint32_t)sizeof(int);
    return a.product.n_groups > 1 ? a.product.n_groups * rows : a.is_16_bit ? 2 * rows : rows;
}

// Whether sums may take the place of the norm's weights: these are read but once where slices are
// not longer than what is held at once, and each sum is stored, not added to.
__host__ __device__ bool sums_follow_norm(const decode_product &a, uint32_t chunks)
{
    return a.in.norm && a.product.n_groups > 1 && a.product.group_blocks == CHUNK_BLOCKS &&
           chunks <= MAX_WARPS * MAX_CHUNKS;
}

// units: tiles, or pairs of a gate tile and an up tile. Behind weights is what is read in vain.
__host__ __device__ layout lay_out(const decode_product &a, uint32_t units)
{
    const uint32_t n_tiles = a.product.gated ? 2 * units : units;
    const uint32_t chunks = divide_up(a.product.n_blocks, CHUNK_BLOCKS);
    const uint32_t sums = n_tiles * sum_bytes(a);
    const bool follow = sums_follow_norm(a, chunks);
    layout l;
    l.norm_end = a.in.norm ? chunks * BNT_CUDA_CHUNK_COLS * (uint32_t)sizeof(float) : 0;
    l.weights = follow && sums > l.norm_end ? bnt_cuda_pad(sums, BLOCK_BYTES) : l.norm_end;
    l.scales = l.weights + n_tiles * a.product.n_blocks * BLOCK_BYTES + MAX_CHUNKS * CHUNK_BYTES;
    l.sums = follow ? 0 : l.scales + n_tiles * scale_bytes(a.product);
    l.targets = l.scales + n_tiles * scale_bytes(a.product) + (follow ? 0 : sums);
    l.end = l.targets + units * TILE_ROWS * (uint32_t)sizeof(target);
    return l;
}

__device__ __forceinline__ float scale_of_row(const decode_product &a, const bnt_cuda_part &part,
                                              uint32_t r)
{
    if (a.product.n_groups == 0)
        return part.scale;
    return a.product.n_groups == 1 ? load_scale(part.scales, a.product.halves, r) : 0;
}

__device__ __forceinline__ target find_target(const decode_product &a, uint32_t tile, uint32_t row)
{
    uint32_t p = 0;
#pragma unroll
    for (uint32_t i = 1; i < BNT_CUDA_MAX_PARTS; i++)
        if (!a.product.gated && i < a.product.n_parts && tile >= a.product.parts[i].first_tile)
            p = i;
    const bnt_cuda_part &part = a.product.parts[p], &up = a.product.parts[1];
    const uint32_t r = (tile - part.first_tile) * TILE_ROWS + row;
    target to = {};
    if (r >= part.rows)
        return to;
    to.out = part.out + r;
    to.scale = scale_of_row(a, part, r);
    to.bias = part.bias ? part.bias[r] : 0;
    if (a.product.gated) {
        to.up_scale = scale_of_row(a, up, r);
        to.up_bias = up.bias ? up.bias[r] : 0;
    }
    return to;
}

// --- weights and scales on their way into shared memory ---

// The scales of a run of tiles of the stack, which may lie in several parts.
__device__ __forceinline__ void ask_scales(const decode_product &a, range tiles, uint8_t *to,
                                           barrier *arrived)
{
    const uint32_t each = scale_bytes(a.product);
#pragma unroll
    for (uint32_t p = 0; p < BNT_CUDA_MAX_PARTS; p++) {
        if (p >= a.product.n_parts)
            break;
        const uint32_t start = a.product.parts[p].first_tile;
        const uint32_t end =
            p + 1 < a.product.n_parts ? a.product.parts[p + 1].first_tile : a.product.n_tiles;
        const uint32_t from = max(start, tiles.first), till = min(end, tiles.first + tiles.count);
        if (from < till)
            ask_bulk(to + (from - tiles.first) * each,
                     static_cast<const uint8_t *>(a.product.parts[p].scales) +
                         (size_t)(from - start) * each,
                     (till - from) * each, arrived);
    }
}

// Asks for the norm's weights, the block's tiles and their scales: of gate and up, all of its gate
// tiles first.
__device__ __forceinline__ void ask_all(const decode_product &a, range own, uint8_t *dynamic,
                                        const layout &l, barrier *arrived)
{
    const uint32_t tile_bytes = a.product.n_blocks * BLOCK_BYTES, bytes = own.count * tile_bytes;
    const uint32_t scales = own.count * scale_bytes(a.product);
    const uint32_t norm_bytes = a.in.norm ? a.in.n * (uint32_t)sizeof(float) : 0;
    const uint32_t half = a.product.n_tiles / 2;
    const uint8_t *from =
        reinterpret_cast<const uint8_t *>(a.product.blocks) + (size_t)own.first * tile_bytes;
    open_bulk(arrived);
    announce_bulk(arrived, (a.product.gated ? 2 : 1) * (bytes + scales) + norm_bytes);
    if (a.in.norm)
        ask_bulk(dynamic, a.in.norm, norm_bytes, arrived);
    ask_bulk(dynamic + l.weights, from, bytes, arrived);
    if (a.product.gated)
        ask_bulk(dynamic + l.weights + bytes, from + (size_t)half * tile_bytes, bytes, arrived);
    if (scales == 0)
        return;
    ask_scales(a, own, dynamic + l.scales, arrived);
    if (a.product.gated)
        ask_scales(a, {own.first + half, own.count}, dynamic + l.scales + scales, arrived);
}

// --- activations ---

__device__ __forceinline__ uint32_t lower_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return pack_bytes(a, b, c, d);
}

// Of the numbers q, the upper byte is that of q + 128: what quantize_bits returns ends in q, and
// begins above the 16 bits of it.
__device__ __forceinline__ uint32_t upper_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return __byte_perm(__byte_perm(a + 128, b + 128, 0x0051), __byte_perm(c + 128, d + 128, 0x0051),
                       0x5410);
}

// The slice into shared memory, for the warp alone: (parts, CHUNKS, 32) words.
template <int CHUNKS, bool WIDE>
__device__ __forceinline__ void quantize(const slice<CHUNKS> &x, uint32_t *to, float scale)
{
    __syncwarp();
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
        const uint32_t a = quantize_bits(x.v[i].x, scale), b = quantize_bits(x.v[i].y, scale);
        const uint32_t c = quantize_bits(x.v[i].z, scale), d = quantize_bits(x.v[i].w, scale);
        if (WIDE)
            to[i * WARP] = upper_bytes(a, b, c, d);
        to[((WIDE ? CHUNKS : 0) + i) * WARP] = lower_bytes(a, b, c, d);
    }
    __syncwarp();
}

// --- sums ---

// How a lane (g, t) takes part. It reads rows g and g + 8 of block t of a chunk, four words: 16
// columns each. So that no two lanes meet a bank, it reads them in an order of its own, word i ^ t
// of the four being its i-th: lanes with odd t have the two halves of the columns exchanged, and so
// they have their activations; those with t >= 2 have the two rows exchanged. Therefore the
// activations of blocks 0 and 1 and those of blocks 2 and 3 stand in different columns of the other
// operand, or each block's in its own where groups are that small.
struct group_lane {
    uint32_t words[4]; // where they are, from the chunk's start, in bytes
    bool has_x;        // else its activations are zeros
    uint32_t
        x_offset; // in bytes, of its first 16 activations; the others are 16 further on or back
    uint32_t g, t;
};

template <bool WIDE, kind KIND>
__device__ __forceinline__ group_lane find_group_lane(uint32_t part_bytes)
{
    group_lane at;
    at.g = threadIdx.x % WARP / 4;
    at.t = threadIdx.x % 4;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        at.words[i] = at.t * BLOCK_BYTES + (i ^ at.t) * 32 + at.g * 4;
    const uint32_t columns = KIND == BY_BLOCKS ? 4 : 2, part = at.g / columns;
    at.has_x = part < (WIDE ? 2u : 1u) && at.g % columns == (KIND == BY_BLOCKS ? at.t : at.t / 2);
    at.x_offset = part * part_bytes + at.t * 32 + at.t % 2 * 16;
    if (!at.has_x)
        at.x_offset = 0;
    return at;
}

// The words of a chunk.
struct chunk_words {
    uint32_t w[4];

    __device__ __forceinline__ void load(const uint8_t *chunk, const group_lane &at)
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[i] = *reinterpret_cast<const uint32_t *>(chunk + at.words[i]);
    }
};

// A lane's activations of a chunk.
struct chunk_x {
    uint4 of[2];

    __device__ __forceinline__ void load(const int8_t *chunk, const group_lane &at)
    {
        const uint4 zero = make_uint4(0, 0, 0, 0);
        of[0] = of[1] = zero;
        if (!at.has_x)
            return;
        of[0] = *reinterpret_cast<const uint4 *>(chunk + at.x_offset);
        of[1] = *reinterpret_cast<const uint4 *>(chunk + (at.x_offset ^ 16));
    }
};

// The sums of a chunk. Of a word's codes, the upper half of those of a byte is taken as signed
// weights times 64, the lower half as codes times 4, which leaves one shift a word. Weights are
// codes less 2: what is too much, 8 times the activations, is taken off from the start.
struct chunk_sums {
    int by_4[4], by_64[4];
};

// 8 times the activations that meet codes times 4, less than zero: the same in all tiles.
__device__ __forceinline__ void correct(int (&start)[4], const chunk_x &x)
{
    const uint32_t less = 0xF8F8F8F8u;
#pragma unroll
    for (int i = 0; i < 2; i++)
        mma_weights(start, less, less, less, less, x.of[i].x, x.of[i].y);
}

// d = c + codes · activations, see mma_codes.
__device__ __forceinline__ void mma_codes_from(int (&d)[4], const int (&c)[4], uint32_t a0,
                                               uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                               uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]),
          "r"(c[3]));
}

// Half of a chunk's product. from: what codes times 4 are added to.
template <int I>
__device__ __forceinline__ void multiply(chunk_sums &s, const int (&from)[4], const chunk_words &c,
                                         const chunk_x &x)
{
    const uint32_t u = c.w[I], v = c.w[2 + I], up = u << 2, vp = v << 2, low = 0x0C0C0C0C;
    mma_codes_from(s.by_4, from, up & low, vp & low, u & low, v & low, x.of[I].x, x.of[I].y);
    mma_weights(s.by_64, signed_weights<3>(up), signed_weights<3>(vp), signed_weights<3>(u),
                signed_weights<3>(v), x.of[I].z, x.of[I].w);
}

// One element, times 64.
__device__ __forceinline__ int get(const chunk_sums &s, int i)
{
    return s.by_4[i] * 16 + s.by_64[i];
}

// Of all four blocks: the sums of rows g and g + 8. Lanes with t = 0 have them, and in 16 bits
// those with t = 1 the ones of the lower bytes.
__device__ __forceinline__ int2 join_blocks(const chunk_sums &s)
{
    return make_int2(((s.by_4[0] + s.by_4[3]) * 16 + s.by_64[0] + s.by_64[3]) >> SIGNED_BITS,
                     ((s.by_4[2] + s.by_4[1]) * 16 + s.by_64[2] + s.by_64[1]) >> SIGNED_BITS);
}

template <bool WIDE> __device__ __forceinline__ bool has_sums(const group_lane &at)
{
    return at.t < (WIDE ? 2 : 1);
}

// What lanes do alone is predicated here: branches cost more.
__device__ __forceinline__ void add_if(bool valid, int *to, int v)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.u32 p, %0, 0;\n"
                 "@p red.shared.add.s32 [%1], %2;\n"
                 "}" ::"r"((uint32_t)valid),
                 "r"(shared_address(to)), "r"(v)
                 : "memory");
}

__device__ __forceinline__ void store_if(bool valid, int *to, int v)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.u32 p, %0, 0;\n"
                 "@p st.shared.s32 [%1], %2;\n"
                 "}" ::"r"((uint32_t)valid),
                 "r"(shared_address(to)), "r"(v)
                 : "memory");
}

__device__ __forceinline__ void store_if(bool valid, int16_t *to, int v)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.u32 p, %0, 0;\n"
                 "@p st.shared.s16 [%1], %2;\n"
                 "}" ::"r"((uint32_t)valid),
                 "r"(shared_address(to)), "h"((int16_t)v)
                 : "memory");
}

// Sums of whole rows: (parts, n_tiles · 16). to: of the lane's first row.
__device__ __forceinline__ void add_rows(bool valid, int *to, const chunk_sums &s)
{
    const int2 two = join_blocks(s);
    add_if(valid, to, two.x);
    add_if(valid, to + 8, two.y);
}

// Sums of a chunk that is a group, (16) rows. In 16 bits the two bytes' sums, below 2^15, stand in
// one word.
template <bool WIDE>
__device__ __forceinline__ void store_chunk(bool valid, int *to, const chunk_sums &s,
                                            const group_lane &at)
{
    const int2 two = join_blocks(s);
    if (WIDE) {
        int16_t *half = reinterpret_cast<int16_t *>(to) + 1 - at.t;
        store_if(valid, half, two.x);
        store_if(valid, half + 16, two.y);
    } else {
        store_if(valid, to, two.x);
        store_if(valid, to + 8, two.y);
    }
}

// Sums of a chunk in a group of several.
template <bool WIDE>
__device__ __forceinline__ void add_chunk(bool valid, int *to, const chunk_sums &s,
                                          const group_lane &at)
{
    const int2 two = join_blocks(s);
    const int shift = WIDE && at.t == 0 ? 8 : 0;
    add_if(valid, to, two.x << shift);
    add_if(valid, to + 8, two.y << shift);
}

// Sums of the lane's two blocks, whose groups are at a and b.
template <bool WIDE>
__device__ __forceinline__ void add_blocks(bool valid, int *sums, int2 groups, const chunk_sums &s,
                                           const group_lane &at)
{
    valid = valid && (WIDE || at.t < 2);
    const int shift = WIDE && at.t < 2 ? 8 : 0;
    const uint32_t row = at.g + at.t % 2 * 8, other = at.g + 8 - at.t % 2 * 8;
    add_if(valid && groups.x >= 0, sums + groups.x + row, (get(s, 0) >> SIGNED_BITS) << shift);
    add_if(valid && groups.x >= 0, sums + groups.x + other, (get(s, 2) >> SIGNED_BITS) << shift);
    add_if(valid && groups.y >= 0, sums + groups.y + row, (get(s, 1) >> SIGNED_BITS) << shift);
    add_if(valid && groups.y >= 0, sums + groups.y + other, (get(s, 3) >> SIGNED_BITS) << shift);
}

// Where sums are put: of the block's first tile.
struct sum_place {
    int *sums;
    uint32_t tile;     // ints from a tile to the next
    uint32_t n_rows;   // of all tiles, where KIND is BY_ROW
    uint32_t n_groups; // else
};

// Where the sums of some chunks go in a tile, in ints; −1: nowhere.
template <int CHUNKS> struct group_places {
    int2 at[CHUNKS]; // of the lane's two blocks, where KIND is BY_BLOCKS; else the first alone
};

__device__ __forceinline__ int find_group(const bnt_cuda_product &p, uint32_t block)
{
    const uint32_t group = block / p.group_blocks;
    return group < p.n_groups ? (int)(group * TILE_ROWS) : -1;
}

template <int CHUNKS, kind KIND>
__device__ __forceinline__ group_places<CHUNKS>
find_groups(const bnt_cuda_product &p, uint32_t chunk, uint32_t left, const group_lane &at)
{
    group_places<CHUNKS> to;
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
        const uint32_t block = (chunk + i) * CHUNK_BLOCKS + (KIND == BY_BLOCKS ? at.t % 2 * 2 : 0);
        to.at[i] = make_int2(-1, -1);
        if (KIND == BY_ROW || i >= left)
            continue;
        to.at[i].x = KIND == BY_CHUNK ? (int)((chunk + i) * TILE_ROWS) : find_group(p, block);
        if (KIND == BY_BLOCKS)
            to.at[i].y = find_group(p, block + 1);
    }
    return to;
}

// The sums of some chunks, the same in all tiles, from the first tile on. tile: of the chunks
// there.
template <int CHUNKS, bool WIDE, kind KIND>
__device__ __forceinline__ void multiply_tiles(const sum_place &to,
                                               const group_places<CHUNKS> &groups, uint32_t n_tiles,
                                               const uint8_t *tile, uint32_t tile_bytes,
                                               const chunk_x (&x)[CHUNKS], const group_lane &at)
{
    int *sums = to.sums; // of the lane's first row
    if (KIND != BY_BLOCKS)
        sums += at.g;
    if (KIND == BY_ROW && at.t == 1)
        sums += to.n_rows;
    constexpr int SUMS = KIND == BY_ROW ? 1 : CHUNKS; // that are kept apart
    int start[SUMS][4] = {};
#pragma unroll
    for (uint32_t c = 0; c < CHUNKS; c++)
        correct(start[c % SUMS], x[c]);
#pragma unroll 1
    for (uint32_t i = 0; i < n_tiles; i++, tile += tile_bytes, sums += to.tile) {
        chunk_words w[CHUNKS];
        chunk_sums s[SUMS] = {};
#pragma unroll
        for (uint32_t c = 0; c < CHUNKS; c++)
            w[c].load(tile + c * CHUNK_BYTES, at);
#pragma unroll
        for (uint32_t c = 0; c < CHUNKS; c++)
            multiply<0>(s[c % SUMS], c < SUMS ? start[c % SUMS] : s[0].by_4, w[c], x[c]);
#pragma unroll
        for (uint32_t c = 0; c < CHUNKS; c++)
            multiply<1>(s[c % SUMS], s[c % SUMS].by_4, w[c], x[c]);
        if constexpr (KIND == BY_ROW) {
            add_rows(has_sums<WIDE>(at), sums, s[0]);
        } else {
#pragma unroll
            for (uint32_t c = 0; c < CHUNKS; c++) {
                const bool valid = has_sums<WIDE>(at) && groups.at[c].x >= 0;
                if (KIND == BY_BLOCKS)
                    add_blocks<WIDE>(true, sums, groups.at[c], s[c], at);
                else if (KIND == BY_CHUNK)
                    store_chunk<WIDE>(valid, sums + groups.at[0].x + c * TILE_ROWS, s[c], at);
                else
                    add_chunk<WIDE>(valid, sums + groups.at[c].x, s[c], at);
            }
        }
    }
}

// --- what comes out ---

// By all threads: each group's sum becomes its float times its scale, in place.
template <bool WIDE, kind KIND>
__device__ __forceinline__ void scale_groups(const decode_product &a, int *sums, const void *scales,
                                             uint32_t n_tiles)
{
    const auto sum = [](int v) {
        return (float)(WIDE && KIND == BY_CHUNK ? (v >> 16) * 256 + (int16_t)v : v);
    };
    const uint32_t quads = n_tiles * a.product.n_groups * (TILE_ROWS / 4);
    for (uint32_t i = threadIdx.x; i < quads; i += blockDim.x) {
        const int4 v = reinterpret_cast<const int4 *>(sums)[i];
        float4 by;
        if (a.product.halves) {
            const uint2 w = static_cast<const uint2 *>(scales)[i];
            const float2 x = __half22float2(*reinterpret_cast<const __half2 *>(&w.x));
            const float2 y = __half22float2(*reinterpret_cast<const __half2 *>(&w.y));
            by = make_float4(x.x, x.y, y.x, y.y);
        } else {
            by = static_cast<const float4 *>(scales)[i];
        }
        reinterpret_cast<float4 *>(sums)[i] =
            make_float4(__fmul_rn(by.x, sum(v.x)), __fmul_rn(by.y, sum(v.y)),
                        __fmul_rn(by.z, sum(v.z)), __fmul_rn(by.w, sum(v.w)));
    }
}

// The sum of n floats, one a row's distance from the next, in their order: some are on their way
// while those before them are added. Beyond the end stands −0, which changes nothing.
__device__ __forceinline__ float sum_in_order(const float *at, uint32_t n)
{
    enum { AHEAD = 8 };
    float sum = 0, next[AHEAD];
#pragma unroll
    for (uint32_t i = 0; i < AHEAD; i++)
        next[i] = i < n ? at[i * TILE_ROWS] : -0.0f;
#pragma unroll 1
    for (uint32_t g = AHEAD; g < n; g += AHEAD) {
        float now[AHEAD];
        at += AHEAD * TILE_ROWS;
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            now[i] = next[i];
            next[i] = g + i < n ? at[i * TILE_ROWS] : -0.0f;
        }
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++)
            sum = __fadd_rn(sum, now[i]);
    }
#pragma unroll
    for (uint32_t i = 0; i < AHEAD; i++)
        sum = __fadd_rn(sum, next[i]);
    return sum;
}

// The sum of a row of tile i.
template <bool WIDE, kind KIND>
__device__ __forceinline__ float sum_row(const sum_place &from, uint32_t tile, uint32_t row)
{
    if (KIND == BY_ROW) {
        const int *at = from.sums + tile * TILE_ROWS + row;
        return WIDE ? join_bytes(at[0], at[from.n_rows]) : (float)at[0];
    }
    const float *at = reinterpret_cast<const float *>(from.sums + tile * from.tile) + row;
    return sum_in_order(at, from.n_groups);
}

__device__ __forceinline__ float finish_row(const decode_product &a, const target &to, float sum,
                                            float up_sum, float x_scale)
{
    const float v = __fadd_rn(finish_sum(sum, a.product.n_groups, to.scale, x_scale), to.bias);
    if (!a.product.gated)
        return __fadd_rn(v, to.old);
    const float up =
        __fadd_rn(finish_sum(up_sum, a.product.n_groups, to.up_scale, x_scale), to.up_bias);
    return (a.product.activation == BNT_ACTIVATION_RELU2 ? relu2(v) : silu(v)) * up;
}

// A block's units are tiles, or pairs of a gate tile and an up tile. A block has a thread at least
// for each row that comes out.
template <int CHUNKS, bool WIDE, kind KIND>
__global__ void __maxnreg__(CHUNKS < MAX_CHUNKS ? SHORT_REGISTERS : LONG_REGISTERS)
    multiply_input(const __grid_constant__ decode_product a, cut units, cut chunks)
{
    extern __shared__ __align__(128) uint8_t dynamic[];
    __shared__ barrier arrived;
    __shared__ __align__(16)
        int8_t quantized[MAX_WARPS][(WIDE ? 2 : 1) * CHUNKS * BNT_CUDA_CHUNK_COLS];
    __shared__ block_totals totals;
    let_next_start();
    const uint32_t thread = threadIdx.x, warp = thread / WARP, lane = thread % WARP;
    const range own = share_of(units, blockIdx.x), part = share_of(chunks, warp);
    const uint32_t n_tiles = a.product.gated ? 2 * own.count : own.count;
    const layout l = lay_out(a, own.count);
    if (warp == 0 || !HAS_COPY_ENGINE)
        ask_all(a, own, dynamic, l, &arrived);
    float4 *norm = reinterpret_cast<float4 *>(dynamic);
    const uint32_t norm_runs = a.in.norm ? a.in.n / 4 : 0;
    for (uint32_t i = norm_runs + thread; i * sizeof(float4) < l.norm_end; i += blockDim.x)
        norm[i] = make_float4(0, 0, 0, 0);
    sum_place sums;
    sums.sums = reinterpret_cast<int *>(dynamic + l.sums);
    sums.tile = (KIND == BY_ROW ? 1 : a.product.n_groups) * TILE_ROWS;
    sums.n_rows = n_tiles * TILE_ROWS;
    sums.n_groups = a.product.n_groups;
    if (KIND != BY_CHUNK)
        for (uint32_t i = l.sums + thread * 16; i < l.targets; i += blockDim.x * 16)
            *reinterpret_cast<int4 *>(dynamic + i) = make_int4(0, 0, 0, 0);
    if (thread < MOST_WARPS)
        totals.of_warps[thread] = make_float2(0, 0);
    norm += part.first * WARP + lane;

    target *targets = reinterpret_cast<target *>(dynamic + l.targets);
    const float *old_at = NULL;
    if (thread < own.count * TILE_ROWS) {
        const target to = find_target(a, own.first + thread / TILE_ROWS, thread % TILE_ROWS);
        old_at = a.product.add ? to.out : NULL;
        targets[thread] = to;
    }
    const group_lane at = find_group_lane<WIDE, KIND>(CHUNKS * BNT_CUDA_CHUNK_COLS);
    const uint32_t column = part.first * BNT_CUDA_CHUNK_COLS + lane * 4;
    const float *x_at = a.in.x + column;
    uint32_t left = column < a.in.n ? (a.in.n - column - 1) / BNT_CUDA_CHUNK_COLS + 1 : 0;
    left = min(left, part.count);
    uint32_t weights = l.weights + part.first * CHUNK_BYTES;
    uint32_t has_norm = a.in.norm != NULL;
    uint32_t tile_bytes = a.product.n_blocks * BLOCK_BYTES;
    keep(x_at);
    keep(left);
    keep(weights);
    keep(old_at);
    keep(has_norm);
    keep(tile_bytes);
    __syncthreads();

    wait_for_previous();
    slice<CHUNKS> x;
    input_totals t = {0, 0};
    x.ask(x_at, left);
    const float old = old_at ? load_fresh(old_at) : 0;
    await_bulk(&arrived, 0);
    x.weigh(has_norm ? norm : NULL, left, &t);
    // A slice may be longer than what is held at once; then it is read twice.
#pragma unroll 1
    for (uint32_t done = CHUNKS; done < part.count; done += CHUNKS) {
        const uint32_t rest = left - min(left, done);
        x.ask(x_at + done * BNT_CUDA_CHUNK_COLS, rest);
        x.weigh(has_norm ? norm + done * WARP : NULL, rest, &t);
    }
    const input_factors factors = find_factors(a.in, t, &totals);
    if (old_at)
        targets[thread].old = old;
    const float scale =
        WIDE ? 32512.0f / fmaxf(factors.largest, 1e-30f) : 127.0f / fmaxf(factors.largest, 1e-5f);
    const float factor = factors.norm * scale;
#pragma unroll 1
    for (uint32_t done = 0; done < part.count; done += CHUNKS) {
        if (part.count > CHUNKS) {
            const uint32_t rest = left - min(left, done);
            x.ask(x_at + done * BNT_CUDA_CHUNK_COLS, rest);
            x.weigh(has_norm ? norm + done * WARP : NULL, rest, &t);
        }
        quantize<CHUNKS, WIDE>(x, reinterpret_cast<uint32_t *>(quantized[warp]) + lane, factor);
        constexpr int AT_ONCE = KIND == BY_ROW || KIND == BY_CHUNK ? 2 : 1; // as registers allow
#pragma unroll 1
        for (uint32_t from = 0; from < min((uint32_t)CHUNKS, part.count - done); from += AT_ONCE) {
            chunk_x q[AT_ONCE];
#pragma unroll
            for (uint32_t i = 0; i < AT_ONCE; i++)
                q[i].load(quantized[warp] + (from + i) * BNT_CUDA_CHUNK_COLS, at);
            const group_places<AT_ONCE> groups = find_groups<AT_ONCE, KIND>(
                a.product, part.first + done + from, part.count - done - from, at);
            multiply_tiles<AT_ONCE, WIDE, KIND>(sums, groups, n_tiles,
                                                dynamic + weights + (done + from) * CHUNK_BYTES,
                                                tile_bytes, q, at);
        }
    }
    __syncthreads();
    if (KIND != BY_ROW) {
        scale_groups<WIDE, KIND>(a, sums.sums, dynamic + l.scales, n_tiles);
        __syncthreads();
    }
    if (thread >= own.count * TILE_ROWS)
        return;
    const target to = targets[thread];
    const uint32_t tile = thread / TILE_ROWS, row = thread % TILE_ROWS;
    const float sum = sum_row<WIDE, KIND>(sums, tile, row);
    const float up = a.product.gated ? sum_row<WIDE, KIND>(sums, own.count + tile, row) : 0;
    if (to.out)
        *to.out = finish_row(a, to, sum, up, scale);
}

template <int CHUNKS, bool WIDE> kernel choose_kind(const bnt_cuda_product &p)
{
    return p.n_groups <= 1                      ? multiply_input<CHUNKS, WIDE, BY_ROW>
           : p.group_blocks == CHUNK_BLOCKS     ? multiply_input<CHUNKS, WIDE, BY_CHUNK>
           : p.group_blocks % CHUNK_BLOCKS == 0 ? multiply_input<CHUNKS, WIDE, BY_CHUNKS>
                                                : multiply_input<CHUNKS, WIDE, BY_BLOCKS>;
}

template <int CHUNKS> kernel choose_kernel(const decode_product &a)
{
    return a.is_16_bit ? choose_kind<CHUNKS, true>(a.product)
                       : choose_kind<CHUNKS, false>(a.product);
}

// One block on each multiprocessor, or more where they would need too much shared memory.
plan choose_plan(const decode_product &a, const struct decode_device &device)
{
    plan p;
    p.chunks = divide_up(a.product.n_blocks, CHUNK_BLOCKS);
    p.units = a.product.n_tiles / (a.product.gated ? 2 : 1);
    const bool is_short = p.chunks <= SHORT_WARPS * MAX_CHUNKS / 2;
    p.run = is_short ? choose_kernel<MAX_CHUNKS / 2>(a) : choose_kernel<MAX_CHUNKS>(a);
    p.slices =
        min(divide_up(p.chunks, is_short ? MAX_CHUNKS / 2 : MAX_CHUNKS), (uint32_t)MAX_WARPS);
    const uint32_t none = lay_out(a, 0).end, unit = lay_out(a, 1).end - none;
    const uint32_t weights = a.product.n_blocks * BLOCK_BYTES * (a.product.gated ? 2 : 1);
    const uint32_t room = (device.shared_bytes - OWN_BYTES - none) / unit;
    const uint32_t by_weights = min(room, (uint32_t)WEIGHT_BYTES / weights);
    const uint32_t most = max(min(by_weights, p.slices * WARP / TILE_ROWS), 1u);
    p.blocks = max(divide_up(p.units, most), min(p.units, device.processors));
    p.bytes = lay_out(a, divide_up(p.units, p.blocks)).end;
    return p;
}
} // namespace

bool decode_groups_fits(const struct decode_product *step, const struct decode_device *device)
{
    return lay_out(*step, 1).end + OWN_BYTES <= device->shared_bytes;
}

cudaError_t decode_groups_launch(const struct decode_product *step,
                                 const struct decode_device *device, cudaStream_t stream)
{
    return launch(choose_plan(*step, *device), *step, *device, stream);
}
