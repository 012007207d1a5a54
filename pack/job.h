// SPDX-License-Identifier: MIT
// The work on the stream's tensors, a stripe of rows at a time: converted, written at its place,
// counted.
#ifndef BNT_PACK_JOB_H
#define BNT_PACK_JOB_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/file.h"
#include "formats/layout.h"
#include "formats/safetensors.h"
#include "formats/status.h"

// A tensor being packed. Several stripes of one may be at work at once.
struct pack_tensor {
    struct bnt_tensor_record *record; // where it goes
    uint32_t groups;                  // scales of a row, if rows and groups have them,
    unsigned scale_size;              // and bytes of each
    enum bnt_st_dtype dtype;          // of the stream
    const char *name;                 // in the stream
    struct bnt_tensor_record
        *int8; // of the output matrix: its int8 copy, and the copy's scales; otherwise NULL
    struct bnt_tensor_record *int8_scale;
    uint64_t count[4]; // codes of a ternary matrix, padding included; under the queue's lock
};

// Rows first … first + rows − 1 of a tensor, as the stream has them.
struct pack_job {
    struct pack_tensor *tensor;
    bool scales; // its scales by row and group, not its weights
    uint32_t first;
    uint32_t rows;
    uint8_t *in;
    uint8_t *out; // scratch
    struct pack_job *next;
};

// A bounded queue with worker threads. With no threads, a job is done when it is put.
struct pack_queue {
    struct bnt_output *output;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct pack_job *free;  // jobs without work
    struct pack_job *first; // jobs waiting for a worker
    struct pack_job *last;
    struct pack_job *jobs;
    unsigned n_jobs;
    pthread_t *threads;
    unsigned n_threads;
    unsigned busy;
    bool stopping;
    enum bnt_status status; // of the first failure
    struct bnt_error err;
};

enum { PACK_JOB_BYTES = 1 << 20 };

// in_bytes, out_bytes: the largest that a stripe takes in and makes.
enum bnt_status bnt_pack_queue_start(struct pack_queue *queue, struct bnt_output *output,
                                     unsigned threads, uint64_t in_bytes, uint64_t out_bytes,
                                     struct bnt_error *err);
// What a stripe of so many rows makes: packed blocks, or converted values, their int8 copy and its
// scales.
uint64_t bnt_pack_out_bytes(const struct bnt_tensor_record *record, uint32_t rows);
// A job to fill in. Waits for one; NULL once any job has failed.
struct pack_job *bnt_pack_queue_take(struct pack_queue *queue);
void bnt_pack_queue_put(struct pack_queue *queue, struct pack_job *job);
// Waits until all jobs put so far are done. Returns the first failure.
enum bnt_status bnt_pack_queue_drain(struct pack_queue *queue, struct bnt_error *err);
void bnt_pack_queue_stop(struct pack_queue *queue);

#endif
