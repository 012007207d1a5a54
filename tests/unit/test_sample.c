// SPDX-License-Identifier: MIT
// Sampling must follow the probabilities that it claims, keep exactly the tokens that top_k and
// top_p ask for, and choose something sensible whatever the logits are. Seeds are fixed: a test
// that passes once passes always.
#include <float.h>
#include <math.h>

#include "runtime/bnt.h"
#include "runtime/engine/penalty.h"
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
    const struct bnt_session_options options = {.context = 32, .threads = 1};
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

// Draws many times; the counts must fit the probabilities of the n tokens that are kept
// (chi-square), and no other token may come.
static void check_draws(uint32_t vocab, const float *logits, struct bnt_sampling s,
                        const struct ranked *kept, uint32_t n, size_t draws)
{
    size_t *count = test_alloc(vocab * sizeof *count);
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
    free(count);
    if (seen != draws)
        fail_msg("%zu of %zu draws are tokens that were not kept", draws - seen, draws);
    // Mean of chi-square is cells − 1, its variance twice that: five sigmas, and a little for few.
    double limit = (double)cells + 5 * sqrt(2 * (double)cells) + 10;
    if (chi > limit)
        fail_msg("chi-square is %g, limit %g (top_k %u, top_p %g, temperature %g)", chi, limit,
                 s.top_k, (double)s.top_p, (double)s.temperature);
}

static void check_distribution(uint32_t vocab, const float *logits, struct bnt_sampling s,
                               size_t draws)
{
    struct ranked *kept = test_alloc(vocab * sizeof *kept);
    check_draws(vocab, logits, s, kept, define_kept(logits, vocab, s, kept), draws);
    free(kept);
}

static void random_logits(float *logits, uint32_t vocab, float spread, uint64_t *random)
{
    for (uint32_t i = 0; i < vocab; i++)
        logits[i] = test_random_float(random) * spread;
}

static void draws_follow_the_probabilities(void **state)
{
    static const struct bnt_sampling settings[] = {
        TEST_SAMPLING(1, 0, 1, 11),       TEST_SAMPLING(0.7f, 0, 1, 12),
        TEST_SAMPLING(2.5f, 0, 1, 13),    TEST_SAMPLING(1, 5, 1, 14),
        TEST_SAMPLING(1, 0, 0.9f, 15),    TEST_SAMPLING(1, 0, 0.3f, 16),
        TEST_SAMPLING(0.8f, 7, 0.8f, 17), TEST_SAMPLING(1, 1, 1, 18),
        TEST_SAMPLING(1, SMALL, 1, 19),   TEST_SAMPLING(1, 1000, 1, 20),
        TEST_SAMPLING(5, 3, 0.999f, 21),  TEST_SAMPLING(0.3f, 0, 0.95f, 22),
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
    static const struct bnt_sampling settings[] = {
        TEST_SAMPLING(1, 0, 1, 31), TEST_SAMPLING(0.8f, 40, 0.95f, 32),
        TEST_SAMPLING(1, 0, 0.9f, 33), TEST_SAMPLING(0.5f, 500, 1, 34),
        TEST_SAMPLING(1, 2999, 1, 35)};
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
        struct bnt_sampling s = TEST_SAMPLING(1, k, 1, k);
        assert_int_equal(drawn_set(logits, s, 2000), (1u << k) - 1);
    }
    for (uint32_t k = 1; k < SMALL; k++) { // each has 1/16, exactly
        struct bnt_sampling s = TEST_SAMPLING(1, 0, (float)k / SMALL, k);
        assert_int_equal(drawn_set(logits, s, 2000), (1u << k) - 1);
    }
    for (uint32_t k = 1; k < SMALL; k++) {
        struct bnt_sampling s = TEST_SAMPLING(1, 0, nextafterf((float)k / SMALL, 1), k);
        assert_int_equal(drawn_set(logits, s, 2000), (1u << (k + 1)) - 1);
    }
}

static void ties_at_the_border_of_top_k_go_by_id(void **state)
{
    static const float logits[SMALL] = {0, 1, 0, 2, 1, 0, 1, 2, 1, 0};
    (void)state;
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 2, 1, 1), 2000),
                     1 << 3 | 1 << 7);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 4, 1, 1), 4000),
                     1 << 3 | 1 << 7 | 1 << 1 | 1 << 4);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 7, 1, 1), 8000),
                     1 << 3 | 1 << 7 | 1 << 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 0);
}

static void top_p_keeps_the_fewest_that_reach_it(void **state)
{
    const float logits[SMALL] = {logf(1), logf(2), logf(4), logf(8), -40, -40, -40, -40,
                                 -40,     -40,     -40,     -40,     -40, -40, -40, -40};
    (void)state; // 1/15, 2/15, 4/15, 8/15
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 0, 0.5f, 1), 500),
                     1 << 3);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 0, 0.6f, 1), 500),
                     3 << 2);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 0, 0.79f, 1), 500),
                     3 << 2);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 0, 0.81f, 1), 500),
                     7 << 1);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 0, 0.95f, 1), 500),
                     15);
}

// top_p counts in what top_k has left.
static void top_p_comes_after_top_k(void **state)
{
    const float logits[SMALL] = {logf(1), logf(2), logf(4), logf(8)};
    (void)state; // of the two most likely: 1/3 and 2/3
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 2, 0.65f, 1), 500),
                     1 << 3);
    assert_int_equal(drawn_set(logits, (struct bnt_sampling)TEST_SAMPLING(1, 2, 0.68f, 1), 500),
                     3 << 2);
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
        TEST_SAMPLING(0, 0, 1, 1),      TEST_SAMPLING(0, 5, 0.5f, 2),
        TEST_SAMPLING(1, 1, 1, 3),      TEST_SAMPLING(1, 0, 1e-6f, 4),
        TEST_SAMPLING(3, 0, 1e-20f, 5), TEST_SAMPLING(1e-6f, 0, 1, 6),
        TEST_SAMPLING(-1, 0, 1, 7)};
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
            struct bnt_sampling s = TEST_SAMPLING(temperatures[i], 0, round % 2 ? 0.9f : 1, 5);
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
    check_distribution(SMALL, logits, (struct bnt_sampling)TEST_SAMPLING(1e30f, 0, 1, 1), 20000);
}

// --- logits that are not numbers ---

static void nan_is_never_chosen(void **state)
{
    float logits[SMALL];
    uint64_t random = 6, s = 1;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        uint32_t good = test_random_below(&random, SMALL);
        struct bnt_sampling sampling =
            TEST_SAMPLING((float)(round % 3), (uint32_t)round % 5, round % 7 ? 1 : 0.5f, 0);
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
        (void)sample(SMALL, logits, (struct bnt_sampling)TEST_SAMPLING(1, 3, 0.9f, 0), &s);
        (void)sample(SMALL, logits, (struct bnt_sampling)TEST_SAMPLING(0, 0, 1, 0), &s);
    }
    for (uint32_t j = 0; j < SMALL; j++)
        logits[j] = j == 9 ? INFINITY : j % 2 ? NAN : 1;
    assert_int_equal(sample(SMALL, logits, (struct bnt_sampling)TEST_SAMPLING(1, 0, 1, 0), &s), 9);
    for (uint32_t j = 0; j < SMALL; j++)
        logits[j] = j == 5 ? -1000 : -INFINITY;
    assert_int_equal(sample(SMALL, logits, (struct bnt_sampling)TEST_SAMPLING(1, 0, 1, 0), &s), 5);
    assert_int_equal(sample(SMALL, logits, (struct bnt_sampling)TEST_SAMPLING(1, 4, 0.99f, 0), &s),
                     5);
}

// --- penalties and min_p, against transformers ---

// What transformers 5.24 makes of these logits: RepetitionPenaltyLogitsProcessor, then OpenAI's
// frequency and presence penalties written in torch, then the warpers of temperature, top_k, top_p
// and min_p in its order. Logits to the bit; probabilities in the end.
static const float golden_logits[SMALL] = {
    -0.328125f, -0.3125f,   0.859375f, -1.125f, -2.21875f, -0.875f,    -3.34375f, 1.3125f,
    -2.78125f,  -1.796875f, 2.609375f, -3.125f, -1.28125f, -0.953125f, -1.21875f, 1.328125f};

static const struct golden {
    uint32_t prompt[4], n_prompt, generated[4], n_generated;
    struct bnt_sampling sampling;
    struct {
        uint32_t id;
        float logit;
    } penalized[6];            // the others keep theirs; ends with a logit of 0
    struct ranked kept[SMALL]; // most likely first; ends with a probability of 0
} goldens[] = {
    {{3, 7, 7, 1},
     4,
     {2, 2, 9},
     3,
     {.temperature = 1.0f,
      .top_k = 0,
      .top_p = 1.0f,
      .min_p = 0.0f,
      .repetition_penalty = 1.3f,
      .presence_penalty = 0,
      .frequency_penalty = 0},
     {{1, -0.40625f}, {2, 0.661057711f}, {3, -1.46249998f}, {7, 1.00961542f}, {9, -2.3359375f}},
     {{0.5353494, 10},
      {0.1486612, 15},
      {0.1081112, 7},
      {0.07629462, 2},
      {0.02837248, 0},
      {0.02624025, 1},
      {0.01642073, 5},
      {0.01518669, 13},
      {0.01164404, 14},
      {0.01093857, 12},
      {0.009125244, 3},
      {0.004283604, 4},
      {0.003809916, 9},
      {0.002440724, 8},
      {0.001730732, 11},
      {0.001390683, 6}}},
    {{3, 7, 7, 1},
     4,
     {2, 2, 9},
     3,
     {.temperature = 1.0f,
      .top_k = 0,
      .top_p = 1.0f,
      .min_p = 0.0f,
      .repetition_penalty = 0.8f,
      .presence_penalty = 0,
      .frequency_penalty = 0},
     {{1, -0.25f}, {2, 1.07421875f}, {3, -0.900000036f}, {7, 1.640625f}, {9, -1.4375f}},
     {{0.4651208, 10},
      {0.1765399, 7},
      {0.1291594, 15},
      {0.1001973, 2},
      {0.02665354, 1},
      {0.0246505, 0},
      {0.01426661, 5},
      {0.01391437, 3},
      {0.01319446, 13},
      {0.01011654, 14},
      {0.009503614, 12},
      {0.008128872, 9},
      {0.003721669, 4},
      {0.002120543, 8},
      {0.00150369, 11},
      {0.001208249, 6}}},
    {{3, 7, 7, 1},
     4,
     {2, 2, 9, 2},
     4,
     {.temperature = 1.0f,
      .top_k = 0,
      .top_p = 1.0f,
      .min_p = 0.0f,
      .repetition_penalty = 1,
      .presence_penalty = 0.75f,
      .frequency_penalty = 0.5f},
     {{2, -1.390625f}, {9, -3.046875f}},
     {{0.5484802, 10},
      {0.1523075, 15},
      {0.1499461, 7},
      {0.02952615, 1},
      {0.02906839, 0},
      {0.01682349, 5},
      {0.01555919, 13},
      {0.01310215, 3},
      {0.01192964, 14},
      {0.01120686, 12},
      {0.01004577, 2},
      {0.00438867, 4},
      {0.002500589, 8},
      {0.001917268, 9},
      {0.001773183, 11},
      {0.001424792, 6}}},
    {{0},
     1,
     {0},
     0,
     {.temperature = 0.7f,
      .top_k = 0,
      .top_p = 1.0f,
      .min_p = 0.1f,
      .repetition_penalty = 1,
      .presence_penalty = 0,
      .frequency_penalty = 0},
     {{0}},
     {{0.7592018, 10}, {0.1217428, 15}, {0.1190554, 7}}},
    {{5, 0},
     2,
     {11, 11, 4, 11},
     4,
     {.temperature = 0.7f,
      .top_k = 9,
      .top_p = 0.9f,
      .min_p = 0.06f,
      .repetition_penalty = 1.2f,
      .presence_penalty = 0.3f,
      .frequency_penalty = 0.2f},
     {{0, -0.393750012f}, {4, -3.16250014f}, {5, -1.05000007f}, {11, -4.65000057f}},
     {{0.7592018, 10}, {0.1217428, 15}, {0.1190554, 7}}},
    {{5, 0},
     2,
     {11, 11, 4, 11},
     4,
     {.temperature = 1.5f,
      .top_k = 0,
      .top_p = 0.8f,
      .min_p = 0.3f,
      .repetition_penalty = 1.1f,
      .presence_penalty = -1,
      .frequency_penalty = -0.25f},
     {{0, -0.360937506f}, {4, -1.19062495f}, {5, -0.962500036f}, {11, -1.6875f}},
     {{0.4633345, 10}, {0.1972126, 15}, {0.195169, 7}, {0.1442838, 2}}},
    {{8},
     1,
     {8, 8, 8},
     3,
     {.temperature = 1.0f,
      .top_k = 3,
      .top_p = 1.0f,
      .min_p = 0.5f,
      .repetition_penalty = 5,
      .presence_penalty = 2,
      .frequency_penalty = 2},
     {{8, -21.90625f}},
     {{1, 10}}},
};

static void ok(enum bnt_status status)
{
    assert_int_equal(status, BNT_OK);
}

static void see(struct bnt_session *s, const struct golden *g)
{
    ok(bnt_session_rewind(s, 0, NULL));
    ok(bnt_evaluate(s, g->prompt, g->n_prompt, BNT_LOGITS_NONE, NULL, NULL));
    bnt_session_end_prompt(s);
    if (g->n_generated)
        ok(bnt_evaluate(s, g->generated, g->n_generated, BNT_LOGITS_NONE, NULL, NULL));
}

static uint32_t count_of(const uint32_t *list, uint32_t n, uint32_t token)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        count += list[i] == token;
    return count;
}

static void penalties_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(goldens); i++) {
        const struct golden *g = &goldens[i];
        for (size_t j = 0; g->penalized[j].logit != 0; j++) {
            uint32_t id = g->penalized[j].id;
            float logit =
                bnt_penalize(golden_logits[id], count_of(g->generated, g->n_generated, id),
                             bnt_penalties_of(&g->sampling));
            if (logit != g->penalized[j].logit)
                fail_msg("case %zu, token %u: %.9g, not %.9g", i, id, (double)logit,
                         (double)g->penalized[j].logit);
        }
    }
}

static void draws_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(goldens); i++) {
        const struct golden *g = &goldens[i];
        struct bnt_sampling greedy = g->sampling;
        uint32_t n = 0;
        uint64_t seed = 0;
        while (n < SMALL && g->kept[n].p > 0)
            n++;
        see(session_for(SMALL), g);
        check_draws(SMALL, golden_logits, g->sampling, g->kept, n, TEST_SANITIZED ? 5000 : 40000);
        greedy.temperature = 0;
        assert_int_equal(sample(SMALL, golden_logits, greedy, &seed), g->kept[0].id);
        ok(bnt_session_rewind(session_for(SMALL), 0, NULL));
    }
}

// With such a penalty, a token that was seen never comes; so the draws show what counts as seen.
static void what_was_seen_follows_the_session(void **state)
{
    static const uint32_t tokens[] = {1, 2, 3, 4};
    static const struct bnt_sampling repetition = {.temperature = 1, .repetition_penalty = 100},
                                     presence = {.temperature = 1, .presence_penalty = 2};
    struct bnt_session *s = session_for(SMALL);
    float logits[SMALL];
    (void)state;
    for (uint32_t i = 0; i < SMALL; i++)
        logits[i] = i < 6 ? -1 : -100; // times 100, or less 2 for the greedy one below
    ok(bnt_session_rewind(s, 0, NULL));
    assert_int_equal(drawn_set(logits, repetition, 500), 0x3F);
    ok(bnt_evaluate(s, tokens, 4, BNT_LOGITS_NONE, NULL, NULL));
    assert_int_equal(drawn_set(logits, repetition, 500), 0x21);
    ok(bnt_session_rewind(s, 2, NULL));
    assert_int_equal(drawn_set(logits, repetition, 500), 0x39);
    ok(bnt_evaluate(s, tokens + 3, 1, BNT_LOGITS_NONE, NULL, NULL));
    assert_int_equal(drawn_set(logits, repetition, 500), 0x29);
    // Nothing of this counts as generated until the prompt ends; then tokens do, once more each.
    struct bnt_sampling greedy = presence;
    uint64_t seed = 0;
    greedy.temperature = 0;
    logits[4] = -0.5f;
    assert_int_equal(sample(SMALL, logits, greedy, &seed), 4);
    bnt_session_end_prompt(s);
    assert_int_equal(sample(SMALL, logits, greedy, &seed), 4);
    ok(bnt_evaluate(s, tokens + 3, 1, BNT_LOGITS_NONE, NULL, NULL));
    assert_int_equal(sample(SMALL, logits, greedy, &seed), 0);
    greedy = (struct bnt_sampling){.frequency_penalty = 0.2f};
    assert_int_equal(sample(SMALL, logits, greedy, &seed), 4); // -0.7
    ok(bnt_evaluate(s, tokens + 3, 1, BNT_LOGITS_NONE, NULL, NULL));
    assert_int_equal(sample(SMALL, logits, greedy, &seed), 4); // -0.9
    ok(bnt_evaluate(s, tokens + 3, 1, BNT_LOGITS_NONE, NULL, NULL));
    assert_int_equal(sample(SMALL, logits, greedy, &seed), 0); // -1.1
    ok(bnt_session_rewind(s, 4, NULL));
    assert_int_equal(sample(SMALL, logits, greedy, &seed), 4); // -0.7
    ok(bnt_session_rewind(s, 1, NULL)); // into the prompt: its end is forgotten
    ok(bnt_evaluate(s, tokens + 3, 1, BNT_LOGITS_NONE, NULL, NULL));
    assert_int_equal(sample(SMALL, logits, (struct bnt_sampling){.presence_penalty = 2}, &seed), 4);
    ok(bnt_session_rewind(s, 0, NULL));
}

static void min_p_is_a_share_of_the_likeliest(void **state)
{
    const float logits[SMALL] = {logf(1), logf(2), logf(4), logf(8), -40, -40, -40, -40,
                                 -40,     -40,     -40,     -40,     -40, -40, -40, -40};
    struct bnt_sampling s = {.temperature = 1, .seed = 1};
    (void)state;
    static const struct {
        float min_p;
        uint32_t set;
    } cuts[] = {{0.51f, 8}, {0.49f, 12}, {0.26f, 12}, {0.24f, 14}, {0.12f, 15}, {1, 8}, {7, 8}};
    for (size_t i = 0; i < TEST_COUNT(cuts); i++) {
        s.min_p = cuts[i].min_p;
        assert_int_equal(drawn_set(logits, s, 2000), cuts[i].set);
    }
    s.min_p = 0.24f; // temperature comes before it: 1/4 of the likeliest is 1/16
    s.temperature = 0.5f;
    assert_int_equal(drawn_set(logits, s, 2000), 12);
    const float equal[SMALL] = {0};
    assert_int_equal(drawn_set(equal, (struct bnt_sampling){.temperature = 1, .min_p = 1}, 2000),
                     0xFFFF);
}

static void values_out_of_their_range_are_refused(void **state)
{
    static const struct {
        const char *name;
        struct bnt_sampling sampling;
    } bad[] = {
        {"min_p", {.min_p = 1.01f}},
        {"min_p", {.min_p = -0.1f}},
        {"min_p", {.min_p = NAN}},
        {"repetition_penalty", {.repetition_penalty = -1}},
        {"repetition_penalty", {.repetition_penalty = 101}},
        {"repetition_penalty", {.repetition_penalty = NAN}},
        {"presence_penalty", {.presence_penalty = 2.1f}},
        {"presence_penalty", {.presence_penalty = -INFINITY}},
        {"frequency_penalty", {.frequency_penalty = -2.1f}},
        {"frequency_penalty", {.frequency_penalty = NAN}},
    };
    static const struct bnt_sampling good[] = {
        {0},
        {.min_p = 1, .repetition_penalty = 100, .presence_penalty = -2, .frequency_penalty = 2}};
    struct bnt_session *s = session_for(SMALL);
    struct bnt_error err;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        const struct bnt_generation generation = {.max_tokens = 1, .sampling = bad[i].sampling};
        struct bnt_generation_result result;
        const uint32_t prompt = 0;
        assert_int_equal(bnt_sampling_check(&bad[i].sampling, &err), BNT_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, bad[i].name));
        assert_int_equal(bnt_generate(s, &prompt, 1, &generation, &result, &err), BNT_ERR_ARGUMENT);
        assert_int_equal(bnt_session_position(s), 0);
    }
    for (size_t i = 0; i < TEST_COUNT(good); i++)
        ok(bnt_sampling_check(&good[i], &err));
}

// --- the generator ---

static void the_state_decides(void **state)
{
    float logits[SMALL] = {0};
    uint64_t a = 42, b = 42, c = 43;
    size_t same = 0;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        struct bnt_sampling s = TEST_SAMPLING(1, 0, 1, 0);
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
        cmocka_unit_test(penalties_are_those_of_transformers),
        cmocka_unit_test(draws_are_those_of_transformers),
        cmocka_unit_test(what_was_seen_follows_the_session),
        cmocka_unit_test(min_p_is_a_share_of_the_likeliest),
        cmocka_unit_test(values_out_of_their_range_are_refused),
        cmocka_unit_test(the_state_decides),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
