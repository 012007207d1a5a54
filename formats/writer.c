// SPDX-License-Identifier: MIT
#include "formats/writer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "formats/bytes.h"
#include "formats/crc.h"
#include "formats/digest.h"

static struct bnt_section_record *find_section(struct bnt_writer *w, uint32_t type)
{
    for (uint32_t i = 0; i < w->header.section_count; i++) {
        if (w->header.sections[i].type == type)
            return &w->header.sections[i];
    }
    return NULL;
}

// Adds the next section. size may be corrected later for the last one only.
static void add_section(struct bnt_writer *w, uint32_t type, uint32_t flags, uint64_t size)
{
    uint64_t offset = BNT_PAGE;
    uint32_t n = w->header.section_count;
    if (n > 0)
        offset = bnt_round_up(w->header.sections[n - 1].offset + w->header.sections[n - 1].size,
                              BNT_PAGE);
    w->header.sections[n] =
        (struct bnt_section_record){.type = type, .flags = flags, .offset = offset, .size = size};
    w->header.section_count = n + 1;
}

static void fill_table(struct bnt_writer *w, bool has_int8)
{
    struct bnt_layout_walk walk = bnt_layout_walk(&w->hyper, has_int8);
    struct bnt_tensor_place place;
    uint64_t i = 0;
    while (bnt_layout_next(&walk, &place))
        w->tensors[i++] = (struct bnt_tensor_record){
            .scale_offset = place.has_scales
                                ? find_section(w, BNT_SECTION_SCAL)->offset + place.scale_offset
                                : 0,
            .role = (uint16_t)place.role,
            .dtype = (uint16_t)place.dtype,
            .layer = place.layer,
            .rows = place.rows,
            .cols = place.cols,
            .offset = find_section(w, place.section)->offset + place.offset,
            .size = place.size,
        };
}

static void add_sections(struct bnt_writer *w, bool has_int8)
{
    struct bnt_layout_walk walk = bnt_layout_walk(&w->hyper, has_int8);
    struct bnt_tensor_place place;
    while (bnt_layout_next(&walk, &place))
        ;
    add_section(w, BNT_SECTION_HYPR, BNT_SECTION_REQUIRED, bnt_hyper_size(w->header.version_major));
    if (w->tokenizer.data)
        add_section(w, BNT_SECTION_TOKN, 0, w->tokenizer.size);
    if (w->chat.data)
        add_section(w, w->chat_type, 0, w->chat.size);
    if (w->has_sampling)
        add_section(w, BNT_SECTION_SAMP, 0, sizeof w->sampling);
    add_section(w, BNT_SECTION_NORM, BNT_SECTION_REQUIRED,
                bnt_layout_section_size(&walk, BNT_SECTION_NORM));
    if (bnt_layout_section_size(&walk, BNT_SECTION_EMBD))
        add_section(w, BNT_SECTION_EMBD, BNT_SECTION_REQUIRED,
                    bnt_layout_section_size(&walk, BNT_SECTION_EMBD));
    if (has_int8)
        add_section(w, BNT_SECTION_EMB8, 0, bnt_layout_section_size(&walk, BNT_SECTION_EMB8));
    add_section(w, BNT_SECTION_TERN, BNT_SECTION_REQUIRED,
                bnt_layout_section_size(&walk, BNT_SECTION_TERN));
    if (w->hyper.scale_group)
        add_section(w, BNT_SECTION_SCAL, BNT_SECTION_REQUIRED,
                    bnt_layout_section_size(&walk, BNT_SECTION_SCAL));
    add_section(w, BNT_SECTION_TENS, BNT_SECTION_REQUIRED, w->n_tensors * sizeof w->tensors[0]);
}

enum bnt_status bnt_writer_open(struct bnt_writer *w, struct bnt_output *out,
                                const struct bnt_hyper *hyper, bool has_int8,
                                struct bnt_writer_section tokenizer, struct bnt_writer_section chat,
                                uint32_t chat_type, const struct bnt_sampling_record *sampling,
                                struct bnt_error *err)
{
    *w = (struct bnt_writer){
        .out = out, .hyper = *hyper, .tokenizer = tokenizer, .chat = chat, .chat_type = chat_type};
    w->sampling = sampling ? *sampling : BNT_SAMPLING_OFF;
    w->has_sampling = !bnt_sampling_equal(&w->sampling, &BNT_SAMPLING_OFF);
    memcpy(w->header.magic, BNT_MAGIC, sizeof w->header.magic);
    w->header.version_major = (uint16_t)bnt_hyper_version(hyper);
    const bool newer = w->has_sampling || (chat.data && chat_type == BNT_SECTION_CONV);
    if (newer && w->header.version_major == BNT_VERSION_1)
        w->header.version_minor = BNT_VERSION_1_MINOR;
    w->n_tensors = bnt_layout_count(hyper, has_int8);
    w->tensors = calloc((size_t)w->n_tensors, sizeof w->tensors[0]);
    if (!w->tensors)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    add_sections(w, has_int8);
    fill_table(w, has_int8);
    return BNT_OK;
}

struct bnt_tensor_record *bnt_writer_tensor(struct bnt_writer *w, enum bnt_role role, int32_t layer)
{
    for (uint64_t i = 0; i < w->n_tensors; i++) {
        if (w->tensors[i].role == role && w->tensors[i].layer == layer)
            return &w->tensors[i];
    }
    return NULL;
}

static enum bnt_status write_section(struct bnt_writer *w, uint32_t type, const void *data,
                                     struct bnt_error *err)
{
    const struct bnt_section_record *s = find_section(w, type);
    return bnt_output_write_at(w->out, data, (size_t)s->size, s->offset, err);
}

static enum bnt_status write_small_sections(struct bnt_writer *w, const char *provenance,
                                            struct bnt_error *err)
{
    enum bnt_status status = write_section(w, BNT_SECTION_HYPR, &w->hyper, err);
    if (status == BNT_OK && w->tokenizer.data)
        status = write_section(w, BNT_SECTION_TOKN, w->tokenizer.data, err);
    if (status == BNT_OK && w->chat.data)
        status = write_section(w, w->chat_type, w->chat.data, err);
    if (status == BNT_OK && w->has_sampling)
        status = write_section(w, BNT_SECTION_SAMP, &w->sampling, err);
    if (status == BNT_OK)
        status = write_section(w, BNT_SECTION_TENS, w->tensors, err);
    if (status == BNT_OK)
        status = write_section(w, BNT_SECTION_PROV, provenance, err);
    return status;
}

struct digest_job {
    const uint8_t *data;
    uint64_t size;
    uint8_t *out;
    bool ok;
};

static void *digest(void *argument)
{
    struct digest_job *job = argument;
    job->ok = bnt_sha256(job->data, job->size, job->out);
    return NULL;
}

static void fill_crcs(struct bnt_writer *w, const uint8_t *file)
{
    for (uint32_t i = 0; i < w->header.section_count; i++) {
        struct bnt_section_record *s = &w->header.sections[i];
        s->crc32 = bnt_crc32(0, file + s->offset, s->size);
    }
    w->header.header_crc32 = 0;
}

// Both checksums over the file as it was written, side by side: each alone is as slow as reading
// the file.
static enum bnt_status fill_checksums(struct bnt_writer *w, struct bnt_error *err)
{
    uint8_t *file = mmap(NULL, (size_t)w->header.file_size, PROT_READ, MAP_PRIVATE, w->out->fd, 0);
    if (file == MAP_FAILED)
        return bnt_fail(err, BNT_ERR_IO, "%s: cannot map what was written: %s", w->out->path,
                        strerror(errno));
    struct digest_job job = {.data = file + BNT_PAGE, .size = w->header.file_size - BNT_PAGE};
    job.out = w->header.content_sha256;
    pthread_t thread;
    bool threaded = pthread_create(&thread, NULL, digest, &job) == 0;
    fill_crcs(w, file);
    if (threaded)
        (void)pthread_join(thread, NULL);
    else
        (void)digest(&job);
    (void)munmap(file, (size_t)w->header.file_size);
    if (!job.ok)
        return bnt_fail(err, BNT_ERR_MEMORY, "libcrypto cannot compute SHA-256");
    w->header.header_crc32 = bnt_crc32(0, &w->header, sizeof w->header);
    return BNT_OK;
}

enum bnt_status bnt_writer_finish(struct bnt_writer *w, const char *provenance,
                                  uint64_t provenance_size, struct bnt_error *err)
{
    add_section(w, BNT_SECTION_PROV, 0, provenance_size);
    const struct bnt_section_record *last = find_section(w, BNT_SECTION_PROV);
    w->header.file_size = last->offset + last->size;
    enum bnt_status status = write_small_sections(w, provenance, err);
    if (status == BNT_OK)
        status = fill_checksums(w, err);
    if (status == BNT_OK)
        status = bnt_output_write_at(w->out, &w->header, sizeof w->header, 0, err);
    return status;
}

void bnt_writer_close(struct bnt_writer *w)
{
    free(w->tensors);
    w->tensors = NULL;
}
