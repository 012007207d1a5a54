// SPDX-License-Identifier: MIT
// Files in and out: mapped or read whole with a limit; written under a temporary name until
// complete.
#ifndef BNT_FORMATS_FILE_H
#define BNT_FORMATS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/map.h"
#include "formats/status.h"

// How messages call the input of this path: "standard input" for "-".
const char *bnt_input_name(const char *path);

// What a reader says of a pipe that ended before its first byte: most likely the command that
// writes it has failed, and has said why.
enum bnt_status bnt_fail_empty(struct bnt_error *err, const char *path);

// Maps a file for reading. "-" is standard input; what is no regular file (a pipe) is first copied
// to an unnamed temporary file. Directories are refused. Close with bnt_map_close.
enum bnt_status bnt_input_map(struct bnt_map *map, const char *path, struct bnt_error *err);

// Reads a whole file of at most limit bytes into *text (malloc'd, a zero byte follows the last).
// BNT_ERR_IO with *missing set if there is no such file.
enum bnt_status bnt_read_file(const char *path, size_t limit, char **text, size_t *size,
                              bool *missing, struct bnt_error *err);

// The same for a text that a person may also pipe in: "-" is standard input, and path may be a
// pipe. A named pipe that nobody opens for writing is refused after a few seconds.
enum bnt_status bnt_read_input(const char *path, size_t limit, char **text, size_t *size,
                               struct bnt_error *err);

// The same for a text that must not be empty if it comes from a pipe: then the command that was to
// write it has failed.
enum bnt_status bnt_read_piped(const char *path, size_t limit, char **text, size_t *size,
                               struct bnt_error *err);

// read(2) and write(2) until done. read returns the bytes read, fewer than size only at the end of
// the file.
enum bnt_status bnt_read_fully(int fd, void *data, size_t size, size_t *got, struct bnt_error *err);

// dir + "/" + name, malloc'd, or NULL.
char *bnt_path_join(const char *dir, const char *name);

// What is being written (formats/target.h says what it may be). A file gets its name only in
// bnt_output_commit; before that it lies beside it under a temporary name, which a failure,
// bnt_output_abort and the signals HUP, INT, QUIT, TERM and XCPU remove. Pipes, devices and
// standard output ("-") are streams: written to, never replaced, and refused if they are a
// terminal.
struct bnt_output {
    const char *path; // as it was given
    char *target;     // the file behind it; NULL: a stream
    char *temporary;  // NULL when there is none
    int fd;           // what is written to
    int stream;       // where that is copied at commit, if it is another; -1: a file
    bool named;
    uint64_t written; // bytes written in sequence
};

// For writing in sequence: a stream is written to directly.
enum bnt_status bnt_output_open(struct bnt_output *out, const char *path, struct bnt_error *err);
// For writing at offsets: what is meant for a stream goes to an unnamed temporary file until
// commit.
enum bnt_status bnt_output_open_random(struct bnt_output *out, const char *path,
                                       struct bnt_error *err);
// For another program that writes the file out->temporary, by that name.
enum bnt_status bnt_output_open_named(struct bnt_output *out, const char *path,
                                      struct bnt_error *err);

enum bnt_status bnt_output_write(struct bnt_output *out, const void *data, size_t size,
                                 struct bnt_error *err);
enum bnt_status bnt_output_write_at(struct bnt_output *out, const void *data, size_t size,
                                    uint64_t offset, struct bnt_error *err);

// Flushes to the disk and gives the file its name. After a failure the temporary file is gone.
enum bnt_status bnt_output_commit(struct bnt_output *out, struct bnt_error *err);
// Removes what was written. Safe after a failed open, after commit and after another abort.
void bnt_output_abort(struct bnt_output *out);

// Whether a write failed because the reader of the pipe has closed it.
bool bnt_output_reader_left(void);
// Then: ends the process as SIGPIPE would have, which the tools otherwise ignore so as to clean up
// first. Returns where the caller of the tool had it ignored.
void bnt_output_end_by_pipe(void);

// Removes the temporary file of the output being written. Safe in a signal handler.
void bnt_output_remove_unfinished(void);

// Makes the signals HUP, INT and TERM remove the temporary file of the output being written before
// they end the process, and a closed pipe an error of the writing function instead of a signal. For
// tools, once at the start.
void bnt_output_handle_signals(void);

// Gives SIGPIPE back what the caller had for it, for programs that are started from here.
void bnt_output_restore_pipe_signal(void);

// The mechanism behind it: handler is called once for the signals HUP, INT, QUIT, TERM and XCPU,
// unless they are ignored, and then raises the signal again, which ends the process. It may do only
// what is safe in a signal handler.
void bnt_catch_deadly_signals(void (*handler)(int signal_number));

#endif
