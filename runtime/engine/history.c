// SPDX-License-Identifier: MIT
#include "runtime/engine/history.h"

#include <stdlib.h>
#include <string.h>

bool bnt_history_open(struct bnt_history *h, uint32_t context, uint32_t vocab)
{
    *h = (struct bnt_history){.vocab = vocab, .prompt = UINT32_MAX};
    h->tokens = malloc((size_t)context * sizeof h->tokens[0]);
    h->seen = malloc((size_t)(context < vocab ? context : vocab) * sizeof h->seen[0]);
    h->places = calloc(vocab, sizeof h->places[0]);
    return h->tokens && h->seen && h->places;
}

void bnt_history_close(struct bnt_history *h)
{
    free(h->tokens);
    free(h->seen);
    free(h->places);
}

void bnt_history_put(struct bnt_history *h, uint32_t position, const uint32_t *tokens,
                     uint32_t count)
{
    memcpy(h->tokens + position, tokens, count * sizeof tokens[0]);
}

static void count_anew(struct bnt_history *h)
{
    for (uint32_t i = 0; i < h->n_seen; i++)
        h->places[h->seen[i].token] = 0;
    h->n_seen = 0;
    h->counted = 0;
}

void bnt_history_rewind(struct bnt_history *h, uint32_t position)
{
    if (position < h->counted)
        count_anew(h);
    if (position < h->prompt)
        h->prompt = UINT32_MAX;
}

void bnt_history_end_prompt(struct bnt_history *h, uint32_t position)
{
    uint32_t least = position < h->prompt ? position : h->prompt;
    if (least < h->counted && position != h->prompt)
        count_anew(h);
    h->prompt = position;
}

struct bnt_seen_list bnt_history_list(struct bnt_history *h, uint32_t position)
{
    if (position < h->counted) // a step that failed had its token counted
        count_anew(h);
    for (; h->counted < position; h->counted++) {
        uint32_t token = h->tokens[h->counted];
        if (h->places[token] == 0) {
            h->seen[h->n_seen++] = (struct bnt_seen){.token = token};
            h->places[token] = h->n_seen;
        }
        h->seen[h->places[token] - 1].count += h->counted >= h->prompt;
    }
    return (struct bnt_seen_list){h->seen, h->n_seen};
}
