// SPDX-License-Identifier: MIT
// Where an output goes. One rule for all tools: it is a new or an existing regular file, or a pipe,
// a device or an open descriptor (/dev/stdout), which are written to and never replaced; and it is
// never one of the inputs. Links are followed, so that a link stays one.
#ifndef BNT_FORMATS_TARGET_H
#define BNT_FORMATS_TARGET_H

#include <stdbool.h>
#include <sys/stat.h>

#include "formats/status.h"

struct bnt_target {
    char *path;     // of the file, behind the links; NULL where there is something to write to
    bool exists;    // the file does,
    struct stat st; // and is this
    int fd;         // what to write to, open; STDOUT_FILENO or one to close. -1: a file
};

// Finds it, and refuses what can be no output: a directory, a file that may not be written, a
// terminal, a descriptor that is open for reading. "-" is standard output. Waits for the reader of
// a named pipe.
enum bnt_status bnt_target_find(struct bnt_target *target, const char *path, struct bnt_error *err);

// Refuses an output that is the same file as an input, by whatever name. "-": the standard streams.
enum bnt_status bnt_target_is_not(const char *output, const char *input, struct bnt_error *err);

#endif
