#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Full disks, signals, closed pipes and files that are not what they should be: a clear error, nothing half-written."""
import fcntl
import functools
import json
import os
import pty
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
import unittest

import tools
from tools import Case, FAIRY, MASTERS, Checkpoint, Result, converted, packed, read, write

NOBODY = 65534
F_SETPIPE_SZ = 1031
MATRIX = 'model.layers.0.self_attn.q_proj.weight'
SOON = tools.TIMEOUT  # a tool that waits for nothing has long ended


def stream_file():
    """The path of fairy-6m's stream."""
    path = os.path.join(tools.module_folder(), 'fairy.safetensors')
    if not os.path.exists(path):
        tools.write(path, converted(FAIRY))
    return path


def small_stream():
    path = os.path.join(tools.module_folder(), 'small.safetensors')
    if not os.path.exists(path):
        tools.write(path, converted(MASTERS))
    return path


def writers(out, checkpoint=FAIRY):
    """What writes a file OUT, or standard output where OUT is -."""
    return {
        'bnt-convert': ['bnt-convert', checkpoint, '-o', out],
        'bnt-pack': ['bnt-pack', stream_file(), '-o', out],
        'bnt-pack --matrix': ['bnt-pack', stream_file(), '--matrix', MATRIX, '-o', out],
        'bnt-eval --logits': ['bnt-eval', packed(), '--logits', out, '--token-ids', ','.join(['7'] * 100)],
    }


@functools.lru_cache(maxsize=None)
def expected_output(title):
    """What writers() write."""
    path = os.path.join(tools.module_folder(), 'expected')
    done = tools.run(*writers(path)[title])
    assert done.code == 0, done.err
    return read(path)


def printers():
    """What prints text on standard output."""
    return {
        'bnt-info': ['bnt-info', packed(), '--tensors'],
        'bnt-info --json': ['bnt-info', packed(), '--json'],
        'bnt-verify --json': ['bnt-verify', packed(), '--json'],
        'bnt-eval --tokenize': ['bnt-eval', packed(), '--tokenize', 'Once upon a time'],
        'bnt-eval --tokenize --json': ['bnt-eval', packed(), '--tokenize', 'Once upon a time', '--json'],
        'bnt-eval --detokenize': ['bnt-eval', packed(), '--detokenize', '39,425,78'],
        'bnt-run': ['bnt-run', packed(), '-q', '-p', 'Once', '-n', '300', '--ignore-eos'],
        'bnt-run, ids': ['bnt-run', packed(MASTERS), '-q', '--token-ids', '1', '-n', '100', '--ignore-eos'],
    }


def close(descriptor):
    return lambda: os.close(descriptor)


def state_of(process):
    """S: it sleeps; R: it runs."""
    return read('/proc', str(process), 'stat').rpartition(b') ')[2][:1].decode()


def as_nobody(case):
    """The options of run() for a tool without root's rights, to whom files can be unreadable."""
    if not tools.is_root():
        return {}
    options = {'user': NOBODY, 'group': NOBODY, 'extra_groups': []}
    try:
        if tools.run('bnt-info', '--version', **options).code != 0:
            case.skipTest('the tools cannot be run by another user')
    except PermissionError:
        case.skipTest('the tools cannot be run by another user')
    os.chmod(case.dir, 0o777)
    os.chmod(tools.module_folder(), 0o755)
    return options


class FullDisk(Case):
    def check_file(self, args, folder, names, **options):
        """A tool that writes folder/out fails with one line; an older file of that name stays."""
        out = os.path.join(folder, 'out')
        tools.write(out, b'older')
        self.refused(*args, names=[out] + names, **options)
        self.nothing_in(folder, ['out'])
        self.assertEqual(read(out), b'older')
        os.remove(out)
        self.refused(*args, names=[out] + names, **options)
        self.nothing_in(folder)

    def mount(self, size):
        folder = self.path('disk')
        os.makedirs(folder, exist_ok=True)
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=%dk,mode=755' % (size >> 10), 'tmpfs', folder],
                              capture_output=True, check=False)
        if done.returncode != 0:
            self.skipTest('cannot mount a tmpfs here: %r' % done.stderr)
        self.addCleanup(subprocess.run, ['umount', '-l', folder], check=False, stderr=subprocess.DEVNULL)
        return folder

    def resize(self, size):
        subprocess.run(['mount', '-o', 'remount,size=%dk' % (size >> 10), self.path('disk')], check=True)

    def test_file_system(self):
        if not tools.is_root():
            self.skipTest('only root can mount a file system')
        folder = self.mount(256 << 10)
        for title, args in writers(os.path.join(folder, 'out')).items():
            if title != 'bnt-pack --matrix':  # whose output is small
                with self.subTest(title):
                    self.check_file(args, folder, ['No space left on device'])
        self.resize(8 << 10)
        self.check_file(writers(os.path.join(folder, 'out'))['bnt-pack --matrix'], folder, ['No space left on device'])

    def test_file_system_of_every_size(self):
        """From nothing to just enough: whatever write is the first to fail."""
        if not tools.is_root():
            self.skipTest('only root can mount a file system')
        folder, expected = self.mount(4 << 10), read(packed(MASTERS))
        out, written, sizes = os.path.join(folder, 'out'), 0, range(4 << 10, len(expected) + (24 << 10), 12 << 10)
        for size in sizes:
            self.resize(size)
            done = tools.run('bnt-pack', small_stream(), '-o', out, '-j', '2')
            with self.subTest(size=size):
                if done.code == 0:
                    self.assertEqual(done.err, '')
                    self.same(read(out), expected)
                    os.remove(out)
                    written += 1
                else:
                    self.one_line(done, 'bnt-pack', 1, [out, 'No space left on device'])
                self.nothing_in(folder)
        self.assertTrue(0 < written < len(sizes) / 2)

    def test_temporary_folder(self):
        """What is spooled lies in $TMPDIR."""
        if not tools.is_root():
            self.skipTest('only root can mount a file system')
        folder = self.mount(64 << 10)
        env = tools.environment(TMPDIR=folder)
        self.refused('bnt-pack', small_stream(), names=['standard output', folder, 'TMPDIR', 'No space left on device'], env=env)
        self.refused('bnt-verify', '-', input=read(packed()), names=['standard input', folder, 'No space left on device'], env=env)
        self.refused('bnt-info', '-', input=read(packed()), names=['standard input', 'No space left on device'], env=env)
        self.nothing_in(folder)
        env = tools.environment(TMPDIR=self.path('absent'))
        self.refused('bnt-pack', small_stream(), names=[self.path('absent'), 'No such file or directory'], env=env)
        self.refused('bnt-verify', '-', input=read(packed()), names=['standard input', 'No such file'], env=env)

    def test_device(self):
        for title, args in {**writers('-'), **printers()}.items():
            with self.subTest(title), open('/dev/full', 'wb') as full:
                done = tools.run(*args, stdout=full)
                self.one_line(done, args[0], 1, ['standard output', 'No space left on device'])

    def limit(self, size, disposition):
        def prepare():
            signal.signal(signal.SIGXFSZ, disposition)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return prepare

    def test_limit_of_the_file_size(self):
        folder = self.folder('folder')
        for title, args in writers(os.path.join(folder, 'out')).items():
            with self.subTest(title):
                self.check_file(args, folder, ['File too large'], preexec_fn=self.limit(12345, signal.SIG_IGN))
        for title, args in {**writers('-'), **printers()}.items():
            if title.startswith('bnt-pack') and '--matrix' not in title:
                continue  # spools first: next test
            with self.subTest(title), open(self.path('stdout'), 'wb') as out:
                done = tools.run(*args, stdout=out, preexec_fn=self.limit(3, signal.SIG_IGN))
                self.one_line(done, args[0], 1, ['standard output', 'File too large'])

    def test_limit_of_the_spooled_size(self):
        with open(self.path('stdout'), 'wb') as out:
            done = tools.run('bnt-pack', small_stream(), stdout=out, preexec_fn=self.limit(1000, signal.SIG_IGN))
        self.one_line(done, 'bnt-pack', 1, 'File too large')

    def test_limit_that_nobody_ignores(self):
        """ulimit -f in a shell: the default of SIGXFSZ is death, which would leave the temporary file behind."""
        folder = self.folder('folder')
        for title, args in writers(os.path.join(folder, 'out')).items():
            with self.subTest(title):
                done = tools.run(*args, preexec_fn=self.limit(12345, signal.SIG_DFL))
                self.assertEqual(os.listdir(folder), [])
                self.one_line(done, args[0], 1, 'File too large')


class Signals(Case):
    def wait_for(self, condition, process):
        """True once the condition holds, False if the process ended before."""
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            if condition():
                return True
            if process.poll() is not None:
                return False
            time.sleep(0.0005)
        self.fail('nothing happened')

    def folder_with(self, older):
        folder = tempfile.mkdtemp(dir=self.dir)
        if older:
            tools.write(os.path.join(folder, 'out'), b'older')
        return folder

    def check_end(self, process, number, folder, older):
        code = process.wait(timeout=tools.TIMEOUT)
        process.stderr.close()
        self.assertEqual(code, -number)  # the parent sees that a signal ended it
        self.nothing_in(folder, ['out'] if older else [])
        if older:
            self.assertEqual(read(folder, 'out'), b'older')

    def test_pack_in_the_middle_of_its_stream(self):
        stream = converted(FAIRY)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for older in (False, True):
                for share in (0.01, 0.3, 0.7):
                    folder = self.folder_with(older)
                    process = tools.start('bnt-pack', '-j', '2', '-o', os.path.join(folder, 'out'), stdin=subprocess.PIPE)
                    process.stdin.write(stream[:int(len(stream) * share)])
                    process.stdin.flush()
                    found = self.wait_for(lambda: len(os.listdir(folder)) > older, process)
                    self.assertTrue(found, 'a temporary file is expected beside the final one')
                    process.send_signal(number)
                    with self.subTest(number=number, older=older, share=share):
                        self.check_end(process, number, folder, older)
                    process.stdin.close()

    def interrupt(self, args, number, older):
        """Signal a tool soon after its temporary file is there. It may be faster than we are: then once more."""
        for _ in range(20):
            folder = self.folder_with(older)
            process = tools.start(*args, os.path.join(folder, 'out'), stdin=subprocess.DEVNULL)
            if self.wait_for(lambda: len(os.listdir(folder)) > older, process):
                time.sleep(0.003)
                process.send_signal(number)
                if process.wait(timeout=tools.TIMEOUT) != 0:
                    return self.check_end(process, number, folder, older)
            process.stderr.close()
            self.assertEqual(process.returncode, 0)
        self.fail('never fast enough to interrupt it')

    def large(self):
        """A checkpoint large enough to be met at work."""
        checkpoint = Checkpoint(FAIRY)
        checkpoint.config.update(vocab_size=60000)
        path = tools.write(os.path.join(tools.module_folder(), 'large.json'), json.dumps(checkpoint.config).encode())
        return tools.synthetic(like=path)

    def test_convert(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            for older in (False, True):
                with self.subTest(number=number, older=older):
                    self.interrupt(['bnt-convert', '-j', '1', self.large(), '-o'], number, older)

    def test_eval(self):
        ids = ','.join(['7'] * 900)
        for number, older in ((signal.SIGTERM, False), (signal.SIGINT, True)):
            with self.subTest(number=number, older=older):
                self.interrupt(['bnt-eval', packed(), '--kernel', 'scalar', '-t', '1', '--token-ids', ids, '--logits'], number, older)

    def test_the_moment_at_which_the_temporary_file_appears(self):
        """There must be none between its making and the tool's knowing that it has to be removed."""
        ids = ','.join(['7'] * 900)
        left = []
        for i in range(100):
            folder = self.folder_with(False)
            process = tools.start(*[['bnt-pack', '-o'], ['bnt-eval', packed(), '--token-ids', ids, '--logits']][i % 2],
                                  os.path.join(folder, 'out'), stdin=subprocess.PIPE)
            while not os.listdir(folder) and process.poll() is None:
                pass
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=tools.TIMEOUT)
            process.stdin.close()
            process.stderr.close()
            left += [name for name in os.listdir(folder) if code != 0]
        self.assertEqual(left, [])

    def test_run_dies_of_an_interrupt(self):
        process = tools.start('bnt-run', packed(), '-q', '-t', '1', '-p', 'Once', '-n', '1000', '--ignore-eos', stdout=subprocess.PIPE,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(len(process.stdout.read(3)), 3)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=SOON), -signal.SIGINT)
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b'')
        process.stderr.close()

    def test_what_was_ignored_stays_ignored(self):
        """nohup, and commands that a shell starts in the background: their SIGHUP or SIGINT is no business of the tool."""
        stream = converted(FAIRY)
        for number in (signal.SIGHUP, signal.SIGINT):
            folder = self.folder_with(False)
            out = os.path.join(folder, 'out')
            process = tools.start('bnt-pack', '-o', out, stdin=subprocess.PIPE,
                                  preexec_fn=lambda number=number: signal.signal(number, signal.SIG_IGN))
            process.stdin.write(stream[:len(stream) // 2])
            process.stdin.flush()
            self.assertTrue(self.wait_for(lambda: os.listdir(folder), process))
            process.send_signal(number)
            with self.subTest(number=number):
                try:
                    process.stdin.write(stream[len(stream) // 2:])
                    process.stdin.flush()
                except BrokenPipeError:
                    pass  # it died; the assertion says how
                _, err = process.communicate(timeout=tools.TIMEOUT)
                self.assertEqual((process.returncode, err), (0, b''))
                self.same(read(out), read(packed()))


class Pipes(Case):
    def check_closed(self, args, size, ignored=False, **options):
        """Read so many bytes, then close the pipe; 0: it was closed before. The pipe is small, so that a tool with much
        to say cannot have ended before. It ends as by SIGPIPE, and in silence; where that is ignored, as a failure."""
        reader, writer = os.pipe()
        if size:
            fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
        else:
            os.close(reader)
        process = tools.start(*args, stdout=writer, restore_signals=not ignored, **options)  # Python ignores SIGPIPE itself
        os.close(writer)
        while size > 0:
            size -= len(os.read(reader, size))
            if size <= 0:
                os.close(reader)
        err = process.stderr.read().decode()
        process.stderr.close()
        self.assertEqual((process.wait(timeout=tools.TIMEOUT), err), (1 if ignored else -signal.SIGPIPE, ''))

    def test_reader_that_takes_a_little(self):
        for title, args in writers('-').items():
            for size in (1, 100, 10000):
                if '--matrix' not in title:  # whose whole output may fit in a pipe
                    with self.subTest(title, size=size):
                        self.check_closed(args, size, stdin=subprocess.DEVNULL)
        run = printers()['bnt-run']
        with self.subTest('bnt-run'):
            self.check_closed([*run[:-3], '-n', '900', '--ignore-eos', '-t', '1'], 10, stdin=subprocess.DEVNULL)

    def test_reader_that_takes_nothing(self):
        for title, args in {**writers('-'), **printers()}.items():
            for ignored in (False, True):
                with self.subTest(title, ignored=ignored):
                    self.check_closed(args, 0, ignored, stdin=subprocess.DEVNULL)
        for tool in ('bnt', 'bnt-fetch', 'bnt-convert', 'bnt-pack', 'bnt-verify', 'bnt-info', 'bnt-run', 'bnt-eval', 'bnt-bench'):
            for option in ('--help', '--version'):
                with self.subTest(tool, option=option):
                    self.check_closed([tool, option], 0, stdin=subprocess.DEVNULL)
        self.check_closed(['bnt', 'help', 'pack'], 0, stdin=subprocess.DEVNULL)
        self.check_closed(['bnt', 'info', packed()], 0, stdin=subprocess.DEVNULL)
        self.check_closed(['bnt', 'info', packed()], 0, True, stdin=subprocess.DEVNULL)
        self.check_closed(['bnt-bench', packed(), '-q', '-p', '1', '-n', '0', '-r', '1'], 0, stdin=subprocess.DEVNULL)

    def test_whole_pipelines_of_a_shell(self):
        """With the signals as a shell leaves them: it shows a death by SIGPIPE as 141."""
        for first, last in (('bnt-convert %s' % FAIRY, 'head -c 100'), ('bnt-info --tensors %s' % packed(), 'true'),
                            ('bnt-run %s -q -p Once -n 900 --ignore-eos -t 1' % packed(), 'head -c 10'),
                            ('bnt-convert %s | bnt-pack' % FAIRY, 'head -c 100')):
            line = '{ %s; echo "$?" > status; } | %s > out' % (first, last)
            env = tools.environment(PATH=tools.BIN + ':' + os.environ['PATH'])
            done = subprocess.run(['sh', '-c', line], cwd=self.dir, env=env, capture_output=True, timeout=tools.TIMEOUT, check=False)
            with self.subTest(first):
                self.assertEqual(done.stderr, b'')
                # Where nothing is read, all may have gone into the pipe before that was closed.
                self.assertIn(int(read(self.path('status'))), (141, 0) if last == 'true' else (141,))

    def test_failed_writer(self):
        """The next tool of a pipeline blames the one that writes, not what came; it makes nothing."""
        out = self.path('out')
        for args in (['bnt-pack', '-o', out], ['bnt-pack'], ['bnt-verify', '-'], ['bnt-verify', '-', '--json'], ['bnt-info', '-'],
                     ['bnt-run', packed(), '-f', '-'], ['bnt-eval', packed(), '--perplexity', '-']):
            with self.subTest(args):
                self.refused(*args, input=b'', names=['standard input', 'the command that was to write it has failed'])
        stream = read(small_stream())
        for size in (1, 8, 100, len(stream) // 2, len(stream) - 1):
            with self.subTest(size=size):
                err = self.refused('bnt-pack', '-o', out, input=stream[:size],
                                   names=['standard input', 'the command that writes it has stopped'])
                self.assertNotIn('truncated', err)
        self.refused('bnt-pack', self.file('cut', stream[:100]), names='truncated')  # no pipe: the file it is
        self.nothing_in(self.dir, ['cut'])

    def through_pipe(self, data, *args, **options):
        """Run a tool with a pipe as {}, as a shell's <(...) names it."""
        reader, writer = os.pipe()
        feeder = threading.Thread(target=lambda: [os.write(writer, data), os.close(writer)])
        feeder.start()
        try:
            return tools.run(*[arg.format('/dev/fd/%d' % reader) for arg in args], pass_fds=[reader], **options)
        finally:
            feeder.join()
            os.close(reader)

    def test_a_pipe_for_a_file(self):
        """Wherever a file is read once."""
        text = read(tools.GOLDEN, 'eval.txt')[:20000]
        path = self.file('text', text)
        for args in (['bnt-eval', packed(), '--perplexity', '{}', '--window', '64'],
                     ['bnt-run', packed(), '-q', '--temp', '0', '-n', '5', '-c', '1024', '-f', '{}']):
            data = text if args[0] == 'bnt-eval' else b'Once upon a time'
            tools.write(path, data)
            with self.subTest(args):
                expected = self.ok(*[arg.format(path) for arg in args])
                self.assertEqual(self.through_pipe(data, *args), (0, expected, ''))
                self.assertEqual(self.ok(*[arg.format('-') for arg in args], input=data), expected)
                os.mkfifo(self.path('fifo'))
                feeder = threading.Thread(target=lambda data=data: [time.sleep(0.2), tools.write(self.path('fifo'), data)])
                feeder.start()
                self.assertEqual(self.ok(*[arg.format(self.path('fifo')) for arg in args]), expected)
                feeder.join()
                os.remove(self.path('fifo'))
        for tool in ('bnt-verify', 'bnt-info'):
            done = self.through_pipe(read(packed()), tool, '{}')
            self.assertEqual((done.code, done.err), (0, ''))
        done = self.through_pipe(read(small_stream()), 'bnt-pack', '{}')
        self.same(done.out, read(packed(MASTERS)))
        for args in (['bnt-eval', packed(), '--perplexity', '{}'], ['bnt-run', packed(), '-f', '{}'], ['bnt-info', '{}'], ['bnt-pack', '{}']):
            self.one_line(self.through_pipe(b'', *args), args[0], 1, ['/dev/fd/', 'nothing came'])
        done = self.through_pipe(b'\xff', 'bnt-run', packed(), '-f', '{}')
        self.one_line(done, 'bnt-run', 1, ['/dev/fd/', 'UTF-8'])


class Terminal(Case):
    def on_terminal(self, *args):
        """(result, what the terminal got) of a tool whose standard output is a terminal."""
        master, slave = pty.openpty()
        got = []

        def drain():
            try:
                while True:
                    got.append(os.read(master, 4096))
            except OSError:
                pass  # EIO: the other side is closed

        reader = threading.Thread(target=drain)
        reader.start()
        done = tools.run(*args, stdout=slave)
        os.close(slave)
        reader.join()
        os.close(master)
        return done, b''.join(got)

    def test_binary_output_is_refused(self):
        for title, args in writers('-').items():
            for some in (args, args[:-2] if args[-2] == '-o' else args):
                done, got = self.on_terminal(*some)
                with self.subTest(title):
                    self.one_line(done, args[0], 1, ['standard output', 'terminal'])
                    self.assertEqual(got, b'')

    def test_text_is_not(self):
        done, got = self.on_terminal('bnt-eval', packed(), '--detokenize', '39,425,78')
        self.assertEqual((done.code, done.err, got), (0, '', b'Hello\r\n'))
        done, got = self.on_terminal('bnt-run', packed(), '-q', '--temp', '0', '-n', '3', '-p', 'Once')
        self.assertEqual((done.code, done.err), (0, ''))

    def test_stream_from_a_terminal_is_refused(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.refused('bnt-pack', '-o', self.path('out'), stdin=slave, names=['standard input', 'terminal'])
        os.close(slave)
        self.nothing_in(self.dir)


class Inputs(Case):
    """Whatever is read, as PATH: missing, a directory, empty, unreadable, a FIFO."""

    def readers(self, path):
        return {
            'bnt-pack': ['bnt-pack', path], 'bnt-pack --matrix': ['bnt-pack', path, '--matrix', 'm'],
            'bnt-verify': ['bnt-verify', path], 'bnt-verify --json': ['bnt-verify', path, '--json'], 'bnt-info': ['bnt-info', path],
            'bnt-run': ['bnt-run', path, '--token-ids', '1'], 'bnt-eval': ['bnt-eval', path, '--tokenize', 'x'],
            'bnt-eval --logits': ['bnt-eval', path, '--logits', self.path('out'), '--token-ids', '1'],
            'bnt-convert': ['bnt-convert', path, '-o', self.path('out')], 'bnt-verify --source': ['bnt-verify', packed(), '--source', path],
            'bnt-run -f': ['bnt-run', packed(), '-f', path], 'bnt-eval --perplexity': ['bnt-eval', packed(), '--perplexity', path],
            'bnt-synth': ['bnt-synth', '--form', 'masters', '-o', self.path('out'), '--like', path],
        }
    def check(self, path, but=(), names=(), **options):
        for title, args in self.readers(path).items():
            if title not in but:
                with self.subTest(title):
                    self.refused(*args, names=[path, *names], **options)
                    self.assertFalse(os.path.exists(self.path('out')))

    def test_missing(self):
        self.check(self.path('absent'), names=['No such file'], but=['bnt-synth'])
        self.check(self.path('absent', 'more'), names=['No such file'], but=['bnt-synth'])
        self.refused('bnt-synth', '--form', 'masters', '-o', self.path('out'), '--like', self.path('absent'), names=self.path('absent'))
        self.check(os.path.join(packed(), 'x'), names=['Not a directory'], but=['bnt-synth'])

    def test_name_too_long(self):
        path = self.path('x' * 300)
        for title, args in self.readers(path).items():
            if title != 'bnt-synth':
                with self.subTest(title):
                    self.refused(*args, names=[path, 'File name too long'])

    def test_directory(self):
        path = self.folder('folder')
        self.check(path, but=['bnt-synth'])

    def test_empty(self):
        self.check(self.file('empty'), but=['bnt-run -f', 'bnt-convert', 'bnt-verify --source', 'bnt-verify --json'])
        done = tools.run('bnt-verify', '--json', self.path('empty'))
        self.assertEqual((done.code, done.err, json.loads(done.out)['valid']), (1, '', False))
        self.refused('bnt-convert', self.path('empty'), names=self.path('empty'))

    def test_control_characters_of_a_name(self):
        """One line whatever the name; and it does not steer the terminal."""
        for name in ('two\nlines', 'red\x1b[31m', 'back\b\r'):
            path = self.path(name)
            for title, args in self.readers(path).items():
                if title != 'bnt-synth':  # serves tests alone
                    with self.subTest(title, name=name):
                        self.one_line(tools.run(*args), args[0], 1)
            shutil.copy(packed(), path)
            with open(path, 'r+b') as file:
                file.seek(20)
                file.write(b'\xff')
            for tool in ('bnt-info', 'bnt-run', 'bnt-eval'):
                with self.subTest(tool, name=name):
                    done = tools.run(*self.readers(path)[tool])
                    self.one_line(done, tool, 1, 'R')
            done = tools.run('bnt-verify', path)  # a line for each broken rule
            lines = done.err.splitlines()
            with self.subTest('bnt-verify', name=name):
                self.assertEqual([line for line in lines if not line.startswith('bnt-verify: ')], [])
                self.assertNotRegex(done.err, '[\x00-\x09\x0b-\x1f\x7f]')
            os.remove(path)
            checkpoint = Checkpoint(tools.synthetic())
            del checkpoint.config['quantization_config']
            with self.subTest('not ternary', name=name):
                self.one_line(tools.run('bnt-convert', checkpoint.save(path)), 'bnt-convert', 1, '--force')
            shutil.rmtree(path)

    def test_unreadable(self):
        options = as_nobody(self)
        path = self.file('secret', read(packed()))
        os.chmod(path, 0)
        folder = self.folder('folder')
        os.chmod(folder, 0)
        for title, args in self.readers(path).items():
            if title not in ('bnt-convert', 'bnt-verify --source', 'bnt-synth'):
                with self.subTest(title):
                    self.refused(*args, names=[path, 'Permission denied'], **options)
        for title in ('bnt-convert', 'bnt-verify --source'):
            with self.subTest(title):
                self.refused(*self.readers(folder)[title], names=[folder, 'Permission denied'], **options)
        checkpoint = Checkpoint(tools.synthetic()).save(self.path('checkpoint'))
        for name in ('config.json', 'model.safetensors'):
            os.chmod(os.path.join(checkpoint, name), 0)
            with self.subTest(name):
                self.refused('bnt-convert', checkpoint, names=[os.path.join(checkpoint, name), 'Permission denied'], **options)
            os.chmod(os.path.join(checkpoint, name), 0o644)
        self.ok('bnt-convert', checkpoint, **options)

    def test_fifo_that_nobody_writes(self):
        path = self.path('fifo')
        os.mkfifo(path)
        waits = ['bnt-pack', 'bnt-verify', 'bnt-verify --json', 'bnt-info']  # could read what comes; next test
        self.check(path, but=waits + ['bnt-synth'], timeout=SOON)
        checkpoint = Checkpoint(tools.synthetic()).save(self.path('checkpoint'))
        for name in ('config.json', 'tokenizer.json', 'README.md', 'model.safetensors', 'model.safetensors.index.json'):
            inside = os.path.join(checkpoint, name)
            # The index is read where there is no whole file.
            kept = {path: read(path) for path in {inside, inside.replace('.index.json', '')} if os.path.exists(path)}
            for path in kept:
                os.remove(path)
            os.mkfifo(inside)
            with self.subTest(name):
                self.refused('bnt-convert', checkpoint, names=name, timeout=SOON)
                self.refused('bnt-verify', packed(), '--source', checkpoint, names=name, timeout=SOON)
            os.remove(inside)
            for path, data in kept.items():
                tools.write(path, data)

    def through_fifo(self, data, *args):
        path = self.path('fifo')
        feeder = threading.Thread(target=lambda: tools.write(path, data))
        feeder.start()
        try:
            return self.ok(*args, timeout=SOON)
        finally:
            feeder.join()

    def test_fifo_that_somebody_writes(self):
        path = self.path('fifo')
        os.mkfifo(path)
        self.same(self.through_fifo(read(small_stream()), 'bnt-pack', path), read(packed(MASTERS)))
        self.assertEqual(self.through_fifo(read(packed()), 'bnt-verify', path), b'')
        self.through_fifo(read(packed()), 'bnt-info', path)

    def test_devices(self):
        self.check('/dev/null', but=['bnt-run -f', 'bnt-verify --json'], timeout=SOON)
        for title in ('bnt-run', 'bnt-eval', 'bnt-convert', 'bnt-run -f', 'bnt-eval --perplexity', 'bnt-verify --source'):
            with self.subTest(title):
                self.refused(*self.readers('/dev/zero')[title], names='/dev/zero', timeout=SOON)

    def stdin_readers(self):
        return {
            'bnt-pack': ['bnt-pack', '-o', self.path('out')], 'bnt-verify': ['bnt-verify', '-'], 'bnt-info': ['bnt-info', '-'],
            'bnt-run -f': ['bnt-run', packed(), '-f', '-'], 'bnt-eval --tokenize': ['bnt-eval', packed(), '--tokenize', '-'],
            'bnt-eval --detokenize': ['bnt-eval', packed(), '--detokenize', '-'],
            'bnt-eval --perplexity': ['bnt-eval', packed(), '--perplexity', '-'],
        }

    def test_standard_input_closed(self):
        for title, args in self.stdin_readers().items():
            with self.subTest(title):
                self.refused(*args, names='standard input', stdin=None, preexec_fn=close(0))
                self.nothing_in(self.dir)

    def test_standard_input_is_a_directory(self):
        for title, args in self.stdin_readers().items():
            descriptor = os.open(self.dir, os.O_RDONLY)
            with self.subTest(title):
                self.refused(*args, names='standard input', stdin=descriptor)
                self.nothing_in(self.dir)
            os.close(descriptor)

    def test_standard_input_empty(self):
        for title in ('bnt-pack', 'bnt-verify', 'bnt-info', 'bnt-eval --perplexity'):
            with self.subTest(title):
                done = tools.run(*self.stdin_readers()[title])
                self.one_line(done, title.split()[0], 1)
                self.assertRegex(done.err, 'standard input|: -:')
                self.nothing_in(self.dir)

    def test_text_that_is_not_utf8_names_its_file(self):
        path = self.file('text', b'good so far \xff')
        self.refused('bnt-eval', packed(), '--perplexity', path, names=[path, 'UTF-8'])
        self.refused('bnt-run', packed(), '-f', path, names=[path, 'UTF-8'])
        self.refused('bnt-eval', packed(), '--perplexity', path, '--window', '100000', names=path)


class Mapped(Case):
    """A file that becomes shorter while it is mapped: one line, exit status 1, nothing left."""
    def full_pipe(self):
        """Its ends: who writes to it waits until it is read."""
        ends = os.pipe()
        fcntl.fcntl(ends[1], F_SETPIPE_SZ, 4096)
        os.write(ends[1], b'x' * 4095 + b'\n')
        return ends

    def wait_until(self, condition):
        end = time.monotonic() + tools.TIMEOUT
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)

    def ended(self, process, tool, names, err):
        self.one_line(Result(process.wait(tools.TIMEOUT), b'', err.decode()), tool, 1, ['shorter', *names])

    def test_convert_leaves_nothing(self):
        """Held by its own words, which nobody reads, while the file is truncated."""
        shutil.copytree(FAIRY, self.path('in'))
        read_end, write_end = self.full_pipe()
        process = tools.start('bnt-convert', '--force', '-j', '1', self.path('in'), '-o', self.path('out'), stderr=write_end)
        self.addCleanup(process.kill)
        os.close(write_end)
        self.wait_until(lambda: len(os.listdir(self.dir)) == 2 and state_of(process.pid) == 'S')
        os.truncate(self.path('in', 'model.safetensors'), 4096)
        with os.fdopen(read_end, 'rb') as file:
            last = file.read().splitlines(keepends=True)[-1]
        self.ended(process, 'bnt-convert', [self.path('in', 'model.safetensors')], last)
        self.nothing_in(self.dir, ['in'])

    def test_convert_into_a_pipe(self):
        shutil.copytree(FAIRY, self.path('in'))
        os.mkfifo(self.path('fifo'))
        process = tools.start('bnt-convert', self.path('in'), '-o', self.path('fifo'))
        self.addCleanup(process.kill)
        with open(self.path('fifo'), 'rb') as file:
            file.read(65536)  # of 7 MB: the rest cannot have been written yet
            os.truncate(self.path('in', 'model.safetensors'), 4096)
            while file.read(65536):
                pass
        self.ended(process, 'bnt-convert', [], process.communicate()[1])

    def test_run(self):
        model = self.file('model', read(packed()))
        read_end, write_end = self.full_pipe()
        process = tools.start('bnt-run', model, '-q', '-p', 'Once', '--ignore-eos', '--device', 'cpu', stdout=write_end)
        self.addCleanup(process.kill)
        os.close(write_end)
        self.wait_until(lambda: model.encode() in read('/proc', str(process.pid), 'maps') and state_of(process.pid) == 'S')
        os.truncate(model, 4096)
        with os.fdopen(read_end, 'rb') as file:
            file.read()
        self.ended(process, 'bnt-run', [model, 'offset'], process.communicate()[1])

    def test_maps_are_private(self):
        """Some file systems cannot share them (FUSE with direct_io)."""
        model = packed()
        process = tools.start('bnt-eval', model, '--perplexity', '-', '-q', stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.kill)
        end, found = time.monotonic() + tools.TIMEOUT, []
        while not found:
            self.assertLess(time.monotonic(), end)
            found = [line for line in read('/proc', str(process.pid), 'maps').decode().splitlines() if line.endswith(model)]
            time.sleep(0.01)
        self.assertEqual([line.split()[1] for line in found], ['r--p'] * len(found))
        process.communicate(b'', timeout=tools.TIMEOUT)


class Outputs(Case):
    def check(self, out, names, convert=FAIRY, **options):
        before = {name: os.lstat(self.path(name)).st_mode for name in os.listdir(self.dir)}
        for title, args in writers(out, convert).items():
            with self.subTest(title):
                self.refused(*args, names=[out, *names], timeout=SOON, **options)
                self.assertEqual({name: os.lstat(self.path(name)).st_mode for name in os.listdir(self.dir)}, before)

    def test_into_a_missing_directory(self):
        self.check(self.path('absent', 'out'), ['No such file or directory'])
        self.check(os.path.join(packed(), 'out'), ['Not a directory'])
        self.refused('bnt-synth', '--like', 'tiny', '--form', 'masters', '-o', self.path('absent', 'out'), names=self.path('absent', 'out'))

    def test_onto_a_directory(self):
        folder = self.folder('folder')
        for out in (folder, folder + '/', self.path('.'), self.path('absent') + '/'):
            self.check(out, [])
        self.nothing_in(folder)

    def everywhere(self, out):
        """(title, arguments, what they write) of all that makes a file."""
        for title, args in writers(out).items():
            yield title, args, expected_output(title)
        yield 'bnt get', ['bnt', 'get', '-q', FAIRY, '-o', out], expected_output('bnt-pack')

    def test_into_what_is_no_file(self):
        """Pipes and devices are written to, by whatever name, and stay what they are."""
        fifo, link, device = self.path('fifo'), self.path('link'), self.path('device')
        os.mkfifo(fifo)
        os.symlink('fifo', link)
        for name in (fifo, link):
            for title, args, expected in self.everywhere(name):
                with self.subTest(title, name=name):
                    with tempfile.TemporaryFile() as got, subprocess.Popen(['cat', fifo], stdout=got) as reader:
                        self.addCleanup(reader.kill)
                        self.ok(*args)
                        self.assertEqual(reader.wait(tools.TIMEOUT), 0)
                        got.seek(0)
                        self.same(got.read(), expected)
        if tools.is_root():
            try:
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # another /dev/null
                open(device, 'wb').close()
            except OSError:
                device = '/dev/null'
        else:
            device = '/dev/null'
        before = os.lstat(device)
        for title, args, _ in self.everywhere(device):
            with self.subTest(title):
                self.ok(*args)
                self.assertEqual(os.lstat(device)[:6], before[:6])
        self.nothing_in(self.dir, [name for name in ('device', 'fifo', 'link') if os.path.lexists(self.path(name))])

    def test_into_descriptors(self):
        """/dev/stdout and its like are written on from where they stand, never replaced or emptied."""
        path = self.path('out')
        for name, redirection in (('/dev/stdout', ''), ('/dev/fd/1', ''), ('/proc/self/fd/7', '7>&1')):
            for title, args, expected in self.everywhere(name):
                with self.subTest(title, name=name):
                    line = '(printf before; "$@" %s; printf after) >"$0"' % redirection
                    done = subprocess.run(['sh', '-c', line, path, *tools.command(args)], env=tools.environment(),
                                          capture_output=True, timeout=tools.TIMEOUT, check=False)
                    self.assertEqual(done.stderr, b'')
                    self.same(read(path), b'before' + expected + b'after')
        with open(path, 'rb') as file:
            self.refused(*writers('/dev/fd/0')['bnt-convert'], stdin=file, names=['/dev/fd/0', 'writing'])
        self.refused(*writers('/dev/fd/77')['bnt-convert'], names=['/dev/fd/77'])

    def test_onto_a_file(self):
        """It keeps its mode, and a link to it, or to one that is not there yet, stays a link."""
        for title, args, expected in self.everywhere(self.path('link')):
            for name, mode in (('old', 0o640), ('new', None)):
                with self.subTest(title, name=name):
                    shutil.rmtree(self.path('folder'), ignore_errors=True)
                    target = os.path.join(self.folder('folder'), name)
                    if mode:
                        os.chmod(write(target, b'older'), mode)
                    if os.path.lexists(self.path('link')):
                        os.remove(self.path('link'))
                    os.symlink(os.path.join('folder', name), self.path('link'))
                    self.ok(*args)
                    self.assertEqual(os.readlink(self.path('link')), os.path.join('folder', name))
                    self.same(read(target), expected)
                    if mode:
                        self.assertEqual(os.stat(target).st_mode & 0o7777, mode)
                    self.nothing_in(self.path('folder'), [name])
        self.nothing_in(self.dir, ['folder', 'link'])

    def test_onto_links_that_lead_nowhere(self):
        os.symlink('loop', self.path('loop'))
        os.symlink('absent/file', self.path('astray'))
        for title, args, _ in self.everywhere(self.path('loop')):
            self.refused(*args, names=[self.path('loop'), 'symbolic links'])
        for title, args, _ in self.everywhere(self.path('astray')):
            self.refused(*args, names=[self.path('astray'), 'No such file'])
        self.nothing_in(self.dir, ['astray', 'loop'])

    def test_onto_a_file_that_may_not_be_written(self):
        options = as_nobody(self)
        path = write(self.path('out'), b'kept')
        os.chmod(path, 0o444)
        for title, args, _ in self.everywhere(path):
            if title == 'bnt get':
                args[args.index(FAIRY)] = tools.synthetic()
            elif title == 'bnt-convert':
                args[1] = tools.synthetic()
            with self.subTest(title):
                self.refused(*args, names=[path, 'Permission denied'], **options)
                self.assertEqual(read(path), b'kept')
        self.nothing_in(self.dir, ['out'])

    def test_name_too_long(self):
        self.check(self.path('x' * 300), ['File name too long'])
        self.check(self.path('x' * 252), ['File name too long'])  # the temporary name is longer

    def test_into_a_directory_without_permission(self):
        options = as_nobody(self)
        folder = self.folder('folder')
        os.chmod(folder, 0o555)
        self.check(os.path.join(folder, 'out'), ['Permission denied'], convert=tools.synthetic(), **options)

    def test_onto_an_input(self):
        """By its name, by another one, or as a standard stream: an input is never replaced."""
        folder, stream = self.path('checkpoint'), self.file('stream', read(small_stream()))
        shutil.copytree(MASTERS, folder)
        model = self.file('model', read(packed(MASTERS)))
        inputs = [os.path.join(folder, name) for name in ('model.safetensors', 'config.json')]
        cases = [(path, args) for path in inputs for args in (['bnt-convert', folder], ['bnt', 'get', '-q', folder])]
        cases += [(stream, ['bnt-pack', stream]), (stream, ['bnt-pack', stream, '--matrix', MATRIX]),
                  (model, ['bnt-eval', model, '--token-ids', '1'])]
        for path, args in cases:
            os.symlink(path, self.path('link'))
            os.link(path, self.path('other'))
            for out in (path, self.path('link'), self.path('other')):
                with self.subTest(args[0], out=out):
                    before = read(path)
                    self.refused(*args, '--logits' if args[0] == 'bnt-eval' else '-o', out, names=[out, 'input'])
                    self.same(read(path), before)
            os.remove(self.path('link'))
            os.remove(self.path('other'))
        with open(stream, 'rb') as file:
            self.refused('bnt-pack', '-o', stream, stdin=file, names=[stream, 'standard input'])
        with open(inputs[0], 'ab') as file:
            self.refused('bnt-convert', folder, stdout=file, names=['standard output', inputs[0]])
        self.same(read(inputs[0]), read(MASTERS, 'model.safetensors'))
        self.nothing_in(self.dir, ['checkpoint', 'model', 'stream'])

    def test_beside_the_inputs(self):
        """A new file in the folder of the checkpoint, and an earlier one of ours."""
        folder = self.path('checkpoint')
        shutil.copytree(MASTERS, folder)
        for _ in range(2):
            self.ok('bnt', 'get', '-q', folder, '-o', os.path.join(folder, 'model.bnt'))
            self.ok('bnt-convert', folder, '-o', os.path.join(folder, 'ternary.st'))
        self.same(read(folder, 'model.bnt'), read(packed(MASTERS)))

    def test_closed(self):
        """Not only an error: the descriptor may be that of a file that the tool has opened since."""
        for title, args in {**writers('-'), **printers()}.items():
            with self.subTest(title):
                self.one_line(tools.run(*args, stdout=None, preexec_fn=close(1), timeout=SOON), args[0], 1, 'standard output')
        with self.subTest('bnt-pack, from standard input'), open(small_stream(), 'rb') as file:
            done = tools.run('bnt-pack', stdin=file, stdout=None, preexec_fn=close(1), timeout=SOON)
            self.one_line(done, 'bnt-pack', 1, 'standard output')

    def test_closed_where_it_is_not_needed(self):
        """Each of the three closed, alone and together, changes nothing about a file that is written."""
        expected = {}
        for title, args in writers(self.path('expected')).items():
            self.ok(*args)
            expected[title] = read(self.path('expected'))
        for closed in ((0,), (1,), (2,), (0, 1, 2)):
            for title, args in writers(self.path('out')).items():
                with self.subTest(title, closed=closed):
                    done = tools.run(*args, stdin=None, preexec_fn=lambda closed=closed: [os.close(n) for n in closed])
                    self.assertEqual((done.code, done.out, done.err), (0, b'', ''))
                    self.same(read(self.path('out')), expected[title])
                    os.remove(self.path('out'))
            with self.subTest('bnt-verify', closed=closed):
                done = tools.run('bnt-verify', packed(), stdin=None, preexec_fn=lambda closed=closed: [os.close(n) for n in closed])
                self.assertEqual((done.code, done.out, done.err), (0, b'', ''))

    def test_words_never_end_in_the_output(self):
        """With standard error closed, the output file may get its number."""
        self.ok('bnt-convert', '--force', FAIRY, '-o', self.path('out'), quiet=False, stderr=None, preexec_fn=close(2))
        self.same(read(self.path('out')), converted(FAIRY))
        with open(self.path('out'), 'wb') as out:
            self.ok('bnt-pack', '--embedding', 'bf16', small_stream(), quiet=False, stdout=out, stderr=None, preexec_fn=close(2))
        self.same(read(self.path('out')), self.ok('bnt-pack', '--embedding', 'bf16', small_stream(), quiet=False))

    def test_messages_name_the_file_though_standard_input_is_closed(self):
        """The file then gets the descriptor of standard input."""
        path = self.file('file', b'no stream')
        self.refused('bnt-pack', path, '-o', self.path('out'), names=path, stdin=None, preexec_fn=close(0))
        self.refused('bnt-info', path, names=path, stdin=None, preexec_fn=close(0))

    def test_older_file_is_kept_until_the_end(self):
        """While a file is replaced, its name holds the old bytes, and then at once the new ones."""
        out = self.file('out', b'older')
        process = tools.start('bnt-pack', '-o', out, stdin=subprocess.PIPE)
        stream = converted(MASTERS)
        process.stdin.write(stream[:-1])
        process.stdin.flush()
        end = time.monotonic() + SOON
        while len(os.listdir(self.dir)) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        temporary = [name for name in os.listdir(self.dir) if name != 'out']
        self.assertEqual(len(temporary), 1)
        self.assertTrue(temporary[0].startswith('.'))
        self.assertTrue(stat.S_ISREG(os.stat(self.path(temporary[0])).st_mode))
        self.assertEqual(read(out), b'older')
        process.communicate(stream[-1:], timeout=tools.TIMEOUT)
        self.assertEqual(process.returncode, 0)
        self.same(read(out), read(packed(MASTERS)))
        self.nothing_in(self.dir, ['out'])


if __name__ == '__main__':
    tools.main()
