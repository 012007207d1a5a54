// SPDX-License-Identifier: MIT
// The output layer: a warp takes four rows, so that activations are read once for them, and up to
// eight tokens, so that rows are read once for these. Rows come from memory once and are not kept.
#include "runtime/cuda/device.cuh"
#include "runtime/cuda/ops.cuh"

namespace
{
enum { THREADS = 256, ROWS = 4, COLS = 8, MAX_TOKENS = 8 }; // columns a lane takes at a time

struct eight {
    float v[COLS];
};

__device__ __forceinline__ eight load_weights(const __nv_bfloat16 *p)
{
    uint4 w;
    load_once(w, p);
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    eight to;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 two = bf16_pair(words[i]);
        to.v[2 * i] = two.x;
        to.v[2 * i + 1] = two.y;
    }
    return to;
}

__device__ __forceinline__ eight load_weights(const float *p)
{
    uint4 a, b;
    load_once(a, p);
    load_once(b, p + 4);
    return {{__uint_as_float(a.x), __uint_as_float(a.y), __uint_as_float(a.z), __uint_as_float(a.w),
             __uint_as_float(b.x), __uint_as_float(b.y), __uint_as_float(b.z),
             __uint_as_float(b.w)}};
}

__device__ __forceinline__ eight load_activations(const float *p)
{
    const float4 a = *reinterpret_cast<const float4 *>(p);
    const float4 b = *reinterpret_cast<const float4 *>(p + 4);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

// Where rows are not aligned.
template <class Value> __device__ eight load_singly(const Value *p, uint32_t count)
{
    eight to;
#pragma unroll
    for (uint32_t i = 0; i < COLS; i++)
        to.v[i] = i < count ? (float)p[i] : 0.0f;
    return to;
}

template <class Weight, bool ALIGNED, int TOKENS>
__global__ void __launch_bounds__(THREADS)
    output_rows(float *logits, const Weight *output, const float *x, uint32_t hidden,
                uint32_t vocab, uint32_t m)
{
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t r = (blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP) * ROWS;
    const uint32_t first = blockIdx.y * TOKENS;
    wait_for_previous();
    if (r >= vocab)
        return;
    float sum[ROWS][TOKENS] = {};
#pragma unroll 2
    for (uint32_t i = lane * COLS; i < hidden; i += WARP * COLS) {
        eight w[ROWS];
#pragma unroll
        for (uint32_t j = 0; j < ROWS; j++) {
            const Weight *from = output + (size_t)min(r + j, vocab - 1) * hidden + i;
            w[j] = ALIGNED ? load_weights(from) : load_singly(from, hidden - i);
        }
#pragma unroll
        for (uint32_t t = 0; t < TOKENS; t++) {
            const float *from = x + (size_t)min(first + t, m - 1) * hidden + i;
            const eight v = ALIGNED ? load_activations(from) : load_singly(from, hidden - i);
#pragma unroll
            for (uint32_t j = 0; j < ROWS; j++) {
#pragma unroll
                for (uint32_t c = 0; c < COLS; c++)
                    sum[j][t] += w[j].v[c] * v.v[c];
            }
        }
    }
#pragma unroll
    for (uint32_t j = 0; j < ROWS; j++) {
#pragma unroll
        for (uint32_t t = 0; t < TOKENS; t++) {
            const float logit = warp_sum(sum[j][t]);
            if (lane == 0 && r + j < vocab && first + t < m)
                logits[(size_t)(first + t) * vocab + r + j] = logit;
        }
    }
}

template <class Weight, bool ALIGNED>
cudaError_t launch(float *logits, const Weight *output, const float *x, uint32_t hidden,
                   uint32_t vocab, uint32_t m, cudaStream_t stream)
{
    const uint32_t rows = THREADS / WARP * ROWS, blocks = (vocab + rows - 1) / rows;
    if (m == 1)
        return launch_early(output_rows<Weight, ALIGNED, 1>, dim3(blocks), dim3(THREADS), 0, stream,
                            logits, output, x, hidden, vocab, m);
    return launch_early(output_rows<Weight, ALIGNED, MAX_TOKENS>,
                        dim3(blocks, (m + MAX_TOKENS - 1) / MAX_TOKENS), dim3(THREADS), 0, stream,
                        logits, output, x, hidden, vocab, m);
}

template <class Weight>
cudaError_t launch(float *logits, const void *output, const float *x, uint32_t hidden,
                   uint32_t vocab, uint32_t m, cudaStream_t stream)
{
    const Weight *rows = static_cast<const Weight *>(output);
    return hidden % COLS == 0 ? launch<Weight, true>(logits, rows, x, hidden, vocab, m, stream)
                              : launch<Weight, false>(logits, rows, x, hidden, vocab, m, stream);
}
} // namespace

cudaError_t bnt_cuda_output(float *logits, const void *output, bool wide, const float *x,
                            uint32_t hidden, uint32_t vocab, uint32_t m, cudaStream_t stream)
{
    return (wide ? launch<float> : launch<__nv_bfloat16>)(logits, output, x, hidden, vocab, m,
                                                          stream);
}
