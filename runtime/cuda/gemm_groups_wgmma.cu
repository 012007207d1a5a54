// SPDX-License-Identifier: MIT
// The products of gemm_groups.cu by Hopper's warpgroup products, for code built for sm_90a.
//
// As in gemm_wgmma.cu a warpgroup copies and others multiply, but of these there are two, of 64
// rows each, and two blocks find room on a multiprocessor: while some warpgroups turn sums into
// floats, begin or end, others have the tensor cores. A step takes 128 columns, which is a group of
// the usual size. Sums go from registers to memory as they are: eight lanes have eight rows of a
// token.
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/scales.cuh"
#include "runtime/cuda/wgmma.cuh"

namespace
{
enum {
    COLS = 128,
    PRODUCTS = COLS / 32, // a step
    BLOCK_WORDS = 32,
    TILE_WORDS = PRODUCTS * BLOCK_WORDS, // of a 16-row tile, a step
    GROUPS = 2,                          // warpgroups that multiply
    TILES = GROUPS * 4,
    MULTIPLIERS = GROUPS * WARPGROUP, // threads
    THREADS = MULTIPLIERS + WARPGROUP,
    SHARED_BYTES = 104 << 10, // of a block
    REGISTERS = 80,           // of a thread, so that two blocks have all there are
    MAX_ROW_COLS = 1 << 16,   // of signed weights in one sum, where a row is one group
};
static_assert(2 * 64 * 128ll * MAX_ROW_COLS <= INT32_MAX, "also of the code 0");

// When sums become floats: after the last step; after some steps; after each, where those of both
// bytes are small enough to be one integer; or after some of the products of a step.
enum kind { BY_ROW, BY_STEPS, BY_STEP, BY_TWO, BY_ONE };

template <int N> struct shape {
    struct stage {
        int8_t x[N][COLS];
        uint32_t words[TILES][TILE_WORDS];
    };
    enum {
        X_ROWS = N,
        FIT = (SHARED_BYTES - 1024) / (int)sizeof(stage),
        STAGES = FIT < 8 ? 4 : 8,
        BYTES = STAGES * (int)sizeof(stage) + 1024, // with room to align
    };
    static_assert(sizeof(stage) % 1024 == 0, "every stage is aligned as the first is");
};

struct matrices {
    bnt_cuda_product product;
    bnt_cuda_quantized x;
    uint32_t m, x_rows;
};

template <class Shape>
__host__ __device__ uint32_t count_areas(const bnt_cuda_product &p, uint32_t x_rows)
{
    return divide_up(p.n_tiles, TILES) * divide_up(x_rows, Shape::X_ROWS);
}

#ifdef BNT_HAS_WGMMA

struct area {
    uint32_t rows; // how many areas of rows lie before it
    uint32_t first_x;
};

template <class Shape> __device__ area find_area(const matrices &in)
{
    const uint32_t across = divide_up(in.x_rows, Shape::X_ROWS);
    return {blockIdx.x / across, blockIdx.x % across * Shape::X_ROWS};
}

// The stack's tile that is tile i of an area, or one beyond its end. An area of a gated product has
// tiles of the gate first, then their partners.
__device__ uint32_t find_tile(const bnt_cuda_product &p, const area &a, uint32_t i)
{
    if (!p.gated)
        return a.rows * TILES + i;
    const uint32_t pairs = p.n_tiles / 2, pair = a.rows * (TILES / 2) + i % (TILES / 2);
    return pair < pairs ? pair + (i >= TILES / 2 ? pairs : 0) : p.n_tiles;
}

// The copying warpgroup, see gemm_wgmma.cu.
template <class Shape>
__device__ __forceinline__ void produce(const matrices &in, typename Shape::stage *stages,
                                        barrier *full, barrier *empty, uint32_t steps,
                                        const area &a)
{
    enum { OWN = TILES / 4 };
    const bnt_cuda_product &p = in.product;
    const uint32_t warp = threadIdx.x / WARP % 4, lane = threadIdx.x % WARP;
    const uint4 *from[OWN];
    bool valid[OWN];
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        const uint32_t tile = find_tile(p, a, warp * OWN + i);
        valid[i] = tile < p.n_tiles;
        from[i] = reinterpret_cast<const uint4 *>(p.blocks) + lane +
                  (valid[i] ? (size_t)tile * p.n_blocks * (BLOCK_WORDS / 4) : 0);
    }
    const auto copy_words = [&](uint32_t s, uint32_t slot) {
        const bool within = s * PRODUCTS + lane / 8 < p.n_blocks;
#pragma unroll
        for (int i = 0; i < OWN; i++)
            copy_async(&stages[slot].words[warp * OWN + i][lane * 4],
                       from[i] + (within ? s * (TILE_WORDS / 4) : 0), valid[i] && within);
        barrier_arrive_copied(&full[slot]);
    };
    const uint32_t x_bytes = min(in.x_rows - a.first_x, (uint32_t)Shape::X_ROWS) * COLS;
    const auto copy_x = [&](uint32_t s, uint32_t slot) {
        if (threadIdx.x > MULTIPLIERS)
            return;
        barrier_arrive_expecting(&full[slot], x_bytes);
        copy_bulk(stages[slot].x, in.x.x + bnt_cuda_quantized_at(in.x_rows, a.first_x, s * COLS),
                  x_bytes, &full[slot]);
    };
    const uint32_t ahead = min(steps, (uint32_t)Shape::STAGES);
    for (uint32_t s = 0; s < ahead; s++)
        copy_words(s, s);
    wait_for_previous();
    for (uint32_t s = 0; s < ahead; s++)
        copy_x(s, s);
    for (uint32_t s = ahead; s < steps; s++) {
        const uint32_t slot = s % Shape::STAGES;
        barrier_wait(&empty[slot], (s / Shape::STAGES + 1) % 2);
        copy_x(s, slot);
        copy_words(s, slot);
    }
}

// A lane's two rows, eight rows apart in the operand: of one tile, or of the gate and its partner.
struct two_rows {
    const bnt_cuda_part *part[2];
    uint32_t row[2];   // of the part
    bool valid;        // the first is there
    bool has_second;   // and so is the second
    size_t scales[2];  // of group 0
    uint32_t words[2]; // where they begin in a stage's words
};

__device__ __forceinline__ two_rows find_rows(const bnt_cuda_product &p, const area &a)
{
    // The same in all lanes, as the compiler is to know.
    const uint32_t warp = __shfl_sync(FULL_WARP, threadIdx.x / WARP, 0);
    const uint32_t g = threadIdx.x % WARP / 4;
    const uint32_t own = p.gated ? warp / 2 : warp, half = p.gated ? warp % 2 : 0;
    const uint32_t tile = find_tile(p, a, own);
    uint32_t part = 0;
    while (!p.gated && part + 1 < p.n_parts && tile >= p.parts[part + 1].first_tile)
        part++;
    two_rows r;
    r.part[0] = &p.parts[part];
    r.part[1] = p.gated ? &p.parts[1] : r.part[0];
    const uint32_t in_part = tile - r.part[0]->first_tile, in_tile = half * 8 + g;
    r.row[0] = in_part * 16 + in_tile;
    r.row[1] = p.gated ? r.row[0] : r.row[0] + 8;
    r.valid = tile < p.n_tiles && r.row[0] < r.part[0]->rows;
    r.has_second = r.valid && r.row[1] < r.part[1]->rows;
    r.scales[0] = (size_t)in_part * p.n_groups * SCALE_ROWS + in_tile;
    r.scales[1] = r.scales[0] + (p.gated ? 0 : 8);
    r.words[0] = own * TILE_WORDS + half * 16 + g;
    r.words[1] = r.words[0] + (p.gated ? TILES / 2 * TILE_WORDS : 16);
    return r;
}

// The scales of a group, of padding rows too.
__device__ __forceinline__ float2 load_scales(const bnt_cuda_product &p, const two_rows &r,
                                              uint32_t group)
{
    if (!r.valid || group >= p.n_groups)
        return make_float2(0, 0);
    const size_t at = (size_t)group * SCALE_ROWS;
    return make_float2(load_scale(r.part[0]->scales, p.halves, r.scales[0] + at),
                       load_scale(r.part[1]->scales, p.halves, r.scales[1] + at));
}

// What is left of complete sums: of eight rows of activations each, in 16 bits of four tokens, for
// the lane's two rows.
template <class Shape, bool WIDE> struct totals {
    enum { EACH = WIDE ? 1 : 2 };
    float of[Shape::X_ROWS / 8][2][EACH];
};

template <class Shape, bool WIDE, kind KIND>
__device__ __forceinline__ void take(totals<Shape, WIDE> &total, const int (&d)[Shape::X_ROWS / 2],
                                     float2 scale)
{
#pragma unroll
    for (int j = 0; j < Shape::X_ROWS / 8; j++)
#pragma unroll
        for (int row = 0; row < 2; row++)
#pragma unroll
            for (int i = 0; i < total.EACH; i++) {
                const int *s = &d[j * 4 + row * 2 + i];
                const float sum = !WIDE              ? (float)s[0]
                                  : KIND == BY_STEPS ? join_bytes(s[0], s[1])
                                                     : (float)(s[0] * 256 + s[1]);
                float &to = total.of[j][row][i];
                to = add_group(to, row ? scale.y : scale.x, sum);
            }
}

// Where a row is one group.
template <class Shape, bool WIDE>
__device__ __forceinline__ void take_all(totals<Shape, WIDE> &total,
                                         const int (&d)[Shape::X_ROWS / 2])
{
#pragma unroll
    for (int j = 0; j < Shape::X_ROWS / 8; j++)
#pragma unroll
        for (int row = 0; row < 2; row++)
#pragma unroll
            for (int i = 0; i < total.EACH; i++) {
                const int *s = &d[j * 4 + row * 2 + i];
                total.of[j][row][i] = WIDE ? join_bytes(s[0], s[1]) : (float)s[0];
            }
}

// The words of some products, of the lane's two rows, and the first operands that they become.
template <int N> struct operands {
    uint32_t of[N][4];

    __device__ __forceinline__ void load(const uint32_t *words, const two_rows &r, uint32_t first)
    {
        const uint32_t *row[2] = {words + first * BLOCK_WORDS + r.words[0],
                                  words + first * BLOCK_WORDS + r.words[1]};
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                of[i][j] = row[j % 2][i * BLOCK_WORDS + j / 2 * 8];
    }

    __device__ __forceinline__ void decode()
    {
        const uint32_t left = 6 - threadIdx.x % 4 * 2;
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                of[i][j] = shift_signed_weights(of[i][j], left);
    }
};

// Gives a stage back, after all lanes have read its words.
__device__ __forceinline__ void give_back(barrier *empty)
{
    __syncwarp();
    if (threadIdx.x % WARP == 0)
        barrier_arrive(empty);
}

// Where a row is one group.
template <class Shape>
__device__ __forceinline__ void multiply_rows(int (&d)[Shape::X_ROWS / 2],
                                              const typename Shape::stage *stages, barrier *full,
                                              barrier *empty, uint32_t steps, const two_rows &r)
{
    const uint64_t first_rows = wgmma_rows(stages->x);
#pragma unroll 1
    for (uint32_t s = 0; s < steps; s++) {
        const uint32_t slot = s % Shape::STAGES;
        barrier_wait(&full[slot], s / Shape::STAGES % 2);
        const uint64_t rows = first_rows + slot * (sizeof(typename Shape::stage) / 16);
        operands<PRODUCTS> o;
        o.load(stages[slot].words[0], r, 0);
        o.decode();
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < PRODUCTS; i++)
            wgmma_weights(d, o.of[i], rows + i * 2, 1);
        wgmma_commit();
        wgmma_wait<0>();
        give_back(&empty[slot]);
    }
    wgmma_take(d);
}

template <class Shape, bool WIDE, kind KIND>
__device__ __forceinline__ void multiply_groups(totals<Shape, WIDE> &total, const matrices &in,
                                                const typename Shape::stage *stages, barrier *full,
                                                barrier *empty, uint32_t steps, const two_rows &r)
{
    constexpr int AT_ONCE = KIND == BY_ONE ? 1 : KIND == BY_TWO ? 2 : (int)PRODUCTS;
    const uint64_t first_rows = wgmma_rows(stages->x);
    const uint32_t group_steps = KIND == BY_STEPS ? in.product.group_blocks / PRODUCTS : 1;
    uint32_t left = group_steps, group = 0;
    float2 scale = load_scales(in.product, r, 0);
    int d[Shape::X_ROWS / 2] = {};
#pragma unroll 1
    for (uint32_t s = 0; s < steps; s++) {
        const uint32_t slot = s % Shape::STAGES;
        barrier_wait(&full[slot], s / Shape::STAGES % 2);
        const uint64_t rows = first_rows + slot * (sizeof(typename Shape::stage) / 16);
#pragma unroll
        for (int first = 0; first < PRODUCTS; first += AT_ONCE) {
            operands<AT_ONCE> o;
            o.load(stages[slot].words[0], r, first);
            o.decode();
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                wgmma_weights(d, o.of[i], rows + (first + i) * 2, i > 0 || left < group_steps);
            wgmma_commit();
            const float2 now = scale;
            if (left == 1)
                scale = load_scales(in.product, r, ++group);
            wgmma_wait<0>();
            wgmma_take(d);
            if (first + AT_ONCE == PRODUCTS)
                give_back(&empty[slot]);
            if (KIND == BY_STEPS && --left > 0 && s + 1 < steps)
                continue;
            left = group_steps;
            take<Shape, WIDE, KIND>(total, d, now);
        }
    }
}

// What is read at the end is asked for some at a time, before anything is written.
template <class Shape, bool WIDE>
__device__ __forceinline__ void store(const totals<Shape, WIDE> &total, const matrices &in,
                                      const area &a, const two_rows &r)
{
    enum {
        EACH = totals<Shape, WIDE>::EACH,
        COUNT = Shape::X_ROWS / 8 * EACH,
        BATCH = WIDE ? 8 : 4
    };
    const bnt_cuda_product &p = in.product;
    const bool is_relu2 = p.activation == BNT_ACTIVATION_RELU2;
    if (!r.valid)
        return;
    float2 scale = make_float2(r.part[0]->scale, r.part[1]->scale), bias = make_float2(0, 0);
    if (p.n_groups == 1)
        scale = load_scales(p, r, 0);
    if (r.part[0]->bias)
        bias.x = r.part[0]->bias[r.row[0]];
    if (r.part[1]->bias && r.has_second)
        bias.y = r.part[1]->bias[r.row[1]];
    const uint32_t first = (a.first_x + threadIdx.x % 4 * 2) / (WIDE ? 2 : 1);
    float *out = r.part[0]->out + r.row[0];
    const size_t stride = r.part[0]->out_stride;
    const auto token_of = [&](uint32_t i) { return first + i / EACH * (4 * EACH) + i % EACH; };
#pragma unroll
    for (uint32_t from = 0; from < COUNT; from += BATCH) {
        float x_scale[BATCH];
        float2 old[BATCH];
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const uint32_t token = token_of(from + i);
            x_scale[i] = 1;
            old[i] = make_float2(0, 0);
            if (token >= in.m)
                continue;
            x_scale[i] = in.x.scale[token];
            if (p.add)
                old[i] =
                    make_float2(out[token * stride], r.has_second ? out[token * stride + 8] : 0);
        }
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const uint32_t token = token_of(from + i);
            const float by = 1.0f / (1 << SIGNED_BITS);
            const auto &sums = total.of[(from + i) / EACH];
            const float u = finish_sum(sums[0][i % EACH] * by, p.n_groups, scale.x, x_scale[i]);
            const float v = finish_sum(sums[1][i % EACH] * by, p.n_groups, scale.y, x_scale[i]);
            const float2 y = make_float2(__fadd_rn(u, bias.x), __fadd_rn(v, bias.y));
            if (token >= in.m)
                continue;
            float *to = out + token * stride;
            if (p.gated) {
                *to = (is_relu2 ? relu2(y.x) : silu(y.x)) * y.y;
                continue;
            }
            *to = p.add ? __fadd_rn(old[i].x, y.x) : y.x;
            if (r.has_second)
                to[8] = p.add ? __fadd_rn(old[i].y, y.y) : y.y;
        }
    }
}

template <class Shape, bool WIDE, kind KIND> __device__ __forceinline__ void run(const matrices &in)
{
    extern __shared__ uint8_t memory[];
    __shared__ barrier full[Shape::STAGES], empty[Shape::STAGES];
    typename Shape::stage *stages =
        reinterpret_cast<typename Shape::stage *>(memory + (-shared_address(memory) & 1023));
    const uint32_t steps = divide_up(in.product.n_blocks, PRODUCTS);
    const area a = find_area<Shape>(in);
    let_next_start();
    if (threadIdx.x == 0) {
        for (int i = 0; i < Shape::STAGES; i++) {
            barrier_init(&full[i], WARPGROUP + 1);
            barrier_init(&empty[i], TILES); // warps
        }
        barrier_init_done();
    }
    __syncthreads();
    // A block is given REGISTERS a thread, and what its warpgroups take must not be more than that:
    // they would wait for ever.
    static_assert(WARPGROUP * 32 + MULTIPLIERS * 104 <= THREADS * REGISTERS, "");
    if (threadIdx.x >= MULTIPLIERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        produce<Shape>(in, stages, full, empty, steps, a);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 104;");
        const two_rows r = find_rows(in.product, a);
        totals<Shape, WIDE> total = {};
        wait_for_previous();
        if (KIND == BY_ROW) {
            int d[Shape::X_ROWS / 2] = {};
            multiply_rows<Shape>(d, stages, full, empty, steps, r);
            take_all<Shape, WIDE>(total, d);
        } else {
            multiply_groups<Shape, WIDE, KIND>(total, in, stages, full, empty, steps, r);
        }
        store<Shape, WIDE>(total, in, a, r);
    }
}

#endif

template <class Shape, bool WIDE, kind KIND>
__global__ void __launch_bounds__(THREADS, 2) gemm(const __grid_constant__ matrices in)
{
#ifdef BNT_HAS_WGMMA
    run<Shape, WIDE, KIND>(in);
#endif
}

template <class Shape, bool WIDE, kind KIND>
cudaError_t launch(const matrices &in, cudaStream_t stream)
{
    static known_answers allowed;
    bool is_allowed;
    cudaError_t error = allowed.ask(&is_allowed, [](bool *answer) {
        *answer = true;
        return cudaFuncSetAttribute(gemm<Shape, WIDE, KIND>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::BYTES);
    });
    if (error != cudaSuccess)
        return error;
    return launch_early(gemm<Shape, WIDE, KIND>, dim3(count_areas<Shape>(in.product, in.x_rows)),
                        dim3(THREADS), Shape::BYTES, stream, in);
}

// Few tokens have a small shape.
template <bool WIDE, kind KIND> cudaError_t launch_best(const matrices &in, cudaStream_t stream)
{
    return in.x_rows <= 32 ? launch<shape<32>, WIDE, KIND>(in, stream)
                           : launch<shape<64>, WIDE, KIND>(in, stream);
}

template <bool WIDE> cudaError_t launch_kind(const matrices &in, cudaStream_t stream)
{
    const bnt_cuda_product &p = in.product;
    if (p.n_groups <= 1)
        return launch_best<WIDE, BY_ROW>(in, stream);
    if (p.group_blocks == PRODUCTS)
        return launch_best<WIDE, BY_STEP>(in, stream);
    // Kinds that are rarely met have one shape.
    return p.group_blocks == 1   ? launch<shape<64>, WIDE, BY_ONE>(in, stream)
           : p.group_blocks == 2 ? launch<shape<64>, WIDE, BY_TWO>(in, stream)
                                 : launch<shape<64>, WIDE, BY_STEPS>(in, stream);
}
} // namespace

bool bnt_cuda_gemm_groups_has_wgmma(const struct bnt_cuda_product *p)
{
    bool has_wgmma;
    return bnt_cuda_has_wgmma(&has_wgmma) == cudaSuccess && has_wgmma &&
           (p->n_groups <= 1 ? p->n_blocks * 32 <= MAX_ROW_COLS
                             : p->group_blocks <= 2 || p->group_blocks % PRODUCTS == 0);
}

cudaError_t bnt_cuda_gemm_groups_wgmma(const struct bnt_cuda_product *product,
                                       const struct bnt_cuda_quantized *x, uint32_t m,
                                       cudaStream_t stream)
{
    const matrices in = {*product, *x, m, x->is_16_bit ? 2 * m : m};
    return x->is_16_bit ? launch_kind<true>(in, stream) : launch_kind<false>(in, stream);
}
