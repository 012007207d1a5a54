// SPDX-License-Identifier: MIT
// The first kernel of a token. It does not let the next start early: what comes after it may read
// *place before it waits.
#include "runtime/cuda/decode_steps.cuh"
#include "runtime/cuda/scales.cuh"

namespace
{
enum { THREADS = 256 };

__global__ void __launch_bounds__(THREADS) embed(const __grid_constant__ decode_embed a)
{
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    const size_t at = (size_t)a.token * a.hidden + i;
    if (i < a.hidden)
        a.x[i] = a.ternary.blocks ? ternary_value(a.ternary, a.token, i)
                 : a.wide         ? static_cast<const float *>(a.embedding)[at]
                          : __bfloat162float(static_cast<const __nv_bfloat16 *>(a.embedding)[at]);
    if (i < a.head_dim / 2) {
        float2 angle;
        sincosf((float)a.here.position * a.frequency[i], &angle.y, &angle.x);
        a.angles[i] = make_float2(angle.x * a.angle_factor, angle.y * a.angle_factor);
    }
    if (i == 0)
        *a.place = a.here;
}

dim3 grid(const struct decode_embed *step)
{
    return dim3(divide_up(step->hidden, THREADS));
}
} // namespace

cudaError_t decode_embed_launch(const struct decode_embed *step, cudaStream_t stream)
{
    embed<<<grid(step), THREADS, 0, stream>>>(*step);
    return cudaGetLastError();
}

cudaError_t decode_embed_update(cudaGraphExec_t graph, cudaGraphNode_t node,
                                const struct decode_embed *step)
{
    struct decode_embed copy = *step;
    void *list[] = {&copy};
    cudaKernelNodeParams params = {};
    params.func = (void *)embed;
    params.gridDim = grid(step);
    params.blockDim = dim3(THREADS);
    params.kernelParams = list;
    return cudaGraphExecKernelNodeSetParams(graph, node, &params);
}
