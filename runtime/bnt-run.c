// SPDX-License-Identifier: MIT
// bnt-run: generate text with a .bnt model.
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "formats/cli.h"
#include "formats/file.h"
#include "formats/ids.h"
#include "runtime/options.h"
#include "runtime/run.h"

static const char help[] =
    "Usage: bnt-run [OPTION]... FILE.bnt (-p TEXT | -f FILE | --token-ids 1,2,3 | --chat)\n"
    "Generate text. What the model writes goes to standard output as it is written.\n"
    "\n"
    "  -p, --prompt=TEXT     the beginning of the text\n"
    "  -f, --file=FILE       read the prompt from FILE; '-' is standard input\n"
    "      --token-ids=IDS   the prompt as token ids, comma-separated, used as they are\n"
    "      --chat            hold a conversation: each line of standard input is answered,\n"
    "                        in the model's own chat template\n"
    "      --system=TEXT     with --chat: what the system says first (default: the template's)\n"
    "      --echo            print the prompt first\n"
    "  -n, --tokens=N        generate at most N tokens (default 256; 1024 with --chat)\n"
    "      --temp=T          temperature; 0 takes the likeliest token (default: the model's)\n"
    "      --top-k=K         choose among the K likeliest; 0 is all (default: the model's)\n"
    "      --top-p=P         choose among the likeliest that make up P (default: the model's)\n"
    "      --seed=S          the same seed gives the same text (default: a new one each time)\n"
    "      --stop=TEXT       end before this text; may be given several times\n"
    "      --ignore-eos      go on when the model ends the text\n"
    "  -c, --context=N       room for N tokens (default: as many as needed, up to the model's)\n"
    "      --cache=TYPE      keep keys and values as f16 (default) or f32\n"
    "  -t, --threads=N       use N threads (default: the processors it may use)\n"
    "      --device=DEVICE   cpu, cuda, or auto: the GPU if there is one (default)\n"
    "      --kernel=NAME     use these kernels instead of the best ones; --version lists them\n"
    "  -q, --quiet           no statistics on standard error\n"
    "      --help            print this help\n"
    "      --version         print the version and this processor's kernels\n"
    "\n"
    "A model without a tokenizer takes --token-ids and prints token ids.\n"
    "BNT_KERNEL in the environment is used where --kernel is not given. Kernels are the CPU's:\n"
    "with one of them, --device is cpu unless it says otherwise.\n"
    "Exit status: 0 done, 1 failed, 2 usage.\n";

double bnt_run_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// --- prompt ---

static enum bnt_status read_prompt(const struct run_arguments *a, const struct bnt_model *model,
                                   uint32_t **tokens, size_t *count, struct bnt_error *err)
{
    char *text = NULL;
    size_t size = 0;
    if (a->ids)
        return bnt_ids_parse(a->ids, tokens, count, err);
    if (a->prompt)
        return bnt_tokenize(model, a->prompt, strlen(a->prompt), true, tokens, count, err);
    enum bnt_status status = bnt_read_input(a->file, MAX_PROMPT, &text, &size, err);
    if (status == BNT_OK) {
        status = bnt_tokenize(model, text, size, true, tokens, count, err);
        if (status != BNT_OK)
            bnt_fail_prefix(err, a->file);
    }
    free(text);
    return status;
}

// --- output ---

bool bnt_run_print(void *context, uint32_t token, const char *text, size_t size)
{
    struct run_printer *p = context;
    if (p->count++ == 0)
        p->first = bnt_run_now();
    p->last = token == UINT32_MAX ? p->last : token;
    if (p->ids)
        p->failed = printf("%s%" PRIu32, p->count > 1 ? "," : "", token) < 0;
    else if (size > 0)
        p->failed = fwrite(text, 1, size, stdout) != size;
    p->failed = p->failed || fflush(stdout) != 0;
    return !p->failed;
}

static void print_echo(const struct bnt_model *model, const uint32_t *tokens, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t size;
        const char *text = bnt_token_text(model, tokens[i], &size);
        if (i == 0 && (int32_t)tokens[i] == bnt_model_info(model)->bos_id)
            continue;
        if (text)
            (void)fwrite(text, 1, size, stdout);
    }
}

static const char *reason_text(enum bnt_stop_reason reason)
{
    switch (reason) {
    case BNT_STOP_LENGTH:
        return "as many as asked for";
    case BNT_STOP_EOS:
        return "the model ended the text";
    case BNT_STOP_TEXT:
        return "stop text";
    case BNT_STOP_CONTEXT:
        return "the context is full";
    case BNT_STOP_CALLBACK:
        break;
    }
    return "output failed";
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

// --- generation ---

struct bnt_sampling bnt_run_sampling(const struct run_arguments *a,
                                     const struct bnt_model_info *info)
{
    return (struct bnt_sampling){
        .temperature = a->has_temperature ? (float)a->temperature : info->temperature,
        .top_k = a->has_top_k ? (uint32_t)a->top_k : info->top_k,
        .top_p = a->has_top_p ? (float)a->top_p : info->top_p,
        .seed = a->seed,
    };
}

static enum bnt_status generate(const struct run_arguments *a, struct bnt_session *session,
                                const struct bnt_model *model, const uint32_t *tokens, size_t count,
                                struct bnt_error *err)
{
    struct run_printer printer = {.ids = !bnt_model_info(model)->has_tokenizer};
    const struct bnt_generation generation = {
        .max_tokens = (size_t)a->tokens,
        .sampling = bnt_run_sampling(a, bnt_model_info(model)),
        .stop_texts = a->stops,
        .n_stop_texts = a->n_stops,
        .ignore_eos = a->ignore_eos,
        .callback = bnt_run_print,
        .context = &printer,
    };
    struct bnt_generation_result result;
    if (a->echo)
        print_echo(model, tokens, count);
    double start = bnt_run_now();
    enum bnt_status status = bnt_generate(session, tokens, count, &generation, &result, err);
    if (status != BNT_OK || printer.failed)
        return status; // output that failed is noticed when it is closed
    double end = bnt_run_now();
    (void)puts("");
    (void)fflush(stdout); // before the statistics, where both go to one place
    bool on_cpu = strcmp(bnt_session_device(session), "cpu") == 0;
    if (!a->quiet)
        bnt_cli_note(
            "%zu prompt tokens, %.1f tok/s; %zu generated, %.1f tok/s (%s); seed %" PRIu64 ", %s%s",
            count, rate(count, (printer.count ? printer.first : end) - start), result.n_tokens,
            printer.count > 1 ? rate(printer.count - 1, end - printer.first) : 0,
            reason_text(result.reason), a->seed, on_cpu ? "kernel " : "",
            on_cpu ? bnt_model_info(model)->kernel : bnt_session_device(session));
    return status;
}

static enum bnt_status run_model(const struct run_arguments *a, const struct bnt_model *model,
                                 struct bnt_error *err)
{
    uint32_t *tokens = NULL;
    size_t count = 0;
    struct bnt_session *session = NULL;
    uint64_t most = bnt_model_info(model)->max_context;
    enum bnt_status status = read_prompt(a, model, &tokens, &count, err);
    if (status == BNT_OK && count == 0)
        status = bnt_fail(err, BNT_ERR_ARGUMENT, "the prompt has no tokens");
    if (status == BNT_OK) {
        uint64_t needed = count + a->tokens < most ? count + a->tokens : most;
        const struct bnt_session_options options = {
            .context = (uint32_t)(a->context ? a->context : needed),
            .threads = (uint32_t)a->threads,
            .cache = a->cache,
            .device = a->device};
        status = bnt_session_open(model, &options, &session, err);
        if (status == BNT_OK)
            bnt_option_note(bnt_session_note(session), a->quiet);
    }
    if (status == BNT_OK)
        status = generate(a, session, model, tokens, count, err);
    bnt_session_close(session);
    free(tokens);
    return status;
}

static int run(const struct run_arguments *a)
{
    struct bnt_error err;
    struct bnt_model *model;
    enum bnt_status status = bnt_model_open(a->model, a->kernel, &model, &err);
    if (status == BNT_OK)
        status = a->chat ? bnt_run_chat(a, model, &err) : run_model(a, model, &err);
    bnt_model_close(model);
    if (status != BNT_OK)
        return bnt_cli_fail(&err);
    return bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

// --- options ---

static int version(void)
{
    char text[256] = "kernels of this processor:";
    const char *name;
    for (size_t i = 0; (name = bnt_kernel_name(i)) != NULL; i++) {
        size_t used = strlen(text);
        (void)snprintf(text + used, sizeof text - used, " %s%s", name, i == 0 ? " (default)" : "");
    }
    size_t used = strlen(text);
    (void)snprintf(text + used, sizeof text - used, "\n");
    return bnt_cli_version(text);
}

enum {
    OPTION_IDS = 256,
    OPTION_CHAT,
    OPTION_SYSTEM,
    OPTION_ECHO,
    OPTION_TEMP,
    OPTION_TOP_K,
    OPTION_TOP_P,
    OPTION_SEED,
    OPTION_STOP,
    OPTION_IGNORE_EOS,
    OPTION_CACHE,
    OPTION_DEVICE,
    OPTION_KERNEL,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option options[] = {
    {"prompt", required_argument, NULL, 'p'},
    {"file", required_argument, NULL, 'f'},
    {"token-ids", required_argument, NULL, OPTION_IDS},
    {"chat", no_argument, NULL, OPTION_CHAT},
    {"system", required_argument, NULL, OPTION_SYSTEM},
    {"echo", no_argument, NULL, OPTION_ECHO},
    {"tokens", required_argument, NULL, 'n'},
    {"temp", required_argument, NULL, OPTION_TEMP},
    {"top-k", required_argument, NULL, OPTION_TOP_K},
    {"top-p", required_argument, NULL, OPTION_TOP_P},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"stop", required_argument, NULL, OPTION_STOP},
    {"ignore-eos", no_argument, NULL, OPTION_IGNORE_EOS},
    {"context", required_argument, NULL, 'c'},
    {"cache", required_argument, NULL, OPTION_CACHE},
    {"threads", required_argument, NULL, 't'},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"kernel", required_argument, NULL, OPTION_KERNEL},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

// An option with a number. Returns 0, or the exit code after an error.
static int parse_number(struct run_arguments *a, int c)
{
    switch (c) {
    case 'n':
        a->has_tokens = true;
        return bnt_cli_u64(optarg, 0, UINT32_MAX, &a->tokens)
                   ? 0
                   : bnt_cli_usage("--tokens must be a whole number, not '%s'", optarg);
    case 'c':
        return bnt_cli_u64(optarg, 1, UINT32_MAX, &a->context)
                   ? 0
                   : bnt_cli_usage("--context must be a number from 1, not '%s'", optarg);
    case 't':
        return bnt_option_threads(optarg, &a->threads);
    case OPTION_SEED:
        a->has_seed = true;
        return bnt_cli_u64(optarg, 0, UINT64_MAX, &a->seed)
                   ? 0
                   : bnt_cli_usage("--seed must be a whole number, not '%s'", optarg);
    case OPTION_TOP_K:
        a->has_top_k = true;
        return bnt_cli_u64(optarg, 0, UINT32_MAX, &a->top_k)
                   ? 0
                   : bnt_cli_usage("--top-k must be a whole number, not '%s'", optarg);
    case OPTION_TEMP:
        a->has_temperature = true;
        return bnt_cli_double(optarg, 0, 100, &a->temperature)
                   ? 0
                   : bnt_cli_usage("--temp must be from 0 to 100, not '%s'", optarg);
    default:
        a->has_top_p = true;
        return bnt_cli_double(optarg, 1e-6, 1, &a->top_p)
                   ? 0
                   : bnt_cli_usage("--top-p must be above 0, up to 1, not '%s'", optarg);
    }
}

// Returns 0 to go on, or the exit code + 1 to end with.
static int parse_option(struct run_arguments *a, int c, char **argv)
{
    int code = 0;
    switch (c) {
    case 'p':
        a->prompt = optarg;
        break;
    case 'f':
        a->file = optarg;
        break;
    case OPTION_IDS:
        a->ids = optarg;
        break;
    case OPTION_CHAT:
        a->chat = true;
        break;
    case OPTION_SYSTEM:
        a->system = optarg;
        break;
    case OPTION_ECHO:
        a->echo = true;
        break;
    case OPTION_CACHE:
        code = bnt_option_cache(optarg, &a->cache);
        break;
    case OPTION_STOP:
        if (optarg[0] == '\0' || a->n_stops == MAX_STOPS)
            return 1 + bnt_cli_usage("--stop texts must not be empty, and at most %d", MAX_STOPS);
        a->stops[a->n_stops++] = optarg;
        break;
    case OPTION_IGNORE_EOS:
        a->ignore_eos = true;
        break;
    case OPTION_DEVICE:
        code = bnt_option_device(optarg, &a->device);
        break;
    case OPTION_KERNEL:
        a->kernel = optarg;
        break;
    case 'q':
        a->quiet = true;
        break;
    case OPTION_HELP:
        return 1 + bnt_cli_print(help);
    case OPTION_VERSION:
        return 1 + version();
    case '?':
    case ':':
        return 1 + bnt_cli_bad_option(c, argv);
    default:
        code = parse_number(a, c);
        break;
    }
    return code ? 1 + code : 0;
}

static uint64_t new_seed(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return ((uint64_t)t.tv_sec * 1000000007 + (uint64_t)t.tv_nsec) ^ (uint64_t)getpid() << 32;
}

int main(int argc, char **argv)
{
    const char *environment = getenv("BNT_KERNEL");
    struct run_arguments a = {.tokens = 256,
                              .device = BNT_DEVICE_AUTO,
                              .kernel = environment && *environment ? environment : NULL};
    int c;
    bnt_cli_init("bnt-run");
    while ((c = getopt_long(argc, argv, ":p:f:n:c:t:q", options, NULL)) != -1) {
        int end = parse_option(&a, c, argv);
        if (end)
            return end - 1;
    }
    if (optind + 1 != argc)
        return bnt_cli_usage(optind == argc ? "FILE.bnt is missing" : "more than one FILE.bnt");
    if (!!a.prompt + !!a.file + !!a.ids + a.chat != 1)
        return bnt_cli_usage("give the prompt by one of -p, -f and --token-ids, or --chat");
    if (a.system && !a.chat)
        return bnt_cli_usage("--system goes with --chat");
    if (a.chat && !a.has_tokens)
        a.tokens = 1024;
    a.model = argv[optind];
    if (a.device == BNT_DEVICE_AUTO && a.kernel)
        a.device = BNT_DEVICE_CPU; // it was named
    if (!a.has_seed)
        a.seed = new_seed();
    return run(&a);
}
