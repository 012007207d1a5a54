// SPDX-License-Identifier: MIT
// Sine and cosine for the rotary embedding, the same bits on every machine: the C library's differ
// from system to system.
#ifndef BNT_RUNTIME_SINCOS_H
#define BNT_RUNTIME_SINCOS_H

#include <math.h>

// angle: 0 … 2^24; others, which only a damaged file can bring about, count as 0. angle = n·π/2 +
// r, |r| <= π/4, in double; Taylor's series to r^11 and r^12 then err by less than 2^-37, so nearly
// all results are the rounded exact ones.
static inline void bnt_sincos(float angle, float *sine, float *cosine)
{
    angle = angle >= 0 && angle <= 0x1p24f ? angle : 0;
    const double half_pi_high = 0x1.921fb544p+0; // 33 bits: n · this is exact
    const double half_pi_low = 0x1.0b4611a626331p-34;
    double n = rint((double)angle * 0x1.45f306dc9c883p-1); // 2/π
    double r = ((double)angle - n * half_pi_high) - n * half_pi_low;
    double z = r * r;
    double s = 1.0 / 362880 + z * (-1.0 / 39916800);
    s = -1.0 / 5040 + z * s;
    s = 1.0 / 120 + z * s;
    s = -1.0 / 6 + z * s;
    s = r + r * z * s;
    double c = -1.0 / 3628800 + z * (1.0 / 479001600);
    c = 1.0 / 40320 + z * c;
    c = -1.0 / 720 + z * c;
    c = 1.0 / 24 + z * c;
    c = (1 - 0.5 * z) + z * z * c;
    switch ((int)n & 3) { // quarter turns
    case 0:
        *sine = (float)s;
        *cosine = (float)c;
        break;
    case 1:
        *sine = (float)c;
        *cosine = (float)-s;
        break;
    case 2:
        *sine = (float)-s;
        *cosine = (float)-c;
        break;
    default:
        *sine = (float)-c;
        *cosine = (float)s;
        break;
    }
}

#endif
