// SPDX-License-Identifier: MIT
// One token through the whole model: a graph of kernels, five a layer.
//
//     embedding
//     norm, quantization, q k v    rope, attention    norm, quantization, o + residual
//     norm, quantization, gate up, activation         norm, quantization, down + residual
//     norm, output matrix, likeliest token
//
// What takes time in a layer is less its bytes than the ways from one kernel to the next. So there
// are few of them; each starts while the one before works, asks for its weights and computes where
// everything is before it waits; and every block norms and quantizes for itself what it takes in.
//
// Kernels that follow one another must find room on a multiprocessor together, or the later one
// prepares when it should work: that bounds their registers and shared memory. And each should have
// one block on every multiprocessor. Attention leaves some of them empty, and these would get two
// blocks of the product after it, while others get none, and so would the next product; therefore
// the first one asks for so much shared memory that two do not fit.
#include "runtime/cuda/decode.cuh"

#include <stdlib.h>

#include "runtime/cuda/decode_steps.cuh"
#include "runtime/cuda/device.cuh"

enum { ALL_LOGITS, SHORTLIST, GRAPHS };

struct bnt_cuda_decoder {
    const struct bnt_cuda_session *session;
    struct decode_device device;
    bool has_shortlist;
    struct {
        cudaGraph_t graph;    // keeps the node
        cudaGraphExec_t exec; // NULL before its first use
        cudaGraphNode_t embed;
    } graphs[GRAPHS];
    void *memory; // what follows
    struct decode_place *place;
    struct decode_bound *bound;
    unsigned *arrived, *items_arrived;
    unsigned long long *block_best;
    float *bounds, *parts;
};

static struct decode_input input(const struct bnt_cuda_decoder *d, const float *x, uint32_t n,
                                 const float *norm)
{
    return {x, norm, n, 1.0f / (float)n, d->session->model->hyper.norm_eps};
}

static struct decode_product plan_product(const struct bnt_cuda_decoder *d, struct decode_input in,
                                          const struct bnt_cuda_matrix *m, float *out, bool add)
{
    return {in, bnt_cuda_stack(m, out, add), false, d->session->model->hyper.activation_bits == 16};
}

// The four products of a layer.
struct layer_products {
    struct decode_product qkv, o, gate_up, down;
};

static struct layer_products plan_layer(const struct bnt_cuda_decoder *d, uint32_t i)
{
    const struct bnt_cuda_session *s = d->session;
    const struct bnt_hyper *h = &s->model->hyper;
    const struct bnt_cuda_layer *layer = &s->model->layers[i];
    struct layer_products p = {
        plan_product(d, input(d, s->x, h->hidden_size, layer->attn_norm), &layer->q, s->q, false),
        plan_product(d, input(d, s->att, bnt_q_size(h), layer->attn_sub_norm), &layer->o, s->x,
                     true),
        plan_product(d, input(d, s->x, h->hidden_size, layer->ffn_norm), &layer->gate, s->up,
                     false),
        plan_product(d, input(d, s->up, h->ffn_size, layer->ffn_sub_norm), &layer->down, s->x,
                     true)};
    bnt_cuda_add_part(&p.qkv.product, &layer->k, s->k);
    bnt_cuda_add_part(&p.qkv.product, &layer->v, s->v);
    p.o.alone = true;
    bnt_cuda_add_part(&p.gate_up.product, &layer->up, NULL);
    p.gate_up.product.gated = true;
    p.gate_up.product.activation = h->activation;
    return p;
}

static struct decode_product plan_ternary_output(const struct bnt_cuda_decoder *d)
{
    const struct bnt_cuda_session *s = d->session;
    return plan_product(d, input(d, s->x, s->model->hyper.hidden_size, s->model->final_norm),
                        &s->model->output_ternary, s->logits, false);
}

static struct decode_attention plan_attention(const struct bnt_cuda_decoder *d, uint32_t i)
{
    const struct bnt_cuda_session *s = d->session;
    struct decode_attention attention = {};
    attention.q = s->q;
    attention.k = s->k;
    attention.v = s->v;
    attention.angles = s->angles;
    attention.cache = bnt_cuda_session_cache(s, i);
    attention.heads = bnt_cuda_session_heads(s);
    attention.att = s->att;
    attention.place = d->place;
    attention.q_norm = s->model->layers[i].q_norm;
    attention.k_norm = s->model->layers[i].k_norm;
    attention.norm_eps = s->model->hyper.norm_eps;
    attention.parts = d->parts;
    attention.arrived = d->items_arrived;
    return attention;
}

static cudaError_t launch_layer(const struct bnt_cuda_decoder *d, uint32_t i)
{
    cudaStream_t stream = d->session->stream;
    const struct layer_products p = plan_layer(d, i);
    const struct decode_attention attention = plan_attention(d, i);
    struct decode_device device = d->device;
    device.is_early = device.is_early && i > 0; // waits for all of the embedding, and *place
    cudaError_t error = decode_product_launch(&p.qkv, &device, stream);
    if (error == cudaSuccess)
        error = decode_attention_launch(&attention, &d->device, stream);
    for (const struct decode_product *next : {&p.o, &p.gate_up, &p.down})
        error = error == cudaSuccess ? decode_product_launch(next, &d->device, stream) : error;
    return error;
}

static struct decode_output plan_output(const struct bnt_cuda_decoder *d, uint32_t *best)
{
    const struct bnt_cuda_session *s = d->session;
    const struct bnt_hyper *h = &s->model->hyper;
    struct decode_output output = {};
    output.in = input(d, s->x, h->hidden_size, s->model->final_norm);
    output.matrix = static_cast<const uint8_t *>(s->model->output);
    output.wide = s->model->wide;
    output.vocab = h->vocab_size;
    output.logits = s->logits;
    output.best = best;
    output.block_best = d->block_best;
    output.arrived = d->arrived;
    return output;
}

static cudaError_t launch_output(const struct bnt_cuda_decoder *d, int which, uint32_t *best)
{
    const struct bnt_cuda_session *s = d->session;
    const struct decode_output output = plan_output(d, best);
    if (s->model->output_ternary.blocks) {
        const struct decode_product product = plan_ternary_output(d);
        cudaError_t error = decode_product_launch(&product, &d->device, s->stream);
        return error == cudaSuccess ? decode_best_launch(&output, &d->device, s->stream) : error;
    }
    if (which == ALL_LOGITS)
        return decode_output_launch(&output, &d->device, s->stream);
    struct decode_shortlist shortlist = {};
    shortlist.output = output;
    shortlist.int8 = s->model->output_int8;
    shortlist.scale = s->model->output_int8_scale;
    shortlist.place = d->place;
    shortlist.normed = s->normed;
    shortlist.bounds = d->bounds;
    shortlist.bound = d->bound;
    return decode_shortlist_launch(&shortlist, &d->device, s->stream);
}

static struct decode_embed plan_embed(const struct bnt_cuda_decoder *d, uint32_t token,
                                      struct decode_place here)
{
    const struct bnt_cuda_session *s = d->session;
    return {s->model->embedding,
            s->model->wide,
            s->model->hyper.hidden_size,
            token,
            here,
            s->x,
            d->place,
            s->frequency,
            s->angles,
            s->model->hyper.head_dim,
            bnt_cuda_angle_factor(&s->model->hyper),
            bnt_cuda_rows_of(&s->model->embedding_ternary)};
}

static cudaError_t launch_all(const struct bnt_cuda_decoder *d, int which, uint32_t *best)
{
    const struct decode_embed embed = plan_embed(d, 0, {});
    cudaError_t error = decode_embed_launch(&embed, d->session->stream);
    for (uint32_t i = 0; i < d->session->model->hyper.n_layers && error == cudaSuccess; i++) {
        error = launch_layer(d, i);
    }
    return error == cudaSuccess ? launch_output(d, which, best) : error;
}

static cudaError_t make_graph(struct bnt_cuda_decoder *d, int which, uint32_t *best)
{
    cudaStream_t stream = d->session->stream;
    cudaGraph_t *graph = &d->graphs[which].graph;
    cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess)
        return error;
    error = launch_all(d, which, best);
    cudaError_t end = cudaStreamEndCapture(stream, graph);
    error = error == cudaSuccess ? end : error;
    size_t roots = 1;
    if (error == cudaSuccess)
        error = cudaGraphGetRootNodes(*graph, &d->graphs[which].embed, &roots);
    if (error == cudaSuccess)
        error = cudaGraphInstantiate(&d->graphs[which].exec, *graph, 0);
    if (error != cudaSuccess && *graph) {
        (void)cudaGraphDestroy(*graph);
        *graph = NULL;
    }
    return error;
}

// Whether the graph's kernels can do it: one product may have one norm before it, and each finds
// room on a multiprocessor.
static bool fits(const struct bnt_cuda_decoder *d)
{
    const struct bnt_hyper *h = &d->session->model->hyper;
    const struct decode_device *device = &d->device;
    if (h->flags & BNT_HYPER_LINEAR_NORMS || h->head_dim > 2 * h->hidden_size ||
        h->hidden_size % 8 || h->ffn_size % 4 ||
        !decode_attention_fits(bnt_cuda_session_heads(d->session), h->flags & BNT_HYPER_QK_NORMS,
                               device))
        return false;
    const struct layer_products p = plan_layer(d, 0);
    for (const struct decode_product *product : {&p.qkv, &p.o, &p.gate_up, &p.down})
        if (!decode_product_fits(product, device))
            return false;
    if (!bnt_output_is_ternary(h))
        return decode_output_fits(h->hidden_size, device);
    const struct decode_product output = plan_ternary_output(d);
    return decode_product_fits(&output, device);
}

// Takes room for count elements of a type out of memory that is laid out from at on.
template <class T> static void take_room(size_t *at, uint8_t *memory, T **to, size_t count)
{
    *to = reinterpret_cast<T *>(memory + *at);
    *at += (count * sizeof(T) + 255) / 256 * 256;
}

// Lays out the memory; returns its size.
static size_t lay_out(struct bnt_cuda_decoder *d, uint8_t *memory)
{
    const struct bnt_cuda_heads heads = bnt_cuda_session_heads(d->session);
    const size_t blocks = decode_output_blocks(&d->device);
    size_t at = 0;
    take_room(&at, memory, &d->place, 1);
    take_room(&at, memory, &d->bound, 1);
    take_room(&at, memory, &d->arrived, 1);
    take_room(&at, memory, &d->items_arrived, decode_attention_items(heads));
    take_room(&at, memory, &d->block_best, blocks);
    take_room(&at, memory, &d->bounds, 2 * blocks);
    take_room(&at, memory, &d->parts, decode_attention_parts(heads, &d->device));
    return at;
}

static cudaError_t allocate(struct bnt_cuda_decoder *d)
{
    const size_t size = lay_out(d, NULL);
    cudaError_t error = cudaMalloc(&d->memory, size);
    if (error != cudaSuccess)
        return error;
    (void)lay_out(d, static_cast<uint8_t *>(d->memory));
    return cudaMemsetAsync(d->memory, 0, size, d->session->stream);
}

cudaError_t decode_find_device(struct decode_device *device)
{
    int processors, block, processor;
    cudaError_t error = find_attribute(cudaDevAttrMultiProcessorCount, &processors);
    if (error == cudaSuccess)
        error = find_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, &block);
    if (error == cudaSuccess)
        error = find_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, &processor);
    if (error == cudaSuccess)
        error = bnt_cuda_can_start_early(&device->is_early);
    if (error != cudaSuccess)
        return error;
    device->processors = (uint32_t)processors;
    device->shared_bytes = (uint32_t)block;
    device->processor_shared_bytes = (uint32_t)processor;
    return decode_attention_find_cluster(device, &device->most_clustered);
}

enum bnt_status bnt_cuda_decoder_open(const struct bnt_cuda_session *s,
                                      struct bnt_cuda_decoder **decoder, struct bnt_error *err)
{
    *decoder = NULL;
    const struct bnt_cuda_model *m = s->model;
    struct bnt_cuda_decoder *d = static_cast<struct bnt_cuda_decoder *>(calloc(1, sizeof *d));
    if (!d)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    d->session = s;
    cudaError_t error = decode_find_device(&d->device);
    if (error == cudaSuccess && !fits(d)) {
        bnt_cuda_decoder_close(d);
        return BNT_OK;
    }
    d->has_shortlist = m->output_int8 && !s->full_output &&
                       decode_shortlist_fits(m->hyper.hidden_size, &d->device);
    error = error == cudaSuccess ? allocate(d) : error;
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
    for (int i = 0; i < GRAPHS; i++) {
        if (d->graphs[i].exec)
            (void)cudaGraphExecDestroy(d->graphs[i].exec);
        if (d->graphs[i].graph)
            (void)cudaGraphDestroy(d->graphs[i].graph);
    }
    (void)cudaFree(d->memory);
    free(d);
}

uint32_t bnt_cuda_longest_shortlist(const struct bnt_cuda_decoder *d)
{
    return d->has_shortlist ? 2 * decode_output_blocks(&d->device) : 0;
}

cudaError_t bnt_cuda_decode(struct bnt_cuda_decoder *d, uint32_t token, uint32_t position,
                            uint32_t shortlist, uint32_t *best)
{
    const int which = shortlist ? SHORTLIST : ALL_LOGITS;
    cudaError_t error = d->graphs[which].exec ? cudaSuccess : make_graph(d, which, best);
    if (error != cudaSuccess)
        return error;
    const struct decode_embed embed = plan_embed(d, token, {position, shortlist});
    error = decode_embed_update(d->graphs[which].exec, d->graphs[which].embed, &embed);
    return error == cudaSuccess ? cudaGraphLaunch(d->graphs[which].exec, d->session->stream)
                                : error;
}
