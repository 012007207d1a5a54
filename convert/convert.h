// SPDX-License-Identifier: MIT
// From a checkpoint folder to a ternary checkpoint stream (formats/stream.h).
#ifndef BNT_CONVERT_CONVERT_H
#define BNT_CONVERT_CONVERT_H

#include <stdbool.h>

#include "formats/checkpoint.h"
#include "formats/file.h"

struct convert_options {
    unsigned threads;
    bool quiet;  // no progress bar
    bool report; // print the relative error of each matrix on standard error
};

// Writes the whole stream. The caller commits or aborts the output.
enum bnt_status bnt_convert(const struct bnt_checkpoint *checkpoint, struct bnt_output *out,
                            const struct convert_options *options, struct bnt_error *err);

#endif
