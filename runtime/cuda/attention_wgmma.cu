// SPDX-License-Identifier: MIT
// softmax(q·kᵀ / sqrt(head_dim)) v for a prompt by Hopper's warpgroup products, for code built for
// sm_90a.
//
// A block takes queries that share keys and values: those of all heads of a group, token after
// token. Two warpgroups turn tiles of 64 positions into operands, two others multiply: each its own
// 64 queries, or, where that would leave multiprocessors idle, both the same by every other tile,
// and what they have found is put together at the end.
//
// Each float32 operand is the sum of two float16 numbers, and three of the four products are
// summed, which keeps 21 bits: enough that what is quantized afterwards rounds as it would from
// float32. Queries, and tiles of keys and of values, are scaled by powers of two, so that float16
// can hold whatever float32 does: what is lost is below 2^-38 of the largest.
#include "runtime/cuda/ops.cuh"
#include "runtime/cuda/wgmma.cuh"

namespace
{
enum {
    QUERIES = 64, // of a warpgroup
    POSITIONS = 64,
    STAGES = 2,
    SLAB = 64,
    MULTIPLIERS = 2 * WARPGROUP, // threads
    CONVERTERS = 2 * WARPGROUP,
    CONVERTER_WARPS = CONVERTERS / WARP,
    THREADS = MULTIPLIERS + CONVERTERS,
    ALL_CONVERT = 1, // numbers of barriers
    ALL_MULTIPLY,
    OWN_MULTIPLY, // and the next
};

// Two halves of an operand, tile or queries: slabs of 64 columns, each row 128 bytes with its
// 16-byte pieces exchanged (see wgmma_rows).
template <int DIM> struct operand {
    __half high[DIM / SLAB][POSITIONS][SLAB], low[DIM / SLAB][POSITIONS][SLAB];
};
static_assert(QUERIES == POSITIONS, "one kind of operand");

template <int DIM> struct stage {
    operand<DIM> keys, values;
};

template <int DIM> struct tiles {
    stage<DIM> stages[STAGES];
    operand<DIM> queries[2];
};

// A power of two that brings values up to max into float16's range, and its inverse.
struct power {
    float up, down;
};

struct barriers {
    barrier keys_full[STAGES], keys_empty[STAGES], values_full[STAGES], values_empty[STAGES];
    float keys_down[STAGES];                 // what undoes the tile's scale
    power values_power[STAGES];              // the tile's scale
    uint32_t largest[2][2][CONVERTER_WARPS]; // keys or values, by turn, by warp
};

#ifdef BNT_HAS_WGMMA

__device__ __forceinline__ power find_power(uint32_t max_bits)
{
    const uint32_t exponent = max(max_bits >> 23, 30u);
    return {__uint_as_float((267 - exponent) << 23), __uint_as_float((exponent - 13) << 23)};
}

__device__ __forceinline__ uint32_t pack_halves(float a, float b)
{
    const __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t *>(&h);
}

struct split {
    uint32_t high, low; // two float16 each
};

__device__ __forceinline__ split split_pair(float a, float b)
{
    const float ha = __uint_as_float(__float_as_uint(a) & 0xFFFFE000u);
    const float hb = __uint_as_float(__float_as_uint(b) & 0xFFFFE000u);
    return {pack_halves(ha, hb), pack_halves(a - ha, b - hb)};
}

// What a converting thread has of a tile: pieces of four columns. A warp reads whole rows.
template <int DIM> struct pieces {
    enum { A_ROW = DIM / 4, COUNT = POSITIONS * A_ROW / CONVERTERS };
    float4 v[COUNT];

    __device__ __forceinline__ void load(const float *from, const bnt_cuda_cache &cache,
                                         uint32_t count, uint32_t dim)
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const uint32_t unit = i * CONVERTERS + threadIdx.x - MULTIPLIERS;
            const uint32_t r = unit / A_ROW, c = unit % A_ROW * 4;
            v[i] = r < count && c < dim
                       ? *reinterpret_cast<const float4 *>(from + (size_t)r * cache.row + c)
                       : make_float4(0, 0, 0, 0);
        }
    }

    __device__ __forceinline__ uint32_t max_bits() const
    {
        float max = 0;
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            max = fmaxf(max, fmaxf(fmaxf(fabsf(v[i].x), fabsf(v[i].y)),
                                   fmaxf(fabsf(v[i].z), fabsf(v[i].w))));
        return __float_as_uint(max);
    }

    __device__ __forceinline__ void store(operand<DIM> *to, float scale) const
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const uint32_t unit = i * CONVERTERS + threadIdx.x - MULTIPLIERS;
            const uint32_t r = unit / A_ROW, c = unit % A_ROW * 4;
            const split a = split_pair(v[i].x * scale, v[i].y * scale);
            const split b = split_pair(v[i].z * scale, v[i].w * scale);
            const uint32_t at = (c % SLAB / 8 ^ r % 8) * 8 + c % 8;
            *reinterpret_cast<uint2 *>(&to->high[c / SLAB][r][at]) = make_uint2(a.high, b.high);
            *reinterpret_cast<uint2 *>(&to->low[c / SLAB][r][at]) = make_uint2(a.low, b.low);
        }
    }
};

// The largest of all converting threads' values.
__device__ __forceinline__ uint32_t find_largest(uint32_t (&largest)[CONVERTER_WARPS],
                                                 uint32_t bits)
{
    bits = __reduce_max_sync(FULL_WARP, bits);
    if (threadIdx.x % WARP == 0)
        largest[threadIdx.x / WARP - MULTIPLIERS / WARP] = bits;
    sync_threads(ALL_CONVERT, CONVERTERS);
    for (int i = 0; i < CONVERTER_WARPS; i++)
        bits = max(bits, largest[i]);
    return bits;
}

// The converting warpgroups. While they work on a tile, the next is on its way. The scale of values
// never grows, so that sums already made need only be made smaller.
template <int DIM>
__device__ void produce(stage<DIM> *stages, barriers &b, const bnt_cuda_cache &cache, size_t head,
                        uint32_t dim, uint32_t end)
{
    const float *keys = cache.keys + head * cache.row, *values = cache.values + head * cache.row;
    pieces<DIM> k, v;
    uint32_t largest_value = 0;
    k.load(keys, cache, end, dim);
    v.load(values, cache, end, dim);
    for (uint32_t p0 = 0, turn = 0; p0 < end; p0 += POSITIONS, turn++) {
        const uint32_t slot = turn % STAGES, parity = (turn / STAGES + 1) % 2;
        const size_t next = (size_t)(p0 + POSITIONS) * cache.row;
        const uint32_t left = end - p0 < POSITIONS ? 0 : end - p0 - POSITIONS;
        const power for_keys = find_power(find_largest(b.largest[0][turn % 2], k.max_bits()));
        barrier_wait(&b.keys_empty[slot], parity);
        if (threadIdx.x == MULTIPLIERS)
            b.keys_down[slot] = for_keys.down;
        k.store(&stages[slot].keys, for_keys.up);
        wgmma_publish();
        barrier_arrive(&b.keys_full[slot]);
        k.load(keys + next, cache, left, dim);
        largest_value = max(largest_value, find_largest(b.largest[1][turn % 2], v.max_bits()));
        const power for_values = find_power(largest_value);
        barrier_wait(&b.values_empty[slot], parity);
        if (threadIdx.x == MULTIPLIERS)
            b.values_power[slot] = for_values;
        v.store(&stages[slot].values, for_values.up);
        wgmma_publish();
        barrier_arrive(&b.values_full[slot]);
        v.load(values + next, cache, left, dim);
    }
}

// A lane's two queries.
struct query {
    uint32_t token, head; // token >= m: none
};

struct lane_queries {
    query of[2];
    uint32_t row, t; // of the first in the operand, and the lane's columns
};

__device__ lane_queries find_queries(uint32_t group, uint32_t first_query)
{
    lane_queries q;
    q.row = threadIdx.x / WARP % 4 * 16 + threadIdx.x % WARP / 4;
    q.t = threadIdx.x % 4;
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t index = first_query + q.row + i * 8;
        q.of[i].token = index / group;
        q.of[i].head = blockIdx.x * group + index % group;
    }
    return q;
}

// Queries into shared memory; down: what undoes the scale of the lane's two.
template <int DIM>
__device__ __forceinline__ void convert_queries(operand<DIM> *to, float (&down)[2], const float *q,
                                                const lane_queries &at, bnt_cuda_heads heads,
                                                uint32_t m)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const bool valid = at.of[i].token < m;
        const float *from =
            q +
            ((size_t)(valid ? at.of[i].token : 0) * heads.n_heads + at.of[i].head) * heads.head_dim;
        float2 v[DIM / 8];
        float max = 0;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) {
            const uint32_t c = j * 8 + at.t * 2;
            v[j] = valid && c < heads.head_dim ? *reinterpret_cast<const float2 *>(from + c)
                                               : make_float2(0, 0);
            max = fmaxf(max, fmaxf(fabsf(v[j].x), fabsf(v[j].y)));
        }
        max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 1));
        max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 2));
        const power p = find_power(__float_as_uint(max));
        const uint32_t row = at.row + i * 8;
        down[i] = p.down;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) {
            const split s = split_pair(v[j].x * p.up, v[j].y * p.up);
            const uint32_t c = (j % 8 ^ row % 8) * 8 + at.t * 2;
            *reinterpret_cast<uint32_t *>(&to->high[j / 8][row][c]) = s.high;
            *reinterpret_cast<uint32_t *>(&to->low[j / 8][row][c]) = s.low;
        }
    }
}

__device__ __forceinline__ float power_of_two(float v)
{
    float to;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(to) : "f"(v));
    return to;
}

struct running {
    float max[2], sum[2]; // of the lane's queries
};

// Scores (times factor, in powers of two) become weights. Returns by what earlier sums are to be
// multiplied.
__device__ __forceinline__ void weigh(float (&scores)[POSITIONS / 2], const float (&factor)[2],
                                      running &r, float (&rescale)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float max = -INFINITY;
#pragma unroll
        for (int j = 0; j < POSITIONS / 4; j++)
            max = fmaxf(max, scores[j / 2 * 4 + i * 2 + j % 2]);
        max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 1));
        max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 2));
        max = fmaxf(r.max[i], max * factor[i]);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < POSITIONS / 4; j++) {
            float &s = scores[j / 2 * 4 + i * 2 + j % 2];
            s = power_of_two(fmaf(s, factor[i], -max));
            sum += s;
        }
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        rescale[i] = power_of_two(r.max[i] - max);
        r.sum[i] = r.sum[i] * rescale[i] + sum;
        r.max[i] = max;
    }
}

// scores (64 × 64) of the tile's keys.
template <int DIM>
__device__ __forceinline__ void score(float (&scores)[POSITIONS / 2], const operand<DIM> &q,
                                      const operand<DIM> &keys)
{
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        const uint64_t q_high = wgmma_rows(q.high[k / 4]) + k % 4 * 2;
        const uint64_t q_low = wgmma_rows(q.low[k / 4]) + k % 4 * 2;
        const uint64_t k_high = wgmma_rows(keys.high[k / 4]) + k % 4 * 2;
        const uint64_t k_low = wgmma_rows(keys.low[k / 4]) + k % 4 * 2;
        if (k == 0)
            wgmma_rows_first(scores, q_low, k_high);
        else
            wgmma_rows_add(scores, q_low, k_high);
        wgmma_rows_add(scores, q_high, k_low);
        wgmma_rows_add(scores, q_high, k_high);
    }
    wgmma_commit();
}

// sums (64 × DIM) += weights (64 × 64) · values.
template <int DIM>
__device__ __forceinline__ void
add_values(float (&sums)[DIM / 2], const uint32_t (&high)[POSITIONS / 16][4],
           const uint32_t (&low)[POSITIONS / 16][4], const operand<DIM> &values)
{
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < POSITIONS / 16; k++) {
        const uint64_t v_high = wgmma_columns(values.high[0][k * 16], sizeof values.high[0]);
        const uint64_t v_low = wgmma_columns(values.low[0][k * 16], sizeof values.low[0]);
        wgmma_columns_add(sums, low[k], v_high);
        wgmma_columns_add(sums, high[k], v_low);
        wgmma_columns_add(sums, high[k], v_high);
    }
    wgmma_commit();
}

// What a warpgroup has found for its queries: sums of values, scaled, by weights.
template <int DIM> struct result {
    float sums[DIM / 2], down;
    running r;
};

// Goes through every step-th tile from the first on.
template <int DIM>
__device__ __forceinline__ void
attend(result<DIM> &found, const tiles<DIM> &in, const operand<DIM> &queries,
       const float (&scale)[2], barriers &b, const lane_queries &at, uint32_t from, uint32_t step,
       uint32_t first, uint32_t seen_by_all, uint32_t end)
{
    const uint32_t own[2] = {first + at.of[0].token, first + at.of[1].token};
    for (uint32_t turn = from; turn * POSITIONS < end; turn += step) {
        const uint32_t slot = turn % STAGES, parity = turn / STAGES % 2, p0 = turn * POSITIONS;
        float scores[POSITIONS / 2], rescale[2];
        barrier_wait(&b.keys_full[slot], parity);
        const float factor[2] = {scale[0] * b.keys_down[slot], scale[1] * b.keys_down[slot]};
        score<DIM>(scores, queries, in.stages[slot].keys);
        wgmma_wait<0>();
        wgmma_take(scores);
        barrier_arrive(&b.keys_empty[slot]);
        if (p0 + POSITIONS > seen_by_all) {
#pragma unroll
            for (int j = 0; j < POSITIONS / 2; j++) {
                if (p0 + j / 4 * 8 + at.t * 2 + j % 2 > own[j / 2 % 2])
                    scores[j] = -INFINITY;
            }
        }
        weigh(scores, factor, found.r, rescale);
        uint32_t high[POSITIONS / 16][4], low[POSITIONS / 16][4];
#pragma unroll
        for (int j = 0; j < POSITIONS / 4; j++) {
            const split s = split_pair(scores[j * 2], scores[j * 2 + 1]);
            high[j / 4][j % 4] = s.high;
            low[j / 4][j % 4] = s.low;
        }
        barrier_wait(&b.values_full[slot], parity);
        const float smaller = found.down * b.values_power[slot].up;
        found.down = b.values_power[slot].down;
#pragma unroll
        for (int j = 0; j < DIM / 2; j++)
            found.sums[j] *= rescale[j / 2 % 2] * smaller;
        add_values<DIM>(found.sums, high, low, in.stages[slot].values);
        wgmma_wait<0>();
        wgmma_take(found.sums);
        barrier_arrive(&b.values_empty[slot]);
    }
}

// The second warpgroup leaves what it has found, the first adds it to its own. The second's last
// tile, or none if there was but one, was in the second stage.
template <int DIM> __device__ void put_together(result<DIM> &found, tiles<DIM> *shared)
{
    float *other = reinterpret_cast<float *>(&shared->stages[1]) + threadIdx.x % WARPGROUP;
    float *rest = other + DIM / 2 * WARPGROUP; // maxima and sums
    const bool second = threadIdx.x >= WARPGROUP;
    if (second) {
#pragma unroll
        for (int j = 0; j < DIM / 2; j++)
            other[j * WARPGROUP] = found.sums[j] * found.down;
        for (int i = 0; i < 2; i++) {
            rest[i * WARPGROUP] = found.r.max[i];
            rest[(2 + i) * WARPGROUP] = found.r.sum[i];
        }
    }
    sync_threads(ALL_MULTIPLY, MULTIPLIERS);
    if (second)
        return;
    float mine[2], theirs[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float max = fmaxf(found.r.max[i], rest[i * WARPGROUP]);
        mine[i] = power_of_two(found.r.max[i] - max);
        theirs[i] = power_of_two(rest[i * WARPGROUP] - max);
        found.r.sum[i] = found.r.sum[i] * mine[i] + rest[(2 + i) * WARPGROUP] * theirs[i];
        mine[i] *= found.down;
    }
#pragma unroll
    for (int j = 0; j < DIM / 2; j++)
        found.sums[j] = found.sums[j] * mine[j / 2 % 2] + other[j * WARPGROUP] * theirs[j / 2 % 2];
    found.down = 1;
}

template <int DIM>
__device__ void store(float *out, const result<DIM> &found, const lane_queries &at,
                      bnt_cuda_heads heads, uint32_t m)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (at.of[i].token >= m)
            continue;
        const float factor = found.down / found.r.sum[i];
        float *to = out + ((size_t)at.of[i].token * heads.n_heads + at.of[i].head) * heads.head_dim;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) {
            const uint32_t c = j * 8 + at.t * 2;
            if (c < heads.head_dim)
                *reinterpret_cast<float2 *>(to + c) = make_float2(
                    found.sums[j * 4 + i * 2] * factor, found.sums[j * 4 + i * 2 + 1] * factor);
        }
    }
}

template <int DIM>
__device__ __forceinline__ void consume(float *out, const float *q, tiles<DIM> *shared, barriers &b,
                                        bnt_cuda_heads heads, uint32_t first_query, bool together,
                                        uint32_t first, uint32_t m, uint32_t end)
{
    const uint32_t group = heads.n_heads / heads.n_kv_heads,
                   warpgroup =
                       __shfl_sync(FULL_WARP, threadIdx.x / WARPGROUP, 0); // the same in all lanes
    if (!together)
        first_query += warpgroup * QUERIES;
    const lane_queries at = find_queries(group, first_query);
    result<DIM> found = {{}, 1, {{-1e30f, -1e30f}, {0, 0}}};
    float scale[2];
    convert_queries<DIM>(&shared->queries[warpgroup], scale, q, at, heads, m);
    wgmma_publish();
    sync_threads(OWN_MULTIPLY + warpgroup, WARPGROUP);
    for (int i = 0; i < 2; i++)
        scale[i] *= 1.44269504f / sqrtf((float)heads.head_dim); // weights are powers of two
    attend<DIM>(found, *shared, shared->queries[warpgroup], scale, b, at, together ? warpgroup : 0,
                together ? 2 : 1, first, first + first_query / group + 1, end);
    if (together) {
        put_together<DIM>(found, shared);
        if (warpgroup > 0)
            return;
    }
    store<DIM>(out, found, at, heads, m);
}

template <int DIM>
__device__ __forceinline__ void run(float *out, const float *q, const bnt_cuda_cache &cache,
                                    bnt_cuda_heads heads, uint32_t first, uint32_t m, bool together)
{
    extern __shared__ uint8_t memory[];
    __shared__ barriers b;
    tiles<DIM> *shared = reinterpret_cast<tiles<DIM> *>(memory + (-shared_address(memory) & 1023));
    const uint32_t group = heads.n_heads / heads.n_kv_heads;
    const uint32_t queries = together ? QUERIES : 2 * QUERIES;           // of the block
    const uint32_t first_query = (gridDim.y - 1 - blockIdx.y) * queries; // the longest first
    const uint32_t last = min((first_query + queries - 1) / group, m - 1);
    const uint32_t end = first + last + 1; // positions that the last query sees
    let_next_start();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&b.keys_full[i], CONVERTERS);
            barrier_init(&b.keys_empty[i], together ? WARPGROUP : MULTIPLIERS);
            barrier_init(&b.values_full[i], CONVERTERS);
            barrier_init(&b.values_empty[i], together ? WARPGROUP : MULTIPLIERS);
        }
    }
    __syncthreads();
    wait_for_previous();
    if (threadIdx.x >= MULTIPLIERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 104;");
        produce<DIM>(shared->stages, b, cache, (size_t)blockIdx.x * cache.context, heads.head_dim,
                     end);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 152;");
        consume<DIM>(out, q, shared, b, heads, first_query, together, first, m, end);
    }
}

#endif

template <int DIM>
__global__ void __launch_bounds__(THREADS, 1)
    attention(float *out, const float *q, const __grid_constant__ bnt_cuda_cache cache,
              bnt_cuda_heads heads, uint32_t first, uint32_t m, bool together)
{
#ifdef BNT_HAS_WGMMA
    run<DIM>(out, q, cache, heads, first, m, together);
#endif
}

template <int DIM>
cudaError_t launch(float *out, const float *q, const bnt_cuda_cache *cache, bnt_cuda_heads heads,
                   uint32_t position, uint32_t m, bool together, cudaStream_t stream)
{
    const size_t bytes = sizeof(tiles<DIM>) + 1024;
    cudaError_t error = cudaFuncSetAttribute(
        attention<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error != cudaSuccess)
        return error;
    const uint32_t queries = m * (heads.n_heads / heads.n_kv_heads);
    const uint32_t a_block = together ? QUERIES : 2 * QUERIES;
    dim3 grid(heads.n_kv_heads, (queries + a_block - 1) / a_block);
    return launch_early(attention<DIM>, grid, dim3(THREADS), bytes, stream, out, q, *cache, heads,
                        position, m, together);
}
} // namespace

cudaError_t bnt_cuda_attention_wgmma(float *out, const float *q, const struct bnt_cuda_cache *cache,
                                     struct bnt_cuda_heads heads, uint32_t position, uint32_t m,
                                     cudaStream_t stream)
{
    int processors;
    cudaError_t error = find_attribute(cudaDevAttrMultiProcessorCount, &processors);
    if (error != cudaSuccess)
        return error;
    // Where there are hardly more blocks than multiprocessors, they had better be short.
    const uint64_t short_blocks = ((uint64_t)m * heads.n_heads + QUERIES - 1) / QUERIES;
    const uint64_t fit = (uint64_t)processors * (position < m ? 5 : 4) / 4;
    const bool together = short_blocks <= fit;
    return (heads.head_dim <= 64 ? launch<64> : launch<128>)(out, q, cache, heads, position, m,
                                                             together, stream);
}
