#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bnt-run --chat: one answer a line, with the keys and values of what was said kept between the turns.

The texts themselves are compared in tests/unit/test_chat.c. Here the checkpoint gets Llama 3's template, whose tokens it has, and each answer must be
the one that the whole conversation, fed anew as token ids, gives."""
import json
import os
import re
import shutil
import unittest

import tools

import bntpy  # noqa: E402 (of tests/bntpy, where tools has pointed Python)

BEGIN, HEADER, END = '<|begin_of_text|>', '<|start_header_id|>%s<|end_header_id|>\n\n', '<|eot_id|>'


class Chat(tools.Case):
    def model(self, template):
        folder = self.path('checkpoint')
        shutil.copytree(tools.FAIRY, folder, ignore=shutil.ignore_patterns('golden'))
        path = os.path.join(folder, 'tokenizer_config.json')
        with open(path, encoding='utf-8') as file:
            config = json.load(file)
        config['chat_template'] = template
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(config, file)
        self.ok('bnt-convert', '-o', self.path('t'), folder)
        done = tools.run('bnt-pack', '-o', self.path('m.bnt'), self.path('t'))
        self.assertEqual(done.code, 0, done.err)
        return self.path('m.bnt'), done.err

    def llama3(self):
        with open(os.path.join(tools.DATA, 'chat', 'templates.json'), encoding='utf-8') as file:
            template = next(t['template'] for t in json.load(file)['templates'] if t.get('name') == 'llama3')
        model, said = self.model(template)
        self.assertEqual(said, '')
        return model

    def ids(self, model, text, *more):
        return self.ok('bnt-eval', model, '--tokenize', '-', *more, input=text.encode()).decode().strip()

    def answer(self, model, ids, count):
        out = self.ok('bnt-run', model, '-q', '--temp', '0', '-n', str(count), '--token-ids', ids)
        return out.decode()[:-1]

    def test_turns(self):
        model = self.llama3()
        lines = ['Who lives in the forest?', 'And then?', 'The end.']
        out = self.ok('bnt-run', model, '-q', '--chat', '--temp', '0', '-n', '12', '--system', 'You tell tales.',
                      input='\n'.join(lines).encode()).decode()
        text = BEGIN + HEADER % 'system' + 'You tell tales.' + END
        ids = self.ids(model, text)
        wanted = ''
        for line in lines:
            ids += ',' + self.ids(model, HEADER % 'user' + line + END + HEADER % 'assistant')
            answer = self.answer(model, ids, 12)
            wanted += answer + '\n'
            ids = self.extend(model, ids, 12) + ',' + self.ids(model, END)
        self.assertEqual(out, wanted)

    def extend(self, model, ids, count):
        """ids and the greedy tokens that follow, one at a time from the logits: not by way of the text, which may be cut into tokens otherwise."""
        import array
        vocab = 4096
        numbers = [int(i) for i in ids.split(',')]
        for _ in range(count):
            raw = self.ok('bnt-eval', model, '--logits', '-', '--token-ids', ','.join(map(str, numbers)))
            logits = array.array('f', raw[-4 * vocab:])
            token = max(range(vocab), key=lambda i: (logits[i], -i))
            if token in (4091, 4094):
                break
            numbers.append(token)
        return ','.join(map(str, numbers))

    def test_one_bos(self):
        """The template names none and the tokenizer adds one: a conversation begins with one."""
        model, said = self.model("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{{ 'assistant: ' }}")
        self.assertEqual(said, '')
        out = self.ok('bnt-run', model, '-q', '--chat', '--temp', '0', '-n', '8', input=b'Hello').decode()
        ids = self.ids(model, BEGIN + 'user: Hello\nassistant: ')
        self.assertEqual(out, self.answer(model, ids, 8) + '\n')

    def test_a_prompt_may_begin_with_the_bos(self):
        run = ('bnt-run', tools.packed(), '-q', '--temp', '0', '-n', '8')
        plain = self.ok(*run, '-p', 'Once upon')
        self.assertEqual(self.ok(*run, '-p', BEGIN + 'Once upon'), plain)
        text = self.ok(*run, '-p', BEGIN + 'Once upon', '--control', 'text')
        ids = '4090,' + self.ids(tools.packed(), BEGIN + 'Once upon', '--control', 'text')
        self.assertEqual(text, self.ok(*run, '--token-ids', ids))
        self.assertNotEqual(ids, '4090,' + self.ids(tools.packed(), 'Once upon'))

    def test_control_tokens_in_what_is_said(self):
        model, line = self.llama3(), 'Say %s twice' % END
        head = [self.ids(model, BEGIN + HEADER[:-2] % 'user'), self.ids(model, END + HEADER % 'assistant')]
        for more, kind in (((), 'text'), (('--control', 'text'), 'text'), (('--control', 'token'), 'token')):
            with self.subTest(more):
                out = self.ok('bnt-run', model, '-q', '--chat', '--temp', '0', '-n', '8', *more, input=line.encode()).decode()
                said = self.ids(model, '\n\n' + line, '--control', kind)
                self.assertEqual('4094' in said.split(','), kind == 'token')
                self.assertEqual(out, self.answer(model, ','.join([head[0], said, head[1]]), 8) + '\n')

    def test_control_tokens_are_not_printed(self):
        run = ('bnt-run', tools.packed(), '-q', '--temp', '100', '--top-p', '1', '--top-k', '0', '--ignore-eos', '-n', '200', '-p', 'x', '--seed')
        for seed in map(str, range(100)):  # until one has any
            shown = self.ok(*run, seed, '--show-control').decode()
            control = re.search(r'<\|[a-z_0-9]+\|>', shown)
            if control:
                break
        self.assertEqual(re.sub(r'<\|[a-z_0-9]+\|>', '', shown), self.ok(*run, seed).decode())
        self.assertEqual(self.ok(*run, seed, '--stop', control.group()).decode(), shown[:control.start()] + '\n')

    def test_no_place_for_a_system_text(self):
        model, said = self.model("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No.') }}{% endif %}"
                                 "{{ m.content + (' Yes? ' if m.role == 'user' else ' ') }}{% endfor %}")
        self.assertIn('without one', said)
        self.ok('bnt-run', model, '-q', '--chat', '-n', '2', input=b'Hello')
        self.refused('bnt-run', model, '-q', '--chat', '--system', 'x', names='system text', input=b'Hello')
        self.assertEqual(self.ok('bnt-verify', model), b'')
        self.assertEqual(bntpy.verify(tools.read(model)), [])

    def test_pipe(self):
        model = self.llama3()
        first = self.ok('bnt-run', model, '-q', '--chat', '--seed', '5', '-n', '8', input=b'Hello\n\nHello\n')
        again = self.ok('bnt-run', model, '-q', '--chat', '--seed', '5', '-n', '8', input=b'Hello\nHello')
        self.assertEqual(first, again)
        self.assertGreaterEqual(first.count(b'\n'), 2)

    def test_nothing_said(self):
        self.assertEqual(self.ok('bnt-run', self.llama3(), '-q', '--chat', input=b''), b'')

    def test_context_full(self):
        done = tools.run('bnt-run', self.llama3(), '-q', '--chat', '-c', '20', '-n', '100', '--ignore-eos', input=b'Hello\nHello\n')
        self.assertEqual(done.code, 1)
        self.assertIn('context', done.err)

    def test_unknown_template(self):
        model, said = self.model("{{ messages }}")
        self.assertIn('it writes a list', said)
        self.assertIn('none of those known', said)
        self.refused('bnt-run', model, '--chat', names='chat template', input=b'Hello\n')

    def test_no_template(self):
        self.ok('bnt-convert', '-o', self.path('t'), tools.FAIRY)
        self.ok('bnt-pack', '-o', self.path('m.bnt'), self.path('t'))
        self.refused('bnt-run', self.path('m.bnt'), '--chat', names='no chat template', input=b'Hello\n')

    def test_options(self):
        self.refused('bnt-run', 'x.bnt', '--chat', '-p', 'x', code=2)
        self.refused('bnt-run', 'x.bnt', '-p', 'x', '--system', 'y', code=2)


if __name__ == '__main__':
    unittest.main()
