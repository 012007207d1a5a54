# SPDX-License-Identifier: MIT
"""The header page and the sections (sections 2 and 3 of the specification), without a thought for what they hold."""
import hashlib
import zlib
from collections import namedtuple

from layout import HEADER, MAGIC, MAX_SECTIONS, PAGE, RECORD, REQUIRED, SECTIONS, Header, Record, up

Section = namedtuple('Section', 'type flags body')


def default_flags(kind):
    return REQUIRED if SECTIONS.get(kind) else 0


def section(kind, body):
    return Section(kind, default_flags(kind), body)


def offsets(sizes):
    """Where sections of these sizes begin."""
    found, at = [], PAGE
    for size in sizes:
        found.append(at)
        at = up(at + size, PAGE)
    return found


def assemble(sections, minor=0, major=1):
    """The file that has these sections in this order."""
    starts = offsets([len(s.body) for s in sections])
    content = bytearray()
    records = b''
    for s, start in zip(sections, starts):
        content += bytes(start - PAGE - len(content)) + s.body
        records += RECORD.pack(s.type.encode('latin-1'), s.flags, start, len(s.body), 0, bytes(4))
    head = HEADER.pack(MAGIC, major, minor, len(sections), PAGE + len(content), 0, bytes(4), bytes(32), bytes(64))
    return fix_checksums((head + records).ljust(PAGE, b'\0') + content)


def header(raw):
    return Header(*HEADER.unpack_from(raw))


def records(raw):
    """The section table; at most as many records as a page holds, whatever the count says."""
    count = min(header(raw).section_count, MAX_SECTIONS)
    return [Record(*RECORD.unpack_from(raw, HEADER.size + i * RECORD.size)) for i in range(count)]


def name(record):
    return record.type.decode('latin-1')


def body(raw, record):
    """The bytes of a section, or None where they are not all in the file."""
    end = record.offset + record.size
    return raw[record.offset:end] if end <= len(raw) else None


def header_crc32(raw):
    """CRC-32 of the header page with its own field, at 24, taken as zero."""
    return zlib.crc32(raw[28:PAGE], zlib.crc32(bytes(4), zlib.crc32(raw[:24])))


def content_sha256(raw):
    return hashlib.sha256(raw[PAGE:header(raw).file_size]).digest()


def fix_checksums(raw):
    """Make R3, R9 and R10 hold again after an edit of anything else."""
    fixed = bytearray(raw)
    for i, record in enumerate(records(raw)):
        crc = zlib.crc32(body(raw, record) or b'')
        at = HEADER.size + i * RECORD.size + 24
        fixed[at:at + 4] = crc.to_bytes(4, 'little')
    fixed[32:64] = content_sha256(raw)
    return fix_header(bytes(fixed))


def fix_header(raw):
    """Make R3 alone hold again."""
    return raw[:24] + header_crc32(raw).to_bytes(4, 'little') + raw[28:]
