// SPDX-License-Identifier: MIT
// Reading a .bnt file from memory. The view points into the bytes; it owns nothing.
#ifndef BNT_FORMATS_VIEW_H
#define BNT_FORMATS_VIEW_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/layout.h"
#include "formats/status.h"

// Where broken rules are reported. rule: "R16"; message: one line, without the rule.
struct bnt_report {
    void (*found)(void *context, const char *rule, const char *message);
    void *context;
    uint64_t count; // broken rules so far
};

__attribute__((format(printf, 3, 4))) void bnt_report(struct bnt_report *report, const char *rule,
                                                      const char *format, ...);

struct bnt_view {
    const uint8_t *data;
    uint64_t size;
    struct bnt_header header;
    struct bnt_hyper hyper;
    struct bnt_sampling_record sampling;     // of SAMP, or BNT_SAMPLING_OFF
    const struct bnt_tensor_record *tensors; // in the file, 4096-aligned when the file's bytes are
    uint64_t n_tensors;
    bool has_int8;
};

// Checks everything that memory safety depends on: R1 – R7 and R11 – R17, and R30 (TOKN's own, R24
// and R25, are bnt_tokenizer_view's). data must be aligned to 8 bytes. Returns whether the view may
// be used; what is wrong goes to the report. true is possible although something was reported (a
// wrong header CRC, say): a caller that does not want that looks at the count.
bool bnt_view_open(struct bnt_view *view, const uint8_t *data, uint64_t size,
                   struct bnt_report *report);

// The section's record, or NULL if the file has none of that type.
const struct bnt_section_record *bnt_view_section(const struct bnt_view *view, uint32_t type);

// A tensor's record, or NULL. layer: BNT_NO_LAYER for those of no layer.
const struct bnt_tensor_record *bnt_view_tensor(const struct bnt_view *view, enum bnt_role role,
                                                int32_t layer);

// A section type or a tensor as text for messages: "TERN", "layer 3 attn_q".
struct bnt_name {
    char text[48];
};
struct bnt_name bnt_section_name(uint32_t type);
struct bnt_name bnt_tensor_name(unsigned role, int32_t layer);

// Checks the CRC-32 of one section (R9). Returns whether it holds.
bool bnt_view_check_crc(const struct bnt_view *view, const struct bnt_section_record *section,
                        struct bnt_report *report);

#endif
