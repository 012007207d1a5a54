#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tools against the specification and its second implementation: samples, checkpoints, matrices, tokenizers,
damage, --source."""
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys

import tools
from tools import DATA, FAIRY, MASTERS, PACKED, PACKED_DIVIDE, ROOT, Case, converted, packed, read, write

MAKE = os.path.join(ROOT, 'tests', 'samples', 'make.py')
VECTORS = os.path.join(DATA, 'pack_vectors.safetensors')
ODD_SIZES = ((1, 1), (16, 33), (17, 32), (48, 96), (50, 70), (1, 100), (33, 1), (15, 31), (100, 3), (31, 65))
sys.path.insert(0, os.path.dirname(MAKE))

import bad  # noqa: E402 (in the folders that tools and the line above made known)
import bntpy  # noqa: E402
import bpe  # noqa: E402
import container  # noqa: E402
import floats  # noqa: E402
import good  # noqa: E402
import layout  # noqa: E402
import stfile  # noqa: E402
import ternary  # noqa: E402
import tokn  # noqa: E402


class Verdicts(Case):
    """What bnt-verify says of a file."""

    def valid(self, path, *options):
        self.assertEqual(tools.run('bnt-verify', *options, path), (0, b'', ''))

    def breaks(self, path, rules, *options):
        """One line for each finding, and nothing else; rules: the set of all that they name."""
        done = tools.run('bnt-verify', *options, path)
        found = re.findall(r'^bnt-verify: %s: ([RS]\d+): .+\n' % re.escape(path), done.err, re.MULTILINE)
        self.assertEqual((done.code, done.out, len(found)), (1, b'', done.err.count('\n')), done.err)
        self.assertEqual(set(found), rules, done.err)

    def is_refused(self, path, what):
        done = tools.run('bnt-verify', path)
        self.assertEqual((done.code, bool(done.err)), (1, True), what)


class Samples(Verdicts):
    @classmethod
    def setUpClass(cls):
        cls.samples = os.path.join(tools.module_folder(), 'samples')
        subprocess.run([sys.executable, MAKE, '--all', cls.samples], check=True)

    def paths(self, kind):
        names = sorted(os.listdir(os.path.join(self.samples, kind)))
        self.assertGreater(len(names), 20)
        return [(name, os.path.join(self.samples, kind, name)) for name in names]

    def test_good(self):
        for name, path in self.paths('good'):
            with self.subTest(name):
                self.valid(path)

    def test_good_info(self):
        for name, path in self.paths('good'):
            with self.subTest(name):
                self.assertTrue(self.ok('bnt-info', path))
                self.assertIsInstance(json.loads(self.ok('bnt-info', '--json', path).decode('utf-8')), dict)

    def test_bad(self):
        for name, path in self.paths('bad'):
            with self.subTest(name):
                self.breaks(path, bad.broken_rules(name))

    def test_json(self):
        for name, path in self.paths('bad') + self.paths('good'):
            with self.subTest(name):
                done, rules = tools.run('bnt-verify', '--json', path), bad.broken_rules(name)
                self.assertEqual((done.code, done.err), (1 if rules else 0, ''))
                result = json.loads(done.out.decode('utf-8'))
                self.assertEqual({item['rule'] for item in result['broken']}, rules)
                self.assertEqual((result['valid'], result['broken_count']), (not rules, len(result['broken'])))


class Checkpoints(Verdicts):
    def check(self, checkpoint, *options, quiet=True):
        """Packed, it is good for both implementations, and the second one writes the same bytes."""
        raw = self.ok('bnt-pack', '-q', *options, input=converted(checkpoint), quiet=quiet)
        self.assertEqual(bntpy.verify(raw), [])
        model = bntpy.read(raw)
        self.same(bntpy.write(model), raw)
        path = self.file('checkpoint.bnt', raw)
        self.valid(path)
        self.valid(path, '--source', checkpoint)
        return model

    def test_fairy(self):
        model = self.check(FAIRY)
        self.assertEqual((len(model.ternary), len(model.norms)), (6 * 7, 6 * 4 + 1))
        self.assertIsNone(model.int8)

    def test_fairy_int8(self):
        self.assertEqual(len(self.check(FAIRY, '--embedding', 'int8').int8.scales), 4096)

    def test_packed(self):
        self.assertEqual(self.check(PACKED).hyper['flags'], layout.TIED | layout.SUB_NORMS)
        self.assertEqual(self.check(PACKED_DIVIDE).hyper['flags'], 0)

    def test_f32_embeddings(self):
        """Kept as they are, with a copy in int8; rounded to bf16 only when that is asked for."""
        whole = self.check(MASTERS, '--embedding', 'int8')
        self.assertTrue(whole.hyper['flags'] & layout.F32_EMBEDDINGS)
        entry = stfile.read(read(MASTERS, 'model.safetensors'))['model.embed_tokens.weight']
        self.same(whole.embeddings['token_embedding'], entry.data)
        rounded = self.check(MASTERS, '--embedding', 'bf16', quiet=False)
        self.assertFalse(rounded.hyper['flags'] & layout.F32_EMBEDDINGS)

    def test_ternarized_as_section_11_says(self):
        """Masters of one layer, made ternary by the second implementation."""
        for checkpoint, layer in ((FAIRY, 3), (MASTERS, 1)):
            entries = stfile.read(read(checkpoint, 'model.safetensors'))
            model = bntpy.read(read(packed(checkpoint)))
            for role, name in (('attn_k', 'self_attn.k_proj'), ('attn_o', 'self_attn.o_proj'),
                               ('ffn_down', 'mlp.down_proj')):
                entry, matrix = entries['model.layers.%d.%s.weight' % (layer, name)], model.ternary[layer, role]
                gamma, weights = ternary.ternarize(floats.to_floats(entry.data, stfile.ITEM_SIZE[entry.dtype]))
                self.assertEqual(gamma, matrix.gamma)
                self.same(weights, matrix.weights)


class Matrices(Case):
    def test_vectors_of_the_published_packer(self):
        entries = stfile.read(read(VECTORS))
        for shape in ('16x32', '32x64'):
            raw = self.ok('bnt-pack', '--matrix', shape + '.ternary', VECTORS, '-o', '-')
            self.same(raw, entries[shape + '.packed'].data, shape)

    def test_odd_sizes(self):
        entries = {'%dx%d' % size: stfile.Entry('I8', size, good.mixed(('odd', size), *size)) for size in ODD_SIZES}
        path = self.file('odd.safetensors', stfile.write(entries))
        for name, entry in entries.items():
            raw = self.ok('bnt-pack', '--matrix', name, path)
            self.same(raw, ternary.pack_by_definition(entry.data, *entry.shape), name)


class Tokenizers(Case):
    """bnt-eval against the plain definition in tests/bntpy/bpe.py; no pattern here goes beyond what re has too."""
    TEXTS = ('abc ab c-a', 'hi hi', ' hih\u2581hi  h', 'he\u0301 n\u0303 xy\u00fci', 'a\u2581b<s>h-i a b <unk>', '-\n-')

    def compare(self, model, texts=TEXTS):
        path = self.file('tokenizer.bnt', bntpy.write(model))
        for text in texts:
            with self.subTest(text):
                ids = bpe.encode(model.tokenizer, text, self.find)
                out = self.ok('bnt-eval', path, '--tokenize', '-', input=text.encode('utf-8')).decode()
                self.assertEqual([int(i) for i in out.strip().split(',') if i], ids)
                self.compare_back(path, model, ids[::-1] if ids else [0])

    def compare_back(self, path, model, ids):
        out = self.ok('bnt-eval', path, '--detokenize', ','.join(map(str, ids)))
        self.assertEqual(out.decode('utf-8'), bpe.decode(model.tokenizer, ids))

    @staticmethod
    def find(pattern, text):
        return [match.span() for match in re.finditer(pattern, text, re.MULTILINE)]

    def test_samples(self):
        for build in (good.tokenizer, good.tokenizer_flags, good.tokenizer_characters, good.tokenizer_first,
                      good.tokenizer_steps):
            self.compare(build())

    def test_behaviors(self):
        model = good.tokenizer()
        for behavior in range(5):
            for invert in (0, 1):
                model.tokenizer.steps = [tokn.Step(tokn.SPLIT, behavior, invert, b'b+| ')]
                self.compare(model, ('abc b abbcb', 'b', ' ab', 'c  c', 'cabab abcb'))

    def test_empty_matches_separate(self):
        """Between a and b the pattern matches nothing; two separators they stay, which no merge may join."""
        model = good.tokenizer()
        model.tokenizer.steps = [tokn.Step(tokn.SPLIT, tokn.CONTIGUOUS, 1, b'(?<=a)(?=b)')]
        self.compare(model, ('ab', 'cabc'))

    def test_longer_than_its_text(self):
        """Steps may make a text longer, and it may have more tokens than it had bytes."""
        model = good.tokenizer()
        model.tokenizer.steps = [tokn.Step(tokn.REPLACE, 0, 0, b'a', b'cccccccccc')]
        self.compare(model, ('aaaaaaaaaa', 'ab'))

    def test_lookup_before_byte_tokens(self):
        """A byte token is for what lookup has no token for."""
        model = good.tokenizer()
        model.tokenizer.tokens[1] = b'a'
        model.tokenizer.lookup, model.tokenizer.merges = [0, 3, 2], []
        model.tokenizer.lookup.sort(key=model.tokenizer.tokens.__getitem__)
        model.tokenizer.attr = bytes([0, tokn.ATTR_BYTE, 0, 0, 0, 0])
        self.compare(model, ('a', 'ca c'))

    def test_spaces_of_a_first_byte_token(self):
        model = good.tokenizer_characters()
        model.tokenizer.attr = model.tokenizer.attr[:5] + bytes([tokn.ATTR_BYTE]) + model.tokenizer.attr[6:]
        model.tokenizer.flags = tokn.DROP_FIRST_SPACES
        path = self.file('tokenizer.bnt', bntpy.write(model))
        for ids in ([5, 6], [9, 5], [5], [6, 5]):
            self.compare_back(path, model, ids)


class Damage(Verdicts):
    """A copy of fairy's file is changed where it lies, and mended again: a write of one byte for each run."""

    def setUp(self):
        super().setUp()
        self.model = shutil.copy(packed(), self.path('damaged.bnt'))

    def put(self, at, some):
        with open(self.model, 'r+b') as file:
            file.seek(at)
            file.write(some)

    @staticmethod
    def positions(raw, rng):
        """The ends of every section with the bytes around them, the header page, and bytes anywhere: some 300."""
        ends = [at for r in container.records(raw) for at in (r.offset, r.offset + r.size)]
        near = {at + d for at in ends for d in (-1, 0, 1)} | set(range(0, 128, 7)) | set(range(128, 400, 11)) | {4095}
        return sorted(at for at in near if at < len(raw)) + [rng.randrange(len(raw)) for _ in range(220)]

    def test_one_bit(self):
        raw, rng = read(self.model), random.Random(1)
        for at in self.positions(raw, rng):
            bit = rng.randrange(8)
            self.put(at, bytes([raw[at] ^ 1 << bit]))
            self.is_refused(self.model, 'bit %d of byte %d' % (bit, at))
            self.put(at, raw[at:at + 1])
        self.valid(self.model)

    def test_appended_and_truncated(self):
        size, rng = os.path.getsize(self.model), random.Random(2)
        for tail in (b'\0', b'\1', bytes(4096)):
            self.put(size, tail)
            self.is_refused(self.model, 'appended %d' % len(tail))
        cuts = [0, 1, 7, 8, 127, 4095, 4096, 4097, size - 1, size - 2] + [rng.randrange(size) for _ in range(40)]
        for cut in sorted(cuts, reverse=True):
            os.truncate(self.model, cut)
            self.is_refused(self.model, 'cut to %d' % cut)


class Source(Verdicts):
    """--source, with a checkpoint that is not quite the one that was packed."""

    def setUp(self):
        super().setUp()
        self.copy = shutil.copytree(FAIRY, self.path('copy'), ignore=shutil.ignore_patterns('golden'))

    def edit(self, name, change):
        """change: bytes -> other bytes, as many, so that nothing but the content tells."""
        before = read(self.copy, name)
        after = change(before)
        self.assertEqual((len(after), after != before), (len(before), True))
        write(os.path.join(self.copy, name), after)

    def edit_tensor(self, name, change):
        def inside(raw):
            data = stfile.read(raw)[name].data
            at = raw.index(data)
            return raw[:at] + change(data) + raw[at + len(data):]
        self.edit('model.safetensors', inside)

    def differs(self, rules):
        self.breaks(packed(), rules, '--source', self.copy)

    def test_a_copy(self):
        self.valid(packed(), '--source', self.copy)

    def test_weight_sign(self):
        def change(raw):
            sizes = [bits & 0x7FFF for bits, in struct.iter_unpack('<H', raw)]
            at = 2 * sizes.index(max(sizes)) + 1  # certainly not zero when ternary
            return raw[:at] + bytes([raw[at] ^ 0x80]) + raw[at + 1:]
        self.edit_tensor('model.layers.5.mlp.up_proj.weight', change)
        self.differs({'S2', 'S5'})

    def test_weight_scale(self):
        """All weights of the matrix doubled: the same words, another γ."""
        def change(raw):
            return b''.join(struct.pack('<H', bits + 0x80) for bits, in struct.iter_unpack('<H', raw))
        self.edit_tensor('model.layers.0.self_attn.k_proj.weight', change)
        self.differs({'S3', 'S5'})

    def test_norm(self):
        self.edit_tensor('model.norm.weight', lambda raw: bytes([raw[0] ^ 1]) + raw[1:])
        self.differs({'S4', 'S5'})

    def test_embedding(self):
        self.edit_tensor('model.embed_tokens.weight', lambda raw: raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])
        self.differs({'S4', 'S5'})

    def test_eos(self):
        for name in ('config.json', 'generation_config.json'):
            self.edit(name, lambda raw: raw.replace(b'"eos_token_id": 4091', b'"eos_token_id": 4089'))
        self.differs({'S1', 'S5'})

    def test_tokenizer(self):
        """A byte that means nothing, but is another."""
        self.edit('tokenizer.json', lambda raw: raw.replace(b'{\n', b'{\t', 1))
        self.differs({'S5'})

    def test_file_missing(self):
        os.remove(os.path.join(self.copy, 'README.md'))
        self.differs({'S5'})


if __name__ == '__main__':
    tools.main()
