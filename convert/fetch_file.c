// SPDX-License-Identifier: MIT
#include "convert/fetch_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert/fetch_hash.h"
#include "convert/fetch_ui.h"

// Bytes after which a connection counts as having worked, so that a long file survives more breaks
// than a short one.
enum { WORKED = 1 << 20 };

struct transfer {
    const struct bnt_fetch_hub *hub;
    const struct bnt_fetch_file *file;
    const char *partial;
    int fd;
    uint64_t have;  // verified or not, in the file
    bool bad_range; // the server answered for other bytes than asked
    struct bnt_fetch_hasher hasher;
    char *url; // where the bytes are; NULL: to be asked
    bool expires;
    struct bnt_fetch_patience patience; // with failures in a row
};

static enum bnt_status fail_errno(const struct transfer *t, const char *what, struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_IO, "%.120s: %s %.240s: %s", t->file->path, what, t->partial,
                    strerror(errno));
}

// Empties the unfinished file. Where locks do not hold, another process may have given it its final
// name meanwhile: then that stays whole, and a new one is begun.
static enum bnt_status empty_partial(struct transfer *t, struct bnt_error *err)
{
    struct stat ours;
    struct stat named;
    t->have = 0;
    if (fstat(t->fd, &ours) == 0 && lstat(t->partial, &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino)
        return ftruncate(t->fd, 0) == 0 ? BNT_OK : fail_errno(t, "cannot empty", err);
    (void)close(t->fd);
    t->fd =
        open(t->partial, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    return t->fd >= 0 ? BNT_OK : fail_errno(t, "cannot open", err);
}

// Throws away what is there, and with it the hash.
static enum bnt_status start_over(struct transfer *t, struct bnt_error *err)
{
    bnt_fetch_hasher_abort(&t->hasher);
    bnt_fetch_ui_lost(t->hub->http->ui, t->have);
    enum bnt_status status = empty_partial(t, err);
    if (status == BNT_OK)
        status = bnt_fetch_hasher_start(&t->hasher, t->fd, t->file->size, t->file->oid, err);
    if (status != BNT_OK)
        t->hasher.fd = -1; // there is none to end
    return status;
}

// --- the sink ---

// "bytes 5-9/10": the part that was asked for, of a file of the right size?
static bool is_right_range(const struct transfer *t, const char *text)
{
    char expected[80];
    int length = snprintf(expected, sizeof expected, "bytes %" PRIu64 "-", t->have);
    const char *total = strchr(text, '/');
    if (strncmp(text, expected, (size_t)length) != 0 || !total)
        return false;
    (void)snprintf(expected, sizeof expected, "/%" PRIu64, t->file->size);
    return strcmp(total, "/*") == 0 || strcmp(total, expected) == 0;
}

static enum bnt_status begin(void *context, const struct bnt_fetch_response *response,
                             struct bnt_error *err)
{
    struct transfer *t = context;
    if (response->status == 200)
        return t->have > 0 ? start_over(t, err) : BNT_OK;
    if (is_right_range(t, response->content_range))
        return BNT_OK;
    t->bad_range = true;
    return bnt_fail(err, BNT_ERR_FORMAT, "%.150s: the server answered for other bytes: '%.100s'",
                    t->file->path, response->content_range);
}

static enum bnt_status write_at(const struct transfer *t, const char *data, size_t size,
                                struct bnt_error *err)
{
    uint64_t offset = t->have;
    while (size > 0) {
        ssize_t n = pwrite(t->fd, data, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(t, "cannot write", err);
        data += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return BNT_OK;
}

static enum bnt_status data(void *context, const char *bytes, size_t size, struct bnt_error *err)
{
    struct transfer *t = context;
    if (size > t->file->size - t->have)
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%.150s: the server sends more than the %" PRIu64 " bytes listed",
                        t->file->path, t->file->size);
    enum bnt_status status = write_at(t, bytes, size, err);
    if (status != BNT_OK)
        return status;
    t->have += size;
    bnt_fetch_hasher_advance(&t->hasher, t->have);
    bnt_fetch_ui_add(t->hub->http->ui, size);
    return BNT_OK;
}

// --- tries ---

static void forget_url(struct transfer *t)
{
    free(t->url);
    t->url = NULL;
}

// After a connection that broke or fell short, as err says. false: give up with that.
static bool try_again(struct transfer *t, const struct bnt_fetch_response *response,
                      const struct bnt_error *err)
{
    return bnt_fetch_http_wait(t->hub->http, &t->patience, response, err->message);
}

// What to do with an answer other than 200 and 206.
static enum bnt_status judge_refusal(struct transfer *t, const struct bnt_fetch_response *response,
                                     struct bnt_error *err)
{
    enum bnt_status status = bnt_fetch_hub_refusal(t->hub, t->file->path, response, err);
    bool expired = response->status == 403 && t->expires;
    bool bad_range = response->status == 416 && t->have > 0;
    if (!expired && !bad_range && !bnt_fetch_http_is_passing(response->status))
        return status;
    if (!try_again(t, response, err))
        return status;
    if (expired)
        forget_url(t); // ask for a fresh link
    if (bad_range)
        return start_over(t, err);
    return BNT_OK;
}

// One request for the rest. BNT_OK: look at have and go on.
static enum bnt_status receive_some(struct transfer *t, struct bnt_error *err)
{
    const struct bnt_fetch_sink sink = {begin, data, t};
    const struct bnt_fetch_request request = {.url = t->url, .offset = t->have, .sink = &sink};
    struct bnt_fetch_response response;
    uint64_t before = t->have;
    enum bnt_fetch_outcome outcome = bnt_fetch_http_try(t->hub->http, &request, &response, err);
    if (t->have >= before + WORKED)
        t->patience = (struct bnt_fetch_patience){0};
    if (outcome == BNT_FETCH_FATAL && t->bad_range) {
        t->bad_range = false;
        return try_again(t, NULL, err) ? start_over(t, err) : err->status;
    }
    if (outcome == BNT_FETCH_FATAL)
        return err->status;
    if (t->have == t->file->size)
        return BNT_OK; // complete, whatever else the connection had to say
    if (outcome == BNT_FETCH_NETWORK || outcome == BNT_FETCH_NOBODY) {
        bnt_fail_prefix(err, t->file->path);
        return try_again(t, NULL, err) ? BNT_OK : err->status;
    }
    if (response.status != 200 && response.status != 206)
        return judge_refusal(t, &response, err);
    (void)bnt_fail(err, BNT_ERR_IO,
                   "%.150s: the server ends after %" PRIu64 " of %" PRIu64 " bytes", t->file->path,
                   t->have, t->file->size);
    return try_again(t, NULL, err) ? BNT_OK : err->status;
}

static enum bnt_status receive_all(struct transfer *t, struct bnt_error *err)
{
    enum bnt_status status = BNT_OK;
    while (status == BNT_OK && t->have < t->file->size) {
        if (!t->url)
            status = bnt_fetch_hub_locate(t->hub, t->file, &t->url, &t->expires, err);
        if (status == BNT_OK)
            status = receive_some(t, err);
    }
    return status;
}

// Receives and hashes. *wrong: all bytes are there, but they are not the file's.
static enum bnt_status receive_and_hash(struct transfer *t, bool *wrong, struct bnt_error *err)
{
    char found[BNT_FETCH_OID_TEXT] = "";
    *wrong = false;
    enum bnt_status status =
        bnt_fetch_hasher_start(&t->hasher, t->fd, t->file->size, t->file->oid, err);
    if (status != BNT_OK)
        return status;
    bnt_fetch_hasher_advance(&t->hasher, t->have);
    status = receive_all(t, err);
    if (status != BNT_OK) {
        if (t->hasher.fd >= 0)
            bnt_fetch_hasher_abort(&t->hasher);
        return status;
    }
    if (!bnt_fetch_hasher_finish(&t->hasher, found))
        return bnt_fail(err, BNT_ERR_IO, "%.150s: cannot read back %.240s", t->file->path,
                        t->partial);
    bool right = strcmp(found, t->file->oid) == 0;
    if (!right && t->file->trust == BNT_FETCH_TAGGED) {
        if (!bnt_fetch_file_is(t->fd, t->file))
            bnt_fetch_ui_once(
                t->hub->http->ui, &t->hub->http->ui->said_unhashed,
                "the server names no hash that is known; only the size is checked of ",
                t->file->path);
        right = true;
    }
    *wrong = !right;
    if (*wrong)
        return bnt_fail(err, BNT_ERR_FORMAT, "%.150s: %s is %s, must be %s; removed", t->file->path,
                        strlen(found) == 64 ? "sha256" : "git's sha1", found, t->file->oid);
    return BNT_OK;
}

// Opens the unfinished file and sees what it has.
static enum bnt_status open_partial(struct transfer *t, struct bnt_error *err)
{
    struct stat st;
    t->fd = open(t->partial, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (t->fd < 0 || fstat(t->fd, &st) != 0)
        return fail_errno(t, "cannot open", err);
    if (!S_ISREG(st.st_mode))
        return bnt_fail(err, BNT_ERR_IO, "%.300s: not a regular file", t->partial);
    t->have = (uint64_t)st.st_size;
    if (t->have <= t->file->size)
        return BNT_OK;
    t->have = 0; // of another file, then
    return ftruncate(t->fd, 0) == 0 ? BNT_OK : fail_errno(t, "cannot empty", err);
}

// Wrong bytes are received anew once: they may come from an unlucky earlier run or a careless
// proxy.
static enum bnt_status receive_right_bytes(struct transfer *t, struct bnt_error *err)
{
    bool wrong;
    enum bnt_status status = receive_and_hash(t, &wrong, err);
    if (!wrong)
        return status;
    bnt_fetch_ui_lost(t->hub->http->ui, t->have);
    forget_url(t);
    status = empty_partial(t, err);
    if (status != BNT_OK)
        return status;
    status = receive_and_hash(t, &wrong, err);
    if (wrong)
        (void)unlink(t->partial);
    return status;
}

enum bnt_status bnt_fetch_receive(const struct bnt_fetch_hub *hub,
                                  const struct bnt_fetch_file *file, const char *partial,
                                  struct bnt_error *err)
{
    struct transfer t = {.hub = hub, .file = file, .partial = partial, .fd = -1};
    enum bnt_status status = open_partial(&t, err);
    if (status == BNT_OK)
        status = receive_right_bytes(&t, err);
    if (status == BNT_OK && fsync(t.fd) != 0)
        status = fail_errno(&t, "cannot write", err);
    if (t.fd >= 0)
        (void)close(t.fd);
    forget_url(&t);
    return status;
}
