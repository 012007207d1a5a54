// SPDX-License-Identifier: MIT
// The same tokens must give the same bits of logits however they are fed, with any number of
// threads, any kernels, and beside any other session; and a call that is refused must change
// nothing.
#include <pthread.h>

#include "tests/unit/fairy.h"
#include "tests/unit/tiny_model.h"

enum { TOKENS = 40 }; // more than BNT_MAX_BATCH

static const char *const checkpoints[] = {"fairy-6m", "variants/2b-packed", "variants/llama-packed",
                                          "variants/1bitllm-f32"};
// The last two are random models of sizes that no multiple of anything fits.
static const char *const files[] = {"0.bnt", "1.bnt", "2.bnt", "3.bnt", "4.bnt", "5.bnt", NULL};
enum { MODELS = 6 };
static char *dir;

static void make_odd_model(const char *name, uint32_t ffn, uint32_t flags)
{
    char *path = test_join(dir, name);
    struct bnt_hyper h = tiny_hyper(77);
    h.n_layers = 2;
    h.hidden_size = 45;
    h.ffn_size = ffn;
    h.n_heads = 6;
    h.n_kv_heads = 3;
    h.head_dim = 14;
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
    make_odd_model(files[4], 101, BNT_HYPER_SUB_NORMS | BNT_HYPER_F32_EMBEDDINGS);
    make_odd_model(files[5], 17, BNT_HYPER_TIED);
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
    const struct bnt_session_options bad[] = {
        {.context = most + 1}, {.context = UINT32_MAX}, {.threads = 257}};
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
        cmocka_unit_test(only_the_asked_for_logits_are_written),
        cmocka_unit_test(rewinding_forgets_exactly_what_came_after),
        cmocka_unit_test(what_does_not_fit_is_not_fed),
        cmocka_unit_test(tokens_out_of_range_are_refused),
        cmocka_unit_test(sessions_check_their_options),
        cmocka_unit_test(models_that_are_none_are_refused),
        cmocka_unit_test(two_sessions_share_a_model),
        cmocka_unit_test(many_sessions_open_and_close),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
