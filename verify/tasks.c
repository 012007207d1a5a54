// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "formats/parallel.h"
#include "verify/verify.h"

void bnt_verify_add(struct verify_tasks *tasks, void (*run)(struct verify_task *task),
                    void *context, uint64_t index, uint64_t first, uint64_t count, uint64_t weight)
{
    if (tasks->count == tasks->capacity) {
        size_t capacity = tasks->capacity ? tasks->capacity * 2 : 256;
        struct verify_task *items = realloc(tasks->items, capacity * sizeof items[0]);
        if (!items) {
            tasks->failed = true;
            return;
        }
        tasks->items = items;
        tasks->capacity = capacity;
    }
    tasks->items[tasks->count++] = (struct verify_task){.run = run,
                                                        .context = context,
                                                        .index = index,
                                                        .first = first,
                                                        .count = count,
                                                        .weight = weight};
}

static void run_task(void *context, uint64_t i)
{
    struct verify_tasks *tasks = context;
    struct verify_task *task = &tasks->items[i];
    task->report = bnt_findings_report(&task->findings);
    task->run(task);
    (void)pthread_mutex_lock(&tasks->lock);
    bnt_progress_add(&tasks->progress, task->weight);
    (void)pthread_mutex_unlock(&tasks->lock);
}

void bnt_verify_run(struct verify_tasks *tasks, unsigned threads, bool quiet,
                    struct findings *findings)
{
    struct bnt_report report = bnt_findings_report(findings);
    if (tasks->failed)
        bnt_report(&report, "R0", "out of memory: not everything was checked");
    uint64_t total = 0;
    for (size_t i = 0; i < tasks->count; i++)
        total += tasks->items[i].weight;
    (void)pthread_mutex_init(&tasks->lock, NULL);
    bnt_progress_start(&tasks->progress, "verifying", total, NULL, quiet);
    bnt_parallel_for(threads, tasks->count, run_task, tasks);
    bnt_progress_end(&tasks->progress);
    (void)pthread_mutex_destroy(&tasks->lock);
    for (size_t i = 0; i < tasks->count; i++)
        bnt_findings_append(findings, &tasks->items[i].findings);
    free(tasks->items);
    *tasks = (struct verify_tasks){0};
}
