// SPDX-License-Identifier: MIT
// RMS norms and the quantization of activations, one block a token. Norm and quantization need one
// pass over the row between them: the norm's factor is positive, so max|w · x · factor| is
// factor · max|w · x|.
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { THREADS = 512, WARPS = THREADS / WARP };

// Where a row's values come from.
struct plain_row {
    const float *x; // (M, n)
    __device__ float operator()(size_t i) const
    {
        return x[i];
    }
};

struct activated_row {
    const float *gate, *up; // (M, n)
    bool is_relu2;
    __device__ float operator()(size_t i) const
    {
        return (is_relu2 ? relu2(gate[i]) : silu(gate[i])) * up[i];
    }
};

struct sum_and_max {
    float sum, max;
};

__device__ sum_and_max reduce_block(float sum, float max)
{
    __shared__ float sums[WARPS], maxima[WARPS];
    sum = warp_sum(sum);
    max = warp_max(max);
    if (threadIdx.x % WARP == 0) {
        sums[threadIdx.x / WARP] = sum;
        maxima[threadIdx.x / WARP] = max;
    }
    __syncthreads();
    sum_and_max all = {0, 0};
    for (int i = 0; i < WARPS; i++) {
        all.sum += sums[i];
        all.max = fmaxf(all.max, maxima[i]);
    }
    return all;
}

__device__ float norm_factor(float sum_of_squares, uint32_t n, float eps)
{
    return 1.0f / sqrtf(sum_of_squares / (float)n + eps);
}

template <class Row>
__global__ void __launch_bounds__(THREADS)
    norm_quantize(bnt_cuda_quantized out, Row row, const float *weight, float eps, uint32_t n)
{
    const size_t from = (size_t)blockIdx.x * n;
    float squares = 0, max = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        float v = row(from + i);
        squares += v * v;
        max = fmaxf(max, fabsf(weight ? weight[i] * v : v));
    }
    sum_and_max all = reduce_block(squares, max);
    float factor = weight ? norm_factor(all.sum, n, eps) : 1.0f;
    float scale = 127.0f / fmaxf(all.max * factor, 1e-5f);
    int8_t *to = out.x + (size_t)blockIdx.x * out.stride;
    int sum = 0;
    for (uint32_t i = threadIdx.x; i < out.stride; i += THREADS) {
        int q = 0;
        if (i < n) {
            float v = row(from + i);
            q = quantize(weight ? weight[i] * (v * factor) : v, scale);
        }
        to[i] = (int8_t)q;
        sum += q;
    }
    __shared__ int partial[WARPS];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        partial[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int i = 1; i < WARPS; i++)
        sum += partial[i];
    out.scale[blockIdx.x] = scale;
    out.sum[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(THREADS)
    norm(float *out, const float *x, const float *weight, float eps, uint32_t n)
{
    x += (size_t)blockIdx.x * n;
    out += (size_t)blockIdx.x * n;
    float squares = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        squares += x[i] * x[i];
    float factor = norm_factor(reduce_block(squares, 0).sum, n, eps);
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        out[i] = weight[i] * (x[i] * factor);
}
} // namespace

cudaError_t bnt_cuda_norm_quantize(const struct bnt_cuda_quantized *out, const float *x,
                                   const float *weight, float eps, uint32_t n, uint32_t m,
                                   cudaStream_t stream)
{
    norm_quantize<<<m, THREADS, 0, stream>>>(*out, plain_row{x}, weight, eps, n);
    return cudaGetLastError();
}

cudaError_t bnt_cuda_activate_quantize(const struct bnt_cuda_quantized *out, const float *gate,
                                       const float *up, uint32_t activation, const float *weight,
                                       float eps, uint32_t n, uint32_t m, cudaStream_t stream)
{
    activated_row row = {gate, up, activation == BNT_ACTIVATION_RELU2};
    norm_quantize<<<m, THREADS, 0, stream>>>(*out, row, weight, eps, n);
    return cudaGetLastError();
}

cudaError_t bnt_cuda_norm(float *out, const float *x, const float *weight, float eps, uint32_t n,
                          uint32_t m, cudaStream_t stream)
{
    norm<<<m, THREADS, 0, stream>>>(out, x, weight, eps, n);
    return cudaGetLastError();
}
