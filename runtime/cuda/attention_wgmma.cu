// SPDX-License-Identifier: MIT
// softmax(q·kᵀ / sqrt(head_dim)) v for a prompt by Hopper's warpgroup products, for code built for
// sm_90a.
//
// A block takes 64 queries that share keys and values: those of all heads of a group, token after
// token. Two warpgroups turn tiles of 64 positions into operands, a third multiplies. Each
// float32 operand is the sum of two float16 numbers, and three of the four products are summed,
// which keeps 21 bits: enough that what is quantized afterwards rounds as it would from float32.
// Queries, and tiles of keys and of values, are scaled by powers of two, so that float16 can hold
// whatever float32 does: what is lost is below 2^-38 of the largest.
#include "runtime/cuda/ops.cuh"
#include "runtime/cuda/wgmma.cuh"

namespace
{
enum {
    QUERIES = 64,
    POSITIONS = 64,
    STAGES = 2,
    SLAB = 64,
    CONVERTERS = 2 * WARPGROUP, // threads
    CONVERTER_WARPS = CONVERTERS / WARP,
    THREADS = WARPGROUP + CONVERTERS,
};

// Two halves of a tile's operand: slabs of 64 columns, each row 128 bytes with its 16-byte pieces
// exchanged (see wgmma_rows).
template <int DIM> struct operand {
    __half high[DIM / SLAB][POSITIONS][SLAB], low[DIM / SLAB][POSITIONS][SLAB];
};

template <int DIM> struct stage {
    operand<DIM> keys, values;
};

// A power of two that brings values up to max into float16's range, and its inverse.
struct power {
    float up, down;
};

struct barriers {
    barrier keys_full[STAGES], keys_empty[STAGES], values_full[STAGES], values_empty[STAGES];
    float keys_down[STAGES];                 // what undoes the tile's scale
    power values_power[STAGES];              // the tile's scale
    uint32_t largest[2][2][CONVERTER_WARPS]; // by turn, keys or values, warp
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

// What a converting thread has of a tile: pieces of 8 columns.
template <int DIM> struct pieces {
    enum { A_ROW = DIM / 8, COUNT = POSITIONS * A_ROW / CONVERTERS };
    float4 v[COUNT][2];

    __device__ __forceinline__ void load(const float *from, const bnt_cuda_cache &cache,
                                         uint32_t count, uint32_t dim)
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const uint32_t unit = i * CONVERTERS + threadIdx.x - WARPGROUP;
            const uint32_t r = unit / A_ROW, c = unit % A_ROW * 8;
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const bool valid = r < count && c + j * 4 < dim;
                v[i][j] = valid ? *reinterpret_cast<const float4 *>(from + (size_t)r * cache.row +
                                                                    c + j * 4)
                                : make_float4(0, 0, 0, 0);
            }
        }
    }

    __device__ __forceinline__ uint32_t max_bits() const
    {
        float max = 0;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
#pragma unroll
            for (int j = 0; j < 2; j++)
                max = fmaxf(max, fmaxf(fmaxf(fabsf(v[i][j].x), fabsf(v[i][j].y)),
                                       fmaxf(fabsf(v[i][j].z), fabsf(v[i][j].w))));
        }
        return __float_as_uint(max);
    }

    __device__ __forceinline__ void store(operand<DIM> *to, float scale) const
    {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const uint32_t unit = i * CONVERTERS + threadIdx.x - WARPGROUP;
            const uint32_t r = unit / A_ROW, c = unit % A_ROW;
            const float4 a = v[i][0], b = v[i][1];
            const split s[4] = {
                split_pair(a.x * scale, a.y * scale), split_pair(a.z * scale, a.w * scale),
                split_pair(b.x * scale, b.y * scale), split_pair(b.z * scale, b.w * scale)};
            const uint32_t at = (c % 8 ^ r % 8) * 8;
            *reinterpret_cast<uint4 *>(&to->high[c / 8][r][at]) =
                make_uint4(s[0].high, s[1].high, s[2].high, s[3].high);
            *reinterpret_cast<uint4 *>(&to->low[c / 8][r][at]) =
                make_uint4(s[0].low, s[1].low, s[2].low, s[3].low);
        }
    }
};

// The largest of all converting threads' values, after a barrier.
__device__ __forceinline__ void note_largest(uint32_t (&largest)[CONVERTER_WARPS], uint32_t bits)
{
    bits = __reduce_max_sync(FULL_WARP, bits);
    if (threadIdx.x % WARP == 0)
        largest[threadIdx.x / WARP - WARPGROUP / WARP] = bits;
}

__device__ __forceinline__ uint32_t find_largest(const uint32_t (&largest)[CONVERTER_WARPS])
{
    uint32_t all = 0;
    for (int i = 0; i < CONVERTER_WARPS; i++)
        all = max(all, largest[i]);
    return all;
}

// The converting warpgroups. While they work on a tile, the next is on its way. The scale
// of values never grows, so that sums already made need only be made smaller.
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
        note_largest(b.largest[turn % 2][0], k.max_bits());
        note_largest(b.largest[turn % 2][1], v.max_bits());
        sync_threads(1, CONVERTERS);
        const power for_keys = find_power(find_largest(b.largest[turn % 2][0]));
        largest_value = max(largest_value, find_largest(b.largest[turn % 2][1]));
        const power for_values = find_power(largest_value);
        barrier_wait(&b.keys_empty[slot], parity);
        if (threadIdx.x == WARPGROUP)
            b.keys_down[slot] = for_keys.down;
        k.store(&stages[slot].keys, for_keys.up);
        wgmma_publish();
        barrier_arrive(&b.keys_full[slot]);
        k.load(keys + next, cache, left, dim);
        barrier_wait(&b.values_empty[slot], parity);
        if (threadIdx.x == WARPGROUP)
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
    uint32_t t;
};

__device__ lane_queries find_queries(bnt_cuda_heads heads, uint32_t block)
{
    const uint32_t group = heads.n_heads / heads.n_kv_heads, warp = threadIdx.x / WARP;
    const uint32_t g = threadIdx.x % WARP / 4;
    lane_queries q;
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t index = block * QUERIES + warp * 16 + g + i * 8;
        q.of[i].token = index / group;
        q.of[i].head = blockIdx.y * group + index % group;
    }
    q.t = threadIdx.x % 4;
    return q;
}

// Queries as the first operand: for each 16 columns four registers, and what undoes the scale of
// the lane's two rows.
template <int DIM> struct query_operand {
    uint32_t high[DIM / 16][4], low[DIM / 16][4];
    float down[2];

    __device__ __forceinline__ void load(const float *q, const lane_queries &at,
                                         bnt_cuda_heads heads, uint32_t m)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const bool valid = at.of[i].token < m;
            const float *row =
                q + ((size_t)(valid ? at.of[i].token : 0) * heads.n_heads + at.of[i].head) *
                        heads.head_dim;
            float2 v[DIM / 8];
            float max = 0;
#pragma unroll
            for (int j = 0; j < DIM / 8; j++) {
                const uint32_t c = j * 8 + at.t * 2;
                v[j] = valid && c < heads.head_dim ? *reinterpret_cast<const float2 *>(row + c)
                                                   : make_float2(0, 0);
                max = fmaxf(max, fmaxf(fabsf(v[j].x), fabsf(v[j].y)));
            }
            max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 1));
            max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 2));
            const power p = find_power(__float_as_uint(max));
            down[i] = p.down;
#pragma unroll
            for (int j = 0; j < DIM / 8; j++) {
                const split s = split_pair(v[j].x * p.up, v[j].y * p.up);
                high[j / 2][j % 2 * 2 + i] = s.high;
                low[j / 2][j % 2 * 2 + i] = s.low;
            }
        }
    }
};

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
__device__ __forceinline__ void score(float (&scores)[POSITIONS / 2], const query_operand<DIM> &q,
                                      const operand<DIM> &keys)
{
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        const uint64_t high = wgmma_rows(keys.high[k / 4]) + k % 4 * 2;
        const uint64_t low = wgmma_rows(keys.low[k / 4]) + k % 4 * 2;
        if (k == 0)
            wgmma_halves_first<false>(scores, q.low[k], high);
        else
            wgmma_halves<false>(scores, q.low[k], high);
        wgmma_halves<false>(scores, q.high[k], low);
        wgmma_halves<false>(scores, q.high[k], high);
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
        wgmma_halves<true>(sums, low[k], v_high);
        wgmma_halves<true>(sums, high[k], v_low);
        wgmma_halves<true>(sums, high[k], v_high);
    }
    wgmma_commit();
}

template <int DIM>
__device__ void consume(float *out, const float *q, const stage<DIM> *stages, barriers &b,
                        bnt_cuda_heads heads, uint32_t block, uint32_t first, uint32_t m,
                        uint32_t end)
{
    const lane_queries at = find_queries(heads, block);
    const float scale = 1.44269504f / sqrtf((float)heads.head_dim); // for powers of two
    query_operand<DIM> query;
    query.load(q, at, heads, m);
    float sums[DIM / 2] = {}, down = 1;
    running r = {{-1e30f, -1e30f}, {0, 0}};
    const uint32_t own[2] = {first + at.of[0].token, first + at.of[1].token};
    const uint32_t seen_by_all = first + block * QUERIES / (heads.n_heads / heads.n_kv_heads) + 1;
    for (uint32_t p0 = 0, turn = 0; p0 < end; p0 += POSITIONS, turn++) {
        const uint32_t slot = turn % STAGES, parity = turn / STAGES % 2;
        float scores[POSITIONS / 2], rescale[2];
        barrier_wait(&b.keys_full[slot], parity);
        const float keys_down = b.keys_down[slot] * scale;
        const float factor[2] = {keys_down * query.down[0], keys_down * query.down[1]};
        score<DIM>(scores, query, stages[slot].keys);
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
        weigh(scores, factor, r, rescale);
        uint32_t high[POSITIONS / 16][4], low[POSITIONS / 16][4];
#pragma unroll
        for (int j = 0; j < POSITIONS / 4; j++) {
            const split s = split_pair(scores[j * 2], scores[j * 2 + 1]);
            high[j / 4][j % 4] = s.high;
            low[j / 4][j % 4] = s.low;
        }
        barrier_wait(&b.values_full[slot], parity);
        const float smaller = turn > 0 ? down * b.values_power[slot].up : 1.0f;
        down = b.values_power[slot].down;
#pragma unroll
        for (int j = 0; j < DIM / 2; j++)
            sums[j] *= rescale[j / 2 % 2] * smaller;
        add_values<DIM>(sums, high, low, stages[slot].values);
        wgmma_wait<0>();
        wgmma_take(sums);
        barrier_arrive(&b.values_empty[slot]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (at.of[i].token >= m)
            continue;
        const float factor = down / r.sum[i];
        float *to = out + ((size_t)at.of[i].token * heads.n_heads + at.of[i].head) * heads.head_dim;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) {
            const uint32_t c = j * 8 + at.t * 2;
            if (c < heads.head_dim)
                *reinterpret_cast<float2 *>(to + c) =
                    make_float2(sums[j * 4 + i * 2] * factor, sums[j * 4 + i * 2 + 1] * factor);
        }
    }
}

template <int DIM>
__device__ __forceinline__ void run(float *out, const float *q, const bnt_cuda_cache &cache,
                                    bnt_cuda_heads heads, uint32_t first, uint32_t m)
{
    extern __shared__ uint8_t shared[];
    __shared__ barriers b;
    stage<DIM> *stages = reinterpret_cast<stage<DIM> *>(shared + (-shared_address(shared) & 1023));
    const uint32_t group = heads.n_heads / heads.n_kv_heads;
    const uint32_t block = gridDim.x - 1 - blockIdx.x; // the longest first
    const uint32_t last = min((block * QUERIES + QUERIES - 1) / group, m - 1);
    const uint32_t end = first + last + 1; // positions that the last query sees
    let_next_start();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&b.keys_full[i], CONVERTERS);
            barrier_init(&b.keys_empty[i], WARPGROUP);
            barrier_init(&b.values_full[i], CONVERTERS);
            barrier_init(&b.values_empty[i], WARPGROUP);
        }
    }
    __syncthreads();
    wait_for_previous();
    if (threadIdx.x >= WARPGROUP) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 136;");
        produce<DIM>(stages, b, cache, (size_t)blockIdx.y * cache.context, heads.head_dim, end);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
        consume<DIM>(out, q, stages, b, heads, block, first, m, end);
    }
}

#endif

template <int DIM>
__global__ void __launch_bounds__(THREADS, 1)
    attention(float *out, const float *q, const __grid_constant__ bnt_cuda_cache cache,
              bnt_cuda_heads heads, uint32_t first, uint32_t m)
{
#ifdef BNT_HAS_WGMMA
    run<DIM>(out, q, cache, heads, first, m);
#endif
}

template <int DIM>
cudaError_t launch(float *out, const float *q, const bnt_cuda_cache *cache, bnt_cuda_heads heads,
                   uint32_t position, uint32_t m, cudaStream_t stream)
{
    const size_t bytes = STAGES * sizeof(stage<DIM>) + 1024;
    cudaError_t error = cudaFuncSetAttribute(
        attention<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error != cudaSuccess)
        return error;
    const uint32_t queries = m * (heads.n_heads / heads.n_kv_heads);
    dim3 grid((queries + QUERIES - 1) / QUERIES, heads.n_kv_heads);
    return launch_early(attention<DIM>, grid, dim3(THREADS), bytes, stream, out, q, *cache, heads,
                        position, m);
}
} // namespace

cudaError_t bnt_cuda_attention_wgmma(float *out, const float *q, const struct bnt_cuda_cache *cache,
                                     struct bnt_cuda_heads heads, uint32_t position, uint32_t m,
                                     cudaStream_t stream)
{
    return heads.head_dim <= 64 ? launch<64>(out, q, cache, heads, position, m, stream)
                                : launch<128>(out, q, cache, heads, position, m, stream);
}
