"""The ctransformers backend keeps every promise of the protocol, on files of each kind and format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_llms.backends import ctransformers
from local_llms.backends.base import Backend, LoadOptions
from local_llms.testing.backend_contract import BackendContract
from tests import ggml_files

pytest.importorskip("ctransformers", reason="the library is absent: pip install local-llms[ctransformers]")


class TestStories(BackendContract):
    """A LLaMA file in the newest of the old formats, weights in F32."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
        path = ggml_files.write_stories(shared_data, tmp_path_factory.mktemp("ggml") / "stories.bin")
        return lambda: ctransformers.load(path, LoadOptions(context_length=512, threads=1))


class TestOldestStories(BackendContract):
    """The first format that has scores, weights in F16."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
        path = tmp_path_factory.mktemp("ggml") / "stories.bin"
        ggml_files.write_stories(shared_data, path, "ggmf", 1, ggml_files.F16)
        return lambda: ctransformers.load(path, LoadOptions(context_length=256, threads=1))


class TestNeoX(BackendContract):
    """GPT-NeoX, whose vocabulary has text in place of bytes."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
        path = ggml_files.write_neox(shared_data, tmp_path_factory.mktemp("ggml") / "neox.bin")
        return lambda: ctransformers.load(path, LoadOptions(threads=1))


class TestGPTJ(BackendContract):
    """GPT-J with random weights."""

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Backend]:
        path, _ = ggml_files.write_gptj(tmp_path_factory.mktemp("ggml") / "gptj.bin")
        return lambda: ctransformers.load(path, LoadOptions(threads=1))
