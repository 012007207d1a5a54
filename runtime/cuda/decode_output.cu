// SPDX-License-Identifier: MIT
// The output layer of one token, all of it.
#include "runtime/cuda/decode_rows.cuh"

namespace
{
enum { PARTS = 10 };

__global__ void __launch_bounds__(ROW_THREADS, 1)
    multiply_rows(const __grid_constant__ decode_output a)
{
    extern __shared__ __align__(128) float4 dynamic[];
    const row_range rows = find_rows(a.vocab);
    const uint32_t lane = threadIdx.x % WARP;
    float4 *x = dynamic;
    row_stream<PARTS> stream(a.matrix, row_bytes_of(a), rows);
    wait_for_previous();
    take_in_normed(x, a);
    unsigned long long best = 0;
    for (uint32_t r = 0; r < rows.count; r++) {
        row_sums s = {};
        for (uint32_t batch = 0; batch < stream.batches; batch++)
            add_parts(s, stream.take(), batch * PARTS, a, x);
        const float sum = warp_sum(s.of[0] + s.of[1]);
        if (lane == 0)
            a.logits[rows.first + r] = sum;
        best = max(best, rank_of(sum, rows.first + r));
    }
    choose_best(a, best);
}

__global__ void __launch_bounds__(ROW_THREADS, 1) find_best(const __grid_constant__ decode_output a)
{
    wait_for_previous();
    unsigned long long best = 0;
    for (uint32_t i = blockIdx.x * ROW_THREADS + threadIdx.x; i < a.vocab;
         i += gridDim.x * ROW_THREADS)
        best = max(best, rank_of(load_fresh(a.logits + i), i));
    for (int step = WARP / 2; step > 0; step /= 2)
        best = max(best, __shfl_xor_sync(FULL_WARP, best, step));
    choose_best(a, best);
}
} // namespace

uint32_t decode_output_blocks(const struct decode_device *device)
{
    return device->processors;
}

bool decode_output_fits(uint32_t hidden, const struct decode_device *device)
{
    const uint64_t arranged = bnt_cuda_pad(hidden, PART_BYTES) * sizeof(float);
    const uint64_t words = 2ull * hidden;
    return arranged + words + ROW_OWN_BYTES <= device->shared_bytes;
}

cudaError_t decode_output_launch(const struct decode_output *step,
                                 const struct decode_device *device, cudaStream_t stream)
{
    return launch_rows(multiply_rows, step, arranged_runs(*step) * sizeof(float4), device, stream);
}

cudaError_t decode_best_launch(const struct decode_output *step, const struct decode_device *device,
                               cudaStream_t stream)
{
    return launch_rows(find_best, step, 0, device, stream);
}
