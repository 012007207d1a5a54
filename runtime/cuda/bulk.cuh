// SPDX-License-Identifier: MIT
// Runs of memory into shared memory without waiting: by the copy engine on Hopper, by each thread a
// part before.
#ifndef BNT_RUNTIME_CUDA_BULK_CUH
#define BNT_RUNTIME_CUDA_BULK_CUH

#include "runtime/cuda/barrier.cuh"

#if __CUDA_ARCH__ >= 900
#define HAS_COPY_ENGINE 1
#else
#define HAS_COPY_ENGINE 0
#endif

// All by all threads of a block, which has one dimension, or by its first warp at least where there
// is a copy engine. Addresses and sizes are multiples of 16.

// Makes a barrier; others may wait on it after a barrier of the block.
static __device__ __forceinline__ void open_bulk(barrier *arrived)
{
#if HAS_COPY_ENGINE
    if (threadIdx.x == 0) {
        barrier_init(arrived, 1);
        barrier_init_done();
    }
    __syncwarp(); // the warp may use it at once
#endif
}

// bytes: what will be copied until it is awaited, in all.
static __device__ __forceinline__ void announce_bulk(barrier *arrived, uint32_t bytes)
{
#if HAS_COPY_ENGINE
    if (threadIdx.x == 0)
        barrier_arrive_expecting(arrived, bytes);
#endif
}

static __device__ __forceinline__ void ask_bulk(void *shared, const void *global, uint32_t bytes,
                                                barrier *arrived)
{
#if HAS_COPY_ENGINE
    if (threadIdx.x == 0)
        copy_bulk(shared, global, bytes, arrived);
#else
    for (uint32_t i = threadIdx.x * 16; i < bytes; i += blockDim.x * 16)
        copy_async((uint8_t *)shared + i, (const uint8_t *)global + i, true);
    copy_commit();
#endif
}

// use: how often the barrier was awaited before. What barrier_wait does, in a form that leaves the
// registers of products as they were measured.
static __device__ __forceinline__ void await_bulk(barrier *arrived, uint32_t use)
{
#if HAS_COPY_ENGINE
    uint32_t done = 0;
    while (!done)
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(done)
                     : "r"(shared_address(arrived)), "r"(use % 2)
                     : "memory");
#else
    copy_wait<0>();
    __syncthreads();
#endif
}

#endif
