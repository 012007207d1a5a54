// SPDX-License-Identifier: MIT
// Unicode's tables and patterns that are right whatever tables PCRE2 has. The numbers are those of
// the tokenizers library, 0.23.3.
#include <stdlib.h>

#include "formats/regex.h"
#include "formats/unicode.h"
#include "tests/unit/support.h"

static uint64_t members(const struct bnt_char_set *set)
{
    uint64_t n = 0;
    for (size_t i = 0; i < set->n; i++)
        n += set->range[i].last - set->range[i].first + 1;
    return n;
}

static void runs_cover_all_characters(void **state)
{
    uint32_t next = 0;
    (void)state;
    for (uint32_t i = 0; i < bnt_unicode_n_runs; i++) {
        const struct bnt_unicode_run run = bnt_unicode_run_at(i);
        assert_int_equal(run.first, next);
        assert_true(run.end > run.first);
        assert_true(run.category <= BNT_UNICODE_CS);
        assert_int_equal(bnt_unicode_find(run.first).first, run.first);
        assert_int_equal(bnt_unicode_find(run.end - 1).first, run.first);
        next = run.end;
    }
    assert_int_equal(next, BNT_UNICODE_END);
}

static void properties_have_the_library_s_members(void **state)
{
    static const struct {
        const char *name;
        uint64_t members;
    } all[] = {{"Nd", 760},
               {"L", 141028},
               {"Cn", 819533},
               {"Alphabetic", 142759},
               {"Uppercase", 1978},
               {"Lowercase", 2569},
               {"White_Space", 25},
               {"AHex", 22},
               {"Any", BNT_UNICODE_END}};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_char_set set = {0};
        assert_true(bnt_char_set_add_property(&set, all[i].name, strlen(all[i].name)));
        assert_int_equal(members(&set), all[i].members);
        bnt_char_set_free(&set);
    }
    struct bnt_char_set none = {0};
    assert_false(bnt_char_set_add_property(&none, "Nonsense", 8));
    assert_false(bnt_char_set_add_property(&none, "", 0));
    bnt_char_set_free(&none);
}

static void words_are_the_library_s(void **state)
{
    uint64_t n = 0;
    (void)state;
    for (uint32_t c = 0; c < BNT_UNICODE_END; c++)
        n += bnt_unicode_is_word(c);
    assert_int_equal(n, 144667);
    assert_true(bnt_unicode_is_word('_') && bnt_unicode_is_word(0x1C89) &&
                bnt_unicode_is_word(0x200D));
    assert_false(bnt_unicode_is_word(' ') || bnt_unicode_is_word(0xB2) ||
                 bnt_unicode_is_word(0x2581));
}

static void lower_case_is_one_character_s(void **state)
{
    static const uint32_t pairs[][2] = {{'A', 'a'},     {'a', 'a'},           {'@', '@'},
                                        {'[', '['},     {0x3A3, 0x3C3},       {0x100, 0x101},
                                        {0x101, 0x101}, {0x1C89, 0x1C8A},     {0x10D50, 0x10D70},
                                        {0x212A, 'k'},  {0x10FFFF, 0x10FFFF}, {0x1E9E, 0xDF}};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(pairs); i++)
        assert_int_equal(bnt_unicode_lowercase(pairs[i][0]), pairs[i][1]);
}

static void sets_are_complemented_and_intersected(void **state)
{
    struct bnt_char_set a = {0}, b = {0};
    (void)state;
    bnt_char_set_add(&a, 50, 60);
    bnt_char_set_add(&a, 10, 20);
    bnt_char_set_add(&a, 15, 30);
    bnt_char_set_add(&a, 31, 31);
    bnt_char_set_settle(&a);
    assert_int_equal(a.n, 2);
    assert_true(bnt_char_set_has(&a, 10) && bnt_char_set_has(&a, 31) && bnt_char_set_has(&a, 60));
    assert_false(bnt_char_set_has(&a, 9) || bnt_char_set_has(&a, 32) || bnt_char_set_has(&a, 61));
    const struct bnt_char_range gap = bnt_char_set_gap(&a, 40);
    assert_true(gap.first == 32 && gap.last == 49);
    bnt_char_set_add(&b, 0, 12);
    bnt_char_set_add(&b, 31, 55);
    bnt_char_set_intersect(&b, &a);
    assert_int_equal(members(&b), 3 + 1 + 6);
    bnt_char_set_complement(&b);
    assert_int_equal(members(&b), BNT_UNICODE_END - 10);
    assert_true(bnt_char_set_has(&b, 0) && bnt_char_set_has(&b, BNT_UNICODE_END - 1));
    bnt_char_set_free(&a);
    bnt_char_set_free(&b);
}

// All matches, as "start-end " each.
static void find_all(const struct bnt_regex *regex, const char *text, char out[256])
{
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    struct bnt_regex_search search = {
        .regex = regex, .match = match, .text = (const uint8_t *)text, .size = strlen(text)};
    size_t from = 0, used = 0, start, end;
    out[0] = '\0';
    while (bnt_regex_next(&search, from, &start, &end) >= 0) {
        used += (size_t)snprintf(out + used, 256 - used, "%zu-%zu ", start, end);
        from = end;
    }
    pcre2_match_data_free(match);
}

// Whether PCRE2 is older than our tables, as old or newer, a text with characters that it may know
// otherwise is found to have what ours say. U+0378 is in no table, so it tells even where PCRE2's
// own tables are not newer.
static void patterns_are_right_for_newer_pcre2_too(void **state)
{
    static const struct {
        const char *pattern, *text, *found;
    } all[] = {
        {"[^\\p{L}]+", "a\u0378b.\u0378", "1-3 4-7 "},
        {"\\P{L}+", "a\u0378b.\u0378", "1-3 4-7 "},
        {"\\p{L}+", "a\u0378bc", "0-1 3-5 "},
        {"[\\p{L}\\p{N}-]+", "a-\u0378-1c", "0-2 4-7 "},
        {"[^\\P{Ll}x]+", "axb\u0378cc", "0-1 2-3 5-7 "},
        {"\\p{Cn}|\\d", "1\u0378", "0-1 1-3 "},
        {"[]\\p{Cn}]+", "]\u0378a]", "0-3 4-5 "},
        {"[[:digit:]]", "1\u03782", "0-1 3-4 "},
        {"(?<!\\p{L})b|(a)\\1", "b\u0378bbaa", "0-1 3-4 5-7 "},
    };
    (void)state;
    for (unsigned major = 14; major <= 18; major++) {
        for (size_t i = 0; i < TEST_COUNT(all); i++) {
            struct bnt_regex regex;
            struct bnt_error err;
            char found[256];
            const char *pattern = all[i].pattern;
            if (bnt_regex_open_as(&regex, (const uint8_t *)pattern, strlen(pattern), major, &err) !=
                BNT_OK)
                fail_msg("%s", err.message);
            assert_int_equal(regex.exact != NULL, major != BNT_UNICODE_MAJOR);
            find_all(&regex, all[i].text, found);
            if (strcmp(found, all[i].found) != 0)
                fail_msg("%s, Unicode %u: %s, must be %s", pattern, major, found, all[i].found);
            bnt_regex_close(&regex);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_cover_all_characters),
        cmocka_unit_test(properties_have_the_library_s_members),
        cmocka_unit_test(words_are_the_library_s),
        cmocka_unit_test(lower_case_is_one_character_s),
        cmocka_unit_test(sets_are_complemented_and_intersected),
        cmocka_unit_test(patterns_are_right_for_newer_pcre2_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
