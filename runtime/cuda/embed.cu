// SPDX-License-Identifier: MIT
// Token ids become rows of the embedding, in float32.
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/scales.cuh"

namespace
{
__global__ void embed(float *x, const void *embedding, bool wide, const uint32_t *tokens,
                      uint32_t hidden)
{
    size_t from = (size_t)tokens[blockIdx.x] * hidden;
    float *to = x + (size_t)blockIdx.x * hidden;
    for (uint32_t i = threadIdx.x; i < hidden; i += blockDim.x)
        to[i] = wide ? static_cast<const float *>(embedding)[from + i]
                     : __bfloat162float(static_cast<const __nv_bfloat16 *>(embedding)[from + i]);
}

__global__ void embed_ternary(float *x, const __grid_constant__ bnt_cuda_rows e,
                              const uint32_t *tokens)
{
    const uint32_t token = tokens[blockIdx.x];
    float *to = x + (size_t)blockIdx.x * e.cols;
    for (uint32_t k = threadIdx.x; k < e.cols; k += blockDim.x)
        to[k] = ternary_value(e, token, k);
}
} // namespace

cudaError_t bnt_cuda_embed_ternary(float *x, const struct bnt_cuda_rows *embedding,
                                   const uint32_t *tokens, uint32_t m, cudaStream_t stream)
{
    embed_ternary<<<m, 256, 0, stream>>>(x, *embedding, tokens);
    return cudaGetLastError();
}

cudaError_t bnt_cuda_embed(float *x, const void *embedding, bool wide, const uint32_t *tokens,
                           uint32_t hidden, uint32_t m, cudaStream_t stream)
{
    embed<<<m, 256, 0, stream>>>(x, embedding, wide, tokens, hidden);
    return cudaGetLastError();
}
