#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Embedding models: what checkpoints say of them, and bnt-eval --embed against the vectors of sentence-transformers (tests/data/embedding)."""
import json
import math
import os
import sys
import unittest

import tools
from tools import Case, DATA, Tensor, read, read_json, run

sys.path.insert(0, os.path.join(DATA, 'embedding'))
import model  # noqa: E402

GOLDEN = read_json(DATA, 'embedding', 'golden.json')
TOLERANCE = 3e-4  # of the vector's length; 8e-5 was seen: activations have 16 bits here, floats there
NORMALIZED = ('Transformer', 'Pooling', 'Normalize')


def length(vector):
    return math.sqrt(sum(x * x for x in vector))


def far(a, b):
    return length([x - y for x, y in zip(a, b)]) / length(b)


class Embedding(Case):
    def make(self, checkpoint, pooling=None, types=NORMALIZED, name='m', quiet=True, **where):
        """Convert, pack and verify. Returns the path of the file."""
        folder = self.path(name)
        if pooling:
            model.save(checkpoint, folder, pooling, *types, **where)
        else:
            checkpoint.save(folder)
        out = folder + '.bnt'
        self.ok('bnt-pack', '-o', out, input=self.ok('bnt-convert', folder), quiet=quiet)
        self.ok('bnt-verify', out, '--source', folder)
        return out

    def embed(self, path, text, *options, **more):
        return [float(x) for x in self.ok('bnt-eval', path, '--embed', text, *options, **more).decode('ascii').split(',')]

    def near(self, a, b):
        self.assertEqual(len(a), len(b))
        self.assertLess(far(a, b), TOLERANCE)


class Vectors(Embedding):
    def test_golden(self):
        for name, pooling, types in model.GOLDEN:
            path = self.make(model.checkpoint(), pooling, types, name)
            info = json.loads(self.ok('bnt-info', path, '--json'))
            self.assertEqual((info['hyperparameters']['pooling'], info['hyperparameters']['normalized']), (name, 'Normalize' in types))
            for text, vector in zip(model.TEXTS, GOLDEN[name]):
                self.near(self.embed(path, text), vector)
            self.same(self.ok('bnt-eval', path, '--embed', '-', input=model.TEXTS[1].encode('utf-8')),
                      self.ok('bnt-eval', path, '--embed', model.TEXTS[1], '-t', '1'))

    def test_every_kernel(self):
        path = self.make(model.checkpoint(), model.old_pooling('mean'))
        line = next(line for line in self.ok('bnt-run', '--version').decode('ascii').splitlines() if line.startswith('kernels'))
        kernels = line.partition(': ')[2].replace('(default)', '').split()
        self.assertIn('scalar', kernels)
        for kernel in kernels:
            self.same(self.ok('bnt-eval', path, '--embed', model.TEXTS[2], '--kernel', kernel),
                      self.ok('bnt-eval', path, '--embed', model.TEXTS[2], '--kernel', 'scalar'), kernel)

    def test_callers_word(self):
        path = self.make(model.checkpoint(), model.old_pooling('last'))
        text = model.TEXTS[1]
        self.near(self.embed(path, text, '--pooling', 'mean', '--no-normalize'), GOLDEN['mean'][1])
        self.near(self.embed(path, text, '--pooling=first', '--no-normalize'), GOLDEN['first'][1])
        self.assertAlmostEqual(length(self.embed(path, text, '--pooling=first')), 1, 5)
        found = json.loads(self.ok('bnt-eval', path, '--embed', text, '--json', '--pooling=first', '--normalize'))
        self.assertEqual((found['pooling'], found['normalized']), ('first', True))
        self.assertEqual(found['tokens'], 1 + len(self.ok('bnt-eval', path, '--tokenize', text).split(b',')))
        self.assertEqual(found['embedding'], self.embed(path, text, '--pooling=first', '--no-normalize', '--normalize'))
        self.assertRegex(self.ok('bnt-eval', path, '--embed', text).decode('ascii'), r'\A(-?\d[0-9.e+-]*,){63}-?\d[0-9.e+-]*\n\Z')

    def test_nothing_said(self):
        """A model without its output layer, and no word of pooling: packed, and the caller has to name one."""
        path = self.make(model.checkpoint(), quiet=False)
        text = model.TEXTS[1]
        self.assertIn('modules.json', run('bnt-pack', '-o', self.path('again'), input=run('bnt-convert', self.path('m')).out).err)
        self.refused('bnt-eval', path, '--embed', text, names=[path, '--pooling'])
        self.near(self.embed(path, text, '--pooling', 'last', '--normalize'), GOLDEN['last'][1])
        self.near(self.embed(path, text, '--pooling', 'mean'), GOLDEN['mean'][1])

    def test_what_does_not_fit(self):
        path = self.make(model.checkpoint(), model.old_pooling('last'))
        self.refused('bnt-eval', path, '--embed', 'x ' * 600, names='context')
        self.refused('bnt-eval', path, '--embed', 'x', '--device', 'cuda', names='CPU')
        self.refused('bnt-eval', tools.packed(tools.MASTERS), '--embed', 'x', '--pooling', 'last', names='tokenizer')
        for options in (['--embed', 'x', '--pooling', 'max'], ['--tokenize', 'x', '--no-normalize'], ['--tokenize', 'x', '--pooling', 'last'],
                        ['--tokenize', 'x', '--normalize'], ['--embed', 'x', '--tokenize', 'x']):
            self.refused('bnt-eval', path, *options, code=2)
        bare = model.checkpoint()
        tokenizer = json.loads(bare.texts['tokenizer.json'])
        tokenizer['post_processor'] = None
        bare.texts['tokenizer.json'] = json.dumps(tokenizer).encode('utf-8')
        path = self.make(bare, model.old_pooling('last'), name='bare')
        self.refused('bnt-eval', path, '--embed', '', names='--embed')


class Checkpoints(Embedding):
    def same_vectors(self, path):
        for text, vector in zip(model.TEXTS, GOLDEN['last']):
            self.near(self.embed(path, text), vector)

    def renamed(self, checkpoint, prefix):
        checkpoint.tensors = {prefix + name: tensor for name, tensor in checkpoint.tensors.items()}
        return checkpoint

    def test_names(self):
        made = self.renamed(model.checkpoint(), 'model.')
        self.same_vectors(self.make(made, model.old_pooling('last'), name='prefixed'))
        made.config['architectures'] = ['Qwen3ForCausalLM']
        self.same_vectors(self.make(made, model.old_pooling('last'), name='causal'))

    def test_no_output_matrix(self):
        """As Qwen3-Embedding-8B: Qwen3ForCausalLM, untied, but saved without its head."""
        made = model.checkpoint()
        made.config.update(architectures=['Qwen3ForCausalLM'], tie_word_embeddings=False)
        made.save(self.path('in'))
        self.refused('bnt-convert', self.path('in'), names='lm_head.weight')
        self.same_vectors(self.make(made, model.old_pooling('last')))

    def test_output_matrix_of_its_own(self):
        made = self.renamed(model.checkpoint(), 'model.')
        made.config.update(architectures=['Qwen3ForCausalLM'], tie_word_embeddings=False)
        made.tensors['lm_head.weight'] = made.tensors['model.embed_tokens.weight']
        path = self.make(made, model.old_pooling('last'))
        self.assertFalse(json.loads(self.ok('bnt-info', path, '--json'))['hyperparameters']['tied'])
        self.same_vectors(path)

    def test_other_families(self):
        """The same weights without what Qwen3 adds: three families that compute alike."""
        vectors = []
        for name in ('LlamaModel', 'MistralModel', 'Qwen2Model'):
            made = model.checkpoint()
            made.config.update(architectures=[name], model_type=name[:-5].lower(), sliding_window=None)
            made.tensors = {k: t for k, t in made.tensors.items() if 'q_norm' not in k and 'k_norm' not in k}
            for layer in range(model.LAYERS if name == 'Qwen2Model' else 0):
                for linear in 'qkv':
                    full = 'layers.%d.self_attn.%s_proj.' % (layer, linear)
                    rows = made.tensors[full + 'weight'].shape[0]
                    made.tensors[full + 'bias'] = Tensor('F16', [rows], bytes(2 * rows))
            vectors.append(self.ok('bnt-eval', self.make(made, model.old_pooling('mean'), name=name), '--embed', 'a b'))
        self.assertEqual(vectors, vectors[:1] * 3)

    def test_norms_before_linears(self):
        """Microsoft's embedding models: masters, and norm.weight inside of each linear; config.json does not say it."""
        made = model.checkpoint()
        for name, tensor in list(made.tensors.items()):
            if '_proj.weight' in name:
                rows, cols = tensor.shape
                made.tensors[name] = model.halves(tensor.shape, [((7 * i) % 23 - 11) / 64 for i in range(rows * cols)])
                made.tensors[name.replace('weight', 'norm.weight')] = model.halves([cols], [0.5 + i / cols for i in range(cols)])
        path = self.make(made, model.old_pooling('last'))
        facts = json.loads(self.ok('bnt-info', path, '--json'))['hyperparameters']
        self.assertTrue(facts['linear_norms'])
        said = model.checkpoint()
        said.tensors = {name.replace('_proj.norm.', '_proj.rms_norm.'): tensor for name, tensor in made.tensors.items()}
        said.config['quantization_config'] = {'quant_method': 'bitnet', 'linear_class': 'autobitlinear', 'quantization_mode': 'online',
                                              'use_rms_norm': True, 'rms_norm_eps': made.config['rms_norm_eps']}
        self.assertEqual(self.embed(path, 'a b'), self.embed(self.make(said, model.old_pooling('last'), name='said'), 'a b'))

    def test_new_files_of_poolings(self):
        for mode, how in ((['lasttoken'], 'last'), ('cls', 'first'), (None, 'mean')):
            path = self.make(model.checkpoint(), {'embedding_dimension': model.HIDDEN, 'pooling_mode': mode}, name=how)
            self.assertEqual(json.loads(self.ok('bnt-info', path, '--json'))['hyperparameters']['pooling'], how)
        path = self.make(model.checkpoint(), model.old_pooling('last'), name='deep', path='a/b c')
        self.assertEqual(json.loads(self.ok('bnt-info', path, '--json'))['hyperparameters']['pooling'], 'last')

    def test_refused_poolings(self):
        for pooling, word in ((model.old_pooling('max'), 'max'), (model.old_pooling('mean_sqrt_len'), 'mean_sqrt_len_tokens'),
                              (model.old_pooling('weightedmean'), 'weightedmean'), (model.old_pooling('last', 'mean'), 'several'),
                              ({'pooling_mode': ['mean', 'max']}, 'several'), ({'pooling_mode': 'new'}, 'new'), ({'pooling_mode': 3}, '?')):
            model.save(model.checkpoint(), self.path('in'), pooling, *NORMALIZED)
            self.refused('bnt-convert', self.path('in'), names=['1_Pooling/config.json', '"%s"' % word])

    def test_refused_modules(self):
        good = model.old_pooling('last')
        for types, word in ((('Transformer', 'Pooling', 'Dense'), 'Dense'), (('Transformer', 'Pooling', 'Normalize', 'Dense'), 'Dense'),
                            (('WordEmbeddings', 'Pooling'), 'WordEmbeddings'), (('Transformer', 'Normalize'), 'Normalize'),
                            (('Transformer', 'custom_st.Pooling'), 'custom_st.Pooling'), (('Transformer',), 'Pooling'), ((), 'Pooling')):
            model.save(model.checkpoint(), self.path('in'), good, *types)
            self.refused('bnt-convert', self.path('in'), names=['modules.json', word])

    def test_hostile_modules(self):
        made = model.checkpoint()
        model.save(made, self.path('in'), model.old_pooling('last'), *NORMALIZED)
        model.save(made, self.path('other'), model.old_pooling('last'), *NORMALIZED)
        listed = json.loads(made.texts['modules.json'])

        def refused(modules, *names):
            self.file('in/modules.json', modules if isinstance(modules, bytes) else json.dumps(modules).encode('utf-8'))
            self.refused('bnt-convert', self.path('in'), names=['modules.json', *names])

        for path in ('../other/1_Pooling', '/etc', '', '.', 'a/../1_Pooling', 'a//b', '1_Pooling/', 'a\\b', 'a\nb', 'x' * 300):
            refused([listed[0], dict(listed[1], path=path)], 'path')
        refused([listed[0], dict(listed[1], path='absent')], 'absent/config.json')
        refused([dict(listed[0], path='0_Transformer'), listed[1]], '0_Transformer')
        refused([listed[0], dict(listed[1], path=7)], 'module 1')
        refused([listed[0], {'path': '1_Pooling'}], 'module 1')
        refused([3], 'module 0')
        refused({}, 'array')
        refused(b'[', 'modules.json')
        self.file('in/modules.json', json.dumps(listed).encode('utf-8'))
        self.file('in/1_Pooling/config.json', b'[]')
        self.refused('bnt-convert', self.path('in'), names='1_Pooling/config.json')

    def test_streams(self):
        """bnt-pack looks for itself."""
        folder = model.save(model.checkpoint(), self.path('in'), model.old_pooling('last'), *NORMALIZED)
        metadata, tensors = tools.parse(self.ok('bnt-convert', folder))
        self.assertEqual(metadata['1_Pooling/config.json'], read(folder, '1_Pooling', 'config.json').decode('utf-8'))
        for change in ({'1_Pooling/config.json': '{"pooling_mode": "max"}'}, {'modules.json': '[]'}):
            self.refused('bnt-pack', '-o', self.path('out'), input=tools.build(tensors, {**metadata, **change}), names=list(change))
        del metadata['1_Pooling/config.json']
        self.refused('bnt-pack', '-o', self.path('out'), input=tools.build(tensors, metadata), names='1_Pooling/config.json')

    def test_other_attention(self):
        for key, value in (('is_causal', False), ('use_bidirectional_attention', True)):
            made = model.checkpoint()
            made.config[key] = value
            model.save(made, self.path('in'), model.old_pooling('mean'), *NORMALIZED)
            self.refused('bnt-convert', self.path('in'), names=key)
        made = model.checkpoint()
        made.config['is_causal'] = True
        self.make(made, model.old_pooling('mean'), name='causal')


if __name__ == '__main__':
    unittest.main()
