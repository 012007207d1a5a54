# SPDX-License-Identifier: MIT
"""A minimal safetensors reader and writer: u64 length, JSON header, data.

(Not named safetensors.py, so that it never hides the real package.)
"""
import json
import struct
from collections import namedtuple

Entry = namedtuple('Entry', 'dtype shape data')
ITEM_SIZE = {'BOOL': 1, 'U8': 1, 'I8': 1, 'F16': 2, 'BF16': 2, 'I16': 2, 'U16': 2, 'F32': 4, 'I32': 4, 'U32': 4,
             'F64': 8, 'I64': 8, 'U64': 8}


def read(raw):
    """name -> Entry. ValueError where the header and the data do not agree."""
    size, = struct.unpack_from('<Q', raw.ljust(8, b'\0'))
    if size > len(raw) - 8:
        raise ValueError('the header of %d bytes goes past the end of the file' % size)
    header, data = json.loads(raw[8:8 + size].decode('utf-8')), raw[8 + size:]
    header.pop('__metadata__', None)
    return {name: _entry(name, item, data) for name, item in header.items()}


def _entry(name, item, data):
    begin, end = item['data_offsets']
    size = ITEM_SIZE[item['dtype']]
    for length in item['shape']:
        size *= length
    if not 0 <= begin <= end <= len(data) or end - begin != size:
        raise ValueError('%s: data_offsets do not fit' % name)
    return Entry(item['dtype'], item['shape'], data[begin:end])


def write(entries):
    """The reverse; entries in the order given, header padded with spaces to a multiple of 8 as the library does."""
    header, at = {}, 0
    for name, entry in entries.items():
        header[name] = {'dtype': entry.dtype, 'shape': list(entry.shape), 'data_offsets': [at, at + len(entry.data)]}
        at += len(entry.data)
    text = json.dumps(header, separators=(',', ':')).encode('utf-8')
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text + b''.join(entry.data for entry in entries.values())
