// SPDX-License-Identifier: MIT
// bnt-bench: how fast, and how much of what this machine can do.
#define _GNU_SOURCE
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "formats/cli.h"
#include "formats/processors.h"
#include "runtime/bench/bench.h"
#include "runtime/options.h"

static const char help[] =
    "Usage: bnt-bench [OPTION]... FILE.bnt\n"
    "       bnt-bench [OPTION]... --gemv\n"
    "Measure the speed of a model, or with --gemv of the ternary products alone, beside what the\n"
    "machine itself can do in the same run: bytes read and int8 multiply-adds a second. On a GPU\n"
    "--gemv has cuBLAS in bf16 beside it.\n"
    "\n"
    "  -p, --prompt=N      tokens of the prompt (default 512; 0 leaves it out)\n"
    "  -n, --tokens=N      tokens to generate (default 128; 0 leaves it out)\n"
    "      --end-to-end    time whole texts too, of 64, 256 and 512 tokens and 16, 32 and 64 "
    "more,\n"
    "                      and single steps after 1, 512 and 2000 tokens (on a GPU: always)\n"
    "  -r, --repeat=R      rounds; each measures everything once (default 5)\n"
    "      --cache=TYPE    keep keys and values as f16 (default) or f32\n"
    "  -t, --threads=N     use N threads (default: the processors it may use)\n"
    "      --device=DEVICE cpu (default), cuda, or auto: the GPU if there is one\n"
    "      --kernel=NAME   use these kernels instead of the best ones (bnt-run --version)\n"
    "      --json          print the result as JSON; otherwise it is a Markdown table\n"
    "  -q, --quiet         no progress bar\n"
    "  -h, --help          print this help\n"
    "      --version       print the version\n"
    "\n"
    "BNT_KERNEL in the environment is used where --kernel is not given. Kernels are the CPU's: "
    "with\n"
    "one of them, auto is cpu. BNT_CUBLAS is the path of cuBLAS, if the system does not find it.\n"
    "Exit status: 0 done, 1 failed, 2 usage.\n";

enum {
    OPTION_CACHE = 256,
    OPTION_DEVICE,
    OPTION_KERNEL,
    OPTION_GEMV,
    OPTION_END_TO_END,
    OPTION_JSON,
    OPTION_VERSION,
};

static const struct option options[] = {
    {"prompt", required_argument, NULL, 'p'},
    {"tokens", required_argument, NULL, 'n'},
    {"end-to-end", no_argument, NULL, OPTION_END_TO_END},
    {"repeat", required_argument, NULL, 'r'},
    {"cache", required_argument, NULL, OPTION_CACHE},
    {"threads", required_argument, NULL, 't'},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"kernel", required_argument, NULL, OPTION_KERNEL},
    {"gemv", no_argument, NULL, OPTION_GEMV},
    {"json", no_argument, NULL, OPTION_JSON},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

static int number(uint64_t *out, uint64_t low, uint64_t high, const char *name)
{
    return bnt_cli_u64(optarg, low, high, out)
               ? 0
               : 1 + bnt_cli_usage("%s must be a number from %llu to %llu, not '%s'", name,
                                   (unsigned long long)low, (unsigned long long)high, optarg);
}

// Returns 0 to go on, or the exit code + 1 to end with.
static int parse_option(struct bench_options *o, bool *gemv, int c, char **argv)
{
    int code = 0;
    switch (c) {
    case 'p':
        return number(&o->prompt, 0, 1 << 24, "--prompt");
    case 'n':
        code = number(&o->tokens, 0, 1 << 24, "--tokens");
        return code || o->tokens != 1 ? code
                                      : 1 + bnt_cli_usage("--tokens must be 0 or 2 and more");
    case 'r':
        return number(&o->rounds, 1, BENCH_MAX_ROUNDS, "--repeat");
    case 't':
        code = bnt_option_threads(optarg, &o->threads);
        break;
    case OPTION_CACHE:
        code = bnt_option_cache(optarg, &o->cache);
        break;
    case OPTION_DEVICE:
        code = bnt_option_device(optarg, &o->device);
        break;
    case OPTION_KERNEL:
        o->kernel = optarg;
        return 0;
    case OPTION_GEMV:
        *gemv = true;
        return 0;
    case OPTION_END_TO_END:
        o->end_to_end = true;
        return 0;
    case OPTION_JSON:
        o->json = true;
        return 0;
    case 'q':
        o->quiet = true;
        return 0;
    case 'h':
        return 1 + bnt_cli_print(help);
    case OPTION_VERSION:
        return 1 + bnt_cli_version(NULL);
    default:
        return 1 + bnt_cli_bad_option(c, argv);
    }
    return code ? 1 + code : 0;
}

// Settles what AUTO means, and opens the GPU.
static enum bnt_status open_device(struct bench_options *o, struct bnt_error *err)
{
    if (o->device == BNT_DEVICE_AUTO && (o->kernel || !bnt_cuda_present()))
        o->device = BNT_DEVICE_CPU;
    if (o->device == BNT_DEVICE_CPU)
        return BNT_OK;
    const double start = bench_now();
    enum bnt_status status = bnt_cuda_bench_open(&o->gpu, err);
    o->gpu_start_time = bench_now() - start;
    if (status == BNT_OK || o->device == BNT_DEVICE_CUDA)
        return status;
    bnt_option_note(err->message, o->quiet);
    o->device = BNT_DEVICE_CPU;
    return BNT_OK;
}

static int run(struct bench_options *o, bool gemv)
{
    struct bnt_error err;
    enum bnt_status status = open_device(o, &err);
    if (status == BNT_OK && gemv)
        status = (o->gpu ? bench_gemv_gpu : bench_gemv)(o, &err);
    else if (status == BNT_OK)
        status = bench_model(o, &err);
    bnt_cuda_bench_close(o->gpu);
    if (status != BNT_OK)
        return bnt_cli_fail(&err);
    return bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

int main(int argc, char **argv)
{
    struct bench_options o = {.prompt = 512,
                              .tokens = 128,
                              .threads = bnt_processors(),
                              .rounds = 5,
                              .device = BNT_DEVICE_CPU,
                              .kernel = environment("BNT_KERNEL"),
                              .cublas = environment("BNT_CUBLAS")};
    bool gemv = false;
    int c;
    bnt_cli_init("bnt-bench");
    while ((c = getopt_long(argc, argv, ":p:n:r:t:qh", options, NULL)) != -1) {
        int end = parse_option(&o, &gemv, c, argv);
        if (end)
            return end - 1;
    }
    if (gemv && optind != argc)
        return bnt_cli_usage("--gemv takes no file");
    if (!gemv && optind + 1 != argc)
        return bnt_cli_usage(optind == argc ? "FILE.bnt is missing" : "more than one FILE.bnt");
    if (!gemv && !o.prompt && !o.tokens && !o.end_to_end)
        return bnt_cli_usage("-p 0 and -n 0 leave nothing to measure");
    o.model = argv[optind];
    int code = bnt_cli_check_name("FILE.bnt", gemv ? NULL : o.model);
    return code == BNT_EXIT_OK ? run(&o, gemv) : code;
}
