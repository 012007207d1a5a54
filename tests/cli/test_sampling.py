#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Penalties and min_p from generation_config.json to the text: what the file carries, what bnt-run makes of it and of
its own options, against the definition in tests/bntpy."""
import json
import os
import re
import shutil
from array import array

import tools
from tools import Case, PACKED, read

import container  # noqa: E402 (of tests/bntpy, where tools has pointed Python)
import floats  # noqa: E402
import sampling  # noqa: E402

PROMPT = [5, 9, 5, 1, 200, 9]
PENALTIES = {'repetition_penalty': 1.3, 'presence_penalty': 0.75, 'frequency_penalty': 0.5}


class Sampling(Case):
    def pack(self, generation, note=''):
        """The checkpoint without a tokenizer, with such a generation_config.json. note: what bnt-pack must say."""
        folder = self.path('checkpoint')
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PACKED, folder)
        with open(os.path.join(folder, 'generation_config.json'), 'w', encoding='utf-8') as file:
            json.dump(generation, file)
        done = tools.run('bnt-pack', '-q', '-o', self.path('model.bnt'), input=self.ok('bnt-convert', '-q', folder))
        self.assertEqual(done.code, 0, done.err)
        if note:
            self.one_line(done, 'bnt-pack', 0, ['generation_config.json', note])
        else:
            self.assertEqual(done.err, '')
        self.ok('bnt-verify', self.path('model.bnt'), '--source', folder)
        return self.path('model.bnt')

    def generate(self, model, *options, n=12):
        out = self.ok('bnt-run', model, '-q', '-t', '1', '--device', 'cpu', '--cache', 'f32', '--ignore-eos', '--token-ids',
                      ','.join(map(str, PROMPT)), *(('-n', str(n)) if n else ()), *options)
        return list(map(int, out.split(b',')))

    def define(self, model, n=12, **penalties):
        """The same, greedy: each token the likeliest of the penalized logits that bnt-eval gives."""
        generated = []
        while len(generated) < n:
            ids = PROMPT + generated
            raw = self.ok('bnt-eval', model, '-t', '1', '--device', 'cpu', '--logits', '-', '--token-ids', ','.join(map(str, ids)))
            logits = array('f', raw)
            logits = sampling.penalize(logits[-(len(logits) // len(ids)):], PROMPT, generated, penalties)
            generated.append(logits.index(max(logits)))
        return generated

    @staticmethod
    def options(penalties):
        return ['--%s=%s' % (name.replace('_', '-'), value) for name, value in penalties.items()]

    def section(self, model):
        raw = read(model)
        found = {container.name(r): container.body(raw, r) for r in container.records(raw)}
        return container.header(raw).version_minor, sampling.read(found['SAMP']) if 'SAMP' in found else None

    def test_greedy_text_by_the_definition(self):
        model = self.pack({})
        plain = self.define(model)
        self.assertEqual(self.generate(model, '--temp', '0'), plain)
        different = [plain]
        for penalties in ({'repetition_penalty': 1.3}, {'repetition_penalty': 0.7}, {'presence_penalty': 2}, PENALTIES,
                          {'frequency_penalty': 1.5}, {'presence_penalty': -2, 'frequency_penalty': -0.5}):
            with self.subTest(**penalties):
                expected = self.define(model, **penalties)
                self.assertEqual(self.generate(model, '--temp', '0', *self.options(penalties)), expected)
                different.append(expected)
        self.assertGreater(len(set(map(tuple, different))), 3)  # they do something

    def test_the_file_carries_the_defaults(self):
        model = self.pack({**PENALTIES, 'max_new_tokens': 7})
        minor, found = self.section(model)
        self.assertEqual(minor, 1)
        self.assertEqual(found, {**{k: floats.f32(v) for k, v in PENALTIES.items()}, 'min_p': 0.0, 'max_new_tokens': 7,
                                 'reserved': bytes(44)})
        shown = json.loads(self.ok('bnt-info', '--json', model))['sampling']
        self.assertAlmostEqual(shown['repetition_penalty'], 1.3, 6)
        self.assertEqual((shown['presence_penalty'], shown['max_new_tokens']), (0.75, 7))
        self.assertIn(b'Sampling defaults', self.ok('bnt-info', model))
        expected = self.generate(model, *self.options(PENALTIES))
        self.assertEqual(self.generate(model), expected)
        self.assertEqual(self.generate(model, n=0), expected[:7])  # as many as the model says
        off = {'repetition_penalty': 1, 'presence_penalty': 0, 'frequency_penalty': 0}
        self.assertEqual(self.generate(model, *self.options(off)), self.define(model))
        self.assertNotEqual(expected, self.define(model))

    def test_min_p(self):
        """Of the likeliest token alone, whatever the temperature."""
        model = self.pack({'do_sample': True, 'temperature': 20.0, 'min_p': 1.0})
        self.assertEqual(self.section(model)[1]['min_p'], 1.0)
        greedy = self.generate(model, '--temp', '0')
        self.assertEqual(self.generate(model, '--seed', '1'), greedy)
        self.assertNotEqual(self.generate(model, '--seed', '1', '--min-p', '0'), greedy)
        self.assertEqual(self.section(self.pack({'min_p': 1.0}))[1], None)  # nothing is sampled

    def test_what_says_nothing_is_not_written(self):
        plain = self.pack({'do_sample': True, 'temperature': 0.5})
        before = read(plain)
        self.assertEqual(self.section(plain), (0, None))
        self.assertIsNone(json.loads(self.ok('bnt-info', '--json', plain))['sampling'])
        again = read(self.pack({'do_sample': True, 'temperature': 0.5, 'repetition_penalty': 1.0, 'min_p': None, 'num_beams': 1}))
        self.assertEqual(len(again), len(before))  # the provenance has another digest, nothing else differs
        self.assertEqual(self.section(self.path('model.bnt')), (0, None))

    def test_the_same_bytes_twice(self):
        first = read(self.pack({**PENALTIES, 'do_sample': True, 'min_p': 0.1}))
        self.same(read(self.pack({**PENALTIES, 'do_sample': True, 'min_p': 0.1})), first)

    def test_what_bnt_does_not_do_is_named(self):
        self.pack({'num_beams': 4, 'no_repeat_ngram_size': 3, 'bad_words_ids': [[1]], 'repetition_penalty': 1.1},
                  note='num_beams, no_repeat_ngram_size, bad_words_ids')
        self.pack({'do_sample': True, 'typical_p': 0.9}, note='typical_p')
        self.pack({'do_sample': False, 'typical_p': 0.9, 'pad_token_id': 0, 'transformers_version': '4.50'})

    def test_another_config(self):
        """S1 holds where the file has the section."""
        model = self.pack(PENALTIES)
        for changed, rules in ((PENALTIES, {'S5'}), ({**PENALTIES, 'repetition_penalty': 1.2}, {'S1', 'S5'}), ({}, {'S1', 'S5'})):
            with open(self.path('checkpoint', 'generation_config.json'), 'w', encoding='utf-8') as file:
                json.dump({**changed, 'pad_token_id': 1}, file)
            done = tools.run('bnt-verify', model, '--source', self.path('checkpoint'))
            self.assertEqual(done.code, 1)
            self.assertEqual(set(re.findall(r': ([RS]\d+): ', done.err)), rules, done.err)


if __name__ == '__main__':
    tools.main()
