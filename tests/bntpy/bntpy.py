#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The second implementation of the .bnt format, written from formats/bnt.md alone: read, write, verify.

    python3 bntpy.py verify FILE      the rules that the file breaks; exit 1 if any
    python3 bntpy.py roundtrip FILE   exit 1 unless write(read(FILE)) gives the same bytes
    python3 bntpy.py dump FILE        a summary in JSON
    python3 bntpy.py hexdump FILE     what hexdump -C prints, for section 12

Python 3.9 or later, standard library only. As a module it offers read, write, verify, Model and
Matrix; forward.py runs a model.
"""
import argparse
import collections
import json
import sys

import container
import sampling
import ternary
from model import Matrix, Model, read, write  # noqa: F401 (offered to importers)
from rules import verify


def _report(path, broken):
    for rule, message in broken:
        print('%s: %s: %s' % (path, rule, message))
    return 1 if broken else 0


def command_verify(path, data):
    return _report(path, verify(data))


def command_roundtrip(path, data):
    """read() trusts its input, so a broken file goes no further than verify()."""
    if _report(path, verify(data)):
        return 1
    again = write(read(data))
    if again != data:
        at = next((i for i, (a, b) in enumerate(zip(data, again)) if a != b), min(len(data), len(again)))
        print('%s: bytes differ from %d on' % (path, at))
    return int(again != data)


def command_dump(path, data):
    if _report(path, verify(data)):
        return 1
    print(json.dumps(summary(data), indent=1))
    return 0


def summary(data):
    model, sections = read(data), container.records(data)
    return {
        'version': [container.header(data).version_major, model.version_minor],
        'content_sha256': container.header(data).content_sha256.hex(),
        'sections': [[container.name(s), s.offset, s.size, '%08x' % s.crc32] for s in sections],
        'hyperparameters': {k: v for k, v in model.hyper.items() if not k.startswith('reserved')},
        'sampling': model.sampling and {name: model.sampling[name] for name in sampling.FIELDS[:-1]},
        'norms': {_name(key): len(values) for key, values in model.norms.items()},
        'embeddings': {name: len(raw) for name, raw in model.embeddings.items()},
        'int8': model.int8 is not None,
        'matrices': {_name(key): _matrix(m) for key, m in model.ternary.items()},
        'tokenizer': model.tokenizer and _tokenizer(model.tokenizer),
        'provenance': model.provenance and json.loads(model.provenance.decode('utf-8')),
        'unknown': [kind for kind, _ in model.extra],
    }


def _name(key):
    layer, role = key
    return role if layer is None else '%d.%s' % (layer, role)


def _matrix(m):
    return {'rows': m.rows, 'cols': m.cols, 'gamma': m.gamma, 'scales': len(m.scales),
            **dict(zip(('minus', 'zero', 'plus'), ternary.counts(m.weights)))}


def _tokenizer(t):
    lengths = {name: len(getattr(t, name)) for name in ('tokens', 'lookup', 'merges', 'added')}
    return {**lengths, 'kind': t.kind, 'flags': t.flags, 'unk_id': t.unk_id, 'prefix': t.prefix, 'suffix': t.suffix,
            'steps': [[x.decode('utf-8') if isinstance(x, bytes) else x for x in s] for s in t.steps],
            'attributes': dict(sorted(collections.Counter(t.attr).items())), 'chat_size': len(t.chat)}


def command_hexdump(_path, data):
    print('\n'.join(hexdump(data)))
    return 0


def hexdump(data):
    """The lines of hexdump -C: 16 bytes each, repeated lines as one *, the size at the end."""
    lines, before = [], None
    for at in range(0, len(data), 16):
        row = data[at:at + 16]
        if row != before:
            lines.append('%08x  %-48s  |%s|' % (at, _hex(row), _text(row)))
        elif lines[-1] != '*':
            lines.append('*')
        before = row
    return lines + ['%08x' % len(data)]


def _hex(row):
    return row[:8].hex(' ').ljust(25) + row[8:].hex(' ')


def _text(row):
    return ''.join(chr(b) if 32 <= b < 127 else '.' for b in row)


COMMANDS = {'verify': command_verify, 'roundtrip': command_roundtrip, 'dump': command_dump,
            'hexdump': command_hexdump}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('command', choices=COMMANDS)
    parser.add_argument('file')
    options = parser.parse_args()
    try:
        with open(options.file, 'rb') as file:
            data = file.read()
    except OSError as error:
        print('bntpy: %s: %s' % (options.file, error.strerror), file=sys.stderr)
        return 1
    return COMMANDS[options.command](options.file, data)


if __name__ == '__main__':
    sys.exit(main())
