// SPDX-License-Identifier: MIT
// Small .bnt files made in a test: any shape, pseudo-random weights, a tokenizer if one is given.
#ifndef BNT_TESTS_UNIT_TINY_MODEL_H
#define BNT_TESTS_UNIT_TINY_MODEL_H

#include "formats/block.h"
#include "formats/bytes.h"
#include "formats/file.h"
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

static inline void tiny_dense(const struct bnt_tensor_record *t, uint64_t *random, uint8_t *out)
{
    for (uint64_t i = 0; i < (uint64_t)t->rows * t->cols; i++) {
        float v = test_random_float(random);
        uint16_t bf16 = bnt_bf16_from_float(v);
        if (t->dtype == BNT_BF16)
            memcpy(out + 2 * i, &bf16, sizeof bf16);
        else
            memcpy(out + 4 * i, &v, sizeof v);
    }
}

static inline void tiny_write_tensor(struct bnt_writer *w, struct bnt_tensor_record *t,
                                     uint64_t *random)
{
    struct bnt_error err;
    uint8_t *bytes = test_alloc((size_t)t->size);
    if (t->dtype == BNT_TERNARY) {
        tiny_ternary(t, random, bytes);
        t->scale = 0.5f;
    } else {
        tiny_dense(t, random, bytes);
    }
    assert_int_equal(bnt_output_write_at(w->out, bytes, (size_t)t->size, t->offset, &err), BNT_OK);
    free(bytes);
}

// Writes path. tokenizer: a TOKN section, or NULL. The same seed gives the same weights.
static inline void tiny_write(const char *path, const struct bnt_hyper *hyper,
                              const void *tokenizer, size_t tokenizer_size, uint64_t seed)
{
    struct bnt_error err = {.message = ""};
    struct bnt_output out;
    struct bnt_writer w;
    assert_int_equal(bnt_output_open_random(&out, path, &err), BNT_OK);
    assert_int_equal(bnt_writer_open(&w, &out, hyper, false,
                                     (struct bnt_writer_section){tokenizer, tokenizer_size},
                                     (struct bnt_writer_section){0}, &err),
                     BNT_OK);
    for (uint64_t i = 0; i < w.n_tensors; i++)
        tiny_write_tensor(&w, &w.tensors[i], &seed);
    assert_int_equal(bnt_writer_finish(&w, "{}", 2, &err), BNT_OK);
    assert_int_equal(bnt_output_commit(&out, &err), BNT_OK);
    bnt_writer_close(&w);
}

#endif
