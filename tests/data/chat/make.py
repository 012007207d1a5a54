#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes templates.json: chat templates as checkpoints have them, and conversations rendered from them by Jinja as transformers does it.

Needs the jinja2 package; the tests (tests/unit/test_chat.c) read templates.json and need nothing.
"""
import json
import pathlib

import jinja2
import jinja2.sandbox

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
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")
INST = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate.') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant!') }}"
    "{% endif %}{% endfor %}")
# The answer stands behind a space that is not asked for.
INST_SPACE = INST.replace("{{ message['content'] + eos_token }}", "{{ ' ' + message['content'] | trim + eos_token }}")
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}")
# The system text stands inside the first turn.
GEMMA_SYSTEM = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set prefix = messages[0]['content'] + '

' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '
' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {{ item['text'] | trim }}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""
TOOLS = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou help {everybody}.\\n\\nIt\\'s "fine".<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
# Looks for thinking in answers and drops it from all but the last.
THINKING = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
# The same without a newline more: what stands behind the thought stays as it is.
THINKING_KEPT_NEWLINES = CHATML.replace(
    "message['content']", "(message['content'].split('</think>')[-1] if message.role == 'assistant' else message['content'])")
DATE = "{{ bos_token }}{% set day = strftime_now('%d %b %Y') if strftime_now is defined else 'today' %}{{ day }}" + CHATML
DATA = (
    "{# Text outside of literals. #}\n{% for message in messages %}\n    <|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "    {% endfor %}\n{%- if add_generation_prompt %}\n    <|im_start|>assistant\n{% endif %}\n")


def chatml(old, new):
    assert old in CHATML
    return CHATML.replace(old, new)


CONTENT = "message['content']"
PROMPT = "{{ '<|im_start|>assistant\\n' }}"
L, X, C = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"), ("<s>", "</s>", "</s>"), ("<s>", "<|endoftext|>", "<|im_end|>")

# name that bnt gives it, template, (bos, eos, the token that ends an answer)
ACCEPTED = [
    ("llama3", LLAMA3, L),
    ("llama3", LLAMA3.replace("\\n", "\n"), L),
    ("bitnet", BITNET, L),
    ("bitnet", BITNET.replace("{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}", ""), L),
    ("bitnet", "System: Answer politely.<|eot_id|>" + BITNET, L),
    ("chatml", CHATML, C),
    ("chatml", CHATML.replace("\\n", "\n"), C),
    ("chatml", CHATML_DEFAULT, C),
    ("chatml", "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nPut it in {}.<|im_end|>\\n' }}{% endif %}" + CHATML, C),
    ("chatml", "{{ 'Rules: \\x41\\u00e9.\\n' }}" + CHATML, C),
    ("chatml", "{% set greeting %}Hi {{ bos_token }}.\n{% endset %}{{ greeting }}" + CHATML, C),
    ("chatml", chatml(CONTENT, "(message.content if message.content is string else message.content[0].text)"), C),
    ("chatml", chatml(CONTENT, CONTENT + " | trim"), C),
    ("chatml", chatml(CONTENT, "(message.content.strip() if message.role == 'user' else message.content)"), C),
    ("chatml", "{% macro tool(t) %}{% if t %}{{ t | tojson }}{% endif %}{% endmacro %}" + CHATML, C),
    ("chatml", TOOLS, C),
    ("chatml", THINKING, C),
    ("chatml", THINKING_KEPT_NEWLINES, C),
    ("chatml", DATA, C),
    ("falcon", FALCON, ("", "<|endoftext|>", "<|endoftext|>")),
    ("falcon", ZEPHYR, X),
    ("mistral", INST, X),
    ("gemma", GEMMA, ("<bos>", "<eos>", "<end_of_turn>")),
    ("gemma", GEMMA_SYSTEM, ("<bos>", "<eos>", "<end_of_turn>")),
]
# what bnt says, template
REFUSED = [
    ("asked for otherwise", chatml(PROMPT, PROMPT + "{{ '<think>\\n' }}")),
    ("asked for otherwise", chatml(PROMPT, "{{ '<|im_start|>assistant' }}")),
    ("asked for otherwise", INST_SPACE),
    ("date", DATE),
    ("looks into", chatml(CONTENT, CONTENT + " | upper")),
    ("looks into", chatml(CONTENT, CONTENT + ".replace('a', 'b')")),
    ("looks into", chatml(CONTENT, "(message.content or '(nothing)')")),
    ("looks into", chatml(CONTENT, "('' if 'secret' in message.content else message.content)")),
    ("looks into", chatml(CONTENT, "('a\\n' + message.content).strip()")),
    ("what is said", chatml(CONTENT, CONTENT + ".lstrip()")),
    ("once and in order", chatml(CONTENT, CONTENT + " + " + CONTENT)),
    ("once and in order", chatml("in messages", "in messages[-1:]")),
    ("counts", chatml("{% endfor %}", "{% if loop.index > 20 %}{{ 'Enough.' }}{% endif %}{% endfor %}")),
    ("longer conversations", chatml("{% endfor %}", "{% if loop.index0 == 3 %}{{ 'Three.' }}{% endif %}{% endfor %}")),
    ("thinking", chatml(CONTENT, "(message.content.split('</think>')[0] if message.role == 'assistant' else message.content)")),
    ("no list", chatml("'\\n'}}", "'\\n'}}{% for part in message.content %}{{ part.text }}{% endfor %}")),
    ("not defined", "{% macro one(m) %}{{ m.content }}{% endmacro %}" + chatml(CONTENT, "one(message)")),
    ("tag", CHATML + "{% include 'other' %}"),
    ("end", CHATML + "{% if tools %}"),
]
ANSWERS = ["Hi, how are you?", " Good. ", "<think>\nHm.\n</think>\n\nFine.", "a</think>b</think> c\n", "<think>cut"]
TURNS = [("Hello!", 0), ("  Fine,\n thanks. ", 1), ("Go on", 2), ("{{ x }} <|im_end|>", 3), ("\u3000Bye\n", 4), ("", 0), ("Still here", 0)]
TURNS = [(said, ANSWERS[answer]) for said, answer in TURNS]


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def render(template, messages, bos, eos):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    tokens = {name: text for name, text in (("bos_token", bos), ("eos_token", eos)) if text}
    return environment.from_string(template).render(messages=messages, tools=None, documents=None, add_generation_prompt=True, **tokens)


def conversation(system, turns):
    messages = [{"role": "system", "content": system}] if system else []
    for user, assistant in turns[:-1]:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages + [{"role": "user", "content": turns[-1][0]}]


def conversations(template, bos, eos):
    """Conversations and their texts; a text is null where the template refuses, or passes over, a system text."""
    for system in ("", " Be kind.\n"):
        for count in (1, 2, 4, len(TURNS)):
            try:
                text = render(template, conversation(system, TURNS[:count]), bos, eos)
            except jinja2.exceptions.TemplateError:
                assert system
                text = None
            yield {"system": system, "turns": TURNS[:count], "text": text}


def main():
    out = []
    for name, template, (bos, eos, stop) in ACCEPTED:
        out.append({"name": name, "template": template, "bos": bos, "eos": eos, "stop": stop,
                    "conversations": list(conversations(template, bos, eos))})
    for why, template in REFUSED:
        out.append({"refused": why, "template": template, "bos": "<s>", "eos": "</s>"})
    path = pathlib.Path(__file__).parent / "templates.json"
    path.write_text(json.dumps({"templates": out}, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
