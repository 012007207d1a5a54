// SPDX-License-Identifier: MIT
// What the products of one token share (decode_product.cu, decode_groups.cu): how the columns of a
// block's tiles are shared out among warps, and how a lane takes part.
#ifndef BNT_RUNTIME_CUDA_DECODE_SLICES_CUH
#define BNT_RUNTIME_CUDA_DECODE_SLICES_CUH

#include "runtime/cuda/bulk.cuh"
#include "runtime/cuda/chunk.cuh"
#include "runtime/cuda/decode_input.cuh"

namespace
{
enum {
    MAX_WARPS = 14,
    MAX_CHUNKS = 4,           // of a slice, at once
    SHORT_WARPS = 10,         // where slices of half as many chunks suffice
    WEIGHT_BYTES = 100 << 10, // of a block, at most where one unit does not need more
    OWN_BYTES = 20 << 10,     // of shared memory, besides the dynamic one
    // So that any two kernels that follow one another in a layer find room on a multiprocessor, and
    // attention's 512 threads of 64 registers beside one of these.
    SHORT_REGISTERS = 80,
    LONG_REGISTERS = 88,
};
static_assert(WARP * (SHORT_WARPS * SHORT_REGISTERS + MAX_WARPS * LONG_REGISTERS) <= 1 << 16, "");

// round_half_even(v · s) in the lowest byte: 1.5 · 2^23 leaves no room for a fraction. The product
// is at most 127 by the choice of s.
__device__ __forceinline__ uint32_t quantize_bits(float v, float s)
{
    return __float_as_uint(fmaf(v, s, 12582912.0f));
}

// Some chunks of the input: a run of four values of each, in each lane; the first `left` of them
// exist.
template <int CHUNKS> struct slice {
    float4 v[CHUNKS];

    __device__ __forceinline__ void ask(const float *from, uint32_t left)
    {
#pragma unroll
        for (uint32_t i = 0; i < CHUNKS; i++) {
            v[i] = make_float4(0, 0, 0, 0);
            if (i < left)
                v[i] = load_fresh(reinterpret_cast<const float4 *>(from + i * BNT_CUDA_CHUNK_COLS));
        }
    }

    // norm: the weights, or NULL.
    __device__ __forceinline__ void weigh(const float4 *norm, uint32_t left, input_totals *t)
    {
#pragma unroll
        for (uint32_t i = 0; i < CHUNKS; i++) {
            const float4 plain = v[i];
            if (norm && i < left)
                v[i] = times(plain, norm[i * WARP]);
            t->add(plain, v[i]);
        }
    }
};

// How a lane takes part where weights lie in shared memory. There 8 lanes that read their 16 bytes
// of a chunk (chunk.cuh) would meet only half of the banks; so lanes with t >= 2 read the second 8
// first, and thereby offer other rows than those with t < 2 at the same place. The activations of
// these two halves of the columns stand in different columns of the other operand, zeros between
// them, and so do their sums: each lane finds two of them, of rows that follow one another.
struct shared_lane {
    uint32_t first, second; // where the lane reads, from the chunk's start
    uint32_t x_offset;
    bool has_x;   // else its activations are zeros
    bool odd;     // its sums are in the odd columns
    bool is_last; // and in the second operand
    bool is_half; // of the first half of the columns, even blocks
    uint32_t row; // of the first sum
};

__device__ __forceinline__ shared_lane find_shared_lane()
{
    const chunk_lane at = find_chunk_lane();
    const uint32_t half = at.t / 2 * 8;
    shared_lane s;
    s.first = at.offset + half;
    s.second = at.offset + 8 - half;
    s.x_offset = at.x_offset;
    s.has_x = threadIdx.x / 8 % 2 == at.t / 2;
    s.odd = at.odd;
    s.is_last = at.t >= 2;
    s.is_half = at.t % 2 == 0 && !at.odd;
    s.row = at.row + (at.t == 0 || at.t == 3 ? 0 : 2);
    return s;
}

// How a product is cut: units of tiles among blocks, chunks of columns among the warps of a block.
typedef void (*kernel)(const decode_product, cut, cut);

struct plan {
    kernel run;
    uint32_t units, blocks, slices, chunks, bytes; // bytes: of dynamic shared memory
};

cudaError_t launch(plan p, const decode_product &step, const struct decode_device &device,
                   cudaStream_t stream)
{
    cudaError_t error = cudaFuncSetAttribute(p.run, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)(device.shared_bytes - OWN_BYTES));
    if (error != cudaSuccess)
        return error;
    cudaFuncAttributes own;
    error = cudaFuncGetAttributes(&own, (const void *)p.run);
    if (error != cudaSuccess)
        return error;
    if (step.alone && device.is_early) // half of a multiprocessor's, besides what all blocks need
        p.bytes = max(p.bytes, device.processor_shared_bytes / 2 - (uint32_t)own.sharedSizeBytes);
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(p.blocks);
    config.blockDim = dim3(p.slices * WARP);
    config.dynamicSmemBytes = p.bytes;
    config.stream = stream;
    set_sharing(&config, attributes, device.is_early);
    return cudaLaunchKernelEx(&config, p.run, step, cut_evenly(p.units, p.blocks),
                              cut_evenly(p.chunks, p.slices));
}
} // namespace

#endif
