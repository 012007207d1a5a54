// SPDX-License-Identifier: MIT
// What sentence-transformers' files beside a checkpoint say: how a text becomes a vector.
#ifndef BNT_FORMATS_POOLING_H
#define BNT_FORMATS_POOLING_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/layout.h"
#include "formats/status.h"

#define BNT_MODULES "modules.json"
enum { BNT_POOLING_FILE_SIZE = 256 };

// modules.json: a Transformer, a Pooling, perhaps a Normalize.
struct bnt_modules {
    char pooling_file[BNT_POOLING_FILE_SIZE]; // its config, below the folder:
                                              // "1_Pooling/config.json"
    bool normalized;
};

// Refuses other modules by name, and paths that lead out of the folder.
enum bnt_status bnt_modules_parse(struct bnt_modules *modules, const char *text, size_t size,
                                  struct bnt_error *err);

// Sets hyper's pooling and its flag. text: of the file that modules names, NULL if it is not there.
enum bnt_status bnt_pooling_parse(const struct bnt_modules *modules, const char *text, size_t size,
                                  struct bnt_hyper *hyper, struct bnt_error *err);

#endif
