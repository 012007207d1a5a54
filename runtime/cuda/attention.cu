// SPDX-License-Identifier: MIT
// softmax(q·kᵀ / sqrt(head_dim)) v for a batch of tokens: the plain form for any head size. A block
// takes one token and one head, and goes through the positions in tiles with a running maximum.
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { THREADS = 128, WARPS = THREADS / WARP, TILE = 128 };

__device__ float block_max(float v, float *partial)
{
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        partial[threadIdx.x / WARP] = v;
    __syncthreads();
    for (int i = 0; i < WARPS; i++)
        v = fmaxf(v, partial[i]);
    return v;
}

__device__ float block_sum(float v, float *partial)
{
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        partial[threadIdx.x / WARP] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < WARPS; i++)
        v += partial[i];
    return v;
}

__device__ float dot(const float *q, const float *k, uint32_t dim)
{
    float sum = 0;
    for (uint32_t i = 0; i < dim; i += 2) {
        float2 pair = *reinterpret_cast<const float2 *>(k + i);
        sum += q[i] * pair.x + q[i + 1] * pair.y;
    }
    return sum;
}

__global__ void __launch_bounds__(THREADS)
    attention(float *out, const float *q, bnt_cuda_cache cache, bnt_cuda_heads heads,
              uint32_t first)
{
    extern __shared__ float shared[];
    __shared__ float probability[TILE], partial[WARPS];
    const uint32_t t = blockIdx.x, head = blockIdx.y, dim = heads.head_dim;
    float *query = shared, *sum = shared + dim; // (dim) each
    const size_t at = ((size_t)t * heads.n_heads + head) * dim;
    const size_t kv = (size_t)(head / (heads.n_heads / heads.n_kv_heads)) * cache.context;
    const uint32_t count = first + t + 1;
    const float scale = 1.0f / sqrtf((float)dim);
    for (uint32_t i = threadIdx.x; i < dim; i += THREADS) {
        query[i] = q[at + i];
        sum[i] = 0;
    }
    __syncthreads();
    float max = -INFINITY, total = 0;
    for (uint32_t tile = 0; tile < count; tile += TILE) {
        const uint32_t p = tile + threadIdx.x;
        float score =
            p < count ? dot(query, cache.keys + (kv + p) * cache.row, dim) * scale : -INFINITY;
        float new_max = fmaxf(max, block_max(score, partial));
        float rescale = expf(max - new_max);
        float e = p < count ? expf(score - new_max) : 0.0f;
        total = total * rescale + block_sum(e, partial);
        max = new_max;
        probability[threadIdx.x] = e;
        __syncthreads();
        const uint32_t n = min(count - tile, (uint32_t)TILE);
        for (uint32_t i = threadIdx.x; i < dim; i += THREADS) {
            float s = sum[i] * rescale;
            for (uint32_t j = 0; j < n; j++)
                s += probability[j] * cache.values[(kv + tile + j) * cache.row + i];
            sum[i] = s;
        }
    }
    for (uint32_t i = threadIdx.x; i < dim; i += THREADS)
        out[at + i] = sum[i] / total;
}
} // namespace

cudaError_t bnt_cuda_attention(float *out, const float *q, const struct bnt_cuda_cache *cache,
                               struct bnt_cuda_heads heads, uint32_t position, uint32_t m,
                               cudaStream_t stream)
{
    size_t shared = 2 * heads.head_dim * sizeof(float); // at most 32 KB
    attention<<<dim3(m, heads.n_heads), THREADS, shared, stream>>>(out, q, *cache, heads, position);
    return cudaGetLastError();
}
