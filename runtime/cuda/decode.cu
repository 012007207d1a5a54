// SPDX-License-Identifier: MIT
// One token through the whole model in one persistent kernel, a block on each multiprocessor.
//
// Weights. A block's share of every matrix, in the order in which they are needed, is one long stream
// of 16-byte pieces for each thread. It runs through a ring in shared memory far ahead of its use
// (more than a layer), so memory stays busy while results are awaited. A thread copies only what it
// will read itself: no barrier guards the ring.
//
// Results. Blocks hand vectors to each other through memory without flags or barriers: the lowest bit
// of every 32-bit word says whether it is new. A word is written at each use of its buffer and its
// mark turns every second use, there being two buffers that take turns. Integer sums are handed on
// exactly (they have bits to spare); floats lose their last bit. Each block waits for all of a vector,
// and so for every block that had a part in it, before it goes on to the next: a buffer is written
// again only after all have read it, since every block has a part in gate/up.
//
// Norms, quantization and the residual stream are computed by every block for itself: that is cheaper
// than to hand them on.
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/chunk.cuh"
#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/rank.cuh"

namespace
{
enum {
    THREADS = 512,
    WARPS = THREADS / WARP,
    SLOT_BYTES = THREADS * 16, // of the ring
    HEADS = 4,                 // query heads that one attention item takes at most
    POSITIONS = 256,           // positions in a tile of attention
    MAX_DIM = 256,
    AT_ONCE = 4, // 16-byte pieces of a vector that a thread awaits together
    SCALES = 7,  // of a layer's matrices
    SPIN_LIMIT = 1 << 24, // polls, some ten seconds: then something is broken
};

enum matrix { Q, K, V, O, GATE, UP, DOWN };
enum segment { QKV_ROWS, O_ROWS, FFN_ROWS, DOWN_ROWS, OUTPUT_ROWS, SEGMENTS };

// What a segment of the stream reads: tiles (rows of the output layer) of tile_bytes each.
struct segment_args {
    const uint8_t *base;   // of layer 0
    uint64_t layer_stride; // bytes
    uint64_t pair_offset;  // bytes from a gate tile to its up tile; 0 elsewhere
    uint32_t tile_bytes;
    uint32_t chunks;  // of 512 bytes in a tile, the last perhaps in part
    uint32_t units;   // tiles, pairs of tiles or rows, dealt to the blocks
    uint32_t shift;   // the block that gets the first of what does not divide evenly
};

struct decode_args {
    segment_args segments[SEGMENTS];
    const float *norms;     // of layer 0; the offsets of its weights and of a layer are in floats
    uint64_t norm_stride;
    uint64_t attn_sub_norm, ffn_norm, ffn_sub_norm; // 0: none
    const float *final_norm;
    const float *scales; // (n_layers, SCALES)
    const void *embedding;
    const float *frequency; // (dim / 2)
    __half *keys, *values;
    float *logits;   // (vocab)
    uint32_t *best;  // the likeliest token
    unsigned long long *block_best; // (blocks)
    unsigned *arrived;
    // Vectors on their way between blocks, two of each.
    uint32_t *qkv, *part, *att, *o, *activated, *down;
    uint32_t qkv_size, part_size, att_size, hidden_size, ffn_size; // in words, padded
    uint64_t cache_layer; // elements
    uint32_t context, cache_row;
    uint32_t n_layers, hidden, q_size, ffn, vocab;
    uint32_t n_kv_heads, group, subgroups, dim, splits;
    uint32_t k_at, v_at; // where k and v begin in qkv
    uint32_t relu2, wide;
    float eps;
    uint32_t token, position, use; // use: of the buffers in layer 0
    // Shared memory, in bytes from its start.
    uint32_t x_at, y_at, quantized_at, tiles_at, angles_at;
};

// --- the stream of weights ---

struct share {
    uint32_t tile, chunk, count; // where a warp begins in a segment, and how many chunks it takes
};

struct small_shared {
    share shares[SEGMENTS][WARPS];
    uint32_t first_tile[SEGMENTS], n_tiles[SEGMENTS];
    float sum[WARPS], max[WARPS];
    int x_sum[2];
    float head_max[HEADS], head_sum[HEADS], head_rescale[HEADS];
    unsigned long long best[WARPS];
    bool last;
};

struct stream {
    const uint8_t *tile_data;
    uint32_t layer, segment, left, tile, chunk;
    uint32_t slot;
};

struct block {
    const decode_args &a;
    uint8_t *ring;
    float *x, *y;
    int8_t *quantized;
    int *tiles;
    float *angles; // (dim / 2) cosines, (dim / 2) sines
    small_shared *small;
    uint32_t warp, lane;
    chunk_lane at;
};

__device__ __forceinline__ void find_tile(stream &s, const block &b)
{
    const segment_args &g = b.a.segments[s.segment];
    uint64_t tile = g.pair_offset ? s.tile / 2 : s.tile;
    s.tile_data = g.base + s.layer * g.layer_stride + tile * g.tile_bytes +
                  (g.pair_offset && s.tile % 2 ? g.pair_offset : 0);
}

// The next segment in which the warp has something to read, if there is one.
__device__ __forceinline__ void next_segment(stream &s, const block &b)
{
    while (s.left == 0 && s.segment != SEGMENTS) {
        if (s.segment == DOWN_ROWS && s.layer + 1 < b.a.n_layers) {
            s.segment = QKV_ROWS;
            s.layer++;
        } else {
            if (s.segment == DOWN_ROWS)
                s.layer = 0;
            s.segment++;
        }
        if (s.segment == SEGMENTS)
            return;
        const share &mine = b.small->shares[s.segment][b.warp];
        s.left = mine.count;
        s.tile = mine.tile;
        s.chunk = mine.chunk;
        find_tile(s, b);
    }
}

// Asks for the next piece, into the slot that was read last.
__device__ __forceinline__ void refill(stream &s, const block &b, uint32_t slot)
{
    if (s.left == 0)
        next_segment(s, b);
    if (s.segment != SEGMENTS) {
        const segment_args &g = b.a.segments[s.segment];
        uint32_t from =
            s.chunk * CHUNK_BYTES + (s.segment == OUTPUT_ROWS ? b.lane * 16 : b.at.offset);
        bool valid = from < g.tile_bytes;
        copy_async(b.ring + slot * SLOT_BYTES + threadIdx.x * 16, s.tile_data + (valid ? from : 0),
                   valid);
        s.left--;
        if (++s.chunk == g.chunks) {
            s.chunk = 0;
            s.tile++;
            if (s.left > 0)
                find_tile(s, b);
        }
    }
    copy_commit();
}

template <int SLOTS> __device__ __forceinline__ uint4 take(const stream &s, const block &b)
{
    copy_wait<SLOTS - 1>();
    return *reinterpret_cast<const uint4 *>(b.ring + s.slot * SLOT_BYTES + threadIdx.x * 16);
}

template <int SLOTS> __device__ __forceinline__ void replace(stream &s, const block &b)
{
    refill(s, b, s.slot);
    s.slot = s.slot + 1 == SLOTS ? 0 : s.slot + 1;
}

// --- vectors between blocks ---

__device__ __forceinline__ uint32_t mark_of(uint32_t use)
{
    return (use >> 1 & 1) ^ 1; // the buffers begin as zeros
}

__device__ __forceinline__ uint32_t *buffer_of(uint32_t *buffers, uint32_t size, uint32_t use)
{
    return buffers + (use & 1) * (size_t)size;
}

__device__ __forceinline__ void publish(uint32_t *to, uint32_t word, uint32_t mark)
{
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"((word & ~1u) | mark)
                 : "memory");
}

__device__ __forceinline__ void publish_sum(uint32_t *to, int sum, uint32_t mark)
{
    publish(to, (uint32_t)sum << 1, mark);
}

__device__ __forceinline__ void publish_float(uint32_t *to, float v, uint32_t mark)
{
    publish(to, __float_as_uint(v), mark);
}

__device__ __forceinline__ float to_float(uint32_t word)
{
    return __uint_as_float(word & ~1u);
}

__device__ __forceinline__ float to_sum(uint32_t word)
{
    return (float)((int)word >> 1);
}

__device__ __forceinline__ uint4 look(const uint32_t *from)
{
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

__device__ __forceinline__ bool is_new(uint4 v, uint32_t mark)
{
    return (((v.x ^ mark) | (v.y ^ mark) | (v.z ^ mark) | (v.w ^ mark)) & 1) == 0;
}

__device__ __forceinline__ void count_spin(int &spins)
{
    if (++spins == SPIN_LIMIT)
        __trap();
}

__device__ __forceinline__ uint4 await(const uint32_t *from, uint32_t mark)
{
    int spins = 0;
    uint4 v = look(from);
    while (!is_new(v, mark)) {
        count_spin(spins);
        v = look(from);
    }
    return v;
}

__device__ __forceinline__ uint32_t await_word(const uint32_t *from, uint32_t mark)
{
    int spins = 0;
    uint32_t v;
    for (;;) {
        asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
        if (((v ^ mark) & 1) == 0)
            return v;
        count_spin(spins);
    }
}

// Pieces first, first + THREADS, … of AT_ONCE, as far as they lie below count.
__device__ __forceinline__ void await_pieces(uint4 (&v)[AT_ONCE], const uint32_t *from,
                                             uint32_t first, uint32_t count, uint32_t mark)
{
    int spins = 0;
    uint32_t pending = 0;
#pragma unroll
    for (uint32_t r = 0; r < AT_ONCE; r++)
        pending |= (first + r * THREADS < count ? 1u : 0u) << r;
    while (pending) {
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            if (pending >> r & 1)
                v[r] = look(from + (size_t)(first + r * THREADS) * 4);
        }
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            if (is_new(v[r], mark))
                pending &= ~(1u << r);
        }
        count_spin(spins);
    }
}

// --- norm and quantization, by the whole block ---

__device__ __forceinline__ float4 times(float4 a, float4 b)
{
    return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w);
}

__device__ __forceinline__ float squares(float4 v)
{
    return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
}

__device__ __forceinline__ float largest(float4 v)
{
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

// Where the four values of a piece come from: words of a vector, or the token's embedding.
struct from_sums { // x += sum · factor
    float *x;
    float factor;
    __device__ float4 operator()(uint32_t i, uint4 w) const
    {
        float4 v = reinterpret_cast<float4 *>(x)[i];
        v.x += to_sum(w.x) * factor;
        v.y += to_sum(w.y) * factor;
        v.z += to_sum(w.z) * factor;
        v.w += to_sum(w.w) * factor;
        reinterpret_cast<float4 *>(x)[i] = v;
        return v;
    }
};

struct from_floats {
    __device__ float4 operator()(uint32_t, uint4 w) const
    {
        return make_float4(to_float(w.x), to_float(w.y), to_float(w.z), to_float(w.w));
    }
};

struct totals {
    float squares, max;
};

__device__ totals reduce_block(const block &b, float sum, float max)
{
    sum = warp_sum(sum);
    max = warp_max(max);
    if (b.lane == 0) {
        b.small->sum[b.warp] = sum;
        b.small->max[b.warp] = max;
    }
    __syncthreads();
    totals t = {0, 0};
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        t.squares += b.small->sum[i];
        t.max = fmaxf(t.max, b.small->max[i]);
    }
    return t;
}

// Awaits a vector of n words, takes values from it and leaves them times weight (NULL: as they are)
// in y. vector NULL: the values are those of x.
template <class Source>
__device__ __forceinline__ totals gather(const block &b, const uint32_t *vector, uint32_t mark,
                                         uint32_t n, const float *weight, Source source)
{
    float sum = 0, max = 0;
    for (uint32_t first = threadIdx.x; first < n / 4; first += AT_ONCE * THREADS) {
        float4 w[AT_ONCE];
        uint4 v[AT_ONCE];
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            w[r] = make_float4(1, 1, 1, 1);
            if (weight && first + r * THREADS < n / 4)
                w[r] = __ldg(reinterpret_cast<const float4 *>(weight) + first + r * THREADS);
        }
        if (vector)
            await_pieces(v, vector, first, n / 4, mark);
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            const uint32_t i = first + r * THREADS;
            if (i >= n / 4)
                break;
            float4 value = vector ? source(i, v[r]) : reinterpret_cast<const float4 *>(b.x)[i];
            float4 scaled = times(w[r], value);
            sum += squares(value);
            max = fmaxf(max, largest(scaled));
            reinterpret_cast<float4 *>(b.y)[i] = scaled;
        }
    }
    return reduce_block(b, sum, max);
}

__device__ __forceinline__ float norm_factor(const decode_args &a, float sum, uint32_t n)
{
    return 1.0f / sqrtf(sum / (float)n + a.eps);
}

// Quantizes y times factor. Returns s; which of the two sums it used is told by parity.
__device__ __forceinline__ float quantize_vector(const block &b, totals t, float factor, uint32_t n,
                                                 uint32_t parity)
{
    const float scale = 127.0f / fmaxf(t.max * factor, 1e-5f);
    const uint32_t padded = bnt_cuda_pad(n, BNT_CUDA_CHUNK_COLS) / 4;
    int sum = 0;
    for (uint32_t i = threadIdx.x; i < padded; i += THREADS) {
        uint32_t q = 0;
        if (i < n / 4) {
            float4 v = reinterpret_cast<const float4 *>(b.y)[i];
            q = pack_bytes(quantize(v.x * factor, scale), quantize(v.y * factor, scale),
                           quantize(v.z * factor, scale), quantize(v.w * factor, scale));
        }
        reinterpret_cast<uint32_t *>(b.quantized)[i] = q;
        sum = __dp4a((int)q, 0x01010101, sum);
    }
    sum = warp_sum(sum);
    if (b.lane == 0)
        atomicAdd(&b.small->x_sum[parity], sum);
    __syncthreads();
    if (threadIdx.x == 0)
        b.small->x_sum[parity ^ 1] = 0;
    return scale;
}

// --- products ---

// The block's tiles of a segment times the quantized vector; sums of row r of tile i (of the block's)
// in tiles[16 i + r], without the correction.
template <int SLOTS>
__device__ __forceinline__ void multiply(stream &s, const block &b, segment segment)
{
    const share &mine = b.small->shares[segment][b.warp];
    const uint32_t chunks = b.a.segments[segment].chunks;
    uint32_t chunk = mine.chunk, left = mine.count;
    int *tile = b.tiles + (mine.tile - b.small->first_tile[segment]) * TILE_ROWS;
    chunk_sums sums = {};
    while (left > 0) {
        uint4 w = take<SLOTS>(s, b);
        uint4 x = *reinterpret_cast<const uint4 *>(b.quantized + chunk * BNT_CUDA_CHUNK_COLS +
                                                   b.at.x_offset);
        multiply_chunk(sums, w, x);
        replace<SLOTS>(s, b);
        left--;
        if (++chunk == chunks || left == 0) {
            add_chunk_sums(tile, sums, b.at);
            sums = {};
            chunk = 0;
            tile += TILE_ROWS;
        }
    }
    __syncthreads();
}

// The sum of one of the block's rows, which is zero again afterwards.
__device__ __forceinline__ int take_sum(const block &b, uint32_t i, uint32_t parity)
{
    int sum = b.tiles[i] - 2 * b.small->x_sum[parity];
    b.tiles[i] = 0;
    return sum;
}

__device__ __forceinline__ void publish_rows(const block &b, segment segment, uint32_t *to,
                                             uint32_t mark, uint32_t parity)
{
    const uint32_t first = b.small->first_tile[segment] * TILE_ROWS;
    for (uint32_t i = threadIdx.x; i < b.small->n_tiles[segment] * TILE_ROWS; i += THREADS)
        publish_sum(to + first + i, take_sum(b, i, parity), mark);
}

// Tiles alternate between gate and up.
__device__ __forceinline__ void publish_ffn(const block &b, uint32_t *to, uint32_t mark,
                                            uint32_t parity, float gate_factor, float up_factor)
{
    const uint32_t first = b.small->first_tile[FFN_ROWS] / 2 * TILE_ROWS;
    for (uint32_t i = threadIdx.x; i < b.small->n_tiles[FFN_ROWS] / 2 * TILE_ROWS; i += THREADS) {
        uint32_t at = i / TILE_ROWS * 2 * TILE_ROWS + i % TILE_ROWS;
        float gate = (float)take_sum(b, at, parity) * gate_factor;
        float up = (float)take_sum(b, at + TILE_ROWS, parity) * up_factor;
        publish_float(to + first + i, (b.a.relu2 ? relu2(gate) : silu(gate)) * up, mark);
    }
}

// --- attention ---

// Some query heads of one key/value head over one part of the positions.
struct item {
    uint32_t kv, head, heads; // the first query head, and how many
    uint32_t from, to;        // positions
    uint32_t index;
};

__device__ item find_item(const decode_args &a, uint32_t index)
{
    item t;
    const uint32_t split = index % a.splits, sub = index / a.splits % a.subgroups;
    const uint32_t count = a.position + 1, each = (count + a.splits - 1) / a.splits;
    t.index = index;
    t.kv = index / a.splits / a.subgroups;
    t.head = t.kv * a.group + sub * HEADS;
    t.heads = min(a.group - sub * HEADS, (uint32_t)HEADS);
    t.from = min(split * each, count);
    t.to = min(t.from + each, count);
    return t;
}

// Scratch of attention, in the room of y: queries (HEADS, row), scores (HEADS, POSITIONS), sums
// (WARPS, MAX_DIM at most).
struct attention_room {
    float *q, *scores, *sums;
};

__device__ attention_room find_room(const block &b)
{
    attention_room r;
    r.q = b.y;
    r.scores = r.q + HEADS * b.a.cache_row;
    r.sums = r.scores + HEADS * POSITIONS;
    return r;
}

__device__ __forceinline__ __half to_cache(float v)
{
    return __float2half_rn(fminf(fmaxf(v, -65504.0f), 65504.0f));
}

// Rotated queries into shared memory; the new key and value into the cache.
__device__ void prepare_item(const block &b, const item &t, const uint32_t *qkv, uint32_t mark,
                             const float *factor, __half *keys, __half *values)
{
    const decode_args &a = b.a;
    const uint32_t half = a.dim / 2, last = t.to == a.position + 1 && t.from < t.to;
    const float *cosine = b.angles, *sine = b.angles + half;
    const attention_room room = find_room(b);
    const float scale = 1.0f / sqrtf((float)a.dim);
    for (uint32_t i = threadIdx.x; i < (t.heads + 2 * last) * half; i += THREADS) {
        const uint32_t head = i / half, e = i % half;
        const uint32_t what = head < t.heads ? Q : head == t.heads ? K : V;
        const uint32_t at = what == Q   ? (t.head + head) * a.dim
                            : what == K ? a.k_at + t.kv * a.dim
                                        : a.v_at + t.kv * a.dim;
        float v0 = to_sum(await_word(qkv + at + e, mark)) * factor[what];
        float v1 = to_sum(await_word(qkv + at + half + e, mark)) * factor[what];
        float r0 = v0 * cosine[e] - v1 * sine[e], r1 = v1 * cosine[e] + v0 * sine[e];
        const size_t row = ((size_t)t.kv * a.context + a.position) * a.cache_row;
        if (what == Q) {
            room.q[head * a.cache_row + e] = r0 * scale;
            room.q[head * a.cache_row + half + e] = r1 * scale;
        } else if (what == K) {
            keys[row + e] = to_cache(r0);
            keys[row + half + e] = to_cache(r1);
        } else {
            values[row + e] = to_cache(v0);
            values[row + half + e] = to_cache(v1);
        }
    }
    for (uint32_t i = threadIdx.x; i < HEADS * (a.cache_row - a.dim); i += THREADS) {
        const uint32_t pad = a.cache_row - a.dim;
        room.q[i / pad * a.cache_row + a.dim + i % pad] = 0;
    }
    __syncthreads();
}

__device__ __forceinline__ void unpack(float (&to)[8], uint4 halves)
{
    const __half2 *pairs = reinterpret_cast<const __half2 *>(&halves);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __half22float2(pairs[i]);
        to[2 * i] = f.x;
        to[2 * i + 1] = f.y;
    }
}

// Scores of positions from … from + n − 1: eight lanes a position.
__device__ void score_positions(const block &b, const item &t, const __half *keys, uint32_t from,
                                uint32_t n)
{
    const decode_args &a = b.a;
    const attention_room room = find_room(b);
    const uint32_t part = threadIdx.x % 8;
    for (uint32_t p0 = 0; p0 < n; p0 += THREADS / 8) {
        const uint32_t p = p0 + threadIdx.x / 8;
        const __half *key = keys + ((size_t)t.kv * a.context + from + min(p, n - 1)) * a.cache_row;
        float sum[HEADS] = {};
        for (uint32_t c = part; c < a.cache_row / 8; c += 8) {
            float k[8];
            unpack(k, *reinterpret_cast<const uint4 *>(key + c * 8));
#pragma unroll
            for (uint32_t h = 0; h < HEADS; h++) {
                const float4 *q = reinterpret_cast<const float4 *>(room.q + h * a.cache_row + c * 8);
                float4 q0 = q[0], q1 = q[1];
                if (h < t.heads)
                    sum[h] += k[0] * q0.x + k[1] * q0.y + k[2] * q0.z + k[3] * q0.w + k[4] * q1.x +
                              k[5] * q1.y + k[6] * q1.z + k[7] * q1.w;
            }
        }
#pragma unroll
        for (uint32_t h = 0; h < HEADS; h++) {
            for (int step = 1; step < 8; step *= 2)
                sum[h] += __shfl_xor_sync(FULL_WARP, sum[h], step);
            if (part == h && h < t.heads && p < n)
                room.scores[h * POSITIONS + p] = sum[h];
        }
    }
    __syncthreads();
}

// Scores become weights relative to the largest so far: a warp a head.
__device__ void weigh_positions(const block &b, const item &t, uint32_t n)
{
    if (b.warp < t.heads) {
        float *scores = find_room(b).scores + b.warp * POSITIONS;
        float old = b.small->head_max[b.warp], max = old, sum = 0;
        for (uint32_t p = b.lane; p < n; p += WARP)
            max = fmaxf(max, scores[p]);
        max = warp_max(max);
        for (uint32_t p = b.lane; p < n; p += WARP) {
            scores[p] = expf(scores[p] - max);
            sum += scores[p];
        }
        sum = warp_sum(sum);
        if (b.lane == 0) {
            float rescale = expf(old - max);
            b.small->head_rescale[b.warp] = rescale;
            b.small->head_max[b.warp] = max;
            b.small->head_sum[b.warp] = b.small->head_sum[b.warp] * rescale + sum;
        }
    }
    __syncthreads();
}

struct value_sums {
    float4 v[MAX_DIM / 128];
};

// A warp takes one head and every parts-th position; lane l the elements 4 l … 4 l + 3 of each 128.
__device__ void add_values(const block &b, const item &t, const __half *values, uint32_t from,
                           uint32_t n, value_sums &sums)
{
    const decode_args &a = b.a;
    const uint32_t head = b.warp % t.heads, parts = WARPS / t.heads, part = b.warp / t.heads;
    if (part < parts) {
        const float *weights = find_room(b).scores + head * POSITIONS;
        const float rescale = b.small->head_rescale[head];
#pragma unroll
        for (uint32_t j = 0; j < MAX_DIM / 128; j++) {
            const uint32_t e = j * 128 + b.lane * 4;
            if (e >= a.dim)
                break;
            float4 s = sums.v[j];
            s = make_float4(s.x * rescale, s.y * rescale, s.z * rescale, s.w * rescale);
            const __half *value = values + ((size_t)t.kv * a.context + from) * a.cache_row + e;
#pragma unroll 8
            for (uint32_t p = part; p < n; p += parts) {
                uint2 pair = *reinterpret_cast<const uint2 *>(value + (size_t)p * a.cache_row);
                float2 v0 = __half22float2(*reinterpret_cast<__half2 *>(&pair.x));
                float2 v1 = __half22float2(*reinterpret_cast<__half2 *>(&pair.y));
                s.x += weights[p] * v0.x;
                s.y += weights[p] * v0.y;
                s.z += weights[p] * v1.x;
                s.w += weights[p] * v1.y;
            }
            sums.v[j] = s;
        }
    }
    __syncthreads();
}

// An item's result: sums of values (HEADS, dim), the largest scores, the sums of weights.
__device__ void publish_item(const block &b, const item &t, const value_sums &sums, uint32_t *to,
                             uint32_t mark)
{
    const decode_args &a = b.a;
    float *room = find_room(b).sums;
    const uint32_t head = b.warp % t.heads, parts = WARPS / t.heads, part = b.warp / t.heads;
    if (part < parts) {
        for (uint32_t j = 0; j < MAX_DIM / 128; j++) {
            const uint32_t e = j * 128 + b.lane * 4;
            if (e < a.dim)
                *reinterpret_cast<float4 *>(room + (part * t.heads + head) * a.dim + e) =
                    sums.v[j];
        }
    }
    __syncthreads();
    to += (size_t)t.index * (HEADS * a.dim + 2 * HEADS);
    for (uint32_t i = threadIdx.x; i < HEADS * a.dim; i += THREADS) {
        float sum = 0;
        for (uint32_t p = 0; i < t.heads * a.dim && p < parts; p++)
            sum += room[p * t.heads * a.dim + i];
        publish_float(to + i, sum, mark);
    }
    if (threadIdx.x < HEADS) {
        publish_float(to + HEADS * a.dim + threadIdx.x, b.small->head_max[threadIdx.x], mark);
        publish_float(to + HEADS * a.dim + HEADS + threadIdx.x, b.small->head_sum[threadIdx.x],
                      mark);
    }
    __syncthreads();
}

__device__ void attend(const block &b, const uint32_t *qkv, uint32_t *part, uint32_t mark,
                       const float *factor, uint32_t layer)
{
    const decode_args &a = b.a;
    __half *keys = a.keys + layer * a.cache_layer, *values = a.values + layer * a.cache_layer;
    for (uint32_t i = blockIdx.x; i < a.n_kv_heads * a.subgroups * a.splits; i += gridDim.x) {
        const item t = find_item(a, i);
        if (threadIdx.x < HEADS) {
            b.small->head_max[threadIdx.x] = -1e30f; // finite: a mark would make −infinity NaN
            b.small->head_sum[threadIdx.x] = 0;
        }
        prepare_item(b, t, qkv, mark, factor, keys, values);
        value_sums sums = {};
        for (uint32_t from = t.from; from < t.to; from += POSITIONS) {
            const uint32_t n = min(t.to - from, (uint32_t)POSITIONS);
            score_positions(b, t, keys, from, n);
            weigh_positions(b, t, n);
            add_values(b, t, values, from, n, sums);
        }
        publish_item(b, t, sums, part, mark);
    }
}

// Brings what the block will read of the cache near, while q is not there yet.
__device__ void prefetch_item(const decode_args &a, uint32_t layer)
{
    if (blockIdx.x >= a.n_kv_heads * a.subgroups * a.splits)
        return;
    const item t = find_item(a, blockIdx.x);
    const size_t at = layer * a.cache_layer + ((size_t)t.kv * a.context + t.from) * a.cache_row;
    const size_t bytes = (size_t)(t.to - t.from) * a.cache_row * sizeof(__half);
    for (size_t i = threadIdx.x * 128; i < bytes; i += THREADS * 128) {
        asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)(a.keys + at) + i));
        asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)(a.values + at) + i));
    }
}

// The parts of a head put together: a warp for four elements, a lane a part.
__device__ void combine(const block &b, const uint32_t *part, uint32_t *att, uint32_t mark)
{
    const decode_args &a = b.a;
    const uint32_t pieces = a.q_size / 4;
    const uint32_t first = pieces * blockIdx.x / gridDim.x;
    const uint32_t end = pieces * (blockIdx.x + 1) / gridDim.x;
    for (uint32_t i = first + b.warp; i < end; i += WARPS) {
        const uint32_t head = i * 4 / a.dim, e = i * 4 % a.dim;
        const uint32_t sub = head % a.group / HEADS, h = head % a.group % HEADS;
        const uint32_t item = (head / a.group * a.subgroups + sub) * a.splits;
        const uint32_t stride = HEADS * a.dim + 2 * HEADS;
        float max = -1e30f, total = 0;
        float4 sum = make_float4(0, 0, 0, 0);
        for (uint32_t split = b.lane; split < bnt_cuda_pad(a.splits, WARP); split += WARP) {
            float m = -1e30f, l = 0;
            float4 v = make_float4(0, 0, 0, 0);
            if (split < a.splits) {
                const uint32_t *from = part + (size_t)(item + split) * stride;
                uint4 maxima = await(from + HEADS * a.dim, mark);
                uint4 totals = await(from + HEADS * a.dim + HEADS, mark);
                uint4 w = await(from + h * a.dim + e, mark);
                const uint32_t *ms = &maxima.x, *ls = &totals.x;
                m = to_float(h == 0 ? ms[0] : h == 1 ? ms[1] : h == 2 ? ms[2] : ms[3]);
                l = to_float(h == 0 ? ls[0] : h == 1 ? ls[1] : h == 2 ? ls[2] : ls[3]);
                v = make_float4(to_float(w.x), to_float(w.y), to_float(w.z), to_float(w.w));
            }
            float new_max = fmaxf(max, warp_max(m));
            float old = expf(max - new_max), now = expf(m - new_max);
            max = new_max;
            total = total * old + warp_sum(l * now);
            sum.x = sum.x * old + warp_sum(v.x * now);
            sum.y = sum.y * old + warp_sum(v.y * now);
            sum.z = sum.z * old + warp_sum(v.z * now);
            sum.w = sum.w * old + warp_sum(v.w * now);
        }
        if (b.lane < 4) {
            float v = b.lane == 0 ? sum.x : b.lane == 1 ? sum.y : b.lane == 2 ? sum.z : sum.w;
            publish_float(att + i * 4 + b.lane, v / total, mark);
        }
    }
}

// --- the output layer ---

// y as the lanes will read it: of each 512 bytes of a row, a lane has 16, which are 4 or 8 values.
__device__ void arrange_output(const block &b, float factor)
{
    const decode_args &a = b.a;
    const uint32_t per_lane = a.wide ? 1 : 2; // float4
    const uint32_t padded = a.segments[OUTPUT_ROWS].chunks * WARP * per_lane;
    float4 *to = reinterpret_cast<float4 *>(b.y) + bnt_cuda_pad(a.hidden / 4, 4);
    for (uint32_t i = threadIdx.x; i < padded; i += THREADS) {
        float4 v = make_float4(0, 0, 0, 0);
        if (i < a.hidden / 4)
            v = times(reinterpret_cast<const float4 *>(b.y)[i],
                      make_float4(factor, factor, factor, factor));
        uint32_t chunk = i / (WARP * per_lane), in = i % (WARP * per_lane);
        to[chunk * WARP * per_lane + in % per_lane * WARP + in / per_lane] = v;
    }
    __syncthreads();
}

__device__ __forceinline__ float2 bf16_pair(uint32_t word)
{
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xFFFF0000u));
}

__device__ __forceinline__ float dot_bf16(uint4 w, float4 x0, float4 x1, float sum)
{
    float2 a = bf16_pair(w.x), b = bf16_pair(w.y), c = bf16_pair(w.z), d = bf16_pair(w.w);
    sum = fmaf(a.x, x0.x, fmaf(a.y, x0.y, fmaf(b.x, x0.z, fmaf(b.y, x0.w, sum))));
    return fmaf(c.x, x1.x, fmaf(c.y, x1.y, fmaf(d.x, x1.z, fmaf(d.y, x1.w, sum))));
}

__device__ __forceinline__ float dot_f32(uint4 w, float4 x, float sum)
{
    return fmaf(__uint_as_float(w.x), x.x,
                fmaf(__uint_as_float(w.y), x.y,
                     fmaf(__uint_as_float(w.z), x.z, fmaf(__uint_as_float(w.w), x.w, sum))));
}

template <int SLOTS>
__device__ unsigned long long output_rows(stream &s, const block &b)
{
    const decode_args &a = b.a;
    const share &mine = b.small->shares[OUTPUT_ROWS][b.warp];
    const uint32_t chunks = a.segments[OUTPUT_ROWS].chunks;
    const float4 *x = reinterpret_cast<const float4 *>(b.y) + bnt_cuda_pad(a.hidden / 4, 4);
    unsigned long long best = 0;
    uint32_t row = mine.tile;
    for (uint32_t left = mine.count; left > 0; left -= chunks, row++) {
        float sum = 0;
        for (uint32_t c = 0; c < chunks; c++) {
            uint4 w = take<SLOTS>(s, b);
            if (a.wide)
                sum = dot_f32(w, x[c * WARP + b.lane], sum);
            else
                sum = dot_bf16(w, x[c * 2 * WARP + b.lane], x[(c * 2 + 1) * WARP + b.lane], sum);
            replace<SLOTS>(s, b);
        }
        sum = warp_sum(sum);
        if (b.lane == 0)
            a.logits[row] = sum;
        best = max(best, rank_of(sum, row));
    }
    return best;
}

// The best of all blocks, by the last that comes.
__device__ void choose_best(const block &b, unsigned long long best)
{
    const decode_args &a = b.a;
    if (b.lane == 0)
        b.small->best[b.warp] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 0; i < WARPS; i++)
            best = max(best, b.small->best[i]);
        a.block_best[blockIdx.x] = best;
        __threadfence();
        b.small->last = atomicAdd(a.arrived, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!b.small->last || b.warp > 0)
        return;
    __threadfence();
    best = 0;
    for (uint32_t i = b.lane; i < gridDim.x; i += WARP)
        best = max(best, *(volatile unsigned long long *)&a.block_best[i]);
    for (int step = WARP / 2; step > 0; step /= 2)
        best = max(best, __shfl_xor_sync(FULL_WARP, best, step));
    if (b.lane == 0) {
        *a.best = id_of(best);
        *a.arrived = 0;
    }
}

// --- the kernel ---

// Which tiles of each segment are the block's, and which chunks of them each warp's.
__device__ void deal(const block &b)
{
    if (threadIdx.x >= SEGMENTS * WARPS)
        return;
    const uint32_t segment = threadIdx.x / WARPS, warp = threadIdx.x % WARPS;
    const segment_args &g = b.a.segments[segment];
    const uint32_t each = g.units / gridDim.x, more = g.units % gridDim.x;
    const uint32_t i = (blockIdx.x + gridDim.x - g.shift) % gridDim.x;
    const uint32_t per_unit = g.pair_offset ? 2 : 1;
    uint32_t first = (i * each + min(i, more)) * per_unit;
    uint32_t n = (each + (i < more)) * per_unit;
    share &mine = b.small->shares[segment][warp];
    b.small->first_tile[segment] = first;
    b.small->n_tiles[segment] = n;
    if (segment == OUTPUT_ROWS) { // whole rows
        uint32_t from = n * warp / WARPS;
        mine = {first + from, 0, (n * (warp + 1) / WARPS - from) * g.chunks};
        return;
    }
    uint32_t from = n * g.chunks * warp / WARPS;
    mine = {first + from / g.chunks, from % g.chunks, n * g.chunks * (warp + 1) / WARPS - from};
}

__device__ void start(const block &b)
{
    const decode_args &a = b.a;
    deal(b);
    for (uint32_t i = threadIdx.x; i < a.dim / 2; i += THREADS)
        sincosf((float)a.position * a.frequency[i], &b.angles[a.dim / 2 + i], &b.angles[i]);
    for (uint32_t i = threadIdx.x; i < a.hidden; i += THREADS) {
        size_t at = (size_t)a.token * a.hidden + i;
        b.x[i] = a.wide ? static_cast<const float *>(a.embedding)[at]
                        : __bfloat162float(static_cast<const __nv_bfloat16 *>(a.embedding)[at]);
    }
    uint32_t most = 0;
    for (int i = 0; i < OUTPUT_ROWS; i++)
        most = max(most, a.segments[i].units / gridDim.x * 2 + 2);
    for (uint32_t i = threadIdx.x; i < most * TILE_ROWS; i += THREADS)
        b.tiles[i] = 0;
    if (threadIdx.x < 2)
        b.small->x_sum[threadIdx.x] = 0;
    __syncthreads();
}

template <int SLOTS>
__device__ __forceinline__ float attention_block(stream &s, const block &b, uint32_t layer,
                                                 float down_factor)
{
    const decode_args &a = b.a;
    const uint32_t use = a.use + layer, mark = mark_of(use);
    const float *norms = a.norms + layer * a.norm_stride;
    const float *gamma = a.scales + layer * SCALES;
    uint32_t *qkv = buffer_of(a.qkv, a.qkv_size, use), *part = buffer_of(a.part, a.part_size, use);
    uint32_t *att = buffer_of(a.att, a.att_size, use), *o = buffer_of(a.o, a.hidden_size, use);
    float gammas[4] = {__ldg(gamma + Q), __ldg(gamma + K), __ldg(gamma + V), __ldg(gamma + O)};
    prefetch_item(a, layer);
    const uint32_t *down = layer ? buffer_of(a.down, a.hidden_size, use - 1) : NULL;
    totals t = gather(b, down, mark_of(use - 1), a.hidden, norms, from_sums{b.x, down_factor});
    float scale = quantize_vector(b, t, norm_factor(a, t.squares, a.hidden), a.hidden, 0);
    multiply<SLOTS>(s, b, QKV_ROWS);
    publish_rows(b, QKV_ROWS, qkv, mark, 0);
    float factor[3] = {gammas[0] / scale, gammas[1] / scale, gammas[2] / scale};
    attend(b, qkv, part, mark, factor, layer);
    combine(b, part, att, mark);
    const float *sub_norm = a.attn_sub_norm ? norms + a.attn_sub_norm : NULL;
    __syncthreads();
    t = gather(b, att, mark, a.q_size, sub_norm, from_floats{});
    scale = quantize_vector(b, t, sub_norm ? norm_factor(a, t.squares, a.q_size) : 1.0f, a.q_size,
                            1);
    multiply<SLOTS>(s, b, O_ROWS);
    publish_rows(b, O_ROWS, o, mark, 1);
    return gammas[3] / scale;
}

template <int SLOTS>
__device__ __forceinline__ float ffn_block(stream &s, const block &b, uint32_t layer,
                                           float o_factor)
{
    const decode_args &a = b.a;
    const uint32_t use = a.use + layer, mark = mark_of(use);
    const float *norms = a.norms + layer * a.norm_stride;
    const float *gamma = a.scales + layer * SCALES;
    uint32_t *o = buffer_of(a.o, a.hidden_size, use);
    uint32_t *activated = buffer_of(a.activated, a.ffn_size, use);
    uint32_t *down = buffer_of(a.down, a.hidden_size, use);
    float gammas[3] = {__ldg(gamma + GATE), __ldg(gamma + UP), __ldg(gamma + DOWN)};
    totals t = gather(b, o, mark, a.hidden, norms + a.ffn_norm, from_sums{b.x, o_factor});
    float scale = quantize_vector(b, t, norm_factor(a, t.squares, a.hidden), a.hidden, 0);
    multiply<SLOTS>(s, b, FFN_ROWS);
    publish_ffn(b, activated, mark, 0, gammas[0] / scale, gammas[1] / scale);
    const float *sub_norm = a.ffn_sub_norm ? norms + a.ffn_sub_norm : NULL;
    t = gather(b, activated, mark, a.ffn, sub_norm, from_floats{});
    scale = quantize_vector(b, t, sub_norm ? norm_factor(a, t.squares, a.ffn) : 1.0f, a.ffn, 1);
    multiply<SLOTS>(s, b, DOWN_ROWS);
    publish_rows(b, DOWN_ROWS, down, mark, 1);
    return gammas[2] / scale;
}

template <int SLOTS>
__global__ void __launch_bounds__(THREADS, 1) decode(const __grid_constant__ decode_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    __shared__ small_shared small;
    const block b = {a,
                     shared,
                     reinterpret_cast<float *>(shared + a.x_at),
                     reinterpret_cast<float *>(shared + a.y_at),
                     reinterpret_cast<int8_t *>(shared + a.quantized_at),
                     reinterpret_cast<int *>(shared + a.tiles_at),
                     reinterpret_cast<float *>(shared + a.angles_at),
                     &small,
                     threadIdx.x / WARP,
                     threadIdx.x % WARP,
                     find_chunk_lane()};
    start(b);
    stream s = {};
    s.left = small.shares[QKV_ROWS][b.warp].count;
    s.tile = small.shares[QKV_ROWS][b.warp].tile;
    s.chunk = small.shares[QKV_ROWS][b.warp].chunk;
    find_tile(s, b);
    for (uint32_t i = 0; i < SLOTS; i++)
        refill(s, b, i);
    float factor = 0;
    for (uint32_t layer = 0; layer < a.n_layers; layer++) {
        factor = attention_block<SLOTS>(s, b, layer, factor);
        factor = ffn_block<SLOTS>(s, b, layer, factor);
    }
    const uint32_t use = a.use + a.n_layers - 1;
    totals t = gather(b, buffer_of(a.down, a.hidden_size, use), mark_of(use), a.hidden,
                      a.final_norm, from_sums{b.x, factor});
    arrange_output(b, norm_factor(a, t.squares, a.hidden));
    choose_best(b, output_rows<SLOTS>(s, b));
}
} // namespace

// --- the host's side ---

struct bnt_cuda_decoder {
    decode_args args;
    void (*kernel)(decode_args);
    uint32_t blocks, shared_bytes;
    cudaStream_t stream;
    void *memory; // all buffers between blocks
    float *scales;
};

static uint32_t tiles(uint32_t rows)
{
    return bnt_pad_rows(rows) / BNT_BLOCK_ROWS;
}

static segment_args ternary_segment(const struct bnt_cuda_model *m, const bnt_cuda_matrix *first,
                                    uint32_t n_tiles)
{
    segment_args g = {};
    g.base = reinterpret_cast<const uint8_t *>(first->blocks);
    if (m->hyper.n_layers > 1) // layers are alike, so their distances are (R16)
        g.layer_stride = (uint64_t)(m->layers[1].q.blocks - m->layers[0].q.blocks) * 4;
    g.tile_bytes = bnt_pad_cols(first->cols) / BNT_BLOCK_COLS * BLOCK_BYTES;
    g.chunks = (g.tile_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    g.units = n_tiles;
    return g;
}

static void plan_segments(decode_args *a, const struct bnt_cuda_model *m, uint32_t blocks)
{
    const struct bnt_hyper *h = &m->hyper;
    const struct bnt_cuda_layer *l = &m->layers[0];
    segment_args *g = a->segments;
    g[QKV_ROWS] = ternary_segment(m, &l->q, tiles(l->q.rows) + 2 * tiles(l->k.rows));
    g[O_ROWS] = ternary_segment(m, &l->o, tiles(l->o.rows));
    g[FFN_ROWS] = ternary_segment(m, &l->gate, tiles(l->gate.rows));
    g[FFN_ROWS].pair_offset = (uint64_t)tiles(l->gate.rows) * g[FFN_ROWS].tile_bytes;
    g[DOWN_ROWS] = ternary_segment(m, &l->down, tiles(l->down.rows));
    g[OUTPUT_ROWS].base = static_cast<const uint8_t *>(m->output);
    g[OUTPUT_ROWS].tile_bytes = h->hidden_size * (m->wide ? 4 : 2);
    g[OUTPUT_ROWS].chunks = (g[OUTPUT_ROWS].tile_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    g[OUTPUT_ROWS].units = h->vocab_size;
    uint32_t shift = 0; // those that get one more than others in one segment do not in the next
    for (int i = 0; i < SEGMENTS; i++) {
        g[i].shift = shift;
        shift = (shift + g[i].units % blocks) % blocks;
    }
}

static void plan_model(decode_args *a, const struct bnt_cuda_session *s)
{
    const struct bnt_cuda_model *m = s->model;
    const struct bnt_hyper *h = &m->hyper;
    const struct bnt_cuda_layer *l = m->layers;
    a->norms = l[0].attn_norm;
    a->norm_stride = h->n_layers > 1 ? (uint64_t)(l[1].attn_norm - l[0].attn_norm) : 0;
    a->attn_sub_norm = l[0].attn_sub_norm ? (uint64_t)(l[0].attn_sub_norm - a->norms) : 0;
    a->ffn_norm = (uint64_t)(l[0].ffn_norm - a->norms);
    a->ffn_sub_norm = l[0].ffn_sub_norm ? (uint64_t)(l[0].ffn_sub_norm - a->norms) : 0;
    a->final_norm = m->final_norm;
    a->embedding = m->embedding;
    a->frequency = s->frequency;
    a->keys = s->keys;
    a->values = s->values;
    a->context = s->context;
    a->cache_row = s->cache_row;
    a->cache_layer = (uint64_t)h->n_kv_heads * s->context * s->cache_row;
    a->n_layers = h->n_layers;
    a->hidden = h->hidden_size;
    a->q_size = bnt_q_size(h);
    a->ffn = h->ffn_size;
    a->vocab = h->vocab_size;
    a->n_kv_heads = h->n_kv_heads;
    a->group = h->n_heads / h->n_kv_heads;
    a->subgroups = (a->group + HEADS - 1) / HEADS;
    a->dim = h->head_dim;
    a->relu2 = h->activation == BNT_ACTIVATION_RELU2;
    a->wide = m->wide;
    a->eps = h->norm_eps;
    a->k_at = bnt_pad_rows(a->q_size);
    a->v_at = a->k_at + bnt_pad_rows(bnt_kv_size(h));
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

// Lays out shared memory behind a ring of slots; returns its size.
static uint64_t plan_shared(decode_args *a, uint32_t slots, uint32_t blocks)
{
    uint64_t widest = max_u32(max_u32(a->hidden, a->q_size), a->ffn);
    uint64_t output = bnt_cuda_pad(a->hidden / 4, 4) * 4ull +
                      (uint64_t)a->segments[OUTPUT_ROWS].chunks * WARP * (a->wide ? 4 : 8);
    uint64_t attention = HEADS * (a->cache_row + POSITIONS) + (uint64_t)WARPS * a->dim;
    uint64_t y = widest > output ? widest : output;
    y = y > attention ? y : attention;
    uint64_t most = 0;
    for (int i = 0; i < OUTPUT_ROWS; i++)
        most = max_u32((uint32_t)most, a->segments[i].units / blocks * 2 + 2);
    uint64_t at = (uint64_t)slots * SLOT_BYTES;
    a->x_at = (uint32_t)at;
    at += (uint64_t)bnt_cuda_pad(a->hidden, 4) * sizeof(float);
    a->y_at = (uint32_t)at;
    at += (y + 3) / 4 * 16;
    a->quantized_at = (uint32_t)at;
    at += (widest + BNT_CUDA_CHUNK_COLS) / BNT_CUDA_CHUNK_COLS * BNT_CUDA_CHUNK_COLS;
    a->tiles_at = (uint32_t)at;
    at += most * TILE_ROWS * sizeof(int);
    a->angles_at = (uint32_t)at;
    return at + (uint64_t)a->dim * sizeof(float);
}

static bool are_shapes_fit(const struct bnt_hyper *h)
{
    return h->head_dim % 4 == 0 && h->head_dim <= MAX_DIM && h->hidden_size % 8 == 0 &&
           h->ffn_size % 8 == 0 && h->hidden_size <= 1 << 16 && h->ffn_size <= 1 << 17 &&
           bnt_q_size(h) <= 1 << 16;
}

// The longest ring that fits.
static bool choose_kernel(struct bnt_cuda_decoder *d, const struct bnt_cuda_model *m)
{
    static const struct {
        uint32_t slots;
        void (*kernel)(decode_args);
    } kernels[] = {{20, decode<20>}, {16, decode<16>}, {12, decode<12>}, {8, decode<8>},
                   {4, decode<4>}};
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        uint64_t bytes = plan_shared(&d->args, kernels[i].slots, d->blocks);
        if (bytes + sizeof(small_shared) > m->info.shared_bytes)
            continue;
        d->kernel = kernels[i].kernel;
        d->shared_bytes = (uint32_t)bytes;
        return true;
    }
    return false;
}

static cudaError_t allocate_vectors(struct bnt_cuda_decoder *d, const struct bnt_cuda_session *s)
{
    decode_args *a = &d->args;
    const struct bnt_hyper *h = &s->model->hyper;
    a->qkv_size = a->v_at + bnt_pad_rows(bnt_kv_size(h));
    a->part_size = bnt_cuda_pad(
        a->n_kv_heads * a->subgroups * a->splits * (HEADS * a->dim + 2 * HEADS), 4);
    a->att_size = bnt_cuda_pad(a->q_size, 16);
    a->hidden_size = bnt_pad_rows(a->hidden);
    a->ffn_size = bnt_pad_rows(a->ffn);
    uint32_t **const vectors[] = {&a->qkv, &a->part, &a->att, &a->o, &a->activated, &a->down};
    const uint32_t sizes[] = {a->qkv_size,    a->part_size, a->att_size,
                              a->hidden_size, a->ffn_size,  a->hidden_size};
    size_t words = 0;
    for (size_t i = 0; i < 6; i++)
        words += 2 * (size_t)bnt_cuda_pad(sizes[i], 32);
    size_t extra = d->blocks * sizeof(unsigned long long) + 256;
    cudaError_t error = cudaMalloc(&d->memory, words * 4 + extra);
    if (error != cudaSuccess)
        return error;
    uint32_t *at = static_cast<uint32_t *>(d->memory);
    for (size_t i = 0; i < 6; i++) {
        *vectors[i] = at;
        at += 2 * (size_t)bnt_cuda_pad(sizes[i], 32);
    }
    a->arrived = at;
    a->block_best = reinterpret_cast<unsigned long long *>(at + 32);
    return cudaMemset(d->memory, 0, words * 4 + extra);
}

static cudaError_t upload_scales(struct bnt_cuda_decoder *d, const struct bnt_cuda_model *m)
{
    size_t bytes = (size_t)m->hyper.n_layers * SCALES * sizeof(float);
    float *scales = static_cast<float *>(malloc(bytes));
    if (!scales)
        return cudaErrorMemoryAllocation;
    for (uint32_t i = 0; i < m->hyper.n_layers; i++) {
        const struct bnt_cuda_layer *l = &m->layers[i];
        const float of[SCALES] = {l->q.scale,    l->k.scale,  l->v.scale,   l->o.scale,
                                  l->gate.scale, l->up.scale, l->down.scale};
        memcpy(scales + i * SCALES, of, sizeof of);
    }
    cudaError_t error = cudaMalloc(&d->scales, bytes);
    if (error == cudaSuccess)
        error = cudaMemcpy(d->scales, scales, bytes, cudaMemcpyHostToDevice);
    free(scales);
    d->args.scales = d->scales;
    return error;
}

enum bnt_status bnt_cuda_decoder_open(const struct bnt_cuda_session *s,
                                      struct bnt_cuda_decoder **decoder, struct bnt_error *err)
{
    *decoder = NULL;
    const struct bnt_cuda_model *m = s->model;
    if (!are_shapes_fit(&m->hyper))
        return BNT_OK;
    struct bnt_cuda_decoder *d = static_cast<struct bnt_cuda_decoder *>(calloc(1, sizeof *d));
    if (!d)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    uint32_t pairs = tiles(m->hyper.ffn_size); // every block must have one
    d->blocks = m->info.processors < pairs ? m->info.processors : pairs;
    d->stream = s->stream;
    plan_model(&d->args, s);
    plan_segments(&d->args, m, d->blocks);
    d->args.splits = max_u32(1, d->blocks / (d->args.n_kv_heads * d->args.subgroups));
    if (!choose_kernel(d, m)) {
        free(d);
        return BNT_OK;
    }
    cudaError_t error = cudaFuncSetAttribute(
        d->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)d->shared_bytes);
    if (error == cudaSuccess)
        error = allocate_vectors(d, s);
    if (error == cudaSuccess)
        error = upload_scales(d, m);
    if (error != cudaSuccess) {
        bnt_cuda_decoder_close(d);
        return bnt_cuda_fail(err, error, "preparing the GPU for single tokens");
    }
    *decoder = d;
    return BNT_OK;
}

void bnt_cuda_decoder_close(struct bnt_cuda_decoder *d)
{
    if (!d)
        return;
    (void)cudaFree(d->memory);
    (void)cudaFree(d->scales);
    free(d);
}

cudaError_t bnt_cuda_decode(struct bnt_cuda_decoder *d, uint32_t token, uint32_t position,
                            float *logits, uint32_t *best)
{
    decode_args args = d->args;
    args.token = token;
    args.position = position;
    args.logits = logits;
    args.best = best;
    void *list[] = {&args};
    cudaError_t error = cudaLaunchCooperativeKernel((const void *)d->kernel, dim3(d->blocks),
                                                    dim3(THREADS), list, d->shared_bytes,
                                                    d->stream);
    if (error == cudaSuccess)
        d->args.use += args.n_layers;
    return error;
}
