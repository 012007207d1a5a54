// SPDX-License-Identifier: MIT
// Runs of memory into shared memory without waiting: by the copy engine on Hopper, by each thread a
// part before.
#ifndef BNT_RUNTIME_CUDA_BULK_CUH
#define BNT_RUNTIME_CUDA_BULK_CUH

#include "runtime/cuda/device.cuh"

typedef unsigned long long message_barrier; // in shared memory

#if __CUDA_ARCH__ >= 900
#define HAS_COPY_ENGINE 1
#else
#define HAS_COPY_ENGINE 0
#endif

// All by all threads of a block, which has one dimension, or by its first warp at least where there
// is a copy engine. Addresses and sizes are multiples of 16.

// Makes a barrier; others may wait on it after a barrier of the block.
static __device__ __forceinline__ void open_bulk(message_barrier *barrier)
{
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
        const uint32_t at = (uint32_t)__cvta_generic_to_shared(barrier);
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(at) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp(); // the warp may use it at once
#endif
}

// bytes: what will be copied until it is awaited, in all.
static __device__ __forceinline__ void announce_bulk(message_barrier *barrier, uint32_t bytes)
{
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x > 0)
        return;
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(barrier)),
                 "r"(bytes)
                 : "memory");
#endif
}

static __device__ __forceinline__ void copy_bulk(void *shared, const void *global, uint32_t bytes,
                                                 message_barrier *barrier)
{
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x > 0)
        return;
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"((uint32_t)__cvta_generic_to_shared(shared)),
        "l"(global), "r"(bytes), "r"((uint32_t)__cvta_generic_to_shared(barrier))
        : "memory");
#else
    for (uint32_t i = threadIdx.x * 16; i < bytes; i += blockDim.x * 16)
        copy_async((uint8_t *)shared + i, (const uint8_t *)global + i, true);
    copy_commit();
#endif
}

// use: how often the barrier was awaited before.
static __device__ __forceinline__ void await_bulk(message_barrier *barrier, uint32_t use)
{
#if __CUDA_ARCH__ >= 900
    uint32_t done = 0;
    while (!done)
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(done)
                     : "r"((uint32_t)__cvta_generic_to_shared(barrier)), "r"(use % 2)
                     : "memory");
#else
    copy_wait<0>();
    __syncthreads();
#endif
}

#endif
