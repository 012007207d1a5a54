#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How much memory bnt-run takes: the cache of the tokens, and nothing that grows beside it; and encoding a long text."""
import ctypes
import json
import os
import subprocess
import sys
import unittest

import tools
from tools import ROOT, Case, packed

sys.path.insert(0, os.path.join(ROOT, 'tests', 'samples'))

import bntpy  # noqa: E402 (in the folders that tools and the line above made known)
import good  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
MARGIN = 1 << 20


def peak_rss(*args, input=os.devnull):
    """Peak of resident memory in bytes. A process begins with the peak of whoever forked it, and Python's is larger than
    that of a tool; so a small shell starts it, ends, and leaves it to us."""
    line = 'input="$1"; shift; "$@" < "$input" > /dev/null 2>&1 & echo $!'
    shell = subprocess.run(['sh', '-c', line, 'sh', input, *tools.command(args)], env=tools.environment(), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, check=True, timeout=tools.TIMEOUT)
    _, status, usage = os.wait4(int(shell.stdout), 0)
    if status != 0:
        raise AssertionError('%s ended with status %d' % (args, status))
    return usage.ru_maxrss * 1024


@unittest.skipIf(tools.SANITIZE, 'sanitizers take memory of their own')
class Memory(Case):
    def setUp(self):
        super().setUp()
        if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            self.skipTest('no prctl(PR_SET_CHILD_SUBREAPER) here')

    def run_peak(self, tokens, *more):
        return peak_rss('bnt-run', packed(), '-p', 'Once upon a time', '--seed', '1', '--ignore-eos', '-t', '1', '-n', str(tokens),
                        *more)

    def cache_bytes(self, tokens):
        """Keys and values of every layer as float32, the most that a cache may take."""
        hyper = json.loads(self.ok('bnt-info', packed(), '--json'))['hyperparameters']
        return tokens * hyper['n_layers'] * 2 * hyper['n_kv_heads'] * hyper['head_dim'] * 4

    def test_run_grows_by_the_cache_alone(self):
        few, many = (self.run_peak(n, '-c', '1000') for n in (16, 600))
        self.assertLess(many - few, self.cache_bytes(600 - 16) + MARGIN, (few, many))

    def test_room_that_is_not_used_costs_nothing(self):
        exact, roomy = self.run_peak(16), self.run_peak(16, '-c', '1000')
        self.assertLess(abs(roomy - exact), MARGIN, (exact, roomy))

    def test_a_long_text_is_merged_by_the_word(self):
        """The whole text is one piece, as SentencePiece's are: beside copies of it and its ids nothing grows with it."""
        model = self.file('m.bnt', bntpy.write(good.tokenizer_characters()))
        sizes = 1 << 16, 1 << 22
        few, many = (peak_rss('bnt-eval', model, '--tokenize', '-', input=self.file('text', b'hi hih ' * (n // 7))) for n in sizes)
        self.assertLess(many - few, 10 * (sizes[1] - sizes[0]), (few, many))


if __name__ == '__main__':
    tools.main()
