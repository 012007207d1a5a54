// SPDX-License-Identifier: MIT
// The rotary embedding's frequencies, the same for both devices.
#ifndef BNT_RUNTIME_ROPE_H
#define BNT_RUNTIME_ROPE_H

#include "formats/layout.h"

// frequency (head_dim / 2): theta^(−2i / head_dim), scaled as the model asks (bnt.md section 10).
void bnt_rope_frequencies(const struct bnt_hyper *hyper, float *frequency);

#endif
