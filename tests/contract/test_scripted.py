"""The scripted backend keeps the protocol that the engine is tested on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from local_llms.backends.base import Backend
from local_llms.testing.backend_contract import BackendContract, EmbeddingContract
from local_llms.testing.scripted import ScriptedBackend

SMALL = {"context_length": 160, "cache_tokens": 256, "max_sequences": 8, "batch_tokens": 64}


class TestScripted(BackendContract):
    """Sequences that can be cut."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls) -> Callable[[], Backend]:
        return lambda: ScriptedBackend(**SMALL)


class TestRecurrent(BackendContract):
    """Sequences that cannot be cut."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls) -> Callable[[], Backend]:
        return lambda: ScriptedBackend(**SMALL, can_cut=False)


class TestSlow(BackendContract):
    """Steps that take so long that they can be interrupted."""

    interrupts = True

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls) -> Callable[[], Backend]:
        return lambda: ScriptedBackend(**SMALL, step_seconds=0.01)


class TestEmbedding(EmbeddingContract):
    """Its vectors."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls) -> Callable[[], Backend]:
        return lambda: ScriptedBackend(**SMALL)
