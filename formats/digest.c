// SPDX-License-Identifier: MIT
#include "formats/digest.h"

#include <pthread.h>

static pthread_once_t looked_up = PTHREAD_ONCE_INIT;
static EVP_MD *md5, *sha1, *sha256; // kept to the end of the process

static void look_up(void)
{
    md5 = EVP_MD_fetch(NULL, "MD5", NULL);
    sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
}

const EVP_MD *bnt_md5_method(void)
{
    (void)pthread_once(&looked_up, look_up);
    return md5;
}

const EVP_MD *bnt_sha1_method(void)
{
    (void)pthread_once(&looked_up, look_up);
    return sha1;
}

const EVP_MD *bnt_sha256_method(void)
{
    (void)pthread_once(&looked_up, look_up);
    return sha256;
}

bool bnt_sha256(const void *data, uint64_t size, uint8_t out[BNT_SHA256_SIZE])
{
    return EVP_Digest(data, (size_t)size, out, NULL, bnt_sha256_method(), NULL) == 1;
}

void bnt_sha256_text(const uint8_t digest[BNT_SHA256_SIZE], char out[BNT_SHA256_TEXT])
{
    for (int i = 0; i < BNT_SHA256_SIZE; i++) {
        out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    out[BNT_SHA256_TEXT - 1] = '\0';
}
