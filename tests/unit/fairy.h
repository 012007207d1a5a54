// SPDX-License-Identifier: MIT
// The checkpoints of tests/data as .bnt files, made in this process by the code of the tools.
#ifndef BNT_TESTS_UNIT_FAIRY_H
#define BNT_TESTS_UNIT_FAIRY_H

#include "convert/convert.h"
#include "pack/pack.h"
#include "runtime/bnt.h"
#include "tests/unit/support.h"

static inline void test_ok(enum bnt_status status, const struct bnt_error *err)
{
    if (status != BNT_OK)
        fail_msg("%s", err->message);
}

static inline void test_convert(const char *checkpoint_dir, const char *path)
{
    struct bnt_error err;
    struct bnt_checkpoint checkpoint;
    struct bnt_output out;
    const struct convert_options options = {.threads = 2, .quiet = true};
    test_ok(bnt_checkpoint_open(&checkpoint, checkpoint_dir, &err), &err);
    test_ok(bnt_output_open(&out, path, &err), &err);
    test_ok(bnt_convert(&checkpoint, &out, &options, &err), &err);
    test_ok(bnt_output_commit(&out, &err), &err);
    bnt_checkpoint_close(&checkpoint);
}

static inline void test_pack(const char *stream, const char *path, bool int8)
{
    struct bnt_error err;
    struct bnt_output out;
    const struct pack_options options = {.threads = 2, .int8 = int8, .quiet = true};
    int fd = open(stream, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    test_ok(bnt_output_open_random(&out, path, &err), &err);
    test_ok(bnt_pack(fd, stream, &out, &options, &err), &err);
    test_ok(bnt_output_commit(&out, &err), &err);
    (void)close(fd);
}

// A checkpoint folder below tests/data, converted and packed: dir/name. int8: with the int8 copy of
// the output matrix.
static inline void test_make_model_int8(const char *checkpoint, const char *dir, const char *name,
                                        bool int8)
{
    char *from = test_join(BNT_TEST_DATA, checkpoint), *path = test_join(dir, name);
    char *stream = test_join(dir, "stream.safetensors");
    test_convert(from, stream);
    test_pack(stream, path, int8);
    (void)unlink(stream);
    free(from);
    free(path);
    free(stream);
}

static inline void test_make_model(const char *checkpoint, const char *dir, const char *name)
{
    test_make_model_int8(checkpoint, dir, name, false);
}

static inline struct bnt_model *test_open_model(const char *dir, const char *name,
                                                const char *kernel)
{
    struct bnt_error err;
    struct bnt_model *model;
    char *path = test_join(dir, name);
    test_ok(bnt_model_open(path, kernel, &model, &err), &err);
    free(path);
    return model;
}

static inline struct bnt_session *test_open_session_as(const struct bnt_model *model,
                                                       struct bnt_session_options options)
{
    struct bnt_error err;
    struct bnt_session *session;
    test_ok(bnt_session_open(model, &options, &session, &err), &err);
    return session;
}

static inline struct bnt_session *test_open_session(const struct bnt_model *model, uint32_t context,
                                                    uint32_t threads)
{
    const struct bnt_session_options options = {.context = context, .threads = threads};
    return test_open_session_as(model, options);
}

#endif
