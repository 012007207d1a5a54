// SPDX-License-Identifier: MIT
// What the two halves of the translation of patterns share: pattern.c has the syntax around sets of
// characters, pattern_set.c the sets.
#ifndef BNT_PACK_PATTERN_SCAN_H
#define BNT_PACK_PATTERN_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "pack/buffer.h"

// A character that there is none of, and any character.
#define BNT_PATTERN_NEVER "[^\\x{0}-\\x{10FFFF}]"
#define BNT_PATTERN_ANY   "(?s:.)"

enum { BNT_PATTERN_MAX_GROUPS = 64 };
enum { BNT_PATTERN_SPACE = ' ', BNT_PATTERN_MARK = 0x2581 };

struct bnt_pattern_scanner {
    const char *p;
    size_t size;
    size_t at;
    bool marked;   // U+2581 is written as a space, and there are no spaces
    bool extended; // (?x) was seen
    bool caseless; // (?i) holds here
    bool outer_caseless[BNT_PATTERN_MAX_GROUPS]; // around each group that is open
    int n_groups;
    uint32_t before; // the character before this place, 0: none
    struct bnt_buffer *out;
};

static inline void bnt_pattern_put(struct bnt_buffer *out, const char *text)
{
    bnt_buffer_put(out, text, strlen(text));
}

static inline bool bnt_pattern_next_is(const struct bnt_pattern_scanner *s, char c)
{
    return s->at + 1 < s->size && s->p[s->at + 1] == c;
}

// Reads a character, written as it is or escaped: passes over it. false: what stands here is no
// character, or none that can be told.
bool bnt_pattern_read_character(struct bnt_pattern_scanner *s, bool in_class, uint32_t *code);

// Appends a character so that it stands for itself, in a class and outside.
void bnt_pattern_put_character(struct bnt_buffer *out, uint32_t code);

// Whether a character without regard to case means the same to both: not where several together
// have the case of one, as ss and ß.
bool bnt_pattern_caseless_fits(const struct bnt_pattern_scanner *s, uint32_t code);

// At '[' of a class, or at the backslash of an escape that stands for a set. false: no equivalent.
bool bnt_pattern_translate_class(struct bnt_pattern_scanner *s);
bool bnt_pattern_translate_set(struct bnt_pattern_scanner *s);
// Whether an escape stands for a set.
bool bnt_pattern_is_set(const struct bnt_pattern_scanner *s);

#endif
