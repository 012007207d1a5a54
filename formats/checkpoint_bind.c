// SPDX-License-Identifier: MIT
// Finding in the checkpoint every tensor that its config calls for, and nothing else.
#include "formats/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/text.h"

struct named_tensor {
    const char *name; // the tensor's own, without what wrappers put before it
    const struct bnt_st_tensor *tensor;
    const struct bnt_shard *shard;
    const uint8_t *data;
    bool used;
};

struct finder {
    struct bnt_checkpoint *checkpoint;
    struct named_tensor *all; // ascending by name
    size_t count;
    bool of_base_model; // names lack the "model." of the model with its output layer
    struct bnt_error *err;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct named_tensor *)a)->name, ((const struct named_tensor *)b)->name);
}

static enum bnt_status list_tensors(struct finder *f)
{
    struct bnt_checkpoint *c = f->checkpoint;
    for (size_t i = 0; i < c->n_shards; i++)
        f->count += c->shards[i].header.count;
    f->all = calloc(f->count + 1, sizeof f->all[0]);
    if (!f->all)
        return bnt_fail(f->err, BNT_ERR_MEMORY, "out of memory");
    size_t n = 0;
    for (size_t i = 0; i < c->n_shards; i++) {
        const struct bnt_shard *shard = &c->shards[i];
        for (size_t j = 0; j < shard->header.count; j++) {
            const struct bnt_st_tensor *t = &shard->header.tensors[j];
            f->all[n++] = (struct named_tensor){
                .name = t->name, .tensor = t, .shard = shard, .data = shard->data + t->begin};
        }
    }
    return BNT_OK;
}

// --- names ---

static const char base[] = "model.";

// What torch.compile, data parallelism and models around the model leave before a name.
static size_t wrapper_size(const char *name)
{
    static const char *const wrappers[] = {"_orig_mod.", "module.", "_fsdp_wrapped_module.",
                                           "language_model.", base};
    for (size_t i = 0; i < sizeof wrappers / sizeof wrappers[0]; i++) {
        if (bnt_starts_with(name, wrappers[i]))
            return strlen(wrappers[i]);
    }
    return 0;
}

// How much of the name stands before the ending, if that is wrappers alone; otherwise −1.
static int wrapped_size(const char *name, const char *ending)
{
    if (!bnt_ends_with(name, ending))
        return -1;
    size_t before = strlen(name) - strlen(ending), at = 0;
    for (size_t step = 1; at < before && step > 0; at += step)
        step = wrapper_size(name + at);
    return at == before ? (int)at : -1;
}

// The shortest way in which a tensor is named with this ending, or −1.
static int find_wrapped(const struct finder *f, const char *ending)
{
    int least = -1;
    for (size_t i = 0; i < f->count; i++) {
        int size = wrapped_size(f->all[i].name, ending);
        if (size >= 0 && (least < 0 || size < least))
            least = size;
    }
    return least;
}

// Passes over the wrappers that all names begin with. The embedding tells them: every model has it.
static void strip_wrappers(struct finder *f)
{
    char embedding[BNT_TENSOR_NAME_SIZE];
    bnt_arch_tensor_name(f->checkpoint->config.arch, BNT_TOKEN_EMBEDDING, BNT_NO_LAYER, embedding);
    int size = find_wrapped(f, embedding);
    if (size < 0 && bnt_starts_with(embedding, base)) {
        size = find_wrapped(f, embedding + strlen(base));
        f->of_base_model = size >= 0;
    }
    for (size_t i = 0; i < f->count && size > 0; i++) {
        if (strncmp(f->all[i].name, f->all[0].name, (size_t)size) != 0)
            size = 0;
    }
    for (size_t i = 0; i < f->count && size > 0; i++)
        f->all[i].name += size;
}

static bool same_tensor(const struct named_tensor *a, const struct named_tensor *b)
{
    const struct bnt_st_tensor *x = a->tensor, *y = b->tensor;
    return x->dtype == y->dtype && x->rank == y->rank &&
           memcmp(x->shape, y->shape, sizeof x->shape) == 0 && x->size == y->size &&
           strcmp(x->type_name, y->type_name) == 0 && memcmp(a->data, b->data, x->size) == 0;
}

// Sorts by name. A tensor may lie in two shards if it is the same in both.
static enum bnt_status sort_tensors(struct finder *f)
{
    size_t kept = 0;
    qsort(f->all, f->count, sizeof f->all[0], compare_names);
    for (size_t i = 0; i < f->count; i++) {
        const struct named_tensor *last = kept ? &f->all[kept - 1] : NULL;
        if (!last || strcmp(last->name, f->all[i].name) != 0)
            f->all[kept++] = f->all[i];
        else if (!same_tensor(last, &f->all[i]))
            return bnt_fail(
                f->err, BNT_ERR_FORMAT, "%s: tensor %s is in %s and, with other values, in %s",
                f->checkpoint->dir, last->name, last->shard->name, f->all[i].shard->name);
    }
    f->count = kept;
    return BNT_OK;
}

// The tensor of that name, marked as used, or NULL.
static struct named_tensor *find(struct finder *f, const char *name)
{
    bool shorter = f->of_base_model && bnt_starts_with(name, base);
    const struct named_tensor key = {.name = shorter ? name + strlen(base) : name};
    struct named_tensor *found = bsearch(&key, f->all, f->count, sizeof key, compare_names);
    if (found)
        found->used = true;
    return found;
}

// --- missing tensors ---

// What both names begin and end with.
static size_t similarity(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), begin = 0, end = 0;
    size_t least = n < m ? n : m;
    while (begin < least && a[begin] == b[begin])
        begin++;
    while (end < least - begin && a[n - end - 1] == b[m - end - 1])
        end++;
    return begin + end;
}

static void scale_name(char out[BNT_TENSOR_NAME_SIZE + 8], const char *name)
{
    (void)snprintf(out, BNT_TENSOR_NAME_SIZE + 8, "%s_scale", name);
}

// What other tensors are called is no help.
static void mark_expected(struct finder *f)
{
    const struct bnt_config *config = &f->checkpoint->config;
    struct bnt_layout_walk walk = bnt_layout_walk(&config->hyper, false);
    struct bnt_tensor_place place;
    while (bnt_layout_next(&walk, &place)) {
        char name[BNT_TENSOR_NAME_SIZE], scale[BNT_TENSOR_NAME_SIZE + 8];
        bnt_arch_tensor_name(config->arch, place.role, place.layer, name);
        scale_name(scale, name);
        (void)find(f, name);
        (void)find(f, scale);
    }
}

static const char *most_similar(struct finder *f, const char *name)
{
    struct named_tensor *best = NULL;
    size_t most = strlen(name) / 3;
    for (size_t i = 0; i < f->count; i++) {
        size_t score = f->all[i].used ? 0 : similarity(f->all[i].tensor->name, name);
        if (score > most) {
            most = score;
            best = &f->all[i];
        }
    }
    if (best)
        best->used = true;
    return best ? best->tensor->name : NULL;
}

static enum bnt_status missing(struct finder *f, const char *name)
{
    mark_expected(f);
    const char *first = most_similar(f, name);
    const char *second = first ? most_similar(f, name) : NULL;
    return bnt_fail(f->err, BNT_ERR_FORMAT, "%s: tensor %s is missing%s%.100s%s%.100s",
                    f->checkpoint->dir, name, first ? "; similar names here: " : "",
                    first ? first : "", second ? ", " : "", second ? second : "");
}

// --- types and shapes ---

static enum bnt_status wrong_type(struct finder *f, const struct bnt_st_tensor *t,
                                  const char *expected)
{
    return bnt_fail(f->err, BNT_ERR_UNSUPPORTED, "%s: tensor %s is %s, must be %s",
                    f->checkpoint->dir, t->name, t->type_name, expected);
}

static bool is_float(const struct bnt_st_tensor *t)
{
    return t->dtype == BNT_ST_BF16 || t->dtype == BNT_ST_F16 || t->dtype == BNT_ST_F32;
}

// rank 1: [cols]; rank 2: [rows, cols].
static enum bnt_status check_shape(struct finder *f, const struct bnt_st_tensor *t, unsigned rank,
                                   uint64_t rows, uint64_t cols)
{
    if (t->rank == rank && t->shape[rank - 1] == cols && (rank == 1 || t->shape[0] == rows))
        return BNT_OK;
    char shape[BNT_ST_MAX_RANK * 22 + 1] = "";
    size_t used = 0;
    for (unsigned i = 0; i < t->rank; i++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, i ? ", " : "",
                                 t->shape[i]);
    char expected[48];
    if (rank == 1)
        (void)snprintf(expected, sizeof expected, "%" PRIu64, cols);
    else
        (void)snprintf(expected, sizeof expected, "%" PRIu64 ", %" PRIu64, rows, cols);
    return bnt_fail(f->err, BNT_ERR_FORMAT,
                    "%s: tensor %s has shape [%s], the config asks for [%s]", f->checkpoint->dir,
                    t->name, shape, expected);
}

// γ of a matrix that is stored with one.
static enum bnt_status bind_scale(struct finder *f, struct bnt_source *source)
{
    char name[BNT_TENSOR_NAME_SIZE + 8];
    scale_name(name, source->name);
    const struct named_tensor *scale = find(f, name);
    if (!scale)
        return missing(f, name);
    if (!is_float(scale->tensor))
        return wrong_type(f, scale->tensor, "BF16, F16 or F32");
    if (scale->tensor->count != 1)
        return check_shape(f, scale->tensor, 1, 1, 1);
    const struct bnt_source as_source = {.tensor = scale->tensor};
    source->weight_scale = bnt_float_load(bnt_source_float_type(&as_source), scale->data, 0);
    return BNT_OK;
}

// A matrix that is ternary already, U8 [rows/4, cols], and its weight_scale. autobitlinear may also
// have it as floats.
static enum bnt_status bind_packed(struct finder *f, struct bnt_source *source)
{
    const struct bnt_st_tensor *t = source->tensor;
    uint32_t rows = source->place.rows;
    source->unpacked = f->checkpoint->config.form == BNT_FORM_PACKED_MULTIPLY && is_float(t);
    if (!source->unpacked && t->dtype != BNT_ST_U8)
        return wrong_type(f, t, "U8 (the config says that its weights are packed)");
    if (!source->unpacked && rows % 4 != 0)
        return bnt_fail(f->err, BNT_ERR_UNSUPPORTED,
                        "%s: tensor %s: packed weights of %" PRIu32 " rows, no multiple of 4",
                        f->checkpoint->dir, t->name, rows);
    enum bnt_status status =
        check_shape(f, t, 2, source->unpacked ? rows : rows / 4, source->place.cols);
    return status == BNT_OK ? bind_scale(f, source) : status;
}

// Microsoft's embedding models call the norm before a linear norm.weight, not rms_norm.weight.
static void other_norm_name(char out[BNT_TENSOR_NAME_SIZE], const struct bnt_arch *arch,
                            enum bnt_role role, int32_t layer)
{
    bnt_arch_tensor_name(arch, role, layer, out);
    char *rms = strstr(out, "_proj.rms_norm.");
    if (rms) {
        rms += strlen("_proj.");
        memmove(rms, rms + strlen("rms_"), strlen(rms + strlen("rms_")) + 1);
    }
}

static enum bnt_status bind(struct finder *f, struct bnt_source *source)
{
    const struct bnt_arch *arch = f->checkpoint->config.arch;
    char other[BNT_TENSOR_NAME_SIZE];
    bnt_arch_tensor_name(arch, source->place.role, source->place.layer, source->name);
    other_norm_name(other, arch, source->place.role, source->place.layer);
    const struct named_tensor *found = find(f, source->name);
    if (!found)
        found = find(f, other);
    if (!found)
        return missing(f, source->name);
    source->tensor = found->tensor;
    source->data = found->data;
    if (source->place.dtype == BNT_TERNARY && f->checkpoint->config.form != BNT_FORM_MASTERS)
        return bind_packed(f, source);
    if (!is_float(found->tensor))
        return wrong_type(f, found->tensor, "BF16, F16 or F32");
    unsigned rank = source->place.section == BNT_SECTION_NORM ? 1 : 2;
    return check_shape(f, found->tensor, rank, source->place.rows, source->place.cols);
}

static struct named_tensor *find_role(struct finder *f, enum bnt_role role, int32_t layer)
{
    char name[BNT_TENSOR_NAME_SIZE];
    bnt_arch_tensor_name(f->checkpoint->config.arch, role, layer, name);
    return find(f, name);
}

// Embeddings are kept exactly: as bf16 if all of the checkpoint's are, otherwise as f32, which
// holds every f16 and f32.
static void choose_embedding_type(struct finder *f)
{
    static const enum bnt_role roles[] = {BNT_TOKEN_EMBEDDING, BNT_OUTPUT};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        const struct named_tensor *found = find_role(f, roles[i], BNT_NO_LAYER);
        if (found && found->tensor->dtype != BNT_ST_BF16)
            f->checkpoint->config.hyper.flags |= BNT_HYPER_F32_EMBEDDINGS;
    }
}

// Some tied checkpoints repeat the embedding as lm_head; a different one would contradict the
// config.
static enum bnt_status check_tied_output(struct finder *f)
{
    const struct named_tensor *output = find_role(f, BNT_OUTPUT, BNT_NO_LAYER);
    const struct named_tensor *embedding = find_role(f, BNT_TOKEN_EMBEDDING, BNT_NO_LAYER);
    if (!output || !embedding || !(f->checkpoint->config.hyper.flags & BNT_HYPER_TIED))
        return BNT_OK;
    if (output->tensor->size == embedding->tensor->size &&
        output->tensor->dtype == embedding->tensor->dtype &&
        memcmp(output->data, embedding->data, (size_t)output->tensor->size) == 0)
        return BNT_OK;
    return bnt_fail(f->err, BNT_ERR_FORMAT,
                    "%s: tie_word_embeddings is true, but %s differs from %s", f->checkpoint->dir,
                    output->name, embedding->name);
}

// A config that speaks of packed weights says nothing of floats without a scale: they may hold
// three levels.
static void settle_form(struct finder *f)
{
    char name[BNT_TENSOR_NAME_SIZE], scale[BNT_TENSOR_NAME_SIZE + 8];
    struct bnt_checkpoint *c = f->checkpoint;
    bnt_arch_tensor_name(c->config.arch, BNT_ATTN_Q, 0, name);
    scale_name(scale, name);
    const struct named_tensor *first = find(f, name);
    if (c->config.form == BNT_FORM_MASTERS || !first || !is_float(first->tensor) || find(f, scale))
        return;
    c->config.form = BNT_FORM_MASTERS;
    c->said_packed = true;
}

// What the tensors say beyond config.json.
static void complete_config(struct finder *f)
{
    char name[BNT_TENSOR_NAME_SIZE];
    struct bnt_config *config = &f->checkpoint->config;
    other_norm_name(name, config->arch, BNT_ATTN_Q_LINEAR_NORM, 0);
    if (find(f, name))
        bnt_config_add_linear_norms(config);
    if (!find_role(f, BNT_OUTPUT, BNT_NO_LAYER))
        bnt_config_without_output(config);
    settle_form(f);
}

static enum bnt_status refuse_unused(struct finder *f)
{
    const json_t *map = f->checkpoint->weight_map;
    const char *first = NULL;
    size_t count = 0;
    for (size_t i = 0; i < f->count; i++) {
        const char *name = f->all[i].tensor->name;
        // Old exports carry this buffer; it follows from the config.
        if (f->all[i].used || bnt_ends_with(name, ".rotary_emb.inv_freq") ||
            (map && !json_object_get(map, name))) // lies beside the model, which the index tells
            continue;
        first = count++ ? first : name;
    }
    if (count == 0)
        return BNT_OK;
    return bnt_fail(f->err, BNT_ERR_UNSUPPORTED,
                    "%s: %zu tensor%s that %s does not have, the first is %s", f->checkpoint->dir,
                    count, count == 1 ? "" : "s", f->checkpoint->config.arch->name, first);
}

static enum bnt_status bind_all(struct finder *f)
{
    struct bnt_checkpoint *c = f->checkpoint;
    complete_config(f);
    choose_embedding_type(f);
    c->sources = calloc((size_t)bnt_layout_count(&c->config.hyper, false), sizeof c->sources[0]);
    if (!c->sources)
        return bnt_fail(f->err, BNT_ERR_MEMORY, "out of memory");
    struct bnt_layout_walk walk = bnt_layout_walk(&c->config.hyper, false);
    while (bnt_layout_next(&walk, &c->sources[c->n_sources].place)) {
        enum bnt_status status = bind(f, &c->sources[c->n_sources]);
        if (status != BNT_OK)
            return status;
        c->n_sources++;
    }
    enum bnt_status status = check_tied_output(f);
    return status == BNT_OK ? refuse_unused(f) : status;
}

enum bnt_status bnt_checkpoint_bind(struct bnt_checkpoint *c, struct bnt_error *err)
{
    struct finder finder = {.checkpoint = c, .err = err};
    enum bnt_status status = list_tensors(&finder);
    if (status == BNT_OK) {
        strip_wrappers(&finder);
        status = sort_tensors(&finder);
    }
    if (status == BNT_OK)
        status = bind_all(&finder);
    free(finder.all);
    return status;
}
