// SPDX-License-Identifier: MIT
// Sampling must follow the probabilities that it claims, keep exactly the tokens that top_k and
// top_p ask for, and choose something sensible whatever the logits are. Seeds are fixed: a test
// that passes once passes always.
#include <float.h>
#include <math.h>

#include "runtime/bnt.h"
#include "tests/unit/tiny_model.h"

enum { SMALL = 16, LARGE = 3000 };

struct sampler {
    struct bnt_model *model;
    struct bnt_session *session;
};

static struct sampler samplers[2]; // of a small and a large vocabulary

static void open_sampler(struct sampler *s, uint32_t vocab)
{
    static const char *const names[] = {"m.bnt", NULL};
    struct bnt_error err;
    char *dir = test_make_dir(), *path = test_join(dir, names[0]);
    struct bnt_hyper hyper = tiny_hyper(vocab);
    tiny_write(path, &hyper, NULL, 0, 1);
    assert_int_equal(bnt_model_open(path, NULL, &s->model, &err), BNT_OK);
    const struct bnt_session_options options = {.context = 1, .threads = 1};
    assert_int_equal(bnt_session_open(s->model, &options, &s->session, &err), BNT_OK);
    free(path);
    test_remove_dir(dir, names);
}

static int open_all(void **state)
{
    (void)state;
    open_sampler(&samplers[0], SMALL);
    open_sampler(&samplers[1], LARGE);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(samplers); i++) {
        bnt_session_close(samplers[i].session);
        bnt_model_close(samplers[i].model);
    }
    return 0;
}

static struct bnt_session *session_for(uint32_t vocab)
{
    return samplers[vocab == LARGE].session;
}

static uint32_t sample(uint32_t vocab, const float *logits, struct bnt_sampling sampling,
                       uint64_t *state)
{
    uint32_t id = bnt_sample(session_for(vocab), logits, &sampling, state);
    assert_true(id < vocab);
    return id;
}

// --- the definition: sorted by likelihood, in double ---

struct ranked {
    double p;
    uint32_t id;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static void normalize(struct ranked *all, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += all[i].p;
    for (uint32_t i = 0; i < n; i++)
        all[i].p /= sum;
}

// The tokens that are kept, most likely first, with their probabilities; returns how many.
static uint32_t define_kept(const float *logits, uint32_t vocab, struct bnt_sampling s,
                            struct ranked *all)
{
    double max = -HUGE_VAL, reached = 0;
    for (uint32_t i = 0; i < vocab; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (uint32_t i = 0; i < vocab; i++)
        all[i] = (struct ranked){exp(((double)logits[i] - max) / (double)s.temperature), i};
    qsort(all, vocab, sizeof all[0], compare_ranked);
    uint32_t n = s.top_k && s.top_k < vocab ? s.top_k : vocab;
    normalize(all, n);
    for (uint32_t i = 0; i < n && s.top_p < 1; i++) {
        reached += all[i].p;
        if (reached >= (double)s.top_p)
            n = i + 1;
    }
    normalize(all, n);
    return n;
}

// Draws many times; the counts must fit the probabilities (chi-square), and no other token may
// come.
static void check_distribution(uint32_t vocab, const float *logits, struct bnt_sampling s,
                               size_t draws)
{
    struct ranked *kept = test_alloc(vocab * sizeof *kept);
    size_t *count = test_alloc(vocab * sizeof *count);
    uint32_t n = define_kept(logits, vocab, s, kept);
    uint64_t state = s.seed;
    double chi = 0, rest = 0;
    size_t seen = 0, rest_seen = 0, cells = 0;
    for (size_t i = 0; i < draws; i++)
        count[sample(vocab, logits, s, &state)]++;
    for (uint32_t i = 0; i < n; i++) {
        double expected = kept[i].p * (double)draws, is = (double)count[kept[i].id];
        seen += count[kept[i].id];
        if (expected >= 10) {
            chi += (is - expected) * (is - expected) / expected;
            cells++;
        } else { // too rare for a cell of its own
            rest += expected;
            rest_seen += count[kept[i].id];
        }
    }
    if (rest >= 10) {
        chi += ((double)rest_seen - rest) * ((double)rest_seen - rest) / rest;
        cells++;
    }
    free(kept);
    free(count);
    if (seen != draws)
        fail_msg("%zu of %zu draws are tokens that were not kept", draws - seen, draws);
    // Mean of chi-square is cells − 1, its variance twice that: five sigmas, and a little for few.
    double limit = (double)cells + 5 * sqrt(2 * (double)cells) + 10;
    if (chi > limit)
        fail_msg("chi-square is %g, limit %g (top_k %u, top_p %g, temperature %g)", chi, limit,
                 s.top_k, (double)s.top_p, (double)s.temperature);
}

static void random_logits(float *logits, uint32_t vocab, float spread, uint64_t *random)
{
    for (uint32_t i = 0; i < vocab; i++)
        logits[i] = test_random_float(random) * spread;
}

static void draws_follow_the_probabilities(void **state)
{
    static const struct bnt_sampling settings[] = {
        {1, 0, 1, 11},     {0.7f, 0, 1, 12}, {2.5f, 0, 1, 13},    {1, 5, 1, 14},
        {1, 0, 0.9f, 15},  {1, 0, 0.3f, 16}, {0.8f, 7, 0.8f, 17}, {1, 1, 1, 18},
        {1, SMALL, 1, 19}, {1, 1000, 1, 20}, {5, 3, 0.999f, 21},  {0.3f, 0, 0.95f, 22},
    };
    float logits[SMALL];
    uint64_t random = 1;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(settings); i++) {
        for (int round = 0; round < 4; round++) {
            random_logits(logits, SMALL, 3, &random);
            check_distribution(SMALL, logits, settings[i], TEST_SANITIZED ? 5000 : 40000);
        }
    }
}

static void draws_from_a_large_vocabulary(void **state)
{
    static const struct bnt_sampling settings[] = {{1, 0, 1, 31},
                                                   {0.8f, 40, 0.95f, 32},
                                                   {1, 0, 0.9f, 33},
                                                   {0.5f, 500, 1, 34},
                                                   {1, 2999, 1, 35}};
    float *logits = test_alloc(LARGE * sizeof *logits);
    uint64_t random = 2;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(settings); i++) {
        random_logits(logits, LARGE, 8, &random);
        check_distribution(LARGE, logits, settings[i], TEST_SANITIZED ? 200 : 2000);
    }
    free(logits);
}

// --- what is kept ---

// Bits of the ids that come up in many draws.
static uint32_t drawn_set(const float *logits, struct bnt_sampling s, size_t draws)
{
    uint32_t set = 0;
    uint64_t state = s.seed;
    for (size_t i = 0; i < draws; i++)
        set |= 1u << sample(SMALL, logits, s, &state);
    return set;
}

static void of_equal_logits_the_lower_ids_are_kept(void **state)
{
    float logits[SMALL] = {0};
    (void)state;
    for (uint32_t k = 1; k <= SMALL; k++) {
        struct bnt_sampling s = {1, k, 1, k};
        assert_int_equal(drawn_set(logits, s, 2000), (1u << k) - 1);
    }
    for (uint32_t k = 1; k < SMALL; k++) { // each has 1/16, exactly
        struct bnt_sampling s = {1, 0, (float)k / SMALL, k};
        assert_int_equal(drawn_set(logits, s, 2000), (1u << k) - 1);
    }
    for (uint32_t k = 1; k < SMALL; k++) {
        struct bnt_sampling s = {1, 0, nextafterf((float)k / SMALL, 1), k};
        assert_int_equal(drawn_set(logits, s, 2000), (1u << (k + 1)) - 1);
    }
}

static void ties_at_the_border_of_top_k_go_by_id(void **state)
{
    static const float logits[SMALL] = {0, 1, 0, 2, 1, 0, 1, 2, 1, 0};
    (void)state;
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 2, 1, 1}, 2000), 1 << 3 | 1 << 7);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 4, 1, 1}, 4000),
                     1 << 3 | 1 << 7 | 1 << 1 | 1 << 4);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 7, 1, 1}, 8000),
                     1 << 3 | 1 << 7 | 1 << 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 0);
}

static void top_p_keeps_the_fewest_that_reach_it(void **state)
{
    const float logits[SMALL] = {logf(1), logf(2), logf(4), logf(8), -40, -40, -40, -40,
                                 -40,     -40,     -40,     -40,     -40, -40, -40, -40};
    (void)state; // 1/15, 2/15, 4/15, 8/15
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 0, 0.5f, 1}, 500), 1 << 3);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 0, 0.6f, 1}, 500), 3 << 2);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 0, 0.79f, 1}, 500), 3 << 2);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 0, 0.81f, 1}, 500), 7 << 1);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 0, 0.95f, 1}, 500), 15);
}

// top_p counts in what top_k has left.
static void top_p_comes_after_top_k(void **state)
{
    const float logits[SMALL] = {logf(1), logf(2), logf(4), logf(8)};
    (void)state; // of the two most likely: 1/3 and 2/3
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 2, 0.65f, 1}, 500), 1 << 3);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling){1, 2, 0.68f, 1}, 500), 3 << 2);
}

static uint32_t define_greedy(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static void many_ways_to_be_greedy(void **state)
{
    static const struct bnt_sampling settings[] = {
        {0, 0, 1, 1},      {0, 5, 0.5f, 2},  {1, 1, 1, 3}, {1, 0, 1e-6f, 4},
        {3, 0, 1e-20f, 5}, {1e-6f, 0, 1, 6}, {-1, 0, 1, 7}};
    float logits[SMALL];
    uint64_t random = 3;
    (void)state;
    for (int round = 0; round < 500; round++) {
        random_logits(logits, SMALL, 5, &random);
        for (size_t i = 0; i < TEST_COUNT(settings); i++) {
            uint64_t s = settings[i].seed + (uint64_t)round;
            assert_int_equal(sample(SMALL, logits, settings[i], &s), define_greedy(logits, SMALL));
        }
    }
}

// Dividing by a very small temperature overflows; the limit is still the most likely token.
static void a_tiny_temperature_is_greedy(void **state)
{
    static const float temperatures[] = {1e-30f, 1e-37f, FLT_MIN, 1e-40f, 1e-45f};
    float logits[SMALL];
    uint64_t random = 4;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(temperatures); i++) {
        for (int round = 0; round < 50; round++) {
            struct bnt_sampling s = {temperatures[i], 0, round % 2 ? 0.9f : 1, 5};
            uint64_t seed = (uint64_t)round;
            random_logits(logits, SMALL, 20, &random);
            if (sample(SMALL, logits, s, &seed) != define_greedy(logits, SMALL))
                fail_msg("temperature %g is not greedy", (double)temperatures[i]);
        }
    }
}

static void a_huge_temperature_is_uniform(void **state)
{
    float logits[SMALL];
    uint64_t random = 5;
    (void)state;
    random_logits(logits, SMALL, 5, &random);
    check_distribution(SMALL, logits, (struct bnt_sampling){1e30f, 0, 1, 1}, 20000);
}

// --- logits that are not numbers ---

static void nan_is_never_chosen(void **state)
{
    float logits[SMALL];
    uint64_t random = 6, s = 1;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        uint32_t good = test_random_below(&random, SMALL);
        struct bnt_sampling sampling = {(float)(round % 3), (uint32_t)round % 5,
                                        round % 7 ? 1 : 0.5f, 0};
        random_logits(logits, SMALL, 5, &random);
        for (uint32_t i = 0; i < SMALL; i++)
            logits[i] = i != good && test_random(&random) & 1 ? NAN : logits[i];
        assert_true(!isnan(logits[sample(SMALL, logits, sampling, &s)]));
    }
}

static void only_nan_or_infinite_still_gives_a_token(void **state)
{
    static const float values[] = {NAN, -INFINITY, INFINITY};
    float logits[SMALL];
    uint64_t s = 1;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(values); i++) {
        for (uint32_t j = 0; j < SMALL; j++)
            logits[j] = values[i];
        (void)sample(SMALL, logits, (struct bnt_sampling){1, 3, 0.9f, 0}, &s);
        (void)sample(SMALL, logits, (struct bnt_sampling){0, 0, 1, 0}, &s);
    }
    for (uint32_t j = 0; j < SMALL; j++)
        logits[j] = j == 9 ? INFINITY : j % 2 ? NAN : 1;
    assert_int_equal(sample(SMALL, logits, (struct bnt_sampling){1, 0, 1, 0}, &s), 9);
    for (uint32_t j = 0; j < SMALL; j++)
        logits[j] = j == 5 ? -1000 : -INFINITY;
    assert_int_equal(sample(SMALL, logits, (struct bnt_sampling){1, 0, 1, 0}, &s), 5);
    assert_int_equal(sample(SMALL, logits, (struct bnt_sampling){1, 4, 0.99f, 0}, &s), 5);
}

// --- the generator ---

static void the_state_decides(void **state)
{
    float logits[SMALL] = {0};
    uint64_t a = 42, b = 42, c = 43;
    size_t same = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        struct bnt_sampling s = {1, 0, 1, 0};
        uint32_t id = sample(SMALL, logits, s, &a);
        assert_int_equal(id, sample(SMALL, logits, s, &b));
        same += id == sample(SMALL, logits, s, &c);
    }
    assert_true(a == b && same < 150); // about 1/16 by chance
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(draws_from_a_large_vocabulary),
        cmocka_unit_test(of_equal_logits_the_lower_ids_are_kept),
        cmocka_unit_test(ties_at_the_border_of_top_k_go_by_id),
        cmocka_unit_test(top_p_keeps_the_fewest_that_reach_it),
        cmocka_unit_test(top_p_comes_after_top_k),
        cmocka_unit_test(many_ways_to_be_greedy),
        cmocka_unit_test(a_tiny_temperature_is_greedy),
        cmocka_unit_test(a_huge_temperature_is_uniform),
        cmocka_unit_test(nan_is_never_chosen),
        cmocka_unit_test(only_nan_or_infinite_still_gives_a_token),
        cmocka_unit_test(the_state_decides),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
