// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // F_SETPIPE_SZ, mkostemp
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/target.h"

enum { COPY_BYTES = 1 << 20 };

const char *bnt_input_name(const char *path)
{
    return strcmp(path, "-") == 0 ? "standard input" : path;
}

enum bnt_status bnt_fail_empty(struct bnt_error *err, const char *path)
{
    return bnt_fail(err, BNT_ERR_IO,
                    "%s: nothing came: the command that was to write it has failed, or wrote "
                    "nothing",
                    bnt_input_name(path));
}

static atomic_bool reader_left;

static enum bnt_status fail_errno(struct bnt_error *err, const char *path, const char *what)
{
    if (errno == EPIPE)
        atomic_store(&reader_left, true);
    return bnt_fail(err, BNT_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

enum bnt_status bnt_read_fully(int fd, void *data, size_t size, size_t *got, struct bnt_error *err)
{
    *got = 0;
    while (*got < size) {
        ssize_t n = read(fd, (char *)data + *got, size - *got);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bnt_fail(err, BNT_ERR_IO, "cannot read: %s", strerror(errno));
        *got += (size_t)n;
    }
    return BNT_OK;
}

static const char *temporary_folder(void)
{
    const char *dir = getenv("TMPDIR");
    return dir && *dir ? dir : "/tmp";
}

// A temporary file of an input or an output could not be made or written.
static enum bnt_status fail_temporary(struct bnt_error *err, const char *name)
{
    return bnt_fail(err, BNT_ERR_IO,
                    "%s: cannot keep it in a temporary file in %s: %s (set TMPDIR to another "
                    "folder)",
                    name, temporary_folder(), strerror(errno));
}

// The template of a file in $TMPDIR or /tmp, malloc'd, or NULL.
static char *name_elsewhere(void)
{
    return bnt_path_join(temporary_folder(), "bnt-XXXXXX");
}

// An open file without a name there.
static int unnamed_file(void)
{
    char *path = name_elsewhere();
    if (!path)
        return -1;
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    free(path);
    return fd;
}

static bool write_fully(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

// Copies all that can be read from one descriptor to another. fail: for what cannot be written.
static enum bnt_status copy_all(int from, int to, const char *name,
                                enum bnt_status (*fail)(struct bnt_error *err, const char *name),
                                struct bnt_error *err)
{
    char *buffer = malloc(COPY_BYTES);
    if (!buffer)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    enum bnt_status status;
    size_t got;
    do {
        status = bnt_read_fully(from, buffer, COPY_BYTES, &got, err);
        if (status != BNT_OK)
            bnt_fail_prefix(err, name);
        else if (!write_fully(to, buffer, got))
            status = fail(err, name);
    } while (status == BNT_OK && got == COPY_BYTES);
    free(buffer);
    return status;
}

// Replaces a descriptor that cannot be mapped by one that can.
static enum bnt_status spool_input(int *fd, const char *path, struct bnt_error *err)
{
    int copy = unnamed_file();
    if (copy < 0)
        return fail_temporary(err, path);
    enum bnt_status status = copy_all(*fd, copy, path, fail_temporary, err);
    if (status == BNT_OK && lseek(copy, 0, SEEK_CUR) == 0)
        status = bnt_fail_empty(err, path);
    if (*fd != STDIN_FILENO)
        (void)close(*fd);
    *fd = copy;
    return status;
}

enum bnt_status bnt_input_map(struct bnt_map *map, const char *path, struct bnt_error *err)
{
    *map = (struct bnt_map){0};
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return fail_errno(err, bnt_input_name(path), "cannot open");
    enum bnt_status status = BNT_OK;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) // a directory is refused below
        status = spool_input(&fd, bnt_input_name(path), err);
    if (status == BNT_OK)
        status = bnt_map_descriptor(map, fd, bnt_input_name(path), err);
    if (fd > STDIN_FILENO)
        (void)close(fd);
    return status;
}

static enum bnt_status read_open_file(int fd, const char *path, size_t limit, char **text,
                                      size_t *size, struct bnt_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return fail_errno(err, path, "cannot stat");
    if (!S_ISREG(st.st_mode))
        return bnt_fail(err, BNT_ERR_IO, "%s: is %s", path,
                        S_ISDIR(st.st_mode) ? "a directory, not a file" : "not a regular file");
    if ((uint64_t)st.st_size > limit)
        return bnt_fail(err, BNT_ERR_FORMAT,
                        "%s: %jd bytes, more than the %zu expected of such a file", path,
                        (intmax_t)st.st_size, limit);
    *text = malloc((size_t)st.st_size + 1);
    if (!*text)
        return bnt_fail(err, BNT_ERR_MEMORY, "%s: out of memory", path);
    enum bnt_status status = bnt_read_fully(fd, *text, (size_t)st.st_size, size, err);
    (*text)[*size] = '\0';
    if (status != BNT_OK) {
        bnt_fail_prefix(err, path);
        free(*text);
        *text = NULL;
    }
    return status;
}

enum bnt_status bnt_read_file(const char *path, size_t limit, char **text, size_t *size,
                              bool *missing, struct bnt_error *err)
{
    *text = NULL;
    *size = 0;
    // O_NONBLOCK: opening a FIFO must not wait for a writer before we can refuse it.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    *missing = fd < 0 && errno == ENOENT;
    if (fd < 0)
        return fail_errno(err, path, "cannot open");
    enum bnt_status status = read_open_file(fd, path, limit, text, size, err);
    (void)close(fd);
    return status;
}

// Reads a pipe that was opened by its name, without blocking, until something comes or it is sure
// that somebody will write: one that nobody opens would keep us for ever. *ended: nothing comes.
static enum bnt_status read_first(int fd, const char *path, char *data, size_t size, size_t *got,
                                  bool *ended, struct bnt_error *err)
{
    enum { STEP = 20, PATIENCE = 5000 }; // milliseconds
    *got = 0;
    *ended = false;
    for (int waited = 0; waited < PATIENCE; waited += STEP) {
        ssize_t n = read(fd, data, size);
        if (n > 0 || (n < 0 && errno == EAGAIN)) { // EAGAIN: there is a writer
            *got = n > 0 ? (size_t)n : 0;
            return fcntl(fd, F_SETFL, 0) == 0 ? BNT_OK : fail_errno(err, path, "cannot read");
        }
        if (n < 0 && errno != EINTR)
            return fail_errno(err, path, "cannot read");
        struct pollfd end = {.fd = fd, .events = POLLIN};
        *ended = poll(&end, 1, STEP) > 0 && (end.revents & POLLHUP) && !(end.revents & POLLIN);
        if (*ended) // there was a writer
            return BNT_OK;
    }
    return bnt_fail(err, BNT_ERR_IO, "%s: a pipe that nobody writes to", path);
}

// Standard input, or a pipe that was opened by its name.
static enum bnt_status read_stream(int fd, const char *path, size_t limit, char **text,
                                   size_t *size, struct bnt_error *err)
{
    const char *name = bnt_input_name(path);
    *text = malloc(limit + 1); // the system gives what is used of it
    *size = 0;
    if (!*text)
        return bnt_fail(err, BNT_ERR_MEMORY, "%s: out of memory", name);
    size_t first = 0;
    bool ended = false;
    enum bnt_status status = BNT_OK;
    if (fd != STDIN_FILENO)
        status = read_first(fd, path, *text, limit + 1, &first, &ended, err);
    if (status == BNT_OK && !ended) {
        status = bnt_read_fully(fd, *text + first, limit + 1 - first, size, err);
        *size += first;
        if (status != BNT_OK)
            bnt_fail_prefix(err, name);
    }
    if (status == BNT_OK && *size > limit)
        status = bnt_fail(err, BNT_ERR_ARGUMENT, "%s: more than %zu bytes", name, limit);
    if (status == BNT_OK) {
        (*text)[*size] = '\0';
        return BNT_OK;
    }
    free(*text);
    *text = NULL;
    return status;
}

enum bnt_status bnt_read_input(const char *path, size_t limit, char **text, size_t *size,
                               struct bnt_error *err)
{
    bool missing;
    struct stat st;
    if (strcmp(path, "-") == 0)
        return read_stream(STDIN_FILENO, path, limit, text, size, err);
    if (stat(path, &st) != 0 || !S_ISFIFO(st.st_mode))
        return bnt_read_file(path, limit, text, size, &missing, err);
    *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(err, path, "cannot open");
    enum bnt_status status = read_stream(fd, path, limit, text, size, err);
    (void)close(fd);
    return status;
}

enum bnt_status bnt_read_piped(const char *path, size_t limit, char **text, size_t *size,
                               struct bnt_error *err)
{
    struct stat st;
    bool known = (strcmp(path, "-") == 0 ? fstat(STDIN_FILENO, &st) : stat(path, &st)) == 0;
    enum bnt_status status = bnt_read_input(path, limit, text, size, err);
    if (status != BNT_OK || *size > 0 || !known || S_ISREG(st.st_mode))
        return status;
    free(*text);
    *text = NULL;
    return bnt_fail_empty(err, path);
}

char *bnt_path_join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        (void)snprintf(path, size, "%s/%s", dir, name);
    return path;
}

// --- output ---

// The temporary file that a signal has to remove; tools write one at a time.
static const char *_Atomic doomed_file;

void bnt_output_remove_unfinished(void)
{
    const char *path = atomic_load(&doomed_file);
    if (path)
        (void)unlink(path);
}

static void remove_and_die(int signal_number)
{
    bnt_output_remove_unfinished();
    // SA_RESETHAND restored the default action: the parent sees that a signal ended us.
    (void)raise(signal_number);
}

void bnt_catch_deadly_signals(void (*handler)(int signal_number))
{
    static const int deadly[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU};
    struct sigaction action = {.sa_handler = handler, .sa_flags = (int)SA_RESETHAND};
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++) {
        struct sigaction before; // what the caller ignores (nohup does) stays ignored
        if (sigaction(deadly[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            (void)sigaction(deadly[i], &action, NULL);
    }
}

static struct sigaction pipe_before; // what the caller had for SIGPIPE

void bnt_output_handle_signals(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigemptyset(&ignore.sa_mask);
    bnt_catch_deadly_signals(remove_and_die);
    (void)sigaction(SIGPIPE, &ignore, &pipe_before);
    (void)sigaction(SIGXFSZ, &ignore, NULL);
}

void bnt_output_restore_pipe_signal(void)
{
    (void)sigaction(SIGPIPE, &pipe_before, NULL);
}

bool bnt_output_reader_left(void)
{
    return atomic_load(&reader_left);
}

void bnt_output_end_by_pipe(void)
{
    bnt_output_restore_pipe_signal();
    (void)raise(SIGPIPE);
}

// A hidden name in the directory of the final one, so that rename stays within a file system.
static char *temporary_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t dir = slash ? (size_t)(slash - path) + 1 : 0;
    size_t size = strlen(path) + sizeof "..XXXXXX";
    char *name = malloc(size);
    if (name)
        (void)snprintf(name, size, "%.*s.%s.XXXXXX", (int)dir, path, path + dir);
    return name;
}

// Makes the file that out->temporary is the template of.
static bool make_temporary(struct bnt_output *out)
{
    // A signal must not come between the file's beginning and our knowing its name.
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before);
    out->fd = mkostemp(out->temporary, O_CLOEXEC);
    int problem = errno;
    if (out->fd >= 0)
        atomic_store(&doomed_file, out->temporary);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    if (out->fd >= 0)
        return true;
    free(out->temporary);
    out->temporary = NULL;
    errno = problem;
    return false;
}

// mkostemp gives mode 0600. A finished file has that of the one it replaces, and as far as may be
// its owner; a new one has what the umask leaves.
static void set_mode(int fd, const struct bnt_target *t)
{
    mode_t mask = umask(0);
    (void)umask(mask);
    mode_t mode = t->exists ? t->st.st_mode & 0777 : 0666 & ~mask;
    if (t->exists && fchown(fd, t->st.st_uid, t->st.st_gid) != 0)
        mode &= 0777; // only root can give files away; the mode is kept all the same
    (void)fchmod(fd, mode);
}

static enum bnt_status open_temporary(struct bnt_output *out, const struct bnt_target *t,
                                      struct bnt_error *err)
{
    out->target = t->path;
    out->temporary = temporary_name(t->path);
    if (!out->temporary)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (!make_temporary(out))
        return fail_errno(err, out->path, "cannot create");
    set_mode(out->fd, t);
    return BNT_OK;
}

static const char *output_name(const struct bnt_output *out)
{
    return strcmp(out->path, "-") == 0 ? "standard output" : out->path;
}

static enum bnt_status open_output(struct bnt_output *out, const char *path, struct bnt_error *err)
{
    struct bnt_target t;
    *out = (struct bnt_output){.path = path, .fd = -1, .stream = -1};
    enum bnt_status status = bnt_target_find(&t, path, err);
    if (status != BNT_OK)
        return status;
    if (t.fd < 0)
        return open_temporary(out, &t, err);
#ifdef F_SETPIPE_SZ
    (void)fcntl(t.fd, F_SETPIPE_SZ,
                COPY_BYTES); // fewer switches between the tools of a pipeline; harmless elsewhere
#endif
    out->stream = t.fd;
    return BNT_OK;
}

enum bnt_status bnt_output_open(struct bnt_output *out, const char *path, struct bnt_error *err)
{
    enum bnt_status status = open_output(out, path, err);
    if (status != BNT_OK)
        bnt_output_abort(out);
    else if (!out->temporary)
        out->fd = out->stream;
    return status;
}

enum bnt_status bnt_output_open_random(struct bnt_output *out, const char *path,
                                       struct bnt_error *err)
{
    enum bnt_status status = open_output(out, path, err);
    if (status == BNT_OK && !out->temporary) {
        out->fd = unnamed_file();
        if (out->fd < 0)
            status = fail_temporary(err, output_name(out));
    }
    if (status != BNT_OK)
        bnt_output_abort(out);
    return status;
}

enum bnt_status bnt_output_open_named(struct bnt_output *out, const char *path,
                                      struct bnt_error *err)
{
    enum bnt_status status = open_output(out, path, err);
    if (status == BNT_OK && !out->temporary) {
        out->temporary = name_elsewhere();
        if (!out->temporary || !make_temporary(out))
            status = fail_temporary(err, output_name(out));
    }
    if (status != BNT_OK)
        bnt_output_abort(out);
    out->named = true;
    return status;
}

static enum bnt_status write_failed(const struct bnt_output *out, struct bnt_error *err)
{
    if (errno == EFAULT) // the system met what would have been a SIGBUS (formats/bus.h)
        return bnt_fail(err, BNT_ERR_IO,
                        "%s: cannot write: the mapped file that the bytes are from was made "
                        "shorter while it was read, or its disk fails",
                        output_name(out));
    if (out->stream >= 0 && out->fd != out->stream)
        return fail_temporary(err, output_name(out));
    return fail_errno(err, output_name(out), "cannot write");
}

enum bnt_status bnt_output_write(struct bnt_output *out, const void *data, size_t size,
                                 struct bnt_error *err)
{
    if (!write_fully(out->fd, data, size))
        return write_failed(out, err);
    out->written += size;
    return BNT_OK;
}

enum bnt_status bnt_output_write_at(struct bnt_output *out, const void *data, size_t size,
                                    uint64_t offset, struct bnt_error *err)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = pwrite(out->fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return write_failed(out, err);
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return BNT_OK;
}

static enum bnt_status fail_copy(struct bnt_error *err, const char *name)
{
    return fail_errno(err, name, "cannot write");
}

// What was spooled goes where it was meant for.
static enum bnt_status copy_spooled(struct bnt_output *out, struct bnt_error *err)
{
    if (lseek(out->fd, 0, SEEK_SET) != 0)
        return fail_errno(err, output_name(out), "cannot rewind its temporary file");
    return copy_all(out->fd, out->stream, output_name(out), fail_copy, err);
}

static enum bnt_status commit_stream(struct bnt_output *out, struct bnt_error *err)
{
    enum bnt_status status = out->fd == out->stream ? BNT_OK : copy_spooled(out, err);
    if (out->fd != out->stream)
        (void)close(out->fd);
    out->fd = -1;
    int stream = out->stream;
    out->stream = -1;
    if (close(stream) != 0 && status == BNT_OK) // some file systems report a full disk here
        status = write_failed(out, err);
    return status;
}

static enum bnt_status commit_temporary(struct bnt_output *out, struct bnt_error *err)
{
    int failed = fsync(out->fd);
    failed |= close(out->fd); // file systems may report a full disk as late as here
    out->fd = -1;
    if (failed)
        return write_failed(out, err);
    if (rename(out->temporary, out->target) != 0)
        return fail_errno(err, out->path, "cannot rename the finished file to this name");
    atomic_store(&doomed_file, NULL);
    free(out->temporary);
    out->temporary = NULL;
    return BNT_OK;
}

// The file that now has the temporary name: another program may have made it anew.
static enum bnt_status reopen(struct bnt_output *out, struct bnt_error *err)
{
    (void)close(out->fd);
    out->fd = open(out->temporary, O_RDWR | O_CLOEXEC);
    return out->fd < 0 ? fail_errno(err, out->temporary, "cannot open") : BNT_OK;
}

enum bnt_status bnt_output_commit(struct bnt_output *out, struct bnt_error *err)
{
    enum bnt_status status = out->named ? reopen(out, err) : BNT_OK;
    if (status == BNT_OK)
        status = out->target ? commit_temporary(out, err) : commit_stream(out, err);
    bnt_output_abort(out); // what is left of it
    return status;
}

void bnt_output_abort(struct bnt_output *out)
{
    if (out->fd >= 0 && out->fd != out->stream)
        (void)close(out->fd);
    if (out->stream > STDERR_FILENO)
        (void)close(out->stream);
    out->fd = out->stream = -1;
    if (out->temporary) {
        (void)unlink(out->temporary);
        atomic_store(&doomed_file, NULL);
        free(out->temporary);
        out->temporary = NULL;
    }
    free(out->target);
    out->target = NULL;
}
