// SPDX-License-Identifier: MIT
// A batch of tokens for products by groups, as kernel_tokens.h is for plain ones. Who includes this
// has groups_of_token (one token) and groups_of_tokens (rows of activations whose number becomes a
// constant).

KERNEL_INLINE void all_groups(float *out, size_t out_stride, const uint32_t *blocks,
                              size_t n_block_rows, size_t n_blocks, const struct bnt_scales *scales,
                              const int8_t *x, size_t x_stride, const int32_t *x_sum,
                              size_t n_tokens, bool wide)
{
    const size_t parts = wide ? 2 : 1;
    for (size_t t = 0; t < n_tokens;) {
        size_t left = (n_tokens - t) * parts;
        size_t rows = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        float *o = out + t * out_stride;
        const int8_t *y = x + t * parts * x_stride;
        const int32_t *s = x_sum + t * parts * scales->n_groups;
        if (rows == 8)
            groups_of_tokens(o, out_stride, blocks, n_block_rows, n_blocks, scales, y, x_stride, s,
                             8, wide);
        else if (rows == 4)
            groups_of_tokens(o, out_stride, blocks, n_block_rows, n_blocks, scales, y, x_stride, s,
                             4, wide);
        else if (rows == parts)
            groups_of_token(o, blocks, n_block_rows, n_blocks, scales, y, x_stride, s, (int)parts);
        else
            groups_of_tokens(o, out_stride, blocks, n_block_rows, n_blocks, scales, y, x_stride, s,
                             2, wide);
        t += rows / parts;
    }
}

KERNEL void ternary_groups(float *out, size_t out_stride, const uint32_t *blocks,
                           size_t n_block_rows, size_t n_blocks, const struct bnt_scales *scales,
                           const int8_t *x, size_t x_stride, const int32_t *x_sum, size_t n_tokens,
                           bool wide)
{
    if (wide)
        all_groups(out, out_stride, blocks, n_block_rows, n_blocks, scales, x, x_stride, x_sum,
                   n_tokens, true);
    else
        all_groups(out, out_stride, blocks, n_block_rows, n_blocks, scales, x, x_stride, x_sum,
                   n_tokens, false);
}
