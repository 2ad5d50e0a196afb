"""A model in the library's layout says the same, word for word, from folders in its original layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llms.backends import transformers
from local_llms.backends.base import Backend, Chunk, LoadOptions
from tests.glm_stories import write_original

pytest.importorskip("torch")
pytest.importorskip("sentencepiece")

OPTIONS = LoadOptions(context_length=256, cache_tokens=512, max_parallel=4, device="cpu", dtype="float32", threads=1)
PROMPTS = ("Once upon a time", "Lily's mom said")


def greedy(backend: Backend, ids: list[int], count: int) -> str:
    """The text of so many tokens."""
    said, start = b"", 0
    for _ in range(count):
        token = int(backend.decode([Chunk(0, start, ids)])[0].argmax())
        start += len(ids)
        ids = [token]
        said += backend.token_bytes(token)
    backend.free(0)
    return said.decode("utf-8", "replace")


@pytest.mark.parametrize("name", ["chatglm2", "chatglm3", "glm-4"])
def test_greedy_text_is_that_of_the_native_layout(data: Path, tmp_path: Path, name: str) -> None:
    source = data / "models" / "glm-stories"
    native = transformers.load(source, OPTIONS)
    original = transformers.load(write_original(source, tmp_path / name, name=name), OPTIONS)
    try:
        assert original.info.template == name.replace("-", "")
        specials = original.info.special_tokens
        start = "<sop>" if name == "glm-4" else "sop"
        assert original.info.prompt_prefix == (specials["[gMASK]"], specials[start])
        for prompt in PROMPTS:
            expected = greedy(native, native.tokenize(prompt), 120)
            assert greedy(original, original.tokenize(prompt), 120) == expected
            assert len(expected) > 200
    finally:
        native.close()
        original.close()
