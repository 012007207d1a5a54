// SPDX-License-Identifier: MIT
// What the fuzz targets share. Each target is one source file, so all of it is inline here.
#ifndef BNT_TESTS_FUZZ_H
#define BNT_TESTS_FUZZ_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE first: memfd_create, mkdtemp"
#endif

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/bytes.h"
#include "formats/crc.h"
#include "formats/digest.h"
#include "formats/layout.h"
#include "formats/map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Something that must hold for every input.
#define FUZZ_ASSERT(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #condition);       \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

// A copy of exactly that size, so that a sanitizer sees every read past its end. alignment: a power
// of two.
static inline uint8_t *fuzz_copy(const void *data, size_t size, size_t alignment)
{
    void *copy = NULL;
    FUZZ_ASSERT(posix_memalign(&copy, alignment, size ? size : 1) == 0);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static inline void fuzz_write_all(int fd, const void *data, size_t size)
{
    const uint8_t *p = data;
    while (size > 0) {
        ssize_t n = write(fd, p, size);
        FUZZ_ASSERT(n > 0);
        p += n;
        size -= (size_t)n;
    }
}

// A file in memory that holds these bytes, read from the start.
static inline int fuzz_memory_file(const void *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_ASSERT(fd >= 0);
    fuzz_write_all(fd, data, size);
    FUZZ_ASSERT(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static char fuzz_folder_name[256];

static inline void fuzz_remove_folder(void)
{
    (void)rmdir(fuzz_folder_name);
}

// A folder of this process, in memory where there is such a place; removed at exit if it is empty.
static inline const char *fuzz_folder(void)
{
    if (fuzz_folder_name[0])
        return fuzz_folder_name;
    const char *places[] = {getenv("TMPDIR"), "/dev/shm", "/tmp"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!places[i] || !places[i][0])
            continue;
        (void)snprintf(fuzz_folder_name, sizeof fuzz_folder_name, "%.200s/bnt-fuzz-XXXXXX",
                       places[i]);
        if (mkdtemp(fuzz_folder_name)) {
            (void)atexit(fuzz_remove_folder);
            return fuzz_folder_name;
        }
    }
    perror("cannot make a temporary folder");
    exit(1);
}

// Makes the checksums of a .bnt file right, as far as it has the places for them.
static inline void fuzz_repair_checksums(uint8_t *file, size_t size)
{
    struct bnt_header header;
    if (size < sizeof header)
        return;
    memcpy(&header, file, sizeof header);
    uint32_t count =
        header.section_count < BNT_MAX_SECTIONS ? header.section_count : (uint32_t)BNT_MAX_SECTIONS;
    for (uint32_t i = 0; i < count; i++) {
        struct bnt_section_record *s = &header.sections[i];
        if (s->offset <= size && s->size <= size - s->offset)
            s->crc32 = bnt_crc32(0, file + s->offset, s->size);
    }
    FUZZ_ASSERT(bnt_sha256(file + BNT_PAGE, size - BNT_PAGE, header.content_sha256));
    header.header_crc32 = 0;
    header.header_crc32 = bnt_crc32(0, &header, sizeof header);
    memcpy(file, &header, sizeof header);
}

#endif
