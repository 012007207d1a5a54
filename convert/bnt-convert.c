// SPDX-License-Identifier: MIT
// bnt-convert: a Hugging Face checkpoint folder in, a ternary checkpoint (safetensors stream) out.
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "convert/convert.h"
#include "formats/checkpoint.h"
#include "formats/cli.h"
#include "formats/processors.h"
#include "formats/target.h"

static const char help[] =
    "Usage: bnt-convert [OPTION]... CHECKPOINT_DIR\n"
    "Ternarize a Hugging Face checkpoint and write it as a safetensors stream:\n"
    "each linear layer as I8 values -1, 0, +1 with its scale as F32, all else as it is.\n"
    "\n"
    "  -o, --output=OUT   write to OUT; '-', the default, is standard output\n"
    "  -j, --jobs=N       use N threads (default: the processors it may use)\n"
    "      --nearest      weights that are nearly all on three levels take the nearest level\n"
    "      --force        convert a checkpoint that was not trained for ternary weights,\n"
    "                     and report the error of each matrix\n"
    "  -q, --quiet        no progress bar\n"
    "  -h, --help         print this help\n"
    "      --version      print the version\n"
    "\n"
    "Until OUT is complete it is a hidden file beside it, .OUT.XXXXXX.\n"
    "\n"
    "Example: bnt-convert DIR | bnt-pack -o model.bnt\n"
    "Exit status: 0 done, 1 failed, 2 usage.\n";

struct arguments {
    const char *dir;
    const char *output;
    struct convert_options convert;
    bool force;
    bool nearest;
};

static bool writes_to_pipe(const struct bnt_output *out)
{
    struct stat st;
    return fstat(out->fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

// Weights, and the small files that are read beside them.
static enum bnt_status is_no_input(const struct bnt_checkpoint *c, const char *output,
                                   struct bnt_error *err)
{
    enum bnt_status status = BNT_OK;
    for (size_t i = 0; i < BNT_SMALL_FILES + c->n_shards && status == BNT_OK; i++) {
        bool small = i < BNT_SMALL_FILES;
        const char *name = small ? c->small[i].name : c->shards[i - BNT_SMALL_FILES].name;
        char *path = bnt_path_join(c->dir, name);
        status = path ? bnt_target_is_not(output, path, err)
                      : bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
        free(path);
    }
    return status;
}

static int run(const struct arguments *a, struct bnt_checkpoint *checkpoint)
{
    struct bnt_error err;
    struct bnt_output out;
    if (bnt_checkpoint_open(checkpoint, a->dir, &err) != BNT_OK)
        return bnt_cli_fail(&err);
    const struct bnt_levels_options levels = {
        .threads = a->convert.threads, .nearest = a->nearest, .force = a->force};
    if (bnt_checkpoint_find_levels(checkpoint, &levels, &err) != BNT_OK)
        return bnt_cli_fail(&err);
    if (checkpoint->config.form != BNT_FORM_LEVELS && !checkpoint->config.ternary && !a->force) {
        bnt_cli_note("%s: config.json says nothing of ternary training (no quantization_config of "
                     "quant_method bitnet, no weight_bits 1), and %s: "
                     "ternarizing an ordinary model ruins it; --force does it all the same",
                     a->dir, checkpoint->levels.unlike);
        return BNT_EXIT_FAILED;
    }
    if (checkpoint->levels.nearest)
        bnt_cli_note("%s: %" PRIu64 " weights take the nearest level, up to %.3g of the level away",
                     a->dir, checkpoint->levels.off, (double)checkpoint->levels.worst);
    if (is_no_input(checkpoint, a->output, &err) != BNT_OK ||
        bnt_output_open(&out, a->output, &err) != BNT_OK)
        return bnt_cli_fail(&err);
    struct convert_options options = a->convert;
    if (writes_to_pipe(&out)) { // the tool that reads it draws a bar of its own
        options.quiet = true;
        bnt_cli_share_line();
    }
    enum bnt_status status = bnt_convert(checkpoint, &out, &options, &err);
    if (status == BNT_OK)
        status = bnt_output_commit(&out, &err);
    if (status == BNT_OK)
        return BNT_EXIT_OK;
    bnt_output_abort(&out);
    return bnt_cli_fail(&err);
}

enum { OPTION_FORCE = 256, OPTION_NEAREST, OPTION_VERSION };

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"jobs", required_argument, NULL, 'j'},
        {"force", no_argument, NULL, OPTION_FORCE},
        {"nearest", no_argument, NULL, OPTION_NEAREST},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    struct arguments a = {.output = "-", .convert = {.threads = bnt_processors()}};
    uint64_t n;
    int c;
    bnt_cli_init("bnt-convert");
    while ((c = getopt_long(argc, argv, ":o:j:qh", options, NULL)) != -1) {
        switch (c) {
        case 'o':
            a.output = optarg;
            break;
        case 'j':
            if (!bnt_cli_u64(optarg, 1, 256, &n))
                return bnt_cli_usage("--jobs must be a number from 1 to 256, not '%s'", optarg);
            a.convert.threads = (unsigned)n;
            break;
        case 'q':
            a.convert.quiet = true;
            break;
        case OPTION_FORCE:
            a.force = true;
            a.convert.report = true;
            break;
        case OPTION_NEAREST:
            a.nearest = true;
            break;
        case 'h':
            return bnt_cli_print(help);
        case OPTION_VERSION:
            return bnt_cli_version(NULL);
        default:
            return bnt_cli_bad_option(c, argv);
        }
    }
    if (optind + 1 != argc)
        return bnt_cli_usage(optind == argc ? "CHECKPOINT_DIR is missing"
                                            : "more than one CHECKPOINT_DIR");
    a.dir = argv[optind];
    int code = bnt_cli_check_name("CHECKPOINT_DIR", a.dir);
    if (code == BNT_EXIT_OK)
        code = bnt_cli_check_name("--output", a.output);
    if (code != BNT_EXIT_OK)
        return code;
    struct bnt_checkpoint checkpoint;
    code = run(&a, &checkpoint);
    bnt_checkpoint_close(&checkpoint);
    return code;
}
