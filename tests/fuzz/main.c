// SPDX-License-Identifier: MIT
// Runs files, and every file of folders, through a fuzz target once: the kept corpus as a plain
// test.
#define _GNU_SOURCE // fuzz.h
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

static unsigned run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    if (!file || fstat(fileno(file), &st) != 0) {
        perror(path);
        exit(1);
    }
    uint8_t *data = malloc((size_t)st.st_size + 1);
    if (!data || fread(data, 1, (size_t)st.st_size, file) != (size_t)st.st_size) {
        (void)fprintf(stderr, "%s: cannot read\n", path);
        exit(1);
    }
    (void)fclose(file);
    // Before the run, so that the last line of a failed test names the input.
    (void)fprintf(stderr, "%s\n", path);
    uint8_t *exact = fuzz_copy(data, (size_t)st.st_size, 1 << 4);
    free(data);
    FUZZ_ASSERT(LLVMFuzzerTestOneInput(exact, (size_t)st.st_size) == 0);
    free(exact);
    return 1;
}

static unsigned run(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        struct dirent **entries;
        unsigned count = 0;
        int n = scandir(path, &entries, NULL, alphasort);
        for (int i = 0; i < n; i++) {
            char inner[4096];
            (void)snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
            if (entries[i]->d_name[0] != '.')
                count += run(inner);
            free(entries[i]);
        }
        if (n >= 0)
            free(entries);
        return count;
    }
    return run_file(path);
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++)
        count += run(argv[i]);
    (void)printf("%u inputs\n", count);
    return count == 0;
}
