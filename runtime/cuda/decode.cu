// SPDX-License-Identifier: MIT
// One token through the whole model in one persistent kernel, a block on each multiprocessor.
//
// Weights. A warp's share of all matrices, in the order in which they are needed, is one long
// stream. It runs through a ring in shared memory far ahead of its use (about a layer), so memory
// stays busy while results are awaited. (ring.cuh)
//
// Results. Blocks hand vectors to each other through memory without flags or barriers: the lowest
// bit of every 32-bit word says whether it is new. A word is written at each use of its buffer and
// its mark turns every second use, there being two buffers that take turns. Integer sums are handed
// on exactly (they have bits to spare); floats lose their last bit. Each block waits for all of a
// vector, and so for every block that had a part in it, before it goes on to the next: a buffer is
// written again only after all have read it, since every block has a part in gate/up.
//
// Norms, quantization and the residual stream are computed by every block for itself: that is
// cheaper than to hand them on.
#include <stdlib.h>
#include <string.h>

#include "runtime/cuda/decode.cuh"
#include "runtime/cuda/decode_attention.cuh"
#include "runtime/cuda/decode_input.cuh"
#include "runtime/cuda/decode_output.cuh"
#include "runtime/cuda/ring.cuh"

namespace
{
// --- quantization, by the whole block ---

// Activations 4 i … 4 i + 3. Each second run of 128 lies with its halves exchanged, so that lanes
// that read at the same place of two runs meet different banks.
__device__ __forceinline__ void store_quantized(int8_t *to, uint32_t i, uint32_t four)
{
    reinterpret_cast<uint32_t *>(to)[i ^ (i >> 5 & 1) << 4] = four;
}

// round_half_even(v · s) in the lowest byte: 1.5 · 2^23 leaves no room for a fraction.
__device__ __forceinline__ uint32_t quantize_bits(float v, float s)
{
    return __float_as_uint(fminf(fmaxf(v * s, -128.0f), 127.0f) + 12582912.0f);
}

// Quantizes y times factor. Returns s; which of the two sums it used is told by parity.
__device__ __forceinline__ float quantize_vector(const block &b, totals t, float factor, uint32_t n,
                                                 uint32_t parity)
{
    const float scale = __fdividef(127.0f, fmaxf(t.max * factor, 1e-5f)), both = factor * scale;
    const uint32_t padded = bnt_cuda_pad(n, PIECE_COLS) / 4;
    int sum = 0;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < padded; i += THREADS) {
        uint32_t q = 0;
        if (i < n / 4) {
            float4 v = reinterpret_cast<const float4 *>(b.y)[i];
            q = pack_bytes(quantize_bits(v.x, both), quantize_bits(v.y, both),
                           quantize_bits(v.z, both), quantize_bits(v.w, both));
        }
        store_quantized(b.quantized, i, q);
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

// Where in a piece's 256 activations the lane finds those of its first part; those of the second
// are 64 bytes on, or back (see store_quantized).
__device__ __forceinline__ uint32_t find_activations(const chunk_lane &at)
{
    return at.t / 2 * (128 + 64) + at.x_offset % 64;
}

// The block's tiles of a segment times the quantized vector; sums of row r of tile i (of the
// block's) in tiles[16 i + r], without the correction.
template <class Ring>
__device__ __forceinline__ void multiply(Ring &ring, const block &b, uint32_t segment)
{
    const share &mine = b.small->shares[segment][b.warp];
    const uint32_t pieces = b.a.segments[segment].pieces;
    const lane_parts parts = ternary_parts(b.at);
    const int8_t *x = b.quantized + find_activations(b.at);
    const int second = b.at.t / 2 ? -64 : 64;
    uint32_t piece = mine.piece, left = mine.count;
    int *tile = b.tiles + (mine.tile - b.small->first_tile[segment]) * TILE_ROWS;
    chunk_sums sums = {};
#pragma unroll 1
    while (left > 0) {
        uint4 w[2];
        ring.take(w, parts);
        const int8_t *from = x + piece * PIECE_COLS;
        __syncwarp();
        multiply_chunk(sums, w[0], *reinterpret_cast<const uint4 *>(from));
        multiply_chunk(sums, w[1], *reinterpret_cast<const uint4 *>(from + second));
        ring.release();
        left--;
        if (++piece == pieces || left == 0) {
            add_chunk_sums(tile, sums, b.at);
            sums = {};
            piece = 0;
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

__device__ __forceinline__ void publish_rows(const block &b, uint32_t segment, uint32_t *to,
                                             uint32_t mark, uint32_t parity)
{
    const uint32_t first = b.small->first_tile[segment] * TILE_ROWS;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < b.small->n_tiles[segment] * TILE_ROWS; i += THREADS)
        publish_sum(to + first + i, take_sum(b, i, parity), mark);
}

// Tiles alternate between gate and up.
__device__ __forceinline__ void publish_ffn(const block &b, uint32_t *to, uint32_t mark,
                                            uint32_t parity, float gate_factor, float up_factor)
{
    const uint32_t first = b.small->first_tile[FFN_ROWS] / 2 * TILE_ROWS;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < b.small->n_tiles[FFN_ROWS] / 2 * TILE_ROWS; i += THREADS) {
        uint32_t at = i / TILE_ROWS * 2 * TILE_ROWS + i % TILE_ROWS;
        float gate = (float)take_sum(b, at, parity) * gate_factor;
        float up = (float)take_sum(b, at + TILE_ROWS, parity) * up_factor;
        publish_float(to + first + i,
                      (b.a.relu2 ? relu2(gate) : __fdividef(gate, 1.0f + expf(-gate))) * up, mark);
    }
}

// --- the kernel ---

// Which tiles of each segment are the block's, and which pieces of them each warp's.
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
        mine = {first + from, 0, (n * (warp + 1) / WARPS - from) * g.pieces};
        return;
    }
    uint32_t from = n * g.pieces * warp / WARPS;
    mine = {first + from / g.pieces, from % g.pieces, n * g.pieces * (warp + 1) / WARPS - from};
}

__device__ void start(const block &b)
{
    const decode_args &a = b.a;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < a.dim / 2; i += THREADS)
        sincosf((float)a.position * a.frequency[i], &b.angles[a.dim / 2 + i], &b.angles[i]);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < a.hidden; i += THREADS) {
        size_t at = (size_t)a.token * a.hidden + i;
        b.x[i] = a.wide ? static_cast<const float *>(a.embedding)[at]
                        : __bfloat162float(static_cast<const __nv_bfloat16 *>(a.embedding)[at]);
    }
    uint32_t most = 0;
    for (int i = 0; i < OUTPUT_ROWS; i++)
        most = max(most, a.segments[i].units / gridDim.x * 2 + 2);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < most * TILE_ROWS; i += THREADS)
        b.tiles[i] = 0;
    if (threadIdx.x < 2)
        b.small->x_sum[threadIdx.x] = 0;
    if (threadIdx.x == 0)
        b.small->first_item = find_item(a, blockIdx.x);
    if (b.lane == 0)
        b.small->first_combination[b.warp] =
            find_combination(a, first_piece(a, blockIdx.x) + b.warp);
    __syncthreads();
}

// What the four products of a layer take in: the residual stream with the last product added
// (twice), the attention's result, the activated values.
__device__ __forceinline__ input find_input(const decode_args &a, uint32_t layer, uint32_t segment,
                                            float factor)
{
    const uint32_t use = a.use + layer;
    const float *norms = a.norms + layer * a.norm_stride;
    input in = {NULL, mark_of(use), a.hidden, norms, true, factor};
    if (segment == QKV_ROWS) {
        in.vector = layer ? buffer_of(a.down, a.hidden_size, use - 1) : NULL;
        in.mark = mark_of(use - 1);
    } else if (segment == O_ROWS) {
        in.vector = buffer_of(a.att, a.att_size, use);
        in.n = a.q_size;
        in.norm = a.attn_sub_norm ? norms + a.attn_sub_norm : NULL;
        in.is_sum = false;
    } else if (segment == FFN_ROWS) {
        in.vector = buffer_of(a.o, a.hidden_size, use);
        in.norm = norms + a.ffn_norm;
    } else {
        in.vector = buffer_of(a.activated, a.ffn_size, use);
        in.n = a.ffn;
        in.norm = a.ffn_sub_norm ? norms + a.ffn_sub_norm : NULL;
        in.is_sum = false;
    }
    return in;
}

// After the first product: attention, up to the vector that the second takes in.
__device__ __forceinline__ void attention_step(const block &b, uint32_t layer, const uint32_t *qkv,
                                               const float *gamma, float scale)
{
    const decode_args &a = b.a;
    const uint32_t use = a.use + layer, mark = mark_of(use);
    const float factor[3] = {__fdividef(gamma[Q], scale), __fdividef(gamma[K], scale),
                             __fdividef(gamma[V], scale)};
    uint32_t *part = buffer_of(a.part, a.part_size, use);
    attend(b, qkv, part, mark, factor, layer);
    combine(b, part, buffer_of(a.att, a.att_size, use), mark);
    __syncthreads();
}

// One of the four products of a layer and what follows it. Returns what its sums are to be
// multiplied with. All four go through the same code: together they would not fit in the
// instruction cache.
template <class Ring>
__device__ __forceinline__ float product_step(Ring &ring, const block &b, uint32_t layer,
                                              uint32_t segment, float factor)
{
    const decode_args &a = b.a;
    const uint32_t use = a.use + layer, mark = mark_of(use), parity = segment & 1;
    const float *gammas = a.scales + layer * SCALES;
    float gamma[SCALES];
#pragma unroll
    for (int i = 0; i < SCALES; i++)
        gamma[i] = __ldg(gammas + i);
    if (segment == QKV_ROWS) {
        prefetch_item(b, layer);
        prefetch_norms(a, layer + 1);
    }
    const input in = find_input(a, layer, segment, factor);
    const totals t = gather(b, in);
    const float scale =
        quantize_vector(b, t, in.norm ? norm_factor(a, t.squares, in.n) : 1.0f, in.n, parity);
    multiply(ring, b, segment);
    if (segment == FFN_ROWS) {
        publish_ffn(b, buffer_of(a.activated, a.ffn_size, use), mark, parity,
                    __fdividef(gamma[GATE], scale), __fdividef(gamma[UP], scale));
        return 0;
    }
    uint32_t *to = segment == QKV_ROWS ? buffer_of(a.qkv, a.qkv_size, use)
                   : segment == O_ROWS ? buffer_of(a.o, a.hidden_size, use)
                                       : buffer_of(a.down, a.hidden_size, use);
    publish_rows(b, segment, to, mark, parity);
    if (segment == QKV_ROWS)
        attention_step(b, layer, to, gamma, scale);
    return (segment == O_ROWS ? gamma[O] : gamma[DOWN]) / scale;
}

template <class Ring> __device__ __forceinline__ float all_layers(Ring &ring, const block &b)
{
    float factor = 0;
#pragma unroll 1
    for (uint32_t step = 0; step < b.a.n_layers * 4; step++)
        factor = product_step(ring, b, step / 4, step % 4, factor);
    return factor;
}

template <class Ring> __device__ void output_block(Ring &ring, const block &b, float down_factor)
{
    const decode_args &a = b.a;
    const uint32_t use = a.use + a.n_layers - 1;
    const input in = {buffer_of(a.down, a.hidden_size, use),
                      mark_of(use),
                      a.hidden,
                      a.final_norm,
                      true,
                      down_factor};
    output_layer(ring, b, in);
}

__device__ block find_block(const decode_args &a, uint8_t *shared, small_shared *small)
{
    return {a,
            reinterpret_cast<float *>(shared + a.x_at),
            reinterpret_cast<float *>(shared + a.y_at),
            reinterpret_cast<int8_t *>(shared + a.quantized_at),
            reinterpret_cast<int *>(shared + a.tiles_at),
            reinterpret_cast<float *>(shared + a.angles_at),
            small,
            threadIdx.x / WARP,
            threadIdx.x % WARP,
            find_chunk_lane()};
}

template <int SLOTS>
__global__ void __launch_bounds__(THREADS, 1) decode(const __grid_constant__ decode_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    __shared__ small_shared small;
    const block b = find_block(a, shared, &small);
    deal(b);
    __syncthreads();
    weight_ring<SLOTS> ring(b, shared);
    start(b);
    output_block(ring, b, all_layers(ring, b));
}
} // namespace

// --- the host's side ---

struct bnt_cuda_decoder {
    decode_args args;
    void (*kernel)(decode_args);
    uint32_t blocks, shared_bytes;
    segment_args output, output_int8; // the latter all zero where it is not to be used
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
    g.pieces = (g.tile_bytes + PIECE_BYTES - 1) / PIECE_BYTES;
    g.units = n_tiles;
    return g;
}

static segment_args output_segment(const void *rows, uint32_t row_bytes, uint32_t vocab)
{
    segment_args g = {};
    g.base = static_cast<const uint8_t *>(rows);
    g.tile_bytes = row_bytes;
    g.pieces = (row_bytes + PIECE_BYTES - 1) / PIECE_BYTES;
    g.units = vocab;
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
    a->row_bytes = h->hidden_size * (m->wide ? 4 : 2);
    g[OUTPUT_ROWS] = output_segment(m->output, a->row_bytes, h->vocab_size);
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
    a->matrix = static_cast<const uint8_t *>(m->output);
    a->output_scale = m->output_int8_scale;
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

// Lays out shared memory behind the ring; returns its size.
static uint64_t plan_shared(decode_args *a, uint32_t ring_bytes, uint32_t blocks)
{
    uint64_t widest = max_u32(max_u32(a->hidden, a->q_size), a->ffn);
    uint64_t output = bnt_cuda_pad(a->hidden / 4, 4) * 4ull +
                      (uint64_t)a->segments[OUTPUT_ROWS].pieces * 2 * WARP * (a->wide ? 4 : 8);
    uint64_t attention = HEADS * (a->cache_row + POSITIONS) + (uint64_t)WARPS * a->dim;
    uint64_t y = widest > output ? widest : output;
    y = y > attention ? y : attention;
    uint64_t most = 0;
    for (int i = 0; i < OUTPUT_ROWS; i++)
        most = max_u32((uint32_t)most, a->segments[i].units / blocks * 2 + 2);
    uint64_t at = bnt_cuda_pad(ring_bytes, 128);
    a->x_at = (uint32_t)at;
    at += (uint64_t)bnt_cuda_pad(a->hidden, 4) * sizeof(float);
    a->y_at = (uint32_t)at;
    at += (y + 3) / 4 * 16;
    a->quantized_at = (uint32_t)at;
    at += (widest + PIECE_COLS - 1) / PIECE_COLS * PIECE_COLS;
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

static const struct variant {
    uint32_t slots;
    void (*kernel)(decode_args);
} variants[] = {{10, decode<10>}, {8, decode<8>}, {6, decode<6>}, {4, decode<4>}, {2, decode<2>}};

// The longest ring that fits.
static bool choose_kernel(struct bnt_cuda_decoder *d, const struct bnt_cuda_model *m)
{
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        uint64_t bytes = plan_shared(&d->args, variants[i].slots * WARPS * RING_SLOT, d->blocks);
        if (bytes + sizeof(small_shared) > m->info.shared_bytes)
            continue;
        d->kernel = variants[i].kernel;
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
    a->part_size =
        bnt_cuda_pad(a->n_kv_heads * a->subgroups * a->splits * (HEADS * a->dim + 2 * HEADS), 4);
    a->att_size = bnt_cuda_pad(a->q_size, 16);
    a->hidden_size = bnt_pad_rows(a->hidden);
    a->ffn_size = bnt_pad_rows(a->ffn);
    uint32_t **const vectors[] = {&a->qkv, &a->part, &a->att, &a->o, &a->activated, &a->down};
    const uint32_t sizes[] = {a->qkv_size,    a->part_size, a->att_size,
                              a->hidden_size, a->ffn_size,  a->hidden_size};
    size_t words = 0;
    for (size_t i = 0; i < 6; i++)
        words += 2 * (size_t)bnt_cuda_pad(sizes[i], 32);
    size_t extra = d->blocks * (sizeof(unsigned long long) + 2 * sizeof(uint32_t)) + 256;
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
    a->bounds = reinterpret_cast<uint32_t *>(a->block_best + d->blocks);
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

static void plan_output(struct bnt_cuda_decoder *d, const struct bnt_cuda_session *s)
{
    const struct bnt_hyper *h = &s->model->hyper;
    d->output = d->args.segments[OUTPUT_ROWS];
    if (s->model->output_int8 && !s->full_output && h->hidden_size % 16 == 0 &&
        2 * d->blocks <= MAX_BOUNDS) {
        d->output_int8 = output_segment(s->model->output_int8, h->hidden_size, h->vocab_size);
        d->output_int8.shift = d->output.shift;
    }
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
    plan_output(d, s);
    cudaError_t error = cudaFuncSetAttribute(d->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)d->shared_bytes);
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

uint32_t bnt_cuda_longest_shortlist(const struct bnt_cuda_decoder *d)
{
    return d->output_int8.base ? 2 * d->blocks : 0;
}

cudaError_t bnt_cuda_decode(struct bnt_cuda_decoder *d, uint32_t token, uint32_t position,
                            uint32_t shortlist, float *logits, uint32_t *best)
{
    decode_args args = d->args;
    args.token = token;
    args.position = position;
    args.shortlist = shortlist;
    args.segments[OUTPUT_ROWS] = shortlist ? d->output_int8 : d->output;
    args.logits = logits;
    args.best = best;
    void *list[] = {&args};
    cudaError_t error = cudaLaunchCooperativeKernel(
        (const void *)d->kernel, dim3(d->blocks), dim3(THREADS), list, d->shared_bytes, d->stream);
    if (error == cudaSuccess) {
        d->args.use += args.n_layers;
        d->args.bounds_use += shortlist > 0;
    }
    return error;
}
