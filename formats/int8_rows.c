// SPDX-License-Identifier: MIT
#include "formats/int8_rows.h"

#include <math.h>
#include <string.h>

#include "formats/bytes.h"

static float load(enum bnt_dtype dtype, const uint8_t *row, uint32_t i)
{
    return dtype == BNT_F32 ? bnt_load_f32(row + 4 * (uint64_t)i)
                            : bnt_float_from_bf16(bnt_load_u16(row + 2 * (uint64_t)i));
}

float bnt_int8_row(enum bnt_dtype dtype, const uint8_t *row, uint32_t n, int8_t *out)
{
    float max = 0;
    for (uint32_t i = 0; i < n; i++)
        max = fabsf(load(dtype, row, i)) > max ? fabsf(load(dtype, row, i)) : max;
    if (max < 0x1p-100f) { // such a row cannot matter, and its scale might be subnormal
        memset(out, 0, n);
        return 1.0f;
    }
    float scale = max / 127.0f;
    for (uint32_t i = 0; i < n; i++) {
        float q = rintf(load(dtype, row, i) / scale);
        out[i] = (int8_t)(q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q);
    }
    return scale;
}
