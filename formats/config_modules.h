// SPDX-License-Identifier: MIT
// quantization_config's modules_to_not_convert: which linear layers stay as they are.
#ifndef BNT_FORMATS_CONFIG_MODULES_H
#define BNT_FORMATS_CONFIG_MODULES_H

#include <jansson.h>

#include "formats/config.h"

// Refuses an entry that names a ternary matrix: the model would have a dense one in its place.
// Others change nothing. quantization: NULL for none. config: its hyper is in range.
enum bnt_status bnt_config_check_modules(const struct bnt_config *config,
                                         const json_t *quantization, const char *name,
                                         struct bnt_error *err);

#endif
