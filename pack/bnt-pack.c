// SPDX-License-Identifier: MIT
// bnt-pack: a ternary checkpoint (safetensors stream of bnt-convert) in, a .bnt file out.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/cli.h"
#include "formats/file.h"
#include "formats/processors.h"
#include "formats/target.h"
#include "pack/pack.h"

static const char help[] =
    "Usage: bnt-pack [OPTION]... [IN]\n"
    "Pack a ternary checkpoint, as bnt-convert writes it, into a .bnt file.\n"
    "IN is a file; '-', the default, is standard input.\n"
    "\n"
    "  -o, --output=OUT       write to OUT; '-', the default, is standard output\n"
    "      --embedding=TYPE   int8: add an int8 copy of the output matrix for a faster\n"
    "                         output layer; bf16: round embeddings to bf16. By default they\n"
    "                         stay as they are, bf16 or f32. May be given for each\n"
    "  -j, --jobs=N           use N threads (default: the processors it may use)\n"
    "      --matrix=NAME      pack the one I8 matrix NAME of a safetensors file into bare\n"
    "                         16x32 blocks, and nothing else\n"
    "  -q, --quiet            no progress bar\n"
    "      --help             print this help\n"
    "      --version          print the version\n"
    "\n"
    "Example: bnt-convert DIR | bnt-pack -o model.bnt\n"
    "Exit status: 0 done, 1 failed, 2 usage.\n";

struct arguments {
    const char *input;
    const char *output;
    const char *matrix;
    struct pack_options pack;
};

static enum bnt_status open_input(const char *path, int *fd, struct bnt_error *err)
{
    struct stat st;
    *fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    const char *name = *fd == STDIN_FILENO ? "standard input" : path;
    if (*fd < 0 || fstat(*fd, &st) != 0)
        return bnt_fail(err, BNT_ERR_IO, "%s: cannot open: %s", name, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return bnt_fail(
            err, BNT_ERR_IO,
            "%s: is a directory; bnt-convert reads those: bnt-convert %s | bnt-pack -o FILE.bnt",
            name, name);
    if (isatty(*fd))
        return bnt_fail(
            err, BNT_ERR_IO,
            "standard input is a terminal: pipe bnt-convert into bnt-pack, or name a file");
    return BNT_OK;
}

static enum bnt_status pack_stream(const struct arguments *a, struct bnt_output *out,
                                   struct bnt_error *err)
{
    int fd;
    enum bnt_status status = open_input(a->input, &fd, err);
    if (status == BNT_OK)
        status = bnt_target_is_not(a->output, a->input, err);
    if (status == BNT_OK)
        status = bnt_output_open_random(out, a->output, err);
    if (status == BNT_OK)
        status = bnt_pack(fd, fd == STDIN_FILENO ? "standard input" : a->input, out, &a->pack, err);
    if (fd > STDIN_FILENO)
        (void)close(fd);
    return status;
}

static enum bnt_status pack_matrix(const struct arguments *a, struct bnt_output *out,
                                   struct bnt_error *err)
{
    enum bnt_status status = bnt_target_is_not(a->output, a->input, err);
    if (status == BNT_OK)
        status = bnt_output_open(out, a->output, err);
    return status == BNT_OK ? bnt_pack_matrix(a->input, a->matrix, out, err) : status;
}

static int run(const struct arguments *a)
{
    struct bnt_error err;
    struct bnt_output out = {.fd = -1};
    enum bnt_status status = a->matrix ? pack_matrix(a, &out, &err) : pack_stream(a, &out, &err);
    if (status == BNT_OK)
        status = bnt_output_commit(&out, &err);
    if (status == BNT_OK)
        return BNT_EXIT_OK;
    bnt_output_abort(&out);
    return bnt_cli_fail(&err);
}

enum { OPTION_EMBEDDING = 256, OPTION_MATRIX, OPTION_HELP, OPTION_VERSION };

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"embedding", required_argument, NULL, OPTION_EMBEDDING},
        {"jobs", required_argument, NULL, 'j'},
        {"matrix", required_argument, NULL, OPTION_MATRIX},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, OPTION_HELP},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    struct arguments a = {.input = "-", .output = "-", .pack = {.threads = bnt_processors()}};
    uint64_t n;
    int c;
    bnt_cli_init("bnt-pack");
    while ((c = getopt_long(argc, argv, ":o:j:q", options, NULL)) != -1) {
        switch (c) {
        case 'o':
            a.output = optarg;
            break;
        case 'j':
            if (!bnt_cli_u64(optarg, 1, 256, &n))
                return bnt_cli_usage("--jobs must be a number from 1 to 256, not '%s'", optarg);
            a.pack.threads = (unsigned)n;
            break;
        case 'q':
            a.pack.quiet = true;
            break;
        case OPTION_EMBEDDING:
            if (strcmp(optarg, "int8") == 0)
                a.pack.int8 = true;
            else if (strcmp(optarg, "bf16") == 0)
                a.pack.bf16 = true;
            else
                return bnt_cli_usage("--embedding must be bf16 or int8, not '%s'", optarg);
            break;
        case OPTION_MATRIX:
            a.matrix = optarg;
            break;
        case OPTION_HELP:
            return bnt_cli_print(help);
        case OPTION_VERSION:
            return bnt_cli_version(NULL);
        default:
            return bnt_cli_bad_option(c, argv);
        }
    }
    if (optind + 1 < argc)
        return bnt_cli_usage("more than one input");
    if (optind < argc)
        a.input = argv[optind];
    return run(&a);
}
