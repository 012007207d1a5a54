#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes formats/unicode_data.c, the Unicode tables behind tokenizers' patterns: formats/unicode.py > formats/unicode_data.c

The authority for ids is the `tokenizers` library, and each of its parts has tables of its own. 0.23.3 has: patterns, Unicode 16.0; numbers (Digits) and lower case, 17.0; normalization, 9.0; Punctuation, about 8.0 with errors of its own.
They are asked of the library itself. What old PCRE2s know (Unicode 14.0) is asked of perl 5.36. Needed to make the table again, not to build.
"""
import subprocess
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cs".split()
FLAGS = ["Alphabetic", "Uppercase", "Lowercase"]
SCRIPTS = """Arabic Armenian Bengali Bopomofo Common Cyrillic Devanagari Ethiopic Georgian Greek Gujarati Gurmukhi Han Hangul Hebrew Hiragana
Inherited Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar Sinhala Tamil Telugu Thai Tibetan""".split()
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, ALL))


def members(pattern):
    """The characters that a pattern of the library matches."""
    found = pre_tokenizers.Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(TEXT)
    return {ALL[i] for _, (start, end) in found for i in range(start, end)}


def isolated(pre_tokenizer):
    """The characters that a pre-tokenizer cuts out from between two letters."""
    text = "a" + "".join(chr(c) + "a" for c in ALL)
    return {ALL[start // 2] for _, (start, end) in pre_tokenizer.pre_tokenize_str(text) if end - start == 1 and start % 2}


def perl(code):
    return subprocess.run(["perl", "-MUnicode::UCD=charprop", "-e", code], check=True, capture_output=True, text=True).stdout


def known_to_14(names):
    """For each name of a property, its members in Unicode 14.0."""
    if perl("print Unicode::UCD::UnicodeVersion()") != "14.0.0":
        raise SystemExit("perl must know Unicode 14.0.0")
    tests = ",".join(f"qr/\\p{{{name}}}/" for name in names)
    lines = perl(f"for my $p ({tests}) {{ print join(' ', grep {{ chr($_) =~ $p }} (0..0xD7FF, 0xE000..0x10FFFF)), qq(\\n) }}").split("\n")
    return [set(map(int, line.split())) for line in lines[:len(names)]]


def without_forms():
    """Characters that the library's normalization leaves alone, whatever stands around them: those that Unicode 9.0 lacks."""
    nfkd, nfd = normalizers.NFKD(), normalizers.NFD()
    known = set(map(int, perl(r"print join(' ', grep { chr($_) =~ /\p{Present_In: 9.0}/ } (0..0xD7FF, 0xE000..0x10FFFF))").split()))
    inert = {c for c in ALL if c not in known}
    for c in map(chr, inert):
        # U+0345 has class 240 and U+0334 class 1: they change places unless something of class 0 is between them.
        text = "a\u0345" + c + "\u0334"
        if nfkd.normalize_str(c) != c or nfd.normalize_str(text) != text:
            raise SystemExit(f"U+{ord(c):04X} has a normalization form: it is not of Unicode 9.0")
    return inert


def ranges(codes):
    out = []
    for c in sorted(codes):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(kind, name, values, per_line, form):
    lines = [", ".join(form(v) for v in values[i:i + per_line]) for i in range(0, len(values), per_line)]
    return f"{kind} {name}[] = {{\n    " + ",\n    ".join(lines) + ",\n};\n"


def runs():
    """first | category << 21 | flags << 26, one for each stretch of equal characters."""
    category = {c: i for i, name in enumerate(CATEGORIES) if name not in ("Cn", "Cs") for c in members(rf"\p{{{name}}}")}
    category.update({c: CATEGORIES.index("Cs") for c in range(0xD800, 0xE000)})
    flags = [members(rf"\p{{{name}}}") for name in FLAGS]
    names = [n for n in CATEGORIES if n not in ("Cn", "Cs")]
    now = [members(rf"\p{{{name}}}") for name in names + FLAGS + SCRIPTS]
    newer = set().union(*(a ^ b for a, b in zip(now, known_to_14(names + FLAGS + [f"sc={name}" for name in SCRIPTS]))))
    columns = flags + [newer, without_forms()]
    out, before = [], None
    for c in range(0x110000):
        value = category.get(c, 0) | sum(1 << (5 + i) for i, codes in enumerate(columns) if c in codes)
        if value != before:
            out.append(c | value << 21)
        before = value
    return out


def lower_runs():
    """{first, last, stride, distance to the lower case}; what becomes two characters apart."""
    pairs, special = [], {}
    for c in ALL:
        lower = normalizers.Lowercase().normalize_str(chr(c))
        if len(lower) > 1:
            special[c] = lower
        elif lower != chr(c):
            pairs.append((c, ord(lower) - c))
    if special != {0x130: "i\u0307"}:
        raise SystemExit(f"other characters than U+0130 become several: {special}")
    out = []
    for c, distance in pairs:
        run = out[-1] if out else None
        if run and run[3] == distance and (run[0] == run[1] and c - run[1] <= 2 or c - run[1] == run[2]):
            run[1:3] = c, c - run[1]
        else:
            out.append([c, c, 1, distance])
    return out


def hexadecimal(value):
    return f"0x{value:X}"


def pair(values):
    return f"{{0x{values[0]:X}, 0x{values[1]:X}}}"


def named_ranges(name, codes):
    """A table, and a public name for it with its size."""
    found = ranges(codes)
    return table("static const struct bnt_char_range", name, found, 6, pair), f"{{{name}, {len(found)}}}"


def main():
    number = isolated(pre_tokenizers.Digits(individual_digits=True)) - members(r"\p{N}")
    punctuation = isolated(pre_tokenizers.Punctuation("isolated"))
    usual = members(r"[\p{P}$+<=>^`|~]")
    print("// SPDX-License-Identifier: MIT\n// Made by formats/unicode.py; not to be edited.\n#include \"formats/unicode.h\"\n\n// clang-format off")
    values = runs()
    print(table("const uint32_t", "bnt_unicode_runs", values, 10, hexadecimal))
    print(f"const uint32_t bnt_unicode_n_runs = {len(values)};\n")
    for name, codes in (("more_numbers", number), ("more_punctuation", punctuation - usual), ("no_punctuation", usual - punctuation)):
        text, value = named_ranges(name, codes)
        print(text + f"const struct bnt_char_ranges bnt_unicode_{name} = {value};\n")
    lower = lower_runs()
    print(table("const struct bnt_case_run", "bnt_unicode_lower", lower, 4, lambda r: f"{{0x{r[0]:X}, 0x{r[1]:X}, {r[2]}, {r[3]}}}"))
    print(f"const uint32_t bnt_unicode_n_lower = {len(lower)};\n")
    scripts = []
    for name in SCRIPTS:
        text, value = named_ranges(name.lower(), members(rf"\p{{{name}}}"))
        print(text)
        scripts.append(f'    {{"{name}", {value}}},')
    print("const struct bnt_unicode_script bnt_unicode_scripts[] = {\n" + "\n".join(scripts) + "\n};\n")
    print(f"const uint32_t bnt_unicode_n_scripts = {len(SCRIPTS)};")


if __name__ == "__main__":
    main()
