"""The llama.cpp backend keeps the protocol's promises on models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Backend, LoadOptions
from local_llms.testing.backend_contract import BackendContract, EmbeddingContract

SMALL = LoadOptions(context_length=128, cache_tokens=512, max_parallel=4, threads=1)


class TestTransformer(BackendContract):
    """A KV cache, and a vocabulary whose pieces merge into a control token."""

    tolerance = 0.01

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, tiny_models: dict[str, Path]) -> Callable[[], Backend]:
        return lambda: llama_cpp.load(tiny_models["llama"], SMALL)


class TestRecurrent(BackendContract):
    """A state that can be copied whole, and not cut."""

    tolerance = 0.01

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, tiny_models: dict[str, Path]) -> Callable[[], Backend]:
        return lambda: llama_cpp.load(tiny_models["mamba"], SMALL)

    def test_it_says_that_it_cannot_be_cut(self, backend: Backend) -> None:
        assert not backend.info.can_cut
        assert backend.info.cache_tokens == backend.info.max_sequences * backend.info.context_length


class TestBert(EmbeddingContract):
    """Pooled vectors, no KV cache."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, tiny_models: dict[str, Path]) -> Callable[[], Backend]:
        return lambda: llama_cpp.load(tiny_models["bert"], LoadOptions(context_length=128, max_parallel=4, threads=1))
