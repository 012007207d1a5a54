// SPDX-License-Identifier: MIT
// The same tokens must give the same bits of logits however they are fed, with any number of
// threads, any kernels, and beside any other session; and a call that is refused must change
// nothing.
#include <limits.h>
#include <math.h>
#include <pthread.h>

#include "runtime/kernels/kernels.h"
#include "tests/unit/fairy.h"
#include "tests/unit/tiny_model.h"

enum { TOKENS = 40, MANY_TOKENS = 300 };
_Static_assert(MANY_TOKENS > 2 * BNT_MAX_BATCH, "three batches");

static const char *const checkpoints[] = {"fairy-6m", "variants/2b-packed", "variants/llama-packed",
                                          "variants/1bitllm-f32"};
// The others are random models of sizes that no multiple of anything fits.
static const char *const files[] = {"0.bnt", "1.bnt", "2.bnt", "3.bnt", "4.bnt",
                                    "5.bnt", "6.bnt", "7.bnt", NULL};
enum { MODELS = 6, ODD_MODELS = 8 };
static char *dir;

static void make_odd_model(const char *name, uint32_t ffn, uint32_t flags, uint32_t kv_heads,
                           uint32_t head_dim)
{
    char *path = test_join(dir, name);
    struct bnt_hyper h = tiny_hyper(77);
    h.n_layers = 2;
    h.hidden_size = 45;
    h.ffn_size = ffn;
    h.n_heads = kv_heads == 3 ? 6 : 4;
    h.n_kv_heads = kv_heads;
    h.head_dim = head_dim;
    h.max_context = MANY_TOKENS;
    h.flags = flags;
    h.activation = BNT_ACTIVATION_SILU;
    tiny_write(path, &h, NULL, 0, ffn);
    free(path);
}

static int make_models(void **state)
{
    (void)state;
    dir = test_make_dir();
    for (size_t i = 0; i < TEST_COUNT(checkpoints); i++)
        test_make_model(checkpoints[i], dir, files[i]);
    make_odd_model(files[4], 101, BNT_HYPER_SUB_NORMS | BNT_HYPER_F32_EMBEDDINGS, 3, 14);
    make_odd_model(files[5], 17, BNT_HYPER_TIED, 3, 2);
    make_odd_model(files[6], 33, BNT_HYPER_TIED | BNT_HYPER_SUB_NORMS, 4, 24); // a query a key head
    make_odd_model(files[7], 64, BNT_HYPER_TIED, 1, 34);                       // four
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    test_remove_dir(dir, files);
    return 0;
}

static void some_tokens(const struct bnt_model *model, uint32_t *tokens, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        tokens[i] = test_random_below(&seed, bnt_model_info(model)->vocab_size);
}

static uint32_t vocab_of(const struct bnt_model *model)
{
    return bnt_model_info(model)->vocab_size;
}

// --- the same bits ---

// Feeds the tokens in pieces whose sizes repeat; returns all logits (n, vocab).
static float *evaluate(const struct bnt_model *model, const uint32_t *tokens, size_t n,
                       const size_t *pieces, size_t n_pieces, uint32_t threads)
{
    struct bnt_session *session = test_open_session(model, TOKENS + 3, threads);
    size_t vocab = vocab_of(model);
    float *logits = test_alloc(n * vocab * sizeof *logits);
    struct bnt_error err;
    for (size_t at = 0, i = 0; at < n; i++) {
        size_t size = pieces[i % n_pieces] < n - at ? pieces[i % n_pieces] : n - at;
        enum bnt_logits which = size == 1 ? BNT_LOGITS_LAST : BNT_LOGITS_ALL;
        test_ok(bnt_evaluate(session, tokens + at, size, which, logits + at * vocab, &err), &err);
        at += size;
        assert_int_equal(bnt_session_position(session), at);
    }
    bnt_session_close(session);
    return logits;
}

static void compare(const struct bnt_model *model, const float *expected, const uint32_t *tokens,
                    const size_t *pieces, size_t n_pieces, uint32_t threads)
{
    size_t vocab = vocab_of(model);
    float *logits = evaluate(model, tokens, TOKENS, pieces, n_pieces, threads);
    for (size_t t = 0; t < TOKENS; t++) {
        if (memcmp(logits + t * vocab, expected + t * vocab, vocab * sizeof *logits) != 0)
            fail_msg("%s, %u threads, pieces of %zu: other logits at position %zu",
                     bnt_model_info(model)->kernel, threads, pieces[0], t);
    }
    free(logits);
}

static void compare_ways(const struct bnt_model *model, const float *expected,
                         const uint32_t *tokens)
{
    static const size_t all[] = {TOKENS}, ones[] = {1}, mixed[] = {7, 1, 3}, batches[] = {32, 8};
    compare(model, expected, tokens, all, 1, 1);
    compare(model, expected, tokens, ones, 1, 1);
    compare(model, expected, tokens, mixed, 3, 2);
    compare(model, expected, tokens, batches, 2, 3);
}

static void logits_do_not_depend_on_pieces_threads_or_kernels(void **state)
{
    const size_t all[] = {TOKENS};
    (void)state;
    for (size_t i = TEST_TSAN ? 2 : 0; i < MODELS; i++) {
        struct bnt_model *model = test_open_model(dir, files[i], "scalar");
        uint32_t tokens[TOKENS];
        some_tokens(model, tokens, TOKENS, i);
        float *expected = evaluate(model, tokens, TOKENS, all, 1, 1);
        bnt_model_close(model);
        for (size_t k = 0; bnt_kernel_name(k); k++) {
            model = test_open_model(dir, files[i], bnt_kernel_name(k));
            assert_string_equal(bnt_model_info(model)->kernel, bnt_kernel_name(k));
            compare_ways(model, expected, tokens);
            bnt_model_close(model);
        }
        free(expected);
    }
}

// --- more tokens than one batch, and both caches ---

// All logits (n, vocab) of a session of its own, fed in pieces of `piece` tokens.
static float *feed(const struct bnt_model *model, struct bnt_session_options options,
                   const uint32_t *tokens, size_t n, size_t piece)
{
    struct bnt_session *session = test_open_session_as(model, options);
    size_t vocab = vocab_of(model);
    float *logits = test_alloc(n * vocab * sizeof *logits);
    struct bnt_error err;
    for (size_t at = 0, size; at < n; at += size) {
        size = piece < n - at ? piece : n - at;
        test_ok(bnt_evaluate(session, tokens + at, size, BNT_LOGITS_ALL, logits + at * vocab, &err),
                &err);
    }
    assert_int_equal(bnt_session_position(session), n);
    bnt_session_close(session);
    return logits;
}

static void check_feed(const struct bnt_model *model, struct bnt_session_options options,
                       const uint32_t *tokens, size_t n, size_t piece, const float *expected)
{
    size_t vocab = vocab_of(model);
    float *logits = feed(model, options, tokens, n, piece);
    for (size_t t = 0; t < n; t++) {
        if (memcmp(logits + t * vocab, expected + t * vocab, vocab * sizeof *logits) != 0)
            fail_msg("%s, cache %d, %u threads, %zu tokens by %zu: other logits at position %zu",
                     bnt_model_info(model)->kernel, (int)options.cache, options.threads, n, piece,
                     t);
    }
    free(logits);
}

static const enum bnt_cache caches[] = {BNT_CACHE_F16, BNT_CACHE_F32};
static const size_t lengths[] = {127, 128, 129, 256, 257, MANY_TOKENS};

static void long_prompts_are_as_token_by_token(void **state)
{
    (void)state;
    for (size_t i = MODELS - 2; i < ODD_MODELS; i++) {
        for (size_t c = 0; c < TEST_COUNT(caches); c++) {
            struct bnt_model *model = test_open_model(dir, files[i], "scalar");
            struct bnt_session_options options = {
                .context = MANY_TOKENS, .threads = 1, .cache = caches[c]};
            uint32_t tokens[MANY_TOKENS];
            some_tokens(model, tokens, MANY_TOKENS, i);
            float *expected = feed(model, options, tokens, MANY_TOKENS, 1);
            bnt_model_close(model);
            for (size_t k = 0; bnt_kernel_name(k); k++) {
                model = test_open_model(dir, files[i], bnt_kernel_name(k));
                for (size_t j = 0; j < TEST_COUNT(lengths); j++) {
                    options.threads = (uint32_t)(1 + (j + k) % (TEST_SANITIZED ? 2 : 5));
                    options.context = (uint32_t)(j % 2 ? lengths[j] : MANY_TOKENS);
                    check_feed(model, options, tokens, lengths[j], lengths[j], expected);
                }
                options.threads = 1;
                options.context = MANY_TOKENS;
                check_feed(model, options, tokens, 40, 1, expected);
                check_feed(model, options, tokens, MANY_TOKENS, 131, expected);
                bnt_model_close(model);
            }
            free(expected);
        }
    }
}

// The last tokens one by one, where a trained model is large enough for threads to share the
// attention of one.
static void check_tail(const struct bnt_model *model, struct bnt_session_options options,
                       const uint32_t *tokens, size_t n, const float *expected)
{
    const size_t vocab = vocab_of(model), tail = 12;
    struct bnt_session *session = test_open_session_as(model, options);
    float *logits = test_alloc(vocab * sizeof *logits);
    test_ok(bnt_evaluate(session, tokens, n - tail, BNT_LOGITS_NONE, NULL, NULL), NULL);
    for (size_t t = n - tail; t < n; t++) {
        test_ok(bnt_evaluate(session, tokens + t, 1, BNT_LOGITS_LAST, logits, NULL), NULL);
        assert_memory_equal(logits, expected + t * vocab, vocab * sizeof *logits);
    }
    free(logits);
    bnt_session_close(session);
}

static void long_prompts_of_a_trained_model(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[0], NULL);
    const size_t n = TEST_TSAN ? 140 : MANY_TOKENS;
    uint32_t tokens[MANY_TOKENS];
    (void)state;
    some_tokens(model, tokens, n, 3);
    for (size_t c = 0; c < TEST_COUNT(caches); c++) {
        struct bnt_session_options options = {
            .context = MANY_TOKENS, .threads = 1, .cache = caches[c]};
        float *expected = feed(model, options, tokens, n, n);
        check_feed(model, options, tokens, n, 1, expected);
        for (options.threads = 2; options.threads <= (TEST_SANITIZED ? 2 : 5); options.threads++) {
            check_feed(model, options, tokens, n, options.threads % 2 ? n : 77, expected);
            check_tail(model, options, tokens, n, expected);
        }
        options.threads = 2;
        for (size_t k = 1; bnt_kernel_name(k) && !TEST_SANITIZED; k++) {
            struct bnt_model *other = test_open_model(dir, files[0], bnt_kernel_name(k));
            check_feed(other, options, tokens, 129, 129, expected);
            bnt_model_close(other);
        }
        free(expected);
    }
    bnt_model_close(model);
}

static uint32_t likeliest(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

// Rounding keys and values moves logits as any rounding does where the next matrix rounds to 8
// bits: over 256 positions of the golden text by 0.03 on average and 0.34 at most, and 253 times
// the likeliest token is the same.
static void a_cache_of_halves_differs_but_mildly(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[0], NULL);
    const uint32_t vocab = vocab_of(model);
    const size_t n = TEST_TSAN ? 50 : 256;
    struct bnt_session_options options = {.context = 256, .threads = 2};
    size_t size, count, same = 0;
    struct bnt_error err;
    uint32_t *tokens;
    char *text = test_read_file(BNT_TEST_DATA "/fairy-6m/golden/eval.txt", &size);
    (void)state;
    test_ok(bnt_tokenize(model, text, 2000, BNT_TOKENIZE_SPECIAL, &tokens, &count, &err), &err);
    assert_true(count >= n);
    float *halves = feed(model, options, tokens, n, n);
    options.cache = BNT_CACHE_F32;
    float *floats = feed(model, options, tokens, n, n);
    double sum = 0, most = 0;
    for (size_t i = 0; i < n * vocab; i++) {
        double d = fabs((double)halves[i] - (double)floats[i]);
        sum += d;
        most = fmax(most, d);
    }
    for (size_t t = 0; t < n; t++)
        same += likeliest(halves + t * vocab, vocab) == likeliest(floats + t * vocab, vocab);
    sum /= (double)(n * vocab);
    assert_true(sum > 0 && sum < 0.06);
    assert_true(most < 1);
    assert_true(same * 100 >= n * 97);
    free(halves);
    free(floats);
    free(tokens);
    free(text);
    bnt_model_close(model);
}

// Keys lie in groups of 16 positions, of which the last may be cut by the context.
static void contexts_around_a_group_of_keys(void **state)
{
    static const uint32_t contexts[] = {1, 2, 15, 16, 17, 31, 32, 33};
    (void)state;
    for (size_t i = MODELS - 2; i < ODD_MODELS; i++) {
        struct bnt_model *model = test_open_model(dir, files[i], NULL);
        uint32_t tokens[33];
        some_tokens(model, tokens, 33, i);
        for (size_t c = 0; c < 2 * TEST_COUNT(contexts); c++) {
            struct bnt_session_options options = {
                .context = MANY_TOKENS, .threads = 1, .cache = caches[c % 2]};
            const uint32_t n = contexts[c / 2];
            float *expected = feed(model, options, tokens, n, n);
            options.context = n;
            check_feed(model, options, tokens, n, 1, expected);
            check_feed(model, options, tokens, n, 16, expected);
            options.threads = 2;
            check_feed(model, options, tokens, n, n, expected);
            struct bnt_session *session = test_open_session_as(model, options);
            assert_int_equal(bnt_evaluate(session, tokens, n + 1, BNT_LOGITS_NONE, NULL, NULL),
                             BNT_ERR_CONTEXT);
            bnt_session_close(session);
            free(expected);
        }
        bnt_model_close(model);
    }
}

static void only_the_asked_for_logits_are_written(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[1], NULL);
    struct bnt_session *session = test_open_session(model, 8, 1);
    struct test_guarded logits = test_guard(vocab_of(model) * sizeof(float));
    float *all = test_alloc(3 * vocab_of(model) * sizeof *all);
    uint32_t tokens[3];
    struct bnt_error err;
    (void)state;
    some_tokens(model, tokens, 3, 5);
    test_ok(bnt_evaluate(session, tokens, 3, BNT_LOGITS_LAST, (float *)(void *)logits.data, &err),
            &err);
    test_ok(bnt_session_rewind(session, 0, &err), &err);
    test_ok(bnt_evaluate(session, tokens, 2, BNT_LOGITS_NONE, NULL, &err), &err);
    test_ok(bnt_evaluate(session, tokens + 2, 1, BNT_LOGITS_ALL, all, &err), &err);
    assert_memory_equal(all, logits.data, vocab_of(model) * sizeof(float));
    test_ok(bnt_session_rewind(session, 0, &err), &err);
    test_ok(bnt_evaluate(session, tokens, 3, BNT_LOGITS_ALL, all, &err), &err);
    assert_memory_equal(all + 2 * vocab_of(model), logits.data, vocab_of(model) * sizeof(float));
    test_unguard(&logits);
    free(all);
    bnt_session_close(session);
    bnt_model_close(model);
}

// --- rewinding ---

static void rewinding_forgets_exactly_what_came_after(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[0], NULL);
    struct bnt_session *session = test_open_session(model, 32, 2);
    size_t bytes = vocab_of(model) * sizeof(float);
    float *expected = test_alloc(bytes), *logits = test_alloc(bytes);
    uint32_t tokens[20], others[20];
    struct bnt_error err;
    (void)state;
    some_tokens(model, tokens, 20, 1);
    some_tokens(model, others, 20, 2);
    test_ok(bnt_evaluate(session, tokens, 20, BNT_LOGITS_LAST, expected, &err), &err);
    for (uint32_t keep = 0; keep < 20; keep += 3) {
        test_ok(bnt_session_rewind(session, keep, &err), &err);
        assert_int_equal(bnt_session_position(session), keep);
        test_ok(bnt_evaluate(session, others, 20 - keep, BNT_LOGITS_NONE, NULL, &err), &err);
        test_ok(bnt_session_rewind(session, keep, &err), &err);
        test_ok(bnt_evaluate(session, tokens + keep, 20 - keep, BNT_LOGITS_LAST, logits, &err),
                &err);
        assert_memory_equal(logits, expected, bytes);
    }
    test_ok(bnt_session_rewind(session, 20, &err), &err); // to where it is
    assert_int_equal(bnt_session_rewind(session, 21, &err), BNT_ERR_ARGUMENT);
    assert_int_equal(bnt_session_position(session), 20);
    free(expected);
    free(logits);
    bnt_session_close(session);
    bnt_model_close(model);
}

// Positions at and about the edges of a group of keys, whose other positions hold what came before.
static void rewinding_inside_a_group_of_keys(void **state)
{
    static const uint32_t keeps[] = {0, 1, 14, 15, 16, 17, 18, 31, 32, 33};
    (void)state;
    for (size_t i = 0; i < 4 * TEST_COUNT(keeps); i++) {
        struct bnt_model *model = test_open_model(dir, files[6 + i / 2 % 2], NULL);
        const struct bnt_session_options options = {
            .context = 48, .threads = i % 5 ? 1 : 3, .cache = caches[i % 2]};
        const uint32_t keep = keeps[i / 4], more = TOKENS - keep;
        struct bnt_session *session = test_open_session_as(model, options);
        const size_t vocab = vocab_of(model);
        float *logits = test_alloc(TOKENS * vocab * sizeof *logits);
        uint32_t tokens[48];
        struct bnt_error err;
        some_tokens(model, tokens, 48, i);
        test_ok(bnt_evaluate(session, tokens, 48, BNT_LOGITS_NONE, NULL, &err), &err);
        some_tokens(model, tokens + keep, more, 1000 + i);
        float *expected = feed(model, options, tokens, TOKENS, TOKENS);
        for (size_t piece = 1; piece <= more; piece += more - 1) {
            test_ok(bnt_session_rewind(session, keep, &err), &err);
            for (uint32_t at = keep; at < TOKENS; at += (uint32_t)piece)
                test_ok(bnt_evaluate(session, tokens + at, piece, BNT_LOGITS_ALL,
                                     logits + at * vocab, &err),
                        &err);
            assert_memory_equal(logits + keep * vocab, expected + keep * vocab,
                                more * vocab * sizeof *logits);
        }
        free(logits);
        free(expected);
        bnt_session_close(session);
        bnt_model_close(model);
    }
}

// --- what is refused ---

static void what_does_not_fit_is_not_fed(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[2], NULL);
    struct bnt_session *session = test_open_session(model, 8, 1);
    uint32_t tokens[9];
    struct bnt_error err;
    (void)state;
    some_tokens(model, tokens, 9, 1);
    assert_int_equal(bnt_session_context(session), 8);
    assert_int_equal(bnt_evaluate(session, tokens, 9, BNT_LOGITS_NONE, NULL, &err),
                     BNT_ERR_CONTEXT);
    assert_int_equal(err.status, BNT_ERR_CONTEXT);
    assert_int_equal(bnt_session_position(session), 0);
    test_ok(bnt_evaluate(session, tokens, 7, BNT_LOGITS_NONE, NULL, &err), &err);
    assert_int_equal(bnt_evaluate(session, tokens, 2, BNT_LOGITS_NONE, NULL, NULL),
                     BNT_ERR_CONTEXT);
    assert_int_equal(bnt_session_position(session), 7);
    test_ok(bnt_evaluate(session, tokens, 1, BNT_LOGITS_NONE, NULL, &err), &err);
    assert_int_equal(bnt_evaluate(session, tokens, 1, BNT_LOGITS_NONE, NULL, &err),
                     BNT_ERR_CONTEXT);
    assert_int_equal(bnt_evaluate(session, tokens, SIZE_MAX, BNT_LOGITS_NONE, NULL, &err),
                     BNT_ERR_CONTEXT);
    assert_int_equal(bnt_session_position(session), 8);
    bnt_session_close(session);
    bnt_model_close(model);
}

static void tokens_out_of_range_are_refused(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[2], NULL);
    struct bnt_session *session = test_open_session(model, 8, 1);
    const uint32_t bad[] = {vocab_of(model), UINT32_MAX, 0x80000000};
    struct bnt_error err;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        for (size_t at = 0; at < 5; at++) {
            uint32_t tokens[5] = {1, 2, 3, 4, 5};
            tokens[at] = bad[i];
            assert_int_equal(bnt_evaluate(session, tokens, 5, BNT_LOGITS_NONE, NULL, &err),
                             BNT_ERR_ARGUMENT);
            assert_int_equal(bnt_session_position(session), 0);
        }
    }
    const uint32_t last = vocab_of(model) - 1;
    assert_int_equal(bnt_evaluate(session, &last, 0, BNT_LOGITS_NONE, NULL, &err),
                     BNT_ERR_ARGUMENT);
    test_ok(bnt_evaluate(session, &last, 1, BNT_LOGITS_NONE, NULL, &err), &err);
    bnt_session_close(session);
    bnt_model_close(model);
}

static void sessions_check_their_options(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[1], NULL);
    uint32_t most = bnt_model_info(model)->max_context;
    const struct bnt_session_options bad[] = {{.context = most + 1},
                                              {.context = UINT32_MAX},
                                              {.threads = 257},
                                              {.threads = UINT32_MAX},
                                              {.cache = (enum bnt_cache)2},
                                              {.cache = (enum bnt_cache)255},
                                              {.cache = (enum bnt_cache)INT_MAX}};
    struct bnt_session *session;
    struct bnt_error err;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        session = (void *)&err;
        assert_int_equal(bnt_session_open(model, &bad[i], &session, &err), BNT_ERR_ARGUMENT);
        assert_null(session);
    }
    test_ok(bnt_session_open(model, NULL, &session, &err), &err);
    assert_int_equal(bnt_session_context(session), most);
    assert_int_equal(bnt_session_position(session), 0);
    bnt_session_close(session);
    bnt_session_close(NULL);
    bnt_model_close(model);
    bnt_model_close(NULL);
}

static void caches_have_names(void **state)
{
    static const char *const none[] = {"", "f8", "f", "F16", "f16 ", "f160", "bf16", "16", "f64"};
    enum bnt_cache cache = BNT_CACHE_F32;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(none); i++)
        assert_false(bnt_cache_from_name(none[i], &cache));
    assert_int_equal(cache, BNT_CACHE_F32);
    assert_true(bnt_cache_from_name("f16", &cache));
    assert_int_equal(cache, BNT_CACHE_F16);
    assert_true(bnt_cache_from_name("f32", &cache));
    assert_int_equal(cache, BNT_CACHE_F32);
}

static void models_that_are_none_are_refused(void **state)
{
    char *missing = test_join(dir, "missing.bnt"), *path = test_join(dir, files[1]);
    struct bnt_model *model = (void *)&dir;
    struct bnt_error err;
    (void)state;
    assert_int_equal(bnt_model_open(missing, NULL, &model, &err), BNT_ERR_IO);
    assert_null(model);
    assert_non_null(strstr(err.message, "missing.bnt"));
    assert_int_equal(bnt_model_open(dir, NULL, &model, &err), BNT_ERR_IO);
    assert_int_equal(bnt_model_open(path, "abacus", &model, &err), BNT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "abacus"));
    assert_int_equal(bnt_model_open(path, "abacus", &model, NULL), BNT_ERR_UNSUPPORTED);
    assert_int_equal(bnt_model_open(BNT_TEST_DATA "/README.md", NULL, &model, &err),
                     BNT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "R1"));
    assert_int_equal(bnt_model_open(BNT_TEST_DATA "/README.md", NULL, &model, NULL),
                     BNT_ERR_FORMAT);
    free(missing);
    free(path);
}

// --- one model, several threads ---

struct worker {
    const struct bnt_model *model;
    const uint32_t *tokens;
    const float *expected; // (vocab) after all tokens
    bool same;
};

// No cmocka assertions here: they are for the thread that runs the test.
static void *work(void *argument)
{
    struct worker *w = argument;
    const struct bnt_session_options options = {.context = TOKENS, .threads = 2};
    struct bnt_session *session = NULL;
    size_t bytes = vocab_of(w->model) * sizeof(float);
    float *logits = malloc(bytes);
    w->same = logits && bnt_session_open(w->model, &options, &session, NULL) == BNT_OK;
    for (int round = 0; round < 3 && w->same; round++) {
        w->same = bnt_session_rewind(session, 0, NULL) == BNT_OK;
        for (size_t t = 0; t < TOKENS && w->same; t++)
            w->same =
                bnt_evaluate(session, w->tokens + t, 1, BNT_LOGITS_LAST, logits, NULL) == BNT_OK;
        w->same = w->same && memcmp(logits, w->expected, bytes) == 0;
    }
    bnt_session_close(session);
    free(logits);
    return NULL;
}

static void two_sessions_share_a_model(void **state)
{
    const size_t all[] = {TOKENS};
    struct bnt_model *model = test_open_model(dir, files[2], NULL);
    uint32_t tokens[2][TOKENS];
    float *expected[2];
    struct worker workers[2];
    pthread_t threads[2];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        some_tokens(model, tokens[i], TOKENS, 77 + i);
        expected[i] = evaluate(model, tokens[i], TOKENS, all, 1, 1);
        workers[i] =
            (struct worker){model, tokens[i], expected[i] + (TOKENS - 1) * vocab_of(model), false};
    }
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(workers[i].same);
        free(expected[i]);
    }
    bnt_model_close(model);
}

// Pools come and go; none may hang, whether or not it ever had work.
static void many_sessions_open_and_close(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[1], NULL);
    const uint32_t token = 1;
    struct bnt_error err;
    (void)state;
    for (uint32_t i = 0; i < 60; i++) {
        struct bnt_session *session = test_open_session(model, 4, 1 + i % 7);
        for (uint32_t j = 0; j < i % 4; j++)
            test_ok(bnt_evaluate(session, &token, 1, BNT_LOGITS_NONE, NULL, &err), &err);
        bnt_session_close(session);
    }
    bnt_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_do_not_depend_on_pieces_threads_or_kernels),
        cmocka_unit_test(long_prompts_are_as_token_by_token),
        cmocka_unit_test(long_prompts_of_a_trained_model),
        cmocka_unit_test(a_cache_of_halves_differs_but_mildly),
        cmocka_unit_test(contexts_around_a_group_of_keys),
        cmocka_unit_test(only_the_asked_for_logits_are_written),
        cmocka_unit_test(rewinding_forgets_exactly_what_came_after),
        cmocka_unit_test(rewinding_inside_a_group_of_keys),
        cmocka_unit_test(what_does_not_fit_is_not_fed),
        cmocka_unit_test(tokens_out_of_range_are_refused),
        cmocka_unit_test(sessions_check_their_options),
        cmocka_unit_test(caches_have_names),
        cmocka_unit_test(models_that_are_none_are_refused),
        cmocka_unit_test(two_sessions_share_a_model),
        cmocka_unit_test(many_sessions_open_and_close),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
