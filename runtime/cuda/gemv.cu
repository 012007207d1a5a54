// SPDX-License-Identifier: MIT
// Ternary product of one token. Weights depend on nothing, so every lane asks for all of its first
// pieces before it waits for the kernel that makes the activations; and the next kernel may do the
// same while this one works.
#include "runtime/cuda/chunk.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { WARPS = 16, THREADS = WARPS * WARP, AHEAD = 2, MAX_TILES = 64 };

// Chunk c of the block's: its tile and its place in it.
struct cursor {
    uint32_t tile, chunk;
};

__device__ __forceinline__ void advance(cursor &c, uint32_t chunks)
{
    if (++c.chunk == chunks) {
        c.chunk = 0;
        c.tile++;
    }
}

// Volatile, so that the compiler keeps it before the wait.
__device__ __forceinline__ uint4 load_weights(const void *p, bool valid)
{
    uint4 v = make_uint4(0, 0, 0, 0);
    if (valid)
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(p));
    return v;
}

struct range {
    const uint8_t *blocks;     // of the block's first tile
    uint32_t n_blocks, chunks; // of a tile
    uint32_t count;            // of the warp's chunks
};

// Loads up to AHEAD chunks from c on.
__device__ __forceinline__ void load_batch(uint4 (&w)[AHEAD], const range &r, cursor c,
                                           uint32_t left, const chunk_lane &at)
{
#pragma unroll
    for (uint32_t i = 0; i < AHEAD; i++) {
        bool valid = i < left && c.chunk * CHUNK_BLOCKS + at.block < r.n_blocks;
        size_t from = ((size_t)c.tile * r.n_blocks + c.chunk * CHUNK_BLOCKS) * BLOCK_BYTES;
        w[i] = load_weights(r.blocks + from + at.offset, valid);
        advance(c, r.chunks);
    }
}

__device__ __forceinline__ void multiply_batch(int *tiles, chunk_sums &sums,
                                               const uint4 (&w)[AHEAD], const range &r, cursor &c,
                                               uint32_t left, const int8_t *x, const chunk_lane &at)
{
    uint4 in[AHEAD];
    cursor ahead = c;
#pragma unroll
    for (uint32_t i = 0; i < AHEAD; i++) {
        if (i < left)
            in[i] = *reinterpret_cast<const uint4 *>(x + ahead.chunk * BNT_CUDA_CHUNK_COLS +
                                                     at.x_offset);
        advance(ahead, r.chunks);
    }
#pragma unroll
    for (uint32_t i = 0; i < AHEAD; i++) {
        if (i >= left)
            break;
        multiply_chunk(sums, w[i], in[i]);
        uint32_t tile = c.tile;
        advance(c, r.chunks);
        if (c.tile != tile || i + 1 == left) {
            add_chunk_sums(tiles + tile * TILE_ROWS, sums, at);
            sums = {};
        }
    }
}

__device__ void store(const bnt_cuda_product &product, const bnt_cuda_quantized &x, uint32_t tile,
                      uint32_t row, int sum, int32_t *sums)
{
    if (sums) {
        sums[tile * TILE_ROWS + row] = sum;
        return;
    }
    int p = 0;
    while (p + 1 < (int)product.n_parts && tile >= product.parts[p + 1].first_tile)
        p++;
    const bnt_cuda_part &part = product.parts[p];
    uint32_t r = (tile - part.first_tile) * TILE_ROWS + row;
    if (r >= part.rows)
        return;
    float y = (float)sum * (part.scale / x.scale[0]);
    part.out[r] = product.add ? part.out[r] + y : y;
}

__global__ void __launch_bounds__(THREADS)
    gemv(const __grid_constant__ bnt_cuda_product product,
         const __grid_constant__ bnt_cuda_quantized x, uint32_t tiles_per_block, int32_t *out)
{
    __shared__ int tiles[MAX_TILES * TILE_ROWS];
    let_next_start();
    const chunk_lane at = find_chunk_lane();
    const uint32_t first = blockIdx.x * tiles_per_block, warp = threadIdx.x / WARP;
    const uint32_t n_tiles = min(tiles_per_block, product.n_tiles - first);
    range r;
    r.n_blocks = product.n_blocks;
    r.blocks = reinterpret_cast<const uint8_t *>(product.blocks) +
               (size_t)first * r.n_blocks * BLOCK_BYTES;
    r.chunks = (r.n_blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;
    const uint32_t total = n_tiles * r.chunks, from = total * warp / WARPS;
    r.count = total * (warp + 1) / WARPS - from;
    cursor c = {from / r.chunks, from % r.chunks};
    uint4 w[AHEAD];
    load_batch(w, r, c, r.count, at);
    for (uint32_t i = threadIdx.x; i < n_tiles * TILE_ROWS; i += THREADS)
        tiles[i] = 0;
    __syncthreads();
    wait_for_previous();
    chunk_sums sums = {};
    for (uint32_t left = r.count; left > 0;) {
        multiply_batch(tiles, sums, w, r, c, left, x.x, at);
        left -= min(left, (uint32_t)AHEAD);
        if (left > 0)
            load_batch(w, r, c, left, at);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n_tiles * TILE_ROWS; i += THREADS)
        store(product, x, first + i / TILE_ROWS, i % TILE_ROWS, tiles[i] - 2 * x.sum[0], out);
}

// Tiles a block: two blocks a multiprocessor, which leaves room for those of the next kernel; or up
// to two and a half of one tile each. And several chunks for each warp, where rows are short.
uint32_t choose_tiles(uint32_t n_tiles, uint32_t chunks, uint32_t processors)
{
    uint32_t tiles =
        n_tiles <= processors * 5 / 2 ? 1 : (n_tiles + 2 * processors - 1) / (2 * processors);
    while (tiles < MAX_TILES && tiles * chunks < WARPS)
        tiles++;
    return tiles < MAX_TILES ? tiles : (uint32_t)MAX_TILES;
}
} // namespace

cudaError_t bnt_cuda_gemv(const struct bnt_cuda_product *product,
                          const struct bnt_cuda_quantized *x, int32_t *sums, cudaStream_t stream)
{
    int device = 0, processors = 1, major = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error != cudaSuccess)
        return error;
    const uint32_t chunks = (product->n_blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;
    const uint32_t tiles = choose_tiles(product->n_tiles, chunks, (uint32_t)processors);
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((product->n_tiles + tiles - 1) / tiles);
    config.blockDim = dim3(THREADS);
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = major >= 9;
    return cudaLaunchKernelEx(&config, gemv, *product, *x, tiles, sums);
}
