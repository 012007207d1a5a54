// SPDX-License-Identifier: MIT
//
// What the two halves of bnt-synth share: synth-model.c says which tensors a checkpoint of a given
// config.json and form holds and where each one lies; bnt-synth.c fills and writes them.

#ifndef BNT_SYNTH_H
#define BNT_SYNTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

enum bnt_synth_form {
    BNT_SYNTH_MASTERS, // weights before ternarizing, in a float type
    BNT_SYNTH_PACKED,  // U8 with four codes a byte, and a weight_scale beside each
    BNT_SYNTH_LEVELS,  // floats that hold three levels, by matrix, row, or row and group
};

enum bnt_synth_dtype { BNT_SYNTH_BF16, BNT_SYNTH_F16, BNT_SYNTH_F32, BNT_SYNTH_U8 };

// What the elements of a tensor are drawn from. The first three have a table each.
enum bnt_synth_fill {
    BNT_SYNTH_WEIGHT,  // about normal, mean 0, deviation 0.02
    BNT_SYNTH_NORM,    // about normal, mean 1, deviation 0.02
    BNT_SYNTH_CODES,   // bytes of four codes 0..2
    BNT_SYNTH_GAMMA,   // a weight_scale that multiplies
    BNT_SYNTH_INVERSE, // a weight_scale that divides
    BNT_SYNTH_LEVEL,   // -s, 0, +s
};

struct bnt_synth_tensor {
    char name[96];
    enum bnt_synth_dtype dtype;
    enum bnt_synth_fill fill;
    uint64_t rows, cols; // as stored; cols is 0 when the tensor has one dimension
    uint64_t elements;   // as stored, so a byte of codes counts once
    uint64_t bytes;
    uint64_t offset; // within the data of its shard
    unsigned shard;
};

struct bnt_synth_model {
    json_t *config; // what config.json will say
    enum bnt_synth_form form;
    enum bnt_synth_dtype dtype; // of everything that is not codes
    bool divides;               // packed only: weight_scale is 1/gamma
    uint64_t group;             // levels only: columns that share a scale; 0: all of a matrix
    struct bnt_synth_tensor *tensors;
    size_t count, capacity;
    uint64_t bytes;
};

// Prints "bnt-synth: <message>" as one line on stderr and exits with the status given.
_Noreturn void bnt_synth_die(int status, const char *format, ...);

// Bytes of one element, and the name that safetensors has for the type.
unsigned bnt_synth_dtype_bytes(enum bnt_synth_dtype dtype);
const char *bnt_synth_dtype_name(enum bnt_synth_dtype dtype);

// The built-in names, separated by spaces, for --help and for error messages.
const char *bnt_synth_names(void);

// Fills *model for LIKE, which is a built-in name or the path of a config.json. Exits on error.
void bnt_synth_model_load(struct bnt_synth_model *model, const char *like, enum bnt_synth_form form,
                          enum bnt_synth_dtype dtype, uint64_t group);

// Spreads the tensors over the shards and puts them in file order, with offsets. Exits on error.
void bnt_synth_model_lay_out(struct bnt_synth_model *model, unsigned shards);

void bnt_synth_model_free(struct bnt_synth_model *model);

#endif
