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
        self.refused('bnt', code=2)
        self.refused('bnt', '../sh', code=2)
        self.refused('bnt', 'nothing', names='bnt-nothing')

    def test_help(self):
        self.assertIn(b'bnt get', self.ok('bnt', '--help'))
        self.assertTrue(self.ok('bnt', '--version').startswith(b'bnt '))


class Tools(tools.Case):
    def test_runs_tools(self):
        self.assertTrue(self.ok('bnt', 'pack', '--version').startswith(b'bnt-pack '))
        done = tools.run('bnt', 'verify', '/nonexistent')
        self.one_line(done, 'bnt-verify')


if __name__ == '__main__':
    unittest.main()
