// SPDX-License-Identifier: MIT
// Small .bnt files made in a test: any shape, pseudo-random weights, a tokenizer if one is given.
#ifndef BNT_TESTS_UNIT_TINY_MODEL_H
#define BNT_TESTS_UNIT_TINY_MODEL_H

#include "formats/block.h"
#include "formats/bytes.h"
#include "formats/file.h"
#include "formats/int8_rows.h"
#include "formats/layout.h"
#include "formats/writer.h"
#include "tests/unit/support.h"

// One layer, hidden 2, ffn 1, one head of 2: the smallest model but for its vocabulary.
static inline struct bnt_hyper tiny_hyper(uint32_t vocab_size)
{
    return (struct bnt_hyper){
        .n_layers = 1,
        .hidden_size = 2,
        .ffn_size = 1,
        .n_heads = 1,
        .n_kv_heads = 1,
        .head_dim = 2,
        .vocab_size = vocab_size,
        .max_context = 64,
        .activation = BNT_ACTIVATION_RELU2,
        .flags = BNT_HYPER_TIED,
        .norm_eps = 1e-5f,
        .rope_theta = 10000.0,
        .bos_id = -1,
        .top_p = 1.0f,
        .activation_bits = 8,
    };
}

static inline void tiny_ternary(const struct bnt_tensor_record *t, uint64_t *random, uint8_t *out)
{
    int8_t *w = test_alloc((size_t)BNT_BLOCK_ROWS * t->cols);
    for (uint32_t row = 0; row < t->rows; row += BNT_BLOCK_ROWS) {
        uint32_t rows = t->rows - row < BNT_BLOCK_ROWS ? t->rows - row : BNT_BLOCK_ROWS;
        for (size_t i = 0; i < (size_t)rows * t->cols; i++)
            w[i] = (int8_t)((int)test_random_below(random, 3) - 1);
        assert_true(bnt_block_pack_row(w, rows, t->cols,
                                       out + row / BNT_BLOCK_ROWS * bnt_block_row_bytes(t->cols)));
    }
    free(w);
}

// What a test may want of the weights beside their shapes.
struct tiny_weights {
    bool int8;    // the int8 copy of the output matrix,
    bool damaged; // with whatever bytes in it
    // Fills a row of the output matrix; NULL: random numbers.
    void (*output_row)(const void *context, uint32_t row, float *values, uint32_t n,
                       uint64_t *random);
    const void *context;
};

struct tiny_writing {
    struct bnt_writer writer;
    struct tiny_weights weights;
    const struct bnt_tensor_record *output; // the output matrix, once it is written,
    uint8_t *output_bytes;                  // and its bytes
    uint64_t random;
};

static inline bool tiny_is_output(const struct tiny_writing *w, const struct bnt_tensor_record *t)
{
    bool tied = w->writer.hyper.flags & BNT_HYPER_TIED;
    return t->role == (tied ? BNT_TOKEN_EMBEDDING : BNT_OUTPUT);
}

static inline void tiny_dense(struct tiny_writing *w, const struct bnt_tensor_record *t,
                              uint8_t *out)
{
    float *row = test_alloc(t->cols * sizeof *row);
    for (uint32_t r = 0; r < t->rows; r++) {
        if (w->weights.output_row && tiny_is_output(w, t)) {
            w->weights.output_row(w->weights.context, r, row, t->cols, &w->random);
        } else {
            for (uint32_t i = 0; i < t->cols; i++)
                row[i] = test_random_float(&w->random);
        }
        for (uint32_t i = 0; i < t->cols; i++) {
            uint16_t bf16 = bnt_bf16_from_float(row[i]);
            uint64_t at = (uint64_t)r * t->cols + i;
            if (t->dtype == BNT_BF16)
                memcpy(out + 2 * at, &bf16, sizeof bf16);
            else
                memcpy(out + 4 * at, &row[i], sizeof row[i]);
        }
    }
    free(row);
}

// Either tensor of EMB8.
static inline void tiny_int8(struct tiny_writing *w, const struct bnt_tensor_record *t,
                             uint8_t *out)
{
    const struct bnt_tensor_record *from = w->output;
    const uint32_t n = from->cols;
    int8_t *row = test_alloc(n);
    if (w->weights.damaged)
        test_random_bytes(&w->random, out, (size_t)t->size);
    for (uint32_t r = 0; r < from->rows && !w->weights.damaged; r++) {
        float scale = bnt_int8_row((enum bnt_dtype)from->dtype,
                                   w->output_bytes + from->size / from->rows * r, n, row);
        if (t->role == BNT_OUTPUT_INT8)
            memcpy(out + (size_t)n * r, row, n);
        else
            memcpy(out + sizeof scale * r, &scale, sizeof scale);
    }
    free(row);
}

// Scales from 1/4 to 2; those of padding rows stay zero, as the output file is.
static inline void tiny_scales(struct tiny_writing *w, const struct bnt_tensor_record *t)
{
    const struct bnt_hyper *h = &w->writer.hyper;
    const uint32_t groups = bnt_row_groups(h, t->cols);
    for (uint32_t row = 0; row < t->rows; row++) {
        for (uint32_t g = 0; g < groups; g++) {
            struct bnt_error err;
            float scale = 0.25f + 0.25f * (float)test_random_below(&w->random, 8);
            uint16_t half = bnt_f16_from_float(scale);
            const bool halves = h->scale_dtype == BNT_F16;
            uint64_t at = ((uint64_t)row / 16 * groups + g) * 16 + row % 16;
            assert_int_equal(
                bnt_output_write_at(w->writer.out, halves ? (void *)&half : (void *)&scale,
                                    halves ? 2 : 4, t->scale_offset + at * (halves ? 2 : 4), &err),
                BNT_OK);
        }
    }
}

static inline void tiny_write_tensor(struct tiny_writing *w, struct bnt_tensor_record *t)
{
    struct bnt_error err;
    uint8_t *bytes = test_alloc((size_t)t->size);
    if (t->dtype == BNT_TERNARY) {
        tiny_ternary(t, &w->random, bytes);
        if (w->writer.hyper.scale_group)
            tiny_scales(w, t);
        else
            t->scale = 0.5f;
    } else if (t->role == BNT_OUTPUT_INT8 || t->role == BNT_OUTPUT_INT8_SCALE) {
        tiny_int8(w, t, bytes);
    } else {
        tiny_dense(w, t, bytes);
    }
    assert_int_equal(bnt_output_write_at(w->writer.out, bytes, (size_t)t->size, t->offset, &err),
                     BNT_OK);
    if (!tiny_is_output(w, t)) {
        free(bytes);
        return;
    }
    w->output = t;
    w->output_bytes = bytes;
}

// Writes path. tokenizer: a TOKN section, or NULL. The same seed gives the same weights.
static inline void tiny_write_weights(const char *path, const struct bnt_hyper *hyper,
                                      const void *tokenizer, size_t tokenizer_size, uint64_t seed,
                                      struct tiny_weights weights)
{
    struct bnt_error err = {.message = ""};
    struct bnt_output out;
    struct tiny_writing w = {.weights = weights, .random = seed};
    assert_int_equal(bnt_output_open_random(&out, path, &err), BNT_OK);
    assert_int_equal(bnt_writer_open(&w.writer, &out, hyper, weights.int8,
                                     (struct bnt_writer_section){tokenizer, tokenizer_size},
                                     (struct bnt_writer_section){0}, 0, NULL, &err),
                     BNT_OK);
    for (uint64_t i = 0; i < w.writer.n_tensors; i++)
        tiny_write_tensor(&w, &w.writer.tensors[i]);
    assert_int_equal(bnt_writer_finish(&w.writer, "{}", 2, &err), BNT_OK);
    assert_int_equal(bnt_output_commit(&out, &err), BNT_OK);
    bnt_writer_close(&w.writer);
    free(w.output_bytes);
}

static inline void tiny_write(const char *path, const struct bnt_hyper *hyper,
                              const void *tokenizer, size_t tokenizer_size, uint64_t seed)
{
    tiny_write_weights(path, hyper, tokenizer, tokenizer_size, seed, (struct tiny_weights){0});
}

#endif
