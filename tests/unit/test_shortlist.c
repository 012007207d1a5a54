// SPDX-License-Identifier: MIT
// The int8 copy of the output matrix must never change a token. The list that it gives is held
// against all logits: it has every token that can be among the k likeliest, with the same bits, for
// matrices and activations made to mislead it. And where it should be short, it is.
#include <math.h>

#include "runtime/engine/session.h"
#include "tests/unit/fairy.h"
#include "tests/unit/tiny_model.h"

static const char *const files[] = {"model.bnt", "fairy.bnt", NULL};
static char *dir;

static int make_dir(void **state)
{
    (void)state;
    dir = test_make_dir();
    test_make_model_int8("fairy-6m", dir, files[1], true);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    test_remove_dir(dir, files);
    return 0;
}

// --- output matrices ---

enum matrix {
    RANDOM,
    NEAR,  // rows that differ by less than the int8 step: their copies are the same
    TIES,  // few different rows
    ZEROS, // rows of zeros between others
    ONLY_ZEROS,
    OUTLIER, // one weight dwarfs the others of its row
    TINY,    // rows below 2^-100, for which the copy has scale 1, between others hardly greater
    ONLY_TINY,
    SUBNORMAL,
    HALVES,   // weights just above or below a half step: copies differ most where rows do least
    ALL_DOWN, // the same, all weights of a row in one direction
    SCALES,   // rows of very different size
    SPARSE,
    BIG,   // logits of 1e30
    STEPS, // rows all at the ends of the int8 range, against STEPPED activations
    MATRICES,
};

// Where the rows of STEPS and the activations of STEPPED change.
static uint32_t middle(uint32_t n)
{
    return n / 2 + n / 500;
}

static float half_step(uint32_t row, uint64_t *random)
{
    float step = (float)(test_random_below(random, 8)) + (row % 2 ? 0.498046875f : 0.50390625f);
    return test_random_below(random, 2) ? step : -step;
}

static float power_of_two(uint64_t *random, int low, int high)
{
    return ldexpf(1, low + (int)test_random_below(random, (uint32_t)(high - low + 1)));
}

static float weight(enum matrix matrix, uint32_t row, uint32_t i, uint32_t n, uint64_t *random)
{
    float v = test_random_float(random);
    switch (matrix) {
    case NEAR:
        return i == 0 ? 1 : v * 0x1p-9f;
    case ZEROS:
        return row % 2 ? v : 0;
    case ONLY_ZEROS:
        return 0;
    case OUTLIER:
        return i == row % n ? (row % 3 ? 1000.0f : -1000.0f) : v;
    case TINY:
        return v * (row % 3 ? 0x1p-99f : 0x1p-102f);
    case ONLY_TINY:
        return v * 0x1p-101f;
    case SUBNORMAL:
        return v * 0x1p-135f;
    case HALVES:
        return i == 0 ? 127 : half_step(row, random);
    case ALL_DOWN:
        return i == 0 ? 127 : row % 2 == 0 ? 0.4999f : i % 500 ? 0.5001f : 0;
    case SPARSE:
        return test_random_below(random, 10) ? 0 : v;
    case BIG:
        return v * 0x1p80f;
    case STEPS:
        return i == 0 ? 0 : (i < middle(n)) == (row % 2 == 0) ? 1 : -1;
    default:
        return v;
    }
}

static void fill_row(const void *context, uint32_t row, float *values, uint32_t n, uint64_t *random)
{
    const enum matrix matrix = *(const enum matrix *)context;
    uint64_t own = row % 3;
    float size = matrix == SCALES ? power_of_two(random, -30, 5) : 1;
    for (uint32_t i = 0; i < n; i++)
        values[i] = size * weight(matrix, row, i, n, matrix == TIES ? &own : random);
}

// --- activations ---

enum activation {
    UNIFORM,
    BELL,
    OUTLIERS,
    ONE_HOT,
    CONSTANT,
    HALF_STEPS,  // between two values of the 16-bit form
    STEPPED,     // one that is large, all others about half a step of the 16-bit form
    LIKE_A_ROW,  // so that one logit is high
    AGAINST_ROW, // all low
    WIDE,        // of very different size
    SMALL,
    LARGE,
    ACTIVATIONS,
};

static float output_at(const struct bnt_model *m, size_t i)
{
    return m->wide ? ((const float *)m->output)[i]
                   : bnt_float_from_bf16(((const uint16_t *)m->output)[i]);
}

static float activation(enum activation kind, uint32_t i, uint32_t n, uint64_t *random)
{
    float v = test_random_float(random);
    switch (kind) {
    case BELL:
        return v + test_random_float(random) + test_random_float(random);
    case OUTLIERS:
        return test_random_below(random, 30) ? v : 1000 * v;
    case ONE_HOT:
        return i == n / 3 ? 3.7f : 0;
    case CONSTANT:
        return 1;
    case HALF_STEPS:
        return i == 0 ? 32767 : (float)(test_random_below(random, 2000)) - 999.5f;
    case STEPPED:
        return i == 0 ? 32767 : i < middle(n) ? 0.499f : 0.501f;
    case WIDE:
        return v * power_of_two(random, -40, 10);
    case SMALL:
        return v * 0x1p-100f;
    case LARGE:
        return v * 0x1p40f;
    default:
        return v;
    }
}

static void fill_activations(struct bnt_session *s, enum activation kind, uint64_t *random)
{
    const struct bnt_model *m = s->model;
    const uint32_t n = m->hyper.hidden_size;
    const size_t row = test_random_below(random, m->hyper.vocab_size);
    for (uint32_t i = 0; i < n; i++)
        s->last[i] = activation(kind, i, n, random);
    for (uint32_t i = 0; i < n && (kind == LIKE_A_ROW || kind == AGAINST_ROW); i++)
        s->last[i] = output_at(m, row * n + i) * (kind == LIKE_A_ROW ? 3 : -3);
}

// --- the list against all logits ---

static float clean(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

static int descending(const void *a, const void *b)
{
    float x = clean(*(const float *)a), y = clean(*(const float *)b);
    return (x < y) - (x > y);
}

struct logits {
    float *all;    // (vocab)
    float *sorted; // likeliest first
    size_t vocab;
};

static struct logits all_logits(struct bnt_session *s)
{
    const size_t vocab = s->model->hyper.vocab_size;
    struct logits l = {test_alloc(vocab * sizeof(float)), test_alloc(vocab * sizeof(float)), vocab};
    bnt_last_logits(s, l.all);
    memcpy(l.sorted, l.all, vocab * sizeof(float));
    qsort(l.sorted, vocab, sizeof(float), descending);
    return l;
}

static void free_logits(struct logits *l)
{
    free(l->all);
    free(l->sorted);
}

static float greatest(const float *x, size_t n)
{
    float max = 0;
    for (size_t i = 0; i < n; i++)
        max = fmaxf(max, fabsf(x[i]));
    return max;
}

// Returns how long the list is.
static size_t check_list(struct bnt_session *s, const struct logits *l, size_t k)
{
    const size_t n = bnt_shortlist(s, k);
    const float least = clean(l->sorted[(k < l->vocab ? k : l->vocab) - 1]);
    size_t at = 0;
    if (n == 0) // it does not help if they are next to zero
        assert_true(greatest(s->last, s->model->hyper.hidden_size) <= 0x1p-110f);
    if (n == 0)
        return 0;
    for (uint32_t id = 0; id < l->vocab; id++) {
        if (at < n && s->candidates[at].id == id) {
            assert_memory_equal(&s->candidates[at].logit, &l->all[id], sizeof(float));
            at++;
        } else if (clean(l->all[id]) >= least) {
            fail_msg("%s, k %zu: of %zu candidates none is %" PRIu32 " with logit %g; least %g",
                     s->model->kernels->name, k, n, id, (double)l->all[id], (double)least);
        }
    }
    assert_int_equal(at, n); // all of them, by id
    return n;
}

// The same choice with the list and without.
static void check_choice(struct bnt_session *s, struct bnt_sampling sampling)
{
    uint64_t state = sampling.seed, other = sampling.seed;
    uint32_t token = bnt_next_token(s, &sampling, &state);
    s->full_output = true;
    uint32_t expected = bnt_next_token(s, &sampling, &other);
    s->full_output = false;
    if (token != expected || state != other)
        fail_msg("%s, %u threads, temperature %g, top_k %u, top_p %g: token %u, not %u",
                 s->model->kernels->name, bnt_pool_threads(s->pool), (double)sampling.temperature,
                 sampling.top_k, (double)sampling.top_p, token, expected);
}

// A text of which the likeliest token is a part, so that penalties have something to do.
static void see_tokens(struct bnt_session *s, uint64_t *random)
{
    const struct bnt_sampling greedy = {.temperature = 0};
    const uint32_t vocab = s->model->hyper.vocab_size;
    bnt_history_rewind(&s->history, 0);
    for (uint32_t i = 0; i < s->context; i++) {
        const uint32_t token =
            i ? test_random_below(random, vocab) : bnt_next_token(s, &greedy, random);
        bnt_history_put(&s->history, i, &token, 1);
    }
    s->position = s->context;
    bnt_history_end_prompt(&s->history, test_random_below(random, s->context + 1));
}

static void check_choices(struct bnt_session *s, uint32_t k, uint64_t *random)
{
    static const float temperatures[] = {0.01f, 0.7f, 1, 5, 100}, shares[] = {0, 0.1f, 0.9f, 1};
    static const float repetitions[] = {0, 1.1f, 3, 0.7f}, others[] = {0, 0.5f, 2, -0.5f};
    const uint32_t position = s->position;
    see_tokens(s, random);
    check_choice(s, (struct bnt_sampling){.temperature = 0, .top_k = k});
    check_choice(s, (struct bnt_sampling){
                        .temperature = (float)test_random_below(random, 2),
                        .top_k = k,
                        .seed = test_random(random),
                        .min_p = test_random_below(random, 2) ? 0.05f : 0,
                        .repetition_penalty = repetitions[test_random_below(random, 4)],
                        .presence_penalty = others[test_random_below(random, 4)],
                        .frequency_penalty = others[test_random_below(random, 4)],
                    });
    check_choice(s, (struct bnt_sampling){
                        .temperature = temperatures[test_random_below(random, 5)],
                        .top_k = k,
                        .top_p = shares[test_random_below(random, 4)],
                        .seed = test_random(random),
                    });
    s->position = position;
}

static const size_t ks[] = {1, 2, 3, 40, 100, 1000, 1023, BNT_SHORTLIST_MAX};
enum { KS = sizeof ks / sizeof ks[0] };

// --- many matrices and activations ---

struct shape {
    uint32_t vocab, hidden, flags;
};

// Sizes that no multiple of anything fits, vocabularies below and above the longest list.
static const struct shape shapes[] = {
    {1, 45, BNT_HYPER_TIED},
    {7, 33, BNT_HYPER_F32_EMBEDDINGS},
    {65, 1, BNT_HYPER_TIED},
    {1025, 50, 0},
    {1300, 31, BNT_HYPER_TIED | BNT_HYPER_F32_EMBEDDINGS},
    {40, 2048, BNT_HYPER_TIED},
};

static void write_model(const struct shape *shape, struct tiny_weights weights, uint64_t seed)
{
    char *path = test_join(dir, files[0]);
    struct bnt_hyper h = tiny_hyper(shape->vocab);
    h.hidden_size = shape->hidden;
    h.flags = shape->flags;
    weights.int8 = true;
    tiny_write_weights(path, &h, NULL, 0, seed, weights);
    free(path);
}

// Returns a digest of the lists, which must not depend on kernels and threads.
static uint64_t check_session(struct bnt_session *s, uint64_t seed)
{
    uint64_t random = seed, digest = 0;
    for (int kind = 0; kind < ACTIVATIONS; kind++) {
        fill_activations(s, (enum activation)kind, &random);
        struct logits l = all_logits(s);
        for (int i = 0; i < 2; i++) {
            size_t k = ks[test_random_below(&random, KS)];
            digest = digest * 1000003 + check_list(s, &l, k);
            check_choices(s, (uint32_t)k, &random);
        }
        free_logits(&l);
    }
    return digest;
}

static void check_matrix(enum matrix matrix, const struct shape *shape)
{
    const uint64_t seed = (uint64_t)matrix * 100 + shape->vocab;
    uint64_t expected = 0;
    write_model(shape, (struct tiny_weights){.output_row = fill_row, .context = &matrix}, seed);
    for (size_t i = 0; bnt_kernel_name(i); i++) {
        struct bnt_model *model = test_open_model(dir, files[0], bnt_kernel_name(i));
        const uint32_t threads[] = {1, 2 + ((uint32_t)matrix + shape->vocab) % 4};
        for (size_t j = 0; j < (i == 0 ? 2 : 1); j++) {
            struct bnt_session *s = test_open_session(model, 8, threads[j]);
            uint64_t digest = check_session(s, seed);
            if (i == 0 && j == 0)
                expected = digest;
            assert_int_equal(digest, expected);
            bnt_session_close(s);
        }
        bnt_model_close(model);
    }
}

static void no_likely_token_is_missing(void **state)
{
    (void)state;
    for (int matrix = 0; matrix < MATRICES; matrix++) {
        for (size_t i = 0; i < TEST_COUNT(shapes); i++)
            check_matrix((enum matrix)matrix, &shapes[i]);
    }
}

// Of two kinds of rows the one that is the likeliest by little is behind by almost twice the bound
// in the copy. So no row may be left out.
static void check_tight(enum matrix matrix, enum activation kind, struct shape shape)
{
    write_model(&shape, (struct tiny_weights){.output_row = fill_row, .context = &matrix}, 1);
    for (size_t i = 0; bnt_kernel_name(i); i++) {
        struct bnt_model *model = test_open_model(dir, files[0], bnt_kernel_name(i));
        struct bnt_session *s = test_open_session(model, 1, 1);
        uint64_t random = 1;
        fill_activations(s, kind, &random);
        struct logits l = all_logits(s);
        assert_true(l.all[0] > l.all[1]);
        assert_int_equal(check_list(s, &l, 1), shape.vocab);
        assert_true(s->logits[0] < s->logits[1]); // the scores, by which it is the other way
        check_choices(s, 1, &random);
        free_logits(&l);
        bnt_session_close(s);
        bnt_model_close(model);
    }
}

static void nearly_all_of_the_bound_is_needed(void **state)
{
    const uint32_t wide = BNT_HYPER_TIED | BNT_HYPER_F32_EMBEDDINGS;
    (void)state;
    check_tight(ALL_DOWN, CONSTANT, (struct shape){20, 4000, wide});
    // One outlier makes the steps of the 16-bit form so wide that all else is lost in rounding.
    check_tight(STEPS, STEPPED, (struct shape){10, 20000, BNT_HYPER_TIED});
}

// --- where it does not help ---

static void what_cannot_be_bounded_is_not_listed(void **state)
{
    static const float bad[] = {0, 0x1p-120f, -0x1p-149f, INFINITY, -INFINITY, NAN, 3e38f};
    struct bnt_model *model = test_open_model(dir, files[1], NULL);
    struct bnt_session *s = test_open_session(model, 1, 2);
    const size_t n = model->hyper.hidden_size;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        for (size_t j = 0; j < n; j++)
            s->last[j] = isfinite(bad[i]) || j == n / 2 ? bad[i] : 1;
        assert_int_equal(bnt_shortlist(s, 1), 0);
        check_choice(s, (struct bnt_sampling){.temperature = 0});
        check_choice(s, (struct bnt_sampling){.temperature = 1, .top_k = 40, .seed = i});
    }
    s->full_output = true;
    s->last[0] = 1;
    assert_int_equal(bnt_shortlist(s, 1), 0);
    bnt_session_close(s);
    bnt_model_close(model);
}

// Finite weights and activations, but one of the lanes of the first row's logit is not.
static void overflowing_row(const void *context, uint32_t row, float *values, uint32_t n,
                            uint64_t *random)
{
    (void)context;
    (void)random;
    for (uint32_t i = 0; i < n; i++)
        values[i] = 0;
    if (row == 0) {
        values[0] = values[16] = 0x1p100f;
        values[1] = values[2] = -0x1p100f;
    } else {
        values[3] = 0x1p99f / (float)row;
    }
}

static void logits_that_overflow_are_listed_too(void **state)
{
    const struct shape shape = {30, 32, BNT_HYPER_TIED};
    (void)state;
    write_model(&shape, (struct tiny_weights){.output_row = overflowing_row}, 1);
    struct bnt_model *model = test_open_model(dir, files[0], NULL);
    struct bnt_session *s = test_open_session(model, 1, 1);
    for (size_t i = 0; i < shape.hidden; i++)
        s->last[i] = 0x1p27f;
    struct logits l = all_logits(s);
    assert_true(l.all[0] == INFINITY);
    for (size_t k = 1; k < 5; k++)
        (void)check_list(s, &l, k);
    check_choice(s, (struct bnt_sampling){.temperature = 0});
    free_logits(&l);
    bnt_session_close(s);
    bnt_model_close(model);
}

// A copy that is not one: tokens may be any, but tokens they are.
static void a_damaged_copy_does_no_harm(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(shapes); i++) {
        write_model(&shapes[i], (struct tiny_weights){.damaged = true}, i);
        for (size_t j = 0; bnt_kernel_name(j); j++) {
            struct bnt_model *model = test_open_model(dir, files[0], bnt_kernel_name(j));
            struct bnt_session *s = test_open_session(model, 1, 1 + (uint32_t)i % 3);
            uint64_t random = i;
            for (int kind = 0; kind < ACTIVATIONS; kind++) {
                const struct bnt_sampling sampling = {
                    .temperature = (float)(kind % 3), .top_k = (uint32_t)ks[kind % KS], .seed = i};
                uint64_t generator = i;
                fill_activations(s, (enum activation)kind, &random);
                assert_true(bnt_next_token(s, &sampling, &generator) < shapes[i].vocab);
                assert_true(bnt_shortlist(s, sampling.top_k) <= shapes[i].vocab);
            }
            bnt_session_close(s);
            bnt_model_close(model);
        }
    }
}

// --- a trained model ---

enum { POSITIONS = TEST_TSAN ? 20 : TEST_SANITIZED ? 40 : 200 };

// The golden text, as tokens of fairy-6m: POSITIONS of them.
static uint32_t *read_text(const struct bnt_model *model)
{
    size_t size, count;
    struct bnt_error err;
    uint32_t *tokens;
    char *text = test_read_file(BNT_TEST_DATA "/fairy-6m/golden/eval.txt", &size);
    test_ok(bnt_tokenize(model, text, 1 << 12, BNT_TOKENIZE_SPECIAL, &tokens, &count, &err), &err);
    assert_true(count >= POSITIONS);
    free(text);
    return tokens;
}

// Measured over 200 positions: lists of 1.7 tokens for k = 1, of 62 for k = 40, of 1305 for k =
// 1000.
static void lists_are_short_for_a_trained_model(void **state)
{
    static const struct {
        size_t k, mean, most;
    } expected[] = {{1, 5, 150}, {40, 120, 800}, {1000, 1800, 4000}};
    struct bnt_model *model = test_open_model(dir, files[1], NULL);
    struct bnt_session *s = test_open_session(model, POSITIONS, 2);
    uint32_t *tokens = read_text(model);
    size_t sum[TEST_COUNT(expected)] = {0};
    (void)state;
    for (size_t at = 0; at < POSITIONS; at++) {
        test_ok(bnt_evaluate(s, tokens + at, 1, BNT_LOGITS_NONE, NULL, NULL), NULL);
        struct logits l = all_logits(s);
        for (size_t i = 0; i < TEST_COUNT(expected); i++) {
            size_t n = check_list(s, &l, expected[i].k);
            assert_in_range(n, expected[i].k, expected[i].most);
            sum[i] += n;
        }
        free_logits(&l);
    }
    for (size_t i = 0; i < TEST_COUNT(expected); i++)
        assert_true(sum[i] <= expected[i].mean * POSITIONS);
    free(tokens);
    bnt_session_close(s);
    bnt_model_close(model);
}

static void a_trained_model_chooses_the_same(void **state)
{
    static const uint32_t counts[] = {1, 2, 40, 1000, 1024, 1025, 4095, 4096, 5000, 0};
    uint64_t random = 5;
    (void)state;
    for (size_t i = 0; bnt_kernel_name(i); i++) {
        struct bnt_model *model = test_open_model(dir, files[1], bnt_kernel_name(i));
        struct bnt_session *s = test_open_session(model, POSITIONS, 1 + (uint32_t)i);
        uint32_t *tokens = read_text(model);
        for (size_t at = 0; at < POSITIONS; at += POSITIONS / 10) {
            test_ok(bnt_evaluate(s, tokens + at, 1, BNT_LOGITS_NONE, NULL, NULL), NULL);
            for (size_t j = 0; j < TEST_COUNT(counts); j++)
                check_choices(s, counts[j], &random);
        }
        free(tokens);
        bnt_session_close(s);
        bnt_model_close(model);
    }
}

// --- as callers see it ---

enum { GENERATED = TEST_SANITIZED ? 8 : 24 };

struct text {
    size_t n;
    uint32_t tokens[GENERATED];
};

static bool collect(void *context, uint32_t token, const char *text, size_t size)
{
    struct text *t = context;
    (void)text;
    (void)size;
    if (token != UINT32_MAX && t->n < GENERATED)
        t->tokens[t->n++] = token;
    return true;
}

static struct text generate(const struct bnt_model *model, bool full_output, uint32_t threads,
                            struct bnt_sampling sampling)
{
    const struct bnt_session_options options = {
        .context = 40, .threads = threads, .full_output = full_output};
    struct bnt_session *s = test_open_session_as(model, options);
    struct text text = {0};
    const struct bnt_generation generation = {.max_tokens = GENERATED,
                                              .sampling = sampling,
                                              .ignore_eos = true,
                                              .callback = collect,
                                              .context = &text};
    struct bnt_generation_result result;
    const uint32_t prompt[] = {0, bnt_model_info(model)->vocab_size - 1, 0};
    test_ok(bnt_generate(s, prompt, 3, &generation, &result, NULL), NULL);
    assert_int_equal(text.n, GENERATED);
    bnt_session_close(s);
    return text;
}

static void check_texts(const char *name)
{
    static const struct bnt_sampling ways[] = {
        {0},
        {.temperature = 0.8f, .top_k = 40, .top_p = 0.9f},
        {.temperature = 3, .top_k = 1000},
        {.temperature = 0.8f, .top_k = 40, .min_p = 0.02f, .repetition_penalty = 1.2f},
        {.temperature = 1, .top_k = 9, .presence_penalty = 0.4f, .frequency_penalty = 0.3f},
        {.temperature = 1, .top_k = 9, .presence_penalty = -0.4f}};
    struct bnt_model *model = test_open_model(dir, name, NULL);
    for (size_t i = 0; i < TEST_COUNT(ways); i++) {
        struct bnt_sampling sampling = ways[i];
        for (sampling.seed = 0; sampling.seed < (i ? 3 : 1); sampling.seed++) {
            uint32_t threads = 1 + (uint32_t)sampling.seed;
            struct text a = generate(model, false, threads, sampling);
            struct text b = generate(model, true, 1, sampling);
            assert_memory_equal(a.tokens, b.tokens, sizeof a.tokens);
        }
    }
    bnt_model_close(model);
}

static void texts_are_the_same_with_and_without_the_copy(void **state)
{
    (void)state;
    check_texts(files[1]);
    for (int i = 0; i < MATRICES; i++) {
        const enum matrix matrix = (enum matrix)i;
        const struct shape shape = {1100, 64,
                                    i % 2 ? BNT_HYPER_TIED : (uint32_t)BNT_HYPER_F32_EMBEDDINGS};
        write_model(&shape, (struct tiny_weights){.output_row = fill_row, .context = &matrix}, 9);
        check_texts(files[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_likely_token_is_missing),
        cmocka_unit_test(nearly_all_of_the_bound_is_needed),
        cmocka_unit_test(what_cannot_be_bounded_is_not_listed),
        cmocka_unit_test(logits_that_overflow_are_listed_too),
        cmocka_unit_test(a_damaged_copy_does_no_harm),
        cmocka_unit_test(lists_are_short_for_a_trained_model),
        cmocka_unit_test(a_trained_model_chooses_the_same),
        cmocka_unit_test(texts_are_the_same_with_and_without_the_copy),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
