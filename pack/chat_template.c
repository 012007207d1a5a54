// SPDX-License-Identifier: MIT
#include "pack/chat_template.h"

#include <stdio.h>
#include <string.h>

#include "formats/layout.h"
#include "pack/jinja.h"

// Turns of the longest conversation that is tried. Templates that count further are refused by the
// interpreter.
enum { TURNS = 5 };

// A text with marks.
struct text {
    const uint8_t *at;
    size_t size;
};

static struct text text_of(const char *s)
{
    return (struct text){(const uint8_t *)s, strlen(s)};
}

static bool starts_with(struct text t, struct text with)
{
    return t.size >= with.size && (with.size == 0 || memcmp(t.at, with.at, with.size) == 0);
}

// An empty text may lie nowhere.
static struct text part(struct text t, size_t from, size_t to)
{
    return (struct text){from ? t.at + from : t.at, to - from};
}

static bool ends_with(struct text t, struct text with)
{
    return t.size >= with.size && starts_with(part(t, t.size - with.size, t.size), with);
}

static bool contains(struct text t, struct text what)
{
    for (size_t at = 0; at < t.size; at++) {
        if (starts_with((struct text){t.at + at, t.size - at}, what))
            return true;
    }
    return false;
}

static bool same(struct text a, struct text b)
{
    return a.size == b.size && starts_with(a, b);
}

// --- conversations that are tried ---

struct maker {
    const struct bnt_chat_source *source;
    struct bnt_chat_built *built;
    unsigned assumed;
    char why[JINJA_WHY];
};

struct probe {
    bool system;
    unsigned turns;
    bool answered;      // the last turn has its answer
    const char *before; // what each answer begins with, before its mark
    // What becomes of an answer where it is not only trimmed or left alone: what is left of
    // `before`, and what is done to the mark behind it.
    const char *kept;
    uint8_t done; // 0: as the flags say
};

// The contents of the messages of a probe.
struct contents {
    uint8_t bytes[JINJA_MAX_MESSAGES][64];
};

static void add_message(struct jinja_input *in, struct contents *c, const char *role, uint8_t mark,
                        const char *before)
{
    uint8_t *bytes = c->bytes[in->n_messages];
    const size_t n = strlen(before);
    memcpy(bytes, before, n);
    bytes[n] = JINJA_MARK;
    bytes[n + 1] = mark;
    bytes[n + 2] = JINJA_UNTOUCHED;
    in->messages[in->n_messages++] =
        (struct jinja_message){.role = role, .content = bytes, .size = n + JINJA_MARK_SIZE};
}

static enum jinja_result render(struct maker *m, const struct probe *p, struct bnt_buffer *out)
{
    struct contents contents = {0};
    struct jinja_input in = {
        .bos = m->source->bos, .eos = m->source->eos, .generation_prompt = !p->answered};
    out->size = 0;
    if (p->system)
        add_message(&in, &contents, "system", JINJA_SYSTEM, "");
    for (unsigned i = 0; i < p->turns; i++) {
        add_message(&in, &contents, "user", jinja_user(i), "");
        if (i + 1 < p->turns || p->answered)
            add_message(&in, &contents, "assistant", jinja_answer(i), p->before ? p->before : "");
    }
    return bnt_jinja_render(m->source->text, m->source->size, &in, out, &m->assumed, m->why);
}

static struct text rendered(const struct bnt_buffer *b)
{
    return (struct text){b->data, b->size};
}

// Cuts a text at its marks, which must be these n in this order: parts[0] … parts[n] lie between
// them. done: what was done to each.
static bool cut(struct text t, const uint8_t *marks, size_t n, struct text *parts, uint8_t *done)
{
    size_t from = 0, k = 0;
    for (size_t i = 0; i < t.size; i++) {
        if (t.at[i] != JINJA_MARK)
            continue;
        if (k == n || t.at[i + 1] != marks[k])
            return false;
        parts[k] = part(t, from, i);
        done[k++] = t.at[i + 2];
        from = i + JINJA_MARK_SIZE;
        i = from - 1;
    }
    parts[k] = part(t, from, t.size);
    return k == n;
}

// --- from texts to the record ---

struct conversation {
    struct text begin, system_before, system_after, user_before, between, assistant_after,
        default_system; // between: from what a user says to the answer
    uint32_t flags;
};

// The added token that begins at `at` of a text, the longest; 0: none. *id may be NULL.
static size_t token_at(const struct bnt_tokenizer_view *v, struct text t, size_t at, uint32_t *id)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < v->record.n_added; i++) {
        const struct bnt_added_record *a = &v->added[i];
        const struct text token = {v->pool + a->offset, a->size};
        if (a->size <= longest || !starts_with(part(t, at, t.size), token))
            continue;
        longest = a->size;
        if (id)
            *id = a->id;
    }
    return longest;
}

// The size of the longest common end of two texts that does not begin inside of an added token.
static size_t common_end(const struct bnt_tokenizer_view *v, struct text a, struct text b)
{
    size_t n = 0;
    while (n < a.size && n < b.size && a.at[a.size - 1 - n] == b.at[b.size - 1 - n])
        n++;
    for (size_t at = 0; at < a.size;) {
        size_t token = token_at(v, a, at, NULL), cut_at = a.size - n;
        if (token && at < cut_at && at + token > cut_at)
            n = a.size - at - token;
        at += token ? token : 1;
    }
    while (n > 0 && (a.at[a.size - n] & 0xC0) == 0x80)
        n--; // whole characters
    return n;
}

// How what is said is treated: 0, or 1 for white space dropped at both ends; −1: otherwise.
static int trimmed(uint8_t done)
{
    return done == JINJA_UNTOUCHED                                   ? 0
           : done == (JINJA_UNTOUCHED | JINJA_LSTRIP | JINJA_RSTRIP) ? 1
                                                                     : -1;
}

static bool refuse(struct maker *m, const char *why)
{
    (void)snprintf(m->built->why, sizeof m->built->why, "%s", why);
    return false;
}

static bool set_flag(struct maker *m, struct conversation *c, uint8_t done, uint32_t flag)
{
    int trims = trimmed(done);
    c->flags |= trims > 0 ? flag : 0;
    return trims >= 0 || refuse(m, "it changes what is said");
}

// What a conversation that ends with an answer ends with: in a longer one it is likely what belongs
// to the answer, and the rest to the next turn. The end of `next` that is left of it.
static size_t next_turn_size(struct maker *m, struct text next)
{
    struct bnt_buffer b = {0};
    const uint8_t marks[] = {jinja_user(0), jinja_answer(0)};
    const struct probe p = {.turns = 1, .answered = true};
    const unsigned assumed = m->assumed; // this is not how conversations are written
    struct text parts[3];
    uint8_t done[2];
    size_t size = next.size;
    if (render(m, &p, &b) == JINJA_OK && cut(rendered(&b), marks, 2, parts, done) &&
        starts_with(next, parts[2]))
        size -= parts[2].size;
    m->assumed = assumed;
    bnt_buffer_free(&b);
    return size;
}

// Two turns without a system text tell most of it.
static bool read_turns(struct maker *m, struct text two, struct conversation *c)
{
    const uint8_t marks[] = {jinja_user(0), jinja_answer(0), jinja_user(1)};
    struct text parts[4];
    uint8_t done[3];
    if (!cut(two, marks, 3, parts, done))
        return refuse(m, "it does not write what is said once and in order");
    if (!same(parts[1], parts[3]))
        return refuse(m,
                      "an answer is asked for otherwise than it stands in a longer conversation");
    c->between = parts[1];
    size_t n = common_end(m->source->tokenizer, parts[2], parts[0]);
    size_t wanted = next_turn_size(m, parts[2]);
    n = n < wanted ? n : wanted;
    c->user_before = part(parts[2], parts[2].size - n, parts[2].size);
    c->assistant_after = part(parts[2], 0, parts[2].size - n);
    c->begin = part(parts[0], 0, parts[0].size - n);
    return set_flag(m, c, done[0], BNT_CONV_TRIM_USER) &&
           set_flag(m, c, done[1], BNT_CONV_TRIM_ANSWER);
}

// Moves the border between what ends an answer and what begins a user's turn so that the latter is
// at most the last n bytes of the two together.
static void shorten_user_before(struct conversation *c, size_t n)
{
    if (n >= c->user_before.size)
        return;
    size_t more = c->user_before.size - n; // the two lie side by side, as do begin and its copy
    c->assistant_after.size += more;
    c->begin.size += more;
    c->user_before = part(c->user_before, more, more + n);
}

static bool has_outer_space(struct text t)
{
    static const char ascii[] = " \t\n\v\f\r"; // beyond ASCII it is only feared
    return t.size > 0 && (memchr(ascii, t.at[0], 6) || memchr(ascii, t.at[t.size - 1], 6) ||
                          t.at[0] >= 0x80 || t.at[t.size - 1] >= 0x80);
}

// A system text before the first turn, where there was nothing, or a default one.
static bool read_system(struct maker *m, struct text first, struct text with,
                        struct conversation *c)
{
    const uint8_t marks[] = {JINJA_SYSTEM, jinja_user(0)};
    struct text parts[3];
    uint8_t done[2];
    if (!cut(with, marks, 2, parts, done) || trimmed(done[0]) < 0)
        return false;
    const struct text before = parts[0], after = parts[1];
    const uint8_t user = jinja_user(0);
    struct text alone[2];
    if (!cut(first, &user, 1, alone, done + 1))
        return false;
    c->flags |= trimmed(done[0]) ? BNT_CONV_TRIM_SYSTEM : 0;
    bool is_default = alone[0].size > before.size + after.size && starts_with(alone[0], before) &&
                      ends_with(alone[0], after);
    shorten_user_before(c, common_end(m->source->tokenizer, after, c->user_before));
    if (!is_default && !starts_with(before, c->begin))
        return false;
    c->system_after = part(after, 0, after.size - c->user_before.size);
    if (!is_default) {
        c->system_before = part(before, c->begin.size, before.size);
        return true;
    }
    if (trimmed(done[0]) &&
        has_outer_space(part(alone[0], before.size, alone[0].size - after.size)))
        return false; // it is trimmed as a given one is
    const char *bos = m->source->bos ? m->source->bos : "";
    size_t n = starts_with(before, text_of(bos)) ? strlen(bos) : 0;
    c->begin = part(before, 0, n);
    c->system_before = part(before, n, before.size);
    c->default_system = part(alone[0], before.size, alone[0].size - after.size);
    return true;
}

// --- the same, put together again ---

static void put(struct bnt_buffer *out, struct text t)
{
    bnt_buffer_put(out, t.at, t.size);
}

static void put_mark(struct bnt_buffer *out, uint8_t mark, bool trims, uint8_t done)
{
    const uint8_t by_flag = JINJA_UNTOUCHED | (trims ? JINJA_LSTRIP | JINJA_RSTRIP : 0);
    const uint8_t bytes[JINJA_MARK_SIZE] = {JINJA_MARK, mark, done ? done : by_flag};
    bnt_buffer_put(out, bytes, sizeof bytes);
}

static void compose(const struct conversation *c, const struct probe *p, struct bnt_buffer *out)
{
    out->size = 0;
    put(out, c->begin);
    if (p->system || c->default_system.size > 0) {
        put(out, c->system_before);
        if (p->system)
            put_mark(out, JINJA_SYSTEM, c->flags & BNT_CONV_TRIM_SYSTEM, 0);
        else
            put(out, c->default_system);
        put(out, c->system_after);
    }
    for (unsigned i = 0; i < p->turns; i++) {
        put(out, c->user_before);
        put_mark(out, jinja_user(i), c->flags & BNT_CONV_TRIM_USER, 0);
        put(out, c->between);
        if (i + 1 < p->turns) {
            put(out, text_of(p->kept ? p->kept : ""));
            put_mark(out, jinja_answer(i), c->flags & BNT_CONV_TRIM_ANSWER, p->done);
            put(out, c->assistant_after);
        }
    }
}

// Whether the template and the texts agree on conversations of every length like this one.
static bool agrees(struct maker *m, const struct conversation *c, struct probe p)
{
    struct bnt_buffer is = {0}, should = {0};
    bool ok = true;
    for (p.turns = 1; ok && p.turns <= TURNS; p.turns++) {
        ok = render(m, &p, &is) == JINJA_OK;
        compose(c, &p, &should);
        ok = ok && !should.failed && same(rendered(&is), rendered(&should));
    }
    bnt_buffer_free(&is);
    bnt_buffer_free(&should);
    return ok;
}

// Without a system text and, where one can be given, with it.
static bool agrees_always(struct maker *m, const struct conversation *c, struct probe p)
{
    bool ok = agrees(m, c, p);
    p.system = true;
    return ok && (c->flags & BNT_CONV_NO_SYSTEM || agrees(m, c, p));
}

// --- thinking ---

// What becomes of answers with thinking in them, if the template looks for it: with the newlines
// behind it it is dropped, or without, or it is left alone.
static bool read_thinking(struct maker *m, struct conversation *c)
{
    const bool trims = c->flags & BNT_CONV_TRIM_ANSWER;
    const uint8_t both = JINJA_UNTOUCHED | JINJA_LSTRIP | JINJA_RSTRIP;
    const uint8_t alone = trims ? JINJA_UNTOUCHED | JINJA_RSTRIP : 0;
    const struct {
        uint32_t flags;
        const char *kept;
        uint8_t done;
    } ways[] = {
        {BNT_CONV_DROP_THINKING | BNT_CONV_DROP_NEWLINES, "",
         trims ? both : JINJA_UNTOUCHED | JINJA_LSTRIP_NEWLINES},
        {BNT_CONV_DROP_THINKING, trims ? "" : "\n\n", trims ? both : 0},
        {0, NULL, alone},
    };
    static const char *const thoughts[] = {"<think>\nx\n</think>\n\n", "x</think>\n\n",
                                           "<think>x</think>y</think>\n\n"};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        bool all = true;
        for (size_t k = 0; all && k < sizeof thoughts / sizeof thoughts[0]; k++)
            all = agrees_always(m, c,
                                (struct probe){.before = thoughts[k],
                                               .kept = ways[i].kept ? ways[i].kept : thoughts[k],
                                               .done = ways[i].done});
        const struct probe unfinished = {.before = "<think>x", .kept = "<think>x", .done = alone};
        if (all && agrees_always(m, c, unfinished)) {
            c->flags |= ways[i].flags;
            return true;
        }
    }
    return refuse(m, "it rewrites the thinking in earlier answers");
}

// --- the record ---

static bool find_token(const struct bnt_tokenizer_view *v, uint32_t id, struct text *text)
{
    for (uint32_t i = 0; i < v->record.n_added; i++) {
        if (v->added[i].id != id)
            continue;
        *text = (struct text){v->pool + v->added[i].offset, v->added[i].size};
        return true;
    }
    return false;
}

// Puts the texts of the tokens that the tokenizer puts before every text before the conversation,
// unless it begins with them.
static bool add_prefix(struct maker *m, struct text first, struct conversation *c,
                       struct bnt_buffer *begin)
{
    const struct bnt_tokenizer_view *v = m->source->tokenizer;
    for (uint32_t i = 0; i < v->record.n_prefix; i++) {
        struct text token;
        if (!find_token(v, v->prefix[i], &token))
            return refuse(m, "the tokenizer's BOS is no added token");
        put(begin, token);
    }
    if (starts_with(first, rendered(begin)))
        begin->size = 0;
    put(begin, c->begin);
    c->begin = rendered(begin);
    return !begin->failed || refuse(m, "out of memory");
}

// What stands between an answer and what the user says next: two texts that lie side by side.
static struct text next_turn(const struct conversation *c)
{
    return part(c->assistant_after, 0, c->assistant_after.size + c->user_before.size);
}

// A name for people: what the texts look like.
static const char *name_of(const struct conversation *c)
{
    static const struct {
        const char *in, *name; // between an answer and what a user says
    } names[] = {
        {"<|im_start|>", "chatml"}, {"<|start_header_id|>", "llama3"},
        {"User: ", "bitnet"},       {"<|user|>", "falcon"},
        {"[INST]", "mistral"},      {"<start_of_turn>", "gemma"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (contains(next_turn(c), text_of(names[i].in)))
            return names[i].name;
    }
    return "other";
}

static size_t leading_space(struct text t)
{
    size_t n = 0;
    while (n < t.size && t.at[n] != '\0' && strchr(" \t\n", t.at[n]))
        n++;
    return n;
}

// The token that ends an answer: the first that follows one.
static void put_stop(const struct maker *m, const struct conversation *c, struct bnt_chat_record *r)
{
    const struct text after = next_turn(c);
    if (token_at(m->source->tokenizer, after, leading_space(after), &r->stop_id[0]))
        r->n_stop = 1;
}

static bool put_section(struct maker *m, const struct conversation *c)
{
    const uint32_t all =
        BNT_CONV_TRIM_SYSTEM | BNT_CONV_TRIM_USER | BNT_CONV_TRIM_ANSWER; // CHAT's one flag
    const bool plain = c->flags == 0 || c->flags == all;
    struct bnt_chat_record record = {.flags = plain ? (c->flags ? BNT_CHAT_TRIM : 0) : c->flags};
    struct bnt_buffer pool = {0}, *out = &m->built->bytes;
    size_t ends = starts_with(c->between, c->assistant_after) ? c->assistant_after.size
                                                              : leading_space(c->between);
    const struct text texts[BNT_CHAT_TEXTS] = {
        [BNT_CHAT_NAME] = text_of(name_of(c)),
        [BNT_CHAT_BEGIN] = c->begin,
        [BNT_CHAT_SYSTEM_BEFORE] = c->system_before,
        [BNT_CHAT_SYSTEM_AFTER] = c->system_after,
        [BNT_CHAT_USER_BEFORE] = c->user_before,
        [BNT_CHAT_USER_AFTER] = part(c->between, 0, ends),
        [BNT_CHAT_ASSISTANT_BEFORE] = part(c->between, ends, c->between.size),
        [BNT_CHAT_ASSISTANT_AFTER] = c->assistant_after,
        [BNT_CHAT_DEFAULT_SYSTEM] = c->default_system,
    };
    for (int i = 0; i < BNT_CHAT_TEXTS; i++) {
        record.text[i].offset = texts[i].size ? (uint32_t)pool.size : 0;
        record.text[i].size = (uint32_t)texts[i].size;
        put(&pool, texts[i]);
    }
    put_stop(m, c, &record);
    record.pool_size = (uint32_t)pool.size;
    m->built->section = plain ? BNT_SECTION_CHAT : BNT_SECTION_CONV;
    bnt_buffer_put(out, &record, sizeof record);
    put(out, rendered(&pool));
    bool ok = !pool.failed && !out->failed;
    bnt_buffer_free(&pool);
    return ok || refuse(m, "out of memory");
}

// --- the whole ---

// What the template makes of one turn, two, and one with a system text; the conversation's texts
// lie in them.
struct renders {
    struct bnt_buffer first, two, with, begin;
};

static bool must_render(struct maker *m, const struct probe *p, struct bnt_buffer *out)
{
    return render(m, p, out) == JINJA_OK || refuse(m, m->why);
}

// Adds the system text, or notes why there can be none.
static void try_system(struct maker *m, struct renders *r, struct conversation *c)
{
    const struct probe p = {.system = true, .turns = 1};
    struct conversation tried = *c;
    bool renders = render(m, &p, &r->with) == JINJA_OK;
    if (renders && read_system(m, rendered(&r->first), rendered(&r->with), &tried) &&
        agrees_always(m, &tried, (struct probe){0})) {
        *c = tried;
        return;
    }
    c->flags |= BNT_CONV_NO_SYSTEM;
    (void)snprintf(m->built->why_no_system, sizeof m->built->why_no_system, "%s",
                   renders ? "it does not stand between fixed texts at the beginning" : m->why);
}

static bool build(struct maker *m, struct renders *r)
{
    const struct probe one = {.turns = 1}, two = {.turns = 2};
    struct conversation c = {0};
    if (!must_render(m, &one, &r->first) || !must_render(m, &two, &r->two) ||
        !read_turns(m, rendered(&r->two), &c))
        return false;
    if (!agrees(m, &c, (struct probe){0}))
        return refuse(m, "longer conversations are written otherwise");
    try_system(m, r, &c);
    if (m->assumed & JINJA_ASSUMED_NO_THINKING && !read_thinking(m, &c))
        return false;
    return add_prefix(m, rendered(&r->first), &c, &r->begin) && put_section(m, &c);
}

bool bnt_chat_build(const struct bnt_chat_source *source, struct bnt_chat_built *built)
{
    struct maker m = {.source = source, .built = built};
    struct renders r = {0};
    *built = (struct bnt_chat_built){0};
    bool ok = build(&m, &r);
    bnt_buffer_free(&r.first);
    bnt_buffer_free(&r.two);
    bnt_buffer_free(&r.with);
    bnt_buffer_free(&r.begin);
    return ok;
}
