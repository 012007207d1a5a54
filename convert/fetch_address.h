// SPDX-License-Identifier: MIT
// What people type for a model: "org/name", with "@revision" or without, or what their browser
// shows.
#ifndef BNT_CONVERT_FETCH_ADDRESS_H
#define BNT_CONVERT_FETCH_ADDRESS_H

#include "formats/status.h"

struct bnt_fetch_address {
    char *repo;     // "name" or "org/name", as the Hub allows
    char *revision; // NULL: it names none
};

// Takes name, org/name, org/name@revision, hf://org/name@revision, and the addresses of pages below
// https://huggingface.co/, https://hf.co/ and endpoint: those of a model, and its tree/REV,
// blob/REV, resolve/REV, raw/REV, blame/REV, commit/REV and commits/REV, whatever file they show.
// Fails with a usage error. Free with bnt_fetch_address_free, also after a failure.
enum bnt_status bnt_fetch_address_read(struct bnt_fetch_address *address, const char *text,
                                       const char *endpoint, struct bnt_error *err);
void bnt_fetch_address_free(struct bnt_fetch_address *address);

#endif
