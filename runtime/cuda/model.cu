// SPDX-License-Identifier: MIT
// A model on the device: the file's bytes as they lie, and where in them everything is.
#include <stdlib.h>

#include "runtime/cuda/session.cuh"

static const void *tensor(const struct bnt_cuda_model *m, const struct bnt_view *view,
                          enum bnt_role role, int32_t layer)
{
    const struct bnt_tensor_record *t = bnt_view_tensor(view, role, layer);
    return t ? m->file + t->offset : NULL;
}

static const float *floats(const struct bnt_cuda_model *m, const struct bnt_view *view,
                           enum bnt_role role, int32_t layer)
{
    return static_cast<const float *>(tensor(m, view, role, layer));
}

static struct bnt_cuda_matrix matrix(const struct bnt_cuda_model *m, const struct bnt_view *view,
                                     enum bnt_role role, int32_t layer)
{
    const struct bnt_tensor_record *t = bnt_view_tensor(view, role, layer);
    struct bnt_cuda_matrix to = {};
    to.blocks = static_cast<const uint32_t *>(tensor(m, view, role, layer));
    to.rows = t->rows;
    to.cols = t->cols;
    to.scale = t->scale;
    if (m->hyper.scale_group) {
        to.scales = m->file + t->scale_offset;
        to.n_groups = bnt_row_groups(&m->hyper, t->cols);
        to.group_blocks = m->hyper.scale_group / BNT_BLOCK_COLS;
        to.halves = m->hyper.scale_dtype == BNT_F16;
    }
    return to;
}

// One of a layer, with what belongs to it.
static struct bnt_cuda_matrix linear(const struct bnt_cuda_model *m, const struct bnt_view *view,
                                     enum bnt_role role, int32_t layer)
{
    struct bnt_cuda_matrix to = matrix(m, view, role, layer);
    const int i = (int)role - BNT_ATTN_Q;
    to.bias = floats(m, view, (enum bnt_role)(BNT_ATTN_Q_BIAS + i), layer);
    to.norm = floats(m, view, (enum bnt_role)(BNT_ATTN_Q_LINEAR_NORM + i), layer);
    return to;
}

static void bind_layer(struct bnt_cuda_layer *layer, const struct bnt_cuda_model *m,
                       const struct bnt_view *view, int32_t i)
{
    layer->attn_norm = floats(m, view, BNT_ATTN_NORM, i);
    layer->attn_sub_norm = floats(m, view, BNT_ATTN_SUB_NORM, i);
    layer->ffn_norm = floats(m, view, BNT_FFN_NORM, i);
    layer->ffn_sub_norm = floats(m, view, BNT_FFN_SUB_NORM, i);
    layer->q_norm = floats(m, view, BNT_ATTN_Q_NORM, i);
    layer->k_norm = floats(m, view, BNT_ATTN_K_NORM, i);
    layer->q = linear(m, view, BNT_ATTN_Q, i);
    layer->k = linear(m, view, BNT_ATTN_K, i);
    layer->v = linear(m, view, BNT_ATTN_V, i);
    layer->o = linear(m, view, BNT_ATTN_O, i);
    layer->gate = linear(m, view, BNT_FFN_GATE, i);
    layer->up = linear(m, view, BNT_FFN_UP, i);
    layer->down = linear(m, view, BNT_FFN_DOWN, i);
}

static void bind(struct bnt_cuda_model *m, const struct bnt_view *view)
{
    for (uint32_t i = 0; i < m->hyper.n_layers; i++)
        bind_layer(&m->layers[i], m, view, (int32_t)i);
    m->final_norm = floats(m, view, BNT_FINAL_NORM, BNT_NO_LAYER);
    if (m->hyper.flags & BNT_HYPER_TERNARY_EMBEDDING)
        m->embedding_ternary = matrix(m, view, BNT_TOKEN_EMBEDDING, BNT_NO_LAYER);
    else
        m->embedding = tensor(m, view, BNT_TOKEN_EMBEDDING, BNT_NO_LAYER);
    const bool tied = m->hyper.flags & BNT_HYPER_TIED;
    if (bnt_output_is_ternary(&m->hyper))
        m->output_ternary = tied ? m->embedding_ternary : matrix(m, view, BNT_OUTPUT, BNT_NO_LAYER);
    else
        m->output = tied ? m->embedding : tensor(m, view, BNT_OUTPUT, BNT_NO_LAYER);
    m->output_int8 = static_cast<const int8_t *>(tensor(m, view, BNT_OUTPUT_INT8, BNT_NO_LAYER));
    m->output_int8_scale = floats(m, view, BNT_OUTPUT_INT8_SCALE, BNT_NO_LAYER);
    m->wide = m->hyper.flags & BNT_HYPER_F32_EMBEDDINGS;
}

static enum bnt_status upload(struct bnt_cuda_model *m, const struct bnt_view *view,
                              struct bnt_error *err)
{
    cudaError_t error = cudaMalloc(&m->file, view->size);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "allocating memory for the model");
    error = cudaMemcpy(m->file, view->data, view->size, cudaMemcpyHostToDevice);
    if (error != cudaSuccess)
        return bnt_cuda_fail(err, error, "uploading the model");
    return BNT_OK;
}

enum bnt_status bnt_cuda_model_open(const struct bnt_view *view, int device,
                                    struct bnt_cuda_model **model, struct bnt_error *err)
{
    *model = NULL;
    struct bnt_cuda_model *m = static_cast<struct bnt_cuda_model *>(calloc(1, sizeof *m));
    if (!m)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    m->hyper = view->hyper;
    m->layers = static_cast<struct bnt_cuda_layer *>(calloc(m->hyper.n_layers, sizeof *m->layers));
    enum bnt_status status = m->layers ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (status == BNT_OK)
        status = bnt_cuda_use(device, &m->device, &m->info, err);
    if (status == BNT_OK)
        status = upload(m, view, err);
    if (status != BNT_OK) {
        bnt_cuda_model_close(m);
        return status;
    }
    bind(m, view);
    *model = m;
    return BNT_OK;
}

void bnt_cuda_model_close(struct bnt_cuda_model *m)
{
    if (!m)
        return;
    (void)cudaFree(m->file);
    free(m->layers);
    free(m);
}
