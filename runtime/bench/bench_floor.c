// SPDX-License-Identifier: MIT
// What the processor and its memory can do at most: the yardsticks of bnt-bench, measured in the
// same run.
#define _GNU_SOURCE
#include <string.h>

#include "runtime/bench/bench.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// --- reading ---

struct read_job {
    const char *bytes;
    struct bnt_share lines; // of CHUNK bytes
};

enum { CHUNK = 4096 };

typedef uint64_t word8 __attribute__((vector_size(64), aligned(8), may_alias));

static uint64_t add_lanes(const word8 *v)
{
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += (*v)[i];
    return sum;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t sum_avx512(const char *p, size_t size)
{
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < size; i += 64)
        sum = _mm512_add_epi64(sum, _mm512_loadu_si512(p + i));
    word8 lanes = (word8)sum;
    return add_lanes(&lanes);
}
#endif

static uint64_t sum_plain(const char *p, size_t size)
{
    word8 sum = {0};
    for (size_t i = 0; i < size; i += 64)
        sum += *(const word8 *)(const void *)(p + i);
    return add_lanes(&sum);
}

static uint64_t sum_bytes(const char *p, size_t size)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return sum_avx512(p, size);
#endif
    return sum_plain(p, size);
}

static void part_of_read(void *context, unsigned part, unsigned parts)
{
    struct read_job *job = context;
    size_t from, to;
    for (bool more = bnt_share_first(&job->lines, part, parts, &from, &to); more;
         more = bnt_share_take(&job->lines, parts, &from, &to)) {
        uint64_t sum = sum_bytes(job->bytes + from * CHUNK, (to - from) * CHUNK);
        __asm__ volatile("" : : "r"(sum)); // it is used, as far as the compiler knows
    }
}

double bench_read(struct bnt_pool *pool, const void *bytes, size_t size)
{
    struct read_job job = {.bytes = bytes};
    const size_t chunks = size / CHUNK;
    double start = bench_now();
    bnt_share_init(&job.lines, pool, chunks, 32);
    bnt_pool_run(pool, part_of_read, &job);
    return (double)chunks * CHUNK / (bench_now() - start) * 1e-9;
}

// --- int8 multiply-adds ---

// Each runs `rounds` times SUMS independent multiply-adds of its width. A barrier keeps the
// compiler from knowing the operands.
enum { SUMS = 12 };
#define PEAK_LOOP(type, width, start, multiply_add)                                                \
    type sum[SUMS], a = (start), b = (start);                                                      \
    for (int i = 0; i < SUMS; i++)                                                                 \
        sum[i] = (start);                                                                          \
    for (size_t r = 0; r < rounds; r++) {                                                          \
        __asm__ volatile("" : KEEP(a), KEEP(b));                                                   \
        for (int i = 0; i < SUMS; i++)                                                             \
            sum[i] = (multiply_add);                                                               \
    }                                                                                              \
    for (int i = 0; i < SUMS; i++)                                                                 \
        __asm__ volatile("" : KEEP(sum[i]));                                                       \
    return (double)rounds * SUMS * (width)*2

#if defined(__x86_64__)
#define KEEP(v) "+v"(v)
__attribute__((target("avx512f,avx512vnni"))) static double peak_avx512(size_t rounds)
{
    PEAK_LOOP(__m512i, 64, _mm512_set1_epi8(1), _mm512_dpbusd_epi32(sum[i], a, b));
}
#undef KEEP
#define KEEP(v) "+x"(v)
__attribute__((target("avx2,avxvnni"))) static double peak_avx_vnni(size_t rounds)
{
    PEAK_LOOP(__m256i, 32, _mm256_set1_epi8(1), _mm256_dpbusd_avx_epi32(sum[i], a, b));
}
// Two instructions: multiply pairs, add them.
__attribute__((target("avx2"))) static double peak_avx2(size_t rounds)
{
    PEAK_LOOP(__m256i, 32, _mm256_set1_epi8(1),
              _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(a, b)));
}
#elif defined(__aarch64__)
#define KEEP(v) "+w"(v)
__attribute__((target("arch=armv8.2-a+dotprod"))) static double peak_neon_dot(size_t rounds)
{
    PEAK_LOOP(int32x4_t, 16, vdupq_n_s32(1),
              vdotq_s32(sum[i], vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
}
static double peak_neon(size_t rounds)
{
    PEAK_LOOP(int16x8_t, 8, vdupq_n_s16(1),
              vmlal_s8(sum[i], vreinterpret_s8_s16(vget_low_s16(a)),
                       vreinterpret_s8_s16(vget_low_s16(b))));
}
#endif

static const struct {
    const char *kernel;
    double (*run)(size_t rounds);
} peaks[] = {
#if defined(__x86_64__)
    {"avx512-vnni", peak_avx512},
    {"avx-vnni", peak_avx_vnni},
    {"avx2", peak_avx2},
#elif defined(__aarch64__)
    {"neon-dot", peak_neon_dot},
    {"neon", peak_neon},
#endif
    {"", NULL},
};

struct peak_job {
    double (*run)(size_t rounds);
    size_t rounds;
    double operations[BNT_MAX_PARTS];
};

static void part_of_peak(void *context, unsigned part, unsigned parts)
{
    struct peak_job *job = context;
    (void)parts;
    job->operations[part] = job->run(job->rounds);
}

double bench_int8(struct bnt_pool *pool, const char *kernel)
{
    struct peak_job job = {.rounds = 4000000}; // some 20 ms
    double sum = 0;
    for (size_t i = 0; peaks[i].run; i++) {
        if (strcmp(peaks[i].kernel, kernel) == 0)
            job.run = peaks[i].run;
    }
    if (!job.run)
        return 0;
    double start = bench_now();
    bnt_pool_run(pool, part_of_peak, &job);
    double seconds = bench_now() - start;
    for (unsigned i = 0; i < bnt_pool_threads(pool); i++)
        sum += job.operations[i];
    return sum / seconds * 1e-9;
}
