// SPDX-License-Identifier: MIT
#include "formats/bus.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "formats/cli.h"
#include "formats/file.h"

static const char *program_name;

// --- /proc/self/maps, read with what a signal handler may call ---

// "7f0000000000-7f0000021000 r--p 00001000 fd:00 1234   /path/of the/file"
struct mapping {
    uint64_t start, end, offset;
    char path[3072];
};

struct reader {
    int fd;
    size_t at, size;
    char buffer[4096];
};

static int next_byte(struct reader *r)
{
    if (r->at == r->size) {
        ssize_t n = read(r->fd, r->buffer, sizeof r->buffer);
        r->at = 0;
        r->size = n > 0 ? (size_t)n : 0;
    }
    return r->at < r->size ? (unsigned char)r->buffer[r->at++] : -1;
}

// A hexadecimal number and the byte that ends it.
static uint64_t read_number(struct reader *r)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t value = 0;
    for (;;) {
        int c = next_byte(r);
        const char *digit = c > 0 ? strchr(digits, c) : NULL;
        if (!digit)
            return value;
        value = value << 4 | (uint64_t)(digit - digits);
    }
}

static void skip_word(struct reader *r)
{
    int c;
    do
        c = next_byte(r);
    while (c >= 0 && c != ' ' && c != '\n');
}

static bool read_mapping(struct reader *r, struct mapping *m)
{
    size_t length = 0;
    m->start = read_number(r);
    m->end = read_number(r);
    skip_word(r); // permissions
    m->offset = read_number(r);
    skip_word(r); // device
    skip_word(r); // inode
    int c = next_byte(r);
    while (c == ' ')
        c = next_byte(r);
    for (; c >= 0 && c != '\n'; c = next_byte(r)) {
        if (length + 1 < sizeof m->path)
            m->path[length++] = (char)c;
    }
    m->path[length] = '\0';
    return c >= 0;
}

static bool find_mapping(uint64_t address, struct mapping *m)
{
    static struct reader r; // the stack may be small
    r = (struct reader){.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    bool found = false;
    while (r.fd >= 0 && !found && read_mapping(&r, m))
        found = m->start <= address && address < m->end;
    if (r.fd >= 0)
        (void)close(r.fd);
    return found && m->path[0] == '/';
}

// --- the handler ---

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return; // there is nobody to tell
}

static void say_number(uint64_t value)
{
    char text[21];
    size_t at = sizeof text - 1;
    text[at] = '\0';
    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    say(text + at);
}

static void end_with_word(int signal_number, siginfo_t *info, void *context)
{
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    static struct mapping m;
    (void)context;
    if (info->si_code == BUS_ADRALN) { // a fault of ours, no file's: the instruction comes again
        (void)signal(signal_number, SIG_DFL);
        return;
    }
    while (atomic_flag_test_and_set(&busy)) // another thread has found the same, and ends us
        (void)pause();
    bnt_output_remove_unfinished();
    bool found = find_mapping((uint64_t)(uintptr_t)info->si_addr, &m);
    bnt_make_printable(m.path);
    if (isatty(STDERR_FILENO))
        say("\r\033[K"); // a progress bar
    say(program_name);
    say(": ");
    say(found ? m.path : "a mapped file");
    say(": was made shorter while it was read, or its disk fails");
    if (found) {
        say(" (offset ");
        say_number(m.offset + ((uint64_t)(uintptr_t)info->si_addr - m.start));
        say(")");
    }
    say("\n");
    _exit(BNT_EXIT_FAILED);
}

void bnt_bus_errors_handle(const char *program)
{
    struct sigaction action = {.sa_sigaction = end_with_word, .sa_flags = SA_SIGINFO};
    (void)sigemptyset(&action.sa_mask);
    program_name = program;
    (void)sigaction(SIGBUS, &action, NULL);
}
