// SPDX-License-Identifier: MIT
// Unaligned little-endian loads, number conversions of checkpoint types, checked arithmetic.
#ifndef BNT_FORMATS_BYTES_H
#define BNT_FORMATS_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// Records are copied between file and struct as they are, and kernels use the file's words in
// place.
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bnt runs on little-endian machines");

static inline uint16_t bnt_load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t bnt_load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t bnt_load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float bnt_float_from_bits(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint32_t bnt_bits_from_float(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static inline float bnt_load_f32(const void *p)
{
    return bnt_float_from_bits(bnt_load_u32(p));
}

static inline float bnt_float_from_bf16(uint16_t v)
{
    return bnt_float_from_bits((uint32_t)v << 16);
}

// Exact for every half, subnormals and non-finite values included.
static inline float bnt_float_from_f16(uint16_t v)
{
    uint32_t sign = (uint32_t)(v & 0x8000) << 16;
    uint32_t magnitude = v & 0x7fff;
    if (magnitude >= 0x7c00) // Inf, NaN
        return bnt_float_from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    // Read as f32 the exponent is 112 too small; the multiplication mends it and normalizes
    // subnormals.
    float scaled = bnt_float_from_bits(magnitude << 13) * 0x1p112f;
    return bnt_float_from_bits(sign | bnt_bits_from_float(scaled));
}

// Round to nearest, ties to even. NaN stays NaN.
static inline uint16_t bnt_bf16_from_float(float v)
{
    uint32_t bits = bnt_bits_from_float(v);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Round to nearest, ties to even, limited to ±65504. NaN stays NaN.
static inline uint16_t bnt_f16_from_float(float v)
{
    uint32_t bits = bnt_bits_from_float(v), sign = bits >> 16 & 0x8000,
             magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude > 0x477fe000) // 65504
        magnitude = 0x477fe000;
    if (magnitude < 0x38800000) { // below 2^-14: adding 0.5 leaves multiples of 2^-24, rounded
        float shifted = bnt_float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bnt_bits_from_float(shifted) - 0x3f000000));
    }
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

static inline uint64_t bnt_round_up(uint64_t x, uint64_t multiple)
{
    return (x + multiple - 1) / multiple * multiple;
}

static inline bool bnt_mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

#endif
