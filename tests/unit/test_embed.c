// SPDX-License-Identifier: MIT
// The vector of a text against plain sums over what comes out of the model token by token: the same
// bits whatever the batches, threads and kernels are.
#include <math.h>

#include "runtime/engine/session.h"
#include "tests/unit/fairy.h"
#include "tests/unit/tiny_model.h"

enum { HIDDEN = 45, CONTEXT = 300, VOCAB = 77 };
_Static_assert((int)CONTEXT > 2 * (int)BNT_MAX_BATCH, "three batches");

static const char *const files[] = {"8.bnt", "16.bnt", "none.bnt", NULL};
static char *dir;

static void make_model(const char *name, uint32_t bits, enum bnt_pooling pooling, uint32_t flags)
{
    char *path = test_join(dir, name);
    struct bnt_hyper h = tiny_hyper(VOCAB);
    h.n_layers = 2;
    h.hidden_size = HIDDEN;
    h.ffn_size = 33;
    h.n_heads = 4;
    h.n_kv_heads = 2;
    h.head_dim = 6;
    h.max_context = CONTEXT;
    h.activation = BNT_ACTIVATION_SILU;
    h.activation_bits = bits;
    h.pooling = pooling;
    h.flags = BNT_HYPER_TIED | flags;
    tiny_write(path, &h, NULL, 0, bits);
    free(path);
}

static int make_models(void **state)
{
    (void)state;
    dir = test_make_dir();
    make_model(files[0], 8, BNT_POOLING_MEAN, 0);
    make_model(files[1], 16, BNT_POOLING_LAST, BNT_HYPER_NORMALIZED);
    make_model(files[2], 8, BNT_POOLING_NONE, 0);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    test_remove_dir(dir, files);
    return 0;
}

static void some_tokens(uint32_t tokens[CONTEXT])
{
    uint64_t seed = 5;
    for (size_t i = 0; i < CONTEXT; i++)
        tokens[i] = test_random_below(&seed, VOCAB);
}

// What comes out of the model for each token: (CONTEXT, HIDDEN).
static float *token_vectors(const struct bnt_model *model, const uint32_t *tokens)
{
    struct bnt_session *session = test_open_session(model, CONTEXT, 1);
    float *vectors = test_alloc((size_t)CONTEXT * HIDDEN * sizeof *vectors);
    for (size_t t = 0; t < CONTEXT; t++) {
        test_ok(bnt_evaluate(session, tokens + t, 1, BNT_LOGITS_NONE, NULL, NULL), NULL);
        memcpy(vectors + t * HIDDEN, session->last, HIDDEN * sizeof *vectors);
    }
    bnt_session_close(session);
    return vectors;
}

static void expect(const float *vectors, size_t n, enum bnt_pooling pooling, bool normalized,
                   float *out)
{
    float squares = 0;
    for (size_t i = 0; i < HIDDEN; i++) {
        float sum = 0;
        for (size_t t = 0; t < n; t++)
            sum += vectors[t * HIDDEN + i];
        out[i] = pooling == BNT_POOLING_MEAN   ? sum / (float)n
                 : pooling == BNT_POOLING_LAST ? vectors[(n - 1) * HIDDEN + i]
                                               : vectors[i];
        squares += out[i] * out[i];
    }
    for (size_t i = 0; i < HIDDEN && normalized; i++)
        out[i] /= sqrtf(squares);
}

static void check(struct bnt_session *session, const uint32_t *tokens, const float *vectors,
                  size_t n)
{
    for (int pooling = BNT_POOLING_LAST; pooling <= BNT_POOLING_FIRST; pooling++) {
        float vector[HIDDEN], expected[HIDDEN];
        struct bnt_error err;
        const bool normalized = (n + (size_t)pooling) % 2;
        expect(vectors, n, (enum bnt_pooling)pooling, normalized, expected);
        test_ok(bnt_embed(session, tokens, n, (enum bnt_pooling)pooling, normalized, vector, &err),
                &err);
        assert_int_equal(bnt_session_position(session), n);
        if (memcmp(vector, expected, sizeof vector) != 0)
            fail_msg("%s of %zu tokens: another vector",
                     bnt_pooling_name((enum bnt_pooling)pooling), n);
    }
}

static void vectors_are_plain_sums(void **state)
{
    static const size_t lengths[] = {1, 2, 63, 64, 65, 127, 128, 129, 257, CONTEXT};
    uint32_t tokens[CONTEXT];
    (void)state;
    some_tokens(tokens);
    for (size_t i = 0; i < 2; i++) {
        struct bnt_model *model = test_open_model(dir, files[i], "scalar");
        float *vectors = token_vectors(model, tokens);
        bnt_model_close(model);
        for (size_t k = 0; bnt_kernel_name(k); k++) {
            model = test_open_model(dir, files[i], bnt_kernel_name(k));
            struct bnt_session *session = test_open_session(model, CONTEXT, (uint32_t)(1 + k % 3));
            for (size_t j = 0; j < TEST_COUNT(lengths); j++)
                check(session, tokens, vectors, lengths[j]);
            bnt_session_close(session);
            bnt_model_close(model);
        }
        free(vectors);
    }
}

static void models_say_how(void **state)
{
    static const struct {
        enum bnt_pooling pooling;
        bool normalized;
    } must[] = {{BNT_POOLING_MEAN, false}, {BNT_POOLING_LAST, true}, {BNT_POOLING_NONE, false}};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(must); i++) {
        struct bnt_model *model = test_open_model(dir, files[i], NULL);
        assert_int_equal(bnt_model_info(model)->pooling, must[i].pooling);
        assert_int_equal(bnt_model_info(model)->normalized, must[i].normalized);
        bnt_model_close(model);
    }
}

static void what_is_refused_changes_nothing(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[2], NULL);
    struct bnt_session *session = test_open_session(model, 8, 1);
    const uint32_t tokens[9] = {1, 2, 3, 4, 5, 6, 7, 8, VOCAB};
    float vector[HIDDEN] = {0}, zeros[HIDDEN] = {0};
    struct bnt_error err;
    (void)state;
    test_ok(bnt_evaluate(session, tokens, 3, BNT_LOGITS_NONE, NULL, &err), &err);
    assert_int_equal(bnt_embed(session, tokens, 3, BNT_POOLING_NONE, false, vector, &err),
                     BNT_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "pooling"));
    assert_int_equal(bnt_embed(session, tokens, 3, (enum bnt_pooling)4, false, vector, &err),
                     BNT_ERR_ARGUMENT);
    assert_int_equal(bnt_embed(session, tokens, 0, BNT_POOLING_LAST, false, vector, &err),
                     BNT_ERR_ARGUMENT);
    assert_int_equal(bnt_embed(session, tokens + 8, 1, BNT_POOLING_LAST, false, vector, &err),
                     BNT_ERR_ARGUMENT);
    assert_int_equal(bnt_embed(session, tokens, 9, BNT_POOLING_LAST, false, vector, NULL),
                     BNT_ERR_CONTEXT);
    assert_int_equal(bnt_session_position(session), 3);
    assert_memory_equal(vector, zeros, sizeof vector);
    bnt_session_close(session);
    bnt_model_close(model);
}

// The text is what the session has seen, as if it had been evaluated.
static void a_session_goes_on_behind_the_text(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[0], NULL);
    struct bnt_session *a = test_open_session(model, 20, 1), *b = test_open_session(model, 20, 2);
    const uint32_t tokens[6] = {9, 8, 7, 6, 5, 4};
    float vector[HIDDEN], logits[2][VOCAB];
    (void)state;
    test_ok(bnt_evaluate(a, tokens, 6, BNT_LOGITS_LAST, logits[0], NULL), NULL);
    test_ok(bnt_evaluate(b, tokens + 3, 2, BNT_LOGITS_NONE, NULL, NULL), NULL);
    test_ok(bnt_embed(b, tokens, 5, BNT_POOLING_MEAN, true, vector, NULL), NULL);
    test_ok(bnt_evaluate(b, tokens + 5, 1, BNT_LOGITS_LAST, logits[1], NULL), NULL);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    const struct bnt_sampling sampling = {.repetition_penalty = 50};
    uint64_t state_a = 0, state_b = 0;
    assert_int_equal(bnt_sample(a, logits[0], &sampling, &state_a),
                     bnt_sample(b, logits[1], &sampling, &state_b));
    bnt_session_close(a);
    bnt_session_close(b);
    bnt_model_close(model);
}

static void sessions_for_vectors_are_on_the_cpu(void **state)
{
    struct bnt_model *model = test_open_model(dir, files[0], NULL);
    struct bnt_session *session;
    struct bnt_error err;
    const struct bnt_session_options automatic = {.device = BNT_DEVICE_AUTO, .vectors = true},
                                     cuda = {.device = BNT_DEVICE_CUDA, .vectors = true};
    const uint32_t token = 1;
    float vector[HIDDEN];
    (void)state;
    assert_int_equal(bnt_session_open(model, &cuda, &session, &err), BNT_ERR_DEVICE);
    assert_non_null(strstr(err.message, "CPU"));
    test_ok(bnt_session_open(model, &automatic, &session, &err), &err);
    assert_string_equal(bnt_session_device(session), "cpu");
    test_ok(bnt_embed(session, &token, 1, BNT_POOLING_LAST, false, vector, &err), &err);
    bnt_session_close(session);
    bnt_model_close(model);
}

static void poolings_have_names(void **state)
{
    static const char *const none[] = {"", "none", "Last", "last ", "cls", "lasttoken", "max"};
    enum bnt_pooling pooling = BNT_POOLING_NONE;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(none); i++)
        assert_false(bnt_pooling_from_name(none[i], &pooling));
    assert_int_equal(pooling, BNT_POOLING_NONE);
    for (int i = BNT_POOLING_LAST; i <= BNT_POOLING_FIRST; i++) {
        assert_true(bnt_pooling_from_name(bnt_pooling_name((enum bnt_pooling)i), &pooling));
        assert_int_equal(pooling, i);
    }
    assert_string_equal(bnt_pooling_name(BNT_POOLING_NONE), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_plain_sums),
        cmocka_unit_test(models_say_how),
        cmocka_unit_test(what_is_refused_changes_nothing),
        cmocka_unit_test(a_session_goes_on_behind_the_text),
        cmocka_unit_test(sessions_for_vectors_are_on_the_cpu),
        cmocka_unit_test(poolings_have_names),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
