"""The transformers backend keeps every promise of the protocol, on several architectures and vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_llms.backends import transformers
from local_llms.backends.base import Backend, LoadOptions
from local_llms.testing.adapter_contract import AdapterContract
from local_llms.testing.backend_contract import BackendContract

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
