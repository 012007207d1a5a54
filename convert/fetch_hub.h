// SPDX-License-Identifier: MIT
// The Hub's own protocol: what a revision holds, where a file's bytes are, what its errors mean.
#ifndef BNT_CONVERT_FETCH_HUB_H
#define BNT_CONVERT_FETCH_HUB_H

#include "convert/fetch_http.h"
#include "convert/fetch_plan.h"

struct bnt_fetch_hub {
    struct bnt_fetch_http *http;
    const char *repo;
    const char *revision; // as the user named it
    char commit[BNT_FETCH_COMMIT_TEXT];
    bool unreachable; // why bnt_fetch_hub_list failed: no answer, or only passing errors
};

// All files of the revision, the commit that it stands for, the licence of the model card. Where a
// mirror lists neither sizes nor hashes, files are BNT_FETCH_UNLISTED.
enum bnt_status bnt_fetch_hub_list(struct bnt_fetch_hub *hub, struct bnt_fetch_listing *listing,
                                   struct bnt_error *err);

// Asks for size and ETag of an unlisted file, which becomes a listed one (if the mirror passes on
// the Hub's sha256) or a tagged one.
enum bnt_status bnt_fetch_hub_describe(const struct bnt_fetch_hub *hub, struct bnt_fetch_file *file,
                                       struct bnt_error *err);

// Where the bytes of a file are: *url (malloc'd). *expires: it is a signed link elsewhere, not the
// Hub's own address. Fails if the Hub has another file there than the listing said.
enum bnt_status bnt_fetch_hub_locate(const struct bnt_fetch_hub *hub,
                                     const struct bnt_fetch_file *file, char **url, bool *expires,
                                     struct bnt_error *err);

// The error for an answer that is neither good nor worth another try. path: NULL for the listing.
enum bnt_status bnt_fetch_hub_refusal(const struct bnt_fetch_hub *hub, const char *path,
                                      const struct bnt_fetch_response *response,
                                      struct bnt_error *err);

#endif
