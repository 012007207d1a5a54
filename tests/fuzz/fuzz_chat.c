// SPDX-License-Identifier: MIT
// A chat template. What is accepted must be a good section, the same each time.
#define _GNU_SOURCE // fuzz.h
#include "formats/chat_view.h"
#include "fuzz.h"
#include "pack/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = (char *)fuzz_copy(data, size, sizeof(void *));
    const struct bnt_tokenizer_view tokenizer = {0};
    const struct bnt_chat_source source = {
        .text = text, .size = size, .bos = "<s>", .eos = "</s>", .tokenizer = &tokenizer};
    struct bnt_chat_built built, again;
    bool accepted = bnt_chat_build(&source, &built);
    FUZZ_ASSERT(bnt_chat_build(&source, &again) == accepted);
    if (accepted) {
        struct bnt_chat_record record;
        FUZZ_ASSERT(built.bytes.size >= sizeof record && built.bytes.size == again.bytes.size);
        FUZZ_ASSERT(memcmp(built.bytes.data, again.bytes.data, built.bytes.size) == 0);
        memcpy(&record, built.bytes.data, sizeof record);
        FUZZ_ASSERT(built.bytes.size == sizeof record + record.pool_size);
        FUZZ_ASSERT(!memchr(built.bytes.data + sizeof record, 0xFF, record.pool_size)); // no marks
    } else {
        FUZZ_ASSERT(built.why[0] && !strchr(built.why, '\n'));
    }
    bnt_buffer_free(&built.bytes);
    bnt_buffer_free(&again.bytes);
    free(text);
    return 0;
}
