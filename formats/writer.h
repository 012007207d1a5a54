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

struct bnt_writer {
    struct bnt_output *out;
    struct bnt_header header;
    struct bnt_hyper hyper;
    const void *tokenizer; // TOKN's bytes, or NULL
    struct bnt_tensor_record
        *tensors; // the table as it will be written; scales are the caller's to fill in
    uint64_t n_tensors;
};

// Lays the file out. out: opened with bnt_output_open_random. tokenizer: the TOKN section, NULL for
// none; must stay until finish.
enum bnt_status bnt_writer_open(struct bnt_writer *writer, struct bnt_output *out,
                                const struct bnt_hyper *hyper, bool has_int8, const void *tokenizer,
                                uint64_t tokenizer_size, struct bnt_error *err);

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
