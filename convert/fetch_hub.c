// SPDX-License-Identifier: MIT
#include "convert/fetch_hub.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert/fetch_hash.h"
#include "convert/fetch_url.h"
#include "formats/cli.h"
#include "formats/digest.h"
#include "formats/json.h"

enum {
    MAX_LISTING = 64 << 20, // bytes of all pages together
    MAX_PAGES = 2000,
    VERY_MANY_FILES = 50000, // the Hub's model info may end here; the tree does not
    MAX_HOPS = 5,
};

#define MAX_FILE 0x1p62 // bytes

// --- what its errors mean ---

// "; the Hub says: ... (request ...)", as far as it said anything.
static void describe_answer(const struct bnt_fetch_response *r, char *out, size_t size)
{
    int length = 0;
    out[0] = '\0';
    if (r->error_message[0])
        length = snprintf(out, size, "; the Hub says: %.120s", r->error_message);
    if (r->request_id[0])
        (void)snprintf(out + length, size - (size_t)length, " (request %.60s)", r->request_id);
}

static enum bnt_status no_access(const struct bnt_fetch_hub *hub,
                                 const struct bnt_fetch_response *r, const char *tail,
                                 struct bnt_error *err)
{
    const char *endpoint = hub->http->endpoint;
    const char *token = hub->http->authorization ? "the token in use has no access: " : "";
    if (strcmp(r->error_code, "GatedRepo") == 0)
        return bnt_fail(err, BNT_ERR_IO,
                        "%s is gated: %saccept its licence at %s/%s and set HF_TOKEN to a token of "
                        "the same account%s",
                        hub->repo, token, endpoint, hub->repo, tail);
    if (strstr(r->error_message, "Invalid credentials"))
        return bnt_fail(err, BNT_ERR_IO,
                        "%s: the Hub does not know this token: set HF_TOKEN to a valid one%s",
                        hub->repo, tail);
    if (r->status == 403 && strcmp(r->error_code, "RepoNotFound") != 0)
        return bnt_fail(err, BNT_ERR_IO, "%s: access denied (HTTP 403)%s", hub->repo, tail);
    return bnt_fail(err, BNT_ERR_IO,
                    "%s: no such repository, or it is private or gated: check the name, set "
                    "HF_TOKEN, accept the licence at %s/%s%s",
                    hub->repo, endpoint, hub->repo, tail);
}

enum bnt_status bnt_fetch_hub_refusal(const struct bnt_fetch_hub *hub, const char *path,
                                      const struct bnt_fetch_response *r, struct bnt_error *err)
{
    char tail[256];
    describe_answer(r, tail, sizeof tail);
    if (strcmp(r->error_code, "RevisionNotFound") == 0)
        return bnt_fail(err, BNT_ERR_IO, "%s has no revision '%.100s'%s", hub->repo, hub->revision,
                        tail);
    if (strcmp(r->error_code, "EntryNotFound") == 0 || (r->status == 404 && path))
        return bnt_fail(err, BNT_ERR_IO, "%s has no file '%.150s' at revision '%.60s'%s", hub->repo,
                        path ? path : "", hub->revision, tail);
    if (r->status == 401 || r->status == 403 || r->status == 404)
        return no_access(hub, r, tail, err);
    if (r->status == 429)
        return bnt_fail(err, BNT_ERR_IO,
                        "%s: the Hub limits requests (HTTP 429%s%.20s): try later, or set "
                        "HF_TOKEN%s",
                        hub->repo, r->retry_after[0] ? ", wait " : "", r->retry_after, tail);
    return bnt_fail(err, BNT_ERR_IO, "%s%s%.150s: HTTP %ld%s", hub->repo, path ? ": " : "",
                    path ? path : "", r->status, tail);
}

// --- fetching JSON ---

struct text {
    char *bytes;
    size_t size;
    size_t capacity;
    size_t limit;
};

static enum bnt_status begin_text(void *context, const struct bnt_fetch_response *response,
                                  struct bnt_error *err)
{
    (void)response, (void)err;
    ((struct text *)context)->size = 0; // also for a second try
    return BNT_OK;
}

static enum bnt_status add_text(void *context, const char *data, size_t size, struct bnt_error *err)
{
    struct text *text = context;
    if (size > text->limit - text->size)
        return bnt_fail(err, BNT_ERR_FORMAT, "the listing is longer than %d MB", MAX_LISTING >> 20);
    if (text->size + size > text->capacity) {
        size_t capacity = 2 * (text->size + size);
        char *bytes = realloc(text->bytes, capacity);
        if (!bytes)
            return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
        text->bytes = bytes;
        text->capacity = capacity;
    }
    memcpy(text->bytes + text->size, data, size);
    text->size += size;
    return BNT_OK;
}

// GETs a page of JSON. *used counts the bytes of all pages.
static enum bnt_status get_json(struct bnt_fetch_hub *hub, const char *url, size_t *used,
                                struct bnt_fetch_response *response, json_t **out,
                                struct bnt_error *err)
{
    struct text text = {.limit = MAX_LISTING - *used};
    const struct bnt_fetch_sink sink = {begin_text, add_text, &text};
    const struct bnt_fetch_request request = {.url = url, .sink = &sink};
    enum bnt_status status = bnt_fetch_http_ask(hub->http, &request, response, err);
    hub->unreachable = response->unreachable;
    if (status == BNT_OK && response->status != 200)
        status = bnt_fetch_hub_refusal(hub, NULL, response, err);
    else if (status != BNT_OK)
        bnt_fail_prefix(err, hub->repo);
    json_error_t problem;
    *out = NULL;
    if (status == BNT_OK) {
        // Integers as reals: model info passes on numbers of the model's configuration that fit no
        // integer; the sizes of files fit a double.
        *out =
            json_loadb(text.bytes ? text.bytes : "", text.size, JSON_DECODE_INT_AS_REAL, &problem);
        *used += text.size;
        if (!*out)
            status = bnt_fail(err, BNT_ERR_FORMAT,
                              "%s: the Hub's listing is not valid JSON: line %d: %.100s", hub->repo,
                              problem.line, problem.text);
    }
    free(text.bytes);
    return status;
}

// --- listings ---

// Adds one file; *lacking if the entry does not say all that is needed, but for an unlisted file.
// lfs_key: what model info and tree call the sha256.
static enum bnt_status add_entry(struct bnt_fetch_listing *listing, const json_t *entry,
                                 const char *path_key, const char *oid_key, const char *lfs_key,
                                 bool *lacking, struct bnt_error *err)
{
    const json_t *lfs = bnt_json_get(entry, "lfs");
    const char *path = bnt_json_text(entry, path_key, NULL);
    const char *oid =
        json_is_object(lfs) ? bnt_json_text(lfs, lfs_key, "") : bnt_json_text(entry, oid_key, "");
    const json_t *size = json_is_object(lfs) && bnt_json_get(lfs, "size")
                             ? bnt_json_get(lfs, "size")
                             : bnt_json_get(entry, "size");
    size_t digits = json_is_object(lfs) ? 64 : 40;
    double bytes = json_number_value(size); // 0 if it is none
    bool listed = json_is_real(size) && bytes >= 0 && bytes <= MAX_FILE &&
                  bytes == (double)(uint64_t)bytes && bnt_fetch_is_hex(oid, digits);
    *lacking = *lacking || !path || !listed;
    if (!path)
        return BNT_OK;
    return bnt_fetch_listing_add(listing, path, listed ? (uint64_t)bytes : 0, listed ? oid : "",
                                 err);
}

static enum bnt_status read_siblings(struct bnt_fetch_listing *listing, const json_t *info,
                                     bool *lacking, struct bnt_error *err)
{
    const json_t *siblings = bnt_json_get(info, "siblings");
    enum bnt_status status = BNT_OK;
    *lacking = !json_is_array(siblings) || json_array_size(siblings) >= VERY_MANY_FILES;
    for (size_t i = 0; status == BNT_OK && i < json_array_size(siblings); i++)
        status = add_entry(listing, json_array_get(siblings, i), "rfilename", "blobId", "sha256",
                           lacking, err);
    return status;
}

static enum bnt_status read_tree_page(struct bnt_fetch_listing *listing, const json_t *page,
                                      const char *repo, struct bnt_error *err)
{
    bool lacking = !json_is_array(page);
    enum bnt_status status = BNT_OK;
    for (size_t i = 0; status == BNT_OK && !lacking && i < json_array_size(page); i++) {
        const json_t *entry = json_array_get(page, i);
        if (strcmp(bnt_json_text(entry, "type", ""), "file") == 0)
            status = add_entry(listing, entry, "path", "oid", "oid", &lacking, err);
    }
    if (status == BNT_OK && lacking)
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: the Hub's listing has a file without a path, size or hash", repo);
    return status;
}

// The URL of the next page from `Link: <URL>; rel="next"`, or NULL.
static char *next_page(const char *base, const char *link)
{
    const char *open = strchr(link, '<');
    const char *close = open ? strchr(open, '>') : NULL;
    if (!close || !strstr(close, "rel=\"next\""))
        return NULL;
    char *location = bnt_fetch_format("%.*s", (int)(close - open - 1), open + 1);
    char *url = location ? bnt_fetch_url_resolve(base, location) : NULL;
    free(location);
    return url;
}

// Turns *url into that of the next page, or NULL after the last. The token goes along, so it must
// be the same server's.
static enum bnt_status turn_page(const struct bnt_fetch_hub *hub, char **url, const char *link,
                                 struct bnt_error *err)
{
    char *next = next_page(*url, link);
    enum bnt_status status = BNT_OK;
    if (next && !bnt_fetch_same_origin(next, hub->http->endpoint))
        status = bnt_fail(err, BNT_ERR_FORMAT, "%s: the listing goes on elsewhere: '%.150s'",
                          hub->repo, next);
    else if (next && strcmp(next, *url) == 0)
        status = bnt_fail(err, BNT_ERR_FORMAT, "%s: a listing without end", hub->repo);
    free(*url);
    *url = next;
    return status;
}

// Reads all pages. *absent: after a failure, whether there is no such listing at all.
static enum bnt_status read_tree(struct bnt_fetch_hub *hub, size_t *used,
                                 struct bnt_fetch_listing *listing, bool *absent,
                                 struct bnt_error *err)
{
    char *url = bnt_fetch_format("%s/api/models/%s/tree/%s?recursive=true", hub->http->endpoint,
                                 hub->repo, hub->commit);
    enum bnt_status status = url ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    *absent = false;
    for (int pages = 0; status == BNT_OK && url; pages++) {
        struct bnt_fetch_response response;
        json_t *page = NULL;
        status = pages < MAX_PAGES
                     ? get_json(hub, url, used, &response, &page, err)
                     : bnt_fail(err, BNT_ERR_FORMAT, "%s: a listing without end", hub->repo);
        if (status == BNT_OK)
            status = read_tree_page(listing, page, hub->repo, err);
        if (status != BNT_OK && pages == 0)
            *absent = !hub->unreachable && status != BNT_ERR_MEMORY;
        json_decref(page);
        if (status == BNT_OK)
            status = turn_page(hub, &url, response.link, err);
    }
    free(url);
    return status;
}

// The commit and the licence, before the files.
static enum bnt_status read_info(struct bnt_fetch_hub *hub, const json_t *info,
                                 struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    const char *commit = bnt_json_text(info, "sha", "");
    if (!bnt_fetch_is_hex(commit, BNT_FETCH_COMMIT_TEXT - 1))
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: %.100s did not answer as a Hub does: no commit in its listing",
                        hub->repo, hub->http->endpoint);
    memcpy(listing->commit, commit, BNT_FETCH_COMMIT_TEXT);
    memcpy(hub->commit, commit, BNT_FETCH_COMMIT_TEXT);
    const char *license = bnt_json_text(bnt_json_get(info, "cardData"), "license", NULL);
    if (license && !(listing->license = bnt_fetch_format("%s", license)))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    return BNT_OK;
}

// Whether a server that does not know ?blobs=true may have answered so.
static bool is_puzzled(const struct bnt_fetch_response *r)
{
    return r->status == 400 || r->status == 405 || r->status == 422 || r->status == 501 ||
           (r->status == 404 && !r->error_code[0]);
}

static enum bnt_status get_info(struct bnt_fetch_hub *hub, size_t *used, json_t **info,
                                struct bnt_error *err)
{
    char *revision = bnt_fetch_url_quote(hub->revision, "");
    char *url = revision ? bnt_fetch_format("%s/api/models/%s/revision/%s?blobs=true",
                                            hub->http->endpoint, hub->repo, revision)
                         : NULL;
    struct bnt_fetch_response response = {0};
    enum bnt_status status = url ? get_json(hub, url, used, &response, info, err)
                                 : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (status != BNT_OK && is_puzzled(&response)) {
        *strchr(url, '?') = '\0'; // the revision's own are quoted
        status = get_json(hub, url, used, &response, info, err);
    }
    free(url);
    free(revision);
    return status;
}

// Puts the tree's files in the place of those that model info told too little about. A mirror
// without that listing leaves these to be asked for one by one.
static enum bnt_status replace_by_tree(struct bnt_fetch_hub *hub, size_t *used,
                                       struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    struct bnt_fetch_listing tree = {0};
    bool absent;
    enum bnt_status status = read_tree(hub, used, &tree, &absent, err);
    if (status != BNT_OK && absent && listing->count > 0 && listing->count < VERY_MANY_FILES)
        status = BNT_OK;
    else if (status == BNT_OK)
        bnt_fetch_listing_swap_files(listing, &tree);
    bnt_fetch_listing_free(&tree);
    return status;
}

enum bnt_status bnt_fetch_hub_list(struct bnt_fetch_hub *hub, struct bnt_fetch_listing *listing,
                                   struct bnt_error *err)
{
    size_t used = 0;
    bool lacking = false;
    json_t *info = NULL;
    enum bnt_status status = get_info(hub, &used, &info, err);
    if (status == BNT_OK)
        status = read_info(hub, info, listing, err);
    if (status == BNT_OK)
        status = read_siblings(listing, info, &lacking, err);
    if (status == BNT_OK && lacking)
        status = replace_by_tree(hub, &used, listing, err);
    json_decref(info);
    return status;
}

// --- one file ---

// Strips W/ and the quotes.
static const char *plain_etag(char *etag)
{
    char *start = strncmp(etag, "W/", 2) == 0 ? etag + 2 : etag;
    size_t length = strlen(start);
    if (length >= 2 && start[0] == '"' && start[length - 1] == '"') {
        start[length - 1] = '\0';
        start++;
    }
    return start;
}

static enum bnt_status check_commit(const struct bnt_fetch_hub *hub,
                                    const struct bnt_fetch_file *file,
                                    const struct bnt_fetch_response *r, struct bnt_error *err)
{
    if (r->commit[0] && strcmp(r->commit, hub->commit) != 0)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: %.150s: the Hub answered for commit %.40s",
                        hub->repo, file->path, r->commit);
    return BNT_OK;
}

// What a HEAD says of the file's length. That of a redirect's own body is none.
static const char *told_length(const struct bnt_fetch_response *r)
{
    return r->linked_size[0] || r->status != 200 ? r->linked_size : r->content_length;
}

// Compares what the HEAD says with the listing. An ETag may be any hash or none, so that it says
// nothing about the file; only the one that the Hub links to is the sha256 of what LFS keeps.
static enum bnt_status check_head(const struct bnt_fetch_hub *hub,
                                  const struct bnt_fetch_file *file, struct bnt_fetch_response *r,
                                  struct bnt_error *err)
{
    const char *linked = plain_etag(r->linked_etag);
    const char *length = told_length(r);
    uint64_t size = file->size;
    if (length[0] && (!bnt_cli_u64(length, 0, UINT64_MAX, &size) || size != file->size))
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: %.150s: the Hub lists %llu bytes but announces %.31s", hub->repo,
                        file->path, (unsigned long long)file->size, length);
    if (bnt_fetch_is_hex(linked, 64) && bnt_fetch_is_hex(file->oid, 64) &&
        strcmp(linked, file->oid) != 0)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: %.150s: the Hub lists %s but announces %s",
                        hub->repo, file->path, file->oid, linked);
    return check_commit(hub, file, r, err);
}

static bool is_redirect(const struct bnt_fetch_response *r)
{
    return r->status >= 300 && r->status < 400 && r->location[0];
}

// Turns *url into where the redirect leads.
static enum bnt_status follow(const struct bnt_fetch_hub *hub, const struct bnt_fetch_file *file,
                              const struct bnt_fetch_response *r, char **url, struct bnt_error *err)
{
    char *elsewhere = bnt_fetch_url_resolve(*url, r->location);
    if (!elsewhere)
        return bnt_fail(err, BNT_ERR_FORMAT, "%s: a redirect to nowhere: '%.150s'", file->path,
                        r->location);
    enum bnt_status status = bnt_fetch_url_check(elsewhere, *url, hub->http->allow_http, err);
    if (status != BNT_OK)
        bnt_fail_prefix(err, file->path);
    free(*url);
    *url = elsewhere;
    return status;
}

static char *file_url(const struct bnt_fetch_hub *hub, const struct bnt_fetch_file *file)
{
    char *path = bnt_fetch_url_quote(file->path, "/");
    char *url = path ? bnt_fetch_format("%s/%s/resolve/%s/%s", hub->http->endpoint, hub->repo,
                                        hub->commit, path)
                     : NULL;
    free(path);
    return url;
}

static enum bnt_status read_head(const struct bnt_fetch_hub *hub, const struct bnt_fetch_file *file,
                                 struct bnt_fetch_response *response, char **url, bool *expires,
                                 struct bnt_error *err)
{
    *expires = is_redirect(response);
    if (response->status != 200 && !*expires)
        return bnt_fetch_hub_refusal(hub, file->path, response, err);
    enum bnt_status status = check_head(hub, file, response, err);
    return status == BNT_OK && *expires ? follow(hub, file, response, url, err) : status;
}

enum bnt_status bnt_fetch_hub_locate(const struct bnt_fetch_hub *hub,
                                     const struct bnt_fetch_file *file, char **url, bool *expires,
                                     struct bnt_error *err)
{
    struct bnt_fetch_response response;
    *url = file_url(hub, file);
    if (!*url)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    const struct bnt_fetch_request request = {.url = *url, .head = true};
    enum bnt_status status = bnt_fetch_http_ask(hub->http, &request, &response, err);
    if (status != BNT_OK)
        bnt_fail_prefix(err, file->path);
    else
        status = read_head(hub, file, &response, url, expires, err);
    if (status != BNT_OK) {
        free(*url);
        *url = NULL;
    }
    return status;
}

// --- files that the listing says nothing about ---

// The name of a file whose ETag cannot be one: nothing else has it.
static enum bnt_status name_by_path(const struct bnt_fetch_hub *hub, struct bnt_fetch_file *file,
                                    const char *etag, struct bnt_error *err)
{
    uint8_t digest[BNT_SHA256_SIZE];
    char *text = bnt_fetch_format("%s %s %s", hub->commit, file->path, etag);
    bool good = text && bnt_sha256(text, strlen(text), digest);
    free(text);
    if (!good)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    bnt_fetch_hex(digest, sizeof digest, file->oid);
    return BNT_OK;
}

// Takes size and name from a HEAD.
static enum bnt_status take_head(const struct bnt_fetch_hub *hub, struct bnt_fetch_file *file,
                                 struct bnt_fetch_response *r, struct bnt_error *err)
{
    const char *length = told_length(r);
    bool linked = r->linked_etag[0] != '\0';
    const char *etag = plain_etag(linked || r->status != 200 ? r->linked_etag : r->etag);
    if (!bnt_cli_u64(length, 0, INT64_MAX, &file->size))
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: %.150s: neither the listing nor the answer to HEAD has its size",
                        hub->repo, file->path);
    bool sha256 = bnt_fetch_is_hex(etag, 64);
    file->trust = linked && sha256 ? BNT_FETCH_LISTED : BNT_FETCH_TAGGED;
    if (!sha256 && !bnt_fetch_is_hex(etag, 40) && !bnt_fetch_is_hex(etag, 32))
        return name_by_path(hub, file, etag, err);
    memcpy(file->oid, etag, strlen(etag) + 1);
    return BNT_OK;
}

// One HEAD; *further: it led elsewhere without a word about the file.
static enum bnt_status describe_at(const struct bnt_fetch_hub *hub, struct bnt_fetch_file *file,
                                   char **url, bool *further, struct bnt_error *err)
{
    struct bnt_fetch_response response;
    const struct bnt_fetch_request request = {.url = *url, .head = true};
    *further = false;
    enum bnt_status status = bnt_fetch_http_ask(hub->http, &request, &response, err);
    if (status != BNT_OK) {
        bnt_fail_prefix(err, file->path);
        return status;
    }
    status = check_commit(hub, file, &response, err);
    if (status != BNT_OK)
        return status;
    if (is_redirect(&response) && !response.linked_size[0]) {
        *further = true;
        return follow(hub, file, &response, url, err);
    }
    if (response.status != 200 && !is_redirect(&response))
        return bnt_fetch_hub_refusal(hub, file->path, &response, err);
    return take_head(hub, file, &response, err);
}

enum bnt_status bnt_fetch_hub_describe(const struct bnt_fetch_hub *hub, struct bnt_fetch_file *file,
                                       struct bnt_error *err)
{
    char *url = file_url(hub, file);
    enum bnt_status status = url ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    bool further = true;
    for (int hops = 0; status == BNT_OK && further; hops++)
        status = hops < MAX_HOPS ? describe_at(hub, file, &url, &further, err)
                                 : bnt_fail(err, BNT_ERR_FORMAT, "%.150s: more than %d redirects",
                                            file->path, MAX_HOPS);
    free(url);
    return status;
}
