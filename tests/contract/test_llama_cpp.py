"""The llama.cpp backend keeps every promise of the protocol, on a small and on a real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Backend, LoadOptions
from local_llms.testing.adapter_contract import AdapterContract
from local_llms.testing.backend_contract import BackendContract, EmbeddingContract


class TestStories(BackendContract):
    """A SentencePiece vocabulary, weights in F32."""

    tolerance = 0.005
    interrupts = True

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        path = shared_data / "models/stories260K/stories260K-F32.gguf"
        options = LoadOptions(context_length=512, cache_tokens=1024, max_parallel=4, threads=1)
        return lambda: llama_cpp.load(path, options)


class TestStoriesAdapter(AdapterContract):
    """A LoRA in a GGUF file."""

    tolerance = 0.005

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        path = shared_data / "models/stories260K/stories260K-F32.gguf"
        return lambda: llama_cpp.load(path, LoadOptions(context_length=256, max_parallel=4, threads=1))

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, shared_data: Path) -> Path:
        return shared_data / "models/stories260K-lora/stories260K-lora-shakespeare-F32.gguf"


class TestNeoX(BackendContract):
    """A byte-level BPE vocabulary and another architecture."""

    tolerance = 0.005

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        path = shared_data / "models/neox-stories/neox-stories-F32.gguf"
        options = LoadOptions(cache_tokens=512, max_parallel=4, threads=1)
        return lambda: llama_cpp.load(path, options)


class TestGLM(BackendContract):
    """An architecture whose attention reads query, key and value from one matrix."""

    tolerance = 0.005

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        path = shared_data / "models/glm-stories/glm-stories-F32.gguf"
        options = LoadOptions(cache_tokens=512, max_parallel=4, threads=1)
        return lambda: llama_cpp.load(path, options)


@pytest.mark.real
class TestSmolLM2(BackendContract):
    """A real chat model in Q4_1."""

    tolerance = 0.06
    interrupts = True

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, smollm2_path: Path) -> Callable[[], Backend]:
        # One thread: several would wait for each other at every step while other tests use the cores.
        options = LoadOptions(context_length=256, cache_tokens=512, max_parallel=4, threads=1)
        return lambda: llama_cpp.load(smollm2_path, options)


@pytest.mark.real
class TestMiniLM(EmbeddingContract):
    """A real embedding model."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, minilm_path: Path) -> Callable[[], Backend]:
        return lambda: llama_cpp.load(minilm_path, LoadOptions(threads=1))
