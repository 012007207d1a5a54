// SPDX-License-Identifier: MIT
// Finding out whether a checkpoint's float weights hold three levels, and what shares a scale.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "formats/levels.h"

// A matrix with at most this share of its weights off the levels is called near to them: real files
// are said to have 0.003 %. Ordinary weights have some 90 %.
#define NEAR 0.01

struct finder {
    struct bnt_checkpoint *checkpoint;
    const struct bnt_levels_options *options;
    unsigned holds; // by all matrices so far
    bool halves;    // all levels are halves
    size_t n_exact, n_near, n_other;
    uint64_t off[BNT_LEVELS_MATRIX], total; // of the near ones
    float worst[BNT_LEVELS_MATRIX];
    const struct bnt_source *first_near, *first_other;
    struct bnt_levels first_other_levels;
    struct bnt_error *err;
};

static double weights_of(const struct bnt_source *source)
{
    return (double)source->place.rows * source->place.cols;
}

static enum bnt_level_groups coarsest(unsigned holds)
{
    int kind = BNT_LEVELS_MATRIX;
    while (kind > 0 && !(holds >> kind & 1))
        kind--;
    return (enum bnt_level_groups)kind;
}

// Groups with which few enough weights are off, the coarsest first.
static unsigned near_kinds(const struct bnt_levels *levels, double weights)
{
    unsigned kinds = 0;
    for (int i = 0; i < BNT_LEVELS_MATRIX; i++)
        kinds |= (unsigned)((double)levels->off[i] <= NEAR * weights) << i;
    return kinds;
}

static enum bnt_status look(struct finder *f, const struct bnt_source *source,
                            struct bnt_levels *levels)
{
    const struct bnt_level_matrix matrix = bnt_source_levels(source);
    if (!bnt_levels_look(&matrix, f->options->threads, levels))
        return bnt_fail(f->err, BNT_ERR_MEMORY, "out of memory");
    if (levels->finite)
        return BNT_OK;
    return bnt_source_not_finite(f->checkpoint, source, f->err);
}

// A matrix of zeros holds any levels: it says nothing of the others.
static bool all_zero(const struct bnt_levels *levels)
{
    return levels->holds >> BNT_LEVELS_MATRIX & 1 && levels->level == 0;
}

static void add_near(struct finder *f, const struct bnt_source *source,
                     const struct bnt_levels *levels)
{
    f->n_near++;
    f->first_near = f->first_near ? f->first_near : source;
    f->total += (uint64_t)source->place.rows * source->place.cols;
    f->holds &= near_kinds(levels, weights_of(source));
    f->halves = f->halves && levels->halves;
    for (int i = 0; i < BNT_LEVELS_MATRIX; i++) {
        f->off[i] += levels->off[i];
        f->worst[i] = levels->worst[i] > f->worst[i] ? levels->worst[i] : f->worst[i];
    }
}

static void add_matrix(struct finder *f, struct bnt_source *source, const struct bnt_levels *levels)
{
    if (levels->holds) {
        f->n_exact += !all_zero(levels);
        f->holds &= levels->holds;
        f->halves = f->halves && levels->halves;
        source->level = levels->level;
        source->shards = levels->n_shards;
        if (!(levels->holds >> BNT_LEVELS_MATRIX & 1) &&
            levels->n_shards > f->checkpoint->levels.shards)
            f->checkpoint->levels.shards = levels->n_shards;
        return;
    }
    if (near_kinds(levels, weights_of(source))) {
        add_near(f, source, levels);
        return;
    }
    source->ordinary = true;
    if (f->n_other++ == 0) {
        f->first_other = source;
        f->first_other_levels = *levels;
    }
}

static void describe(const struct finder *f, char *out, size_t size)
{
    const struct bnt_levels *l = &f->first_other_levels;
    (void)snprintf(
        out, size,
        "%.0f %% of the weights of %s are off three levels even with a scale for each %s",
        100 * (double)l->off[BNT_LEVELS_32] / weights_of(f->first_other), f->first_other->name,
        bnt_levels_name(BNT_LEVELS_32));
}

// All of the layers' matrices: the first may be the only one without levels. Ordinary ones are
// known by their first rows.
static enum bnt_status look_at_linears(struct finder *f)
{
    struct bnt_checkpoint *c = f->checkpoint;
    for (size_t i = 0; i < c->n_sources; i++) {
        struct bnt_source *source = &c->sources[i];
        struct bnt_levels levels;
        if (source->place.dtype != BNT_TERNARY)
            continue;
        enum bnt_status status = look(f, source, &levels);
        if (status != BNT_OK)
            return status;
        add_matrix(f, source, &levels);
    }
    return BNT_OK;
}

// Embeddings are ternary where they hold levels, with whatever shares a scale.
static enum bnt_status look_at_embeddings(struct finder *f)
{
    static const struct {
        enum bnt_role role;
        uint32_t flag;
    } rows[] = {{BNT_TOKEN_EMBEDDING, BNT_HYPER_TERNARY_EMBEDDING},
                {BNT_OUTPUT, BNT_HYPER_TERNARY_OUTPUT}};
    struct bnt_checkpoint *c = f->checkpoint;
    for (size_t i = 0; i < c->n_sources; i++) {
        struct bnt_source *source = &c->sources[i];
        for (size_t j = 0; j < sizeof rows / sizeof rows[0]; j++) {
            struct bnt_levels levels;
            if (source->place.role != rows[j].role)
                continue;
            enum bnt_status status = look(f, source, &levels);
            if (status != BNT_OK)
                return status;
            if (!levels.holds && !near_kinds(&levels, weights_of(source)))
                continue;
            add_matrix(f, source, &levels);
            c->config.hyper.flags |= rows[j].flag;
            source->place.dtype = BNT_TERNARY;
            source->place.section = BNT_SECTION_TERN;
        }
    }
    return BNT_OK;
}

// Embeddings that stay dense keep their type.
static void choose_embedding_type(struct bnt_checkpoint *c)
{
    c->config.hyper.flags &= ~(uint32_t)BNT_HYPER_F32_EMBEDDINGS;
    for (size_t i = 0; i < c->n_sources; i++) {
        if (c->sources[i].place.section == BNT_SECTION_EMBD &&
            c->sources[i].tensor->dtype != BNT_ST_BF16)
            c->config.hyper.flags |= BNT_HYPER_F32_EMBEDDINGS;
    }
}

static enum bnt_status refuse_near(const struct finder *f)
{
    enum bnt_level_groups kind = coarsest(f->holds);
    return bnt_fail(
        f->err, BNT_ERR_UNSUPPORTED,
        "%s: %" PRIu64 " weights of %zu %s (%.4f %%, the first in %s) are off three levels by "
        "up to %.3g of the level, with a scale for each %s: --nearest takes the nearest level",
        f->checkpoint->dir, f->off[kind], f->n_near, f->n_near == 1 ? "matrix" : "matrices",
        100 * (double)f->off[kind] / (double)f->total, f->first_near->name, (double)f->worst[kind],
        bnt_levels_name(kind));
}

static enum bnt_status refuse_mixed(const struct finder *f)
{
    char what[300];
    describe(f, what, sizeof what);
    return bnt_fail(f->err, BNT_ERR_UNSUPPORTED,
                    "%.200s: %zu matrices hold three levels, %zu do not: %s", f->checkpoint->dir,
                    f->n_exact + f->n_near, f->n_other, what);
}

// Matrices that hold no levels beside others that do: as masters, where that is forced.
static enum bnt_status force_others(struct finder *f)
{
    struct bnt_checkpoint *c = f->checkpoint;
    for (size_t i = 0; i < c->n_sources; i++) {
        struct bnt_source *source = &c->sources[i];
        if (!source->ordinary)
            continue;
        enum bnt_status status =
            bnt_source_scale(c, source, f->options->threads, &source->forced_scale, f->err);
        f->halves = false;
        if (status != BNT_OK)
            return status;
    }
    return BNT_OK;
}

// Weights that hold no levels, or not all: masters, unless the config says otherwise.
static enum bnt_status leave(struct finder *f)
{
    char what[300];
    if (!f->checkpoint->said_packed)
        return BNT_OK;
    describe(f, what, sizeof what);
    return bnt_fail(
        f->err, BNT_ERR_UNSUPPORTED,
        "%.200s: the config says that the weights are packed (U8, with a weight_scale), "
        "but they are floats, and not on three levels: %s",
        f->checkpoint->dir, what);
}

static void settle(struct finder *f)
{
    struct bnt_checkpoint *c = f->checkpoint;
    struct bnt_hyper *h = &c->config.hyper;
    enum bnt_level_groups kind = coarsest(f->holds);
    c->levels.groups = kind;
    c->levels.forced = f->n_other > 0;
    c->levels.nearest = f->n_near > 0;
    c->levels.off = f->off[kind < BNT_LEVELS_MATRIX ? kind : BNT_LEVELS_ROW];
    c->levels.worst = f->worst[kind < BNT_LEVELS_MATRIX ? kind : BNT_LEVELS_ROW];
    c->config.form = BNT_FORM_LEVELS;
    h->scale_group = bnt_levels_scale_group(kind);
    h->scale_dtype = !h->scale_group ? 0u : f->halves ? BNT_F16 : BNT_F32;
    h->activation_bits = c->config.ternary ? 8 : 16;
    choose_embedding_type(c);
}

enum bnt_status bnt_checkpoint_find_levels(struct bnt_checkpoint *c,
                                           const struct bnt_levels_options *options,
                                           struct bnt_error *err)
{
    struct finder f = {
        .checkpoint = c, .options = options, .holds = ~0u, .halves = true, .err = err};
    if (c->config.form != BNT_FORM_MASTERS)
        return BNT_OK;
    enum bnt_status status = look_at_linears(&f);
    if (status != BNT_OK)
        return status;
    if (f.n_other && !f.n_exact && !f.n_near) {
        describe(&f, c->levels.unlike, sizeof c->levels.unlike);
        return leave(&f);
    }
    if (f.n_other && c->config.ternary)
        return leave(&f); // masters, some of which happen to be on levels
    if (f.n_other && !options->force)
        return refuse_mixed(&f);
    status = look_at_embeddings(&f);
    if (status == BNT_OK && f.n_near && !options->nearest)
        return refuse_near(&f);
    if (status == BNT_OK && f.n_other)
        status = force_others(&f);
    if (status == BNT_OK)
        settle(&f);
    return status;
}
