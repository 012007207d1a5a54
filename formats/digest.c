// SPDX-License-Identifier: MIT
#include "formats/digest.h"

#include <openssl/evp.h>

bool bnt_sha256(const void *data, uint64_t size, uint8_t out[BNT_SHA256_SIZE])
{
    return EVP_Digest(data, (size_t)size, out, NULL, EVP_sha256(), NULL) == 1;
}

void bnt_sha256_text(const uint8_t digest[BNT_SHA256_SIZE], char out[BNT_SHA256_TEXT])
{
    for (int i = 0; i < BNT_SHA256_SIZE; i++) {
        out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    out[BNT_SHA256_TEXT - 1] = '\0';
}
