// SPDX-License-Identifier: MIT
// The texts of a conversation (bnt.md section 8.1).
#include <string.h>

#include "formats/utf8.h"
#include "runtime/model.h"

struct writer {
    char *text;
    size_t capacity;
    size_t size; // needed; may be more than capacity
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

// What somebody says, without the white space around it if the template trims.
static void put_said(struct writer *w, const struct bnt_chat_view *chat, const char *said, size_t n)
{
    if (chat->record.flags & BNT_CHAT_TRIM) {
        size_t skip = leading_space((const uint8_t *)said, n);
        said += skip;
        n -= skip;
        n -= trailing_space((const uint8_t *)said, n);
    }
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
    put_said(w, chat, said, n);
    put_part(w, chat, BNT_CHAT_SYSTEM_AFTER);
}

enum bnt_status bnt_chat_turn(const struct bnt_model *model, bool first, const char *system,
                              const char *user, size_t user_size, char *text, size_t capacity,
                              size_t *size, struct bnt_error *err)
{
    struct writer w = {.text = text, .capacity = capacity};
    *size = 0;
    if (!model->has_chat)
        return bnt_fail(err, BNT_ERR_UNSUPPORTED,
                        model->has_tokenizer && model->tokenizer.record.chat_size
                            ? "the model's chat template is none of those known"
                            : "the model has no chat template");
    if (first)
        put_beginning(&w, &model->chat, system);
    else
        put_part(&w, &model->chat, BNT_CHAT_ASSISTANT_AFTER);
    put_part(&w, &model->chat, BNT_CHAT_USER_BEFORE);
    put_said(&w, &model->chat, user, user_size);
    put_part(&w, &model->chat, BNT_CHAT_USER_AFTER);
    put_part(&w, &model->chat, BNT_CHAT_ASSISTANT_BEFORE);
    *size = w.size;
    if (w.size <= capacity)
        return BNT_OK;
    return bnt_fail(err, BNT_ERR_ARGUMENT, "the turn has %zu bytes, there is room for %zu", w.size,
                    capacity);
}

const uint32_t *bnt_chat_stop_ids(const struct bnt_model *model, size_t *count)
{
    *count = model->has_chat ? model->chat.record.n_stop : 0;
    return model->chat.record.stop_id;
}
