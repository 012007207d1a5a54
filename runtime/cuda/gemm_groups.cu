// SPDX-License-Identifier: MIT
// Ternary products of which gemm.cu's are the simplest kind: scales by row, or by row and group of
// columns, activations of 8 or 16 bits, biases (bnt.md sections 5 and 5.1).
//
// The two bytes of a 16-bit activation are two rows, so that a word is decoded once for both, and
// stand side by side, so that a lane has the sums of both. Otherwise lanes take what they do in
// gemm.cu, but weights are signed bytes: then sums need no correction. A group's sums are complete
// before they become floats, which are added up in the order of the groups.
#include "runtime/cuda/scales.cuh"

namespace
{
enum {
    ROW_WARPS = 2,
    X_WARPS = 2,
    THREADS = ROW_WARPS * X_WARPS * WARP,
    WARP_ROWS = 32, // of weights: two tiles, two operands
    WARP_X = 64,    // rows of activations
    X_GROUPS = WARP_X / 8,
    ROWS = ROW_WARPS * WARP_ROWS,
    X_ROWS = X_WARPS * WARP_X,
    COLS = 64, // a step
    STAGES = 4,
    STEPS_AT_ONCE = 16, // whose sums of signed weights fit in int32
};
static_assert(2 * 64 * 128ll * COLS * STEPS_AT_ONCE <= INT32_MAX, "also of the code 0");

// How sums become floats: once for the whole row, after some steps, or within a step.
enum kind { BY_ROW, BY_STEPS, BY_BLOCKS };

struct stage {
    uint4 weights[ROW_WARPS][WARP];
    uint4 x[X_ROWS][COLS / 16];
};

typedef int lane_sums[2][X_GROUPS][4];

// What is left of complete sums; in the place of element i of operand o and group j.
template <bool WIDE, kind KIND> struct totals {
    enum { EACH = WIDE ? 2 : 4 };
    float of[2][X_GROUPS][EACH];

    // scale: of the lane's four rows.
    __device__ __forceinline__ void take(lane_sums &s, const float (&scale)[4])
    {
#pragma unroll
        for (int o = 0; o < 2; o++)
#pragma unroll
            for (int j = 0; j < X_GROUPS; j++)
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    const float sum =
                        WIDE ? join_bytes(s[o][j][2 * i], s[o][j][2 * i + 1]) : (float)s[o][j][i];
                    const float by = scale[2 * o + (WIDE ? i : i / 2)];
                    of[o][j][i] = add_group(of[o][j][i], by, sum);
                }
    }

    __device__ __forceinline__ float get(int o, int j, int i) const
    {
        return of[o][j][i] * (1.0f / (1 << SIGNED_BITS));
    }
};

template <bool WIDE> struct totals<WIDE, BY_ROW> {
    enum { EACH = WIDE ? 2 : 4 };
    int of[2][X_GROUPS][4];

    __device__ __forceinline__ void take(lane_sums &s, const float (&)[4])
    {
#pragma unroll
        for (int o = 0; o < 2; o++)
#pragma unroll
            for (int j = 0; j < X_GROUPS; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    of[o][j][i] += s[o][j][i] >> SIGNED_BITS;
    }

    __device__ __forceinline__ float get(int o, int j, int i) const
    {
        return WIDE ? join_bytes(of[o][j][2 * i], of[o][j][2 * i + 1]) : (float)of[o][j][i];
    }
};

struct place {
    uint32_t g, t; // the lane's row and column in the tensor-core operands
    uint32_t row_warp, x_warp;
    uint32_t tile, row; // the lane's four rows: of the stack, and the first in the tile
};

__device__ __forceinline__ void load(stage *to, const bnt_cuda_product &p, const int8_t *x,
                                     uint32_t x_rows, uint32_t s, const place &at)
{
    if (at.x_warp == 0) {
        const uint32_t block = s * 2 + at.t / 2;
        const uint32_t piece = at.g % 4 / 2 * 4 + at.t % 2 * 2 + at.g % 2;
        const bool valid = at.tile < p.n_tiles && block < p.n_blocks;
        const size_t from = valid ? ((size_t)at.tile * p.n_blocks + block) * 8 + piece : 0;
        copy_async(&to->weights[at.row_warp][at.g * 4 + at.t],
                   reinterpret_cast<const uint4 *>(p.blocks) + from, valid);
    }
#pragma unroll
    for (uint32_t i = threadIdx.x; i < X_ROWS * (COLS / 16); i += THREADS) {
        const uint32_t row = blockIdx.x * X_ROWS + i / (COLS / 16);
        const bool valid = row < x_rows;
        const size_t from =
            bnt_cuda_quantized_at(x_rows, valid ? row : 0, s * COLS + i % (COLS / 16) * 16);
        copy_async(&to->x[i / (COLS / 16)][i % (COLS / 16)], x + from, valid);
    }
}

// One step of a warp. has_x: else this lane's activations count as zeros.
__device__ __forceinline__ void multiply(lane_sums &sums, const stage *from, const place &at,
                                         bool has_x)
{
    const uint4 w = from->weights[at.row_warp][at.g * 4 + at.t];
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    uint32_t a[4][4]; // word, columns 4i … 4i + 3
#pragma unroll
    for (int i = 0; i < 4; i++) {
        a[i][0] = signed_weights<0>(words[i]);
        a[i][1] = signed_weights<1>(words[i]);
        a[i][2] = signed_weights<2>(words[i]);
        a[i][3] = signed_weights<3>(words[i]);
    }
#pragma unroll
    for (int j = 0; j < X_GROUPS; j++) {
        uint4 x = from->x[at.x_warp * WARP_X + j * 8 + at.g][at.t];
        if (!has_x)
            x = make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int o = 0; o < 2; o++) {
            const uint32_t(&u)[4] = a[2 * o], (&v)[4] = a[2 * o + 1];
            mma_weights(sums[o][j], u[0], v[0], u[1], v[1], x.x, x.y);
            mma_weights(sums[o][j], u[2], v[2], u[3], v[3], x.z, x.w);
        }
    }
}

__device__ __forceinline__ void clear(lane_sums &sums)
{
#pragma unroll
    for (int o = 0; o < 2; o++)
#pragma unroll
        for (int j = 0; j < X_GROUPS; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sums[o][j][i] = 0;
}

// The lane's four rows in the part where they are.
struct rows {
    const bnt_cuda_part *part;
    uint32_t first, count; // first: of the part; count: 0 … 4
    size_t scales;         // of group 0
};

__device__ __forceinline__ rows find_rows(const bnt_cuda_product &p, const place &at)
{
    uint32_t i = 0;
    while (i + 1 < p.n_parts && at.tile >= p.parts[i + 1].first_tile)
        i++;
    const bnt_cuda_part &part = p.parts[i];
    const uint32_t tile = at.tile - part.first_tile, first = tile * 16 + at.row;
    const bool valid = at.tile < p.n_tiles && first < part.rows;
    return {&part, first, valid ? min(part.rows - first, 4u) : 0,
            (size_t)tile * p.n_groups * SCALE_ROWS + at.row};
}

__device__ __forceinline__ void load_scales(float (&scale)[4], const bnt_cuda_product &p,
                                            const rows &r, uint32_t group)
{
    const size_t i = r.scales + (size_t)group * SCALE_ROWS; // padding rows have some too
    if (r.count == 0)
        return;
    if (p.halves) {
        const uint2 w =
            __ldg(reinterpret_cast<const uint2 *>(static_cast<const __half *>(r.part->scales) + i));
        const float2 a = __half22float2(*reinterpret_cast<const __half2 *>(&w.x));
        const float2 b = __half22float2(*reinterpret_cast<const __half2 *>(&w.y));
        scale[0] = a.x;
        scale[1] = a.y;
        scale[2] = b.x;
        scale[3] = b.y;
    } else {
        const float4 v =
            __ldg(reinterpret_cast<const float4 *>(static_cast<const float *>(r.part->scales) + i));
        scale[0] = v.x;
        scale[1] = v.y;
        scale[2] = v.z;
        scale[3] = v.w;
    }
}

template <bool WIDE, kind KIND>
__device__ __forceinline__ void store(const totals<WIDE, KIND> &total, const bnt_cuda_product &p,
                                      const bnt_cuda_quantized &x, uint32_t m, const rows &r,
                                      const place &at)
{
    const bnt_cuda_part &part = *r.part;
    float scale[4] = {part.scale, part.scale, part.scale, part.scale};
    if (p.n_groups == 1)
        load_scales(scale, p, r, 0);
#pragma unroll
    for (int j = 0; j < X_GROUPS; j++)
#pragma unroll
        for (int c = 0; c < (WIDE ? 1 : 2); c++) {
            const uint32_t row = blockIdx.x * X_ROWS + at.x_warp * WARP_X + j * 8 + at.t * 2 + c;
            const uint32_t token = WIDE ? row / 2 : row;
            if (token >= m)
                continue;
            const float x_scale = x.scale[token];
            float *out = part.out + (size_t)token * part.out_stride + r.first;
#pragma unroll
            for (int i = 0; i < 4; i++) { // row i is that of operand i / 2, upper or lower half
                if (i >= (int)r.count)
                    break;
                const float sum = total.get(i / 2, j, WIDE ? i % 2 : i % 2 * 2 + c);
                float y = finish_sum(sum, p.n_groups, scale[i], x_scale);
                if (part.bias)
                    y = __fadd_rn(y, part.bias[r.first + i]);
                out[i] = p.add ? __fadd_rn(out[i], y) : y;
            }
        }
}

template <bool WIDE, kind KIND>
__global__ void __launch_bounds__(THREADS)
    gemm(const __grid_constant__ bnt_cuda_product p, const __grid_constant__ bnt_cuda_quantized x,
         uint32_t m)
{
    __shared__ stage stages[STAGES];
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    place at = {lane / 4, lane % 4, warp % ROW_WARPS, warp / ROW_WARPS, 0, 0};
    at.tile = blockIdx.y * (ROWS / 16) + at.row_warp * 2 + at.g / 4;
    at.row = at.g % 4 * 4;
    const uint32_t steps = divide_up(p.n_blocks, 2), x_rows = WIDE ? 2 * m : m;
    const rows own = find_rows(p, at);
    lane_sums sums;
    totals<WIDE, KIND> total = {};
    float scale[4] = {0, 0, 0, 0};
    // Blocks (or steps, if KIND is BY_STEPS) of the group that are to come, and its number.
    const uint32_t each = KIND == BY_ROW     ? (uint32_t)STEPS_AT_ONCE
                          : KIND == BY_STEPS ? p.group_blocks / 2
                                             : p.group_blocks;
    uint32_t left = each, group = 0;
    const auto close = [&]() {
        if (KIND != BY_ROW)
            load_scales(scale, p, own, group++);
        total.take(sums, scale);
        clear(sums);
        left = each;
    };
    clear(sums);
    wait_for_previous();
    for (uint32_t s = 0; s < STAGES - 1; s++) {
        if (s < steps)
            load(&stages[s], p, x.x, x_rows, s, at);
        copy_commit();
    }
    for (uint32_t s = 0; s < steps; s++) {
        copy_wait<STAGES - 2>();
        __syncthreads(); // step s has come, and the stage of step s − 1 is free
        if (s + STAGES - 1 < steps)
            load(&stages[(s + STAGES - 1) % STAGES], p, x.x, x_rows, s + STAGES - 1, at);
        copy_commit();
        if (KIND == BY_BLOCKS) {
#pragma unroll 1
            for (uint32_t half = 0; half < 2 && s * 2 + half < p.n_blocks; half++) {
                multiply(sums, &stages[s % STAGES], at, at.t / 2 == half);
                if (--left == 0 || s * 2 + half + 1 == p.n_blocks)
                    close();
            }
        } else {
            multiply(sums, &stages[s % STAGES], at, true);
            if (--left == 0 || s + 1 == steps)
                close();
        }
    }
    store(total, p, x, m, own, at);
}

typedef void (*kernel)(const bnt_cuda_product, const bnt_cuda_quantized, uint32_t);

template <bool WIDE> kernel choose_kernel(const bnt_cuda_product &p)
{
    return p.n_groups <= 1           ? gemm<WIDE, BY_ROW>
           : p.group_blocks % 2 == 0 ? gemm<WIDE, BY_STEPS>
                                     : gemm<WIDE, BY_BLOCKS>;
}
} // namespace

bool bnt_cuda_gemm_groups_gates(const struct bnt_cuda_product *product)
{
    return bnt_cuda_gemm_groups_has_wgmma(product);
}

cudaError_t bnt_cuda_gemm_groups(const struct bnt_cuda_product *product,
                                 const struct bnt_cuda_quantized *x, uint32_t m,
                                 cudaStream_t stream)
{
    return (bnt_cuda_gemm_groups_has_wgmma(product)
                ? bnt_cuda_gemm_groups_wgmma
                : bnt_cuda_gemm_groups_plain)(product, x, m, stream);
}

cudaError_t bnt_cuda_gemm_groups_plain(const struct bnt_cuda_product *product,
                                       const struct bnt_cuda_quantized *x, uint32_t m,
                                       cudaStream_t stream)
{
    const kernel run =
        x->is_16_bit ? choose_kernel<true>(*product) : choose_kernel<false>(*product);
    const uint32_t x_rows = x->is_16_bit ? 2 * m : m;
    const dim3 grid(divide_up(x_rows, X_ROWS), divide_up(product->n_tiles, ROWS / 16));
    run<<<grid, THREADS, 0, stream>>>(*product, *x, m);
    return cudaGetLastError();
}
