# SPDX-License-Identifier: MIT
"""The records and tables of formats/bnt.md, typed once for the Python side.

Everything here is a transcription: a struct per record, the table of tensor roles, and the placement of
tensors in their sections (R16), which the writer obeys and the verifier compares with.
"""
import struct
from collections import namedtuple

MAGIC = bytes.fromhex('89424E540D0A1A0A')
PAGE = 4096
TENSOR_ALIGN = 256
MAX_SECTIONS = 124
NO_LAYER = 0xFFFFFFFF
REQUIRED = 1  # the one defined flag of a section record

# The order in which bnt-pack writes, and whether the section must be there and carry the required flag (R11).
SECTIONS = {'HYPR': True, 'TOKN': False, 'CHAT': False, 'CONV': False, 'SAMP': False, 'NORM': True, 'EMBD': True, 'EMB8': False,
            'TERN': True, 'TENS': True, 'PROV': False}

HEADER = struct.Struct('<8sHHIQI4s32s64s')
Header = namedtuple('Header', 'magic version_major version_minor section_count file_size header_crc32 reserved28 '
                              'content_sha256 reserved64')
RECORD = struct.Struct('<4sIQQI4s')
Record = namedtuple('Record', 'type flags offset size crc32 reserved')
TENSOR = struct.Struct('<HHIIIQQf12s')
Tensor = namedtuple('Tensor', 'role dtype layer rows cols offset size scale reserved')

HYPER = struct.Struct('<10IfId3fIiI8I2fII')
HYPER_FIELDS = ('n_layers hidden_size ffn_size n_heads n_kv_heads head_dim vocab_size max_context activation flags '
                'norm_eps rope_scaling rope_theta rope_factor rope_low_freq_factor rope_high_freq_factor '
                'rope_original_context bos_id eos_count eos_id temperature top_p top_k reserved').split()
TIED, SUB_NORMS, F32_EMBEDDINGS = 1, 2, 4  # hyperparameter flags

TERNARY, BF16, F32, I8 = 1, 2, 3, 4
BF16_OR_F32 = 0  # no dtype of a file: the role table's word for what F32_EMBEDDINGS decides
ITEM_SIZE = {BF16: 2, F32: 4, I8: 1}

Role = namedtuple('Role', 'name per_layer section dtype rows cols')
ROLES = {
    1: Role('attn_norm', True, 'NORM', F32, 'one', 'hidden'),
    2: Role('attn_sub_norm', True, 'NORM', F32, 'one', 'q'),
    3: Role('ffn_norm', True, 'NORM', F32, 'one', 'hidden'),
    4: Role('ffn_sub_norm', True, 'NORM', F32, 'one', 'ffn'),
    16: Role('attn_q', True, 'TERN', TERNARY, 'q', 'hidden'),
    17: Role('attn_k', True, 'TERN', TERNARY, 'kv', 'hidden'),
    18: Role('attn_v', True, 'TERN', TERNARY, 'kv', 'hidden'),
    19: Role('attn_o', True, 'TERN', TERNARY, 'hidden', 'q'),
    20: Role('ffn_gate', True, 'TERN', TERNARY, 'ffn', 'hidden'),
    21: Role('ffn_up', True, 'TERN', TERNARY, 'ffn', 'hidden'),
    22: Role('ffn_down', True, 'TERN', TERNARY, 'hidden', 'ffn'),
    32: Role('final_norm', False, 'NORM', F32, 'one', 'hidden'),
    33: Role('token_embedding', False, 'EMBD', BF16_OR_F32, 'vocab', 'hidden'),
    34: Role('output', False, 'EMBD', BF16_OR_F32, 'vocab', 'hidden'),
    35: Role('output_int8', False, 'EMB8', I8, 'vocab', 'hidden'),
    36: Role('output_int8_scale', False, 'EMB8', F32, 'one', 'vocab'),
}
ADJACENT = {17, 18, 21}  # roles that follow the one numbered before them without a gap, so that q|k|v is one matrix

Place = namedtuple('Place', 'key offset size')  # key: (layer, role); offset from the start of the section


def up(x, a):
    return (x + a - 1) // a * a


def unpack_hyper(raw):
    values = list(HYPER.unpack(raw))
    values[19:27] = [values[19:27]]  # the eight eos_id become one list
    return dict(zip(HYPER_FIELDS, values))


def pack_hyper(hyper):
    values = [hyper[name] for name in HYPER_FIELDS]
    values[19:20] = values[19]
    return HYPER.pack(*values)


def dims(hyper):
    """The sizes that the role table names."""
    return {'one': 1, 'hidden': hyper['hidden_size'], 'ffn': hyper['ffn_size'], 'vocab': hyper['vocab_size'],
            'q': hyper['n_heads'] * hyper['head_dim'], 'kv': hyper['n_kv_heads'] * hyper['head_dim']}


def shape(role, hyper):
    sizes = dims(hyper)
    return sizes[ROLES[role].rows], sizes[ROLES[role].cols]


def dtype(role, hyper):
    if ROLES[role].dtype != BF16_OR_F32:
        return ROLES[role].dtype
    return F32 if hyper['flags'] & F32_EMBEDDINGS else BF16


def byte_size(role, hyper):
    rows, cols = shape(role, hyper)
    if ROLES[role].dtype == TERNARY:
        return up(rows, 16) * up(cols, 32) // 4
    return rows * cols * ITEM_SIZE[dtype(role, hyper)]


def wanted_roles(hyper, has_int8):
    """The roles that HYPR and the presence of EMB8 call for (R14)."""
    absent = set()
    if not hyper['flags'] & SUB_NORMS:
        absent |= {2, 4}
    if hyper['flags'] & TIED:
        absent |= {34}
    if not has_int8:
        absent |= {35, 36}
    return [role for role in ROLES if role not in absent]


def tensor_keys(hyper, has_int8):
    """Every (layer, role) of the model in tensor table order (R13, R14)."""
    roles = wanted_roles(hyper, has_int8)
    keys = [(layer, role) for layer in range(hyper['n_layers']) for role in roles if ROLES[role].per_layer]
    return keys + [(NO_LAYER, role) for role in roles if not ROLES[role].per_layer]


def places(keys, hyper, section):
    """Where R16 puts those of the tensors that belong to the section."""
    found, end, before = [], 0, None
    for layer, role in keys:
        if ROLES[role].section != section:
            continue
        joined = role in ADJACENT and before == (layer, role - 1)
        offset = end if joined else up(end, TENSOR_ALIGN)
        found.append(Place((layer, role), offset, byte_size(role, hyper)))
        end, before = offset + found[-1].size, (layer, role)
    return found


def places_end(found):
    return found[-1].offset + found[-1].size if found else 0
