# SPDX-License-Identifier: MIT
"""The `SAMP` section (section 4.1): its bytes, R30, and what its fields do to logits."""
import struct

import floats

RECORD = struct.Struct('<4fI44s')
FIELDS = 'repetition_penalty presence_penalty frequency_penalty min_p max_new_tokens reserved'.split()
OFF = dict(zip(FIELDS, (1.0, 0.0, 0.0, 0.0, 0, bytes(44))))
RANGES = {'repetition_penalty': (0, 100), 'presence_penalty': (-2, 2), 'frequency_penalty': (-2, 2), 'min_p': (0, 1)}


def read(body):
    return dict(zip(FIELDS, RECORD.unpack(body)))


def write(sampling):
    return RECORD.pack(*({**OFF, **sampling}[name] for name in FIELDS))


def check(body):
    """R30."""
    if len(body) != RECORD.size:
        yield 'R30', 'SAMP has %d bytes, not %d' % (len(body), RECORD.size)
        return
    sampling = read(body)
    for name, (low, high) in RANGES.items():
        if not low <= sampling[name] <= high or (name, sampling[name]) == ('repetition_penalty', 0):
            yield 'R30', '%s is %r' % (name, sampling[name])
    if any(sampling['reserved']):
        yield 'R30', 'reserved bytes are not zero'


def penalize(logits, prompt, generated, sampling):
    """The logits after the penalties, each operation rounded to f32."""
    s, logits = {**OFF, **{name: floats.f32(value) for name, value in sampling.items()}}, list(logits)
    for i in set(prompt) | set(generated):
        v, r = logits[i], s['repetition_penalty']
        logits[i] = floats.f32(v * r if v < 0 else v / r)
    for i in set(generated):
        v = floats.f32(logits[i] - floats.f32(s['frequency_penalty'] * generated.count(i)))
        logits[i] = floats.f32(v - s['presence_penalty'])
    return logits
