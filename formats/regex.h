// SPDX-License-Identifier: MIT
// The patterns of the TOKN section: pack and verify check them, the runtime uses them, all with the
// same options. Their properties are those of formats/unicode.h, whatever PCRE2's own tables say.
#ifndef BNT_FORMATS_REGEX_H
#define BNT_FORMATS_REGEX_H

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"
#include "formats/unicode.h"

struct bnt_regex {
    pcre2_code *code;
    // For texts with odd characters, those that PCRE2's tables have otherwise: the same pattern
    // with these spelled out, and slower. NULL: code is right for every text.
    pcre2_code *exact;
    struct bnt_char_set odd;
    uint32_t lookbehind; // characters before the start of a search that it may look at
};

// One pattern with the options that all have, and PCRE2's own tables: for names and the like. NULL:
// it does not compile. Free with pcre2_code_free.
pcre2_code *bnt_regex_compile(const uint8_t *pattern, size_t size, struct bnt_error *err);

// In case of failure there is nothing to close.
enum bnt_status bnt_regex_open(struct bnt_regex *regex, const uint8_t *pattern, size_t size,
                               struct bnt_error *err);
// The same as if PCRE2 knew that version of Unicode; for tests.
enum bnt_status bnt_regex_open_as(struct bnt_regex *regex, const uint8_t *pattern, size_t size,
                                  unsigned unicode_major, struct bnt_error *err);
void bnt_regex_close(struct bnt_regex *regex);

// Searching one text from its beginning to its end.
struct bnt_regex_search {
    const struct bnt_regex *regex;
    pcre2_match_data *match; // room for one pair of offsets is enough
    pcre2_match_context *limits;
    const uint8_t *text; // valid UTF-8
    size_t size;
    size_t seen; // no odd character lies between the last place that was asked for and here
};

// The first match that starts at from or behind it. Returns what pcre2_match does: ≥ 0 if there is
// one. from must not decrease from call to call.
int bnt_regex_next(struct bnt_regex_search *search, size_t from, size_t *start, size_t *end);

// Rewrites a pattern (in PCRE2's syntax) so that its properties hold for the odd characters too.
// removed: they may be in PCRE2's sets, otherwise they are in none. *out is malloc'd, or NULL where
// nothing depends on them or the pattern is not understood. false: out of memory. (regex_exact.c)
bool bnt_regex_rewrite(const uint8_t *pattern, size_t size, const struct bnt_char_set *odd,
                       bool removed, char **out, size_t *out_size);

#endif
