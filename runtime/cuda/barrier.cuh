// SPDX-License-Identifier: MIT
// Hopper's barriers in shared memory, which count bytes too, and copies of whole runs of memory
// that are counted there. Each function is what one thread does.
#ifndef BNT_RUNTIME_CUDA_BARRIER_CUH
#define BNT_RUNTIME_CUDA_BARRIER_CUH

#include "runtime/cuda/device.cuh"

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

struct barrier {
    uint64_t state;
};

static __device__ __forceinline__ void barrier_init(barrier *b, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
                 : "memory");
}

// Makes the initial states seen by copies, too.
static __device__ __forceinline__ void barrier_init_done()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void barrier_arrive(barrier *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}

// Arrives, and lets the phase last until copies have brought that many bytes more.
static __device__ __forceinline__ void barrier_arrive_expecting(barrier *b, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
                 "r"(bytes)
                 : "memory");
}

// Arrives as soon as what this thread has asked for by copy_async has come.
static __device__ __forceinline__ void barrier_arrive_copied(barrier *b)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(b))
                 : "memory");
}

// Waits for the end of the phase of that parity; phases are 0, 1, 0, …
static __device__ __forceinline__ void barrier_wait(barrier *b, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(shared_address(b)),
                 "r"(parity)
                 : "memory");
}

// Copies a multiple of 16 bytes into shared memory and counts them at the barrier.
static __device__ __forceinline__ void copy_bulk(void *shared, const void *global, uint32_t bytes,
                                                 barrier *b)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(b))
                 : "memory");
}

#endif
