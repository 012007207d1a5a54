// SPDX-License-Identifier: MIT
// Ternary products of many tokens on int8 tensor cores, straight from the 2-bit words.
//
// Each warp computes 64 rows × 64 tokens. Each step takes 64 columns. A lane's share of the weights
// of 32 rows is one 16-byte piece of the layout as it lies: 4 rows × 16 columns, which are the four
// A registers of two products each for two 16-row operands. The order of rows within an operand,
// and of columns within a product, is free as long as the sums are put back where they belong, so
// nothing is shuffled. A gated product takes 32 rows of the gate and the same 32 of its partner, so
// that a lane has both sums of each row. Activations lie in shared memory as [token][64 columns]:
// lane (g, t) takes the 16 bytes at token g, columns 16·t, which are its B registers of both
// products.
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum {
    WARP_ROWS = 64,
    WARP_TOKENS = 64,
    RUNS = WARP_ROWS / 32, // of 32 rows
    COLS = 64,
    STAGES = 4,
    GROUPS = WARP_TOKENS / 8, // of eight tokens, the width of a tensor-core product
};

template <int ROW_WARPS, int TOKEN_WARPS> struct shape {
    enum {
        THREADS = ROW_WARPS * TOKEN_WARPS * WARP,
        ROWS = ROW_WARPS * WARP_ROWS,
        TOKENS = TOKEN_WARPS * WARP_TOKENS,
    };
    struct stage {
        uint4 weights[ROW_WARPS][RUNS][WARP]; // what each lane of the warps of one row takes
        uint4 x[TOKENS][COLS / 16];
    };
};

struct place {
    uint32_t g, t; // the lane's row and column in the tensor-core operands
    uint32_t row_warp, token_warp;
};

// The tile of a run of 32 rows in which the lane's rows are.
template <class Shape>
__device__ uint32_t find_tile(const bnt_cuda_product &product, const place &at, uint32_t run)
{
    if (!product.gated)
        return blockIdx.y * (Shape::ROWS / 16) + (at.row_warp * RUNS + run) * 2 + at.g / 4;
    const uint32_t index = blockIdx.y * (Shape::ROWS / 32) + at.row_warp * 2 + at.g / 4;
    const uint32_t tiles = product.parts[1].first_tile;
    return index < tiles ? index + run * tiles : product.n_tiles;
}

// Copies step s of weights (by the warps of the first tokens) and activations.
template <class Shape>
__device__ __forceinline__ void load(typename Shape::stage *to, const bnt_cuda_product &product,
                                     const bnt_cuda_quantized &x, uint32_t m, uint32_t s,
                                     const place &at)
{
    if (at.token_warp == 0) {
#pragma unroll
        for (uint32_t run = 0; run < RUNS; run++) {
            uint32_t tile = find_tile<Shape>(product, at, run), block = s * 2 + at.t / 2;
            uint32_t piece = at.g % 4 / 2 * 4 + at.t % 2 * 2 + at.g % 2;
            bool valid = tile < product.n_tiles && block < product.n_blocks;
            size_t from = valid ? ((size_t)tile * product.n_blocks + block) * 8 + piece : 0;
            copy_async(&to->weights[at.row_warp][run][at.g * 4 + at.t],
                       reinterpret_cast<const uint4 *>(product.blocks) + from, valid);
        }
    }
#pragma unroll
    for (uint32_t i = threadIdx.x; i < Shape::TOKENS * (COLS / 16); i += Shape::THREADS) {
        uint32_t token = blockIdx.x * Shape::TOKENS + i / (COLS / 16);
        bool valid = token < m;
        size_t from = bnt_cuda_quantized_at(m, valid ? token : 0, s * COLS + i % (COLS / 16) * 16);
        copy_async(&to->x[i / (COLS / 16)][i % (COLS / 16)], x.x + from, valid);
    }
}

// One step of a warp: sums[o][j] are the 16 × 8 sums of row operand o and token group j.
template <class Stage>
__device__ __forceinline__ void multiply(int (&sums)[2 * RUNS][GROUPS][4], const Stage *from,
                                         const place &at)
{
    const uint32_t mask = 0x03030303;
    uint32_t code[2 * RUNS][2][4]; // operand, word, columns 4i … 4i + 3
#pragma unroll
    for (int run = 0; run < RUNS; run++) {
        uint4 w = from->weights[at.row_warp][run][at.g * 4 + at.t];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            code[2 * run][0][i] = w.x >> 2 * i & mask;
            code[2 * run][1][i] = w.y >> 2 * i & mask;
            code[2 * run + 1][0][i] = w.z >> 2 * i & mask;
            code[2 * run + 1][1][i] = w.w >> 2 * i & mask;
        }
    }
#pragma unroll
    for (int j = 0; j < GROUPS; j++) {
        uint4 x = from->x[at.token_warp * WARP_TOKENS + j * 8 + at.g][at.t];
#pragma unroll
        for (int o = 0; o < 2 * RUNS; o++) {
            mma_codes(sums[o][j], code[o][0][0], code[o][1][0], code[o][0][1], code[o][1][1], x.x,
                      x.y);
            mma_codes(sums[o][j], code[o][0][2], code[o][1][2], code[o][0][3], code[o][1][3], x.z,
                      x.w);
        }
    }
}

__device__ const bnt_cuda_part &find_part(const bnt_cuda_product &product, uint32_t tile)
{
    int p = 0;
    while (p + 1 < (int)product.n_parts && tile >= product.parts[p + 1].first_tile)
        p++;
    return product.parts[p];
}

// The lane's four consecutive rows of one tile and one token.
struct quad {
    int sum[4];
};

__device__ void store(const bnt_cuda_product &product, const bnt_cuda_quantized &x, uint32_t tile,
                      uint32_t row, uint32_t token, quad s, int32_t *sums)
{
    if (sums) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[(size_t)token * product.n_tiles * 16 + tile * 16 + row + i] = s.sum[i];
        return;
    }
    const bnt_cuda_part &part = find_part(product, tile);
    float factor = part.scale / x.scale[token];
    uint32_t r = (tile - part.first_tile) * 16 + row;
    float *out = part.out + (size_t)token * part.out_stride + r;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (r + i < part.rows)
            out[i] = (product.add ? out[i] : 0.0f) + (float)s.sum[i] * factor;
    }
}

// tile: the gate's.
__device__ void store_gated(const bnt_cuda_product &product, const bnt_cuda_quantized &x,
                            uint32_t tile, uint32_t row, uint32_t token, quad gate, quad up)
{
    const bnt_cuda_part &part = product.parts[0];
    const float gate_factor = part.scale / x.scale[token];
    const float up_factor = product.parts[1].scale / x.scale[token];
    const bool is_relu2 = product.activation == BNT_ACTIVATION_RELU2;
    const uint32_t r = tile * 16 + row;
    float *out = part.out + (size_t)token * part.out_stride + r;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float v = (float)gate.sum[i] * gate_factor;
        if (r + i < part.rows)
            out[i] = (is_relu2 ? relu2(v) : silu(v)) * ((float)up.sum[i] * up_factor);
    }
}

template <int ROW_WARPS, int TOKEN_WARPS>
__global__ void __launch_bounds__(ROW_WARPS *TOKEN_WARPS *WARP)
    gemm(const __grid_constant__ bnt_cuda_product product,
         const __grid_constant__ bnt_cuda_quantized x, uint32_t m, int32_t *sums_out)
{
    typedef shape<ROW_WARPS, TOKEN_WARPS> own;
    extern __shared__ uint4 shared[];
    typename own::stage *stages = reinterpret_cast<typename own::stage *>(shared);
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const place at = {lane / 4, lane % 4, warp % ROW_WARPS, warp / ROW_WARPS};
    const uint32_t steps = (product.n_blocks + 1) / 2;
    int sums[2 * RUNS][GROUPS][4] = {};
    for (uint32_t s = 0; s < STAGES - 1; s++) {
        if (s < steps)
            load<own>(&stages[s], product, x, m, s, at);
        copy_commit();
    }
    for (uint32_t s = 0; s < steps; s++) {
        copy_wait<STAGES - 2>();
        __syncthreads(); // step s has come, and the stage of step s − 1 is free
        if (s + STAGES - 1 < steps)
            load<own>(&stages[(s + STAGES - 1) % STAGES], product, x, m, s + STAGES - 1, at);
        copy_commit();
        multiply(sums, &stages[s % STAGES], at);
    }
    // Sums of run and token group j, of the lane's token i there.
    const auto take = [&](int run, int j, int i, int correction) -> quad {
        const int(&a)[4] = sums[2 * run][j], (&b)[4] = sums[2 * run + 1][j];
        return {
            {a[i] - correction, a[2 + i] - correction, b[i] - correction, b[2 + i] - correction}};
    };
#pragma unroll
    for (int j = 0; j < GROUPS * 2; j++) {
        const uint32_t token =
            blockIdx.x * own::TOKENS + at.token_warp * WARP_TOKENS + j / 2 * 8 + at.t * 2 + j % 2;
        if (token >= m)
            continue;
        const int correction = 2 * x.sum[token]; // codes are weights + 2
        const uint32_t row = at.g % 4 * 4, first = find_tile<own>(product, at, 0);
        if (product.gated) {
            if (first < product.n_tiles)
                store_gated(product, x, first, row, token, take(0, j / 2, j % 2, correction),
                            take(1, j / 2, j % 2, correction));
            continue;
        }
#pragma unroll
        for (int run = 0; run < RUNS; run++) {
            if (first + run * 2 < product.n_tiles)
                store(product, x, first + run * 2, row, token, take(run, j / 2, j % 2, correction),
                      sums_out);
        }
    }
}

template <int ROW_WARPS, int TOKEN_WARPS>
cudaError_t launch(const bnt_cuda_product *product, const bnt_cuda_quantized *x, uint32_t m,
                   int32_t *sums, cudaStream_t stream)
{
    typedef shape<ROW_WARPS, TOKEN_WARPS> own;
    const size_t bytes = STAGES * sizeof(typename own::stage);
    static_assert(STAGES * sizeof(typename own::stage) <= 48 << 10, "what any kernel may have");
    const uint32_t tiles =
        product->gated ? 2 * bnt_cuda_pad(product->parts[1].first_tile, 2) : product->n_tiles;
    dim3 grid((m + own::TOKENS - 1) / own::TOKENS, (tiles + own::ROWS / 16 - 1) / (own::ROWS / 16));
    gemm<ROW_WARPS, TOKEN_WARPS><<<grid, own::THREADS, bytes, stream>>>(*product, *x, m, sums);
    return cudaGetLastError();
}
} // namespace

bool bnt_cuda_gemm_takes_heads(uint32_t head_dim)
{
    bool has_wgmma;
    return bnt_cuda_has_wgmma(&has_wgmma) == cudaSuccess && has_wgmma && head_dim % 32 == 0;
}

cudaError_t bnt_cuda_gemm(const struct bnt_cuda_product *product,
                          const struct bnt_cuda_quantized *x, uint32_t m, int32_t *sums,
                          cudaStream_t stream)
{
    bool has_wgmma;
    cudaError_t error = bnt_cuda_has_wgmma(&has_wgmma);
    if (error != cudaSuccess)
        return error;
    if (has_wgmma)
        return bnt_cuda_gemm_wgmma(product, x, m, sums, BNT_CUDA_BEST_SHAPE, stream);
    // Where there are rows enough to fill the GPU, blocks of more tokens read the weights less
    // often.
    return product->n_tiles >= 480 ? launch<2, 2>(product, x, m, sums, stream)
                                   : launch<2, 1>(product, x, m, sums, stream);
}
