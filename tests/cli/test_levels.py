#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checkpoints of ordinary floats that hold three levels: recognised whatever the config says, converted without loss, and
told from those that only look so. The smallest of the real forms are in tests/data/variants."""
import json
import os
import random
import struct
import unittest

import tools
from tools import Case, Checkpoint, LEVELS, LLAMA_ROWS, QWEN2_BIAS, QWEN3_GROUPS, run

FORMS = {QWEN3_GROUPS: 'three levels by row and 128 columns, F16', LLAMA_ROWS: 'three levels by shard of rows (up to 2), F16',
         QWEN2_BIAS: 'three levels by matrix, BF16'}


def halves(tensor):
    return list(struct.unpack('<%dH' % (len(tensor.data) // 2), tensor.data))


def with_halves(tensor, values):
    return tensor._replace(data=struct.pack('<%dH' % len(values), *values))


def spoil(checkpoint, name, seed=1):
    noise = random.Random(seed)
    values = [noise.randrange(0x2000, 0x3000) | noise.randrange(2) << 15 for _ in range(len(checkpoint.tensors[name].data) // 2)]
    checkpoint.tensors[name] = with_halves(checkpoint.tensors[name], values)


class Levels(Case):
    def pack(self, folder, *options, name='m.bnt', quiet=True):
        path = self.path(name)
        self.ok('bnt-pack', '-o', path, input=self.ok('bnt-convert', folder, *options, quiet=quiet))
        return path

    def info(self, path):
        return json.loads(self.ok('bnt-info', '--json', path))

    def errors(self, path, folder):
        """What bnt-verify --source says was lost: (layer, role) -> relative error."""
        found = json.loads(self.ok('bnt-verify', path, '--source', folder, '--json', '--errors'))['matrices']
        return {(m['layer'], m['role']): m['relative_error'] for m in found}


class Recognised(Levels):
    def test_without_a_word_in_the_config(self):
        for folder in LEVELS:
            with self.subTest(os.path.basename(folder)):
                self.assertNotIn('quantization_config', Checkpoint(folder).config)
                path = self.pack(folder)
                info = self.info(path)
                self.assertEqual((info['provenance']['form'], info['provenance']['rounding']), (FORMS[folder], 'levels'))
                self.assertEqual(info['hyperparameters']['activation_bits'], 16)
                self.assertEqual(set(self.errors(path, folder).values()), {0})

    def test_whatever_the_config_says(self):
        """A mark of ternary training changes the activations, not the weights; nor does one that speaks of packed weights."""
        for mark in ({'linear_class': 'autobitlinear', 'quantization_mode': 'online'},
                     {'linear_class': 'autobitlinear', 'quantization_mode': 'offline'}, {'linear_class': 'bitlinear'}, {}):
            checkpoint = Checkpoint(QWEN3_GROUPS)
            checkpoint.config['quantization_config'] = {'quant_method': 'bitnet', **mark}
            with self.subTest(mark):
                folder = checkpoint.save(self.path('marked'))
                path = self.pack(folder)
                self.assertEqual(self.info(path)['hyperparameters']['activation_bits'], 8)
                self.assertEqual(set(self.errors(path, folder).values()), {0})

    def test_said_to_be_packed_and_ordinary(self):
        checkpoint = Checkpoint(LLAMA_ROWS)
        checkpoint.config['quantization_config'] = {'quant_method': 'bitnet'}
        name = checkpoint.name('layers.0.mlp.up_proj.weight')
        spoil(checkpoint, name)
        folder = checkpoint.save(self.path('in'))
        for options in ((), ('--force',)):
            self.refused('bnt-convert', folder, *options, names=['packed', 'U8', name])

    def test_force_changes_nothing(self):
        for folder in LEVELS:
            self.same(self.ok('bnt-convert', folder), self.ok('bnt-convert', folder, '--force', quiet=False))

    def test_threads_change_nothing(self):
        for folder in LEVELS:
            self.same(self.ok('bnt-convert', '-j', '1', folder), self.ok('bnt-convert', '-j', '5', folder))

    def test_files_of_version_1_stay_so(self):
        for folder in (tools.FAIRY, *tools.VARIANTS):
            path = self.path('old.bnt')
            self.ok('bnt-pack', '-o', path, input=self.ok('bnt-convert', folder, quiet=False), quiet=False)
            self.assertEqual(self.info(path)['version'], '1.0')

    def test_activations_may_be_chosen(self):
        path = self.path('eight.bnt')
        self.ok('bnt-pack', '--activations=8', '-o', path, input=self.ok('bnt-convert', QWEN2_BIAS))
        self.ok('bnt-verify', path, '--source', QWEN2_BIAS)
        self.assertEqual(self.info(path)['hyperparameters'].get('activation_bits', 8), 8)

    def test_no_int8_copy_of_a_ternary_output_matrix(self):
        out = self.path('int8.bnt')
        self.refused('bnt-pack', '--embedding=int8', '-o', out, input=self.ok('bnt-convert', QWEN3_GROUPS), names='int8')
        self.assertFalse(os.path.exists(out))


class Near(Levels):
    """A few weights beside every level."""

    def setUp(self):
        super().setUp()
        checkpoint = Checkpoint(QWEN3_GROUPS)
        self.name = checkpoint.name('layers.1.mlp.up_proj.weight')
        values = halves(checkpoint.tensors[self.name])
        level = next(v & 0x7fff for v in values if v & 0x7fff)
        places = [i for i, v in enumerate(values[:128]) if v & 0x7fff == level][:2]
        values[places[0]] = level + 0x400  # twice the level
        values[places[1]] = level - 0x400  # half of it
        checkpoint.tensors[self.name] = with_halves(checkpoint.tensors[self.name], values)
        self.folder = checkpoint.save(self.path('near'))

    def test_refused_with_number_and_distance(self):
        self.refused('bnt-convert', self.folder, names=[self.name, '2 weights of 1 matrix ', 'up to 1 of the level', '--nearest'])
        self.refused('bnt-convert', self.folder, '--force', names='--nearest')
        self.refused('bnt-convert', self.folder, '-o', self.path('out'))
        self.nothing_in(self.dir, ['near'])

    def test_nearest_takes_the_nearest_and_says_so(self):
        done = run('bnt-convert', self.folder, '--nearest')
        self.assertIn('2 weights take the nearest level', done.err)
        path = self.path('near.bnt')
        self.ok('bnt-pack', '-o', path, input=done.out)
        provenance = self.info(path)['provenance']
        self.assertEqual((provenance['rounding'], provenance['off'], provenance['worst']), ('nearest_level', 2, 1))
        errors = self.errors(path, self.folder)
        self.assertEqual({place for place, error in errors.items() if error}, {(1, 'ffn_up')})

    def test_bnt_get(self):
        done = run('bnt', 'get', '-q', self.folder, '-o', self.path('g.bnt'))
        self.one_line(done, 'bnt-convert', 1, ['--nearest'])
        self.ok('bnt', 'get', '-q', '--nearest', '--activations', '8', self.folder, '-o', self.path('g.bnt'), quiet=False)
        info = self.info(self.path('g.bnt'))
        self.assertEqual(info['provenance']['rounding'], 'nearest_level')
        self.assertEqual(info['hyperparameters']['activation_bits'], 8)
        self.refused('bnt', 'get', '--activations', '4', self.folder, '-o', self.path('g.bnt'), code=2, names='--activations')

    def test_beside_an_ordinary_matrix(self):
        checkpoint = Checkpoint(self.folder)
        spoil(checkpoint, checkpoint.name('layers.0.self_attn.k_proj.weight'))
        folder = checkpoint.save(self.path('near and ordinary'))
        path = self.pack(folder, '--force', '--nearest', quiet=False)
        self.assertEqual(self.info(path)['provenance']['rounding'], 'nearest_level, half_even')
        errors = self.errors(path, folder)
        self.assertEqual({place for place, error in errors.items() if error}, {(0, 'attn_k'), (1, 'ffn_up')})

    def test_whatever_the_config_says(self):
        """With a mark of ternary training they are no masters either: their mean is not their level."""
        embedding = Checkpoint(QWEN3_GROUPS)
        name = embedding.name('embed_tokens.weight')
        values = halves(embedding.tensors[name])
        values[:2] = [0x2000, 0x2400]
        embedding.tensors[name] = with_halves(embedding.tensors[name], values)
        for checkpoint in (Checkpoint(self.folder), embedding):
            checkpoint.config['quantization_config'] = {'quant_method': 'bitnet', 'linear_class': 'autobitlinear',
                                                        'quantization_mode': 'online'}
            folder = checkpoint.save(self.path('marked'))
            self.refused('bnt-convert', folder, names='--nearest')
            path = self.pack(folder, '--nearest', quiet=False)
            self.assertEqual(self.info(path)['provenance']['rounding'], 'nearest_level')
            self.assertEqual(len([e for e in self.errors(path, folder).values() if e]), 1)

    def test_every_matrix_near_and_no_level_a_half(self):
        checkpoint = Checkpoint(QWEN3_GROUPS)
        for name, tensor in checkpoint.tensors.items():
            if len(tensor.shape) == 2:
                values = [v * 1.0001 for v in struct.unpack('<%de' % (len(tensor.data) // 2), tensor.data)]
                values[0] = 1.0
                checkpoint.tensors[name] = tensor._replace(dtype='F32', data=struct.pack('<%df' % len(values), *values))
        folder = checkpoint.save(self.path('wide'))
        path = self.pack(folder, '--nearest', quiet=False)
        self.ok('bnt-verify', path, '--source', folder)
        self.assertEqual(self.info(path)['hyperparameters']['scales']['dtype'], 'f32')

    def test_far_from_a_tiny_level(self):
        checkpoint = Checkpoint(QWEN3_GROUPS)
        tensor = checkpoint.tensors[self.name]
        values = [2.0 ** -149 * (v > 0) - 2.0 ** -149 * (v < 0) for v in struct.unpack('<%de' % (len(tensor.data) // 2), tensor.data)]
        values[0] = 1.0
        checkpoint.tensors[self.name] = tensor._replace(dtype='F32', data=struct.pack('<%df' % len(values), *values))
        provenance = self.info(self.pack(checkpoint.save(self.path('tiny')), '--nearest', quiet=False))['provenance']
        self.assertEqual(provenance['off'], 1)
        self.assertGreater(provenance['worst'], 1e38)

    def test_with_one_scale_a_matrix(self):
        """The others have one, this one does not: a scale for each row, and no shards."""
        checkpoint = Checkpoint(QWEN2_BIAS)
        name = checkpoint.name('layers.0.mlp.up_proj.weight')
        values = halves(checkpoint.tensors[name])
        values[0] = 0x3f80
        checkpoint.tensors[name] = with_halves(checkpoint.tensors[name], values)
        path = self.pack(checkpoint.save(self.path('one')), '--nearest', quiet=False)
        self.assertEqual(self.info(path)['provenance']['form'], 'three levels by row, BF16')

    def test_values_that_are_not_finite(self):
        """They are far from every level, and found behind weights that are off one."""
        for bits in (0x7c00, 0xfc00, 0x7e01):
            checkpoint = Checkpoint(self.folder)
            values = halves(checkpoint.tensors[self.name])
            values[-1] = bits
            checkpoint.tensors[self.name] = with_halves(checkpoint.tensors[self.name], values)
            folder = checkpoint.save(self.path('in'))
            for options in ((), ('--nearest',), ('--force', '--nearest')):
                with self.subTest(bits=bits, options=options):
                    self.refused('bnt-convert', folder, *options, names=[self.name, 'element %d' % (len(values) - 1), 'not finite'])


class Ordinary(Levels):

    def test_an_ordinary_model(self):
        checkpoint = Checkpoint(LLAMA_ROWS)
        for name in [n for n in checkpoint.tensors if n.endswith('_proj.weight')]:
            spoil(checkpoint, name)
        folder = checkpoint.save(self.path('ordinary'))
        self.refused('bnt-convert', folder, names=['q_proj.weight', '% of the weights', 'off three levels', '--force'])

    def test_one_matrix_among_others(self):
        """The first of all, too: what follows is looked at whatever it is."""
        for layer, module, role in ((0, 'q_proj', 'attn_q'), (1, 'k_proj', 'attn_k')):
            checkpoint = Checkpoint(QWEN3_GROUPS)
            name = checkpoint.name('layers.%d.self_attn.%s.weight' % (layer, module))
            spoil(checkpoint, name)
            folder = checkpoint.save(self.path('mixed'))
            self.refused('bnt-convert', folder, names=[name, '1 do not'])
            path = self.pack(folder, '--force', quiet=False)
            self.assertEqual(self.info(path)['provenance']['rounding'], 'levels, half_even')
            errors = self.errors(path, folder)
            self.assertEqual({place for place, error in errors.items() if error}, {(layer, role)})

    def test_zeros_among_ordinary_matrices(self):
        """They hold any levels, so they say nothing."""
        checkpoint = Checkpoint(LLAMA_ROWS)
        names = [n for n in checkpoint.tensors if n.endswith('_proj.weight')]
        for name in names:
            spoil(checkpoint, name)
        zeros = checkpoint.tensors[names[1]]
        checkpoint.tensors[names[1]] = zeros._replace(data=bytes(len(zeros.data)))
        folder = checkpoint.save(self.path('ordinary'))
        self.refused('bnt-convert', folder, names='ternarizing an ordinary model')
        self.assertEqual(self.info(self.pack(folder, '--force', quiet=False))['provenance']['rounding'], 'half_even')

    def test_values_that_are_not_finite(self):
        for bits in (0x7c00, 0xfc00, 0x7e01):
            checkpoint = Checkpoint(QWEN3_GROUPS)
            name = checkpoint.name('layers.0.mlp.gate_proj.weight')
            values = halves(checkpoint.tensors[name])
            values[200] = bits
            checkpoint.tensors[name] = with_halves(checkpoint.tensors[name], values)
            with self.subTest(bits):
                self.refused('bnt-convert', checkpoint.save(self.path('in')), names=[name, 'element 200', 'not finite'])


class Spoiled(Levels):
    """What was packed is not what the checkpoint says any more."""

    def test_another_scale_in_the_checkpoint(self):
        path = self.pack(QWEN3_GROUPS)
        checkpoint = Checkpoint(QWEN3_GROUPS)
        name = checkpoint.name('layers.0.self_attn.o_proj.weight')
        values = halves(checkpoint.tensors[name])
        values[128:256] = [v + 1 if v & 0x7fff else v for v in values[128:256]]  # the second group of the first row
        checkpoint.tensors[name] = with_halves(checkpoint.tensors[name], values)
        done = run('bnt-verify', path, '--source', checkpoint.save(self.path('other')))
        self.assertEqual(done.code, 1)
        for rule in ('S3: layer 0 attn_o: the scale of row 0, group 1', 'S6: layer 0 attn_o', 'S5'):
            self.assertIn(rule, done.err)

    def test_a_weight_off_every_level_in_the_checkpoint(self):
        """The file claims that nothing was lost; against this checkpoint something is."""
        path = self.pack(QWEN3_GROUPS)
        checkpoint = Checkpoint(QWEN3_GROUPS)
        name = checkpoint.name('layers.1.mlp.up_proj.weight')
        values = halves(checkpoint.tensors[name])
        at = next(i for i, v in enumerate(values) if v & 0x7fff)
        values[at] -= 0x20  # a little nearer to zero: the same code
        checkpoint.tensors[name] = with_halves(checkpoint.tensors[name], values)
        done = run('bnt-verify', path, '--source', checkpoint.save(self.path('off')))
        self.assertEqual(done.code, 1)
        self.assertIn('S6: layer 1 ffn_up', done.err)
        self.assertIn('S5', done.err)
        self.assertNotIn('--nearest', done.err)


if __name__ == '__main__':
    unittest.main()
