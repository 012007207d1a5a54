// SPDX-License-Identifier: MIT
// config.json and, after a zero byte, generation_config.json.
#define _GNU_SOURCE // fuzz.h
#include "formats/config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t text_size = zero ? (size_t)(zero - data) : size;
    size_t rest_size = zero ? size - text_size - 1 : 0;
    char *text = (char *)fuzz_copy(data, text_size, sizeof(void *));
    char *rest = zero ? (char *)fuzz_copy(zero + 1, rest_size, sizeof(void *)) : NULL;
    struct bnt_config config;
    struct bnt_error err = {.status = BNT_OK};
    enum bnt_status status =
        bnt_config_parse(&config, text, text_size, rest, rest_size, "config.json", &err);
    if (status == BNT_OK) {
        char name[BNT_TENSOR_NAME_SIZE];
        FUZZ_ASSERT(config.arch && !bnt_hyper_problem(&config.hyper));
        FUZZ_ASSERT(!bnt_sampling_problem(&config.sampling));
        FUZZ_ASSERT(strlen(config.passed_over) < sizeof config.passed_over);
        for (unsigned role = 0; role < BNT_ROLE_END; role++)
            bnt_arch_tensor_name(config.arch, role, (int32_t)config.hyper.n_layers - 1, name);
        FUZZ_ASSERT(bnt_form_name(config.form)[0]);
        FUZZ_ASSERT(bnt_layout_count(&config.hyper, true) > bnt_layout_count(&config.hyper, false));
    } else {
        FUZZ_ASSERT(err.status == status && err.message[0]);
    }
    free(text);
    free(rest);
    return 0;
}
