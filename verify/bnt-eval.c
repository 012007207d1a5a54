// SPDX-License-Identifier: MIT
// bnt-eval: measure a .bnt model: perplexity, raw logits, the tokenizer. Uses the runtime through
// bnt.h alone.
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/cli.h"
#include "formats/file.h"
#include "formats/ids.h"
#include "formats/target.h"
#include "runtime/bnt.h"
#include "runtime/options.h"

static const char help[] =
    "Usage: bnt-eval [OPTION]... FILE.bnt --perplexity FILE [--window W]\n"
    "       bnt-eval [OPTION]... FILE.bnt --logits OUT --token-ids 1,2,3\n"
    "       bnt-eval [OPTION]... FILE.bnt --tokenize TEXT\n"
    "       bnt-eval [OPTION]... FILE.bnt --detokenize 1,2,3\n"
    "Measure a model.\n"
    "\n"
    "      --perplexity=FILE   of the text in FILE ('-': standard input; it may be a pipe): its\n"
    "                          tokens in windows of W, each fed as BOS + W tokens, loss over\n"
    "                          the W; a last short window is dropped\n"
    "      --window=W          tokens of a window (default 256)\n"
    "      --logits=OUT        write the logits of all positions to OUT ('-': standard output) as\n"
    "                          raw little-endian float32 [tokens, vocabulary]\n"
    "      --token-ids=IDS     the tokens, comma-separated, used as they are\n"
    "      --tokenize=TEXT     print the ids of TEXT, without BOS, comma-separated;\n"
    "                          '-' reads the text from standard input\n"
    "      --control=KIND      with --tokenize: what spells a control token becomes that 'token'\n"
    "                          (default) or stays 'text'\n"
    "      --detokenize=IDS    print the text of the ids, nothing added; '-' reads the ids from\n"
    "                          standard input\n"
    "      --json              print the result as JSON (not for --logits)\n"
    "      --cache=TYPE        keep keys and values as f32 (default, unlike bnt-run) or f16\n"
    "  -t, --threads=N         use N threads (default: the processors it may use)\n"
    "      --device=DEVICE     cpu, cuda, or auto: the GPU if there is one (default)\n"
    "      --kernel=NAME       use these kernels instead of the best ones (bnt-run --version)\n"
    "  -q, --quiet             no progress bar\n"
    "  -h, --help              print this help\n"
    "      --version           print the version\n"
    "\n"
    "BNT_KERNEL in the environment is used where --kernel is not given. Kernels are the CPU's:\n"
    "with one of them, --device is cpu unless it says otherwise.\n"
    "Until OUT is complete it is a hidden file beside it, .OUT.XXXXXX.\n"
    "Exit status: 0 done, 1 failed, 2 usage.\n";

enum { MAX_INPUT = 256 << 20, TOKENS_AT_ONCE = 32 };

struct arguments {
    const char *model;
    const char *perplexity, *logits, *tokenize, *detokenize; // one of them
    const char *ids;
    const char *kernel;
    uint64_t window, threads;
    enum bnt_cache cache;
    enum bnt_device device;
    bool json, quiet, has_control, plain;
};

struct evaluation {
    const struct arguments *arguments;
    const struct bnt_model *model;
    struct bnt_session *session;
    struct bnt_error *err;
};

// --- input ---

// The text of an argument that is meant literally unless it is "-".
static enum bnt_status read_argument(const char *argument, char **text, size_t *size,
                                     struct bnt_error *err)
{
    if (strcmp(argument, "-") == 0)
        return bnt_read_input(argument, MAX_INPUT, text, size, err);
    *text = strdup(argument);
    *size = strlen(argument);
    return *text ? BNT_OK : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
}

static enum bnt_status open_session(struct evaluation *e, size_t context)
{
    const struct bnt_model_info *info = bnt_model_info(e->model);
    if (context > info->max_context)
        return bnt_fail(e->err, BNT_ERR_ARGUMENT,
                        "%zu tokens are more than the model's context of %" PRIu32, context,
                        info->max_context);
    const struct bnt_session_options options = {.context = (uint32_t)context,
                                                .threads = (uint32_t)e->arguments->threads,
                                                .cache = e->arguments->cache,
                                                .device = e->arguments->device};
    enum bnt_status status = bnt_session_open(e->model, &options, &e->session, e->err);
    if (status == BNT_OK)
        bnt_option_note(bnt_session_note(e->session), e->arguments->quiet);
    return status;
}

// --- perplexity ---

// −log of the probability that the logits give to a token.
static double loss_of(const float *logits, uint32_t vocab, uint32_t token)
{
    double max = (double)logits[0], sum = 0;
    for (uint32_t i = 1; i < vocab; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - max);
    // cppcheck-suppress invalidFunctionArg ; sum holds exp(0), so it is at least 1
    return log(sum) + max - (double)logits[token];
}

// The loss over one window. input: BOS and all of the window's tokens but the last, which nothing
// follows.
static enum bnt_status window_loss(struct evaluation *e, const uint32_t *input,
                                   const uint32_t *target, size_t window, float *logits,
                                   double *loss)
{
    const uint32_t vocab = bnt_model_info(e->model)->vocab_size;
    enum bnt_status status = bnt_session_rewind(e->session, 0, e->err);
    for (size_t at = 0; at < window && status == BNT_OK; at += TOKENS_AT_ONCE) {
        size_t n = window - at < TOKENS_AT_ONCE ? window - at : TOKENS_AT_ONCE;
        status = bnt_evaluate(e->session, input + at, n, BNT_LOGITS_ALL, logits, e->err);
        for (size_t t = 0; t < n && status == BNT_OK; t++)
            *loss += loss_of(logits + t * vocab, vocab, target[at + t]);
    }
    return status;
}

static enum bnt_status all_windows(struct evaluation *e, const uint32_t *tokens, size_t windows,
                                   double *loss)
{
    size_t window = (size_t)e->arguments->window;
    uint32_t *input = malloc(window * sizeof *input);
    float *logits =
        malloc((size_t)TOKENS_AT_ONCE * bnt_model_info(e->model)->vocab_size * sizeof *logits);
    struct bnt_progress progress;
    enum bnt_status status = BNT_ERR_MEMORY;
    if (input && logits)
        status = open_session(e, window);
    else
        (void)bnt_fail(e->err, status, "out of memory");
    bnt_progress_start(&progress, "evaluating", windows, "windows", e->arguments->quiet);
    for (size_t i = 0; i < windows && status == BNT_OK; i++) {
        const uint32_t *target = tokens + i * window;
        input[0] = (uint32_t)bnt_model_info(e->model)->bos_id;
        memcpy(input + 1, target, (window - 1) * sizeof *input);
        status = window_loss(e, input, target, window, logits, loss);
        bnt_progress_add(&progress, 1);
    }
    bnt_progress_end(&progress);
    free(input);
    free(logits);
    return status;
}

static void print_perplexity(const struct arguments *a, size_t windows, double loss)
{
    size_t tokens = windows * (size_t)a->window;
    double nll = loss / (double)tokens;
    if (a->json)
        (void)printf("{\"perplexity\": %.9g, \"nll\": %.9g, \"tokens\": %zu, \"windows\": %zu, "
                     "\"window\": %" PRIu64 "}\n",
                     exp(nll), nll, tokens, windows, a->window);
    else
        (void)printf("perplexity %.5f\nnll        %.7f\ntokens     %zu\n", exp(nll), nll, tokens);
}

static enum bnt_status perplexity(struct evaluation *e)
{
    const struct arguments *a = e->arguments;
    char *text = NULL;
    uint32_t *tokens = NULL;
    size_t size = 0, count = 0;
    double loss = 0;
    if (bnt_model_info(e->model)->bos_id < 0)
        return bnt_fail(e->err, BNT_ERR_UNSUPPORTED,
                        "the model has no BOS token to begin a window with");
    enum bnt_status status = bnt_read_piped(a->perplexity, MAX_INPUT, &text, &size, e->err);
    if (status == BNT_OK)
        status = bnt_tokenize(e->model, text, size, 0, &tokens, &count, e->err);
    if (status == BNT_ERR_TEXT)
        bnt_fail_prefix(e->err, bnt_input_name(a->perplexity));
    if (status == BNT_OK && count < a->window)
        status = bnt_fail(e->err, BNT_ERR_ARGUMENT,
                          "%s: has %zu tokens, fewer than one window of %" PRIu64
                          " (--window takes smaller ones)",
                          bnt_input_name(a->perplexity), count, a->window);
    if (status == BNT_OK)
        status = all_windows(e, tokens, count / (size_t)a->window, &loss); // NOLINT: window >= 1
    if (status == BNT_OK)
        print_perplexity(a, count / (size_t)a->window, loss);
    free(text);
    free(tokens);
    return status;
}

// --- logits ---

static enum bnt_status write_logits(struct evaluation *e, const uint32_t *tokens, size_t count,
                                    struct bnt_output *out)
{
    size_t vocab = bnt_model_info(e->model)->vocab_size;
    float *logits = malloc(TOKENS_AT_ONCE * vocab * sizeof *logits);
    enum bnt_status status =
        logits ? open_session(e, count) : bnt_fail(e->err, BNT_ERR_MEMORY, "out of memory");
    for (size_t at = 0; at < count && status == BNT_OK; at += TOKENS_AT_ONCE) {
        size_t n = count - at < TOKENS_AT_ONCE ? count - at : TOKENS_AT_ONCE;
        status = bnt_evaluate(e->session, tokens + at, n, BNT_LOGITS_ALL, logits, e->err);
        if (status == BNT_OK)
            status = bnt_output_write(out, logits, n * vocab * sizeof *logits, e->err);
    }
    free(logits);
    return status;
}

static enum bnt_status logits(struct evaluation *e)
{
    uint32_t *tokens;
    size_t count;
    struct bnt_output out;
    enum bnt_status status = bnt_ids_parse(e->arguments->ids, &tokens, &count, e->err);
    if (status != BNT_OK)
        return status;
    status = count ? bnt_target_is_not(e->arguments->logits, e->arguments->model, e->err)
                   : bnt_fail(e->err, BNT_ERR_ARGUMENT, "--token-ids is empty");
    if (status == BNT_OK)
        status = bnt_output_open(&out, e->arguments->logits, e->err);
    if (status == BNT_OK) {
        status = write_logits(e, tokens, count, &out);
        if (status == BNT_OK)
            status = bnt_output_commit(&out, e->err);
        else
            bnt_output_abort(&out);
    }
    free(tokens);
    return status;
}

// --- tokenizer ---

static void print_ids(const uint32_t *tokens, size_t count, bool json)
{
    (void)fputs(json ? "{\"tokens\": [" : "", stdout);
    for (size_t i = 0; i < count; i++)
        (void)printf("%s%" PRIu32, i == 0 ? "" : json ? ", " : ",", tokens[i]);
    (void)puts(json ? "]}" : "");
}

static enum bnt_status tokenize(struct evaluation *e)
{
    char *text = NULL;
    uint32_t *tokens = NULL;
    size_t size = 0, count = 0;
    enum bnt_status status = read_argument(e->arguments->tokenize, &text, &size, e->err);
    if (status == BNT_OK)
        status = bnt_tokenize(e->model, text, size, e->arguments->plain ? BNT_TOKENIZE_PLAIN : 0,
                              &tokens, &count, e->err);
    if (status == BNT_OK)
        print_ids(tokens, count, e->arguments->json);
    free(text);
    free(tokens);
    return status;
}

static void print_text(const char *text, size_t size, bool json)
{
    if (!json) {
        (void)fwrite(text, 1, size, stdout);
        if (isatty(STDOUT_FILENO))
            (void)puts("");
        return;
    }
    json_t *object = json_pack("{s:o}", "text", json_stringn(text, size));
    (void)json_dumpf(object, stdout, 0);
    (void)puts("");
    json_decref(object);
}

static enum bnt_status detokenize(struct evaluation *e)
{
    char *argument = NULL, *text = NULL;
    uint32_t *tokens = NULL;
    size_t size = 0, count = 0;
    enum bnt_status status = read_argument(e->arguments->detokenize, &argument, &size, e->err);
    if (status == BNT_OK)
        status = bnt_ids_parse(argument, &tokens, &count, e->err);
    if (status == BNT_OK) {
        status =
            bnt_detokenize(e->model, tokens, count, NULL, 0, &size, e->err); // asks for the size
        text = size > 0 ? malloc(size) : NULL;
        if (text)
            status = bnt_detokenize(e->model, tokens, count, text, size, &size, e->err);
    }
    if (status == BNT_OK)
        print_text(text ? text : "", size, e->arguments->json);
    free(argument);
    free(tokens);
    free(text);
    return status;
}

static int run(const struct arguments *a)
{
    struct bnt_error err;
    struct bnt_model *model;
    enum bnt_status status = bnt_model_open(a->model, a->kernel, &model, &err);
    struct evaluation e = {.arguments = a, .model = model, .err = &err};
    if (status == BNT_OK) {
        if (a->perplexity)
            status = perplexity(&e);
        else if (a->logits)
            status = logits(&e);
        else
            status = a->tokenize ? tokenize(&e) : detokenize(&e);
    }
    bnt_session_close(e.session);
    bnt_model_close(model);
    if (status != BNT_OK)
        return bnt_cli_fail(&err);
    return a->logits || bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

enum {
    OPTION_PERPLEXITY = 256,
    OPTION_WINDOW,
    OPTION_LOGITS,
    OPTION_IDS,
    OPTION_TOKENIZE,
    OPTION_DETOKENIZE,
    OPTION_CONTROL,
    OPTION_JSON,
    OPTION_CACHE,
    OPTION_DEVICE,
    OPTION_KERNEL,
    OPTION_VERSION,
};

static const struct option options[] = {
    {"perplexity", required_argument, NULL, OPTION_PERPLEXITY},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"logits", required_argument, NULL, OPTION_LOGITS},
    {"token-ids", required_argument, NULL, OPTION_IDS},
    {"tokenize", required_argument, NULL, OPTION_TOKENIZE},
    {"detokenize", required_argument, NULL, OPTION_DETOKENIZE},
    {"control", required_argument, NULL, OPTION_CONTROL},
    {"json", no_argument, NULL, OPTION_JSON},
    {"threads", required_argument, NULL, 't'},
    {"cache", required_argument, NULL, OPTION_CACHE},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"kernel", required_argument, NULL, OPTION_KERNEL},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

// Returns 0 to go on, or the exit code + 1 to end with.
static int parse_option(struct arguments *a, int c, char **argv)
{
    int code = 0;
    switch (c) {
    case OPTION_PERPLEXITY:
        a->perplexity = optarg;
        return 0;
    case OPTION_LOGITS:
        a->logits = optarg;
        return 0;
    case OPTION_IDS:
        a->ids = optarg;
        return 0;
    case OPTION_TOKENIZE:
        a->tokenize = optarg;
        return 0;
    case OPTION_DETOKENIZE:
        a->detokenize = optarg;
        return 0;
    case OPTION_CONTROL:
        a->has_control = true;
        code = bnt_option_control(optarg, &a->plain);
        break;
    case OPTION_WINDOW:
        return bnt_cli_u64(optarg, 1, 1 << 24, &a->window)
                   ? 0
                   : 1 + bnt_cli_usage("--window must be a number from 1, not '%s'", optarg);
    case 't':
        code = bnt_option_threads(optarg, &a->threads);
        break;
    case OPTION_JSON:
        a->json = true;
        return 0;
    case OPTION_CACHE:
        code = bnt_option_cache(optarg, &a->cache);
        break;
    case OPTION_KERNEL:
        a->kernel = optarg;
        return 0;
    case 'q':
        a->quiet = true;
        return 0;
    case OPTION_DEVICE:
        code = bnt_option_device(optarg, &a->device);
        break;
    case 'h':
        return 1 + bnt_cli_print(help);
    case OPTION_VERSION:
        return 1 + bnt_cli_version(NULL);
    default:
        return 1 + bnt_cli_bad_option(c, argv);
    }
    return code ? 1 + code : 0;
}

int main(int argc, char **argv)
{
    const char *environment = getenv("BNT_KERNEL");
    struct arguments a = {.window = 256,
                          .cache = BNT_CACHE_F32,
                          .device = BNT_DEVICE_AUTO,
                          .kernel = environment && *environment ? environment : NULL};
    int c;
    bnt_cli_init("bnt-eval");
    while ((c = getopt_long(argc, argv, ":t:qh", options, NULL)) != -1) {
        int end = parse_option(&a, c, argv);
        if (end)
            return end - 1;
    }
    if (optind + 1 != argc)
        return bnt_cli_usage(optind == argc ? "FILE.bnt is missing" : "more than one FILE.bnt");
    int code = bnt_cli_check_name("FILE.bnt", argv[optind]);
    if (code == BNT_EXIT_OK)
        code = bnt_cli_check_name("--perplexity", a.perplexity);
    if (code == BNT_EXIT_OK)
        code = bnt_cli_check_name("--logits", a.logits);
    if (code != BNT_EXIT_OK)
        return code;
    if (!!a.perplexity + !!a.logits + !!a.tokenize + !!a.detokenize != 1)
        return bnt_cli_usage("give one of --perplexity, --logits, --tokenize and --detokenize");
    if (a.has_control && !a.tokenize)
        return bnt_cli_usage("--control goes with --tokenize");
    if (!!a.logits != !!a.ids)
        return bnt_cli_usage("--logits and --token-ids go together");
    if (a.device == BNT_DEVICE_AUTO && a.kernel)
        a.device = BNT_DEVICE_CPU; // it was named
    a.model = argv[optind];
    return run(&a);
}
