// SPDX-License-Identifier: MIT
// From a ternary checkpoint stream (formats/stream.h) to a .bnt file.
#ifndef BNT_PACK_PACK_H
#define BNT_PACK_PACK_H

#include <stdbool.h>

#include "formats/file.h"
#include "formats/status.h"

struct pack_options {
    unsigned threads;
    bool int8;                // add the int8 copy of the output matrix
    bool bf16;                // round embeddings to bf16 whatever they are
    bool quiet;               // no progress bar
    uint32_t activation_bits; // 8 or 16, whatever bnt-convert says; 0: what it says
};

// Reads the stream from fd to its end and writes the file. out: opened with bnt_output_open_random;
// the caller commits or aborts it. name: of the input, for messages.
enum bnt_status bnt_pack(int fd, const char *name, struct bnt_output *out,
                         const struct pack_options *options, struct bnt_error *err);

// Writes the blocks of one I8 matrix of a safetensors file, and nothing else.
enum bnt_status bnt_pack_matrix(const char *path, const char *tensor, struct bnt_output *out,
                                struct bnt_error *err);

#endif
