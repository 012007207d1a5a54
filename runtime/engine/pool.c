// SPDX-License-Identifier: MIT
#include "runtime/engine/pool.h"

#include <pthread.h>
#include <stdlib.h>

// Steps follow one another within microseconds, so a thread first looks for the next one without
// sleeping.
enum { SPINS_BEFORE_SLEEP = 4000 };

// Bytes that a waiting thread fetches at most: a part of its second-level cache.
enum { AHEAD_MAX = 128 << 10 };

struct worker {
    struct bnt_pool *pool;
    unsigned part;
    pthread_t thread;
};

struct bnt_pool {
    unsigned threads;
    struct worker *workers; // (threads − 1)
    void (*body)(void *context, unsigned part, unsigned parts);
    void *context;
    const char *ahead;      // what the next step reads
    size_t ahead_piece;     // bytes of a part's piece of it
    atomic_uint generation; // counts the steps; a change is the signal to start
    atomic_uint running;    // workers that have not finished the step
    atomic_uint sleeping;
    atomic_bool waiting; // the caller sleeps until the step is done
    bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_cond_t done;
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Waits, fetching size bytes into the cache meanwhile. Returns the new generation.
static unsigned wait_for_step(struct bnt_pool *pool, unsigned seen, const char *ahead, size_t size)
{
    enum { LINE = 64 };
    unsigned now;
    for (unsigned i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen)
            return now;
        if (i < size / LINE)
            __builtin_prefetch(ahead + i * LINE, 0, 2); // second level
        else
            relax();
    }
    // The order matters: first sleeping, then generation; bnt_pool_run changes generation, then
    // reads sleeping.
    (void)pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleeping, 1);
    while ((now = atomic_load(&pool->generation)) == seen)
        (void)pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleeping, 1);
    (void)pthread_mutex_unlock(&pool->lock);
    return now;
}

// As with sleeping: first running, then waiting; the caller sets waiting, then reads running.
static void end_step(struct bnt_pool *pool)
{
    if (atomic_fetch_sub(&pool->running, 1) != 1 || !atomic_load(&pool->waiting))
        return;
    (void)pthread_mutex_lock(&pool->lock);
    (void)pthread_cond_signal(&pool->done);
    (void)pthread_mutex_unlock(&pool->lock);
}

// More threads than processors, or a thread that the system holds up: lets them come to an end.
static void sleep_until_done(struct bnt_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    // An exchange, not a store: qemu lets a load overtake the store-release of ARM.
    (void)atomic_exchange(&pool->waiting, true);
    while (atomic_load(&pool->running) != 0)
        (void)pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->waiting, false);
    (void)pthread_mutex_unlock(&pool->lock);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct bnt_pool *pool = worker->pool;
    unsigned seen = 0;
    const char *ahead = NULL;
    size_t size = 0;
    for (;;) {
        seen = wait_for_step(pool, seen, ahead, size);
        if (pool->stopping)
            return NULL;
        // Read now: the caller may set it anew as soon as this step is done.
        size = pool->ahead_piece < AHEAD_MAX ? pool->ahead_piece : (size_t)AHEAD_MAX;
        ahead = size > 0 ? pool->ahead + worker->part * pool->ahead_piece : NULL;
        pool->body(pool->context, worker->part, pool->threads);
        end_step(pool);
    }
}

static void start_step(struct bnt_pool *pool)
{
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleeping) == 0)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    (void)pthread_cond_broadcast(&pool->wake);
    (void)pthread_mutex_unlock(&pool->lock);
}

struct bnt_pool *bnt_pool_open(unsigned threads)
{
    struct bnt_pool *pool = calloc(1, sizeof *pool);
    struct worker *workers = calloc(threads, sizeof *workers);
    if (!pool || !workers) {
        free(pool);
        free(workers);
        return NULL;
    }
    pool->workers = workers;
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
    (void)pthread_cond_init(&pool->done, NULL);
    unsigned started = 0;
    for (; started + 1 < threads; started++) {
        workers[started] = (struct worker){.pool = pool, .part = started + 1};
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0)
            break;
    }
    pool->threads =
        started + 1; // read by workers only after the first step's release of generation
    return pool;
}

void bnt_pool_close(struct bnt_pool *pool)
{
    if (!pool)
        return;
    pool->stopping = true;
    start_step(pool);
    for (unsigned i = 0; i + 1 < pool->threads; i++)
        (void)pthread_join(pool->workers[i].thread, NULL);
    (void)pthread_mutex_destroy(&pool->lock);
    (void)pthread_cond_destroy(&pool->wake);
    (void)pthread_cond_destroy(&pool->done);
    free(pool->workers);
    free(pool);
}

unsigned bnt_pool_threads(const struct bnt_pool *pool)
{
    return pool->threads;
}

void bnt_pool_run(struct bnt_pool *pool, void (*body)(void *context, unsigned part, unsigned parts),
                  void *context)
{
    if (pool->threads == 1) {
        body(context, 0, 1);
        return;
    }
    pool->body = body;
    pool->context = context;
    atomic_store_explicit(&pool->running, pool->threads - 1, memory_order_relaxed);
    start_step(pool);
    body(context, 0, pool->threads);
    for (unsigned i = 0; atomic_load_explicit(&pool->running, memory_order_acquire) != 0; i++) {
        if (i == SPINS_BEFORE_SLEEP) {
            sleep_until_done(pool);
            break;
        }
        relax();
    }
}

// Five eighths are dealt out.
static size_t piece(size_t total, size_t parts)
{
    return total / 8 * 5 / parts;
}

void bnt_pool_ahead(struct bnt_pool *pool, const void *bytes, size_t size, size_t units)
{
    pool->ahead = bytes;
    pool->ahead_piece = units > 0 ? size / units * piece(units, pool->threads) : 0;
}

void bnt_share_init(struct bnt_share *share, const struct bnt_pool *pool, size_t total,
                    size_t least)
{
    share->total = total;
    share->least = least;
    share->first = pool->threads > 1 ? piece(total, pool->threads) : total;
    atomic_init(&share->next, share->first * pool->threads);
}

void bnt_share_init_alone(struct bnt_share *share, size_t total)
{
    share->total = share->first = total;
    share->least = 1;
    atomic_init(&share->next, total);
}

bool bnt_share_first(struct bnt_share *share, unsigned part, unsigned parts, size_t *from,
                     size_t *to)
{
    if (share->first == 0)
        return bnt_share_take(share, parts, from, to);
    *from = part * share->first;
    *to = *from + share->first;
    return true;
}

bool bnt_share_take(struct bnt_share *share, unsigned parts, size_t *from, size_t *to)
{
    size_t next = atomic_load_explicit(&share->next, memory_order_relaxed);
    size_t count;
    do {
        if (next >= share->total)
            return false;
        size_t left = share->total - next;
        count = left / (2 * (size_t)parts);
        if (count < share->least)
            count = left < share->least ? left : share->least;
    } while (!atomic_compare_exchange_weak_explicit(&share->next, &next, next + count,
                                                    memory_order_relaxed, memory_order_relaxed));
    *from = next;
    *to = next + count;
    return true;
}
