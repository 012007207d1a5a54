// SPDX-License-Identifier: MIT
// Every status must have a text, error lines must be safe to print on a terminal and never outgrow
// their buffer: both hold what untrusted files say.
#include "formats/status.h"
#include "runtime/bnt.h"
#include "tests/unit/support.h"

static void every_status_has_the_text_of_the_list(void **state)
{
    static const struct {
        enum bnt_status status;
        const char *text;
    } all[] = {
#define ROW(name, value, text) {name, text},
        BNT_STATUS_LIST(ROW)
#undef ROW
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        assert_int_equal((size_t)all[i].status, i); // the codes are 0, 1, 2, …
        assert_string_equal(bnt_status_text(all[i].status), all[i].text);
        assert_true(strlen(all[i].text) > 3);
    }
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(all[i].text, all[j].text);
    }
}

static void an_unknown_status_has_a_text_too(void **state)
{
    (void)state;
    assert_non_null(bnt_status_text((enum bnt_status)99));
}

static void fail_returns_the_status_with_and_without_a_record(void **state)
{
    struct bnt_error err;
    (void)state;
    assert_int_equal(bnt_fail(NULL, BNT_ERR_IO, "%d", 1), BNT_ERR_IO);
    assert_int_equal(bnt_fail(&err, BNT_ERR_CONTEXT, "%d of %s", 7, "nine"), BNT_ERR_CONTEXT);
    assert_int_equal(err.status, BNT_ERR_CONTEXT);
    assert_string_equal(err.message, "7 of nine");
    bnt_fail_prefix(NULL, "x");
    bnt_fail_prefix(&err, "file.bnt");
    assert_int_equal(err.status, BNT_ERR_CONTEXT);
    assert_string_equal(err.message, "file.bnt: 7 of nine");
}

// Names in files may hold escape sequences.
static void control_characters_do_not_reach_a_terminal(void **state)
{
    struct bnt_error err;
    char all[256];
    (void)state;
    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = '\0';
    (void)bnt_fail(&err, BNT_ERR_FORMAT, "%s", all);
    assert_int_equal(strlen(err.message), 255);
    for (size_t i = 0; i < 255; i++) {
        unsigned char c = (unsigned char)all[i];
        char expected = c < 0x20 || c == 0x7f ? '?' : all[i];
        assert_int_equal(err.message[i], expected);
    }
}

// So do the controls from U+0080 to U+009F, two bytes each; their neighbours are text.
static void c1_controls_do_not_reach_a_terminal(void **state)
{
    struct bnt_error err;
    (void)state;
    (void)bnt_fail(&err, BNT_ERR_FORMAT, "%s",
                   "a\xC2\x80 \xC2\x9B"
                   "31m\xC2\x9F\xC2\xA0\xC3\x80\xC2");
    assert_string_equal(err.message, "a?? ??"
                                     "31m??\xC2\xA0\xC3\x80\xC2");
}

static void long_messages_are_cut(void **state)
{
    struct {
        struct bnt_error err;
        char after[64];
    } guarded;
    char text[2 * BNT_ERROR_SIZE];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memset(&guarded, 7, sizeof guarded);
    (void)bnt_fail(&guarded.err, BNT_ERR_FORMAT, "%s", text);
    assert_int_equal(strlen(guarded.err.message), BNT_ERROR_SIZE - 1);
    bnt_fail_prefix(&guarded.err, text);
    assert_int_equal(strlen(guarded.err.message), BNT_ERROR_SIZE - 1);
    for (size_t i = 0; i < sizeof guarded.after; i++)
        assert_int_equal(guarded.after[i], 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_the_text_of_the_list),
        cmocka_unit_test(an_unknown_status_has_a_text_too),
        cmocka_unit_test(fail_returns_the_status_with_and_without_a_record),
        cmocka_unit_test(control_characters_do_not_reach_a_terminal),
        cmocka_unit_test(c1_controls_do_not_reach_a_terminal),
        cmocka_unit_test(long_messages_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
