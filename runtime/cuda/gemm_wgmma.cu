// SPDX-License-Identifier: MIT
// Ternary products of many tokens by Hopper's warpgroup products, for code built for sm_90a.
//
// A block has one warpgroup that copies and some that multiply, each 64 rows by all tokens of the
// block. A step takes 128 columns: the words of the weights as they lie, and the activations of
// the block's tokens, which are one run of memory (see bnt_cuda_quantized) and lie as the tensor
// cores read them. Codes go from words to the registers of the first operand, so that shared memory
// feeds the tensor cores with activations alone.
//
// The order of rows within an operand is free. So rows that belong together, one of the gate and
// one of its partner, or two of a head that are rotated together, stand eight rows apart, where one
// lane gets the sums of both.
#include <atomic>

#include "runtime/cuda/cuda.h"
#include "runtime/cuda/ops.cuh"
#include "runtime/cuda/wgmma.cuh"

namespace
{
enum {
    COLS = 128,
    PRODUCTS = COLS / 32, // a step
    BLOCK_WORDS = 32,
    TILE_WORDS = PRODUCTS * BLOCK_WORDS, // of a 16-row tile, a step
    SHARED_BYTES = 224 << 10,            // that a block may have, less what it declares
    MAX_STAGES = 8,
};

template <int WARPGROUPS, int N> struct shape {
    struct stage {
        int8_t x[N][COLS];
        uint32_t words[WARPGROUPS * 4][TILE_WORDS];
    };
    enum {
        TOKENS = N,
        GROUPS = WARPGROUPS,
        TILES = GROUPS * 4, // 16-row tiles
        CONSUMERS = GROUPS * WARPGROUP,
        THREADS = CONSUMERS + WARPGROUP,
        FIT = (SHARED_BYTES - 1024) / (int)sizeof(stage),
        STAGES = FIT < MAX_STAGES ? FIT : (int)MAX_STAGES,
        BYTES = STAGES * (int)sizeof(stage) + 1024, // with room to align
    };
    static_assert(sizeof(stage) % 1024 == 0, "every stage is aligned as the first is");
};

struct matrices {
    bnt_cuda_product product;
    bnt_cuda_quantized x;
    uint32_t m;
    int32_t *sums;
};

#ifdef BNT_HAS_WGMMA

// How many tiles apart rows that belong together are, or 0.
__device__ uint32_t find_distance(const bnt_cuda_product &p)
{
    return p.gated ? p.parts[1].first_tile : p.head_dim / 32;
}

// The stack's tile that is tile i of the block, or one beyond its end. A block of pairs has the
// first ones, then their partners.
__device__ uint32_t find_tile(const bnt_cuda_product &p, uint32_t i, uint32_t tiles)
{
    const uint32_t distance = find_distance(p), half = tiles / 2;
    if (distance == 0)
        return blockIdx.y * tiles + i;
    const uint32_t pair = blockIdx.y * half + i % half;
    return pair * 2 >= p.n_tiles
               ? p.n_tiles
               : pair / distance * 2 * distance + pair % distance + i / half * distance;
}

// The copying warpgroup. Weights depend on nothing: the first are on their way before the
// activations have been made. They come in pieces of 512 bytes, for which the threads' own copies
// are faster than bulk ones.
template <class Shape>
__device__ __forceinline__ void produce(const matrices &in, typename Shape::stage *stages,
                                        barrier *full, barrier *empty, uint32_t steps)
{
    enum { OWN = Shape::TILES / 4 }; // tiles a warp
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP % 4;
    const uint32_t first_token = blockIdx.x * Shape::TOKENS;
    const uint32_t x_bytes = min(in.m - first_token, (uint32_t)Shape::TOKENS) * COLS;
    const uint4 *words[OWN];
    bool valid[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const uint32_t tile = find_tile(in.product, warp * OWN + i, Shape::TILES);
        valid[i] = tile < in.product.n_tiles;
        words[i] = reinterpret_cast<const uint4 *>(in.product.blocks) + lane +
                   (valid[i] ? (size_t)tile * in.product.n_blocks * (BLOCK_WORDS / 4) : 0);
    }
    const auto copy_words = [&](uint32_t s, uint32_t slot) {
        const bool within = s * PRODUCTS + lane / 8 < in.product.n_blocks;
#pragma unroll
        for (int i = 0; i < OWN; i++)
            copy_async(&stages[slot].words[warp * OWN + i][lane * 4],
                       words[i] + (within ? s * (TILE_WORDS / 4) : 0), valid[i] && within);
        barrier_arrive_copied(&full[slot]);
    };
    const auto copy_x = [&](uint32_t s, uint32_t slot) {
        if (threadIdx.x != Shape::CONSUMERS)
            return;
        barrier_arrive_expecting(&full[slot], x_bytes);
        copy_bulk(stages[slot].x, in.x.x + bnt_cuda_quantized_at(in.m, first_token, s * COLS),
                  x_bytes, &full[slot]);
    };
    const uint32_t ahead = min(steps, (uint32_t)Shape::STAGES);
    for (uint32_t s = 0; s < ahead; s++)
        copy_words(s, s);
    wait_for_previous();
    for (uint32_t s = 0; s < ahead; s++)
        copy_x(s, s);
    for (uint32_t s = ahead, slot = 0, parity = 0; s < steps; s++) {
        barrier_wait(&empty[slot], parity);
        copy_x(s, slot);
        copy_words(s, slot);
        if (++slot == Shape::STAGES) {
            slot = 0;
            parity ^= 1;
        }
    }
}

// What is known of a token when its sums come.
template <int N> struct token_factors {
    float factor[BNT_CUDA_MAX_PARTS][N]; // γ / s, by the matrix
    int correction[N];                   // codes are weights + 2
};

template <int N>
__device__ void load_factors(token_factors<N> *to, const matrices &in, uint32_t threads)
{
    for (uint32_t i = threadIdx.x; i < N; i += threads) {
        const uint32_t token = blockIdx.x * N + i;
        const bool valid = token < in.m;
        to->correction[i] = valid ? 2 * in.x.sum[token] : 0;
        if (in.sums)
            continue;
        const float scale = valid ? in.x.scale[token] : 1.0f;
        for (uint32_t p = 0; p < in.product.n_parts; p++)
            to->factor[p][i] = in.product.parts[p].scale / scale;
    }
}

template <int LOADED>
__device__ __forceinline__ void load_words(uint32_t (&w)[LOADED][4], const uint32_t *words,
                                           uint32_t at_a, uint32_t at_b)
{
#pragma unroll
    for (int i = 0; i < LOADED; i++) {
        w[i][0] = words[at_a + i * BLOCK_WORDS];
        w[i][1] = words[at_b + i * BLOCK_WORDS];
        w[i][2] = words[at_a + i * BLOCK_WORDS + 8];
        w[i][3] = words[at_b + i * BLOCK_WORDS + 8];
    }
}

// The sums of a warpgroup's 64 rows; at_a and at_b: where the lane's two rows begin in a stage's
// words.
template <class Shape>
__device__ __forceinline__ void
multiply(int (&d)[Shape::TOKENS / 2], const typename Shape::stage *stages, barrier *full,
         barrier *empty, uint32_t steps, uint32_t at_a, uint32_t at_b)
{
    const uint32_t lane = threadIdx.x % WARP, shift = lane % 4 * 2, mask = 0x03030303;
    const uint64_t first_rows = wgmma_rows(stages->x);
    // Four warpgroups keep the tensor cores busy with little of their own in flight.
    constexpr int LOADED = Shape::GROUPS < 4 ? PRODUCTS : 1, IN_FLIGHT = Shape::GROUPS < 4 ? 3 : 1;
    for (uint32_t s = 0, slot = 0, parity = 0; s < steps; s++) {
        barrier_wait(&full[slot], parity);
        const uint32_t *words = stages[slot].words[0];
        const uint64_t rows = first_rows + slot * (sizeof(typename Shape::stage) / 16);
        uint32_t w[LOADED][4];
#pragma unroll
        for (int i = 0; i < PRODUCTS; i++) {
            if (i % LOADED == 0)
                load_words(w, words + i * BLOCK_WORDS, at_a, at_b);
            wgmma_wait<IN_FLIGHT>();
            if (i == IN_FLIGHT && s > 0 && lane == 0) // all of the step before are done
                barrier_arrive(&empty[slot == 0 ? Shape::STAGES - 1 : slot - 1]);
            const uint32_t(&c)[4] = w[i % LOADED];
            const uint32_t a[4] = {c[0] >> shift & mask, c[1] >> shift & mask, c[2] >> shift & mask,
                                   c[3] >> shift & mask};
            wgmma_fence();
            wgmma_codes(d, a, rows + i * 2);
            wgmma_commit();
        }
        if (++slot == Shape::STAGES) {
            slot = 0;
            parity ^= 1;
        }
    }
    wgmma_wait<0>();
    wgmma_take(d);
}

__device__ uint32_t find_part(const bnt_cuda_product &product, uint32_t tile)
{
    uint32_t p = 0;
    while (p + 1 < product.n_parts && tile >= product.parts[p + 1].first_tile)
        p++;
    return p;
}

// Puts away the sums of two rows of a tile, row and row + 8.
template <int N>
__device__ __forceinline__ void store(const matrices &in, const int (&d)[N / 2],
                                      const token_factors<N> &tokens, uint32_t tile, uint32_t row)
{
    const uint32_t t = threadIdx.x % 4, first = blockIdx.x * N;
    const uint32_t p = find_part(in.product, tile);
    const bnt_cuda_part &part = in.product.parts[p];
    const uint32_t r = (tile - part.first_tile) * 16 + row;
    const bool valid[2] = {r < part.rows, r + 8 < part.rows};
    const bool add = in.product.add;
    constexpr int BATCH = N < 64 ? N : 64; // tokens whose residuals are asked for at once
#pragma unroll
    for (int from = 0; from < N; from += BATCH) {
        float old[BATCH / 2] = {};
#pragma unroll
        for (int i = 0; i < BATCH / 2; i++) {
            const uint32_t token = first + from + i / 4 * 8 + t * 2 + i % 2;
            if (add && token < in.m && valid[i / 2 % 2])
                old[i] = part.out[(size_t)token * part.out_stride + r + i / 2 % 2 * 8];
        }
#pragma unroll
        for (int i = 0; i < BATCH / 2; i++) {
            const uint32_t n = from + i / 4 * 8 + t * 2 + i % 2;
            if (first + n < in.m && valid[i / 2 % 2])
                part.out[(size_t)(first + n) * part.out_stride + r + i / 2 % 2 * 8] =
                    old[i] + (float)(d[from / 2 + i] - tokens.correction[n]) * tokens.factor[p][n];
        }
    }
}

// act(gate) · up of one row; index: of its tile among the gate's.
template <int N>
__device__ __forceinline__ void store_gated(const matrices &in, const int (&d)[N / 2],
                                            const token_factors<N> &tokens, uint32_t index,
                                            uint32_t row)
{
    const uint32_t t = threadIdx.x % 4, first = blockIdx.x * N, r = index * 16 + row;
    const bnt_cuda_part &part = in.product.parts[0];
    const bool is_relu2 = in.product.activation == BNT_ACTIVATION_RELU2;
    if (r >= part.rows)
        return;
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        const uint32_t n = i / 2 * 8 + t * 2 + i % 2;
        if (first + n >= in.m)
            continue;
        const int *both = &d[i / 2 * 4 + i % 2];
        const float gate = (float)(both[0] - tokens.correction[n]) * tokens.factor[0][n];
        const float up = (float)(both[2] - tokens.correction[n]) * tokens.factor[1][n];
        part.out[(size_t)(first + n) * part.out_stride + r] =
            (is_relu2 ? relu2(gate) : silu(gate)) * up;
    }
}

// Two rows of a head that are rotated together; tile, row: of the first.
template <int N>
__device__ __forceinline__ void store_heads(const matrices &in, const int (&d)[N / 2],
                                            const token_factors<N> &tokens, uint32_t tile,
                                            uint32_t row)
{
    const uint32_t t = threadIdx.x % 4, first = blockIdx.x * N, half = in.product.head_dim / 2;
    const uint32_t p = find_part(in.product, tile);
    const bnt_cuda_part &part = in.product.parts[p];
    const uint32_t r = (tile - part.first_tile) * 16 + row, e = r % in.product.head_dim;
    float *out = part.out + r / in.product.head_dim * part.head_stride + e;
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        const uint32_t n = i / 2 * 8 + t * 2 + i % 2;
        if (first + n >= in.m)
            continue;
        const int *both = &d[i / 2 * 4 + i % 2];
        const float a = (float)(both[0] - tokens.correction[n]) * tokens.factor[p][n];
        const float b = (float)(both[2] - tokens.correction[n]) * tokens.factor[p][n];
        const float2 angle = part.rotate ? __ldg(in.product.angles + (size_t)(first + n) * half + e)
                                         : make_float2(1, 0);
        float *to = out + (size_t)(first + n) * part.out_stride;
        to[0] = a * angle.x - b * angle.y;
        to[half] = b * angle.x + a * angle.y;
    }
}

template <int N>
__device__ __forceinline__ void store_sums(const matrices &in, const int (&d)[N / 2],
                                           const token_factors<N> &tokens, uint32_t tile,
                                           uint32_t row)
{
    const uint32_t t = threadIdx.x % 4, first = blockIdx.x * N;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        const uint32_t n = i / 4 * 8 + t * 2 + i % 2;
        if (first + n < in.m)
            in.sums[((size_t)(first + n) * in.product.n_tiles + tile) * 16 + row + i / 2 % 2 * 8] =
                d[i] - tokens.correction[n];
    }
}

template <class Shape> __device__ __forceinline__ void run(const matrices &in)
{
    extern __shared__ uint8_t shared[];
    __shared__ barrier full[Shape::STAGES], empty[Shape::STAGES];
    __shared__ token_factors<Shape::TOKENS> tokens;
    typename Shape::stage *stages =
        reinterpret_cast<typename Shape::stage *>(shared + (-shared_address(shared) & 1023));
    const uint32_t warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
    const uint32_t steps = (in.product.n_blocks + PRODUCTS - 1) / PRODUCTS;
    let_next_start();
    if (threadIdx.x == 0) {
        for (int i = 0; i < Shape::STAGES; i++) {
            barrier_init(&full[i], WARPGROUP + 1);
            barrier_init(&empty[i], Shape::CONSUMERS / WARP);
        }
        barrier_init_done();
    }
    __syncthreads();
    // With four warpgroups there are registers enough only if the copying one gives its own away.
    if (threadIdx.x >= Shape::CONSUMERS) {
        if (Shape::GROUPS == 4)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        produce<Shape>(in, stages, full, empty, steps);
        return;
    }
    if (Shape::GROUPS == 4)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 112;");
    wait_for_previous();
    load_factors<Shape::TOKENS>(&tokens, in, Shape::CONSUMERS);
    sync_threads(1, Shape::CONSUMERS);
    // A warp has eight rows of a tile and their partners in another tile, or all of one tile.
    const bool pairs = find_distance(in.product) > 0;
    const uint32_t own = pairs ? warp / 2 : warp, row = pairs ? warp % 2 : 0;
    const uint32_t at_a = own * TILE_WORDS + row * 16 + g;
    const uint32_t at_b = pairs ? at_a + Shape::TILES / 2 * TILE_WORDS : at_a + 16;
    const uint32_t tile = find_tile(in.product, own, Shape::TILES);
    int d[Shape::TOKENS / 2] = {};
    multiply<Shape>(d, stages, full, empty, steps, at_a, at_b);
    if (tile >= in.product.n_tiles)
        return;
    if (in.sums)
        store_sums<Shape::TOKENS>(in, d, tokens, tile, g);
    else if (in.product.gated)
        store_gated<Shape::TOKENS>(in, d, tokens, tile, row * 8 + g);
    else if (in.product.head_dim)
        store_heads<Shape::TOKENS>(in, d, tokens, tile, row * 8 + g);
    else
        store<Shape::TOKENS>(in, d, tokens, tile, g);
}

#endif

template <class Shape>
__global__ void __launch_bounds__(Shape::THREADS, 1) gemm(const __grid_constant__ matrices in)
{
#ifdef BNT_HAS_WGMMA
    run<Shape>(in);
#endif
}

// What a kernel takes for a product, roughly: blocks that come one after the other on a
// multiprocessor, times the clocks of one. A step takes as long as its products or as its copies,
// which have their share of what the L2 cache gives.
template <class Shape> double estimate(const bnt_cuda_product *p, uint32_t m, uint32_t processors)
{
    const double l2_bytes = 27.0 * processors, most_bytes = 60; // a clock, measured on an H100
    const uint32_t rows = (p->n_tiles + Shape::TILES - 1) / Shape::TILES;
    const uint32_t tokens = (m + Shape::TOKENS - 1) / Shape::TOKENS, blocks = rows * tokens;
    const uint32_t busy = blocks < processors ? blocks : processors;
    const double products = Shape::TILES / 4 * Shape::TOKENS / 2 * (int)PRODUCTS;
    const double share = l2_bytes / busy < most_bytes ? l2_bytes / busy : most_bytes;
    const double copies = sizeof(typename Shape::stage) / share;
    const double step = (products > copies ? products : copies) + 60;
    const double steps = (p->n_blocks + PRODUCTS - 1) / PRODUCTS;
    return (double)((blocks + processors - 1) / processors) * (steps * step + 20 * Shape::TOKENS);
}

template <class Shape> cudaError_t launch(const matrices &in, cudaStream_t stream)
{
    dim3 grid((in.m + Shape::TOKENS - 1) / Shape::TOKENS,
              (in.product.n_tiles + Shape::TILES - 1) / Shape::TILES);
    return launch_early(gemm<Shape>, grid, dim3(Shape::THREADS), Shape::BYTES, stream, in);
}

struct kernel {
    double (*estimate)(const bnt_cuda_product *, uint32_t, uint32_t);
    cudaError_t (*launch)(const matrices &, cudaStream_t);
    const void *function;
    int bytes;
};

template <class Shape> kernel describe()
{
    return {estimate<Shape>, launch<Shape>, reinterpret_cast<const void *>(gemm<Shape>),
            Shape::BYTES};
}

const kernel kernels[] = {describe<shape<1, 16>>(), describe<shape<1, 32>>(),
                          describe<shape<1, 64>>(), describe<shape<2, 64>>(),
                          describe<shape<2, 96>>(), describe<shape<4, 64>>(),
                          describe<shape<4, 96>>(), describe<shape<4, 128>>()};
enum { N_KERNELS = sizeof kernels / sizeof kernels[0] };

// Whether the code that was loaded for the device has the kernels' bodies: shared memory that they
// declare tells. Then they may have all the memory that they want.
cudaError_t prepare(bool *has)
{
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, kernels[0].function);
    *has = error == cudaSuccess && attributes.sharedSizeBytes > 0;
    for (int i = 0; i < N_KERNELS && *has && error == cudaSuccess; i++)
        error = cudaFuncSetAttribute(kernels[i].function,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, kernels[i].bytes);
    return error;
}
} // namespace

cudaError_t bnt_cuda_has_wgmma(bool *has)
{
    enum { UNKNOWN, NO, YES, DEVICES = 64 };
    static std::atomic<int> known[DEVICES];
    int device;
    cudaError_t error = cudaGetDevice(&device);
    if (error != cudaSuccess)
        return error;
    const int found = device < DEVICES ? known[device].load() : UNKNOWN;
    *has = found == YES;
    if (found != UNKNOWN)
        return cudaSuccess;
    error = prepare(has);
    if (error == cudaSuccess && device < DEVICES)
        known[device].store(*has ? YES : NO);
    return error;
}

cudaError_t bnt_cuda_gemm_wgmma(const struct bnt_cuda_product *product,
                                const struct bnt_cuda_quantized *x, uint32_t m, int32_t *sums,
                                cudaStream_t stream)
{
    int device, processors;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess)
        return error;
    const kernel *best = &kernels[0];
    double least = best->estimate(product, m, (uint32_t)processors);
    for (int i = 1; i < N_KERNELS; i++) {
        double e = kernels[i].estimate(product, m, (uint32_t)processors);
        if (e < least) {
            least = e;
            best = &kernels[i];
        }
    }
    return best->launch({*product, *x, m, sums}, stream);
}
