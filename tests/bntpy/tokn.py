# SPDX-License-Identifier: MIT
"""The `TOKN` section (section 8): its bytes, and the tokenizer as lists."""
import itertools
import struct
from collections import namedtuple
from dataclasses import dataclass, field

HEADER = struct.Struct('<14I8s')
Header = namedtuple('Header', 'kind flags n_tokens n_lookup n_merges n_added n_steps n_prefix n_suffix pool_size '
                              'chat_offset chat_size n_normalizers unk_id reserved')
Arrays = namedtuple('Arrays', 'token_offset lookup merges added steps prefix suffix attr pool')
BYTES, CHARACTERS = 1, 2  # kinds of BPE
IGNORE_MERGES, BYTE_FALLBACK, FUSE_UNK, DROP_LEADING_SPACE, DROP_FIRST_SPACES = 1, 2, 4, 8, 16  # flags
NO_ID = 0xFFFFFFFF
SPECIAL, SINGLE_WORD, LSTRIP, RSTRIP, NORMALIZED = 1, 2, 4, 8, 16  # flags of an added token
SPLIT, PREFIX, PREPEND, REPLACE, NFC, BYTE_LEVEL, NFD, NFKC, NFKD, LOWERCASE, REPLACE_PATTERN, END_OF_WORD = range(1, 13)  # step types
FORMS = {NFC: 'NFC', NFD: 'NFD', NFKC: 'NFKC', NFKD: 'NFKD'}
NORMALIZERS = (PREFIX, PREPEND, REPLACE, *FORMS, LOWERCASE, REPLACE_PATTERN)
PRETOKENIZERS = (SPLIT, PREFIX, REPLACE, BYTE_LEVEL, END_OF_WORD)
TEXTLESS = (*FORMS, BYTE_LEVEL, LOWERCASE)
MAX_END_OF_WORD = 64  # bytes
REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS = range(5)
EVERY_PIECE, FIRST_PIECE = 0, 1  # behaviors of a prefix step
ATTR_SPECIAL, ATTR_ADDED, ATTR_HOLE, ATTR_BYTE = 1, 2, 4, 8

Merge = namedtuple('Merge', 'left right rank result')
Added = namedtuple('Added', 'id flags text')
Step = namedtuple('Step', 'type behavior invert text replacement', defaults=[b''])

AddedRecord = namedtuple('AddedRecord', 'id flags offset size')
StepRecord = namedtuple('StepRecord', 'type behavior invert zero offset size extra')
_U32, _MERGE, _STEP = struct.Struct('<I'), struct.Struct('<4I'), struct.Struct('<4B3I')


@dataclass
class Tokenizer:
    tokens: list                                  # bytes by id: what each decodes to
    lookup: list = field(default_factory=list)    # ids, ascending by bytes
    merges: list = field(default_factory=list)    # of Merge, ascending by (left, right)
    added: list = field(default_factory=list)     # of Added, texts as bytes, ascending by them
    steps: list = field(default_factory=list)     # of Step, texts as bytes; the normalizer's first
    prefix: list = field(default_factory=list)
    suffix: list = field(default_factory=list)
    attr: bytes = b''                             # one a token
    chat: bytes = b''                             # Jinja source; empty = none
    kind: int = BYTES
    flags: int = 0
    n_normalizers: int = 0
    unk_id: int = NO_ID


def array_sizes(h):
    """Bytes of each array, in file order."""
    return [4 * (h.n_tokens + 1), 4 * h.n_lookup, 16 * h.n_merges, 16 * h.n_added, 16 * h.n_steps, 4 * h.n_prefix,
            4 * h.n_suffix, h.n_tokens, h.pool_size]


def header(body):
    return Header(*HEADER.unpack_from(body))


def section_size(h):
    return HEADER.size + sum(array_sizes(h))


def arrays(body):
    """The arrays of a section that is as long as its counts say."""
    ends = list(itertools.accumulate(array_sizes(header(body)), initial=HEADER.size))
    parts = [body[a:b] for a, b in zip(ends, ends[1:])]
    ids = [[x for x, in _U32.iter_unpack(parts[i])] for i in (0, 1, 5, 6)]
    merges = [Merge(*m) for m in _MERGE.iter_unpack(parts[2])]
    added = [AddedRecord(*a) for a in _MERGE.iter_unpack(parts[3])]
    steps = [StepRecord(*s) for s in _STEP.iter_unpack(parts[4])]
    return Arrays(ids[0], ids[1], merges, added, steps, ids[2], ids[3], parts[7], parts[8])


def read(body):
    h, a = header(body), arrays(body)
    tokens = [a.pool[x:y] for x, y in zip(a.token_offset, a.token_offset[1:])]
    added = [Added(r.id, r.flags, a.pool[r.offset:r.offset + r.size]) for r in a.added]
    chat = a.pool[h.chat_offset:h.chat_offset + h.chat_size]
    return Tokenizer(tokens, a.lookup, a.merges, added, [_step(s, a.pool) for s in a.steps], a.prefix, a.suffix, a.attr,
                     chat, h.kind, h.flags, h.n_normalizers, h.unk_id)


def _step(s, pool):
    """The replacement lies behind the text."""
    end = s.offset + s.size
    return Step(s.type, s.behavior, s.invert, pool[s.offset:end], pool[end:end + s.extra])


class _Pool:
    """Collects byte strings and says where each went."""

    def __init__(self):
        self.data = bytearray()

    def add(self, text):
        """(offset, size). An empty range has offset 0: no chat template, a step without a text."""
        offset = len(self.data) if text else 0
        self.data += text
        return offset, len(text)


def write(t):
    pool = _Pool()
    token_offset = list(itertools.accumulate(map(len, t.tokens), initial=0))
    pool.data += b''.join(t.tokens)
    added = [_MERGE.pack(a.id, a.flags, *pool.add(a.text)) for a in t.added]
    steps = [_STEP.pack(s.type, s.behavior, s.invert, 0, pool.add(s.text + s.replacement)[0], len(s.text),
                        len(s.replacement)) for s in t.steps]
    chat = pool.add(t.chat)
    head = HEADER.pack(t.kind, t.flags, len(t.tokens), len(t.lookup), len(t.merges), len(added), len(steps),
                       len(t.prefix), len(t.suffix), len(pool.data), *chat, t.n_normalizers, t.unk_id, bytes(8))
    merges = [_MERGE.pack(*m) for m in t.merges]
    return b''.join([head, _ids(token_offset), _ids(t.lookup), *merges, *added, *steps, _ids(t.prefix),
                     _ids(t.suffix), bytes(t.attr), bytes(pool.data)])


def _ids(values):
    return struct.pack('<%dI' % len(values), *values)
