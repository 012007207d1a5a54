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

// Units of work, most of them dealt out beforehand: each part begins with its own piece, which is
// one stretch of memory, then takes from the rest until nothing is left, so that a thread that the
// system holds up does not hold up the others.
struct bnt_share {
    atomic_size_t next;
    size_t total;
    size_t least; // units worth taking at once
    size_t first; // of each part's own piece
};

void bnt_share_init(struct bnt_share *share, const struct bnt_pool *pool, size_t total,
                    size_t least);
// The same for a body that is called alone, as part 0 of 1.
void bnt_share_init_alone(struct bnt_share *share, size_t total);

// The part's own piece [*from, *to), or what bnt_share_take gives. false: nothing is left.
bool bnt_share_first(struct bnt_share *share, unsigned part, unsigned parts, size_t *from,
                     size_t *to);

// Takes [*from, *to): much while much is left, little in the end. false: nothing is left.
bool bnt_share_take(struct bnt_share *share, unsigned parts, size_t *from, size_t *to);

// What the step after the present one reads: threads that have nothing to do until then fetch the
// beginning of their own piece of it into the cache, so that memory does not idle. Call before
// bnt_pool_run of the present step; it holds for that one. units: as its share will have.
void bnt_pool_ahead(struct bnt_pool *pool, const void *bytes, size_t size, size_t units);

#endif
