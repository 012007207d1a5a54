// SPDX-License-Identifier: MIT
// The float half in 256-bit registers. A file defines KERNEL_TARGET, with AVX2 and F16C in it, then
// includes this.
#include <immintrin.h>

#define VECTOR_FLOATS 8
#define SCORE_QUERIES 4
#define MIX_QUERIES   2
#define MIX_PARTS     4
#define load_half(p)  ((vec)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(p))))
#define store_half(p, v)                                                                           \
    _mm_storeu_si128((void *)(p), _mm256_cvtps_ph((__m256)(v), _MM_FROUND_TO_NEAREST_INT))
#define load_widened(p) _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p)))
#include "runtime/kernels/kernel_float.h"
