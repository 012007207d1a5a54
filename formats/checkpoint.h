// SPDX-License-Identifier: MIT
// A checkpoint folder in Hugging Face form: config, tokenizer files, safetensors in one file or
// shards.
#ifndef BNT_FORMATS_CHECKPOINT_H
#define BNT_FORMATS_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/config.h"
#include "formats/file.h"
#include "formats/layout.h"
#include "formats/levels.h"
#include "formats/pooling.h"
#include "formats/safetensors.h"
#include "formats/status.h"
#include "formats/ternary.h"

// A small file of the folder, read whole.
struct bnt_small_file {
    const char *name; // also where it is not there; "" for one that no other names
    char *text;       // NULL: not there. A zero byte follows the last
    size_t size;
};

enum bnt_small_file_index {
    BNT_FILE_CONFIG,
    BNT_FILE_GENERATION,
    BNT_FILE_TOKENIZER,
    BNT_FILE_TOKENIZER_CONFIG,
    BNT_FILE_CHAT_TEMPLATE,
    BNT_FILE_README,
    BNT_FILE_MODULES,
    BNT_FILE_POOLING, // read only where modules.json names it
    BNT_FILE_INDEX,   // last: read only where the weights are shards
    BNT_SMALL_FILES,
};

struct bnt_shard {
    char *name; // file name inside the folder
    struct bnt_map map;
    struct bnt_st_header header;
    const uint8_t *data;
};

// A tensor of the model, found in the checkpoint.
struct bnt_source {
    struct bnt_tensor_place place;
    char name[BNT_TENSOR_NAME_SIZE];
    const struct bnt_st_tensor *tensor;
    const uint8_t *data;
    float weight_scale; // of packed matrices, as stored
    bool unpacked;      // of those: −1, 0, +1 as floats
    float level;        // of a matrix with one level, or 0
    uint32_t shards;    // of a matrix with levels: runs of rows with the same
    bool ordinary;      // its weights were looked at, and lie on no levels nor near
    float forced_scale; // of a matrix without levels among others with them; 0: none such
};

// What bnt_checkpoint_find_levels found.
struct bnt_found_levels {
    enum bnt_level_groups groups; // what shares a scale
    uint32_t shards;              // the most runs of rows with the same scale that a matrix has
    bool forced;                  // some matrices hold no levels and are ternarized all the same
    bool nearest;                 // some weights are not on a level, and take the nearest: …
    uint64_t off;                 // … so many,
    float worst;                  // so far away, over the level
    char unlike[200];             // of weights that hold no levels: how far they are from it
};

struct bnt_checkpoint {
    char *dir;
    struct bnt_small_file small[BNT_SMALL_FILES];
    struct bnt_config config;
    struct bnt_modules modules;
    struct bnt_shard *shards; // one, or in the order of their names
    size_t n_shards;
    json_t *weight_map;         // of the index, NULL if there is none
    struct bnt_source *sources; // one for each tensor of the model, in tensor table order
    size_t n_sources;
    struct bnt_found_levels levels;
    bool said_packed; // the config says that the weights are packed, but they are ordinary floats
};

// Opens the folder and finds every tensor that the config calls for, as transformers does:
// model.safetensors comes before an index of shards; the index tells the shards, which tell their
// tensors; what wrappers put before all of the names is passed over. Missing and unknown tensors,
// wrong shapes and types are refused by name. The tensors' bytes are mapped, not read. Close with
// bnt_checkpoint_close, also after a failure.
enum bnt_status bnt_checkpoint_open(struct bnt_checkpoint *checkpoint, const char *dir,
                                    struct bnt_error *err);
// Its second half, for bnt_checkpoint_open: finds the tensors in the opened shards.
enum bnt_status bnt_checkpoint_bind(struct bnt_checkpoint *checkpoint, struct bnt_error *err);
void bnt_checkpoint_close(struct bnt_checkpoint *checkpoint);

struct bnt_levels_options {
    unsigned threads;
    bool nearest; // weights that are nearly all on levels take the nearest
    bool force;   // matrices that hold no levels are ternarized beside others that do
};

// Of float weights: if they hold three levels, the form becomes BNT_FORM_LEVELS, hyper gets its
// scales and activations, and embeddings that hold them become ternary. Every matrix is looked at,
// an ordinary one until it is known for one. Refused: weights that are near to levels without
// nearest, some matrices with levels and some without (without force), floats without levels where
// the config says that they are packed. Does nothing to other forms.
enum bnt_status bnt_checkpoint_find_levels(struct bnt_checkpoint *checkpoint,
                                           const struct bnt_levels_options *options,
                                           struct bnt_error *err);

// γ of a ternary matrix with one scale. Refuses masters with Inf or NaN and scales that are not
// finite and positive.
enum bnt_status bnt_source_scale(const struct bnt_checkpoint *checkpoint,
                                 const struct bnt_source *source, unsigned threads, float *scale,
                                 struct bnt_error *err);

// Rows first … first + count − 1 of a ternary matrix as −1, 0, +1: out (count, cols).
// scale: from bnt_source_scale. Refuses the code 3 of packed weights.
enum bnt_status bnt_source_ternary_rows(const struct bnt_checkpoint *checkpoint,
                                        const struct bnt_source *source, float scale,
                                        uint32_t first, uint32_t count, int8_t *out,
                                        struct bnt_error *err);

// Scales of a row of a matrix with levels, one for each group of hyper's scale_group: as floats.
void bnt_source_scales(const struct bnt_checkpoint *checkpoint, const struct bnt_source *source,
                       uint32_t row, float *scales);

// The source as bnt_levels_* take it.
struct bnt_level_matrix bnt_source_levels(const struct bnt_source *source);

// Names the first element that is not finite.
enum bnt_status bnt_source_not_finite(const struct bnt_checkpoint *checkpoint,
                                      const struct bnt_source *source, struct bnt_error *err);

// Number type of a dense tensor or of master weights.
enum bnt_float_type bnt_source_float_type(const struct bnt_source *source);

#endif
