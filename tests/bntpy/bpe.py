# SPDX-License-Identifier: MIT
"""Text to ids and back, section 8.

Python's re knows no \\p{L}, so a caller who has split steps brings his own matcher: search(pattern, text, at) gives
(start, end) of the first match that begins at `at` or behind it, or None. All the rest of the definition is here,
plain rather than fast, and without the limits that a reader of strangers' tokenizers may have. Normalization forms, lower case and word characters
are those of Python's own unicodedata: right for characters that all of Unicode 9.0 … 17.0 have alike.
"""
import itertools
import unicodedata
from collections import namedtuple

import tokn

# Unicode White_Space; str.isspace() also takes U+001C…001F, which are not in it.
WHITE_SPACE = frozenset('\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000').union(
    map(chr, range(0x2000, 0x200B)))
REPLACEMENT = '\ufffd'

_STAYS = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_CHARACTERS = {**{b: chr(b) for b in _STAYS}, **{b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in _STAYS)}}
CHARACTER_BYTES = {c: bytes([b]) for b, c in BYTE_CHARACTERS.items()}

Piece = namedtuple('Piece', 'text first')  # first: it begins where the whole text begins


def is_word(c):
    category = unicodedata.category(c)
    return category[0] in 'LM' or category in ('Nd', 'Pc') or c in '\u200c\u200d'


def decode(tokenizer, ids):
    """Ill-formed UTF-8 becomes U+FFFD, one for each maximal subpart: what Python's 'replace' does too."""
    tokens = [(tokenizer.tokens[i], tokenizer.attr[i] & tokn.ATTR_BYTE) if i < len(tokenizer.tokens) else (b'', 0)
              for i in ids]
    if tokens and tokenizer.flags & tokn.DROP_FIRST_SPACES:
        tokens[0] = tokens[0][0].replace(b' ', b''), tokens[0][1]
    runs = itertools.groupby(tokens, lambda token: token[1])
    text = b''.join(_decode_run(b''.join(raw for raw, _ in run), is_bytes) for is_bytes, run in runs)
    text = text.decode('utf-8', 'replace')
    return text[1:] if tokenizer.flags & tokn.DROP_LEADING_SPACE and text.startswith(' ') else text


def _decode_run(raw, is_bytes):
    """Byte tokens that together are not UTF-8: all of them are shown as what they are not."""
    try:
        raw.decode('utf-8')
    except UnicodeDecodeError:
        return REPLACEMENT.encode('utf-8') * len(raw) if is_bytes else raw
    return raw


def encode(tokenizer, text, search=None, whole=False, plain=(), control=None):
    """The ids of a text; with prefix and suffix if it is a whole input. plain: (start, end) of the parts in which what
    spells a control token stays text. control(added): whether it is one, if not those with the flag."""
    vocabulary = Vocabulary(tokenizer)
    ids = []
    for part in _parts(tokenizer, text, search, plain, control or is_special):
        if isinstance(part, int):
            ids.append(part)
            continue
        for piece in pretokenize(tokenizer.steps[tokenizer.n_normalizers:], part, search):
            ids += vocabulary.encode(piece)
    if not whole:
        return ids
    has_prefix = ids[:len(tokenizer.prefix)] == tokenizer.prefix
    return ids + tokenizer.suffix if has_prefix else tokenizer.prefix + ids + tokenizer.suffix


def is_special(added):
    return bool(added.flags & tokn.SPECIAL)


def _parts(tokenizer, text, search, plain, control):
    """Ids of added tokens and the Pieces between them, normalized."""
    early = [a for a in tokenizer.added if not a.flags & tokn.NORMALIZED]
    late = [a for a in tokenizer.added if a.flags & tokn.NORMALIZED]
    normalizer = tokenizer.steps[:tokenizer.n_normalizers]
    for at, part in split_added(early, text, WHITE_SPACE, plain, control):
        if isinstance(part, int):
            yield part
            continue
        piece = Piece(part, at == 0)
        normalized = _normalize(normalizer, piece, search)
        inside = [_lead(normalizer, search, piece, start - at, end - at) for start, end in plain]
        for late_at, late_part in split_added(late, normalized.text, _strippable(normalizer), inside, control):
            yield late_part if isinstance(late_part, int) else Piece(late_part, normalized.first and late_at == 0)


def _lead(normalizer, search, piece, start, end):
    """Where the normalizer leads a part of a piece: behind what it makes of the text before."""
    before = [Piece(piece.text[:max(place, 0)], piece.first) for place in (start, end)]
    return [len(_normalize(normalizer, text, search).text) for text in before]


def _strippable(normalizer):
    """What lstrip and rstrip take after the normalizer: no spaces where it makes some, since they stand for marks."""
    makes_spaces = any(s.type == tokn.REPLACE and s.replacement == b' ' for s in normalizer)
    return WHITE_SPACE - {' '} if makes_spaces else WHITE_SPACE


def _normalize(steps, piece, search):
    for step in steps:
        piece = _change(step, piece, search)
    return piece


def _change(step, piece, search):
    """A step that does not split."""
    text, own = piece.text, step.text.decode('utf-8')
    if step.type == tokn.PREFIX:
        wanted = text and not text.startswith(own) and (step.behavior == tokn.EVERY_PIECE or piece.first)
        text = own + text if wanted else text
    elif step.type == tokn.PREPEND:
        text = own + text if text else text
    elif step.type == tokn.REPLACE:
        text = text.replace(own, step.replacement.decode('utf-8'))
    elif step.type == tokn.REPLACE_PATTERN:
        text = _replace_matches(step, text, search)
    elif step.type == tokn.LOWERCASE:
        text = ''.join(c.lower() for c in text)  # one by one: no final sigma
    elif step.type == tokn.BYTE_LEVEL:
        text = ''.join(BYTE_CHARACTERS[b] for b in text.encode('utf-8'))
    elif step.type in tokn.FORMS:
        text = unicodedata.normalize(tokn.FORMS[step.type], text)
    return Piece(text, piece.first)


def _replace_matches(step, text, search):
    parts, done = [], 0
    for start, end in matches(_needed(search), step, text):
        parts += [text[done:start], step.replacement.decode('utf-8')]
        done = end
    return ''.join(parts) + text[done:]


def _needed(search):
    if search is None:
        raise ValueError('this tokenizer has a pattern: a matcher is needed')
    return search


def split_added(added, text, strippable=WHITE_SPACE, plain=(), control=is_special):
    """The text as ids of added tokens and the non-empty strings between them, each with the place where it begins."""
    texts = sorted(((a.text.decode('utf-8'), a) for a in added), key=lambda x: -len(x[0]))
    parts, done, at = [], 0, 0
    while at < len(text):
        size, match = next(((len(t), a) for t, a in texts if text.startswith(t, at)), (1, None))
        if match is None or not _stands_alone(match, text, at, at + size) or (
                any(at < end and at + size > start for start, end in plain) and control(match)):
            at += size  # a rejected match is passed over as a whole
            continue
        start, end = _extend(match, text, strippable, done, at, at + size)
        parts += [(done, text[done:start]), (start, match.id)]
        at += size  # white space that it took may hold further ones
        done = end
    return [(place, part) for place, part in parts + [(done, text[done:])] if part != '']


def _stands_alone(added, text, start, end):
    """single_word: the neighbours of the text itself, before white space is taken in."""
    if not added.flags & tokn.SINGLE_WORD:
        return True
    return not (start > 0 and is_word(text[start - 1])) and not (end < len(text) and is_word(text[end]))


def _extend(added, text, strippable, done, start, end):
    """lstrip and rstrip; what an earlier match took is out of reach."""
    while added.flags & tokn.LSTRIP and start > done and text[start - 1] in strippable:
        start -= 1
    while added.flags & tokn.RSTRIP and end < len(text) and text[end] in strippable:
        end += 1
    return start, end


def pretokenize(steps, text, search=None):
    """The texts of the pieces. text: a Piece, or a string that is the whole text."""
    pieces = [text if isinstance(text, Piece) else Piece(text, True)]
    for step in steps:
        if step.type != tokn.SPLIT:
            pieces = [_change(step, piece, search) for piece in pieces]
        else:
            pieces = [new for old in pieces for new in _split(step, old, matches(_needed(search), step, old.text))]
        pieces = [piece for piece in pieces if piece.text]
    return [piece.text for piece in pieces]


def matches(search, step, text):
    """Where a split step's pattern matches, one after the other. Behind an empty match the search goes on at the next
    character: unlike re.finditer, which tries for a match that is not empty at the same place first. An empty match
    directly behind a match is none."""
    found, before = search(step.text.decode('utf-8'), text, 0), None
    while found is not None:
        start, end = found
        if start < end or end != before:
            yield found
            before = end
        at = end + (start == end)
        found = search(step.text.decode('utf-8'), text, at) if at <= len(text) else None


def _split(step, piece, spans):
    """Cut into (is separator, start, end), then let behavior say what becomes of the separators. Between matches
    nothing is nothing; an empty match stays until all is joined, since it keeps apart what lies around it."""
    cut, done = [], 0
    for start, end in spans:
        if done < start:
            cut.append((bool(step.invert), done, start))
        cut.append((not step.invert, start, end))
        done = end
    if done < len(piece.text):
        cut.append((bool(step.invert), done, len(piece.text)))
    if step.behavior == tokn.REMOVED:
        kept = [(start, end) for separator, start, end in cut if not separator]
    else:
        kept = _join(step.behavior, cut)
    return [Piece(piece.text[start:end], piece.first and start == 0) for start, end in kept]


def _join(behavior, cut):
    """Who joins the one before: a separator the rest, a rest the separator, like its like."""
    joins = {tokn.MERGED_WITH_PREVIOUS: [(False, True)], tokn.MERGED_WITH_NEXT: [(True, False)],
             tokn.CONTIGUOUS: [(True, True), (False, False)]}.get(behavior, [])
    kept, before = [], None
    for separator, start, end in cut:
        if (before, separator) in joins:
            kept[-1] = kept[-1][0], end
        else:
            kept.append((start, end))
        before = separator
    return kept


class Vocabulary:
    """Step 4 of section 8: a piece becomes ids."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.merges = {(m.left, m.right): m for m in tokenizer.merges}
        self.lookup = {tokenizer.tokens[i]: i for i in tokenizer.lookup}
        last = tokenizer.steps[-1:]
        self.end_of_word = last[0].text if last and last[0].type == tokn.END_OF_WORD else b''
        self.maps_bytes = any(step.type == tokn.BYTE_LEVEL for step in tokenizer.steps)
        self.bytes = {word: i for i, word in enumerate(tokenizer.tokens) if tokenizer.attr[i] & tokn.ATTR_BYTE}

    def encode(self, text):
        raw = text.encode('utf-8')
        if self.maps_bytes:
            raw = b''.join(CHARACTER_BYTES.get(c) or c.encode('utf-8') for c in text)
        if self.tokenizer.flags & tokn.IGNORE_MERGES and raw in self.lookup:
            return [self.lookup[raw]]
        units = [c.encode('utf-8') for c in text] if self.tokenizer.kind == tokn.CHARACTERS else _bytes(raw)
        units[-1] += self.end_of_word
        return self._merge(self._symbols(units))

    def _symbols(self, units):
        symbols, is_run = [], False
        for unit in units:
            ids = self._ids(unit)
            unknown = ids is None
            if not unknown:
                symbols += ids
            elif self.tokenizer.unk_id != tokn.NO_ID and not (is_run and self.tokenizer.flags & tokn.FUSE_UNK):
                symbols.append(self.tokenizer.unk_id)
            is_run = unknown
        return symbols

    def _ids(self, unit):
        """The ids of a character or byte, or None where there are none."""
        if unit in self.lookup:
            return [self.lookup[unit]]
        if self.tokenizer.flags & tokn.BYTE_FALLBACK and all(b in self.bytes for b in _bytes(unit)):
            return [self.bytes[b] for b in _bytes(unit)]
        return None

    def _merge(self, symbols):
        while True:
            pairs = enumerate(zip(symbols, symbols[1:]))
            found = [(self.merges[pair].rank, i) for i, pair in pairs if pair in self.merges]
            if not found:
                return symbols
            _, i = min(found)  # lowest rank, then leftmost
            symbols[i:i + 2] = [self.merges[symbols[i], symbols[i + 1]].result]


def _bytes(raw):
    return [raw[i:i + 1] for i in range(len(raw))]
