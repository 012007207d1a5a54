# SPDX-License-Identifier: MIT
"""The bad samples, rule by rule: each is a good one with one edit.

put() edits and makes every checksum right again; raw edits are named where the checksums themselves are meant.
"""
import functools
import itertools
import re
from dataclasses import replace

import container
import good
import layout
import ternary
import tokn
from container import fix_checksums, fix_header
from floats import float_bytes
from layout import HEADER, NO_LAYER, PAGE, RECORD, TENSOR, Tensor
from model import Int8, write

NAN, INF = float('nan'), float('inf')
LLAMA3 = good.llama3_rope


@functools.lru_cache(maxsize=None)
def base(build=good.smallest):
    return write(build())


def raw_put(raw, at, new):
    return raw[:at] + new + raw[at + len(new):]


def put(raw, at, new):
    return fix_checksums(raw_put(raw, at, new))


# The header page and the section table.

def record_at(raw, kind):
    """Offset of the section's record in the header page."""
    return HEADER.size + RECORD.size * [container.name(r) for r in container.records(raw)].index(kind)


def record(raw, kind):
    return layout.Record(*RECORD.unpack_from(raw, record_at(raw, kind)))


def put_record(raw, kind, **changes):
    changed = record(raw, kind)._replace(**changes)
    return put(raw, record_at(raw, kind), RECORD.pack(*changed))


def add_record(raw, kind, flags, offset, size):
    """One more section record; file_size is that of raw, which has the bytes already."""
    count = container.header(raw).section_count
    raw = raw_put(raw, HEADER.size + RECORD.size * count, RECORD.pack(kind, flags, offset, size, 0, bytes(4)))
    return resize(raw_put(raw, 12, (count + 1).to_bytes(4, 'little')))


def resize(raw):
    """file_size as the bytes have it."""
    return put(raw, 16, len(raw).to_bytes(8, 'little'))


def in_section(raw, kind, at, new):
    return put(raw, record(raw, kind).offset + at, new)


def grow(raw, kind, extra):
    """Bytes at the end of the last section, or of one with room in its page."""
    r = record(raw, kind)
    end = r.offset + r.size
    if end == len(raw):
        raw = resize(raw + extra)
    return put_record(raw_put(raw, end, extra), kind, size=r.size + len(extra))


# What the sections hold.

def hyper(build=good.smallest, **changes):
    raw = base(build)
    values = layout.unpack_hyper(container.body(raw, record(raw, 'HYPR')))
    return in_section(raw, 'HYPR', 0, layout.pack_hyper({**values, **changes}, container.header(raw).version_major))


def table(raw):
    return [Tensor(*t) for t in TENSOR.iter_unpack(container.body(raw, record(raw, 'TENS')))]


def put_table(raw, tensors):
    """The table made anew; TENS is the last section."""
    return resize(put_record(raw[:record(raw, 'TENS').offset] + b''.join(TENSOR.pack(*t) for t in tensors), 'TENS',
                             size=TENSOR.size * len(tensors)))


def index(tensors, role, layer=0):
    return [(t.layer, t.role) for t in tensors].index((layer, role))


def tensor(raw, role, layer=0, **changes):
    tensors = table(raw)
    i = index(tensors, role, layer)
    tensors[i] = tensors[i]._replace(**changes)
    return put_table(raw, tensors)


def find(raw, role, layer=0):
    tensors = table(raw)
    return tensors[index(tensors, role, layer)]


def values(raw, role, at, new, layer=0):
    """New bytes inside a tensor."""
    return put(raw, find(raw, role, layer).offset + at, new)


def code(raw, role, n, k, new, layer=0):
    """The 2-bit code of weight (n, k), which may be padding."""
    t = find(raw, role, layer)
    word, bit = ternary.word_bit(n, k, layout.up(t.cols, 32))
    at = t.offset + 4 * word + bit // 8
    return put(raw, at, bytes([raw[at] & ~(3 << bit % 8) & 0xFF | new << bit % 8]))


def tokenizer(build=good.tokenizer_full, **changes):
    model = build()
    model.tokenizer = replace(model.tokenizer, **changes)
    return write(model)


def first(items, **changes):
    """The list with its first item changed."""
    return [items[0]._replace(**changes)] + items[1:]


def last(items, **changes):
    return items[:-1] + [items[-1]._replace(**changes)]


def swapped(items, i=0):
    return items[:i] + [items[i + 1], items[i]] + items[i + 2:]


def text(provenance):
    return write(replace(good.smallest(), provenance=provenance))


# The rules.

def r1():
    raw = base()
    yield 'empty', b''
    yield 'other-magic', put(raw, 0, b'GGUF')
    yield 'seven-bit', put(raw, 0, bytes([raw[0] & 0x7F]))
    yield 'text-mode', raw.replace(b'\r\n', b'\n')


def r2():
    yield 'major-0', put(base(), 8, b'\0\0')
    yield 'major-3', put(base(), 8, b'\3\0')
    yield 'major-3-of-2', put(base(good.activation_16), 8, b'\3\0')
    yield 'major-257', put(base(), 8, b'\1\1')


def r3():
    raw = base()
    yield 'crc', raw_put(raw, 24, bytes([raw[24] ^ 1]))
    yield 'damaged', raw_put(raw, 10, b'\1')  # a newer minor version would be good, were the checksum


def r4():
    raw = base()
    yield 'byte-28', put(raw, 28, b'\1')
    yield 'byte-64', put(raw, 64, b'\1')
    yield 'record', put_record(raw, 'NORM', reserved=b'\1\0\0\0')
    yield 'after-table', put(raw, record_at(raw, 'TENS') + RECORD.size, b'\1')
    yield 'end-of-page', put(raw, PAGE - 1, b'\1')


def r5():
    raw = base()
    yield 'appended', raw + b'\0'
    yield 'cut-by-one', raw[:-1]
    yield 'cut-after-page', raw[:PAGE]
    yield 'page-alone', fix_header(raw_put(raw_put(raw[:PAGE], 12, b'\0'), 16, PAGE.to_bytes(8, 'little')))
    yield 'magic-alone', raw[:8]
    yield 'cut-in-page', raw[:100]


def r6():
    raw, extra = base(), base(good.unknown_section)
    last = record(raw, 'TENS')
    end = layout.up(len(raw), PAGE)
    norm, embd = record_at(raw, 'NORM'), record_at(raw, 'EMBD')
    yield 'overlap', add_record(raw, b'XTRA', 0, last.offset, last.size)
    yield 'wraps-around', add_record(raw, b'XTRA', 0, 2 ** 64 - PAGE, PAGE + len(raw))
    yield 'gap', moved(extra, PAGE)
    yield 'order', put(raw, norm, raw[embd:embd + RECORD.size] + raw[norm:norm + RECORD.size])
    yield 'past-end', put_record(extra, 'XTRA', size=record(extra, 'XTRA').size + 1)
    yield 'count-0', put(raw, 12, b'\0')
    yield 'count-125', put(raw, 12, b'\x7d')
    yield 'R04-count-0', put(put(raw, 12, b'\0'), 64, b'\1')
    yield 'empty', add_record(raw.ljust(end, b'\0'), b'XTRA', 0, end, 0)
    yield 'unaligned', moved(extra, 256)
    yield 'before-end', resize(raw + bytes(16))
    yield 'not-at-4096', one_page_later(raw)


def moved(raw, distance):
    """The last section, XTRA, further back."""
    r = record(raw, 'XTRA')
    raw = raw[:r.offset] + bytes(distance) + raw[r.offset:]
    return resize(put_record(raw, 'XTRA', offset=r.offset + distance))


def one_page_later(raw):
    tensors = [t._replace(offset=t.offset + PAGE) for t in table(raw)]
    raw = put_table(raw, tensors)
    raw = raw[:PAGE] + bytes(PAGE) + raw[PAGE:]
    for r in container.records(raw):
        raw = put_record(raw, container.name(r), offset=r.offset + PAGE)
    return resize(raw)


def r7():
    extra = base(good.unknown_section)
    twice = write(replace(good.smallest(), extra=[('XTRA', b'one'), ('XTRB', b'two')]))
    yield 'twice', put_record(twice, 'XTRB', type=b'XTRA')
    yield 'unknown-required', put_record(extra, 'XTRA', flags=1)
    yield 'flag-bit-1', put_record(extra, 'XTRA', flags=2)
    yield 'twice-known', put_record(extra, 'XTRA', type=b'HYPR', flags=1)
    yield 'flag-bit-31', put_record(base(), 'TERN', flags=1 | 1 << 31)


def r8():
    raw = base()
    r = record(raw, 'HYPR')
    yield 'first-byte', put(raw, r.offset + r.size, b'\1')
    yield 'last-byte', put(raw, record(raw, 'TENS').offset - 1, b'\x80')


def r9():
    raw = base()
    for kind in ('HYPR', 'TENS'):
        at = record_at(raw, kind) + 24
        yield 'crc-' + kind.lower(), fix_header(raw_put(raw, at, bytes([raw[at] ^ 1])))
    damaged = bytearray(raw)
    damaged[record(raw, 'NORM').offset] ^= 1  # a value still allowed, and the right SHA-256 for it
    yield 'damaged', fix_header(raw_put(bytes(damaged), 32, container.content_sha256(bytes(damaged))))


def r10():
    raw = base()
    yield 'sha256', fix_header(raw_put(raw, 32, bytes([raw[32] ^ 1])))


def r11():
    raw = base()
    yield 'no-embd', put_record(raw, 'EMBD', type=b'XTRA', flags=0)
    yield 'no-scal', put_record(base(good.groups_f16), 'SCAL', type=b'XTRA', flags=0)
    yield 'scal-without-use', inserted(base(good.activation_16), 'TENS', 'SCAL', bytes(256))
    yield 'embd-without-use', inserted(base(good.ternary_embedding_tied), 'TERN', 'EMBD', bytes(256))
    yield 'emb8-of-a-ternary-output', with_int8(good.dense_embedding_ternary_output())
    for kind in ('HYPR', 'NORM', 'TERN', 'TENS'):
        yield 'no-' + kind.lower(), put_record(raw, kind, type=b'XTRA', flags=0)
    yield 'hypr-not-required', put_record(raw, 'HYPR', flags=0)
    for kind, build in (('TOKN', good.tokenizer), ('CHAT', good.chat_texts), ('CONV', good.conv_texts),
                        ('EMB8', good.int8_tied), ('PROV', good.provenance), ('SAMP', good.sampling_more)):
        yield kind.lower() + '-required', put_record(base(build), kind, flags=1)
    yield from dependent_sections()


def dependent_sections():
    """Those that HYPR calls for or excludes."""
    yield 'scal-not-required', put_record(base(good.groups_f16), 'SCAL', flags=0)
    yield 'scal-in-version-1', inserted(base(), 'TENS', 'SCAL', bytes(256), flags=0)
    yield 'embd-without-use-untied', inserted(base(good.ternary_embedding_and_output), 'TERN', 'EMBD', bytes(256))
    for build in (good.ternary_embedding_dense_output, good.dense_embedding_ternary_output):
        yield 'no-embd-of-' + build.__name__.replace('_', '-'), put_record(base(build), 'EMBD', type=b'XTRA', flags=0)
    yield 'emb8-of-a-ternary-embedding', with_int8(good.ternary_embedding_tied())


def inserted(raw, before, kind, body, flags=None):
    """One more section on pages of its own, what lies behind it moved."""
    sections = [container.Section(container.name(r), r.flags, container.body(raw, r)) for r in container.records(raw)]
    at = [s.type for s in sections].index(before)
    sections.insert(at, container.section(kind, body) if flags is None else container.Section(kind, flags, body))
    size = layout.up(len(body), PAGE)
    tensors = [moved_tensor(t, record(raw, before).offset, size) for t in table(raw)]
    made = container.assemble(sections, major=container.header(raw).version_major)
    return in_section(made, 'TENS', 0, b''.join(TENSOR.pack(*t) for t in tensors))


def moved_tensor(t, start, distance):
    return t._replace(offset=t.offset + distance * (t.offset >= start),
                      scale_offset=t.scale_offset + distance * (0 < start <= t.scale_offset))


def with_int8(model):
    """The section, its tensors in the table, for an output matrix that has no copy."""
    rows, cols = model.hyper['vocab_size'], model.hyper['hidden_size']
    return write(replace(model, int8=Int8(bytes(rows * cols), [1.0] * rows)))


def r12():
    yield 'kv-heads-do-not-divide', hyper(n_heads=3, n_kv_heads=2)
    yield 'layers-0', hyper(n_layers=0)
    yield 'norm-eps-nan', hyper(norm_eps=NAN)
    yield 'rope-high-not-above-low', hyper(LLAMA3, rope_high_freq_factor=1.0)
    yield 'bos-vocab', hyper(bos_id=1)
    yield 'size', grow(base(), 'HYPR', bytes(4))
    yield 'layers-4097', hyper(n_layers=4097)
    yield 'hidden-0', hyper(hidden_size=0)
    yield 'ffn-above-2-20', hyper(ffn_size=(1 << 20) + 1)
    yield 'heads-0', hyper(n_heads=0)
    yield 'kv-heads-0', hyper(n_kv_heads=0)
    yield 'head-dim-odd', hyper(head_dim=3)
    yield 'heads-times-head-dim', hyper(n_heads=4096, n_kv_heads=1, head_dim=258)
    yield 'vocab-0', hyper(vocab_size=0)
    yield 'max-context-0', hyper(max_context=0)
    yield 'activation-3', hyper(activation=3)
    yield 'flag-bit-3', hyper(flags=layout.TIED | 8)
    yield 'norm-eps-0', hyper(norm_eps=0.0)
    yield 'rope-scaling-2', hyper(rope_scaling=2)
    yield 'rope-theta-inf', hyper(rope_theta=INF)
    yield 'rope-factor-unused', hyper(rope_factor=1.0)
    yield 'rope-low-minus-0-unused', hyper(rope_low_freq_factor=-0.0)
    yield 'rope-original-unused', hyper(rope_original_context=1)
    yield 'rope-factor-0', hyper(LLAMA3, rope_factor=0.0)
    yield 'rope-factor-inf', hyper(LLAMA3, rope_factor=INF)
    yield 'rope-low-0', hyper(LLAMA3, rope_low_freq_factor=0.0)
    yield 'rope-high-inf', hyper(LLAMA3, rope_high_freq_factor=INF)
    yield 'rope-original-0', hyper(LLAMA3, rope_original_context=0)
    yield 'bos-minus-2', hyper(bos_id=-2)
    yield 'eos-count-9', hyper(good.sampling_defaults, eos_count=9)
    yield 'eos-vocab', hyper(eos_count=1, eos_id=[1] + [0] * 7)
    yield 'eos-unused', hyper(good.sampling_defaults, eos_count=7)
    yield 'temperature-negative', hyper(temperature=-1.0)
    yield 'temperature-101', hyper(temperature=101.0)
    yield 'top-p-0', hyper(top_p=0.0)
    yield 'top-p-above-1', hyper(top_p=1.5)
    yield 'reserved', hyper(reserved=1)
    yield from hyper_2()


def hyper_2():
    """What version 2 added."""
    groups, norms, yarn, linear = good.groups_f16, good.linear_norms, good.yarn, good.linear_rope
    plain, pooling = good.activation_16, good.pooling_last
    yield 'version-1-with-more', sized(base(), good.HYPER, 2)
    yield 'version-2-with-less', sized(base(plain), good.HYPER, 1)
    for bit in range(3, 12):
        yield 'version-1-flag-bit-%d' % bit, hyper(flags=1 << bit)
    yield 'version-1-yarn', hyper(**{k: v for k, v in good.YARN.items() if k in layout.HYPER_FIELDS})
    yield 'version-1-linear', hyper(rope_scaling=layout.LINEAR, rope_factor=2.0)
    yield 'flag-bit-12', hyper(plain, flags=layout.TIED | 1 << 12)
    yield 'ternary-output-of-a-tied-model', hyper(plain, flags=layout.TIED | layout.TERNARY_OUTPUT)
    yield 'yarn-flag-without-yarn', hyper(plain, flags=layout.TIED | layout.YARN_NOT_ROUNDED)
    yield 'unit-vector-without-pooling', hyper(plain, flags=layout.TIED | layout.UNIT_VECTOR)
    for group in (1, 31, 33, 48, 4097, 4128, (1 << 20) - 32, (1 << 20) + 32, 1 << 21, 0xFFFFFFE0):
        yield 'scale-group-%d' % group, hyper(groups, scale_group=group)
    yield 'scale-dtype-unused', hyper(plain, scale_dtype=layout.F16)
    for dtype in (0, layout.BF16, layout.I8, 6):
        yield 'scale-dtype-%d' % dtype, hyper(groups, scale_dtype=dtype)
    for bits in (0, 4, 9, 32):
        yield 'activation-bits-%d' % bits, hyper(plain, activation_bits=bits)
    for name, eps in (('0', 0.0), ('negative', -1.0), ('inf', INF), ('nan', NAN)):
        yield 'linear-norm-eps-' + name, hyper(norms, linear_norm_eps=eps)
    yield 'linear-norm-eps-unused', hyper(plain, linear_norm_eps=1.0)
    yield 'linear-norm-eps-minus-0-unused', hyper(plain, linear_norm_eps=-0.0)
    yield 'rope-scaling-4', hyper(plain, rope_scaling=4)
    yield from yarn_fields(yarn, linear)
    yield 'linear-factor-0', hyper(linear, rope_factor=0.0)
    yield 'linear-factor-nan', hyper(linear, rope_factor=NAN)
    yield 'pooling-4', hyper(pooling, pooling=4)
    for at in (160, 255):
        yield 'reserved-%d' % at, in_section(base(plain), 'HYPR', at, b'\1')


def yarn_fields(yarn, linear):
    of_yarn = ('rope_attention_factor', 'rope_beta_fast', 'rope_beta_slow')
    for name in ('rope_factor', *of_yarn):
        for what, value in (('0', 0.0), ('negative', -1.0), ('inf', INF), ('nan', NAN)):
            yield 'yarn-%s-%s' % (name.replace('_', '-'), what), hyper(yarn, **{name: value})
    for what, value in (('1', 1.0), ('below-1', 0.5)):
        yield 'yarn-rope-theta-' + what, hyper(yarn, rope_theta=value)
    yield 'yarn-original-0', hyper(yarn, rope_original_context=0)
    yield 'yarn-low', hyper(yarn, rope_low_freq_factor=1.0)
    yield 'yarn-high', hyper(yarn, rope_high_freq_factor=4.0)
    for name in (*of_yarn, 'rope_low_freq_factor', 'rope_high_freq_factor'):
        yield 'linear-' + name.replace('_', '-'), hyper(linear, **{name: 1.0})
    yield 'linear-original', hyper(linear, rope_original_context=1)
    for name in of_yarn:
        yield name.replace('_', '-') + '-unused', hyper(good.activation_16, **{name: 1.0})


def sized(raw, values, version):
    """HYPR as the other version has it; the bytes lie in its page."""
    body = layout.pack_hyper(values, version)
    size = record(raw, 'HYPR').size
    return put_record(raw_put(raw, record(raw, 'HYPR').offset, body.ljust(size, b'\0')), 'HYPR', size=len(body))


def r13():
    raw = base()
    tensors = table(raw)
    unknown = tensors[-1]._replace(role=37)
    yield 'unknown-role', put_table(raw, tensors + [unknown])
    yield 'order', put_table(raw, swapped(tensors))
    yield 'twice', put_table(raw, tensors[:1] + tensors)
    yield 'reserved', put_table(raw, first(tensors, reserved=bytes(3) + b'\1'))
    yield 'version-1-role', put_table(raw, tensors[:2] + [tensors[1]._replace(role=5)] + tensors[2:])
    yield 'version-1-scale-offset', put_table(raw, first(tensors, scale_offset=1 << 56))
    yield 'size', grow(raw, 'TENS', b'\0')
    yield 'no-layer-first', put_table(raw, tensors[-2:] + tensors[:-2])
    raw = base(good.qk_norms)
    tensors = table(raw)
    for role in (7, 15, 23, 31, 0, 0xFFFF):
        yield 'unknown-role-%d' % role, put_table(raw, sorted(
            tensors + [tensors[0]._replace(role=role)], key=lambda t: (t.layer, t.role)))
    for role in (8, 14, 24, 30):
        yield 'version-1-role-%d' % role, put_table(base(), sorted(
            table(base()) + [table(base())[0]._replace(role=role)], key=lambda t: (t.layer, t.role)))


def r14():
    raw, int8 = base(), base(good.int8_tied)
    yield 'missing-sub-norms', hyper(flags=layout.TIED | layout.SUB_NORMS)
    yield 'more-output', hyper(good.untied, flags=layout.TIED)
    yield 'missing-int8', without_int8_records(int8)
    yield 'more-int8', put_record(int8, 'EMB8', type=b'XTRA')
    yield 'layer-of-no-layer', final_norm_in_layer(raw)
    yield 'missing-output', hyper(flags=0)
    yield 'missing-layer', hyper(n_layers=2)
    yield 'more-sub-norms', hyper(good.sub_norms, flags=layout.TIED)
    yield 'more-layers', hyper(good.two_layers, n_layers=1)
    plain, flags = good.activation_16, layout.TIED
    for name, more in (('qk-norms', layout.QK_NORMS), ('qkv-bias', layout.QKV_BIAS), ('o-bias', layout.O_BIAS),
                       ('ffn-bias', layout.FFN_BIAS)):
        yield 'missing-' + name, hyper(plain, flags=flags | more)
    yield 'missing-linear-norms', hyper(plain, flags=flags | layout.LINEAR_NORMS, linear_norm_eps=1.0)
    for build in (good.biases_of_q_k_v, good.biases, good.qk_norms):
        yield 'more-' + build.__name__.replace('_', '-'), hyper(build, flags=flags)
    yield 'more-linear-norms', hyper(good.linear_norms, flags=flags, linear_norm_eps=0.0)


def without_int8_records(raw):
    return put_table(raw, [t for t in table(raw) if t.role not in (35, 36)])


def final_norm_in_layer(raw):
    """final_norm as of layer 0: the order of the table stays right, and so does its place."""
    tensors = table(raw)
    i = index(tensors, 32, NO_LAYER)
    return put_table(raw, tensors[:i] + [tensors[i]._replace(layer=0)] + tensors[i + 1:])


def r15():
    raw = base()
    yield 'dtype', tensor(raw, 16, dtype=layout.I8)
    yield 'dtype-unknown', tensor(raw, 1, dtype=5)
    yield 'rows', tensor(raw, 33, NO_LAYER, rows=2)
    yield 'cols', tensor(raw, 16, cols=3)
    yield 'transposed', tensor(raw, 22, rows=1, cols=2)
    yield 'bf16-where-flags-say-f32', tensor(base(good.f32_tied), 33, NO_LAYER, dtype=layout.BF16)
    yield 'f32-where-flags-say-bf16', tensor(raw, 33, NO_LAYER, dtype=layout.F32)
    yield 'norm-of-all-heads', tensor(base(good.qk_norms), 5, cols=24)
    yield 'bias-bf16', tensor(base(good.biases), 11, dtype=layout.BF16)
    yield 'ternary-where-flags-say-dense', tensor(raw, 33, NO_LAYER, dtype=layout.TERNARY)
    yield 'dense-where-flags-say-ternary', tensor(base(good.ternary_embedding_tied), 33, NO_LAYER, dtype=layout.BF16)
    yield 'dtype-of-scales', tensor(base(good.groups_f16), 16, dtype=layout.F16)
    yield 'output-bf16-where-flags-say-f32', tensor(base(good.f32_untied), 34, NO_LAYER, dtype=layout.BF16)


def r16():
    raw = base()
    k = find(raw, 17)
    yield 'offset-by-128', tensor(raw, 17, offset=k.offset + 128)
    yield 'offset-wraps-around', tensor(raw, 17, offset=2 ** 64 - 128)
    yield 'size-by-128', tensor(raw, 17, size=k.size + 128)
    yield 'gap-before-k', placed_anew(raw, lambda end, role: layout.up(end, 256))
    yield 'section-too-long', grow(raw, 'TERN', bytes(128))
    yield 'offset-of-another', tensor(raw, 17, offset=find(raw, 16).offset)
    yield 'offset-past-end', tensor(raw, 17, offset=len(raw))
    yield 'offset-in-other-section', tensor(raw, 17, offset=record(raw, 'EMBD').offset)
    yield 'size-0', tensor(raw, 32, NO_LAYER, size=0)
    yield 'no-gap-at-all', placed_anew(raw, lambda end, role: end)
    yield 'f32-of-the-size-of-bf16', halved(base(good.f32_tied), 33)
    yield from scale_places()


def scale_places():
    raw, plain = base(good.groups_f16), base(good.activation_16)
    k, scal = find(raw, 17), record(raw, 'SCAL')
    yield 'scale-offset-by-32', tensor(raw, 17, scale_offset=k.scale_offset + 32)
    yield 'scale-offset-0', tensor(raw, 17, scale_offset=0)
    yield 'scale-offset-of-another', tensor(raw, 17, scale_offset=find(raw, 16).scale_offset)
    yield 'scale-offset-from-the-section', tensor(raw, 17, scale_offset=k.scale_offset - scal.offset)
    yield 'scale-offset-wraps-around', tensor(raw, 17, scale_offset=2 ** 64 - 256)
    yield 'scale-offset-past-end', tensor(raw, 22, scale_offset=len(raw))
    yield 'scale-offset-of-a-norm', tensor(raw, 1, scale_offset=scal.offset)
    yield 'scale-offset-of-an-embedding', tensor(raw, 33, NO_LAYER, scale_offset=scal.offset)
    yield 'scale-offset-without-groups', tensor(plain, 16, scale_offset=find(plain, 16).offset)
    yield 'scal-too-long', grow(raw, 'SCAL', bytes(32))
    yield 'scal-too-short', cut_section(raw, 'SCAL', scal.size - 32)
    yield 'scales-without-gaps', scales_placed_anew(raw, lambda end: end)
    yield 'ternary-embedding-behind-a-gap', embedding_later(base(good.ternary_embedding_tied))


def scales_placed_anew(raw, place):
    """SCAL laid out by another rule: place(end of the scales before)."""
    tensors, scal, body = table(raw), record(raw, 'SCAL'), b''
    hyper_values = layout.unpack_hyper(container.body(raw, record(raw, 'HYPR')))
    for i, t in enumerate(tensors):
        if t.scale_offset:
            size, at = layout.scales_size(t.role, hyper_values), place(len(body))
            body = body.ljust(at, b'\0') + raw[t.scale_offset:t.scale_offset + size]
            tensors[i] = t._replace(scale_offset=scal.offset + at)
    raw = raw_put(raw, scal.offset, body.ljust(scal.size, b'\0'))
    return put_table(put_record(raw, 'SCAL', size=len(body)), tensors)


def embedding_later(raw):
    """256 bytes further on, and TERN as much longer: its end has room in its page."""
    t, tern = find(raw, 33, NO_LAYER), record(raw, 'TERN')
    words = raw[t.offset:t.offset + t.size]
    raw = raw_put(raw, t.offset, bytes(256) + words)
    return tensor(put_record(raw, 'TERN', size=tern.size + 256), 33, NO_LAYER, offset=t.offset + 256)


def halved(raw, role):
    """The one tensor of EMBD with half its bytes, the section with it."""
    t = find(raw, role, NO_LAYER)
    raw = raw_put(raw, t.offset, raw[t.offset:t.offset + t.size // 2].ljust(t.size, b'\0'))
    return tensor(put_record(raw, 'EMBD', size=t.size // 2), role, NO_LAYER, size=t.size // 2)


def placed_anew(raw, place):
    """TERN laid out by another rule: place(end of the tensor before, role)."""
    tensors, start, body = table(raw), record(raw, 'TERN').offset, b''
    for i, t in enumerate(tensors):
        if t.dtype == layout.TERNARY:
            at = place(len(body), t.role)
            body = body.ljust(at, b'\0') + raw[t.offset:t.offset + t.size]
            tensors[i] = t._replace(offset=start + at)
    raw = raw_put(raw, start, body.ljust(record(raw, 'TERN').size, b'\0'))
    return put_table(put_record(raw, 'TERN', size=len(body)), tensors)


def r17():
    raw = base()
    for name, scale in (('0', 0.0), ('negative', -1.0), ('inf', INF), ('nan', NAN)):
        yield name, tensor(raw, 17, scale=scale)
    yield 'of-a-norm', tensor(raw, 1, scale=1.0)
    yield 'of-an-embedding', tensor(raw, 33, NO_LAYER, scale=1.0)
    yield 'minus-0-of-a-norm', tensor(raw, 1, scale=-0.0)
    yield 'with-groups', tensor(base(good.groups_f16), 17, scale=1.0)
    yield 'with-row-scales', tensor(base(good.row_scales_f32), 22, scale=2.0 ** -149)
    yield 'minus-0', tensor(raw, 17, scale=-0.0)
    yield 'minus-0-with-groups', tensor(base(good.groups_f16), 17, scale=-0.0)
    yield 'ternary-embedding-0', tensor(base(good.ternary_embedding_tied), 33, NO_LAYER, scale=0.0)
    yield 'of-a-bias', tensor(base(good.biases), 11, scale=1.0)


def r18():
    yield 'first-weight', code(base(), 16, 0, 0, 0)
    yield 'last-weight', code(base(good.grouped_heads), 22, 31, 63, 0)
    yield 'R19-in-padding', code(base(), 16, 2, 0, 0)
    yield 'ternary-embedding', code(base(good.ternary_embedding_tied), 33, 16, 2, 0, NO_LAYER)


def r19():
    yield 'row', code(base(), 16, 2, 0, 3)
    yield 'column', code(base(), 16, 0, 2, 1)
    yield 'corner', code(base(), 22, 15, 31, 3)
    yield 'not-counted', code(base(good.provenance_matrices), 16, 2, 0, 3)  # padding is no part of R28's counts


def r20():
    raw = base()
    norm, v = find(raw, 1), find(raw, 18)
    yield 'norm', put(raw, norm.offset + norm.size, b'\1')
    yield 'tern', put(raw, v.offset + v.size, b'\xaa')
    groups = base(good.groups_f16)
    yield 'scal', put(groups, find(groups, 17).scale_offset - 1, b'\x01')  # behind those of q
    yield 'scal-of-o', put(groups, find(groups, 20).scale_offset - 160, b'\x01')  # o has 48 scales
    norms = base(good.qk_norms)
    q = find(norms, 5)
    yield 'qk-norm', put(norms, q.offset + q.size, b'\1')


def r21():
    yield 'nan', values(base(), 1, 4, float_bytes([NAN]))
    yield 'inf', values(base(), 32, 0, float_bytes([-INF]), NO_LAYER)
    yield 'qk-norm', values(base(good.qk_norms), 6, 20, float_bytes([NAN]))
    yield 'bias', values(base(good.biases), 14, 8, float_bytes([INF]))
    yield 'linear-norm', values(base(good.linear_norms), 30, 16, float_bytes([NAN]))
    yield 'q-bias', values(base(good.biases_of_q_k_v), 8, 0, float_bytes([-INF]))


def r22():
    yield 'embedding-nan', values(base(), 33, 2, b'\xc0\x7f', NO_LAYER)
    yield 'output-inf', values(base(good.untied), 34, 0, b'\x80\xff', NO_LAYER)
    yield 'f32-inf', values(base(good.f32_tied), 33, 4, float_bytes([INF]), NO_LAYER)
    yield 'f32-output-nan', values(base(good.f32_untied), 34, 4 * 14, float_bytes([NAN]), NO_LAYER)
    int8 = values(base(good.f32_int8_tied), 33, 0, float_bytes([NAN]), NO_LAYER)
    yield 'with-int8', int8  # R23 is not judged in this row
    yield 'R23-in-another-row', values(int8, 35, 4 * 3 + 1, b'\0', NO_LAYER)
    yield 'with-int8-of-this-row', values(int8, 35, 1, b'\x7f', NO_LAYER)
    yield 'with-int8-scale-of-this-row', values(int8, 36, 0, float_bytes([2.0]), NO_LAYER)


def r23():
    raw = base(good.int8_tied)
    yield 'value', values(raw, 35, 4 * 3 + 1, b'\1', NO_LAYER)  # 0.5 rounds to even, 0
    yield 'value-minus-128', values(raw, 35, 4 * 4, b'\x80', NO_LAYER)
    yield 'scale', values(raw, 36, 4 * 6, float_bytes([1 / 128]), NO_LAYER)
    yield 'scale-of-zero-row', values(raw, 36, 0, float_bytes([0.0]), NO_LAYER)
    f32 = base(good.f32_int8_tied)
    yield 'f32-value', values(f32, 35, 4 * 3 + 1, b'\0', NO_LAYER)  # just above 0.5: 1, but 0 after rounding to bf16
    yield 'f32-scale-below-2-100', values(f32, 36, 0, float_bytes([2.0 ** -100 / 127]), NO_LAYER)
    yield 'of-the-embedding', of_the_embedding(good.int8_untied())


def of_the_embedding(model):
    """A copy of the wrong matrix: untied, so it is to be that of the output matrix."""
    model.int8 = good.with_int8(replace(model, hyper={**model.hyper, 'flags': layout.TIED})).int8
    return write(model)


def r24():
    raw, t = base(good.tokenizer_full), good.tokenizer_full().tokenizer
    start = tokn.HEADER.size
    sizes = tokn.array_sizes(tokn.header(container.body(raw, record(raw, 'TOKN'))))
    added, steps = start + sum(sizes[:3]), start + sum(sizes[:4])
    far = b'\xff\xff\xff\xff'
    yield 'too-long', grow(raw, 'TOKN', b'\0')
    yield 'more-tokens-than-vocab', tokenizer(tokens=t.tokens + [b''], attr=t.attr + b'\4')
    yield 'token-offset-descends', in_section(raw, 'TOKN', start + 8, b'\0\0\0\0')
    yield 'added-past-pool', in_section(raw, 'TOKN', added + 12, far)
    yield 'chat-past-pool', in_section(raw, 'TOKN', 44, far)
    yield 'too-short', shrunk(raw, 'TOKN')
    yield 'kind-3', tokenizer(kind=3)
    yield 'flag-bit-5', tokenizer(flags=32)
    yield 'count-huge', in_section(raw, 'TOKN', 12, far)
    yield 'reserved', in_section(raw, 'TOKN', 56, b'\1')
    yield 'normalizers-above-steps', tokenizer(steps=[], n_normalizers=1)
    yield 'unk-id', tokenizer(unk_id=len(t.tokens))
    yield 'prefix-65537', tokenizer(prefix=[9] * 65537)
    yield 'token-offset-0', in_section(raw, 'TOKN', start, b'\1\0\0\0')
    yield 'token-past-pool', in_section(raw, 'TOKN', start + 4 * len(t.tokens), far)
    yield 'added-wraps-around', in_section(raw, 'TOKN', added + 8, far)
    yield 'step-reserved', in_section(raw, 'TOKN', steps + 3, b'\1')
    yield 'step-past-pool', in_section(raw, 'TOKN', steps + 8, far)
    yield 'attr-bit-4', tokenizer(attr=b'\x10' + t.attr[1:])
    yield 'steps-65', tokenizer(steps=t.steps[:1] * 65)
    yield 'added-65537', tokenizer(added=[tokn.Added(9, 0, b'%05d' % i) for i in range(65537)])
    yield 'suffix-65537', tokenizer(suffix=[9] * 65537)
    yield 'chat-offset-without-chat', in_section(base(good.tokenizer), 'TOKN', 40, b'\1')
    yield 'replacement-past-pool', replacement_size(far)
    yield 'replacement-wraps-around', replacement_size(b'\xff\xff\xff\x7f')


def replacement_size(new):
    """extra of the second step; the steps stand before prefix, attr and the pool."""
    raw = base(good.tokenizer_characters)
    h = tokn.header(container.body(raw, record(raw, 'TOKN')))
    behind = 4 * h.n_prefix + h.n_tokens + h.pool_size
    return in_section(raw, 'TOKN', tokn.section_size(h) - behind - 16 * h.n_steps + 16 + 12, new)


def shrunk(raw, kind):
    return cut_section(raw, kind, record(raw, kind).size - 1)


def r25():
    t = good.tokenizer_full().tokenizer
    n = len(t.tokens)
    yield 'lookup-order', tokenizer(lookup=swapped(t.lookup))
    yield 'lookup-empty-token', tokenizer(lookup=[8] + t.lookup)
    yield 'merges-order', tokenizer(merges=swapped(t.merges))
    yield 'merge-result-bytes', tokenizer(merges=first(t.merges, result=0))
    yield 'added-order', tokenizer(added=swapped(t.added))
    yield 'prefix-id', tokenizer(prefix=[n])
    yield 'lookup-twice', tokenizer(lookup=t.lookup[:1] + t.lookup)
    yield 'lookup-id', tokenizer(lookup=t.lookup + [n])
    yield 'merges-twice', tokenizer(merges=t.merges[:1] + t.merges)
    yield 'merge-left-id', tokenizer(merges=t.merges[:-1] + [t.merges[-1]._replace(left=n)])
    yield 'merge-result-id', tokenizer(merges=first(t.merges, result=0xFFFFFFFF))
    yield 'added-id', tokenizer(added=first(t.added, id=n))
    yield from added_order(good.tokenizer_added)
    yield 'suffix-id', tokenizer(suffix=[n])


def added_order(build):
    """As bytes, a prefix first, whatever flags and ids: what other comparisons would let through."""
    added = build().tokenizer.added
    yield 'added-twice', tokenizer(build, added=added[:1] + added)
    yield 'added-twice-with-other-flags', tokenizer(build, added=added + last(added, flags=tokn.LSTRIP, id=0)[-1:])
    yield 'added-prefix-last', tokenizer(build, added=swapped(added, 2))
    yield 'added-as-signed-bytes', tokenizer(build, added=added[-1:] + added[:-1])
    yield 'added-by-length', tokenizer(build, added=sorted(added, key=lambda a: (len(a.text), a.text)))
    yield 'added-by-id', tokenizer(build, added=sorted(added, key=lambda a: a.id))


def r26():
    t = good.tokenizer_full().tokenizer
    yield 'added-empty', tokenizer(added=first(t.added, text=b''))
    yield 'pattern-does-not-compile', tokenizer(steps=first(t.steps, text=b'(a'))
    yield 'pattern-not-utf8', tokenizer(steps=first(t.steps, text=b'\xed\xa0\x80'))  # a surrogate
    yield 'step-type-3', tokenizer(steps=first(t.steps, type=3))
    yield 'chat-not-utf8', tokenizer(chat=b'\xff')
    yield 'added-too-long', tokenizer(added=last(t.added, text=b'a' * 65536))
    yield 'added-not-utf8', tokenizer(added=last(t.added, text=b'\xc3'))
    yield 'added-surrogate', tokenizer(added=last(t.added, text=b'\xed\xa0\x80'))
    yield 'pattern-empty', tokenizer(steps=first(t.steps, text=b''))
    yield 'pattern-too-long', tokenizer(steps=first(t.steps, text=b'a' * 65536))
    yield 'step-type-0', tokenizer(steps=first(t.steps, type=0))
    yield 'step-behavior-5', tokenizer(steps=first(t.steps, behavior=5))
    yield 'step-invert-2', tokenizer(steps=first(t.steps, invert=2))
    yield from step_samples(t.steps[0])
    yield 'added-flag-bit-5', tokenizer(added=first(t.added, flags=32))
    yield 'byte-token-of-two', tokenizer(attr=t.attr[:5] + b'\x08' + t.attr[6:])


def step_samples(split):
    """Where each type may be, and what each leaves zero."""
    def one(n_normalizers, *step):
        return tokenizer(good.tokenizer_flags, steps=[tokn.Step(*step)], n_normalizers=n_normalizers)
    yield 'split-in-normalizer', tokenizer(steps=[split], n_normalizers=1)
    yield 'prepend-in-pretokenizer', one(0, tokn.PREPEND, 0, 0, b' ')
    yield 'nfc-in-pretokenizer', one(0, tokn.NFC, 0, 0, b'')
    yield 'type-6', one(1, 6, 0, 0, b' ')
    yield 'prefix-empty', one(0, tokn.PREFIX, 0, 0, b'')
    yield 'prefix-inverted', one(0, tokn.PREFIX, 0, 1, b' ')
    yield 'prefix-behavior-2', one(0, tokn.PREFIX, 2, 0, b' ')
    yield 'prepend-behavior-1', one(1, tokn.PREPEND, 1, 0, b' ')
    yield 'replace-empty', one(1, tokn.REPLACE, 0, 0, b'', b'x')
    yield 'replace-inverted', one(1, tokn.REPLACE, 0, 1, b'a')
    yield 'replacement-not-utf8', one(1, tokn.REPLACE, 0, 0, b'a', b'\xff')
    yield 'replace-inside-a-character', one(1, tokn.REPLACE, 0, 0, b'\xc3', b'\xa9')
    yield 'text-too-long', one(1, tokn.PREPEND, 0, 0, b' ' * 65536)
    yield 'nfc-with-text', one(1, tokn.NFC, 0, 0, b' ')
    yield 'nfc-behavior-1', one(1, tokn.NFC, 1, 0, b'')
    yield 'prepend-with-replacement', one(1, tokn.PREPEND, 0, 0, b' ', b'x')
    yield 'split-with-replacement', one(0, tokn.SPLIT, 0, 0, b'a', b'x')
    yield 'byte-level-in-normalizer', one(1, tokn.BYTE_LEVEL, 0, 0, b'')
    yield 'byte-level-with-text', one(0, tokn.BYTE_LEVEL, 0, 0, b' ')
    yield 'byte-level-of-characters', tokenizer(good.tokenizer_characters, steps=[tokn.Step(tokn.BYTE_LEVEL, 0, 0, b'')], n_normalizers=0)
    yield 'nfkc-in-pretokenizer', one(0, tokn.NFKC, 0, 0, b'')
    yield 'nfkd-with-text', one(1, tokn.NFKD, 0, 0, b' ')
    yield 'nfd-inverted', one(1, tokn.NFD, 0, 1, b'')
    yield 'lowercase-in-pretokenizer', one(0, tokn.LOWERCASE, 0, 0, b'')
    yield 'lowercase-behavior-1', one(1, tokn.LOWERCASE, 1, 0, b'')
    yield 'replace-pattern-in-pretokenizer', one(0, tokn.REPLACE_PATTERN, 0, 0, b'a', b'b')
    yield 'replace-pattern-does-not-compile', one(1, tokn.REPLACE_PATTERN, 0, 0, b'(a', b'b')
    yield 'replace-pattern-empty', one(1, tokn.REPLACE_PATTERN, 0, 0, b'', b'b')
    yield 'replace-pattern-by-no-utf8', one(1, tokn.REPLACE_PATTERN, 0, 0, b'a', b'\xff')
    yield 'end-of-word-in-normalizer', one(1, tokn.END_OF_WORD, 0, 0, b'.')
    yield 'end-of-word-empty', one(0, tokn.END_OF_WORD, 0, 0, b'')
    yield 'end-of-word-too-long', one(0, tokn.END_OF_WORD, 0, 0, b'.' * 65)
    yield 'end-of-word-not-last', tokenizer(good.tokenizer_flags, steps=[tokn.Step(tokn.END_OF_WORD, 0, 0, b'.')] * 2, n_normalizers=0)
    yield 'type-13', one(0, 13, 0, 0, b' ')
    yield 'nfc-with-offset', step_offset(one(1, tokn.NFC, 0, 0, b''))


def step_offset(raw):
    """The one step of 16 bytes stands before attr and the pool."""
    h = tokn.header(container.body(raw, record(raw, 'TOKN')))
    return in_section(raw, 'TOKN', tokn.section_size(h) - h.pool_size - h.n_tokens - 16 + 4, b'\1')


def r27():
    yield 'not-json', text(b'{')
    yield 'array', text(b'[]')
    yield 'nan', text(b'{"rounding": NaN}')
    yield 'not-utf8', text(b'{"license": "\xff"}')
    yield 'trailing-bytes', text(b'{}\0')
    yield 'nul-in-text', text(b'{"license": ["a\\u0000b"]}')
    yield 'nul-in-key', text(b'{"a": [{"b\\u0000c": 1}]}')
    yield 'key-twice', text(b'{"license": {"a": 1, "b": 2, "\\u0061": 1}}')
    yield 'integer-above-i64', text(b'{"a": 9223372036854775808}')
    yield 'integer-below-i64', text(b'{"a": -9223372036854775809}')
    yield 'real-overflows', text(b'{"a": 1e309}')
    yield 'surrogate-high-alone', text(b'{"a": "\\ud800"}')
    yield 'surrogate-low-first', text(b'{"a": "\\ude00\\ud83d"}')
    yield 'surrogate-in-key', text(b'{"\\udfff": null}')
    yield 'surrogate-in-utf8', text(b'{"a": "\xed\xa0\x80"}')
    yield 'nested-101', text(b'{"a":' + b'[' * 100 + b']' * 100 + b'}')
    yield 'nested-very-deep', text(b'[' * 100000)
    yield 'byte-order-mark', text(b'\xef\xbb\xbf{}')
    yield 'empty-string', text(b'""')
    yield 'leading-zero', text(b'{"a": 01}')
    yield 'comma-at-end', text(b'{"a": 1,}')
    yield 'control-character', text(b'{"a": "\n"}')
    yield 'nul-behind-role', role_nul()
    yield 'nul-behind-a-backslash', text(b'{"a": "\\\\\\u0000"}')
    yield 'nul-text-alone', text(b'{"a": "\\u0000"}')
    yield 'nul-key-alone', text(b'{"\\u0000": null}')
    yield 'nul-not-escaped', text(b'{"a": "\0"}')
    yield 'nul-not-escaped-in-key', text(b'{"a\0": 1}')
    yield 'nul-alone', text(b'\0')
    yield 'nul-before', text(b'\0{}')
    yield 'nul-after-number', text(b'{"a": 1\0}')
    yield 'nul-after-literal', text(b'{"a": null\0, "b": 1}')


def role_nul():
    model = good.provenance_matrices()
    entries = good.matrices(model)
    return write(good.with_provenance(model, matrices=[{**entries[0], 'role': 'attn_q\0'}] + entries[1:]))


def r28():
    model = good.provenance_matrices()
    entries = good.matrices(model)
    m = entries[0]

    def made(matrices):
        return write(good.with_provenance(model, matrices=matrices))
    yield 'counts', made([{**m, 'minus': m['zero'], 'zero': m['minus']}] + entries[1:])
    yield 'gamma', made([{**m, 'gamma': m['gamma'] * 1.0000002}] + entries[1:])
    yield 'one-missing', made(entries[:-1])
    yield 'order', made(swapped(entries))
    yield 'role', made([{**m, 'role': 'attn_k'}] + entries[1:])
    yield 'not-an-array', made({})
    yield 'one-more', made(entries + [entries[-1]])
    yield 'layer', made([{**m, 'layer': 1}] + entries[1:])
    yield 'no-counts', made([{'layer': 0, 'role': 'attn_q', 'gamma': m['gamma']}] + entries[1:])
    yield 'count-real', made([{**m, 'plus': float(m['plus'])}] + entries[1:])
    yield 'gamma-text', made([{**m, 'gamma': str(m['gamma'])}] + entries[1:])
    yield 'gamma-null', made([{**m, 'gamma': None}] + entries[1:])
    yield 'entry-not-an-object', made([None] + entries[1:])
    yield 'null', made(None)
    yield 'empty', made([])
    scaled = good.provenance_scales()
    entries = good.matrices(scaled)

    def again(entries):
        return write(good.with_provenance(scaled, matrices=entries))
    yield 'gamma-with-scales', again([{**entries[0], 'gamma': 1.0}] + entries[1:])
    yield 'layer-of-an-embedding', again(entries[:-1] + [{**entries[-1], 'layer': 0xFFFFFFFF}])
    yield 'layer-minus-1', again(entries[:-1] + [{**entries[-1], 'layer': -1}])
    yield 'layer-not-there', again(entries[:-1] + [{k: v for k, v in entries[-1].items() if k != 'layer'}])
    yield 'embedding-missing', again(entries[:-1])


def r29():
    model = good.chat_texts()
    raw, texts = write(model), model.chat.texts

    def made(**changes):
        return write(replace(model, chat=replace(model.chat, **changes)))

    def field(at, new):
        return in_section(raw, 'CHAT', at, new)
    yield 'too-long', grow(raw, 'CHAT', b'\0')
    yield 'begin-past-pool', field(36, b'\xff\0\0\0')
    yield 'not-utf8', made(texts={**texts, 'user_before': b'\xff'})
    yield 'stop-id', made(stop=[10, model.hyper['vocab_size']])
    yield 'without-tokn', write(replace(model, tokenizer=None))
    yield 'shorter-than-its-record', cut_section(raw, 'CHAT', 100)
    yield 'too-short', shrunk(raw, 'CHAT')
    yield 'flag-bit-1', made(flags=2)
    yield 'stop-count-5', field(4, b'\5')
    yield 'stop-unused', field(20, b'\1')
    yield 'reserved', field(100, b'\1')
    yield 'reserved-end', field(127, b'\1')
    yield 'default-past-pool', field(92, b'\xff\xff\xff\xff')
    yield 'range-wraps-around', field(88, b'\xff\xff\xff\xff')
    yield 'inside-a-character', write(replace(model, chat=replace(model.chat, texts={
        'assistant_before': b'\xc3', 'assistant_after': b'\xa9'})))


def r30():
    raw = base(good.sampling_more)

    def made(**changes):
        model = good.sampling_more()
        return write(replace(model, sampling={**model.sampling, **changes}))
    yield 'repetition-0', made(repetition_penalty=0.0)
    yield 'min-p-above-1', made(min_p=1.0000001192092896)
    yield 'reserved', in_section(raw, 'SAMP', 63, b'\1')
    yield 'size', grow(raw, 'SAMP', bytes(4))
    yield 'too-short', cut_section(raw, 'SAMP', 20)
    yield 'repetition-negative', made(repetition_penalty=-1.5)
    yield 'repetition-101', made(repetition_penalty=101.0)
    yield 'repetition-nan', made(repetition_penalty=NAN)
    yield 'presence-above-2', made(presence_penalty=2.5)
    yield 'presence-below-minus-2', made(presence_penalty=-2.5)
    yield 'presence-nan', made(presence_penalty=NAN)
    yield 'frequency-inf', made(frequency_penalty=INF)
    yield 'frequency-below-minus-2', made(frequency_penalty=-3.0)
    yield 'min-p-negative', made(min_p=-0.1)
    yield 'min-p-nan', made(min_p=NAN)
    yield 'reserved-start', in_section(raw, 'SAMP', 20, b'\1')


def r31():
    model = good.conv_texts()
    raw, texts = write(model), model.chat.texts

    def made(**changes):
        return write(replace(model, chat=replace(model.chat, **changes)))

    yield 'flag-bit-6', made(flags=64)
    yield 'beside-chat', write(replace(good.chat_texts(), extra=[('CONV', bodies(raw)['CONV'])]))
    yield 'without-tokn', write(replace(model, tokenizer=None))
    yield 'too-long', grow(raw, 'CONV', b'\0')
    yield 'stop-id', made(stop=[10, model.hyper['vocab_size']])
    yield 'not-utf8', made(texts={**texts, 'user_before': b'\xff'})
    yield 'begin-past-pool', in_section(raw, 'CONV', 36, b'\xff\0\0\0')
    yield 'reserved', in_section(raw, 'CONV', 100, b'\1')


def bodies(raw):
    return {container.name(r): container.body(raw, r) for r in container.records(raw)}


def cut_section(raw, kind, size):
    """The first bytes of a section with room in its page; the others become padding."""
    r = record(raw, kind)
    return put_record(raw_put(raw, r.offset + size, bytes(r.size - size)), kind, size=size)


def r32():
    f16, f32 = base(good.groups_f16), base(good.groups_f32)
    rows, minus_0 = base(good.row_scales_f16), b'\0\x80'
    yield 'f16-inf', scale(f16, 16, 0, 0, b'\x00\x7c')
    yield 'f32-nan', scale(f32, 22, 95, 1, float_bytes([NAN]))
    yield 'f32-negative', scale(f32, 17, 3, 1, float_bytes([-1.0]))
    yield 'padding-row', scale(f16, 16, 20, 1, b'\x00\x3c')  # 20 rows, padded to 32
    yield 'f16-minus-0', scale(f16, 22, 32, 1, minus_0)
    yield 'f16-nan', scale(f16, 18, 9, 1, b'\x01\xfe')
    yield 'f16-least-negative', scale(f16, 19, 0, 0, b'\x01\x80')
    yield 'f16-minus-inf', scale(f16, 21, 63, 1, b'\x00\xfc')
    yield 'f32-inf', scale(f32, 16, 0, 0, float_bytes([INF]))
    yield 'f32-minus-0', scale(f32, 16, 0, 0, float_bytes([-0.0]))
    yield 'rows-inf', scale(rows, 20, 32, 0, b'\x00\x7c')
    yield 'padding-row-of-rows', scale(rows, 20, 33, 0, b'\1\0')
    yield 'padding-row-minus-0', scale(rows, 20, 47, 0, minus_0)
    ends = base(good.ternary_embedding_and_output)
    yield 'embedding', scale(ends, 33, 16, 1, b'\x00\x7c', NO_LAYER)
    yield 'output-padding', scale(ends, 34, 31, 1, b'\x00\x3c', NO_LAYER)


def scale(raw, role, row, group, new, layer=0):
    """The scale of a row, which may be padding, and a group."""
    t = find(raw, role, layer)
    groups = layout.groups(t.cols, layout.unpack_hyper(container.body(raw, record(raw, 'HYPR'))))
    return put(raw, t.scale_offset + len(new) * ((row // 16 * groups + group) * 16 + row % 16), new)


RULES = {int(rule.__name__[1:]): rule for rule in (
    r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15, r16, r17, r18, r19, r20, r21, r22, r23, r24, r25,
    r26, r27, r28, r29, r30, r31, r32)}


def broken_rules(name):
    """The rules that the sample of this name breaks: R18-R19-… breaks two."""
    return {'R%d' % int(part[1:]) for part in name.split('-') if re.fullmatch(r'R\d\d', part)}


def samples(most=None):
    """(file name without .bnt, bytes): of each rule at most so many, the telling ones stand first."""
    for number, rule in RULES.items():
        for what, raw in itertools.islice(rule(), most):
            yield 'R%02d-%s' % (number, what), raw
