// SPDX-License-Identifier: MIT
// The texts of a conversation (bnt.md section 8.1).
#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"
#include "runtime/engine/model.h"

struct writer {
    char *text;
    size_t capacity;
    size_t size;              // needed; may be more than capacity
    struct bnt_range said[2]; // where what the system and the user say stands
    size_t n_said;
};

static void put(struct writer *w, const char *bytes, size_t n)
{
    if (n > 0 && w->size <= w->capacity && n <= w->capacity - w->size)
        memcpy(w->text + w->size, bytes, n);
    w->size += n;
}

static void put_part(struct writer *w, const struct bnt_chat_view *chat, enum bnt_chat_text part)
{
    struct bnt_range t = chat->record.text[part];
    put(w, (const char *)chat->pool + t.offset, t.size);
}

// The size of the white space at the end of a text.
static size_t trailing_space(const uint8_t *text, size_t size)
{
    size_t end = size;
    while (end > 0) {
        size_t start = end;
        uint32_t c;
        do
            start--;
        while (start > 0 && (text[start] & 0xC0) == 0x80);
        if (bnt_utf8_next(text + start, end - start, &c) != (int)(end - start) ||
            !bnt_is_white_space(c))
            break;
        end = start;
    }
    return size - end;
}

static size_t leading_space(const uint8_t *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint32_t c;
        int n = bnt_utf8_next(text + at, size - at, &c);
        if (n <= 0 || !bnt_is_white_space(c))
            break;
        at += (size_t)n;
    }
    return at;
}

// Drops the white space around a text if the template trims such ones.
static const char *trim(const struct bnt_chat_view *chat, uint32_t flag, const char *said,
                        size_t *n)
{
    if (!(chat->flags & flag))
        return said;
    size_t skip = leading_space((const uint8_t *)said, *n);
    *n -= skip;
    *n -= trailing_space((const uint8_t *)said + skip, *n);
    return said + skip;
}

static void put_said(struct writer *w, const struct bnt_chat_view *chat, uint32_t flag,
                     const char *said, size_t n)
{
    said = trim(chat, flag, said, &n);
    // A place beyond 4 GB is in no text that can be encoded.
    w->said[w->n_said++] = (struct bnt_range){(uint32_t)w->size, (uint32_t)n};
    put(w, said, n);
}

static void put_beginning(struct writer *w, const struct bnt_chat_view *chat, const char *system)
{
    struct bnt_range own = chat->record.text[BNT_CHAT_DEFAULT_SYSTEM];
    const char *said = system ? system : (const char *)chat->pool + own.offset;
    size_t n = system ? strlen(system) : own.size;
    put_part(w, chat, BNT_CHAT_BEGIN);
    if (n == 0)
        return;
    put_part(w, chat, BNT_CHAT_SYSTEM_BEFORE);
    put_said(w, chat, BNT_CONV_TRIM_SYSTEM, said, n);
    put_part(w, chat, BNT_CHAT_SYSTEM_AFTER);
}

static enum bnt_status check_chat(const struct bnt_model *model, bool first, const char *system,
                                  struct bnt_error *err)
{
    if (!model->has_chat)
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        model->has_tokenizer && model->tokenizer.record.chat_size
                            ? "the model's chat template is none of those known"
                            : "the model has no chat template");
    if (first && system && *system && model->chat.flags & BNT_CONV_NO_SYSTEM)
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        "the model's chat template has no place for a system text");
    return BNT_OK;
}

static void put_turn(struct writer *w, const struct bnt_chat_view *chat, bool first,
                     const char *system, const char *user, size_t user_size)
{
    if (first)
        put_beginning(w, chat, system);
    else
        put_part(w, chat, BNT_CHAT_ASSISTANT_AFTER);
    put_part(w, chat, BNT_CHAT_USER_BEFORE);
    put_said(w, chat, BNT_CONV_TRIM_USER, user, user_size);
    put_part(w, chat, BNT_CHAT_USER_AFTER);
    put_part(w, chat, BNT_CHAT_ASSISTANT_BEFORE);
}

enum bnt_status bnt_chat_turn(const struct bnt_model *model, bool first, const char *system,
                              const char *user, size_t user_size, char *text, size_t capacity,
                              size_t *size, struct bnt_error *err)
{
    struct writer w = {.text = text, .capacity = capacity};
    *size = 0;
    enum bnt_status status = check_chat(model, first, system, err);
    if (status != BNT_OK)
        return status;
    put_turn(&w, &model->chat, first, system, user, user_size);
    *size = w.size;
    if (w.size <= capacity)
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_ARGUMENT, "the turn has %zu bytes, there is room for %zu", w.size,
                    capacity);
}

enum bnt_status bnt_chat_tokenize(const struct bnt_model *model, bool first, const char *system,
                                  const char *user, size_t user_size, const char *before,
                                  size_t before_size, bool plain, uint32_t **tokens, size_t *count,
                                  struct bnt_error *err)
{
    struct writer w = {0};
    *tokens = NULL;
    *count = 0;
    enum bnt_status status = check_chat(model, first, system, err);
    if (status != BNT_OK)
        return status;
    put(&w, before, before_size);
    put_turn(&w, &model->chat, first, system, user, user_size); // asks for the size
    w = (struct writer){.text = malloc(w.size + 1), .capacity = w.size};
    if (!w.text)
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    put(&w, before, before_size);
    put_turn(&w, &model->chat, first, system, user, user_size);
    status = bnt_tokenize_parts(model, w.text, w.size, false, w.said, plain ? w.n_said : 0, tokens,
                                count, err);
    free(w.text);
    return status;
}

// What is left behind the last "</think>" of an answer, and the newlines behind it.
static size_t thinking_size(const struct bnt_chat_view *chat, const char *answer, size_t size)
{
    static const char mark[] = "</think>";
    const size_t n = sizeof mark - 1;
    size_t end = 0;
    for (size_t at = 0; chat->flags & BNT_CONV_DROP_THINKING && at + n <= size; at++) {
        if (memcmp(answer + at, mark, n) == 0)
            end = at + n;
    }
    while (end > 0 && end < size && chat->flags & BNT_CONV_DROP_NEWLINES && answer[end] == '\n')
        end++;
    return end;
}

const char *bnt_chat_answer(const struct bnt_model *model, const char *answer, size_t size,
                            size_t *kept)
{
    size_t skip = model->has_chat ? thinking_size(&model->chat, answer, size) : 0;
    *kept = size - skip;
    return model->has_chat ? trim(&model->chat, BNT_CONV_TRIM_ANSWER, answer + skip, kept)
                           : answer + skip;
}

const uint32_t *bnt_chat_stop_ids(const struct bnt_model *model, size_t *count)
{
    *count = model->has_chat ? model->chat.record.n_stop : 0;
    return model->chat.record.stop_id;
}
