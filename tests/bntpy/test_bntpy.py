#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of the second implementation and of the samples: python3 test_bntpy.py"""
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import unittest
from array import array

HERE = os.path.dirname(os.path.abspath(__file__))
SAMPLES = os.path.join(HERE, '..', 'samples')
VECTORS = os.path.join(HERE, '..', 'data', 'pack_vectors.safetensors')
sys.path[:0] = [HERE, SAMPLES]

import bad  # noqa: E402
import bntpy  # noqa: E402
import bpe  # noqa: E402
import chat  # noqa: E402
import container  # noqa: E402
import floats  # noqa: E402
import forward  # noqa: E402
import good  # noqa: E402
import layout  # noqa: E402
import rules  # noqa: E402
import sampling  # noqa: E402
import stfile  # noqa: E402
import ternary  # noqa: E402
import tokn  # noqa: E402

NEEDS_PCRE2 = {'R26-pattern-does-not-compile', 'R26-replace-pattern-does-not-compile'}  # bad, but not by anything that the standard library can see


def broken_rules(data):
    return {rule for rule, _ in bntpy.verify(data)}


def is_refused(data):
    """Whether any rule is broken; stops at the first."""
    return next(rules.issues(data), None) is not None


class Blocks(unittest.TestCase):
    def test_fast_is_the_closed_form(self):
        for rows, cols in ((1, 1), (16, 32), (17, 33), (15, 64), (48, 31), (33, 100)):
            weights = good.mixed((rows, cols), rows, cols)
            packed = ternary.pack_by_definition(weights, rows, cols)
            self.assertEqual(ternary.pack(weights, rows, cols), packed)
            self.assertEqual(ternary.unpack(packed, rows, cols), weights)
            self.assertEqual(ternary.unpack_by_definition(packed, rows, cols), weights)
            self.assertTrue(ternary.padding_is_zero(ternary.unpack_padded(packed, rows, cols), rows, cols))

    def test_any_bytes_unpack_as_the_closed_form_says(self):
        packed = good.noise('codes', ternary.packed_size(32, 96))  # code 0 among them: the weight −2
        self.assertEqual(ternary.unpack(packed, 32, 96), ternary.unpack_by_definition(packed, 32, 96))

    def test_worked_word(self):
        weights = b'\1\xff' + bytes(30)
        self.assertEqual(ternary.pack(weights, 1, 32)[:4], struct.pack('<I', 0xAAAAA9AB))

    def test_closed_form_is_word_t(self):
        """The two descriptions of section 5 agree."""
        for n in range(16):
            for k in range(32):
                t, bit = ternary.word_bit(n, k, 32)
                self.assertEqual(((t // 16) * 8 + t % 8, 16 * ((t % 16) // 8)), (n, k // 16 * 16))
                slots = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
                self.assertEqual(slots[bit // 2], k % 16)

    def test_vectors_of_the_published_packer(self):
        with open(VECTORS, 'rb') as file:
            entries = stfile.read(file.read())
        shapes = [name[:-8] for name in entries if name.endswith('.ternary')]
        self.assertEqual(sorted(shapes), ['16x32', '32x64'])
        for shape in shapes:
            rows, cols = entries[shape + '.ternary'].shape
            weights, packed = entries[shape + '.ternary'].data, entries[shape + '.packed'].data
            self.assertEqual(ternary.pack(weights, rows, cols), packed)
            self.assertEqual(ternary.unpack(packed, rows, cols), weights)

    def test_pack_refuses_other_values(self):
        self.assertRaises(ValueError, ternary.pack, b'\2', 1, 1)
        self.assertRaises(ValueError, ternary.pack, b'\1\1', 1, 1)

    def test_code_0(self):
        for at, byte in ((0, 0xA8), (1, 0xA2), (2, 0x8A), (3, 0x2A)):
            self.assertEqual(ternary.first_code_0(b'\xaa' * at + bytes([byte])), at)
        legal = bytes(a | b << 2 | c << 4 | d << 6 for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3)
                      for d in (1, 2, 3))
        self.assertIsNone(ternary.first_code_0(legal))


class Numbers(unittest.TestCase):
    def test_ternarize(self):
        gamma, weights = ternary.ternarize([1.0, -1.0, 0.5, -0.5, 2.0, -1.0, 1.0, 1.0])
        self.assertEqual((gamma, weights), (1.0, bytes.fromhex('01FF 0000 01FF 0101')))  # a half goes to even, 0
        gamma, weights = ternary.ternarize([0.0, 1e-7])
        self.assertEqual((gamma, weights), (floats.f32(1e-5), b'\0\0'))
        self.assertRaises(ValueError, ternary.ternarize, [math.nan])

    def test_ternarize_rounds_each_step(self):
        """Against the formula, one struct conversion a step."""
        masters = array('f', [(b - 128) / 300 for b in good.noise('masters', 1000)])
        gamma, weights = ternary.ternarize(masters)
        inverse = floats.f32(1 / gamma)
        steps = [max(-1, min(1, round(floats.f32(w * inverse)))) & 0xFF for w in masters]
        self.assertEqual(weights, bytes(steps))
        self.assertEqual(set(weights), {0, 1, 255})

    def test_f32(self):
        self.assertEqual(floats.f32(1 + 2.0 ** -24), 1.0)
        self.assertEqual(floats.f32(1e300), math.inf)
        self.assertEqual(floats.f32(-1e300), -math.inf)

    def test_bf16(self):
        raw = b''.join(struct.pack('<H', i) for i in range(0, 1 << 16) if i & 0x7F80 != 0x7F80)
        self.assertEqual(floats.to_bf16(floats.from_bf16(raw)), raw)
        self.assertIsNone(floats.first_not_finite(raw, 2))
        self.assertRaises(ValueError, floats.to_bf16, [1 + 2.0 ** -20])

    def test_every_not_finite_bf16_is_seen(self):
        for bits in range(1 << 16):
            if bits & 0x7F80 == 0x7F80:
                self.assertEqual(floats.first_not_finite(struct.pack('<HH', 0, bits), 2), 1)

    def test_int8(self):
        scale, row = floats.int8_row([127.0, 0.5, 1.5, -2.5, -127.0])
        self.assertEqual((scale, row), (1.0, bytes([127, 0, 2, 254, 129])))
        self.assertEqual(floats.int8_row([2.0 ** -101, 0.0]), (1.0, b'\0\0'))
        scale, row = floats.int8_row([2.0 ** -100, -2.0 ** -101])
        self.assertEqual((scale, row), (floats.f32(2.0 ** -100 / 127), bytes([127, 256 - 64])))

    def test_safetensors(self):
        entries = {'b': stfile.Entry('F32', [1, 2], bytes(8)), 'a': stfile.Entry('U8', [3], b'abc')}
        raw = stfile.write(entries)
        self.assertEqual(stfile.read(raw), entries)
        self.assertRaises(ValueError, stfile.read, raw[:-1])
        self.assertRaises(ValueError, stfile.read, raw[:7])


class Levels(unittest.TestCase):
    def test_levels(self):
        self.assertEqual(ternary.levels([0.5, -0.5, 0.0, -0.0], 2, 0), ([0.5], b'\1\xff\0\0'))
        self.assertEqual(ternary.levels([0.5, -0.5, 0.0, 0.25], 2, 0), None)
        self.assertEqual(ternary.levels([0.0, 0.0], 2, 0), ([floats.f32(1e-5)], b'\0\0'))
        self.assertEqual(ternary.levels([0.0, -0.0], 2, 32), ([0.0], b'\0\0'))
        self.assertEqual(ternary.levels([0.5, -0.5, 0.0, 0.25], 2, layout.WHOLE_ROW), ([0.5, 0.25], b'\1\xff\0\1'))
        self.assertEqual(ternary.levels([0.5, -0.5, 0.25, 0.0, 0.0, 0.0], 3, 2), ([0.5, 0.25, 0.0, 0.0], b'\1\xff\1\0\0\0'))

    def test_coarsest(self):
        """The coarsest that all matrices hold; one that is coarser alone does not count."""
        row, whole = [1.0] * 256 + [0.5] * 256, [1.0] * 512
        halves, thirds = [1.0] * 128 + [0.5] * 128 + [1.0] * 256, [1.0] * 256 + [1 / 3] * 256
        self.assertEqual(ternary.coarsest([(whole, 256)]), (0, 0))
        self.assertEqual(ternary.coarsest([(row, 256), (whole, 256)]), (layout.WHOLE_ROW, layout.F16))
        self.assertEqual(ternary.coarsest([(row, 512)]), (256, layout.F16))
        self.assertEqual(ternary.coarsest([(halves, 256), (row, 256)]), (128, layout.F16))
        self.assertEqual(ternary.coarsest([(thirds, 512), (whole, 512)]), (256, layout.F32))
        self.assertEqual(ternary.coarsest([([1.0] * 32 + [2.0 ** 16] * 32, 64)]), (32, layout.F32))
        self.assertEqual(ternary.coarsest([([1.0] * 31 + [0.5], 32)]), None)

    def test_order_of_scales(self):
        """By the words of section 5.1, one scale at a time."""
        rows, groups = 19, 3
        scales = [float(i + 1) for i in range(rows * groups)]
        for dtype, code, size in ((layout.F16, 'e', 2), (layout.F32, 'f', 4)):
            raw = ternary.pack_scales(scales, rows, groups, dtype)
            self.assertEqual(len(raw), 32 * groups * size)
            at = {(n // 16, g, n % 16): (n, g) for n in range(32) for g in range(groups)}
            for i, key in enumerate(sorted(at)):
                n, g = at[key]
                value, = struct.unpack_from('<' + code, raw, size * i)
                self.assertEqual(value, scales[n * groups + g] if n < rows else 0.0)
            self.assertEqual(ternary.unpack_scales(raw, rows, groups, dtype), (scales, [0.0] * 13 * groups))

    def test_halves(self):
        for x, half in ((0.0, True), (65504.0, True), (2.0 ** -24, True), (1.5, True), (2.0 ** -25, False), (1e9, False),
                        (1 / 3, False)):
            self.assertEqual(floats.is_half(x), half)


class Forward(unittest.TestCase):
    """What no checkpoint shows; logits are compared with others' in tests/cli."""

    def test_quantize(self):
        self.assertEqual(forward.quantize([127.0, 0.5, 1.5, -127.0], 8), ([127, 0, 2, -127], 1.0))
        self.assertEqual(forward.quantize([32512.0, 0.5, -1.5, -32512.0], 16), ([32512, 0, -2, -32512], 1.0))
        self.assertEqual(forward.quantize([0.0], 8), ([0], floats.f32(127 / floats.f32(1e-5))))
        self.assertEqual(forward.quantize([1e-6], 8)[0], [13])
        self.assertEqual(forward.quantize([1e-6, -5e-7], 16)[0], [32512, -16256])

    def test_sums(self):
        """One scale: of h and l apart, rounded; a group: of the whole integers."""
        weights, integers = [1] * 4096, [32512] * 4095 + [127]
        high = [(v + 128) >> 8 for v in integers]
        self.assertEqual((high[0], high[-1], set(32512 - 256 * h for h in high[:-1])), (127, 0, {0}))
        self.assertEqual(forward.one_sum(weights, integers, high), floats.f32(127 * 4095 * 256 + 127))
        self.assertEqual(forward.group_sums([1, -1, 1], [5, 3, 4], [2.0, 0.5], 2), 6.0)

    def test_product(self):
        """By hand: x is 1, 2, 3 and has integers of 16 bits that are no multiples of 256."""
        hyper = {**good.HYPER, 'activation_bits': 16, 'scale_group': 32, 'scale_dtype': layout.F16}
        matrix = bntpy.Matrix(2, 33, bytes([1] * 33 + [0] * 32 + [255]), 0.0, [2.0, 4.0, 1.0, 0.5])
        x = [1.0] * 32 + [2.0]
        for got, wanted in zip(forward.product(hyper, matrix, x), (2 * 32 + 4 * 2, -1.0)):
            self.assertAlmostEqual(got, wanted, 3)

    def test_yarn_range(self):
        hyper = {**good.HYPER, **good.YARN, 'head_dim': 64}
        low, high = forward.yarn_range(hyper)
        self.assertEqual((low, high), (0, 4))  # 64·ln(32/2π)/(2·ln 10⁶) = 3.77; of 32 turns it is negative
        low, high = forward.yarn_range({**hyper, 'flags': layout.YARN_NOT_ROUNDED})
        self.assertAlmostEqual(high, 3.7704, 3)
        self.assertEqual(forward.yarn_range({**hyper, 'rope_beta_slow': 32.0, 'rope_original_context': 1}), (0, -12))
        f = forward.frequencies(hyper)
        self.assertEqual(f[0], 1.0)
        self.assertEqual(f[4], floats.f32(1000000.0 ** (-8 / 64) / 4))

    def test_pooling(self):
        """Of three tokens; the mean is that of the vectors, and a unit vector has length 1."""
        model = good.make(hidden_size=32, vocab_size=5, pooling=forward.MEAN, flags=layout.TIED)

        def pooled(kind, tokens, flags=layout.TIED):
            model.hyper = {**model.hyper, 'pooling': kind, 'flags': flags}
            return forward.vector(model, tokens)
        first, last = pooled(forward.FIRST, [1, 2, 3]), pooled(forward.LAST, [1, 2, 3])
        self.assertEqual(first, pooled(forward.LAST, [1]))
        middle = pooled(forward.LAST, [1, 2])
        for a, b, c, mean in zip(first, middle, last, pooled(forward.MEAN, [1, 2, 3])):
            self.assertAlmostEqual((a + b + c) / 3, mean, 12)
        unit = pooled(forward.LAST, [1, 2, 3], layout.TIED | layout.UNIT_VECTOR)
        self.assertAlmostEqual(math.hypot(*unit), 1.0, 12)
        self.assertAlmostEqual(unit[0] * math.hypot(*last), last[0], 12)

    def test_ternary_embedding(self):
        model = good.make(hidden_size=40, vocab_size=3, flags=layout.TIED | layout.TERNARY_EMBEDDING, **good.GROUPS_32)
        matrix = model.ternary[None, 'token_embedding']
        x = forward.Run(model).embedding(2)
        for k in (0, 31, 32, 39):
            w = (matrix.weights[2 * 40 + k] + 1 & 255) - 1
            self.assertEqual(x[k], w * matrix.scales[2 * 2 + k // 32])


class Text(unittest.TestCase):
    tokenizer = good.tokenizer_full().tokenizer

    @staticmethod
    def search(pattern, text, at):
        """PCRE2's letters, as far as re has them."""
        pattern = pattern.replace(r'[^\s\p{L}]', r'(?:[^\w\s]|[\d_])').replace(r'\p{L}', r'[^\W\d_]')
        match = re.compile(pattern, re.MULTILINE).search(text, at)
        return match and match.span()

    def encode(self, text, **more):
        return bpe.encode(self.tokenizer, text, self.search, **more)

    def test_merges(self):
        plain = good.tokenizer().tokenizer
        self.assertEqual(bpe.encode(plain, 'abcab c'), [5, 4, 3, 2])
        self.assertEqual(bpe.encode(plain, 'aXb'), [4])  # X has no token and is dropped before merging
        self.assertEqual(bpe.encode(plain, ''), [])

    def test_pieces_and_added(self):
        self.assertEqual(self.encode('hi hi'), [5, 6])
        self.assertEqual(self.encode('hé', whole=True), [9, 0, 7, 10])
        self.assertEqual(self.encode('hi<s> hi'), [5, 9, 6])

    def test_single_word_and_stripping(self):
        self.assertEqual(self.encode('h \t<word>\u2003 i'), [0, 11, 1])
        self.assertEqual(self.encode('h<word>i'), [0, 1])  # not alone; no letter of "word" has a token
        self.assertEqual(self.encode('h<word>\u200d'), [0])  # a joiner is a word character

    def test_a_rejected_match_is_passed_over_as_a_whole(self):
        added = [tokn.Added(1, tokn.SINGLE_WORD, b'ab'), tokn.Added(2, 0, b'a'), tokn.Added(3, 0, b'b')]
        self.assertEqual([part for _, part in bpe.split_added(added, 'xab b')], ['xab ', 3])  # neither a nor b inside it
        self.assertEqual([part for _, part in bpe.split_added(added, 'ab abb')], [1, ' ab', 3])

    def test_lstrip_leaves_what_was_taken(self):
        added = [tokn.Added(1, tokn.RSTRIP, b'<r>'), tokn.Added(2, tokn.LSTRIP, b'<l>')]
        self.assertEqual([part for _, part in bpe.split_added(added, 'a <r>  <l> b  <l>')], ['a ', 1, 2, ' b', 2])

    def test_rstrip_in_a_run(self):
        added = [tokn.Added(1, tokn.RSTRIP, b'<r>'), tokn.Added(2, 0, b'\n')]
        self.assertEqual([part for _, part in bpe.split_added(added, '<r> \n\t<r>\n')], [1, 2, '\t', 1, 2])

    def test_plain_text(self):
        added = [tokn.Added(1, tokn.SPECIAL, b'<s>'), tokn.Added(2, 0, b'<a>')]
        parts = bpe.split_added(added, '<s><s><a><s>', plain=[(4, 9)])  # from inside the second on
        self.assertEqual(parts, [(0, 1), (3, '<s>'), (6, 2), (9, 1)])

    def test_the_prefix_comes_once(self):
        self.assertEqual(self.encode('<s>h', whole=True), [9, 0, 10])

    def test_longest_added_text(self):
        added = [tokn.Added(1, 0, b'<a>'), tokn.Added(2, 0, b'<a><b>'), tokn.Added(3, 0, b'<b>')]
        self.assertEqual([part for _, part in bpe.split_added(added, '<a><b><a>x<b>')], [2, 1, 'x', 3])

    def test_rank_then_leftmost(self):
        t = good.bpe([b'a', b'b', b'aa', b'ab'], [(b'a', b'b'), (b'a', b'a')])
        self.assertEqual(bpe.encode(t, 'aab'), [0, 3])
        self.assertEqual(bpe.encode(t, 'aaa'), [2, 0])

    def test_ignore_merges_and_prefix_space(self):
        t = good.tokenizer_flags().tokenizer
        self.assertEqual(bpe.encode(t, 'hi'), [3])
        self.assertEqual(bpe.encode(t, ' hi'), [3])
        self.assertEqual(bpe.encode(t, 'hih'), [2, 0, 1, 0])

    def test_characters(self):
        t = good.tokenizer_characters().tokenizer
        self.assertEqual(bpe.encode(t, 'hi\u2581hi', whole=True), [1, 9, 9])
        self.assertEqual(bpe.encode(t, 'he\u0301n\u0303'), [5, 6, 2, 3, 10])  # composed, é spelled in bytes
        self.assertEqual(bpe.encode(t, 'xyü\xfdixh'), [5, 0, 7, 0, 6])  # one unk for a run
        self.assertEqual(bpe.encode(t, 'ia\u2581b<s>ha'), [5, 7, 4, 1, 5, 6, 0])

    def test_unknown_characters(self):
        t = good.tokenizer_characters().tokenizer
        t.flags = 0
        self.assertEqual(bpe.encode(t, 'hxyé'), [5, 6, 0, 0, 0])
        t.unk_id = tokn.NO_ID
        self.assertEqual(bpe.encode(t, 'hxyi'), [9])  # what is dropped does not keep h and i apart

    def test_decode_characters(self):
        t = good.tokenizer_characters().tokenizer
        self.assertEqual(bpe.decode(t, [9, 2, 3, 9]), 'hié hi')  # one leading space is dropped
        self.assertEqual(bpe.decode(t, [2, 2, 3, 6, 3]), '\ufffd\ufffd\ufffdh\ufffd')  # the whole run, a byte each

    def test_first_piece(self):
        t = good.tokenizer_first().tokenizer
        self.assertEqual(bpe.encode(t, 'hi hi', self.search), [4, 4])
        self.assertEqual(bpe.encode(t, ' hi', self.search), [4])
        self.assertEqual(bpe.encode(t, '-', self.search), [2])  # the normalizer's space, then nothing after it
        self.assertEqual(bpe.decode(t, [4, 4]), 'hi hi')
        t.steps = t.steps[2:]
        t.n_normalizers = 0
        self.assertEqual(bpe.encode(t, 'hih h', self.search), [4, 0, 3])  # only the first of two begins the text

    def test_behaviors(self):
        def split(behavior, invert=0):
            step = tokn.Step(tokn.SPLIT, behavior, invert, rb'-')
            return bpe.pretokenize([step], 'a-b--c', self.search)
        self.assertEqual(split(tokn.REMOVED), ['a', 'b', 'c'])
        self.assertEqual(split(tokn.REMOVED, 1), ['-', '-', '-'])
        self.assertEqual(split(tokn.ISOLATED), ['a', '-', 'b', '-', '-', 'c'])
        self.assertEqual(split(tokn.MERGED_WITH_PREVIOUS), ['a-', 'b-', '-', 'c'])
        self.assertEqual(split(tokn.MERGED_WITH_NEXT), ['a', '-b', '-', '-c'])
        self.assertEqual(split(tokn.CONTIGUOUS), ['a', '-', 'b', '--', 'c'])

    def test_empty_matches(self):
        """They separate, and then vanish: of the several separators in a row each counts."""
        def split(behavior, invert, pattern, text='ab'):
            return bpe.pretokenize([tokn.Step(tokn.SPLIT, behavior, invert, pattern)], text, self.search)
        self.assertEqual(split(tokn.ISOLATED, 0, b'x*'), ['a', 'b'])
        self.assertEqual(split(tokn.CONTIGUOUS, 1, b'(?=b)'), ['a', 'b'])  # no empty rest, but separators apart
        self.assertEqual(split(tokn.MERGED_WITH_PREVIOUS, 0, b'x*', 'axb'), ['ax', 'b'])
        self.assertEqual(split(tokn.MERGED_WITH_NEXT, 0, b'x*', 'axb'), ['a', 'xb'])  # nothing empty behind x
        self.assertEqual(split(tokn.REMOVED, 0, b'^', 'a'), ['a'])
        self.assertEqual(split(tokn.REMOVED, 0, b'^', ''), [])

    def test_behind_an_empty_match(self):
        """The search goes on at the next character, though a longer match may begin where the empty one was."""
        def spans(pattern, text):
            return list(bpe.matches(self.search, tokn.Step(tokn.SPLIT, 0, 0, pattern), text))
        self.assertEqual(spans(b'|b', 'b\xe9'), [(0, 0), (1, 1), (2, 2)])
        self.assertEqual(spans(b'b*', 'abba'), [(0, 0), (1, 3), (4, 4)])
        self.assertEqual(spans(b'(?=b)|b', 'bab'), [(0, 0), (2, 2)])
        self.assertEqual(spans(b'$', ''), [(0, 0)])

    def test_empty_match_samples(self):
        t = good.tokenizer_empty_matches().tokenizer
        self.assertEqual(bpe.encode(t, 'ab', self.search), [0, 1])
        self.assertEqual(bpe.encode(t, 'bcab', self.search), [1, 2, 0, 1])

    def test_bytes_as_characters(self):
        t = good.tokenizer_byte_level().tokenizer
        self.assertEqual(bpe.encode(t, 'ab ab', self.search), [8, 10, 8])  # the space is a piece of its own behind byte_level
        self.assertEqual(bpe.encode(t, 'aéb', self.search), [0, 3, 4, 6])
        self.assertEqual(bpe.encode(t, '\xc3', self.search), [3])  # U+00C3 takes the bytes C3 83, the last of which has no token
        self.assertEqual(len(set(bpe.BYTE_CHARACTERS.values())), 256)
        self.assertEqual(max(bpe.BYTE_CHARACTERS.values()), '\u0143')

    def test_forms(self):
        t = good.tokenizer_forms().tokenizer
        self.assertEqual(bpe.encode(t, 'Ａ \u2003Bé', self.search), [0, 2, 1, 3, 4])
        self.assertEqual(bpe.encode(t, '½\t', self.search), [5, 7, 6, 2])

    def test_no_prefix_for_nothing(self):
        t = good.tokenizer_flags().tokenizer
        self.assertEqual(bpe.encode(t, ''), [])
        t.n_normalizers = 1
        self.assertEqual(bpe.encode(t, ''), [])
        self.assertEqual(bpe.encode(t, 'hi'), [3])

    def test_byte_tokens_of_bytes(self):
        """Kind 1 has byte tokens too, for bytes that lookup lacks."""
        t = good.bpe([b'a', b'\xc3'], [], flags=tokn.BYTE_FALLBACK, unk_id=0)
        t.lookup, t.attr = [0], bytes([0, tokn.ATTR_BYTE])
        self.assertEqual(bpe.encode(t, 'a\xe9'), [0, 1, 0])  # for the byte A9 there is none
        t.flags = 0
        self.assertEqual(bpe.encode(t, 'a\xe9'), [0, 0, 0])

    def test_long_texts(self):
        t = good.tokenizer_long().tokenizer
        self.assertEqual(bpe.encode(t, 'b' * 1024 + 'a'), [1] + [1] * 65534 + [0, 0])  # the token, the prefix, a
        self.assertEqual(bpe.encode(t, 'a' * 65536), [1] * 65534 + [0, 1, 0])  # the prefix, what replaces, a
        self.assertEqual(bpe.encode(t, 'b' * 1023 + 'aa'), [1] * 65534 + [0] + [1] * 1023 + [0, 0])  # too short for the token

    def test_conversation(self):
        talk = good.chat_texts().chat
        self.assertEqual(chat.conversation(talk, [(' a ', None)]), '<s>hi ha</s>é')
        self.assertEqual(chat.conversation(talk, [('a', 'b\n'), ('c', None)], 's'), '<s>s ha</s>éb</s>hc</s>é')
        self.assertEqual(chat.conversation(chat.Chat({}), [(' a ', None)]), ' a ')
        white = '\t\n\v\f\r \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000'
        self.assertEqual(chat.conversation(talk, [(white + 'a' + white, None)]), '<s>hi ha</s>é')
        kept = 'b\x1c\u200b\ufeff'  # as White_Space has it, not as str.strip()
        self.assertEqual(chat.conversation(talk, [(kept, None)]), '<s>hi h%s</s>é' % kept)

    def test_conv(self):
        talk = good.conv_texts().chat
        self.assertEqual(chat.conversation(talk, [(' a', 'x</think>y</think>\n\n z '), (' b ', None)]), '<s>ha</s>é z </s>hb</s>é')
        self.assertEqual(chat.conversation(talk, [('a', '<think>'), ('b', None)]), '<s>ha</s>é<think></s>hb</s>é')
        self.assertRaises(ValueError, chat.conversation, talk, [('a', None)], 's')
        self.assertEqual(list(chat.said(talk, [(' a', 'x'), ('bc', None)])), [(4, 5), (16, 18)])

    def test_decode(self):
        self.assertEqual(bpe.decode(self.tokenizer, [0, 12, 0xFFFFFFFF, 1]), 'hi')  # no such ids
        self.assertEqual(bpe.decode(self.tokenizer, [9, 6, 3, 4, 8]), '<s> hié')
        self.assertEqual(bpe.decode(self.tokenizer, [3, 0, 4]), '\ufffdh\ufffd')
        self.assertRaises(ValueError, bpe.encode, self.tokenizer, 'hi')  # no matcher


class Document(unittest.TestCase):
    """What bnt.md says in tables and bytes is what is typed here."""
    with open(os.path.join(HERE, '..', '..', 'formats', 'bnt.md'), encoding='utf-8') as file:
        text = file.read()

    def tables(self, first_column):
        """Rows of cells of the tables whose header begins so, without header and rule."""
        found = re.findall(r'(?:^\|.*\n)+', self.text, re.MULTILINE)
        split = [[[cell.strip(' `') for cell in line.strip('|').split('|')] for line in t.splitlines()] for t in found]
        return [rows[2:] for rows in split if rows[0][0] == first_column]

    def test_records(self):
        hyper = [name for name in layout.HYPER_FIELDS for _ in range(8 if name == 'eos_id' else 1)]
        talk = ['flags', 'n_stop', *['stop_id'] * 4, *[n for n in chat.TEXTS for _ in 'os'], 'pool_size', 'reserved']
        typed = [(0, layout.HEADER.format, layout.Header._fields),
                 (0, layout.RECORD.format.replace('4s', 'I'), layout.Record._fields),  # the type is kept as four letters
                 (0, layout.HYPER.format, hyper), (layout.HYPER.size, layout.MORE_HYPER.format, layout.MORE_HYPER_FIELDS),
                 (0, sampling.RECORD.format, sampling.FIELDS),
                 (0, layout.TENSOR.format, layout.Tensor._fields), (0, tokn.HEADER.format, tokn.Header._fields),
                 (0, chat.RECORD.format, talk)]
        tables = self.tables('offset')
        self.assertEqual(len(tables), len(typed))
        for rows, (start, format_, names) in zip(tables, typed):
            there = list(self.documented(rows, start + struct.calcsize(format_)))
            self.assertEqual(there, list(self.typed(start, format_, names)))

    @staticmethod
    def documented(rows, size):
        """(offset, code, name) of every element; u8[n] is one, as bytes. What lies behind the record is not its own."""
        codes = {'u8': 's', 'u16': 'H', 'u32': 'I', 'i32': 'i', 'u64': 'Q', 'f32': 'f', 'f64': 'd'}
        for offset, kind, name, *_ in rows:
            if not offset.isdigit() or int(offset) >= size:
                continue
            base, count = re.fullmatch(r'(\w+)(?:\[(\d+)\])?', kind).groups()
            for i in range(int(count or 1) if base != 'u8' else 1):
                yield int(offset) + i * struct.calcsize('<' + codes[base]), codes[base] if name != '–' else '', name

    @staticmethod
    def typed(offset, format_, names):
        """The same of a struct that begins there."""
        names = iter(names)
        for count, code in re.findall(r'(\d*)([a-zA-Z])', format_):
            for _ in range(int(count or 1) if code != 's' else 1):
                name = next(names)
                yield (offset, '', '–') if name.startswith('reserved') else (offset, code, name)
                offset += struct.calcsize('<' + (count if code == 's' else '') + code)

    FLAGS = {'yes': 0, 'no': 0, 'no, if not tied': 0, 'no, if EMB8': 0, 'if sub-norms': layout.SUB_NORMS,
             'v2: if q/k norms': layout.QK_NORMS}

    def test_roles(self):
        dtypes = {'ternary': layout.TERNARY, 'f32': layout.F32, 'i8': layout.I8, 'bf16 or f32': layout.BF16_OR_F32}
        found, may_be_ternary = {}, {}
        for number, name, layer, section, dtype, shape, _ in self.tables('role')[0]:
            rows, cols = shape.replace('1 ×', 'one ×').split(' × ')
            bit = re.fullmatch(r'v2: bit (\d+)', layer)
            flag = 1 << int(bit[1]) if bit else self.FLAGS[layer.replace('`', '')]
            ternary_too = re.fullmatch(r'(\w+); v2, bit (\d+): TERN', section)
            if ternary_too:
                section, may_be_ternary[int(number)] = ternary_too[1], 1 << int(ternary_too[2])
                self.assertTrue(dtype.endswith('; ternary'))
            found[int(number)] = layout.Role(name, not layer.startswith('no'), section, dtypes[dtype.split(';')[0]], rows,
                                             cols, flag)
        self.assertEqual(found, layout.ROLES)
        self.assertEqual(may_be_ternary, layout.MAY_BE_TERNARY)

    def test_lists(self):
        sections = [(row[0], row[1].startswith('yes')) for row in self.tables('section')[0]]
        self.assertEqual(sections, list(layout.SECTIONS.items()))
        self.assertEqual(tuple(row[0] for row in self.tables('array')[0]), tokn.Arrays._fields)
        rules_there = re.findall(r'^- \*\*(R\d+)\*\* ', self.text, re.MULTILINE)
        self.assertEqual(sorted(int(rule[1:]) for rule in rules_there), sorted(bad.RULES))

    def test_worked_example(self):
        lines = bntpy.hexdump(bntpy.write(good.smallest()))
        between = self.text.split('<!-- begin hexdump -->\n')[1].split('<!-- end hexdump -->\n')[0]
        self.assertEqual(between, '\n'.join(['```', *lines, '```', '']))


class Samples(unittest.TestCase):
    def test_good(self):
        for name, raw in good.samples():
            with self.subTest(name):
                self.assertEqual(bntpy.verify(raw), [])
                again = bntpy.write(bntpy.read(raw))
                self.assertEqual(again == raw, name[3:] not in good.NOT_CANONICAL)
                self.assertEqual(bntpy.read(again), bntpy.read(raw))
                self.assertEqual(bntpy.write(bntpy.read(again)), again)

    def test_smallest_is_section_12(self):
        raw = bntpy.write(good.smallest())
        self.assertEqual([container.name(r) for r in container.records(raw)], ['HYPR', 'NORM', 'EMBD', 'TERN', 'TENS'])
        sizes = {container.name(r): r.size for r in container.records(raw)}
        self.assertEqual(sizes, {'HYPR': 128, 'NORM': 520, 'EMBD': 4, 'TERN': 1152, 'TENS': 11 * 48})
        ternaries = [t.offset - 4 * 4096 for t in bad.table(raw) if t.dtype == layout.TERNARY]
        self.assertEqual(ternaries, [0, 128, 256, 512, 768, 896, 1024])  # q k v, o, gate up, down

    def test_good_names_count_up(self):
        self.assertEqual([name[:2] for name, _ in good.samples()], ['%02d' % (i + 1) for i in range(len(good.GOOD))])

    def test_bad(self):
        for name, raw in bad.samples():
            with self.subTest(name):
                self.assertEqual(broken_rules(raw), set() if name in NEEDS_PCRE2 else bad.broken_rules(name))

    def test_every_rule_has_a_bad_sample(self):
        names = {name[:3] for name, _ in bad.samples(1)}
        self.assertEqual(names, {'R%02d' % i for i in bad.RULES})

    def test_make_twice(self):
        with tempfile.TemporaryDirectory() as folder:
            trees = [self.made(os.path.join(folder, name), seed) for name, seed in (('one', '1'), ('two', '2'))]
        self.assertEqual(trees[0], trees[1])
        self.assertLess(sum(map(len, trees[0].values())), 6000000)
        self.assertEqual(len(trees[0]), len(list(good.samples())) + len(list(bad.samples(5))))

    def made(self, folder, seed):
        """Hash seeds differ, so that no set or dict order can hide in the bytes."""
        subprocess.run([sys.executable, os.path.join(SAMPLES, 'make.py'), folder], check=True,
                       env={**os.environ, 'PYTHONHASHSEED': seed, 'PYTHONDONTWRITEBYTECODE': '1'})
        found = {}
        for root, _, files in os.walk(folder):
            for name in files:
                with open(os.path.join(root, name), 'rb') as file:
                    found[os.path.relpath(os.path.join(root, name), folder)] = file.read()
        return found


class Damage(unittest.TestCase):
    smallest = bntpy.write(good.smallest())

    def test_every_bit(self):
        data = bytearray(self.smallest)
        missed = []
        for at in range(len(data)):
            for bit in range(8):
                data[at] ^= 1 << bit
                if not is_refused(data):
                    missed.append((at, bit))
                data[at] ^= 1 << bit
        self.assertEqual(missed, [])

    def test_every_truncation(self):
        for size in range(len(self.smallest)):
            if not is_refused(self.smallest[:size]):
                self.fail('cut to %d bytes' % size)

    def test_full_report_on_truncations(self):
        for size in range(0, len(self.smallest), 97):
            self.assertLessEqual(broken_rules(self.smallest[:size]), {'R1', 'R5'})

    def test_appended(self):
        for tail in (b'\0', b'\1', bytes(4096)):
            self.assertEqual(broken_rules(self.smallest + tail), {'R5'})

    def test_mutations_only_report(self):
        """Edits behind right checksums reach all the code there is; every report names a rule."""
        rng = random.Random(20261122)
        files = [raw for _, raw in good.samples()]
        for i in range(500):
            data = self.mutated(rng, rng.choice(files))
            if i % 4 and len(data) >= 4096:
                data = container.fix_checksums(data)
            for rule, message in bntpy.verify(data):
                self.assertIn(int(rule[1:]), bad.RULES)
                self.assertTrue(message)

    @staticmethod
    def mutated(rng, raw):
        data = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            record = rng.choice(container.records(raw))
            at = rng.choice([rng.randrange(128 + 32 * 8), record.offset + rng.randrange(record.size)])
            size = rng.choice([1, 1, 2, 4])
            noise = rng.getrandbits(8 * size).to_bytes(size, 'big')
            data[at:at + size] = rng.choice([bytes(size), b'\xff' * size, noise])
        return bytes(data[:rng.randrange(len(data))] if rng.random() < 0.1 else data)

    def test_mutations_that_pass_round_trip(self):
        """What verify lets through, read and write must carry: here one byte of a section's own."""
        rng = random.Random(5)
        raw, passed = bntpy.write(good.everything()), 0
        for _ in range(200):
            record = rng.choice(container.records(raw))
            at = record.offset + rng.randrange(record.size)
            data = container.fix_checksums(raw[:at] + bytes([rng.getrandbits(8)]) + raw[at + 1:])
            if not is_refused(data):
                passed += 1
                self.assertEqual(bntpy.read(bntpy.write(bntpy.read(data))), bntpy.read(data))
        self.assertGreater(passed, 10)


class Provenance(unittest.TestCase):
    @staticmethod
    def rules_of(text):
        return broken_rules(bad.text(text))

    def test_json_edges(self):
        for text in (b' {} ', b'{"a": 1e-999}', b'{"a": -0.0}', b'{"a": ["a", "a"]}', b'{"\\\\u0000": 1}'):
            self.assertEqual(self.rules_of(text), set())
        for text in (b'\xef\xbb\xbf{}', b'{"a": "\n"}', b'{"a": 01}', b'{"a": Infinity}', b'"text"', b'[' * 100000):
            self.assertEqual(self.rules_of(text), {'R27'})


class CommandLine(unittest.TestCase):
    def run_on(self, command, raw):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'm.bnt')
            with open(path, 'wb') as file:
                file.write(raw)
            return subprocess.run([sys.executable, os.path.join(HERE, 'bntpy.py'), command, path],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)

    def test_verify(self):
        self.assertEqual(self.run_on('verify', bntpy.write(good.smallest())).returncode, 0)
        answer = self.run_on('verify', dict(bad.samples(1))['R10-sha256'])
        self.assertEqual((answer.returncode, answer.stdout.count('\n')), (1, 1))
        self.assertIn(': R10: ', answer.stdout)

    def test_roundtrip(self):
        self.assertEqual(self.run_on('roundtrip', bntpy.write(good.everything())).returncode, 0)
        self.assertEqual(self.run_on('roundtrip', good.any_order()).returncode, 1)
        self.assertEqual(self.run_on('roundtrip', b'').returncode, 1)

    def test_dump(self):
        answer = self.run_on('dump', bntpy.write(good.everything()))
        summary = json.loads(answer.stdout)
        self.assertEqual(summary['matrices']['0.attn_q']['rows'], 18)
        self.assertEqual(summary['tokenizer']['tokens'], 12)

    def test_no_file(self):
        command = [sys.executable, os.path.join(HERE, 'bntpy.py'), 'verify', '/nonexistent']
        self.assertEqual(subprocess.run(command, stderr=subprocess.DEVNULL).returncode, 1)


if __name__ == '__main__':
    unittest.main()
