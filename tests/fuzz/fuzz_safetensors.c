// SPDX-License-Identifier: MIT
// A safetensors file, and the same bytes as the stream that bnt-pack reads.
#define _GNU_SOURCE // fuzz.h
#include "formats/safetensors.h"
#include "fuzz.h"
#include "pack/pack.h"
#include "verify/verify.h"

static void open_file(const uint8_t *data, size_t size)
{
    uint8_t *file = fuzz_copy(data, size, sizeof(void *));
    struct bnt_st_header header;
    struct bnt_error err = {.status = BNT_OK};
    const uint8_t *from;
    size_t length;
    if (bnt_st_open(&header, file, size, "model.safetensors", &from, &err) == BNT_OK) {
        uint64_t sum = 0;
        for (size_t i = 0; i < header.count; i++) {
            const struct bnt_st_tensor *t = &header.tensors[i];
            FUZZ_ASSERT(t->begin == sum && t->size <= size && strlen(t->name) < size);
            for (uint64_t j = 0; j < t->size; j++)
                sum += from[t->begin + j] * 0u + 1u; // reads all of it
        }
        FUZZ_ASSERT(sum == header.data_size);
    } else {
        FUZZ_ASSERT(err.message[0]);
    }
    (void)bnt_st_metadata(&header, "config.json", &length);
    bnt_st_free(&header);
    free(file);
}

// What bnt-pack makes, bnt-verify must find good.
static void verify(int fd)
{
    struct bnt_map map;
    struct bnt_view view;
    struct findings findings = {0};
    struct bnt_error err;
    FUZZ_ASSERT(bnt_map_descriptor(&map, fd, "packed", &err) == BNT_OK);
    FUZZ_ASSERT(bnt_verify_file(&map, &view, 1, &findings));
    if (findings.count)
        (void)fprintf(stderr, "%s: %s\n", findings.items[0].rule, findings.items[0].message);
    FUZZ_ASSERT(findings.total == 0);
    bnt_findings_free(&findings);
    bnt_map_close(&map);
}

static void pack(const uint8_t *data, size_t size)
{
    const struct pack_options options = {.threads = 1, .int8 = size & 1, .quiet = true};
    char path[300];
    (void)snprintf(path, sizeof path, "%s/packed.bnt", fuzz_folder());
    struct bnt_output out;
    struct bnt_error err = {.status = BNT_OK};
    FUZZ_ASSERT(bnt_output_open_random(&out, path, &err) == BNT_OK);
    int fd = fuzz_memory_file(data, size);
    if (bnt_pack(fd, "stream", &out, &options, &err) == BNT_OK)
        verify(out.fd);
    else
        FUZZ_ASSERT(err.message[0]);
    (void)close(fd);
    bnt_output_abort(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_file(data, size);
    pack(data, size);
    return 0;
}
