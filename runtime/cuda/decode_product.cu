// SPDX-License-Identifier: MIT
// A ternary product of one token, with the norm and the quantization of what it takes in, and the
// residual or the activation of what comes out.
//
// A block has whole tiles, whose weights the copy engine brings into shared memory before the wait.
// A tile's columns are cut into slices, one a warp: it quantizes its slice of the input and
// multiplies it by all of the block's tiles, with no barrier between the two. Sums of the slices
// meet in shared memory; integers, they come out the same in any order.
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/decode_slices.cuh"

namespace
{
// Where a row's product goes. It lies in shared memory while the weights are multiplied: in
// registers it would make the compiler put others into local memory, which is far away.
struct alignas(16) target {
    float *out; // NULL for padding
    float scale;
    float old; // what is added
};

__device__ __forceinline__ target find_target(const decode_product &a, uint32_t tile, uint32_t row)
{
    uint32_t first = 0, rows = a.product.parts[0].rows;
    target to = {a.product.parts[0].out, a.product.parts[0].scale, 0};
#pragma unroll
    for (uint32_t p = 1; p < BNT_CUDA_MAX_PARTS; p++) {
        const bnt_cuda_part &part = a.product.parts[p];
        if (!a.product.gated && p < a.product.n_parts && tile >= part.first_tile) {
            first = part.first_tile;
            rows = part.rows;
            to.out = part.out;
            to.scale = part.scale;
        }
    }
    const uint32_t r = (tile - first) * TILE_ROWS + row;
    to.out = r < rows ? to.out + r : NULL;
    return to;
}

__device__ __forceinline__ uint32_t quantize_run(float4 v, float s)
{
    return pack_bytes(quantize_bits(v.x, s), quantize_bits(v.y, s), quantize_bits(v.z, s),
                      quantize_bits(v.w, s));
}

// The slice into shared memory, for the warp alone. Returns the sum of all.
template <int CHUNKS>
__device__ __forceinline__ int quantize(const slice<CHUNKS> &x, uint32_t *to, float scale)
{
    int sum = 0;
    __syncwarp();
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
        const uint32_t q = quantize_run(x.v[i], scale);
        to[i * WARP] = q;
        sum = __dp4a((int)q, 0x01010101, sum);
    }
    return warp_sum(sum);
}

// Of two operands' sums, those that the lane finds.
__device__ __forceinline__ int2 pick_two(const int (&s)[2][4], const shared_lane &at)
{
    const int a = at.is_last ? s[1][0] : s[0][0], b = at.is_last ? s[1][1] : s[0][1];
    const int c = at.is_last ? s[1][2] : s[0][2], d = at.is_last ? s[1][3] : s[0][3];
    return make_int2(at.odd ? b : a, at.odd ? d : c);
}

// The chunks of two tiles from the first on, times the slice; to the tiles' rows. Where there are
// fewer chunks, the activations are zeros, and weights are whatever lies behind. to_second: bytes
// to the second tile, or 0, and its rows get what nobody reads.
template <int CHUNKS>
__device__ __forceinline__ void
multiply_tiles(int *rows, const uint8_t *first, const uint8_t *second, uint32_t to_second,
               const uint4 (&x)[CHUNKS], int correction, const shared_lane &at)
{
    static_assert(3 * 64 * 128ll * CHUNKS * BNT_CUDA_CHUNK_COLS <= INT32_MAX, "sums fit in int32");
    scaled_sums s[2] = {};
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (uint32_t t = 0; t < 2; t++) {
            const uint32_t offset = t * to_second + i * CHUNK_BYTES;
            const uint2 a = *reinterpret_cast<const uint2 *>(first + offset);
            const uint2 b = *reinterpret_cast<const uint2 *>(second + offset);
            multiply(s[t], make_uint4(a.x, a.y, b.x, b.y), x[i]);
        }
    }
#pragma unroll
    for (uint32_t t = 0; t < 2; t++) {
        const int2 by_4 = pick_two(s[t].by_4, at), by_64 = pick_two(s[t].by_64, at);
        atomicAdd(rows + t * TILE_ROWS, (by_4.x >> 2) + (by_64.x >> 6) - correction);
        atomicAdd(rows + t * TILE_ROWS + 1, (by_4.y >> 2) + (by_64.y >> 6) - correction);
    }
}

// Asks for the norm's weights and the block's tiles: of gate and up, all of its gate tiles first.
__device__ __forceinline__ void ask_weights(const decode_product &a, range own, uint8_t *norm,
                                            uint8_t *weights, barrier *arrived)
{
    const uint32_t tile_bytes = a.product.n_blocks * BLOCK_BYTES, bytes = own.count * tile_bytes;
    const uint32_t norm_bytes = a.in.norm ? a.in.n * (uint32_t)sizeof(float) : 0;
    const uint8_t *from =
        reinterpret_cast<const uint8_t *>(a.product.blocks) + (size_t)own.first * tile_bytes;
    open_bulk(arrived);
    announce_bulk(arrived, (a.product.gated ? 2 : 1) * bytes + norm_bytes);
    if (a.in.norm)
        ask_bulk(norm, a.in.norm, norm_bytes, arrived);
    ask_bulk(weights, from, bytes, arrived);
    if (a.product.gated)
        ask_bulk(weights + bytes, from + (size_t)a.product.n_tiles / 2 * tile_bytes, bytes,
                 arrived);
}

// What comes out for a row, from its sum and that of its up row, if it has one.
__device__ __forceinline__ float finish_row(const decode_product &a, const target &to, float sum,
                                            float up_sum, float scale)
{
    const float v = sum * __fdividef(to.scale, scale);
    if (!a.product.gated)
        return v + to.old;
    const float up = up_sum * __fdividef(a.product.parts[1].scale, scale);
    return (a.product.activation == BNT_ACTIVATION_RELU2 ? relu2(v) : silu(v)) * up;
}

// A block's units are tiles, or pairs of a gate tile and an up tile. A block has a thread at least
// for each row that comes out.
template <int CHUNKS>
__global__ void __maxnreg__(CHUNKS < MAX_CHUNKS ? SHORT_REGISTERS : LONG_REGISTERS)
    multiply_input(const __grid_constant__ decode_product a, cut units, cut chunks)
{
    extern __shared__ __align__(128) uint8_t dynamic[]; // the norm's weights, then the tiles
    __shared__ barrier arrived;
    __shared__ __align__(16) int8_t quantized[MAX_WARPS][CHUNKS * BNT_CUDA_CHUNK_COLS];
    __shared__ int rows[2 * MAX_WARPS * WARP + TILE_ROWS];
    __shared__ target targets[MAX_WARPS * WARP];
    __shared__ block_totals totals;
    let_next_start();
    const shared_lane at = find_shared_lane();
    const uint32_t thread = threadIdx.x, warp = thread / WARP, lane = thread % WARP;
    const range own = share_of(units, blockIdx.x), part = share_of(chunks, warp);
    const uint32_t n_tiles = a.product.gated ? 2 * own.count : own.count;
    const uint32_t norm_runs = a.in.norm ? a.in.n / 4 : 0;
    const uint32_t weights = bnt_cuda_pad(norm_runs, WARP) * (uint32_t)sizeof(float4);
    if (warp == 0 || !HAS_COPY_ENGINE)
        ask_weights(a, own, dynamic, dynamic + weights, &arrived);
    float4 *norm = reinterpret_cast<float4 *>(dynamic);
    for (uint32_t i = norm_runs + thread; i * sizeof(float4) < weights; i += blockDim.x)
        norm[i] = make_float4(0, 0, 0, 0);
    for (uint32_t i = thread; i < n_tiles * TILE_ROWS; i += blockDim.x)
        rows[i] = 0;
    if (thread < MOST_WARPS)
        totals.of_warps[thread] = make_float2(0, 0);
    norm += part.first * WARP + lane;

    const float *old_at = NULL;
    if (thread < own.count * TILE_ROWS) {
        const target to = find_target(a, own.first + thread / TILE_ROWS, thread % TILE_ROWS);
        old_at = a.product.add ? to.out : NULL;
        targets[thread] = to;
    }
    const uint32_t column = part.first * BNT_CUDA_CHUNK_COLS + lane * 4;
    const float *x_at = a.in.x + column;
    uint32_t left = column < a.in.n ? (a.in.n - column - 1) / BNT_CUDA_CHUNK_COLS + 1 : 0;
    left = min(left, part.count);
    uint32_t first = weights + part.first * CHUNK_BYTES + at.first;
    uint32_t second = weights + part.first * CHUNK_BYTES + at.second;
    uint32_t row = at.row, has_norm = a.in.norm != NULL;
    uint32_t two_tiles = 2 * a.product.n_blocks * BLOCK_BYTES;
    keep(x_at);
    keep(left);
    keep(first);
    keep(second);
    keep(old_at);
    keep(row);
    keep(has_norm);
    keep(two_tiles);
    __syncthreads();

    wait_for_previous();
    slice<CHUNKS> x;
    input_totals t = {0, 0};
    x.ask(x_at, left);
    const float old = old_at ? load_fresh(old_at) : 0;
    await_bulk(&arrived, 0);
    x.weigh(has_norm ? norm : NULL, left, &t);
    // A slice may be longer than what is held at once; then it is read twice.
#pragma unroll 1
    for (uint32_t done = CHUNKS; done < part.count; done += CHUNKS) {
        const uint32_t rest = left - min(left, done);
        x.ask(x_at + done * BNT_CUDA_CHUNK_COLS, rest);
        x.weigh(has_norm ? norm + done * WARP : NULL, rest, &t);
    }
    const input_factors factors = find_factors(a.in, t, &totals);
    if (old_at)
        targets[thread].old = old;
    const float scale = __fdividef(127.0f, fmaxf(factors.largest, 1e-5f));
    const float factor = factors.norm * scale;
#pragma unroll 1
    for (uint32_t done = 0; done < part.count; done += CHUNKS) {
        if (part.count > CHUNKS) {
            const uint32_t rest = left - min(left, done);
            x.ask(x_at + done * BNT_CUDA_CHUNK_COLS, rest);
            x.weigh(has_norm ? norm + done * WARP : NULL, rest, &t);
        }
        const int sum = quantize(x, reinterpret_cast<uint32_t *>(quantized[warp]) + lane, factor);
        uint4 q[CHUNKS];
        __syncwarp();
#pragma unroll
        for (uint32_t i = 0; i < CHUNKS; i++)
            q[i] = at.has_x ? *reinterpret_cast<const uint4 *>(
                                  quantized[warp] + i * BNT_CUDA_CHUNK_COLS + at.x_offset)
                            : make_uint4(0, 0, 0, 0);
        const uint8_t *tiles = dynamic + done * CHUNK_BYTES;
#pragma unroll 1
        for (uint32_t i = 0; i < n_tiles; i += 2, tiles += two_tiles)
            multiply_tiles<CHUNKS>(rows + row + i * TILE_ROWS, tiles + first, tiles + second,
                                   i + 1 < n_tiles ? two_tiles / 2 : 0, q, at.is_half ? 2 * sum : 0,
                                   at);
    }
    __syncthreads();
    if (thread >= own.count * TILE_ROWS)
        return;
    const target to = targets[thread];
    const float up = a.product.gated ? (float)rows[own.count * TILE_ROWS + thread] : 0;
    if (to.out)
        *to.out = finish_row(a, to, (float)rows[thread], up, scale);
}

uint32_t unit_bytes(const bnt_cuda_product &product)
{
    return product.n_blocks * BLOCK_BYTES * (product.gated ? 2 : 1);
}

// Of dynamic shared memory, besides weights: the norm's, and what is read in vain behind a tile.
uint32_t other_bytes(uint32_t chunks)
{
    return chunks * BNT_CUDA_CHUNK_COLS * (uint32_t)sizeof(float) + MAX_CHUNKS * CHUNK_BYTES;
}

// One block on each multiprocessor, or more where they would need too much shared memory.
plan choose_plan(const bnt_cuda_product &product, const struct decode_device &device)
{
    plan p;
    p.chunks = divide_up(product.n_blocks, CHUNK_BLOCKS);
    p.units = product.n_tiles / (product.gated ? 2 : 1);
    const bool is_short = p.chunks <= SHORT_WARPS * MAX_CHUNKS / 2;
    p.run = is_short ? multiply_input<MAX_CHUNKS / 2> : multiply_input<MAX_CHUNKS>;
    p.slices =
        min(divide_up(p.chunks, is_short ? MAX_CHUNKS / 2 : MAX_CHUNKS), (uint32_t)MAX_WARPS);
    const uint32_t room = device.shared_bytes - OWN_BYTES - other_bytes(p.chunks);
    const uint32_t by_weights = min(room, (uint32_t)WEIGHT_BYTES) / unit_bytes(product);
    const uint32_t most = max(min(by_weights, p.slices * WARP / TILE_ROWS), 1u);
    p.blocks = max(divide_up(p.units, most), min(p.units, device.processors));
    p.bytes = divide_up(p.units, p.blocks) * unit_bytes(product) + other_bytes(p.chunks);
    return p;
}
} // namespace

bool decode_product_fits(const struct decode_product *step, const struct decode_device *device)
{
    if (!decode_product_is_plain(step))
        return decode_groups_fits(step, device);
    const uint64_t blocks = step->product.n_blocks, chunks = (blocks + 3) / 4;
    return 2 * blocks * BLOCK_BYTES + other_bytes((uint32_t)chunks) + OWN_BYTES <=
           device->shared_bytes;
}

cudaError_t decode_product_launch(const struct decode_product *step,
                                  const struct decode_device *device, cudaStream_t stream)
{
    if (!decode_product_is_plain(step))
        return decode_groups_launch(step, device, stream);
    return launch(choose_plan(step->product, *device), *step, *device, stream);
}
