// SPDX-License-Identifier: MIT
// Small models for the test of the GPU, which is not C.
#ifndef BNT_TESTS_CUDA_MODELS_H
#define BNT_TESTS_CUDA_MODELS_H

#include "formats/layout.h"

// Writes a file with random weights and scales, as tests/unit/tiny_model.h does.
void write_tiny_model(const char *path, const struct bnt_hyper *hyper, uint64_t seed);

#endif
