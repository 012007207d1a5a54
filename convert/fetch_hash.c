// SPDX-License-Identifier: MIT
#include "convert/fetch_hash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/digest.h"

enum { CHUNK = 256 << 10 };

static bool begin_hash(EVP_MD_CTX *md, uint64_t size, const char *oid)
{
    if (strlen(oid) == BNT_FETCH_OID_TEXT - 1)
        return EVP_DigestInit_ex(md, bnt_sha256_method(), NULL) == 1;
    char header[32]; // git's: "blob", the length, a zero byte
    int length = snprintf(header, sizeof header, "blob %" PRIu64, size);
    return EVP_DigestInit_ex(md, bnt_sha1_method(), NULL) == 1 &&
           EVP_DigestUpdate(md, header, (size_t)length + 1) == 1;
}

// Hashes what lies at an offset; returns the bytes, 0 for the end or an error.
static size_t hash_chunk(EVP_MD_CTX *md, int fd, char *buffer, uint64_t offset, uint64_t end)
{
    size_t wanted = end - offset < CHUNK ? (size_t)(end - offset) : CHUNK;
    ssize_t n;
    do
        n = pread(fd, buffer, wanted, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return n > 0 && EVP_DigestUpdate(md, buffer, (size_t)n) == 1 ? (size_t)n : 0;
}

void bnt_fetch_hex(const unsigned char *bytes, size_t size, char *text)
{
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    text[2 * size] = '\0';
}

static bool end_hash(EVP_MD_CTX *md, char oid[BNT_FETCH_OID_TEXT])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (EVP_DigestFinal_ex(md, digest, &size) != 1 || 2 * size >= BNT_FETCH_OID_TEXT)
        return false;
    bnt_fetch_hex(digest, size, oid);
    return true;
}

// Waits for bytes beyond done; returns the end of what is there, or done if there will be no more.
static uint64_t wait_for_more(struct bnt_fetch_hasher *h, uint64_t done)
{
    (void)pthread_mutex_lock(&h->lock);
    while (h->available == done && !h->stop)
        (void)pthread_cond_wait(&h->more, &h->lock);
    uint64_t available = h->stop ? done : h->available;
    (void)pthread_mutex_unlock(&h->lock);
    return available;
}

static void *hash_thread(void *argument)
{
    struct bnt_fetch_hasher *h = argument;
    uint64_t done = 0;
    while (done < h->size) {
        uint64_t available = wait_for_more(h, done);
        if (available == done)
            return NULL;
        size_t n = hash_chunk(h->md, h->fd, h->buffer, done, available);
        if (n == 0) {
            h->failed = true; // read after the join
            return NULL;
        }
        done += n;
    }
    return NULL;
}

static void release(struct bnt_fetch_hasher *h)
{
    EVP_MD_CTX_free(h->md);
    free(h->buffer);
    (void)pthread_cond_destroy(&h->more);
    (void)pthread_mutex_destroy(&h->lock);
}

enum bnt_status bnt_fetch_hasher_start(struct bnt_fetch_hasher *h, int fd, uint64_t size,
                                       const char *oid, struct bnt_error *err)
{
    *h = (struct bnt_fetch_hasher){
        .fd = fd, .size = size, .md = EVP_MD_CTX_new(), .buffer = malloc(CHUNK)};
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->more, NULL);
    if (h->md && h->buffer && begin_hash(h->md, size, oid) &&
        pthread_create(&h->thread, NULL, hash_thread, h) == 0)
        return BNT_OK;
    release(h);
    return bnt_fail(err, BNT_ERR_MEMORY, "cannot start hashing: out of memory, or of threads");
}

void bnt_fetch_hasher_advance(struct bnt_fetch_hasher *h, uint64_t available)
{
    (void)pthread_mutex_lock(&h->lock);
    h->available = available;
    (void)pthread_cond_signal(&h->more);
    (void)pthread_mutex_unlock(&h->lock);
}

bool bnt_fetch_hasher_finish(struct bnt_fetch_hasher *h, char oid[BNT_FETCH_OID_TEXT])
{
    (void)pthread_join(h->thread, NULL);
    bool good = !h->failed && end_hash(h->md, oid);
    release(h);
    return good;
}

void bnt_fetch_hasher_abort(struct bnt_fetch_hasher *h)
{
    (void)pthread_mutex_lock(&h->lock);
    h->stop = true;
    (void)pthread_cond_signal(&h->more);
    (void)pthread_mutex_unlock(&h->lock);
    (void)pthread_join(h->thread, NULL);
    release(h);
}

// The bytes of the file into a hash that has begun.
static bool hash_all(EVP_MD_CTX *md, int fd, uint64_t size)
{
    char *buffer = malloc(CHUNK);
    bool good = buffer != NULL;
    for (uint64_t done = 0; good && done < size;) {
        size_t n = hash_chunk(md, fd, buffer, done, size);
        good = n > 0;
        done += n;
    }
    free(buffer);
    return good;
}

// type: NULL for the hash that the Hub would name it by.
static bool has_hash(int fd, const struct bnt_fetch_file *file, const EVP_MD *type)
{
    char found[BNT_FETCH_OID_TEXT] = "";
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool good =
        md &&
        (type ? EVP_DigestInit_ex(md, type, NULL) == 1 : begin_hash(md, file->size, file->oid)) &&
        hash_all(md, fd, file->size) && end_hash(md, found) && strcmp(found, file->oid) == 0;
    EVP_MD_CTX_free(md);
    return good;
}

bool bnt_fetch_file_is(int fd, const struct bnt_fetch_file *file)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != file->size)
        return false;
    if (has_hash(fd, file, NULL))
        return true;
    size_t digits = strlen(file->oid);
    return file->trust == BNT_FETCH_TAGGED &&
           ((digits == 40 && has_hash(fd, file, bnt_sha1_method())) ||
            (digits == 32 && has_hash(fd, file, bnt_md5_method())));
}
