// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // sched_getaffinity
#include "formats/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MAX_THREADS = 256 };

struct loop {
    uint64_t count;
    void (*body)(void *context, uint64_t i);
    void *context;
    _Atomic uint64_t next;
};

static void *work(void *argument)
{
    struct loop *loop = argument;
    for (;;) {
        uint64_t i = atomic_fetch_add(&loop->next, 1);
        if (i >= loop->count)
            return NULL;
        loop->body(loop->context, i);
    }
}

void bnt_parallel_for(unsigned threads, uint64_t count, void (*body)(void *context, uint64_t i),
                      void *context)
{
    struct loop loop = {.count = count, .body = body, .context = context};
    pthread_t thread[MAX_THREADS];
    unsigned started = 0;
    while (started < MAX_THREADS && started + 1 < threads && started + 1 < count) {
        if (pthread_create(&thread[started], NULL, work, &loop) != 0)
            break;
        started++;
    }
    (void)work(&loop);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(thread[i], NULL);
}

unsigned bnt_parallel_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (unsigned)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}
