// SPDX-License-Identifier: MIT
// The loop of sampling and evaluating, and the care for its text: whole characters, nothing beyond
// a stop text.
#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"
#include "runtime/engine/session.h"

// Text that has been generated but not yet handed out.
struct outlet {
    const struct bnt_generation *options;
    const struct bnt_model *model;
    uint8_t cut[4]; // the beginning of a character whose rest is still to come
    size_t n_cut;
    char *held; // valid UTF-8 that may be the beginning of a stop text
    size_t n_held;
    size_t capacity;
};

static size_t longest_stop(const struct bnt_generation *o)
{
    size_t longest = 0;
    for (size_t i = 0; i < o->n_stop_texts; i++)
        longest = strlen(o->stop_texts[i]) > longest ? strlen(o->stop_texts[i]) : longest;
    return longest;
}

// Room for what is held back and the text of any one token, each byte of which may become a
// three-byte U+FFFD.
static bool open_outlet(struct outlet *out, const struct bnt_model *model,
                        const struct bnt_generation *options)
{
    *out = (struct outlet){.options = options, .model = model};
    size_t longest = 0;
    for (uint32_t i = 0; model->has_tokenizer && i < model->tokenizer.record.n_tokens; i++) {
        size_t size;
        (void)bnt_token_bytes(&model->tokenizer, i, &size);
        longest = size > longest ? size : longest;
    }
    out->capacity = longest_stop(options) + 3 * (longest + sizeof out->cut);
    out->held = malloc(out->capacity + 1);
    return out->held != NULL;
}

static void hold(struct outlet *out, const void *text, size_t size)
{
    memcpy(out->held + out->n_held, text, size);
    out->n_held += size;
}

// Adds a token's bytes to what is held; a character that is not complete waits in cut.
static void add_bytes(struct outlet *out, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        out->cut[out->n_cut++] = bytes[i];
        int n;
        while (out->n_cut > 0 && (n = bnt_utf8_next(out->cut, out->n_cut, NULL)) != 0) {
            size_t length = (size_t)(n > 0 ? n : -n);
            if (n > 0)
                hold(out, out->cut, length);
            else
                hold(out, "\xEF\xBF\xBD", 3);
            out->n_cut -= length;
            memmove(out->cut, out->cut + length, out->n_cut);
        }
    }
}

// Where the first stop text begins in what is held; n_held if nowhere.
static size_t find_stop(const struct outlet *out)
{
    size_t first = out->n_held;
    for (size_t i = 0; i < out->options->n_stop_texts; i++) {
        const char *stop = out->options->stop_texts[i];
        size_t size = strlen(stop);
        for (size_t at = 0; at < first && size <= out->n_held - at; at++) {
            if (memcmp(out->held + at, stop, size) == 0)
                first = at;
        }
    }
    return first;
}

// How much of the end might be the beginning of a stop text.
static size_t possible_stop(const struct outlet *out)
{
    size_t longest = 0;
    for (size_t i = 0; i < out->options->n_stop_texts; i++) {
        const char *stop = out->options->stop_texts[i];
        size_t size = strlen(stop);
        for (size_t n = size - 1; n > longest; n--) {
            if (n <= out->n_held && memcmp(out->held + out->n_held - n, stop, n) == 0)
                longest = n;
        }
    }
    return longest;
}

// Hands out the first size bytes that are held.
static bool release(struct outlet *out, uint32_t token, size_t size)
{
    const struct bnt_generation *o = out->options;
    bool go_on = !o->callback || o->callback(o->context, token, out->held, size);
    out->n_held -= size;
    memmove(out->held, out->held + size, out->n_held);
    return go_on;
}

static bool is_stop_text(const struct bnt_generation *o, const char *text, size_t size)
{
    for (size_t i = 0; i < o->n_stop_texts; i++) {
        if (strlen(o->stop_texts[i]) == size && memcmp(o->stop_texts[i], text, size) == 0)
            return true;
    }
    return false;
}

// Returns false when generation must end, with the reason.
static bool put_token(struct outlet *out, uint32_t token, enum bnt_stop_reason *reason)
{
    size_t size = 0;
    const char *text = bnt_token_text(out->model, token, &size);
    bool shown = out->options->show_control || !bnt_token_is_control(out->model, token) ||
                 is_stop_text(out->options, text, size);
    if (size > 0 && shown)
        add_bytes(out, (const uint8_t *)text, size);
    size_t stop = find_stop(out);
    if (stop < out->n_held) {
        out->n_held = stop;
        out->n_cut = 0;
        *reason = BNT_STOP_TEXT;
        (void)release(out, token, stop);
        return false;
    }
    *reason = BNT_STOP_CALLBACK;
    return release(out, token, out->n_held - possible_stop(out));
}

// The end of the text: what was held back as a possible beginning of something is text after all,
// unless a character that was cut short completes a stop text.
static void close_outlet(struct outlet *out, enum bnt_stop_reason *reason)
{
    bool goes_on = *reason != BNT_STOP_TEXT && *reason != BNT_STOP_CALLBACK;
    if (goes_on && out->n_cut > 0)
        hold(out, "\xEF\xBF\xBD", 3);
    size_t stop = find_stop(out);
    if (goes_on && stop < out->n_held) {
        out->n_held = stop;
        *reason = BNT_STOP_TEXT;
    }
    if (goes_on && out->n_held > 0)
        (void)release(out, UINT32_MAX, out->n_held);
    free(out->held);
}

static bool is_one_of(uint32_t token, const uint32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == token)
            return true;
    }
    return false;
}

static bool ends_text(const struct bnt_hyper *h, const struct bnt_generation *o, uint32_t token)
{
    return !o->ignore_eos && (is_one_of(token, h->eos_id, h->eos_count) ||
                              is_one_of(token, o->stop_ids, o->n_stop_ids));
}

// Generates from the first token on. *reason: why it ended.
static enum bnt_status generate(struct bnt_session *s, struct outlet *out, uint32_t token,
                                uint64_t *state, size_t *n_tokens, enum bnt_stop_reason *reason,
                                struct bnt_error *err)
{
    const struct bnt_generation *o = out->options;
    enum bnt_status status = BNT_OK;
    *reason = BNT_STOP_LENGTH;
    while (*n_tokens < o->max_tokens) {
        if (ends_text(&s->model->hyper, o, token)) {
            *reason = BNT_STOP_EOS;
            break;
        }
        *n_tokens += 1;
        if (!put_token(out, token, reason))
            break;
        *reason = BNT_STOP_LENGTH;
        if (*n_tokens == o->max_tokens)
            break;
        if (s->position == s->context) {
            *reason = BNT_STOP_CONTEXT;
            break;
        }
        status = bnt_next_step(s, token, &o->sampling, state, &token, err);
        if (status != BNT_OK)
            break;
    }
    return status;
}

static enum bnt_status check_options(const struct bnt_generation *o, struct bnt_error *err)
{
    for (size_t i = 0; i < o->n_stop_texts; i++) {
        if (o->stop_texts[i][0] == '\0')
            return bnt_fail(err, BNT_ERR_ARGUMENT, "a stop text is empty");
    }
    return bnt_sampling_check(&o->sampling, err);
}

enum bnt_status bnt_generate(struct bnt_session *s, const uint32_t *prompt, size_t count,
                             const struct bnt_generation *generation,
                             struct bnt_generation_result *result, struct bnt_error *err)
{
    struct outlet out;
    *result = (struct bnt_generation_result){0};
    enum bnt_status status = check_options(generation, err);
    if (status != BNT_OK)
        return status;
    if (!open_outlet(&out, s->model, generation))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    uint64_t state = generation->sampling.seed;
    uint32_t first;
    enum bnt_stop_reason reason = BNT_STOP_CALLBACK;
    status = bnt_first_step(s, prompt, count, &generation->sampling, &state, &first, err);
    if (status == BNT_OK)
        status = generate(s, &out, first, &state, &result->n_tokens, &reason, err);
    close_outlet(&out, &reason);
    result->reason = status == BNT_OK ? reason : BNT_STOP_LENGTH;
    return status;
}
