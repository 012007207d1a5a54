// SPDX-License-Identifier: MIT
#include "convert/fetch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "convert/fetch_cache.h"
#include "convert/fetch_file.h"
#include "convert/fetch_hub.h"
#include "convert/fetch_url.h"
#include "formats/cli.h"
#include "formats/file.h"
#include "formats/parallel.h"

struct job {
    const struct bnt_fetch_options *options;
    struct bnt_fetch_http http;
    struct bnt_fetch_hub hub;
    struct bnt_fetch_store store;
    struct bnt_fetch_ui ui;
    struct bnt_fetch_listing *listing;
    struct bnt_fetch_file *files; // of the listing: those to bring
    size_t count;
    struct bnt_fetch_file **missing; // of these; same bytes only once at a time
    size_t missing_count;
    bool *present;         // of each of files
    pthread_mutex_t lock;  // of the rest
    struct bnt_error *err; // of the first file that failed
    enum bnt_status status;
};

// The first failure is what the user reads; the others give up because of it.
static void note_failure(struct job *job, const struct bnt_error *err)
{
    (void)pthread_mutex_lock(&job->lock);
    if (job->status == BNT_OK) {
        job->status = err->status;
        *job->err = *err;
    }
    (void)pthread_mutex_unlock(&job->lock);
    atomic_store(&job->http.cancelled, true);
}

// --- one file ---

static enum bnt_status fetch_blob(struct job *job, struct bnt_fetch_file *file, bool alone,
                                  struct bnt_error *err)
{
    char *partial = bnt_fetch_store_claim(&job->store, file, alone);
    if (!partial)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    enum bnt_status status = bnt_fetch_receive(&job->hub, file, partial, err);
    if (status == BNT_OK)
        status = bnt_fetch_store_place(&job->store, file, partial, err);
    else
        bnt_fetch_store_leave(&job->store, file, partial);
    file->fetched = status == BNT_OK;
    free(partial);
    return status;
}

static enum bnt_status fetch_file(struct job *job, struct bnt_fetch_file *file,
                                  struct bnt_error *err)
{
    int lock;
    bool alone;
    enum bnt_status status =
        bnt_fetch_store_lock(&job->store, file, &job->ui, &job->http.cancelled, &lock, &alone, err);
    if (status != BNT_OK)
        return status;
    // Another process may have fetched it while we waited; one that no lock keeps out may also take
    // the blob away, where it cannot be linked to.
    bool here = bnt_fetch_store_has_blob(&job->store, file);
    if (here)
        status = bnt_fetch_store_place(&job->store, file, NULL, err);
    if (!here || (status != BNT_OK && !bnt_fetch_store_has_blob(&job->store, file)))
        status =
            bnt_fetch_store_has(&job->store, file) ? BNT_OK : fetch_blob(job, file, alone, err);
    (void)close(lock);
    return status;
}

static void fetch_one(void *context, uint64_t i)
{
    struct job *job = context;
    struct bnt_error err;
    if (!atomic_load(&job->http.cancelled) && fetch_file(job, job->missing[i], &err) != BNT_OK)
        note_failure(job, &err);
}

// Learns what the listing does not tell about a file, and looks whether it is here.
static void check_one(void *context, uint64_t i)
{
    struct job *job = context;
    struct bnt_fetch_file *file = &job->files[i];
    struct bnt_error err;
    if (atomic_load(&job->http.cancelled))
        return;
    if (file->trust == BNT_FETCH_UNLISTED &&
        bnt_fetch_hub_describe(&job->hub, file, &err) != BNT_OK)
        note_failure(job, &err);
    else
        job->present[i] = bnt_fetch_store_has(&job->store, file);
}

// --- all files ---

static bool is_repeated(const struct job *job, const struct bnt_fetch_file *file)
{
    for (size_t i = 0; i < job->missing_count; i++) {
        if (strcmp(job->missing[i]->oid, file->oid) == 0)
            return true;
    }
    return false;
}

// Lists what is missing; files with the same bytes as another come in a later round, when the bytes
// are there. Returns the bytes to receive.
static uint64_t find_missing(struct job *job)
{
    uint64_t bytes = 0;
    job->missing_count = 0;
    for (size_t i = 0; i < job->count; i++) {
        struct bnt_fetch_file *file = &job->files[i];
        if (job->present[i] || is_repeated(job, file))
            continue;
        job->missing[job->missing_count++] = file;
        job->present[i] = true; // after this round
        if (!bnt_fetch_store_has_blob(&job->store, file))
            bytes += file->size - bnt_fetch_store_partial(&job->store, file);
    }
    return bytes;
}

// Better now than after hours. A file system that does not know its size is believed.
static enum bnt_status check_space(const struct job *job, uint64_t bytes, struct bnt_error *err)
{
    struct statvfs st;
    if (statvfs(job->store.blobs, &st) != 0 || st.f_blocks == 0)
        return BNT_OK;
    uint64_t room = (uint64_t)st.f_bavail * (uint64_t)st.f_frsize;
    if (room >= bytes)
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_IO,
                    "%.250s: %" PRIu64 " MB are needed but the disk has room for %" PRIu64,
                    job->store.blobs, (bytes + 999999) / 1000000, room / 1000000);
}

static enum bnt_status fetch_missing(struct job *job, uint64_t bytes, bool no_bar,
                                     struct bnt_error *err)
{
    enum bnt_status status = bnt_fetch_store_create(&job->store, err);
    if (status == BNT_OK)
        status = check_space(job, bytes, err);
    for (size_t i = 0; i < job->missing_count && status == BNT_OK; i++)
        status = bnt_fetch_store_check(&job->store, job->missing[i], err);
    if (status != BNT_OK)
        return status;
    bnt_fetch_ui_start(&job->ui, bytes, no_bar);
    do {
        bnt_parallel_for(job->options->jobs, job->missing_count, fetch_one, job);
        (void)find_missing(job);
    } while (job->missing_count > 0 && job->status == BNT_OK);
    return job->status;
}

// A cache that cannot be written to serves all the same when all is there.
static void remember_revision(struct job *job)
{
    struct bnt_error err;
    atomic_flag said = ATOMIC_FLAG_INIT;
    if (bnt_fetch_store_write_ref(&job->store, job->hub.revision, job->hub.commit, &err) != BNT_OK)
        bnt_fetch_ui_once(&job->ui, &said, "cannot note the revision: ", err.message);
}

static enum bnt_status fetch_files(struct job *job, struct bnt_fetch_file *files, size_t count,
                                   bool no_bar, struct bnt_error *err)
{
    job->files = files;
    job->count = count;
    job->present = calloc(count, sizeof *job->present);
    job->missing = calloc(count, sizeof *job->missing);
    enum bnt_status status = BNT_OK;
    if (!job->present || !job->missing) {
        status = bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    } else {
        bnt_parallel_for(job->options->jobs, count, check_one, job);
        status = job->status;
        uint64_t bytes = status == BNT_OK ? find_missing(job) : 0;
        if (status == BNT_OK && job->missing_count > 0)
            status = fetch_missing(job, bytes, no_bar, err);
    }
    free(job->present);
    free(job->missing);
    return status;
}

// --- which files ---

// Drops the weights that a conversion does not read. store: where the index is.
static enum bnt_status choose_weights(const struct bnt_fetch_store *store,
                                      struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    const struct bnt_fetch_file *index = bnt_fetch_deciding_index(listing);
    if (!index)
        return bnt_fetch_keep_weights(listing, NULL, 0, err);
    char *path = bnt_path_join(store->root, index->path);
    char *text = NULL;
    size_t size = 0;
    bool missing;
    enum bnt_status status =
        path ? bnt_read_file(path, BNT_FETCH_MAX_INDEX, &text, &size, &missing, err)
             : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (status == BNT_OK)
        status = bnt_fetch_keep_weights(listing, text, size, err);
    free(text);
    free(path);
    return status;
}

// The same, fetching the index first.
static enum bnt_status fetch_plan(struct job *job, struct bnt_error *err)
{
    struct bnt_fetch_file *index = bnt_fetch_listing_find(job->listing, BNT_FETCH_INDEX);
    enum bnt_status status = BNT_OK;
    if (bnt_fetch_deciding_index(job->listing))
        status = fetch_files(job, index, 1, true, err);
    if (status != BNT_OK)
        return status;
    status = choose_weights(&job->store, job->listing, err);
    if (status != BNT_OK)
        bnt_fail_prefix(err, job->options->repo);
    return status;
}

static enum bnt_status check_local_names(const struct bnt_fetch_options *options,
                                         const struct bnt_fetch_listing *listing,
                                         struct bnt_error *err)
{
    for (size_t i = 0; options->local_dir && i < listing->count; i++) {
        if (strncmp(listing->files[i].path, ".cache/", 7) == 0)
            return bnt_fail(err, BNT_ERR_FORMAT, "%.200s: refused: unfinished files are kept there",
                            listing->files[i].path);
    }
    return BNT_OK;
}

// The files that the options ask for, of all that there are.
static enum bnt_status select_files(const struct bnt_fetch_options *o,
                                    struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    enum bnt_status status = bnt_fetch_check_names(listing, err);
    if (status == BNT_OK && o->include_count == 0)
        status = bnt_fetch_check_model(listing, err);
    if (status == BNT_OK)
        status = bnt_fetch_select(listing, o->include, o->include_count, err);
    if (status == BNT_OK)
        status = check_local_names(o, listing, err);
    if (status != BNT_OK)
        bnt_fail_prefix(err, o->repo);
    return status;
}

static enum bnt_status fetch_listed(struct job *job, const struct bnt_fetch_env *env,
                                    struct bnt_fetch_result *result, struct bnt_error *err)
{
    const struct bnt_fetch_options *o = job->options;
    enum bnt_status status = select_files(o, job->listing, err);
    if (status == BNT_OK)
        status = bnt_fetch_store_init(&job->store, env->cache, o->local_dir, o->repo,
                                      job->hub.commit, err);
    job->store.no_links = env->no_links;
    if (status == BNT_OK && o->include_count == 0)
        status = fetch_plan(job, err);
    if (status == BNT_OK)
        status = fetch_files(job, job->listing->files, job->listing->count, env->no_bar, err);
    if (status == BNT_OK)
        remember_revision(job);
    if (status == BNT_OK && !(result->folder = bnt_fetch_format("%s", job->store.root)))
        status = bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    bnt_fetch_store_free(&job->store);
    return status;
}

// --- without the network ---

// For messages, which matter only where the user wants no network.
static const char *forbidden_by(const struct bnt_fetch_env *env)
{
    return env->offline ? env->offline : "the Hub's silence";
}

// Where the files would be; BNT_ERR_IO if the revision is unknown here.
static enum bnt_status find_store(const struct bnt_fetch_options *o,
                                  const struct bnt_fetch_env *env, struct bnt_fetch_store *store,
                                  char commit[BNT_FETCH_COMMIT_TEXT], struct bnt_error *err)
{
    enum bnt_status status = bnt_fetch_store_init(store, env->cache, NULL, o->repo, "", err);
    if (status != BNT_OK)
        return status;
    bool known = bnt_fetch_store_read_ref(store, o->revision, commit);
    bnt_fetch_store_free(store);
    if (!known && !o->local_dir)
        return bnt_fail(err, BNT_ERR_IO,
                        "%s: revision '%.100s' is not in the cache, and %s forbids to fetch it",
                        o->repo, o->revision, forbidden_by(env));
    return bnt_fetch_store_init(store, env->cache, o->local_dir, o->repo, commit, err);
}

// What is there is given: the weights whole, and each plain name that was asked for. Whether more
// was to be fetched cannot be known. whole: all that a conversion cannot do without.
static enum bnt_status walk_offline(const struct bnt_fetch_options *o,
                                    const struct bnt_fetch_store *store, bool whole,
                                    struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    bool conversion = o->include_count == 0;
    enum bnt_status status =
        bnt_fetch_store_walk(store, o->include, o->include_count, listing, err);
    if (status == BNT_OK && conversion && whole)
        status = bnt_fetch_check_model(listing, err);
    if (status == BNT_OK)
        status = bnt_fetch_select(listing, o->include, o->include_count, err);
    return status == BNT_OK && conversion ? choose_weights(store, listing, err) : status;
}

static enum bnt_status take_from_cache(const struct bnt_fetch_options *o,
                                       const struct bnt_fetch_env *env, bool whole,
                                       struct bnt_fetch_result *result, struct bnt_error *err)
{
    struct bnt_fetch_store store;
    char commit[BNT_FETCH_COMMIT_TEXT] = "";
    enum bnt_status status = find_store(o, env, &store, commit, err);
    if (status != BNT_OK)
        return status;
    memcpy(result->listing.commit, commit, sizeof commit);
    status = walk_offline(o, &store, whole, &result->listing, err);
    if (status != BNT_OK) {
        struct bnt_error why = *err;
        (void)bnt_fail(err, status, "%s: not in the cache, and %s forbids to fetch it: %.300s",
                       o->repo, forbidden_by(env), why.message);
    } else if (!(result->folder = bnt_fetch_format("%s", store.root))) {
        status = bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    }
    bnt_fetch_store_free(&store);
    return status;
}

// --- with it ---

// Where the Hub does not answer, what was fetched before serves as well, if it is complete.
static enum bnt_status list_and_fetch(struct job *job, const struct bnt_fetch_env *env,
                                      struct bnt_fetch_result *result, struct bnt_error *err)
{
    struct bnt_fetch_result before = {0};
    struct bnt_error ignored;
    job->listing = &result->listing;
    job->http.have_all = take_from_cache(job->options, env, true, &before, &ignored) == BNT_OK;
    enum bnt_status status = bnt_fetch_hub_list(&job->hub, job->listing, err);
    if (status != BNT_OK && job->hub.unreachable && job->http.have_all) {
        bnt_fetch_listing_free(&result->listing);
        *result = before;
        if (!job->options->quiet)
            bnt_cli_note("%s; using what was fetched before, which is complete", err->message);
        return BNT_OK;
    }
    bnt_fetch_result_free(&before);
    job->http.have_all = false;
    return status == BNT_OK ? fetch_listed(job, env, result, err) : status;
}

static enum bnt_status fetch_online(const struct bnt_fetch_options *options,
                                    const struct bnt_fetch_env *env,
                                    struct bnt_fetch_result *result, struct bnt_error *err)
{
    struct job job = {.options = options, .err = err, .lock = PTHREAD_MUTEX_INITIALIZER};
    job.http = (struct bnt_fetch_http){.endpoint = env->endpoint,
                                       .ca_file = env->ca_file,
                                       .allow_http = options->allow_http,
                                       .etag_timeout_ms = (long)(env->etag_timeout * 1000),
                                       .download_timeout_ms = (long)(env->download_timeout * 1000),
                                       .retry_scale = env->retry_scale,
                                       .proxy_http = &env->proxy_http,
                                       .proxy_https = &env->proxy_https,
                                       .ui = &job.ui};
    job.hub = (struct bnt_fetch_hub){
        .http = &job.http, .repo = options->repo, .revision = options->revision};
    enum bnt_status status = bnt_fetch_url_check(env->endpoint, NULL, options->allow_http, err);
    if (status != BNT_OK) {
        bnt_fail_prefix(err, "HF_ENDPOINT");
        return status;
    }
    if (env->token &&
        !(job.http.authorization = bnt_fetch_format("Authorization: Bearer %s", env->token)))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    bnt_fetch_ui_init(&job.ui, options->quiet);
    bnt_fetch_http_init(&job.http);
    status = list_and_fetch(&job, env, result, err);
    bnt_fetch_http_close(&job.http);
    bnt_fetch_ui_end(&job.ui);
    free(job.http.authorization);
    return status;
}

enum bnt_status bnt_fetch(const struct bnt_fetch_options *options, const struct bnt_fetch_env *env,
                          struct bnt_fetch_result *result, struct bnt_error *err)
{
    *result = (struct bnt_fetch_result){0};
    return env->offline ? take_from_cache(options, env, false, result, err)
                        : fetch_online(options, env, result, err);
}

void bnt_fetch_result_free(struct bnt_fetch_result *result)
{
    free(result->folder);
    bnt_fetch_listing_free(&result->listing);
}
