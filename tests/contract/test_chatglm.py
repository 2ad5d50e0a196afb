"""The transformers backend keeps the protocol's promises on ChatGLM's original layouts, with and without a prefix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_llms.backends import transformers
from local_llms.backends.base import Backend, LoadOptions
from local_llms.testing.adapter_contract import AdapterContract
from local_llms.testing.backend_contract import BackendContract
from tests.chatglm_files import random_first, random_prefix
from tests.glm_stories import write_original

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

OPTIONS = LoadOptions(context_length=128, cache_tokens=512, max_parallel=4, device="cpu", dtype="float32", threads=1)
Load = Callable[[], Backend]


def opener(folder: Path) -> Load:
    return lambda: transformers.load(folder, OPTIONS)


class TestChatGLM6B(BackendContract):
    """A network of our own, and a SentencePiece vocabulary with pieces for whitespace."""

    tolerance = 0.005

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, tmp_path_factory: pytest.TempPathFactory) -> Load:
        return opener(random_first(tmp_path_factory.mktemp("chatglm")))


class TestChatGLM3(BackendContract):
    """The library's Glm, special tokens behind a SentencePiece model, weights as pickles in parts."""

    tolerance = 0.005
    round_trips = False

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Load:
        source = shared_data / "models" / "glm-stories"
        return opener(write_original(source, tmp_path_factory.mktemp("chatglm3"), name="chatglm3"))


class TestGLM4(BackendContract):
    """The library's Glm, and byte pairs with ranks."""

    tolerance = 0.005

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Load:
        source = shared_data / "models" / "glm-stories"
        return opener(write_original(source, tmp_path_factory.mktemp("glm-4"), name="glm-4"))


class TestPrefixOfChatGLM6B(AdapterContract):
    """P-tuning without a projection."""

    tolerance = 0.005
    scales = False

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, tmp_path_factory: pytest.TempPathFactory) -> Load:
        return opener(random_first(tmp_path_factory.mktemp("chatglm")))

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return random_prefix(tmp_path_factory.mktemp("prefix"), layers=2, heads=8, size=4)


class TestPrefixOfChatGLM2(AdapterContract):
    """P-tuning with a projection, over key-value heads that are shared."""

    tolerance = 0.005
    scales = False

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Load:
        source = shared_data / "models" / "glm-stories"
        return opener(write_original(source, tmp_path_factory.mktemp("chatglm2"), name="chatglm2"))

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return random_prefix(tmp_path_factory.mktemp("prefix"), layers=4, heads=2, size=16, projected=24)
