// SPDX-License-Identifier: MIT
// A file's bytes, mapped read-only; the pages are the same for all processes that map it.
#ifndef BNT_FORMATS_MAP_H
#define BNT_FORMATS_MAP_H

#include <stdint.h>

#include "formats/status.h"

struct bnt_map {
    const uint8_t *data; // page-aligned
    uint64_t size;
};

// Maps a regular file, which may be empty. Anything else is refused. Close with bnt_map_close, also
// after a failure.
enum bnt_status bnt_map_open(struct bnt_map *map, const char *path, struct bnt_error *err);
// The same for an open file, which may be closed afterwards. name: for messages.
enum bnt_status bnt_map_descriptor(struct bnt_map *map, int fd, const char *name,
                                   struct bnt_error *err);
void bnt_map_close(struct bnt_map *map);

#endif
