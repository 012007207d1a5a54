// SPDX-License-Identifier: MIT
// How many threads are worth starting.
#ifndef BNT_FORMATS_PROCESSORS_H
#define BNT_FORMATS_PROCESSORS_H

// Processors that this process may run on, at least 1: those of its affinity mask, but no more than
// its cgroups' CPU quota pays for (cpu.max, or cpu.cfs_quota_us of version 1; rounded up; the
// tightest of the cgroup and those above it).
unsigned bnt_processors(void);

// The quota alone, 0 if there is none. root: where /proc and the mounts are; "" but in tests.
unsigned bnt_processors_quota(const char *root);

#endif
