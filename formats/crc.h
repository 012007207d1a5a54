// SPDX-License-Identifier: MIT
// CRC-32 of any length (zlib's own takes 32-bit lengths).
#ifndef BNT_FORMATS_CRC_H
#define BNT_FORMATS_CRC_H

#include <stdint.h>

// Continues from crc (0 at the start) over size bytes.
uint32_t bnt_crc32(uint32_t crc, const void *data, uint64_t size);

#endif
