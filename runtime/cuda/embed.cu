// SPDX-License-Identifier: MIT
// Token ids become rows of the embedding, in float32.
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

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
} // namespace

cudaError_t bnt_cuda_embed(float *x, const void *embedding, bool wide, const uint32_t *tokens,
                           uint32_t hidden, uint32_t m, cudaStream_t stream)
{
    embed<<<m, 256, 0, stream>>>(x, embedding, wide, tokens, hidden);
    return cudaGetLastError();
}
