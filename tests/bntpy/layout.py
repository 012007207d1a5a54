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

# The order in which bnt-pack writes, and whether the section carries the required flag (R11).
SECTIONS = {'HYPR': True, 'TOKN': False, 'CHAT': False, 'CONV': False, 'SAMP': False, 'NORM': True, 'EMBD': True, 'EMB8': False,
            'TERN': True, 'SCAL': True, 'TENS': True, 'PROV': False}

HEADER = struct.Struct('<8sHHIQI4s32s64s')
Header = namedtuple('Header', 'magic version_major version_minor section_count file_size header_crc32 reserved28 '
                              'content_sha256 reserved64')
RECORD = struct.Struct('<4sIQQI4s')
Record = namedtuple('Record', 'type flags offset size crc32 reserved')
TENSOR = struct.Struct('<HHIIIQQf4sQ')
Tensor = namedtuple('Tensor', 'role dtype layer rows cols offset size scale reserved scale_offset')

HYPER = struct.Struct('<10IfId3fIiI8I2fII')
HYPER_FIELDS = ('n_layers hidden_size ffn_size n_heads n_kv_heads head_dim vocab_size max_context activation flags '
                'norm_eps rope_scaling rope_theta rope_factor rope_low_freq_factor rope_high_freq_factor '
                'rope_original_context bos_id eos_count eos_id temperature top_p top_k reserved').split()
MORE_HYPER = struct.Struct('<3I4fI96s')  # version 2 has it behind HYPER
MORE_HYPER_FIELDS = ('scale_group scale_dtype activation_bits linear_norm_eps rope_attention_factor rope_beta_fast '
                     'rope_beta_slow pooling reserved160').split()
VERSION_1 = dict(zip(MORE_HYPER_FIELDS, (0, 0, 8, 0.0, 0.0, 0.0, 0.0, 0, bytes(96))))  # what version 1 stands for

# Hyperparameter flags. Those from TERNARY_EMBEDDING on came with version 2.
(TIED, SUB_NORMS, F32_EMBEDDINGS, TERNARY_EMBEDDING, TERNARY_OUTPUT, QKV_BIAS, O_BIAS, FFN_BIAS, QK_NORMS, LINEAR_NORMS,
 YARN_NOT_ROUNDED, UNIT_VECTOR) = (1 << i for i in range(12))
FLAGS_1, FLAGS_2 = (1 << 3) - 1, (1 << 12) - 1
NONE, LLAMA3, YARN, LINEAR = range(4)  # rope_scaling

TERNARY, BF16, F32, I8, F16 = 1, 2, 3, 4, 5
BF16_OR_F32 = 0  # no dtype of a file: the role table's word for what F32_EMBEDDINGS decides
ITEM_SIZE = {BF16: 2, F32: 4, I8: 1, F16: 2}
WHOLE_ROW = 1 << 20  # the scale_group of one scale a row

Role = namedtuple('Role', 'name per_layer section dtype rows cols flag')  # flag: the tensor is there with it; 0: always
ROLES = {
    1: Role('attn_norm', True, 'NORM', F32, 'one', 'hidden', 0),
    2: Role('attn_sub_norm', True, 'NORM', F32, 'one', 'q', SUB_NORMS),
    3: Role('ffn_norm', True, 'NORM', F32, 'one', 'hidden', 0),
    4: Role('ffn_sub_norm', True, 'NORM', F32, 'one', 'ffn', SUB_NORMS),
    5: Role('attn_q_norm', True, 'NORM', F32, 'one', 'head_dim', QK_NORMS),
    6: Role('attn_k_norm', True, 'NORM', F32, 'one', 'head_dim', QK_NORMS),
    8: Role('attn_q_bias', True, 'NORM', F32, 'one', 'q', QKV_BIAS),
    9: Role('attn_k_bias', True, 'NORM', F32, 'one', 'kv', QKV_BIAS),
    10: Role('attn_v_bias', True, 'NORM', F32, 'one', 'kv', QKV_BIAS),
    11: Role('attn_o_bias', True, 'NORM', F32, 'one', 'hidden', O_BIAS),
    12: Role('ffn_gate_bias', True, 'NORM', F32, 'one', 'ffn', FFN_BIAS),
    13: Role('ffn_up_bias', True, 'NORM', F32, 'one', 'ffn', FFN_BIAS),
    14: Role('ffn_down_bias', True, 'NORM', F32, 'one', 'hidden', FFN_BIAS),
    16: Role('attn_q', True, 'TERN', TERNARY, 'q', 'hidden', 0),
    17: Role('attn_k', True, 'TERN', TERNARY, 'kv', 'hidden', 0),
    18: Role('attn_v', True, 'TERN', TERNARY, 'kv', 'hidden', 0),
    19: Role('attn_o', True, 'TERN', TERNARY, 'hidden', 'q', 0),
    20: Role('ffn_gate', True, 'TERN', TERNARY, 'ffn', 'hidden', 0),
    21: Role('ffn_up', True, 'TERN', TERNARY, 'ffn', 'hidden', 0),
    22: Role('ffn_down', True, 'TERN', TERNARY, 'hidden', 'ffn', 0),
    24: Role('attn_q_linear_norm', True, 'NORM', F32, 'one', 'hidden', LINEAR_NORMS),
    25: Role('attn_k_linear_norm', True, 'NORM', F32, 'one', 'hidden', LINEAR_NORMS),
    26: Role('attn_v_linear_norm', True, 'NORM', F32, 'one', 'hidden', LINEAR_NORMS),
    27: Role('attn_o_linear_norm', True, 'NORM', F32, 'one', 'q', LINEAR_NORMS),
    28: Role('ffn_gate_linear_norm', True, 'NORM', F32, 'one', 'hidden', LINEAR_NORMS),
    29: Role('ffn_up_linear_norm', True, 'NORM', F32, 'one', 'hidden', LINEAR_NORMS),
    30: Role('ffn_down_linear_norm', True, 'NORM', F32, 'one', 'ffn', LINEAR_NORMS),
    32: Role('final_norm', False, 'NORM', F32, 'one', 'hidden', 0),
    33: Role('token_embedding', False, 'EMBD', BF16_OR_F32, 'vocab', 'hidden', 0),
    34: Role('output', False, 'EMBD', BF16_OR_F32, 'vocab', 'hidden', 0),
    35: Role('output_int8', False, 'EMB8', I8, 'vocab', 'hidden', 0),
    36: Role('output_int8_scale', False, 'EMB8', F32, 'one', 'vocab', 0),
}
MAY_BE_TERNARY = {33: TERNARY_EMBEDDING, 34: TERNARY_OUTPUT}  # then in TERN
ADJACENT = {17, 18, 21}  # roles that follow the one numbered before them without a gap, so that q|k|v is one matrix

Place = namedtuple('Place', 'key offset size')  # key: (layer, role); offset from the start of the section


def up(x, a):
    return (x + a - 1) // a * a


def unpack_hyper(raw):
    """The record of either version, by its length."""
    values = list(HYPER.unpack(raw[:HYPER.size]))
    values[19:27] = [values[19:27]]  # the eight eos_id become one list
    more = VERSION_1 if len(raw) == HYPER.size else dict(zip(MORE_HYPER_FIELDS, MORE_HYPER.unpack(raw[HYPER.size:])))
    return {**dict(zip(HYPER_FIELDS, values)), **more}


def pack_hyper(hyper, version):
    values = [hyper[name] for name in HYPER_FIELDS]
    values[19:20] = values[19]
    more = MORE_HYPER.pack(*(hyper[name] for name in MORE_HYPER_FIELDS)) if version == 2 else b''
    return HYPER.pack(*values) + more


def needed_version(hyper):
    """The lowest version that has the facts of the model."""
    new = hyper['flags'] & ~FLAGS_1 or hyper['rope_scaling'] > LLAMA3
    return 2 if new or any(hyper[name] != VERSION_1[name] for name in MORE_HYPER_FIELDS) else 1


def is_of_version(role, version):
    """Whether the role is known there."""
    return role in ROLES and (version == 2 or not ROLES[role].flag & ~FLAGS_1)


def dims(hyper):
    """The sizes that the role table names."""
    return {'one': 1, 'hidden': hyper['hidden_size'], 'ffn': hyper['ffn_size'], 'vocab': hyper['vocab_size'],
            'head_dim': hyper['head_dim'], 'q': hyper['n_heads'] * hyper['head_dim'],
            'kv': hyper['n_kv_heads'] * hyper['head_dim']}


def shape(role, hyper):
    sizes = dims(hyper)
    return sizes[ROLES[role].rows], sizes[ROLES[role].cols]


def is_ternary(role, hyper):
    return ROLES[role].dtype == TERNARY or bool(hyper['flags'] & MAY_BE_TERNARY.get(role, 0))


def output_role(hyper):
    """The matrix that makes logits."""
    return 33 if hyper['flags'] & TIED else 34


def section(role, hyper):
    return 'TERN' if is_ternary(role, hyper) else ROLES[role].section


def dtype(role, hyper):
    if is_ternary(role, hyper):
        return TERNARY
    if ROLES[role].dtype != BF16_OR_F32:
        return ROLES[role].dtype
    return F32 if hyper['flags'] & F32_EMBEDDINGS else BF16


def byte_size(role, hyper):
    rows, cols = shape(role, hyper)
    if is_ternary(role, hyper):
        return up(rows, 16) * up(cols, 32) // 4
    return rows * cols * ITEM_SIZE[dtype(role, hyper)]


def groups(cols, hyper):
    """How many scales a row of a ternary matrix has in SCAL."""
    return -(-cols // hyper['scale_group']) if hyper['scale_group'] else 0


def scales_size(role, hyper):
    rows, cols = shape(role, hyper)
    return up(rows, 16) * groups(cols, hyper) * ITEM_SIZE[hyper['scale_dtype']]


def wanted_sections(hyper):
    """{section: whether it must be there (R11)}; it must not be where that is False, and may be where it is not named."""
    embeddings = [33] if hyper['flags'] & TIED else [33, 34]
    wanted = {name: True for name in ('HYPR', 'NORM', 'TERN', 'TENS')}
    wanted['EMBD'] = not all(is_ternary(role, hyper) for role in embeddings)
    wanted['SCAL'] = hyper['scale_group'] != 0
    if is_ternary(output_role(hyper), hyper):
        wanted['EMB8'] = False
    return wanted


def wanted_roles(hyper, has_int8):
    """The roles that HYPR and the presence of EMB8 call for (R14)."""
    absent = set() if has_int8 else {35, 36}
    if hyper['flags'] & TIED:
        absent |= {34}
    return [n for n, role in ROLES.items() if n not in absent and (not role.flag or hyper['flags'] & role.flag)]


def tensor_keys(hyper, has_int8):
    """Every (layer, role) of the model in tensor table order (R13, R14)."""
    roles = wanted_roles(hyper, has_int8)
    keys = [(layer, role) for layer in range(hyper['n_layers']) for role in roles if ROLES[role].per_layer]
    return keys + [(NO_LAYER, role) for role in roles if not ROLES[role].per_layer]


def places(keys, hyper, kind):
    """Where R16 puts those of the tensors that belong to the section."""
    if kind == 'SCAL':
        return scale_places(keys, hyper)
    found, end, before = [], 0, None
    for layer, role in keys:
        if section(role, hyper) != kind:
            continue
        joined = role in ADJACENT and before == (layer, role - 1)
        offset = end if joined else up(end, TENSOR_ALIGN)
        found.append(Place((layer, role), offset, byte_size(role, hyper)))
        end, before = offset + found[-1].size, (layer, role)
    return found


def scale_places(keys, hyper):
    found, end = [], 0
    for layer, role in keys:
        if hyper['scale_group'] and is_ternary(role, hyper):
            found.append(Place((layer, role), up(end, TENSOR_ALIGN), scales_size(role, hyper)))
            end = found[-1].offset + found[-1].size
    return found


def places_end(found):
    return found[-1].offset + found[-1].size if found else 0
