// SPDX-License-Identifier: MIT
// The products of one token of which decode_product.cu's are the simplest kind: scales by row, or by
// row and group of columns, activations of 8 or 16 bits, biases (bnt.md sections 5 and 5.1).
//
// The order of work is the same. The other operand of the tensor cores has eight columns, of which
// the four blocks of a chunk take four; the lower bytes of 16-bit activations take the others, so
// that both bytes cost one decoding and no more products. Weights are signed bytes, so that sums need
// no correction. A group's sums meet in shared memory as integers, become floats there, each times
// its scale, and are added up in the order of the groups by one thread a row.
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/decode_slices.cuh"
#include "runtime/cuda/scales.cuh"

namespace
{
// Where sums go: by row; by group of whole chunks; by group of blocks.
enum kind { BY_ROW, BY_CHUNKS, BY_BLOCKS };

// Where a row's product goes, and what is done to it.
struct alignas(16) target {
    float *out;           // NULL for padding
    float scale, up_scale; // γ or that of the row
    float bias, up_bias;
    float old; // what is added
};

// Dynamic shared memory, in bytes from its start.
struct layout {
    uint32_t weights, scales, sums, targets, end;
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

// units: tiles, or pairs of a gate tile and an up tile. Behind weights is what is read in vain.
__host__ __device__ layout lay_out(const decode_product &a, uint32_t units)
{
    const uint32_t n_tiles = a.product.gated ? 2 * units : units;
    const uint32_t chunks = divide_up(a.product.n_blocks, CHUNK_BLOCKS);
    layout l;
    l.weights = a.in.norm ? chunks * BNT_CUDA_CHUNK_COLS * (uint32_t)sizeof(float) : 0;
    l.scales = l.weights + n_tiles * a.product.n_blocks * BLOCK_BYTES + MAX_CHUNKS * CHUNK_BYTES;
    l.sums = l.scales + n_tiles * scale_bytes(a.product);
    l.targets = l.sums + n_tiles * sum_bytes(a);
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
        const uint32_t end = p + 1 < a.product.n_parts ? a.product.parts[p + 1].first_tile
                                                       : a.product.n_tiles;
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

// A lane's part of a chunk's sums. See shared_lane: an operand's rows belong to the first two of the
// lane's four rows, or, for the second half of the columns, to the last two.
template <bool WIDE> struct chunk_sums {
    int of[2][4];

    __device__ __forceinline__ void multiply(uint4 w, uint4 x)
    {
        const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
        for (int o = 0; o < 2; o++) {
            const uint32_t u = words[2 * o], v = words[2 * o + 1];
            mma_weights(of[o], signed_weights<0>(u), signed_weights<0>(v), signed_weights<1>(u),
                        signed_weights<1>(v), x.x, x.y);
            mma_weights(of[o], signed_weights<2>(u), signed_weights<2>(v), signed_weights<3>(u),
                        signed_weights<3>(v), x.z, x.w);
        }
    }

    // Two rows of operand o, of the lane's block.
    __device__ __forceinline__ int2 pick(int o, bool odd) const
    {
        return make_int2(odd ? of[o][1] : of[o][0], odd ? of[o][3] : of[o][2]);
    }
};

// What a lane does with sums.
struct sum_lane {
    bool odd, is_last; // see shared_lane
    uint32_t t;
    uint32_t row;       // of the first of two rows
    uint32_t other_row; // of two more, in 16 bits
    uint32_t whole_row; // of the one that a lane has when blocks are put together
    bool is_upper;      // byte, in 16 bits
    bool stores;        // what is put together
    uint32_t block;     // of the chunk's four
};

template <bool WIDE> __device__ __forceinline__ sum_lane find_sum_lane()
{
    const shared_lane at = find_shared_lane();
    const uint32_t t = threadIdx.x % 4, first = threadIdx.x / 4 % 4 * 4;
    sum_lane s;
    s.odd = at.odd;
    s.is_last = at.is_last;
    s.t = t;
    s.is_upper = t < 2;
    s.block = t % 2 * 2 + at.odd;
    if (WIDE) {
        s.row = first + t % 2 * 2;
        s.other_row = first + 2 - t % 2 * 2;
        s.whole_row = s.row + at.odd;
        s.stores = t < 2;
    } else {
        s.row = at.row;
        s.other_row = 0;
        s.whole_row = at.row + (t >= 2);
        s.stores = !at.odd;
    }
    return s;
}

// The sum of all four blocks for one row, whole_row; in 16 bits of the lane's byte.
template <bool WIDE>
__device__ __forceinline__ int join_blocks(const chunk_sums<WIDE> &s, const sum_lane &at)
{
    if (WIDE) {
        int2 own = s.pick(0, at.odd);
        const int2 given = s.pick(1, at.odd); // rows that are the neighbour's own
        own.x += __shfl_xor_sync(FULL_WARP, given.x, 1);
        own.y += __shfl_xor_sync(FULL_WARP, given.y, 1);
        const int other = __shfl_xor_sync(FULL_WARP, at.odd ? own.x : own.y, 16);
        return (at.odd ? own.y : own.x) + other;
    }
    const int2 two = at.is_last ? s.pick(1, at.odd) : s.pick(0, at.odd);
    int v = at.is_last ? two.y : two.x;
    v += __shfl_xor_sync(FULL_WARP, at.is_last ? two.x : two.y, 3);
    return v + __shfl_xor_sync(FULL_WARP, v, 16);
}

// Sums of whole rows: (parts, n_tiles · 16). to: of the tile.
template <bool WIDE>
__device__ __forceinline__ void add_rows(int *to, uint32_t n_rows, const chunk_sums<WIDE> &s,
                                         const sum_lane &at)
{
    const int v = join_blocks<WIDE>(s, at) >> SIGNED_BITS;
    if (WIDE)
        atomicAdd(to + (at.is_upper ? 0 : n_rows) + at.whole_row, v);
    else if (at.stores)
        atomicAdd(to + at.whole_row, v);
}

// Sums of a chunk in one group, (16) rows.
template <bool WIDE>
__device__ __forceinline__ void add_chunk(int *to, const chunk_sums<WIDE> &s, const sum_lane &at,
                                          bool has_place)
{
    int v = join_blocks<WIDE>(s, at);
    if (WIDE) {
        v = at.is_upper ? v << 8 : v;
        v += __shfl_xor_sync(FULL_WARP, v, 2);
    }
    if (at.stores && has_place)
        atomicAdd(to + at.whole_row, v >> SIGNED_BITS);
}

// Sums of the lane's own block, whose group is at to.
template <bool WIDE>
__device__ __forceinline__ void add_block(int *to, const chunk_sums<WIDE> &s, const sum_lane &at)
{
    const int shift = WIDE && at.is_upper ? 8 : 0;
    int2 two = WIDE || !at.is_last ? s.pick(0, at.odd) : s.pick(1, at.odd);
    atomicAdd(to + at.row, (two.x >> SIGNED_BITS) << shift);
    atomicAdd(to + at.row + 1, (two.y >> SIGNED_BITS) << shift);
    if (!WIDE)
        return;
    two = s.pick(1, at.odd);
    atomicAdd(to + at.other_row, (two.x >> SIGNED_BITS) << shift);
    atomicAdd(to + at.other_row + 1, (two.y >> SIGNED_BITS) << shift);
}

// Where sums are put: of the block's first tile.
struct sum_place {
    int *sums;
    uint32_t tile;     // ints from a tile to the next
    uint32_t n_rows;   // of all tiles, where KIND is BY_ROW
    uint32_t n_groups; // else
};

// Where the sums of some chunks go in a tile; −1: nowhere.
template <int CHUNKS> struct group_places {
    int at[CHUNKS];
};

template <int CHUNKS, kind KIND>
__device__ __forceinline__ group_places<CHUNKS> find_groups(const bnt_cuda_product &p,
                                                            uint32_t chunk, uint32_t left,
                                                            const sum_lane &at)
{
    group_places<CHUNKS> to;
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
        const uint32_t block = (chunk + i) * CHUNK_BLOCKS + (KIND == BY_BLOCKS ? at.block : 0);
        const uint32_t group = KIND == BY_ROW ? 0 : block / p.group_blocks;
        to.at[i] = i < left && group < p.n_groups ? (int)(group * TILE_ROWS) : -1;
    }
    return to;
}

// Some chunks, from the first on, of two tiles (or the first of them alone), times the slice.
template <int CHUNKS, bool WIDE, kind KIND>
__device__ __forceinline__ void
multiply_tiles(const sum_place &to, const group_places<CHUNKS> &groups, uint32_t tile, bool is_pair,
               const uint8_t *first, const uint8_t *second, uint32_t tile_bytes,
               const uint4 (&x)[CHUNKS], const sum_lane &at)
{
    chunk_sums<WIDE> s[2] = {};
    const uint32_t to_second = is_pair ? tile_bytes : 0;
    int *sums = to.sums + tile * to.tile;
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (uint32_t t = 0; t < 2; t++) {
            const uint32_t offset = t * to_second + i * CHUNK_BYTES;
            const uint2 a = *reinterpret_cast<const uint2 *>(first + offset);
            const uint2 b = *reinterpret_cast<const uint2 *>(second + offset);
            s[t].multiply(make_uint4(a.x, a.y, b.x, b.y), x[i]);
        }
        if constexpr (KIND != BY_ROW) {
#pragma unroll
            for (uint32_t t = 0; t < 2; t++) {
                const bool has_place = groups.at[i] >= 0 && (t == 0 || is_pair);
                int *place = sums + t * to.tile + groups.at[i];
                if (KIND == BY_CHUNKS)
                    add_chunk<WIDE>(place, s[t], at, has_place);
                else if (has_place)
                    add_block<WIDE>(place, s[t], at);
                s[t] = {};
            }
        }
    }
    if constexpr (KIND == BY_ROW) {
#pragma unroll
        for (uint32_t t = 0; t < 2; t++)
            if (t == 0 || is_pair)
                add_rows<WIDE>(to.sums + (tile + t) * TILE_ROWS, to.n_rows, s[t], at);
    }
}

// --- what comes out ---

// By all threads: each group's sum becomes its float times its scale, in place.
__device__ __forceinline__ void scale_groups(const decode_product &a, int *sums, const void *scales,
                                             uint32_t n_tiles)
{
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
            make_float4(__fmul_rn(by.x, (float)v.x), __fmul_rn(by.y, (float)v.y),
                        __fmul_rn(by.z, (float)v.z), __fmul_rn(by.w, (float)v.w));
    }
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
    float sum = 0;
#pragma unroll 8
    for (uint32_t g = 0; g < from.n_groups; g++)
        sum = __fadd_rn(sum, at[g * TILE_ROWS]);
    return sum;
}

__device__ __forceinline__ float finish_row(const decode_product &a, const target &to, float sum,
                                            float up_sum, float x_scale)
{
    const float v =
        __fadd_rn(finish_sum(sum, a.product.n_groups, to.scale, x_scale), to.bias);
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
    __shared__ __align__(16) int8_t
        quantized[MAX_WARPS][(WIDE ? 2 : 1) * CHUNKS * BNT_CUDA_CHUNK_COLS];
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
    for (uint32_t i = norm_runs + thread; i * sizeof(float4) < l.weights; i += blockDim.x)
        norm[i] = make_float4(0, 0, 0, 0);
    sum_place sums;
    sums.sums = reinterpret_cast<int *>(dynamic + l.sums);
    sums.tile = a.product.n_groups * TILE_ROWS;
    sums.n_rows = n_tiles * TILE_ROWS;
    sums.n_groups = a.product.n_groups;
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
    const shared_lane at = find_shared_lane();
    const sum_lane sum_at = find_sum_lane<WIDE>();
    const uint32_t column = part.first * BNT_CUDA_CHUNK_COLS + lane * 4;
    const float *x_at = a.in.x + column;
    uint32_t left = column < a.in.n ? (a.in.n - column - 1) / BNT_CUDA_CHUNK_COLS + 1 : 0;
    left = min(left, part.count);
    uint32_t first = l.weights + part.first * CHUNK_BYTES + at.first;
    uint32_t second = l.weights + part.first * CHUNK_BYTES + at.second;
    uint32_t has_norm = a.in.norm != NULL;
    uint32_t tile_bytes = a.product.n_blocks * BLOCK_BYTES;
    keep(x_at);
    keep(left);
    keep(first);
    keep(second);
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
    const float scale = WIDE ? 32512.0f / fmaxf(factors.largest, 1e-30f)
                             : 127.0f / fmaxf(factors.largest, 1e-5f);
    const float factor = factors.norm * scale;
    const uint32_t lane_part = WIDE ? lane / 16 * CHUNKS * BNT_CUDA_CHUNK_COLS : 0;
#pragma unroll 1
    for (uint32_t done = 0; done < part.count; done += CHUNKS) {
        if (part.count > CHUNKS) {
            const uint32_t rest = left - min(left, done);
            x.ask(x_at + done * BNT_CUDA_CHUNK_COLS, rest);
            x.weigh(has_norm ? norm + done * WARP : NULL, rest, &t);
        }
        quantize<CHUNKS, WIDE>(x, reinterpret_cast<uint32_t *>(quantized[warp]) + lane, factor);
        // Sums of groups are not kept from chunk to chunk, and two of them are enough at once.
        constexpr int AT_ONCE = KIND == BY_ROW ? CHUNKS : 2;
#pragma unroll 1
        for (uint32_t from = 0; from < min((uint32_t)CHUNKS, part.count - done); from += AT_ONCE) {
            uint4 q[AT_ONCE];
#pragma unroll
            for (uint32_t i = 0; i < AT_ONCE; i++)
                q[i] = at.has_x
                           ? *reinterpret_cast<const uint4 *>(
                                 quantized[warp] + lane_part +
                                 (from + i) * BNT_CUDA_CHUNK_COLS + at.x_offset)
                           : make_uint4(0, 0, 0, 0);
            const group_places<AT_ONCE> groups = find_groups<AT_ONCE, KIND>(
                a.product, part.first + done + from, part.count - done - from, sum_at);
            const uint8_t *tiles = dynamic + (done + from) * CHUNK_BYTES;
#pragma unroll 1
            for (uint32_t i = 0; i < n_tiles; i += 2, tiles += 2 * tile_bytes)
                multiply_tiles<AT_ONCE, WIDE, KIND>(sums, groups, i, i + 1 < n_tiles, tiles + first,
                                                    tiles + second, tile_bytes, q, sum_at);
        }
    }
    __syncthreads();
    if (KIND != BY_ROW) {
        scale_groups(a, sums.sums, dynamic + l.scales, n_tiles);
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
    return p.n_groups <= 1                    ? multiply_input<CHUNKS, WIDE, BY_ROW>
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
    const uint32_t room = min(device.shared_bytes - OWN_BYTES - none, (uint32_t)WEIGHT_BYTES);
    const uint32_t most = max(min(room / unit, p.slices * WARP / TILE_ROWS), 1u);
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
