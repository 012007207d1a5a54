// SPDX-License-Identifier: MIT
// Attention of one token within the decoding kernel: parts of the positions by different blocks,
// then the parts put together.
#ifndef BNT_RUNTIME_CUDA_DECODE_ATTENTION_CUH
#define BNT_RUNTIME_CUDA_DECODE_ATTENTION_CUH

#include "runtime/cuda/decode_vectors.cuh"

static __device__ __noinline__ item find_item(const decode_args &a, uint32_t index)
{
    item t;
    const uint32_t split = index % a.splits, sub = index / a.splits % a.subgroups;
    const uint32_t count = a.position + 1, each = (count + a.splits - 1) / a.splits;
    t.index = index;
    t.kv = index / a.splits / a.subgroups;
    t.head = t.kv * a.group + sub * HEADS;
    t.heads = min(a.group - sub * HEADS, (uint32_t)HEADS);
    t.from = min(split * each, count);
    t.to = min(t.from + each, count);
    return t;
}

// Scratch of attention, in the room of y: queries (HEADS, row), scores (HEADS, POSITIONS), sums
// (WARPS, MAX_DIM at most).
struct attention_room {
    float *q, *scores, *sums;
};

static __device__ attention_room find_room(const block &b)
{
    attention_room r;
    r.q = b.y;
    r.scores = r.q + HEADS * b.a.cache_row;
    r.sums = r.scores + HEADS * POSITIONS;
    return r;
}

// Rotated queries into shared memory; the new key and value into the cache.
static __device__ void prepare_item(const block &b, const item &t, const uint32_t *qkv,
                                    uint32_t mark, const float *factor, float *keys, float *values)
{
    const decode_args &a = b.a;
    const uint32_t half = a.dim / 2, last = t.to == a.position + 1 && t.from < t.to;
    const float *cosine = b.angles, *sine = b.angles + half;
    const attention_room room = find_room(b);
    const float scale = 1.0f / sqrtf((float)a.dim);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < (t.heads + 2 * last) * half; i += THREADS) {
        const uint32_t head = i / half, e = i % half;
        const uint32_t what = head < t.heads ? Q : head == t.heads ? K : V;
        const uint32_t at = what == Q   ? (t.head + head) * a.dim
                            : what == K ? a.k_at + t.kv * a.dim
                                        : a.v_at + t.kv * a.dim;
        const uint2 sums = await_words(qkv + at + e, qkv + at + half + e, mark);
        float v0 = to_sum(sums.x) * factor[what], v1 = to_sum(sums.y) * factor[what];
        float r0 = v0 * cosine[e] - v1 * sine[e], r1 = v1 * cosine[e] + v0 * sine[e];
        const size_t row = ((size_t)t.kv * a.context + a.position) * a.cache_row;
        if (what == Q) {
            room.q[head * a.cache_row + e] = r0 * scale;
            room.q[head * a.cache_row + half + e] = r1 * scale;
        } else if (what == K) {
            keys[row + e] = r0;
            keys[row + half + e] = r1;
        } else {
            values[row + e] = v0;
            values[row + half + e] = v1;
        }
    }
    __syncthreads();
}

static __device__ __forceinline__ float dot4(float4 a, float4 b, float sum)
{
    return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
}

// Scores of positions from … from + n − 1: eight lanes a position.
static __device__ void score_positions(const block &b, const item &t, const float *keys,
                                       uint32_t from, uint32_t n)
{
    const decode_args &a = b.a;
    const attention_room room = find_room(b);
    const uint32_t part = threadIdx.x % 8;
#pragma unroll 1
    for (uint32_t p0 = 0; p0 < n; p0 += THREADS / 8) {
        const uint32_t p = p0 + threadIdx.x / 8;
        const float *key = keys + ((size_t)t.kv * a.context + from + min(p, n - 1)) * a.cache_row;
        float sum[HEADS] = {};
#pragma unroll 4
        for (uint32_t c = part; c < a.cache_row / 4; c += 8) {
            const float4 k = *reinterpret_cast<const float4 *>(key + c * 4);
#pragma unroll
            for (uint32_t h = 0; h < HEADS; h++) {
                if (h < t.heads)
                    sum[h] =
                        dot4(k, *reinterpret_cast<const float4 *>(room.q + h * a.cache_row + c * 4),
                             sum[h]);
            }
        }
        __syncwarp();
#pragma unroll
        for (uint32_t h = 0; h < HEADS; h++) {
            for (int step = 1; step < 8; step *= 2)
                sum[h] += __shfl_xor_sync(FULL_WARP, sum[h], step);
            if (part == h && h < t.heads && p < n)
                room.scores[h * POSITIONS + p] = sum[h];
        }
    }
    __syncthreads();
}

// Scores become weights relative to the largest so far: a warp a head.
static __device__ void weigh_positions(const block &b, const item &t, uint32_t n)
{
    if (b.warp < t.heads) {
        float *scores = find_room(b).scores + b.warp * POSITIONS;
        float old = b.small->head_max[b.warp], max = old, sum = 0;
#pragma unroll 1
        for (uint32_t p = b.lane; p < n; p += WARP)
            max = fmaxf(max, scores[p]);
        max = warp_max(max);
#pragma unroll 1
        for (uint32_t p = b.lane; p < n; p += WARP) {
            scores[p] = expf(scores[p] - max);
            sum += scores[p];
        }
        sum = warp_sum(sum);
        if (b.lane == 0) {
            float rescale = expf(old - max);
            b.small->head_rescale[b.warp] = rescale;
            b.small->head_max[b.warp] = max;
            b.small->head_sum[b.warp] = b.small->head_sum[b.warp] * rescale + sum;
        }
    }
    __syncthreads();
}

struct value_sums {
    float4 v[MAX_DIM / 128];
};

// A warp takes one head and every parts-th position; lane l the elements 4 l … 4 l + 3 of each 128.
static __device__ void add_values(const block &b, const item &t, const float *values, uint32_t from,
                                  uint32_t n, value_sums &sums)
{
    const decode_args &a = b.a;
    const uint32_t head = b.warp % t.heads, parts = WARPS / t.heads, part = b.warp / t.heads;
    if (part < parts) {
        const float *weights = find_room(b).scores + head * POSITIONS;
        const float rescale = b.small->head_rescale[head];
#pragma unroll
        for (uint32_t j = 0; j < MAX_DIM / 128; j++) {
            const uint32_t e = j * 128 + b.lane * 4;
            if (e >= a.dim)
                break;
            float4 s = sums.v[j];
            s = make_float4(s.x * rescale, s.y * rescale, s.z * rescale, s.w * rescale);
            const float *value = values + ((size_t)t.kv * a.context + from) * a.cache_row + e;
#pragma unroll 4
            for (uint32_t p = part; p < n; p += parts) {
                const float4 v = *reinterpret_cast<const float4 *>(value + (size_t)p * a.cache_row);
                s.x = fmaf(weights[p], v.x, s.x);
                s.y = fmaf(weights[p], v.y, s.y);
                s.z = fmaf(weights[p], v.z, s.z);
                s.w = fmaf(weights[p], v.w, s.w);
            }
            sums.v[j] = s;
        }
    }
    __syncthreads();
}

// An item's result: sums of values (HEADS, dim), the largest scores, the sums of weights.
static __device__ void publish_item(const block &b, const item &t, const value_sums &sums,
                                    uint32_t *to, uint32_t mark)
{
    const decode_args &a = b.a;
    float *room = find_room(b).sums;
    const uint32_t head = b.warp % t.heads, parts = WARPS / t.heads, part = b.warp / t.heads;
    if (part < parts) {
        for (uint32_t j = 0; j < MAX_DIM / 128; j++) {
            const uint32_t e = j * 128 + b.lane * 4;
            if (e < a.dim)
                *reinterpret_cast<float4 *>(room + (part * t.heads + head) * a.dim + e) = sums.v[j];
        }
    }
    __syncthreads();
    to += (size_t)t.index * (HEADS * a.dim + 2 * HEADS);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < HEADS * a.dim; i += THREADS) {
        float sum = 0;
        for (uint32_t p = 0; i < t.heads * a.dim && p < parts; p++)
            sum += room[p * t.heads * a.dim + i];
        publish_float(to + i, sum, mark);
    }
    if (threadIdx.x < HEADS) {
        publish_float(to + HEADS * a.dim + threadIdx.x, b.small->head_max[threadIdx.x], mark);
        publish_float(to + HEADS * a.dim + HEADS + threadIdx.x, b.small->head_sum[threadIdx.x],
                      mark);
    }
    __syncthreads();
}

static __device__ void attend(const block &b, const uint32_t *qkv, uint32_t *part, uint32_t mark,
                              const float *factor, uint32_t layer)
{
    const decode_args &a = b.a;
    float *keys = a.keys + layer * a.cache_layer, *values = a.values + layer * a.cache_layer;
#pragma unroll 1
    for (uint32_t i = blockIdx.x; i < a.n_kv_heads * a.subgroups * a.splits; i += gridDim.x) {
        const item t = i == blockIdx.x ? b.small->first_item : find_item(a, i);
        if (threadIdx.x < HEADS) {
            b.small->head_max[threadIdx.x] = -1e30f; // finite: a mark would make −infinity NaN
            b.small->head_sum[threadIdx.x] = 0;
        }
        prepare_item(b, t, qkv, mark, factor, keys, values);
        value_sums sums = {};
#pragma unroll 1
        for (uint32_t from = t.from; from < t.to; from += POSITIONS) {
            const uint32_t n = min(t.to - from, (uint32_t)POSITIONS);
            score_positions(b, t, keys, from, n);
            weigh_positions(b, t, n);
            add_values(b, t, values, from, n, sums);
        }
        publish_item(b, t, sums, part, mark);
    }
}

// Brings what the block will read of the cache near, while q is not there yet.
static __device__ __forceinline__ void prefetch_item(const block &b, uint32_t layer)
{
    const decode_args &a = b.a;
    if (blockIdx.x >= a.n_kv_heads * a.subgroups * a.splits)
        return;
    const item t = b.small->first_item;
    const size_t at = layer * a.cache_layer + ((size_t)t.kv * a.context + t.from) * a.cache_row;
    const size_t bytes = (size_t)(t.to - t.from) * a.cache_row * sizeof(float);
#pragma unroll 1
    for (size_t i = threadIdx.x * 128; i < bytes; i += THREADS * 128) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)(a.keys + at) + i));
        asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)(a.values + at) + i));
    }
}

static __device__ __noinline__ combination find_combination(const decode_args &a, uint32_t piece)
{
    const uint32_t head = piece * 4 / a.dim, e = piece * 4 % a.dim;
    const uint32_t in_group = head % a.group, sub = in_group / HEADS;
    const uint32_t stride = HEADS * a.dim + 2 * HEADS;
    const uint32_t item = (head / a.group * a.subgroups + sub) * a.splits * stride;
    return {piece, item + in_group % HEADS * a.dim + e, item + HEADS * a.dim, in_group % HEADS};
}

// The pieces of the attention's result that the block puts together: from … end − 1.
static __device__ __forceinline__ uint32_t first_piece(const decode_args &a, uint32_t of)
{
    return a.q_size / 4 * of / gridDim.x;
}

static __device__ __forceinline__ uint32_t word_of(uint4 v, uint32_t i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// The norms of the next layer, each block its share of the lines.
static __device__ __forceinline__ void prefetch_norms(const decode_args &a, uint32_t layer)
{
    const uint64_t line = blockIdx.x + (uint64_t)threadIdx.x * gridDim.x;
    if (layer < a.n_layers && line < a.norm_stride / 32)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(a.norms + layer * a.norm_stride + line * 32));
}

// Four elements by a warp, a lane a part.
static __device__ __forceinline__ void combine_piece(const block &b, const combination &c,
                                                     const uint32_t *part, uint32_t *att,
                                                     uint32_t mark)
{
    const decode_args &a = b.a;
    const uint32_t stride = HEADS * a.dim + 2 * HEADS;
    float max = -1e30f, sum[5] = {};
#pragma unroll 1
    for (uint32_t first = 0; first < a.splits; first += WARP) {
        float m = -1e30f, now[5] = {};
        if (first + b.lane < a.splits) {
            const uint32_t *from = part + (size_t)(first + b.lane) * stride;
            const uint32_t *const pieces_at[3] = {from + c.values, from + c.totals,
                                                  from + c.totals + HEADS};
            uint4 got[3];
            await(got, pieces_at, mark);
            m = to_float(word_of(got[1], c.head));
            now[0] = to_float(word_of(got[2], c.head));
            now[1] = to_float(got[0].x);
            now[2] = to_float(got[0].y);
            now[3] = to_float(got[0].z);
            now[4] = to_float(got[0].w);
        }
        __syncwarp();
        const float new_max = fmaxf(max, warp_max(m));
        const float old = expf(max - new_max), factor = expf(m - new_max);
        max = new_max;
        __syncwarp();
#pragma unroll
        for (int j = 0; j < 5; j++)
            now[j] *= factor;
#pragma unroll
        for (int step = WARP / 2; step > 0; step /= 2) {
#pragma unroll
            for (int j = 0; j < 5; j++)
                now[j] += __shfl_xor_sync(FULL_WARP, now[j], step);
        }
#pragma unroll
        for (int j = 0; j < 5; j++)
            sum[j] = sum[j] * old + now[j];
    }
    if (b.lane < 4) {
        float v = b.lane == 0 ? sum[1] : b.lane == 1 ? sum[2] : b.lane == 2 ? sum[3] : sum[4];
        publish_float(att + c.piece * 4 + b.lane, __fdividef(v, sum[0]), mark);
    }
}

// The parts of all positions put together.
static __device__ __forceinline__ void combine(const block &b, const uint32_t *part, uint32_t *att,
                                               uint32_t mark)
{
    const decode_args &a = b.a;
    combination c = b.small->first_combination[b.warp];
    const uint32_t end = first_piece(a, blockIdx.x + 1);
#pragma unroll 1
    while (c.piece < end) {
        combine_piece(b, c, part, att, mark);
        if (c.piece + WARPS >= end)
            break;
        c = find_combination(a, c.piece + WARPS);
    }
}

#endif
