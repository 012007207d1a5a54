// SPDX-License-Identifier: MIT
// Ternary products in 256-bit registers, for AVX2 and AVX-VNNI: eight words of a block are eight
// rows at the same 16 columns, a row in each 32-bit lane. A file includes kernel_float.h, defines
// what is listed, then includes this.
//
//   BLOCKS_AT_ONCE              blocks after which a sum must be widened
//   add_products(sum, codes, x) adds the products of four unsigned codes and four activations in
//                               each 32-bit lane
//   widen(sum)                  the 32-bit totals of such a sum
//   HALF_SUMS                   1, or 2: the columns 0–15 and 16–31 of few tokens have sums of
//   their
//                               own, where a sum would have to wait for the one before

enum { TOKENS = 4 };

// Four activations in every lane.
KERNEL_INLINE __m256i four(const int8_t *x)
{
    int32_t v;
    memcpy(&v, x, sizeof v);
    return _mm256_set1_epi32(v);
}

// Sixteen columns of a block row for some tokens. words: rows 0–7; rows 8–15 lie 16 words on.
KERNEL_INLINE void add_columns(__m256i sum[TOKENS][2], const uint32_t *words, const int8_t *x,
                               size_t x_stride, int tokens)
{
    const __m256i mask = _mm256_set1_epi8(3);
    __m256i top = _mm256_load_si256((const void *)words);
    __m256i bottom = _mm256_load_si256((const void *)(words + 16));
    for (size_t i = 0; i < 4; i++) {
        __m256i codes[2] = {_mm256_and_si256(top, mask), _mm256_and_si256(bottom, mask)};
        top = _mm256_srli_epi32(top, 2);
        bottom = _mm256_srli_epi32(bottom, 2);
        for (int t = 0; t < tokens; t++) {
            __m256i y = four(x + (size_t)t * x_stride + 4 * i);
            sum[t][0] = add_products(sum[t][0], codes[0], y);
            sum[t][1] = add_products(sum[t][1], codes[1], y);
        }
    }
}

// The 32-bit sums of a run of blocks, BLOCKS_AT_ONCE at most, for some tokens.
KERNEL_INLINE void sum_blocks(__m256i total[TOKENS][2], const uint32_t *block, size_t n_blocks,
                              const int8_t *x, size_t x_stride, int tokens)
{
    const int halves = tokens <= 2 ? HALF_SUMS : 1;
    __m256i sum[2][TOKENS][2];
    for (int h = 0; h < halves; h++) {
        for (int t = 0; t < tokens; t++)
            sum[h][t][0] = sum[h][t][1] = _mm256_setzero_si256();
    }
    for (size_t b = 0; b < n_blocks; b++, block += 32, x += 32) {
        add_columns(sum[0], block, x, x_stride, tokens);
        add_columns(sum[halves - 1], block + 8, x + 16, x_stride, tokens);
    }
    for (int t = 0; t < tokens; t++) {
        for (int i = 0; i < 2; i++) {
            total[t][i] = widen(sum[0][t][i]);
            if (halves == 2)
                total[t][i] = _mm256_add_epi32(total[t][i], widen(sum[1][t][i]));
        }
    }
}

KERNEL_INLINE void add_to(int32_t *out, __m256i v)
{
    __m256i before = _mm256_loadu_si256((const void *)out);
    _mm256_storeu_si256((void *)out, _mm256_add_epi32(before, v));
}

KERNEL_INLINE void block_row(int32_t *out, size_t out_stride, const uint32_t *block,
                             size_t n_blocks, const int8_t *x, size_t x_stride,
                             const int32_t *x_sum, int tokens)
{
    for (int t = 0; t < tokens; t++) {
        __m256i start = _mm256_set1_epi32(-2 * x_sum[t]); // codes are weights + 2
        _mm256_storeu_si256((void *)(out + (size_t)t * out_stride), start);
        _mm256_storeu_si256((void *)(out + (size_t)t * out_stride + 8), start);
    }
    for (size_t b = 0; b < n_blocks;) {
        size_t end = n_blocks - b < BLOCKS_AT_ONCE ? n_blocks : b + BLOCKS_AT_ONCE;
        __m256i sum[TOKENS][2];
        sum_blocks(sum, block, end - b, x, x_stride, tokens);
        block += 32 * (end - b);
        x += 32 * (end - b);
        b = end;
        for (int t = 0; t < tokens; t++) {
            add_to(out + (size_t)t * out_stride, sum[t][0]);
            add_to(out + (size_t)t * out_stride + 8, sum[t][1]);
        }
    }
}

KERNEL_INLINE void some_tokens(int32_t *out, size_t out_stride, const uint32_t *blocks,
                               size_t n_block_rows, size_t n_blocks, const int8_t *x,
                               size_t x_stride, const int32_t *x_sum, int tokens)
{
    for (size_t r = 0; r < n_block_rows; r++)
        block_row(out + 16 * r, out_stride, blocks + 32 * n_blocks * r, n_blocks, x, x_stride,
                  x_sum, tokens);
}

// Several tokens at a time, so that each word is decoded once for them; the number must be a
// constant for the sums to stay in registers.
KERNEL void ternary(int32_t *out, size_t out_stride, const uint32_t *blocks, size_t n_block_rows,
                    size_t n_blocks, const int8_t *x, size_t x_stride, const int32_t *x_sum,
                    size_t n_tokens)
{
    size_t t = 0;
    for (; t + TOKENS <= n_tokens; t += TOKENS)
        some_tokens(out + t * out_stride, out_stride, blocks, n_block_rows, n_blocks,
                    x + t * x_stride, x_stride, x_sum + t, TOKENS);
    for (; t + 2 <= n_tokens; t += 2)
        some_tokens(out + t * out_stride, out_stride, blocks, n_block_rows, n_blocks,
                    x + t * x_stride, x_stride, x_sum + t, 2);
    for (; t < n_tokens; t++)
        some_tokens(out + t * out_stride, out_stride, blocks, n_block_rows, n_blocks,
                    x + t * x_stride, x_stride, x_sum + t, 1);
}

// --- groups with scales ---

KERNEL_INLINE __m256 load_scales(const struct bnt_scales *s, size_t at)
{
    if (s->halves)
        return _mm256_cvtph_ps(_mm_loadu_si128((const void *)((const uint16_t *)s->values + at)));
    return _mm256_loadu_ps((const float *)s->values + at);
}

// Sums of a group for some rows of activations.
KERNEL_INLINE void group_products(__m256i total[TOKENS][2], const uint32_t *block, size_t n_blocks,
                                  const int8_t *x, size_t x_stride, const int32_t *x_sum,
                                  size_t sum_stride, int tokens)
{
    for (int t = 0; t < tokens; t++)
        total[t][0] = total[t][1] = _mm256_set1_epi32(-2 * x_sum[(size_t)t * sum_stride]);
    for (size_t b = 0; b < n_blocks;) {
        size_t end = n_blocks - b < BLOCKS_AT_ONCE ? n_blocks : b + BLOCKS_AT_ONCE;
        __m256i sum[TOKENS][2];
        sum_blocks(sum, block, end - b, x, x_stride, tokens);
        block += 32 * (end - b);
        x += 32 * (end - b);
        b = end;
        for (int t = 0; t < tokens; t++) {
            for (int i = 0; i < 2; i++)
                total[t][i] = _mm256_add_epi32(total[t][i], sum[t][i]);
        }
    }
}

// A block row for some rows of activations; the running sums wait in out.
KERNEL_INLINE void row_of_groups(float *out, size_t out_stride, const uint32_t *block,
                                 size_t n_blocks, const struct bnt_scales *scales, size_t row,
                                 const int8_t *x, size_t x_stride, const int32_t *x_sum, int tokens,
                                 bool wide)
{
    const size_t step = scales->group_blocks, groups = scales->n_groups;
    const int parts = wide ? 2 : 1;
    for (int t = 0; t < tokens / parts; t++)
        memset(out + (size_t)t * out_stride, 0, 16 * sizeof *out);
    for (size_t g = 0, b = 0; g < groups; g++, b += step) {
        __m256i sum[TOKENS][2];
        group_products(sum, block + 32 * b, n_blocks - b < step ? n_blocks - b : step, x + 32 * b,
                       x_stride, x_sum + g, groups, tokens);
        for (int i = 0; i < 2; i++) {
            __m256 scale = load_scales(scales, (row * groups + g) * 16 + 8 * (size_t)i);
            for (int t = 0; t < tokens / parts; t++) {
                __m256i s = sum[t * parts][i];
                if (wide)
                    s = _mm256_add_epi32(_mm256_slli_epi32(s, 8), sum[2 * t + 1][i]);
                float *at = out + (size_t)t * out_stride + 8 * i;
                __m256 v = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(s));
                _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), v));
            }
        }
    }
}

KERNEL_INLINE void some_groups(float *out, size_t out_stride, const uint32_t *blocks,
                               size_t n_block_rows, size_t n_blocks,
                               const struct bnt_scales *scales, const int8_t *x, size_t x_stride,
                               const int32_t *x_sum, int tokens, bool wide)
{
    for (size_t r = 0; r < n_block_rows; r++)
        row_of_groups(out + 16 * r, out_stride, blocks + 32 * n_blocks * r, n_blocks, scales, r, x,
                      x_stride, x_sum, tokens, wide);
}

KERNEL void ternary_groups(float *out, size_t out_stride, const uint32_t *blocks,
                           size_t n_block_rows, size_t n_blocks, const struct bnt_scales *scales,
                           const int8_t *x, size_t x_stride, const int32_t *x_sum, size_t n_tokens,
                           bool wide)
{
    const size_t parts = wide ? 2 : 1, at_once = TOKENS / parts;
    for (size_t t = 0; t < n_tokens;) {
        float *o = out + t * out_stride;
        const int8_t *y = x + t * parts * x_stride;
        const int32_t *s = x_sum + t * parts * scales->n_groups;
        size_t n = n_tokens - t >= at_once ? at_once : 1;
        if (n > 1 && wide)
            some_groups(o, out_stride, blocks, n_block_rows, n_blocks, scales, y, x_stride, s,
                        TOKENS, true);
        else if (n > 1)
            some_groups(o, out_stride, blocks, n_block_rows, n_blocks, scales, y, x_stride, s,
                        TOKENS, false);
        else if (wide)
            some_groups(o, out_stride, blocks, n_block_rows, n_blocks, scales, y, x_stride, s, 2,
                        true);
        else
            some_groups(o, out_stride, blocks, n_block_rows, n_blocks, scales, y, x_stride, s, 1,
                        false);
        t += n;
    }
}

// --- int8 rows ---

// Columns whose products one 32-bit lane can take: a lane gets 2 of 16.
enum { COLUMNS_AT_ONCE = 4096 };
_Static_assert((int64_t)COLUMNS_AT_ONCE / 8 * 127 * 32767 <= INT32_MAX, "cannot overflow");

KERNEL_INLINE __m256i sixteen_products(const int8_t *row, const int16_t *x)
{
    return _mm256_madd_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)row)),
                             _mm256_loadu_si256((const void *)x));
}

KERNEL_INLINE int64_t int8_row(const int8_t *row, size_t n, const int16_t *x)
{
    int64_t sum = 0;
    for (size_t k = 0; k < n;) {
        size_t end = n - k < COLUMNS_AT_ONCE ? n : k + COLUMNS_AT_ONCE;
        __m256i even = _mm256_setzero_si256(), odd = even;
        for (; k + 32 <= end; k += 32) {
            even = _mm256_add_epi32(even, sixteen_products(row + k, x + k));
            odd = _mm256_add_epi32(odd, sixteen_products(row + k + 16, x + k + 16));
        }
        int32_t lane[16];
        _mm256_storeu_si256((void *)lane, even);
        _mm256_storeu_si256((void *)(lane + 8), odd);
        for (int i = 0; i < 16; i++)
            sum += lane[i];
        for (; k < end; k++)
            sum += row[k] * x[k];
    }
    return sum;
}

KERNEL void int8_rows(int64_t *out, const int8_t *rows, size_t n_rows, size_t n, const int16_t *x)
{
    for (size_t r = 0; r < n_rows; r++)
        out[r] = int8_row(rows + r * n, n, x);
}
