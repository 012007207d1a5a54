# SPDX-License-Identifier: MIT
"""R12 … R23 and R32: hyperparameters, the tensor table, the weights and their scales.

Sizes are computed before they are believed: nothing is allocated by a number from the file.
"""
import math
from collections import namedtuple

import layout
import ternary
from floats import first_not_finite, float_bytes, int8_row, is_zero_bits, to_floats
from layout import HYPER, MORE_HYPER, NO_LAYER, ROLES, TENSOR, Tensor, is_ternary

Checked = namedtuple('Checked', 'record is_ternary weights')  # weights: None but for a ternary matrix that can be read


def label(record):
    role = ROLES[record.role]
    return role.name if record.layer == NO_LAYER else 'layer %d %s' % (record.layer, role.name)


def check_hyper(body, version):
    """R12. Returns the hyperparameters where the shapes among them can be believed, else None."""
    size = HYPER.size + (MORE_HYPER.size if version == 2 else 0)
    if len(body) != size:
        yield 'R12', 'HYPR has %d bytes, not %d' % (len(body), size)
        return None
    hyper = layout.unpack_hyper(body)
    wrong = [name for name, good in _ranges(hyper, version) if not good]
    for name in wrong:
        yield 'R12', '%s = %r is out of range' % (name, hyper[name])
    shapes = set(layout.HYPER_FIELDS[:7] + ['flags', 'scale_group', 'scale_dtype'])
    return None if shapes & set(wrong) else hyper


def _ranges(h, version):
    """(field, whether it is in its range)."""
    yield from _shape_ranges(h)
    yield 'max_context', 1 <= h['max_context'] <= 1 << 24
    yield 'activation', h['activation'] in (1, 2)
    yield 'flags', not h['flags'] & ~(layout.FLAGS_1 if version == 1 else layout.FLAGS_2) and all(_flags_agree(h))
    yield 'norm_eps', _positive(h['norm_eps'])
    yield 'rope_scaling', h['rope_scaling'] <= (layout.LLAMA3 if version == 1 else layout.LINEAR)
    yield 'rope_theta', _positive(h['rope_theta']) and (h['rope_scaling'] != layout.YARN or h['rope_theta'] > 1)
    yield from _rope_ranges(h)
    vocab, eos, count = h['vocab_size'], h['eos_id'], h['eos_count']
    yield 'bos_id', -1 <= h['bos_id'] < vocab
    yield 'eos_count', count <= 8
    yield 'eos_id', all(i < vocab for i in eos[:count]) and not any(eos[count:])
    yield 'temperature', 0 <= h['temperature'] <= 100
    yield 'top_p', 0 < h['top_p'] <= 1
    yield 'reserved', h['reserved'] == 0
    yield from _more_ranges(h)


def _flags_agree(h):
    """Flags that stand only where something else does."""
    yield not (h['flags'] & layout.TERNARY_OUTPUT and h['flags'] & layout.TIED)
    yield not h['flags'] & layout.YARN_NOT_ROUNDED or h['rope_scaling'] == layout.YARN
    yield not h['flags'] & layout.UNIT_VECTOR or h['pooling'] != 0


def _more_ranges(h):
    """What version 2 added; the defaults that version 1 stands for pass."""
    group = h['scale_group']
    yield 'scale_group', group in (0, layout.WHOLE_ROW) or 32 <= group <= 4096 and group % 32 == 0
    yield 'scale_dtype', h['scale_dtype'] in ((layout.F32, layout.F16) if group else (0,))
    yield 'activation_bits', h['activation_bits'] in (8, 16)
    has_norms = h['flags'] & layout.LINEAR_NORMS
    yield 'linear_norm_eps', (_positive if has_norms else is_zero_bits)(h['linear_norm_eps'])
    yield 'pooling', h['pooling'] <= 3
    yield 'reserved160', not any(h['reserved160'])


def _positive(x):
    return 0 < x < math.inf


def _shape_ranges(h):
    yield 'n_layers', 1 <= h['n_layers'] <= 4096
    yield 'hidden_size', 1 <= h['hidden_size'] <= 1 << 20
    yield 'ffn_size', 1 <= h['ffn_size'] <= 1 << 20
    yield 'n_heads', 1 <= h['n_heads'] <= 4096
    yield 'n_kv_heads', 1 <= h['n_kv_heads'] <= h['n_heads'] and h['n_heads'] % h['n_kv_heads'] == 0
    yield 'head_dim', 2 <= h['head_dim'] <= 4096 and h['head_dim'] % 2 == 0 and h['n_heads'] * h['head_dim'] <= 1 << 20
    yield 'vocab_size', 1 <= h['vocab_size'] <= 1 << 24


ROPE_FIELDS = {  # what each rope_scaling has; the others are 0
    layout.NONE: (),
    layout.LLAMA3: ('rope_factor', 'rope_low_freq_factor', 'rope_high_freq_factor', 'rope_original_context'),
    layout.YARN: ('rope_factor', 'rope_original_context', 'rope_attention_factor', 'rope_beta_fast', 'rope_beta_slow'),
    layout.LINEAR: ('rope_factor',),
}


def _rope_ranges(h):
    """Of a rope_scaling that is unknown nobody knows what it has."""
    used = ROPE_FIELDS.get(h['rope_scaling'])
    if used is None:
        return
    for name in sorted(set().union(*ROPE_FIELDS.values())):
        yield name, (_positive if name in used else is_zero_bits)(h[name])
    if h['rope_scaling'] == layout.LLAMA3:
        yield 'rope_high_freq_factor', h['rope_low_freq_factor'] < h['rope_high_freq_factor']


def check_tensors(sections, hyper, version):
    """R13 … R23, R32. Returns the list of Checked, or None where the table cannot be read."""
    records = yield from _table(sections['TENS'][1], version)
    if records is None or hyper is None:
        return None
    yield from _membership(records, hyper, 'EMB8' in sections)
    for record in records:
        yield from _record(record, hyper, version)
    bodies, scales = {}, {}
    for kind in ('NORM', 'EMBD', 'EMB8', 'TERN', 'SCAL'):
        if kind in sections:
            found = yield from _section(kind, *sections[kind], records, hyper)
            (scales if kind == 'SCAL' else bodies).update(found)
    checked = []
    for record in records:
        key = record.layer, record.role
        checked.append((yield from _values(record, bodies.get(key), hyper)))
        if key in scales:
            yield from _scales(record, scales[key], hyper)
    yield from _int8(bodies, hyper)
    return checked


def _table(body, version):
    """R13. A table out of order or with unknown roles cannot be read on."""
    if len(body) % TENSOR.size:
        yield 'R13', 'TENS has %d bytes, not a multiple of 48' % len(body)
        return None
    records = [Tensor(*values) for values in TENSOR.iter_unpack(body)]
    keys = [(r.layer, r.role) for r in records]
    readable = True
    for i, record in enumerate(records):
        if not layout.is_of_version(record.role, version):
            yield 'R13', 'record %d has unknown role %d' % (i, record.role)
            readable = False
        elif i and keys[i - 1] >= keys[i]:
            yield 'R13', 'record %d does not come after the one before it' % i
            readable = False
        if any(record.reserved) or version == 1 and record.scale_offset:
            yield 'R13', 'the reserved bytes of record %d are not zero' % i
    return records if readable else None


def _membership(records, hyper, has_int8):
    wanted = set(layout.tensor_keys(hyper, has_int8))
    there = {(r.layer, r.role) for r in records}
    for what, keys in (('missing', wanted - there), ('not called for', there - wanted)):
        for layer, role in sorted(keys)[:3]:
            yield 'R14', 'layer %d %s is %s' % (layer, ROLES[role].name, what)


def _record(r, hyper, version):
    should = (layout.dtype(r.role, hyper),) + layout.shape(r.role, hyper)
    if (r.dtype, r.rows, r.cols) != should:
        yield 'R15', '%s: dtype, rows, cols are %r, should be %r' % (label(r), (r.dtype, r.rows, r.cols), should)
    has_scales = is_ternary(r.role, hyper) and hyper['scale_group'] != 0
    if is_ternary(r.role, hyper) and not has_scales:
        if not _positive(r.scale):
            yield 'R17', '%s: scale is %r' % (label(r), r.scale)
    elif not is_zero_bits(r.scale):
        yield 'R17', '%s: scale is %r, should be 0' % (label(r), r.scale)
    if r.scale_offset and not has_scales and version == 2:
        yield 'R16', '%s: scale_offset is %d, should be 0' % (label(r), r.scale_offset)


def _section(kind, section, body, records, hyper):
    """R16 and R20. Returns {key: bytes}; of a section where R16 is broken nobody knows which bytes are meant."""
    places = layout.places([(r.layer, r.role) for r in records], hyper, kind)
    by_key = {(r.layer, r.role): r for r in records}
    broken = [message for place in places for message in _extent(kind, by_key[place.key], place, section)]
    end = layout.places_end(places)
    if places and section.size != end:
        broken.append('%s has %d bytes, its last tensor ends at %d' % (kind, section.size, end))
    yield from (('R16', message) for message in broken)
    if broken or body is None:
        return {}
    for before, after in zip(places, places[1:]):
        if any(body[before.offset + before.size:after.offset]):
            yield 'R20', 'the bytes before %s are not zero' % label(by_key[after.key])
    return {p.key: body[p.offset:p.offset + p.size] for p in places}


def _extent(kind, r, place, section):
    name, offset = ('scale_offset', r.scale_offset) if kind == 'SCAL' else ('offset', r.offset)
    if offset != section.offset + place.offset:
        yield '%s: %s is %d, should be %d' % (label(r), name, offset, section.offset + place.offset)
    if kind != 'SCAL' and r.size != place.size:
        yield '%s has size %d, should have %d' % (label(r), r.size, place.size)


def _item_size(role, hyper):
    return layout.ITEM_SIZE[layout.dtype(role, hyper)]


def _values(record, raw, hyper):
    """R18, R19, R21, R22, each once a tensor; nothing where raw is None."""
    role = ROLES[record.role]
    if is_ternary(record.role, hyper):
        weights = None if raw is None else (yield from _ternary(record, raw, *layout.shape(record.role, hyper)))
        return Checked(record, True, weights)
    if raw is not None and role.section != 'EMB8':  # output_int8 and its scales are judged by R23
        at = first_not_finite(raw, _item_size(record.role, hyper))
        if at is not None:
            yield 'R21' if role.section == 'NORM' else 'R22', '%s: value %d is not finite' % (label(record), at)
    return Checked(record, False, None)


def _scales(record, raw, hyper):
    """R32, once a matrix."""
    rows, cols = layout.shape(record.role, hyper)
    scales, padding = ternary.unpack_scales(raw, rows, layout.groups(cols, hyper), hyper['scale_dtype'])
    if not all(0 < s < math.inf or is_zero_bits(s) for s in scales):
        yield 'R32', '%s: a scale is negative or not finite' % label(record)
    elif not all(map(is_zero_bits, padding)):
        yield 'R32', '%s: a scale of the padding is not 0' % label(record)


def _ternary(record, raw, rows, cols):
    at = ternary.first_code_0(raw)
    if at is not None:
        yield 'R18', '%s: byte %d has the code 0' % (label(record), at)
    padded = ternary.unpack_padded(raw, rows, cols)
    if not ternary.padding_is_zero(padded, rows, cols):
        yield 'R19', '%s: a weight of the padding is not zero' % label(record)
    return ternary.crop(padded, rows, cols) if at is None else None


def _int8(bodies, hyper):
    """R23, row by row: not judged in a row that has values that are not finite (R22)."""
    role = layout.output_role(hyper)
    if is_ternary(role, hyper):
        return  # R11
    source, size = bodies.get((NO_LAYER, role)), _item_size(role, hyper)
    copy, scales = bodies.get((NO_LAYER, 35)), bodies.get((NO_LAYER, 36))
    if None in (source, copy, scales):
        return
    cols = hyper['hidden_size']
    for i in range(hyper['vocab_size']):
        row = source[i * cols * size:(i + 1) * cols * size]
        if first_not_finite(row, size) is not None:
            continue
        scale, values = int8_row(to_floats(row, size))
        if (copy[i * cols:(i + 1) * cols], scales[4 * i:4 * i + 4]) != (values, float_bytes([scale])):
            yield 'R23', 'row %d of the int8 copy is not what the output matrix makes' % i
            return
