// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // AT_EACCESS
#include "formats/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LINKS = 40 }; // as the kernel

static enum bnt_status fail_errno(struct bnt_error *err, const char *path, const char *what)
{
    return bnt_fail(err, BNT_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

// The length of the part of path before its last name, with the slash.
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

// The folder that the last name of path is in, "." for a bare name. out: PATH_MAX bytes.
static void folder_of(const char *path, char *out)
{
    size_t length = folder_length(path);
    (void)snprintf(out, PATH_MAX, "%.*s", length ? (int)length : 1, length ? path : ".");
}

// The descriptor of this process that path stands for (/dev/fd/3, /proc/self/fd/3), or -1.
static int own_descriptor(const char *path)
{
    char folder[PATH_MAX], real[PATH_MAX], own[32];
    const char *name = path + folder_length(path);
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 6 || name[digits] != '\0')
        return -1;
    folder_of(path, folder);
    int length = snprintf(own, sizeof own, "/proc/%ld/", (long)getpid());
    if (!realpath(folder, real) || strncmp(real, own, (size_t)length) != 0)
        return -1;
    const char *last = strrchr(real, '/'); // also /proc/PID/task/TID/fd
    return strcmp(last, "/fd") == 0 ? (int)strtol(name, NULL, 10) : -1;
}

// Others may lay links in /tmp. The kernel follows those only for who made them
// (fs.protected_symlinks), but does not know that we follow one.
static bool link_is_trusted(const char *path)
{
    char folder[PATH_MAX];
    struct stat link, dir;
    folder_of(path, folder);
    if (lstat(path, &link) != 0 || stat(folder, &dir) != 0)
        return false;
    bool shared = (dir.st_mode & S_ISVTX) && (dir.st_mode & S_IWOTH);
    return !shared || link.st_uid == geteuid() || link.st_uid == dir.st_uid;
}

// Replaces path by what the link of this name says. 1: done; 0: it is no link; -1 with errno.
static int follow_link(char path[PATH_MAX])
{
    char text[PATH_MAX];
    ssize_t n = readlink(path, text, sizeof text - 1);
    if (n < 0)
        return 0;
    text[n] = '\0';
    if (!link_is_trusted(path)) {
        errno = EACCES;
        return -1;
    }
    size_t folder = text[0] == '/' ? 0 : folder_length(path);
    if (folder + (size_t)n >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(path + folder, text, (size_t)n + 1);
    return 1;
}

// Follows the links of path's last name to a file, existing or not, to what else is there, or to a
// descriptor of this process: *fd, otherwise -1. false with errno.
static bool follow(char path[PATH_MAX], int *fd)
{
    for (int i = 0; i < MAX_LINKS; i++) {
        struct stat st;
        *fd = own_descriptor(path);
        if (*fd >= 0 || (stat(path, &st) == 0 && !S_ISREG(st.st_mode)))
            return true;
        int followed = follow_link(path);
        if (followed <= 0)
            return followed == 0;
    }
    errno = ELOOP;
    return false;
}

static enum bnt_status check_stream(struct bnt_target *t, const char *name, struct bnt_error *err)
{
    int flags = fcntl(t->fd, F_GETFL);
    if (flags < 0)
        return fail_errno(err, name, "cannot write");
    if ((flags & O_ACCMODE) == O_RDONLY)
        return bnt_fail(err, BNT_ERR_IO, "%s: is not open for writing", name);
    if (isatty(t->fd))
        return bnt_fail(err, BNT_ERR_IO,
                        "%s is a terminal: redirect it, or name a file instead of '-'", name);
    return BNT_OK;
}

// A descriptor is written on from where it stands: another program may have begun.
static enum bnt_status use_descriptor(struct bnt_target *t, const char *path, int fd,
                                      struct bnt_error *err)
{
    t->fd = fd == STDOUT_FILENO ? fd : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    return check_stream(t, strcmp(path, "-") == 0 ? "standard output" : path, err);
}

static enum bnt_status use_special(struct bnt_target *t, const char *path, const char *name,
                                   struct bnt_error *err)
{
    t->fd = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    return t->fd < 0 ? fail_errno(err, name, "cannot open") : check_stream(t, name, err);
}

// name: the path as the user wrote it.
static enum bnt_status use_file(struct bnt_target *t, const char *path, const char *name,
                                struct bnt_error *err)
{
    if (t->exists && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
        return fail_errno(err, name, "cannot write");
    t->path = strdup(path);
    return t->path ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
}

enum bnt_status bnt_target_find(struct bnt_target *t, const char *path, struct bnt_error *err)
{
    char real[PATH_MAX];
    int fd;
    *t = (struct bnt_target){.fd = -1};
    if (strcmp(path, "-") == 0)
        return use_descriptor(t, path, STDOUT_FILENO, err);
    int length = snprintf(real, sizeof real, "%s", path);
    errno = ENAMETOOLONG;
    if ((size_t)length >= sizeof real || !follow(real, &fd))
        return fail_errno(err, path, "cannot create");
    enum bnt_status status;
    t->exists = stat(real, &t->st) == 0;
    if (fd >= 0)
        status = use_descriptor(t, path, fd, err);
    else if (t->exists && S_ISDIR(t->st.st_mode))
        status = bnt_fail(err, BNT_ERR_IO, "%s: is a directory: name the file to make", path);
    else if (t->exists && !S_ISREG(t->st.st_mode))
        status = use_special(t, real, path, err);
    else
        status = use_file(t, real, path, err);
    if (status != BNT_OK && t->fd > STDERR_FILENO)
        (void)close(t->fd);
    return status;
}

static bool stat_stream(const char *path, int standard, struct stat *st)
{
    return strcmp(path, "-") == 0 ? fstat(standard, st) == 0 : stat(path, st) == 0;
}

enum bnt_status bnt_target_is_not(const char *output, const char *input, struct bnt_error *err)
{
    struct stat out, in;
    if (!stat_stream(output, STDOUT_FILENO, &out) || !stat_stream(input, STDIN_FILENO, &in))
        return BNT_OK; // a new file, or an input that its reader will miss
    bool keeps = S_ISREG(in.st_mode) || S_ISBLK(in.st_mode);
    if (!keeps || out.st_dev != in.st_dev || out.st_ino != in.st_ino)
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_IO,
                    "%.180s: is an input, %.180s, and would be lost: name another output",
                    strcmp(output, "-") == 0 ? "standard output" : output,
                    strcmp(input, "-") == 0 ? "standard input" : input);
}
