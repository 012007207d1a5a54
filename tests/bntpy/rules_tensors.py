# SPDX-License-Identifier: MIT
"""R12 … R23: hyperparameters, the tensor table and the weights.

Sizes are computed before they are believed: nothing is allocated by a number from the file.
"""
import math
from collections import namedtuple

import layout
import ternary
from floats import first_not_finite, float_bytes, int8_row, is_zero_bits, to_floats
from layout import HYPER, NO_LAYER, ROLES, TENSOR, TERNARY, Tensor

Checked = namedtuple('Checked', 'record weights')  # weights: None but for a ternary matrix that can be read


def label(record):
    role = ROLES[record.role]
    return role.name if record.layer == NO_LAYER else 'layer %d %s' % (record.layer, role.name)


def check_hyper(body):
    """R12. Returns the hyperparameters where the shapes among them can be believed, else None."""
    if len(body) != HYPER.size:
        yield 'R12', 'HYPR has %d bytes, not 128' % len(body)
        return None
    hyper = layout.unpack_hyper(body)
    wrong = [name for name, good in _ranges(hyper) if not good]
    for name in wrong:
        yield 'R12', '%s = %r is out of range' % (name, hyper[name])
    shapes = set(layout.HYPER_FIELDS[:7] + ['flags'])
    return None if shapes & set(wrong) else hyper


def _ranges(h):
    """(field, whether it is in its range)."""
    yield from _shape_ranges(h)
    yield 'max_context', 1 <= h['max_context'] <= 1 << 24
    yield 'activation', h['activation'] in (1, 2)
    yield 'flags', not h['flags'] & ~(layout.TIED | layout.SUB_NORMS | layout.F32_EMBEDDINGS)
    yield 'norm_eps', math.isfinite(h['norm_eps']) and h['norm_eps'] > 0
    yield 'rope_scaling', h['rope_scaling'] in (0, 1)
    yield 'rope_theta', math.isfinite(h['rope_theta']) and h['rope_theta'] > 0
    yield from _rope_ranges(h)
    vocab, eos, count = h['vocab_size'], h['eos_id'], h['eos_count']
    yield 'bos_id', -1 <= h['bos_id'] < vocab
    yield 'eos_count', count <= 8
    yield 'eos_id', all(i < vocab for i in eos[:count]) and not any(eos[count:])
    yield 'temperature', 0 <= h['temperature'] <= 100
    yield 'top_p', 0 < h['top_p'] <= 1
    yield 'reserved', h['reserved'] == 0


def _shape_ranges(h):
    yield 'n_layers', 1 <= h['n_layers'] <= 4096
    yield 'hidden_size', 1 <= h['hidden_size'] <= 1 << 20
    yield 'ffn_size', 1 <= h['ffn_size'] <= 1 << 20
    yield 'n_heads', 1 <= h['n_heads'] <= 4096
    yield 'n_kv_heads', 1 <= h['n_kv_heads'] <= h['n_heads'] and h['n_heads'] % h['n_kv_heads'] == 0
    yield 'head_dim', 2 <= h['head_dim'] <= 4096 and h['head_dim'] % 2 == 0 and h['n_heads'] * h['head_dim'] <= 1 << 20
    yield 'vocab_size', 1 <= h['vocab_size'] <= 1 << 24


def _rope_ranges(h):
    factor, low, high = h['rope_factor'], h['rope_low_freq_factor'], h['rope_high_freq_factor']
    if h['rope_scaling'] == 1:
        yield 'rope_factor', 0 < factor < math.inf
        yield 'rope_low_freq_factor', 0 < low < math.inf
        yield 'rope_high_freq_factor', low < high < math.inf
        yield 'rope_original_context', h['rope_original_context'] >= 1
    elif h['rope_scaling'] == 0:
        for name in ('rope_factor', 'rope_low_freq_factor', 'rope_high_freq_factor', 'rope_original_context'):
            yield name, is_zero_bits(h[name])


def check_tensors(sections, hyper):
    """R13 … R23. Returns the list of Checked, or None where the table cannot be read."""
    records = yield from _table(sections['TENS'][1])
    if records is None or hyper is None:
        return None
    yield from _membership(records, hyper, 'EMB8' in sections)
    for record in records:
        yield from _record(record, hyper)
    bodies = {}
    for kind in ('NORM', 'EMBD', 'EMB8', 'TERN'):
        if kind in sections:
            bodies.update((yield from _section(kind, *sections[kind], records, hyper)))
    found = []
    for record in records:
        found.append((yield from _values(record, bodies.get((record.layer, record.role)), hyper)))
    yield from _int8(bodies, hyper)
    return found


def _table(body):
    """R13. A table out of order or with unknown roles cannot be read on."""
    if len(body) % TENSOR.size:
        yield 'R13', 'TENS has %d bytes, not a multiple of 48' % len(body)
        return None
    records = [Tensor(*values) for values in TENSOR.iter_unpack(body)]
    keys = [(r.layer, r.role) for r in records]
    readable = True
    for i, record in enumerate(records):
        if record.role not in ROLES:
            yield 'R13', 'record %d has unknown role %d' % (i, record.role)
            readable = False
        elif i and keys[i - 1] >= keys[i]:
            yield 'R13', 'record %d does not come after the one before it' % i
            readable = False
        if any(record.reserved):
            yield 'R13', 'the reserved bytes of record %d are not zero' % i
    return records if readable else None


def _membership(records, hyper, has_int8):
    wanted = set(layout.tensor_keys(hyper, has_int8))
    there = {(r.layer, r.role) for r in records}
    for what, keys in (('missing', wanted - there), ('not called for', there - wanted)):
        for layer, role in sorted(keys)[:3]:
            yield 'R14', 'layer %d %s is %s' % (layer, ROLES[role].name, what)


def _record(r, hyper):
    should = (layout.dtype(r.role, hyper),) + layout.shape(r.role, hyper)
    if (r.dtype, r.rows, r.cols) != should:
        yield 'R15', '%s: dtype, rows, cols are %r, should be %r' % (label(r), (r.dtype, r.rows, r.cols), should)
    if ROLES[r.role].dtype == TERNARY:
        if not 0 < r.scale < math.inf:
            yield 'R17', '%s: scale is %r' % (label(r), r.scale)
    elif not is_zero_bits(r.scale):
        yield 'R17', '%s: scale is %r, should be 0' % (label(r), r.scale)


def _section(kind, section, body, records, hyper):
    """R16 and R20. Returns {key: bytes}; of a section where R16 is broken nobody knows which bytes are meant."""
    places = layout.places([(r.layer, r.role) for r in records], hyper, kind)
    by_key = {(r.layer, r.role): r for r in records}
    broken = [message for place in places for message in _extent(by_key[place.key], place, section)]
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


def _extent(r, place, section):
    if r.offset != section.offset + place.offset:
        yield '%s is at %d, should be at %d' % (label(r), r.offset, section.offset + place.offset)
    if r.size != place.size:
        yield '%s has size %d, should have %d' % (label(r), r.size, place.size)


def _item_size(role, hyper):
    return layout.ITEM_SIZE[layout.dtype(role, hyper)]


def _values(record, raw, hyper):
    """R18, R19, R21, R22, each once a tensor; nothing where raw is None."""
    role = ROLES[record.role]
    if raw is None:
        return Checked(record, None)
    if role.dtype == TERNARY:
        return (yield from _ternary(record, raw, *layout.shape(record.role, hyper)))
    if role.section != 'EMB8':  # output_int8 and its scales are judged by R23
        at = first_not_finite(raw, _item_size(record.role, hyper))
        if at is not None:
            yield 'R21' if role.section == 'NORM' else 'R22', '%s: value %d is not finite' % (label(record), at)
    return Checked(record, None)


def _ternary(record, raw, rows, cols):
    at = ternary.first_code_0(raw)
    if at is not None:
        yield 'R18', '%s: byte %d has the code 0' % (label(record), at)
    padded = ternary.unpack_padded(raw, rows, cols)
    if not ternary.padding_is_zero(padded, rows, cols):
        yield 'R19', '%s: a weight of the padding is not zero' % label(record)
    return Checked(record, ternary.crop(padded, rows, cols) if at is None else None)


def _int8(bodies, hyper):
    """R23, row by row: not judged in a row that has values that are not finite (R22)."""
    source, size = bodies.get((NO_LAYER, 33 if hyper['flags'] & layout.TIED else 34)), _item_size(33, hyper)
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
