// SPDX-License-Identifier: MIT
#include "formats/chat_view.h"

#include <string.h>

#include "formats/cursor.h"
#include "formats/utf8.h"

static const char *record_problem(const struct bnt_chat_record *r, uint32_t vocab_size)
{
    static const uint8_t zero[sizeof r->reserved];
    if (r->flags & ~(uint32_t)BNT_CHAT_TRIM)
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

bool bnt_chat_view_open(struct bnt_chat_view *v, const uint8_t *data, uint64_t size,
                        uint32_t vocab_size, struct bnt_report *report)
{
    struct bnt_cursor c = bnt_cursor(data, size);
    const char *problem = NULL;
    if (!bnt_cursor_copy(&c, &v->record, sizeof v->record) ||
        !bnt_cursor_take(&c, v->record.pool_size, 1, &v->pool) || bnt_cursor_left(&c) != 0)
        problem = "its length is not what it says";
    if (!problem)
        problem = record_problem(&v->record, vocab_size);
    if (!problem)
        problem = text_problem(v);
    if (problem)
        bnt_report(report, "R29", "section CHAT: %s", problem);
    return !problem;
}
