// SPDX-License-Identifier: MIT
// What several unit tests share: random numbers, guard pages, a folder for files, files read whole.
#ifndef BNT_TESTS_UNIT_SUPPORT_H
#define BNT_TESTS_UNIT_SUPPORT_H

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"

// A way of choosing tokens: temperature, top_k, top_p and seed, without anything else.
#define TEST_SAMPLING(t, k, p, s)                                                                  \
    {                                                                                              \
        .temperature = (t), .top_k = (k), .top_p = (p), .seed = (s)                                \
    }

#define TEST_COUNT(array) (sizeof(array) / sizeof((array)[0]))

// Sanitizers take malloc's place, so that counting allocations means nothing, and time: the thread
// sanitizer up to forty times as much. Emulators take time as well.
#if defined(__has_feature)
#define TEST_HAS(feature) __has_feature(feature)
#else
#define TEST_HAS(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || TEST_HAS(thread_sanitizer)
#define TEST_TSAN 1
#else
#define TEST_TSAN 0
#endif
#if TEST_TSAN || defined(__SANITIZE_ADDRESS__) || TEST_HAS(address_sanitizer) ||                   \
    TEST_HAS(memory_sanitizer) || defined(BNT_EMULATED)
#define TEST_SANITIZED 1
#else
#define TEST_SANITIZED 0
#endif

// --- random numbers: the same in every run ---

// splitmix64.
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static inline uint32_t test_random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(test_random(state) % limit);
}

// In [-1, 1).
static inline float test_random_float(uint64_t *state)
{
    return (float)((double)(test_random(state) >> 11) * 0x1p-52 - 1.0);
}

static inline void test_random_bytes(uint64_t *state, void *out, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)test_random(state);
}

// --- memory ---

static inline void *test_alloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);
    assert_non_null(p);
    return p;
}

// Bytes that end exactly where an inaccessible page begins: to touch one more is a fault.
struct test_guarded {
    uint8_t *data;
    void *map;
    size_t mapped;
};

static inline struct test_guarded test_guard(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inside = (size + page - 1) / page * page;
    int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
    struct test_guarded g = {.mapped = inside + page};
    assert_true(fd >= 0);
    g.map = mmap(NULL, g.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    (void)close(fd);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect((uint8_t *)g.map + inside, page, PROT_NONE), 0);
    g.data = (uint8_t *)g.map + inside - size;
    return g;
}

static inline void test_unguard(struct test_guarded *g)
{
    (void)munmap(g->map, g->mapped);
    *g = (struct test_guarded){0};
}

// --- files ---

static inline char *test_join(const char *dir, const char *name)
{
    char *path = bnt_path_join(dir, name);
    assert_non_null(path);
    return path;
}

// A new folder under $TMPDIR or /tmp. Free the name with test_remove_dir.
static inline char *test_make_dir(void)
{
    const char *root = getenv("TMPDIR");
    char *path = test_join(root && *root ? root : "/tmp", "bnt-unit-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

// names: the files that lie in it, NULL at the end.
static inline void test_remove_dir(char *dir, const char *const *names)
{
    for (; *names; names++) {
        char *path = test_join(dir, *names);
        (void)unlink(path);
        free(path);
    }
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

static inline char *test_read_file(const char *path, size_t *size)
{
    char *text;
    bool missing;
    struct bnt_error err;
    if (bnt_read_file(path, (size_t)1 << 28, &text, size, &missing, &err) != BNT_OK)
        fail_msg("%s", err.message);
    return text;
}

#endif
