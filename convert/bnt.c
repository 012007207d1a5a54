// SPDX-License-Identifier: MIT
// bnt: runs the tools. `bnt get` takes a model from the Hub to a verified .bnt file in one go.
#define _GNU_SOURCE // pipe2
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/cli.h"
#include "formats/file.h"
#include "formats/layout.h"
#include "formats/target.h"
#include "formats/text.h"

#define TOOLS "fetch, convert, pack, verify, info, run, eval, bench"

static const char help[] =
    "Usage: bnt get [OPTION]... REPO|CHECKPOINT_DIR -o OUT.bnt\n"
    "       bnt TOOL [ARGUMENT]...\n"
    "       bnt help TOOL\n"
    "The first form fetches a model from the Hugging Face Hub (or takes a checkpoint folder),\n"
    "converts, packs and verifies it. OUT.bnt appears only when it is verified; until then it\n"
    "is a hidden file beside it, .OUT.bnt.XXXXXX. REPO is a name (org/name, org/name@revision)\n"
    "or the address of the model's page.\n"
    "The second runs bnt-TOOL, the third shows its help: " TOOLS ".\n"
    "\n"
    "  -o, --output=OUT       the file to make\n"
    "      --revision=R       branch, tag or commit (default: main)\n"
    "      --nearest          weights that are nearly all on three levels take the nearest level\n"
    "      --force            convert a model that was not trained for ternary weights\n"
    "      --embedding=TYPE   bf16 or int8, as for bnt-pack\n"
    "      --activations=BITS 8 or 16, as for bnt-pack\n"
    "  -q, --quiet            no progress\n"
    "  -h, --help             print this help\n"
    "      --version          print the version\n"
    "\n"
    "Examples: bnt get microsoft/bitnet-b1.58-2B-4T -o 2b.bnt\n"
    "          bnt run 2b.bnt --chat\n"
    "Exit status: 0 done, 1 failed, 2 usage.\n";

enum { MAX_ARGUMENTS = 16, MAX_CHILDREN = 2 };

struct get {
    const char *source;
    const char *output;
    const char *revision;
    const char *embedding;
    const char *activations;
    bool nearest, force, quiet;
    struct bnt_output file; // open_named: the tools write it
};

// --- running tools ---

// What a signal has to clean up beside the file that is not finished yet: the tools at work.
static atomic_int children[MAX_CHILDREN];

static void clean_up_and_die(int signal_number)
{
    for (int i = 0; i < MAX_CHILDREN; i++) {
        int child = atomic_load(&children[i]);
        if (child > 0)
            (void)kill(child, SIGTERM);
    }
    for (int i = 0; i < MAX_CHILDREN; i++) { // bnt-pack may just be giving the file its name
        int child = atomic_load(&children[i]);
        if (child > 0)
            (void)waitpid(child, NULL, 0);
    }
    bnt_output_remove_unfinished();
    (void)raise(signal_number); // SA_RESETHAND: now it ends us
}

// The tools lie beside this program; failing that, in PATH.
static void execute(char *const *arguments)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    int problem = ENOENT;
    size_t room = slash ? sizeof path - (size_t)(slash + 1 - path) : 0;
    if (slash && strlen(arguments[0]) < room) {
        (void)snprintf(slash + 1, room, "%s", arguments[0]);
        (void)execv(path, arguments);
        problem = errno;
    }
    (void)execvp(arguments[0], arguments);
    if (errno != EACCES) // which also a folder of PATH that may not be searched gives
        problem = problem == ENOENT ? errno : problem;
    bnt_cli_note("cannot run %s: %s", arguments[0],
                 problem == ENOENT ? "there is no such tool (" TOOLS ")" : strerror(problem));
    _exit(BNT_EXIT_FAILED);
}

// Starts a tool with these standard streams (−1: inherited). Returns its process, or −1.
static pid_t start(int slot, char *const *arguments, int input, int output)
{
    // A signal must not come between the child's beginning and our knowing it.
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before);
    pid_t child = fork();
    if (child > 0)
        atomic_store(&children[slot], (int)child);
    int problem = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    if (child < 0)
        bnt_cli_note("cannot start %s: %s", arguments[0], strerror(problem));
    if (child != 0)
        return child;
    if (input >= 0)
        (void)dup2(input, STDIN_FILENO);
    if (output >= 0)
        (void)dup2(output, STDOUT_FILENO);
    bnt_output_restore_pipe_signal(); // the tools decide for themselves
    execute(arguments);
    return -1;
}

// Waits for a tool. The tool has said itself what went wrong, unless a signal ended it.
static bool succeeded(int slot, pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return false;
    }
    atomic_store(&children[slot], 0);
    // What has no words of its own: not the end of a pipe whose reader failed, nor one by our hand.
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGPIPE && WTERMSIG(status) != SIGTERM)
        bnt_cli_note("a tool was ended by signal %d (%s)%s", WTERMSIG(status),
                     strsignal(WTERMSIG(status)),
                     WTERMSIG(status) == SIGKILL ? ": out of memory?" : "");
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// --- get ---

static bool make_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) == 0)
        return true;
    bnt_cli_note("cannot make a pipe: %s", strerror(errno));
    return false;
}

// Reads the one line that bnt-fetch prints.
static bool read_line(int fd, char *line, size_t size)
{
    struct bnt_error err;
    size_t got;
    if (bnt_read_fully(fd, line, size - 1, &got, &err) != BNT_OK)
        return false;
    line[got] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return line[0] != '\0';
}

static bool fetch(const struct get *g, char folder[PATH_MAX])
{
    char *arguments[MAX_ARGUMENTS] = {"bnt-fetch"};
    int n = 1, ends[2];
    if (g->quiet)
        arguments[n++] = "--quiet";
    if (g->revision) {
        arguments[n++] = "--revision";
        arguments[n++] = (char *)g->revision;
    }
    arguments[n++] = "--";
    arguments[n++] = (char *)g->source;
    if (!make_pipe(ends))
        return false;
    pid_t child = start(0, arguments, -1, ends[1]);
    (void)close(ends[1]);
    bool read = child > 0 && read_line(ends[0], folder, PATH_MAX);
    (void)close(ends[0]);
    return child > 0 && succeeded(0, child) && read;
}

static bool convert_and_pack(const struct get *g, const char *folder)
{
    char *convert[MAX_ARGUMENTS] = {"bnt-convert"};
    char *pack[MAX_ARGUMENTS] = {"bnt-pack", "-o", g->file.temporary};
    int c = 1, p = 3, ends[2];
    if (g->nearest)
        convert[c++] = "--nearest";
    if (g->force)
        convert[c++] = "--force";
    if (g->quiet)
        convert[c++] = pack[p++] = "--quiet";
    if (g->embedding) {
        pack[p++] = "--embedding";
        pack[p++] = (char *)g->embedding;
    }
    if (g->activations) {
        pack[p++] = "--activations";
        pack[p++] = (char *)g->activations;
    }
    convert[c++] = "--";
    convert[c++] = (char *)folder;
    if (!make_pipe(ends))
        return false;
    pid_t converter = start(0, convert, -1, ends[1]);
    pid_t packer = start(1, pack, ends[0], -1);
    (void)close(ends[0]);
    bool converted = converter > 0 && succeeded(0, converter);
    // Our end of the pipe stays open until then: of a stream that ends too early bnt-pack would
    // complain too, though bnt-convert has said why.
    if (!converted && packer > 0)
        (void)kill(packer, SIGTERM);
    (void)close(ends[1]);
    bool packed = packer > 0 && succeeded(1, packer);
    if (!converted && isatty(STDERR_FILENO))
        (void)fputs("\r\033[K", stderr); // the bar that bnt-pack had no time to remove
    return converted && packed;
}

static bool verify(const struct get *g, const char *folder)
{
    char *arguments[MAX_ARGUMENTS] = {"bnt-verify", "--source", (char *)folder};
    int n = 3;
    if (g->quiet)
        arguments[n++] = "--quiet";
    arguments[n++] = "--";
    arguments[n++] = g->file.temporary;
    pid_t child = start(0, arguments, -1, -1);
    return child > 0 && succeeded(0, child);
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

// Refuses an output that is a file of the checkpoint folder, by whatever name; a .bnt file there is
// an earlier output.
static enum bnt_status is_not_in(const char *folder, const char *output, struct bnt_error *err)
{
    DIR *dir = opendir(folder);
    enum bnt_status status = BNT_OK;
    for (struct dirent *entry; dir && status == BNT_OK && (entry = readdir(dir)) != NULL;) {
        char *path =
            bnt_ends_with(entry->d_name, ".bnt") ? NULL : bnt_path_join(folder, entry->d_name);
        if (path)
            status = bnt_target_is_not(output, path, err);
        free(path);
    }
    if (dir)
        (void)closedir(dir);
    return status; // a folder that cannot be read, bnt-convert refuses
}

// Names on the Hub are "name" or "owner/name", maybe with "@revision", or addresses; anything else
// that is no folder is a mistyped folder.
static bool looks_like_path(const char *source)
{
    const char *slash = strchr(source, '/');
    bool address = strstr(source, "://") || strchr(source, '@') ||
                   bnt_starts_with(source, "huggingface.co/") || bnt_starts_with(source, "hf.co/");
    return source[0] == '.' || source[0] == '/' || (!address && slash && strchr(slash + 1, '/'));
}

// Says what to do with a file where a folder is wanted. false: it is no file.
static bool refuse_file(const char *source)
{
    struct stat st;
    char magic[sizeof(BNT_MAGIC) - 1] = "";
    if (stat(source, &st) != 0 || S_ISDIR(st.st_mode))
        return false;
    int fd = open(source, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bool is_bnt = fd >= 0 && read(fd, magic, sizeof magic) == (ssize_t)sizeof magic &&
                  memcmp(magic, BNT_MAGIC, sizeof magic) == 0;
    if (fd >= 0)
        (void)close(fd);
    if (is_bnt)
        bnt_cli_note("%s is a .bnt file already: bnt verify checks it, bnt run runs it", source);
    else
        bnt_cli_note("%s: a file: give the checkpoint folder that holds it", source);
    return true;
}

// From the source to the verified file, which still has its temporary name.
static bool make_file(const struct get *g, bool local)
{
    char folder[PATH_MAX];
    struct bnt_error err;
    if (local)
        (void)snprintf(folder, sizeof folder, "%s", g->source);
    else if (!fetch(g, folder))
        return false;
    if (is_not_in(folder, g->output, &err) == BNT_OK)
        return convert_and_pack(g, folder) && verify(g, folder);
    (void)bnt_cli_fail(&err);
    return false;
}

static bool get_model(struct get *g)
{
    struct bnt_error err;
    bool local = is_folder(g->source);
    if (!local && looks_like_path(g->source)) {
        bnt_cli_note("%s: no such folder", g->source);
        return false;
    }
    // Before anything is fetched: an output that cannot be written is known now.
    enum bnt_status status = local ? is_not_in(g->source, g->output, &err) : BNT_OK;
    if (status == BNT_OK)
        status = bnt_output_open_named(&g->file, g->output, &err);
    if (status == BNT_OK && !make_file(g, local)) {
        bnt_output_abort(&g->file);
        return false;
    }
    if (status == BNT_OK)
        status = bnt_output_commit(&g->file, &err);
    if (status != BNT_OK)
        (void)bnt_cli_fail(&err);
    return status == BNT_OK;
}

enum {
    OPTION_REVISION = 256,
    OPTION_EMBEDDING,
    OPTION_ACTIVATIONS,
    OPTION_NEAREST,
    OPTION_FORCE,
    OPTION_VERSION
};

// argv[0] is "get".
static int get(int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"revision", required_argument, NULL, OPTION_REVISION},
        {"embedding", required_argument, NULL, OPTION_EMBEDDING},
        {"activations", required_argument, NULL, OPTION_ACTIVATIONS},
        {"nearest", no_argument, NULL, OPTION_NEAREST},
        {"force", no_argument, NULL, OPTION_FORCE},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPTION_VERSION},
        {NULL, 0, NULL, 0},
    };
    struct get g = {0};
    int c;
    while ((c = getopt_long(argc, argv, ":o:qh", options, NULL)) != -1) {
        switch (c) {
        case 'o':
            g.output = optarg;
            break;
        case OPTION_REVISION:
            g.revision = optarg;
            break;
        case OPTION_EMBEDDING:
            if (strcmp(optarg, "bf16") != 0 && strcmp(optarg, "int8") != 0)
                return bnt_cli_usage("--embedding must be bf16 or int8, not '%s'", optarg);
            g.embedding = optarg;
            break;
        case OPTION_ACTIVATIONS:
            if (strcmp(optarg, "8") != 0 && strcmp(optarg, "16") != 0)
                return bnt_cli_usage("--activations must be 8 or 16, not '%s'", optarg);
            g.activations = optarg;
            break;
        case OPTION_NEAREST:
            g.nearest = true;
            break;
        case OPTION_FORCE:
            g.force = true;
            break;
        case 'q':
            g.quiet = true;
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
        return bnt_cli_usage(optind == argc ? "get: REPO or CHECKPOINT_DIR is missing"
                                            : "get: more than one REPO or CHECKPOINT_DIR (-o names "
                                              "the file to make)");
    g.source = argv[optind];
    int code = bnt_cli_check_name("REPO or CHECKPOINT_DIR", g.source);
    if (code == BNT_EXIT_OK)
        code = bnt_cli_check_name("--output", g.output);
    if (code != BNT_EXIT_OK)
        return code;
    if (refuse_file(g.source))
        return BNT_EXIT_FAILED;
    if (!g.output || strcmp(g.output, "-") == 0)
        return bnt_cli_usage("get: -o OUT.bnt is missing");
    bnt_catch_deadly_signals(clean_up_and_die);
    return get_model(&g) ? BNT_EXIT_OK : BNT_EXIT_FAILED;
}

// Becomes bnt-TOOL. Only a plain name is taken, so that nothing else is run by mistake.
static int run_tool(char **argv)
{
    char name[64];
    if (strspn(argv[0], "abcdefghijklmnopqrstuvwxyz") != strlen(argv[0]) || strlen(argv[0]) > 32)
        return bnt_cli_usage("'%s' is no tool", argv[0]);
    (void)snprintf(name, sizeof name, "bnt-%s", argv[0]);
    argv[0] = name;
    bnt_output_restore_pipe_signal();
    execute(argv);
    return BNT_EXIT_FAILED;
}

// The help of get or of a tool, or that of bnt where none is named.
static int show_help(int argc, char **argv)
{
    if (argc > 1)
        return bnt_cli_usage("help: give one tool (" TOOLS ")");
    if (argc == 0 || strcmp(argv[0], "get") == 0 || strcmp(argv[0], "help") == 0)
        return bnt_cli_print(help);
    return run_tool((char *[]){argv[0], "--help", NULL});
}

static bool asks_for_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

int main(int argc, char **argv)
{
    bnt_cli_init("bnt");
    if (argc < 2)
        return bnt_cli_print(help);
    if (asks_for_help(argv[1]))
        return show_help(argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0)
        return bnt_cli_version(NULL);
    return strcmp(argv[1], "get") == 0 ? get(argc - 1, argv + 1) : run_tool(argv + 1);
}
