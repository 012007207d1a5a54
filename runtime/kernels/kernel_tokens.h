// SPDX-License-Identifier: MIT
// A batch of tokens eight at a time, for kernels that decode each word once for several tokens. Who
// includes this has one_token, and some_tokens whose number of tokens becomes a constant: only then
// do the sums stay in registers.

KERNEL void ternary(int32_t *out, size_t out_stride, const uint32_t *blocks, size_t n_block_rows,
                    size_t n_blocks, const int8_t *x, size_t x_stride, const int32_t *x_sum,
                    size_t n_tokens)
{
    for (size_t t = 0; t < n_tokens;) {
        size_t left = n_tokens - t;
        size_t tokens = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        int32_t *o = out + t * out_stride;
        const int8_t *y = x + t * x_stride;
        if (tokens == 8)
            some_tokens(o, out_stride, blocks, n_block_rows, n_blocks, y, x_stride, x_sum + t, 8);
        else if (tokens == 4)
            some_tokens(o, out_stride, blocks, n_block_rows, n_blocks, y, x_stride, x_sum + t, 4);
        else if (tokens == 2)
            some_tokens(o, out_stride, blocks, n_block_rows, n_blocks, y, x_stride, x_sum + t, 2);
        else
            one_token(o, blocks, n_block_rows, n_blocks, y, x_sum[t]);
        t += tokens;
    }
}
