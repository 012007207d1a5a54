#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every kind of tokenizer against the golden encodings of the `tokenizers` library (tests/data/tokenizers/make.py)."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BNT_BIN", ROOT / "build" / "bin"))
DATA = ROOT / "tests" / "data" / "tokenizers"


def config(vocab_size):
    return {
        "architectures": ["BitNetForCausalLM"], "hidden_act": "relu2", "hidden_size": 32, "intermediate_size": 32,
        "max_position_embeddings": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "vocab_size": vocab_size, "bos_token_id": 1, "eos_token_id": 2,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"},
    }


def vocab_size(tokenizer):
    ids = list(tokenizer["model"]["vocab"].values()) + [token["id"] for token in tokenizer["added_tokens"]]
    return max(ids) + 1


def pack(folder, tokenizer):
    """A random model with this tokenizer; returns its path and what the tools said."""
    folder = pathlib.Path(folder)
    (folder / "config.json").write_text(json.dumps(config(vocab_size(tokenizer))))
    subprocess.run([BIN / "bnt-synth", "--like", folder / "config.json", "--form", "masters", "--quiet", "-o", folder / "m"], check=True)
    (folder / "m" / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    subprocess.run([BIN / "bnt-convert", "-o", folder / "t", folder / "m"], check=True)
    packed = subprocess.run([BIN / "bnt-pack", "-o", folder / "m.bnt", folder / "t"], capture_output=True, text=True)
    return folder / "m.bnt", packed


class GoldenTokenizers(unittest.TestCase):
    def check(self, path):
        data = json.loads(path.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            model, packed = pack(folder, data["tokenizer"])
            self.assertEqual((packed.returncode, packed.stderr), (0, ""))
            subprocess.run([BIN / "bnt-verify", model], check=True)
            for text, ids, decoded, *plain in data["cases"]:
                with self.subTest(text=text):
                    wanted = ",".join(map(str, ids))
                    out = subprocess.run([BIN / "bnt-eval", model, "--tokenize", "-"], input=text.encode(), capture_output=True)
                    self.assertEqual(out.stdout.decode().rstrip("\n"), wanted, out.stderr)
                    if decoded is not None:
                        out = subprocess.run([BIN / "bnt-eval", model, "--detokenize", wanted], capture_output=True)
                        self.assertEqual(out.stdout.decode(), decoded, out.stderr)
                    for kept in plain:
                        out = subprocess.run([BIN / "bnt-eval", model, "--control", "text", "--tokenize", "-"], input=text.encode(),
                                             capture_output=True)
                        self.assertEqual(out.stdout.decode().rstrip("\n"), ",".join(map(str, kept)), out.stderr)


def add_tests():
    paths = sorted(DATA.glob("*.json"))
    assert len(paths) >= 10, "golden tokenizers are missing"
    for path in paths:
        name = "test_" + path.stem.replace("-", "_")
        setattr(GoldenTokenizers, name, lambda self, path=path: self.check(path))


add_tests()


class Refusals(unittest.TestCase):
    """What is not supported is refused by name, with one line."""

    def refused(self, change, word):
        data = json.loads((DATA / "spm-legacy.json").read_text(encoding="utf-8"))["tokenizer"]
        change(data)
        with tempfile.TemporaryDirectory() as folder:
            model, packed = pack(folder, data)
            self.assertEqual(packed.returncode, 1)
            self.assertEqual(packed.stderr.count("\n"), 1)
            self.assertIn(word, packed.stderr)
            self.assertFalse(model.exists())

    def test_normalizer(self):
        self.refused(lambda t: t["normalizer"]["normalizers"].append({"type": "Nmt"}), "Nmt")

    def test_model(self):
        self.refused(lambda t: t["model"].update(type="Unigram"), "Unigram")

    def test_decoder(self):
        self.refused(lambda t: t.update(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}), "WordPiece")

    def test_pre_tokenizer(self):
        self.refused(lambda t: t.update(pre_tokenizer={"type": "BertPreTokenizer"}), "BertPreTokenizer")

    def test_post_processor(self):
        self.refused(lambda t: t.update(post_processor={"type": "OtherProcessing"}), "OtherProcessing")

    def test_space_behind_marks(self):
        self.refused(lambda t: t["normalizer"]["normalizers"].append({"type": "Replace", "pattern": {"String": "x"}, "content": "a b"}), "a b")

    def test_nfkc_behind_marks(self):
        self.refused(lambda t: t["normalizer"]["normalizers"].append({"type": "NFKC"}), "NFKC")

    def test_pattern_behind_another_mark(self):
        def change(t):
            t["normalizer"]["normalizers"][1]["content"] = "_"
            t["decoder"]["decoders"][0]["pattern"]["String"] = "_"
            t["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "_x"}, "behavior": "Isolated", "invert": False}
        self.refused(change, "_x")

    def test_set_of_bytes(self):
        self.refused(lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": r"\xE2\x96\x81"}, "behavior": "Isolated"}), "byte 0")

    def test_byte_fallback_without_decoder(self):
        self.refused(lambda t: t["decoder"]["decoders"].pop(1), "byte_fallback")

    def test_mark_not_undone(self):
        self.refused(lambda t: t["decoder"]["decoders"].pop(0), "undo")

    def test_byte_outside_of_the_vocabulary(self):
        def change(t):
            del t["model"]["vocab"]["<0xE4>"]
            t["added_tokens"].append({"id": 71, "content": "<0xE4>", "normalized": False})
        self.refused(change, "<0xE4>")

    def test_unknown_unk(self):
        self.refused(lambda t: t["model"].update(unk_token="<nothing>"), "unk_token")


if __name__ == "__main__":
    unittest.main()
