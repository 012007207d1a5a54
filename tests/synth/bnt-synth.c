// SPDX-License-Identifier: MIT
//
// bnt-synth: a random Hugging Face checkpoint of any size, so that the offline tools can be timed
// and tested on shapes whose real weights are gigabytes away.
//
// The same options give the same bytes on any machine and with any number of threads: every chunk
// of every tensor is drawn from a counter of its own, keyed by the seed, the tensor's name and the
// chunk's number, and values come from integers alone until one exact conversion. Sharding does
// not change a value, nor does --dtype but for its rounding.

#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700
#endif

#include "synth.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef BNT_VERSION
#define BNT_VERSION "unknown"
#endif

#define TABLE_SIZE     65536                 // an entry for each value of 16 random bits
#define CHUNK_ELEMENTS 32768                 // 64 KiB of 16-bit elements
#define JOB_ELEMENTS   (16 * CHUNK_ELEMENTS) // what a thread draws and writes at once
#define TABLE_COUNT    3                     // BNT_SYNTH_WEIGHT, _NORM and _CODES
#define PATH_SIZE      4096

_Static_assert(BNT_SYNTH_CODES + 1 == TABLE_COUNT, "the fills that have a table come first");

struct options {
    const char *like, *out;
    enum bnt_synth_form form;
    enum bnt_synth_dtype dtype;
    uint64_t group;  // of levels
    unsigned shards; // 0: one file named model.safetensors
    uint64_t seed;
    unsigned threads;
    bool quiet;
};

// Random values

// Entries hold the bytes that the file will hold, whatever the machine's own order is.
struct table {
    unsigned width; // bytes of an entry
    union {
        uint8_t u8[TABLE_SIZE];
        uint16_t u16[TABLE_SIZE];
        uint32_t u32[TABLE_SIZE];
    } at;
};

#define STEP UINT64_C(0x9e3779b97f4a7c15)

// The finalizer of splitmix64: a counter that goes up by STEP becomes random bits.
static inline uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

// FNV-1a, so that a tensor's values depend on its name and not on its place.
static uint64_t hash_name(const char *name)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return hash;
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Rounds half to even; no value here is near overflow.
static uint32_t to_bf16(float value)
{
    uint32_t bits = float_bits(value);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Below 2^-14 a half is a multiple of 2^-24: adding 0.5 leaves that multiple, rounded half to even,
// in the low bits of the float. Above it only the exponent's bias and the mantissa's width differ.
static uint32_t to_f16(float value)
{
    uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size < 113u << 23) {
        float magnitude = value < 0 ? -value : value;
        volatile float shifted = magnitude + 0.5f;
        return sign | (float_bits(shifted) - (126u << 23));
    }
    return sign | ((size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13);
}

static uint32_t to_dtype(float value, enum bnt_synth_dtype dtype)
{
    if (dtype == BNT_SYNTH_F32)
        return float_bits(value);
    return dtype == BNT_SYNTH_F16 ? to_f16(value) : to_bf16(value);
}

static void store(unsigned char *at, uint32_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

// The sum of 12 uniform 16-bit numbers, less its mean: about normal with a deviation of 65536.
static int32_t draw_normal(uint64_t *counter)
{
    int32_t sum = -6 * 65535;
    for (int i = 0; i < 3; i++) {
        uint64_t bits = mix(*counter += STEP);
        for (int j = 0; j < 4; j++, bits >>= 16)
            sum += (int32_t)(bits & 0xffff);
    }
    return sum;
}

// MEAN is 0 or 1. A draw times 41 / 2^27 has a deviation of 0.02002; the product fits 24 bits, so
// around 0 it is exact in a float and around 1 it is rounded once. The second half of the table
// mirrors the first, which makes the mean exact too.
static void make_normal_table(struct table *table, int mean, enum bnt_synth_dtype dtype)
{
    uint64_t counter = 0;
    unsigned width = table->width = bnt_synth_dtype_bytes(dtype);
    unsigned char *first = (unsigned char *)&table->at, *second = first + TABLE_SIZE / 2 * width;
    for (size_t i = 0; i < TABLE_SIZE / 2; i++) {
        int32_t draw = draw_normal(&counter) * 41, one = mean * (1 << 27);
        float above = (float)(one + draw) * 0x1p-27f, below = (float)(one - draw) * 0x1p-27f;
        store(first + i * width, to_dtype(above, dtype), width);
        store(second + i * width, to_dtype(below, dtype), width);
    }
}

// Four codes of 4 random bits each: -1, 0, +1 in 5, 6, 5 of 16 cases.
static void make_code_table(struct table *table)
{
    table->width = 1;
    for (unsigned i = 0; i < TABLE_SIZE; i++) {
        unsigned byte = 0;
        for (unsigned j = 0; j < 4; j++) {
            unsigned nibble = i >> 4 * j & 15;
            byte |= (nibble < 5 ? 0u : nibble < 11 ? 1u : 2u) << 2 * j;
        }
        table->at.u8[i] = (uint8_t)byte;
    }
}

// COUNT is rounded up to a multiple of 4; the buffer has room for that.
static void fill_chunk(unsigned char *out, size_t count, uint64_t counter,
                       const struct table *table)
{
    unsigned width = table->width;
    for (size_t i = 0; i < count; i += 4, out += 4 * width) {
        uint64_t bits = mix(counter += STEP);
        size_t a = bits & 0xffff, b = bits >> 16 & 0xffff, c = bits >> 32 & 0xffff, d = bits >> 48;
        if (width == 1) {
            const uint8_t *t = table->at.u8;
            memcpy(out, (const uint8_t[4]){t[a], t[b], t[c], t[d]}, 4);
        } else if (width == 2) {
            const uint16_t *t = table->at.u16;
            memcpy(out, (const uint16_t[4]){t[a], t[b], t[c], t[d]}, 8);
        } else {
            const uint32_t *t = table->at.u32;
            memcpy(out, (const uint32_t[4]){t[a], t[b], t[c], t[d]}, 16);
        }
    }
}

// A scale of 8 significant bits, exact in every type: 2^-6 to 2^-5, near the mean of |W| of the
// masters; or 32 to 64 where it divides.
static void fill_scale(unsigned char *out, const struct bnt_synth_tensor *tensor, uint64_t key)
{
    float eighth = (float)(128 + (mix(key) & 127));
    float value = tensor->fill == BNT_SYNTH_GAMMA ? eighth * 0x1p-13f : eighth * 0.25f;
    store(out, to_dtype(value, tensor->dtype), bnt_synth_dtype_bytes(tensor->dtype));
}

// A level's scale, for a row and group of a tensor: as fill_scale's that multiply.
static float level_scale(uint64_t key, uint64_t place)
{
    return (float)(128 + (mix(key + place * STEP) & 127)) * 0x1p-13f;
}

// The elements from FIRST on of a tensor of levels: -s, 0, +s in 5, 6, 5 of 16 cases. What shares a
// scale is a matrix (group 0), or a row and so many of its columns.
static void fill_levels(unsigned char *out, size_t count, uint64_t first, uint64_t key,
                        const struct bnt_synth_tensor *tensor, uint64_t group)
{
    const unsigned width = bnt_synth_dtype_bytes(tensor->dtype);
    const uint64_t cols = tensor->cols, groups = group ? (cols + group - 1) / group : 0;
    uint64_t bits = 0, place = UINT64_MAX;
    uint32_t plus = 0, minus = 0;
    for (size_t i = 0; i < count; i++, bits >>= 4, out += width) {
        const uint64_t at = first + i, row = at / cols, col = at % cols;
        const uint64_t now = group ? row * groups + col / group : 0;
        if (i % 16 == 0)
            bits = mix(key + (at / 16 + 1) * STEP);
        if (now != place) {
            float scale = level_scale(~key, now);
            place = now;
            plus = to_dtype(scale, tensor->dtype);
            minus = to_dtype(-scale, tensor->dtype);
        }
        const unsigned draw = bits & 15;
        store(out, draw < 5 ? minus : draw < 11 ? 0 : plus, width);
    }
}

// Files

// One shard being written: threads take jobs from it in order, and write each at its own place.
struct writer {
    const struct bnt_synth_tensor *tensors;
    size_t count;
    const struct table *tables;
    uint64_t seed;
    uint64_t group; // of levels
    int file;
    uint64_t data_start;

    pthread_mutex_t lock; // of all that follows
    size_t tensor;
    uint64_t element;
    int error; // the first errno
};

struct job {
    const struct bnt_synth_tensor *tensor;
    uint64_t element; // a multiple of CHUNK_ELEMENTS
    size_t count;
};

static bool take_job(struct writer *writer, struct job *job)
{
    pthread_mutex_lock(&writer->lock);
    bool some = !writer->error && writer->tensor < writer->count;
    if (some) {
        const struct bnt_synth_tensor *tensor = &writer->tensors[writer->tensor];
        uint64_t left = tensor->elements - writer->element;
        *job = (struct job){tensor, writer->element,
                            left < JOB_ELEMENTS ? (size_t)left : JOB_ELEMENTS};
        writer->element += job->count;
        if (writer->element == tensor->elements) {
            writer->tensor++;
            writer->element = 0;
        }
    }
    pthread_mutex_unlock(&writer->lock);
    return some;
}

static void fill_job(unsigned char *out, const struct job *job, const struct writer *writer)
{
    const struct bnt_synth_tensor *tensor = job->tensor;
    uint64_t key = mix(writer->seed ^ hash_name(tensor->name));
    if (tensor->fill == BNT_SYNTH_LEVEL) {
        fill_levels(out, job->count, job->element, key, tensor, writer->group);
        return;
    }
    if (tensor->fill >= TABLE_COUNT) {
        fill_scale(out, tensor, key);
        return;
    }
    const struct table *table = &writer->tables[tensor->fill];
    for (size_t done = 0; done < job->count; done += CHUNK_ELEMENTS) {
        size_t left = job->count - done;
        uint64_t chunk = (job->element + done) / CHUNK_ELEMENTS;
        fill_chunk(out + done * table->width, left < CHUNK_ELEMENTS ? left : CHUNK_ELEMENTS,
                   mix(key + (chunk + 1) * STEP), table);
    }
}

// Returns 0 or an errno.
static int write_at(int file, const void *data, size_t size, uint64_t offset)
{
    const unsigned char *bytes = data;
    while (size) {
        ssize_t n = pwrite(file, bytes, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        bytes += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static void fail_writer(struct writer *writer, int error)
{
    pthread_mutex_lock(&writer->lock);
    if (!writer->error)
        writer->error = error;
    pthread_mutex_unlock(&writer->lock);
}

static void *work(void *argument)
{
    struct writer *writer = argument;
    struct job job;
    unsigned char *buffer = malloc((JOB_ELEMENTS + 4) * sizeof(uint32_t));
    if (!buffer)
        fail_writer(writer, ENOMEM);
    while (buffer && take_job(writer, &job)) {
        unsigned width = bnt_synth_dtype_bytes(job.tensor->dtype);
        uint64_t offset = writer->data_start + job.tensor->offset + job.element * width;
        fill_job(buffer, &job, writer);
        int error = write_at(writer->file, buffer, job.count * width, offset);
        if (error)
            fail_writer(writer, error);
    }
    free(buffer);
    return NULL;
}

// Returns 0 or an errno. A thread that cannot be started is one thread fewer.
static int write_data(struct writer *writer, unsigned threads)
{
    pthread_t *others = calloc(threads, sizeof *others);
    unsigned started = 0;
    if (!others || pthread_mutex_init(&writer->lock, NULL) != 0) {
        free(others);
        return ENOMEM;
    }
    while (started + 1 < threads && pthread_create(&others[started], NULL, work, writer) == 0)
        started++;
    work(writer);
    while (started > 0)
        pthread_join(others[--started], NULL);
    pthread_mutex_destroy(&writer->lock);
    free(others);
    return writer->error;
}

static void join_path(char *path, const char *folder, const char *name, const char *suffix)
{
    int n = snprintf(path, PATH_SIZE, "%s/%s%s", folder, name, suffix);
    if (n < 0 || n >= PATH_SIZE)
        bnt_synth_die(1, "%s/%s: the path is too long", folder, name);
}

// A file under a temporary name.
static int open_file(const char *folder, const char *name)
{
    char path[PATH_SIZE];
    join_path(path, folder, name, ".tmp");
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        bnt_synth_die(1, "%s: %s", path, strerror(errno));
    return file;
}

// Gives the file its final name, or removes it if ERROR says that writing it failed.
static void finish_file(int file, const char *folder, const char *name, int error)
{
    char path[PATH_SIZE], final[PATH_SIZE];
    join_path(path, folder, name, ".tmp");
    join_path(final, folder, name, "");
    if (close(file) != 0 && !error)
        error = errno;
    if (!error && rename(path, final) != 0)
        error = errno;
    if (error) {
        unlink(path);
        bnt_synth_die(1, "%s: %s", final, strerror(error));
    }
}

// Of the tensors of one shard, with the length in front; spaces make the data start at a multiple
// of 8. The caller frees it.
static char *make_header(const struct bnt_synth_tensor *tensors, size_t count, size_t *size)
{
    char *text = NULL;
    FILE *stream = open_memstream(&text, size);
    if (!stream)
        bnt_synth_die(1, "out of memory");
    fputs("\1\1\1\1\1\1\1\1{\"__metadata__\":{\"format\":\"pt\"}", stream);
    for (const struct bnt_synth_tensor *t = tensors; t < tensors + count; t++) {
        fprintf(stream, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%llu", t->name,
                bnt_synth_dtype_name(t->dtype), (unsigned long long)t->rows);
        if (t->cols)
            fprintf(stream, ",%llu", (unsigned long long)t->cols);
        fprintf(stream, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->offset,
                (unsigned long long)(t->offset + t->bytes));
    }
    fputc('}', stream);
    for (long end = ftell(stream); end % 8 != 0; end++)
        fputc(' ', stream);
    if (fclose(stream) != 0 || !text)
        bnt_synth_die(1, "out of memory");
    store((unsigned char *)text, (uint32_t)(*size - 8), 4);
    store((unsigned char *)text + 4, 0, 4);
    return text;
}

static void write_shard(const struct options *options, const char *name,
                        const struct bnt_synth_tensor *tensors, size_t count,
                        const struct table *tables)
{
    size_t size;
    char *header = make_header(tensors, count, &size);
    struct writer writer = {.tensors = tensors,
                            .count = count,
                            .tables = tables,
                            .seed = options->seed,
                            .group = options->group,
                            .data_start = size};
    writer.file = open_file(options->out, name);
    int error = write_at(writer.file, header, size, 0);
    if (!error)
        error = write_data(&writer, options->threads);
    finish_file(writer.file, options->out, name, error);
    free(header);
}

static void shard_name(char name[64], const struct options *options, unsigned shard)
{
    if (options->shards)
        snprintf(name, 64, "model-%05u-of-%05u.safetensors", shard + 1, options->shards);
    else
        snprintf(name, 64, "model.safetensors");
}

static void write_shards(const struct options *options, const struct bnt_synth_model *model)
{
    struct table *tables = malloc(TABLE_COUNT * sizeof *tables);
    if (!tables)
        bnt_synth_die(1, "out of memory");
    make_normal_table(&tables[BNT_SYNTH_WEIGHT], 0, model->dtype);
    make_normal_table(&tables[BNT_SYNTH_NORM], 1, model->dtype);
    make_code_table(&tables[BNT_SYNTH_CODES]);
    for (size_t i = 0, next; i < model->count; i = next) {
        char name[64];
        shard_name(name, options, model->tensors[i].shard);
        for (next = i + 1; next < model->count; next++)
            if (model->tensors[next].shard != model->tensors[i].shard)
                break;
        write_shard(options, name, model->tensors + i, next - i, tables);
    }
    free(tables);
}

// With the fewest digits of real numbers that read back as the same values.
static void write_json(const struct options *options, const char *name, const json_t *json,
                       size_t flags)
{
    char *text = NULL;
    bool same = false;
    for (size_t digits = 15; digits <= 17 && !same; digits++) {
        free(text);
        text = json_dumps(json, flags | JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *again = text ? json_loads(text, 0, NULL) : NULL;
        same = json_equal(again, json);
        json_decref(again);
    }
    if (!text)
        bnt_synth_die(1, "out of memory");
    int file = open_file(options->out, name);
    size_t size = strlen(text);
    text[size] = '\n'; // in place of the terminator, which is not written
    finish_file(file, options->out, name, write_at(file, text, size + 1, 0));
    free(text);
}

static void write_index(const struct options *options, const struct bnt_synth_model *model)
{
    json_t *map = json_object();
    for (size_t i = 0; i < model->count; i++) {
        char name[64];
        shard_name(name, options, model->tensors[i].shard);
        json_object_set_new(map, model->tensors[i].name, json_string(name));
    }
    json_t *index = json_pack("{s:{s:I},s:o}", "metadata", "total_size", (json_int_t)model->bytes,
                              "weight_map", map);
    write_json(options, "model.safetensors.index.json", index, JSON_SORT_KEYS);
    json_decref(index);
}

// A folder with both a model.safetensors and an index would be read as the one or the other.
static void open_folder(const struct options *options)
{
    char path[PATH_SIZE];
    if (mkdir(options->out, 0777) != 0 && errno != EEXIST)
        bnt_synth_die(1, "%s: %s", options->out, strerror(errno));
    join_path(path, options->out,
              options->shards ? "model.safetensors" : "model.safetensors.index.json", "");
    if (access(path, F_OK) == 0)
        bnt_synth_die(1, "%s: is there already and would contradict the new files; remove it first",
                      path);
}

// The command line

// --help and --version end here.
static _Noreturn void finish_output(void)
{
    if (fflush(stdout) == 0)
        exit(0);
    fprintf(stderr, "bnt-synth: standard output: cannot write: %s\n", strerror(errno));
    exit(1);
}

// Words on lines of about 50 letters, indented as the help is.
static void print_words(const char *words)
{
    size_t column = 0;
    for (const char *c = words; *c; c++, column++) {
        bool wrap = *c == ' ' && column > 50;
        fputs(wrap ? "\n                           " : (const char[]){*c, 0}, stdout);
        column = wrap ? 0 : column;
    }
}

static void print_help(void)
{
    fputs("usage: bnt-synth --like NAME|CONFIG.json --form FORM -o DIR [options]\n"
          "\n"
          "Makes a random Hugging Face checkpoint of any size. The same options give the same\n"
          "bytes, on any machine.\n"
          "\n"
          "  --like NAME|CONFIG.json  the shapes: a config.json, or one of\n"
          "                           ",
          stdout);
    print_words(bnt_synth_names());
    fputs(
        "\n"
        "  --form masters|packed|levels\n"
        "                           weights before ternarizing, U8 codes with weight_scale, or\n"
        "                           floats of three levels (Qwen3's embeddings too)\n"
        "  --group N|row|matrix     what shares a scale of levels: N columns of a row, a row, or\n"
        "                           a matrix (default 128)\n"
        "  -o, --output DIR         the folder to write, made if it is not there\n"
        "  --dtype bf16|f16|f32     type of the masters (default bf16; packed is always bf16)\n"
        "  --shards N               N files with an index, instead of one model.safetensors\n"
        "  --seed S                 0 to 2^64-1 (default 0)\n"
        "  -j, --threads N          1 to 256 (default: one for each processor, at most 16)\n"
        "  --quiet                  no summary on stderr\n"
        "  -h, --help               print this help\n"
        "  --version                print the version\n",
        stdout);
}

// The index of TEXT among COUNT words.
static unsigned parse_word(const char *option, const char *text, const char *const *words,
                           unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    bnt_synth_die(2, "--%s %s: see --help for the words it knows", option, text);
}

static uint64_t parse_number(const char *option, const char *text, uint64_t least, uint64_t most)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < least || value > most)
        bnt_synth_die(2, "--%s %s: not a number from %llu to %llu", option, text,
                      (unsigned long long)least, (unsigned long long)most);
    return value;
}

static unsigned default_threads(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online > 16 ? 16 : (unsigned)online;
}

enum { LIKE = 256, FORM, GROUP, DTYPE, SHARDS, SEED, QUIET, VERSION };

static const struct option long_options[] = {
    {"like", required_argument, NULL, LIKE},   {"form", required_argument, NULL, FORM},
    {"group", required_argument, NULL, GROUP}, {"output", required_argument, NULL, 'o'},
    {"dtype", required_argument, NULL, DTYPE}, {"shards", required_argument, NULL, SHARDS},
    {"seed", required_argument, NULL, SEED},   {"threads", required_argument, NULL, 'j'},
    {"quiet", no_argument, NULL, QUIET},       {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, VERSION},   {NULL, 0, NULL, 0},
};

static void take_option(struct options *options, int option, const char *value, bool *form_given)
{
    static const char *const forms[] = {"masters", "packed", "levels"};
    static const char *const dtypes[] = {"bf16", "f16", "f32"};
    switch (option) {
    case LIKE:
        options->like = value;
        break;
    case FORM:
        options->form = parse_word("form", value, forms, 3);
        *form_given = true;
        break;
    case GROUP:
        options->group = strcmp(value, "matrix") == 0 ? 0
                         : strcmp(value, "row") == 0  ? 1 << 20
                                                      : parse_number("group", value, 1, 1 << 20);
        break;
    case 'o':
        options->out = value;
        break;
    case DTYPE:
        options->dtype = parse_word("dtype", value, dtypes, 3);
        break;
    case SHARDS:
        options->shards = (unsigned)parse_number("shards", value, 1, 99999);
        break;
    case SEED:
        options->seed = parse_number("seed", value, 0, UINT64_MAX);
        break;
    case 'j':
        options->threads = (unsigned)parse_number("threads", value, 1, 256);
        break;
    case QUIET:
        options->quiet = true;
        break;
    case 'h':
        print_help();
        finish_output();
    case VERSION:
        puts("bnt-synth " BNT_VERSION);
        finish_output();
    default:
        exit(2); // getopt_long has said why
    }
}

static struct options parse_options(int argc, char **argv)
{
    static char name[] = "bnt-synth"; // what getopt_long begins its messages with
    struct options options = {.threads = default_threads(), .group = 128};
    bool form_given = false;
    int option;
    if (argc > 0)
        argv[0] = name;
    while ((option = getopt_long(argc, argv, "o:j:h", long_options, NULL)) != -1)
        take_option(&options, option, optarg, &form_given);
    if (optind < argc)
        bnt_synth_die(2, "%s: an argument that is not expected", argv[optind]);
    if (!options.like || !options.out || !form_given)
        bnt_synth_die(2, "--like, --form and -o are needed; see --help");
    if (options.form == BNT_SYNTH_PACKED && options.dtype != BNT_SYNTH_BF16)
        bnt_synth_die(2, "--form packed is always bf16 beside the codes");
    return options;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    struct options options = parse_options(argc, argv);
    struct bnt_synth_model model;
    double start = seconds();
    bnt_synth_model_load(&model, options.like, options.form, options.dtype, options.group);
    bnt_synth_model_lay_out(&model, options.shards ? options.shards : 1);
    open_folder(&options);
    write_shards(&options, &model);
    if (options.shards)
        write_index(&options, &model);
    write_json(&options, "config.json", model.config, 0); // last: a folder that has it is whole
    if (!options.quiet)
        fprintf(stderr, "bnt-synth: %s: %zu tensors, %.3f GB in %.1f s\n", options.out, model.count,
                (double)model.bytes / 1e9, seconds() - start);
    bnt_synth_model_free(&model);
    return 0;
}
