// SPDX-License-Identifier: MIT
#include "formats/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "formats/bus.h"
#include "formats/file.h"

static const char *program_name = "bnt";

// A file opened later must not become a standard stream that the caller closed. What takes the
// place fails when it is used: it can be written where we read and read where we write.
static void open_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
    }
}

void bnt_cli_init(const char *program)
{
    open_standard_streams();
    program_name = program;
    bnt_output_handle_signals();
    bnt_bus_errors_handle(program);
}

int bnt_cli_print(const char *text)
{
    (void)fputs(text, stdout);
    return bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

int bnt_cli_version(const char *extra)
{
    (void)printf("%s %s\n%s", program_name, BNT_VERSION, extra ? extra : "");
    return bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

int bnt_cli_fail(const struct bnt_error *err)
{
    if (bnt_output_reader_left())
        bnt_output_end_by_pipe();
    else
        bnt_cli_note("%s", err->message);
    return BNT_EXIT_FAILED;
}

static bool line_is_shared;

void bnt_cli_share_line(void)
{
    line_is_shared = isatty(STDERR_FILENO);
}

// File names and arguments are not ours: what could steer a terminal, or make two lines of one, is
// taken out.
static void print_message(const char *format, va_list args, const char *end)
{
    char message[4096];
    (void)vsnprintf(message, sizeof message, format, args);
    bnt_make_printable(message);
    (void)fprintf(stderr, "%s%s: %s%s", line_is_shared ? "\r\033[K" : "", program_name, message,
                  end);
}

int bnt_cli_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(format, args, "");
    va_end(args);
    (void)fprintf(stderr, " (try '%s --help')\n", program_name);
    return BNT_EXIT_USAGE;
}

int bnt_cli_bad_option(int returned, char *const *argv)
{
    const char *option = argv[optind - 1];
    if (returned == ':')
        return bnt_cli_usage("option '%s' needs an argument", option);
    if (optopt > 0 && optopt < 128 && strncmp(option, "--", 2) != 0)
        return bnt_cli_usage("unknown option '-%c'", optopt);
    if (optopt != 0) // getopt_long knows it
        return bnt_cli_usage("option '%s' takes no argument", option);
    return bnt_cli_usage("unknown option '%s', or one that is short for several", option);
}

void bnt_cli_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_message(format, args, "\n");
    va_end(args);
}

int bnt_cli_check_name(const char *what, const char *name)
{
    if (!name || *name)
        return BNT_EXIT_OK;
    return bnt_cli_usage("%s is empty: a command or variable that was to give the name, such as "
                         "\"$(bnt-fetch REPO)\", gave none",
                         what);
}

// Why an earlier write to standard output failed: stdio keeps no record, so it is tried once more.
static int failure_of_stdout(void)
{
    errno = 0;
    return write(STDOUT_FILENO, "\n", 1) < 0 ? errno : EIO;
}

bool bnt_cli_close_stdout(void)
{
    int problem = ferror(stdout) ? failure_of_stdout() : 0;
    errno = 0;
    if (fclose(stdout) != 0 && !problem)
        problem = errno ? errno : EIO;
    if (problem == EPIPE)
        bnt_output_end_by_pipe();
    else if (problem)
        bnt_cli_note("standard output: cannot write: %s", strerror(problem));
    return problem == 0;
}

bool bnt_cli_u64(const char *text, uint64_t low, uint64_t high, uint64_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value < low || value > high)
        return false;
    *out = value;
    return true;
}

bool bnt_cli_double(const char *text, double low, double high, double *out)
{
    char *end;
    if (strspn(text, "0123456789.eE+-") != strlen(text)) // no spaces, no hexadecimal, no inf
        return false;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || errno == ERANGE || !isfinite(value) || value < low ||
        value > high)
        return false;
    *out = value;
    return true;
}

// --- progress ---

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void bnt_progress_start(struct bnt_progress *p, const char *label, uint64_t total, const char *unit,
                        bool quiet)
{
    *p = (struct bnt_progress){
        .label = label, .unit = unit, .total = total ? total : 1, .started = now()};
    p->active = !quiet && isatty(STDERR_FILENO);
}

static void draw(const struct bnt_progress *p, double t)
{
    enum { WIDTH = 30 };
    static const char full[] = "##############################";
    static const char empty[] = "..............................";
    double share = (double)p->done / (double)p->total;
    share = share > 1 ? 1 : share;
    int filled = (int)(share * WIDTH);
    double seconds = t - p->started;
    double rate = seconds > 0 ? (double)p->done / seconds : 0;
    double left = rate > 0 ? ((double)p->total - (double)p->done) / rate : 0;
    (void)fprintf(stderr, "\r%s [%.*s%.*s] %3.0f%%  %.1f %s/s  %.0f s left \033[K", p->label,
                  filled, full, WIDTH - filled, empty, share * 100, p->unit ? rate : rate / 1e6,
                  p->unit ? p->unit : "MB", left > 0 ? left : 0);
}

void bnt_progress_add(struct bnt_progress *p, uint64_t bytes)
{
    p->done += bytes;
    if (!p->active)
        return;
    double t = now();
    if (t - p->drawn < 0.1)
        return;
    p->drawn = t;
    draw(p, t);
}

void bnt_progress_end(struct bnt_progress *p)
{
    if (p->active && p->drawn > 0)
        (void)fputs("\r\033[K", stderr);
    p->active = false;
}
