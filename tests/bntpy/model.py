# SPDX-License-Identifier: MIT
"""A .bnt file as objects, and back: write(read(x)) == x for every file of the canonical form.

read() keeps meanings only. Every offset, size, CRC-32 and SHA-256 is forgotten and computed anew by write(), so
that the round trip proves them. read() trusts its input: let rules.verify() judge a file first.
"""
from dataclasses import dataclass, field

import chat
import container
import layout
import sampling
import ternary
import tokn
from floats import float_bytes, floats
from layout import ROLES, SECTIONS, TENSOR, TERNARY, Tensor, is_ternary


@dataclass
class Matrix:
    rows: int
    cols: int
    weights: bytes  # int8, row-major: FF, 00, 01
    gamma: float    # 0 where there are scales
    scales: list = field(default_factory=list)  # row-major, one for each row and group of columns


@dataclass
class Int8:
    values: bytes
    scales: list


@dataclass
class Model:
    hyper: dict                                      # by the names of section 4; eos_id is a list of 8; of either version
    norms: dict = field(default_factory=dict)        # (layer, role name) -> list of floats; layer None: of no layer. Biases too
    embeddings: dict = field(default_factory=dict)   # role name -> bytes, bf16 or f32
    ternary: dict = field(default_factory=dict)      # (layer, role name) -> Matrix
    tokenizer: object = None                         # tokn.Tokenizer
    chat: object = None                              # chat.Chat
    sampling: object = None                          # dict, by the names of section 4.1
    provenance: object = None                        # bytes, kept as they are
    int8: object = None                              # Int8
    extra: list = field(default_factory=list)        # (type, bytes) of unknown optional sections
    version_minor: int = 0


def read(data):
    """Decode a valid file."""
    sections = {container.name(r): container.body(data, r) for r in container.records(data)}
    model = Model(layout.unpack_hyper(sections['HYPR']))
    for record in TENSOR.iter_unpack(sections['TENS']):
        _read_tensor(model, data, Tensor(*record))
    if 'TOKN' in sections:
        model.tokenizer = tokn.read(sections['TOKN'])
    for kind in chat.FLAGS:
        if kind in sections:
            model.chat = chat.read(sections[kind], kind)
    if 'SAMP' in sections:
        model.sampling = sampling.read(sections['SAMP'])
    model.provenance = sections.get('PROV')
    model.extra = [(kind, body) for kind, body in sections.items() if kind not in SECTIONS]
    model.version_minor = container.header(data).version_minor
    return model


def _read_tensor(model, data, t):
    role, raw = ROLES[t.role], data[t.offset:t.offset + t.size]
    key = (t.layer if role.per_layer else None, role.name)
    if t.dtype == TERNARY:
        model.ternary[key] = Matrix(t.rows, t.cols, ternary.unpack(raw, t.rows, t.cols), t.scale)
        if model.hyper['scale_group']:
            model.ternary[key].scales = _read_scales(model.hyper, data, t)
    elif role.section == 'NORM':
        model.norms[key] = floats(raw)
    elif role.section == 'EMBD':
        model.embeddings[role.name] = raw
    elif role.name == 'output_int8':
        model.int8 = Int8(raw, [])
    else:
        model.int8.scales = floats(raw)


def _read_scales(hyper, data, t):
    raw = data[t.scale_offset:t.scale_offset + layout.scales_size(t.role, hyper)]
    return ternary.unpack_scales(raw, t.rows, layout.groups(t.cols, hyper), hyper['scale_dtype'])[0]


def write(model):
    """The bytes that bnt-pack would write, unknown sections after the known ones."""
    keys = layout.tensor_keys(model.hyper, model.int8 is not None)
    version = layout.needed_version(model.hyper)
    bodies = {'HYPR': layout.pack_hyper(model.hyper, version)}
    if model.tokenizer is not None:
        bodies['TOKN'] = tokn.write(model.tokenizer)
    if model.chat is not None:
        bodies[model.chat.kind] = chat.write(model.chat)
    if model.sampling is not None:
        bodies['SAMP'] = sampling.write(model.sampling)
    for kind in ('NORM', 'EMBD', 'EMB8', 'TERN', 'SCAL'):
        if layout.places(keys, model.hyper, kind):
            bodies[kind] = _tensor_section(model, keys, kind)
    bodies['TENS'] = _tensor_table(model, keys, bodies)
    if model.provenance is not None:
        bodies['PROV'] = model.provenance
    sections = list(bodies.items()) + model.extra
    return container.assemble([container.section(*s) for s in sections], model.version_minor, version)


def _tensor_section(model, keys, kind):
    body = bytearray()
    for place in layout.places(keys, model.hyper, kind):
        body += bytes(place.offset - len(body)) + (_scale_bytes if kind == 'SCAL' else _tensor_bytes)(model, place.key)
    return bytes(body)


def _name(key):
    layer, number = key
    return layer if ROLES[number].per_layer else None, ROLES[number].name


def _tensor_bytes(model, key):
    role = ROLES[key[1]]
    if is_ternary(key[1], model.hyper):
        matrix = model.ternary[_name(key)]
        return ternary.pack(matrix.weights, matrix.rows, matrix.cols)
    if role.section == 'NORM':
        return float_bytes(model.norms[_name(key)])
    if role.section == 'EMBD':
        return model.embeddings[role.name]
    return model.int8.values if role.name == 'output_int8' else float_bytes(model.int8.scales)


def _scale_bytes(model, key):
    matrix = model.ternary[_name(key)]
    return ternary.pack_scales(matrix.scales, matrix.rows, layout.groups(matrix.cols, model.hyper),
                               model.hyper['scale_dtype'])


def _tensor_table(model, keys, bodies):
    """The table stands after all that it describes, so the sections before it fix every offset."""
    starts = dict(zip(bodies, container.offsets([len(body) for body in bodies.values()])))
    at, scales_at = {}, {}
    for kind in starts:
        for place in layout.places(keys, model.hyper, kind):
            if kind == 'SCAL':
                scales_at[place.key] = starts[kind] + place.offset
            else:
                at[place.key] = starts[kind] + place.offset, place.size
    return b''.join(_tensor_record(model, key, *at[key], scales_at.get(key, 0)) for key in keys)


def _tensor_record(model, key, offset, size, scale_offset):
    layer, number = key
    gamma = model.ternary[_name(key)].gamma if is_ternary(number, model.hyper) else 0
    dtype, shape = layout.dtype(number, model.hyper), layout.shape(number, model.hyper)
    return TENSOR.pack(number, dtype, layer, *shape, offset, size, gamma, bytes(4), scale_offset)
