// SPDX-License-Identifier: MIT
// Which files of a repository are wanted, and which names are fit to become paths here.
#ifndef BNT_CONVERT_FETCH_PLAN_H
#define BNT_CONVERT_FETCH_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"

enum { BNT_FETCH_OID_TEXT = 65, BNT_FETCH_COMMIT_TEXT = 41 };

// What is known of a file's bytes, and from where.
enum bnt_fetch_trust {
    BNT_FETCH_LISTED,   // oid is their hash; nothing else passes
    BNT_FETCH_UNLISTED, // only the path: a mirror lists no more, and has to be asked
    BNT_FETCH_TAGGED,   // oid is the mirror's ETag: some hash of them, or none
};

struct bnt_fetch_file {
    char *path;
    uint64_t size;
    // The name of the bytes: their sha256 (64 digits; LFS), or git's sha1 of them as a blob (40).
    char oid[BNT_FETCH_OID_TEXT];
    enum bnt_fetch_trust trust;
    bool fetched; // in this run; otherwise it was here already
};

struct bnt_fetch_listing {
    char commit[BNT_FETCH_COMMIT_TEXT];
    char *license; // NULL: the model card names none
    struct bnt_fetch_file *files;
    size_t count;
    size_t capacity;
};

// An empty oid makes it an unlisted file.
enum bnt_status bnt_fetch_listing_add(struct bnt_fetch_listing *listing, const char *path,
                                      uint64_t size, const char *oid, struct bnt_error *err);
struct bnt_fetch_file *bnt_fetch_listing_find(const struct bnt_fetch_listing *listing,
                                              const char *path);
// Exchanges the files; commit and licence stay.
void bnt_fetch_listing_swap_files(struct bnt_fetch_listing *a, struct bnt_fetch_listing *b);
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

// Fails if a name is one that no git tree holds.
enum bnt_status bnt_fetch_check_names(const struct bnt_fetch_listing *listing,
                                      struct bnt_error *err);

// Fails, saying what there is instead, unless the files are enough for a conversion: config.json,
// weights in safetensors under the names that bnt-convert reads, tokenizer.json.
enum bnt_status bnt_fetch_check_model(const struct bnt_fetch_listing *listing,
                                      struct bnt_error *err);

// Drops the files that are not wanted. Fails if a name is hostile, if a pattern that is a plain
// name finds no file, or if nothing is left.
enum bnt_status bnt_fetch_select(struct bnt_fetch_listing *listing, const char *const *patterns,
                                 size_t count, struct bnt_error *err);

#define BNT_FETCH_INDEX "model.safetensors.index.json"
enum { BNT_FETCH_MAX_INDEX = 16 << 20 }; // bytes

// The index that decides which weights are read, or NULL where model.safetensors does.
const struct bnt_fetch_file *bnt_fetch_deciding_index(const struct bnt_fetch_listing *listing);

// Keeps of the weights only those that a conversion reads: model.safetensors, else the shards that
// the index names. index: its text, NULL if bnt_fetch_deciding_index has none. Fails if a shard is
// not there.
enum bnt_status bnt_fetch_keep_weights(struct bnt_fetch_listing *listing, const char *index,
                                       size_t size, struct bnt_error *err);

#endif
