// SPDX-License-Identifier: MIT
// A chat template is a program that we do not run; this compares the texts that we put around what
// is said with what Jinja makes of the same template (tests/data/chat/make.py).
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/json.h"
#include "formats/writer.h"
#include "pack/chat_template.h"
#include "pack/tokenizer_json.h"
#include "runtime/bnt.h"

enum { VOCAB = 300, TEXT = 8192 };

static void fail_on_report(void *context, const char *rule, const char *message)
{
    (void)context;
    fail_msg("%s: %s", rule, message);
}

// A byte-level tokenizer of 256 bytes and the three tokens.
static void build_tokenizer(const json_t *entry, struct bnt_buffer *out)
{
    json_t *vocab = json_object(), *added = json_array();
    for (int i = 0, next = 256; i < 256; i++) {
        int code = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174 ? i : next++;
        char text[3] = {(char)(code < 128 ? code : 0xC0 | code >> 6),
                        (char)(code < 128 ? 0 : 0x80 | (code & 63)), 0};
        assert_int_equal(json_object_set_new(vocab, text, json_integer(i)), 0);
    }
    const char *const special[] = {"bos", "eos", "stop"};
    for (int i = 0; i < 3; i++) {
        const char *text = bnt_json_text(entry, special[i], "");
        bool repeated = i == 2 && strcmp(text, bnt_json_text(entry, "eos", "")) == 0;
        if (*text && !repeated)
            assert_int_equal(
                json_array_append_new(added, json_pack("{s:i, s:s, s:b}", "id", 256 + i, "content",
                                                       text, "special", 1)),
                0);
    }
    json_t *root = json_pack("{s:o, s:{s:s, s:o, s:[]}, s:{s:s, s:b, s:b}, s:{s:s}}",
                             "added_tokens", added, "model", "type", "BPE", "vocab", vocab,
                             "merges", "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0,
                             "use_regex", 0, "decoder", "type", "ByteLevel");
    char *text = json_dumps(root, 0);
    struct bnt_error err;
    assert_int_equal(bnt_tokenizer_build(text, strlen(text), NULL, 0, VOCAB, out, &err), BNT_OK);
    free(text);
    json_decref(root);
}

// Returns whether the template is known.
static bool build_chat(const json_t *entry, const struct bnt_buffer *tokenizer,
                       struct bnt_chat_built *out)
{
    struct bnt_tokenizer_view view;
    struct bnt_report report = {.found = fail_on_report};
    const char *text = bnt_json_text(entry, "template", NULL);
    assert_true(bnt_tokenizer_view_open(&view, tokenizer->data, tokenizer->size, VOCAB, &report));
    const struct bnt_chat_source source = {.text = text,
                                           .size = strlen(text),
                                           .bos = bnt_json_text(entry, "bos", NULL),
                                           .eos = bnt_json_text(entry, "eos", NULL),
                                           .tokenizer = &view};
    return bnt_chat_build(&source, out);
}

static void write_model(const char *path, const struct bnt_buffer *tokenizer,
                        const struct bnt_chat_built *chat)
{
    const struct bnt_hyper hyper = {.n_layers = 1,
                                    .hidden_size = 2,
                                    .ffn_size = 1,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_dim = 2,
                                    .vocab_size = VOCAB,
                                    .max_context = 8,
                                    .activation = BNT_ACTIVATION_SILU,
                                    .flags = BNT_HYPER_TIED,
                                    .norm_eps = 1e-5f,
                                    .rope_theta = 10000,
                                    .activation_bits = 8,
                                    .bos_id = -1,
                                    .top_p = 1};
    struct bnt_output out;
    struct bnt_writer w;
    struct bnt_error err;
    assert_int_equal(bnt_output_open_random(&out, path, &err), BNT_OK);
    assert_int_equal(
        bnt_writer_open(&w, &out, &hyper, false,
                        (struct bnt_writer_section){tokenizer->data, tokenizer->size},
                        (struct bnt_writer_section){chat->bytes.data, chat->bytes.size},
                        chat->section, NULL, &err),
        BNT_OK);
    for (uint64_t i = 0; i < w.n_tensors; i++)
        w.tensors[i].scale = w.tensors[i].dtype == BNT_TERNARY ? 1.0f : 0.0f;
    assert_int_equal(bnt_writer_finish(&w, "{}", 2, &err), BNT_OK);
    assert_int_equal(bnt_output_commit(&out, &err), BNT_OK);
    bnt_writer_close(&w);
}

static void check_conversation(const struct bnt_model *model, const json_t *conversation)
{
    char text[TEXT + 1];
    size_t used = 0, i;
    json_t *turn;
    struct bnt_error err;
    const json_t *turns = json_object_get(conversation, "turns");
    const char *system = bnt_json_text(conversation, "system", "");
    const char *wanted = bnt_json_text(conversation, "text", NULL);
    json_array_foreach(turns, i, turn)
    {
        const char *user = json_string_value(json_array_get(turn, 0));
        const char *answer = json_string_value(json_array_get(turn, 1));
        size_t size;
        enum bnt_status status = bnt_chat_turn(model, i == 0, *system ? system : NULL, user,
                                               strlen(user), text + used, TEXT - used, &size, &err);
        if (!wanted) { // the template refuses this system text
            assert_int_equal(status, BNT_ERR_UNSUPPORTED);
            assert_non_null(strstr(err.message, "system text"));
            return;
        }
        assert_int_equal(status, BNT_OK);
        used += size;
        if (i + 1 < json_array_size(turns)) { // the last answer is still to come
            answer = bnt_chat_answer(model, answer, strlen(answer), &size);
            memcpy(text + used, answer, size);
            used += size;
        }
    }
    text[used] = '\0';
    assert_string_equal(text, wanted);
}

static void check_stop(const struct bnt_model *model, const json_t *entry)
{
    size_t count, size;
    const uint32_t *ids = bnt_chat_stop_ids(model, &count);
    assert_int_equal(count, 1);
    const char *text = bnt_token_text(model, ids[0], &size);
    assert_int_equal(size, strlen(bnt_json_text(entry, "stop", "")));
    assert_memory_equal(text, bnt_json_text(entry, "stop", ""), size);
}

static void check_template(const json_t *entry)
{
    char path[] = "/tmp/bnt-test-chat-XXXXXX";
    struct bnt_buffer tokenizer = {0};
    struct bnt_chat_built chat;
    struct bnt_model *model;
    struct bnt_error err;
    size_t i, size;
    json_t *conversation;
    const char *refused = bnt_json_text(entry, "refused", NULL);
    bool known = !refused;
    assert_true(close(mkstemp(path)) == 0);
    build_tokenizer(entry, &tokenizer);
    assert_int_equal(build_chat(entry, &tokenizer, &chat), known);
    if (known) {
        struct bnt_range name;
        memcpy(&name, chat.bytes.data + offsetof(struct bnt_chat_record, text), sizeof name);
        assert_memory_equal(chat.bytes.data + sizeof(struct bnt_chat_record) + name.offset,
                            bnt_json_text(entry, "name", ""), name.size);
    } else {
        assert_non_null(strstr(chat.why, refused));
        bnt_buffer_free(&chat.bytes);
    }
    write_model(path, &tokenizer, &chat);
    assert_int_equal(bnt_model_open(path, NULL, &model, &err), BNT_OK);
    if (known) {
        check_stop(model, entry);
        json_array_foreach(json_object_get(entry, "conversations"), i, conversation)
            check_conversation(model, conversation);
    } else {
        assert_int_equal(bnt_chat_turn(model, true, NULL, "x", 1, NULL, 0, &size, &err),
                         BNT_ERR_UNSUPPORTED);
    }
    bnt_model_close(model);
    bnt_buffer_free(&tokenizer);
    bnt_buffer_free(&chat.bytes);
    (void)unlink(path);
}

static void test_templates(void **state)
{
    (void)state;
    char *text;
    size_t size, i;
    bool missing;
    json_t *json, *entry;
    struct bnt_error err;
    assert_int_equal(
        bnt_read_file(BNT_TEST_DATA "/chat/templates.json", 1 << 20, &text, &size, &missing, &err),
        BNT_OK);
    assert_int_equal(bnt_json_parse(text, size, "templates.json", &json, &err), BNT_OK);
    assert_true(json_array_size(json_object_get(json, "templates")) >= 40);
    json_array_foreach(json_object_get(json, "templates"), i, entry) check_template(entry);
    json_decref(json);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_templates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
