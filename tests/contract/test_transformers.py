"""The transformers backend keeps every promise of the protocol, on several architectures and vocabularies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_llms.backends import transformers
from local_llms.backends.base import Backend, LoadOptions
from local_llms.testing.adapter_contract import AdapterContract
from local_llms.testing.backend_contract import BackendContract
from local_llms.testing.sequence_contract import SharedBackend
from local_llms.testing.vocabulary_contract import VocabularyContract

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")


class TestStories(BackendContract):
    """LLaMA: grouped heads, a SentencePiece vocabulary with byte fallback."""

    tolerance = 0.001
    interrupts = True

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        path = shared_data / "models/stories260K/hf"
        options = LoadOptions(context_length=512, cache_tokens=1024, max_parallel=4, threads=1)
        return lambda: transformers.load(path, options)


class TestNeoX(BackendContract):
    """GPT-NeoX: a fused projection, a byte-level vocabulary."""

    tolerance = 0.001

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        options = LoadOptions(cache_tokens=512, max_parallel=4, threads=1)
        return lambda: transformers.load(shared_data / "models/neox-stories", options)


class TestGLM(BackendContract):
    """GLM: rotations of neighbours, over half of each head."""

    tolerance = 0.001

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        options = LoadOptions(cache_tokens=512, max_parallel=4, threads=1)
        return lambda: transformers.load(shared_data / "models/glm-stories", options)


class TestLora(AdapterContract):
    """The Shakespeare LoRA over stories260K, as PEFT saved it."""

    tolerance = 0.001

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        path = shared_data / "models/stories260K/hf"
        options = LoadOptions(context_length=512, cache_tokens=1024, max_parallel=4, threads=1)
        return lambda: transformers.load(path, options)

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, shared_data: Path) -> Path:
        return shared_data / "models/stories260K-lora"


class TestSentencePiece(SharedBackend, VocabularyContract):
    """LLaMA's own tokenizer.model, with user-defined pieces, which SentencePiece finds in any text."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
        sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
        folder = tmp_path_factory.mktemp("sentencepiece")
        for name in ("config.json", "model.safetensors", "generation_config.json"):
            shutil.copy(shared_data / "models/stories260K/hf" / name, folder)
        sentencepiece.SentencePieceTrainer.train(
            input=str(shared_data / "text/alice.txt"),
            model_prefix=str(folder / "tokenizer"),
            model_type="bpe",
            vocab_size=500,
            byte_fallback=True,
            character_coverage=0.99,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["<|user|>", "<think>", "\u2581\u2581"],
            control_symbols=["[INST]"],
            minloglevel=2,
        )
        # As fine-tuned models add them, on top of the file.
        (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 500, "<|im_end|>": 501}))
        (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[PAD]", "eos_token": "<|im_end|>"}))
        return lambda: transformers.load(folder, LoadOptions(threads=1))

    def test_what_the_file_tells(self, backend: Backend) -> None:
        info = backend.info
        assert info.adds_bos
        assert info.bos_id == info.special_tokens["<s>"]
        assert info.eos_text == "<|im_end|>"
        assert info.special_tokens["<|im_end|>"] in info.end_ids
        assert {"<unk>", "<s>", "</s>", "<|user|>", "<think>", "[INST]", "[PAD]"} <= set(info.special_tokens)
        assert backend.token_bytes(info.special_tokens["<think>"]) == b"<think>"
        assert backend.token_bytes(info.special_tokens["[INST]"]) == b""


class TestUnigram(SharedBackend, VocabularyContract):
    """A unigram vocabulary whose table has the special tokens: a plain look-up would find them in any text."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
        folder = tmp_path_factory.mktemp("unigram")
        for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
            shutil.copy(shared_data / "models/stories260K/hf" / name, folder)
        specials = ["<unk>", "<s>", "</s>", "<|im_end|>"]
        vocab: list[list[Any]] = [[text, 0.0] for text in specials]
        vocab += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        vocab += [
            ["\u2581", -3.0],
            ["\u2581the", -2.0],
            ["im", -2.5],
            ["_end", -2.5],
            *([chr(c), -4.0] for c in range(33, 127)),
        ]
        spec = {
            "version": "1.0", "truncation": None, "padding": None, "post_processor": None,
            "added_tokens": [
                {"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": number < 3} for number, text in enumerate(specials)
            ],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Metaspace",
                        "replacement": "\u2581", "prepend_scheme": "never", "split": False}]},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": True},
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        return lambda: transformers.load(folder, LoadOptions(threads=1))
