// SPDX-License-Identifier: MIT
// What the parts of bnt-run share.
#ifndef BNT_RUNTIME_RUN_H
#define BNT_RUNTIME_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/bnt.h"

enum { MAX_STOPS = 32, MAX_PROMPT = 64 << 20 };

struct run_real {
    bool given;
    double value;
};

struct run_arguments {
    const char *model;
    const char *prompt;
    const char *file;
    const char *ids;
    const char *system; // with chat; NULL: the template's own
    const char *kernel;
    const char *stops[MAX_STOPS];
    size_t n_stops;
    uint64_t tokens, context, threads, seed, top_k;
    struct run_real temperature, top_p, min_p, repetition, presence, frequency;
    bool has_seed, has_top_k;
    enum bnt_cache cache;
    enum bnt_device device;
    bool echo, ignore_eos, quiet, chat, has_tokens;
    bool show_control;
    bool has_control, plain; // what spells a control token stays text
};

// Writes what is generated to standard output, as it comes.
struct run_printer {
    bool ids; // no tokenizer: ids instead of text
    bool failed;
    size_t count;
    uint32_t last; // token
    bool keeps;    // all that was written, in text, malloc'd
    bool lost;     // there was no memory for it
    char *text;
    size_t size, capacity;
    double first; // when the first token came, seconds
};
bool bnt_run_print(void *printer, uint32_t token, const char *text, size_t size);

// Seconds of a steady clock.
double bnt_run_now(void);

// The model's defaults where the arguments say nothing.
struct bnt_sampling bnt_run_sampling(const struct run_arguments *a,
                                     const struct bnt_model_info *info);

// Tokens of an answer at most: what the arguments say, else what the model does, else fallback.
size_t bnt_run_tokens(const struct run_arguments *a, const struct bnt_model_info *info,
                      size_t fallback);

// The conversation of --chat: one answer for each line of standard input. (run_chat.c)
enum bnt_status bnt_run_chat(const struct run_arguments *a, const struct bnt_model *model,
                             struct bnt_error *err);

#endif
