// SPDX-License-Identifier: MIT
// Vectors on their way between blocks. See decode.cu for how.
#ifndef BNT_RUNTIME_CUDA_DECODE_VECTORS_CUH
#define BNT_RUNTIME_CUDA_DECODE_VECTORS_CUH

#include "runtime/cuda/decode_args.cuh"

static __device__ __forceinline__ uint32_t mark_of(uint32_t use)
{
    return (use >> 1 & 1) ^ 1; // the buffers begin as zeros
}

static __device__ __forceinline__ uint32_t *buffer_of(uint32_t *buffers, uint32_t size,
                                                      uint32_t use)
{
    return buffers + (use & 1) * (size_t)size;
}

static __device__ __forceinline__ void publish(uint32_t *to, uint32_t word, uint32_t mark)
{
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"((word & ~1u) | mark)
                 : "memory");
}

static __device__ __forceinline__ void publish_sum(uint32_t *to, int sum, uint32_t mark)
{
    publish(to, (uint32_t)sum << 1, mark);
}

static __device__ __forceinline__ void publish_float(uint32_t *to, float v, uint32_t mark)
{
    publish(to, __float_as_uint(v), mark);
}

static __device__ __forceinline__ float to_float(uint32_t word)
{
    return __uint_as_float(word & ~1u);
}

static __device__ __forceinline__ float to_sum(uint32_t word)
{
    return (float)((int)word >> 1);
}

static __device__ __forceinline__ uint4 look(const uint32_t *from)
{
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

static __device__ __forceinline__ bool is_new(uint4 v, uint32_t mark)
{
    return (((v.x ^ mark) | (v.y ^ mark) | (v.z ^ mark) | (v.w ^ mark)) & 1) == 0;
}

static __device__ __forceinline__ void count_spin(int &spins)
{
    if (++spins == SPIN_LIMIT)
        __trap();
}

static __device__ __forceinline__ uint32_t await_word(const uint32_t *from, uint32_t mark)
{
    int spins = 0;
    uint32_t word;
    do {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(word) : "l"(from) : "memory");
        count_spin(spins);
    } while ((word ^ mark) & 1);
    return word;
}

// Awaits two words, or N pieces, together.
static __device__ __forceinline__ uint2 await_words(const uint32_t *a, const uint32_t *b,
                                                    uint32_t mark)
{
    int spins = 0;
    uint2 v;
    do {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v.x) : "l"(a) : "memory");
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v.y) : "l"(b) : "memory");
        count_spin(spins);
    } while (((v.x ^ mark) | (v.y ^ mark)) & 1);
    return v;
}

template <int N>
static __device__ __forceinline__ void await(uint4 (&v)[N], const uint32_t *const (&from)[N],
                                             uint32_t mark)
{
    int spins = 0;
    bool all;
    do {
        all = true;
#pragma unroll
        for (int i = 0; i < N; i++)
            v[i] = look(from[i]);
#pragma unroll
        for (int i = 0; i < N; i++)
            all = all && is_new(v[i], mark);
        count_spin(spins);
    } while (!all);
}

// Pieces first, first + THREADS, … of AT_ONCE, as far as they lie below count.
static __device__ __forceinline__ void await_pieces(uint4 (&v)[AT_ONCE], const uint32_t *from,
                                                    uint32_t first, uint32_t count, uint32_t mark)
{
    int spins = 0;
    uint32_t pending = 0;
#pragma unroll
    for (uint32_t r = 0; r < AT_ONCE; r++)
        pending |= (first + r * THREADS < count ? 1u : 0u) << r;
    while (pending) {
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            if (pending >> r & 1)
                v[r] = look(from + (size_t)(first + r * THREADS) * 4);
        }
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            if (is_new(v[r], mark))
                pending &= ~(1u << r);
        }
        count_spin(spins);
    }
}

#endif
