// SPDX-License-Identifier: MIT
// What both devices ask of tokens before they feed them.
#ifndef BNT_RUNTIME_CHECK_H
#define BNT_RUNTIME_CHECK_H

#include <inttypes.h>
#include <stddef.h>

#include "formats/status.h"

// count tokens, all below vocab_size, that fit behind position in a context.
static inline enum bnt_status bnt_check_tokens(const uint32_t *tokens, size_t count,
                                               uint32_t vocab_size, uint32_t position,
                                               uint32_t context, struct bnt_error *err)
{
    if (count == 0)
        return bnt_fail(err, BNT_ERR_ARGUMENT, "no tokens to evaluate");
    if (count > context - position)
        return bnt_fail(err, BNT_ERR_CONTEXT,
                        "%zu tokens do not fit in the context: %" PRIu32 " of %" PRIu32 " are used",
                        count, position, context);
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] >= vocab_size)
            return bnt_fail(err, BNT_ERR_ARGUMENT,
                            "token %" PRIu32 " is not below the vocabulary's size %" PRIu32,
                            tokens[i], vocab_size);
    }
    return BNT_OK;
}

#endif
