// SPDX-License-Identifier: MIT
// What the command-line tools share: version, errors in one form, numbers from arguments, progress.
// Exit codes everywhere: 0 good, 1 the work failed or the file is bad, 2 usage.
#ifndef BNT_FORMATS_CLI_H
#define BNT_FORMATS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"

enum { BNT_EXIT_OK = 0, BNT_EXIT_FAILED = 1, BNT_EXIT_USAGE = 2 };

// Signals (mapped files that cannot be read among them) and the program's name for messages. Once,
// at the start of main.
void bnt_cli_init(const char *program);

// Prints text to standard output and returns the exit code (failed if it could not be written).
int bnt_cli_print(const char *text);
// Prints "bnt-pack 0.1.0" (and extra lines, or NULL).
int bnt_cli_version(const char *extra);

// "bnt-pack: message" on standard error. Return BNT_EXIT_FAILED and BNT_EXIT_USAGE. A reader that
// has closed our standard output is no failure of ours to speak of: fail ends as by SIGPIPE then.
int bnt_cli_fail(const struct bnt_error *err);
__attribute__((format(printf, 1, 2))) int bnt_cli_usage(const char *format, ...);

// The usage error for what getopt_long returned: ':' (an argument is missing; the option string
// must start with ':') or '?'.
int bnt_cli_bad_option(int returned, char *const *argv);

// 0 for a name that is not empty (or NULL: not given), else the usage error that it is. what: the
// option or operand it was given for.
int bnt_cli_check_name(const char *what, const char *name);

// "bnt-pack: message" on standard error.
__attribute__((format(printf, 1, 2))) void bnt_cli_note(const char *format, ...);

// From here on another program may be drawing its progress bar on our terminal: messages clear its
// line first.
void bnt_cli_share_line(void);

// Flushes and closes standard output; false, after saying so, if anything written there was lost.
// Where the reader has closed it, ends as by SIGPIPE, in silence.
bool bnt_cli_close_stdout(void);

// A whole decimal number in low … high; the whole argument, no sign, no spaces.
bool bnt_cli_u64(const char *text, uint64_t low, uint64_t high, uint64_t *out);
// A finite decimal number in low … high.
bool bnt_cli_double(const char *text, double low, double high, double *out);

// A progress bar on standard error, drawn only when that is a terminal. It counts bytes and shows
// their rate, unless unit names something else.
struct bnt_progress {
    const char *label;
    const char *unit; // NULL: bytes
    uint64_t total;
    uint64_t done;
    double started; // seconds
    double drawn;
    bool active;
};
void bnt_progress_start(struct bnt_progress *progress, const char *label, uint64_t total,
                        const char *unit, bool quiet);
void bnt_progress_add(struct bnt_progress *progress, uint64_t bytes);
// Removes the bar. Safe to call twice.
void bnt_progress_end(struct bnt_progress *progress);

#endif
