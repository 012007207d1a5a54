// SPDX-License-Identifier: MIT
// softmax(q·kᵀ / sqrt(head_dim)) v for a prompt: 64 queries of one head against tiles of 32
// positions, on tensor cores. Each float32 operand is split into two tf32 numbers and three of the
// four products are summed, which keeps 21 bits: enough that what is quantized afterwards rounds as
// it would from float32.
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { WARPS = 4, THREADS = WARPS * WARP, QUERIES = WARPS * 16, POSITIONS = 32, PAD = 4 };

struct split {
    uint32_t high, low;
};

__device__ __forceinline__ split split_float(float v)
{
    uint32_t high = __float_as_uint(v) & 0xFFFFE000u;
    return {high, __float_as_uint(v - __uint_as_float(high))};
}

__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d (16 × 8) += a (16 × 8) · b (8 × 8), a as two parts.
__device__ __forceinline__ void mma_split(float (&d)[4], const uint32_t (&high)[4],
                                          const uint32_t (&low)[4], float b0, float b1)
{
    const split s0 = split_float(b0), s1 = split_float(b1);
    mma_tf32(d, low, s0.high, s1.high);
    mma_tf32(d, high, s0.low, s1.low);
    mma_tf32(d, high, s0.high, s1.high);
}

// Rows from, from + 1, … of a matrix into shared memory, zero beyond the last and beyond dim.
template <int DIM>
__device__ void load_rows(float *to, const float *from, size_t stride, uint32_t rows,
                          uint32_t count, uint32_t dim)
{
    for (uint32_t i = threadIdx.x; i < rows * (DIM / 4); i += THREADS) {
        const uint32_t r = i / (DIM / 4), c = i % (DIM / 4) * 4;
        float4 v = make_float4(0, 0, 0, 0);
        if (r < count && c < dim)
            v = *reinterpret_cast<const float4 *>(from + r * stride + c);
        *reinterpret_cast<float4 *>(to + r * (DIM + PAD) + c) = v;
    }
}

// scores (16 × 32) of the warp's queries.
template <int DIM>
__device__ __forceinline__ void score(float (&scores)[4][4], const float *q, const float *keys,
                                      uint32_t g, uint32_t t)
{
#pragma unroll 4
    for (int k = 0; k < DIM; k += 8) {
        const float *at = q + g * (DIM + PAD) + k + t;
        const split a[4] = {split_float(at[0]), split_float(at[8 * (DIM + PAD)]),
                            split_float(at[4]), split_float(at[8 * (DIM + PAD) + 4])};
        const uint32_t high[4] = {a[0].high, a[1].high, a[2].high, a[3].high};
        const uint32_t low[4] = {a[0].low, a[1].low, a[2].low, a[3].low};
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const float *key = keys + (n * 8 + g) * (DIM + PAD) + k + t;
            mma_split(scores[n], high, low, key[0], key[4]);
        }
    }
}

struct running {
    float max[2], sum[2]; // of queries g and g + 8
};

// Scores become weights. Returns by what earlier sums are to be multiplied.
__device__ __forceinline__ void weigh(float (&scores)[4][4], running &r, float (&rescale)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float max = r.max[i];
#pragma unroll
        for (int n = 0; n < 4; n++)
            max = fmaxf(max, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
        max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 1));
        max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 2));
        float sum = 0;
#pragma unroll
        for (int n = 0; n < 4; n++) {
#pragma unroll
            for (int j = 0; j < 2; j++) {
                float &s = scores[n][2 * i + j];
                s = expf(s - max);
                sum += s;
            }
        }
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        rescale[i] = expf(r.max[i] - max);
        r.sum[i] = r.sum[i] * rescale[i] + sum;
        r.max[i] = max;
    }
}

// out (16 × DIM) += weights (16 × 32) · values. Within eight positions the order is free: the one
// in which the weights already lie is taken.
template <int DIM>
__device__ __forceinline__ void add_values(float (&out)[DIM / 8][4], const float (&weights)[4][4],
                                           const float *values, uint32_t g, uint32_t t)
{
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const split a[4] = {split_float(weights[k][0]), split_float(weights[k][2]),
                            split_float(weights[k][1]), split_float(weights[k][3])};
        const uint32_t high[4] = {a[0].high, a[1].high, a[2].high, a[3].high};
        const uint32_t low[4] = {a[0].low, a[1].low, a[2].low, a[3].low};
        const float *value = values + (k * 8 + 2 * t) * (DIM + PAD) + g;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
            mma_split(out[n], high, low, value[n * 8], value[DIM + PAD + n * 8]);
    }
}

template <int DIM>
__global__ void __launch_bounds__(THREADS)
    attention_tiles(float *out, const float *q, bnt_cuda_cache cache, bnt_cuda_heads heads,
                    uint32_t first, uint32_t m)
{
    extern __shared__ float shared[];
    float *queries = shared, *keys = queries + QUERIES * (DIM + PAD);
    float *values = keys + POSITIONS * (DIM + PAD);
    let_next_start();
    wait_for_previous();
    const uint32_t dim = heads.head_dim, head = blockIdx.y;
    const uint32_t block = gridDim.x - 1 - blockIdx.x; // the longest first
    const uint32_t t0 = block * QUERIES, warp = threadIdx.x / WARP;
    const uint32_t g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const size_t stride = (size_t)heads.n_heads * dim;
    const size_t kv = (size_t)(head / (heads.n_heads / heads.n_kv_heads)) * cache.context;
    load_rows<DIM>(queries, q + t0 * stride + head * dim, stride, QUERIES, m - t0, dim);
    const uint32_t end = first + min(t0 + QUERIES, m); // positions that the last query sees
    const float scale = 1.0f / sqrtf((float)dim);
    float sums[DIM / 8][4] = {};
    running r = {{-1e30f, -1e30f}, {0, 0}};
    for (uint32_t p0 = 0; p0 < end; p0 += POSITIONS) {
        __syncthreads();
        load_rows<DIM>(keys, cache.keys + (kv + p0) * cache.row, cache.row, POSITIONS, end - p0,
                       dim);
        load_rows<DIM>(values, cache.values + (kv + p0) * cache.row, cache.row, POSITIONS, end - p0,
                       dim);
        __syncthreads();
        float scores[4][4] = {};
        score<DIM>(scores, queries + warp * 16 * (DIM + PAD), keys, g, t);
#pragma unroll
        for (int n = 0; n < 4; n++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint32_t p = p0 + n * 8 + 2 * t + j % 2;
                const uint32_t own = first + t0 + warp * 16 + g + j / 2 * 8;
                scores[n][j] = p <= own ? scores[n][j] * scale : -INFINITY;
            }
        }
        float rescale[2];
        weigh(scores, r, rescale);
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) {
#pragma unroll
            for (int j = 0; j < 4; j++)
                sums[n][j] *= rescale[j / 2];
        }
        add_values<DIM>(sums, scores, values, g, t);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t token = t0 + warp * 16 + g + i * 8;
        if (token >= m)
            continue;
        const float factor = 1.0f / r.sum[i];
        float *to = out + token * stride + head * dim;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++) {
            const uint32_t e = n * 8 + 2 * t;
            if (e < dim)
                *reinterpret_cast<float2 *>(to + e) =
                    make_float2(sums[n][2 * i] * factor, sums[n][2 * i + 1] * factor);
        }
    }
}

template <int DIM>
cudaError_t launch(float *out, const float *q, const bnt_cuda_cache *cache, bnt_cuda_heads heads,
                   uint32_t position, uint32_t m, cudaStream_t stream)
{
    const size_t bytes = (QUERIES + 2 * POSITIONS) * (DIM + PAD) * sizeof(float);
    cudaError_t error = cudaFuncSetAttribute(
        attention_tiles<DIM>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    if (error != cudaSuccess)
        return error;
    dim3 grid((m + QUERIES - 1) / QUERIES, heads.n_heads);
    return launch_early(attention_tiles<DIM>, grid, dim3(THREADS), bytes, stream, out, q, *cache,
                        heads, position, m);
}
} // namespace

bool bnt_cuda_attention_has_tiles(struct bnt_cuda_heads heads)
{
    return heads.head_dim % 4 == 0 && heads.head_dim <= 128;
}

cudaError_t bnt_cuda_attention_tiles(float *out, const float *q, const struct bnt_cuda_cache *cache,
                                     struct bnt_cuda_heads heads, uint32_t position, uint32_t m,
                                     cudaStream_t stream)
{
    bool has_wgmma;
    cudaError_t error = bnt_cuda_has_wgmma(&has_wgmma);
    if (error != cudaSuccess)
        return error;
    if (has_wgmma)
        return bnt_cuda_attention_wgmma(out, q, cache, heads, position, m, stream);
    return heads.head_dim <= 64 ? launch<64>(out, q, cache, heads, position, m, stream)
                                : launch<128>(out, q, cache, heads, position, m, stream);
}
