// SPDX-License-Identifier: MIT
#include "tests/cuda/models.h"

#include "tests/unit/tiny_model.h"

void write_tiny_model(const char *path, const struct bnt_hyper *hyper, uint64_t seed)
{
    tiny_write(path, hyper, NULL, 0, seed);
}
