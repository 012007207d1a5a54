#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the tokenizers of this folder and their golden encodings with the `tokenizers` library (0.23.3 made those in the repository).

Each NAME.json is {"tokenizer": tokenizer.json, "cases": [[text, ids without special tokens, decoded text or null] …]}; null: decoding is not tested (again);
those of NAME-runs.json have a fourth element, the ids with encode_special_tokens (what spells a special token stays text). The library is needed to make
them again, not to run the tests (tests/cli/test_tokenizers.py). With names as arguments only those are made.
"""
import json
import pathlib
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
CORPUS = (HERE.parent / "fairy-6m" / "golden" / "eval.txt").read_text(encoding="utf-8")[:30000]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

TEXTS = [
    "", "a", " ", "  ", " a", "a ", "Hello, world!", "Hello  world", "\n", "a\n\nb", "\tx", "the king and the queen", "don't DON'T we'll",
    "1234567 12", "naïve café", "cafe\u0301 A\u030a \u1100\u1161", "你好，世界", "日本語 テスト", "😀 👩‍👩‍👧", "▁x ▁ ▁▁y", "a▁b", "Ünïcödé ½ ﬁ", "\u00a0x\u2003y",
    "x=1+2*3;//c", "(a) [b] {c} <d>", "...---!!!", "<s>", "<s>hello</s>world", "a<s> b", " <s> ", "<unk>", "<0x41>", "<|x|> <|x|>y", "mask[MASK]mask",
    "a [MASK] b", "[MASK]", "word WORD words", "WORD", "a WORD.", "_WORD WORD_", "é WORDé", "\r\nline\r\n", "supercalifragilistic", "Привет, мир", "a\u200bb", "\u180e \u180e",
    "1234a b", "a  b\u3000c", "12:34,5.6!!", "x²³½ ＡＢ ㍿㋿", "\u1c89\ua7cba\U00010d50 \U00010d40\U00016d70 \U0001fae9\u0897", "\u0378 \ue000 \U000e0000", "\u2e52\u166d\u061d", "ΑΣ ΣΣ İ ſ",
    "'s 't 'LL", "   leading", "trailing   ", "Ⅷ ⅷ ①", "a\u0000b", "\ufeffx", "\U0001F600\U0001F600",
]


def character_bpe(byte_fallback, fuse_unk, vocab_size=420):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse_unk, byte_fallback=byte_fallback))
    special = ["<unk>", "<s>", "</s>"] + (BYTES if byte_fallback else [])
    size = vocab_size + (256 if byte_fallback else 0)
    return tokenizer, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, limit_alphabet=70)


def demote_bytes(tokenizer):
    """Byte tokens are ordinary entries of the vocabulary, not added tokens, in real checkpoints."""
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(data))


def add_bos(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])


def llama_legacy():
    tokenizer, trainer = character_bpe(True, True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only: words, not sentences
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer = demote_bytes(tokenizer)
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    add_bos(tokenizer)
    return tokenizer


def metaspace(scheme, split, decoder, byte_fallback, fuse_unk):
    tokenizer, trainer = character_bpe(byte_fallback, fuse_unk)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, True)
    tokenizer.decoder = decoder
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer = demote_bytes(tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split)
    add_bos(tokenizer)
    return tokenizer


def byte_level(pre, normalizer=None):
    tokenizer = Tokenizer(models.BPE(ignore_merges=False))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer


def llama3_split():
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])


def many_steps():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Split(Regex("[aeiou]"), "contiguous"),
        pre_tokenizers.ByteLevel(False, use_regex=False)])


def falcon():
    """Digits and Split see bytes as characters, '²' among them."""
    return pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])


def byte_level_twice():
    return pre_tokenizers.Sequence([
        pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Split(Regex("[ĠĊ]+|Ã|²"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)])


def bloom():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r" ?[^(\s|[.,!?…。，、।۔،])]+"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def intersections():
    """As in tokenizers that keep Han apart."""
    pattern = r"\p{Han}+|[\p{Lu}\p{Lt}\p{M}&&[^\p{Han}]]*[\p{L}&&[^\p{Lu}\p{Han}]]+|\p{N}{1,3}|[^\s\p{L}[:digit:]]+|\P{L}"
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])


def gemma(pre):
    """Spaces become marks first, so that the pre-tokenizer sees no spaces."""
    tokenizer, trainer = character_bpe(True, True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer = demote_bytes(tokenizer)
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def gemma_patterns():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[ -&]|[!-~]{4}"), "isolated"), pre_tokenizers.Split(Regex(r"[^\s\p{L}]+▁|\S▁?|\p{Z}| "), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"▁[^▁]"), "contiguous"), pre_tokenizers.Split(" ", "removed", True)])


def clip():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(pattern, "removed", True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>"], show_progress=False, end_of_word_suffix="</w>",
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("<s>", 1), ("<s>", 1), trim_offsets=False, add_prefix_space=False)
    return tokenizer


def nfkc():
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Sequence([normalizers.Lowercase()])])
    return byte_level(pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(True)]), normalizer)


def with_added(tokenizer, normalized):
    tokenizer.add_tokens([
        AddedToken("[MASK]", lstrip=True, rstrip=True, normalized=False), AddedToken("WORD", single_word=True, normalized=normalized),
        AddedToken("<|x|>", rstrip=True, normalized=normalized), AddedToken("<|x|>y", normalized=False)])
    return tokenizer


# Runs of added tokens that take white space, which holds further ones; normalized ones; byte tokens.
RUNS = [
    "<|r|> \n <|r|>\n\n<|b|>", "<|r|>\n\nx", "a <|l|> \n\t <|l|>", "<|n|>  <|n|> x", "x<|n|>y<|b|>\tz", "<|r|> x x<|r|>\n x", "a b a b", "xa b", "Qy  Qy",
    "e\u0301 \u00e9", "<0x41>A<0x41>", "<0x4z>", "<s><|b|></s>", " <s> <|b|> x", "<|b|>", "\t\t", "\n", "a<|w|> <|w|>", "<|n|>"]


def with_runs(tokenizer):
    tokenizer.add_special_tokens([AddedToken("<|b|>", lstrip=True, rstrip=True), AddedToken("<|w|>", single_word=True), AddedToken("\t"),
                                  AddedToken("<|n|>", rstrip=True, normalized=True)])
    tokenizer.add_tokens([
        AddedToken("<|r|>", rstrip=True, normalized=False), AddedToken("<|l|>", lstrip=True, normalized=False), AddedToken("\n", normalized=False),
        AddedToken(" x", normalized=False), AddedToken("a b", normalized=True), AddedToken("Qy", lstrip=True, normalized=True),
        AddedToken("e\u0301", normalized=True), AddedToken("<0x41>", normalized=False), AddedToken("<0x4z>", normalized=False)])
    return tokenizer


def sentencepiece_decoder():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


# Decoded as others are: a few texts are enough.
FEW_DECODED = ("falcon", "byte-level-twice", "bloom", "intersections", "gemma", "gemma-patterns", "clip", "nfkc", "nfkd")

TOKENIZERS = {
    "spm-legacy": llama_legacy,
    "spm-legacy-added": lambda: with_added(llama_legacy(), True),
    "spm-first": lambda: metaspace("first", False, sentencepiece_decoder(), True, True),
    "spm-first-split": lambda: with_added(metaspace("first", True, sentencepiece_decoder(), True, False), False),
    "metaspace-always": lambda: metaspace("always", True, decoders.Metaspace("▁", "always", True), False, True),
    "metaspace-never": lambda: metaspace("never", True, decoders.Metaspace("▁", "never", True), False, False),
    "llama3-nfc": lambda: with_added(byte_level(llama3_split(), normalizers.NFC()), True),
    "gpt2": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2-prefix": lambda: with_added(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)), False),
    "many-steps": lambda: byte_level(many_steps()),
    "falcon": lambda: byte_level(falcon()),
    "byte-level-twice": lambda: byte_level(byte_level_twice()),
    "bloom": lambda: byte_level(bloom()),
    "intersections": lambda: byte_level(intersections()),
    "gemma": lambda: gemma(pre_tokenizers.Split(" ", "merged_with_previous")),
    "gemma-patterns": lambda: gemma(gemma_patterns()),
    "clip": clip,
    "nfkc": nfkc,
    "nfkd": lambda: byte_level(pre_tokenizers.ByteLevel(False), normalizers.NFKD()),
    "spm-legacy-runs": lambda: with_runs(llama_legacy()),
    "spm-first-runs": lambda: with_runs(metaspace("first", False, sentencepiece_decoder(), True, True)),
    "llama3-nfc-runs": lambda: with_runs(byte_level(llama3_split(), normalizers.NFC())),
}


def case(tokenizer, text, decoded):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return [text, ids, tokenizer.decode(ids, skip_special_tokens=False) if decoded else None]


def case_of_runs(tokenizer, text):
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return case(tokenizer, text) + [plain]


def compact(data):
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def main():
    for name in sys.argv[1:] or TOKENIZERS:
        tokenizer = TOKENIZERS[name]()
        runs = name.endswith("-runs")
        cases = [case_of_runs(tokenizer, text) for text in RUNS] if runs else [
            case(tokenizer, text, name not in FEW_DECODED or i % 8 == 7) for i, text in enumerate(TEXTS)]
        lines = ",\n".join(compact(entry) for entry in cases)
        text = '{"tokenizer":' + compact(json.loads(tokenizer.to_str())) + ',\n"cases":[\n' + lines + "\n]}\n"
        (HERE / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
