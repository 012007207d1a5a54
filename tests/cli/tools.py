# SPDX-License-Identifier: MIT
"""What the tests of the command-line tools share: paths, processes, temporary folders, checkpoints to alter.

The tools are those of $BNT_BIN (default: build/bin of the repository). $BNT_SANITIZE is not empty where they are
built with sanitizers, which are slow and hold more memory. Python 3.9 or later, standard library only.
"""
import atexit
import functools
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
from collections import namedtuple

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
BIN = os.path.abspath(os.environ.get('BNT_BIN') or os.path.join(ROOT, 'build', 'bin'))
DATA = os.path.join(ROOT, 'tests', 'data')
FAIRY = os.path.join(DATA, 'fairy-6m')
GOLDEN = os.path.join(FAIRY, 'golden')
MASTERS = os.path.join(DATA, 'variants', '1bitllm-f32')        # f32 masters, BitnetForCausalLM
PACKED = os.path.join(DATA, 'variants', '2b-packed')           # U8, weight_scale multiplies
PACKED_DIVIDE = os.path.join(DATA, 'variants', 'llama-packed')  # U8, weight_scale divides, untied
VARIANTS = [MASTERS, PACKED, PACKED_DIVIDE]
QWEN3_GROUPS = os.path.join(DATA, 'variants', 'qwen3-g128')         # three levels by row and 128 columns, embedding too
LLAMA_ROWS = os.path.join(DATA, 'variants', 'llama-levels-rows')    # three levels by row
QWEN2_BIAS = os.path.join(DATA, 'variants', 'qwen2-bias')           # three levels by matrix, biases
LINEAR_NORM = os.path.join(DATA, 'variants', 'linear-norm')         # U8, a norm before each linear
LEVELS = [QWEN3_GROUPS, LLAMA_ROWS, QWEN2_BIAS]                     # ordinary floats that hold three levels
VERSION_2 = LEVELS + [LINEAR_NORM]                                  # what they need
SANITIZE = os.environ.get('BNT_SANITIZE', '')
TIMEOUT = 600 if SANITIZE else 60  # seconds: what hangs, hangs; nothing here should come near

sys.path.insert(0, os.path.join(ROOT, 'tests', 'bntpy'))

# What our caller ignores (nohup, a background job's SIGINT) the tools would ignore too; a handler is not passed on.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

Result = namedtuple('Result', 'code out err')  # bytes, text
Tensor = namedtuple('Tensor', 'dtype shape data')
ITEM_SIZE = {'U8': 1, 'I8': 1, 'F16': 2, 'BF16': 2, 'F32': 4, 'I32': 4, 'F64': 8}


# --- processes ---

def path_of(tool):
    return os.path.join(BIN, tool)


def environment(**changes):
    """Without what would steer the tools, and with messages of the system in English."""
    env = {key: value for key, value in os.environ.items() if key != 'BNT_KERNEL'}
    return {**env, 'LC_ALL': 'C', **changes}


def command(args):
    return [path_of(args[0])] + [os.fspath(a) for a in args[1:]]


def run(*args, input=None, **options):
    """Run a tool to its end: run('bnt-info', path). Standard input is empty unless input (bytes) or stdin is given."""
    options.setdefault('env', environment())
    options.setdefault('stdout', subprocess.PIPE)
    options.setdefault('stderr', subprocess.PIPE)
    options.setdefault('timeout', TIMEOUT)
    if input is None:
        options.setdefault('stdin', subprocess.DEVNULL)
    else:
        options['input'] = input
    done = subprocess.run(command(args), check=False, **options)
    return Result(done.returncode, done.stdout or b'', (done.stderr or b'').decode('utf-8', 'replace'))


def start(*args, **options):
    """The same, not waited for."""
    options.setdefault('env', environment())
    options.setdefault('stderr', subprocess.PIPE)
    return subprocess.Popen(command(args), **options)


class Case(unittest.TestCase):
    """A test with an empty folder of its own, self.dir, and the two ways in which a tool may end."""
    maxDiff = 2000

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='bnt-test-')
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def file(self, name, data=b''):
        return write(self.path(name), data)

    def folder(self, name):
        os.mkdir(self.path(name))
        return self.path(name)

    def ok(self, *args, quiet=True, **options):
        """It succeeds, and (quiet) says nothing. Returns standard output."""
        done = run(*args, **options)
        self.assertEqual(done.code, 0, '%s: %s' % (args, done.err))
        if quiet:
            self.assertEqual(done.err, '', args)
        return done.out

    def refused(self, *args, names=(), code=1, partial=False, **options):
        """It fails with one line, which holds the names, and nothing (or partial) on standard output."""
        done = run(*args, **options)
        self.one_line(done, args[0], code, names)
        if not partial:
            self.assertEqual(done.out, b'', args)
        return done.err

    def one_line(self, done, tool, code=1, names=()):
        """The exit status and exactly one line on standard error: "tool: ...", with all of the names in it."""
        self.assertEqual((done.code, done.err.count('\n')), (code, 1),
                         '%s ended with %d and said: %r' % (tool, done.code, done.err))
        self.assertTrue(done.err.startswith(tool + ': ') and done.err.endswith('\n'), done.err)
        self.assertNotRegex(done.err, '[\x00-\x09\x0b-\x1f\x7f]')
        self.assertNotIn('Sanitizer', done.err)
        for name in [names] if isinstance(names, str) else names:
            self.assertIn(name, done.err)

    def nothing_in(self, folder, but=()):
        """No file under the final name, no temporary one."""
        self.assertEqual(sorted(os.listdir(folder)), sorted(but))

    def same(self, a, b, message=None):
        """Bytes are equal; a failure does not print them."""
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            self.fail('%s: %d and %d bytes, different from %d on' % (message or 'bytes differ', len(a), len(b), at))


def is_root():
    return os.geteuid() == 0


def main():
    unittest.main(verbosity=1)


# --- files ---

def read(*names):
    with open(os.path.join(*names), 'rb') as file:
        return file.read()


def write(path, data):
    with open(path, 'wb') as file:
        file.write(data)
    return path


def read_json(*names):
    return json.loads(read(*names).decode('utf-8'))


@functools.lru_cache(maxsize=None)
def module_folder():
    """A folder for what is made once for all tests of a module; gone when Python ends."""
    folder = tempfile.mkdtemp(prefix='bnt-module-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.lru_cache(maxsize=None)
def converted(checkpoint):
    """The stream of a checkpoint, as bytes."""
    done = run('bnt-convert', '-q', checkpoint)
    if done.code != 0:
        raise AssertionError(done.err)
    return done.out


@functools.lru_cache(maxsize=None)
def packed(checkpoint=FAIRY):
    """The path of the checkpoint's .bnt file."""
    path = os.path.join(module_folder(), re.sub(r'\W', '_', checkpoint) + '.bnt')
    done = run('bnt-pack', '-q', '-o', path, input=converted(checkpoint))
    if done.code != 0:
        raise AssertionError(done.err)
    return path


@functools.lru_cache(maxsize=None)
def synthetic(like='tiny', form='masters', dtype='bf16', **options):
    """The path of a random checkpoint."""
    name = '-'.join([re.sub(r'\W', '_', like), form, dtype] + ['%s%s' % item for item in options.items()])
    path = os.path.join(module_folder(), name)
    more = [part for key, value in options.items() for part in ('--' + key, str(value))]
    done = run('bnt-synth', '--like', like, '--form', form, '--dtype', dtype, '-o', path, '--quiet', *more)
    if done.code != 0:
        raise AssertionError(done.err)
    return path


# --- safetensors ---

def parse(raw):
    """(metadata, tensors) of a safetensors file; name -> Tensor in the order of their bytes. AssertionError unless it
    is an ordinary one: offsets tight and in order, sizes those of the shapes, the file ending with the last tensor."""
    size, = struct.unpack_from('<Q', raw)
    assert size <= len(raw) - 8, 'the header goes past the end'
    header = json.loads(raw[8:8 + size].decode('utf-8'))
    assert raw[8:9] == b'{', 'the header must begin with {'
    metadata = header.pop('__metadata__', {})
    assert all(isinstance(text, str) for text in metadata.values()), 'metadata must be texts'
    tensors, end = {}, 8 + size
    for name, item in sorted(header.items(), key=lambda pair: pair[1]['data_offsets']):
        begin = end
        end = begin + ITEM_SIZE[item['dtype']] * math.prod(item['shape'])
        assert item['data_offsets'] == [begin - 8 - size, end - 8 - size], 'offsets of %s' % name
        tensors[name] = Tensor(item['dtype'], item['shape'], raw[begin:end])
    assert end == len(raw), 'the file goes on after the last tensor'
    return metadata, tensors


def head(tensors, metadata=None, change=None):
    """The length and the header of these tensors. change: called with the header before it becomes text."""
    header = {} if metadata is None else {'__metadata__': metadata}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {'dtype': tensor.dtype, 'shape': tensor.shape, 'data_offsets': [at, at + len(tensor.data)]}
        at += len(tensor.data)
    if change:
        change(header)
    text = json.dumps(header, ensure_ascii=False).encode('utf-8')
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text


def build(tensors, metadata=None, change=None):
    """The reverse of parse."""
    return head(tensors, metadata, change) + b''.join(tensor.data for tensor in tensors.values())


def patch(tensor, index, value):
    """The tensor with one element replaced by these bytes."""
    size = ITEM_SIZE[tensor.dtype]
    at = index * size if index >= 0 else len(tensor.data) + index * size
    assert len(value) == size
    return tensor._replace(data=tensor.data[:at] + value + tensor.data[at + size:])


NOT_FINITE = {'F32': [struct.pack('<f', x) for x in (math.nan, math.inf, -math.inf)],
              'F16': [struct.pack('<e', x) for x in (math.nan, math.inf, -math.inf)],
              'BF16': [b'\xc0\x7f', b'\x80\x7f', b'\x80\xff']}


def float_bytes(dtype, value):
    """One element; bf16 by truncation, so give it values that bf16 has."""
    return struct.pack('<e' if dtype == 'F16' else '<f', value)[2 if dtype == 'BF16' else 0:]


# --- checkpoints ---

class Checkpoint:
    """A checkpoint folder of one safetensors file in memory, to be altered and saved."""

    def __init__(self, folder):
        self.metadata, self.tensors = parse(read(folder, 'model.safetensors'))
        self.config = read_json(folder, 'config.json')
        self.texts = {name: read(folder, name) for name in os.listdir(folder)
                      if name not in ('config.json', 'model.safetensors', 'golden', 'golden.safetensors')}

    def name(self, ending):
        """The first tensor whose name ends so."""
        return next(name for name in sorted(self.tensors) if name.endswith(ending))

    def patch(self, ending, index, value):
        name = self.name(ending)
        self.tensors[name] = patch(self.tensors[name], index, value)
        return name

    def save(self, folder, weights=None):
        """Write it; weights: the bytes of model.safetensors, if they are not to be those of the tensors."""
        os.makedirs(folder, exist_ok=True)
        write(os.path.join(folder, 'config.json'), json.dumps(self.config).encode('utf-8'))
        for name, text in self.texts.items():
            write(os.path.join(folder, name), text)
        write(os.path.join(folder, 'model.safetensors'),
              build(self.tensors, self.metadata) if weights is None else weights)
        return folder

    def save_shards(self, folder, count, change=None):
        """Write it as shards, tensors dealt out in turn, with the index that names them."""
        self.save(folder)
        os.remove(os.path.join(folder, 'model.safetensors'))
        names = sorted(self.tensors)
        index = {'metadata': {'total_size': sum(len(t.data) for t in self.tensors.values())}, 'weight_map': {}}
        for i in range(count):
            shard = 'model-%05d-of-%05d.safetensors' % (i + 1, count)
            part = {name: self.tensors[name] for name in names[i::count]}
            index['weight_map'].update(dict.fromkeys(part, shard))
            write(os.path.join(folder, shard), build(part, self.metadata))
        if change:
            change(index)
        write(os.path.join(folder, 'model.safetensors.index.json'), json.dumps(index).encode('utf-8'))
        return folder
