// SPDX-License-Identifier: MIT
// A model being measured, on either device. Sessions are used as everybody uses them, through
// bnt.h; what lies below is looked at only to count bytes.
#ifndef BNT_RUNTIME_BENCH_MODEL_H
#define BNT_RUNTIME_BENCH_MODEL_H

#include "runtime/bench/bench.h"
#include "runtime/engine/session.h"

// A whole text: so many tokens read, so many written.
struct bench_text {
    size_t in, out;
    struct bench_series total, first;  // seconds until the last token and until the first
    struct bench_series prompt;        // tokens a second until the first
    struct bench_series decode, share; // tokens a second from then on, and of what memory allows
};

// One step of decoding: a token is fed and the next one chosen.
struct bench_step {
    size_t context;                      // tokens before it
    struct bench_series greedy, sampled; // seconds
    struct bench_series share;           // of what memory allows, of a greedy step
};

enum { BENCH_TEXTS = 9, BENCH_STEPS = 3 };

// One kind of output layer.
struct bench_decode {
    const char *name;
    bool full_output;
    uint64_t bytes; // of the file that a token must read
    struct bench_series rate;
    struct bench_series share; // of the time that reading the bytes alone takes
    struct bench_text texts[BENCH_TEXTS];
    struct bench_step steps[BENCH_STEPS];
};

struct bench {
    const struct bench_options *options;
    struct bnt_cuda_bench *gpu; // NULL on the CPU
    enum bnt_device device;
    bool end_to_end;
    uint32_t context; // of the sessions
    struct bnt_model *model;
    struct bnt_session *session;
    bool full_output; // of the session
    double open_time, first_token_time;
    uint64_t memory_before, memory; // in use on the GPU: before the model, and at most with it
    uint64_t operations;            // of the matrices, a token of a prompt
    struct bench_series read, int8;
    struct bench_series prompt, prompt_share;
    struct bench_decode decode[2];
    size_t n_decode;
};

// What the device can do at this moment: GB/s, and GOP/s or 0. (bench_device.c)
enum bnt_status bench_device_read(const struct bench *bench, double *rate, struct bnt_error *err);
enum bnt_status bench_device_int8(const struct bench *bench, double *rate, struct bnt_error *err);

// Bytes of the session's keys and values, and those of one position.
uint64_t bench_cache_size(const struct bench *bench);
double bench_position_size(const struct bench *bench);

// --- one text (bench_clock.c) ---

// Some tokens for a prompt, to be freed; NULL: out of memory.
uint32_t *bench_prompt(const struct bnt_model *model, size_t count);

// When the tokens of one text came.
struct bench_clock {
    enum bnt_status (*after_token)(void *context, size_t tokens, struct bnt_error *err); // or NULL
    void *context;
    // Set by bench_time_text; what after_token takes does not count:
    double first, last;        // seconds from the start until these tokens
    struct bench_series steps; // seconds from each token to the next
};

// Reads in tokens and writes out tokens, from the beginning of the session's context.
enum bnt_status bench_time_text(struct bnt_session *session, size_t in, size_t out,
                                const struct bnt_sampling *sampling, struct bench_clock *clock,
                                struct bnt_error *err);

// --- what is measured ---

// A prompt and decoding, the device being measured in between. (bench_rates.c)
enum bnt_status bench_rates_prompt(struct bench *bench, struct bnt_error *err);
enum bnt_status bench_rates_decode(struct bench *bench, struct bench_decode *decode,
                                   struct bnt_error *err);

// Whole texts and single steps. (bench_texts.c)
size_t bench_texts_context(const struct bnt_model *model); // that they need
void bench_texts_plan(struct bench_decode *decode);
enum bnt_status bench_texts(struct bench *bench, struct bench_decode *decode,
                            struct bnt_error *err);
bool bench_text_fits(const struct bench *bench, const struct bench_text *text);
bool bench_step_fits(const struct bench *bench, const struct bench_step *step);

// --- results (bench_report.c) ---

void bench_print(const struct bench *bench);

#endif
