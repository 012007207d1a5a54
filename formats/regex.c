// SPDX-License-Identifier: MIT
#include "formats/regex.h"

#include <stdlib.h>

#include "formats/utf8.h"

pcre2_code *bnt_regex_compile(const uint8_t *pattern, size_t size, struct bnt_error *err)
{
    // NEVER_BACKSLASH_C: \C could split a character. MATCH_INVALID_UTF is off: texts are checked
    // before.
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int problem;
    size_t offset;
    pcre2_code *code = pcre2_compile(pattern, size, options, &problem, &offset, NULL);
    if (code)
        return code;
    PCRE2_UCHAR text[160] = {0};
    (void)pcre2_get_error_message(problem, text, sizeof text);
    (void)bnt_fail(err, BNT_ERR_FORMAT, "a pattern does not compile: %s at byte %zu of '%.*s'",
                   (const char *)text, offset, (int)(size < 200 ? size : 200),
                   (const char *)pattern);
    return NULL;
}

static unsigned pcre2_unicode_major(void)
{
    PCRE2_UCHAR version[24] = {0};
    (void)pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
    return (unsigned)strtoul((const char *)version, NULL, 10);
}

// The characters that a PCRE2 of that version may have otherwise than our tables: what came since
// the oldest one, or, of a newer one, all that ours do not know.
static void add_odd(struct bnt_char_set *odd, unsigned unicode_major)
{
    for (uint32_t i = 0; i < bnt_unicode_n_runs && unicode_major != BNT_UNICODE_MAJOR; i++) {
        const struct bnt_unicode_run run = bnt_unicode_run_at(i);
        if (unicode_major < BNT_UNICODE_MAJOR ? !!(run.flags & BNT_UNICODE_NEWER)
                                              : run.category == BNT_UNICODE_CN)
            bnt_char_set_add(odd, run.first, run.end - 1);
    }
}

static enum bnt_status open_exact(struct bnt_regex *regex, const uint8_t *pattern, size_t size,
                                  unsigned unicode_major, struct bnt_error *err)
{
    char *text = NULL;
    size_t text_size;
    add_odd(&regex->odd, unicode_major);
    if (regex->odd.failed ||
        (regex->odd.n > 0 &&
         !bnt_regex_rewrite(pattern, size, &regex->odd, unicode_major > BNT_UNICODE_MAJOR, &text,
                            &text_size)))
        return bnt_fail(err, BNT_ERR_MEMORY, "out of memory");
    if (text)
        regex->exact = bnt_regex_compile((const uint8_t *)text, text_size, err);
    bool failed = text && !regex->exact;
    free(text);
    return failed ? BNT_ERR_FORMAT : BNT_OK;
}

enum bnt_status bnt_regex_open_as(struct bnt_regex *regex, const uint8_t *pattern, size_t size,
                                  unsigned unicode_major, struct bnt_error *err)
{
    *regex = (struct bnt_regex){.code = bnt_regex_compile(pattern, size, err)};
    if (!regex->code)
        return BNT_ERR_FORMAT;
    (void)pcre2_pattern_info(regex->code, PCRE2_INFO_MAXLOOKBEHIND, &regex->lookbehind);
    enum bnt_status status = open_exact(regex, pattern, size, unicode_major, err);
    if (status != BNT_OK)
        bnt_regex_close(regex);
    return status;
}

enum bnt_status bnt_regex_open(struct bnt_regex *regex, const uint8_t *pattern, size_t size,
                               struct bnt_error *err)
{
    return bnt_regex_open_as(regex, pattern, size, pcre2_unicode_major(), err);
}

void bnt_regex_close(struct bnt_regex *regex)
{
    pcre2_code_free(regex->code);
    pcre2_code_free(regex->exact);
    bnt_char_set_free(&regex->odd);
    *regex = (struct bnt_regex){0};
}

// --- searching ---

// Where the first odd character at or behind `from` lies; size when there is none.
static size_t find_odd(const struct bnt_char_set *odd, const uint8_t *text, size_t size,
                       size_t from)
{
    struct bnt_char_range even = {1, 0}; // a stretch without odd characters, around the last one
    for (size_t at = from; at < size;) {
        uint32_t code;
        if (text[at] < 0x80) { // ASCII is old
            at++;
            continue;
        }
        size_t n = (size_t)bnt_utf8_next(text + at, size - at, &code);
        if (code < even.first || code > even.last) {
            if (bnt_char_set_has(odd, code))
                return at;
            even = bnt_char_set_gap(odd, code);
        }
        at += n;
    }
    return size;
}

static size_t before(const struct bnt_regex_search *s, size_t at)
{
    for (uint32_t i = 0; i < s->regex->lookbehind && at > 0; i++) {
        do
            at--;
        while (at > 0 && (s->text[at] & 0xC0) == 0x80);
    }
    return at;
}

static int match(const struct bnt_regex_search *s, const pcre2_code *code, size_t size, size_t from,
                 uint32_t options, size_t *start, size_t *end)
{
    int n =
        pcre2_match(code, s->text, size, from, PCRE2_NO_UTF_CHECK | options, s->match, s->limits);
    if (n >= 0) {
        *start = pcre2_get_ovector_pointer(s->match)[0];
        *end = pcre2_get_ovector_pointer(s->match)[1];
    }
    return n;
}

int bnt_regex_next(struct bnt_regex_search *s, size_t from, size_t *start, size_t *end)
{
    const struct bnt_regex *regex = s->regex;
    if (!regex->exact)
        return match(s, regex->code, s->size, from, 0, start, end);
    const size_t least = before(s, from);
    if (s->seen <= least)
        s->seen = find_odd(&regex->odd, s->text, s->size, least);
    if (s->seen == s->size)
        return match(s, regex->code, s->size, from, 0, start, end);
    // Up to the odd character the faster code is right as long as it does not come to look at it: a
    // match that needed to know what comes there would be a partial one.
    if (s->seen > from) {
        int n = match(s, regex->code, s->seen, from, PCRE2_PARTIAL_HARD, start, end);
        if (n >= 0 && *end < s->seen)
            return n;
    }
    return match(s, regex->exact, s->size, from, 0, start, end);
}
