#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How activations of weight-only models are best quantized: the table of activations.md. Needs numpy.

usage: activations.py [CHECKPOINT_DIR]...     default: those of tests/data that hold three levels, and fairy-6m with its levels unpacked

The forward pass in float64, with the weights exactly as the checkpoint means them and the input of every ternary product rounded in
one way or another, against the same pass with no rounding at all. Of fairy-6m the perplexity of eval.txt is measured too, by way of
$BNT_BIN/bnt-eval (default build/bin), which makes the tokens.
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
DATA = os.path.join(ROOT, 'tests', 'data')
BIN = os.environ.get('BNT_BIN', os.path.join(ROOT, 'build', 'bin'))
WAYS = [('8 bits a token', 0, 127), ('8 bits by 128', 128, 127), ('8 bits by 64', 64, 127), ('8 bits by 32', 32, 127),
        ('10 bits a token', 0, 511), ('12 bits a token', 0, 2047), ('16 bits a token', 0, 32512)]
WINDOWS = 8  # of 256 tokens, of eval.txt


def load(path):
    with open(path, 'rb') as file:
        header = json.loads(file.read(struct.unpack('<Q', file.read(8))[0]))
        data = file.read()
    found = {}
    for name, tensor in header.items():
        if name != '__metadata__':
            raw = data[slice(*tensor['data_offsets'])]
            if tensor['dtype'] == 'BF16':
                values = (np.frombuffer(raw, '<u2').astype('u4') << 16).view('f4')
            else:
                values = np.frombuffer(raw, {'F16': '<f2', 'F32': '<f4', 'I32': '<i4'}[tensor['dtype']])
            found[name] = values.reshape(tensor['shape']).astype('i8' if tensor['dtype'] == 'I32' else 'f8')
    return found


class Model:
    def __init__(self, folder):
        with open(os.path.join(folder, 'config.json'), encoding='utf-8') as file:
            self.config = json.load(file)
        self.weights = load(os.path.join(folder, 'model.safetensors'))
        self.linears = [n for n in self.weights if n.endswith('_proj.weight')]
        if 'quantization_config' in self.config:  # masters: to what they become
            for name in self.linears:
                scale = np.abs(self.weights[name]).mean()
                self.weights[name] = np.clip(np.rint(self.weights[name] / scale), -1, 1) * scale
        head = self.weights.get('lm_head.weight', self.weights['model.embed_tokens.weight'])
        self.head_is_ternary = len(np.unique(np.abs(head[0, :32]))) <= 2

    def rounded(self, x, group, most):
        if not most:
            return x
        width = x.shape[-1]
        group = group or width
        padded = np.pad(x, ((0, 0), (0, -width % group))).reshape(len(x), -1, group)
        scale = most / np.maximum(np.abs(padded).max(-1, keepdims=True), 1e-30)
        return (np.rint(padded * scale) / scale).reshape(len(x), -1)[:, :width]

    def norm(self, x, name):
        eps = self.config['rms_norm_eps']
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * self.weights[name] if name in self.weights else x

    def logits(self, tokens, group, most):
        c, w = self.config, self.weights
        heads, kv_heads = c['num_attention_heads'], c['num_key_value_heads']
        dim = c.get('head_dim') or c['hidden_size'] // heads
        n = len(tokens)
        angles = np.arange(n)[:, None] * c['rope_theta'] ** (-np.arange(0, dim, 2) / dim)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

        def rotate(v):
            a, b = v[..., :dim // 2], v[..., dim // 2:]
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

        x = w['model.embed_tokens.weight'][tokens]
        for layer in range(c['num_hidden_layers']):
            at = 'model.layers.%d.' % layer

            def linear(v, name):
                return self.rounded(v, group, most) @ w[at + name + '.weight'].T + w.get(at + name + '.bias', 0)

            h = self.norm(x, at + 'input_layernorm.weight')
            q, k, v = (linear(h, 'self_attn.%s_proj' % p).reshape(n, -1, dim) for p in 'qkv')
            q, k = rotate(self.norm(q, at + 'self_attn.q_norm.weight')), rotate(self.norm(k, at + 'self_attn.k_norm.weight'))
            k, v = (np.repeat(t, heads // kv_heads, 1) for t in (k, v))
            scores = np.einsum('ihd,jhd->hij', q, k) / math.sqrt(dim)
            scores = np.where(np.tril(np.ones((n, n)))[None] > 0, scores, -1e30)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            a = np.einsum('hij,jhd->ihd', weights / weights.sum(-1, keepdims=True), v).reshape(n, -1)
            x = x + linear(self.norm(a, at + 'self_attn.attn_sub_norm.weight'), 'self_attn.o_proj')
            h = self.norm(x, at + 'post_attention_layernorm.weight')
            gate = linear(h, 'mlp.gate_proj')
            gate = np.maximum(gate, 0) ** 2 if c['hidden_act'] == 'relu2' else gate / (1 + np.exp(-gate))
            h = self.norm(gate * linear(h, 'mlp.up_proj'), at + 'mlp.ffn_sub_norm.weight')
            x = x + linear(h, 'mlp.down_proj')
        h = self.norm(x, 'model.norm.weight')
        if self.head_is_ternary:
            h = self.rounded(h, group, most)
        return h @ w.get('lm_head.weight', w['model.embed_tokens.weight']).T


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def prompts_of(folder, model):
    """Token lists, and whether what follows counts for a perplexity."""
    golden = os.path.join(folder, 'golden.safetensors')
    if os.path.exists(golden):
        tokens = load(golden)
        return [list(tokens['%d.tokens' % i]) for i in range(3)], False
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, 'm.bnt')
        subprocess.run([os.path.join(BIN, 'bnt'), 'get', '-q', folder, '-o', path], check=True)
        with open(os.path.join(folder, 'golden', 'eval.txt'), 'rb') as text:
            out = subprocess.run([os.path.join(BIN, 'bnt-eval'), path, '--tokenize', '-'], stdin=text, capture_output=True, check=True).stdout
    ids = [int(i) for i in out.decode().strip().split(',')]
    return [[model.config['bos_token_id']] + ids[256 * i:256 * i + 256] for i in range(WINDOWS)], True


def main():
    folders = sys.argv[1:] or [os.path.join(DATA, 'variants', name) for name in ('qwen3-g128', 'llama-levels-rows', 'qwen2-bias')] + [
        os.path.join(DATA, 'fairy-6m')]
    for folder in folders:
        model = Model(folder)
        prompts, text = prompts_of(folder, model)
        exact = [model.logits(p, 0, 0) for p in prompts]
        spread = np.concatenate([e.ravel() for e in exact]).std()
        print('\n| %s | mean \\|Δlogit\\| / deviation | same top-1 | KL divergence |%s\n|---|---|---|---|%s' % (
            os.path.basename(os.path.normpath(folder)), ' perplexity |' if text else '', '---|' if text else ''))
        for name, group, most in [('float', 0, 0)] + WAYS:
            found = [model.logits(p, group, most) for p in prompts]
            difference = np.mean(np.concatenate([np.abs(a - b).ravel() for a, b in zip(found, exact)]))
            same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(found, exact))
            divergence = np.mean(np.concatenate([(np.exp(log_softmax(e)) * (log_softmax(e) - log_softmax(f))).sum(-1) for e, f in zip(exact, found)]))
            row = '| %s | %.3f %% | %d of %d | %.1e |' % (name, 100 * difference / spread, same, sum(map(len, prompts)), max(divergence, 0))
            if text:
                losses = [-log_softmax(f)[i, p[i + 1]] for f, p in zip(found, prompts) for i in range(len(p) - 1)]
                row += ' %.4f |' % math.exp(np.mean(losses))
            print(row, flush=True)


if __name__ == '__main__':
    main()
