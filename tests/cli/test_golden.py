#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The whole pipeline against what transformers computed: logits, perplexity, tokenizer, greedy text.

Bounds are those of DESIGN.md section 5; they are never to be tuned to what comes out.
"""
import functools
import json
import math
import os
import random
import re
import unittest
from array import array

import tools
from tools import Case, FAIRY, GOLDEN, LEVELS, VARIANTS, VERSION_2, packed, read, read_json

import bntpy  # noqa: E402 (in the folder that tools made known)
import forward  # noqa: E402

MEAN_DIFFERENCE = 1e-2  # of logits
SAME_TOP = 0.99         # share of positions
LEVELS_DIFFERENCE = 5e-3       # of logits' standard deviation, where the golden values are of inputs not quantized
LINEAR_NORM_DIFFERENCE = 2e-2  # where they are of 8 bits, in which other arithmetic can flip a rounding
SHORT = 8                      # tokens of a prompt that plain Python takes
PERPLEXITY, PERPLEXITY_SHARE, TOKENS = 34.26822, 1e-3, 14848
GREEDY = 8              # tokens that must be the same; later ones may meet a tie


@functools.lru_cache(maxsize=None)
def golden_tensors(path):
    return tools.parse(read(path))[1]


def golden_prompts(path):
    """[(name, ids, logits)] of a golden file, and its tensors."""
    tensors = golden_tensors(path)
    names = sorted(name[:-len('.tokens')] for name in tensors if name.endswith('.tokens'))
    return [(name, list(array('i', tensors[name + '.tokens'].data)), array('f', tensors[name + '.logits'].data))
            for name in names]


def joined(ids):
    return ','.join(map(str, ids))


def top(logits, vocab, position):
    row = logits[position * vocab:(position + 1) * vocab]
    return row.index(max(row))


@functools.lru_cache(maxsize=None)
def kernels():
    """Names from the second line of bnt-run --version."""
    lines = tools.run('bnt-run', '--version').out.decode().splitlines()
    return re.sub(r'\(.*?\)', '', lines[1].split(':')[1]).split()


class Logits(Case):
    def logits(self, model, ids, *options):
        return self.ok('bnt-eval', model, '--logits', '-', '--token-ids', joined(ids), *options)

    def check_against(self, checkpoint, golden):
        differences, positions, same = 0.0, 0, 0
        count = 0
        for name, ids, expected in golden_prompts(golden):
            out = array('f', self.logits(packed(checkpoint), ids))
            vocab = len(expected) // len(ids)
            self.assertEqual(len(out), len(expected), name)
            differences += sum(abs(a - b) for a, b in zip(out, expected))
            count += len(expected)
            positions += len(ids)
            same += sum(top(out, vocab, i) == top(expected, vocab, i) for i in range(len(ids)))
        self.assertGreater(positions, 30)
        self.assertLessEqual(differences / count, MEAN_DIFFERENCE)
        self.assertGreaterEqual(same / positions, SAME_TOP)

    def test_fairy(self):
        self.check_against(FAIRY, os.path.join(GOLDEN, 'golden.safetensors'))

    def test_variants(self):
        for checkpoint in VARIANTS:
            with self.subTest(os.path.basename(checkpoint)):
                self.check_against(checkpoint, os.path.join(checkpoint, 'golden.safetensors'))

    def near(self, out, expected, positions, most):
        """Mean difference by the standard deviation; the same likeliest token everywhere."""
        self.assertEqual(len(out), len(expected))
        mean = math.fsum(expected) / len(expected)
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in expected) / len(expected))
        difference = math.fsum(abs(a - b) for a, b in zip(out, expected)) / len(expected)
        self.assertLessEqual(difference / deviation, most)
        vocab = len(expected) // positions
        self.assertEqual([top(out, vocab, i) for i in range(positions)], [top(expected, vocab, i) for i in range(positions)])

    def check_version_2(self, most_tokens, logits):
        """logits: of a checkpoint and ids."""
        for checkpoint in VERSION_2:
            most = LEVELS_DIFFERENCE if checkpoint in LEVELS else LINEAR_NORM_DIFFERENCE
            prompts = golden_prompts(os.path.join(checkpoint, 'golden.safetensors'))
            self.assertEqual([len(ids) for _, ids, _ in prompts], [1, 7, 40])
            for _, ids, expected in prompts:
                if len(ids) <= most_tokens:
                    with self.subTest(os.path.basename(checkpoint), tokens=len(ids)):
                        self.near(logits(checkpoint, ids), expected, len(ids), most)

    def test_version_2(self):
        self.check_version_2(40, lambda checkpoint, ids: array('f', self.logits(packed(checkpoint), ids)))

    def test_version_2_by_the_second_implementation(self):
        models = {checkpoint: bntpy.read(read(packed(checkpoint))) for checkpoint in VERSION_2}
        self.check_version_2(SHORT, lambda checkpoint, ids: [
            x for row in forward.logits(models[checkpoint], ids) for x in row])

    def test_output_file_is_what_standard_output_gets(self):
        _, ids, _ = golden_prompts(os.path.join(GOLDEN, 'golden.safetensors'))[0]
        self.ok('bnt-eval', packed(), '--logits', self.path('out'), '--token-ids', joined(ids))
        self.same(read(self.path('out')), self.logits(packed(), ids))
        self.nothing_in(self.dir, ['out'])

    def test_same_bytes_with_every_kernel_and_any_threads(self):
        self.assertIn('scalar', kernels())
        ways = [('--kernel', name) for name in kernels()] + [('-t', n) for n in ('1', '2', '3', '7')]
        ways += [('-t', '1', '--kernel', name) for name in kernels()]
        for checkpoint in [FAIRY] + VARIANTS + VERSION_2:
            golden = GOLDEN if checkpoint == FAIRY else checkpoint
            _, ids, _ = golden_prompts(os.path.join(golden, 'golden.safetensors'))[1]
            expected = self.logits(packed(checkpoint), ids)
            for way in ways:
                with self.subTest(os.path.basename(checkpoint), way=way):
                    self.same(self.logits(packed(checkpoint), ids, *way), expected)

    def test_same_bytes_beyond_one_batch(self):
        """More tokens than are worked on at once, so that batches and the cache between them count."""
        ids = [random.Random(5).randrange(4090) for _ in range(150)]
        expected = self.logits(packed(), ids)
        for way in (('--kernel', 'scalar', '-t', '1'), ('-t', '2')):
            self.same(self.logits(packed(), ids, *way), expected, way)
        self.same(self.logits(packed(), ids[:77]), expected[:77 * 4096 * 4], 'what follows changed what came before')

    def test_kernel_from_the_environment(self):
        ids = [4090, 1, 2, 3]
        out = self.ok('bnt-eval', packed(), '--logits', '-', '--token-ids', joined(ids),
                      env=tools.environment(BNT_KERNEL='scalar'))
        self.same(out, self.logits(packed(), ids))
        self.refused('bnt-eval', packed(), '--logits', '-', '--token-ids', '1', names='no-such-kernel',
                     env=tools.environment(BNT_KERNEL='no-such-kernel'))


class Perplexity(Case):
    def test_eval_text(self):
        out = json.loads(self.ok('bnt-eval', packed(), '-t', '1', '--json', '--perplexity', os.path.join(GOLDEN, 'eval.txt')))
        self.assertEqual(out['tokens'], TOKENS)
        self.assertLess(abs(out['perplexity'] - PERPLEXITY), PERPLEXITY_SHARE * PERPLEXITY)
        self.assertEqual((out['window'], out['windows'] * out['window']), (256, TOKENS))

    def test_eval_text_with_a_cache_of_halves(self):
        out = json.loads(self.ok('bnt-eval', packed(), '-t', '1', '--cache', 'f16', '--json', '--perplexity',
                                 os.path.join(GOLDEN, 'eval.txt')))
        self.assertEqual(out['tokens'], TOKENS)
        self.assertLess(abs(out['perplexity'] - PERPLEXITY), PERPLEXITY_SHARE * PERPLEXITY)

    def test_standard_input_and_words(self):
        text = read(GOLDEN, 'eval.txt')[:2000]
        path = self.file('text', text)
        common = ('bnt-eval', packed(), '-t', '1', '--window', '100', '--perplexity')
        lines = self.ok(*common, path).decode()
        self.assertEqual(self.ok(*common, '-', input=text).decode(), lines)
        as_json = json.loads(self.ok(*common, path, '--json'))
        words = dict(line.split() for line in lines.splitlines())
        self.assertEqual(int(words['tokens']), as_json['tokens'])
        self.assertAlmostEqual(float(words['perplexity']), as_json['perplexity'], 4)
        self.assertEqual(as_json['tokens'] % 100, 0)

    def test_is_the_loss_of_the_logits(self):
        """Computed here from the logits of one window, as DESIGN.md section 3 defines it."""
        text = read(GOLDEN, 'eval.txt')[:60]
        ids = [int(i) for i in self.ok('bnt-eval', packed(), '--tokenize', '-', input=text).decode().split(',')][:12]
        logits = array('f', self.ok('bnt-eval', packed(), '--logits', '-', '--token-ids', joined([4090] + ids)))
        loss = 0.0
        for i, target in enumerate(ids):
            row = logits[i * 4096:(i + 1) * 4096]
            loss += math.log(math.fsum(math.exp(x) for x in row)) - row[target]
        out = json.loads(self.ok('bnt-eval', packed(), '--json', '--window', '12', '--perplexity', '-', input=text))
        self.assertEqual(out['windows'], 1)
        self.assertAlmostEqual(out['nll'], loss / 12, 5)


CASES = read_json(GOLDEN, 'golden.json')['tokenizer']


class Tokenizer(Case):
    def test_encode(self):
        self.assertGreaterEqual(len(CASES), 38)
        for case in CASES:
            with self.subTest(case['text']):
                text, ids = case['text'].encode('utf-8'), joined(case['ids'])
                self.assertEqual(self.ok('bnt-eval', packed(), '--tokenize', '-', input=text).decode(), ids + '\n')
                out = self.ok('bnt-eval', packed(), '--json', '--tokenize', '-', input=text)
                self.assertEqual(json.loads(out), {'tokens': case['ids']})
                if b'\0' not in text and text != b'-':  # such a text is no argument
                    self.assertEqual(self.ok('bnt-eval', packed(), '--tokenize', text).decode(), ids + '\n')

    def test_decode(self):
        for case in CASES:
            with self.subTest(case['text']):
                text, ids = case['decoded'], joined(case['ids'])
                self.assertEqual(self.ok('bnt-eval', packed(), '--detokenize', ids).decode('utf-8'), text)
                self.assertEqual(self.ok('bnt-eval', packed(), '--detokenize', '-', input=ids.encode()).decode(), text)
                self.assertEqual(json.loads(self.ok('bnt-eval', packed(), '--json', '--detokenize', ids)),
                                 {'text': text})

    def test_ids_may_be_spaced(self):
        for ids in (b' 39, 425 ,78\n', b'39,425,78\r\n', b'\t39,\n425,78'):
            self.assertEqual(self.ok('bnt-eval', packed(), '--detokenize', '-', input=ids), b'Hello')

    def test_text_that_is_not_utf8_is_refused(self):
        for text in (b'\xff', b'ab\xc3', b'\xed\xa0\x80', b'\xc0\x80', b'\xf4\x90\x80\x80', b'a\xe2\x82z'):
            self.refused('bnt-eval', packed(), '--tokenize', '-', input=text, names='UTF-8')
            self.refused('bnt-run', packed(), '-f', self.file('text', text), names=['UTF-8', self.path('text')])

    def test_pieces_of_characters_decode_as_unicode_says(self):
        """Any ids: the bytes joined, ill-formed parts as U+FFFD one for each maximal subpart, as Python's 'replace'."""
        r = random.Random(11)
        for _ in range(40):
            ids = [r.randrange(256) for _ in range(12)]
            with self.subTest(ids):
                raw = b''.join(byte_of(i) for i in ids)
                self.assertEqual(self.ok('bnt-eval', packed(), '--detokenize', joined(ids)).decode('utf-8'),
                                 raw.decode('utf-8', 'replace'))


@functools.lru_cache(maxsize=None)
def byte_tokens():
    """id -> byte, from tokenizer.json: the 256 tokens of one character of GPT-2's byte alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    alphabet = {chr(b): b for b in printable}
    alphabet.update({chr(256 + i): b for i, b in enumerate(others)})
    vocabulary = read_json(FAIRY, 'tokenizer.json')['model']['vocab']
    return {vocabulary[character]: byte for character, byte in alphabet.items()}


def byte_of(token):
    return bytes([byte_tokens()[token]])


ADDED = ['<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>', '<|end_header_id|>', '<|eot_id|>',
         '<|reserved_special_token_0|>']


def random_text(seed):
    """A text of one or a few kinds of characters in turn."""
    r = random.Random(seed)

    def characters(first, last):
        return lambda: ''.join(chr(r.randint(first, last)) for _ in range(r.randint(1, 8)))

    def look_alike():
        token = r.choice(ADDED)
        cut = r.randrange(len(token))
        return r.choice([token, token[:cut], token[cut:], token[:cut] + ' ' + token[cut:], token.upper(), '<' + token])

    kinds = [
        characters(0x20, 0x7E),
        lambda: r.choice(['the', ' king', "'ll", " don't", 'WOLF', ' once upon', '1234567', '\r\n', '...', '--']),
        characters(0xA0, 0x24F),                              # Latin
        characters(0x4E00, 0x9FFF), characters(0x3040, 0x30FF), characters(0xAC00, 0xD7A3),  # CJK
        characters(0x1F300, 0x1FAFF),                         # emoji
        lambda: '👩‍👩‍👧' + r.choice(['', '\ufe0f', '\u200d']),
        lambda: r.choice('aeiouAEIOU') + characters(0x300, 0x36F)(),  # combining
        lambda: ''.join(chr(r.choice([*range(0x20), 0x7F, *range(0x80, 0xA0)])) for _ in range(r.randint(1, 5))),
        lambda: r.choice([' ', '  ', '\n', '\t', '\r\n', '\u00a0', '\u2003', '\u3000', '\u2028', '\u0085'])
        * r.randint(1, 12),
        look_alike,
        lambda: r.choice(['\ufeff', '\ufffd', '\uffff', '\U0010ffff', '\ue000', '\u0600\u0661', 'ǅ', 'ß', 'ﬁ', 'İ']),
    ]
    chosen = [r.choice(kinds) for _ in range(r.randint(1, 4))]
    return ''.join(r.choice(chosen)() for _ in range(r.randint(1, 25)))


class RoundTrip(Case):
    def test_random_texts(self):
        """Each text is encoded alone; one process decodes all ids, and must give all texts."""
        texts = [random_text(seed) for seed in range(300)]
        encoded = []
        for text in texts:
            out = self.ok('bnt-eval', packed(), '--tokenize', '-', input=text.encode('utf-8'))
            encoded.append([int(i) for i in out.decode().split(',')])
        ids = joined([i for one in encoded for i in one])
        out = self.ok('bnt-eval', packed(), '--detokenize', '-', input=ids.encode())
        if out == ''.join(texts).encode('utf-8'):
            return
        for seed, (text, one) in enumerate(zip(texts, encoded)):
            with self.subTest(seed):
                self.assertEqual(self.ok('bnt-eval', packed(), '--detokenize', joined(one)).decode('utf-8'), text)
        self.fail('all texts come back alone, but not together')

    def test_added_tokens_are_found_in_the_text(self):
        out = self.ok('bnt-eval', packed(), '--tokenize', 'x'.join(ADDED)).decode().split(',')
        self.assertEqual([int(i) for i in out[::2]], [4090 + i for i in range(6)])

    def test_long_texts(self):
        """Runs that a careless regex or BPE would take quadratic time or deep recursion for."""
        for text in ('a' * 20000, ' ' * 20000, '\n' * 20000, 'ab' * 10000, '你' * 7000, "'" * 20000, '1' * 20000):
            ids = self.ok('bnt-eval', packed(), '--tokenize', '-', input=text.encode())
            self.same(self.ok('bnt-eval', packed(), '--detokenize', '-', input=ids), text.encode(), text[:2])


class Greedy(Case):
    def test_golden_prompts(self):
        texts = read_json(GOLDEN, 'golden.json')
        tensors = golden_tensors(os.path.join(GOLDEN, 'golden.safetensors'))
        for name, ids, _ in golden_prompts(os.path.join(GOLDEN, 'golden.safetensors')):
            with self.subTest(name):
                text = texts[name + '.text']
                greedy = list(array('i', tensors[name + '.greedy'].data))[:GREEDY]
                expected = self.ok('bnt-eval', packed(), '--detokenize', joined(greedy))
                self.assertTrue(texts[name + '.greedy_text'].startswith(expected.decode()))
                common = ('bnt-run', packed(), '-q', '-t', '1', '--cache', 'f32', '--temp', '0', '-n', GREEDY)
                for prompt in (('-p', text), ('--token-ids', joined(ids)), ('-f', self.file('prompt', text.encode()))):
                    self.assertEqual(self.ok(*map(str, common + prompt)), expected + b'\n')
                out = self.ok(*map(str, common), '-f', '-', input=text.encode())
                self.assertEqual(out, expected + b'\n')
                self.assertEqual(self.ok(*map(str, common), '-p', text, '--echo'), text.encode() + expected + b'\n')

    def test_variants(self):
        """No tokenizer: ids come out. The first is the likeliest of the golden logits' last position."""
        for checkpoint in VARIANTS + VERSION_2:
            for name, ids, logits in golden_prompts(os.path.join(checkpoint, 'golden.safetensors')):
                with self.subTest(os.path.basename(checkpoint), name=name):
                    out = self.ok('bnt-run', packed(checkpoint), '-q', '--cache', 'f32', '--temp', '0', '-n', '1', '--ignore-eos',
                                  '--token-ids', joined(ids))
                    self.assertEqual(int(out), top(logits, len(logits) // len(ids), len(ids) - 1))

    def test_the_int8_copy_changes_no_text(self):
        """Each token is chosen from the copy's short list, or from all logits where it has none."""
        copied = self.path('int8.bnt')
        self.ok('bnt-pack', '-q', '--embedding', 'int8', '-o', copied, input=tools.converted(FAIRY))
        self.assertEqual(self.ok('bnt-verify', copied, '--source', FAIRY), b'')
        text = read_json(GOLDEN, 'golden.json')
        prompts = [text[name] for name in sorted(text) if name.endswith('.text')] + ['In a deep forest']
        for prompt in prompts:
            for way in (['--temp', '0'], ['--temp', '0', '--cache', 'f32'], ['--temp', '1', '--top-k', '40'],
                        ['--temp', '0.8', '--top-k', '1000', '--top-p', '0.9'], ['--temp', '1', '--top-p', '0.9']):
                with self.subTest(prompt=prompt, way=way):
                    common = ('-q', '-t', '1', '-n', '60', '--seed', '7', '-p', prompt, *way)
                    self.assertEqual(self.ok('bnt-run', copied, *common), self.ok('bnt-run', packed(), *common))

    def test_the_same_seed_gives_the_same_text(self):
        common = ('bnt-run', packed(), '-q', '-t', '1', '--temp', '0.9', '-n', '30', '-p', 'Once')
        first = self.ok(*common, '--seed', '1')
        for more in (('-t', '2'), ('-t', '3'), ('--kernel', 'scalar'), ('-c', '500')):
            self.assertEqual(self.ok(*common, '--seed', '1', *more), first, more)
        self.assertEqual(len({self.ok(*common, '--seed', str(seed)) for seed in range(4)}), 4)

    def test_stop_texts(self):
        common = ('bnt-run', packed(), '-q', '-t', '1', '--temp', '0', '-n', '64', '-p', 'In a deep forest')
        whole = self.ok(*common)[:-1]
        for stop in (b' trembled', b'rembl', b'so thick'):
            self.assertEqual(self.ok(*common, '--stop', stop)[:-1], whole[:whole.index(stop)])
        self.assertEqual(self.ok(*common, '--stop', 'no such text')[:-1], whole)


if __name__ == '__main__':
    tools.main()
