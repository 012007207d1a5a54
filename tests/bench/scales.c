// SPDX-License-Identifier: MIT
// Where the scales by row and group lie best: in a stream of their own (bnt.md section 5.1), or
// beside the blocks, behind each block row. Both give the same products; each layout is read from
// memory that no cache holds, one token at a time, by one thread. scales.md has the results.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "formats/layout.h"
#include "runtime/kernels/kernels.h"

enum {
    COLS = 4096,
    N_BLOCKS = COLS / BNT_BLOCK_COLS,
    BLOCK_ROWS = 4096,
    ROUNDS = 9,
    STRIDE = COLS + 64
};

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

struct layout {
    const char *name;
    size_t block_step, scale_step; // bytes from one block row, and its scales, to the next
    uint8_t *blocks, *scales;
};

static void *filled(size_t size)
{
    uint8_t *p = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    if (!p)
        exit(1);
    memset(p, 0xA6, size); // codes 2, 1, 2, 2: no matter which
    return p;
}

// Seconds for the whole matrix, the best of some rounds.
static double read_all(const struct bnt_kernels *k, const struct layout *l, size_t group, bool wide,
                       const int8_t *x, const int32_t *x_sum, float *out)
{
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now();
        for (size_t r = 0; r < BLOCK_ROWS; r++) {
            const struct bnt_scales scales = {.values = l->scales + r * l->scale_step,
                                              .halves = true,
                                              .n_groups = COLS / group,
                                              .group_blocks = group / BNT_BLOCK_COLS};
            k->ternary_groups(out, 16,
                              (const uint32_t *)(const void *)(l->blocks + r * l->block_step), 1,
                              N_BLOCKS, &scales, x, STRIDE, x_sum, 1, wide);
        }
        double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static void compare(const struct bnt_kernels *k, size_t group, const int8_t *x,
                    const int32_t *x_sum)
{
    const size_t row = N_BLOCKS * BNT_BLOCK_BYTES, scales = COLS / group * 16 * 2;
    struct layout apart = {"", row, scales, filled(row * BLOCK_ROWS), filled(scales * BLOCK_ROWS)};
    struct layout beside = {"", row + scales, row + scales, filled((row + scales) * BLOCK_ROWS),
                            NULL};
    beside.scales = beside.blocks + row;
    float out[16];
    for (int wide = 0; wide < 2; wide++) {
        double gigabytes = (double)(row + scales) * BLOCK_ROWS * 1e-9;
        double a = read_all(k, &apart, group, wide, x, x_sum, out);
        double b = read_all(k, &beside, group, wide, x, x_sum, out);
        printf("| %s | %zu | %d | %.1f | %.1f | %.2f |\n", k->name, group, wide ? 16 : 8,
               gigabytes / a, gigabytes / b, a / b);
    }
    free(apart.blocks);
    free(apart.scales);
    free(beside.blocks);
}

int main(void)
{
    static const size_t groups[] = {32, 128};
    int8_t *x = filled(2 * STRIDE);
    int32_t *x_sum = filled(2 * N_BLOCKS * sizeof *x_sum);
    const struct bnt_kernels *k;
    printf("| kernel | group | activation bits | a stream of their own, GB/s | beside the blocks, "
           "GB/s | ratio |\n"
           "|---|---|---|---|---|---|\n");
    for (size_t i = 0; (k = bnt_kernels_get(i)) != NULL && bnt_kernels_get(i + 1); i++) {
        for (size_t j = 0; j < sizeof groups / sizeof groups[0]; j++)
            compare(k, groups[j], x, x_sum);
    }
    free(x);
    free(x_sum);
    return 0;
}
