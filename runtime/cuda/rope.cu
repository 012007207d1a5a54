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

__global__ void find_angles(float2 *angles, const float *frequency, float factor, uint32_t half,
                            uint32_t first)
{
    let_next_start();
    wait_for_previous();
    const float position = (float)(first + blockIdx.x);
    for (uint32_t i = threadIdx.x; i < half; i += blockDim.x) {
        float2 angle;
        sincosf(position * frequency[i], &angle.y, &angle.x);
        angles[(size_t)blockIdx.x * half + i] = make_float2(angle.x * factor, angle.y * factor);
    }
}

// A warp takes a head, of the queries first.
__global__ void norm_heads(float *q, float *k, const float *q_weight, const float *k_weight,
                           float eps, bnt_cuda_heads heads)
{
    let_next_start();
    wait_for_previous();
    const uint32_t dim = heads.head_dim, lane = threadIdx.x % WARP;
    const uint32_t head = blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (head >= heads.n_heads + heads.n_kv_heads)
        return;
    const bool is_query = head < heads.n_heads;
    const float *weight = is_query ? q_weight : k_weight;
    float *x = is_query ? q + ((size_t)blockIdx.x * heads.n_heads + head) * dim
                        : k + ((size_t)blockIdx.x * heads.n_kv_heads + head - heads.n_heads) * dim;
    float squares = 0;
    for (uint32_t i = lane; i < dim; i += WARP)
        squares += x[i] * x[i];
    const float factor = 1.0f / sqrtf(warp_sum(squares) / (float)dim + eps);
    for (uint32_t i = lane; i < dim; i += WARP)
        x[i] = weight[i] * (x[i] * factor);
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

cudaError_t bnt_cuda_angles(float2 *angles, const float *frequency, float factor, uint32_t head_dim,
                            uint32_t position, uint32_t m, cudaStream_t stream)
{
    return launch_early(find_angles, dim3(m), dim3(64), 0, stream, angles, frequency, factor,
                        head_dim / 2, position);
}

cudaError_t bnt_cuda_norm_heads(float *q, float *k, const float *q_weight, const float *k_weight,
                                float eps, struct bnt_cuda_heads heads, uint32_t m,
                                cudaStream_t stream)
{
    const uint32_t warps = 4;
    const dim3 grid(m, divide_up(heads.n_heads + heads.n_kv_heads, warps));
    return launch_early(norm_heads, grid, dim3(warps * WARP), 0, stream, q, k, q_weight, k_weight,
                        eps, heads);
}

cudaError_t bnt_cuda_rope(float *q, const float *k, const float *v, const float2 *angles,
                          const struct bnt_cuda_cache *cache, struct bnt_cuda_heads heads,
                          uint32_t position, uint32_t m, cudaStream_t stream)
{
    return launch_early(rope, dim3(m), dim3(256), 0, stream, q, k, v, angles, *cache, heads,
                        position);
}
