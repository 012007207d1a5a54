// SPDX-License-Identifier: MIT
//
// bench-first-pass: how few bits a weight can a first pass over the output matrix have, and still
// leave few rows in the race? For every position of a text it counts the rows that proven bounds
// leave, and the bytes that a token would then read. tests/bench/first_pass.md has the results.
//
// Row w of the matrix, its code ŵ, the residual r = w − ŵ, the activations x and their 16-bit form
// X with step s:
//
//   logit = lanes(w·x), score = ŵ·sX, |logit − score| <= B + slack
//   B >= |r·x|, one of
//     L1              c·Σ|x|, c >= max|r|
//     Cauchy-Schwarz  |r|·|x|
//     box and ball    the greatest r·x of all r with that maximum and that norm. It has r = c where
//                     |x| is large and r proportional to x elsewhere, so it is never above those
//     groups          Σ |r_g|·|x_g|
//     limit           |w|·|x|·2^-bits, no bound but what no code can beat for rows of normally
//                     distributed weights, long ones, and x of any direction: 2^(bits·n) cells
//                     hold nearly all such rows, so the typical cell has at least the volume of a
//                     ball of radius |w|·2^-bits; and on average over directions no set is
//                     narrower than the ball of its volume (Urysohn)
//   slack           rounding of lanes (as in runtime/engine/shortlist.c), of x to X, of w into the
//                     space that is coded. The program's own float sum stands for ŵ·sX; its
//                     rounding is in there too
//
// Who remains, by one of two rules:
//
//   bounds          score + bound >= the k-th greatest score − bound, as in
//                     runtime/engine/shortlist.c
//   leaders         score + bound >= the k-th greatest logit of the k + 8 rows of best score, which
//                     are computed first. The k-th greatest of all is no less
//
// Every bound but the limit is checked against the logit of every row at every position.
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "formats/bytes.h"
#include "formats/cli.h"
#include "formats/file.h"
#include "formats/int8_rows.h"
#include "runtime/engine/session.h"

static const char help[] =
    "Usage: bench-first-pass [OPTION]... FILE.bnt [TEXT]\n"
    "Count the rows of the output matrix that a coarse first pass leaves in the race, for every\n"
    "position of TEXT, or of tokens without meaning.\n"
    "\n"
    "  -n, --positions=N   stop after N positions (default: 64; all of TEXT)\n"
    "  -c, --cosine=C      turn each position's activations towards a row, another for each, "
    "until\n"
    "                      the cosine is C\n"
    "      --help          print this help\n";

enum { WINDOW = 256, EXTRA_LEADERS = 8, ROWS_AT_ONCE = 16, MAX_TEXT = 64 << 20 };
enum { MAX_LEVELS = 64, BINS = 4096 };

static const size_t list_sizes[] = {1, 40};
enum { SIZES = 2, MAX_K = 40, MAX_LEADERS = MAX_K + EXTRA_LEADERS };

// --- codes ---

// What is coded instead of w and multiplied with something else instead of x. The average row only
// adds the same to all logits; what remains may be scaled column by column, as long as x is scaled
// by the inverse. Columns where activations are large then get a smaller residual. The scales are
// taken from the first quarter of the positions, which are not counted.
enum space { PLAIN, CENTRED, SCALED };

enum kind {
    INT8,    // as bnt_int8_row has it
    FULL,    // uniform, scale = max / (2^(bits − 1) − 1)
    UNIFORM, // uniform, the scale of least residual
    FITTED,  // 2^bits levels that suit the matrix, the scale of least residual
    NIBBLE   // the high 4 bits of 8
};

enum bound { L1, CAUCHY, BOX_BALL, GROUPS, LIMIT };

static const char *const bound_names[] = {"L1", "Cauchy-Schwarz", "box and ball", "groups",
                                          "limit"};

struct code {
    const char *name;
    enum kind kind;
    unsigned bits;
    size_t group; // columns that share a scale; 0: all
    enum space space;
    unsigned bounds; // bits of enum bound
};

#define BIT(bound) (1u << (bound))

static const struct code codes[] = {
    {"int8", INT8, 8, 0, PLAIN, BIT(L1) | BIT(CAUCHY) | BIT(BOX_BALL)},
    {"4-bit, scale max/7", FULL, 4, 0, PLAIN, BIT(L1) | BIT(CAUCHY) | BIT(BOX_BALL)},
    {"4-bit, best scale", UNIFORM, 4, 0, PLAIN, BIT(CAUCHY)},
    {"4-bit, 16 fitted levels", FITTED, 4, 0, PLAIN, BIT(CAUCHY) | BIT(LIMIT)},
    {"the same, rows centred", FITTED, 4, 0, CENTRED, BIT(CAUCHY)},
    {"the same, columns scaled", FITTED, 4, 0, SCALED, BIT(CAUCHY)},
    {"4-bit, scale per 128", UNIFORM, 4, 128, PLAIN, BIT(CAUCHY) | BIT(GROUPS)},
    {"4-bit, scale per 32", UNIFORM, 4, 32, PLAIN, BIT(CAUCHY) | BIT(GROUPS)},
    {"high half of int8", NIBBLE, 4, 0, PLAIN, BIT(CAUCHY) | BIT(BOX_BALL)},
    {"high half of int8 per 32", NIBBLE, 4, 32, PLAIN, BIT(CAUCHY)},
    {"5-bit, 32 fitted levels", FITTED, 5, 0, PLAIN, BIT(CAUCHY) | BIT(LIMIT)},
    {"6-bit, 64 fitted levels", FITTED, 6, 0, PLAIN, BIT(CAUCHY) | BIT(LIMIT)},
};

enum { CODES = sizeof codes / sizeof codes[0], BOUNDS = LIMIT + 1 };

// --- everything ---

struct counts {
    uint32_t *by_bounds, *by_leaders, *refined; // (positions)
};

struct bench {
    struct bnt_model *model;
    struct bnt_session *session;
    size_t n, vocab, positions, calibration;
    double cosine;        // of --cosine; 0: leave activations alone
    float *x;             // (positions, n)
    float *logits;        // (positions, vocab)
    float *scores;        // (positions, vocab) of the code at hand
    float *int8_bounded;  // (positions, vocab) upper bounds by way of int8
    uint32_t *shortlists; // (SIZES, positions) what the runtime's own list holds; 0: no int8 copy
    double *row_norm;     // (vocab) |w|
    double mean_winner;   // cosine of x and the likeliest row
    double mean_short;    // share of rows whose norm alone rules them out

    // Spaces.
    float *mean;   // (n) the average row
    float *scale;  // (n) of the space at hand
    float *x_code; // (positions, n) x in it
    double *shift; // (positions) what centring took away

    // The code at hand.
    float *row;           // (n) w in the space
    float table[BINS];    // the level for each cell of [−8, 8), see fit_levels
    double *norm, *peak;  // (vocab) |r|, max|r|
    double *size;         // (vocab) |w| + |r| in the space
    float *group_norm;    // (vocab, groups)
    size_t groups;        // of the norms
    double mean_residual; // |r| / |w| in the space

    struct counts counts[CODES][BOUNDS][SIZES];
    uint64_t violations;
};

static void *allocate(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (!p) {
        (void)bnt_cli_fail(&(struct bnt_error){BNT_ERR_MEMORY, "out of memory"});
        exit(BNT_EXIT_FAILED);
    }
    return p;
}

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// In lanes, so that compilers make vectors of it.
enum { LANES = 8 };

static double add_up(const double *lane)
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static double dot(const float *a, const float *b, size_t n)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)a[i + j] * (double)b[i + j];
    }
    for (; i < n; i++)
        lane[0] += (double)a[i] * (double)b[i];
    return add_up(lane);
}

static double distance2(const float *a, const float *b, size_t n)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            double d = (double)a[i + j] - (double)b[i + j];
            lane[j] += d * d;
        }
    }
    for (; i < n; i++)
        lane[0] += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return add_up(lane);
}

static void load_row(const struct bench *b, size_t r, float *out)
{
    const size_t at = r * b->n;
    if (b->model->wide) {
        memcpy(out, (const float *)b->model->output + at, b->n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < b->n; i++)
        out[i] = bnt_float_from_bf16(((const uint16_t *)b->model->output)[at + i]);
}

// --- spaces ---

static void find_mean(struct bench *b)
{
    double *sum = allocate(b->n, sizeof *sum);
    for (size_t r = 0; r < b->vocab; r++) {
        load_row(b, r, b->row);
        b->row_norm[r] = sqrt(dot(b->row, b->row, b->n));
        for (size_t i = 0; i < b->n; i++)
            sum[i] += (double)b->row[i];
    }
    for (size_t i = 0; i < b->n; i++)
        b->mean[i] = (float)(sum[i] / (double)b->vocab);
    free(sum);
}

static void row_in_space(const struct bench *b, enum space space, size_t r, float *out)
{
    load_row(b, r, out);
    for (size_t i = 0; i < b->n && space >= CENTRED; i++)
        out[i] = (out[i] - b->mean[i]) * b->scale[i];
}

// With residuals in proportion to rows, |r|·|x| is least when a column's scale is the root of x
// over w there.
static void find_scale(struct bench *b)
{
    double *w2 = allocate(b->n, sizeof *w2), *x2 = allocate(b->n, sizeof *x2);
    for (size_t r = 0; r < b->vocab; r++) {
        row_in_space(b, CENTRED, r, b->row);
        for (size_t i = 0; i < b->n; i++)
            w2[i] += (double)b->row[i] * (double)b->row[i];
    }
    for (size_t t = 0; t < b->calibration; t++) {
        for (size_t i = 0; i < b->n; i++)
            x2[i] += (double)b->x_code[t * b->n + i] * (double)b->x_code[t * b->n + i];
    }
    for (size_t i = 0; i < b->n; i++)
        b->scale[i] = (float)sqrt(
            sqrt((x2[i] / (double)b->calibration + 1e-12) / (w2[i] / (double)b->vocab + 1e-12)));
    free(w2);
    free(x2);
}

static void enter_space(struct bench *b, enum space space)
{
    const size_t n = b->n;
    memcpy(b->x_code, b->x, b->positions * n * sizeof *b->x);
    for (size_t i = 0; i < n; i++)
        b->scale[i] = 1;
    for (size_t t = 0; t < b->positions; t++) {
        b->shift[t] = space >= CENTRED ? dot(b->x + t * n, b->mean, n) : 0;
    }
    if (space >= SCALED)
        find_scale(b);
    for (size_t t = 0; t < b->positions; t++) {
        for (size_t i = 0; i < n; i++)
            b->x_code[t * n + i] /= b->scale[i];
    }
}

// --- coding a row: out becomes ŵ ---

static float max_of(const float *w, size_t n)
{
    float max = 0x1p-100f;
    for (size_t i = 0; i < n; i++)
        max = fabsf(w[i]) > max ? fabsf(w[i]) : max;
    return max;
}

// v rounded to a whole number, |v| < 2^22: what rintf does, in two additions.
static float whole(float v)
{
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

static void uniform(const float *w, size_t n, float scale, unsigned bits, float *out)
{
    const float least = -(float)(1 << (bits - 1)), most = -least - 1, inverse = 1 / scale;
    for (size_t i = 0; i < n; i++) {
        float q = whole(w[i] * inverse);
        q = q > most ? most : q;
        out[i] = scale * (q < least ? least : q);
    }
}

static void best_uniform(const float *w, size_t n, unsigned bits, float *out)
{
    const float full = max_of(w, n) / (float)((1 << (bits - 1)) - 1);
    float best = full;
    double least = INFINITY;
    for (int i = 10; i <= 20; i++) {
        float scale = full * (float)i / 20.0f;
        uniform(w, n, scale, bits, out);
        double residual = distance2(w, out, n);
        if (residual < least) {
            least = residual;
            best = scale;
        }
    }
    uniform(w, n, best, bits, out);
}

// The level nearest to the middle of v's cell: as good as the nearest to v but for a hair, and any
// level will do for a bound.
static float nearest(const float *table, float v)
{
    float at = (v + 8) * (BINS / 16);
    at = at < 0 ? 0 : at > BINS - 1 ? BINS - 1 : at;
    return table[(size_t)at];
}

// The scale of least squares, given the levels that the row has taken, twice.
static void fitted(const float *table, const float *w, size_t n, float *out)
{
    float scale = (float)sqrt(dot(w, w, n) / (double)n) + 0x1p-100f;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < n; i++)
            out[i] = nearest(table, w[i] / scale);
        double square = dot(out, out, n);
        if (square > 0)
            scale = (float)fmax(dot(w, out, n) / square, 0x1p-100);
    }
    for (size_t i = 0; i < n; i++)
        out[i] *= scale;
}

static void high_nibble(const float *w, size_t n, float *out)
{
    const float scale = max_of(w, n) / 127;
    for (size_t i = 0; i < n; i++) {
        int q = (int)whole(w[i] / scale) + 128;
        out[i] = scale * ((float)(q / 16 * 16 - 128) + 7.5f);
    }
}

static void int8(const struct bench *b, size_t r, float *out)
{
    const size_t width = b->model->wide ? 4 : 2;
    int8_t *q = allocate(b->n, 1);
    float scale =
        bnt_int8_row(b->model->wide ? BNT_F32 : BNT_BF16,
                     (const uint8_t *)b->model->output + r * b->n * width, (uint32_t)b->n, q);
    for (size_t i = 0; i < b->n; i++)
        out[i] = scale * (float)q[i];
    free(q);
}

static void encode(const struct bench *b, const struct code *c, size_t r, const float *w,
                   float *out)
{
    const size_t group = c->group ? c->group : b->n;
    if (c->kind == INT8) {
        int8(b, r, out);
        return;
    }
    for (size_t i = 0; i < b->n; i += group) {
        size_t n = b->n - i < group ? b->n - i : group;
        if (c->kind == FULL)
            uniform(w + i, n, max_of(w + i, n) / (float)((1 << (c->bits - 1)) - 1), c->bits,
                    out + i);
        else if (c->kind == UNIFORM)
            best_uniform(w + i, n, c->bits, out + i);
        else if (c->kind == FITTED)
            fitted(b->table, w + i, n, out + i);
        else
            high_nibble(w + i, n, out + i);
    }
}

// Lloyd's method on the values of some rows, each over its root mean square.
static void fit_levels(struct bench *b, const struct code *c)
{
    const size_t levels = (size_t)1 << c->bits;
    double *bin = allocate(BINS, sizeof *bin), level[MAX_LEVELS];
    for (size_t r = 0; r < b->vocab; r += b->vocab / 512 + 1) {
        row_in_space(b, c->space, r, b->row);
        double rms = sqrt(dot(b->row, b->row, b->n) / (double)b->n) + 1e-30;
        for (size_t i = 0; i < b->n; i++) {
            double at = ((double)b->row[i] / rms + 8) / 16 * BINS;
            bin[at < 0 ? 0 : at >= BINS ? BINS - 1 : (size_t)at]++;
        }
    }
    for (size_t i = 0; i < levels; i++)
        level[i] = -3 + 6 * ((double)i + 0.5) / (double)levels;
    for (int round = 0; round < 500; round++) {
        double sum[MAX_LEVELS] = {0}, weight[MAX_LEVELS] = {0};
        for (size_t i = 0, at = 0; i < BINS; i++) {
            double v = ((double)i + 0.5) / BINS * 16 - 8;
            while (at + 1 < levels && v > (level[at] + level[at + 1]) / 2)
                at++;
            sum[at] += bin[i] * v;
            weight[at] += bin[i];
            b->table[i] = (float)level[at];
        }
        for (size_t i = 0; i < levels; i++)
            level[i] = weight[i] > 0 ? sum[i] / weight[i] : level[i];
    }
    free(bin);
}

// What the bounds need of a row.
static void measure_row(struct bench *b, const struct code *c, size_t r, const float *code)
{
    const size_t group = c->group ? c->group : b->n;
    double square = 0, peak = 0;
    for (size_t g = 0; g < b->groups; g++) {
        size_t from = g * group, n = b->n - from < group ? b->n - from : group;
        double part = distance2(b->row + from, code + from, n);
        b->group_norm[r * b->groups + g] = (float)(sqrt(part) * (1 + 0x1p-21));
        square += part;
    }
    for (size_t i = 0; i < b->n; i++) {
        double distance = fabs((double)b->row[i] - (double)code[i]);
        peak = distance > peak ? distance : peak;
    }
    double norm = sqrt(dot(b->row, b->row, b->n));
    b->norm[r] = sqrt(square) * (1 + 0x1p-21);
    b->peak[r] = peak * (1 + 0x1p-21);
    b->size[r] = norm + b->norm[r];
    b->mean_residual += b->norm[r] / (norm + 1e-30) / (double)b->vocab;
}

// Codes all rows and multiplies each block of them with all activations.
static void score_all(struct bench *b, const struct code *c)
{
    const size_t n = b->n;
    float *block = allocate(ROWS_AT_ONCE * n, sizeof *block);
    b->groups = c->group ? (n + c->group - 1) / c->group : 1;
    b->group_norm = allocate(b->vocab * b->groups, sizeof *b->group_norm);
    b->mean_residual = 0;
    enter_space(b, c->space);
    if (c->kind == FITTED)
        fit_levels(b, c);
    for (size_t from = 0; from < b->vocab; from += ROWS_AT_ONCE) {
        size_t count = b->vocab - from < ROWS_AT_ONCE ? b->vocab - from : (size_t)ROWS_AT_ONCE;
        for (size_t i = 0; i < count; i++) {
            row_in_space(b, c->space, from + i, b->row);
            encode(b, c, from + i, b->row, block + i * n);
            measure_row(b, c, from + i, block + i * n);
        }
        for (size_t t = 0; t < b->positions; t++)
            b->model->kernels->rows_f32(b->scores + t * b->vocab + from, block, count, n,
                                        b->x_code + t * n);
    }
    for (size_t t = 0; t < b->positions; t++) {
        for (size_t r = 0; r < b->vocab && b->shift[t] != 0; r++)
            b->scores[t * b->vocab + r] =
                (float)((double)b->scores[t * b->vocab + r] + b->shift[t]);
    }
    free(block);
}

// --- bounds ---

// What the bounds need of a position's activations.
struct probe {
    double sum, norm, plain_norm, shift;
    double gamma;  // of a float sum by lanes
    double step;   // of 16-bit activations
    double *first; // (n + 1) the sum of the i greatest |x|
    double *rest;  // (n + 1) the norm of the others
    double *turns; // (n) |r|² / c² from which on the i greatest |x| and the next meet the box
    double *group; // (groups) norms
};

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void fill_box(const struct bench *b, struct probe *p, const float *x)
{
    const size_t n = b->n;
    float *sorted = allocate(n, sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        sorted[i] = fabsf(x[i]);
    qsort(sorted, n, sizeof *sorted, descending);
    p->first[0] = p->rest[n] = 0;
    for (size_t i = 0; i < n; i++)
        p->first[i + 1] = p->first[i] + (double)sorted[i];
    double square = 0;
    for (size_t i = n; i-- > 0;) {
        square += (double)sorted[i] * (double)sorted[i];
        p->rest[i] = sqrt(square);
        p->turns[i] =
            sorted[i] > 0 ? (double)i + square / ((double)sorted[i] * (double)sorted[i]) : INFINITY;
    }
    free(sorted);
}

static void fill_probe(const struct bench *b, const struct code *c, size_t t, struct probe *p)
{
    const size_t n = b->n, group = c->group ? c->group : n;
    const float *x = b->x_code + t * n;
    double roundings = ((double)((n + BNT_LANES - 1) / BNT_LANES) + 5) * 0x1p-24;
    p->gamma = roundings / (1 - roundings);
    p->plain_norm = sqrt(dot(b->x + t * n, b->x + t * n, n));
    p->norm = sqrt(dot(x, x, n));
    p->shift = fabs(b->shift[t]);
    p->step = (double)max_of(x, n) / 32767;
    p->sum = 0;
    for (size_t i = 0; i < n; i++)
        p->sum += fabs((double)x[i]);
    for (size_t g = 0; g < b->groups; g++) {
        size_t from = g * group, count = n - from < group ? n - from : group;
        p->group[g] = sqrt(dot(x + from, x + from, count));
    }
    if (c->bounds & BIT(BOX_BALL))
        fill_box(b, p, x);
}

static double box_and_ball(const struct probe *p, size_t n, double norm, double peak)
{
    if (peak <= 0)
        return 0;
    double square = norm * norm / (peak * peak);
    size_t low = 0, high = n; // how many of the greatest |x| meet the box
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (p->turns[middle] < square)
            low = middle + 1;
        else
            high = middle;
    }
    return peak * (p->first[low] + sqrt(fmax(square - (double)low, 0)) * p->rest[low]);
}

static double bound_of(const struct bench *b, const struct code *c, enum bound bound, size_t r,
                       const struct probe *p)
{
    const double n = (double)b->n;
    double main = 0;
    if (bound == L1)
        main = b->peak[r] * p->sum;
    else if (bound == CAUCHY)
        main = b->norm[r] * p->norm;
    else if (bound == BOX_BALL)
        main = box_and_ball(p, b->n, b->norm[r], b->peak[r]);
    else if (bound == LIMIT)
        return ldexp(b->row_norm[r] * p->plain_norm, -(int)c->bits);
    for (size_t g = 0; g < b->groups && bound == GROUPS; g++)
        main += (double)b->group_norm[r * b->groups + g] * p->group[g];
    double products = b->row_norm[r] * p->plain_norm + b->size[r] * p->norm;
    double slack = (p->gamma + 0x1p-21) * products + 0x1p-21 * p->shift +
                   b->size[r] * 0.51 * p->step * sqrt(n) + 1e-30;
    return main * (1 + 0x1p-21) + slack;
}

// --- the race at one position ---

struct leader {
    float value;
    uint32_t id;
};

// Keeps the greatest values, sorted.
static void lead(struct leader *list, size_t size, float value, uint32_t id)
{
    size_t at = size;
    if (value <= list[size - 1].value)
        return;
    for (; at > 0 && value > list[at - 1].value; at--) {
        if (at < size)
            list[at] = list[at - 1];
    }
    list[at] = (struct leader){value, id};
}

static void no_leaders(struct leader *list)
{
    for (size_t i = 0; i < MAX_LEADERS; i++)
        list[i] = (struct leader){-INFINITY, 0};
}

// The k-th greatest logit of the rows of best score.
static float exact_threshold(const float *logits, const struct leader *best, size_t k)
{
    struct leader exact[MAX_LEADERS];
    no_leaders(exact);
    for (size_t i = 0; i < k + EXTRA_LEADERS; i++)
        lead(exact, MAX_LEADERS, logits[best[i].id], best[i].id);
    return exact[k - 1].value;
}

static void race(struct bench *b, size_t index, enum bound bound, size_t t, const struct probe *p,
                 float *upper)
{
    const struct code *c = &codes[index];
    const float *logits = b->logits + t * b->vocab, *scores = b->scores + t * b->vocab;
    float *int8_upper = b->int8_bounded + t * b->vocab;
    struct leader best[MAX_LEADERS], lower[MAX_LEADERS];
    no_leaders(best);
    no_leaders(lower);
    for (size_t r = 0; r < b->vocab; r++) {
        // The limit belongs to no code: the logit itself is its score.
        double score = (double)(bound == LIMIT ? logits[r] : scores[r]);
        double width = bound_of(b, c, bound, r, p);
        if (bound != LIMIT && fabs((double)logits[r] - score) > width)
            b->violations++;
        upper[r] = nextafterf((float)(score + width), INFINITY);
        lead(best, MAX_LEADERS, (float)score, (uint32_t)r);
        lead(lower, MAX_LEADERS, nextafterf((float)(score - width), -INFINITY), (uint32_t)r);
        if (c->kind == INT8 && bound == BOX_BALL)
            int8_upper[r] = upper[r];
    }
    for (size_t i = 0; i < SIZES; i++) {
        const size_t k = list_sizes[i];
        const struct counts *counts = &b->counts[index][bound][i];
        float exact = exact_threshold(logits, best, k);
        for (size_t r = 0; r < b->vocab; r++) {
            counts->by_bounds[t] += upper[r] >= lower[k - 1].value;
            counts->by_leaders[t] += upper[r] >= exact;
            counts->refined[t] += upper[r] >= exact && int8_upper[r] >= exact;
        }
    }
}

static void races(struct bench *b, size_t index)
{
    const struct code *c = &codes[index];
    struct probe p = {.first = allocate(b->n + 1, sizeof(double)),
                      .rest = allocate(b->n + 1, sizeof(double)),
                      .turns = allocate(b->n, sizeof(double)),
                      .group = allocate(b->groups, sizeof(double))};
    float *upper = allocate(b->vocab, sizeof *upper);
    for (size_t t = b->calibration; t < b->positions; t++) {
        fill_probe(b, c, t, &p);
        for (enum bound bound = L1; bound <= LIMIT; bound++) {
            if (c->bounds & BIT(bound))
                race(b, index, bound, t, &p, upper);
        }
    }
    free(p.first);
    free(p.rest);
    free(p.turns);
    free(p.group);
    free(upper);
}

// --- the positions ---

static enum bnt_status read_tokens(const struct bench *b, const char *text, uint64_t limit,
                                   uint32_t **tokens, size_t *count, struct bnt_error *err)
{
    if (text) {
        char *bytes;
        size_t size;
        enum bnt_status status = bnt_read_input(text, MAX_TEXT, &bytes, &size, err);
        if (status != BNT_OK)
            return status;
        status = bnt_tokenize(b->model, bytes, size, 0, tokens, count, err);
        free(bytes);
        if (status == BNT_OK && limit && *count > limit)
            *count = (size_t)limit;
        return status;
    }
    *count = limit ? (size_t)limit : 64;
    *tokens = allocate(*count, sizeof **tokens);
    for (size_t i = 0; i < *count; i++)
        (*tokens)[i] = (uint32_t)((i * 2654435761u + 12345) % b->vocab);
    return BNT_OK;
}

// Turns session->last towards a row, its length unchanged.
static void plant(struct bench *b, size_t t)
{
    float *x = b->session->last;
    load_row(b, (t * 2654435761u + 54321) % b->vocab, b->row);
    double length = sqrt(dot(x, x, b->n)), row = sqrt(dot(b->row, b->row, b->n)) + 1e-30;
    double along = dot(x, b->row, b->n) / row, across = sqrt(length * length - along * along);
    double other = sqrt(1 - b->cosine * b->cosine) * length / (across + 1e-30);
    for (size_t i = 0; i < b->n; i++)
        x[i] = (float)((double)x[i] * other +
                       (double)b->row[i] / row * (b->cosine * length - along * other));
}

// Windows of BOS and the tokens after it.
static enum bnt_status evaluate_all(struct bench *b, const uint32_t *tokens, struct bnt_error *err)
{
    enum bnt_status status = BNT_OK;
    for (size_t t = 0; t < b->positions && status == BNT_OK; t++) {
        const int32_t bos = bnt_model_info(b->model)->bos_id;
        uint32_t token = t % WINDOW == 0 && bos >= 0 ? (uint32_t)bos : tokens[t - (t > 0)];
        if (t % WINDOW == 0)
            (void)bnt_session_rewind(b->session, 0, NULL);
        float *logits = b->logits + t * b->vocab;
        status = bnt_evaluate(b->session, &token, 1, BNT_LOGITS_NONE, NULL, err);
        if (b->cosine > 0)
            plant(b, t);
        bnt_last_logits(b->session, logits);
        memcpy(b->x + t * b->n, b->session->last, b->n * sizeof *b->x);
        for (size_t i = 0; i < SIZES; i++)
            b->shortlists[i * b->positions + t] =
                (uint32_t)bnt_shortlist(b->session, list_sizes[i]);
    }
    return status;
}

static void find_winner(struct bench *b)
{
    for (size_t t = 0; t < b->positions; t++) {
        const float *logits = b->logits + t * b->vocab;
        size_t best = 0;
        for (size_t r = 1; r < b->vocab; r++)
            best = logits[r] > logits[best] ? r : best;
        double norm = sqrt(dot(b->x + t * b->n, b->x + t * b->n, b->n));
        for (size_t r = 0; r < b->vocab; r++)
            b->mean_short += b->row_norm[r] * norm * (1 + 1e-3) < (double)logits[best]
                                 ? 1 / ((double)b->vocab * (double)b->positions)
                                 : 0;
        b->mean_winner += (double)logits[best] / (norm * b->row_norm[best]) / (double)b->positions;
    }
}

static void allocate_all(struct bench *b)
{
    const size_t n = b->n, all = b->positions * b->vocab;
    b->x = allocate(b->positions * n, sizeof *b->x);
    b->x_code = allocate(b->positions * n, sizeof *b->x_code);
    b->shift = allocate(b->positions, sizeof *b->shift);
    b->logits = allocate(all, sizeof *b->logits);
    b->scores = allocate(all, sizeof *b->scores);
    b->int8_bounded = allocate(all, sizeof *b->int8_bounded);
    b->shortlists = allocate(SIZES * b->positions, sizeof *b->shortlists);
    b->row_norm = allocate(b->vocab, sizeof *b->row_norm);
    b->mean = allocate(n, sizeof *b->mean);
    b->scale = allocate(n, sizeof *b->scale);
    b->row = allocate(n, sizeof *b->row);
    b->norm = allocate(b->vocab, sizeof *b->norm);
    b->peak = allocate(b->vocab, sizeof *b->peak);
    b->size = allocate(b->vocab, sizeof *b->size);
    for (size_t i = 0; i < CODES * BOUNDS * SIZES; i++) {
        struct counts *c = &b->counts[0][0][0] + i;
        c->by_bounds = allocate(b->positions, sizeof(uint32_t));
        c->by_leaders = allocate(b->positions, sizeof(uint32_t));
        c->refined = allocate(b->positions, sizeof(uint32_t));
    }
}

// --- results ---

struct summary {
    double mean, median, p90, most;
};

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static struct summary summarize(const struct bench *b, uint32_t *counts)
{
    const size_t n = b->positions - b->calibration;
    uint32_t *v = counts + b->calibration;
    struct summary s = {0};
    qsort(v, n, sizeof *v, ascending);
    for (size_t i = 0; i < n; i++)
        s.mean += v[i] / (double)n;
    s.median = v[n / 2];
    s.p90 = v[n * 9 / 10];
    s.most = v[n - 1];
    return s;
}

static double ternary_bytes(const struct bench *b)
{
    const struct bnt_section_record *s = bnt_view_section(&b->model->view, BNT_SECTION_TERN);
    return s ? (double)s->size : 0;
}

static double row_bytes(const struct bench *b)
{
    return (double)b->n * (b->model->wide ? 4 : 2);
}

// A row's bytes in the first pass: codes, scales (one of 32 bits, or one of 16 bits a group), and
// for the bound |r|, or 16 bits for the norm of each group's part of it. max|r| needs no room: half
// a step.
static double pass_bytes(const struct bench *b, const struct code *c, enum bound bound)
{
    const double groups = c->group ? ceil((double)b->n / (double)c->group) : 0;
    double bytes = (double)b->n * c->bits / 8 + (c->group ? 2 * groups : 4);
    if (bound == GROUPS)
        bytes += 2 * groups;
    else if (bound != L1 && bound != LIMIT)
        bytes += 4;
    return bytes * (double)b->vocab;
}

static void print_summary(const struct summary *s)
{
    (void)printf(" %.1f / %.0f / %.0f / %.0f |", s->mean, s->median, s->p90, s->most);
}

// Bytes of the output layer, a token: the pass and the rows that are computed, the leaders among
// them; with the int8 row read in between for those that remain, or what of it has not been read.
// In place of int8 in groups, which is finer, the row's own is counted.
static double direct_bytes(const struct bench *b, const struct code *c, enum bound bound,
                           const struct summary *computed)
{
    return pass_bytes(b, c, bound) + computed->mean * row_bytes(b);
}

static double refined_bytes(const struct bench *b, const struct code *c, enum bound bound,
                            const struct summary *left, const struct summary *computed)
{
    double int8_row = (c->kind == NIBBLE ? 0.5 : 1) * (double)b->n + 8; // scale and |r| of int8
    return direct_bytes(b, c, bound, computed) + left->mean * int8_row;
}

static void print_row(const struct bench *b, size_t index, enum bound bound, size_t size,
                      double reference)
{
    const struct code *c = &codes[index];
    const struct counts *counts = &b->counts[index][bound][size];
    const uint32_t leaders = (uint32_t)list_sizes[size] + EXTRA_LEADERS;
    struct summary by_bounds = summarize(b, counts->by_bounds);
    struct summary by_leaders = summarize(b, counts->by_leaders);
    for (size_t t = b->calibration; t < b->positions; t++) {
        counts->by_leaders[t] = counts->by_leaders[t] > leaders ? counts->by_leaders[t] : leaders;
        counts->refined[t] = counts->refined[t] > leaders ? counts->refined[t] : leaders;
    }
    struct summary computed = summarize(b, counts->by_leaders);
    struct summary refined = summarize(b, counts->refined);
    bool as_it_is = c->kind == INT8 && bound == L1, twice = c->kind != INT8 && bound != LIMIT;
    double ternary = ternary_bytes(b);
    double bytes = direct_bytes(b, c, bound, as_it_is ? &by_bounds : &computed);
    (void)printf("| %s | %s |", c->name, bound_names[bound]);
    print_summary(&by_bounds);
    print_summary(&by_leaders);
    (void)printf(" %.3f |", bytes * 1e-6);
    if (twice) {
        double second = refined_bytes(b, c, bound, &by_leaders, &refined);
        (void)printf(" %.3f |", second * 1e-6);
        bytes = second < bytes ? second : bytes;
    } else {
        (void)printf(" – |");
    }
    (void)printf(" %.3f | %.3f |\n", bytes / (reference - ternary), (ternary + bytes) / reference);
}

static void print_table(const struct bench *b, size_t size)
{
    const uint32_t *list = b->counts[0][L1][size].by_bounds;
    double candidates = 0, runtime = 0;
    const double positions = (double)(b->positions - b->calibration);
    for (size_t t = b->calibration; t < b->positions; t++) {
        candidates += list[t] / positions;
        runtime += b->shortlists[size * b->positions + t] / positions;
    }
    double reference = ternary_bytes(b) + pass_bytes(b, &codes[0], L1) + candidates * row_bytes(b);
    (void)printf("\nk = %zu:\n\n", list_sizes[size]);
    (void)puts("| code | bound | by bounds: mean / median / 90 % / max | by leaders | MB a token, "
               "then bf16 | int8 in between | output, to int8 | all, to int8 |\n"
               "|---|---|---|---|---|---|---|---|");
    for (size_t i = 0; i < CODES; i++) {
        for (enum bound bound = L1; bound <= LIMIT; bound++) {
            if (codes[i].bounds & BIT(bound))
                print_row(b, i, bound, size, reference);
        }
    }
    if (runtime > 0)
        (void)printf("\nThe runtime's own list for int8, L1, by bounds: %.1f\n", runtime);
}

static enum bnt_status run(struct bench *b, const char *text, uint64_t limit, struct bnt_error *err)
{
    uint32_t *tokens = NULL;
    enum bnt_status status = read_tokens(b, text, limit, &tokens, &b->positions, err);
    if (status != BNT_OK)
        return status;
    b->calibration = b->positions / 4;
    allocate_all(b);
    status = evaluate_all(b, tokens, err);
    free(tokens);
    if (status != BNT_OK)
        return status;
    find_mean(b);
    find_winner(b);
    (void)printf(
        "%zu rows of %zu; %zu positions, %zu of them counted; ternary %.3f MB; mean "
        "cosine of x and the likeliest row %.3f; too short to be it, whatever their direction: "
        "%.1f %% of rows\n\n| code | residual / row, norms |\n|---|---|\n",
        b->vocab, b->n, b->positions, b->positions - b->calibration, ternary_bytes(b) * 1e-6,
        b->mean_winner, 100 * b->mean_short);
    for (size_t i = 0; i < CODES; i++) {
        double start = seconds();
        score_all(b, &codes[i]);
        races(b, i);
        free(b->group_norm);
        (void)printf("| %s | %.4f |\n", codes[i].name, b->mean_residual);
        (void)fflush(stdout);
        bnt_cli_note("%s: %.1f s", codes[i].name, seconds() - start);
    }
    for (size_t i = 0; i < SIZES; i++)
        print_table(b, i);
    (void)printf("\nLogits outside their bounds: %" PRIu64 "\n", b->violations);
    return BNT_OK;
}

static enum bnt_status open_all(struct bench *b, const char *path, struct bnt_error *err)
{
    const struct bnt_session_options options = {.context = WINDOW, .threads = 1};
    enum bnt_status status = bnt_model_open(path, NULL, &b->model, err);
    if (status != BNT_OK)
        return status;
    b->n = b->model->hyper.hidden_size;
    b->vocab = b->model->hyper.vocab_size;
    return bnt_session_open(b->model, &options, &b->session, err);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"positions", required_argument, NULL, 'n'},
                                            {"cosine", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct bench *b = allocate(1, sizeof *b);
    struct bnt_error err;
    uint64_t limit = 0;
    bnt_cli_init("bench-first-pass");
    for (int o; (o = getopt_long(argc, argv, ":n:c:", options, NULL)) != -1;) {
        if (o == 'h')
            return bnt_cli_print(help);
        if (o != 'n' && o != 'c')
            return bnt_cli_bad_option(o, argv);
        if (o == 'c' && !bnt_cli_double(optarg, 0, 1, &b->cosine))
            return bnt_cli_usage("--cosine takes a number from 0 to 1");
        if (o == 'n' && !bnt_cli_u64(optarg, 8, 1 << 20, &limit))
            return bnt_cli_usage("--positions takes a number from 8 to 1048576");
    }
    if (argc - optind < 1 || argc - optind > 2)
        return bnt_cli_usage("it takes FILE.bnt and maybe TEXT; see --help");
    enum bnt_status status = open_all(b, argv[optind], &err);
    if (status == BNT_OK)
        status = run(b, argv[optind + 1], limit, &err);
    if (status != BNT_OK)
        return bnt_cli_fail(&err);
    // Memory goes with the process; logits outside their bounds mean that a proof is wrong.
    return bnt_cli_close_stdout() && b->violations == 0 ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}
