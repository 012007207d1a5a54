#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes templates.json: chat templates as checkpoints have them, and conversations rendered from them by Jinja as transformers does it.

Needs the jinja2 package; the tests (tests/unit/test_chat.c) read templates.json and need nothing.
"""
import json
import pathlib

import jinja2

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}")
BITNET = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = message['role'] | capitalize + ': '+ "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}")
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
CHATML_DEFAULT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful "
    "assistant.\\nBe brief.<|im_end|>\\n' }}{% endif %}{{(\"<|im_start|>\" + message.role + \"\\n\" + message.content + \"<|im_end|>\" + \"\\n\")}}"
    "{% endfor %}{% if add_generation_prompt %}{{ \"<|im_start|>assistant\\n\" }}{% endif %}")
FALCON = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '\\n' }}{% elif message['role'] == 'assistant' %}"
    "{% if not loop.last %}{{ '<|assistant|>\\n'  + message['content'] + eos_token + '\\n' }}{% else %}{{ '<|assistant|>\\n'  + message['content'] + "
    "eos_token }}{% endif %}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}")
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")
INST = "{{ bos_token }}{% for message in messages %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endfor %}"

# name that bnt gives it (null: unknown), template, bos, eos, the token that ends an answer
TEMPLATES = [
    ("llama3", LLAMA3, "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    ("bitnet", BITNET, "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
    ("chatml", CHATML, "", "<|im_end|>", "<|im_end|>"),
    ("chatml", CHATML_DEFAULT, "<s>", "<|endoftext|>", "<|im_end|>"),
    ("falcon", FALCON, "", "<|endoftext|>", "<|endoftext|>"),
    (None, ZEPHYR, "<s>", "</s>", ""),
    (None, INST, "<s>", "</s>", ""),
]
TURNS = [("Hello!", "Hi, how are you?"), ("  Fine,\n thanks. ", "Good."), ("Bye", "")]


def render(template, messages, bos, eos):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=True)


def conversation(system, turns):
    messages = [{"role": "system", "content": system}] if system else []
    for user, assistant in turns[:-1]:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages + [{"role": "user", "content": turns[-1][0]}]


def main():
    out = []
    for name, template, bos, eos, stop in TEMPLATES:
        entry = {"name": name, "template": template, "bos": bos, "eos": eos, "stop": stop, "conversations": []}
        for system in ("", "Be kind."):
            for count in range(1, len(TURNS) + 1):
                text = render(template, conversation(system, TURNS[:count]), bos, eos) if name else ""
                entry["conversations"].append({"system": system, "turns": TURNS[:count], "text": text})
        out.append(entry)
    path = pathlib.Path(__file__).parent / "templates.json"
    path.write_text(json.dumps({"templates": out}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
