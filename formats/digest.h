// SPDX-License-Identifier: MIT
// SHA-256 and the Hub's other hashes, through OpenSSL's libcrypto.
#ifndef BNT_FORMATS_DIGEST_H
#define BNT_FORMATS_DIGEST_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

enum { BNT_SHA256_SIZE = 32, BNT_SHA256_TEXT = 65 };

// false: libcrypto could not (out of memory, or SHA-256 disabled by its configuration).
bool bnt_sha256(const void *data, uint64_t size, uint8_t out[BNT_SHA256_SIZE]);

// libcrypto's implementations, or NULL where its configuration has none. Looked up once: by
// EVP_sha256() every beginning of a digest looks it up anew, in a table that all threads share and
// that OpenSSL 3.5 reads without a lock. It may (an entry is complete before an atomic store shows
// it), but the thread sanitizer does not see the atomics of a library that it was not built for.
const EVP_MD *bnt_md5_method(void);
const EVP_MD *bnt_sha1_method(void);
const EVP_MD *bnt_sha256_method(void);

// 64 lower-case hex digits and a zero byte.
void bnt_sha256_text(const uint8_t digest[BNT_SHA256_SIZE], char out[BNT_SHA256_TEXT]);

#endif
