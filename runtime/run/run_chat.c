// SPDX-License-Identifier: MIT
// bnt-run --chat: the keys and values of what was said stay in the session, so each turn costs only
// its own tokens.
#define _GNU_SOURCE // getline
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/cli.h"
#include "runtime/options.h"
#include "runtime/run/run.h"

struct chat {
    const struct run_arguments *arguments;
    const struct bnt_model *model;
    struct bnt_session *session;
    uint64_t turn;
    // The last answer, and the session's position where it began.
    struct run_printer said;
    uint32_t answer_start;
    // The last token of an answer that was cut off: it was said, but the session has not seen it.
    bool has_pending;
    uint32_t pending;
    struct bnt_error *err;
};

// The answer as the next turn finds it. Where the template repeats only a part of it, what the
// session saw of it is forgotten, and the part is returned to be fed again.
static enum bnt_status repeat_answer(struct chat *c, const char **text, size_t *size)
{
    size_t kept = 0;
    const char *part =
        c->said.text ? bnt_chat_answer(c->model, c->said.text, c->said.size, &kept) : NULL;
    *text = NULL;
    *size = 0;
    if (kept == c->said.size)
        return BNT_OK;
    *text = part;
    *size = kept;
    c->has_pending = false;
    return bnt_session_rewind(c->session, c->answer_start, c->err);
}

// The tokens of a turn, malloc'd: the one still missing, then the text's.
static enum bnt_status encode(struct chat *c, const char *line, size_t size, uint32_t **tokens,
                              size_t *count)
{
    const char *repeated;
    size_t repeated_size;
    uint32_t *of_text = NULL;
    enum bnt_status status = repeat_answer(c, &repeated, &repeated_size);
    if (status == BNT_OK)
        status =
            bnt_chat_tokenize(c->model, c->turn == 0, c->arguments->system, line, size, repeated,
                              repeated_size, c->arguments->plain, &of_text, count, c->err);
    if (status != BNT_OK || !c->has_pending) {
        *tokens = of_text;
        return status;
    }
    *tokens = malloc((*count + 1) * sizeof **tokens);
    if (!*tokens) {
        free(of_text);
        return bnt_fail(c->err, BNT_ERR_MEMORY, "out of memory");
    }
    (*tokens)[0] = c->pending;
    if (*count)
        memcpy(*tokens + 1, of_text, *count * sizeof **tokens);
    *count += 1;
    free(of_text);
    return BNT_OK;
}

static enum bnt_status answer(struct chat *c, const uint32_t *tokens, size_t count, bool *failed)
{
    const struct run_arguments *a = c->arguments;
    struct run_printer *printer = &c->said;
    struct bnt_generation generation = {
        .max_tokens = bnt_run_tokens(a, bnt_model_info(c->model), 1024),
        .sampling = bnt_run_sampling(a, bnt_model_info(c->model)),
        .stop_texts = a->stops,
        .n_stop_texts = a->n_stops,
        .ignore_eos = a->ignore_eos,
        .show_control = a->show_control,
        .callback = bnt_run_print,
        .context = printer,
    };
    struct bnt_generation_result result;
    *printer =
        (struct run_printer){.keeps = true, .text = printer->text, .capacity = printer->capacity};
    c->answer_start = bnt_session_position(c->session) + (uint32_t)count;
    generation.sampling.seed += c->turn++; // another answer to the same words
    generation.stop_ids = bnt_chat_stop_ids(c->model, &generation.n_stop_ids);
    enum bnt_status status = bnt_generate(c->session, tokens, count, &generation, &result, c->err);
    if (status == BNT_OK && printer->lost)
        status = bnt_fail(c->err, BNT_ERR_MEMORY, "out of memory");
    if (status != BNT_OK)
        return status;
    c->has_pending = result.reason != BNT_STOP_EOS && result.n_tokens > 0;
    c->pending = printer->last;
    *failed = printer->failed || puts("") < 0 || fflush(stdout) != 0;
    return BNT_OK;
}

static enum bnt_status one_turn(struct chat *c, const char *line, size_t size, bool *failed)
{
    uint32_t *tokens = NULL;
    size_t count = 0;
    enum bnt_status status = encode(c, line, size, &tokens, &count);
    if (status == BNT_OK)
        status = answer(c, tokens, count, failed);
    free(tokens);
    return status;
}

// Reads lines until there are no more. On a terminal each is asked for.
static enum bnt_status converse(struct chat *c)
{
    bool terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    char *line = NULL;
    size_t capacity = 0;
    bool failed = false;
    enum bnt_status status = BNT_OK;
    while (status == BNT_OK && !failed) {
        if (terminal)
            (void)fputs("> ", stderr);
        ssize_t n = getline(&line, &capacity, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        if (n > 0)
            status = one_turn(c, line, (size_t)n, &failed);
    }
    if (terminal)
        (void)fputs("\n", stderr);
    free(line);
    return status;
}

enum bnt_status bnt_run_chat(const struct run_arguments *a, const struct bnt_model *model,
                             struct bnt_error *err)
{
    struct chat c = {.arguments = a, .model = model, .err = err};
    const struct bnt_session_options options = {.context = (uint32_t)a->context,
                                                .threads = (uint32_t)a->threads,
                                                .cache = a->cache,
                                                .device = a->device};
    size_t size;
    // A model that cannot chat says so before the first line is read.
    enum bnt_status status = bnt_chat_turn(model, true, a->system, "", 0, NULL, 0, &size, err);
    if (status == BNT_ERR_UNSUPPORTED)
        return status;
    status = bnt_session_open(model, &options, &c.session, err);
    if (status == BNT_OK) {
        bnt_option_note(bnt_session_note(c.session), a->quiet);
        status = converse(&c);
        free(c.said.text);
    }
    bnt_session_close(c.session);
    return status;
}
