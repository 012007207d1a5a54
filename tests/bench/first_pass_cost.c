// SPDX-License-Identifier: MIT
//
// bench-first-pass-cost: what a 4-bit pass costs in time beside the int8 pass of the kernels in
// use, with rows in the cache (what the instructions cost) and in memory (what the bytes cost). One
// thread, or each of several over rows of its own.
//
// Of each 128 columns the first 64 lie in the low halves of 64 bytes, the others in the high ones.
// Codes are 0 … 15. Activations of 16 bits are split, X = 256·H + L with L in −128 … 127, so that
// vpdpbusd can take both parts: per 128 weights one load of codes, three operations to unpack them,
// and four vpdpbusd, against four loads with conversion and four vpdpwssd for int8. The pass with
// levels of a table has two vpshufb more.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "formats/cli.h"
#include "runtime/kernels/kernels.h"
#include "runtime/engine/pool.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define KERNEL                                                                                     \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"), noinline)) static

enum { COLUMNS = 2560, STEP = 128 };

struct activations {
    int16_t whole[COLUMNS];
    int8_t high[COLUMNS], low[COLUMNS];
};

KERNEL void nibble_rows(int64_t *out, const uint8_t *rows, size_t n_rows,
                        const struct activations *x)
{
    const __m512i mask = _mm512_set1_epi8(15);
    for (size_t r = 0; r < n_rows; r++, rows += COLUMNS / 2) {
        __m512i high = _mm512_setzero_si512(), low = high, high2 = high, low2 = high;
        for (size_t k = 0; k < COLUMNS; k += STEP) {
            __m512i codes = _mm512_loadu_si512(rows + k / 2);
            __m512i first = _mm512_and_si512(codes, mask);
            __m512i second = _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask);
            high = _mm512_dpbusd_epi32(high, first, _mm512_loadu_si512(x->high + k));
            low = _mm512_dpbusd_epi32(low, first, _mm512_loadu_si512(x->low + k));
            high2 = _mm512_dpbusd_epi32(high2, second, _mm512_loadu_si512(x->high + k + 64));
            low2 = _mm512_dpbusd_epi32(low2, second, _mm512_loadu_si512(x->low + k + 64));
        }
        out[r] = 256 * (int64_t)_mm512_reduce_add_epi32(_mm512_add_epi32(high, high2)) +
                 _mm512_reduce_add_epi32(_mm512_add_epi32(low, low2));
    }
}

KERNEL void level_rows(int64_t *out, const uint8_t *rows, size_t n_rows,
                       const struct activations *x, const uint8_t *levels)
{
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)levels));
    for (size_t r = 0; r < n_rows; r++, rows += COLUMNS / 2) {
        __m512i high = _mm512_setzero_si512(), low = high, high2 = high, low2 = high;
        for (size_t k = 0; k < COLUMNS; k += STEP) {
            __m512i codes = _mm512_loadu_si512(rows + k / 2);
            __m512i first = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, mask));
            __m512i second =
                _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask));
            high = _mm512_dpbusd_epi32(high, first, _mm512_loadu_si512(x->high + k));
            low = _mm512_dpbusd_epi32(low, first, _mm512_loadu_si512(x->low + k));
            high2 = _mm512_dpbusd_epi32(high2, second, _mm512_loadu_si512(x->high + k + 64));
            low2 = _mm512_dpbusd_epi32(low2, second, _mm512_loadu_si512(x->low + k + 64));
        }
        out[r] = 256 * (int64_t)_mm512_reduce_add_epi32(_mm512_add_epi32(high, high2)) +
                 _mm512_reduce_add_epi32(_mm512_add_epi32(low, low2));
    }
}

// --- timing ---

enum pass { INT8, NIBBLES, LEVELS, PASSES };

static const char *const pass_names[] = {"int8", "4-bit", "4-bit, levels of a table"};

struct job {
    enum pass pass;
    const uint8_t *data;
    size_t rows, repeats; // of each thread
    const struct activations *x;
    uint8_t levels[16];
    int64_t sums[BNT_MAX_PARTS]; // so that nothing is left out
};

static size_t row_bytes(enum pass pass)
{
    return pass == INT8 ? COLUMNS : COLUMNS / 2;
}

static void work(void *context, unsigned part, unsigned parts)
{
    enum { ROWS_AT_ONCE = 64 };
    struct job *job = context;
    const uint8_t *data = job->data + part * job->rows * row_bytes(job->pass);
    int64_t out[ROWS_AT_ONCE], sum = 0;
    (void)parts;
    for (size_t i = 0; i < job->repeats; i++) {
        for (size_t r = 0; r < job->rows; r += ROWS_AT_ONCE) {
            const uint8_t *rows = data + r * row_bytes(job->pass);
            if (job->pass == INT8)
                bnt_kernels_avx512.int8_rows(out, (const int8_t *)rows, ROWS_AT_ONCE, COLUMNS,
                                             job->x->whole);
            else if (job->pass == NIBBLES)
                nibble_rows(out, rows, ROWS_AT_ONCE, job->x);
            else
                level_rows(out, rows, ROWS_AT_ONCE, job->x, job->levels);
            sum += out[r / ROWS_AT_ONCE % ROWS_AT_ONCE];
        }
    }
    job->sums[part] = sum;
}

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// The least nanoseconds a row of several runs: what else the machine does only adds.
static double time_row(struct bnt_pool *pool, struct job *job)
{
    double least = 1e9;
    for (int round = 0; round < 9; round++) {
        double start = seconds();
        bnt_pool_run(pool, work, job);
        double time = seconds() - start;
        least = time < least ? time : least;
    }
    return least * 1e9 / (double)(job->rows * job->repeats * bnt_pool_threads(pool));
}

// The sum that a row of codes should have.
static int64_t plain(const struct job *job, const uint8_t *row)
{
    int64_t sum = 0;
    for (size_t k = 0; k < COLUMNS; k++) {
        uint8_t byte = row[k / STEP * 64 + k % 64];
        uint8_t code = k % STEP < 64 ? byte & 15 : byte >> 4;
        sum += (job->pass == LEVELS ? job->levels[code] : code) * job->x->whole[k];
    }
    return sum;
}

static bool same(struct job *job)
{
    int64_t out;
    if (job->pass == NIBBLES)
        nibble_rows(&out, job->data, 1, job->x);
    else
        level_rows(&out, job->data, 1, job->x, job->levels);
    return out == plain(job, job->data);
}

static void fill(uint8_t *data, size_t size, struct activations *x)
{
    uint64_t state = 1;
    for (size_t i = 0; i < size; i++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407;
        data[i] = (uint8_t)(state >> 56);
    }
    for (size_t k = 0; k < COLUMNS; k++) { // up to 32512, so that the high part fits
        int v = (int)(k * 40503 % 65025) - 32512;
        int low = (int)(int8_t)(v & 255);
        x->whole[k] = (int16_t)v;
        x->low[k] = (int8_t)low;
        x->high[k] = (int8_t)((v - low) / 256);
    }
}

static int measure(unsigned threads)
{
    enum { CACHED = 128, STORED = 65536 };
    struct bnt_pool *pool = bnt_pool_open(threads);
    const size_t size = (size_t)threads * STORED * COLUMNS;
    uint8_t *data = malloc(size);
    struct activations *x = malloc(sizeof *x);
    struct job job = {.x = x, .data = data};
    if (!pool || !data || !x)
        return bnt_cli_fail(&(struct bnt_error){BNT_ERR_MEMORY, "out of memory"});
    fill(data, size, x);
    for (size_t i = 0; i < sizeof job.levels; i++)
        job.levels[i] = (uint8_t)(i * 17);
    (void)printf("%u threads, rows of %d\n\n| pass | in cache: ns a row | GB/s | from memory: ns a "
                 "row | GB/s |\n|---|---|---|---|---|\n",
                 threads, COLUMNS);
    for (enum pass pass = INT8; pass < PASSES; pass++) {
        double time[2];
        job.pass = pass;
        if (pass != INT8 && !same(&job))
            return bnt_cli_fail(&(struct bnt_error){BNT_ERR_ARGUMENT, "the 4-bit pass is wrong"});
        for (int i = 0; i < 2; i++) {
            job.rows = i ? STORED : CACHED;
            job.repeats = i ? 1 : 100;
            time[i] = time_row(pool, &job);
        }
        double bytes = (double)row_bytes(pass);
        (void)printf("| %s | %.1f | %.1f | %.1f | %.1f |\n", pass_names[pass], time[0],
                     bytes / time[0], time[1], bytes / time[1]);
    }
    free(data);
    free(x);
    bnt_pool_close(pool);
    return bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

#endif

int main(int argc, char **argv)
{
    uint64_t threads = 2;
    bnt_cli_init("bench-first-pass-cost");
    if (argc > 2 || (argc == 2 && !bnt_cli_u64(argv[1], 1, 16, &threads)))
        return bnt_cli_usage("usage: bench-first-pass-cost [THREADS], 1 to 16");
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return measure((unsigned)threads);
#endif
    return bnt_cli_fail(&(struct bnt_error){BNT_ERR_UNSUPPORTED, "this processor has no AVX-512"});
}
