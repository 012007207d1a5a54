// SPDX-License-Identifier: MIT
#include "convert/fetch_url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *bnt_fetch_format(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0)
        return NULL;
    char *text = malloc((size_t)length + 1);
    if (!text)
        return NULL;
    va_start(args, format);
    (void)vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

static bool is_plain(unsigned char c, const char *safe)
{
    return (c < 0x80 && isalnum(c)) || (c != '\0' && (strchr("_.-~", c) || strchr(safe, c)));
}

char *bnt_fetch_url_quote(const char *text, const char *safe)
{
    static const char digits[] = "0123456789ABCDEF";
    char *quoted = malloc(3 * strlen(text) + 1);
    if (!quoted)
        return NULL;
    char *end = quoted;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (is_plain(*p, safe)) {
            *end++ = (char)*p;
        } else {
            *end++ = '%';
            *end++ = digits[*p >> 4];
            *end++ = digits[*p & 15];
        }
    }
    *end = '\0';
    return quoted;
}

// Copies one part of a URL; false if it is missing or longer than any honest one.
static bool copy_part(CURLU *url, CURLUPart part, char *out, size_t size)
{
    char *text = NULL;
    if (curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) != CURLUE_OK)
        return false;
    size_t length = strlen(text);
    bool fits = length < size;
    for (size_t i = 0; fits && i < size && i <= length; i++)
        out[i] = (char)tolower((unsigned char)text[i]);
    curl_free(text);
    return fits;
}

bool bnt_fetch_origin_of(const char *text, struct bnt_fetch_origin *o)
{
    CURLU *url = curl_url();
    bool good = url && curl_url_set(url, CURLUPART_URL, text, CURLU_DISALLOW_USER) == CURLUE_OK &&
                copy_part(url, CURLUPART_SCHEME, o->scheme, sizeof o->scheme) &&
                copy_part(url, CURLUPART_HOST, o->host, sizeof o->host) &&
                copy_part(url, CURLUPART_PORT, o->port, sizeof o->port);
    curl_url_cleanup(url);
    return good && (strcmp(o->scheme, "https") == 0 || strcmp(o->scheme, "http") == 0);
}

bool bnt_fetch_same_origin(const char *url, const char *other)
{
    struct bnt_fetch_origin a;
    struct bnt_fetch_origin b;
    return bnt_fetch_origin_of(url, &a) && bnt_fetch_origin_of(other, &b) &&
           strcmp(a.scheme, b.scheme) == 0 && strcmp(a.host, b.host) == 0 &&
           strcmp(a.port, b.port) == 0;
}

bool bnt_fetch_is_loopback(const struct bnt_fetch_origin *origin)
{
    struct in_addr address;
    if (strcmp(origin->host, "localhost") == 0 || strcmp(origin->host, "[::1]") == 0)
        return true;
    return inet_pton(AF_INET, origin->host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

char *bnt_fetch_url_resolve(const char *base, const char *location)
{
    // CURLU_NON_SUPPORT_SCHEME: file: and the like are resolved too, so that the check can name
    // them.
    const unsigned flags = CURLU_URLENCODE | CURLU_ALLOW_SPACE | CURLU_NON_SUPPORT_SCHEME;
    CURLU *url = curl_url();
    char *text = NULL;
    char *copy = NULL;
    if (url && curl_url_set(url, CURLUPART_URL, base, 0) == CURLUE_OK &&
        curl_url_set(url, CURLUPART_URL, location, flags) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK)
        copy = bnt_fetch_format("%s", text);
    curl_free(text);
    curl_url_cleanup(url);
    return copy;
}

bool bnt_fetch_location_is_relative(const char *location)
{
    if (strncmp(location, "//", 2) == 0)
        return false;
    size_t scheme = strcspn(location, ":/?#");
    return location[scheme] != ':';
}

enum bnt_status bnt_fetch_url_check(const char *url, const char *from, bool allow_http,
                                    struct bnt_error *err)
{
    struct bnt_fetch_origin origin;
    struct bnt_fetch_origin before = {{0}, {0}, {0}};
    const char *what = from ? "a redirect to " : "";
    if (!bnt_fetch_origin_of(url, &origin))
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        "refused %s'%.200s': not an http or https address, or one with a user name",
                        what, url);
    if (strcmp(origin.scheme, "https") == 0)
        return BNT_OK;
    if (from && bnt_fetch_origin_of(from, &before) && strcmp(before.scheme, "https") == 0)
        return bnt_fail(err, BNT_ERR_UNSUPPORTED, "refused a redirect from https to '%.200s'", url);
    if (allow_http || bnt_fetch_is_loopback(&origin))
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                    "refused %s'%.200s': not encrypted; use https, or --allow-http to risk it",
                    what, url);
}
