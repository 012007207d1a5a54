// SPDX-License-Identifier: MIT
// The CPU quota of cgroups, read from folders laid out as systems lay them out: version 1, version
// 2 and both, bare and in containers, and groups within groups.
#define _GNU_SOURCE // cpu_set_t

#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/processors.h"
#include "tests/unit/support.h"

#define V2       "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V2_BELOW "30 24 0:26 /box /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
#define V1                                                                                         \
    "31 24 0:27 / /sys/fs/cgroup/cpuset rw shared:5 - cgroup cgroup rw,cpuset\n"                   \
    "32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:6 - cgroup cgroup rw,cpu,cpuacct\n"
#define V1_BELOW                                                                                   \
    "32 24 0:28 /docker/1f /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
#define V1_GROUP "5:cpuset:/x\n4:cpu,cpuacct:"
#define CPU1     "/sys/fs/cgroup/cpu,cpuacct"

struct file {
    const char *name, *text;
};

struct layout {
    const char *what;
    const char *mounts, *groups;
    struct file files[5];
    unsigned processors;
};

static const struct layout layouts[] = {
    {"no cgroups", "", "", {{0}}, 0},
    {"no limit", V2, "0::/a\n", {{"/sys/fs/cgroup/a/cpu.max", "max 100000\n"}}, 0},
    {"one", V2, "0::/a\n", {{"/sys/fs/cgroup/a/cpu.max", "100000 100000\n"}}, 1},
    {"less than one", V2, "0::/a\n", {{"/sys/fs/cgroup/a/cpu.max", "1000 100000\n"}}, 1},
    {"rounded up", V2, "0::/a\n", {{"/sys/fs/cgroup/a/cpu.max", "250000 100000\n"}}, 3},
    {"another period", V2, "0::/a\n", {{"/sys/fs/cgroup/a/cpu.max", "40000 10000\n"}}, 4},
    {"many", V2, "0::/a\n", {{"/sys/fs/cgroup/a/cpu.max", "9223372036854775807 1\n"}}, UINT32_MAX},
    {"nonsense", V2, "0::/a\n", {{"/sys/fs/cgroup/a/cpu.max", "-5 100000\n"}}, 0},
    {"no file in the group", V2, "0::/a\n", {{"/sys/fs/cgroup/b/cpu.max", "1 1\n"}}, 0},
    {"the group's is tighter",
     V2,
     "0::/a/b\n",
     {{"/sys/fs/cgroup/a/cpu.max", "800000 100000\n"},
      {"/sys/fs/cgroup/a/b/cpu.max", "200000 100000\n"}},
     2},
    {"one above is tighter",
     V2,
     "0::/a/b/c\n",
     {{"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"},
      {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"},
      {"/sys/fs/cgroup/a/b/c/cpu.max", "400000 100000\n"}},
     3},
    {"another group's is not ours",
     V2,
     "0::/a/b\n",
     {{"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"},
      {"/sys/fs/cgroup/a/c/cpu.max", "100000 100000\n"}},
     3},
    {"a container that sees its group as the root",
     V2,
     "0::/\n",
     {{"/sys/fs/cgroup/cpu.max", "200000 100000\n"}},
     2},
    {"a process outside of its container's root",
     V2,
     "0::/../a\n",
     {{"/sys/fs/cgroup/cpu.max", "200000 100000\n"}},
     2},
    {"a part is mounted",
     V2_BELOW,
     "0::/box/a\n",
     {{"/sys/fs/cgroup/a/cpu.max", "200000 100000\n"}},
     2},
    {"another part is mounted",
     V2_BELOW,
     "0::/boxes/a\n",
     {{"/sys/fs/cgroupes/a/cpu.max", "100000 100000\n"},
      {"/sys/fs/cgroup/cpu.max", "200000 100000\n"}},
     2},
    {"version 1",
     V1,
     V1_GROUP "/a/b\n0::/\n",
     {{CPU1 "/a/cpu.cfs_quota_us", "150000\n"},
      {CPU1 "/a/cpu.cfs_period_us", "100000\n"},
      {CPU1 "/a/b/cpu.cfs_quota_us", "-1\n"},
      {CPU1 "/a/b/cpu.cfs_period_us", "100000\n"}},
     2},
    {"version 1 without a limit",
     V1,
     V1_GROUP "/a\n",
     {{CPU1 "/a/cpu.cfs_quota_us", "-1\n"}, {CPU1 "/a/cpu.cfs_period_us", "100000\n"}},
     0},
    {"version 1 in a container",
     V1_BELOW,
     V1_GROUP "/docker/1f\n",
     {{CPU1 "/cpu.cfs_quota_us", "50000\n"}, {CPU1 "/cpu.cfs_period_us", "50000\n"}},
     1},
    {"both versions",
     V1 "33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
     V1_GROUP "/a\n0::/b\n",
     {{CPU1 "/a/cpu.cfs_quota_us", "300000\n"},
      {CPU1 "/a/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/unified/b/cpu.max", "200000 100000\n"}},
     2},
};

static void write_below(const char *root, const char *name, const char *text)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = path + strlen(root); (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void quotas(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        const struct layout *l = &layouts[i];
        char *root = test_make_dir();
        write_below(root, "/proc/self/mountinfo", l->mounts);
        write_below(root, "/proc/self/cgroup", l->groups);
        for (const struct file *f = l->files; f < l->files + 5 && f->name; f++)
            write_below(root, f->name, f->text);
        unsigned found = bnt_processors_quota(root);
        if (found != l->processors)
            fail_msg("%s: %u processors, not %u", l->what, found, l->processors);
        assert_int_equal(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
        free(root);
    }
}

static void never_more_than_the_mask_has(void **state)
{
    cpu_set_t all, one;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_in_range(bnt_processors(), 1, CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(bnt_processors(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas),
        cmocka_unit_test(never_more_than_the_mask_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
