// SPDX-License-Identifier: MIT
// What all readers stand on: the cursor that never leaves its bytes, UTF-8 as Unicode's tables have
// it, and the places of a model's tensors, which reader and writer must derive alike for any shape.
#include "formats/cursor.h"
#include "formats/layout.h"
#include "formats/utf8.h"
#include "tests/unit/support.h"

// --- cursor ---

static void the_cursor_gives_what_is_there_and_no_more(void **state)
{
    static const uint8_t data[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct bnt_cursor c = bnt_cursor(data, sizeof data);
    const uint8_t *p = NULL;
    uint32_t v;
    (void)state;
    assert_true(bnt_cursor_take(&c, 2, 3, &p));
    assert_ptr_equal(p, data);
    assert_int_equal(bnt_cursor_left(&c), 4);
    assert_false(bnt_cursor_take(&c, 5, 1, &p));
    assert_false(bnt_cursor_take(&c, 1, 5, &p));
    assert_int_equal(bnt_cursor_left(&c), 4); // nothing moved
    assert_ptr_equal(p, data);
    assert_true(bnt_cursor_copy(&c, &v, sizeof v));
    assert_int_equal(v, 0x0A090807);
    assert_int_equal(bnt_cursor_left(&c), 0);
    assert_true(bnt_cursor_take(&c, 0, 16, &p));
    assert_true(bnt_cursor_take(&c, 16, 0, &p));
    assert_ptr_equal(p, data + 10);
    assert_false(bnt_cursor_copy(&c, &v, 1));
    assert_int_equal(v, 0x0A090807);
}

static void products_that_overflow_do_not_fit(void **state)
{
    static const uint64_t pairs[][2] = {
        {UINT64_MAX, 1},          {1, UINT64_MAX},         {UINT64_MAX, UINT64_MAX},
        {1ull << 32, 1ull << 32}, {(1ull << 63) + 1, 2},   {1ull << 60, 16},
        {UINT64_MAX / 4 + 2, 4},  {3, UINT64_MAX / 3 + 1}, {UINT64_MAX / 16 + 1, 16}};
    static const uint8_t data[64];
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(pairs); i++) {
        for (uint64_t before = 0; before < 3; before++) {
            struct bnt_cursor c = bnt_cursor(data, sizeof data);
            const uint8_t *p = NULL;
            assert_true(bnt_cursor_take(&c, before, 1, &p));
            assert_false(bnt_cursor_take(&c, pairs[i][0], pairs[i][1], &p));
            assert_int_equal(c.pos, before);
        }
    }
}

// --- UTF-8 ---

static void every_code_point_makes_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        uint8_t bytes[4];
        uint32_t back = 0;
        if (code >= 0xD800 && code <= 0xDFFF)
            continue;
        int n = bnt_utf8_put(code, bytes);
        int expected = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (n != expected || bnt_utf8_next(bytes, (size_t)n, &back) != n || back != code)
            fail_msg("U+%04X", code);
        for (int cut = 1; cut < n; cut++)
            assert_int_equal(bnt_utf8_next(bytes, (size_t)cut, NULL), 0);
    }
}

// Unicode, table 3-7: the well-formed sequences by ranges of their bytes.
static const struct {
    int length;
    uint8_t range[4][2];
} table_3_7[] = {
    {1, {{0x00, 0x7F}}},
    {2, {{0xC2, 0xDF}, {0x80, 0xBF}}},
    {3, {{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}}},
    {3, {{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {3, {{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}}},
    {3, {{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {4, {{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {4, {{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {4, {{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}}},
};

// What bnt_utf8_next must return: by the longest beginning that some row allows.
static int define_next(const uint8_t *p, size_t size)
{
    int longest = 0;
    for (size_t row = 0; row < TEST_COUNT(table_3_7); row++) {
        int n = 0;
        while (n < table_3_7[row].length && (size_t)n < size &&
               p[n] >= table_3_7[row].range[n][0] && p[n] <= table_3_7[row].range[n][1])
            n++;
        if (n == table_3_7[row].length)
            return n;
        if (n > 0 && (size_t)n == size)
            return 0;
        longest = n > longest ? n : longest;
    }
    return longest > 0 ? -longest : -1;
}

static void every_sequence_at_the_borders_of_the_table(void **state)
{
    static const uint8_t border[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0,
                                     0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF};
    enum { N = TEST_COUNT(border) };
    (void)state;
    for (uint32_t i = 0; i < 256 * N * N * N; i++) {
        const uint8_t p[4] = {(uint8_t)(i & 255), border[(i >> 8) % N], border[(i >> 8) / N % N],
                              border[(i >> 8) / N / N % N]};
        for (size_t size = 1; size <= 4; size++) {
            if (bnt_utf8_next(p, size, NULL) != define_next(p, size))
                fail_msg("%02x %02x %02x %02x, %zu of them", p[0], p[1], p[2], p[3], size);
        }
    }
}

// The examples of Unicode section 3.9, one digit for each character or ill-formed part: its length.
static void maximal_subparts_are_those_of_the_standard(void **state)
{
    static const struct {
        const char *bytes, *lengths;
    } all[] = {
        {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "1321111111"},
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "111111111"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "111111111"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "111111111"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "21321"},
    };
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(all); i++) {
        const uint8_t *p = (const uint8_t *)all[i].bytes;
        size_t size = strlen(all[i].bytes), at = 0;
        for (const char *length = all[i].lengths; *length; length++) {
            int n = bnt_utf8_next(p + at, size - at, NULL);
            assert_int_equal(abs(n), *length - '0');
            assert_int_equal(n > 0, p[at] < 0x80);
            at += (size_t)abs(n);
        }
        assert_int_equal(at, size);
    }
}

static void the_longest_valid_beginning_is_found(void **state)
{
    static const uint8_t text[] = "a\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80z";
    static const size_t borders[] = {0, 1, 3, 6, 10, 11};
    (void)state;
    for (size_t size = 0; size < sizeof text; size++) {
        size_t expected = 0;
        for (size_t i = 0; i < TEST_COUNT(borders); i++)
            expected = borders[i] <= size ? borders[i] : expected;
        assert_int_equal(bnt_utf8_valid(text, size), expected);
    }
    for (size_t at = 0; at < sizeof text - 1; at++) {
        uint8_t bad[sizeof text];
        memcpy(bad, text, sizeof text);
        bad[at] = 0xFF;
        assert_true(bnt_utf8_valid(bad, sizeof text - 1) <= at);
    }
}

// --- layout ---

static struct bnt_hyper shape(uint32_t layers, uint32_t hidden, uint32_t ffn, uint32_t heads,
                              uint32_t kv, uint32_t head_dim, uint32_t vocab, uint32_t flags)
{
    return (struct bnt_hyper){.n_layers = layers,
                              .hidden_size = hidden,
                              .ffn_size = ffn,
                              .n_heads = heads,
                              .n_kv_heads = kv,
                              .head_dim = head_dim,
                              .vocab_size = vocab,
                              .max_context = 16,
                              .activation = BNT_ACTIVATION_SILU,
                              .flags = flags,
                              .norm_eps = 1e-5f,
                              .rope_theta = 1e4,
                              .bos_id = -1,
                              .top_p = 1,
                              .activation_bits = 8};
}

static uint64_t define_size(const struct bnt_tensor_place *p)
{
    uint64_t rows = p->rows, cols = p->cols;
    if (p->dtype == BNT_TERNARY)
        return (rows + 15) / 16 * 16 * ((cols + 31) / 32 * 32) / 4;
    return rows * cols * (p->dtype == BNT_F32 ? 4 : p->dtype == BNT_BF16 ? 2 : 1);
}

static bool is_glued(enum bnt_role role)
{
    return role == BNT_ATTN_K || role == BNT_ATTN_V || role == BNT_FFN_UP;
}

// Rows × columns of a role, from the table of bnt.md section 6.
static void define_shape(const struct bnt_hyper *h, enum bnt_role role, uint32_t out[2])
{
    uint32_t q = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim,
             hidden = h->hidden_size;
    const struct {
        enum bnt_role role;
        uint32_t rows, cols;
    } table[] = {
        {BNT_ATTN_NORM, 1, hidden},
        {BNT_ATTN_SUB_NORM, 1, q},
        {BNT_FFN_NORM, 1, hidden},
        {BNT_FFN_SUB_NORM, 1, h->ffn_size},
        {BNT_ATTN_Q, q, hidden},
        {BNT_ATTN_K, kv, hidden},
        {BNT_ATTN_V, kv, hidden},
        {BNT_ATTN_O, hidden, q},
        {BNT_FFN_GATE, h->ffn_size, hidden},
        {BNT_FFN_UP, h->ffn_size, hidden},
        {BNT_FFN_DOWN, hidden, h->ffn_size},
        {BNT_ATTN_Q_NORM, 1, h->head_dim},
        {BNT_ATTN_K_NORM, 1, h->head_dim},
        {BNT_ATTN_Q_BIAS, 1, q},
        {BNT_ATTN_K_BIAS, 1, kv},
        {BNT_ATTN_V_BIAS, 1, kv},
        {BNT_ATTN_O_BIAS, 1, hidden},
        {BNT_FFN_GATE_BIAS, 1, h->ffn_size},
        {BNT_FFN_UP_BIAS, 1, h->ffn_size},
        {BNT_FFN_DOWN_BIAS, 1, hidden},
        {BNT_ATTN_Q_LINEAR_NORM, 1, hidden},
        {BNT_ATTN_K_LINEAR_NORM, 1, hidden},
        {BNT_ATTN_V_LINEAR_NORM, 1, hidden},
        {BNT_ATTN_O_LINEAR_NORM, 1, q},
        {BNT_FFN_GATE_LINEAR_NORM, 1, hidden},
        {BNT_FFN_UP_LINEAR_NORM, 1, hidden},
        {BNT_FFN_DOWN_LINEAR_NORM, 1, h->ffn_size},
        {BNT_FINAL_NORM, 1, hidden},
        {BNT_TOKEN_EMBEDDING, h->vocab_size, hidden},
        {BNT_OUTPUT, h->vocab_size, hidden},
        {BNT_OUTPUT_INT8, h->vocab_size, hidden},
        {BNT_OUTPUT_INT8_SCALE, 1, h->vocab_size},
    };
    out[0] = out[1] = 0;
    for (size_t i = 0; i < TEST_COUNT(table); i++) {
        if (table[i].role == role) {
            out[0] = table[i].rows;
            out[1] = table[i].cols;
        }
    }
}

struct layout_end {
    uint32_t section;
    uint64_t end;
};

// The scales of ternary matrices follow one another.
static void check_scales(const struct bnt_hyper *h, const struct bnt_tensor_place *p, uint64_t *end)
{
    bool scaled = p->dtype == BNT_TERNARY && h->scale_group > 0;
    assert_int_equal(p->has_scales, scaled);
    if (!scaled)
        return;
    uint64_t groups = (p->cols + (uint64_t)h->scale_group - 1) / h->scale_group;
    assert_int_equal(p->scale_size, ((uint64_t)p->rows + 15) / 16 * 16 * groups *
                                        (h->scale_dtype == BNT_F32 ? 4 : 2));
    assert_int_equal(p->scale_offset, (*end + 255) / 256 * 256);
    *end = p->scale_offset + p->scale_size;
}

static void check_place(const struct bnt_hyper *h, const struct bnt_tensor_place *p,
                        struct layout_end ends[5])
{
    uint32_t dims[2];
    define_shape(h, p->role, dims);
    assert_int_equal(p->rows, dims[0]);
    assert_int_equal(p->cols, dims[1]);
    assert_int_equal(p->size, define_size(p));
    const struct bnt_tensor_record record = {.role = (uint16_t)p->role,
                                             .dtype = (uint16_t)p->dtype};
    assert_int_equal(p->section, bnt_record_section(&record));
    assert_int_equal(p->section == BNT_SECTION_TERN, p->dtype == BNT_TERNARY);
    check_scales(h, p, &ends[4].end);
    size_t i = 0;
    while (i < 3 && ends[i].section != p->section)
        i++;
    assert_int_equal(ends[i].section, p->section);
    uint64_t expected = is_glued(p->role) ? ends[i].end : (ends[i].end + 255) / 256 * 256;
    assert_int_equal(p->offset, expected); // no byte between two tensors is wasted
    ends[i].end = p->offset + p->size;
}

static void check_layout(struct bnt_hyper h, bool int8)
{
    struct layout_end ends[5] = {{BNT_SECTION_NORM, 0},
                                 {BNT_SECTION_EMBD, 0},
                                 {BNT_SECTION_EMB8, 0},
                                 {BNT_SECTION_TERN, 0},
                                 {BNT_SECTION_SCAL, 0}};
    struct bnt_layout_walk walk = bnt_layout_walk(&h, int8);
    struct bnt_tensor_place place, last = {0};
    uint64_t count = 0;
    assert_null(bnt_hyper_problem(&h));
    for (; bnt_layout_next(&walk, &place); count++, last = place) {
        if (count > 0) // ascending by (layer, role), unsigned
            assert_true((uint32_t)place.layer > (uint32_t)last.layer ||
                        (place.layer == last.layer && place.role > last.role));
        check_place(&h, &place, ends);
    }
    uint64_t per_layer =
        9u + (h.flags & BNT_HYPER_SUB_NORMS ? 2 : 0) + (h.flags & BNT_HYPER_QK_NORMS ? 2 : 0) +
        (h.flags & BNT_HYPER_QKV_BIAS ? 3 : 0) + (h.flags & BNT_HYPER_O_BIAS ? 1 : 0) +
        (h.flags & BNT_HYPER_FFN_BIAS ? 3 : 0) + (h.flags & BNT_HYPER_LINEAR_NORMS ? 7 : 0);
    uint64_t others = 2u + (h.flags & BNT_HYPER_TIED ? 0 : 1) + (int8 ? 2 : 0);
    assert_int_equal(count, per_layer * h.n_layers + others);
    assert_int_equal(count, bnt_layout_count(&h, int8));
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(bnt_layout_section_size(&walk, ends[i].section), ends[i].end);
}

static void tensors_lie_tight_and_aligned_for_any_shape(void **state)
{
    (void)state;
    for (uint32_t flags = 0; flags < 8; flags++) {
        for (int int8 = 0; int8 < 2; int8++) {
            check_layout(shape(1, 2, 1, 1, 1, 2, 1, flags), int8);
            check_layout(shape(2, 96, 288, 4, 4, 24, 322, flags), int8);
            check_layout(shape(3, 33, 17, 3, 1, 10, 7, flags), int8);
            check_layout(shape(26, 3200, 8640, 32, 32, 100, 32002, flags), int8);
            check_layout(shape(30, 2560, 6912, 20, 5, 128, 128256, flags), int8);
            check_layout(shape(2, 1, 1, 4096, 2048, 256, 1, flags), int8);
            // The largest of everything: nothing may overflow.
            check_layout(shape(BNT_MAX_LAYERS, BNT_MAX_COLS, BNT_MAX_COLS, 256, 256, 4096,
                               BNT_MAX_VOCAB, flags),
                         int8);
        }
    }
}

// The facts of version 2, each alone and all at once, with every kind of scales.
static void tensors_of_version_2_lie_tight_and_aligned(void **state)
{
    static const uint32_t groups[] = {0, 32, 128, 4096, BNT_GROUP_ROW};
    (void)state;
    for (uint32_t bit = BNT_HYPER_FLAGS_1 + 1; bit <= BNT_HYPER_FLAGS_2 + 1; bit *= 2) {
        for (size_t g = 0; g < TEST_COUNT(groups); g++) {
            uint32_t flags = bit > BNT_HYPER_FLAGS_2 ? (uint32_t)BNT_HYPER_FLAGS_2 : bit;
            struct bnt_hyper h = shape(2, 96, 288, 4, 2, 24, 322, flags & ~1u);
            h.rope_scaling = BNT_ROPE_YARN;
            h.rope_factor = h.rope_attention_factor = h.rope_beta_fast = h.rope_beta_slow = 1;
            h.rope_original_context = 1;
            h.linear_norm_eps = flags & BNT_HYPER_LINEAR_NORMS ? 1e-6f : 0;
            h.pooling = BNT_POOLING_LAST;
            h.scale_group = groups[g];
            h.scale_dtype = !groups[g] ? 0 : flags & 32 ? BNT_F32 : BNT_F16;
            assert_int_equal(bnt_hyper_version(&h), BNT_VERSION_2);
            check_layout(h, false);
        }
    }
}

static void roles_and_their_names(void **state)
{
    unsigned known = 0;
    (void)state;
    for (unsigned role = 0; role < 70000; role++) {
        const char *name = bnt_role_name(role);
        if (!name) {
            const struct bnt_tensor_record record = {.role = (uint16_t)role};
            assert_int_equal(role < 65536 ? bnt_record_section(&record) : 0, 0);
            continue;
        }
        known++;
        assert_true(role < BNT_ROLE_END);
        assert_int_equal(bnt_role_from_name(name), role);
    }
    assert_int_equal(known, 32);
    assert_int_equal(bnt_role_from_name("attn_x"), 0);
    assert_string_equal(bnt_dtype_name(BNT_I8), "i8");
    assert_string_equal(bnt_dtype_name(12345), "?");
}

// Every field, one below and one above its range.
static void hyperparameters_out_of_range_are_named(void **state)
{
#define CASE(field, value)                                                                         \
    {                                                                                              \
#field, offsetof(struct bnt_hyper, field), value                                           \
    }
    static const struct {
        const char *field;
        size_t offset;
        uint32_t value;
    } bad[] = {
        CASE(n_layers, 0),
        CASE(n_layers, 4097),
        CASE(hidden_size, 0),
        CASE(hidden_size, (1 << 20) + 1),
        CASE(ffn_size, 0),
        CASE(ffn_size, (1 << 20) + 1),
        CASE(n_heads, 0),
        CASE(n_heads, 4097),
        CASE(n_kv_heads, 0),
        CASE(n_kv_heads, 3),
        CASE(n_kv_heads, 8),
        CASE(head_dim, 0),
        CASE(head_dim, 1),
        CASE(head_dim, 7),
        CASE(head_dim, 4098),
        CASE(vocab_size, 0),
        CASE(vocab_size, (1 << 24) + 1),
        CASE(max_context, 0),
        CASE(max_context, (1 << 24) + 1),
        CASE(activation, 0),
        CASE(activation, 3),
        CASE(flags, BNT_HYPER_FLAGS_2 + 1),
        CASE(flags, BNT_HYPER_TIED | BNT_HYPER_TERNARY_OUTPUT),
        CASE(flags, BNT_HYPER_YARN_EXACT),
        CASE(flags, BNT_HYPER_NORMALIZED),
        CASE(linear_norm_eps, 0x3f800000),
        CASE(scale_group, 31),
        CASE(scale_group, 4128),
        CASE(scale_dtype, BNT_F32),
        CASE(activation_bits, 0),
        CASE(activation_bits, 12),
        CASE(rope_attention_factor, 0x3f800000),
        CASE(rope_beta_fast, 0x3f800000),
        CASE(rope_beta_slow, 0x3f800000),
        CASE(pooling, 4),
        CASE(reserved2[0], 1),
        CASE(reserved2[23], 1),
        CASE(flags, 0x80000000),
        CASE(norm_eps, 0),
        CASE(norm_eps, 0x80000000),
        CASE(norm_eps, 0x7f800000),
        CASE(norm_eps, 0x7fc00000),
        CASE(norm_eps, 0xb727c5ac),
        CASE(rope_scaling, 4),
        CASE(rope_factor, 0x80000000),
        CASE(bos_id, (uint32_t)-2),
        CASE(bos_id, 100),
        CASE(bos_id, 0x80000000),
        CASE(eos_count, 9),
        CASE(eos_id[0], 1),
        CASE(eos_id[7], 1),
        CASE(temperature, 0x7fc00000),
        CASE(temperature, 0xbf800000),
        CASE(temperature, 0x42c80001),
        CASE(top_p, 0),
        CASE(top_p, 0x3f800001),
        CASE(top_p, 0x7fc00000),
        CASE(top_p, 0xbf800000),
        CASE(reserved, 1),
    };
#undef CASE
    (void)state;
    for (size_t i = 0; i < TEST_COUNT(bad); i++) {
        struct bnt_hyper h = shape(4, 64, 64, 4, 2, 16, 100, 0);
        memcpy((uint8_t *)&h + bad[i].offset, &bad[i].value, 4);
        const char *problem = bnt_hyper_problem(&h);
        if (!problem || strncmp(problem, bad[i].field, strlen(problem)) != 0)
            fail_msg("%s = %u: %s", bad[i].field, bad[i].value, problem ? problem : "accepted");
    }
}

static void rope_scaling_is_checked(void **state)
{
    struct bnt_hyper good = shape(4, 64, 64, 4, 2, 16, 100, 0), h;
    good.rope_scaling = BNT_ROPE_LLAMA3;
    good.rope_factor = 8;
    good.rope_low_freq_factor = 1;
    good.rope_high_freq_factor = 4;
    good.rope_original_context = 8192;
    (void)state;
    assert_null(bnt_hyper_problem(&good));
    h = good;
    h.rope_factor = 0;
    assert_string_equal(bnt_hyper_problem(&h), "rope_factor");
    h = good;
    h.rope_high_freq_factor = 1; // must be greater than the low one
    assert_string_equal(bnt_hyper_problem(&h), "rope_high_freq_factor");
    h = good;
    h.rope_original_context = 0;
    assert_string_equal(bnt_hyper_problem(&h), "rope_original_context");
    h = good;
    h.rope_theta = -1;
    assert_string_equal(bnt_hyper_problem(&h), "rope_theta");
}

// Each field of yarn is needed with it, and only the factor with linear.
static void rope_scaling_of_version_2_is_checked(void **state)
{
    static const struct {
        const char *field;
        size_t offset;
    } fields[] = {
        {"rope_factor", offsetof(struct bnt_hyper, rope_factor)},
        {"rope_original_context", offsetof(struct bnt_hyper, rope_original_context)},
        {"rope_attention_factor", offsetof(struct bnt_hyper, rope_attention_factor)},
        {"rope_beta_fast", offsetof(struct bnt_hyper, rope_beta_fast)},
        {"rope_beta_slow", offsetof(struct bnt_hyper, rope_beta_slow)},
        {"rope_low_freq_factor", offsetof(struct bnt_hyper, rope_low_freq_factor)},
        {"rope_high_freq_factor", offsetof(struct bnt_hyper, rope_high_freq_factor)},
    };
    static const uint32_t one = 0x3f800000, zero = 0; // as an integer one is not zero either
    enum { OF_YARN = 5 };
    struct bnt_hyper yarn = shape(4, 64, 64, 4, 2, 16, 100, 0), linear = yarn;
    (void)state;
    yarn.rope_scaling = BNT_ROPE_YARN;
    for (size_t i = 0; i < OF_YARN; i++)
        memcpy((uint8_t *)&yarn + fields[i].offset, &one, sizeof one);
    linear.rope_scaling = BNT_ROPE_LINEAR;
    linear.rope_factor = 1;
    assert_null(bnt_hyper_problem(&yarn));
    assert_null(bnt_hyper_problem(&linear));
    struct bnt_hyper of_one = yarn;
    of_one.rope_theta = 1; // its logarithm is 0
    assert_string_equal(bnt_hyper_problem(&of_one), "rope_theta");
    for (size_t i = 0; i < TEST_COUNT(fields); i++) {
        struct bnt_hyper h = yarn;
        memcpy((uint8_t *)&h + fields[i].offset, i < OF_YARN ? &zero : &one, sizeof one);
        assert_string_equal(bnt_hyper_problem(&h), fields[i].field);
        h = linear;
        memcpy((uint8_t *)&h + fields[i].offset, i == 0 ? &zero : &one, sizeof one);
        assert_string_equal(bnt_hyper_problem(&h), fields[i].field);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cursor_gives_what_is_there_and_no_more),
        cmocka_unit_test(products_that_overflow_do_not_fit),
        cmocka_unit_test(every_code_point_makes_the_round_trip),
        cmocka_unit_test(every_sequence_at_the_borders_of_the_table),
        cmocka_unit_test(maximal_subparts_are_those_of_the_standard),
        cmocka_unit_test(the_longest_valid_beginning_is_found),
        cmocka_unit_test(tensors_lie_tight_and_aligned_for_any_shape),
        cmocka_unit_test(tensors_of_version_2_lie_tight_and_aligned),
        cmocka_unit_test(roles_and_their_names),
        cmocka_unit_test(hyperparameters_out_of_range_are_named),
        cmocka_unit_test(rope_scaling_is_checked),
        cmocka_unit_test(rope_scaling_of_version_2_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
