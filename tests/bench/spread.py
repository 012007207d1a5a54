#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How far bnt's logits are from those of transformers, and those of transformers from themselves (sdpa against eager attention).

    spread.py BIN_FOLDER [WINDOWS]

Over windows of BOS + 255 tokens of fairy-6m's eval.txt, float32, on the CPU. Needs torch and transformers.
"""
import os
import subprocess
import sys
import tempfile

import numpy
import torch
from transformers import AutoModelForCausalLM

FAIRY = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'data', 'fairy-6m')
WINDOW = 256


def tool(name, *args, **options):
    return subprocess.run([os.path.join(sys.argv[1], name), *args], stdout=subprocess.PIPE, check=True, **options).stdout


def transformers(attention):
    model = AutoModelForCausalLM.from_pretrained(FAIRY, dtype=torch.float32, attn_implementation=attention).eval()

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].numpy()

    return model.config.bos_token_id, logits


def bnt(path, cache):
    def logits(ids):
        raw = tool('bnt-eval', path, '--device', 'cpu', '--cache', cache, '--logits', '-', '--token-ids', ','.join(map(str, ids)))
        return numpy.frombuffer(raw, dtype='<f4').reshape(len(ids), -1)

    return logits


def main():
    bos, eager = transformers('eager')
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'fairy.bnt')
        tool('bnt', 'get', '-q', FAIRY, '-o', path)
        with open(os.path.join(FAIRY, 'golden', 'eval.txt'), 'rb') as text:
            ids = [int(i) for i in tool('bnt-eval', path, '--tokenize', '-', stdin=text).split(b',')]
        others = {'transformers, sdpa': transformers('sdpa')[1], 'bnt, --cache f32': bnt(path, 'f32'), 'bnt, --cache f16': bnt(path, 'f16')}
        windows = min(int(sys.argv[2]) if len(sys.argv) > 2 else len(ids), len(ids) // WINDOW)
        differences, same = dict.fromkeys(others, 0.0), dict.fromkeys(others, 0)
        for i in range(windows):
            window = [bos] + ids[i * WINDOW:(i + 1) * WINDOW - 1]
            expected = eager(window)
            for name, logits in others.items():
                found = logits(window)
                differences[name] += numpy.abs(found.astype(float) - expected).mean() / windows
                same[name] += int((found.argmax(1) == expected.argmax(1)).sum())
    for name in others:
        print('%-20s mean |difference| %.4f   same top-1 %d of %d' % (name, differences[name], same[name], windows * WINDOW))


if __name__ == '__main__':
    main()
