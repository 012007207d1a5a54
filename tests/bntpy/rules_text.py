# SPDX-License-Identifier: MIT
"""R24 … R28: the tokenizer and the provenance."""
import json
import math

import ternary
import tokn
from floats import f32
from layout import NO_LAYER, ROLES

MAX_COUNTS = {'n_added': 65536, 'n_steps': 64, 'n_prefix': 65536, 'n_suffix': 65536}
MAX_ADDED = 1024
MAX_TEXT = 65535  # bytes of a step's or an added token's
MAX_NESTING = 100


def check_tokenizer(body, vocab_size):
    """R24 … R26. vocab_size is None where HYPR does not tell."""
    if len(body) < tokn.HEADER.size or len(body) != tokn.section_size(tokn.header(body)):
        yield 'R24', 'TOKN is not as long as its counts say'
        return
    h, arrays = tokn.header(body), tokn.arrays(body)
    yield from _header(h, vocab_size)
    yield from _reserved(arrays)
    if (yield from _ranges(h, arrays)):
        yield from _ids(h, arrays)
        tokenizer = tokn.read(body)
        yield from _order(tokenizer)
        yield from _added(tokenizer)
        yield from _texts(tokenizer)
        yield from _steps(arrays, tokenizer)


def _header(h, vocab_size):
    if h.kind not in (tokn.BYTES, tokn.CHARACTERS):
        yield 'R24', 'kind %d is unknown' % h.kind
    if h.flags & ~31 or any(h.reserved):
        yield 'R24', 'reserved flags or bytes of the header are not zero'
    if h.n_tokens < 1 or vocab_size is not None and h.n_tokens > vocab_size:
        yield 'R24', 'n_tokens %d is not in 1 ... vocab_size' % h.n_tokens
    for name, most in MAX_COUNTS.items():
        if getattr(h, name) > most:
            yield 'R24', '%s is %d' % (name, getattr(h, name))
    if h.n_normalizers > h.n_steps:
        yield 'R24', 'n_normalizers %d is more than n_steps' % h.n_normalizers
    if h.unk_id != tokn.NO_ID and h.unk_id >= h.n_tokens:
        yield 'R24', 'unk_id %d is not below n_tokens' % h.unk_id
    if h.chat_offset and not h.chat_size:
        yield 'R24', 'chat_offset is %d, but there is no template' % h.chat_offset


def _reserved(arrays):
    if any(s.zero for s in arrays.steps):
        yield 'R24', 'a reserved field of a step is not zero'
    if any(a & ~15 for a in set(arrays.attr)):
        yield 'R24', 'a token has unknown attributes'


def _ranges(h, arrays):
    """R24 for all that points into the pool. Returns whether the pool can be read."""
    offsets = arrays.token_offset
    good = True
    if offsets[0] != 0 or any(a > b for a, b in zip(offsets, offsets[1:])) or offsets[-1] > h.pool_size:
        yield 'R24', 'token_offset does not ascend from 0 within the pool'
        good = False
    ranges = [(a.offset, a.size) for a in arrays.added] + [(s.offset, s.size + s.extra) for s in arrays.steps]
    for offset, size in ranges + [(h.chat_offset, h.chat_size)]:
        if offset + size > h.pool_size:
            yield 'R24', 'the range %d + %d goes past the pool of %d' % (offset, size, h.pool_size)
            good = False
    return good


def _ids(h, arrays):
    groups = {'lookup': arrays.lookup, 'merges': [i for m in arrays.merges for i in (m.left, m.right, m.result)],
              'added': [a.id for a in arrays.added], 'prefix': arrays.prefix, 'suffix': arrays.suffix}
    for name, ids in groups.items():
        if any(i >= h.n_tokens for i in ids):
            yield 'R25', '%s: an id is not below n_tokens' % name


def _is_merge(left, right, result):
    return left and right and left + right == result and len(result) <= MAX_TEXT


def _order(t):
    """R25 by what can be looked up: wrong ids were reported before."""
    words = [t.tokens[i] for i in t.lookup if i < len(t.tokens)]
    if b'' in words:
        yield 'R25', 'lookup holds an empty token'
    if any(a >= b for a, b in zip(words, words[1:])):
        yield 'R25', 'lookup does not ascend by bytes'
    if any(a.text >= b.text for a, b in zip(t.added, t.added[1:])):
        yield 'R25', 'added does not ascend by text'
    if any(a[:2] >= b[:2] for a, b in zip(t.merges, t.merges[1:])):
        yield 'R25', 'merges do not ascend by (left, right)'
    for m in t.merges:
        if max(m.left, m.right, m.result) < len(t.tokens) and \
                not _is_merge(t.tokens[m.left], t.tokens[m.right], t.tokens[m.result]):
            yield 'R25', 'merge %d %d: the result has other bytes' % (m.left, m.right)
            return


def _is_utf8(raw):
    try:
        raw.decode('utf-8')
    except UnicodeDecodeError:
        return False
    return True


def _added(t):
    if any(not 1 <= len(a.text) <= MAX_ADDED for a in t.added):
        yield 'R26', 'an added token has no text or one of more than %d bytes' % MAX_ADDED
    if any(a.flags & ~31 for a in t.added):
        yield 'R26', 'an added token has unknown flags'


def _texts(t):
    """A replacement is not named among the texts, but one that is not UTF-8 would leave none behind."""
    named = [('added text', a.text) for a in t.added] + [("step's text", text) for s in t.steps for text in s[3:]]
    for name, raw in named + [('chat template', t.chat)]:
        if not _is_utf8(raw):
            yield 'R26', 'the %s %r is not UTF-8' % (name, raw[:40])
    if any(a & tokn.ATTR_BYTE and len(word) != 1 for word, a in zip(t.tokens, t.attr)):
        yield 'R26', 'a byte token does not have one byte'


def _steps(arrays, t):
    """Whether a pattern compiles is not judged: that takes PCRE2, which Python does not have."""
    for i, record in enumerate(arrays.steps):
        if record.type not in (tokn.NORMALIZERS if i < t.n_normalizers else tokn.PRETOKENIZERS):
            yield 'R26', 'step %d: no step of type %d may be here' % (i, record.type)
        elif not all(_step_fields(record)):
            yield 'R26', 'step %d: behavior, invert or text is not allowed' % i
        elif record.type == tokn.BYTE_LEVEL and t.kind != tokn.BYTES:
            yield 'R26', 'step %d: byte_level is for byte-level BPE' % i
        elif record.type == tokn.END_OF_WORD and i + 1 < len(arrays.steps):
            yield 'R26', 'step %d: end_of_word must be the last' % i


def _step_fields(s):
    """What the table of step types does not name is 0."""
    yield s.behavior <= {tokn.SPLIT: tokn.CONTIGUOUS, tokn.PREFIX: tokn.FIRST_PIECE}.get(s.type, 0)
    yield s.invert <= (1 if s.type == tokn.SPLIT else 0)
    yield s.extra <= (MAX_TEXT if s.type in (tokn.REPLACE, tokn.REPLACE_PATTERN) else 0)
    most = tokn.MAX_END_OF_WORD if s.type == tokn.END_OF_WORD else MAX_TEXT
    yield s.offset == s.size == 0 if s.type in tokn.TEXTLESS else 1 <= s.size <= most


def load_json(raw):
    """RFC 8259 strictly (no NaN), within the limits of section 9; ValueError or RecursionError otherwise."""
    value = json.loads(raw.decode('utf-8'), parse_constant=_real, parse_float=_real, parse_int=_integer,
                       object_pairs_hook=_object)
    _check_limits(value, 0)
    return value


def _real(text):
    if not math.isfinite(float(text)):
        raise ValueError('%s is not a finite number' % text)
    return float(text)


def _integer(digits):
    if len(digits) > 20 or not -1 << 63 <= int(digits) < 1 << 63:
        raise ValueError('an integer of %d digits does not fit in i64' % len(digits))
    return int(digits)


def _object(members):
    found = dict(members)
    if len(found) < len(members):
        raise ValueError('a key occurs twice in an object')
    return found


def _check_limits(value, around):
    """Nesting, where around counts the arrays and objects outside, U+0000, and surrogates: UTF-8 has none, so a string
    that cannot be encoded got an unpaired one from an escape."""
    if isinstance(value, str) and b'\0' in value.encode('utf-8'):
        raise ValueError('a text has U+0000')
    if not isinstance(value, (dict, list)):
        return
    if around == MAX_NESTING:
        raise ValueError('nested more than %d deep' % MAX_NESTING)
    for item in [*value, *value.values()] if isinstance(value, dict) else value:
        _check_limits(item, around + 1)


def check_provenance(body, tensors):
    """R27, R28. tensors is None where the tensor table cannot be read."""
    try:
        value = load_json(body)
    except (ValueError, RecursionError) as error:
        yield 'R27', 'PROV is not JSON: %s' % error
        return
    if not isinstance(value, dict):
        yield 'R27', 'PROV is not a JSON object'
    elif 'matrices' in value and tensors is not None:
        yield from _matrices(value['matrices'], [t for t in tensors if t.is_ternary])


def _matrices(entries, matrices):
    if not isinstance(entries, list) or len(entries) != len(matrices):
        yield 'R28', 'matrices is not an array of %d' % len(matrices)
        return
    for i, (entry, matrix) in enumerate(zip(entries, matrices)):
        if not isinstance(entry, dict) or not _agrees(entry, matrix):
            yield 'R28', 'matrices[%d] does not agree with the file' % i


def _agrees(entry, matrix):
    record, gamma = matrix.record, entry.get('gamma')
    layer = None if record.layer == NO_LAYER else record.layer
    if entry.get('role') != ROLES[record.role].name or type(gamma) not in (int, float) or f32(gamma) != record.scale:
        return False
    numbers = [entry.get(name) for name in ('minus', 'zero', 'plus')]
    if any(type(n) is not int for n in numbers) or type(entry.get('layer', '')) is not type(layer) or \
            entry['layer'] != layer:
        return False
    return matrix.weights is None or tuple(numbers) == ternary.counts(matrix.weights)
