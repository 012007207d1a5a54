// SPDX-License-Identifier: MIT
// A prompt that is cut into other tokens than in training is another prompt. Sections are built
// from small tokenizer.json texts, put into a model file and opened by the runtime; what must come
// out was computed by Hugging Face tokenizers 0.23 (Oniguruma), or is computed here by a plain
// definition.
#include <math.h>
#include <time.h>

#include "pack/pattern.h"
#include "tests/unit/tokenizer_text.h"

// --- pieces ---

static bool starts_character(char c)
{
    return (c & 0xC0) != 0x80;
}

// Makes every run of characters a token of its own: with ignore_merges each piece is one token.
static void add_substrings(json_t *json, const char *text)
{
    size_t size = strlen(text);
    for (size_t start = 0; start < size; start++) {
        for (size_t end = start + 1; end <= size; end++) {
            if (starts_character(text[start]) && starts_character(text[end]))
                (void)text_token(json, text + start, end - start);
        }
    }
}

static json_t *piece_tokenizer(const char *pre_tokenizer, const char *text)
{
    char spaced[256];
    json_t *json = text_tokenizer();
    (void)snprintf(spaced, sizeof spaced, " %s", text);
    add_substrings(json, spaced);
    text_set_model(json, "ignore_merges", "true");
    text_set(json, "pre_tokenizer", pre_tokenizer);
    return json;
}

static void encode_pieces(const struct bnt_model *model, const char *text, char out[512])
{
    size_t count, used = 0;
    uint32_t *ids = text_encode(model, text, strlen(text), false, &count);
    out[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t size;
        const char *bytes = bnt_token_text(model, ids[i], &size);
        used += (size_t)snprintf(out + used, 512 - used, "%s%.*s", i ? "|" : "", (int)size, bytes);
    }
    free(ids);
}

static void check_pieces(const char *pre_tokenizer, const char *text, const char *expected)
{
    char pieces[512];
    json_t *json = piece_tokenizer(pre_tokenizer, text);
    struct bnt_model *model = text_open(json);
    encode_pieces(model, text, pieces);
    if (strcmp(pieces, expected) != 0)
        fail_msg("%s: '%s' becomes '%s', must become '%s'", pre_tokenizer, text, pieces, expected);
    bnt_model_close(model);
    json_decref(json);
}

#define BYTE_LEVEL                                                                                 \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":"      \
    "false}"

// A Sequence of steps (JSON objects) and ByteLevel.
static void check_steps(const char *steps, const char *text, const char *expected)
{
    size_t size = strlen(steps) + 200;
    char *sequence = test_alloc(size);
    (void)snprintf(sequence, size, "{\"type\":\"Sequence\",\"pretokenizers\":[%s," BYTE_LEVEL "]}",
                   steps);
    check_pieces(sequence, text, expected);
    free(sequence);
}

static char *split_step(const char *pattern, const char *kind, const char *behavior, bool invert)
{
    json_t *step = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", kind, pattern,
                             "behavior", behavior, "invert", invert);
    char *text = json_dumps(step, JSON_COMPACT);
    assert_non_null(text);
    json_decref(step);
    return text;
}

struct split {
    const char *pattern, *kind, *behavior;
    bool invert;
    const char *text, *pieces;
};

static void check_splits(const struct split *all, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *step = split_step(all[i].pattern, all[i].kind, all[i].behavior, all[i].invert);
        check_steps(step, all[i].text, all[i].pieces);
        free(step);
    }
}

static const struct split splits[] = {
    {"-", "Regex", "Removed", false, "-a--b-c", "a|b|c"},
    {"-+", "Regex", "Removed", false, "a--b-", "a|b"},
    {"-", "String", "Removed", false, "--a-b--", "a|b"},
    {"-", "Regex", "Removed", true, "-a--b-c", "-|-|-|-"},
    {"-+", "Regex", "Removed", true, "a--b-", "--|-"},
    {"-", "String", "Removed", true, "--a-b--", "-|-|-|-|-"},
    {"-", "Regex", "Isolated", false, "-a--b-c", "-|a|-|-|b|-|c"},
    {"-+", "Regex", "Isolated", false, "a--b-", "a|--|b|-"},
    {"-", "String", "Isolated", false, "--a-b--", "-|-|a|-|b|-|-"},
    {"-", "Regex", "Isolated", true, "-a--b-c", "-|a|-|-|b|-|c"},
    {"-+", "Regex", "Isolated", true, "a--b-", "a|--|b|-"},
    {"-", "String", "Isolated", true, "--a-b--", "-|-|a|-|b|-|-"},
    {"-", "Regex", "MergedWithPrevious", false, "-a--b-c", "-|a-|-|b-|c"},
    {"-+", "Regex", "MergedWithPrevious", false, "a--b-", "a--|b-"},
    {"-", "String", "MergedWithPrevious", false, "--a-b--", "-|-|a-|b-|-"},
    {"-", "Regex", "MergedWithPrevious", true, "-a--b-c", "-a|-|-b|-c"},
    {"-+", "Regex", "MergedWithPrevious", true, "a--b-", "a|--b|-"},
    {"-", "String", "MergedWithPrevious", true, "--a-b--", "-|-a|-b|-|-"},
    {"-", "Regex", "MergedWithNext", false, "-a--b-c", "-a|-|-b|-c"},
    {"-+", "Regex", "MergedWithNext", false, "a--b-", "a|--b|-"},
    {"-", "String", "MergedWithNext", false, "--a-b--", "-|-a|-b|-|-"},
    {"-", "Regex", "MergedWithNext", true, "-a--b-c", "-|a-|-|b-|c"},
    {"-+", "Regex", "MergedWithNext", true, "a--b-", "a--|b-"},
    {"-", "String", "MergedWithNext", true, "--a-b--", "-|-|a-|b-|-"},
    {"-", "Regex", "Contiguous", false, "-a--b-c", "-|a|--|b|-|c"},
    {"-+", "Regex", "Contiguous", false, "a--b-", "a|--|b|-"},
    {"-", "String", "Contiguous", false, "--a-b--", "--|a|-|b|--"},
    {"a+b", "String", "Isolated", false, "aab+a+b", "aab+|a+b"},
    {".", "String", "Removed", false, "a.b..c", "a|b|c"},
    {"(?=b)", "Regex", "Isolated", false, "abcb", "a|bc|b"},
    {"(?=b)", "Regex", "Removed", false, "abcb", "a|bc|b"},
    {"b?", "Regex", "MergedWithPrevious", false, "abcb", "ab|cb"},
    {"x*", "Regex", "Isolated", false, "axxb", "a|xx|b"},
    {"$", "Regex", "Isolated", false, "a\nb", "a|\nb"},
    {"^", "Regex", "MergedWithNext", false, "a\nb", "a\n|b"},
    {"(?=b)", "Regex", "MergedWithPrevious", true, "abcb", "a|bc|b"},
    {" ", "String", "MergedWithNext", false, " a  b ", " a| | b| "},
};

static void split_behaviors(void **state)
{
    (void)state;
    check_splits(splits, TEST_COUNT(splits));
}

// Adjacent matches are one piece, whichever of matches and gaps are called separators.
static const struct split contiguous_inverted[] = {
    {"-", "Regex", "Contiguous", true, "-a--b-c", "-|a|--|b|-|c"},
    {"-+", "Regex", "Contiguous", true, "a--b-", "a|--|b|-"},
    {"-", "String", "Contiguous", true, "--a-b--", "--|a|-|b|--"},
    {"^", "Regex", "Contiguous", true, "a\nb", "a\n|b"},
    {".", "Regex", "Contiguous", true, "ab\nc", "ab|\n|c"},
};

static void split_contiguous_inverted(void **state)
{
    (void)state;
    check_splits(contiguous_inverted, TEST_COUNT(contiguous_inverted));
}

// An empty match right behind another match is none; elsewhere it separates.
static const struct split empty_matches[] = {
    {"b?", "Regex", "MergedWithPrevious", true, "abc", "a|bc"},
    {"b?", "Regex", "MergedWithNext", false, "abc", "a|bc"},
    {"b?", "Regex", "MergedWithNext", false, "abbc", "a|b|bc"},
    {"b*", "Regex", "MergedWithNext", false, "abbc", "a|bbc"},
    {"b*", "Regex", "Contiguous", false, "abbc", "a|bb|c"},
    {"x*", "Regex", "MergedWithPrevious", true, "axb", "a|xb"},
    {"b|(?<=b)", "Regex", "MergedWithNext", false, "abc", "a|bc"},
};

static void split_with_empty_matches(void **state)
{
    (void)state;
    check_splits(empty_matches, TEST_COUNT(empty_matches));
}

static void digits_and_punctuation(void **state)
{
    static const struct {
        const char *step, *text, *pieces;
    } all[] = {
        {"{\"type\":\"Digits\",\"individual_digits\":false}", "ab12c3\xC2\xBD\xD9\xA3",
         "ab|12|c|3\xC2\xBD\xD9\xA3"},
        {"{\"type\":\"Digits\",\"individual_digits\":true}", "ab12c3\xC2\xBD\xD9\xA3",
         "ab|1|2|c|3|\xC2\xBD|\xD9\xA3"},
        {"{\"type\":\"Punctuation\"}", "a.,b+c$!", "a|.|,|b|+|c|$|!"},
        {"{\"type\":\"Punctuation\",\"behavior\":\"Removed\"}", "a.,b+c$!", "a|b|c"},
        {"{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"}", "a.,b+c$!", "a|.|,|b|+|c|$|!"},
        {"{\"type\":\"Punctuation\",\"behavior\":\"MergedWithPrevious\"}", "a.,b+c$!",
         "a.|,|b+|c$|!"},
        {"{\"type\":\"Punctuation\",\"behavior\":\"MergedWithNext\"}", "a.,b+c$!", "a|.|,b|+c|$|!"},
        {"{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "a.,b+c$!", "a|.,|b|+|c|$!"},
        {"{\"type\":\"Punctuation\"}", "\xC2\xABq\xC2\xBB\xE2\x82\xAC\xE3\x80\x82x^`~_",
         "\xC2\xAB|q|\xC2\xBB|\xE2\x82\xAC|\xE3\x80\x82|x|^|`|~|_"},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++)
        check_steps(all[i].step, all[i].text, all[i].pieces);
}

// Each step sees the pieces that the ones before left.
static void several_steps(void **state)
{
    static const char llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
                                 "{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
                                 "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    char *isolated = split_step(llama3, "Regex", "Isolated", false);
    char *removed = split_step(llama3, "Regex", "Removed", true), steps[1024];
    (void)state;
    check_steps(isolated, "I'M 12345 years  old.\r\n\n  It's (so)!",
                "I|'M| |123|45| years| | old|.\r\n\n| | It|'s| (|so|)!");
    check_steps(isolated, "\xC3\xA9t\xC3\xA9 \xE6\xBC\xA2\xE5\xAD\x97\xC2\xBD x\xCC\x81",
                "\xC3\xA9t\xC3\xA9| \xE6\xBC\xA2\xE5\xAD\x97|\xC2\xBD| x|\xCC\x81");
    (void)snprintf(steps, sizeof steps, "{\"type\":\"Digits\",\"individual_digits\":true},%s",
                   removed);
    check_steps(steps, "a 12 b34", "a| |1|2| b|3|4");
    check_steps(
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\s\"},\"behavior\":\"MergedWithPrevious\","
        "\"invert\":false},{\"type\":\"Punctuation\"}",
        "a b, c. d", "a |b|,| |c|.| |d");
    free(isolated);
    free(removed);
}

static void byte_level_alone(void **state)
{
    static const struct {
        bool prefix, regex;
        const char *text, *pieces;
    } all[] = {
        {false, false, "Hello  world's\n 12!", "Hello  world's\n 12!"},
        {false, true, "Hello  world's\n 12!", "Hello| | world|'s|\n| 12|!"},
        {false, true, " x", " x"},
        {false, true, "\xC3\xA9 \xE6\xBC\xA2", "\xC3\xA9| \xE6\xBC\xA2"},
        {true, false, "Hello  world's\n 12!", " Hello  world's\n 12!"},
        {true, false, " x", " x"},
        {true, true, "Hello  world's\n 12!", " Hello| | world|'s|\n| 12|!"},
        {true, true, "\xC3\xA9 \xE6\xBC\xA2", " \xC3\xA9| \xE6\xBC\xA2"},
        {true, true, "", ""},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        char step[200];
        (void)snprintf(step, sizeof step,
                       "{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,\"trim_offsets\":true,"
                       "\"use_regex\":%s}",
                       all[i].prefix ? "true" : "false", all[i].regex ? "true" : "false");
        check_pieces(step, all[i].text, all[i].pieces);
    }
    // The prefix goes before every piece that the steps before have left.
    check_pieces("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_"
                 "digits\":false},"
                 "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}]}",
                 "a b", " a b");
}

// --- patterns: Oniguruma's meaning by PCRE2 ---

struct pattern {
    const char *pattern, *text, *pieces;
};

static const struct pattern patterns[] = {
    {"\\s+",
     "a\xE1\xA0\x8E"
     "b c\xC2\x85"
     "d\xE2\x80\x8B"
     "e\xE3\x80\x80"
     "f",
     "a\xE1\xA0\x8E"
     "b| |c|\xC2\x85|d\xE2\x80\x8B"
     "e|\xE3\x80\x80|f"},
    {"\\S+",
     "a\xE1\xA0\x8E"
     "b c",
     "a\xE1\xA0\x8E"
     "b| |c"},
    {"[\\s]+",
     "a\xE1\xA0\x8E"
     "b c\td",
     "a\xE1\xA0\x8E"
     "b| |c|\t|d"},
    {"[^\\s]+",
     "a\xE1\xA0\x8E"
     "b c",
     "a\xE1\xA0\x8E"
     "b| |c"},
    {"\\h+", "xab9Fg\t", "x|ab9F|g\t"},
    {"\\H+", "abxyz9", "ab|xyz|9"},
    {"[\\hx]+", "axz", "ax|z"},
    {"\\u00e9+", "caf\xC3\xA9s", "caf|\xC3\xA9|s"},
    {"[\\u00e0-\\u00ff]+",
     "a\xC3\xA9\xC3\xBC"
     "b",
     "a|\xC3\xA9\xC3\xBC|b"},
    {"\\x{e9}", "caf\xC3\xA9", "caf|\xC3\xA9"},
    {"[]a]+", "b]ac", "b|]a|c"},
    {"[^]a]+", "b]ac", "b|]a|c"},
    {"[\\]x]+", "a]xb", "a|]x|b"},
    {"[[:digit:]a]+",
     "ba1\xD9\xA3"
     "c",
     "b|a1\xD9\xA3|c"},
    {"[[:^digit:]]+", "ab12", "ab|12"},
    {"\\p{L}\\p{M}*", "e\xCC\x81x", "e\xCC\x81|x"},
    {"\\p{^L}+", "ab12", "ab|12"},
    {"(?<=a)b", "abbab", "a|b|ba|b"},
    {"b(?!c)", "bcb", "bc|b"},
    {"(?i:ab)", "aBcAB", "aB|c|AB"},
    {"(?i:'s|'t)|\\p{Lu}+|((?i)x)y", "'SABa'TxyxY", "'S|AB|a|'T|xy|x|Y"},
    {"a++b", "aab", "aab"},
    {"(?>a+)b", "xaab", "x|aab"},
    {".", "a\nb", "a|\n|b"},
    {"b$", "ab\nb", "a|b|\n|b"},
    {"^b", "ab\nb", "ab\n|b"},
    {"\\Ab", "b\nb", "b|\nb"},
    {"\\R",
     "a\r\nb\xE2\x80\xA8"
     "c",
     "a|\r\n|b|\xE2\x80\xA8|c"},
    {"\\d+",
     "a1\xD9\xA3"
     "2\xC2\xB2",
     "a|1\xD9\xA3"
     "2|\xC2\xB2"},
    {"\\#|\\-|\\ ", "a#b-c d", "a|#|b|-|c| |d"},
    {"(a)\\1", "aab", "aa|b"},
};

static void patterns_keep_their_meaning(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(patterns); i++) {
        char *step = split_step(patterns[i].pattern, "Regex", "Isolated", false);
        check_steps(step, patterns[i].text, patterns[i].pieces);
        free(step);
    }
}

// What PCRE2 understands otherwise must be translated, or refused; it must not pass as it is.
static void check_translated_or_refused(const struct pattern *all, size_t count)
{
    char wrong[2048] = "";
    for (size_t i = 0; i < count; i++) {
        char *step = split_step(all[i].pattern, "Regex", "Isolated", false), sequence[512],
             pieces[512];
        (void)snprintf(sequence, sizeof sequence,
                       "{\"type\":\"Sequence\",\"pretokenizers\":[%s," BYTE_LEVEL "]}", step);
        json_t *json = piece_tokenizer(sequence, all[i].text);
        struct bnt_buffer section = {0};
        struct bnt_error err;
        enum bnt_status status = text_build(json, &section, &err);
        bnt_buffer_free(&section);
        if (status == BNT_OK) {
            struct bnt_model *model = text_open(json);
            encode_pieces(model, all[i].text, pieces);
            bnt_model_close(model);
            size_t used = strlen(wrong);
            if (strcmp(pieces, all[i].pieces) != 0)
                (void)snprintf(wrong + used, sizeof wrong - used, "\n  %s: '%s', must be '%s'",
                               all[i].pattern, pieces, all[i].pieces);
        }
        json_decref(json);
        free(step);
    }
    if (wrong[0])
        fail_msg("patterns that mean something else:%s", wrong);
}

// A word holds letters, marks, digits and connectors; PCRE2 10.42 knows neither marks nor
// connectors.
static const struct pattern word_patterns[] = {
    {"\\w+", "xe\xCC\x81,y\xE2\x80\xBFz", "xe\xCC\x81|,|y\xE2\x80\xBFz"},
    {"\\W+", "e\xCC\x81, y", "e\xCC\x81|, |y"},
    {"[\\w]+", "xe\xCC\x81,", "xe\xCC\x81|,"},
    {"[^\\w]+", "e\xCC\x81, y", "e\xCC\x81|, |y"},
    {"\\b", "e\xCC\x81 y", "e\xCC\x81| |y"},
    {"[[:word:]]+", "e\xCC\x81,", "e\xCC\x81|,"},
};

static void words_are_those_of_oniguruma(void **state)
{
    (void)state;
    check_translated_or_refused(word_patterns, TEST_COUNT(word_patterns));
}

// Letters are what Unicode calls Alphabetic; outside of brackets, superscripts and fractions of
// Latin-1 are word characters too.
static const struct pattern alphabetic_patterns[] = {
    {"\\w+",
     "\xE2\x85\xA7"
     "a,",
     "\xE2\x85\xA7"
     "a|,"},
    {"\\w+",
     "\xE2\x92\xB6"
     "a,",
     "\xE2\x92\xB6"
     "a|,"},
    {"[\\w]+",
     "\xE2\x85\xA7"
     "a,",
     "\xE2\x85\xA7"
     "a|,"},
    {"[^\\w]+", "\xE2\x92\xB6,", "\xE2\x92\xB6|,"},
    {"\\w+",
     "a\xC2\xB2"
     "b,",
     "a\xC2\xB2"
     "b|,"},
    {"\\b", "a\xC2\xBD b", "a\xC2\xBD| |b"},
    {"[\\w]+",
     "a\xC2\xB2"
     "b,",
     "a|\xC2\xB2|b|,"},
};

static void words_hold_all_that_is_alphabetic(void **state)
{
    (void)state;
    check_translated_or_refused(alphabetic_patterns, TEST_COUNT(alphabetic_patterns));
}

static const struct pattern bracket_patterns[] = {
    {"[[:space:]]+",
     "a\xE1\xA0\x8E"
     "b c",
     "a\xE1\xA0\x8E"
     "b| |c"},
    {"[[:punct:]]+",
     "a\xE2\x82\xAC"
     "b.",
     "a|\xE2\x82\xAC|b|."},
    {"[[:alpha:]]+",
     "a\xE2\x92\xB6"
     "b1",
     "a\xE2\x92\xB6"
     "b|1"},
    {"[[:alnum:]]+",
     "a\xE2\x92\xB6"
     "b,",
     "a\xE2\x92\xB6"
     "b|,"},
    {"[[:upper:]]+",
     "A\xE2\x85\xA7"
     "b",
     "A\xE2\x85\xA7|b"},
    {"[[:lower:]]+",
     "a\xC2\xAA"
     "B",
     "a\xC2\xAA|B"},
};

static void brackets_are_those_of_oniguruma(void **state)
{
    (void)state;
    check_translated_or_refused(bracket_patterns, TEST_COUNT(bracket_patterns));
}

// \v is one character, (?m) lets the dot match a line feed, {n,m}+ repeats the interval, {,n} is
// one.
static const struct pattern other_patterns[] = {
    {"\\v",
     "a\nb\x0B"
     "c",
     "a\nb|\x0B|c"},
    {"[\\v]",
     "a\nb\x0B"
     "c",
     "a\nb|\x0B|c"},
    {"(?m:b.c)", "ab\ncd", "a|b\nc|d"},
    {"\\p{N}{1,3}+", "x1234567", "x|1234567"},
    {"a{2}+", "aaaaab", "aaaa|ab"},
    {"a{,2}", "aaab", "aa|a|b"},
};

// Sets in sets, and what they have in common.
static const struct pattern set_patterns[] = {
    {"[a[bc]]+", "xabcd", "x|abc|d"},
    {"[^[a]]+", "xxaxx", "xx|a|xx"},
    {"[a-c&&b]", "abc", "a|b|c"},
    {"[^a-c&&b]+", "xabc", "xa|b|c"},
    {"x[\\w&&[^a]]", "xaxb", "xa|xb"},
    {"[x[^a-y]]+", "axz1b", "a|xz1|b"},
    {"[^x[^a-y]]+", "axz1by", "a|xz1|by"},
    {"[[:alpha:][0-9]]+", "a1.b", "a1|.|b"},
    {" ?[^(\\s-[.,])]+", "a b-c. d(e", "a| b|-|c|.| d|(|e"},
    {"[\\S&&\\D]+", "a 1b", "a| 1|b"},
};

static void sets_in_sets_are_those_of_oniguruma(void **state)
{
    (void)state;
    check_translated_or_refused(set_patterns, TEST_COUNT(set_patterns));
}

// Whatever PCRE2's tables are: U+1C89 and U+A7CB are letters, U+10D40 a digit, U+1FAE9 a symbol,
// U+0897 a mark since Unicode 16; U+0378 is nothing.
static const struct pattern newer_patterns[] = {
    {"\\p{L}+", "1a\u1C89\uA7CBb1", "1|a\u1C89\uA7CBb|1"},
    {"\\P{L}+", "a\u1C891\U00010D40b", "a\u1C89|1\U00010D40|b"},
    {"[^\\s\\p{L}\\p{N}]+", "a.\U0001FAE9\u1C89 !", "a|.\U0001FAE9|\u1C89 |!"},
    {"\\d{2}", "1\U00010D4023", "1\U00010D40|23"},
    {"[\\d-]+", "a1\U00010D40-a", "a|1\U00010D40-|a"},
    {"[\\P{L}x]+", "a\u1C89.\U0001FAE9x", "a\u1C89|.\U0001FAE9x"},
    {"[^\\P{Lu}B]+", "AB\u1C89\uA7CCa", "A|B|\u1C89\uA7CC|a"},
    {"\\p{Cn}", "a\u0378\u1C89", "a|\u0378|\u1C89"},
    {"\\w+", "a\u1C89\u0897\U00010D40 .", "a\u1C89\u0897\U00010D40| ."},
    {"\\b", "\u1C89 \u0378", "\u1C89| \u0378"},
    {"a(?=\\p{L})", "aaa\u1C89", "a|a|a|\u1C89"},
    {"(?<=\\p{L})b", "\u1C89bb", "\u1C89|b|b"},
    {"(?<!\\p{L})b", "bb\u1C89b", "b|b\u1C89b"},
    {"a+$", "aa\u1C89\naa", "aa\u1C89\n|aa"},
    {"\\p{Han}+", "a\U00031350\u3001", "a|\U00031350|\u3001"},
    {"\\p{lower case letter}+", "aB\uA7CD", "a|B|\uA7CD"},
};

static void properties_are_of_one_version_of_unicode(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(newer_patterns); i++) {
        const struct pattern *p = &newer_patterns[i];
        char *step = split_step(p->pattern, "Regex", "Isolated", false);
        check_steps(step, p->text, p->pieces);
        free(step);
    }
}

static void other_syntax_is_that_of_oniguruma(void **state)
{
    (void)state;
    check_translated_or_refused(other_patterns, TEST_COUNT(other_patterns));
}

static void what_has_no_equivalent_is_refused(void **state)
{
    static const char *const sets[] = {"[\\W]",
                                       "[&&a]",
                                       "[[:graph:]]",
                                       "\\xE2\\x96\\x81",
                                       "\\X",
                                       "a\\Kb",
                                       "(?#a)b",
                                       "(*ACCEPT)",
                                       "(?i:ss)",
                                       "(?i)\u00DF",
                                       "(?i:\\p{Lu})",
                                       "(?i:[a[b]])",
                                       "(?i:a)|(?i:[\u00E0-\u00FF])",
                                       "\\p{Nonsense}",
                                       "(?x)a#b",
                                       "[b-a]"};
    static const char *const broken[] = {"(",    "a**b(",  "[a", "\\p{Nonsense}",
                                         "(?<a", "x{2,1}", "\\"};
    struct bnt_error err;
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(sets); i++) {
        struct bnt_buffer out = {0};
        assert_int_equal(bnt_pattern_translate(sets[i], strlen(sets[i]), false, &out, &err),
                         BNT_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, "what stands at byte"));
        bnt_buffer_free(&out);
    }
    for (size_t i = 0; i < TEST_COUNT(broken); i++) {
        struct bnt_buffer out = {0};
        enum bnt_status status =
            bnt_pattern_translate(broken[i], strlen(broken[i]), false, &out, &err);
        if (status == BNT_OK)
            status = bnt_pattern_check(out.data, out.size, NULL, &err);
        assert_int_not_equal(status, BNT_OK);
        bnt_buffer_free(&out);
    }
}

static void quoted_texts_match_only_themselves(void **state)
{
    static const char text[] = "\\^$.|?*+()[]{}-#/&~ \t\n\"'a1\xC3\xA9";
    struct bnt_buffer out = {0};
    struct bnt_error err;
    (void)state;
    bnt_pattern_quote(text, sizeof text - 1, &out);
    assert_int_equal(bnt_pattern_check(out.data, out.size, NULL, &err), BNT_OK);
    bnt_buffer_free(&out);
    check_splits(
        (const struct split[]){{"\\d[a-", "String", "Isolated", false, "1\\d[a-2", "1|\\d[a-|2"}},
        1);
}

// --- added tokens ---

// Ids as text: added tokens as their texts in brackets, others as they are.
static void encode_added(const struct bnt_model *model, uint32_t first_added, const char *text,
                         char out[512])
{
    size_t count, used = 0;
    uint32_t *ids = text_encode(model, text, strlen(text), false, &count);
    out[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t size;
        const char *bytes = bnt_token_text(model, ids[i], &size);
        used += (size_t)snprintf(out + used, 512 - used, ids[i] >= first_added ? "[%.*s]" : "%.*s",
                                 (int)size, bytes);
    }
    free(ids);
}

struct added {
    const char *content[3], *flags[3];
    const char *text, *expected;
};

static const struct added added[] = {
    {{"<s>"}, {"special"}, "a<s>b<s><s>", "a[<s>]b[<s>][<s>]"},
    {{"ab", "abc"}, {"", ""}, "xabcabab", "x[abc][ab][ab]"}, // the longest
    {{"ab", "bcd"}, {"", ""}, "xabcd", "x[ab]cd"},           // the leftmost
    {{"XX"}, {"lstrip"}, "a  XX  b", "a[XX]  b"},
    {{"XX"}, {"rstrip"}, "a  XX  b", "a  [XX]b"},
    {{"XX"}, {"lstrip rstrip"}, " \n XX\t \xC2\xA0 ", "[XX]"},
    {{"XX"}, {"lstrip rstrip"}, "a XX XX b", "a[XX][XX]b"},
    {{"XX"},
     {"lstrip rstrip"},
     "a\xE1\xA0\x8EXX\xE1\xA0\x8E",
     "a\xE1\xA0\x8E[XX]\xE1\xA0\x8E"}, // U+180E is none
    {{"XX"}, {"single_word"}, "aXX XX XXb .XX. XX", "aXX [XX] XXb .[XX]. [XX]"},
    {{"XX"}, {"single_word"}, "e\xCC\x81XX 1XX _XX \xC2\xB2XX", "e\xCC\x81XX 1XX _XX \xC2\xB2[XX]"},
    {{"XX"}, {"single_word"}, "XXXX XX", "XXXX [XX]"},
    {{"XX"}, {"single_word lstrip rstrip"}, "a XX b aXX", "a[XX]b aXX"},
    {{"aXX", "XX"}, {"single_word", ""}, "baXX XX", "baXX [XX]"}, // passed over as a whole
    {{"\xE6\xBC\xA2"}, {""}, "a\xE6\xBC\xA2\xE5\xAD\x97", "a[\xE6\xBC\xA2]\xE5\xAD\x97"},
    {{" XX"}, {""}, "a XX", "a[ XX]"},
};

static void added_tokens_are_found_first(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(added); i++) {
        char out[512];
        json_t *json = text_tokenizer();
        uint32_t first = text_next_id(json);
        for (size_t j = 0; j < 3 && added[i].content[j]; j++)
            (void)text_added(json, added[i].content[j], added[i].flags[j]);
        struct bnt_model *model = text_open(json);
        encode_added(model, first, added[i].text, out);
        if (strcmp(out, added[i].expected) != 0)
            fail_msg("'%s' becomes '%s', must become '%s'", added[i].text, out, added[i].expected);
        bnt_model_close(model);
        json_decref(json);
    }
}

// The text on each side of an added token is a text of its own: each gets its prefix space.
static void texts_between_added_tokens_are_apart(void **state)
{
    char out[512];
    json_t *json = text_tokenizer();
    uint32_t first = text_next_id(json);
    (void)state;
    (void)text_added(json, "<s>", "special");
    text_set(json, "pre_tokenizer",
             "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}");
    struct bnt_model *model = text_open(json);
    encode_added(model, first, "a b<s>c<s> d", out);
    assert_string_equal(out, " a b[<s>] c[<s>] d");
    bnt_model_close(model);
    json_decref(json);
}

// --- merging ---

// Merges the pair of the lowest rank, the leftmost of equals, until none is left: by its
// definition.
struct naive {
    struct {
        char left[32], right[32];
    } merges[64];
    size_t n_merges;
    char symbols[64][32];
    size_t n;
};

static bool naive_step(struct naive *s)
{
    for (size_t rank = 0; rank < s->n_merges; rank++) {
        for (size_t i = 0; i + 1 < s->n; i++) {
            if (strcmp(s->symbols[i], s->merges[rank].left) == 0 &&
                strcmp(s->symbols[i + 1], s->merges[rank].right) == 0) {
                size_t n = strlen(s->symbols[i]);
                (void)snprintf(s->symbols[i] + n, sizeof s->symbols[i] - n, "%s",
                               s->symbols[i + 1]);
                memmove(s->symbols[i + 1], s->symbols[i + 2],
                        (s->n - i - 2) * sizeof s->symbols[0]);
                s->n--;
                return true;
            }
        }
    }
    return false;
}

static void naive_encode(struct naive *s, const char *text)
{
    s->n = strlen(text);
    for (size_t i = 0; i < s->n; i++) {
        s->symbols[i][0] = text[i];
        s->symbols[i][1] = '\0';
    }
    while (naive_step(s))
        ;
}

// A symbol that is there already, or a byte.
static void random_symbol(const struct naive *s, uint64_t *random, char out[32])
{
    uint32_t i = test_random_below(random, (uint32_t)s->n_merges + 3);
    if (i < s->n_merges)
        (void)snprintf(out, 32, "%.15s%.15s", s->merges[i].left, s->merges[i].right);
    else
        (void)snprintf(out, 32, "%c", "abc"[i - s->n_merges]);
}

static bool known_merge(const struct naive *s, const char *left, const char *right)
{
    for (size_t i = 0; i < s->n_merges; i++) {
        if (strcmp(s->merges[i].left, left) == 0 && strcmp(s->merges[i].right, right) == 0)
            return true;
    }
    return false;
}

static void random_merges(struct naive *s, json_t *json, uint64_t *random)
{
    for (int i = 0; i < 30; i++) {
        char left[32], right[32];
        random_symbol(s, random, left);
        random_symbol(s, random, right);
        if (strlen(left) + strlen(right) > 15 || known_merge(s, left, right))
            continue;
        memcpy(s->merges[s->n_merges].left, left, sizeof left);
        memcpy(s->merges[s->n_merges].right, right, sizeof right);
        s->n_merges++;
        (void)text_merge(json, left, right, i % 2 == 0); // both spellings
    }
}

static void check_naive(const struct bnt_model *model, struct naive *s, uint64_t *random)
{
    char text[41] = "";
    size_t count, size = test_random_below(random, 40);
    for (size_t i = 0; i < size; i++)
        text[i] = "abc"[test_random_below(random, 3)];
    naive_encode(s, text);
    uint32_t *ids = text_encode(model, text, size, false, &count);
    assert_int_equal(count, s->n);
    for (size_t i = 0; i < count; i++) {
        size_t n;
        const char *bytes = bnt_token_text(model, ids[i], &n);
        assert_int_equal(n, strlen(s->symbols[i]));
        assert_memory_equal(bytes, s->symbols[i], n);
    }
    free(ids);
}

static void merging_follows_its_definition(void **state)
{
    uint64_t random = 1;
    (void)state;
    for (int round = 0; round < 25; round++) {
        struct naive *s = test_alloc(sizeof *s);
        json_t *json = text_tokenizer();
        random_merges(s, json, &random);
        struct bnt_model *model = text_open(json);
        for (int i = 0; i < 100; i++)
            check_naive(model, s, &random);
        bnt_model_close(model);
        json_decref(json);
        free(s);
    }
}

static void ignore_merges_takes_whole_pieces(void **state)
{
    (void)state;
    for (int ignore = 0; ignore < 2; ignore++) {
        char pieces[512];
        json_t *json = text_tokenizer();
        (void)text_merge(json, "a", "b", true);
        (void)text_token(json, "cab", 3); // no merge leads to it
        text_set_model(json, "ignore_merges", ignore ? "true" : "false");
        text_set(json, "pre_tokenizer",
                 "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}");
        struct bnt_model *model = text_open(json);
        encode_pieces(model, "cab.ab.cabc", pieces);
        assert_string_equal(pieces, ignore ? "cab|.|ab|.|c|ab|c" : "c|ab|.|ab|.|c|ab|c");
        bnt_model_close(model);
        json_decref(json);
    }
}

// A byte without a token must become the unknown token where the tokenizer names one.
static void missing_bytes_become_the_unknown_token(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        json_t *json = text_tokenizer();
        char pieces[512];
        json_t *model_json = json_object_get(json, "model"),
               *vocab = json_object_get(model_json, "vocab");
        assert_int_equal(json_object_del(vocab, "y"), 0);
        assert_int_equal(json_object_set_new(vocab, "<unk>", json_integer('y')), 0);
        if (with)
            text_set_model(json, "unk_token", "\"<unk>\"");
        struct bnt_model *model = text_open(json);
        encode_pieces(model, "xyz", pieces);
        assert_string_equal(pieces, with ? "x|<unk>|z" : "x|z");
        bnt_model_close(model);
        json_decref(json);
    }
}

// --- templates ---

static void check_ids(const struct bnt_model *model, bool special, const uint32_t *expected,
                      size_t n)
{
    size_t count;
    uint32_t *ids = text_encode(model, "ab", 2, special, &count);
    assert_int_equal(count, n);
    assert_memory_equal(ids, expected, n * sizeof *ids);
    free(ids);
}

static void templates_put_ids_around(void **state)
{
    static const char processor[] =
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_"
        "id\":0}},"
        "{\"SpecialToken\":{\"id\":\"<t>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":"
        "0}},"
        "{\"SpecialToken\":{\"id\":\"<e>\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{"
        "\"<s>\":{\"id\":\"<s>\",\"ids\":[256],\"tokens\":[\"<s>\"]},"
        "\"<t>\":{\"id\":\"<t>\",\"ids\":[7,8],\"tokens\":[\"x\",\"y\"]},"
        "\"<e>\":{\"id\":\"<e>\",\"ids\":[257],\"tokens\":[\"<e>\"]}}}";
    static const uint32_t with[] = {256, 7, 8, 'a', 'b', 257};
    char sequence[1024];
    (void)state;
    for (int in_sequence = 0; in_sequence < 2; in_sequence++) {
        json_t *json = text_tokenizer();
        (void)text_added(json, "<s>", "special");
        (void)text_added(json, "<e>", "special");
        (void)snprintf(sequence, sizeof sequence,
                       "{\"type\":\"Sequence\",\"processors\":[" BYTE_LEVEL ",%s]}", processor);
        text_set(json, "post_processor", in_sequence ? sequence : processor);
        struct bnt_model *model = text_open(json);
        check_ids(model, true, with, TEST_COUNT(with));
        check_ids(model, false, with + 3, 2);
        bnt_model_close(model);
        json_decref(json);
    }
}

// --- what is refused ---

struct refusal {
    const char *key, *value; // of the tokenizer; "model.x": of its model
    enum bnt_status status;
    const char *message;
};

#define NO  BNT_ERR_UNSUPPORTED
#define BAD BNT_ERR_FORMAT

static const struct refusal refusals[] = {
    {"model.type", "\"WordPiece\"", NO, "WordPiece"},
    {"model.type", "\"Unigram\"", NO, "Unigram"},
    {"model.type", "\"WordLevel\"", NO, "WordLevel"},
    {"model", "null", NO, "model type"},
    {"model.byte_fallback", "true", NO, "byte_fallback"},
    {"model.continuing_subword_prefix", "\"##\"", NO, "continuing_subword_prefix"},
    {"model.end_of_word_suffix", "\"< w>\"", NO, "end_of_word_suffix"}, // no byte is a space
    {"model.unk_token", "\"<missing>\"", BAD, "unk_token"},
    {"normalizer", "{\"type\":\"Nmt\"}", NO, "Nmt"},
    {"normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"StripAccents\"}]}", NO,
     "StripAccents"},
    {"pre_tokenizer", "null", NO, "pre-tokenizer"},
    {"pre_tokenizer", "{\"type\":\"Whitespace\"}", NO, "ByteLevel"},
    {"pre_tokenizer", "{\"type\":\"BertPreTokenizer\"}", NO, "BertPreTokenizer"},
    {"pre_tokenizer", "{\"type\":\"Digits\"}", NO, "ByteLevel"},
    {"pre_tokenizer",
     "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL ",{\"type\":\"Metaspace\"}]}", BAD,
     "two marks"},
    {"pre_tokenizer",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},"
     "\"behavior\":\"Sideways\"}," BYTE_LEVEL "]}",
     NO, "Sideways"},
    {"pre_tokenizer",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"behavior\":\"Isolated\"}"
     "," BYTE_LEVEL "]}",
     BAD, "no pattern"},
    {"pre_tokenizer",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},"
     "\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
     BAD, "does not compile"},
    {"pre_tokenizer",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\X"
     "\"},\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
     NO, "what stands at byte"},
    {"pre_tokenizer",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\",\"behavior\":\"x\"}"
     "," BYTE_LEVEL "]}",
     NO, "Punctuation behavior"},
    {"decoder", "{\"type\":\"WordPiece\"}", NO, "WordPiece"},
    {"decoder", "null", NO, "decoder"},
    {"post_processor", "{\"type\":\"BertProcessing\"}", BAD, "no token"},
    {"post_processor", "{\"type\":\"RobertaProcessing\",\"cls\":[\"a\",97],\"sep\":[\"b\",999]}",
     BAD, "no token"},
    {"post_processor", "{\"type\":\"OtherProcessing\"}", NO, "OtherProcessing"},
    {"normalizer", "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a*\"},\"content\":\"b\"}", NO,
     "can match nothing"},
    {"post_processor", "{\"type\":\"TemplateProcessing\",\"single\":[]}", BAD, "text once"},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},{\"Sequence\":{"
     "\"id\":\"A\"}}]}",
     BAD, "text once"},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{"
     "\"Sequence\":{\"id\":\"A\"}}]}",
     BAD, "does not define"},
    {"post_processor",
     "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{"
     "\"Sequence\":{\"id\":\"A\"}}],"
     "\"special_tokens\":{\"<s>\":{\"ids\":[999]}}}",
     BAD, "no token"},
    {"model.merges", "[\"a b c\"]", BAD, "merge 0"},
    {"model.merges", "[\"ab\"]", BAD, "merge 0"},
    {"model.merges", "[[\"a\"]]", BAD, "merge 0"},
    {"model.merges", "[[\"a\",\"b\"]]", BAD, "merge 0"}, // "ab" is no token
    {"model.merges", "[[\"a\",7]]", BAD, "merge 0"},
    {"model.merges", "[7]", BAD, "merge 0"},
    {"model.vocab", "{}", BAD, "no tokens"},
    {"model.vocab", "{\"a\":-1}", BAD, "is not in 0"},
    {"model.vocab", "{\"a\":1000}", BAD, "is not in 0"},
    {"model.vocab", "{\"a\":\"1\"}", BAD, "is not in 0"},
    {"model.vocab", "{\"a\":0,\"b\":0}", BAD, "the same id"},
    {"added_tokens", "[{\"id\":97,\"content\":\"q\"}]", BAD, "has the id of token"},
    {"added_tokens", "[{\"content\":\"q\"}]", BAD, "lacks its id or content"},
    {"added_tokens", "[{\"id\":256}]", BAD, "lacks its id or content"},
    {"added_tokens", "[{\"id\":256,\"content\":\"\"}]", BAD, "lacks its id or content"},
};

static enum bnt_status build_changed(const struct refusal *r, struct bnt_error *err)
{
    static const char prefix[] = "model.";
    struct bnt_buffer section = {0};
    json_t *json = text_tokenizer();
    bool in_model = strncmp(r->key, prefix, strlen(prefix)) == 0;
    if (in_model)
        text_set_model(json, r->key + strlen(prefix), r->value);
    else
        text_set(json, r->key, r->value);
    char *text = json_dumps(json, JSON_COMPACT);
    enum bnt_status status = text_build_from(text, 257, &section, err);
    free(text);
    json_decref(json);
    bnt_buffer_free(&section);
    return status;
}

static void what_is_not_understood_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(refusals); i++) {
        struct bnt_error err;
        enum bnt_status status = build_changed(&refusals[i], &err);
        if (status != refusals[i].status)
            fail_msg("%s = %s: status %d (%s)", refusals[i].key, refusals[i].value, (int)status,
                     err.message);
        if (!strstr(err.message, refusals[i].message) || !strstr(err.message, "tokenizer.json"))
            fail_msg("%s = %s: '%s' says nothing of '%s'", refusals[i].key, refusals[i].value,
                     err.message, refusals[i].message);
    }
}

static void not_json_is_refused(void **state)
{
    static const char *const texts[] = {"", "[]", "{", "\xFF"};
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(texts); i++) {
        struct bnt_buffer section = {0};
        struct bnt_error err;
        assert_int_equal(text_build_from(texts[i], 257, &section, &err), BNT_ERR_FORMAT);
        bnt_buffer_free(&section);
    }
}

static void merges_may_not_come_twice(void **state)
{
    struct bnt_buffer section = {0};
    struct bnt_error err;
    json_t *json = text_tokenizer();
    (void)state;
    (void)text_merge(json, "a", "b", true);
    (void)text_merge(json, "a", "b", false);
    assert_int_equal(text_build(json, &section, &err), BNT_ERR_FORMAT);
    assert_non_null(strstr(err.message, "the same pair"));
    bnt_buffer_free(&section);
    json_decref(json);
}

// The embedding has no row for them.
static void added_tokens_beyond_the_vocabulary_are_left_out(void **state)
{
    struct bnt_buffer section = {0};
    struct bnt_error err;
    json_t *json = text_tokenizer();
    (void)state;
    (void)text_added(json, "<s>", "special");
    char *text = json_dumps(json, JSON_COMPACT);
    assert_int_equal(text_build_from(text, 256, &section, &err), BNT_OK);
    assert_int_equal(((const struct bnt_tokenizer_record *)(const void *)section.data)->n_added, 0);
    assert_int_equal(((const struct bnt_tokenizer_record *)(const void *)section.data)->n_tokens,
                     256);
    free(text);
    bnt_buffer_free(&section);
    json_decref(json);
}

// --- time ---

enum { LONG = 200000, PARTS = 16, ROUNDS = 3 };

// The processor's time, not the clock's: other processes do not count.
static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// Of the fastest of a few rounds that encode so many texts of that size one after the other.
static double encoding_time(const struct bnt_model *model, const char *text, size_t size,
                            size_t texts)
{
    double least = HUGE_VAL;
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds();
        for (size_t i = 0; i < texts; i++) {
            size_t count;
            uint32_t *ids = text_encode(model, text, size, false, &count);
            assert_true(count > 0);
            free(ids);
        }
        double took = seconds() - start;
        least = took < least ? took : least;
    }
    return least;
}

// The whole text takes as long as as many bytes in parts, or nearly so: where time grows with the
// square, it would take PARTS times as long. The parts are beginnings of the text, but end as it
// does.
static void check_time(const struct bnt_model *model, const char *text, size_t size,
                       const char *what)
{
    size_t part = size / PARTS;
    char *copy = test_alloc(part);
    memcpy(copy, text, part);
    copy[part - 1] = text[size - 1];
    double parts = encoding_time(model, copy, part, PARTS);
    double whole = encoding_time(model, text, size, 1);
    free(copy);
    if (whole > PARTS / 3.0 * parts)
        fail_msg("%s: %zu bytes take %.4f s at once and %.4f s in %d parts", what, size, whole,
                 parts, PARTS);
}

static void long_pieces_take_no_time(void **state)
{
    json_t *json = text_tokenizer();
    char *text = test_alloc(LONG), symbol[65] = "a";
    (void)state;
    for (size_t size = 1; size < 64; size *= 2) {
        (void)text_merge(json, symbol, symbol, true);
        memset(symbol, 'a', 2 * size);
    }
    (void)text_merge(json, "a", "b", true);
    (void)text_merge(json, "b", "a", true);
    struct bnt_model *model = text_open(json);
    memset(text, 'a', LONG);
    check_time(model, text, LONG, "equal bytes");
    for (size_t i = 0; i < LONG; i += 2)
        text[i] = 'b';
    check_time(model, text, LONG, "two bytes in turn");
    memset(text, ' ', LONG);
    check_time(model, text, LONG, "bytes that never merge");
    bnt_model_close(model);
    json_decref(json);
    free(text);
}

static void long_texts_take_no_time(void **state)
{
    static const char *const contents[] = {"a ", "  ", "\n\n", " \n", "''", "a1", "XX", "X ", "x."};
    json_t *json = text_tokenizer();
    char *text = test_alloc(LONG + 1);
    (void)state;
    (void)text_added(json, "XX", "single_word lstrip rstrip");
    (void)text_added(json, "X", "single_word");
    text_set(json, "pre_tokenizer",
             "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}");
    struct bnt_model *model = text_open(json);
    for (size_t i = 0; i < TEST_COUNT(contents); i++) {
        for (size_t at = 0; at < LONG; at += 2)
            memcpy(text + at, contents[i], 2);
        text[LONG] = '!'; // what comes last decides about the white space before it
        check_time(model, text, LONG + 1, contents[i]);
    }
    bnt_model_close(model);
    json_decref(json);
    free(text);
}

// --- errors and edges ---

static void ill_formed_texts_are_refused_at_their_offset(void **state)
{
    static const struct {
        const char *text;
        size_t size;
        const char *offset;
    } all[] = {{"\xFF", 1, "byte 0"},         {"abc\x80", 4, "byte 3"},
               {"\xC3\xA9\xC3", 3, "byte 2"}, {"ab\xED\xA0\x80", 5, "byte 2"},
               {"a\xC0\x80", 3, "byte 1"},    {"\xF4\x90\x80\x80", 4, "byte 0"},
               {"x\xE6\xBC", 3, "byte 1"}};
    json_t *json = text_tokenizer();
    struct bnt_model *model = text_open(json);
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        struct bnt_error err;
        uint32_t *ids = NULL;
        size_t count = 1;
        assert_int_equal(
            bnt_tokenize(model, all[i].text, all[i].size, BNT_TOKENIZE_SPECIAL, &ids, &count, &err),
            BNT_ERR_TEXT);
        assert_non_null(strstr(err.message, all[i].offset));
        assert_int_equal(
            bnt_tokenize(model, all[i].text, all[i].size, BNT_TOKENIZE_SPECIAL, &ids, &count, NULL),
            BNT_ERR_TEXT);
        assert_int_equal(count, 0);
    }
    bnt_model_close(model);
    json_decref(json);
}

static void every_character_makes_the_round_trip(void **state)
{
    json_t *json = text_tokenizer();
    struct bnt_model *model = text_open(json);
    uint8_t *text = test_alloc(3 * 0x110000);
    size_t size = 0, count, back;
    struct bnt_error err;
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code += code < 0x3000 ? 1 : 61) {
        if (code < 0xD800 || code > 0xDFFF)
            size += (size_t)bnt_utf8_put(code, text + size);
    }
    uint32_t *ids = text_encode(model, (char *)text, size, true, &count);
    assert_int_equal(count, size); // one token a byte, U+0000 among them
    char *again = test_alloc(size);
    assert_int_equal(bnt_detokenize(model, ids, count, again, size, &back, &err), BNT_OK);
    assert_int_equal(back, size);
    assert_memory_equal(again, text, size);
    free(ids);
    free(again);
    free(text);
    bnt_model_close(model);
    json_decref(json);
}

static void empty_texts_have_no_tokens(void **state)
{
    json_t *json = text_tokenizer();
    struct bnt_model *model = text_open(json);
    size_t count = 1, size = 1;
    (void)state;
    free(text_encode(model, "", 0, true, &count));
    assert_int_equal(count, 0);
    assert_int_equal(bnt_detokenize(model, NULL, 0, NULL, 0, &size, NULL), BNT_OK);
    assert_int_equal(size, 0);
    bnt_model_close(model);
    json_decref(json);
}

static void detokenizing_replaces_what_is_ill_formed(void **state)
{
    static const uint32_t ids[] = {'a', 0xF1, 0x80, 0x80, 0xE1, 0x80, 0xC2,
                                   'b', 0x80, 'c',  0xC3, 0xA9, 0xE6, 0xBC};
    static const char expected[] = "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                                   "b\xEF\xBF\xBD"
                                   "c\xC3\xA9\xEF\xBF\xBD";
    json_t *json = text_tokenizer();
    struct bnt_model *model = text_open(json);
    struct test_guarded out = test_guard(sizeof expected - 1);
    struct bnt_error err;
    size_t size;
    (void)state;
    for (size_t room = 0; room < sizeof expected - 1; room++) {
        assert_int_equal(bnt_detokenize(model, ids, TEST_COUNT(ids),
                                        (char *)out.data + sizeof expected - 1 - room, room, &size,
                                        &err),
                         BNT_ERR_ARGUMENT);
        assert_int_equal(size, sizeof expected - 1); // how much it needs
    }
    assert_int_equal(bnt_detokenize(model, ids, TEST_COUNT(ids), (char *)out.data,
                                    sizeof expected - 1, &size, &err),
                     BNT_OK);
    assert_int_equal(size, sizeof expected - 1);
    assert_memory_equal(out.data, expected, size);
    test_unguard(&out);
    bnt_model_close(model);
    json_decref(json);
}

// A vocabulary larger than the tokenizer: the ids beyond have no text.
static void tokens_without_text(void **state)
{
    static const char *const names[] = {"wide.bnt", NULL};
    json_t *json = text_tokenizer();
    struct bnt_buffer section = {0};
    struct bnt_model *model;
    struct bnt_error err;
    const uint32_t ids[] = {'a', 270, 'b'}, beyond[] = {300};
    char *dir = test_make_dir(), *path = test_join(dir, names[0]), text[8];
    size_t size;
    (void)state;
    assert_int_equal(text_build(json, &section, &err), BNT_OK);
    struct bnt_hyper hyper = tiny_hyper(300);
    tiny_write(path, &hyper, section.data, section.size, 1);
    assert_int_equal(bnt_model_open(path, NULL, &model, &err), BNT_OK);
    assert_non_null(bnt_token_text(model, 270, &size));
    assert_int_equal(size, 0);
    assert_null(bnt_token_text(model, 300, &size));
    assert_int_equal(bnt_detokenize(model, ids, 3, text, sizeof text, &size, &err), BNT_OK);
    assert_int_equal(size, 2);
    assert_memory_equal(text, "ab", 2);
    assert_int_equal(bnt_detokenize(model, beyond, 1, text, sizeof text, &size, &err),
                     BNT_ERR_ARGUMENT);
    bnt_model_close(model);
    bnt_buffer_free(&section);
    json_decref(json);
    free(path);
    test_remove_dir(dir, names);
}

static void a_model_without_tokenizer_says_so(void **state)
{
    static const char *const names[] = {"bare.bnt", NULL};
    char *dir = test_make_dir(), *path = test_join(dir, names[0]), text[8];
    struct bnt_hyper hyper = tiny_hyper(3);
    struct bnt_model *model;
    struct bnt_error err;
    const uint32_t id = 1;
    uint32_t *ids;
    size_t count, size;
    (void)state;
    tiny_write(path, &hyper, NULL, 0, 1);
    assert_int_equal(bnt_model_open(path, NULL, &model, &err), BNT_OK);
    assert_int_equal(bnt_model_info(model)->has_tokenizer, false);
    assert_int_equal(bnt_tokenize(model, "a", 1, BNT_TOKENIZE_SPECIAL, &ids, &count, &err),
                     BNT_ERR_NO_TOKENIZER);
    assert_int_equal(bnt_detokenize(model, &id, 1, text, sizeof text, &size, &err),
                     BNT_ERR_NO_TOKENIZER);
    assert_null(bnt_token_text(model, 1, &size));
    bnt_model_close(model);
    free(path);
    test_remove_dir(dir, names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_behaviors),
        cmocka_unit_test(split_contiguous_inverted),
        cmocka_unit_test(split_with_empty_matches),
        cmocka_unit_test(digits_and_punctuation),
        cmocka_unit_test(several_steps),
        cmocka_unit_test(byte_level_alone),
        cmocka_unit_test(patterns_keep_their_meaning),
        cmocka_unit_test(words_are_those_of_oniguruma),
        cmocka_unit_test(words_hold_all_that_is_alphabetic),
        cmocka_unit_test(brackets_are_those_of_oniguruma),
        cmocka_unit_test(other_syntax_is_that_of_oniguruma),
        cmocka_unit_test(sets_in_sets_are_those_of_oniguruma),
        cmocka_unit_test(properties_are_of_one_version_of_unicode),
        cmocka_unit_test(what_has_no_equivalent_is_refused),
        cmocka_unit_test(quoted_texts_match_only_themselves),
        cmocka_unit_test(added_tokens_are_found_first),
        cmocka_unit_test(texts_between_added_tokens_are_apart),
        cmocka_unit_test(merging_follows_its_definition),
        cmocka_unit_test(ignore_merges_takes_whole_pieces),
        cmocka_unit_test(missing_bytes_become_the_unknown_token),
        cmocka_unit_test(templates_put_ids_around),
        cmocka_unit_test(what_is_not_understood_is_refused_by_name),
        cmocka_unit_test(not_json_is_refused),
        cmocka_unit_test(merges_may_not_come_twice),
        cmocka_unit_test(added_tokens_beyond_the_vocabulary_are_left_out),
        cmocka_unit_test(long_pieces_take_no_time),
        cmocka_unit_test(long_texts_take_no_time),
        cmocka_unit_test(ill_formed_texts_are_refused_at_their_offset),
        cmocka_unit_test(every_character_makes_the_round_trip),
        cmocka_unit_test(empty_texts_have_no_tokens),
        cmocka_unit_test(detokenizing_replaces_what_is_ill_formed),
        cmocka_unit_test(tokens_without_text),
        cmocka_unit_test(a_model_without_tokenizer_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
