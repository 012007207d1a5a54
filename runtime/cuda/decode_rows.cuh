// SPDX-License-Identifier: MIT
// What the two ways through the output layer share: the normed vector as lanes read it, rows of the
// matrix, the likeliest token.
#ifndef BNT_RUNTIME_CUDA_DECODE_ROWS_CUH
#define BNT_RUNTIME_CUDA_DECODE_ROWS_CUH

#include "runtime/cuda/decode_input.cuh"
#include "runtime/cuda/rank.cuh"

enum { ROW_THREADS = 512, ROW_WARPS = ROW_THREADS / WARP, PART_BYTES = 512 }; // 16 bytes a lane
enum { ROW_OWN_BYTES = 8 << 10 }; // of shared memory, besides the dynamic one

// A warp's rows of the vocabulary, one after another in memory.
struct row_range {
    uint32_t first, count;
};

static __device__ __forceinline__ row_range find_rows(uint32_t vocab)
{
    const uint64_t i = blockIdx.x * ROW_WARPS + threadIdx.x / WARP, n = gridDim.x * ROW_WARPS;
    const uint32_t first = (uint32_t)(vocab * i / n);
    return {first, (uint32_t)(vocab * (i + 1) / n) - first};
}

// PARTS parts of a row, or as many as it has from there on.
template <int PARTS> struct row_parts {
    uint4 w[PARTS];

    __device__ __forceinline__ void load(const uint8_t *row, uint32_t row_bytes, uint32_t first,
                                         bool valid)
    {
        const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t i = 0; i < PARTS; i++) {
            const uint32_t at = (first + i) * PART_BYTES + lane * 16;
            if (valid && at < row_bytes)
                load_once(w[i], row + at);
        }
    }
};

// A warp's rows as a stream of parts, one batch ahead.
template <int PARTS> struct row_stream {
    const uint8_t *next_row;
    uint32_t row_bytes, batches; // of a row
    uint32_t rows_left, batch;
    row_parts<PARTS> ahead;

    __device__ __forceinline__ row_stream(const uint8_t *matrix, uint32_t bytes,
                                          const row_range &rows)
        : next_row(matrix + (size_t)rows.first * bytes), row_bytes(bytes),
          batches(divide_up(bytes, PARTS * PART_BYTES)), rows_left(rows.count), batch(0)
    {
        ask();
    }

    __device__ __forceinline__ void ask()
    {
        ahead.load(next_row, row_bytes, batch * PARTS, rows_left > 0);
        if (++batch == batches) {
            batch = 0;
            next_row += row_bytes;
            rows_left -= rows_left > 0;
        }
    }

    __device__ __forceinline__ row_parts<PARTS> take()
    {
        const row_parts<PARTS> now = ahead;
        ask();
        return now;
    }
};

// Where values 4 i … 4 i + 3 stand: of each part of a row a lane has 16 bytes, which are 4 or 8
// values.
static __device__ __forceinline__ uint32_t run_place(bool wide, uint32_t i)
{
    return wide ? i : i / (2 * WARP) * (2 * WARP) + i % 2 * WARP + i % (2 * WARP) / 2;
}

static inline __host__ __device__ uint32_t row_bytes_of(const decode_output &a)
{
    return a.in.n * (a.wide ? 4 : 2);
}

// Runs that x takes in shared memory.
static inline __host__ __device__ uint32_t arranged_runs(const decode_output &a)
{
    return divide_up(row_bytes_of(a), PART_BYTES) * WARP * (a.wide ? 1 : 2);
}

// After the wait: leaves the normed vector in x; ends behind a barrier.
static __device__ __forceinline__ void take_in_normed(float4 *x, const decode_output &a)
{
    __shared__ block_totals totals;
    input_totals t = {0, 0};
    for (uint32_t i = threadIdx.x; i < a.in.n / 4; i += blockDim.x) {
        const float4 v = load_fresh(reinterpret_cast<const float4 *>(a.in.x) + i);
        const float4 weighted = times(v, __ldg(reinterpret_cast<const float4 *>(a.in.norm) + i));
        t.add(v, weighted);
        x[run_place(a.wide, i)] = weighted;
    }
    const float f = find_factors(a.in, t, &totals).norm;
    for (uint32_t i = threadIdx.x; i < a.in.n / 4; i += blockDim.x)
        x[run_place(a.wide, i)] = times(x[run_place(a.wide, i)], make_float4(f, f, f, f));
    __syncthreads();
}
static_assert((int)ROW_WARPS == (int)MOST_WARPS, "every warp has its totals");

static __device__ __forceinline__ float dot_bf16(uint4 w, float4 x0, float4 x1, float sum)
{
    float2 a = bf16_pair(w.x), b = bf16_pair(w.y), c = bf16_pair(w.z), d = bf16_pair(w.w);
    sum = fmaf(a.x, x0.x, fmaf(a.y, x0.y, fmaf(b.x, x0.z, fmaf(b.y, x0.w, sum))));
    return fmaf(c.x, x1.x, fmaf(c.y, x1.y, fmaf(d.x, x1.z, fmaf(d.y, x1.w, sum))));
}

static __device__ __forceinline__ float dot_f32(uint4 w, float4 x, float sum)
{
    return fmaf(__uint_as_float(w.x), x.x,
                fmaf(__uint_as_float(w.y), x.y,
                     fmaf(__uint_as_float(w.z), x.z, fmaf(__uint_as_float(w.w), x.w, sum))));
}

// A lane's sums of the even and of the odd parts of a row.
struct row_sums {
    float of[2];
};

template <int PARTS>
static __device__ __forceinline__ void add_parts(row_sums &s, const row_parts<PARTS> &p,
                                                 uint32_t first, const decode_output &a,
                                                 const float4 *x)
{
    static_assert(PARTS % 2 == 0, "parts keep their parity");
    const uint32_t lane = threadIdx.x % WARP, bytes = row_bytes_of(a);
#pragma unroll
    for (uint32_t i = 0; i < PARTS; i++) {
        const uint32_t part = first + i;
        if (part * PART_BYTES + lane * 16 >= bytes)
            break;
        float &sum = s.of[i % 2];
        sum = a.wide ? dot_f32(p.w[i], x[part * WARP + lane], sum)
                     : dot_bf16(p.w[i], x[part * 2 * WARP + lane], x[(part * 2 + 1) * WARP + lane],
                                sum);
    }
}

// The best of all blocks, by the last that comes. best: of the warp.
static __device__ __forceinline__ void choose_best(const decode_output &a, unsigned long long best)
{
    __shared__ unsigned long long of_warp[ROW_WARPS];
    __shared__ bool is_last;
    if (threadIdx.x % WARP == 0)
        of_warp[threadIdx.x / WARP] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 0; i < ROW_WARPS; i++)
            best = max(best, of_warp[i]);
        a.block_best[blockIdx.x] = best;
        __threadfence();
        is_last = atomicAdd(a.arrived, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last || threadIdx.x >= WARP)
        return;
    __threadfence();
    best = 0;
    for (uint32_t i = threadIdx.x; i < gridDim.x; i += WARP)
        best = max(best, *(volatile unsigned long long *)&a.block_best[i]);
    for (int step = WARP / 2; step > 0; step /= 2)
        best = max(best, __shfl_xor_sync(FULL_WARP, best, step));
    if (threadIdx.x == 0) {
        *a.best = id_of(best);
        *a.arrived = 0;
    }
}

// Launches a kernel that goes through the rows, with so much dynamic shared memory.
template <class Step>
static cudaError_t launch_rows(void (*kernel)(Step), const Step *step, size_t bytes,
                               const struct decode_device *device, cudaStream_t stream)
{
    // As much as there may be, since other models may have other needs.
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)(device->shared_bytes - ROW_OWN_BYTES));
    if (error != cudaSuccess)
        return error;
    cudaLaunchAttribute attributes[2] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(decode_output_blocks(device));
    config.blockDim = dim3(ROW_THREADS);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    set_sharing(&config, attributes, device->is_early);
    return cudaLaunchKernelEx(&config, kernel, *step);
}

#endif
