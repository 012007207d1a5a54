// SPDX-License-Identifier: MIT
// Rotary positions, and new keys and values on their way into the cache. One block a token.
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
struct pair {
    float a, b;
};

// Element i of a head and the one half a head further on.
__device__ pair rotate(const float *head, uint32_t i, uint32_t half, const float *frequency,
                       float position)
{
    float a = head[i], b = head[half + i], sine, cosine;
    sincosf(position * frequency[i], &sine, &cosine);
    return {a * cosine - b * sine, b * cosine + a * sine};
}

__global__ void rope(float *q, const float *k, const float *v, const float *frequency,
                     bnt_cuda_cache cache, bnt_cuda_heads heads, uint32_t first)
{
    const uint32_t t = blockIdx.x, dim = heads.head_dim, half = dim / 2;
    const float position = (float)(first + t);
    q += (size_t)t * heads.n_heads * dim;
    k += (size_t)t * heads.n_kv_heads * dim;
    v += (size_t)t * heads.n_kv_heads * dim;
    for (uint32_t i = threadIdx.x; i < heads.n_heads * half; i += blockDim.x) {
        float *head = q + i / half * dim;
        pair p = rotate(head, i % half, half, frequency, position);
        head[i % half] = p.a;
        head[half + i % half] = p.b;
    }
    for (uint32_t i = threadIdx.x; i < heads.n_kv_heads * half; i += blockDim.x) {
        const uint32_t j = i / half, e = i % half;
        pair p = rotate(k + j * dim, e, half, frequency, position);
        size_t row = ((size_t)j * cache.context + first + t) * cache.row;
        cache.keys[row + e] = p.a;
        cache.keys[row + half + e] = p.b;
        cache.values[row + e] = v[j * dim + e];
        cache.values[row + half + e] = v[j * dim + half + e];
    }
}
} // namespace

cudaError_t bnt_cuda_rope(float *q, const float *k, const float *v, const float *frequency,
                          const struct bnt_cuda_cache *cache, struct bnt_cuda_heads heads,
                          uint32_t position, uint32_t m, cudaStream_t stream)
{
    rope<<<m, 256, 0, stream>>>(q, k, v, frequency, *cache, heads, position);
    return cudaGetLastError();
}
