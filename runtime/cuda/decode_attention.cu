// SPDX-License-Identifier: MIT
// Attention of one token. Some blocks take some query heads that share a key/value head, each of
// them a part of the positions, each warp some of those; then the parts are put together. From
// Hopper on such blocks are a cluster, which exchanges its parts through shared memory, and each
// block puts some of the elements together. Before, parts go through memory, and the block that
// comes last puts all of them together.
//
// Keys and values of earlier positions do not depend on this token: the copy engine brings the
// first of them into shared memory before the wait.
#include "runtime/cuda/cluster.cuh"
#include "runtime/cuda/decode_input.cuh"

namespace
{
enum {
    THREADS = 512,
    WARPS = THREADS / WARP,
    MAX_HEADS = 4,          // query heads of a cluster
    BATCH = 4,              // positions that a warp takes at once
    WINDOW = WARPS * BATCH, // positions of a block whose keys and values are there at once
    MAX_CLUSTER = 16,
    SURE_CLUSTER = 8, // that every device with clusters has a place for
    MAX_DIM = 256,
    OWN_BYTES = 8 << 10, // of shared memory, besides the dynamic one
};
static_assert(MAX_HEADS <= BATCH, "what a warp finds is no longer than its keys");
static_assert(WARPS == MAX_CLUSTER, "parts of warps and of blocks are put together alike");

struct attention_args {
    decode_attention step;
    uint32_t cluster;   // blocks, a power of two
    uint32_t group;     // query heads of a key/value head
    uint32_t subgroups; // clusters of a key/value head
    float scale;        // of scores
};

// Of a part of the positions: the largest score and the sum of weights, e to the power of what
// scores are below it.
struct part_totals {
    float max, sum;
};

template <int HEADS> struct small_shared {
    barrier arrived, parts;
    float squares[WARPS]; // of the elements that a warp norms
    part_totals of_warps[HEADS][WARPS], of_blocks[HEADS][MAX_CLUSTER];
    bool is_last;
    alignas(16) float weights[WARPS][BATCH * HEADS]; // of a batch
    alignas(16) float factors[WARPS][MAX_HEADS][MAX_CLUSTER];
};

// The elements of an item's result are put together in runs of 32: run r by block r % cluster of a
// cluster.
__host__ __device__ uint32_t count_runs(uint32_t heads, uint32_t dim)
{
    return divide_up(heads * dim, WARP);
}

template <int HEADS> __device__ __forceinline__ uint32_t head_of(uint32_t element, uint32_t dim)
{
    uint32_t head = 0;
#pragma unroll
    for (uint32_t h = 1; h < HEADS; h++)
        head += element >= h * dim;
    return head;
}

// The window's keys and values (WINDOW, row) each; rotated queries (HEADS, row); the new key and
// value (row each); runs from the blocks of the cluster (runs of this block, cluster, 32). When a
// warp is done, what it found (HEADS, dim) takes the place of its keys.
struct room {
    float *keys, *values, *q, *key, *value, *received;
};

// Returns their size.
__host__ __device__ uint32_t find_room(const attention_args &a, uint32_t heads, room *r,
                                       float *dynamic)
{
    const uint32_t row = a.step.cache.row, dim = a.step.heads.head_dim;
    float *at = dynamic;
    r->keys = at;
    r->values = at += WINDOW * row;
    r->q = at += WINDOW * row;
    r->key = at += heads * row;
    r->value = at += row;
    r->received = at += row;
    at += bnt_cuda_pad(count_runs(heads, dim), a.cluster) * WARP;
    return (uint32_t)(at - dynamic);
}

// The block's share of the work.
struct item {
    uint32_t index, kv, head, heads; // the first query head, and how many
    uint32_t position, from, to;
    uint32_t rank;
};

template <int HEADS>
__device__ __forceinline__ item find_item(const attention_args &a, uint32_t rank)
{
    item t;
    t.index = blockIdx.x / a.cluster;
    const uint32_t sub = t.index % a.subgroups;
    t.rank = rank;
    t.kv = t.index / a.subgroups;
    t.head = t.kv * a.group + sub * HEADS;
    t.heads = min(a.group - sub * HEADS, (uint32_t)HEADS);
    t.position = load_fresh(&a.step.place->position);
    const uint32_t count = t.position + 1, each = divide_up(count, a.cluster);
    t.from = min(t.rank * each, count);
    t.to = min(t.from + each, count);
    return t;
}

// Asks for a window of earlier positions, from its first on.
__device__ __forceinline__ void ask_window(const attention_args &a, const item &t, const room &r,
                                           barrier *arrived, uint32_t from)
{
    const uint32_t row = a.step.cache.row, end = min(min(t.to, t.position), from + WINDOW);
    if (from >= end)
        return;
    const size_t at = ((size_t)t.kv * a.step.cache.context + from) * row;
    const uint32_t bytes = (end - from) * row * (uint32_t)sizeof(float);
    announce_bulk(arrived, 2 * bytes);
    ask_bulk(r.keys, a.step.cache.keys + at, bytes, arrived);
    ask_bulk(r.values, a.step.cache.values + at, bytes, arrived);
}

// Where a pair of elements, half a head apart, of a query, the new key or the new value comes from
// and goes to.
struct pair {
    const float *from;
    float *shared, *cache; // cache: NULL for queries
    float2 angle;          // of values none
    float scale;
};

// Pairs of queries come first, then those of the new key and value, if this block has the last
// position.
__device__ __forceinline__ pair find_pair(const attention_args &a, const item &t, const room &r,
                                          uint32_t head, uint32_t e)
{
    const decode_attention &s = a.step;
    const uint32_t dim = s.heads.head_dim, row = s.cache.row;
    const size_t at = ((size_t)t.kv * s.cache.context + t.position) * row + e;
    const bool has_last = t.to == t.position + 1 && t.from < t.to;
    if (head < t.heads)
        return {s.q + (t.head + head) * dim + e, r.q + head * row + e, NULL, s.angles[e], a.scale};
    if (head == t.heads && has_last)
        return {s.k + t.kv * dim + e, r.key + e, s.cache.keys + at, s.angles[e], 1};
    if (head == t.heads + 1 && has_last)
        return {s.v + t.kv * dim + e, r.value + e, s.cache.values + at, make_float2(1, 0), 1};
    return {NULL, NULL, NULL, make_float2(1, 0), 1};
}

__device__ __forceinline__ void rotate(const pair &p, uint32_t half)
{
    if (!p.from)
        return;
    const float x = load_fresh(p.from), y = load_fresh(p.from + half);
    const float a = (x * p.angle.x - y * p.angle.y) * p.scale;
    const float b = (y * p.angle.x + x * p.angle.y) * p.scale;
    p.shared[0] = a;
    p.shared[half] = b;
    if (p.cache) {
        p.cache[0] = a;
        p.cache[half] = b;
    }
}

// The two elements' weights in the norm of a head, or NULL.
struct pair_norm {
    const float *weights;
    float a, b;
};

__device__ __forceinline__ pair_norm find_norm(const attention_args &a, const item &t,
                                               uint32_t head, uint32_t e)
{
    const uint32_t half = a.step.heads.head_dim / 2;
    const float *weights = head < t.heads ? a.step.q_norm : head == t.heads ? a.step.k_norm : NULL;
    if (!weights)
        return {NULL, 1, 1};
    return {weights, weights[e], weights[half + e]};
}

// By all threads: the same with a norm before it. A head's pairs are those of whole warps, half /
// 32 of them from the first on.
__device__ __forceinline__ void norm_and_rotate(const pair &p, const pair_norm &n, uint32_t half,
                                                uint32_t first_warp, float eps, float *squares)
{
    float x = 0, y = 0;
    if (p.from) {
        x = load_fresh(p.from);
        y = load_fresh(p.from + half);
    }
    const float sum = warp_sum(x * x + y * y);
    if (threadIdx.x % WARP == 0)
        squares[threadIdx.x / WARP] = sum;
    __syncthreads();
    float all = 0;
    for (uint32_t i = 0; i < half / WARP && first_warp + i < WARPS; i++)
        all += squares[first_warp + i];
    __syncthreads();
    if (!p.from)
        return;
    if (n.weights) {
        const float factor = rsqrtf(all / (float)(2 * half) + eps);
        x = n.a * (x * factor);
        y = n.b * (y * factor);
    }
    const float a = (x * p.angle.x - y * p.angle.y) * p.scale;
    const float b = (y * p.angle.x + x * p.angle.y) * p.scale;
    p.shared[0] = a;
    p.shared[half] = b;
    if (p.cache) {
        p.cache[0] = a;
        p.cache[half] = b;
    }
}

// Puts the new key and value into the window.
__device__ __forceinline__ void place_new(const room &r, uint32_t at, uint32_t row)
{
    for (uint32_t i = threadIdx.x; i < row; i += THREADS) {
        r.keys[at + i] = r.key[i];
        r.values[at + i] = r.value[i];
    }
}

__device__ __forceinline__ float dot4(float4 a, float4 b, float sum)
{
    return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
}

// Four elements of a row in shared memory, zeros beyond its end.
__device__ __forceinline__ float4 load_run(const float *row, uint32_t at, uint32_t end)
{
    return at < end ? *reinterpret_cast<const float4 *>(row + at) : make_float4(0, 0, 0, 0);
}

// exp(v − max), also where there was nothing at all and both are −infinity.
__device__ __forceinline__ float weight_of(float v, float max)
{
    return v == -INFINITY ? 0 : __expf(v - max);
}

// A warp's batch of positions, n of them valid; in place of the others the last of these is read.
struct batch {
    const float *keys, *values;
    uint32_t n, row;
};

// What a warp finds. Lane l has elements 4 l … 4 l + 3 of each of RUNS times 128.
template <int HEADS, int RUNS> struct warp_attention {
    enum { VALUES = BATCH * HEADS, LANES = WARP / VALUES }; // scores of a batch, lanes of a score
    float4 sums[HEADS][RUNS];
    float max, sum; // of head lane / LANES % HEADS; sum of this lane's weights alone

    __device__ __forceinline__ void begin()
    {
#pragma unroll
        for (uint32_t h = 0; h < HEADS; h++) {
#pragma unroll
            for (uint32_t j = 0; j < RUNS; j++)
                sums[h][j] = make_float4(0, 0, 0, 0);
        }
        max = -INFINITY;
        sum = 0;
    }

    // Hands half of 2 N values to the other half of the lanes, and so on: value i's sum over all
    // lanes comes to lanes LANES · i … .
    template <int N> static __device__ __forceinline__ void halve(float (&s)[VALUES])
    {
        const bool upper = threadIdx.x & N * LANES;
#pragma unroll
        for (uint32_t i = 0; i < N; i++) {
            const float other = __shfl_xor_sync(FULL_WARP, upper ? s[i] : s[i + N], N * LANES);
            s[i] = (upper ? s[i + N] : s[i]) + other;
        }
        if constexpr (N > 1)
            halve<N / 2>(s);
    }

    // The score of head lane / LANES % HEADS at the batch's position lane / LANES / HEADS. q: of
    // heads that do not exist, anything.
    static __device__ __forceinline__ float score(const batch &b, const float *q)
    {
        const uint32_t lane = threadIdx.x % WARP;
        float s[VALUES];
#pragma unroll
        for (uint32_t j = 0; j < RUNS; j++) {
            const uint32_t at = j * 128 + lane * 4;
            const float *key = b.keys + min(at, b.row - 4); // where q is zero, any
            float4 k[BATCH];
#pragma unroll
            for (uint32_t i = 0; i < BATCH; i++)
                k[i] = *reinterpret_cast<const float4 *>(key + min(i, b.n - 1) * b.row);
#pragma unroll
            for (uint32_t h = 0; h < HEADS; h++) {
                const float4 v = load_run(q + h * b.row, at, b.row);
#pragma unroll
                for (uint32_t i = 0; i < BATCH; i++)
                    s[i * HEADS + h] = dot4(k[i], v, j ? s[i * HEADS + h] : 0);
            }
        }
        __syncwarp();
        halve<VALUES / 2>(s);
#pragma unroll
        for (uint32_t step = LANES / 2; step > 0; step /= 2)
            s[0] += __shfl_xor_sync(FULL_WARP, s[0], step);
        return s[0];
    }

    // is_first: nothing was added yet. Asked of the caller, since lanes may differ in what max is:
    // of a head whose scores are no numbers it stays −infinity.
    __device__ __forceinline__ void add(const batch &b, const float *q, float *weights,
                                        bool is_first)
    {
        const uint32_t lane = threadIdx.x % WARP;
        float s = score(b, q);
        if (lane / LANES / HEADS >= b.n)
            s = -INFINITY;
        float most = fmaxf(max, s);
#pragma unroll
        for (uint32_t step = HEADS * LANES; step < WARP; step *= 2)
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, step));
        const float weight = __expf(s - most);
        if (!is_first)
            rescale(weight_of(max, most));
        sum += weight;
        max = most;
        if (lane % LANES == 0)
            weights[lane / LANES] = weight;
        __syncwarp();
#pragma unroll
        for (uint32_t j = 0; j < RUNS; j++) {
            const float *value = b.values + min(j * 128 + lane * 4, b.row - 4);
#pragma unroll
            for (uint32_t i = 0; i < BATCH; i++) {
                const float4 v = *reinterpret_cast<const float4 *>(value + min(i, b.n - 1) * b.row);
#pragma unroll
                for (uint32_t h = 0; h < HEADS; h++) {
                    const float w = weights[i * HEADS + h];
                    float4 &to = sums[h][j];
                    to = make_float4(fmaf(w, v.x, to.x), fmaf(w, v.y, to.y), fmaf(w, v.z, to.z),
                                     fmaf(w, v.w, to.w));
                }
            }
        }
        __syncwarp();
    }

    __device__ __forceinline__ void rescale(float factor)
    {
        sum *= factor;
#pragma unroll
        for (uint32_t h = 0; h < HEADS; h++) {
            const float by = __shfl_sync(FULL_WARP, factor, h * LANES);
#pragma unroll
            for (uint32_t j = 0; j < RUNS; j++) {
                float4 &to = sums[h][j];
                to = make_float4(to.x * by, to.y * by, to.z * by, to.w * by);
            }
        }
    }

    // Leaves what the warp found where the block puts it together.
    __device__ __forceinline__ void leave(float *to, uint32_t dim, part_totals (*totals)[WARPS])
    {
        const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t h = 0; h < HEADS; h++) {
#pragma unroll
            for (uint32_t j = 0; j < RUNS; j++) {
                const uint32_t at = j * 128 + lane * 4;
                if (at < dim)
                    *reinterpret_cast<float4 *>(to + h * dim + at) = sums[h][j];
            }
        }
#pragma unroll
        for (uint32_t step = HEADS * LANES; step < WARP; step *= 2)
            sum += __shfl_xor_sync(FULL_WARP, sum, step);
        if (lane % LANES == 0 && lane / LANES < HEADS)
            totals[lane / LANES][warp] = {max, sum};
    }
};

// Where the parts of the item's blocks meet: runs (runs, cluster, 32), of a cluster this block's
// alone, and totals (HEADS, MAX_CLUSTER).
struct meeting_place {
    float *runs;
    part_totals (*totals)[MAX_CLUSTER];
};

template <int HEADS>
__device__ __forceinline__ meeting_place find_meeting_place(const attention_args &a, const item &t,
                                                            const room &r,
                                                            small_shared<HEADS> *shared)
{
    if (HAS_CLUSTERS)
        return {r.received, shared->of_blocks};
    const uint32_t runs = count_runs(HEADS, a.step.heads.head_dim) * a.cluster * WARP;
    float *at = a.step.parts + (size_t)t.index * (runs + HEADS * MAX_CLUSTER * 2);
    return {at, reinterpret_cast<part_totals(*)[MAX_CLUSTER]>(at + runs)};
}

// The runs that a block puts together, one after another.
__device__ __forceinline__ uint32_t run_of(const attention_args &a, const item &t, uint32_t i)
{
    return HAS_CLUSTERS ? i * a.cluster + t.rank : i;
}

// What comes from other blocks.
__device__ __forceinline__ float load_part(const float *p)
{
    return HAS_CLUSTERS ? *p : load_fresh(p);
}

#if HAS_CLUSTERS
template <class T> __device__ __forceinline__ void send_to(barrier *parts, uint32_t rank, T *p, T v)
{
    send(find_receiver(parts, rank), p, v);
}
#else
template <class T> __device__ __forceinline__ void send_to(barrier *, uint32_t, T *p, T v)
{
    *p = v;
}
#endif

// Until all parts are there. False: another block will put them together.
template <int HEADS>
__device__ __forceinline__ bool await_parts(const attention_args &a, const item &t,
                                            small_shared<HEADS> *shared)
{
#if HAS_CLUSTERS
    await_messages(&shared->parts);
    return true;
#else
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        shared->is_last = atomicAdd(&a.step.arrived[t.index], 1) == a.cluster - 1;
        if (shared->is_last)
            a.step.arrived[t.index] = 0;
        __threadfence();
    }
    __syncthreads();
    return shared->is_last;
#endif
}

// By what each of n parts is to be multiplied to be put together: into factors, for the warp alone.
// Leaves the totals of all, of head i · WARP / MAX_CLUSTER + lane / MAX_CLUSTER in of[i]. IS_LAST:
// parts are those of blocks, and what they come to is divided by the sum of weights.
template <int HEADS, bool IS_LAST> struct joined {
    enum { PASSES = (HEADS * MAX_CLUSTER + WARP - 1) / WARP };
    part_totals of[PASSES];

    // Step by step for all passes, so that one does not wait for the other.
    __device__ __forceinline__ joined(const part_totals (*parts)[MAX_CLUSTER], uint32_t n,
                                      float (*factors)[MAX_CLUSTER])
    {
        const uint32_t lane = threadIdx.x % WARP, part = lane % MAX_CLUSTER;
        part_totals own[PASSES];
        float factor[PASSES];
        __syncwarp(); // all lanes have read what factors were before
#pragma unroll
        for (uint32_t i = 0; i < PASSES; i++) {
            const uint32_t head = head_of_lane(i);
            own[i] = {-INFINITY, 0};
            if (part < n && head < HEADS)
                own[i] = IS_LAST ? part_totals{load_part(&parts[head][part].max),
                                               load_part(&parts[head][part].sum)}
                                 : parts[head][part];
            of[i].max = own[i].max;
        }
#pragma unroll
        for (uint32_t step = 1; step < MAX_CLUSTER; step *= 2) {
#pragma unroll
            for (uint32_t i = 0; i < PASSES; i++)
                of[i].max = fmaxf(of[i].max, __shfl_xor_sync(FULL_WARP, of[i].max, step));
        }
#pragma unroll
        for (uint32_t i = 0; i < PASSES; i++) {
            factor[i] = weight_of(own[i].max, of[i].max);
            of[i].sum = own[i].sum * factor[i];
        }
#pragma unroll
        for (uint32_t step = 1; step < MAX_CLUSTER; step *= 2) {
#pragma unroll
            for (uint32_t i = 0; i < PASSES; i++)
                of[i].sum += __shfl_xor_sync(FULL_WARP, of[i].sum, step);
        }
#pragma unroll
        for (uint32_t i = 0; i < PASSES; i++)
            factors[head_of_lane(i)][part] = IS_LAST ? __fdividef(factor[i], of[i].sum) : factor[i];
        __syncwarp();
    }

    static __device__ __forceinline__ uint32_t head_of_lane(uint32_t i)
    {
        return i * (WARP / MAX_CLUSTER) + threadIdx.x % WARP / MAX_CLUSTER;
    }
};

// An element from all its parts, which lie so far apart.
__device__ __forceinline__ float sum_parts(const float *from, uint32_t stride, const float *factors)
{
    float sums[4] = {0, 0, 0, 0};
#pragma unroll
    for (uint32_t i = 0; i < MAX_CLUSTER; i++)
        sums[i % 4] = fmaf(from[i * stride], factors[i], sums[i % 4]);
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

// The block's part to where the parts meet: a warp a run, a lane an element; the last warp sends
// the totals too.
template <int HEADS>
__device__ __forceinline__ void send_part(const attention_args &a, const item &t, const room &r,
                                          const meeting_place &to, small_shared<HEADS> *shared)
{
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const uint32_t dim = a.step.heads.head_dim, end = t.heads * dim;
    const joined<HEADS, false> all(shared->of_warps, WARPS, shared->factors[warp]);
    for (uint32_t run = warp; run < count_runs(HEADS, dim); run += WARPS) {
        const uint32_t i = run * WARP + lane, rank = run & (a.cluster - 1);
        const float *factors = shared->factors[warp][head_of<HEADS>(i, dim)];
        const float sum = i < end ? sum_parts(r.keys + i, BATCH * a.step.cache.row, factors) : 0;
        const uint32_t first = HAS_CLUSTERS ? run - rank : run * a.cluster;
        send_to(&shared->parts, rank, to.runs + (first + t.rank) * WARP + lane, sum);
    }
    if (warp < WARPS - 1)
        return;
    const uint32_t receivers = HAS_CLUSTERS ? a.cluster : 1;
    for (uint32_t rank = lane % MAX_CLUSTER; rank < receivers; rank += MAX_CLUSTER) {
#pragma unroll
        for (uint32_t i = 0; i < all.PASSES; i++) {
            const uint32_t head = all.head_of_lane(i);
            if (head < HEADS)
                send_to(&shared->parts, rank, reinterpret_cast<float2 *>(&to.totals[head][t.rank]),
                        make_float2(all.of[i].max, all.of[i].sum));
        }
    }
}

// Puts the parts of the item's blocks together.
template <int HEADS>
__device__ __forceinline__ void join_parts(const attention_args &a, const item &t,
                                           const meeting_place &from, small_shared<HEADS> *shared)
{
    const uint32_t dim = a.step.heads.head_dim, runs = count_runs(HEADS, dim);
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (run_of(a, t, warp) >= runs)
        return;
    const joined<HEADS, true> all(from.totals, a.cluster, shared->factors[warp]);
    for (uint32_t slot = warp; run_of(a, t, slot) < runs; slot += WARPS) {
        const uint32_t run = run_of(a, t, slot), i = run * WARP + lane;
        const uint32_t at = t.head * dim + i;
        const bool valid = i < t.heads * dim;
        const float *factors = shared->factors[warp][head_of<HEADS>(i, dim)];
        const float *part = from.runs + slot * a.cluster * WARP + lane;
        float v = 0;
        if (HAS_CLUSTERS && a.cluster == MAX_CLUSTER) {
            v = sum_parts(part, WARP, factors);
        } else {
            for (uint32_t b = 0; b < a.cluster; b++)
                v = fmaf(load_part(part + b * WARP), factors[b], v);
        }
        if (valid)
            a.step.att[at] = v;
    }
}

// RUNS: of 128 elements, in a head. NORMS: of heads, before they are rotated.
template <int HEADS, int RUNS, bool NORMS>
__global__ void __launch_bounds__(THREADS, 2) attend(const __grid_constant__ attention_args a)
{
    extern __shared__ __align__(128) float dynamic[];
    __shared__ small_shared<HEADS> shared;
    let_next_start();
    const uint32_t warp = threadIdx.x / WARP;
    const uint32_t dim = a.step.heads.head_dim, row = a.step.cache.row;
    room r;
    (void)find_room(a, HEADS, &r, dynamic);
    open_bulk(&shared.arrived);
#if HAS_CLUSTERS
    const uint32_t rank = rank_in_cluster();
    const uint32_t runs = (count_runs(HEADS, dim) + a.cluster - 1 - rank) / a.cluster;
    open_mailbox(&shared.parts, a.cluster * (runs * WARP * (uint32_t)sizeof(float) +
                                             HEADS * (uint32_t)sizeof(part_totals)));
#else
    const uint32_t rank = blockIdx.x % a.cluster;
#endif
    const item t = find_item<HEADS>(a, rank);
    if (warp == 0 || !HAS_COPY_ENGINE)
        ask_window(a, t, r, &shared.arrived, t.from);
    const uint32_t half = dim / 2, head = threadIdx.x / half, element = threadIdx.x % half;
    if (t.position - t.from < WINDOW) { // the first window has room for the new key and value
        r.key = r.keys + (t.position - t.from) * row;
        r.value = r.values + (t.position - t.from) * row;
    }
    const uint32_t at_once = THREADS / half;
    pair first = find_pair(a, t, r, head < at_once ? head : UINT32_MAX, element);
    uint32_t count = t.to - t.from, first_of_warp = warp * BATCH;
    uint32_t more_heads = t.heads + 2 > at_once;
    pair_norm norm = {NULL, 1, 1};
    if (NORMS && head < at_once)
        norm = find_norm(a, t, head, element);
    keep(first.from);
    keep(first.angle.x);
    keep(first.angle.y);
    keep(first.scale);
    keep(count);
    keep(more_heads);
    __syncthreads();

    wait_for_previous();
    if (NORMS) {
        const uint32_t first_warp = head * (half / WARP);
        norm_and_rotate(first, norm, half, first_warp, a.step.norm_eps, shared.squares);
        for (uint32_t done = at_once; done < t.heads + 2; done += at_once) {
            const uint32_t h = head < at_once ? done + head : UINT32_MAX;
            norm_and_rotate(find_pair(a, t, r, h, element), find_norm(a, t, h, element), half,
                            first_warp, a.step.norm_eps, shared.squares);
        }
    } else {
        rotate(first, half);
        for (uint32_t h = head + at_once; more_heads && head < at_once && h < t.heads + 2;
             h += at_once)
            rotate(find_pair(a, t, r, h, element), half);
    }
    __syncthreads();
    warp_attention<HEADS, RUNS> own;
    own.begin();
    float *keys = r.keys + warp * BATCH * row;
#pragma unroll 1
    for (uint32_t done = 0; done < count; done += WINDOW) {
        const uint32_t from = t.from + done;
        if (done) {
            __syncthreads();
            if (warp == 0 || !HAS_COPY_ENGINE)
                ask_window(a, t, r, &shared.arrived, from);
            if (t.position - from < WINDOW)
                place_new(r, (t.position - from) * row, row);
            __syncthreads();
        }
        if (from < min(t.to, t.position))
            await_bulk(&shared.arrived, done / WINDOW);
        if (done + first_of_warp < count)
            own.add({keys, r.values + first_of_warp * row,
                     min(count - done - first_of_warp, (uint32_t)BATCH), row},
                    r.q, shared.weights[warp], done == 0);
    }
    own.leave(keys, dim, shared.of_warps);
#if HAS_CLUSTERS
    await_mailboxes();
#endif
    __syncthreads();
    const meeting_place place = find_meeting_place(a, t, r, &shared);
    send_part(a, t, r, place, &shared);
    if (await_parts(a, t, &shared))
        join_parts(a, t, place, &shared);
}

typedef void (*kernel)(attention_args);

template <bool NORMS> kernel choose_kernel(uint32_t heads, uint32_t dim)
{
    if (dim <= 128)
        return heads == 1   ? attend<1, 1, NORMS>
               : heads == 2 ? attend<2, 1, NORMS>
                            : attend<4, 1, NORMS>;
    return heads == 1   ? attend<1, 2, NORMS>
           : heads == 2 ? attend<2, 2, NORMS>
                        : attend<4, 2, NORMS>;
}

uint32_t choose_heads(struct bnt_cuda_heads heads)
{
    const uint32_t group = heads.n_heads / heads.n_kv_heads;
    return group <= 2 ? group : (uint32_t)MAX_HEADS;
}

uint32_t count_items(struct bnt_cuda_heads heads)
{
    const uint32_t group = heads.n_heads / heads.n_kv_heads, each = choose_heads(heads);
    return heads.n_kv_heads * divide_up(group, each);
}

// As many blocks as can work at once.
uint32_t choose_cluster(struct bnt_cuda_heads heads, const struct decode_device *device)
{
    uint32_t cluster = 1;
    while (2 * cluster <= device->most_clustered &&
           2 * cluster * count_items(heads) <= device->processors)
        cluster *= 2;
    return cluster;
}

// Allows the kernel as much shared memory as there may be, since other models may have other needs,
// and the largest clusters.
cudaError_t allow_most(kernel run, const struct decode_device &device)
{
    cudaError_t error = cudaFuncSetAttribute(run, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)(device.shared_bytes - OWN_BYTES));
    if (error == cudaSuccess && device.is_early)
        error = cudaFuncSetAttribute(run, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    return error;
}

void set_cluster(cudaLaunchConfig_t *config, cudaLaunchAttribute *attributes, uint32_t blocks)
{
    attributes[config->numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config->numAttrs].val.clusterDim.x = blocks;
    attributes[config->numAttrs].val.clusterDim.y = 1;
    attributes[config->numAttrs++].val.clusterDim.z = 1;
}
} // namespace

// A part of a GPU may have no group of multiprocessors large enough.
cudaError_t decode_attention_find_cluster(const struct decode_device *device, uint32_t *blocks)
{
    *blocks = MAX_CLUSTER;
    if (!device->is_early)
        return cudaSuccess;
    const kernel run = choose_kernel<false>(MAX_HEADS, MAX_DIM);
    cudaError_t error = allow_most(run, *device);
    if (error != cudaSuccess)
        return error;
    cudaLaunchAttribute attributes[3] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(MAX_CLUSTER);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = device->shared_bytes - OWN_BYTES;
    set_sharing(&config, attributes, true);
    set_cluster(&config, attributes, MAX_CLUSTER);
    int places = 0;
    error = cudaOccupancyMaxActiveClusters(&places, run, &config);
    if (error == cudaSuccess && places < 1)
        *blocks = SURE_CLUSTER;
    return error;
}

bool decode_attention_fits(struct bnt_cuda_heads heads, bool has_norms,
                           const struct decode_device *device)
{
    if (heads.head_dim % (has_norms ? 2 * WARP : 4) || heads.head_dim > MAX_DIM)
        return false;
    attention_args a = {};
    a.step.heads = heads;
    a.step.cache.row = heads.head_dim;
    a.cluster = choose_cluster(heads, device);
    room r;
    return find_room(a, choose_heads(heads), &r, NULL) * sizeof(float) + OWN_BYTES <=
           device->shared_bytes;
}

size_t decode_attention_parts(struct bnt_cuda_heads heads, const struct decode_device *device)
{
    if (device->is_early)
        return 0;
    const uint32_t n = choose_heads(heads), cluster = choose_cluster(heads, device);
    return count_items(heads) *
           (size_t)(count_runs(n, heads.head_dim) * cluster * WARP + n * MAX_CLUSTER * 2);
}

uint32_t decode_attention_items(struct bnt_cuda_heads heads)
{
    return count_items(heads);
}

cudaError_t decode_attention_launch(const struct decode_attention *step,
                                    const struct decode_device *device, cudaStream_t stream)
{
    const uint32_t heads = choose_heads(step->heads), items = count_items(step->heads);
    attention_args a = {};
    a.step = *step;
    a.cluster = choose_cluster(step->heads, device);
    a.group = step->heads.n_heads / step->heads.n_kv_heads;
    a.subgroups = items / step->heads.n_kv_heads;
    a.scale = 1.0f / sqrtf((float)step->heads.head_dim);
    const kernel run = step->q_norm ? choose_kernel<true>(heads, step->heads.head_dim)
                                    : choose_kernel<false>(heads, step->heads.head_dim);
    room r;
    const size_t bytes = find_room(a, heads, &r, NULL) * sizeof(float);
    cudaError_t error = allow_most(run, *device);
    if (error != cudaSuccess)
        return error;
    cudaLaunchAttribute attributes[3] = {};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(items * a.cluster);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    set_sharing(&config, attributes, device->is_early);
    if (device->is_early)
        set_cluster(&config, attributes, a.cluster);
    return cudaLaunchKernelEx(&config, run, a);
}
