// SPDX-License-Identifier: MIT
// SHA-256, through OpenSSL's libcrypto.
#ifndef BNT_FORMATS_DIGEST_H
#define BNT_FORMATS_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

enum { BNT_SHA256_SIZE = 32, BNT_SHA256_TEXT = 65 };

// false: libcrypto could not (out of memory, or SHA-256 disabled by its configuration).
bool bnt_sha256(const void *data, uint64_t size, uint8_t out[BNT_SHA256_SIZE]);

// 64 lower-case hex digits and a zero byte.
void bnt_sha256_text(const uint8_t digest[BNT_SHA256_SIZE], char out[BNT_SHA256_TEXT]);

#endif
