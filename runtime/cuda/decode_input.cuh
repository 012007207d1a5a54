// SPDX-License-Identifier: MIT
// How a block awaits a vector and norms it.
#ifndef BNT_RUNTIME_CUDA_DECODE_INPUT_CUH
#define BNT_RUNTIME_CUDA_DECODE_INPUT_CUH

#include "runtime/cuda/decode_vectors.cuh"

static __device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

static __device__ __forceinline__ float squares(float4 v)
{
    return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
}

static __device__ __forceinline__ float largest(float4 v)
{
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// The four values of a piece: x += sum · factor, which stays, or floats as they are.
static __device__ __forceinline__ float4 value_of(uint4 w, float4 *x, float factor, bool is_sum)
{
    if (!is_sum)
        return make_float4(to_float(w.x), to_float(w.y), to_float(w.z), to_float(w.w));
    float4 v = *x;
    v.x += to_sum(w.x) * factor;
    v.y += to_sum(w.y) * factor;
    v.z += to_sum(w.z) * factor;
    v.w += to_sum(w.w) * factor;
    *x = v;
    return v;
}

struct totals {
    float squares, max;
};

static __device__ totals reduce_block(const block &b, float sum, float max)
{
    sum = warp_sum(sum);
    // Numbers that are not negative order as their bits do.
    max = __uint_as_float(__reduce_max_sync(FULL_WARP, __float_as_uint(max)));
    if (b.lane == 0)
        b.small->totals[b.warp] = make_float2(sum, max);
    __syncthreads();
    totals t = {0, 0};
#pragma unroll
    for (int i = 0; i < WARPS / 2; i++) {
        float4 two = reinterpret_cast<const float4 *>(b.small->totals)[i];
        t.squares += two.x + two.z;
        t.max = fmaxf(t.max, fmaxf(two.y, two.w));
    }
    return t;
}

// A vector that is awaited.
struct input {
    const uint32_t *vector; // NULL: the values are those of x
    uint32_t mark, n;
    const float *norm; // (n), or NULL
    bool is_sum;       // of a product, to be added to x
    float factor;      // of the sums
};

// Awaits a vector, takes values from it and leaves them times the norm's weights in y.
static __device__ __forceinline__ totals gather(const block &b, const input &in)
{
    float sum = 0, max = 0;
    const uint32_t pieces = in.n / 4;
#pragma unroll 1
    for (uint32_t base = b.warp * WARP; base < pieces; base += AT_ONCE * THREADS) {
        const uint32_t first = base + b.lane; // a warp stays together, some lanes perhaps idle
        float4 w[AT_ONCE];
        uint4 v[AT_ONCE];
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            w[r] = make_float4(1, 1, 1, 1);
            if (in.norm && first + r * THREADS < pieces)
                w[r] = __ldg(reinterpret_cast<const float4 *>(in.norm) + first + r * THREADS);
        }
        if (in.vector)
            await_pieces(v, in.vector, first, pieces, in.mark);
        __syncwarp();
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            const uint32_t i = first + r * THREADS;
            if (i >= pieces)
                break;
            float4 *x = reinterpret_cast<float4 *>(b.x) + i;
            float4 value = in.vector ? value_of(v[r], x, in.factor, in.is_sum) : *x;
            float4 scaled = times(w[r], value);
            sum += squares(value);
            max = fmaxf(max, largest(scaled));
            reinterpret_cast<float4 *>(b.y)[i] = scaled;
        }
    }
    return reduce_block(b, sum, max);
}

static __device__ __forceinline__ float norm_factor(const decode_args &a, float sum, uint32_t n)
{
    return rsqrtf(sum * (1.0f / (float)n) + a.eps);
}

#endif
