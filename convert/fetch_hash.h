// SPDX-License-Identifier: MIT
// Hashing in a thread of its own, so that it overlaps with receiving: the thread reads back what
// the receiver has written to the file, out of the page cache. What a file held before counts like
// what has just come, so resuming needs no second way.
#ifndef BNT_CONVERT_FETCH_HASH_H
#define BNT_CONVERT_FETCH_HASH_H

#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "convert/fetch_plan.h"

struct bnt_fetch_hasher {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    EVP_MD_CTX *md;
    char *buffer;
    int fd;
    uint64_t available; // bytes that may be read
    uint64_t size;      // of the whole file
    bool stop;
    bool failed;
};

// sha256 if oid has 64 digits, else git's sha1.
enum bnt_status bnt_fetch_hasher_start(struct bnt_fetch_hasher *hasher, int fd, uint64_t size,
                                       const char *oid, struct bnt_error *err);
void bnt_fetch_hasher_advance(struct bnt_fetch_hasher *hasher, uint64_t available);
// Waits until all of size is hashed; false if it could not be. The hasher is gone afterwards.
bool bnt_fetch_hasher_finish(struct bnt_fetch_hasher *hasher, char oid[BNT_FETCH_OID_TEXT]);
void bnt_fetch_hasher_abort(struct bnt_fetch_hasher *hasher);

// Bytes as lower-case hex: text has room for 2 * size + 1.
void bnt_fetch_hex(const unsigned char *bytes, size_t size, char *text);

// Whether an open file has the size and the hash that file names. The ETag of a mirror may be any
// hash: sha256, git's or the plain sha1, md5.
bool bnt_fetch_file_is(int fd, const struct bnt_fetch_file *file);

#endif
