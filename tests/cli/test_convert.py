#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bnt-convert: what it writes, computed again in Python, and what it refuses."""
import hashlib
import json
import math
import os
import shutil
import struct
import unittest
from array import array

import tools
from tools import Case, FAIRY, MASTERS, NOT_FINITE, PACKED, PACKED_DIVIDE, Checkpoint, Tensor, converted, read

import container  # noqa: E402 (of tests/bntpy, where tools has pointed Python)
import floats  # noqa: E402
import ternary  # noqa: E402

PROVENANCE = 'bnt.provenance'
LINEAR = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj')


def is_linear(name):
    return name.endswith(tuple('.%s.weight' % linear for linear in LINEAR))


def is_norm(name):
    return 'norm' in name or name.endswith('inner_attn_ln.weight')


def values(tensor):
    """Any float tensor as Python floats, exactly."""
    if tensor.dtype == 'BF16':
        return floats.from_bf16(tensor.data)
    return list(struct.unpack('<%d%s' % (math.prod(tensor.shape), 'e' if tensor.dtype == 'F16' else 'f'), tensor.data))


def unpack_u8(tensor, rows):
    """Section "U8 packing" of transformers: row r sits in bits 2i, 2i + 1 of packed row r mod (rows / 4)."""
    quarter, cols = rows // 4, tensor.shape[1]
    assert tensor.shape[0] == quarter
    return b''.join(bytes(((code >> 2 * (r // quarter) & 3) - 1) & 255
                          for code in tensor.data[r % quarter * cols:(r % quarter + 1) * cols]) for r in range(rows))


class Stream(Case):
    """The stream is an ordinary safetensors file that holds what the checkpoint gives."""

    def check_whole(self, folder):
        """All that can be compared cheaply. Returns the stream's tensors and the checkpoint's."""
        checkpoint = Checkpoint(folder)
        metadata, tensors = tools.parse(converted(folder))  # header, tight offsets
        expected = set(checkpoint.tensors) | {PROVENANCE}
        expected |= {name + '_scale' for name in checkpoint.tensors if is_linear(name)}
        self.assertEqual(set(tensors), expected)
        for name, source in checkpoint.tensors.items():
            tensor = tensors[name]
            if is_linear(name):
                self.assertEqual(tensor.dtype, 'I8', name)
                self.assertEqual(tensor.data.translate(None, b'\xff\0\1'), b'', name)
                scale = tensors[name + '_scale']
                self.assertEqual((scale.dtype, scale.shape), ('F32', [1]), name)
                gamma, = values(scale)
                self.assertTrue(math.isfinite(gamma) and gamma > 0, name)
            elif name.endswith('_scale'):
                continue
            elif is_norm(name):
                self.assertEqual((tensor.dtype, tensor.shape), ('F32', source.shape), name)
                self.assertEqual(tensor.data, floats.float_bytes(values(source)), name)
            else:
                self.assertEqual(tensor, source, name)  # embeddings pass untouched
        self.assertEqual(metadata['bnt.ternary_checkpoint'], '1')
        return tensors, checkpoint.tensors

    def check_masters(self, tensors, sources, name):
        gamma, weights = ternary.ternarize(values(sources[name]))
        self.assertEqual(tensors[name].shape, sources[name].shape)
        self.assertEqual(values(tensors[name + '_scale']), [gamma], name)
        self.same(tensors[name].data, weights, name)

    def test_bf16_masters(self):
        tensors, sources = self.check_whole(FAIRY)
        for name in ('model.layers.0.self_attn.k_proj.weight', 'model.layers.5.self_attn.q_proj.weight',
                     'model.layers.3.mlp.down_proj.weight'):
            self.check_masters(tensors, sources, name)

    def test_f32_masters(self):
        tensors, sources = self.check_whole(MASTERS)
        for linear in LINEAR:
            self.check_masters(tensors, sources, next(n for n in sorted(sources) if linear + '.weight' in n))

    def test_synthetic_masters_of_every_type(self):
        for dtype in ('bf16', 'f16', 'f32'):
            with self.subTest(dtype):
                tensors, sources = self.check_whole(tools.synthetic(dtype=dtype))
                name = 'model.layers.1.mlp.up_proj.weight'
                self.assertEqual(sources[name].dtype, dtype.upper())
                self.check_masters(tensors, sources, name)

    def test_packed(self):
        for folder, divides in ((PACKED, False), (PACKED_DIVIDE, True), (tools.synthetic(form='packed'), False)):
            with self.subTest(os.path.basename(folder)):
                tensors, sources = self.check_whole(folder)
                for name in (n for n in sorted(sources) if n.startswith('model.layers.0') and is_linear(n)):
                    stored, = values(sources[name + '_scale'])
                    gamma = floats.f32(1 / stored) if divides else stored
                    self.assertEqual(values(tensors[name + '_scale']), [gamma], name)
                    rows = 4 * sources[name].shape[0]
                    self.assertEqual(tensors[name].shape, [rows, sources[name].shape[1]])
                    self.same(tensors[name].data, unpack_u8(sources[name], rows), name)

    def test_extremes_of_masters(self):
        """Ties, signed zeros, subnormals and a matrix of zeros, whose scale is the least there may be."""
        checkpoint = Checkpoint(tools.synthetic(dtype='f32'))
        q, k = checkpoint.name('q_proj.weight'), checkpoint.name('k_proj.weight')
        count = math.prod(checkpoint.tensors[q].shape)
        pattern = [0.5, -0.5, 1.5, -1.5, 0.0, -0.0, 1e-45, -1e-40, 0.50000006, 0.49999997, 1.0, -1.0, 2.0, -2.0, 3.0]
        numbers = [pattern[i % len(pattern)] for i in range(count)]
        checkpoint.tensors[q] = checkpoint.tensors[q]._replace(data=floats.float_bytes(numbers))
        checkpoint.tensors[k] = checkpoint.tensors[k]._replace(data=bytes(len(checkpoint.tensors[k].data)))
        _, tensors = tools.parse(self.ok('bnt-convert', checkpoint.save(self.path('in'))))
        self.check_masters(tensors, checkpoint.tensors, q)
        self.check_masters(tensors, checkpoint.tensors, k)
        self.assertEqual(values(tensors[k + '_scale']), [floats.f32(1e-5)])
        self.assertEqual(tensors[k].data, bytes(len(tensors[k].data)))

    def test_metadata_carries_the_small_files(self):
        metadata, _ = tools.parse(converted(FAIRY))
        for name in ('config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json'):
            self.assertEqual(metadata[name], read(FAIRY, name).decode('utf-8'), name)
        checkpoint = Checkpoint(tools.synthetic())
        checkpoint.texts['chat_template.jinja'] = '{{ "ä\\n\u2028😀" }}\n'.encode('utf-8')
        metadata, _ = tools.parse(self.ok('bnt-convert', checkpoint.save(self.path('in'))))
        self.assertEqual(metadata['chat_template.jinja'].encode('utf-8'), checkpoint.texts['chat_template.jinja'])
        self.assertNotIn('tokenizer.json', metadata)

    def provenance(self, folder):
        return json.loads(tools.parse(self.ok('bnt-convert', folder))[1][PROVENANCE].data.decode('utf-8'))

    def test_provenance(self):
        found = self.provenance(FAIRY)
        self.assertEqual((found['architecture'], found['license'], found['rounding'], found['repository'],
                          found['commit']), ('BitNetForCausalLM', 'cc0-1.0', 'half_even', None, None))
        self.assertRegex(found['converter'], r'^bnt-convert \d+\.\d+\.\d+$')
        self.assertIn('bf16', found['form'].lower())
        files = {'config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'README.md',
                 'model.safetensors'}
        self.assertEqual({source['file'] for source in found['sources']}, files)
        for source in found['sources']:
            raw = read(FAIRY, source['file'])
            self.assertEqual((source['size'], source['sha256']), (len(raw), hashlib.sha256(raw).hexdigest()))
        self.assertEqual(self.provenance(PACKED)['rounding'], 'stored')

    def test_provenance_of_a_snapshot_of_the_hub(self):
        commit = '0123456789abcdef0123456789abcdef01234567'
        for cache, name in (('models--some-org--a--b', 'some-org/a--b'), ('models--gpt', 'gpt')):
            folder = self.path(cache, 'snapshots', commit)
            Checkpoint(tools.synthetic()).save(folder)
            found = self.provenance(folder)
            self.assertEqual((found['repository'], found['commit']), (name, commit))
            self.assertEqual(self.provenance(os.path.join(folder, '')), found)  # with a slash at the end

    def test_license_of_the_model_card(self):
        checkpoint = Checkpoint(tools.synthetic())
        for card, expected in ((b'---\nlicense: mit\n---\n', 'mit'), (b'---\na: b\nlicense: "apache-2.0" # x\n---', 'apache-2.0'),
                               (b'license: mit\n', None), (b'---\nno\n---\nlicense: mit\n', None), (b'---\nlicense: mit', None),
                               (b'', None), (b'---\n', None)):
            checkpoint.texts['README.md'] = card
            self.assertEqual(self.provenance(checkpoint.save(self.path('in')))['license'], expected, card)


class Deterministic(Case):
    def test_same_bytes_with_any_threads_and_again(self):
        for folder in (FAIRY, MASTERS, PACKED, PACKED_DIVIDE):
            for jobs in ((), ('-j', '1'), ('-j', '2'), ('-j', '5'), ('--jobs=256',)):
                self.same(self.ok('bnt-convert', *jobs, folder), converted(folder), (folder, jobs))

    def test_same_bytes_from_a_copy_and_to_a_file(self):
        shutil.copytree(FAIRY, self.path('copy'), ignore=shutil.ignore_patterns('golden'))
        self.assertEqual(self.ok('bnt-convert', self.path('copy'), '-o', self.path('out')), b'')
        self.same(read(self.path('out')), converted(FAIRY))
        self.assertEqual(self.ok('bnt-convert', self.path('copy') + '/', '-o', self.path('out')), b'')  # replaces
        self.same(read(self.path('out')), converted(FAIRY))
        self.nothing_in(self.dir, ['copy', 'out'])
        umask = os.umask(0)
        os.umask(umask)
        self.assertEqual(os.stat(self.path('out')).st_mode & 0o777, 0o666 & ~umask)

    def test_relative_paths(self):
        Checkpoint(tools.synthetic()).save(self.path('in'))
        expected = converted(self.path('in'))
        self.same(self.ok('bnt-convert', '.', cwd=self.path('in')), expected)
        self.ok('bnt-convert', 'in', '-o', 'out', cwd=self.dir)
        self.same(read(self.path('out')), expected)


class Pipeline(Case):
    """Through bnt-pack and bnt-verify --source."""

    def pack(self, folder, name='out.bnt', *options):
        self.ok('bnt-pack', '-o', self.path(name), *options, input=self.ok('bnt-convert', folder))
        return self.path(name)

    def test_every_form_and_type(self):
        made = [('masters', 'bf16'), ('masters', 'f16'), ('masters', 'f32'), ('packed', 'bf16')]
        folders = [tools.synthetic(form=form, dtype=dtype) for form, dtype in made]
        for folder in folders + [FAIRY, MASTERS, PACKED, PACKED_DIVIDE]:
            with self.subTest(os.path.basename(folder)):
                path = self.pack(folder)
                self.assertEqual(self.ok('bnt-verify', path), b'')
                self.assertEqual(self.ok('bnt-verify', path, '--source', folder), b'')

    def test_one_type_of_weights_more_or_less(self):
        """Types may be mixed within a checkpoint: a bf16 norm, an f16 matrix, f32 elsewhere."""
        checkpoint = Checkpoint(tools.synthetic(dtype='f32'))
        half, bf16 = Checkpoint(tools.synthetic(dtype='f16')), Checkpoint(tools.synthetic(dtype='bf16'))
        checkpoint.tensors[half.name('q_proj.weight')] = half.tensors[half.name('q_proj.weight')]
        checkpoint.tensors['model.norm.weight'] = bf16.tensors['model.norm.weight']
        folder = checkpoint.save(self.path('in'))
        self.assertEqual(self.ok('bnt-verify', self.pack(folder), '--source', folder), b'')

    def check_shards(self, source, count):
        folder = Checkpoint(source).save_shards(self.path('shards-%d' % count), count)
        whole, sharded = tools.parse(converted(source)), tools.parse(self.ok('bnt-convert', folder))
        for tensors in (whole[1], sharded[1]):
            del tensors[PROVENANCE]
        self.assertEqual(sharded[0], {**whole[0], 'config.json': read(folder, 'config.json').decode()})
        self.assertEqual(list(sharded[1]), list(whole[1]))
        for name in whole[1]:
            self.assertEqual(sharded[1][name], whole[1][name], name)
        path = self.pack(folder)
        self.assertEqual(self.ok('bnt-verify', path, '--source', folder), b'')
        raw, expected = read(path), read(tools.packed(source))
        sections = {container.name(r): container.body(expected, r) for r in container.records(expected)}
        for record in container.records(raw):
            if container.name(record) != 'PROV':
                self.same(container.body(raw, record), sections[container.name(record)], container.name(record))
        names = [source['file'] for source in self.provenance(raw)['sources']]
        self.assertEqual(sum(name.startswith('model-0') for name in names), count)
        self.assertIn('model.safetensors.index.json', names)

    def provenance(self, raw):
        record = next(r for r in container.records(raw) if container.name(r) == 'PROV')
        return json.loads(container.body(raw, record).decode('utf-8'))

    def test_shards(self):
        self.check_shards(FAIRY, 3)
        self.check_shards(PACKED_DIVIDE, 5)
        self.check_shards(PACKED, 1)

    def test_shards_of_bnt_synth(self):
        whole, sharded = tools.synthetic(), tools.synthetic(shards=4)
        a, b = tools.parse(converted(whole))[1], tools.parse(converted(sharded))[1]
        for tensors in (a, b):
            del tensors[PROVENANCE]
        self.assertEqual(a, b)

    def test_embedding_repeated_as_output(self):
        """Some tied checkpoints do that; another output would contradict the config."""
        checkpoint = Checkpoint(tools.synthetic())
        checkpoint.tensors['lm_head.weight'] = checkpoint.tensors['model.embed_tokens.weight']
        folder = checkpoint.save(self.path('in'))
        self.assertEqual(self.ok('bnt-verify', self.pack(folder), '--source', folder), b'')
        checkpoint.patch('lm_head.weight', 5, b'\0\0')
        self.refused('bnt-convert', checkpoint.save(self.path('in')), names=['lm_head.weight', self.path('in')])

    def test_rotary_buffers_of_old_exports(self):
        checkpoint = Checkpoint(tools.synthetic())
        checkpoint.tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = Tensor('F32', [8], bytes(32))
        folder = checkpoint.save(self.path('in'))
        self.assertEqual(self.ok('bnt-verify', self.pack(folder), '--source', folder), b'')

    def test_config_of_a_newer_transformers(self):
        checkpoint = Checkpoint(tools.synthetic())
        expected = read(self.pack(checkpoint.save(self.path('in'))))
        checkpoint.config['rope_parameters'] = {'rope_theta': checkpoint.config.pop('rope_theta'), 'rope_type': 'default'}
        raw = read(self.pack(checkpoint.save(self.path('in'))))
        hyper = [container.body(x, container.records(x)[0]) for x in (raw, expected)]
        self.assertEqual(hyper[0], hyper[1])


class NotTernary(Case):
    def test_force(self):
        checkpoint = Checkpoint(tools.synthetic())
        del checkpoint.config['quantization_config']
        folder = checkpoint.save(self.path('in'))
        self.refused('bnt-convert', folder, names=[folder, '--force'])
        self.refused('bnt-convert', folder, '-o', self.path('out'), names=[folder, '--force'])
        self.nothing_in(self.dir, ['in'])
        done = tools.run('bnt-convert', '--force', folder)
        self.assertEqual(done.code, 0)
        matrices = [name for name in checkpoint.tensors if is_linear(name)]
        lines = done.err.splitlines()
        self.assertEqual(len(lines), len(matrices))
        for name in matrices:
            line = next(line for line in lines if name in line)
            self.assertTrue(line.startswith('bnt-convert: '), line)
            reported = float(line.split(' matrix ')[1].split(',')[0])
            gamma, weights = ternary.ternarize(values(checkpoint.tensors[name]))
            masters = values(checkpoint.tensors[name])
            difference = math.fsum((w - q * gamma) ** 2 for w, q in zip(masters, array('b', weights)))
            self.assertAlmostEqual(reported, math.sqrt(difference / math.fsum(w * w for w in masters)), 3)
        expected = tools.parse(converted(tools.synthetic()))[1]
        found = tools.parse(done.out)[1]
        self.assertEqual({**found, PROVENANCE: None}, {**expected, PROVENANCE: None})

    def test_llama_without_quantization(self):
        checkpoint = Checkpoint(PACKED_DIVIDE)
        checkpoint.config['quantization_config'] = None
        self.refused('bnt-convert', checkpoint.save(self.path('in')), names=self.path('in'))


class Refused(Case):
    """Each: exit 1, one line that names the checkpoint or its file, nothing on standard output and no file."""

    def check(self, folder, names=(), early=True):
        """early: before anything is written; otherwise the stream on standard output is cut short, and bnt-pack and
        every reader of safetensors refuses it."""
        names = [folder] + ([names] if isinstance(names, str) else list(names))
        out = self.path('out')
        self.refused('bnt-convert', folder, names=names, partial=not early)
        self.refused('bnt-convert', folder, '-o', out, names=names)
        self.assertFalse(os.path.exists(out))
        self.nothing_in(self.dir, ['in'] if os.path.exists(self.path('in')) else [])
        if not early:
            stream = tools.run('bnt-convert', folder).out
            self.assertTrue(tools.run('bnt-pack', '-o', out, input=stream).code)
            self.nothing_in(self.dir, ['in'])

    def config(self, source, names, **changes):
        """A config with members changed, or (value None: ...) removed."""
        checkpoint = Checkpoint(source)
        for key, value in changes.items():
            if value is ...:
                checkpoint.config.pop(key)
            else:
                checkpoint.config[key] = value
        with self.subTest(**changes):
            self.check(checkpoint.save(self.path('in')), names)

    def quantization(self, source, names, **changes):
        checkpoint = Checkpoint(source)
        self.config(source, names, quantization_config={**checkpoint.config['quantization_config'], **changes})

    def test_quantization(self):
        tiny = tools.synthetic()
        self.quantization(tiny, ['linear_class', 'otherlinear'], linear_class='otherlinear')
        self.quantization(tiny, ['quant_method', 'gptq'], quant_method='gptq')
        self.quantization(tiny, 'quant_method', quant_method=None)
        self.quantization(tiny, ['quantization_mode', 'sideways'], quantization_mode='sideways')
        self.quantization(tiny, 'q_proj.rms_norm.weight', use_rms_norm=True)  # which it does not have
        self.quantization(tiny, 'modules_to_not_convert', modules_to_not_convert=['model.layers.0.mlp.up_proj'])
        self.quantization(tiny, 'modules_to_not_convert', modules_to_not_convert='lm_head')
        self.quantization(tiny, 'weight_scale', quantization_mode='offline')  # says packed, but has masters
        self.quantization(PACKED, 'BF16', quantization_mode='online')  # and the reverse
        self.config(MASTERS, 'weight_bits', weight_bits=2)
        self.config(MASTERS, 'weight_bits', weight_bits='1')
        self.quantization(tiny, 'u0000', linear_class='autobitlinear\0x')  # not what C sees of it
        self.quantization(tiny, 'u0000', quant_method='bitnet\0x')

    def test_architecture(self):
        tiny = tools.synthetic()
        self.config(tiny, ['architecture', 'MambaForCausalLM'], architectures=['MambaForCausalLM'])
        for value in ([], ['BitNetForCausalLM'] * 2, 'BitNetForCausalLM', [1], ...):
            self.config(tiny, 'architectures', architectures=value)
        self.config(tiny, ['hidden_act', 'gelu'], hidden_act='gelu')
        for flag in ('attention_bias', 'mlp_bias', 'use_qk_norm', 'use_sliding_window'):
            self.config(tiny, flag, **{flag: True})
        self.config(tiny, 'partial_rotary_factor', partial_rotary_factor=0.5)
        self.config(tiny, ['rope_type', 'dynamic'], rope_scaling={'rope_type': 'dynamic', 'factor': 4})
        self.config(tiny, ['rope_type', 'longrope'], rope_scaling={'type': 'longrope', 'factor': 2})
        self.config(tiny, 'rope_factor', rope_scaling={'rope_type': 'yarn'})
        self.config(tiny, 'rope_factor', rope_scaling={'type': 'linear', 'factor': -2})
        self.config(tiny, 'rope_parameters', rope_parameters={'full_attention': {'rope_theta': 5e5},
                                                              'sliding_attention': {'rope_theta': 1e4}})

    def test_numbers_of_the_config(self):
        tiny = tools.synthetic()
        for key in ('num_hidden_layers', 'hidden_size', 'intermediate_size', 'num_attention_heads', 'vocab_size'):
            for value in (..., -1, 0, 2 ** 31, 2 ** 40, 10 ** 30, 1.5, '64', None, [], 4097 * 4096):
                self.config(tiny, (), **{key: value})
        for value in (0, -1, 3, 5, 10 ** 30):
            self.config(tiny, (), num_key_value_heads=value)
        for value in (0, 3, 1, -2, 2 ** 22):
            self.config(tiny, (), head_dim=value)
        for value in (0, -1e-5, 'x', 1e39, 1e-60, None, ...):
            self.config(tiny, (), rms_norm_eps=value)
        for value in (0, -1.0, 'x'):
            self.config(tiny, (), rope_theta=value)
        for value in (-1, 256, 'x', 1.5, 2 ** 32, 10 ** 30):
            self.config(tiny, 'bos_token_id', bos_token_id=value)
        for value in ('x', 1.5, 10 ** 30):
            self.config(tiny, 'eos_token_id', eos_token_id=value)
        self.config(tiny, 'eos_token_id', eos_token_id=list(range(9)))
        self.config(tiny, (), max_position_embeddings=0)

    def test_generation_config(self):
        checkpoint = Checkpoint(tools.synthetic())
        for text in (b'{', b'[]', b'{"do_sample": true, "temperature": -1}', b'{"do_sample": true, "top_p": 0}',
                     b'{"do_sample": true, "temperature": "hot"}', b'{"eos_token_id": 1e400}'):
            checkpoint.texts['generation_config.json'] = text
            folder = checkpoint.save(self.path('in'))
            with self.subTest(text):
                out = self.path('out')
                self.refused('bnt-convert', folder, names='config.json')
                self.refused('bnt-convert', folder, '-o', out)
                self.nothing_in(self.dir, ['in'])

    def test_tensor_missing(self):
        for source, endings in ((tools.synthetic(), ('embed_tokens.weight', 'q_proj.weight', 'down_proj.weight', 'model.norm.weight',
                                                     'input_layernorm.weight', 'attn_sub_norm.weight', 'ffn_sub_norm.weight')),
                                (PACKED, ('q_proj.weight', 'q_proj.weight_scale')),
                                (PACKED_DIVIDE, ('lm_head.weight', 'up_proj.weight_scale')),
                                (MASTERS, ('inner_attn_ln.weight', 'ffn_layernorm.weight'))):
            for ending in endings:
                checkpoint = Checkpoint(source)
                name = checkpoint.name(ending)
                del checkpoint.tensors[name]
                with self.subTest(name):
                    self.check(checkpoint.save(self.path('in')), name)

    def test_tensor_too_many(self):
        for name in ('extra', 'model.layers.2.mlp.up_proj.weight', 'model.layers.0.self_attn.q_proj.bias',
                     'model.layers.0.mlp.up_proj.weight_scale', 'model.layers.0.self_attn.q_norm.weight'):
            checkpoint = Checkpoint(tools.synthetic())
            checkpoint.tensors[name] = Tensor('BF16', [2], bytes(4))
            with self.subTest(name):
                self.check(checkpoint.save(self.path('in')), name)

    def test_names_with_control_characters(self):
        checkpoint = Checkpoint(tools.synthetic())
        checkpoint.tensors['two\nlines\x1b[31m'] = Tensor('BF16', [2], bytes(4))
        self.check(checkpoint.save(self.path('in')), 'two')
        checkpoint = Checkpoint(tools.synthetic())
        checkpoint.config['hidden_act'] = 'a\nb\x1b[1m\x7f'
        self.check(checkpoint.save(self.path('in')), 'hidden_act')

    def shape(self, source, ending, change, dtype=None):
        checkpoint = Checkpoint(source)
        name = checkpoint.name(ending)
        old = checkpoint.tensors[name]
        shape = change(old.shape)
        size = tools.ITEM_SIZE[dtype or old.dtype] * math.prod(shape)
        checkpoint.tensors[name] = Tensor(dtype or old.dtype, shape, bytes(size))
        with self.subTest(name, shape=shape, dtype=dtype):
            self.check(checkpoint.save(self.path('in')), name)

    def test_shapes_and_types(self):
        tiny = tools.synthetic()
        for ending in ('q_proj.weight', 'k_proj.weight', 'down_proj.weight', 'embed_tokens.weight', 'model.norm.weight'):
            self.shape(tiny, ending, lambda s: [s[0] + 1] + s[1:])
            self.shape(tiny, ending, lambda s: s[:-1] + [s[-1] - 1])
            self.shape(tiny, ending, lambda s: [1] + s)
            self.shape(tiny, ending, lambda s: s + [1])
            self.shape(tiny, ending, lambda s: [])
            self.shape(tiny, ending, lambda s: s, 'I8')
            self.shape(tiny, ending, lambda s: s, 'F64')
        self.shape(tiny, 'k_proj.weight', lambda s: s[::-1])
        self.shape(tiny, 'q_proj.weight', lambda s: [s[0] * s[1]])
        self.shape(tiny, 'q_proj.weight', lambda s: [0] + s[1:])
        self.shape(PACKED, 'q_proj.weight', lambda s: [s[0] * 4, s[1]])
        self.shape(PACKED, 'q_proj.weight', lambda s: s, 'I8')
        self.shape(PACKED, 'q_proj.weight_scale', lambda s: [2])
        self.shape(PACKED, 'q_proj.weight_scale', lambda s: s, 'I32')

    def test_values_that_are_not_finite(self):
        for dtype in ('bf16', 'f16', 'f32'):
            for ending in ('k_proj.weight', 'down_proj.weight', 'input_layernorm.weight', 'model.norm.weight',
                           'embed_tokens.weight'):
                for index, value in zip((0, 37, -1), NOT_FINITE[dtype.upper()]):
                    checkpoint = Checkpoint(tools.synthetic(dtype=dtype))
                    name = checkpoint.patch(ending, index, value)
                    element = index if index >= 0 else math.prod(checkpoint.tensors[name].shape) - 1
                    with self.subTest(dtype, name=name, index=index):
                        self.check(checkpoint.save(self.path('in')), [name, 'element %d ' % element], early=False)

    def test_packed_code_3(self):
        for source in (PACKED, PACKED_DIVIDE):
            for index, value in ((0, b'\3'), (-1, b'\xc0'), (1000, b'\x0c'), (77, b'\x30'), (5, b'\xff')):
                checkpoint = Checkpoint(source)
                name = checkpoint.patch('layers.1.mlp.gate_proj.weight', index, value)
                with self.subTest(name, value=value):
                    self.check(checkpoint.save(self.path('in')), name, early=False)

    def test_weight_scale(self):
        for source in (PACKED, PACKED_DIVIDE):
            for value in NOT_FINITE['BF16'] + [b'\0\0', b'\0\x80', b'\x80\xbf']:  # 0, -0, -1
                checkpoint = Checkpoint(source)
                name = checkpoint.patch('layers.0.mlp.down_proj.weight_scale', 0, value)
                with self.subTest(name, value=value):
                    self.check(checkpoint.save(self.path('in')), name, early=False)
        checkpoint = Checkpoint(PACKED_DIVIDE)
        name = checkpoint.patch('q_proj.weight_scale', 0, b'\1\0')  # the least bf16: its inverse is no float
        self.check(checkpoint.save(self.path('in')), name, early=False)

    def test_truncated_safetensors(self):
        for source in (tools.synthetic(), PACKED_DIVIDE):
            checkpoint = Checkpoint(source)
            raw = read(source, 'model.safetensors')
            header, = struct.unpack_from('<Q', raw)
            for size in (0, 1, 7, 8, 9, 8 + header // 2, 7 + header, 8 + header, 9 + header, len(raw) // 2, len(raw) - 1):
                with self.subTest(size=size):
                    self.check(checkpoint.save(self.path('in'), raw[:size]), 'model.safetensors')
            self.check(checkpoint.save(self.path('in'), raw + b'\0'), 'model.safetensors')

    def test_hostile_safetensors(self):
        checkpoint = Checkpoint(tools.synthetic())
        name, data = 'model.norm.weight', b''.join(t.data for t in checkpoint.tensors.values())

        def member(**changes):
            return lambda header: header[name].update(changes)

        begin, end = json.loads(tools.head(checkpoint.tensors)[8:])[name]['data_offsets']
        changes = {
            'overlap': member(data_offsets=[begin - 2, end - 2]), 'hole': member(data_offsets=[begin + 2, end + 2]),
            'beyond the end': member(data_offsets=[len(data), len(data) + end - begin]),
            'reversed': member(data_offsets=[end, begin]), 'negative': member(data_offsets=[-2, end - begin - 2]),
            'fraction': member(data_offsets=[float(begin), end]), 'one offset': member(data_offsets=[begin]),
            'no offsets': member(data_offsets=None), 'huge': member(data_offsets=[begin, 2 ** 63 - 1]),
            'over 64 bits': member(data_offsets=[begin, 2 ** 64 + end]),
            'overflow': member(shape=[2 ** 32, 2 ** 32]), 'overflow to the size': member(shape=[2 ** 62 + 32, 4]),
            'negative shape': member(shape=[-64]), 'no shape': member(shape=None), 'shape of text': member(shape=['64']),
            'rank 9': member(shape=[1] * 8 + [64]), 'dtype': member(dtype='BF17'), 'no dtype': member(dtype=None),
            'no object': lambda header: header.update({name: 5}),
        }
        for title, change in changes.items():
            with self.subTest(title):
                folder = checkpoint.save(self.path('in'), build_raw(checkpoint.tensors, data, change))
                self.check(folder, ['model.safetensors', name])
        text = tools.head(checkpoint.tensors)[8:]
        for title, header in (('not JSON', b'x' + text[1:]), ('array', b'[]'), ('empty', b''), ('open', text.rstrip()[:-1]),
                              ('twice', text.rstrip()[:-1] + b',"%s":{}}' % name.encode()), ('not UTF-8', b'{"\xff":1}'),
                              ('deep', b'{"a":' + b'[' * 5000 + b']' * 5000 + b'}')):
            with self.subTest(title):
                raw = struct.pack('<Q', len(header)) + header + data
                self.check(checkpoint.save(self.path('in'), raw), 'model.safetensors')
        for size in (100 * 1000 * 1000 + 1, 2 ** 31, 2 ** 63, 2 ** 64 - 1, 2 ** 64 - 8):
            with self.subTest(header=size):
                self.check(checkpoint.save(self.path('in'), struct.pack('<Q', size) + text + data), 'model.safetensors')

    def test_index(self):
        checkpoint = Checkpoint(tools.synthetic())
        name = 'model.norm.weight'
        for shard in ('/etc/passwd', '../model.safetensors', 'sub/model.safetensors', '..', '.', '', '.hidden', './x', None, 5, {},
                      os.path.join(tools.synthetic(), 'model.safetensors'), 'a' * 300 + '.safetensors', 'x\0y.safetensors'):
            with self.subTest(shard=shard):
                folder = checkpoint.save_shards(self.path('in'), 2, lambda index: index['weight_map'].update({name: shard}))
                self.check(folder, 'index.json')
        cases = {
            'missing shard': lambda index: index['weight_map'].update({name: 'absent.safetensors'}),
            'no map': lambda index: index.pop('weight_map'), 'empty map': lambda index: index.update(weight_map={}),
            'map is an array': lambda index: index.update(weight_map=[]), 'map is text': lambda index: index.update(weight_map='x'),
        }
        for title, change in cases.items():
            with self.subTest(title):
                self.check(checkpoint.save_shards(self.path('in'), 2, change))
        shutil.rmtree(self.path('in'))
        for text in (b'', b'{', b'[]', b'\xff'):
            folder = checkpoint.save_shards(self.path('in'), 2)
            tools.write(os.path.join(folder, 'model.safetensors.index.json'), text)
            self.refused('bnt-convert', folder, names='model.safetensors.index.json')
        folder = checkpoint.save_shards(self.path('in'), 2)
        os.remove(os.path.join(folder, 'model-00002-of-00002.safetensors'))
        self.check(folder, 'model-00002-of-00002.safetensors')
        os.mkdir(os.path.join(folder, 'model-00002-of-00002.safetensors'))
        self.check(folder, 'model-00002-of-00002.safetensors')

    def test_tensor_in_two_shards_that_differ(self):
        folder = two_shards(Checkpoint(tools.synthetic()), self.path('in'), 'model.norm.weight', b'\0\0')
        self.check(folder, ['model.norm.weight', 'model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'])

    def test_config_file(self):
        checkpoint = Checkpoint(tools.synthetic())
        folder = checkpoint.save(self.path('in'))
        good = read(folder, 'config.json')
        for text in (b'', b'{', b'[]', b'null', b'"x"', b'\xef\xbb\xbf' + good, good + b'}', good[:-1], good.replace(b'64', b'064'),
                     b'\xff\xfe' + good, good.replace(b'relu2', b'\xff'), b'[' * 100000, b'{"a":' * 100000,
                     good.replace(b'"relu2"', b'"re\nlu2"'), good.replace(b'"relu2"', b'NaN')):
            with self.subTest(text[:60]):
                tools.write(os.path.join(folder, 'config.json'), text)
                self.check(folder, 'config.json')
        tools.write(os.path.join(folder, 'config.json'), good + b' ' * (1 << 20))
        self.check(folder, 'config.json')
        os.remove(os.path.join(folder, 'config.json'))
        self.check(folder, 'config.json')
        os.mkdir(os.path.join(folder, 'config.json'))
        self.check(folder, 'config.json')
        os.rmdir(os.path.join(folder, 'config.json'))
        os.symlink('/dev/zero', os.path.join(folder, 'config.json'))
        self.check(folder, 'config.json')

    def test_small_files(self):
        checkpoint = Checkpoint(tools.synthetic())
        for name, size in (('generation_config.json', 1), ('tokenizer_config.json', 16), ('chat_template.jinja', 1),
                           ('README.md', 4), ('model.safetensors.index.json', 16), ('tokenizer.json', 64)):
            folder = checkpoint.save(self.path('in'))
            if 'index' in name:
                os.remove(os.path.join(folder, 'model.safetensors'))  # which comes before it
            path = os.path.join(folder, name)
            with open(path, 'wb') as file:
                file.truncate((size << 20) + 1)  # a hole: costs nothing
            with self.subTest(name):
                self.check(folder, name)
                os.remove(path)
                os.mkdir(path)
                self.check(folder, name)
            os.rmdir(path)
        for name in ('tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'):  # carried as texts
            for text in (b'a\xffb', b'a\0b'):
                folder = checkpoint.save(self.path('in'))
                path = tools.write(os.path.join(folder, name), text)
                with self.subTest(name, text=text):
                    self.refused('bnt-convert', folder, names=name)
                os.remove(path)

    def test_folder(self):
        folder = Checkpoint(tools.synthetic()).save(self.path('in'))
        self.check(os.path.join(folder, 'absent'))
        self.check(os.path.join(folder, 'config.json'))
        self.check(self.path('in', 'x' * 300))
        os.remove(os.path.join(folder, 'model.safetensors'))
        self.check(folder, 'model.safetensors')
        os.mkdir(os.path.join(folder, 'model.safetensors'))
        self.check(folder, 'model.safetensors')
        shutil.rmtree(folder)
        os.mkdir(folder)
        self.check(folder, 'config.json')


class Named(Case):
    """Mistakes that people make are called by their name."""

    def test_pointers_of_git_lfs(self):
        pointer = (b'version https://git-lfs.github.com/spec/v1\noid sha256:' + b'0' * 64 + b'\nsize 12345678\n')
        for name in ('config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json',
                     'chat_template.jinja', 'model.safetensors'):
            checkpoint = Checkpoint(tools.synthetic())
            folder = checkpoint.save(self.path('in'))
            tools.write(os.path.join(folder, name), pointer)
            with self.subTest(name):
                self.refused('bnt-convert', folder, names=[os.path.join(folder, name), 'Git LFS', 'git lfs pull'])
            shutil.rmtree(folder)
        folder = checkpoint.save_shards(self.path('in'), 2)
        tools.write(os.path.join(folder, 'model-00002-of-00002.safetensors'), pointer)
        self.refused('bnt-convert', folder, names=['model-00002-of-00002.safetensors', 'git lfs pull'])
        tools.write(os.path.join(folder, 'model.safetensors.index.json'), pointer)
        self.refused('bnt-convert', folder, names=['model.safetensors.index.json', 'git lfs pull'])
        self.refused('bnt-pack', input=pointer, names=['standard input', 'git lfs pull'])
        for tool in ('bnt-info', 'bnt-verify', 'bnt-run'):
            self.refused(tool, self.file('m.bnt', pointer), *['-p', 'a'] * (tool == 'bnt-run'),
                         names=['m.bnt', 'git lfs pull'])

    def test_files_of_other_kinds(self):
        gguf = b'GGUF' + struct.pack('<IQQ', 3, 0, 0) + bytes(8000)
        folder = Checkpoint(tools.synthetic()).save(self.path('in'))
        whole = os.path.join(folder, 'model.safetensors')
        self.refused('bnt-convert', self.file('m.gguf', gguf), names=['m.gguf', 'GGUF'])
        self.refused('bnt-convert', whole, names=[whole, 'not a checkpoint folder'])
        self.refused('bnt-convert', tools.packed(MASTERS), names='.bnt file')
        self.refused('bnt-pack', self.path('m.gguf'), names=['m.gguf', 'GGUF'])
        self.refused('bnt-pack', tools.packed(MASTERS), names='.bnt file, packed already')
        for tool in ('bnt-info', 'bnt-verify', 'bnt-run'):
            for path, word in ((self.path('m.gguf'), 'GGUF'), (whole, 'bnt-pack'),
                               (self.file('m.html', b'<!DOCTYPE html>\n<html>'), 'web page')):
                self.refused(tool, path, *['-p', 'a'] * (tool == 'bnt-run'), names=[path, 'not a .bnt file', word])
        tools.write(whole, gguf)
        self.refused('bnt-convert', folder, names=[whole, 'GGUF'])
        os.rename(whole, os.path.join(folder, 'pytorch_model.bin'))
        self.file('in/training_args.bin')
        self.refused('bnt-convert', folder, names=['model.safetensors', 'pytorch_model.bin is not read'])
        os.rename(self.path('m.gguf'), os.path.join(folder, 'm-Q4_0.gguf'))
        self.refused('bnt-convert', folder, names=['model.safetensors', 'm-Q4_0.gguf is not read'])
        os.remove(os.path.join(folder, 'config.json'))
        self.refused('bnt-convert', folder, names=['config.json', 'm-Q4_0.gguf is not read'])

    def test_byte_order_mark(self):
        checkpoint = Checkpoint(tools.synthetic())
        checkpoint.texts['generation_config.json'] = b'\xef\xbb\xbf{}'
        self.refused('bnt-convert', checkpoint.save(self.path('in')), names=['generation_config.json', 'byte-order mark'])

    def test_similar_names(self):
        checkpoint = Checkpoint(tools.synthetic())
        tensors = dict(checkpoint.tensors)
        for change, missing, similar in (
                (lambda name: name.replace('.q_proj', '.query'), 'layers.0.self_attn.q_proj.weight', 'layers.0.self_attn.query.weight'),
                (lambda name: name + '.data', 'layers.0.input_layernorm.weight', 'layers.0.input_layernorm.weight.data'),
                (lambda name: 'module.' * ('norm' not in name) + name, 'model.layers.0', 'module.model.layers.0'),
                (lambda name: name.replace('layers', 'blocks'), 'model.layers.0', 'model.blocks.0')):
            checkpoint.tensors = {change(name): tensor for name, tensor in tensors.items()}
            text = self.refused('bnt-convert', checkpoint.save(self.path('in')), names=[missing])
            self.assertIn(similar, text.split('similar names here: ')[1])
        checkpoint.tensors = dict(list(tensors.items())[:-1])
        self.assertNotIn('similar', self.refused('bnt-convert', checkpoint.save(self.path('in'))))  # others' names are no help


class AsTransformers(Case):
    """What transformers reads is read, and gives what it gives there. None of it changes a tensor of the stream."""

    def same_as(self, expected, folder):
        """The same tensors, and a .bnt file that is what its checkpoint gives."""
        stream = self.ok('bnt-convert', folder)
        tensors = [tools.parse(raw)[1] for raw in (stream, converted(expected))]
        for one in tensors:
            del one[PROVENANCE]
        self.assertEqual(list(tensors[0].items()), list(tensors[1].items()))
        done = tools.run('bnt-pack', '-o', self.path('out.bnt'), input=stream)
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(self.ok('bnt-verify', self.path('out.bnt'), '--source', folder), b'')
        shutil.rmtree(folder)
        return done.err

    def hyper(self):
        raw = read(self.path('out.bnt'))
        return container.body(raw, container.records(raw)[0])

    def test_whole_file_before_an_index(self):
        checkpoint, other = Checkpoint(tools.synthetic()), Checkpoint(tools.synthetic(seed=5))
        for text in (None, b'{', b'{"weight_map": {"a": "absent.safetensors"}}'):
            folder = other.save_shards(self.path('in'), 2)
            if text:
                tools.write(os.path.join(folder, 'model.safetensors.index.json'), text)
            checkpoint.save(folder)
            found = json.loads(tools.parse(self.ok('bnt-convert', folder))[1][PROVENANCE].data.decode())
            self.assertEqual({s['file'] for s in found['sources'] if 'model' in s['file']}, {'model.safetensors'})
            self.same_as(tools.synthetic(), folder)

    def test_index_that_is_not_exact(self):
        checkpoint = Checkpoint(tools.synthetic())
        name, more = 'model.norm.weight', 'model.layers.7.mlp.up_proj.weight'

        def swap(index):
            shards = sorted(set(index['weight_map'].values()))
            index['weight_map'] = {k: shards[v == shards[0]] for k, v in index['weight_map'].items()}
        for change in (lambda index: index['weight_map'].pop(name),
                       lambda index: index['weight_map'].update({more: index['weight_map'][name]}),
                       lambda index: index['weight_map'].update({name: next(
                           shard for shard in index['weight_map'].values() if shard != index['weight_map'][name])}),
                       swap, lambda index: index.pop('metadata'),
                       lambda index: index['metadata'].update(total_size=10 ** 30, loss=math.nan)):
            self.same_as(tools.synthetic(), checkpoint.save_shards(self.path('in'), 2, change))
        checkpoint.tensors[more] = Tensor('BF16', [2], bytes(4))  # not the model's, and not in the index
        self.same_as(tools.synthetic(), checkpoint.save_shards(self.path('in'), 2, lambda index: index['weight_map'].pop(more)))
        self.same_as(tools.synthetic(), two_shards(Checkpoint(tools.synthetic()), self.path('in'), name))

    def test_prefixes(self):
        for source in (tools.synthetic(), PACKED_DIVIDE, MASTERS):
            for prefix in ('_orig_mod.', 'module.', 'language_model.', 'model.', '_orig_mod.module.', 'module._orig_mod.', ''):
                checkpoint = Checkpoint(source)
                checkpoint.tensors = {prefix + name: tensor for name, tensor in checkpoint.tensors.items()}
                with self.subTest(prefix):
                    self.same_as(source, checkpoint.save(self.path('in')))
                    checkpoint.tensors = {name.replace('model.', '', name.startswith('model.')): tensor
                                          for name, tensor in Checkpoint(source).tensors.items()}
                    self.same_as(source, checkpoint.save(self.path('in')))  # of the model without its output layer
        checkpoint = Checkpoint(PACKED_DIVIDE)
        checkpoint.tensors = {'module.' + name: tensor for name, tensor in checkpoint.tensors.items()}
        self.same_as(PACKED_DIVIDE, checkpoint.save_shards(self.path('in'), 3))

    def test_prefixes_that_are_no_wrappers(self):
        for prefix in ('other.', 'model', 'xmodule.', 'module'):
            checkpoint = Checkpoint(tools.synthetic())
            checkpoint.tensors = {prefix + name: tensor for name, tensor in checkpoint.tensors.items()}
            self.refused('bnt-convert', checkpoint.save(self.path('in')), names=['missing', prefix + 'model.'])

    def test_unpacked_weights(self):
        """autobitlinear, offline: floats of -1, 0, +1 beside their weight_scale."""
        source = Checkpoint(PACKED)
        for dtype, size in (('BF16', 2), ('F16', 2), ('F32', 4)):
            checkpoint = Checkpoint(PACKED)
            codes = {code: tools.float_bytes(dtype, code - 256 if code > 1 else code) for code in (255, 0, 1)}
            for name in [n for n in source.tensors if is_linear(n)][:None if dtype == 'BF16' else 3]:  # or some of them
                rows, cols = source.tensors[name].shape
                data = b''.join(codes[c] for c in unpack_u8(source.tensors[name], 4 * rows))
                checkpoint.tensors[name] = Tensor(dtype, [4 * rows, cols], data)
            self.same_as(PACKED, checkpoint.save(self.path('in')))
            for value in (0.5, 2.0, -3.0, math.inf):
                last = tools.float_bytes(dtype, value)
                checkpoint.tensors[name] = tools.patch(checkpoint.tensors[name], -1, last)
                self.refused('bnt-convert', checkpoint.save(self.path('in')), partial=True,
                             names=[name, 'row %d, column %d' % (4 * rows - 1, cols - 1)])

    def test_modules_that_are_not_ternary_anyway(self):
        checkpoint = Checkpoint(PACKED_DIVIDE)
        for entries in ([], ['model.norm', 'lm_head', 'model.embed_tokens'], ['lm_head.weight'],
                        ['.*norm', 'embed.*', r'model\.layers\.\d+\.input_layernorm', 'model.layers.77']):
            checkpoint.config['quantization_config']['modules_to_not_convert'] = entries
            self.same_as(PACKED_DIVIDE, checkpoint.save(self.path('in')))

    def test_values_that_nobody_needs(self):
        checkpoint = Checkpoint(FAIRY)
        strange = ('"_a": 1000000000000000019884624838656, "_b": [1e400, NaN, -Infinity], "_c": 1, "_c": "\\ud800", '
                   '"_\\u0000": "\\u0000"')
        folder = checkpoint.save(self.path('in'))
        for name in ('config.json', 'generation_config.json', 'tokenizer_config.json', 'tokenizer.json'):
            text = read(folder, name).decode().strip()
            tools.write(os.path.join(folder, name), (text[:-1] + ', ' + strange + '}').encode())
        raw = read(folder, 'model.safetensors')
        size, = struct.unpack_from('<Q', raw)
        header = b'{"__metadata__": {%s},' % strange.encode() + raw[9:8 + size]
        tools.write(os.path.join(folder, 'model.safetensors'), struct.pack('<Q', len(header)) + header + raw[8 + size:])
        self.assertEqual(self.same_as(FAIRY, folder), '')
        self.assertEqual(self.hyper(), container.body(read(tools.packed()), container.records(read(tools.packed()))[0]))

    def test_eos_beyond_the_vocabulary(self):
        checkpoint = Checkpoint(FAIRY)
        expected = self.same_as(FAIRY, checkpoint.save(self.path('in'))), self.hyper()
        checkpoint.texts['generation_config.json'] = checkpoint.texts['generation_config.json'].replace(b'4091', b'[4091, 99999]')
        said = self.same_as(FAIRY, checkpoint.save(self.path('in')))
        for word in ('generation_config.json', '99999', 'left out'):
            self.assertIn(word, said)
        self.assertEqual(('', self.hyper()), expected)


def two_shards(checkpoint, folder, name, value=None):
    """Shards of which both hold a tensor; value: the first element of the copy that the index does not name."""
    checkpoint.save_shards(folder, 2)
    index = tools.read_json(folder, 'model.safetensors.index.json')['weight_map']
    path = os.path.join(folder, next(shard for shard in sorted(index.values()) if shard != index[name]))
    metadata, tensors = tools.parse(read(path))
    tensor = checkpoint.tensors[name]
    tools.write(path, tools.build({**tensors, name: tools.patch(tensor, 0, value) if value else tensor}, metadata))
    return folder


def build_raw(tensors, data, change):
    return tools.head(tensors, None, change) + data


if __name__ == '__main__':
    tools.main()
