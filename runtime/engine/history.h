// SPDX-License-Identifier: MIT
// The tokens that a session has seen, for the penalties of sampling. (history.c)
#ifndef BNT_RUNTIME_HISTORY_H
#define BNT_RUNTIME_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

// A token of the text so far.
struct bnt_seen {
    uint32_t token;
    uint32_t count; // how often it was generated; 0: it is in the prompt alone
};

struct bnt_seen_list { // each token once
    const struct bnt_seen *seen;
    uint32_t n;
};

struct bnt_history {
    uint32_t vocab;
    uint32_t *tokens;      // (context) by their positions
    struct bnt_seen *seen; // (the lesser of context and vocab), in the order of their first places
    uint32_t *places;      // (vocab) in seen, and one more; 0: not there
    uint32_t n_seen;
    uint32_t counted; // positions that seen stands for
    uint32_t prompt;  // so many positions are the prompt
};

// Allocates it; false: out of memory. Closing is right after a failure too.
bool bnt_history_open(struct bnt_history *history, uint32_t context, uint32_t vocab);
void bnt_history_close(struct bnt_history *history);

// Tokens, all valid, that stand from position on; there is room for them.
void bnt_history_put(struct bnt_history *history, uint32_t position, const uint32_t *tokens,
                     uint32_t count);

// Forgets what stands from position on. A prompt that is cut has its end still to come.
void bnt_history_rewind(struct bnt_history *history, uint32_t position);

// What stands before position is the prompt, all else was generated.
void bnt_history_end_prompt(struct bnt_history *history, uint32_t position);

// What stands before position. Valid until the next call that changes the history.
struct bnt_seen_list bnt_history_list(struct bnt_history *history, uint32_t position);

#endif
