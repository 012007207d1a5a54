// SPDX-License-Identifier: MIT
#include "runtime/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "formats/utf8.h"

bool bnt_encoder_reserve(void **array, size_t *capacity, size_t count, size_t size)
{
    if (count <= *capacity)
        return true;
    size_t wanted = *capacity ? *capacity * 2 : 64;
    wanted = wanted < count ? count : wanted;
    size_t bytes;
    if (__builtin_mul_overflow(wanted, size, &bytes))
        return false;
    void *grown = realloc(*array, bytes);
    if (!grown)
        return false;
    *array = grown;
    *capacity = wanted;
    return true;
}

bool bnt_encoder_put(struct bnt_encoder *e, uint32_t id)
{
    if (!bnt_encoder_reserve((void **)&e->ids, &e->ids_capacity, e->n_ids + 1, sizeof e->ids[0]))
        return false;
    e->ids[e->n_ids++] = id;
    return true;
}

int64_t bnt_bpe_lookup(const struct bnt_model *model, const uint8_t *bytes, size_t size)
{
    const struct bnt_tokenizer_view *v = &model->tokenizer;
    uint32_t low = 0, high = v->record.n_lookup;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        size_t token_size;
        const uint8_t *token = bnt_token_bytes(v, v->lookup[middle], &token_size);
        int order = memcmp(token, bytes, token_size < size ? token_size : size);
        if (order == 0)
            order = (token_size > size) - (token_size < size);
        if (order == 0)
            return v->lookup[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

static const struct bnt_merge_record *find_merge(const struct bnt_tokenizer_view *v, uint32_t left,
                                                 uint32_t right)
{
    const uint64_t key = (uint64_t)left << 32 | right;
    uint32_t low = 0, high = v->record.n_merges;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct bnt_merge_record *m = &v->merges[middle];
        if (((uint64_t)m->left << 32 | m->right) < key)
            low = middle + 1;
        else
            high = middle;
    }
    const struct bnt_merge_record *m = v->merges + low;
    return low < v->record.n_merges && m->left == left && m->right == right ? m : NULL;
}

// --- where merges can meet ---

void bnt_bpe_bind(struct bnt_model *model)
{
    const struct bnt_tokenizer_view *v = &model->tokenizer;
    for (uint32_t i = 0; i < v->record.n_merges; i++) {
        size_t size;
        const uint8_t *left = bnt_token_bytes(v, v->merges[i].left, &size);
        unsigned last = left[size - 1]; // R25: neither is empty
        unsigned first = bnt_token_bytes(v, v->merges[i].right, &size)[0];
        model->meets[last][first / 8] |= (uint8_t)(1u << first % 8);
    }
}

// Whether some merge joins a symbol that ends with byte a to one that begins with byte b.
static bool can_meet(const struct bnt_model *model, uint8_t a, uint8_t b)
{
    return model->meets[a][b / 8] >> b % 8 & 1;
}

// --- a heap of pairs, the lowest rank and then the leftmost on top ---

static bool comes_before(const struct bnt_bpe_pair *a, const struct bnt_bpe_pair *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void swap(struct bnt_bpe_pair *a, struct bnt_bpe_pair *b)
{
    struct bnt_bpe_pair t = *a;
    *a = *b;
    *b = t;
}

static bool push(struct bnt_encoder *e, struct bnt_bpe_pair pair)
{
    if (!bnt_encoder_reserve((void **)&e->heap, &e->heap_capacity, e->n_heap + 1,
                             sizeof e->heap[0]))
        return false;
    size_t i = e->n_heap++;
    e->heap[i] = pair;
    for (; i > 0 && comes_before(&e->heap[i], &e->heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&e->heap[i], &e->heap[(i - 1) / 2]);
    return true;
}

static struct bnt_bpe_pair pop(struct bnt_encoder *e)
{
    struct bnt_bpe_pair top = e->heap[0];
    e->heap[0] = e->heap[--e->n_heap];
    for (size_t i = 0;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < e->n_heap; child++)
            least = comes_before(&e->heap[child], &e->heap[least]) ? child : least;
        if (least == i)
            return top;
        swap(&e->heap[i], &e->heap[least]);
        i = least;
    }
}

// Notes the pair of symbols at `at` and its right neighbour, if it can be merged.
static bool consider(struct bnt_encoder *e, uint32_t at)
{
    uint32_t next = at == BNT_BPE_NONE ? BNT_BPE_NONE : e->symbols[at].next;
    if (next == BNT_BPE_NONE)
        return true;
    const struct bnt_merge_record *m =
        find_merge(&e->model->tokenizer, e->symbols[at].id, e->symbols[next].id);
    return !m || push(e, (struct bnt_bpe_pair){.rank = m->rank, .at = at});
}

// Merges the pair, unless its symbols have become others since it was noted.
static bool merge(struct bnt_encoder *e, const struct bnt_bpe_pair *p)
{
    struct bnt_bpe_symbol *left = &e->symbols[p->at];
    if (left->id == BNT_BPE_NONE || left->next == BNT_BPE_NONE)
        return true;
    struct bnt_bpe_symbol *right = &e->symbols[left->next];
    const struct bnt_merge_record *m = find_merge(&e->model->tokenizer, left->id, right->id);
    if (!m || m->rank != p->rank)
        return true;
    left->id = m->result;
    right->id = BNT_BPE_NONE;
    left->next = right->next;
    if (left->next != BNT_BPE_NONE)
        e->symbols[left->next].previous = p->at;
    return consider(e, left->previous) && consider(e, p->at);
}

// The symbols of a piece, or of a part of one, as they are made.
struct maker {
    struct bnt_encoder *encoder;
    uint32_t count;
    bool after_unk; // the last symbol stands for something unknown
};

static bool put_symbol(struct maker *m, uint32_t id)
{
    struct bnt_encoder *e = m->encoder;
    uint32_t n = m->count++;
    if (!bnt_encoder_reserve((void **)&e->symbols, &e->symbols_capacity, m->count,
                             sizeof e->symbols[0]))
        return false;
    e->symbols[n] = (struct bnt_bpe_symbol){.id = id, .previous = n - 1, .next = n + 1};
    m->after_unk = false;
    return true;
}

// What has no token of its own: byte tokens, the unknown token, or nothing.
static bool put_unknown(struct maker *m, const uint8_t *bytes, size_t size)
{
    const struct bnt_model *model = m->encoder->model;
    const struct bnt_tokenizer_record *r = &model->tokenizer.record;
    bool spell = r->flags & BNT_TOKENIZER_BYTE_FALLBACK;
    for (size_t i = 0; i < size; i++)
        spell = spell && model->byte_token[bytes[i]] >= 0;
    if (spell) {
        for (size_t i = 0; i < size; i++) {
            if (!put_symbol(m, (uint32_t)model->byte_token[bytes[i]]))
                return false;
        }
    } else if (r->unk_id != BNT_NO_TOKEN) {
        if (!(m->after_unk && r->flags & BNT_TOKENIZER_FUSE_UNK) && !put_symbol(m, r->unk_id))
            return false;
        m->after_unk = true;
    }
    return true;
}

// The text of the last byte or character: with what ends a word.
static size_t end_word(const struct bnt_model *model, uint8_t *unit, size_t size)
{
    const struct bnt_step_record *end = bnt_end_of_word(&model->tokenizer);
    if (!end)
        return size;
    memcpy(unit + size, model->tokenizer.pool + end->offset, end->size);
    return size + end->size;
}

// One symbol for each byte or character, up to the end of the piece or a place that no merge
// crosses: *size becomes what was taken. Such a place lies between two known bytes or characters;
// what is unknown may vanish or be fused.
static bool make_symbols(struct bnt_encoder *e, const uint8_t *piece, size_t *size, uint32_t *count)
{
    const bool bytes = e->model->tokenizer.record.kind == BNT_TOKENIZER_BYTE_BPE;
    struct maker m = {.encoder = e};
    uint8_t last[4 + BNT_TOKENIZER_MAX_SUFFIX];
    bool known = false; // what is before `at`
    size_t at = 0;
    while (at < *size) {
        size_t n = bytes ? 1 : (size_t)bnt_utf8_next(piece + at, *size - at, NULL);
        const uint8_t *unit = piece + at;
        size_t unit_size = n;
        if (at + n == *size) {
            memcpy(last, unit, n);
            unit = last;
            unit_size = end_word(e->model, last, n);
        }
        int64_t id = bytes && unit_size == 1 ? e->model->byte_token[*unit]
                                             : bnt_bpe_lookup(e->model, unit, unit_size);
        if (known && id >= 0 && !can_meet(e->model, piece[at - 1], piece[at]))
            break;
        known = id >= 0;
        if (!(known ? put_symbol(&m, (uint32_t)id) : put_unknown(&m, unit, unit_size)))
            return false;
        at += n;
    }
    if (m.count > 0)
        e->symbols[m.count - 1].next = BNT_BPE_NONE; // 0 − 1 of the first is BNT_BPE_NONE as well
    *count = m.count;
    *size = at;
    return true;
}

// Merges what make_symbols made, and appends its tokens.
static bool merge_symbols(struct bnt_encoder *e, uint32_t n)
{
    e->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!consider(e, i))
            return false;
    }
    while (e->n_heap > 0) {
        struct bnt_bpe_pair top = pop(e);
        if (!merge(e, &top))
            return false;
    }
    for (uint32_t i = 0; n > 0 && i != BNT_BPE_NONE; i = e->symbols[i].next) {
        if (!bnt_encoder_put(e, e->symbols[i].id))
            return false;
    }
    return true;
}

bool bnt_bpe_encode(struct bnt_encoder *e, const uint8_t *piece, size_t size)
{
    if (e->model->tokenizer.record.flags & BNT_TOKENIZER_IGNORE_MERGES) {
        int64_t id = bnt_bpe_lookup(e->model, piece, size);
        if (id >= 0)
            return bnt_encoder_put(e, (uint32_t)id);
    }
    for (size_t at = 0; at < size;) {
        size_t part = size - at;
        uint32_t n;
        if (!make_symbols(e, piece + at, &part, &n) || !merge_symbols(e, n))
            return false;
        at += part;
    }
    return true;
}
