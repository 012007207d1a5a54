// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // strsep
#include "convert/fetch_address.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "convert/fetch_plan.h"
#include "convert/fetch_url.h"

enum { MAX_PARTS = 64 };

static bool is_among(const char *text, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0)
            return true;
    }
    return false;
}

#define IS_AMONG(text, names) is_among(text, names, sizeof(names) / sizeof(names)[0])

// Pages of a repository that show a revision of it.
static bool shows_revision(const char *part)
{
    static const char *const pages[] = {"tree",  "blob",   "resolve", "raw",
                                        "blame", "commit", "commits"};
    return IS_AMONG(part, pages);
}

static const char *other_kind(const char *part)
{
    static const char *const kinds[] = {"datasets", "spaces", "kernels", "buckets", "collections"};
    return IS_AMONG(part, kinds) ? part : NULL;
}

// --- the page's host ---

// The path behind prefix ("https://host/below") in a URL, or NULL if that is elsewhere. http and
// https are the same place; case matters in paths only.
static const char *path_below(const char *url, const char *prefix)
{
    const char *a = strstr(url, "://") + 3;
    const char *b = strstr(prefix, "://");
    if (!b)
        return NULL;
    b += 3;
    size_t host = strcspn(b, "/");
    if (strncasecmp(a, b, host) != 0 || strncmp(a + host, b + host, strlen(b + host)) != 0)
        return NULL;
    a += strlen(b);
    return *a == '/' || *a == '\0' || *a == '?' || *a == '#' ? a : NULL;
}

static const char *path_on_hub(const char *url, const char *endpoint)
{
    static const char *const hosts[] = {"https://huggingface.co", "https://www.huggingface.co",
                                        "https://hf.co"};
    const char *path = path_below(url, endpoint);
    for (size_t i = 0; !path && i < sizeof hosts / sizeof hosts[0]; i++)
        path = path_below(url, hosts[i]);
    return path;
}

// --- parts ---

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *at = c ? strchr(digits, c | ('A' <= c && c <= 'F' ? 0x20 : 0)) : NULL;
    return at ? (int)(at - digits) : -1;
}

// Undoes percent-encoding in place. What stands for a zero byte stays as it is.
static void unquote(char *text)
{
    char *out = text;
    for (const char *p = text; *p; p++) {
        int high = p[0] == '%' ? hex_digit(p[1]) : -1;
        int low = high >= 0 ? hex_digit(p[2]) : -1;
        bool coded = low >= 0 && high + low > 0;
        *out++ = coded ? (char)(16 * high + low) : *p;
        p += coded ? 2 : 0;
    }
    *out = '\0';
}

// Cuts a path at its slashes, empty parts left out. Returns how many.
static int cut(char *path, char *parts[MAX_PARTS])
{
    int count = 0;
    for (char *part; count < MAX_PARTS && (part = strsep(&path, "/")) != NULL;) {
        unquote(part);
        if (*part)
            parts[count++] = part;
    }
    return count;
}

// The revision that begins with parts[0]: refs/pr/N and refs/convert/NAME go over three parts.
static char *join_revision(char *const *parts, int count)
{
    if (count >= 3 && strcmp(parts[0], "refs") == 0 &&
        (strcmp(parts[1], "pr") == 0 || strcmp(parts[1], "convert") == 0))
        return bnt_fetch_format("refs/%s/%s", parts[1], parts[2]);
    return bnt_fetch_format("%s", parts[0]);
}

static enum bnt_status no_address(struct bnt_error *err, const char *text, const char *why)
{
    return bnt_fail(err, BNT_ERR_ARGUMENT,
                    "REPO must be name, org/name, org/name@revision or the address of a model's "
                    "page, not '%.200s'%s",
                    text, why);
}

static enum bnt_status finish(const struct bnt_fetch_address *address, const char *text,
                              struct bnt_error *err)
{
    if (!address->repo)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    return bnt_fetch_is_repo(address->repo) ? BNT_OK : no_address(err, text, "");
}

// A page: [org/]name[/blob/REVISION[/...]].
static enum bnt_status read_page(struct bnt_fetch_address *address, char *path, const char *text,
                                 struct bnt_error *err)
{
    char *parts[MAX_PARTS];
    path[strcspn(path, "?#")] = '\0';
    int count = cut(path, parts);
    if (count == 0)
        return no_address(err, text, ": it names none");
    if (other_kind(parts[0]))
        return no_address(err, text, ": it is no model's");
    // Some old models have no organization.
    bool alone = count == 1 || (count > 2 && shows_revision(parts[1]) && !shows_revision(parts[2]));
    int rest = alone ? 1 : 2;
    if (count > rest && !shows_revision(parts[rest]))
        return no_address(err, text, ": it shows no revision of it");
    address->repo =
        alone ? bnt_fetch_format("%s", parts[0]) : bnt_fetch_format("%s/%s", parts[0], parts[1]);
    if (count > rest + 1 &&
        !(address->revision = join_revision(parts + rest + 1, count - rest - 1)))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    return finish(address, text, err);
}

// [org/]name[@revision], the revision with all its slashes.
static enum bnt_status read_plain(struct bnt_fetch_address *address, const char *text,
                                  struct bnt_error *err)
{
    const char *at = strchr(text, '@');
    address->repo = bnt_fetch_format("%.*s", (int)strcspn(text, "@"), text);
    if (at && !at[1])
        return no_address(err, text, ": the revision is missing");
    if (at && !(address->revision = bnt_fetch_format("%s", at + 1)))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (address->revision)
        unquote(address->revision);
    return finish(address, text, err);
}

static enum bnt_status read_web(struct bnt_fetch_address *address, const char *url,
                                const char *text, const char *endpoint, struct bnt_error *err)
{
    const char *path = path_on_hub(url, endpoint);
    if (!path)
        return no_address(err, text, ": it leads neither to huggingface.co nor to HF_ENDPOINT");
    char *copy = bnt_fetch_format("%s", path);
    enum bnt_status status =
        copy ? read_page(address, copy, text, err) : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    free(copy);
    return status;
}

// hf://[models/]org/name[@revision][/file], as the Python tools write it.
static enum bnt_status read_uri(struct bnt_fetch_address *address, char *uri, const char *text,
                                struct bnt_error *err)
{
    char *parts[MAX_PARTS];
    char *at = strchr(uri, '@');
    if (at)
        *at = '\0';
    int count = cut(uri, parts);
    int first = count > 0 && strcmp(parts[0], "models") == 0;
    if (count < first + 2 || other_kind(parts[0]))
        return no_address(err, text, "");
    address->repo = bnt_fetch_format("%s/%s", parts[first], parts[first + 1]);
    if (!at)
        return finish(address, text, err);
    count = cut(at + 1, parts);
    if (count == 0)
        return no_address(err, text, ": the revision is missing");
    if (!(address->revision = join_revision(parts, count)))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    return finish(address, text, err);
}

// The scheme is what people leave out.
static bool begins_with_host(const char *text, const char *endpoint)
{
    static const char *const hosts[] = {"huggingface.co/", "www.huggingface.co/", "hf.co/"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        if (strncasecmp(text, hosts[i], strlen(hosts[i])) == 0)
            return true;
    }
    const char *own = strstr(endpoint, "://");
    size_t length = own ? strcspn(own + 3, "/") : 0;
    return length > 0 && strncasecmp(text, own + 3, length) == 0 && text[length] == '/';
}

enum bnt_status bnt_fetch_address_read(struct bnt_fetch_address *address, const char *text,
                                       const char *endpoint, struct bnt_error *err)
{
    *address = (struct bnt_fetch_address){0};
    bool uri = strncmp(text, "hf://", 5) == 0;
    bool web = strncasecmp(text, "https://", 8) == 0 || strncasecmp(text, "http://", 7) == 0;
    bool host = begins_with_host(text, endpoint);
    if (!uri && !web && !host)
        return read_plain(address, text, err);
    char *copy = bnt_fetch_format("%s%s", host ? "https://" : "", uri ? text + 5 : text);
    enum bnt_status status = !copy ? bnt_fail(err, BNT_ERR_MEMORY, "out of memory")
                             : uri ? read_uri(address, copy, text, err)
                                   : read_web(address, copy, text, endpoint, err);
    free(copy);
    return status;
}

void bnt_fetch_address_free(struct bnt_fetch_address *address)
{
    free(address->repo);
    free(address->revision);
    *address = (struct bnt_fetch_address){0};
}
