// SPDX-License-Identifier: MIT
// What bnt_generate promises its caller: the same seed the same text, stop texts that never show,
// whole characters only, an end for the right reason, and no allocation between two tokens.
#include <stdatomic.h>

#include "tests/unit/fairy.h"
#include "tests/unit/tokenizer_text.h"

// --- counting allocations ---

// This program's own malloc and its kin, so that whatever the library calls is counted. Sanitizers
// have theirs.
static atomic_size_t allocations;

#if !TEST_SANITIZED && defined(__GLIBC__)
#define COUNTS_ALLOCATIONS 1
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *p, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}
#else
#define COUNTS_ALLOCATIONS 0
#endif

// --- the models ---

static const char *const files[] = {"fairy.bnt", "int8.bnt", NULL};
static char *dir;
static struct bnt_model *fairy;
static struct bnt_model *bytes; // writes any byte, and parts of characters

static struct bnt_model *open_bytes(void)
{
    static const char *const parts[] = {"\xC3",     "\xE6\xBC", "\xBC\xA2",    "\xF0\x9F",
                                        "\x98\x80", "\xC3\xA9", "ab",          "b\xC3",
                                        "\xA9q",    "\xED\xA0", "\xF4\x90\x80"};
    json_t *json = text_tokenizer();
    for (size_t i = 0; i < TEST_COUNT(parts); i++)
        (void)text_token(json, parts[i], strlen(parts[i]));
    struct bnt_model *model = text_open(json);
    json_decref(json);
    return model;
}

static int open_models(void **state)
{
    (void)state;
    dir = test_make_dir();
    test_make_model("fairy-6m", dir, files[0]);
    test_make_model_int8("fairy-6m", dir, files[1], true);
    fairy = test_open_model(dir, files[0], NULL);
    bytes = open_bytes();
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    bnt_model_close(fairy);
    bnt_model_close(bytes);
    test_remove_dir(dir, files);
    return 0;
}

// --- a run of generation, and all that its callback saw ---

enum { MAX_TOKENS = 256, MAX_TEXT = 1 << 14, SOME = TEST_TSAN ? 12 : 24 };

struct run {
    struct bnt_generation_result result;
    uint32_t tokens[MAX_TOKENS];
    size_t n_tokens;
    char text[MAX_TEXT];
    size_t size;
    bool tail;                 // the last call, with what was held back, has come
    bool bad;                  // a piece was no valid UTF-8, or came after the end
    size_t stop_after;         // the callback returns false at so many tokens; 0: never
    size_t counts[MAX_TOKENS]; // allocations at each token
};

static bool collect(void *context, uint32_t token, const char *text, size_t size)
{
    struct run *run = context;
    run->counts[run->n_tokens % MAX_TOKENS] = atomic_load(&allocations);
    run->bad |= run->tail || bnt_utf8_valid((const uint8_t *)text, size) != size ||
                size > MAX_TEXT - run->size - 1 || run->n_tokens == MAX_TOKENS;
    if (run->bad)
        return false;
    memcpy(run->text + run->size, text, size);
    run->size += size;
    if (token == UINT32_MAX)
        run->tail = true;
    else
        run->tokens[run->n_tokens++] = token;
    return !run->stop_after || run->n_tokens < run->stop_after;
}

struct request {
    const struct bnt_model *model;
    size_t max_tokens;
    struct bnt_sampling sampling;
    const char *stops[3];
    size_t n_stops, n_stop_ids, stop_after;
    const uint32_t *stop_ids;
    uint32_t context, threads; // 0: 512 and 1
    enum bnt_cache cache;
    bool ignore_eos;
};

// The caller frees it.
static struct run *generate(struct request r)
{
    static const char prompt[] = "Once upon a time";
    struct run *run = test_alloc(sizeof *run);
    struct bnt_error err;
    size_t count;
    uint32_t *tokens = text_encode(r.model, prompt, strlen(prompt), true, &count);
    uint32_t most = bnt_model_info(r.model)->max_context;
    struct bnt_session *session =
        test_open_session_as(r.model, (struct bnt_session_options){
                                          .context = r.context    ? r.context
                                                     : most < 512 ? most
                                                                  : 512,
                                          .threads = r.threads ? r.threads : 1,
                                          .cache = r.cache,
                                      });
    const struct bnt_generation generation = {
        .max_tokens = r.max_tokens,
        .sampling = r.sampling,
        .stop_texts = r.stops,
        .n_stop_texts = r.n_stops,
        .stop_ids = r.stop_ids,
        .n_stop_ids = r.n_stop_ids,
        .ignore_eos = r.ignore_eos,
        .callback = collect,
        .context = run,
    };
    run->stop_after = r.stop_after;
    test_ok(bnt_generate(session, tokens, count, &generation, &run->result, &err), &err);
    bnt_session_close(session);
    free(tokens);
    run->text[run->size] = '\0';
    assert_false(run->bad);
    assert_int_equal(run->result.n_tokens, run->n_tokens);
    return run;
}

static bool same(const struct run *a, const struct run *b)
{
    return a->n_tokens == b->n_tokens &&
           memcmp(a->tokens, b->tokens, a->n_tokens * sizeof a->tokens[0]) == 0 &&
           a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

static void check_same(const struct run *expected, struct request request)
{
    struct run *run = generate(request);
    assert_true(same(expected, run));
    free(run);
}

static const struct bnt_sampling greedy = TEST_SAMPLING(0, 0, 1, 0);

// --- which tokens ---

static void greedy_text_is_the_same_on_all_kernels_and_threads(void **state)
{
    struct run *expected =
        generate((struct request){.model = fairy, .max_tokens = SOME, .sampling = greedy});
    (void)state;
    assert_int_equal(expected->n_tokens, SOME);
    assert_int_equal(expected->result.reason, BNT_STOP_LENGTH);
    for (size_t i = 0; bnt_kernel_name(i); i++) {
        struct bnt_model *model = test_open_model(dir, files[0], bnt_kernel_name(i));
        for (uint32_t threads = 1; threads <= 3; threads += 2)
            check_same(expected, (struct request){.model = model,
                                                  .max_tokens = SOME,
                                                  .sampling = greedy,
                                                  .threads = threads});
        bnt_model_close(model);
    }
    struct bnt_model *int8 = test_open_model(dir, files[1], NULL);
    check_same(expected, (struct request){.model = int8, .max_tokens = SOME, .sampling = greedy});
    bnt_model_close(int8);
    free(expected);
}

// A prompt of several batches, then the same continuation as when it is fed by hand, and with each
// cache.
static void a_long_prompt_goes_on_as_if_fed_by_hand(void **state)
{
    enum { PROMPT = 300, MORE = 5 };
    uint32_t prompt[PROMPT];
    uint64_t random = 4;
    (void)state;
    for (size_t i = 0; i < PROMPT; i++)
        prompt[i] = test_random_below(&random, bnt_model_info(fairy)->vocab_size);
    for (int i = 0; i < 2; i++) {
        const struct bnt_session_options options = {.context = PROMPT + MORE,
                                                    .threads = 1 + (uint32_t)i,
                                                    .cache = i ? BNT_CACHE_F32 : BNT_CACHE_F16};
        struct bnt_session *session = test_open_session_as(fairy, options);
        struct run *run = test_alloc(sizeof *run);
        const struct bnt_generation generation = {.max_tokens = MORE,
                                                  .sampling = greedy,
                                                  .ignore_eos = true,
                                                  .callback = collect,
                                                  .context = run};
        float *logits = test_alloc(bnt_model_info(fairy)->vocab_size * sizeof *logits);
        test_ok(bnt_generate(session, prompt, PROMPT, &generation, &run->result, NULL), NULL);
        assert_int_equal(run->n_tokens, MORE);
        test_ok(bnt_session_rewind(session, 0, NULL), NULL);
        for (size_t t = 0; t < PROMPT; t++)
            test_ok(bnt_evaluate(session, &prompt[t], 1, BNT_LOGITS_LAST, logits, NULL), NULL);
        for (size_t t = 0; t < MORE; t++) {
            uint64_t generator = 0;
            uint32_t token = bnt_sample(session, logits, &greedy, &generator);
            assert_int_equal(token, run->tokens[t]);
            test_ok(bnt_evaluate(session, &token, 1, BNT_LOGITS_LAST, logits, NULL), NULL);
        }
        free(logits);
        free(run);
        bnt_session_close(session);
    }
}

static void the_seed_decides_the_text(void **state)
{
    struct request request = {
        .model = fairy, .max_tokens = SOME, .sampling = TEST_SAMPLING(1, 0, 1, 7)};
    struct run *first = generate(request);
    size_t others = 0;
    (void)state;
    check_same(first, request);
    request.threads = 2;
    check_same(first, request);
    for (uint64_t seed = 100; seed < 104; seed++) {
        request.sampling.seed = seed;
        struct run *other = generate(request);
        others += !same(first, other);
        free(other);
    }
    assert_int_equal(others, 4);
    free(first);
}

static void one_candidate_is_greedy(void **state)
{
    struct run *expected =
        generate((struct request){.model = fairy, .max_tokens = SOME, .sampling = greedy});
    (void)state;
    check_same(expected, (struct request){.model = fairy,
                                          .max_tokens = SOME,
                                          .sampling = TEST_SAMPLING(1, 1, 1, 3)});
    check_same(expected, (struct request){.model = fairy,
                                          .max_tokens = SOME,
                                          .sampling = TEST_SAMPLING(1, 0, 1e-6f, 4)});
    check_same(expected, (struct request){.model = fairy,
                                          .max_tokens = SOME,
                                          .sampling = TEST_SAMPLING(1e-5f, 0, 1, 5)});
    free(expected);
}

// --- when it ends ---

static void it_ends_at_the_asked_for_length(void **state)
{
    (void)state;
    for (size_t n = 0; n < 4; n++) {
        struct run *run =
            generate((struct request){.model = fairy, .max_tokens = n, .sampling = greedy});
        assert_int_equal(run->n_tokens, n);
        assert_int_equal(run->result.reason, BNT_STOP_LENGTH);
        free(run);
    }
}

static void it_ends_when_the_context_is_full(void **state)
{
    struct run *run = generate(
        (struct request){.model = fairy, .max_tokens = 200, .sampling = greedy, .context = 12});
    struct run *longer =
        generate((struct request){.model = fairy, .max_tokens = run->n_tokens, .sampling = greedy});
    (void)state;
    assert_int_equal(run->result.reason, BNT_STOP_CONTEXT);
    assert_true(run->n_tokens > 1 && run->n_tokens < 12);
    assert_true(same(run, longer));
    free(run);
    free(longer);
}

static void a_prompt_that_does_not_fit_is_refused(void **state)
{
    struct bnt_session *session = test_open_session(fairy, 4, 1);
    const uint32_t prompt[5] = {1, 2, 3, 4, 5}, bad = 1 << 20;
    struct run *run = test_alloc(sizeof *run);
    struct bnt_generation generation = {
        .max_tokens = 3, .sampling = greedy, .callback = collect, .context = run};
    struct bnt_error err;
    (void)state;
    assert_int_equal(bnt_generate(session, prompt, 5, &generation, &run->result, &err),
                     BNT_ERR_CONTEXT);
    assert_int_equal(bnt_generate(session, prompt, 0, &generation, &run->result, &err),
                     BNT_ERR_ARGUMENT);
    assert_int_equal(bnt_generate(session, &bad, 1, &generation, &run->result, NULL),
                     BNT_ERR_ARGUMENT);
    static const char *const empty[] = {"x", ""};
    generation.stop_texts = empty;
    generation.n_stop_texts = 2;
    assert_int_equal(bnt_generate(session, prompt, 1, &generation, &run->result, &err),
                     BNT_ERR_ARGUMENT);
    assert_int_equal(bnt_session_position(session), 0);
    assert_int_equal(run->n_tokens, 0);
    free(run);
    bnt_session_close(session);
}

static void the_callback_ends_it(void **state)
{
    struct run *all =
        generate((struct request){.model = fairy, .max_tokens = SOME, .sampling = greedy});
    (void)state;
    for (size_t n = 1; n < 10; n += 3) {
        struct run *run = generate((struct request){
            .model = fairy, .max_tokens = SOME, .sampling = greedy, .stop_after = n});
        assert_int_equal(run->result.reason, BNT_STOP_CALLBACK);
        assert_int_equal(run->n_tokens, n); // and no call after it
        assert_false(run->tail);
        assert_memory_equal(run->tokens, all->tokens, n * sizeof run->tokens[0]);
        free(run);
    }
    free(all);
}

static void a_callback_is_not_needed(void **state)
{
    struct bnt_session *session = test_open_session(fairy, 32, 1);
    struct bnt_generation generation = {.max_tokens = 3, .sampling = greedy};
    struct bnt_generation_result result;
    struct bnt_error err;
    const uint32_t prompt = 5;
    (void)state;
    test_ok(bnt_generate(session, &prompt, 1, &generation, &result, &err), &err);
    assert_int_equal(result.n_tokens, 3);
    bnt_session_close(session);
}

// A model whose EOS is the token that greedy generation comes to first.
static void an_eos_token_ends_it(void **state)
{
    static const char *const names[] = {"eos.bnt", NULL};
    char *own = test_make_dir(), *path = test_join(own, names[0]);
    struct bnt_hyper hyper = tiny_hyper(40);
    const uint32_t prompt = 3;
    struct bnt_generation generation = {.max_tokens = 9, .sampling = TEST_SAMPLING(5, 0, 1, 1)};
    struct bnt_generation_result result;
    (void)state;
    for (uint32_t count = 0; count <= 8; count += 4) {
        hyper.eos_count = count; // all but the first count ids
        for (uint32_t i = 0; i < count; i++)
            hyper.eos_id[i] = i;
        tiny_write(path, &hyper, NULL, 0, 1);
        struct bnt_model *model = test_open_model(own, names[0], NULL);
        size_t ended = 0;
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct bnt_session *session = test_open_session(model, 16, 1);
            struct run *run = test_alloc(sizeof *run);
            generation.callback = collect;
            generation.context = run;
            generation.sampling.seed = seed;
            generation.ignore_eos = false;
            test_ok(bnt_generate(session, &prompt, 1, &generation, &result, NULL), NULL);
            for (size_t i = 0; i < run->n_tokens; i++)
                assert_true(run->tokens[i] >= count);
            assert_int_equal(result.n_tokens,
                             run->n_tokens); // an EOS is neither counted nor handed out
            assert_int_equal(result.reason, run->n_tokens < 9 ? BNT_STOP_EOS : BNT_STOP_LENGTH);
            assert_int_equal(run->size, 0); // without a tokenizer there is no text
            ended += result.reason == BNT_STOP_EOS;
            test_ok(bnt_session_rewind(session, 0, NULL), NULL);
            *run = (struct run){.n_tokens = 0};
            generation.ignore_eos = true;
            test_ok(bnt_generate(session, &prompt, 1, &generation, &result, NULL), NULL);
            assert_int_equal(result.n_tokens, 9);
            free(run);
            bnt_session_close(session);
        }
        assert_true(count == 0 ? ended == 0 : ended > 5);
        bnt_model_close(model);
    }
    free(path);
    test_remove_dir(own, names);
}

// A stop id ends the text as an EOS does: it is neither counted nor handed out.
static void stop_ids_end_it(void **state)
{
    struct run *all =
        generate((struct request){.model = fairy, .max_tokens = 12, .sampling = greedy});
    (void)state;
    for (size_t i = 0; i < 12; i += 3) {
        const uint32_t stops[] = {4095, all->tokens[i]};
        size_t first = 0;
        while (all->tokens[first] != all->tokens[i])
            first++;
        struct run *run = generate((struct request){.model = fairy,
                                                    .max_tokens = 12,
                                                    .sampling = greedy,
                                                    .stop_ids = stops,
                                                    .n_stop_ids = 2});
        assert_int_equal(run->n_tokens, first);
        assert_int_equal(run->result.reason, BNT_STOP_EOS);
        free(run);
        run = generate((struct request){.model = fairy,
                                        .max_tokens = 12,
                                        .sampling = greedy,
                                        .stop_ids = stops,
                                        .n_stop_ids = 2,
                                        .ignore_eos = true});
        assert_int_equal(run->n_tokens, 12);
        free(run);
    }
    free(all);
}

// --- stop texts ---

// The text must be that of the run without stops, up to the first place where one begins.
static void check_stops(const struct run *all, struct request request)
{
    const char *first = NULL;
    for (size_t i = 0; i < request.n_stops; i++) {
        const char *at = strstr(all->text, request.stops[i]);
        first = at && (!first || at < first) ? at : first;
    }
    struct run *run = generate(request);
    size_t size = first ? (size_t)(first - all->text) : all->size;
    if (run->size != size || memcmp(run->text, all->text, size) != 0)
        fail_msg("stop text '%s': got '%s' of '%s'", request.stops[0], run->text, all->text);
    assert_int_equal(run->result.reason, first ? BNT_STOP_TEXT : all->result.reason);
    assert_true(!first || !run->tail);
    free(run);
}

// Every piece of a text is a stop text in turn: they begin and end inside tokens and span several.
static void stop_texts_never_show(void **state)
{
    struct request request = {
        .model = fairy, .max_tokens = 16, .sampling = TEST_SAMPLING(0.9f, 0, 1, 2)};
    struct run *all = generate(request);
    static const size_t sizes[] = {1, 2, 3, 7, 13};
    uint64_t random = 1;
    (void)state;
    assert_true(all->size > 30);
    for (size_t i = 0; i < TEST_COUNT(sizes); i++) {
        for (int round = 0; round < (TEST_SANITIZED ? 2 : 6); round++) {
            char stop[16] = "";
            size_t at = test_random_below(&random, (uint32_t)(all->size - sizes[i] + 1));
            memcpy(stop, all->text + at, sizes[i]);
            request.stops[0] = stop;
            request.n_stops = 1;
            check_stops(all, request);
        }
    }
    free(all);
}

// What begins like a stop text but is none must come out in the end.
static void what_is_held_back_comes_at_the_end(void **state)
{
    struct request request = {
        .model = fairy, .max_tokens = 16, .sampling = TEST_SAMPLING(0.9f, 0, 1, 2)};
    struct run *all = generate(request);
    (void)state;
    for (size_t held = 1; held <= 20; held += 3) {
        char stop[32];
        (void)snprintf(stop, sizeof stop, "%s~", all->text + all->size - held);
        request.stops[0] = stop;
        request.n_stops = 1;
        check_stops(all, request);
        struct run *run = generate(request);
        assert_true(run->tail);
        free(run);
    }
    free(all);
}

static void of_several_stop_texts_the_first_counts(void **state)
{
    struct request request = {
        .model = fairy, .max_tokens = 16, .sampling = TEST_SAMPLING(0.9f, 0, 1, 2)};
    struct run *all = generate(request);
    char late[4] = "", early[8] = "";
    (void)state;
    memcpy(late, all->text + 20, 3);
    memcpy(early, all->text + 11, 7);
    request.stops[0] = late;
    request.stops[1] = "\xC3\xA9never";
    request.stops[2] = early;
    request.n_stops = 3;
    check_stops(all, request);
    free(all);
}

// --- text ---

// Random bytes: characters come in parts, or never get whole.
static void pieces_are_valid_and_make_the_detokenized_text(void **state)
{
    size_t ill_formed = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct run *run = generate((struct request){.model = bytes,
                                                    .max_tokens = 45,
                                                    .sampling = TEST_SAMPLING(50, 0, 1, seed),
                                                    .context = 64});
        char expected[MAX_TEXT];
        size_t size;
        test_ok(bnt_detokenize(bytes, run->tokens, run->n_tokens, expected, sizeof expected, &size,
                               NULL),
                NULL);
        assert_int_equal(run->size, size);
        assert_memory_equal(run->text, expected, size);
        for (size_t i = 0; i + 2 < size; i++)
            ill_formed += memcmp(expected + i, "\xEF\xBF\xBD", 3) == 0;
        free(run);
    }
    assert_true(ill_formed > 100);
}

// The same with stop texts; a NUL would end strstr's view, so runs with one are passed over.
static void stop_texts_of_parts_of_characters(void **state)
{
    static const char *const stops[] = {"\xC3\xA9", "\xEF\xBF\xBD", "b",
                                        "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", "q\xEF\xBF\xBD"};
    size_t checked = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct request request = {.model = bytes,
                                  .max_tokens = 25,
                                  .sampling = TEST_SAMPLING(50, 0, 1, seed),
                                  .context = 64};
        struct run *all = generate(request);
        if (strlen(all->text) == all->size) {
            request.stops[0] = stops[seed % TEST_COUNT(stops)];
            request.n_stops = 1;
            check_stops(all, request);
            checked++;
        }
        free(all);
    }
    assert_true(checked > 20);
}

// A character that is cut off at the end becomes U+FFFD, which may be a stop text too.
static void a_stop_text_is_found_in_what_ends_the_text(void **state)
{
    size_t cut = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct request request = {
            .model = bytes, .max_tokens = 1, .sampling = TEST_SAMPLING(50, 0, 1, seed)};
        struct run *all = generate(request);
        if (all->tail && strlen(all->text) == all->size) {
            request.stops[0] = "\xEF\xBF\xBD";
            request.n_stops = 1;
            check_stops(all, request);
            cut++;
        }
        free(all);
    }
    assert_true(cut > 3);
}

// --- no allocation ---

#if COUNTS_ALLOCATIONS
static void check_allocations(struct request request)
{
    struct run *run = generate(request);
    assert_int_equal(run->n_tokens, request.max_tokens);
    assert_true(run->counts[0] > 0); // counting works
    assert_int_equal(run->counts[run->n_tokens - 1], run->counts[0]);
    free(run);
}
#endif

// Every way of choosing, beside the int8 copy of the output matrix and without it.
static void no_memory_is_allocated_between_tokens(void **state)
{
    (void)state;
#if COUNTS_ALLOCATIONS
    static const struct bnt_sampling ways[] = {
        {.temperature = 0},
        {.temperature = 0, .repetition_penalty = 1.3f},
        {.temperature = 0.8f,
         .top_k = 9,
         .min_p = 0.1f,
         .presence_penalty = 1,
         .frequency_penalty = 1},
        {.temperature = 1, .repetition_penalty = 0.9f, .frequency_penalty = -1},
        {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f, .seed = 1},
        {.temperature = 0.8f, .top_k = 40, .seed = 1},
        {.temperature = 0.8f, .top_p = 0.9f, .seed = 1},
        {.temperature = 100, .top_k = 2000, .top_p = 0.99f, .seed = 1},
        {.temperature = 1, .seed = 1},
    };
    struct bnt_model *int8 = test_open_model(dir, files[1], NULL);
    for (size_t i = 0; i < 4 * TEST_COUNT(ways); i++)
        check_allocations((struct request){.model = i & 1 ? int8 : fairy,
                                           .max_tokens = i < 2 ? 120 : 40,
                                           .sampling = ways[i / 4],
                                           .stops = {"never ever", "~"},
                                           .n_stops = 2,
                                           .threads = i & 2 ? 2 : 1,
                                           .cache = i & 1 ? BNT_CACHE_F32 : BNT_CACHE_F16,
                                           .ignore_eos = true});
    bnt_model_close(int8);
#else
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_text_is_the_same_on_all_kernels_and_threads),
        cmocka_unit_test(a_long_prompt_goes_on_as_if_fed_by_hand),
        cmocka_unit_test(the_seed_decides_the_text),
        cmocka_unit_test(one_candidate_is_greedy),
        cmocka_unit_test(it_ends_at_the_asked_for_length),
        cmocka_unit_test(it_ends_when_the_context_is_full),
        cmocka_unit_test(a_prompt_that_does_not_fit_is_refused),
        cmocka_unit_test(the_callback_ends_it),
        cmocka_unit_test(a_callback_is_not_needed),
        cmocka_unit_test(an_eos_token_ends_it),
        cmocka_unit_test(stop_ids_end_it),
        cmocka_unit_test(stop_texts_never_show),
        cmocka_unit_test(what_is_held_back_comes_at_the_end),
        cmocka_unit_test(of_several_stop_texts_the_first_counts),
        cmocka_unit_test(pieces_are_valid_and_make_the_detokenized_text),
        cmocka_unit_test(stop_texts_of_parts_of_characters),
        cmocka_unit_test(a_stop_text_is_found_in_what_ends_the_text),
        cmocka_unit_test(no_memory_is_allocated_between_tokens),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
