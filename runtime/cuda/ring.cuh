// SPDX-License-Identifier: MIT
// A block's weights on their way from memory to its warps: each warp has a ring of slots in shared
// memory, a piece of 1024 bytes (eight blocks of a tile, or a part of a row) in each, filled in the
// order of use and far ahead of it.
//
// A piece lies in its slot as two halves with 64 bytes between them. Slots are 1088 bytes apart. So the
// eight lanes that read together, four from either half, meet 32 different banks.
//
// async_ring: each thread asks for what it will read itself. bulk_ring (Hopper and later): producer
// warps ask the bulk copy engine for all others. They keep only as many pieces on their way as it takes
// to use the bandwidth: whatever else the block asks memory for waits behind them.
#ifndef BNT_RUNTIME_CUDA_RING_CUH
#define BNT_RUNTIME_CUDA_RING_CUH

#include "runtime/cuda/decode_args.cuh"

enum { HALF_PIECE = PIECE_BYTES / 2, HALF_GAP = 64, RING_SLOT = PIECE_BYTES + HALF_GAP };

// The two parts of a piece that a lane reads, each 16 bytes, in bytes from the piece's start.
struct lane_parts {
    uint32_t first, second;
};

// Of a ternary piece: the lane's part of two chunks that are multiplied one after the other. Blocks
// 0, 1, 4 and 5 of the piece make the first chunk, 2, 3, 6 and 7 the second.
static __device__ __forceinline__ lane_parts ternary_parts(const chunk_lane &at)
{
    const uint32_t first = at.offset + (at.t >= 2 ? 2 * BLOCK_BYTES : 0);
    return {first, first + 2 * BLOCK_BYTES};
}

static __device__ __forceinline__ lane_parts row_parts(uint32_t lane)
{
    return {lane * 16, HALF_PIECE + lane * 16};
}

// Where byte i of a piece lies in its slot.
static __device__ __forceinline__ uint32_t slot_offset(uint32_t i)
{
    return i + (i >= HALF_PIECE ? HALF_GAP : 0);
}

// A warp's pieces in the order of use: its shares of the segments of every layer, then of the output.
struct stream {
    const decode_args &a;
    const small_shared &small;
    const uint32_t warp;
    const uint8_t *tile_data;
    uint32_t layer, segment, left, tile, piece;

    __device__ __forceinline__ stream(const decode_args &args, const small_shared &shared,
                                      uint32_t of_warp, uint32_t from)
        : a(args), small(shared), warp(of_warp), tile_data(NULL), layer(0), segment(from)
    {
        begin_segment();
    }

    __device__ __forceinline__ void begin_segment()
    {
        const share &mine = small.shares[segment][warp];
        left = mine.count;
        tile = mine.tile;
        piece = mine.piece;
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

    // After find_next: where the piece lies and its size.
    __device__ __forceinline__ const uint8_t *take(uint32_t *bytes)
    {
        const segment_args &g = a.segments[segment];
        const uint8_t *from = tile_data + piece * PIECE_BYTES;
        *bytes = min(g.tile_bytes - piece * PIECE_BYTES, (uint32_t)PIECE_BYTES);
        left--;
        if (++piece == g.pieces) {
            piece = 0;
            tile++;
            if (left > 0)
                find_tile();
        }
        return from;
    }
};

// --- copies by the threads themselves ---

template <int SLOTS> struct async_ring {
    uint8_t *slots;
    stream ahead;
    const block &b;
    uint32_t slot;

    // first: the segment to begin with.
    __device__ __forceinline__ async_ring(const block &of, uint8_t *shared, uint32_t first)
        : slots(shared + of.warp * SLOTS * RING_SLOT), ahead(of.a, *of.small, of.warp, first),
          b(of), slot(0)
    {
        for (uint32_t i = 0; i < SLOTS; i++)
            fill(i);
    }

    __device__ __forceinline__ void copy(uint32_t to, const uint8_t *from, uint32_t part,
                                         uint32_t bytes)
    {
        const bool valid = part < bytes;
        copy_async(slots + to * RING_SLOT + slot_offset(part), from + (valid ? part : 0), valid);
    }

    __device__ __forceinline__ void fill(uint32_t to)
    {
        if (ahead.find_next()) {
            const lane_parts parts =
                ahead.segment == OUTPUT_ROWS ? row_parts(b.lane) : ternary_parts(b.at);
            uint32_t bytes;
            const uint8_t *from = ahead.take(&bytes);
            copy(to, from, parts.first, bytes);
            copy(to, from, parts.second, bytes);
        }
        copy_commit();
    }

    // This lane's parts of the next piece.
    __device__ __forceinline__ void take(uint4 (&w)[2], lane_parts parts)
    {
        copy_wait<SLOTS - 1>();
        const uint8_t *from = slots + slot * RING_SLOT;
        w[0] = *reinterpret_cast<const uint4 *>(from + slot_offset(parts.first));
        w[1] = *reinterpret_cast<const uint4 *>(from + slot_offset(parts.second));
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

// full: the piece has come; empty: it has been read.
struct slot_barriers {
    uint64_t full, empty;
};

// Of ternary pieces only: the rows of the output layer come one after the other without a pause, which
// the warps can see to themselves.
template <int SLOTS> struct bulk_ring {
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
        if (threadIdx.x < WARPS * SLOTS) {
            slot_barriers *s = find_barriers(shared, 0) + threadIdx.x;
            barrier_open(&s->full);
            barrier_open(&s->empty);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }

    __device__ __forceinline__ void take(uint4 (&w)[2], lane_parts parts)
    {
        while (!barrier_passed(&barriers[slot].full, parity))
            ;
        const uint8_t *from = slots + slot * RING_SLOT;
        w[0] = *reinterpret_cast<const uint4 *>(from + slot_offset(parts.first));
        w[1] = *reinterpret_cast<const uint4 *>(from + slot_offset(parts.second));
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

    // Fills the rings of all warps: each lane of some in each producer warp one of them.
    static __device__ void produce(const decode_args &a, const small_shared &small,
                                   uint8_t *shared)
    {
        const uint32_t each = WARPS / PRODUCERS;
        if (threadIdx.x % WARP >= each)
            return;
        const uint32_t warp = (threadIdx.x - THREADS) / WARP * each + threadIdx.x % WARP;
        stream s(a, small, warp, QKV_ROWS);
        uint8_t *slots = shared + warp * SLOTS * RING_SLOT;
        slot_barriers *barriers = find_barriers(shared, warp);
        const uint64_t policy = evict_first();
        uint32_t slot = 0, parity = 1;  // the first round finds its slots empty
        uint32_t behind = 0, behind_parity = 0, on_way = 0;
        while (s.find_next() && s.segment != OUTPUT_ROWS) {
            if (on_way == a.pace) {
                if (!barrier_test(&barriers[behind].full, behind_parity))
                    continue;
                on_way--;
                if (++behind == SLOTS) {
                    behind = 0;
                    behind_parity ^= 1;
                }
            }
            if (!barrier_test(&barriers[slot].empty, parity))
                continue;
            uint32_t bytes;
            const uint8_t *from = s.take(&bytes);
            uint8_t *to = slots + slot * RING_SLOT;
            uint64_t *full = &barriers[slot].full;
            barrier_expect(full, bytes);
            copy_bulk(to, from, min(bytes, (uint32_t)HALF_PIECE), full, policy);
            if (bytes > HALF_PIECE)
                copy_bulk(to + HALF_PIECE + HALF_GAP, from + HALF_PIECE, bytes - HALF_PIECE, full,
                          policy);
            on_way++;
            if (++slot == SLOTS) {
                slot = 0;
                parity ^= 1;
            }
        }
    }
};
#endif

#endif
