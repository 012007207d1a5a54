// SPDX-License-Identifier: MIT
// Ternary product of one token.
//
// A tile's columns are cut into slices, one a warp; the warps of a tile, a team, take one or a few
// tiles together. A warp holds all of its weights in registers. They depend on nothing, so it asks
// for them before it waits for the kernel that makes the activations, and the next kernel does the
// same while this one works: a kernel's own time is what comes after the wait.
#include "runtime/cuda/chunk.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { MAX_WARPS = 16, MAX_TILES = 32 };

// The sum that this lane stands for: of row at.t of its four, in the operand of its block.
__device__ __forceinline__ int pick(const int (&s)[2][4], const chunk_lane &at)
{
    const int a = at.odd ? s[0][1] : s[0][0], b = at.odd ? s[0][3] : s[0][2];
    const int c = at.odd ? s[1][1] : s[1][0], d = at.odd ? s[1][3] : s[1][2];
    const int even = at.t & 1 ? b : a, odd = at.t & 1 ? d : c;
    return at.t & 2 ? odd : even;
}

__device__ __forceinline__ uint4 load_weights(const void *p, bool valid)
{
    uint4 v = make_uint4(0, 0, 0, 0);
    if (valid)
        load_once(v, p);
    return v;
}

// What a warp takes: up to TILES tiles, a slice of their columns, CHUNKS chunks at a time.
template <int CHUNKS, int TILES> struct warp_work {
    static_assert(3 * 64 * 128ll * CHUNKS * BNT_CUDA_CHUNK_COLS <= INT32_MAX, "sums fit in int32");
    const uint8_t *blocks; // of the first tile, this lane's part
    uint32_t tiles, tile_bytes;
    uint32_t chunk, end; // of the slice, what is left of it
    uint32_t n_blocks;
    const chunk_lane &at;
    uint4 weights[TILES][CHUNKS], x[CHUNKS];

    __device__ __forceinline__ void load()
    {
        const uint8_t *from = blocks + (size_t)chunk * CHUNK_BYTES;
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int i = 0; i < CHUNKS; i++)
                weights[t][i] = load_weights(from + t * (size_t)tile_bytes + i * CHUNK_BYTES,
                                             t < (int)tiles && chunk + i < end &&
                                                 (chunk + i) * CHUNK_BLOCKS + at.block < n_blocks);
    }

    __device__ __forceinline__ void load_x(const int8_t *from)
    {
        from += chunk * BNT_CUDA_CHUNK_COLS + at.x_offset;
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            x[i] = make_uint4(0, 0, 0, 0);
            if (chunk + i < end)
                x[i] = *reinterpret_cast<const uint4 *>(from + i * BNT_CUDA_CHUNK_COLS);
        }
    }

    // Adds to the sums of the tiles' rows in shared memory.
    __device__ __forceinline__ void multiply_all(int *sums)
    {
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            if (t >= (int)tiles)
                break;
            scaled_sums s = {};
#pragma unroll
            for (int i = 0; i < CHUNKS; i++)
                multiply(s, weights[t][i], x[i]);
            atomicAdd(sums + t * TILE_ROWS + at.row + at.t,
                      (pick(s.by_4, at) >> 2) + (pick(s.by_64, at) >> 6));
        }
    }
};

// Where a row's product goes.
struct target {
    float *out; // NULL for padding
    float scale;
};

__device__ __forceinline__ target find_target(const bnt_cuda_product &product, uint32_t tile,
                                              uint32_t row)
{
    bnt_cuda_part part = product.parts[0];
#pragma unroll
    for (uint32_t p = 1; p < BNT_CUDA_MAX_PARTS; p++)
        if (p < product.n_parts && tile >= product.parts[p].first_tile)
            part = product.parts[p];
    const uint32_t r = (tile - part.first_tile) * TILE_ROWS + row;
    return {r < part.rows ? part.out + r : NULL, part.scale};
}

// A block has a thread for each row at least. x: warps of a team, y: teams. ROUNDS: slices may be
// longer than CHUNKS.
template <int CHUNKS, int TILES, bool ROUNDS>
__global__ void __launch_bounds__(MAX_WARPS *WARP)
    gemv(const __grid_constant__ bnt_cuda_product product,
         const __grid_constant__ bnt_cuda_quantized x, cut tiles, cut chunks, int32_t *out)
{
    __shared__ int rows[MAX_TILES * TILE_ROWS];
    let_next_start();
    const chunk_lane at = find_chunk_lane();
    const range of_block = share_of(tiles, blockIdx.x);
    const range slice = share_of(chunks, threadIdx.x / WARP);
    const uint32_t tile = threadIdx.y * TILES, tile_bytes = product.n_blocks * BLOCK_BYTES;
    const uint8_t *blocks = reinterpret_cast<const uint8_t *>(product.blocks) +
                            (size_t)(of_block.first + tile) * tile_bytes + at.offset;
    warp_work<CHUNKS, TILES> work = {blocks,
                                     tile < of_block.count ? of_block.count - tile : 0,
                                     tile_bytes,
                                     slice.first,
                                     slice.first + slice.count,
                                     product.n_blocks,
                                     at};
    work.load();

    const uint32_t row = threadIdx.y * blockDim.x + threadIdx.x;
    const bool has_row = row < of_block.count * TILE_ROWS;
    target to = {};
    if (has_row) {
        rows[row] = 0;
        if (!out)
            to = find_target(product, of_block.first + row / TILE_ROWS, row % TILE_ROWS);
    }
    // Threads part ways at none of the loads after the wait, or those would wait for each other:
    // one that is not needed reads anything.
    const float *anything = reinterpret_cast<const float *>(product.blocks);
    const float *scale_at = to.out ? x.scale : anything;
    const float *old_at = to.out ? to.out : anything;
    __syncthreads();
    wait_for_previous();
    work.load_x(x.x);
    int x_sum = 0;
    float x_scale = 1, old = 0;
    if (has_row) {
        x_sum = x.sum[0];
        x_scale = *scale_at;
        if (product.add)
            old = *old_at;
    }
    work.multiply_all(rows + tile * TILE_ROWS);
    while (ROUNDS && (work.chunk += CHUNKS) < work.end) {
        work.load();
        work.load_x(x.x);
        work.multiply_all(rows + tile * TILE_ROWS);
    }
    const float factor = to.out ? to.scale / x_scale : 0;
    __syncthreads();
    if (!has_row)
        return;
    const int sum = rows[row] - 2 * x_sum;
    if (out)
        out[of_block.first * TILE_ROWS + row] = sum;
    else if (to.out)
        *to.out = product.add ? old + (float)sum * factor : (float)sum * factor;
}

typedef void (*gemv_kernel)(const bnt_cuda_product, const bnt_cuda_quantized, cut, cut, int32_t *);

// A way to work: what a warp takes, and how many warps a block may have, so that two blocks fit on
// a multiprocessor: this kernel's and the next one's.
struct way {
    gemv_kernel kernel;
    uint32_t chunks, tiles, warps;
};

struct plan {
    const way *how;
    uint32_t slices, teams, blocks;
};

cudaError_t launch(const plan &p, const bnt_cuda_product &product, const bnt_cuda_quantized &x,
                   int32_t *sums, bool early, cudaStream_t stream)
{
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(p.blocks);
    config.blockDim = dim3(p.slices * WARP, p.teams);
    config.stream = stream;
    set_sharing(&config, attributes, early);
    return cudaLaunchKernelEx(
        &config, p.how->kernel, product, x, cut_evenly(product.n_tiles, p.blocks),
        cut_evenly(divide_up(product.n_blocks, CHUNK_BLOCKS), p.slices), sums);
}

uint32_t count_blocks(const way &how, uint32_t slices, uint32_t n_tiles)
{
    return divide_up(n_tiles, how.warps / slices * how.tiles);
}

// The first way by which all blocks can be there at once. More tiles than that are best taken by
// the last of the ways, and longer rows by another, round after round if need be.
const way *choose_way(uint32_t n_tiles, uint32_t chunks, uint32_t processors)
{
    static const way ways[] = {{gemv<3, 1, false>, 3, 1, 16},
                               {gemv<4, 1, false>, 4, 1, 16},
                               {gemv<3, 2, false>, 3, 2, 14}},
                     long_rows = {gemv<10, 1, true>, 10, 1, 8};
    const way *how = &long_rows;
    for (const way &w : ways) {
        const uint32_t slices = divide_up(chunks, w.chunks);
        if (slices > w.warps)
            continue;
        how = &w;
        if (count_blocks(w, slices, n_tiles) <= 2 * processors)
            break;
    }
    return how;
}

plan choose_plan(const bnt_cuda_product &product, uint32_t processors)
{
    const uint32_t n_tiles = product.n_tiles, chunks = divide_up(product.n_blocks, CHUNK_BLOCKS);
    const way *how = choose_way(n_tiles, chunks, processors);
    const uint32_t rounds = divide_up(chunks, how->chunks * how->warps);
    plan p;
    p.how = how;
    p.slices = divide_up(chunks, how->chunks * rounds);
    p.blocks = max(count_blocks(*how, p.slices, n_tiles), processors);
    if (how->tiles > 1) // as many for each multiprocessor
        p.blocks = bnt_cuda_pad(p.blocks, processors);
    p.blocks = min(p.blocks, n_tiles);
    p.teams = divide_up(divide_up(n_tiles, p.blocks), how->tiles);
    return p;
}
} // namespace

cudaError_t bnt_cuda_gemv(const struct bnt_cuda_product *product,
                          const struct bnt_cuda_quantized *x, int32_t *sums, cudaStream_t stream)
{
    int processors;
    bool early;
    cudaError_t error = find_attribute(cudaDevAttrMultiProcessorCount, &processors);
    if (error == cudaSuccess)
        error = bnt_cuda_can_start_early(&early);
    if (error != cudaSuccess)
        return error;
    const plan p = choose_plan(*product, (uint32_t)processors);
    return launch(p, *product, *x, sums, early, stream);
}
