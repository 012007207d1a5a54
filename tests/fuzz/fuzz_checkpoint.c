// SPDX-License-Identifier: MIT
// A checkpoint folder through bnt-convert, bnt-pack and bnt-verify. The input is a row of files:
// which (1 byte, the index into names), size (4 bytes, little-endian), bytes. Of two with one name
// the later stays.
#define _GNU_SOURCE // fuzz.h
#include "convert/convert.h"
#include "fuzz.h"
#include "pack/pack.h"
#include "verify/verify.h"

static const char *const names[] = {
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
    "model.safetensors.index.json",
    "a.safetensors",
    "b.safetensors",
};
enum { NAMES = sizeof names / sizeof names[0], MAX_MATRICES = 1 << 10 };

static void file_path(char path[300], const char *name)
{
    (void)snprintf(path, 300, "%s/%s", fuzz_folder(), name);
}

static void write_files(const uint8_t *data, size_t size)
{
    while (size >= 5) {
        char path[300];
        size_t length = bnt_load_u32(data + 1);
        length = length < size - 5 ? length : size - 5;
        file_path(path, names[data[0] % NAMES]);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        FUZZ_ASSERT(fd >= 0);
        fuzz_write_all(fd, data + 5, length);
        (void)close(fd);
        data += 5 + length;
        size -= 5 + length;
    }
}

static void remove_files(void)
{
    for (size_t i = 0; i < NAMES; i++) {
        char path[300];
        file_path(path, names[i]);
        (void)unlink(path);
    }
}

// What bnt-pack makes of the checkpoint, bnt-verify --source must find good.
static void verify(int fd)
{
    struct bnt_map map;
    struct bnt_view view;
    struct findings findings = {0};
    struct bnt_error err;
    FUZZ_ASSERT(bnt_map_descriptor(&map, fd, "packed", &err) == BNT_OK);
    FUZZ_ASSERT(bnt_verify_file(&map, &view, 1, &findings));
    struct verify_errors errors = {.wanted = true};
    FUZZ_ASSERT(bnt_verify_source(&view, fuzz_folder(), 1, true, &findings, &errors, &err) ==
                BNT_OK);
    free(errors.items);
    if (findings.count)
        (void)fprintf(stderr, "%s: %s\n", findings.items[0].rule, findings.items[0].message);
    FUZZ_ASSERT(findings.total == 0);
    bnt_findings_free(&findings);
    bnt_map_close(&map);
}

// Packing may fail, by a tokenizer that is not supported.
static void pack(const struct bnt_checkpoint *checkpoint, int stream)
{
    const struct pack_options options = {
        .threads = 1, .int8 = !bnt_output_is_ternary(&checkpoint->config.hyper), .quiet = true};
    char path[300];
    file_path(path, "packed.bnt");
    struct bnt_output out;
    struct bnt_error err = {.status = BNT_OK};
    FUZZ_ASSERT(bnt_output_open_random(&out, path, &err) == BNT_OK);
    FUZZ_ASSERT(lseek(stream, 0, SEEK_SET) == 0);
    if (bnt_pack(stream, "stream", &out, &options, &err) == BNT_OK)
        verify(out.fd);
    else
        FUZZ_ASSERT(strstr(err.message, "tokenizer"));
    bnt_output_abort(&out);
}

static void convert(const struct bnt_checkpoint *checkpoint)
{
    const struct convert_options options = {.threads = 1, .quiet = true};
    char path[300];
    file_path(path, "stream");
    struct bnt_output out;
    struct bnt_error err = {.status = BNT_OK};
    FUZZ_ASSERT(bnt_output_open(&out, path, &err) == BNT_OK);
    // The output is open for writing only in a pipeline; as a file it can be read back.
    if (bnt_convert(checkpoint, &out, &options, &err) == BNT_OK)
        pack(checkpoint, out.fd);
    else
        FUZZ_ASSERT(err.message[0]);
    bnt_output_abort(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bnt_checkpoint checkpoint;
    struct bnt_error err = {.status = BNT_OK};
    write_files(data, size);
    const struct bnt_levels_options options = {.threads = 1, .nearest = true, .force = true};
    enum bnt_status status = bnt_checkpoint_open(&checkpoint, fuzz_folder(), &err);
    if (status == BNT_OK && checkpoint.n_sources < MAX_MATRICES)
        status = bnt_checkpoint_find_levels(&checkpoint, &options, &err);
    if (status != BNT_OK)
        FUZZ_ASSERT(err.message[0]);
    else if (checkpoint.n_sources < MAX_MATRICES)
        convert(&checkpoint);
    bnt_checkpoint_close(&checkpoint);
    remove_files();
    return 0;
}
