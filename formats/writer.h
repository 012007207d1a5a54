// SPDX-License-Identifier: MIT
// Writing a .bnt file: every place is known before the first weight, so tensors may be written in
// any order.
#ifndef BNT_FORMATS_WRITER_H
#define BNT_FORMATS_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/file.h"
#include "formats/layout.h"
#include "formats/status.h"

// A section that is made in memory; data NULL: the file has none such.
struct bnt_writer_section {
    const void *data;
    uint64_t size;
};

struct bnt_writer {
    struct bnt_output *out;
    struct bnt_header header;
    struct bnt_hyper hyper;
    struct bnt_writer_section tokenizer; // TOKN
    struct bnt_writer_section chat;
    uint32_t chat_type;                  // CHAT or CONV
    struct bnt_sampling_record sampling; // SAMP, if it says something
    bool has_sampling;
    // The table as it will be written; scales are the caller's to fill in.
    struct bnt_tensor_record *tensors;
    uint64_t n_tensors;
};

// Lays the file out. out: opened with bnt_output_open_random. The bytes of tokenizer and chat must
// stay until finish. sampling: NULL for none.
enum bnt_status bnt_writer_open(struct bnt_writer *writer, struct bnt_output *out,
                                const struct bnt_hyper *hyper, bool has_int8,
                                struct bnt_writer_section tokenizer, struct bnt_writer_section chat,
                                uint32_t chat_type, const struct bnt_sampling_record *sampling,
                                struct bnt_error *err);

// The record of a tensor, to learn its place and set its scale. NULL if the model has none such.
struct bnt_tensor_record *bnt_writer_tensor(struct bnt_writer *writer, enum bnt_role role,
                                            int32_t layer);

// Writes everything but the tensors' bytes, which the caller has written to out at their places,
// then computes the checksums and writes the header. provenance: JSON text. The output is complete
// but not yet committed.
enum bnt_status bnt_writer_finish(struct bnt_writer *writer, const char *provenance,
                                  uint64_t provenance_size, struct bnt_error *err);

void bnt_writer_close(struct bnt_writer *writer);

#endif
