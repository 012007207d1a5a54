// SPDX-License-Identifier: MIT
// No damage may pass: of the smallest valid file every flipped bit, every truncation and every
// appended byte must be reported by bnt_verify_file. Zero padding, which makes up most of the file,
// is sampled; the header page, the sections and all their bytes are not.
#include "formats/view.h"
#include "tests/unit/tiny_model.h"
#include "verify/verify.h"

enum {
    PADDING_STEP = TEST_SANITIZED ? 997 : 61, // odd, so that every bit of a byte comes up
    STEP = TEST_TSAN ? 7 : 1,                 // elsewhere, and of truncations
};

struct sample {
    uint8_t *bytes; // page-aligned
    size_t size;
};

static int make_sample(void **state)
{
    static struct sample sample;
    static const char *const names[] = {"smallest.bnt", NULL};
    char *dir = test_make_dir(), *path = test_join(dir, names[0]);
    struct bnt_hyper hyper = tiny_hyper(1);
    tiny_write(path, &hyper, NULL, 0, 1);
    char *text = test_read_file(path, &sample.size);
    sample.bytes = aligned_alloc(BNT_PAGE, bnt_round_up(sample.size, BNT_PAGE));
    memcpy(sample.bytes, text, sample.size);
    free(text);
    free(path);
    test_remove_dir(dir, names);
    *state = &sample;
    return 0;
}

static int free_sample(void **state)
{
    free(((struct sample *)*state)->bytes);
    return 0;
}

// How many rules are broken.
static uint64_t verify(const uint8_t *bytes, size_t size)
{
    struct bnt_map map = {.data = bytes, .size = size};
    struct bnt_view view;
    struct findings findings = {0};
    bool usable = bnt_verify_file(&map, &view, 1, &findings);
    uint64_t total = findings.total;
    assert_true(usable || total > 0); // what cannot be used must be told why
    bnt_findings_free(&findings);
    return total;
}

static void the_sample_is_valid(void **state)
{
    const struct sample *s = *state;
    assert_int_equal(verify(s->bytes, s->size), 0);
    assert_true(s->size < 7 * BNT_PAGE);
}

static void check_bit(const struct sample *s, size_t bit)
{
    s->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    if (verify(s->bytes, s->size) == 0)
        fail_msg("offset %zu: bit %zu may be flipped unnoticed", bit / 8, bit % 8);
    s->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
}

// Whether an offset is neither in the header page nor in a section.
static bool is_padding(const struct bnt_header *header, size_t offset)
{
    for (uint32_t i = 0; i < header->section_count; i++) {
        const struct bnt_section_record *r = &header->sections[i];
        if (offset >= r->offset && offset < r->offset + r->size)
            return false;
    }
    return offset >= BNT_PAGE;
}

static void every_flipped_bit_is_reported(void **state)
{
    const struct sample *s = *state;
    struct bnt_header header;
    size_t padding = 0, others = 0;
    memcpy(&header, s->bytes, sizeof header);
    for (size_t bit = 0; bit < 8 * s->size; bit++) {
        if (is_padding(&header, bit / 8) ? padding++ % PADDING_STEP == 0 : others++ % STEP == 0)
            check_bit(s, bit);
    }
    assert_int_equal(verify(s->bytes, s->size), 0); // all of it was put back
}

// Whether a rule is among the broken ones.
static bool reports(const struct findings *findings, const char *rule)
{
    for (size_t i = 0; i < findings->count; i++) {
        if (strcmp(findings->items[i].rule, rule) == 0)
            return true;
    }
    return false;
}

// Each checksum must notice by itself: no other check may be what saved the day.
static void both_checksums_notice(void **state)
{
    const struct sample *s = *state;
    struct bnt_header header;
    memcpy(&header, s->bytes, sizeof header);
    for (uint32_t i = 0; i < header.section_count; i++) {
        size_t offset = (size_t)header.sections[i].offset + 1;
        struct bnt_map map = {.data = s->bytes, .size = s->size};
        struct bnt_view view;
        struct findings findings = {0};
        s->bytes[offset] ^= 1;
        if (bnt_verify_file(&map, &view, 1, &findings)) {
            assert_true(reports(&findings, "R9"));
            assert_true(reports(&findings, "R10"));
        }
        s->bytes[offset] ^= 1;
        bnt_findings_free(&findings);
    }
}

// The bytes between sections are in no section's CRC.
static void padding_is_checked_and_in_the_digest(void **state)
{
    const struct sample *s = *state;
    struct bnt_header header;
    memcpy(&header, s->bytes, sizeof header);
    for (uint32_t i = 0; i + 1 < header.section_count; i++) {
        size_t offset = (size_t)(header.sections[i].offset + header.sections[i].size);
        struct bnt_map map = {.data = s->bytes, .size = s->size};
        struct bnt_view view;
        struct findings findings = {0};
        s->bytes[offset] ^= 0x80;
        assert_true(bnt_verify_file(&map, &view, 1, &findings));
        assert_true(reports(&findings, "R8"));
        assert_true(reports(&findings, "R10"));
        s->bytes[offset] ^= 0x80;
        bnt_findings_free(&findings);
    }
}

// Each in a buffer of just that size, so that a sanitizer sees reading beyond it.
static void every_truncation_is_reported(void **state)
{
    const struct sample *s = *state;
    for (size_t size = 0; size < s->size; size += STEP) {
        uint8_t *copy = malloc(size ? size : 1);
        assert_non_null(copy);
        memcpy(copy, s->bytes, size);
        if (verify(copy, size) == 0)
            fail_msg("a file cut to %zu bytes passes", size);
        free(copy);
    }
}

static void appended_bytes_are_reported(void **state)
{
    static const size_t counts[] = {1, 2, 3, 4, 7, 8, 511, 4095, 4096, 4097, 8192};
    const struct sample *s = *state;
    for (size_t i = 0; i < TEST_COUNT(counts); i++) {
        for (int value = 0; value < 256; value += 51) {
            uint8_t *copy = malloc(s->size + counts[i]);
            assert_non_null(copy);
            memcpy(copy, s->bytes, s->size);
            memset(copy + s->size, value, counts[i]);
            assert_true(verify(copy, s->size + counts[i]) > 0);
            free(copy);
        }
    }
}

// A whole page lost or doubled, as block devices and copies do it.
static void lost_and_doubled_pages_are_reported(void **state)
{
    const struct sample *s = *state;
    for (size_t at = 0; at < s->size; at += BNT_PAGE) {
        size_t page = s->size - at < BNT_PAGE ? s->size - at : BNT_PAGE;
        uint8_t *copy = malloc(s->size + page);
        assert_non_null(copy);
        memcpy(copy, s->bytes, at);
        memcpy(copy + at, s->bytes + at + page, s->size - at - page);
        assert_true(verify(copy, s->size - page) > 0);
        memcpy(copy, s->bytes, at + page);
        memcpy(copy + at + page, s->bytes + at, s->size - at);
        assert_true(verify(copy, s->size + page) > 0);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sample_is_valid),
        cmocka_unit_test(every_flipped_bit_is_reported),
        cmocka_unit_test(both_checksums_notice),
        cmocka_unit_test(padding_is_checked_and_in_the_digest),
        cmocka_unit_test(every_truncation_is_reported),
        cmocka_unit_test(appended_bytes_are_reported),
        cmocka_unit_test(lost_and_doubled_pages_are_reported),
    };
    return cmocka_run_group_tests(tests, make_sample, free_sample);
}
