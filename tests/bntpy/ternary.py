# SPDX-License-Identifier: MIT
"""Ternary matrices: the 16×32 blocks of section 5, and how masters become ternary.

Weights are int8 bytes, row-major: FF, 00, 01 for −1, 0, +1. word_bit() is the closed form of the
specification and the only place that knows the layout; the fast pack() and unpack() ask it for the
512 slots of one block and then move all blocks at once by strided slices. The tests compare both ways.
"""
import math
import re
from array import array

from floats import f32, float_bytes, floats, half_bytes, halves, is_half
from layout import F16, F32, WHOLE_ROW, up

BLOCK = 128  # bytes of 16 rows × 32 columns


def word_bit(n, k, padded_cols):
    """Where the code of weight (n, k) lies: index of the 32-bit word, lowest bit in it."""
    word = ((n // 16) * (padded_cols // 32) + k // 32) * 32 + ((n % 16) // 8) * 16 + ((k % 32) // 16) * 8 + n % 8
    return word, 8 * (k % 4) + 2 * ((k % 16) // 4)


def _slot(n, k):
    """Byte in a block and number of the 2-bit field in it, for row n and column k of the block."""
    word, bit = word_bit(n, k, 32)
    return 4 * word + bit // 8, bit % 8 // 2


_SLOTS = [[_slot(n, k) for k in range(32)] for n in range(16)]
_DECODE = [bytes(((b >> 2 * i & 3) - 2) & 0xFF for b in range(256)) for i in range(4)]
_ENCODE = bytes((b + 2) & 0xFF for b in range(256))
_HAS_CODE_0 = bytes(b for b in range(256) if any(not b >> 2 * i & 3 for i in range(4)))
_CODE_0 = re.compile(b'[' + re.escape(_HAS_CODE_0) + b']')


def packed_size(rows, cols):
    return up(rows, 16) * up(cols, 32) // 4


def unpack_by_definition(packed, rows, cols):
    """The definition: every weight by the closed form."""
    weights = bytearray()
    for n in range(rows):
        for k in range(cols):
            word, bit = word_bit(n, k, up(cols, 32))
            code = int.from_bytes(packed[4 * word:4 * word + 4], 'little') >> bit & 3
            weights.append((code - 2) & 0xFF)
    return bytes(weights)


def pack_by_definition(weights, rows, cols):
    words = [0xAAAAAAAA] * (packed_size(rows, cols) // 4)  # all codes 2: the weight zero, also for the padding
    for n in range(rows):
        for k in range(cols):
            word, bit = word_bit(n, k, up(cols, 32))
            code = (weights[n * cols + k] + 2) & 0xFF
            words[word] = words[word] & ~(3 << bit) | code << bit
    return b''.join(word.to_bytes(4, 'little') for word in words)


def unpack_padded(packed, rows, cols):
    """All N'×K' weights, padding included."""
    width = up(cols, 32)
    strips = [_unpack_strip(packed, n) for n in range(16)]
    return b''.join(strips[n % 16][n // 16 * width:(n // 16 + 1) * width] for n in range(up(rows, 16)))


def _unpack_strip(packed, n):
    """Row n of every block-row, one after the other: in a strip, column k of block b is at 32·b + k."""
    strip = bytearray(len(packed) // 4)
    for k, (byte, field) in enumerate(_SLOTS[n]):
        strip[k::32] = packed[byte::BLOCK].translate(_DECODE[field])
    return bytes(strip)


def crop(padded, rows, cols):
    """The N×K weights of a padded matrix."""
    width = up(cols, 32)
    if width == cols:
        return padded[:rows * cols]
    return b''.join(padded[n * width:n * width + cols] for n in range(rows))


def pad(weights, rows, cols):
    """The N'×K' matrix, filled with zeros."""
    tail = bytes(up(cols, 32) - cols)
    body = b''.join(weights[n * cols:(n + 1) * cols] + tail for n in range(rows))
    return body + bytes((up(rows, 16) - rows) * up(cols, 32))


def unpack(packed, rows, cols):
    return crop(unpack_padded(packed, rows, cols), rows, cols)


def pack(weights, rows, cols):
    if len(weights) != rows * cols or weights.translate(None, b'\xff\x00\x01'):
        raise ValueError('not a %d x %d matrix of -1, 0, +1' % (rows, cols))
    width, codes = up(cols, 32), pad(weights, rows, cols).translate(_ENCODE)
    lines = [codes[i:i + width] for i in range(0, len(codes), width)]
    strips = [b''.join(lines[n::16]) for n in range(16)]
    packed = bytearray(packed_size(rows, cols))
    for n in range(16):
        _pack_strip(packed, n, strips[n])
    return bytes(packed)


def _pack_strip(packed, n, strip):
    """Put row n of every block-row where it belongs: a strided column of codes is one big integer, so that
    four of them, shifted, make the bytes of all blocks in three operations (codes never reach a neighbour)."""
    count, sums = len(packed) // BLOCK, {}
    for k, (byte, field) in enumerate(_SLOTS[n]):
        sums[byte] = sums.get(byte, 0) | int.from_bytes(strip[k::32], 'little') << 2 * field
    for byte, total in sums.items():
        packed[byte::BLOCK] = total.to_bytes(count, 'little')


def first_code_0(packed):
    """Offset of the first byte with an illegal code, or None."""
    hit = _CODE_0.search(packed)
    return hit.start() if hit else None


def padding_is_zero(padded, rows, cols):
    width = up(cols, 32)
    columns = all(not any(padded[n * width + cols:(n + 1) * width]) for n in range(rows)) if width > cols else True
    return columns and not any(padded[rows * width:])


def counts(weights):
    """How many −1, 0, +1."""
    return weights.count(0xFF), weights.count(0), weights.count(1)


def ternarize(masters):
    """γ and the int8 weights of f32 masters. fsum is the exact sum rounded once, so that neither the order nor
    the Python version (sum() compensates since 3.12) can change γ."""
    if not all(map(math.isfinite, masters)):
        raise ValueError('a master weight is not finite')
    gamma = max(f32(math.fsum(map(abs, masters)) / len(masters)), f32(1e-5))
    inverse = f32(1 / gamma)
    products = array('f', [w * inverse for w in masters])
    return gamma, array('b', [max(-1, min(1, round(max(-2.0, min(2.0, x))))) for x in products]).tobytes()


# Scales of rows and groups, section 5.1: a list, row-major, of N·⌈K/G⌉ values.

def _order(rows, groups):
    """Where the scale (row, group) of SCAL's order stands in the list, or None for a padding row."""
    for block in range(0, rows, 16):
        for group in range(groups):
            for row in range(block, block + 16):
                yield row * groups + group if row < rows else None


def pack_scales(scales, rows, groups, dtype):
    values = [0.0 if at is None else scales[at] for at in _order(rows, groups)]
    return half_bytes(values) if dtype == F16 else float_bytes(values)


def unpack_scales(raw, rows, groups, dtype):
    """The list, and those of the padding rows."""
    found, padding = [0.0] * (rows * groups), []
    for at, value in zip(_order(rows, groups), halves(raw) if dtype == F16 else floats(raw)):
        if at is None:
            padding.append(value)
        else:
            found[at] = value
    return found, padding


GROUPS = (WHOLE_ROW, 256, 128, 64, 32)  # coarsest first; one scale for the matrix, 0, comes before them


def level(values):
    """The s of values that are all −s, 0 or s; 0 if all are zero, None if there is no such s."""
    found = set(map(abs, values)) - {0.0}
    return None if len(found) > 1 else found.pop() if found else 0.0


def levels(masters, cols, group):
    """(scales, int8 weights) of f32 masters whose groups of so many columns hold three levels each, else None.
    group 0: one scale for all."""
    width = group or len(masters)
    rows = [masters] if not group else [masters[i:i + cols] for i in range(0, len(masters), cols)]
    scales = [level(row[i:i + width]) for row in rows for i in range(0, len(row), width)]
    if None in scales:
        return None
    if scales == [0.0] and not group:
        scales = [f32(1e-5)]  # γ is never 0
    return scales, bytes(0 if x == 0 else 1 if x > 0 else 0xFF for x in masters)


def coarsest(matrices):
    """The scale_group that holds for all of [(masters, cols)], and the dtype of its scales; None where none does."""
    for group in (0, *GROUPS):
        found = [levels(masters, cols, group) for masters, cols in matrices]
        if None not in found:
            half = group and all(is_half(s) for scales, _ in found for s in scales)
            return group, F16 if half else F32 if group else 0
    return None
