"""ChatGLM-6B in other number types, and quantized while loading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

from local_llms.backends import transformers
from local_llms.backends.base import Adapter, Backend, Chunk, LoadOptions
from tests.chatglm_files import random_prefix

OPTIONS = LoadOptions(context_length=64, cache_tokens=128, max_parallel=2, device="cpu", dtype="float32", threads=1)
PROMPT = [30, 31, 32, 33, 1, 2, 40]


def opened(folder: Path, options: LoadOptions) -> Iterator[Backend]:
    backend = transformers.load(folder, options)
    yield backend
    backend.close()


@pytest.mark.parametrize(
    ("options", "called", "near"),
    [
        ({"dtype": "bfloat16"}, "bfloat16", 0.3),
        ({"dtype": "float16"}, "float16", 0.05),
        ({"quantization": "int8"}, "int8", 0.2),
        # Four bits are few for rows of 32 numbers.
        ({"quantization": "int4"}, "int4", 1.5),
    ],
)
def test_rows_are_near_those_in_float32(
    chatglm_folder: Path, tmp_path: Path, options: dict[str, str], called: str, near: float
) -> None:
    if "quantization" in options:
        pytest.importorskip("bitsandbytes")
    path = random_prefix(tmp_path / "prefix", layers=3, heads=8, size=4)
    rows = {}
    for choice in (OPTIONS, replace(OPTIONS, **options)):
        for backend in opened(chatglm_folder, choice):
            backend.open_adapter(path)
            kinds = (None, Adapter(path))
            rows[backend.info.quantization] = [
                backend.decode([Chunk(number, 0, PROMPT, "all")], kind).copy() for number, kind in enumerate(kinds)
            ]
    for found, expected in zip(rows[called], rows["float32"], strict=True):
        assert 0 < np.abs(found - expected).max() / expected.std() < near
