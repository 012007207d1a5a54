// SPDX-License-Identifier: MIT
// A block's weights on their way from memory to its warps: each warp has a ring of slots in shared
// memory, a piece of 1024 bytes (eight blocks of a tile, or a part of a row) in each, filled in the
// order of use and far ahead of it.
//
// A piece lies in its slot as two halves with 64 bytes between them. Slots are 1088 bytes apart. So
// the eight lanes that read together, four from either half, meet 32 different banks.
//
// Each thread asks for what it will read itself, so that no barrier guards the ring.
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

// A warp's pieces in the order of use: its shares of the segments of every layer, then of the
// output.
struct stream {
    const decode_args &a;
    const small_shared &small;
    const uint32_t warp;
    const uint8_t *tile_data;
    uint32_t layer, segment, left, tile, piece;

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

template <int SLOTS> struct weight_ring {
    uint8_t *slots;
    stream ahead;
    const block &b;
    uint32_t slot;

    __device__ __forceinline__ weight_ring(const block &of, uint8_t *shared)
        : slots(shared + of.warp * SLOTS * RING_SLOT), ahead(of.a, *of.small, of.warp), b(of),
          slot(0)
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

#endif
