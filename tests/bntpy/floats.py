# SPDX-License-Identifier: MIT
"""binary32 and bf16 on top of Python's binary64.

A product or quotient of two f32 computed in f64 and then rounded to f32 is the f32 result: 53 bits are at least
2·24 + 2, so the double rounding does no harm. array('f') rounds a whole list that way in C.
"""
import math
import re
import struct
from array import array


def f32(x):
    """x rounded to binary32, as a Python float."""
    try:
        return struct.unpack('<f', struct.pack('<f', x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def floats(raw):
    """Little-endian f32 bytes as a list."""
    return list(struct.unpack('<%df' % (len(raw) // 4), raw))


def float_bytes(values):
    return struct.pack('<%df' % len(values), *values)


def halves(raw):
    """Little-endian f16 bytes as a list."""
    return list(struct.unpack('<%de' % (len(raw) // 2), raw))


def half_bytes(values):
    return struct.pack('<%de' % len(values), *values)


def is_half(x):
    """Whether an f16 is exactly x."""
    try:
        return halves(half_bytes([x]))[0] == x
    except OverflowError:
        return False


def from_bf16(raw):
    """bf16 is the upper half of an f32: put the bytes there."""
    wide = bytearray(2 * len(raw))
    wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
    return floats(bytes(wide))


def to_bf16(values):
    """The upper halves of values that have nothing in their lower ones."""
    raw = float_bytes(values)
    if any(raw[0::4]) or any(raw[1::4]):
        raise ValueError('a value is not representable in bf16')
    half = bytearray(len(raw) // 2)
    half[0::2], half[1::2] = raw[2::4], raw[3::4]
    return bytes(half)


def first_not_finite(raw, item_size):
    """Index of the first bf16 (item_size 2) or f32 (4) whose exponent is all ones, or None."""
    low, high = raw[item_size - 2::item_size], raw[item_size - 1::item_size]
    for hit in re.finditer(b'[\x7f\xff]', high):  # rare in sane files, so the scan runs at the speed of re
        if low[hit.start()] & 0x80:
            return hit.start()
    return None


def to_floats(raw, item_size):
    """bf16 (item_size 2) or f32 (4) bytes as a list."""
    return from_bf16(raw) if item_size == 2 else floats(raw)


def is_zero_bits(x):
    """0 as section 1 asks for it: minus zero is equal to zero, but not all its bits are zero."""
    return struct.pack('<d', x) == bytes(8)


def int8_row(weights):
    """Section 7: the scale and the int8 values of one row of f32 values."""
    largest = max(map(abs, weights))
    if largest < 2.0 ** -100:
        return 1.0, bytes(len(weights))
    scale = f32(largest / 127)
    quotients = array('f', [w / scale for w in weights])
    return scale, array('b', [max(-127, min(127, round(x))) for x in quotients]).tobytes()


def int8_copy(matrix, cols, item_size):
    """The int8 values and the scales of the bytes of a whole matrix, bf16 (item_size 2) or f32 (4)."""
    size = item_size * cols
    rows = [int8_row(to_floats(matrix[i:i + size], item_size)) for i in range(0, len(matrix), size)]
    return b''.join(q for _, q in rows), [scale for scale, _ in rows]
