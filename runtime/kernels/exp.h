// SPDX-License-Identifier: MIT
// The exponential that all kernels share, so that they agree to the last bit on every machine: the
// C library's differs from system to system. kernel_float.h repeats these steps in vectors.
#ifndef BNT_RUNTIME_EXP_H
#define BNT_RUNTIME_EXP_H

#include <stdint.h>

#include "formats/bytes.h"

// exp(x) = 2^n · e^r with n = round(x / ln 2), |r| <= ln(2)/2. e^r = 1 + r + r²·(C0 + … + C4·r⁴)
// has a relative error below 2^-28 (a minimax fit by Remez' algorithm); rounding adds less than 2
// units in the last place. x is limited to [−87, 88], where results are neither subnormal nor
// infinite.
#define BNT_EXP_LOW    -87.0f
#define BNT_EXP_HIGH   88.0f
#define BNT_EXP_LOG2E  0x1.715476p+0f
#define BNT_EXP_LN2_HI 0x1.62p-1f // n · this is exact
#define BNT_EXP_LN2_LO 0x1.c85fep-10f
#define BNT_EXP_C0     0x1.fffffcp-2f
#define BNT_EXP_C1     0x1.555492p-3f
#define BNT_EXP_C2     0x1.5558f2p-5f
#define BNT_EXP_C3     0x1.123a20p-7f
#define BNT_EXP_C4     0x1.6a23d0p-10f

// Adding this rounds a small number to an integer, half to even, and leaves it in the low bits.
#define BNT_ROUNDER 12582912.0f // 1.5 · 2^23

// NaN gives NaN.
static inline float bnt_exp(float x)
{
    x = x < BNT_EXP_LOW ? BNT_EXP_LOW : x;
    x = x > BNT_EXP_HIGH ? BNT_EXP_HIGH : x;
    float shifted = x * BNT_EXP_LOG2E + BNT_ROUNDER;
    float n = shifted - BNT_ROUNDER;
    float r = x - n * BNT_EXP_LN2_HI;
    r = r - n * BNT_EXP_LN2_LO;
    float p = BNT_EXP_C4;
    p = p * r + BNT_EXP_C3;
    p = p * r + BNT_EXP_C2;
    p = p * r + BNT_EXP_C1;
    p = p * r + BNT_EXP_C0;
    p = p * (r * r) + r;
    p = p + 1.0f;
    uint32_t exponent = bnt_bits_from_float(shifted) - bnt_bits_from_float(BNT_ROUNDER) + 127;
    return p * bnt_float_from_bits(exponent << 23);
}

#endif
