// SPDX-License-Identifier: MIT
#include "runtime/engine/model.h"

#include <stdlib.h>
#include <string.h>

static void keep_first(void *context, const char *rule, const char *message)
{
    struct bnt_error *first = context;
    if (first->status == BNT_OK)
        (void)bnt_fail(first, BNT_ERR_FORMAT, "%s: %s (bnt-verify tells more)", rule, message);
}

static const void *tensor_data(const struct bnt_model *m, enum bnt_role role, int32_t layer)
{
    const struct bnt_tensor_record *t = bnt_view_tensor(&m->view, role, layer);
    return t ? m->map.data + t->offset : NULL;
}

static struct bnt_matrix bind_matrix(const struct bnt_model *m, enum bnt_role role, int32_t layer)
{
    const struct bnt_tensor_record *t = bnt_view_tensor(&m->view, role, layer);
    struct bnt_matrix matrix = {.blocks = (const void *)(m->map.data + t->offset),
                                .rows = t->rows,
                                .cols = t->cols,
                                .scale = t->scale};
    if (m->hyper.scale_group)
        matrix.scales = (struct bnt_scales){.values = m->map.data + t->scale_offset,
                                            .halves = m->hyper.scale_dtype == BNT_F16,
                                            .n_groups = bnt_row_groups(&m->hyper, t->cols),
                                            .group_blocks = m->hyper.scale_group / BNT_BLOCK_COLS};
    return matrix;
}

// One of a layer, with what belongs to it.
static struct bnt_matrix bind_linear(const struct bnt_model *m, enum bnt_role role, int32_t layer)
{
    struct bnt_matrix matrix = bind_matrix(m, role, layer);
    unsigned i = (unsigned)role - BNT_ATTN_Q;
    matrix.bias = tensor_data(m, (enum bnt_role)(BNT_ATTN_Q_BIAS + i), layer);
    matrix.norm = tensor_data(m, (enum bnt_role)(BNT_ATTN_Q_LINEAR_NORM + i), layer);
    return matrix;
}

static void bind_layer(const struct bnt_model *m, int32_t i, struct bnt_layer *layer)
{
    *layer = (struct bnt_layer){
        .attn_norm = tensor_data(m, BNT_ATTN_NORM, i),
        .attn_sub_norm = tensor_data(m, BNT_ATTN_SUB_NORM, i),
        .ffn_norm = tensor_data(m, BNT_FFN_NORM, i),
        .ffn_sub_norm = tensor_data(m, BNT_FFN_SUB_NORM, i),
        .q_norm = tensor_data(m, BNT_ATTN_Q_NORM, i),
        .k_norm = tensor_data(m, BNT_ATTN_K_NORM, i),
        .q = bind_linear(m, BNT_ATTN_Q, i),
        .k = bind_linear(m, BNT_ATTN_K, i),
        .v = bind_linear(m, BNT_ATTN_V, i),
        .o = bind_linear(m, BNT_ATTN_O, i),
        .gate = bind_linear(m, BNT_FFN_GATE, i),
        .up = bind_linear(m, BNT_FFN_UP, i),
        .down = bind_linear(m, BNT_FFN_DOWN, i),
    };
}

// The small sections steer everything, so their CRCs are checked here; those of the weights are
// bnt-verify's.
static void check_small_sections(const struct bnt_model *m, struct bnt_report *report)
{
    static const uint32_t small[] = {BNT_SECTION_HYPR, BNT_SECTION_TENS, BNT_SECTION_TOKN,
                                     BNT_SECTION_CHAT, BNT_SECTION_CONV, BNT_SECTION_SAMP};
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) {
        const struct bnt_section_record *s = bnt_view_section(&m->view, small[i]);
        if (s)
            (void)bnt_view_check_crc(&m->view, s, report);
    }
}

static enum bnt_status open_view(struct bnt_model *m, struct bnt_error *err)
{
    struct bnt_error first = {.status = BNT_OK};
    struct bnt_report report = {.found = keep_first, .context = &first};
    if (bnt_view_open(&m->view, m->map.data, m->map.size, &report) && report.count == 0)
        check_small_sections(m, &report);
    const struct bnt_section_record *s =
        report.count ? NULL : bnt_view_section(&m->view, BNT_SECTION_TOKN);
    if (s)
        m->has_tokenizer = bnt_tokenizer_view_open(&m->tokenizer, m->map.data + s->offset, s->size,
                                                   m->view.hyper.vocab_size, &report);
    m->has_chat = report.count == 0 && bnt_chat_view_find(&m->chat, &m->view, &report);
    if (report.count && err)
        *err = first;
    return report.count ? BNT_ERR_FORMAT : BNT_OK;
}

static enum bnt_status bind(struct bnt_model *m, struct bnt_error *err)
{
    m->hyper = m->view.hyper;
    m->layers = calloc(m->hyper.n_layers, sizeof m->layers[0]);
    if (!m->layers)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    for (uint32_t i = 0; i < m->hyper.n_layers; i++)
        bind_layer(m, (int32_t)i, &m->layers[i]);
    m->final_norm = tensor_data(m, BNT_FINAL_NORM, BNT_NO_LAYER);
    if (m->hyper.flags & BNT_HYPER_TERNARY_EMBEDDING)
        m->embedding_ternary = bind_matrix(m, BNT_TOKEN_EMBEDDING, BNT_NO_LAYER);
    else
        m->embedding = tensor_data(m, BNT_TOKEN_EMBEDDING, BNT_NO_LAYER);
    m->wide = m->hyper.flags & BNT_HYPER_F32_EMBEDDINGS;
    const bool tied = m->hyper.flags & BNT_HYPER_TIED;
    if (bnt_output_is_ternary(&m->hyper))
        m->output_ternary = tied ? m->embedding_ternary : bind_matrix(m, BNT_OUTPUT, BNT_NO_LAYER);
    else
        m->output = tied ? m->embedding : tensor_data(m, BNT_OUTPUT, BNT_NO_LAYER);
    m->output_int8 = tensor_data(m, BNT_OUTPUT_INT8, BNT_NO_LAYER);
    m->output_scale = tensor_data(m, BNT_OUTPUT_INT8_SCALE, BNT_NO_LAYER);
    return m->has_tokenizer ? bnt_tokenizer_bind(m, err) : BNT_OK;
}

static void describe(struct bnt_model *m)
{
    const struct bnt_hyper *h = &m->hyper;
    m->info = (struct bnt_model_info){
        .file_size = m->map.size,
        .n_layers = h->n_layers,
        .hidden_size = h->hidden_size,
        .ffn_size = h->ffn_size,
        .n_heads = h->n_heads,
        .n_kv_heads = h->n_kv_heads,
        .head_dim = h->head_dim,
        .vocab_size = h->vocab_size,
        .max_context = h->max_context,
        .bos_id = h->bos_id,
        .eos_count = h->eos_count,
        .temperature = h->temperature,
        .top_p = h->top_p,
        .top_k = h->top_k,
        .min_p = m->view.sampling.min_p,
        .repetition_penalty = m->view.sampling.repetition_penalty,
        .presence_penalty = m->view.sampling.presence_penalty,
        .frequency_penalty = m->view.sampling.frequency_penalty,
        .max_new_tokens = m->view.sampling.max_new_tokens,
        .pooling = (enum bnt_pooling)h->pooling,
        .normalized = h->flags & BNT_HYPER_NORMALIZED,
        .has_tokenizer = m->has_tokenizer,
        .kernel = m->kernels->name,
    };
    _Static_assert((int)BNT_MAX_EOS_IDS == (int)BNT_MAX_EOS, "bnt.h has room for the file's ids");
    memcpy(m->info.eos_ids, h->eos_id, sizeof m->info.eos_ids);
}

enum bnt_status bnt_model_open(const char *path, const char *kernel, struct bnt_model **model,
                               struct bnt_error *err)
{
    *model = NULL;
    struct bnt_model *m = calloc(1, sizeof *m);
    if (!m)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    m->upload = bnt_upload_new();
    enum bnt_status status = m->upload ? bnt_kernels_find(kernel, &m->kernels, err)
                                       : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (status == BNT_OK) {
        status = bnt_map_open(&m->map, path, err);
        if (status == BNT_OK) {
            status = open_view(m, err);
            if (status == BNT_OK)
                status = bind(m, err);
            if (status != BNT_OK)
                bnt_fail_prefix(err, path);
        }
    }
    if (status != BNT_OK) {
        bnt_model_close(m);
        return status;
    }
    describe(m);
    *model = m;
    return BNT_OK;
}

void bnt_model_close(struct bnt_model *m)
{
    if (!m)
        return;
    bnt_upload_free(m->upload);
    bnt_tokenizer_unbind(m);
    free(m->layers);
    bnt_map_close(&m->map);
    free(m);
}

const struct bnt_model_info *bnt_model_info(const struct bnt_model *model)
{
    return &model->info;
}
