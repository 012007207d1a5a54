// SPDX-License-Identifier: MIT
// bnt-verify: does a .bnt file keep every rule of bnt.md, and is it what its checkpoint gives?
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/cli.h"
#include "formats/json.h"
#include "formats/processors.h"
#include "verify/verify.h"

static const char help[] =
    "Usage: bnt-verify [OPTION]... FILE.bnt\n"
    "Check every rule of the format (formats/bnt.md). Silent when all hold; otherwise\n"
    "one line for each broken rule. FILE '-' is standard input.\n"
    "A pipe is first copied to $TMPDIR, or /tmp, and takes as much room there.\n"
    "\n"
    "      --source=CHECKPOINT_DIR   also derive every tensor anew from the checkpoint\n"
    "                                and compare (rules S1 - S6)\n"
    "      --errors                  with --source: print each matrix's relative error,\n"
    "                                that is what was lost when it became ternary\n"
    "      --json                    print the result as JSON on standard output\n"
    "  -j, --jobs=N                  use N threads (default: the processors it may use)\n"
    "  -q, --quiet                   no progress bar\n"
    "  -h, --help                    print this help\n"
    "      --version                 print the version\n"
    "\n"
    "Exit status: 0 all rules hold, 1 a rule is broken or the file cannot be read, 2 usage.\n";

struct arguments {
    const char *path;
    const char *source;
    bool json;
    bool errors;
    bool quiet;
    unsigned threads;
};

static void print_lines(const char *path, const struct findings *f)
{
    for (size_t i = 0; i < f->count; i++)
        bnt_cli_note("%s: %s: %s", path, f->items[i].rule, f->items[i].message);
    if (f->total > f->count)
        bnt_cli_note("%s: and %" PRIu64 " more", path, f->total - f->count);
}

static bool print_errors(const struct verify_errors *errors)
{
    bool ok = true;
    for (size_t i = 0; i < errors->count && ok; i++)
        ok = printf("%-28s %.6g\n",
                    bnt_tensor_name(errors->items[i].role, errors->items[i].layer).text,
                    errors->items[i].relative) >= 0;
    return ok;
}

static json_t *errors_as_json(const struct verify_errors *errors)
{
    json_t *list = json_array();
    for (size_t i = 0; i < errors->count; i++) {
        const struct verify_error *e = &errors->items[i];
        json_t *layer = e->layer == BNT_NO_LAYER ? json_null() : json_integer(e->layer);
        (void)json_array_append_new(list, json_pack("{s:o, s:s, s:f}", "layer", layer, "role",
                                                    bnt_role_name(e->role), "relative_error",
                                                    e->relative));
    }
    return list;
}

static bool print_json(const char *path, const struct findings *f,
                       const struct verify_errors *errors)
{
    json_t *broken = json_array();
    for (size_t i = 0; i < f->count; i++)
        (void)json_array_append_new(broken,
                                    json_pack("{s:s, s:o}", "rule", f->items[i].rule, "message",
                                              bnt_json_string(f->items[i].message)));
    json_t *json = json_pack("{s:o, s:b, s:o, s:I}", "file", bnt_json_string(path), "valid",
                             f->total == 0, "broken", broken, "broken_count", (json_int_t)f->total);
    if (json && errors->count)
        (void)json_object_set_new(json, "matrices", errors_as_json(errors));
    if (!json)
        bnt_cli_note("out of memory");
    bool ok = json && json_dumpf(json, stdout, JSON_INDENT(2)) == 0 && puts("") >= 0;
    json_decref(json);
    return ok;
}

static int print_result(const struct arguments *a, const struct findings *f,
                        const struct verify_errors *errors)
{
    bool printed = true;
    if (a->json)
        printed = print_json(a->path, f, errors);
    else
        print_lines(a->path, f);
    if (a->errors && !a->json)
        printed = print_errors(errors);
    if (!bnt_cli_close_stdout() || !printed)
        return BNT_EXIT_FAILED;
    return f->total ? BNT_EXIT_FAILED : BNT_EXIT_OK;
}

static int run(const struct arguments *a)
{
    struct bnt_error err;
    struct bnt_map map;
    struct bnt_view view;
    struct findings findings = {0};
    struct verify_errors errors = {.wanted = a->errors};
    if (bnt_input_map(&map, a->path, &err) != BNT_OK)
        return bnt_cli_fail(&err);
    enum bnt_status status = BNT_OK;
    if (bnt_verify_file(&map, &view, a->threads, &findings) && a->source)
        status =
            bnt_verify_source(&view, a->source, a->threads, a->quiet, &findings, &errors, &err);
    int code = status == BNT_OK ? print_result(a, &findings, &errors) : bnt_cli_fail(&err);
    bnt_findings_free(&findings);
    free(errors.items);
    bnt_map_close(&map);
    return code;
}

enum { OPTION_SOURCE = 256, OPTION_ERRORS, OPTION_JSON, OPTION_VERSION };

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"source", required_argument, NULL, OPTION_SOURCE},
        {"errors", no_argument, NULL, OPTION_ERRORS},
        {"json", no_argument, NULL, OPTION_JSON},
        {"jobs", required_argument, NULL, 'j'},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    struct arguments a = {.threads = bnt_processors()};
    uint64_t n;
    int c;
    bnt_cli_init("bnt-verify");
    while ((c = getopt_long(argc, argv, ":j:qh", options, NULL)) != -1) {
        switch (c) {
        case OPTION_SOURCE:
            a.source = optarg;
            break;
        case OPTION_ERRORS:
            a.errors = true;
            break;
        case OPTION_JSON:
            a.json = true;
            break;
        case 'j':
            if (!bnt_cli_u64(optarg, 1, 256, &n))
                return bnt_cli_usage("--jobs must be a number from 1 to 256, not '%s'", optarg);
            a.threads = (unsigned)n;
            break;
        case 'q':
            a.quiet = true;
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
        return bnt_cli_usage(optind == argc ? "FILE.bnt is missing" : "more than one FILE.bnt");
    a.path = argv[optind];
    int code = bnt_cli_check_name("FILE.bnt", a.path);
    if (code == BNT_EXIT_OK)
        code = bnt_cli_check_name("--source", a.source);
    return code == BNT_EXIT_OK ? run(&a) : code;
}
