// SPDX-License-Identifier: MIT
// The environment of bnt-fetch: the variables of the Hub's own tools, read once.
#ifndef BNT_CONVERT_FETCH_ENV_H
#define BNT_CONVERT_FETCH_ENV_H

#include <stdbool.h>

#include "formats/status.h"

// A proxy that libcurl will use, for messages: without what is secret.
struct bnt_fetch_proxy {
    const char *variable; // that names it
    char *address;        // NULL: there is none
};

struct bnt_fetch_env {
    char *endpoint;      // HF_ENDPOINT, without a slash at the end
    char *cache;         // HF_HUB_CACHE, or what stands for it
    char *token;         // HF_TOKEN or the token file's; NULL: none
    const char *offline; // the variable that forbids to use the network, or NULL
    bool no_bar;         // HF_HUB_DISABLE_PROGRESS_BARS
    bool no_links;       // HF_HUB_DISABLE_SYMLINKS
    struct bnt_fetch_proxy proxy_http, proxy_https;
    const char *ca_file; // SSL_CERT_FILE: certificates to trust instead of the system's
    double etag_timeout;
    double download_timeout; // seconds
    double retry_scale;      // BNT_FETCH_RETRY_SCALE
};

enum bnt_status bnt_fetch_env_read(struct bnt_fetch_env *env, struct bnt_error *err);
void bnt_fetch_env_free(struct bnt_fetch_env *env);

#endif
