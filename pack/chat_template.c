// SPDX-License-Identifier: MIT
#include "pack/chat_template.h"

#include <string.h>

#include "formats/layout.h"

// In the texts below, what stands for the checkpoint's own tokens.
#define BOS "\001"
#define EOS "\002"

// A known template: what its text must hold (without white space, with ' for every quote), and what
// it means.
static const struct known {
    const char *marks[4];
    const char *stop; // text of the token that ends an answer
    uint32_t flags;
    const char
        *text[BNT_CHAT_TEXTS]; // BNT_CHAT_BEGIN is used only where the template names bos_token
} known[] = {
    {{"|capitalize", "message['content']|trim+'<|eot_id|>'", "'Assistant:'"},
     "<|eot_id|>",
     BNT_CHAT_TRIM,
     {"bitnet", BOS, "System: ", "<|eot_id|>", "User: ", "<|eot_id|>", "Assistant: ", "<|eot_id|>",
      ""}},
    {{"'<|start_header_id|>'+message['role']+'<|end_header_id|>\\n\\n'+message['content']|trim+"
      "'<|eot_id|>'",
      "'<|start_header_id|>assistant<|end_header_id|>\\n\\n'"},
     "<|eot_id|>",
     BNT_CHAT_TRIM,
     {"llama3", BOS, "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>",
      "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>",
      "<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", ""}},
    {{"'<|im_start|>'+message['role']+'\\n'+message['content']+'<|im_end|>",
      "'<|im_start|>assistant\\n'"},
     "<|im_end|>",
     0,
     {"chatml", BOS, "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n", "<|im_end|>\n",
      "<|im_start|>assistant\n", "<|im_end|>\n", ""}},
    {{"'<|system|>\\n'+message['content']+'\\n'", "'<|user|>\\n'+message['content']+'\\n'",
      "'<|assistant|>\\n'+message['content']+eos_token+'\\n'"},
     EOS,
     0,
     {"falcon", BOS, "<|system|>\n", "\n", "<|user|>\n", "\n", "<|assistant|>\n", EOS "\n", ""}},
};
enum { KNOWN = sizeof known / sizeof known[0], MARKS = 4 };

// Puts `by` wherever `what` stands; both zero-terminated.
static void replace_all(const char *text, const char *what, const char *by, struct bnt_buffer *out)
{
    for (const char *next; (next = strstr(text, what)) != NULL; text = next + strlen(what)) {
        bnt_buffer_put(out, text, (size_t)(next - text));
        bnt_buffer_put(out, by, strlen(by));
    }
    bnt_buffer_put(out, text, strlen(text) + 1);
}

// Spelling that changes nothing: white space, kinds of quotes, message.role for message['role'],
// parentheses.
static bool simplify(const char *text, size_t size, struct bnt_buffer *out)
{
    struct bnt_buffer plain = {0}, roles = {0};
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\0' || strchr(" \t\r\n()", text[i]))
            continue;
        bnt_buffer_put(&plain, text[i] == '"' ? "'" : &text[i], 1);
    }
    bnt_buffer_put(&plain, "", 1);
    if (!plain.failed)
        replace_all((const char *)plain.data, "message.role", "message['role']", &roles);
    if (!plain.failed && !roles.failed)
        replace_all((const char *)roles.data, "message.content", "message['content']", out);
    bool ok = !plain.failed && !roles.failed && !out->failed;
    bnt_buffer_free(&plain);
    bnt_buffer_free(&roles);
    return ok;
}

static const struct known *recognise(const char *simple)
{
    // Llama 3.1 and later write the date into every conversation: another template, though it looks
    // the same.
    if (strstr(simple, "date_string") || strstr(simple, "CuttingKnowledge"))
        return NULL;
    for (size_t i = 0; i < KNOWN; i++) {
        bool all = true;
        for (size_t j = 0; j < MARKS && known[i].marks[j]; j++)
            all = all && strstr(simple, known[i].marks[j]);
        if (all)
            return &known[i];
    }
    return NULL;
}

// The system text that a ChatML template writes itself when none is given:
// '<|im_start|>system\nTEXT<|im_end|>' inside one literal. Its \n are unescaped.
static void put_default_system(const char *text, struct bnt_buffer *out)
{
    static const char start[] = "<|im_start|>system\\n";
    for (const char *at = text; (at = strstr(at, start)) != NULL;) {
        at += sizeof start - 1;
        const char *end = strstr(at, "<|im_end|>");
        size_t size = end ? (size_t)(end - at) : 0;
        if (size == 0 || memchr(at, '\'', size) || memchr(at, '"', size) || memchr(at, '{', size))
            continue;
        for (size_t i = 0; i < size; i++) {
            bool newline = at[i] == '\\' && i + 1 < size && at[i + 1] == 'n';
            bnt_buffer_put(out, newline ? "\n" : &at[i], 1);
            i += newline;
        }
        return;
    }
}

static void put_text(const char *text, const char *bos, const char *eos, struct bnt_buffer *out)
{
    for (; *text; text++) {
        const char *token = *text == BOS[0] ? bos : *text == EOS[0] ? eos : NULL;
        bnt_buffer_put(out, token ? token : text, token ? strlen(token) : 1);
    }
}

static int64_t find_token(const struct bnt_tokenizer_view *v, const char *text)
{
    for (uint32_t i = 0; i < v->record.n_added; i++) {
        const struct bnt_added_record *a = &v->added[i];
        if (a->size == strlen(text) && memcmp(v->pool + a->offset, text, a->size) == 0)
            return a->id;
    }
    return -1;
}

bool bnt_chat_build(const char *text, size_t size, const char *bos, const char *eos,
                    const struct bnt_tokenizer_view *tokenizer, struct bnt_buffer *out)
{
    struct bnt_buffer simple = {0}, pool = {0};
    const struct known *k = simplify(text, size, &simple) ? recognise((char *)simple.data) : NULL;
    bool begins = k && strstr((const char *)simple.data, "bos_token");
    bnt_buffer_free(&simple);
    if (!k)
        return false;
    struct bnt_chat_record record = {.flags = k->flags};
    for (int i = 0; i < BNT_CHAT_TEXTS; i++) {
        record.text[i].offset = (uint32_t)pool.size;
        if (i == BNT_CHAT_DEFAULT_SYSTEM && strcmp(k->text[BNT_CHAT_NAME], "chatml") == 0)
            put_default_system(text, &pool);
        else if (i != BNT_CHAT_BEGIN || begins)
            put_text(k->text[i], bos, eos, &pool);
        record.text[i].size = (uint32_t)pool.size - record.text[i].offset;
        record.text[i].offset = record.text[i].size ? record.text[i].offset : 0;
    }
    int64_t stop = find_token(tokenizer, strcmp(k->stop, EOS) == 0 ? eos : k->stop);
    if (stop >= 0)
        record.stop_id[record.n_stop++] = (uint32_t)stop;
    record.pool_size = (uint32_t)pool.size;
    bnt_buffer_put(out, &record, sizeof record);
    bnt_buffer_put(out, pool.data, pool.size);
    bool ok = !pool.failed && !out->failed;
    bnt_buffer_free(&pool);
    return ok;
}
