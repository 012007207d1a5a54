// SPDX-License-Identifier: MIT
// The generator of sampling, the same for both devices: the same seed gives the same text.
#ifndef BNT_RUNTIME_RANDOM_H
#define BNT_RUNTIME_RANDOM_H

#include <stdint.h>

// splitmix64: a number in [0, 1).
static inline double bnt_random_number(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

#endif
