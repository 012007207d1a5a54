// SPDX-License-Identifier: MIT
// Compiling a pattern of the TOKN section: pack and verify check it, the runtime uses it, all with
// the same options.
#ifndef BNT_FORMATS_REGEX_H
#define BNT_FORMATS_REGEX_H

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/status.h"

// NULL, with err filled in, if it does not compile. Free with pcre2_code_free.
pcre2_code *bnt_regex_compile(const uint8_t *pattern, size_t size, struct bnt_error *err);

#endif
