// SPDX-License-Identifier: MIT
// Threads that wait for work between the many short parallel steps of a token.
#ifndef BNT_RUNTIME_POOL_H
#define BNT_RUNTIME_POOL_H

struct bnt_pool;

// threads >= 1, the caller being one of them. Starts fewer if the system refuses. NULL: out of
// memory.
struct bnt_pool *bnt_pool_open(unsigned threads);
void bnt_pool_close(struct bnt_pool *pool);
unsigned bnt_pool_threads(const struct bnt_pool *pool);

// Calls body(context, part, parts) for part = 0 … parts − 1, at once, and returns when all are
// done. Allocates nothing.
void bnt_pool_run(struct bnt_pool *pool, void (*body)(void *context, unsigned part, unsigned parts),
                  void *context);

#endif
