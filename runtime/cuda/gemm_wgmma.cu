// SPDX-License-Identifier: MIT
// Ternary products of many tokens by Hopper's warpgroup products, for code built for sm_90a.
//
// A block has one warpgroup that copies and four that multiply. Each has 64 rows by all tokens of
// the block; where there are not rows enough, two or four have the same ones and take steps by
// turns. A step takes 128 columns: the words of the weights as they lie, and the activations of the
// block's tokens, which are one run of memory (see bnt_cuda_quantized) and lie as the tensor cores
// read them. Codes go from words to the registers of the first operand, so that shared memory
// feeds the tensor cores with activations alone.
//
// The order of rows within an operand is free. So rows that belong together, one of the gate and
// one of its partner, or two of a head that are rotated together, stand eight rows apart, where one
// lane gets the sums of both.
#include <math.h>

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
    GROUPS = 4,                          // that multiply
    WARPS = GROUPS * 4,
    MULTIPLIERS = GROUPS * WARPGROUP, // threads
    THREADS = MULTIPLIERS + WARPGROUP,
    ROW_PAD = 20,     // words between tokens where a warp rearranges 16 rows
    ALL_MULTIPLY = 1, // the number of a barrier
};

// ROW_GROUPS: warpgroups with rows of their own, of the four that multiply.
template <int ROW_GROUPS, int N> struct shape {
    struct stage {
        int8_t x[N][COLS];
        uint32_t words[ROW_GROUPS * 4][TILE_WORDS];
    };
    enum {
        TOKENS = N,
        TILES = ROW_GROUPS * 4, // 16-row tiles
        SPLITS = GROUPS / ROW_GROUPS,
        CHUNK = N < 32 ? N : 32,       // tokens whose sums are rearranged at a time
        OWN_TOKENS = CHUNK / SPLITS,   // of those, what a warp puts away
        A_LANE = (OWN_TOKENS + 7) / 8, // and a lane, where four have one token
    };
    typedef int chunk[CHUNK][ROW_PAD];
    enum {
        FIT = (SHARED_BYTES - 1024 - WARPS * (int)sizeof(chunk)) / (int)sizeof(stage),
        STAGES = FIT < 8    ? 4
                 : FIT < 16 ? 8
                 : FIT < 32 ? 16
                            : 32, // easy to divide by
    };
    struct memory {
        stage stages[STAGES];
        chunk chunks[SPLITS][TILES]; // of each warp
    };
    enum { BYTES = (int)sizeof(memory) + 1024 }; // with room to align
    static_assert(sizeof(stage) % 1024 == 0, "every stage is aligned as the first is");
    static_assert((int)FIT >= (int)STAGES, "all that is in shared memory fits");
    static_assert((int)STAGES > (int)SPLITS, "a stage is given back when the next one is used");
};

struct matrices {
    bnt_cuda_product product;
    bnt_cuda_quantized x;
    uint32_t m;
    int32_t *sums;
};

template <class Shape>
__host__ __device__ uint32_t count_areas(const bnt_cuda_product &p, uint32_t m)
{
    return (p.n_tiles + Shape::TILES - 1) / Shape::TILES *
           ((m + Shape::TOKENS - 1) / Shape::TOKENS);
}

#ifdef BNT_HAS_WGMMA

// What a block computes.
struct area {
    uint32_t rows; // how many areas of rows lie before it
    uint32_t first_token;
};

template <class Shape> __device__ area find_area(const matrices &in)
{
    const uint32_t across = (in.m + Shape::TOKENS - 1) / Shape::TOKENS;
    return {blockIdx.x / across, blockIdx.x % across * Shape::TOKENS};
}

// How many tiles apart rows that belong together are, or 0.
__device__ uint32_t find_distance(const bnt_cuda_product &p)
{
    return p.gated ? p.parts[1].first_tile : p.head_dim / 32;
}

// The stack's tile that is tile i of an area, or one beyond its end. An area of pairs has the first
// ones, then their partners.
__device__ uint32_t find_tile(const bnt_cuda_product &p, const area &a, uint32_t i, uint32_t tiles)
{
    const uint32_t distance = find_distance(p), half = tiles / 2;
    if (distance == 0)
        return a.rows * tiles + i;
    const uint32_t pair = a.rows * half + i % half;
    return pair * 2 >= p.n_tiles
               ? p.n_tiles
               : pair / distance * 2 * distance + pair % distance + i / half * distance;
}

// A copying thread's share of the weights of an area: one 16-byte piece of each of its warp's
// tiles.
template <class Shape> struct weights {
    enum { OWN = Shape::TILES / 4 };
    const uint4 *from[OWN];
    bool valid[OWN];

    __device__ __forceinline__ weights(const bnt_cuda_product &p, const area &a)
    {
        const uint32_t warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const uint32_t tile = find_tile(p, a, warp * OWN + i, Shape::TILES);
            valid[i] = tile < p.n_tiles;
            from[i] = reinterpret_cast<const uint4 *>(p.blocks) + lane +
                      (valid[i] ? (size_t)tile * p.n_blocks * (BLOCK_WORDS / 4) : 0);
        }
    }

    __device__ __forceinline__ void copy(typename Shape::stage *to, barrier *full,
                                         const bnt_cuda_product &p, uint32_t s) const
    {
        const uint32_t warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
        const bool within = s * PRODUCTS + lane / 8 < p.n_blocks;
#pragma unroll
        for (int i = 0; i < OWN; i++)
            copy_async(&to->words[warp * OWN + i][lane * 4],
                       from[i] + (within ? s * (TILE_WORDS / 4) : 0), valid[i] && within);
        barrier_arrive_copied(full);
    }
};

// The copying warpgroup. Weights depend on nothing: the first are on their way before the
// activations have been made. They come in pieces of 512 bytes, for which the threads' own copies
// are faster than bulk ones.
template <class Shape>
__device__ __forceinline__ void produce(const matrices &in, typename Shape::stage *stages,
                                        barrier *full, barrier *empty, uint32_t steps,
                                        const area &a)
{
    const uint32_t ahead = min(steps, (uint32_t)Shape::STAGES);
    const weights<Shape> own(in.product, a);
    const uint32_t x_bytes = min(in.m - a.first_token, (uint32_t)Shape::TOKENS) * COLS;
    const auto copy_x = [&](uint32_t s, uint32_t slot) {
        if (threadIdx.x > MULTIPLIERS)
            return;
        barrier_arrive_expecting(&full[slot], x_bytes);
        copy_bulk(stages[slot].x, in.x.x + bnt_cuda_quantized_at(in.m, a.first_token, s * COLS),
                  x_bytes, &full[slot]);
    };
    for (uint32_t s = 0; s < ahead; s++)
        own.copy(&stages[s], &full[s], in.product, s);
    wait_for_previous();
    for (uint32_t s = 0; s < ahead; s++)
        copy_x(s, s);
    for (uint32_t s = ahead; s < steps; s++) {
        const uint32_t slot = s % Shape::STAGES;
        barrier_wait(&empty[slot], (s / Shape::STAGES + 1) % 2);
        copy_x(s, slot);
        own.copy(&stages[slot], &full[slot], in.product, s);
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

// The sums of a warpgroup's 64 rows over its own steps, from the first one on; at_a and at_b: where
// the lane's two rows begin in a stage's words.
template <class Shape>
__device__ __forceinline__ void
multiply(int (&d)[Shape::TOKENS / 2], const typename Shape::stage *stages, barrier *full,
         barrier *empty, uint32_t first, uint32_t steps, uint32_t at_a, uint32_t at_b)
{
    const uint32_t lane = threadIdx.x % WARP, shift = lane % 4 * 2, mask = 0x03030303;
    const uint64_t first_rows = wgmma_rows(stages->x);
    // The largest sums leave registers for little in flight, and keep the tensor cores busy with
    // it.
    constexpr bool LARGE = Shape::TOKENS >= 96;
    constexpr int LOADED = LARGE ? 1 : (int)PRODUCTS, IN_FLIGHT = LARGE ? 1 : 3;
    for (uint32_t s = first; s < steps; s += Shape::SPLITS) {
        const uint32_t slot = s % Shape::STAGES;
        barrier_wait(&full[slot], s / Shape::STAGES % 2);
        const uint32_t *words = stages[slot].words[0];
        const uint64_t rows = first_rows + slot * (sizeof(typename Shape::stage) / 16);
        uint32_t w[LOADED][4];
#pragma unroll
        for (int i = 0; i < PRODUCTS; i++) {
            if (i % LOADED == 0)
                load_words(w, words + i * BLOCK_WORDS, at_a, at_b);
            wgmma_wait<IN_FLIGHT>();
            if (i == IN_FLIGHT && s >= Shape::SPLITS) { // all of the step before are done
                __syncwarp();                           // by all lanes: they have read its words
                if (lane == 0)
                    barrier_arrive(&empty[(s - Shape::SPLITS) % Shape::STAGES]);
            }
            const uint32_t(&c)[4] = w[i % LOADED];
            const uint32_t a[4] = {c[0] >> shift & mask, c[1] >> shift & mask, c[2] >> shift & mask,
                                   c[3] >> shift & mask};
            wgmma_fence();
            wgmma_codes(d, a, rows + i * 2);
            wgmma_commit();
        }
    }
    wgmma_wait<0>();
    wgmma_take(d);
}

// What is known of a token when its sums come.
template <int N> struct token_factors {
    float factor[BNT_CUDA_MAX_PARTS][N]; // γ / s, by the matrix
    int correction[N];                   // codes are weights + 2
};

template <int N>
__device__ __forceinline__ void load_factors(token_factors<N> *to, const matrices &in,
                                             const area &a)
{
    const uint32_t token = a.first_token + threadIdx.x;
    if (threadIdx.x >= N || token >= in.m)
        return;
    to->correction[threadIdx.x] = 2 * in.x.sum[token];
    if (in.sums)
        return;
    const float scale = in.x.scale[token];
    for (uint32_t p = 0; p < in.product.n_parts; p++)
        to->factor[p][threadIdx.x] = in.product.parts[p].scale / scale;
}

__device__ uint32_t find_part(const bnt_cuda_product &product, uint32_t tile)
{
    uint32_t p = 0;
    while (p + 1 < product.n_parts && tile >= product.parts[p + 1].first_tile)
        p++;
    return p;
}

__device__ __forceinline__ float4 scale_four(int4 sum, int correction, float factor)
{
    return make_float4((float)(sum.x - correction) * factor, (float)(sum.y - correction) * factor,
                       (float)(sum.z - correction) * factor, (float)(sum.w - correction) * factor);
}

// Four rows, of which count are there. Where rows are not aligned, one by one.
__device__ __forceinline__ void store_four(float *to, float4 v, uint32_t count, bool aligned)
{
    if (aligned && count >= 4) {
        *reinterpret_cast<float4 *>(to) = v;
        return;
    }
    const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        if (i < count)
            to[i] = values[i];
    }
}

__device__ __forceinline__ float4 load_four(const float *from, uint32_t count, bool aligned)
{
    if (aligned && count >= 4)
        return *reinterpret_cast<const float4 *>(from);
    return make_float4(from[0], count > 1 ? from[1] : 0, count > 2 ? from[2] : 0,
                       count > 3 ? from[3] : 0);
}

__device__ __forceinline__ bool is_aligned(const bnt_cuda_part &part)
{
    return part.out_stride % 4 == 0 && reinterpret_cast<uintptr_t>(part.out) % 16 == 0;
}

// Four sums of a token, from all warpgroups that have a share in them.
template <class Shape>
__device__ __forceinline__ int4 add_shares(const typename Shape::memory *shared, uint32_t warp,
                                           uint32_t i, uint32_t row)
{
    int4 sum = make_int4(0, 0, 0, 0);
#pragma unroll
    for (int split = 0; split < Shape::SPLITS; split++) {
        const int4 v = *reinterpret_cast<const int4 *>(&shared->chunks[split][warp][i][row]);
        sum = make_int4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
    }
    return sum;
}

// A warp's place: its 16 rows are those of a tile, or eight and their partners; and which of the
// warps that share them it is.
struct place {
    uint32_t warp, split; // warp: of its split
    uint32_t tile, half;  // half: of the tile, where rows have partners
    bool pairs;
};

// Where a lane puts four rows of a tile. Four lanes a token.
struct row_place {
    float *out;
    uint32_t p, count, row;
    bool aligned;
};

__device__ __forceinline__ row_place find_rows(const matrices &in, const place &at)
{
    const uint32_t row = threadIdx.x % 4 * 4, p = find_part(in.product, at.tile);
    const bnt_cuda_part &part = in.product.parts[p];
    const uint32_t r = (at.tile - part.first_tile) * 16 + row;
    const bool valid = at.tile < in.product.n_tiles && r < part.rows;
    return {part.out + r, p, valid ? part.rows - r : 0, row, is_aligned(part)};
}

// The lane's tokens of a chunk: the first and each eighth after it.
template <class Shape> __device__ __forceinline__ uint32_t find_token(const place &at)
{
    return at.split * Shape::OWN_TOKENS + threadIdx.x % WARP / 4;
}

// What is there already, of the chunk of tokens from first on.
template <class Shape>
__device__ __forceinline__ void load_rows(float4 (&old)[Shape::A_LANE], const matrices &in,
                                          const place &at, const row_place &to, uint32_t first)
{
#pragma unroll
    for (int j = 0; j < Shape::A_LANE; j++) {
        const uint32_t token = first + find_token<Shape>(at) + j * 8;
        old[j] = make_float4(0, 0, 0, 0);
        if (in.product.add && token < in.m && to.count > 0)
            old[j] = load_four(to.out + (size_t)token * in.product.parts[to.p].out_stride, to.count,
                               to.aligned);
    }
}

template <class Shape>
__device__ __forceinline__ void
store_rows(const float4 (&old)[Shape::A_LANE], const matrices &in,
           const typename Shape::memory *shared, const place &at, const row_place &to,
           const token_factors<Shape::TOKENS> &tokens, uint32_t from, uint32_t first_token)
{
#pragma unroll
    for (int j = 0; j < Shape::A_LANE; j++) {
        const uint32_t i = find_token<Shape>(at) + j * 8, n = from + i, token = first_token + n;
        if (i >= (at.split + 1) * Shape::OWN_TOKENS || token >= in.m)
            break;
        const int4 sum = add_shares<Shape>(shared, at.warp, i, to.row);
        const int c = tokens.correction[n];
        if (in.sums && at.tile < in.product.n_tiles) {
            const size_t four = ((size_t)token * in.product.n_tiles + at.tile) * 4 + to.row / 4;
            reinterpret_cast<int4 *>(in.sums)[four] =
                make_int4(sum.x - c, sum.y - c, sum.z - c, sum.w - c);
        } else if (!in.sums && to.count > 0) {
            const float4 v = scale_four(sum, c, tokens.factor[to.p][n]);
            store_four(to.out + (size_t)token * in.product.parts[to.p].out_stride,
                       make_float4(old[j].x + v.x, old[j].y + v.y, old[j].z + v.z, old[j].w + v.w),
                       to.count, to.aligned);
        }
    }
}

__device__ __forceinline__ float4 activate(float4 gate, float4 up, bool is_relu2)
{
    return is_relu2 ? make_float4(relu2(gate.x) * up.x, relu2(gate.y) * up.y, relu2(gate.z) * up.z,
                                  relu2(gate.w) * up.w)
                    : make_float4(silu(gate.x) * up.x, silu(gate.y) * up.y, silu(gate.z) * up.z,
                                  silu(gate.w) * up.w);
}

// Eight rows and their partners, of the warp's tokens of a chunk. Two lanes a token.
template <class Shape>
__device__ __forceinline__ void
store_pairs(const matrices &in, const typename Shape::memory *shared, const place &at,
            const token_factors<Shape::TOKENS> &tokens, uint32_t from, uint32_t first_token)
{
    const uint32_t lane = threadIdx.x % WARP, row = lane % 2 * 4, dim = in.product.head_dim;
    const uint32_t tile = at.tile;
    const bool gated = in.product.gated;
    const uint32_t p = find_part(in.product, tile), partner = gated ? 1 : p;
    const bnt_cuda_part &part = in.product.parts[p];
    const uint32_t r = (tile - part.first_tile) * 16 + at.half * 8 + row;
    const uint32_t e = gated ? 0 : r % dim; // in the head
    float *out = part.out + (gated ? r : r / dim * part.head_stride + e);
    const float4 *angles = reinterpret_cast<const float4 *>(in.product.angles + e);
    const bool aligned = is_aligned(part);
    const bool is_relu2 = in.product.activation == BNT_ACTIVATION_RELU2;
    if (tile >= in.product.n_tiles || r >= part.rows)
        return;
#pragma unroll
    for (uint32_t j = lane / 2; j < Shape::OWN_TOKENS; j += WARP / 2) {
        const uint32_t i = at.split * Shape::OWN_TOKENS + j, n = from + i, token = first_token + n;
        if (token >= in.m)
            break;
        const int correction = tokens.correction[n];
        float *to = out + (size_t)token * part.out_stride;
        const float4 a =
            scale_four(add_shares<Shape>(shared, at.warp, i, row), correction, tokens.factor[p][n]);
        const float4 b = scale_four(add_shares<Shape>(shared, at.warp, i, 8 + row), correction,
                                    tokens.factor[partner][n]);
        if (gated) {
            store_four(to, activate(a, b, is_relu2), part.rows - r, aligned);
        } else if (part.rotate) {
            const float4 *angle = angles + (size_t)token * (dim / 4);
            const float4 c = __ldg(angle), d = __ldg(angle + 1); // cosines and sines by turns
            store_four(to,
                       make_float4(a.x * c.x - b.x * c.y, a.y * c.z - b.y * c.w,
                                   a.z * d.x - b.z * d.y, a.w * d.z - b.w * d.w),
                       4, aligned);
            store_four(to + dim / 2,
                       make_float4(b.x * c.x + a.x * c.y, b.y * c.z + a.y * c.w,
                                   b.z * d.x + a.z * d.y, b.w * d.z + a.w * d.w),
                       4, aligned);
        } else {
            store_four(to, a, 4, aligned);
            store_four(to + dim / 2, b, 4, aligned);
        }
    }
}

// Those who share rows come together.
template <class Shape> __device__ __forceinline__ void sync_shares()
{
    if (Shape::SPLITS > 1)
        sync_threads(ALL_MULTIPLY, MULTIPLIERS);
    else
        __syncwarp();
}

// Sums go through shared memory, some tokens at a time, where shares are added, and lanes get rows
// that lie side by side.
template <class Shape>
__device__ __forceinline__ void
store(const matrices &in, const int (&d)[Shape::TOKENS / 2], typename Shape::memory *shared,
      const place &at, const token_factors<Shape::TOKENS> &tokens, uint32_t first_token)
{
    constexpr int CHUNK = Shape::CHUNK, CHUNKS = Shape::TOKENS / CHUNK;
    constexpr int AHEAD = Shape::SPLITS > 1; // else there are too many for the registers
    const uint32_t g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const row_place to = find_rows(in, at);
    float4 old[1 + AHEAD][Shape::A_LANE];
    if (AHEAD)
        load_rows<Shape>(old[0], in, at, to, first_token);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if (first_token + c * CHUNK >= in.m)
            break;
        if (c + AHEAD < CHUNKS)
            load_rows<Shape>(old[(c + AHEAD) % (1 + AHEAD)], in, at, to,
                             first_token + (c + AHEAD) * CHUNK);
        sync_shares<Shape>();
#pragma unroll
        for (int i = 0; i < CHUNK / 2; i++)
            shared->chunks[at.split][at.warp][i / 4 * 8 + t * 2 + i % 2][g + i / 2 % 2 * 8] =
                d[c * CHUNK / 2 + i];
        sync_shares<Shape>();
        if (at.pairs)
            store_pairs<Shape>(in, shared, at, tokens, c * CHUNK, first_token);
        else
            store_rows<Shape>(old[c % (1 + AHEAD)], in, shared, at, to, tokens, c * CHUNK,
                              first_token);
    }
}

// A multiplying warpgroup.
template <class Shape>
__device__ __forceinline__ void consume(const matrices &in, typename Shape::memory *shared,
                                        token_factors<Shape::TOKENS> *tokens, barrier *full,
                                        barrier *empty, uint32_t steps, const area &a)
{
    // The same in all lanes, as the compiler is to know.
    const uint32_t warp = __shfl_sync(FULL_WARP, threadIdx.x / WARP, 0);
    const uint32_t g = threadIdx.x % WARP / 4;
    place p;
    p.warp = warp % Shape::TILES;
    p.split = warp / Shape::TILES;
    p.pairs = find_distance(in.product) > 0;
    p.half = p.pairs ? p.warp % 2 : 0;
    const uint32_t own = p.pairs ? p.warp / 2 : p.warp; // tile of the area
    const uint32_t at_a = own * TILE_WORDS + p.half * 16 + g;
    const uint32_t at_b = p.pairs ? at_a + Shape::TILES / 2 * TILE_WORDS : at_a + 16;
    wait_for_previous();
    load_factors(tokens, in, a);
    int d[Shape::TOKENS / 2] = {};
    multiply<Shape>(d, shared->stages, full, empty, p.split, steps, at_a, at_b);
    sync_threads(ALL_MULTIPLY, MULTIPLIERS); // the factors are there
    p.tile = find_tile(in.product, a, own, Shape::TILES);
    store<Shape>(in, d, shared, p, *tokens, a.first_token);
}

template <class Shape> __device__ __forceinline__ void run(const matrices &in)
{
    extern __shared__ uint8_t memory[];
    __shared__ barrier full[Shape::STAGES], empty[Shape::STAGES];
    __shared__ token_factors<Shape::TOKENS> tokens;
    typename Shape::memory *shared =
        reinterpret_cast<typename Shape::memory *>(memory + (-shared_address(memory) & 1023));
    const uint32_t steps = (in.product.n_blocks + PRODUCTS - 1) / PRODUCTS;
    const area a = find_area<Shape>(in);
    let_next_start();
    if (threadIdx.x == 0) {
        for (int i = 0; i < Shape::STAGES; i++) {
            barrier_init(&full[i], WARPGROUP + 1);
            barrier_init(&empty[i], Shape::TILES); // warps that share a step
        }
        barrier_init_done();
    }
    __syncthreads();
    // There are registers enough only if the copying warpgroup gives its own away.
    if (threadIdx.x >= MULTIPLIERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        produce<Shape>(in, shared->stages, full, empty, steps, a);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 112;");
        consume<Shape>(in, shared, &tokens, full, empty, steps, a);
    }
}

#endif

template <class Shape>
__global__ void __launch_bounds__(THREADS, 1) gemm(const __grid_constant__ matrices in)
{
#ifdef BNT_HAS_WGMMA
    run<Shape>(in);
#endif
}

// What a kernel takes for a product, in clocks, roughly: blocks that come one after the other on a
// multiprocessor, times what one takes. step: measured on an H100.
template <class Shape>
double estimate(const bnt_cuda_product *p, uint32_t m, uint32_t processors, double step)
{
    const uint32_t areas = count_areas<Shape>(*p, m);
    const double steps = (p->n_blocks + PRODUCTS - 1) / PRODUCTS;
    return (double)((areas + processors - 1) / processors) *
           (steps * step + 3000 + 40 * Shape::TOKENS);
}

template <class Shape> cudaError_t launch(const matrices &in, cudaStream_t stream)
{
    return launch_early(gemm<Shape>, dim3(count_areas<Shape>(in.product, in.m)), dim3(THREADS),
                        Shape::BYTES, stream, in);
}

struct kernel {
    double (*estimate)(const bnt_cuda_product *, uint32_t, uint32_t, double);
    cudaError_t (*launch)(const matrices &, cudaStream_t);
    const void *function;
    int bytes;
    double step;
};

template <class Shape> kernel describe(double step)
{
    return {estimate<Shape>, launch<Shape>, reinterpret_cast<const void *>(gemm<Shape>),
            Shape::BYTES, step};
}

const kernel kernels[] = {
    describe<shape<1, 16>>(140),   describe<shape<1, 32>>(150), describe<shape<1, 64>>(190),
    describe<shape<1, 128>>(280),  describe<shape<2, 64>>(350), describe<shape<2, 96>>(450),
    describe<shape<2, 128>>(520),  describe<shape<4, 64>>(700), describe<shape<4, 96>>(900),
    describe<shape<4, 128>>(1040),
};
static_assert(sizeof kernels / sizeof kernels[0] == BNT_CUDA_SHAPES, "as many as are told of");

// Whether the code that was loaded for the device has the kernels' bodies: shared memory that they
// declare tells. Then they may have all the memory that they want.
cudaError_t prepare(bool *has)
{
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, kernels[0].function);
    *has = error == cudaSuccess && attributes.sharedSizeBytes > 0;
    for (int i = 0; i < BNT_CUDA_SHAPES && *has && error == cudaSuccess; i++)
        error = cudaFuncSetAttribute(kernels[i].function,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, kernels[i].bytes);
    return error;
}
} // namespace

cudaError_t bnt_cuda_has_wgmma(bool *has)
{
    static known_answers answers;
    return answers.ask(has, prepare);
}

static cudaError_t choose_shape(const struct bnt_cuda_product *product, uint32_t m, uint32_t *shape)
{
    int processors;
    cudaError_t error = find_attribute(cudaDevAttrMultiProcessorCount, &processors);
    if (error != cudaSuccess)
        return error;
    double least = INFINITY;
    for (uint32_t i = 0; i < BNT_CUDA_SHAPES; i++) {
        const double e = kernels[i].estimate(product, m, (uint32_t)processors, kernels[i].step);
        if (e < least) {
            least = e;
            *shape = i;
        }
    }
    return cudaSuccess;
}

cudaError_t bnt_cuda_gemm_wgmma(const struct bnt_cuda_product *product,
                                const struct bnt_cuda_quantized *x, uint32_t m, int32_t *sums,
                                uint32_t shape, cudaStream_t stream)
{
    cudaError_t error = cudaSuccess;
    if (shape == BNT_CUDA_BEST_SHAPE)
        error = choose_shape(product, m, &shape);
    return error == cudaSuccess ? kernels[shape].launch({*product, *x, m, sums}, stream) : error;
}
