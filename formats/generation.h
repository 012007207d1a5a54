// SPDX-License-Identifier: MIT
// What a generation_config.json asks for that bnt does not do.
#ifndef BNT_FORMATS_GENERATION_H
#define BNT_FORMATS_GENERATION_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

// Writes the names of such members, as they come, into text: "num_beams, typical_p". "" if there
// are none. Members that cannot change a text, or that ask for what happens anyway, are none.
// max_context: a limit on the whole length that is no less asks for nothing.
void bnt_generation_passed_over(const json_t *generation, uint32_t max_context, char *text,
                                size_t size);

#endif
