// SPDX-License-Identifier: MIT
// Where a checkpoint comes from: repository, licence, and the SHA-256 of every file that was read.
#ifndef BNT_CONVERT_PROVENANCE_H
#define BNT_CONVERT_PROVENANCE_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>

#include "formats/checkpoint.h"

struct provenance {
    const struct bnt_checkpoint *checkpoint;
    json_t *json;
    size_t size; // of its text: the same before and after the checksums are known
    pthread_t thread;
    bool running;
    bool failed;
};

// Fills in all but the checksums, and starts to compute these in a thread of its own.
enum bnt_status bnt_provenance_start(struct provenance *p, const struct bnt_checkpoint *checkpoint,
                                     struct bnt_error *err);

// Waits for the checksums. *text: malloc'd, p->size bytes.
enum bnt_status bnt_provenance_finish(struct provenance *p, char **text, struct bnt_error *err);

void bnt_provenance_close(struct provenance *p);

#endif
