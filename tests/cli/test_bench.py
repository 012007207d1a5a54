#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bnt-bench: the shape of what it prints, and that its figures agree with one another and with bnt-info. Not how fast anything is."""
import functools
import json
import os
import re
import unittest

import tools
from tools import Case, packed

PROMPT, TOKENS = 8, 4
QUICK = ('-q', '-r', '1', '-p', str(PROMPT), '-n', str(TOKENS))
SERIES = {'median', 'min', 'max'}
BOTH = {'device', 'rounds', 'prompt_tokens', 'decode_tokens', 'prompt_tokens_per_second', 'prompt_share_of_int8',
        'operations_per_prompt_token', 'decode', 'read_gb_per_second', 'int8_gop_per_second', 'open_seconds',
        'first_token_seconds', 'peak_memory_bytes', 'file_bytes', 'cache_bytes'}
TOP = BOTH | {'kernel', 'threads'}
TOP_GPU = BOTH | {'device_start_seconds', 'device_memory_bytes', 'texts', 'steps'}
TEXTS = [(i, o) for i in (64, 256, 512) for o in (16, 32, 64)]
STEPS = [1, 512, 2000]


@functools.lru_cache(maxsize=None)
def packed_int8(checkpoint=tools.FAIRY):
    """As tools.packed, with the int8 copy of the output matrix."""
    path = os.path.join(tools.module_folder(), re.sub(r'\W', '_', checkpoint) + '.int8.bnt')
    done = tools.run('bnt-pack', '-q', '--embedding', 'int8', '-o', path, input=tools.converted(checkpoint))
    if done.code != 0:
        raise AssertionError(done.err)
    return path


@functools.lru_cache(maxsize=None)
def kernels():
    lines = tools.run('bnt-run', '--version').out.decode().splitlines()
    return re.sub(r'\(.*?\)', '', lines[1].split(':')[1]).split()


class Bench(Case):
    def info(self, model):
        return json.loads(self.ok('bnt-info', model, '--json'))

    def section(self, model, name):
        return next(s['size'] for s in self.info(model)['sections'] if s['type'] == name)

    def json(self, *args, **options):
        return json.loads(self.ok('bnt-bench', '--json', *args, **options).decode('utf-8'))

    def check_series(self, series, above=0.0):
        self.assertEqual(set(series), SERIES)
        self.assertGreater(series['min'], above)
        self.assertLessEqual(series['min'], series['median'])
        self.assertLessEqual(series['median'], series['max'])

    def check_empty(self, series):
        self.assertEqual(series, dict.fromkeys(SERIES, 0.0))


    def check_texts(self, out, context):
        """Whole texts and steps: those that the model has room for, and figures that agree with one another."""
        outputs = [decode['output'] for decode in out['decode']]
        texts = [(o, *t) for o in outputs for t in TEXTS if sum(t) - 1 <= context]
        steps = [(o, c) for o in outputs for c in STEPS if c + 25 <= context]
        self.assertEqual([(t['output'], t['prompt_tokens'], t['decode_tokens']) for t in out['texts']], texts)
        self.assertEqual([(s['output'], s['context']) for s in out['steps']], steps)
        for text in out['texts']:
            for name in ('seconds', 'first_token_seconds', 'prompt_tokens_per_second', 'tokens_per_second', 'share_of_read'):
                self.check_series(text[name])
            self.assertLess(text['first_token_seconds']['median'], text['seconds']['median'])
            if out['rounds'] == 1:
                first, rest = text['first_token_seconds']['median'], text['decode_tokens'] - 1
                rest /= text['seconds']['median'] - first
                self.assertAlmostEqual(text['prompt_tokens_per_second']['median'] * first / text['prompt_tokens'], 1, places=4)
                self.assertAlmostEqual(text['tokens_per_second']['median'] / rest, 1, places=3)
        for step in out['steps']:
            for name in ('greedy_seconds', 'sampled_seconds', 'share_of_read'):
                self.check_series(step[name])


class Json(Bench):
    def test_everything(self):
        model = packed()
        out = self.json(*QUICK, '-r', '3', model)
        self.assertEqual(set(out), TOP)
        self.assertEqual((out['rounds'], out['prompt_tokens'], out['decode_tokens']), (3, PROMPT, TOKENS))
        self.assertEqual((out['device'], out['kernel']), ('cpu', kernels()[0]))
        self.assertGreaterEqual(out['threads'], 1)
        for name in ('prompt_tokens_per_second', 'prompt_share_of_int8', 'read_gb_per_second', 'int8_gop_per_second'):
            if 'int8' in name and out['kernel'] == 'scalar':
                continue
            self.check_series(out[name])
        self.assertEqual([d['output'] for d in out['decode']], ['bf16 output'])
        for decode in out['decode']:
            self.assertEqual(set(decode), {'output', 'tokens_per_second', 'bytes_per_token', 'share_of_read'})
            self.check_series(decode['tokens_per_second'])
            self.check_series(decode['share_of_read'])
        self.assertEqual(out['file_bytes'], os.path.getsize(model))
        self.assertLess(0, out['open_seconds'])
        self.assertLess(out['open_seconds'], out['first_token_seconds'])

    def test_one_round_has_one_value(self):
        out = self.json(*QUICK, packed())
        series = [out[name] for name in TOP if isinstance(out[name], dict)]
        for decode in out['decode']:
            series += [decode['tokens_per_second'], decode['share_of_read']]
        self.assertEqual(len(series), 6)
        for one in series:
            self.assertEqual(len(set(one.values())), 1, out)

    def test_shares_are_those_of_the_rates(self):
        out = self.json(*QUICK, packed())
        decode, = out['decode']
        for name in SERIES:
            share = decode['tokens_per_second'][name] * decode['bytes_per_token'] * 1e-9 / out['read_gb_per_second'][name]
            self.assertAlmostEqual(decode['share_of_read'][name] / share, 1, places=4)
            if kernels()[0] != 'scalar':
                rate = out['prompt_tokens_per_second'][name] * out['operations_per_prompt_token'] * 1e-9
                self.assertAlmostEqual(out['prompt_share_of_int8'][name] * out['int8_gop_per_second'][name] / rate, 1, places=4)

    def test_operations(self):
        """Two for each ternary weight: those that bnt-info counts."""
        for model in (packed(), packed(tools.PACKED), packed(tools.PACKED_DIVIDE), packed(tools.MASTERS)):
            hyper = self.info(model)['hyperparameters']
            q, kv = hyper['n_heads'] * hyper['head_dim'], hyper['n_kv_heads'] * hyper['head_dim']
            weights = hyper['n_layers'] * hyper['hidden_size'] * (2 * q + 2 * kv + 3 * hyper['ffn_size'])
            self.assertEqual(self.json(*QUICK, model)['operations_per_prompt_token'], 2 * weights)

    def test_bytes_of_a_token(self):
        """All ternary sections, and one output matrix: the embedding or the other, or the int8 copy with its scales."""
        for checkpoint in [tools.FAIRY] + tools.VARIANTS:
            with self.subTest(os.path.basename(checkpoint)):
                model = packed_int8(checkpoint)
                hyper, ternary = self.info(model)['hyperparameters'], self.section(model, 'TERN')
                size = {'bf16': 2, 'f32': 4}[hyper['embeddings']]
                output = hyper['vocab_size'] * hyper['hidden_size']
                full, int8 = self.json(*QUICK, model)['decode']
                self.assertEqual((full['output'], full['bytes_per_token']),
                                 (hyper['embeddings'] + ' output', ternary + size * output))
                self.assertEqual((int8['output'], int8['bytes_per_token']),
                                 ('int8 output, exact', ternary + output + 4 * hyper['vocab_size']))
                if hyper['tied'] and hyper['embeddings'] == 'bf16':
                    self.assertEqual(full['bytes_per_token'], ternary + self.section(model, 'EMBD'))
                self.assertLessEqual(abs(int8['bytes_per_token'] - ternary - self.section(model, 'EMB8')), 4096)

    @unittest.skipIf(tools.SANITIZE, 'sanitizers take memory of their own')
    def test_memory(self):
        """The process's own peak: it is not that of whoever started it, which is large here."""
        ballast = b'x' * (300 << 20)
        out = self.json(*QUICK, '-t', '2', packed_int8())
        read = out['decode'][0]['bytes_per_token'] + self.section(packed_int8(), 'EMB8')  # decoded both ways
        self.assertGreater(out['peak_memory_bytes'], max(read, out['file_bytes'] - 200000))  # the tokenizer is not read
        self.assertLess(out['peak_memory_bytes'], out['file_bytes'] + (50 << 20))
        self.assertEqual(len(ballast), 300 << 20)

    def test_cache(self):
        hyper = self.info(packed())['hyperparameters']
        position = hyper['n_layers'] * 2 * hyper['n_kv_heads'] * hyper['head_dim']
        for cache, size in (('f16', 2), ('f32', 4)):
            got = self.json(*QUICK, '--cache', cache, '-p', '40', packed())['cache_bytes']
            self.assertEqual(got % (position * size), 0)
            self.assertTrue(40 <= got // (position * size) < 40 + 32, got)

    def test_parts_left_out(self):
        out = self.json(*QUICK, '-p', '0', packed())
        self.check_empty(out['prompt_tokens_per_second'])
        self.check_empty(out['prompt_share_of_int8'])
        self.assertEqual((out['prompt_tokens'], len(out['decode'])), (0, 1))
        out = self.json(*QUICK, '-n', '0', packed())
        self.check_series(out['prompt_tokens_per_second'])
        self.assertEqual((out['decode_tokens'], out['decode']), (0, []))
        self.check_empty(out['read_gb_per_second'])

    def test_end_to_end(self):
        for model in (packed(), packed_int8(), packed_int8(tools.MASTERS)):
            for rounds in ('1', '2'):
                out = self.json(*QUICK, '-r', rounds, '--end-to-end', model)
                self.assertEqual(set(out), TOP | {'texts', 'steps'})
                self.check_texts(out, self.info(model)['hyperparameters']['max_context'])
        out = self.json(*QUICK, '-p', '0', '-n', '0', '--end-to-end', packed())
        self.assertEqual((len(out['texts']), out['decode']), (9, []))
        self.check_series(out['read_gb_per_second'])

    def test_threads(self):
        for threads in (1, 2, 3):
            out = self.json(*QUICK, '-t', str(threads), packed_int8())
            self.assertEqual(out['threads'], threads)
            self.assertEqual(len(out['decode']), 2)

    def test_kernels(self):
        for name in kernels():
            with self.subTest(name):
                out = self.json(*QUICK, '--kernel', name, packed_int8())
                self.assertEqual(out['kernel'], name)
                for decode in out['decode']:
                    self.check_series(decode['tokens_per_second'])
                if name == 'scalar':  # has no instruction of its own to be compared with
                    self.check_empty(out['int8_gop_per_second'])
                    self.check_empty(out['prompt_share_of_int8'])
                else:
                    self.check_series(out['int8_gop_per_second'])
                    self.check_series(out['prompt_share_of_int8'])
        out = self.json(*QUICK, packed(), env=tools.environment(BNT_KERNEL='scalar'))
        self.assertEqual(out['kernel'], 'scalar')

    def test_smallest_models(self):
        """Their matrices are smaller than what is read at once."""
        for checkpoint in tools.VARIANTS:
            with self.subTest(os.path.basename(checkpoint)):
                out = self.json(*QUICK, packed_int8(checkpoint))
                for decode in out['decode']:
                    self.check_series(decode['tokens_per_second'])
                    self.check_series(decode['share_of_read'])


class Markdown(Bench):
    NUMBER = r'\d+(?:\.\d+)?'

    def rows(self, *args):
        lines = self.ok('bnt-bench', *args).decode('utf-8').splitlines()
        self.assertEqual(lines[1], '')
        self.assertEqual(lines[-2], '')
        return lines[0], lines[2:-2], lines[-1]

    def check_table(self, table, names):
        """A header, a rule and as many rows of as many cells as there should be."""
        self.assertEqual(len(table), 2 + len(names))
        self.assertEqual(len({line.count('|') for line in table}), 1, table)
        self.assertRegex(table[1], r'^\|(---\|)+$')
        for line, name in zip(table[2:], names):
            self.assertRegex(line, r'^\| %s \| %s \(%s – %s\) \| .* \|$' % ((re.escape(name),) + (self.NUMBER,) * 3))
            self.assertNotRegex(line, 'nan|inf')

    def test_rows(self):
        prompt = 'prompt, %d tokens' % PROMPT
        decode = 'decode, %d tokens, ' % TOKENS
        for args, names in (([packed()], [prompt, decode + 'bf16 output']),
                            ([packed_int8()], [prompt, decode + 'bf16 output', decode + 'int8 output, exact']),
                            ([packed(tools.MASTERS)], [prompt, decode + 'f32 output']),
                            (['-p', '0', packed_int8()], [decode + 'bf16 output', decode + 'int8 output, exact']),
                            (['-n', '0', packed_int8()], [prompt]),
                            (['--kernel', 'scalar', packed()], [prompt, decode + 'bf16 output'])):
            with self.subTest(args):
                first, table, last = self.rows(*QUICK, *args)
                self.check_table(table, names)
                self.assertTrue(first.startswith(args[-1] + ', kernel '))
                self.assertIn(' 1 rounds', first)
                self.assertRegex(last, r'^open %s s, first token after %s s; peak memory %s MB = file %s MB \+ cache %s MB \+ -?%s MB$'
                                 % ((self.NUMBER,) * 6))

    def test_end_to_end(self):
        for model, room in ((packed(), 1024), (packed_int8(tools.PACKED), 256)):
            lines = self.ok('bnt-bench', *QUICK, '--end-to-end', model).decode('utf-8').splitlines()
            tables = '\n'.join(lines[2:-2]).split('\n\n')
            kinds = 1 + (room == 256)
            self.assertEqual([table.count('\n') - 1 for table in tables], [1 + kinds, 9 * kinds, 3 * kinds])
            for table in tables:
                self.assertEqual(len({line.count('|') for line in table.splitlines()}), 1, table)
                self.assertNotRegex(table, 'nan|inf')
            short = '| the model has room for %d tokens |' % room
            self.assertEqual([table.count(short) for table in tables], [0, 0, 1] if room == 1024 else [0, 6 * kinds, 2 * kinds])
            for line in tables[1].splitlines()[2:]:
                if short not in line:
                    self.assertRegex(line, r'^\| \d+ \| \d+ \| \w+ output.* \|( \S+ \(\S+ – \S+\) \|)( %s \|){3} \d+ %% \|$' % self.NUMBER)

    def test_figures_are_those_of_json(self):
        """Different runs, so only what does not depend on speed."""
        _, table, last = self.rows(*QUICK, packed())
        size = json.loads(self.ok('bnt-info', packed(), '--json'))['file_size']
        self.assertIn('file %.0f MB' % (size * 1e-6), last)
        self.assertRegex(table[-1], r'\| 0\.\d{3} GB a token, %s GB/s \| \d+ %% of %s GB/s read \|$' % (self.NUMBER, self.NUMBER))


class Refused(Bench):
    def test_files(self):
        raw = tools.read(packed())
        self.refused('bnt-bench', self.path('missing.bnt'), names='missing.bnt')
        self.refused('bnt-bench', self.dir, names=os.path.basename(self.dir))
        self.refused('bnt-bench', self.file('empty.bnt'), names='empty.bnt')
        self.refused('bnt-bench', self.file('short.bnt', raw[:5000]), names='short.bnt')
        self.refused('bnt-bench', self.file('header.bnt', raw[:40] + b'\xff' + raw[41:]), names='header.bnt')
        self.refused('bnt-bench', self.file('words.bnt', b'words\n' * 1000), names='words.bnt')
        self.refused('bnt-bench', os.path.join(tools.FAIRY, 'config.json'), '--json', names='config.json')

    def test_output_full(self):
        for args in ((), ('--json',)):
            with open('/dev/full', 'wb') as full:
                self.one_line(tools.run('bnt-bench', *QUICK, *args, packed(), stdout=full), 'bnt-bench', 1, 'standard output')

    def test_context(self):
        self.refused('bnt-bench', '-q', '-r', '1', '-p', '0', '-n', '5000', packed(), names=['1024', '-n'])
        self.refused('bnt-bench', '-q', '-r', '1', '-p', '5000', '-n', '0', packed(), names=['1024', '-p'])


@unittest.skipIf(tools.SANITIZE, 'half a gigabyte, and slow')
class Products(Bench):
    SHAPES = [(2560, 2560), (3840, 2560), (13824, 2560), (2560, 6912), (3200, 3200), (4800, 3200), (3200, 10240), (20480, 3200)]

    def within(self, value, series):
        self.assertGreaterEqual(value, series['min'] * 0.9999)
        self.assertLessEqual(value, series['max'] * 1.0001)

    def test_json(self):
        out = self.json('--gemv', '-q', '-r', '1', '-t', '2')
        self.assertEqual((out['kernel'], out['threads'], out['rounds'], out['batch_tokens']), (kernels()[0], 2, 1, 128))
        self.check_series(out['read_gb_per_second'])
        self.assertEqual([(s['rows'], s['cols']) for s in out['shapes']], self.SHAPES)
        for shape in out['shapes']:
            for name in ('cold_gb_per_second', 'cold_share_of_read', 'warm_gb_per_second', 'batch_gop_per_second'):
                self.check_series(shape[name])
            # The yardstick is measured anew for each shape; the result has its range over all of them.
            self.within(shape['cold_gb_per_second']['median'] / shape['cold_share_of_read']['median'], out['read_gb_per_second'])
            if out['kernel'] != 'scalar':
                self.within(shape['batch_gop_per_second']['median'] / shape['batch_share_of_int8']['median'],
                            out['int8_gop_per_second'])


@functools.lru_cache(maxsize=None)
def why_no_gpu():
    """What bnt-run says when the GPU is asked for; '' if it works."""
    done = tools.run('bnt-run', '-q', '--device', 'cuda', '--token-ids', '1', '-n', '1', packed())
    return done.err if done.code else ''


class Device(Bench):
    def test_no_gpu(self):
        """One line, the same as bnt-run's."""
        if not why_no_gpu():
            self.skipTest('there is a GPU')
        for args in ([packed()], ['--gemv'], ['--json', packed()], ['--end-to-end', packed()]):
            err = self.refused('bnt-bench', *QUICK, '--device', 'cuda', *args)
            self.assertEqual(err, why_no_gpu().replace('bnt-run:', 'bnt-bench:'))

    def test_auto(self):
        """The GPU if it can be used, unless a CPU's kernel is named."""
        out = self.json(*QUICK, '--device', 'auto', packed())
        self.assertEqual(out['device'] == 'cpu', bool(why_no_gpu()))
        for args, env in ((['--kernel', 'scalar'], {}), ([], {'BNT_KERNEL': 'scalar'})):
            out = self.json(*QUICK, '--device', 'auto', *args, packed(), env=tools.environment(**env))
            self.assertEqual((out['device'], out['kernel']), ('cpu', 'scalar'))


class Gpu(Bench):
    """The shape of what is measured on a GPU, where there is one."""

    def setUp(self):
        super().setUp()
        if why_no_gpu():
            self.skipTest(why_no_gpu())

    def gpu(self, *args, **options):
        return self.json('-q', '-r', '2', '--device', 'cuda', *args, **options)

    def test_model(self):
        for checkpoint in [tools.FAIRY] + tools.VARIANTS:
            with self.subTest(os.path.basename(checkpoint)):
                model = packed_int8(checkpoint)
                hyper = self.info(model)['hyperparameters']
                out = self.gpu('-p', str(PROMPT), '-n', str(TOKENS), model)
                self.assertEqual(set(out), TOP_GPU)
                for name in ('prompt_tokens_per_second', 'prompt_share_of_int8', 'read_gb_per_second', 'int8_gop_per_second'):
                    self.check_series(out[name])
                self.assertEqual(len(out['decode']), 2)
                for decode in out['decode']:
                    self.check_series(decode['tokens_per_second'])
                self.check_texts(out, hyper['max_context'])
                self.assertEqual(out['file_bytes'], os.path.getsize(model))
                self.assertLess(out['file_bytes'] + out['cache_bytes'], out['device_memory_bytes'])
                self.assertLess(out['device_memory_bytes'], out['file_bytes'] + out['cache_bytes'] + (256 << 20))

    def test_products(self):
        bf16 = {'bf16_cold_seconds', 'bf16_warm_seconds', 'cold_times_bf16', 'warm_times_bf16'}
        for path in ('', '/nowhere/libcublas.so'):
            out = self.gpu('--gemv', env=tools.environment(BNT_CUBLAS=path or os.environ.get('BNT_CUBLAS', '')))
            self.assertEqual(set(out), {'device', 'rounds', 'read_gb_per_second', 'int8_gop_per_second', 'token_seconds', 'shapes'})
            self.assertEqual([(s['rows'], s['cols']) for s in out['shapes']], Products.SHAPES)
            for name in ('read_gb_per_second', 'int8_gop_per_second', 'token_seconds'):
                self.check_series(out[name])
            for shape in out['shapes']:
                for name in ('cold_gb_per_second', 'cold_share_of_read', 'warm_gb_per_second'):
                    self.check_series(shape[name])
                self.assertEqual([batch['tokens'] for batch in shape['batches']], [64, 256, 512])
                for batch in shape['batches']:
                    self.check_series(batch['gop_per_second'])
                    self.check_series(batch['share_of_int8'])
                if path:
                    self.assertEqual([shape[name] for name in bf16], [None] * 4)
                    self.assertEqual([batch['times_bf16'] for batch in shape['batches']], [None] * 3)

    def test_tables(self):
        for args, rows in (([packed()], [2, 9, 3]), (['--gemv'], [8, 8])):
            lines = self.ok('bnt-bench', '-q', '-r', '1', '--device', 'cuda', *args,
                            env=tools.environment(BNT_CUBLAS='/nowhere/libcublas.so')).decode('utf-8').splitlines()
            tables = [t for t in '\n'.join(lines).split('\n\n') if t.startswith('|')]
            self.assertEqual([table.count('\n') - 1 for table in tables], rows)
            for table in tables:
                self.assertEqual(len({line.count('|') for line in table.splitlines()}), 1, table)
                self.assertNotRegex(table, 'nan|inf')
            self.assertEqual('/nowhere/libcublas.so' in '\n'.join(lines), '--gemv' in args)


if __name__ == '__main__':
    tools.main()
