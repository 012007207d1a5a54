// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // flock, getrandom, AT_EACCESS
#include "convert/fetch_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "convert/fetch_hash.h"
#include "convert/fetch_url.h"
#include "formats/file.h"

enum {
    MAX_DEPTH = 64,
    ORPHANED = 3600, // seconds after which nobody is at work on a file any more
};

static enum bnt_status no_memory(struct bnt_error *err)
{
    return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
}

static enum bnt_status fail_errno(struct bnt_error *err, const char *path, const char *what)
{
    return bnt_fail(err, BNT_ERR_IO, "%.300s: %s: %s", path, what, strerror(errno));
}

// "models--org--name"
static char *repo_folder(const char *repo)
{
    const char *slash = strchr(repo, '/');
    if (!slash)
        return bnt_fetch_format("models--%s", repo);
    return bnt_fetch_format("models--%.*s--%s", (int)(slash - repo), repo, slash + 1);
}

enum bnt_status bnt_fetch_store_init(struct bnt_fetch_store *store, const char *cache,
                                     const char *local_dir, const char *repo, const char *commit,
                                     struct bnt_error *err)
{
    char *folder = repo_folder(repo);
    *store = (struct bnt_fetch_store){.plain = local_dir != NULL, .local_dir = local_dir};
    if (folder && local_dir) {
        store->root = bnt_fetch_format("%s", local_dir);
        store->blobs = bnt_path_join(local_dir, ".cache/bnt");
        store->locks = bnt_path_join(local_dir, ".cache/bnt");
    } else if (folder) {
        store->root = bnt_fetch_format("%s/%s/snapshots/%s", cache, folder, commit);
        store->blobs = bnt_fetch_format("%s/%s/blobs", cache, folder);
        store->locks = bnt_fetch_format("%s/.locks/%s", cache, folder);
    }
    if (folder)
        store->refs = bnt_fetch_format("%s/%s/refs", cache, folder);
    free(folder);
    if (store->root && store->blobs && store->locks && store->refs)
        return BNT_OK;
    bnt_fetch_store_free(store);
    return no_memory(err);
}

void bnt_fetch_store_free(struct bnt_fetch_store *store)
{
    free(store->root);
    free(store->blobs);
    free(store->locks);
    free(store->refs);
    *store = (struct bnt_fetch_store){0};
}

// After a mkdir that failed, whose errno stays what says why.
static bool is_folder(const char *path)
{
    struct stat st;
    int saved = errno;
    bool there = stat(path, &st) == 0;
    errno = saved;
    return there && S_ISDIR(st.st_mode);
}

// mkdir -p, following the links that the user laid.
static enum bnt_status make_folders(const char *path, struct bnt_error *err)
{
    char *copy = bnt_fetch_format("%s", path);
    bool good = copy != NULL;
    for (char *p = copy; good && p; p = strchr(p, '/')) {
        p += *p == '/'; // the first slash of an absolute path, or the one just found
        char *slash = strchr(p, '/');
        if (slash)
            *slash = '\0';
        good = *copy == '\0' || mkdir(copy, 0777) == 0 || is_folder(copy);
        if (slash)
            *slash = '/';
    }
    enum bnt_status status = good ? BNT_OK : fail_errno(err, path, "cannot make this folder");
    free(copy);
    return status;
}

// --- below a root: names from the server, so no link is followed ---

// Opens the folder of root/path, making it if create, and points *base at the last part of path.
// -1 with errno.
static int open_parent(const char *root, const char *path, bool create, const char **base)
{
    int dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *base = path;
    for (const char *slash; dir >= 0 && (slash = strchr(*base, '/')) != NULL; *base = slash + 1) {
        char part[NAME_MAX + 1];
        size_t length = (size_t)(slash - *base);
        int next = -1;
        if (length < sizeof part) {
            memcpy(part, *base, length);
            part[length] = '\0';
            int problem = create && mkdirat(dir, part, 0777) != 0 ? errno : 0;
            next = openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (next < 0 && errno == ENOENT && problem)
                errno = problem; // why it is not there
        } else {
            errno = ENAMETOOLONG;
        }
        int saved = errno;
        (void)close(dir);
        errno = saved;
        dir = next;
    }
    return dir;
}

static enum bnt_status parent_failed(const struct bnt_fetch_store *store, const char *path,
                                     struct bnt_error *err)
{
    if (errno == ELOOP || errno == ENOTDIR)
        return bnt_fail(err, BNT_ERR_IO,
                        "%.150s: a link or a file is in the way of its folder below %.200s", path,
                        store->root);
    return bnt_fail(err, BNT_ERR_IO, "%.150s: cannot make its folder below %.200s: %s", path,
                    store->root, strerror(errno));
}

enum bnt_status bnt_fetch_store_create(const struct bnt_fetch_store *store, struct bnt_error *err)
{
    enum bnt_status status = make_folders(store->root, err);
    if (store->plain && status == BNT_OK) { // a link .cache must not lead outside
        const char *base;
        int dir = open_parent(store->root, ".cache/bnt/x", true, &base);
        if (dir < 0)
            return parent_failed(store, ".cache/bnt", err);
        (void)close(dir);
        return BNT_OK;
    }
    if (status == BNT_OK)
        status = make_folders(store->blobs, err);
    if (status == BNT_OK)
        status = make_folders(store->locks, err);
    return status;
}

// "../../blobs/<oid>", one ../ more for each sub-folder of path.
static bool link_text(const struct bnt_fetch_file *file, char *out, size_t size)
{
    size_t length = 0;
    int ups = 2;
    for (const char *p = file->path; *p; p++)
        ups += *p == '/';
    if (3 * (size_t)ups + sizeof "blobs/" + strlen(file->oid) > size)
        return false;
    for (; ups > 0; ups--)
        length += (size_t)snprintf(out + length, size - length, "../");
    (void)snprintf(out + length, size - length, "blobs/%s", file->oid);
    return true;
}

static bool is_link_to_blob(int dir, const char *base, const struct bnt_fetch_file *file)
{
    char expected[PATH_MAX];
    char found[PATH_MAX];
    ssize_t length = readlinkat(dir, base, found, sizeof found - 1);
    if (length < 0 || !link_text(file, expected, sizeof expected))
        return false;
    found[length] = '\0';
    return strcmp(found, expected) == 0;
}

// Whether it has the right bytes. In a cache they may lie behind a link to another name: a mirror's
// ETag, where the Python tools came first.
static bool is_file(const struct bnt_fetch_store *store, int dir, const char *base,
                    const struct bnt_fetch_file *file)
{
    int fd = openat(dir, base, O_RDONLY | O_NONBLOCK | O_CLOEXEC | (store->plain ? O_NOFOLLOW : 0));
    bool same = fd >= 0 && bnt_fetch_file_is(fd, file);
    if (fd >= 0)
        (void)close(fd);
    return same;
}

bool bnt_fetch_store_has_blob(const struct bnt_fetch_store *store,
                              const struct bnt_fetch_file *file)
{
    struct stat st;
    char *path = store->plain ? NULL : bnt_path_join(store->blobs, file->oid);
    bool there =
        path && stat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == file->size;
    free(path);
    return there;
}

bool bnt_fetch_store_has(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file)
{
    const char *base;
    int dir = open_parent(store->root, file->path, false, &base);
    if (dir < 0)
        return false;
    bool there = !store->plain && is_link_to_blob(dir, base, file)
                     ? bnt_fetch_store_has_blob(store, file)
                     : is_file(store, dir, base, file);
    (void)close(dir);
    return there;
}

static char *partial_path(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file)
{
    return bnt_fetch_format("%s/%s.incomplete", store->blobs, file->oid);
}

// A path that no other call of any process on any machine gets.
static char *private_path(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file)
{
    uint64_t unique;
    if (getrandom(&unique, sizeof unique, 0) != (ssize_t)sizeof unique)
        return NULL;
    return bnt_fetch_format("%s/%s.%016" PRIx64 ".incomplete", store->blobs, file->oid, unique);
}

// Whether a name is one that private_path made for this file.
static bool is_private(const char *name, const struct bnt_fetch_file *file)
{
    size_t oid = strlen(file->oid);
    return strncmp(name, file->oid, oid) == 0 && name[oid] == '.' &&
           strspn(name + oid + 1, "0123456789abcdef") == 16 &&
           strcmp(name + oid + 17, ".incomplete") == 0;
}

// What a process that was killed left, or nothing: nobody has written to it for a long time.
static bool adopt_orphan(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file,
                         const char *own)
{
    DIR *dir = opendir(store->blobs);
    bool adopted = false;
    if (!dir)
        return false;
    for (struct dirent *entry; !adopted && (entry = readdir(dir)) != NULL;) {
        struct stat st;
        char *path =
            is_private(entry->d_name, file) ? bnt_path_join(store->blobs, entry->d_name) : NULL;
        adopted = path && lstat(path, &st) == 0 && st.st_mtime < time(NULL) - ORPHANED &&
                  rename(path, own) == 0;
        free(path);
    }
    (void)closedir(dir);
    return adopted;
}

char *bnt_fetch_store_claim(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file,
                            bool alone)
{
    char *common = partial_path(store, file);
    if (alone || !common)
        return common;
    char *own = private_path(store, file);
    if (own && rename(common, own) != 0) // only one of those who try gets it
        (void)adopt_orphan(store, file, own);
    free(common);
    return own;
}

void bnt_fetch_store_leave(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file,
                           const char *partial)
{
    char *common = partial_path(store, file);
    if (common && strcmp(common, partial) != 0)
        (void)rename(partial, common);
    free(common);
}

uint64_t bnt_fetch_store_partial(const struct bnt_fetch_store *store,
                                 const struct bnt_fetch_file *file)
{
    struct stat st;
    char *path = partial_path(store, file);
    bool there = path && lstat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    return there && (uint64_t)st.st_size <= file->size ? (uint64_t)st.st_size : 0;
}

// --- locks ---

// Whether the path still names the file that is open: some tools remove lock files.
static bool still_there(int fd, const char *path)
{
    struct stat a;
    struct stat b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

// Whether a lock that we have keeps another open file out: on some file systems it does nothing.
static bool lock_holds(const char *path)
{
    int other = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    bool holds = other >= 0 && flock(other, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (other >= 0)
        (void)close(other);
    return holds;
}

// 1: taken; 0: another has it; -1: cannot. A file system without flock counts as taken, not alone.
static int try_lock(const char *path, int *fd, bool *alone)
{
    *fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (*fd < 0)
        return -1;
    bool failed = flock(*fd, LOCK_EX | LOCK_NB) != 0;
    bool busy = failed && (errno == EWOULDBLOCK || errno == EINTR);
    if (!busy && still_there(*fd, path)) {
        *alone = !failed && lock_holds(path);
        return 1;
    }
    (void)close(*fd);
    return 0;
}

enum bnt_status bnt_fetch_store_lock(const struct bnt_fetch_store *store,
                                     const struct bnt_fetch_file *file, struct bnt_fetch_ui *ui,
                                     const atomic_bool *cancelled, int *lock, bool *alone,
                                     struct bnt_error *err)
{
    const struct timespec nap = {.tv_nsec = 50000000};
    char *path = bnt_fetch_format("%s/%s.lock", store->locks, file->oid);
    enum bnt_status status = BNT_OK;
    int taken = 0;
    if (!path)
        return no_memory(err);
    while (status == BNT_OK && (taken = try_lock(path, lock, alone)) == 0) {
        bnt_fetch_ui_once(ui, &ui->said_waiting, "waiting for another process that fetches ",
                          file->path);
        if (atomic_load(cancelled))
            status = bnt_fail(err, BNT_ERR_IO, "given up because another file failed");
        else
            (void)nanosleep(&nap, NULL);
    }
    if (taken < 0)
        status = fail_errno(err, path, "cannot lock");
    free(path);
    return status;
}

// --- final names ---

// Whether a file may get this name. In a plain folder that is not ours alone nothing but a file is
// replaced, and no link followed: the names are the server's.
static enum bnt_status check_name(const struct bnt_fetch_store *store,
                                  const struct bnt_fetch_file *file, int dir, const char *base,
                                  struct bnt_error *err)
{
    struct stat st;
    bool there = store->plain && fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && !S_ISREG(st.st_mode))
        return bnt_fail(err, BNT_ERR_IO,
                        "%.150s: a %s of this name is in the way below %.200s: move it", file->path,
                        S_ISLNK(st.st_mode)   ? "link"
                        : S_ISDIR(st.st_mode) ? "folder"
                                              : "device or pipe",
                        store->root);
    if (faccessat(dir, ".", W_OK | X_OK, AT_EACCESS) != 0 ||
        (there && faccessat(dir, base, W_OK, AT_EACCESS) != 0))
        return bnt_fail(err, BNT_ERR_IO, "%.150s: cannot be written below %.200s: %s", file->path,
                        store->root, strerror(errno));
    return BNT_OK;
}

enum bnt_status bnt_fetch_store_check(const struct bnt_fetch_store *store,
                                      const struct bnt_fetch_file *file, struct bnt_error *err)
{
    const char *base;
    int dir = open_parent(store->root, file->path, true, &base);
    if (dir < 0)
        return parent_failed(store, file->path, err);
    enum bnt_status status = check_name(store, file, dir, base, err);
    (void)close(dir);
    return status;
}

// A file that was there before keeps its mode.
static bool place_in_folder(const char *partial, int dir, const char *base)
{
    struct stat st;
    if (fstatat(dir, base, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        (void)chmod(partial, st.st_mode & 0777);
    return renameat(AT_FDCWD, partial, dir, base) == 0;
}

// Puts a link where nothing, or anything but a folder, is.
static bool replace_by_link(int dir, const char *base, const char *text)
{
    char temporary[64];
    if (symlinkat(text, dir, base) == 0)
        return true;
    if (errno != EEXIST)
        return false;
    // No other process has our id, no other thread of ours this address.
    (void)snprintf(temporary, sizeof temporary, ".bnt-%ld-%p", (long)getpid(), (const void *)text);
    (void)unlinkat(dir, temporary, 0);
    if (symlinkat(text, dir, temporary) != 0)
        return false;
    if (renameat(dir, temporary, dir, base) == 0)
        return true;
    int saved = errno;
    (void)unlinkat(dir, temporary, 0);
    errno = saved;
    return false;
}

static bool copy_bytes(int from, int to)
{
    enum { CHUNK = 1 << 20 };
    struct bnt_error err;
    char *buffer = malloc(CHUNK);
    size_t got = CHUNK;
    bool good = buffer != NULL;
    while (good && got == CHUNK) {
        good = bnt_read_fully(from, buffer, CHUNK, &got, &err) == BNT_OK;
        for (size_t done = 0; good && done < got;) {
            ssize_t n = write(to, buffer + done, got - done);
            good = n >= 0 || errno == EINTR;
            done += n > 0 ? (size_t)n : 0;
        }
    }
    free(buffer);
    return good && fsync(to) == 0;
}

// Copies a blob to its place: other snapshots may link to it.
static bool copy_blob(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file,
                      const char *blob, int dir, const char *base)
{
    char *copy = private_path(store, file);
    int from = open(blob, O_RDONLY | O_CLOEXEC);
    int to = copy && from >= 0 ? open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    bool good = to >= 0 && copy_bytes(from, to) && renameat(AT_FDCWD, copy, dir, base) == 0;
    int saved = errno;
    if (to >= 0) {
        (void)close(to);
        if (!good)
            (void)unlink(copy);
    }
    if (from >= 0)
        (void)close(from);
    free(copy);
    errno = saved;
    return good;
}

// Where links cannot be, or must not: a new blob moves into the snapshot.
static bool place_without_link(const struct bnt_fetch_store *store,
                               const struct bnt_fetch_file *file, bool fresh, const char *blob,
                               int dir, const char *base)
{
    return (fresh && renameat(AT_FDCWD, blob, dir, base) == 0) ||
           (!fresh && copy_blob(store, file, blob, dir, base));
}

static bool place_in_cache(const struct bnt_fetch_store *store, const struct bnt_fetch_file *file,
                           const char *partial, int dir, const char *base)
{
    char text[PATH_MAX];
    char *blob = bnt_path_join(store->blobs, file->oid);
    bool fresh = blob && partial && rename(partial, blob) == 0;
    bool good = (fresh || !partial || bnt_fetch_store_has_blob(store, file)) && blob &&
                (is_link_to_blob(dir, base, file) ||
                 (!store->no_links && link_text(file, text, sizeof text) &&
                  replace_by_link(dir, base, text)) ||
                 place_without_link(store, file, fresh, blob, dir, base));
    int saved = errno;
    free(blob);
    errno = saved;
    return good;
}

enum bnt_status bnt_fetch_store_place(const struct bnt_fetch_store *store,
                                      const struct bnt_fetch_file *file, const char *partial,
                                      struct bnt_error *err)
{
    const char *base;
    int dir = open_parent(store->root, file->path, true, &base);
    if (dir < 0)
        return parent_failed(store, file->path, err);
    if (check_name(store, file, dir, base, err) != BNT_OK) {
        (void)close(dir);
        return err->status;
    }
    bool good = store->plain ? place_in_folder(partial, dir, base)
                             : place_in_cache(store, file, partial, dir, base);
    int problem = errno;
    (void)close(dir);
    // Where locks do not hold, another process may have been quicker.
    if (good || (problem == ENOENT && bnt_fetch_store_has(store, file)))
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_IO, "%.150s: cannot get its name below %.200s: %s", file->path,
                    store->root, strerror(problem));
}

// --- refs ---

static bool is_commit(const char *revision)
{
    return bnt_fetch_is_hex(revision, BNT_FETCH_COMMIT_TEXT - 1);
}

static enum bnt_status write_ref_file(const char *path, const char *commit, struct bnt_error *err)
{
    struct bnt_output out;
    char *slash = strrchr(path, '/');
    char *folder = bnt_fetch_format("%.*s", (int)(slash - path), path);
    enum bnt_status status = folder ? make_folders(folder, err) : no_memory(err);
    free(folder);
    if (status == BNT_OK)
        status = bnt_output_open(&out, path, err);
    if (status != BNT_OK)
        return status;
    status = bnt_output_write(&out, commit, strlen(commit), err);
    if (status == BNT_OK)
        return bnt_output_commit(&out, err);
    bnt_output_abort(&out);
    return status;
}

enum bnt_status bnt_fetch_store_write_ref(const struct bnt_fetch_store *store, const char *revision,
                                          const char *commit, struct bnt_error *err)
{
    char known[BNT_FETCH_COMMIT_TEXT];
    if (store->plain || strcmp(revision, commit) == 0)
        return BNT_OK;
    if (!is_commit(revision) && bnt_fetch_store_read_ref(store, revision, known) &&
        strcmp(known, commit) == 0)
        return BNT_OK;
    char *path = bnt_path_join(store->refs, revision);
    enum bnt_status status = path ? write_ref_file(path, commit, err) : no_memory(err);
    free(path);
    return status;
}

bool bnt_fetch_store_read_ref(const struct bnt_fetch_store *store, const char *revision,
                              char commit[BNT_FETCH_COMMIT_TEXT])
{
    const char *found = revision;
    char *text = NULL;
    if (!is_commit(revision)) {
        size_t size;
        bool missing;
        char *path = bnt_path_join(store->refs, revision);
        if (path && bnt_read_file(path, 4096, &text, &size, &missing, NULL) == BNT_OK)
            text[strcspn(text, "\r\n")] = '\0';
        free(path);
        found = text ? text : "";
    }
    bool good = is_commit(found);
    if (good)
        memcpy(commit, found, BNT_FETCH_COMMIT_TEXT);
    free(text);
    return good;
}

// --- what is there ---

struct walk {
    const char *const *patterns;
    size_t count;
    struct bnt_fetch_listing *listing;
    struct bnt_error *err;
};

static enum bnt_status walk_folder(const struct walk *w, const char *folder, const char *below,
                                   int depth);

static enum bnt_status walk_entry(const struct walk *w, const char *path, const char *name,
                                  int depth)
{
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return walk_folder(w, path, name, depth + 1);
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) ||
        !bnt_fetch_wanted(name, w->patterns, w->count))
        return BNT_OK;
    return bnt_fetch_listing_add(w->listing, name, (uint64_t)st.st_size, "", w->err);
}

static enum bnt_status walk_folder(const struct walk *w, const char *folder, const char *below,
                                   int depth)
{
    DIR *dir = depth < MAX_DEPTH ? opendir(folder) : NULL;
    enum bnt_status status = BNT_OK;
    if (!dir)
        return BNT_OK;
    for (struct dirent *entry; status == BNT_OK && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            (depth == 0 && strcmp(entry->d_name, ".cache") == 0))
            continue;
        char *path = bnt_path_join(folder, entry->d_name);
        char *name =
            *below ? bnt_path_join(below, entry->d_name) : bnt_fetch_format("%s", entry->d_name);
        status = path && name ? walk_entry(w, path, name, depth) : no_memory(w->err);
        free(path);
        free(name);
    }
    (void)closedir(dir);
    return status;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct bnt_fetch_file *)a)->path,
                  ((const struct bnt_fetch_file *)b)->path);
}

enum bnt_status bnt_fetch_store_walk(const struct bnt_fetch_store *store,
                                     const char *const *patterns, size_t count,
                                     struct bnt_fetch_listing *listing, struct bnt_error *err)
{
    const struct walk w = {patterns, count, listing, err};
    enum bnt_status status = walk_folder(&w, store->root, "", 0);
    if (status == BNT_OK && listing->count > 1) // readdir knows no order, people do
        qsort(listing->files, listing->count, sizeof *listing->files, by_path);
    return status;
}
