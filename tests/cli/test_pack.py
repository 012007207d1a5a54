#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bnt-pack: the same bytes from the same stream however it comes, its options, and the streams that it refuses."""
import copy
import json
import math
import os
import random
import struct
import tempfile
import threading
import unittest

import tools
from tools import Case, FAIRY, MASTERS, PACKED, PACKED_DIVIDE, Tensor, converted, read

import bntpy  # noqa: E402 (of tests/bntpy, where tools has pointed Python)
import container  # noqa: E402
import floats  # noqa: E402
import ternary  # noqa: E402

PROVENANCE = 'bnt.provenance'
F32_EMBEDDINGS = 4  # of HYPR's flags


def sections(path):
    raw = read(path)
    return {container.name(record): container.body(raw, record) for record in container.records(raw)}


def flags(path):
    return struct.unpack_from('<I', sections(path)['HYPR'], 36)[0]


class Deterministic(Case):
    def pack(self, *args, **options):
        return self.ok('bnt-pack', *args, **options)

    def test_any_threads_and_ways_in_and_out(self):
        for folder in (FAIRY, MASTERS, PACKED_DIVIDE):
            stream = self.file('stream', converted(folder))
            expected = read(tools.packed(folder))
            for jobs in (('-j', '1'), ('-j', '2'), ('-j', '5'), ()):
                self.assertEqual(self.pack(stream, *jobs, '-o', self.path('out')), b'')
                self.same(read(self.path('out')), expected, jobs)
                self.same(self.pack(*jobs, input=converted(folder)), expected, jobs)
            with open(stream, 'rb') as file:  # standard input is a file, standard output too
                with open(self.path('seekable'), 'wb') as out:
                    self.pack('-', '-o', '-', stdin=file, stdout=out)
            self.same(read(self.path('seekable')), expected)
            self.nothing_in(self.dir, ['out', 'seekable', 'stream'])

    def test_a_pipe_that_comes_in_drops(self):
        expected = read(tools.packed(PACKED))
        process = tools.start('bnt-pack', '-j', '3', stdin=-1, stdout=-1)
        stream, r = converted(PACKED), random.Random(3)

        def feed():
            at = 0
            while at < len(stream):
                step = r.choice([1, 2, 7, 100, 4096, 70000])
                process.stdin.write(stream[at:at + step])
                process.stdin.flush()
                at += step
            process.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        out = process.stdout.read()
        feeder.join()
        err = process.stderr.read()
        self.assertEqual((process.wait(), err), (0, b''))
        process.stdout.close()
        process.stderr.close()
        self.same(out, expected)

    def test_tensors_in_another_order(self):
        for folder in (FAIRY, MASTERS, PACKED_DIVIDE):
            metadata, tensors = tools.parse(converted(folder))
            orders = [list(reversed(tensors)), sorted(tensors), random.Random(1).sample(list(tensors), len(tensors))]
            orders.append([PROVENANCE] + [name for name in tensors if name != PROVENANCE])
            for order in orders:
                stream = tools.build({name: tensors[name] for name in order}, dict(reversed(metadata.items())))
                self.same(self.pack('-j', '2', input=stream), read(tools.packed(folder)), order[:3])

    def test_permissions_and_replacing(self):
        """An old file keeps its mode, a new one has what the umask leaves."""
        umask = os.umask(0)
        os.umask(umask)
        self.file('old', b'older')
        os.chmod(self.path('old'), 0o600)
        for name, mode in (('old', 0o600), ('new', 0o666 & ~umask)):
            self.pack('-o', self.path(name), input=converted(PACKED))
            self.same(read(self.path(name)), read(tools.packed(PACKED)))
            self.assertEqual(os.stat(self.path(name)).st_mode & 0o777, mode)

    def test_every_file_is_valid_to_both_implementations(self):
        for folder in (MASTERS, PACKED, PACKED_DIVIDE, tools.synthetic(dtype='f16')):
            self.assertEqual(self.ok('bnt-verify', tools.packed(folder)), b'')
            self.assertEqual(bntpy.verify(read(tools.packed(folder))), [])

    def test_matrix(self):
        metadata, tensors = tools.parse(converted(MASTERS))
        stream = self.file('stream', converted(MASTERS))
        for name in ('model.layers.0.self_attn.k_proj.weight', 'model.layers.1.mlp.down_proj.weight'):
            tensor = tensors[name]
            expected = ternary.pack(tensor.data, *tensor.shape)
            self.same(self.pack(stream, '--matrix', name), expected)
            self.pack(stream, '--matrix', name, '-o', self.path('out'))
            self.same(read(self.path('out')), expected)
        os.remove(self.path('out'))
        for name in ('absent', 'model.norm.weight', PROVENANCE):
            self.refused('bnt-pack', stream, '--matrix', name, '-o', self.path('out'), names=[name, stream])
        bad = self.file('bad', tools.build({'m': Tensor('I8', [40, 3], bytes(119) + b'\2')}))
        self.refused('bnt-pack', bad, '--matrix', 'm', '-o', self.path('out'), names='m')
        self.nothing_in(self.dir, ['bad', 'stream'])


class Embedding(Case):
    def pack(self, folder, *options, quiet=True):
        out = self.path('out')
        self.ok('bnt-pack', '-o', out, *options, input=converted(folder), quiet=quiet)
        self.assertEqual(self.ok('bnt-verify', out, '--source', folder), b'')
        return sections(out)

    def test_int8(self):
        for folder, output in ((PACKED, 'model.embed_tokens.weight'), (PACKED_DIVIDE, 'lm_head.weight')):
            found = self.pack(folder, '--embedding', 'int8')
            self.assertEqual(set(found), set(sections(tools.packed(folder))) | {'EMB8'})
            tensor = tools.parse(converted(folder))[1][output]
            rows, cols = tensor.shape
            values, scales = b'', []
            for row in range(rows):
                weights = floats.from_bf16(tensor.data[2 * row * cols:2 * (row + 1) * cols])
                scale, quantized = int8_row(weights)
                values += quantized
                scales.append(scale)
            self.same(found['EMB8'], values.ljust((len(values) + 255) // 256 * 256, b'\0') + floats.float_bytes(scales))
            for name, body in sections(tools.packed(folder)).items():
                if name not in ('TENS', 'PROV'):  # places move
                    self.same(found[name], body, name)

    def test_int8_of_other_types(self):
        for dtype in ('f16', 'f32'):
            folder = tools.synthetic(dtype=dtype)
            tensor = tools.parse(converted(folder))[1]['model.embed_tokens.weight']
            cols = tensor.shape[1]
            weights = list(struct.unpack('<%d%s' % (math.prod(tensor.shape), 'e' if dtype == 'f16' else 'f'), tensor.data))
            rows = [int8_row(weights[i:i + cols]) for i in range(0, len(weights), cols)]
            self.same(self.pack(folder, '--embedding=int8')['EMB8'],
                      b''.join(row for _, row in rows) + floats.float_bytes([scale for scale, _ in rows]))

    def test_int8_with_any_threads(self):
        expected = self.pack(FAIRY, '--embedding', 'int8', '-j', '1')
        for jobs in '25':
            self.assertEqual(self.pack(FAIRY, '--embedding', 'int8', '-j', jobs), expected)

    def test_types_are_kept(self):
        for folder, wide in ((FAIRY, 0), (PACKED, 0), (MASTERS, F32_EMBEDDINGS), (tools.synthetic(dtype='f16'), F32_EMBEDDINGS)):
            self.assertEqual(flags(tools.packed(folder)) & F32_EMBEDDINGS, wide)
        half = tools.parse(converted(tools.synthetic(dtype='f16')))[1]['model.embed_tokens.weight']
        exact = struct.unpack('<%de' % (len(half.data) // 2), half.data)
        self.same(sections(tools.packed(tools.synthetic(dtype='f16')))['EMBD'], floats.float_bytes(exact))
        whole = tools.parse(converted(MASTERS))[1]['model.embed_tokens.weight']
        self.same(sections(tools.packed(MASTERS))['EMBD'], whole.data)

    def test_bf16(self):
        """Rounded half to even, and said so; what is bf16 already stays and nothing is said."""
        for folder, size in ((MASTERS, 'f'), (tools.synthetic(dtype='f16'), 'e')):
            found = self.pack(folder, '--embedding', 'bf16', quiet=False)
            self.assertEqual(flags(self.path('out')) & F32_EMBEDDINGS, 0)
            tensor = tools.parse(converted(folder))[1]['model.embed_tokens.weight']
            values = struct.unpack('<%d%s' % (math.prod(tensor.shape), size), tensor.data)
            bits = struct.unpack('<%dI' % len(values), floats.float_bytes(values))
            expected = [(b + 0x7fff + (b >> 16 & 1)) >> 16 & 0xffff for b in bits]
            self.same(found['EMBD'], struct.pack('<%dH' % len(expected), *expected))
        done = tools.run('bnt-pack', '--embedding', 'bf16', '-o', self.path('out'), input=converted(MASTERS))
        self.one_line(done, 'bnt-pack', 0, ['model.embed_tokens.weight', 'rounded'])
        self.same(self.ok('bnt-pack', '--embedding', 'bf16', input=converted(PACKED)), read(tools.packed(PACKED)))

    def test_ties_and_overflow_of_rounding(self):
        metadata, tensors = tools.parse(converted(MASTERS))
        name = 'model.embed_tokens.weight'
        bits = [0x3f808000, 0x3f818000, 0x3f808001, 0x3f807fff, 0xbf808000, 0x00000001, 0x80008000, 0x7f7f7fff, 0xff7f7fff]
        rounded = [0x3f80, 0x3f82, 0x3f81, 0x3f80, 0xbf80, 0x0000, 0x8000, 0x7f7f, 0xff7f]
        for i, value in enumerate(bits):
            tensors[name] = tools.patch(tensors[name], i, struct.pack('<I', value))
        out = self.path('out')
        self.ok('bnt-pack', '--embedding', 'bf16', '-o', out, input=tools.build(tensors, metadata), quiet=False)
        self.assertEqual(list(struct.unpack_from('<9H', sections(out)['EMBD'])), rounded)
        os.remove(out)
        for value in (0x7f7f8000, 0xff7fffff):  # finite, and no longer once rounded
            tensors[name] = tools.patch(tensors[name], 200, struct.pack('<I', value))
            stream = tools.build(tensors, metadata)
            done = tools.run('bnt-pack', '--embedding', 'bf16', '-o', out, input=stream)
            self.assertEqual(done.code, 1)
            self.assertIn('element 200 ', done.err.splitlines()[-1])
            self.nothing_in(self.dir)
            self.ok('bnt-pack', '-o', out, input=stream)  # f32 holds it
            os.remove(out)

    def test_both(self):
        found = self.pack(MASTERS, '--embedding', 'bf16', '--embedding', 'int8', quiet=False)
        self.assertEqual(flags(self.path('out')) & F32_EMBEDDINGS, 0)
        values = floats.from_bf16(found['EMBD'])
        rows = [int8_row(values[i:i + 96]) for i in range(0, len(values), 96)]
        expected = b''.join(row for _, row in rows)
        self.same(found['EMB8'][:len(expected)], expected)
        self.ok('bnt-run', self.path('out'), '--token-ids', '1,2', '-n', '3', '-q')


def int8_row(weights):
    """Section 7 of bnt.md."""
    largest = max(map(abs, weights))
    if largest < 2.0 ** -100:
        return 1.0, bytes(len(weights))
    scale = floats.f32(largest / 127)
    return scale, bytes(max(-127, min(127, round(floats.f32(w / scale)))) & 255 for w in weights)


class NoTokenizer(Case):
    def test_says_why(self):
        model = tools.packed(MASTERS)
        self.assertNotIn('TOKN', sections(model))
        why = ['no tokenizer', 'token']
        self.refused('bnt-run', model, '-p', 'Once', names=why)
        self.refused('bnt-run', model, '-f', self.file('prompt', b'Once'), names=why)
        self.refused('bnt-run', model, '-f', '-', names=why, input=b'Once')
        for mode in ('--tokenize', '--detokenize'):
            self.refused('bnt-eval', model, mode, '1', names=why)
            self.refused('bnt-eval', model, mode, '-', names=why, input=b'1')
        self.refused('bnt-eval', model, '--perplexity', self.path('prompt'), names=why)

    def test_ids_work(self):
        for folder in (MASTERS, PACKED, PACKED_DIVIDE):
            out = self.ok('bnt-run', tools.packed(folder), '--token-ids', '1, 2,3', '-n', '5', '-q', '--temp', '0', '--ignore-eos')
            self.assertRegex(out, rb'\A\d+(,\d+){4}\n\Z')
            self.assertEqual(len(self.ok('bnt-eval', tools.packed(folder), '--token-ids', '1,2', '--logits', '-'))
                             % (2 * 4), 0)

    def test_ids_that_are_none(self):
        model = tools.packed(MASTERS)
        self.refused('bnt-run', model, '--token-ids', '322', names='322')
        self.refused('bnt-eval', model, '--token-ids', '1,322', '--logits', self.path('out'), names='322')
        self.refused('bnt-eval', model, '--token-ids', '1,4294967295', '--logits', '-', names='4294967295')
        self.nothing_in(self.dir)


class RefusedCase(Case):
    """Each: exit 1, one line, no file under the final name nor a temporary one, an older file as it was."""

    def setUp(self):
        super().setUp()
        self.metadata, self.tensors = tools.parse(converted(MASTERS))

    def check(self, stream, names=()):
        folder = tempfile.mkdtemp(dir=self.dir)
        out = os.path.join(folder, 'out')
        names = [names] if isinstance(names, str) else list(names)
        self.refused('bnt-pack', '-j', '2', '-o', out, input=stream, names=['standard input'] * (not names) + names)
        self.nothing_in(folder)
        self.refused('bnt-pack', input=stream, names=names)
        tools.write(out, b'older')
        self.refused('bnt-pack', '-j', '1', '-o', out, input=stream, names=names)
        self.nothing_in(folder, ['out'])
        self.assertEqual(read(out), b'older')

    def altered(self, names, metadata):
        """The stream with some metadata changed."""
        self.check(tools.build(self.tensors, {**self.metadata, **metadata}), names)

    def patched(self, ending, index, value, names=()):
        name = next(n for n in self.tensors if n.endswith(ending))
        tensors = {**self.tensors, name: tools.patch(self.tensors[name], index, value)}
        with self.subTest(name, index=index, value=value):
            self.check(tools.build(tensors, self.metadata), [name, *names])


class Refused(RefusedCase):
    def test_the_stream_as_it_is_packs(self):
        self.same(self.ok('bnt-pack', input=tools.build(self.tensors, self.metadata)), read(tools.packed(MASTERS)))

    def test_not_a_stream_of_ours(self):
        self.check(read(FAIRY, 'model.safetensors'), ['standard input', 'bnt-convert'])
        self.check(tools.build(self.tensors), 'bnt-convert')
        for version in ('', '0', '2', '1.0', ' 1'):
            with self.subTest(version=version):
                self.altered('bnt-convert', {'bnt.ternary_checkpoint': version})
        for stream in (b'', b'{', b'\x89BNT\r\n\x1a\n' + bytes(100), read(tools.packed(MASTERS)), b'x' * 1000, bytes(1000),
                       struct.pack('<Q', 100 * 1000 * 1000 + 1) + b'{}', struct.pack('<Q', 2 ** 64 - 1) + b'{}',
                       struct.pack('<Q', 2) + b'{}', struct.pack('<Q', 2) + b'[]'):
            with self.subTest(stream[:20]):
                self.check(stream)

    def test_truncated(self):
        stream = converted(MASTERS)
        header = 8 + struct.unpack_from('<Q', stream)[0]
        points, at = {0, 1, 7, 8, 9, header - 1, header, header + 1, len(stream) - 1}, header
        for tensor in self.tensors.values():
            at += len(tensor.data)
            points |= {at - 1, at, at + 1}
        points = {p for p in points if p < len(stream)}
        r = random.Random(2)
        points = r.sample(sorted(points), min(100, len(points)))
        points += [r.randrange(len(stream)) for _ in range(200 - len(points))]
        out = self.path('out')
        for i, point in enumerate(points):
            with self.subTest(point=point):
                options = ('-j', str(i % 3 + 1)) + (('-o', out) if i % 4 else ())
                self.refused('bnt-pack', *options, input=stream[:point], names='standard input')
                self.nothing_in(self.dir)

    def test_truncated_file(self):
        for size in (0, 8, 1000, len(converted(MASTERS)) - 1):
            path = self.file('stream', converted(MASTERS)[:size])
            self.refused('bnt-pack', path, '-o', self.path('out'), names=path)
            self.nothing_in(self.dir, ['stream'])

    def test_trailing_bytes(self):
        self.check(converted(MASTERS) + b'\0')
        self.check(converted(MASTERS) + converted(MASTERS))

    def test_values(self):
        for value in (b'\2', b'\xfe', b'\x80', b'\x7f', b'\3'):
            self.patched('layers.0.self_attn.k_proj.weight', 0, value)
            self.patched('layers.1.mlp.down_proj.weight', -1, value)
            self.patched('layers.0.mlp.up_proj.weight', 5555, value)
        for value in tools.NOT_FINITE['F32'] + [struct.pack('<f', x) for x in (0.0, -0.0, -1.0)]:
            self.patched('q_proj.weight_scale', 0, value)
        for value in tools.NOT_FINITE['F32']:
            self.patched('input_layernorm.weight', 3, value, ['element 3 '])
            self.patched('model.norm.weight', -1, value, ['element 95 '])
            self.patched('embed_tokens.weight', 12345, value, ['element 12345 '])

    def test_missing_tensor(self):
        for name in self.tensors:
            if name == PROVENANCE:
                continue
            with self.subTest(name):
                self.check(tools.build({n: t for n, t in self.tensors.items() if n != name}, self.metadata), name)

    def test_extra_tensor(self):
        for name in ('extra', 'lm_head.weight', 'model.layers.2.mlp.up_proj.weight', 'model.norm.weight_scale', '',
                     'a' * 5000, 'two\nlines', 'model.layers.0.self_attn.q_proj.weight_scale_scale'):
            with self.subTest(name[:60]):
                tensors = {**self.tensors, name: Tensor('F32', [1], bytes(4))}
                self.check(tools.build(tensors, self.metadata), [name] if '\n' not in name and len(name) < 99 else [])

    def test_wrong_types_and_shapes(self):
        def other(name, dtype=None, shape=None):
            tensor = self.tensors[name]
            dtype, shape = dtype or tensor.dtype, tensor.shape if shape is None else shape
            data = bytes(tools.ITEM_SIZE[dtype] * math.prod(shape))
            with self.subTest(name, dtype=dtype, shape=shape):
                self.check(tools.build({**self.tensors, name: Tensor(dtype, shape, data)}, self.metadata), name)

        q = 'model.layers.0.self_attn.q_proj.weight'
        for dtype in ('U8', 'F32', 'BF16'):
            other(q, dtype)
        other(q + '_scale', 'BF16')
        other(q + '_scale', shape=[])
        other(q + '_scale', shape=[2])
        other('model.norm.weight', 'BF16')
        other('model.embed_tokens.weight', 'I8')
        other('model.embed_tokens.weight', 'F64')
        for name in (q, 'model.norm.weight', 'model.embed_tokens.weight'):
            shape = self.tensors[name].shape
            for wrong in (shape[:-1] + [shape[-1] + 1], [shape[0] - 1] + shape[1:], [1] + shape, shape + [1], [],
                          [0] + shape[1:]):
                other(name, shape=wrong)

    def test_config(self):
        config = json.loads(self.metadata['config.json'])
        for changes in ({'hidden_size': 128}, {'num_hidden_layers': 3}, {'num_hidden_layers': 1}, {'vocab_size': 321},
                        {'num_hidden_layers': 4096}, {'intermediate_size': 1 << 20}, {'hidden_size': 0},
                        {'architectures': ['LlamaForCausalLM']}, {'architectures': ['Other']}, {'tie_word_embeddings': False}):
            with self.subTest(**changes):
                self.altered((), {'config.json': json.dumps({**config, **changes})})
        for text in ('', '{', '[]', 'null'):
            self.altered('config.json', {'config.json': text})
            self.altered('generation_config.json', {'generation_config.json': text})
        metadata = {key: text for key, text in self.metadata.items() if key != 'config.json'}
        self.check(tools.build(self.tensors, metadata), 'config.json')

    def test_provenance(self):
        """R27: what is written must be JSON that every library reads the same."""
        good = self.tensors[PROVENANCE].data
        bad = (b'', b'{', b'[]', b'null', b'{}x', b'{"a":1,"a":2}', b'\xef\xbb\xbf{}', b'{"a":"\xff"}', good[:-1],
               b'{"a":1e999}', b'{"a":9223372036854775808}', b'{"a":"\\ud800"}', b'{"a":' + b'[' * 100 + b']' * 100 + b'}',
               b'{"a":' + b'[' * 5000 + b']' * 5000 + b'}')
        for text in bad:
            with self.subTest(text[:60]):
                self.check(tools.build({**self.tensors, PROVENANCE: Tensor('U8', [len(text)], text)}, self.metadata))
        self.check(tools.build({**self.tensors, PROVENANCE: Tensor('I8', [len(good)], good)}, self.metadata), PROVENANCE)
        size = (16 << 20) + 1
        stream = tools.head({**self.tensors, PROVENANCE: Tensor('U8', [size], bytes(size))}, self.metadata)
        self.check(stream + b''.join(t.data for n, t in self.tensors.items() if n != PROVENANCE), PROVENANCE)

    def test_provenance_that_is_strange_but_json(self):
        for text in (b'{}', b' { } ', b'{"matrices":7,"packer":[]}', b'{"a":-9223372036854775808}',
                     b'{"a":1e-400}', b'{"a":' + b'[' * 98 + b']' * 98 + b'}', '{"ä😀\u2028":"ß"}'.encode('utf-8')):
            with self.subTest(text[:60]):
                out = self.ok('bnt-pack', input=tools.build({**self.tensors, PROVENANCE: Tensor('U8', [len(text)], text)},
                                                            self.metadata))
                self.assertEqual(bntpy.verify(out), [])
                self.assertEqual(self.ok('bnt-verify', '-', input=out), b'')
        stream = tools.build({n: t for n, t in self.tensors.items() if n != PROVENANCE}, self.metadata)
        self.assertEqual(bntpy.verify(self.ok('bnt-pack', input=stream)), [])  # it may be missing

    def test_header(self):
        text = converted(MASTERS)
        size, = struct.unpack_from('<Q', text)
        header, data = text[8:8 + size], text[8 + size:]
        for change in (header[:-200], header.replace(b'"F32"', b'"F33"', 1), header.replace(b'[322,96]', b'[322,97]'),
                       header.rstrip()[:-1] + b',"model.norm.weight":{}}', b'\xff' + header, header.replace(b'"I8"', b'null', 1)):
            with self.subTest(change[:30]):
                self.assertNotEqual(change, header)
                self.check(struct.pack('<Q', len(change)) + change + data)


# A small tokenizer.json in the form of Llama 3's, which fits into 322 ids.
def alphabet():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def tokenizer():
    vocab = {character: i for i, character in enumerate(alphabet())}
    merges = [['a', 'b'], ['ab', 'c'], ['Ġ', 'a'], ['Ġa', 'b']]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    special = {'id': 300, 'content': '<|end|>', 'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False,
               'special': True}
    split = {'type': 'Split', 'pattern': {'Regex': r' ?\p{L}+|\s+|.'}, 'behavior': 'Isolated', 'invert': False}
    level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False}
    return {'version': '1.0', 'added_tokens': [special], 'normalizer': None,
            'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [split, level]},
            'post_processor': None, 'decoder': {'type': 'ByteLevel'},
            'model': {'type': 'BPE', 'vocab': vocab, 'merges': merges}}


class Tokenizers(RefusedCase):
    """Kinds and parts of tokenizer.json that are refused by name."""

    def with_tokenizer(self, content):
        text = content if isinstance(content, str) else json.dumps(content)
        return tools.build(self.tensors, {**self.metadata, 'tokenizer.json': text})

    def variant(self, names, change, **about):
        content = copy.deepcopy(tokenizer())
        change(content)
        with self.subTest(names, **about):
            self.check(self.with_tokenizer(content), ['tokenizer.json'] + ([names] if isinstance(names, str) else names))

    def test_the_tokenizer_as_it_is_works(self):
        model = self.path('out')
        self.ok('bnt-pack', '-o', model, input=self.with_tokenizer(tokenizer()))
        self.assertEqual(self.ok('bnt-verify', model), b'')
        self.assertEqual(bntpy.verify(read(model)), [])
        ids = {c: i for i, c in enumerate(alphabet())}
        expected = '257,%d,256,300,%d' % (ids['Ġ'], ids['c'])  # a b goes before Ġ a
        self.assertEqual(self.ok('bnt-eval', model, '--tokenize', 'abc ab<|end|>c').decode(), expected + '\n')
        self.assertEqual(self.ok('bnt-eval', model, '--detokenize', expected), b'abc ab<|end|>c')
        whole = tokenizer()
        whole['model']['ignore_merges'] = True
        self.ok('bnt-pack', '-o', model, input=self.with_tokenizer(whole))
        expected = '257,259,300,%d' % ids['c']  # the token of a whole piece goes before any merge
        self.assertEqual(self.ok('bnt-eval', model, '--tokenize', 'abc ab<|end|>c').decode(), expected + '\n')

    def test_models(self):
        for kind in ('WordPiece', 'Unigram', 'WordLevel', ''):
            self.variant(kind, lambda t, kind=kind: t['model'].update(type=kind))
        self.variant([], lambda t: t.update(model=None))
        self.variant([], lambda t: t.pop('model'))
        self.variant('byte_fallback', lambda t: t['model'].update(byte_fallback=True))
        self.variant('continuing_subword_prefix', lambda t: t['model'].update(continuing_subword_prefix='##'))
        self.variant('end_of_word_suffix', lambda t: t['model'].update(end_of_word_suffix='< w>'))  # no byte is a space
        self.variant('end_of_word_suffix', lambda t: t['model'].update(end_of_word_suffix='w' * 65))
        self.variant('dropout', lambda t: t['model'].update(dropout=0.1))

    def test_normalizers(self):
        for kind in ('Nmt', 'ByteLevel', 'Strip', 'StripAccents', 'BertNormalizer', 'Precompiled', 'Other'):
            self.variant(['normalizer', kind], lambda t, kind=kind: t.update(normalizer={'type': kind}))
            several = {'type': 'Sequence', 'normalizers': [{'type': 'NFC'}, {'type': kind}]}
            self.variant(['normalizer', kind], lambda t, several=several: t.update(normalizer=several))
        regex = {'type': 'Replace', 'pattern': {'Regex': 'a*'}, 'content': 'b'}  # may match nothing
        self.variant('Replace', lambda t: t.update(normalizer=regex))

    def test_pre_tokenizers(self):
        for kind in ('FixedLength', 'BertPreTokenizer', 'CharDelimiterSplit', 'UnicodeScripts'):
            self.variant(kind, lambda t, kind=kind: t.update(pre_tokenizer={'type': kind}))
            self.variant(kind, lambda t, kind=kind: t['pre_tokenizer']['pretokenizers'].insert(0, {'type': kind}))
        self.variant('pre-tokenizer', lambda t: t.update(pre_tokenizer=None))
        self.variant('ByteLevel', lambda t: t['pre_tokenizer']['pretokenizers'].pop())
        for kind in ('Metaspace', 'BertPreTokenizer'):
            self.variant([], lambda t, kind=kind: t['pre_tokenizer']['pretokenizers'].append({'type': kind}))

    def test_splits(self):
        def split(names, **changes):
            self.variant(names, lambda t: t['pre_tokenizer']['pretokenizers'][0].update(changes), **changes)

        split('Sideways', behavior='Sideways')
        for pattern in ('(', '[', '*', r'\p{Nonsense}', '(?<!a+)b', r'a\Kb', ''):
            split([], pattern={'Regex': pattern})
        split([], pattern={'String': ''})
        split([], pattern={})
        split([], pattern=None)
        split([], pattern='x')

    def test_decoders_and_post_processors(self):
        for kind in ('WordPiece', 'BPEDecoder', 'CTC', 'Other'):
            self.variant(['decoder', kind], lambda t, kind=kind: t.update(decoder={'type': kind}))
        self.variant('decoder', lambda t: t.update(decoder={'type': 'Metaspace'}))  # after a ByteLevel pre-tokenizer
        self.variant('decoder', lambda t: t.update(decoder=None))
        for kind in ('BertProcessing', 'RobertaProcessing', 'Other'):
            self.variant(kind, lambda t, kind=kind: t.update(post_processor={'type': kind}))
        template = {'type': 'TemplateProcessing', 'single': [], 'special_tokens': {}}
        text, end = {'Sequence': {'id': 'A', 'type_id': 0}}, {'SpecialToken': {'id': 'end', 'type_id': 0}}
        for single in ([], [end], [text, text], [text, end], [text, {}], [5]):
            self.variant('template', lambda t, s=single: t.update(post_processor={**template, 'single': s}))
        for ids in ([], [322], [-1], ['300']):
            special = {'end': {'id': 'end', 'ids': ids, 'tokens': ['<|end|>']}}
            self.variant('template', lambda t, s=special: t.update(
                post_processor={**template, 'single': [text, end], 'special_tokens': s}))

    def test_vocabulary_and_merges(self):
        self.variant([], lambda t: t['model'].update(vocab={}) or t.update(added_tokens=[]))
        self.variant('0', lambda t: t['model']['vocab'].update(zz=0))
        for value in (322, -1, 1.5, '5', None, 2 ** 40):
            self.variant('zz', lambda t, value=value: t['model']['vocab'].update(zz=value))
        for merge in (['a', 'z'], ['zz', 'a'], ['a'], ['a', 'b', 'c'], 'a', 'a b c', 5, None, ['a', 5], ['a', ''], ['a', 'b']):
            self.variant('merge', lambda t, merge=merge: t['model']['merges'].append(merge))

    def test_added_tokens(self):
        for changes in ({'content': ''}, {'content': None}, {'id': None}, {'id': -1}, {'id': '300'}, {'id': 5}):
            self.variant('added token', lambda t, c=changes: t['added_tokens'][0].update(c))

    def test_not_json(self):
        for text in ('', '{', '[]', 'null', json.dumps(tokenizer())[:-1], '{"model":{},"model":{}}', '[' * 10000):
            with self.subTest(text[:60]):
                self.check(self.with_tokenizer(text), 'tokenizer.json')
        for text in ('', '{', '[]'):
            metadata = {**self.metadata, 'tokenizer.json': json.dumps(tokenizer()), 'tokenizer_config.json': text}
            with self.subTest(config=text):
                self.check(tools.build(self.tensors, metadata), 'tokenizer_config.json')

    def test_values_that_no_program_of_ours_holds(self):
        """Where they are used, the file and the field are named; test_convert has those that nobody needs."""
        for change, names in ((lambda t: t['model']['vocab'].update({'\0': 290}), 'model.vocab'),
                              (lambda t: t['model']['vocab'].update({'a\ud800': 290}), 'model.vocab'),
                              (lambda t: t['model']['vocab'].update({'zz': 10 ** 30}), 'model.vocab.zz'),
                              (lambda t: t['model']['merges'].append(['a', '\udc00']), 'model.merges'),
                              (lambda t: t['model'].update(byte_fallback=math.nan), 'model.byte_fallback'),
                              (lambda t: t['added_tokens'][0].update(content='<\0>'), 'added_tokens.content'),
                              (lambda t: t['added_tokens'][0].update(id=math.inf), 'added_tokens.id'),
                              (lambda t: t.update(normalizer={'type': 'Prepend', 'prepend': '\ud83d'}), 'normalizer.prepend')):
            self.variant(names, change)
        for key, value in (('bos_token', '\ud800'), ('eos_token', {'content': 'a\0b'}), ('chat_template', 'a\0b'),
                           ('chat_template', [{'name': 'default', 'template': '\udfff'}]), ('bos_token', math.nan),
                           ('chat_template', 10 ** 30)):
            metadata = {**self.metadata, 'tokenizer.json': json.dumps(tokenizer()), 'tokenizer_config.json': json.dumps({key: value})}
            with self.subTest(key, value=value):
                self.check(tools.build(self.tensors, metadata), ['tokenizer_config.json', key])
        metadata = {**self.metadata, 'tokenizer.json': json.dumps(tokenizer()), 'chat_template.jinja': 'a\0b'}
        self.check(tools.build(self.tensors, metadata), 'chat_template.jinja')

    def test_chat_template(self):
        def chat(**metadata):
            stream = tools.build(self.tensors, {**self.metadata, 'tokenizer.json': json.dumps(tokenizer()), **metadata})
            raw = self.ok('bnt-pack', input=stream, quiet=False)  # it may say that the template is none that it knows
            self.assertEqual(bntpy.verify(raw), [])
            return bntpy.read(raw).tokenizer.chat

        self.assertEqual(chat(), b'')
        several = [{'name': 'tool_use', 'template': 'no'}, {'name': 'default', 'template': 'yes'}]
        self.assertEqual(chat(**{'tokenizer_config.json': json.dumps({'chat_template': 'plain ä'})}), 'plain ä'.encode())
        self.assertEqual(chat(**{'tokenizer_config.json': json.dumps({'chat_template': several})}), b'yes')
        self.assertEqual(chat(**{'tokenizer_config.json': json.dumps({'chat_template': 'plain'}),
                                 'chat_template.jinja': 'of the file'}), b'of the file')


if __name__ == '__main__':
    tools.main()
