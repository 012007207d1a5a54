// SPDX-License-Identifier: MIT
// The output layer: a warp a row, eight tokens at a time, so that each row is read once for them.
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { THREADS = 256, TOKENS = 8 };

template <class Weight>
__global__ void __launch_bounds__(THREADS)
    output_rows(float *logits, const Weight *output, const float *x, uint32_t hidden,
                uint32_t vocab, uint32_t m)
{
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t r = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    const uint32_t first = blockIdx.y * TOKENS;
    const uint32_t count = min(m - first, (uint32_t)TOKENS);
    if (r >= vocab)
        return;
    const Weight *row = output + (size_t)r * hidden;
    x += (size_t)first * hidden;
    float sum[TOKENS] = {};
    for (uint32_t i = lane; i < hidden; i += WARP) {
        float w = (float)row[i];
#pragma unroll
        for (uint32_t t = 0; t < TOKENS; t++)
            sum[t] += t < count ? w * x[(size_t)t * hidden + i] : 0.0f;
    }
#pragma unroll
    for (uint32_t t = 0; t < TOKENS; t++) {
        float logit = warp_sum(sum[t]);
        if (lane == 0 && t < count)
            logits[(size_t)(first + t) * vocab + r] = logit;
    }
}
} // namespace

cudaError_t bnt_cuda_output(float *logits, const void *output, bool wide, const float *x,
                            uint32_t hidden, uint32_t vocab, uint32_t m, cudaStream_t stream)
{
    dim3 grid((vocab + THREADS / WARP - 1) / (THREADS / WARP), (m + TOKENS - 1) / TOKENS);
    if (wide)
        output_rows<<<grid, THREADS, 0, stream>>>(logits, static_cast<const float *>(output), x,
                                                  hidden, vocab, m);
    else
        output_rows<<<grid, THREADS, 0, stream>>>(
            logits, static_cast<const __nv_bfloat16 *>(output), x, hidden, vocab, m);
    return cudaGetLastError();
}
