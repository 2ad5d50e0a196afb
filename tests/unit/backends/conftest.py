"""Small GGUF files with random weights, written once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.backends import tiny_gguf


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of a "llama", a "mamba" and a "bert"."""
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "llama": tiny_gguf.write_llama(folder / "llama.gguf"),
        "mamba": tiny_gguf.write_mamba(folder / "mamba.gguf"),
        "bert": tiny_gguf.write_bert(folder / "bert.gguf"),
    }
