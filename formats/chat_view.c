// SPDX-License-Identifier: MIT
#include "formats/chat_view.h"

#include <string.h>

#include "formats/cursor.h"
#include "formats/utf8.h"

static const char *record_problem(const struct bnt_chat_record *r, uint32_t known_flags,
                                  uint32_t vocab_size)
{
    static const uint8_t zero[sizeof r->reserved];
    if (r->flags & ~known_flags)
        return "unknown flags";
    if (r->n_stop > BNT_CHAT_MAX_STOP)
        return "n_stop is more than 4";
    for (uint32_t i = 0; i < BNT_CHAT_MAX_STOP; i++) {
        if (i < r->n_stop ? r->stop_id[i] >= vocab_size : r->stop_id[i] != 0)
            return "a stop id is out of its range";
    }
    return memcmp(r->reserved, zero, sizeof zero) ? "reserved bytes are not zero" : NULL;
}

static const char *text_problem(const struct bnt_chat_view *v)
{
    for (int i = 0; i < BNT_CHAT_TEXTS; i++) {
        struct bnt_range t = v->record.text[i];
        if (t.offset > v->record.pool_size || t.size > v->record.pool_size - t.offset)
            return "a text lies outside the pool";
        if (bnt_utf8_valid(v->pool + t.offset, t.size) != t.size)
            return "a text is not UTF-8";
    }
    return NULL;
}

static const char *open_view(struct bnt_chat_view *v, const uint8_t *data, uint64_t size,
                             uint32_t known_flags, uint32_t vocab_size)
{
    struct bnt_cursor c = bnt_cursor(data, size);
    if (!bnt_cursor_copy(&c, &v->record, sizeof v->record) ||
        !bnt_cursor_take(&c, v->record.pool_size, 1, &v->pool) || bnt_cursor_left(&c) != 0)
        return "its length is not what it says";
    const char *problem = record_problem(&v->record, known_flags, vocab_size);
    return problem ? problem : text_problem(v);
}

bool bnt_chat_view_find(struct bnt_chat_view *v, const struct bnt_view *file,
                        struct bnt_report *report)
{
    const struct bnt_section_record *chat = bnt_view_section(file, BNT_SECTION_CHAT);
    const struct bnt_section_record *conv = bnt_view_section(file, BNT_SECTION_CONV);
    const struct bnt_section_record *s = conv ? conv : chat;
    const char *rule = conv ? "R31" : "R29", *name = conv ? "CONV" : "CHAT";
    if (!s)
        return false;
    const char *problem = open_view(v, file->data + s->offset, s->size,
                                    conv ? BNT_CONV_FLAGS : BNT_CHAT_TRIM, file->hyper.vocab_size);
    if (!problem && !bnt_view_section(file, BNT_SECTION_TOKN))
        problem = "it is there without TOKN";
    if (!problem && conv && chat)
        problem = "it is there beside CHAT";
    if (problem)
        bnt_report(report, rule, "section %s: %s", name, problem);
    v->flags = conv              ? v->record.flags
               : v->record.flags ? BNT_CONV_TRIM_SYSTEM | BNT_CONV_TRIM_USER | BNT_CONV_TRIM_ANSWER
                                 : 0;
    return !problem;
}

bool bnt_chat_writes(const struct bnt_chat_view *v, const uint8_t *text, size_t size)
{
    for (int i = BNT_CHAT_BEGIN; i < BNT_CHAT_DEFAULT_SYSTEM; i++) {
        struct bnt_range t = v->record.text[i];
        for (size_t at = 0; size > 0 && at + size <= t.size; at++) {
            if (memcmp(v->pool + t.offset + at, text, size) == 0)
                return true;
        }
    }
    return false;
}
