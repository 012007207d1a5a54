#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tools for 64-bit ARM, in an emulator, give the same bytes as this machine's: files, logits, text, with every set of
kernels. They are those of $BNT_CROSS_BIN, run by $BNT_EMULATOR; `make check-aarch64` sets both."""
import os
import random
import subprocess

import tools
from tools import Case, FAIRY, GOLDEN, VARIANTS, packed

KERNELS = ('neon-dot', 'neon', 'scalar')
EMULATOR = os.environ['BNT_EMULATOR'].split()
CROSS_BIN = os.environ['BNT_CROSS_BIN']


def joined(ids):
    return ','.join(map(str, ids))


def random_ids(n):
    return [random.Random(5).randrange(256) for _ in range(n)]


class SameBytes(Case):
    def emulated(self, tool, *args, input=None, **variables):
        done = subprocess.run(EMULATOR + [os.path.join(CROSS_BIN, tool)] + [os.fspath(a) for a in args], input=input,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=600,
                              env=tools.environment(**variables))
        self.assertEqual((done.returncode, done.stderr), (0, b''), (tool, args))
        return done.stdout

    def check(self, *args, ways=KERNELS, **options):
        """What this machine's tool prints, the other prints too, with every set of kernels."""
        expected = self.ok(*args, **options)
        self.assertGreater(len(expected), 0)
        for kernel in ways:
            with self.subTest(args[0], kernel=kernel):
                self.same(self.emulated(*args, '--kernel', kernel, **options), expected, args)

    def test_the_processor_decides_which_kernels_there_are(self):
        for cpu, names in (('max', KERNELS), ('cortex-a53', KERNELS[1:]), ('cortex-a76', KERNELS)):
            lines = self.emulated('bnt-run', '--version', QEMU_CPU=cpu).decode().splitlines()
            self.assertEqual([word for word in lines[1].split(':')[1].split() if not word.startswith('(')], list(names))

    def test_convert_and_pack(self):
        for checkpoint in [FAIRY] + VARIANTS:
            stream = self.emulated('bnt-convert', '-q', checkpoint)
            self.same(stream, tools.converted(checkpoint), checkpoint)
            self.emulated('bnt-pack', '-q', '-o', self.path('packed'), input=stream)
            self.same(tools.read(self.path('packed')), tools.read(packed(checkpoint)), checkpoint)
            self.emulated('bnt-verify', self.path('packed'), '--source', checkpoint)

    def test_logits(self):
        for checkpoint in [FAIRY] + VARIANTS:
            for cache in ('f16', 'f32'):
                self.check('bnt-eval', packed(checkpoint), '--cache', cache, '--logits', '-', '--token-ids',
                           joined(random_ids(21)))

    def test_logits_beyond_one_batch(self):
        self.check('bnt-eval', packed(), '--logits', '-', '--token-ids', joined(random_ids(150)), ways=KERNELS[:1])

    def test_perplexity(self):
        text = tools.read(GOLDEN, 'eval.txt')[:500]
        self.check('bnt-eval', packed(), '--json', '--window', '50', '--perplexity', '-', input=text, ways=KERNELS[:2])

    def test_text(self):
        common = ('bnt-run', packed(), '-q', '-n', '40', '-p', 'Once upon a time', '--echo')
        self.check(*common, '--temp', '0')
        for seed in '12':
            self.check(*common, '--temp', '0.9', '--top-p', '0.9', '--top-k', '40', '--seed', seed, ways=KERNELS[:2])
        self.check(*common, '--temp', '0', '-t', '1', ways=KERNELS[:1])


if __name__ == '__main__':
    tools.main()
