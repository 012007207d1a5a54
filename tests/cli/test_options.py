#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The command lines of all tools: help, version, and what is no proper use of them (exit status 2, one line)."""
import glob
import os
import re
import unittest

import tools
from tools import Case, FAIRY, GOLDEN, ROOT, packed

# Long options that take a number, and what is none that they take; those that take one of some words; all others.
NO_NUMBER = ['', 'x', '-1', '1x', 'x1', ' 1', '1 ', '+1', '0x1', '１', '--', '1,2', 'nan', 'inf', '99999999999999999999999']
OUT_OF_RANGE = {
    'jobs': ['0', '257', '1.5', '1e1'], 'threads': ['0', '257', '1.5', '1e1'], 'tokens': ['4294967296', '1.5', '1e1'],
    'context': ['0', '4294967296', '1.5'], 'window': ['0', '1e1'], 'seed': ['18446744073709551616', '1.5', '1e1'],
    'top-k': ['4294967296', '1.5'], 'temp': ['-0.1', '100.1', '1e999', '-nan', '1.5.5', '1e'],
    'min-p': ['-0.1', '1.1', '.'], 'repetition-penalty': ['0', '-1', '100.1', '1e'], 'presence-penalty': ['-2.1', '2.1', '-'],
    'frequency-penalty': ['-2.1', '2.1', '1e999'],
    'top-p': ['0', '-0.5', '1.1', '1e999', '.'], 'shards': ['0', '100000', '1.5'], 'repeat': ['0', '51', '1.5', '1e1'],
    'activations': ['0', '7', '9', '24', '1e1'], 'group': ['0', '1048577', 'rows', '1.5'],
}
OF_ONE_TOOL = {('bnt-bench', 'prompt'): ['16777217', '1.5', '1e1'], ('bnt-bench', 'tokens'): ['1', '16777217']}
REAL = {'temp', 'top-p', 'min-p', 'repetition-penalty', 'presence-penalty', 'frequency-penalty'}
SIGNED = {'presence-penalty', 'frequency-penalty'}
TEXTS = {'control', 'output', 'source', 'matrix', 'prompt', 'file', 'token-ids', 'stop', 'kernel', 'perplexity', 'logits', 'tokenize',
         'detokenize', 'like', 'revision', 'include', 'local-dir', 'system', 'embed'}
WORDS = {'device': ['', 'gpu', 'CPU', 'cpu '], 'cache': ['', 'f8', 'F16', 'f16 ', 'f', 'f32,f16', 'bf16'],
         'embedding': ['', 'f32', 'INT8', 'int8,bf16'], 'form': ['', 'both'], 'pooling': ['', 'none', 'max', 'Last', 'last '], 'dtype': ['', 'f64']}
NEVER_MISSING = {'bnt-bench', 'bnt-convert', 'bnt-pack', 'bnt-verify', 'bnt-info', 'bnt-eval', 'bnt-run', 'bnt-synth'}


def sources():
    """tool -> the text of its source file."""
    paths = [path for at in ('*', 'runtime/*', 'tests/*') for path in glob.glob(os.path.join(ROOT, at, 'bnt-*.c'))]
    found = {os.path.basename(path)[:-2]: tools.read(path).decode('utf-8') for path in paths}
    assert NEVER_MISSING <= set(found)
    return found


def options_of(text):
    """long option -> (takes an argument, its letter or '')."""
    table = re.findall(r'\{\s*"([a-z0-9-]+)",\s*(no|required|optional)_argument,\s*NULL,\s*(?:\'(.)\'|\w+)\s*\}', text)
    assert len(table) >= 2, 'no table of options'
    return {name: (kind == 'required', letter) for name, kind, letter in table}


TABLES = {tool: options_of(text) for tool, text in sources().items()}
VERSION = re.search(r'project\(bnt VERSION (\S+)', tools.read(ROOT, 'CMakeLists.txt').decode()).group(1)


def bad_values(tool, option):
    values = OF_ONE_TOOL.get((tool, option), []) + OUT_OF_RANGE.get(option, [])
    if not values:
        return WORDS.get(option, [])
    fine = {'+1'} if option in REAL else set()
    if option in SIGNED:
        fine = {'+1', '-1'}
    return [value for value in NO_NUMBER if value not in fine] + values


class Everywhere(Case):
    """What holds for every tool that is there, also for one that came later."""

    def usage(self, *args, names=(), **options):
        return self.refused(*args, code=2, names=names, **options)

    def each(self, check):
        for tool, table in sorted(TABLES.items()):
            with self.subTest(tool):
                if not os.path.exists(tools.path_of(tool)) and tool not in NEVER_MISSING:
                    self.skipTest('%s is not built' % tool)
                check(tool, table)

    def test_help(self):
        def check(tool, table):
            text = self.ok(tool, '--help').decode('utf-8')
            self.assertEqual(self.ok(tool, '-h').decode('utf-8'), text)
            self.assertTrue(text.lower().startswith('usage: ' + tool), text[:60])
            self.assertTrue(text.endswith('\n'))
            mentioned = set(re.findall(r'(?<![\w-])--([a-z][a-z0-9-]*)', text))
            self.assertEqual(set(table) - mentioned, set(), 'not mentioned by --help')
            self.assertEqual(mentioned - set(table), set(), 'mentioned, but no option')
            for name, (_, letter) in table.items():
                if letter:
                    self.assertRegex(text, r'(?m)^ +-%s, --%s\b' % (letter, name))
            self.assertEqual([line for line in text.splitlines() if len(line) > 100], [])

        self.each(check)

    def test_version(self):
        def check(tool, table):
            text = self.ok(tool, '--version').decode('utf-8')
            self.assertEqual(text.splitlines()[0], '%s %s' % (tool, VERSION))
            self.assertTrue(text.endswith('\n'))

        self.each(check)

    def test_help_and_version_win_over_what_else_is_wrong(self):
        def check(tool, table):
            self.ok(tool, '--help', 'a', 'b', 'c')
            self.ok(tool, 'a', '--version')

        self.each(check)

    def test_output_closed(self):
        def check(tool, table):
            for option in ('--help', '--version'):
                done = tools.run(tool, option, stdout=None, preexec_fn=lambda: os.close(1))
                self.one_line(done, tool, 1, 'standard output')

        self.each(check)

    def test_output_full(self):
        def check(tool, table):
            for option in ('--help', '--version'):
                with open('/dev/full', 'wb') as full:
                    self.one_line(tools.run(tool, option, stdout=full), tool, 1, ['standard output', 'space'])

        self.each(check)

    def test_unknown_option(self):
        def check(tool, table):
            for option in ('--no-such-option', '--no-such-option=5', '-Z', '--Help', '-?', '-:'):
                with self.subTest(tool, option=option):
                    self.usage(tool, option, names=option.split('=')[0].lstrip('-'))
            self.usage(tool, 'operand', '--no-such-option')

        self.each(check)

    def test_argument_missing(self):
        def check(tool, table):
            for name, (takes, letter) in table.items():
                if takes:
                    self.usage(tool, '--' + name, names=name)
                if takes and letter:
                    self.usage(tool, '-' + letter, names=letter)

        self.each(check)

    def test_argument_too_many(self):
        def check(tool, table):
            for name, (takes, _) in table.items():
                if not takes:
                    message = [] if tool == 'bnt-synth' else ['takes no argument']  # its messages are getopt_long's
                    self.usage(tool, '--%s=yes' % name, names=[name, *message])

        self.each(check)

    def test_bad_number_or_word(self):
        def check(tool, table):
            for name in table:
                for value in bad_values(tool, name):
                    with self.subTest(tool, option=name, value=value):
                        self.usage(tool, '--%s=%s' % (name, value), names='--' + name)
                        self.usage(tool, '--' + name, value, names='--' + name)

        self.each(check)

    def test_every_number_is_tried(self):
        """So that a new option with a number does not slip past."""
        def check(tool, table):
            untried = {name for name, (takes, _) in table.items() if takes and not bad_values(tool, name)}
            self.assertEqual(untried - TEXTS, set())

        self.each(check)

    def test_control_characters_of_an_argument(self):
        """What was typed comes back in one line, and cannot steer the terminal."""
        def check(tool, table):
            if tool == 'bnt-synth':
                return  # serves tests alone, and getopt_long words its messages
            self.usage(tool, '--two\nlines\x1b[31m')
            for name in table:
                if bad_values(tool, name):
                    with self.subTest(tool, option=name):
                        self.usage(tool, '--%s=two\nlines\x1b[31m' % name, names=name)

        self.each(check)


class Operands(Case):
    """Each tool with the least that it needs, and then with one more or one less."""

    def setUp(self):
        super().setUp()
        self.stream = self.file('stream', tools.converted(tools.MASTERS))
        self.model = packed()
        self.least = {
            'bnt-convert': [FAIRY], 'bnt-pack': [self.stream], 'bnt-verify': [self.model], 'bnt-info': [self.model],
            'bnt-eval': ['--tokenize', 'x', self.model], 'bnt-run': ['-p', 'x', '-n', '1', '-q', self.model],
            'bnt-bench': ['-p', '1', '-n', '0', '-r', '1', '-q', self.model],
        }

    def test_the_least_works(self):
        for tool, args in self.least.items():
            with self.subTest(tool):
                self.ok(tool, *args)
                self.ok(tool, *args[:-1], '--', args[-1])
                self.ok(tool, args[-1], *args[:-1])  # operands first
                self.ok(tool, args[-1], *args[:-1], '--')

    def test_extra_operand(self):
        for tool, args in self.least.items():
            with self.subTest(tool):
                self.refused(tool, *args, 'extra', code=2)
                self.refused(tool, *args, args[-1], code=2)
                self.refused(tool, *args, '', code=2)
        self.refused('bnt-synth', '--like', 'tiny', '--form', 'masters', '-o', self.path('o'), 'extra', code=2, names='extra')
        self.nothing_in(self.dir, ['stream'])

    def test_missing_operand(self):
        for tool, args in self.least.items():
            if tool != 'bnt-pack':  # which reads standard input then
                with self.subTest(tool):
                    self.refused(tool, *args[:-1], code=2)
                    self.refused(tool, *args[:-1], '--', code=2)
        for args in ((), ('--like', 'tiny'), ('--like', 'tiny', '--form', 'masters'), ('--form', 'masters', '-o', self.path('o'))):
            self.refused('bnt-synth', *args, code=2)
        self.refused('bnt-pack')

    def test_after_two_dashes_nothing_is_an_option(self):
        for tool, args in self.least.items():
            with self.subTest(tool):
                self.refused(tool, *args[:-1], '--', '--help', names='--help', cwd=self.dir)
                self.refused(tool, *args[:-1], '--', '--', names='--', cwd=self.dir)
        self.refused('bnt-synth', '--', '--help', code=2)

    def test_files_whose_names_begin_with_a_dash(self):
        os.symlink(self.model, self.path('--help'))
        os.symlink(self.model, self.path('-q'))
        for name in ('--help', '-q'):
            self.assertEqual(self.ok('bnt-verify', '--', name, cwd=self.dir), b'')
            self.ok('bnt-run', '-q', '-n', '1', '-p', 'x', '--', name, cwd=self.dir)
            self.ok('bnt-verify', './' + name, cwd=self.dir)

    def test_a_dash_is_standard_input_or_output(self):
        self.same(self.ok('bnt-pack', '-', '-o', '-', input=tools.read(self.stream)), tools.read(packed(tools.MASTERS)))
        self.same(self.ok('bnt-convert', '-o', '-', tools.MASTERS), tools.converted(tools.MASTERS))
        for tool in ('bnt-verify', 'bnt-info'):
            raw = tools.read(self.model)
            piped = self.ok(tool, '-', input=raw)
            with open(self.model, 'rb') as file:
                self.assertEqual(self.ok(tool, '-', stdin=file), piped)
            with open(self.model, 'rb') as file:
                self.assertEqual(self.ok(tool, '--', '-', stdin=file), piped)
        self.nothing_in(self.dir, ['stream'])

    def test_long_options_may_have_their_argument_apart(self):
        for args in (['--jobs', '1'], ['--jobs=1'], ['-j1'], ['-j', '1'], ['-qj1'], ['--quiet']):
            self.ok('bnt-convert', *args, tools.MASTERS)
            self.ok('bnt-pack', *args, self.stream)

    def test_edges_of_numbers(self):
        run = ('bnt-run', self.model, '-q', '-p', 'Once', '-n', '1')
        for args in (['--seed', '0'], ['--seed', '18446744073709551615'], ['--temp', '0'], ['--temp', '100'], ['--temp', '1e1'],
                     ['--temp', '.5'], ['--top-p', '1'], ['--top-p', '0.000001'], ['--top-k', '0'], ['--top-k', '4294967295'],
                     ['--min-p', '0'], ['--min-p', '1'], ['--repetition-penalty', '100'], ['--repetition-penalty', '1e-6'],
                     ['--presence-penalty', '-2'], ['--presence-penalty=2'], ['--frequency-penalty', '-2'], ['--frequency-penalty', '2'],
                     ['-n', '0'], ['-t', '1'], ['-t', '256'], ['-c', '3'], ['-c', '1024'], ['--device', 'cpu'],
                     ['--device', 'auto'], ['-n', '007']):
            with self.subTest(args):
                self.ok(*run, *args)
        for cache in ('f16', 'f32'):
            self.ok(*run, '--cache', cache)
            self.ok('bnt-eval', self.model, '--cache', cache, '--tokenize', 'x')
        self.assertEqual(self.ok(*run, '-n', '0').strip(), b'')
        self.refused(*run, '-c', '1025', names='1024')
        self.refused(*run, '-c', '1')  # no room for the prompt


    def test_empty_names(self):
        """What "$(bnt-fetch REPO)" gives where that failed is no file name; the message says so."""
        for tool, args in self.least.items():
            with self.subTest(tool):
                self.refused(tool, *args[:-1], '', code=2, names=['is empty', '$('])
        for args in (['bnt-convert', '-o', '', FAIRY], ['bnt-pack', '-o', '', self.stream], ['bnt-verify', '--source', '', self.model],
                     ['bnt-eval', self.model, '--perplexity', ''], ['bnt-eval', self.model, '--logits', '', '--token-ids', '1'],
                     ['bnt-run', self.model, '-f', ''], ['bnt-fetch', ''], ['bnt-fetch', 'a/b', '--local-dir', ''],
                     ['bnt', 'get', '', '-o', self.path('o')], ['bnt', 'get', FAIRY, '-o', '']):
            with self.subTest(args):
                self.refused(*args, code=2, names='is empty')
        self.nothing_in(self.dir, ['stream'])

    def test_version_says_what_is_built_in(self):
        self.assertRegex(self.ok('bnt-run', '--version').decode(),
                         r'^bnt-run \S+\nkernels of this processor: .*\nGPU support: (CUDA \d+\.\d+|not built in)\n$')


class Together(Case):
    """Options that need or exclude one another."""

    def usage(self, *args):
        with self.subTest(args):
            self.refused(*args, code=2)

    def test_run(self):
        model = packed()
        self.usage('bnt-run', model)
        self.usage('bnt-run', model, '-p', 'x', '-f', 'y')
        self.usage('bnt-run', model, '-p', 'x', '--token-ids', '1')
        self.usage('bnt-run', model, '-f', 'x', '--token-ids', '1')
        self.usage('bnt-run', model, '-p', 'x', '--stop', '')
        self.usage('bnt-run', model, '-p', 'x', '--chat')
        self.usage('bnt-run', model, '-p', 'x', '--system', 'y')
        self.refused('bnt-run', model, '--chat', names='template')  # the model has none
        self.refused('bnt-run', packed(tools.MASTERS), '--chat')
        self.usage('bnt-run', model, '-p', 'x', *['--stop=x'] * 33)
        self.ok('bnt-run', model, '-q', '-p', 'x', '-n', '1', *['--stop=zzz'] * 32)

    def test_eval(self):
        model = packed()
        modes = [['--perplexity', os.path.join(GOLDEN, 'eval.txt')], ['--tokenize', 'x'], ['--detokenize', '1'],
                 ['--logits', self.path('o'), '--token-ids', '1']]
        self.usage('bnt-eval', model)
        for i, one in enumerate(modes):
            for other in modes[i + 1:]:
                self.usage('bnt-eval', model, *one, *other)
        self.usage('bnt-eval', model, '--logits', self.path('o'))
        self.usage('bnt-eval', model, '--token-ids', '1')
        self.usage('bnt-eval', model, '--token-ids', '1', '--tokenize', 'x')
        self.nothing_in(self.dir)

    def test_ids(self):
        """Not a matter of usage alone, since they may come from a file; but never silently something else."""
        model = packed()
        for ids in ('x', '1,,2', '1,', ',1', ',', '1;2', '-1', '1 2', '4294967296', '1.5', '0x1', '+1', '1,x'):
            for args in (['bnt-run', model, '--token-ids', ids], ['bnt-eval', model, '--detokenize', ids],
                         ['bnt-eval', model, '--logits', '-', '--token-ids', ids]):
                done = tools.run(*args)
                with self.subTest(args[1:]):
                    self.assertIn(done.code, (1, 2))
                    self.one_line(done, args[0], done.code, ids)
                    self.assertEqual(done.out, b'')
            self.refused('bnt-eval', model, '--detokenize', '-', input=ids.encode(), names=ids)
        for args in (['bnt-run', model, '--token-ids', ''], ['bnt-eval', model, '--logits', '-', '--token-ids', '']):
            done = tools.run(*args)
            self.one_line(done, args[0], done.code or 1)
        self.assertEqual(self.ok('bnt-eval', model, '--detokenize', ''), b'')

    def test_bench(self):
        model = packed()
        self.usage('bnt-bench')
        self.usage('bnt-bench', '-p', '0', '-n', '0', model)
        self.usage('bnt-bench', '-n', '1', model)
        self.usage('bnt-bench', '--gemv', model)
        self.usage('bnt-bench', '--gemv', '-r', '0')

    def test_bench_edges(self):
        common = ('bnt-bench', packed(), '-q', '-r', '1')
        for args in (['-p', '0', '-n', '2'], ['-p', '1', '-n', '0'], ['-p', '2', '-n', '3', '--cache', 'f32', '--device', 'auto'],
                     ['-p', '2', '-n', '0', '-t', '256'], ['-p', '1024', '-n', '0']):
            with self.subTest(args):
                self.ok(*common, *args)
        for args in (['-p', '1025'], ['-n', '1025', '-p', '0'], ['-p', '16777216'], ['-n', '16777216']):
            with self.subTest(args):
                self.refused(*common, *args, names=['1024', '-p', '-n'])

    def test_kernel(self):
        self.refused('bnt-bench', packed(), '--kernel', 'nonsense', names='nonsense')
        self.refused('bnt-bench', '--gemv', '--kernel', 'nonsense', names='nonsense')
        self.refused('bnt-run', packed(), '-p', 'x', '--kernel', 'nonsense', names='nonsense')
        self.refused('bnt-eval', packed(), '--tokenize', 'x', '--kernel', '', names='kernel')

    def test_synth(self):
        self.refused('bnt-synth', '--like', 'tiny', '--form', 'packed', '--dtype', 'f32', '-o', self.path('o'), code=2)
        self.refused('bnt-synth', '--like', 'no-such-name', '--form', 'packed', '-o', self.path('o'), names='no-such-name')
        self.nothing_in(self.dir)


if __name__ == '__main__':
    tools.main()
