"""The scripted backend keeps the protocol that the engine is tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from local_llms.backends.base import Backend, Chunk
from local_llms.errors import DecodeError
from local_llms.testing.adapter_contract import AdapterContract
from local_llms.testing.backend_contract import BackendContract, EmbeddingContract
from local_llms.testing.scripted import ScriptedBackend, write_adapter

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


class TestAdapters(AdapterContract):
    """Files that say what else the script is given."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls) -> Callable[[], Backend]:
        return lambda: ScriptedBackend(**SMALL)

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write_adapter(tmp_path_factory.mktemp("adapters") / "one")


class TestEmbedding(EmbeddingContract):
    """Its vectors."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls) -> Callable[[], Backend]:
        return lambda: ScriptedBackend(**SMALL)


def test_logits_are_valid_until_the_next_call_only() -> None:
    backend = ScriptedBackend()
    logits = backend.decode([Chunk(0, 0, [1, 2])])
    assert np.isfinite(logits).all()
    backend.free(5)
    assert np.isnan(logits).all()


def test_a_failure_loses_a_recurrent_state() -> None:
    failing = {"fail_on": lambda chunks: any(3 in chunk.tokens for chunk in chunks)}
    for can_cut, left in ((True, {0: [1, 2]}), (False, {})):
        backend = ScriptedBackend(can_cut=can_cut, **failing)
        backend.decode([Chunk(0, 0, [1, 2])])
        with pytest.raises(DecodeError):
            backend.decode([Chunk(0, 2, [3])])
        assert backend.sequences == left
