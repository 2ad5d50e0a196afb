"""A small ChatGLM-6B with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llms.backends.base import Backend, LoadOptions
from tests.chatglm_files import random_first

OPTIONS = LoadOptions(context_length=64, cache_tokens=128, max_parallel=2, device="cpu", dtype="float32", threads=1)


@pytest.fixture(scope="session")
def chatglm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, in the original layout."""
    pytest.importorskip("sentencepiece")
    pytest.importorskip("torch")
    return random_first(tmp_path_factory.mktemp("chatglm-6b"), layers=3)


@pytest.fixture(scope="module")
def loaded(chatglm_folder: Path) -> Iterator[Backend]:
    from local_llms.backends import transformers

    backend = transformers.load(chatglm_folder, OPTIONS)
    yield backend
    backend.close()


@pytest.fixture
def backend(loaded: Backend) -> Backend:
    """The loaded model, all sequences empty."""
    for sequence in range(loaded.info.max_sequences):
        loaded.free(sequence)
    return loaded
