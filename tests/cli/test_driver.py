#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bnt: `bnt get` from a checkpoint folder (test_fetch.py has the Hub), `bnt TOOL`, and what it leaves when something fails."""
import os
import shutil
import signal
import subprocess
import time
import unittest

import tools


class Get(tools.Case):
    def test_folder(self):
        self.ok('bnt', 'get', '-q', tools.FAIRY, '-o', self.path('m.bnt'))
        self.nothing_in(self.dir, ['m.bnt'])
        self.ok('bnt-verify', self.path('m.bnt'), '--source', tools.FAIRY)

    def test_same_as_the_tools(self):
        self.ok('bnt', 'get', '-q', '--embedding', 'int8', tools.FAIRY, '-o', self.path('a'))
        self.ok('bnt-convert', '-o', self.path('t'), tools.FAIRY)
        self.ok('bnt-pack', '--embedding', 'int8', '-o', self.path('b'), self.path('t'))
        with open(self.path('a'), 'rb') as a, open(self.path('b'), 'rb') as b:
            self.same(a.read(), b.read())

    def test_failure_leaves_nothing(self):
        folder = self.path('broken')
        shutil.copytree(tools.FAIRY, folder)
        with open(os.path.join(folder, 'model.safetensors'), 'r+b') as file:
            file.truncate(1000000)
        before = self.file('m.bnt', b'older')
        done = tools.run('bnt', 'get', '-q', folder, '-o', self.path('m.bnt'))
        self.assertEqual(done.code, 1)
        self.assertIn('model.safetensors', done.err)
        self.nothing_in(self.dir, ['broken', 'm.bnt'])
        with open(before, 'rb') as file:
            self.assertEqual(file.read(), b'older')

    def test_a_failed_tool_is_the_only_one_that_speaks(self):
        """What comes after it in the pipe has no cause to complain."""
        folder = self.path('broken')
        shutil.copytree(tools.FAIRY, folder)
        for name, data in (('config.json', b'{'), ('tokenizer.json', b'{'), ('model.safetensors', b'x' * 100)):
            kept = tools.read(folder, name)
            tools.write(os.path.join(folder, name), data)
            with self.subTest(name):
                err = self.refused_by('bnt-pack' if name == 'tokenizer.json' else 'bnt-convert', folder)
                self.assertIn(name, err)
            tools.write(os.path.join(folder, name), kept)
        checkpoint = tools.Checkpoint(tools.FAIRY)  # fails only when most of the stream is out
        checkpoint.patch('layers.5.mlp.up_proj.weight', 0, tools.NOT_FINITE['BF16'][0])
        self.assertIn('up_proj', self.refused_by('bnt-convert', checkpoint.save(self.path('nan'))))

    def refused_by(self, tool, folder):
        done = tools.run('bnt', 'get', folder, '-o', self.path('m.bnt'))
        self.one_line(done, tool)
        self.assertFalse([name for name in os.listdir(self.dir) if 'm.bnt' in name])
        return done.err

    def test_a_tool_that_had_no_time_for_words(self):
        """Killed, as for want of memory: then bnt says it."""
        folder = self.folder('bin')
        for tool in ('bnt', 'bnt-pack'):
            shutil.copy(tools.path_of(tool), folder)
        script = self.file('bin/bnt-convert', b'#!/bin/sh\nkill -KILL $$\n')
        os.chmod(script, 0o755)
        done = tools.run(os.path.join(folder, 'bnt'), 'get', tools.FAIRY, '-o', self.path('m.bnt'))
        self.one_line(done, 'bnt', 1, 'signal 9')
        self.nothing_in(self.dir, ['bin'])

    def test_signal_leaves_nothing(self):
        self.ok('bnt-synth', '--like', '1bitllm-large', '--form', 'packed', '--quiet', '-o', self.path('big'))
        child = tools.start('bnt', 'get', '-q', self.path('big'), '-o', self.path('m.bnt'))
        while len([name for name in os.listdir(self.dir) if name != 'big']) < 2:  # until bnt-pack has its temporary file
            self.assertIsNone(child.poll())
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(tools.TIMEOUT), -signal.SIGTERM)
        child.stderr.close()
        deadline = time.monotonic() + tools.TIMEOUT
        while sorted(os.listdir(self.dir)) != ['big'] and time.monotonic() < deadline:
            time.sleep(0.1)  # the tools are ended by their own signal a moment later
        self.nothing_in(self.dir, ['big'])

    def test_reader_that_goes(self):
        """Of a pipe as the output: nothing stays behind where it was made."""
        env = tools.environment(TMPDIR=self.folder('temporary'))
        child = tools.start('bnt', 'get', '-q', tools.FAIRY, '-o', '/dev/stdout', env=env, stdout=subprocess.PIPE)
        child.stdout.close()
        self.assertNotEqual(child.wait(tools.TIMEOUT), 0)
        child.stderr.close()
        self.nothing_in(self.path('temporary'))

    def test_usage(self):
        self.refused('bnt', 'get', tools.FAIRY, code=2)
        self.refused('bnt', 'get', '-o', 'x', code=2)
        self.refused('bnt', '../sh', code=2)
        self.refused('bnt', 'nothing', names='bnt-nothing')

    def test_file_instead_of_a_folder(self):
        self.ok('bnt', 'get', '-q', tools.FAIRY, '-o', self.path('m.bnt'))
        for more in ((), ('-o', self.path('n.bnt'))):
            self.refused('bnt', 'get', self.path('m.bnt'), *more, names=['m.bnt', '.bnt file already', 'verify', 'run'])
            self.refused('bnt', 'get', os.path.join(tools.FAIRY, 'config.json'), *more, names=['config.json', 'folder'])
        self.nothing_in(self.dir, ['m.bnt'])

    def test_mistyped_folders(self):
        for source in ('./none', '/none/at/all', 'some/mistyped/folder'):
            self.refused('bnt', 'get', source, '-o', self.path('m.bnt'), names=[source, 'no such folder'])
        self.nothing_in(self.dir)

    def test_help(self):
        text = self.ok('bnt', '--help')
        self.assertIn(b'bnt get', text)
        for args in ([], ['-h'], ['help'], ['help', 'get'], ['get', '-h'], ['get', '--help']):
            self.assertEqual(self.ok('bnt', *args), text, args)
        for tool in ('convert', 'pack', 'verify', 'info', 'eval', 'run', 'bench', 'fetch'):
            self.assertIn(tool.encode(), text)
            self.assertEqual(self.ok('bnt', 'help', tool), self.ok('bnt-' + tool, '--help'))
        self.refused('bnt', 'help', 'nothing', names=['bnt-nothing', 'convert'])
        self.refused('bnt', 'help', '../sh', code=2)
        self.refused('bnt', 'help', 'pack', 'run', code=2)
        self.assertTrue(self.ok('bnt', '--version').startswith(b'bnt '))


class Tools(tools.Case):
    def test_runs_tools(self):
        self.assertTrue(self.ok('bnt', 'pack', '--version').startswith(b'bnt-pack '))
        done = tools.run('bnt', 'verify', '/nonexistent')
        self.one_line(done, 'bnt-verify')


if __name__ == '__main__':
    unittest.main()
