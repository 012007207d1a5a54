// SPDX-License-Identifier: MIT
#include "formats/crc.h"

#include <stddef.h>
#include <zlib.h>

uint32_t bnt_crc32(uint32_t crc, const void *data, uint64_t size)
{
    return (uint32_t)crc32_z(crc, data, (size_t)size);
}
