"""The RWKV backend keeps every promise of the protocol, in each version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local_llms.backends import rwkv
from local_llms.backends.base import Backend, LoadOptions
from local_llms.testing.backend_contract import BackendContract

OPTIONS = LoadOptions(context_length=600, max_parallel=4, threads=1)


class _OfRwkvCpp(BackendContract):
    """A small model in a file of rwkv.cpp, whose tokens are bytes."""

    tolerance = 0.001
    interrupts = True
    model: str

    @pytest.fixture(scope="class")
    @classmethod
    def load(cls, shared_data: Path) -> Callable[[], Backend]:
        path = shared_data / f"models/rwkv/tiny-rwkv-{cls.model}-FP32.bin"
        return lambda: rwkv.load(path, OPTIONS)


class TestVersion4(_OfRwkvCpp):
    model = "4v0-660K"


class TestVersion52(_OfRwkvCpp):
    model = "5v2-730K"


class TestVersion6(_OfRwkvCpp):
    model = "6v0-1m"


class TestVersion7(_OfRwkvCpp):
    model = "7v0-834K"
