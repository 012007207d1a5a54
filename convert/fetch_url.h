// SPDX-License-Identifier: MIT
// URLs of bnt-fetch: putting them together, and deciding which may be asked and may see the token.
#ifndef BNT_CONVERT_FETCH_URL_H
#define BNT_CONVERT_FETCH_URL_H

#include <stdbool.h>

#include "formats/status.h"

// printf into fresh memory; NULL if there is none.
__attribute__((format(printf, 1, 2))) char *bnt_fetch_format(const char *format, ...);

// Percent-encodes all but letters, digits, "_.-~" and the characters of safe. NULL: no memory.
char *bnt_fetch_url_quote(const char *text, const char *safe);

// What RFC 6454 calls an origin; a token belongs to exactly one.
struct bnt_fetch_origin {
    char scheme[8];
    char host[256];
    char port[8];
};

// false: no http or https URL, or one that carries a user name.
bool bnt_fetch_origin_of(const char *url, struct bnt_fetch_origin *origin);
bool bnt_fetch_same_origin(const char *url, const char *other);
bool bnt_fetch_is_loopback(const struct bnt_fetch_origin *origin);

// Where a Location header leads, seen from the URL that sent it. NULL: nowhere.
char *bnt_fetch_url_resolve(const char *base, const char *location);
// It names no host: the server stays the same.
bool bnt_fetch_location_is_relative(const char *location);

// https always; http only to this machine or when the user said so. from: the URL that redirects
// here, or NULL; what began encrypted stays encrypted.
enum bnt_status bnt_fetch_url_check(const char *url, const char *from, bool allow_http,
                                    struct bnt_error *err);

#endif
