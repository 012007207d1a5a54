// SPDX-License-Identifier: MIT
#include "formats/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum bnt_status bnt_map_descriptor(struct bnt_map *map, int fd, const char *name,
                                   struct bnt_error *err)
{
    struct stat st;
    *map = (struct bnt_map){0};
    if (fstat(fd, &st) != 0)
        return bnt_fail(err, BNT_ERR_IO, "%s: cannot stat: %s", name, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return bnt_fail(err, BNT_ERR_IO, "%s: is a directory, not a file", name);
    if (!S_ISREG(st.st_mode))
        return bnt_fail(err, BNT_ERR_IO, "%s: is not a regular file", name);
    if (st.st_size == 0) { // nothing to map; its readers find that it is not what they expect
        map->data = (const uint8_t *)"";
        return BNT_OK;
    }
    // Nothing is written through the map, and some file systems (FUSE with direct_io) know no
    // shared ones.
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return bnt_fail(err, BNT_ERR_IO, "%s: cannot map: %s", name, strerror(errno));
    *map = (struct bnt_map){.data = data, .size = (uint64_t)st.st_size};
    return BNT_OK;
}

enum bnt_status bnt_map_open(struct bnt_map *map, const char *path, struct bnt_error *err)
{
    *map = (struct bnt_map){0};
    // O_NONBLOCK: opening a FIFO must not wait for a writer before it can be refused.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return bnt_fail(err, BNT_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    enum bnt_status status = bnt_map_descriptor(map, fd, path, err);
    (void)close(fd);
    return status;
}

void bnt_map_close(struct bnt_map *map)
{
    if (map->size > 0)
        (void)munmap((void *)map->data, (size_t)map->size);
    *map = (struct bnt_map){0};
}
