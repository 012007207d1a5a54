// SPDX-License-Identifier: MIT
// A loop over several threads, for the offline tools. (The runtime keeps a pool of its own.)
#ifndef BNT_FORMATS_PARALLEL_H
#define BNT_FORMATS_PARALLEL_H

#include <stdint.h>

// Calls body(context, i) for each i in 0 … count − 1, in any order, by up to threads threads, the
// caller being one of them. Threads that cannot be started are done without.
void bnt_parallel_for(unsigned threads, uint64_t count, void (*body)(void *context, uint64_t i),
                      void *context);

#endif
