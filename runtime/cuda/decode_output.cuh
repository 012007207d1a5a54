// SPDX-License-Identifier: MIT
// The output layer of the decoding kernel: the final norm, the matrix row by row, the likeliest
// token.
//
// Where the file has an int8 copy of the matrix (bnt.md section 7), half the bytes give every token
// a score and a bound on its distance from the logit, as in runtime/shortlist.c. The k-th greatest
// lower bound is a threshold below which a token is not among the k likeliest; blocks share the
// greatest of each half of their rows and take the k-th of those, which is no greater. Only rows
// whose upper bound reaches it are then computed from the matrix itself, in the same order of
// additions as without the copy.
#ifndef BNT_RUNTIME_CUDA_DECODE_OUTPUT_CUH
#define BNT_RUNTIME_CUDA_DECODE_OUTPUT_CUH

#include <float.h>

#include "runtime/cuda/decode_input.cuh"
#include "runtime/cuda/rank.cuh"
#include "runtime/cuda/ring.cuh"

// --- what the rows are multiplied with ---

// The normed vector in the order in which lanes read it, and its 16-bit form, high and low bytes
// apart. Nothing else needs that memory any more.
struct output_room {
    float4 *x;
    int8_t *high;
    uint8_t *low;
};

static __device__ __forceinline__ output_room find_output_room(const block &b)
{
    return {reinterpret_cast<float4 *>(b.y) + bnt_cuda_pad(b.a.hidden / 4, 4), b.quantized,
            reinterpret_cast<uint8_t *>(b.x)};
}

// Where values 4 i … 4 i + 3 stand: of each 512 bytes of a row a lane has 16, which are 4 or 8
// values.
static __device__ __forceinline__ uint32_t run_place(const decode_args &a, uint32_t i)
{
    if (a.wide)
        return i;
    return i / (2 * WARP) * (2 * WARP) + i % 2 * WARP + i % (2 * WARP) / 2;
}

// y times the norm's factor, as the lanes will read it.
static __device__ void arrange_output(const block &b, float factor)
{
    float4 *to = find_output_room(b).x;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < b.a.hidden / 4; i += THREADS)
        to[run_place(b.a, i)] = times(reinterpret_cast<const float4 *>(b.y)[i],
                                      make_float4(factor, factor, factor, factor));
    __syncthreads();
}

// --- rows of the matrix itself ---

static __device__ __forceinline__ float2 bf16_pair(uint32_t word)
{
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u));
}

static __device__ __forceinline__ float dot_bf16(uint4 w, float4 x0, float4 x1, float sum)
{
    float2 a = bf16_pair(w.x), b = bf16_pair(w.y), c = bf16_pair(w.z), d = bf16_pair(w.w);
    sum = fmaf(a.x, x0.x, fmaf(a.y, x0.y, fmaf(b.x, x0.z, fmaf(b.y, x0.w, sum))));
    return fmaf(c.x, x1.x, fmaf(c.y, x1.y, fmaf(d.x, x1.z, fmaf(d.y, x1.w, sum))));
}

static __device__ __forceinline__ float dot_f32(uint4 w, float4 x, float sum)
{
    return fmaf(__uint_as_float(w.x), x.x,
                fmaf(__uint_as_float(w.y), x.y,
                     fmaf(__uint_as_float(w.z), x.z, fmaf(__uint_as_float(w.w), x.w, sum))));
}

// 16 bytes of a row, the part-th 512 of it, times x.
static __device__ __forceinline__ float dot_part(const decode_args &a, uint4 w, const float4 *x,
                                                 uint32_t part, uint32_t lane, float sum)
{
    if (part * HALF_PIECE + lane * 16 >= a.row_bytes)
        return sum;
    if (a.wide)
        return dot_f32(w, x[part * WARP + lane], sum);
    return dot_bf16(w, x[part * 2 * WARP + lane], x[(part * 2 + 1) * WARP + lane], sum);
}

template <class Ring> static __device__ unsigned long long multiply_rows(Ring &ring, const block &b)
{
    const decode_args &a = b.a;
    const share &mine = b.small->shares[OUTPUT_ROWS][b.warp];
    const uint32_t pieces = a.segments[OUTPUT_ROWS].pieces;
    const float4 *x = find_output_room(b).x;
    const lane_parts parts = row_parts(b.lane);
    unsigned long long best = 0;
    uint32_t row = mine.tile;
    for (uint32_t left = mine.count; left > 0; left -= pieces, row++) {
        float sum0 = 0, sum1 = 0;
        for (uint32_t p = 0; p < pieces; p++) {
            uint4 w[2];
            ring.take(w, parts);
            sum0 = dot_part(a, w[0], x, 2 * p, b.lane, sum0);
            sum1 = dot_part(a, w[1], x, 2 * p + 1, b.lane, sum1);
            ring.release();
        }
        const float sum = warp_sum(sum0 + sum1);
        if (b.lane == 0)
            a.logits[row] = sum;
        best = max(best, rank_of(sum, row));
    }
    return best;
}

// --- rows of the int8 copy ---

// What the bound on a row needs; as in runtime/shortlist.c, with this kernel's order of additions:
// each product goes through at most row / 32 + 8 roundings.
struct shortlist {
    float step;   // of the 16-bit form
    float margin; // the bound over the row's scale
    float reach;  // what the logit's partial sums stay below, over the row's scale
};

static __device__ float reduce_one(const block &b, float v, bool is_sum)
{
    v = is_sum ? warp_sum(v) : warp_max(v);
    __syncthreads();
    if (b.lane == 0)
        b.small->reduced[b.warp] = v;
    __syncthreads();
    v = b.small->reduced[0];
    for (int i = 1; i < WARPS; i++)
        v = is_sum ? v + b.small->reduced[i] : fmaxf(v, b.small->reduced[i]);
    return v;
}

static __device__ __forceinline__ uint32_t round_to_16_bits(float v, float step)
{
    return (uint32_t)(int)fminf(fmaxf(rintf(__fdiv_rn(v, step)), -32767.0f), 32767.0f);
}

static __device__ shortlist prepare_shortlist(const block &b)
{
    const decode_args &a = b.a;
    const output_room room = find_output_room(b);
    float sum = 0, max = 0;
    for (uint32_t i = threadIdx.x; i < a.hidden / 4; i += THREADS) {
        const float4 v = room.x[run_place(a, i)];
        sum += fabsf(v.x) + fabsf(v.y) + fabsf(v.z) + fabsf(v.w);
        max = fmaxf(max, largest(v));
    }
    sum = reduce_one(b, sum, true) * (1 + 0x1p-16f); // its own roundings
    max = reduce_one(b, max, false);
    const bool helps = max > FLT_MIN * 65536 && sum < FLT_MAX; // else all rows are candidates
    shortlist list;
    list.step = helps ? __fdiv_rn(max, 32767.0f) : 1.0f;
    const double roundings = (a.hidden / 32 + 8) * 0x1p-24, gamma = roundings / (1 - roundings);
    const double margin = (0.5 + 0x1p-16 + 127.01 * gamma) * (double)sum +
                          127 * (double)a.hidden * 0.51 * (double)list.step;
    list.margin = (float)(margin * (1 + 0x1p-20));
    list.reach = helps ? 128 * sum : INFINITY;
    for (uint32_t i = threadIdx.x; i < a.hidden / 4; i += THREADS) {
        const float4 v = room.x[run_place(a, i)];
        const uint32_t x = round_to_16_bits(v.x, list.step), y = round_to_16_bits(v.y, list.step);
        const uint32_t z = round_to_16_bits(v.z, list.step), w = round_to_16_bits(v.w, list.step);
        reinterpret_cast<uint32_t *>(room.low)[i] = pack_bytes(x, y, z, w);
        reinterpret_cast<uint32_t *>(room.high)[i] = pack_bytes(x >> 8, y >> 8, z >> 8, w >> 8);
    }
    __syncthreads();
    return list;
}

static __device__ __forceinline__ float bound(const shortlist &list, float score, float scale)
{
    if (!(scale * list.reach < FLT_MAX))
        return INFINITY;
    return scale * list.margin + fabsf(score) * 0x1p-20f + 1e-30f;
}

struct int8_sums {
    int high, low;
};

static __device__ __forceinline__ int dot_low(uint32_t w, uint32_t low, int sum)
{
    asm("dp4a.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(w), "r"(low));
    return sum;
}

// 16 weights of a row, the part-th 512 of it.
static __device__ __forceinline__ void dot_int8(int8_sums &s, uint4 w, const output_room &room,
                                                uint32_t part, uint32_t lane, uint32_t hidden)
{
    const uint32_t at = part * HALF_PIECE + lane * 16;
    if (at >= hidden)
        return;
    const uint4 high = *reinterpret_cast<const uint4 *>(room.high + at);
    const uint4 low = *reinterpret_cast<const uint4 *>(room.low + at);
    s.high = __dp4a((int)w.x, (int)high.x, s.high);
    s.high = __dp4a((int)w.y, (int)high.y, s.high);
    s.high = __dp4a((int)w.z, (int)high.z, s.high);
    s.high = __dp4a((int)w.w, (int)high.w, s.high);
    s.low = dot_low(w.x, low.x, s.low);
    s.low = dot_low(w.y, low.y, s.low);
    s.low = dot_low(w.z, low.z, s.low);
    s.low = dot_low(w.w, low.w, s.low);
}

// The scores of the warp's rows, 32 at a time, into logits. Returns the lane's greatest lower
// bound.
template <class Ring>
static __device__ float score_rows(Ring &ring, const block &b, const shortlist &list)
{
    const decode_args &a = b.a;
    const share &mine = b.small->shares[OUTPUT_ROWS][b.warp];
    const uint32_t pieces = a.segments[OUTPUT_ROWS].pieces, rows = mine.count / pieces;
    const output_room room = find_output_room(b);
    const lane_parts parts = row_parts(b.lane);
    float best = -INFINITY;
#pragma unroll 1
    for (uint32_t from = 0; from < rows; from += WARP) {
        const uint32_t own = mine.tile + from + b.lane, count = min(rows - from, (uint32_t)WARP);
        const float scale = b.lane < count ? __ldg(a.output_scale + own) : 0;
        float score = 0;
#pragma unroll 1
        for (uint32_t r = 0; r < count; r++) {
            int8_sums s = {0, 0};
#pragma unroll 1
            for (uint32_t p = 0; p < pieces; p++) {
                uint4 w[2];
                ring.take(w, parts);
                dot_int8(s, w[0], room, 2 * p, b.lane, a.hidden);
                dot_int8(s, w[1], room, 2 * p + 1, b.lane, a.hidden);
                ring.release();
            }
            __syncwarp();
            const long long sum =
                __reduce_add_sync(FULL_WARP, s.high) * 256ll + __reduce_add_sync(FULL_WARP, s.low);
            if (b.lane == r)
                score = (float)sum * (scale * list.step);
        }
        if (b.lane < count) {
            a.logits[own] = score;
            best = fmaxf(best, score - bound(list, score, scale));
        }
    }
    return best;
}

// The k-th greatest of what all blocks found, a little lowered.
static __device__ float find_threshold(const block &b, float best)
{
    const decode_args &a = b.a;
    const uint32_t mark = a.bounds_use & 1 ^ 1, n = 2 * gridDim.x;
    best = warp_max(best);
    if (b.lane == 0)
        b.small->reduced[b.warp] = best;
    __syncthreads();
    if (threadIdx.x < 2) {
        best = -INFINITY; // each row counts in one half alone
        for (int i = 0; i < WARPS / 2; i++)
            best = fmaxf(best, b.small->reduced[threadIdx.x * (WARPS / 2) + i]);
        publish_float(a.bounds + 2 * blockIdx.x + threadIdx.x, fmaxf(best, -FLT_MAX), mark);
    }
    float *all = b.small->bounds;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        all[i] = to_float(await_word(a.bounds + i, mark));
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        const float v = all[i];
        uint32_t above = 0, equal = 0;
        for (uint32_t j = 0; j < n; j++) {
            above += all[j] > v;
            equal += all[j] == v;
        }
        if (above < a.shortlist && above + equal >= a.shortlist)
            b.small->threshold = v;
    }
    __syncthreads();
    const float t = b.small->threshold;
    return t - fabsf(t) * 0x1p-20f - 1e-30f;
}

static __device__ float dot_row(const block &b, uint32_t row)
{
    const decode_args &a = b.a;
    const float4 *x = find_output_room(b).x;
    const uint8_t *from = a.matrix + (uint64_t)row * a.row_bytes + b.lane * 16;
    float sum[2] = {0, 0};
#pragma unroll 2
    for (uint32_t part = 0; part * HALF_PIECE < a.row_bytes; part += 4) {
        uint4 w[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const bool valid = (part + i) * HALF_PIECE + b.lane * 16 < a.row_bytes;
            w[i] = valid ? __ldg(reinterpret_cast<const uint4 *>(from + (part + i) * HALF_PIECE))
                         : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            sum[i % 2] = dot_part(a, w[i], x, part + i, b.lane, sum[i % 2]);
    }
    return warp_sum(sum[0] + sum[1]);
}

// The logits of the candidates; −infinity for the others.
static __device__ unsigned long long multiply_candidates(const block &b, const shortlist &list,
                                                         float threshold)
{
    const decode_args &a = b.a;
    const share &mine = b.small->shares[OUTPUT_ROWS][b.warp];
    const uint32_t rows = mine.count / a.segments[OUTPUT_ROWS].pieces;
    unsigned long long best = 0;
#pragma unroll 1
    for (uint32_t from = 0; from < rows; from += WARP) {
        const uint32_t own = mine.tile + from + b.lane;
        const bool valid = from + b.lane < rows;
        bool stays = false;
        if (valid) {
            const float score = a.logits[own];
            stays = !(score + bound(list, score, __ldg(a.output_scale + own)) < threshold);
        }
        float logit = -INFINITY;
        for (uint32_t left = __ballot_sync(FULL_WARP, stays); left; left &= left - 1) {
            const uint32_t r = __ffs(left) - 1, row = mine.tile + from + r;
            const float sum = dot_row(b, row);
            best = max(best, rank_of(sum, row));
            logit = b.lane == r ? sum : logit;
        }
        if (valid)
            a.logits[own] = logit;
    }
    return best;
}

// --- the choice ---

// The best of all blocks, by the last that comes.
static __device__ void choose_best(const block &b, unsigned long long best)
{
    const decode_args &a = b.a;
    if (b.lane == 0)
        b.small->best[b.warp] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 0; i < WARPS; i++)
            best = max(best, b.small->best[i]);
        a.block_best[blockIdx.x] = best;
        __threadfence();
        b.small->last = atomicAdd(a.arrived, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!b.small->last || b.warp > 0)
        return;
    __threadfence();
    best = 0;
#pragma unroll 1
    for (uint32_t i = b.lane; i < gridDim.x; i += WARP)
        best = max(best, *(volatile unsigned long long *)&a.block_best[i]);
    for (int step = WARP / 2; step > 0; step /= 2)
        best = max(best, __shfl_xor_sync(FULL_WARP, best, step));
    if (b.lane == 0) {
        *a.best = id_of(best);
        *a.arrived = 0;
    }
}

template <class Ring>
static __device__ void output_layer(Ring &ring, const block &b, const input &in)
{
    const totals t = gather(b, in);
    arrange_output(b, norm_factor(b.a, t.squares, b.a.hidden));
    unsigned long long best;
    if (b.a.shortlist) {
        const shortlist list = prepare_shortlist(b);
        const float lower = score_rows(ring, b, list);
        best = multiply_candidates(b, list, find_threshold(b, lower));
    } else {
        best = multiply_rows(ring, b);
    }
    choose_best(b, best);
}

#endif
