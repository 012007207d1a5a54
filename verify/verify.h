// SPDX-License-Identifier: MIT
// All rules of bnt.md over one file, and the S rules against its checkpoint.
#ifndef BNT_VERIFY_VERIFY_H
#define BNT_VERIFY_VERIFY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/cli.h"
#include "formats/file.h"
#include "verify/findings.h"

// R1 … R32. What breaks a rule goes to findings; rules that cannot be judged because of another
// broken one are passed over. Returns whether the view may be used for more.
bool bnt_verify_file(const struct bnt_map *map, struct bnt_view *view, unsigned threads,
                     struct findings *findings);

// What was lost when a matrix of float weights became ternary.
struct verify_error {
    uint16_t role;
    int32_t layer;
    double relative; // ‖W − qs‖ / ‖W‖ with the file's codes q and scales s
};

struct verify_errors {
    bool wanted; // of checkpoints whose weights do not hold levels too
    struct verify_error *items;
    size_t count;
};

// S1 … S6. Fails only if the checkpoint cannot be opened at all. quiet: no progress bar. errors: an
// entry for each ternary matrix, or none for a checkpoint without float weights; free its items.
enum bnt_status bnt_verify_source(const struct bnt_view *view, const char *checkpoint_dir,
                                  unsigned threads, bool quiet, struct findings *findings,
                                  struct verify_errors *errors, struct bnt_error *err);

// A list of independent pieces of work, each with findings of its own.
struct verify_task {
    void (*run)(struct verify_task *task);
    void *context;  // shared
    uint64_t index; // which section, tensor …
    uint64_t first; // part of it
    uint64_t count;
    uint64_t weight; // bytes it has to look at
    struct bnt_report report;
    struct findings findings;
};

struct verify_tasks {
    struct verify_task *items;
    struct bnt_progress progress;
    pthread_mutex_t lock; // of progress
    size_t count;
    size_t capacity;
    bool failed; // out of memory
};

void bnt_verify_add(struct verify_tasks *tasks, void (*run)(struct verify_task *task),
                    void *context, uint64_t index, uint64_t first, uint64_t count, uint64_t weight);
// Runs them all, moves their findings, in the order of the tasks, and frees the list. Without
// memory, that is a finding too. quiet: no progress bar.
void bnt_verify_run(struct verify_tasks *tasks, unsigned threads, bool quiet,
                    struct findings *findings);

#endif
