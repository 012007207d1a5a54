// SPDX-License-Identifier: MIT
#include "formats/parallel.h"

#include <pthread.h>
#include <stdatomic.h>

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
