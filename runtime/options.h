// SPDX-License-Identifier: MIT
// Options that the runtime's tools share: the same names, the same ranges, the same errors.
#ifndef BNT_RUNTIME_OPTIONS_H
#define BNT_RUNTIME_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/bnt.h"

// Take the text behind --threads, --cache, --device and --control. Return 0, or the exit code after
// saying what is wrong with it.
int bnt_option_threads(const char *text, uint64_t *threads);
int bnt_option_cache(const char *text, enum bnt_cache *cache);
int bnt_option_device(const char *text, enum bnt_device *device);
int bnt_option_control(const char *text, bool *plain); // what spells a control token stays text

// Says that auto ended up on the CPU though there is a GPU, and why; nothing where why is empty.
void bnt_option_note(const char *why, bool quiet);

#endif
