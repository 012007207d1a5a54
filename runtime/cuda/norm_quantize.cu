// SPDX-License-Identifier: MIT
// RMS norms and the quantization of activations, one block a token. Norm and quantization need one
// pass over the row between them: the norm's factor is positive, so max|w · x · factor| is
// factor · max|w · x|. Threads keep what they have read of a row that is not too long.
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { THREADS = 256, WARPS = THREADS / WARP };

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

// By what values are multiplied, from the block's sums.
struct factors {
    float norm, scale;
};

__device__ factors find_factors(float squares, float max, const float *weight, float eps,
                                uint32_t n)
{
    const sum_and_max all = reduce_block(squares, max);
    const float norm = weight ? norm_factor(all.sum, n, eps) : 1.0f;
    return {norm, 127.0f / fmaxf(all.max * norm, 1e-5f)};
}

__device__ void store_scale_and_sum(const bnt_cuda_quantized &out, float scale, int sum)
{
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

template <class Row>
__global__ void __launch_bounds__(THREADS)
    norm_quantize(bnt_cuda_quantized out, Row row, const float *weight, float eps, uint32_t n)
{
    let_next_start();
    wait_for_previous();
    const size_t from = (size_t)blockIdx.x * n;
    float squares = 0, max = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        float v = row(from + i);
        squares += v * v;
        max = fmaxf(max, fabsf(weight ? weight[i] * v : v));
    }
    const factors f = find_factors(squares, max, weight, eps, n);
    int sum = 0;
    for (uint32_t i = threadIdx.x; i < out.stride; i += THREADS) {
        int q = 0;
        if (i < n) {
            float v = row(from + i);
            q = quantize(weight ? weight[i] * (v * f.norm) : v, f.scale);
        }
        out.x[bnt_cuda_quantized_at(gridDim.x, blockIdx.x, i)] = (int8_t)q;
        sum += q;
    }
    store_scale_and_sum(out, f.scale, sum);
}

// The same of plain rows whose length is divisible by four and at most 4 · HELD · THREADS, and so
// is that of padded ones.
template <int HELD>
__global__ void __launch_bounds__(THREADS)
    norm_quantize_held(bnt_cuda_quantized out, const float *x, const float *weight, float eps,
                       uint32_t n)
{
    const float4 zero = make_float4(0, 0, 0, 0);
    float4 w[HELD], v[HELD];
    float squares = 0, max = 0;
    let_next_start();
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        const uint32_t i = (j * THREADS + threadIdx.x) * 4;
        w[j] = weight && i < n ? *reinterpret_cast<const float4 *>(weight + i)
                               : make_float4(1, 1, 1, 1);
    }
    wait_for_previous();
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        const uint32_t i = (j * THREADS + threadIdx.x) * 4;
        v[j] = i < n ? *reinterpret_cast<const float4 *>(x + (size_t)blockIdx.x * n + i) : zero;
    }
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        squares += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
        max = fmaxf(max, fmaxf(fmaxf(fabsf(w[j].x * v[j].x), fabsf(w[j].y * v[j].y)),
                               fmaxf(fabsf(w[j].z * v[j].z), fabsf(w[j].w * v[j].w))));
    }
    const factors f = find_factors(squares, max, weight, eps, n);
    int sum = 0;
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        const uint32_t i = (j * THREADS + threadIdx.x) * 4;
        const int a = quantize(w[j].x * (v[j].x * f.norm), f.scale);
        const int b = quantize(w[j].y * (v[j].y * f.norm), f.scale);
        const int c = quantize(w[j].z * (v[j].z * f.norm), f.scale);
        const int d = quantize(w[j].w * (v[j].w * f.norm), f.scale);
        if (i < out.stride)
            *reinterpret_cast<uint32_t *>(out.x + bnt_cuda_quantized_at(gridDim.x, blockIdx.x, i)) =
                pack_bytes(a, b, c, d);
        sum += a + b + c + d;
    }
    store_scale_and_sum(out, f.scale, sum);
}

__global__ void __launch_bounds__(THREADS)
    norm(float *out, const float *x, const float *weight, float eps, uint32_t n)
{
    let_next_start();
    wait_for_previous();
    x += (size_t)blockIdx.x * n;
    out += (size_t)blockIdx.x * n;
    float squares = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        squares += x[i] * x[i];
    float factor = norm_factor(reduce_block(squares, 0).sum, n, eps);
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        out[i] = weight[i] * (x[i] * factor);
}
template <int HELD>
cudaError_t launch_held(const bnt_cuda_quantized &out, const float *x, const float *weight,
                        float eps, uint32_t n, uint32_t m, cudaStream_t stream)
{
    return launch_early(norm_quantize_held<HELD>, dim3(m), dim3(THREADS), 0, stream, out, x, weight,
                        eps, n);
}
} // namespace

cudaError_t bnt_cuda_norm_quantize(const struct bnt_cuda_quantized *out, const float *x,
                                   const float *weight, float eps, uint32_t n, uint32_t m,
                                   cudaStream_t stream)
{
    const uint32_t held = n % 4 ? UINT32_MAX : (out->stride / 4 + THREADS - 1) / THREADS;
    if (held > 16)
        return launch_early(norm_quantize<plain_row>, dim3(m), dim3(THREADS), 0, stream, *out,
                            plain_row{x}, weight, eps, n);
    return (held == 1   ? launch_held<1>
            : held <= 3 ? launch_held<3>
            : held == 4 ? launch_held<4>
            : held <= 8 ? launch_held<8>
                        : launch_held<16>)(*out, x, weight, eps, n, m, stream);
}

cudaError_t bnt_cuda_activate_quantize(const struct bnt_cuda_quantized *out, const float *gate,
                                       const float *up, uint32_t activation, const float *weight,
                                       float eps, uint32_t n, uint32_t m, cudaStream_t stream)
{
    const activated_row row = {gate, up, activation == BNT_ACTIVATION_RELU2};
    return launch_early(norm_quantize<activated_row>, dim3(m), dim3(THREADS), 0, stream, *out, row,
                        weight, eps, n);
}

cudaError_t bnt_cuda_norm(float *out, const float *x, const float *weight, float eps, uint32_t n,
                          uint32_t m, cudaStream_t stream)
{
    return launch_early(norm, dim3(m), dim3(THREADS), 0, stream, out, x, weight, eps, n);
}
