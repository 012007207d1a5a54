// SPDX-License-Identifier: MIT
#include "pack/job.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/block.h"
#include "formats/bytes.h"
#include "formats/int8_rows.h"

// --- one job ---

static enum bnt_status write_at(struct pack_queue *q, const void *data, uint64_t size,
                                uint64_t offset, struct bnt_error *err)
{
    return bnt_output_write_at(q->output, data, (size_t)size, offset, err);
}

static enum bnt_status pack_ternary(struct pack_queue *q, struct pack_job *job,
                                    struct bnt_error *err)
{
    const struct bnt_tensor_record *t = job->tensor->record;
    size_t row_bytes = bnt_block_row_bytes(t->cols);
    uint64_t block_rows = bnt_pad_rows(job->rows) / BNT_BLOCK_ROWS;
    for (uint64_t i = 0; i < block_rows; i++) {
        uint32_t rows = job->rows - (uint32_t)i * BNT_BLOCK_ROWS;
        const int8_t *in = (const int8_t *)job->in + i * BNT_BLOCK_ROWS * t->cols;
        if (!bnt_block_pack_row(in, rows < BNT_BLOCK_ROWS ? rows : BNT_BLOCK_ROWS, t->cols,
                                job->out + i * row_bytes))
            return bnt_fail(err, BNT_ERR_FORMAT,
                            "tensor %s: a value in rows %" PRIu64 " … is none of -1, 0, +1",
                            job->tensor->name, job->first + i * BNT_BLOCK_ROWS);
    }
    uint64_t count[4];
    bnt_block_count_codes(job->out, block_rows * row_bytes, count);
    (void)pthread_mutex_lock(&q->lock);
    for (int i = 0; i < 4; i++)
        job->tensor->count[i] += count[i];
    (void)pthread_mutex_unlock(&q->lock);
    return write_at(q, job->out, block_rows * row_bytes,
                    t->offset + job->first / BNT_BLOCK_ROWS * row_bytes, err);
}

static enum bnt_status refuse_value(const struct pack_job *job, uint64_t i, struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_FORMAT,
                    "tensor %s: element %" PRIu64
                    " is not finite, or not in the type that the file stores",
                    job->tensor->name, (uint64_t)job->first * job->tensor->record->cols + i);
}

static enum bnt_status copy_norm(struct pack_queue *q, struct pack_job *job, struct bnt_error *err)
{
    const struct bnt_tensor_record *t = job->tensor->record;
    for (uint32_t i = 0; i < t->cols; i++) {
        if (!isfinite(bnt_load_f32(job->in + 4 * (uint64_t)i)))
            return refuse_value(job, i, err);
    }
    return write_at(q, job->in, t->size, t->offset, err);
}

static float load(enum bnt_st_dtype dtype, const uint8_t *data, uint64_t i)
{
    if (dtype == BNT_ST_F32)
        return bnt_load_f32(data + 4 * i);
    uint16_t v = bnt_load_u16(data + 2 * i);
    return dtype == BNT_ST_F16 ? bnt_float_from_f16(v) : bnt_float_from_bf16(v);
}

static unsigned value_size(const struct bnt_tensor_record *t)
{
    return t->dtype == BNT_F32 ? 4 : 2;
}

static enum bnt_status write_int8(struct pack_queue *q, struct pack_job *job, struct bnt_error *err)
{
    uint32_t cols = job->tensor->record->cols;
    uint8_t *scratch =
        job->out +
        bnt_round_up((uint64_t)job->rows * cols * value_size(job->tensor->record), sizeof(float));
    int8_t *rows = (int8_t *)scratch;
    float *scales =
        (float *)(void *)(scratch + bnt_round_up((uint64_t)job->rows * cols, sizeof(float)));
    for (uint32_t r = 0; r < job->rows; r++)
        scales[r] = bnt_int8_row(job->tensor->record->dtype,
                                 job->out + (uint64_t)r * cols * value_size(job->tensor->record),
                                 cols, rows + (uint64_t)r * cols);
    enum bnt_status status = write_at(q, rows, (uint64_t)job->rows * cols,
                                      job->tensor->int8->offset + (uint64_t)job->first * cols, err);
    return status == BNT_OK
               ? write_at(q, scales, (uint64_t)job->rows * 4,
                          job->tensor->int8_scale->offset + (uint64_t)job->first * 4, err)
               : status;
}

// One value to the type it has in the file. Rounding to bf16 may overflow.
static bool put_value(const struct bnt_tensor_record *t, float v, uint8_t *out)
{
    if (t->dtype == BNT_F32) {
        memcpy(out, &v, sizeof v);
        return isfinite(v);
    }
    uint16_t bf16 = bnt_bf16_from_float(v);
    memcpy(out, &bf16, sizeof bf16);
    return (bf16 & 0x7f80) != 0x7f80;
}

static enum bnt_status write_embedding(struct pack_queue *q, struct pack_job *job,
                                       struct bnt_error *err)
{
    const struct bnt_tensor_record *t = job->tensor->record;
    const unsigned size = value_size(t);
    uint64_t n = (uint64_t)job->rows * t->cols;
    for (uint64_t i = 0; i < n; i++) {
        if (!put_value(t, load(job->tensor->dtype, job->in, i), job->out + size * i))
            return refuse_value(job, i, err);
    }
    enum bnt_status status =
        write_at(q, job->out, size * n, t->offset + size * (uint64_t)job->first * t->cols, err);
    return status == BNT_OK && job->tensor->int8 ? write_int8(q, job, err) : status;
}

// A scale is a half or a float; as bits without the sign they are ordered alike.
static bool is_scale(const uint8_t *p, unsigned size)
{
    return size == 2 ? bnt_load_u16(p) < 0x7c00 : bnt_load_u32(p) < 0x7f800000;
}

// (rows, groups) to [block rows][groups][16 rows], padding rows zero.
static enum bnt_status pack_scales(struct pack_queue *q, struct pack_job *job,
                                   struct bnt_error *err)
{
    const struct pack_tensor *t = job->tensor;
    const size_t groups = t->groups, size = t->scale_size;
    const uint32_t block_rows = bnt_pad_rows(job->rows) / BNT_BLOCK_ROWS;
    const size_t bytes = block_rows * groups * BNT_BLOCK_ROWS * size;
    memset(job->out, 0, bytes);
    for (uint32_t r = 0; r < job->rows; r++) {
        for (size_t g = 0; g < groups; g++) {
            const uint8_t *from = job->in + (r * groups + g) * size;
            size_t to = (r / BNT_BLOCK_ROWS * groups + g) * BNT_BLOCK_ROWS + r % BNT_BLOCK_ROWS;
            if (!is_scale(from, t->scale_size))
                return bnt_fail(err, BNT_ERR_FORMAT,
                                "tensor %s: the scale of row %" PRIu32
                                ", group %zu is negative or not finite",
                                t->name, job->first + r, g);
            memcpy(job->out + to * size, from, size);
        }
    }
    return write_at(q, job->out, bytes,
                    t->record->scale_offset + (uint64_t)job->first * groups * size, err);
}

static void do_job(struct pack_queue *q, struct pack_job *job)
{
    struct bnt_error err;
    enum bnt_status status;
    switch (bnt_record_section(job->tensor->record)) {
    case BNT_SECTION_TERN:
        status = job->scales ? pack_scales(q, job, &err) : pack_ternary(q, job, &err);
        break;
    case BNT_SECTION_NORM:
        status = copy_norm(q, job, &err);
        break;
    default:
        status = write_embedding(q, job, &err);
        break;
    }
    (void)pthread_mutex_lock(&q->lock);
    if (status != BNT_OK && q->status == BNT_OK) {
        q->status = status;
        q->err = err;
    }
    job->next = q->free;
    q->free = job;
    (void)pthread_cond_broadcast(&q->changed);
    (void)pthread_mutex_unlock(&q->lock);
}

// --- the queue ---

static struct pack_job *next_job(struct pack_queue *q)
{
    (void)pthread_mutex_lock(&q->lock);
    while (!q->first && !q->stopping)
        (void)pthread_cond_wait(&q->changed, &q->lock);
    struct pack_job *job = q->first;
    if (job) {
        q->first = job->next;
        q->busy++;
    }
    (void)pthread_mutex_unlock(&q->lock);
    return job;
}

static void *work(void *argument)
{
    struct pack_queue *q = argument;
    for (;;) {
        struct pack_job *job = next_job(q);
        if (!job)
            return NULL;
        do_job(q, job);
        (void)pthread_mutex_lock(&q->lock);
        q->busy--;
        (void)pthread_cond_broadcast(&q->changed);
        (void)pthread_mutex_unlock(&q->lock);
    }
}

uint64_t bnt_pack_out_bytes(const struct bnt_tensor_record *record, uint32_t rows)
{
    if (record->dtype == BNT_TERNARY)
        return bnt_pad_rows(rows) / BNT_BLOCK_ROWS * bnt_block_row_bytes(record->cols);
    uint64_t n = (uint64_t)rows * record->cols;
    return bnt_round_up(n * value_size(record), sizeof(float)) + bnt_round_up(n, sizeof(float)) +
           (uint64_t)rows * sizeof(float);
}

static bool allocate_jobs(struct pack_queue *q, uint64_t in_bytes, uint64_t out_bytes)
{
    q->jobs = calloc(q->n_jobs, sizeof q->jobs[0]);
    for (unsigned i = 0; q->jobs && i < q->n_jobs; i++) {
        q->jobs[i].in = malloc((size_t)in_bytes);
        q->jobs[i].out = malloc((size_t)out_bytes);
        if (!q->jobs[i].in || !q->jobs[i].out)
            return false;
        q->jobs[i].next = q->free;
        q->free = &q->jobs[i];
    }
    return q->jobs != NULL;
}

enum bnt_status bnt_pack_queue_start(struct pack_queue *q, struct bnt_output *output,
                                     unsigned threads, uint64_t in_bytes, uint64_t out_bytes,
                                     struct bnt_error *err)
{
    unsigned workers =
        threads > 1 ? threads - 1 : 0; // the caller, who reads the stream, is one of them
    *q = (struct pack_queue){.output = output, .n_jobs = 2 * workers + 1};
    (void)pthread_mutex_init(&q->lock, NULL);
    (void)pthread_cond_init(&q->changed, NULL);
    q->threads = calloc(workers + 1, sizeof q->threads[0]);
    if (!q->threads || !allocate_jobs(q, in_bytes, out_bytes))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    while (q->n_threads < workers && pthread_create(&q->threads[q->n_threads], NULL, work, q) == 0)
        q->n_threads++;
    return BNT_OK;
}

struct pack_job *bnt_pack_queue_take(struct pack_queue *q)
{
    (void)pthread_mutex_lock(&q->lock);
    while (!q->free && q->status == BNT_OK)
        (void)pthread_cond_wait(&q->changed, &q->lock);
    struct pack_job *job = q->status == BNT_OK ? q->free : NULL;
    if (job)
        q->free = job->next;
    (void)pthread_mutex_unlock(&q->lock);
    return job;
}

void bnt_pack_queue_put(struct pack_queue *q, struct pack_job *job)
{
    if (q->n_threads == 0) {
        do_job(q, job);
        return;
    }
    (void)pthread_mutex_lock(&q->lock);
    job->next = NULL;
    if (q->first)
        q->last->next = job;
    else
        q->first = job;
    q->last = job;
    (void)pthread_cond_broadcast(&q->changed);
    (void)pthread_mutex_unlock(&q->lock);
}

enum bnt_status bnt_pack_queue_drain(struct pack_queue *q, struct bnt_error *err)
{
    (void)pthread_mutex_lock(&q->lock);
    while (q->first || q->busy)
        (void)pthread_cond_wait(&q->changed, &q->lock);
    enum bnt_status status = q->status;
    if (status != BNT_OK)
        *err = q->err;
    (void)pthread_mutex_unlock(&q->lock);
    return status;
}

void bnt_pack_queue_stop(struct pack_queue *q)
{
    (void)pthread_mutex_lock(&q->lock);
    q->stopping = true;
    (void)pthread_cond_broadcast(&q->changed);
    (void)pthread_mutex_unlock(&q->lock);
    for (unsigned i = 0; i < q->n_threads; i++)
        (void)pthread_join(q->threads[i], NULL);
    for (unsigned i = 0; q->jobs && i < q->n_jobs; i++) {
        free(q->jobs[i].in);
        free(q->jobs[i].out);
    }
    free(q->jobs);
    free(q->threads);
    (void)pthread_mutex_destroy(&q->lock);
    (void)pthread_cond_destroy(&q->changed);
}
