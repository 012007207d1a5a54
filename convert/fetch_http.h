// SPDX-License-Identifier: MIT
// HTTP for bnt-fetch, over libcurl: one request with its redirects, what is worth trying again, and
// how long to wait. Used by several threads at once.
#ifndef BNT_CONVERT_FETCH_HTTP_H
#define BNT_CONVERT_FETCH_HTTP_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "convert/fetch_env.h"
#include "convert/fetch_ui.h"
#include "formats/status.h"

enum { BNT_FETCH_MAX_JOBS = 64, BNT_FETCH_RETRIES = 5 };

struct bnt_fetch_http {
    const char *endpoint; // the only origin that ever sees the token
    char *authorization;  // "Authorization: Bearer ...", or NULL
    const char *ca_file;  // NULL: libcurl's own
    bool allow_http;
    long etag_timeout_ms;     // to connect, and for the answer to a HEAD
    long download_timeout_ms; // without a byte worth mentioning
    double retry_scale;       // of all waiting; 1 but in tests
    bool have_all;            // the files are here already: do not wait long for an answer
    const struct bnt_fetch_proxy *proxy_http, *proxy_https; // for messages; libcurl finds its own
    struct bnt_fetch_ui *ui;
    atomic_bool cancelled; // another thread failed: give up soon
    atomic_bool answered;  // there was an answer in this run: who does not answer now will again
    pthread_mutex_t lock;
    CURL *idle[BNT_FETCH_MAX_JOBS]; // with their open connections
    size_t idle_count;
};

// The headers that matter, as text; empty where missing.
struct bnt_fetch_response {
    long status;
    bool unreachable; // no answer, or one that another try may better (bnt_fetch_http_ask)
    char location[8192];
    char etag[256];
    char linked_etag[256];
    char linked_size[32];
    char content_length[32];
    char content_range[128];
    char commit[128];
    char error_code[64];
    char error_message[256];
    char request_id[128];
    char retry_after[64];
    char rate_limit[128];
    char link[8192];
};

// Takes the body of an answer 200 or 206. begin comes once before the data, also if there is none.
// A status other than BNT_OK ends the request with that error.
struct bnt_fetch_sink {
    enum bnt_status (*begin)(void *context, const struct bnt_fetch_response *response,
                             struct bnt_error *err);
    enum bnt_status (*data)(void *context, const char *data, size_t size, struct bnt_error *err);
    void *context;
};

struct bnt_fetch_request {
    const char *url;
    bool head;       // follows relative redirects only, so that the caller sees where the bytes are
    uint64_t offset; // of the first byte wanted
    const struct bnt_fetch_sink *sink;
};

enum bnt_fetch_outcome {
    BNT_FETCH_ANSWERED, // response->status says what; the body is complete if it is 2xx
    BNT_FETCH_NETWORK,  // the connection failed: worth another try
    BNT_FETCH_NOBODY,   // there was none: refused, or no such host
    BNT_FETCH_FATAL,    // refused, cancelled, or the sink failed
};

// What trying again has cost so far.
struct bnt_fetch_patience {
    unsigned failures; // in a row
    double waited;     // seconds
    bool slow;         // the tries themselves took long
};

void bnt_fetch_http_init(struct bnt_fetch_http *http);
void bnt_fetch_http_close(struct bnt_fetch_http *http);

// One request; redirects are followed, with the token only to the endpoint's own origin. err is
// filled unless BNT_FETCH_ANSWERED.
enum bnt_fetch_outcome bnt_fetch_http_try(struct bnt_fetch_http *http,
                                          const struct bnt_fetch_request *request,
                                          struct bnt_fetch_response *response,
                                          struct bnt_error *err);

// The same with retries; BNT_OK if there was an answer, of any status.
enum bnt_status bnt_fetch_http_ask(struct bnt_fetch_http *http,
                                   const struct bnt_fetch_request *request,
                                   struct bnt_fetch_response *response, struct bnt_error *err);

// 408, 429, 500, 502, 503, 504.
bool bnt_fetch_http_is_passing(long status);
// Waits before the next try, as long as the answer (NULL: there was none) asks or as usual. false:
// the tries are used up, or the server asks for more patience than a user has, or cancelled. why:
// what failed, said once when the waiting becomes long.
bool bnt_fetch_http_wait(struct bnt_fetch_http *http, struct bnt_fetch_patience *patience,
                         const struct bnt_fetch_response *response, const char *why);

#endif
