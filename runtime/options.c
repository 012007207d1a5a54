// SPDX-License-Identifier: MIT
#include "runtime/options.h"

#include <string.h>

#include "formats/cli.h"

int bnt_option_threads(const char *text, uint64_t *threads)
{
    return bnt_cli_u64(text, 1, 256, threads)
               ? 0
               : bnt_cli_usage("--threads must be a number from 1 to 256, not '%s'", text);
}

int bnt_option_cache(const char *text, enum bnt_cache *cache)
{
    return bnt_cache_from_name(text, cache)
               ? 0
               : bnt_cli_usage("--cache must be f16 or f32, not '%s'", text);
}

int bnt_option_device(const char *text, enum bnt_device *device)
{
    return bnt_device_from_name(text, device)
               ? 0
               : bnt_cli_usage("--device must be auto, cpu or cuda, not '%s'", text);
}

int bnt_option_control(const char *text, bool *plain)
{
    *plain = strcmp(text, "text") == 0;
    return *plain || strcmp(text, "token") == 0
               ? 0
               : bnt_cli_usage("--control must be token or text, not '%s'", text);
}

void bnt_option_note(const char *why, bool quiet)
{
    if (*why && !quiet)
        bnt_cli_note("on the CPU, since the GPU cannot be used: %s", why);
}
