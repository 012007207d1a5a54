# SPDX-License-Identifier: MIT
"""The `CHAT` and `CONV` sections (sections 8.1 and 8.2): their bytes, what they say, R29 and R31."""
import struct
from collections import namedtuple
from dataclasses import dataclass, field

from bpe import WHITE_SPACE

TEXTS = ('name begin system_before system_after user_before user_after assistant_before assistant_after '
         'default_system').split()
RECORD = struct.Struct('<2I4I18II28s')
Record = namedtuple('Record', 'flags n_stop stop_id ranges pool_size reserved')
TRIM = 1  # of CHAT
TRIM_SYSTEM, TRIM_USER, TRIM_ANSWER, NO_SYSTEM, DROP_THINKING, DROP_NEWLINES = 1, 2, 4, 8, 16, 32  # of CONV
FLAGS = {'CHAT': 1, 'CONV': 63}  # the bits that are defined
MAX_STOP = 4
THOUGHT = '</think>'


@dataclass
class Chat:
    texts: dict                               # name of TEXTS -> bytes; those that are not there are empty
    stop: list = field(default_factory=list)
    flags: int = 0
    kind: str = 'CHAT'


def record(body):
    """ranges: the (offset, size) of each of TEXTS."""
    values = RECORD.unpack_from(body)
    return Record(values[0], values[1], values[2:6], list(zip(values[6:24:2], values[7:24:2])), *values[24:])


def read(body, kind='CHAT'):
    r, pool = record(body), body[RECORD.size:]
    texts = {name: pool[offset:offset + size] for name, (offset, size) in zip(TEXTS, r.ranges)}
    return Chat(texts, list(r.stop_id[:r.n_stop]), r.flags, kind)


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
    return ''.join(text for text, _ in parts_of(chat, turns, system))


def said(chat, turns, system=None):
    """(start, end) of what the system and the users say in that text."""
    at = 0
    for text, is_said in parts_of(chat, turns, system):
        if is_said:
            yield at, at + len(text)
        at += len(text)


def parts_of(chat, turns, system=None):
    """(text, whether a system or a user says it)."""
    texts = {name: chat.texts.get(name, b'').decode('utf-8') for name in TEXTS}
    if system and chat.kind == 'CONV' and chat.flags & NO_SYSTEM:
        raise ValueError('there can be no system text')
    system = texts['default_system'] if system is None else system
    yield texts['begin'], False
    if system:
        yield texts['system_before'], False
        yield _said(chat, TRIM_SYSTEM, system), True
        yield texts['system_after'], False
    for user, answer in turns:
        yield texts['user_before'], False
        yield _said(chat, TRIM_USER, user), True
        yield texts['user_after'] + texts['assistant_before'], False
        if answer is not None:
            yield _said(chat, TRIM_ANSWER, _without_thinking(chat, answer)) + texts['assistant_after'], False


def _said(chat, flag, text):
    trims = chat.flags & (flag if chat.kind == 'CONV' else TRIM)
    return text.strip(''.join(WHITE_SPACE)) if trims else text


def _without_thinking(chat, answer):
    if chat.kind == 'CHAT' or not chat.flags & DROP_THINKING or THOUGHT not in answer:
        return answer
    answer = answer[answer.rindex(THOUGHT) + len(THOUGHT):]
    return answer.lstrip('\n') if chat.flags & DROP_NEWLINES else answer


def check(kind, body, vocab_size, sections):
    """R29 or R31. vocab_size is None where HYPR does not tell."""
    rule = {'CHAT': 'R29', 'CONV': 'R31'}[kind]
    for problem in _problems(kind, body, vocab_size, sections):
        yield rule, problem


def _problems(kind, body, vocab_size, sections):
    if 'TOKN' not in sections:
        yield '%s is there without TOKN' % kind
    if kind == 'CONV' and 'CHAT' in sections:
        yield 'CONV is there beside CHAT'
    if len(body) < RECORD.size or len(body) != RECORD.size + record(body).pool_size:
        yield '%s is not as long as it says' % kind
        return
    r, pool = record(body), body[RECORD.size:]
    if r.flags & ~FLAGS[kind] or any(r.reserved):
        yield 'reserved flags or bytes of %s are not zero' % kind
    if r.n_stop > MAX_STOP or any(r.stop_id[r.n_stop:]):
        yield 'n_stop is above 4, or an unused stop id is not 0'
    elif vocab_size is not None and any(i >= vocab_size for i in r.stop_id[:r.n_stop]):
        yield 'a stop id is not below vocab_size'
    for name, (offset, size) in zip(TEXTS, r.ranges):
        if offset + size > len(pool):
            yield '%s: the range %d + %d goes past the pool of %d' % (name, offset, size, len(pool))
        elif not _is_utf8(pool[offset:offset + size]):
            yield '%s is not UTF-8' % name


def _is_utf8(raw):
    try:
        raw.decode('utf-8')
    except UnicodeDecodeError:
        return False
    return True
