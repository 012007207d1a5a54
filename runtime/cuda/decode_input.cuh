// SPDX-License-Identifier: MIT
// How the kernels of a token take in what others have made.
#ifndef BNT_RUNTIME_CUDA_DECODE_INPUT_CUH
#define BNT_RUNTIME_CUDA_DECODE_INPUT_CUH

#include "runtime/cuda/decode_steps.cuh"
#include "runtime/cuda/device.cuh"

// What another kernel of the token has written: after the wait, past the L1 cache, and in this
// place, which the compiler must keep.
static __device__ __forceinline__ float4 load_fresh(const float4 *p)
{
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

static __device__ __forceinline__ float load_fresh(const float *p)
{
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}

static __device__ __forceinline__ uint32_t load_fresh(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

// Keeps the compiler from computing a value anew after the wait, to save a register.
static __device__ __forceinline__ void keep(uint32_t &v)
{
    asm volatile("" : "+r"(v));
}

static __device__ __forceinline__ void keep(float &v)
{
    asm volatile("" : "+f"(v));
}

static __device__ __forceinline__ void keep(double &v)
{
    asm volatile("" : "+d"(v));
}

template <class T> static __device__ __forceinline__ void keep(const T *&p)
{
    asm volatile("" : "+l"(p));
}

static __device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

static __device__ __forceinline__ float largest(float4 v)
{
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// Of some values: what a norm and quantization need to know.
struct input_totals {
    float squares; // their sum
    float largest; // of the values times the norm's weights, the greatest magnitude

    __device__ __forceinline__ void add(float4 v, float4 weighted)
    {
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        largest = fmaxf(largest, ::largest(weighted));
    }
};

// Room for a block's; those of warps that do not exist must be zero.
enum { MOST_WARPS = 16 };
struct block_totals {
    alignas(16) float2 of_warps[MOST_WARPS];
};

// By what a vector is to be multiplied: the norm's factor, beside its weights, and the largest
// magnitude that comes out.
struct input_factors {
    float norm, largest;
};

// By all threads, each with its part of the vector; behind a barrier.
static __device__ __forceinline__ input_factors find_factors(const decode_input &in, input_totals t,
                                                             block_totals *shared)
{
    t.squares = warp_sum(t.squares);
    // Numbers that are not negative order as their bits do.
    t.largest = __uint_as_float(__reduce_max_sync(FULL_WARP, __float_as_uint(t.largest)));
    if (threadIdx.x % WARP == 0)
        shared->of_warps[threadIdx.x / WARP] = make_float2(t.squares, t.largest);
    __syncthreads();
    float squares[2] = {0, 0}, most[2] = {0, 0};
#pragma unroll
    for (uint32_t i = 0; i < MOST_WARPS / 2; i++) {
        const float4 two = reinterpret_cast<const float4 *>(shared->of_warps)[i];
        squares[i % 2] += two.x + two.z;
        most[i % 2] = fmaxf(most[i % 2], fmaxf(two.y, two.w));
    }
    float norm = 1;
    if (in.norm)
        norm = rsqrtf((squares[0] + squares[1]) * in.inverse_n + in.eps);
    return {norm, fmaxf(most[0], most[1]) * norm};
}

#endif
