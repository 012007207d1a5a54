# SPDX-License-Identifier: MIT
"""The model of section 10 in plain Python, for models of a few hundred thousand weights.

Quantized inputs and products of ternary matrices are as sections 5 and 5.1 have them, each operation rounded to f32.
Between them values are f64, where the specification says f32 and leaves the order of sums open: what comes out is near
what other implementations give, not equal to it.
"""
import math
from array import array
from operator import mul

import layout
from floats import f32, to_floats
from layout import F32_EMBEDDINGS, LINEAR, LLAMA3, TIED, UNIT_VECTOR, YARN, YARN_NOT_ROUNDED

LAST, MEAN, FIRST = 1, 2, 3  # pooling


def dot(a, b):
    return sum(map(mul, a, b))


# Products, sections 5 and 5.1.

def quantize(x, bits):
    """The integers and s."""
    least, low, high = (f32(1e-5), -128, 127) if bits == 8 else (f32(1e-30), -32512, 32512)
    x = array('f', x)
    s = f32(high / max(max(map(abs, x)), least))
    return [max(low, min(high, round(v))) for v in array('f', [v * s for v in x])], s


def one_sum(weights, integers, high):
    """S of section 5; high: the upper bytes of 16 bits, or nothing."""
    if not high:
        return f32(dot(weights, integers))
    h = dot(weights, high)
    return f32(f32(h) * 256 + f32(dot(weights, integers) - 256 * h))


def group_sums(weights, integers, scales, group):
    """a of section 5.1."""
    a = 0.0
    for g, scale in enumerate(scales):
        part = slice(g * group, (g + 1) * group)
        a = f32(a + f32(scale * f32(dot(weights[part], integers[part]))))
    return a


def product(hyper, matrix, x):
    """W x with x quantized."""
    cols, groups, group = matrix.cols, layout.groups(matrix.cols, hyper), hyper['scale_group']
    integers, s = quantize(x, hyper['activation_bits'])
    high = [(v + 128) >> 8 for v in integers] if hyper['activation_bits'] == 16 else []
    weights, found = array('b', matrix.weights), []
    for n in range(matrix.rows):
        row, scales = weights[n * cols:(n + 1) * cols], matrix.scales[n * groups:(n + 1) * groups]
        if groups == 0:
            found.append(f32(one_sum(row, integers, high) * f32(matrix.gamma / s)))
        elif groups == 1:
            found.append(f32(f32(one_sum(row, integers, high) * scales[0]) * f32(1 / s)))
        else:
            found.append(f32(group_sums(row, integers, scales, group) * f32(1 / s)))
    return found


# The other operations of section 10.

def rmsnorm(x, weights, eps):
    factor = 1 / math.sqrt(dot(x, x) / len(x) + eps)
    return [w * v * factor for w, v in zip(weights, x)]


def activation(hyper, x):
    if hyper['activation'] == 2:
        return max(x, 0.0) ** 2
    return x / (1 + math.exp(-x)) if x > -700 else 0.0


def frequencies(hyper):
    """f_i, computed in f64 and rounded once."""
    half, theta = hyper['head_dim'] // 2, hyper['rope_theta']
    plain = [theta ** (-2 * i / hyper['head_dim']) for i in range(half)]
    scale = {LLAMA3: llama3, YARN: yarn, LINEAR: lambda h, _, f: f / h['rope_factor']}.get(hyper['rope_scaling'])
    return [f32(scale(hyper, i, f) if scale else f) for i, f in enumerate(plain)]


def llama3(hyper, _i, f):
    low, high = hyper['rope_low_freq_factor'], hyper['rope_high_freq_factor']
    wavelength, original = 2 * math.pi / f, hyper['rope_original_context']
    if wavelength < original / high:
        return f
    if wavelength > original / low:
        return f / hyper['rope_factor']
    t = (original / wavelength - low) / (high - low)
    return ((1 - t) / hyper['rope_factor'] + t) * f


def yarn(hyper, i, f):
    low, high = yarn_range(hyper)
    t = max(0.0, min(1.0, (i - low) / (high - low)))
    return f / hyper['rope_factor'] * t + f * (1 - t)


def yarn_range(hyper):
    """The pairs between which frequencies go over."""
    def turns(r):
        return hyper['head_dim'] * math.log(hyper['rope_original_context'] / (2 * math.pi * r)) / (
            2 * math.log(hyper['rope_theta']))
    low, high = turns(hyper['rope_beta_fast']), turns(hyper['rope_beta_slow'])
    if not hyper['flags'] & YARN_NOT_ROUNDED:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, hyper['head_dim'] - 1)
    return low, high + 0.001 if low == high else high


def rope(hyper, turns, head, position):
    factor = hyper['rope_attention_factor'] if hyper['rope_scaling'] == YARN else 1.0
    first, second = head[:len(head) // 2], head[len(head) // 2:]
    turned = []
    for a, b, f in zip(first, second, turns):
        cos, sin = math.cos(f32(position * f)) * factor, math.sin(f32(position * f)) * factor
        turned.append((a * cos - b * sin, b * cos + a * sin))
    return [a for a, _ in turned] + [b for _, b in turned]


def attention(query, keys, values):
    scores = [dot(query, key) / math.sqrt(len(query)) for key in keys]
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    total = sum(weights)
    return [dot(weights, column) / total for column in zip(*values)]


# The model.

class Run:
    """One sequence. step() takes a token and returns x after all layers."""

    def __init__(self, model):
        self.model, self.hyper, self.frequencies = model, model.hyper, frequencies(model.hyper)
        self.keys = [[] for _ in range(self.hyper['n_layers'])]
        self.values = [[] for _ in range(self.hyper['n_layers'])]

    def norm(self, x, layer, name):
        """rmsnorm where the tensor exists, else nothing."""
        weights = self.model.norms.get((layer, name))
        return x if weights is None else rmsnorm(x, weights, self.hyper['norm_eps'])

    def linear(self, x, layer, name):
        """A product, with the norm before it and the bias behind it that it may have."""
        own = self.model.norms.get((layer, name + '_linear_norm'))
        x = x if own is None else rmsnorm(x, own, self.hyper['linear_norm_eps'])
        y = product(self.hyper, self.model.ternary[layer, name], x)
        bias = self.model.norms.get((layer, name + '_bias'))
        return y if bias is None else [a + b for a, b in zip(y, bias)]

    def embedding(self, token):
        cols, matrix = self.hyper['hidden_size'], self.model.ternary.get((None, 'token_embedding'))
        if matrix is None:
            size = 4 if self.hyper['flags'] & F32_EMBEDDINGS else 2
            row = slice(token * cols * size, (token + 1) * cols * size)
            return to_floats(self.model.embeddings['token_embedding'][row], size)
        row = array('b', matrix.weights[token * cols:(token + 1) * cols])
        groups = layout.groups(cols, self.hyper)
        if not groups:
            return [w * matrix.gamma for w in row]
        scales = matrix.scales[token * groups:(token + 1) * groups]
        return [w * scales[k // self.hyper['scale_group']] for k, w in enumerate(row)]

    def heads(self, x, layer, name, position):
        size = self.hyper['head_dim']
        heads = [self.norm(x[i:i + size], layer, name) for i in range(0, len(x), size)]
        return [rope(self.hyper, self.frequencies, head, position) for head in heads]

    def step(self, token):
        x = self.embedding(token)
        for layer in range(self.hyper['n_layers']):
            x = self.layer(x, layer)
        return x

    def layer(self, x, layer):
        h = self.norm(x, layer, 'attn_norm')
        q, k, v = (self.linear(h, layer, name) for name in ('attn_q', 'attn_k', 'attn_v'))
        a = self.norm(self.attend(layer, q, k, v), layer, 'attn_sub_norm')
        x = [r + s for r, s in zip(x, self.linear(a, layer, 'attn_o'))]
        h = self.norm(x, layer, 'ffn_norm')
        gate, up = self.linear(h, layer, 'ffn_gate'), self.linear(h, layer, 'ffn_up')
        inner = self.norm([activation(self.hyper, g) * u for g, u in zip(gate, up)], layer, 'ffn_sub_norm')
        return [r + s for r, s in zip(x, self.linear(inner, layer, 'ffn_down'))]

    def attend(self, layer, q, k, v):
        keys, values, size = self.keys[layer], self.values[layer], self.hyper['head_dim']
        queries = self.heads(q, layer, 'attn_q_norm', len(keys))
        keys.append(self.heads(k, layer, 'attn_k_norm', len(keys)))
        values.append([v[i:i + size] for i in range(0, len(v), size)])
        share, found = self.hyper['n_heads'] // self.hyper['n_kv_heads'], []
        for j, query in enumerate(queries):
            found += attention(query, [k[j // share] for k in keys], [v[j // share] for v in values])
        return found

    def logits(self, x):
        h = self.norm(x, None, 'final_norm')
        name = 'token_embedding' if self.hyper['flags'] & TIED else 'output'
        if (None, name) in self.model.ternary:
            return product(self.hyper, self.model.ternary[None, name], h)
        size = 4 if self.hyper['flags'] & F32_EMBEDDINGS else 2
        values = to_floats(self.model.embeddings[name], size)
        return [dot(values[i:i + len(h)], h) for i in range(0, len(values), len(h))]


def logits(model, tokens):
    """The logits of every position."""
    run = Run(model)
    return [run.logits(run.step(token)) for token in tokens]


def vector(model, tokens):
    """What pooling makes of a text."""
    run = Run(model)
    found = [run.norm(run.step(token), None, 'final_norm') for token in tokens]
    kind = model.hyper['pooling']
    pooled = found[-1] if kind == LAST else found[0]
    if kind == MEAN:
        pooled = [sum(column) / len(found) for column in zip(*found)]
    length = math.sqrt(dot(pooled, pooled)) if model.hyper['flags'] & UNIT_VECTOR else 1.0
    return [x / length for x in pooled]
