// SPDX-License-Identifier: MIT
// Which files of a repository are wanted, and which names are fit to become paths here.
#ifndef BNT_CONVERT_FETCH_PLAN_H
#define BNT_CONVERT_FETCH_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"

enum { BNT_FETCH_OID_TEXT = 65, BNT_FETCH_COMMIT_TEXT = 41 };

struct bnt_fetch_file {
    char *path;
    uint64_t size;
    // The name of the bytes: their sha256 (64 digits; LFS), or git's sha1 of them as a blob (40).
    char oid[BNT_FETCH_OID_TEXT];
    bool fetched; // in this run; otherwise it was here already
};

struct bnt_fetch_listing {
    char commit[BNT_FETCH_COMMIT_TEXT];
    char *license; // NULL: the model card names none
    struct bnt_fetch_file *files;
    size_t count;
    size_t capacity;
};

enum bnt_status bnt_fetch_listing_add(struct bnt_fetch_listing *listing, const char *path,
                                      uint64_t size, const char *oid, struct bnt_error *err);
void bnt_fetch_listing_free(struct bnt_fetch_listing *listing);

// Lower-case hex, exactly so many digits.
bool bnt_fetch_is_hex(const char *text, size_t digits);
// "name" or "org/name", as the Hub allows.
bool bnt_fetch_is_repo(const char *text);

// Why a name cannot become a path below a folder of ours; NULL if it can.
const char *bnt_fetch_name_problem(const char *name);

// Whether a path is among the patterns (Python's fnmatch: '*' matches '/' too), or, without any,
// among what a conversion needs.
bool bnt_fetch_wanted(const char *path, const char *const *patterns, size_t count);

// Drops the files that are not wanted. Fails if a name is hostile, if a pattern that is a plain
// name finds no file, or if nothing is left.
enum bnt_status bnt_fetch_select(struct bnt_fetch_listing *listing, const char *const *patterns,
                                 size_t count, struct bnt_error *err);

#endif
