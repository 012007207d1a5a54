// SPDX-License-Identifier: MIT
#include "convert/fetch_http.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "convert/fetch_url.h"
#include "formats/cli.h"

enum {
    MAX_HEADER_BYTES = 256 << 10, // of one answer
    MAX_IGNORED_BODY = 1 << 20,   // of an answer that says no; then it is cut off
    MAX_REDIRECTS = 5,
    RECEIVE_BUFFER = 256 << 10, // small enough to be hashed while the cache has it
    SLOWEST = 512,              // bytes a second; below it a peer counts as stalled
    MAX_PATIENCE = 300,         // seconds that a server may ask us to wait
    SHORT_PATIENCE = 10,        // seconds in all, where all files are here already
    NOTED_WAIT = 2,             // seconds; a user should know what takes so long
    SLOW_TRY = 8,               // seconds, of tries that failed; the same
};

void bnt_fetch_http_init(struct bnt_fetch_http *http)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    atomic_init(&http->cancelled, false);
    atomic_init(&http->answered, false);
    (void)pthread_mutex_init(&http->lock, NULL);
    http->idle_count = 0;
}

void bnt_fetch_http_close(struct bnt_fetch_http *http)
{
    while (http->idle_count > 0)
        curl_easy_cleanup(http->idle[--http->idle_count]);
    (void)pthread_mutex_destroy(&http->lock);
    curl_global_cleanup();
}

static CURL *take_handle(struct bnt_fetch_http *http)
{
    CURL *curl = NULL;
    (void)pthread_mutex_lock(&http->lock);
    if (http->idle_count > 0)
        curl = http->idle[--http->idle_count];
    (void)pthread_mutex_unlock(&http->lock);
    return curl ? curl : curl_easy_init();
}

static void give_handle(struct bnt_fetch_http *http, CURL *curl)
{
    curl_easy_reset(curl); // options go, connections stay
    (void)pthread_mutex_lock(&http->lock);
    bool keep = http->idle_count < BNT_FETCH_MAX_JOBS;
    if (keep)
        http->idle[http->idle_count++] = curl;
    (void)pthread_mutex_unlock(&http->lock);
    if (!keep)
        curl_easy_cleanup(curl);
}

// --- one exchange ---

struct exchange {
    struct bnt_fetch_http *http;
    const struct bnt_fetch_request *request;
    struct bnt_fetch_response *response;
    struct bnt_error *err;
    size_t header_bytes;
    size_t ignored_bytes;
    bool begun;
    bool sink_failed;
    bool cut; // we ended it, having seen enough
};

#define HEADER(name, field)                                                                        \
    {                                                                                              \
        name, offsetof(struct bnt_fetch_response, field),                                          \
            sizeof((struct bnt_fetch_response *)0)->field                                          \
    }

static const struct {
    const char *name;
    size_t offset;
    size_t size;
} wanted_headers[] = {
    HEADER("location", location),
    HEADER("etag", etag),
    HEADER("x-linked-etag", linked_etag),
    HEADER("x-linked-size", linked_size),
    HEADER("content-length", content_length),
    HEADER("content-range", content_range),
    HEADER("x-repo-commit", commit),
    HEADER("x-error-code", error_code),
    HEADER("x-error-message", error_message),
    HEADER("x-request-id", request_id),
    HEADER("retry-after", retry_after),
    HEADER("ratelimit", rate_limit),
    HEADER("link", link),
};

// Keeps one header line if it is wanted. A value that does not fit counts as missing: cut short it
// would mean something else.
static void keep_header(struct bnt_fetch_response *response, const char *line, size_t size)
{
    const char *colon = memchr(line, ':', size);
    if (!colon)
        return;
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1;
    const char *end = line + size;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    for (size_t i = 0; i < sizeof wanted_headers / sizeof wanted_headers[0]; i++) {
        char *out = (char *)response + wanted_headers[i].offset;
        if (strlen(wanted_headers[i].name) != name ||
            strncasecmp(wanted_headers[i].name, line, name) != 0)
            continue;
        size_t length = (size_t)(end - value);
        if (length >= wanted_headers[i].size || memchr(value, '\0', length))
            length = 0;
        memcpy(out, value, length);
        out[length] = '\0';
    }
}

static size_t on_header(char *line, size_t one, size_t size, void *context)
{
    struct exchange *x = context;
    (void)one;
    x->header_bytes += size;
    if (x->header_bytes > MAX_HEADER_BYTES)
        return 0;
    if (size > 5 && strncmp(line, "HTTP/", 5) == 0) // also after 100 Continue or a proxy's answer
        memset(x->response, 0, sizeof *x->response);
    else
        keep_header(x->response, line, size);
    return size;
}

static bool wants_body(const struct exchange *x, CURL *curl)
{
    long status = 0;
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    x->response->status = status;
    return x->request->sink && (status == 200 || status == 206);
}

static bool begin_body(struct exchange *x)
{
    x->begun = true;
    x->sink_failed =
        x->request->sink->begin(x->request->sink->context, x->response, x->err) != BNT_OK;
    return !x->sink_failed;
}

struct body_context {
    struct exchange *x;
    CURL *curl;
};

static size_t on_body(char *data, size_t one, size_t size, void *context)
{
    struct body_context *body = context;
    struct exchange *x = body->x;
    (void)one;
    if (!wants_body(x, body->curl)) {
        x->ignored_bytes += size;
        x->cut = x->ignored_bytes > MAX_IGNORED_BODY;
        return x->cut ? 0 : size;
    }
    if (!x->begun && !begin_body(x))
        return 0;
    const struct bnt_fetch_sink *sink = x->request->sink;
    x->sink_failed = sink->data(sink->context, data, size, x->err) != BNT_OK;
    return x->sink_failed ? 0 : size;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    return atomic_load(&((struct bnt_fetch_http *)context)->cancelled);
}

static void set_safety(CURL *curl, const char *ca_file)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    (void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
    (void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L); // redirects are ours to judge
    (void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
    if (ca_file)
        (void)curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L); // we have threads
}

static void set_timeouts(CURL *curl, const struct exchange *x)
{
    const struct bnt_fetch_http *http = x->http;
    long quiet = (http->download_timeout_ms + 999) / 1000;
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, http->etag_timeout_ms);
    if (x->request->head)
        (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, http->etag_timeout_ms);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, quiet);
}

static void set_callbacks(CURL *curl, struct exchange *x, struct body_context *body)
{
    (void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x->http);
}

// NULL: no memory.
static struct curl_slist *make_headers(const struct exchange *x, const char *url)
{
    struct curl_slist *list = curl_slist_append(NULL, "Accept-Encoding: identity");
    if (!list || !x->http->authorization || !bnt_fetch_same_origin(url, x->http->endpoint))
        return list;
    struct curl_slist *longer = curl_slist_append(list, x->http->authorization);
    if (!longer)
        curl_slist_free_all(list);
    return longer;
}

// A proxy that wants to know who asks: no try without a name will do.
static enum bnt_fetch_outcome proxy_refuses(struct exchange *x,
                                            const struct bnt_fetch_origin *origin)
{
    bool https = strcmp(origin->scheme, "https") == 0;
    const struct bnt_fetch_proxy *proxy = https ? x->http->proxy_https : x->http->proxy_http;
    if (proxy && proxy->address)
        (void)bnt_fail(
            x->err, BNT_ERR_IO,
            "%.100s:%s: the proxy %.120s (%s) wants a user name and password (HTTP 407): "
            "set %s to http://USER:PASSWORD@%.120s",
            origin->host, origin->port, proxy->address, proxy->variable, proxy->variable,
            proxy->address);
    else
        (void)bnt_fail(x->err, BNT_ERR_IO,
                       "%.100s:%s: a proxy on the way wants a user name and password (HTTP 407): "
                       "set %s_proxy to http://USER:PASSWORD@HOST:PORT",
                       origin->host, origin->port, origin->scheme);
    return BNT_FETCH_FATAL;
}

// Whether a proxy refused: its own answer to CONNECT, or what came instead of the server's.
static bool is_proxys_refusal(const struct exchange *x, CURL *curl)
{
    long connected = 0;
    (void)curl_easy_getinfo(curl, CURLINFO_HTTP_CONNECTCODE, &connected);
    return connected == 407 || x->response->status == 407;
}

static enum bnt_fetch_outcome judge_failure(CURLcode code)
{
    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_OUT_OF_MEMORY:
        return BNT_FETCH_FATAL;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return BNT_FETCH_NOBODY;
    default:
        return BNT_FETCH_NETWORK;
    }
}

static enum bnt_fetch_outcome judge(struct exchange *x, CURL *curl, const char *url, CURLcode code,
                                    const char *detail)
{
    struct bnt_fetch_origin origin = {{0}, {0}, {0}};
    (void)bnt_fetch_origin_of(url, &origin);
    if (x->sink_failed)
        return BNT_FETCH_FATAL; // err is the sink's
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        (void)bnt_fail(x->err, BNT_ERR_IO, "given up because another file failed");
        return BNT_FETCH_FATAL;
    }
    if (is_proxys_refusal(x, curl))
        return proxy_refuses(x, &origin);
    if (code == CURLE_OK || x->cut) {
        atomic_store(&x->http->answered, true);
        return BNT_FETCH_ANSWERED;
    }
    if (x->header_bytes > MAX_HEADER_BYTES) {
        (void)bnt_fail(x->err, BNT_ERR_FORMAT, "%s: more than %d bytes of headers", origin.host,
                       MAX_HEADER_BYTES);
        return BNT_FETCH_FATAL;
    }
    long system = 0; // what connect(2) said; libcurl keeps it to itself
    if (code == CURLE_COULDNT_CONNECT)
        (void)curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &system);
    (void)bnt_fail(x->err, BNT_ERR_IO, "%s:%s: %s%s%s%s", origin.host, origin.port,
                   detail[0] ? detail : curl_easy_strerror(code), system ? " (" : "",
                   system ? strerror((int)system) : "", system ? ")" : "");
    return judge_failure(code);
}

static enum bnt_fetch_outcome perform(struct exchange *x, CURL *curl, const char *url,
                                      struct curl_slist *headers)
{
    char detail[CURL_ERROR_SIZE] = "";
    struct body_context body = {.x = x, .curl = curl};
    set_safety(curl, x->http->ca_file);
    set_timeouts(curl, x);
    set_callbacks(curl, x, &body);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "bnt-fetch/" BNT_VERSION);
    (void)curl_easy_setopt(curl, CURLOPT_NOBODY, x->request->head ? 1L : 0L);
    (void)curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER);
    // One stream a connection: multiplexing gains nothing for files this large.
    (void)curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    char range[32];
    if (x->request->offset > 0) {
        (void)snprintf(range, sizeof range, "%llu-", (unsigned long long)x->request->offset);
        (void)curl_easy_setopt(curl, CURLOPT_RANGE, range);
    }
    CURLcode code = curl_easy_perform(curl);
    (void)wants_body(x, curl); // sets the status
    if (code == CURLE_OK && wants_body(x, curl) && !x->begun)
        (void)begin_body(x);
    return judge(x, curl, url, code, detail);
}

static enum bnt_fetch_outcome no_memory(struct bnt_error *err)
{
    (void)bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    return BNT_FETCH_FATAL;
}

static enum bnt_fetch_outcome exchange_at(struct bnt_fetch_http *http,
                                          const struct bnt_fetch_request *request, const char *url,
                                          struct bnt_fetch_response *response,
                                          struct bnt_error *err)
{
    struct exchange x = {.http = http, .request = request, .response = response, .err = err};
    memset(response, 0, sizeof *response);
    CURL *curl = take_handle(http);
    if (!curl)
        return no_memory(err);
    struct curl_slist *headers = make_headers(&x, url);
    enum bnt_fetch_outcome outcome = headers ? perform(&x, curl, url, headers) : no_memory(err);
    give_handle(http, curl);
    curl_slist_free_all(headers);
    return outcome;
}

// --- redirects ---

static bool must_follow(const struct bnt_fetch_request *request,
                        const struct bnt_fetch_response *response)
{
    long status = response->status;
    bool redirect =
        status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
    return redirect && response->location[0] &&
           (!request->head || bnt_fetch_location_is_relative(response->location));
}

// Turns the Location of a redirect into the absolute, permitted next URL.
static enum bnt_status next_url(const struct bnt_fetch_http *http, char **url,
                                const struct bnt_fetch_response *response, struct bnt_error *err)
{
    char *next = bnt_fetch_url_resolve(*url, response->location);
    if (!next)
        return bnt_fail(err, BNT_ERR_FORMAT, "a redirect to nowhere: '%.200s'", response->location);
    enum bnt_status status = bnt_fetch_url_check(next, *url, http->allow_http, err);
    if (status != BNT_OK) {
        free(next);
        return status;
    }
    free(*url);
    *url = next;
    return BNT_OK;
}

enum bnt_fetch_outcome bnt_fetch_http_try(struct bnt_fetch_http *http,
                                          const struct bnt_fetch_request *request,
                                          struct bnt_fetch_response *response,
                                          struct bnt_error *err)
{
    char *url = bnt_fetch_format("%s", request->url);
    if (!url)
        return no_memory(err);
    enum bnt_fetch_outcome outcome;
    for (int hops = 0;; hops++) {
        outcome = exchange_at(http, request, url, response, err);
        if (outcome != BNT_FETCH_ANSWERED || !must_follow(request, response))
            break;
        outcome = BNT_FETCH_FATAL;
        if (hops == MAX_REDIRECTS) {
            (void)bnt_fail(err, BNT_ERR_FORMAT, "more than %d redirects", MAX_REDIRECTS);
            break;
        }
        if (next_url(http, &url, response, err) != BNT_OK)
            break;
    }
    free(url);
    return outcome;
}

// --- again ---

bool bnt_fetch_http_is_passing(long status)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
           status == 504;
}

// Seconds until the limit is lifted, from `RateLimit: "api";r=0;t=55`; NAN if it does not say.
static double rate_limit_seconds(const char *header)
{
    const char *t = strstr(header, ";t=");
    const char *r = strstr(header, ";r=0");
    if (!t || !r || (r[4] >= '0' && r[4] <= '9'))
        return (double)NAN;
    char digits[8];
    size_t length = strspn(t + 3, "0123456789");
    uint64_t seconds;
    if (length >= sizeof digits)
        return (double)NAN;
    memcpy(digits, t + 3, length);
    digits[length] = '\0';
    // One more: a limit that ends within this second has not ended yet.
    return bnt_cli_u64(digits, 0, 9999999, &seconds) ? (double)seconds + 1 : (double)NAN;
}

static double asked_seconds(const struct bnt_fetch_response *response)
{
    uint64_t seconds;
    if (!response || (response->status != 429 && response->status != 503))
        return (double)NAN;
    if (bnt_cli_u64(response->retry_after, 0, 9999999, &seconds))
        return (double)seconds;
    return rate_limit_seconds(response->rate_limit);
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// In short naps, so that a failure elsewhere ends it.
static bool sleep_unless_cancelled(struct bnt_fetch_http *http, double seconds)
{
    const struct timespec nap = {.tv_nsec = 20000000};
    double end = now() + seconds;
    while (!atomic_load(&http->cancelled)) {
        if (now() >= end)
            return true;
        (void)nanosleep(&nap, NULL);
    }
    return false;
}

bool bnt_fetch_http_wait(struct bnt_fetch_http *http, struct bnt_fetch_patience *patience,
                         const struct bnt_fetch_response *response, const char *why)
{
    static const double usual[BNT_FETCH_RETRIES] = {1, 2, 4, 8, 8};
    if (patience->failures >= BNT_FETCH_RETRIES)
        return false;
    double seconds = usual[patience->failures++];
    double asked = asked_seconds(response);
    if (asked > MAX_PATIENCE) // not if it is NAN
        return false;
    if (asked > 0)
        seconds = asked;
    seconds *= http->retry_scale;
    patience->waited += seconds;
    if (http->have_all && patience->waited > SHORT_PATIENCE)
        return false;
    if (asked * http->retry_scale > 5)
        bnt_fetch_ui_once(http->ui, &http->ui->said_limited,
                          "the Hub limits requests: waiting as long as it asks", "");
    else if (seconds >= NOTED_WAIT || patience->slow)
        bnt_fetch_ui_once(http->ui, &http->ui->said_again, why, ": trying again");
    return sleep_unless_cancelled(http, seconds);
}

// Whether another try may help. Who was never there is asked a second time, and no more; nor is
// anybody waited for who need not answer.
static bool is_worth_trying(const struct bnt_fetch_http *http, enum bnt_fetch_outcome outcome,
                            const struct bnt_fetch_patience *patience)
{
    if (outcome == BNT_FETCH_ANSWERED)
        return true;
    if (http->have_all)
        return false;
    return outcome == BNT_FETCH_NETWORK || atomic_load(&http->answered) || patience->failures == 0;
}

enum bnt_status bnt_fetch_http_ask(struct bnt_fetch_http *http,
                                   const struct bnt_fetch_request *request,
                                   struct bnt_fetch_response *response, struct bnt_error *err)
{
    struct bnt_fetch_patience patience = {0};
    double began = now();
    for (;;) {
        enum bnt_fetch_outcome outcome = bnt_fetch_http_try(http, request, response, err);
        bool answered = outcome == BNT_FETCH_ANSWERED;
        if (outcome == BNT_FETCH_FATAL)
            return err->status;
        if (answered && !bnt_fetch_http_is_passing(response->status))
            return BNT_OK;
        response->unreachable = true;
        patience.slow = now() - began >= SLOW_TRY;
        char why[64];
        (void)snprintf(why, sizeof why, "the Hub answers HTTP %ld", response->status);
        if (!is_worth_trying(http, outcome, &patience) ||
            !bnt_fetch_http_wait(http, &patience, answered ? response : NULL,
                                 answered ? why : err->message))
            return answered ? BNT_OK : err->status;
    }
}
