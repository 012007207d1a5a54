// SPDX-License-Identifier: MIT
// A block's weights on their way from memory to its warps: each warp has a ring of slots in shared
// memory, a chunk of 512 bytes in each, filled in the order of use and far ahead of it.
//
// A chunk lies in its slot as two halves with 64 bytes between them. Slots are 576 bytes apart. So the
// eight lanes that read together, four pieces of either half, meet 32 different banks.
//
// bulk_ring (Hopper and later): a warp of its own asks the bulk copy engine for the chunks of all
// others. The requests of the others (for results of other blocks, above all) do not queue up behind
// those for weights. async_ring: each thread asks for the piece that it will read itself.
#ifndef BNT_RUNTIME_CUDA_RING_CUH
#define BNT_RUNTIME_CUDA_RING_CUH

#include "runtime/cuda/decode_args.cuh"

enum { HALF_CHUNK = CHUNK_BYTES / 2, HALF_GAP = 64, RING_SLOT = CHUNK_BYTES + HALF_GAP };

// Where byte i of a chunk lies in its slot.
static __device__ __forceinline__ uint32_t slot_offset(uint32_t i)
{
    return i + (i >= HALF_CHUNK ? HALF_GAP : 0);
}

// A warp's chunks in the order of use: its shares of the segments of every layer, then of the output.
struct stream {
    const decode_args &a;
    const small_shared &small;
    const uint32_t warp;
    const uint8_t *tile_data;
    uint32_t layer, segment, left, tile, chunk;

    __device__ __forceinline__ stream(const decode_args &args, const small_shared &shared,
                                      uint32_t of_warp)
        : a(args), small(shared), warp(of_warp), tile_data(NULL), layer(0), segment(QKV_ROWS)
    {
        begin_segment();
    }

    __device__ __forceinline__ void begin_segment()
    {
        const share &mine = small.shares[segment][warp];
        left = mine.count;
        tile = mine.tile;
        chunk = mine.chunk;
        find_tile();
    }

    __device__ __forceinline__ void find_tile()
    {
        const segment_args &g = a.segments[segment];
        const uint64_t index = g.pair_offset ? tile / 2 : tile;
        tile_data = g.base + layer * g.layer_stride + index * g.tile_bytes +
                    (g.pair_offset && tile % 2 ? g.pair_offset : 0);
    }

    __device__ __forceinline__ void next_segment()
    {
        if (segment == DOWN_ROWS && layer + 1 < a.n_layers) {
            segment = QKV_ROWS;
            layer++;
        } else {
            layer = segment == DOWN_ROWS ? 0 : layer;
            segment++;
        }
        if (segment < SEGMENTS)
            begin_segment();
    }

    // Goes to a segment in which there is something left. False at the end.
    __device__ __forceinline__ bool find_next()
    {
        while (left == 0 && segment < SEGMENTS)
            next_segment();
        return segment < SEGMENTS;
    }

    // After find_next: where the chunk lies and its size.
    __device__ __forceinline__ const uint8_t *take(uint32_t *bytes)
    {
        const segment_args &g = a.segments[segment];
        const uint8_t *from = tile_data + chunk * CHUNK_BYTES;
        *bytes = min(g.tile_bytes - chunk * CHUNK_BYTES, (uint32_t)CHUNK_BYTES);
        left--;
        if (++chunk == g.chunks) {
            chunk = 0;
            tile++;
            if (left > 0)
                find_tile();
        }
        return from;
    }
};

// --- copies by the threads themselves ---

template <int SLOTS> struct async_ring {
    enum { BLOCK_THREADS = THREADS, SIZE = SLOTS, BARRIER_BYTES = 0 };
    uint8_t *slots;
    stream ahead;
    const block &b;
    uint32_t slot;

    __device__ __forceinline__ async_ring(const block &of, uint8_t *shared)
        : slots(shared + of.warp * SLOTS * RING_SLOT), ahead(of.a, *of.small, of.warp), b(of),
          slot(0)
    {
        for (uint32_t i = 0; i < SLOTS; i++)
            fill(i);
    }

    // A thread copies what it will read: its piece of a ternary chunk or of a row.
    __device__ __forceinline__ void fill(uint32_t to)
    {
        if (ahead.find_next()) {
            uint32_t offset = ahead.segment == OUTPUT_ROWS ? b.lane * 16 : b.at.offset, bytes;
            const uint8_t *from = ahead.take(&bytes);
            bool valid = offset < bytes;
            copy_async(slots + to * RING_SLOT + slot_offset(offset), from + (valid ? offset : 0),
                       valid);
        }
        copy_commit();
    }

    // This lane's piece of the next chunk.
    __device__ __forceinline__ uint4 take(uint32_t offset)
    {
        copy_wait<SLOTS - 1>();
        return *reinterpret_cast<const uint4 *>(slots + slot * RING_SLOT + offset);
    }

    // The piece has been used.
    __device__ __forceinline__ void release()
    {
        fill(slot);
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
    }
};

// --- copies by the bulk copy engine ---

static __device__ __forceinline__ unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

#if __CUDA_ARCH__ >= 900
static __device__ __forceinline__ void barrier_open(uint64_t *barrier)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier))
                 : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}

static __device__ __forceinline__ void barrier_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

// Whether the phase of the given parity is over; may wait a while for it.
static __device__ __forceinline__ bool barrier_passed(uint64_t *barrier, uint32_t parity)
{
    uint32_t passed;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(passed)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
    return passed;
}

static __device__ __forceinline__ bool barrier_test(uint64_t *barrier, uint32_t parity)
{
    uint32_t passed;
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(passed)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
    return passed;
}

// Weights pass through the L2 cache once: they are the first to leave it.
static __device__ __forceinline__ void copy_bulk(void *to, const void *from, uint32_t bytes,
                                                 uint64_t *barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
                 : "memory");
}

static __device__ __forceinline__ uint64_t evict_first()
{
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// full: the chunk has come; empty: it has been read.
struct slot_barriers {
    uint64_t full, empty;
};

template <int SLOTS> struct bulk_ring {
    enum {
        BLOCK_THREADS = THREADS + WARP,
        SIZE = SLOTS,
        BARRIER_BYTES = WARPS * SLOTS * (int)sizeof(slot_barriers),
    };
    uint8_t *slots;
    slot_barriers *barriers;
    uint32_t lane, slot, parity;

    __device__ __forceinline__ bulk_ring(const block &of, uint8_t *shared)
        : slots(shared + of.warp * SLOTS * RING_SLOT), barriers(find_barriers(shared, of.warp)),
          lane(of.lane), slot(0), parity(0)
    {
    }

    static __device__ __forceinline__ slot_barriers *find_barriers(uint8_t *shared, uint32_t warp)
    {
        return reinterpret_cast<slot_barriers *>(shared + WARPS * SLOTS * RING_SLOT) +
               warp * SLOTS;
    }

    // By all threads, before a barrier of the whole block.
    static __device__ __forceinline__ void open(uint8_t *shared)
    {
        for (uint32_t i = threadIdx.x; i < WARPS * SLOTS; i += BLOCK_THREADS) {
            slot_barriers *s = find_barriers(shared, 0) + i;
            barrier_open(&s->full);
            barrier_open(&s->empty);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }

    __device__ __forceinline__ uint4 take(uint32_t offset)
    {
        while (!barrier_passed(&barriers[slot].full, parity))
            ;
        return *reinterpret_cast<const uint4 *>(slots + slot * RING_SLOT + offset);
    }

    __device__ __forceinline__ void release()
    {
        __syncwarp();
        if (lane == 0)
            barrier_arrive(&barriers[slot].empty);
        if (++slot == SLOTS) {
            slot = 0;
            parity ^= 1;
        }
    }

    // Fills the rings of all warps: a lane of the extra warp for each.
    static __device__ void produce(const decode_args &a, const small_shared &small,
                                   uint8_t *shared)
    {
        const uint32_t warp = threadIdx.x % WARP;
        if (warp >= WARPS)
            return;
        stream s(a, small, warp);
        uint8_t *slots = shared + warp * SLOTS * RING_SLOT;
        slot_barriers *barriers = find_barriers(shared, warp);
        const uint64_t policy = evict_first();
        uint32_t slot = 0, parity = 1; // the first round finds its slots empty
        while (s.find_next()) {
            if (!barrier_test(&barriers[slot].empty, parity))
                continue;
            uint32_t bytes;
            const uint8_t *from = s.take(&bytes);
            uint8_t *to = slots + slot * RING_SLOT;
            uint64_t *full = &barriers[slot].full;
            barrier_expect(full, bytes);
            copy_bulk(to, from, min(bytes, (uint32_t)HALF_CHUNK), full, policy);
            if (bytes > HALF_CHUNK)
                copy_bulk(to + HALF_CHUNK + HALF_GAP, from + HALF_CHUNK, bytes - HALF_CHUNK, full,
                          policy);
            if (++slot == SLOTS) {
                slot = 0;
                parity ^= 1;
            }
        }
    }
};
#endif

#endif
