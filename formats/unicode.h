// SPDX-License-Identifier: MIT
// Unicode's properties, of one version whatever the libraries of the machine know: ids must not
// depend on a distribution. Patterns (regex.h) and normalization forms (normalize.h) ask here.
#ifndef BNT_FORMATS_UNICODE_H
#define BNT_FORMATS_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// That of the patterns of the tokenizers library, 0.23.
#define BNT_UNICODE_VERSION "16.0"
enum { BNT_UNICODE_MAJOR = 16, BNT_UNICODE_OLD_MAJOR = 14, BNT_UNICODE_END = 0x110000 };

enum bnt_unicode_category { // the general category
    BNT_UNICODE_CN,
    BNT_UNICODE_LU,
    BNT_UNICODE_LL,
    BNT_UNICODE_LT,
    BNT_UNICODE_LM,
    BNT_UNICODE_LO,
    BNT_UNICODE_MN,
    BNT_UNICODE_MC,
    BNT_UNICODE_ME,
    BNT_UNICODE_ND,
    BNT_UNICODE_NL,
    BNT_UNICODE_NO,
    BNT_UNICODE_PC,
    BNT_UNICODE_PD,
    BNT_UNICODE_PS,
    BNT_UNICODE_PE,
    BNT_UNICODE_PI,
    BNT_UNICODE_PF,
    BNT_UNICODE_PO,
    BNT_UNICODE_SM,
    BNT_UNICODE_SC,
    BNT_UNICODE_SK,
    BNT_UNICODE_SO,
    BNT_UNICODE_ZS,
    BNT_UNICODE_ZL,
    BNT_UNICODE_ZP,
    BNT_UNICODE_CC,
    BNT_UNICODE_CF,
    BNT_UNICODE_CO,
    BNT_UNICODE_CS,
};

enum { // bits of bnt_unicode_run.flags
    BNT_UNICODE_ALPHABETIC = 1,
    BNT_UNICODE_UPPERCASE = 2,
    BNT_UNICODE_LOWERCASE = 4,
    BNT_UNICODE_NEWER = 8,     // something of the above differs in Unicode 14.0
    BNT_UNICODE_NO_FORMS = 16, // not in Unicode 9.0: normalization leaves it alone
};

// Equal characters that lie together: first … end − 1.
struct bnt_unicode_run {
    uint32_t first;
    uint32_t end;
    enum bnt_unicode_category category;
    unsigned flags;
};

struct bnt_char_range {
    uint32_t first;
    uint32_t last;
};

struct bnt_char_ranges { // ascending, apart
    const struct bnt_char_range *range;
    uint32_t n;
};

struct bnt_case_run { // first, first + stride, … last; each + distance is its other case
    uint32_t first;
    uint32_t last;
    uint32_t stride;
    int32_t distance;
};

struct bnt_unicode_script {
    const char *name;
    struct bnt_char_ranges ranges;
};

// The tables themselves (unicode_data.c, made by unicode.py).
extern const uint32_t bnt_unicode_runs[]; // first | category << 21 | flags << 26
extern const uint32_t bnt_unicode_n_runs;
extern const struct bnt_unicode_script bnt_unicode_scripts[];
extern const uint32_t bnt_unicode_n_scripts;
// Of the library's Lowercase; but U+0130, which becomes U+0069 U+0307.
extern const struct bnt_case_run bnt_unicode_lower[];
extern const uint32_t bnt_unicode_n_lower;
// Where the library's Digits and Punctuation differ from \p{N} and from [\p{P}$+<=>^`|~].
extern const struct bnt_char_ranges bnt_unicode_more_numbers;
extern const struct bnt_char_ranges bnt_unicode_more_punctuation;
extern const struct bnt_char_ranges bnt_unicode_no_punctuation;

// The run that a code point (< BNT_UNICODE_END) lies in; the index-th run.
struct bnt_unicode_run bnt_unicode_find(uint32_t code);
struct bnt_unicode_run bnt_unicode_run_at(uint32_t index);

// The lower case of a character other than U+0130.
uint32_t bnt_unicode_lowercase(uint32_t code);

// What can be part of a word: letters, marks, decimal digits, connectors, and the two joiners.
bool bnt_unicode_is_word(uint32_t code);

// --- sets of characters ---

struct bnt_char_set {
    struct bnt_char_range *range; // ascending and apart, except after bnt_char_set_add
    size_t n;
    size_t capacity;
    bool failed; // out of memory; later calls do nothing
};

void bnt_char_set_free(struct bnt_char_set *set);
// Adds first … last. Any number of these is followed by bnt_char_set_settle.
void bnt_char_set_add(struct bnt_char_set *set, uint32_t first, uint32_t last);
void bnt_char_set_settle(struct bnt_char_set *set);
void bnt_char_set_complement(struct bnt_char_set *set);
// Keeps what is in other too.
void bnt_char_set_intersect(struct bnt_char_set *set, const struct bnt_char_set *other);
bool bnt_char_set_has(const struct bnt_char_set *set, uint32_t code);
// The stretch around a code point that is not in the set.
struct bnt_char_range bnt_char_set_gap(const struct bnt_char_set *set, uint32_t code);
// Adds what \p{NAME} means: a general category or its first letter, L&, Any, White_Space,
// Alphabetic, Uppercase, Lowercase, AHex, or a script of bnt_unicode_scripts. false: unknown.
bool bnt_char_set_add_property(struct bnt_char_set *set, const char *name, size_t size);
bool bnt_unicode_is_script(const char *name, size_t size);

#endif
