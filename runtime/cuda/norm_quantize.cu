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
    __device__ __forceinline__ float4 four(size_t i) const
    {
        return *reinterpret_cast<const float4 *>(x + i);
    }
};

struct activated_row {
    const float *gate, *up; // (M, n)
    bool is_relu2;
    __device__ float operator()(size_t i) const
    {
        return (is_relu2 ? relu2(gate[i]) : silu(gate[i])) * up[i];
    }
    __device__ __forceinline__ float4 four(size_t i) const
    {
        const float4 g = *reinterpret_cast<const float4 *>(gate + i);
        const float4 u = *reinterpret_cast<const float4 *>(up + i);
        return is_relu2 ? make_float4(relu2(g.x) * u.x, relu2(g.y) * u.y, relu2(g.z) * u.z,
                                      relu2(g.w) * u.w)
                        : make_float4(silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z,
                                      silu(g.w) * u.w);
    }
};

// The two ways to quantize (bnt.md section 5).
struct in_8_bits {
    static __device__ __forceinline__ float find_scale(float max)
    {
        return 127.0f / fmaxf(max, 1e-5f);
    }
    static __device__ __forceinline__ int quantize(float v, float s)
    {
        return ::quantize(v, s);
    }
    static __device__ __forceinline__ void store(const bnt_cuda_quantized &out, uint32_t i, int q)
    {
        out.x[bnt_cuda_quantized_at(gridDim.x, blockIdx.x, i)] = (int8_t)q;
    }
    static __device__ __forceinline__ void store_four(const bnt_cuda_quantized &out, uint32_t i,
                                                      int a, int b, int c, int d)
    {
        *reinterpret_cast<uint32_t *>(out.x + bnt_cuda_quantized_at(gridDim.x, blockIdx.x, i)) =
            pack_bytes(a, b, c, d);
    }
};

// q = 256 · upper + lower: the lower byte is that of q, as a signed one.
struct in_16_bits {
    static __device__ __forceinline__ float find_scale(float max)
    {
        return 32512.0f / fmaxf(max, 1e-30f);
    }
    static __device__ __forceinline__ int quantize(float v, float s)
    {
        return __float2int_rn(fminf(fmaxf(v * s, -32512.0f), 32512.0f));
    }
    static __device__ __forceinline__ int upper(int q)
    {
        return (q + 128) >> 8;
    }
    static __device__ __forceinline__ size_t at(uint32_t part, uint32_t i)
    {
        return bnt_cuda_quantized_at(2 * gridDim.x, 2 * blockIdx.x + part, i);
    }
    static __device__ __forceinline__ void store(const bnt_cuda_quantized &out, uint32_t i, int q)
    {
        out.x[at(0, i)] = (int8_t)upper(q);
        out.x[at(1, i)] = (int8_t)q;
    }
    static __device__ __forceinline__ void store_four(const bnt_cuda_quantized &out, uint32_t i,
                                                      int a, int b, int c, int d)
    {
        *reinterpret_cast<uint32_t *>(out.x + at(0, i)) =
            pack_bytes(upper(a), upper(b), upper(c), upper(d));
        *reinterpret_cast<uint32_t *>(out.x + at(1, i)) = pack_bytes(a, b, c, d);
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

template <class Bits>
__device__ factors find_factors(float squares, float max, const float *weight, float eps,
                                uint32_t n)
{
    const sum_and_max all = reduce_block(squares, max);
    const float norm = weight ? norm_factor(all.sum, n, eps) : 1.0f;
    return {norm, Bits::find_scale(all.max * norm)};
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

template <class Row, class Bits>
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
    const factors f = find_factors<Bits>(squares, max, weight, eps, n);
    int sum = 0;
    for (uint32_t i = threadIdx.x; i < out.stride; i += THREADS) {
        int q = 0;
        if (i < n) {
            float v = row(from + i);
            q = Bits::quantize(weight ? weight[i] * (v * f.norm) : v, f.scale);
        }
        Bits::store(out, i, q);
        sum += q;
    }
    store_scale_and_sum(out, f.scale, sum);
}

// The same of rows whose length is divisible by four and at most 4 · HELD · THREADS, and so is that
// of padded ones.
template <int HELD, class Row, class Bits>
__global__ void __launch_bounds__(THREADS)
    norm_quantize_held(bnt_cuda_quantized out, Row row, const float *weight, float eps, uint32_t n)
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
        v[j] = i < n ? row.four((size_t)blockIdx.x * n + i) : zero;
    }
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        squares += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
        max = fmaxf(max, fmaxf(fmaxf(fabsf(w[j].x * v[j].x), fabsf(w[j].y * v[j].y)),
                               fmaxf(fabsf(w[j].z * v[j].z), fabsf(w[j].w * v[j].w))));
    }
    const factors f = find_factors<Bits>(squares, max, weight, eps, n);
    int sum = 0;
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        const uint32_t i = (j * THREADS + threadIdx.x) * 4;
        const int a = Bits::quantize(w[j].x * (v[j].x * f.norm), f.scale);
        const int b = Bits::quantize(w[j].y * (v[j].y * f.norm), f.scale);
        const int c = Bits::quantize(w[j].z * (v[j].z * f.norm), f.scale);
        const int d = Bits::quantize(w[j].w * (v[j].w * f.norm), f.scale);
        if (i < out.stride)
            Bits::store_four(out, i, a, b, c, d);
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

__global__ void __launch_bounds__(THREADS)
    activate(float *gate, const float *up, bool is_relu2, size_t count)
{
    let_next_start();
    wait_for_previous();
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        gate[i] = (is_relu2 ? relu2(gate[i]) : silu(gate[i])) * up[i];
}

// What is quantized, and how.
struct job {
    const bnt_cuda_quantized *out;
    const float *weight;
    float eps;
    uint32_t n, m;
    cudaStream_t stream;
};

template <int HELD, class Row, class Bits> cudaError_t launch_held(const job &j, const Row &row)
{
    return launch_early(norm_quantize_held<HELD, Row, Bits>, dim3(j.m), dim3(THREADS), 0, j.stream,
                        *j.out, row, j.weight, j.eps, j.n);
}

template <class Row, class Bits> cudaError_t launch_any(const job &j, const Row &row)
{
    return launch_early(norm_quantize<Row, Bits>, dim3(j.m), dim3(THREADS), 0, j.stream, *j.out,
                        row, j.weight, j.eps, j.n);
}

template <class Row, class Bits> cudaError_t launch(const job &j, const Row &row)
{
    const uint32_t held = j.n % 4 ? UINT32_MAX : (j.out->stride / 4 + THREADS - 1) / THREADS;
    if (held > 16)
        return launch_any<Row, Bits>(j, row);
    return (held == 1   ? launch_held<1, Row, Bits>
            : held <= 3 ? launch_held<3, Row, Bits>
            : held == 4 ? launch_held<4, Row, Bits>
            : held <= 8 ? launch_held<8, Row, Bits>
                        : launch_held<16, Row, Bits>)(j, row);
}
} // namespace

cudaError_t bnt_cuda_norm_quantize(const struct bnt_cuda_quantized *out, const float *x,
                                   const float *weight, float eps, uint32_t n, uint32_t m,
                                   cudaStream_t stream)
{
    const job j = {out, weight, eps, n, m, stream};
    const plain_row row = {x};
    return out->is_16_bit ? launch<plain_row, in_16_bits>(j, row)
                          : launch<plain_row, in_8_bits>(j, row);
}

cudaError_t bnt_cuda_activate_quantize(const struct bnt_cuda_quantized *out, const float *gate,
                                       const float *up, uint32_t activation, const float *weight,
                                       float eps, uint32_t n, uint32_t m, cudaStream_t stream)
{
    const job j = {out, weight, eps, n, m, stream};
    const activated_row row = {gate, up, activation == BNT_ACTIVATION_RELU2};
    if (out->is_16_bit)
        return launch<activated_row, in_16_bits>(j, row);
    return m == 1 ? launch_any<activated_row, in_8_bits>(j, row)
                  : launch<activated_row, in_8_bits>(j, row);
}

cudaError_t bnt_cuda_activate(float *gate, const float *up, uint32_t activation, size_t count,
                              cudaStream_t stream)
{
    return launch_early(activate, dim3((unsigned)((count + THREADS - 1) / THREADS)), dim3(THREADS),
                        0, stream, gate, up, activation == BNT_ACTIVATION_RELU2, count);
}

cudaError_t bnt_cuda_norm(float *out, const float *x, const float *weight, float eps, uint32_t n,
                          uint32_t m, cudaStream_t stream)
{
    return launch_early(norm, dim3(m), dim3(THREADS), 0, stream, out, x, weight, eps, n);
}
