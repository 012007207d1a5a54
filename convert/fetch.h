// SPDX-License-Identifier: MIT
// What bnt-fetch does: list, choose, fetch several files at a time, or answer from the cache.
#ifndef BNT_CONVERT_FETCH_H
#define BNT_CONVERT_FETCH_H

#include <stdbool.h>
#include <stddef.h>

#include "convert/fetch_env.h"
#include "convert/fetch_plan.h"

struct bnt_fetch_options {
    const char *repo;
    const char *revision;
    const char *local_dir;      // NULL: the cache
    const char *const *include; // patterns
    size_t include_count;       // 0: what a conversion needs
    unsigned jobs;
    bool quiet;
    bool allow_http;
};

struct bnt_fetch_result {
    char *folder;
    struct bnt_fetch_listing listing; // of the files chosen; oids are empty when offline
};

enum bnt_status bnt_fetch(const struct bnt_fetch_options *options, const struct bnt_fetch_env *env,
                          struct bnt_fetch_result *result, struct bnt_error *err);
void bnt_fetch_result_free(struct bnt_fetch_result *result);

#endif
