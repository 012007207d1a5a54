// SPDX-License-Identifier: MIT
// Products of the ternary matrices with the activations of one token or many, each a step of all
// threads (bnt.md section 5); and what is done token by token.
#ifndef BNT_RUNTIME_PRODUCT_H
#define BNT_RUNTIME_PRODUCT_H

#include "runtime/engine/session.h"

// A matrix, and where its results go.
struct bnt_product {
    const struct bnt_matrix *matrix;
    float *out; // (n, out_stride), the first matrix->rows of each row are written
    size_t out_stride;
};

enum { BNT_PRODUCTS_AT_ONCE = 3 };

// Quantizes the input of width elements of batch token t, in the way of the model.
void bnt_quantize(struct bnt_session *session, const float *x, size_t width, size_t t);

// Multiplies the quantized inputs of n tokens with count matrices, which lie side by side in the
// file, and adds their biases.
void bnt_multiply(struct bnt_session *session, const struct bnt_product *products, size_t count,
                  size_t n);

// The same for matrices each with a norm of its own before it: x (n, width) is what comes in.
void bnt_multiply_normed(struct bnt_session *session, const struct bnt_product *products,
                         size_t count, const float *x, size_t width, size_t n);

// 16-row block rows of a matrix.
size_t bnt_block_rows(const struct bnt_matrix *matrix);

// Does step for each of n tokens, which are shared among the threads.
void bnt_for_each_token(struct bnt_session *session, void *context, size_t n,
                        void (*step)(struct bnt_session *session, void *context, size_t t));

#endif
