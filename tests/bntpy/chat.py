# SPDX-License-Identifier: MIT
"""The `CHAT` section (section 8.1): its bytes, what it says, and R29."""
import struct
from collections import namedtuple
from dataclasses import dataclass, field

from bpe import WHITE_SPACE

TEXTS = ('name begin system_before system_after user_before user_after assistant_before assistant_after '
         'default_system').split()
RECORD = struct.Struct('<2I4I18II28s')
Record = namedtuple('Record', 'flags n_stop stop_id ranges pool_size reserved')
TRIM = 1
MAX_STOP = 4


@dataclass
class Chat:
    texts: dict                               # name of TEXTS -> bytes; those that are not there are empty
    stop: list = field(default_factory=list)
    flags: int = 0


def record(body):
    """ranges: the (offset, size) of each of TEXTS."""
    values = RECORD.unpack_from(body)
    return Record(values[0], values[1], values[2:6], list(zip(values[6:24:2], values[7:24:2])), *values[24:])


def read(body):
    r, pool = record(body), body[RECORD.size:]
    texts = {name: pool[offset:offset + size] for name, (offset, size) in zip(TEXTS, r.ranges)}
    return Chat(texts, list(r.stop_id[:r.n_stop]), r.flags)


def write(chat):
    """The texts lie in the pool in the order of the record; an empty one has offset 0."""
    pool, ranges = b'', []
    for name in TEXTS:
        text = chat.texts.get(name, b'')
        ranges += [len(pool) if text else 0, len(text)]
        pool += text
    stop = chat.stop + [0] * (MAX_STOP - len(chat.stop))
    return RECORD.pack(chat.flags, len(chat.stop), *stop, *ranges, len(pool), bytes(28)) + pool


def conversation(chat, turns, system=None):
    """The text of a conversation whose last turn waits for its answer. turns: (user, answer), the last answer None."""
    texts = {name: chat.texts.get(name, b'').decode('utf-8') for name in TEXTS}
    system = texts['default_system'] if system is None else system
    parts = [texts['begin']]
    if system:
        parts += [texts['system_before'], _said(chat, system), texts['system_after']]
    for user, answer in turns:
        parts += [texts['user_before'], _said(chat, user), texts['user_after'], texts['assistant_before']]
        if answer is not None:
            parts += [_said(chat, answer), texts['assistant_after']]
    return ''.join(parts)


def _said(chat, text):
    return text.strip(''.join(WHITE_SPACE)) if chat.flags & TRIM else text


def check(body, vocab_size, has_tokenizer):
    """R29. vocab_size is None where HYPR does not tell."""
    if not has_tokenizer:
        yield 'R29', 'CHAT is there without TOKN'
    if len(body) < RECORD.size or len(body) != RECORD.size + record(body).pool_size:
        yield 'R29', 'CHAT is not as long as it says'
        return
    r, pool = record(body), body[RECORD.size:]
    if r.flags & ~TRIM or any(r.reserved):
        yield 'R29', 'reserved flags or bytes of CHAT are not zero'
    if r.n_stop > MAX_STOP or any(r.stop_id[r.n_stop:]):
        yield 'R29', 'n_stop is above 4, or an unused stop id is not 0'
    elif vocab_size is not None and any(i >= vocab_size for i in r.stop_id[:r.n_stop]):
        yield 'R29', 'a stop id is not below vocab_size'
    for name, (offset, size) in zip(TEXTS, r.ranges):
        if offset + size > len(pool):
            yield 'R29', '%s: the range %d + %d goes past the pool of %d' % (name, offset, size, len(pool))
        elif not _is_utf8(pool[offset:offset + size]):
            yield 'R29', '%s is not UTF-8' % name


def _is_utf8(raw):
    try:
        raw.decode('utf-8')
    except UnicodeDecodeError:
        return False
    return True
