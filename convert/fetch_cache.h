// SPDX-License-Identifier: MIT
// Where files go. Either the cache that the Python tools share,
//   models--org--name/{blobs/<oid>, refs/<revision>, snapshots/<commit>/<path> ->
//   ../../blobs/<oid>} .locks/models--org--name/<oid>.lock
// or a plain folder (--local-dir), whose unfinished files lie in its .cache/bnt/. Where there are
// no symbolic links, the files themselves lie in the snapshot, as huggingface_hub has it. A file
// that is being fetched is <oid>.incomplete in the blobs folder, under a lock; where locks do not
// hold, <oid>.<anything>.incomplete, which belongs to one process.
#ifndef BNT_CONVERT_FETCH_CACHE_H
#define BNT_CONVERT_FETCH_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "convert/fetch_plan.h"
#include "convert/fetch_ui.h"

struct bnt_fetch_store {
    bool plain;    // --local-dir
    bool no_links; // the user wants none
    char *root;    // the folder that the user gets
    char *blobs;   // of finished blobs (cache) and unfinished ones (both)
    char *locks;
    char *refs;
    const char *local_dir; // NULL: the cache
};

// Computes the names; touches nothing. commit may be empty where only refs is of interest.
enum bnt_status bnt_fetch_store_init(struct bnt_fetch_store *store, const char *cache,
                                     const char *local_dir, const char *repo, const char *commit,
                                     struct bnt_error *err);
void bnt_fetch_store_free(struct bnt_fetch_store *store);

// Makes the folders.
enum bnt_status bnt_fetch_store_create(const struct bnt_fetch_store *store, struct bnt_error *err);

// Whether the file is in its place: the right link to a blob of the right size, else a file with
// the right hash.
bool bnt_fetch_store_has(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file);
// Whether the cache has the bytes, if under another name.
bool bnt_fetch_store_has_blob(const struct bnt_fetch_store *store,
                              const struct bnt_fetch_file *file);

// Bytes of the unfinished file.
uint64_t bnt_fetch_store_partial(const struct bnt_fetch_store *store,
                                 const struct bnt_fetch_file *file);
// The path of the unfinished file, malloc'd, or NULL. alone: the caller holds a lock that holds. If
// not, it is a name of this call's own, which has got what lay under the common one.
char *bnt_fetch_store_claim(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file,
                            bool alone);
// After a failure: puts it back under the common name, for the next run.
void bnt_fetch_store_leave(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file,
                           const char *partial);

// Waits for the lock of a blob; *lock is closed to let it go. Says once if it has to wait. *alone:
// whether it keeps others out: on some file systems it does nothing.
enum bnt_status bnt_fetch_store_lock(const struct bnt_fetch_store *store,
                                     const struct bnt_fetch_file *file, struct bnt_fetch_ui *ui,
                                     const atomic_bool *cancelled, int *lock, bool *alone,
                                     struct bnt_error *err);

// Whether the file can get its name; before its bytes are fetched.
enum bnt_status bnt_fetch_store_check(const struct bnt_fetch_store *store,
                                      const struct bnt_fetch_file *file, struct bnt_error *err);

// Gives the verified file partial (NULL: the blob is there already) its final name.
enum bnt_status bnt_fetch_store_place(const struct bnt_fetch_store *store,
                                      const struct bnt_fetch_file *file, const char *partial,
                                      struct bnt_error *err);

// Notes which commit a branch or tag stands for; nothing for a commit itself.
enum bnt_status bnt_fetch_store_write_ref(const struct bnt_fetch_store *store, const char *revision,
                                          const char *commit, struct bnt_error *err);
// The commit that a revision stood for at the last fetch; false if that is not known.
bool bnt_fetch_store_read_ref(const struct bnt_fetch_store *store, const char *revision,
                              char commit[BNT_FETCH_COMMIT_TEXT]);

// The files below root that are wanted and complete (no dangling links).
enum bnt_status bnt_fetch_store_walk(const struct bnt_fetch_store *store,
                                     const char *const *patterns, size_t count,
                                     struct bnt_fetch_listing *listing, struct bnt_error *err);

#endif
