// SPDX-License-Identifier: MIT
// Threads that wait for work between the many short parallel steps of a token.
#ifndef BNT_RUNTIME_POOL_H
#define BNT_RUNTIME_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct bnt_pool;

enum { BNT_MAX_PARTS = 256 };

// threads: 1 … BNT_MAX_PARTS, the caller being one of them. Starts fewer if the system refuses.
// NULL: out of memory.
struct bnt_pool *bnt_pool_open(unsigned threads);
void bnt_pool_close(struct bnt_pool *pool);

unsigned bnt_pool_threads(const struct bnt_pool *pool);

// Calls body(context, part, parts) for part = 0 … parts − 1, at once, and returns when all are
// done. Allocates nothing, and makes no system call while steps follow one another quickly.
void bnt_pool_run(struct bnt_pool *pool, void (*body)(void *context, unsigned part, unsigned parts),
                  void *context);

// Units of work that the parts of a step take from one another until none is left, so that a
// thread that the system holds up holds up nobody else.
struct bnt_share {
    atomic_size_t next;
    size_t total;
    size_t least; // units worth taking at once
};

static inline void bnt_share_init(struct bnt_share *share, size_t total, size_t least)
{
    atomic_init(&share->next, 0);
    share->total = total;
    share->least = least;
}

// Takes [*from, *to): much while much is left, little in the end. false: nothing is left.
bool bnt_share_take(struct bnt_share *share, unsigned parts, size_t *from, size_t *to);

#endif
