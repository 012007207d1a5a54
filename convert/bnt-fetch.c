// SPDX-License-Identifier: MIT
// bnt-fetch: a repository of the Hugging Face Hub in, the folder with its files out.
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert/fetch.h"
#include "convert/fetch_address.h"
#include "convert/fetch_http.h"
#include "formats/cli.h"

static const char help[] =
    "Usage: bnt-fetch [OPTION]... REPO\n"
    "Fetch a model from the Hugging Face Hub and print the folder that has its files. REPO is\n"
    "name, org/name, org/name@revision, or the address of one of its pages. The cache is that\n"
    "of the Python tools. What was begun is resumed, what is complete is verified before it\n"
    "gets its name. A Hub that does not answer is no matter where all was fetched before.\n"
    "\n"
    "      --revision=R     a branch, tag, commit or refs/pr/N (default: main)\n"
    "      --include=GLOB   fetch the files that match GLOB ('*' matches '/' too); may be\n"
    "                       given again (default: what a conversion needs)\n"
    "      --local-dir=DIR  write plain files to DIR instead of the cache\n"
    "  -j, --jobs=N         fetch N files at a time (default: 4)\n"
    "      --json           print commit, folder and files as JSON\n"
    "      --allow-http     allow an HF_ENDPOINT that is not encrypted, token and all\n"
    "  -q, --quiet          no progress bar, no notes\n"
    "  -h, --help           print this help\n"
    "      --version        print the version\n"
    "\n"
    "Environment: HF_TOKEN (HUGGING_FACE_HUB_TOKEN), HF_TOKEN_PATH, HF_HOME, XDG_CACHE_HOME,\n"
    "HF_HUB_CACHE (HUGGINGFACE_HUB_CACHE), HF_HUB_OFFLINE (TRANSFORMERS_OFFLINE), HF_ENDPOINT,\n"
    "HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_DISABLE_SYMLINKS,\n"
    "HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_DISABLE_PROGRESS_BARS, SSL_CERT_FILE mean what they\n"
    "mean to huggingface_hub; https_proxy, http_proxy, all_proxy and no_proxy what they mean to\n"
    "curl.\n"
    "\n"
    "Example: bnt-convert \"$(bnt-fetch microsoft/bitnet-b1.58-2B-4T-bf16)\" | bnt-pack -o m.bnt\n"
    "Exit status: 0 done, 1 failed, 2 usage.\n";

struct arguments {
    struct bnt_fetch_options fetch; // without revision, unless it is an option, until REPO is read
    const char *repo;               // as given
    const char **include;
    bool json;
};

static json_t *file_as_json(const struct bnt_fetch_file *file)
{
    json_t *object = json_pack("{s:s?, s:I, s:b}", "path", file->path, "size",
                               (json_int_t)file->size, "fetched", (int)file->fetched);
    size_t digits = strlen(file->oid);
    if (object && digits > 0)
        (void)json_object_set_new(object, digits == 64 ? "sha256" : "git_sha1",
                                  json_string(file->oid));
    return object;
}

static int print_json(const struct arguments *a, const struct bnt_fetch_result *result)
{
    const struct bnt_fetch_listing *listing = &result->listing;
    json_t *files = json_array();
    for (size_t i = 0; i < listing->count; i++)
        (void)json_array_append_new(files, file_as_json(&listing->files[i]));
    json_t *all =
        json_pack("{s:s, s:s, s:s?, s:s?, s:s, s:o}", "repository", a->fetch.repo, "revision",
                  a->fetch.revision, "commit", listing->commit[0] ? listing->commit : NULL,
                  "license", listing->license, "folder", result->folder, "files", files);
    char *text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
    json_decref(all);
    if (!text) {
        bnt_cli_note("the answer is no valid UTF-8, or memory is short: no JSON");
        return BNT_EXIT_FAILED;
    }
    (void)puts(text);
    free(text);
    return bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

static int fetch(const struct arguments *a, const struct bnt_fetch_env *env)
{
    struct bnt_error err;
    struct bnt_fetch_result result = {0};
    int code = BNT_EXIT_OK;
    if (bnt_fetch(&a->fetch, env, &result, &err) != BNT_OK) {
        code = bnt_cli_fail(&err);
    } else if (a->json) {
        code = print_json(a, &result);
    } else {
        (void)puts(result.folder);
        code = bnt_cli_close_stdout() ? BNT_EXIT_OK : BNT_EXIT_FAILED;
    }
    bnt_fetch_result_free(&result);
    return code;
}

// Takes repository and revision out of REPO. A value other than -1 ends the program with it.
static int take_address(struct arguments *a, const struct bnt_fetch_env *env,
                        struct bnt_fetch_address *address)
{
    struct bnt_error err;
    enum bnt_status status = bnt_fetch_address_read(address, a->repo, env->endpoint, &err);
    if (status == BNT_ERR_ARGUMENT)
        return bnt_cli_usage("%s", err.message);
    if (status != BNT_OK)
        return bnt_cli_fail(&err);
    if (address->revision && a->fetch.revision && strcmp(address->revision, a->fetch.revision) != 0)
        return bnt_cli_usage("--revision is '%s', but '%s' names '%s'", a->fetch.revision, a->repo,
                             address->revision);
    a->fetch.repo = address->repo;
    if (!a->fetch.revision)
        a->fetch.revision = address->revision ? address->revision : "main";
    // A revision becomes a file name below refs/.
    const char *problem = bnt_fetch_name_problem(a->fetch.revision);
    if (problem)
        return bnt_cli_usage("the revision cannot be '%s': %s", a->fetch.revision, problem);
    return -1;
}

static int run(struct arguments *a)
{
    struct bnt_error err;
    struct bnt_fetch_env env;
    struct bnt_fetch_address address = {0};
    int code = bnt_fetch_env_read(&env, &err) == BNT_OK ? take_address(a, &env, &address)
                                                        : bnt_cli_fail(&err);
    if (code < 0)
        code = fetch(a, &env);
    bnt_fetch_address_free(&address);
    bnt_fetch_env_free(&env);
    return code;
}

enum {
    OPTION_REVISION = 256,
    OPTION_INCLUDE,
    OPTION_LOCAL_DIR,
    OPTION_JSON,
    OPTION_ALLOW_HTTP,
    OPTION_VERSION
};

static const struct option long_options[] = {
    {"revision", required_argument, NULL, OPTION_REVISION},
    {"include", required_argument, NULL, OPTION_INCLUDE},
    {"local-dir", required_argument, NULL, OPTION_LOCAL_DIR},
    {"jobs", required_argument, NULL, 'j'},
    {"json", no_argument, NULL, OPTION_JSON},
    {"allow-http", no_argument, NULL, OPTION_ALLOW_HTTP},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

// One option; a value other than -1 ends the program with it.
static int take_option(struct arguments *a, int c, char *const *argv)
{
    uint64_t n;
    switch (c) {
    case OPTION_REVISION:
        a->fetch.revision = optarg;
        break;
    case OPTION_INCLUDE:
        a->include[a->fetch.include_count++] = optarg;
        break;
    case OPTION_LOCAL_DIR:
        a->fetch.local_dir = optarg;
        break;
    case 'j':
        if (!bnt_cli_u64(optarg, 1, BNT_FETCH_MAX_JOBS, &n))
            return bnt_cli_usage("--jobs must be a number from 1 to %d, not '%s'",
                                 BNT_FETCH_MAX_JOBS, optarg);
        a->fetch.jobs = (unsigned)n;
        break;
    case OPTION_JSON:
        a->json = true;
        break;
    case OPTION_ALLOW_HTTP:
        a->fetch.allow_http = true;
        break;
    case 'q':
        a->fetch.quiet = true;
        break;
    case 'h':
        return bnt_cli_print(help);
    case OPTION_VERSION:
        return bnt_cli_version(NULL);
    default:
        return bnt_cli_bad_option(c, argv);
    }
    return -1;
}

static int take_arguments(struct arguments *a, int argc, char **argv)
{
    for (int c; (c = getopt_long(argc, argv, ":j:qh", long_options, NULL)) != -1;) {
        int code = take_option(a, c, argv);
        if (code >= 0)
            return code;
    }
    if (optind + 1 != argc)
        return bnt_cli_usage(optind == argc ? "REPO is missing" : "more than one REPO");
    a->repo = argv[optind];
    int code = bnt_cli_check_name("REPO", a->repo);
    if (code == BNT_EXIT_OK)
        code = bnt_cli_check_name("--local-dir", a->fetch.local_dir);
    if (code != BNT_EXIT_OK)
        return code;
    return -1;
}

int main(int argc, char **argv)
{
    struct arguments a = {.fetch = {.jobs = 4}};
    bnt_cli_init("bnt-fetch");
    a.include = calloc((size_t)argc, sizeof *a.include);
    if (!a.include) {
        bnt_cli_note("out of memory");
        return BNT_EXIT_FAILED;
    }
    a.fetch.include = a.include;
    int code = take_arguments(&a, argc, argv);
    if (code < 0)
        code = run(&a);
    free(a.include);
    return code;
}
