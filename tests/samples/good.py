# SPDX-License-Identifier: MIT
"""The good samples: an implementer who can read 01 goes on to 02, each of which adds one thing.

Everything is made from fixed formulas; where many different values are wanted, SHAKE-256 of a label gives them,
which no Python version can change.
"""
import hashlib
import json
from dataclasses import replace

import chat
import container
import floats
import layout
import ternary
import tokn
from layout import ROLES
from model import Int8, Matrix, Model, write

HYPER = dict(
    n_layers=1, hidden_size=2, ffn_size=1, n_heads=1, n_kv_heads=1, head_dim=2, vocab_size=1, max_context=1,
    activation=1, flags=layout.TIED, norm_eps=floats.f32(1e-5), rope_scaling=0, rope_theta=10000.0, rope_factor=0.0,
    rope_low_freq_factor=0.0, rope_high_freq_factor=0.0, rope_original_context=0, bos_id=-1, eos_count=0,
    eos_id=[0] * 8, temperature=0.0, top_p=1.0, top_k=0, reserved=0, **layout.VERSION_1)


def noise(name, size):
    return hashlib.shake_256(str(name).encode()).digest(size)


def first_row(_name, rows, cols):
    """The simplest matrix that shows where a row lies: +1 in row 0, zero elsewhere."""
    return b'\1' * cols + bytes((rows - 1) * cols)


def mixed(name, rows, cols):
    return noise(name, rows * cols).translate(bytes((b % 3 - 1) & 0xFF for b in range(256)))


def make(weights=mixed, **hyper):
    """A model of these hyperparameters (HYPER for the rest). γ and the dense values are 1 if weights are first_row."""
    model = Model({**HYPER, **hyper})
    plain = weights is first_row
    for layer, number in layout.tensor_keys(model.hyper, False):
        role, (rows, cols) = ROLES[number], layout.shape(number, model.hyper)
        key = (layer if role.per_layer else None, role.name)
        if layout.is_ternary(number, model.hyper):
            gamma = 1.0 if plain else (1 + noise((key, 'gamma'), 1)[0]) / 64
            model.ternary[key] = Matrix(rows, cols, weights(key, rows, cols), gamma)
            if model.hyper['scale_group']:
                model.ternary[key].gamma = 0.0
                model.ternary[key].scales = scales(model.hyper, plain, key, rows * layout.groups(cols, model.hyper))
        elif role.section == 'NORM':
            model.norms[key] = [1.0 if plain else 0.5 + b / 256 for b in noise(key, cols)]
        else:
            model.embeddings[role.name] = embedding(model.hyper, plain, key, rows * cols)
    return model


def scales(hyper, plain, key, count):
    """Halves, or f32 values that no half can hold; one of them is 0."""
    values = [1.0 if plain else (1 + b) / 1024 for b in noise((key, 'scales'), count)]
    values[-1] = 0.0 if count > 1 else values[-1]
    return values if hyper['scale_dtype'] == layout.F16 else [x + 2.0 ** -20 if x else x for x in values]


def embedding(hyper, plain, key, count):
    """Bytes of bf16, or of f32 values that no bf16 can hold; exact, so that nothing is rounded."""
    values = [1.0 if plain else (b - 128) / 64 for b in noise(key, count)]
    if hyper['flags'] & layout.F32_EMBEDDINGS:
        return floats.float_bytes([x + 2.0 ** -20 for x in values])
    return floats.to_bf16(values)


def smallest():
    """Section 12."""
    return make(first_row)


def sub_norms():
    return make(first_row, flags=layout.TIED | layout.SUB_NORMS)


def untied():
    return make(first_row, flags=0)


def two_layers():
    return make(n_layers=2)


def grouped_heads():
    """q of 32 rows, k and v of 16: nothing to pad in the rows, so that q|k|v is one matrix of 64."""
    return make(hidden_size=32, ffn_size=64, n_heads=4, n_kv_heads=2, head_dim=8, vocab_size=3)


def odd_sizes():
    """q of 18 rows, k and v of 6, hidden 35, ffn 33: padding in rows and columns of every matrix."""
    return make(hidden_size=35, ffn_size=33, n_heads=3, n_kv_heads=1, head_dim=6, vocab_size=5, n_layers=2,
                flags=layout.TIED | layout.SUB_NORMS)


def relu2():
    return make(activation=2)


def llama3_rope():
    return make(rope_scaling=1, rope_theta=500000.0, rope_factor=32.0, rope_low_freq_factor=1.0,
                rope_high_freq_factor=4.0, rope_original_context=8192, max_context=131072)


def sampling_defaults():
    return make(vocab_size=9, bos_id=0, eos_count=8, eos_id=[8, 7, 6, 5, 4, 3, 2, 1], temperature=floats.f32(0.6),
                top_p=floats.f32(0.9), top_k=50, max_context=4096)


def sampling_more():
    """SAMP, which 1.1 brought."""
    return replace(sampling_defaults(), version_minor=1, sampling={
        'repetition_penalty': floats.f32(1.1), 'presence_penalty': 0.5, 'frequency_penalty': -0.25,
        'min_p': floats.f32(0.05), 'max_new_tokens': 2048})


def sampling_extremes():
    """Ends of the ranges, and a minor version that could be lower."""
    return replace(smallest(), version_minor=9, sampling={
        'repetition_penalty': 100.0, 'presence_penalty': -2.0, 'frequency_penalty': 2.0, 'min_p': 1.0,
        'max_new_tokens': 0xFFFFFFFF})


def sampling_off():
    """A section that says nothing; bnt-pack would not write it."""
    return replace(smallest(), version_minor=1, sampling={'repetition_penalty': 1.0})


def with_int8(model):
    role = 33 if model.hyper['flags'] & layout.TIED else 34
    size = layout.ITEM_SIZE[layout.dtype(role, model.hyper)]
    model.int8 = Int8(*floats.int8_copy(model.embeddings[ROLES[role].name], model.hyper['hidden_size'], size))
    return model


def int8_tied():
    """Rows of every kind: zero, below 2^−100, ties that go to even, the largest bf16."""
    model = make(hidden_size=4, vocab_size=7)
    rows = [[0.0] * 4, [2.0 ** -101, -2.0 ** -110, 0.0, 2.0 ** -120], [2.0 ** -100, 0.0, -2.0 ** -100, 2.0 ** -101],
            [127.0, 0.5, 1.5, -2.5], [-127.0, 126.5, -126.5, 3.5], [2.0 ** 127 * 1.9921875, -2.0 ** 120, 1.0, -0.0],
            [1.0, -0.33984375, 0.00390625, -0.00393676758]]
    rows[6][3] = floats.from_bf16(b'\x81\xbb')[0]
    model.embeddings['token_embedding'] = floats.to_bf16([x for row in rows for x in row])
    return with_int8(model)


def int8_untied():
    return with_int8(make(flags=0, hidden_size=6, vocab_size=5))


def f32_tied():
    return make(flags=layout.TIED | layout.F32_EMBEDDINGS, hidden_size=3, vocab_size=5)


def f32_untied():
    return make(flags=layout.F32_EMBEDDINGS, hidden_size=3, vocab_size=5)


def f32_int8_tied():
    """What bf16 rows cannot have: the largest value below 2^−100, denormals, the largest f32, almost ties."""
    model = make(flags=layout.TIED | layout.F32_EMBEDDINGS, hidden_size=4, vocab_size=5)
    rows = [[2.0 ** -100 - 2.0 ** -124, 0.0, -0.0, 2.0 ** -149], [2.0 ** -100, 2.0 ** -149, 0.0, -1e-33],
            [2.0 ** 128 - 2.0 ** 104, -1e38, 1.0, 1.3397e36], [127.0, 0.5 + 2.0 ** -24, 1.5 - 2.0 ** -23, -2.5],
            [1.0, -1 / 3, 1 / 6, 2.5 / 127]]
    model.embeddings['token_embedding'] = floats.float_bytes([x for row in rows for x in row])
    return with_int8(model)


def f32_int8_untied():
    return with_int8(make(flags=layout.F32_EMBEDDINGS, hidden_size=6, vocab_size=5))


def bpe(words, merges, **more):
    """A tokenizer of the words: lookup holds all, merges are pairs of words in the order of their rank."""
    ids = {word: i for i, word in enumerate(words)}
    table = sorted(tokn.Merge(ids[a], ids[b], rank, ids[a + b]) for rank, (a, b) in enumerate(merges))
    lookup = sorted(range(len(words)), key=words.__getitem__)
    return tokn.Tokenizer(words, lookup, table, attr=bytes(len(words)), **more)


def with_tokenizer(tokenizer, **hyper):
    model = make(vocab_size=len(tokenizer.tokens), **hyper)
    model.tokenizer = tokenizer
    return model


def tokenizer():
    """Six tokens, two merges, no pattern: "abc" is 5, "ab c" is 4 3 2."""
    words = [b'a', b'b', b'c', b' ', b'ab', b'abc']
    return with_tokenizer(bpe(words, [(b'a', b'b'), (b'ab', b'c')]))


CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"


def tokenizer_full():
    """Every array in use. Id 8 is a hole, 9 and 10 are special, 11 is an added word that takes its white space in.
    A text is put between <s> and </s>; é is made of two bytes."""
    t = bpe([b'h', b'i', b' ', b'\xc3', b'\xa9', b'hi', b' hi', b'\xc3\xa9'],
            [(b'h', b'i'), (b' ', b'hi'), (b'\xc3', b'\xa9')])
    t.tokens = t.tokens + [b'', b'<s>', b'</s>', b'<word>']
    t.attr = bytes([0] * 8 + [tokn.ATTR_HOLE] + [tokn.ATTR_SPECIAL | tokn.ATTR_ADDED] * 2 + [tokn.ATTR_ADDED])
    t.added = [tokn.Added(10, tokn.SPECIAL, b'</s>'), tokn.Added(9, tokn.SPECIAL, b'<s>'),
               tokn.Added(11, tokn.SINGLE_WORD | tokn.LSTRIP | tokn.RSTRIP, b'<word>')]
    t.steps = [tokn.Step(tokn.SPLIT, tokn.ISOLATED, 0, rb'\d{1,3}'),
               tokn.Step(tokn.SPLIT, tokn.REMOVED, 1, rb' ?\p{L}+|\s+|[^\s\p{L}]+')]
    t.prefix, t.suffix, t.chat = [9], [10], CHAT.encode()
    return with_tokenizer(t, bos_id=9, eos_count=1, eos_id=[10] + [0] * 7)


def tokenizer_flags():
    """ignore_merges (" hi" is a token that no merge makes) and a prefix space."""
    t = bpe([b'h', b'i', b' ', b' hi'], [], flags=tokn.IGNORE_MERGES)
    t.steps = [tokn.Step(tokn.PREFIX, tokn.EVERY_PIECE, 0, b' ')]
    return with_tokenizer(t)


def tokenizer_characters():
    """Kind 2, as SentencePiece's are: U+2581 of the input is a space, é is spelled in byte tokens, ü lacks one of the
    two that it takes. "a b" is an added token that is looked for when the normalizer is done."""
    t = bpe([b'<unk>', b'<s>', b'\xc3', b'\xa9', b'a b', b' ', b'h', b'i', b'hi', b' hi', 'ñ'.encode()],
            [(b'h', b'i'), (b' ', b'hi')], kind=tokn.CHARACTERS, unk_id=0, prefix=[1], n_normalizers=3,
            flags=tokn.BYTE_FALLBACK | tokn.FUSE_UNK | tokn.DROP_LEADING_SPACE)
    t.lookup = [i for i in t.lookup if i > 4]
    t.attr = bytes([tokn.ATTR_SPECIAL | tokn.ATTR_ADDED] * 2 + [tokn.ATTR_BYTE] * 2 + [tokn.ATTR_ADDED] + [0] * 6)
    t.added = [tokn.Added(1, tokn.SPECIAL, b'<s>'), tokn.Added(0, tokn.SPECIAL, b'<unk>'),
               tokn.Added(4, tokn.NORMALIZED, b'a b')]
    t.steps = [tokn.Step(tokn.NFC, 0, 0, b''), tokn.Step(tokn.REPLACE, 0, 0, '\u2581'.encode(), b' '),
               tokn.Step(tokn.PREPEND, 0, 0, b' ')]
    return with_tokenizer(t)


def tokenizer_first():
    """A space before the text, but not before each of its pieces; what a replacement leaves empty is dropped."""
    t = bpe([b'h', b'i', b' ', b' h', b' hi'], [(b' ', b'h'), (b' h', b'i')], flags=tokn.DROP_FIRST_SPACES,
            n_normalizers=1)
    t.steps = [tokn.Step(tokn.PREFIX, tokn.FIRST_PIECE, 0, b' '), tokn.Step(tokn.REPLACE, 0, 0, b'-', b''),
               tokn.Step(tokn.SPLIT, tokn.MERGED_WITH_NEXT, 0, b' '), tokn.Step(tokn.PREFIX, tokn.FIRST_PIECE, 0, b' ')]
    return with_tokenizer(t)


def tokenizer_steps():
    """As many pre-tokenizer steps as there may be, with every behavior."""
    model = tokenizer()
    model.tokenizer.steps = [tokn.Step(tokn.SPLIT, i % 5, i % 2, b' ') for i in range(63)] + [
        tokn.Step(tokn.PREFIX, tokn.FIRST_PIECE, 0, b' ')]
    return model


def tokenizer_added():
    """Added tokens, ascending by their texts as bytes: a prefix sorts first, what is above ASCII last; two texts may
    yield one id. Each would be another order by id, by length or as signed bytes."""
    t = bpe([b'a', b'b'], [])
    texts = ['<', '<a>', '<a><b>', '<b>', 'B', 'b!', '\x7f', '\xe9', '\u2581', '\U0001f600']
    t.tokens += [text.encode() for text in texts[::-1]]
    t.attr = bytes([0, 0] + [tokn.ATTR_ADDED] * len(texts))
    t.added = [tokn.Added(11 - i, tokn.SPECIAL * (i % 2), text.encode()) for i, text in enumerate(texts)]
    t.added.insert(1, tokn.Added(11, 0, b'<<'))
    return with_tokenizer(t)


def tokenizer_long():
    """Texts as long as they may be, of an added token and of steps."""
    t = bpe([b'a', b'b'], [], n_normalizers=1)
    t.added = [tokn.Added(1, 0, b'b' * 1024)]
    t.steps = [tokn.Step(tokn.REPLACE, 0, 0, b'a' * 65535, b'b'), tokn.Step(tokn.PREFIX, 0, 0, b'b' * 65534 + b'a')]
    return with_tokenizer(t)


def tokenizer_empty_matches():
    """Patterns that match nothing, which separates: between a and b, before each c, where a line begins or ends. The
    last finds nothing at every b rather than the b, and goes on behind it."""
    model = tokenizer()
    model.tokenizer.steps = [
        tokn.Step(tokn.SPLIT, tokn.ISOLATED, 0, b'(?<=a)(?=b)'), tokn.Step(tokn.SPLIT, tokn.CONTIGUOUS, 1, b'(?=c)'),
        tokn.Step(tokn.SPLIT, tokn.MERGED_WITH_NEXT, 0, b'^|$'), tokn.Step(tokn.SPLIT, tokn.REMOVED, 0, b'(?=b)|b')]
    return model


def tokenizer_byte_level():
    """What follows byte_level sees characters for bytes: \u0120 is the space, \u00c3 the first byte of \u00e9. Words end in "</w>"."""
    t = bpe([b'a', b'b', b' ', b'\xc3', b'\xa9', b'a</w>', b'b</w>', b'\xa9</w>', b'ab</w>', b'</w>', b' </w>'],
            [(b'a', b'b</w>')])
    t.steps = [tokn.Step(tokn.SPLIT, tokn.MERGED_WITH_NEXT, 0, b' '), tokn.Step(tokn.BYTE_LEVEL, 0, 0, b''),
               tokn.Step(tokn.SPLIT, tokn.ISOLATED, 0, '\u0120|\u00c3(?=b)'.encode()), tokn.Step(tokn.END_OF_WORD, 0, 0, b'</w>')]
    return with_tokenizer(t)


def tokenizer_forms():
    """Every normalizer step that the others lack: a text becomes form KC and small, white space one space, \u00e9 two characters, \u00bd three."""
    t = bpe([b'a', b'b', b' ', b'e', '\u0301'.encode(), b'1', b'2', '\u2044'.encode()], [], kind=tokn.CHARACTERS,
            n_normalizers=5)
    t.steps = [tokn.Step(tokn.NFKC, 0, 0, b''), tokn.Step(tokn.LOWERCASE, 0, 0, b''),
               tokn.Step(tokn.REPLACE_PATTERN, 0, 0, rb'\s+', b' '), tokn.Step(tokn.NFD, 0, 0, b''),
               tokn.Step(tokn.NFKD, 0, 0, b'')]
    return with_tokenizer(t)


def chat_texts():
    """A conversation in the manner of llama3, with the texts that tokenizer_full has tokens for."""
    model = tokenizer_full()
    texts = {'name': 'sample', 'begin': '<s>', 'system_before': '', 'system_after': ' ', 'user_before': 'h',
             'user_after': '</s>', 'assistant_before': 'é', 'assistant_after': '</s>', 'default_system': 'hi'}
    model.chat = chat.Chat({name: text.encode() for name, text in texts.items()}, [10, 11], chat.TRIM)
    return model


def chat_empty():
    """A conversation that is nothing but what is said."""
    return replace(tokenizer(), chat=chat.Chat({}))


def chat_other_pool():
    """Not in canonical form: the texts lie in the pool as they please, begin and user_after on the same bytes; one that
    is empty says where."""
    raw = write(replace(tokenizer(), chat=chat.Chat({'name': b'abc'})))
    record = next(r for r in container.records(raw) if container.name(r) == 'CHAT')
    at = record.offset
    ranges = layout.struct.pack('<8I', 2, 1, 0, 2, 0, 0, 3, 0)  # name, begin, system_before, system_after
    raw = raw[:at + 24] + ranges + raw[at + 56:]
    return container.fix_checksums(raw[:at + 64] + layout.struct.pack('<2I', 0, 2) + raw[at + 72:])


def conv_texts():
    """What CHAT cannot say: no system text, and thinking that is dropped from answers that another turn follows."""
    talk = chat_texts().chat
    texts = {name: text for name, text in talk.texts.items() if not name.startswith(('system', 'default'))}
    flags = chat.TRIM_USER | chat.NO_SYSTEM | chat.DROP_THINKING | chat.DROP_NEWLINES
    return replace(tokenizer_full(), chat=chat.Chat(texts, talk.stop, flags, 'CONV'), version_minor=1)


PROVENANCE = {
    'converter': 'bnt-convert 0.1.0', 'packer': 'bnt-pack 0.1.0', 'architecture': 'BitNetForCausalLM',
    'form': 'masters, bf16', 'rounding': 'half_even', 'repository': None, 'commit': None, 'license': 'MIT',
    'sources': [{'file': 'model.safetensors', 'size': 0, 'sha256': hashlib.sha256(b'').hexdigest()}]}


def with_provenance(model, **more):
    model.provenance = json.dumps({**PROVENANCE, **more}, ensure_ascii=False).encode('utf-8')
    return model


def provenance():
    return with_provenance(smallest(), license='Übung 1.0')


def matrices(model):
    names = ('minus', 'zero', 'plus')
    return [{'layer': layer, 'role': role, 'gamma': m.gamma, **dict(zip(names, ternary.counts(m.weights)))}
            for (layer, role), m in model.ternary.items()]


def provenance_matrices():
    model = make(n_layers=2)
    return with_provenance(model, matrices=matrices(model))


def provenance_limits():
    """The edges of section 9: nesting of 100 with the outermost object, the ends of i64, a key again in another object,
    a surrogate pair, all the escapes, the largest f64 and one that is zero after rounding."""
    model = smallest()
    model.provenance = (
        b' {"nesting": ' + b'[{"a":' * 49 + b'[]' + b'}]' * 49 + b',\r\n\t"integers": [-9223372036854775808, '
        b'9223372036854775807, -0], "reals": [1.7976931348623157e308, -1E-999, 0.5e+00], "a": {"a": {"a": null}}, '
        b'"text": "\\ud83d\\uDE00\\u0001\\"\\\\\\/\\b\\f\\n\\r\\t\x7f\xf4\x8f\xbf\xbf\xef\xbf\xbf", "": {}} ')
    return model


def provenance_nul():
    """U+0000 may not be in a text; behind an escaped backslash u0000 is no such."""
    model = smallest()
    model.provenance = b'{"license": "\\\\u0000", "\\\\u0000": ["\\\\\\\\u0000", "\\u0001"]}'
    return model


def unknown_section():
    """Optional and unknown: to be skipped."""
    return replace(smallest(), extra=[('XTRA', b'a section that 1.0 does not know')])


def odd_type():
    """Whether a type is letters and digits is not judged."""
    return replace(smallest(), extra=[('\xff\x1b"\0', b'nor is what it holds')])


def newer_minor():
    return replace(unknown_section(), version_minor=7)


def extremes():
    """The edges of what the rules allow: denormals, largest values, both zeros, ranges' ends."""
    model = make(n_heads=2, head_dim=2, flags=layout.SUB_NORMS, max_context=1 << 24, top_k=0xFFFFFFFF,
                 norm_eps=2.0 ** -149, rope_theta=5e-324, temperature=100.0, top_p=2.0 ** -149)
    largest = floats.f32(3.4028234663852886e38)
    model.norms[None, 'final_norm'] = [largest, -2.0 ** -149]
    model.norms[0, 'attn_norm'] = [-0.0, 0.0]
    model.embeddings['output'] = bytes.fromhex('7F7F 7FFF')
    model.ternary[0, 'attn_q'].gamma = largest
    model.ternary[0, 'attn_k'].gamma = 2.0 ** -149
    return model


def everything():
    """All sections at once, sizes that need padding, an unknown section at the end."""
    model = replace(chat_texts(), extra=[('XTRA', bytes(range(256)))])
    shapes = make(hidden_size=35, ffn_size=33, n_heads=3, n_kv_heads=1, head_dim=6, n_layers=2, flags=layout.SUB_NORMS,
                  vocab_size=12, bos_id=9)
    model.hyper, model.norms, model.embeddings, model.ternary = (
        shapes.hyper, shapes.norms, shapes.embeddings, shapes.ternary)
    return with_provenance(with_int8(model), matrices=matrices(model))


def any_order():
    """Not in canonical order: PROV first, the tensor table before what it describes."""
    raw = write(provenance())
    found = {container.name(r): (r, container.body(raw, r)) for r in container.records(raw)}
    names = ['PROV', 'TENS', 'TERN', 'HYPR', 'EMBD', 'NORM']
    starts = dict(zip(names, container.offsets([found[n][0].size for n in names])))
    moved = [move(layout.Tensor(*t), found, starts) for t in layout.TENSOR.iter_unpack(found['TENS'][1])]
    found['TENS'] = found['TENS'][0], b''.join(layout.TENSOR.pack(*t) for t in moved)
    return container.assemble([container.section(n, found[n][1]) for n in names])


def move(tensor, found, starts):
    kind = ROLES[tensor.role].section
    return tensor._replace(offset=tensor.offset - found[kind][0].offset + starts[kind])


# Version 2, a fact each.

GROUPS_32 = dict(scale_group=32, scale_dtype=layout.F16)
ROWS = dict(scale_group=layout.WHOLE_ROW, scale_dtype=layout.F16)


def activation_16():
    """The smallest file of version 2: one scale a matrix, inputs of 16 bits."""
    return make(first_row, activation_bits=16)


def groups_f16():
    """One group, two and a short one: the scales of 33 columns are two a row."""
    return make(hidden_size=33, ffn_size=64, n_heads=2, n_kv_heads=1, head_dim=10, vocab_size=3, **GROUPS_32)


def groups_f32():
    return make(hidden_size=96, ffn_size=80, n_heads=2, head_dim=16, vocab_size=3, scale_group=64,
                scale_dtype=layout.F32, activation_bits=16)


def groups_wider_than_rows():
    """A group that no row fills is one scale a row, too."""
    return make(hidden_size=35, scale_group=4096, scale_dtype=layout.F32)


def row_scales_f16():
    return make(hidden_size=20, ffn_size=33, **ROWS)


def row_scales_f32():
    return make(hidden_size=20, ffn_size=33, scale_group=layout.WHOLE_ROW, scale_dtype=layout.F32)


def ternary_embedding_tied():
    """It makes the logits too, so that EMBD is not there."""
    return make(flags=layout.TIED | layout.TERNARY_EMBEDDING, hidden_size=3, vocab_size=17)


def ternary_embedding_dense_output():
    """With the int8 copy of the output matrix, which is ordinary."""
    return with_int8(make(flags=layout.TERNARY_EMBEDDING, hidden_size=3, vocab_size=17))


def dense_embedding_ternary_output():
    return make(flags=layout.TERNARY_OUTPUT | layout.F32_EMBEDDINGS, hidden_size=3, vocab_size=17)


def ternary_embedding_and_output():
    return make(flags=layout.TERNARY_EMBEDDING | layout.TERNARY_OUTPUT, hidden_size=40, vocab_size=17, **GROUPS_32)


def biases_of_q_k_v():
    return make(flags=layout.TIED | layout.QKV_BIAS, hidden_size=3, n_heads=2, head_dim=4)


def biases():
    return make(flags=layout.TIED | layout.QKV_BIAS | layout.O_BIAS | layout.FFN_BIAS, hidden_size=3, ffn_size=5)


def qk_norms():
    return make(flags=layout.TIED | layout.QK_NORMS, n_heads=4, n_kv_heads=2, head_dim=6)


def linear_norms():
    return make(flags=layout.TIED | layout.LINEAR_NORMS, hidden_size=3, ffn_size=5, linear_norm_eps=floats.f32(1e-6))


YARN = dict(rope_scaling=layout.YARN, rope_theta=1000000.0, rope_factor=4.0, rope_original_context=32, max_context=128,
            rope_attention_factor=floats.f32(1.138629436), rope_beta_fast=32.0, rope_beta_slow=1.0)


def yarn():
    return make(**YARN)


def yarn_not_rounded():
    """And what it may be: a factor below 1, both ends in one place."""
    return make(flags=layout.TIED | layout.YARN_NOT_ROUNDED,
                **{**YARN, 'rope_factor': 0.5, 'rope_beta_slow': 32.0, 'rope_original_context': 1})


def linear_rope():
    return make(rope_scaling=layout.LINEAR, rope_factor=2.5)


def pooling_last():
    return make(flags=layout.TIED | layout.UNIT_VECTOR, pooling=1)


def pooling_mean():
    return make(pooling=2)


def pooling_first():
    return make(pooling=3)


def provenance_scales():
    """gamma is 0 where scales are by row and group, layer is null where there is none."""
    model = make(flags=layout.TIED | layout.TERNARY_EMBEDDING, vocab_size=3, **ROWS)
    return with_provenance(model, rounding='levels', matrices=matrices(model))


def extremes_2():
    """The edges of what version 2 allows: the least and the largest half, the largest group of 32 columns."""
    model = make(flags=layout.TIED | layout.LINEAR_NORMS | layout.YARN_NOT_ROUNDED, scale_group=4096,
                 scale_dtype=layout.F16, linear_norm_eps=2.0 ** -149, rope_scaling=layout.YARN, rope_factor=2.0 ** -149,
                 rope_original_context=0xFFFFFFFF, rope_attention_factor=2.0 ** -149, rope_beta_fast=2.0 ** -149,
                 rope_beta_slow=floats.f32(3.4028234663852886e38))
    model.ternary[0, 'attn_q'].scales = [65504.0, 2.0 ** -24]
    return model


def everything_2():
    """All of version 2 at once, sizes that need padding."""
    flags = sum(1 << i for i in range(12)) & ~layout.TIED
    model = make(hidden_size=40, ffn_size=33, n_heads=3, n_kv_heads=1, head_dim=6, n_layers=2, flags=flags,
                 vocab_size=19, activation_bits=16, linear_norm_eps=floats.f32(1e-3), pooling=2, **GROUPS_32, **YARN)
    model = replace(model, extra=[('XTRA', b'2')], tokenizer=tokenizer().tokenizer)
    return with_provenance(model, matrices=matrices(model))


def needless_version_2():
    """Not in canonical form: none of its facts is one that version 1 lacks."""
    raw = write(smallest())
    bodies = [(container.name(r), container.body(raw, r)) for r in container.records(raw)]
    bodies[0] = 'HYPR', layout.pack_hyper(smallest().hyper, 2)
    return container.assemble([container.section(*b) for b in bodies], major=2)


def shared_pool():
    """Not in canonical form: the added token's text is the token's own bytes in the pool, not a copy of them."""
    t = bpe([b'a', b'b'], [])
    t.tokens, t.attr = t.tokens + [b'<s>'], bytes([0, 0, tokn.ATTR_SPECIAL | tokn.ATTR_ADDED])
    t.added = [tokn.Added(2, tokn.SPECIAL, b'')]
    model = with_tokenizer(t)
    raw = write(model)
    record = next(r for r in container.records(raw) if container.name(r) == 'TOKN')
    at = raw.index(b'ab<s>', record.offset) - 3 - 16 + 8  # before the pool: 3 of attr, the added record of 16
    return container.fix_checksums(raw[:at] + layout.struct.pack('<II', 2, 3) + raw[at + 8:])


GOOD = [smallest, sub_norms, untied, two_layers, grouped_heads, odd_sizes, relu2, llama3_rope, sampling_defaults,
        int8_tied, int8_untied, f32_tied, f32_untied, f32_int8_tied, f32_int8_untied, tokenizer, tokenizer_full,
        tokenizer_flags, tokenizer_characters, tokenizer_first, tokenizer_steps, tokenizer_added, tokenizer_long,
        tokenizer_empty_matches, chat_texts, chat_empty, conv_texts, provenance, provenance_matrices, provenance_limits,
        provenance_nul, unknown_section, odd_type, newer_minor, extremes, everything, any_order, shared_pool,
        chat_other_pool, sampling_more, sampling_extremes, sampling_off, tokenizer_byte_level, tokenizer_forms,
        activation_16, groups_f16, groups_f32, groups_wider_than_rows, row_scales_f16, row_scales_f32,
        ternary_embedding_tied, ternary_embedding_dense_output, dense_embedding_ternary_output,
        ternary_embedding_and_output, biases_of_q_k_v, biases, qk_norms, linear_norms, yarn, yarn_not_rounded,
        linear_rope, pooling_last, pooling_mean, pooling_first, provenance_scales, extremes_2, everything_2,
        needless_version_2]
# Good, but write(read(x)) gives the canonical form.
NOT_CANONICAL = {'any-order', 'shared-pool', 'chat-other-pool', 'needless-version-2'}


def samples():
    """(file name without .bnt, bytes)"""
    for number, build in enumerate(GOOD, 1):
        made = build()
        yield '%02d-%s' % (number, build.__name__.replace('_', '-')), made if isinstance(made, bytes) else write(made)
