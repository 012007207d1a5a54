// SPDX-License-Identifier: MIT
// What the device of a bench can do, and what its session takes.
#include "runtime/bench/bench_model.h"

enum bnt_status bench_device_read(const struct bench *b, double *rate, struct bnt_error *err)
{
    const struct bnt_model *m = b->model;
    const struct bnt_section_record *s = bnt_view_section(&m->view, BNT_SECTION_TERN);
    if (b->gpu)
        return bnt_cuda_bench_read(b->gpu, rate, err);
    *rate = bench_read(b->session->pool, m->map.data + s->offset, s->size);
    return BNT_OK;
}

enum bnt_status bench_device_int8(const struct bench *b, double *rate, struct bnt_error *err)
{
    if (b->gpu)
        return bnt_cuda_bench_int8(b->gpu, rate, err);
    *rate = bench_int8(b->session->pool, b->model->kernels->name);
    return BNT_OK;
}

uint64_t bench_cache_size(const struct bench *b)
{
    const struct bnt_session *s = b->session;
    if (b->gpu)
        return bnt_cuda_bench_cache(s->cuda);
    return (uint64_t)s->model->hyper.n_layers * s->groups * BNT_KEY_GROUP *
           bnt_kv_size(&s->model->hyper) * (s->cache == BNT_CACHE_F32 ? 8 : 4);
}

double bench_position_size(const struct bench *b)
{
    const uint32_t room = b->gpu ? b->session->context : b->session->groups * BNT_KEY_GROUP;
    return (double)bench_cache_size(b) / room;
}
