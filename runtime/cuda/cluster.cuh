// SPDX-License-Identifier: MIT
// How blocks of a cluster hand values to each other, on Hopper or later: a word is written into
// another block's shared memory and counted there by a barrier, on which that block's threads wait.
#ifndef BNT_RUNTIME_CUDA_CLUSTER_CUH
#define BNT_RUNTIME_CUDA_CLUSTER_CUH

#include "runtime/cuda/bulk.cuh"

#if __CUDA_ARCH__ >= 900
#define HAS_CLUSTERS 1

static __device__ __forceinline__ uint32_t rank_in_cluster()
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// By all threads: makes the barrier, which its fence lets the cluster see, and says so. bytes: what
// the block will receive; it is no harm if some of it comes before this is announced.
static __device__ __forceinline__ void open_mailbox(barrier *parts, uint32_t bytes)
{
    open_bulk(parts);
    announce_bulk(parts, bytes);
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

// By all threads, before the first message: until all blocks have opened theirs.
static __device__ __forceinline__ void await_mailboxes()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// A block of the cluster: what lies at p in this block's shared memory lies at p + offset there.
struct receiver {
    uint32_t offset, barrier;
};

static __device__ __forceinline__ receiver find_receiver(barrier *parts, uint32_t rank)
{
    const uint32_t own = shared_address(parts);
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(own), "r"(rank));
    return {there - own, there};
}

static __device__ __forceinline__ void send(const receiver &to, float *p, float v)
{
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
            shared_address(p) + to.offset),
        "f"(v), "r"(to.barrier)
        : "memory");
}

static __device__ __forceinline__ void send(const receiver &to, float2 *p, float2 v)
{
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::
            "r"(shared_address(p) + to.offset),
        "f"(v.x), "f"(v.y), "r"(to.barrier)
        : "memory");
}

// By all threads: until all that was announced has come.
static __device__ __forceinline__ void await_messages(barrier *parts)
{
    uint32_t done = 0;
    while (!done)
        asm volatile("{\n"
                     ".reg .pred p;\n"
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], 0;\n"
                     "selp.u32 %0, 1, 0, p;\n"
                     "}"
                     : "=r"(done)
                     : "r"(shared_address(parts))
                     : "memory");
}

#else
#define HAS_CLUSTERS 0
#endif

#endif
