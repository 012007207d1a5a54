# SPDX-License-Identifier: MIT
"""Text to ids and back, kind 1 of section 8.

Python's re knows no \\p{L}, so a caller who has split steps brings his own matcher: find(pattern, text) gives
the (start, end) of the matches. All the rest of the definition is here, plain rather than fast.
"""
import unicodedata

import tokn

# Unicode White_Space; str.isspace() also takes U+001C…001F, which are not in it.
WHITE_SPACE = frozenset('\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000').union(
    map(chr, range(0x2000, 0x200B)))


def is_word(c):
    category = unicodedata.category(c)
    return category[0] in 'LM' or category in ('Nd', 'Pc') or c in '\u200c\u200d'


def decode(tokenizer, ids):
    """Ill-formed UTF-8 becomes U+FFFD, one for each maximal subpart: what Python's 'replace' does too."""
    known = [i for i in ids if i < len(tokenizer.tokens)]
    return b''.join(tokenizer.tokens[i] for i in known).decode('utf-8', 'replace')


def encode(tokenizer, text, find=None, whole=False):
    """The ids of a text; with prefix and suffix if it is a whole input."""
    merges = {(m.left, m.right): m for m in tokenizer.merges}
    lookup = {tokenizer.tokens[i]: i for i in tokenizer.lookup}
    ids = []
    for part in split_added(tokenizer.added, text):
        if isinstance(part, int):
            ids.append(part)
            continue
        for piece in pretokenize(tokenizer.steps, part, find):
            ids += encode_piece(piece.encode('utf-8'), lookup, merges, tokenizer.flags & tokn.IGNORE_MERGES)
    return tokenizer.prefix + ids + tokenizer.suffix if whole else ids


def split_added(added, text):
    """The text as ids of added tokens and the non-empty strings between them."""
    texts = sorted(((a.text.decode('utf-8'), a) for a in added), key=lambda x: -len(x[0]))
    parts, done, at = [], 0, 0
    while at < len(text):
        size, match = next(((len(t), a) for t, a in texts if text.startswith(t, at)), (1, None))
        if match is None or not _stands_alone(match, text, at, at + size):
            at += size  # a rejected match is passed over as a whole
            continue
        start, end = _extend(match, text, done, at, at + size)
        parts += [text[done:start], match.id]
        done = at = end
    return [part for part in parts + [text[done:]] if part != '']


def _stands_alone(added, text, start, end):
    """single_word: the neighbours of the text itself, before white space is taken in."""
    if not added.flags & tokn.SINGLE_WORD:
        return True
    return not (start > 0 and is_word(text[start - 1])) and not (end < len(text) and is_word(text[end]))


def _extend(added, text, done, start, end):
    """lstrip and rstrip; what an earlier match took is out of reach."""
    while added.flags & tokn.LSTRIP and start > done and text[start - 1] in WHITE_SPACE:
        start -= 1
    while added.flags & tokn.RSTRIP and end < len(text) and text[end] in WHITE_SPACE:
        end += 1
    return start, end


def pretokenize(steps, text, find=None):
    pieces = [text]
    for step in steps:
        if step.type == tokn.PREFIX_SPACE:
            pieces = [piece if piece.startswith(' ') else ' ' + piece for piece in pieces]
        elif find is None:
            raise ValueError('this tokenizer has a pattern: a matcher is needed')
        else:
            pieces = [new for old in pieces for new in _split(step, old, find(step.pattern.decode('utf-8'), old))]
    return pieces


def _split(step, text, spans):
    """Cut into (is separator, piece), then let behavior say what becomes of the separators. Between matches nothing
    is nothing; an empty match stays until all is joined, since it keeps apart what lies around it."""
    cut, done = [], 0
    for start, end in spans:
        if done < start:
            cut.append((bool(step.invert), text[done:start]))
        cut.append((not step.invert, text[start:end]))
        done = end
    if done < len(text):
        cut.append((bool(step.invert), text[done:]))
    return [piece for piece in _behave(step.behavior, cut) if piece]


def _behave(behavior, cut):
    if behavior == tokn.MERGED_WITH_NEXT:  # the mirror image of merged_with_previous
        mirrored = _join(tokn.MERGED_WITH_PREVIOUS, [(sep, piece[::-1]) for sep, piece in reversed(cut)])
        return [piece[::-1] for piece in reversed(mirrored)]
    if behavior == tokn.REMOVED:
        return [piece for separator, piece in cut if not separator]
    return _join(behavior, cut)


def _join(behavior, cut):
    """Separators that join a neighbour: the rest before them, or (contiguous) a separator before them."""
    pieces, before = [], None
    for separator, piece in cut:
        joins = {tokn.MERGED_WITH_PREVIOUS: separator and before is False,
                 tokn.CONTIGUOUS: separator and before is True}.get(behavior, False)
        if joins:
            pieces[-1] += piece
        else:
            pieces.append(piece)
        before = separator
    return pieces


def encode_piece(piece, lookup, merges, ignore_merges):
    if ignore_merges and piece in lookup:
        return [lookup[piece]]
    symbols = [lookup[piece[i:i + 1]] for i in range(len(piece)) if piece[i:i + 1] in lookup]
    while True:
        found = [(merges[pair].rank, i) for i, pair in enumerate(zip(symbols, symbols[1:])) if pair in merges]
        if not found:
            return symbols
        _, i = min(found)  # lowest rank, then leftmost
        symbols[i:i + 2] = [merges[symbols[i], symbols[i + 1]].result]
