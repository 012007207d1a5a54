// SPDX-License-Identifier: MIT
// The bytes of a .bnt file, typed once. bnt.md explains them; rule numbers are its own.
#ifndef BNT_FORMATS_LAYOUT_H
#define BNT_FORMATS_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BNT_PAGE = 4096,        // alignment of sections, size of the header page
    BNT_TENSOR_ALIGN = 256, // alignment of tensors
    BNT_MAX_SECTIONS = 124, // what fits in the header page
    BNT_BLOCK_ROWS = 16,    // ternary matrices are cut into blocks of 16 rows …
    BNT_BLOCK_COLS = 32,    // … × 32 columns …
    BNT_BLOCK_WORDS = 32,   // … of 32 words …
    BNT_BLOCK_BYTES = 128,  // … of 4 bytes
    BNT_MAX_EOS = 8,
    BNT_NO_LAYER = -1,      // on disk 0xFFFFFFFF
    BNT_MAX_COLS = 1 << 20, // widest product (R12); section 5 derives the int32 headroom from it
    BNT_MAX_VOCAB = 1 << 24,
    BNT_MAX_CONTEXT = 1 << 24,
    BNT_MAX_LAYERS = 4096,
    BNT_MAX_HEADS = 4096,
    BNT_MAX_HEAD_DIM = 4096,
    BNT_MAX_GROUP = 4096,    // columns that share a scale, unless a whole row does …
    BNT_GROUP_ROW = 1 << 20, // … that is scale_group then
    BNT_VERSION_1 = 1,
    BNT_VERSION_2 = 2,       // has what is marked v2 in bnt.md
    BNT_VERSION_1_MINOR = 1, // of files of version 1 with SAMP or CONV; others have 0
};

// Unsigned codes up to 3 times activations of magnitude up to 128, BNT_MAX_COLS of them, must fit
// in int32.
_Static_assert(3ll * 128 * BNT_MAX_COLS <= INT32_MAX, "integer sums fit in int32");
// The two bytes of a group's 16-bit activations, put together, too. (A damaged file's code is -2.)
_Static_assert(2ll * 32768 * BNT_MAX_GROUP <= INT32_MAX, "16-bit sums of a group fit in int32");

#define BNT_MAGIC                                                                                  \
    "\x89"                                                                                         \
    "BNT\r\n\x1a\n"

#define BNT_FOURCC(a, b, c, d)                                                                     \
    ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

// In the canonical order of sections.
enum bnt_section_type {
    BNT_SECTION_HYPR = BNT_FOURCC('H', 'Y', 'P', 'R'),
    BNT_SECTION_TOKN = BNT_FOURCC('T', 'O', 'K', 'N'),
    BNT_SECTION_CHAT = BNT_FOURCC('C', 'H', 'A', 'T'),
    BNT_SECTION_CONV = BNT_FOURCC('C', 'O', 'N', 'V'), // since 1.1
    BNT_SECTION_SAMP = BNT_FOURCC('S', 'A', 'M', 'P'),
    BNT_SECTION_NORM = BNT_FOURCC('N', 'O', 'R', 'M'),
    BNT_SECTION_EMBD = BNT_FOURCC('E', 'M', 'B', 'D'),
    BNT_SECTION_EMB8 = BNT_FOURCC('E', 'M', 'B', '8'),
    BNT_SECTION_TERN = BNT_FOURCC('T', 'E', 'R', 'N'),
    BNT_SECTION_SCAL = BNT_FOURCC('S', 'C', 'A', 'L'),
    BNT_SECTION_TENS = BNT_FOURCC('T', 'E', 'N', 'S'),
    BNT_SECTION_PROV = BNT_FOURCC('P', 'R', 'O', 'V'),
};

enum { BNT_SECTION_REQUIRED = 1 }; // bit of bnt_section_record.flags

struct bnt_section_record {
    uint32_t type;
    uint32_t flags;
    uint64_t offset;
    uint64_t size;
    uint32_t crc32;
    uint32_t reserved;
};
_Static_assert(sizeof(struct bnt_section_record) == 32, "section record");

struct bnt_header {
    uint8_t magic[8];
    uint16_t version_major;
    uint16_t version_minor;
    uint32_t section_count;
    uint64_t file_size;
    uint32_t header_crc32;
    uint32_t reserved0;
    uint8_t content_sha256[32];
    uint8_t reserved1[64];
    struct bnt_section_record sections[BNT_MAX_SECTIONS];
};
_Static_assert(sizeof(struct bnt_header) == BNT_PAGE, "the header is one page");
_Static_assert(offsetof(struct bnt_header, file_size) == 16, "header");
_Static_assert(offsetof(struct bnt_header, header_crc32) == 24, "header");
_Static_assert(offsetof(struct bnt_header, content_sha256) == 32, "header");
_Static_assert(offsetof(struct bnt_header, sections) == 128, "header");

enum bnt_activation { BNT_ACTIVATION_SILU = 1, BNT_ACTIVATION_RELU2 = 2 };
enum bnt_rope_scaling {
    BNT_ROPE_NONE = 0,
    BNT_ROPE_LLAMA3 = 1,
    BNT_ROPE_YARN = 2,
    BNT_ROPE_LINEAR = 3,
};
enum bnt_pooling {
    BNT_POOLING_NONE = 0,
    BNT_POOLING_LAST = 1,
    BNT_POOLING_MEAN = 2,
    BNT_POOLING_FIRST = 3,
};
enum { // bits of bnt_hyper.flags
    BNT_HYPER_TIED = 1,
    BNT_HYPER_SUB_NORMS = 2,
    BNT_HYPER_F32_EMBEDDINGS = 4,
    BNT_HYPER_FLAGS_1 = 7, // all that version 1 has
    BNT_HYPER_TERNARY_EMBEDDING = 8,
    BNT_HYPER_TERNARY_OUTPUT = 16, // of an output matrix of its own
    BNT_HYPER_QKV_BIAS = 32,
    BNT_HYPER_O_BIAS = 64,
    BNT_HYPER_FFN_BIAS = 128,
    BNT_HYPER_QK_NORMS = 256,
    BNT_HYPER_LINEAR_NORMS = 512,
    BNT_HYPER_YARN_EXACT = 1024, // the range is not rounded to whole pairs
    BNT_HYPER_NORMALIZED = 2048, // a text's vector is
    BNT_HYPER_FLAGS_2 = 4095,
};

// Version 1 has the first half.
struct bnt_hyper {
    uint32_t n_layers;
    uint32_t hidden_size;
    uint32_t ffn_size;
    uint32_t n_heads;
    uint32_t n_kv_heads;
    uint32_t head_dim;
    uint32_t vocab_size;
    uint32_t max_context;
    uint32_t activation;
    uint32_t flags;
    float norm_eps;
    uint32_t rope_scaling;
    double rope_theta;
    float rope_factor;
    float rope_low_freq_factor;
    float rope_high_freq_factor;
    uint32_t rope_original_context;
    int32_t bos_id;
    uint32_t eos_count;
    uint32_t eos_id[BNT_MAX_EOS];
    float temperature;
    float top_p;
    uint32_t top_k;
    uint32_t reserved;
    // --- version 2 ---
    uint32_t scale_group;     // 0: one scale a matrix; BNT_GROUP_ROW: one a row; else columns
    uint32_t scale_dtype;     // BNT_F32 or BNT_F16; 0 where scale_group is
    uint32_t activation_bits; // 8 (all that version 1 has) or 16
    float linear_norm_eps;
    float rope_attention_factor;
    float rope_beta_fast;
    float rope_beta_slow;
    uint32_t pooling;
    uint32_t reserved2[24];
};
enum { BNT_HYPER_SIZE_1 = 128 };
_Static_assert(sizeof(struct bnt_hyper) == 256, "HYPR");
_Static_assert(offsetof(struct bnt_hyper, scale_group) == BNT_HYPER_SIZE_1, "HYPR");
_Static_assert(offsetof(struct bnt_hyper, pooling) == 156, "HYPR");
_Static_assert(offsetof(struct bnt_hyper, rope_theta) == 48, "HYPR");
_Static_assert(offsetof(struct bnt_hyper, bos_id) == 72, "HYPR");
_Static_assert(offsetof(struct bnt_hyper, temperature) == 112, "HYPR");

enum bnt_dtype { BNT_TERNARY = 1, BNT_BF16 = 2, BNT_F32 = 3, BNT_I8 = 4, BNT_F16 = 5 };

struct bnt_sampling_record {
    float repetition_penalty;
    float presence_penalty;
    float frequency_penalty;
    float min_p;
    uint32_t max_new_tokens;
    uint8_t reserved[44];
};
_Static_assert(sizeof(struct bnt_sampling_record) == 64, "SAMP");
_Static_assert(offsetof(struct bnt_sampling_record, max_new_tokens) == 16, "SAMP");

// What stands for a file without the section.
#define BNT_SAMPLING_OFF ((struct bnt_sampling_record){.repetition_penalty = 1})

// The ranges of bnt.md section 4.1; bnt.h has the same.
#define BNT_MAX_REPETITION_PENALTY 100.0f
#define BNT_MAX_PENALTY            2.0f // of presence and frequency, either way

enum bnt_role {
    BNT_ATTN_NORM = 1,
    BNT_ATTN_SUB_NORM = 2,
    BNT_FFN_NORM = 3,
    BNT_FFN_SUB_NORM = 4,
    BNT_ATTN_Q_NORM = 5,
    BNT_ATTN_K_NORM = 6,
    BNT_ATTN_Q_BIAS = 8, // of a matrix: its role − BNT_ATTN_Q + BNT_ATTN_Q_BIAS
    BNT_ATTN_K_BIAS = 9,
    BNT_ATTN_V_BIAS = 10,
    BNT_ATTN_O_BIAS = 11,
    BNT_FFN_GATE_BIAS = 12,
    BNT_FFN_UP_BIAS = 13,
    BNT_FFN_DOWN_BIAS = 14,
    BNT_ATTN_Q = 16,
    BNT_ATTN_K = 17,
    BNT_ATTN_V = 18,
    BNT_ATTN_O = 19,
    BNT_FFN_GATE = 20,
    BNT_FFN_UP = 21,
    BNT_FFN_DOWN = 22,
    BNT_ATTN_Q_LINEAR_NORM = 24, // likewise
    BNT_ATTN_K_LINEAR_NORM = 25,
    BNT_ATTN_V_LINEAR_NORM = 26,
    BNT_ATTN_O_LINEAR_NORM = 27,
    BNT_FFN_GATE_LINEAR_NORM = 28,
    BNT_FFN_UP_LINEAR_NORM = 29,
    BNT_FFN_DOWN_LINEAR_NORM = 30,
    BNT_FINAL_NORM = 32,
    BNT_TOKEN_EMBEDDING = 33,
    BNT_OUTPUT = 34,
    BNT_OUTPUT_INT8 = 35,
    BNT_OUTPUT_INT8_SCALE = 36,
    BNT_ROLE_END = 37, // one more than the last
};

struct bnt_tensor_record {
    uint16_t role;
    uint16_t dtype;
    int32_t layer; // BNT_NO_LAYER sorts last, being 0xFFFFFFFF as an unsigned number
    uint32_t rows;
    uint32_t cols;
    uint64_t offset;
    uint64_t size;
    float scale;
    uint32_t reserved;
    uint64_t scale_offset; // version 2
};
_Static_assert(sizeof(struct bnt_tensor_record) == 48, "TENS");
_Static_assert(offsetof(struct bnt_tensor_record, offset) == 16, "TENS");
_Static_assert(offsetof(struct bnt_tensor_record, scale) == 32, "TENS");

enum { BNT_TOKENIZER_BYTE_BPE = 1, BNT_TOKENIZER_CHARACTER_BPE = 2 }; // bnt_tokenizer_record.kind
enum {                                                                // bits of its flags
    BNT_TOKENIZER_IGNORE_MERGES = 1,
    BNT_TOKENIZER_BYTE_FALLBACK = 2,
    BNT_TOKENIZER_FUSE_UNK = 4,
    BNT_TOKENIZER_STRIP_SPACE = 8,  // decoding drops one leading space
    BNT_TOKENIZER_STRIP_FIRST = 16, // decoding drops all spaces of the first token
};
#define BNT_NO_TOKEN UINT32_MAX
enum { BNT_TOKENIZER_MAX_LIST = 65536 }; // of added tokens, prefix and suffix (R24)
enum { BNT_TOKENIZER_MAX_STEPS = 64 };   // encoding recurses once a step
enum { BNT_TOKENIZER_MAX_TEXT = 65535, BNT_TOKENIZER_MAX_ADDED = 1024 };

struct bnt_tokenizer_record {
    uint32_t kind;
    uint32_t flags;
    uint32_t n_tokens;
    uint32_t n_lookup;
    uint32_t n_merges;
    uint32_t n_added;
    uint32_t n_steps;
    uint32_t n_prefix;
    uint32_t n_suffix;
    uint32_t pool_size;
    uint32_t chat_offset;
    uint32_t chat_size;
    uint32_t n_normalizers;
    uint32_t unk_id; // or BNT_NO_TOKEN
    uint8_t reserved[8];
};
_Static_assert(sizeof(struct bnt_tokenizer_record) == 64, "TOKN");

struct bnt_merge_record {
    uint32_t left;
    uint32_t right;
    uint32_t rank;
    uint32_t result;
};
_Static_assert(sizeof(struct bnt_merge_record) == 16, "TOKN merge");

enum { // bits of bnt_added_record.flags
    BNT_ADDED_SPECIAL = 1,
    BNT_ADDED_SINGLE_WORD = 2,
    BNT_ADDED_LSTRIP = 4,
    BNT_ADDED_RSTRIP = 8,
    BNT_ADDED_NORMALIZED = 16,
};

struct bnt_added_record {
    uint32_t id;
    uint32_t flags;
    uint32_t offset;
    uint32_t size;
};
_Static_assert(sizeof(struct bnt_added_record) == 16, "TOKN added token");

enum bnt_step_type {
    BNT_STEP_SPLIT = 1,
    BNT_STEP_PREFIX = 2, // behavior: 0 every piece, 1 only the text's first
    BNT_STEP_PREPEND = 3,
    BNT_STEP_REPLACE = 4,
    BNT_STEP_NFC = 5,
    BNT_STEP_BYTE_LEVEL = 6, // bytes become characters of formats/byte_level.h
    BNT_STEP_NFD = 7,
    BNT_STEP_NFKC = 8,
    BNT_STEP_NFKD = 9,
    BNT_STEP_LOWERCASE = 10,
    BNT_STEP_REPLACE_PATTERN = 11,
    BNT_STEP_END_OF_WORD = 12, // the last one: its text ends the last symbol of every piece
};
enum { BNT_TOKENIZER_MAX_SUFFIX = 64 }; // of the text of BNT_STEP_END_OF_WORD
enum bnt_split_behavior {
    BNT_SPLIT_REMOVED = 0,
    BNT_SPLIT_ISOLATED = 1,
    BNT_SPLIT_MERGED_WITH_PREVIOUS = 2,
    BNT_SPLIT_MERGED_WITH_NEXT = 3,
    BNT_SPLIT_CONTIGUOUS = 4,
};

struct bnt_step_record {
    uint8_t type;
    uint8_t behavior;
    uint8_t invert;
    uint8_t reserved0;
    uint32_t offset;
    uint32_t size;
    uint32_t extra; // of a replacement: its size; it follows the text
};
_Static_assert(sizeof(struct bnt_step_record) == 16, "TOKN step");

enum {
    BNT_ATTR_SPECIAL = 1,
    BNT_ATTR_ADDED = 2,
    BNT_ATTR_ABSENT = 4,
    BNT_ATTR_BYTE = 8
}; // of attr

enum { BNT_CHAT_TRIM = 1, BNT_CHAT_MAX_STOP = 4 }; // bit of bnt_chat_record.flags; its stop ids

// Bits of bnt_chat_record.flags in CONV.
enum {
    BNT_CONV_TRIM_SYSTEM = 1,
    BNT_CONV_TRIM_USER = 2,
    BNT_CONV_TRIM_ANSWER = 4,
    BNT_CONV_NO_SYSTEM = 8, // there can be no system text
    BNT_CONV_DROP_THINKING = 16,
    BNT_CONV_DROP_NEWLINES = 32, // behind it
    BNT_CONV_FLAGS = 63,
};

struct bnt_range {
    uint32_t offset;
    uint32_t size;
};

// The texts of a conversation, in the order of the record.
enum bnt_chat_text {
    BNT_CHAT_NAME,
    BNT_CHAT_BEGIN,
    BNT_CHAT_SYSTEM_BEFORE,
    BNT_CHAT_SYSTEM_AFTER,
    BNT_CHAT_USER_BEFORE,
    BNT_CHAT_USER_AFTER,
    BNT_CHAT_ASSISTANT_BEFORE,
    BNT_CHAT_ASSISTANT_AFTER,
    BNT_CHAT_DEFAULT_SYSTEM,
    BNT_CHAT_TEXTS,
};

struct bnt_chat_record {
    uint32_t flags;
    uint32_t n_stop;
    uint32_t stop_id[BNT_CHAT_MAX_STOP];
    struct bnt_range text[BNT_CHAT_TEXTS];
    uint32_t pool_size;
    uint8_t reserved[28];
};
_Static_assert(sizeof(struct bnt_chat_record) == 128, "CHAT");
_Static_assert(offsetof(struct bnt_chat_record, text) == 24, "CHAT");
_Static_assert(offsetof(struct bnt_chat_record, pool_size) == 96, "CHAT");

// What a tensor is, for a given model: everything the tensor table holds but the scale.
struct bnt_tensor_place {
    enum bnt_role role;
    int32_t layer; // or BNT_NO_LAYER
    enum bnt_dtype dtype;
    uint32_t rows;
    uint32_t cols;
    uint32_t section;      // bnt_section_type
    uint64_t offset;       // from the section's start
    uint64_t size;         // bytes
    bool has_scales;       // its scales lie in SCAL …
    uint64_t scale_offset; // … here, from that section's start,
    uint64_t scale_size;   // so many bytes
};

// Walks the tensors of a model in table order, giving each its place (R14 – R16). Reader and writer
// share it. Sizes stay below 2^61 by the ranges of R12, so nothing here overflows.
struct bnt_layout_walk {
    const struct bnt_hyper *hyper;
    bool has_int8;
    int32_t layer;
    size_t index;    // into the table of roles
    uint64_t end[5]; // of NORM, EMBD, EMB8, TERN, SCAL so far
};

struct bnt_layout_walk bnt_layout_walk(const struct bnt_hyper *hyper, bool has_int8);
bool bnt_layout_next(struct bnt_layout_walk *walk, struct bnt_tensor_place *place);
// After the last tensor: the size of one of the five tensor sections.
uint64_t bnt_layout_section_size(const struct bnt_layout_walk *walk, uint32_t section);
// Number of tensors of a model.
uint64_t bnt_layout_count(const struct bnt_hyper *hyper, bool has_int8);

// Name of a role as bnt.md spells it, or NULL. role_from_name: 0 if unknown.
const char *bnt_role_name(unsigned role);
unsigned bnt_role_from_name(const char *name);
const char *bnt_dtype_name(unsigned dtype);

// The section (bnt_section_type) that holds a tensor with a known role.
uint32_t bnt_record_section(const struct bnt_tensor_record *record);

// Whether a role is one of those that only version 2 has.
bool bnt_role_needs_version_2(unsigned role);

// The least version that can express a model.
unsigned bnt_hyper_version(const struct bnt_hyper *hyper);
// Bytes of HYPR in a version.
static inline size_t bnt_hyper_size(unsigned version)
{
    return version == BNT_VERSION_1 ? (size_t)BNT_HYPER_SIZE_1 : sizeof(struct bnt_hyper);
}

// Names the first field out of its range (R12), or returns NULL.
const char *bnt_hyper_problem(const struct bnt_hyper *hyper);

// The same for SAMP (R30).
const char *bnt_sampling_problem(const struct bnt_sampling_record *sampling);
bool bnt_sampling_equal(const struct bnt_sampling_record *a, const struct bnt_sampling_record *b);

static inline uint32_t bnt_q_size(const struct bnt_hyper *h)
{
    return h->n_heads * h->head_dim;
}

static inline uint32_t bnt_kv_size(const struct bnt_hyper *h)
{
    return h->n_kv_heads * h->head_dim;
}

static inline bool bnt_output_is_ternary(const struct bnt_hyper *h)
{
    return h->flags &
           (h->flags & BNT_HYPER_TIED ? BNT_HYPER_TERNARY_EMBEDDING : BNT_HYPER_TERNARY_OUTPUT);
}

// Scales that a row of so many columns has.
static inline uint32_t bnt_row_groups(const struct bnt_hyper *h, uint32_t cols)
{
    return h->scale_group ? (cols + h->scale_group - 1) / h->scale_group : 0;
}

static inline uint32_t bnt_pad_rows(uint32_t rows)
{
    return (rows + BNT_BLOCK_ROWS - 1) / BNT_BLOCK_ROWS * BNT_BLOCK_ROWS;
}

static inline uint32_t bnt_pad_cols(uint32_t cols)
{
    return (cols + BNT_BLOCK_COLS - 1) / BNT_BLOCK_COLS * BNT_BLOCK_COLS;
}

#endif
