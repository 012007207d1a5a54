# SPDX-License-Identifier: MIT
"""A small Qwen3Model of three levels with sentence-transformers' files beside it, made anew wherever it is needed: random numbers that every Python
gives alike. Standard library only."""
import json
import os
import random
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', '..', 'cli'))
from tools import Checkpoint, Tensor, read_json  # noqa: E402

TEXTS = ['', 'The king and the queen', 'In a deep forest there lived a woodcutter, his wife and their two children. ' * 5]
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, GROUP = 64, 96, 2, 4, 2, 16, 32
LINEARS = {'self_attn.q_proj': (HEADS * HEAD_DIM, HIDDEN), 'self_attn.k_proj': (KV_HEADS * HEAD_DIM, HIDDEN),
           'self_attn.v_proj': (KV_HEADS * HEAD_DIM, HIDDEN), 'self_attn.o_proj': (HIDDEN, HEADS * HEAD_DIM),
           'mlp.gate_proj': (FFN, HIDDEN), 'mlp.up_proj': (FFN, HIDDEN), 'mlp.down_proj': (HIDDEN, FFN)}
NORMS = {'input_layernorm': HIDDEN, 'post_attention_layernorm': HIDDEN, 'self_attn.q_norm': HEAD_DIM, 'self_attn.k_norm': HEAD_DIM}


def halves(shape, numbers):
    return Tensor('F16', list(shape), struct.pack('<%de' % len(numbers), *numbers))


def half(x):
    return struct.unpack('<e', struct.pack('<e', x))[0]


def levels(r, rows, cols):
    """Each row and group of 32 has a scale of its own."""
    numbers = []
    for _ in range(rows):
        for at in range(0, cols, GROUP):
            scale = half(0.05 + 0.2 * r.random())
            numbers += [scale * (int(3 * r.random()) - 1) for _ in range(at, min(at + GROUP, cols))]
    return halves((rows, cols), numbers)


def norm(r, size):
    return halves((size,), [0.5 + r.random() for _ in range(size)])


def weights(vocab, seed):
    r = random.Random(seed)
    tensors = {'embed_tokens.weight': halves((vocab, HIDDEN), [2 * r.random() - 1 for _ in range(vocab * HIDDEN)])}
    for layer in range(LAYERS):
        for name, shape in LINEARS.items():
            tensors['layers.%d.%s.weight' % (layer, name)] = levels(r, *shape)
        for name, size in NORMS.items():
            tensors['layers.%d.%s.weight' % (layer, name)] = norm(r, size)
    tensors['norm.weight'] = norm(r, HIDDEN)
    return tensors


def config(vocab):
    return {'architectures': ['Qwen3Model'], 'model_type': 'qwen3', 'hidden_size': HIDDEN, 'intermediate_size': FFN, 'num_hidden_layers': LAYERS,
            'num_attention_heads': HEADS, 'num_key_value_heads': KV_HEADS, 'head_dim': HEAD_DIM, 'vocab_size': vocab, 'max_position_embeddings': 512,
            'hidden_act': 'silu', 'rms_norm_eps': 1e-6, 'rope_theta': 1000000.0, 'tie_word_embeddings': True, 'attention_bias': False,
            'use_sliding_window': False, 'bos_token_id': None, 'eos_token_id': 1, 'torch_dtype': 'float16'}


def tokenizer():
    """GPT-2's kind, with </s> behind a text as Qwen3-Embedding has <|endoftext|>."""
    data = read_json(HERE, '..', 'tokenizers', 'gpt2.json')['tokenizer']
    data['post_processor'] = {
        'type': 'TemplateProcessing', 'single': [{'Sequence': {'id': 'A', 'type_id': 0}}, {'SpecialToken': {'id': '</s>', 'type_id': 0}}],
        'pair': [{'Sequence': {'id': 'A', 'type_id': 0}}, {'Sequence': {'id': 'B', 'type_id': 1}}],
        'special_tokens': {'</s>': {'id': '</s>', 'ids': [data['model']['vocab']['</s>']], 'tokens': ['</s>']}}}
    return data


def modules(*types, pooling='1_Pooling'):
    """modules.json of the library's own classes; of version 5 if a name has no dot."""
    paths = {'Pooling': pooling, 'Transformer': ''}
    return [{'idx': i, 'name': str(i), 'path': paths.get(name.split('.')[-1], '%d_%s' % (i, name.split('.')[-1])),
             'type': name if '.' in name else 'sentence_transformers.models.' + name} for i, name in enumerate(types)]


def checkpoint(seed=7):
    """As tests/cli/tools.py has one; without modules.json."""
    made = Checkpoint.__new__(Checkpoint)
    data = tokenizer()
    vocab = 1 + max(data['model']['vocab'].values())
    made.metadata, made.tensors, made.config = {'format': 'pt'}, weights(vocab, seed), config(vocab)
    made.texts = {'tokenizer.json': json.dumps(data).encode('utf-8'),
                  'tokenizer_config.json': b'{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "</s>"}'}
    return made


def save(made, folder, pooling, *types, path='1_Pooling'):
    """With sentence-transformers' files: pooling is the Pooling's config, types are the modules."""
    made.texts['modules.json'] = json.dumps(modules(*types, pooling=path)).encode('utf-8')
    made.save(folder)
    os.makedirs(os.path.join(folder, path), exist_ok=True)
    with open(os.path.join(folder, path, 'config.json'), 'w', encoding='utf-8') as file:
        json.dump(pooling, file)
    return folder


OLD_KEYS = {'first': 'cls_token', 'max': 'max_tokens', 'mean': 'mean_tokens', 'mean_sqrt_len': 'mean_sqrt_len_tokens',
            'weightedmean': 'weightedmean_tokens', 'last': 'lasttoken'}


def old_pooling(*hows):
    """A Pooling's config as version 5 and older write it."""
    return {'word_embedding_dimension': HIDDEN, **{'pooling_mode_' + key: how in hows for how, key in OLD_KEYS.items()}, 'include_prompt': True}


# What the golden vectors are of: a name, the Pooling's config, the modules.
GOLDEN = [('last', old_pooling('last'), ('Transformer', 'Pooling', 'Normalize')),
          ('mean', {'embedding_dimension': HIDDEN, 'pooling_mode': 'mean', 'include_prompt': True},
           ('sentence_transformers.base.modules.transformer.Transformer', 'sentence_transformers.sentence_transformer.modules.pooling.Pooling')),
          ('first', old_pooling('first'), ('Transformer', 'Pooling'))]
