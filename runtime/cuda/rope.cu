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
__device__ pair rotate(const float *head, uint32_t i, uint32_t half, float2 angle)
{
    float a = head[i], b = head[half + i];
    return {a * angle.x - b * angle.y, b * angle.x + a * angle.y};
}

__global__ void find_angles(float2 *angles, const float *frequency, uint32_t half, uint32_t first)
{
    let_next_start();
    wait_for_previous();
    const float position = (float)(first + blockIdx.x);
    for (uint32_t i = threadIdx.x; i < half; i += blockDim.x) {
        float2 angle;
        sincosf(position * frequency[i], &angle.y, &angle.x);
        angles[(size_t)blockIdx.x * half + i] = angle;
    }
}

__global__ void rope(float *q, const float *k, const float *v, const float2 *angles,
                     bnt_cuda_cache cache, bnt_cuda_heads heads, uint32_t first)
{
    let_next_start();
    wait_for_previous();
    const uint32_t t = blockIdx.x, dim = heads.head_dim, half = dim / 2;
    angles += (size_t)t * half;
    q += (size_t)t * heads.n_heads * dim;
    k += (size_t)t * heads.n_kv_heads * dim;
    v += (size_t)t * heads.n_kv_heads * dim;
    for (uint32_t i = threadIdx.x; i < heads.n_heads * half; i += blockDim.x) {
        float *head = q + i / half * dim;
        pair p = rotate(head, i % half, half, angles[i % half]);
        head[i % half] = p.a;
        head[half + i % half] = p.b;
    }
    for (uint32_t i = threadIdx.x; i < heads.n_kv_heads * half; i += blockDim.x) {
        const uint32_t j = i / half, e = i % half;
        pair p = rotate(k + j * dim, e, half, angles[e]);
        size_t row = ((size_t)j * cache.context + first + t) * cache.row;
        cache.keys[row + e] = p.a;
        cache.keys[row + half + e] = p.b;
        cache.values[row + e] = v[j * dim + e];
        cache.values[row + half + e] = v[j * dim + half + e];
    }
}
} // namespace

cudaError_t bnt_cuda_angles(float2 *angles, const float *frequency, uint32_t head_dim,
                            uint32_t position, uint32_t m, cudaStream_t stream)
{
    return launch_early(find_angles, dim3(m), dim3(64), 0, stream, angles, frequency, head_dim / 2,
                        position);
}

cudaError_t bnt_cuda_rope(float *q, const float *k, const float *v, const float2 *angles,
                          const struct bnt_cuda_cache *cache, struct bnt_cuda_heads heads,
                          uint32_t position, uint32_t m, cudaStream_t stream)
{
    return launch_early(rope, dim3(m), dim3(256), 0, stream, q, k, v, angles, *cache, heads,
                        position);
}
