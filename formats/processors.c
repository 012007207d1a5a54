// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // sched_getaffinity
#include "formats/processors.h"

#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The two versions of cgroups, as /proc names them.
struct version {
    const char *type;       // of the mount
    const char *controller; // in the mount's options and in /proc/self/cgroup; "": the one of all
};
static const struct version versions[] = {{"cgroup2", ""}, {"cgroup", "cpu"}};

// Whether a word stands in a list with commas.
static bool has_word(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
        if (strncmp(p, word, length) == 0 && (p[length] == ',' || p[length] == '\0'))
            return true;
    }
    return false;
}

// Calls each(context, line) for the lines of root/folder/name until it is true.
static bool find_line(const char *root, const char *folder, const char *name,
                      bool (*each)(void *context, char *line), void *context)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
    FILE *file = length > 0 && (size_t)length < sizeof path ? fopen(path, "re") : NULL;
    char *line = NULL;
    size_t size = 0;
    bool found = false;
    while (file && !found && getline(&line, &size, file) >= 0) {
        line[strcspn(line, "\n")] = '\0';
        found = each(context, line);
    }
    free(line);
    if (file)
        (void)fclose(file);
    return found;
}

// --- where the cgroup is ---

struct place {
    const struct version *version;
    char group[PATH_MAX];   // of this process, as the mount's own root sees it
    char mounted[PATH_MAX]; // the group that is mounted
    char mount[PATH_MAX];   // where
};

// "4:cpu,cpuacct:/path" or "0::/path".
static bool is_group(void *context, char *line)
{
    struct place *place = context;
    char *list = strchr(line, ':');
    char *path = list ? strchr(list + 1, ':') : NULL;
    if (!path)
        return false;
    *path++ = '\0';
    const char *controller = place->version->controller;
    if (*controller ? !has_word(list + 1, controller) : list[1] != '\0')
        return false;
    (void)snprintf(place->group, sizeof place->group, "%s", path);
    return true;
}

// "36 35 98:0 /mounted /mount rw,noatime master:1 - cgroup2 source options". Blanks and the like in
// paths are \040: a cgroup's mount has none.
static bool is_mount(void *context, char *line)
{
    struct place *place = context;
    char *fields[5], *rest = line;
    for (int i = 0; i < 5; i++) {
        fields[i] = strsep(&rest, " ");
        if (!rest)
            return false;
    }
    char *type = strstr(rest, " - ");
    char *source = type ? strchr(type + 3, ' ') : NULL;
    char *options = source ? strchr(source + 1, ' ') : NULL;
    if (!options)
        return false;
    *source = '\0';
    if (strcmp(type + 3, place->version->type) != 0 ||
        (*place->version->controller && !has_word(options + 1, place->version->controller)))
        return false;
    (void)snprintf(place->mounted, sizeof place->mounted, "%s", fields[3]);
    (void)snprintf(place->mount, sizeof place->mount, "%s", fields[4]);
    return true;
}

// --- its quota ---

// Processors for quota microseconds in each period of so many; 0: no limit.
static unsigned quota_processors(int64_t quota, int64_t period)
{
    if (quota <= 0 || period <= 0)
        return 0;
    int64_t n = quota / period + (quota % period != 0);
    return n > UINT_MAX ? UINT_MAX : (unsigned)n;
}

static bool read_numbers(void *context, char *line)
{
    int64_t *numbers = context; // "max 100000" has none
    char *at = line, *end;
    for (size_t i = 0; i < 2; i++, at = end) {
        int64_t number = strtoll(at, &end, 10);
        if (end == at)
            return i > 0;
        numbers[i] = number;
    }
    return true;
}

// Of one folder.
static unsigned folder_quota(const struct version *version, const char *root, const char *folder)
{
    int64_t quota[2] = {0, 0}, period[2] = {0, 0};
    if (!*version->controller) {
        (void)find_line(root, folder, "cpu.max", read_numbers, quota);
        return quota_processors(quota[0], quota[1]);
    }
    (void)find_line(root, folder, "cpu.cfs_quota_us", read_numbers, quota);
    (void)find_line(root, folder, "cpu.cfs_period_us", read_numbers, period);
    return quota_processors(quota[0], period[0]);
}

static unsigned tightest(unsigned a, unsigned b)
{
    return a == 0 || (b > 0 && b < a) ? b : a;
}

// The group's folder below the mount. What lies outside of what is mounted (a container that sees
// its group as the root, or another's) is not seen: then the mount itself is what holds us.
static void find_folder(const struct place *place, char *folder, size_t size)
{
    const char *below = place->group;
    size_t length = strcmp(place->mounted, "/") == 0 ? 0 : strlen(place->mounted);
    bool inside = strncmp(below, place->mounted, length) == 0 &&
                  (below[length] == '/' || below[length] == '\0') && !strstr(below, "/..");
    (void)snprintf(folder, size, "%s%s", place->mount, inside ? below + length : "");
}

static unsigned version_quota(const struct version *version, const char *root)
{
    struct place place = {.version = version};
    char folder[2 * PATH_MAX];
    unsigned quota = 0;
    if (!find_line(root, "/proc/self", "cgroup", is_group, &place) ||
        !find_line(root, "/proc/self", "mountinfo", is_mount, &place))
        return 0;
    find_folder(&place, folder, sizeof folder);
    size_t top = strlen(place.mount);
    for (;;) {
        quota = tightest(quota, folder_quota(version, root, folder));
        char *slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < top)
            return quota;
        *slash = '\0';
    }
}

unsigned bnt_processors_quota(const char *root)
{
    unsigned quota = 0;
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++)
        quota = tightest(quota, version_quota(&versions[i], root));
    return quota;
}

unsigned bnt_processors(void)
{
    cpu_set_t set;
    long n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                         : sysconf(_SC_NPROCESSORS_ONLN);
    return tightest(bnt_processors_quota(""), n > 0 ? (unsigned)n : 1);
}
