// SPDX-License-Identifier: MIT
// AVX2. Eight words of a block are eight rows at the same 16 columns: one register with a row in
// each 32-bit lane.
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "runtime/kernels.h"

#define AVX2        __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((target("avx2"), always_inline))

// vpmaddubsw adds two products of a code (0 … 3) and an activation (−128 … 127): at most 2 · 3 ·
// 128 = 768 in magnitude. A block adds eight of them to each 16-bit sum, so this many blocks may go
// by before the sums must be widened.
enum { PAIR_MAX = 2 * 3 * 128, BLOCKS_AT_ONCE = 5 };
_Static_assert(PAIR_MAX * 8 * BLOCKS_AT_ONCE <= INT16_MAX, "16-bit sums cannot overflow");

// Sixteen columns of eight rows: adds the four products of dword pairs for each token.
AVX2_INLINE void add_columns(__m256i words, const int8_t *x, size_t x_stride, int tokens,
                             __m256i *sum)
{
    const __m256i mask = _mm256_set1_epi8(3);
    for (int i = 0; i < 4; i++) {
        __m256i codes = _mm256_and_si256(i ? _mm256_srli_epi32(words, 2 * i) : words, mask);
        for (int t = 0; t < tokens; t++) {
            int32_t four;
            memcpy(&four, x + (size_t)t * x_stride + 4 * (size_t)i, sizeof four);
            sum[t] = _mm256_add_epi16(sum[t], _mm256_maddubs_epi16(codes, _mm256_set1_epi32(four)));
        }
    }
}

// Eight rows (half a block row) times some tokens. blocks: the first block's words 0 (rows 0–7) or
// 16 (rows 8–15).
AVX2_INLINE void eight_rows(int32_t *out, size_t out_stride, const uint32_t *blocks,
                            size_t n_blocks, const int8_t *x, size_t x_stride, const int32_t *x_sum,
                            int tokens)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total[4];
    for (int t = 0; t < tokens; t++)
        total[t] = _mm256_set1_epi32(-2 * x_sum[t]); // codes are weights + 2
    for (size_t b = 0; b < n_blocks;) {
        size_t end = n_blocks - b < BLOCKS_AT_ONCE ? n_blocks : b + BLOCKS_AT_ONCE;
        __m256i sum[4];
        for (int t = 0; t < tokens; t++)
            sum[t] = _mm256_setzero_si256();
        for (; b < end; b++) {
            const __m256i *words = (const void *)(blocks + 32 * b);
            add_columns(_mm256_load_si256(words), x + 32 * b, x_stride, tokens, sum);
            add_columns(_mm256_load_si256(words + 1), x + 32 * b + 16, x_stride, tokens, sum);
        }
        for (int t = 0; t < tokens; t++)
            total[t] = _mm256_add_epi32(total[t], _mm256_madd_epi16(sum[t], ones));
    }
    for (int t = 0; t < tokens; t++)
        _mm256_storeu_si256((void *)(out + (size_t)t * out_stride), total[t]);
}

AVX2_INLINE void some_tokens(int32_t *out, size_t out_stride, const uint32_t *blocks,
                             size_t n_block_rows, size_t n_blocks, const int8_t *x, size_t x_stride,
                             const int32_t *x_sum, int tokens)
{
    for (size_t r = 0; r < n_block_rows; r++, blocks += 32 * n_blocks) {
        eight_rows(out + 16 * r, out_stride, blocks, n_blocks, x, x_stride, x_sum, tokens);
        eight_rows(out + 16 * r + 8, out_stride, blocks + 16, n_blocks, x, x_stride, x_sum, tokens);
    }
}

// Four tokens at a time, so that each word is decoded once for them; the number must be a constant
// for the sums to stay in registers.
AVX2 static void ternary(int32_t *out, size_t out_stride, const uint32_t *blocks,
                         size_t n_block_rows, size_t n_blocks, const int8_t *x, size_t x_stride,
                         const int32_t *x_sum, size_t n_tokens)
{
    size_t t = 0;
    for (; t + 4 <= n_tokens; t += 4)
        some_tokens(out + t * out_stride, out_stride, blocks, n_block_rows, n_blocks,
                    x + t * x_stride, x_stride, x_sum + t, 4);
    for (; t < n_tokens; t++)
        some_tokens(out + t * out_stride, out_stride, blocks, n_block_rows, n_blocks,
                    x + t * x_stride, x_stride, x_sum + t, 1);
}

// Loads n < 8 floats, zero beyond them.
AVX2_INLINE __m256 load_some(const float *p, size_t n)
{
    float padded[8] = {0};
    memcpy(padded, p, n * sizeof padded[0]);
    return _mm256_loadu_ps(padded);
}

AVX2_INLINE __m256 load_upto(const float *p, size_t n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : load_some(p, n);
}

AVX2_INLINE __m128i quantize_eight(__m256 v, __m256 scale)
{
    // The order of the operands decides what NaN becomes.
    v = _mm256_max_ps(_mm256_mul_ps(v, scale), _mm256_set1_ps(-128.0f));
    v = _mm256_min_ps(v, _mm256_set1_ps(127.0f));
    __m256i q = _mm256_cvtps_epi32(v); // rounds half to even
    return _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
}

AVX2_INLINE float max_of_lanes(__m256 v)
{
    float lane[8], max = 0;
    _mm256_storeu_ps(lane, v);
    for (int i = 0; i < 8; i++)
        max = lane[i] > max ? lane[i] : max;
    return max;
}

AVX2 static float quantize(int8_t *out, const float *x, size_t n, size_t padded, int32_t *sum)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 max = _mm256_set1_ps(1e-5f);
    for (size_t i = 0; i < n; i += 8)
        max = _mm256_max_ps(_mm256_and_ps(load_upto(x + i, n - i), magnitude),
                            max); // NaN leaves max as it is
    float scale = 127.0f / max_of_lanes(max);
    const __m256 scales = _mm256_set1_ps(scale);
    __m128i total = _mm_setzero_si128();
    for (size_t i = 0; i < padded; i += 8) {
        __m256 v = i < n ? load_upto(x + i, n - i) : _mm256_setzero_ps();
        __m128i q = quantize_eight(v, scales);
        total = _mm_add_epi32(total, _mm_madd_epi16(q, _mm_set1_epi16(1)));
        _mm_storel_epi64((void *)(out + i), _mm_packs_epi16(q, q));
    }
    int32_t lane[4];
    _mm_storeu_si128((void *)lane, total);
    *sum = lane[0] + lane[1] + lane[2] + lane[3];
    return scale;
}

// Accumulators 0–7 and 8–15 of the definition in kernels.h.
AVX2_INLINE float reduce(__m256 low, __m256 high)
{
    __m256 v = _mm256_add_ps(low, high);
    __m128 w = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    w = _mm_add_ps(w, _mm_movehl_ps(w, w));
    return _mm_cvtss_f32(_mm_add_ss(w, _mm_movehdup_ps(w)));
}

AVX2_INLINE __m256 add_product(__m256 sum, __m256 a, __m256 b)
{
    return _mm256_add_ps(sum, _mm256_mul_ps(a, b));
}

AVX2 static float dot(const float *a, const float *b, size_t n)
{
    __m256 low = _mm256_setzero_ps(), high = low;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        low = add_product(low, _mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i));
        high = add_product(high, _mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8));
    }
    if (i < n) {
        float x[16] = {0}, y[16] = {0};
        memcpy(x, a + i, (n - i) * sizeof x[0]);
        memcpy(y, b + i, (n - i) * sizeof y[0]);
        low = add_product(low, _mm256_loadu_ps(x), _mm256_loadu_ps(y));
        high = add_product(high, _mm256_loadu_ps(x + 8), _mm256_loadu_ps(y + 8));
    }
    return reduce(low, high);
}

AVX2_INLINE __m256 load_bf16(const uint16_t *p)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}

AVX2 static float dot_bf16(const uint16_t *a, const float *b, size_t n)
{
    __m256 low = _mm256_setzero_ps(), high = low;
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        low = add_product(low, load_bf16(a + i), _mm256_loadu_ps(b + i));
        high = add_product(high, load_bf16(a + i + 8), _mm256_loadu_ps(b + i + 8));
    }
    if (i < n) {
        uint16_t x[16] = {0};
        float y[16] = {0};
        memcpy(x, a + i, (n - i) * sizeof x[0]);
        memcpy(y, b + i, (n - i) * sizeof y[0]);
        low = add_product(low, load_bf16(x), _mm256_loadu_ps(y));
        high = add_product(high, load_bf16(x + 8), _mm256_loadu_ps(y + 8));
    }
    return reduce(low, high);
}

AVX2 static void add_scaled(float *y, const float *x, float a, size_t n)
{
    const __m256 factor = _mm256_set1_ps(a);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i,
                         add_product(_mm256_loadu_ps(y + i), factor, _mm256_loadu_ps(x + i)));
    for (; i < n; i++)
        y[i] += a * x[i];
}

const struct bnt_kernels bnt_kernels_avx2 = {
    .name = "avx2",
    .ternary = ternary,
    .quantize = quantize,
    .dot = dot,
    .dot_bf16 = dot_bf16,
    .add_scaled = add_scaled,
};

#else
// ISO C forbids an empty translation unit.
typedef int bnt_no_avx2;
#endif
