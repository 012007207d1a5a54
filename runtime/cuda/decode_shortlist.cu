// SPDX-License-Identifier: MIT
// The output layer of one token by way of the int8 copy of the matrix (bnt.md section 7), exactly,
// as in runtime/engine/shortlist.c: half the bytes give every token a score and a bound on its
// distance from the logit. The k-th greatest lower bound is a threshold below which a token is not
// among the k likeliest; here it is the k-th of the greatest of each half block's rows, which is no
// greater. Only rows whose upper bound reaches it are then computed from the matrix itself, in the
// same order of additions as without the copy.
#include <float.h>

#include "runtime/cuda/decode_rows.cuh"

namespace
{
enum { PARTS = 6, EXACT_PARTS = 10, MAX_BOUNDS = 1024 }; // two a block

// The normed vector's 16-bit form, high and low bytes apart.
struct words {
    int8_t *high;
    uint8_t *low;
};

__device__ float reduce_block(float v, bool is_sum)
{
    __shared__ float of_warp[ROW_WARPS];
    v = is_sum ? warp_sum(v) : warp_max(v);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        of_warp[threadIdx.x / WARP] = v;
    __syncthreads();
    v = of_warp[0];
    for (int i = 1; i < ROW_WARPS; i++)
        v = is_sum ? v + of_warp[i] : fmaxf(v, of_warp[i]);
    return v;
}

__device__ __forceinline__ uint32_t round_to_16_bits(float v, float step)
{
    return (uint32_t)(int)fminf(fmaxf(rintf(__fdiv_rn(v, step)), -32767.0f), 32767.0f);
}

// Of a bound over a row's scale: a share of the sum of magnitudes, and of the 16-bit form's step.
struct margin_shares {
    double of_sum, of_step;
};

// Each product goes through at most n / 32 + 8 roundings on its way into a logit. Divisions of
// doubles take long: they are done before the wait.
__device__ __forceinline__ margin_shares find_shares(uint32_t n)
{
    const double roundings = (n / 32 + 8) * 0x1p-24, gamma = roundings / (1 - roundings);
    margin_shares s = {0.5 + 0x1p-16 + 127.01 * gamma, 127 * (double)n * 0.51};
    keep(s.of_sum);
    keep(s.of_step);
    return s;
}

// The 16-bit form, and what bounds need.
__device__ decode_bound prepare(const words &to, const float4 *x, bool wide, uint32_t n,
                                const margin_shares &shares)
{
    float sum = 0, max = 0;
    for (uint32_t i = threadIdx.x; i < n / 4; i += ROW_THREADS) {
        const float4 v = x[run_place(wide, i)];
        sum += fabsf(v.x) + fabsf(v.y) + fabsf(v.z) + fabsf(v.w);
        max = fmaxf(max, largest(v));
    }
    sum = reduce_block(sum, true) * (1 + 0x1p-16f); // its own roundings
    max = reduce_block(max, false);
    const bool helps = max > FLT_MIN * 65536 && sum < FLT_MAX; // else all rows are candidates
    decode_bound b;
    b.step = helps ? __fdiv_rn(max, 32767.0f) : 1.0f;
    b.margin =
        (float)((shares.of_sum * (double)sum + shares.of_step * (double)b.step) * (1 + 0x1p-20));
    b.reach = helps ? 128 * sum : INFINITY;
    for (uint32_t i = threadIdx.x; i < n / 4; i += ROW_THREADS) {
        const float4 v = x[run_place(wide, i)];
        const uint32_t w[4] = {round_to_16_bits(v.x, b.step), round_to_16_bits(v.y, b.step),
                               round_to_16_bits(v.z, b.step), round_to_16_bits(v.w, b.step)};
        reinterpret_cast<uint32_t *>(to.low)[i] = pack_bytes(w[0], w[1], w[2], w[3]);
        reinterpret_cast<uint32_t *>(to.high)[i] =
            pack_bytes(w[0] >> 8, w[1] >> 8, w[2] >> 8, w[3] >> 8);
    }
    __syncthreads();
    return b;
}

// Roundings of the score, and of the bound itself, are covered by a share of 2^-20.
__device__ __forceinline__ float bound_of(const decode_bound &b, float score, float scale)
{
    if (!(scale * b.reach < FLT_MAX))
        return INFINITY;
    return scale * b.margin + fabsf(score) * 0x1p-20f + 1e-30f;
}

__device__ __forceinline__ int dot_low(uint32_t w, uint32_t low, int sum)
{
    asm("dp4a.s32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(w), "r"(low));
    return sum;
}

struct int8_sums {
    int high, low;
};

__device__ __forceinline__ void add_int8(int8_sums &s, const row_parts<PARTS> &p, uint32_t first,
                                         const words &x, uint32_t n)
{
#pragma unroll
    for (uint32_t i = 0; i < PARTS; i++) {
        const uint32_t at = (first + i) * PART_BYTES + threadIdx.x % WARP * 16;
        if (at >= n)
            break;
        const uint4 w = p.w[i], high = *reinterpret_cast<const uint4 *>(x.high + at);
        const uint4 low = *reinterpret_cast<const uint4 *>(x.low + at);
        s.high = __dp4a((int)w.x, (int)high.x, s.high);
        s.high = __dp4a((int)w.y, (int)high.y, s.high);
        s.high = __dp4a((int)w.z, (int)high.z, s.high);
        s.high = __dp4a((int)w.w, (int)high.w, s.high);
        s.low = dot_low(w.x, low.x, s.low);
        s.low = dot_low(w.y, low.y, s.low);
        s.low = dot_low(w.z, low.z, s.low);
        s.low = dot_low(w.w, low.w, s.low);
    }
}

// The greatest lower bound of each half of the block's warps.
__device__ void publish_bounds(const decode_shortlist &a, float best)
{
    __shared__ float of_warp[ROW_WARPS];
    best = warp_max(best);
    if (threadIdx.x % WARP == 0)
        of_warp[threadIdx.x / WARP] = best;
    __syncthreads();
    if (threadIdx.x >= 2)
        return;
    const float *half = of_warp + threadIdx.x * (ROW_WARPS / 2);
    for (int i = 0; i < ROW_WARPS / 2; i++)
        best = i ? fmaxf(best, half[i]) : half[i];
    a.bounds[2 * blockIdx.x + threadIdx.x] = best;
}

// Scores, 32 rows of a warp at a time, into logits.
__global__ void __launch_bounds__(ROW_THREADS, 1)
    score_rows(const __grid_constant__ decode_shortlist a)
{
    extern __shared__ __align__(128) float4 dynamic[];
    let_next_start();
    const uint32_t n = a.output.in.n, lane = threadIdx.x % WARP;
    float4 *x = dynamic;
    int8_t *bytes = reinterpret_cast<int8_t *>(x + arranged_runs(a.output));
    const words in = {bytes, reinterpret_cast<uint8_t *>(bytes) + n};
    const row_range rows = find_rows(a.output.vocab);
    row_stream<PARTS> stream(reinterpret_cast<const uint8_t *>(a.int8), n, rows);
    const margin_shares shares = find_shares(n);
    wait_for_previous();
    take_in_normed(x, a.output);
    const decode_bound b = prepare(in, x, a.output.wide, n, shares);
    if (blockIdx.x == 0) {
        for (uint32_t i = threadIdx.x; i < n / 4; i += ROW_THREADS)
            reinterpret_cast<float4 *>(a.normed)[i] = x[run_place(a.output.wide, i)];
        if (threadIdx.x == 0)
            *a.bound = b;
    }
    float best = -INFINITY;
#pragma unroll 1
    for (uint32_t from = 0; from < rows.count; from += WARP) {
        const uint32_t own = rows.first + from + lane,
                       count = min(rows.count - from, (uint32_t)WARP);
        const float scale = lane < count ? __ldg(a.scale + own) : 0;
        float score = 0;
#pragma unroll 1
        for (uint32_t r = 0; r < count; r++) {
            int8_sums s = {0, 0};
            for (uint32_t batch = 0; batch < stream.batches; batch++)
                add_int8(s, stream.take(), batch * PARTS, in, n);
            __syncwarp();
            const long long sum =
                __reduce_add_sync(FULL_WARP, s.high) * 256ll + __reduce_add_sync(FULL_WARP, s.low);
            if (lane == r)
                score = (float)sum * (scale * b.step);
        }
        if (lane < count) {
            a.output.logits[own] = score;
            best = fmaxf(best, score - bound_of(b, score, scale));
        }
    }
    publish_bounds(a, best);
}

// The k-th greatest of some numbers.
__device__ float find_greatest(const float *bounds, uint32_t n, uint32_t k)
{
    __shared__ float all[MAX_BOUNDS], threshold;
    float most = -INFINITY;
    for (uint32_t i = threadIdx.x; i < n; i += ROW_THREADS) {
        all[i] = load_fresh(bounds + i);
        most = fmaxf(most, all[i]);
    }
    if (k == 1)
        return reduce_block(most, false);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += ROW_THREADS) {
        const float v = all[i];
        uint32_t above = 0, equal = 0;
        for (uint32_t j = 0; j < n; j++) {
            above += all[j] > v;
            equal += all[j] == v;
        }
        if (above < k && above + equal >= k)
            threshold = v;
    }
    __syncthreads();
    return threshold;
}

__device__ float multiply_row(const decode_output &a, const float4 *x, uint32_t row)
{
    const uint32_t bytes = row_bytes_of(a);
    row_sums s = {};
    for (uint32_t first = 0; first * PART_BYTES < bytes; first += EXACT_PARTS) {
        row_parts<EXACT_PARTS> p;
        p.load(a.matrix + (size_t)row * bytes, bytes, first, true);
        add_parts(s, p, first, a, x);
    }
    return warp_sum(s.of[0] + s.of[1]);
}

// The logits of the candidates; −infinity for the others. A warp looks at 32 rows at a time.
__global__ void __launch_bounds__(ROW_THREADS, 1)
    multiply_candidates(const __grid_constant__ decode_shortlist a)
{
    extern __shared__ __align__(128) float4 dynamic[];
    const decode_output &o = a.output;
    const uint32_t n = o.in.n, lane = threadIdx.x % WARP;
    wait_for_previous();
    for (uint32_t i = threadIdx.x; i < n / 4; i += ROW_THREADS)
        dynamic[run_place(o.wide, i)] = load_fresh(reinterpret_cast<const float4 *>(a.normed) + i);
    const decode_bound b = {load_fresh(&a.bound->step), load_fresh(&a.bound->margin),
                            load_fresh(&a.bound->reach)};
    // The k-th greatest of what all blocks found, a little lowered.
    float threshold = find_greatest(a.bounds, 2 * gridDim.x, load_fresh(&a.place->shortlist));
    threshold -= fabsf(threshold) * 0x1p-20f + 1e-30f;
    unsigned long long best = 0;
#pragma unroll 1
    for (uint32_t from = (blockIdx.x * ROW_WARPS + threadIdx.x / WARP) * WARP; from < o.vocab;
         from += gridDim.x * ROW_THREADS) {
        const uint32_t own = from + lane;
        bool stays = false;
        if (own < o.vocab) {
            const float score = load_fresh(o.logits + own);
            stays = !(score + bound_of(b, score, __ldg(a.scale + own)) < threshold);
        }
        float logit = -INFINITY;
        for (uint32_t left = __ballot_sync(FULL_WARP, stays); left; left &= left - 1) {
            const uint32_t r = __ffs(left) - 1;
            const float sum = multiply_row(o, dynamic, from + r);
            best = max(best, rank_of(sum, from + r));
            logit = lane == r ? sum : logit;
        }
        if (own < o.vocab)
            o.logits[own] = logit;
    }
    choose_best(o, best);
}
} // namespace

bool decode_shortlist_fits(uint32_t hidden, const struct decode_device *device)
{
    return hidden % 16 == 0 && 2 * decode_output_blocks(device) <= MAX_BOUNDS;
}

cudaError_t decode_shortlist_launch(const struct decode_shortlist *step,
                                    const struct decode_device *device, cudaStream_t stream)
{
    const uint32_t n = step->output.in.n;
    const size_t x = arranged_runs(step->output) * sizeof(float4);
    cudaError_t error = launch_rows(score_rows, step, x + 2 * n, device, stream);
    return error == cudaSuccess ? launch_rows(multiply_candidates, step, x, device, stream) : error;
}
