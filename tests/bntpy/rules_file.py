# SPDX-License-Identifier: MIT
"""R1 … R11: the header page and the sections.

Every check is a generator of (rule, message), lazily, so that a caller who only wants to know whether a file is
good can stop at the first. What later checks need comes back as the generator's return value.
"""
import zlib

import container
from layout import HEADER, MAGIC, MAX_SECTIONS, PAGE, RECORD, REQUIRED, SECTIONS, up, wanted_sections

ALWAYS = ('HYPR', 'NORM', 'TERN', 'TENS')  # there in every file


def check(data):
    """Returns {type: (record, bytes or None)}, or None where no section can be found."""
    if not (yield from _page(data)):
        return None
    header = container.header(data)
    if container.header_crc32(data) != header.header_crc32:
        yield 'R3', 'header_crc32 is %08x, should be %08x' % (header.header_crc32, container.header_crc32(data))
    if header.file_size != len(data):
        yield 'R5', 'the file has %d bytes, file_size says %d' % (len(data), header.file_size)
    yield from _zero(data, (28, 32), (64, 128))
    if not 1 <= header.section_count <= MAX_SECTIONS:
        yield 'R6', 'section_count %d is not in 1 ... 124' % header.section_count
        return None
    records = container.records(data)
    for part in (_reserved, _extents, _types, _between, _checksums, _required):
        yield from part(data, header, records)
    found = {}
    for record in records:
        found.setdefault(container.name(record), (record, container.body(data, record)))
    return found


def _page(data):
    """What must hold before any other byte means anything."""
    if data[:8] != MAGIC:
        yield 'R1', 'the first 8 bytes are not the magic'
    elif len(data) <= PAGE:
        yield 'R5', 'the file of %d bytes has no room for a header page and one byte' % len(data)
    elif data[8:10] not in (b'\1\0', b'\2\0'):
        yield 'R2', 'version_major is %d' % int.from_bytes(data[8:10], 'little')
    else:
        return True
    return False


def _is_zero(data, begin, end):
    part = data[begin:end]
    return part.count(0) == len(part)


def _zero(data, *ranges):
    for begin, end in ranges:
        if not _is_zero(data, begin, end):
            yield 'R4', 'reserved bytes %d ... %d are not zero' % (begin, end - 1)


def _reserved(data, _header, records):
    yield from _zero(data, (HEADER.size + RECORD.size * len(records), PAGE))
    for i, record in enumerate(records):
        if any(record.reserved):
            yield 'R4', 'the reserved field of section record %d is not zero' % i


def _extents(_data, header, records):
    place = end = PAGE
    for i, record in enumerate(records):
        if record.size == 0:
            yield 'R6', 'section %d is empty' % i
        if record.offset != place:
            yield 'R6', 'section %d is at %d, should be at %d' % (i, record.offset, place)
        end = record.offset + record.size
        place = up(end, PAGE)
    if end != header.file_size:
        yield 'R6', 'the last section ends at %d, file_size is %d' % (end, header.file_size)


def _known(header):
    """The sections of the version, with their required flags."""
    return {name: flag for name, flag in SECTIONS.items() if name != 'SCAL' or header.version_major == 2}


def _types(_data, header, records):
    seen, known = set(), _known(header)
    for record in records:
        name = container.name(record)
        if record.type in seen:
            yield 'R7', 'section type %r occurs twice' % name
        seen.add(record.type)
        if record.flags & ~REQUIRED:
            yield 'R7', 'section %r has unknown flags %x' % (name, record.flags)
        if record.flags & REQUIRED and name not in known:
            yield 'R7', 'section %r is required and unknown' % name


def _between(data, _header, records):
    """By place rather than by table order, so that a wrong order (R6) is not reported twice."""
    end = None
    for record in sorted(records, key=lambda r: r.offset):
        if end is not None and end < record.offset and not _is_zero(data, end, record.offset):
            yield 'R8', 'the bytes between %d and %d are not zero' % (end, record.offset)
        end = max(end or 0, record.offset + record.size)


def _checksums(data, header, records):
    """Bytes that are not in the file (R5, R6) cannot be summed."""
    for record in records:
        body = container.body(data, record)
        if body is not None and zlib.crc32(body) != record.crc32:
            yield 'R9', 'the CRC-32 of section %r is %08x, should be %08x' % (
                container.name(record), record.crc32, zlib.crc32(body))
    if header.file_size <= len(data) and container.content_sha256(data) != header.content_sha256:
        yield 'R10', 'content_sha256 is wrong'


def _required(_data, header, records):
    """R11 but for the sections that HYPR decides on."""
    flags = {}
    for record in records:
        flags.setdefault(container.name(record), record.flags)
    for name, required in _known(header).items():
        if name in ALWAYS and name not in flags:
            yield 'R11', 'section %s is missing' % name
        elif name in flags and bool(flags[name] & REQUIRED) != required:
            yield 'R11', 'the required flag of section %s must be %d' % (name, required)


def check_wanted(sections, hyper):
    """The rest of R11."""
    for name, wanted in wanted_sections(hyper).items():
        if name not in ALWAYS and wanted != (name in sections):
            yield 'R11', 'section %s %s' % (name, 'is missing' if wanted else 'is there, but nothing is in it')
