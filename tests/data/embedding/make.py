#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes golden.json: the vectors of model.py's checkpoint by sentence-transformers (6.2.0, transformers 5.24, torch 2.15, CPU, float32), which
reads the very files that bnt-convert reads. The libraries are needed to make it again, not to run the tests (tests/cli/test_embed.py)."""
import json
import os
import tempfile

import torch
from sentence_transformers import SentenceTransformer

import model


def main():
    golden = {}
    for name, pooling, types in model.GOLDEN:
        with tempfile.TemporaryDirectory() as folder:
            model.save(model.checkpoint(), folder, pooling, *types)
            loaded = SentenceTransformer(folder, device='cpu', model_kwargs={'dtype': torch.float32, 'attn_implementation': 'eager'})
            golden[name] = [[float('%.6g' % x) for x in loaded.encode(text)] for text in model.TEXTS]
    lines = ',\n'.join('"%s": [\n%s]' % (name, ',\n'.join(json.dumps(v) for v in vectors)) for name, vectors in golden.items())
    with open(os.path.join(model.HERE, 'golden.json'), 'w', encoding='utf-8') as file:
        file.write('{%s}\n' % lines)


if __name__ == '__main__':
    main()
