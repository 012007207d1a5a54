// SPDX-License-Identifier: MIT
// The ternary checkpoint that bnt-convert writes and bnt-pack reads: an ordinary safetensors stream
// with
//   - each norm as F32, the embeddings as the checkpoint has them, under their names there;
//   - each ternary matrix as I8 (rows, cols) of −1, 0, +1 under its name, and its γ as F32 [1]
//   under that name + "_scale"; or, with BNT_STREAM_GROUP, its scales as F16 or F32 (rows, groups);
//   an embedding that is ternary, likewise;
//   - the tensor BNT_STREAM_PROVENANCE, U8: JSON, last, because it holds the checksums of files
//   that are read meanwhile;
//   - in __metadata__: BNT_STREAM_KEY with the version of this description, and the texts of the
//   checkpoint's small files under their names; BNT_STREAM_GROUP, if rows and groups have scales of
//   their own: scale_group of bnt.md section 4, in decimal; BNT_STREAM_ACTIVATIONS, if it is not 8:
//   activation_bits.
#ifndef BNT_FORMATS_STREAM_H
#define BNT_FORMATS_STREAM_H

#define BNT_STREAM_KEY         "bnt.ternary_checkpoint"
#define BNT_STREAM_VERSION     "1"
#define BNT_STREAM_PROVENANCE  "bnt.provenance"
#define BNT_STREAM_GROUP       "bnt.scale_group"
#define BNT_STREAM_ACTIVATIONS "bnt.activation_bits"

enum { BNT_STREAM_MAX_PROVENANCE = 16 << 20 };

#endif
