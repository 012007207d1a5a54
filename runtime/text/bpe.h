// SPDX-License-Identifier: MIT
// Byte-pair merging of one piece of text (bnt.md section 8, encoding step 4).
#ifndef BNT_RUNTIME_BPE_H
#define BNT_RUNTIME_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/engine/model.h"

struct bnt_bpe_symbol {
    uint32_t id;       // BNT_BPE_NONE: merged into its left neighbour
    uint32_t previous; // index of the neighbours, BNT_BPE_NONE at the ends
    uint32_t next;
};

struct bnt_bpe_pair {
    uint32_t rank; // when the pair was found; another since: the pair is stale
    uint32_t at;   // index of the left symbol
};

#define BNT_BPE_NONE UINT32_MAX

// Growing arrays that are kept from piece to piece.
struct bnt_encoder {
    const struct bnt_model *model;
    uint32_t *ids; // the result so far
    size_t n_ids;
    size_t ids_capacity;
    struct bnt_bpe_symbol *symbols;
    size_t symbols_capacity;
    struct bnt_bpe_pair *heap;
    size_t n_heap;
    size_t heap_capacity;
};

// Makes room for count elements; false: out of memory. *array is realloc'd.
bool bnt_encoder_reserve(void **array, size_t *capacity, size_t count, size_t size);

// Appends an id to the result.
bool bnt_encoder_put(struct bnt_encoder *encoder, uint32_t id);

// Appends the tokens of one piece. size < 2^32. false: out of memory.
bool bnt_bpe_encode(struct bnt_encoder *encoder, const uint8_t *piece, size_t size);

// Notes which bytes merges join, so that long pieces are merged in parts.
void bnt_bpe_bind(struct bnt_model *model);

// The lookup token with these bytes, or −1.
int64_t bnt_bpe_lookup(const struct bnt_model *model, const uint8_t *bytes, size_t size);

#endif
