// SPDX-License-Identifier: MIT
// Sampling on the device, by the rules of runtime/engine/sample.c. Both cuts, top_k and top_p, keep
// what ranks at or above some token. Weights are integers, multiples of 2^-40 of the largest, so
// that sums do not depend on their order. Every block has its own run of ids; blocks meet at
// barriers.
//
// Mostly few tokens are kept: a histogram of how far tokens are below the best says how far down
// the cut is at most, and one block chooses among the tokens until there. Where these are many, the
// last token that is kept is found digit by digit of its rank, a distinct 64-bit number, from
// histograms of how many (or how much weight) have each digit.
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "runtime/cuda/device.cuh"
#include "runtime/cuda/rank.cuh"
#include "runtime/cuda/sample.cuh"
#include "runtime/engine/penalty.h"

namespace
{
enum {
    THREADS = 512,
    MAX_BLOCKS = 128,
    BINS = 256,
    DIGIT_BITS = 8,
    MAX_PASSES = 16, // eight digits for each cut
    WEIGHT_BITS = 40,
    NEAR_BINS = 1024,
    NEAR = 29,        // e^-29 of the largest weight is none
    LISTED = THREADS, // tokens among which one block chooses, at most
};
static_assert(NEAR_BINS == 2 * THREADS, "a thread has two bins");
typedef unsigned long long u64;

template <int N> struct histogram_of {
    u64 weight[N];
    unsigned count[N];
};
typedef histogram_of<BINS> histogram;

struct scratch { // zero before each choice
    u64 best;
    unsigned arrived;
    u64 weight[MAX_BLOCKS]; // that each block keeps
    histogram passes[MAX_PASSES];
    histogram_of<NEAR_BINS> near;
    unsigned listed;
    u64 list[LISTED]; // ranks; need not be zero
};

struct choose_args {
    const float *logits;
    uint32_t vocab, top_k;
    float temperature, top_p;
    float min_p_floor; // bnt_min_p_floor
    double random;
    scratch *room;
    bnt_cuda_choice *choice;
};

// All blocks have come and see what the others wrote.
__device__ void meet(scratch *room, unsigned &meetings)
{
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(&room->arrived, 1);
        meetings++;
        while (*(volatile unsigned *)&room->arrived < meetings * gridDim.x)
            ;
        __threadfence();
    }
    __syncthreads();
}

__device__ u64 block_sum(u64 v, u64 *partial)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        v += __shfl_xor_sync(FULL_WARP, v, step);
    if (threadIdx.x % WARP == 0)
        partial[threadIdx.x / WARP] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < THREADS / WARP; i++)
        v += partial[i];
    __syncthreads();
    return v;
}

struct chooser {
    const choose_args &a;
    uint32_t from, to; // the block's ids
    float max;         // the largest logit over the temperature
    u64 threshold;     // ranks from it on are kept,
    float floor;       // if they do not lie below the largest by more
    unsigned meetings;
    int passes;
    u64 *partial; // (THREADS / WARP) shared

    __device__ float scaled(uint32_t id) const
    {
        float v = a.logits[id];
        return (isnan(v) ? -INFINITY : v) / a.temperature;
    }
    __device__ u64 weight(float z) const
    {
        return (u64)__double2ull_rn((double)expf(z - max) * (double)(1ull << WEIGHT_BITS));
    }
    __device__ bool cuts_count() const
    {
        return a.top_k > 0 && a.top_k < a.vocab;
    }
    __device__ bool cuts_weight() const
    {
        return a.top_p > 0 && a.top_p < 1;
    }
    __device__ bool keeps(float z, u64 rank) const
    {
        return rank >= threshold && z - max >= floor;
    }
    // What the likeliest tokens must weigh in all, of such a total.
    __device__ u64 share_of(u64 total) const
    {
        return ::max((u64)ceil((double)a.top_p * (double)total), 1ull);
    }
};

// The likeliest token of all.
__device__ u64 find_best(chooser &c)
{
    u64 best = 0;
    for (uint32_t i = c.from + threadIdx.x; i < c.to; i += THREADS)
        best = max(best, rank_of(c.a.logits[i], i));
    for (int step = WARP / 2; step > 0; step /= 2)
        best = max(best, __shfl_xor_sync(FULL_WARP, best, step));
    if (threadIdx.x % WARP == 0)
        atomicMax(&c.a.room->best, best);
    meet(c.a.room, c.meetings);
    return *(volatile u64 *)&c.a.room->best;
}

// A block's histogram, by all its threads; ends behind a barrier.
template <int N> __device__ void clear(histogram_of<N> &h)
{
    for (int i = threadIdx.x; i < N; i += THREADS) {
        h.weight[i] = 0;
        h.count[i] = 0;
    }
    __syncthreads();
}

// Adds it to that of all blocks.
template <int N>
__device__ void add_to(histogram_of<N> *all, const histogram_of<N> &h, bool has_weights)
{
    for (int i = threadIdx.x; i < N; i += THREADS) {
        if (!h.count[i])
            continue;
        atomicAdd(&all->count[i], h.count[i]);
        if (has_weights)
            atomicAdd(&all->weight[i], h.weight[i]);
    }
}

// Raises the threshold to the highest rank at which the tokens from it on amount to at least
// target: their number, or their weight.
__device__ void raise_threshold(chooser &c, u64 target, bool by_weight)
{
    __shared__ histogram h;
    __shared__ u64 below; // what of the target is left for the digit found
    __shared__ unsigned digit, count;
    u64 prefix = 0;
    for (int shift = 64 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        clear(h);
        for (uint32_t i = c.from + threadIdx.x; i < c.to; i += THREADS) {
            float z = c.scaled(i);
            u64 rank = rank_of(z, i);
            bool here = shift == 64 - DIGIT_BITS || rank >> (shift + DIGIT_BITS) == prefix;
            if (rank < c.threshold || !here)
                continue;
            int bin = (int)(rank >> shift & (BINS - 1));
            atomicAdd(&h.weight[bin], by_weight ? c.weight(z) : 1);
            atomicAdd(&h.count[bin], 1);
        }
        __syncthreads();
        histogram *all = &c.a.room->passes[c.passes++];
        add_to(all, h, true);
        meet(c.a.room, c.meetings);
        for (int i = threadIdx.x; i < BINS; i += THREADS) {
            h.weight[i] = __ldcg(&all->weight[i]);
            h.count[i] = __ldcg(&all->count[i]);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int i = BINS - 1;
            while (i > 0 && h.weight[i] < target)
                target -= h.weight[i--];
            below = target;
            digit = (unsigned)i;
            count = h.count[i];
        }
        __syncthreads();
        target = below;
        prefix = prefix << DIGIT_BITS | digit;
        if (count <= 1 || shift == 0) {
            u64 found = prefix << shift;
            c.threshold = max(c.threshold, found);
            return;
        }
    }
}

// Of a token that has a weight; others have NEAR_BINS. No greater for what ranks higher.
__device__ unsigned near_bin(const chooser &c, float z)
{
    const float below = (c.max - z) * ((float)NEAR_BINS / NEAR);
    return below < NEAR_BINS ? (unsigned)below : (unsigned)NEAR_BINS;
}

// Sums of the bins of all blocks' tokens. Weights only if they are asked for.
__device__ void count_near(const chooser &c, bool by_weight)
{
    __shared__ histogram_of<NEAR_BINS> h;
    clear(h);
    for (uint32_t i = c.from + threadIdx.x; i < c.to; i += THREADS) {
        const float z = c.scaled(i);
        const unsigned bin = near_bin(c, z);
        if (bin == NEAR_BINS)
            continue;
        atomicAdd(&h.count[bin], 1);
        if (by_weight)
            atomicAdd(&h.weight[bin], c.weight(z));
    }
    __syncthreads();
    add_to(&c.a.room->near, h, by_weight);
}

// The sum of v over this thread and those before it.
__device__ u64 sum_until(u64 v, u64 *partial)
{
    for (uint32_t step = 1; step < WARP; step *= 2) {
        const u64 other = __shfl_up_sync(FULL_WARP, v, step);
        v += threadIdx.x % WARP >= step ? other : 0;
    }
    if (threadIdx.x % WARP == WARP - 1)
        partial[threadIdx.x / WARP] = v;
    __syncthreads();
    for (uint32_t i = 0; i < threadIdx.x / WARP; i++)
        v += partial[i];
    __syncthreads();
    return v;
}

// The bin that has the last of the k likeliest tokens, or of the likeliest that have a share of all
// weight; *tokens: how many there are until there, *total: what all weigh, if that was counted.
__device__ unsigned find_near_cut(const chooser &c, u64 *tokens, u64 *total)
{
    __shared__ unsigned cut;
    const histogram_of<NEAR_BINS> &near = c.a.room->near;
    const uint32_t at = 2 * threadIdx.x;
    const u64 counts[2] = {__ldcg(&near.count[at]), __ldcg(&near.count[at + 1])};
    const u64 weights[2] = {__ldcg(&near.weight[at]), __ldcg(&near.weight[at + 1])};
    const bool by_weight = !c.cuts_count();
    *total = block_sum(weights[0] + weights[1], c.partial);
    const u64 target = by_weight ? c.share_of(*total) : c.a.top_k;
    const u64 first = by_weight ? weights[0] : counts[0],
              second = by_weight ? weights[1] : counts[1];
    const u64 sum = sum_until(first + second, c.partial), before = sum - first - second;
    if (threadIdx.x == 0)
        cut = NEAR_BINS - 1;
    __syncthreads();
    if (before < target && sum >= target)
        cut = before + first >= target ? at : at + 1;
    __syncthreads();
    *tokens = block_sum((at <= cut ? counts[0] : 0) + (at + 1 <= cut ? counts[1] : 0), c.partial);
    return cut;
}

__device__ void list_near(const chooser &c, unsigned cut)
{
    for (uint32_t i = c.from + threadIdx.x; i < c.to; i += THREADS) {
        const float z = c.scaled(i);
        if (near_bin(c, z) <= cut)
            c.a.room->list[atomicAdd(&c.a.room->listed, 1)] = rank_of(z, i);
    }
}

// Chooses among n tokens on the list, a thread each. total: what all tokens weigh.
__device__ void choose_listed(const chooser &c, uint32_t n, u64 total)
{
    __shared__ u64 ranks[LISTED], weights[LISTED], kept_total;
    const bool valid = threadIdx.x < n;
    const u64 rank = valid ? __ldcg(&c.a.room->list[threadIdx.x]) : 0;
    const u64 weight = valid ? c.weight(logit_of(rank)) : 0;
    ranks[threadIdx.x] = rank;
    weights[threadIdx.x] = weight;
    __syncthreads();
    u64 place = 0, sum = 0; // of the tokens from the best to this one: how many, and their weight
    for (uint32_t i = 0; valid && i < n; i++) {
        place += ranks[i] >= rank;
        sum += ranks[i] >= rank ? weights[i] : 0;
    }
    const u64 count = c.cuts_count() && c.a.top_k < n ? c.a.top_k : n;
    if (valid && place == count)
        kept_total = sum;
    __syncthreads();
    if (c.cuts_count())
        total = kept_total;
    const bool kept = valid && place <= count &&
                      (!c.cuts_weight() || sum - weight < c.share_of(total)) &&
                      logit_of(rank) - c.max >= c.a.min_p_floor;
    weights[threadIdx.x] = kept ? weight : 0;
    __syncthreads();
    u64 before = 0, all = 0; // weight of the kept ones: with lower ids, and of all
    for (uint32_t i = 0; kept && i < n; i++) {
        before += id_of(ranks[i]) < id_of(rank) ? weights[i] : 0;
        all += weights[i];
    }
    const u64 target = (u64)(c.a.random * (double)all);
    if (kept && before <= target && target < before + weight) {
        c.a.choice->token = id_of(rank);
        c.a.choice->drew = 1;
    }
}

// Chooses if few tokens are in question; returns whether that was so.
__device__ bool choose_near(chooser &c)
{
    u64 tokens, total;
    count_near(c, !c.cuts_count());
    meet(c.a.room, c.meetings);
    const unsigned cut = find_near_cut(c, &tokens, &total);
    if (tokens > LISTED)
        return false;
    list_near(c, cut);
    meet(c.a.room, c.meetings);
    if (blockIdx.x == 0)
        choose_listed(c, (uint32_t)tokens, total);
    return true;
}

// Weight of what the block keeps.
__device__ u64 kept_weight(const chooser &c)
{
    u64 sum = 0;
    for (uint32_t i = c.from + threadIdx.x; i < c.to; i += THREADS) {
        float z = c.scaled(i);
        if (c.keeps(z, rank_of(z, i)))
            sum += c.weight(z);
    }
    return block_sum(sum, c.partial);
}

// Every block learns the weights that all keep; returns their sum, and in before those of the
// blocks before this one.
__device__ u64 share_weights(chooser &c, u64 *before, u64 *mine)
{
    *mine = kept_weight(c);
    if (threadIdx.x == 0)
        c.a.room->weight[blockIdx.x] = *mine;
    meet(c.a.room, c.meetings);
    u64 total = 0;
    *before = 0;
    for (uint32_t i = 0; i < gridDim.x; i++) {
        u64 w = __ldcg(&c.a.room->weight[i]);
        total += w;
        *before += i < blockIdx.x ? w : 0;
    }
    return total;
}

// The block in which the sum of weights passes the target finds the token: a warp goes through its
// ids in order.
__device__ void walk(const chooser &c, u64 target, u64 before, u64 mine)
{
    if (target < before || target >= before + mine || threadIdx.x >= WARP)
        return;
    for (uint32_t i = c.from; i < c.to; i += WARP) {
        uint32_t id = i + threadIdx.x;
        float z = id < c.to ? c.scaled(id) : 0;
        u64 w = id < c.to && c.keeps(z, rank_of(z, id)) ? c.weight(z) : 0;
        u64 sum = w;
        for (int step = 1; step < WARP; step *= 2) {
            u64 other = __shfl_up_sync(FULL_WARP, sum, step);
            sum += (int)threadIdx.x >= step ? other : 0;
        }
        unsigned passed = __ballot_sync(FULL_WARP, before + sum > target);
        if (passed) {
            if ((int)threadIdx.x == __ffs(passed) - 1) {
                c.a.choice->token = id;
                c.a.choice->drew = 1;
            }
            return;
        }
        before += __shfl_sync(FULL_WARP, sum, WARP - 1);
    }
}

__global__ void __launch_bounds__(THREADS) choose(const __grid_constant__ choose_args a)
{
    __shared__ u64 partial[THREADS / WARP];
    chooser c = {a,
                 (uint32_t)((u64)a.vocab * blockIdx.x / gridDim.x),
                 (uint32_t)((u64)a.vocab * (blockIdx.x + 1) / gridDim.x),
                 0,
                 0,
                 -INFINITY,
                 0,
                 0,
                 partial};
    const u64 best = find_best(c);
    c.max = logit_of(best) / a.temperature;
    if (!(a.temperature > 0) || !isfinite(logit_of(best)) || !isfinite(c.max)) {
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            a.choice->token = id_of(best);
            a.choice->drew = 0;
        }
        return;
    }
    if ((c.cuts_count() || c.cuts_weight()) && choose_near(c))
        return;
    if (c.cuts_count())
        raise_threshold(c, a.top_k, false);
    if (!c.cuts_weight())
        c.floor = a.min_p_floor; // it comes last
    u64 before, mine, total = share_weights(c, &before, &mine);
    if (c.cuts_weight()) {
        raise_threshold(c, c.share_of(total), true);
        c.floor = a.min_p_floor;
        meet(a.room, c.meetings); // all have read the weights
        total = share_weights(c, &before, &mine);
    }
    walk(c, (u64)(a.random * (double)total), before, mine);
}

// A thread for each token that was seen.
__global__ void penalize(float *logits, const struct bnt_seen *seen, uint32_t n, float *saved,
                         struct bnt_penalties penalties)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float *logit = logits + seen[i].token;
    saved[i] = *logit;
    *logit = bnt_penalize(*logit, seen[i].count, penalties);
}

__global__ void restore(float *logits, const struct bnt_seen *seen, uint32_t n, const float *saved)
{
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        logits[seen[i].token] = saved[i];
}

cudaError_t launch_choice(const struct bnt_cuda_sampler *s, const float *logits, uint32_t vocab,
                          const struct bnt_sampling *sampling, double random, cudaStream_t stream)
{
    choose_args args = {logits,          vocab,
                        sampling->top_k, sampling->temperature,
                        sampling->top_p, bnt_min_p_floor(sampling),
                        random,          static_cast<scratch *>(s->scratch),
                        s->device_choice};
    cudaError_t error = cudaMemsetAsync(s->scratch, 0, offsetof(scratch, list), stream);
    if (error != cudaSuccess)
        return error;
    void *list[] = {&args};
    return cudaLaunchCooperativeKernel((const void *)choose, dim3(s->blocks), dim3(THREADS), list,
                                       0, stream);
}
} // namespace

enum bnt_status bnt_cuda_sampler_open(const struct bnt_cuda_session *session,
                                      struct bnt_cuda_sampler **sampler, struct bnt_error *err)
{
    *sampler = NULL;
    struct bnt_cuda_sampler *s = static_cast<struct bnt_cuda_sampler *>(calloc(1, sizeof *s));
    if (!s)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    const uint32_t processors = session->model->info.processors;
    s->blocks = processors < MAX_BLOCKS ? processors : (uint32_t)MAX_BLOCKS;
    void *host = NULL, *device = NULL;
    cudaError_t error = cudaHostAlloc(&host, sizeof *s->choice, cudaHostAllocMapped);
    s->choice = static_cast<volatile struct bnt_cuda_choice *>(host);
    if (error == cudaSuccess)
        error = cudaHostGetDevicePointer(&device, host, 0);
    s->device_choice = static_cast<struct bnt_cuda_choice *>(device);
    if (error == cudaSuccess)
        error = cudaMalloc(&s->scratch, sizeof(scratch));
    const uint32_t vocab = session->model->hyper.vocab_size;
    const size_t most = session->context < vocab ? session->context : vocab;
    if (error == cudaSuccess)
        error = cudaMalloc(&s->seen, most * sizeof *s->seen);
    if (error == cudaSuccess)
        error = cudaMalloc(&s->saved, most * sizeof *s->saved);
    if (error != cudaSuccess) {
        bnt_cuda_sampler_close(s);
        return bnt_cuda_fail(err, error, "preparing the GPU for sampling");
    }
    *sampler = s;
    return BNT_OK;
}

void bnt_cuda_sampler_close(struct bnt_cuda_sampler *s)
{
    if (!s)
        return;
    (void)cudaFreeHost(const_cast<struct bnt_cuda_choice *>(s->choice));
    (void)cudaFree(s->scratch);
    (void)cudaFree(s->seen);
    (void)cudaFree(s->saved);
    free(s);
}

cudaError_t bnt_cuda_take_seen(const struct bnt_cuda_sampler *s, struct bnt_seen_list seen,
                               cudaStream_t stream)
{
    return seen.n == 0 ? cudaSuccess
                       : cudaMemcpyAsync(s->seen, seen.seen, seen.n * sizeof *s->seen,
                                         cudaMemcpyHostToDevice, stream);
}

cudaError_t bnt_cuda_choose(const struct bnt_cuda_sampler *s, float *logits, uint32_t vocab,
                            const struct bnt_sampling *sampling, uint32_t n_seen, double random,
                            cudaStream_t stream)
{
    const struct bnt_penalties penalties = bnt_penalties_of(sampling);
    const dim3 blocks((n_seen + THREADS - 1) / THREADS);
    const bool penalizes = n_seen > 0 && bnt_penalties_any(penalties);
    if (penalizes)
        penalize<<<blocks, THREADS, 0, stream>>>(logits, s->seen, n_seen, s->saved, penalties);
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess)
        error = launch_choice(s, logits, vocab, sampling, random, stream);
    if (penalizes && error == cudaSuccess) {
        restore<<<blocks, THREADS, 0, stream>>>(logits, s->seen, n_seen, s->saved);
        error = cudaGetLastError();
    }
    return error;
}
