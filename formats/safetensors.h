// SPDX-License-Identifier: MIT
// The safetensors format: u64 length of a JSON header, the header, the tensors' bytes without
// holes.
#ifndef BNT_FORMATS_SAFETENSORS_H
#define BNT_FORMATS_SAFETENSORS_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"

enum {
    BNT_ST_MAX_RANK = 8,
    BNT_ST_MAX_HEADER = 100 * 1000 * 1000
}; // the header limit is the reference library's

// Types we read or write are named; any other known one is only measured.
enum bnt_st_dtype { BNT_ST_OTHER, BNT_ST_U8, BNT_ST_I8, BNT_ST_F16, BNT_ST_BF16, BNT_ST_F32 };

struct bnt_st_tensor {
    const char *name;
    const char *type_name; // as in the file, "BF16"
    enum bnt_st_dtype dtype;
    unsigned rank;
    uint64_t shape[BNT_ST_MAX_RANK];
    uint64_t count; // elements
    uint64_t begin; // bytes from the start of the data
    uint64_t size;
};

struct bnt_st_header {
    struct bnt_st_tensor *tensors; // in the order of their bytes
    size_t count;
    uint64_t data_size; // sum of the tensors' sizes
    json_t *json;       // owns the names
};

// Parses the JSON of a header. Refused: unknown types, sizes that do not fit the shape, holes,
// overlaps, duplicate names. name: for messages. Free with bnt_st_free, also after a failure.
enum bnt_status bnt_st_parse(struct bnt_st_header *header, const char *text, size_t size,
                             const char *name, struct bnt_error *err);
// Parses a whole file in memory; *data is where the tensors' bytes start. The file must end where
// they end.
enum bnt_status bnt_st_open(struct bnt_st_header *header, const uint8_t *file, uint64_t size,
                            const char *name, const uint8_t **data, struct bnt_error *err);
void bnt_st_free(struct bnt_st_header *header);

// A text of __metadata__, or NULL. *size counts its bytes.
const char *bnt_st_metadata(const struct bnt_st_header *header, const char *key, size_t *size);

// A header being made. Tensors follow one another in the order of the calls.
struct bnt_st_builder {
    json_t *json;
    uint64_t end;
};
enum bnt_status bnt_st_builder_init(struct bnt_st_builder *builder, struct bnt_error *err);
enum bnt_status bnt_st_builder_add(struct bnt_st_builder *builder, const char *name,
                                   enum bnt_st_dtype dtype, unsigned rank, const uint64_t *shape,
                                   struct bnt_error *err);
enum bnt_status bnt_st_builder_metadata(struct bnt_st_builder *builder, const char *key,
                                        const char *text, size_t size, struct bnt_error *err);
// The file's first bytes, length and header, padded with spaces to a multiple of 64. *bytes is
// malloc'd.
enum bnt_status bnt_st_builder_finish(struct bnt_st_builder *builder, char **bytes, size_t *size,
                                      struct bnt_error *err);
void bnt_st_builder_free(struct bnt_st_builder *builder);

#endif
